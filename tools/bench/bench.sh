#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# All ways from a guest's ring to a consumer, in instructions: "make bench".
#
# Usage: bench.sh [KERNEL]...	(default 6.1 6.12)
#
# Builds the modules and the program, runs it in one virtual machine per kernel,
# prints tables, and writes build/bench.json and build/bench.svg. What was
# measured stays in build/bench/.
set -euo pipefail

top=$(cd "$(dirname "$0")/../.." && pwd)
here=$top/tools/bench
out=$top/build/bench
[ $# -gt 0 ] || set -- 6.1 6.12

run_kernel()
{
	local kernel=$1 ko floor dir

	ko=$("$top/tools/testbed/module.sh" "$kernel")
	dir=$("$top/tools/testbed/kernel.sh" "$kernel")

	# kernel builds write beside the sources: give each kernel its own links
	floor=$out/$kernel.floor
	mkdir -p "$floor/tools/bench"
	cp -rsf "$top/drivers" "$top/include" "$floor/"
	cp -sf "$here/Kbuild" "$here"/floor.[ch] "$floor/tools/bench/"
	find "$floor" -xtype l -delete
	make -C "$dir/build" M="$floor/tools/bench" W=1 KCFLAGS=-Werror modules \
		>"$floor/build.log" 2>&1 || { cat "$floor/build.log"; return 1; } >&2

	echo "kernel $(cat "$dir/release")" >"$out/$kernel.txt"
	"$top/tools/testbed/run.sh" -k "$kernel" -o -t 1200 -l "$out/$kernel.log" \
		-f "$here/guest.sh:/bench/guest.sh" -f "$out/bench:/bench/bench" \
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
[ $failed -eq 0 ] || { echo "bench: failed" >&2; exit 1; }

results=("${@/#/$out/}")
exec "$here/report.py" "$top/build/bench.json" "$top/build/bench.svg" \
	"${results[@]/%/.txt}"
