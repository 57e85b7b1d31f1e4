#!/bin/sh
# SPDX-License-Identifier: GPL-2.0
# Run tests against mutants in a micro-VM.
#
# /jobs has a line for each mutant: its number, and TEST:LIMIT of each test that
# may kill it: a KUnit suite, or a program with an option, with a limit in
# seconds; or leak.
# guest.sh, which is /programs.sh here, runs them one after the other, until one
# fails, does not end, or leaves a bug report or a module.
#
# Prints "run NUMBER TEST" before each test, "passed NUMBER TEST" or "killed
# NUMBER TEST" after it, and "over" after each mutant. Mutant 0 is none: what
# passes is followed by the time in seconds, and the mutants that were reached.
# Ends early if the machine is not as it was, or after some minutes.

uptime() { cut -d . -f 1 /proc/uptime; }

# run TEST LIMIT
run() {
	program=$1
	rm -f /tests/doorbell_kunit.ko
	case $1 in
	leak)
		leak=/sys/kernel/debug/kmemleak
		echo scan >$leak
		sleep 6
		echo scan >$leak
		! grep . $leak
		return
		;;
	doorbell_*)
		ln -s /doorbell_kunit.ko /tests/
		printf %s "$1" >/sys/module/kunit/parameters/filter_glob
		program=
		;;
	esac
	# shellcheck disable=SC2086	# no program if it is a suite
	timeout -s KILL "$2" /programs.sh $program
}

# Is the machine as it was before the test?
clean() {
	/splat.sh /tmp/log && [ ! -d /sys/module/doorbell ] &&
		[ ! -d /sys/module/doorbell_kunit ] && [ "$killed" != leak ]
}

mv /tests/doorbell_kunit.ko /
dmesg -c >/dev/null
while read -r number jobs && [ "$(uptime)" -lt 300 ]; do
	hostname "$number"
	killed=
	for job in $jobs; do
		test=${job%:*}
		echo "run $number $test"
		began=$(uptime)
		run "$test" "${job##*:}" >/tmp/out 2>&1 || killed=$test
		seconds=$(($(uptime) - began))
		dmesg -c >/tmp/log
		clean >/tmp/splat || killed=$test
		[ -z "$killed" ] || break
		reached=$(sed -n 's/.*mutant \(.*\) reached/\1/p' /tmp/log |
			tr '\n' ' ')
		[ "$number" = 0 ] || seconds=
		echo "passed $number $test $seconds $reached"
	done
	if [ -n "$killed" ]; then
		echo "killed $number $killed"
		cat /tmp/out /tmp/splat | tail -n 100 | sed 's/^/# /'
		echo over
		clean >/dev/null || break
	else
		echo over
	fi
done </jobs
exit 0
