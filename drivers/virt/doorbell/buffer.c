// SPDX-License-Identifier: GPL-2.0
/*
 * Buffer: turns rings into events, and owns the argument why none is lost.
 *
 * Coalescing
 * ----------
 *
 * Each queue of the region has a slot, which counts its rings and holds the
 * last value, and at most one entry in a FIFO of slot numbers that the consumer
 * has not consumed. So the FIFO never overflows, and no overflow check is
 * needed. The next event of a queue counts all its rings less those seen.
 *
 * Two questions decide whether a ring can be lost, and both are the store
 * buffering pattern: each side writes, has a full barrier, and reads what the
 * other side writes, so that at least one of the two sees the other.
 *
 *   producer: ring a queue            consumer: consume its entry
 *
 *   value = v
 *   rings++
 *   full barrier              (A)     head = past the entry
 *   read pos, head                    full barrier              (B)
 *   if pos >= head: done              read rings
 *
 * (A) pairs with (B): either the producer sees that the consumer has consumed
 * the queue's entry and claims a new one, or the consumer counts the ring.
 *
 *   producer: publish                 consumer: fall asleep
 *
 *   fifo[tail] = slot                 armed = 1
 *   full barrier              (C)     full barrier              (D)
 *   read armed                        look at fifo[head]
 *   if armed: armed = 0, wake         if empty: sleep
 *
 * (C) pairs with (D): either the producer sees armed and wakes the consumer, or
 * the consumer sees the entry. doorbell_buffer_arm() skips entries whose rings
 * are all counted, so a producer that leaves its queue at such an entry must
 * still check armed: (A) pairs with (D), either the producer sees armed or
 * doorbell_buffer_arm() does not skip the entry.
 *
 * And two releases:
 *
 * (E) The store that publishes an entry releases the position stored before it,
 *     to the consumer's acquire (F) of the entry. If the consumer could consume
 *     the entry first, another ring might still find the claim in progress,
 *     rely on it, and be lost. One xchg() is both (E) and (C).
 * (G) The store of head releases the reads of the entries before it, so that no
 *     producer overwrites an entry that is still to be read. It pairs with the
 *     read of head on which a producer's claim, a full barrier, depends. A
 *     producer that did not read the new head itself is ordered after it
 *     through its cmpxchg on tail.
 *
 * (A) also orders the value before the count, and pairs with the acquire (H) of
 * rings in the consumer: the value read is at least as new as the count.
 *
 * Ordered
 * -------
 *
 * Each ring claims an entry of its own if fewer than depth are outstanding. The
 * entry carries its own lap number: (E) releases the value to the acquire (F),
 * (G) and the claim keep an entry from being overwritten before it is read, (C)
 * and (D) wake the consumer.
 *
 *   producer: wait for room           consumer: make room
 *
 *   queue on the wait queue           head = past the entries
 *   full barrier              (I)     full barrier              (B)
 *   read head                         wake the wait queue if it is not empty
 *
 * (I), in the wait queue code, pairs with (B): either the producer sees room,
 * or the consumer sees the producer.
 *
 * There are at least twice as many entries as may be outstanding. So those just
 * before head stay, see doorbell_buffer_kept(), and head can go back to them. A
 * consumer that is about to sleep may have looked at the old head: the barrier
 * after the store of head pairs with (D), as (C) does.
 *
 * In both modes
 * -------------
 *
 * User space may map the control area. Nothing read from it is used as an index
 * or as a bound, and no loop depends on it: a consumer that writes garbage
 * there gets garbage, or nothing.
 */
#include <linux/build_bug.h>
#include <linux/errno.h>
#include <linux/limits.h>
#include <linux/log2.h>
#include <linux/minmax.h>
#include <linux/mm.h>
#include <linux/nospec.h>
#include <linux/overflow.h>
#include <linux/vmalloc.h>

#include <linux/doorbell.h>

#include "buffer.h"
#include "produce.h"

static_assert(sizeof(struct doorbell_buffer_slot) ==
	      sizeof(struct doorbell_slot));
/* a slot number leaves the lap's bits of an entry alone */
static_assert(DOORBELL_QUEUES_MAX >> DOORBELL_FIFO_LAP_SHIFT == 0);
static_assert(sizeof(struct doorbell_status) == 64);
static_assert(sizeof(struct doorbell_slot) == 24);
static_assert(sizeof(struct doorbell_entry) == 16);
static_assert(offsetof(struct doorbell_control, armed) == 8);
static_assert(offsetof(struct doorbell_control, handled) == 16);
static_assert(offsetof(struct doorbell_control, seen) == 64);

/**
 * doorbell_buffer_init() - allocate a buffer, charged to the caller
 * @buf: zeroed; set on success
 * @queues: number of queues, 1 to DOORBELL_QUEUES_MAX
 * @depth: 0 for coalescing, or the most events outstanding, up to
 *	DOORBELL_DEPTH_MAX
 *
 * The consumer and the producers write to different pages. The buffer starts
 * armed, for a consumer that waits before it has a region. Positions start at
 * lap 1, so that zeroed memory is no entry and no position.
 *
 * Return: 0 or -ENOMEM.
 */
int doorbell_buffer_init(struct doorbell_buffer *buf, u32 queues, u32 depth)
{
	u32 nr_slots = depth ? 0 : queues + 1;
	u32 order = depth ? order_base_2(depth) + 1 : order_base_2(nr_slots);
	size_t control = PAGE_ALIGN(struct_size(buf->control, seen, nr_slots));
	size_t slots = nr_slots * sizeof(*buf->slots);
	size_t entry = depth ? sizeof(*buf->entries) : sizeof(*buf->fifo);
	size_t readonly = PAGE_ALIGN(sizeof(*buf->status) + slots +
				     (entry << order));
	void *mem, *first;

	/* fail with -ENOMEM instead of invoking the OOM killer */
	mem = __vmalloc(control + readonly, GFP_KERNEL_ACCOUNT | __GFP_ZERO |
			__GFP_RETRY_MAYFAIL | __GFP_NOWARN);
	if (!mem)
		return -ENOMEM;

	buf->control = mem;
	buf->status = mem + control;
	first = buf->status + 1;
	if (depth) {
		buf->entries = first;
	} else {
		buf->slots = first;
		buf->fifo = first + slots;
	}
	buf->control_size = control;
	buf->readonly_size = readonly;
	buf->nr_slots = nr_slots;
	buf->depth = depth;
	buf->order = order;
	buf->mask = BIT(order) - 1;
	/* none of its events names a queue, whatever is in seen */
	if (!depth)
		atomic64_set(&buf->slots[queues].rings,
			     DOORBELL_EVENT_BAD_ADDRESS);
	atomic64_set(&buf->tail, BIT(order));
	buf->control->head = BIT(order);
	buf->control->handled = BIT(order);
	buf->control->armed = 1;
	return 0;
}

/**
 * doorbell_buffer_destroy() - free what doorbell_buffer_init() allocated
 * @buf: the buffer, without producers and without a consumer
 *
 * Pages that user space has mapped live on until it unmaps them.
 */
void doorbell_buffer_destroy(struct doorbell_buffer *buf)
{
	vfree(buf->control);
}

/* Coalescing */

/*
 * The slot that an entry names, or more than U16_MAX in another lap. User space
 * chooses the lap, so under speculation this is any number.
 */
static u32 coalesced_slot(const u32 *entry, u32 lap)
{
	/* (F): acquire, pairs with (E) in doorbell_coalesced_enqueue() */
	return smp_load_acquire(entry) - (lap << DOORBELL_FIFO_LAP_SHIFT);
}

/* The unseen rings of slot @index, as an event; its count may be 0. */
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
 * Consume the next @n entries, whose slots and counts are in @events. A slot
 * with rings since then, or with more than fit a count, gets a new entry, from
 * a producer or here.
 */
static bool coalesced_consume(struct doorbell_buffer *buf,
			      const struct doorbell_event *events,
			      unsigned int n)
{
	struct doorbell_control *control = buf->control;
	struct doorbell_buffer_slot *slots = buf->slots;
	u32 bad = doorbell_buffer_bad(buf);
	bool wake = false;
	unsigned int i;

	/*
	 * (G): release of entries, pairs with the read of head in
	 * doorbell_coalesced_enqueue()
	 */
	smp_store_release(&control->head, READ_ONCE(control->head) + n);
	smp_mb(); /* (B): head before rings, pairs with (A) */

	for (i = 0; i < n; i++) {
		u32 index = min_t(u32, events[i].queue, bad);
		u64 seen = READ_ONCE(control->seen[index]) +
			   ((u64)events[i].count << DOORBELL_RINGS_SHIFT);
		u64 rings = atomic64_read(&slots[index].rings);

		/* pairs with the acquire in doorbell_buffer_count() */
		smp_store_release(&control->seen[index], seen);
		if (rings - seen > U16_MAX &&
		    doorbell_coalesced_enqueue(buf, &slots[index], index) ==
		    DOORBELL_RING_WAKE)
			wake = true;
	}
	return wake;
}

/* Collect events up to the end of the array. */
static unsigned int coalesced_peek(struct doorbell_buffer *buf,
				   struct doorbell_event *events,
				   unsigned int max, bool *wake)
{
	u64 head = READ_ONCE(buf->control->head);
	u32 skipped, index = 0;
	unsigned int n;

	/* once around the FIFO at the most, whatever is in the control area */
	for (skipped = 0; skipped <= buf->mask; skipped++, head++) {
		u32 first = doorbell_buffer_index(buf, head);
		u32 lap = doorbell_buffer_lap(buf, head);
		const u32 *fifo = &buf->fifo[first];
		unsigned int end = min(max, buf->mask + 1 - first);

		for (n = 0; n < end; n++) {
			index = coalesced_slot(&fifo[n], lap);
			if (index > U16_MAX)
				break;
			index = array_index_nospec(index, buf->nr_slots);
			coalesced_event(buf, index, &events[n]);
			if (!events[n].count)
				break;
		}
		if (n || index > U16_MAX)
			return n;
		/* counted with an earlier entry, through mapped memory */
		if (coalesced_consume(buf, events, 1))
			*wake = true;
	}
	return 0;
}

/* The first position whose event may not be handled */
static u64 recover_from(const struct doorbell_buffer *buf)
{
	/*
	 * What the consumer did before it stored this is visible now: pairs
	 * with doorbell_buffer_handled(), or with the consumer's own release.
	 */
	return smp_load_acquire(&buf->control->handled);
}

/*
 * No field counts the rings that the consumer has handled: an event that may
 * not be handled comes again with all rings of its slot.
 */
static bool coalesced_recover(struct doorbell_buffer *buf)
{
	struct doorbell_control *control = buf->control;
	u64 head = READ_ONCE(control->head);
	u64 pos = recover_from(buf);
	bool all = head - pos > buf->mask + 1ULL;
	bool wake = false;
	u32 index;

	/* an entry that was overwritten since then does not name its slot */
	for (; !all && pos != head; pos++) {
		index = coalesced_slot(&buf->fifo[doorbell_buffer_index(buf,
									pos)],
				       doorbell_buffer_lap(buf, pos));
		if (index > U16_MAX) {
			all = true;
			break;
		}
		index = array_index_nospec(index, buf->nr_slots);
		WRITE_ONCE(control->seen[index], 0);
	}
	for (index = 0; index < buf->nr_slots; index++) {
		struct doorbell_buffer_slot *slot = &buf->slots[index];

		if (all)
			WRITE_ONCE(control->seen[index], 0);
		/* the consumer may have consumed the entry of unseen rings */
		if (atomic64_read(&slot->rings) -
		    READ_ONCE(control->seen[index]) > U16_MAX &&
		    doorbell_coalesced_enqueue(buf, slot, index) ==
		    DOORBELL_RING_WAKE)
			wake = true;
	}
	WRITE_ONCE(control->handled, head);
	return wake;
}

static bool coalesced_readable(const struct doorbell_buffer *buf)
{
	u64 head = READ_ONCE(buf->control->head);
	u32 skipped, index;
	u64 rings;

	for (skipped = 0; skipped <= buf->mask; skipped++, head++) {
		index = coalesced_slot(&buf->fifo[doorbell_buffer_index(buf,
									head)],
				       doorbell_buffer_lap(buf, head));
		if (index > U16_MAX)
			return false;
		index = array_index_nospec(index, buf->nr_slots);
		rings = atomic64_read(&buf->slots[index].rings);
		if (rings - READ_ONCE(buf->control->seen[index]) > U16_MAX)
			return true;
	}
	/* all entries were counted; a ring since then sees armed */
	return false;
}

/* Ordered */

/* Is @entry one of this lap? */
static bool ordered_word(const struct doorbell_entry *entry, u32 lap, u64 *word)
{
	/* (F): acquire, pairs with (E) in doorbell_ordered_ring() */
	*word = smp_load_acquire(&entry->word);
	return *word >> DOORBELL_ENTRY_LAP_SHIFT == lap;
}

/* Collect events up to the end of the array. */
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
	/*
	 * (G): release of entries, pairs with the read of head in
	 * doorbell_ordered_ring(), and with the acquire in
	 * doorbell_buffer_count()
	 */
	smp_store_release(&buf->control->head,
			  READ_ONCE(buf->control->head) + n);
	smp_mb(); /* (B): head before the wait queue, pairs with (I) */
}

/* Go back to the first event that may not be handled. */
static bool ordered_recover(struct doorbell_buffer *buf)
{
	struct doorbell_control *control = buf->control;
	/* before head, which the consumer stores first */
	u64 pos = recover_from(buf);
	u64 head = READ_ONCE(control->head);
	u64 tail = atomic64_read(&buf->tail);

	/* a live consumer marks all that it took, and some came again */
	if (pos > head)
		pos = head;
	else if (head - pos > doorbell_buffer_kept(buf))
		pos = head - doorbell_buffer_kept(buf);
	/* garbage must not lead to entries that are overwritten */
	if (tail - pos > BIT(buf->order))
		pos = tail - BIT(buf->order);
	if (pos < BIT(buf->order))
		pos = BIT(buf->order);
	WRITE_ONCE(control->handled, pos);
	WRITE_ONCE(control->head, pos);
	smp_mb(); /* head before armed, pairs with (D) */
	return doorbell_buffer_readable(buf) &&
	       doorbell_claim_wakeup(control) == DOORBELL_RING_WAKE;
}

/* Both */

/**
 * doorbell_buffer_ring() - ring a queue, in whichever mode
 * @buf: the buffer
 * @index: number of the queue that is rung, or doorbell_buffer_bad()
 * @kind: doorbell_kind()
 * @value: value that was written
 *
 * Takes no lock, allocates nothing. Any context but NMI.
 *
 * Return: what became of the ring.
 */
enum doorbell_ring_result doorbell_buffer_ring(struct doorbell_buffer *buf,
					       u32 index, u16 kind, u64 value)
{
	enum doorbell_ring_result result;

	if (!buf->entries)
		return doorbell_coalesced_ring(buf, index, kind, value);

	result = doorbell_ordered_ring(buf, index, kind, value);
	/* after tail: pairs with the acquire in doorbell_buffer_count() */
	if (result != DOORBELL_RING_FULL && index == doorbell_buffer_bad(buf))
		atomic64_inc(&buf->bad_rings);
	return result;
}

/**
 * doorbell_buffer_peek() - collect the next events
 * @buf: the buffer
 * @events: filled
 * @max: room in @events, at least 1
 * @wake: set to true if the caller has to wake other readers; else untouched
 *
 * The events stay in the buffer until doorbell_buffer_consume(). The caller
 * allows one consumer at a time.
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
 * doorbell_buffer_consume() - consume the first @n peeked events
 * @buf: the buffer
 * @events: from doorbell_buffer_peek()
 * @n: how many of them
 *
 * If the buffer is ordered, the caller wakes producers that wait for room.
 *
 * Return: true if the caller has to wake other readers.
 */
bool doorbell_buffer_consume(struct doorbell_buffer *buf,
			     const struct doorbell_event *events,
			     unsigned int n)
{
	if (!buf->entries)
		return coalesced_consume(buf, events, n);
	ordered_consume(buf, n);
	return false;
}

/**
 * doorbell_buffer_recover() - repeat events that may not have been handled
 * @buf: the buffer, whose consumer has died
 *
 * The events since control->handled come again. Coalescing: so do unseen rings
 * without an entry. The caller allows one consumer at a time.
 *
 * Return: true if the caller has to wake readers.
 */
bool doorbell_buffer_recover(struct doorbell_buffer *buf)
{
	return buf->entries ? ordered_recover(buf) : coalesced_recover(buf);
}

/**
 * doorbell_buffer_readable() - would doorbell_buffer_peek() find an event?
 * @buf: the buffer
 *
 * Skips entries whose rings are all counted, and leaves them where they are.
 */
bool doorbell_buffer_readable(const struct doorbell_buffer *buf)
{
	u64 head, word;

	if (!buf->entries)
		return coalesced_readable(buf);

	head = READ_ONCE(buf->control->head);
	return ordered_word(&buf->entries[doorbell_buffer_index(buf, head)],
			    doorbell_buffer_lap(buf, head), &word);
}

/**
 * doorbell_buffer_arm() - arm the wake-up of a consumer that may sleep
 * @buf: the buffer
 *
 * Checks for events once more afterwards. The caller must already be on the
 * wait queue that producers wake.
 *
 * Return: doorbell_buffer_readable() after arming: if true, do not sleep.
 */
bool doorbell_buffer_arm(struct doorbell_buffer *buf)
{
	WRITE_ONCE(buf->control->armed, 1);
	smp_mb(); /* (D): armed before the last look, pairs with (C) */
	return doorbell_buffer_readable(buf);
}

/**
 * doorbell_buffer_count() - add up the counters
 * @buf: the buffer
 * @counters: set
 *
 * Reads the smaller side of each difference first, with acquire, so that none
 * is negative. A consumer that writes garbage to the control area cannot make
 * more rings pending than there were.
 */
void doorbell_buffer_count(const struct doorbell_buffer *buf,
			   struct doorbell_counters *counters)
{
	u64 rings, seen;
	u32 i;

	*counters = (struct doorbell_counters) {};
	if (buf->entries) {
		/* pairs with the increment in doorbell_buffer_ring() */
		u64 bad = atomic64_read_acquire(&buf->bad_rings);
		/* pairs with the release in ordered_consume() */
		u64 head = smp_load_acquire(&buf->control->head);
		u64 tail = atomic64_read(&buf->tail);

		counters->bad_rings = bad;
		counters->rings = tail - BIT(buf->order) - bad;
		counters->pending = min_t(u64, tail - head, BIT(buf->order));
		return;
	}
	for (i = 0; i < buf->nr_slots; i++) {
		/* pairs with the release in coalesced_consume() */
		seen = smp_load_acquire(&buf->control->seen[i]);
		rings = atomic64_read(&buf->slots[i].rings);
		counters->pending += min(rings - seen, rings) >>
				     DOORBELL_RINGS_SHIFT;
		rings >>= DOORBELL_RINGS_SHIFT;
		if (i == doorbell_buffer_bad(buf))
			counters->bad_rings = rings;
		else
			counters->rings += rings;
	}
}
