// SPDX-License-Identifier: GPL-2.0
/*
 * Chardev: /dev/doorbell, what user space sees of the module.
 *
 * Each open file is a consumer, and owns at most one region. Locks, outermost
 * first: attach_lock, read_lock. Ringing and poll() take neither.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/compat.h>
#include <linux/fs.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/poll.h>
#include <linux/sched/signal.h>
#include <linux/seq_file.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/uio.h>
#include <linux/vmalloc.h>
#include <linux/wait.h>

#include <linux/doorbell.h>

#include "compat.h"
#include "kvm.h"
#include "region.h"

/* Events moved at a time, between queue and reader. */
#define BATCH		64
/* Most events in one read(), so that a busy guest cannot keep it from ending. */
#define READ_MAX	65536
/* Rings copied at a time from a writer. */
#define WRITE_BATCH	16

#define ATTACH_SIZE_MIN	offsetofend(struct doorbell_attach, queues)
#define INFO_SIZE_MIN	offsetofend(struct doorbell_info, state)
#define INFO_SIZE_MAP	offsetofend(struct doorbell_info, nr_entries)

#define ATTACH_FLAGS	(DOORBELL_ATTACH_PIO | DOORBELL_ATTACH_ORDERED | \
			 DOORBELL_ATTACH_BY_VALUE | DOORBELL_ATTACH_NO_VALUE)

/**
 * struct doorbell - a consumer
 * @attach_lock: serializes attach, detach and info
 * @region: the region attached, or attached last; replaced under both locks, used
 *	under either, under RCU, or with a reference
 * @read_lock: serializes readers, also with attach
 * @events: on their way to the reader; under @read_lock
 * @wait: everyone who waits for events
 * @fasync: everyone who wants SIGIO
 */
struct doorbell {
	struct mutex attach_lock;	/* region */
	struct doorbell_region __rcu *region;
	struct mutex read_lock;		/* the consumer's end of the queue */
	struct doorbell_event events[BATCH];
	wait_queue_head_t wait;
	struct fasync_struct *fasync;
};

/* Region references */

static void region_free(struct kref *ref)
{
	struct doorbell_region *region = container_of(ref, typeof(*region), ref);

	doorbell_buffer_destroy(&region->buffer);
	kfree(region);
}

static void region_put(struct doorbell_region *region)
{
	kref_put(&region->ref, region_free);
}

/* The current region, referenced, or NULL if there never was one. */
static struct doorbell_region *region_get(struct doorbell *db)
{
	struct doorbell_region *region;

	rcu_read_lock();
	region = rcu_dereference(db->region);
	if (region)
		kref_get(&region->ref);
	rcu_read_unlock();
	return region;
}

/* The current region for those who hold one of the locks. */
static struct doorbell_region *region_locked(struct doorbell *db)
{
	return rcu_dereference_protected(db->region,
					 lockdep_is_held(&db->attach_lock) ||
					 lockdep_is_held(&db->read_lock));
}

/* Ringing, and waking who waits */

static void wake(struct doorbell *db)
{
	unsigned long flags;

	/*
	 * What wake_up_poll() and kill_fasync() do, with fewer calls. fasync is
	 * read after the xchg() of armed, which pairs with doorbell_fasync().
	 */
	spin_lock_irqsave(&db->wait.lock, flags);
	wake_up_locked_poll(&db->wait, EPOLLIN | EPOLLRDNORM);
	spin_unlock_irqrestore(&db->wait.lock, flags);
	if (READ_ONCE(db->fasync))
		kill_fasync(&db->fasync, SIGIO, POLL_IN);
}

/**
 * doorbell_region_wake() - wake whoever waits, for a ring
 * @region: the region that was rung
 */
void doorbell_region_wake(struct doorbell_region *region)
{
	atomic64_inc(&region->wakeups);
	wake(region->db);
}

/* Ring what @addr and @value name; false if there is no room. */
static bool ring(struct doorbell_region *region, u64 addr, u64 value, u8 width)
{
	u8 type = DOORBELL_EVENT_QUEUE;
	int queue = -1;

	if (!doorbell_geometry_contains(&region->geo, addr)) {
		type = DOORBELL_EVENT_BAD_ADDRESS;
		value = addr;
	} else {
		queue = doorbell_geometry_queue(&region->geo, addr, value);
		if (queue < 0)
			type = DOORBELL_EVENT_BAD_QUEUE;
	}
	if (queue < 0)
		queue = doorbell_buffer_bad(&region->buffer);

	switch (doorbell_buffer_ring(&region->buffer, queue,
				    doorbell_kind(type, width), value)) {
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
 * doorbell_region_ring() - a guest writes into the region
 * @region: the region
 * @addr: address that was written
 * @value: value that was written
 * @width: its size in bytes, or 0
 *
 * Context: process context; allocates nothing, and takes no lock but that of
 * the wait queue when the consumer is armed.
 * Return: true, or false if the VMM has to see the write: @addr is outside of
 * the region, or there is no room.
 */
bool doorbell_region_ring(struct doorbell_region *region, u64 addr, u64 value,
			  u8 width)
{
	return doorbell_geometry_contains(&region->geo, addr) &&
	       ring(region, addr, value, width);
}

/**
 * doorbell_region_hangup() - say that the VM's process is gone
 * @region: the region, which the VM does not ring any more
 */
void doorbell_region_hangup(struct doorbell_region *region)
{
	struct doorbell *db = region->db;

	/* pairs with the acquire in region_hung_up(): after the last ring */
	smp_store_release(&region->hung_up, true);
	wake_up_interruptible_all(&db->wait);
	kill_fasync(&db->fasync, SIGIO, POLL_HUP);
}

static bool region_hung_up(struct doorbell_region *region)
{
	/* pairs with the release in doorbell_region_hangup() */
	return smp_load_acquire(&region->hung_up);
}

/* Reading */

/*
 * The state that decides whether to wait, as poll() flags; arms the wake-up
 * first, so whoever is on the wait queue and then finds nothing may sleep.
 */
static __poll_t arm_and_poll(struct doorbell *db)
{
	struct doorbell_region *region;
	__poll_t state = 0;

	rcu_read_lock();
	region = rcu_dereference(db->region);
	if (!region)
		goto out;

	/* before the last look: what was rung before the end is found */
	if (READ_ONCE(region->attached))
		state = region_hung_up(region) ? EPOLLHUP :
			doorbell_buffer_writable(&region->buffer) ?
			EPOLLOUT | EPOLLWRNORM : 0;

	if (doorbell_buffer_arm(&region->buffer))
		state |= EPOLLIN | EPOLLRDNORM;
out:
	rcu_read_unlock();
	return state;
}

static size_t copy_events(const struct doorbell_event *events, size_t n,
			  struct iov_iter *to)
{
	/* a size that is constant is nothing that usercopy has to check */
	return n == 1 ? copy_to_iter(events, sizeof(*events), to) :
			copy_to_iter(events, n * sizeof(*events), to);
}

/* Read what there is: 0 if nothing, and *@end if nothing can come any more. */
static ssize_t read_events(struct doorbell *db, struct iov_iter *to, bool *end)
{
	struct doorbell_region *region = region_locked(db);
	bool armed = false, wake_others = false;
	struct doorbell_event *events = db->events;
	ssize_t done = 0, ret = 0;
	size_t n, room;

	*end = false;
	if (!region)
		return 0;

	/* before the last look: what was rung before the end is found */
	*end = READ_ONCE(region->attached) && region_hung_up(region);
	while ((room = min(iov_iter_count(to) / sizeof(*events), BATCH))) {
		n = doorbell_buffer_peek(&region->buffer, events, room,
					&wake_others);
		if (n) {
			size_t copied = copy_events(events, n, to);

			/* whole events, and those that the reader got */
			if (copied != n * sizeof(*events)) {
				n = copied / sizeof(*events);
				iov_iter_truncate(to, 0);
				ret = -EFAULT;
			}
			done += n * sizeof(*events);
			if (n && doorbell_buffer_consume(&region->buffer, events, n))
				wake_others = true;
		} else if (armed) {
			break;
		}
		if (n == room)
			continue;
		/* edge-triggered waiters do not call poll() again */
		armed = true;
		if (!doorbell_buffer_arm(&region->buffer))
			break;
	}
	if (!armed)
		doorbell_buffer_arm(&region->buffer);
	if (wake_others)
		wake(db);
	if (done && region->flags & DOORBELL_ATTACH_ORDERED)
		wake_up_interruptible_poll(&db->wait, EPOLLOUT | EPOLLWRNORM);

	return done ?: ret;
}

static int wait_for_event(struct doorbell *db)
{
	/* without looking first: that is what was done just now */
	return __wait_event_interruptible(db->wait, arm_and_poll(db) &
					  (EPOLLIN | EPOLLHUP));
}

static ssize_t read_or_wait(struct doorbell *db, struct iov_iter *to,
			    bool nonblock, bool nowait)
{
	ssize_t ret;
	bool end;

	if (iov_iter_count(to) < sizeof(struct doorbell_event))
		return -EINVAL;
	iov_iter_truncate(to, READ_MAX * sizeof(struct doorbell_event));

	for (;;) {
		if (!mutex_trylock(&db->read_lock)) {
			if (nowait)
				return -EAGAIN;
			if (mutex_lock_interruptible(&db->read_lock))
				return -ERESTARTSYS;
		}
		ret = read_events(db, to, &end);
		mutex_unlock(&db->read_lock);

		if (ret || end)
			return ret;
		if (nonblock || nowait)
			return -EAGAIN;
		ret = wait_for_event(db);
		if (ret)
			return ret;
	}
}

static ssize_t doorbell_read_iter(struct kiocb *iocb, struct iov_iter *to)
{
	struct file *file = iocb->ki_filp;

	return read_or_wait(file->private_data, to, file->f_flags & O_NONBLOCK,
			    iocb->ki_flags & IOCB_NOWAIT);
}

/* read() itself, without the detour of an iocb, as /dev/zero has it */
static ssize_t doorbell_read(struct file *file, char __user *buf, size_t size,
			     loff_t *pos)
{
	struct iov_iter to;

	iov_iter_ubuf(&to, ITER_DEST, buf, size);
	return read_or_wait(file->private_data, &to,
			    file->f_flags & O_NONBLOCK, false);
}

/* Ringing from user space */

/* Why the region cannot be rung, or 0. */
static int region_error(struct doorbell_region *region)
{
	if (!READ_ONCE(region->attached))
		return -ENOTCONN;
	return region_hung_up(region) ? -EPIPE : 0;
}

static bool ring_may_succeed(struct doorbell_region *region)
{
	return doorbell_buffer_writable(&region->buffer) || region_error(region);
}

static int wait_for_room(struct doorbell_region *region)
{
	wait_queue_head_t *wait = &region->db->wait;
	int ret;

	/* nobody tells when a consumer moves head in mapped memory: look */
	do {
		ret = wait_event_interruptible_timeout(*wait,
						       ring_may_succeed(region),
						       1);
	} while (!ret);
	return min(ret, 0);
}

static ssize_t doorbell_write_iter(struct kiocb *iocb, struct iov_iter *from)
{
	struct doorbell *db = iocb->ki_filp->private_data;
	bool nowait = iocb->ki_flags & IOCB_NOWAIT ||
		      iocb->ki_filp->f_flags & O_NONBLOCK;
	struct doorbell_ring rings[WRITE_BATCH];
	struct doorbell_region *region;
	unsigned int have = 0, next = 0;
	ssize_t done = 0;
	int ret = 0;

	if (!iov_iter_count(from) || iov_iter_count(from) % sizeof(*rings))
		return -EINVAL;
	region = region_get(db);
	if (!region)
		return -ENOTCONN;

	while (next < have || iov_iter_count(from)) {
		ret = region_error(region);
		if (ret)
			break;
		if (next == have) {
			size_t size = min(sizeof(rings), iov_iter_count(from));

			cond_resched();
			if (done && signal_pending(current))
				break;
			if (copy_from_iter(rings, size, from) != size) {
				ret = -EFAULT;
				break;
			}
			have = size / sizeof(*rings);
			next = 0;
		}
		if (region->flags & DOORBELL_ATTACH_NO_VALUE)
			rings[next].value = 0;
		if (ring(region, rings[next].addr, rings[next].value, 0)) {
			next++;
			done += sizeof(*rings);
			continue;
		}
		/* a short count rather than a wait in the middle */
		ret = done || nowait ? -EAGAIN : wait_for_room(region);
		if (ret)
			break;
	}

	region_put(region);
	return done ?: ret;
}

static __poll_t doorbell_poll(struct file *file, poll_table *wait)
{
	struct doorbell *db = file->private_data;

	poll_wait(file, &db->wait, wait);
	return arm_and_poll(db);
}

static int doorbell_fasync(int fd, struct file *file, int on)
{
	struct doorbell *db = file->private_data;
	int ret = fasync_helper(fd, file, on, &db->fasync);

	smp_wmb(); /* fasync before armed, pairs with doorbell_claim_wakeup(), wake() */
	/* who only waits for SIGIO never calls poll() */
	arm_and_poll(db);
	return ret;
}

/* Mapping */

static int doorbell_mmap(struct file *file, struct vm_area_struct *vma)
{
	struct doorbell *db = file->private_data;
	unsigned long size = vma->vm_end - vma->vm_start;
	u64 first = (u64)vma->vm_pgoff << PAGE_SHIFT;
	struct doorbell_region *region;
	struct doorbell_buffer *buf;
	unsigned long offset;
	u64 end;
	int ret = 0;

	region = region_get(db);
	if (!region)
		return -ENOTCONN;
	buf = &region->buffer;
	end = first < buf->control_size ? buf->control_size :
					buf->control_size + buf->readonly_size;

	if (!(vma->vm_flags & VM_SHARED) || first >= end || size > end - first)
		ret = -EINVAL;
	else if (first >= buf->control_size && vma->vm_flags & VM_WRITE)
		ret = -EACCES;
	if (ret)
		goto out;

	vm_flags_mod(vma, VM_DONTEXPAND | VM_DONTDUMP,
		     first < buf->control_size ? 0 : VM_MAYWRITE);
	/* each page mapped is referenced: it outlives the region */
	for (offset = 0; offset < size && !ret; offset += PAGE_SIZE)
		ret = vm_insert_page(vma, vma->vm_start + offset,
				     vmalloc_to_page((void *)buf->control + first + offset));
out:
	region_put(region);
	return ret;
}

/* Attaching */

/* Do the flags, and what goes with them, go together? */
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

static int doorbell_attach(struct doorbell *db,
			   const struct doorbell_attach __user *uarg)
{
	struct doorbell_region *region, *old;
	struct doorbell_attach arg;
	u32 size;
	int ret;

	if (get_user(size, &uarg->size))
		return -EFAULT;
	if (size > PAGE_SIZE)
		return -E2BIG;
	if (size < ATTACH_SIZE_MIN)
		return -EINVAL;
	ret = copy_struct_from_user(&arg, sizeof(arg), uarg, size);
	if (ret)
		return ret;
	if (!attach_valid(&arg))
		return -EINVAL;
	if (arg.vm_fd < -1)
		return -EBADF;

	region = kzalloc(sizeof(*region), GFP_KERNEL_ACCOUNT);
	if (!region)
		return -ENOMEM;
	region->db = db;
	region->flags = arg.flags;
	region->attached = true;
	kref_init(&region->ref);

	ret = doorbell_geometry_init(&region->geo, arg.base, arg.len,
				     arg.stride, arg.queues,
				     arg.flags & DOORBELL_ATTACH_PIO);
	if (ret)
		goto err_free;
	ret = doorbell_buffer_init(&region->buffer, region->geo.queues,
				  arg.depth);
	if (ret)
		goto err_free;

	mutex_lock(&db->attach_lock);
	old = region_locked(db);
	if (old && old->attached) {
		ret = -EBUSY;
		goto err_unlock_attach;
	}
	/* a reader may take its time, in a page fault */
	if (mutex_lock_interruptible(&db->read_lock)) {
		ret = -ERESTARTNOINTR;
		goto err_unlock_attach;
	}
	if (arg.vm_fd >= 0) {
		region->vm = doorbell_vm_attach(region, arg.vm_fd);
		if (IS_ERR(region->vm)) {
			ret = PTR_ERR(region->vm);
			goto err_unlock_read;
		}
	}

	rcu_assign_pointer(db->region, region);
	mutex_unlock(&db->read_lock);
	/* whoever waited already, to read or to write, has to look at this one */
	wake_up_interruptible_all(&db->wait);
	kill_fasync(&db->fasync, SIGIO, POLL_IN);
	mutex_unlock(&db->attach_lock);

	if (old) {
		/* for poll() and region_get(); expedited as KVM's buses are */
		synchronize_rcu_expedited();
		region_put(old);
	}
	return 0;

err_unlock_read:
	mutex_unlock(&db->read_lock);
err_unlock_attach:
	mutex_unlock(&db->attach_lock);
	doorbell_buffer_destroy(&region->buffer);
err_free:
	kfree(region);
	return ret;
}

static int doorbell_detach(struct doorbell *db)
{
	struct doorbell_region *region;
	int ret = 0;

	mutex_lock(&db->attach_lock);
	region = region_locked(db);
	if (region && region->attached) {
		WRITE_ONCE(region->attached, false);
		if (region->vm)
			doorbell_vm_detach(region->vm);
		region->vm = NULL;
	} else {
		ret = -ENOTCONN;
	}
	mutex_unlock(&db->attach_lock);
	return ret;
}

/* Asking */

/* Counters only if they are wanted: there may be many to add up. */
static void fill_info(struct doorbell *db, struct doorbell_info *info,
		      bool counters_too)
{
	struct doorbell_region *region;
	struct doorbell_counters counters;

	*info = (struct doorbell_info) { .size = sizeof(*info) };

	mutex_lock(&db->attach_lock);
	region = region_locked(db);
	if (region) {
		if (region->attached)
			info->state = region_hung_up(region) ? DOORBELL_HANGUP :
							    DOORBELL_ATTACHED;
		info->base = region->geo.base;
		info->len = region->geo.len;
		info->stride = 1U << region->geo.shift;
		info->flags = region->flags;
		info->depth = region->buffer.depth;
		info->queues = region->geo.queues;
		info->control_size = region->buffer.control_size;
		info->readonly_size = region->buffer.readonly_size;
		info->entries_offset = doorbell_buffer_entries_offset(&region->buffer);
		info->nr_entries = 1U << region->buffer.order;
	}
	if (region && counters_too) {
		doorbell_buffer_count(&region->buffer, &counters);
		info->rings = counters.rings;
		info->bad_rings = counters.bad_rings;
		info->pending = counters.pending;
		info->wakeups = atomic64_read(&region->wakeups);
		info->bounced = atomic64_read(&region->bounced);
	}
	mutex_unlock(&db->attach_lock);
}

static int doorbell_info(struct doorbell *db,
			 struct doorbell_info __user *uarg)
{
	struct doorbell_info info;
	u32 size;

	if (get_user(size, &uarg->size))
		return -EFAULT;
	if (size > PAGE_SIZE)
		return -E2BIG;
	if (size < INFO_SIZE_MIN)
		return -EINVAL;

	fill_info(db, &info, size > INFO_SIZE_MAP);
	if (copy_to_user(uarg, &info, min_t(size_t, size, sizeof(info))))
		return -EFAULT;
	if (size > sizeof(info) &&
	    clear_user((void __user *)uarg + sizeof(info), size - sizeof(info)))
		return -EFAULT;
	return 0;
}

static void doorbell_show_fdinfo(struct seq_file *m, struct file *file)
{
	static const char * const states[] = {
		[DOORBELL_DETACHED] = "detached",
		[DOORBELL_ATTACHED] = "attached",
		[DOORBELL_HANGUP] = "hangup",
	};
	struct doorbell_info info;

	fill_info(file->private_data, &info, true);
	seq_printf(m, "doorbell-state:\t%s\n", states[info.state]);
	if (!info.queues)
		return;
	seq_printf(m, "doorbell-bus:\t%s\n",
		   info.flags & DOORBELL_ATTACH_PIO ? "pio" : "mmio");
	seq_printf(m, "doorbell-base:\t%#llx\n", info.base);
	seq_printf(m, "doorbell-len:\t%#llx\n", info.len);
	seq_printf(m, "doorbell-flags:\t%#x\n", info.flags);
	seq_printf(m, "doorbell-depth:\t%u\n", info.depth);
	seq_printf(m, "doorbell-stride:\t%u\n", info.stride);
	seq_printf(m, "doorbell-queues:\t%u\n", info.queues);
	seq_printf(m, "doorbell-rings:\t%llu\n", info.rings);
	seq_printf(m, "doorbell-bad-rings:\t%llu\n", info.bad_rings);
	seq_printf(m, "doorbell-pending:\t%llu\n", info.pending);
	seq_printf(m, "doorbell-wakeups:\t%llu\n", info.wakeups);
	seq_printf(m, "doorbell-bounced:\t%llu\n", info.bounced);
}

static long doorbell_ioctl(struct file *file, unsigned int cmd,
			   unsigned long arg)
{
	struct doorbell *db = file->private_data;

	switch (cmd) {
	case DOORBELL_ATTACH:
		return doorbell_attach(db, (void __user *)arg);
	case DOORBELL_DETACH:
		return arg ? -EINVAL : doorbell_detach(db);
	case DOORBELL_INFO:
		return doorbell_info(db, (void __user *)arg);
	default:
		return -ENOTTY;
	}
}

/* Opening and closing */

static int doorbell_open(struct inode *inode, struct file *file)
{
	struct doorbell *db = kzalloc(sizeof(*db), GFP_KERNEL_ACCOUNT);

	if (!db)
		return -ENOMEM;
	mutex_init(&db->attach_lock);
	mutex_init(&db->read_lock);
	init_waitqueue_head(&db->wait);

	file->private_data = db;
	file->f_mode |= FMODE_NOWAIT;
	return stream_open(inode, file);
}

static int doorbell_release(struct inode *inode, struct file *file)
{
	struct doorbell *db = file->private_data;
	struct doorbell_region *region = rcu_dereference_protected(db->region, 1);

	if (region) {
		if (region->vm)
			doorbell_vm_detach(region->vm);
		region_put(region);
	}
	kfree(db);
	return 0;
}

static const struct file_operations doorbell_fops = {
	.owner = THIS_MODULE,
	.open = doorbell_open,
	.release = doorbell_release,
	.read = doorbell_read,
	.read_iter = doorbell_read_iter,
	.write_iter = doorbell_write_iter,
	.poll = doorbell_poll,
	.mmap = doorbell_mmap,
	.fasync = doorbell_fasync,
	.unlocked_ioctl = doorbell_ioctl,
	.compat_ioctl = compat_ptr_ioctl,
	.show_fdinfo = doorbell_show_fdinfo,
};

static struct miscdevice doorbell_misc = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "doorbell",
	.fops = &doorbell_fops,
	.mode = 0660,
};

module_misc_device(doorbell_misc);

MODULE_DESCRIPTION("Doorbells of KVM guests as events for user space");
MODULE_LICENSE("GPL");
