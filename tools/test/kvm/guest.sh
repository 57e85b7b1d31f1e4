#!/bin/busybox sh
# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash
# Run KVM's selftests in a micro-VM: what kvm.sh runs. Prints TAP.
#
# Usage: guest.sh all|some "TEST [OPTION]..."...
#
# In all tests together, some writes have to reach regions.
#
# Each test runs twice without the module: a test that takes too long, or whose
# results differ, is no oracle. Then it runs with the module and each kind of
# regions.c, and the results must be the same. If they are not, it runs without
# the module $again times more, in case it is no oracle after all. The tests are
# in /tests.
limit=60
again=8
which=$1
shift
# for the regions of 64 VMs, beside what the tests open
ulimit -n 4096
# what some tests need
echo 64 >/proc/sys/vm/nr_hugepages
echo 1 >/sys/module/kvm/parameters/force_emulation_prefix

count=0 failed=0
ran=0 all_vms=0 all_writes=0

# result NAME [WHY]: print a line of TAP, "not ok" if there is a WHY
result() {
	count=$((count + 1))
	if [ -z "${2-}" ]; then
		echo "ok $count $1"
	else
		echo "# $2"
		echo "not ok $count $1"
		failed=1
	fi
}

uptime() { cut -d . -f 1 /proc/uptime; }

# run TEST MODE [VARIABLE=VALUE]...: run a test, and put what must not differ
# into /tmp/MODE: the exit status, and lines of TAP
run() {
	test=$1 mode=$2
	shift 2
	echo "kvm: $test $mode" >/dev/kmsg
	began=$(uptime)
	# shellcheck disable=SC2086	# a test and its options
	setsid env "$@" timeout -k 5 $limit /tests/$test >/tmp/output 2>&1 &
	wait $!
	status=$?
	# its children, if it was stopped
	kill -9 -$! 2>/dev/null
	echo "# $test $mode: status $status, $(($(uptime) - began)) s"
	echo "status $status" >"/tmp/$mode"
	grep -E '^ *(ok|not ok|1\.\.)' /tmp/output >>"/tmp/$mode"
}

# the number after a word in the books, added up
booked() {
	awk -v word="$1" '$1 == word { n += $2 } END { print n + 0 }' /books
}

# unstable TEST: are the results without the module at times these, and at times
# others? If they are always others, the module has left its mark on KVM.
unstable() {
	same='' others=''
	unload "$1"
	for _ in $(seq $again); do
		run "$1" again
		if cmp -s /tmp/oracle /tmp/again; then
			same=y
		else
			others=y
		fi
		[ "$same$others" != yy ] || break
	done
	insmod /doorbell.ko
	[ "$same$others" = yy ]
}

# Run a test with regions, and compare.
compare() {
	: >/books
	run "$1" "$2" LD_PRELOAD=/regions.so REGIONS="$2" BOOKS=/books
	vms=$(booked vm)
	writes=$(booked writes)
	name="$1, $2: $vms VMs, $writes writes"
	if ! cmp -s /tmp/oracle "/tmp/$2"; then
		diff /tmp/oracle "/tmp/$2" | sed 's/^/# /'
		tail -n 20 /tmp/output | sed 's/^/# /'
		if unstable "$1"; then
			result "$name # SKIP unstable without regions"
		else
			result "$name" "differs from runs without the module"
		fi
	elif grep '^error' /books; then
		result "$name" "not all regions were as they should"
	elif [ "$status" = 4 ]; then
		result "$name # SKIP by the test itself"
	else
		result "$name"
		[ "$status" != 0 ] || ran=$((ran + 1))
		all_vms=$((all_vms + vms))
		all_writes=$((all_writes + writes))
	fi
}

unload() {
	for _ in $(seq 100); do
		rmmod doorbell 2>/dev/null && return
		sleep 0.1
	done
	lsmod
	result "$1" "doorbell.ko cannot be unloaded"
}

echo "TAP version 13"
for test in "$@"; do
	run "$test" oracle
	if [ "$status" = 143 ] || [ "$status" = 137 ]; then
		result "$test # SKIP takes more than $limit s without regions"
		continue
	fi
	run "$test" again
	if ! cmp -s /tmp/oracle /tmp/again; then
		result "$test # SKIP unstable without regions"
		continue
	fi
	insmod /doorbell.ko
	compare "$test" bound
	compare "$test" full
	unload "$test"
done
if [ "$which" = all ]; then
	why=
	[ $all_writes -gt 0 ] || why="no write at all"
	result "writes reach the regions" "$why"
fi
echo "# kvm $ran $all_vms $all_writes"
echo "1..$count"
exit $failed
