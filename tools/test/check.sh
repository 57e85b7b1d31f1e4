#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Run all tests on all kernels: what "make check" runs.
#
# Usage: check.sh PROGRAMS [KERNEL]...
#
# PROGRAMS is a list for programs.sh; kernels without KUnit leave kunit out. In
# the environment, PROGRAMS_ARM64 is the list for kernels of arm64, ELSEWHERE
# one of KERNEL/PROGRAM that are left to other kernels, PART one of
# KERNEL/PROGRAM:OPTION... that run in addition, and HOST_TESTS one of scripts
# beside this one that run on this machine, PARALLEL one of PROGRAM:OPTION...
# without guests that the debug kernels run once more, in a machine of its own
# whose CPUs run in parallel, with KUnit; 6.12-kcsan runs nothing else. With
# LONG=N, loops that are bounded by time have N times that time, else a fourth.
# With DOORBELL_REPEAT=N, each machine runs all its programs N times.
# This script builds the modules, boots one micro-VM per kernel, some at a time,
# and adds up their TAP. Each machine is a test of its own: it passes if nothing
# hangs or panics and the kernel log has no bug report. build/check/ keeps all
# output. The last line is "N passed, N failed".
set -uo pipefail

. "$(dirname "$0")/../testbed/lib.sh"
out=$top/build/check
read -ra programs <<<"$1"
shift
# For a machine that hangs: the tests have limits of their own. Beside the build
# of a kernel, and two other machines, a debug machine may take 20 minutes.
limit=${LIMIT:-1800}
ELSEWHERE=${ELSEWHERE:-}
read -ra programs_arm64 <<<"${PROGRAMS_ARM64:-}"
read -ra parallel <<<"${PARALLEL:-}"

# verdict KERNEL STATUS: print "clean", "skip WHY", or the failure of a machine.
verdict() {
	local kernel=$1 ret=$2

	case $ret in
	77)
		echo "skip kernel $kernel is unavailable:" \
			"$(tail -n 1 "$out/$kernel.err")"
		;;
	124) echo "hung, stopped after $limit s" ;;
	125) echo "panicked, or ended without a verdict" ;;
	*)
		if "$testbed/splat.sh" "$out/$kernel.log" >&2; then
			echo clean
		else
			echo "a bug report in the kernel log"
		fi
		;;
	esac
}

# run_here NAME COMMAND...: run a test program on this machine.
run_here() {
	local name=$1 ret
	shift

	{
		echo "# begin $name"
		"$@"
		ret=$?
		echo "# end $name $ret"
		case $ret in
		77) echo "# verdict skip $name cannot run here" ;;
		*) echo "# verdict clean" ;;
		esac
	} >"$out/$name.tap" 2>"$out/$name.err"
	echo "check: $name done after $SECONDS s"
}

# Build the modules for a kernel, and the kernel if the cache lacks it. Sets ko.
# The machines of earlier kernels go first: they have a time limit.
prepare() {
	local kernel=$1 ret

	echo "check: preparing $kernel"
	ko=$(nice "$testbed/module.sh" "$kernel" 2>"$out/$kernel.err")
	ret=$?
	case $ret in
	0) return 0 ;;
	77) echo "# verdict $(verdict "$kernel" 77)" ;;
	*)
		cat "$out/$kernel.err" >&2
		echo "# verdict the modules do not build"
		;;
	esac >"$out/$kernel.tap"
	return 1
}

# machine NAME KERNEL ARG...: what programs.sh does with these is NAME's result.
machine() {
	local name=$1 kernel=$2
	shift 2

	"$top/tools/test/programs.sh" -k "$kernel" -t "$limit" \
		-l "$out/$name.log" "$@" >"$out/$name.tap" 2>"$out/$name.err"
	echo "# verdict $(verdict "$name" $?)" >>"$out/$name.tap"
	echo "check: $name done after $SECONDS s"
}

run_kernel() {
	local kernel=$1 ko=$2 prog cpus=2 bin=$top/build
	local run=() list=("${programs[@]}")

	if [[ $kernel == *-arm64* ]]; then
		bin+=/arm64 list=("${programs_arm64[@]}")
	fi
	# run each thread of the KUnit suites on a CPU of its own
	[[ $kernel != *-kcsan ]] || list=(kunit "${parallel[@]}") cpus=4
	for prog in "${list[@]}"; do
		[[ " $ELSEWHERE " == *" $kernel/$prog "* ]] ||
		[[ $prog == kunit && ! -e $ko/doorbell_kunit.ko ]] ||
			run+=("$prog")
	done
	for prog in ${PART:-}; do
		[[ $prog != "$kernel"/* ]] || run+=("${prog#*/}")
	done
	if [ ${#run[@]} -eq 0 ]; then
		echo "# verdict skip none of the programs runs on $kernel" \
			>"$out/$kernel.tap"
		return
	fi
	machine "$kernel" "$kernel" -c $cpus -b "$bin" "$ko" "${run[@]}"
}

rm -rf "$out"
mkdir -p "$out"
# Wait until fewer machines run than there are CPUs and one more: a machine does
# not keep a CPU busy all the time.
room() {
	while [ "$(jobs -rp | wc -l)" -gt "$(nproc)" ]; do
		wait -n
	done
}

# The Makefile names the slowest kernels first. Build one kernel at a time,
# while machines of earlier kernels run.
for kernel; do
	prepare "$kernel" || continue
	if [ "$kernel" = 6.1 ]; then
		room
		run_here install "$top/tools/test/install.sh" &
	fi
	if [ "$kernel" = 6.12 ]; then
		room
		run_here qemu "$top/tools/qemu/qemu.sh" --short &
	fi
	room
	run_kernel "$kernel" "$ko" &
	if [ "${#parallel[@]}" -gt 0 ] && [[ $kernel == *-debug ]]; then
		room
		machine "$kernel-parallel" "$kernel" -p -c 4 "$ko" kunit \
			"${parallel[@]}" &
	fi
done
for test in ${HOST_TESTS:-}; do
	room
	run_here "$test" "$top/tools/test/$test.sh" &
done
wait

exec "$top/tools/test/tap.py" "$out"/*.tap
