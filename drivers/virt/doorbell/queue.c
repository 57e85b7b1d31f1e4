// SPDX-License-Identifier: GPL-2.0
/*
 * Queue: rings become events.
 *
 * Coalescing
 * ----------
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
 * or the consumer sees the entry. A last look passes over entries whose rings were
 * all counted, so a ring of a queue that has such an entry looks at armed, too:
 * (A) pairs with (D), either it sees armed or it is not passed over.
 *
 * And two releases:
 *
 * (E) the store that publishes an entry releases the position stored before it,
 *     to the consumer's acquire (F) of the entry. Were the entry seen first, a
 *     ring could still find the claim in progress after the entry was taken, and
 *     be lost.
 * (G) the store of head releases the reads of the entries before it, so that no
 *     producer overwrites an entry that is still to be read. It pairs with the
 *     read of head on which a producer's claim, a full barrier, depends. Who
 *     takes a place that only others saw passed is ordered after them by tail.
 *
 * (A) also orders the value before the count, and pairs with the acquire (H) of
 * rings in the consumer: the value read is at least as new as the count.
 *
 * Ordered
 * -------
 *
 * Every ring takes a place of its own among the entries, if fewer than depth
 * are outstanding. The entry carries its own lap number: (E) releases the value
 * to the acquire (F), (G) and the claim of a place keep an entry from being
 * overwritten before it is read, (C) and (D) wake the consumer.
 *
 *   producer: wait for room           consumer: make room
 *
 *   is on the wait queue              head = past the entries
 *   full barrier              (I)     full barrier              (B)
 *   look at head                      wake the wait queue if somebody is there
 *
 * (I), in the wait queue code, pairs with (B): either the producer sees room, or
 * the consumer sees the producer.
 *
 * In both modes
 * -------------
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

/**
 * doorbell_queue_init() - allocate a queue, charged to the caller
 * @q: zeroed; set on success
 * @queues: number of queues, 1 to DOORBELL_QUEUES_MAX
 * @depth: 0 for coalescing, or how many events are outstanding at the most, up
 *	to DOORBELL_DEPTH_MAX
 *
 * What the consumer writes and what producers write is on different pages. The
 * queue starts armed, for a consumer that waits before there is a region.
 *
 * Return: 0 or -ENOMEM.
 */
int doorbell_queue_init(struct doorbell_queue *q, u32 queues, u32 depth)
{
	u32 nr_slots = depth ? 0 : queues + 1;
	u32 order = order_base_2(depth ?: nr_slots);
	size_t control = PAGE_ALIGN(struct_size(q->control, seen, nr_slots));
	size_t slots = nr_slots * sizeof(*q->slots);
	size_t fifo = (depth ? sizeof(*q->entries) : sizeof(*q->fifo)) << order;
	void *mem;

	BUILD_BUG_ON(sizeof(*q->slots) != sizeof(struct doorbell_slot));
	BUILD_BUG_ON(DOORBELL_QUEUES_MAX >> DOORBELL_FIFO_LAP_SHIFT);

	/* a cgroup without room gets an error, not a victim */
	mem = __vmalloc(control + PAGE_ALIGN(slots + fifo),
			GFP_KERNEL_ACCOUNT | __GFP_RETRY_MAYFAIL |
			__GFP_NOWARN | __GFP_ZERO);
	if (!mem)
		return -ENOMEM;

	q->mem = mem;
	q->control = mem;
	if (depth) {
		q->entries = mem + control;
	} else {
		q->slots = mem + control;
		q->fifo = mem + control + slots;
	}
	q->control_size = control;
	q->shared_size = PAGE_ALIGN(slots + fifo);
	q->nr_slots = queues + 1;
	q->depth = depth;
	q->order = order;
	q->control->armed = 1;
	return 0;
}

/**
 * doorbell_queue_destroy() - free what doorbell_queue_init() allocated
 * @q: the queue; nobody rings or takes any more
 *
 * Pages that user space has mapped live on until it unmaps them.
 */
void doorbell_queue_destroy(struct doorbell_queue *q)
{
	vfree(q->mem);
}

static u32 place(const struct doorbell_queue *q, u64 at)
{
	return at & (BIT_ULL(q->order) - 1);
}

/* Differs from one lap to the next, and is not 0 in the first. */
static u32 lap(const struct doorbell_queue *q, u64 at)
{
	return (at >> q->order) + 1;
}

/* After a full barrier: does the producer have to wake the consumer? */
static enum doorbell_rung rung(struct doorbell_queue *q)
{
	if (READ_ONCE(q->control->armed) && xchg(&q->control->armed, 0))
		return DOORBELL_RUNG_WAKE;
	return DOORBELL_RUNG;
}

/* Coalescing */

/* Is there an entry at @at? If so, *@index is its slot. */
static bool fifo_peek(const struct doorbell_queue *q, u64 at, u32 *index)
{
	/* (F): acquire, pairs with (E) in fifo_publish() */
	u32 entry = smp_load_acquire(&q->fifo[place(q, at)]);

	*index = entry & (BIT(DOORBELL_FIFO_LAP_SHIFT) - 1);
	return entry >> DOORBELL_FIFO_LAP_SHIFT == (u16)lap(q, at);
}

static bool slot_claim(struct doorbell_queue *q,
		       struct doorbell_queue_slot *slot)
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

static void fifo_publish(struct doorbell_queue *q,
			 struct doorbell_queue_slot *slot)
{
	u64 at = atomic64_fetch_inc(&q->tail);
	u32 entry = lap(q, at) << DOORBELL_FIFO_LAP_SHIFT | (slot - q->slots);

	atomic64_set(&slot->pos, at + 1);
	/* (E): release of pos, pairs with (F) in fifo_peek() */
	smp_store_release(&q->fifo[place(q, at)], entry);
}

/* Give the slot a place in the FIFO if it has none. */
static enum doorbell_rung slot_enqueue(struct doorbell_queue *q,
				       struct doorbell_queue_slot *slot)
{
	bool claimed;

	/* Entries behind one that is not published yet have to wait for it. */
	preempt_disable();
	claimed = slot_claim(q, slot);
	if (claimed)
		fifo_publish(q, slot);
	preempt_enable();

	/* a last look may have passed over the place: (A) pairs with (D) */
	if (claimed)
		smp_mb(); /* (C): entry before armed, pairs with (D) */
	return rung(q);
}

static enum doorbell_rung slot_ring(struct doorbell_queue *q,
				    struct doorbell_queue_slot *slot,
				    u64 value, u8 tag)
{
	s64 rings = atomic64_read(&slot->rings);

	WRITE_ONCE(slot->value, value);
	while ((u8)rings != tag &&
	       !atomic64_try_cmpxchg(&slot->rings, &rings,
				     (rings & ~0xffLL) | tag))
		;
	/* (A): full barrier; value before rings pairs with (H), rest with (B) */
	atomic64_fetch_add(1 << DOORBELL_RINGS_SHIFT, &slot->rings);

	return slot_enqueue(q, slot);
}

/* What slot @index has that was not seen, as an event; false if nothing. */
static bool slot_peek(const struct doorbell_queue *q, u32 index,
		      struct doorbell_event *event)
{
	const struct doorbell_queue_slot *slot = &q->slots[index];
	/* (H): acquire, pairs with (A): value after rings */
	u64 rings = atomic64_read_acquire(&slot->rings);
	u64 count = (rings >> DOORBELL_RINGS_SHIFT) -
		    READ_ONCE(q->control->seen[index]);

	event->queue = index;
	event->type = (u8)rings >> DOORBELL_TAG_TYPE_SHIFT;
	event->width = rings & (BIT(DOORBELL_TAG_TYPE_SHIFT) - 1);
	event->count = min_t(u64, count, U32_MAX);
	event->value = READ_ONCE(slot->value);
	return count;
}

/*
 * Pass the next @n places, whose slots and counts are in @events. What was rung
 * since then, or does not fit a count, gets a place of its own, by the producer
 * or here.
 */
static bool fifo_pass(struct doorbell_queue *q,
		      const struct doorbell_event *events, unsigned int n)
{
	u64 *seen = q->control->seen;
	bool wake = false;
	unsigned int i;

	for (i = 0; i < n; i++) {
		u32 index = min(events[i].queue, doorbell_queue_bad(q));

		WRITE_ONCE(seen[index], READ_ONCE(seen[index]) + events[i].count);
	}

	/* (G): release of entries, pairs with head in slot_claim() */
	smp_store_release(&q->control->head, READ_ONCE(q->control->head) + n);
	smp_mb(); /* (B): head before rings, pairs with (A) */

	for (i = 0; i < n; i++) {
		u32 index = min(events[i].queue, doorbell_queue_bad(q));
		struct doorbell_queue_slot *slot = &q->slots[index];
		u64 rings = atomic64_read(&slot->rings);

		if (rings >> DOORBELL_RINGS_SHIFT != READ_ONCE(seen[index]) &&
		    slot_enqueue(q, slot) == DOORBELL_RUNG_WAKE)
			wake = true;
	}
	return wake;
}

static unsigned int fifo_events(struct doorbell_queue *q,
				struct doorbell_event *events,
				unsigned int max, bool *wake)
{
	u64 head = READ_ONCE(q->control->head);
	unsigned int n;
	u32 index;

	/* pass what a consumer of mapped memory counted with an earlier place */
	while (fifo_peek(q, head, &index) && !slot_peek(q, index, events)) {
		if (fifo_pass(q, events, 1))
			*wake = true;
		head++;
	}
	for (n = 0; n < max && fifo_peek(q, head + n, &index); n++)
		if (!slot_peek(q, index, &events[n]))
			break;
	return n;
}

/* Ordered */

/* Negative for a tail that was read before others moved it, and head. */
static s64 outstanding(const struct doorbell_queue *q, u64 tail)
{
	return tail - READ_ONCE(q->control->head);
}

static enum doorbell_rung entry_ring(struct doorbell_queue *q, u32 index,
				     u64 value, u8 tag)
{
	s64 at = atomic64_read(&q->tail);
	struct doorbell_entry *entry;

	preempt_disable();
	do {
		/* (G) pairs with this read: the entry's reader has passed it */
		if (outstanding(q, at) >= q->depth) {
			preempt_enable();
			return DOORBELL_FULL;
		}
	} while (!atomic64_try_cmpxchg(&q->tail, &at, at + 1));

	entry = &q->entries[place(q, at)];
	WRITE_ONCE(entry->value, value);
	/* (E): release of value, pairs with (F) in entry_peek() */
	smp_store_release(&entry->word,
			  (u64)lap(q, at) << DOORBELL_ENTRY_LAP_SHIFT |
			  (u64)tag << DOORBELL_ENTRY_TAG_SHIFT | index);
	preempt_enable();

	if (index == doorbell_queue_bad(q))
		atomic64_inc(&q->bad_rings);
	smp_mb(); /* (C): entry before armed, pairs with (D) */
	return rung(q);
}

static bool entry_peek(const struct doorbell_queue *q, u64 at, u64 *word)
{
	/* (F): acquire, pairs with (E) in entry_ring() */
	*word = smp_load_acquire(&q->entries[place(q, at)].word);
	return *word >> DOORBELL_ENTRY_LAP_SHIFT == lap(q, at);
}

static unsigned int entry_events(const struct doorbell_queue *q,
				 struct doorbell_event *events,
				 unsigned int max)
{
	u64 head = READ_ONCE(q->control->head);
	unsigned int n;
	u64 word;
	u8 tag;

	for (n = 0; n < max && entry_peek(q, head + n, &word); n++) {
		tag = word >> DOORBELL_ENTRY_TAG_SHIFT;
		events[n].queue = word;
		events[n].type = tag >> DOORBELL_TAG_TYPE_SHIFT;
		events[n].width = tag & (BIT(DOORBELL_TAG_TYPE_SHIFT) - 1);
		events[n].count = 1;
		events[n].value =
			READ_ONCE(q->entries[place(q, head + n)].value);
	}
	return n;
}

static void entry_pass(struct doorbell_queue *q, unsigned int n)
{
	/* (G): release of entries, pairs with head in entry_ring() */
	smp_store_release(&q->control->head, READ_ONCE(q->control->head) + n);
	smp_mb(); /* (B): head before the wait queue, pairs with (I) */
}

/* Both */

/**
 * doorbell_queue_ring() - count a ring
 * @q: the queue
 * @index: number of the queue that is rung, or doorbell_queue_bad()
 * @type: &enum doorbell_event_type
 * @value: value that was written
 * @width: its size in bytes, or 0
 *
 * Takes no lock, allocates nothing. Any context but NMI.
 *
 * Return: what became of it.
 */
enum doorbell_rung doorbell_queue_ring(struct doorbell_queue *q, u32 index,
				       u8 type, u64 value, u8 width)
{
	u8 tag = type << DOORBELL_TAG_TYPE_SHIFT | width;

	if (q->entries)
		return entry_ring(q, index, value, tag);
	return slot_ring(q, &q->slots[index], value, tag);
}

/**
 * doorbell_queue_peek() - the next events
 * @q: the queue
 * @events: filled
 * @max: room in @events, at least 1
 * @wake: set to true if the caller has to wake others that wait to read; else
 *	untouched
 *
 * They stay where they are until doorbell_queue_pass(). The caller makes sure
 * that there is one consumer at a time.
 *
 * Return: number of events, 0 only if there is none.
 */
unsigned int doorbell_queue_peek(struct doorbell_queue *q,
				 struct doorbell_event *events,
				 unsigned int max, bool *wake)
{
	unsigned int n = q->entries ? entry_events(q, events, max) :
				      fifo_events(q, events, max, wake);
	unsigned int i;

	for (i = 0; i < n; i++)
		if (events[i].type != DOORBELL_EVENT_QUEUE)
			events[i].queue = DOORBELL_QUEUE_NONE;
	return n;
}

/**
 * doorbell_queue_pass() - the consumer has the first of the events
 * @q: the queue
 * @events: of doorbell_queue_peek()
 * @n: how many of them
 *
 * If the queue is ordered, the caller wakes those who wait to write.
 *
 * Return: true if the caller has to wake others that wait to read.
 */
bool doorbell_queue_pass(struct doorbell_queue *q,
			 const struct doorbell_event *events, unsigned int n)
{
	if (!q->entries)
		return fifo_pass(q, events, n);
	entry_pass(q, n);
	return false;
}

/**
 * doorbell_queue_arm() - say that the consumer is about to sleep
 * @q: the queue
 *
 * To be followed by a last look, with doorbell_queue_readable() or
 * doorbell_queue_peek(), before sleeping. Whoever sleeps must already be on the
 * wait queue that producers wake.
 */
void doorbell_queue_arm(struct doorbell_queue *q)
{
	WRITE_ONCE(q->control->armed, 1);
	smp_mb(); /* (D): armed before the last look, pairs with (C) */
}

/**
 * doorbell_queue_readable() - would doorbell_queue_peek() find an event?
 * @q: the queue
 *
 * Entries whose rings were counted already are looked past, but not removed.
 */
bool doorbell_queue_readable(const struct doorbell_queue *q)
{
	u64 head = READ_ONCE(q->control->head);
	u64 rings, word;
	u32 index;

	if (q->entries)
		return entry_peek(q, head, &word);

	for (; fifo_peek(q, head, &index); head++) {
		rings = atomic64_read(&q->slots[index].rings);
		if (rings >> DOORBELL_RINGS_SHIFT !=
		    READ_ONCE(q->control->seen[index]))
			return true;
	}
	return false;
}

/**
 * doorbell_queue_writable() - would doorbell_queue_ring() find room?
 * @q: the queue
 */
bool doorbell_queue_writable(const struct doorbell_queue *q)
{
	return !q->entries ||
	       outstanding(q, atomic64_read(&q->tail)) < q->depth;
}

/**
 * doorbell_queue_count() - add up the counters
 * @q: the queue
 * @counters: set
 */
void doorbell_queue_count(const struct doorbell_queue *q,
			  struct doorbell_counters *counters)
{
	u64 rings;
	u32 i;

	*counters = (struct doorbell_counters) {};
	if (q->entries) {
		rings = atomic64_read(&q->tail);
		counters->bad_rings = atomic64_read(&q->bad_rings);
		counters->rings = rings - counters->bad_rings;
		counters->pending = rings - READ_ONCE(q->control->head);
		return;
	}
	for (i = 0; i < q->nr_slots; i++) {
		rings = (u64)atomic64_read(&q->slots[i].rings) >>
			DOORBELL_RINGS_SHIFT;
		counters->pending += rings - READ_ONCE(q->control->seen[i]);
		if (i == doorbell_queue_bad(q))
			counters->bad_rings = rings;
		else
			counters->rings += rings;
	}
}
