#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Make sure that herd7 is in the cache and print the path of a script that runs it.
#
# The package herdtools7 is in Debian sid only. It is unpacked beside sid's own
# loader and libraries, so that it runs whatever the machine's own are, and
# nothing is installed.
#
# The cache is ${DOORBELL_CACHE:-${XDG_CACHE_HOME:-~/.cache}/doorbell}, the one of
# kernel.sh, with which it shares the package lists of sid; it may be deleted at
# any time. Exit status: 77 if the packages cannot be had.
set -euo pipefail

cache=${DOORBELL_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/doorbell}
mkdir -p "$cache"
cache=$(cd "$cache" && pwd -P)
sid=$cache/sid
packages=(herdtools7 libc6 libgmp10)

export LC_ALL=C

say() { echo "herd.sh: $*" >&2; }
die() { say "$2"; exit "$1"; }

# Hold the lock on one thing in the cache until the script ends or takes the next.
lock()
{
	exec 9>"$cache/.lock-$1"
	flock -n 9 || { say "waiting for another process that prepares $1"; flock 9; }
}

cached()
{
	find "$cache" -maxdepth 1 -name 'herdtools7_*' | sort -V | tail -n 1
}

if [ "$(dpkg --print-architecture 2>/dev/null)" != amd64 ]; then
	die 77 "needs Debian on amd64"
fi

apt_args=(-q)
[ "$(id -u)" != 0 ] || apt_args+=(-o APT::Sandbox::User=root)

# Read Debian sid from its own lists, once a day, from the machine's own mirror.
use_sid()
{
	local mirror
	lock sid
	mkdir -p "$sid/lists/partial" "$sid/archives/partial"
	# shellcheck disable=SC2016	# for apt to expand
	mirror=$(apt-get indextargets --format '$(REPO_URI)' \
		'Created-By: Packages' 'Origin: Debian' 'Label: Debian' | sed -n 1p)
	[ -n "$mirror" ] || return 1
	echo "deb [arch=amd64] $mirror sid main" > "$sid/sources.list"
	apt_args+=(-o "Dir::Etc::sourcelist=$sid/sources.list" -o Dir::Etc::sourceparts=-
		-o "Dir::State::lists=$sid/lists" -o "Dir::Cache=$sid"
		-o APT::Get::List-Cleanup=0 -o APT::Architectures=amd64
		-o Acquire::Languages=none -o Acquire::IndexTargets::deb::Contents-deb::DefaultEnabled=false)
	[ -z "$(find "$sid/fresh" -mtime -1 2>/dev/null)" ] || return 0
	say "refreshing the package lists of Debian sid"
	if apt-get "${apt_args[@]}" -q -o APT::Update::Error-Mode=any update >&2; then
		touch "$sid/fresh"
	else
		say "Debian sid is not reachable, going on with what is here"
	fi
}

# Download and unpack into $tmp, and add the script that runs herd7.
unpack()
{
	local deb loader
	rm -rf "$tmp"
	mkdir -p "$tmp/debs" "$tmp/root"
	say "downloading ${packages[*]}"
	(cd "$tmp/debs" && apt-get "${apt_args[@]}" -q download "${packages[@]}" >&2) ||
		return 1
	for deb in "$tmp"/debs/*.deb; do
		dpkg-deb -x "$deb" "$tmp/root" || return 1
	done
	rm -rf "$tmp/debs"

	loader=$(cd "$tmp" && find root -name ld-linux-x86-64.so.2 ! -type l | sed -n 1p)
	[ -n "$loader" ] && [ -d "$tmp/root/usr/share/herdtools7/herd" ] || return 1
	cat > "$tmp/herd7" <<-RUN
		#!/bin/sh
		here=\$(dirname "\$0")
		lib=\$here/root/usr/lib/x86_64-linux-gnu
		exec "\$here/$loader" --library-path "\$lib" "\$here/root/usr/bin/herd7" \\
			-set-libdir "\$here/root/usr/share/herdtools7/herd" "\$@"
	RUN
	chmod +x "$tmp/herd7"
	"$tmp/herd7" -version >/dev/null
}

ver=
if use_sid; then
	ver=$(apt-cache "${apt_args[@]}" policy herdtools7 |
		sed -n 's/^  Candidate: //p' | grep -v '^(none)$') || ver=
fi
dir=$cache/herdtools7_$ver
tmp=$cache/tmp-herdtools7
lock herdtools7
if [ -z "$ver" ] || [ ! -e "$dir" ]; then
	if [ -n "$ver" ] && unpack; then
		mv "$tmp" "$dir"
	else
		rm -rf "$tmp"
		dir=$(cached)
		[ -n "$dir" ] || die 77 "cannot get herdtools7 of Debian sid"
		say "cannot get herdtools7${ver:+ $ver}, using ${dir##*/}"
	fi
fi
echo "$dir/herd7"
