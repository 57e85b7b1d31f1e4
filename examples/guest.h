/* SPDX-License-Identifier: LGPL-2.1 OR MIT */
/*
 * The smallest VM that can ring, for the examples. It has one vCPU, in 32-bit
 * mode without paging, and one page of memory with the program
 *
 *	mov %eax, (%ebx)
 *	hlt
 *
 * Each guest_write() runs the program once. x86 only. The functions end the
 * example if KVM fails.
 */
#ifndef DOORBELL_EXAMPLES_GUEST_H
#define DOORBELL_EXAMPLES_GUEST_H

#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <linux/kvm.h>

#define GUEST_MEMORY	4096

/**
 * struct guest - a VM
 * @vm_fd: its descriptor, from KVM_CREATE_VM
 * @vcpu_fd: that of its vCPU
 * @run: what KVM and this process share of the vCPU
 * @run_size: bytes there
 * @memory: the guest's memory
 * @exit: called for a write that reaches the VMM, before the vCPU goes on; may
 *	be NULL
 * @ctx: first argument of @exit
 */
struct guest {
	int vm_fd;
	int vcpu_fd;
	struct kvm_run *run;
	size_t run_size;
	void *memory;
	void (*exit)(void *ctx, uint64_t addr, uint32_t value);
	void *ctx;
};

static inline int guest_ioctl(int fd, unsigned long cmd, void *arg,
			      const char *what)
{
	int ret = ioctl(fd, cmd, arg);

	if (ret < 0)
		err(1, "%s", what);
	return ret;
}

static inline void *guest_map(size_t size, int flags, int fd)
{
	void *p = mmap(NULL, size, PROT_READ | PROT_WRITE, flags, fd, 0);

	if (p == MAP_FAILED)
		err(1, "mmap");
	return p;
}

/* Create the VM and its vCPU, which does not run yet. */
static inline void guest_create(struct guest *guest)
{
	static const uint8_t program[] = { 0x89, 0x03, 0xf4 };
	struct kvm_userspace_memory_region region = {
		.memory_size = GUEST_MEMORY,
	};
	struct kvm_segment flat = {
		.limit = 0xffffffff, .selector = 8, .type = 3, .present = 1,
		.db = 1, .s = 1, .g = 1,
	};
	struct kvm_sregs sregs;
	int kvm;

	memset(guest, 0, sizeof(*guest));
	kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (kvm < 0)
		err(1, "/dev/kvm");
	guest->vm_fd = guest_ioctl(kvm, KVM_CREATE_VM, NULL, "KVM_CREATE_VM");
	guest->run_size = guest_ioctl(kvm, KVM_GET_VCPU_MMAP_SIZE, NULL,
				      "KVM_GET_VCPU_MMAP_SIZE");
	close(kvm);

	guest->memory = guest_map(GUEST_MEMORY, MAP_SHARED | MAP_ANONYMOUS, -1);
	memcpy(guest->memory, program, sizeof(program));
	region.userspace_addr = (uintptr_t)guest->memory;
	guest_ioctl(guest->vm_fd, KVM_SET_USER_MEMORY_REGION, &region,
		    "KVM_SET_USER_MEMORY_REGION");

	guest->vcpu_fd = guest_ioctl(guest->vm_fd, KVM_CREATE_VCPU, NULL,
				     "KVM_CREATE_VCPU");
	guest->run = guest_map(guest->run_size, MAP_SHARED, guest->vcpu_fd);
	guest_ioctl(guest->vcpu_fd, KVM_GET_SREGS, &sregs, "KVM_GET_SREGS");
	sregs.ds = flat;
	sregs.es = flat;
	sregs.ss = flat;
	flat.type = 11;		/* code */
	sregs.cs = flat;
	sregs.cr0 |= 1;		/* protected mode */
	guest_ioctl(guest->vcpu_fd, KVM_SET_SREGS, &sregs, "KVM_SET_SREGS");
}

/*
 * Let the guest write 32 bits. False if KVM handled the write without an exit,
 * as it does for a ring; true if the write reached the VMM.
 */
static inline bool guest_write(struct guest *guest, uint32_t addr,
			       uint32_t value)
{
	struct kvm_regs regs = { .rax = value, .rbx = addr, .rflags = 2 };
	bool exited = false;

	guest_ioctl(guest->vcpu_fd, KVM_SET_REGS, &regs, "KVM_SET_REGS");
	for (;;) {
		if (ioctl(guest->vcpu_fd, KVM_RUN, 0)) {
			if (errno == EINTR)
				continue;
			err(1, "KVM_RUN");
		}
		if (guest->run->exit_reason == KVM_EXIT_HLT)
			return exited;
		if (guest->run->exit_reason != KVM_EXIT_MMIO)
			errx(1, "exit reason %u", guest->run->exit_reason);
		exited = true;
		if (guest->exit) {
			memcpy(&value, guest->run->mmio.data, sizeof(value));
			guest->exit(guest->ctx, guest->run->mmio.phys_addr,
				    value);
		}
	}
}

/* The VM ends, and its consumers get the hang-up. */
static inline void guest_destroy(struct guest *guest)
{
	munmap(guest->run, guest->run_size);
	close(guest->vcpu_fd);
	close(guest->vm_fd);
	munmap(guest->memory, GUEST_MEMORY);
}

#endif /* DOORBELL_EXAMPLES_GUEST_H */
