#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# shellcheck disable=SC2317	# check() calls functions by name
# Check the series of "make kernel-patch" with the packaged source of 6.12:
# checkpatch, and a build with each of its patches applied.
#
# The configuration is that of the testbed's kernels. Only drivers/virt is
# built, as a module and built in, not the whole kernel; kbuild also compiles
# <linux/doorbell.h> on its own, and the selftests are built. Prints TAP. Exit
# status: 1 if a test fails, 77 if the source is unavailable.
set -uo pipefail

. "$(dirname "$0")/../testbed/lib.sh"
export LC_ALL=C
out=$top/build/kernel-patch
tree=$out/tree
build=$out/build
log=$out/log
count=0

# check NAME COMMAND...: print a line of TAP: does the command succeed?
check()
{
	local ret

	"${@:2}" >"$log" 2>&1
	ret=$?
	count=$((count + 1))
	if [ $ret -eq 0 ]; then
		echo "ok $count $1"
	else
		tail -n 30 "$log" | sed 's/^/# /'
		echo "not ok $count $1"
		failed=1
	fi
}

# whatever the configuration of git, and what it says of files
series()
{
	local name

	mkdir -p "$out/git"
	printf '%s\n' config '*.map' >"$out/git/ignore"
	echo '* -diff' >"$out/git/attributes"
	cat >"$out/gitconfig" <<-EOF
	[commit]
		gpgsign = true
	[gpg]
		program = false
	[diff]
		noprefix = true
	EOF
	XDG_CONFIG_HOME=$out GIT_CONFIG_GLOBAL=$out/gitconfig \
		"$top/tools/package/kernel-patch.sh" "$source" "$out" || return
	for name in doorbell/config libdoorbell.map; do
		grep -q "^+++ b/.*/$name\$" "$out"/*.patch || return
	done
	! grep '^GIT binary patch' "$out"/*.patch
}

# own DIR: a directory of the tree's own, with links to what the source's has.
# Others use the source, too, and it has very many files.
own()
{
	local dir=$1

	[ "$dir" = . ] || own "$(dirname "$dir")" || return
	[ -L "$tree/$dir" ] || [ ! -d "$tree/$dir" ] || return 0
	[ "$dir" = . ] || rm -f "$tree/$dir"
	mkdir -p "$tree/$dir" || return
	[ ! -d "$source/$dir" ] ||
		find "$source/$dir" -mindepth 1 -maxdepth 1 \
			-exec ln -s -t "$tree/$dir" {} +
}

# Link the source, and copy the files that change.
apply()
{
	local file patch

	while read -r file; do
		own "$(dirname "$file")" || return
		[ ! -e "$source/$file" ] ||
			cp --remove-destination "$source/$file" "$tree/$file" ||
			return
	done < <(sed -n 's,^+++ b/,,p' "$out"/*.patch | sort -u)
	for patch in "$out"/*.patch; do
		patch -p1 -s -F 0 -d "$tree" <"$patch" || return
	done
}

# The first patch has the entry in MAINTAINERS for all of them. Only what is in
# tools/ is user space.
style()
{
	local ignore=FILE_PATH_CHANGES

	# a trace header has its own style
	! grep -q '^+++ b/drivers/' "$1" ||
		ignore+=,OPEN_ENDED_LINE,PARENTHESIS_ALIGNMENT

	! grep -q '^+++ b/tools/lib/\|^+++ b/tools/testing/.*[ch]$' "$1" ||
		ignore+=,$user_style
	# with a tree it asks for the maintainer of each file: minutes
	"$source/scripts/checkpatch.pl" --no-tree --strict --no-summary \
		--ignore "$ignore" "$1"
}

# Is the list of ioctl numbers still a table?
table()
{
	python3 -m docutils --halt=warning \
		"$tree/Documentation/userspace-api/ioctl/ioctl-number.rst" \
		/dev/null
}

# kernel y|m: build drivers/virt with doorbell built in, or as a module
kernel()
{
	local made=$build/drivers/virt/doorbell

	rm -rf "$made"
	cat "$testbed"/{base,user}.config - >"$out/fragments" <<-EOF
	CONFIG_VIRT_DRIVERS=y
	CONFIG_DOORBELL=$1
	EOF
	make -C "$tree" O="$build" KCONFIG_ALLCONFIG="$out/fragments" \
		allnoconfig &&
		grep -x "CONFIG_DOORBELL=$1" "$build/.config" &&
		make -C "$tree" O="$build" -j"$(nproc)" W=1 KCFLAGS=-Werror \
			drivers/virt/ || return
	case $1 in
	y) nm "$build/drivers/virt/built-in.a" ;;
	m) ! nm "$build/drivers/virt/built-in.a" | grep doorbell &&
		nm "$made/doorbell.o" ;;
	esac | grep ' t doorbell_read$'
}

# kbuild builds nothing where no KVM is: Kconfig does not offer it.
without_kvm()
{
	sed '/KVM/d' "$out/fragments" >"$out/fragments-without"
	make -C "$tree" O="$build" KCONFIG_ALLCONFIG="$out/fragments-without" \
		allnoconfig && ! grep DOORBELL "$build/.config"
}

header()
{
	make -C "$tree" O="$build" headers &&
		gcc -std=c90 -Wall -Wextra -Werror -fsyntax-only \
			-I"$build/usr/include" -x c \
			"$build/usr/include/linux/doorbell.h"
}

selftests()
{
	mkdir -p "$out/selftests"
	make -C "$tree/tools/testing/selftests/doorbell" -j"$(nproc)" \
		OUTPUT="$out/selftests" \
		KHDR_INCLUDES="-isystem $build/usr/include"
}

source=$("$testbed/kernel.sh" source-6.12)
case $? in
0) ;;
77) echo "1..0 # SKIP the source of Linux 6.12 is unavailable"; exit 77 ;;
*) echo "Bail out! kernel.sh failed"; exit 1 ;;
esac
rm -rf "$out"
mkdir -p "$out"

check "the series can be made" series
check "it applies to 6.12" apply
for path in "$out"/*.patch; do
	check "checkpatch: $(basename "$path")" style "$path"
done
check "the list of ioctl numbers is a table" table
check "built in" kernel y
check "as a module" kernel m
check "not without KVM" without_kvm
check "<linux/doorbell.h> is exported" header
check "the selftests build" selftests
rm -rf "$tree"

echo "1..$count"
exit "$failed"
