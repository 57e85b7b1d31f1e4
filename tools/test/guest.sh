#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Runs in a micro-VM: every test program in /tests, and the KUnit suites where
# the kernel has them, as TAP with a line before and after each program.
#
# The kernel log is run.sh's to judge.
status=0

begin() { echo "# begin $1"; }
end() { echo "# end $1 $2"; [ "$2" -eq 0 ] || status=1; }

# KCSAN: look at more accesses than at boot
skip=/sys/module/kcsan/parameters/skip_watch
[ ! -e $skip ] || echo 500 >$skip

if [ -e /tests/doorbell_kunit.ko ]; then
	begin kunit
	insmod /tests/doorbell_kunit.ko
	ret=$?
	for suite in /sys/kernel/debug/kunit/doorbell*/results; do
		cat "$suite" || ret=1
		# a suite that was loaded but did not run says ok as well
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
