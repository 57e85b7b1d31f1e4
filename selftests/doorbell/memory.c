// SPDX-License-Identifier: GPL-2.0
/*
 * Memory: the caller's buffers and structures, and the memory of a region.
 *
 * A buffer may have any alignment, be cut in pieces, or end in the middle of a
 * record; a structure may be of any size. The 32-bit build shows that 32-bit
 * callers have the same ABI.
 */
#include <sys/epoll.h>
#include <sys/uio.h>

#include "cgroup.h"

/* Every structure: its size, and where each of its members is */
#define SIZE(_name, _size)						\
	_Static_assert(sizeof(struct doorbell_##_name) == (_size), #_name)
#define MEMBER(_name, _member, _at)					\
	_Static_assert(offsetof(struct doorbell_##_name, _member) == (_at), \
		       #_name "." #_member)

SIZE(event, 16);
MEMBER(event, queue, 0);
MEMBER(event, type, 2);
MEMBER(event, width, 3);
MEMBER(event, count, 4);
MEMBER(event, value, 8);

SIZE(ring, 16);
MEMBER(ring, addr, 0);
MEMBER(ring, value, 8);

SIZE(attach, 40);
MEMBER(attach, size, 0);
MEMBER(attach, vm_fd, 4);
MEMBER(attach, base, 8);
MEMBER(attach, len, 16);
MEMBER(attach, stride, 24);
MEMBER(attach, flags, 28);
MEMBER(attach, depth, 32);
MEMBER(attach, queues, 36);

SIZE(info, 112);
MEMBER(info, size, 0);
MEMBER(info, state, 4);
MEMBER(info, base, 8);
MEMBER(info, len, 16);
MEMBER(info, stride, 24);
MEMBER(info, flags, 28);
MEMBER(info, depth, 32);
MEMBER(info, queues, 36);
MEMBER(info, control_size, 40);
MEMBER(info, readonly_size, 44);
MEMBER(info, entries_offset, 48);
MEMBER(info, nr_entries, 52);
MEMBER(info, features, 56);
MEMBER(info, generation, 60);
MEMBER(info, rings, 64);
MEMBER(info, bad_rings, 72);
MEMBER(info, pending, 80);
MEMBER(info, wakeups, 88);
MEMBER(info, bounced, 96);
MEMBER(info, bound_rings, 104);

SIZE(move, 16);
MEMBER(move, size, 0);
MEMBER(move, vm_fd, 4);
MEMBER(move, base, 8);

SIZE(bind, 24);
MEMBER(bind, size, 0);
MEMBER(bind, first, 4);
MEMBER(bind, count, 8);
MEMBER(bind, flags, 12);
MEMBER(bind, fds, 16);

SIZE(queue_binding, 16);
MEMBER(queue_binding, rings, 0);
MEMBER(queue_binding, bound, 8);
MEMBER(queue_binding, reserved, 12);

SIZE(bindings, 24);
MEMBER(bindings, size, 0);
MEMBER(bindings, first, 4);
MEMBER(bindings, count, 8);
MEMBER(bindings, flags, 12);
MEMBER(bindings, bindings, 16);

SIZE(control, 64);
MEMBER(control, head, 0);
MEMBER(control, armed, 8);
MEMBER(control, reserved, 12);
MEMBER(control, handled, 16);
MEMBER(control, reserved2, 24);
MEMBER(control, seen, 64);

SIZE(status, 64);
MEMBER(status, state, 0);
MEMBER(status, generation, 4);
MEMBER(status, flags, 8);
MEMBER(status, reserved, 12);

SIZE(slot, 24);
MEMBER(slot, value, 0);
MEMBER(slot, rings, 8);
MEMBER(slot, pos, 16);

SIZE(entry, 16);
MEMBER(entry, word, 0);
MEMBER(entry, value, 8);

_Static_assert(DOORBELL_ATTACH == 0xd800 && DOORBELL_DETACH == 0xd801 &&
	       DOORBELL_INFO == 0xd802 && DOORBELL_MOVE == 0xd803 &&
	       DOORBELL_BIND == 0xd804 && DOORBELL_BINDINGS == 0xd805 &&
	       DOORBELL_RECOVER == 0xd806,
	       "ioctl numbers");

/* Numbers that programs were built with, so they never change */
#define NUMBER(_name, _number)						\
	_Static_assert(DOORBELL_##_name == (_number), #_name)

NUMBER(QUEUES_MAX, 65535);
NUMBER(QUEUE_NONE, 65535);
NUMBER(STRIDE_MIN, 2);
NUMBER(STRIDE_MAX, 65536);
NUMBER(STRIDE_DEFAULT, 4);
NUMBER(DEPTH_MAX, 1048576);

NUMBER(EVENT_QUEUE, 0);
NUMBER(EVENT_BAD_ADDRESS, 1);
NUMBER(EVENT_BAD_QUEUE, 2);

NUMBER(ATTACH_PIO, 0x1);
NUMBER(ATTACH_ORDERED, 0x2);
NUMBER(ATTACH_BY_VALUE, 0x4);
NUMBER(ATTACH_NO_VALUE, 0x8);
NUMBER(ATTACH_BOUND_ONLY, 0x10);
NUMBER(ATTACH_DROP, 0x20);
NUMBER(ATTACH_EXACT, 0x40);

NUMBER(DETACHED, 0);
NUMBER(ATTACHED, 1);
NUMBER(HANGUP, 2);

NUMBER(FEATURE_MOVE, 0x1);
NUMBER(FEATURE_BIND, 0x2);
NUMBER(FEATURE_STATUS, 0x4);
NUMBER(FEATURE_RECOVER, 0x8);
NUMBER(FEATURES, 0xf);

NUMBER(STATUS_DROPPED, 0x1);

NUMBER(RINGS_SHIFT, 16);
NUMBER(KIND_WIDTH_SHIFT, 8);
NUMBER(FIFO_LAP_SHIFT, 16);
NUMBER(ENTRY_KIND_SHIFT, 16);
NUMBER(ENTRY_LAP_SHIFT, 32);

static struct doorbell_ring rings[DOORBELL_QUEUES_MAX + 1];
static struct doorbell_event events[DOORBELL_QUEUES_MAX + 1];

/* Buffers and structures of the caller */

FIXTURE(user)
{
	int fd;
};

FIXTURE_SETUP(user)
{
	self->fd = db_must_open(_metadata, O_NONBLOCK);
}

FIXTURE_TEARDOWN(user)
{
	close(self->fd);
}

/* Fill rings[]: one ring for each of @queues queues at @base, in order. */
static void fill_rings(uint64_t base, unsigned int queues)
{
	unsigned int i;

	for (i = 0; i < queues; i++)
		rings[i] = (struct doorbell_ring) {
			.addr = base + 4 * i,
			.value = 0x100000000ULL + i,
		};
}

/* read() returns whole events only and writes nothing beyond them. */
TEST_F(user, whole_events)
{
	static const unsigned int sizes[] = { 16, 17, 31, 32, 40, 63, 161 };
	unsigned char buf[256];
	struct doorbell_event event;
	unsigned int i, k, queue = 0;

	ASSERT_EQ(0, db_attach(self->fd, -1, 0, 400));
	fill_rings(0, 100);
	ASSERT_EQ(100 * 16, write(self->fd, rings, 100 * 16));
	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		unsigned int whole = sizes[i] / 16 * 16;

		memset(buf, 0xa5, sizeof(buf));
		/* any alignment is good enough */
		ASSERT_EQ((ssize_t)whole, read(self->fd, buf + 1, sizes[i]));
		EXPECT_EQ(0xa5, buf[0]);
		for (k = 1 + whole; k < sizeof(buf); k++)
			ASSERT_EQ(0xa5, buf[k]);
		for (k = 0; k < whole; k += 16, queue++) {
			memcpy(&event, buf + 1 + k, 16);
			EXPECT_TRUE(db_event_is(&event, queue, 1,
						0x100000000ULL + queue));
		}
	}
	/* the rest: no event was lost or read twice */
	queue += db_read(self->fd, events, ARRAY_SIZE(events));
	EXPECT_EQ(100, queue);
	EXPECT_TRUE(db_is_empty(self->fd));
}

/* readv() and writev() accept pieces that cut events and rings. */
TEST_F(user, vectors)
{
	struct iovec iov[64];
	unsigned char *mem = (unsigned char *)rings;
	unsigned int i, at, step;

	ASSERT_EQ(0, db_attach(self->fd, -1, 0, 400));
	fill_rings(0, 40);
	for (i = 0, at = 0, step = 1; at < 640; at += iov[i++].iov_len) {
		step = step * 5 % 37;
		iov[i].iov_base = mem + at;
		iov[i].iov_len = step < 640 - at ? step : 640 - at;
	}
	ASSERT_EQ(640, writev(self->fd, iov, i));
	memset(events, 0, 640);
	for (i = 0, at = 0; at < 639; at += iov[i++].iov_len) {
		step = step * 5 % 37;
		iov[i].iov_base = (char *)events + at;
		iov[i].iov_len = step < 639 - at ? step : 639 - at;
	}
	ASSERT_EQ(39 * 16, readv(self->fd, iov, i));
	ASSERT_EQ(1, db_read(self->fd, &events[39], 1));
	for (i = 0; i < 40; i++)
		EXPECT_TRUE(db_event_is(&events[i], i, 1, 0x100000000ULL + i));
	EXPECT_TRUE(db_is_empty(self->fd));
}

/* A later fault makes a read() short; other events stay pending in order. */
TEST_F(user, read_fault_later)
{
	static const unsigned int inside[] = { 24, 16, 512, 520, 1000, 4096 };
	struct epoll_event edge = { .events = EPOLLIN | EPOLLET };
	int epfd = epoll_create1(EPOLL_CLOEXEC);
	unsigned int i, k, queue = 0;

	ASSERT_LE(0, epfd);
	ASSERT_EQ(0, epoll_ctl(epfd, EPOLL_CTL_ADD, self->fd, &edge));
	ASSERT_EQ(0, db_attach(self->fd, -1, 0, 4 * 1024));
	fill_rings(0, 1024);
	ASSERT_EQ(1024 * 16, write(self->fd, rings, 1024 * 16));
	for (i = 0; i < ARRAY_SIZE(inside); i++) {
		struct doorbell_event event;
		char *buf = db_edge(inside[i], PROT_READ | PROT_WRITE);
		ssize_t whole;

		/* the read() before was short, and left events */
		ASSERT_EQ(1, epoll_wait(epfd, &edge, 1, 0));
		whole = read(self->fd, buf, 16384);
		if (whole < 0) {
			ASSERT_EQ(EFAULT, errno);
			whole = 0;
		}
		ASSERT_EQ(0, whole % 16);
		ASSERT_GE(inside[i], whole);
		ASSERT_LT(inside[i], whole + DB_COPY_SHORT + 16);
		for (k = 0; k < whole; k += 16, queue++) {
			memcpy(&event, buf + k, 16);
			ASSERT_TRUE(db_event_is(&event, queue, 1,
						0x100000000ULL + queue));
		}
		EXPECT_EQ(POLLIN, db_poll(self->fd, POLLIN, 0));
	}
	/* a new ring comes after them */
	ASSERT_EQ(0, db_ring(self->fd, 5000, 1));
	ASSERT_EQ((int)(1024 - queue), db_read(self->fd, events, 1024 - queue));
	for (k = 0; queue < 1024; k++, queue++)
		ASSERT_TRUE(db_event_is(&events[k], queue, 1,
					0x100000000ULL + queue));
	ASSERT_EQ(1, db_read(self->fd, events, 2));
	EXPECT_TRUE(db_event_is_bad(events, 1, 5000));
	EXPECT_TRUE(db_is_empty(self->fd));
	close(epfd);
}

/* A failed read() leaves one event per queue, and later rings add to it. */
TEST_F(user, read_fault_then_ring)
{
	ASSERT_EQ(0, db_attach(self->fd, -1, 0, 8));
	ASSERT_EQ(0, db_ring(self->fd, 0, 1));
	ASSERT_EQ(0, db_ring(self->fd, 4, 2));
	EXPECT_EQ(-1, read(self->fd, db_edge(0, PROT_READ), 64));
	EXPECT_EQ(EFAULT, errno);
	ASSERT_EQ(0, db_ring(self->fd, 0, 3));
	ASSERT_EQ(2, db_read(self->fd, events, 9)) {
		TH_LOG("more than one event per queue");
	}
	EXPECT_TRUE(db_event_is(&events[0], 0, 2, 3));
	EXPECT_TRUE(db_event_is(&events[1], 1, 1, 2));
	EXPECT_TRUE(db_is_empty(self->fd));
}

/* A later fault makes a write() short: it rings as many as it returns. */
TEST_F(user, write_fault_later)
{
	struct doorbell_info info;
	unsigned int inside, total = 0;

	ASSERT_EQ(0, db_attach(self->fd, -1, 0, 4 * 512));
	fill_rings(0, 512);
	for (inside = 8; inside <= 4096 + 8; inside += inside < 640 ? 8 : 384) {
		char *buf = db_edge(inside, PROT_READ | PROT_WRITE);
		ssize_t ret;

		memcpy(buf, rings, inside);
		ret = write(self->fd, buf, 512 * 16);
		if (ret < 0) {
			EXPECT_EQ(EFAULT, errno);
			ret = 0;
		}
		/* with a whole page readable some rings must succeed */
		if (inside >= 4096)
			EXPECT_LT(0, ret);
		EXPECT_GE((ssize_t)inside, ret);
		EXPECT_EQ(0, ret % 16);
		total += ret / 16;
		ASSERT_EQ(0, db_info(self->fd, &info));
		ASSERT_EQ(total, info.rings);
		ASSERT_EQ(0, info.bad_rings);
		if (ret) {
			ASSERT_EQ(ret / 16, db_read(self->fd, events, 513));
			EXPECT_TRUE(db_event_is(&events[ret / 16 - 1],
						ret / 16 - 1, 1,
						0x100000000ULL + ret / 16 - 1));
		}
		EXPECT_TRUE(db_is_empty(self->fd));
	}
	EXPECT_LT(0, total);
}

/* DOORBELL_INFO fills an older structure and zeroes the end of a newer one. */
TEST_F(user, info_sizes)
{
	static const unsigned int sizes[] = {
		8, 9, 12, 40, 55, 56, 57, 64, 95, 96, 97, 200, 4095, 4096,
	};
	static unsigned char buf[8064];
	struct doorbell_info info;
	unsigned int i, k, known;

	ASSERT_EQ(0, db_attach(self->fd, -1, 0x1000, 0x1000));
	ASSERT_EQ(0, db_ring(self->fd, 0x1000, 1));
	ASSERT_EQ(0, db_info(self->fd, &info));
	/* all four that this header knows */
	EXPECT_EQ(0xf, info.features);
	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		memset(buf, 0xa5, sizeof(buf));
		memcpy(buf, &sizes[i], sizeof(sizes[i]));
		ASSERT_EQ(0, ioctl(self->fd, DOORBELL_INFO, buf));
		known = sizes[i] < sizeof(info) ? sizes[i] : sizeof(info);
		EXPECT_EQ(0, memcmp(buf, &info, known));
		for (k = known; k < sizes[i]; k++)
			ASSERT_EQ(0, buf[k]);
		for (; k < sizeof(buf); k++)
			ASSERT_EQ(0xa5, buf[k]);
	}
}

/* DOORBELL_ATTACH accepts a newer structure whose unknown end is zero. */
TEST_F(user, attach_sizes)
{
	static const unsigned int sizes[] = { 40, 41, 48, 100, 4095, 4096 };
	static char buf[5000];
	struct doorbell_attach arg = db_attach_arg(-1, 0x1000, 0x1000);
	unsigned int i;

	memset(buf, 0xff, sizeof(buf));
	for (i = 0; i < ARRAY_SIZE(sizes); i++) {
		arg.size = sizes[i];
		memset(buf, 0, sizes[i]);
		memcpy(buf, &arg, sizeof(arg));
		ASSERT_EQ(0, ioctl(self->fd, DOORBELL_ATTACH, buf));
		ASSERT_EQ(0, db_ring(self->fd, 0x1004, i));
		ASSERT_EQ(1, db_read(self->fd, events, 2));
		EXPECT_TRUE(db_event_is(events, 1, 1, i));
		ASSERT_EQ(0, db_detach(self->fd));
	}
}

/* The memory of a region is charged to the cgroup of the caller */

/* Bounded memory: the largest region costs at most 48 bytes per queue. */
TEST_F_TIMEOUT(cgroup, per_queue, 120)
{
	long idle, before = 0, attached = 0, rung = 0;
	unsigned int i;
	int fd, turn;

	memset(rings, 0, sizeof(rings));
	idle = cgroup_bytes(self->path);
	ASSERT_LT(0, idle);
	for (turn = 0; turn < CGROUP_TURNS; turn++) {
		fd = db_must_open(_metadata, O_NONBLOCK);
		cgroup_least(self->path, turn, &before);
		ASSERT_EQ(0, db_attach(fd, -1, 0, 4 * DOORBELL_QUEUES_MAX));
		cgroup_least(self->path, turn, &attached);
		/* rings of all queues and of bad addresses allocate nothing */
		for (i = 0; i <= DOORBELL_QUEUES_MAX; i++)
			rings[i].addr = 4 * i;
		ASSERT_EQ(sizeof(rings), write(fd, rings, sizeof(rings)));
		for (i = 0; i <= DOORBELL_QUEUES_MAX; i++)
			rings[i].addr = 4 * (DOORBELL_QUEUES_MAX + i);
		ASSERT_EQ(sizeof(rings), write(fd, rings, sizeof(rings)));
		ASSERT_EQ(sizeof(rings), write(fd, rings, sizeof(rings)));
		cgroup_least(self->path, turn, &rung);
		close(fd);
		ASSERT_TRUE(cgroup_rest(self->path, idle));
	}
	TH_LOG("%ld bytes, %.1f per queue", attached - before,
	       (double)(attached - before) / DOORBELL_QUEUES_MAX);
	EXPECT_GE(48L * DOORBELL_QUEUES_MAX + CGROUP_SLACK, attached - before);
	EXPECT_LE(24L * DOORBELL_QUEUES_MAX - CGROUP_SLACK, attached - before);
	EXPECT_GE(CGROUP_SLACK, rung - attached);
}

/* Attaching and detaching again and again leaks nothing. */
TEST_F_TIMEOUT(cgroup, attach_again, 120)
{
	long before = 0;
	int fd = db_must_open(_metadata, O_NONBLOCK), i;

	for (i = 0; i < 220; i++) {
		if (i == 20)
			before = cgroup_bytes(self->path);
		ASSERT_EQ(0, db_attach(fd, -1, 0, 4 * 1024));
		ASSERT_EQ(0, db_ring(fd, 0, 1));
		if (i % 2) {
			close(fd);
			fd = db_must_open(_metadata, O_NONBLOCK);
		} else {
			ASSERT_EQ(0, db_detach(fd));
		}
	}
	/* 200 regions of 36 KiB */
	EXPECT_TRUE(cgroup_below(self->path, before + (1L << 19)));
	close(fd);
}

/* ENOMEM if the memory cgroup is full; the OOM killer stays away. */
TEST_F_TIMEOUT(cgroup, no_room, 120)
{
	struct db_snapshot before, after;
	int fd = db_must_open(_metadata, O_NONBLOCK);
	struct doorbell_event event;
	char limit[32];
	pid_t pid;

	ASSERT_EQ(0, db_snapshot(fd, &before));
	/* only the child is in the limited cgroup */
	ASSERT_EQ(0, cgroup_put(CGROUP_ROOT, "cgroup.procs", "0"));
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		if (cgroup_put(self->path, "cgroup.procs", "0"))
			_exit(0);
		snprintf(limit, sizeof(limit), "%ld",
			 cgroup_bytes(self->path) + (1L << 20));
		if (cgroup_put(self->path, "memory.max", limit))
			_exit(0);
		_exit(-db_attach(fd, -1, 0, 4 * DOORBELL_QUEUES_MAX));
	}
	EXPECT_EQ(ENOMEM, db_wait_status(pid));
	ASSERT_EQ(0, cgroup_put(self->path, "memory.max", "max"));
	ASSERT_EQ(0, db_snapshot(fd, &after));
	EXPECT_TRUE(db_same(&before, &after));

	ASSERT_EQ(0, db_attach(fd, -1, 0, 4 * DOORBELL_QUEUES_MAX));
	ASSERT_EQ(0, db_ring(fd, 4, 1));
	ASSERT_EQ(1, db_read(fd, &event, 1));
	EXPECT_TRUE(db_event_is(&event, 1, 1, 1));
	close(fd);
}

TEST_HARNESS_MAIN
