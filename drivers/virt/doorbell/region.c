// SPDX-License-Identifier: GPL-2.0
/*
 * Region: creates and frees regions, wakes their consumer, hangs up, maps their
 * memory, and binds queues to eventfds. region.h has the path of a ring.
 */
#include <linux/err.h>
#include <linux/eventfd.h>
#include <linux/fs.h>
#include <linux/mm.h>
#include <linux/poll.h>
#include <linux/rcupdate.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/vmalloc.h>

#include <linux/doorbell.h>

#include "region.h"
#include "trace.h"

#define ATTACH_FLAGS	(DOORBELL_ATTACH_PIO | DOORBELL_ATTACH_ORDERED | \
			 DOORBELL_ATTACH_BY_VALUE | \
			 DOORBELL_ATTACH_NO_VALUE | \
			 DOORBELL_ATTACH_BOUND_ONLY | \
			 DOORBELL_ATTACH_DROP | \
			 DOORBELL_ATTACH_EXACT)

/* Fail with -ENOMEM instead of invoking the OOM killer. */
#define GFP_BINDINGS	(GFP_KERNEL_ACCOUNT | __GFP_ZERO | \
			 __GFP_RETRY_MAYFAIL | __GFP_NOWARN)

static struct workqueue_struct *free_wq;

/**
 * doorbell_waiters_create() - create an empty list of waiters
 *
 * Return: the waiters, with one reference, or NULL.
 */
struct doorbell_waiters *doorbell_waiters_create(void)
{
	static atomic_t last_id;
	struct doorbell_waiters *waiters;

	waiters = kzalloc(sizeof(*waiters), GFP_KERNEL_ACCOUNT);
	if (!waiters)
		return NULL;
	init_waitqueue_head(&waiters->wait);
	waiters->id = atomic_inc_return(&last_id);
	kref_init(&waiters->ref);
	return waiters;
}

static void waiters_free(struct kref *ref)
{
	kfree(container_of(ref, struct doorbell_waiters, ref));
}

/**
 * doorbell_waiters_put() - drop a reference to waiters
 * @waiters: the waiters
 *
 * Context: any but NMI.
 */
void doorbell_waiters_put(struct doorbell_waiters *waiters)
{
	kref_put(&waiters->ref, waiters_free);
}

/**
 * doorbell_waiters_wake() - wake the tasks that wait for events
 * @waiters: the waiters
 *
 * Does what wake_up_poll() and kill_fasync() do, with fewer calls.
 *
 * Context: any but NMI.
 */
void doorbell_waiters_wake(struct doorbell_waiters *waiters)
{
	unsigned long flags;

	spin_lock_irqsave(&waiters->wait.lock, flags);
	wake_up_locked_poll(&waiters->wait, EPOLLIN | EPOLLRDNORM);
	spin_unlock_irqrestore(&waiters->wait.lock, flags);
	/* after the xchg() of armed: pairs with doorbell_fasync() */
	if (READ_ONCE(waiters->fasync))
		kill_fasync(&waiters->fasync, SIGIO, POLL_IN);
}

/* Do the flags, and the fields that belong to them, go together? */
static bool attach_valid(const struct doorbell_attach *arg)
{
	bool ordered = arg->flags & DOORBELL_ATTACH_ORDERED;
	bool by_value = arg->flags & DOORBELL_ATTACH_BY_VALUE;

	if (arg->flags & ~ATTACH_FLAGS)
		return false;
	if (arg->flags & DOORBELL_ATTACH_NO_VALUE &&
	    (by_value || arg->flags & DOORBELL_ATTACH_PIO))
		return false;
	if (arg->flags & DOORBELL_ATTACH_EXACT &&
	    !(arg->flags & DOORBELL_ATTACH_BOUND_ONLY))
		return false;
	return ordered == !!arg->depth && arg->depth <= DOORBELL_DEPTH_MAX &&
	       by_value == !!arg->queues;
}

static struct doorbell_binding *bindings_create(u32 queues)
{
	return kvmalloc_array(queues, sizeof(struct doorbell_binding),
			      GFP_BINDINGS);
}

static void bindings_free(struct doorbell_region *region)
{
	struct doorbell_binding *bindings = region->bindings;
	struct eventfd_ctx *ctx;
	u32 i;

	for (i = 0; bindings && i < region->geo.queues; i++) {
		ctx = rcu_dereference_protected(bindings[i].ctx, true);
		if (ctx)
			eventfd_ctx_put(ctx);
		cond_resched();
	}
	kvfree(bindings);
}

static void region_free(struct work_struct *work)
{
	struct doorbell_region *region =
		container_of(work, struct doorbell_region, free);

	bindings_free(region);
	doorbell_buffer_destroy(&region->buffer);
	doorbell_waiters_put(region->waiters);
	put_pid(region->vm_process);
	kfree(region);
}

/**
 * doorbell_region_create() - create a region
 * @arg: what the consumer asks for; size and vm_fd do not matter here
 * @waiters: what its rings wake; the region takes a reference
 *
 * Context: may sleep; charges the caller's memory cgroup.
 * Return: the region, not attached and with one reference; -EINVAL or -ENOMEM.
 */
struct doorbell_region *
doorbell_region_create(const struct doorbell_attach *arg,
		       struct doorbell_waiters *waiters)
{
	struct doorbell_region *region;
	int ret;

	if (!attach_valid(arg))
		return ERR_PTR(-EINVAL);
	region = kzalloc(sizeof(*region), GFP_KERNEL_ACCOUNT);
	if (!region)
		return ERR_PTR(-ENOMEM);

	ret = doorbell_geometry_init(&region->geo, arg->base, arg->len,
				     arg->stride, arg->queues,
				     arg->flags & DOORBELL_ATTACH_PIO);
	if (ret)
		goto err_free;
	/* without bindings no ring looks whether its queue is bound */
	if (arg->flags & DOORBELL_ATTACH_BOUND_ONLY) {
		region->bindings = bindings_create(region->geo.queues);
		if (!region->bindings) {
			ret = -ENOMEM;
			goto err_free;
		}
	} else {
		region->unbound_len = region->geo.len;
	}
	ret = doorbell_buffer_init(&region->buffer, region->geo.queues,
				   arg->depth);
	if (ret)
		goto err_bindings;
	/* DROP is about the region before */
	region->flags = arg->flags & ~DOORBELL_ATTACH_DROP;
	region->waiters = waiters;
	kref_get(&waiters->ref);
	mutex_init(&region->bind_lock);
	atomic_set(&region->ringers, 1);
	kref_init(&region->ref);
	INIT_WORK(&region->free, region_free);
	return region;

err_bindings:
	kvfree(region->bindings);
err_free:
	kfree(region);
	return ERR_PTR(ret);
}

/*
 * In process context: in a softirq vfree() keeps a list in the memory that is
 * to be freed, which user space may have mapped.
 */
static void region_release(struct kref *ref)
{
	struct doorbell_region *region =
		container_of(ref, struct doorbell_region, ref);

	queue_work(free_wq, &region->free);
}

/**
 * doorbell_region_put() - drop a reference to a region
 * @region: the region, freed soon if this was the last one
 *
 * Context: any but NMI.
 */
void doorbell_region_put(struct doorbell_region *region)
{
	kref_put(&region->ref, region_release);
}

static void region_put_rcu(struct rcu_head *rcu)
{
	doorbell_region_put(container_of(rcu, struct doorbell_region, rcu));
}

/**
 * doorbell_region_put_rcu() - drop a reference after an RCU grace period
 * @region: the region, which its consumer has replaced
 *
 * Context: any but NMI.
 */
void doorbell_region_put_rcu(struct doorbell_region *region)
{
	call_rcu(&region->rcu, region_put_rcu);
}

/**
 * doorbell_region_attach() - mark a region as attached
 * @region: the region, which its consumer does not have yet
 * @generation: which region of its consumer this is
 *
 * The region's VM may have ended already.
 */
void doorbell_region_attach(struct doorbell_region *region, u32 generation)
{
	struct doorbell_status *status = region->buffer.status;

	region->generation = generation;
	WRITE_ONCE(status->generation, generation);
	WRITE_ONCE(status->state, DOORBELL_ATTACHED);
	WRITE_ONCE(region->attached, true);
	/*
	 * state and attached before hung_up: pairs with the xchg() in
	 * doorbell_region_leave(). A consumer that attach wakes reads hung_up.
	 */
	smp_mb();
	if (READ_ONCE(region->hung_up))
		cmpxchg(&status->state, DOORBELL_ATTACHED, DOORBELL_HANGUP);
}

/**
 * doorbell_region_detach() - mark a region as detached
 * @region: the region, which is attached
 */
void doorbell_region_detach(struct doorbell_region *region)
{
	WRITE_ONCE(region->attached, false);
	/* atomic, beside the cmpxchg() of a hang-up, which does nothing then */
	xchg(&region->buffer.status->state, DOORBELL_DETACHED);
}

/**
 * doorbell_region_replace() - mark a region as replaced by another one
 * @region: the region, which is detached
 * @generation: that of the other one
 * @drop: consumers must not use the region's events any more
 */
void doorbell_region_replace(struct doorbell_region *region, u32 generation,
			     bool drop)
{
	struct doorbell_status *status = region->buffer.status;

	if (drop)
		WRITE_ONCE(status->flags, DOORBELL_STATUS_DROPPED);
	/*
	 * After flags; and after the last ring unless @drop, as attach has
	 * waited for vCPUs and write(): pairs with the acquire in the consumer.
	 */
	smp_store_release(&status->generation, generation);
}

/**
 * doorbell_region_pending() - does a region have rings that no event counts?
 * @region: the region
 */
bool doorbell_region_pending(const struct doorbell_region *region)
{
	struct doorbell_counters counters;

	doorbell_buffer_count(&region->buffer, &counters);
	return counters.pending;
}

/**
 * doorbell_region_error() - why nothing rings the region
 * @region: the region
 *
 * Return: -ENOTCONN, -EPIPE, or 0 if it can be rung.
 */
int doorbell_region_error(const struct doorbell_region *region)
{
	if (!READ_ONCE(region->attached))
		return -ENOTCONN;
	return READ_ONCE(region->ending) ? -EPIPE : 0;
}

/**
 * doorbell_region_ring_bad() - enqueue a ring of no queue
 * @region: the region
 * @kind: doorbell_kind() of DOORBELL_EVENT_BAD_ADDRESS
 * @value: the bad address
 *
 * Context: as doorbell_region_ring().
 * Return: as doorbell_region_ring_unbound().
 */
int doorbell_region_ring_bad(struct doorbell_region *region, u16 kind,
			     u64 value)
{
	struct doorbell_buffer *buf = &region->buffer;
	enum doorbell_ring_result result;

	trace_ring(region->waiters->id, DOORBELL_QUEUE_NONE, kind, value);
	result = doorbell_buffer_ring(buf, doorbell_buffer_bad(buf), kind,
				      value);
	if (result == DOORBELL_RING_WAKE)
		trace_wake(region->waiters->id);
	return doorbell_region_enqueued(region, result, false);
}

/**
 * doorbell_region_ring_traced() - the rest of doorbell_region_ring(), traced
 * @region: the region
 * @flags: @region->flags
 * @offset: address written less the region's base, inside of the region
 * @value: value written
 * @kind: doorbell_kind() of DOORBELL_EVENT_QUEUE and the value's width
 * @bounces: a ring without room reaches the VMM: count it as bounced
 * @bound: the eventfd of the queue was signalled: only trace
 *
 * Context: as doorbell_region_ring().
 *
 * Return: as doorbell_region_ring_unbound().
 */
int doorbell_region_ring_traced(struct doorbell_region *region, u32 flags,
				u64 offset, u64 value, u16 kind, bool bounces,
				bool bound)
{
	long queue = doorbell_region_queue(region, flags, offset, value);
	u32 id = region->waiters->id;
	enum doorbell_ring_result result;

	if (queue < 0)
		kind |= DOORBELL_EVENT_BAD_QUEUE;
	trace_ring(id, queue, kind, value);
	if (bound)
		return 0;
	result = doorbell_region_enqueue(region, flags, offset, value, kind);
	if (result == DOORBELL_RING_WAKE)
		trace_wake(id);
	if (result == DOORBELL_RING_FULL && bounces)
		trace_bounce(id, queue, kind, value);
	return doorbell_region_enqueued(region, result, bounces);
}

/**
 * doorbell_region_wake() - wake the consumer for a ring
 * @region: the region, whose wake-up the caller has claimed
 *
 * Context: any but NMI.
 */
void doorbell_region_wake(struct doorbell_region *region)
{
	atomic64_inc(&region->wakeups);
	doorbell_waiters_wake(region->waiters);
}

/**
 * doorbell_region_enter() - begin to ring the region from user space
 * @region: the region
 *
 * Context: any but NMI. The caller rings, without sleeping, and calls
 * doorbell_region_leave().
 * Return: 0, -ENOTCONN or -EPIPE.
 */
int doorbell_region_enter(struct doorbell_region *region)
{
	/* so that writers that take turns do not keep it from hanging up */
	int ret = doorbell_region_error(region);

	if (!ret && !atomic_inc_not_zero(&region->ringers))
		ret = -EPIPE;
	return ret;
}

/**
 * doorbell_region_leave() - end what doorbell_region_enter() began
 * @region: the region, which hangs up if its guest rings it no more either
 *
 * Context: any but NMI.
 */
void doorbell_region_leave(struct doorbell_region *region)
{
	/* a full barrier, between rings and hung_up */
	if (!atomic_dec_and_test(&region->ringers))
		return;
	/*
	 * After the last ring: pairs with doorbell_region_hung_up(). Before
	 * state and attached: pairs with the barrier in
	 * doorbell_region_attach().
	 */
	xchg(&region->hung_up, true);
	trace_hangup(region->waiters->id);
	cmpxchg(&region->buffer.status->state, DOORBELL_ATTACHED,
		DOORBELL_HANGUP);
	wake_up_interruptible_all(&region->waiters->wait);
	if (READ_ONCE(region->attached))
		kill_fasync(&region->waiters->fasync, SIGIO, POLL_HUP);
}

/**
 * doorbell_region_hangup() - report that no guest rings the region any more
 * @region: the region; nothing happens if this is known already
 *
 * A write() that is about to ring the region reports it later, after its ring.
 *
 * Context: process context.
 */
void doorbell_region_hangup(struct doorbell_region *region)
{
	if (!xchg(&region->ending, true))
		doorbell_region_leave(region);
}

/**
 * doorbell_region_mmap() - map the region's memory
 * @region: the region
 * @vma: as mmap() of /dev/doorbell has it
 *
 * Maps a part of the control area, or a part of the read-only area. Each mapped
 * page is referenced, so that it outlives the region.
 *
 * Return: 0, -EINVAL, -EACCES or -ENOMEM.
 */
int doorbell_region_mmap(struct doorbell_region *region,
			 struct vm_area_struct *vma)
{
	const struct doorbell_buffer *buf = &region->buffer;
	u64 first = (u64)vma->vm_pgoff << PAGE_SHIFT;
	bool control = first < buf->control_size;
	u64 end = buf->control_size + (control ? 0 : buf->readonly_size);
	unsigned long size = vma->vm_end - vma->vm_start;
	void *mem = (void *)buf->control + first;
	unsigned long offset;
	int ret = 0;

	/* VM_SHARED is clear if the file was opened O_RDONLY */
	if (!(vma->vm_flags & VM_MAYSHARE) || first >= end ||
	    size > end - first)
		return -EINVAL;
	if (!control && vma->vm_flags & VM_WRITE)
		return -EACCES;

	/* a child of fork() that closes its descriptors keeps nothing */
	vm_flags_mod(vma, VM_DONTEXPAND | VM_DONTDUMP | VM_DONTCOPY,
		     control ? 0 : VM_MAYWRITE);
	for (offset = 0; offset < size && !ret; offset += PAGE_SIZE)
		ret = vm_insert_page(vma, vma->vm_start + offset,
				     vmalloc_to_page(mem + offset));
	return ret;
}

/* Bindings */

static void put_ctxs(struct eventfd_ctx **ctxs, u32 count)
{
	while (count--) {
		if (ctxs[count])
			eventfd_ctx_put(ctxs[count]);
		cond_resched();
	}
}

/* Reference the eventfds of descriptors: all or none. NULL stands for -1. */
static int get_ctxs(struct eventfd_ctx **ctxs, u32 count,
		    const s32 __user *fds)
{
	u32 i;
	s32 fd;
	int ret;

	for (i = 0; i < count; i++) {
		ctxs[i] = NULL;
		ret = get_user(fd, &fds[i]);
		if (!ret && fd != -1) {
			ctxs[i] = eventfd_ctx_fdget(fd);
			ret = PTR_ERR_OR_ZERO(ctxs[i]);
		}
		if (ret) {
			put_ctxs(ctxs, i);
			return ret;
		}
		cond_resched();
	}
	return 0;
}

/**
 * doorbell_region_bind() - bind queues to eventfds, or unbind them
 * @region: the region
 * @first: number of the first queue
 * @count: how many queues, at least 1
 * @fds: as many descriptors of eventfds; -1 unbinds a queue
 *
 * When this returns 0, the eventfds that the queues were bound to before are
 * signalled no more, and a ring that begins later signals the new ones.
 *
 * Context: may sleep, until an RCU grace period is over; charges the caller's
 * memory cgroup.
 * Return: 0; or -EINVAL (no such queues, or not an eventfd), -EFAULT, -EBADF,
 * -ENOMEM, or -EINTR for a caller that was killed, and nothing has changed.
 */
int doorbell_region_bind(struct doorbell_region *region, u32 first, u32 count,
			 const s32 __user *fds)
{
	struct eventfd_ctx *one, **ctxs = &one;
	bool replaced = false;
	u32 i;
	int ret;

	if (first >= region->geo.queues || !count ||
	    count > region->geo.queues - first)
		return -EINVAL;
	/* unbinding one queue needs no memory, so that it cannot fail */
	if (count > 1)
		ctxs = kvmalloc_array(count, sizeof(*ctxs), GFP_BINDINGS);
	if (!ctxs)
		return -ENOMEM;
	ret = get_ctxs(ctxs, count, fds);
	if (ret)
		goto out;
	ret = mutex_lock_killable(&region->bind_lock);
	if (ret)
		goto out_put;
	if (!region->bindings) {
		struct doorbell_binding *new;

		new = bindings_create(region->geo.queues);
		if (!new) {
			ret = -ENOMEM;
			goto out_unlock;
		}
		/* pairs with the dependent reads of each binding */
		smp_store_release(&region->bindings, new);
		WRITE_ONCE(region->unbound_len, 0);
	}

	for (i = 0; i < count; i++) {
		struct doorbell_binding *binding = &region->bindings[first + i];

		/* pairs with the dereference in doorbell_region_signal() */
		ctxs[i] = unrcu_pointer(xchg(&binding->ctx,
					     RCU_INITIALIZER(ctxs[i])));
		if (ctxs[i])
			replaced = true;
	}
	/*
	 * Rings that are under way may still signal what was replaced. Another
	 * thread that binds the same queues waits for them, too. A VMM unbinds
	 * queue after queue with all its threads waiting: expedite it.
	 */
	if (replaced)
		synchronize_rcu_expedited();
	trace_bind(region->waiters->id, first, count);
out_unlock:
	mutex_unlock(&region->bind_lock);
out_put:
	put_ctxs(ctxs, count);
out:
	if (ctxs != &one)
		kvfree(ctxs);
	return ret;
}

/**
 * doorbell_region_bindings() - copy the state of bindings to user space
 * @region: the region
 * @first: number of the first queue
 * @count: how many queues, at least 1
 * @bindings: filled
 *
 * Context: may sleep.
 * Return: 0, -EINVAL (no such queues) or -EFAULT.
 */
int doorbell_region_bindings(const struct doorbell_region *region, u32 first,
			     u32 count,
			     struct doorbell_queue_binding __user *bindings)
{
	/* pairs with smp_store_release() in doorbell_region_bind() */
	const struct doorbell_binding *from = READ_ONCE(region->bindings);
	struct doorbell_queue_binding to = {};
	u32 i;

	if (first >= region->geo.queues || !count ||
	    count > region->geo.queues - first)
		return -EINVAL;
	for (i = 0; i < count; i++) {
		if (from) {
			to.rings = atomic64_read(&from[first + i].rings);
			to.bound = !!rcu_access_pointer(from[first + i].ctx);
		}
		if (copy_to_user(&bindings[i], &to, sizeof(to)))
			return -EFAULT;
		cond_resched();
	}
	return 0;
}

/**
 * doorbell_region_bound_rings() - how many rings signalled eventfds
 * @region: the region
 */
u64 doorbell_region_bound_rings(const struct doorbell_region *region)
{
	/* pairs with smp_store_release() in doorbell_region_bind() */
	const struct doorbell_binding *bindings = READ_ONCE(region->bindings);
	u64 rings = 0;
	u32 i;

	for (i = 0; bindings && i < region->geo.queues; i++)
		rings += atomic64_read(&bindings[i].rings);
	return rings;
}

/* The module */

/**
 * doorbell_region_init() - prepare for regions
 *
 * Return: 0 or -ENOMEM.
 */
int doorbell_region_init(void)
{
	free_wq = alloc_workqueue("doorbell_free", WQ_UNBOUND, 0);
	return free_wq ? 0 : -ENOMEM;
}

/**
 * doorbell_region_exit() - wait until all regions are freed
 *
 * Context: may sleep; the last reference to each region was dropped, or is
 * dropped after an RCU grace period.
 */
void doorbell_region_exit(void)
{
	/* doorbell_region_put_rcu() */
	rcu_barrier();
	destroy_workqueue(free_wq);
}
