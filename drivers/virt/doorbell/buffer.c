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

#include "buffer.h"
#include "produce.h"

/**
 * doorbell_buffer_init() - allocate a queue, charged to the caller
 * @buf: zeroed; set on success
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
int doorbell_buffer_init(struct doorbell_buffer *buf, u32 queues, u32 depth)
{
	u32 nr_slots = depth ? 0 : queues + 1;
	u32 order = order_base_2(depth ?: nr_slots);
	size_t control = PAGE_ALIGN(struct_size(buf->control, seen, nr_slots));
	size_t slots = nr_slots * sizeof(*buf->slots);
	size_t fifo = (depth ? sizeof(*buf->entries) : sizeof(*buf->fifo)) << order;
	void *mem;

	BUILD_BUG_ON(sizeof(*buf->slots) != sizeof(struct doorbell_slot));
	BUILD_BUG_ON(DOORBELL_QUEUES_MAX >> DOORBELL_FIFO_LAP_SHIFT);

	/* a cgroup without room gets an error, not a victim */
	mem = __vmalloc(control + PAGE_ALIGN(slots + fifo),
			GFP_KERNEL_ACCOUNT | __GFP_RETRY_MAYFAIL |
			__GFP_NOWARN | __GFP_ZERO);
	if (!mem)
		return -ENOMEM;

	buf->mem = mem;
	buf->control = mem;
	if (depth) {
		buf->entries = mem + control;
	} else {
		buf->slots = mem + control;
		buf->fifo = mem + control + slots;
	}
	buf->control_size = control;
	buf->readonly_size = PAGE_ALIGN(slots + fifo);
	buf->nr_slots = nr_slots;
	buf->depth = depth;
	buf->order = order;
	buf->mask = BIT(order) - 1;
	atomic64_set(&buf->tail, BIT(order));
	buf->control->head = BIT(order);
	buf->control->armed = 1;
	return 0;
}

/**
 * doorbell_buffer_destroy() - free what doorbell_buffer_init() allocated
 * @buf: the queue; nobody rings or takes any more
 *
 * Pages that user space has mapped live on until it unmaps them.
 */
void doorbell_buffer_destroy(struct doorbell_buffer *buf)
{
	vfree(buf->mem);
}

/* Coalescing */

/* The slot that an entry names, or more than U16_MAX if it is of another lap. */
static u32 coalesced_slot(const u32 *entry, u32 lap)
{
	/* (F): acquire, pairs with (E) in doorbell_coalesced_enqueue() */
	return smp_load_acquire(entry) - (lap << DOORBELL_FIFO_LAP_SHIFT);
}

/*
 * What slot @index has that was not seen, as an event: of count 0 if there is
 * nothing.
 */
static void coalesced_event(const struct doorbell_buffer *buf, u32 index,
		      struct doorbell_event *event)
{
	const struct doorbell_buffer_slot *slot = &buf->slots[index];
	/* (H): acquire, pairs with (A): value after rings */
	u64 rings = atomic64_read_acquire(&slot->rings);
	u64 unseen = rings - READ_ONCE(buf->control->seen[index]);
	u16 kind = rings;

	event->queue = (u8)kind == DOORBELL_EVENT_QUEUE ? index :
							 DOORBELL_QUEUE_NONE;
	event->type = kind;
	event->width = kind >> DOORBELL_KIND_WIDTH_SHIFT;
	event->count = min_t(u64, unseen >> DOORBELL_RINGS_SHIFT, U32_MAX);
	event->value = READ_ONCE(slot->value);
}

/*
 * Pass the next @n places, whose slots and counts are in @events. What was rung
 * since then, or does not fit a count, gets a place of its own, by the producer
 * or here.
 */
static bool coalesced_consume(struct doorbell_buffer *buf,
		      const struct doorbell_event *events, unsigned int n)
{
	struct doorbell_control *control = buf->control;
	struct doorbell_buffer_slot *slots = buf->slots;
	u32 bad = doorbell_buffer_bad(buf);
	bool wake = false;
	unsigned int i;

	/* (G): release of entries, pairs with head in doorbell_coalesced_enqueue() */
	smp_store_release(&control->head, READ_ONCE(control->head) + n);
	smp_mb(); /* (B): head before rings, pairs with (A) */

	for (i = 0; i < n; i++) {
		u32 index = min_t(u32, events[i].queue, bad);
		u64 seen = READ_ONCE(control->seen[index]) +
			   ((u64)events[i].count << DOORBELL_RINGS_SHIFT);
		u64 rings = atomic64_read(&slots[index].rings);

		WRITE_ONCE(control->seen[index], seen);
		if (rings - seen > U16_MAX &&
		    doorbell_coalesced_enqueue(buf, &slots[index], index) ==
		    DOORBELL_RING_WAKE)
			wake = true;
	}
	return wake;
}

/* All that there are up to the end of the lap. */
static unsigned int coalesced_peek(struct doorbell_buffer *buf,
				struct doorbell_event *events,
				unsigned int max, bool *wake)
{
	u64 head = READ_ONCE(buf->control->head);
	unsigned int n;
	u32 index;

	for (;; head++) {
		u32 first = doorbell_buffer_index(buf, head);
		u32 lap = doorbell_buffer_lap(buf, head);
		const u32 *fifo = &buf->fifo[first];
		unsigned int end = min(max, buf->mask + 1 - first);

		for (n = 0; n < end; n++) {
			index = coalesced_slot(&fifo[n], lap);
			if (index > U16_MAX)
				break;
			coalesced_event(buf, index, &events[n]);
			if (!events[n].count)
				break;
		}
		if (n || index > U16_MAX)
			return n;
		/* a consumer of mapped memory counted it with an earlier place */
		if (coalesced_consume(buf, events, 1))
			*wake = true;
	}
}

/* Ordered */

/* Is @entry one of this lap? */
static bool ordered_word(const struct doorbell_entry *entry, u32 lap, u64 *word)
{
	/* (F): acquire, pairs with (E) in doorbell_ordered_ring() */
	*word = smp_load_acquire(&entry->word);
	return *word >> DOORBELL_ENTRY_LAP_SHIFT == lap;
}

/* All that there are up to the end of the lap. */
static unsigned int ordered_peek(const struct doorbell_buffer *buf,
				 struct doorbell_event *events,
				 unsigned int max)
{
	u64 head = READ_ONCE(buf->control->head);
	u32 first = doorbell_buffer_index(buf, head);
	u32 lap = doorbell_buffer_lap(buf, head);
	const struct doorbell_entry *entries = &buf->entries[first];
	unsigned int n;
	u64 word;

	max = min(max, buf->mask + 1 - first);
	for (n = 0; n < max && ordered_word(&entries[n], lap, &word); n++) {
		u16 kind = word >> DOORBELL_ENTRY_KIND_SHIFT;

		events[n].queue = word;
		events[n].type = kind;
		events[n].width = kind >> DOORBELL_KIND_WIDTH_SHIFT;
		events[n].count = 1;
		events[n].value = READ_ONCE(entries[n].value);
	}
	return n;
}

static void ordered_consume(struct doorbell_buffer *buf, unsigned int n)
{
	/* (G): release of entries, pairs with head in doorbell_ordered_ring() */
	smp_store_release(&buf->control->head, READ_ONCE(buf->control->head) + n);
	smp_mb(); /* (B): head before the wait queue, pairs with (I) */
}

/* Both */

/**
 * doorbell_buffer_ring() - ring a queue, in whichever mode
 * @buf: the queue
 * @index: number of the queue that is rung, or doorbell_buffer_bad()
 * @kind: doorbell_kind()
 * @value: value that was written
 *
 * Takes no lock, allocates nothing. Any context but NMI.
 *
 * Return: what became of it.
 */
enum doorbell_ring_result doorbell_buffer_ring(struct doorbell_buffer *buf, u32 index,
				       u16 kind, u64 value)
{
	enum doorbell_ring_result result;

	if (!buf->entries)
		return doorbell_coalesced_ring(buf, index, kind, value);

	result = doorbell_ordered_ring(buf, index, kind, value);
	if (result != DOORBELL_RING_FULL && index == doorbell_buffer_bad(buf))
		atomic64_inc(&buf->bad_rings);
	return result;
}

/**
 * doorbell_buffer_peek() - the next events
 * @buf: the queue
 * @events: filled
 * @max: room in @events, at least 1
 * @wake: set to true if the caller has to wake others that wait to read; else
 *	untouched
 *
 * They stay where they are until doorbell_buffer_consume(). The caller makes sure
 * that there is one consumer at a time.
 *
 * Return: number of events. There may be more; 0 only if there is none.
 */
unsigned int doorbell_buffer_peek(struct doorbell_buffer *buf,
				 struct doorbell_event *events,
				 unsigned int max, bool *wake)
{
	return buf->entries ? ordered_peek(buf, events, max) :
			    coalesced_peek(buf, events, max, wake);
}

/**
 * doorbell_buffer_consume() - the consumer has the first of the events
 * @buf: the queue
 * @events: of doorbell_buffer_peek()
 * @n: how many of them
 *
 * If the queue is ordered, the caller wakes those who wait to write.
 *
 * Return: true if the caller has to wake others that wait to read.
 */
bool doorbell_buffer_consume(struct doorbell_buffer *buf,
			 const struct doorbell_event *events, unsigned int n)
{
	if (!buf->entries)
		return coalesced_consume(buf, events, n);
	ordered_consume(buf, n);
	return false;
}

/**
 * doorbell_buffer_readable() - would doorbell_buffer_peek() find an event?
 * @buf: the queue
 *
 * Entries whose rings were counted already are looked past, but not removed.
 */
bool doorbell_buffer_readable(const struct doorbell_buffer *buf)
{
	u64 head = READ_ONCE(buf->control->head);
	u64 rings, word;
	u32 index;

	if (buf->entries)
		return ordered_word(&buf->entries[doorbell_buffer_index(buf, head)],
				  doorbell_buffer_lap(buf, head), &word);

	for (;; head++) {
		index = coalesced_slot(&buf->fifo[doorbell_buffer_index(buf, head)],
				   doorbell_buffer_lap(buf, head));
		if (index > U16_MAX)
			return false;
		rings = atomic64_read(&buf->slots[index].rings);
		if (rings - READ_ONCE(buf->control->seen[index]) > U16_MAX)
			return true;
	}
}

/**
 * doorbell_buffer_arm() - say that the consumer is about to sleep
 * @buf: the queue
 *
 * Takes a last look as well. Whoever sleeps must already be on the wait queue that
 * producers wake.
 *
 * Return: what doorbell_buffer_readable() does, after arming: true if there is
 * no reason to sleep.
 */
bool doorbell_buffer_arm(struct doorbell_buffer *buf)
{
	WRITE_ONCE(buf->control->armed, 1);
	smp_mb(); /* (D): armed before the last look, pairs with (C) */
	return doorbell_buffer_readable(buf);
}

/**
 * doorbell_buffer_count() - add up the counters
 * @buf: the queue
 * @counters: set
 */
void doorbell_buffer_count(const struct doorbell_buffer *buf,
			  struct doorbell_counters *counters)
{
	u64 rings, seen;
	u32 i;

	*counters = (struct doorbell_counters) {};
	if (buf->entries) {
		rings = atomic64_read(&buf->tail) - BIT(buf->order);
		counters->bad_rings = atomic64_read(&buf->bad_rings);
		counters->rings = rings - counters->bad_rings;
		counters->pending = atomic64_read(&buf->tail) -
				    READ_ONCE(buf->control->head);
		return;
	}
	for (i = 0; i < buf->nr_slots; i++) {
		rings = atomic64_read(&buf->slots[i].rings);
		seen = READ_ONCE(buf->control->seen[i]);
		counters->pending += (rings - seen) >> DOORBELL_RINGS_SHIFT;
		rings >>= DOORBELL_RINGS_SHIFT;
		if (i == doorbell_buffer_bad(buf))
			counters->bad_rings = rings;
		else
			counters->rings += rings;
	}
}
