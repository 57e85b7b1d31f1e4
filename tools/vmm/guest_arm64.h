/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The guest program's instructions on arm64. KVM decodes a load or store by
 * what the CPU reports of it, which is enough only for those of one general
 * register without write-back.
 */
#ifndef DOORBELL_VMM_GUEST_ARM64_H
#define DOORBELL_VMM_GUEST_ARM64_H

/* KVM handles WFI itself, so a write to this address is what HLT is on x86. */
static __always_inline void halt(void)
{
	asm volatile("str wzr, [%0]" : : "r"(GUEST_HALT_GPA) : "memory");
}

static __always_inline void mmio_write(__u64 addr, unsigned int width, __u64 v)
{
	void *p = (void *)addr;

	switch (width) {
	case 1:
		asm volatile("strb %w0, [%1]" : : "r"(v), "r"(p) : "memory");
		break;
	case 2:
		asm volatile("strh %w0, [%1]" : : "r"(v), "r"(p) : "memory");
		break;
	case 4:
		asm volatile("str %w0, [%1]" : : "r"(v), "r"(p) : "memory");
		break;
	case 8:
		asm volatile("str %x0, [%1]" : : "r"(v), "r"(p) : "memory");
		break;
	}
}

static __u64 mmio_read(__u64 addr, unsigned int width)
{
	void *p = (void *)addr;
	__u64 v = 0;

	switch (width) {
	case 1:
		asm volatile("ldrb %w0, [%1]" : "=r"(v) : "r"(p) : "memory");
		break;
	case 2:
		asm volatile("ldrh %w0, [%1]" : "=r"(v) : "r"(p) : "memory");
		break;
	case 4:
		asm volatile("ldr %w0, [%1]" : "=r"(v) : "r"(p) : "memory");
		break;
	case 8:
		asm volatile("ldr %x0, [%1]" : "=r"(v) : "r"(p) : "memory");
		break;
	}
	return v;
}

/* There are no ports, and the VMM takes no jobs that use them. */
static __always_inline void pio_out(__u16 port, unsigned int width, __u64 v)
{
	(void)port;
	(void)width;
	(void)v;
}

static __u64 pio_in(__u16 port, unsigned int width)
{
	(void)port;
	(void)width;
	return 0;
}

static void other_store(__u32 kind, __u64 addr, __u64 v)
{
	switch (kind) {
	case GUEST_STORE_PAIR:
		asm volatile("stp %0, %0, [%1]" : : "r"(v), "r"(addr)
			     : "memory");
		break;
	case GUEST_STORE_WRITE_BACK:
		asm volatile("str %1, [%0], #8" : "+r"(addr) : "r"(v)
			     : "memory");
		break;
	case GUEST_STORE_VECTOR:
		asm volatile("fmov d0, %0; str d0, [%1]" : : "r"(v), "r"(addr)
			     : "memory");
		break;
	case GUEST_STORE_EXCLUSIVE:	/* its load traps first */
		asm volatile("ldxr x0, [%1]; stxr w1, %0, [%1]"
			     : : "r"(v), "r"(addr) : "x0", "x1", "memory");
		break;
	case GUEST_STORE_ATOMIC:	/* only some CPUs have these */
		asm volatile(".arch_extension lse; stadd %0, [%1]"
			     : : "r"(v), "r"(addr) : "memory");
		break;
	case GUEST_STORE_RELEASE:
		asm volatile("stlr %0, [%1]" : : "r"(v), "r"(addr) : "memory");
		break;
	}
}

#endif /* DOORBELL_VMM_GUEST_ARM64_H */
