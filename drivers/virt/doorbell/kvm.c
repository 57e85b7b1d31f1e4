// SPDX-License-Identifier: GPL-2.0
/*
 * KVM: putting a region onto a VM's I/O bus, and taking it off again.
 *
 * This is the only file that knows KVM. KVM exports no function for adding a
 * device to a bus, but the bus is plain RCU, and its structures are in public
 * headers: under kvm->slots_lock a changed copy takes the place of the old bus,
 * and after a grace period of kvm->srcu nobody uses the old one. That is what
 * kvm_io_bus_register_dev() does, and what this file does.
 *
 * Lifetimes: while a region is attached it holds a reference to struct kvm, so
 * that the bus outlives the device, and an mmu_notifier on the mm that the VM
 * runs in, which tells when the VM's process is gone. Whichever comes first,
 * detach or the end of the process, takes the device off the bus.
 *
 * Locks: the consumer's attach_lock, then mmap_lock (mmu_notifier) or
 * kvm->slots_lock. The end of the process is told under the mmu_notifier SRCU,
 * where neither slots_lock nor the last reference to the VM may be waited for:
 * a work item does the rest.
 */
#define pr_fmt(fmt) KBUILD_MODNAME ": " fmt

#include <linux/file.h>
#include <linux/fs.h>
#include <linux/kvm_host.h>
#include <linux/magic.h>
#include <linux/mmu_notifier.h>
#include <linux/module.h>
#include <linux/sched/mm.h>
#include <linux/sizes.h>
#include <linux/slab.h>
#include <linux/workqueue.h>

#include <kvm/iodev.h>

#include <linux/doorbell.h>

#include "kvm.h"
#include "region.h"
#include "produce.h"

/**
 * struct doorbell_vm - a region's registration with a VM
 * @dev: the device on the bus
 * @region: the region; constant
 * @kvm: the VM, referenced; NULL once the device is off the bus. Written by
 *	attach, then by @gone_work or, after that has ended, by detach
 * @notifier: tells when the VM's process is gone
 * @detaching: the end of the process does not matter any more; written before
 *	mmu_notifier_unregister(), which synchronizes with its reader
 * @gone_work: leaves the VM after its process has gone
 */
struct doorbell_vm {
	struct kvm_io_device dev;
	struct doorbell_region *region;
	struct kvm *kvm;
	struct mmu_notifier notifier;
	bool detaching;
	struct work_struct gone_work;
};

/*
 * What is left on a bus when there is no memory for a smaller one. KVM passes
 * by a device that has no operations; this file's next change of the bus removes
 * it.
 */
static const struct kvm_io_device_ops inert_ops = {};
static struct kvm_io_device inert_dev = { .ops = &inert_ops };

/*
 * What KVM calls is called on the vCPU's thread, under kvm->srcu: no lock, no
 * allocation.
 */
static int doorbell_vm_write(struct kvm_vcpu *vcpu, struct kvm_io_device *dev,
			     gpa_t addr, int len, const void *val)
{
	struct doorbell_vm *vm = container_of(dev, struct doorbell_vm, dev);
	struct doorbell_region *region = vm->region;
	u64 value = 0;
	int width = 0;

	/* KVM_FAST_MMIO_BUS tells neither length nor value */
	if (!(region->flags & DOORBELL_ATTACH_NO_VALUE)) {
		if (len < 1 || len > sizeof(value))
			return -EOPNOTSUPP;
		/* zero-extended by its place: KVM's hosts are little-endian */
		memcpy(&value, val, len);
		width = len;
	}

	if (doorbell_region_ring(region, addr, value, width))
		return 0;
	/* declined on the fast bus, a write comes again on the other one */
	if (len)
		atomic64_inc(&region->bounced);
	return -EOPNOTSUPP;
}

static const struct kvm_io_device_ops doorbell_vm_ops = {
	.write = doorbell_vm_write,
};

/*
 * The same for what nearly all drivers do: the address names the queue, and the
 * value has 4 or 2 bytes. All of it is inlined here.
 */
static __always_inline int write_fast(struct kvm_vcpu *vcpu,
				    struct kvm_io_device *dev, gpa_t addr,
				    int len, const void *val, bool ordered)
{
	struct doorbell_vm *vm = container_of(dev, struct doorbell_vm, dev);
	struct doorbell_region *region = vm->region;
	enum doorbell_ring_result result;
	u32 queue, value;
	u16 half, kind;

	if (likely(len == sizeof(value))) {
		memcpy(&value, val, sizeof(value));
		kind = doorbell_kind(DOORBELL_EVENT_QUEUE, sizeof(value));
	} else if (len == sizeof(half)) {
		memcpy(&half, val, sizeof(half));
		value = half;
		kind = doorbell_kind(DOORBELL_EVENT_QUEUE, sizeof(half));
	} else {
		return doorbell_vm_write(vcpu, dev, addr, len, val);
	}
	if (!doorbell_geometry_contains(&region->geo, addr))
		return -EOPNOTSUPP;

	queue = doorbell_geometry_at(&region->geo, addr);
	if (ordered)
		result = doorbell_ordered_ring(&region->buffer, queue, kind, value);
	else
		result = doorbell_coalesced_ring(&region->buffer, queue, kind, value);

	if (result == DOORBELL_RING_FULL) {
		atomic64_inc(&region->bounced);
		return -EOPNOTSUPP;
	}
	if (result == DOORBELL_RING_WAKE)
		doorbell_region_wake(region);
	return 0;
}

static int write_coalescing(struct kvm_vcpu *vcpu, struct kvm_io_device *dev,
			    gpa_t addr, int len, const void *val)
{
	return write_fast(vcpu, dev, addr, len, val, false);
}

static int write_ordered(struct kvm_vcpu *vcpu, struct kvm_io_device *dev,
			 gpa_t addr, int len, const void *val)
{
	return write_fast(vcpu, dev, addr, len, val, true);
}

static const struct kvm_io_device_ops coalescing_ops = {
	.write = write_coalescing,
};

static const struct kvm_io_device_ops ordered_ops = {
	.write = write_ordered,
};

static const struct kvm_io_device_ops *
region_ops(const struct doorbell_region *region)
{
	if (region->flags & (DOORBELL_ATTACH_BY_VALUE | DOORBELL_ATTACH_NO_VALUE))
		return &doorbell_vm_ops;
	return region->flags & DOORBELL_ATTACH_ORDERED ? &ordered_ops :
							 &coalescing_ops;
}

/* The bus that a region is on, and the one that it may be on as well. */
static enum kvm_bus region_bus(const struct doorbell_region *region)
{
	return region->flags & DOORBELL_ATTACH_PIO ? KVM_PIO_BUS : KVM_MMIO_BUS;
}

static bool region_on_fast_bus(const struct doorbell_region *region)
{
	return region->flags & DOORBELL_ATTACH_NO_VALUE;
}

/* kvm_io_range.len is an int: a region may need more than one range. */
static int region_ranges(const struct doorbell_region *region)
{
	return DIV_ROUND_UP_ULL(region->geo.len, SZ_1G);
}

static bool intersects(const struct doorbell_region *region,
		       const struct kvm_io_range *range)
{
	/* KVM finds a range of length 0 at its address */
	u64 last = range->addr + max(range->len, 1) - 1;

	return range->addr <= region->geo.base + region->geo.len - 1 &&
	       region->geo.base <= last;
}

/* Append the region's ranges to @bus. */
static void add_ranges(struct kvm_io_bus *bus, struct doorbell_vm *vm)
{
	const struct doorbell_geometry *geo = &vm->region->geo;
	u64 offset;

	for (offset = 0; offset < geo->len; offset += SZ_1G)
		bus->range[bus->dev_count++] = (struct kvm_io_range) {
			.addr = geo->base + offset,
			.len = min_t(u64, geo->len - offset, SZ_1G),
			.dev = &vm->dev,
		};
}

/*
 * Put a copy of a bus into its place: with the region's ranges if @add, in the
 * order of addresses that KVM's search relies on, else without them.
 */
static int replace_bus(struct doorbell_vm *vm, enum kvm_bus idx, bool add)
{
	struct kvm_io_bus *old = kvm_get_bus(vm->kvm, idx);
	int added = add ? region_ranges(vm->region) : 0;
	struct kvm_io_bus *new;
	int i;

	new = kmalloc(struct_size(new, range, old->dev_count + added),
		      GFP_KERNEL_ACCOUNT);
	if (!new)
		return -ENOMEM;

	memcpy(new, old, sizeof(*old));
	new->dev_count = 0;
	for (i = 0; i < old->dev_count; i++) {
		if (old->range[i].dev == &vm->dev ||
		    old->range[i].dev == &inert_dev)
			continue;
		if (add && old->range[i].addr > vm->region->geo.base) {
			add_ranges(new, vm);
			add = false;
		}
		new->range[new->dev_count++] = old->range[i];
	}
	if (add)
		add_ranges(new, vm);

	rcu_assign_pointer(vm->kvm->buses[idx], new);
	synchronize_srcu_expedited(&vm->kvm->srcu);
	kfree(old);
	return 0;
}

static int bus_add(struct doorbell_vm *vm, enum kvm_bus idx)
{
	const struct doorbell_region *region = vm->region;
	struct kvm_io_bus *bus = kvm_get_bus(vm->kvm, idx);
	int devices = region_ranges(region);
	int i;

	/* KVM itself gave the bus up, for want of memory */
	if (!bus)
		return -ENOMEM;

	for (i = 0; i < bus->dev_count; i++) {
		if (bus->range[i].dev == &inert_dev)
			continue;
		if (intersects(region, &bus->range[i]))
			return -EEXIST;
		devices++;
	}
	/* ioeventfds are limited by file descriptors instead */
	if (devices - bus->ioeventfd_count > NR_IOBUS_DEVS)
		return -ENOSPC;

	return replace_bus(vm, idx, true);
}

/* Cannot fail: without memory an inert device stays in the region's place. */
static void bus_remove(struct doorbell_vm *vm, enum kvm_bus idx)
{
	struct kvm_io_bus *bus = kvm_get_bus(vm->kvm, idx);
	int i;

	if (!bus || !replace_bus(vm, idx, false))
		return;

	/* inert_dev is in this module, and nobody tells when it can go */
	__module_get(THIS_MODULE);
	pr_warn("no memory to take [%#llx, +%#llx) off its bus, module stays loaded\n",
		vm->region->geo.base, vm->region->geo.len);
	for (i = 0; i < bus->dev_count; i++) {
		if (bus->range[i].dev != &vm->dev)
			continue;
		WRITE_ONCE(bus->range[i].dev, &inert_dev);
		/* KVM's search would miss what comes to be inside of it */
		WRITE_ONCE(bus->range[i].len, 0);
	}
	synchronize_srcu_expedited(&vm->kvm->srcu);
}

static int buses_add(struct doorbell_vm *vm)
{
	enum kvm_bus bus = region_bus(vm->region);
	int ret;

	mutex_lock(&vm->kvm->slots_lock);
	ret = bus_add(vm, bus);
	if (!ret && region_on_fast_bus(vm->region)) {
		ret = bus_add(vm, KVM_FAST_MMIO_BUS);
		if (ret)
			bus_remove(vm, bus);
	}
	mutex_unlock(&vm->kvm->slots_lock);
	return ret;
}

static void buses_remove(struct doorbell_vm *vm)
{
	mutex_lock(&vm->kvm->slots_lock);
	if (region_on_fast_bus(vm->region))
		bus_remove(vm, KVM_FAST_MMIO_BUS);
	bus_remove(vm, region_bus(vm->region));
	mutex_unlock(&vm->kvm->slots_lock);
}

static void leave_vm(struct doorbell_vm *vm)
{
	buses_remove(vm);
	kvm_put_kvm(vm->kvm);
	vm->kvm = NULL;
}

static void doorbell_vm_gone_work(struct work_struct *work)
{
	leave_vm(container_of(work, struct doorbell_vm, gone_work));
}

/* The mm goes: all vCPU threads have left it, there are no more rings. */
static void doorbell_vm_gone(struct mmu_notifier *notifier,
			     struct mm_struct *mm)
{
	struct doorbell_vm *vm = container_of(notifier, struct doorbell_vm,
					      notifier);

	if (READ_ONCE(vm->detaching))
		return;
	doorbell_region_hangup(vm->region);
	schedule_work(&vm->gone_work);
}

static const struct mmu_notifier_ops doorbell_vm_notifier_ops = {
	.release = doorbell_vm_gone,
};

/*
 * The VM behind a file, or NULL. KVM's own file_is_kvm() is not there for
 * modules in every kernel; the name that KVM gives its anonymous inodes is.
 */
static struct kvm *file_kvm(const struct file *file)
{
	if (file_inode(file)->i_sb->s_magic != ANON_INODE_FS_MAGIC ||
	    strcmp(file_dentry(file)->d_name.name, "kvm-vm"))
		return NULL;
	return file->private_data;
}

/**
 * doorbell_vm_attach() - have a VM's writes into a region ring it
 * @region: the region; rung from now on, even before this returns
 * @vm_fd: file descriptor of the VM
 *
 * Context: may sleep; under the consumer's attach_lock.
 * Return: the registration, or -EBADF, -EINVAL (not a VM), -ESRCH (its process
 * is gone), -EEXIST, -ENOSPC, -ENOMEM, or -ERESTARTNOINTR for a signal.
 */
struct doorbell_vm *doorbell_vm_attach(struct doorbell_region *region,
				       int vm_fd)
{
	struct doorbell_vm *vm;
	struct mm_struct *mm;
	struct file *file;
	int ret;

	file = fget(vm_fd);
	if (!file)
		return ERR_PTR(-EBADF);

	vm = kzalloc(sizeof(*vm), GFP_KERNEL_ACCOUNT);
	if (!vm) {
		ret = -ENOMEM;
		goto err_fput;
	}
	vm->region = region;
	vm->notifier.ops = &doorbell_vm_notifier_ops;
	kvm_iodevice_init(&vm->dev, region_ops(region));
	INIT_WORK(&vm->gone_work, doorbell_vm_gone_work);

	vm->kvm = file_kvm(file);
	if (!vm->kvm) {
		ret = -EINVAL;
		goto err_free;
	}

	mm = vm->kvm->mm;
	if (!mmget_not_zero(mm)) {
		ret = -ESRCH;
		goto err_free;
	}
	kvm_get_kvm(vm->kvm);

	ret = mmu_notifier_register(&vm->notifier, mm);
	if (ret) {
		/* mm_take_all_locks() gives way to any signal */
		if (ret == -EINTR)
			ret = -ERESTARTNOINTR;
		goto err_put;
	}

	ret = buses_add(vm);
	if (ret)
		goto err_unregister;

	mmput(mm);
	fput(file);
	return vm;

err_unregister:
	WRITE_ONCE(vm->detaching, true);
	mmu_notifier_unregister(&vm->notifier, mm);
err_put:
	kvm_put_kvm(vm->kvm);
	mmput(mm);
err_free:
	kfree(vm);
err_fput:
	fput(file);
	return ERR_PTR(ret);
}

/**
 * doorbell_vm_detach() - undo doorbell_vm_attach()
 * @vm: the registration; freed
 *
 * When it returns nobody rings the region for @vm, or ever will.
 *
 * Context: may sleep; under the consumer's attach_lock, or without users.
 */
void doorbell_vm_detach(struct doorbell_vm *vm)
{
	/* pinned by the notifier until it is unregistered */
	struct mm_struct *mm = vm->notifier.mm;

	/* calls doorbell_vm_gone() itself if the process is still there */
	WRITE_ONCE(vm->detaching, true);
	mmu_notifier_unregister(&vm->notifier, mm);
	flush_work(&vm->gone_work);
	if (vm->kvm)
		leave_vm(vm);
	kfree(vm);
}
