/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Shared by the VMM (vmm.c) and its guest program (guest.c): the layout of
 * guest memory, and the jobs of a vCPU. Plain data only: guest.c is
 * freestanding, vmm.c is not.
 */
#ifndef DOORBELL_VMM_GUEST_H
#define DOORBELL_VMM_GUEST_H

#include <linux/types.h>

#define GUEST_MAX_VCPUS		8
#define GUEST_MAX_QUEUES	4096
#define GUEST_MAX_OPS		1024

/* Guest-physical (= virtual) layout. Everything above the memory is MMIO. */
#define GUEST_MEM_SIZE		0x1000000UL
#define GUEST_TABLES_GPA	0x1000UL	/* page tables */
#define GUEST_CODE_GPA		0x100000UL	/* as in guest.lds */
#define GUEST_STACK_GPA		0x180000UL
#define GUEST_STACK_SIZE	0x10000UL	/* per vCPU */
#define GUEST_SHARED_GPA	0x200000UL	/* struct guest_shared */
#define GUEST_HALT_GPA		0x7fc0000000UL	/* arm64: a write here halts */

enum guest_job_kind {
	GUEST_IDLE,
	GUEST_SCRIPT,		/* ops[vcpu][0 .. nr_ops), in order */
	GUEST_STORM,		/* random queues, value guest_value() */
	GUEST_RATES,		/* queue q in every (q % 7 + 1)th round */
	GUEST_NUMBERED,		/* random queues, value guest_number() */
	GUEST_LOOP,		/* range[0] round robin, no counters */
};

enum guest_op_kind {
	GUEST_MMIO_WRITE,
	GUEST_MMIO_READ,
	GUEST_PIO_OUT,
	GUEST_PIO_IN,
	/* arm64: stores of 8 bytes and more that KVM cannot decode */
	GUEST_STORE_PAIR,
	GUEST_STORE_WRITE_BACK,
	GUEST_STORE_VECTOR,
	GUEST_STORE_EXCLUSIVE,
	GUEST_STORE_ATOMIC,
	/* arm64: a store of 8 bytes that it can decode */
	GUEST_STORE_RELEASE,
};

/**
 * struct guest_op - one step of a script
 * @kind: enum guest_op_kind
 * @width: bytes: 1, 2, 4, and for MMIO 8
 * @addr: guest-physical address or port
 * @value: value to write, or the value read last
 * @repeat: number of times, 0 means once
 * @step: added to the value written after each time
 * @addr_step: added to the address after each time
 */
struct guest_op {
	__u32 kind;
	__u32 width;
	__u64 addr;
	__u64 value;
	__u64 repeat;
	__u64 step;
	__u64 addr_step;
};

/** struct guest_range - queues [first, first + nr) */
struct guest_range {
	__u32 first;
	__u32 nr;
};

/**
 * struct guest_job - the mailbox of one vCPU
 * @kind: enum guest_job_kind
 * @stop: set it to end the job early; GUEST_LOOP ignores it
 * @nr_ops: GUEST_SCRIPT: length of the script
 * @width: bytes per ring
 * @pio: ring by OUT instead of a memory write
 * @base: address of queue 0
 * @stride: bytes per queue
 * @range: queues to ring; only the second may be empty
 * @weight: GUEST_STORM, GUEST_NUMBERED: of 256 rings, so many go to range[1]
 * @pace: iterations of an empty loop after each ring. No PAUSE: if one CPU
 *	emulates all vCPUs, PAUSE gives up the whole time slice
 * @limit: number of rings, 0 means until stopped
 * @seed: of the random choice; vCPUs with the same seed differ
 * @rings: number of finished rings, incremented after the instruction; set by
 *	the guest. All jobs but GUEST_LOOP start at the initial value, which is
 *	also the first number of GUEST_NUMBERED
 */
struct guest_job {
	__u32 kind;
	__u32 stop;
	__u32 nr_ops;
	__u32 width;
	__u32 pio;
	__u32 pace;
	__u64 base;
	__u64 stride;
	struct guest_range range[2];
	__u64 weight;
	__u64 limit;
	__u64 seed;
	__u64 rings;
};

/**
 * struct guest_shared - at GUEST_SHARED_GPA
 * @job: mailbox of each vCPU
 * @ops: script of each vCPU
 * @counts: rings per vCPU and queue, incremented *before* the instruction:
 *	never less than the host has seen, and equal to that once the job is
 *	done. A new job does not reset it. GUEST_SCRIPT and GUEST_LOOP do not
 *	count
 */
struct guest_shared {
	struct guest_job job[GUEST_MAX_VCPUS];
	struct guest_op ops[GUEST_MAX_VCPUS][GUEST_MAX_OPS];
	__u64 counts[GUEST_MAX_VCPUS][GUEST_MAX_QUEUES];
};

/** guest_value() - value of GUEST_STORM and GUEST_RATES for ring @count */
static inline __u64 guest_value(unsigned int vcpu, __u64 count)
{
	return (__u64)vcpu << 56 | count;
}

/** guest_number() - value of GUEST_NUMBERED for a vCPU's @n-th ring */
static inline __u64 guest_number(unsigned int vcpu, __u64 n)
{
	return (__u64)vcpu << 32 | n;
}

#endif /* DOORBELL_VMM_GUEST_H */
