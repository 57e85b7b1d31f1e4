// SPDX-License-Identifier: GPL-2.0
/*
 * The small VMM: the KVM calls that all architectures have. It knows nothing of
 * doorbell; its callers attach a region to vm_fd. vmm.h describes the API.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "arch.h"

#define VMM_SIGKICK	SIGRTMIN

asm(".section .rodata\n\t"
	".globl vmm_guest_image, vmm_guest_image_end\n\t"
	"vmm_guest_image: .incbin \"vmm-guest.bin\"\n\t"
	"vmm_guest_image_end:\n\t"
	".previous\n");
extern const char vmm_guest_image[], vmm_guest_image_end[];

int vmm_fail(const char *what)
{
	int err = errno;

	fprintf(stderr, "vmm: %s: %s\n", what, strerror(err));
	errno = err;
	return -err;
}

int vmm_mem_create(void)
{
	int fd = memfd_create("vmm-guest", MFD_CLOEXEC);

	if (fd < 0)
		return vmm_fail("memfd_create");
	if (ftruncate(fd, GUEST_MEM_SIZE)) {
		int err = vmm_fail("ftruncate");

		close(fd);
		return err;
	}
	return fd;
}

void *vmm_mem_map(int mem_fd)
{
	void *mem = mmap(NULL, GUEST_MEM_SIZE, PROT_READ | PROT_WRITE,
			 MAP_SHARED, mem_fd, 0);

	if (mem == MAP_FAILED) {
		vmm_fail("mmap guest memory");
		return NULL;
	}
	return mem;
}

static int create_vcpu(struct vmm *vmm, unsigned int index)
{
	struct vmm_vcpu *v = &vmm->vcpu[index];
	void *run;
	int ret;

	v->vmm = vmm;
	v->index = index;
	v->fd = ioctl(vmm->vm_fd, KVM_CREATE_VCPU, index);
	if (v->fd < 0)
		return vmm_fail("KVM_CREATE_VCPU");
	run = mmap(NULL, vmm->run_size, PROT_READ | PROT_WRITE, MAP_SHARED,
		   v->fd, 0);
	if (run == MAP_FAILED)
		return vmm_fail("mmap kvm_run");
	v->run = run;
	ret = vmm_arch_init_vcpu(vmm, v->fd);
	return ret ? ret : vmm_arch_set_regs(v->fd, index);
}

static int create_vm(struct vmm *vmm, int mem_fd)
{
	struct kvm_userspace_memory_region slot = {
		.memory_size = GUEST_MEM_SIZE,
	};
	int size;

	vmm->mem_fd = mem_fd < 0 ? vmm_mem_create() :
				   fcntl(mem_fd, F_DUPFD_CLOEXEC, 0);
	if (vmm->mem_fd < 0)
		return mem_fd < 0 ? vmm->mem_fd : vmm_fail("dup memory");
	vmm->mem = vmm_mem_map(vmm->mem_fd);
	if (!vmm->mem)
		return -errno;
	vmm->shared = vmm_mem_shared(vmm->mem);
	vmm_arch_fill_memory(vmm->mem);
	memcpy((char *)vmm->mem + GUEST_CODE_GPA, vmm_guest_image,
	       vmm_guest_image_end - vmm_guest_image);

	vmm->kvm_fd = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	if (vmm->kvm_fd < 0)
		return vmm_fail("/dev/kvm");
	size = ioctl(vmm->kvm_fd, KVM_GET_VCPU_MMAP_SIZE, 0);
	if (size < 0)
		return vmm_fail("KVM_GET_VCPU_MMAP_SIZE");
	vmm->run_size = size;
	vmm->vm_fd = ioctl(vmm->kvm_fd, KVM_CREATE_VM, 0);
	if (vmm->vm_fd < 0)
		return vmm_fail("KVM_CREATE_VM");
	slot.userspace_addr = (unsigned long)vmm->mem;
	if (ioctl(vmm->vm_fd, KVM_SET_USER_MEMORY_REGION, &slot))
		return vmm_fail("KVM_SET_USER_MEMORY_REGION");
	return vmm_arch_init_vm(vmm);
}

/* The signal only interrupts KVM_RUN. */
static void on_kick(int sig)
{
	(void)sig;
}

struct vmm *vmm_create_on(unsigned int vcpus, int mem_fd)
{
	struct sigaction sa = { .sa_handler = on_kick, .sa_flags = SA_RESTART };
	struct vmm *vmm;
	unsigned int i;
	int ret;

	if (!vcpus || vcpus > GUEST_MAX_VCPUS) {
		errno = EINVAL;
		vmm_fail("number of vCPUs");
		return NULL;
	}
	vmm = calloc(1, sizeof(*vmm));
	if (!vmm) {
		vmm_fail("calloc");
		return NULL;
	}
	vmm->kvm_fd = -1;
	vmm->vm_fd = -1;
	vmm->mem_fd = -1;
	vmm->nr_vcpus = vcpus;
	for (i = 0; i < vcpus; i++)
		vmm->vcpu[i].fd = -1;

	sigaction(VMM_SIGKICK, &sa, NULL);
	ret = create_vm(vmm, mem_fd);
	for (i = 0; !ret && i < vcpus; i++)
		ret = create_vcpu(vmm, i);
	if (ret) {
		vmm_destroy(vmm);
		errno = -ret;
		return NULL;
	}
	return vmm;
}

struct vmm *vmm_create(unsigned int vcpus)
{
	return vmm_create_on(vcpus, -1);
}

void vmm_close_vcpu(struct vmm *vmm, unsigned int vcpu)
{
	struct vmm_vcpu *v = &vmm->vcpu[vcpu];

	/* The mapping alone keeps the vCPU, and thus the VM, alive. */
	if (v->run)
		munmap(v->run, vmm->run_size);
	if (v->fd >= 0)
		close(v->fd);
	v->run = NULL;
	v->fd = -1;
}

void vmm_close_vm(struct vmm *vmm)
{
	if (vmm->vm_fd >= 0)
		close(vmm->vm_fd);
	vmm->vm_fd = -1;
}

void vmm_close_mem(struct vmm *vmm)
{
	if (vmm->mem)
		munmap(vmm->mem, GUEST_MEM_SIZE);
	if (vmm->mem_fd >= 0)
		close(vmm->mem_fd);
	vmm->mem = NULL;
	vmm->shared = NULL;
	vmm->mem_fd = -1;
}

void vmm_destroy(struct vmm *vmm)
{
	unsigned int i;

	if (!vmm)
		return;
	vmm_stop(vmm);
	for (i = 0; i < vmm->nr_vcpus; i++) {
		if (vmm->vcpu[i].threaded) {
			vmm_kick(vmm, i);
			vmm_thread_join(vmm, i);
		}
		vmm_close_vcpu(vmm, i);
	}
	vmm_close_vm(vmm);
	if (vmm->kvm_fd >= 0)
		close(vmm->kvm_fd);
	vmm_close_mem(vmm);
	free(vmm);
}

/* Let KVM finish an interrupted access, then reset the vCPU. */
static int restart(struct vmm_vcpu *v)
{
	v->run->immediate_exit = 1;
	while (!ioctl(v->fd, KVM_RUN, 0))
		;
	v->run->immediate_exit = 0;
	if (errno != EINTR)
		return vmm_fail("KVM_RUN");
	v->busy = false;
	return vmm_arch_set_regs(v->fd, v->index);
}

static bool valid_width(unsigned int width, bool pio)
{
	if (pio && !vmm_has_ports)
		return false;
	return width == 1 || width == 2 || width == 4 || (width == 8 && !pio);
}

/* The guest checks nothing, so check that the queues have counters. */
static bool valid_job(const struct guest_job *job)
{
	bool counts = job->kind != GUEST_LOOP;
	const struct guest_range *r = job->range;
	int i;

	if (job->kind == GUEST_IDLE || job->kind == GUEST_SCRIPT)
		return job->nr_ops <= GUEST_MAX_OPS;
	for (i = 0; counts && i < 2; i++)
		if ((__u64)r[i].first + r[i].nr > GUEST_MAX_QUEUES)
			return false;
	return job->kind <= GUEST_LOOP && valid_width(job->width, job->pio) &&
	       r[0].nr && (r[1].nr || !job->weight);
}

int vmm_job(struct vmm *vmm, unsigned int vcpu, const struct guest_job *job)
{
	struct vmm_vcpu *v = &vmm->vcpu[vcpu];
	int ret = 0;

	errno = EINVAL;
	if (vcpu >= vmm->nr_vcpus || v->fd < 0 || !vmm->shared ||
	    !valid_job(job))
		return vmm_fail("job");
	errno = EBUSY;
	if (__atomic_load_n(&v->tid, __ATOMIC_SEQ_CST))
		return vmm_fail("job");
	if (v->busy)
		ret = restart(v);
	if (!ret)
		vmm->shared->job[vcpu] = *job;
	return ret;
}

int vmm_script(struct vmm *vmm, unsigned int vcpu, const struct guest_op *ops,
	       unsigned int n)
{
	struct guest_job job = { .kind = GUEST_SCRIPT, .nr_ops = n };
	unsigned int i;
	int ret;

	errno = EINVAL;
	for (i = 0; i < n; i++)
		if (ops[i].kind > vmm_last_op ||
		    !valid_width(ops[i].width, ops[i].kind == GUEST_PIO_OUT ||
				 ops[i].kind == GUEST_PIO_IN))
			return vmm_fail("op of a script");
	ret = vmm_job(vmm, vcpu, &job);
	if (!ret)
		memcpy(vmm->shared->ops[vcpu], ops, n * sizeof(*ops));
	return ret;
}

int vmm_op(struct vmm *vmm, unsigned int vcpu, enum guest_op_kind kind,
	   unsigned int width, __u64 addr, __u64 value)
{
	struct guest_op op = {
		.kind = kind, .width = width, .addr = addr, .value = value,
	};
	int ret = vmm_script(vmm, vcpu, &op, 1);

	return ret ? ret : vmm_vcpu_run(vmm, vcpu);
}

static int handle_access(struct vmm *vmm, unsigned int vcpu, bool is_write,
			 bool is_pio, __u64 addr, unsigned int len, void *data)
{
	struct vmm_exit e = {
		.is_write = is_write, .is_pio = is_pio, .addr = addr,
		.len = len, .data = is_write ? 0 : ~0ULL,
	};
	int ret = 0;

	if (is_write)
		memcpy(&e.data, data, len);
	__atomic_fetch_add(&vmm->exits, 1, __ATOMIC_ACQ_REL);
	if (vmm->exit_cb)
		ret = vmm->exit_cb(vmm->exit_ctx, vcpu, &e);
	if (!is_write)
		memcpy(data, &e.data, len);
	return ret;
}

static int crashed(struct vmm_vcpu *v)
{
	struct kvm_run *run = v->run;
	unsigned int i;

	fprintf(stderr, "vmm: vCPU %u: exit reason %u\n", v->index,
		run->exit_reason);
	vmm_arch_show_regs(v->fd);
	if (v->vmm->shared)
		fprintf(stderr, "vmm: in job kind %u after %llu rings\n",
			v->vmm->shared->job[v->index].kind,
			vmm_rings(v->vmm->shared, v->index));
	if (run->exit_reason == KVM_EXIT_INTERNAL_ERROR) {
		fprintf(stderr, "vmm: internal error %u:",
			run->internal.suberror);
		for (i = 0; i < run->internal.ndata && i < 16; i++)
			fprintf(stderr, " %llx", run->internal.data[i]);
		fputc('\n', stderr);
	} else if (run->exit_reason == KVM_EXIT_FAIL_ENTRY) {
		fprintf(stderr, "vmm: hardware entry failure %llx\n",
			run->fail_entry.hardware_entry_failure_reason);
	}
	return -EIO;
}

static int handle_exit(struct vmm_vcpu *v)
{
	struct kvm_run *run = v->run;
	bool is_write;
	char *data;
	__u32 i;
	int ret = 0;

	switch (run->exit_reason) {
	case KVM_EXIT_MMIO:
		is_write = run->mmio.is_write;
		return handle_access(v->vmm, v->index, is_write, false,
				     run->mmio.phys_addr, run->mmio.len,
				     run->mmio.data);
	case KVM_EXIT_IO:
		is_write = run->io.direction == KVM_EXIT_IO_OUT;
		data = (char *)run + run->io.data_offset;
		for (i = 0; !ret && i < run->io.count; i++)
			ret = handle_access(v->vmm, v->index, is_write, true,
					    run->io.port, run->io.size,
					    data + i * run->io.size);
		return ret;
	case KVM_EXIT_INTR:
		return 0;
	default:
		return crashed(v);
	}
}

int vmm_vcpu_run(struct vmm *vmm, unsigned int vcpu)
{
	struct vmm_vcpu *v = &vmm->vcpu[vcpu];
	int ret;

	if (vcpu >= vmm->nr_vcpus || v->fd < 0) {
		errno = EBADF;
		return vmm_fail("KVM_RUN");
	}
	v->busy = true;
	__atomic_store_n(&v->tid, (int)syscall(SYS_gettid), __ATOMIC_SEQ_CST);
	do {
		ret = 0;
		if (!ioctl(v->fd, KVM_RUN, 0)) {
			if (vmm_arch_halted(v->run)) {
				v->busy = false;
				break;
			}
			ret = handle_exit(v);
		} else if (errno != EINTR) {
			ret = vmm_fail("KVM_RUN");
		} else if (__atomic_load_n(&v->run->immediate_exit,
					   __ATOMIC_SEQ_CST)) {
			ret = -EINTR;
		}
	} while (!ret);
	__atomic_store_n(&v->run->immediate_exit, 0, __ATOMIC_SEQ_CST);
	__atomic_store_n(&v->tid, 0, __ATOMIC_SEQ_CST);
	return ret;
}

void vmm_kick(struct vmm *vmm, unsigned int vcpu)
{
	struct vmm_vcpu *v = &vmm->vcpu[vcpu];
	int tid;

	if (!v->run)
		return;
	__atomic_store_n(&v->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
	tid = __atomic_load_n(&v->tid, __ATOMIC_SEQ_CST);
	if (tid)
		syscall(SYS_tgkill, getpid(), tid, VMM_SIGKICK);
}

static void *thread_main(void *arg)
{
	struct vmm_vcpu *v = arg;

	v->result = vmm_vcpu_run(v->vmm, v->index);
	return NULL;
}

int vmm_thread_start(struct vmm *vmm, unsigned int vcpu)
{
	struct vmm_vcpu *v = &vmm->vcpu[vcpu];

	errno = pthread_create(&v->thread, NULL, thread_main, v);
	if (errno)
		return vmm_fail("pthread_create");
	v->threaded = true;
	return 0;
}

int vmm_thread_join(struct vmm *vmm, unsigned int vcpu)
{
	struct vmm_vcpu *v = &vmm->vcpu[vcpu];

	if (!v->threaded)
		return -ESRCH;
	pthread_join(v->thread, NULL);
	v->threaded = false;
	return v->result;
}

void vmm_stop(struct vmm *vmm)
{
	unsigned int i;

	for (i = 0; vmm->shared && i < vmm->nr_vcpus; i++)
		__atomic_store_n(&vmm->shared->job[i].stop, 1,
				 __ATOMIC_SEQ_CST);
}

int vmm_ioeventfd(struct vmm *vmm, __u64 addr, __u32 len, int fd, __u32 flags)
{
	struct kvm_ioeventfd e = {
		.addr = addr, .len = len, .fd = fd, .flags = flags,
	};

	if (ioctl(vmm->vm_fd, KVM_IOEVENTFD, &e))
		return vmm_fail("KVM_IOEVENTFD");
	return 0;
}
