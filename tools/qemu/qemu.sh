#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Run a Linux guest in Debian's QEMU in micro-VMs, without and with the preload:
# what "make qemu" runs.
#
# Usage: qemu.sh KERNEL...
#        qemu.sh --short
#
# The kernels are those of kernel.sh. The last line is "N passed, N failed";
# build/qemu/ keeps all output. With --short it prints only the TAP of some
# scenarios on one kernel, for "make check".
#
# PRELOAD, in the environment, names another preload than the checkout's, or
# none if it is empty: then only the half without it runs. SCENARIOS is a list
# of those of machine.sh.
set -uo pipefail

. "$(dirname "$0")/../testbed/lib.sh"
me=qemu
out=$top/build/qemu
ours=$top/build/preload/libdoorbell-ioeventfd.so
PRELOAD=${PRELOAD-$ours}
all="pci exits mmio vhost reset unplug"
short="pci vhost"
# For a machine that hangs: the guests have limits of their own.
limit=3600

# modules KERNEL DIR NAME...: put modules of a stock kernel, and what they need,
# into DIR, in the order in which to load them
modules()
{
	local dir=$1 to=$2 release ko n=10
	shift 2

	rm -rf "$to"
	mkdir -p "$to"
	release=$(cat "$dir/release")
	[ -d "$dir/modules" ] || return 0
	PATH=$PATH:/usr/sbin:/sbin modprobe -d "$dir/modules" -S "$release" \
		--show-depends -a "$@" |
		sed -n 's/^insmod \([^ ]*\).*/\1/p' | awk '!seen[$0]++' |
		while read -r ko; do
			ko_name=$(basename "${ko%.xz}")
			case $ko in
			*.xz) xz -dc "$ko" ;;
			*) cat "$ko" ;;
			esac >"$to/$n-$ko_name"
			n=$((n + 1))
		done
}

# build WORD...: what all machines need; for mmio and for debug kernels, the
# small guest, too. Sets pack and guest
build()
{
	local small

	pack=$("$top/tools/qemu/pack.sh") || return
	guest=$("$testbed/kernel.sh" 6.12) || return
	rm -f "$out/vmlinux-small"
	if [[ " $* " =~ \ mmio\ |-debug\  ]]; then
		small=$("$testbed/kernel.sh" 6.12-guest) || return
		strip -o "$out/vmlinux-small" "$small/build/vmlinux" || return
	fi
	make -s -C "$top/tools/qemu" OUTPUT="$out" || return
	[ "$PRELOAD" != "$ours" ] ||
		make -s -C "$top" preload || return
	make -s -C "$top" tools || return
	rm -rf "$out/root"
	modules "$guest" "$out/root/modules/$(cat "$guest/release")" \
		virtio_blk ext4 vmw_vsock_virtio_transport || return
	cp "$out/guest" "$out/root/init"
	(cd "$out/root" && find . | cpio -o -H newc --owner=0:0 --quiet) \
		>"$out/guest.cpio"
}

# prepare KERNEL: build what its machine needs. Sets ko
prepare()
{
	local dir

	dir=$("$testbed/kernel.sh" "$1") || return
	ko=$("$testbed/module.sh" "$1") || return
	modules "$dir" "$out/modules-$1" vhost_vsock
}

# machine KERNEL SCENARIO...: print TAP
machine()
{
	local kernel=$1 file files=()
	shift

	# Debian's kernel takes minutes to boot on a debug kernel
	[[ $kernel = *-debug ]] || files+=(-f "$guest/vmlinuz:/q/vmlinux")
	[ ! -e "$out/vmlinux-small" ] ||
		files+=(-f "$out/vmlinux-small:/q/vmlinux-small")
	for file in guest.cpio count.so; do
		files+=(-f "$out/$file:/q/$file")
	done
	# with the libraries that QEMU has no use for
	while read -r file; do
		files+=(-f "$file:$file")
	done < <(ldd "$top/build/tools/doorbell" | grep -o '\s/[^ ]*')
	[ -z "$PRELOAD" ] || files+=(-f "$PRELOAD:/q/preload.so")
	"$testbed/run.sh" -k "$kernel" -c 1 -m 2048 -t $limit \
		-a 'nohz=off highres=off' -l "$out/$kernel.log" \
		-f "$pack:/" -f "$out/host:/bin/host" "${files[@]}" \
		-f "$top/build/tools/doorbell:/bin/doorbell" \
		-f "$ko/doorbell.ko:/q/doorbell.ko" \
		-f "$out/modules-$kernel:/q/modules" \
		-f "$top/tools/qemu/machine.sh:/q/machine.sh" \
		-- /q/machine.sh "$@"
}

# report KERNEL SCENARIO...: print TAP and the verdict
report()
{
	local ret

	echo "# begin qemu"
	machine "$@"
	ret=$?
	# run.sh says 126 for a bug report, which the verdict has
	echo "# end qemu $((ret == 126 ? 0 : ret))"
	if "$testbed/splat.sh" "$out/$1.log" >&2; then
		echo "# verdict clean"
	else
		echo "# verdict a bug report in the kernel log"
	fi
	say "$1 done after $SECONDS s"
}

mkdir -p "$out"
if [ "${1-}" = --short ]; then
	scenarios=${SCENARIOS:-$short}
	# shellcheck disable=SC2086	# a list
	build $scenarios && prepare 6.12 || exit
	# shellcheck disable=SC2086	# a list
	machine 6.12 $scenarios
	exit
fi

[ $# -gt 0 ] || usage
rm -f "$out"/*.tap
scenarios=${SCENARIOS:-$all}
# shellcheck disable=SC2086	# a list
build $scenarios "$@"
built=$?
# A machine has one CPU, so all of them run at the same time.
for kernel; do
	ret=$built
	[ $ret -ne 0 ] || { prepare "$kernel"; ret=$?; }
	case $ret in
	0)
		# shellcheck disable=SC2086	# a list
		report "$kernel" $scenarios >"$out/$kernel.tap" &
		;;
	77)
		echo "# verdict skip $kernel or QEMU is unavailable" \
			>"$out/$kernel.tap"
		;;
	*)
		echo "# verdict the programs do not build" \
			>"$out/$kernel.tap"
		;;
	esac
done
wait
exec "$top/tools/test/tap.py" "$out"/*.tap
