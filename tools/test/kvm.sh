#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Run KVM's own selftests without the module, and with regions in each of their
# VMs: what "make check-kvm" runs.
#
# Usage: kvm.sh KERNEL [TEST]...
#
# The selftests are those of the packaged kernel source, without TEST all that
# it builds for x86. kvm/guest.sh runs them, in a few machines, on a kernel of
# kernel.sh. Each machine is a test of its own, as in check.sh. build/kvm/ keeps
# all output. The last lines count what ran, and say "N passed, N failed".
set -uo pipefail

. "$(dirname "$0")/../testbed/lib.sh"
me=kvm
here=$top/tools/test/kvm
out=$top/build/kvm
# More machines than CPUs, as one may have most of the slow tests.
machines=4
limit=${LIMIT:-1800}
tests=()

# Tests that take too long without options, and tests with more of them
options()
{
	cat <<-EOF
	demand_paging_test -b 16M -v 2
	demand_paging_test -b 16M -v 2 -u MISSING
	demand_paging_test -b 16M -v 2 -u MINOR -s shmem
	dirty_log_page_splitting_test -b 16M
	dirty_log_perf_test -b 16M -i 2
	dirty_log_perf_test -b 16M -i 2 -a -e -g -x 4
	dirty_log_perf_test -b 16M -i 2 -n
	dirty_log_test -i 3 -M dirty-log
	dirty_log_test -i 3 -M clear-log
	dirty_log_test -i 3 -M dirty-ring
	kvm_page_table_test -b 16M
	max_guest_memory_test -m 1 -c 1
	memslot_modification_stress_test -b 16M -i 10
	memslot_modification_stress_test -b 16M -i 10 -q
	memslot_perf_test -l 1 -s 64 -f 0 -e 0
	memslot_perf_test -l 1 -s 64 -f 1 -e 1
	memslot_perf_test -l 1 -s 64 -f 3 -e 3
	memslot_perf_test -l 1 -s 64 -f 4 -e 4
	memslot_perf_test -l 1 -s 64 -f 5 -e 5
	EOF
}

# Build the selftests. Each ucall, by which a guest reports to its test, reads a
# port; here it writes, so that regions get it.
build()
{
	local source=$1 kvm=tools/testing/selftests/kvm
	local src=$out/src ucall=lib/x86_64/ucall.c

	rm -rf "$src"
	mkdir -p "$src/${kvm%/kvm}" "$out/obj"
	ln -s "$source/scripts" "$src"
	ln -s "$source"/tools/{arch,build,include,lib,scripts} "$src/tools"
	ln -s "$source/${kvm%/kvm}"/{*.h,lib.mk,rseq} "$src/${kvm%/kvm}"
	cp -rs "$source/$kvm" "$src/$kvm"
	sed -i 's/in %\[port\], %%al/out %%al, %[port]/' "$src/$kvm/$ucall"
	! cmp -s "$source/$kvm/$ucall" "$src/$kvm/$ucall" ||
		die 1 "ucall.c is another one"
	# the same for make as last time
	touch -r "$source/$kvm/$ucall" "$src/$kvm/$ucall"

	make -s -C "$source" O="$out/headers" headers &&
	make -s -j"$(nproc)" -C "$src/$kvm" OUTPUT="$out/obj" \
		KHDR_INCLUDES="-isystem $out/headers/usr/include"
}

# pack DIR: put regions.c, and the selftests without what debuggers need, into
# DIR. Sets libs.
pack()
{
	local test

	rm -rf "$1"
	mkdir -p "$1"
	gcc -std=gnu11 -O2 -Wall -Wextra -Werror -D_GNU_SOURCE \
		-I"$top/include/uapi" -shared -fPIC -pthread \
		-o "$out/regions.so" "$here/regions.c" || return
	for test in "${programs[@]}"; do
		strip -o "$1/${test##*/}" "$out/obj/$test" || return
	done
	mapfile -t libs < <(ldd "$1"/* "$out/regions.so" |
		sed -n 's/^[^/]*\(\/[^ ]*\) (.*/\1/p' | sort -u)
}

# machine NUMBER: run every machines-th test
machine()
{
	local i lib run=() args=() ret

	for ((i = $1; i < ${#tests[@]}; i += machines)); do
		run+=("${tests[i]}")
	done
	[ ${#run[@]} -gt 0 ] || return
	for lib in "${libs[@]}"; do
		args+=(-f "$lib:$lib")
	done
	# which pthread_cancel() loads
	lib=libgcc_s.so.1
	args+=(-f "$(gcc -print-file-name=$lib):/lib/$lib")
	{
		echo "# begin kvm"
		"$testbed/run.sh" -k "$kernel" -m 3072 -t "$limit" \
			-l "$out/$1.log" -f "$ko/doorbell.ko" \
			-f "$out/tests" -f "$out/regions.so" \
			-f "$here/guest.sh" "${args[@]}" \
			-- /guest.sh $which "${run[@]}"
		ret=$?
		# run.sh says 126 for a bug report, which the verdict has
		echo "# end kvm $((ret == 126 ? 0 : ret))"
		if "$testbed/splat.sh" "$out/$1.log" >&2; then
			echo "# verdict clean"
		else
			echo "# verdict a bug report in the kernel log"
		fi
	} >"$out/$1.tap" 2>"$out/$1.err"
	say "machine $1 done after $SECONDS s"
}

[ $# -gt 0 ] || usage
kernel=$1
shift
which=all
[ $# -eq 0 ] || which=some
mkdir -p "$out"
rm -f "$out"/*.{tap,log,err}
source=$("$testbed/kernel.sh" source-6.12) || die $? "no source of Linux 6.12"
ko=$("$testbed/module.sh" "$kernel") || die $? "no module for $kernel"
build "$source" >"$out/build.log" 2>&1 ||
	{ tail -n 30 "$out/build.log" >&2; die 1 "the selftests do not build"; }
mapfile -t programs < <(sed -n 's/^TEST_GEN_PROGS_x86_64 +\?= //p' \
	"$source/tools/testing/selftests/kvm/Makefile")
for name; do
	[[ " ${programs[*]##*/} " = *" $name "* ]] || die 1 "no test $name"
done
for program in "${programs[@]##*/}"; do
	[ $# -eq 0 ] || [[ " $* " = *" $program "* ]] || continue
	mapfile -t -O ${#tests[@]} tests < <(options | grep "^$program " ||
		echo "$program")
done
pack "$out/tests" || die 1 "the programs do not build"

for ((number = 0; number < machines; number++)); do
	while [ "$(jobs -rp | wc -l)" -ge "$(nproc)" ]; do
		wait -n
	done
	machine $number &
done
wait
awk '/^# kvm / { ran += $3; vms += $4; writes += $5 }
	END { printf "%d runs with regions in %d VMs, %.0f writes to them\n",
		     ran, vms, writes }' "$out"/*.tap
exec "$top/tools/test/tap.py" "$out"/*.tap
