// SPDX-License-Identifier: GPL-2.0
/*
 * Buffer: threads ring while another thread reads.
 *
 * Each ringer counts its rings. What the consumer reads adds up to that, and in
 * ordered mode it arrives in order. The consumer is the thread of the test: it
 * reads as read() does, or as the uapi header asks of users of mapped memory.
 * buffer_kunit.c compiles the buffer.
 */
#include <kunit/test.h>

#include <linux/delay.h>
#include <linux/kthread.h>
#include <linux/module.h>
#include <linux/prandom.h>
#include <linux/sched/task.h>
#include <linux/wait.h>

#include <linux/doorbell.h>

#include "buffer_util.h"

#define THREADS		4
#define SHARED		3	/* slots that all ringers ring */
#define PRIVATE		2	/* slots that only one ringer rings */
#define QUEUES		(SHARED + THREADS * PRIVATE)
#define SLOTS		(QUEUES + 1)
#define EVENTS		16
#define NUMBERED	2	/* queues in ordered mode */
/* Longer than a slow machine stalls, shorter than the time limit of KUnit */
#define PATIENCE	(20 * HZ)

/**
 * struct stress - what the threads share
 * @buf: the buffer; all ringers ring its last slot, too, that of bad addresses
 * @wait: where the consumer sleeps
 * @ack: where a ringer waits until its ring was read, or for room
 * @running: ringers that still ring
 * @stop: the ringers have to end
 * @mapped: read as a consumer of mapped memory
 * @consumed: rings of each slot that the consumer has read
 * @last: last value of each slot that the consumer has read
 */
struct stress {
	struct doorbell_buffer buf;
	wait_queue_head_t wait;
	wait_queue_head_t ack;
	atomic_t running;
	bool stop;
	bool mapped;
	u64 consumed[SLOTS];
	u64 last[SLOTS];
};

/**
 * struct ringer - a thread that rings
 * @stress: what it shares with the others
 * @task: the thread
 * @id: its number
 * @rounds: how often it rings
 * @lockstep: wait until each ring was read; in ordered mode: for room
 * @lost: it waited for room in vain
 * @rung: its rings of each slot
 */
struct ringer {
	struct stress *stress;
	struct task_struct *task;
	int id;
	int rounds;
	bool lockstep;
	bool lost;
	u64 rung[SLOTS];
};

static int first_private(int id)
{
	return SHARED + id * PRIVATE;
}

static bool is_shared(int slot)
{
	return slot < SHARED || slot == QUEUES;
}

static void ring_and_wake(struct stress *s, int slot, u64 value)
{
	if (ring(&s->buf, slot, value, 8))
		wake_up(&s->wait);
}

/* The value of a private slot is its number of rings. */
static void ring_slots(struct ringer *r)
{
	struct stress *s = r->stress;
	struct rnd_state rng;
	int i, slot;

	prandom_seed_state(&rng, 0x71c + r->id);
	for (i = 0; i < r->rounds && !READ_ONCE(s->stop); i++) {
		u32 random = prandom_u32_state(&rng);

		slot = first_private(r->id) + random % PRIVATE;
		if (!r->lockstep && random & 0x1000) {
			slot = (random >> 16) % (SHARED + 1);
			if (slot == SHARED)
				slot = QUEUES;
		}
		ring_and_wake(s, slot, ++r->rung[slot]);

		if (r->lockstep)
			wait_event(s->ack, READ_ONCE(s->stop) ||
				   READ_ONCE(s->consumed[slot]) ==
				   r->rung[slot]);
		else if (random >> 27 == 0)
			usleep_range(1, 50);
	}
}

/* Wait for room: false to stop. */
static bool wait_for_room(struct ringer *r)
{
	struct stress *s = r->stress;

	if (!r->lockstep) {
		usleep_range(1, 50);
	} else if (!wait_event_timeout(s->ack, READ_ONCE(s->stop) ||
				       doorbell_buffer_writable(&s->buf),
				       PATIENCE)) {
		r->lost = true;
		return false;
	}
	return !READ_ONCE(s->stop);
}

/* Ordered mode: the number of a ring also chooses its queue. */
static void ring_numbers(struct ringer *r)
{
	struct stress *s = r->stress;
	enum doorbell_ring_result rung;
	u64 value;
	int i;

	for (i = 0; i < r->rounds; i++) {
		value = (u64)r->id << 32 | i;
		do {
			rung = ring_it(&s->buf, i % NUMBERED, value, 8);
			if (rung == DOORBELL_RING_FULL && !wait_for_room(r))
				return;
		} while (rung == DOORBELL_RING_FULL);
		if (rung == DOORBELL_RING_WAKE)
			wake_up(&s->wait);
	}
}

static int ringer_thread(void *data)
{
	struct ringer *r = data;
	struct stress *s = r->stress;

	if (s->buf.entries)
		ring_numbers(r);
	else
		ring_slots(r);

	/* the consumer checks @running before it sleeps */
	if (atomic_dec_and_test(&s->running))
		wake_up(&s->wait);
	while (!kthread_should_stop())
		schedule_timeout_idle(1);
	return 0;
}

static void join_ringers(struct ringer *r, int threads)
{
	WRITE_ONCE(r->stress->stop, true);
	wake_up_all(&r->stress->ack);
	while (threads--) {
		kthread_stop(r[threads].task);
		put_task_struct(r[threads].task);
	}
}

static void start_ringers(struct kunit *test, struct ringer *r,
			  struct stress *s, int threads, int rounds,
			  bool lockstep)
{
	int i;

	atomic_set(&s->running, threads);
	for (i = 0; i < threads; i++) {
		r[i].stress = s;
		r[i].id = i;
		r[i].rounds = rounds;
		r[i].lockstep = lockstep;
		r[i].task = kthread_create(ringer_thread, &r[i],
					   "doorbell_ring/%d", i);
		if (IS_ERR(r[i].task))
			break;
		get_task_struct(r[i].task);
		wake_up_process(r[i].task);
	}
	if (i < threads) {
		join_ringers(r, i);
		KUNIT_FAIL_AND_ABORT(test, "no memory for threads\n");
	}
}

static struct stress *new_stress(struct kunit *test, u32 queues, u32 depth)
{
	struct stress *s = kunit_kzalloc(test, sizeof(*s), GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, s);
	KUNIT_ASSERT_EQ(test, doorbell_buffer_init(&s->buf, queues, depth), 0);
	init_waitqueue_head(&s->wait);
	init_waitqueue_head(&s->ack);
	return s;
}

static struct ringer *new_ringers(struct kunit *test)
{
	struct ringer *r = kunit_kcalloc(test, THREADS, sizeof(*r), GFP_KERNEL);

	KUNIT_ASSERT_NOT_NULL(test, r);
	return r;
}

/* Mapped memory, coalescing: is there an entry at @at, and for which slot? */
static bool mapped_entry(const struct doorbell_buffer *buf, u64 at, u32 *slot)
{
	/* acquire: pairs with (E) */
	u32 entry = smp_load_acquire(&buf->fifo[at & (BIT(buf->order) - 1)]);

	*slot = (u16)entry;
	return entry >> DOORBELL_FIFO_LAP_SHIFT == (u16)(at >> buf->order);
}

static bool mapped_count(struct doorbell_buffer *buf, u32 index,
			 struct doorbell_event *event)
{
	const struct doorbell_slot *slot = (const void *)&buf->slots[index];
	/* acquire: value after rings, pairs with (A) */
	u64 rings = smp_load_acquire(&slot->rings);
	u64 *seen = &buf->control->seen[index];
	u64 unseen = rings - *seen;

	event->queue = index;
	event->type = unseen;
	event->width = (u16)unseen >> DOORBELL_KIND_WIDTH_SHIFT;
	event->count = unseen >> DOORBELL_RINGS_SHIFT;
	event->value = READ_ONCE(slot->value);
	/* the kernel reads it, too */
	WRITE_ONCE(*seen, rings & ~(u64)U16_MAX);
	return event->count;
}

/* Mapped memory, coalescing: steps 1 to 4 of struct doorbell_control. */
static unsigned int mapped_consume(struct doorbell_buffer *buf,
				   struct doorbell_event *events,
				   unsigned int max)
{
	struct doorbell_control *control = buf->control;
	unsigned int i, nr, got = 0;
	u32 slots[EVENTS];

	do {
		u64 head = control->head;

		for (nr = 0; nr < max; nr++)
			if (!mapped_entry(buf, head + nr, &slots[nr]))
				break;
		/* release: after the entries are read, as (G) */
		smp_store_release(&control->head, head + nr);
		smp_mb(); /* head before rings, pairs with (A) */

		for (i = 0; i < nr; i++)
			if (mapped_count(buf, slots[i], &events[got]))
				got++;
	} while (nr && !got);

	return got;
}

/* Return the number of events, or -1 if one of them is wrong. */
static int consume_and_check(struct stress *s, struct doorbell_event *events,
			     unsigned int max)
{
	unsigned int n, i, slot;
	bool wake = false;

	n = s->mapped ? mapped_consume(&s->buf, events, max) :
			consume_events(&s->buf, events, max, &wake);
	for (i = 0; i < n; i++) {
		slot = events[i].type == DOORBELL_EVENT_BAD_ADDRESS ?
		       QUEUES : events[i].queue;
		if (slot >= SLOTS || !events[i].count || events[i].width != 8)
			return -1;
		WRITE_ONCE(s->consumed[slot],
			   s->consumed[slot] + events[i].count);
		/* more than all ringers ring: give up */
		if (s->consumed[slot] > U16_MAX)
			return -1;
		s->last[slot] = events[i].value;
		/* Value: at least as new as the rings that were counted */
		if (!is_shared(slot) && s->last[slot] < s->consumed[slot])
			return -1;
	}
	if (n)
		wake_up_all(&s->ack);
	return n;
}

static bool something_to_do(struct stress *s)
{
	u32 slot;

	if (s->mapped) {
		WRITE_ONCE(s->buf.control->armed, 1);
		smp_mb(); /* armed before the last look, pairs with (C) */
		if (mapped_entry(&s->buf, s->buf.control->head, &slot))
			return true;
	} else {
		if (doorbell_buffer_arm(&s->buf))
			return true;
	}
	return !atomic_read(&s->running);
}

/* False if the wake-up was lost */
static bool sleep_until_woken(struct stress *s)
{
	/* 1: there is something to do, but nothing woke us in time */
	return wait_event_timeout(s->wait, something_to_do(s), PATIENCE) > 1;
}

static bool ringers_ended(struct stress *s)
{
	bool ended = !atomic_read(&s->running);

	/* before reading the last rings, pairs with the decrement after them */
	smp_rmb();
	return ended;
}

/* Conservation and Value: sums of all slots, last values of private ones */
static void check_sums(struct kunit *test, const struct stress *s,
		       const struct ringer *r, int threads)
{
	struct doorbell_counters counters;
	int slot, i;
	u64 rung;

	for (slot = 0; slot < SLOTS; slot++) {
		for (rung = 0, i = 0; i < threads; i++)
			rung += r[i].rung[slot];
		KUNIT_EXPECT_EQ_MSG(test, s->consumed[slot], rung, "slot %d",
				    slot);
		if (!is_shared(slot))
			KUNIT_EXPECT_EQ_MSG(test, s->last[slot], rung,
					    "slot %d", slot);
	}
	doorbell_buffer_count(&s->buf, &counters);
	KUNIT_EXPECT_EQ(test, counters.pending, 0);
	KUNIT_EXPECT_FALSE(test, doorbell_buffer_readable(&s->buf));
}

struct threads_case {
	const char *name;
	int threads;
	int rounds;
	unsigned int max;	/* events at a time */
	unsigned int pause;	/* microseconds between them */
	bool lockstep;
	bool sleep;		/* arm, and sleep until woken */
	bool mapped;		/* as a consumer of mapped memory */
};

static const struct threads_case threads_cases[] = {
	{ "one_fast", 1, 6000, EVENTS, 0, false, false },
	{ "one_by_one", 3, 6000, 1, 0, false, false },
	{ "many_fast", THREADS, 6000, EVENTS, 0, false, false },
	{ "many_slow", THREADS, 6000, 2, 300, false, false },
	{ "sleeping", THREADS, 6000, EVENTS, 0, false, true },
	{ "sleeping_one_by_one", THREADS, 6000, 1, 0, false, true },
	{ "sleeping_slow", 2, 3000, 1, 200, false, true },
	{ "lockstep_one", 1, 700, 1, 0, true, true },
	{ "lockstep_many", THREADS, 500, 1, 0, true, true },
	{ "mapped_fast", THREADS, 6000, EVENTS, 0, false, false, true },
	{ "mapped_slow", THREADS, 6000, 2, 300, false, false, true },
	{ "mapped_sleeping", THREADS, 6000, EVENTS, 0, false, true, true },
	{ "mapped_lockstep", THREADS, 500, 1, 0, true, true, true },
};

KUNIT_ARRAY_PARAM_DESC(threads, threads_cases, name);

/* Conservation, Value and Wake-ups: read until all ringers have ended. */
static void threads_ring(struct kunit *test)
{
	const struct threads_case *c = test->param_value;
	struct doorbell_event events[EVENTS];
	struct stress *s = new_stress(test, QUEUES, 0);
	struct ringer *r = new_ringers(test);
	bool ended, lost = false;
	u64 sleeps = 0;
	int n;

	s->mapped = c->mapped;
	start_ringers(test, r, s, c->threads, c->rounds, c->lockstep);
	do {
		ended = ringers_ended(s);
		n = consume_and_check(s, events, c->max);
		if (n < 0)
			break;
		if (c->pause)
			usleep_range(c->pause, 2 * c->pause);
		if (c->sleep) {
			lost = !sleep_until_woken(s);
			sleeps++;
		} else {
			cond_resched();
		}
	} while (!lost && (n || !ended));
	join_ringers(r, c->threads);

	KUNIT_EXPECT_GE_MSG(test, n, 0, "an event is wrong");
	KUNIT_EXPECT_FALSE_MSG(test, lost, "a wake-up was lost");
	if (n >= 0 && !lost)
		check_sums(test, s, r, c->threads);
	kunit_info(test, "%llu entries, %llu sleeps\n",
		   (u64)atomic64_read(&s->buf.tail), sleeps);
	doorbell_buffer_destroy(&s->buf);
}

struct numbers_case {
	const char *name;
	u32 depth;
	int rounds;
	unsigned int pause;	/* microseconds between events */
	bool wait;		/* for room, instead of trying again */
	bool sleep;		/* arm, and sleep until woken */
	bool crash;		/* get the events of the last time again */
};

static const struct numbers_case numbers_cases[] = {
	{ "1_retry", 1, 500, 0, false, false },
	{ "1_wait", 1, 500, 0, true, true },
	{ "2_retry_sleeping", 2, 1000, 0, false, true },
	{ "2_wait", 2, 1000, 0, true, false },
	{ "64_retry", 64, 3000, 0, false, false },
	{ "64_wait_slow", 64, 3000, 100, true, false },
	{ "64_wait_sleeping", 64, 3000, 0, true, true },
	{ "1_crash", 1, 500, 0, false, false, true },
	{ "3_crash_sleeping", 3, 1000, 0, false, true, true },
	{ "5_crash", 5, 3000, 0, false, false, true },
	{ "64_crash_slow", 64, 3000, 100, false, false, true },
};

KUNIT_ARRAY_PARAM_DESC(numbers, numbers_cases, name);

/*
 * Order: each ringer's numbers arrive once, in order, with their queue; those
 * of the last time again if the consumer has died.
 */
static void threads_numbers(struct kunit *test)
{
	const struct numbers_case *c = test->param_value;
	struct stress *s = new_stress(test, NUMBERED, c->depth);
	struct ringer *r = new_ringers(test);
	u32 max = min_t(u32, EVENTS, doorbell_buffer_kept(&s->buf));
	u64 next[THREADS] = {}, before[THREADS], sleeps = 0;
	struct doorbell_event events[EVENTS];
	unsigned long end = jiffies + PATIENCE;
	bool ended, wrong = false, lost = false, wake;
	struct rnd_state rng;
	int i, n;

	prandom_seed_state(&rng, 0xc4a54);
	start_ringers(test, r, s, THREADS, c->rounds, c->wait);
	do {
		ended = ringers_ended(s);
		memcpy(before, next, sizeof(before));
		doorbell_buffer_handled(&s->buf);
		n = consume_events(&s->buf, events, max, &wake);
		for (i = 0; i < n; i++) {
			u64 id = events[i].value >> 32;
			u32 number = events[i].value;

			wrong |= id >= THREADS || events[i].count != 1 ||
				 number != next[id]++ ||
				 events[i].queue != number % NUMBERED;
		}
		/* (B), in doorbell_buffer_consume(), pairs with (I) */
		if (n && waitqueue_active(&s->ack))
			wake_up_all(&s->ack);
		if (c->pause)
			usleep_range(c->pause, 2 * c->pause);
		/* producers have used the room that these events made */
		if (c->crash && prandom_u32_state(&rng) % 3 == 0) {
			doorbell_buffer_recover(&s->buf);
			memcpy(next, before, sizeof(next));
		}
		if (c->sleep) {
			lost = !sleep_until_woken(s);
			sleeps++;
		} else if (n) {
			end = jiffies + PATIENCE;
		} else {
			lost = time_after(jiffies, end);
			usleep_range(1, 50);
		}
	} while (!wrong && !lost && (n || !ended));
	join_ringers(r, THREADS);

	KUNIT_EXPECT_FALSE_MSG(test, wrong, "an event is out of order");
	KUNIT_EXPECT_FALSE_MSG(test, lost, "no event arrives");
	for (i = 0; i < THREADS; i++) {
		KUNIT_EXPECT_FALSE_MSG(test, r[i].lost,
				       "a wake-up of thread %d was lost", i);
		if (!wrong && !lost)
			KUNIT_EXPECT_EQ(test, next[i], c->rounds);
	}
	kunit_info(test, "%llu sleeps\n", sleeps);
	doorbell_buffer_destroy(&s->buf);
}

/* A consumer writes garbage: all ringers and all calls come to an end. */
static void threads_hostile(struct kunit *test)
{
	struct doorbell_event events[EVENTS];
	struct stress *s = new_stress(test, QUEUES, 0);
	struct ringer *r = new_ringers(test);
	struct doorbell_control *control = s->buf.control;
	struct rnd_state rng;
	bool wake;
	u64 random;
	u32 i;

	prandom_seed_state(&rng, 0x5c21bb1e);
	start_ringers(test, r, s, THREADS, 6000, false);
	while (atomic_read(&s->running)) {
		random = prandom_u32_state(&rng);
		WRITE_ONCE(control->head, random & 1 ? random << 32 :
			   atomic64_read(&s->buf.tail) + (s8)random);
		WRITE_ONCE(control->seen[random % SLOTS], random);
		WRITE_ONCE(control->armed, random & 2);
		doorbell_buffer_readable(&s->buf);
		consume_events(&s->buf, events, EVENTS, &wake);
		cond_resched();
	}
	join_ringers(r, THREADS);

	/* with a sane control area everything works again */
	for (i = 0; i < SLOTS; i++) {
		u64 rings = atomic64_read(&s->buf.slots[i].rings);

		control->seen[i] = rings & ~(u64)U16_MAX;
		r[0].rung[i] = rings >> DOORBELL_RINGS_SHIFT;
		s->consumed[i] = r[0].rung[i];
	}
	control->head = atomic64_read(&s->buf.tail);
	for (i = 0; i < SLOTS; i++)
		ring(&s->buf, i, ++r[0].rung[i], 8);
	KUNIT_EXPECT_EQ(test, consume_and_check(s, events, EVENTS), SLOTS);
	check_sums(test, s, r, 1);
	doorbell_buffer_destroy(&s->buf);
}

static struct kunit_case threads_tests[] = {
	KUNIT_CASE_PARAM(threads_ring, threads_gen_params),
	KUNIT_CASE_PARAM(threads_numbers, numbers_gen_params),
	KUNIT_CASE(threads_hostile),
	{}
};

static struct kunit_suite threads_suite = {
	.name = "doorbell_buffer_threads",
	.test_cases = threads_tests,
};

kunit_test_suite(threads_suite);
