// SPDX-License-Identifier: GPL-2.0
/*
 * Buffer: rings and reads of one thread, step by step.
 *
 * The oracle is struct model: an array of counts and a list of queues in order
 * of first ring. States that only a race leads to are set up by hand.
 */
#include <kunit/test.h>

#include <linux/module.h>
#include <linux/prandom.h>

#include "../drivers/virt/doorbell/buffer.c"
#include "buffer_util.h"

/* An event, in the order of the fields of struct doorbell_event */
#define QUEUE_EVENT(q, w, n, v)	{ q, DOORBELL_EVENT_QUEUE, w, n, v }
#define BAD_EVENT(n, addr)	{ DOORBELL_QUEUE_NONE, \
				  DOORBELL_EVENT_BAD_ADDRESS, 0, n, addr }

KUNIT_DEFINE_ACTION_WRAPPER(buffer_destroy_action, doorbell_buffer_destroy,
			    struct doorbell_buffer *);

static struct doorbell_buffer *new_ordered(struct kunit *test, u32 queues,
					   u32 depth)
{
	struct doorbell_buffer *buf =
		kunit_kzalloc(test, sizeof(*buf), GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, buf);
	KUNIT_ASSERT_EQ(test, doorbell_buffer_init(buf, queues, depth), 0);
	KUNIT_ASSERT_EQ(test, 0,
			kunit_add_action_or_reset(test, buffer_destroy_action,
						  buf));
	return buf;
}

static struct doorbell_buffer *new_buffer(struct kunit *test, u32 queues)
{
	return new_ordered(test, queues, 0);
}

static void expect_event(struct kunit *test, const struct doorbell_event *got,
			 const struct doorbell_event *want)
{
	KUNIT_ASSERT_EQ(test, got->queue, want->queue);
	KUNIT_ASSERT_EQ(test, got->type, want->type);
	KUNIT_ASSERT_EQ(test, got->width, want->width);
	KUNIT_ASSERT_EQ(test, got->count, want->count);
	KUNIT_ASSERT_EQ(test, got->value, want->value);
}

/* Expect exactly @n events, read @max at a time. */
static void expect_events(struct kunit *test, struct doorbell_buffer *buf,
			  unsigned int max, const struct doorbell_event *want,
			  unsigned int n)
{
	struct doorbell_event *events;
	unsigned int got, i;
	bool wake = false;

	/* an array of this size, so that KASAN sees a write beyond it */
	events = kunit_kcalloc(test, max, sizeof(*events), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, events);

	while (n) {
		KUNIT_ASSERT_TRUE(test, doorbell_buffer_readable(buf));
		got = consume_events(buf, events, max, &wake);
		KUNIT_ASSERT_EQ(test, got, min(n, max));
		for (i = 0; i < got; i++)
			expect_event(test, &events[i], want++);
		n -= got;
	}
	KUNIT_ASSERT_FALSE(test, doorbell_buffer_readable(buf));
	KUNIT_ASSERT_EQ(test, consume_events(buf, events, max, &wake), 0);
	KUNIT_ASSERT_FALSE(test, wake);
	kunit_kfree(test, events);
}

/* packet_stream of Fuchsia's bell.rs: two queues and a bad address */
static void buffer_stream(struct kunit *test)
{
	static const struct doorbell_event want[] = {
		QUEUE_EVENT(0, 4, 1, 0x11),
		QUEUE_EVENT(1, 2, 1, 0x22),
		BAD_EVENT(1, 0x1234),
	};
	struct doorbell_buffer *buf = new_buffer(test, 2);

	expect_events(test, buf, 8, NULL, 0);
	ring(buf, 0, 0x11, 4);
	ring(buf, 1, 0x22, 2);
	ring(buf, doorbell_buffer_bad(buf), 0x1234, 0);
	expect_events(test, buf, 8, want, ARRAY_SIZE(want));
}

/* Count, last value, last width, order of first ring */
static void buffer_coalescing(struct kunit *test)
{
	static const struct {
		u32 index;
		u64 value;
		u8 width;
	} rings[] = {
		{ 5, 1, 4 },
		{ 2, 2, 8 },
		{ 5, U64_MAX, 8 },
		{ 7, 0, 1 },
		{ 2, 3, 8 },
		{ 5, 4, 0 },
		{ 0, 5, 2 },
		{ 5, 6, 2 },
	};
	static const struct doorbell_event want[] = {
		QUEUE_EVENT(5, 2, 4, 6),
		QUEUE_EVENT(2, 8, 2, 3),
		QUEUE_EVENT(7, 1, 1, 0),
		QUEUE_EVENT(0, 2, 1, 5),
	};
	struct doorbell_buffer *buf = new_buffer(test, 8);
	unsigned int max;
	int i;

	for (max = 1; max <= 5; max++) {
		for (i = 0; i < ARRAY_SIZE(rings); i++)
			ring(buf, rings[i].index, rings[i].value,
			     rings[i].width);
		expect_events(test, buf, max, want, ARRAY_SIZE(want));
	}
}

/* A queue that is rung after its event is consumed gets a new position. */
static void buffer_new_position(struct kunit *test)
{
	static const struct doorbell_event first[] = {
		QUEUE_EVENT(0, 4, 1, 10),
	};
	static const struct doorbell_event rest[] = {
		QUEUE_EVENT(1, 4, 1, 11),
		QUEUE_EVENT(2, 4, 2, 14),
		QUEUE_EVENT(0, 4, 1, 13),
	};
	struct doorbell_buffer *buf = new_buffer(test, 3);
	struct doorbell_event event;
	bool wake = false;

	ring(buf, 0, 10, 4);
	ring(buf, 1, 11, 4);
	ring(buf, 2, 12, 4);
	KUNIT_ASSERT_EQ(test, consume_events(buf, &event, 1, &wake), 1);
	expect_event(test, &event, first);
	ring(buf, 0, 13, 4);
	ring(buf, 2, 14, 4);
	expect_events(test, buf, 2, rest, ARRAY_SIZE(rest));
}

/* All 65,535 queues and bad addresses, backwards, twice */
static void buffer_every(struct kunit *test)
{
	struct doorbell_buffer *buf = new_buffer(test, DOORBELL_QUEUES_MAX);
	unsigned int max = 257, got, i, round;
	struct doorbell_event *events;
	bool wake = false;
	u32 next;

	events = kunit_kcalloc(test, max, sizeof(*events), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, events);
	KUNIT_ASSERT_EQ(test, buf->nr_slots, 65536);

	for (round = 1; round <= 2; round++) {
		for (i = 65536; i--; ) {
			ring(buf, i, i * 3 + round, 0);
			KUNIT_ASSERT_TRUE(test, doorbell_buffer_readable(buf));
		}
		for (next = 65536; next; ) {
			got = consume_events(buf, events, max, &wake);
			KUNIT_ASSERT_EQ(test, got, min(next, max));
			for (i = 0; i < got; i++) {
				next--;
				KUNIT_ASSERT_EQ(test, events[i].queue, next);
				KUNIT_ASSERT_EQ(test, events[i].type,
						next == 65535);
				KUNIT_ASSERT_EQ(test, events[i].count, 1);
				KUNIT_ASSERT_EQ(test, events[i].value,
						next * 3 + round);
			}
		}
		expect_events(test, buf, max, NULL, 0);
	}
}

/* Bounded memory: all bad addresses share one entry and one event. */
static void buffer_bad_flood(struct kunit *test)
{
	static const struct doorbell_event want[] = {
		QUEUE_EVENT(1, 4, 1, 7),
		BAD_EVENT(50000, 49999),
		QUEUE_EVENT(0, 4, 2, 9),
	};
	struct doorbell_buffer *buf = new_buffer(test, 2);
	struct doorbell_counters counters;
	int i;

	ring(buf, 1, 7, 4);
	for (i = 0; i < 50000; i++) {
		ring(buf, doorbell_buffer_bad(buf), i, 0);
		if (i == 100 || i == 200)
			ring(buf, 0, 9, 4);
	}
	KUNIT_EXPECT_EQ(test, atomic64_read(&buf->tail) - buf->control->head,
			3);

	doorbell_buffer_count(buf, &counters);
	KUNIT_EXPECT_EQ(test, counters.rings, 3);
	KUNIT_EXPECT_EQ(test, counters.bad_rings, 50000);
	KUNIT_EXPECT_EQ(test, counters.pending, 50003);

	expect_events(test, buf, 2, want, ARRAY_SIZE(want));

	doorbell_buffer_count(buf, &counters);
	KUNIT_EXPECT_EQ(test, counters.rings, 3);
	KUNIT_EXPECT_EQ(test, counters.bad_rings, 50000);
	KUNIT_EXPECT_EQ(test, counters.pending, 0);
}

/* More rings than the count of an event holds */
static void buffer_count_overflow(struct kunit *test)
{
	static const struct {
		u64 extra;		/* on top of one ring */
		unsigned int events;
	} cases[] = {
		{ U32_MAX - 2ULL, 1 },
		{ U32_MAX - 1ULL, 1 },
		{ U32_MAX, 2 },
		{ U32_MAX + 1ULL, 2 },
		{ 2ULL * U32_MAX - 1, 2 },
		{ 2ULL * U32_MAX, 3 },
		{ 3ULL * U32_MAX + 4, 4 },
	};
	struct doorbell_event event;
	unsigned int i, events, others;
	struct doorbell_buffer *buf;
	bool wake;
	u64 sum;

	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		buf = new_buffer(test, 3);
		ring(buf, 1, 5, 8);
		atomic64_add(cases[i].extra << DOORBELL_RINGS_SHIFT,
			     &buf->slots[1].rings);
		ring(buf, 2, 6, 4);
		others = 0;
		events = 0;
		sum = 0;
		wake = false;
		while (consume_events(buf, &event, 1, &wake)) {
			if (event.queue == 2) {
				others += event.count;
				continue;
			}
			KUNIT_ASSERT_EQ(test, event.queue, 1);
			KUNIT_ASSERT_EQ(test, event.value, 5);
			KUNIT_ASSERT_EQ(test, event.width, 8);
			KUNIT_ASSERT_GT(test, event.count, 0);
			sum += event.count;
			events++;
			KUNIT_ASSERT_LE(test, events, cases[i].events);
		}
		KUNIT_EXPECT_EQ(test, sum, cases[i].extra + 1);
		KUNIT_EXPECT_EQ(test, events, cases[i].events);
		KUNIT_EXPECT_EQ(test, others, 1);
		KUNIT_EXPECT_FALSE(test, doorbell_buffer_readable(buf));
	}
}

/* Reading a part of the rings of a queue wakes an armed consumer, once. */
static void buffer_count_overflow_wakes(struct kunit *test)
{
	struct doorbell_buffer *buf = new_buffer(test, 1);
	struct doorbell_event event;
	bool wake = false;

	ring(buf, 0, 1, 4);
	atomic64_add(3ULL * U32_MAX << DOORBELL_RINGS_SHIFT,
		     &buf->slots[0].rings);

	KUNIT_ASSERT_EQ(test, consume_events(buf, &event, 1, &wake), 1);
	KUNIT_EXPECT_FALSE(test, wake);
	doorbell_buffer_arm(buf);
	KUNIT_ASSERT_EQ(test, consume_events(buf, &event, 1, &wake), 1);
	KUNIT_EXPECT_TRUE(test, wake);
	wake = false;
	KUNIT_ASSERT_EQ(test, consume_events(buf, &event, 1, &wake), 1);
	KUNIT_EXPECT_FALSE(test, wake);
	KUNIT_ASSERT_EQ(test, consume_events(buf, &event, 1, &wake), 1);
	KUNIT_EXPECT_EQ(test, event.count, 1);
	KUNIT_EXPECT_FALSE(test, doorbell_buffer_readable(buf));
}

/* Wake-ups: the first ring after arming wakes the consumer, no later one. */
static void buffer_wake(struct kunit *test)
{
	static const struct doorbell_event want[] = {
		QUEUE_EVENT(0, 4, 3, 3),
		QUEUE_EVENT(1, 4, 1, 4),
	};
	struct doorbell_buffer *buf = new_buffer(test, 2);

	/* doorbell_buffer_init() has armed: a consumer may wait already */
	KUNIT_EXPECT_TRUE(test, ring(buf, 0, 1, 4));
	KUNIT_EXPECT_FALSE(test, ring(buf, 0, 2, 4));
	KUNIT_EXPECT_FALSE(test, ring(buf, 0, 3, 4));
	KUNIT_EXPECT_FALSE(test, ring(buf, 1, 4, 4));
	expect_events(test, buf, 8, want, ARRAY_SIZE(want));

	/* not armed */
	KUNIT_EXPECT_FALSE(test, ring(buf, 0, 1, 4));
	/* armed with events pending, then a new one */
	doorbell_buffer_arm(buf);
	KUNIT_EXPECT_TRUE(test, doorbell_buffer_readable(buf));
	KUNIT_EXPECT_TRUE(test, ring(buf, 1, 4, 4));
	KUNIT_EXPECT_FALSE(test, ring(buf, 0, 2, 4));
	KUNIT_EXPECT_FALSE(test, ring(buf, 0, 3, 4));
	expect_events(test, buf, 8, want, ARRAY_SIZE(want));

	/* armed twice, woken once, by a bad address */
	doorbell_buffer_arm(buf);
	doorbell_buffer_arm(buf);
	KUNIT_EXPECT_FALSE(test, doorbell_buffer_readable(buf));
	KUNIT_EXPECT_TRUE(test, ring(buf, doorbell_buffer_bad(buf),
				     4, 0));
	KUNIT_EXPECT_FALSE(test, ring(buf, 1, 4, 4));
}

/*
 * Create an entry whose rings are all counted. A ring leaves one behind if it
 * races with a consumer that moves head past the old entry of its queue.
 */
static void make_stale(struct doorbell_buffer *buf, u32 index)
{
	ring(buf, index, 1, 4);
	buf->control->seen[index] += 1 << DOORBELL_RINGS_SHIFT;
}

static void buffer_stale_entry(struct kunit *test)
{
	static const struct doorbell_event first[] = {
		QUEUE_EVENT(2, 4, 1, 2),
	};
	static const struct doorbell_event both[] = {
		QUEUE_EVENT(0, 4, 1, 3),
		QUEUE_EVENT(2, 4, 1, 2),
	};
	struct doorbell_buffer *buf = new_buffer(test, 3);
	unsigned int max;

	for (max = 1; max <= 3; max++) {
		/* only such entries */
		make_stale(buf, 0);
		make_stale(buf, 1);
		expect_events(test, buf, max, NULL, 0);
		/* before an entry with rings */
		make_stale(buf, 0);
		make_stale(buf, 1);
		ring(buf, 2, 2, 4);
		expect_events(test, buf, max, first, 1);
		/* a new ring uses the entry that its queue has */
		make_stale(buf, 0);
		ring(buf, 2, 2, 4);
		ring(buf, 0, 3, 4);
		expect_events(test, buf, max, both, 2);
	}
}

/*
 * A consumer that arms and finds only such entries sleeps. The next ring must
 * wake it, also a ring of a queue that has such an entry.
 */
static void buffer_stale_entry_wakes(struct kunit *test)
{
	struct doorbell_buffer *buf = new_buffer(test, 3);

	make_stale(buf, 0);
	doorbell_buffer_arm(buf);
	KUNIT_ASSERT_FALSE(test, doorbell_buffer_readable(buf));
	KUNIT_EXPECT_TRUE(test, ring(buf, 0, 2, 4));
	KUNIT_EXPECT_TRUE(test, doorbell_buffer_readable(buf));
}

/**
 * struct model - the oracle
 * @rng: random numbers with a fixed start
 * @queues: number of queues; the slot of bad addresses is the last one
 * @count: rings since the last event, for each slot
 * @value: last value of each slot
 * @width: last width of each slot
 * @order: slots with a count, in order of first ring
 * @waiting: number of slots in @order
 * @armed: the consumer has armed since its last wake-up
 * @asleep: it has found nothing since
 * @events: events read
 */
struct model {
	struct rnd_state rng;
	u32 queues;
	u32 *count;
	u64 *value;
	u8 *width;
	u32 *order;
	u32 waiting;
	bool armed;
	bool asleep;
	struct doorbell_event *events;
};

#define MODEL_MAX	11

static struct model *new_model(struct kunit *test, u32 queues, u64 seed)
{
	struct model *m = kunit_kzalloc(test, sizeof(*m), GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, m);
	prandom_seed_state(&m->rng, seed);
	m->queues = queues;
	m->count = kunit_kcalloc(test, queues + 1, sizeof(*m->count),
				 GFP_KERNEL);
	m->value = kunit_kcalloc(test, queues + 1, sizeof(*m->value),
				 GFP_KERNEL);
	m->width = kunit_kcalloc(test, queues + 1, sizeof(*m->width),
				 GFP_KERNEL);
	m->order = kunit_kcalloc(test, queues + 1, sizeof(*m->order),
				 GFP_KERNEL);
	m->events = kunit_kcalloc(test, MODEL_MAX, sizeof(*m->events),
				  GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, m->count);
	KUNIT_ASSERT_NOT_NULL(test, m->value);
	KUNIT_ASSERT_NOT_NULL(test, m->width);
	KUNIT_ASSERT_NOT_NULL(test, m->order);
	KUNIT_ASSERT_NOT_NULL(test, m->events);
	return m;
}

static u32 model_random(struct model *m, u32 below)
{
	return prandom_u32_state(&m->rng) % below;
}

static void model_ring(struct kunit *test, struct model *m,
		       struct doorbell_buffer *buf)
{
	/* half of the rings go to three queues */
	u32 i = model_random(m, model_random(m, 2) ? m->queues + 1 :
			     min(m->queues + 1, 3));
	bool woken;

	if (!m->count[i])
		m->order[m->waiting++] = i;
	m->count[i]++;
	m->value[i] = prandom_u32_state(&m->rng) * 0x100000001ULL;
	m->width[i] = i == m->queues ? 0 : model_random(m, 9);

	woken = ring(buf, i, m->value[i], m->width[i]);
	if (!m->armed)
		KUNIT_ASSERT_FALSE(test, woken);
	if (m->asleep)
		KUNIT_ASSERT_TRUE(test, woken);
	if (woken) {
		m->armed = false;
		m->asleep = false;
	}
}

static void model_consume(struct kunit *test, struct model *m,
			  struct doorbell_buffer *buf)
{
	unsigned int max = 1 + model_random(m, MODEL_MAX);
	unsigned int got, i;
	bool wake = false;

	got = consume_events(buf, m->events, max, &wake);
	KUNIT_ASSERT_EQ(test, got, min(max, m->waiting));
	KUNIT_ASSERT_FALSE(test, wake);
	for (i = 0; i < got; i++) {
		u32 slot = m->order[i];
		bool bad = slot == m->queues;
		struct doorbell_event want = {
			.queue = bad ? DOORBELL_QUEUE_NONE : slot,
			.type = bad ? DOORBELL_EVENT_BAD_ADDRESS :
				      DOORBELL_EVENT_QUEUE,
			.width = m->width[slot],
			.count = m->count[slot],
			.value = m->value[slot],
		};

		expect_event(test, &m->events[i], &want);
		m->count[slot] = 0;
	}
	m->waiting -= got;
	memmove(m->order, m->order + got, m->waiting * sizeof(*m->order));
}

static void model_run(struct kunit *test, struct model *m,
		      struct doorbell_buffer *buf, int steps)
{
	struct doorbell_counters counters;
	u64 pending;
	u32 i, op;

	while (steps--) {
		op = model_random(m, 16);
		if (op < 11) {
			model_ring(test, m, buf);
		} else if (op < 14) {
			model_consume(test, m, buf);
		} else if (op < 15) {
			m->armed = true;
			KUNIT_ASSERT_EQ(test, doorbell_buffer_arm(buf),
					m->waiting > 0);
			m->asleep = !m->waiting;
		} else {
			KUNIT_ASSERT_EQ(test, doorbell_buffer_readable(buf),
					m->waiting > 0);
		}
	}
	for (pending = 0, i = 0; i <= m->queues; i++)
		pending += m->count[i];
	doorbell_buffer_count(buf, &counters);
	KUNIT_ASSERT_EQ(test, counters.pending, pending);
	while (m->waiting)
		model_consume(test, m, buf);
	model_consume(test, m, buf);
}

static void buffer_random(struct kunit *test)
{
	static const struct {
		u32 queues;
		int steps;
	} cases[] = {
		{ 1, 3000 }, { 2, 3000 }, { 3, 3000 }, { 7, 3000 },
		{ 8, 3000 }, { 100, 8000 }, { 3000, 8000 },
	};
	struct doorbell_buffer *buf;
	struct model *m;
	int i;

	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		buf = new_buffer(test, cases[i].queues);
		m = new_model(test, cases[i].queues, 0xd00b + i);
		m->armed = true;
		m->asleep = true;
		model_run(test, m, buf, cases[i].steps);
	}
}

/* Start just before a lap, where lap numbers or positions may wrap. */
static void buffer_wrap(struct kunit *test)
{
	static const u64 laps[] = {
		2, 0x7ffe, 0x7fff, 0x8000, 0xfffd, 0xfffe, 0xffff, 0x10000,
		0xfffffffe, 0x7fffffffffff,
	};
	static const u32 queues[] = { 1, 7, 8 };
	struct doorbell_buffer *buf;
	struct model *m;
	u64 at, k, size;
	int i, j;

	for (i = 0; i < ARRAY_SIZE(queues); i++) {
		for (j = 0; j < ARRAY_SIZE(laps); j++) {
			buf = new_buffer(test, queues[i]);
			size = 1 << buf->order;
			m = new_model(test, queues[i], 0x1a9 + j);
			at = (laps[j] << buf->order) - 1;
			atomic64_set(&buf->tail, at);
			buf->control->head = at;
			buf->control->armed = 0;
			/* the entries that the lap before left */
			for (k = size; k; k--)
				buf->fifo[(at - k) % size] =
					((at - k) / size & 0xffff) << 16;
			model_run(test, m, buf, 300);
			KUNIT_ASSERT_GT(test, atomic64_read(&buf->tail),
					at + 2 * size);
		}
	}
}

static const struct {
	u64 sum;		/* garbage = sum + factor * tail */
	u64 factor;
} garbage_cases[] = {
	{ 0, 0 }, { 1, 0 }, { U64_MAX, 0 }, { U64_MAX - 1, 0 },
	{ 1ULL << 63, 0 }, { (1ULL << 63) - 1, 0 }, { 0xffffffff, 0 },
	{ 0x100000000, 0 }, { 0xffff, 0 }, { 0x10000, 0 },
	{ 0xffff0, 0 }, { 0xffff8, 0 }, { 0xfffff, 0 },
	{ 1, 1 }, { U64_MAX, 1 }, { 8, 1 }, { -8ULL, 1 }, { 16, 1 },
	{ 0x80000, 1 }, { 1ULL << 63, 1 }, { 0xffffff0000000000, 1 },
	{ 0, 3 }, { 0, U64_MAX },
};

/* Any garbage in the control area yields valid events only. */
static void hostile_consume(struct kunit *test, struct doorbell_buffer *buf,
			    struct doorbell_event *events, unsigned int max)
{
	unsigned int got, i;
	bool wake = false;

	doorbell_buffer_readable(buf);
	got = consume_events(buf, events, max, &wake);
	KUNIT_ASSERT_LE(test, got, max);
	for (i = 0; i < got; i++) {
		if (events[i].type == DOORBELL_EVENT_QUEUE) {
			KUNIT_ASSERT_LT(test, events[i].queue,
					doorbell_buffer_bad(buf));
		} else {
			KUNIT_ASSERT_EQ(test, events[i].type,
					DOORBELL_EVENT_BAD_ADDRESS);
			KUNIT_ASSERT_EQ(test, events[i].queue,
					DOORBELL_QUEUE_NONE);
		}
		KUNIT_ASSERT_GT(test, events[i].count, 0);
	}
}

/* With a sane control area the buffer works again. */
static void hostile_recover(struct kunit *test, struct doorbell_buffer *buf,
			    u64 seed)
{
	struct model *m = new_model(test, buf->nr_slots - 1, seed);
	u32 i;

	for (i = 0; i < buf->nr_slots; i++)
		buf->control->seen[i] = atomic64_read(&buf->slots[i].rings) &
				      ~(u64)U16_MAX;
	buf->control->head = atomic64_read(&buf->tail);
	buf->control->armed = 0;
	model_run(test, m, buf, 500);
}

/* Write garbage to some fields of the control area. */
enum { HEAD = 1, SEEN = 2, ARMED = 4 };

static void garble(struct doorbell_buffer *buf, int fields, u64 garbage)
{
	int i;

	if (fields & HEAD)
		buf->control->head = garbage;
	if (fields & ARMED)
		buf->control->armed = garbage;
	if (fields & SEEN)
		for (i = 0; i < buf->nr_slots; i++)
			buf->control->seen[i] = garbage;
}

/* Garbage in some fields, or in all, before each ring and each read */
static void buffer_hostile(struct kunit *test)
{
	struct doorbell_buffer *buf = new_buffer(test, 7);
	struct doorbell_event *events;
	unsigned int max = 5;
	int fields, i, j, k;
	u64 garbage;

	events = kunit_kcalloc(test, max, sizeof(*events), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, events);

	for (fields = 1; fields <= (HEAD | SEEN | ARMED); fields++) {
		for (i = 0; i < ARRAY_SIZE(garbage_cases); i++) {
			for (j = 0; j < 4; j++) {
				garbage = garbage_cases[i].sum +
					  garbage_cases[i].factor *
					  atomic64_read(&buf->tail);
				garble(buf, fields, garbage);
				if (j & 1) {
					hostile_consume(test, buf, events, max);
					continue;
				}
				for (k = 0; k < 2 * buf->nr_slots; k++)
					ring(buf, k % buf->nr_slots, k, 4);
			}
			/* without new garbage reading comes to an end */
			for (j = 0; j < 100; j++)
				hostile_consume(test, buf, events, max);
		}
		hostile_recover(test, buf, fields);
	}
}

static void buffer_hostile_random(struct kunit *test)
{
	struct doorbell_buffer *buf = new_buffer(test, 12);
	struct doorbell_event *events;
	struct rnd_state rng;
	unsigned int max = 3;
	u64 garbage;
	u32 r;
	int i;

	events = kunit_kcalloc(test, max, sizeof(*events), GFP_KERNEL);
	KUNIT_ASSERT_NOT_NULL(test, events);
	prandom_seed_state(&rng, 0xbad);

	for (i = 0; i < 20000; i++) {
		r = prandom_u32_state(&rng);
		garbage = (u64)prandom_u32_state(&rng) << (r >> 27);
		if (r & 1)
			garbage += atomic64_read(&buf->tail) - 0x80000000;
		switch ((r >> 1) % 8) {
		case 0:
			buf->control->head = garbage;
			break;
		case 1:
			buf->control->armed = garbage;
			break;
		case 2:
			buf->control->seen[(r >> 8) % buf->nr_slots] = garbage;
			break;
		case 3:
			hostile_consume(test, buf, events, max);
			break;
		case 4:
			doorbell_buffer_arm(buf);
			break;
		default:
			ring(buf, (r >> 8) % buf->nr_slots, i, 8);
		}
	}
	hostile_recover(test, buf, 0x900d);
}

/* Mapped bytes of @buf, up to the guard page of vmalloc() */
static size_t mapped_bytes(const struct doorbell_buffer *buf)
{
	size_t bytes = 0;

	while (vmalloc_to_page((void *)buf->control + bytes))
		bytes += PAGE_SIZE;
	return bytes;
}

/* Bounded memory: 48 bytes per queue at most, from 4,096 queues on */
static void buffer_memory(struct kunit *test)
{
	static const u32 queues[] = {
		64, 256, 1024, 4095, 4096, 8191, 8192, 16384, 32768, 65535,
	};
	struct doorbell_buffer *buf;
	size_t bytes;
	int i;

	for (i = 0; i < ARRAY_SIZE(queues); i++) {
		buf = new_buffer(test, queues[i]);
		bytes = sizeof(*buf) + mapped_bytes(buf);
		kunit_info(test, "%u queues: %zu bytes, %zu.%zu per queue\n",
			   queues[i], bytes, bytes / queues[i],
			   bytes * 10 / queues[i] % 10);
		/* each queue has a slot and an entry at least */
		KUNIT_EXPECT_GE(test, bytes, 28 * queues[i]);
		if (queues[i] >= 4096)
			KUNIT_EXPECT_LE(test, bytes, 48 * queues[i]);
		else
			KUNIT_EXPECT_LE(test, bytes,
					48 * queues[i] + 2 * PAGE_SIZE);
	}
}

/**
 * struct numbers - rings with running numbers: the oracle of ordered mode
 * @buf: the buffer
 * @depth: its depth
 * @put: number of the next ring
 * @got: number of the next event
 */
struct numbers {
	struct doorbell_buffer *buf;
	u32 depth;
	u64 put;
	u64 got;
};

static void ring_number(struct kunit *test, struct numbers *n)
{
	enum doorbell_ring_result rung;

	rung = ring_it(n->buf, n->put % 3, n->put, 1 + n->put % 8);
	KUNIT_ASSERT_EQ(test, rung == DOORBELL_RING_FULL,
			n->put - n->got >= n->depth);
	if (rung != DOORBELL_RING_FULL)
		n->put++;
	KUNIT_ASSERT_EQ(test, doorbell_buffer_writable(n->buf),
			n->put - n->got < n->depth);
}

static void expect_number(struct kunit *test, struct numbers *n)
{
	const struct doorbell_event want =
		QUEUE_EVENT(n->got % 3, 1 + n->got % 8, 1, n->got);
	bool pending = n->put != n->got;
	struct doorbell_event event;
	bool wake = false;

	KUNIT_ASSERT_EQ(test, doorbell_buffer_readable(n->buf), pending);
	KUNIT_ASSERT_EQ(test, consume_events(n->buf, &event, 1, &wake),
			pending);
	if (pending) {
		expect_event(test, &event, &want);
		n->got++;
	}
}

/* Empty the buffer, and let the lap number wrap with one of the next rings. */
static void wrap_soon(struct kunit *test, struct numbers *n)
{
	u64 start = (0xffffffffULL << n->buf->order) - 2;

	while (n->got != n->put)
		expect_number(test, n);
	atomic64_set(&n->buf->tail, start);
	n->buf->control->head = start;
}

/* Ordered: every ring is an event, in order, and depth of them find room. */
static void ordered_depths(struct kunit *test)
{
	static const u32 depths[] = { 1, 2, 3, 5, 8, 64, 100 };
	struct rnd_state rng;
	int d, round;
	u32 i;

	for (d = 0; d < ARRAY_SIZE(depths); d++) {
		struct numbers n = {
			.buf = new_ordered(test, 3, depths[d]),
			.depth = depths[d],
		};

		prandom_seed_state(&rng, 0x0dd + d);
		for (round = 0; round < 600; round++) {
			/* halfway */
			if (round == 300)
				wrap_soon(test, &n);
			i = prandom_u32_state(&rng) % (n.depth + 3);
			while (i--)
				ring_number(test, &n);
			i = prandom_u32_state(&rng) % (n.depth + 3);
			while (i--)
				expect_number(test, &n);
		}
	}
}

/* What an ordered buffer repeats if handled is number @handled of the events */
static void recover_numbers(struct kunit *test, struct numbers *n, u64 handled)
{
	u64 all = BIT(n->buf->order), kept = all - n->depth;
	struct doorbell_counters counters;

	doorbell_buffer_recover(n->buf);
	if (handled < n->got)
		n->got = max3(handled, n->got - min(n->got, kept),
			      n->put - min(n->put, all));
	doorbell_buffer_count(n->buf, &counters);
	KUNIT_ASSERT_EQ(test, counters.pending, n->put - n->got);
}

/*
 * Ordered: the events since handled come again, as they were, whatever room the
 * producers have used. The consumer takes as many as it may, or fewer; or more,
 * and then those that are kept come again.
 */
static void ordered_recover_random(struct kunit *test)
{
	static const u32 depths[] = { 1, 2, 3, 5, 8, 64, 100 };
	u64 handled;
	struct rnd_state rng;
	int d, round;
	u32 i;

	for (d = 0; d < ARRAY_SIZE(depths); d++) {
		struct numbers n = {
			.buf = new_ordered(test, 3, depths[d]),
			.depth = depths[d],
		};
		u32 kept = BIT(n.buf->order) - n.depth;

		KUNIT_ASSERT_GE(test, kept, n.depth);
		KUNIT_ASSERT_EQ(test, kept, doorbell_buffer_kept(n.buf));
		prandom_seed_state(&rng, 0xdead + d);
		for (handled = 0, round = 0; round < 2000; round++) {
			/* halfway */
			if (round == 1000)
				wrap_soon(test, &n);
			if (prandom_u32_state(&rng) % 4 || round == 1000) {
				handled = n.got;
				doorbell_buffer_handled(n.buf);
			}
			/* room for it comes while the events are taken */
			i = prandom_u32_state(&rng) % 2 ? kept :
			    prandom_u32_state(&rng) % (kept + 1);
			while (i--) {
				expect_number(test, &n);
				if (round % 3)
					ring_number(test, &n);
			}
			i = prandom_u32_state(&rng) % (n.depth + 3);
			while (i--)
				ring_number(test, &n);
			/* it comes to the same to die twice */
			for (i = prandom_u32_state(&rng) % 3; i; i--) {
				recover_numbers(test, &n, handled);
				handled = n.got;
			}
		}
	}
}

/* Ordered: whatever handled says, nothing is from before the first ring. */
static void ordered_recover_garbage(struct kunit *test)
{
	static const u64 garbage[] = { 0, 1, 7, 8, 11, -1ULL, 1ULL << 63 };
	unsigned int i, rings;

	for (i = 0; i < ARRAY_SIZE(garbage) * 100; i++) {
		struct numbers n = {
			.buf = new_ordered(test, 3, 5), .depth = 5,
		};
		u64 handled = garbage[i / 100];

		for (rings = i % 100; rings; rings--) {
			ring_number(test, &n);
			expect_number(test, &n);
		}
		for (rings = 0; rings < 6; rings++)
			ring_number(test, &n);
		n.buf->control->handled = handled;
		/* positions begin with the second lap */
		handled -= min_t(u64, handled, BIT(n.buf->order));
		recover_numbers(test, &n, handled);
		recover_numbers(test, &n, n.got);
		while (n.got != n.put)
			expect_number(test, &n);
		KUNIT_EXPECT_FALSE(test, doorbell_buffer_readable(n.buf));
	}
}

/* Ordered: wherever head is, DOORBELL_RECOVER sets it to entries that exist. */
static void ordered_recover_head(struct kunit *test)
{
	const int all = 16, kept = all - 5;
	int outside, rings, left;

	for (outside = -2 * all; outside <= 2 * all; outside++) {
		for (rings = 0; rings < 50; rings++) {
			struct numbers n = {
				.buf = new_ordered(test, 3, 5), .depth = 5,
			};
			s64 first, pos;

			for (left = rings; left; left--) {
				ring_number(test, &n);
				if (left > rings % 6)
					expect_number(test, &n);
			}
			n.buf->control->head += outside;
			n.buf->control->handled = 0;
			doorbell_buffer_recover(n.buf);
			first = n.put > all ? n.put - all : 0;
			pos = (s64)n.got + outside - kept;
			n.got = pos < first || pos > (s64)n.put ? first : pos;
			while (n.got != n.put)
				expect_number(test, &n);
			KUNIT_ASSERT_FALSE(test,
					   doorbell_buffer_readable(n.buf));
		}
	}
}

/* Ordered: a consumer that waits wakes up for an event that comes again. */
static void ordered_recover_wakes(struct kunit *test)
{
	struct numbers n = { .buf = new_ordered(test, 3, 4), .depth = 4 };

	ring_number(test, &n);
	expect_number(test, &n);
	KUNIT_EXPECT_FALSE(test, doorbell_buffer_arm(n.buf));
	KUNIT_EXPECT_TRUE(test, doorbell_buffer_recover(n.buf));
	KUNIT_EXPECT_EQ(test, n.buf->control->armed, 0);
	KUNIT_EXPECT_FALSE(test, doorbell_buffer_recover(n.buf));
	KUNIT_EXPECT_TRUE(test, doorbell_buffer_arm(n.buf));
	KUNIT_EXPECT_TRUE(test, doorbell_buffer_recover(n.buf));
}

/* Ordered: bad rings are in order with the others. */
static void ordered_bad(struct kunit *test)
{
	static const struct doorbell_event want[] = {
		QUEUE_EVENT(1, 4, 1, 5),
		BAD_EVENT(1, 0x1234),
		QUEUE_EVENT(0, 2, 1, 6),
	};
	struct doorbell_buffer *buf = new_ordered(test, 2, 4);
	struct doorbell_counters counters;

	KUNIT_EXPECT_TRUE(test, ring(buf, 1, 5, 4));
	KUNIT_EXPECT_FALSE(test,
			   ring(buf, doorbell_buffer_bad(buf), 0x1234, 0));
	KUNIT_EXPECT_FALSE(test, ring(buf, 0, 6, 2));
	doorbell_buffer_count(buf, &counters);
	KUNIT_EXPECT_EQ(test, counters.rings, 2);
	KUNIT_EXPECT_EQ(test, counters.bad_rings, 1);
	KUNIT_EXPECT_EQ(test, counters.pending, 3);
	expect_events(test, buf, 2, want, ARRAY_SIZE(want));
	doorbell_buffer_arm(buf);
	KUNIT_EXPECT_TRUE(test, ring(buf, 0, 6, 2));
}

/*
 * A producer may read tail, and head only after later rings were read. Head is
 * then ahead of tail, and the producer must find room.
 */
static void ordered_stale_tail(struct kunit *test)
{
	struct doorbell_buffer *buf = new_ordered(test, 1, 2);

	buf->control->head = atomic64_read(&buf->tail) + 1;
	KUNIT_EXPECT_TRUE(test, doorbell_buffer_writable(buf));
	KUNIT_EXPECT_NE(test, DOORBELL_RING_FULL, ring_it(buf, 0, 1, 4));
}

/* Ordered: garbage in the control area causes no crash and no hang. */
static void ordered_hostile(struct kunit *test)
{
	struct doorbell_buffer *buf = new_ordered(test, 2, 5);
	struct doorbell_counters counters;
	struct doorbell_event events[8];
	struct rnd_state rng;
	bool wake;
	u64 head;
	int i;

	prandom_seed_state(&rng, 0xbad);
	for (i = 0; i < 20000; i++) {
		head = (u64)prandom_u32_state(&rng) << 32 |
		       prandom_u32_state(&rng);
		if (i % 3 == 0)
			head = atomic64_read(&buf->tail) + (s8)head;
		if (i % 5 == 0)
			WRITE_ONCE(buf->control->head, head);
		if (i % 7 == 0) {
			WRITE_ONCE(buf->control->handled, head - i % 13);
			doorbell_buffer_recover(buf);
		}
		WRITE_ONCE(buf->control->armed, head);
		ring(buf, i % 3, i, 4);
		doorbell_buffer_readable(buf);
		doorbell_buffer_writable(buf);
		doorbell_buffer_count(buf, &counters);
		KUNIT_ASSERT_LE(test,
				consume_events(buf, events, 1 + i % 8, &wake),
				1 + i % 8);
	}
	/* DOORBELL_RECOVER finds the entries that are there */
	doorbell_buffer_recover(buf);
	for (i = 0; consume_events(buf, events, 8, &wake); i++)
		KUNIT_ASSERT_LT(test, i, 16);
	KUNIT_EXPECT_EQ(test, buf->control->head, atomic64_read(&buf->tail));
	ring(buf, 1, 77, 4);
	KUNIT_ASSERT_EQ(test, 1, consume_events(buf, events, 8, &wake));
	KUNIT_EXPECT_EQ(test, events[0].queue, 1);
	KUNIT_EXPECT_EQ(test, events[0].value, 77);
}

/*
 * Recovery: a consumer of mapped memory stops after a step of the protocol in
 * the uapi header. Its successor must get every ring that it may not have
 * handled, and a bounded number of events.
 */
enum consumer_step {
	STOP_BEFORE,		/* with the events of the last time handled */
	STOP_TOLD,		/* step 0 */
	STOP_HEAD,		/* step 2 */
	STOP_READ,		/* step 4: rings are read, seen is not stored */
	STOP_SEEN_ONE,		/* seen is stored for one of the slots */
	STOP_SEEN_ALL,
	NR_STOPS,
};

/* Consume all entries as a consumer of mapped memory does, up to @stop. */
static void consume_until(struct doorbell_buffer *buf, enum consumer_step stop)
{
	struct doorbell_control *control = buf->control;
	u64 head = control->head, tail = atomic64_read(&buf->tail), pos;
	u32 index;

	if (stop >= STOP_TOLD)
		control->handled = head;
	if (stop >= STOP_HEAD)
		control->head = tail;
	for (pos = head; pos != tail && stop >= STOP_SEEN_ONE; pos++) {
		index = (u16)buf->fifo[doorbell_buffer_index(buf, pos)];
		control->seen[index] = atomic64_read(&buf->slots[index].rings) &
				       ~(u64)U16_MAX;
		if (stop == STOP_SEEN_ONE)
			break;
	}
}

/*
 * Read all events and add their counts to @counts, one for each of the @nr
 * slots. There are at most @most events.
 */
static void count_events(struct kunit *test, struct doorbell_buffer *buf,
			 u64 *counts, u32 nr, unsigned int most)
{
	struct doorbell_event event;
	unsigned int events = 0;
	bool wake;

	while (consume_events(buf, &event, 1, &wake)) {
		u32 index = min_t(u32, event.queue, nr - 1);

		KUNIT_ASSERT_LE(test, ++events, most);
		KUNIT_ASSERT_GT(test, event.count, 0);
		KUNIT_ASSERT_EQ(test, event.value, 100 + index);
		counts[index] += event.count;
	}
	KUNIT_ASSERT_FALSE(test, doorbell_buffer_readable(buf));
}

/* Queues 0 and 1 are rung before the consumer's step, 1 and 2 after it. */
static void buffer_recover_steps(struct kunit *test)
{
	enum consumer_step stop;
	bool twice;

	for (stop = 0; stop < 2 * NR_STOPS; stop++) {
		struct doorbell_buffer *buf = new_buffer(test, 4);
		struct doorbell_counters counters;
		u64 counts[5] = {};

		/* handled, except for those of the last time */
		ring(buf, 3, 103, 4);
		ring(buf, 3, 103, 4);
		consume_until(buf, STOP_SEEN_ALL);
		buf->control->handled = buf->control->head;

		ring(buf, 0, 100, 4);
		ring(buf, 1, 101, 4);
		ring(buf, doorbell_buffer_bad(buf), 104, 0);
		consume_until(buf, stop % NR_STOPS);
		ring(buf, 1, 101, 4);
		ring(buf, 2, 102, 4);

		/* a successor that dies at once changes nothing */
		for (twice = stop >= NR_STOPS; twice; twice = false)
			doorbell_buffer_recover(buf);
		doorbell_buffer_recover(buf);
		count_events(test, buf, counts, 5, 5);
		KUNIT_EXPECT_EQ(test, counts[0], 1);
		KUNIT_EXPECT_EQ(test, counts[1], 2);
		KUNIT_EXPECT_EQ(test, counts[2], 1);
		KUNIT_EXPECT_EQ(test, counts[3], 0);
		KUNIT_EXPECT_EQ(test, counts[4], 1);
		doorbell_buffer_count(buf, &counters);
		KUNIT_EXPECT_EQ(test, counters.pending, 0);

		/* what was read after the recovery comes again as well */
		memset(counts, 0, sizeof(counts));
		doorbell_buffer_recover(buf);
		count_events(test, buf, counts, 5, 5);
		KUNIT_EXPECT_EQ(test, counts[1], 2);
		KUNIT_EXPECT_EQ(test, counts[2], 1);

		/* a reader that comes back has handled all */
		memset(counts, 0, sizeof(counts));
		doorbell_buffer_handled(buf);
		doorbell_buffer_recover(buf);
		count_events(test, buf, counts, 5, 0);
	}
}

/* Nothing to repeat: no event, no wake-up, the same head */
static void buffer_recover_nothing(struct kunit *test)
{
	struct doorbell_buffer *buf = new_buffer(test, 3);
	struct doorbell_buffer *ordered = new_ordered(test, 3, 4);
	u64 counts[4] = {}, head = buf->control->head;

	KUNIT_EXPECT_FALSE(test, doorbell_buffer_recover(buf));
	KUNIT_EXPECT_FALSE(test, doorbell_buffer_readable(buf));
	KUNIT_EXPECT_EQ(test, buf->control->head, head);
	KUNIT_EXPECT_EQ(test, atomic64_read(&buf->tail), head);
	ring(buf, 0, 100, 4);
	KUNIT_EXPECT_FALSE(test, doorbell_buffer_recover(buf));
	KUNIT_EXPECT_EQ(test, atomic64_read(&buf->tail), head + 1);
	count_events(test, buf, counts, 4, 1);

	head = ordered->control->head;
	KUNIT_EXPECT_FALSE(test, doorbell_buffer_recover(ordered));
	ring(ordered, 1, 101, 4);
	KUNIT_EXPECT_FALSE(test, doorbell_buffer_recover(ordered));
	KUNIT_EXPECT_EQ(test, ordered->control->head, head);
	count_events(test, ordered, counts, 4, 1);
	KUNIT_EXPECT_EQ(test, counts[1], 1);
}

/* A bad ring that the consumer invents, where there was none */
static void buffer_recover_invented(struct kunit *test)
{
	struct doorbell_buffer *buf = new_buffer(test, 3);
	u32 bad = doorbell_buffer_bad(buf);
	struct doorbell_event event;
	bool wake;

	buf->control->seen[bad] = -1ULL << DOORBELL_RINGS_SHIFT;
	doorbell_buffer_recover(buf);
	KUNIT_ASSERT_EQ(test, doorbell_buffer_peek(buf, &event, 1, &wake), 1);
	KUNIT_EXPECT_EQ(test, event.type, DOORBELL_EVENT_BAD_ADDRESS);
	KUNIT_EXPECT_EQ(test, event.queue, DOORBELL_QUEUE_NONE);
}

/* Waiters that are armed wake up for an event that comes again. */
static void buffer_recover_wakes(struct kunit *test)
{
	struct doorbell_buffer *buf = new_buffer(test, 2);

	ring(buf, 0, 100, 4);
	consume_until(buf, STOP_HEAD);
	buf->control->armed = 0;
	KUNIT_EXPECT_FALSE(test, doorbell_buffer_recover(buf));
	consume_until(buf, STOP_SEEN_ALL);
	doorbell_buffer_arm(buf);
	KUNIT_EXPECT_TRUE(test, doorbell_buffer_recover(buf));
	KUNIT_EXPECT_TRUE(test, doorbell_buffer_readable(buf));
}

/* Entries since @handled are overwritten: all events come again. */
static void buffer_recover_overwritten(struct kunit *test)
{
	unsigned int laps, i;

	for (laps = 0; laps < 12; laps++) {
		/* 4 entries */
		struct doorbell_buffer *buf = new_buffer(test, 3);
		u64 handled = buf->control->handled;
		u64 counts[4] = {};

		ring(buf, 0, 100, 4);
		consume_until(buf, STOP_SEEN_ALL);
		buf->control->handled = handled;
		for (i = 0; i < laps; i++) {
			ring(buf, 1, 101, 4);
			consume_until(buf, STOP_SEEN_ALL);
			buf->control->handled = handled;
		}
		ring(buf, 2, 102, 4);
		doorbell_buffer_recover(buf);
		count_events(test, buf, counts, 4, 3);
		KUNIT_EXPECT_EQ(test, counts[0], 1);
		KUNIT_EXPECT_EQ(test, counts[1], laps);
		KUNIT_EXPECT_EQ(test, counts[2], 1);
	}
}

/* What was handled before a recovery does not come again after it. */
static void buffer_recover_again(struct kunit *test)
{
	/* 4 entries */
	struct doorbell_buffer *buf = new_buffer(test, 3);
	u64 handled, counts[4] = {};
	unsigned int i;

	ring(buf, 0, 100, 4);
	consume_until(buf, STOP_SEEN_ALL);
	handled = buf->control->head;
	ring(buf, 1, 101, 4);
	consume_until(buf, STOP_SEEN_ALL);
	buf->control->handled = handled;
	doorbell_buffer_recover(buf);
	handled = buf->control->handled;
	/* the entry of queue 1 and those that come are all that there are */
	for (i = 0; i < 4; i++) {
		consume_until(buf, STOP_SEEN_ALL);
		if (i < 3)
			ring(buf, 1, 101, 4);
	}
	buf->control->handled = handled;
	doorbell_buffer_recover(buf);
	count_events(test, buf, counts, 4, 1);
	KUNIT_EXPECT_EQ(test, counts[0], 0);
	KUNIT_EXPECT_EQ(test, counts[1], 4);
}

/* More rings than an event can count, some handled, some seen, some not. */
static void buffer_recover_many(struct kunit *test)
{
	static const u64 most = U32_MAX;
	static const struct {
		u64 seen, unseen;
	} cases[] = {
		{ 0, most }, { 0, most + 1 }, { 0, 3 * most + 5 },
		{ most, most }, { most, 2 * most + 1 }, { 5 * most + 3, 1 },
		{ 1, most - 1 },
	};
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		struct doorbell_buffer *buf = new_buffer(test, 2);
		u64 all = cases[i].seen + cases[i].unseen;
		u64 counts[3] = {};

		ring(buf, 1, 101, 8);
		atomic64_add((all - 1) << DOORBELL_RINGS_SHIFT,
			     &buf->slots[1].rings);
		consume_until(buf, STOP_HEAD);
		buf->control->seen[1] = cases[i].seen << DOORBELL_RINGS_SHIFT;
		doorbell_buffer_recover(buf);
		count_events(test, buf, counts, 3, all / most + 1);
		KUNIT_EXPECT_EQ(test, counts[1], all);
	}
}

/* Garbage in the control area: bounded, no access outside of the buffer */
static void buffer_recover_hostile(struct kunit *test)
{
	struct doorbell_buffer *buf = new_buffer(test, 3);
	struct doorbell_event events[8];
	struct rnd_state rng;
	bool wake;
	int i, j;

	prandom_seed_state(&rng, 0xdead);
	for (i = 0; i < 20000; i++) {
		u64 tail = atomic64_read(&buf->tail);
		u64 any[6];

		for (j = 0; j < ARRAY_SIZE(any); j++) {
			any[j] = (u64)prandom_u32_state(&rng) << 32 |
				 prandom_u32_state(&rng);
			if (prandom_u32_state(&rng) % 2)
				any[j] = tail + (s8)any[j];
		}
		buf->control->head = any[0];
		buf->control->handled = i % 3 ? any[1] : any[0] - i % 9;
		for (j = 0; j < buf->nr_slots; j++)
			buf->control->seen[j] = any[2 + j];
		ring(buf, i % 3, i, 4);
		doorbell_buffer_recover(buf);
		KUNIT_ASSERT_LE(test, consume_events(buf, events, 8, &wake),
				8);
	}
	/* with a sane control area it works again */
	buf->control->head = atomic64_read(&buf->tail);
	buf->control->handled = buf->control->head;
	for (j = 0; j < buf->nr_slots; j++)
		buf->control->seen[j] = atomic64_read(&buf->slots[j].rings) &
					~(u64)U16_MAX;
	KUNIT_EXPECT_FALSE(test, doorbell_buffer_recover(buf));
	KUNIT_EXPECT_FALSE(test, doorbell_buffer_readable(buf));
	ring(buf, 1, 77, 4);
	KUNIT_ASSERT_EQ(test, 1, consume_events(buf, events, 8, &wake));
	KUNIT_EXPECT_EQ(test, events[0].value, 77);
}

/* All slots, with and without room between handled and head for them */
static void buffer_recover_every(struct kunit *test)
{
	struct doorbell_buffer *buf = new_buffer(test, DOORBELL_QUEUES_MAX);
	u64 *counts = kunit_kcalloc(test, 65536, sizeof(*counts), GFP_KERNEL);
	u32 i;

	KUNIT_ASSERT_NOT_NULL(test, counts);
	for (i = 0; i < 65536; i++)
		ring(buf, i, 100 + i, 0);
	consume_until(buf, STOP_SEEN_ALL);
	doorbell_buffer_recover(buf);
	count_events(test, buf, counts, 65536, 65536);
	buf->control->handled -= 65536;
	doorbell_buffer_recover(buf);
	count_events(test, buf, counts, 65536, 65536);
	for (i = 0; i < 65536; i++)
		KUNIT_ASSERT_EQ(test, counts[i], 2);
}

static struct kunit_case buffer_tests[] = {
	KUNIT_CASE(buffer_stream),
	KUNIT_CASE(buffer_coalescing),
	KUNIT_CASE(buffer_new_position),
	KUNIT_CASE(buffer_every),
	KUNIT_CASE(buffer_bad_flood),
	KUNIT_CASE(buffer_count_overflow),
	KUNIT_CASE(buffer_count_overflow_wakes),
	KUNIT_CASE(buffer_wake),
	KUNIT_CASE(buffer_stale_entry),
	KUNIT_CASE(buffer_stale_entry_wakes),
	KUNIT_CASE(buffer_random),
	KUNIT_CASE(buffer_wrap),
	KUNIT_CASE(buffer_hostile),
	KUNIT_CASE(buffer_hostile_random),
	KUNIT_CASE(buffer_memory),
	KUNIT_CASE(buffer_recover_steps),
	KUNIT_CASE(buffer_recover_nothing),
	KUNIT_CASE(buffer_recover_invented),
	KUNIT_CASE(buffer_recover_wakes),
	KUNIT_CASE(buffer_recover_overwritten),
	KUNIT_CASE(buffer_recover_again),
	KUNIT_CASE(buffer_recover_many),
	KUNIT_CASE(buffer_recover_hostile),
	KUNIT_CASE(buffer_recover_every),
	KUNIT_CASE(ordered_depths),
	KUNIT_CASE(ordered_recover_random),
	KUNIT_CASE(ordered_recover_garbage),
	KUNIT_CASE(ordered_recover_head),
	KUNIT_CASE(ordered_recover_wakes),
	KUNIT_CASE(ordered_bad),
	KUNIT_CASE(ordered_stale_tail),
	KUNIT_CASE(ordered_hostile),
	{}
};

static struct kunit_suite buffer_suite = {
	.name = "doorbell_buffer",
	.test_cases = buffer_tests,
};

kunit_test_suite(buffer_suite);
