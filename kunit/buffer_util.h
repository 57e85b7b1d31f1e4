/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Ring: how the tests of the queue ring it, and take from it.
 */
#ifndef _DOORBELL_KUNIT_BUFFER_UTIL_H
#define _DOORBELL_KUNIT_BUFFER_UTIL_H

#include "../drivers/virt/doorbell/buffer.h"

/* Ring in whichever mode; of what type is told by the index. */
static inline enum doorbell_ring_result ring_it(struct doorbell_buffer *buf, u32 index,
					 u64 value, u8 width)
{
	u8 type = index == doorbell_buffer_bad(buf) ? DOORBELL_EVENT_BAD_ADDRESS :
						   DOORBELL_EVENT_QUEUE;

	return doorbell_buffer_ring(buf, index, doorbell_kind(type, width),
				   value);
}

/* Ring a queue, or the slot of bad addresses. Has the consumer to be woken? */
static inline bool ring(struct doorbell_buffer *buf, u32 index, u64 value, u8 width)
{
	return ring_it(buf, index, value, width) == DOORBELL_RING_WAKE;
}

/* As read() does: *@wake is set if others have to be woken, else untouched. */
static inline unsigned int consume_events(struct doorbell_buffer *buf,
				struct doorbell_event *events, unsigned int max,
				bool *wake)
{
	unsigned int n, taken = 0;

	do {
		n = doorbell_buffer_peek(buf, events + taken, max - taken, wake);
		if (n && doorbell_buffer_consume(buf, events + taken, n))
			*wake = true;
		taken += n;
	} while (n && taken < max);
	return taken;
}

#endif /* _DOORBELL_KUNIT_BUFFER_UTIL_H */
