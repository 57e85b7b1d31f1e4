#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Make sure that a test kernel is in the cache and print its directory.
#
# Usage: kernel.sh NAME
#
#   6.1, 6.12       Debian's stock amd64 kernel and its headers, unpacked only
#   6.1-rt, 6.12-rt the same with PREEMPT_RT
#   6.12-debug      linux-source-6.12 with base, user, debug and
#                   qemu.config
#   6.12-rt-debug   as 6.12-debug, with rt.config in place of qemu.config
#   6.12-hardened   linux-source-6.12 built by clang with base, user and
#                   hardened.config: what distributions differ in
#   7.2-debug       the newest linux-source-7.x of Debian sid with base, user,
#                   debug and 7.config
#   6.12-kcsan      linux-source-6.12 with base, user and kcsan.config
#   6.12-gcov       linux-source-6.12 with base, user and gcov.config
#   6.12-guest      linux-source-6.12 with guest.config: a guest's kernel
#   6.12-arm64      Debian's stock arm64 kernel and its headers, unpacked only
#   6.12-arm64-debug
#                   linux-source-6.12 with arm64.config on top of 6.12-debug's
#   source-6.12     only the unpacked source tree of linux-source-6.12
#   user-amd64      only BusyBox, as its package conflicts with another BusyBox
#   user-arm64      that, and what test programs of arm64 need
#
# A kernel's directory holds vmlinuz (for QEMU), build (for make -C), release
# (a text file with its name) and, for stock kernels of amd64,
# modules/lib/modules/RELEASE.
#
# The cache is ${DOORBELL_CACHE:-${XDG_CACHE_HOME:-~/.cache}/doorbell}. Deleting
# it is safe. Exit status: 77 if a package is unavailable, 1 for errors.
set -euo pipefail

. "$(dirname "$0")/lib.sh"
name=${1-}
me="kernel.sh: $name"
use_cache

export LC_ALL=C
unset MAKEFLAGS MFLAGS GNUMAKEFLAGS MAKEOVERRIDES MAKELEVEL ARCH \
	CROSS_COMPILE KBUILD_OUTPUT KCFLAGS KCPPFLAGS CC CFLAGS CPPFLAGS \
	LDFLAGS O M V W C || :

# -- packages ----------------------------------------------------------------
# Refresh the package lists of this machine.
update_lists()
{
	say "refreshing the package lists"
	as_root apt-get -qq update >&2
}

# candidate() of this machine's own release
stable_candidate()
{
	candidate "$1" || { update_lists && candidate "$1"; }
}

# Without a cross compiler and an emulator there is no kernel of arm64.
need_arm64()
{
	local tool

	for tool in aarch64-linux-gnu-gcc qemu-system-aarch64; do
		command -v "$tool" >/dev/null || die 77 "there is no $tool"
	done
}

# Start over once, after a failed download, with fresh lists if apt gets them.
again()
{
	[ -z "${DOORBELL_AGAIN-}" ] || return 0
	export DOORBELL_AGAIN=y
	case $name in
	7*) rm -f "$cache/sid/fresh" ;;
	*-arm64) rm -f "$cache/arm64/fresh" ;;
	*) update_lists || return 0 ;;
	esac
	exec "$0" "$name"
}

# Download packages. If that fails, start over once with fresh lists.
fetch()
{
	download "$@" || { again; return 1; }
}

# -- stock kernels -----------------------------------------------------------
# uncompress VMLINUZ VMLINUX: a kernel that unpacks itself takes seconds in
# emulation. The offsets are those of the x86 boot protocol.
uncompress()
{
	local sectors offset length with

	sectors=$(od -An -tu1 -j497 -N1 "$1")
	offset=$(od -An -tu4 -j584 -N4 "$1")
	length=$(od -An -tu4 -j588 -N4 "$1")
	for with in xz zstd gzip; do
		head -c $(((sectors + 1) * 512 + offset + length - 4)) "$1" |
			tail -c $((length - 4)) |
			$with -dc > "$2" 2>/dev/null && return 0
	done
	rm -f "$2"
	return 1
}

# stock META [arm64]: unpack the kernel that the meta-package META depends on
stock()
{
	local meta=$1 arch=${2:-amd64} image pkg rel ver headers tmp linux

	linux=${name%-rt}
	linux=${linux%-"$arch"}
	ver=$(stable_candidate "$meta") || ver=
	image="linux-image-${linux//./\\.}\.[^ ]*"
	pkg=$(apt-cache "${apt_args[@]}" depends --important "$meta" |
		sed -n "s/^ *|*Depends: \($image\)$/\1/p" | sed -n 1p)
	if [ -z "$ver" ] || [ -z "$pkg" ]; then
		die 77 "apt knows no $meta with Linux $linux"
	fi
	rel=${pkg#linux-image-}
	dir=$cache/${name}_$ver
	[ ! -e "$dir" ] || return 0
	lock "$name"
	[ ! -e "$dir" ] || return 0

	# the tools of the headers run on this machine
	mapfile -t headers < <(
		apt-cache "${apt_args[@]}" depends "linux-headers-$rel" |
		sed -n 's/^ *Depends: \(linux-headers-[^ ]*\)$/\1/p
			s/^ *Depends: \(linux-kbuild-[^:]*\).*/\1:amd64/p')
	tmp=$cache/tmp-$name
	rm -rf "$tmp" "$tmp.debs"
	if ! fetch "$tmp/root" "$pkg" "linux-headers-$rel" "${headers[@]}"; then
		rm -rf "$tmp"
		dir=$(newest_cached "${name}_*")
		[ -n "$dir" ] || die 77 "cannot download $pkg"
		say "cannot download $pkg, using $(cat "$dir/release")"
		known=
		return 0
	fi
	rm -rf "$tmp/root/usr/share"
	echo "$rel" > "$tmp/release"
	ln -s "root/usr/src/linux-headers-$rel" "$tmp/build"
	# The only absolute paths are one include line and the links to headers.
	sed -i "s|^include /usr/src/|include $dir/root/usr/src/|" \
		"$tmp/build/Makefile"
	rm -f "$tmp/root/lib/modules/$rel/source"
	ln -sfn "../../../usr/src/linux-headers-$rel" \
		"$tmp/root/lib/modules/$rel/build"
	if [ "$arch" = amd64 ]; then
		uncompress "$tmp/root/boot/vmlinuz-$rel" "$tmp/vmlinuz" ||
			ln -s "root/boot/vmlinuz-$rel" "$tmp/vmlinuz"
		ln -s root "$tmp/modules"
		PATH=$PATH:/usr/sbin:/sbin depmod -b "$tmp/root" "$rel"
	else
		# not compressed, and with KVM built in
		ln -s "root/boot/vmlinuz-$rel" "$tmp/vmlinuz"
		rm -rf "$tmp"/root/lib/modules/*/kernel \
			"$tmp"/root/usr/lib/linux-image-*
	fi
	mv "$tmp" "$dir"
}

# user PACKAGE...: unpack what the machine needs, and what its programs link
user()
{
	local packages=("$@") pkg ver tmp=$cache/tmp-$name

	ver=$(for pkg in "${packages[@]}"; do
		echo "$pkg $(candidate "$pkg")"
	done | sha256sum | cut -c 1-12)
	dir=$cache/${name}_$ver
	[ ! -e "$dir" ] || return 0
	lock "$name"
	[ ! -e "$dir" ] || return 0
	rm -rf "$tmp" "$tmp.debs"
	if fetch "$tmp" "${packages[@]}"; then
		mv "$tmp" "$dir"
		return 0
	fi
	rm -rf "$tmp"
	dir=$(newest_cached "${name}_*")
	[ -n "$dir" ] || die 77 "cannot download ${packages[*]}"
	say "cannot download ${packages[*]}, using ${dir##*/}"
	known=
}

# -- kernels built from source -----------------------------------------------
# source_tree PACKAGE VERSION: unpack the source, set src and ver
source_tree()
{
	local pkg=$1 tmp=$cache/tmp-$1

	src=$cache/${pkg}_${2}
	ver=$2
	[ ! -e "$src" ] || return 0
	lock "$pkg"
	[ ! -e "$src" ] || return 0
	rm -rf "$tmp" "$tmp.debs"
	fetch "$tmp" "$pkg=$ver" || { rm -rf "$tmp" "$tmp.debs"; return 1; }
	say "unpacking $pkg $ver"
	mkdir "$tmp/tree"
	tar -C "$tmp/tree" --strip-components=1 -xJf "$tmp/usr/src/$pkg.tar.xz"
	mv "$tmp/tree" "$src"
	rm -rf "$tmp"
}

# newest_source GLOB PACKAGE VERSION: source_tree() of that version, or else the
# newest source in the cache whose package matches GLOB
newest_source()
{
	local glob=$1 pkg=$2 v=$3 old

	if [ -n "$v" ] && source_tree "$pkg" "$v"; then
		return 0
	fi
	old=$(newest_cached "${glob}_*")
	[ -n "$old" ] || die 77 "cannot get ${pkg:-$glob}"
	src=$old
	ver=${old##*_}
	say "cannot get ${pkg:-$glob}${v:+ $v}, using ${old##*/}"
	known=
}

source_6_12()
{
	local v

	v=$(stable_candidate linux-source-6.12) || v=
	newest_source linux-source-6.12 linux-source-6.12 "$v"
}

source_7()
{
	local pkg='' v=''

	stable_candidate base-files >/dev/null ||
		die 77 "apt has no package lists"
	if use_sid; then
		pkg=$(apt-cache "${apt_args[@]}" pkgnames linux-source-7. |
			grep -x 'linux-source-7\.[0-9]*' | sort -V |
			tail -n 1) || pkg=
	fi
	[ -z "$pkg" ] || v=$(candidate "$pkg") || v=
	newest_source 'linux-source-7.*' "$pkg" "$v"
}

# Fail unless the fragments, of which a later line overrides an earlier one,
# hold in the configuration.
check_config()
{
	local line bad=0

	while IFS= read -r line; do
		case $line in
		CONFIG_*=*)
			grep -qxF "$line" "$1" && continue ;;
		"# CONFIG_"*" is not set")
			line=${line#??}
			grep -q "^${line%% *}=" "$1" || continue
			line="${line%% *}=n" ;;
		*)
			continue ;;
		esac
		say "not in the final configuration: $line"
		bad=1
	done < <(tac "$2" | awk '
		match($0, /CONFIG_[A-Z0-9_]+/) &&
		!seen[substr($0, RSTART, RLENGTH)]++')
	return $bad
}

# built FRAGMENT...: build the kernel of src, configured with these fragments
built()
{
	local frag hash build log image=arch/x86/boot/bzImage
	local make=("${cross[@]}")

	frag=$(cd "$testbed" && cat "$@")
	if [ ${#cross[@]} -gt 0 ]; then
		image=arch/arm64/boot/Image
		frag=$(grep -vxFf <(sed -n 's/^#- //p' <<< "$frag") <<< "$frag")
	fi
	hash=$(printf %s "$frag" | sha256sum | cut -c 1-12)
	dir=$cache/${name}_${ver}_$hash
	build=$dir/build
	log=$dir/build.log
	[ ! -e "$dir/complete" ] || return 0
	lock "${dir##*/}"
	[ ! -e "$dir/complete" ] || return 0

	# A build tree holds its own absolute path, so build it in its final
	# place. It counts only once the stamp exists.
	rm -rf "$dir"
	mkdir -p "$build"
	printf '%s\n' "$frag" > "$dir/fragments"
	say "building Linux $ver in $dir (some minutes)"
	! grep -qx CONFIG_CFI_CLANG=y "$dir/fragments" || make+=(LLVM=-16)
	make -C "$src" O="$build" "${make[@]}" \
		KCONFIG_ALLCONFIG="$dir/fragments" allnoconfig > "$log" 2>&1 ||
		{ tail -n 30 "$log" >&2; die 1 "cannot configure, see $log"; }
	check_config "$build/.config" "$dir/fragments" ||
		die 1 "wrong configuration"
	make -C "$src" O="$build" "${make[@]}" -j"$(nproc)" "${image##*/}" \
		modules >> "$log" 2>&1 ||
		{ tail -n 30 "$log" >&2; die 1 "the build failed, see $log"; }
	cp "$build/$image" "$dir/vmlinuz"
	cp "$build/include/config/kernel.release" "$dir/release"
	touch "$dir/complete"
}

cross "$name"
case $name in
*-arm64*) need_arm64 ;;
esac

# Ask apt once a day only: the link names what the last look-up found.
known=$cache/.today-$name-$(cat "$testbed"/{*.config,kernel.sh} | sha256sum |
	cut -c 1-12)
if [ -n "$(find "$known" -mtime -1 2>/dev/null)" ]; then
	dir=$(readlink "$known")
	if [ -e "$dir" ]; then
		echo "$dir"
		exit 0
	fi
fi

case $name in
6.1)		stock linux-image-amd64 ;;
6.12)		stock linux-image-6.12-amd64 ;;
6.1-rt)		stock linux-image-rt-amd64 ;;
6.12-rt)	stock linux-image-6.12-rt-amd64 ;;
source-6.12)	source_6_12; dir=$src ;;
6.12-debug)	source_6_12
		built base.config user.config debug.config qemu.config ;;
6.12-rt-debug)	source_6_12
		built base.config user.config debug.config rt.config ;;
6.12-hardened)	source_6_12
		# the first one that knows the kernel's kind of CFI
		type clang-16 ld.lld-16 llvm-nm-16 >/dev/null 2>&1 ||
			die 77 "install clang-16, lld-16 and llvm-16"
		built base.config user.config hardened.config ;;
6.12-kcsan)	source_6_12; built base.config user.config kcsan.config ;;
6.12-gcov)	source_6_12; built base.config user.config gcov.config ;;
6.12-guest)	source_6_12; built guest.config ;;
7.2-debug)	source_7; built base.config user.config debug.config 7.config ;;
6.12-arm64)	use_arm64; stock linux-image-6.12-arm64 arm64 ;;
6.12-arm64-debug)
		source_6_12
		built base.config user.config debug.config arm64.config ;;
user-amd64)	stable_candidate busybox-static >/dev/null || :
		user busybox-static ;;
user-arm64)	use_arm64; user busybox-static liburing-dev ;;
*)		usage ;;
esac
[ -z "$known" ] || ln -sfn "$dir" "$known"
echo "$dir"
