#!/bin/busybox sh
# SPDX-License-Identifier: GPL-2.0
# shellcheck shell=dash
# Run host.sh in a Debian: what install.sh runs in its micro-VM.
#
# The first disk is a squashfs with the root of Debian. What is written to it
# stays in memory. Debian gets the kernel modules that are in /lib/modules.
set -e

modprobe -a virtio_pci virtio_blk squashfs overlay
mkdir /disk /changes /host
mount -t squashfs -o ro /dev/vda /disk
mount -t tmpfs tmpfs /changes
mkdir /changes/upper /changes/work
options=lowerdir=/disk,upperdir=/changes/upper,workdir=/changes/work
mount -t overlay -o $options overlay /host

for dir in proc sys dev; do
	mount -o rbind /$dir /host/$dir
done
mkdir -p /dev/pts
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /host/run
cp -a /lib/modules/. /host/lib/modules
mkdir -p /host/install
cp -a /install/. /host/install
exec chroot /host /install/host.sh
