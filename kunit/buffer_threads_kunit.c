// SPDX-License-Identifier: GPL-2.0
/*
 * Queue: threads that ring while another one takes.
 *
 * Each thread counts its own rings; what is taken has to add up to that, and if
 * ordered has to come in order. The taker is the test's own thread, as read()
 * does it, or as the uapi header tells users of mapped memory. Links the queue
 * compiled in buffer_kunit.c.
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
#define SHARED		3	/* slots that all threads ring */
#define PRIVATE		2	/* slots of each thread's own */
#define QUEUES		(SHARED + THREADS * PRIVATE)
#define SLOTS		(QUEUES + 1)
#define EVENTS		16
#define NUMBERED	2	/* queues, ordered */
/* Longer than a slow machine stops for, shorter than KUnit's patience. */
#define PATIENCE	(20 * HZ)

/**
 * struct stress - what the threads share
 * @buf: what is rung; its last slot, that of bad addresses, is shared too
 * @wait: where the taker sleeps
 * @ack: where threads wait until their ring was taken, or there is room
 * @running: threads that still ring
 * @stop: they have to end
 * @mapped: take as a consumer of mapped memory
 * @taken: rings taken, for each slot; written by the taker
 * @last: last value taken, for each slot; written by the taker
 */
struct stress {
	struct doorbell_buffer buf;
	wait_queue_head_t wait;
	wait_queue_head_t ack;
	atomic_t running;
	bool stop;
	bool mapped;
	u64 taken[SLOTS];
	u64 last[SLOTS];
};

/**
 * struct ringer - a thread that rings
 * @stress: what it shares with the others
 * @task: the thread
 * @id: its number
 * @rounds: rings to do
 * @lockstep: wait until each ring was taken; ordered: for room
 * @lost: it waited for room in vain
 * @rung: rings done, for each slot
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
static void ring_until_told(struct ringer *r)
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
				   READ_ONCE(s->taken[slot]) == r->rung[slot]);
		else if (random >> 27 == 0)
			usleep_range(1, 50);
	}
}

/* Ordered: each number goes to a queue that it tells. */
static void number_until_told(struct ringer *r)
{
	struct stress *s = r->stress;
	enum doorbell_ring_result rung;
	u64 i;

	for (i = 0; i < r->rounds; i++) {
		while ((rung = ring_it(&s->buf, i % NUMBERED,
				       (u64)r->id << 32 | i, 8)) == DOORBELL_RING_FULL) {
			if (READ_ONCE(s->stop))
				return;
			if (!r->lockstep) {
				usleep_range(1, 50);
			} else if (!wait_event_timeout(s->ack,
						       READ_ONCE(s->stop) ||
						       doorbell_buffer_writable(&s->buf),
						       PATIENCE)) {
				r->lost = true;
				return;
			}
		}
		if (rung == DOORBELL_RING_WAKE)
			wake_up(&s->wait);
	}
}

static int ringer_thread(void *data)
{
	struct ringer *r = data;
	struct stress *s = r->stress;

	if (s->buf.entries)
		number_until_told(r);
	else
		ring_until_told(r);

	/* the taker checks it before it sleeps */
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

/* Mapped memory, coalescing: is there an entry at @at, and of which slot? */
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
	/* the kernel looks at it, too */
	WRITE_ONCE(*seen, rings & ~(u64)U16_MAX);
	return event->count;
}

/* Mapped memory, coalescing: steps 1 to 4 of struct doorbell_control. */
static unsigned int mapped_consume(struct doorbell_buffer *buf,
				struct doorbell_event *events, unsigned int max)
{
	struct doorbell_control *control = buf->control;
	unsigned int i, taken = 0, passed;
	u32 slots[EVENTS];

	do {
		u64 head = control->head;

		for (passed = 0; passed < max; passed++)
			if (!mapped_entry(buf, head + passed, &slots[passed]))
				break;
		/* release: after the entries were read, as (G) */
		smp_store_release(&control->head, head + passed);
		smp_mb(); /* head before rings, pairs with (A) */

		for (i = 0; i < passed; i++)
			if (mapped_count(buf, slots[i], &events[taken]))
				taken++;
	} while (passed && !taken);

	return taken;
}

/* Returns the number of events, or -1 if one is not what was rung. */
static int take_events(struct stress *s, struct doorbell_event *events,
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
		WRITE_ONCE(s->taken[slot], s->taken[slot] + events[i].count);
		/* more than anybody rings: do not count to the end of it */
		if (s->taken[slot] > U16_MAX)
			return -1;
		s->last[slot] = events[i].value;
		/* at least as new as the rings that were counted */
		if (!is_shared(slot) && s->last[slot] < s->taken[slot])
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

/* All is taken: sums for each slot, and the last value where one thread rang. */
static void check_sums(struct kunit *test, const struct stress *s,
		       const struct ringer *r, int threads)
{
	struct doorbell_counters counters;
	int slot, i;
	u64 rung;

	for (slot = 0; slot < SLOTS; slot++) {
		for (rung = 0, i = 0; i < threads; i++)
			rung += r[i].rung[slot];
		KUNIT_EXPECT_EQ_MSG(test, s->taken[slot], rung, "slot %d", slot);
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

/* Whoever takes once all have ended must find all that is left. */
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
		ended = !atomic_read(&s->running);
		/* pairs with the decrement, after the last ring */
		smp_rmb();
		n = take_events(s, events, c->max);
		if (n < 0)
			break;
		if (c->pause)
			usleep_range(c->pause, 2 * c->pause);
		if (c->sleep) {
			/* 1: true only now that nobody waits for it any more */
			lost = wait_event_timeout(s->wait, something_to_do(s),
						  PATIENCE) <= 1;
			sleeps++;
		} else {
			cond_resched();
		}
	} while (!lost && (n || !ended));
	join_ringers(r, c->threads);

	KUNIT_EXPECT_GE_MSG(test, n, 0, "an event that nobody rang");
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
};

static const struct numbers_case numbers_cases[] = {
	{ "1_retry", 1, 500, 0, false, false },
	{ "1_wait", 1, 500, 0, true, true },
	{ "2_retry_sleeping", 2, 1000, 0, false, true },
	{ "2_wait", 2, 1000, 0, true, false },
	{ "64_retry", 64, 3000, 0, false, false },
	{ "64_wait_slow", 64, 3000, 100, true, false },
	{ "64_wait_sleeping", 64, 3000, 0, true, true },
};

KUNIT_ARRAY_PARAM_DESC(numbers, numbers_cases, name);

/* Ordered: each thread's numbers come once, in order, and with their queue. */
static void threads_numbers(struct kunit *test)
{
	const struct numbers_case *c = test->param_value;
	struct stress *s = new_stress(test, NUMBERED, c->depth);
	struct ringer *r = new_ringers(test);
	struct doorbell_event events[EVENTS];
	unsigned long end = jiffies + PATIENCE;
	u64 next[THREADS] = {}, sleeps = 0;
	bool ended, wrong = false, lost = false, wake;
	int i, n;

	start_ringers(test, r, s, THREADS, c->rounds, c->wait);
	do {
		ended = !atomic_read(&s->running);
		/* pairs with the decrement, after the last ring */
		smp_rmb();
		n = consume_events(&s->buf, events, EVENTS, &wake);
		for (i = 0; i < n; i++) {
			u64 id = events[i].value >> 32;

			wrong |= id >= THREADS || events[i].count != 1 ||
				 (u32)events[i].value != next[id]++ ||
				 events[i].queue != (u32)events[i].value % NUMBERED;
		}
		/* (B), in doorbell_buffer_consume(), pairs with (I) */
		if (n && waitqueue_active(&s->ack))
			wake_up_all(&s->ack);
		if (c->pause)
			usleep_range(c->pause, 2 * c->pause);
		if (c->sleep) {
			lost = wait_event_timeout(s->wait, something_to_do(s),
						  PATIENCE) <= 1;
			sleeps++;
		} else if (n) {
			end = jiffies + PATIENCE;
		} else {
			lost = time_after(jiffies, end);
			usleep_range(1, 50);
		}
	} while (!wrong && !lost && (n || !ended));
	join_ringers(r, THREADS);

	KUNIT_EXPECT_FALSE_MSG(test, wrong, "an event out of order");
	KUNIT_EXPECT_FALSE_MSG(test, lost, "nothing came any more");
	for (i = 0; i < THREADS; i++) {
		KUNIT_EXPECT_FALSE_MSG(test, r[i].lost,
				       "a wake-up of thread %d was lost", i);
		if (!wrong && !lost)
			KUNIT_EXPECT_EQ(test, next[i], c->rounds);
	}
	kunit_info(test, "%llu sleeps\n", sleeps);
	doorbell_buffer_destroy(&s->buf);
}

/* A consumer that scribbles: threads end, and so does each call. */
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

	/* a sane one again: nothing pending, and then rings as ever */
	for (i = 0; i < SLOTS; i++) {
		u64 rings = atomic64_read(&s->buf.slots[i].rings);

		control->seen[i] = rings & ~(u64)U16_MAX;
		r[0].rung[i] = rings >> DOORBELL_RINGS_SHIFT;
		s->taken[i] = r[0].rung[i];
	}
	control->head = atomic64_read(&s->buf.tail);
	for (i = 0; i < SLOTS; i++)
		ring(&s->buf, i, ++r[0].rung[i], 8);
	KUNIT_EXPECT_EQ(test, take_events(s, events, EVENTS), SLOTS);
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
