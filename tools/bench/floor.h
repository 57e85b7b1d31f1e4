/* SPDX-License-Identifier: GPL-2.0 */
/*
 * /dev/floor, the interface of floor.ko: a device on a VM's MMIO bus that
 * accepts every write and does nothing. close() removes the device.
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
 * @reserved: ignored
 */
struct floor_attach {
	__u64 base;
	__u64 len;
	__s32 vm_fd;
	__u32 reserved;
};

#define FLOOR_ATTACH	_IOW('F', 0, struct floor_attach)

#endif /* BENCH_FLOOR_H */
