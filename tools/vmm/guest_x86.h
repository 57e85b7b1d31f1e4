/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The guest program's instructions on x86-64. A fault without a handler shuts
 * down the VM.
 */
#ifndef DOORBELL_VMM_GUEST_X86_H
#define DOORBELL_VMM_GUEST_X86_H

/* This exits to the VMM, as there is no in-kernel irqchip. */
static __always_inline void halt(void)
{
	asm volatile("hlt" : : : "memory");
}

static __always_inline void mmio_write(__u64 addr, unsigned int width, __u64 v)
{
	void *p = (void *)addr;

	switch (width) {
	case 1:
		asm volatile("movb %b0, (%1)" : : "r"(v), "r"(p) : "memory");
		break;
	case 2:
		asm volatile("movw %w0, (%1)" : : "r"(v), "r"(p) : "memory");
		break;
	case 4:
		asm volatile("movl %k0, (%1)" : : "r"(v), "r"(p) : "memory");
		break;
	case 8:
		asm volatile("movq %q0, (%1)" : : "r"(v), "r"(p) : "memory");
		break;
	}
}

static __u64 mmio_read(__u64 addr, unsigned int width)
{
	void *p = (void *)addr;
	__u64 v = 0;

	switch (width) {
	case 1:
		asm volatile("movb (%1), %b0" : "+r"(v) : "r"(p) : "memory");
		break;
	case 2:
		asm volatile("movw (%1), %w0" : "+r"(v) : "r"(p) : "memory");
		break;
	case 4:
		asm volatile("movl (%1), %k0" : "+r"(v) : "r"(p) : "memory");
		break;
	case 8:
		asm volatile("movq (%1), %q0" : "+r"(v) : "r"(p) : "memory");
		break;
	}
	return v;
}

static __always_inline void pio_out(__u16 port, unsigned int width, __u64 v)
{
	switch (width) {
	case 1:
		asm volatile("outb %b0, %w1" : : "a"(v), "d"(port) : "memory");
		break;
	case 2:
		asm volatile("outw %w0, %w1" : : "a"(v), "d"(port) : "memory");
		break;
	case 4:
		asm volatile("outl %k0, %w1" : : "a"(v), "d"(port) : "memory");
		break;
	}
}

static __u64 pio_in(__u16 port, unsigned int width)
{
	__u64 v = 0;

	switch (width) {
	case 1:
		asm volatile("inb %w1, %b0" : "+a"(v) : "d"(port) : "memory");
		break;
	case 2:
		asm volatile("inw %w1, %w0" : "+a"(v) : "d"(port) : "memory");
		break;
	case 4:
		asm volatile("inl %w1, %k0" : "+a"(v) : "d"(port) : "memory");
		break;
	}
	return v;
}

/* KVM decodes all stores, and the VMM takes no jobs with others. */
static __always_inline void other_store(__u32 kind, __u64 addr, __u64 v)
{
	(void)kind;
	(void)addr;
	(void)v;
}

#endif /* DOORBELL_VMM_GUEST_X86_H */
