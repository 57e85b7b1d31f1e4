// SPDX-License-Identifier: GPL-2.0
/*
 * Native: threads of this machine ring the module's own buffer, and one thread
 * reads it.
 *
 * Usage: native RINGS
 *
 * The value of a ring is the number of its producer, and the number of the ring
 * among those of the producer, which also gives the queue. So the consumer
 * knows what may be in an event, and at the end how many rings each queue had,
 * and which was the last one. Prints TAP, what a record costs beside other
 * paths, and a last line for people. Exit status: 1 if a ring or a wake-up was
 * lost, or an event was wrong.
 */
#include <err.h>
#include <linux/futex.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "native.h"

#define BATCH		256	/* most events at a time */
#define WINDOW		256	/* records to measure, one for each queue */
#define SEQ_BITS	48	/* of a value: the number of the ring, from 1 */
#define SEQ_MASK	((1ULL << SEQ_BITS) - 1)
#define POLLS		128	/* of a consumer before it sleeps, at most */
#define PAUSES		16	/* of a producer before it rings, at most */
#define SPINS		256	/* of a thread that waits, before it sleeps */
#define ENOUGH		1	/* depth: never full */
#define ROUNDS		3	/* of each cost */
#define LOOKS		10000	/* at the clock, to know what that costs */

#define NR(array)	(sizeof(array) / sizeof((array)[0]))

#ifdef __SANITIZE_THREAD__
#define TSAN	1
#else
#define TSAN	0
#endif

/**
 * struct scenario - who rings what
 * @name: for people
 * @path: how
 * @depth: of an ordered region, or ENOUGH; 0 for coalescing
 * @own: queues of each producer, a power of 2; 0: all ring the same ones
 * @window: if not 0, a producer waits for its events after so many rings
 * @alone: only half of the producers, so that each has a CPU; threads spin
 *	before they sleep, which meets more often what may go wrong
 * @share: thousandths of all rings
 */
struct scenario {
	const char *name;
	const struct path *path;
	unsigned int depth;
	unsigned int own;
	unsigned int window;
	bool alone;
	unsigned int share;
};

#define BOTH(NAME, DEPTH, ...)						\
	{ NAME ", read()", &read_path, DEPTH, __VA_ARGS__ },		\
	{ NAME ", mapped", &mapped_path, DEPTH, __VA_ARGS__ }

static const struct scenario scenarios[] = {
	BOTH("coalescing, own queues", 0, .own = 256, .share = 176),
	BOTH("coalescing, shared queues", 0, .share = 170),
	BOTH("coalescing, bursts", 0, .own = 8, .window = 32, .share = 30),
	BOTH("coalescing, one by one", 0, .own = 4, .window = 1, .alone = true,
	     .share = 10),
	BOTH("coalescing, crowd", 0, .own = 4, .window = 1, .share = 1),
	BOTH("ordered", 1024, .own = 4, .share = 80),
	BOTH("ordered, little room", 3, .own = 4, .alone = true, .share = 2),
	BOTH("ordered, bursts", ENOUGH, .own = 32, .window = 32, .share = 20),
	BOTH("ordered, one by one", ENOUGH, .own = 4, .window = 1,
	     .alone = true, .share = 10),
	BOTH("ordered, crowd", ENOUGH, .own = 4, .window = 1, .share = 1),
};

/* The same work for all: a ring, and an event with queue and value for each */
#define COST(NAME, PATH, DEPTH) \
	{ NAME, PATH, DEPTH, .own = WINDOW, .window = WINDOW }

static const struct scenario costs[] = {
	COST("doorbell, coalescing, mapped", &mapped_path, 0),
	COST("doorbell, coalescing, read()", &read_path, 0),
	COST("doorbell, ordered, mapped", &mapped_path, ENOUGH),
	COST("doorbell, ordered, read()", &read_path, ENOUGH),
	COST("wfcqueue", &wfcqueue_path, ENOUGH),
	COST("eventfd", &eventfd_path, 0),
};

/**
 * struct producer - a thread that rings
 * @thread: it
 * @id: its number
 * @memory: what it writes before each ring, as a guest writes to its memory
 * @rung: its rings, up to the end of a window
 * @ns: CPU time of its rings, if it waits between windows of them
 * @seen: its rings that the consumer has seen
 * @acked: the same, for the producer
 * @waiting: 1: the producer waits for @acked, and sleeps here
 */
struct producer {
	pthread_t thread;
	unsigned int id;
	uint32_t *memory;
	uint64_t rung;
	int64_t ns;
	uint64_t seen;
	uint64_t acked;
	uint32_t waiting;
} __attribute__((aligned(64)));

/**
 * struct queue - what the consumer has seen of a queue
 * @rings: number of rings
 * @value: last value
 */
struct queue {
	uint64_t rings;
	uint64_t value;
};

/**
 * struct result - sums over runs
 * @rings: rings
 * @lost: rings without an event
 * @doubled: rings that counted twice
 * @wrong: events with a wrong queue, value or order
 * @hung: no wake-up came, and there was no event
 * @slept: no wake-up came, and there were events
 * @races: reports of ThreadSanitizer
 * @events: events
 * @sleeps: how often the consumer slept
 * @ring_ns: CPU time of the producers
 * @event_ns: CPU time of the consumer
 */
struct result {
	uint64_t rings;
	uint64_t lost;
	uint64_t doubled;
	uint64_t wrong;
	bool hung;
	bool slept;
	unsigned int races;
	uint64_t events;
	uint64_t sleeps;
	int64_t ring_ns;
	int64_t event_ns;
};

struct sleeper consumer;

static unsigned int all_producers, nr_tests;
static uint64_t look_ns;
static unsigned int races;
static bool stop;

/* The run that is under way */
static const struct scenario *now;
static struct result *result;
static struct producer *producers;
static unsigned int nr_producers;
static struct queue *queues;
static unsigned int nr_queues;
static uint64_t rings;		/* of each producer */
static uint64_t got;		/* counted by events */
static uint32_t ringing;	/* producers in this window */
static uint64_t *last;		/* ordered: by producer; else queue, producer */

/* ThreadSanitizer calls this for each report. */
void __tsan_on_report(void *report);
void __tsan_on_report(void *report)
{
	(void)report;
	__atomic_fetch_add(&races, 1, __ATOMIC_RELAXED);
}

static void *zalloc(size_t n, size_t size)
{
	size_t bytes = (n * size + 63) & ~(size_t)63;
	void *mem = aligned_alloc(64, bytes);

	if (!mem)
		errx(2, "no memory");
	return memset(mem, 0, bytes);
}

static uint64_t cpu_ns(void)
{
	struct timespec time;

	clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
	return time.tv_sec * 1000000000ULL + time.tv_nsec;
}

/* CPU time since @start, without what it costs to look: about 1000 ns */
static int64_t cpu_ns_since(uint64_t start)
{
	return cpu_ns() - start - look_ns;
}

static void calibrate(void)
{
	uint64_t start = cpu_ns();
	int i;

	for (i = 0; i < LOOKS; i++)
		cpu_ns();
	look_ns = (cpu_ns() - start) / (LOOKS + 1);
}

static unsigned int random_below(uint64_t *state, unsigned int n)
{
	*state ^= *state << 13;
	*state ^= *state >> 7;
	*state ^= *state << 17;
	return *state % n;
}

static void futex_wake(uint32_t *word)
{
	syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, INT32_MAX, NULL, NULL, 0);
}

static void futex_wait(uint32_t *word, uint32_t value, unsigned int seconds)
{
	struct timespec timeout = { .tv_sec = seconds };

	syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, &timeout, NULL, 0);
}

void wake_up(struct sleeper *sleeper)
{
	/* before sleeping, pairs with sleep_unless() */
	__atomic_fetch_add(&sleeper->wakeups, 1, __ATOMIC_SEQ_CST);
	if (__atomic_load_n(&sleeper->sleeping, __ATOMIC_RELAXED))
		futex_wake(&sleeper->wakeups);
}

static bool is_woken(const struct sleeper *sleeper, uint32_t before)
{
	return __atomic_load_n(&sleeper->wakeups, __ATOMIC_ACQUIRE) != before;
}

bool sleep_unless(struct sleeper *sleeper, bool (*ready)(void))
{
	uint32_t before = __atomic_load_n(&sleeper->wakeups, __ATOMIC_ACQUIRE);
	int i, spins = now->alone ? SPINS : 0;

	if (ready())
		return true;
	while (spins--) {
		if (is_woken(sleeper, before))
			return true;
		__builtin_ia32_pause();
	}
	/* before wakeups, which the system call reads, pairs with wake_up() */
	__atomic_fetch_add(&sleeper->sleeping, 1, __ATOMIC_SEQ_CST);
	/* twice: a wake-up may come when the time is just over */
	for (i = 0; i < 2 && !is_woken(sleeper, before); i++)
		futex_wait(&sleeper->wakeups, before, PATIENCE / 2);
	__atomic_fetch_sub(&sleeper->sleeping, 1, __ATOMIC_RELAXED);
	return is_woken(sleeper, before);
}

/* Each producer rings its queues, or the shared ones, in turn. */

static unsigned int turn_mask(void)
{
	return (now->own ?: nr_queues) - 1;
}

static unsigned int queue_of(unsigned int id, uint64_t seq)
{
	return now->own ? id * now->own + (seq & turn_mask()) :
			  (seq + id) & turn_mask();
}

/* Which of its rings is a producer's @n-th of @queue, from 1 on? */
static uint64_t seq_of(unsigned int id, unsigned int queue, uint64_t n)
{
	unsigned int first = (queue - (now->own ? 0 : id)) & turn_mask();

	return (first ? n - 1 : n) * (turn_mask() + 1) + first;
}

/* How often does a producer ring @queue? */
static uint64_t rings_of(unsigned int id, unsigned int queue)
{
	uint64_t first = seq_of(id, queue, 1);

	if (queue != queue_of(id, first) || first > rings)
		return 0;
	return (rings - first) / (turn_mask() + 1) + 1;
}

static bool stopped(void)
{
	return __atomic_load_n(&stop, __ATOMIC_RELAXED);
}

static bool is_acked(const struct producer *p)
{
	return __atomic_load_n(&p->acked, __ATOMIC_SEQ_CST) >= p->rung;
}

static void wait_for_ack(struct producer *p)
{
	unsigned int spins;

	for (spins = 0; spins < SPINS && !is_acked(p); spins++)
		__builtin_ia32_pause();
	while (!is_acked(p) && !stopped()) {
		/* before acked, pairs with ack() */
		__atomic_store_n(&p->waiting, 1, __ATOMIC_SEQ_CST);
		if (!is_acked(p))
			futex_wait(&p->waiting, 1, 1);
	}
}

static void ack(struct producer *p)
{
	/* before waiting, pairs with wait_for_ack() */
	__atomic_store_n(&p->acked, p->seen, __ATOMIC_SEQ_CST);
	if (__atomic_load_n(&p->waiting, __ATOMIC_SEQ_CST)) {
		__atomic_store_n(&p->waiting, 0, __ATOMIC_SEQ_CST);
		futex_wake(&p->waiting);
	}
}

/* Ring until the end of a window. */
static void ring_window(struct producer *p)
{
	uint64_t seq = p->rung, start = cpu_ns();

	do {
		seq++;
		if (p->memory)
			p->memory[seq] = seq;
		while (!now->path->ring(queue_of(p->id, seq),
					(uint64_t)p->id << SEQ_BITS | seq)) {
			now->path->room();
			if (stopped()) {
				p->rung = seq - 1;
				return;
			}
		}
	} while (seq < rings && (!now->window || seq % now->window));
	p->ns += cpu_ns_since(start);
	p->rung = seq;
	if (now->window == WINDOW &&
	    __atomic_sub_fetch(&ringing, 1, __ATOMIC_RELEASE) == 0)
		futex_wake(&ringing);
}

static void *produce(void *arg)
{
	struct producer *p = arg;
	uint64_t random = p->id + 1;
	unsigned int pauses;

	while (p->rung < rings && !stopped()) {
		ring_window(p);
		if (!now->window)
			continue;
		wait_for_ack(p);
		if (now->window > 1)
			continue;
		/* meet the consumer at different places */
		pauses = random_below(&random, PAUSES);
		while (pauses--)
			__builtin_ia32_pause();
	}
	return NULL;
}

/* False if no ring can make this event, or not after the events before. */
static bool is_right(const struct doorbell_event *event)
{
	unsigned int id = event->value >> SEQ_BITS;
	uint64_t seq = event->value & SEQ_MASK, *before;
	uint64_t counted = seq;
	struct queue *queue;

	if (event->type != DOORBELL_EVENT_QUEUE || event->width != 8 ||
	    !event->count || id >= nr_producers || !seq || seq > rings ||
	    event->queue != queue_of(id, seq))
		return false;

	if (now->depth) {
		if (event->count != 1 || seq != last[id] + 1)
			return false;
		last[id] = seq;
	} else {
		queue = &queues[event->queue];
		queue->rings += event->count;
		queue->value = event->value;
		before = &last[(size_t)event->queue * nr_producers + id];
		if (seq < *before)
			return false;
		*before = seq;
		if (!now->own)
			return true;
		/* the value may be newer than the count, but not older */
		counted = seq_of(id, event->queue, queue->rings);
		if (seq < counted)
			return false;
	}
	return !producers[id].memory ||
	       producers[id].memory[counted] == (uint32_t)counted;
}

static unsigned int get_events(void)
{
	static struct doorbell_event events[BATCH];
	unsigned int n, i;

	n = now->path->get(events, BATCH);
	result->events += n;
	for (i = 0; i < n; i++) {
		got += events[i].count;
		if (!is_right(&events[i]))
			result->wrong++;
		else if (now->window)
			producers[events[i].value >> SEQ_BITS].seen +=
				events[i].count;
	}
	return n;
}

static void ack_all(void)
{
	struct producer *p;

	for (p = producers; p < producers + nr_producers; p++)
		if (p->acked != p->seen)
			ack(p);
}

/* Get events, and meet the producers at different places. */
static bool consume_all(void)
{
	unsigned int polls = 0;
	uint64_t random = 1;

	while (got < rings * nr_producers) {
		if (get_events()) {
			if (now->window)
				ack_all();
			polls = random_below(&random, POLLS);
		} else if (polls) {
			polls--;
		} else {
			result->sleeps++;
			if (!now->path->sleep())
				return false;
		}
	}
	return true;
}

/* The first ring of a window wakes the consumer, which waits for the others. */
static bool consume_window(uint64_t end)
{
	uint64_t start = cpu_ns();
	bool woken = now->path->sleep();
	uint32_t n;

	result->event_ns += cpu_ns_since(start);
	result->sleeps++;
	while ((n = __atomic_load_n(&ringing, __ATOMIC_ACQUIRE)))
		futex_wait(&ringing, n, 1);

	start = cpu_ns();
	while (got < end * nr_producers && woken)
		if (!get_events())
			woken = now->path->sleep();
	result->event_ns += cpu_ns_since(start);

	__atomic_store_n(&ringing, nr_producers, __ATOMIC_RELAXED);
	ack_all();
	return woken;
}

/* Get all events. False if that does not come to an end. */
static bool consume(void)
{
	uint64_t end;

	if (now->window != WINDOW)
		return consume_all();
	for (end = now->window; end <= rings; end += now->window)
		if (!consume_window(end))
			return false;
	return true;
}

/* Coalescing: is the count of a queue right, and the last value? */
static void check_queue(unsigned int q)
{
	uint64_t value = queues[q].value, rung = 0;
	unsigned int id;

	for (id = 0; id < nr_producers; id++)
		rung += rings_of(id, q);
	if (queues[q].rings < rung)
		result->lost += rung - queues[q].rings;
	else
		result->doubled += queues[q].rings - rung;

	id = value >> SEQ_BITS;
	if (rung && (value & SEQ_MASK) != seq_of(id, q, rings_of(id, q)))
		result->wrong++;
}

static void start_producers(void)
{
	unsigned int id;

	producers = zalloc(nr_producers, sizeof(*producers));
	for (id = 0; id < nr_producers; id++) {
		producers[id].id = id;
		if (TSAN)
			producers[id].memory = zalloc(rings + 1, 4);
	}
	for (id = 0; id < nr_producers; id++)
		if (pthread_create(&producers[id].thread, NULL, produce,
				   &producers[id]))
			errx(2, "no threads");
}

/* Return: how often they have rung. */
static uint64_t join_producers(void)
{
	uint64_t rung = 0;
	unsigned int id;

	for (id = 0; id < nr_producers; id++) {
		pthread_join(producers[id].thread, NULL);
		rung += producers[id].rung;
		result->ring_ns += producers[id].ns;
	}
	return rung;
}

/* Add a run with at least @total rings to @sum. */
static void run(const struct scenario *scenario, uint64_t total,
		struct result *sum)
{
	uint64_t rung, before;
	unsigned int i;
	bool ended;

	now = scenario;
	result = sum;
	nr_producers = now->alone ? all_producers / 2 : all_producers;
	rings = total / nr_producers + 1;
	if (now->window)
		rings += now->window - rings % now->window;
	nr_queues = nr_producers * now->own;
	if (!now->own)
		for (nr_queues = 1; nr_queues <= nr_producers; nr_queues *= 2)
			;
	got = 0;
	stop = false;
	ringing = nr_producers;
	races = 0;
	queues = zalloc(nr_queues, sizeof(*queues));
	last = zalloc((size_t)nr_queues * nr_producers, sizeof(*last));
	now->path->create(nr_queues,
			  now->depth == ENOUGH ? nr_queues : now->depth);
	start_producers();

	ended = consume();
	__atomic_store_n(&stop, true, __ATOMIC_RELAXED);
	rung = join_producers();
	result->rings += rung;
	before = got;
	while (get_events())
		;
	if (!ended && got == before)
		result->hung = true;
	else if (!ended)
		result->slept = true;

	if (ended && !now->depth)
		for (i = 0; i < nr_queues; i++)
			check_queue(i);
	else if (got < rung)
		result->lost += rung - got;
	else
		result->doubled += got - rung;
	result->races += races;

	now->path->destroy();
	for (i = 0; i < nr_producers; i++)
		free(producers[i].memory);
	free(producers);
	free(queues);
	free(last);
}

/* Print a line of TAP. Return: 1 if the test failed. */
static int judge(const struct scenario *scenario, const struct result *r)
{
	bool bad = r->lost || r->doubled || r->wrong || r->hung || r->slept ||
		   r->races;

	printf("# %llu rings, %llu events, %llu sleeps\n",
	       (unsigned long long)r->rings, (unsigned long long)r->events,
	       (unsigned long long)r->sleeps);
	if (bad)
		printf("# lost %llu, doubled %llu, wrong %llu, races %u\n",
		       (unsigned long long)r->lost,
		       (unsigned long long)r->doubled,
		       (unsigned long long)r->wrong, r->races);
	if (r->slept)
		puts("# no wake-up, but events");
	if (r->hung)
		puts("# no wake-up, and no event");
	printf("%s %u %s%s\n", bad ? "not ok" : "ok", ++nr_tests,
	       TSAN ? "tsan: " : "", scenario->name);
	fflush(stdout);
	return bad;
}

static double per(int64_t ns, uint64_t n)
{
	return n ? (double)ns / n : 0;
}

int main(int argc, char **argv)
{
	uint64_t total, rung = 0, lost = 0;
	struct result sums[NR(costs)] = {};
	double both, doorbell, ratio;
	unsigned int i, round;
	int failed = 0;

	total = argc == 2 ? strtoull(argv[1], NULL, 0) : 0;
	if (!total)
		errx(2, "usage: native RINGS");
	calibrate();
	all_producers = 2 * sysconf(_SC_NPROCESSORS_ONLN);

	printf("TAP version 13\n1..%zu\n",
	       NR(scenarios) + (TSAN ? 0 : NR(costs)));
	for (i = 0; i < NR(scenarios); i++) {
		struct result r = {};

		run(&scenarios[i], total * scenarios[i].share / 1000, &r);
		failed |= judge(&scenarios[i], &r);
		rung += r.rings;
		lost += r.lost;
	}
	if (TSAN)
		return failed;

	for (round = 0; round < ROUNDS; round++)
		for (i = 0; i < NR(costs); i++)
			run(&costs[i], total / 1000, &sums[i]);
	for (i = 0; i < NR(costs); i++)
		failed |= judge(&costs[i], &sums[i]);

	doorbell = per(sums[0].ring_ns, sums[0].rings) +
		   per(sums[0].event_ns, sums[0].events);
	printf("# %-30s %8s %8s %8s %8s\n", "CPU time in ns", "ring", "event",
	       "both", "ratio");
	for (i = 0; i < NR(costs); i++) {
		double ring = per(sums[i].ring_ns, sums[i].rings);
		double event = per(sums[i].event_ns, sums[i].events);

		both = ring + event;
		ratio = both / doorbell;
		printf("# %-30s %8.1f %8.1f %8.1f %8.2f\n", costs[i].name, ring,
		       event, both, ratio);
	}
	printf("native: rings %llu lost %llu, eventfd/doorbell %.1f\n",
	       (unsigned long long)rung, (unsigned long long)lost, ratio);
	return failed;
}
