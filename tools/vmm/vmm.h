/* SPDX-License-Identifier: GPL-2.0 */
/*
 * API of the small VMM that the demo, the selftests and the benchmark share:
 * one VM, up to eight vCPUs, one guest program (guest.c) that rings queues.
 *
 * Functions return 0 or a negative errno, and say on stderr what failed.
 * Give a vCPU a job, run it here or in a thread, read the guest's counters:
 *
 *	struct vmm *vmm = vmm_create(1);
 *
 *	vmm_op(vmm, 0, GUEST_MMIO_WRITE, 4, 0x20000000, 42);
 *	vmm_destroy(vmm);
 *
 * KVM ties a VM to the process that created it: fork first, then create. To
 * read the guest's counters in another process, create its memory beforehand
 * with vmm_mem_create(), or pass mem_fd on; vmm_mem_map() maps it.
 */
#ifndef DOORBELL_VMM_H
#define DOORBELL_VMM_H

#include <pthread.h>
#include <stdbool.h>

#include <linux/kvm.h>

#include "guest.h"

/**
 * struct vmm_exit - a guest access that reached user space
 * @is_write: the guest wrote
 * @is_pio: port I/O, not MMIO
 * @addr: guest-physical address or port
 * @len: bytes
 * @data: value written; for a read, all ones for the callback to replace
 */
struct vmm_exit {
	bool is_write;
	bool is_pio;
	__u64 addr;
	unsigned int len;
	__u64 data;
};

/**
 * typedef vmm_exit_fn - handles an exit, on the vCPU's thread
 * @ctx: exit_ctx of struct vmm
 * @vcpu: index of the vCPU
 * @exit: what it did
 *
 * Return: 0 to go on; a negative errno ends vmm_vcpu_run(), which returns it.
 */
typedef int (*vmm_exit_fn)(void *ctx, unsigned int vcpu, struct vmm_exit *exit);

/**
 * struct vmm_vcpu - private state of one vCPU
 * @fd: KVM's vCPU, -1 once closed
 * @run: its shared page
 * @tid: thread inside vmm_vcpu_run(), or 0
 * @busy: its job is not done
 * @thread: of vmm_thread_start()
 * @threaded: @thread is to be joined
 * @result: what vmm_vcpu_run() returned in @thread
 * @vmm: the VM
 * @index: this vCPU
 */
struct vmm_vcpu {
	int fd;
	struct kvm_run *run;
	int tid;
	bool busy;
	pthread_t thread;
	bool threaded;
	int result;
	struct vmm *vmm;
	unsigned int index;
};

/**
 * struct vmm - a VM
 * @kvm_fd: /dev/kvm
 * @vm_fd: the VM, -1 once closed
 * @mem_fd: memfd of the guest's memory
 * @mem: the memory, GUEST_MEM_SIZE bytes at guest-physical 0
 * @shared: the part of @mem that holds jobs, scripts and counters
 * @run_size: size of KVM's shared page
 * @nr_vcpus: how many vCPUs
 * @vcpu: the vCPUs
 * @exits: accesses that reached user space so far, read with vmm_exits()
 * @exit_cb: called for each of them, or NULL; set it before running
 * @exit_ctx: first argument of @exit_cb
 */
struct vmm {
	int kvm_fd;
	int vm_fd;
	int mem_fd;
	void *mem;
	struct guest_shared *shared;
	size_t run_size;
	unsigned int nr_vcpus;
	struct vmm_vcpu vcpu[GUEST_MAX_VCPUS];
	__u64 exits;
	vmm_exit_fn exit_cb;
	void *exit_ctx;
};

/** vmm_mem_create() - new guest memory, as a memfd or a negative errno */
int vmm_mem_create(void);

/** vmm_mem_map() - map guest memory, NULL and errno on failure */
void *vmm_mem_map(int mem_fd);

/** vmm_create() - a VM with @vcpus vCPUs; NULL and errno on failure */
struct vmm *vmm_create(unsigned int vcpus);

/** vmm_create_on() - the same on memory of vmm_mem_create(), dup()ed */
struct vmm *vmm_create_on(unsigned int vcpus, int mem_fd);

/* Steps of vmm_destroy(), for any order of teardown; each may be repeated. */
void vmm_close_vcpu(struct vmm *vmm, unsigned int vcpu);
void vmm_close_vm(struct vmm *vmm);
void vmm_close_mem(struct vmm *vmm);

/** vmm_destroy() - stop and join threads, close vCPUs, VM and memory, free */
void vmm_destroy(struct vmm *vmm);

/**
 * vmm_job() - put a job into a vCPU's mailbox, to be run next
 * @vmm: the VM
 * @vcpu: index of the vCPU
 * @job: what to do, copied
 *
 * A job that was interrupted is forgotten. -EBUSY while the vCPU is running.
 */
int vmm_job(struct vmm *vmm, unsigned int vcpu, const struct guest_job *job);

/** vmm_script() - make @n ops a vCPU's next job; results: vmm_op_done() */
int vmm_script(struct vmm *vmm, unsigned int vcpu, const struct guest_op *ops,
	       unsigned int n);

/** vmm_op() - run one access on the calling thread, @value unused for reads */
int vmm_op(struct vmm *vmm, unsigned int vcpu, enum guest_op_kind kind,
	   unsigned int width, __u64 addr, __u64 value);

/**
 * vmm_vcpu_run() - run a vCPU on the calling thread until its job is done
 * @vmm: the VM
 * @vcpu: index of the vCPU
 *
 * Return: 0; -EINTR after vmm_kick(), and running it again continues the job;
 * what exit_cb returned; -EIO if the guest crashed.
 */
int vmm_vcpu_run(struct vmm *vmm, unsigned int vcpu);

/** vmm_thread_start() - vmm_vcpu_run() in a thread of its own */
int vmm_thread_start(struct vmm *vmm, unsigned int vcpu);

/** vmm_thread_join() - wait for it, return what vmm_vcpu_run() returned */
int vmm_thread_join(struct vmm *vmm, unsigned int vcpu);

/** vmm_stop() - tell the guest to end all jobs, at an instruction boundary */
void vmm_stop(struct vmm *vmm);

/**
 * vmm_kick() - interrupt a vCPU wherever it is
 * @vmm: the VM
 * @vcpu: index of the vCPU
 *
 * Makes the present vmm_vcpu_run() return, or else the next one at once.
 * Uses the signal SIGRTMIN.
 */
void vmm_kick(struct vmm *vmm, unsigned int vcpu);

/** vmm_ioeventfd() - KVM_IOEVENTFD, @flags as in struct kvm_ioeventfd */
int vmm_ioeventfd(struct vmm *vmm, __u64 addr, __u32 len, int fd, __u32 flags);

/** vmm_mem_shared() - jobs, scripts and counters in a mapping of the memory */
static inline struct guest_shared *vmm_mem_shared(void *mem)
{
	return (struct guest_shared *)((char *)mem + GUEST_SHARED_GPA);
}

/** vmm_exits() - how many accesses have reached user space */
static inline __u64 vmm_exits(const struct vmm *vmm)
{
	return __atomic_load_n(&vmm->exits, __ATOMIC_ACQUIRE);
}

/** vmm_count() - rings of @queue by @vcpu so far, as the guest counts them */
static inline __u64 vmm_count(const struct guest_shared *s, unsigned int vcpu,
			      unsigned int queue)
{
	return __atomic_load_n(&s->counts[vcpu][queue], __ATOMIC_ACQUIRE);
}

/** vmm_rings() - rings by @vcpu that have finished in this job */
static inline __u64 vmm_rings(const struct guest_shared *s, unsigned int vcpu)
{
	return __atomic_load_n(&s->job[vcpu].rings, __ATOMIC_ACQUIRE);
}

/** vmm_ticks() - what GUEST_LOOP measured, in TSC ticks */
static inline __u64 vmm_ticks(const struct guest_shared *s, unsigned int vcpu)
{
	return __atomic_load_n(&s->job[vcpu].tsc[1], __ATOMIC_ACQUIRE) -
	       __atomic_load_n(&s->job[vcpu].tsc[0], __ATOMIC_ACQUIRE);
}

/** vmm_op_done() - how often op @i of a script has been done */
static inline __u64 vmm_op_done(const struct guest_shared *s, unsigned int vcpu,
				unsigned int i)
{
	return __atomic_load_n(&s->ops[vcpu][i].done, __ATOMIC_ACQUIRE);
}

/** vmm_op_value() - what read op @i of a script read last */
static inline __u64 vmm_op_value(const struct guest_shared *s, unsigned int vcpu,
				 unsigned int i)
{
	return __atomic_load_n(&s->ops[vcpu][i].value, __ATOMIC_ACQUIRE);
}

#endif /* DOORBELL_VMM_H */
