/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Compat: what differs between the kernels that the module builds for.
 * compat.mk includes it first in each file, and defines DOORBELL_HAS_...: what
 * it finds in the kernel's headers, as vendors backport changes. Not needed
 * within a kernel tree.
 */
#ifndef _DOORBELL_COMPAT_H
#define _DOORBELL_COMPAT_H

#include <linux/version.h>

#if LINUX_VERSION_CODE < KERNEL_VERSION(6, 1, 0)
#error "doorbell needs Linux 6.1 or newer"
#endif
#if !IS_ENABLED(CONFIG_KVM)
#error "doorbell needs a kernel with KVM (CONFIG_KVM)"
#endif

#ifndef DOORBELL_HAS_VM_FLAGS_MOD
#define vm_flags_mod(vma, set, clear) do {				\
	vm_flags_t *_flags = &(vma)->vm_flags;				\
									\
	*_flags = (*_flags | (set)) & ~(clear);				\
} while (0)
#endif

#ifdef DOORBELL_HAS_EVENTFD_COUNT
#define doorbell_eventfd_signal(ctx)	eventfd_signal(ctx, 1)
#else
#define doorbell_eventfd_signal(ctx)	eventfd_signal(ctx)
#endif

#endif /* _DOORBELL_COMPAT_H */
