/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Geometry: which addresses make a region, and which queue an address is.
 *
 * Pure arithmetic with the rules of Fuchsia's GuestBellTrap; it knows neither
 * KVM nor files nor memory.
 */
#ifndef _DOORBELL_GEOMETRY_H
#define _DOORBELL_GEOMETRY_H

#include <linux/nospec.h>
#include <linux/types.h>

/**
 * struct doorbell_geometry - the addresses of one region; constant once set
 * @base: first guest-physical address (or I/O port) of the region
 * @len: bytes in the region
 * @queues: queues in the region, 1 to DOORBELL_QUEUES_MAX
 * @shift: log2 of the stride
 */
struct doorbell_geometry {
	u64 base;
	u64 len;
	u32 queues;
	u8 shift;
};

int doorbell_geometry_init(struct doorbell_geometry *geo, u64 base, u64 len,
			   u32 stride, bool pio);

/**
 * doorbell_geometry_queue() - the queue that an address belongs to
 * @geo: the region
 * @addr: any 64-bit number, straight from a guest or from user space
 *
 * Return: the queue that the byte at @addr falls in, safe to index with even
 * under speculation, or -1 when @addr is outside of the region.
 */
static inline int doorbell_geometry_queue(const struct doorbell_geometry *geo,
					  u64 addr)
{
	u64 offset = addr - geo->base;

	if (offset >= geo->len)
		return -1;
	return array_index_nospec(offset >> geo->shift, geo->queues);
}

#endif /* _DOORBELL_GEOMETRY_H */
