/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Ring: how the tests of the queue ring it, and take from it.
 */
#ifndef _DOORBELL_KUNIT_RING_H
#define _DOORBELL_KUNIT_RING_H

#include "../drivers/virt/doorbell/queue.h"

/* Ring a queue, or the slot of bad addresses. Has the consumer to be woken? */
static inline bool ring(struct doorbell_queue *q, u32 index, u64 value, u8 width)
{
	u8 type = index == doorbell_queue_bad(q) ? DOORBELL_EVENT_BAD_ADDRESS :
						   DOORBELL_EVENT_QUEUE;

	return doorbell_queue_ring(q, index, type, value, width) ==
	       DOORBELL_RUNG_WAKE;
}

/* As read() does: *@wake is set if others have to be woken, else untouched. */
static inline unsigned int take(struct doorbell_queue *q,
				struct doorbell_event *events, unsigned int max,
				bool *wake)
{
	unsigned int n = doorbell_queue_peek(q, events, max, wake);

	if (n && doorbell_queue_pass(q, events, n))
		*wake = true;
	return n;
}

#endif /* _DOORBELL_KUNIT_RING_H */
