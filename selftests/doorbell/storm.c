// SPDX-License-Identifier: GPL-2.0
/*
 * Storm: the guarantees Conservation, Order and Value while all vCPUs ring.
 *
 * In one half readers of all kinds come and go, and what they read adds up to
 * what the guest counted. In the other half nothing reads until the guest has
 * finished, so that the order of events is known.
 */
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/prctl.h>

#include "vmutil.h"

#define VCPUS		4
#define RINGS		1000		/* per vCPU */
#define SHARED_QUEUES	16
#define PRIVATE_QUEUES	8		/* per vCPU */
#define GUEST_QUEUES	(SHARED_QUEUES + VCPUS * PRIVATE_QUEUES)
#define WRITE_QUEUE	GUEST_QUEUES	/* rung by write() */
#define END_QUEUE	(GUEST_QUEUES + 1)	/* its event ends a reader */
#define QUEUES		(GUEST_QUEUES + 2)
#define STRIDE		8
#define LEN		(QUEUES * STRIDE)
#define MAX_READERS	3

static bool is_private(unsigned int queue)
{
	return queue >= SHARED_QUEUES && queue < GUEST_QUEUES;
}

static unsigned int owner_of(unsigned int queue)
{
	return (queue - SHARED_QUEUES) / PRIVATE_QUEUES;
}

/* Readers */

enum how {
	BLOCKING,
	POLL,
	EPOLL_LEVEL,
	EPOLL_EDGE,
};

/**
 * struct reader - one of the readers of a consumer, in shared memory
 * @fd: the consumer
 * @how: how it waits
 * @room: events per read()
 * @turns: of an empty loop after each read()
 * @quota: number of events after which it stops, 0 for no limit
 * @alone: there is no other reader
 * @mask: bits of the value that fit into the guest's write
 * @book: what it has read
 * @stale: events whose value is older than the rings they count
 * @error: errno of a failure
 * @ended: it has read END
 * @stopped: its thread has returned, with or without END
 */
struct reader {
	int fd;
	enum how how;
	unsigned int room;
	unsigned int turns;
	unsigned int quota;
	bool alone;
	__u64 mask;
	struct book book;
	__u64 stale;
	int error;
	bool ended;
	_Atomic bool stopped;
};

/*
 * A vCPU rings its own queues with the values 1, 2, 3, ...: the value of an
 * event is at least the number of rings read so far.
 */
static void check_fresh(struct reader *r, const struct doorbell_event *e)
{
	__u64 number = e->value & (r->mask >> 8);

	if (!r->alone || !is_private(e->queue))
		return;
	if (number < r->book.count[e->queue] ||
	    (r->mask >> 56 && e->value >> 56 != owner_of(e->queue)))
		r->stale++;
}

static int wait_for_events(const struct reader *r, int epfd)
{
	struct epoll_event event;

	switch (r->how) {
	case BLOCKING:
		return 0;
	case POLL:
		return db_poll(r->fd, POLLIN, -1);
	default:
		return db_result(epoll_wait(epfd, &event, 1, -1));
	}
}

/* Read what is pending: false if the reader has to stop. */
static bool read_all(struct reader *r, __u64 quota)
{
	struct doorbell_event events[256];
	int i, n;

	do {
		n = db_read(r->fd, events, r->room);
		if (n == -EAGAIN && r->how != BLOCKING)
			return true;
		if (n <= 0) {
			r->error = n ? -n : ENODATA;
			return false;
		}
		for (i = 0; i < n; i++) {
			book_events(&r->book, &events[i], 1);
			check_fresh(r, &events[i]);
			if (events[i].queue == END_QUEUE)
				r->ended = true;
		}
		db_spin(r->turns);
		if (r->ended || r->book.events >= quota)
			return false;
	} while (r->how == EPOLL_EDGE);
	return true;
}

static void *reader_main(void *arg)
{
	struct reader *r = arg;
	struct epoll_event event = {
		.events = EPOLLIN | (r->how == EPOLL_EDGE ? EPOLLET : 0),
	};
	__u64 quota = r->quota ? r->book.events + r->quota : ~0ULL;
	int ret, epfd = -1;

	if (r->how == EPOLL_LEVEL || r->how == EPOLL_EDGE) {
		epfd = epoll_create1(EPOLL_CLOEXEC);
		if (epfd < 0 || epoll_ctl(epfd, EPOLL_CTL_ADD, r->fd, &event))
			r->error = errno;
	}
	while (!r->error) {
		ret = wait_for_events(r, epfd);
		if (ret < 0)
			r->error = -ret;
		else if (!read_all(r, quota))
			break;
	}
	if (epfd >= 0)
		close(epfd);
	r->stopped = true;
	return NULL;
}

/* Storms */

/**
 * struct storm - what one test shares with its helpers
 * @vmm: the VM
 * @fd: the consumer
 * @flags: of the region
 * @readers: the readers, in shared memory
 * @nr_readers: how many
 * @thread: their threads
 * @process: the only reader runs in another process
 * @pid: that process
 * @lives: how often a reader was started again
 * @written: rings of WRITE_QUEUE
 * @bad: rings of bad addresses
 * @ends: rings of END_QUEUE
 */
struct storm {
	struct vmm *vmm;
	int fd;
	__u32 flags;
	struct reader *readers;
	unsigned int nr_readers;
	pthread_t thread[MAX_READERS];
	bool process;
	pid_t pid;
	unsigned int lives;
	__u64 written;
	__u64 bad;
	__u64 ends;
};

FIXTURE(storm) {
	struct storm s;
};

FIXTURE_VARIANT(storm) {
	__u32 flags;
	unsigned int job;
	unsigned int readers;
	enum how how[MAX_READERS];
	unsigned int room;
	unsigned int turns;
	unsigned int quota;
	bool process;
};

FIXTURE_VARIANT_ADD(storm, mmio_blocking) {
	.job = GUEST_STORM, .readers = 1, .how = { BLOCKING }, .room = 256,
};

FIXTURE_VARIANT_ADD(storm, mmio_epoll_level) {
	.job = GUEST_STORM, .readers = 1, .how = { EPOLL_LEVEL }, .room = 256,
};

FIXTURE_VARIANT_ADD(storm, mmio_epoll_edge) {
	.job = GUEST_STORM, .readers = 1, .how = { EPOLL_EDGE }, .room = 7,
};

FIXTURE_VARIANT_ADD(storm, mmio_slow) {
	.job = GUEST_RATES, .readers = 1, .how = { BLOCKING }, .room = 1,
	.turns = 10000,
};

FIXTURE_VARIANT_ADD(storm, mmio_stopped_and_restarted) {
	.job = GUEST_STORM, .readers = 1, .how = { POLL }, .room = 5,
	.quota = 60,
};

FIXTURE_VARIANT_ADD(storm, mmio_edge_restarted) {
	.job = GUEST_STORM, .readers = 1, .how = { EPOLL_EDGE }, .room = 5,
	.quota = 60,
};

FIXTURE_VARIANT_ADD(storm, mmio_process) {
	.job = GUEST_STORM, .readers = 1, .how = { BLOCKING }, .room = 64,
	.process = true,
};

FIXTURE_VARIANT_ADD(storm, mmio_three_blocking) {
	.job = GUEST_STORM, .readers = 3, .room = 3,
	.how = { BLOCKING, BLOCKING, BLOCKING },
};

FIXTURE_VARIANT_ADD(storm, mmio_three_kinds) {
	.job = GUEST_STORM, .readers = 3, .room = 16,
	.how = { EPOLL_LEVEL, EPOLL_EDGE, POLL },
};

FIXTURE_VARIANT_ADD(storm, pio_blocking) {
	.flags = PIO, .job = GUEST_STORM, .readers = 1, .how = { BLOCKING },
	.room = 256,
};

FIXTURE_VARIANT_ADD(storm, pio_epoll_edge) {
	.flags = PIO, .job = GUEST_RATES, .readers = 1, .how = { EPOLL_EDGE },
	.room = 64,
};

FIXTURE_VARIANT_ADD(storm, pio_process) {
	.flags = PIO, .job = GUEST_STORM, .readers = 1, .how = { EPOLL_LEVEL },
	.room = 16, .process = true,
};

FIXTURE_SETUP(storm)
{
	bool blocking = variant->how[0] == BLOCKING;
	struct storm *s = &self->s;
	unsigned int i;

	SKIP_WITHOUT_PORTS(variant->flags);
	s->flags = variant->flags;
	s->process = variant->process;
	s->fd = db_must_open(_metadata, blocking ? 0 : O_NONBLOCK);
	s->vmm = vmm_create(VCPUS);
	ASSERT_NE(NULL, s->vmm);
	ASSERT_EQ(0, db_attach_as(s->fd, s->vmm->vm_fd, base_of(s->flags), LEN,
				  STRIDE, s->flags));
	s->nr_readers = variant->readers;
	s->readers = db_shared_memory(MAX_READERS * sizeof(*s->readers));
	ASSERT_NE(NULL, s->readers);
	for (i = 0; i < s->nr_readers; i++)
		s->readers[i] = (struct reader) {
			.fd = s->fd,
			.how = variant->how[i],
			.room = variant->room,
			.turns = variant->turns,
			.quota = variant->quota,
			.alone = s->nr_readers == 1,
			.mask = s->flags & PIO ? ~0U : ~0ULL,
		};
}

FIXTURE_TEARDOWN(storm)
{
	close(self->s.fd);
	vmm_destroy(self->s.vmm);
}

static bool start_reader(struct storm *s, unsigned int i)
{
	s->readers[i].stopped = false;
	return !pthread_create(&s->thread[i], NULL, reader_main,
			       &s->readers[i]);
}

static void start_readers(struct __test_metadata *_metadata, struct storm *s)
{
	unsigned int i;

	if (s->process) {
		s->pid = fork();
		ASSERT_LE(0, s->pid);
		if (!s->pid) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			reader_main(&s->readers[0]);
			_exit(0);
		}
	} else {
		for (i = 0; i < s->nr_readers; i++)
			ASSERT_TRUE(start_reader(s, i));
	}
}

/* Each vCPU rings the shared queues as often as its own. */
static void start_guest(struct __test_metadata *_metadata, struct storm *s,
			enum guest_job_kind kind)
{
	struct guest_job job = {
		.kind = kind,
		.width = s->flags & PIO ? 4 : 8,
		.pio = !!(s->flags & PIO),
		.base = base_of(s->flags),
		.stride = STRIDE,
		.limit = RINGS,
		.weight = 128,
		.range = {
			{ .first = 0, .nr = SHARED_QUEUES },
			{ .nr = PRIVATE_QUEUES },
		},
	};
	unsigned int v;

	for (v = 0; v < VCPUS; v++) {
		job.range[1].first = SHARED_QUEUES + v * PRIVATE_QUEUES;
		ASSERT_EQ(0, vmm_job(s->vmm, v, &job));
		ASSERT_EQ(0, vmm_thread_start(s->vmm, v));
	}
}

static bool guest_done(struct vmm *vmm)
{
	return guest_finished(vmm->shared) == VCPUS * RINGS;
}

/* Ring WRITE_QUEUE and bad addresses in turns. */
static void write_rings(struct __test_metadata *_metadata, struct storm *s)
{
	const __u64 base = base_of(s->flags);
	struct doorbell_ring rings[8] = {};
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(rings); i++) {
		if (i % 2) {
			rings[i].addr = base + WRITE_QUEUE * STRIDE;
			rings[i].value = ++s->written;
		} else {
			rings[i].addr = base + LEN + i;
			s->bad++;
		}
	}
	ASSERT_EQ(sizeof(rings), write(s->fd, rings, sizeof(rings)));
}

/* Rings that were read, bad ones included */
static __u64 read_total(const struct storm *s)
{
	__u64 total = 0;
	unsigned int i;

	for (i = 0; i < s->nr_readers; i++)
		total += book_total(&s->readers[i].book) +
			 __atomic_load_n(&s->readers[i].book.bad,
					 __ATOMIC_RELAXED);
	return total;
}

/* The quota stopped the reader: start it again when the guest has gone on. */
static void restart_reader(struct __test_metadata *_metadata, struct storm *s)
{
	struct vmm *vmm = s->vmm;
	__u64 goal = guest_finished(vmm->shared) + 100;

	ASSERT_EQ(0, s->readers[0].error);
	ASSERT_EQ(0, pthread_join(s->thread[0], NULL));
	ASSERT_TRUE(eventually(guest_finished(vmm->shared) >= goal ||
			       guest_done(vmm)));
	ASSERT_TRUE(start_reader(s, 0));
	s->lives++;
}

/*
 * Ring by write(), too, until the guest has finished and all rings are read. A
 * reader with a quota is started again, twice: the more rings an event counts,
 * the fewer events there are.
 */
static void ring_until_all_is_read(struct __test_metadata *_metadata,
				   struct storm *s)
{
	__u64 deadline = 0, rung, now, before = ~0ULL;
	bool done;

	for (;;) {
		done = guest_done(s->vmm) &&
		       (!s->readers[0].quota || s->lives > 1);
		if (!done)
			write_rings(_metadata, s);
		rung = VCPUS * RINGS + s->written + s->bad;
		now = read_total(s);
		if (done && now == rung)
			return;
		if (now != before)
			deadline = db_now_ms() + DB_PATIENCE_MS;
		before = now;
		ASSERT_LT(db_now_ms(), deadline) {
			TH_LOG("read %llu of %llu rings", now, rung);
		}
		if (s->readers[0].stopped)
			restart_reader(_metadata, s);
		else
			usleep(100);
	}
}

/*
 * Count the readers that have read END. A reader whose last read used up its
 * quota has stopped without END: start it again.
 */
static unsigned int readers_ended(struct storm *s)
{
	unsigned int i, n = 0;

	for (i = 0; i < s->nr_readers; i++) {
		struct reader *r = &s->readers[i];

		if (!r->stopped)
			continue;
		if (r->ended || r->error) {
			n++;
		} else {
			pthread_join(s->thread[i], NULL);
			if (!start_reader(s, i))
				r->error = EAGAIN;
		}
	}
	return n;
}

/* Send one END after the other, so that no reader takes two. */
static void end_readers(struct __test_metadata *_metadata, struct storm *s)
{
	const __u64 end = base_of(s->flags) + END_QUEUE * STRIDE;
	unsigned int i;

	while (s->ends < s->nr_readers) {
		ASSERT_EQ(0, db_ring(s->fd, end, 0));
		s->ends++;
		ASSERT_TRUE(eventually(readers_ended(s) >= s->ends));
	}
	if (s->process) {
		ASSERT_EQ(0, db_wait_status(s->pid));
	} else {
		for (i = 0; i < s->nr_readers; i++)
			ASSERT_EQ(0, pthread_join(s->thread[i], NULL));
	}
}

/* Is @value the last one that some vCPU wrote to a shared queue? */
static bool is_last_value(const struct guest_shared *shared,
			  unsigned int queue, __u64 value, __u64 mask)
{
	unsigned int v;

	for (v = 0; v < VCPUS; v++)
		if (value ==
		    (guest_value(v, vmm_count(shared, v, queue)) & mask))
			return true;
	return false;
}

/* Every ring of a guest's queue was read once, and the last value is right. */
static void check_queue(struct __test_metadata *_metadata, struct storm *s,
			unsigned int queue)
{
	const struct guest_shared *shared = s->vmm->shared;
	__u64 rung = guest_count(shared, queue), read = 0, last = 0;
	__u64 mask = s->readers[0].mask;
	unsigned int i;

	for (i = 0; i < s->nr_readers; i++) {
		const struct book *book = &s->readers[i].book;

		read += book->count[queue];
		if (book->last[queue] > last)
			last = book->last[queue];
	}
	ASSERT_EQ(rung, read) {
		TH_LOG("queue %u", queue);
	}
	/* of several readers of a shared queue any may have the last value */
	if (is_private(queue)) {
		ASSERT_EQ(guest_value(owner_of(queue), rung) & mask, last);
	} else if (s->nr_readers == 1) {
		ASSERT_TRUE(is_last_value(shared, queue, last, mask)) {
			TH_LOG("queue %u ends with %#llx", queue, last);
		}
	}
}

/* No reader failed, and the rings by write() add up. */
static void check_readers(struct __test_metadata *_metadata, struct storm *s)
{
	__u64 bad = 0, written = 0;
	unsigned int i;

	for (i = 0; i < s->nr_readers; i++) {
		const struct reader *r = &s->readers[i];

		ASSERT_EQ(0, r->error);
		ASSERT_EQ(0, r->stale);
		ASSERT_EQ(0, r->book.wrong);
		bad += r->book.bad;
		written += r->book.count[WRITE_QUEUE];
	}
	ASSERT_EQ(s->bad, bad);
	ASSERT_EQ(s->written, written);
}

/* Nothing is pending, nothing reached the VMM, and DOORBELL_INFO agrees. */
static void check_consumer(struct __test_metadata *_metadata, struct storm *s)
{
	struct doorbell_info info = info_of(s->fd);
	__u64 guest = guest_total(s->vmm->shared);

	ASSERT_EQ(POLLOUT, poll_now(s->fd));
	ASSERT_EQ(0, vmm_exits(s->vmm));
	ASSERT_EQ(VCPUS * RINGS, guest);
	ASSERT_EQ(guest + s->written + s->ends, info.rings);
	ASSERT_EQ(s->bad, info.bad_rings);
	ASSERT_EQ(0, info.pending);
}

/* Conservation and Value */
TEST_F_TIMEOUT(storm, nothing_is_lost, TEST_SECONDS)
{
	struct storm *s = &self->s;
	unsigned int i;

	start_readers(_metadata, s);
	start_guest(_metadata, s, variant->job);
	ring_until_all_is_read(_metadata, s);
	for (i = 0; i < VCPUS; i++)
		ASSERT_EQ(0, vmm_thread_join(s->vmm, i));
	end_readers(_metadata, s);

	for (i = 0; i < GUEST_QUEUES; i++)
		check_queue(_metadata, s, i);
	check_readers(_metadata, s);
	check_consumer(_metadata, s);
}

/* Order and Bounded memory: nothing reads while the guest rings */
FIXTURE(order) {
	struct vmm *vmm;
	int fd;
};

FIXTURE_VARIANT(order) {
	__u32 flags;
};

FIXTURE_VARIANT_ADD(order, mmio) { .flags = 0, };
FIXTURE_VARIANT_ADD(order, pio) { .flags = PIO, };

FIXTURE_SETUP(order)
{
	SKIP_WITHOUT_PORTS(variant->flags);
	self->fd = db_must_open(_metadata, O_NONBLOCK);
	self->vmm = vmm_create(VCPUS);
	ASSERT_NE(NULL, self->vmm);
	ASSERT_EQ(0, db_attach_as(self->fd, self->vmm->vm_fd,
				  base_of(variant->flags), LEN, STRIDE,
				  variant->flags));
}

FIXTURE_TEARDOWN(order)
{
	close(self->fd);
	vmm_destroy(self->vmm);
}

static int ring_by(struct vmm *vmm, unsigned int vcpu, __u32 flags,
		   unsigned int queue, __u64 value)
{
	return vmm_op(vmm, vcpu, write_op(flags), 4,
		      base_of(flags) + queue * STRIDE, value);
}

/* Events come in order of first ring; repeats change only count and value. */
TEST_F_TIMEOUT(order, order_of_first_ring, TEST_SECONDS)
{
	struct doorbell_event events[QUEUES + 1];
	unsigned int order[GUEST_QUEUES], count[GUEST_QUEUES] = {};
	__u32 value[GUEST_QUEUES], random = 7, next = 0;
	unsigned int i, j, tmp;

	for (i = 0; i < GUEST_QUEUES; i++)
		order[i] = i;
	for (i = GUEST_QUEUES - 1; i; i--) {
		j = db_random(&random) % (i + 1);
		tmp = order[i];
		order[i] = order[j];
		order[j] = tmp;
	}

	/* the vCPUs take turns; earlier queues follow each first ring */
	for (i = 0; i < GUEST_QUEUES; i++)
		for (j = 0; j < 4; j++) {
			unsigned int q =
				order[j ? db_random(&random) % (i + 1) : i];

			value[q] = ++next;
			count[q]++;
			ASSERT_EQ(0, ring_by(self->vmm, next % VCPUS,
					     variant->flags, q, next));
		}
	ASSERT_EQ(next, info_of(self->fd).pending);

	/* read some one by one, then the others at once */
	for (i = 0; i < 5; i++)
		ASSERT_EQ(1, db_read(self->fd, &events[i], 1));
	/* order[2] gets a new position at the end, order[9] keeps its own */
	ASSERT_EQ(0, ring_by(self->vmm, 0, variant->flags, order[2], 1000));
	ASSERT_EQ(0, ring_by(self->vmm, 1, variant->flags, order[9], 1001));
	value[order[9]] = 1001;
	count[order[9]]++;
	ASSERT_EQ(GUEST_QUEUES - 5 + 1,
		  db_read(self->fd, events + 5, QUEUES - 5));

	for (i = 0; i < GUEST_QUEUES; i++) {
		ASSERT_EQ(order[i], events[i].queue);
		ASSERT_EQ(DOORBELL_EVENT_QUEUE, events[i].type);
		ASSERT_EQ(count[order[i]], events[i].count);
		ASSERT_EQ(value[order[i]], events[i].value);
		ASSERT_EQ(4, events[i].width);
	}
	ASSERT_EQ(order[2], events[i].queue);
	ASSERT_EQ(1, events[i].count);
	ASSERT_EQ(1000, events[i].value);
	ASSERT_EQ(0, read_now(self->fd, events, 1));
	ASSERT_EQ(0, info_of(self->fd).pending);
}

/* All bad addresses have one event, in order with the guest's rings. */
TEST_F_TIMEOUT(order, bad_addresses_are_bounded, TEST_SECONDS)
{
	const __u64 base = base_of(variant->flags), bad = base + LEN;
	struct doorbell_ring rings[256] = {};
	struct doorbell_event events[8];
	unsigned int i, n = 0;

	ASSERT_EQ(0, ring_by(self->vmm, 0, variant->flags, 3, 30));
	while (n < 20 * ARRAY_SIZE(rings)) {
		for (i = 0; i < ARRAY_SIZE(rings); i++)
			rings[i].addr = i % 2 ? bad + n++ : base - 1 - n++;
		ASSERT_EQ(sizeof(rings), write(self->fd, rings, sizeof(rings)));
	}
	ASSERT_EQ(0, ring_by(self->vmm, 1, variant->flags, 1, 10));
	ASSERT_EQ(0, db_ring(self->fd, bad + 77, 0));
	ASSERT_EQ(0, ring_by(self->vmm, 2, variant->flags, 3, 31));
	n++;

	ASSERT_EQ(n, info_of(self->fd).bad_rings);
	ASSERT_EQ(3, info_of(self->fd).rings);
	ASSERT_EQ(n + 3, info_of(self->fd).pending);
	ASSERT_EQ(3, db_read(self->fd, events, ARRAY_SIZE(events)));
	ASSERT_TRUE(db_event_is(&events[0], 3, 2, 31));
	ASSERT_TRUE(db_event_is_bad(&events[1], n, bad + 77));
	ASSERT_TRUE(db_event_is(&events[2], 1, 1, 10));
	ASSERT_EQ(0, info_of(self->fd).pending);

	/* a guest's write to such an address reaches the VMM */
	ASSERT_EQ(0, ring_by(self->vmm, 0, variant->flags, QUEUES, 1));
	ASSERT_EQ(1, vmm_exits(self->vmm));
	ASSERT_EQ(0, read_now(self->fd, events, 1));
}

TEST_HARNESS_MAIN
