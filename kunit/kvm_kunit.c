// SPDX-License-Identifier: GPL-2.0
/*
 * KVM: regions on the buses of a struct kvm that has nothing but buses.
 *
 * Two oracles: KVM's own kvm_io_bus_write(), where modules may call it, next to
 * a linear search that relies on no order; and the list of what has to be on
 * the bus. The regions are real: their buffers hold what a device got.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <kunit/test.h>

#include <linux/anon_inodes.h>
#include <linux/delay.h>
#include <linux/fdtable.h>
#include <linux/kthread.h>
#include <linux/kvm_host.h>
#include <linux/module.h>
#include <linux/sched/task.h>
#include <linux/slab.h>
#include <linux/srcu.h>

#include <kvm/iodev.h>

/* How many allocations succeed before all fail; negative: all succeed. */
static int allocations_left;

static unsigned long *kvm_test_bitmap_alloc(unsigned int nbits, gfp_t gfp)
{
	int left = READ_ONCE(allocations_left);

	if (!left)
		return NULL;
	if (left > 0)
		WRITE_ONCE(allocations_left, left - 1);
	return bitmap_alloc(nbits, gfp);
}

static void kvm_test_put_kvm(struct kvm *kvm);

/*
 * Allocations of buses alone fail on demand, in every kernel. The last
 * reference to a VM destroys its buses, and nothing else.
 */
#define bitmap_alloc kvm_test_bitmap_alloc
#define kvm_put_kvm kvm_test_put_kvm
#include "../drivers/virt/doorbell/kvm.c"
#undef bitmap_alloc
#undef kvm_put_kvm

#include "buffer_util.h"

#define OTHERS		1100
#define CALLS		16

struct fixture;

/**
 * struct other - a device that is not ours, and its range
 * @dev: the device
 * @f: the test's state
 * @addr: its address
 * @len: its length, 0 for any access at @addr
 * @accepts: handles the access; else KVM asks the next one
 */
struct other {
	struct kvm_io_device dev;
	struct fixture *f;
	u64 addr;
	int len;
	bool accepts;
};

/**
 * struct call - a write that another device got
 * @dev: the device
 * @addr: the address
 * @width: the size
 */
struct call {
	const void *dev;
	u64 addr;
	int width;
};

/**
 * struct fixture - a VM of nothing but buses, and what happened on them
 * @kvm: the VM
 * @vcpu: its vCPU, which writes
 * @others: other devices
 * @nr_others: how many of them were put onto the bus
 * @calls: the first writes that these got
 * @nr_calls: how many writes these got
 * @changes: what the placements of the VM share
 */
struct fixture {
	struct kvm *kvm;
	struct kvm_vcpu *vcpu;
	struct other *others;
	int nr_others;
	struct call calls[CALLS];
	int nr_calls;
	struct vm_changes changes;
};

/**
 * struct attached - one region and its placement
 * @region: the region
 * @p: its placement
 * @f: the test's state
 */
struct attached {
	struct doorbell_region *region;
	struct doorbell_placement p;
	struct fixture *f;
};

KUNIT_DEFINE_ACTION_WRAPPER(put_region, doorbell_region_put,
			    struct doorbell_region *);
KUNIT_DEFINE_ACTION_WRAPPER(put_waiters, doorbell_waiters_put,
			    struct doorbell_waiters *);

static void log_call(struct fixture *f, const void *dev, u64 addr, int width)
{
	if (f->nr_calls < CALLS)
		f->calls[f->nr_calls] = (struct call) {
			.dev = dev, .addr = addr, .width = width,
		};
	f->nr_calls++;
}

/* As kvm_destroy_vm() destroys a bus. */
static void destroy_bus(struct kvm *kvm, enum kvm_bus idx)
{
	struct kvm_io_bus *bus = rcu_dereference_protected(kvm->buses[idx],
							   true);
	int i;

	RCU_INIT_POINTER(kvm->buses[idx], NULL);
	for (i = 0; bus && i < bus->dev_count; i++)
		if (bus->range[i].dev->ops->destructor)
			bus->range[i].dev->ops->destructor(bus->range[i].dev);
	kfree(bus);
}

static void kvm_test_put_kvm(struct kvm *kvm)
{
	int i;

	if (refcount_dec_and_test(&kvm->users_count))
		for (i = 0; i < KVM_NR_BUSES; i++)
			destroy_bus(kvm, i);
}

static int other_write(struct kvm_vcpu *vcpu, struct kvm_io_device *dev,
		       gpa_t addr, int len, const void *val)
{
	struct other *other = container_of(dev, struct other, dev);

	log_call(other->f, dev, addr, len);
	return other->accepts ? 0 : -EOPNOTSUPP;
}

static const struct kvm_io_device_ops other_ops = {
	.write = other_write,
};

/* The descriptor of the VM that attach() used last, for moves; or -1 */
static int move_fd = -1;

static int kvm_test_init(struct kunit *test)
{
	struct fixture *f = kunit_kzalloc(test, sizeof(*f), GFP_KERNEL);
	int i;

	allocations_left = -1;
	if (!f || doorbell_kvm_init())
		return -ENOMEM;
	f->kvm = kvzalloc(sizeof(*f->kvm), GFP_KERNEL);
	f->vcpu = kvzalloc(sizeof(*f->vcpu), GFP_KERNEL);
	f->others = kvcalloc(OTHERS, sizeof(*f->others), GFP_KERNEL);
	if (!f->kvm || !f->vcpu || !f->others ||
	    init_srcu_struct(&f->kvm->srcu)) {
		kvfree(f->others);
		kvfree(f->vcpu);
		kvfree(f->kvm);
		return -ENOMEM;
	}

	mutex_init(&f->kvm->slots_lock);
	refcount_set(&f->kvm->users_count, 1);
	f->vcpu->kvm = f->kvm;
	for (i = 0; i < OTHERS; i++) {
		f->others[i].f = f;
		kvm_iodevice_init(&f->others[i].dev, &other_ops);
	}
	for (i = 0; i < KVM_NR_BUSES; i++)
		rcu_assign_pointer(f->kvm->buses[i],
				   kzalloc(sizeof(struct kvm_io_bus),
					   GFP_KERNEL));
	test->priv = f;
	return 0;
}

static struct kvm_io_bus *fixture_bus(struct fixture *f, enum kvm_bus idx)
{
	return rcu_dereference_protected(f->kvm->buses[idx], true);
}

static void kvm_test_exit(struct kunit *test)
{
	struct fixture *f = test->priv;
	int i;

	if (!f)
		return;
	if (move_fd >= 0)
		close_fd(move_fd);
	move_fd = -1;
	doorbell_kvm_exit();
	for (i = 0; i < KVM_NR_BUSES; i++)
		kfree(fixture_bus(f, i));
	cleanup_srcu_struct(&f->kvm->srcu);
	kvfree(f->others);
	kvfree(f->vcpu);
	kvfree(f->kvm);
}

/* Append another device to a bus. */
static struct other *add_other(struct kunit *test, enum kvm_bus idx, u64 addr,
			       int len, bool ioeventfd)
{
	struct fixture *f = test->priv;
	struct kvm_io_bus *old = fixture_bus(f, idx);
	struct kvm_io_bus *new;
	struct other *other;

	KUNIT_ASSERT_LT(test, f->nr_others, OTHERS);
	new = kzalloc(struct_size(new, range, old->dev_count + 1), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, new);
	memcpy(new, old, struct_size(old, range, old->dev_count));
	other = &f->others[f->nr_others++];
	other->addr = addr;
	other->len = len;
	new->range[new->dev_count++] = (struct kvm_io_range) {
		.addr = addr, .len = len, .dev = &other->dev,
	};
	new->ioeventfd_count += ioeventfd;
	/* no reader yet */
	rcu_assign_pointer(f->kvm->buses[idx], new);
	kfree(old);
	return other;
}

/* The smallest stride that makes a region of this. */
static u32 smallest_stride(u64 len)
{
	u32 stride = DOORBELL_STRIDE_MIN;

	while (len > (u64)stride * DOORBELL_QUEUES_MAX)
		stride *= 2;
	return stride;
}

/* A place for a region, which is on no bus yet */
static struct attached *new_place(struct kunit *test,
				  struct doorbell_region *region, u64 base)
{
	struct attached *a = kunit_kzalloc(test, sizeof(*a), GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, a);
	a->region = region;
	a->f = test->priv;
	/* KUnit frees it: keep one reference to the end */
	a->p.region = region;
	a->p.base = base;
	a->p.vm = &a->f->changes;
	spin_lock_init(&a->p.lock);
	init_completion(&a->p.off);
	kref_init(&a->p.ref);
	INIT_DELAYED_WORK(&a->p.work, placement_work);
	kvm_iodevice_init(&a->p.dev, region_ops(region));
	return a;
}

static struct attached *new_region_flags(struct kunit *test, u64 base, u64 len,
					 u32 flags, u32 depth)
{
	struct doorbell_attach arg = {
		.base = base, .len = len, .stride = smallest_stride(len),
		.flags = flags, .depth = depth,
	};
	struct doorbell_waiters *waiters = doorbell_waiters_create();
	struct doorbell_region *region;
	struct attached *a;

	KUNIT_ASSERT_NOT_NULL(test, waiters);
	KUNIT_ASSERT_EQ(test, 0, kunit_add_action_or_reset(test, put_waiters,
							   waiters));
	region = doorbell_region_create(&arg, waiters);
	KUNIT_ASSERT_FALSE(test, IS_ERR(region));
	KUNIT_ASSERT_EQ(test, 0, kunit_add_action_or_reset(test, put_region,
							   region));
	a = new_place(test, region, base);
	a->p.enabled = region;
	return a;
}

static struct attached *new_region(struct kunit *test, enum kvm_bus idx,
				   u64 base, u64 len)
{
	return new_region_flags(test, base, len, idx == KVM_PIO_BUS ?
				DOORBELL_ATTACH_PIO : 0, 0);
}

/* Change the buses as the work item does, and wait for the grace period. */
static int change_buses(struct fixture *f, struct attached *off,
			struct attached *on)
{
	struct attached *a = on ?: off;
	int ret;

	a->p.from = off && on ? &off->p : NULL;
	mutex_lock(&f->kvm->slots_lock);
	ret = buses_change(f->kvm, off ? &off->p : NULL, on ? &on->p : NULL);
	mutex_unlock(&f->kvm->slots_lock);
	a->p.from = NULL;
	synchronize_srcu(&f->kvm->srcu);
	grace_end(&a->p);
	return ret;
}

static int add(struct attached *a)
{
	return change_buses(a->f, NULL, a);
}

/* Undo add(), and drop the reference that it took. */
static int take_off(struct attached *a)
{
	int ret = change_buses(a->f, a, NULL);

	if (!ret)
		placement_put(&a->p);
	return ret;
}

/* Put @on in the place of @off, and drop the reference of that one's buses. */
static int move(struct attached *off, struct attached *on)
{
	int ret = change_buses(on->f, off, on);

	if (!ret)
		placement_put(&off->p);
	return ret;
}

/* Consume the events of the region. */
static unsigned int events_of(struct attached *a, struct doorbell_event *events,
			      unsigned int max)
{
	bool wake = false;

	return consume_events(&a->region->buffer, events, max, &wake);
}

/*
 * Check that the bus holds the other devices as they were added, all of each
 * region of @regions (which ends with NULL), and nothing else, in order.
 */
static void check_bus(struct kunit *test, enum kvm_bus idx,
		      struct attached **regions)
{
	struct fixture *f = test->priv;
	struct kvm_io_bus *bus = fixture_bus(f, idx);
	int i, j, other = 0, found = 0;
	u64 next;

	KUNIT_ASSERT_NOT_NULL(test, bus);
	for (i = 1; i < bus->dev_count; i++)
		KUNIT_ASSERT_LE(test, bus->range[i - 1].addr,
				bus->range[i].addr);
	for (; *regions; regions++) {
		next = (*regions)->p.base;
		for (i = 0; i < bus->dev_count; i++) {
			if (bus->range[i].dev != &(*regions)->p.dev)
				continue;
			KUNIT_ASSERT_EQ(test, bus->range[i].addr, next);
			KUNIT_ASSERT_GT(test, bus->range[i].len, 0);
			next += bus->range[i].len;
			found++;
		}
		KUNIT_ASSERT_EQ(test, next, (*regions)->p.base +
				(*regions)->region->geo.len);
	}
	for (i = 0; i < bus->dev_count; i++) {
		for (j = other; j < f->nr_others; j++)
			if (bus->range[i].dev == &f->others[j].dev)
				break;
		if (j == f->nr_others)
			continue;
		/* in the order in which they were added */
		KUNIT_ASSERT_EQ(test, j, other);
		KUNIT_ASSERT_EQ(test, bus->range[i].addr, f->others[j].addr);
		KUNIT_ASSERT_EQ(test, bus->range[i].len, f->others[j].len);
		other++;
	}
	KUNIT_ASSERT_EQ(test, other, f->nr_others);
	KUNIT_ASSERT_EQ(test, bus->dev_count, other + found);
}

static void check_bus_one(struct kunit *test, enum kvm_bus idx,
			  struct attached *a)
{
	struct attached *regions[] = { a, NULL };

	check_bus(test, idx, regions);
}

#ifdef EXPORT_SYMBOL_FOR_KVM_INTERNAL
#define KVM_CAN_WRITE	false

static int kvm_write(struct fixture *f, enum kvm_bus idx, u64 addr, int len,
		     const void *val)
{
	return -EOPNOTSUPP;
}
#else
#define KVM_CAN_WRITE	true

/* Write as a vCPU does. */
static int kvm_write(struct fixture *f, enum kvm_bus idx, u64 addr, int len,
		     const void *val)
{
	int srcu, ret;

	srcu = srcu_read_lock(&f->kvm->srcu);
	ret = kvm_io_bus_write(f->vcpu, idx, addr, len, val);
	srcu_read_unlock(&f->kvm->srcu, srcu);
	return ret;
}
#endif

static void skip_without_search(struct kunit *test)
{
	if (!KVM_CAN_WRITE)
		kunit_skip(test, "KVM does not export kvm_io_bus_write()");
}

static int bus_write(struct fixture *f, enum kvm_bus idx, u64 addr, int len,
		     const void *val)
{
	f->nr_calls = 0;
	return kvm_write(f, idx, addr, len, val);
}

/* Is an access inside of a range? Length 0 is any access at @base. */
static bool inside(u64 addr, int len, u64 base, u64 size)
{
	int i;

	if (!size)
		return addr == base;
	for (i = 0; i < len; i++)
		if (addr + i < base || addr + i - base >= size)
			return false;
	return true;
}

/*
 * Write through KVM. The write must ring @a if all of it is inside of @a.
 * Otherwise KVM must offer it, in order, to each other device that contains it,
 * until one accepts.
 */
static void check_write(struct kunit *test, enum kvm_bus idx,
			struct attached *a, u64 addr, int len)
{
	struct fixture *f = test->priv;
	u64 value = 0x8877665544332211;
	struct doorbell_event event;
	int i, ret, expected = 0;
	bool handled = false;

	ret = bus_write(f, idx, addr, len, &value);
	if (a && inside(addr, len, a->p.base, a->region->geo.len)) {
		KUNIT_ASSERT_EQ_MSG(test, ret, 0, "addr %#llx len %d", addr,
				    len);
		KUNIT_ASSERT_EQ(test, f->nr_calls, 0);
		KUNIT_ASSERT_EQ(test, 1, events_of(a, &event, 1));
		KUNIT_ASSERT_EQ(test, event.queue, (addr - a->p.base) /
				smallest_stride(a->region->geo.len));
		KUNIT_ASSERT_EQ(test, event.width, len);
		KUNIT_ASSERT_EQ(test, event.count, 1);
		return;
	}
	if (a)
		KUNIT_ASSERT_EQ(test, 0, events_of(a, &event, 1));

	for (i = 0; i < f->nr_others && !handled; i++) {
		struct other *other = &f->others[i];

		if (!inside(addr, len, other->addr, other->len))
			continue;
		KUNIT_ASSERT_LT_MSG(test, expected, f->nr_calls,
				    "addr %#llx len %d", addr, len);
		KUNIT_ASSERT_PTR_EQ(test, f->calls[expected].dev,
				    (const void *)&other->dev);
		KUNIT_ASSERT_EQ(test, f->calls[expected].addr, addr);
		KUNIT_ASSERT_EQ(test, f->calls[expected].width, len);
		expected++;
		handled = other->accepts;
	}
	KUNIT_ASSERT_EQ_MSG(test, f->nr_calls, expected, "addr %#llx len %d",
			    addr, len);
	KUNIT_ASSERT_EQ_MSG(test, ret, handled ? 0 : -EOPNOTSUPP,
			    "addr %#llx len %d", addr, len);
}

static void check_writes(struct kunit *test, enum kvm_bus idx,
			 struct attached *a, u64 from, u64 to)
{
	int len;

	for (; from != to; from++)
		for (len = 1; len <= 8; len++)
			check_write(test, idx, a, from, len);
}

/* Every access at and around a region with direct neighbours. */
static void bus_edges(struct kunit *test)
{
	struct attached *a = new_region(test, KVM_MMIO_BUS, 80, 12);

	skip_without_search(test);
	check_writes(test, KVM_MMIO_BUS, NULL, 60, 112);
	KUNIT_ASSERT_EQ(test, add(a), 0);
	check_bus_one(test, KVM_MMIO_BUS, a);
	check_writes(test, KVM_MMIO_BUS, a, 60, 112);
	take_off(a);
	check_bus_one(test, KVM_MMIO_BUS, NULL);
	check_writes(test, KVM_MMIO_BUS, NULL, 60, 112);

	add_other(test, KVM_MMIO_BUS, 68, 4, true);
	add_other(test, KVM_MMIO_BUS, 72, 8, false);
	add_other(test, KVM_MMIO_BUS, 92, 0, true)->accepts = true;
	add_other(test, KVM_MMIO_BUS, 93, 7, false)->accepts = true;
	check_writes(test, KVM_MMIO_BUS, NULL, 60, 112);
	KUNIT_ASSERT_EQ(test, add(a), 0);
	check_bus_one(test, KVM_MMIO_BUS, a);
	check_writes(test, KVM_MMIO_BUS, a, 60, 112);
	take_off(a);
	check_bus_one(test, KVM_MMIO_BUS, NULL);
	check_writes(test, KVM_MMIO_BUS, NULL, 60, 112);
}

/* 1,000 other devices; as with ioeventfds, several share an address. */
static void bus_crowd(struct kunit *test)
{
	enum kvm_bus idx = KVM_MMIO_BUS;
	struct attached *a = new_region(test, idx, 0x10000, 0x4000);
	struct fixture *f = test->priv;
	int i, round;
	u64 addr;

	skip_without_search(test);
	for (i = 0; i < 1000; i++) {
		addr = (i < 500 ? 0x8000 : 0x20000) + i / 4 * 16;
		/* lengths 1, 2 and 4 at one address, then any length */
		if (i % 4 == 3)
			add_other(test, idx, addr + 8, 0, true);
		else
			add_other(test, idx, addr, 1 << i % 4, i % 4 == 2);
		f->others[i].accepts = i % 3 == 0;
	}
	for (round = 0; round < 2; round++) {
		KUNIT_ASSERT_EQ(test, add(a), 0);
		check_bus_one(test, idx, a);
		for (i = round; i < 1000; i += 2) {
			check_write(test, idx, a, f->others[i].addr, 2);
			check_write(test, idx, a, f->others[i].addr, 4);
		}
		check_writes(test, idx, a, 0xfff0, 0x10010);
		check_writes(test, idx, a, 0x13ff0, 0x14010);
		take_off(a);
		check_bus_one(test, idx, NULL);
		for (i = 0; i < 1000; i += 7)
			check_write(test, idx, NULL, f->others[i].addr, 4);
		check_write(test, idx, NULL, 0x10000, 4);
	}
}

/* Another device at 0x1000 and regions around it; 0x100 bytes long or not. */
static void bus_exists(struct kunit *test)
{
	static const struct {
		u64 addr;
		int len;	/* of the other device */
		u64 base;
		u64 size;	/* of the region */
		int ret;
	} cases[] = {
		/* the same, inside of it, around it */
		{ 0x1000, 0x100, 0x1000, 0x100, -EEXIST },
		{ 0x1000, 0x100, 0x1040, 0x40, -EEXIST },
		{ 0x1000, 0x100, 0x1000, 4, -EEXIST },
		{ 0x1000, 0x100, 0x10fc, 4, -EEXIST },
		{ 0x1000, 0x100, 0x0ffc, 0x108, -EEXIST },
		{ 0x1000, 4, 0x0ffc, 0xc, -EEXIST },
		/* partly, at either end */
		{ 0x1000, 0x100, 0x0ffc, 8, -EEXIST },
		{ 0x1000, 0x100, 0x10fc, 8, -EEXIST },
		{ 0x1001, 1, 0x1000, 4, -EEXIST },
		{ 0x1003, 1, 0x1000, 4, -EEXIST },
		{ 0x0fff, 2, 0x1000, 4, -EEXIST },
		{ 0x1003, 2, 0x1000, 4, -EEXIST },
		/* adjacent, apart */
		{ 0x1000, 0x100, 0x1100, 4, 0 },
		{ 0x1000, 0x100, 0x0ffc, 4, 0 },
		{ 0x0fff, 1, 0x1000, 4, 0 },
		{ 0x1004, 1, 0x1000, 4, 0 },
		{ 0x1000, 0x100, 0, 4, 0 },
		{ 0x1000, 0x100, 0x100001000, 4, 0 },
		/* any length */
		{ 0x1000, 0, 0x1000, 4, -EEXIST },
		{ 0x1001, 0, 0x1000, 4, -EEXIST },
		{ 0x1003, 0, 0x1000, 4, -EEXIST },
		{ 0x1004, 0, 0x1000, 4, 0 },
		{ 0x0fff, 0, 0x1000, 4, 0 },
		/* the ends of the address space */
		{ 0, 4, 0, 4, -EEXIST },
		{ 0, 0, 0, 4, -EEXIST },
		{ 4, 0, 0, 4, 0 },
		{ 0xfffffffffffffffc, 4, 0xfffffffffffffff8, 4, 0 },
		{ 0xfffffffffffffff8, 8, 0xfffffffffffffff8, 4, -EEXIST },
		{ 0xfffffffffffffff8, 8, 0xfffffffffffffff4, 4, 0 },
		{ 0xffffffffffffffff, 0, 0xfffffffffffffff8, 4, 0 },
		/* beyond what an int holds */
		{ 0x80000000, 4, 0, 0xffff0000, -EEXIST },
		{ 0xfffefffc, 4, 0, 0xffff0000, -EEXIST },
		{ 0xffff0000, 4, 0, 0xffff0000, 0 },
		{ 0x40000000, 0x7fffffff, 0xbfff0000, 0x10000, -EEXIST },
		{ 0x40000000, 0x7fff0000, 0xbfff0000, 0x10000, 0 },
	};
	struct fixture *f = test->priv;
	struct kvm_io_bus *before;
	struct attached *a;
	int i;

	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		f->nr_others = 0;
		fixture_bus(f, KVM_MMIO_BUS)->dev_count = 0;
		add_other(test, KVM_MMIO_BUS, cases[i].addr, cases[i].len,
			  false);
		before = fixture_bus(f, KVM_MMIO_BUS);
		a = new_region(test, KVM_MMIO_BUS, cases[i].base,
			       cases[i].size);
		KUNIT_ASSERT_EQ_MSG(test, add(a), cases[i].ret,
				    "other %#llx %#x, region %#llx %#llx",
				    cases[i].addr, cases[i].len, cases[i].base,
				    cases[i].size);
		if (cases[i].ret)
			KUNIT_ASSERT_PTR_EQ(test, before,
					    fixture_bus(f, KVM_MMIO_BUS));
		if (cases[i].ret)
			a = NULL;
		check_bus_one(test, KVM_MMIO_BUS, a);
	}
}

/* Other regions are other devices, and the PIO bus is another bus. */
static void bus_regions(struct kunit *test)
{
	struct attached *a[4] = {
		new_region(test, KVM_MMIO_BUS, 0x1000, 0x1000),
		new_region(test, KVM_MMIO_BUS, 0x3000, 0x1000),
		new_region(test, KVM_MMIO_BUS, 0x2000, 0x1000),
	};
	struct attached *pio = new_region(test, KVM_PIO_BUS, 0x2000, 0x1000);
	struct attached *bad = new_region(test, KVM_MMIO_BUS, 0x2ffe, 2);
	struct attached *two[] = { a[0], a[1], NULL };

	KUNIT_ASSERT_EQ(test, add(a[0]), 0);
	KUNIT_ASSERT_EQ(test, add(a[1]), 0);
	KUNIT_ASSERT_EQ(test, add(pio), 0);
	check_bus(test, KVM_MMIO_BUS, two);
	check_bus_one(test, KVM_PIO_BUS, pio);
	KUNIT_ASSERT_EQ(test, add(a[2]), 0);
	KUNIT_ASSERT_EQ(test, add(bad), -EEXIST);
	check_bus(test, KVM_MMIO_BUS, a);
	check_bus_one(test, KVM_PIO_BUS, pio);
	check_bus_one(test, KVM_FAST_MMIO_BUS, NULL);
	take_off(a[2]);
	check_bus(test, KVM_MMIO_BUS, two);
	take_off(pio);
	check_bus(test, KVM_MMIO_BUS, two);
	check_bus_one(test, KVM_PIO_BUS, NULL);
	KUNIT_ASSERT_EQ(test, add(bad), 0);
}

/* A write on one bus does not reach the other. */
static void bus_separate(struct kunit *test)
{
	struct attached *mmio = new_region(test, KVM_MMIO_BUS, 0x1000, 0x10);
	struct attached *pio = new_region(test, KVM_PIO_BUS, 0x1008, 0x10);

	skip_without_search(test);
	KUNIT_ASSERT_EQ(test, add(mmio), 0);
	KUNIT_ASSERT_EQ(test, add(pio), 0);
	check_writes(test, KVM_MMIO_BUS, mmio, 0xff8, 0x1020);
	check_writes(test, KVM_PIO_BUS, pio, 0xff8, 0x1020);
	check_writes(test, KVM_FAST_MMIO_BUS, NULL, 0xff8, 0x1020);
	take_off(mmio);
	check_writes(test, KVM_MMIO_BUS, NULL, 0xff8, 0x1020);
	check_writes(test, KVM_PIO_BUS, pio, 0xff8, 0x1020);
}

/* Has KVM room for a device of its own? As kvm_io_bus_register_dev(). */
static bool bus_has_room(const struct kvm_io_bus *bus)
{
	return bus->dev_count - bus->ioeventfd_count <= NR_IOBUS_DEVS - 1;
}

/* Descriptors limit regions: they take no room from KVM's own devices. */
static void bus_room_of_others(struct kunit *test)
{
	static const struct {
		int devices;
		int ioeventfds;
		u64 size;	/* of the region, which has a range per GiB */
		int ranges;
	} cases[] = {
		{ 999, 0, 4, 1 },
		{ 1000, 0, 4, 1 },
		{ 999, 50, 4, 1 },
		{ 0, 1100, 4, 1 },
		{ 999, 0, 0xffff0000, 4 },
		{ 1000, 50, 0xffff0000, 4 },
		{ 999, 0, 0x40010000, 2 },
	};
	struct fixture *f = test->priv;
	struct kvm_io_bus *bus;
	struct attached *a;
	int i, j, n;

	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		n = cases[i].devices + cases[i].ioeventfds;
		bus = kzalloc(struct_size(bus, range, n), GFP_KERNEL);
		KUNIT_ASSERT_NOT_NULL(test, bus);
		bus->dev_count = n;
		bus->ioeventfd_count = cases[i].ioeventfds;
		for (j = 0; j < n; j++) {
			f->others[j].addr = 0x200000000 + j * 8;
			f->others[j].len = 8;
			bus->range[j].addr = f->others[j].addr;
			bus->range[j].len = f->others[j].len;
			bus->range[j].dev = &f->others[j].dev;
		}
		f->nr_others = n;
		kfree(fixture_bus(f, KVM_MMIO_BUS));
		rcu_assign_pointer(f->kvm->buses[KVM_MMIO_BUS], bus);

		a = new_region(test, KVM_MMIO_BUS, 0, cases[i].size);
		KUNIT_ASSERT_EQ(test, add(a), 0);
		check_bus_one(test, KVM_MMIO_BUS, a);
		bus = fixture_bus(f, KVM_MMIO_BUS);
		KUNIT_ASSERT_EQ(test, bus->ioeventfd_count,
				cases[i].ioeventfds + cases[i].ranges);
		KUNIT_ASSERT_EQ(test, bus_has_room(bus),
				cases[i].devices < 1000);
		KUNIT_ASSERT_EQ(test, take_off(a), 0);
		check_bus_one(test, KVM_MMIO_BUS, NULL);
		bus = fixture_bus(f, KVM_MMIO_BUS);
		KUNIT_ASSERT_EQ(test, bus->ioeventfd_count,
				cases[i].ioeventfds);
	}
}

/* Attach fails without memory, and without a bus that KVM gave up. */
static void bus_no_memory(struct kunit *test)
{
	struct attached *a = new_region(test, KVM_MMIO_BUS, 0x1000, 4);
	struct fixture *f = test->priv;
	struct kvm_io_bus *bus = fixture_bus(f, KVM_MMIO_BUS);

	allocations_left = 0;
	KUNIT_EXPECT_EQ(test, add(a), -ENOMEM);
	allocations_left = -1;
	KUNIT_EXPECT_PTR_EQ(test, bus, fixture_bus(f, KVM_MMIO_BUS));
	check_bus_one(test, KVM_MMIO_BUS, NULL);
	/* more bytes than an unsigned int has bits for */
	KUNIT_EXPECT_NULL(test, bus_alloc(SZ_512M / sizeof(bus->range[0])));

	RCU_INIT_POINTER(f->kvm->buses[KVM_MMIO_BUS], NULL);
	KUNIT_EXPECT_EQ(test, add(a), -ENOMEM);
	KUNIT_EXPECT_NULL(test, fixture_bus(f, KVM_MMIO_BUS));
	rcu_assign_pointer(f->kvm->buses[KVM_MMIO_BUS], bus);
}

/* A failed attach leaves neither of two buses changed. */
static void bus_no_memory_for_second(struct kunit *test)
{
	struct attached *a = new_region_flags(test, 80, 12,
					      DOORBELL_ATTACH_NO_VALUE, 0);
	struct fixture *f = test->priv;
	struct kvm_io_bus *mmio = fixture_bus(f, KVM_MMIO_BUS);
	struct kvm_io_bus *fast = fixture_bus(f, KVM_FAST_MMIO_BUS);

	allocations_left = 1;
	KUNIT_EXPECT_EQ(test, add(a), -ENOMEM);
	allocations_left = -1;
	KUNIT_EXPECT_PTR_EQ(test, mmio, fixture_bus(f, KVM_MMIO_BUS));
	KUNIT_EXPECT_PTR_EQ(test, fast, fixture_bus(f, KVM_FAST_MMIO_BUS));

	KUNIT_ASSERT_EQ(test, add(a), 0);
	mmio = fixture_bus(f, KVM_MMIO_BUS);
	fast = fixture_bus(f, KVM_FAST_MMIO_BUS);
	allocations_left = 1;
	KUNIT_EXPECT_EQ(test, take_off(a), -ENOMEM);
	allocations_left = -1;
	KUNIT_EXPECT_PTR_EQ(test, mmio, fixture_bus(f, KVM_MMIO_BUS));
	KUNIT_EXPECT_PTR_EQ(test, fast, fixture_bus(f, KVM_FAST_MMIO_BUS));
	KUNIT_EXPECT_EQ(test, take_off(a), 0);
}

/* Write at both ends of a region, and at its seams. */
static void check_huge(struct kunit *test, struct attached *a)
{
	enum kvm_bus idx = KVM_MMIO_BUS;
	u64 base = a->p.base;
	u64 size = a->region->geo.len;
	u64 offset;
	int len;

	if (base)
		check_writes(test, idx, a, base - 12, base);
	check_writes(test, idx, a, base, base + 12);
	check_writes(test, idx, a, base + size - 12, base + size + 12);
	/* KVM cuts an access at the end of a page, so at each seam */
	for (offset = SZ_1G; offset < size; offset += SZ_1G) {
		for (len = 1; len <= 8; len++) {
			check_write(test, idx, a, base + offset - len, len);
			check_write(test, idx, a, base + offset, len);
			check_write(test, idx, a, base + offset + 4, len);
		}
	}
}

/* Moving */

/* From each of some places to each other one, which may overlap */
static void bus_moves(struct kunit *test)
{
	static const u64 places[] = {
		0x700, 0x1000, 0x1002, 0x1080, 0x10fe, 0x1100, 0x1300, 0x2500,
		0x3000, 0x5000,
	};
	struct attached *a = new_region(test, KVM_MMIO_BUS, 0x1000, 0x100);
	enum kvm_bus idx = KVM_MMIO_BUS;
	struct fixture *f = test->priv;
	struct attached *from, *to;
	int i, j, count;

	/* next to places, between them, and beyond them all */
	add_other(test, idx, 0x600, 8, false);
	add_other(test, idx, 0x800, 8, true);
	add_other(test, idx, 0x1400, 0, true);
	add_other(test, idx, 0x2400, 1, false);
	add_other(test, idx, 0x2400, 4, true);
	add_other(test, idx, 0x4000, 8, false);
	add_other(test, idx, 0x6000, 8, true);
	count = fixture_bus(f, idx)->ioeventfd_count;

	for (i = 0; i < ARRAY_SIZE(places); i++) {
		for (j = 0; j < ARRAY_SIZE(places); j++) {
			from = new_place(test, a->region, places[i]);
			to = new_place(test, a->region, places[j]);
			KUNIT_ASSERT_EQ(test, 0, add(from));
			KUNIT_ASSERT_EQ(test, 0, move(from, to));
			check_bus_one(test, idx, to);
			KUNIT_ASSERT_EQ(test, count + 1,
					fixture_bus(f, idx)->ioeventfd_count);
			KUNIT_ASSERT_EQ(test, 1, kref_read(&from->p.ref));
			KUNIT_ASSERT_EQ(test, 2, kref_read(&to->p.ref));
			KUNIT_ASSERT_NULL(test, from->p.kvm);
			KUNIT_ASSERT_PTR_EQ(test, f->kvm, to->p.kvm);
			/* as if another thread enabled it */
			KUNIT_ASSERT_PTR_EQ(test, a->region, to->p.enabled);
			if (KVM_CAN_WRITE) {
				check_writes(test, idx, to, places[i] - 9,
					     places[i] + 3);
				check_writes(test, idx, to, places[i] + 0xf6,
					     places[i] + 0x104);
				check_writes(test, idx, to, places[j] - 9,
					     places[j] + 3);
				check_writes(test, idx, to, places[j] + 0xf6,
					     places[j] + 0x104);
				check_write(test, idx, to, 0x2400, 4);
			}
			KUNIT_ASSERT_EQ(test, 0, take_off(to));
			check_bus_one(test, idx, NULL);
		}
	}
}

/* A region without values moves on both buses. */
static void bus_moves_on_two(struct kunit *test)
{
	static const u64 places[] = { 80, 82, 90, 92, 200, 40 };
	struct attached *a = new_region_flags(test, 80, 12,
					      DOORBELL_ATTACH_NO_VALUE, 0);
	struct fixture *f = test->priv;
	struct doorbell_event event;
	struct attached *from, *to;
	u64 addr, base;
	int i;

	add_other(test, KVM_MMIO_BUS, 120, 4, false);
	from = new_place(test, a->region, 80);
	KUNIT_ASSERT_EQ(test, 0, add(from));
	for (i = 0; i < ARRAY_SIZE(places); i++) {
		base = places[i];
		to = new_place(test, a->region, base);
		KUNIT_ASSERT_EQ(test, 0, move(from, to));
		check_bus_one(test, KVM_MMIO_BUS, to);
		KUNIT_ASSERT_EQ(test, 1, fixture_bus(f, KVM_FAST_MMIO_BUS)
				->dev_count);
		KUNIT_ASSERT_PTR_EQ(test, &to->p.dev,
				    fixture_bus(f, KVM_FAST_MMIO_BUS)
				    ->range[0].dev);
		for (addr = 30; KVM_CAN_WRITE && addr < 230; addr++) {
			bool within = addr >= base && addr < base + 12;

			KUNIT_ASSERT_EQ(test, within ? 0 : -EOPNOTSUPP,
					bus_write(f, KVM_FAST_MMIO_BUS, addr, 0,
						  NULL));
			KUNIT_ASSERT_EQ(test, within,
					events_of(a, &event, 1));
			if (within)
				KUNIT_ASSERT_EQ(test, event.queue,
						(addr - base) / 2);
		}
		from = to;
	}
	KUNIT_ASSERT_EQ(test, 0, take_off(from));
}

/* Large regions move with all of their ranges. */
static void bus_moves_huge(struct kunit *test)
{
	static const u64 sizes[] = {
		0x40000000, 0x40010000, 0x80010000, 0xffff0000,
	};
	static const u64 places[] = {
		0x200000000, 0x200010000, 0x220000000, 0x240000000,
		0x200000000, 0x400000000, 0x700000000, 0, 0x200000000,
	};
	enum kvm_bus idx = KVM_MMIO_BUS;
	struct fixture *f = test->priv;
	struct attached *from, *to;
	int i, j;

	add_other(test, idx, 0x100000000, 8, false);
	add_other(test, idx, 0x390000000, 8, false);
	add_other(test, idx, 0x600000000, 8, true);
	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		from = new_region(test, idx, places[0], sizes[i]);
		KUNIT_ASSERT_EQ(test, 0, add(from));
		for (j = 1; j < ARRAY_SIZE(places); j++) {
			to = new_place(test, from->region, places[j]);
			KUNIT_ASSERT_EQ(test, 0, move(from, to));
			check_bus_one(test, idx, to);
			KUNIT_ASSERT_EQ(test, fixture_bus(f, idx)
					->ioeventfd_count,
					1 + DIV_ROUND_UP(sizes[i], SZ_1G));
			if (KVM_CAN_WRITE)
				check_huge(test, to);
			from = to;
		}
		KUNIT_ASSERT_EQ(test, 0, take_off(from));
	}
}

/**
 * struct buses - the buses of a region before a move that fails
 * @bus: each bus
 * @refs: references to the place
 * @ranges: its ranges
 */
struct buses {
	struct kvm_io_bus *bus[KVM_NR_BUSES];
	int refs;
	int ranges;
};

static void save_buses(struct attached *a, struct buses *before)
{
	int i;

	for (i = 0; i < KVM_NR_BUSES; i++)
		before->bus[i] = fixture_bus(a->f, i);
	before->refs = kref_read(&a->p.ref);
	before->ranges = a->p.ranges;
}

/* A move from @a to @b has failed, and nothing has changed. */
static void check_not_moved(struct kunit *test, struct attached *a,
			    struct attached *b, const struct buses *before)
{
	struct fixture *f = test->priv;
	int i;

	for (i = 0; i < KVM_NR_BUSES; i++)
		KUNIT_ASSERT_PTR_EQ(test, before->bus[i], fixture_bus(f, i));
	KUNIT_ASSERT_EQ(test, before->refs, kref_read(&a->p.ref));
	KUNIT_ASSERT_EQ(test, before->ranges, a->p.ranges);
	KUNIT_ASSERT_PTR_EQ(test, f->kvm, a->p.kvm);
	KUNIT_ASSERT_PTR_EQ(test, a->region, a->p.enabled);
	KUNIT_ASSERT_EQ(test, 1, kref_read(&b->p.ref));
	KUNIT_ASSERT_EQ(test, 0, b->p.ranges);
	KUNIT_ASSERT_NULL(test, b->p.kvm);
	KUNIT_ASSERT_NULL(test, b->p.enabled);
	for (i = 0; i < MAX_BUSES; i++)
		KUNIT_ASSERT_NULL(test, b->p.old[i]);
}

/* A third device is in the way, on one bus or the other. */
static void bus_moves_exists(struct kunit *test)
{
	static const struct {
		u64 base;
		u64 addr;
		int len;
		enum kvm_bus idx;
		int ret;
	} cases[] = {
		/* apart from the old place */
		{ 0x1100, 0x1100, 0x10, KVM_MMIO_BUS, -EEXIST },
		{ 0x1100, 0x10fc, 8, KVM_MMIO_BUS, -EEXIST },
		{ 0x1100, 0x110e, 4, KVM_MMIO_BUS, -EEXIST },
		{ 0x1100, 0x1108, 0, KVM_MMIO_BUS, -EEXIST },
		{ 0x1100, 0x10fc, 4, KVM_MMIO_BUS, 0 },
		{ 0x1100, 0x1110, 0, KVM_MMIO_BUS, 0 },
		/* over it */
		{ 0x1008, 0x1010, 8, KVM_MMIO_BUS, -EEXIST },
		{ 0x1008, 0x1017, 0, KVM_MMIO_BUS, -EEXIST },
		{ 0x0ff8, 0x0ff8, 8, KVM_MMIO_BUS, -EEXIST },
		{ 0x1008, 0x1018, 8, KVM_MMIO_BUS, 0 },
		/* on the second bus */
		{ 0x1100, 0x1104, 0, KVM_FAST_MMIO_BUS, -EEXIST },
		{ 0x1008, 0x1010, 0, KVM_FAST_MMIO_BUS, -EEXIST },
	};
	struct fixture *f = test->priv;
	struct attached *a, *b;
	struct buses before;
	int i;

	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		f->nr_others = 0;
		add_other(test, cases[i].idx, cases[i].addr, cases[i].len,
			  false);
		a = new_region_flags(test, 0x1000, 0x10,
				     DOORBELL_ATTACH_NO_VALUE, 0);
		b = new_place(test, a->region, cases[i].base);
		KUNIT_ASSERT_EQ(test, 0, add(a));
		save_buses(a, &before);
		KUNIT_ASSERT_EQ_MSG(test, cases[i].ret, move(a, b),
				    "to %#llx, %#x bytes at %#llx",
				    cases[i].base, cases[i].len, cases[i].addr);
		if (cases[i].ret) {
			check_not_moved(test, a, b, &before);
			KUNIT_ASSERT_EQ(test, 0, take_off(a));
		} else {
			KUNIT_ASSERT_EQ(test, 0, take_off(b));
		}
		fixture_bus(f, cases[i].idx)->dev_count--;
	}
}

/* No memory for one of the buses, at each allocation */
static void bus_moves_no_memory(struct kunit *test)
{
	static const u32 flags[] = { 0, DOORBELL_ATTACH_NO_VALUE };
	struct attached *a, *b;
	struct buses before;
	int i, left;

	for (i = 0; i < ARRAY_SIZE(flags); i++) {
		a = new_region_flags(test, 80, 12, flags[i], 0);
		b = new_place(test, a->region, 84);
		KUNIT_ASSERT_EQ(test, 0, add(a));
		save_buses(a, &before);
		for (left = 0; left <= i; left++) {
			allocations_left = left;
			KUNIT_EXPECT_EQ(test, -ENOMEM, move(a, b));
			allocations_left = -1;
			check_not_moved(test, a, b, &before);
		}
		allocations_left = left;
		KUNIT_EXPECT_EQ(test, 0, move(a, b));
		allocations_left = -1;
		check_bus_one(test, KVM_MMIO_BUS, b);
		KUNIT_ASSERT_EQ(test, 0, take_off(b));
	}
}

/* The caller of a move was killed before the buses changed. */
static void bus_moves_cancelled(struct kunit *test)
{
	struct attached *a = new_region_flags(test, 80, 12,
					      DOORBELL_ATTACH_NO_VALUE, 0);
	struct attached *b = new_place(test, a->region, 84);
	struct buses before;

	KUNIT_ASSERT_EQ(test, 0, add(a));
	save_buses(a, &before);
	b->p.cancelled = true;
	KUNIT_EXPECT_EQ(test, -EINTR, move(a, b));
	check_not_moved(test, a, b, &before);
	KUNIT_ASSERT_EQ(test, 0, take_off(a));
}

/* Lifetime */

/* Only a wait that never ends takes longer. */
#define PATIENCE	(60 * HZ)

/* Remove a placement as close() does. */
static void start_removal(struct attached *a)
{
	kref_get(&a->p.ref);
	doorbell_placement_remove(&a->p);
	doorbell_placement_put(&a->p);
}

static bool is_off(struct attached *a)
{
	return completion_done(&a->p.off);
}

static bool wait_off(struct attached *a)
{
	return wait_for_completion_timeout(&a->p.off, PATIENCE);
}

/* Wait until only the test's own reference is left. */
static bool wait_unused(struct attached *a)
{
	unsigned long end = jiffies + PATIENCE;

	while (kref_read(&a->p.ref) > 1) {
		if (time_after(jiffies, end))
			return false;
		usleep_range(1000, 2000);
	}
	/* as placement_free() does */
	placement_unpin(&a->p);
	return !atomic_read(&a->f->changes.graces) && !a->f->changes.sleeper;
}

static int write_to(struct attached *a, u64 addr)
{
	u32 value = 0;

	return kvm_iodevice_write(a->f->vcpu, &a->p.dev, addr, sizeof(value),
				  &value);
}

/* Removal declines writes at once and leaves a bus that is not locked. */
static void placement_leaves(struct kunit *test)
{
	struct attached *a = new_region(test, KVM_MMIO_BUS, 0x1000, 0x1000);

	KUNIT_ASSERT_EQ(test, add(a), 0);
	KUNIT_EXPECT_EQ(test, write_to(a, 0x1000), 0);
	start_removal(a);
	KUNIT_EXPECT_EQ(test, write_to(a, 0x1000), -EOPNOTSUPP);
	KUNIT_ASSERT_TRUE(test, wait_off(a));
	check_bus_one(test, KVM_MMIO_BUS, NULL);
	KUNIT_ASSERT_TRUE(test, wait_unused(a));
	KUNIT_EXPECT_FALSE(test, doorbell_region_hung_up(a->region));
	KUNIT_EXPECT_EQ(test, 1, refcount_read(&a->f->kvm->users_count));
}

/* A VMM that holds slots_lock delays the removal, but not its caller. */
static void placement_waits_for_slots_lock(struct kunit *test)
{
	struct attached *a = new_region(test, KVM_MMIO_BUS, 0x1000, 0x1000);
	struct fixture *f = test->priv;

	KUNIT_ASSERT_EQ(test, add(a), 0);
	mutex_lock(&f->kvm->slots_lock);
	start_removal(a);
	KUNIT_EXPECT_EQ(test, write_to(a, 0x1000), -EOPNOTSUPP);
	msleep(300);
	KUNIT_EXPECT_FALSE(test, is_off(a));
	check_bus_one(test, KVM_MMIO_BUS, a);
	mutex_unlock(&f->kvm->slots_lock);
	KUNIT_ASSERT_TRUE(test, wait_off(a));
	check_bus_one(test, KVM_MMIO_BUS, NULL);
	KUNIT_ASSERT_TRUE(test, wait_unused(a));
}

/*
 * KVM gives up the bus while a removal waits for slots_lock. Then there is no
 * grace period that a vCPU could delay.
 */
static void placement_loses_bus_first(struct kunit *test)
{
	struct attached *a = new_region(test, KVM_MMIO_BUS, 0x1000, 0x1000);
	struct fixture *f = test->priv;
	unsigned long end = jiffies + PATIENCE;
	int srcu;

	KUNIT_ASSERT_EQ(test, add(a), 0);
	mutex_lock(&f->kvm->slots_lock);
	start_removal(a);
	/* until the work item sleeps */
	while (!atomic_read(&nr_sleepers) && time_before(jiffies, end))
		msleep(20);
	KUNIT_EXPECT_EQ(test, 1, atomic_read(&nr_sleepers));
	destroy_bus(f->kvm, KVM_MMIO_BUS);
	srcu = srcu_read_lock(&f->kvm->srcu);
	mutex_unlock(&f->kvm->slots_lock);
	KUNIT_EXPECT_TRUE(test, wait_unused(a));
	srcu_read_unlock(&f->kvm->srcu, srcu);
	KUNIT_EXPECT_TRUE(test, is_off(a));
	KUNIT_EXPECT_TRUE(test, doorbell_region_hung_up(a->region));
}

/* A vCPU inside of kvm->srcu delays the end of a removal, not its caller. */
static void placement_waits_for_vcpus(struct kunit *test)
{
	struct attached *a = new_region(test, KVM_MMIO_BUS, 0x1000, 0x1000);
	struct fixture *f = test->priv;
	int srcu;

	KUNIT_ASSERT_EQ(test, add(a), 0);
	srcu = srcu_read_lock(&f->kvm->srcu);
	start_removal(a);
	msleep(300);
	check_bus_one(test, KVM_MMIO_BUS, NULL);
	KUNIT_EXPECT_FALSE(test, is_off(a));
	srcu_read_unlock(&f->kvm->srcu, srcu);
	KUNIT_ASSERT_TRUE(test, wait_off(a));
	KUNIT_ASSERT_TRUE(test, wait_unused(a));
}

/* Without memory to shrink its bus, an inert device stays for the time. */
static void placement_inert(struct kunit *test)
{
	static const struct {
		u64 base;
		u64 size;
	} next[] = {
		{ 0x1000, 0x1000 },		/* the same */
		{ 0x1800, 4 },			/* inside of it */
		{ 0, 0x10000 },			/* around it */
		{ 0x0ffc, 8 }, { 0x1ffc, 8 },	/* partly */
	};
	struct fixture *f = test->priv;
	struct attached *a, *b;
	int i;

	add_other(test, KVM_MMIO_BUS, 0x20000, 4, false)->accepts = true;
	for (i = 0; i < ARRAY_SIZE(next); i++) {
		a = new_region(test, KVM_MMIO_BUS, 0x1000, 0x1000);
		KUNIT_ASSERT_EQ(test, add(a), 0);
		WRITE_ONCE(allocations_left, 0);
		kref_get(&a->p.ref);
		/* the caller does not wait for memory */
		doorbell_placement_remove(&a->p);
		KUNIT_ASSERT_EQ(test, 0, doorbell_placement_wait(&a->p));
		doorbell_placement_put(&a->p);
		check_bus_one(test, KVM_MMIO_BUS, a);
		KUNIT_EXPECT_EQ(test, write_to(a, 0x1000), -EOPNOTSUPP);
		if (KVM_CAN_WRITE)
			check_write(test, KVM_MMIO_BUS, NULL, 0x20000, 4);

		/* another region in its place has to try again */
		b = new_region(test, KVM_MMIO_BUS, next[i].base, next[i].size);
		KUNIT_ASSERT_EQ(test, add(b), -EAGAIN);
		WRITE_ONCE(allocations_left, -1);
		KUNIT_ASSERT_TRUE(test, wait_unused(a));
		KUNIT_ASSERT_EQ(test, add(b), 0);
		check_bus_one(test, KVM_MMIO_BUS, b);
		KUNIT_ASSERT_EQ(test, take_off(b), 0);
		check_bus_one(test, KVM_MMIO_BUS, NULL);
	}
	KUNIT_EXPECT_EQ(test, 1, refcount_read(&f->kvm->users_count));
}

/* As KVM gives a bus up: under slots_lock, after a grace period. */
static void give_up_bus(struct kunit *test, enum kvm_bus idx)
{
	struct fixture *f = test->priv;

	mutex_lock(&f->kvm->slots_lock);
	synchronize_srcu(&f->kvm->srcu);
	destroy_bus(f->kvm, idx);
	mutex_unlock(&f->kvm->slots_lock);
}

/* A vCPU that delays grace periods limits how many buses are kept for them. */
static void placement_limits_graces(struct kunit *test)
{
	struct attached *a[4];
	struct fixture *f = test->priv;
	int i, srcu;

	for (i = 0; i < ARRAY_SIZE(a); i++) {
		a[i] = new_region(test, KVM_MMIO_BUS, 0x1000 * i, 0x1000);
		KUNIT_ASSERT_EQ(test, add(a[i]), 0);
	}
	srcu = srcu_read_lock(&f->kvm->srcu);
	/* as if there were others */
	atomic_add(MAX_GRACES - 2, &f->changes.graces);
	for (i = 0; i < ARRAY_SIZE(a); i++)
		start_removal(a[i]);
	msleep(500);
	KUNIT_EXPECT_EQ(test, 2, fixture_bus(f, KVM_MMIO_BUS)->dev_count);
	KUNIT_EXPECT_EQ(test, MAX_GRACES, atomic_read(&f->changes.graces));
	srcu_read_unlock(&f->kvm->srcu, srcu);
	atomic_sub(MAX_GRACES - 2, &f->changes.graces);
	for (i = 0; i < ARRAY_SIZE(a); i++)
		KUNIT_ASSERT_TRUE(test, wait_off(a[i]));
	for (i = 0; i < ARRAY_SIZE(a); i++)
		KUNIT_ASSERT_TRUE(test, wait_unused(a[i]));
	check_bus_one(test, KVM_MMIO_BUS, NULL);
}

/*
 * A VM that ends while an inert device waits for its grace period, or for
 * memory, frees the device once.
 */
static void placement_inert_destroyed(struct kunit *test)
{
	static const u32 flags[] = { 0, DOORBELL_ATTACH_NO_VALUE };
	struct fixture *f = test->priv;
	struct attached *a;
	int i, j, srcu;

	for (i = 0; i < 2 * ARRAY_SIZE(flags); i++) {
		a = new_region_flags(test, 80, 12, flags[i / 2], 0);
		refcount_set(&f->kvm->users_count, 1);
		KUNIT_ASSERT_EQ(test, add(a), 0);
		WRITE_ONCE(allocations_left, 0);
		srcu = srcu_read_lock(&f->kvm->srcu);
		start_removal(a);
		/* until the work item holds the VM for the grace period */
		while (refcount_read(&f->kvm->users_count) == 1)
			msleep(20);
		srcu_read_unlock(&f->kvm->srcu, srcu);
		if (i % 2)
			KUNIT_ASSERT_TRUE(test, wait_off(a));
		/* the VMM's own, and last, reference, or nearly so */
		kvm_test_put_kvm(f->kvm);
		KUNIT_ASSERT_TRUE(test, wait_unused(a));
		KUNIT_EXPECT_EQ(test, 1, kref_read(&a->p.ref));
		WRITE_ONCE(allocations_left, -1);
		for (j = 0; j < KVM_NR_BUSES; j++) {
			KUNIT_EXPECT_NULL(test, fixture_bus(f, j));
			rcu_assign_pointer(f->kvm->buses[j],
					   kzalloc(sizeof(struct kvm_io_bus),
						   GFP_KERNEL));
		}
	}
	refcount_set(&f->kvm->users_count, 1);
}

/* A VM, or a bus, that ends hangs up its regions, of one range or more. */
static void placement_destroyed(struct kunit *test)
{
	static const u64 sizes[] = { 0x1000, 0x40000000, 0xffff0000 };
	struct fixture *f = test->priv;
	struct attached *a;
	int i;

	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		a = new_region(test, KVM_MMIO_BUS, 0x200000000, sizes[i]);
		KUNIT_ASSERT_EQ(test, add(a), 0);
		KUNIT_ASSERT_FALSE(test, doorbell_region_hung_up(a->region));
		give_up_bus(test, KVM_MMIO_BUS);
		KUNIT_EXPECT_TRUE(test, doorbell_region_hung_up(a->region));
		KUNIT_EXPECT_EQ(test, write_to(a, 0x200000000), -EOPNOTSUPP);
		KUNIT_EXPECT_TRUE(test, is_off(a));
		/* nothing is left to remove */
		start_removal(a);
		KUNIT_ASSERT_TRUE(test, wait_unused(a));
		rcu_assign_pointer(f->kvm->buses[KVM_MMIO_BUS],
				   kzalloc(sizeof(struct kvm_io_bus),
					   GFP_KERNEL));
	}
}

/* A region that loses one of its two buses leaves the other, and hangs up. */
static void placement_loses_one_bus(struct kunit *test)
{
	static const enum kvm_bus buses[] = { KVM_MMIO_BUS, KVM_FAST_MMIO_BUS };
	struct fixture *f = test->priv;
	struct attached *a;
	int i;

	for (i = 0; i < ARRAY_SIZE(buses); i++) {
		a = new_region_flags(test, 80, 12, DOORBELL_ATTACH_NO_VALUE, 0);
		KUNIT_ASSERT_EQ(test, add(a), 0);
		give_up_bus(test, buses[i]);
		KUNIT_EXPECT_EQ(test, write_to(a, 80), -EOPNOTSUPP);
		KUNIT_ASSERT_TRUE(test, wait_off(a));
		KUNIT_EXPECT_TRUE(test, doorbell_region_hung_up(a->region));
		check_bus_one(test, buses[!i], NULL);
		KUNIT_ASSERT_TRUE(test, wait_unused(a));
		rcu_assign_pointer(f->kvm->buses[buses[i]],
				   kzalloc(sizeof(struct kvm_io_bus),
					   GFP_KERNEL));
	}
}

/* A removal does not reference a VM that is being destroyed. */
static void placement_of_dying_vm(struct kunit *test)
{
	struct attached *a = new_region(test, KVM_MMIO_BUS, 0x200000000,
					0xffff0000);
	struct fixture *f = test->priv;

	KUNIT_ASSERT_EQ(test, add(a), 0);
	refcount_set(&f->kvm->users_count, 0);
	start_removal(a);
	msleep(100);
	KUNIT_EXPECT_FALSE(test, is_off(a));
	KUNIT_EXPECT_EQ(test, 0, refcount_read(&f->kvm->users_count));
	destroy_bus(f->kvm, KVM_MMIO_BUS);
	KUNIT_EXPECT_TRUE(test, is_off(a));
	KUNIT_ASSERT_TRUE(test, wait_unused(a));
}

/* A VM can be destroyed right after an attach: kvm->srcu is idle then. */
static void placement_destroyed_in_grace_period(struct kunit *test)
{
	struct attached *a = new_region(test, KVM_MMIO_BUS, 0x1000, 0x1000);
	struct fixture *f = test->priv;

	KUNIT_ASSERT_EQ(test, add(a), 0);
	mutex_lock(&f->kvm->slots_lock);
	grace_begin(&a->p, f->kvm);
	mutex_unlock(&f->kvm->slots_lock);
	KUNIT_EXPECT_EQ(test, 1, refcount_read(&f->kvm->users_count));
	refcount_set(&f->kvm->users_count, 0);
	destroy_bus(f->kvm, KVM_MMIO_BUS);
	KUNIT_EXPECT_FALSE(test, READ_ONCE(a->p.grace));
	KUNIT_EXPECT_TRUE(test, doorbell_region_hung_up(a->region));
	KUNIT_ASSERT_TRUE(test, wait_unused(a));
}

static const struct file_operations vm_fops = {};

/* A descriptor of what looks like a VM, or does not. */
static int vm_descriptor(struct kunit *test, const char *name)
{
	struct fixture *f = test->priv;
	int fd = get_unused_fd_flags(O_CLOEXEC);
	struct file *file;

	KUNIT_ASSERT_GE(test, fd, 0);
	file = anon_inode_getfile(name, &vm_fops, f->kvm, O_RDWR);
	KUNIT_ASSERT_FALSE(test, IS_ERR(file));
	fd_install(fd, file);
	return fd;
}

static int create_error(struct attached *a, int fd)
{
	return PTR_ERR_OR_ZERO(doorbell_placement_create(a->region, fd, 0));
}

/* A VM that is dead, or without its process, is refused; so is another file. */
static void placement_refuses(struct kunit *test)
{
	struct attached *a = new_region(test, KVM_MMIO_BUS, 0x1000, 0x1000);
	struct mm_struct *mm = kunit_kzalloc(test, sizeof(*mm), GFP_KERNEL);
	int vm = vm_descriptor(test, "kvm-vm");
	int other = vm_descriptor(test, "kvm-vcpu");
	struct fixture *f = test->priv;

	KUNIT_ASSERT_NOT_NULL(test, mm);
	f->kvm->mm = mm;
	KUNIT_EXPECT_EQ(test, -EBADF, create_error(a, INT_MAX));
	KUNIT_EXPECT_EQ(test, -EINVAL, create_error(a, other));
	KUNIT_EXPECT_EQ(test, -ESRCH, create_error(a, vm));
	atomic_set(&mm->mm_users, 1);
	f->kvm->vm_dead = true;
	KUNIT_EXPECT_EQ(test, -EIO, create_error(a, vm));
	f->kvm->vm_dead = false;
	check_bus_one(test, KVM_MMIO_BUS, NULL);
	close_fd(vm);
	close_fd(other);
}

/* A descriptor of a VM whose process lives */
static int live_vm_descriptor(struct kunit *test)
{
	struct mm_struct *mm = kunit_kzalloc(test, sizeof(*mm), GFP_KERNEL);
	struct fixture *f = test->priv;

	KUNIT_ASSERT_NOT_NULL(test, mm);
	atomic_set(&mm->mm_users, 1);
	f->kvm->mm = mm;
	return vm_descriptor(test, "kvm-vm");
}

/* A placement declines writes until it is enabled, and once removed. */
static void placement_life(struct kunit *test)
{
	struct attached *a = new_region(test, KVM_MMIO_BUS, 0x1000, 0x1000);
	int fd = live_vm_descriptor(test);
	struct fixture *f = test->priv;
	struct doorbell_placement *p;
	struct kvm_io_device *dev;
	struct doorbell_event event;
	u32 value = 7;

	p = doorbell_placement_create(a->region, fd, 0x1000);
	KUNIT_ASSERT_FALSE(test, IS_ERR(p));
	close_fd(fd);
	KUNIT_ASSERT_EQ(test, 1, fixture_bus(f, KVM_MMIO_BUS)->dev_count);
	dev = fixture_bus(f, KVM_MMIO_BUS)->range[0].dev;
	KUNIT_EXPECT_EQ(test, -EOPNOTSUPP,
			kvm_iodevice_write(f->vcpu, dev, 0x1004, 4, &value));
	doorbell_placement_enable(p);
	KUNIT_EXPECT_EQ(test, 0,
			kvm_iodevice_write(f->vcpu, dev, 0x1004, 4, &value));
	KUNIT_EXPECT_EQ(test, 1, events_of(a, &event, 1));
	KUNIT_EXPECT_EQ(test, event.value, 7);
	doorbell_placement_remove(p);
	KUNIT_EXPECT_EQ(test, 0, doorbell_placement_wait(p));
	doorbell_placement_put(p);
	check_bus_one(test, KVM_MMIO_BUS, NULL);
	KUNIT_EXPECT_EQ(test, 1, refcount_read(&f->kvm->users_count));
}

/**
 * struct attaching - an attach in a thread of its own
 * @region: the region
 * @fd: the VM's descriptor
 * @placement: the result, or an error
 * @done: the call has returned
 */
struct attaching {
	struct doorbell_region *region;
	int fd;
	struct doorbell_placement *placement;
	struct completion done;
};

static int attach_thread(void *arg)
{
	struct attaching *attaching = arg;

	allow_signal(SIGKILL);
	attaching->placement = doorbell_placement_create(attaching->region,
							 attaching->fd, 0x1000);
	kthread_complete_and_exit(&attaching->done, 0);
}

/* Start an attach that waits for slots_lock, which the caller has to unlock. */
static struct task_struct *start_attach(struct kunit *test,
					struct attaching *attaching)
{
	struct fixture *f = test->priv;
	struct task_struct *task;

	attaching->fd = live_vm_descriptor(test);
	init_completion(&attaching->done);
	mutex_lock(&f->kvm->slots_lock);
	task = kthread_run(attach_thread, attaching, "doorbell-attach");
	if (IS_ERR(task))
		mutex_unlock(&f->kvm->slots_lock);
	KUNIT_ASSERT_FALSE(test, IS_ERR(task));
	return task;
}

static bool wait_placements(int n)
{
	unsigned long end = jiffies + PATIENCE;

	while (atomic_read(&nr_placements) != n) {
		if (time_after(jiffies, end))
			return false;
		usleep_range(1000, 2000);
	}
	return true;
}

/* An attach that is killed while a VMM holds slots_lock keeps the module. */
static void placement_killed_attach(struct kunit *test)
{
	struct attached *a = new_region(test, KVM_MMIO_BUS, 0x1000, 0x1000);
	struct attaching attaching = { .region = a->region };
	struct fixture *f = test->priv;
	unsigned long end = jiffies + PATIENCE;
	int refs = module_refcount(THIS_MODULE);
	struct task_struct *task;

	task = start_attach(test, &attaching);
	/* until the work item sleeps; a failed assertion would keep the lock */
	while (!atomic_read(&nr_sleepers) && time_before(jiffies, end))
		msleep(20);
	send_sig(SIGKILL, task, 1);
	wait_for_completion(&attaching.done);
	KUNIT_EXPECT_EQ(test, -EINTR, PTR_ERR_OR_ZERO(attaching.placement));
	KUNIT_EXPECT_EQ(test, refs + 1, module_refcount(THIS_MODULE));
	mutex_unlock(&f->kvm->slots_lock);

	KUNIT_ASSERT_TRUE(test, wait_placements(0));
	KUNIT_EXPECT_EQ(test, refs, module_refcount(THIS_MODULE));
	check_bus_one(test, KVM_MMIO_BUS, NULL);
	close_fd(attaching.fd);
}

/* Moving placements */

/* Wait for the end of the work item. */
static void settle(struct doorbell_placement *p)
{
	unsigned long end = jiffies + PATIENCE;

	/* the references of the caller and of the bus */
	while (kref_read(&p->ref) > 2 && time_before(jiffies, end))
		usleep_range(1000, 2000);
}

/* Attach and enable, and wait for the end of the work item if @settled. */
static struct doorbell_placement *attach(struct kunit *test,
					 struct attached *a, u64 base,
					 bool settled)
{
	struct doorbell_placement *p;

	if (move_fd >= 0)
		close_fd(move_fd);
	move_fd = live_vm_descriptor(test);
	p = doorbell_placement_create(a->region, move_fd, base);
	KUNIT_ASSERT_FALSE(test, IS_ERR(p));
	doorbell_placement_enable(p);
	if (settled)
		settle(p);
	return p;
}

/* Detach as DOORBELL_DETACH does: true if nothing is left. */
static bool detach(struct doorbell_placement *p)
{
	int ret;

	doorbell_placement_remove(p);
	ret = doorbell_placement_wait(p);
	doorbell_placement_put(p);
	return !ret && wait_placements(0);
}

/*
 * As many work items sleep as may: an attach waits for slots_lock all the same,
 * however long, and keeps the module until it is on the bus.
 */
static void placement_limits_sleepers(struct kunit *test)
{
	struct attached *a = new_region(test, KVM_MMIO_BUS, 0x1000, 0x1000);
	struct attaching attaching = { .region = a->region };
	struct fixture *f = test->priv;
	unsigned long end = jiffies + PATIENCE;
	int refs = module_refcount(THIS_MODULE);
	struct vm_changes *vm;
	bool sleeps;

	atomic_add(MAX_SLEEPERS, &nr_sleepers);
	start_attach(test, &attaching);
	while (module_refcount(THIS_MODULE) == refs &&
	       time_before(jiffies, end))
		msleep(20);
	/* until its pauses are as long as they get */
	msleep(3000);
	spin_lock(&vm_lock);
	vm = vm_changes_find(f->kvm);
	sleeps = !vm || vm->sleeper;
	spin_unlock(&vm_lock);
	KUNIT_EXPECT_FALSE(test, sleeps);
	KUNIT_EXPECT_EQ(test, refs + 1, module_refcount(THIS_MODULE));
	mutex_unlock(&f->kvm->slots_lock);
	atomic_sub(MAX_SLEEPERS, &nr_sleepers);
	wait_for_completion(&attaching.done);

	close_fd(attaching.fd);
	KUNIT_ASSERT_FALSE(test, IS_ERR(attaching.placement));
	settle(attaching.placement);
	KUNIT_EXPECT_EQ(test, refs, module_refcount(THIS_MODULE));
	KUNIT_EXPECT_EQ(test, 1, fixture_bus(f, KVM_MMIO_BUS)->dev_count);
	KUNIT_EXPECT_TRUE(test, detach(attaching.placement));
}

/* Move as DOORBELL_MOVE does: the new placement, or an error. */
static struct doorbell_placement *move_to(struct doorbell_placement *p,
					  u64 base)
{
	struct doorbell_placement *to;
	int ret;

	to = doorbell_placement_move(p, move_fd, base);
	if (IS_ERR(to))
		return to;
	doorbell_placement_start(to);
	ret = doorbell_placement_wait_added(to);
	doorbell_placement_put(to);
	if (!ret)
		return to;
	doorbell_placement_put(to);
	return ERR_PTR(ret);
}

/* The same: NULL if that fails. */
static struct doorbell_placement *move_on(struct doorbell_placement *p,
					  u64 base)
{
	struct doorbell_placement *next = move_to(p, base);

	if (IS_ERR(next))
		return NULL;
	doorbell_placement_put(p);
	return next;
}

static int move_error(struct doorbell_placement *p, u64 base)
{
	return PTR_ERR_OR_ZERO(move_to(p, base));
}

static int move_other(struct doorbell_placement *p, int fd)
{
	return PTR_ERR_OR_ZERO(doorbell_placement_move(p, fd, 0x3000));
}

static int write_dev(struct fixture *f, struct doorbell_placement *p, u64 addr)
{
	u32 value = 0;

	return kvm_iodevice_write(f->vcpu, &p->dev, addr, sizeof(value),
				  &value);
}

/* The bus has this placement, at its base, and no other. */
static bool is_on_bus(struct fixture *f, struct doorbell_placement *p)
{
	struct kvm_io_bus *bus = fixture_bus(f, KVM_MMIO_BUS);

	return bus->dev_count == 1 && bus->ioeventfd_count == 1 &&
	       bus->range[0].dev == &p->dev && bus->range[0].addr == p->base;
}

static int users_of(struct fixture *f)
{
	return refcount_read(&f->kvm->users_count);
}

static bool wait_users(struct fixture *f, int users)
{
	unsigned long end = jiffies + PATIENCE;

	while (users_of(f) != users) {
		if (time_after(jiffies, end))
			return false;
		usleep_range(1000, 2000);
	}
	return true;
}

/* New buses after those of a VM that was destroyed */
static void renew_vm(struct fixture *f)
{
	int i;

	for (i = 0; i < KVM_NR_BUSES; i++)
		if (!fixture_bus(f, i))
			rcu_assign_pointer(f->kvm->buses[i],
					   kzalloc(sizeof(struct kvm_io_bus),
						   GFP_KERNEL));
	refcount_set(&f->kvm->users_count, 1);
}

/* Both places ring while a vCPU uses the old bus; then the old one is freed. */
static void placement_moves(struct kunit *test)
{
	struct attached *a = new_region(test, KVM_MMIO_BUS, 0x1000, 0x1000);
	struct doorbell_placement *p, *q;
	struct fixture *f = test->priv;
	struct doorbell_event event;
	int srcu;

	p = attach(test, a, 0x1000, true);
	KUNIT_EXPECT_EQ(test, 0, write_dev(f, p, 0x1004));
	KUNIT_EXPECT_TRUE(test, is_on_bus(f, p));

	srcu = srcu_read_lock(&f->kvm->srcu);
	q = move_on(p, 0x1800);
	if (!q) {
		srcu_read_unlock(&f->kvm->srcu, srcu);
		KUNIT_FAIL(test, "cannot move");
		detach(p);
		return;
	}
	KUNIT_EXPECT_TRUE(test, is_on_bus(f, q));
	KUNIT_EXPECT_EQ(test, 2, users_of(f));
	msleep(50);
	KUNIT_EXPECT_EQ(test, 2, atomic_read(&nr_placements));
	KUNIT_EXPECT_EQ(test, 0, write_dev(f, p, 0x1004));
	KUNIT_EXPECT_EQ(test, 0, write_dev(f, q, 0x1804));
	KUNIT_EXPECT_EQ(test, 1, events_of(a, &event, 1));
	KUNIT_EXPECT_EQ(test, 2, event.queue);
	KUNIT_EXPECT_EQ(test, 3, event.count);
	srcu_read_unlock(&f->kvm->srcu, srcu);

	KUNIT_EXPECT_TRUE(test, wait_placements(1));
	KUNIT_EXPECT_TRUE(test, wait_users(f, 1));
	KUNIT_EXPECT_EQ(test, 0, write_dev(f, q, 0x1804));
	KUNIT_EXPECT_FALSE(test, doorbell_region_hung_up(a->region));
	KUNIT_EXPECT_TRUE(test, detach(q));
	check_bus_one(test, KVM_MMIO_BUS, NULL);
	KUNIT_EXPECT_EQ(test, 1, users_of(f));
	KUNIT_EXPECT_FALSE(test, doorbell_region_hung_up(a->region));
}

/* What is refused changes nothing. */
static void placement_move_refused(struct kunit *test)
{
	struct attached *a = new_region(test, KVM_MMIO_BUS, 0x1000, 0x1000);
	struct doorbell_placement *p = attach(test, a, 0x1000, true);
	struct fixture *f = test->priv;
	int other = vm_descriptor(test, "kvm-vcpu");
	struct doorbell_placement *q;
	struct kvm_io_bus *bus;

	add_other(test, KVM_MMIO_BUS, 0x2004, 4, false);
	bus = fixture_bus(f, KVM_MMIO_BUS);
	KUNIT_EXPECT_EQ(test, -EEXIST, move_error(p, 0x1006));
	KUNIT_EXPECT_EQ(test, -EBADF, move_other(p, INT_MAX));
	KUNIT_EXPECT_EQ(test, -EINVAL, move_other(p, other));
	WRITE_ONCE(allocations_left, 0);
	KUNIT_EXPECT_EQ(test, -ENOMEM, move_error(p, 0x3000));
	WRITE_ONCE(allocations_left, -1);
	f->kvm->vm_dead = true;
	KUNIT_EXPECT_EQ(test, -EIO, move_error(p, 0x3000));
	f->kvm->vm_dead = false;
	close_fd(other);
	atomic_set(&f->kvm->mm->mm_users, 0);
	KUNIT_EXPECT_EQ(test, -ESRCH, move_error(p, 0x3000));
	atomic_set(&f->kvm->mm->mm_users, 1);
	/* prepared, but another call was faster */
	q = doorbell_placement_move(p, move_fd, 0x3000);
	KUNIT_EXPECT_FALSE(test, IS_ERR(q));
	if (!IS_ERR(q))
		doorbell_placement_put(q);

	KUNIT_EXPECT_PTR_EQ(test, bus, fixture_bus(f, KVM_MMIO_BUS));
	KUNIT_EXPECT_TRUE(test, wait_placements(1));
	KUNIT_EXPECT_EQ(test, 2, kref_read(&p->ref));
	KUNIT_EXPECT_EQ(test, 1, users_of(f));
	KUNIT_EXPECT_EQ(test, 0, atomic_read(&p->vm->graces));
	KUNIT_EXPECT_EQ(test, 0, write_dev(f, p, 0x1004));

	refcount_set(&f->kvm->users_count, 0);
	KUNIT_EXPECT_EQ(test, -EPIPE, move_error(p, 0x3000));
	refcount_set(&f->kvm->users_count, 1);
	give_up_bus(test, KVM_MMIO_BUS);
	KUNIT_EXPECT_EQ(test, -EPIPE, move_error(p, 0x3000));
	KUNIT_EXPECT_EQ(test, 1, users_of(f));
	KUNIT_EXPECT_TRUE(test, detach(p));
	renew_vm(f);
}

/* No memory for one of two buses: the region stays where it is. */
static void placement_move_no_memory(struct kunit *test)
{
	struct attached *a = new_region_flags(test, 0x1000, 0x1000,
					      DOORBELL_ATTACH_NO_VALUE, 0);
	struct doorbell_placement *p = attach(test, a, 0x1000, true);
	struct fixture *f = test->priv;
	int left;

	for (left = 0; left < 2; left++) {
		WRITE_ONCE(allocations_left, left);
		KUNIT_EXPECT_EQ(test, -ENOMEM, move_error(p, 0x3000));
		WRITE_ONCE(allocations_left, -1);
		KUNIT_EXPECT_EQ(test, 0, write_dev(f, p, 0x1004));
	}
	KUNIT_EXPECT_TRUE(test, wait_placements(1));
	KUNIT_EXPECT_TRUE(test, detach(p));
	KUNIT_EXPECT_EQ(test, 1, users_of(f));
}

/* KVM gives up one of two buses, or the only one, before the bus changes. */
static void placement_move_loses_bus(struct kunit *test)
{
	static const u32 flags[] = { 0, DOORBELL_ATTACH_NO_VALUE };
	struct fixture *f = test->priv;
	struct attached *a, *b;
	int i, ret;

	for (i = 0; i < 2 * ARRAY_SIZE(flags); i++) {
		enum kvm_bus idx = i % 2 && flags[i / 2] ? KVM_FAST_MMIO_BUS :
							   KVM_MMIO_BUS;

		a = new_region_flags(test, 80, 12, flags[i / 2], 0);
		b = new_place(test, a->region, 84);
		KUNIT_ASSERT_EQ(test, 0, add(a));
		mutex_lock(&f->kvm->slots_lock);
		destroy_bus(f->kvm, idx);
		b->p.from = &a->p;
		ret = buses_change(f->kvm, &a->p, &b->p);
		b->p.from = NULL;
		mutex_unlock(&f->kvm->slots_lock);
		KUNIT_EXPECT_EQ(test, -ENODEV, ret);
		KUNIT_EXPECT_EQ(test, 1, kref_read(&b->p.ref));
		KUNIT_EXPECT_NULL(test, b->p.enabled);
		KUNIT_EXPECT_TRUE(test, doorbell_region_hung_up(a->region) ||
				  wait_off(a));
		KUNIT_ASSERT_TRUE(test, wait_unused(a));
		renew_vm(f);
		check_bus_one(test, KVM_MMIO_BUS, NULL);
		check_bus_one(test, KVM_FAST_MMIO_BUS, NULL);
	}
}

/* A detach during the grace period of a move waits for it, too. */
static void placement_move_detached(struct kunit *test)
{
	struct attached *a = new_region(test, KVM_MMIO_BUS, 0x1000, 0x1000);
	struct doorbell_placement *q, *p = attach(test, a, 0x1000, true);
	struct fixture *f = test->priv;
	int srcu;

	srcu = srcu_read_lock(&f->kvm->srcu);
	q = move_on(p, 0x3000) ?: p;
	KUNIT_EXPECT_PTR_NE(test, p, q);
	doorbell_placement_remove(q);
	KUNIT_EXPECT_EQ(test, -EOPNOTSUPP, write_dev(f, q, 0x3004));
	msleep(300);
	KUNIT_EXPECT_FALSE(test, completion_done(&q->off));
	srcu_read_unlock(&f->kvm->srcu, srcu);
	KUNIT_EXPECT_TRUE(test, detach(q));
	check_bus_one(test, KVM_MMIO_BUS, NULL);
	KUNIT_EXPECT_EQ(test, 1, users_of(f));
}

/*
 * The VM's last user goes during the grace period of a move, which may be right
 * after the attach: the region hangs up, and all is freed once.
 */
static void placement_move_destroyed(struct kunit *test)
{
	struct fixture *f = test->priv;
	struct doorbell_placement *p;
	struct attached *a;
	int i, srcu;

	for (i = 0; i < 3; i++) {
		a = new_region(test, KVM_MMIO_BUS, 0x1000, 0x1000);
		srcu = srcu_read_lock(&f->kvm->srcu);
		p = attach(test, a, 0x1000, false);
		if (!i) {
			/* the grace period of the attach is over */
			srcu_read_unlock(&f->kvm->srcu, srcu);
			while (atomic_read(&p->vm->graces))
				msleep(20);
			srcu = srcu_read_lock(&f->kvm->srcu);
		}
		p = move_on(p, 0x3000) ?: p;
		if (i == 2)
			p = move_on(p, 0x1800) ?: p;
		KUNIT_EXPECT_EQ(test, i == 2 ? 3 : 2, users_of(f));
		kvm_test_put_kvm(f->kvm);
		msleep(50);
		KUNIT_EXPECT_FALSE(test, doorbell_region_hung_up(a->region));
		KUNIT_EXPECT_TRUE(test, is_on_bus(f, p));
		srcu_read_unlock(&f->kvm->srcu, srcu);

		KUNIT_EXPECT_TRUE(test, wait_for_completion_timeout(&p->off,
								    PATIENCE));
		KUNIT_EXPECT_TRUE(test, doorbell_region_hung_up(a->region));
		KUNIT_EXPECT_EQ(test, -EPIPE, move_error(p, 0x1000));
		KUNIT_EXPECT_TRUE(test, detach(p));
		KUNIT_EXPECT_EQ(test, 0, users_of(f));
		KUNIT_EXPECT_NULL(test, fixture_bus(f, KVM_MMIO_BUS));
		renew_vm(f);
	}
}

/* The end of a move's grace period waits for the callback of the attach. */
static void placement_moves_after_attach(struct kunit *test)
{
	struct attached *a = new_region(test, KVM_MMIO_BUS, 0x1000, 0x1000);
	struct doorbell_placement *q, *p = attach(test, a, 0x1000, true);
	unsigned long end = jiffies + PATIENCE;
	struct fixture *f = test->priv;

	/* as if it came late, on another CPU */
	WRITE_ONCE(p->grace, true);
	q = move_to(p, 0x3000);
	KUNIT_ASSERT_FALSE(test, IS_ERR(q));
	while (READ_ONCE(q->grace) && time_before(jiffies, end))
		msleep(20);
	msleep(200);
	KUNIT_EXPECT_EQ(test, 2, users_of(f));
	KUNIT_EXPECT_EQ(test, 2, atomic_read(&nr_placements));
	KUNIT_EXPECT_PTR_EQ(test, p, READ_ONCE(q->from));
	/* as grace_over() */
	smp_store_release(&p->grace, false);
	doorbell_placement_put(p);
	KUNIT_EXPECT_TRUE(test, wait_users(f, 1));
	KUNIT_EXPECT_TRUE(test, wait_placements(1));
	KUNIT_EXPECT_TRUE(test, detach(q));
}

/**
 * struct moving - a move in a thread of its own
 * @from: the placement
 * @base: the new base
 * @to: the result
 * @done: the call has returned
 */
struct moving {
	struct doorbell_placement *from;
	u64 base;
	struct doorbell_placement *to;
	struct completion done;
};

static int move_thread(void *arg)
{
	struct moving *moving = arg;

	allow_signal(SIGKILL);
	moving->to = move_to(moving->from, moving->base);
	kthread_complete_and_exit(&moving->done, 0);
}

static struct task_struct *start_move(struct moving *moving,
				      struct doorbell_placement *from, u64 base)
{
	*moving = (struct moving) { .from = from, .base = base };
	init_completion(&moving->done);
	return kthread_run(move_thread, moving, "doorbell-move");
}

/* A move that is killed while a VMM holds slots_lock leaves no trace. */
static void placement_killed_move(struct kunit *test)
{
	struct attached *a = new_region(test, KVM_MMIO_BUS, 0x1000, 0x1000);
	struct doorbell_placement *p = attach(test, a, 0x1000, true);
	int refs = module_refcount(THIS_MODULE);
	unsigned long end = jiffies + PATIENCE;
	struct fixture *f = test->priv;
	struct task_struct *task;
	struct moving moving;

	mutex_lock(&f->kvm->slots_lock);
	task = start_move(&moving, p, 0x1800);
	if (IS_ERR(task))
		mutex_unlock(&f->kvm->slots_lock);
	KUNIT_ASSERT_FALSE(test, IS_ERR(task));
	/* until the work item sleeps; a failed assertion would keep the lock */
	while (!atomic_read(&nr_sleepers) && time_before(jiffies, end))
		msleep(20);
	KUNIT_EXPECT_FALSE(test, completion_done(&moving.done));
	KUNIT_EXPECT_EQ(test, 0, write_dev(f, p, 0x1004));
	send_sig(SIGKILL, task, 1);
	wait_for_completion(&moving.done);
	KUNIT_EXPECT_EQ(test, -EINTR, PTR_ERR_OR_ZERO(moving.to));
	KUNIT_EXPECT_EQ(test, refs + 1, module_refcount(THIS_MODULE));
	KUNIT_EXPECT_EQ(test, 0, write_dev(f, p, 0x1004));
	mutex_unlock(&f->kvm->slots_lock);

	KUNIT_ASSERT_TRUE(test, wait_placements(1));
	KUNIT_EXPECT_TRUE(test, wait_users(f, 1));
	KUNIT_EXPECT_EQ(test, refs, module_refcount(THIS_MODULE));
	KUNIT_EXPECT_TRUE(test, is_on_bus(f, p));
	KUNIT_EXPECT_EQ(test, 0, write_dev(f, p, 0x1004));
	/* the next one, and the end, are as if there had been none */
	p = move_on(p, 0x1800) ?: p;
	KUNIT_EXPECT_EQ(test, p->base, 0x1800);
	KUNIT_EXPECT_TRUE(test, is_on_bus(f, p));
	KUNIT_EXPECT_TRUE(test, detach(p));
}

/* A vCPU that delays grace periods limits the moves that are under way. */
static void placement_move_limit(struct kunit *test)
{
	struct attached *a = new_region(test, KVM_MMIO_BUS, 0x1000, 0x1000);
	struct doorbell_placement *p = attach(test, a, 0x1000, true);
	struct fixture *f = test->priv;
	struct moving moving = {};
	struct task_struct *task;
	int i, srcu;

	srcu = srcu_read_lock(&f->kvm->srcu);
	for (i = 0; i < MAX_GRACES; i++)
		p = move_on(p, 0x1000 + 0x800 * (i % 3)) ?: p;
	KUNIT_EXPECT_EQ(test, MAX_GRACES, atomic_read(&p->vm->graces));
	KUNIT_EXPECT_EQ(test, MAX_GRACES + 1, atomic_read(&nr_placements));
	KUNIT_EXPECT_EQ(test, MAX_GRACES + 1, users_of(f));

	for (i = 0; i < 2; i++) {
		task = start_move(&moving, p, 0x8000);
		if (IS_ERR(task))
			break;
		msleep(300);
		KUNIT_EXPECT_FALSE(test, completion_done(&moving.done));
		KUNIT_EXPECT_TRUE(test, is_on_bus(f, p));
		if (i)
			break;
		send_sig(SIGKILL, task, 1);
		wait_for_completion(&moving.done);
		KUNIT_EXPECT_EQ(test, -EINTR, PTR_ERR_OR_ZERO(moving.to));
	}
	srcu_read_unlock(&f->kvm->srcu, srcu);
	KUNIT_ASSERT_FALSE(test, IS_ERR(task));
	wait_for_completion(&moving.done);
	KUNIT_ASSERT_FALSE(test, IS_ERR(moving.to));
	doorbell_placement_put(p);
	KUNIT_EXPECT_TRUE(test, is_on_bus(f, moving.to));
	KUNIT_EXPECT_TRUE(test, wait_placements(1));
	KUNIT_EXPECT_TRUE(test, wait_users(f, 1));
	KUNIT_EXPECT_EQ(test, 0, write_dev(f, moving.to, 0x8004));
	KUNIT_EXPECT_TRUE(test, detach(moving.to));
	check_bus_one(test, KVM_MMIO_BUS, NULL);
	KUNIT_EXPECT_FALSE(test, doorbell_region_hung_up(a->region));
}

/* The larger a bus is, the fewer old ones may wait for a grace period. */
static void placement_old_buses(struct kunit *test)
{
	static const struct {
		int ranges, graces;
	} cases[] = {
		{ 0, 64 }, { 1, 64 }, { 1000, 64 }, { 1024, 64 }, { 2048, 32 },
		{ 10000, 6 }, { 65536, 1 }, { 65537, 1 }, { 170000, 1 },
	};
	struct attached *a = new_region(test, KVM_PIO_BUS, 0x1000, 0x100);
	struct fixture *f = test->priv;
	struct kvm_io_bus *bus = fixture_bus(f, KVM_PIO_BUS);
	int i;

	/* as its callers */
	mutex_lock(&f->kvm->slots_lock);
	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		bus->dev_count = cases[i].ranges;
		KUNIT_EXPECT_EQ(test, cases[i].graces,
				max_graces(&a->p, f->kvm));
	}
	bus->dev_count = 0;
	rcu_assign_pointer(f->kvm->buses[KVM_PIO_BUS], NULL);
	KUNIT_EXPECT_EQ(test, MAX_GRACES, max_graces(&a->p, f->kvm));
	rcu_assign_pointer(f->kvm->buses[KVM_PIO_BUS], bus);
	mutex_unlock(&f->kvm->slots_lock);
}

/* Large regions have several ranges. */
static void bus_huge(struct kunit *test)
{
	static const struct {
		u64 base;
		u64 size;
	} cases[] = {
		{ 0x200000000, 0x40000000 - 0x8000 },
		{ 0x200000000, 0x40000000 },
		{ 0x200000000, 0x40010000 },
		{ 0x200010000, 0x7fff0000 },
		{ 0x200010000, 0x80000000 },
		{ 0x200010000, 0x80010000 },
		{ 0x200010000, 0xffff0000 },
		{ 0, 0xffff0000 },
		{ 0xffffffff00000000, 0xffff0000 },
	};
	enum kvm_bus idx = KVM_MMIO_BUS;
	struct fixture *f = test->priv;
	struct attached *a;
	u64 base, end;
	int i;

	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		base = cases[i].base;
		end = base + cases[i].size;
		f->nr_others = 0;
		fixture_bus(f, idx)->dev_count = 0;
		if (base)
			add_other(test, idx, base - 8, 8, false);
		add_other(test, idx, end, 8, false);
		a = new_region(test, idx, base, cases[i].size);
		KUNIT_ASSERT_EQ(test, add(a), 0);
		check_bus_one(test, idx, a);
		if (KVM_CAN_WRITE)
			check_huge(test, a);
		take_off(a);
		check_bus_one(test, idx, NULL);
	}
}

/* The handler passes on value and width of each length that it knows. */
static void bus_handler(struct kunit *test)
{
	static const struct {
		int len;
		u64 value;	/* 0: declined */
	} cases[] = {
		{ 1, 0x81 }, { 2, 0x8281 }, { 3, 0x838281 }, { 4, 0x84838281 },
		{ 5, 0x8584838281 }, { 6, 0x868584838281 },
		{ 7, 0x87868584838281 }, { 8, 0x8887868584838281 },
		{ 0 }, { 9 }, { 16 }, { 64 }, { 4096 }, { -1 }, { -8 },
		{ 0x101 }, { 0x10004 }, { INT_MAX }, { INT_MIN },
	};
	struct attached *a = new_region(test, KVM_MMIO_BUS, 0x1000, 0x100);
	struct kvm_io_device *dev = &a->p.dev;
	struct fixture *f = test->priv;
	struct doorbell_event event;
	u64 read = 0x5a5a;
	int i, j, ret;
	u8 *bytes;

	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		/* of that size: KASAN reports reads beyond it */
		bytes = kunit_kmalloc(test, clamp(cases[i].len, 1, 8),
				      GFP_KERNEL);
		KUNIT_ASSERT_NOT_NULL(test, bytes);
		for (j = 0; j < clamp(cases[i].len, 1, 8); j++)
			bytes[j] = 0x81 + j;
		ret = kvm_iodevice_write(f->vcpu, dev, 0x1010, cases[i].len,
					 bytes);
		if (!cases[i].value) {
			KUNIT_ASSERT_EQ_MSG(test, ret, -EOPNOTSUPP, "len %d",
					    cases[i].len);
			KUNIT_ASSERT_EQ(test, 0, events_of(a, &event, 1));
			continue;
		}
		KUNIT_ASSERT_EQ_MSG(test, ret, 0, "len %d", cases[i].len);
		KUNIT_ASSERT_EQ(test, 1, events_of(a, &event, 1));
		KUNIT_EXPECT_EQ(test, event.queue, 0x10 / DOORBELL_STRIDE_MIN);
		KUNIT_EXPECT_EQ(test, event.width, cases[i].len);
		KUNIT_EXPECT_EQ(test, event.value, cases[i].value);
	}

	/* without a value, and at the one address too many that KVM finds */
	KUNIT_EXPECT_EQ(test, -EOPNOTSUPP,
			kvm_iodevice_write(f->vcpu, dev, 0x1000, 0, NULL));
	KUNIT_EXPECT_EQ(test, -EOPNOTSUPP,
			kvm_iodevice_write(f->vcpu, dev, 0x1100, 0, NULL));
	KUNIT_EXPECT_EQ(test, -EOPNOTSUPP,
			kvm_iodevice_write(f->vcpu, dev, 0x1100, 4, &read));
	KUNIT_EXPECT_EQ(test, -EOPNOTSUPP,
			kvm_iodevice_write(f->vcpu, dev, 0xfff, 4, &read));
	KUNIT_EXPECT_EQ(test, -EOPNOTSUPP,
			kvm_iodevice_read(f->vcpu, dev, 0x1010, 4, &read));
	KUNIT_EXPECT_EQ(test, 0, events_of(a, &event, 1));
	KUNIT_EXPECT_EQ(test, read, 0x5a5a);
}

static int wakeups_of(struct attached *a)
{
	return atomic64_read(&a->region->wakeups);
}

/* Each access at and around a region wakes a sleeping consumer or not. */
static void bus_modes(struct kunit *test)
{
	static const u32 flags[] = { 0, DOORBELL_ATTACH_ORDERED };
	const u64 value = 0x8887868584838281;
	struct fixture *f = test->priv;
	struct doorbell_event event;
	int i, len, rung, ret, wakeups;
	u64 addr;

	for (i = 0; i < ARRAY_SIZE(flags); i++) {
		struct attached *a = new_region_flags(test, 80, 12, flags[i],
						      flags[i] ? 2 : 0);
		struct doorbell_region *region = a->region;

		wakeups = 0;

		for (addr = 70; addr < 100; addr++) {
			for (len = 1; len <= 8; len++) {
				bool within = addr >= 80 && addr < 92;

				doorbell_buffer_arm(&region->buffer);
				ret = kvm_iodevice_write(f->vcpu, &a->p.dev,
							 addr, len, &value);
				KUNIT_ASSERT_EQ(test, ret,
						within ? 0 : -EOPNOTSUPP);
				wakeups += within;
				KUNIT_ASSERT_EQ(test, wakeups_of(a), wakeups);
				KUNIT_ASSERT_EQ(test, within,
						events_of(a, &event, 1));
				if (!within)
					continue;
				KUNIT_ASSERT_EQ(test, event.queue,
						(addr - 80) /
						DOORBELL_STRIDE_MIN);
				KUNIT_ASSERT_EQ(test, event.type,
						DOORBELL_EVENT_QUEUE);
				KUNIT_ASSERT_EQ(test, event.width, len);
				KUNIT_ASSERT_EQ(test, event.count, 1);
				KUNIT_ASSERT_EQ(test, event.value,
						value << (64 - 8 * len) >>
						(64 - 8 * len));
			}
		}

		/* coalescing has room for any number, ordered for two */
		KUNIT_ASSERT_EQ(test, 0, atomic64_read(&region->bounced));
		for (rung = 0; rung < 5; rung++)
			KUNIT_ASSERT_EQ(test, write_to(a, 84),
					flags[i] && rung >= 2 ?
					-EOPNOTSUPP : 0);
		KUNIT_ASSERT_EQ(test, atomic64_read(&region->bounced),
				flags[i] ? 3 : 0);
		KUNIT_ASSERT_EQ(test, 1, events_of(a, &event, 1));
		KUNIT_ASSERT_EQ(test, event.count, flags[i] ? 1 : 5);
	}
}

/* KVM passes on values; accesses of length 0 are declined. */
static void bus_values(struct kunit *test)
{
	struct attached *a = new_region(test, KVM_MMIO_BUS, 0x1000, 0x100);
	struct fixture *f = test->priv;
	u64 value = 0x8887868584838281;
	struct doorbell_event event;

	skip_without_search(test);
	KUNIT_ASSERT_EQ(test, add(a), 0);
	KUNIT_EXPECT_EQ(test, 0, bus_write(f, KVM_MMIO_BUS, 0x1004, 4, &value));
	KUNIT_ASSERT_EQ(test, 1, events_of(a, &event, 1));
	KUNIT_EXPECT_EQ(test, event.value, 0x84838281);
	KUNIT_EXPECT_EQ(test, 0, bus_write(f, KVM_MMIO_BUS, 0x10f8, 8, &value));
	KUNIT_ASSERT_EQ(test, 1, events_of(a, &event, 1));
	KUNIT_EXPECT_EQ(test, event.value, value);
	KUNIT_EXPECT_EQ(test, -EOPNOTSUPP,
			bus_write(f, KVM_MMIO_BUS, 0x1000, 0, &value));
	KUNIT_EXPECT_EQ(test, -EOPNOTSUPP,
			bus_write(f, KVM_MMIO_BUS, 0x1100, 0, &value));
	KUNIT_EXPECT_EQ(test, 0, events_of(a, &event, 1));
}

/**
 * struct bystander - a vCPU that writes to other devices all the time
 * @f: the test's state
 * @writes: number of writes
 * @missed: number of writes for which KVM found no device
 */
struct bystander {
	struct fixture *f;
	atomic_t writes;
	int missed;
};

static int quiet_write(struct kvm_vcpu *vcpu, struct kvm_io_device *dev,
		       gpa_t addr, int len, const void *val)
{
	return 0;
}

static const struct kvm_io_device_ops quiet_ops = {
	.write = quiet_write,
};

static int bystander_thread(void *data)
{
	struct bystander *by = data;
	struct fixture *f = by->f;
	u32 value = 0;
	int i = 0;

	while (!kthread_should_stop()) {
		i = (i + 1) % f->nr_others;
		if (kvm_write(f, KVM_MMIO_BUS, f->others[i].addr, 4, &value))
			by->missed++;
		atomic_inc(&by->writes);
		cond_resched();
	}
	return 0;
}

/* KVM finds other devices while regions come and go. */
static void bus_bystanders(struct kunit *test)
{
	struct attached *a = new_region(test, KVM_MMIO_BUS, 0x2000, 0x1000);
	struct attached *b = new_region(test, KVM_MMIO_BUS, 0x4000, 0x1000);
	struct fixture *f = test->priv;
	struct bystander by = { .f = f };
	struct task_struct *task;
	int i, writes, failed = 0;

	skip_without_search(test);
	for (i = 0; i < 12; i++) {
		add_other(test, KVM_MMIO_BUS, 0x1000 * (i / 4 * 2 + 1) + i * 4,
			  4, false);
		kvm_iodevice_init(&f->others[i].dev, &quiet_ops);
	}
	task = kthread_create(bystander_thread, &by, "doorbell_bystander");
	KUNIT_ASSERT_FALSE(test, IS_ERR(task));
	wake_up_process(task);
	for (i = 0; i < 60; i++) {
		writes = atomic_read(&by.writes);
		failed += add(a) != 0;
		failed += add(b) != 0;
		failed += take_off(a) != 0;
		failed += take_off(b) != 0;
		while (atomic_read(&by.writes) == writes)
			cond_resched();
	}
	kthread_stop(task);
	KUNIT_EXPECT_EQ(test, failed, 0);
	KUNIT_EXPECT_EQ(test, by.missed, 0);
	KUNIT_EXPECT_GE(test, atomic_read(&by.writes), 60);
	check_bus_one(test, KVM_MMIO_BUS, NULL);
}

/*
 * A region without values is also on the fast bus. KVM searches there with a
 * length of 0, which by its comparison also finds base + len.
 */
static void bus_no_value(struct kunit *test)
{
	static const enum kvm_bus buses[] = { KVM_MMIO_BUS, KVM_FAST_MMIO_BUS };
	struct attached *a = new_region_flags(test, 80, 12,
					      DOORBELL_ATTACH_NO_VALUE, 0);
	struct attached *plain = new_region(test, KVM_MMIO_BUS, 200, 12);
	struct fixture *f = test->priv;
	struct doorbell_event event;
	u64 value = ~0ULL;
	u64 addr;
	int i;

	skip_without_search(test);
	KUNIT_ASSERT_EQ(test, add(plain), 0);
	check_bus_one(test, KVM_FAST_MMIO_BUS, NULL);
	KUNIT_ASSERT_EQ(test, add(a), 0);
	check_bus_one(test, KVM_FAST_MMIO_BUS, a);

	for (addr = 60; addr < 112; addr++) {
		bool within = addr >= 80 && addr < 92;

		KUNIT_ASSERT_EQ(test, within ? 0 : -EOPNOTSUPP,
				bus_write(f, KVM_FAST_MMIO_BUS, addr, 0, NULL));
		KUNIT_ASSERT_EQ(test, within ? 0 : -EOPNOTSUPP,
				bus_write(f, KVM_MMIO_BUS, addr, 1, &value));
		KUNIT_ASSERT_EQ(test, within, events_of(a, &event, 1));
		if (within) {
			KUNIT_ASSERT_EQ(test, event.queue,
					(addr - 80) / DOORBELL_STRIDE_MIN);
			KUNIT_ASSERT_EQ(test, event.count, 2);
			KUNIT_ASSERT_EQ(test, event.value, 0);
			KUNIT_ASSERT_EQ(test, event.width, 0);
		}
	}
	/* a region with values declines writes without */
	KUNIT_ASSERT_EQ(test, -EOPNOTSUPP,
			bus_write(f, KVM_MMIO_BUS, 200, 0, NULL));

	take_off(a);
	check_bus_one(test, KVM_FAST_MMIO_BUS, NULL);
	check_bus_one(test, KVM_MMIO_BUS, plain);

	/* another device on either bus is in the way: nothing changes */
	for (i = 0; i < ARRAY_SIZE(buses); i++) {
		add_other(test, buses[i], 88, 0, true);
		KUNIT_ASSERT_EQ(test, -EEXIST, add(a));
		KUNIT_ASSERT_EQ(test, fixture_bus(f, buses[i])->dev_count,
				buses[i] == KVM_MMIO_BUS ? 2 : 1);
		/* remove it */
		fixture_bus(f, buses[i])->dev_count--;
		fixture_bus(f, buses[i])->ioeventfd_count--;
		f->nr_others--;
	}
	KUNIT_ASSERT_EQ(test, 0, add(a));
	take_off(a);
	take_off(plain);
}

static struct kunit_case kvm_tests[] = {
	KUNIT_CASE(bus_edges),
	KUNIT_CASE(bus_crowd),
	KUNIT_CASE(bus_exists),
	KUNIT_CASE(bus_regions),
	KUNIT_CASE(bus_separate),
	KUNIT_CASE(bus_room_of_others),
	KUNIT_CASE(bus_no_memory),
	KUNIT_CASE(bus_no_memory_for_second),
	KUNIT_CASE(bus_moves),
	KUNIT_CASE(bus_moves_on_two),
	KUNIT_CASE(bus_moves_huge),
	KUNIT_CASE(bus_moves_exists),
	KUNIT_CASE(bus_moves_no_memory),
	KUNIT_CASE(bus_moves_cancelled),
	KUNIT_CASE(placement_refuses),
	KUNIT_CASE(placement_life),
	KUNIT_CASE(placement_killed_attach),
	KUNIT_CASE(placement_limits_sleepers),
	KUNIT_CASE(placement_leaves),
	KUNIT_CASE(placement_waits_for_slots_lock),
	KUNIT_CASE(placement_loses_bus_first),
	KUNIT_CASE(placement_waits_for_vcpus),
	KUNIT_CASE(placement_inert),
	KUNIT_CASE(placement_inert_destroyed),
	KUNIT_CASE(placement_limits_graces),
	KUNIT_CASE(placement_destroyed),
	KUNIT_CASE(placement_loses_one_bus),
	KUNIT_CASE(placement_of_dying_vm),
	KUNIT_CASE(placement_destroyed_in_grace_period),
	KUNIT_CASE(placement_moves),
	KUNIT_CASE(placement_move_refused),
	KUNIT_CASE(placement_move_no_memory),
	KUNIT_CASE(placement_move_loses_bus),
	KUNIT_CASE(placement_move_detached),
	KUNIT_CASE(placement_move_destroyed),
	KUNIT_CASE(placement_moves_after_attach),
	KUNIT_CASE(placement_killed_move),
	KUNIT_CASE(placement_move_limit),
	KUNIT_CASE(placement_old_buses),
	KUNIT_CASE(bus_huge),
	KUNIT_CASE(bus_handler),
	KUNIT_CASE(bus_modes),
	KUNIT_CASE(bus_values),
	KUNIT_CASE(bus_bystanders),
	KUNIT_CASE(bus_no_value),
	{}
};

static struct kunit_suite kvm_suite = {
	.name = "doorbell_kvm",
	.init = kvm_test_init,
	.exit = kvm_test_exit,
	.test_cases = kvm_tests,
};

kunit_test_suite(kvm_suite);
