/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Region: what a consumer is attached to; ties geometry, queue and VM together.
 *
 * The character device owns regions; the KVM side rings them and says when
 * their VM is gone, through the functions at the end, and knows no more.
 */
#ifndef _DOORBELL_REGION_H
#define _DOORBELL_REGION_H

#include <linux/kref.h>

#include "geometry.h"
#include "buffer.h"

struct doorbell;
struct doorbell_vm;

/**
 * struct doorbell_region - one attached region, or the last one attached
 * @geo: its addresses; constant
 * @flags: DOORBELL_ATTACH_*; constant
 * @db: the consumer, which outlives the region; constant
 * @buffer: its rings
 * @vm: the registration with KVM, NULL without one; under the consumer's
 *	attach_lock
 * @attached: can be rung; written under the consumer's attach_lock
 * @hung_up: the VM's process is gone, no ring comes any more; set once, with
 *	release, after the last ring
 * @wakeups: rings that woke the consumer
 * @bounced: rings by guests that found no room
 * @ref: held by @db until a grace period after its pointer to the region is
 *	gone, and by whoever sleeps without a lock of @db
 */
struct doorbell_region {
	struct doorbell_geometry geo;
	u32 flags;
	struct doorbell *db;
	struct doorbell_buffer buffer;
	struct doorbell_vm *vm;
	bool attached;
	bool hung_up;
	atomic64_t wakeups;
	atomic64_t bounced;
	struct kref ref;
};

bool doorbell_region_ring(struct doorbell_region *region, u64 addr, u64 value,
			  u8 width);
void doorbell_region_wake(struct doorbell_region *region);
void doorbell_region_hangup(struct doorbell_region *region);

#endif /* _DOORBELL_REGION_H */
