// SPDX-License-Identifier: GPL-2.0
/* The small VMM on x86-64: page tables, registers, what KVM needs. */
#include <stdio.h>
#include <stdlib.h>
#include <sys/ioctl.h>

#include "arch.h"

#define MAX_CPUID	256

#define PTE_PRESENT	0x1UL
#define PTE_WRITE	0x2UL
#define PTE_LARGE	0x80UL

#define CR0_PE		0x1UL
#define CR0_ET		0x10UL
#define CR0_NE		0x20UL
#define CR0_PG		0x80000000UL
#define CR4_PAE		0x20UL
#define EFER_LME	0x100UL
#define EFER_LMA	0x400UL

/* Three pages for KVM on Intel, just below the BIOS, as in QEMU. */
#define TSS_GPA		0xfffbd000UL

const bool vmm_has_ports = true;
const enum guest_op_kind vmm_last_op = GUEST_PIO_IN;
const bool vmm_splits_pages = true;

/* Map the low 4 GiB 1:1 with 2 MiB pages. */
void vmm_arch_fill_memory(char *mem)
{
	__u64 *pml4 = (__u64 *)(mem + GUEST_TABLES_GPA);
	__u64 *pdpt = pml4 + 512, *pd = pdpt + 512, i;
	__u64 flags = PTE_PRESENT | PTE_WRITE;

	pml4[0] = (GUEST_TABLES_GPA + 0x1000) | flags;
	for (i = 0; i < 4; i++)
		pdpt[i] = (GUEST_TABLES_GPA + 0x2000 + i * 0x1000) | flags;
	for (i = 0; i < 4 * 512; i++)
		pd[i] = i << 21 | flags | PTE_LARGE;
}

int vmm_arch_init_vm(struct vmm *vmm)
{
	if (ioctl(vmm->vm_fd, KVM_SET_TSS_ADDR, TSS_GPA))
		return vmm_fail("KVM_SET_TSS_ADDR");
	return 0;
}

int vmm_arch_init_vcpu(struct vmm *vmm, int fd)
{
	struct kvm_cpuid2 *cpuid;
	int ret = 0;

	cpuid = calloc(1, sizeof(*cpuid) +
			  MAX_CPUID * sizeof(cpuid->entries[0]));
	if (!cpuid)
		return vmm_fail("calloc");
	cpuid->nent = MAX_CPUID;
	if (ioctl(vmm->kvm_fd, KVM_GET_SUPPORTED_CPUID, cpuid))
		ret = vmm_fail("KVM_GET_SUPPORTED_CPUID");
	else if (ioctl(fd, KVM_SET_CPUID2, cpuid))
		ret = vmm_fail("KVM_SET_CPUID2");
	free(cpuid);
	return ret;
}

/* 64-bit mode */
int vmm_arch_set_regs(int fd, unsigned int index)
{
	struct kvm_segment code = {
		.limit = 0xffffffff, .selector = 8, .type = 11, .present = 1,
		.s = 1, .l = 1, .g = 1,
	};
	struct kvm_segment data = {
		.limit = 0xffffffff, .selector = 16, .type = 3, .present = 1,
		.s = 1, .db = 1, .g = 1,
	};
	struct kvm_regs regs = {
		.rip = GUEST_CODE_GPA, .rdi = index, .rflags = 2,
		.rsp = GUEST_STACK_GPA + (index + 1) * GUEST_STACK_SIZE - 8,
	};
	struct kvm_sregs sregs;

	if (ioctl(fd, KVM_GET_SREGS, &sregs))
		return vmm_fail("KVM_GET_SREGS");
	sregs.cs = code;
	sregs.ds = data;
	sregs.es = data;
	sregs.fs = data;
	sregs.gs = data;
	sregs.ss = data;
	sregs.cr0 = CR0_PE | CR0_ET | CR0_NE | CR0_PG;
	sregs.cr3 = GUEST_TABLES_GPA;
	sregs.cr4 = CR4_PAE;
	sregs.efer = EFER_LME | EFER_LMA;
	if (ioctl(fd, KVM_SET_SREGS, &sregs))
		return vmm_fail("KVM_SET_SREGS");
	if (ioctl(fd, KVM_SET_REGS, &regs))
		return vmm_fail("KVM_SET_REGS");
	return 0;
}

bool vmm_arch_halted(const struct kvm_run *run)
{
	return run->exit_reason == KVM_EXIT_HLT;
}

/* After a triple fault, AMD's registers are those of a reset. */
void vmm_arch_show_regs(int fd)
{
	struct kvm_sregs s = {};
	struct kvm_regs r = {};

	ioctl(fd, KVM_GET_REGS, &r);
	ioctl(fd, KVM_GET_SREGS, &s);
	fprintf(stderr, "vmm: rip %llx rsp %llx rflags %llx cr2 %llx\n",
		r.rip, r.rsp, r.rflags, s.cr2);
	fprintf(stderr, "vmm: rax %llx rbx %llx rcx %llx\n",
		r.rax, r.rbx, r.rcx);
	fprintf(stderr, "vmm: rdx %llx rsi %llx rdi %llx\n",
		r.rdx, r.rsi, r.rdi);
}
