// SPDX-License-Identifier: GPL-2.0
/*
 * Queue: rings become events, coalescing.
 *
 * Every queue of the region has a slot, which counts its rings and holds the
 * last value, and at most one place in a FIFO of slot numbers, so that the FIFO
 * cannot overflow. The consumer is told of rings = rings ever - rings seen.
 *
 * Two questions decide whether a ring can be lost, and both are the store
 * buffering pattern: each side writes, has a full barrier, and reads what the
 * other side writes, so that at least one of the two sees the other.
 *
 *   producer: ring a queue            consumer: take it
 *
 *   value = v
 *   rings++
 *   full barrier              (A)     head = past the entry
 *   read pos, head                    full barrier              (B)
 *   if pos > head: done               read rings
 *
 * (A) pairs with (B): either the producer sees that the consumer has passed the
 * queue's place and takes a new one, or the consumer counts the ring.
 *
 *   producer: publish                 consumer: fall asleep
 *
 *   fifo[tail] = slot                 armed = 1
 *   full barrier              (C)     full barrier              (D)
 *   read armed                        look at fifo[head]
 *   if armed: armed = 0, wake         if empty: sleep
 *
 * (C) pairs with (D): either the producer sees that it has to wake the consumer,
 * or the consumer sees the entry.
 *
 * And two releases:
 *
 * (E) the store that publishes an entry releases the position stored before it,
 *     to the consumer's acquire (F) of the entry. Were the entry seen first, a
 *     ring could still find the old position passed, and take a second place.
 * (G) the store of head releases the reads of the entries before it, so that no
 *     producer overwrites an entry that is still to be read. It pairs with the
 *     read of head on which a producer's claim, a full barrier, depends. Who
 *     takes a place that only others saw passed is ordered after them by tail.
 *
 * (A) also orders the value before the count, and pairs with the acquire (H) of
 * rings in the consumer: the value read is at least as new as the count.
 *
 * The control block may be mapped by user space. Nothing read from it is used
 * as an index or as a bound: a consumer that writes garbage there gets garbage,
 * or nothing.
 */
#include <linux/bits.h>
#include <linux/build_bug.h>
#include <linux/errno.h>
#include <linux/limits.h>
#include <linux/log2.h>
#include <linux/minmax.h>
#include <linux/mm.h>
#include <linux/overflow.h>
#include <linux/preempt.h>
#include <linux/vmalloc.h>

#include <linux/doorbell.h>

#include "queue.h"

#define SLOT_CLAIMED	U64_MAX
#define RINGS_SHIFT	8
#define FIFO_LAP_SHIFT	16

/**
 * doorbell_queue_init() - allocate the slots and the FIFO, charged to the caller
 * @q: set on success
 * @queues: number of queues, 1 to DOORBELL_QUEUES_MAX
 *
 * Consumer-written and producer-written memory are on pages of their own. The
 * queue starts armed, for a consumer that waits before there is a region.
 *
 * Return: 0 or -ENOMEM.
 */
int doorbell_queue_init(struct doorbell_queue *q, u32 queues)
{
	u32 nr_slots = queues + 1;
	u32 order = order_base_2(nr_slots);
	size_t control = PAGE_ALIGN(struct_size(q->control, seen, nr_slots));
	size_t slots = nr_slots * sizeof(*q->slots);
	size_t fifo = sizeof(*q->fifo) << order;
	void *mem;

	BUILD_BUG_ON(sizeof(struct doorbell_slot) != 24);
	BUILD_BUG_ON(DOORBELL_QUEUES_MAX >> FIFO_LAP_SHIFT);

	mem = __vmalloc(control + PAGE_ALIGN(slots + fifo),
			GFP_KERNEL_ACCOUNT | __GFP_ZERO);
	if (!mem)
		return -ENOMEM;

	q->mem = mem;
	q->control = mem;
	q->slots = mem + control;
	q->fifo = mem + control + slots;
	q->nr_slots = nr_slots;
	q->order = order;
	atomic64_set(&q->tail, 0);
	q->control->armed = 1;
	return 0;
}

/**
 * doorbell_queue_destroy() - free what doorbell_queue_init() allocated
 * @q: the queue; nobody rings or takes any more
 */
void doorbell_queue_destroy(struct doorbell_queue *q)
{
	vfree(q->mem);
}

static u32 *fifo_place(const struct doorbell_queue *q, u64 at)
{
	return &q->fifo[at & (BIT_ULL(q->order) - 1)];
}

/* Differs from one lap of the FIFO to the next, and is not 0 in the first. */
static u16 fifo_lap(const struct doorbell_queue *q, u64 at)
{
	return (at >> q->order) + 1;
}

/* Is there an entry at @at? If so, *@index is its slot. */
static bool fifo_peek(const struct doorbell_queue *q, u64 at, u32 *index)
{
	/* (F): acquire, pairs with (E) in publish() */
	u32 entry = smp_load_acquire(fifo_place(q, at));

	*index = entry & (BIT(FIFO_LAP_SHIFT) - 1);
	return entry >> FIFO_LAP_SHIFT == fifo_lap(q, at);
}

static bool claim(struct doorbell_queue *q, struct doorbell_slot *slot)
{
	s64 pos = atomic64_read(&slot->pos);

	/*
	 * Each failure of the cmpxchg is another producer's success, after
	 * which its place is looked at anew: ours may already be passed.
	 */
	do {
		if ((u64)pos > READ_ONCE(q->control->head))
			return false;
	} while (!atomic64_try_cmpxchg(&slot->pos, &pos, SLOT_CLAIMED));
	return true;
}

static void publish(struct doorbell_queue *q, struct doorbell_slot *slot)
{
	u64 at = atomic64_fetch_inc(&q->tail);
	u32 entry = fifo_lap(q, at) << FIFO_LAP_SHIFT | (slot - q->slots);

	atomic64_set(&slot->pos, at + 1);
	/* (E): release of pos, pairs with (F) in fifo_peek() */
	smp_store_release(fifo_place(q, at), entry);
}

/*
 * Give the slot a place in the FIFO if it has none. Returns true if the caller
 * has to wake the consumer.
 */
static bool enqueue(struct doorbell_queue *q, struct doorbell_slot *slot)
{
	bool claimed;

	/* Entries behind one that is not published yet have to wait for it. */
	preempt_disable();
	claimed = claim(q, slot);
	if (claimed)
		publish(q, slot);
	preempt_enable();
	if (!claimed)
		return false;

	smp_mb(); /* (C): entry before armed, pairs with (D) */
	return READ_ONCE(q->control->armed) && xchg(&q->control->armed, 0);
}

/**
 * doorbell_queue_ring() - count a ring
 * @q: the queue
 * @index: slot, less than nr_slots
 * @value: value that was written
 * @width: its size in bytes, or 0
 *
 * Takes no lock, allocates nothing, never fails. Any context but NMI.
 *
 * Return: true if the consumer sleeps and the caller has to wake it.
 */
bool doorbell_queue_ring(struct doorbell_queue *q, u32 index, u64 value,
			 u8 width)
{
	struct doorbell_slot *slot = &q->slots[index];
	s64 rings = atomic64_read(&slot->rings);

	WRITE_ONCE(slot->value, value);
	while ((u8)rings != width &&
	       !atomic64_try_cmpxchg(&slot->rings, &rings,
				     (rings & ~0xffLL) | width))
		;
	/* (A): full barrier; value before rings pairs with (H), rest with (B) */
	atomic64_fetch_add(1 << RINGS_SHIFT, &slot->rings);

	return enqueue(q, slot);
}

/**
 * doorbell_queue_take() - turn rings into events
 * @q: the queue
 * @events: filled
 * @max: room in @events, at least 1
 * @wake: set to true if the caller has to wake others that wait; else untouched
 *
 * The caller makes sure that there is one consumer at a time.
 *
 * Return: number of events, 0 only if there is none.
 */
unsigned int doorbell_queue_take(struct doorbell_queue *q,
				 struct doorbell_event *events,
				 unsigned int max, bool *wake)
{
	struct doorbell_control *control = q->control;
	u64 head = READ_ONCE(control->head);
	unsigned int passed, taken, i;
	u32 index;

	do {
		for (passed = 0; passed < max; passed++, head++) {
			if (!fifo_peek(q, head, &index))
				break;
			events[passed].queue = index;
		}
		if (!passed)
			return 0;

		/* (G): release of the entries, pairs with the read in claim() */
		smp_store_release(&control->head, head);
		smp_mb(); /* (B): head before rings, pairs with (A) */

		for (i = 0, taken = 0; i < passed; i++) {
			struct doorbell_slot *slot;
			u64 rings, seen, count;

			index = events[i].queue;
			slot = &q->slots[index];
			/* (H): acquire, pairs with (A): value after rings */
			rings = atomic64_read_acquire(&slot->rings);
			seen = READ_ONCE(control->seen[index]);
			count = (rings >> RINGS_SHIFT) - seen;
			/* counted when the queue's last place was passed */
			if (!count)
				continue;
			if (count > U32_MAX) {
				count = U32_MAX;
				if (enqueue(q, slot))
					*wake = true;
			}
			WRITE_ONCE(control->seen[index], seen + count);

			if (index == doorbell_queue_bad(q)) {
				index = DOORBELL_QUEUE_NONE;
				events[taken].type = DOORBELL_EVENT_BAD_ADDRESS;
			} else {
				events[taken].type = DOORBELL_EVENT_QUEUE;
			}
			events[taken].queue = index;
			events[taken].width = rings;
			events[taken].count = count;
			events[taken].value = READ_ONCE(slot->value);
			taken++;
		}
	} while (!taken);

	return taken;
}

/**
 * doorbell_queue_arm() - say that the consumer is about to sleep
 * @q: the queue
 *
 * To be followed by a last look, with doorbell_queue_readable() or
 * doorbell_queue_take(), before sleeping. Whoever sleeps must already be on the
 * wait queue that producers wake.
 */
void doorbell_queue_arm(struct doorbell_queue *q)
{
	WRITE_ONCE(q->control->armed, 1);
	smp_mb(); /* (D): armed before the last look, pairs with (C) */
}

/**
 * doorbell_queue_readable() - would doorbell_queue_take() find an event?
 * @q: the queue
 *
 * Entries whose rings were counted already are looked past, but not removed.
 */
bool doorbell_queue_readable(const struct doorbell_queue *q)
{
	u64 head = READ_ONCE(q->control->head);
	u64 rings;
	u32 index;

	for (; fifo_peek(q, head, &index); head++) {
		rings = atomic64_read(&q->slots[index].rings);
		if (rings >> RINGS_SHIFT != READ_ONCE(q->control->seen[index]))
			return true;
	}
	return false;
}

/**
 * doorbell_queue_count() - add up the counters of all slots
 * @q: the queue
 * @counters: set
 */
void doorbell_queue_count(const struct doorbell_queue *q,
			  struct doorbell_counters *counters)
{
	u64 rings;
	u32 i;

	*counters = (struct doorbell_counters) {};
	for (i = 0; i < q->nr_slots; i++) {
		rings = (u64)atomic64_read(&q->slots[i].rings) >> RINGS_SHIFT;
		counters->pending += rings - READ_ONCE(q->control->seen[i]);
		if (i == doorbell_queue_bad(q))
			counters->bad_rings = rings;
		else
			counters->rings += rings;
	}
}
