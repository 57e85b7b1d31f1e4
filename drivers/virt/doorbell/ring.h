/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Ring: the producers' side of a queue, inlined into those who ring.
 *
 * queue.c has the consumer's side and tells how both go together; the letters at
 * the barriers are the ones there. No function here takes a lock, allocates or
 * sleeps. Any context but NMI.
 */
#ifndef _DOORBELL_RING_H
#define _DOORBELL_RING_H

#include <linux/atomic.h>
#include <linux/compiler.h>
#include <linux/limits.h>
#include <linux/preempt.h>

#include "queue.h"

#define DOORBELL_POS_CLAIMED	U64_MAX

static __always_inline u32 doorbell_queue_place(const struct doorbell_queue *q,
						u64 at)
{
	return at & q->mask;
}

/* Differs from one lap to the next; positions begin at the first lap, not at 0. */
static __always_inline u32 doorbell_queue_lap(const struct doorbell_queue *q,
					      u64 at)
{
	return at >> q->order;
}

/* After a full barrier: does the producer have to wake the consumer? */
static __always_inline enum doorbell_rung
doorbell_rung(struct doorbell_control *control)
{
	if (READ_ONCE(control->armed) && xchg(&control->armed, 0))
		return DOORBELL_RUNG_WAKE;
	return DOORBELL_RUNG;
}

/* Coalescing: give @slot, number @index, a place in the FIFO if it has none. */
static __always_inline enum doorbell_rung
doorbell_slot_enqueue(struct doorbell_queue *q,
		      struct doorbell_queue_slot *slot, u32 index)
{
	struct doorbell_control *control = q->control;
	s64 pos = atomic64_read(&slot->pos);
	u64 at;

	/* Entries behind one that is not published yet have to wait for it. */
	preempt_disable();
	/*
	 * Each failure of the cmpxchg is another producer's success, after
	 * which its place is looked at anew: ours may already be passed.
	 */
	do {
		/* a last look may have passed over it: (A) pairs with (D) */
		if ((u64)pos >= READ_ONCE(control->head))
			goto out;
	} while (!atomic64_try_cmpxchg(&slot->pos, &pos, DOORBELL_POS_CLAIMED));

	at = atomic64_fetch_inc(&q->tail);
	atomic64_set(&slot->pos, at);
	/*
	 * (E): pos before the entry, pairs with (F) in entry_slot()
	 * (C): the entry before armed, pairs with (D) in doorbell_queue_arm()
	 */
	xchg(&q->fifo[doorbell_queue_place(q, at)],
	     doorbell_queue_lap(q, at) << DOORBELL_FIFO_LAP_SHIFT | index);
out:
	preempt_enable();
	return doorbell_rung(control);
}

/**
 * doorbell_slot_ring() - ring a queue, coalescing
 * @q: the queue
 * @index: number of the queue that is rung, or doorbell_queue_bad()
 * @tag: doorbell_queue_tag()
 * @value: value that was written
 *
 * Return: DOORBELL_RUNG or DOORBELL_RUNG_WAKE.
 */
static __always_inline enum doorbell_rung
doorbell_slot_ring(struct doorbell_queue *q, u32 index, u16 tag, u64 value)
{
	struct doorbell_queue_slot *slot = &q->slots[index];
	s64 rings = atomic64_read(&slot->rings);

	WRITE_ONCE(slot->value, value);
	while ((u16)rings != tag &&
	       !atomic64_try_cmpxchg(&slot->rings, &rings,
				     (rings & ~(s64)U16_MAX) | tag))
		;
	/*
	 * (A): full barrier; value before rings pairs with (H) in slot_peek(),
	 * rings before pos, head and armed with (B) in fifo_pass() and (D)
	 */
	atomic64_fetch_add(1 << DOORBELL_RINGS_SHIFT, &slot->rings);

	return doorbell_slot_enqueue(q, slot, index);
}

/**
 * doorbell_entry_ring() - ring a queue, ordered
 * @q: the queue
 * @index: number of the queue that is rung, or doorbell_queue_bad()
 * @tag: doorbell_queue_tag()
 * @value: value that was written
 *
 * Return: DOORBELL_RUNG, DOORBELL_RUNG_WAKE or DOORBELL_FULL.
 */
static __always_inline enum doorbell_rung
doorbell_entry_ring(struct doorbell_queue *q, u32 index, u16 tag, u64 value)
{
	struct doorbell_control *control = q->control;
	s64 at = atomic64_read(&q->tail);
	struct doorbell_entry *entry;

	/* Entries behind one that is not published yet have to wait for it. */
	preempt_disable();
	do {
		/*
		 * (G) pairs with this read: the entry's reader has passed it.
		 * Negative for a tail that was read before others moved both.
		 */
		if ((s64)(at - READ_ONCE(control->head)) >= q->depth) {
			preempt_enable();
			return DOORBELL_FULL;
		}
	} while (!atomic64_try_cmpxchg(&q->tail, &at, at + 1));

	entry = &q->entries[doorbell_queue_place(q, at)];
	WRITE_ONCE(entry->value, value);
	/*
	 * (E): value before the entry, pairs with (F) in entry_word()
	 * (C): the entry before armed, pairs with (D) in doorbell_queue_arm()
	 */
	xchg(&entry->word,
	     (u64)doorbell_queue_lap(q, at) << DOORBELL_ENTRY_LAP_SHIFT |
	     (u32)tag << DOORBELL_ENTRY_TAG_SHIFT | index);
	preempt_enable();

	return doorbell_rung(control);
}

#endif /* _DOORBELL_RING_H */
