/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the tests with real guests share: the harness, calls that return errno,
 * and books of what the consumer read and of what reached the VMM, to be
 * compared with what the guest says it rang.
 */
#ifndef _DOORBELL_SELFTEST_VMUTIL_H
#define _DOORBELL_SELFTEST_VMUTIL_H

#include <dirent.h>
#include <poll.h>
#include <sys/mman.h>

/* The harness compares whatever it is given, forks, and has unused parameters. */
#pragma GCC diagnostic ignored "-Wsign-compare"
#pragma GCC diagnostic ignored "-Wclobbered"
#pragma GCC diagnostic ignored "-Wunused-parameter"
#include "kselftest_harness.h"

#include "util.h"
#include "vmm.h"

/* Bounds of a failure, never a measure of speed: machines may be emulated. */
#define TEST_SECONDS	240

#define BOOK_QUEUES	128

/* Is @cond true, now or soon? */
#define eventually(cond) __extension__ ({				\
	__u64 _end = db_now_ms() + DB_PATIENCE_MS;			\
	bool _ok;							\
									\
	while (!(_ok = (cond)) && db_now_ms() < _end)			\
		usleep(200);						\
	_ok;								\
})

/* 0 or a negative errno */
static inline int attach(int fd, int vm_fd, __u64 base, __u64 len, __u32 stride,
			 __u32 flags)
{
	return db_attach_full(fd, vm_fd, base, len, stride, flags) ? -errno : 0;
}

/* All ones if the call fails. */
static inline struct doorbell_info info_of(int fd)
{
	struct doorbell_info info;

	if (db_info(fd, &info))
		memset(&info, 0xff, sizeof(info));
	return info;
}

/* What poll() reports of all bits there are: at once, or within reason */
static inline int poll_now(int fd)
{
	return db_poll(fd, POLLIN | POLLOUT, 0);
}

static inline int poll_for(int fd, short events)
{
	return db_poll(fd, events, DB_PATIENCE_MS);
}

/* What is pending, without waiting: number of events, or a negative errno */
static inline int read_now(int fd, struct doorbell_event *events, size_t max)
{
	int n;

	if (!(db_poll(fd, POLLIN, 0) & POLLIN))
		return 0;
	n = db_read(fd, events, max);
	return n < 0 ? -errno : n;
}

/* The kernel's own view of it */

/* Who has the module in use, or -1 if it is not a module. */
static inline int module_refs(void)
{
	char text[16] = {};
	int fd = open("/sys/module/doorbell/refcnt", O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		return -1;
	n = read(fd, text, sizeof(text) - 1);
	close(fd);
	return n > 0 ? atoi(text) : -1;
}

/* VMs of a process that KVM has not freed yet, or -1 if there is no debugfs. */
static inline int vms_alive(pid_t pid)
{
	DIR *dir = opendir("/sys/kernel/debug/kvm");
	struct dirent *e;
	int n = 0;

	if (!dir)
		return -1;
	while ((e = readdir(dir)))
		n += atoi(e->d_name) == pid && strchr(e->d_name, '-');
	closedir(dir);
	return n;
}

/**
 * struct book - rings of each queue, as one side saw them
 * @count: how many
 * @last: value of the last one
 * @bad: rings of no queue
 * @bad_last: address of the last one
 * @events: how many events these were
 * @wrong: events that no consumer should see
 */
struct book {
	__u64 count[BOOK_QUEUES];
	__u64 last[BOOK_QUEUES];
	__u64 bad;
	__u64 bad_last;
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
			book->bad_last = events->value;
		} else if (events->type != DOORBELL_EVENT_QUEUE ||
			   events->queue >= BOOK_QUEUES) {
			book->wrong++;
		} else {
			book->count[events->queue] += events->count;
			book->last[events->queue] = events->value;
		}
	}
}

/* Read until nothing is pending; the last result of read(), 0 or negative. */
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

/**
 * struct exits - writes that reached the VMM, from any number of vCPUs
 * @base: address of queue 0
 * @stride: bytes per queue
 * @count: of each queue
 * @vcpu: of each vCPU
 * @other: whatever is not a write to one of the queues
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

static inline __u64 exits_of(struct exits *exits, unsigned int vcpu)
{
	return __atomic_load_n(&exits->vcpu[vcpu], __ATOMIC_ACQUIRE);
}

/* What the guest says it rang: one queue, all vCPUs; and how much is finished. */
static inline __u64 guest_count(const struct guest_shared *s, unsigned int queue)
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

static inline __u64 guest_finished(const struct guest_shared *s)
{
	__u64 total = 0;
	unsigned int v;

	for (v = 0; v < GUEST_MAX_VCPUS; v++)
		total += vmm_rings(s, v);
	return total;
}

#endif /* _DOORBELL_SELFTEST_VMUTIL_H */
