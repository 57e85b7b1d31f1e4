#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Check the numbers that other projects rely on: part of "make lint".
#
# Usage: lint-abi.sh LIST [CHECKOUT]
#
# LIST is ioctl-number.rst of the kernel: it must not give DOORBELL_IOC to
# anyone else. All files that name the version must name the module's. What
# syzkaller reads must have the structures and constants of the header.
set -uo pipefail

. "$(dirname "$0")/../testbed/lib.sh"
me=lint
list=$(readlink -f "${1:?the list of ioctl numbers}")
cd "${2:-$top}" || exit 1

# value FILE REGEX: print the group of the first line that is all REGEX
value() {
	sed -n "s/^$2$/\1/p" "$1" | head -n 1
}

# same FILE REGEX: the group is the module's version
same() {
	local got
	got=$(value "$@")

	[ "$got" = "$version" ] ||
		fail "$1 has version '$got', the module '$version'"
}

type=$(value include/uapi/linux/doorbell.h \
	'#define DOORBELL_IOC[[:space:]]*\(.*\)')
if [ -z "$type" ] || ! grep -q "^0xDD " "$list" ||
   grep -i "^$type " "$list" >&2; then
	fail "ioctl type '$type'"
fi

version=$(value drivers/virt/doorbell/chardev.c 'MODULE_VERSION("\(.*\)");')
[ -n "$version" ] || fail "the module has no version"
same tools/lib/doorbell/Makefile 'VERSION := \(.*\)'
same dkms.conf 'PACKAGE_VERSION="\(.*\)"'
same debian/changelog 'doorbell (\(.*\)) .*'
same tools/package/doorbell.spec 'Version: \(.*\)'
same CHANGELOG.md '## \(.*\)'
same SECURITY.md '.* which today is \([^,]*\),.*'
same README.md '.*dkms install doorbell\/\(.*\)'
# make install puts the version of the Makefile there
grep -qx 'Version: @VERSION@' tools/lib/doorbell/libdoorbell.pc.in ||
	fail "libdoorbell.pc.in has a version of its own"

"$top/tools/syzkaller/consts.sh" . |
	cmp - tools/syzkaller/dev_doorbell.txt.const >&2 ||
	fail "dev_doorbell.txt.const is not of today: tools/syzkaller/consts.sh"
exit $failed
