// SPDX-License-Identifier: GPL-2.0
/*
 * Wait: no way of waiting for events loses a wake-up.
 *
 * Each way is a function that waits and reads until race.stop is set. Two kinds
 * of test use it: in one, the waiter sleeps before each ring; in the other,
 * rings race with waiters that fall asleep, on one CPU and on two. All rings
 * come from write().
 */
#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/time.h>
#include <sys/uio.h>

#include <linux/userfaultfd.h>

#include <liburing.h>

#include "util.h"

#define QUEUES		4
/* Events that read() gets in several batches: it looks for signals between */
#define MANY_QUEUES	192
#define WAITERS_MAX	4
/* Rounds of a race: fewer on a slow machine, but never less than the minimum */
#define ROUNDS		3000
#define ROUNDS_MIN	100
#define ROUNDS_MS	150

/**
 * struct race - a consumer and what its waiters share
 * @fd: the consumer
 * @epfd: an epoll instance that all waiters share
 * @counted: rings that the waiters read
 * @wrong: negative errno of a waiter that failed or read no event
 * @stop: each waiter ends after its next event
 * @spin: a waiter spins for fewer turns than this before it waits
 * @cpu: where the waiters run, or -1
 */
struct race {
	int fd;
	int epfd;
	_Atomic uint64_t counted;
	_Atomic int wrong;
	_Atomic bool stop;
	unsigned int spin;
	int cpu;
};

struct waiter {
	struct race *race;
	int (*wait)(struct waiter *waiter);
	pthread_t thread;
	_Atomic pid_t tid;
	uint32_t seed;
	uint64_t rung;
};

/* Count what a waiter read: true if it has to go on. */
static bool count(struct waiter *waiter, const struct doorbell_event *events,
		  int n)
{
	uint64_t sum = 0;
	bool stop = waiter->race->stop;
	int i;

	for (i = 0; i < n; i++) {
		if (events[i].type != DOORBELL_EVENT_QUEUE ||
		    events[i].queue >= QUEUES || !events[i].count)
			waiter->race->wrong = -EPROTO;
		sum += events[i].count;
	}
	/* last: the ringer goes on as soon as it sees the sum */
	waiter->race->counted += sum;
	return !stop || !n;
}

/* Why a call did not do what it should */
static int failure(void)
{
	return errno ? -errno : -EPROTO;
}

static void idle(struct waiter *waiter)
{
	if (waiter->race->spin)
		db_spin(db_random(&waiter->seed) % waiter->race->spin);
}

/* The ways of waiting: each returns 0 at the end, or a negative errno */

/* Read until nothing is pending, until a read() is short, or once. */
enum { UNTIL_EMPTY, UNTIL_SHORT, ONCE };

/* Read @max events at a time. Return 1 to go on, 0 at the end, or an error. */
static int drain(struct waiter *waiter, int max, int until)
{
	struct doorbell_event events[8];
	int n;

	for (;;) {
		n = db_read(waiter->race->fd, events, max);
		if (n < 0)
			return n == -EAGAIN ? 1 : n;
		if (!n)
			return -EPROTO;
		if (!count(waiter, events, n))
			return 0;
		if (until == ONCE || (until == UNTIL_SHORT && n < max))
			return 1;
	}
}

static int wait_read(struct waiter *waiter)
{
	int ret;

	do {
		idle(waiter);
		ret = drain(waiter, 1, ONCE);
	} while (ret > 0);
	return ret;
}

static int wait_readv(struct waiter *waiter)
{
	struct doorbell_event events[3];
	struct iovec iov[3] = {
		{ events, 5 }, { (char *)events + 5, 30 },
		{ (char *)events + 35, 13 },
	};
	ssize_t ret;

	do {
		idle(waiter);
		ret = readv(waiter->race->fd, iov, 3);
		if (ret <= 0 || ret % DB_EVENT_SIZE)
			return failure();
	} while (count(waiter, events, ret / DB_EVENT_SIZE));
	return 0;
}

static int wait_poll(struct waiter *waiter)
{
	struct pollfd pfd = { .fd = waiter->race->fd, .events = POLLIN };
	int ret;

	do {
		idle(waiter);
		if (poll(&pfd, 1, -1) != 1 || pfd.revents != POLLIN)
			return failure();
		ret = drain(waiter, 1, ONCE);
	} while (ret > 0);
	return ret;
}

static int wait_select(struct waiter *waiter)
{
	fd_set set;
	int ret;

	do {
		FD_ZERO(&set);
		FD_SET(waiter->race->fd, &set);
		idle(waiter);
		if (select(waiter->race->fd + 1, &set, NULL, NULL, NULL) != 1)
			return failure();
		ret = drain(waiter, 2, ONCE);
	} while (ret > 0);
	return ret;
}

static int epoll_add(int epfd, int fd, uint32_t bits)
{
	struct epoll_event event = { .events = bits };

	return epoll_ctl(epfd, EPOLL_CTL_ADD, fd, &event);
}

/* Wait in an epoll instance of its own, or in the one that all share. */
static int wait_epoll(struct waiter *waiter, bool own, uint32_t bits, int max,
		      int until)
{
	struct epoll_event event;
	int epfd = waiter->race->epfd, ret;

	if (own) {
		epfd = epoll_create1(EPOLL_CLOEXEC);
		if (epfd < 0 || epoll_add(epfd, waiter->race->fd, bits))
			return failure();
	}
	do {
		idle(waiter);
		if (epoll_wait(epfd, &event, 1, -1) != 1 ||
		    !(event.events & EPOLLIN))
			return failure();
		ret = drain(waiter, max, until);
		if (bits & EPOLLONESHOT) {
			event.events = bits;
			if (epoll_ctl(epfd, EPOLL_CTL_MOD, waiter->race->fd,
				      &event))
				return failure();
		}
	} while (ret > 0);
	if (own)
		close(epfd);
	return ret;
}

#define EPOLL_WAY(name, own, bits, max, until)				\
	static int wait_epoll_##name(struct waiter *waiter)		\
	{								\
		return wait_epoll(waiter, own, bits, max, until);	\
	}

EPOLL_WAY(level, true, EPOLLIN, 1, ONCE)
EPOLL_WAY(level_shared, false, EPOLLIN, 1, ONCE)
EPOLL_WAY(edge, true, EPOLLIN | EPOLLET, 8, UNTIL_EMPTY)
EPOLL_WAY(edge_shared, false, EPOLLIN | EPOLLET, 8, UNTIL_EMPTY)
EPOLL_WAY(edge_short, true, EPOLLIN | EPOLLET, 8, UNTIL_SHORT)
EPOLL_WAY(edge_single, true, EPOLLIN | EPOLLET, 1, UNTIL_EMPTY)
EPOLL_WAY(exclusive, true, EPOLLIN | EPOLLEXCLUSIVE, 1, ONCE)
EPOLL_WAY(exclusive_edge, true, EPOLLIN | EPOLLEXCLUSIVE | EPOLLET, 8,
	  UNTIL_EMPTY)
EPOLL_WAY(oneshot, true, EPOLLIN | EPOLLONESHOT, 1, ONCE)
EPOLL_WAY(oneshot_shared, false, EPOLLIN | EPOLLONESHOT, 8, UNTIL_EMPTY)

static void block_signal(sigset_t *set)
{
	sigemptyset(set);
	sigaddset(set, SIGRTMIN);
	pthread_sigmask(SIG_BLOCK, set, NULL);
}

/* Make the kernel send SIGRTMIN, which all threads block, to the caller. */
static int signal_me(int fd)
{
	struct f_owner_ex owner = { F_OWNER_TID, db_gettid() };

	return fcntl(fd, F_SETOWN_EX, &owner) ||
	       fcntl(fd, F_SETSIG, SIGRTMIN) ||
	       fcntl(fd, F_SETFL, O_NONBLOCK | O_ASYNC) ? -errno : 0;
}

static int wait_signal(struct waiter *waiter, int until)
{
	int fd = waiter->race->fd, ret;
	siginfo_t info;
	sigset_t set;

	block_signal(&set);
	ret = signal_me(fd);
	if (ret)
		return ret;
	for (;;) {
		/* events from before O_ASYNC sent no signal */
		ret = drain(waiter, 8, until);
		if (ret <= 0)
			return ret;
		idle(waiter);
		if (sigwaitinfo(&set, &info) != SIGRTMIN)
			return failure();
		if (info.si_fd != fd)
			return -EPROTO;
	}
}

static int wait_sigio(struct waiter *waiter)
{
	return wait_signal(waiter, UNTIL_EMPTY);
}

static int wait_sigio_short(struct waiter *waiter)
{
	return wait_signal(waiter, UNTIL_SHORT);
}

static int uring_read(struct io_uring *ring, int fd, struct doorbell_event *ev)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(ring);

	if (!sqe)
		return -ENOSPC;
	io_uring_prep_read(sqe, fd, ev, DB_EVENT_SIZE, 0);
	io_uring_sqe_set_data(sqe, ev);
	return io_uring_submit(ring) == 1 ? 0 : -EPROTO;
}

static int wait_uring_read(struct waiter *waiter, unsigned int flight)
{
	struct doorbell_event events[8];
	struct io_uring_cqe *cqe;
	struct io_uring ring;
	unsigned int i;
	bool more;
	int ret;

	ret = io_uring_queue_init(8, &ring, 0);
	for (i = 0; !ret && i < flight; i++)
		ret = uring_read(&ring, waiter->race->fd, &events[i]);
	while (!ret) {
		struct doorbell_event *event;

		idle(waiter);
		ret = io_uring_wait_cqe(&ring, &cqe);
		if (ret)
			break;
		event = io_uring_cqe_get_data(cqe);
		ret = cqe->res == DB_EVENT_SIZE ? 0 : cqe->res ?: -EPROTO;
		io_uring_cqe_seen(&ring, cqe);
		if (ret)
			break;
		more = count(waiter, event, 1);
		if (!more)
			break;
		ret = uring_read(&ring, waiter->race->fd, event);
	}
	/* this cancels the reads in flight; none of them has an event */
	io_uring_queue_exit(&ring);
	return ret;
}

static int wait_uring_read_one(struct waiter *waiter)
{
	return wait_uring_read(waiter, 1);
}

static int wait_uring_read_many(struct waiter *waiter)
{
	return wait_uring_read(waiter, 8);
}

static int uring_poll(struct waiter *waiter, bool multishot)
{
	struct io_uring_cqe *cqe;
	struct io_uring_sqe *sqe;
	struct io_uring ring;
	bool armed = false;
	int ret;

	ret = io_uring_queue_init(8, &ring, 0);
	if (ret)
		return ret;
	do {
		if (!armed) {
			sqe = io_uring_get_sqe(&ring);
			if (multishot)
				io_uring_prep_poll_multishot(sqe,
							     waiter->race->fd,
							     POLLIN);
			else
				io_uring_prep_poll_add(sqe, waiter->race->fd,
						       POLLIN);
			io_uring_submit(&ring);
		}
		idle(waiter);
		ret = io_uring_wait_cqe(&ring, &cqe);
		if (ret)
			break;
		armed = cqe->flags & IORING_CQE_F_MORE;
		ret = cqe->res < 0 ? cqe->res : cqe->res & POLLIN ? 1 : -EPROTO;
		io_uring_cqe_seen(&ring, cqe);
		/* multishot is edge-triggered */
		if (ret > 0)
			ret = drain(waiter, 8, multishot ? UNTIL_EMPTY : ONCE);
	} while (ret > 0);
	io_uring_queue_exit(&ring);
	return ret;
}

static int wait_uring_poll(struct waiter *waiter)
{
	return uring_poll(waiter, false);
}

static int wait_uring_multishot(struct waiter *waiter)
{
	return uring_poll(waiter, true);
}

static void *waiter_thread(void *arg)
{
	struct waiter *waiter = arg;
	int error;

	if (waiter->race->cpu >= 0)
		db_pin(waiter->race->cpu);
	errno = 0;
	waiter->tid = db_gettid();
	error = waiter->wait(waiter);
	if (error)
		waiter->race->wrong = error;
	return NULL;
}

static bool start(struct waiter *waiter, struct race *race,
		  int (*wait)(struct waiter *waiter), uint32_t seed)
{
	*waiter = (struct waiter) {
		.race = race,
		.wait = wait,
		.seed = seed,
	};
	if (pthread_create(&waiter->thread, NULL, waiter_thread, waiter))
		return false;
	while (!waiter->tid)
		db_yield();
	return true;
}

static int ring_queue(struct race *race, uint32_t n)
{
	return db_ring(race->fd, 4 * (n % QUEUES), n);
}

/* Wait until the waiters have counted all rings. */
static bool all_counted(struct race *race, uint64_t rung)
{
	uint64_t end = db_now_ms() + DB_PATIENCE_MS;
	unsigned int turns = 0;

	while (race->counted < rung && !race->wrong) {
		/* let the waiters run, now and then also on other CPUs */
		if (++turns % 32)
			db_yield();
		else
			usleep(1);
		if (!(turns % 64) && db_now_ms() > end)
			break;
	}
	return race->counted == rung && !race->wrong;
}

FIXTURE(way)
{
	struct race race;
};

FIXTURE_VARIANT(way)
{
	int (*wait)(struct waiter *waiter);
	long syscall;
	int waiters;
	int flags;
	uint32_t shared;
};

#define WAY(name, nr, how_many, open_flags, epoll_bits)			\
	FIXTURE_VARIANT_ADD(way, name) {				\
		.wait = wait_##name,					\
		.syscall = nr,						\
		.waiters = how_many,					\
		.flags = open_flags,					\
		.shared = epoll_bits,					\
	}

WAY(read, SYS_read, 3, 0, 0);
WAY(readv, SYS_readv, 2, 0, 0);
WAY(poll, SYS_poll, 2, O_NONBLOCK, 0);
WAY(select, SYS_pselect6, 2, O_NONBLOCK, 0);
WAY(epoll_level, SYS_epoll_wait, 2, O_NONBLOCK, 0);
WAY(epoll_level_shared, SYS_epoll_wait, 3, O_NONBLOCK, EPOLLIN);
WAY(epoll_edge, SYS_epoll_wait, 3, O_NONBLOCK, 0);
WAY(epoll_edge_shared, SYS_epoll_wait, 3, O_NONBLOCK, EPOLLIN | EPOLLET);
WAY(epoll_edge_short, SYS_epoll_wait, 2, O_NONBLOCK, 0);
WAY(epoll_edge_single, SYS_epoll_wait, 2, O_NONBLOCK, 0);
WAY(epoll_exclusive, SYS_epoll_wait, 3, O_NONBLOCK, 0);
WAY(epoll_exclusive_edge, SYS_epoll_wait, 3, O_NONBLOCK, 0);
WAY(epoll_oneshot, SYS_epoll_wait, 2, O_NONBLOCK, 0);
WAY(epoll_oneshot_shared, SYS_epoll_wait, 3, O_NONBLOCK,
    EPOLLIN | EPOLLONESHOT);
WAY(sigio, SYS_rt_sigtimedwait, 1, O_NONBLOCK, 0);
WAY(sigio_short, SYS_rt_sigtimedwait, 1, O_NONBLOCK, 0);
WAY(uring_read_one, SYS_io_uring_enter, 2, 0, 0);
WAY(uring_read_many, SYS_io_uring_enter, 1, 0, 0);
WAY(uring_poll, SYS_io_uring_enter, 2, O_NONBLOCK, 0);
WAY(uring_multishot, SYS_io_uring_enter, 2, O_NONBLOCK, 0);

FIXTURE_SETUP(way)
{
	struct io_uring ring;
	sigset_t set;
	int ret;

	/* before threads start, so that all of them block it */
	block_signal(&set);
	if (variant->syscall == SYS_io_uring_enter) {
		ret = io_uring_queue_init(8, &ring, 0);
		if (ret)
			SKIP(return, "no io_uring: %s", strerror(-ret));
		io_uring_queue_exit(&ring);
	}
	self->race.cpu = -1;
	self->race.fd = db_must_open(_metadata, variant->flags);
	if (variant->shared) {
		self->race.epfd = epoll_create1(EPOLL_CLOEXEC);
		ASSERT_LE(0, self->race.epfd);
		ASSERT_EQ(0, epoll_add(self->race.epfd, self->race.fd,
				       variant->shared));
	}
}

FIXTURE_TEARDOWN(way)
{
}

/* A waiter sleeps before and after attach, and each ring wakes it. */
TEST_F_TIMEOUT(way, sleeps_and_wakes, 240)
{
	struct race *race = &self->race;
	struct waiter waiter;
	uint64_t rung = 0;
	int i;

	ASSERT_TRUE(start(&waiter, race, variant->wait, 1));
	ASSERT_EQ(0, db_wait_sleeping(getpid(), waiter.tid, variant->syscall));
	ASSERT_EQ(0, db_attach(race->fd, -1, 0, 4 * QUEUES));
	for (i = 0; i < 3; i++) {
		ASSERT_EQ(0, db_wait_sleeping(getpid(), waiter.tid,
					      variant->syscall));
		EXPECT_EQ(0, race->wrong);
		ASSERT_EQ(0, ring_queue(race, rung));
		rung++;
		ASSERT_TRUE(all_counted(race, rung));
	}
	ASSERT_EQ(0, db_detach(race->fd));
	ASSERT_EQ(0, db_wait_sleeping(getpid(), waiter.tid, variant->syscall));
	ASSERT_EQ(0, db_attach(race->fd, -1, 0, 4 * QUEUES));
	ASSERT_EQ(0, db_wait_sleeping(getpid(), waiter.tid, variant->syscall));
	race->stop = true;
	ASSERT_EQ(0, ring_queue(race, rung));
	rung++;
	ASSERT_TRUE(all_counted(race, rung));
	ASSERT_EQ(0, pthread_join(waiter.thread, NULL));
	EXPECT_EQ(0, race->wrong);
	EXPECT_EQ(0, db_poll(race->fd, POLLIN, 0));
}

/* A waiter finds the rings from before its first wait. */
TEST_F_TIMEOUT(way, rung_before, 240)
{
	struct race *race = &self->race;
	struct waiter waiter;

	ASSERT_EQ(0, db_attach(race->fd, -1, 0, 4 * QUEUES));
	ASSERT_EQ(0, ring_queue(race, 1));
	ASSERT_EQ(0, ring_queue(race, 1));
	race->stop = true;
	ASSERT_TRUE(start(&waiter, race, variant->wait, 1));
	ASSERT_TRUE(all_counted(race, 2));
	ASSERT_EQ(0, pthread_join(waiter.thread, NULL));
	EXPECT_EQ(0, race->wrong);
}

/* Ring @rings one by one, with a delay after each. */
static int ring_slowly(struct race *race, const struct doorbell_ring *rings,
		       int n, uint32_t *seed)
{
	int i, ret = 0;

	for (i = 0; !ret && i < n; i++) {
		ret = db_ring(race->fd, rings[i].addr, rings[i].value);
		db_spin(db_random(seed) % 512);
	}
	return ret;
}

/*
 * Ring at most @burst times, in one write() or in many, after a random delay,
 * and then wait until the waiters have counted all rings: a lost wake-up stops
 * the race. Return NULL, or what went wrong.
 */
static const char *ring_in_step(struct race *race, uint64_t *rung, int burst,
				uint32_t seed)
{
	uint64_t end = db_until(ROUNDS_MS);
	struct doorbell_ring rings[8];
	int round, n, i;

	for (round = 0; db_round(round, ROUNDS_MIN, ROUNDS, end); round++) {
		n = 1 + db_random(&seed) % burst;
		for (i = 0; i < n; i++)
			rings[i] = (struct doorbell_ring) {
				.addr = db_random(&seed) % (4 * QUEUES),
				.value = round,
			};
		db_spin(db_random(&seed) % 4096);
		if (round % 2) {
			if (write(race->fd, rings, n * sizeof(*rings)) !=
			    (ssize_t)(n * sizeof(*rings)))
				return "write() is short";
		} else if (ring_slowly(race, rings, n, &seed)) {
			return "write() failed";
		}
		*rung += n;
		if (!all_counted(race, *rung))
			return "a wake-up is lost";
	}
	return NULL;
}

/* Ring without waiting for the waiters. */
static const char *ring_fast(struct race *race, uint64_t *rung, uint32_t seed)
{
	int i;

	for (i = 0; i < 500; i++) {
		if (ring_queue(race, db_random(&seed)))
			return "write() failed";
		++*rung;
		if (!(db_random(&seed) % 16))
			db_yield();
	}
	return all_counted(race, *rung) ? NULL : "a ring is lost";
}

/*
 * Wake-ups: none is lost. Conservation: each ring is read once. The ringer runs
 * on CPU 0, the waiters on CPU @cpu or, if that is -1, on any.
 */
static void run_race(struct __test_metadata *_metadata, struct race *race,
		     int (*wait)(struct waiter *waiter), int cpu,
		     int nr_waiters)
{
	struct waiter waiters[WAITERS_MAX];
	struct doorbell_info info;
	uint64_t rung = 0;
	const char *why;
	int i;

	race->cpu = cpu;
	race->spin = 4096;
	ASSERT_EQ(0, db_pin(0));
	ASSERT_EQ(0, db_attach(race->fd, -1, 0, 4 * QUEUES));
	for (i = 0; i < nr_waiters; i++)
		ASSERT_TRUE(start(&waiters[i], race, wait, i + 1));
	why = ring_in_step(race, &rung, 4, 12345) ?:
	      ring_fast(race, &rung, 54321);
	ASSERT_EQ(NULL, why) {
		TH_LOG("%s: %llu rung, %llu counted, error %d", why,
		       (unsigned long long)rung,
		       (unsigned long long)race->counted, race->wrong);
	}

	/* each of the last rings ends one waiter */
	race->stop = true;
	for (i = 0; i < nr_waiters; i++) {
		ASSERT_EQ(0, ring_queue(race, i));
		rung++;
		ASSERT_TRUE(all_counted(race, rung)) {
			TH_LOG("%d waiters are left", nr_waiters - i);
		}
	}
	for (i = 0; i < nr_waiters; i++)
		ASSERT_EQ(0, pthread_join(waiters[i].thread, NULL));
	EXPECT_EQ(0, race->wrong);
	EXPECT_EQ(rung, race->counted);
	EXPECT_EQ(0, db_poll(race->fd, POLLIN, 0));
	ASSERT_EQ(0, db_info(race->fd, &info));
	EXPECT_EQ(rung, info.rings);
	EXPECT_EQ(0, info.bad_rings + info.pending);
}

TEST_F_TIMEOUT(way, race_alone_two_cpus, 240)
{
	run_race(_metadata, &self->race, variant->wait, 1, 1);
}

TEST_F_TIMEOUT(way, race_alone_one_cpu, 240)
{
	run_race(_metadata, &self->race, variant->wait, 0, 1);
}

TEST_F_TIMEOUT(way, race_together, 240)
{
	/* some ways allow only one waiter at a time */
	if (variant->waiters > 1)
		run_race(_metadata, &self->race, variant->wait, -1,
			 variant->waiters);
}

/* Details of some ways */

FIXTURE(one)
{
	struct race race;
	struct waiter waiter;
};

FIXTURE_SETUP(one)
{
	self->race.cpu = -1;
	self->race.fd = db_must_open(_metadata, 0);
	ASSERT_EQ(0, db_attach(self->race.fd, -1, 0, 4 * QUEUES));
}

FIXTURE_TEARDOWN(one)
{
}

static _Atomic int signals;

static void on_signal(int sig)
{
	signals++;
}

/* With SA_RESTART read() waits again after a signal. */
TEST_F_TIMEOUT(one, signal_restarts, 120)
{
	struct sigaction action = {
		.sa_handler = on_signal,
		.sa_flags = SA_RESTART,
	};
	struct waiter *waiter = &self->waiter;
	int i;

	ASSERT_EQ(0, sigaction(SIGUSR1, &action, NULL));
	ASSERT_TRUE(start(waiter, &self->race, wait_read, 1));
	for (i = 1; i <= 20; i++) {
		ASSERT_EQ(0, db_wait_sleeping(getpid(), waiter->tid, SYS_read));
		ASSERT_EQ(0, pthread_kill(waiter->thread, SIGUSR1));
		while (signals < i)
			db_yield();
		ASSERT_EQ(0, self->race.wrong);
	}
	ASSERT_EQ(0, db_wait_sleeping(getpid(), waiter->tid, SYS_read));
	self->race.stop = true;
	ASSERT_EQ(0, ring_queue(&self->race, 1));
	ASSERT_TRUE(all_counted(&self->race, 1));
	ASSERT_EQ(0, pthread_join(waiter->thread, NULL));
	EXPECT_EQ(0, self->race.wrong);
}

/* EINTR: a signal came first. A later ring is still read. */
TEST_F_TIMEOUT(one, signal_interrupts, 120)
{
	struct sigaction action = { .sa_handler = on_signal };
	struct waiter *waiter = &self->waiter;
	struct doorbell_event event;

	ASSERT_EQ(0, sigaction(SIGUSR1, &action, NULL));
	ASSERT_TRUE(start(waiter, &self->race, wait_read, 1));
	ASSERT_EQ(0, db_wait_sleeping(getpid(), waiter->tid, SYS_read));
	ASSERT_EQ(0, pthread_kill(waiter->thread, SIGUSR1));
	ASSERT_EQ(0, pthread_join(waiter->thread, NULL));
	EXPECT_EQ(-EINTR, self->race.wrong);
	EXPECT_EQ(1, signals);
	ASSERT_EQ(0, ring_queue(&self->race, 1));
	ASSERT_EQ(1, db_read(self->race.fd, &event, 1));
	EXPECT_TRUE(db_event_is(&event, 1, 1, 1));
}

static int wait_interrupted(struct waiter *waiter)
{
	int ret;

	do {
		idle(waiter);
		ret = drain(waiter, 1, ONCE);
	} while (ret > 0 || ret == -EINTR);
	return ret;
}

/* Rings race with signals, and none is lost. */
TEST_F_TIMEOUT(one, signals_race_rings, 240)
{
	struct sigaction action = { .sa_handler = on_signal };
	struct waiter *waiter = &self->waiter;
	uint64_t end = db_until(ROUNDS_MS);
	uint32_t seed = 99;
	int round;

	ASSERT_EQ(0, sigaction(SIGUSR1, &action, NULL));
	self->race.spin = 2048;
	ASSERT_TRUE(start(waiter, &self->race, wait_interrupted, 1));
	for (round = 0; db_round(round, ROUNDS_MIN, ROUNDS, end); round++) {
		db_spin(db_random(&seed) % 2048);
		if (round % 2)
			ASSERT_EQ(0, pthread_kill(waiter->thread, SIGUSR1));
		ASSERT_EQ(0, ring_queue(&self->race, round));
		if (round % 3)
			ASSERT_EQ(0, pthread_kill(waiter->thread, SIGUSR1));
		ASSERT_TRUE(all_counted(&self->race, round + 1)) {
			TH_LOG("lost in round %d", round);
		}
	}
	EXPECT_LT(0, signals);
	self->race.stop = true;
	ASSERT_EQ(0, ring_queue(&self->race, 0));
	ASSERT_TRUE(all_counted(&self->race, round + 1));
	ASSERT_EQ(0, pthread_join(waiter->thread, NULL));
}

/* Ring all of MANY_QUEUES in one write(). */
static int ring_many(struct race *race)
{
	struct doorbell_ring rings[MANY_QUEUES] = {};
	int i;

	for (i = 0; i < MANY_QUEUES; i++)
		rings[i].addr = 4 * i;
	return write(race->fd, rings, sizeof(rings)) == sizeof(rings) ?
	       0 : failure();
}

/* A signal within the next moment, often inside of a read() */
static int interrupt_soon(uint32_t *seed)
{
	struct itimerval timer = {
		.it_value.tv_usec = 1 + db_random(seed) % 256,
	};

	return setitimer(ITIMER_REAL, &timer, NULL);
}

/* Take each short read() for the end of the events, as edges allow. */
static int wait_edge_among_signals(struct waiter *waiter)
{
	struct doorbell_event events[MANY_QUEUES + 1];
	int epfd = epoll_create1(EPOLL_CLOEXEC), n, i;
	struct epoll_event event;
	uint64_t sum;

	if (epfd < 0 || epoll_add(epfd, waiter->race->fd, EPOLLIN | EPOLLET))
		return failure();
	while (!waiter->race->stop) {
		n = db_result(epoll_wait(epfd, &event, 1, -1));
		if (n == -EINTR)
			continue;
		if (n != 1 || interrupt_soon(&waiter->seed))
			return failure();
		n = db_read(waiter->race->fd, events, MANY_QUEUES + 1);
		if (n == -EAGAIN)
			continue;
		if (n <= 0)
			return n ?: -EPROTO;
		for (sum = 0, i = 0; i < n; i++)
			sum += events[i].count;
		waiter->race->counted += sum;
	}
	close(epfd);
	return 0;
}

/* Signals cut reads short, and what they leave is a new edge. */
TEST_F_TIMEOUT(one, signals_race_edges, 240)
{
	struct sigaction action = { .sa_handler = on_signal };
	struct race *race = &self->race;
	uint64_t end = db_until(ROUNDS_MS), rung = 0;
	sigset_t set;
	int round;

	ASSERT_EQ(0, fcntl(race->fd, F_SETFL, O_NONBLOCK));
	ASSERT_EQ(0, db_detach(race->fd));
	ASSERT_EQ(0, db_attach(race->fd, -1, 0, 4 * MANY_QUEUES));
	ASSERT_EQ(0, sigaction(SIGALRM, &action, NULL));
	ASSERT_EQ(0, db_pin(0));
	race->cpu = 1;
	ASSERT_TRUE(start(&self->waiter, race, wait_edge_among_signals, 1));
	/* all signals go to the reader */
	sigemptyset(&set);
	sigaddset(&set, SIGALRM);
	pthread_sigmask(SIG_BLOCK, &set, NULL);
	for (round = 0; db_round(round, ROUNDS_MIN, ROUNDS, end); round++) {
		ASSERT_EQ(0, ring_many(race));
		rung += MANY_QUEUES;
		ASSERT_TRUE(all_counted(race, rung)) {
			TH_LOG("a wake-up is lost in round %d, error %d", round,
			       race->wrong);
		}
	}
	EXPECT_LT(0, signals);
	race->stop = true;
	ASSERT_EQ(0, ring_queue(race, 0));
	ASSERT_EQ(0, pthread_join(self->waiter.thread, NULL));
	EXPECT_EQ(0, race->wrong);
}

/* Three events at once wake three readers. */
TEST_F_TIMEOUT(one, readers_each_get_one, 120)
{
	static const struct doorbell_ring all[3] = {
		{ .addr = 0 }, { .addr = 4 }, { .addr = 8 },
	};
	struct waiter waiters[3];
	int i;

	self->race.stop = true;
	for (i = 0; i < 3; i++) {
		ASSERT_TRUE(start(&waiters[i], &self->race, wait_read, 1));
		ASSERT_EQ(0, db_wait_sleeping(getpid(), waiters[i].tid,
					      SYS_read));
	}
	ASSERT_EQ(sizeof(all), write(self->race.fd, all, sizeof(all)));
	ASSERT_TRUE(all_counted(&self->race, 3));
	for (i = 0; i < 3; i++)
		ASSERT_EQ(0, pthread_join(waiters[i].thread, NULL));
}

/* EAGAIN: with O_NONBLOCK or RWF_NOWAIT nothing waits. */
TEST_F(one, nonblock)
{
	struct doorbell_event event;
	struct iovec iov = { &event, sizeof(event) };
	int fd = self->race.fd;

	EXPECT_EQ(-1, preadv2(fd, &iov, 1, -1, RWF_NOWAIT));
	EXPECT_EQ(EAGAIN, errno);
	ASSERT_EQ(0, fcntl(fd, F_SETFL, O_NONBLOCK));
	EXPECT_EQ(-1, read(fd, &event, sizeof(event)));
	EXPECT_EQ(EAGAIN, errno);
	EXPECT_EQ(-1, readv(fd, &iov, 1));
	EXPECT_EQ(EAGAIN, errno);
	ASSERT_EQ(0, ring_queue(&self->race, 3));
	ASSERT_EQ(sizeof(event), preadv2(fd, &iov, 1, -1, RWF_NOWAIT));
	EXPECT_TRUE(db_event_is(&event, 3, 1, 3));
}

/* The first ring after O_ASYNC sends SIGIO, even with events left unread. */
TEST_F(one, sigio_with_events_left)
{
	struct sigaction action = { .sa_handler = on_signal };
	int fd = self->race.fd;

	ASSERT_EQ(0, sigaction(SIGIO, &action, NULL));
	ASSERT_EQ(0, fcntl(fd, F_SETOWN, getpid()));
	ASSERT_EQ(0, ring_queue(&self->race, 1));
	ASSERT_EQ(POLLIN, db_poll(fd, POLLIN, 0));
	ASSERT_EQ(0, fcntl(fd, F_SETFL, O_ASYNC));
	ASSERT_EQ(0, ring_queue(&self->race, 2));
	EXPECT_EQ(1, signals);
}

static int poll_all_the_time(struct waiter *waiter)
{
	while (!waiter->race->stop)
		db_poll(waiter->race->fd, POLLIN | POLLOUT, 0);
	return 0;
}

static int read_all_the_time(struct waiter *waiter)
{
	struct doorbell_event event;
	int ret;

	while (!waiter->race->stop) {
		ret = db_read(waiter->race->fd, &event, 1);
		if (ret < 0 && ret != -EAGAIN)
			return ret;
	}
	return 0;
}

/* Call and attach run at the same time: the call's region stays valid. */
static void while_regions_change(struct __test_metadata *_metadata,
				 struct race *race,
				 int (*call)(struct waiter *waiter))
{
	uint64_t end = db_until(ROUNDS_MS);
	struct waiter waiters[2];
	int i;

	for (i = 0; i < 2; i++)
		ASSERT_TRUE(start(&waiters[i], race, call, 1));
	for (i = 0; db_round(i, ROUNDS_MIN, ROUNDS, end); i++) {
		ASSERT_EQ(0, db_detach(race->fd));
		ASSERT_EQ(0, db_attach(race->fd, -1, 0, 4 * QUEUES));
		ASSERT_EQ(0, ring_queue(race, i));
	}
	race->stop = true;
	for (i = 0; i < 2; i++)
		ASSERT_EQ(0, pthread_join(waiters[i].thread, NULL));
	EXPECT_EQ(0, race->wrong);
}

TEST_F_TIMEOUT(one, poll_while_regions_change, 120)
{
	while_regions_change(_metadata, &self->race, poll_all_the_time);
}

TEST_F_TIMEOUT(one, read_while_regions_change, 120)
{
	ASSERT_EQ(0, fcntl(self->race.fd, F_SETFL, O_NONBLOCK));
	while_regions_change(_metadata, &self->race, read_all_the_time);
}

static int write_all_the_time(struct waiter *waiter)
{
	int ret;

	while (!waiter->race->stop) {
		ret = ring_queue(waiter->race, waiter->seed);
		if (!ret)
			waiter->rung++;
		else if (ret != -ENOTCONN)
			return ret;
	}
	return 0;
}

/* Add the counts of all events that there are to @counted. */
static void count_all(struct __test_metadata *_metadata, struct race *race)
{
	struct doorbell_event events[QUEUES];
	int i, n;

	while ((n = db_read(race->fd, events, QUEUES)) > 0)
		for (i = 0; i < n; i++)
			race->counted += events[i].count;
	ASSERT_EQ(-EAGAIN, n);
}

/* Attach and write() run at the same time: none of the rings is dropped. */
TEST_F_TIMEOUT(one, no_write_is_dropped, 120)
{
	struct doorbell_attach arg = db_attach_arg(-1, 0, 4 * QUEUES);
	uint64_t rung = 0, end = db_until(10 * ROUNDS_MS);
	struct race *race = &self->race;
	struct waiter writers[2];
	uint32_t seed = 1;
	int i, ret;

	arg.flags = 0;
	ASSERT_EQ(0, fcntl(race->fd, F_SETFL, O_NONBLOCK));
	for (i = 0; i < 2; i++)
		ASSERT_TRUE(start(&writers[i], race, write_all_the_time, i));
	for (i = 0; db_round(i, ROUNDS_MIN, ROUNDS, end); i++) {
		ASSERT_EQ(0, db_detach(race->fd));
		do {
			count_all(_metadata, race);
			ret = db_result(ioctl(race->fd, DOORBELL_ATTACH, &arg));
		} while (ret == -ENOTEMPTY);
		ASSERT_EQ(0, ret);
		db_spin(db_random(&seed) % 1000);
	}
	race->stop = true;
	for (i = 0; i < 2; i++) {
		ASSERT_EQ(0, pthread_join(writers[i].thread, NULL));
		rung += writers[i].rung;
	}
	count_all(_metadata, race);
	EXPECT_EQ(0, race->wrong);
	EXPECT_LT(0, rung);
	EXPECT_EQ(rung, race->counted);
}

/* After DOORBELL_DETACH no write() that runs at the same time rings. */
TEST_F_TIMEOUT(one, no_write_after_detach, 120)
{
	uint64_t rung, all = 0, end = db_until(10 * ROUNDS_MS);
	struct race *race = &self->race;
	struct waiter writers[2];
	struct doorbell_info info;
	uint32_t seed = 1;
	int i;

	for (i = 0; i < 2; i++)
		ASSERT_TRUE(start(&writers[i], race, write_all_the_time, i));
	for (i = 0; db_round(i, ROUNDS_MIN, ROUNDS, end); i++) {
		/* let the writers ring, until anywhere in the middle */
		usleep(db_random(&seed) % 200);
		ASSERT_EQ(0, db_detach(race->fd));
		ASSERT_EQ(0, db_info(race->fd, &info));
		rung = info.rings;
		usleep(500);
		ASSERT_EQ(0, db_info(race->fd, &info));
		ASSERT_EQ(rung, info.rings);
		all += rung;
		ASSERT_EQ(0, db_attach(race->fd, -1, 0, 4 * QUEUES));
	}
	race->stop = true;
	for (i = 0; i < 2; i++)
		ASSERT_EQ(0, pthread_join(writers[i].thread, NULL));
	EXPECT_EQ(0, race->wrong);
	EXPECT_LT(0, all);
}

static struct doorbell_event *faulting;

/* Map the page. Its first access waits in the userfaultfd that this returns. */
static int faulting_begin(void)
{
	struct uffdio_api api = { .api = UFFD_API };
	struct uffdio_register reg = {
		.range.len = sysconf(_SC_PAGESIZE),
		.mode = UFFDIO_REGISTER_MODE_MISSING,
	};
	int uffd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);

	faulting = mmap(NULL, reg.range.len, PROT_READ | PROT_WRITE,
			MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	reg.range.start = (uintptr_t)faulting;
	if (uffd < 0 || faulting == MAP_FAILED ||
	    ioctl(uffd, UFFDIO_API, &api) || ioctl(uffd, UFFDIO_REGISTER, &reg))
		return -errno;
	return uffd;
}

static int faulting_end(int uffd)
{
	struct uffdio_zeropage zero = {
		.range = { (uintptr_t)faulting, sysconf(_SC_PAGESIZE) },
	};

	return db_result(ioctl(uffd, UFFDIO_ZEROPAGE, &zero));
}

/* The access fails. */
static int faulting_fail(int uffd)
{
	struct uffdio_range page = {
		(uintptr_t)faulting, sysconf(_SC_PAGESIZE)
	};

	if (mprotect(faulting, page.len, PROT_NONE))
		return -errno;
	return db_result(ioctl(uffd, UFFDIO_WAKE, &page));
}

static int read_faulting(struct waiter *waiter)
{
	int ret = db_read(waiter->race->fd, faulting, MANY_QUEUES + 1);

	if (ret > 0)
		waiter->race->counted += ret;
	return ret > 0 ? 0 : ret ?: -EPROTO;
}

/* A signal while read() copies ends it: what is left is a new edge. */
TEST_F_TIMEOUT(one, signal_leaves_edge, 120)
{
	struct sigaction action = { .sa_handler = on_signal };
	struct doorbell_event events[MANY_QUEUES];
	int edge = epoll_create1(EPOLL_CLOEXEC), uffd;
	struct race *race = &self->race;
	struct epoll_event event;

	ASSERT_EQ(0, sigaction(SIGUSR1, &action, NULL));
	ASSERT_EQ(0, db_detach(race->fd));
	ASSERT_EQ(0, db_attach(race->fd, -1, 0, 4 * MANY_QUEUES));
	ASSERT_EQ(0, epoll_add(edge, race->fd, EPOLLIN | EPOLLET));
	ASSERT_EQ(0, ring_many(race));
	ASSERT_EQ(1, epoll_wait(edge, &event, 1, 0));
	ASSERT_EQ(0, epoll_wait(edge, &event, 1, 0));

	uffd = faulting_begin();
	ASSERT_LE(0, uffd);
	ASSERT_TRUE(start(&self->waiter, race, read_faulting, 1));
	ASSERT_EQ(POLLIN, db_poll(uffd, POLLIN, -1));
	ASSERT_EQ(0, pthread_kill(self->waiter.thread, SIGUSR1));
	ASSERT_EQ(0, faulting_end(uffd));
	ASSERT_EQ(0, pthread_join(self->waiter.thread, NULL));
	ASSERT_EQ(0, race->wrong);
	ASSERT_GT(MANY_QUEUES, race->counted);
	ASSERT_EQ(1, epoll_wait(edge, &event, 1, 0));
	ASSERT_EQ(MANY_QUEUES - race->counted,
		  db_read(race->fd, events, MANY_QUEUES));
	close(uffd);
	close(edge);
}

static int read_faulting_one(struct waiter *waiter)
{
	int ret = db_read(waiter->race->fd, faulting, 1);

	return ret == 1 ? 0 : ret ?: -EPROTO;
}

static int read_nowait(int fd, struct doorbell_event *event)
{
	struct iovec iov = { .iov_base = event, .iov_len = sizeof(*event) };

	return db_result(preadv2(fd, &iov, 1, -1, RWF_NOWAIT));
}

/*
 * A reader that does not wait for the one that is copying has an edge when that
 * one has read an event, or has failed.
 */
TEST_F_TIMEOUT(one, nowait_reader_is_woken, 120)
{
	int fd = self->race.fd, edge, uffd, fails;
	struct epoll_event bits;
	struct doorbell_event event;

	for (fails = 0; fails < 2; fails++) {
		edge = epoll_create1(EPOLL_CLOEXEC);
		uffd = faulting_begin();
		ASSERT_LE(0, uffd);
		ASSERT_EQ(0, epoll_add(edge, fd, EPOLLIN | EPOLLET));
		ASSERT_EQ(0, ring_queue(&self->race, 1));
		ASSERT_EQ(0, ring_queue(&self->race, 2));
		ASSERT_EQ(1, epoll_wait(edge, &bits, 1, 0));
		ASSERT_TRUE(start(&self->waiter, &self->race,
				  read_faulting_one, 1));
		ASSERT_EQ(POLLIN, db_poll(uffd, POLLIN, -1));
		ASSERT_EQ(-EAGAIN, read_nowait(fd, &event));
		ASSERT_EQ(0, epoll_wait(edge, &bits, 1, 0));

		ASSERT_EQ(0, fails ? faulting_fail(uffd) : faulting_end(uffd));
		ASSERT_EQ(0, pthread_join(self->waiter.thread, NULL));
		ASSERT_EQ(fails ? -EFAULT : 0, self->race.wrong);
		ASSERT_EQ(1, epoll_wait(edge, &bits, 1, 0));
		ASSERT_EQ(sizeof(event), read_nowait(fd, &event));
		ASSERT_EQ(fails ? 1 : 2, event.queue);
		/* once */
		ASSERT_EQ(0, epoll_wait(edge, &bits, 1, 0));
		close(uffd);
		close(edge);
	}
}

static int recover(struct waiter *waiter)
{
	return ioctl(waiter->race->fd, DOORBELL_RECOVER, 0) ? -errno : 0;
}

/*
 * A reader in a page fault keeps its region: detach, attach and information do
 * not wait for the reader, and the reader gets the event of its own region. A
 * DOORBELL_RECOVER waits for the reader, until a signal comes: EINTR.
 */
TEST_F_TIMEOUT(one, nothing_waits_for_reader, 120)
{
	struct sigaction action = { .sa_handler = on_signal };
	int fd = self->race.fd, uffd = faulting_begin();
	struct waiter reader, recoverer;
	struct db_snapshot snapshot;

	ASSERT_LE(0, uffd);
	ASSERT_EQ(0, ring_queue(&self->race, 1));
	ASSERT_TRUE(start(&reader, &self->race, read_faulting, 1));
	ASSERT_EQ(POLLIN, db_poll(uffd, POLLIN, -1));

	/* DOORBELL_INFO, fdinfo, poll() */
	ASSERT_EQ(0, db_snapshot(fd, &snapshot));
	EXPECT_EQ(DOORBELL_ATTACHED, snapshot.info.state);
	EXPECT_EQ(1, snapshot.info.pending);
	ASSERT_EQ(0, db_detach(fd));
	ASSERT_EQ(0, db_attach(fd, -1, 64, 4 * QUEUES));
	ASSERT_EQ(0, db_snapshot(fd, &snapshot));
	EXPECT_EQ(64, snapshot.info.base);
	EXPECT_EQ(0, snapshot.info.rings);

	ASSERT_EQ(0, sigaction(SIGUSR1, &action, NULL));
	ASSERT_TRUE(start(&recoverer, &self->race, recover, 1));
	ASSERT_EQ(0, db_wait_sleeping(getpid(), recoverer.tid, SYS_ioctl));
	ASSERT_EQ(0, pthread_kill(recoverer.thread, SIGUSR1));
	ASSERT_EQ(0, pthread_join(recoverer.thread, NULL));
	ASSERT_EQ(-EINTR, self->race.wrong);
	self->race.wrong = 0;

	ASSERT_EQ(0, faulting_end(uffd));
	ASSERT_EQ(0, pthread_join(reader.thread, NULL));
	EXPECT_TRUE(db_event_is(faulting, 1, 1, 1));
	EXPECT_EQ(0, self->race.wrong);
}

static int wait_pollout(struct waiter *waiter)
{
	/* without timeout: at a timeout poll() would check again */
	if (db_poll(waiter->race->fd, POLLOUT, -1) != POLLOUT)
		return -EPROTO;
	waiter->race->counted = 1;
	return 0;
}

/* Attach wakes a waiter for POLLOUT. */
TEST_F_TIMEOUT(one, pollout_wakes, 120)
{
	struct waiter *waiter = &self->waiter;

	ASSERT_EQ(0, db_detach(self->race.fd));
	ASSERT_TRUE(start(waiter, &self->race, wait_pollout, 1));
	ASSERT_EQ(0, db_wait_sleeping(getpid(), waiter->tid, SYS_poll));
	ASSERT_EQ(0, db_attach(self->race.fd, -1, 0, 4 * QUEUES));
	ASSERT_TRUE(all_counted(&self->race, 1)) {
		TH_LOG("attach woke nothing");
	}
	ASSERT_EQ(0, pthread_join(waiter->thread, NULL));
}

/* Level-triggered epoll reports pending events always, edge-triggered once. */
TEST_F(one, epoll_level_and_edge)
{
	int level = epoll_create1(EPOLL_CLOEXEC);
	int edge = epoll_create1(EPOLL_CLOEXEC);
	struct epoll_event event;
	struct doorbell_event got;
	int fd = self->race.fd, i;

	ASSERT_EQ(0, epoll_add(level, fd, EPOLLIN));
	ASSERT_EQ(0, epoll_add(edge, fd, EPOLLIN | EPOLLET));
	EXPECT_EQ(0, epoll_wait(level, &event, 1, 0));
	EXPECT_EQ(0, epoll_wait(edge, &event, 1, 0));
	for (i = 0; i < 3; i++) {
		ASSERT_EQ(0, ring_queue(&self->race, 0));
		ASSERT_EQ(0, ring_queue(&self->race, 1));
		EXPECT_EQ(1, epoll_wait(level, &event, 1, 0));
		EXPECT_EQ(EPOLLIN, event.events);
		EXPECT_EQ(1, epoll_wait(level, &event, 1, 0));
		EXPECT_EQ(1, epoll_wait(edge, &event, 1, 0));
		EXPECT_EQ(EPOLLIN, event.events);
		EXPECT_EQ(0, epoll_wait(edge, &event, 1, 0));
		ASSERT_EQ(1, db_read(fd, &got, 1));
		EXPECT_EQ(1, epoll_wait(level, &event, 1, 0));
		ASSERT_EQ(1, db_read(fd, &got, 1));
		EXPECT_EQ(0, epoll_wait(level, &event, 1, 0));
	}
	close(level);
	close(edge);
}

/* A ring after a full read() is a new edge, and sends a signal. */
TEST_F(one, edge_after_full_read)
{
	int edge = epoll_create1(EPOLL_CLOEXEC);
	const struct timespec none = {};
	struct epoll_event event;
	struct doorbell_event got;
	sigset_t set;
	int i;

	block_signal(&set);
	ASSERT_EQ(0, epoll_add(edge, self->race.fd, EPOLLIN | EPOLLET));
	for (i = 0; i < 3; i++) {
		ASSERT_EQ(0, ring_queue(&self->race, 0));
		EXPECT_EQ(1, epoll_wait(edge, &event, 1, 0));
		ASSERT_EQ(1, db_read(self->race.fd, &got, 1));
		EXPECT_EQ(0, epoll_wait(edge, &event, 1, 0));
	}
	close(edge);

	ASSERT_EQ(0, signal_me(self->race.fd));
	for (i = 0; i < 3; i++) {
		ASSERT_EQ(0, ring_queue(&self->race, 0));
		EXPECT_EQ(SIGRTMIN, sigtimedwait(&set, NULL, &none));
		ASSERT_EQ(1, db_read(self->race.fd, &got, 1));
	}
	EXPECT_EQ(-1, sigtimedwait(&set, NULL, &none));
}

/* A ring wakes only a consumer that has found nothing. */
TEST_F(one, wakeups_only_if_waiting)
{
	struct doorbell_info info;
	struct doorbell_event got[QUEUES];
	uint64_t before;
	int i;

	ASSERT_EQ(0, ring_queue(&self->race, 0));
	ASSERT_EQ(0, db_info(self->race.fd, &info));
	before = info.wakeups;
	for (i = 0; i < 100; i++)
		ASSERT_EQ(0, ring_queue(&self->race, i));
	ASSERT_EQ(0, db_info(self->race.fd, &info));
	EXPECT_EQ(before, info.wakeups);
	/* read all, then find nothing */
	ASSERT_EQ(QUEUES, db_read(self->race.fd, got, QUEUES));
	EXPECT_EQ(0, db_poll(self->race.fd, POLLIN, 0));
	for (i = 0; i < 100; i++)
		ASSERT_EQ(0, ring_queue(&self->race, i));
	ASSERT_EQ(0, db_info(self->race.fd, &info));
	EXPECT_EQ(before + 1, info.wakeups);
}

TEST_HARNESS_MAIN
