// SPDX-License-Identifier: GPL-2.0
/*
 * Chardev: the user interface without a guest and without waiting.
 *
 * Every region here is one that only write() rings. What write() puts in,
 * read() has to bring out; every errno of <linux/doorbell.h> is provoked, and
 * after each of them nothing may have changed. The 32-bit build of this file
 * proves that 32-bit callers get the same.
 */
#include <limits.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <sys/uio.h>

#include "util.h"

/* One ABI for 32-bit and 64-bit callers. */
_Static_assert(sizeof(struct doorbell_event) == 16, "event");
_Static_assert(offsetof(struct doorbell_event, count) == 4, "event.count");
_Static_assert(offsetof(struct doorbell_event, value) == 8, "event.value");
_Static_assert(sizeof(struct doorbell_ring) == 16, "ring");
_Static_assert(sizeof(struct doorbell_attach) == 40, "attach");
_Static_assert(offsetof(struct doorbell_attach, base) == 8, "attach.base");
_Static_assert(sizeof(struct doorbell_info) == 96, "info");
_Static_assert(offsetof(struct doorbell_info, nr_entries) == 52,
	       "info.nr_entries");
_Static_assert(offsetof(struct doorbell_info, rings) == 56, "info.rings");
_Static_assert(DOORBELL_ATTACH == 0xd800 && DOORBELL_DETACH == 0xd801 &&
	       DOORBELL_INFO == 0xd802, "ioctl numbers");

static struct doorbell_ring rings[DOORBELL_QUEUES_MAX + 1];
static struct doorbell_event events[2 * (DOORBELL_QUEUES_MAX + 1)];

/* Rings that reach @queues queues of 4 bytes at @base once, in order. */
static void fill_rings(uint64_t base, unsigned int queues)
{
	unsigned int i;

	for (i = 0; i < queues; i++)
		rings[i] = (struct doorbell_ring) {
			.addr = base + 4 * i,
			.value = 0x100000000ULL + i,
		};
}

FIXTURE(stream)
{
	int fd;
};

FIXTURE_SETUP(stream)
{
	self->fd = db_open(O_NONBLOCK);
	ASSERT_LE(0, self->fd) {
		TH_LOG("%s: %s", DB_PATH, strerror(errno));
	}
}

FIXTURE_TEARDOWN(stream)
{
	close(self->fd);
}

/* packet_stream of Fuchsia's bell.rs: bad addresses come in band, in order */
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

/* queue_conversion of Fuchsia's bell.rs, and the ends of the address space */
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

/* every stride there is, 0 for the default; the last byte of the last queue */
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

/* one event per queue, in the order of first ring, with count and last value */
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

	/* what was read starts anew, at the end of the line */
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

/* 65,535 queues and bad addresses: all at once, in a read() of 65,536 events */
TEST_F_TIMEOUT(stream, all_queues, 120)
{
	const uint64_t base = 0xfffffffffffffffcULL - 4 * DOORBELL_QUEUES_MAX;
	unsigned int i, wrong = 0;

	ASSERT_EQ(0, db_attach(self->fd, -1, base, 4 * DOORBELL_QUEUES_MAX));
	/* 7919 has no factor in common with 65,536: each number comes once */
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

	/* the same again, twice each, in parts that do not divide it evenly */
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

/* two laps of the FIFO for each size: nothing depends on how full it was */
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

/* bounded however fast bad addresses come: one event, with all of them */
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

/* read() returns whole events only, and touches nothing behind them */
TEST_F(stream, whole_events)
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
		/* aligned to nothing */
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
	/* the rest, and a count that adds up to all of them */
	queue += db_read(self->fd, events, ARRAY_SIZE(events));
	EXPECT_EQ(100, queue);
	EXPECT_TRUE(db_is_empty(self->fd));
}

/* readv() and writev() with pieces that events and rings do not respect */
TEST_F(stream, vectors)
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

/* each open() is one consumer */
TEST_F(stream, two_consumers)
{
	int other = db_open(O_NONBLOCK);
	struct doorbell_info info;

	ASSERT_LE(0, other);
	ASSERT_EQ(0, db_attach(self->fd, -1, 0, 8));
	ASSERT_EQ(0, db_info(other, &info));
	EXPECT_EQ(DOORBELL_DETACHED, info.state);
	/* regions without a VM are on no bus: the same one does not intersect */
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

/* nothing attached: poll() stays quiet, reading waits, writing is refused */
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

/* detach leaves the events, the next attach drops what is left of them */
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

	/* so do those that a read() could not deliver */
	ASSERT_EQ(0, db_ring(self->fd, 28, 7));
	EXPECT_EQ(-1, read(self->fd, db_edge(0, PROT_READ), 16));
	EXPECT_EQ(EFAULT, errno);
	ASSERT_EQ(0, db_detach(self->fd));
	ASSERT_EQ(0, db_attach(self->fd, -1, 16, 16));
	EXPECT_TRUE(db_is_empty(self->fd));
	EXPECT_EQ(0, db_poll(self->fd, POLLIN, 0));
}

/* DOORBELL_INFO: each member through the life of a region, fdinfo the same */
TEST_F(stream, info)
{
	struct doorbell_info info, zero = { .size = sizeof(zero) };
	struct db_snapshot snap;
	char text[32];

	ASSERT_EQ(0, db_snapshot(self->fd, &snap));
	EXPECT_EQ(0, memcmp(&zero, &snap.info, sizeof(zero)));
	EXPECT_STREQ("doorbell-state:\tdetached\n", snap.fdinfo);

	ASSERT_EQ(0, db_attach_as(self->fd, -1, 0x100, 0x30, 0,
				  DOORBELL_ATTACH_PIO));
	ASSERT_EQ(0, db_ring(self->fd, 0x100, 1));
	ASSERT_EQ(0, db_ring(self->fd, 0x100, 2));
	ASSERT_EQ(0, db_ring(self->fd, 0x12c, 3));
	ASSERT_EQ(0, db_ring(self->fd, 0x130, 4));
	ASSERT_EQ(0, db_snapshot(self->fd, &snap));
	info = snap.info;
	EXPECT_EQ(sizeof(info), info.size);
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
	/* nobody waited since the first ring */
	EXPECT_GE(1, info.wakeups);

	EXPECT_STREQ("attached", db_fdinfo(snap.fdinfo, "doorbell-state"));
	EXPECT_STREQ("pio", db_fdinfo(snap.fdinfo, "doorbell-bus"));
	EXPECT_STREQ("0x100", db_fdinfo(snap.fdinfo, "doorbell-base"));
	EXPECT_STREQ("0x30", db_fdinfo(snap.fdinfo, "doorbell-len"));
	EXPECT_STREQ("4", db_fdinfo(snap.fdinfo, "doorbell-stride"));
	EXPECT_STREQ("12", db_fdinfo(snap.fdinfo, "doorbell-queues"));
	EXPECT_STREQ("3", db_fdinfo(snap.fdinfo, "doorbell-rings"));
	EXPECT_STREQ("1", db_fdinfo(snap.fdinfo, "doorbell-bad-rings"));
	EXPECT_STREQ("4", db_fdinfo(snap.fdinfo, "doorbell-pending"));
	snprintf(text, sizeof(text), "%llu", (unsigned long long)info.wakeups);
	EXPECT_STREQ(text, db_fdinfo(snap.fdinfo, "doorbell-wakeups"));

	ASSERT_EQ(1, db_read(self->fd, events, 1));
	ASSERT_EQ(0, db_info(self->fd, &info));
	EXPECT_EQ(3, info.rings);
	EXPECT_EQ(2, info.pending);

	/* all but the state is still that of the last region attached */
	ASSERT_EQ(0, db_detach(self->fd));
	info.state = DOORBELL_DETACHED;
	ASSERT_EQ(0, db_snapshot(self->fd, &snap));
	EXPECT_EQ(0, memcmp(&info, &snap.info, sizeof(info)));
	EXPECT_STREQ("detached", db_fdinfo(snap.fdinfo, "doorbell-state"));
	EXPECT_STREQ("2", db_fdinfo(snap.fdinfo, "doorbell-pending"));

	ASSERT_EQ(0, db_attach_as(self->fd, -1, 0x10000, 0x30000, 0x10000, 0));
	ASSERT_EQ(0, db_info(self->fd, &info));
	EXPECT_EQ(0x10000, info.stride);
	EXPECT_EQ(3, info.queues);
	EXPECT_EQ(0, info.flags);
	EXPECT_EQ(0, info.rings + info.bad_rings + info.pending);
}

/* DOORBELL_INFO into a structure of the past, or of the future */
TEST_F(stream, info_sizes)
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

/* DOORBELL_ATTACH with a structure of the future, as long as that is zero */
TEST_F(stream, attach_sizes)
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

/* regions at the limits of the rules are accepted */
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

/*
 * Refusals: calls that fail, in each of the states that a consumer can be in,
 * and that leave no trace.
 */

FIXTURE(refusal)
{
	int fd;
	struct db_snapshot before;
};

FIXTURE_VARIANT(refusal)
{
	bool rung;
	bool attached;
};

FIXTURE_VARIANT_ADD(refusal, never_attached)
{
};

FIXTURE_VARIANT_ADD(refusal, attached)
{
	.rung = true,
	.attached = true,
};

FIXTURE_VARIANT_ADD(refusal, detached)
{
	.rung = true,
};

FIXTURE_SETUP(refusal)
{
	self->fd = db_open(O_NONBLOCK);
	ASSERT_LE(0, self->fd) {
		TH_LOG("%s: %s", DB_PATH, strerror(errno));
	}
	if (variant->rung) {
		ASSERT_EQ(0, db_attach(self->fd, -1, 0x100, 0x10));
		ASSERT_EQ(0, db_ring(self->fd, 0x108, 1));
		ASSERT_EQ(0, db_ring(self->fd, 0x108, 2));
		ASSERT_EQ(0, db_ring(self->fd, 0x200, 3));
		ASSERT_EQ(0, db_ring(self->fd, 0x100, 4));
	}
	if (variant->rung && !variant->attached)
		ASSERT_EQ(0, db_detach(self->fd));
	ASSERT_EQ(0, db_snapshot(self->fd, &self->before));
}

FIXTURE_TEARDOWN(refusal)
{
	close(self->fd);
}

static bool unchanged(int fd, const struct db_snapshot *before)
{
	struct db_snapshot now;

	return !db_snapshot(fd, &now) && db_same(before, &now);
}

/* @call fails with @error, and nothing that the consumer shows has changed. */
#define REFUSED(error, call)						\
	do {								\
		long _ret;						\
		int _error;						\
									\
		errno = 0;						\
		_ret = (call);						\
		_error = errno;						\
		EXPECT_EQ(-1, _ret) {					\
			TH_LOG("%s", #call);				\
		}							\
		EXPECT_EQ(error, _error) {				\
			TH_LOG("%s: %s", #call, strerror(_error));	\
		}							\
		EXPECT_TRUE(unchanged(self->fd, &self->before)) {	\
			TH_LOG("%s left a trace", #call);		\
		}							\
	} while (0)

/* Where the arguments are wrong and something is attached, either may be told. */
#define ATTACH_REFUSED(error, arg)					\
	do {								\
		long _attach = ioctl(self->fd, DOORBELL_ATTACH, arg);	\
		int _why = errno;					\
									\
		if (_attach == -1 && variant->attached &&		\
		    _why == EBUSY)					\
			_why = error;					\
		REFUSED(error, (errno = _why, _attach));		\
	} while (0)

/* What was there before all the refusals works as if there had been none. */
#define STILL_WORKS()							\
	do {								\
		if (variant->rung) {					\
			ASSERT_EQ(3, db_read(self->fd, events, 9));	\
			EXPECT_TRUE(db_event_is(&events[0], 2, 2, 2));	\
			EXPECT_TRUE(db_event_is_bad(&events[1], 1, 0x200)); \
			EXPECT_TRUE(db_event_is(&events[2], 0, 1, 4));	\
		}							\
		EXPECT_TRUE(db_is_empty(self->fd));				\
		if (!variant->attached)					\
			ASSERT_EQ(0, db_attach(self->fd, -1, 0x100, 0x10)); \
		ASSERT_EQ(0, db_ring(self->fd, 0x104, 5));		\
		ASSERT_EQ(1, db_read(self->fd, events, 9));		\
		EXPECT_TRUE(db_event_is(events, 1, 1, 5));		\
	} while (0)

/* EBUSY: attached already, be it the same region or another one */
TEST_F(refusal, attach_busy)
{
	struct doorbell_attach arg = db_attach_arg(-1, 0x100, 0x10);
	int i;

	if (!variant->attached) {
		/* the first attach succeeds, the second is what is refused */
		ASSERT_EQ(0, ioctl(self->fd, DOORBELL_ATTACH, &arg));
		ASSERT_EQ(0, db_snapshot(self->fd, &self->before));
	}
	for (i = 0; i < 100; i++)
		REFUSED(EBUSY, ioctl(self->fd, DOORBELL_ATTACH, &arg));
	arg.base = 0x10000;
	REFUSED(EBUSY, ioctl(self->fd, DOORBELL_ATTACH, &arg));
	if (!variant->attached) {
		EXPECT_TRUE(db_is_empty(self->fd));
		ASSERT_EQ(0, db_detach(self->fd));
	} else {
		STILL_WORKS();
	}
}

/* EFAULT: the structure, or its size, or its end cannot be read */
TEST_F(refusal, attach_fault)
{
	struct doorbell_attach *arg;

	REFUSED(EFAULT, ioctl(self->fd, DOORBELL_ATTACH, NULL));
	REFUSED(EFAULT, ioctl(self->fd, DOORBELL_ATTACH, (void *)-4096L));
	REFUSED(EFAULT,
		ioctl(self->fd, DOORBELL_ATTACH, db_edge(0, PROT_READ)));
	arg = db_edge(39, PROT_READ | PROT_WRITE);
	arg->size = sizeof(*arg);
	arg->vm_fd = -1;
	arg->len = 4;
	ATTACH_REFUSED(EFAULT, arg);
	/* the part that the kernel does not know */
	arg = db_edge(64, PROT_READ | PROT_WRITE);
	*arg = db_attach_arg(-1, 0, 4);
	arg->size = 65;
	ATTACH_REFUSED(EFAULT, arg);
	STILL_WORKS();
}

/* E2BIG: more than a page, or something that the kernel does not know */
TEST_F(refusal, attach_too_big)
{
	static char buf[8192];
	struct doorbell_attach *arg = (void *)buf;
	unsigned int i;

	*arg = db_attach_arg(-1, 0, 4);
	arg->size = 4097;
	ATTACH_REFUSED(E2BIG, arg);
	arg->size = UINT_MAX;
	ATTACH_REFUSED(E2BIG, arg);
	for (i = sizeof(*arg); i < 128; i++) {
		buf[i] = 1;
		arg->size = i + 1;
		ATTACH_REFUSED(E2BIG, arg);
		arg->size = 4096;
		ATTACH_REFUSED(E2BIG, arg);
		buf[i] = 0;
	}
	buf[4095] = 0x80;
	ATTACH_REFUSED(E2BIG, arg);
	STILL_WORKS();
}

/* EINVAL: a size too small, flags and members that do not go together */
TEST_F(refusal, attach_invalid_member)
{
	struct doorbell_attach arg;
	uint32_t i;

	for (i = 0; i < sizeof(arg); i++) {
		arg = db_attach_arg(-1, 0, 4);
		arg.size = i;
		ATTACH_REFUSED(EINVAL, &arg);
	}
	for (i = 0; i < 32; i++) {
		arg = db_attach_arg(-1, 0, 4);
		arg.flags = 1U << i;
		/* those that need nothing else */
		if (arg.flags != DOORBELL_ATTACH_PIO &&
		    arg.flags != DOORBELL_ATTACH_NO_VALUE)
			ATTACH_REFUSED(EINVAL, &arg);
		arg = db_attach_arg(-1, 0, 4);
		arg.depth = 1U << i;
		ATTACH_REFUSED(EINVAL, &arg);
		arg = db_attach_arg(-1, 0, 4);
		arg.queues = 1U << i;
		ATTACH_REFUSED(EINVAL, &arg);
	}
	STILL_WORKS();
}

/* EINVAL: base, len or stride against the rules; nothing wraps or truncates */
TEST_F(refusal, attach_geometry)
{
	static const struct {
		uint64_t base, len;
		uint32_t stride, flags;
	} bad[] = {
		{ 0, 0, 4, 0 },
		{ 0, 0, 0, 0 },
		/* not aligned */
		{ 1, 4, 0, 0 },
		{ 2, 4, 4, 0 },
		{ 4, 8, 8, 0 },
		{ 0, 1, 0, 0 },
		{ 0, 6, 4, 0 },
		{ 0, 3, 2, 0 },
		{ 0, 65536 + 4, 65536, 0 },
		/* no stride */
		{ 0, 4, 1, 0 },
		{ 0, 12, 3, 0 },
		{ 0, 12, 6, 0 },
		{ 0, 131072, 131072, 0 },
		{ 0, 1ULL << 31, 1U << 31, 0 },
		{ 0, 4, UINT_MAX, 0 },
		/* too many queues, also where 16 or 32 bits would not tell */
		{ 0, 65536ULL * 2, 2, 0 },
		{ 0, 65536ULL * 4, 4, 0 },
		{ 0, 65537ULL * 4, 4, 0 },
		{ 0, 65536ULL * 65536, 65536, 0 },
		{ 0, (1ULL << 32) + 4, 4, 0 },
		{ 0, 1ULL << 34, 4, 0 },
		{ 0, (1ULL << 34) + 4, 4, 0 },
		{ 0, 1ULL << 63, 4, 0 },
		{ 0, UINT64_MAX - 3, 4, 0 },
		{ 0, (1ULL << 48) + 65536, 65536, 0 },
		/* base + len overflows */
		{ UINT64_MAX - 3, 4, 4, 0 },
		{ UINT64_MAX - 3, 8, 4, 0 },
		{ UINT64_MAX - 7, 8, 4, 0 },
		{ UINT64_MAX - 0xffff, 0x20000, 0x10000, 0 },
		/* I/O ports end at 64 KiB */
		{ 0, 65540, 4, DOORBELL_ATTACH_PIO },
		{ 4, 65536, 4, DOORBELL_ATTACH_PIO },
		{ 65532, 8, 4, DOORBELL_ATTACH_PIO },
		{ 65536, 4, 4, DOORBELL_ATTACH_PIO },
		{ 1ULL << 32, 4, 4, DOORBELL_ATTACH_PIO },
		{ UINT64_MAX - 7, 4, 4, DOORBELL_ATTACH_PIO },
	};
	struct doorbell_attach arg;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(bad); i++) {
		arg = db_attach_arg(-1, bad[i].base, bad[i].len);
		arg.stride = bad[i].stride;
		arg.flags = bad[i].flags;
		ATTACH_REFUSED(EINVAL, &arg);
	}
	STILL_WORKS();
}

/* EBADF: vm_fd is neither -1 nor an open file */
TEST_F(refusal, attach_bad_fd)
{
	struct doorbell_attach arg = db_attach_arg(-2, 0, 4);
	int closed = dup(self->fd), path = open("/", O_PATH);

	ASSERT_LE(0, closed);
	ASSERT_LE(0, path);
	close(closed);
	ATTACH_REFUSED(EBADF, &arg);
	arg.vm_fd = INT_MIN;
	ATTACH_REFUSED(EBADF, &arg);
	arg.vm_fd = INT_MAX;
	ATTACH_REFUSED(EBADF, &arg);
	arg.vm_fd = closed;
	ATTACH_REFUSED(EBADF, &arg);
	arg.vm_fd = path;
	ATTACH_REFUSED(EBADF, &arg);
	close(path);
	STILL_WORKS();
}

/* EINVAL: vm_fd is a file, but not that of a KVM VM, whatever its name */
TEST_F(refusal, attach_not_a_vm)
{
	static const char fake[] = "/tmp/kvm-vm";
	struct doorbell_attach arg = db_attach_arg(-1, 0, 4);
	int fds[12], pair[2], i, n = 0;

	fds[n++] = self->fd;
	fds[n++] = open("/proc/self/exe", O_RDONLY);
	fds[n++] = open("/", O_RDONLY | O_DIRECTORY);
	fds[n++] = open("/dev/null", O_RDWR);
	fds[n++] = eventfd(0, 0);
	fds[n++] = epoll_create1(0);
	fds[n++] = memfd_create("kvm-vm", 0);
	fds[n++] = open(fake, O_RDWR | O_CREAT, 0600);
	unlink(fake);
	ASSERT_EQ(0, pipe(pair));
	fds[n++] = pair[0];
	ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
	fds[n++] = pair[0];
	fds[n] = open("/dev/kvm", O_RDWR);
	if (fds[n] < 0)
		TH_LOG("no /dev/kvm, going on without it");
	else
		n++;
	for (i = 0; i < n; i++) {
		arg.vm_fd = fds[i];
		ASSERT_LE(0, arg.vm_fd);
		ATTACH_REFUSED(EINVAL, &arg);
	}
	STILL_WORKS();
}

/* EINVAL: DOORBELL_DETACH takes no argument; ENOTCONN: nothing is attached */
TEST_F(refusal, detach)
{
	unsigned int bit;

	for (bit = 0; bit < 8 * sizeof(long); bit++)
		REFUSED(EINVAL, ioctl(self->fd, DOORBELL_DETACH, 1UL << bit));
	if (!variant->attached) {
		REFUSED(ENOTCONN, ioctl(self->fd, DOORBELL_DETACH, 0));
		REFUSED(ENOTCONN, ioctl(self->fd, DOORBELL_DETACH, 0));
	}
	STILL_WORKS();
}

/* EFAULT: it can be read or written only in part; EINVAL, E2BIG: its size */
TEST_F(refusal, info)
{
	struct doorbell_info info = { };
	struct doorbell_info *edgy;
	unsigned int i, page = sysconf(_SC_PAGESIZE);

	for (i = 0; i < 8; i++) {
		info.size = i;
		REFUSED(EINVAL, ioctl(self->fd, DOORBELL_INFO, &info));
	}
	REFUSED(EFAULT, ioctl(self->fd, DOORBELL_INFO, NULL));
	REFUSED(EFAULT, ioctl(self->fd, DOORBELL_INFO, db_edge(0, PROT_READ)));
	for (i = 8; i < sizeof(info); i += 8) {
		edgy = db_edge(i, PROT_READ | PROT_WRITE);
		edgy->size = sizeof(info);
		REFUSED(EFAULT, ioctl(self->fd, DOORBELL_INFO, edgy));
	}
	/* the part that the kernel only zeroes */
	edgy = db_edge(sizeof(info) + 8, PROT_READ | PROT_WRITE);
	edgy->size = sizeof(info) + 9;
	REFUSED(EFAULT, ioctl(self->fd, DOORBELL_INFO, edgy));
	edgy->size = page + 1;
	REFUSED(E2BIG, ioctl(self->fd, DOORBELL_INFO, edgy));
	edgy->size = UINT_MAX;
	REFUSED(E2BIG, ioctl(self->fd, DOORBELL_INFO, edgy));
	/* cannot be written */
	edgy = db_edge(page, PROT_READ | PROT_WRITE);
	edgy->size = sizeof(info);
	ASSERT_EQ(0, mprotect(edgy, page, PROT_READ));
	REFUSED(EFAULT, ioctl(self->fd, DOORBELL_INFO, edgy));
	STILL_WORKS();
}

/* ENOTTY: any other command, also ours with a size or a direction */
TEST_F(refusal, unknown_command)
{
	struct doorbell_attach arg = db_attach_arg(-1, 0, 4);
	unsigned int i;

	for (i = 3; i < 256; i++)
		REFUSED(ENOTTY, ioctl(self->fd, _IO(DOORBELL_IOC, i), &arg));
	for (i = 0; i < 3; i++) {
		REFUSED(ENOTTY, ioctl(self->fd, _IO(0xAE, i), &arg));
		REFUSED(ENOTTY, ioctl(self->fd, _IOW(DOORBELL_IOC, i,
						     struct doorbell_attach),
				      &arg));
		REFUSED(ENOTTY, ioctl(self->fd, _IOR(DOORBELL_IOC, i,
						     struct doorbell_info),
				      &arg));
	}
	STILL_WORKS();
}

/* EINVAL: a buffer too small for one event */
TEST_F(refusal, read_too_small)
{
	char buf[16];
	struct iovec iov[2] = { { buf, 7 }, { buf + 7, 8 } };
	unsigned int i;

	for (i = 0; i < 16; i++)
		REFUSED(EINVAL, read(self->fd, buf, i));
	REFUSED(EINVAL, readv(self->fd, iov, 2));
	STILL_WORKS();
}

/* EFAULT: the buffer cannot be written; all events stay, in order */
TEST_F(refusal, read_fault)
{
	size_t page = sysconf(_SC_PAGESIZE);
	char *readonly = mmap(NULL, page, PROT_READ,
			      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char small[8];
	struct iovec iov[2] = { { small, 8 }, { readonly, 64 } };
	int error = variant->rung ? EFAULT : EAGAIN;
	int i;

	ASSERT_TRUE(readonly != MAP_FAILED);
	REFUSED(error, read(self->fd, db_edge(0, PROT_READ), 16));
	REFUSED(error, read(self->fd, db_edge(0, PROT_READ), 4096));
	REFUSED(error, read(self->fd, readonly, 64));
	/* not even one event */
	for (i = 1; i < 16; i++)
		REFUSED(error,
			read(self->fd, db_edge(i, PROT_READ | PROT_WRITE), 48));
	REFUSED(error, readv(self->fd, iov, 2));
	STILL_WORKS();
}

/* EINVAL: no ring, or not whole ones */
TEST_F(refusal, write_length)
{
	struct doorbell_ring two[2] = { { .addr = 0x100 }, { .addr = 0x104 } };
	unsigned int i;

	for (i = 0; i < sizeof(two); i++)
		if (i != 16)
			REFUSED(EINVAL, write(self->fd, two, i));
	STILL_WORKS();
}

/* EFAULT: the first ring cannot be read; ENOTCONN: nothing is attached */
TEST_F(refusal, write)
{
	struct doorbell_ring ring = { .addr = 0x104 };
	int i;

	if (variant->attached) {
		REFUSED(EFAULT, write(self->fd, db_edge(0, PROT_READ), 16));
		REFUSED(EFAULT,
			write(self->fd, db_edge(0, PROT_READ), 1 << 20));
		for (i = 1; i < 16; i++)
			REFUSED(EFAULT,
				write(self->fd, db_edge(i, PROT_READ), 32));
	} else {
		REFUSED(ENOTCONN, write(self->fd, &ring, 16));
		REFUSED(ENOTCONN, write(self->fd, rings, sizeof(rings)));
	}
	STILL_WORKS();
}

/* a fault further on makes a read() short; the events behind it stay, in order */
TEST_F(stream, read_fault_later)
{
	static const unsigned int inside[] = { 24, 16, 512, 520, 1000, 4096 };
	unsigned int i, k, queue = 0;

	ASSERT_EQ(0, db_attach(self->fd, -1, 0, 4 * 1024));
	fill_rings(0, 1024);
	ASSERT_EQ(1024 * 16, write(self->fd, rings, 1024 * 16));
	for (i = 0; i < ARRAY_SIZE(inside); i++) {
		struct doorbell_event event;
		char *buf = db_edge(inside[i], PROT_READ | PROT_WRITE);
		ssize_t whole = inside[i] / 16 * 16;

		ASSERT_EQ(whole, read(self->fd, buf, 16384));
		for (k = 0; k < whole; k += 16, queue++) {
			memcpy(&event, buf + k, 16);
			ASSERT_TRUE(db_event_is(&event, queue, 1,
						0x100000000ULL + queue));
		}
		EXPECT_EQ(POLLIN, db_poll(self->fd, POLLIN, 0));
	}
	/* what is rung now comes after them */
	ASSERT_EQ(0, db_ring(self->fd, 5000, 1));
	ASSERT_EQ((int)(1024 - queue), db_read(self->fd, events, 1024 - queue));
	for (k = 0; queue < 1024; k++, queue++)
		ASSERT_TRUE(db_event_is(&events[k], queue, 1,
					0x100000000ULL + queue));
	ASSERT_EQ(1, db_read(self->fd, events, 2));
	EXPECT_TRUE(db_event_is_bad(events, 1, 5000));
	EXPECT_TRUE(db_is_empty(self->fd));
}

/*
 * At most one event per queue is pending, also where a read() failed in
 * between; and the counts still add up.
 */
TEST_F(stream, read_fault_then_ring)
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

/* a fault further on makes a write() short: rung is what it says was used */
TEST_F(stream, write_fault_later)
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
		/* at least where a page could be read, something was */
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

/*
 * Memory: it is the caller's, it is bounded, and its end is an error.
 */

FIXTURE(memory)
{
	char path[64];
	bool root;
};

static int put(const char *dir, const char *file, const char *text)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/%s", dir, file);
	return db_write_file(path, text);
}

static long charged(const char *dir)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/memory.current", dir);
	return db_read_number(path);
}

#define CGROUP "/sys/fs/cgroup"

FIXTURE_SETUP(memory)
{
	/* what the kernel charges ahead is for each CPU */
	ASSERT_EQ(0, db_pin(0));
	snprintf(self->path, sizeof(self->path), CGROUP "/doorbell-%d",
		 getpid());
	if (put(CGROUP, "cgroup.subtree_control", "+memory") ||
	    mkdir(self->path, 0755))
		SKIP(return, "no memory controller in " CGROUP);
	ASSERT_EQ(0, put(self->path, "cgroup.procs", "0"));
	self->root = true;
}

FIXTURE_TEARDOWN(memory)
{
	if (!self->root)
		return;
	EXPECT_EQ(0, put(CGROUP, "cgroup.procs", "0"));
	EXPECT_EQ(0, rmdir(self->path));
}

/* the largest region costs the caller at most 48 bytes per queue */
TEST_F_TIMEOUT(memory, per_queue, 120)
{
	const long slack = 64 * 4096;	/* charged ahead, or given back late */
	long before, attached, rung, closed;
	unsigned int i;
	int fd, turn;

	/* the second turn finds all that is only needed once */
	for (turn = 0; turn < 2; turn++) {
		fd = db_open(O_NONBLOCK);
		ASSERT_LE(0, fd);
		memset(rings, 0, sizeof(rings));
		before = charged(self->path);
		ASSERT_LT(0, before);
		ASSERT_EQ(0, db_attach(fd, -1, 0, 4 * DOORBELL_QUEUES_MAX));
		attached = charged(self->path);
		/* every queue, and bad addresses, many times: no more memory */
		for (i = 0; i <= DOORBELL_QUEUES_MAX; i++)
			rings[i].addr = 4 * i;
		ASSERT_EQ(sizeof(rings), write(fd, rings, sizeof(rings)));
		for (i = 0; i <= DOORBELL_QUEUES_MAX; i++)
			rings[i].addr = 4 * (DOORBELL_QUEUES_MAX + i);
		ASSERT_EQ(sizeof(rings), write(fd, rings, sizeof(rings)));
		ASSERT_EQ(sizeof(rings), write(fd, rings, sizeof(rings)));
		rung = charged(self->path);
		close(fd);
		closed = charged(self->path);
	}
	TH_LOG("%ld bytes, %.1f per queue", attached - before,
	       (double)(attached - before) / DOORBELL_QUEUES_MAX);
	EXPECT_GE(48L * DOORBELL_QUEUES_MAX + slack, attached - before);
	EXPECT_LE(24L * DOORBELL_QUEUES_MAX - slack, attached - before);
	EXPECT_GE(slack, rung - attached);
	EXPECT_GE(slack, closed - before);
}

/* attaching and detaching for ever costs nothing */
TEST_F_TIMEOUT(memory, attach_again, 120)
{
	long before = 0;
	int fd = db_open(O_NONBLOCK), i;

	ASSERT_LE(0, fd);
	for (i = 0; i < 220; i++) {
		if (i == 20)
			before = charged(self->path);
		ASSERT_EQ(0, db_attach(fd, -1, 0, 4 * 1024));
		ASSERT_EQ(0, db_ring(fd, 0, 1));
		if (i % 2) {
			close(fd);
			fd = db_open(O_NONBLOCK);
			ASSERT_LE(0, fd);
		} else {
			ASSERT_EQ(0, db_detach(fd));
		}
	}
	/* 200 regions of 36 KiB */
	EXPECT_GE(1L << 20, charged(self->path) - before);
	close(fd);
}

/* ENOMEM: the caller's memory cgroup has no room; nobody dies of it */
TEST_F_TIMEOUT(memory, no_room, 120)
{
	struct db_snapshot before, after;
	int fd = db_open(O_NONBLOCK);
	struct doorbell_event event;
	char limit[32];
	pid_t pid;

	ASSERT_LE(0, fd);
	ASSERT_EQ(0, db_snapshot(fd, &before));
	/* only the child is in there */
	ASSERT_EQ(0, put(CGROUP, "cgroup.procs", "0"));
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		if (put(self->path, "cgroup.procs", "0"))
			_exit(0);
		snprintf(limit, sizeof(limit), "%ld",
			 charged(self->path) + (1L << 20));
		if (put(self->path, "memory.max", limit))
			_exit(0);
		_exit(-db_attach(fd, -1, 0, 4 * DOORBELL_QUEUES_MAX));
	}
	EXPECT_EQ(ENOMEM, db_wait_status(pid));
	ASSERT_EQ(0, put(self->path, "memory.max", "max"));
	ASSERT_EQ(0, db_snapshot(fd, &after));
	EXPECT_TRUE(db_same(&before, &after));

	ASSERT_EQ(0, db_attach(fd, -1, 0, 4 * DOORBELL_QUEUES_MAX));
	ASSERT_EQ(0, db_ring(fd, 4, 1));
	ASSERT_EQ(1, db_read(fd, &event, 1));
	EXPECT_TRUE(db_event_is(&event, 1, 1, 1));
	close(fd);
}

TEST_HARNESS_MAIN
