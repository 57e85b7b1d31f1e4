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
 *   if pos >= head: done              read rings
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
 *     be lost. An xchg() is both (E) and (C).
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
#include <linux/build_bug.h>
#include <linux/errno.h>
#include <linux/limits.h>
#include <linux/log2.h>
#include <linux/minmax.h>
#include <linux/mm.h>
#include <linux/overflow.h>
#include <linux/vmalloc.h>

#include <linux/doorbell.h>

#include "queue.h"
#include "ring.h"

/**
 * doorbell_queue_init() - allocate a queue, charged to the caller
 * @q: zeroed; set on success
 * @queues: number of queues, 1 to DOORBELL_QUEUES_MAX
 * @depth: 0 for coalescing, or how many events are outstanding at the most, up
 *	to DOORBELL_DEPTH_MAX
 *
 * What the consumer writes and what producers write is on different pages. The
 * queue starts armed, for a consumer that waits before there is a region.
 * Positions start at the first lap, so that no entry, and no position of a slot,
 * looks like zeroed memory.
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
	q->nr_slots = nr_slots;
	q->depth = depth;
	q->order = order;
	q->mask = BIT(order) - 1;
	atomic64_set(&q->tail, BIT(order));
	q->control->head = BIT(order);
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

/* Coalescing */

/* The slot that an entry names, or more than U16_MAX if it is of another lap. */
static u32 entry_slot(const u32 *entry, u32 lap)
{
	/* (F): acquire, pairs with (E) in doorbell_slot_enqueue() */
	return smp_load_acquire(entry) - (lap << DOORBELL_FIFO_LAP_SHIFT);
}

/*
 * What slot @index has that was not seen, as an event: of count 0 if there is
 * nothing.
 */
static void slot_peek(const struct doorbell_queue *q, u32 index,
		      struct doorbell_event *event)
{
	const struct doorbell_queue_slot *slot = &q->slots[index];
	/* (H): acquire, pairs with (A): value after rings */
	u64 rings = atomic64_read_acquire(&slot->rings);
	u64 unseen = rings - READ_ONCE(q->control->seen[index]);
	u16 tag = rings;

	event->queue = (u8)tag == DOORBELL_EVENT_QUEUE ? index :
							 DOORBELL_QUEUE_NONE;
	event->type = tag;
	event->width = tag >> DOORBELL_TAG_WIDTH_SHIFT;
	event->count = min_t(u64, unseen >> DOORBELL_RINGS_SHIFT, U32_MAX);
	event->value = READ_ONCE(slot->value);
}

/*
 * Pass the next @n places, whose slots and counts are in @events. What was rung
 * since then, or does not fit a count, gets a place of its own, by the producer
 * or here.
 */
static bool fifo_pass(struct doorbell_queue *q,
		      const struct doorbell_event *events, unsigned int n)
{
	struct doorbell_control *control = q->control;
	struct doorbell_queue_slot *slots = q->slots;
	u32 bad = doorbell_queue_bad(q);
	bool wake = false;
	unsigned int i;

	/* (G): release of entries, pairs with head in doorbell_slot_enqueue() */
	smp_store_release(&control->head, READ_ONCE(control->head) + n);
	smp_mb(); /* (B): head before rings, pairs with (A) */

	for (i = 0; i < n; i++) {
		u32 index = min_t(u32, events[i].queue, bad);
		u64 seen = READ_ONCE(control->seen[index]) +
			   ((u64)events[i].count << DOORBELL_RINGS_SHIFT);
		u64 rings = atomic64_read(&slots[index].rings);

		WRITE_ONCE(control->seen[index], seen);
		if (rings - seen > U16_MAX &&
		    doorbell_slot_enqueue(q, &slots[index], index) ==
		    DOORBELL_RUNG_WAKE)
			wake = true;
	}
	return wake;
}

/* All that there are up to the end of the lap. */
static unsigned int fifo_events(struct doorbell_queue *q,
				struct doorbell_event *events,
				unsigned int max, bool *wake)
{
	u64 head = READ_ONCE(q->control->head);
	unsigned int n;
	u32 index;

	for (;; head++) {
		u32 first = doorbell_queue_place(q, head);
		u32 lap = doorbell_queue_lap(q, head);
		const u32 *fifo = &q->fifo[first];
		unsigned int end = min(max, q->mask + 1 - first);

		for (n = 0; n < end; n++) {
			index = entry_slot(&fifo[n], lap);
			if (index > U16_MAX)
				break;
			slot_peek(q, index, &events[n]);
			if (!events[n].count)
				break;
		}
		if (n || index > U16_MAX)
			return n;
		/* a consumer of mapped memory counted it with an earlier place */
		if (fifo_pass(q, events, 1))
			*wake = true;
	}
}

/* Ordered */

/* Is @entry one of this lap? */
static bool entry_word(const struct doorbell_entry *entry, u32 lap, u64 *word)
{
	/* (F): acquire, pairs with (E) in doorbell_entry_ring() */
	*word = smp_load_acquire(&entry->word);
	return *word >> DOORBELL_ENTRY_LAP_SHIFT == lap;
}

/* All that there are up to the end of the lap. */
static unsigned int entry_events(const struct doorbell_queue *q,
				 struct doorbell_event *events,
				 unsigned int max)
{
	u64 head = READ_ONCE(q->control->head);
	u32 first = doorbell_queue_place(q, head);
	u32 lap = doorbell_queue_lap(q, head);
	const struct doorbell_entry *entries = &q->entries[first];
	unsigned int n;
	u64 word;

	max = min(max, q->mask + 1 - first);
	for (n = 0; n < max && entry_word(&entries[n], lap, &word); n++) {
		u16 tag = word >> DOORBELL_ENTRY_TAG_SHIFT;

		events[n].queue = word;
		events[n].type = tag;
		events[n].width = tag >> DOORBELL_TAG_WIDTH_SHIFT;
		events[n].count = 1;
		events[n].value = READ_ONCE(entries[n].value);
	}
	return n;
}

static void entry_pass(struct doorbell_queue *q, unsigned int n)
{
	/* (G): release of entries, pairs with head in doorbell_entry_ring() */
	smp_store_release(&q->control->head, READ_ONCE(q->control->head) + n);
	smp_mb(); /* (B): head before the wait queue, pairs with (I) */
}

/* Both */

/**
 * doorbell_queue_ring() - ring a queue, in whichever mode
 * @q: the queue
 * @index: number of the queue that is rung, or doorbell_queue_bad()
 * @tag: doorbell_queue_tag()
 * @value: value that was written
 *
 * Takes no lock, allocates nothing. Any context but NMI.
 *
 * Return: what became of it.
 */
enum doorbell_rung doorbell_queue_ring(struct doorbell_queue *q, u32 index,
				       u16 tag, u64 value)
{
	enum doorbell_rung rung;

	if (!q->entries)
		return doorbell_slot_ring(q, index, tag, value);

	rung = doorbell_entry_ring(q, index, tag, value);
	if (rung != DOORBELL_FULL && index == doorbell_queue_bad(q))
		atomic64_inc(&q->bad_rings);
	return rung;
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
 * Return: number of events. There may be more; 0 only if there is none.
 */
unsigned int doorbell_queue_peek(struct doorbell_queue *q,
				 struct doorbell_event *events,
				 unsigned int max, bool *wake)
{
	return q->entries ? entry_events(q, events, max) :
			    fifo_events(q, events, max, wake);
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
		return entry_word(&q->entries[doorbell_queue_place(q, head)],
				  doorbell_queue_lap(q, head), &word);

	for (;; head++) {
		index = entry_slot(&q->fifo[doorbell_queue_place(q, head)],
				   doorbell_queue_lap(q, head));
		if (index > U16_MAX)
			return false;
		rings = atomic64_read(&q->slots[index].rings);
		if (rings - READ_ONCE(q->control->seen[index]) > U16_MAX)
			return true;
	}
}

/**
 * doorbell_queue_arm() - say that the consumer is about to sleep
 * @q: the queue
 *
 * Takes a last look as well. Whoever sleeps must already be on the wait queue that
 * producers wake.
 *
 * Return: what doorbell_queue_readable() does, after arming: true if there is
 * no reason to sleep.
 */
bool doorbell_queue_arm(struct doorbell_queue *q)
{
	WRITE_ONCE(q->control->armed, 1);
	smp_mb(); /* (D): armed before the last look, pairs with (C) */
	return doorbell_queue_readable(q);
}

/**
 * doorbell_queue_count() - add up the counters
 * @q: the queue
 * @counters: set
 */
void doorbell_queue_count(const struct doorbell_queue *q,
			  struct doorbell_counters *counters)
{
	u64 rings, seen;
	u32 i;

	*counters = (struct doorbell_counters) {};
	if (q->entries) {
		rings = atomic64_read(&q->tail) - BIT(q->order);
		counters->bad_rings = atomic64_read(&q->bad_rings);
		counters->rings = rings - counters->bad_rings;
		counters->pending = atomic64_read(&q->tail) -
				    READ_ONCE(q->control->head);
		return;
	}
	for (i = 0; i < q->nr_slots; i++) {
		rings = atomic64_read(&q->slots[i].rings);
		seen = READ_ONCE(q->control->seen[i]);
		counters->pending += (rings - seen) >> DOORBELL_RINGS_SHIFT;
		rings >>= DOORBELL_RINGS_SHIFT;
		if (i == doorbell_queue_bad(q))
			counters->bad_rings = rings;
		else
			counters->rings += rings;
	}
}
