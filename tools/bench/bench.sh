#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Count the instructions of each way from a guest's ring to a consumer: what
# "make bench" runs.
#
# Usage: bench.sh [KERNEL]...	(default 6.1 6.12)
#
# Builds the modules and the program, runs it in one virtual machine per kernel,
# prints tables, and writes build/bench.json and build/bench.svg. The raw
# measurements stay in build/bench/.
set -euo pipefail

. "$(dirname "$0")/../testbed/lib.sh"
me=bench
here=$top/tools/bench
out=$top/build/bench
[ $# -gt 0 ] || set -- 6.1 6.12

run_kernel()
{
	local kernel=$1 ko floor dir lib libs=()

	ko=$("$testbed/module.sh" "$kernel")
	dir=$("$testbed/kernel.sh" "$kernel")

	floor=$out/$kernel.floor
	link_sources "$floor" drivers include
	link_sources "$floor/tools/bench" tools/bench/{Kbuild,floor.c,floor.h}
	build_modules "$dir" "$floor/tools/bench" >"$floor/build.log" 2>&1 ||
		{ cat "$floor/build.log"; return 1; } >&2

	while read -r lib; do
		libs+=(-f "$lib:$lib")
	done < <(ldd "$out/calls" | grep -o '/[^ ]*')

	{
		echo "kernel $(cat "$dir/release")"
		echo "module $ko/doorbell.ko"
	} >"$out/$kernel.txt"
	"$testbed/run.sh" -k "$kernel" -o -t 1200 -l "$out/$kernel.log" \
		-f "$here/guest.sh:/bench/guest.sh" \
		-f "$out/bench:/bench/bench" -f "$out/calls:/bench/calls" \
		-f "$out/libdoorbell-ioeventfd.so:/bench/preload.so" \
		"${libs[@]}" \
		-f "$ko/doorbell.ko:/bench/doorbell.ko" \
		-f "$floor/tools/bench/floor.ko:/bench/floor.ko" \
		-- /bench/guest.sh >>"$out/$kernel.txt"
}

mkdir -p "$out"
make -s -C "$here" OUTPUT="$out"

failed=0
pids=()
for kernel; do
	echo "bench: $kernel"
	run_kernel "$kernel" &
	pids+=($!)
done
for pid in "${pids[@]}"; do
	wait "$pid" || failed=1
done
[ $failed -eq 0 ] || die 1 failed

results=("${@/#/$out/}")
"$here/report.py" "$top/build/bench.json" "${results[@]/%/.txt}"
exec "$here/plot.py" "$top/build/bench.json" "$top/build/bench.svg"
