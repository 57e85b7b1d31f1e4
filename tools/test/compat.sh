#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Check that the module builds for kernels that kernel.sh does not have: one
# that clang built, and one whose vendor backported what compat.mk probes for.
# Others must be refused by one #error. Prints TAP.
set -uo pipefail

. "$(dirname "$0")/../testbed/lib.sh"
export LC_ALL=C
out=$top/build/compat
log=$out/log
count=0

# result STATUS NAME: print a line of TAP, and the end of $log if a test failed
result()
{
	count=$((count + 1))
	if [ "$1" -eq 0 ]; then
		echo "ok $count $2"
	else
		tail -n 30 "$log" | sed 's/^/# /'
		echo "not ok $count $2"
		failed=1
	fi
}

# sources NAME: make a checkout of its own, set src
sources()
{
	src=$out/$1
	rm -rf "$src"
	link_sources "$src" Kbuild Makefile drivers include \
		kunit selftests tools
}

# headers NAME FILE...: copy the headers of 6.1, FILEs to write to, set tree
headers()
{
	local file dir common

	tree=$out/$1-headers
	dir=$(readlink -f "$kernel/build")
	common=$(sed -n 's/^include \(.*\)\/Makefile$/\1/p' "$dir/Makefile")
	rm -rf "$tree"
	mkdir -p "$tree/build" &&
		cp -as "$common" "$tree/common" || return
	for file in "$dir"/*; do
		[ "${file##*/}" = include ] ||
			ln -s "$(readlink -f "$file")" "$tree/build/"
	done
	cp -as "$dir/include" "$dir/.config" "$tree/build/" || return
	rm "$tree/build/Makefile"
	echo "include $tree/common/Makefile" >"$tree/build/Makefile"
	for file in "${@:2}"; do
		file=$tree/$file
		cp --remove-destination "$(readlink -f "$file")" "$file" ||
			return
	done
}

# refused NAME MESSAGE FILE EXPRESSION: with this file of the kernel edited, is
# this the one error of the build?
refused()
{
	sources "$1"
	headers "$1" "$3" && sed -i "$4" "$tree/$3" || return
	! make -C "$tree/build" M="$src" modules >"$log" 2>&1 || return
	[ "$(grep -c 'error:' "$log")" -eq 1 ] &&
		grep -F "error: #error \"$2\"" "$log" >/dev/null
}

# Build for a 6.1 with the changes of 6.3 and 6.8 that compat.mk probes for.
backports()
{
	local mm=common/include/linux/mm.h
	local eventfd=common/include/linux/eventfd.h

	sources backports
	headers backports $mm $eventfd || return
	sed -i 's/\(eventfd_signal(struct eventfd_ctx \*ctx\), __u64 n)/\1)/' \
		"$tree/$eventfd"
	sed -i '/^static inline void vma_init(/i \
static inline void vm_flags_mod(struct vm_area_struct *vma,\
				vm_flags_t set, vm_flags_t clear)\
{\
	vma->vm_flags = (vma->vm_flags | set) \& ~clear;\
}\
' "$tree/$mm"
	make -C "$tree/build" M="$src" W=1 KCFLAGS=-Werror modules >"$log" 2>&1
}

# Configure 6.12 for clang, and build for it with the Makefile, which has to
# choose clang itself. There is no vmlinux, so modpost knows no symbols.
clang()
{
	local source tree=$out/clang-kernel

	source=$("$testbed/kernel.sh" source-6.12) || return
	mkdir -p "$tree"
	cat "$testbed"/{base,user}.config >"$out/fragments"
	make -C "$source" O="$tree" LLVM=1 -j"$(nproc)" \
		KCONFIG_ALLCONFIG="$out/fragments" allnoconfig \
		modules_prepare >"$log" 2>&1 || return
	sources clang
	make -C "$src" KDIR="$tree" W=1 KCFLAGS=-Werror DOORBELL_KUNIT=y \
		KBUILD_MODPOST_WARN=1 >"$log" 2>&1 || return
	readelf -p .comment "$src/drivers/virt/doorbell/doorbell.ko" \
		>>"$log" && grep "clang version" "$log" >/dev/null
}

mkdir -p "$out"
kernel=$("$testbed/kernel.sh" 6.1)
case $? in
0) ;;
77) echo "1..0 # SKIP Linux 6.1 is unavailable"; exit 77 ;;
*) echo "Bail out! kernel.sh failed"; exit 1 ;;
esac

generated=build/include/generated
refused old "doorbell needs Linux 6.1 or newer" \
	$generated/uapi/linux/version.h '/LINUX_VERSION_CODE/s/[0-9]\+$/393235/'
result $? "one #error for a kernel that is too old"
refused nokvm "doorbell needs a kernel with KVM (CONFIG_KVM)" \
	$generated/autoconf.h '/CONFIG_KVM\(_MODULE\)\? /d'
result $? "one #error for a kernel without KVM"
backports
result $? "a vendor's 6.1 with backported helpers"
clang
result $? "a kernel that clang builds"

echo "1..$count"
exit "$failed"
