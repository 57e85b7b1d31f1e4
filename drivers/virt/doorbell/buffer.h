/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Queue: the rings of one region that the consumer has not taken yet.
 *
 * Producers ring without a lock, from any CPU; one consumer at a time takes
 * events, coalesced or each ring on its own. It knows neither KVM nor files nor
 * addresses: a ring is an index, a kind and a value. produce.h has what is inlined
 * into those who ring, buffer.c has the rest, and tells how it works.
 */
#ifndef _DOORBELL_BUFFER_H
#define _DOORBELL_BUFFER_H

#include <linux/atomic.h>
#include <linux/cache.h>
#include <linux/compiler.h>
#include <linux/types.h>

#include <linux/doorbell.h>

/*
 * The producers' view of struct doorbell_slot and struct doorbell_entry, which
 * user space can map. The uapi header tells what the fields mean.
 */
struct doorbell_buffer_slot {
	u64 value;
	atomic64_t rings;
	atomic64_t pos;
};

/**
 * struct doorbell_buffer - the rings of a region
 * @control: the consumer's; not to be trusted, it may be shared with user space
 * @slots: coalescing: one for each queue, and one more for bad rings
 * @fifo: coalescing: slot numbers, by position modulo places
 * @entries: ordered: events, by position modulo places; otherwise NULL
 * @mem: the memory that all of these are in: @control, and from the next page
 *	on @slots and @fifo, or @entries, which only producers write
 * @control_size: bytes from @mem to there, whole pages
 * @readonly_size: bytes from there on, whole pages
 * @nr_slots: coalescing: number of slots
 * @depth: ordered: most events outstanding
 * @order: log2 of the places in @fifo or @entries
 * @mask: number of these places, less one
 * @tail: the next position that a producer takes
 * @bad_rings: ordered: bad rings ever
 *
 * All up to @mask is constant.
 */
struct doorbell_buffer {
	struct doorbell_control *control;
	struct doorbell_buffer_slot *slots;
	u32 *fifo;
	struct doorbell_entry *entries;
	void *mem;
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
 * struct doorbell_counters - sums over all slots of a queue
 * @rings: rings of queues
 * @bad_rings: rings of no queue
 * @pending: rings of both that no event was made of yet
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
enum doorbell_ring_result doorbell_buffer_ring(struct doorbell_buffer *buf, u32 index,
				       u16 kind, u64 value);
unsigned int doorbell_buffer_peek(struct doorbell_buffer *buf,
				 struct doorbell_event *events,
				 unsigned int max, bool *wake);
bool doorbell_buffer_consume(struct doorbell_buffer *buf,
			 const struct doorbell_event *events, unsigned int n);
bool doorbell_buffer_arm(struct doorbell_buffer *buf);
bool doorbell_buffer_readable(const struct doorbell_buffer *buf);
void doorbell_buffer_count(const struct doorbell_buffer *buf,
			  struct doorbell_counters *counters);

/**
 * doorbell_buffer_bad() - the index that stands for rings of no queue
 * @buf: the queue
 */
static inline u32 doorbell_buffer_bad(const struct doorbell_buffer *buf)
{
	return buf->entries ? DOORBELL_QUEUE_NONE : buf->nr_slots - 1;
}

/**
 * doorbell_kind() - what goes with a ring beside its value
 * @type: &enum doorbell_event_type
 * @width: size of the value in bytes, or 0
 */
static inline u16 doorbell_kind(u8 type, u8 width)
{
	return type | width << DOORBELL_KIND_WIDTH_SHIFT;
}

/**
 * doorbell_buffer_writable() - would doorbell_buffer_ring() find room?
 * @buf: the queue
 */
static inline bool doorbell_buffer_writable(const struct doorbell_buffer *buf)
{
	return !buf->entries || (s64)(atomic64_read(&buf->tail) -
				    READ_ONCE(buf->control->head)) < buf->depth;
}

/**
 * doorbell_buffer_entries_offset() - where the FIFO or the entries begin
 * @buf: the queue
 *
 * Return: bytes from the beginning of the read-only area.
 */
static inline u32 doorbell_buffer_entries_offset(const struct doorbell_buffer *buf)
{
	return buf->entries ? 0 : buf->nr_slots * sizeof(*buf->slots);
}

#endif /* _DOORBELL_BUFFER_H */
