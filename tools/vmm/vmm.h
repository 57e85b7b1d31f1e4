/* SPDX-License-Identifier: GPL-2.0 */
/*
 * API of the small VMM that the demo, the selftests and the benchmark share:
 * one VM, up to eight vCPUs, one guest program (guest.c) that rings queues.
 *
 * Functions return 0 or a negative errno, and print what failed on stderr.
 * Give a job to a vCPU, run it here or in a thread, read the guest's counters:
 *
 *	struct vmm *vmm = vmm_create(1);
 *
 *	vmm_op(vmm, 0, GUEST_MMIO_WRITE, 4, 0x20000000, 42);
 *	vmm_destroy(vmm);
 *
 * KVM ties a VM to the process that created it: fork first, then create. To
 * read the guest's counters in another process, create the memory first, with
 * vmm_mem_create(), or send mem_fd to it. vmm_mem_map() maps the memory.
 */
#ifndef DOORBELL_VMM_H
#define DOORBELL_VMM_H

#include <pthread.h>
#include <stdbool.h>

#include <linux/kvm.h>

#include "guest.h"

/** vmm_has_ports - guests can read and write I/O ports */
extern const bool vmm_has_ports;

/** vmm_last_op - the last kind of operation that guests have */
extern const enum guest_op_kind vmm_last_op;

/** vmm_splits_pages - KVM makes two of an access to two pages */
extern const bool vmm_splits_pages;

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
 * @exit: the access
 *
 * Return: 0 to continue; a negative errno, which vmm_vcpu_run() returns.
 */
typedef int (*vmm_exit_fn)(void *ctx, unsigned int vcpu, struct vmm_exit *exit);

/**
 * struct vmm_vcpu - private state of one vCPU
 * @fd: KVM's vCPU, -1 once closed
 * @run: its page shared with KVM
 * @tid: thread in vmm_vcpu_run(), or 0
 * @busy: its job is not done
 * @thread: thread of vmm_thread_start()
 * @threaded: @thread exists and must be joined
 * @result: result of vmm_vcpu_run() in @thread
 * @vmm: the VM
 * @index: index of this vCPU
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
 * @run_size: size of @run of a vCPU
 * @nr_vcpus: number of vCPUs
 * @vcpu: the vCPUs
 * @exits: number of accesses that reached user space; see vmm_exits()
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

/** vmm_mem_create() - create guest memory: a memfd, or a negative errno */
int vmm_mem_create(void);

/** vmm_mem_map() - map guest memory, NULL and errno on failure */
void *vmm_mem_map(int mem_fd);

/** vmm_create() - create a VM with @vcpus vCPUs, NULL and errno on failure */
struct vmm *vmm_create(unsigned int vcpus);

/** vmm_create_on() - the same with @mem_fd as memory, which it dup()s */
struct vmm *vmm_create_on(unsigned int vcpus, int mem_fd);

/* Steps of vmm_destroy(), for any order of teardown; each may be repeated. */
void vmm_close_vcpu(struct vmm *vmm, unsigned int vcpu);
void vmm_close_vm(struct vmm *vmm);
void vmm_close_mem(struct vmm *vmm);

/** vmm_destroy() - stop and join threads, close vCPUs, VM and memory, free */
void vmm_destroy(struct vmm *vmm);

/**
 * vmm_job() - put a job into a vCPU's mailbox; vmm_vcpu_run() runs it
 * @vmm: the VM
 * @vcpu: index of the vCPU
 * @job: the job, copied
 *
 * Replaces a job that was interrupted. -EBUSY while the vCPU runs.
 */
int vmm_job(struct vmm *vmm, unsigned int vcpu, const struct guest_job *job);

/** vmm_script() - make @n ops a vCPU's next job; results: vmm_op_value() */
int vmm_script(struct vmm *vmm, unsigned int vcpu, const struct guest_op *ops,
	       unsigned int n);

/** vmm_op() - run one access on the calling thread; reads ignore @value */
int vmm_op(struct vmm *vmm, unsigned int vcpu, enum guest_op_kind kind,
	   unsigned int width, __u64 addr, __u64 value);

/**
 * vmm_vcpu_run() - run a vCPU on the calling thread until its job is done
 * @vmm: the VM
 * @vcpu: index of the vCPU
 *
 * Return: 0; -EINTR after vmm_kick(), and the next call continues the job; the
 * error of exit_cb; -EIO if the guest crashed.
 */
int vmm_vcpu_run(struct vmm *vmm, unsigned int vcpu);

/** vmm_thread_start() - vmm_vcpu_run() in a thread of its own */
int vmm_thread_start(struct vmm *vmm, unsigned int vcpu);

/** vmm_thread_join() - wait for the thread; return its vmm_vcpu_run() result */
int vmm_thread_join(struct vmm *vmm, unsigned int vcpu);

/** vmm_stop() - ask the guest to end all jobs, at an instruction boundary */
void vmm_stop(struct vmm *vmm);

/**
 * vmm_kick() - interrupt a vCPU
 * @vmm: the VM
 * @vcpu: index of the vCPU
 *
 * The present call of vmm_vcpu_run() returns. If there is none, the next call
 * returns at once. Uses the signal SIGRTMIN.
 */
void vmm_kick(struct vmm *vmm, unsigned int vcpu);

/** vmm_ioeventfd() - KVM_IOEVENTFD, @flags as in struct kvm_ioeventfd */
int vmm_ioeventfd(struct vmm *vmm, __u64 addr, __u32 len, int fd, __u32 flags);

/** vmm_mem_shared() - jobs, scripts and counters in mapped guest memory */
static inline struct guest_shared *vmm_mem_shared(void *mem)
{
	return (struct guest_shared *)((char *)mem + GUEST_SHARED_GPA);
}

/** vmm_exits() - number of accesses that have reached user space */
static inline __u64 vmm_exits(const struct vmm *vmm)
{
	return __atomic_load_n(&vmm->exits, __ATOMIC_ACQUIRE);
}

/** vmm_count() - rings of @queue by @vcpu so far, counted by the guest */
static inline __u64 vmm_count(const struct guest_shared *s, unsigned int vcpu,
			      unsigned int queue)
{
	return __atomic_load_n(&s->counts[vcpu][queue], __ATOMIC_ACQUIRE);
}

/** vmm_rings() - finished rings by @vcpu in this job */
static inline __u64 vmm_rings(const struct guest_shared *s, unsigned int vcpu)
{
	return __atomic_load_n(&s->job[vcpu].rings, __ATOMIC_ACQUIRE);
}

/** vmm_op_value() - last value that read op @i of a script has read */
static inline __u64 vmm_op_value(const struct guest_shared *s,
				 unsigned int vcpu, unsigned int i)
{
	return __atomic_load_n(&s->ops[vcpu][i].value, __ATOMIC_ACQUIRE);
}

#endif /* DOORBELL_VMM_H */
