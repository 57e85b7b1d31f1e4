/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Buffer_util: how the tests of the buffer ring and read it.
 */
#ifndef _DOORBELL_KUNIT_BUFFER_UTIL_H
#define _DOORBELL_KUNIT_BUFFER_UTIL_H

#include "../drivers/virt/doorbell/buffer.h"

/* Ring in either mode. A ring of the last slot is a bad address. */
static inline enum doorbell_ring_result ring_it(struct doorbell_buffer *buf,
						u32 index, u64 value, u8 width)
{
	u8 type = index == doorbell_buffer_bad(buf) ?
		  DOORBELL_EVENT_BAD_ADDRESS : DOORBELL_EVENT_QUEUE;

	return doorbell_buffer_ring(buf, index, doorbell_kind(type, width),
				    value);
}

/* Ring, and return true if the consumer has to be woken. */
static inline bool ring(struct doorbell_buffer *buf, u32 index, u64 value,
			u8 width)
{
	return ring_it(buf, index, value, width) == DOORBELL_RING_WAKE;
}

/* Peek and consume, as read() does. Sets *@wake if others have to be woken. */
static inline unsigned int consume_events(struct doorbell_buffer *buf,
					  struct doorbell_event *events,
					  unsigned int max, bool *wake)
{
	unsigned int n, got = 0;

	do {
		n = doorbell_buffer_peek(buf, events + got, max - got, wake);
		if (n && doorbell_buffer_consume(buf, events + got, n))
			*wake = true;
		got += n;
	} while (n && got < max);
	return got;
}

#endif /* _DOORBELL_KUNIT_BUFFER_UTIL_H */
