#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Check the packages of "make deb", and DKMS from the tarball of "make dist".
#
# Unpacks a Debian that has none of the packages that ours depend on
# (debian.sh), and lets apt install them there, without a network (root.sh in
# package/). Boots that Debian with the stock kernels 6.1 and 6.12,
# for which DKMS built the module (boot.sh). Removes all of it. The chroot needs
# root.
#
# Prints TAP. Exit status: 1 if a test fails, 77 if a kernel or Debian is
# unavailable.
# shellcheck disable=SC2317	# step() calls functions by name
set -uo pipefail

. "$(dirname "$0")/../testbed/lib.sh"
here=$top/tools/test/package

# get NAME SCRIPT [ARGUMENT]: set path to the output of a script of the testbed.
get() {
	local ret

	path=$("$testbed/$2" "${@:3}")
	ret=$?
	[ $ret -ne 77 ] || { echo "1..0 # SKIP $1 is unavailable"; exit 77; }
	[ $ret -eq 0 ] || { echo "Bail out! $2 failed"; exit 1; }
}

# in_root COMMAND...: run it in the Debian, without a network. Its maintainer
# scripts run as root on this machine: give them no disks, and no sysctls.
in_root() {
	# shellcheck disable=SC2016	# the inner shell expands it
	as_root unshare --mount --pid --fork --net --mount-proc="$root/proc" \
		sh -ec 'mount -t tmpfs -o mode=755 tmpfs "$0/dev"
		for file in null zero full random urandom tty; do
			touch "$0/dev/$file"
			mount --bind "/dev/$file" "$0/dev/$file"
		done
		ln -s /proc/self/fd "$0/dev/fd"
		for path in "$0"/proc/sys "$0"/proc/sysrq-*; do
			[ -e "$path" ] || continue
			mount --bind "$path" "$path"
			mount -o remount,bind,ro "$path"
		done
		exec chroot "$0" "$@"' "$root" "$@"
}

# boot KERNEL DIR: boot the Debian with this kernel
boot() {
	local release modules path files

	release=$(cat "$2/release")
	modules=$2/modules/lib/modules/$release
	files=(-f "$tmp/boot:/install")
	# as in install.sh, the modules that vm.sh and KVM need
	for path in "$modules"/modules.* "$modules"/kernel/{arch,virt,lib} \
		    "$modules"/kernel/drivers/virtio \
		    "$modules"/kernel/drivers/block/virtio_blk.ko* \
		    "$modules"/kernel/fs/{squashfs,overlayfs}; do
		files+=(-f "$path:/lib/modules/$release/${path#"$modules/"}")
	done
	"$testbed/run.sh" -k "$1" -m 2048 -t 300 "${files[@]}" -q -drive \
		-q "file=$tmp/image,if=virtio,format=raw,readonly=on" \
		-- /install/vm.sh
}

# step NAME COMMAND...: run a command that prints TAP, and test its exit status
step() {
	local ret

	"${@:2}"
	ret=$?
	if [ $ret -eq 0 ]; then
		echo "ok - $1"
	else
		echo "# exit status $ret"
		echo "not ok - $1"
	fi
	return $ret
}

all() {
	step "install" in_root /install/root.sh install "$old" &&
		step "another kernel" in_root /install/root.sh kernel "$new" ||
		return
	as_root mksquashfs "$root" "$tmp/image" -comp zstd \
		-Xcompression-level 3 -quiet -no-progress >&2 -e \
		"$root"/{usr/src/linux-*,usr/lib/gcc,var/cache,var/lib/apt}
	step "boot 6.1" boot 6.1 "$kernel_old"
	step "boot 6.12" boot 6.12 "$kernel_new"
	step "purge" in_root /install/root.sh purge
	step "DKMS from the tarball" in_root /install/root.sh tarball "$new"
	step "autoremove" in_root /install/root.sh autoremove
}

make -s -C "$top" deb >&2 || { echo "Bail out! make deb failed"; exit 1; }
get "Linux 6.1" kernel.sh 6.1
kernel_old=$path
old=$(cat "$path/release")
get "Linux 6.12" kernel.sh 6.12
kernel_new=$path
new=$(cat "$path/release")
get "a Debian with the headers of $old" debian.sh fresh
image=$path

tmp=$(mktemp -d)
trap 'as_root rm -rf "$tmp"' EXIT
chmod 755 "$tmp"
root=$tmp/root
mkdir "$tmp/boot"
cp "$here/boot.sh" "$tmp/boot/host.sh"
cp "$here/lib.sh" "$tmp/boot"
cp "$top/tools/test/install/vm.sh" "$tmp/boot"
as_root unsquashfs -quiet -no-progress -d "$root" "$image" >&2 || exit 1
as_root mkdir "$root/install"
as_root cp "$top"/build/deb/*.deb "$top"/build/doorbell-*.tar.gz \
	"$here"/{root,lib}.sh "$top"/examples/{try,consumer}.c \
	"$top/tools/test/install/main.c" "$root/install"

# Each script numbers its tests from 1 on: number all of them.
count=0
while IFS= read -r line; do
	case $line in
	"ok "* | "not ok "*)
		count=$((count + 1))
		[[ $line = ok* ]] || failed=1
		line=${line%%ok *}"ok $count "${line#*ok * }
		;;
	1..* | TAP*) continue ;;
	esac
	printf '%s\n' "$line"
done < <(all)
echo "1..$count"
[ $count -gt 0 ] || failed=1
exit "$failed"
