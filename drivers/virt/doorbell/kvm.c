// SPDX-License-Identifier: GPL-2.0
/*
 * KVM: puts regions onto the I/O buses of virtual machines, and removes them.
 *
 * This is the only file that knows KVM. KVM exports no function to add a device
 * to a bus, but a bus is plain RCU, and its structures are in public headers:
 * under kvm->slots_lock a changed copy replaces the old bus, which is unused
 * after a grace period of kvm->srcu. kvm_io_bus_register_dev() does the same.
 *
 * Lifetime: a placement holds no reference to struct kvm. Like an ioeventfd it
 * has a destructor, which KVM calls once for each of the placement's ranges:
 * from kvm_destroy_vm(), without a lock and after the last ring; or, under
 * slots_lock and after a grace period, from kvm_io_bus_unregister_dev(), which
 * gives up a whole bus when it has no memory for a smaller one. As long as the
 * last destructor has not run, struct kvm is allocated, and what keeps it, an
 * open file as a rule, pins the vendor module. So p->kvm, if not NULL under
 * p->lock, is good for kvm_get_kvm_safe(), together with a reference to that
 * module: since 6.4 KVM pins it by open files only. Files of statistics do not
 * pin it; KVM itself breaks if it is removed while only these keep a VM.
 *
 * The callback of a grace period keeps kvm->srcu busy. After a removal or a
 * move it comes with such a reference. After an attach the device is on the
 * bus, and its destructor waits for the callback: the VM can be destroyed at
 * once.
 *
 * Moving: a new placement of the region takes the place of the old one, in one
 * new bus. Both ring the region until the grace period is over, each at its own
 * addresses, and KVM finds one of them: no ring is lost, and none counts twice.
 * A grace period that begins later includes the readers of an earlier one, so
 * that it is enough to wait for the end of the last placement.
 *
 * Waiting: a VMM can hold slots_lock, or a vCPU inside of kvm->srcu, for as
 * long as it likes, with a page fault that a userfaultfd does not answer. So
 * close() only disables the handler. Attach and detach wait for a work item,
 * killably and without a lock. A callback follows each grace period, and few
 * work items sleep for slots_lock: the others try it again and again, so that
 * no VMM uses up the workers. A consumer that is throttled or stopped never
 * holds slots_lock.
 *
 * Memory: a bus that was replaced lives until its grace period is over. How
 * many may do so in one VM is limited, as a vCPU can delay them all.
 *
 * Locks: kvm->slots_lock, then p->lock. A destructor takes the latter only.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/atomic.h>
#include <linux/bitmap.h>
#include <linux/bitops.h>
#include <linux/completion.h>
#include <linux/delay.h>
#include <linux/err.h>
#include <linux/file.h>
#include <linux/fs.h>
#include <linux/hashtable.h>
#include <linux/kvm_host.h>
#include <linux/limits.h>
#include <linux/magic.h>
#include <linux/minmax.h>
#include <linux/module.h>
#include <linux/sched.h>
#include <linux/sizes.h>
#include <linux/slab.h>
#include <linux/spinlock.h>
#include <linux/srcu.h>
#include <linux/workqueue.h>

#include <kvm/iodev.h>

#include <linux/doorbell.h>

#include "kvm.h"
#include "region.h"

/* A region without values is on two buses. */
#define MAX_BUSES	2
/* Longest pause between two tries, in jiffies. */
#define MAX_PAUSE	HZ
/* A removal sleeps for slots_lock when its pauses have become as long. */
#define LONG_PAUSE	(HZ / 8)
/* Most grace periods that are on in one VM, and ranges of its old buses. */
#define MAX_GRACES	64
#define MAX_OLD_RANGES	65536
/* Most work items that sleep: an unbound workqueue always has more workers. */
#define MAX_SLEEPERS	4

/**
 * struct vm_changes - changes of one VM's buses that are under way
 * @node: in vm_table
 * @kvm: the VM, only for comparison: it may be freed and its address reused
 * @users: placements that use this; under vm_lock
 * @graces: grace periods that are on
 * @sleeper: bit 0: a work item sleeps until it has slots_lock
 */
struct vm_changes {
	struct hlist_node node;
	struct kvm *kvm;
	unsigned int users;
	atomic_t graces;
	unsigned long sleeper;
};

/**
 * struct doorbell_placement - where a region sits: a device on buses of a VM
 * @dev: the device
 * @enabled: @region while the handler rings it, else NULL; written under @lock,
 *	read without
 * @base: address of the region's first byte; constant
 * @region: the region, referenced; constant
 * @remove: the device has to leave its buses; set once
 * @owner: the module that owns the VM's file; constant
 * @vm: shared by the placements of the VM; constant
 * @lock: protects @enabled, and the fields below that name it
 * @kvm: the VM, not referenced; NULL while no bus has the device; under @lock
 * @ranges: the device's ranges on all of its buses; under @lock
 * @lost: KVM itself removed a range; under @lock
 * @added: completed when @error is set
 * @error: result of getting onto the buses; written by @work
 * @cancelled: the caller was killed, or detaches: stay off the buses; under
 *	@lock
 * @off: completed when no vCPU rings the region through the device any more
 * @ref: held by the consumer, by the buses, by @work while it is queued or
 *	runs, and by @rcu
 * @work: changes buses; the fields below are its own
 * @adding: @work has to put the device onto its buses
 * @from: the placement that this one takes the place of, referenced until it is
 *	off, or NULL
 * @pause: jiffies until the next try
 * @pinned: this placement references the module
 * @ending: the grace period that is on, or the last one, ends with @off
 * @left: @work took the device off its buses, and has to drop their reference
 * @waiting: a grace period was begun, and @work has not seen its end
 * @held: the VM, referenced while the device gets onto its buses, and during a
 *	grace period after a removal or a move
 * @old: buses to be freed after a grace period
 * @rcu: ends the grace period
 * @grace: the grace period is not over; cleared by @rcu with release, read by
 *	@work and by the destructor
 */
struct doorbell_placement {
	struct kvm_io_device dev;
	struct doorbell_region *enabled;
	u64 base;
	struct doorbell_region *region;
	bool remove;
	struct module *owner;
	struct vm_changes *vm;
	spinlock_t lock;	/* enabled, kvm, ranges, lost, cancelled */
	struct kvm *kvm;
	int ranges;
	bool lost;
	bool cancelled;
	struct completion added;
	int error;
	struct completion off;
	struct kref ref;
	struct delayed_work work;
	bool adding;
	struct doorbell_placement *from;
	unsigned long pause;
	bool pinned;
	bool ending;
	bool left;
	bool waiting;
	struct kvm *held;
	struct kvm_io_bus *old[MAX_BUSES];
	struct rcu_head rcu;
	bool grace;
};

static struct workqueue_struct *doorbell_wq;
/* Placements that are not freed yet, which module exit waits for. */
static atomic_t nr_placements;
/* Work items that sleep until they have a slots_lock. */
static atomic_t nr_sleepers;
static DEFINE_HASHTABLE(vm_table, 6);
static DEFINE_SPINLOCK(vm_lock);	/* vm_table */

static struct vm_changes *vm_changes_find(const struct kvm *kvm)
{
	struct vm_changes *vm;

	hash_for_each_possible(vm_table, vm, node, (unsigned long)kvm)
		if (vm->kvm == kvm)
			return vm;
	return NULL;
}

static struct vm_changes *vm_changes_get(struct kvm *kvm)
{
	struct vm_changes *new = kzalloc(sizeof(*new), GFP_KERNEL_ACCOUNT);
	struct vm_changes *vm;

	if (!new)
		return NULL;
	new->kvm = kvm;
	spin_lock(&vm_lock);
	vm = vm_changes_find(kvm);
	if (!vm) {
		swap(vm, new);
		hash_add(vm_table, &vm->node, (unsigned long)kvm);
	}
	vm->users++;
	spin_unlock(&vm_lock);
	kfree(new);
	return vm;
}

static void vm_changes_put(struct vm_changes *vm)
{
	bool last;

	spin_lock(&vm_lock);
	last = !--vm->users;
	if (last)
		hash_del(&vm->node);
	spin_unlock(&vm_lock);
	if (last)
		kfree(vm);
}

static struct doorbell_placement *to_placement(struct kvm_io_device *dev)
{
	return container_of(dev, struct doorbell_placement, dev);
}

/*
 * Reference the module while the work item may wait for long, so that rmmod
 * fails instead of waiting. try_module_get() fails once rmmod has begun.
 */
static void placement_pin(struct doorbell_placement *p)
{
	if (!p->pinned)
		p->pinned = try_module_get(THIS_MODULE);
}

static void placement_unpin(struct doorbell_placement *p)
{
	if (p->pinned)
		module_put(THIS_MODULE);
	p->pinned = false;
}

static void placement_put_kvm(struct doorbell_placement *p, struct kvm *kvm)
{
	kvm_put_kvm(kvm);
	module_put(p->owner);
}

static void placement_free(struct kref *ref)
{
	struct doorbell_placement *p =
		container_of(ref, struct doorbell_placement, ref);
	struct doorbell_placement *from = p->from;

	/* what is left of a move that was not started */
	if (p->held)
		placement_put_kvm(p, p->held);
	vm_changes_put(p->vm);
	doorbell_region_put(p->region);
	placement_unpin(p);
	kfree(p);
	/*
	 * Without waking module exit: that could sleep, in module text, for
	 * which synchronize_rcu_tasks() does not wait.
	 */
	atomic_dec(&nr_placements);
	if (from)
		kref_put(&from->ref, placement_free);
}

static void placement_put(struct doorbell_placement *p)
{
	kref_put(&p->ref, placement_free);
}

/* Have the work item look at the placement, once more if it runs already. */
static void placement_queue(struct doorbell_placement *p)
{
	kref_get(&p->ref);
	if (mod_delayed_work(doorbell_wq, &p->work, 0))
		placement_put(p);
}

/* From the work item: look again after a while, unless it is queued already. */
static void placement_retry(struct doorbell_placement *p)
{
	p->pause = clamp(2 * p->pause, 1UL, (unsigned long)MAX_PAUSE);
	kref_get(&p->ref);
	if (!queue_delayed_work(doorbell_wq, &p->work, p->pause))
		placement_put(p);
}

/* Handlers: KVM calls them on the vCPU's thread, under kvm->srcu. */

static __always_inline int ring_any(struct kvm_io_device *dev, gpa_t addr,
				    int len, const void *val, bool traced)
{
	struct doorbell_placement *p = to_placement(dev);
	struct doorbell_region *region = READ_ONCE(p->enabled);
	u64 value = 0;
	int width = 0;

	if (!region)
		return -EOPNOTSUPP;
	/* KVM_FAST_MMIO_BUS has neither length nor value */
	if (!(region->flags & DOORBELL_ATTACH_NO_VALUE)) {
		if (len < 1 || len > sizeof(value))
			return -EOPNOTSUPP;
		/* zero-extended in place: KVM's hosts are little-endian */
		memcpy(&value, val, len);
		width = len;
	}
	if (!doorbell_region_accepts(region, addr - p->base, width, value))
		return -EOPNOTSUPP;

	/* KVM retries a write declined on the fast bus on the MMIO bus. */
	if (doorbell_region_ring_as(region, region->flags, addr - p->base,
				    value,
				    doorbell_kind(DOORBELL_EVENT_QUEUE, width),
				    len, traced))
		return -EOPNOTSUPP;
	return 0;
}

static int write_any(struct kvm_vcpu *vcpu, struct kvm_io_device *dev,
		     gpa_t addr, int len, const void *val)
{
	return ring_any(dev, addr, len, val,
			static_branch_unlikely(&doorbell_tracing));
}

/*
 * write_any() for write_fast(), which has already looked whether rings are
 * traced. __noclone keeps @vcpu, so that all arguments stay in their registers.
 */
static noinline __noclone int write_untraced(struct kvm_vcpu *vcpu,
					     struct kvm_io_device *dev,
					     gpa_t addr, int len,
					     const void *val)
{
	return ring_any(dev, addr, len, val, false);
}

/* The same where a queue may be bound, or the address outside the region. */
static noinline __noclone int write_bound(struct kvm_vcpu *vcpu,
					  struct kvm_io_device *dev, gpa_t addr,
					  int len, const void *val,
					  struct doorbell_region *region)
{
	u64 offset = addr - to_placement(dev)->base;

	/* only whether it is NULL: doorbell_region_signal() reads it again */
	if (data_race(region->bindings) &&
	    doorbell_geometry_contains(&region->geo, offset) &&
	    doorbell_region_accepts(region, offset, len, 0) &&
	    doorbell_region_signal(region, doorbell_geometry_queue(&region->geo,
								   offset)))
		return 0;
	return write_untraced(vcpu, dev, addr, len, val);
}

/* A ring of write_fast(); inlined for each width, which is a constant then. */
static __always_inline int ring_fast(struct doorbell_region *region, u32 flags,
				     u64 offset, u64 value, int width)
{
	u16 kind = doorbell_kind(DOORBELL_EVENT_QUEUE, width);

	return doorbell_region_ring_unbound(region, flags, offset, value, kind,
					    true) ? -EOPNOTSUPP : 0;
}

/*
 * The same for what nearly all drivers do: the address names the queue, and the
 * value has 4 or 2 bytes. All of it is inlined here, without bindings.
 */
static __always_inline int write_fast(struct kvm_vcpu *vcpu,
				      struct kvm_io_device *dev, gpa_t addr,
				      int len, const void *val, u32 flags)
{
	struct doorbell_placement *p = to_placement(dev);
	struct doorbell_region *region = READ_ONCE(p->enabled);
	u64 offset = addr - p->base;
	u32 word;
	u16 half;

	if (unlikely(!region))
		return -EOPNOTSUPP;
	if (static_branch_unlikely(&doorbell_tracing))
		return write_any(vcpu, dev, addr, len, val);
	/* READ_ONCE() would be one instruction more */
	if (unlikely(offset >= data_race(region->unbound_len)))
		return write_bound(vcpu, dev, addr, len, val, region);
	if (likely(len == sizeof(word))) {
		memcpy(&word, val, sizeof(word));
		return ring_fast(region, flags, offset, word, sizeof(word));
	}
	if (len == sizeof(half)) {
		memcpy(&half, val, sizeof(half));
		return ring_fast(region, flags, offset, half, sizeof(half));
	}
	return write_untraced(vcpu, dev, addr, len, val);
}

static int write_coalescing(struct kvm_vcpu *vcpu, struct kvm_io_device *dev,
			    gpa_t addr, int len, const void *val)
{
	return write_fast(vcpu, dev, addr, len, val, 0);
}

static int write_ordered(struct kvm_vcpu *vcpu, struct kvm_io_device *dev,
			 gpa_t addr, int len, const void *val)
{
	return write_fast(vcpu, dev, addr, len, val, DOORBELL_ATTACH_ORDERED);
}

/* No vCPU rings the region through the device any more. */
static void placement_off(struct doorbell_placement *p, bool lost)
{
	if (lost)
		doorbell_region_hangup(p->region);
	complete_all(&p->off);
}

/*
 * A bus that has a range of the device goes, with its VM or alone. KVM uses
 * p->dev until the last of these calls.
 */
static void placement_destructor(struct kvm_io_device *dev)
{
	struct doorbell_placement *p = to_placement(dev);
	bool first, last;
	struct kvm *kvm;

	spin_lock(&p->lock);
	kvm = p->kvm;
	WRITE_ONCE(p->enabled, NULL);
	first = !p->lost;
	p->lost = true;
	last = !--p->ranges;
	if (last)
		p->kvm = NULL;
	spin_unlock(&p->lock);

	if (last) {
		/*
		 * KVM may free kvm->srcu next: wait for the callback. That is
		 * quick, as no reader from before the attach is left.
		 */
		if (smp_load_acquire(&p->grace))
			srcu_barrier(&kvm->srcu);
		placement_off(p, true);
		placement_put(p);
	} else if (first) {
		/* if only this bus goes, leave the other one, too */
		WRITE_ONCE(p->remove, true);
		placement_queue(p);
	}
}

static const struct kvm_io_device_ops placement_ops = {
	.write = write_any,
	.destructor = placement_destructor,
};

static const struct kvm_io_device_ops coalescing_ops = {
	.write = write_coalescing,
	.destructor = placement_destructor,
};

static const struct kvm_io_device_ops ordered_ops = {
	.write = write_ordered,
	.destructor = placement_destructor,
};

static const struct kvm_io_device_ops *
region_ops(const struct doorbell_region *region)
{
	if (region->flags & (DOORBELL_ATTACH_BY_VALUE |
			     DOORBELL_ATTACH_NO_VALUE))
		return &placement_ops;
	return region->flags & DOORBELL_ATTACH_ORDERED ? &ordered_ops :
							 &coalescing_ops;
}

/* Buses */

/* Which buses a region has to be on: returns their number. */
static int region_buses(const struct doorbell_region *region,
			enum kvm_bus idx[MAX_BUSES])
{
	idx[0] = region->flags & DOORBELL_ATTACH_PIO ? KVM_PIO_BUS :
						       KVM_MMIO_BUS;
	idx[1] = KVM_FAST_MMIO_BUS;
	return region->flags & DOORBELL_ATTACH_NO_VALUE ? 2 : 1;
}

/* kvm_io_range.len is an int: a region may need more than one range. */
static int region_ranges(const struct doorbell_region *region)
{
	return DIV_ROUND_UP_ULL(region->geo.len, SZ_1G);
}

static bool intersects(const struct doorbell_placement *p,
		       const struct kvm_io_range *range)
{
	/* KVM finds a range of length 0 at its address */
	u64 last = range->addr + max(range->len, 1) - 1;

	return range->addr <= p->base + p->region->geo.len - 1 &&
	       p->base <= last;
}

/* Is @dev a placement that has to leave its buses? */
static bool is_leaving(struct kvm_io_device *dev)
{
	return dev->ops->destructor == placement_destructor &&
	       READ_ONCE(to_placement(dev)->remove);
}

/*
 * -EEXIST if another device is in the way, -EAGAIN if it only has to leave
 * first.
 */
static int bus_room(const struct doorbell_placement *p,
		    const struct kvm_io_bus *bus)
{
	int i, ret = 0;

	for (i = 0; i < bus->dev_count; i++) {
		if (!intersects(p, &bus->range[i]) ||
		    (p->from && bus->range[i].dev == &p->from->dev))
			continue;
		if (!is_leaving(bus->range[i].dev))
			return -EEXIST;
		ret = -EAGAIN;
	}
	return ret;
}

static int bus_ranges(const struct doorbell_placement *p,
		      const struct kvm_io_bus *bus)
{
	int i, n = 0;

	for (i = 0; i < bus->dev_count; i++)
		n += bus->range[i].dev == &p->dev;
	return n;
}

static void append_ranges(struct kvm_io_bus *bus, struct doorbell_placement *p)
{
	u64 len = p->region->geo.len;
	u64 offset;

	for (offset = 0; offset < len; offset += SZ_1G)
		bus->range[bus->dev_count++] = (struct kvm_io_range) {
			.addr = p->base + offset,
			.len = min_t(u64, len - offset, SZ_1G),
			.dev = &p->dev,
		};
}

/*
 * Memory for a bus with so many ranges. KVM frees the last one of a VM, perhaps
 * when this module is gone. Memory allocation profiling takes what a module
 * allocates by kmalloc() for a leak then; bitmap_alloc() is a function of the
 * kernel, so that its memory is the kernel's.
 *
 * Not charged: a removal must not depend on room in a memory cgroup.
 * max_graces() bounds how many there are.
 */
static struct kvm_io_bus *bus_alloc(int ranges)
{
	struct kvm_io_bus *bus;
	size_t size = struct_size(bus, range, ranges);

	if (size > UINT_MAX / BITS_PER_BYTE)
		return NULL;
	return (void *)bitmap_alloc(size * BITS_PER_BYTE, GFP_KERNEL |
				    __GFP_RETRY_MAYFAIL | __GFP_NOWARN);
}

/*
 * A copy of a bus without the ranges of @off and with those of @on, in the
 * order of addresses that KVM's search relies on. Either may be NULL.
 * Descriptors limit regions as they limit ioeventfds, so both count as such.
 */
static struct kvm_io_bus *bus_copy(const struct kvm_io_bus *old,
				   struct doorbell_placement *off,
				   struct doorbell_placement *on)
{
	int change = (on ? region_ranges(on->region) : 0) -
		     (off ? bus_ranges(off, old) : 0);
	struct kvm_io_bus *new;
	int i;

	new = bus_alloc(old->dev_count + change);
	if (!new)
		return NULL;

	memcpy(new, old, sizeof(*old));
	new->dev_count = 0;
	new->ioeventfd_count += change;
	for (i = 0; i < old->dev_count; i++) {
		if (off && old->range[i].dev == &off->dev)
			continue;
		if (on && old->range[i].addr > on->base) {
			append_ranges(new, on);
			on = NULL;
		}
		new->range[new->dev_count++] = old->range[i];
	}
	if (on)
		append_ranges(new, on);
	return new;
}

/*
 * Change the buses of the VM, all or none: the ranges of @off go, those of @on
 * come; either may be NULL. kvm->srcu frees the old buses, which become those
 * of @on, or else of @off. -ENODEV if KVM gave the buses of @off up in the
 * meantime, -EINTR if the caller that waits for @on was killed.
 */
static int buses_change(struct kvm *kvm, struct doorbell_placement *off,
			struct doorbell_placement *on)
{
	struct doorbell_placement *p = on ?: off;
	struct kvm_io_bus *new[MAX_BUSES] = {};
	enum kvm_bus idx[MAX_BUSES];
	int i, ret, nr = region_buses(p->region, idx);
	bool cancelled = false;

	lockdep_assert_held(&kvm->slots_lock);
	/* stable: the VM is referenced, and slots_lock is held */
	if (off && (!READ_ONCE(off->kvm) || (on && READ_ONCE(off->lost))))
		return -ENODEV;
	for (i = 0; i < nr; i++) {
		struct kvm_io_bus *old = kvm_get_bus(kvm, idx[i]);

		/* KVM gave the bus up for want of memory */
		if (!old && on) {
			ret = -ENOMEM;
			goto err;
		}
		if (!old || (!on && !bus_ranges(off, old)))
			continue;
		ret = on ? bus_room(on, old) : 0;
		if (ret)
			goto err;
		new[i] = bus_copy(old, off, on);
		if (!new[i]) {
			ret = -ENOMEM;
			goto err;
		}
	}

	if (on) {
		spin_lock(&on->lock);
		cancelled = on->cancelled;
		if (!cancelled) {
			kref_get(&on->ref);
			on->kvm = kvm;
			on->ranges = nr * region_ranges(on->region);
			/* an attach enables it later */
			if (off)
				WRITE_ONCE(on->enabled, on->region);
		}
		spin_unlock(&on->lock);
		if (cancelled) {
			ret = -EINTR;
			goto err;
		}
	}
	if (off) {
		spin_lock(&off->lock);
		off->kvm = NULL;
		off->ranges = 0;
		spin_unlock(&off->lock);
	}
	for (i = 0; i < nr; i++) {
		if (!new[i])
			continue;
		p->old[i] = kvm_get_bus(kvm, idx[i]);
		rcu_assign_pointer(kvm->buses[idx[i]], new[i]);
	}
	return 0;

err:
	for (i = 0; i < nr; i++)
		kfree(new[i]);
	return ret;
}

/* Changing buses */

/* Reference the VM, and its vendor module: NULL if it is gone, or going. */
static struct kvm *placement_get_kvm(struct doorbell_placement *p)
{
	struct kvm *kvm;

	spin_lock(&p->lock);
	kvm = p->kvm;
	if (kvm && !try_module_get(p->owner))
		kvm = NULL;
	if (kvm && !kvm_get_kvm_safe(kvm)) {
		module_put(p->owner);
		kvm = NULL;
	}
	spin_unlock(&p->lock);
	return kvm;
}

/* Each grace period keeps an old bus, or two. One has to be possible. */
static int max_graces(struct doorbell_placement *p, struct kvm *kvm)
{
	enum kvm_bus idx[MAX_BUSES];
	struct kvm_io_bus *bus;

	lockdep_assert_held(&kvm->slots_lock);
	region_buses(p->region, idx);
	bus = kvm_get_bus(kvm, idx[0]);
	if (!bus || !bus->dev_count)
		return MAX_GRACES;
	return clamp(MAX_OLD_RANGES / bus->dev_count, 1, MAX_GRACES);
}

/*
 * Lock the VM's buses for a change, or fail. One work item of a VM may sleep
 * for that, or a VMM that is busy with slots_lock would starve them all.
 */
static bool lock_slots(struct doorbell_placement *p, struct kvm *kvm)
{
	bool locked = mutex_trylock(&kvm->slots_lock);

	if (locked)
		goto out;
	/* work items of other placements have it for a moment only */
	if (!p->adding && p->pause < LONG_PAUSE)
		return false;
	/* the caller of an attach may be killed, and close its consumer */
	placement_pin(p);
	if (p->adding && !p->pinned)
		return false;
	if (atomic_inc_return(&nr_sleepers) <= MAX_SLEEPERS &&
	    !test_and_set_bit(0, &p->vm->sleeper)) {
		/* killable: the VMM may take as long as it likes */
		locked = !mutex_lock_killable(&kvm->slots_lock);
		clear_bit(0, &p->vm->sleeper);
	}
	atomic_dec(&nr_sleepers);
out:
	/* exact: they begin under slots_lock */
	if (locked && atomic_read(&p->vm->graces) >= max_graces(p, kvm)) {
		mutex_unlock(&kvm->slots_lock);
		locked = false;
	}
	return locked;
}

static void grace_over(struct rcu_head *rcu)
{
	struct doorbell_placement *p =
		container_of(rcu, struct doorbell_placement, rcu);

	atomic_dec(&p->vm->graces);
	/* pairs with the acquire in placement_work() and in the destructor */
	smp_store_release(&p->grace, false);
	placement_queue(p);
	placement_put(p);
}

/* Begin a grace period, after which @work goes on. */
static void grace_begin(struct doorbell_placement *p, struct kvm *kvm)
{
	/* max_graces() counts them */
	lockdep_assert_held(&kvm->slots_lock);
	atomic_inc(&p->vm->graces);
	p->waiting = true;
	p->grace = true;
	kref_get(&p->ref);
	call_srcu(&kvm->srcu, &p->rcu, grace_over);
}

static void grace_end(struct doorbell_placement *p)
{
	struct doorbell_placement *from = p->from;
	bool lost;
	int i;

	p->waiting = false;
	for (i = 0; i < MAX_BUSES; i++) {
		kfree(p->old[i]);
		p->old[i] = NULL;
	}
	if (from) {
		p->from = NULL;
		/* the buses' reference, and that of @p */
		placement_put(from);
		placement_put(from);
	}
	/* may be the last one, and call the destructor */
	if (p->held)
		placement_put_kvm(p, p->held);
	p->held = NULL;
	if (!p->ending)
		return;

	spin_lock(&p->lock);
	lost = p->lost;
	spin_unlock(&p->lock);
	placement_off(p, lost);
	if (p->left)
		placement_put(p);
}

/* Get onto the buses; returns whether to try again. */
static bool placement_add(struct doorbell_placement *p)
{
	struct kvm *kvm = p->held;
	int ret = -EINTR;

	/* nothing to do if this was cancelled, perhaps before the lock */
	if (!READ_ONCE(p->cancelled)) {
		if (!lock_slots(p, kvm))
			return true;
		ret = buses_change(kvm, p->from, p);
		/* before a destructor, which looks at @grace, can be called */
		if (!ret)
			grace_begin(p, kvm);
		mutex_unlock(&kvm->slots_lock);
	}
	if (ret == -EAGAIN)
		return true;

	p->adding = false;
	/* a moved placement keeps the VM until the grace period is over */
	if (ret || !p->from) {
		p->held = NULL;
		placement_put_kvm(p, kvm);
	}
	if (ret && p->from) {
		placement_put(p->from);
		p->from = NULL;
	}
	/* what is left to do does not take long */
	placement_unpin(p);
	p->error = ret;
	complete(&p->added);
	return false;
}

/* Get off the buses; returns whether to try again. */
static bool placement_leave(struct doorbell_placement *p)
{
	struct kvm *kvm = placement_get_kvm(p);
	int ret;

	/* the device has left, or the destructor is about to be called */
	if (!kvm)
		return false;
	if (!lock_slots(p, kvm)) {
		placement_put_kvm(p, kvm);
		return true;
	}
	ret = buses_change(kvm, p, NULL);
	if (ret == -ENOMEM && !p->ending)
		pr_warn_ratelimited("no memory to leave a bus at %#llx, trying again\n",
				    p->base);
	if (ret == -ENODEV || (ret && p->ending)) {
		mutex_unlock(&kvm->slots_lock);
		placement_put_kvm(p, kvm);
		return ret != -ENODEV;
	}

	/* without memory the device stays for now, but its handler declines */
	p->left = !ret;
	p->ending = true;
	p->held = kvm;
	grace_begin(p, kvm);
	mutex_unlock(&kvm->slots_lock);
	return READ_ONCE(p->remove);
}

/* All changes of a placement's buses, one after the other. */
static void placement_work(struct work_struct *work)
{
	struct doorbell_placement *p =
		container_of(to_delayed_work(work), struct doorbell_placement,
			     work);
	bool again;

	/* both pair with the release in grace_over(), which queues this */
	if (smp_load_acquire(&p->grace)) {
		again = READ_ONCE(p->remove);
	} else if (p->waiting && p->from &&
		   /* the callback of @from comes soon, and needs the VM, too */
		   smp_load_acquire(&p->from->grace)) {
		again = true;
	} else {
		if (p->waiting)
			grace_end(p);
		again = p->adding ? placement_add(p) :
			READ_ONCE(p->remove) && placement_leave(p);
	}

	if (!again)
		p->pause = 0;
	else
		placement_retry(p);
	if (p->pause == MAX_PAUSE && !p->adding)
		placement_pin(p);
	placement_put(p);
}

/* What the character device calls */

/*
 * The VM behind a file, or NULL. Not every kernel exports KVM's file_is_kvm(),
 * but all of them give KVM's anonymous inodes the same name.
 */
static struct kvm *file_kvm(const struct file *file)
{
	if (file_inode(file)->i_sb->s_magic != ANON_INODE_FS_MAGIC ||
	    strcmp(file_dentry(file)->d_name.name, "kvm-vm"))
		return NULL;
	return file->private_data;
}

/* TASK_FREEZABLE: a stuck VMM must not block suspend. */
static int wait_killable(struct completion *done)
{
	return wait_for_completion_state(done, TASK_KILLABLE | TASK_FREEZABLE) ?
	       -EINTR : 0;
}

/* Is the VM one that KVM itself would still serve? */
static int kvm_error(struct kvm *kvm)
{
	if (!atomic_read(&kvm->mm->mm_users))
		return -ESRCH;
	return READ_ONCE(kvm->vm_dead) ? -EIO : 0;
}

/* A placement that has yet to get onto its buses; @kvm is referenced for it. */
static struct doorbell_placement *
placement_alloc(struct doorbell_region *region, u64 base, struct kvm *kvm,
		struct module *owner)
{
	struct doorbell_placement *p = kzalloc(sizeof(*p), GFP_KERNEL_ACCOUNT);

	if (!p)
		return NULL;
	p->vm = vm_changes_get(kvm);
	if (!p->vm) {
		kfree(p);
		return NULL;
	}
	atomic_inc(&nr_placements);
	kvm_iodevice_init(&p->dev, region_ops(region));
	p->region = region;
	kref_get(&region->ref);
	p->base = base;
	p->owner = owner;
	spin_lock_init(&p->lock);
	init_completion(&p->added);
	init_completion(&p->off);
	kref_init(&p->ref);
	INIT_DELAYED_WORK(&p->work, placement_work);
	p->held = kvm;
	p->adding = true;
	return p;
}

/* The VM of a descriptor; @file keeps it, and is the caller's to put. */
static struct kvm *vm_fd_get(int vm_fd, struct file **file)
{
	struct kvm *kvm;

	*file = fget(vm_fd);
	if (!*file)
		return ERR_PTR(-EBADF);
	kvm = file_kvm(*file);
	if (kvm)
		return kvm;
	fput(*file);
	return ERR_PTR(-EINVAL);
}

/*
 * The process of a VM, referenced. KVM has only the number of the thread that
 * created the VM. That thread may have ended, and another one may have its
 * number; but it has another mm.
 */
static struct pid *vm_process(const struct kvm *kvm)
{
	struct task_struct *task = current;
	struct pid *process = NULL;

	rcu_read_lock();
	if (task->mm != kvm->mm)
		task = pid_task(find_pid_ns(kvm->userspace_pid, &init_pid_ns),
				PIDTYPE_PID);
	if (task && READ_ONCE(task->mm) == kvm->mm)
		process = get_pid(task_tgid(task));
	rcu_read_unlock();
	return process;
}

/**
 * doorbell_placement_create() - put a region onto the buses of a VM
 * @region: the region; the placement takes a reference
 * @vm_fd: file descriptor of the VM
 * @base: address of the region's first byte
 *
 * The device declines all writes until doorbell_placement_enable().
 *
 * Context: may sleep, killably, for as long as another process holds
 * kvm->slots_lock.
 * Return: the placement; or -EBADF, -EINVAL (not a VM), -ESRCH (its process is
 * gone), -EIO (it is dead), -EEXIST, -ENOMEM, -EINTR (killed). @region knows
 * the process of the VM then.
 */
struct doorbell_placement *
doorbell_placement_create(struct doorbell_region *region, int vm_fd, u64 base)
{
	struct doorbell_placement *p;
	struct module *owner;
	struct file *file;
	struct kvm *kvm;
	int ret;

	kvm = vm_fd_get(vm_fd, &file);
	if (IS_ERR(kvm))
		return ERR_CAST(kvm);
	ret = kvm_error(kvm);
	if (ret) {
		fput(file);
		return ERR_PTR(ret);
	}
	/* the file references both */
	owner = file->f_op->owner;
	__module_get(owner);
	kvm_get_kvm(kvm);
	fput(file);

	p = placement_alloc(region, base, kvm, owner);
	if (!p) {
		kvm_put_kvm(kvm);
		module_put(owner);
		return ERR_PTR(-ENOMEM);
	}
	region->vm_process = vm_process(kvm);
	placement_queue(p);
	ret = doorbell_placement_wait_added(p);
	if (ret) {
		placement_put(p);
		return ERR_PTR(ret);
	}
	return p;
}

/**
 * doorbell_placement_move() - prepare to put a region elsewhere on its buses
 * @from: the region's placement, which doorbell_placement_enable() enabled
 * @vm_fd: file descriptor of its VM
 * @base: address of the region's first byte
 *
 * doorbell_placement_start() begins the move. As soon as the new placement is
 * on the buses, it is enabled, @from is not on them any more, and the caller
 * has to drop its reference to @from. If that fails, nothing has changed.
 *
 * Context: may sleep.
 * Return: the new placement; or -EBADF, -EINVAL (not its VM), -EPIPE (the VM is
 * gone, or a bus), -ESRCH, -EIO, -ENOMEM, as doorbell_placement_create().
 */
struct doorbell_placement *
doorbell_placement_move(struct doorbell_placement *from, int vm_fd, u64 base)
{
	struct doorbell_placement *p;
	struct kvm *kvm, *of_file;
	struct file *file;
	int ret;

	of_file = vm_fd_get(vm_fd, &file);
	if (IS_ERR(of_file))
		return ERR_CAST(of_file);
	kvm = placement_get_kvm(from);
	ret = !kvm ? -EPIPE : kvm != of_file ? -EINVAL : kvm_error(kvm);
	fput(file);
	if (!ret) {
		p = placement_alloc(from->region, base, kvm, from->owner);
		if (p) {
			p->from = from;
			kref_get(&from->ref);
			return p;
		}
		ret = -ENOMEM;
	}
	if (kvm)
		placement_put_kvm(from, kvm);
	return ERR_PTR(ret);
}

/**
 * doorbell_placement_start() - begin what doorbell_placement_move() prepared
 * @p: the new placement; takes another reference for the caller
 *
 * Context: any but NMI. At most one move of a region is under way.
 */
void doorbell_placement_start(struct doorbell_placement *p)
{
	kref_get(&p->ref);
	placement_queue(p);
}

/**
 * doorbell_placement_cancel() - keep a placement off the buses
 * @p: the placement, which doorbell_placement_start() has started
 *
 * Context: any but NMI.
 * Return: true, or false if the placement is on the buses.
 */
bool doorbell_placement_cancel(struct doorbell_placement *p)
{
	bool cancelled;

	spin_lock(&p->lock);
	p->cancelled = true;
	cancelled = !p->ranges && !p->lost;
	spin_unlock(&p->lock);
	return cancelled;
}

/**
 * doorbell_placement_wait_added() - wait until a placement is on the buses
 * @p: the placement
 *
 * Context: may sleep, killably, for as long as another process holds
 * kvm->slots_lock.
 * Return: 0; or -EPIPE (its VM is gone, or a bus), -EEXIST, -ENOMEM, -EINTR
 * (killed or cancelled), and it will not be.
 */
int doorbell_placement_wait_added(struct doorbell_placement *p)
{
	if (wait_killable(&p->added)) {
		if (doorbell_placement_cancel(p))
			return -EINTR;
		/*
		 * Between the two the work item waits for no other process. It
		 * may drop the last reference to the VM, and destroy it.
		 */
		wait_for_completion(&p->added);
	}
	return p->error == -ENODEV ? -EPIPE : p->error;
}

/**
 * doorbell_placement_enable() - let a placement ring its region
 * @p: the placement
 *
 * Does nothing if KVM gave up one of its buses in the meantime.
 */
void doorbell_placement_enable(struct doorbell_placement *p)
{
	spin_lock(&p->lock);
	if (!p->lost)
		WRITE_ONCE(p->enabled, p->region);
	spin_unlock(&p->lock);
}

/**
 * doorbell_placement_remove() - begin to undo doorbell_placement_create()
 * @p: the placement
 *
 * The device declines writes from now on. It leaves its buses soon, but a
 * process that holds kvm->slots_lock, or a vCPU inside of kvm->srcu, can delay
 * that without end. A region that is put in its place waits for it.
 *
 * Context: any but NMI.
 */
void doorbell_placement_remove(struct doorbell_placement *p)
{
	spin_lock(&p->lock);
	WRITE_ONCE(p->enabled, NULL);
	spin_unlock(&p->lock);
	WRITE_ONCE(p->remove, true);
	placement_queue(p);
}

/**
 * doorbell_placement_wait() - wait until no vCPU rings through a placement
 * @p: the placement, which is being removed
 *
 * Context: sleeps, killably.
 * Return: 0, or -EINTR if the caller was killed.
 */
int doorbell_placement_wait(struct doorbell_placement *p)
{
	return wait_killable(&p->off);
}

/**
 * doorbell_placement_get() - reference a placement
 * @p: the placement, which the caller has a reference to, or a lock
 */
void doorbell_placement_get(struct doorbell_placement *p)
{
	kref_get(&p->ref);
}

/**
 * doorbell_placement_put() - drop a reference of the caller
 * @p: the placement, which is not on the buses, or is being removed
 *
 * Context: any but NMI; may sleep if it is a move that was not started.
 */
void doorbell_placement_put(struct doorbell_placement *p)
{
	placement_put(p);
}

/**
 * doorbell_kvm_init() - prepare for placements
 *
 * Return: 0 or -ENOMEM.
 */
int doorbell_kvm_init(void)
{
	doorbell_wq = alloc_workqueue("doorbell", WQ_UNBOUND, 0);
	return doorbell_wq ? 0 : -ENOMEM;
}

/**
 * doorbell_kvm_exit() - wait until all placements have left their buses
 *
 * Context: may sleep; there are no consumers any more.
 */
void doorbell_kvm_exit(void)
{
	/*
	 * A removal that has referenced the module makes rmmod fail. Wait for
	 * one that has not yet; the VMM can delay it without limit.
	 */
	while (atomic_read(&nr_placements))
		msleep(20);
	destroy_workqueue(doorbell_wq);
}
