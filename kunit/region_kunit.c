// SPDX-License-Identifier: GPL-2.0
/*
 * Region: the rings that it makes of offsets and values, its counters, wake-ups
 * and hang-up.
 */
#include <kunit/test.h>

#include <linux/err.h>

#include "../drivers/virt/doorbell/region.c"

#include "buffer_util.h"

#define PIO		DOORBELL_ATTACH_PIO
#define ORDERED		DOORBELL_ATTACH_ORDERED
#define BY_VALUE	DOORBELL_ATTACH_BY_VALUE
#define NO_VALUE	DOORBELL_ATTACH_NO_VALUE

/* The kind of a ring with a value of 4 bytes. */
#define WIDTH_4		doorbell_kind(DOORBELL_EVENT_QUEUE, 4)

KUNIT_DEFINE_ACTION_WRAPPER(put_region, doorbell_region_put,
			    struct doorbell_region *);
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
		{ ORDERED, 0, 0, -EINVAL },
		{ ORDERED, DOORBELL_DEPTH_MAX + 1, 0, -EINVAL },
		{ 0, 1, 0, -EINVAL },
		{ BY_VALUE, 0, 0, -EINVAL },
		{ BY_VALUE, 0, DOORBELL_QUEUES_MAX + 1, -EINVAL },
		{ 0, 0, 1, -EINVAL },
		{ NO_VALUE | PIO, 0, 0, -EINVAL },
		{ NO_VALUE | BY_VALUE, 0, 1, -EINVAL },
		{ 1U << 4, 0, 0, -EINVAL },
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
			doorbell_region_put(region);
	}
	/* each region that is gone has dropped its reference */
	KUNIT_EXPECT_EQ(test, 1, kref_read(&waiters->ref));
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
			KUNIT_EXPECT_FALSE(test,
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
	doorbell_region_put(region);
}

static struct kunit_case region_tests[] = {
	KUNIT_CASE(region_arguments),
	KUNIT_CASE(region_rings),
	KUNIT_CASE(region_bounces),
	KUNIT_CASE(region_wakes),
	KUNIT_CASE(region_errors),
	KUNIT_CASE(region_keeps_waiters),
	{}
};

static struct kunit_suite region_suite = {
	.name = "doorbell_region",
	.test_cases = region_tests,
};

kunit_test_suite(region_suite);
