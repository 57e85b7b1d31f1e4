// SPDX-License-Identifier: GPL-2.0
/*
 * Crash: a consumer dies at any instruction, and its successor on the same open
 * file loses no ring. The VMM, this process, keeps the descriptor and rings. It
 * kills the consumer, a child, at random times and after each single step. The
 * child notes each event in shared memory once it has handled it.
 */
#include <signal.h>
#include <sys/auxv.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>

#include "libdoorbell.h"
#include "util.h"
#include "vmutil.h"

#define BASE		0x1000
#define STRIDE		8
#define QUEUES		6
#define DEPTH		64
/* Bad rings, whose addresses tell which ring it was */
#define BAD_BASE	0x100000
/* Queues, and one more for bad rings */
#define SLOTS		(BOOK_QUEUES + 1)
#define BAD		BOOK_QUEUES

/* Rings of one region, fewer than */
#define RINGS_MAX	16384
/* Events that a consumer takes at a time: fewer than there are queues */
#define ROOM		3

/* How long each variant kills, and how often at least and at most */
#define KILL_MS		900
#define KILLS_MIN	20
#define KILLS_MAX	4000
/*
 * How long each variant tries every step. After that, on a slow machine, it
 * tries those that change shared memory: a successor sees no other difference.
 */
#define STEP_MS		1500
#define STEPS_MAX	16384

/**
 * struct log - what consumers have handled
 * @count: rings of each slot
 * @last: last value of each slot
 * @wrong: events that no consumer should see
 * @events: all events
 * @ready: the consumer is about to take events
 * @done: which values came
 */
struct log {
	__u64 count[SLOTS];
	__u64 last[SLOTS];
	__u64 wrong;
	__u64 events;
	bool ready;
	__u8 done[RINGS_MAX];
};

/* Raw mapped memory, with nothing but the uapi header */
struct raw {
	struct doorbell_info info;
	struct doorbell_control *control;
	const struct doorbell_slot *slots;
	const __u32 *fifo;
	const struct doorbell_entry *entries;
};

struct consumer {
	int fd;
	struct log *log;
	/* end when nothing is left, instead of waiting */
	bool once;
	struct doorbell *db;
	struct raw raw;
};

/* Between these stores the consumer can die as well. */
static void handle(struct log *log, const struct doorbell_event *event)
{
	bool bad = event->type == DOORBELL_EVENT_BAD_ADDRESS;
	unsigned int slot = bad ? BAD : event->queue;
	__u64 value = bad ? event->value - BAD_BASE : event->value;

	__atomic_fetch_add(&log->events, 1, __ATOMIC_RELAXED);
	if (slot >= SLOTS || !event->count) {
		__atomic_fetch_add(&log->wrong, 1, __ATOMIC_RELAXED);
		return;
	}
	__atomic_fetch_add(&log->count[slot], event->count, __ATOMIC_RELAXED);
	if (value < RINGS_MAX)
		__atomic_store_n(&log->done[value], 1, __ATOMIC_RELAXED);
	__atomic_store_n(&log->last[slot], value, __ATOMIC_RELEASE);
}

/* The steps of struct doorbell_control */

static bool raw_map(int fd, struct raw *raw)
{
	struct doorbell_info *info = &raw->info;
	struct doorbell_status *status;

	if (db_info(fd, info))
		return false;
	raw->control = mmap(NULL, info->control_size, PROT_READ | PROT_WRITE,
			    MAP_SHARED, fd, 0);
	status = mmap(NULL, info->readonly_size, PROT_READ, MAP_SHARED, fd,
		      info->control_size);
	if (raw->control == MAP_FAILED || status == MAP_FAILED ||
	    status->generation != info->generation)
		return false;
	raw->slots = (void *)(status + 1);
	raw->fifo = (void *)((char *)status + info->entries_offset);
	raw->entries = (void *)raw->fifo;
	return true;
}

static __u64 load(const volatile __u64 *from)
{
	return __atomic_load_n(from, __ATOMIC_ACQUIRE);
}

static void store(volatile __u64 *to, __u64 value)
{
	__atomic_store_n(to, value, __ATOMIC_RELEASE);
}

static int raw_take_coalesced(struct raw *raw, struct doorbell_event *events)
{
	struct doorbell_control *control = raw->control;
	__u32 nr = raw->info.nr_entries;
	__u64 head = load(&control->head);
	__u32 slots[ROOM];
	int n, i, got = 0;

	store(&control->handled, head);				/* 0 */
	for (n = 0; n < ROOM; n++) {				/* 1 */
		__u32 entry = __atomic_load_n(&raw->fifo[(head + n) & (nr - 1)],
					      __ATOMIC_ACQUIRE);

		if (entry >> DOORBELL_FIFO_LAP_SHIFT !=
		    (__u16)((head + n) / nr))
			break;
		slots[n] = (__u16)entry;
	}
	store(&control->head, head + n);			/* 2 */
	__atomic_thread_fence(__ATOMIC_SEQ_CST);		/* 3 */
	for (i = 0; i < n; i++) {				/* 4 */
		const struct doorbell_slot *slot = &raw->slots[slots[i]];
		__u64 rings = load(&slot->rings);
		__u64 seen = load(&control->seen[slots[i]]);
		struct doorbell_event *event = &events[got];

		event->queue = slots[i];
		event->type = rings;
		event->count = (rings - seen) >> DOORBELL_RINGS_SHIFT;
		event->value = load(&slot->value);
		store(&control->seen[slots[i]], seen +
		      ((__u64)event->count << DOORBELL_RINGS_SHIFT));
		got += !!event->count;
	}
	return got ?: n ? -EAGAIN : 0;
}

static int raw_take_ordered(struct raw *raw, struct doorbell_event *events)
{
	__u64 head = load(&raw->control->head);
	__u32 nr = raw->info.nr_entries;
	__u32 n;

	store(&raw->control->handled, head);			/* 0 */
	for (n = 0; n < ROOM && n < nr - raw->info.depth; n++) {	/* 1 */
		const struct doorbell_entry *entry =
			&raw->entries[(head + n) & (nr - 1)];
		__u64 word = load(&entry->word);

		if (word >> DOORBELL_ENTRY_LAP_SHIFT !=
		    (__u32)((head + n) / nr))
			break;
		events[n].queue = word;
		events[n].type = word >> DOORBELL_ENTRY_KIND_SHIFT;
		events[n].count = 1;
		events[n].value = load(&entry->value);
	}
	store(&raw->control->head, head + n);			/* 2 */
	return n;
}

static int raw_take(struct raw *raw, struct doorbell_event *events)
{
	return raw->info.flags & DOORBELL_ATTACH_ORDERED ?
	       raw_take_ordered(raw, events) : raw_take_coalesced(raw, events);
}

/* Consumers */

static void setup_library(struct consumer *c)
{
	c->db = doorbell_from_fd(dup(c->fd), 0);
	if (!c->db)
		_exit(1);
}

static void setup_raw(struct consumer *c)
{
	if (ioctl(c->fd, DOORBELL_RECOVER, 0) || !raw_map(c->fd, &c->raw))
		_exit(1);
}

static void setup_read(struct consumer *c)
{
	if (ioctl(c->fd, DOORBELL_RECOVER, 0))
		_exit(1);
}

/*
 * The time in which SIGKILL has to come, unless instructions are counted. Every
 * other consumer sleeps, because emulated CPUs may take turns: otherwise it
 * handles all that it has taken before the VMM runs again.
 */
static void work(const struct consumer *c)
{
	if (c->once)
		return;
	if (getpid() % 2)
		usleep(1000);
	else
		db_spin(3000);
}

/* Handle @n events. Return: false if there are none, and none will come. */
static bool handle_all(struct consumer *c, const struct doorbell_event *events,
		       int n)
{
	int i;

	for (i = 0; i < n; i++) {
		work(c);
		handle(c->log, &events[i]);
	}
	if (n || !c->once)
		return true;
	return false;
}

static void run_take(struct consumer *c)
{
	struct doorbell_event events[ROOM];
	int n;

	do {
		n = doorbell_take(c->db, events, ROOM);
		if (!n && !c->once)
			doorbell_wait(c->db, -1);
	} while (handle_all(c, events, n));
}

static int handle_one(unsigned int queue, const struct doorbell_event *event,
		      void *ctx)
{
	struct consumer *c = ctx;

	work(c);
	handle(c->log, event);
	return c->once && queue == 2;
}

static void run_complete(struct consumer *c)
{
	doorbell_complete(c->db, handle_one, c);
}

static void run_raw(struct consumer *c)
{
	struct doorbell_event events[ROOM];
	int n;

	do {
		n = raw_take(&c->raw, events);
		if (!n && !c->once)
			db_poll(c->fd, POLLIN, -1);
	} while (handle_all(c, events, n));
}

static void run_read(struct consumer *c)
{
	struct doorbell_event events[ROOM];
	int n;

	do {
		n = db_read(c->fd, events, ROOM);
		if (n < 0)
			n = 0;
		if (!n && !c->once)
			db_poll(c->fd, POLLIN, -1);
	} while (handle_all(c, events, n));
}

/* The VMM */

struct ringer {
	int fd;
	struct log *log;
	__u32 depth;
	__u64 rings;
	__u64 count[SLOTS];
	__u64 last[SLOTS];
};

static int open_region(struct ringer *r, __u32 depth)
{
	struct doorbell_attach arg = db_attach_arg(-1, BASE, QUEUES * STRIDE);
	struct log *log = r->log;
	int ret;

	arg.stride = STRIDE;
	arg.flags |= depth ? DOORBELL_ATTACH_ORDERED : 0;
	arg.depth = depth;
	memset(log, 0, sizeof(*log));
	memset(r, 0, sizeof(*r));
	r->log = log;
	r->depth = depth;
	r->fd = db_open(O_NONBLOCK);
	if (r->fd < 0)
		return r->fd;
	ret = db_result(ioctl(r->fd, DOORBELL_ATTACH, &arg));
	if (ret)
		close(r->fd);
	return ret;
}

/* Queue QUEUES stands for a bad ring. A full region refuses, which is fine. */
static int ring(struct ringer *r, unsigned int queue)
{
	unsigned int slot = queue < QUEUES ? queue : BAD;
	__u64 number = r->rings + 1;
	int ret;

	if (number == RINGS_MAX)
		return -E2BIG;
	if (queue < QUEUES)
		ret = db_ring(r->fd, BASE + queue * STRIDE, number);
	else
		ret = db_ring(r->fd, BAD_BASE + number, 0);
	if (ret)
		return ret == -EAGAIN ? 0 : ret;
	r->rings = number;
	r->count[slot]++;
	r->last[slot] = number;
	return 0;
}

static pid_t start(struct consumer *c, void (*setup)(struct consumer *c),
		   void (*run)(struct consumer *c), bool traced)
{
	pid_t pid;

	__atomic_store_n(&c->log->ready, false, __ATOMIC_RELEASE);
	pid = fork();
	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (traced && ptrace(PTRACE_TRACEME, 0, NULL, NULL))
		_exit(77);
	setup(c);
	__atomic_store_n(&c->log->ready, true, __ATOMIC_RELEASE);
	if (traced)
		raise(SIGSTOP);
	run(c);
	_exit(0);
}

/*
 * The last one takes over, in this process: all that is left, which is not
 * more than @most events. Return: their number, or a negative errno.
 */
static int take_over(int fd, struct log *log, bool by_read, unsigned int most)
{
	struct doorbell_event events[ROOM];
	struct doorbell *db = NULL;
	unsigned int total = 0;
	int n, i;

	if (by_read) {
		if (ioctl(fd, DOORBELL_RECOVER, 0))
			return -errno;
	} else {
		db = doorbell_from_fd(dup(fd), 0);
		if (!db)
			return -errno;
	}
	do {
		n = by_read ? db_read(fd, events, ROOM) :
			      doorbell_take(db, events, ROOM);
		if (by_read && n == -EAGAIN)
			n = 0;
		for (i = 0; i < n; i++)
			handle(log, &events[i]);
		total += n > 0 ? n : 0;
	} while (n > 0 && total <= most);
	if (!n && db)
		n = doorbell_wait(db, 0);
	doorbell_close(db);
	if (!n && db_poll(fd, POLLIN, 0) & POLLIN)
		n = -EPROTO;
	return n < 0 ? n : total > most ? -EOVERFLOW : (int)total;
}

/* The events counted every ring, the last one of each queue included. */
static bool complete_log(const struct ringer *r)
{
	const struct log *log = r->log;
	unsigned int i;
	bool ok = !log->wrong;

	for (i = 0; i < SLOTS; i++) {
		if (log->last[i] == r->last[i] && log->count[i] >= r->count[i])
			continue;
		printf("# slot %u: %llu of %llu rings, value %llu of %llu\n", i,
		       log->count[i], r->count[i], log->last[i], r->last[i]);
		ok = false;
	}
	if (r->depth)
		for (i = 1; i <= r->rings; i++)
			ok = ok && log->done[i];
	return ok;
}

FIXTURE(crash)
{
	struct ringer r;
	struct consumer c;
	unsigned int most;
};

FIXTURE_VARIANT(crash)
{
	__u32 depth;
	void (*setup)(struct consumer *c);
	void (*run)(struct consumer *c);
	bool by_read;
};

#define VARIANT(name, nr, how, with, reads)				\
	FIXTURE_VARIANT_ADD(crash, name) {				\
		.depth = nr, .run = how, .setup = with,		\
		.by_read = reads,					\
	}

VARIANT(raw, 0, run_raw, setup_raw, false);
VARIANT(raw_then_read, 0, run_raw, setup_raw, true);
VARIANT(take, 0, run_take, setup_library, false);
VARIANT(take_then_read, 0, run_take, setup_library, true);
VARIANT(complete, 0, run_complete, setup_library, false);
VARIANT(complete_then_read, 0, run_complete, setup_library, true);
VARIANT(read, 0, run_read, setup_read, false);
VARIANT(read_then_read, 0, run_read, setup_read, true);
VARIANT(raw_ordered, DEPTH, run_raw, setup_raw, false);
VARIANT(raw_ordered_then_read, DEPTH, run_raw, setup_raw, true);
VARIANT(take_ordered, DEPTH, run_take, setup_library, false);
VARIANT(take_ordered_then_read, DEPTH, run_take, setup_library, true);
VARIANT(complete_ordered, DEPTH, run_complete, setup_library, false);
VARIANT(complete_ordered_then_read, DEPTH, run_complete, setup_library, true);
VARIANT(read_ordered, DEPTH, run_read, setup_read, false);
VARIANT(read_ordered_then_read, DEPTH, run_read, setup_read, true);
/* fewer than ROOM come again */
VARIANT(raw_ordered_2, 2, run_raw, setup_raw, false);
VARIANT(take_ordered_2, 2, run_take, setup_library, false);
VARIANT(take_ordered_2_then_read, 2, run_take, setup_library, true);
VARIANT(read_ordered_2_then_read, 2, run_read, setup_read, true);

FIXTURE_SETUP(crash)
{
	self->r.log = db_shared_memory(sizeof(struct log));
	ASSERT_NE(NULL, self->r.log);
	self->c.log = self->r.log;
	/* events outstanding, and as many that come again */
	self->most = variant->depth ? 2 * variant->depth : QUEUES + 1;
	self->r.fd = -1;
}

FIXTURE_TEARDOWN(crash)
{
	munmap(self->r.log, sizeof(struct log));
	close(self->r.fd);
}

/* SIGKILL at random times, of one to three consumers one after the other */
TEST_F_TIMEOUT(crash, killed_at_random, TEST_SECONDS)
{
	unsigned int kills = 0, turn, victims, rings, at, i;
	__u64 end = db_until(KILL_MS);
	struct ringer *r = &self->r;
	__u64 repeated = 0;
	__u32 seed = 7;
	bool early;
	int status;
	pid_t pid;

	for (turn = 0; db_round(kills, KILLS_MIN, KILLS_MAX, end); turn++) {
		/* a region for some turns: consumers find it in any state */
		if (turn % 32 == 0) {
			if (r->fd >= 0)
				close(r->fd);
			ASSERT_EQ(0, open_region(r, variant->depth));
			self->c.fd = r->fd;
		}
		for (victims = 1 + db_random(&seed) % 3; victims; victims--) {
			pid = start(&self->c, variant->setup, variant->run,
				    false);
			ASSERT_LT(0, pid);
			/* mostly when it takes events, else at its start */
			early = db_random(&seed) % 64 == 0;
			while (!early && !__atomic_load_n(&r->log->ready,
							  __ATOMIC_ACQUIRE))
				db_yield();
			rings = db_random(&seed) % 16;
			at = db_random(&seed) % (rings + 1);
			for (i = 0; i <= rings; i++) {
				if (i == at)
					ASSERT_EQ(0, kill(pid, SIGKILL));
				if (i < rings)
					ASSERT_EQ(0, ring(r, db_random(&seed) %
							     (QUEUES + 1)));
				db_spin(db_random(&seed) % 1500);
				if (db_random(&seed) % 2)
					db_yield();
			}
			ASSERT_EQ(pid, waitpid(pid, &status, 0));
			ASSERT_TRUE(WIFSIGNALED(status));
			kills++;
		}
		status = take_over(r->fd, r->log, variant->by_read,
				   self->most);
		ASSERT_LE(0, status);
		ASSERT_TRUE(complete_log(r)) {
			TH_LOG("after %u kills", kills);
		}
		for (i = 0; i < SLOTS; i++)
			repeated += r->log->count[i] > r->count[i];
	}
	printf("# %u kills, %llu repeated events\n", kills, repeated);
}

/* Run one instruction. Return: 1 if the consumer has ended, or 0 */
static int step(pid_t pid)
{
	int status;

	if (ptrace(PTRACE_SINGLESTEP, pid, NULL, NULL) ||
	    waitpid(pid, &status, 0) != pid)
		return -errno;
	if (WIFEXITED(status))
		return WEXITSTATUS(status) ? -EPROTO : 1;
	return WIFSTOPPED(status) && WSTOPSIG(status) == SIGTRAP ? 0 : -EPROTO;
}

/* Start a consumer with events, and stop it before it takes them. */
static int start_traced(struct ringer *r, struct consumer *c, __u32 depth,
			void (*setup)(struct consumer *c),
			void (*run)(struct consumer *c), pid_t *pid)
{
	static const unsigned int queues[] = { 0, 1, 1, QUEUES, 2 };
	int status, ret = open_region(r, depth);
	unsigned int i;

	if (ret)
		return ret;
	c->fd = r->fd;
	c->once = true;
	*pid = start(c, setup, run, true);
	if (*pid < 0 || waitpid(*pid, &status, 0) != *pid)
		return -errno;
	if (WIFEXITED(status))
		return WEXITSTATUS(status) == 77 ? -EPERM : -EPROTO;
	for (i = 0; i < ARRAY_SIZE(queues) && !ret; i++)
		ret = ring(r, queues[i]);
	return ret;
}

/*
 * Run a consumer to its end. Note the steps that change shared memory, in the
 * control area or in the log. Return: the number of steps, or a negative errno.
 */
static int find_changes(struct ringer *r, pid_t pid, bool *changes)
{
	const size_t log_size = offsetof(struct log, done);
	static struct log log;
	char control[192] = {};
	int steps, ret;
	void *now;

	now = mmap(NULL, 4096, PROT_READ, MAP_SHARED, r->fd, 0);
	if (now == MAP_FAILED)
		return -errno;
	for (steps = 0; steps < STEPS_MAX; steps++) {
		changes[steps] = !steps ||
				 memcmp(control, now, sizeof(control)) ||
				 memcmp(&log, r->log, log_size);
		memcpy(control, now, sizeof(control));
		memcpy(&log, r->log, log_size);
		ret = step(pid);
		if (ret)
			break;
	}
	munmap(now, 4096);
	close(r->fd);
	return ret == 1 ? steps : ret ?: -E2BIG;
}

/* The consumer dies after each instruction in turn. */
TEST_F_TIMEOUT(crash, killed_at_every_step, TEST_SECONDS)
{
	__u64 end = db_until(STEP_MS);
	struct ringer *r = &self->r;
	unsigned int steps, i, tried = 0;
	static bool changes[STEPS_MAX];
	int status, last, ended;
	bool all;
	pid_t pid;

	status = start_traced(r, &self->c, variant->depth, variant->setup,
			      variant->run, &pid);
	if (status == -EPERM)
		SKIP(return, "no ptrace()");
	ASSERT_EQ(0, status);
	last = find_changes(r, pid, changes);
#ifdef __aarch64__
	/* each stop ends the exclusive access of libc's lock, which retries */
	if (!(getauxval(AT_HWCAP) & HWCAP_ATOMICS) && last == -E2BIG)
		SKIP(return, "no steps through exclusive accesses");
#endif
	ASSERT_LT(0, last) {
		TH_LOG("%s", strerror(-last));
	}

	for (steps = 0; steps <= last; steps++) {
		all = db_now_ms() < end;
		if (!all && !changes[steps])
			continue;
		ASSERT_EQ(0, start_traced(r, &self->c, variant->depth,
					  variant->setup, variant->run, &pid));
		for (i = 0, ended = 0; i < steps && !ended; i++) {
			/* a ring of another CPU */
			if (all && i == steps / 2)
				ASSERT_EQ(0, ring(r, 1));
			ended = step(pid);
		}
		ASSERT_LE(0, ended) {
			TH_LOG("step %u: %s", steps, strerror(-ended));
		}
		if (!ended)
			ASSERT_EQ(0x100 + SIGKILL, killed(pid));
		/* the same queue again, one that waits, and a new one */
		ASSERT_EQ(0, ring(r, 0));
		if (steps % 2)
			ASSERT_EQ(0, ring(r, 3));

		status = take_over(r->fd, r->log, variant->by_read,
				   self->most);
		ASSERT_LE(0, status) {
			TH_LOG("step %u: %s", steps, strerror(-status));
		}
		ASSERT_TRUE(complete_log(r)) {
			TH_LOG("after %u steps", steps);
		}
		ASSERT_EQ(0, close(r->fd));
		tried++;
	}
	r->fd = -1;
	printf("# %u steps, killed after %u of them\n", last, tried);
}

/* A consumer that stops in order: its successor gets no event twice. */
TEST_F_TIMEOUT(crash, not_killed, TEST_SECONDS)
{
	struct ringer *r = &self->r;
	__u64 events;
	pid_t pid;
	int i;

	ASSERT_EQ(0, open_region(r, variant->depth));
	self->c.fd = r->fd;
	self->c.once = true;
	for (i = 0; i < 3; i++)
		ASSERT_EQ(0, ring(r, i));
	pid = start(&self->c, variant->setup, variant->run, false);
	ASSERT_LT(0, pid);
	ASSERT_EQ(0, ended(pid));
	events = r->log->events;
	ASSERT_EQ(r->rings, events);
	ASSERT_EQ(0, take_over(r->fd, r->log, variant->by_read, self->most));
	ASSERT_TRUE(complete_log(r));
}

/* Rings of a vCPU, which the guest counts */

FIXTURE(guest)
{
	struct vmm *vmm;
	struct log *log;
	int fd;
	/* rings that bounced: their number, and the last value */
	__u64 bounced[REGION_QUEUES];
	__u32 last[REGION_QUEUES];
};

FIXTURE_VARIANT(guest)
{
	__u32 flags;
	void (*setup)(struct consumer *c);
	void (*run)(struct consumer *c);
	bool by_read;
};

FIXTURE_VARIANT_ADD(guest, complete) {
	.run = run_complete, .setup = setup_library,
};
FIXTURE_VARIANT_ADD(guest, raw_then_read) {
	.run = run_raw, .setup = setup_raw, .by_read = true,
};
FIXTURE_VARIANT_ADD(guest, read) { .run = run_read, .setup = setup_read };
FIXTURE_VARIANT_ADD(guest, take) { .run = run_take, .setup = setup_library };
FIXTURE_VARIANT_ADD(guest, complete_ordered) {
	.flags = DOORBELL_ATTACH_ORDERED, .run = run_complete,
	.setup = setup_library,
};
FIXTURE_VARIANT_ADD(guest, raw_ordered) {
	.flags = DOORBELL_ATTACH_ORDERED, .run = run_raw, .setup = setup_raw,
};
FIXTURE_VARIANT_ADD(guest, read_ordered) {
	.flags = DOORBELL_ATTACH_ORDERED, .run = run_read, .setup = setup_read,
};
FIXTURE_VARIANT_ADD(guest, take_ordered) {
	.flags = DOORBELL_ATTACH_ORDERED, .run = run_take,
	.setup = setup_library,
};

/* The VMM of an ordered region that is full */
static int bounce(void *ctx, unsigned int vcpu, struct vmm_exit *exit)
{
	FIXTURE_DATA(guest) *self = ctx;
	unsigned int q = (exit->addr - MMIO_BASE) / REGION_STRIDE;

	if (q >= REGION_QUEUES)
		return -EPROTO;
	self->bounced[q]++;
	self->last[q] = exit->data;
	return 0;
}

FIXTURE_SETUP(guest)
{
	struct doorbell_attach arg;

	self->log = db_shared_memory(sizeof(struct log));
	ASSERT_NE(NULL, self->log);
	self->vmm = vmm_create(1);
	ASSERT_NE(NULL, self->vmm);
	self->vmm->exit_cb = bounce;
	self->vmm->exit_ctx = self;
	self->fd = db_must_open(_metadata, O_NONBLOCK);
	arg = db_attach_arg(self->vmm->vm_fd, MMIO_BASE, REGION_LEN);
	arg.stride = REGION_STRIDE;
	arg.flags |= variant->flags;
	arg.depth = variant->flags ? DEPTH : 0;
	ASSERT_EQ(0, ioctl(self->fd, DOORBELL_ATTACH, &arg));
}

FIXTURE_TEARDOWN(guest)
{
	close(self->fd);
	vmm_destroy(self->vmm);
	munmap(self->log, sizeof(struct log));
}

TEST_F_TIMEOUT(guest, killed_at_random, TEST_SECONDS)
{
	struct consumer c = { .fd = self->fd, .log = self->log };
	__u64 end = db_until(KILL_MS);
	unsigned int kills, q;
	__u64 count, finished;
	__u32 last, seed = 11;
	pid_t pid;

	for (kills = 0; db_round(kills, KILLS_MIN, KILLS_MAX, end); kills++) {
		finished = db_random(&seed) % 20;
		ASSERT_EQ(0, start_ringing(self->vmm, 0));
		pid = start(&c, variant->setup, variant->run, false);
		ASSERT_LT(0, pid);
		ASSERT_TRUE(eventually(__atomic_load_n(&self->log->ready,
						       __ATOMIC_ACQUIRE)));
		ASSERT_TRUE(eventually(guest_finished(self->vmm->shared) >
				       finished));
		usleep(db_random(&seed) % 1000);
		/* rings that come after the kill hide what is lost before */
		if (kills % 2) {
			ASSERT_EQ(0, stop_ringing(self->vmm));
			db_spin(db_random(&seed) % 2000);
		}
		ASSERT_EQ(0x100 + SIGKILL, killed(pid));
		if (kills % 2 == 0)
			ASSERT_EQ(0, stop_ringing(self->vmm));
		ASSERT_LE(0, take_over(self->fd, self->log, variant->by_read,
				       variant->flags ? 2 * DEPTH :
				       REGION_QUEUES + 1));
		for (q = 0; q < REGION_QUEUES; q++) {
			count = guest_count(self->vmm->shared, q);
			ASSERT_LE(count, self->log->count[q] +
					 self->bounced[q]);
			/* the value is the number of rings */
			last = self->log->last[q];
			if (last < self->last[q])
				last = self->last[q];
			ASSERT_EQ((__u32)count, last);
		}
		ASSERT_EQ(0, self->log->wrong);
	}
	printf("# %u kills, %llu rings, %llu exits\n", kills,
	       guest_total(self->vmm->shared), vmm_exits(self->vmm));
}

TEST_HARNESS_MAIN
