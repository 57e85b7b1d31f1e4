# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0
# What the scripts of the checkout share. A bash script sources this file first.
#
# A script that calls say() may set $me, with which the messages begin.

# shellcheck disable=SC2034	# the scripts use them
{
	top=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
	testbed=$top/tools/testbed
	me=${0##*/}
}

say() { echo "$me: $*" >&2; }

# die STATUS MESSAGE
die() { say "$2"; exit "$1"; }

# fail MESSAGE: say it and go on. The script ends with "exit $failed".
failed=0
fail() { say "$*"; failed=1; }

# Print the names of the shell scripts in the checkout that the caller is in.
shell_scripts()
{
	git ls-files -co --exclude-standard '*.sh'
	git grep --untracked -lIE '^#!/bin/(bash|sh|busybox)' -- ':!*.sh'
}

# Print the comment that a script begins with, from "Usage:" on.
usage() { sed -n '/^# Usage/,/^set/s/^# \{0,1\}//p' "$0" >&2; exit 2; }

# -- the cache ---------------------------------------------------------------
# Set cache to the directory of kernels and tools. Deleting it is safe.
use_cache()
{
	cache=${DOORBELL_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/doorbell}
	mkdir -p "$cache"
	cache=$(cd "$cache" && pwd -P)
}

# Lock one thing in the cache until the script ends or takes the next lock.
lock()
{
	exec 9>"$cache/.lock-$1"
	flock -n 9 ||
		{ say "waiting for another process that prepares $1"; flock 9; }
}

# newest_cached GLOB: print the newest directory of that name, if any
newest_cached()
{
	find "$cache" -maxdepth 1 -name "$1" | sort -V | tail -n 1
}

# -- apt ---------------------------------------------------------------------
# The options of all apt commands. use_sid() adds to them.
apt_args=(-q)
[ "$(id -u)" != 0 ] || apt_args+=(-o APT::Sandbox::User=root)

as_root()
{
	if [ "$(id -u)" = 0 ]; then
		"$@"
	else
		sudo "$@"
	fi
}

# candidate PACKAGE: print the version that apt would fetch, or fail
candidate()
{
	LC_ALL=C apt-cache "${apt_args[@]}" policy "$1" |
		sed -n 's/^  Candidate: //p' | grep -v '^(none)$'
}

# sources [ARCHS]: print this machine's apt sources for its own release, as
# sources of these architectures (arm64,amd64) if named
sources()
{
	local codename deb="deb ${1:+[arch=$1] }"

	codename=$(sed -n 's/^VERSION_CODENAME=//p' /etc/os-release)
	# shellcheck disable=SC2016	# apt expands it
	apt-get indextargets --format \
		'$(CODENAME) '"$deb"'$(REPO_URI) $(RELEASE) $(COMPONENT)' \
		'Created-By: Packages' 'Origin: Debian' 'Architecture: amd64' |
		sed -n "s/^${codename}[^ ]* //p" | sort -u
}

# use_lists NAME ARCHS SOURCES: from here on let apt read only these sources.
# The first architecture is that of packages named without one. The cache holds
# the lists; refresh them once a day.
use_lists()
{
	local own=$cache/$1 acquire=Acquire::IndexTargets::deb

	lock "$1"
	mkdir -p "$own/lists/partial" "$own/archives/partial"
	[ -n "$3" ] || return 1
	echo "$3" > "$own/sources.list"
	apt_args+=(
		-o "Dir::Etc::sourcelist=$own/sources.list"
		-o Dir::Etc::sourceparts=-
		-o "Dir::State::lists=$own/lists"
		-o "Dir::Cache=$own"
		-o APT::Get::List-Cleanup=0
		-o "APT::Architecture=${2%%,*}"
		-o "APT::Architectures=$2"
		-o Acquire::Languages=none
		-o "$acquire::Contents-deb::DefaultEnabled=false"
	)
	[ -z "$(find "$own/fresh" -mtime -1 2>/dev/null)" ] || return 0
	say "refreshing the package lists of $1"
	if apt-get "${apt_args[@]}" -q -o APT::Update::Error-Mode=any update >&2
	then
		touch "$own/fresh"
	else
		say "$1 is not reachable, using the lists in the cache"
	fi
}

# Debian sid, from the mirror that this machine uses for its own packages
use_sid()
{
	local mirror

	# shellcheck disable=SC2016	# apt expands it
	mirror=$(apt-get indextargets --format '$(REPO_URI)' \
		'Created-By: Packages' 'Origin: Debian' 'Label: Debian' |
		sed -n 1p)
	use_lists sid amd64 "${mirror:+deb [arch=amd64] $mirror sid main}"
}

# This machine's release for arm64, and for amd64 beside it
use_arm64()
{
	use_lists arm64 arm64,amd64 "$(sources arm64,amd64)" ||
		die 77 "apt has no sources of Debian"
}

# download DIR PACKAGE[=VERSION]...: download packages and unpack them into DIR
download()
{
	local to=$1 deb
	shift

	rm -rf "$to.debs"
	mkdir -p "$to.debs" "$to"
	say "downloading $*"
	(cd "$to.debs" && apt-get "${apt_args[@]}" -q download "$@" >&2) ||
		return 1
	for deb in "$to.debs"/*.deb; do
		dpkg-deb -x "$deb" "$to" || return 1
	done
	rm -rf "$to.debs"
}

# -- modules -----------------------------------------------------------------
# cross KERNEL: set cross to the arguments of make for a kernel of that name
cross()
{
	cross=()
	case $1 in
	*-arm64*) cross=(ARCH=arm64 CROSS_COMPILE=aarch64-linux-gnu-) ;;
	esac
}

# link_sources DIR PATH...: link these paths of the checkout into DIR. A kernel
# build writes beside the sources, so each build needs its own links.
link_sources()
{
	local dir=$1
	shift

	mkdir -p "$dir"
	cp -rsf "${@/#/$top/}" "$dir/"
	find "$dir" -xtype l -delete
}

# build_modules KERNEL DIR [ARGUMENT]...: build the modules in DIR, with KUnit
# suites, for the kernel in the directory KERNEL. A warning is an error.
build_modules()
{
	local llvm

	# a kernel that clang has built
	llvm=$(sed -n 's/^CONFIG_CLANG_VERSION=\(..\)....$/LLVM=-\1/p' \
		"$1/build/.config")
	make -C "$1/build" M="$2" W=1 KCFLAGS=-Werror ${llvm:+"$llvm"} \
		DOORBELL_KUNIT=y "${@:3}" modules
}

# -- style -------------------------------------------------------------------
# User space has no strscpy(), __section, u32 or BIT(), and returns errno as it
# likes. Macros of the kselftest harness look like calls but begin blocks.
ignored=(
	STRCPY VOLATILE PREFER_DEFINED_ATTRIBUTE_MACRO AVOID_EXTERNS
	PREFER_KERNEL_TYPES BIT_MACRO USE_NEGATIVE_ERRNO CAMELCASE
	EMBEDDED_FUNCTION_NAME COMPLEX_MACRO MACRO_ARG_REUSE SPACING
	MACRO_WITH_FLOW_CONTROL BRACES LEADING_SPACE LINE_SPACING
	LONG_LINE_STRING ENOSYS
)
# for checkpatch --ignore
# shellcheck disable=SC2034	# the scripts use it
user_style=$(IFS=, && echo "${ignored[*]}")
