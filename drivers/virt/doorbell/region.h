/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Region: queues that are rung, and the consumer that their rings wake.
 *
 * A region turns an offset and a value into a ring of one of its queues. Where
 * it sits in a guest's address space is not its business. The KVM side and
 * write() ring it, the character device reads and maps it.
 */
#ifndef _DOORBELL_REGION_H
#define _DOORBELL_REGION_H

#include <linux/kref.h>
#include <linux/wait.h>

#include "buffer.h"
#include "geometry.h"
#include "produce.h"

struct vm_area_struct;

/**
 * struct doorbell_waiters - what waits for events of one consumer
 * @wait: tasks and poll tables; has its own lock
 * @fasync: owners of SIGIO; changed by fasync_helper(), under its locks
 * @ref: held by the consumer and by each of its regions
 */
struct doorbell_waiters {
	wait_queue_head_t wait;
	struct fasync_struct *fasync;
	struct kref ref;
};

/**
 * struct doorbell_region - a region
 * @geo: how it is divided into queues; constant
 * @flags: DOORBELL_ATTACH_*; constant
 * @waiters: what its rings wake, referenced; constant
 * @buffer: its rings
 * @attached: can be rung; written under the consumer's attach_lock, read
 *	without
 * @hung_up: the VM is gone, or its bus: no guest rings the region any more; set
 *	once, by xchg(), after the last ring
 * @wakeups: rings that woke the consumer
 * @bounced: rings by guests that found no room
 * @ref: held by the consumer, until an RCU grace period after it replaced the
 *	region; by the placement; and by calls that use the region
 * @rcu: ends that grace period
 */
struct doorbell_region {
	struct doorbell_geometry geo;
	u32 flags;
	struct doorbell_waiters *waiters;
	struct doorbell_buffer buffer;
	bool attached;
	bool hung_up;
	atomic64_t wakeups;
	atomic64_t bounced;
	struct kref ref;
	struct rcu_head rcu;
};

struct doorbell_waiters *doorbell_waiters_create(void);
void doorbell_waiters_put(struct doorbell_waiters *waiters);
void doorbell_waiters_wake(struct doorbell_waiters *waiters);

struct doorbell_region *
doorbell_region_create(const struct doorbell_attach *arg,
		       struct doorbell_waiters *waiters);
void doorbell_region_put(struct doorbell_region *region);
void doorbell_region_put_rcu(struct doorbell_region *region);
int doorbell_region_error(const struct doorbell_region *region);
bool doorbell_region_ring_bad(struct doorbell_region *region, u16 kind,
			      u64 value);
void doorbell_region_wake(struct doorbell_region *region);
void doorbell_region_hangup(struct doorbell_region *region);
int doorbell_region_mmap(struct doorbell_region *region,
			 struct vm_area_struct *vma);

/**
 * doorbell_region_hung_up() - will no guest ring the region any more?
 * @region: the region
 *
 * A caller that sees true and then finds no event has missed none.
 */
static inline bool doorbell_region_hung_up(const struct doorbell_region *region)
{
	/* pairs with the release in doorbell_region_hangup() */
	return smp_load_acquire(&region->hung_up);
}

/**
 * doorbell_region_ring() - ring the queue that an offset, or a value, names
 * @region: the region
 * @flags: those of @region->flags that matter here; callers in a hot path pass
 *	a constant
 * @offset: address written less the region's base, any 64-bit number
 * @value: value written
 * @kind: doorbell_kind() of DOORBELL_EVENT_QUEUE and the value's width
 * @bounces: a ring without room reaches the VMM: count it as bounced
 *
 * Context: process context; allocates nothing, takes no lock but that of the
 * wait queue when the consumer is armed.
 *
 * Return: 0, -ERANGE if @offset is outside of the region, -EAGAIN if an ordered
 * region has no room.
 */
static __always_inline int
doorbell_region_ring(struct doorbell_region *region, u32 flags, u64 offset,
		     u64 value, u16 kind, bool bounces)
{
	enum doorbell_ring_result result;
	int queue;

	if (!doorbell_geometry_contains(&region->geo, offset))
		return -ERANGE;

	queue = flags & DOORBELL_ATTACH_BY_VALUE ?
		doorbell_geometry_queue_by_value(&region->geo, value) :
		doorbell_geometry_queue(&region->geo, offset);
	if (flags & DOORBELL_ATTACH_BY_VALUE && queue < 0) {
		kind |= DOORBELL_EVENT_BAD_QUEUE;
		if (doorbell_region_ring_bad(region, kind, value))
			return 0;
		result = DOORBELL_RING_FULL;
	} else if (flags & DOORBELL_ATTACH_ORDERED) {
		result = doorbell_ordered_ring(&region->buffer, queue, kind,
					       value);
	} else {
		result = doorbell_coalesced_ring(&region->buffer, queue, kind,
						 value);
	}

	if (result == DOORBELL_RING_FULL) {
		if (bounces)
			atomic64_inc(&region->bounced);
		return -EAGAIN;
	}
	if (result == DOORBELL_RING_WAKE)
		doorbell_region_wake(region);
	return 0;
}

#endif /* _DOORBELL_REGION_H */
