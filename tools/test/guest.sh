#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Run test programs in a micro-VM, and the KUnit suites if the kernel has KUnit.
#
# Usage: guest.sh PROGRAM[:OPTION]...
#
# Prints the TAP of the programs, which are in /tests, with a line before and
# after each, the latter with the exit status and the time. A program has to
# leave nothing that keeps doorbell.ko from being unloaded. run.sh judges the
# kernel log. With DOORBELL_REPEAT=N, all of it runs N times.
export DOORBELL_KO=/tests/doorbell.ko
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

# Unload doorbell.ko. Processes that were killed may use it for a moment, and an
# rmmod that waits cannot be killed: it is left behind.
unload() {
	for try in $(seq 30); do
		rmmod doorbell 2>/dev/null &
		for _ in $(seq 10); do
			[ -d /sys/module/doorbell ] || return 0
			sleep 0.1
		done
		[ "$try" -gt 1 ] || rmmod=$!
	done
	echo "# $1 left something: doorbell.ko cannot be unloaded"
	lsmod
	cat "/proc/$rmmod/stack"
	return 1
}

# KCSAN: watch more accesses than during boot.
skip=/sys/module/kcsan/parameters/skip_watch
[ ! -e $skip ] || echo 500 >$skip

kunit() {
	insmod /tests/doorbell_kunit.ko
	ret=$?
	for suite in /sys/kernel/debug/kunit/doorbell*/results; do
		cat "$suite" || ret=1
		# a suite prints "ok" even if it did not run
		grep -q '^# Totals: ' "$suite" || ret=1
		! grep -q '^ *not ok' "$suite" || ret=1
	done
	rmmod doorbell_kunit || ret=1
	return $ret
}

run() {
	# shellcheck disable=SC2046	# the options are words of their own
	insmod $DOORBELL_KO && /tests/$(echo "$1" | tr : ' ')
	ret=$?
	unload "$1" || ret=1
	return $ret
}

for _ in $(seq "${DOORBELL_REPEAT:-1}"); do
	if [ -e /tests/doorbell_kunit.ko ]; then
		begin kunit
		kunit
		end kunit $?
	fi
	for prog in "$@"; do
		begin "$prog"
		run "$prog"
		end "$prog" $?
	done
done
exit $status
