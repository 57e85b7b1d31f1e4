// SPDX-License-Identifier: GPL-2.0
/*
 * Region: creates and frees regions, wakes their consumer, hangs up, and maps
 * their memory. region.h has the path of a ring.
 */
#include <linux/err.h>
#include <linux/fs.h>
#include <linux/mm.h>
#include <linux/poll.h>
#include <linux/slab.h>
#include <linux/vmalloc.h>

#include <linux/doorbell.h>

#include "compat.h"
#include "region.h"

#define ATTACH_FLAGS	(DOORBELL_ATTACH_PIO | DOORBELL_ATTACH_ORDERED | \
			 DOORBELL_ATTACH_BY_VALUE | DOORBELL_ATTACH_NO_VALUE)

/**
 * doorbell_waiters_create() - create an empty list of waiters
 *
 * Return: the waiters, with one reference, or NULL.
 */
struct doorbell_waiters *doorbell_waiters_create(void)
{
	struct doorbell_waiters *waiters;

	waiters = kzalloc(sizeof(*waiters), GFP_KERNEL_ACCOUNT);
	if (!waiters)
		return NULL;
	init_waitqueue_head(&waiters->wait);
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
	return ordered == !!arg->depth && arg->depth <= DOORBELL_DEPTH_MAX &&
	       by_value == !!arg->queues;
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
	if (!ret)
		ret = doorbell_buffer_init(&region->buffer, region->geo.queues,
					   arg->depth);
	if (ret) {
		kfree(region);
		return ERR_PTR(ret);
	}
	region->flags = arg->flags;
	region->waiters = waiters;
	kref_get(&waiters->ref);
	kref_init(&region->ref);
	return region;
}

static void region_free(struct kref *ref)
{
	struct doorbell_region *region =
		container_of(ref, struct doorbell_region, ref);

	doorbell_buffer_destroy(&region->buffer);
	doorbell_waiters_put(region->waiters);
	kfree(region);
}

/**
 * doorbell_region_put() - drop a reference to a region
 * @region: the region, freed if this was the last one
 *
 * Context: any but NMI.
 */
void doorbell_region_put(struct doorbell_region *region)
{
	kref_put(&region->ref, region_free);
}

static void region_put_rcu(struct rcu_head *rcu)
{
	doorbell_region_put(container_of(rcu, struct doorbell_region, rcu));
}

/**
 * doorbell_region_put_rcu() - drop a reference after an RCU grace period
 * @region: the region, which its consumer has replaced
 *
 * Context: any but NMI. Module exit has to call rcu_barrier().
 */
void doorbell_region_put_rcu(struct doorbell_region *region)
{
	call_rcu(&region->rcu, region_put_rcu);
}

/**
 * doorbell_region_error() - why user space cannot ring the region
 * @region: the region
 *
 * Return: -ENOTCONN, -EPIPE, or 0 if it can.
 */
int doorbell_region_error(const struct doorbell_region *region)
{
	if (!READ_ONCE(region->attached))
		return -ENOTCONN;
	return doorbell_region_hung_up(region) ? -EPIPE : 0;
}

/**
 * doorbell_region_ring_bad() - enqueue a ring of no queue
 * @region: the region
 * @kind: doorbell_kind() of DOORBELL_EVENT_BAD_ADDRESS or
 *	DOORBELL_EVENT_BAD_QUEUE
 * @value: the bad address, or the value written
 *
 * Context: as doorbell_region_ring().
 * Return: false if an ordered region has no room.
 */
bool doorbell_region_ring_bad(struct doorbell_region *region, u16 kind,
			      u64 value)
{
	struct doorbell_buffer *buf = &region->buffer;

	switch (doorbell_buffer_ring(buf, doorbell_buffer_bad(buf), kind,
				     value)) {
	case DOORBELL_RING_WAKE:
		doorbell_region_wake(region);
		break;
	case DOORBELL_RING_FULL:
		return false;
	case DOORBELL_RING_OK:
		break;
	}
	return true;
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
 * doorbell_region_hangup() - report that no guest rings the region any more
 * @region: the region; nothing happens if it has hung up already
 *
 * Context: process context.
 */
void doorbell_region_hangup(struct doorbell_region *region)
{
	/*
	 * After the last ring: pairs with doorbell_region_hung_up(). Before
	 * attached: pairs with the barrier in attach_commit().
	 */
	if (xchg(&region->hung_up, true))
		return;
	wake_up_interruptible_all(&region->waiters->wait);
	if (READ_ONCE(region->attached))
		kill_fasync(&region->waiters->fasync, SIGIO, POLL_HUP);
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
