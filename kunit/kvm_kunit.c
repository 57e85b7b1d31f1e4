// SPDX-License-Identifier: GPL-2.0
/*
 * KVM: regions on the bus of a struct kvm that has nothing but buses.
 *
 * Two oracles: KVM's own kvm_io_bus_write(), where modules may call it, next to
 * a linear search that knows no order; and the list of what has to be on the
 * bus. The test stands in for the character device: it is what is rung.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <kunit/test.h>

#include <linux/kthread.h>
#include <linux/kvm_host.h>
#include <linux/mmu_notifier.h>
#include <linux/module.h>
#include <linux/sched/task.h>
#include <linux/slab.h>
#include <linux/srcu.h>

#include <kvm/iodev.h>

static int fail_allocations;

static void *kvm_test_kmalloc(size_t size, gfp_t gfp)
{
	if (fail_allocations)
		return NULL;
	return kmalloc(size, gfp);
}

/* What kvm.c allocates fails on demand, in every kernel and for nobody else. */
#undef kmalloc
#define kmalloc kvm_test_kmalloc
#include "../drivers/virt/doorbell/kvm.c"
#undef kmalloc

#include "buffer_util.h"

#define OTHERS		1100
#define CALLS		16

struct fixture;

/**
 * struct other - somebody else's device, and its range
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
 * struct call - what a device was told
 * @dev: which one
 * @addr: the address
 * @value: the value, for our own
 * @width: the size
 */
struct call {
	const void *dev;
	u64 addr;
	u64 value;
	int width;
};

/**
 * struct fixture - a VM without anything, and what happened on its buses
 * @kvm: the VM
 * @vcpu: who writes
 * @others: other devices
 * @nr_others: how many of them were put onto the bus
 * @calls: what devices were told, the first ones
 * @nr_calls: how often devices were told something
 */
struct fixture {
	struct kvm *kvm;
	struct kvm_vcpu *vcpu;
	struct other *others;
	int nr_others;
	struct call calls[CALLS];
	int nr_calls;
};

/**
 * struct attached - one region, as the character device would have it
 * @region: what kvm.c sees
 * @vm: its registration
 * @wakes: how often its consumer was woken
 * @f: the test's state
 */
struct attached {
	struct doorbell_region region;
	struct doorbell_vm vm;
	int wakes;
	struct fixture *f;
};

KUNIT_DEFINE_ACTION_WRAPPER(destroy_queue, doorbell_buffer_destroy,
			    struct doorbell_buffer *);

static void log_call(struct fixture *f, const void *dev, u64 addr, u64 value,
		     int width)
{
	if (f->nr_calls < CALLS)
		f->calls[f->nr_calls] = (struct call) {
			.dev = dev, .addr = addr, .value = value,
			.width = width,
		};
	f->nr_calls++;
}

/* What kvm.c rings, in place of chardev.c. */
bool doorbell_region_ring(struct doorbell_region *region, u64 addr, u64 value,
			  u8 width)
{
	struct attached *a = container_of(region, struct attached, region);

	if (addr < region->geo.base ||
	    addr > region->geo.base + (region->geo.len - 1))
		return false;
	log_call(a->f, &a->vm.dev, addr, value, width);
	return true;
}

void doorbell_region_wake(struct doorbell_region *region)
{
	struct attached *a = container_of(region, struct attached, region);

	a->wakes++;
}

void doorbell_region_hangup(struct doorbell_region *region)
{
}

static int other_write(struct kvm_vcpu *vcpu, struct kvm_io_device *dev,
		       gpa_t addr, int len, const void *val)
{
	struct other *other = container_of(dev, struct other, dev);

	log_call(other->f, dev, addr, 0, len);
	return other->accepts ? 0 : -EOPNOTSUPP;
}

static const struct kvm_io_device_ops other_ops = {
	.write = other_write,
};

static int kvm_test_init(struct kunit *test)
{
	struct fixture *f = kunit_kzalloc(test, sizeof(*f), GFP_KERNEL);
	int i;

	fail_allocations = 0;
	if (!f)
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
	for (i = 0; i < KVM_NR_BUSES; i++)
		kfree(fixture_bus(f, i));
	cleanup_srcu_struct(&f->kvm->srcu);
	kvfree(f->others);
	kvfree(f->vcpu);
	kvfree(f->kvm);
}

/* Put another device behind those that are on the bus already. */
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
	/* nobody reads it yet */
	rcu_assign_pointer(f->kvm->buses[idx], new);
	kfree(old);
	return other;
}

static struct attached *new_region(struct kunit *test, enum kvm_bus idx,
				   u64 base, u64 len)
{
	struct attached *a = kunit_kzalloc(test, sizeof(*a), GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, a);
	a->f = test->priv;
	a->region.geo.base = base;
	a->region.geo.len = len;
	a->region.flags = idx == KVM_PIO_BUS ? DOORBELL_ATTACH_PIO : 0;
	a->vm.region = &a->region;
	a->vm.kvm = a->f->kvm;
	kvm_iodevice_init(&a->vm.dev, &doorbell_vm_ops);
	return a;
}

/*
 * The bus is in order, others are there as they were, and so is every region of
 * @regions, up to a NULL, gapless. Nothing else is.
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
		next = (*regions)->region.geo.base;
		for (i = 0; i < bus->dev_count; i++) {
			if (bus->range[i].dev != &(*regions)->vm.dev)
				continue;
			KUNIT_ASSERT_EQ(test, bus->range[i].addr, next);
			KUNIT_ASSERT_GT(test, bus->range[i].len, 0);
			next += bus->range[i].len;
			found++;
		}
		KUNIT_ASSERT_EQ(test, next, (*regions)->region.geo.base +
				(*regions)->region.geo.len);
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

/* As vCPUs do. */
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
		kunit_skip(test, "KVM keeps kvm_io_bus_write() to itself in this kernel");
}

static int bus_write(struct fixture *f, enum kvm_bus idx, u64 addr, int len,
		     const void *val)
{
	f->nr_calls = 0;
	return kvm_write(f, idx, addr, len, val);
}

/* Is an access inside a range, by its bytes? Length 0 is any access at @base. */
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
 * Write through KVM, and expect that @a was rung if all of the access is inside
 * of it, or else that all others which it is inside of were asked, in order,
 * until one accepted.
 */
static void check_write(struct kunit *test, enum kvm_bus idx,
			struct attached *a, u64 addr, int len)
{
	struct fixture *f = test->priv;
	u64 value = 0x8877665544332211;
	int i, ret, expected = 0;
	bool handled = false;

	ret = bus_write(f, idx, addr, len, &value);
	if (a && inside(addr, len, a->region.geo.base, a->region.geo.len)) {
		KUNIT_ASSERT_EQ_MSG(test, ret, 0, "addr %#llx len %d", addr,
				    len);
		KUNIT_ASSERT_EQ(test, f->nr_calls, 1);
		KUNIT_ASSERT_PTR_EQ(test, f->calls[0].dev,
				    (const void *)&a->vm.dev);
		KUNIT_ASSERT_EQ(test, f->calls[0].addr, addr);
		KUNIT_ASSERT_EQ(test, f->calls[0].width, len);
		return;
	}

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
	KUNIT_ASSERT_EQ(test, buses_add(&a->vm), 0);
	check_bus_one(test, KVM_MMIO_BUS, a);
	check_writes(test, KVM_MMIO_BUS, a, 60, 112);
	buses_remove(&a->vm);
	check_bus_one(test, KVM_MMIO_BUS, NULL);
	check_writes(test, KVM_MMIO_BUS, NULL, 60, 112);

	add_other(test, KVM_MMIO_BUS, 68, 4, true);
	add_other(test, KVM_MMIO_BUS, 72, 8, false);
	add_other(test, KVM_MMIO_BUS, 92, 0, true)->accepts = true;
	add_other(test, KVM_MMIO_BUS, 93, 7, false)->accepts = true;
	check_writes(test, KVM_MMIO_BUS, NULL, 60, 112);
	KUNIT_ASSERT_EQ(test, buses_add(&a->vm), 0);
	check_bus_one(test, KVM_MMIO_BUS, a);
	check_writes(test, KVM_MMIO_BUS, a, 60, 112);
	buses_remove(&a->vm);
	check_bus_one(test, KVM_MMIO_BUS, NULL);
	check_writes(test, KVM_MMIO_BUS, NULL, 60, 112);
}

/* 1,000 others, some of them many at one address, as ioeventfds are. */
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
		/* 1, 2 and 4 at one address, and any behind them */
		if (i % 4 == 3)
			add_other(test, idx, addr + 8, 0, true);
		else
			add_other(test, idx, addr, 1 << i % 4, i % 4 == 2);
		f->others[i].accepts = i % 3 == 0;
	}
	for (round = 0; round < 2; round++) {
		KUNIT_ASSERT_EQ(test, buses_add(&a->vm), 0);
		check_bus_one(test, idx, a);
		for (i = round; i < 1000; i += 2) {
			check_write(test, idx, a, f->others[i].addr, 2);
			check_write(test, idx, a, f->others[i].addr, 4);
		}
		check_writes(test, idx, a, 0xfff0, 0x10010);
		check_writes(test, idx, a, 0x13ff0, 0x14010);
		buses_remove(&a->vm);
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
		KUNIT_ASSERT_EQ_MSG(test, buses_add(&a->vm), cases[i].ret,
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

	KUNIT_ASSERT_EQ(test, buses_add(&a[0]->vm), 0);
	KUNIT_ASSERT_EQ(test, buses_add(&a[1]->vm), 0);
	KUNIT_ASSERT_EQ(test, buses_add(&pio->vm), 0);
	check_bus(test, KVM_MMIO_BUS, two);
	check_bus_one(test, KVM_PIO_BUS, pio);
	KUNIT_ASSERT_EQ(test, buses_add(&a[2]->vm), 0);
	KUNIT_ASSERT_EQ(test, buses_add(&bad->vm), -EEXIST);
	check_bus(test, KVM_MMIO_BUS, a);
	check_bus_one(test, KVM_PIO_BUS, pio);
	check_bus_one(test, KVM_FAST_MMIO_BUS, NULL);
	buses_remove(&a[2]->vm);
	check_bus(test, KVM_MMIO_BUS, two);
	buses_remove(&pio->vm);
	check_bus(test, KVM_MMIO_BUS, two);
	check_bus_one(test, KVM_PIO_BUS, NULL);
	KUNIT_ASSERT_EQ(test, buses_add(&bad->vm), 0);
}

/* A write on one bus does not reach the other. */
static void bus_separate(struct kunit *test)
{
	struct attached *mmio = new_region(test, KVM_MMIO_BUS, 0x1000, 0x10);
	struct attached *pio = new_region(test, KVM_PIO_BUS, 0x1008, 0x10);

	skip_without_search(test);
	KUNIT_ASSERT_EQ(test, buses_add(&mmio->vm), 0);
	KUNIT_ASSERT_EQ(test, buses_add(&pio->vm), 0);
	check_writes(test, KVM_MMIO_BUS, mmio, 0xff8, 0x1020);
	check_writes(test, KVM_PIO_BUS, pio, 0xff8, 0x1020);
	check_writes(test, KVM_FAST_MMIO_BUS, NULL, 0xff8, 0x1020);
	buses_remove(&mmio->vm);
	check_writes(test, KVM_MMIO_BUS, NULL, 0xff8, 0x1020);
	check_writes(test, KVM_PIO_BUS, pio, 0xff8, 0x1020);
}

/* NR_IOBUS_DEVS others; ioeventfds are not counted. */
static void bus_room(struct kunit *test)
{
	static const struct {
		int devices;
		int ioeventfds;
		u64 size;	/* of the region, which takes a place per GiB */
		int ret;
	} cases[] = {
		{ 998, 0, 4, 0 },
		{ 999, 0, 4, 0 },
		{ 1000, 0, 4, -ENOSPC },
		{ 1001, 0, 4, -ENOSPC },
		{ 999, 50, 4, 0 },
		{ 1000, 50, 4, -ENOSPC },
		{ 0, 1100, 4, 0 },
		{ 996, 0, 0xffff0000, 0 },
		{ 997, 0, 0xffff0000, -ENOSPC },
		{ 996, 50, 0xffff0000, 0 },
		{ 997, 50, 0xffff0000, -ENOSPC },
		{ 999, 0, 0x40000000, 0 },
		{ 999, 0, 0x40010000, -ENOSPC },
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
		KUNIT_ASSERT_EQ_MSG(test, buses_add(&a->vm), cases[i].ret,
				    "%d devices, %d ioeventfds, size %#llx",
				    cases[i].devices, cases[i].ioeventfds,
				    cases[i].size);
		if (cases[i].ret) {
			check_bus_one(test, KVM_MMIO_BUS, NULL);
			continue;
		}
		check_bus_one(test, KVM_MMIO_BUS, a);
		buses_remove(&a->vm);
		check_bus_one(test, KVM_MMIO_BUS, NULL);
		KUNIT_ASSERT_EQ(test, cases[i].ioeventfds,
				fixture_bus(f, KVM_MMIO_BUS)->ioeventfd_count);
	}
}

/* KVM gives a bus up when it has no memory; no memory of our own. */
static void bus_no_memory(struct kunit *test)
{
	struct attached *a = new_region(test, KVM_MMIO_BUS, 0x1000, 4);
	struct fixture *f = test->priv;
	struct kvm_io_bus *bus = fixture_bus(f, KVM_MMIO_BUS);

	fail_allocations = 1;
	KUNIT_EXPECT_EQ(test, buses_add(&a->vm), -ENOMEM);
	fail_allocations = 0;
	KUNIT_EXPECT_PTR_EQ(test, bus, fixture_bus(f, KVM_MMIO_BUS));
	check_bus_one(test, KVM_MMIO_BUS, NULL);

	RCU_INIT_POINTER(f->kvm->buses[KVM_MMIO_BUS], NULL);
	KUNIT_EXPECT_EQ(test, buses_add(&a->vm), -ENOMEM);
	KUNIT_EXPECT_NULL(test, fixture_bus(f, KVM_MMIO_BUS));
	KUNIT_EXPECT_FALSE(test, mutex_is_locked(&f->kvm->slots_lock));

	/* attached before KVM gave it up */
	rcu_assign_pointer(f->kvm->buses[KVM_MMIO_BUS], bus);
	KUNIT_EXPECT_EQ(test, buses_add(&a->vm), 0);
	kfree(fixture_bus(f, KVM_MMIO_BUS));
	RCU_INIT_POINTER(f->kvm->buses[KVM_MMIO_BUS], NULL);
	buses_remove(&a->vm);
	KUNIT_EXPECT_NULL(test, fixture_bus(f, KVM_MMIO_BUS));
}

/* A removal without memory keeps the module; the tests give it back. */
static int remove_without_memory(struct attached *a)
{
	int before = module_refcount(THIS_MODULE), kept;

	fail_allocations = 1;
	buses_remove(&a->vm);
	fail_allocations = 0;
	kept = module_refcount(THIS_MODULE) - before;
	while (module_refcount(THIS_MODULE) > before)
		module_put(THIS_MODULE);
	return kept;
}

/* What is left does nothing and is in nobody's way, until it can be removed. */
static void bus_inert(struct kunit *test)
{
	static const struct {
		u64 base;
		u64 size;
	} next[] = {
		{ 0x1000, 0x1000 },		/* the same */
		{ 0x1800, 4 },			/* inside of it */
		{ 0, 0x10000 },			/* around it */
		{ 0x0ffc, 8 }, { 0x1ffc, 8 },	/* partly */
		{ 0x5000, 4 },			/* elsewhere */
	};
	struct attached *a = new_region(test, KVM_MMIO_BUS, 0x1000, 0x1000);
	struct attached *b;
	struct kvm_io_bus *bus;
	struct fixture *f = test->priv;
	int i, j;

	add_other(test, KVM_MMIO_BUS, 0x20000, 4, false)->accepts = true;
	for (i = 0; i < ARRAY_SIZE(next); i++) {
		KUNIT_ASSERT_EQ(test, buses_add(&a->vm), 0);
		KUNIT_ASSERT_EQ(test, remove_without_memory(a), 1);

		bus = fixture_bus(f, KVM_MMIO_BUS);
		for (j = 0; j < bus->dev_count; j++) {
			KUNIT_ASSERT_PTR_NE(test, bus->range[j].dev,
					    &a->vm.dev);
			KUNIT_ASSERT_NOT_NULL(test, bus->range[j].dev->ops);
			KUNIT_ASSERT_NULL(test,
					  bus->range[j].dev->ops->destructor);
		}

		b = new_region(test, KVM_MMIO_BUS, next[i].base, next[i].size);
		KUNIT_ASSERT_EQ(test, buses_add(&b->vm), 0);
		check_bus_one(test, KVM_MMIO_BUS, b);
		buses_remove(&b->vm);
		check_bus_one(test, KVM_MMIO_BUS, NULL);
	}
	/* the next removal clears it away as well */
	KUNIT_ASSERT_EQ(test, buses_add(&a->vm), 0);
	b = new_region(test, KVM_MMIO_BUS, 0x6000, 4);
	KUNIT_ASSERT_EQ(test, buses_add(&b->vm), 0);
	KUNIT_ASSERT_EQ(test, remove_without_memory(a), 1);
	buses_remove(&b->vm);
	check_bus_one(test, KVM_MMIO_BUS, NULL);
}

/* Nobody gets writes to what is left; others get theirs. */
static void bus_inert_writes(struct kunit *test)
{
	struct attached *a = new_region(test, KVM_MMIO_BUS, 0x1000, 0x10);

	skip_without_search(test);
	add_other(test, KVM_MMIO_BUS, 0x1010, 4, false)->accepts = true;
	KUNIT_ASSERT_EQ(test, buses_add(&a->vm), 0);
	check_writes(test, KVM_MMIO_BUS, a, 0xff0, 0x1020);
	KUNIT_ASSERT_EQ(test, remove_without_memory(a), 1);
	check_writes(test, KVM_MMIO_BUS, NULL, 0xff0, 0x1020);
	KUNIT_ASSERT_EQ(test, buses_add(&a->vm), 0);
	check_writes(test, KVM_MMIO_BUS, a, 0xff0, 0x1020);
}

/* Devices that KVM puts into the place later on are found. */
static void bus_inert_place(struct kunit *test)
{
	struct attached *a = new_region(test, KVM_MMIO_BUS, 0x1000, 0x1000);
	struct fixture *f = test->priv;
	int i;

	skip_without_search(test);
	/* as many below it as later within: the search starts at what is left */
	for (i = 0; i < 32; i++)
		add_other(test, KVM_MMIO_BUS, i * 16, 4, true)->accepts = true;
	KUNIT_ASSERT_EQ(test, buses_add(&a->vm), 0);
	KUNIT_ASSERT_EQ(test, remove_without_memory(a), 1);
	for (i = 0; i < 32; i++)
		add_other(test, KVM_MMIO_BUS, 0x1010 + i * 16, 4,
			  true)->accepts = true;
	for (i = 0; i < 64; i++)
		check_write(test, KVM_MMIO_BUS, NULL, f->others[i].addr, 4);
	check_write(test, KVM_MMIO_BUS, NULL, 0x1ff0, 4);
}

/* Both ends of a region, and its seams. */
static void check_huge(struct kunit *test, struct attached *a)
{
	enum kvm_bus idx = KVM_MMIO_BUS;
	u64 base = a->region.geo.base;
	u64 size = a->region.geo.len;
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

/* Regions that take more than one range. */
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
		KUNIT_ASSERT_EQ(test, buses_add(&a->vm), 0);
		check_bus_one(test, idx, a);
		if (KVM_CAN_WRITE)
			check_huge(test, a);
		buses_remove(&a->vm);
		check_bus_one(test, idx, NULL);
	}
}

/* The handler by itself: value and width for each length, else declined. */
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
	struct kvm_io_device *dev = &a->vm.dev;
	struct fixture *f = test->priv;
	u64 read = 0x5a5a;
	int i, j, ret;
	u8 *bytes;

	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		/* of that size, so that KASAN sees what is read behind it */
		bytes = kunit_kmalloc(test, clamp(cases[i].len, 1, 8),
				      GFP_KERNEL);
		KUNIT_ASSERT_NOT_NULL(test, bytes);
		for (j = 0; j < clamp(cases[i].len, 1, 8); j++)
			bytes[j] = 0x81 + j;
		f->nr_calls = 0;
		ret = kvm_iodevice_write(f->vcpu, dev, 0x1010, cases[i].len,
					 bytes);
		if (!cases[i].value) {
			KUNIT_ASSERT_EQ_MSG(test, ret, -EOPNOTSUPP, "len %d",
					    cases[i].len);
			KUNIT_ASSERT_EQ(test, f->nr_calls, 0);
			continue;
		}
		KUNIT_ASSERT_EQ_MSG(test, ret, 0, "len %d", cases[i].len);
		KUNIT_ASSERT_EQ(test, f->nr_calls, 1);
		KUNIT_EXPECT_EQ(test, f->calls[0].addr, 0x1010);
		KUNIT_EXPECT_EQ(test, f->calls[0].width, cases[i].len);
		KUNIT_EXPECT_EQ(test, f->calls[0].value, cases[i].value);
	}

	/* KVM_FAST_MMIO_BUS has no value, and matches one address too many */
	f->nr_calls = 0;
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
	KUNIT_EXPECT_EQ(test, f->nr_calls, 0);
	KUNIT_EXPECT_EQ(test, read, 0x5a5a);
}

/*
 * What the handlers of both modes ring on their own, and what they leave to the
 * one above: every access at and around a region, with the consumer asleep.
 */
static void bus_modes(struct kunit *test)
{
	static const u32 flags[] = { 0, DOORBELL_ATTACH_ORDERED };
	const u64 value = 0x8887868584838281;
	struct fixture *f = test->priv;
	struct doorbell_event event;
	int i, len, rung, ret;
	bool wake = false;
	u64 addr;

	for (i = 0; i < ARRAY_SIZE(flags); i++) {
		struct attached *a = new_region(test, KVM_MMIO_BUS, 80, 12);
		struct doorbell_buffer *buf = &a->region.buffer;

		a->region.flags = flags[i];
		kvm_iodevice_init(&a->vm.dev, region_ops(&a->region));
		KUNIT_ASSERT_EQ(test, 0,
				doorbell_geometry_init(&a->region.geo, 80, 12,
						       4, 0, false));
		KUNIT_ASSERT_EQ(test, 0,
				doorbell_buffer_init(buf, 3, flags[i] ? 2 : 0));
		KUNIT_ASSERT_EQ(test, 0,
				kunit_add_action_or_reset(test, destroy_queue,
							  buf));

		for (addr = 70; addr < 100; addr++) {
			for (len = 1; len <= 8; len++) {
				bool within = addr >= 80 && addr < 92;
				bool here = within && (len == 2 || len == 4);

				doorbell_buffer_arm(buf);
				f->nr_calls = 0;
				a->wakes = 0;
				ret = kvm_iodevice_write(f->vcpu, &a->vm.dev,
							 addr, len, &value);
				KUNIT_ASSERT_EQ(test, ret,
						within ? 0 : -EOPNOTSUPP);
				KUNIT_ASSERT_EQ(test, f->nr_calls,
						within && !here);
				KUNIT_ASSERT_EQ(test, a->wakes, here);
				KUNIT_ASSERT_EQ(test, here,
						consume_events(buf, &event, 1, &wake));
				if (!here)
					continue;
				KUNIT_ASSERT_EQ(test, event.queue,
						(addr - 80) / 4);
				KUNIT_ASSERT_EQ(test, event.type,
						DOORBELL_EVENT_QUEUE);
				KUNIT_ASSERT_EQ(test, event.width, len);
				KUNIT_ASSERT_EQ(test, event.count, 1);
				KUNIT_ASSERT_EQ(test, event.value, len == 2 ?
						0x8281 : 0x84838281);
			}
		}

		/* coalescing has room for any number, ordered for two */
		atomic64_set(&a->region.bounced, 0);
		for (rung = 0; rung < 5; rung++) {
			ret = kvm_iodevice_write(f->vcpu, &a->vm.dev, 84, 4,
						 &value);
			KUNIT_ASSERT_EQ(test, ret, flags[i] && rung >= 2 ?
					-EOPNOTSUPP : 0);
		}
		KUNIT_ASSERT_EQ(test, atomic64_read(&a->region.bounced),
				flags[i] ? 3 : 0);
		KUNIT_ASSERT_EQ(test, 1, consume_events(buf, &event, 1, &wake));
		KUNIT_ASSERT_EQ(test, event.count, flags[i] ? 1 : 5);
	}
}

/* Through KVM: values, and no access of length 0 at either end. */
static void bus_values(struct kunit *test)
{
	struct attached *a = new_region(test, KVM_MMIO_BUS, 0x1000, 0x100);
	struct fixture *f = test->priv;
	u64 value = 0x8887868584838281;

	skip_without_search(test);
	KUNIT_ASSERT_EQ(test, buses_add(&a->vm), 0);
	KUNIT_EXPECT_EQ(test, 0, bus_write(f, KVM_MMIO_BUS, 0x1004, 4, &value));
	KUNIT_EXPECT_EQ(test, f->calls[0].value, 0x84838281);
	KUNIT_EXPECT_EQ(test, 0, bus_write(f, KVM_MMIO_BUS, 0x10f8, 8, &value));
	KUNIT_EXPECT_EQ(test, f->calls[0].value, value);
	KUNIT_EXPECT_EQ(test, -EOPNOTSUPP,
			bus_write(f, KVM_MMIO_BUS, 0x1000, 0, &value));
	KUNIT_EXPECT_EQ(test, -EOPNOTSUPP,
			bus_write(f, KVM_MMIO_BUS, 0x1100, 0, &value));
	KUNIT_EXPECT_EQ(test, f->nr_calls, 0);
}

/**
 * struct bystander - a vCPU that writes to other devices all the time
 * @f: whose
 * @writes: how often it wrote
 * @missed: how often nobody was found
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

/* Others are found while regions come and go, also without memory. */
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
		failed += buses_add(&a->vm) != 0;
		failed += buses_add(&b->vm) != 0;
		if (i % 8 == 7)
			remove_without_memory(a);
		else
			buses_remove(&a->vm);
		buses_remove(&b->vm);
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
 * A region that needs no value is on the fast bus, too: KVM asks there with
 * length 0 and no value, which by its comparison also finds base + len.
 */
static void bus_no_value(struct kunit *test)
{
	static const enum kvm_bus buses[] = { KVM_MMIO_BUS, KVM_FAST_MMIO_BUS };
	struct attached *a = new_region(test, KVM_MMIO_BUS, 80, 12);
	struct attached *plain = new_region(test, KVM_MMIO_BUS, 200, 12);
	struct fixture *f = test->priv;
	u64 value = ~0ULL;
	u64 addr;
	int i;

	skip_without_search(test);
	a->region.flags |= DOORBELL_ATTACH_NO_VALUE;
	KUNIT_ASSERT_EQ(test, buses_add(&plain->vm), 0);
	check_bus_one(test, KVM_FAST_MMIO_BUS, NULL);
	KUNIT_ASSERT_EQ(test, buses_add(&a->vm), 0);
	check_bus_one(test, KVM_FAST_MMIO_BUS, a);

	for (addr = 60; addr < 112; addr++) {
		bool within = addr >= 80 && addr < 92;

		KUNIT_ASSERT_EQ(test, within ? 0 : -EOPNOTSUPP,
				bus_write(f, KVM_FAST_MMIO_BUS, addr, 0, NULL));
		KUNIT_ASSERT_EQ(test, f->nr_calls, within);
		KUNIT_ASSERT_EQ(test, within ? 0 : -EOPNOTSUPP,
				bus_write(f, KVM_MMIO_BUS, addr, 1, &value));
		KUNIT_ASSERT_EQ(test, f->nr_calls, within);
		if (within) {
			KUNIT_ASSERT_EQ(test, f->calls[0].addr, addr);
			KUNIT_ASSERT_EQ(test, f->calls[0].value, 0);
			KUNIT_ASSERT_EQ(test, f->calls[0].width, 0);
		}
	}
	/* one that wants values takes none without */
	KUNIT_ASSERT_EQ(test, -EOPNOTSUPP,
			bus_write(f, KVM_MMIO_BUS, 200, 0, NULL));

	buses_remove(&a->vm);
	check_bus_one(test, KVM_FAST_MMIO_BUS, NULL);
	check_bus_one(test, KVM_MMIO_BUS, plain);

	/* somebody else on either bus is in the way, and nothing changes */
	for (i = 0; i < ARRAY_SIZE(buses); i++) {
		add_other(test, buses[i], 88, 0, true);
		KUNIT_ASSERT_EQ(test, -EEXIST, buses_add(&a->vm));
		KUNIT_ASSERT_EQ(test, fixture_bus(f, buses[i])->dev_count,
				buses[i] == KVM_MMIO_BUS ? 2 : 1);
		/* take it away again */
		fixture_bus(f, buses[i])->dev_count--;
		fixture_bus(f, buses[i])->ioeventfd_count--;
		f->nr_others--;
	}
	KUNIT_ASSERT_EQ(test, 0, buses_add(&a->vm));
	buses_remove(&a->vm);
	buses_remove(&plain->vm);
}

static struct kunit_case kvm_tests[] = {
	KUNIT_CASE(bus_edges),
	KUNIT_CASE(bus_crowd),
	KUNIT_CASE(bus_exists),
	KUNIT_CASE(bus_regions),
	KUNIT_CASE(bus_separate),
	KUNIT_CASE(bus_room),
	KUNIT_CASE(bus_no_memory),
	KUNIT_CASE(bus_inert),
	KUNIT_CASE(bus_inert_writes),
	KUNIT_CASE(bus_inert_place),
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
