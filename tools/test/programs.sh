#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Run test programs in a micro-VM.
#
# Usage: programs.sh [OPTION]... MODULES PROGRAM...
#
# MODULES is the directory that module.sh printed. PROGRAM is one of
# build/selftests, with options after a colon each; or demo, examples, or kunit.
# With LONG=N, loops that are bounded by time have N times that time, else a
# fourth. The options are those of run.sh, and:
#
#   -g SCRIPT   let this script run the programs, which are its arguments, in
#               the machine, instead of guest.sh
#   -b DIR      take the programs from DIR, which is like build/
#
# Prints what the script prints. Exit status: that of run.sh.
set -euo pipefail

. "$(dirname "$0")/../testbed/lib.sh"
guest=$top/tools/test/guest.sh
bin=$top/build
# from 7.x on KUnit runs suites only with kunit.autorun
args=(-a kunit.autorun=1)
while getopts b:k:c:pt:l:f:g: opt; do
	case $opt in
	b) bin=$OPTARG ;;
	g) guest=$OPTARG ;;
	[kctlf]) args+=("-$opt" "$OPTARG") ;;
	p) args+=(-p) ;;
	*) usage ;;
	esac
done
shift $((OPTIND - 1))
[ $# -gt 1 ] || usage
modules=$1
shift

# What is not static needs its libraries where ld.so looks for them.
libraries() {
	local lib

	while read -r lib; do
		args+=(-f "$lib:$lib")
	done < <(ldd "$@" 2>/dev/null | grep -o '\s/[^ ]*' | sort -u)
}

run=()
for arg; do
	prog=${arg%%:*}
	case $prog in
	kunit)
		args+=(-f "$modules/doorbell_kunit.ko:/tests/doorbell_kunit.ko")
		continue
		;;
	demo)
		args+=(-f "$top/tools/demo/demo.sh:/tests/demo.sh"
		       -f "$top/tools/test/demo:/tests/demo")
		for file in demo-vmm demo-consumer; do
			args+=(-f "$bin/user/$file:/tests/$file")
		done
		;;
	examples)
		args+=(-f "$top/tools/test/examples:/tests/examples"
		       -f "$bin/examples:/examples")
		libraries "$bin"/examples/{consumer_cc,uring}
		;;
	preload)
		# the library that it loads
		file=libdoorbell-ioeventfd.so
		args+=(-f "$bin/selftests/$file:/tests/$file")
		;;&
	tool)
		args+=(-f "$bin/tools/doorbell:/bin/doorbell")
		libraries "$bin/tools/doorbell"
		;;&
	*)
		args+=(-f "$bin/selftests/$prog:/tests/$prog")
		libraries "$bin/selftests/$prog"
		;;
	esac
	run+=("$arg")
done
args+=(-f "$modules/doorbell.ko:/tests/doorbell.ko" -f "$guest:/guest.sh")
# for fuzz, guest.sh and soak
mapfile -t vars < <(env | grep -E "^DOORBELL_(FUZZ|REPEAT|SOAK)")
[ -z "${LONG:-}" ] || vars+=("DOORBELL_LONG=$LONG")
exec "$testbed/run.sh" "${args[@]}" -- env "${vars[@]}" /guest.sh "${run[@]}"
