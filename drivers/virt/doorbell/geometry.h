/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Geometry: which base, len and stride make a region, and which queue an offset
 * into it belongs to.
 *
 * Pure arithmetic with the rules of Fuchsia's GuestBellTrap. Knows neither KVM
 * nor files nor memory.
 */
#ifndef _DOORBELL_GEOMETRY_H
#define _DOORBELL_GEOMETRY_H

#include <linux/nospec.h>
#include <linux/types.h>

/**
 * struct doorbell_geometry - how a region is divided; constant once set
 * @len: bytes in the region
 * @queues: queues in the region, 1 to DOORBELL_QUEUES_MAX
 * @shift: log2 of the stride
 */
struct doorbell_geometry {
	u64 len;
	u32 queues;
	u8 shift;
};

bool doorbell_geometry_fits(const struct doorbell_geometry *geo, u64 base,
			    bool pio);
int doorbell_geometry_init(struct doorbell_geometry *geo, u64 base, u64 len,
			   u32 stride, u32 queues, bool pio);

/**
 * doorbell_geometry_contains() - is an offset inside of the region?
 * @geo: the region
 * @offset: address less base, any 64-bit number: straight from a guest or from
 *	user space, and beyond @geo->len also for addresses below the base
 */
static inline bool
doorbell_geometry_contains(const struct doorbell_geometry *geo, u64 offset)
{
	return offset < geo->len;
}

/**
 * doorbell_geometry_queue() - the queue that an offset belongs to
 * @geo: the region, which contains @offset
 * @offset: address less base
 *
 * queue_for_addr() of Fuchsia's GuestBellTrap.
 *
 * Return: its number, a safe index even under speculation.
 */
static inline unsigned long
doorbell_geometry_queue(const struct doorbell_geometry *geo, u64 offset)
{
	return array_index_nospec(offset, geo->len) >> geo->shift;
}

/**
 * doorbell_geometry_queue_by_value() - the queue that a value names
 * @geo: the region
 * @value: value written, any 64-bit number; its low 16 bits name the queue
 *
 * Return: its number, a safe index even under speculation, or -1 if the value
 * names no queue.
 */
static inline long
doorbell_geometry_queue_by_value(const struct doorbell_geometry *geo, u64 value)
{
	u16 queue = value;

	if (queue >= geo->queues)
		return -1;
	return array_index_nospec(queue, geo->queues);
}

#endif /* _DOORBELL_GEOMETRY_H */
