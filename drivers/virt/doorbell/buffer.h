/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Buffer: the rings of one region that its consumer has not seen yet.
 *
 * Producers ring without a lock, from any CPU. One consumer at a time reads
 * events, coalesced or one for each ring. The buffer knows neither KVM nor
 * files nor addresses: a ring is an index, a kind and a value. produce.h has
 * the producers' side, inlined into its callers; buffer.c has the consumer's
 * side and explains how both work together.
 */
#ifndef _DOORBELL_BUFFER_H
#define _DOORBELL_BUFFER_H

#include <linux/atomic.h>
#include <linux/cache.h>
#include <linux/compiler.h>
#include <linux/limits.h>
#include <linux/types.h>

#include <linux/doorbell.h>

/*
 * The producers' view of struct doorbell_slot, which user space can map. The
 * uapi header describes the fields.
 */
struct doorbell_buffer_slot {
	u64 value;
	atomic64_t rings;
	atomic64_t pos;
};

/**
 * struct doorbell_buffer - the rings of a region
 * @control: the consumer's area, page-aligned, and not to be trusted: user
 *	space may map it
 * @status: the region's state, for consumers of mapped memory
 * @slots: coalescing: one for each queue, and one more for bad rings
 * @fifo: coalescing: slot numbers, by position modulo the number of entries
 * @entries: ordered: events, by position modulo their number; otherwise NULL
 * @control_size: bytes of @control, whole pages
 * @readonly_size: bytes of the area behind @control that only producers write,
 *	whole pages: @status, and @slots and @fifo, or @entries
 * @nr_slots: coalescing: number of slots
 * @depth: ordered: most events outstanding
 * @order: log2 of the number of entries in @fifo or @entries; ordered: at least
 *	twice @depth of them, see doorbell_buffer_kept()
 * @mask: that number less one, which a ring would have to compute
 * @tail: the next position that a producer claims
 * @bad_rings: ordered: bad rings ever
 *
 * All up to @mask is constant. One allocation, at @control, holds both areas.
 */
struct doorbell_buffer {
	struct doorbell_control *control;
	struct doorbell_status *status;
	struct doorbell_buffer_slot *slots;
	u32 *fifo;
	struct doorbell_entry *entries;
	u32 control_size;
	u32 readonly_size;
	u32 nr_slots;
	u32 depth;
	u32 order;
	u32 mask;

	atomic64_t tail ____cacheline_aligned_in_smp;
	atomic64_t bad_rings;
};

/**
 * struct doorbell_counters - sums over all queues
 * @rings: rings of queues
 * @bad_rings: rings of no queue
 * @pending: rings of both that no event has counted yet
 */
struct doorbell_counters {
	u64 rings;
	u64 bad_rings;
	u64 pending;
};

/**
 * enum doorbell_ring_result - what became of a ring
 * @DOORBELL_RING_OK: it is counted
 * @DOORBELL_RING_WAKE: it is counted, and the caller has to wake the consumer
 * @DOORBELL_RING_FULL: ordered: there is no room, nothing has changed
 */
enum doorbell_ring_result {
	DOORBELL_RING_OK,
	DOORBELL_RING_WAKE,
	DOORBELL_RING_FULL,
};

int doorbell_buffer_init(struct doorbell_buffer *buf, u32 queues, u32 depth);
void doorbell_buffer_destroy(struct doorbell_buffer *buf);
enum doorbell_ring_result doorbell_buffer_ring(struct doorbell_buffer *buf,
					       u32 index, u16 kind, u64 value);
unsigned int doorbell_buffer_peek(struct doorbell_buffer *buf,
				  struct doorbell_event *events,
				  unsigned int max, bool *wake);
bool doorbell_buffer_consume(struct doorbell_buffer *buf,
			     const struct doorbell_event *events,
			     unsigned int n);
bool doorbell_buffer_recover(struct doorbell_buffer *buf);
bool doorbell_buffer_arm(struct doorbell_buffer *buf);
bool doorbell_buffer_readable(const struct doorbell_buffer *buf);
void doorbell_buffer_count(const struct doorbell_buffer *buf,
			   struct doorbell_counters *counters);

/**
 * doorbell_buffer_bad() - the index that stands for rings of no queue
 * @buf: the buffer
 */
static inline u32 doorbell_buffer_bad(const struct doorbell_buffer *buf)
{
	return buf->entries ? DOORBELL_QUEUE_NONE : buf->nr_slots - 1;
}

/**
 * doorbell_kind() - pack what an event says of a ring beside queue and value
 * @type: &enum doorbell_event_type
 * @width: size of the value in bytes, or 0
 */
static inline u16 doorbell_kind(u8 type, u8 width)
{
	return type | width << DOORBELL_KIND_WIDTH_SHIFT;
}

/**
 * doorbell_buffer_writable() - would doorbell_buffer_ring() find room?
 * @buf: the buffer
 */
static inline bool doorbell_buffer_writable(const struct doorbell_buffer *buf)
{
	u64 tail = atomic64_read(&buf->tail);

	return !buf->entries ||
	       (s64)(tail - READ_ONCE(buf->control->head)) < buf->depth;
}

/**
 * doorbell_buffer_kept() - most events to consume before some are handled
 * @buf: the buffer
 *
 * Ordered: producers stay behind head + depth, so they leave that many entries
 * before head alone, and doorbell_buffer_recover() can repeat these. A queue of
 * a coalescing buffer can be repeated without its entry.
 */
static inline u32 doorbell_buffer_kept(const struct doorbell_buffer *buf)
{
	return buf->entries ? buf->mask + 1 - buf->depth : U32_MAX;
}

/**
 * doorbell_buffer_handled() - note that all events consumed so far are handled
 * @buf: the buffer
 *
 * doorbell_buffer_recover() repeats the events after this call.
 */
static inline void doorbell_buffer_handled(struct doorbell_buffer *buf)
{
	struct doorbell_control *control = buf->control;

	/* after what was done for the events: pairs with recover_from() */
	smp_store_release(&control->handled, READ_ONCE(control->head));
}

/**
 * doorbell_buffer_entries_offset() - where the FIFO or the entries begin
 * @buf: the buffer
 *
 * Return: bytes from the beginning of the read-only area.
 */
static inline u32
doorbell_buffer_entries_offset(const struct doorbell_buffer *buf)
{
	return sizeof(*buf->status) + buf->nr_slots * sizeof(*buf->slots);
}

#endif /* _DOORBELL_BUFFER_H */
