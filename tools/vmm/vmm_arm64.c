// SPDX-License-Identifier: GPL-2.0
/* The small VMM on arm64: page tables, exception vectors, registers. */
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>

#include "arch.h"

#define VECTORS_GPA	(GUEST_TABLES_GPA + 0x1000)

/* A block of 1 GiB: normal memory, inner shareable, accessed */
#define BLOCK		0x701UL
#define BLOCK_SHIFT	30
#define BLOCKS		512

/* Attributes 0: write-back */
#define MAIR_VALUE	0xffUL
/* TTBR0 only, 39 bits, 4 KiB, cached, inner shareable; 40 bits physical */
#define TCR_VALUE	(25UL | 1 << 8 | 1 << 10 | 3 << 12 | 1 << 23 | \
			 2UL << 32)
/* What must be 1; MMU and caches on, and no alignment checks */
#define SCTLR_VALUE	(0x30d00800UL | 1 << 0 | 1 << 2 | 1 << 12)
/* Allow vector registers. */
#define CPACR_VALUE	(3UL << 20)
/* EL1 with its own stack pointer, all exceptions masked */
#define PSTATE_VALUE	0x3c5UL

#define CORE(reg)	(KVM_REG_ARM64 | KVM_REG_SIZE_U64 | KVM_REG_ARM_CORE | \
			 KVM_REG_ARM_CORE_REG(reg))
#define MAIR_EL1	ARM64_SYS_REG(3, 0, 10, 2, 0)
#define TCR_EL1		ARM64_SYS_REG(3, 0, 2, 0, 2)
#define TTBR0_EL1	ARM64_SYS_REG(3, 0, 2, 0, 0)
#define SCTLR_EL1	ARM64_SYS_REG(3, 0, 1, 0, 0)
#define CPACR_EL1	ARM64_SYS_REG(3, 0, 1, 0, 2)
#define VBAR_EL1	ARM64_SYS_REG(3, 0, 12, 0, 0)
#define ESR_EL1		ARM64_SYS_REG(3, 0, 5, 2, 0)
#define FAR_EL1		ARM64_SYS_REG(3, 0, 6, 0, 0)

/* Any exception ends in SYSTEM_OFF of PSCI, which exits to the VMM. */
asm(".pushsection .rodata\n"
	"vmm_vectors:\n"
	".rept 16\n"
	".balign 128\n"
	"movz x0, #0x8400, lsl #16\n"
	"movk x0, #0x0008\n"
	"hvc #0\n"
	"b .\n"
	".endr\n"
	"vmm_vectors_end:\n"
	".popsection\n");
extern const char vmm_vectors[], vmm_vectors_end[];

const bool vmm_has_ports;		/* false */
const enum guest_op_kind vmm_last_op = GUEST_STORE_RELEASE;
const bool vmm_splits_pages;		/* false */

/*
 * Map the low 512 GiB 1:1, all of it as normal memory: in device memory the
 * guest could not do unaligned accesses.
 */
void vmm_arch_fill_memory(char *mem)
{
	__u64 *table = (__u64 *)(mem + GUEST_TABLES_GPA), i;

	for (i = 0; i < BLOCKS; i++)
		table[i] = i << BLOCK_SHIFT | BLOCK;
	memcpy(mem + VECTORS_GPA, vmm_vectors, vmm_vectors_end - vmm_vectors);
}

int vmm_arch_init_vm(struct vmm *vmm)
{
	(void)vmm;
	return 0;
}

int vmm_arch_init_vcpu(struct vmm *vmm, int fd)
{
	struct kvm_vcpu_init init;

	if (ioctl(vmm->vm_fd, KVM_ARM_PREFERRED_TARGET, &init))
		return vmm_fail("KVM_ARM_PREFERRED_TARGET");
	init.features[0] |= 1 << KVM_ARM_VCPU_PSCI_0_2;
	if (ioctl(fd, KVM_ARM_VCPU_INIT, &init))
		return vmm_fail("KVM_ARM_VCPU_INIT");
	return 0;
}

int vmm_arch_set_regs(int fd, unsigned int index)
{
	const struct {
		__u64 id;
		__u64 value;
	} regs[] = {
		{ MAIR_EL1, MAIR_VALUE },
		{ TCR_EL1, TCR_VALUE },
		{ TTBR0_EL1, GUEST_TABLES_GPA },
		{ SCTLR_EL1, SCTLR_VALUE },
		{ CPACR_EL1, CPACR_VALUE },
		{ VBAR_EL1, VECTORS_GPA },
		{ CORE(regs.pstate), PSTATE_VALUE },
		{ CORE(sp_el1),
		  GUEST_STACK_GPA + (index + 1) * GUEST_STACK_SIZE },
		{ CORE(regs.regs[0]), index },
		{ CORE(regs.pc), GUEST_CODE_GPA },
	};
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(regs); i++) {
		struct kvm_one_reg reg = {
			.id = regs[i].id,
			.addr = (unsigned long)&regs[i].value,
		};

		if (ioctl(fd, KVM_SET_ONE_REG, &reg))
			return vmm_fail("KVM_SET_ONE_REG");
	}
	return 0;
}

bool vmm_arch_halted(const struct kvm_run *run)
{
	return run->exit_reason == KVM_EXIT_MMIO &&
	       run->mmio.phys_addr == GUEST_HALT_GPA;
}

void vmm_arch_show_regs(int fd)
{
	static const struct {
		const char *name;
		__u64 id;
	} regs[] = {
		{ "pc", CORE(regs.pc) }, { "sp", CORE(sp_el1) },
		{ "lr", CORE(regs.regs[30]) }, { "elr", CORE(elr_el1) },
		{ "esr", ESR_EL1 }, { "far", FAR_EL1 },
	};
	unsigned int i;

	fprintf(stderr, "vmm:");
	for (i = 0; i < ARRAY_SIZE(regs); i++) {
		__u64 value = 0;
		struct kvm_one_reg reg = {
			.id = regs[i].id, .addr = (unsigned long)&value,
		};

		ioctl(fd, KVM_GET_ONE_REG, &reg);
		fprintf(stderr, " %s %llx", regs[i].name, value);
	}
	fputc('\n', stderr);
}
