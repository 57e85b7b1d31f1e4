/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Compat: what differs between the kernels that the module builds for, from 6.1
 * on. Not needed within a kernel tree.
 */
#ifndef _DOORBELL_COMPAT_H
#define _DOORBELL_COMPAT_H

#include <linux/eventfd.h>
#include <linux/mm.h>
#include <linux/version.h>

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 3, 0)
static inline void vm_flags_mod(struct vm_area_struct *vma, unsigned long set,
				unsigned long clear)
{
	vma->vm_flags = (vma->vm_flags | set) & ~clear;
}
#endif

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 8, 0)
static inline void doorbell_eventfd_signal(struct eventfd_ctx *ctx)
{
	eventfd_signal(ctx, 1);
}
#else
#define doorbell_eventfd_signal	eventfd_signal
#endif

#endif /* _DOORBELL_COMPAT_H */
