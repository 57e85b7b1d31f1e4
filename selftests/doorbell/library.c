// SPDX-License-Identifier: GPL-2.0
/*
 * libdoorbell: events that doorbell_complete() took and did not hand over,
 * regions that another process attaches, calls that never wait, and garbage in
 * shared memory. Rings come from write() here.
 */
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>

#include <linux/kvm.h>

#include "libdoorbell.h"
#include "util.h"

#define TEST_SECONDS	100

#define BASE		0x1000
#define STRIDE		4
#define QUEUES		12
#define DEPTH		64

/* A ring of this address ends the consumers here. */
#define END_ADDR	0x10

static int attach(int fd, __u64 base, unsigned int queues, __u32 flags)
{
	struct doorbell_attach arg = db_attach_arg(-1, base, queues * STRIDE);

	arg.flags |= flags;
	if (flags & DOORBELL_ATTACH_ORDERED)
		arg.depth = DEPTH;
	return db_result(ioctl(fd, DOORBELL_ATTACH, &arg));
}

static int attach_by_library(struct doorbell *db, __u32 flags)
{
	struct doorbell_attach arg = {
		.vm_fd = -1,
		.base = BASE,
		.len = QUEUES * STRIDE,
		.flags = flags,
		.depth = flags & DOORBELL_ATTACH_ORDERED ? DEPTH : 0,
	};

	return doorbell_attach_region(db, &arg);
}

/* Mappings of the device in this process */
static int mappings(void)
{
	FILE *maps = fopen("/proc/self/maps", "r");
	char line[256];
	int n = 0;

	if (!maps)
		return -errno;
	while (fgets(line, sizeof(line), maps))
		n += !!strstr(line, DB_PATH);
	fclose(maps);
	return n;
}

/* What a callback sees, and when it ends doorbell_complete() */
struct log {
	struct doorbell_event events[64];
	unsigned int n;
	unsigned int stop;
	struct doorbell *db;
	int took;
};

static int log_event(unsigned int queue, const struct doorbell_event *event,
		     void *ctx)
{
	struct log *log = ctx;

	if (queue != event->queue || log->n == 64)
		return -EPROTO;
	log->events[log->n++] = *event;
	if (event->type == DOORBELL_EVENT_BAD_ADDRESS &&
	    event->value == END_ADDR)
		return 2;
	return log->n == log->stop;
}

/* Takes an event more for each that it gets. */
static int log_and_take(unsigned int queue, const struct doorbell_event *event,
			void *ctx)
{
	struct log *log = ctx;
	struct doorbell_event next;
	int n, ret;

	ret = log_event(queue, event, log);
	n = doorbell_take(log->db, &next, 1);
	if (n < 0)
		return n;
	log->took += n;
	if (!ret && n)
		ret = log_event(next.queue, &next, log);
	/* the event itself is still what it was */
	return ret ?: event->queue == queue ? 0 : -EPROTO;
}

FIXTURE(lib)
{
	struct doorbell *db;
};

FIXTURE_VARIANT(lib)
{
	unsigned int open;
	__u32 flags;
};

FIXTURE_VARIANT_ADD(lib, mmap) {};
FIXTURE_VARIANT_ADD(lib, read) { .open = DOORBELL_OPEN_READ };
FIXTURE_VARIANT_ADD(lib, mmap_ordered) { .flags = DOORBELL_ATTACH_ORDERED };
FIXTURE_VARIANT_ADD(lib, read_ordered) {
	.open = DOORBELL_OPEN_READ, .flags = DOORBELL_ATTACH_ORDERED,
};

FIXTURE_SETUP(lib)
{
	self->db = doorbell_open(variant->open);
	ASSERT_NE(NULL, self->db);
	ASSERT_EQ(0, attach_by_library(self->db, variant->flags));
	ASSERT_EQ(variant->open ? 0 : 2, mappings());
}

FIXTURE_TEARDOWN(lib)
{
	doorbell_close(self->db);
	ASSERT_EQ(0, mappings());
}

static int ring_queues(struct doorbell *db, unsigned int from, unsigned int to)
{
	int ret = 0;

	for (; from < to && !ret; from++)
		ret = doorbell_ring_addr(db, BASE + from * STRIDE, 100 + from);
	return ret;
}

TEST_F_TIMEOUT(lib, stopped_complete_keeps_events, TEST_SECONDS)
{
	struct log log = { .stop = 2 };
	struct doorbell_event events[16];
	unsigned int i;
	int n;

	ASSERT_EQ(0, ring_queues(self->db, 0, 6));
	ASSERT_EQ(1, doorbell_complete(self->db, log_event, &log));
	ASSERT_EQ(2, log.n);

	/* each call sees the events, and in order */
	ASSERT_EQ(1, doorbell_wait(self->db, 0));
	ASSERT_EQ(1, doorbell_arm(self->db));
	ASSERT_EQ(0, doorbell_take(self->db, events, 0));
	ASSERT_EQ(1, doorbell_take(self->db, events, 1));
	ASSERT_TRUE(db_event_is(&events[0], 2, 1, 102));
	log.stop = 3;
	ASSERT_EQ(1, doorbell_complete(self->db, log_event, &log));
	ASSERT_EQ(1, doorbell_wait(self->db, -1));
	for (i = 0; i < 2; i++)
		ASSERT_TRUE(db_event_is(&log.events[i], i, 1, 100 + i));
	ASSERT_TRUE(db_event_is(&log.events[2], 3, 1, 103));

	/* before those of later rings */
	ASSERT_EQ(0, ring_queues(self->db, 7, 9));
	n = doorbell_take(self->db, events, 16);
	/* a read() would say that those that are left are handled */
	if (variant->open & DOORBELL_OPEN_READ) {
		ASSERT_EQ(2, n);
		n += doorbell_take(self->db, events + 2, 14);
	}
	ASSERT_EQ(4, n);
	for (i = 0; i < 4; i++)
		ASSERT_TRUE(db_event_is(&events[i], 4 + i + (i > 1), 1,
					104 + i + (i > 1)));
	ASSERT_EQ(0, doorbell_take(self->db, events, 16));
	ASSERT_EQ(0, doorbell_wait(self->db, 0));
	ASSERT_EQ(0, doorbell_arm(self->db));
}

/* poll() fails if the process may have no descriptor. */
TEST_F_TIMEOUT(lib, errors_of_poll, TEST_SECONDS)
{
	bool read = variant->open & DOORBELL_OPEN_READ;
	struct rlimit limit, none;
	struct log log = {};

	ASSERT_EQ(0, getrlimit(RLIMIT_NOFILE, &limit));
	none = limit;
	none.rlim_cur = 0;
	ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &none));
	ASSERT_EQ(-EINVAL, doorbell_wait(self->db, 0));
	ASSERT_EQ(read ? -EINVAL : 0, doorbell_arm(self->db));
	ASSERT_EQ(-EINVAL, doorbell_complete(self->db, log_event, &log));
	ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &limit));

	/* without an event lost */
	log.stop = 1;
	ASSERT_EQ(0, ring_queues(self->db, 3, 4));
	ASSERT_EQ(1, doorbell_complete(self->db, log_event, &log));
	ASSERT_EQ(1, log.n);
	ASSERT_TRUE(db_event_is(&log.events[0], 3, 1, 103));
}

/* Memory that read() cannot write to */
TEST_F_TIMEOUT(lib, errors_of_read, TEST_SECONDS)
{
	struct doorbell_event event, *none;

	if (!(variant->open & DOORBELL_OPEN_READ))
		SKIP(return, "no read() with mapped memory");
	none = mmap(NULL, sizeof(*none), PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS,
		    -1, 0);
	ASSERT_NE(MAP_FAILED, (void *)none);
	ASSERT_EQ(0, doorbell_take(self->db, none, 1));
	ASSERT_EQ(0, ring_queues(self->db, 3, 4));
	ASSERT_EQ(-EFAULT, doorbell_take(self->db, none, 1));
	ASSERT_EQ(1, doorbell_take(self->db, &event, 1));
	ASSERT_TRUE(db_event_is(&event, 3, 1, 103));
}

/* A signal comes without poll(): only doorbell_arm() arms. */
TEST_F_TIMEOUT(lib, arm_for_a_signal, TEST_SECONDS)
{
	struct timespec limit = { .tv_sec = TEST_SECONDS / 2 }, now = {};
	int i, fd = doorbell_fd(self->db);
	struct doorbell_event event;
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, SIGIO);
	ASSERT_EQ(0, sigprocmask(SIG_BLOCK, &set, NULL));
	ASSERT_EQ(0, fcntl(fd, F_SETOWN, getpid()));
	ASSERT_EQ(0, fcntl(fd, F_SETFL, O_NONBLOCK | O_ASYNC));
	for (i = 0; i < 20; i++) {
		ASSERT_EQ(0, doorbell_arm(self->db));
		ASSERT_EQ(-1, sigtimedwait(&set, NULL, &now));
		ASSERT_EQ(0, ring_queues(self->db, i % 4, i % 4 + 1));
		ASSERT_EQ(SIGIO, sigtimedwait(&set, NULL, &limit));
		ASSERT_EQ(1, doorbell_take(self->db, &event, 1));
	}
}

TEST_F_TIMEOUT(lib, callback_takes_events, TEST_SECONDS)
{
	struct log log = { .db = self->db };
	unsigned int i;

	ASSERT_EQ(0, ring_queues(self->db, 0, 5));
	ASSERT_EQ(0, doorbell_ring_addr(self->db, END_ADDR, 0));
	ASSERT_EQ(2, doorbell_complete(self->db, log_and_take, &log));
	ASSERT_EQ(6, log.n);
	ASSERT_EQ(3, log.took);
	for (i = 0; i < 5; i++)
		ASSERT_TRUE(db_event_is(&log.events[i], i, 1, 100 + i));
	ASSERT_EQ(0, doorbell_wait(self->db, 0));
}

/* The library refuses for events that it holds, the kernel for the others. */
TEST_F_TIMEOUT(lib, attaching_drops_events_if_asked, TEST_SECONDS)
{
	struct log log = { .stop = 1 };
	struct doorbell_event events[4];

	ASSERT_EQ(0, ring_queues(self->db, 0, 4));
	ASSERT_EQ(1, doorbell_complete(self->db, log_event, &log));
	ASSERT_EQ(1, doorbell_wait(self->db, 0));
	ASSERT_EQ(0, doorbell_detach_region(self->db));
	ASSERT_EQ(-ENOTEMPTY, attach_by_library(self->db, variant->flags));
	ASSERT_EQ(1, doorbell_wait(self->db, 0));
	ASSERT_EQ(3, doorbell_take(self->db, events, 4));
	ASSERT_EQ(0, doorbell_take(self->db, events, 4));
	ASSERT_EQ(0, attach_by_library(self->db, variant->flags));
	ASSERT_EQ(0, ring_queues(self->db, 0, 4));
	ASSERT_EQ(0, doorbell_detach_region(self->db));
	ASSERT_EQ(-ENOTEMPTY, attach_by_library(self->db, variant->flags));
	ASSERT_EQ(0, attach_by_library(self->db, variant->flags |
				       DOORBELL_ATTACH_DROP));
	ASSERT_EQ(0, doorbell_wait(self->db, 0));
	ASSERT_EQ(0, doorbell_take(self->db, events, 4));
}

/* The end comes last, also after events that were not handed over. */
TEST_F_TIMEOUT(lib, end_of_the_vm, TEST_SECONDS)
{
	struct log log = { .stop = 1 };
	int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	struct doorbell *db;
	unsigned int i;
	pid_t child;

	if (kvm < 0)
		SKIP(return, "no /dev/kvm");
	db = doorbell_open(variant->open);
	ASSERT_NE(NULL, db);
	child = fork();
	if (!child) {
		struct doorbell_attach arg = {
			.size = sizeof(arg),
			.vm_fd = ioctl(kvm, KVM_CREATE_VM, 0),
			.base = BASE,
			.len = QUEUES * STRIDE,
			.flags = variant->flags,
			.depth = variant->flags ? DEPTH : 0,
		};

		_exit(arg.vm_fd < 0 ||
		      ioctl(doorbell_fd(db), DOORBELL_ATTACH, &arg) ||
		      ring_queues(db, 0, 3));
	}
	ASSERT_EQ(0, db_wait_status(child));
	ASSERT_EQ(1, doorbell_complete(db, log_event, &log));
	ASSERT_EQ(1, doorbell_wait(db, -1));
	ASSERT_EQ(0, doorbell_complete(db, log_event, &log));
	ASSERT_EQ(3, log.n);
	for (i = 0; i < 3; i++)
		ASSERT_TRUE(db_event_is(&log.events[i], i, 1, 100 + i));
	ASSERT_EQ(-EPIPE, doorbell_wait(db, -1));
	ASSERT_EQ(0, doorbell_arm(db));
	doorbell_close(db);
	close(kvm);
}

/* Rings of bound queues signal, and all others are events. */
TEST_F_TIMEOUT(lib, bound_queues, TEST_SECONDS)
{
	struct doorbell_queue_binding bindings[QUEUES];
	struct doorbell_event events[64];
	int fds[QUEUES], fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	__u64 count;
	int i;

	ASSERT_LE(0, fd);
	for (i = 0; i < QUEUES; i++)
		fds[i] = i % 3 ? -1 : fd;
	/* an event from before stays */
	ASSERT_EQ(0, ring_queues(self->db, 3, 4));
	ASSERT_EQ(0, doorbell_bind_queues(self->db, 0, QUEUES, fds));
	ASSERT_EQ(0, ring_queues(self->db, 0, QUEUES));
	ASSERT_EQ(1 + QUEUES * 2 / 3, doorbell_take(self->db, events, 64));
	for (i = 0; i < 1 + QUEUES * 2 / 3; i++)
		ASSERT_EQ(i ? i + (i - 1) / 2 : 3, events[i].queue);
	ASSERT_EQ(8, read(fd, &count, 8));
	ASSERT_EQ(QUEUES / 3, count);

	ASSERT_EQ(0, doorbell_get_bindings(self->db, 1, QUEUES - 1, bindings));
	for (i = 1; i < QUEUES; i++) {
		ASSERT_EQ(i % 3 ? 0 : 1, bindings[i - 1].bound);
		ASSERT_EQ(i % 3 ? 0 : 1, bindings[i - 1].rings);
	}

	ASSERT_EQ(-EINVAL, doorbell_bind_queues(self->db, 1, QUEUES, fds));
	ASSERT_EQ(-EINVAL,
		  doorbell_get_bindings(self->db, QUEUES, 1, bindings));
	fds[1] = INT_MAX;
	ASSERT_EQ(-EBADF, doorbell_bind_queues(self->db, 0, QUEUES, fds));
	fds[0] = -1;
	ASSERT_EQ(0, doorbell_bind_queues(self->db, 0, 1, fds));
	ASSERT_EQ(0, ring_queues(self->db, 0, 1));
	ASSERT_EQ(1, doorbell_take(self->db, events, 64));
	ASSERT_EQ(-1, read(fd, &count, 8));
	ASSERT_EQ(0, close(fd));

	ASSERT_EQ(0, doorbell_detach_region(self->db));
	ASSERT_EQ(-ENOTCONN, doorbell_bind_queues(self->db, 0, 1, fds));
	ASSERT_EQ(0, doorbell_get_bindings(self->db, 3, 1, bindings));
	ASSERT_EQ(1, bindings[0].rings);
}

TEST_F_TIMEOUT(lib, more_room_than_events, TEST_SECONDS)
{
	struct doorbell_event *events;

	events = calloc(65536, sizeof(*events));
	ASSERT_NE(NULL, events);
	ASSERT_EQ(0, ring_queues(self->db, 0, QUEUES));
	ASSERT_EQ(QUEUES, doorbell_take(self->db, events, UINT_MAX));
	ASSERT_EQ(0, doorbell_take(self->db, events, UINT_MAX));
	free(events);
}

/* Takers that share a blocking descriptor never see @end if a call waits. */
struct taker {
	struct doorbell *db;
	bool *end;
	__u64 rings;
	int error;
};

static void *taker_main(void *arg)
{
	struct taker *taker = arg;
	struct doorbell_event event;
	bool end;

	do {
		end = __atomic_load_n(taker->end, __ATOMIC_ACQUIRE);
		taker->error = doorbell_take(taker->db, &event, 1);
		if (taker->error > 0)
			taker->rings += event.count;
	} while (taker->error >= 0 && !end);
	return NULL;
}

FIXTURE(readers)
{
	struct doorbell *db;
};

FIXTURE_VARIANT(readers)
{
	__u32 flags;
};

FIXTURE_VARIANT_ADD(readers, coalescing) {};
FIXTURE_VARIANT_ADD(readers, ordered) { .flags = DOORBELL_ATTACH_ORDERED };

FIXTURE_SETUP(readers)
{
	self->db = doorbell_open(DOORBELL_OPEN_READ);
	ASSERT_NE(NULL, self->db);
	ASSERT_EQ(0, attach_by_library(self->db, variant->flags));
}

FIXTURE_TEARDOWN(readers)
{
	doorbell_close(self->db);
}

TEST_F_TIMEOUT(readers, take_never_waits, TEST_SECONDS)
{
	struct taker takers[3] = {};
	pthread_t threads[3];
	struct doorbell_event event;
	bool end = false;
	__u64 rings = 0;
	unsigned int i;
	int n;

	for (i = 0; i < 3; i++) {
		takers[i].db = doorbell_from_fd(dup(doorbell_fd(self->db)),
						DOORBELL_OPEN_READ);
		takers[i].end = &end;
		ASSERT_NE(NULL, takers[i].db);
		ASSERT_EQ(0, pthread_create(&threads[i], NULL, taker_main,
					    &takers[i]));
	}
	for (i = 0; i < 3000; i++)
		ASSERT_EQ(0, ring_queues(self->db, i % 4, i % 4 + 1));
	__atomic_store_n(&end, true, __ATOMIC_RELEASE);
	for (i = 0; i < 3; i++) {
		ASSERT_EQ(0, pthread_join(threads[i], NULL));
		ASSERT_LE(0, takers[i].error);
		rings += takers[i].rings;
		doorbell_close(takers[i].db);
	}
	while ((n = doorbell_take(self->db, &event, 1)) > 0)
		rings += event.count;
	ASSERT_EQ(0, n);
	ASSERT_EQ(3000, rings);
}

TEST(from_fd_refuses_other_files)
{
	static const char * const paths[] = {
		"/dev/zero", "/dev/null", "/proc/self/maps", "/",
	};
	unsigned int i;
	int fd = db_must_open(_metadata, 0);

	errno = 0;
	ASSERT_EQ(NULL, doorbell_from_fd(-1, 0));
	ASSERT_EQ(EBADF, errno);
	ASSERT_EQ(NULL, doorbell_from_fd(fd, 1U << 31));
	ASSERT_EQ(EINVAL, errno);
	ASSERT_EQ(0, close(fd));
	ASSERT_EQ(NULL, doorbell_from_fd(fd, 0));
	ASSERT_EQ(EBADF, errno);
	for (i = 0; i < 4; i++) {
		fd = open(paths[i], O_RDONLY | O_CLOEXEC);
		ASSERT_LE(0, fd);
		ASSERT_EQ(NULL, doorbell_from_fd(fd, 0));
		ASSERT_EQ(ENOTTY, errno);
		/* still the caller's */
		ASSERT_EQ(0, close(fd));
	}
}

/*
 * One process attaches, another one consumes, by way of the same open file. The
 * consumer waits in one of these ways:
 */
static int complete(struct doorbell *db, struct log *log)
{
	return doorbell_complete(db, log_event, log);
}

static int take_all(struct doorbell *db, struct log *log)
{
	struct doorbell_event event;
	int n, ret = 0;

	while (!ret && (n = doorbell_take(db, &event, 1)))
		ret = n < 0 ? n : log_event(event.queue, &event, log);
	return ret;
}

static int wait_and_take(struct doorbell *db, struct log *log)
{
	int ret = 0;

	while (!ret) {
		ret = doorbell_wait(db, DB_PATIENCE_MS);
		if (ret == 1)
			ret = take_all(db, log);
		else if (!ret)
			ret = -ETIMEDOUT;
	}
	return ret;
}

static int epoll_and_take(struct doorbell *db, struct log *log, __u32 events)
{
	struct epoll_event ev = { .events = events };
	int epfd = epoll_create1(EPOLL_CLOEXEC);
	int ret;

	if (epfd < 0 || epoll_ctl(epfd, EPOLL_CTL_ADD, doorbell_fd(db), &ev))
		return -errno;
	do {
		ret = take_all(db, log);
		if (!ret)
			ret = doorbell_arm(db);
		if (ret == 1)
			ret = 0;
		else if (!ret && epoll_wait(epfd, &ev, 1, DB_PATIENCE_MS) != 1)
			ret = -ETIMEDOUT;
	} while (!ret);
	close(epfd);
	return ret;
}

static int level_triggered(struct doorbell *db, struct log *log)
{
	return epoll_and_take(db, log, EPOLLIN);
}

static int edge_triggered(struct doorbell *db, struct log *log)
{
	return epoll_and_take(db, log, EPOLLIN | EPOLLET);
}

FIXTURE(follow)
{
	struct doorbell *db;
	int fd;
};

FIXTURE_VARIANT(follow)
{
	unsigned int open;
	__u32 from;
	__u32 to;
	int (*consume)(struct doorbell *db, struct log *log);
};

FIXTURE_VARIANT_ADD(follow, complete) { .consume = complete };
FIXTURE_VARIANT_ADD(follow, complete_by_read) {
	.consume = complete, .open = DOORBELL_OPEN_READ,
};
FIXTURE_VARIANT_ADD(follow, complete_to_ordered) {
	.consume = complete, .to = DOORBELL_ATTACH_ORDERED,
};
FIXTURE_VARIANT_ADD(follow, complete_from_ordered) {
	.consume = complete, .from = DOORBELL_ATTACH_ORDERED,
};
FIXTURE_VARIANT_ADD(follow, wait) { .consume = wait_and_take };
FIXTURE_VARIANT_ADD(follow, level) { .consume = level_triggered };
FIXTURE_VARIANT_ADD(follow, edge) { .consume = edge_triggered };
FIXTURE_VARIANT_ADD(follow, edge_ordered) {
	.consume = edge_triggered, .from = DOORBELL_ATTACH_ORDERED,
	.to = DOORBELL_ATTACH_ORDERED,
};

FIXTURE_SETUP(follow)
{
	self->fd = db_must_open(_metadata, 0);
}

FIXTURE_TEARDOWN(follow)
{
	doorbell_close(self->db);
	ASSERT_EQ(0, mappings());
}

/* Let @pid sleep in the call that it waits in, then wait some time more. */
static int let_wait(pid_t pid)
{
	uint64_t end = db_now_ms() + DB_PATIENCE_MS;
	char path[64], text[64];
	int ret;

	snprintf(path, sizeof(path), "/proc/%d/stat", pid);
	do {
		usleep(10000);
		ret = db_read_file(path, text, sizeof(text));
		if (ret < 0)
			return ret;
	} while (!strstr(text, ") S ") && db_now_ms() < end);
	return strstr(text, ") S ") ? 0 : -ETIMEDOUT;
}

/* The other process: regions of more queues each time, elsewhere */
static int attach_elsewhere(int fd, pid_t consumer, __u32 flags)
{
	unsigned int turn, i;
	__u64 base = BASE;
	int ret;

	for (turn = 1; turn <= 3; turn++) {
		ret = let_wait(consumer);
		if (!ret)
			ret = db_detach(fd);
		base *= 16;
		if (!ret)
			ret = attach(fd, base, QUEUES << turn, flags);
		if (!ret)
			ret = let_wait(consumer);
		for (i = 0; i < 3 && !ret; i++)
			ret = db_ring(fd, base + i * STRIDE, turn * 100 + i);
		if (ret)
			return ret;
	}
	ret = let_wait(consumer);
	return ret ?: db_ring(fd, END_ADDR, 0);
}

TEST_F_TIMEOUT(follow, another_region, TEST_SECONDS)
{
	struct log log = {};
	unsigned int i;
	pid_t child;

	ASSERT_EQ(0, attach(self->fd, BASE, QUEUES, variant->from));
	self->db = doorbell_from_fd(self->fd, variant->open);
	ASSERT_NE(NULL, self->db);
	ASSERT_EQ(variant->open ? 0 : 2, mappings());
	ASSERT_EQ(0, ring_queues(self->db, 0, 3));
	child = fork();
	if (!child)
		_exit(-attach_elsewhere(self->fd, getppid(), variant->to));
	ASSERT_EQ(2, variant->consume(self->db, &log));
	ASSERT_EQ(0, db_wait_status(child));
	ASSERT_EQ(4 * 3 + 1, log.n);
	for (i = 0; i < 4 * 3; i++)
		ASSERT_TRUE(db_event_is(&log.events[i], i % 3, 1,
					(i < 3 ? 1 : i / 3) * 100 + i % 3));
	ASSERT_EQ(variant->open ? 0 : 2, mappings());
}

/* A descriptor that is passed on before there is a region */
TEST_F_TIMEOUT(follow, first_region, TEST_SECONDS)
{
	bool waits = variant->consume == complete ||
		     variant->consume == wait_and_take;
	struct log log = {};
	pid_t child;

	self->db = doorbell_from_fd(self->fd, variant->open);
	ASSERT_NE(NULL, self->db);
	ASSERT_EQ(0, mappings());
	child = fork();
	if (!child) {
		int ret = let_wait(getppid()) ?:
			  attach(self->fd, BASE, QUEUES, variant->to) ?:
			  ring_queues(self->db, 0, 3) ?:
			  db_ring(self->fd, END_ADDR, 0);

		_exit(-ret);
	}
	ASSERT_EQ(2, variant->consume(self->db, &log));
	ASSERT_EQ(0, db_wait_status(child));
	ASSERT_EQ(4, log.n);
	ASSERT_TRUE(db_event_is(&log.events[2], 2, 1, 102));
	if (waits)
		ASSERT_EQ(variant->open ? 0 : 2, mappings());
}

/*
 * Each region drops events of the one before. But each event that arrives comes
 * once and in order, and those of the last region all arrive. Without the flag
 * the regions wait for the consumer, and all events arrive.
 */
#define REGIONS		300
#define RINGS		8

struct progress {
	__u64 last;
	unsigned int n;
};

static int check_event(unsigned int queue, const struct doorbell_event *event,
		       void *ctx)
{
	struct progress *all = ctx;
	__u64 number = event->value;

	if (event->type == DOORBELL_EVENT_BAD_ADDRESS)
		return 2;
	if (event->count != 1 || queue != number % RINGS ||
	    number <= all->last) {
		printf("# queue %u, %u rings, value %llu after %llu\n", queue,
		       event->count, event->value, all->last);
		return 3;
	}
	all->last = number;
	all->n++;
	return 0;
}

FIXTURE(succession)
{
	struct doorbell *db;
	int fd;
};

FIXTURE_VARIANT(succession)
{
	unsigned int open;
	__u32 from;
	__u32 to;
	bool keep;
};

FIXTURE_VARIANT_ADD(succession, mmap) {};
FIXTURE_VARIANT_ADD(succession, mmap_keeps) { .keep = true };
FIXTURE_VARIANT_ADD(succession, read_keeps) {
	.open = DOORBELL_OPEN_READ, .keep = true,
};
FIXTURE_VARIANT_ADD(succession, mmap_both_modes_keeps) {
	.to = DOORBELL_ATTACH_ORDERED, .keep = true,
};
FIXTURE_VARIANT_ADD(succession, read) { .open = DOORBELL_OPEN_READ };
FIXTURE_VARIANT_ADD(succession, mmap_both_modes) {
	.to = DOORBELL_ATTACH_ORDERED,
};

/* Without DOORBELL_ATTACH_DROP: once the consumer has got all events */
static int attach_in_time(int fd, unsigned int queues, __u32 flags)
{
	struct doorbell_attach arg = db_attach_arg(-1, BASE, queues * STRIDE);
	__u64 end = db_now_ms() + DB_PATIENCE_MS;
	int ret;

	arg.flags = flags;
	arg.depth = flags & DOORBELL_ATTACH_ORDERED ? DEPTH : 0;
	do {
		ret = db_result(ioctl(fd, DOORBELL_ATTACH, &arg));
		if (ret)
			db_yield();
	} while (ret == -ENOTEMPTY && db_now_ms() < end);
	return ret;
}

FIXTURE_SETUP(succession)
{
	self->fd = db_must_open(_metadata, 0);
}

FIXTURE_TEARDOWN(succession)
{
	doorbell_close(self->db);
	ASSERT_EQ(0, mappings());
}

TEST_F_TIMEOUT(succession, all_is_of_its_region, TEST_SECONDS)
{
	struct progress all = {};
	unsigned int i, j;
	pid_t child;
	int ret = 0;

	ASSERT_EQ(0, attach(self->fd, BASE, RINGS, variant->from));
	self->db = doorbell_from_fd(self->fd, variant->open);
	ASSERT_NE(NULL, self->db);
	child = fork();
	if (!child) {
		__u32 seed = 3, flags;

		for (i = 1; i <= REGIONS && !ret; i++) {
			flags = i % 2 ? variant->to : variant->from;
			ret = db_detach(self->fd) ?: variant->keep ?
			      attach_in_time(self->fd, RINGS << i % 5, flags) :
			      attach(self->fd, BASE, RINGS << i % 5, flags);
			for (j = 0; j < RINGS && !ret; j++) {
				db_spin(db_random(&seed) % 2000);
				ret = db_ring(self->fd, BASE + j * STRIDE,
					      i * RINGS + j);
			}
			if (i % 3 == 0)
				usleep(db_random(&seed) % 2000);
		}
		_exit(-(ret ?: db_ring(self->fd, 0, 0)));
	}
	ASSERT_EQ(2, doorbell_complete(self->db, check_event, &all));
	ASSERT_EQ(0, db_wait_status(child));
	ASSERT_EQ(REGIONS * RINGS + RINGS - 1, all.last);
	if (variant->keep)
		ASSERT_EQ(REGIONS * RINGS, all.n);
	printf("# %u of %u events arrived\n", all.n, REGIONS * RINGS);
}

/*
 * The same between two calls of the library. This mmap() takes the place of
 * libc's: after the @countdown-th call a region of the other mode is attached.
 */
static struct {
	unsigned int countdown;
	int fd;
	__u32 flags;
	int ret;
} in_mmap;

void *mmap(void *addr, size_t size, int prot, int flags, int fd, off_t offset)
{
	void *mem = (void *)syscall(SYS_mmap, addr, size, prot, flags, fd,
				    offset);

	if (in_mmap.countdown && !--in_mmap.countdown) {
		in_mmap.ret = db_detach(in_mmap.fd);
		if (!in_mmap.ret)
			in_mmap.ret = attach(in_mmap.fd, BASE, QUEUES,
					     in_mmap.flags);
	}
	return mem;
}

FIXTURE(while_mapping)
{
	int fd;
};

FIXTURE_VARIANT(while_mapping)
{
	__u32 from;
	__u32 to;
};

FIXTURE_VARIANT_ADD(while_mapping, coalescing) {};
FIXTURE_VARIANT_ADD(while_mapping, to_ordered) {
	.to = DOORBELL_ATTACH_ORDERED,
};
FIXTURE_VARIANT_ADD(while_mapping, from_ordered) {
	.from = DOORBELL_ATTACH_ORDERED,
};
FIXTURE_VARIANT_ADD(while_mapping, ordered) {
	.from = DOORBELL_ATTACH_ORDERED, .to = DOORBELL_ATTACH_ORDERED,
};

FIXTURE_SETUP(while_mapping)
{
	self->fd = db_must_open(_metadata, 0);
}

FIXTURE_TEARDOWN(while_mapping)
{
	close(self->fd);
}

TEST_F_TIMEOUT(while_mapping, another_region, TEST_SECONDS)
{
	struct doorbell *db;
	unsigned int at, i;

	for (at = 1; at <= 2; at++) {
		struct log log = {};

		ASSERT_EQ(0, attach(self->fd, BASE, QUEUES, variant->from));
		for (i = 0; i < QUEUES; i++)
			ASSERT_EQ(0, db_ring(self->fd, BASE + i * STRIDE, 99));
		in_mmap.countdown = at;
		in_mmap.fd = self->fd;
		in_mmap.flags = variant->to;
		in_mmap.ret = -EAGAIN;
		db = doorbell_from_fd(dup(self->fd), 0);
		ASSERT_NE(NULL, db);
		ASSERT_EQ(0, in_mmap.ret);
		ASSERT_EQ(0, ring_queues(db, 0, 3));
		ASSERT_EQ(0, db_ring(self->fd, END_ADDR, 0));
		ASSERT_EQ(2, doorbell_complete(db, log_event, &log));
		ASSERT_EQ(4, log.n);
		for (i = 0; i < 3; i++)
			ASSERT_TRUE(db_event_is(&log.events[i], i, 1, 100 + i));
		ASSERT_EQ(0, doorbell_wait(db, 0));
		ASSERT_EQ(0, ring_queues(db, 5, 6));
		ASSERT_EQ(1, doorbell_wait(db, 0));
		ASSERT_EQ(1, doorbell_take(db, log.events, 64));
		ASSERT_EQ(2, mappings());
		doorbell_close(db);
		ASSERT_EQ(0, mappings());
		ASSERT_EQ(0, db_detach(self->fd));
	}
}

/*
 * What a successor on the same open file gets of events that doorbell_take()
 * and doorbell_complete() took: all that were not handled
 */

FIXTURE(successor)
{
	struct doorbell *db;
	struct doorbell *next;
	struct doorbell_event events[16];
};

FIXTURE_VARIANT(successor)
{
	__u32 flags;
	unsigned int open;
};

FIXTURE_VARIANT_ADD(successor, mmap) {};
FIXTURE_VARIANT_ADD(successor, mmap_then_read) {
	.open = DOORBELL_OPEN_READ,
};
FIXTURE_VARIANT_ADD(successor, ordered) { .flags = DOORBELL_ATTACH_ORDERED };

FIXTURE_SETUP(successor)
{
	self->db = doorbell_open(0);
	ASSERT_NE(NULL, self->db);
	ASSERT_EQ(0, attach_by_library(self->db, variant->flags));
}

FIXTURE_TEARDOWN(successor)
{
	doorbell_close(self->db);
	doorbell_close(self->next);
}

/* Take over, and get @n events, from queue @first on. */
#define TAKES_OVER(first, n) do {					\
	unsigned int _i, _n = (n);					\
									\
	self->next = doorbell_from_fd(dup(doorbell_fd(self->db)),	\
				      variant->open);			\
	ASSERT_NE(NULL, self->next);					\
	ASSERT_EQ(_n, doorbell_take(self->next, self->events, 16));	\
	for (_i = 0; _i < _n; _i++)					\
		ASSERT_EQ((first) + _i, self->events[_i].queue);	\
	ASSERT_EQ(0, doorbell_take(self->next, self->events, 16));	\
} while (0)

/* doorbell_complete() was stopped: two of five events are handled. */
TEST_F_TIMEOUT(successor, of_stopped_complete, TEST_SECONDS)
{
	struct log log = { .stop = 2 };

	ASSERT_EQ(0, ring_queues(self->db, 0, 5));
	ASSERT_EQ(1, doorbell_complete(self->db, log_event, &log));
	/* coalescing notes what is handled with the last one of a batch */
	if (variant->flags)
		TAKES_OVER(2, 3);
	else
		TAKES_OVER(0, 5);
}

/* doorbell_take() returned events that doorbell_complete() had taken. */
TEST_F_TIMEOUT(successor, of_take_after_complete, TEST_SECONDS)
{
	struct log log = { .stop = 1 };

	ASSERT_EQ(0, ring_queues(self->db, 0, 5));
	ASSERT_EQ(1, doorbell_complete(self->db, log_event, &log));
	ASSERT_EQ(0, ring_queues(self->db, 5, 7));
	ASSERT_EQ(6, doorbell_take(self->db, self->events, 16));
	if (variant->flags)
		TAKES_OVER(1, 6);
	else
		TAKES_OVER(0, 7);
}

/* doorbell_take() said that what it returned before was handled. */
TEST_F_TIMEOUT(successor, of_second_take_after_complete, TEST_SECONDS)
{
	struct log log = { .stop = 1 };

	ASSERT_EQ(0, ring_queues(self->db, 0, 5));
	ASSERT_EQ(1, doorbell_complete(self->db, log_event, &log));
	ASSERT_EQ(2, doorbell_take(self->db, self->events, 2));
	ASSERT_EQ(2, doorbell_take(self->db, self->events, 2));
	if (variant->flags)
		TAKES_OVER(3, 2);
	else
		TAKES_OVER(0, 5);
}

/* By read(): none is read as long as some are left that are not handled. */
TEST_F_TIMEOUT(successor, of_read_after_complete, TEST_SECONDS)
{
	struct log log = { .stop = 1 };
	unsigned int i, queues = 0;
	struct doorbell *db;

	db = doorbell_from_fd(dup(doorbell_fd(self->db)), DOORBELL_OPEN_READ);
	ASSERT_NE(NULL, db);
	ASSERT_EQ(0, ring_queues(db, 0, 5));
	ASSERT_EQ(1, doorbell_complete(db, log_event, &log));
	ASSERT_EQ(0, ring_queues(db, 5, 7));
	ASSERT_EQ(4, doorbell_take(db, self->events, 16));
	self->next = doorbell_from_fd(dup(doorbell_fd(db)), variant->open);
	ASSERT_NE(NULL, self->next);
	ASSERT_EQ(7, doorbell_take(self->next, self->events, 16));
	for (i = 0; i < 7; i++)
		queues |= 1 << self->events[i].queue;
	ASSERT_EQ(0x7f, queues);
	doorbell_close(db);
}

/* A callback takes an event: its own is handled then, and not that one. */
TEST_F_TIMEOUT(successor, of_callback_that_takes, TEST_SECONDS)
{
	struct log log = { .db = self->db, .stop = 1 };

	ASSERT_EQ(0, ring_queues(self->db, 0, 5));
	ASSERT_EQ(1, doorbell_complete(self->db, log_and_take, &log));
	ASSERT_EQ(1, log.took);
	if (variant->flags)
		TAKES_OVER(1, 4);
	else
		TAKES_OVER(0, 5);
}

/*
 * doorbell_close() says that what the caller got is handled. So does the
 * callback that ended doorbell_complete() at the last event.
 */
#define FOLLOWS(n) do {							\
	int _fd = dup(doorbell_fd(self->db));				\
									\
	doorbell_close(self->db);					\
	self->db = NULL;						\
	self->next = doorbell_from_fd(_fd, variant->open);		\
	ASSERT_NE(NULL, self->next);					\
	ASSERT_EQ((n), doorbell_take(self->next, self->events, 16));	\
} while (0)

TEST_F_TIMEOUT(successor, of_take_and_close, TEST_SECONDS)
{
	ASSERT_EQ(0, ring_queues(self->db, 0, 3));
	ASSERT_EQ(3, doorbell_take(self->db, self->events, 16));
	FOLLOWS(0);
}

TEST_F_TIMEOUT(successor, of_complete_and_close, TEST_SECONDS)
{
	struct log log = { .stop = 3 };

	ASSERT_EQ(0, ring_queues(self->db, 0, 3));
	ASSERT_EQ(1, doorbell_complete(self->db, log_event, &log));
	FOLLOWS(0);
}

/* A consumer that took nothing says nothing about what others have handled. */
TEST_F_TIMEOUT(successor, of_another_and_close, TEST_SECONDS)
{
	struct doorbell *other;

	ASSERT_EQ(0, ring_queues(self->db, 0, 3));
	ASSERT_EQ(3, doorbell_take(self->db, self->events, 16));
	other = doorbell_from_fd(dup(doorbell_fd(self->db)),
				 DOORBELL_OPEN_NO_RECOVER);
	ASSERT_NE(NULL, other);
	doorbell_close(other);
	TAKES_OVER(0, 3);
}

/* Nor does one that tried to take some, nor its doorbell_close(). */
TEST_F_TIMEOUT(successor, of_another_take, TEST_SECONDS)
{
	struct doorbell *other;
	int i;

	ASSERT_EQ(0, ring_queues(self->db, 0, 3));
	ASSERT_EQ(3, doorbell_take(self->db, self->events, 16));
	other = doorbell_from_fd(dup(doorbell_fd(self->db)),
				 DOORBELL_OPEN_NO_RECOVER);
	ASSERT_NE(NULL, other);
	for (i = 0; i < 2; i++)
		ASSERT_EQ(0, doorbell_take(other, self->events, 16));
	doorbell_close(other);
	TAKES_OVER(0, 3);
}

/* Ordered events that come again come before those that wait. */
TEST_F_TIMEOUT(successor, of_two_taken, TEST_SECONDS)
{
	if (!variant->flags)
		SKIP(return, "coalesced events come again after the others");
	ASSERT_EQ(0, ring_queues(self->db, 0, 4));
	ASSERT_EQ(1, doorbell_take(self->db, self->events, 1));
	ASSERT_EQ(2, doorbell_take(self->db, self->events, 2));
	/* takes no event, and so says nothing about the last ones */
	ASSERT_EQ(0, doorbell_take(self->db, self->events, 0));
	TAKES_OVER(1, 3);
}

/*
 * An ordered region that is full again, before the events of the first time are
 * handled: its successors get both, each not more at a time than come again.
 */
TEST_F_TIMEOUT(successor, of_full_region, TEST_SECONDS)
{
	struct doorbell_event events[3 * DEPTH];
	struct doorbell *next;
	int i, turn;

	if (!variant->flags)
		SKIP(return, "a coalescing region does not fill up");
	for (i = 0; i < 2 * DEPTH; i++) {
		ASSERT_EQ(0, doorbell_ring_addr(self->db, BASE, i));
		if (i == DEPTH - 1)
			ASSERT_EQ(DEPTH, doorbell_take(self->db, events,
						       3 * DEPTH));
	}
	for (turn = 0; turn < 3; turn++) {
		next = doorbell_from_fd(dup(doorbell_fd(self->db)), 0);
		ASSERT_NE(NULL, next);
		for (i = 0; i < 2 * DEPTH; i += DEPTH) {
			ASSERT_EQ(1, doorbell_arm(next));
			ASSERT_EQ(DEPTH, doorbell_take(next, events + i,
						       3 * DEPTH - i));
			/* dies with those of the first time in its hands */
			if (turn < 2)
				break;
		}
		for (i = 0; i < (turn < 2 ? DEPTH : 2 * DEPTH); i++)
			ASSERT_EQ(i, events[i].value);
		if (turn == 2)
			ASSERT_EQ(0, doorbell_take(next, events, 3 * DEPTH));
		/* not doorbell_close(), which would say that it has ended */
		if (turn < 2) {
			ASSERT_EQ(0, close(doorbell_fd(next)));
		} else {
			doorbell_close(next);
		}
	}
}

/* A callback attaches the next region: it is done with its event. */
static int attach_next(unsigned int queue, const struct doorbell_event *event,
		       void *ctx)
{
	struct log *log = ctx;
	int ret = log_event(queue, event, log);

	if (ret || queue != 2)
		return ret;
	ret = doorbell_detach_region(log->db) ?:
	      attach_by_library(log->db, DOORBELL_ATTACH_ORDERED) ?:
	      ring_queues(log->db, 4, 6);
	return ret ?: doorbell_ring_addr(log->db, END_ADDR, 0);
}

TEST_F_TIMEOUT(successor, callback_attaches, TEST_SECONDS)
{
	struct log log = { .db = self->db };

	ASSERT_EQ(0, ring_queues(self->db, 0, 3));
	ASSERT_EQ(2, doorbell_complete(self->db, attach_next, &log));
	ASSERT_EQ(6, log.n);
	TAKES_OVER(0, 0);
}

/* DOORBELL_ATTACH_DROP of another process drops what is held, too. */
static int drop_region(unsigned int queue, const struct doorbell_event *event,
		       void *ctx)
{
	struct log *log = ctx;
	int fd = doorbell_fd(log->db);
	int ret = log_event(queue, event, log);

	if (ret || queue != 1)
		return ret;
	return db_detach(fd) ?: attach(fd, BASE, QUEUES, 0) ?:
	       ring_queues(log->db, 7, 8) ?: db_ring(fd, END_ADDR, 0);
}

TEST_F_TIMEOUT(successor, dropped_while_held, TEST_SECONDS)
{
	struct log log = { .db = self->db };

	ASSERT_EQ(0, ring_queues(self->db, 0, 5));
	ASSERT_EQ(2, doorbell_complete(self->db, drop_region, &log));
	ASSERT_EQ(4, log.n);
	ASSERT_EQ(1, log.events[1].queue);
	ASSERT_EQ(7, log.events[2].queue);
}

/* What other processes can write: the control area of a coalescing region */

FIXTURE(shared)
{
	struct doorbell *db;
	int fd;
	struct doorbell_control *control;
	struct doorbell_info info;
};

FIXTURE_VARIANT(shared)
{
	unsigned int queues;
};

FIXTURE_VARIANT_ADD(shared, few_queues) { .queues = QUEUES };
FIXTURE_VARIANT_ADD(shared, all_queues) { .queues = DOORBELL_QUEUES_MAX };

FIXTURE_SETUP(shared)
{
	self->fd = db_must_open(_metadata, 0);
	ASSERT_EQ(0, attach(self->fd, BASE, variant->queues, 0));
	ASSERT_EQ(0, db_info(self->fd, &self->info));
	self->control = mmap(NULL, self->info.control_size,
			     PROT_READ | PROT_WRITE, MAP_SHARED, self->fd, 0);
	ASSERT_NE(MAP_FAILED, self->control);
	self->db = doorbell_from_fd(self->fd, 0);
	ASSERT_NE(NULL, self->db);
	ASSERT_EQ(3, mappings());
}

FIXTURE_TEARDOWN(shared)
{
	munmap(self->control, self->info.control_size);
	doorbell_close(self->db);
}

/* Rings that do not fit into one event are there without an entry. */
TEST_F_TIMEOUT(shared, waits_for_no_entry, TEST_SECONDS)
{
	const __u64 more = 2 * (__u64)UINT32_MAX;
	struct doorbell_event events[8];

	ASSERT_EQ(0, ring_queues(self->db, 3, 4));
	self->control->seen[3] -= more << DOORBELL_RINGS_SHIFT;
	ASSERT_EQ(1, doorbell_take(self->db, events, 1));
	ASSERT_EQ(UINT32_MAX, events[0].count);
	ASSERT_EQ(1, doorbell_wait(self->db, -1));
	ASSERT_EQ(1, doorbell_arm(self->db));
	ASSERT_EQ(2, doorbell_take(self->db, events, 8));
	ASSERT_EQ(UINT32_MAX, events[0].count);
	ASSERT_TRUE(db_event_is(&events[1], 3, 1, 103));
	ASSERT_EQ(0, doorbell_wait(self->db, 0));
	ASSERT_EQ(0, doorbell_arm(self->db));
}

/* The rest of them is not handled when its first event is. */
TEST_F_TIMEOUT(shared, rest_of_rings_comes_again, TEST_SECONDS)
{
	const __u64 more = (__u64)UINT32_MAX;
	struct doorbell_event events[8];
	struct doorbell *next;

	ASSERT_EQ(0, ring_queues(self->db, 3, 4));
	self->control->seen[3] -= more << DOORBELL_RINGS_SHIFT;
	ASSERT_EQ(1, doorbell_take(self->db, events, 1));
	ASSERT_EQ(1, doorbell_take(self->db, events, 1));
	ASSERT_TRUE(db_event_is(&events[0], 3, 1, 103));
	next = doorbell_from_fd(dup(self->fd), 0);
	ASSERT_NE(NULL, next);
	ASSERT_EQ(1, doorbell_take(next, events, 8));
	ASSERT_TRUE(db_event_is(&events[0], 3, 1, 103));
	ASSERT_EQ(0, doorbell_take(next, events, 8));
	doorbell_close(next);
}

/* Entries that were consumed come back for ever, and have no events. */
struct garbler {
	struct doorbell_control *control;
	__u64 head;
	bool stop;
};

static void *garbler_main(void *arg)
{
	struct garbler *garbler = arg;

	while (!__atomic_load_n(&garbler->stop, __ATOMIC_ACQUIRE))
		__atomic_store_n(&garbler->control->head, garbler->head,
				 __ATOMIC_RELAXED);
	return NULL;
}

TEST_F_TIMEOUT(shared, head_that_goes_back, TEST_SECONDS)
{
	struct garbler garbler = { .control = self->control };
	static struct doorbell_event events[DOORBELL_QUEUES_MAX];
	static struct doorbell_ring rings[DOORBELL_QUEUES_MAX];
	size_t size = variant->queues * sizeof(*rings);
	pthread_t thread;
	unsigned int i;

	for (i = 0; i < variant->queues; i++)
		rings[i].addr = BASE + i * STRIDE;
	garbler.head = self->control->head;
	ASSERT_EQ(size, write(self->fd, rings, size));
	ASSERT_EQ(variant->queues, doorbell_take(self->db, events,
						 DOORBELL_QUEUES_MAX));

	ASSERT_EQ(0, pthread_create(&thread, NULL, garbler_main, &garbler));
	for (i = 0; i < 100; i++)
		ASSERT_EQ(0, doorbell_take(self->db, events, 64));
	__atomic_store_n(&garbler.stop, true, __ATOMIC_RELEASE);
	ASSERT_EQ(0, pthread_join(thread, NULL));
}

TEST_HARNESS_MAIN
