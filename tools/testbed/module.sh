#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Build this checkout's kernel modules for one of kernel.sh's kernels.
#
# Usage: module.sh NAME
#
# Prints the directory that holds doorbell.ko, and doorbell_kunit.ko if the
# kernel has KUnit. A warning is an error. For 6.12-gcov the modules count what
# runs. Exit status: 77 if the kernel is unavailable.
set -euo pipefail

. "$(dirname "$0")/lib.sh"
kernel=$("$testbed/kernel.sh" "$1")
out=$top/build/$1

cd "$top"
mkdir -p "$out"
exec 9>"$out/.lock"
flock 9

link_sources "$out" Kbuild drivers include kunit
cross "$1"
if [[ $1 = *-gcov ]]; then
	cross+=(GCOV_PROFILE=y)
	# count the branches of a function once, not once in each caller
	for file in drivers/virt/doorbell/*.[ch]; do
		sed -i 's/__always_inline/inline/' "$out/$file"
		touch -r "$top/$file" "$out/$file"
	done
fi
if ! build_modules "$kernel" "$out" "${cross[@]}" >"$out/build.log" 2>&1; then
	cat "$out/build.log" >&2
	die 1 "the modules do not build for $1"
fi
ln -sf drivers/virt/doorbell/doorbell.ko "$out/doorbell.ko"
if [ -e "$out/kunit/doorbell_kunit.ko" ]; then
	ln -sf kunit/doorbell_kunit.ko "$out/doorbell_kunit.ko"
fi
echo "$out"
