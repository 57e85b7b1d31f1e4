// SPDX-License-Identifier: GPL-2.0
/*
 * Conservation: whatever the guest rings while readers of all kinds come and
 * go, what they read adds up to what the guest says it rang (promise 3), in
 * the order of first ring, and bad addresses stay bounded (promise 4).
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
#define END_QUEUE	(GUEST_QUEUES + 1)	/* tells a reader to leave */
#define QUEUES		(GUEST_QUEUES + 2)

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
 * struct reader - one of those who share the consumer; in shared memory
 * @fd: the consumer
 * @how: how it waits
 * @room: events per read()
 * @turns: of an empty loop after each read()
 * @quota: events after which it stops, for another one to take its place
 * @alone: no other reads
 * @mask: bits of the value that the guest's access could carry
 * @book: what it read; only it writes there
 * @stale: values older than the rings that they were read with
 * @error: errno of what failed
 * @ended: it was told to leave
 * @gone: it has stopped
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
	bool gone;
};

/* A queue that one vCPU owns is rung with 1, 2, 3, ...: no event may lag. */
static void check_fresh(struct reader *r, const struct doorbell_event *e)
{
	__u64 number = e->value & (r->mask >> 8);

	if (!r->alone || e->queue < SHARED_QUEUES || e->queue >= GUEST_QUEUES)
		return;
	if (number < r->book.count[e->queue] ||
	    (r->mask >> 56 && e->value >> 56 != owner_of(e->queue)))
		r->stale++;
}

static int wait_for_events(const struct reader *r, int epfd)
{
	struct epoll_event event;
	struct pollfd p = { .fd = r->fd, .events = POLLIN };

	switch (r->how) {
	case BLOCKING:
		return 0;
	case POLL:
		return poll(&p, 1, -1);
	default:
		return epoll_wait(epfd, &event, 1, -1);
	}
}

/* Read all there is; false to stop, for one of two reasons. */
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
	int epfd = -1;

	if (r->how == EPOLL_LEVEL || r->how == EPOLL_EDGE) {
		epfd = epoll_create1(EPOLL_CLOEXEC);
		if (epfd < 0 || epoll_ctl(epfd, EPOLL_CTL_ADD, r->fd, &event))
			r->error = errno;
	}
	while (!r->error) {
		if (wait_for_events(r, epfd) < 0)
			r->error = errno;
		else if (!read_all(r, quota))
			break;
	}
	if (epfd >= 0)
		close(epfd);
	__atomic_store_n(&r->gone, true, __ATOMIC_RELEASE);
	return NULL;
}

static bool gone(const struct reader *r)
{
	return __atomic_load_n(&r->gone, __ATOMIC_ACQUIRE);
}

/* Storms */

FIXTURE(storm) {
	struct vmm *vmm;
	int fd;
	__u64 base;
	__u64 written;
	__u64 bad;
};

FIXTURE_VARIANT(storm) {
	__u32 flags;
	unsigned int job;
	unsigned int readers;
	enum how how[3];
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
	.job = GUEST_STORM, .readers = 3, .how = { BLOCKING, BLOCKING, BLOCKING },
	.room = 3,
};

FIXTURE_VARIANT_ADD(storm, mmio_three_kinds) {
	.job = GUEST_STORM, .readers = 3, .how = { EPOLL_LEVEL, EPOLL_EDGE, POLL },
	.room = 16,
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

	self->base = base_of(variant->flags);
	self->fd = db_open(blocking ? 0 : O_NONBLOCK);
	ASSERT_LE(0, self->fd);
	self->vmm = vmm_create(VCPUS);
	ASSERT_NE(NULL, self->vmm);
	ASSERT_EQ(0, db_attach_as(self->fd, self->vmm->vm_fd, self->base,
				  QUEUES * 8, 8, variant->flags));
}

FIXTURE_TEARDOWN(storm)
{
	close(self->fd);
	vmm_destroy(self->vmm);
}

/* Shared queues, and some of its own, in equal parts. */
static struct guest_job storm_job(__u32 flags, unsigned int kind,
				  unsigned int v)
{
	return (struct guest_job) {
		.kind = kind, .width = flags & PIO ? 4 : 8,
			.pio = !!(flags & PIO),
		.base = base_of(flags), .stride = 8, .limit = RINGS,
			.weight = 128,
		.range = {
			{ .first = 0, .nr = SHARED_QUEUES },
			{ .first = SHARED_QUEUES + v * PRIVATE_QUEUES,
			  .nr = PRIVATE_QUEUES },
		},
	};
}

/* All that was read, bad addresses too. */
static __u64 read_total(const struct reader *readers, unsigned int n)
{
	__u64 total = 0;
	unsigned int i;

	for (i = 0; i < n; i++)
		total += book_total(&readers[i].book) +
			 __atomic_load_n(&readers[i].book.bad,
					 __ATOMIC_RELAXED);
	return total;
}

static bool vcpus_done(struct vmm *vmm)
{
	return guest_finished(vmm->shared) == VCPUS * RINGS;
}

/* The reader's next life, once the guest has gone on without it. */
static bool restart(struct reader *r, pthread_t *thread, struct vmm *vmm)
{
	__u64 now = guest_finished(vmm->shared);

	if (!eventually(guest_finished(vmm->shared) >= now + 100 ||
			vcpus_done(vmm)))
		return false;
	r->gone = false;
	return !pthread_create(thread, NULL, reader_main, r);
}

/*
 * Readers that have read their END. A reader whose last read used up its quota
 * has stopped without END: start it again.
 */
static unsigned int readers_ended(struct reader *readers, pthread_t *thread,
				  unsigned int nr)
{
	unsigned int i, n = 0;

	for (i = 0; i < nr; i++) {
		struct reader *r = &readers[i];

		if (!gone(r))
			continue;
		if (r->ended || r->error) {
			n++;
		} else {
			pthread_join(thread[i], NULL);
			r->gone = false;
			if (pthread_create(&thread[i], NULL, reader_main, r))
				r->error = EAGAIN;
		}
	}
	return n;
}

TEST_F_TIMEOUT(storm, nothing_is_lost, TEST_SECONDS)
{
	const FIXTURE_VARIANT(storm) *var = variant;
	struct guest_shared *s = self->vmm->shared;
	struct doorbell_ring rings[8];
	pthread_t thread[3];
	struct reader *readers;
	unsigned int i, v, q, lives = 0;
	struct doorbell_info info;
	__u64 deadline, seen = 0, sum, last, want, ends = 0;
	pid_t pid = -1;

	readers = db_shared_memory(sizeof(*readers) * 3);
	ASSERT_NE(NULL, readers);
	for (i = 0; i < var->readers; i++)
		readers[i] = (struct reader) {
			.fd = self->fd, .how = var->how[i], .room = var->room,
			.turns = var->turns, .quota = var->quota,
			.alone = var->readers == 1,
			.mask = var->flags & PIO ? ~0U : ~0ULL,
		};

	if (var->process) {
		pid = fork();
		ASSERT_LE(0, pid);
		if (!pid) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			reader_main(&readers[0]);
			_exit(0);
		}
	} else {
		for (i = 0; i < var->readers; i++)
			ASSERT_EQ(0, pthread_create(&thread[i], NULL,
						    reader_main, &readers[i]));
	}
	for (v = 0; v < VCPUS; v++) {
		struct guest_job job = storm_job(var->flags, var->job, v);

		ASSERT_EQ(0, vmm_job(self->vmm, v, &job));
		ASSERT_EQ(0, vmm_thread_start(self->vmm, v));
	}

	/* meanwhile this thread rings as well: one queue, and bad addresses */
	memset(rings, 0, sizeof(rings));
	deadline = db_now_ms() + DB_PATIENCE_MS;
	for (;;) {
		bool done = vcpus_done(self->vmm);
		__u64 now = read_total(readers, var->readers);

		sum = VCPUS * RINGS + self->written + self->bad;
		if (done && now == sum)
			break;
		if (now != seen)
			deadline = db_now_ms() + DB_PATIENCE_MS;
		seen = now;
		ASSERT_LT(db_now_ms(), deadline) {
			TH_LOG("read %llu of %llu rings", seen, sum);
		}
		for (i = 0; !done && i < ARRAY_SIZE(rings); i++) {
			if (i % 2) {
				rings[i].addr = self->base + WRITE_QUEUE * 8;
				rings[i].value = ++self->written;
			} else {
				rings[i].addr = self->base + QUEUES * 8 + i;
				self->bad++;
			}
		}
		if (!done)
			ASSERT_EQ(sizeof(rings), write(self->fd, rings,
						       sizeof(rings)));
		if (!var->process && gone(&readers[0])) {
			ASSERT_EQ(0, readers[0].error);
			pthread_join(thread[0], NULL);
			ASSERT_TRUE(restart(&readers[0], &thread[0],
					    self->vmm));
			lives++;
		} else {
			usleep(100);
		}
	}
	for (v = 0; v < VCPUS; v++)
		ASSERT_EQ(0, vmm_thread_join(self->vmm, v));
	if (var->quota)
		ASSERT_LT(1, lives);

	/* one END for each reader, as long as they do not take two at once */
	while (ends < var->readers) {
		ASSERT_EQ(0, db_ring(self->fd, self->base + END_QUEUE * 8, 0));
		ends++;
		ASSERT_TRUE(eventually(readers_ended(readers, thread,
						     var->readers) >= ends));
	}
	if (var->process) {
		ASSERT_EQ(pid, waitpid(pid, NULL, 0));
	} else {
		for (i = 0; i < var->readers; i++)
			pthread_join(thread[i], NULL);
	}

	/* the books: every queue, every ring, the last value */
	for (q = 0; q < GUEST_QUEUES; q++) {
		for (i = 0, sum = 0, last = 0; i < var->readers; i++) {
			sum += readers[i].book.count[q];
			if (readers[i].book.last[q] > last)
				last = readers[i].book.last[q];
		}
		want = guest_count(s, q);
		ASSERT_EQ(want, sum) {
			TH_LOG("queue %u", q);
		}
		if (q < SHARED_QUEUES && var->readers == 1) {
			/* the last of what some vCPU wrote */
			for (v = 0; v < VCPUS; v++)
				if (last == (guest_value(v,
							 vmm_count(s, v, q)) &
					     readers[0].mask))
					break;
			ASSERT_LT(v, VCPUS) {
				TH_LOG("queue %u ends with %#llx", q, last);
			}
		} else if (q >= SHARED_QUEUES) {
			ASSERT_EQ(guest_value(owner_of(q), want) &
				  readers[0].mask, last);
		}
	}
	for (i = 0, sum = 0, want = 0; i < var->readers; i++) {
		ASSERT_EQ(0, readers[i].error);
		ASSERT_EQ(0, readers[i].stale);
		ASSERT_EQ(0, readers[i].book.wrong);
		sum += readers[i].book.bad;
		want += readers[i].book.count[WRITE_QUEUE];
	}
	ASSERT_EQ(self->bad, sum);
	ASSERT_EQ(self->written, want);

	/* nothing more to come, nothing that the VMM saw, and INFO agrees */
	ASSERT_EQ(POLLOUT, poll_now(self->fd));
	ASSERT_EQ(0, vmm_exits(self->vmm));
	info = info_of(self->fd);
	ASSERT_EQ(guest_total(s) + self->written + ends, info.rings);
	ASSERT_EQ(VCPUS * RINGS, guest_total(s));
	ASSERT_EQ(self->bad, info.bad_rings);
	ASSERT_EQ(0, info.pending);
}

/* Order, with nobody reading while the guest rings */
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
	self->fd = db_open(O_NONBLOCK);
	ASSERT_LE(0, self->fd);
	self->vmm = vmm_create(VCPUS);
	ASSERT_NE(NULL, self->vmm);
	ASSERT_EQ(0, db_attach_as(self->fd, self->vmm->vm_fd,
				  base_of(variant->flags), QUEUES * 8, 8,
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
		      base_of(flags) + queue * 8, value);
}

/* Events come in the order of first ring; repeats change count and value only. */
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

	/* vCPUs in turns; after each first ring, repeats of earlier queues */
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

	/* one by one, then all */
	for (i = 0; i < 5; i++)
		ASSERT_EQ(1, db_read(self->fd, &events[i], 1));
	/* read already, so behind the others; pending still, so in its place */
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

/* However many bad addresses: one event, in order with the guest's rings. */
TEST_F_TIMEOUT(order, bad_addresses_are_bounded, TEST_SECONDS)
{
	const __u64 base = base_of(variant->flags), bad = base + QUEUES * 8;
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

	/* and a guest's write to such an address is the VMM's */
	ASSERT_EQ(0, ring_by(self->vmm, 0, variant->flags, QUEUES, 1));
	ASSERT_EQ(1, vmm_exits(self->vmm));
	ASSERT_EQ(0, read_now(self->fd, events, 1));
}

TEST_HARNESS_MAIN
