/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Produce: the producers' side of a buffer, inlined into its callers.
 *
 * buffer.c has the consumer's side and explains how both work together. It also
 * defines the letters at the barriers. No function here takes a lock, allocates
 * or sleeps. Any context but NMI.
 */
#ifndef _DOORBELL_PRODUCE_H
#define _DOORBELL_PRODUCE_H

#include <linux/atomic.h>
#include <linux/compiler.h>
#include <linux/limits.h>
#include <linux/preempt.h>

#include "buffer.h"

/* The position of a slot while a producer claims one for it. */
#define DOORBELL_POS_CLAIMED	U64_MAX

/* Where the entry of position @pos is in its array. */
static __always_inline u32
doorbell_buffer_index(const struct doorbell_buffer *buf, u64 pos)
{
	return pos & buf->mask;
}

/* The lap of position @pos: positions begin at lap 1, so that none is 0. */
static __always_inline u32
doorbell_buffer_lap(const struct doorbell_buffer *buf, u64 pos)
{
	return pos >> buf->order;
}

/* After a full barrier: claim the wake-up if the consumer is armed. */
static __always_inline enum doorbell_ring_result
doorbell_claim_wakeup(struct doorbell_control *control)
{
	if (READ_ONCE(control->armed) && xchg(&control->armed, 0))
		return DOORBELL_RING_WAKE;
	return DOORBELL_RING_OK;
}

/* Coalescing: give @slot, number @index, an entry unless it has one ahead. */
static __always_inline enum doorbell_ring_result
doorbell_coalesced_enqueue(struct doorbell_buffer *buf,
			   struct doorbell_buffer_slot *slot, u32 index)
{
	struct doorbell_control *control = buf->control;
	s64 old = atomic64_read(&slot->pos);
	u64 pos;

	/*
	 * Not preemptible between claim and publication: the consumer cannot
	 * advance past us.
	 */
	preempt_disable();
	/*
	 * Each failure of the cmpxchg is another producer's success, after
	 * which its position is re-checked: the consumer may be past it.
	 */
	do {
		/*
		 * The consumer may sleep without having consumed the entry:
		 * look at armed all the same. (A) pairs with (D).
		 */
		if ((u64)old >= READ_ONCE(control->head))
			goto out;
	} while (!atomic64_try_cmpxchg(&slot->pos, &old, DOORBELL_POS_CLAIMED));

	pos = atomic64_fetch_inc(&buf->tail);
	atomic64_set(&slot->pos, pos);
	/*
	 * (E): pos before the entry, pairs with (F) in coalesced_slot()
	 * (C): the entry before armed, pairs with (D) in doorbell_buffer_arm()
	 */
	xchg(&buf->fifo[doorbell_buffer_index(buf, pos)],
	     doorbell_buffer_lap(buf, pos) << DOORBELL_FIFO_LAP_SHIFT | index);
out:
	preempt_enable();
	return doorbell_claim_wakeup(control);
}

/**
 * doorbell_coalesced_ring() - ring a queue, coalescing
 * @buf: the buffer
 * @index: number of the queue that is rung, or doorbell_buffer_bad()
 * @kind: doorbell_kind()
 * @value: value that was written
 *
 * Return: DOORBELL_RING_OK or DOORBELL_RING_WAKE.
 */
static __always_inline enum doorbell_ring_result
doorbell_coalesced_ring(struct doorbell_buffer *buf, unsigned long index,
			u16 kind, u64 value)
{
	struct doorbell_buffer_slot *slot = &buf->slots[index];
	s64 rings = atomic64_read(&slot->rings);

	WRITE_ONCE(slot->value, value);
	while ((u16)rings != kind &&
	       !atomic64_try_cmpxchg(&slot->rings, &rings,
				     (rings & ~(s64)U16_MAX) | kind))
		;
	/*
	 * (A): full barrier. Value before rings pairs with (H) in
	 * coalesced_event(); rings before pos, head and armed pairs with (B) in
	 * coalesced_consume() and with (D).
	 */
	atomic64_fetch_add(1 << DOORBELL_RINGS_SHIFT, &slot->rings);

	return doorbell_coalesced_enqueue(buf, slot, index);
}

/**
 * doorbell_ordered_ring() - ring a queue, ordered
 * @buf: the buffer
 * @index: number of the queue that is rung, or doorbell_buffer_bad()
 * @kind: doorbell_kind()
 * @value: value that was written
 *
 * Return: DOORBELL_RING_OK, DOORBELL_RING_WAKE or DOORBELL_RING_FULL.
 */
static __always_inline enum doorbell_ring_result
doorbell_ordered_ring(struct doorbell_buffer *buf, unsigned long index,
		      u16 kind, u64 value)
{
	struct doorbell_control *control = buf->control;
	s64 pos = atomic64_read(&buf->tail);
	struct doorbell_entry *entry;

	/* Not preemptible between claim and publication, as above. */
	preempt_disable();
	do {
		/*
		 * (G) pairs with this read: the consumer is done with the
		 * entry. Negative if the tail is older than the head.
		 */
		if ((s64)(pos - READ_ONCE(control->head)) >= buf->depth) {
			preempt_enable();
			return DOORBELL_RING_FULL;
		}
	} while (!atomic64_try_cmpxchg(&buf->tail, &pos, pos + 1));

	entry = &buf->entries[doorbell_buffer_index(buf, pos)];
	WRITE_ONCE(entry->value, value);
	/*
	 * (E): value before the entry, pairs with (F) in ordered_word()
	 * (C): the entry before armed, pairs with (D) in doorbell_buffer_arm()
	 */
	xchg(&entry->word,
	     (u64)doorbell_buffer_lap(buf, pos) << DOORBELL_ENTRY_LAP_SHIFT |
	     (u32)kind << DOORBELL_ENTRY_KIND_SHIFT | index);
	preempt_enable();

	return doorbell_claim_wakeup(control);
}

#endif /* _DOORBELL_PRODUCE_H */
