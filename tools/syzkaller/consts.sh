#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Print the constants of dev_doorbell.txt for amd64, as syzkaller has them in
# dev_doorbell.txt.const. Fails if a structure there is not that of the header.
#
# Usage: consts.sh [CHECKOUT]
set -euo pipefail

. "$(dirname "$0")/../testbed/lib.sh"
cd "${1:-$top}"
txt=tools/syzkaller/dev_doorbell.txt
tmp=$(mktemp -d)
trap 'rm -rf "$tmp"' EXIT

# What is used, without the names of calls (after a $)
used() {
	sed -e '/^\(#\|include\|define\)/d' -e 's/\$[A-Za-z_]*//' $txt
}

# The place of each field in its structure; an array of unknown length is last
layout() {
	awk '
	function size(type,	n) {
		n = type ~ /^fd_/ ? 4 : type ~ /^ptr64/ ? 8 : 0
		if (match(type, /int[0-9]+/))
			n = n ? n : substr(type, RSTART + 3, RLENGTH - 3) / 8
		if (match(type, /, [0-9]+\]$/))
			n *= substr(type, RSTART + 2, RLENGTH - 3)
		return n
	}
	/^doorbell_.* \{$/ { name = $1; at = 0; last = ""; next }
	/^\}/ && name {
		if (last !~ /\tarray.*:/)
			print "_Static_assert(sizeof(struct " name ") == " at \
				", \"" name "\");"
		name = ""
	}
	name {
		print "_Static_assert(offsetof(struct " name ", " $1 ") == " \
			at ", \"" name "." $1 "\");"
		last = $0
		sub(/^\t[a-z_0-9]+\t+/, "")
		sub(/\t+\((in|out)\)$/, "")
		at += size($0)
	}' $txt
}

{
	echo '#define _GNU_SOURCE'
	printf '#include <%s>\n' fcntl.h stddef.h stdio.h sys/mman.h \
		sys/syscall.h linux/doorbell.h
	sed -n 's/^define/#define/p' $txt
	layout
	echo 'int main(void) {'
	{
		used | grep -oE '\b[A-Z][A-Z_]{2,}\b'
		sed -n 's/^\([a-z][a-z0-9]*\)\$.*(.*/__NR_\1/p' $txt
	} | LC_ALL=C sort -u |
		sed 's/.*/printf("& = %llu\\n", (unsigned long long)&);/'
	echo '}'
} >"$tmp/consts.c"
${CC:-gcc} -Werror -Iinclude/uapi -o "$tmp/consts" "$tmp/consts.c"
echo "# SPDX-License-Identifier: GPL-2.0"
echo "# Made by consts.sh from dev_doorbell.txt"
echo "arches = amd64"
"$tmp/consts"
