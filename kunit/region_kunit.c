// SPDX-License-Identifier: GPL-2.0
/*
 * Region: the rings that it makes of offsets and values, its counters,
 * wake-ups, hang-up and bindings. The eventfds are not those of the kernel, and
 * the descriptors are in kernel memory.
 */
#include <kunit/test.h>

#include <linux/completion.h>
#include <linux/delay.h>
#include <linux/err.h>
#include <linux/eventfd.h>
/* its inline functions use get_user(), too */
#include <linux/fs.h>
#include <linux/kthread.h>
#include <linux/rcupdate.h>
#include <linux/sched/signal.h>
#include <linux/uaccess.h>
#include <linux/workqueue.h>

/**
 * struct eventfd_ctx - an eventfd
 * @refs: references
 * @signals: how often it was signalled
 */
struct eventfd_ctx {
	int refs;
	int signals;
};

#define EVENTFDS	3
/* a descriptor of another file */
#define OTHER_FILE	EVENTFDS

static struct eventfd_ctx eventfds[EVENTFDS];
/* grace periods, and references that were put before the first one */
static int graces, early_puts;
/* what a grace period waits for, if it is not NULL: a ring under way */
static struct completion *ring_ends;
static DECLARE_COMPLETION(grace_begins);
/* a descriptor that cannot be read */
static const s32 *fault;

static struct eventfd_ctx *region_test_fdget(int fd)
{
	if (fd == OTHER_FILE)
		return ERR_PTR(-EINVAL);
	if (fd < 0 || fd > OTHER_FILE)
		return ERR_PTR(-EBADF);
	eventfds[fd].refs++;
	return &eventfds[fd];
}

static void region_test_put(struct eventfd_ctx *ctx)
{
	if (!graces)
		early_puts++;
	ctx->refs--;
}

static void region_test_signal(struct eventfd_ctx *ctx)
{
	ctx->signals++;
}

static void region_test_grace(void)
{
	synchronize_rcu_expedited();
	if (ring_ends) {
		complete(&grace_begins);
		wait_for_completion(ring_ends);
	}
	graces++;
}

static int region_test_get_user(s32 *fd, const s32 __user *from)
{
	if (from == (const s32 __force __user *)fault)
		return -EFAULT;
	*fd = *(const s32 __force *)from;
	return 0;
}

#undef get_user
#define get_user(x, from) region_test_get_user(&(x), from)
#define eventfd_ctx_fdget region_test_fdget
#define eventfd_ctx_put region_test_put
#undef doorbell_eventfd_signal
#define doorbell_eventfd_signal region_test_signal
#define synchronize_rcu_expedited region_test_grace
#include "../drivers/virt/doorbell/region.c"
#undef synchronize_rcu_expedited

#include "buffer_util.h"

#define PIO		DOORBELL_ATTACH_PIO
#define ORDERED		DOORBELL_ATTACH_ORDERED
#define BY_VALUE	DOORBELL_ATTACH_BY_VALUE
#define NO_VALUE	DOORBELL_ATTACH_NO_VALUE
#define BOUND_ONLY	DOORBELL_ATTACH_BOUND_ONLY
#define EXACT		DOORBELL_ATTACH_EXACT

/* The kind of a ring with a value of 4 bytes. */
#define WIDTH_4		doorbell_kind(DOORBELL_EVENT_QUEUE, 4)

/* Drop the last reference, and wait until the region is freed. */
static void free_region(struct doorbell_region *region)
{
	doorbell_region_put(region);
	flush_workqueue(free_wq);
}

KUNIT_DEFINE_ACTION_WRAPPER(put_region, free_region, struct doorbell_region *);
KUNIT_DEFINE_ACTION_WRAPPER(put_waiters, doorbell_waiters_put,
			    struct doorbell_waiters *);

static struct doorbell_waiters *new_waiters(struct kunit *test)
{
	struct doorbell_waiters *waiters = doorbell_waiters_create();

	KUNIT_ASSERT_NOT_NULL(test, waiters);
	KUNIT_ASSERT_EQ(test, 0, kunit_add_action_or_reset(test, put_waiters,
							   waiters));
	return waiters;
}

/* Three queues of 4 bytes; by value five of them. */
static struct doorbell_region *new_region(struct kunit *test, u32 flags)
{
	struct doorbell_attach arg = {
		.base = 80, .len = 12, .flags = flags,
		.depth = flags & ORDERED ? 2 : 0,
		.queues = flags & BY_VALUE ? 5 : 0,
	};
	struct doorbell_region *region;

	region = doorbell_region_create(&arg, new_waiters(test));
	KUNIT_ASSERT_FALSE(test, IS_ERR(region));
	KUNIT_ASSERT_EQ(test, 0, kunit_add_action_or_reset(test, put_region,
							   region));
	return region;
}

/* Flags, and the fields that belong to them. */
static void region_arguments(struct kunit *test)
{
	static const struct {
		u32 flags, depth, queues;
		int ret;
	} cases[] = {
		{ 0, 0, 0, 0 },
		{ PIO, 0, 0, 0 },
		{ ORDERED, 1, 0, 0 },
		{ ORDERED, DOORBELL_DEPTH_MAX, 0, 0 },
		{ BY_VALUE, 0, 1, 0 },
		{ BY_VALUE, 0, DOORBELL_QUEUES_MAX, 0 },
		{ NO_VALUE, 0, 0, 0 },
		{ NO_VALUE | ORDERED, 4, 0, 0 },
		{ PIO | ORDERED | BY_VALUE, 4, 4, 0 },
		{ BOUND_ONLY, 0, 0, 0 },
		{ BOUND_ONLY | PIO | ORDERED | BY_VALUE, 4, 4, 0 },
		{ BOUND_ONLY | NO_VALUE, 0, 0, 0 },
		{ EXACT | BOUND_ONLY, 0, 0, 0 },
		{ EXACT | BOUND_ONLY | PIO | BY_VALUE, 0, 4, 0 },
		{ EXACT | BOUND_ONLY | NO_VALUE, 0, 0, 0 },
		{ EXACT, 0, 0, -EINVAL },
		{ EXACT | NO_VALUE, 0, 0, -EINVAL },
		{ ORDERED, 0, 0, -EINVAL },
		{ ORDERED, DOORBELL_DEPTH_MAX + 1, 0, -EINVAL },
		{ 0, 1, 0, -EINVAL },
		{ BY_VALUE, 0, 0, -EINVAL },
		{ BY_VALUE, 0, DOORBELL_QUEUES_MAX + 1, -EINVAL },
		{ 0, 0, 1, -EINVAL },
		{ NO_VALUE | PIO, 0, 0, -EINVAL },
		{ NO_VALUE | BY_VALUE, 0, 1, -EINVAL },
		{ BOUND_ONLY, 1, 0, -EINVAL },
		{ DOORBELL_ATTACH_DROP, 0, 0, 0 },
		{ 1U << 7, 0, 0, -EINVAL },
		{ 1U << 31, 0, 0, -EINVAL },
	};
	struct doorbell_waiters *waiters = new_waiters(test);
	struct doorbell_region *region;
	int i;

	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		struct doorbell_attach arg = {
			.len = 4, .flags = cases[i].flags,
			.depth = cases[i].depth, .queues = cases[i].queues,
		};

		region = doorbell_region_create(&arg, waiters);
		KUNIT_EXPECT_EQ_MSG(test, PTR_ERR_OR_ZERO(region),
				    cases[i].ret,
				    "flags %#x depth %u queues %u",
				    cases[i].flags, cases[i].depth,
				    cases[i].queues);
		if (!IS_ERR(region))
			free_region(region);
	}
	/* each region that is gone has dropped its reference */
	KUNIT_EXPECT_EQ(test, 1, kref_read(&waiters->ref));
}

/* What an ioeventfd of the queue would take, and all else without EXACT. */
static void region_accepts(struct kunit *test)
{
	static const struct {
		u32 flags;
		u64 offset;
		int width;
		u64 value;
		bool takes;
	} cases[] = {
		{ 0, 1, 8, 1ULL << 40, true },
		{ BY_VALUE, 3, 1, 1ULL << 40, true },
		{ NO_VALUE, 1, 0, 0, true },
		{ EXACT, 0, 4, 1ULL << 31, true },
		{ EXACT, 8, 4, 7, true },
		{ EXACT, 8, 2, 7, false },
		{ EXACT, 8, 8, 7, false },
		{ EXACT, 9, 4, 7, false },
		{ EXACT, 10, 2, 7, false },
		{ EXACT | BY_VALUE, 0, 4, 4, true },
		{ EXACT | BY_VALUE, 0, 4, 0xffff, true },
		{ EXACT | BY_VALUE, 0, 4, 0x10004, false },
		{ EXACT | BY_VALUE, 0, 2, 4, false },
		{ EXACT | BY_VALUE, 2, 2, 4, false },
		{ EXACT | NO_VALUE, 4, 0, 0, true },
		{ EXACT | NO_VALUE, 4, 8, 0, true },
		{ EXACT | NO_VALUE, 5, 0, 0, false },
	};
	struct doorbell_region *region;
	u32 flags;
	int i;

	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		flags = cases[i].flags;
		region = new_region(test, flags | (flags & EXACT ? BOUND_ONLY :
								   0));
		KUNIT_EXPECT_EQ_MSG(test, cases[i].takes,
				    doorbell_region_accepts(region,
							    cases[i].offset,
							    cases[i].width,
							    cases[i].value),
				    "case %d", i);
	}
}

/* The offset, or the value, names the queue; an offset outside names none. */
static void region_rings(struct kunit *test)
{
	static const struct {
		u32 flags;
		u64 offset, value;
		int ret, queue;		/* -1: DOORBELL_QUEUE_NONE */
	} cases[] = {
		{ 0, 0, 7, 0, 0 },
		{ 0, 11, 7, 0, 2 },
		{ 0, 12, 7, -ERANGE },
		{ 0, -1, 7, -ERANGE },
		{ ORDERED, 4, 7, 0, 1 },
		{ ORDERED, 12, 7, -ERANGE },
		{ BY_VALUE, 0, 4, 0, 4 },
		{ BY_VALUE, 11, 0x10003, 0, 3 },
		{ BY_VALUE, 0, 5, 0, -1 },
		{ BY_VALUE, 12, 0, -ERANGE },
		{ BY_VALUE | ORDERED, 0, 4, 0, 4 },
		{ BY_VALUE | ORDERED, 0, 0xffff, 0, -1 },
	};
	int i;

	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		u32 flags = cases[i].flags;
		u8 type = DOORBELL_EVENT_QUEUE;
		bool wake = false;
		struct doorbell_region *region = new_region(test, flags);
		struct doorbell_event event;

		KUNIT_EXPECT_EQ_MSG(test, cases[i].ret,
				    doorbell_region_ring(region, flags,
							 cases[i].offset,
							 cases[i].value,
							 WIDTH_4, true),
				    "case %d", i);
		KUNIT_ASSERT_EQ(test, !cases[i].ret,
				consume_events(&region->buffer, &event, 1,
					       &wake));
		if (cases[i].ret)
			continue;
		if (cases[i].queue < 0)
			type = DOORBELL_EVENT_BAD_QUEUE;
		KUNIT_EXPECT_EQ(test, event.queue, (u16)cases[i].queue);
		KUNIT_EXPECT_EQ(test, event.type, type);
		KUNIT_EXPECT_EQ(test, event.value, cases[i].value);
		KUNIT_EXPECT_EQ(test, event.width, 4);
	}
}

/* A ring without room changes nothing, and bounces if the VMM will see it. */
static void region_bounces(struct kunit *test)
{
	static const u32 flags[] = { ORDERED, ORDERED | BY_VALUE };
	static const u64 values[] = { 1, 99 };
	const u16 bad = doorbell_kind(DOORBELL_EVENT_BAD_ADDRESS, 0);
	struct doorbell_counters counters;
	int i, j;

	for (i = 0; i < ARRAY_SIZE(flags); i++) {
		struct doorbell_region *region = new_region(test, flags[i]);

		for (j = 0; j < 2; j++)
			KUNIT_ASSERT_EQ(test, 0,
					doorbell_region_ring(region, flags[i],
							     4, 1, WIDTH_4,
							     true));
		for (j = 0; j < ARRAY_SIZE(values); j++) {
			KUNIT_EXPECT_EQ(test, -EAGAIN,
					doorbell_region_ring(region, flags[i],
							     4, values[j],
							     WIDTH_4, true));
			KUNIT_EXPECT_EQ(test, -EAGAIN,
					doorbell_region_ring(region, flags[i],
							     4, values[j],
							     WIDTH_4, false));
			KUNIT_EXPECT_EQ(test, -EAGAIN,
					doorbell_region_ring_bad(region, bad,
								 0));
			KUNIT_EXPECT_EQ(test, j + 1,
					atomic64_read(&region->bounced));
		}
		doorbell_buffer_count(&region->buffer, &counters);
		KUNIT_EXPECT_EQ(test, counters.rings, 2);
		KUNIT_EXPECT_EQ(test, counters.bad_rings, 0);
		KUNIT_EXPECT_EQ(test, counters.pending, 2);
	}
}

/* One wake-up for each time that the consumer arms. */
static void region_wakes(struct kunit *test)
{
	struct doorbell_region *region = new_region(test, 0);
	int i;

	for (i = 1; i <= 3; i++) {
		struct doorbell_event events[3];
		bool wake = false;

		doorbell_buffer_arm(&region->buffer);
		KUNIT_EXPECT_EQ(test, 0, doorbell_region_ring(region, 0, 0, 0,
							      WIDTH_4, true));
		KUNIT_EXPECT_EQ(test, i, atomic64_read(&region->wakeups));
		KUNIT_EXPECT_EQ(test, 0, doorbell_region_ring(region, 0, 4, 0,
							      WIDTH_4, true));
		KUNIT_EXPECT_EQ(test, i, atomic64_read(&region->wakeups));
		KUNIT_EXPECT_EQ(test, 2, consume_events(&region->buffer, events,
							3, &wake));
	}
}

/* Errors of ringing from user space: detached, attached, hung up. */
static void region_errors(struct kunit *test)
{
	struct doorbell_region *region = new_region(test, 0);

	KUNIT_EXPECT_EQ(test, -ENOTCONN, doorbell_region_error(region));
	region->attached = true;
	KUNIT_EXPECT_EQ(test, 0, doorbell_region_error(region));
	doorbell_region_hangup(region);
	KUNIT_EXPECT_TRUE(test, doorbell_region_hung_up(region));
	KUNIT_EXPECT_EQ(test, -EPIPE, doorbell_region_error(region));
	region->attached = false;
	KUNIT_EXPECT_EQ(test, -ENOTCONN, doorbell_region_error(region));
}

/* A write() that rings holds up the report of the hang-up, and no other one. */
static void region_writer_delays_hangup(struct kunit *test)
{
	struct doorbell_region *region = new_region(test, 0);
	struct doorbell_status *status = region->buffer.status;

	KUNIT_EXPECT_EQ(test, -ENOTCONN, doorbell_region_enter(region));
	doorbell_region_attach(region, 1);
	KUNIT_ASSERT_EQ(test, 0, doorbell_region_enter(region));
	KUNIT_ASSERT_EQ(test, 0, doorbell_region_enter(region));
	doorbell_region_leave(region);
	doorbell_region_hangup(region);
	doorbell_region_hangup(region);
	KUNIT_EXPECT_FALSE(test, doorbell_region_hung_up(region));
	KUNIT_EXPECT_EQ(test, DOORBELL_ATTACHED, status->state);
	KUNIT_EXPECT_EQ(test, -EPIPE, doorbell_region_enter(region));
	doorbell_region_leave(region);
	KUNIT_EXPECT_TRUE(test, doorbell_region_hung_up(region));
	KUNIT_EXPECT_EQ(test, DOORBELL_HANGUP, status->state);
	KUNIT_EXPECT_EQ(test, -EPIPE, doorbell_region_enter(region));
}

/* The status block: attached, hung up, detached, replaced, in any order */
static void region_status(struct kunit *test)
{
	static const struct {
		const char *calls;
		u32 state;
	} cases[] = {
		{ "", DOORBELL_DETACHED },
		{ "a", DOORBELL_ATTACHED },
		{ "ah", DOORBELL_HANGUP },
		{ "ahh", DOORBELL_HANGUP },
		{ "h", DOORBELL_DETACHED },
		{ "ha", DOORBELL_HANGUP },
		{ "had", DOORBELL_DETACHED },
		{ "ad", DOORBELL_DETACHED },
		{ "adh", DOORBELL_DETACHED },
		{ "ahd", DOORBELL_DETACHED },
		{ "adr", DOORBELL_DETACHED },
		{ "adrh", DOORBELL_DETACHED },
		{ "ahdr", DOORBELL_DETACHED },
		{ "adRh", DOORBELL_DETACHED },
	};
	int i;

	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		struct doorbell_region *region = new_region(test, 0);
		struct doorbell_status *status = region->buffer.status;
		u32 generation = 0, flags = 0;
		const char *call;

		for (call = cases[i].calls; *call; call++) {
			switch (*call) {
			case 'a':
				generation = 7;
				doorbell_region_attach(region, 7);
				break;
			case 'h':
				doorbell_region_hangup(region);
				break;
			case 'd':
				doorbell_region_detach(region);
				break;
			case 'R':
				flags = DOORBELL_STATUS_DROPPED;
				fallthrough;
			case 'r':
				generation = 8;
				doorbell_region_replace(region, 8, flags);
				break;
			}
		}
		KUNIT_EXPECT_EQ_MSG(test, status->state, cases[i].state, "%s",
				    cases[i].calls);
		KUNIT_EXPECT_EQ(test, status->generation, generation);
		KUNIT_EXPECT_EQ(test, status->flags, flags);
	}
}

/* Pending: bad rings count as well, and rings that are read do not. */
static void region_pending(struct kunit *test)
{
	static const u32 flags[] = { 0, ORDERED };
	const u16 bad = doorbell_kind(DOORBELL_EVENT_BAD_ADDRESS, 0);
	int i;

	for (i = 0; i < ARRAY_SIZE(flags); i++) {
		struct doorbell_region *region = new_region(test, flags[i]);
		struct doorbell_event event;
		bool wake;

		KUNIT_EXPECT_FALSE(test, doorbell_region_pending(region));
		KUNIT_EXPECT_EQ(test, 0,
				doorbell_region_ring(region, flags[i], 4, 1,
						     WIDTH_4, true));
		KUNIT_EXPECT_EQ(test, 0,
				doorbell_region_ring_bad(region, bad, 0));
		for (; consume_events(&region->buffer, &event, 1, &wake);)
			KUNIT_EXPECT_EQ(test,
					doorbell_region_pending(region),
					event.type == DOORBELL_EVENT_QUEUE);
		KUNIT_EXPECT_FALSE(test, doorbell_region_pending(region));
	}
}

/* Waiters outlive their consumer as long as a region may wake them. */
static void region_keeps_waiters(struct kunit *test)
{
	struct doorbell_attach arg = { .len = 4 };
	struct doorbell_waiters *waiters = doorbell_waiters_create();
	struct doorbell_region *region;

	KUNIT_ASSERT_NOT_NULL(test, waiters);
	region = doorbell_region_create(&arg, waiters);
	doorbell_waiters_put(waiters);
	KUNIT_ASSERT_FALSE(test, IS_ERR(region));
	/* KASAN finds it if the waiters are gone */
	KUNIT_EXPECT_EQ(test, 0, doorbell_region_ring(region, 0, 0, 0, WIDTH_4,
						      true));
	KUNIT_EXPECT_EQ(test, 1, atomic64_read(&region->wakeups));
	doorbell_region_hangup(region);
	free_region(region);
}

/* Bindings */

static int bind(struct doorbell_region *region, u32 first, u32 count,
		const s32 *fds)
{
	graces = 0;
	early_puts = 0;
	return doorbell_region_bind(region, first, count,
				    (const s32 __force __user *)fds);
}

/* Which eventfd a queue is bound to, or -1 */
static int bound_to(const struct doorbell_region *region, u32 queue)
{
	struct eventfd_ctx *ctx;

	if (!region->bindings)
		return -1;
	ctx = rcu_access_pointer(region->bindings[queue].ctx);
	return ctx ? ctx - eventfds : -1;
}

static void expect_refs(struct kunit *test, int a, int b, int c)
{
	KUNIT_EXPECT_EQ(test, a, eventfds[0].refs);
	KUNIT_EXPECT_EQ(test, b, eventfds[1].refs);
	KUNIT_EXPECT_EQ(test, c, eventfds[2].refs);
}

/*
 * Queue 1 is bound, and no other. A ring of it signals in any mode, even if
 * there is no room for events, and no other ring does.
 */
static void region_signals(struct kunit *test)
{
	static const struct {
		u32 flags;
		u64 offset, value;
		int ret;
		bool signals;
		u8 type;	/* of the event if neither */
	} cases[] = {
		{ 0, 4, 7, 0, true },
		{ 0, 8, 7, 0, false, DOORBELL_EVENT_QUEUE },
		{ 0, 12, 7, -ERANGE },
		{ ORDERED, 4, 7, 0, true },
		{ ORDERED, 0, 7, 0, false, DOORBELL_EVENT_QUEUE },
		{ NO_VALUE, 4, 0, 0, true },
		{ BY_VALUE, 8, 0x10001, 0, true },
		{ BY_VALUE, 4, 2, 0, false, DOORBELL_EVENT_QUEUE },
		{ BY_VALUE, 4, 5, 0, false, DOORBELL_EVENT_BAD_QUEUE },
		{ BY_VALUE | ORDERED, 4, 0xffff, 0, false,
		  DOORBELL_EVENT_BAD_QUEUE },
		{ BOUND_ONLY, 7, 7, 0, true },
		{ BOUND_ONLY, 8, 7, -ENXIO },
		{ BOUND_ONLY, 12, 7, -ERANGE },
		{ BOUND_ONLY | ORDERED, 8, 7, -ENXIO },
		{ BOUND_ONLY | BY_VALUE, 0, 1, 0, true },
		{ BOUND_ONLY | BY_VALUE, 4, 0, -ENXIO },
		{ BOUND_ONLY | BY_VALUE, 4, 5, -ENXIO },
		{ BOUND_ONLY | BY_VALUE | ORDERED, 4, 5, -ENXIO },
	};
	const s32 fd = 2;
	int i;

	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		u32 flags = cases[i].flags;
		struct doorbell_region *region = new_region(test, flags);
		bool event_due = !cases[i].ret && !cases[i].signals;
		struct doorbell_event event;
		bool wake = false;

		KUNIT_ASSERT_EQ(test, 0, bind(region, 1, 1, &fd));
		eventfds[2].signals = 0;
		KUNIT_EXPECT_EQ_MSG(test, cases[i].ret,
				    doorbell_region_ring(region, flags,
							 cases[i].offset,
							 cases[i].value,
							 WIDTH_4, true),
				    "case %d", i);
		KUNIT_EXPECT_EQ_MSG(test, cases[i].signals,
				    eventfds[2].signals, "case %d", i);
		KUNIT_EXPECT_EQ(test, cases[i].signals,
				atomic64_read(&region->bindings[1].rings));
		KUNIT_EXPECT_EQ(test, cases[i].signals,
				doorbell_region_bound_rings(region));
		KUNIT_EXPECT_EQ(test, event_due,
				atomic64_read(&region->wakeups));
		KUNIT_ASSERT_EQ(test, event_due,
				consume_events(&region->buffer, &event, 1,
					       &wake));
		if (event_due)
			KUNIT_EXPECT_EQ(test, cases[i].type, event.type);
	}
}

/* A ring of a bound queue needs no room. */
static void region_signals_when_full(struct kunit *test)
{
	struct doorbell_region *region = new_region(test, ORDERED);
	const s32 fd = 0;
	int i;

	eventfds[0].signals = 0;
	for (i = 0; i < 2; i++)
		KUNIT_ASSERT_EQ(test, 0,
				doorbell_region_ring(region, ORDERED, 4, 1,
						     WIDTH_4, true));
	KUNIT_ASSERT_EQ(test, 0, bind(region, 1, 1, &fd));
	KUNIT_EXPECT_EQ(test, 0, doorbell_region_ring(region, ORDERED, 4, 1,
						      WIDTH_4, true));
	KUNIT_EXPECT_EQ(test, 1, eventfds[0].signals);
	KUNIT_EXPECT_EQ(test, 0, atomic64_read(&region->bounced));
	KUNIT_EXPECT_EQ(test, -EAGAIN,
			doorbell_region_ring(region, ORDERED, 0, 1, WIDTH_4,
					     true));
}

/*
 * The region references an eventfd once for each queue. What it unbinds it puts
 * after a grace period, which a queue that was not bound does not need.
 */
static void region_binds(struct kunit *test)
{
	static const struct {
		s32 fds[3];
		bool grace;
		int refs[3];
	} cases[] = {
		{ { -1, -1, -1 }, false, { 0, 0, 0 } },
		{ { -1, 0, -1 }, false, { 1, 0, 0 } },
		{ { 1, 1, 0 }, true, { 1, 2, 0 } },
		{ { 1, 1, 0 }, true, { 1, 2, 0 } },
		{ { 2, 2, 2 }, true, { 0, 0, 3 } },
		{ { -1, 2, -1 }, true, { 0, 0, 1 } },
		{ { -1, -1, -1 }, true, { 0, 0, 0 } },
		{ { 0, 1, 2 }, false, { 1, 1, 1 } },
	};
	struct doorbell_attach arg = { .len = 12 };
	struct doorbell_region *region;
	int i, q;

	region = doorbell_region_create(&arg, new_waiters(test));
	KUNIT_ASSERT_FALSE(test, IS_ERR(region));
	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		KUNIT_EXPECT_EQ(test, 0, bind(region, 0, 3, cases[i].fds));
		KUNIT_EXPECT_EQ_MSG(test, cases[i].grace, graces, "case %d", i);
		KUNIT_EXPECT_EQ_MSG(test, 0, early_puts, "case %d", i);
		expect_refs(test, cases[i].refs[0], cases[i].refs[1],
			    cases[i].refs[2]);
		for (q = 0; q < 3; q++)
			KUNIT_EXPECT_EQ(test, cases[i].fds[q],
					bound_to(region, q));
	}
	/* one of three */
	KUNIT_EXPECT_EQ(test, 0, bind(region, 2, 1, cases[0].fds));
	KUNIT_EXPECT_EQ(test, -1, bound_to(region, 2));
	KUNIT_EXPECT_EQ(test, 1, bound_to(region, 1));
	/* bindings end with the region */
	free_region(region);
	expect_refs(test, 0, 0, 0);
}

/* A call that fails changes nothing and keeps no eventfd. */
static void region_refuses_to_bind(struct kunit *test)
{
	static const struct {
		u32 first, count;
		s32 fds[3];
		int fault;	/* this one cannot be read, or -1 */
		int ret;
	} cases[] = {
		{ 0, 0, {}, -1, -EINVAL },
		{ 3, 1, {}, -1, -EINVAL },
		{ 0, 4, {}, -1, -EINVAL },
		{ 1, 3, {}, -1, -EINVAL },
		{ 1, U32_MAX, {}, -1, -EINVAL },
		{ U32_MAX, 1, {}, -1, -EINVAL },
		{ U32_MAX, 2, {}, -1, -EINVAL },
		{ 0, 3, { OTHER_FILE, 1, 1 }, -1, -EINVAL },
		{ 0, 3, { 1, OTHER_FILE, 1 }, -1, -EINVAL },
		{ 0, 3, { 1, 1, OTHER_FILE }, -1, -EINVAL },
		{ 0, 3, { 1, -1, -2 }, -1, -EBADF },
		{ 0, 3, { 1, 99, 1 }, -1, -EBADF },
		{ 0, 3, { 1, 1, 1 }, 0, -EFAULT },
		{ 0, 3, { -1, -1, -1 }, 2, -EFAULT },
	};
	struct doorbell_region *region = new_region(test, 0);
	const s32 fds[] = { 0, -1, 2 };
	int i, bound;

	for (bound = 0; bound < 2; bound++) {
		if (bound)
			KUNIT_ASSERT_EQ(test, 0, bind(region, 0, 3, fds));
		for (i = 0; i < ARRAY_SIZE(cases); i++) {
			if (cases[i].fault >= 0)
				fault = &cases[i].fds[cases[i].fault];
			KUNIT_EXPECT_EQ_MSG(test, cases[i].ret,
					    bind(region, cases[i].first,
						 cases[i].count, cases[i].fds),
					    "case %d", i);
			fault = NULL;
			KUNIT_EXPECT_EQ(test, 0, graces);
			expect_refs(test, bound, 0, bound);
			KUNIT_EXPECT_EQ(test, bound ? 0 : -1,
					bound_to(region, 0));
			KUNIT_EXPECT_EQ(test, -1, bound_to(region, 1));
			KUNIT_EXPECT_EQ(test, bound ? 2 : -1,
					bound_to(region, 2));
		}
		KUNIT_EXPECT_EQ(test, bound, !!region->bindings);
	}
}

/**
 * struct binding_thread - a call in a thread of its own
 * @region: the region
 * @begins: before the call
 * @ret: the result
 * @done: after the call
 */
struct binding_thread {
	struct doorbell_region *region;
	struct completion begins;
	int ret;
	struct completion done;
};

static int bind_thread(void *arg)
{
	struct binding_thread *thread = arg;
	static const s32 fds[] = { 0, 2 };

	allow_signal(SIGKILL);
	complete(&thread->begins);
	thread->ret = bind(thread->region, 0, 2, fds);
	kthread_complete_and_exit(&thread->done, 0);
}

/* A call that is killed while another one binds keeps no eventfd. */
static void region_killed_bind(struct kunit *test)
{
	struct doorbell_region *region = new_region(test, 0);
	struct binding_thread thread = { .region = region };
	struct task_struct *task;
	unsigned long done = 0;

	init_completion(&thread.begins);
	init_completion(&thread.done);
	mutex_lock(&region->bind_lock);
	task = kthread_run(bind_thread, &thread, "doorbell-bind");
	if (!IS_ERR(task)) {
		wait_for_completion(&thread.begins);
		/* perhaps before it waits for the lock, which is the same */
		send_sig(SIGKILL, task, 1);
		done = wait_for_completion_timeout(&thread.done, 60 * HZ);
	}
	mutex_unlock(&region->bind_lock);
	KUNIT_ASSERT_FALSE(test, IS_ERR(task));
	KUNIT_EXPECT_NE(test, 0, done);
	/* if the lock made it wait in spite of the signal */
	if (!done)
		wait_for_completion(&thread.done);
	KUNIT_EXPECT_EQ(test, -EINTR, thread.ret);
	expect_refs(test, 0, 0, 0);
	KUNIT_EXPECT_NULL(test, region->bindings);
}

struct unbinding {
	struct work_struct work;
	struct doorbell_region *region;
	int ret;
	bool done;
};

static void unbind(struct work_struct *work)
{
	struct unbinding *unbinding = container_of(work, struct unbinding,
						   work);
	static const s32 fd = -1;

	unbinding->ret = doorbell_region_bind(unbinding->region, 0, 1,
					      (const s32 __force __user *)&fd);
	WRITE_ONCE(unbinding->done, true);
}

/*
 * Two threads unbind a queue while a ring signals its eventfd: neither call
 * returns before the ring has ended.
 */
static void region_unbinds_twice(struct kunit *test)
{
	DECLARE_COMPLETION_ONSTACK(ring);
	struct doorbell_region *region = new_region(test, 0);
	struct unbinding unbindings[2];
	const s32 fd = 0;
	int i;

	KUNIT_ASSERT_EQ(test, 0, bind(region, 0, 1, &fd));
	ring_ends = &ring;
	for (i = 0; i < 2; i++) {
		unbindings[i].region = region;
		unbindings[i].done = false;
		INIT_WORK_ONSTACK(&unbindings[i].work, unbind);
		queue_work(system_unbound_wq, &unbindings[i].work);
		/* the second one finds that the first one is waiting */
		if (!i)
			wait_for_completion(&grace_begins);
	}
	msleep(20);
	for (i = 0; i < 2; i++)
		KUNIT_EXPECT_FALSE(test, READ_ONCE(unbindings[i].done));

	complete_all(&ring);
	for (i = 0; i < 2; i++) {
		flush_work(&unbindings[i].work);
		destroy_work_on_stack(&unbindings[i].work);
		KUNIT_EXPECT_EQ(test, 0, unbindings[i].ret);
	}
	ring_ends = NULL;
	KUNIT_EXPECT_EQ(test, -1, bound_to(region, 0));
	expect_refs(test, 0, 0, 0);
}

static struct kunit_case region_tests[] = {
	KUNIT_CASE(region_arguments),
	KUNIT_CASE(region_accepts),
	KUNIT_CASE(region_rings),
	KUNIT_CASE(region_bounces),
	KUNIT_CASE(region_wakes),
	KUNIT_CASE(region_errors),
	KUNIT_CASE(region_writer_delays_hangup),
	KUNIT_CASE(region_status),
	KUNIT_CASE(region_pending),
	KUNIT_CASE(region_keeps_waiters),
	KUNIT_CASE(region_signals),
	KUNIT_CASE(region_signals_when_full),
	KUNIT_CASE(region_binds),
	KUNIT_CASE(region_refuses_to_bind),
	KUNIT_CASE(region_killed_bind),
	KUNIT_CASE(region_unbinds_twice),
	{}
};

static struct kunit_suite region_suite = {
	.name = "doorbell_region",
	.test_cases = region_tests,
};

kunit_test_suite(region_suite);

/* All suites use regions. */
static int __init kunit_regions_init(void)
{
	return doorbell_region_init();
}
module_init(kunit_regions_init);

static void __exit kunit_regions_exit(void)
{
	doorbell_region_exit();
}
module_exit(kunit_regions_exit);
