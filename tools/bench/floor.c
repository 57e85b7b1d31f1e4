// SPDX-License-Identifier: GPL-2.0
/*
 * floor.ko: a device on a VM's MMIO bus that does nothing. A write to it costs
 * what each write to an in-kernel device costs. The code of doorbell puts it on
 * the bus, but no code of doorbell runs in a write.
 */
#include "../../drivers/virt/doorbell/kvm.c"
#include "../../drivers/virt/doorbell/region.c"
#include "../../drivers/virt/doorbell/buffer.c"
#include "../../drivers/virt/doorbell/geometry.c"
#include "../../drivers/virt/doorbell/trace.c"

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
	.destructor = placement_destructor,
};

static int floor_open(struct inode *inode, struct file *file)
{
	file->private_data = NULL;
	return 0;
}

static int floor_release(struct inode *inode, struct file *file)
{
	struct doorbell_placement *p = file->private_data;

	if (!p)
		return 0;
	doorbell_placement_remove(p);
	doorbell_placement_put(p);
	return 0;
}

static struct doorbell_placement *floor_attach(const struct floor_attach *floor)
{
	/* a region needs queues, although nothing rings them */
	struct doorbell_attach arg = {
		.base = floor->base, .len = floor->len, .queues = 1,
		.flags = DOORBELL_ATTACH_BY_VALUE,
	};
	struct doorbell_waiters *waiters = doorbell_waiters_create();
	struct doorbell_placement *p;
	struct doorbell_region *region;

	if (!waiters)
		return ERR_PTR(-ENOMEM);
	region = doorbell_region_create(&arg, waiters);
	doorbell_waiters_put(waiters);
	if (IS_ERR(region))
		return ERR_CAST(region);
	p = doorbell_placement_create(region, floor->vm_fd, floor->base);
	doorbell_region_put(region);
	return p;
}

/* Only one thread may call this, once per file. */
static long floor_ioctl(struct file *file, unsigned int cmd, unsigned long uarg)
{
	struct doorbell_placement *p;
	struct floor_attach arg;

	if (cmd != FLOOR_ATTACH)
		return -ENOTTY;
	if (copy_from_user(&arg, (void __user *)uarg, sizeof(arg)))
		return -EFAULT;
	if (file->private_data)
		return -EBUSY;

	p = floor_attach(&arg);
	if (IS_ERR(p))
		return PTR_ERR(p);
	p->dev.ops = &floor_ops;
	file->private_data = p;
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

static int __init floor_init(void)
{
	int ret = doorbell_region_init();

	if (ret)
		return ret;
	ret = doorbell_kvm_init();
	if (ret)
		goto err_region;
	ret = misc_register(&floor_misc);
	if (ret)
		goto err_kvm;
	return 0;

err_kvm:
	doorbell_kvm_exit();
err_region:
	doorbell_region_exit();
	return ret;
}
module_init(floor_init);

static void __exit floor_exit(void)
{
	misc_deregister(&floor_misc);
	doorbell_kvm_exit();
	doorbell_region_exit();
	synchronize_rcu_tasks();
}
module_exit(floor_exit);

MODULE_DESCRIPTION("An MMIO device in KVM that does nothing");
MODULE_LICENSE("GPL");
