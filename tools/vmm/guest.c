// SPDX-License-Identifier: GPL-2.0
/*
 * The guest program: does the job in its mailbox, then halts. It has no
 * interrupts, and an exception ends it: the VMM reports it. The VMM sets up
 * registers, page tables and stack.
 */
#include "guest.h"

#undef __always_inline	/* <linux/types.h> has plain inline */
#define __always_inline	inline __attribute__((__always_inline__))
#define READ_ONCE(x)	(*(const volatile __typeof__(x) *)&(x))
#define WRITE_ONCE(x, v) (*(volatile __typeof__(x) *)&(x) = (v))

#include GUEST_ARCH_H

static struct guest_shared *const shared = (void *)GUEST_SHARED_GPA;

static void run_script(struct guest_job *job, struct guest_op *op)
{
	struct guest_op *end = op + job->nr_ops;

	for (; op < end; op++) {
		__u64 addr = op->addr, value = op->value;
		__u64 n = op->repeat ? op->repeat : 1;

		for (; n && !READ_ONCE(job->stop); n--) {
			switch (op->kind) {
			case GUEST_MMIO_WRITE:
				mmio_write(addr, op->width, value);
				break;
			case GUEST_MMIO_READ:
				WRITE_ONCE(op->value,
					   mmio_read(addr, op->width));
				break;
			case GUEST_PIO_OUT:
				pio_out(addr, op->width, value);
				break;
			case GUEST_PIO_IN:
				WRITE_ONCE(op->value, pio_in(addr, op->width));
				break;
			default:
				other_store(op->kind, addr, value);
			}
			addr += op->addr_step;
			value += op->step;
		}
	}
}

/* Ring @queue once, and count the ring. */
static void ring(struct guest_job *job, unsigned int vcpu, __u32 queue)
{
	__u64 *count = &shared->counts[vcpu][queue];
	__u64 addr = job->base + queue * job->stride;
	__u64 value, i;

	WRITE_ONCE(*count, *count + 1);
	if (job->kind == GUEST_NUMBERED)
		value = guest_number(vcpu, job->rings);
	else
		value = guest_value(vcpu, *count);

	if (job->pio)
		pio_out(addr, job->width, value);
	else
		mmio_write(addr, job->width, value);
	WRITE_ONCE(job->rings, job->rings + 1);

	for (i = 0; i < job->pace; i++)
		asm volatile("");
}

static int job_over(const struct guest_job *job)
{
	return READ_ONCE(job->stop) || (job->limit && job->rings >= job->limit);
}

static void run_random(struct guest_job *job, unsigned int vcpu)
{
	__u64 x = (job->seed + 1) * 0x9e3779b97f4a7c15 ^
		  (vcpu + 1) * 0xbf58476d1ce4e5b9;
	const struct guest_range *r;

	while (!job_over(job)) {
		if (!x)
			x = 1;
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		r = &job->range[(x >> 56) < job->weight];
		ring(job, vcpu, r->first + (__u32)(x >> 8) % r->nr);
	}
}

static void run_rates(struct guest_job *job, unsigned int vcpu)
{
	__u64 round;
	__u32 q;
	int i;

	for (round = 1; !job_over(job); round++) {
		for (i = 0; i < 2; i++) {
			const struct guest_range *r = &job->range[i];

			for (q = r->first; q < r->first + r->nr; q++)
				if (!(round % (q % 7 + 1)) && !job_over(job))
					ring(job, vcpu, q);
		}
	}
}

/* Inlined once per kind of access: the loop has no other instructions. */
static __always_inline void ring_loop(struct guest_job *job, int pio, int width)
{
	__u64 start = job->base + job->range[0].first * job->stride;
	__u64 end = start + job->range[0].nr * job->stride;
	__u64 stride = job->stride, limit = job->limit;
	__u64 addr = start, i;

	for (i = 0; i < limit; i++) {
		if (pio)
			pio_out(addr, width, i);
		else
			mmio_write(addr, width, i);
		addr += stride;
		if (addr == end)
			addr = start;
	}
	WRITE_ONCE(job->rings, i);
}

static void run_loop(struct guest_job *job)
{
	switch (job->width | (job->pio ? 0x10 : 0)) {
	case 0x01:
		return ring_loop(job, 0, 1);
	case 0x02:
		return ring_loop(job, 0, 2);
	case 0x04:
		return ring_loop(job, 0, 4);
	case 0x08:
		return ring_loop(job, 0, 8);
	case 0x11:
		return ring_loop(job, 1, 1);
	case 0x12:
		return ring_loop(job, 1, 2);
	case 0x14:
		return ring_loop(job, 1, 4);
	}
}

/* Every vCPU starts here. The linker puts this first in the image. */
__attribute__((section(".text.entry"), noreturn))
void guest_main(unsigned int vcpu)
{
	struct guest_job *job = &shared->job[vcpu];

	for (;;) {
		switch (job->kind) {
		case GUEST_SCRIPT:
			run_script(job, shared->ops[vcpu]);
			break;
		case GUEST_STORM:
		case GUEST_NUMBERED:
			run_random(job, vcpu);
			break;
		case GUEST_RATES:
			run_rates(job, vcpu);
			break;
		case GUEST_LOOP:
			run_loop(job);
			break;
		}
		halt();
	}
}
