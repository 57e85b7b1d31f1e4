#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Make sure that herd7 is in the cache, and print the path of a script that runs
# it.
#
# Only Debian sid has the package herdtools7. This script unpacks it beside the
# loader and the libraries of sid: herd7 then does not depend on the libraries
# of this machine, and nothing is installed.
#
# The cache and the package lists of sid in it are those of kernel.sh. Exit
# status: 77 if a package is unavailable.
set -euo pipefail

. "$(dirname "$0")/lib.sh"
use_cache
packages=(herdtools7 libc6 libgmp10)

export LC_ALL=C

if [ "$(dpkg --print-architecture 2>/dev/null)" != amd64 ]; then
	die 77 "needs Debian on amd64"
fi

# Unpack the packages into $tmp, and add the script that runs herd7.
unpack()
{
	local loader

	rm -rf "$tmp"
	download "$tmp/root" "${packages[@]}" || return 1
	loader=$(cd "$tmp" &&
		 find root -name ld-linux-x86-64.so.2 ! -type l | sed -n 1p)
	if [ -z "$loader" ] || [ ! -d "$tmp/root/usr/share/herdtools7/herd" ]
	then
		return 1
	fi
	cat > "$tmp/herd7" <<-RUN
		#!/bin/sh
		here=\$(dirname "\$0")
		root=\$here/root/usr
		lib=\$root/lib/x86_64-linux-gnu
		exec "\$here/$loader" --library-path "\$lib" \\
			"\$root/bin/herd7" \\
			-set-libdir "\$root/share/herdtools7/herd" "\$@"
	RUN
	chmod +x "$tmp/herd7"
	"$tmp/herd7" -version >/dev/null
}

ver=
if use_sid; then
	ver=$(candidate herdtools7) || ver=
fi
dir=$cache/herdtools7_$ver
tmp=$cache/tmp-herdtools7
lock herdtools7
if [ -z "$ver" ] || [ ! -e "$dir" ]; then
	if [ -n "$ver" ] && unpack; then
		mv "$tmp" "$dir"
	else
		rm -rf "$tmp"
		dir=$(newest_cached 'herdtools7_*')
		[ -n "$dir" ] || die 77 "cannot get herdtools7 of Debian sid"
		say "cannot get herdtools7${ver:+ $ver}, using ${dir##*/}"
	fi
fi
echo "$dir/herd7"
