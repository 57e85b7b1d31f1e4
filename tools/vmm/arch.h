/* SPDX-License-Identifier: GPL-2.0 */
/* What vmm.c needs of an architecture, and what it gives to it. */
#ifndef DOORBELL_VMM_ARCH_H
#define DOORBELL_VMM_ARCH_H

#include "vmm.h"

#define ARRAY_SIZE(a)	(sizeof(a) / sizeof((a)[0]))

/** vmm_fail() - print what failed, and errno; return and keep errno */
int vmm_fail(const char *what);

/** vmm_arch_fill_memory() - put page tables, say, into guest memory */
void vmm_arch_fill_memory(char *mem);

/** vmm_arch_init_vm() - finish a new VM, which has its memory */
int vmm_arch_init_vm(struct vmm *vmm);

/** vmm_arch_init_vcpu() - finish the new vCPU @fd, but for its registers */
int vmm_arch_init_vcpu(struct vmm *vmm, int fd);

/** vmm_arch_set_regs() - let the vCPU @fd call guest_main(@index) */
int vmm_arch_set_regs(int fd, unsigned int index);

/** vmm_arch_halted() - is this exit that of the guest's halt()? */
bool vmm_arch_halted(const struct kvm_run *run);

/** vmm_arch_show_regs() - print registers of a vCPU that crashed */
void vmm_arch_show_regs(int fd);

#endif /* DOORBELL_VMM_ARCH_H */
