/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Ring: how the tests of the queue ring it, and take from it.
 */
#ifndef _DOORBELL_KUNIT_RING_H
#define _DOORBELL_KUNIT_RING_H

#include "../drivers/virt/doorbell/queue.h"

/* Ring in whichever mode; of what type is told by the index. */
static inline enum doorbell_rung ring_it(struct doorbell_queue *q, u32 index,
					 u64 value, u8 width)
{
	u8 type = index == doorbell_queue_bad(q) ? DOORBELL_EVENT_BAD_ADDRESS :
						   DOORBELL_EVENT_QUEUE;

	return doorbell_queue_ring(q, index, doorbell_queue_tag(type, width),
				   value);
}

/* Ring a queue, or the slot of bad addresses. Has the consumer to be woken? */
static inline bool ring(struct doorbell_queue *q, u32 index, u64 value, u8 width)
{
	return ring_it(q, index, value, width) == DOORBELL_RUNG_WAKE;
}

/* As read() does: *@wake is set if others have to be woken, else untouched. */
static inline unsigned int take(struct doorbell_queue *q,
				struct doorbell_event *events, unsigned int max,
				bool *wake)
{
	unsigned int n, taken = 0;

	do {
		n = doorbell_queue_peek(q, events + taken, max - taken, wake);
		if (n && doorbell_queue_pass(q, events + taken, n))
			*wake = true;
		taken += n;
	} while (n && taken < max);
	return taken;
}

#endif /* _DOORBELL_KUNIT_RING_H */
