// SPDX-License-Identifier: GPL-2.0
/*
 * floor.ko: a device on a VM's MMIO bus that does nothing. A write to it costs
 * what each write to an in-kernel device costs. The code of doorbell puts it on
 * the bus, but no code of doorbell runs in a write.
 */
#include "../../drivers/virt/doorbell/kvm.c"

#include <linux/miscdevice.h>
#include <linux/uaccess.h>

#include "floor.h"

static int floor_write(struct kvm_vcpu *vcpu, struct kvm_io_device *dev,
		       gpa_t addr, int len, const void *val)
{
	return 0;
}

static const struct kvm_io_device_ops floor_ops = {
	.write = floor_write,
};

/* kvm.c calls these until floor_ops are set. */
bool doorbell_region_ring(struct doorbell_region *region, u64 addr, u64 value,
			  u8 width)
{
	return true;
}

void doorbell_region_wake(struct doorbell_region *region)
{
}

void doorbell_region_hangup(struct doorbell_region *region)
{
}

static int floor_open(struct inode *inode, struct file *file)
{
	struct doorbell_region *region = kzalloc(sizeof(*region),
						 GFP_KERNEL_ACCOUNT);

	file->private_data = region;
	return region ? 0 : -ENOMEM;
}

static int floor_release(struct inode *inode, struct file *file)
{
	struct doorbell_region *region = file->private_data;

	if (region->vm)
		doorbell_vm_detach(region->vm);
	kfree(region);
	return 0;
}

/* Only one thread may call this, once per file. */
static long floor_ioctl(struct file *file, unsigned int cmd, unsigned long uarg)
{
	struct doorbell_region *region = file->private_data;
	struct doorbell_vm *vm;
	struct floor_attach arg;

	if (cmd != FLOOR_ATTACH)
		return -ENOTTY;
	if (copy_from_user(&arg, (void __user *)uarg, sizeof(arg)))
		return -EFAULT;
	if (region->vm)
		return -EBUSY;
	if (!arg.len || arg.len > SZ_1G)
		return -EINVAL;

	region->geo.base = arg.base;
	region->geo.len = arg.len;
	/* the region has no queues: avoid the handlers that ring in kvm.c */
	region->flags = DOORBELL_ATTACH_BY_VALUE;
	vm = doorbell_vm_attach(region, arg.vm_fd);
	if (IS_ERR(vm))
		return PTR_ERR(vm);
	vm->dev.ops = &floor_ops;
	region->vm = vm;
	return 0;
}

static const struct file_operations floor_fops = {
	.owner = THIS_MODULE,
	.open = floor_open,
	.release = floor_release,
	.unlocked_ioctl = floor_ioctl,
};

static struct miscdevice floor_misc = {
	.minor = MISC_DYNAMIC_MINOR,
	.name = "floor",
	.fops = &floor_fops,
	.mode = 0600,
};

module_misc_device(floor_misc);

MODULE_DESCRIPTION("An MMIO device in KVM that does nothing");
MODULE_LICENSE("GPL");
