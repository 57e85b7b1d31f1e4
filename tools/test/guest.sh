#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Run test programs in a micro-VM, and the KUnit suites if the kernel has KUnit.
#
# Usage: guest.sh PROGRAM...
#
# Prints the TAP of the programs, which are in /tests, with a line before and
# after each, the latter with the exit status and the time. run.sh judges the
# kernel log.
status=0

uptime() { cut -d . -f 1 /proc/uptime; }
begin() {
	echo "# begin $1"
	began=$(uptime)
}
end() {
	echo "# end $1 $2 $(($(uptime) - began)) s"
	[ "$2" -eq 0 ] || status=1
}

# KCSAN: watch more accesses than during boot.
skip=/sys/module/kcsan/parameters/skip_watch
[ ! -e $skip ] || echo 500 >$skip

if [ -e /tests/doorbell_kunit.ko ]; then
	begin kunit
	insmod /tests/doorbell_kunit.ko
	ret=$?
	for suite in /sys/kernel/debug/kunit/doorbell*/results; do
		cat "$suite" || ret=1
		# a suite prints "ok" even if it did not run
		grep -q '^# Totals: ' "$suite" || ret=1
		! grep -q '^ *not ok' "$suite" || ret=1
	done
	rmmod doorbell_kunit || ret=1
	end kunit $ret
fi

export DOORBELL_KO=/tests/doorbell.ko
insmod $DOORBELL_KO || exit 1
for prog in "$@"; do
	begin "$prog"
	"/tests/$prog"
	end "$prog" $?
done
exit $status
