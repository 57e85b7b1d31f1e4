// SPDX-License-Identifier: GPL-2.0
/*
 * Chardev: /dev/doorbell, what user space sees of the module.
 *
 * Each open file is a consumer and has at most one region. Locks, outermost
 * first: attach_lock, which is never held across a wait for a VMM; read_lock.
 * Ringing, poll(), mmap() and information take neither: RCU and a reference
 * keep the region.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/compat.h>
#include <linux/fs.h>
#include <linux/minmax.h>
#include <linux/miscdevice.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/mutex.h>
#include <linux/pid.h>
#include <linux/poll.h>
#include <linux/proc_fs.h>
#include <linux/sched/signal.h>
#include <linux/seq_file.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/uio.h>
#include <linux/wait.h>

#include <linux/doorbell.h>

#include "kvm.h"
#include "region.h"
#include "trace.h"

/* Events moved at a time, from the buffer to the reader. */
#define BATCH		64
/* Most events in one read(): a busy guest cannot keep it from ending. */
#define READ_MAX	65536
/* Rings copied at a time from a writer. */
#define WRITE_BATCH	16

#define ATTACH_SIZE_MIN	offsetofend(struct doorbell_attach, queues)
#define MOVE_SIZE_MIN	offsetofend(struct doorbell_move, base)
#define BIND_SIZE_MIN	offsetofend(struct doorbell_bind, fds)
#define BINDINGS_SIZE_MIN offsetofend(struct doorbell_bindings, bindings)
#define INFO_SIZE_MIN	offsetofend(struct doorbell_info, state)
#define INFO_SIZE_MAP	offsetofend(struct doorbell_info, generation)

static_assert(sizeof(struct doorbell_event) == 16);
static_assert(sizeof(struct doorbell_ring) == 16);
static_assert(sizeof(struct doorbell_attach) == 40);
static_assert(sizeof(struct doorbell_info) == 112);
static_assert(sizeof(struct doorbell_move) == 16);
static_assert(sizeof(struct doorbell_bind) == 24);
static_assert(sizeof(struct doorbell_bindings) == 24);
static_assert(sizeof(struct doorbell_queue_binding) == 16);
static_assert(ATTACH_SIZE_MIN == 40 && INFO_SIZE_MIN == 8);

/**
 * struct doorbell - a consumer
 * @attach_lock: protects the ten fields below, for a moment only
 * @region: the region attached, or attached last, referenced; replaced under
 *	@attach_lock, read under RCU
 * @base: first address of @region; written before @region, under
 *	@attach_lock, read after it; changes when the region moves
 * @placement: @region on the buses of a VM, or NULL; under @attach_lock
 * @moving: takes the place of @placement, or NULL; under @attach_lock
 * @moving_to: the base of @moving; under @attach_lock
 * @leaving: was detached; the next attach waits until it has left its buses,
 *	unless it drops the events; NULL after that; under @attach_lock
 * @attaching: an attach is under way; under @attach_lock
 * @generation: that of @region; under @attach_lock
 * @detached: RCU grace period that the next attach waits for; under
 *	@attach_lock
 * @detaches: number of detaches; under @attach_lock
 * @read_lock: serializes readers; see reader_lock() and reader_unlock()
 * @turned_away: a reader did not wait for @read_lock; cleared when it is woken
 * @reading: the region that was read last, referenced; under @read_lock
 * @events: on their way to the reader; under @read_lock
 * @waiters: what waits for events, referenced; constant
 */
struct doorbell {
	struct mutex attach_lock;	/* the ten fields below */
	struct doorbell_region __rcu *region;
	u64 base;
	struct doorbell_placement *placement;
	struct doorbell_placement *moving;
	u64 moving_to;
	struct doorbell_placement *leaving;
	bool attaching;
	u32 generation;
	unsigned long detached;
	u32 detaches;
	struct mutex read_lock;		/* reading, events */
	bool turned_away;
	struct doorbell_region *reading;
	struct doorbell_event events[BATCH];
	struct doorbell_waiters *waiters;
};

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

/*
 * The same with its base. Should another region have been attached since then,
 * the base may be that one's, and this one is seen to be detached.
 */
static struct doorbell_region *region_get_base(struct doorbell *db, u64 *base)
{
	struct doorbell_region *region = region_get(db);

	/* region before base, pairs with rcu_assign_pointer() in attach */
	smp_rmb();
	/* base before attached, pairs with smp_store_release() in attach */
	*base = smp_load_acquire(&db->base);
	return region;
}

/*
 * The current region for a reader, or NULL. It stays referenced until another
 * one takes its place, so that a read() need not take and drop a reference.
 */
static struct doorbell_region *region_to_read(struct doorbell *db)
{
	lockdep_assert_held(&db->read_lock);
	if (rcu_access_pointer(db->region) != db->reading) {
		if (db->reading)
			doorbell_region_put(db->reading);
		db->reading = region_get(db);
	}
	return db->reading;
}

/* Reading */

/*
 * Arm the wake-up, and return the state that decides whether to wait, as poll()
 * flags. A caller that is on the wait queue and finds nothing may sleep.
 */
static __poll_t arm_and_poll(struct doorbell *db)
{
	struct doorbell_region *region;
	__poll_t state = 0;

	rcu_read_lock();
	region = rcu_dereference(db->region);
	if (!region)
		goto out;

	/* Check for hang-up first, so that rings before it are still found. */
	if (READ_ONCE(region->attached))
		state = doorbell_region_hung_up(region) ? EPOLLHUP :
			!READ_ONCE(region->ending) &&
			doorbell_buffer_writable(&region->buffer) ?
			EPOLLOUT | EPOLLWRNORM : 0;

	if (doorbell_buffer_arm(&region->buffer))
		state |= EPOLLIN | EPOLLRDNORM;
out:
	rcu_read_unlock();
	return state;
}

/* Lock db->read_lock for a reader: 0, -EAGAIN or -ERESTARTSYS. */
static int reader_lock(struct doorbell *db, bool nowait)
{
	if (mutex_trylock(&db->read_lock))
		return 0;
	if (!nowait)
		return mutex_lock_interruptible(&db->read_lock) ?
		       -ERESTARTSYS : 0;
	WRITE_ONCE(db->turned_away, true);
	/* before the second try: pairs with the barrier in reader_unlock() */
	smp_mb();
	return mutex_trylock(&db->read_lock) ? 0 : -EAGAIN;
}

/*
 * A reader that has not waited for the lock may have been woken for an event
 * that is there still: wake it once more.
 */
static noinline void wake_turned_away(struct doorbell *db)
{
	if (xchg(&db->turned_away, false) &&
	    arm_and_poll(db) & (EPOLLIN | EPOLLHUP))
		doorbell_waiters_wake(db->waiters);
}

static void reader_unlock(struct doorbell *db)
{
	mutex_unlock(&db->read_lock);
	/* after the unlock: pairs with the barrier in reader_lock() */
	smp_mb();
	if (READ_ONCE(db->turned_away))
		wake_turned_away(db);
}

static size_t copy_events(const struct doorbell_event *events, size_t n,
			  struct iov_iter *to)
{
	/* A constant size lets usercopy skip its check. */
	return n == 1 ? copy_to_iter(events, sizeof(*events), to) :
			copy_to_iter(events, n * sizeof(*events), to);
}

/* Read what there is: 0 if nothing, and *@end if nothing can come any more. */
static ssize_t read_events(struct doorbell *db, struct doorbell_region *region,
			   struct iov_iter *to, bool *end)
{
	bool armed = false, wake_others = false;
	struct doorbell_event *events = db->events;
	/* not more than doorbell_buffer_recover() can repeat */
	size_t left = min_t(u32, READ_MAX,
			    doorbell_buffer_kept(&region->buffer));
	ssize_t done = 0, ret = 0;
	size_t n, room;
	bool cut;

	/* a reader that comes back has handled the events before */
	doorbell_buffer_handled(&region->buffer);
	/* Check for hang-up first, so that rings before it are still found. */
	*end = READ_ONCE(region->attached) && doorbell_region_hung_up(region);
	while ((room = min3(iov_iter_count(to) / sizeof(*events), BATCH,
			    left))) {
		n = doorbell_buffer_peek(&region->buffer, events, room,
					 &wake_others);
		if (n) {
			size_t copied = copy_events(events, n, to);

			/* consume whole events that reached the reader */
			if (copied != n * sizeof(*events)) {
				n = copied / sizeof(*events);
				iov_iter_truncate(to, 0);
				ret = -EFAULT;
				/* others take a short read for the end */
				wake_others = true;
			}
			done += n * sizeof(*events);
			left -= n;
			if (n && doorbell_buffer_consume(&region->buffer,
							 events, n))
				wake_others = true;
		} else if (armed) {
			break;
		}
		if (n < room) {
			/* edge-triggered waiters do not call poll() again */
			armed = true;
			if (!doorbell_buffer_arm(&region->buffer))
				break;
			/* a hostile consumer can bring events one by one */
			cond_resched();
		}
		/* once around more if nothing is done: arming saw an event */
		if (done && signal_pending(current)) {
			wake_others = true;	/* as above */
			break;
		}
	}
	cut = !left && iov_iter_count(to) >= sizeof(*events);
	if ((!armed || cut) && doorbell_buffer_arm(&region->buffer) && cut)
		wake_others = true;		/* as above */
	if (wake_others)
		doorbell_waiters_wake(db->waiters);
	if (done && region->flags & DOORBELL_ATTACH_ORDERED)
		wake_up_interruptible_poll(&db->waiters->wait,
					   EPOLLOUT | EPOLLWRNORM);

	return done ?: ret;
}

static int wait_for_event(struct doorbell *db)
{
	/* before the condition, which a hostile consumer can keep true */
	if (signal_pending(current))
		return -ERESTARTSYS;
	/* read_events() just found nothing: skip the first check. */
	return __wait_event_interruptible(db->waiters->wait, arm_and_poll(db) &
					  (EPOLLIN | EPOLLHUP));
}

static ssize_t read_or_wait(struct doorbell *db, struct iov_iter *to,
			    bool nonblock, bool nowait)
{
	struct doorbell_region *region;
	ssize_t ret;
	bool end;

	if (iov_iter_count(to) < sizeof(struct doorbell_event))
		return -EINVAL;

	for (;;) {
		ret = reader_lock(db, nowait);
		if (ret)
			return ret;
		end = false;
		region = region_to_read(db);
		if (region)
			ret = read_events(db, region, to, &end);
		reader_unlock(db);

		if (ret || end)
			return ret;
		if (nonblock || nowait)
			return -EAGAIN;
		ret = wait_for_event(db);
		if (ret)
			return ret;
		/* a hostile consumer can keep this from sleeping */
		cond_resched();
	}
}

static ssize_t doorbell_read_iter(struct kiocb *iocb, struct iov_iter *to)
{
	struct file *file = iocb->ki_filp;

	return read_or_wait(file->private_data, to, file->f_flags & O_NONBLOCK,
			    iocb->ki_flags & IOCB_NOWAIT);
}

/* Plain read() without building a kiocb, as /dev/zero. */
static ssize_t doorbell_read(struct file *file, char __user *buf, size_t size,
			     loff_t *pos)
{
	struct iov_iter to;

	iov_iter_ubuf(&to, ITER_DEST, buf, size);
	return read_or_wait(file->private_data, &to,
			    file->f_flags & O_NONBLOCK, false);
}

static int doorbell_recover(struct doorbell *db)
{
	struct doorbell_region *region;
	int ret = reader_lock(db, false);

	if (ret)
		return ret;
	region = region_to_read(db);
	if (!region)
		ret = -ENOTCONN;
	else if (doorbell_buffer_recover(&region->buffer))
		doorbell_waiters_wake(db->waiters);
	reader_unlock(db);
	return ret;
}

/* Ringing from user space */

static bool ring_may_succeed(struct doorbell_region *region)
{
	return doorbell_buffer_writable(&region->buffer) ||
	       doorbell_region_error(region);
}

static int wait_for_room(struct doorbell_region *region)
{
	wait_queue_head_t *wait = &region->waiters->wait;
	int ret;

	/* before the condition, which a hostile consumer can keep true */
	if (signal_pending(current))
		return -ERESTARTSYS;
	cond_resched();
	/* A consumer that moves head by mmap cannot wake us: poll. */
	do {
		ret = wait_event_interruptible_timeout(*wait,
						       ring_may_succeed(region),
						       1);
	} while (!ret);
	return min(ret, 0);
}

/* Ring what one record names: 0, -EAGAIN if there is no room, or -ENXIO. */
static int ring(struct doorbell_region *region, u64 base,
		const struct doorbell_ring *ring)
{
	bool no_value = region->flags & DOORBELL_ATTACH_NO_VALUE;
	u16 kind = doorbell_kind(DOORBELL_EVENT_QUEUE, 0);
	int ret = doorbell_region_ring(region, region->flags, ring->addr - base,
				       no_value ? 0 : ring->value, kind, false);

	if (ret != -ERANGE)
		return ret;
	if (region->flags & DOORBELL_ATTACH_BOUND_ONLY)
		return -ENXIO;
	kind = doorbell_kind(DOORBELL_EVENT_BAD_ADDRESS, 0);
	return doorbell_region_ring_bad(region, kind, ring->addr);
}

/*
 * The same unless the region is detached, or has hung up. The ring comes before
 * either is reported: detach and attach wait for RCU readers, and the hang-up
 * for doorbell_region_leave().
 */
static int ring_attached(struct doorbell_region *region, u64 base,
			 const struct doorbell_ring *record)
{
	int ret;

	rcu_read_lock();
	ret = doorbell_region_enter(region);
	if (!ret) {
		ret = ring(region, base, record);
		doorbell_region_leave(region);
	}
	rcu_read_unlock();
	return ret;
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
	u64 base;

	if (!iov_iter_count(from) || iov_iter_count(from) % sizeof(*rings))
		return -EINVAL;
	region = region_get_base(db, &base);
	if (!region)
		return -ENOTCONN;

	while (next < have || iov_iter_count(from)) {
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
		ret = ring_attached(region, base, &rings[next]);
		if (!ret) {
			next++;
			done += sizeof(*rings);
			continue;
		}
		/* a short count rather than a wait in the middle */
		if (ret == -EAGAIN && !done && !nowait)
			ret = wait_for_room(region);
		if (ret)
			break;
	}

	doorbell_region_put(region);
	return done ?: ret;
}

static __poll_t doorbell_poll(struct file *file, poll_table *wait)
{
	struct doorbell *db = file->private_data;

	poll_wait(file, &db->waiters->wait, wait);
	return arm_and_poll(db);
}

static int doorbell_fasync(int fd, struct file *file, int on)
{
	struct doorbell *db = file->private_data;
	int ret = fasync_helper(fd, file, on, &db->waiters->fasync);

	/*
	 * fasync before armed: pairs with the xchg() in
	 * doorbell_claim_wakeup(), before doorbell_waiters_wake()
	 */
	smp_wmb();
	/* a process that only waits for SIGIO never calls poll() */
	arm_and_poll(db);
	return ret;
}

static int doorbell_mmap(struct file *file, struct vm_area_struct *vma)
{
	struct doorbell_region *region = region_get(file->private_data);
	int ret;

	if (!region)
		return -ENOTCONN;
	ret = doorbell_region_mmap(region, vma);
	doorbell_region_put(region);
	return ret;
}

/* Attaching */

/* Copy an argument that begins with its size, and can grow at its end. */
static int copy_arg(void *arg, size_t size, size_t min,
		    const void __user *uarg)
{
	u32 usize;

	if (get_user(usize, (const u32 __user *)uarg))
		return -EFAULT;
	if (usize > PAGE_SIZE)
		return -E2BIG;
	if (usize < min)
		return -EINVAL;
	return copy_struct_from_user(arg, size, uarg, usize);
}

static struct doorbell_region *region_of(struct doorbell *db)
{
	return rcu_dereference_protected(db->region,
					 lockdep_is_held(&db->attach_lock));
}

/* The placement of the region detached last, with a reference, or NULL */
static struct doorbell_placement *get_leaving(struct doorbell *db)
{
	lockdep_assert_held(&db->attach_lock);
	if (db->leaving)
		doorbell_placement_get(db->leaving);
	return db->leaving;
}

/*
 * Wait until a region is off its buses: a vCPU that is inside of the handler
 * rings it still. Drops the reference of get_leaving(). Returns a negative
 * errno, or 0.
 */
static int wait_left(struct doorbell *db, struct doorbell_placement *p)
{
	int ret;

	if (!p)
		return 0;

	ret = doorbell_placement_wait(p);
	mutex_lock(&db->attach_lock);
	if (!ret && db->leaving == p) {
		db->leaving = NULL;
		doorbell_placement_put(p);
	}
	mutex_unlock(&db->attach_lock);
	doorbell_placement_put(p);
	return ret;
}

/*
 * Reserve the consumer for one attach at a time. -EAGAIN if another thread has
 * attached and detached since the caller read @detaches, and waited.
 */
static int attach_begin(struct doorbell *db, u32 detaches, bool drop)
{
	struct doorbell_region *region;
	int ret = 0;

	mutex_lock(&db->attach_lock);
	region = region_of(db);
	if (db->attaching || (region && region->attached))
		ret = -EBUSY;
	else if (db->detaches != detaches || (!drop && db->leaving))
		ret = fatal_signal_pending(current) ? -EINTR : -EAGAIN;
	else if (region && !drop && doorbell_region_pending(region))
		ret = -ENOTEMPTY;
	else
		db->attaching = true;
	mutex_unlock(&db->attach_lock);
	return ret;
}

static void attach_abort(struct doorbell *db)
{
	mutex_lock(&db->attach_lock);
	db->attaching = false;
	mutex_unlock(&db->attach_lock);
}

static void attach_commit(struct doorbell *db, struct doorbell_region *region,
			  u64 base, struct doorbell_placement *placement,
			  bool drop)
{
	struct doorbell_region *old;

	mutex_lock(&db->attach_lock);
	db->attaching = false;
	old = region_of(db);
	/* 0 stands for no region */
	db->generation = db->generation + 1 ?: 1;
	doorbell_region_attach(region, db->generation);
	/* after @old was detached: both pair with region_get_base() */
	smp_store_release(&db->base, base);
	rcu_assign_pointer(db->region, region);
	db->placement = placement;
	if (placement)
		doorbell_placement_enable(placement);
	if (old)
		doorbell_region_replace(old, db->generation, drop);
	/* waiting readers and writers have to look at this region */
	wake_up_interruptible_all(&db->waiters->wait);
	kill_fasync(&db->waiters->fasync, SIGIO, POLL_IN);
	if (old) {
		/* a reader that is busy drops the old region later */
		if (mutex_trylock(&db->read_lock)) {
			region_to_read(db);
			reader_unlock(db);
		}
		/* poll() and region_get() may use it */
		doorbell_region_put_rcu(old);
	}
	mutex_unlock(&db->attach_lock);
}

static int doorbell_attach(struct doorbell *db,
			   const struct doorbell_attach __user *uarg)
{
	struct doorbell_placement *placement = NULL, *left;
	struct doorbell_region *region;
	struct doorbell_attach arg;
	unsigned long detached;
	u32 detaches;
	bool drop;
	int ret;

	ret = copy_arg(&arg, sizeof(arg), ATTACH_SIZE_MIN, uarg);
	if (ret)
		return ret;
	region = doorbell_region_create(&arg, db->waiters);
	if (IS_ERR(region))
		return PTR_ERR(region);
	if (arg.vm_fd < -1) {
		ret = -EBADF;
		goto err_put;
	}

	drop = arg.flags & DOORBELL_ATTACH_DROP;
	do {
		mutex_lock(&db->attach_lock);
		left = drop ? NULL : get_leaving(db);
		detached = db->detached;
		detaches = db->detaches;
		mutex_unlock(&db->attach_lock);
		/* the detach of another thread may not have waited yet */
		cond_synchronize_rcu(detached);
		ret = wait_left(db, left) ?: attach_begin(db, detaches, drop);
	} while (ret == -EAGAIN);
	if (ret)
		goto err_put;
	if (arg.vm_fd >= 0) {
		placement = doorbell_placement_create(region, arg.vm_fd,
						      arg.base);
		if (IS_ERR(placement)) {
			ret = PTR_ERR(placement);
			goto err_abort;
		}
	}
	trace_attach(db->waiters->id, &arg, region->geo.queues);
	attach_commit(db, region, arg.base, placement, drop);
	return 0;

err_abort:
	attach_abort(db);
err_put:
	doorbell_region_put(region);
	return ret;
}

static void set_base(struct doorbell *db, u64 base)
{
	trace_move(db->waiters->id, db->base, base);
	/* pairs with region_get_base() */
	smp_store_release(&db->base, base);
}

/*
 * End the move that is under way: it has happened if @done, or else will not.
 * Drops the placement that is of no use any more.
 */
static void move_end(struct doorbell *db, bool done)
{
	struct doorbell_placement *other = db->moving;

	lockdep_assert_held(&db->attach_lock);
	if (done) {
		swap(other, db->placement);
		set_base(db, db->moving_to);
	}
	db->moving = NULL;
	doorbell_placement_put(other);
}

static int doorbell_detach(struct doorbell *db)
{
	struct doorbell_placement *left = NULL;
	struct doorbell_region *region;
	unsigned long detached;
	int ret = -ENOTCONN;

	mutex_lock(&db->attach_lock);
	region = region_of(db);
	if (region && region->attached) {
		trace_detach(db->waiters->id);
		doorbell_region_detach(region);
		detached = start_poll_synchronize_rcu();
		db->detached = detached;
		db->detaches++;
		if (db->moving)
			move_end(db, !doorbell_placement_cancel(db->moving));
		/* before another attach can find the device in its way */
		if (db->placement)
			doorbell_placement_remove(db->placement);
		/* an attach that drops has not waited for the one before */
		if (db->leaving)
			doorbell_placement_put(db->leaving);
		db->leaving = db->placement;
		db->placement = NULL;
		left = get_leaving(db);
		ret = 0;
	}
	mutex_unlock(&db->attach_lock);
	if (ret)
		return ret;

	ret = wait_left(db, left);
	/* after that no write() rings the region */
	cond_synchronize_rcu(detached);
	return ret;
}

/* Moving */

/* May @region, the current one, move there? Gets its placement, or NULL. */
static int move_begin(struct doorbell *db, const struct doorbell_move *arg,
		      const struct doorbell_region *region,
		      struct doorbell_placement **from)
{
	int ret = -ENOTCONN;

	mutex_lock(&db->attach_lock);
	if (!region || region != region_of(db))
		goto out;
	ret = doorbell_region_error(region);
	if (ret)
		goto out;
	*from = db->placement;
	if (!doorbell_geometry_fits(&region->geo, arg->base,
				    region->flags & DOORBELL_ATTACH_PIO) ||
	    (!*from && arg->vm_fd != -1))
		ret = -EINVAL;
	else if (*from)
		doorbell_placement_get(*from);
	else
		set_base(db, arg->base);
out:
	mutex_unlock(&db->attach_lock);
	return ret;
}

/* Start a move if @to is no error, unless another call was faster. */
static int move_start(struct doorbell *db,
		      const struct doorbell_region *region,
		      struct doorbell_placement *from,
		      struct doorbell_placement *to, u64 base)
{
	int ret = 0;

	mutex_lock(&db->attach_lock);
	if (region != region_of(db) || !region->attached) {
		ret = -ENOTCONN;
	} else if (db->moving || db->placement != from) {
		ret = -EBUSY;
	} else if (IS_ERR(to)) {
		ret = PTR_ERR(to);
	} else {
		doorbell_placement_start(to);
		db->moving = to;
		db->moving_to = base;
	}
	mutex_unlock(&db->attach_lock);
	return ret;
}

static int move_commit(struct doorbell *db, struct doorbell_placement *to,
		       int ret)
{
	mutex_lock(&db->attach_lock);
	if (db->moving == to)
		move_end(db, !ret);
	else if (ret)
		/* a detach was faster */
		ret = -ENOTCONN;
	mutex_unlock(&db->attach_lock);
	return ret;
}

static int doorbell_move(struct doorbell *db,
			 const struct doorbell_move __user *uarg)
{
	struct doorbell_placement *from = NULL, *to;
	struct doorbell_region *region;
	struct doorbell_move arg;
	int ret;

	ret = copy_arg(&arg, sizeof(arg), MOVE_SIZE_MIN, uarg);
	if (ret)
		return ret;
	region = region_get(db);
	ret = move_begin(db, &arg, region, &from);
	if (ret || !from)
		goto out;

	to = doorbell_placement_move(from, arg.vm_fd, arg.base);
	ret = move_start(db, region, from, to, arg.base);
	if (!ret) {
		ret = doorbell_placement_wait_added(to);
		ret = move_commit(db, to, ret);
	}
	if (!IS_ERR(to))
		doorbell_placement_put(to);
	doorbell_placement_put(from);
out:
	if (region)
		doorbell_region_put(region);
	return ret;
}

/* Bindings */

static int doorbell_bind(struct doorbell *db,
			 const struct doorbell_bind __user *uarg)
{
	struct doorbell_region *region;
	struct doorbell_bind arg;
	int ret;

	ret = copy_arg(&arg, sizeof(arg), BIND_SIZE_MIN, uarg);
	if (ret)
		return ret;
	if (arg.flags)
		return -EINVAL;
	region = region_get(db);
	if (!region)
		return -ENOTCONN;
	ret = doorbell_region_error(region) ?:
	      doorbell_region_bind(region, arg.first, arg.count,
				   u64_to_user_ptr(arg.fds));
	doorbell_region_put(region);
	return ret;
}

static int doorbell_bindings(struct doorbell *db,
			     const struct doorbell_bindings __user *uarg)
{
	struct doorbell_bindings arg;
	struct doorbell_region *region;
	int ret;

	ret = copy_arg(&arg, sizeof(arg), BINDINGS_SIZE_MIN, uarg);
	if (ret)
		return ret;
	if (arg.flags)
		return -EINVAL;
	region = region_get(db);
	if (!region)
		return -ENOTCONN;
	ret = doorbell_region_bindings(region, arg.first, arg.count,
				       u64_to_user_ptr(arg.bindings));
	doorbell_region_put(region);
	return ret;
}

/* Information */

/* Counters only if they are wanted: there may be many to add up. */
static void fill_info(struct doorbell *db, struct doorbell_info *info,
		      bool counters_too)
{
	struct doorbell_region *region;
	struct doorbell_counters counters;

	*info = (struct doorbell_info) {
		.size = sizeof(*info),
		.features = DOORBELL_FEATURES,
	};
	region = region_get_base(db, &info->base);
	if (!region)
		return;

	if (READ_ONCE(region->attached))
		info->state = doorbell_region_hung_up(region) ?
			      DOORBELL_HANGUP : DOORBELL_ATTACHED;
	info->len = region->geo.len;
	info->stride = 1U << region->geo.shift;
	info->flags = region->flags;
	info->depth = region->buffer.depth;
	info->queues = region->geo.queues;
	info->control_size = region->buffer.control_size;
	info->readonly_size = region->buffer.readonly_size;
	info->entries_offset = doorbell_buffer_entries_offset(&region->buffer);
	info->nr_entries = 1U << region->buffer.order;
	info->generation = region->generation;
	if (counters_too) {
		doorbell_buffer_count(&region->buffer, &counters);
		info->bound_rings = doorbell_region_bound_rings(region);
		info->rings = counters.rings + info->bound_rings;
		info->bad_rings = counters.bad_rings;
		info->pending = counters.pending;
		info->wakeups = atomic64_read(&region->wakeups);
		info->bounced = atomic64_read(&region->bounced);
	}
	doorbell_region_put(region);
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

/* The number of the process whose VM the region is in, as @ns has it, or 0 */
static pid_t vm_pid(struct doorbell *db, struct pid_namespace *ns)
{
	struct doorbell_region *region;
	pid_t nr = 0;
	u64 base;

	region = region_get_base(db, &base);
	if (!region)
		return 0;
	rcu_read_lock();
	if (pid_task(region->vm_process, PIDTYPE_TGID))
		nr = pid_nr_ns(region->vm_process, ns);
	rcu_read_unlock();
	doorbell_region_put(region);
	return nr;
}

static void doorbell_show_fdinfo(struct seq_file *m, struct file *file)
{
	static const char * const states[] = {
		[DOORBELL_DETACHED] = "detached",
		[DOORBELL_ATTACHED] = "attached",
		[DOORBELL_HANGUP] = "hangup",
	};
	struct doorbell *db = file->private_data;
	struct doorbell_info info;
	pid_t pid = 0;

	fill_info(db, &info, true);
	seq_printf(m, "doorbell-id:\t%u\n", db->waiters->id);
	seq_printf(m, "doorbell-state:\t%s\n", states[info.state]);
	if (!info.queues)
		return;
	if (info.state == DOORBELL_ATTACHED)
		pid = vm_pid(db, proc_pid_ns(file_inode(m->file)->i_sb));
	seq_printf(m, "doorbell-vm-pid:\t%d\n", pid);
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
	seq_printf(m, "doorbell-bound-rings:\t%llu\n", info.bound_rings);
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
	case DOORBELL_MOVE:
		return doorbell_move(db, (void __user *)arg);
	case DOORBELL_BIND:
		return doorbell_bind(db, (void __user *)arg);
	case DOORBELL_BINDINGS:
		return doorbell_bindings(db, (void __user *)arg);
	case DOORBELL_RECOVER:
		return arg ? -EINVAL : doorbell_recover(db);
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
	db->waiters = doorbell_waiters_create();
	if (!db->waiters) {
		kfree(db);
		return -ENOMEM;
	}
	db->detached = get_completed_synchronize_rcu();
	mutex_init(&db->attach_lock);
	mutex_init(&db->read_lock);

	file->private_data = db;
	file->f_mode |= FMODE_NOWAIT;
	return stream_open(inode, file);
}

static int doorbell_release(struct inode *inode, struct file *file)
{
	struct doorbell *db = file->private_data;
	struct doorbell_region *region;

	region = rcu_dereference_protected(db->region, true);
	if (region && region->attached)
		trace_detach(db->waiters->id);
	/* without waiting: a vCPU may be inside of the region for ever */
	if (db->placement) {
		doorbell_placement_remove(db->placement);
		doorbell_placement_put(db->placement);
	}
	if (db->leaving)
		doorbell_placement_put(db->leaving);
	if (db->reading)
		doorbell_region_put(db->reading);
	if (region)
		doorbell_region_put(region);
	doorbell_waiters_put(db->waiters);
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

static int __init doorbell_init(void)
{
	int ret = doorbell_region_init();

	if (ret)
		return ret;
	ret = doorbell_kvm_init();
	if (ret)
		goto err_region;
	ret = misc_register(&doorbell_misc);
	if (ret)
		goto err_kvm;
	return 0;

err_kvm:
	doorbell_kvm_exit();
err_region:
	doorbell_region_exit();
	return ret;
}
module_init(doorbell_init);

static void __exit doorbell_exit(void)
{
	misc_deregister(&doorbell_misc);
	doorbell_kvm_exit();
	doorbell_region_exit();
	/* destructors and callbacks that are still in module text */
	synchronize_rcu_tasks();
}
module_exit(doorbell_exit);

MODULE_DESCRIPTION("Doorbells of KVM guests as events for user space");
MODULE_VERSION("0.9");
MODULE_LICENSE("GPL");
