#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Make sure that a minimal Debian is in the cache, and print the path of its
# image, a squashfs.
#
# Usage: debian.sh [fresh]
#
# It is this machine's release, with the packages that README.md asks for on a
# host, and the headers of kernel.sh's stock 6.1. With "fresh", apt has yet to
# install what doorbell's packages depend on, and the headers of the stock 6.12:
# they are in apt's cache, so that it needs no network. mmdebstrap makes the
# image, from the mirror that this machine uses. This needs no root, and
# installs nothing.
#
# The cache is that of kernel.sh. Exit status: 77 if a package is unavailable.
set -euo pipefail

. "$(dirname "$0")/lib.sh"
use_cache

export LC_ALL=C

name=${1-host}
packages=(
	# README.md asks for them
	linux-headers-amd64 gcc make python3 pkg-config libsmartcols-dev
	# each Debian host has them: apt installs libc6-dev with gcc
	libc6-dev kmod sudo udev
)
later=()
if [ "$name" = fresh ]; then
	packages=(linux-headers-amd64 kmod udev)
	later=(dkms systemd gcc libc6-dev pkg-config)
fi
small=(
	--dpkgopt='path-exclude=/usr/share/doc/*'
	--dpkgopt='path-exclude=/usr/share/man/*'
	--dpkgopt='path-exclude=/usr/share/locale/*'
	# tests wait for no disk, either: what they install is thrown away
	--dpkgopt=force-unsafe-io
)

# Print options with which apt reaches the mirror as it does on this machine,
# for instance through a proxy.
acquire()
{
	apt-config dump | grep -E '^Acquire::(https?|Check-[A-Za-z-]*)\b' |
		grep -v ' "";$' | sed 's/^/--aptopt=/'
}

# make_image FILE
#
# linux-headers-amd64 may be newer in the mirror than the kernel in the cache,
# so this asks for the kernel's own headers, too.
make_image()
{
	local apt

	say "making a Debian with the headers of $release (about a minute)"
	mapfile -t apt < <(acquire)
	# shellcheck disable=SC2016	# mmdebstrap expands it
	[ "$name" = host ] || apt+=(
		--skip=cleanup/apt
		--customize-hook='chroot "$1" apt-get -qy --download-only \
			--no-install-recommends \
			install '"${later[*]}"
		--customize-hook='rm -f "$1/etc/resolv.conf"'
	)
	# shellcheck disable=SC2016	# mmdebstrap expands it
	sources | mmdebstrap --format=tar --variant=minbase \
		--include="${packages[*]} linux-headers-$release" \
		"${small[@]}" "${apt[@]}" \
		--customize-hook='rm -f "$1/etc/apt/apt.conf.d/99mmdebstrap"' \
		'' - - |
		mksquashfs - "$1" -tar -comp zstd -Xcompression-level 3 \
			-quiet -no-progress >&2
}

kernel=$("$testbed/kernel.sh" 6.1)
release=$(cat "$kernel/release")
recipe=$(printf '%s\n' "${packages[@]}" "${small[@]}" | sha256sum)
image=$cache/debian_${kernel##*_}_${recipe:0:12}.squashfs
if [ "$name" = fresh ]; then
	newer=$("$testbed/kernel.sh" 6.12)
	later+=("linux-headers-$(cat "$newer/release")")
	recipe=$(printf '%s\n' "${packages[@]}" "${small[@]}" "${later[@]}" |
		sha256sum)
	image=$cache/debian-fresh_${kernel##*_}_${recipe:0:12}.squashfs
fi
if [ ! -e "$image" ]; then
	lock debian
fi
if [ ! -e "$image" ]; then
	tmp=$cache/tmp-debian
	rm -f "$tmp"
	if ! make_image "$tmp"; then
		rm -f "$tmp"
		die 77 "cannot make a Debian with the headers of $release"
	fi
	mv "$tmp" "$image"
fi
echo "$image"
