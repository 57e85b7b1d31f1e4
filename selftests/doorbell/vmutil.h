/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Vmutil: what the programs with guests share.
 *
 * One book holds what the consumer read, another one what reached the VMM. The
 * tests compare both with the rings that the guest counted.
 */
#ifndef _DOORBELL_SELFTEST_VMUTIL_H
#define _DOORBELL_SELFTEST_VMUTIL_H

#include <dirent.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <sys/prctl.h>

#include "util.h"
#include "vmm.h"

/* Limits what hangs, never what is slow: the machine may be emulated. */
#define TEST_SECONDS	240
/* The same for tests without a fixture */
#undef TEST_TIMEOUT_DEFAULT
#define TEST_TIMEOUT_DEFAULT	TEST_SECONDS

#define PIO		DOORBELL_ATTACH_PIO
#define MMIO_BASE	0xd0000000ULL
#define PIO_BASE	0x1000ULL

/* The region of most tests: see attach_region(). */
#define REGION_STRIDE	8
#define REGION_QUEUES	32
#define REGION_LEN	(REGION_QUEUES * REGION_STRIDE)

#define BOOK_QUEUES	128

/* Other processes */

/* Wait for a process: its exit status, 0x100 plus its signal, or -1 */
static inline int ended(pid_t pid)
{
	int status;

	if (!eventually(waitpid(pid, &status, WNOHANG) == pid))
		return -1;
	return WIFEXITED(status) ? WEXITSTATUS(status) :
				   0x100 + WTERMSIG(status);
}

/* Let a system call of this process fail with EPERM from now on. */
static inline int deny_call(long nr)
{
	struct sock_filter f[] = {
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
			 offsetof(struct seccomp_data, nr)),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (__u32)nr, 0, 1),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
	};
	struct sock_fprog prog = { .len = ARRAY_SIZE(f), .filter = f };

	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		return -errno;
	return db_result(prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog));
}

static inline int killed(pid_t pid)
{
	kill(pid, SIGKILL);
	return ended(pid);
}

/* Consumers */

/* All ones if the call fails */
static inline struct doorbell_info info_of(int fd)
{
	struct doorbell_info info;

	if (db_info(fd, &info))
		memset(&info, 0xff, sizeof(info));
	return info;
}

static inline int poll_now(int fd)
{
	return db_poll(fd, POLLIN | POLLOUT, 0);
}

static inline int poll_for(int fd, short events)
{
	return db_poll(fd, events, DB_PATIENCE_MS);
}

/* Read what is pending without waiting. Return the number of events. */
static inline int read_now(int fd, struct doorbell_event *events, size_t max)
{
	if (!(db_poll(fd, POLLIN, 0) & POLLIN))
		return 0;
	return db_read(fd, events, max);
}

/* Expect exactly one event: one ring of @queue. */
static inline void check_event(struct __test_metadata *_metadata, int fd,
			       unsigned int queue, __u64 value)
{
	struct doorbell_event events[2];

	ASSERT_EQ(1, read_now(fd, events, 2));
	ASSERT_TRUE(db_event_is(&events[0], queue, 1, value)) {
		TH_LOG("queue %u count %u value %#llx", events[0].queue,
		       events[0].count, events[0].value);
	}
}

/* Guests */

/* For the setup of tests whose guest rings ports */
#define SKIP_WITHOUT_PORTS(flags)					\
	do {								\
		if ((flags) & PIO && !vmm_has_ports)			\
			SKIP(return, "guests have no ports");		\
	} while (0)

/* For tests that use both buses, if guests can */
static inline __u32 pio_or_0(void)
{
	return vmm_has_ports ? PIO : 0;
}

static inline __u64 base_of(__u32 flags)
{
	return flags & PIO ? PIO_BASE : MMIO_BASE;
}

static inline enum guest_op_kind write_op(__u32 flags)
{
	return flags & PIO ? GUEST_PIO_OUT : GUEST_MMIO_WRITE;
}

static inline int attach_region(int fd, int vm_fd, __u32 flags)
{
	return db_attach_as(fd, vm_fd, base_of(flags), REGION_LEN,
			    REGION_STRIDE, flags);
}

/* One write by vCPU 0 */
static inline int guest_write(struct vmm *vmm, __u32 flags, unsigned int width,
			      __u64 addr, __u64 value)
{
	return vmm_op(vmm, 0, write_op(flags), width, addr, value);
}

/* Make all vCPUs ring all queues of the region until stop_ringing(). */
static inline int start_ringing(struct vmm *vmm, __u32 flags)
{
	struct guest_job job = {
		.kind = GUEST_STORM, .width = 4, .pio = !!(flags & PIO),
		.base = base_of(flags), .stride = REGION_STRIDE,
		.range = { { .first = 0, .nr = REGION_QUEUES } },
	};
	unsigned int v;
	int ret = 0;

	for (v = 0; !ret && v < vmm->nr_vcpus; v++) {
		ret = vmm_job(vmm, v, &job);
		if (!ret)
			ret = vmm_thread_start(vmm, v);
	}
	return ret;
}

static inline int stop_ringing(struct vmm *vmm)
{
	unsigned int v;
	int ret = 0;

	vmm_stop(vmm);
	for (v = 0; v < vmm->nr_vcpus; v++)
		ret = vmm_thread_join(vmm, v) ?: ret;
	return ret;
}

/* VMs of a process that KVM has not freed yet, or -ENOENT without debugfs */
static inline int vms_alive(pid_t pid)
{
	DIR *dir = opendir("/sys/kernel/debug/kvm");
	struct dirent *e;
	int n = 0;

	if (!dir)
		return -errno;
	while ((e = readdir(dir)))
		n += atoi(e->d_name) == pid && strchr(e->d_name, '-');
	closedir(dir);
	return n;
}

/* What the guest counted */

/* Rings of one queue by all vCPUs */
static inline __u64 guest_count(const struct guest_shared *s,
				unsigned int queue)
{
	__u64 count = 0;
	unsigned int v;

	for (v = 0; v < GUEST_MAX_VCPUS; v++)
		count += vmm_count(s, v, queue);
	return count;
}

static inline __u64 guest_total(const struct guest_shared *s)
{
	__u64 total = 0;
	unsigned int q;

	for (q = 0; q < BOOK_QUEUES; q++)
		total += guest_count(s, q);
	return total;
}

/* Rings whose instruction has finished */
static inline __u64 guest_finished(const struct guest_shared *s)
{
	__u64 total = 0;
	unsigned int v;

	for (v = 0; v < GUEST_MAX_VCPUS; v++)
		total += vmm_rings(s, v);
	return total;
}

/* What the consumer read */

/**
 * struct book - what a consumer read
 * @count: rings of each queue
 * @last: last value of each queue
 * @bad: rings of bad addresses
 * @events: all events
 * @wrong: events that no consumer should see
 */
struct book {
	__u64 count[BOOK_QUEUES];
	__u64 last[BOOK_QUEUES];
	__u64 bad;
	__u64 events;
	__u64 wrong;
};

static inline void book_events(struct book *book,
			       const struct doorbell_event *events, int n)
{
	for (; n > 0; n--, events++) {
		__atomic_fetch_add(&book->events, 1, __ATOMIC_RELEASE);
		if (!events->count) {
			book->wrong++;
		} else if (events->type == DOORBELL_EVENT_BAD_ADDRESS) {
			if (events->queue != DOORBELL_QUEUE_NONE)
				book->wrong++;
			book->bad += events->count;
		} else if (events->type != DOORBELL_EVENT_QUEUE ||
			   events->queue >= BOOK_QUEUES) {
			book->wrong++;
		} else {
			book->count[events->queue] += events->count;
			book->last[events->queue] = events->value;
		}
	}
}

/* Read until nothing is pending. */
static inline int book_drain(struct book *book, int fd)
{
	struct doorbell_event events[64];
	int n;

	while ((n = read_now(fd, events, 64)) > 0)
		book_events(book, events, n);
	return n;
}

static inline __u64 book_total(const struct book *book)
{
	__u64 total = 0;
	int q;

	for (q = 0; q < BOOK_QUEUES; q++)
		total += __atomic_load_n(&book->count[q], __ATOMIC_RELAXED);
	return total;
}

/* What reached the VMM */

/**
 * struct exits - accesses that reached the VMM
 * @base: address of queue 0
 * @stride: bytes per queue
 * @count: writes to each queue
 * @vcpu: accesses by each vCPU
 * @other: accesses that are no write to a queue
 */
struct exits {
	__u64 base;
	__u64 stride;
	__u64 count[BOOK_QUEUES];
	__u64 vcpu[GUEST_MAX_VCPUS];
	__u64 other;
};

static inline int exits_cb(void *ctx, unsigned int vcpu, struct vmm_exit *exit)
{
	struct exits *exits = ctx;
	__u64 q = (exit->addr - exits->base) / exits->stride;
	bool ours = exit->is_write && q < BOOK_QUEUES;

	__atomic_fetch_add(ours ? &exits->count[q] : &exits->other, 1,
			   __ATOMIC_ACQ_REL);
	__atomic_fetch_add(&exits->vcpu[vcpu], 1, __ATOMIC_ACQ_REL);
	return 0;
}

/* Make the VMM count the accesses to the region that reach it. */
static inline void count_exits(struct vmm *vmm, struct exits *exits,
			       __u32 flags)
{
	exits->base = base_of(flags);
	exits->stride = REGION_STRIDE;
	vmm->exit_cb = exits_cb;
	vmm->exit_ctx = exits;
}

/* Every vCPU has had an access that reached the VMM. */
static inline bool all_exit(struct exits *exits, unsigned int vcpus)
{
	while (vcpus--)
		if (!__atomic_load_n(&exits->vcpu[vcpus], __ATOMIC_ACQUIRE))
			return false;
	return true;
}

/* Every ring the guest counted is an event or an exit, and only one of both. */
static inline void check_books(struct __test_metadata *_metadata,
			       const struct guest_shared *shared,
			       const struct book *book,
			       const struct exits *exits)
{
	unsigned int q;

	for (q = 0; q < BOOK_QUEUES; q++) {
		ASSERT_EQ(guest_count(shared, q),
			  book->count[q] + exits->count[q]) {
			TH_LOG("queue %u: %llu events, %llu exits", q,
			       book->count[q], exits->count[q]);
		}
	}
	ASSERT_EQ(0, book->wrong);
	ASSERT_EQ(0, book->bad);
	ASSERT_EQ(0, exits->other);
}

#endif /* _DOORBELL_SELFTEST_VMUTIL_H */
