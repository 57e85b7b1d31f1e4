/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Queue: the rings of one region that the consumer has not taken yet.
 *
 * Producers ring without a lock, from any CPU; one consumer at a time takes
 * events. It knows neither KVM nor files nor addresses: a ring is an index.
 */
#ifndef _DOORBELL_QUEUE_H
#define _DOORBELL_QUEUE_H

#include <linux/atomic.h>
#include <linux/cache.h>
#include <linux/types.h>

struct doorbell_event;

/**
 * struct doorbell_slot - one queue's rings; only producers write
 * @value: the last value written
 * @rings: rings ever, from bit 8 on; the last width in bits 0 to 7
 * @pos: one more than the queue's last position in the FIFO, 0 before its
 *	first, SLOT_CLAIMED while a producer is about to take one. A queue has
 *	a place in the FIFO that the consumer has not passed if @pos > head.
 */
struct doorbell_slot {
	u64 value;
	atomic64_t rings;
	atomic64_t pos;
};

/**
 * struct doorbell_control - what the consumer writes
 * @head: position of the first entry that the consumer has not taken
 * @armed: the consumer is about to sleep and wants to be woken; set by the
 *	consumer, cleared by the producer that wakes it
 * @reserved: fills a cache line
 * @seen: for each slot, the rings that events were made of
 */
struct doorbell_control {
	u64 head;
	u32 armed;
	u32 reserved[13];
	u64 seen[];
};

/**
 * struct doorbell_queue - all slots of a region, and the FIFO of those rung
 * @control: the consumer's; not to be trusted, it may be shared with user space
 * @slots: @nr_slots of them; the producers'
 * @fifo: entries by position modulo size: slot number in the low 16 bits, lap
 *	number plus one in the high ones; the producers'
 * @mem: the memory that all of these are in
 * @nr_slots: one for each queue, and the last one for bad addresses
 * @order: log2 of the places in @fifo, at least as many as slots
 * @tail: the next position that a producer takes
 *
 * All but @tail is constant.
 */
struct doorbell_queue {
	struct doorbell_control *control;
	struct doorbell_slot *slots;
	u32 *fifo;
	void *mem;
	u32 nr_slots;
	u32 order;

	atomic64_t tail ____cacheline_aligned_in_smp;
};

/**
 * struct doorbell_counters - sums over all slots of a queue
 * @rings: rings of queues
 * @bad_rings: rings of bad addresses
 * @pending: rings of both that no event was made of yet
 */
struct doorbell_counters {
	u64 rings;
	u64 bad_rings;
	u64 pending;
};

int doorbell_queue_init(struct doorbell_queue *q, u32 queues);
void doorbell_queue_destroy(struct doorbell_queue *q);
bool doorbell_queue_ring(struct doorbell_queue *q, u32 index, u64 value,
			 u8 width);
unsigned int doorbell_queue_take(struct doorbell_queue *q,
				 struct doorbell_event *events,
				 unsigned int max, bool *wake);
void doorbell_queue_arm(struct doorbell_queue *q);
bool doorbell_queue_readable(const struct doorbell_queue *q);
void doorbell_queue_count(const struct doorbell_queue *q,
			  struct doorbell_counters *counters);

/**
 * doorbell_queue_bad() - the slot that stands for bad addresses
 * @q: the queue
 */
static inline u32 doorbell_queue_bad(const struct doorbell_queue *q)
{
	return q->nr_slots - 1;
}

#endif /* _DOORBELL_QUEUE_H */
