// SPDX-License-Identifier: GPL-2.0
/*
 * Geometry: the rules for regions, and the queue of an address.
 *
 * The oracle is a loop that subtracts one stride at a time; it neither shifts
 * nor masks. Large numbers come from tables.
 */
#include <kunit/test.h>

#include <linux/module.h>

#include "../drivers/virt/doorbell/geometry.c"

#define GIB	0x40000000ULL

struct region_case {
	u64 base;
	u64 len;
	u32 stride;
	bool pio;
	u32 queues;		/* 0: refused */
};

static const struct region_case region_cases[] = {
	/* from the tests of Fuchsia's GuestBellTrap: stride 4 */
	{ 3, 4, 4 },			/* base unaligned */
	{ 1, 4, 4 },
	{ 8, 0, 4 },			/* no queue */
	{ 8, 1, 4 },			/* len unaligned */
	{ 8, 3, 4 },
	{ 8, 9, 4 },
	{ 8, 42, 4 },
	{ 64, 12, 4, .queues = 3 },
	{ 80, 12, 4, .queues = 3 },
	/* the default stride */
	{ 80, 12, 0, .queues = 3 },
	{ 82, 12, 0 },
	{ 80, 10, 0 },
	/* most queues, more, and those that look few in 16 or 32 bits */
	{ 0, 65535 * 4, 4, .queues = 65535 },
	{ 0, 65536 * 4, 4 },
	{ 0, 0x40004, 4 },
	{ 0, 65539 * 4, 4 },
	{ 0, 0x100000001 * 4, 4 },
	{ 0, 0x100000000, 4 },
	{ 0, 65535 * 2, 2, .queues = 65535 },
	{ 0, 65536 * 2, 2 },
	{ 0, 65535 * 65536ULL, 65536, .queues = 65535 },
	{ 0, 65536 * 65536ULL, 65536 },
	{ 0, 65537 * 65536ULL, 65536 },
	{ 0, 0xfffffffffffffffc, 4 },
	{ 0, 0xffffffffffff0000, 65536 },
	/* the end of the 64-bit space */
	{ 0xfffffffffffffff8, 4, 4, .queues = 1 },
	{ 0xfffffffffffffff8, 8, 4 },
	{ 0xfffffffffffffffc, 4, 4 },
	{ 0xfffffffffffffffc, 8, 4 },
	{ 0xfffffffffffffff0, 0x20, 16 },
	{ 0xffffffff00000000, 0xffff0000, 65536, .queues = 65535 },
	{ 0xffffffff00010000, 0xffff0000, 65536 },
	{ 0xffffffff00020000, 0xffff0000, 65536 },
	{ 0xfffffffffffe0000, 0x10000, 65536, .queues = 1 },
	{ 0xffffffffffff0000, 0x10000, 65536 },
	/* addresses of more than 32 bits */
	{ 0x100000000, 8, 4, .queues = 2 },
	{ 0x100000002, 8, 4 },
	{ 0x8000000000000000, 8, 4, .queues = 2 },
	{ 3 * GIB, 2 * GIB, 65536, .queues = 32768 },
	/* I/O ports end at 64 KiB, memory does not */
	{ 0, 4, 4, true, .queues = 1 },
	{ 0xfffc, 4, 4, true, .queues = 1 },
	{ 0xfffe, 2, 2, true, .queues = 1 },
	{ 0, 0x10000, 4, true, .queues = 16384 },
	{ 0, 0x10000, 65536, true, .queues = 1 },
	{ 0xfffc, 8, 4, true },
	{ 0xfffe, 4, 2, true },
	{ 0x10000, 4, 4, true },
	{ 4, 0x10000, 4, true },
	{ 0, 0x20000, 65536, true },
	{ 0x100000000, 4, 4, true },
	{ 0xfffffffffffffffc, 4, 4, true },
	{ 0xfffc, 8, 4, false, .queues = 2 },
	{ 0x10000, 4, 4, false, .queues = 1 },
};

/* A refused region leaves the structure as it was. */
static void region_check(struct kunit *test, u64 base, u64 len, u32 stride,
			 bool pio, u32 queues)
{
	struct doorbell_geometry geo, before;
	int ret;

	memset(&geo, 0xa5, sizeof(geo));
	memset(&before, 0xa5, sizeof(before));
	ret = doorbell_geometry_init(&geo, base, len, stride, 0, pio);
	KUNIT_ASSERT_EQ_MSG(test, ret, queues ? 0 : -EINVAL,
			    "base %#llx len %#llx stride %#x pio %d",
			    base, len, stride, pio);
	if (queues) {
		KUNIT_ASSERT_EQ(test, geo.len, len);
		KUNIT_ASSERT_EQ_MSG(test, geo.queues, queues,
				    "base %#llx len %#llx stride %#x",
				    base, len, stride);
	} else {
		KUNIT_ASSERT_MEMEQ(test, &geo, &before, sizeof(geo));
	}
}

static void geometry_regions(struct kunit *test)
{
	const struct region_case *c;

	for (c = region_cases; c < region_cases + ARRAY_SIZE(region_cases); c++)
		region_check(test, c->base, c->len, c->stride, c->pio,
			     c->queues);
}

static const u32 good_strides[] = {
	2, 4, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 16384,
	32768, 65536,
};

static bool stride_is_good(u32 stride)
{
	int i;

	for (i = 0; i < ARRAY_SIZE(good_strides); i++)
		if (stride == good_strides[i])
			return true;
	return false;
}

/* Every stride up to 128 KiB and some beyond, with 10 and 65,535 queues */
static void geometry_strides(struct kunit *test)
{
	static const u32 large[] = {
		0x20000, 0x30000, 0x100000, 0x10002, 0x1000000, 0x7fffffff,
		0x80000000, 0x80000004, 0xfffffffc, 0xfffffffe, 0xffffffff,
	};
	u32 stride;
	int i;

	for (stride = 1; stride <= 0x20001; stride++) {
		bool good = stride_is_good(stride);

		region_check(test, 0, stride * 10ULL, stride, false,
			     good ? 10 : 0);
		if (!good)
			continue;
		region_check(test, stride * 3ULL, stride * 65535ULL, stride,
			     false, 65535);
		region_check(test, stride * 3ULL, stride * 65536ULL, stride,
			     false, 0);
		region_check(test, stride - 1, stride, stride, false, 0);
		region_check(test, stride, stride + 1, stride, false, 0);
	}
	for (i = 0; i < ARRAY_SIZE(large); i++)
		region_check(test, 0, large[i], large[i], false, 0);
}

/* The queue of an address, or -1 for an address outside. */
static int queue_at(const struct doorbell_geometry *geo, u64 base, u64 addr)
{
	return doorbell_geometry_contains(geo, addr - base) ?
	       doorbell_geometry_queue(geo, addr - base) : -1;
}

/* The addresses of GuestBellTrap's test, and others; -1 is no queue. */
static void geometry_addresses(struct kunit *test)
{
	static const struct {
		u64 base, len;
		u32 stride;
		u64 addr;
		int queue;
	} cases[] = {
		{ 80, 12, 4, 76, -1 },
		{ 80, 12, 4, 79, -1 },
		{ 80, 12, 4, 80, 0 },
		{ 80, 12, 4, 81, 0 },
		{ 80, 12, 4, 83, 0 },
		{ 80, 12, 4, 84, 1 },
		{ 80, 12, 4, 88, 2 },
		{ 80, 12, 4, 91, 2 },
		{ 80, 12, 4, 92, -1 },
		{ 80, 12, 4, 94, -1 },
		{ 80, 12, 4, 128, -1 },
		{ 80, 12, 4, 0, -1 },
		{ 80, 12, 4, U64_MAX, -1 },
		{ 80, 12, 4, 0x100000050, -1 },		/* 80 in 32 bits */
		{ 80, 12, 4, 0x8000000000000050, -1 },
		{ 0, 65535 * 4, 4, 65535 * 4 - 1, 65534 },
		{ 0, 65535 * 4, 4, 65535 * 4, -1 },
		{ 0, 65535 * 4, 4, U64_MAX, -1 },
		{ GIB, 0xffff0000, 65536, GIB - 1, -1 },
		{ GIB, 0xffff0000, 65536, GIB, 0 },
		{ GIB, 0xffff0000, 65536, GIB + 0xffff, 0 },
		{ GIB, 0xffff0000, 65536, GIB + 0x10000, 1 },
		{ GIB, 0xffff0000, 65536, 0x100000000, 0xc000 },
		{ GIB, 0xffff0000, 65536, GIB + 0xfffeffff, 65534 },
		{ GIB, 0xffff0000, 65536, GIB + 0xffff0000, -1 },
		{ GIB, 0xffff0000, 65536, GIB + 0x100000000, -1 },
		{ 0xfffffffffffffff0, 8, 2, 0xfffffffffffffff7, 3 },
		{ 0xfffffffffffffff0, 8, 2, 0xfffffffffffffff8, -1 },
		{ 0xfffffffffffffff0, 8, 2, 0, -1 },
		{ 0xfffffffffffffff0, 8, 2, 7, -1 },
	};
	struct doorbell_geometry geo;
	int i;

	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		KUNIT_ASSERT_EQ(test, 0,
				doorbell_geometry_init(&geo, cases[i].base,
						       cases[i].len,
						       cases[i].stride, 0,
						       false));
		KUNIT_EXPECT_EQ_MSG(test, cases[i].queue,
				    queue_at(&geo, cases[i].base,
					     cases[i].addr),
				    "base %#llx addr %#llx", cases[i].base,
				    cases[i].addr);
	}
}

/* The number of strides in @n, or -1 if it is no multiple */
static int slow_strides(u64 n, u32 stride)
{
	int strides = 0;

	for (; n >= stride; n -= stride)
		strides++;
	return n ? -1 : strides;
}

static int slow_queue(u64 base, int queues, u32 stride, u64 addr)
{
	int queue;
	u64 byte;

	for (queue = 0; queue < queues; queue++)
		for (byte = 0; byte < stride; byte++)
			if (addr == base++)
				return queue;
	return -1;
}

static void sweep_addresses(struct kunit *test,
			    const struct doorbell_geometry *geo, u64 base,
			    u64 len, int queues, u32 stride)
{
	u64 addr;

	for (addr = base - 9; addr != base + len + 9; addr++)
		KUNIT_ASSERT_EQ_MSG(test, queue_at(geo, base, addr),
				    slow_queue(base, queues, stride, addr),
				    "base %llu len %llu stride %u addr %llu",
				    base, len, stride, addr);
}

static void geometry_sweep(struct kunit *test)
{
	struct doorbell_geometry geo;
	u64 base, len;
	u32 stride, bytes;
	int queues, accepted = 0;

	for (stride = 0; stride <= 33; stride++) {
		bytes = stride ?: 4;
		for (base = 0; base <= 40; base++) {
			for (len = 0; len <= 48; len++) {
				queues = slow_strides(len, bytes);
				if (slow_strides(base, bytes) < 0 ||
				    queues < 0 || !stride_is_good(bytes))
					queues = 0;
				region_check(test, base, len, stride, base & 2,
					     queues);
				if (!queues)
					continue;
				accepted++;
				doorbell_geometry_init(&geo, base, len, stride,
						       0, false);
				sweep_addresses(test, &geo, base, len, queues,
						bytes);
			}
		}
	}
	/* strides 2, 0 and 4, 8, 16, 32: all pairs of base and len */
	KUNIT_EXPECT_EQ(test, accepted, 504 + 132 + 132 + 36 + 9 + 2);
}

/* The low 16 bits of the value name the queue. */
static void geometry_by_value(struct kunit *test)
{
	static const struct {
		u32 queues;
		u64 value;
		int queue;		/* none: -1 */
	} cases[] = {
		{ 1, 0, 0 },
		{ 1, 1, -1 },
		{ 1, 0x10000, 0 },
		{ 100, 99, 99 },
		{ 100, 100, -1 },
		{ 100, 0xffffffffffff0063, 99 },
		{ 65535, 65534, 65534 },
		{ 65535, 65535, -1 },
		{ 65535, 0x10000, 0 },
	};
	struct doorbell_geometry geo;
	int i;

	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		u64 value = cases[i].value;

		KUNIT_ASSERT_EQ(test, 0,
				doorbell_geometry_init(&geo, 64, 4, 4,
						       cases[i].queues, false));
		KUNIT_EXPECT_EQ(test, geo.queues, cases[i].queues);
		KUNIT_EXPECT_EQ_MSG(test, cases[i].queue,
				    doorbell_geometry_queue_by_value(&geo,
								     value),
				    "queues %u value %#llx", cases[i].queues,
				    value);
		KUNIT_EXPECT_FALSE(test, doorbell_geometry_contains(&geo, -1));
		KUNIT_EXPECT_TRUE(test, doorbell_geometry_contains(&geo, 0));
		KUNIT_EXPECT_TRUE(test, doorbell_geometry_contains(&geo, 3));
		KUNIT_EXPECT_FALSE(test, doorbell_geometry_contains(&geo, 4));
	}
	KUNIT_EXPECT_EQ(test, -EINVAL,
			doorbell_geometry_init(&geo, 64, 4, 4, 65536, false));
}

static struct kunit_case geometry_tests[] = {
	KUNIT_CASE(geometry_regions),
	KUNIT_CASE(geometry_strides),
	KUNIT_CASE(geometry_addresses),
	KUNIT_CASE(geometry_sweep),
	KUNIT_CASE(geometry_by_value),
	{}
};

static struct kunit_suite geometry_suite = {
	.name = "doorbell_geometry",
	.test_cases = geometry_tests,
};

kunit_test_suite(geometry_suite);

MODULE_DESCRIPTION("KUnit suites of doorbell");
MODULE_LICENSE("GPL");
