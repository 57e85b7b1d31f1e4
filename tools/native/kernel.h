/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Kernel: what buffer.c, buffer.h and produce.h need of the kernel, for user
 * space. The compiler includes this file first; the headers that they include
 * are empty, or those of the system.
 *
 * In the kernel's memory model an atomic operation with a result is a full
 * barrier. With __ATOMIC_SEQ_CST it is one on x86, and not on every other CPU.
 */
#ifndef _DOORBELL_NATIVE_KERNEL_H
#define _DOORBELL_NATIVE_KERNEL_H

#include <assert.h>
#include <errno.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <linux/types.h>

#ifndef __x86_64__
#error "the barriers here are those of x86"
#endif

typedef __u8 u8;
typedef __u16 u16;
typedef __u32 u32;
typedef __u64 u64;
typedef __s64 s64;
typedef struct { s64 counter; } atomic64_t;

#define U16_MAX			UINT16_MAX
#define U32_MAX			UINT32_MAX
#define U64_MAX			UINT64_MAX
#define BIT(nr)			(1UL << (nr))
#define PAGE_ALIGN(size)	(((size) + 4095) & ~(size_t)4095)
#define ____cacheline_aligned_in_smp	__attribute__((aligned(64)))

#undef __always_inline
#define __always_inline		inline __attribute__((always_inline))

#define min(a, b) ({			\
	__auto_type _a = (a);		\
	__auto_type _b = (b);		\
	_a < _b ? _a : _b;		\
})
#define min_t(type, a, b)	min((type)(a), (type)(b))
#define struct_size(p, member, n)	offsetof(__typeof__(*(p)), member[n])

/* Nobody here is hostile. */
static inline u32 array_index_nospec(u32 index, u32 size)
{
	(void)size;
	return index;
}

static inline u32 order_base_2(u32 n)
{
	return n > 1 ? 32 - __builtin_clz(n - 1) : 0;
}

/* A thread may lose its CPU here: the consumer then waits for its entry. */
#define preempt_disable()	do { } while (0)
#define preempt_enable()	do { } while (0)

#define READ_ONCE(x)		__atomic_load_n(&(x), __ATOMIC_RELAXED)
#define WRITE_ONCE(x, v)	__atomic_store_n(&(x), v, __ATOMIC_RELAXED)
/* before all that follows */
#define smp_load_acquire(p)	__atomic_load_n(p, __ATOMIC_ACQUIRE)
/* after all that precedes */
#define smp_store_release(p, v)	__atomic_store_n(p, v, __ATOMIC_RELEASE)
/* between all that precedes and all that follows */
#define smp_mb()		__atomic_thread_fence(__ATOMIC_SEQ_CST)
#define xchg(p, v)		__atomic_exchange_n(p, v, __ATOMIC_SEQ_CST)

#define atomic64_read(a)	READ_ONCE((a)->counter)
#define atomic64_set(a, v)	WRITE_ONCE((a)->counter, v)
/* before all that follows */
#define atomic64_read_acquire(a)	smp_load_acquire(&(a)->counter)
#define atomic64_fetch_add(v, a) \
	__atomic_fetch_add(&(a)->counter, v, __ATOMIC_SEQ_CST)
#define atomic64_fetch_inc(a)	atomic64_fetch_add(1, a)
#define atomic64_try_cmpxchg(a, old, v)	\
	__atomic_compare_exchange_n(&(a)->counter, old, v, false, \
				    __ATOMIC_SEQ_CST, __ATOMIC_RELAXED)
/* no barrier, as it has no result */
#define atomic64_inc(a)	\
	((void)__atomic_fetch_add(&(a)->counter, 1, __ATOMIC_RELAXED))

/* without the flags of the kernel's allocator */
#define __vmalloc(size, ...)	native_zalloc(size)
#define vfree(mem)		free(mem)

static inline void *native_zalloc(size_t size)
{
	void *mem = aligned_alloc(4096, size);

	return mem ? memset(mem, 0, size) : NULL;
}

#endif /* _DOORBELL_NATIVE_KERNEL_H */
