/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Region: queues that are rung, and the consumer that their rings wake, or the
 * eventfds that they signal.
 *
 * A region turns an offset and a value into a ring of one of its queues. Where
 * it sits in a guest's address space is not its business; for information it
 * keeps the process of its VM. The KVM side and write() ring it, the character
 * device reads and maps it.
 */
#ifndef _DOORBELL_REGION_H
#define _DOORBELL_REGION_H

#include <linux/eventfd.h>
#include <linux/jump_label.h>
#include <linux/kref.h>
#include <linux/mutex.h>
#include <linux/pid.h>
#include <linux/preempt.h>
#include <linux/rcupdate.h>
#include <linux/wait.h>
#include <linux/workqueue.h>

#include "buffer.h"
#include "geometry.h"
#include "produce.h"

/* On while rings are traced. */
DECLARE_STATIC_KEY_FALSE(doorbell_tracing);

struct vm_area_struct;

/**
 * struct doorbell_waiters - what waits for events of one consumer
 * @wait: tasks and poll tables; has its own lock
 * @fasync: owners of SIGIO; changed by fasync_helper(), under its locks
 * @id: names the consumer in tracepoints and fdinfo; constant
 * @ref: held by the consumer and by each of its regions
 */
struct doorbell_waiters {
	wait_queue_head_t wait;
	struct fasync_struct *fasync;
	u32 id;
	struct kref ref;
};

/**
 * struct doorbell_binding - the eventfd that rings of a queue signal
 * @ctx: the eventfd, referenced, or NULL; changed by xchg() under bind_lock,
 *	read under RCU
 * @rings: rings of the queue that signalled an eventfd
 * @charge: unused bytes, charged in place of an eventfd that only the binding
 *	keeps, which the kernel charges to no cgroup
 */
struct doorbell_binding {
	struct eventfd_ctx __rcu *ctx;
	atomic64_t rings;
	u8 charge[48];
};

/**
 * struct doorbell_region - a region
 * @geo: how it is divided into queues; constant
 * @flags: DOORBELL_ATTACH_*; constant
 * @waiters: what its rings wake, referenced; constant
 * @buffer: its rings
 * @bind_lock: protects @bindings and each @ctx; held until the rings that are
 *	under way no longer signal what was unbound
 * @bindings: one for each queue; NULL before the first one; set once, with
 *	release, under @bind_lock, read without
 * @unbound_len: @geo.len, or 0 after there were bindings; as @bindings
 * @generation: which region of its consumer this is, from 1 on; set before the
 *	consumer has it
 * @attached: can be rung; written under the consumer's attach_lock, read
 *	without
 * @vm_process: the process whose VM it is, referenced, or NULL; set before the
 *	consumer has it
 * @ringers: 1 until @ending, and one more for each write() that rings
 * @ending: the VM is gone, or its bus: no guest rings the region any more; set
 *	once, by xchg()
 * @hung_up: nothing rings the region any more; set once, when @ringers is 0
 * @wakeups: rings that woke the consumer
 * @bounced: rings by guests that found no room
 * @ref: held by the consumer, until an RCU grace period after it replaced the
 *	region; by the placement; and by calls that use the region
 * @rcu: ends that grace period
 * @free: frees the region
 */
struct doorbell_region {
	struct doorbell_geometry geo;
	u32 flags;
	struct doorbell_waiters *waiters;
	struct doorbell_buffer buffer;
	struct mutex bind_lock;		/* the next two, and the eventfds */
	struct doorbell_binding *bindings;
	u64 unbound_len;
	u32 generation;
	bool attached;
	struct pid *vm_process;
	atomic_t ringers;
	bool ending;
	bool hung_up;
	atomic64_t wakeups;
	atomic64_t bounced;
	struct kref ref;
	struct rcu_head rcu;
	struct work_struct free;
};

int doorbell_region_init(void);
void doorbell_region_exit(void);

struct doorbell_waiters *doorbell_waiters_create(void);
void doorbell_waiters_put(struct doorbell_waiters *waiters);
void doorbell_waiters_wake(struct doorbell_waiters *waiters);

struct doorbell_region *
doorbell_region_create(const struct doorbell_attach *arg,
		       struct doorbell_waiters *waiters);
void doorbell_region_put(struct doorbell_region *region);
void doorbell_region_put_rcu(struct doorbell_region *region);
void doorbell_region_attach(struct doorbell_region *region, u32 generation);
void doorbell_region_detach(struct doorbell_region *region);
void doorbell_region_replace(struct doorbell_region *region, u32 generation,
			     bool drop);
bool doorbell_region_pending(const struct doorbell_region *region);
int doorbell_region_error(const struct doorbell_region *region);
int doorbell_region_enter(struct doorbell_region *region);
void doorbell_region_leave(struct doorbell_region *region);
int doorbell_region_ring_bad(struct doorbell_region *region, u16 kind,
			     u64 value);
int doorbell_region_ring_traced(struct doorbell_region *region, u32 flags,
				u64 offset, u64 value, u16 kind, bool bounces,
				bool bound);
void doorbell_region_wake(struct doorbell_region *region);
void doorbell_region_hangup(struct doorbell_region *region);
int doorbell_region_mmap(struct doorbell_region *region,
			 struct vm_area_struct *vma);
int doorbell_region_bind(struct doorbell_region *region, u32 first, u32 count,
			 const s32 __user *fds);
int doorbell_region_bindings(const struct doorbell_region *region, u32 first,
			     u32 count,
			     struct doorbell_queue_binding __user *bindings);
u64 doorbell_region_bound_rings(const struct doorbell_region *region);

/**
 * doorbell_region_hung_up() - will nothing ring the region any more?
 * @region: the region
 *
 * A caller that sees true and then finds no event has missed none.
 */
static inline bool doorbell_region_hung_up(const struct doorbell_region *region)
{
	/* pairs with the xchg() in doorbell_region_leave() */
	return smp_load_acquire(&region->hung_up);
}

/* The queue that an offset inside of the region, or a value, names; or -1. */
static __always_inline long
doorbell_region_queue(const struct doorbell_region *region, u32 flags,
		      u64 offset, u64 value)
{
	return flags & DOORBELL_ATTACH_BY_VALUE ?
	       doorbell_geometry_queue_by_value(&region->geo, value) :
	       doorbell_geometry_queue(&region->geo, offset);
}

/**
 * doorbell_region_accepts() - does an access of a guest ring the region?
 * @region: the region
 * @offset: address written less the region's base, inside of the region
 * @width: bytes written
 * @value: value written
 *
 * Return: false if only writes that an ioeventfd would accept ring the region,
 * and this is another one.
 */
static inline bool
doorbell_region_accepts(const struct doorbell_region *region, u64 offset,
			int width, u64 value)
{
	u32 stride = 1U << region->geo.shift;

	if (!(region->flags & DOORBELL_ATTACH_EXACT))
		return true;
	if (offset & (stride - 1))
		return false;
	if (region->flags & DOORBELL_ATTACH_NO_VALUE)
		return true;
	return width == stride &&
	       (!(region->flags & DOORBELL_ATTACH_BY_VALUE) ||
		value <= U16_MAX);
}

/* Ring the queue that an access names, or none, but wake nothing. */
static __always_inline enum doorbell_ring_result
doorbell_region_enqueue(struct doorbell_region *region, u32 flags, u64 offset,
			u64 value, u16 kind)
{
	struct doorbell_buffer *buf = &region->buffer;
	long queue = doorbell_region_queue(region, flags, offset, value);

	if (flags & DOORBELL_ATTACH_BY_VALUE && queue < 0)
		return doorbell_buffer_ring(buf, doorbell_buffer_bad(buf),
					    kind | DOORBELL_EVENT_BAD_QUEUE,
					    value);
	if (flags & DOORBELL_ATTACH_ORDERED)
		return doorbell_ordered_ring(buf, queue, kind, value);
	return doorbell_coalesced_ring(buf, queue, kind, value);
}

/* What comes after it: 0, or -EAGAIN if an ordered region has no room */
static __always_inline int
doorbell_region_enqueued(struct doorbell_region *region,
			 enum doorbell_ring_result result, bool bounces)
{
	if (result == DOORBELL_RING_FULL) {
		if (bounces)
			atomic64_inc(&region->bounced);
		return -EAGAIN;
	}
	if (result == DOORBELL_RING_WAKE)
		doorbell_region_wake(region);
	return 0;
}

/**
 * doorbell_region_ring_unbound() - ring the queue that an access names
 * @region: the region; the queue was not bound a moment ago
 * @flags: those of @region->flags that matter here; callers in a hot path pass
 *	a constant
 * @offset: address written less the region's base, inside of the region
 * @value: value written
 * @kind: doorbell_kind() of DOORBELL_EVENT_QUEUE and the value's width
 * @bounces: a ring without room reaches the VMM: count it as bounced
 *
 * Context: process context; allocates nothing, takes no lock but that of the
 * wait queue when the consumer is armed.
 *
 * Return: 0, or -EAGAIN if an ordered region has no room.
 */
static __always_inline int
doorbell_region_ring_unbound(struct doorbell_region *region, u32 flags,
			     u64 offset, u64 value, u16 kind, bool bounces)
{
	enum doorbell_ring_result result =
		doorbell_region_enqueue(region, flags, offset, value, kind);

	return doorbell_region_enqueued(region, result, bounces);
}

/*
 * Signals of a binding are RCU readers. Disabling preemption costs least. On
 * PREEMPT_RT the eventfd's lock sleeps: use rcu_read_lock() there, as lockdep
 * rejects such locks under rcu_read_lock_sched().
 */
static __always_inline void doorbell_binding_lock(void)
{
	if (IS_ENABLED(CONFIG_PREEMPT_RT))
		rcu_read_lock();
	else
		preempt_disable();
}

static __always_inline void doorbell_binding_unlock(void)
{
	if (IS_ENABLED(CONFIG_PREEMPT_RT))
		rcu_read_unlock();
	else
		preempt_enable();
}

/**
 * doorbell_region_signal() - signal the eventfd that a queue is bound to
 * @region: the region, which has bindings
 * @queue: the queue, a safe index
 *
 * Context: process context; takes the eventfd's own lock.
 *
 * Return: true, or false if the queue is not bound.
 */
static __always_inline bool
doorbell_region_signal(const struct doorbell_region *region, u32 queue)
{
	/* pairs with smp_store_release() in doorbell_region_bind() */
	struct doorbell_binding *binding = &READ_ONCE(region->bindings)[queue];
	struct eventfd_ctx *ctx;

	doorbell_binding_lock();
	/* pairs with xchg() in doorbell_region_bind() */
	ctx = rcu_dereference_check(binding->ctx, !preemptible());
	if (!ctx) {
		doorbell_binding_unlock();
		return false;
	}
	atomic64_inc(&binding->rings);
	doorbell_eventfd_signal(ctx);
	doorbell_binding_unlock();
	return true;
}

/**
 * doorbell_region_ring_as() - the same where a queue may be bound, or traced
 * @region: the region
 * @flags: @region->flags
 * @offset: address written less the region's base, any 64-bit number
 * @value: value written
 * @kind: doorbell_kind() of DOORBELL_EVENT_QUEUE and the value's width
 * @bounces: a ring without room reaches the VMM: count it as bounced
 * @traced: doorbell_tracing, or false if the caller has just seen it off
 *
 * Context: process context; takes the eventfd's lock, too.
 *
 * Return: as doorbell_region_ring_unbound(); or -ERANGE if @offset is outside
 * of the region, or -ENXIO if the queue is not bound and rings of such queues
 * make no events.
 */
static __always_inline int
doorbell_region_ring_as(struct doorbell_region *region, u32 flags, u64 offset,
			u64 value, u16 kind, bool bounces, bool traced)
{
	bool bound = false;

	if (!doorbell_geometry_contains(&region->geo, offset))
		return -ERANGE;

	/* only whether it is NULL: doorbell_region_signal() reads it again */
	if (data_race(region->bindings)) {
		long queue = doorbell_region_queue(region, flags, offset,
						   value);

		bound = queue >= 0 && doorbell_region_signal(region, queue);
		if (!bound && flags & DOORBELL_ATTACH_BOUND_ONLY)
			return -ENXIO;
	}
	if (traced)
		return doorbell_region_ring_traced(region, flags, offset, value,
						   kind, bounces, bound);
	if (bound)
		return 0;
	return doorbell_region_ring_unbound(region, flags, offset, value, kind,
					    bounces);
}

/* The same for a caller that does not know whether rings are traced */
static inline int doorbell_region_ring(struct doorbell_region *region,
				       u32 flags, u64 offset, u64 value,
				       u16 kind, bool bounces)
{
	bool traced = static_branch_unlikely(&doorbell_tracing);

	return doorbell_region_ring_as(region, flags, offset, value, kind,
				       bounces, traced);
}

#endif /* _DOORBELL_REGION_H */
