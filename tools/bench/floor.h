/* SPDX-License-Identifier: GPL-2.0 */
/*
 * /dev/floor, between floor.ko and the benchmark: a device on a VM's MMIO bus
 * that takes every write and does nothing with it. It is there until the
 * descriptor is closed.
 */
#ifndef BENCH_FLOOR_H
#define BENCH_FLOOR_H

#include <linux/ioctl.h>
#include <linux/types.h>

/**
 * struct floor_attach - argument of FLOOR_ATTACH
 * @base: first guest-physical address
 * @len: bytes
 * @vm_fd: the VM
 * @reserved: not looked at
 */
struct floor_attach {
	__u64 base;
	__u64 len;
	__s32 vm_fd;
	__u32 reserved;
};

#define FLOOR_ATTACH	_IOW('F', 0, struct floor_attach)

#endif /* BENCH_FLOOR_H */
