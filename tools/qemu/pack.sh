#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Make sure that Debian's QEMU is in the cache, unpacked and ready to be put
# into a micro-VM with all that it needs, and print its directory.
#
# The directory holds programs and firmware of the packages, and the libraries
# that ldd names. These are this machine's own: setup.sh has installed them with
# qemu-system-x86 and e2fsprogs.
#
# The cache is that of kernel.sh. Exit status: 77 if a package is unavailable.
set -euo pipefail

. "$(dirname "$0")/../testbed/lib.sh"
me=pack.sh
use_cache

packages=(qemu-system-x86 qemu-system-common qemu-system-data seabios
	e2fsprogs)
programs=(usr/bin/qemu-system-x86_64 usr/bin/qemu-storage-daemon sbin/e2fsck)
firmware=(seabios/bios-256k.bin qemu/qboot.rom qemu/kvmvapic.bin qemu/pvh.bin)

# pack FROM TO: copy what QEMU needs out of the unpacked packages
pack()
{
	local file

	mkdir -p "$2"/{usr/bin,usr/share/qemu,sbin}
	for file in "${programs[@]}"; do
		cp "$1/$file" "$2/$file" || return 1
		ldd "$2/$file" >"$2.ldd" || return 1
		! grep 'not found' "$2.ldd" >&2 || return 1
		sed -n 's/^[^/]*\(\/[^ ]*\) (.*/\1/p' "$2.ldd" |
			xargs -I{} cp -L --parents {} "$2" || return 1
	done
	for file in "${firmware[@]}"; do
		cp "$1/usr/share/$file" "$2/usr/share/qemu/" || return 1
	done
	rm "$2.ldd"
}

version=$(candidate qemu-system-x86) || version=
recipe=$(sha256sum <"$0")
dir=$cache/qemu_${version##*:}_${recipe:0:12}
if [ -z "$version" ]; then
	dir=$(newest_cached 'qemu_*')
	[ -n "$dir" ] || die 77 "apt knows no qemu-system-x86"
fi
[ -e "$dir" ] || lock qemu
if [ ! -e "$dir" ]; then
	tmp=$cache/tmp-qemu
	rm -rf "$tmp" "$tmp.all" "$tmp.all.debs"
	if download "$tmp.all" "${packages[@]}"; then
		pack "$tmp.all" "$tmp" || die 1 "cannot pack QEMU"
		mv "$tmp" "$dir"
	else
		dir=$(newest_cached 'qemu_*')
		[ -n "$dir" ] || die 77 "cannot download QEMU"
		say "cannot download QEMU $version, using ${dir##*/}"
	fi
	rm -rf "$tmp.all" "$tmp.all.debs"
fi
echo "$dir"
