// SPDX-License-Identifier: GPL-2.0
/*
 * Stream: rings go in by write(), events come out by read().
 *
 * No guest, and no test waits. The 32-bit build runs the same tests.
 */
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mman.h>

#include "util.h"

static struct doorbell_ring rings[DOORBELL_QUEUES_MAX + 1];
static struct doorbell_event events[2 * (DOORBELL_QUEUES_MAX + 1)];

FIXTURE(stream)
{
	int fd;
};

FIXTURE_SETUP(stream)
{
	self->fd = db_must_open(_metadata, O_NONBLOCK);
}

FIXTURE_TEARDOWN(stream)
{
	close(self->fd);
}

/* packet_stream of Fuchsia's bell.rs: a bad address is an event in order. */
TEST_F(stream, packet_stream)
{
	ASSERT_EQ(0, db_attach(self->fd, -1, 64, 12));
	EXPECT_TRUE(db_is_empty(self->fd));
	ASSERT_EQ(0, db_ring(self->fd, 64, 7));
	ASSERT_EQ(0, db_ring(self->fd, 68, 8));
	ASSERT_EQ(0, db_ring(self->fd, 100, 9));

	ASSERT_EQ(3, db_read(self->fd, events, ARRAY_SIZE(events)));
	EXPECT_TRUE(db_event_is(&events[0], 0, 1, 7));
	EXPECT_TRUE(db_event_is(&events[1], 1, 1, 8));
	EXPECT_TRUE(db_event_is_bad(&events[2], 1, 100));
	EXPECT_TRUE(db_is_empty(self->fd));
}

/* queue_conversion of Fuchsia's bell.rs, and the ends of the address space. */
TEST_F(stream, address_to_queue)
{
	static const struct {
		uint64_t addr;
		int queue;
	} vectors[] = {
		{ 80, 0 }, { 81, 0 }, { 83, 0 }, { 84, 1 }, { 88, 2 },
		{ 91, 2 }, { 76, -1 }, { 79, -1 }, { 92, -1 }, { 94, -1 },
		{ 128, -1 }, { 0, -1 }, { UINT64_MAX, -1 },
		{ 1ULL << 32 | 80, -1 }, { 1ULL << 63 | 84, -1 },
	};
	unsigned int i;

	ASSERT_EQ(0, db_attach(self->fd, -1, 80, 12));
	for (i = 0; i < ARRAY_SIZE(vectors); i++) {
		uint64_t addr = vectors[i].addr;

		ASSERT_EQ(0, db_ring(self->fd, addr, i));
		ASSERT_EQ(1, db_read(self->fd, events, 2));
		if (vectors[i].queue < 0) {
			EXPECT_TRUE(db_event_is_bad(events, 1, addr));
		} else {
			EXPECT_TRUE(db_event_is(events, vectors[i].queue, 1,
						i));
		}
		EXPECT_EQ(0, events[0].width);
	}
	EXPECT_TRUE(db_is_empty(self->fd));
}

/* With every stride, a queue ends where the next one begins. */
TEST_F(stream, strides)
{
	uint32_t stride;

	for (stride = 2; stride <= DOORBELL_STRIDE_MAX; stride *= 2) {
		ASSERT_EQ(0, db_attach_as(self->fd, -1, 16 * stride, 3 * stride,
					  stride, 0));
		ASSERT_EQ(0, db_ring(self->fd, 17 * stride - 1, 1));
		ASSERT_EQ(0, db_ring(self->fd, 17 * stride, 2));
		ASSERT_EQ(0, db_ring(self->fd, 19 * stride - 1, 3));
		ASSERT_EQ(0, db_ring(self->fd, 19 * stride, 4));
		ASSERT_EQ(4, db_read(self->fd, events, 5));
		EXPECT_TRUE(db_event_is(&events[0], 0, 1, 1));
		EXPECT_TRUE(db_event_is(&events[1], 1, 1, 2));
		EXPECT_TRUE(db_event_is(&events[2], 2, 1, 3));
		EXPECT_TRUE(db_event_is_bad(&events[3], 1, 19 * stride));
		ASSERT_EQ(0, db_detach(self->fd));
	}
}

/* One event per queue, in order of first ring, with count and last value. */
TEST_F(stream, coalescing)
{
	static const struct doorbell_ring burst[] = {
		{ .addr = 8, .value = 1 },
		{ .addr = 0, .value = 2 },
		{ .addr = 8, .value = UINT64_MAX },
		{ .addr = 400, .value = 3 },
		{ .addr = 4, .value = 4 },
		{ .addr = 8, .value = 0x8000000000000005ULL },
		{ .addr = 404, .value = 6 },
		{ .addr = 0, .value = 0 },
	};

	ASSERT_EQ(0, db_attach(self->fd, -1, 0, 16));
	ASSERT_EQ(sizeof(burst), write(self->fd, burst, sizeof(burst)));
	ASSERT_EQ(4, db_read(self->fd, events, ARRAY_SIZE(events)));
	EXPECT_TRUE(db_event_is(&events[0], 2, 3, 0x8000000000000005ULL));
	EXPECT_TRUE(db_event_is(&events[1], 0, 2, 0));
	EXPECT_TRUE(db_event_is_bad(&events[2], 2, 404));
	EXPECT_TRUE(db_event_is(&events[3], 1, 1, 4));
	EXPECT_TRUE(db_is_empty(self->fd));

	/* the next ring after an event enqueues its queue behind the others */
	ASSERT_EQ(0, db_ring(self->fd, 0, 7));
	ASSERT_EQ(0, db_ring(self->fd, 8, 8));
	ASSERT_EQ(1, db_read(self->fd, events, 1));
	EXPECT_TRUE(db_event_is(&events[0], 0, 1, 7));
	ASSERT_EQ(0, db_ring(self->fd, 0, 9));
	ASSERT_EQ(2, db_read(self->fd, events, 3));
	EXPECT_TRUE(db_event_is(&events[0], 2, 1, 8));
	EXPECT_TRUE(db_event_is(&events[1], 0, 1, 9));
	EXPECT_TRUE(db_is_empty(self->fd));
}

/* One read() returns 65,536 events: all 65,535 queues and a bad address. */
TEST_F_TIMEOUT(stream, all_queues, 120)
{
	const uint64_t base = 0xfffffffffffffffcULL - 4 * DOORBELL_QUEUES_MAX;
	unsigned int i, wrong = 0;

	ASSERT_EQ(0, db_attach(self->fd, -1, base, 4 * DOORBELL_QUEUES_MAX));
	/* 7919 and 65,536 are coprime: each number comes once */
	for (i = 0; i <= DOORBELL_QUEUES_MAX; i++) {
		rings[i].addr = base + 4 * (i * 7919 % 65536);
		rings[i].value = i;
	}
	ASSERT_EQ(sizeof(rings), write(self->fd, rings, sizeof(rings)));
	ASSERT_EQ(DOORBELL_QUEUES_MAX + 1,
		  db_read(self->fd, events, ARRAY_SIZE(events)));
	for (i = 0; i <= DOORBELL_QUEUES_MAX; i++) {
		unsigned int queue = i * 7919 % 65536;

		if (queue == DOORBELL_QUEUES_MAX ?
		    !db_event_is_bad(&events[i], 1, base + 4 * queue) :
		    !db_event_is(&events[i], queue, 1, i))
			wrong++;
	}
	EXPECT_EQ(0, wrong);
	EXPECT_TRUE(db_is_empty(self->fd));

	/* again, two rings each, read in parts of 1000 events */
	ASSERT_EQ(sizeof(rings), write(self->fd, rings, sizeof(rings)));
	ASSERT_EQ(sizeof(rings), write(self->fd, rings, sizeof(rings)));
	for (i = 0; i <= DOORBELL_QUEUES_MAX;) {
		int got = db_read(self->fd, events, 1000);

		ASSERT_LT(0, got);
		for (int k = 0; k < got; k++, i++)
			if (events[k].count != 2 || events[k].value !=
			    (events[k].type ? rings[i].addr : i))
				wrong++;
	}
	EXPECT_EQ(0, wrong);
	EXPECT_TRUE(db_is_empty(self->fd));
}

/* Any number of pending events can be read, for several laps of the FIFO. */
TEST_F(stream, every_fill_level)
{
	unsigned int queues, i, k, turn;

	for (queues = 1; queues <= 9; queues++) {
		ASSERT_EQ(0, db_attach(self->fd, -1, 0, 4 * queues));
		for (turn = 0; turn < 40; turn++) {
			k = turn % (queues + 1);
			for (i = 0; i < k; i++)
				ASSERT_EQ(0, db_ring(self->fd, 4 * i, turn));
			if (!k) {
				EXPECT_TRUE(db_is_empty(self->fd));
				continue;
			}
			ASSERT_EQ((int)k, db_read(self->fd, events, k + 1));
			for (i = 0; i < k; i++)
				EXPECT_TRUE(db_event_is(&events[i], i, 1,
							turn));
		}
		ASSERT_EQ(0, db_detach(self->fd));
	}
}

/* Bounded memory: all bad addresses together have one event. */
TEST_F_TIMEOUT(stream, bad_address_flood, 120)
{
	const unsigned int floods = 4, count = ARRAY_SIZE(rings);
	struct doorbell_info info;
	unsigned int i;

	ASSERT_EQ(0, db_attach(self->fd, -1, 0, 4));
	for (i = 0; i < count; i++)
		rings[i].addr = 4 + i * 0x100000001ULL;
	ASSERT_EQ(0, db_ring(self->fd, 0, 1));
	for (i = 0; i < floods; i++)
		ASSERT_EQ(sizeof(rings), write(self->fd, rings, sizeof(rings)));
	ASSERT_EQ(0, db_ring(self->fd, 0, 2));
	ASSERT_EQ(0, db_info(self->fd, &info));
	EXPECT_EQ(2, info.rings);
	EXPECT_EQ(floods * count, info.bad_rings);
	EXPECT_EQ(floods * count + 2, info.pending);

	ASSERT_EQ(2, db_read(self->fd, events, ARRAY_SIZE(events)));
	EXPECT_TRUE(db_event_is(&events[0], 0, 2, 2));
	EXPECT_TRUE(db_event_is_bad(&events[1], floods * count,
				    rings[count - 1].addr));
	EXPECT_TRUE(db_is_empty(self->fd));
}

/* Each open() creates a consumer of its own. */
TEST_F(stream, two_consumers)
{
	int other = db_must_open(_metadata, O_NONBLOCK);
	struct doorbell_info info;

	ASSERT_EQ(0, db_attach(self->fd, -1, 0, 8));
	ASSERT_EQ(0, db_info(other, &info));
	EXPECT_EQ(DOORBELL_DETACHED, info.state);
	/* a region without a VM is on no bus and intersects no other region */
	ASSERT_EQ(0, db_attach(other, -1, 0, 8));

	ASSERT_EQ(0, db_ring(self->fd, 0, 1));
	ASSERT_EQ(0, db_ring(other, 4, 2));
	ASSERT_EQ(1, db_read(self->fd, events, 2));
	EXPECT_TRUE(db_event_is(events, 0, 1, 1));
	ASSERT_EQ(1, db_read(other, events, 2));
	EXPECT_TRUE(db_event_is(events, 1, 1, 2));

	ASSERT_EQ(0, db_ring(self->fd, 4, 3));
	ASSERT_EQ(0, db_detach(other));
	close(other);
	ASSERT_EQ(1, db_read(self->fd, events, 2));
	EXPECT_TRUE(db_event_is(events, 1, 1, 3));
}

/* Without a region poll() reports nothing and read() finds nothing. */
TEST_F(stream, nothing_attached)
{
	const short all = POLLIN | POLLPRI | POLLOUT | POLLRDHUP | POLLRDNORM |
			  POLLRDBAND | POLLWRNORM | POLLWRBAND | POLLMSG;

	EXPECT_EQ(0, db_poll(self->fd, all, 0));
	EXPECT_TRUE(db_is_empty(self->fd));
	ASSERT_EQ(0, db_attach(self->fd, -1, 0, 8));
	EXPECT_EQ(POLLOUT | POLLWRNORM, db_poll(self->fd, all, 0));
	ASSERT_EQ(0, db_ring(self->fd, 0, 1));
	EXPECT_EQ(POLLIN | POLLRDNORM | POLLOUT | POLLWRNORM,
		  db_poll(self->fd, all, 0));
	ASSERT_EQ(0, db_detach(self->fd));
	EXPECT_EQ(POLLIN | POLLRDNORM, db_poll(self->fd, all, 0));
	ASSERT_EQ(1, db_read(self->fd, events, 2));
	EXPECT_EQ(0, db_poll(self->fd, all, 0));
	EXPECT_TRUE(db_is_empty(self->fd));
}

/* Detach keeps the pending events; the next attach drops them if asked. */
TEST_F(stream, detach_and_attach_again)
{
	ASSERT_EQ(0, db_attach(self->fd, -1, 0, 8));
	ASSERT_EQ(0, db_ring(self->fd, 4, 1));
	ASSERT_EQ(0, db_ring(self->fd, 0, 2));
	ASSERT_EQ(0, db_ring(self->fd, 99, 3));
	ASSERT_EQ(0, db_detach(self->fd));
	EXPECT_EQ(-ENOTCONN, db_ring(self->fd, 0, 4));
	ASSERT_EQ(1, db_read(self->fd, events, 1));
	EXPECT_TRUE(db_event_is(events, 1, 1, 1));

	ASSERT_EQ(0, db_attach(self->fd, -1, 16, 16));
	EXPECT_TRUE(db_is_empty(self->fd));
	EXPECT_EQ(0, db_poll(self->fd, POLLIN, 0));
	ASSERT_EQ(0, db_ring(self->fd, 28, 5));
	ASSERT_EQ(0, db_ring(self->fd, 0, 6));
	ASSERT_EQ(2, db_read(self->fd, events, 3));
	EXPECT_TRUE(db_event_is(&events[0], 3, 1, 5));
	EXPECT_TRUE(db_event_is_bad(&events[1], 1, 0));
	EXPECT_TRUE(db_is_empty(self->fd));

	/* attach also drops events that a read() could not copy */
	ASSERT_EQ(0, db_ring(self->fd, 28, 7));
	EXPECT_EQ(-1, read(self->fd, db_edge(0, PROT_READ), 16));
	EXPECT_EQ(EFAULT, errno);
	ASSERT_EQ(0, db_detach(self->fd));
	ASSERT_EQ(0, db_attach(self->fd, -1, 16, 16));
	EXPECT_TRUE(db_is_empty(self->fd));
	EXPECT_EQ(0, db_poll(self->fd, POLLIN, 0));
}

struct mode {
	uint32_t flags;
	uint32_t depth;
};

static int attach_mode(int fd, struct mode mode, uint32_t drop)
{
	struct doorbell_attach arg = db_attach_arg(-1, 0, 12);

	arg.flags = mode.flags | drop;
	arg.depth = mode.depth;
	return db_result(ioctl(fd, DOORBELL_ATTACH, &arg));
}

/*
 * An attach that would drop events changes nothing, until the last one is read.
 * DOORBELL_ATTACH_DROP drops them.
 */
static void pending_events(struct __test_metadata *_metadata, int fd,
			   struct mode from, struct mode to)
{
	struct db_snapshot before, after;
	unsigned int left, i;

	for (left = 4; left; left--) {
		ASSERT_EQ(0, attach_mode(fd, from, DOORBELL_ATTACH_DROP));
		ASSERT_EQ(0, db_ring(fd, 0, 1));
		ASSERT_EQ(0, db_ring(fd, 4, 2));
		ASSERT_EQ(0, db_ring(fd, 8, 3));
		ASSERT_EQ(0, db_ring(fd, 99, 4));
		ASSERT_EQ(-EBUSY, attach_mode(fd, to, 0));
		ASSERT_EQ(0, db_detach(fd));
		for (i = 4; i > left; i--)
			ASSERT_EQ(1, db_read(fd, events, 1));
		ASSERT_EQ(0, db_snapshot(fd, &before));
		ASSERT_EQ(left, before.info.pending);
		ASSERT_EQ(-ENOTEMPTY, attach_mode(fd, to, 0));
		ASSERT_EQ(0, db_snapshot(fd, &after));
		ASSERT_TRUE(db_same(&before, &after));

		/* the refusal has lost none of them */
		if (left % 2) {
			ASSERT_EQ(left, db_read(fd, events, 9));
			ASSERT_TRUE(db_event_is_bad(&events[left - 1], 1, 99));
			ASSERT_EQ(0, attach_mode(fd, to, 0));
		} else {
			ASSERT_EQ(0, attach_mode(fd, to,
						 DOORBELL_ATTACH_DROP));
		}
		ASSERT_TRUE(db_is_empty(fd));
		ASSERT_EQ(0, db_info(fd, &after.info));
		ASSERT_EQ(to.flags, after.info.flags);
		ASSERT_EQ(before.info.generation + 1, after.info.generation);
		/* none of the region: nothing keeps the next one away */
		ASSERT_EQ(0, db_detach(fd));
		ASSERT_EQ(0, attach_mode(fd, from, 0));
		ASSERT_EQ(0, db_detach(fd));
	}
}

TEST_F(stream, attach_with_events_pending)
{
	const struct mode modes[] = {
		{}, { .flags = DOORBELL_ATTACH_ORDERED, .depth = 4 },
	};
	unsigned int i;

	for (i = 0; i < 4; i++)
		pending_events(_metadata, self->fd, modes[i / 2], modes[i % 2]);
}

/* Rings of bound queues make no events, so they keep no region away. */
TEST_F(stream, attach_with_bound_rings)
{
	int evfd = eventfd(0, EFD_CLOEXEC);
	struct doorbell_bind arg = {
		.size = sizeof(arg), .count = 1, .fds = (uintptr_t)&evfd,
	};

	ASSERT_LE(0, evfd);
	ASSERT_EQ(0, attach_mode(self->fd, (struct mode) {}, 0));
	ASSERT_EQ(0, ioctl(self->fd, DOORBELL_BIND, &arg));
	ASSERT_EQ(0, db_ring(self->fd, 0, 1));
	ASSERT_EQ(0, db_detach(self->fd));
	ASSERT_EQ(0, attach_mode(self->fd, (struct mode) {}, 0));
	close(evfd);
}

/* DOORBELL_RECOVER repeats what the last read() returned, until the next. */
TEST_F(stream, recover)
{
	ASSERT_EQ(-1, ioctl(self->fd, DOORBELL_RECOVER, 0));
	ASSERT_EQ(ENOTCONN, errno);
	ASSERT_EQ(-1, ioctl(self->fd, DOORBELL_RECOVER, 1));
	ASSERT_EQ(EINVAL, errno);
	ASSERT_EQ(0, db_attach(self->fd, -1, 0, 12));
	ASSERT_EQ(0, ioctl(self->fd, DOORBELL_RECOVER, 0));
	ASSERT_TRUE(db_is_empty(self->fd));

	ASSERT_EQ(0, db_ring(self->fd, 0, 1));
	ASSERT_EQ(0, db_ring(self->fd, 4, 2));
	ASSERT_EQ(0, db_ring(self->fd, 8, 3));
	ASSERT_EQ(1, db_read(self->fd, events, 1));
	ASSERT_EQ(1, db_read(self->fd, events, 1));
	EXPECT_TRUE(db_event_is(events, 1, 1, 2));
	ASSERT_EQ(0, ioctl(self->fd, DOORBELL_RECOVER, 0));
	ASSERT_EQ(POLLIN, db_poll(self->fd, POLLIN, 0));
	ASSERT_EQ(2, db_read(self->fd, events, 9));
	EXPECT_TRUE(db_event_is(&events[0], 2, 1, 3));
	EXPECT_TRUE(db_event_is(&events[1], 1, 1, 2));

	/* pending again: keeps another region away, also after the detach */
	ASSERT_EQ(0, db_detach(self->fd));
	ASSERT_EQ(0, ioctl(self->fd, DOORBELL_RECOVER, 0));
	ASSERT_EQ(-ENOTEMPTY, attach_mode(self->fd, (struct mode) {}, 0));
	ASSERT_EQ(2, db_read(self->fd, events, 9));
	ASSERT_TRUE(db_is_empty(self->fd));
	ASSERT_EQ(0, ioctl(self->fd, DOORBELL_RECOVER, 0));
	ASSERT_TRUE(db_is_empty(self->fd));
	ASSERT_EQ(0, attach_mode(self->fd, (struct mode) {}, 0));
}

/* DOORBELL_RECOVER leaves what is pending alone, also if it fails. */
TEST_F(stream, recover_leaves_pending_alone)
{
	struct doorbell_info before, after;
	unsigned int i;

	ASSERT_EQ(0, db_attach(self->fd, -1, 0, 12));
	for (i = 0; i < 2; i++) {
		ASSERT_EQ(0, db_ring(self->fd, 0, 1));
		ASSERT_EQ(0, db_ring(self->fd, 0, 2));
		ASSERT_EQ(0, db_ring(self->fd, 8, 3));
		if (i)
			ASSERT_EQ(0, db_detach(self->fd));
		ASSERT_EQ(0, db_info(self->fd, &before));
		ASSERT_EQ(3, before.pending);
		ASSERT_EQ(-1, ioctl(self->fd, DOORBELL_RECOVER, 4));
		ASSERT_EQ(EINVAL, errno);
		/* nothing to repeat: a later read() found no event */
		ASSERT_EQ(0, ioctl(self->fd, DOORBELL_RECOVER, 0));
		ASSERT_EQ(0, db_info(self->fd, &after));
		ASSERT_EQ(0, memcmp(&before, &after, sizeof(before)));
		ASSERT_EQ(2, db_read(self->fd, events, 9));
		EXPECT_TRUE(db_event_is(&events[0], 0, 2, 2));
		EXPECT_TRUE(db_event_is(&events[1], 2, 1, 3));
		ASSERT_TRUE(db_is_empty(self->fd));
	}
}

/* Ordered: they come before those that wait, and are as they were. */
TEST_F(stream, recover_ordered)
{
	const struct mode ordered = { DOORBELL_ATTACH_ORDERED, 4 };
	struct doorbell_info info;
	int i;

	ASSERT_EQ(0, attach_mode(self->fd, ordered, 0));
	for (i = 0; i < 3; i++)
		ASSERT_EQ(0, db_ring(self->fd, 4 * i, 1 + i));
	ASSERT_EQ(1, db_read(self->fd, events, 1));
	ASSERT_EQ(1, db_read(self->fd, events, 1));
	ASSERT_EQ(0, db_ring(self->fd, 64, 0));
	ASSERT_EQ(0, ioctl(self->fd, DOORBELL_RECOVER, 0));
	ASSERT_EQ(0, db_info(self->fd, &info));
	EXPECT_EQ(3, info.pending);
	ASSERT_EQ(POLLIN, db_poll(self->fd, POLLIN, 0));
	ASSERT_EQ(3, db_read(self->fd, events, 9));
	EXPECT_TRUE(db_event_is(&events[0], 1, 1, 2));
	EXPECT_TRUE(db_event_is(&events[1], 2, 1, 3));
	EXPECT_TRUE(db_event_is_bad(&events[2], 1, 64));
	ASSERT_TRUE(db_is_empty(self->fd));
	/* a read() that found nothing says that they are handled */
	ASSERT_EQ(0, ioctl(self->fd, DOORBELL_RECOVER, 0));
	ASSERT_TRUE(db_is_empty(self->fd));
}

/*
 * A read() that ends although there is room and there are events: an edge.
 * Ordered: more events than can come again. Coalescing: more than 65,536.
 */
TEST_F(stream, edge_after_short_read)
{
	const struct mode ordered = { DOORBELL_ATTACH_ORDERED, 4 };
	const int queues = 32768, each = 3;
	struct epoll_event event = { .events = EPOLLIN | EPOLLET };
	struct doorbell_attach arg = db_attach_arg(-1, 0, 4 * queues);
	int epfd = epoll_create1(EPOLL_CLOEXEC), turn, i, want, total;
	struct doorbell_control *control;
	struct doorbell_info info;

	ASSERT_LE(0, epfd);
	ASSERT_EQ(0, epoll_ctl(epfd, EPOLL_CTL_ADD, self->fd, &event));
	ASSERT_EQ(0, attach_mode(self->fd, ordered, 0));
	ASSERT_EQ(0, db_info(self->fd, &info));
	ASSERT_EQ(8, info.nr_entries);
	for (i = 0; i < 8; i++) {
		ASSERT_EQ(0, db_ring(self->fd, 0, i));
		if (i == 3)
			ASSERT_EQ(4, db_read(self->fd, events, 9));
	}
	ASSERT_EQ(1, epoll_wait(epfd, &event, 1, 0));
	ASSERT_EQ(0, epoll_wait(epfd, &event, 1, 0));
	ASSERT_EQ(0, ioctl(self->fd, DOORBELL_RECOVER, 0));
	ASSERT_EQ(POLLIN, db_poll(self->fd, POLLIN | POLLOUT, 0));
	for (turn = 0; turn < 2; turn++) {
		ASSERT_EQ(1, epoll_wait(epfd, &event, 1, 0));
		ASSERT_EQ(4, db_read(self->fd, events, 9));
		EXPECT_EQ(4 * turn, events[0].value);
	}
	ASSERT_EQ(0, epoll_wait(epfd, &event, 1, 0));
	ASSERT_TRUE(db_is_empty(self->fd));
	ASSERT_EQ(0, db_detach(self->fd));

	/* rings that fill three events of each queue */
	ASSERT_EQ(0, ioctl(self->fd, DOORBELL_ATTACH, &arg));
	ASSERT_EQ(0, db_info(self->fd, &info));
	control = mmap(NULL, info.control_size, PROT_READ | PROT_WRITE,
		       MAP_SHARED, self->fd, 0);
	ASSERT_TRUE(control != MAP_FAILED);
	for (i = 0; i < queues; i++) {
		ASSERT_EQ(0, db_ring(self->fd, 4 * i, 0));
		control->seen[i] = -((__u64)each * UINT32_MAX - 1) <<
				   DOORBELL_RINGS_SHIFT;
	}
	for (total = each * queues; total; total -= want) {
		want = total < 65536 ? total : 65536;
		ASSERT_EQ(1, epoll_wait(epfd, &event, 1, 0));
		/* no edge for the rest of a queue's rings */
		control->armed = 0;
		ASSERT_EQ(want, db_read(self->fd, events, ARRAY_SIZE(events)));
	}
	ASSERT_TRUE(db_is_empty(self->fd));
	ASSERT_EQ(0, munmap(control, info.control_size));
	close(epfd);
}

/* DOORBELL_MOVE: the new address rings, and the old one is a bad address. */
TEST_F(stream, move)
{
	struct doorbell_info info;

	ASSERT_EQ(0, db_attach(self->fd, -1, 0x100, 12));
	ASSERT_EQ(0, db_ring(self->fd, 0x104, 1));
	ASSERT_EQ(0, db_move(self->fd, -1, 0x123456789abc0000));
	ASSERT_EQ(0, db_info(self->fd, &info));
	EXPECT_EQ(0x123456789abc0000, info.base);
	ASSERT_EQ(0, db_ring(self->fd, 0x123456789abc0008, 2));
	ASSERT_EQ(0, db_ring(self->fd, 0x104, 3));
	ASSERT_EQ(3, db_read(self->fd, events, 9));
	EXPECT_TRUE(db_event_is(&events[0], 1, 1, 1));
	EXPECT_TRUE(db_event_is(&events[1], 2, 1, 2));
	EXPECT_TRUE(db_event_is_bad(&events[2], 1, 0x104));
}

/* DOORBELL_BINDINGS: which queues are bound, and their rings */
TEST_F(stream, bindings)
{
	struct doorbell_queue_binding bindings[3];
	int fds[3] = { -1, eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK), -1 };
	unsigned int i;
	uint64_t count;

	ASSERT_LE(0, fds[1]);
	ASSERT_EQ(0, db_attach(self->fd, -1, 0, 12));
	ASSERT_EQ(0, db_bind(self->fd, 0, 3, fds));
	for (i = 0; i < 5; i++)
		ASSERT_EQ(0, db_ring(self->fd, 4, i));
	ASSERT_EQ(0, db_ring(self->fd, 8, 5));
	ASSERT_EQ(8, read(fds[1], &count, sizeof(count)));
	EXPECT_EQ(5, count);
	memset(bindings, 0xff, sizeof(bindings));
	ASSERT_EQ(0, db_bindings(self->fd, 0, 3, bindings));
	for (i = 0; i < 3; i++) {
		EXPECT_EQ(i == 1, bindings[i].bound);
		EXPECT_EQ(i == 1 ? 5 : 0, bindings[i].rings);
		EXPECT_EQ(0, bindings[i].reserved);
	}
	ASSERT_EQ(1, db_read(self->fd, events, 9));
	EXPECT_TRUE(db_event_is(&events[0], 2, 1, 5));
	close(fds[1]);
}

/* The value of one line of /proc/PID/fdinfo/FD, or "" */
static const char *fdinfo(const char *text, const char *key)
{
	static char value[64];
	const char *line = strstr(text, key);

	value[0] = '\0';
	if (line)
		sscanf(line + strlen(key), ":\t%63[^\n]", value);
	return value;
}

/* DOORBELL_INFO and fdinfo agree through the life of a region. */
TEST_F(stream, info)
{
	struct doorbell_info info, zero = {
		.size = sizeof(zero),
		.features = DOORBELL_FEATURES,
	};
	struct db_snapshot snap;
	char text[32];

	ASSERT_EQ(0, db_snapshot(self->fd, &snap));
	EXPECT_EQ(0, memcmp(&zero, &snap.info, sizeof(zero)));
	EXPECT_STREQ("detached", fdinfo(snap.fdinfo, "doorbell-state"));
	EXPECT_STRNE("", fdinfo(snap.fdinfo, "doorbell-id"));
	EXPECT_STREQ("", fdinfo(snap.fdinfo, "doorbell-bus"));

	ASSERT_EQ(0, db_attach_as(self->fd, -1, 0x100, 0x30, 0,
				  DOORBELL_ATTACH_PIO));
	ASSERT_EQ(0, db_ring(self->fd, 0x100, 1));
	ASSERT_EQ(0, db_ring(self->fd, 0x100, 2));
	ASSERT_EQ(0, db_ring(self->fd, 0x12c, 3));
	ASSERT_EQ(0, db_ring(self->fd, 0x130, 4));
	ASSERT_EQ(0, db_snapshot(self->fd, &snap));
	info = snap.info;
	EXPECT_EQ(sizeof(info), info.size);
	EXPECT_EQ(DOORBELL_FEATURES, info.features);
	EXPECT_EQ(1, info.generation);
	EXPECT_EQ(DOORBELL_ATTACHED, info.state);
	EXPECT_EQ(0x100, info.base);
	EXPECT_EQ(0x30, info.len);
	EXPECT_EQ(4, info.stride);
	EXPECT_EQ(DOORBELL_ATTACH_PIO, info.flags);
	EXPECT_EQ(0, info.depth);
	EXPECT_EQ(12, info.queues);
	EXPECT_EQ(3, info.rings);
	EXPECT_EQ(1, info.bad_rings);
	EXPECT_EQ(4, info.pending);
	/* nothing waited since the first ring */
	EXPECT_GE(1, info.wakeups);

	EXPECT_STREQ("attached", fdinfo(snap.fdinfo, "doorbell-state"));
	EXPECT_STREQ("pio", fdinfo(snap.fdinfo, "doorbell-bus"));
	EXPECT_STREQ("0x100", fdinfo(snap.fdinfo, "doorbell-base"));
	EXPECT_STREQ("0x30", fdinfo(snap.fdinfo, "doorbell-len"));
	EXPECT_STREQ("4", fdinfo(snap.fdinfo, "doorbell-stride"));
	EXPECT_STREQ("12", fdinfo(snap.fdinfo, "doorbell-queues"));
	EXPECT_STREQ("3", fdinfo(snap.fdinfo, "doorbell-rings"));
	EXPECT_STREQ("1", fdinfo(snap.fdinfo, "doorbell-bad-rings"));
	EXPECT_STREQ("4", fdinfo(snap.fdinfo, "doorbell-pending"));
	snprintf(text, sizeof(text), "%llu", (unsigned long long)info.wakeups);
	EXPECT_STREQ(text, fdinfo(snap.fdinfo, "doorbell-wakeups"));

	ASSERT_EQ(1, db_read(self->fd, events, 1));
	ASSERT_EQ(0, db_info(self->fd, &info));
	EXPECT_EQ(3, info.rings);
	EXPECT_EQ(2, info.pending);

	/* all fields but the state still describe the last region */
	ASSERT_EQ(0, db_detach(self->fd));
	info.state = DOORBELL_DETACHED;
	ASSERT_EQ(0, db_snapshot(self->fd, &snap));
	EXPECT_EQ(0, memcmp(&info, &snap.info, sizeof(info)));
	EXPECT_STREQ("detached", fdinfo(snap.fdinfo, "doorbell-state"));
	EXPECT_STREQ("2", fdinfo(snap.fdinfo, "doorbell-pending"));

	ASSERT_EQ(0, db_attach_as(self->fd, -1, 0x10000, 0x30000, 0x10000, 0));
	ASSERT_EQ(0, db_info(self->fd, &info));
	EXPECT_EQ(2, info.generation);
	EXPECT_EQ(0x10000, info.stride);
	EXPECT_EQ(3, info.queues);
	EXPECT_EQ(0, info.flags);
	EXPECT_EQ(0, info.rings + info.bad_rings + info.pending);
}

/* Attach accepts regions at the limits of the rules. */
TEST_F(stream, geometry_accepted)
{
	static const struct {
		uint64_t base, len;
		uint32_t stride, flags, queues;
	} good[] = {
		{ 0, 4, 0, 0, 1 },
		{ 0, 4, 4, 0, 1 },
		{ 0, 2, 2, 0, 1 },
		{ 2, 6, 2, 0, 3 },
		{ 0, 65536, 65536, 0, 1 },
		{ 0, 65535ULL * 4, 4, 0, 65535 },
		{ 0, 65535ULL * 65536, 65536, 0, 65535 },
		{ UINT64_MAX - 7, 4, 4, 0, 1 },
		{ 1ULL << 63, 8, 4, 0, 2 },
		{ 0, 65536, 4, DOORBELL_ATTACH_PIO, 16384 },
		{ 0, 65536, 65536, DOORBELL_ATTACH_PIO, 1 },
		{ 65534, 2, 2, DOORBELL_ATTACH_PIO, 1 },
	};
	struct doorbell_info info;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(good); i++) {
		ASSERT_EQ(0, db_attach_as(self->fd, -1, good[i].base,
					  good[i].len, good[i].stride,
					  good[i].flags)) {
			TH_LOG("vector %u", i);
		}
		ASSERT_EQ(0, db_info(self->fd, &info));
		EXPECT_EQ(good[i].queues, info.queues);
		ASSERT_EQ(0, db_ring(self->fd,
				     good[i].base + good[i].len - 1, 1));
		ASSERT_EQ(1, db_read(self->fd, events, 2));
		EXPECT_TRUE(db_event_is(events, good[i].queues - 1, 1, 1));
		ASSERT_EQ(0, db_detach(self->fd));
	}
}

/* The example of Documentation/testing.rst */
TEST(one_ring)
{
	int fd = db_must_open(_metadata, O_NONBLOCK);
	struct doorbell_event event;

	ASSERT_EQ(0, db_attach(fd, -1, 80, 12));
	ASSERT_EQ(0, db_ring(fd, 84, 42));
	ASSERT_EQ(1, db_read(fd, &event, 1));
	EXPECT_TRUE(db_event_is(&event, 1, 1, 42));
	EXPECT_EQ(0, close(fd));
}

TEST_HARNESS_MAIN
