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
 * @by_value: the value written names the queue, not the address
 */
struct doorbell_geometry {
	u64 base;
	u64 len;
	u32 queues;
	u8 shift;
	bool by_value;
};

int doorbell_geometry_init(struct doorbell_geometry *geo, u64 base, u64 len,
			   u32 stride, u32 queues, bool pio);

/**
 * doorbell_geometry_contains() - is an address in the region?
 * @geo: the region
 * @addr: any 64-bit number, straight from a guest or from user space
 */
static inline bool doorbell_geometry_contains(const struct doorbell_geometry *geo,
					      u64 addr)
{
	return addr - geo->base < geo->len;
}

/**
 * doorbell_geometry_at() - the queue that an address belongs to
 * @geo: the region
 * @addr: address written, which the region contains
 *
 * Return: its number, safe to index with even under speculation.
 */
static inline int doorbell_geometry_at(const struct doorbell_geometry *geo,
				       u64 addr)
{
	return array_index_nospec(addr - geo->base, geo->len) >> geo->shift;
}

/**
 * doorbell_geometry_queue() - the queue that is rung
 * @geo: the region
 * @addr: address written, which the region contains
 * @value: value written, any 64-bit number
 *
 * Return: its number, safe to index with even under speculation, or -1 when the
 * value has to name a queue and does not.
 */
static inline int doorbell_geometry_queue(const struct doorbell_geometry *geo,
					  u64 addr, u64 value)
{
	u16 queue = value;

	if (!geo->by_value)
		return doorbell_geometry_at(geo, addr);
	if (queue >= geo->queues)
		return -1;
	return array_index_nospec(queue, geo->queues);
}

#endif /* _DOORBELL_GEOMETRY_H */
