/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Shared declarations of the benchmark. A path is one way for a guest's rings
 * to reach a consumer. A bench is one VM with one path.
 *
 * Each measurement is a process. Any failure ends it.
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

/* Rings in a batch, each of another queue. */
#define BENCH_BATCH	64

struct bench;

/**
 * struct path - one way from a guest's ring to the consumer
 * @name: its name in the results
 * @prepare: before @attach, what set-up does not count; may be NULL
 * @attach: set up the VM's side for all queues
 * @listen: set up the consumer's side, on the consumer's thread; NULL if the
 *	path has no consumer
 * @unlisten: undo @listen, so that another path can use the same VM; may be
 *	NULL
 * @consume: hear() every queue that was rung. With @wait, sleep until there is
 *	one, and prepare the next sleep, so that a ring ends it. Without @wait,
 *	check once, as a busy consumer does
 * @exited: handle an exit from KVM_RUN; may be NULL
 * @max_queues: most queues: more take too long to set up, or are not possible
 */
struct path {
	const char *name;
	void (*prepare)(struct bench *b);
	void (*attach)(struct bench *b);
	void (*listen)(struct bench *b);
	void (*unlisten)(struct bench *b);
	void (*consume)(struct bench *b, bool wait);
	void (*exited)(struct bench *b, struct kvm_run *run);
	unsigned int max_queues;
};

/**
 * struct bench - a VM, and the state of its path
 * @vmm: the VM, with one vCPU
 * @path: how rings reach the consumer
 * @queues: number of queues
 * @threaded: the consumer is a thread of its own
 * @heard: number of rings that the consumer heard
 * @sum: sum of the queue numbers that it heard
 * @epfd: the epoll instance that the consumer sleeps in
 * @eventfds: one per queue
 * @uring: of the paths that sleep in io_uring
 * @db: of the doorbell paths
 * @handed: queues that the vCPU's thread hands to the consumer's thread
 * @handed_head: next one to consume
 * @handed_tail: next one to hand over
 * @handed_fd: eventfd that wakes up the consumer's thread
 * @coalesced: KVM's ring of coalesced MMIO
 * @coalesced_max: number of entries in it
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

#define BENCH_PATHS	13
extern const struct path paths[BENCH_PATHS];

const struct path *path_find(const char *name);

noreturn void die(const char *what);

/* Print the result of a measurement, for report.py. */
void sample(const char *what, const char *path, unsigned int queues, double n);

/* Run @fn in a process of its own, which cleans up all that @fn sets up. */
void in_child(void (*fn)(const struct path *path, unsigned int queues),
	      const struct path *path, unsigned int queues);

void bench_create(struct bench *b, const struct path *path,
		  unsigned int queues);

/*
 * costs.c: instructions, descriptors and memory of @path for @queues.
 * costs_memory_many() averages over many consumers, as one consumer may need
 * less than a slab.
 */
void costs_setup(const struct path *path, unsigned int queues);
void costs_memory(const struct path *path, unsigned int queues);
void costs_memory_many(const struct path *path, unsigned int queues);

static inline __u64 bench_addr(unsigned int queue)
{
	return BENCH_BASE + (__u64)queue * BENCH_STRIDE;
}

/* The end of every path: the consumer knows the queue. */
static inline void hear(struct bench *b, unsigned int queue, __u64 rings)
{
	b->sum += queue;
	b->heard += rings;
}

/* Counts instructions, with one CPU and "-icount shift=0". */
static inline __u64 ticks(void)
{
	__u32 lo, hi;

	asm volatile("lfence; rdtsc" : "=a"(lo), "=d"(hi) : : "memory");
	return (__u64)hi << 32 | lo;
}

#endif /* BENCH_H */
