// SPDX-License-Identifier: GPL-2.0
/*
 * The paths. Each is what a careful user of the interface would write. epoll is
 * edge-triggered, so that it polls a source once per wake-up, not twice.
 *
 * Three paths are variants for comparison. ioeventfd_edge does not read() its
 * eventfds. doorbell_block sleeps in read(), and doorbell_uring, like
 * ioeventfd_uring, in io_uring_enter() instead of epoll.
 *
 * Two paths end at an eventfd that has no waiter: ioeventfd_kick is KVM's way
 * there, doorbell_bound that of DOORBELL_BIND.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "bench.h"
#include "floor.h"

/* More than a batch: a call that fills less has found all events. */
#define EVENTS	(4 * BENCH_BATCH)

/*
 * Call the kernel directly, as liburing does: in a program with threads, each
 * system call of libc is a cancellation point. Return: 0 or more, or a negative
 * errno.
 */
static long bench_syscall(long nr, long a, const void *b, long c, long d)
{
	register long r10 asm("r10") = d;
	long ret;

	asm volatile("syscall"
		     : "=a"(ret)
		     : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10)
		     : "rcx", "r11", "memory");
	return ret;
}

/* Return: number of events, at least 1 if @wait. */
static int sleep_in_epoll(struct bench *b, struct epoll_event *events, int max,
			  bool wait)
{
	long n = bench_syscall(SYS_epoll_wait, b->epfd, events, max,
			       wait ? -1 : 0);

	if (n < 0) {
		errno = -n;
		die("epoll_wait");
	}
	return n;
}

/* Return: bytes read, 0 if there is nothing. */
static size_t read_some(int fd, void *to, size_t size)
{
	long ret = bench_syscall(SYS_read, fd, to, size, 0);

	if (ret == -EAGAIN)
		return 0;
	if (ret < 0) {
		errno = -ret;
		die("read");
	}
	return ret;
}

static void add_to_epoll(struct bench *b, int fd, __u64 data)
{
	struct epoll_event event = {
		.events = EPOLLIN | EPOLLET,
		.data.u64 = data,
	};

	if (b->epfd < 0)
		b->epfd = epoll_create1(EPOLL_CLOEXEC);
	if (b->epfd < 0)
		die("epoll_create1");
	if (epoll_ctl(b->epfd, EPOLL_CTL_ADD, fd, &event))
		die("EPOLL_CTL_ADD");
}

static void close_epoll(struct bench *b)
{
	close(b->epfd);
	b->epfd = -1;
}

/* The floor: a device that does nothing, and no consumer */

static void floor_attach(struct bench *b)
{
	struct floor_attach arg = {
		.base = BENCH_BASE,
		.len = (__u64)b->queues * BENCH_STRIDE,
		.vm_fd = b->vmm->vm_fd,
	};
	int fd = open("/dev/floor", O_RDWR | O_CLOEXEC);

	if (fd < 0 || ioctl(fd, FLOOR_ATTACH, &arg))
		die("/dev/floor");
}

/* One eventfd per queue */

static void make_eventfds(struct bench *b)
{
	unsigned int q;

	b->eventfds = calloc(b->queues, sizeof(*b->eventfds));
	if (!b->eventfds)
		die("calloc");
	for (q = 0; q < b->queues; q++) {
		b->eventfds[q] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
		if (b->eventfds[q] < 0)
			die("eventfd");
	}
}

static void ioeventfd_assign(struct bench *b)
{
	unsigned int q;

	for (q = 0; q < b->queues; q++) {
		if (vmm_ioeventfd(b->vmm, bench_addr(q), BENCH_STRIDE,
				  b->eventfds[q], 0))
			die("KVM_IOEVENTFD");
	}
}

static void ioeventfd_attach(struct bench *b)
{
	make_eventfds(b);
	ioeventfd_assign(b);
}

static void epoll_listen(struct bench *b)
{
	unsigned int q;

	for (q = 0; q < b->queues; q++)
		add_to_epoll(b, b->eventfds[q], q);
}

static void epoll_consume(struct bench *b, bool wait)
{
	struct epoll_event events[EVENTS];
	unsigned int q;
	__u64 count;
	int i, n;

	n = sleep_in_epoll(b, events, EVENTS, wait);
	for (i = 0; i < n; i++) {
		q = events[i].data.u64;
		if (read_some(b->eventfds[q], &count, sizeof(count)))
			hear(b, q, count);
	}
}

/* An edge-triggered eventfd needs no read() if the count does not matter. */
static void edge_consume(struct bench *b, bool wait)
{
	struct epoll_event events[EVENTS];
	int i, n;

	n = sleep_in_epoll(b, events, EVENTS, wait);
	for (i = 0; i < n; i++)
		hear(b, events[i].data.u64, 1);
}

/* Reset the eventfds for the next path. */
static void edge_unlisten(struct bench *b)
{
	unsigned int q;
	__u64 count;

	close_epoll(b);
	for (q = 0; q < b->queues; q++)
		read_some(b->eventfds[q], &count, sizeof(count));
}

/*
 * Multishot poll: the consumer submits it once, gets one completion per ring,
 * and never reads the eventfd. io_uring makes the completions in the call that
 * the consumer sleeps in.
 */
static void uring_start(struct bench *b)
{
	struct io_uring_params params = {
		.flags = IORING_SETUP_SINGLE_ISSUER |
			 IORING_SETUP_DEFER_TASKRUN,
	};

	errno = -io_uring_queue_init_params(EVENTS, &b->uring, &params);
	if (errno)
		die("io_uring_queue_init");
	if (io_uring_register_ring_fd(&b->uring) != 1)
		die("io_uring_register_ring_fd");
}

static void uring_submit(struct bench *b)
{
	if (io_uring_submit(&b->uring) < 0)
		die("io_uring_submit");
}

static void uring_poll(struct bench *b, int fd, __u64 data)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(&b->uring);

	if (!sqe) {
		uring_submit(b);
		sqe = io_uring_get_sqe(&b->uring);
	}
	io_uring_prep_poll_multishot(sqe, fd, POLLIN);
	io_uring_sqe_set_data64(sqe, data);
}

static void uring_listen(struct bench *b)
{
	unsigned int q;

	uring_start(b);
	for (q = 0; q < b->queues; q++)
		uring_poll(b, b->eventfds[q], q);
	uring_submit(b);
}

static void uring_unlisten(struct bench *b)
{
	io_uring_queue_exit(&b->uring);
}

static void sleep_in_uring(struct bench *b, bool wait)
{
	int ret = wait ? io_uring_submit_and_wait(&b->uring, 1) :
			 io_uring_get_events(&b->uring);

	errno = -ret;
	if (ret < 0)
		die("io_uring_enter");
}

static bool uring_goes_on(const struct io_uring_cqe *cqe)
{
	return cqe->res >= 0 && cqe->flags & IORING_CQE_F_MORE;
}

static void uring_consume(struct bench *b, bool wait)
{
	struct io_uring_cqe *cqe;
	unsigned int head, n = 0;

	sleep_in_uring(b, wait);
	io_uring_for_each_cqe(&b->uring, head, cqe) {
		if (!uring_goes_on(cqe))
			die("poll ended");
		hear(b, cqe->user_data, 1);
		n++;
	}
	io_uring_cq_advance(&b->uring, n);
}

/* Exits to the VMM, which hands the queue to the consumer's thread, if any */

static void handed_listen(struct bench *b)
{
	b->handed_fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	if (b->handed_fd < 0)
		die("eventfd");
	add_to_epoll(b, b->handed_fd, 0);
}

static void handed_unlisten(struct bench *b)
{
	close_epoll(b);
	close(b->handed_fd);
}

static void hand_over(struct bench *b, __u64 addr)
{
	unsigned int queue = (addr - BENCH_BASE) / BENCH_STRIDE;
	__u32 tail = b->handed_tail;

	if (!b->threaded) {
		hear(b, queue, 1);
		return;
	}
	b->handed[tail % EVENTS] = queue;
	__atomic_store_n(&b->handed_tail, tail + 1, __ATOMIC_RELEASE);
}

static void wake_handed(struct bench *b)
{
	if (b->threaded && eventfd_write(b->handed_fd, 1))
		die("eventfd_write");
}

static void handed_consume(struct bench *b, bool wait)
{
	struct epoll_event event;

	sleep_in_epoll(b, &event, 1, wait);
	while (b->handed_head !=
	       __atomic_load_n(&b->handed_tail, __ATOMIC_ACQUIRE))
		hear(b, b->handed[b->handed_head++ % EVENTS], 1);
}

static void exit_attach(struct bench *b)
{
	(void)b;
}

static void exit_exited(struct bench *b, struct kvm_run *run)
{
	if (run->exit_reason != KVM_EXIT_MMIO)
		return;
	hand_over(b, run->mmio.phys_addr);
	wake_handed(b);
}

static void coalesced_attach(struct bench *b)
{
	struct kvm_coalesced_mmio_zone zone = {
		.addr = BENCH_BASE,
		.size = b->queues * BENCH_STRIDE,
	};
	long page = sysconf(_SC_PAGESIZE);
	int at = ioctl(b->vmm->vm_fd, KVM_CHECK_EXTENSION,
		       KVM_CAP_COALESCED_MMIO);

	if (at <= 0 || ioctl(b->vmm->vm_fd, KVM_REGISTER_COALESCED_MMIO, &zone))
		die("KVM_REGISTER_COALESCED_MMIO");
	b->coalesced = (void *)((char *)b->vmm->vcpu[0].run + at * page);
	b->coalesced_max = (page - sizeof(*b->coalesced)) /
			   sizeof(b->coalesced->coalesced_mmio[0]);
}

/* If the ring is full, KVM exits with the write that has no room. */
static void coalesced_exited(struct bench *b, struct kvm_run *run)
{
	struct kvm_coalesced_mmio_ring *ring = b->coalesced;
	__u32 last = __atomic_load_n(&ring->last, __ATOMIC_ACQUIRE);
	__u32 first = ring->first;
	bool some = first != last || run->exit_reason == KVM_EXIT_MMIO;

	while (first != last) {
		hand_over(b, ring->coalesced_mmio[first].phys_addr);
		first = first + 1 == b->coalesced_max ? 0 : first + 1;
	}
	__atomic_store_n(&ring->first, first, __ATOMIC_RELEASE);
	if (run->exit_reason == KVM_EXIT_MMIO)
		hand_over(b, run->mmio.phys_addr);
	if (some)
		wake_handed(b);
}

/* doorbell */

static void doorbell_region(struct bench *b, unsigned int open_flags,
			    unsigned int flags, unsigned int depth)
{
	struct doorbell_attach arg = {
		.vm_fd = b->vmm->vm_fd,
		.base = BENCH_BASE,
		.len = (__u64)b->queues * BENCH_STRIDE,
		.stride = BENCH_STRIDE,
		.flags = flags,
		.depth = depth,
	};

	b->db = doorbell_open(open_flags);
	if (!b->db)
		die("/dev/doorbell");
	errno = -doorbell_attach_region(b->db, &arg);
	if (errno)
		die("DOORBELL_ATTACH");
}

static void read_attach(struct bench *b)
{
	doorbell_region(b, DOORBELL_OPEN_READ, 0, 0);
	if (fcntl(doorbell_fd(b->db), F_SETFL, O_RDWR | O_NONBLOCK))
		die("O_NONBLOCK");
}

static void mmap_attach(struct bench *b)
{
	doorbell_region(b, 0, 0, 0);
}

static void ordered_attach(struct bench *b)
{
	doorbell_region(b, 0, DOORBELL_ATTACH_ORDERED, 4096);
}

static void doorbell_listen(struct bench *b)
{
	add_to_epoll(b, doorbell_fd(b->db), 0);
}

/* A read() that does not fill the buffer has armed the next wake-up. */
static void read_consume(struct bench *b, bool wait)
{
	struct doorbell_event events[EVENTS];
	int fd = doorbell_fd(b->db);
	struct epoll_event event;
	unsigned int i;
	size_t size;

	if (wait)
		sleep_in_epoll(b, &event, 1, true);
	do {
		size = read_some(fd, events, sizeof(events));
		for (i = 0; i < size / sizeof(*events); i++)
			hear(b, events[i].queue, events[i].count);
	} while (size == sizeof(events));
}

/* A consumer that waits for nothing else can sleep in read(). */
static void block_attach(struct bench *b)
{
	doorbell_region(b, DOORBELL_OPEN_READ, 0, 0);
}

static void block_listen(struct bench *b)
{
	(void)b;
}

static void block_consume(struct bench *b, bool wait)
{
	struct doorbell_event events[EVENTS];
	unsigned int i;
	size_t size;

	/* without @wait there always is an event */
	(void)wait;
	size = read_some(doorbell_fd(b->db), events, sizeof(events));
	for (i = 0; i < size / sizeof(*events); i++)
		hear(b, events[i].queue, events[i].count);
}

/* Take all events. epoll arms by itself, so the consumer can sleep again. */
static void mapped_take(struct bench *b)
{
	struct doorbell_event events[EVENTS];
	int i, n;

	do {
		n = doorbell_take(b->db, events, EVENTS);
		if (n < 0)
			die("doorbell_take");
		for (i = 0; i < n; i++)
			hear(b, events[i].queue, events[i].count);
		/* without recovery, less means that there are no more */
	} while (n == EVENTS);
}

static void mmap_consume(struct bench *b, bool wait)
{
	struct epoll_event event;

	if (wait)
		sleep_in_epoll(b, &event, 1, true);
	mapped_take(b);
}

static void mmap_uring_listen(struct bench *b)
{
	uring_start(b);
	uring_poll(b, doorbell_fd(b->db), 0);
	uring_submit(b);
}

/* A multishot poll does not poll again after an event: arm. */
static void mmap_uring_consume(struct bench *b, bool wait)
{
	struct io_uring_cqe *cqe;
	unsigned int head, n = 0;

	if (wait) {
		sleep_in_uring(b, true);
		io_uring_for_each_cqe(&b->uring, head, cqe) {
			if (!uring_goes_on(cqe))
				die("poll ended");
			n++;
		}
		io_uring_cq_advance(&b->uring, n);
	}
	do {
		mapped_take(b);
	} while (wait && doorbell_arm(b->db) > 0);
}

static void bound_attach(struct bench *b)
{
	doorbell_region(b, DOORBELL_OPEN_READ, DOORBELL_ATTACH_BOUND_ONLY, 0);
	errno = -doorbell_bind_queues(b->db, 0, b->queues, b->eventfds);
	if (errno)
		die("DOORBELL_BIND");
}

/* Adjacent paths with the same attach function share one VM. */
const struct path paths[BENCH_PATHS] = {
	{
		.name = "floor",
		.attach = floor_attach,
		.max_queues = DOORBELL_QUEUES_MAX,
	}, {
		.name = "ioeventfd_epoll",
		.attach = ioeventfd_attach,
		.listen = epoll_listen,
		.unlisten = close_epoll,
		.consume = epoll_consume,
		.max_queues = 16384,
	}, {
		.name = "ioeventfd_edge",
		.attach = ioeventfd_attach,
		.listen = epoll_listen,
		.unlisten = edge_unlisten,
		.consume = edge_consume,
		.max_queues = 16384,
	}, {
		.name = "ioeventfd_uring",
		.attach = ioeventfd_attach,
		.listen = uring_listen,
		.unlisten = uring_unlisten,
		.consume = uring_consume,
		.max_queues = 16384,
	}, {
		.name = "ioeventfd_kick",
		.prepare = make_eventfds,
		.attach = ioeventfd_assign,
		.max_queues = 16384,
	}, {
		.name = "kvm_exit_mmio",
		.attach = exit_attach,
		.listen = handed_listen,
		.unlisten = handed_unlisten,
		.consume = handed_consume,
		.exited = exit_exited,
		.max_queues = DOORBELL_QUEUES_MAX,
	}, {
		.name = "coalesced_mmio",
		.attach = coalesced_attach,
		.listen = handed_listen,
		.unlisten = handed_unlisten,
		.consume = handed_consume,
		.exited = coalesced_exited,
		.max_queues = DOORBELL_QUEUES_MAX,
	}, {
		.name = "doorbell_read",
		.attach = read_attach,
		.listen = doorbell_listen,
		.consume = read_consume,
		.max_queues = DOORBELL_QUEUES_MAX,
	}, {
		.name = "doorbell_block",
		.attach = block_attach,
		.listen = block_listen,
		.consume = block_consume,
		.max_queues = DOORBELL_QUEUES_MAX,
	}, {
		.name = "doorbell_mmap",
		.attach = mmap_attach,
		.listen = doorbell_listen,
		.unlisten = close_epoll,
		.consume = mmap_consume,
		.max_queues = DOORBELL_QUEUES_MAX,
	}, {
		.name = "doorbell_uring",
		.attach = mmap_attach,
		.listen = mmap_uring_listen,
		.unlisten = uring_unlisten,
		.consume = mmap_uring_consume,
		.max_queues = DOORBELL_QUEUES_MAX,
	}, {
		.name = "doorbell_ordered",
		.attach = ordered_attach,
		.listen = doorbell_listen,
		.consume = mmap_consume,
		.max_queues = DOORBELL_QUEUES_MAX,
	}, {
		.name = "doorbell_bound",
		.prepare = make_eventfds,
		.attach = bound_attach,
		.max_queues = DOORBELL_QUEUES_MAX,
	},
};

const struct path *path_find(const char *name)
{
	unsigned int i;

	for (i = 0; i < BENCH_PATHS; i++)
		if (!strcmp(paths[i].name, name))
			return &paths[i];
	die(name);
}
