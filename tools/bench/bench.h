/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the parts of the benchmark share: a path is one way in which a guest's
 * rings reach a consumer, a bench is one VM with one path in it.
 *
 * Whatever goes wrong ends the process, which is one measurement.
 */
#ifndef BENCH_H
#define BENCH_H

#include <liburing.h>
#include <stdbool.h>
#include <stdnoreturn.h>

#include <linux/types.h>

#include "libdoorbell.h"
#include "vmm.h"

#define BENCH_BASE	0x20000000UL
#define BENCH_STRIDE	4
#define BENCH_REPEAT	3

/* Rings, and queues, of a batch. */
#define BENCH_BATCH	64

struct bench;

/**
 * struct path - one way from a guest's ring to the consumer
 * @name: as in the results
 * @attach: set up the VM's side for all queues
 * @listen: set up the consumer's side, on the consumer's thread
 * @unlisten: undo @listen, so that another path can use what @attach did; may
 *	be NULL
 * @take: hear() every queue that was rung. With @wait sleep until there is one,
 *	and leave things such that the next call can sleep, and will be woken;
 *	else look once, as a consumer does that is busy anyway
 * @exited: KVM_RUN returned, may be NULL
 * @max_queues: more take too long to set up, or are too many
 */
struct path {
	const char *name;
	void (*attach)(struct bench *b);
	void (*listen)(struct bench *b);
	void (*unlisten)(struct bench *b);
	void (*take)(struct bench *b, bool wait);
	void (*exited)(struct bench *b, struct kvm_run *run);
	unsigned int max_queues;
};

/**
 * struct bench - a VM, and what a path has set up
 * @vmm: the VM, one vCPU
 * @path: how rings reach the consumer
 * @queues: how many there are
 * @threaded: the consumer is a thread of its own
 * @heard: rings that the consumer has heard of
 * @sum: of the queues that it was told, one at a time
 * @epfd: what the consumer sleeps in
 * @eventfds: one per queue
 * @uring: of ioeventfd_uring
 * @db: of the doorbell paths
 * @handed: queues that the vCPU's thread has for the consumer's
 * @handed_head: next to be taken
 * @handed_tail: next to be handed over
 * @handed_fd: eventfd that says so
 * @coalesced: KVM's ring
 * @coalesced_max: places in it
 */
struct bench {
	struct vmm *vmm;
	const struct path *path;
	unsigned int queues;
	bool threaded;
	__u64 heard;
	__u64 sum;
	int epfd;
	int *eventfds;
	struct io_uring uring;
	struct doorbell *db;
	__u32 handed[4 * BENCH_BATCH];
	__u32 handed_head;
	__u32 handed_tail;
	int handed_fd;
	struct kvm_coalesced_mmio_ring *coalesced;
	__u32 coalesced_max;
};

#define BENCH_PATHS	11
extern const struct path paths[BENCH_PATHS];

const struct path *path_find(const char *name);

noreturn void die(const char *what);

/* The result of a measurement, for report.py. */
void sample(const char *what, const char *path, unsigned int queues, double n);

/* Run @fn in a process of its own: nothing that it sets up is left behind. */
void in_child(void (*fn)(const struct path *path, unsigned int queues),
	      const struct path *path, unsigned int queues);

void bench_create(struct bench *b, const struct path *path,
		  unsigned int queues);

/*
 * costs.c: what it takes to set up @path for @queues, and to have it. The last
 * one averages over many consumers, for what takes less than a slab.
 */
void costs_setup(const struct path *path, unsigned int queues);
void costs_memory(const struct path *path, unsigned int queues);
void costs_memory_many(const struct path *path, unsigned int queues);

static inline __u64 bench_addr(unsigned int queue)
{
	return BENCH_BASE + (__u64)queue * BENCH_STRIDE;
}

/* The consumer knows the queue: the end of every path. */
static inline void hear(struct bench *b, unsigned int queue, __u64 rings)
{
	b->sum += queue;
	b->heard += rings;
}

/* With one CPU and "-icount shift=0" it counts instructions. */
static inline __u64 ticks(void)
{
	__u32 lo, hi;

	asm volatile("lfence; rdtsc" : "=a"(lo), "=d"(hi) : : "memory");
	return (__u64)hi << 32 | lo;
}

#endif /* BENCH_H */
