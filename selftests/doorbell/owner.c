// SPDX-License-Identifier: GPL-2.0
/*
 * Owner: several owners of one descriptor, and the last close.
 *
 * The descriptor passes through fork, exec, dup and Unix sockets, its owners
 * close it in any order, its readers are killed. The module can be unloaded as
 * soon as no descriptor is open. The tests load it from $DOORBELL_KO, or from
 * /doorbell.ko. No guest here.
 */
#include <pthread.h>
#include <signal.h>

#include "util.h"

#define ROUNDS_KILL	60
/* Fewer rounds on a slow machine, but never less than the minimum */
#define ROUNDS_LOAD	100
#define ROUNDS_LOAD_MIN	12
#define ROUNDS_LOAD_MS	5000
/* What workqueues consist of */
#define WORKQUEUES	"pool_workqueue"

/* The program executes itself with this argument: see main(). */
#define ARG_READ	"--read-one"
/* Its exit status if it read the event, otherwise errno or 1 */
#define EXEC_OK		200
#define EXEC_QUEUE	1
#define EXEC_VALUE	0x1122334455667788ULL

static int read_one(int fd)
{
	struct doorbell_event event;

	int ret = db_read(fd, &event, 1);

	if (ret != 1)
		return -ret;
	return db_event_is(&event, EXEC_QUEUE, 1, EXEC_VALUE) ? EXEC_OK : 1;
}

FIXTURE(owner)
{
	int fd;
};

FIXTURE_SETUP(owner)
{
	self->fd = db_must_open(_metadata, 0);
	ASSERT_EQ(0, db_attach(self->fd, -1, 0, 64));
	ASSERT_EQ(1, db_module_refs());
}

FIXTURE_TEARDOWN(owner)
{
	close(self->fd);
	EXPECT_EQ(0, db_module_refs());
}

/* A child reads what its parent rings; only one of them gets the event. */
TEST_F_TIMEOUT(owner, fork_child_reads, 120)
{
	struct doorbell_info info;
	pid_t pid = fork();

	ASSERT_LE(0, pid);
	if (!pid)
		_exit(read_one(self->fd));
	EXPECT_EQ(0, db_wait_sleeping(pid, pid, SYS_read));
	ASSERT_EQ(0, db_ring(self->fd, 4 * EXEC_QUEUE, EXEC_VALUE));
	EXPECT_EQ(EXEC_OK, db_wait_status(pid));
	ASSERT_EQ(0, db_info(self->fd, &info));
	EXPECT_EQ(DOORBELL_ATTACHED, info.state);
	EXPECT_EQ(0, info.pending);
	EXPECT_EQ(0, db_poll(self->fd, POLLIN, 0));
}

/* A child attaches and rings, and its parent still sees both after it ends. */
TEST_F_TIMEOUT(owner, fork_child_rings, 120)
{
	struct doorbell_event event;
	pid_t pid = fork();

	ASSERT_LE(0, pid);
	if (!pid) {
		if (db_detach(self->fd) || db_attach(self->fd, -1, 0x1000, 8) ||
		    db_ring(self->fd, 0x1004, 3))
			_exit(1);
		_exit(0);
	}
	EXPECT_EQ(0, db_wait_status(pid));
	ASSERT_EQ(0, db_ring(self->fd, 0x1004, 4));
	ASSERT_EQ(1, db_read(self->fd, &event, 1));
	EXPECT_TRUE(db_event_is(&event, 1, 2, 4));
}

/* After exec the inherited descriptor delivers old and new rings. */
TEST_F_TIMEOUT(owner, exec_inherits, 120)
{
	char text[16];
	int turn;

	ASSERT_EQ(0, fcntl(self->fd, F_SETFD, 0));
	snprintf(text, sizeof(text), "%d", self->fd);
	for (turn = 0; turn < 2; turn++) {
		pid_t pid;

		if (turn)
			ASSERT_EQ(0, db_ring(self->fd, 4 * EXEC_QUEUE,
					     EXEC_VALUE));
		pid = fork();
		ASSERT_LE(0, pid);
		if (!pid) {
			execl("/proc/self/exe", "owner", ARG_READ, text, NULL);
			_exit(errno);
		}
		if (!turn) {
			EXPECT_EQ(0, db_wait_sleeping(pid, pid, SYS_read));
			ASSERT_EQ(0, db_ring(self->fd, 4 * EXEC_QUEUE,
					     EXEC_VALUE));
		}
		EXPECT_EQ(EXEC_OK, db_wait_status(pid));
	}
	EXPECT_EQ(0, db_poll(self->fd, POLLIN, 0));
}

/* With O_CLOEXEC exec closes the descriptor. */
TEST_F_TIMEOUT(owner, exec_closes, 120)
{
	int fd = db_must_open(_metadata, 0);
	char text[16];
	pid_t pid;

	snprintf(text, sizeof(text), "%d", fd);
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		execl("/proc/self/exe", "owner", ARG_READ, text, NULL);
		_exit(errno);
	}
	EXPECT_EQ(EBADF, db_wait_status(pid));
	EXPECT_EQ(2, db_module_refs());
	close(fd);
	EXPECT_EQ(1, db_module_refs());
}

/* dup() makes a second descriptor of the same consumer. */
TEST_F(owner, dup)
{
	struct doorbell_event event;
	int fd = dup(self->fd);

	ASSERT_LE(0, fd);
	EXPECT_EQ(1, db_module_refs());
	ASSERT_EQ(0, db_ring(self->fd, 8, 1));
	ASSERT_EQ(0, db_ring(fd, 8, 2));
	ASSERT_EQ(fd, dup2(fd, fd));
	close(self->fd);
	EXPECT_EQ(1, db_module_refs());
	ASSERT_EQ(1, db_read(fd, &event, 1));
	EXPECT_TRUE(db_event_is(&event, 2, 2, 2));
	EXPECT_EQ(-EBUSY, db_attach(fd, -1, 0, 4));
	self->fd = fd;
}

/* A consumer passes over a Unix socket and outlives the sender. */
TEST_F_TIMEOUT(owner, socket_passes, 120)
{
	struct doorbell_event event;
	int pair[2], fd;
	pid_t pid;

	ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair));
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		/* a new consumer with one unread event */
		fd = db_open(0);
		if (db_attach(fd, -1, 0, 64) ||
		    db_ring(fd, 4 * EXEC_QUEUE, EXEC_VALUE) ||
		    db_send_fd(pair[1], fd))
			_exit(1);
		_exit(0);
	}
	EXPECT_EQ(0, db_wait_status(pid));
	/* only the socket holds the consumer */
	EXPECT_EQ(2, db_module_refs());
	fd = db_receive_fd(pair[0]);
	ASSERT_LE(0, fd);
	EXPECT_EQ(EXEC_OK, read_one(fd));
	ASSERT_EQ(0, db_ring(fd, 0, 1));
	ASSERT_EQ(1, db_read(fd, &event, 1));
	EXPECT_TRUE(db_event_is(&event, 0, 1, 1));
	close(fd);
	EXPECT_EQ(1, db_module_refs());

	/* a descriptor in flight goes away with the socket */
	fd = db_must_open(_metadata, 0);
	ASSERT_EQ(0, db_attach(fd, -1, 0, 4));
	ASSERT_EQ(0, db_send_fd(pair[1], fd));
	close(fd);
	EXPECT_EQ(2, db_module_refs());
	close(pair[1]);
	close(pair[0]);
	EXPECT_EQ(1, db_module_refs());
}

/* The opener closes first, or last: the other owner continues. */
TEST_F_TIMEOUT(owner, close_order, 120)
{
	int first, fd, go[2], status;
	struct doorbell_event event;
	char byte = 0;
	pid_t pid;

	for (first = 0; first < 2; first++) {
		fd = db_must_open(_metadata, 0);
		ASSERT_EQ(0, db_attach(fd, -1, 0, 64));
		ASSERT_EQ(0, pipe2(go, O_CLOEXEC));
		pid = fork();
		ASSERT_LE(0, pid);
		if (!pid) {
			close(self->fd);
			close(go[1]);
			if (first)
				close(fd);
			/* wait until the parent has closed its descriptor */
			if (read(go[0], &byte, 1) != 1)
				_exit(1);
			if (first)
				_exit(0);
			if (db_ring(fd, 8, 1) || db_read(fd, &event, 1) != 1 ||
			    !db_event_is(&event, 2, 2, 1))
				_exit(2);
			_exit(0);
		}
		close(go[0]);
		ASSERT_EQ(0, db_ring(fd, 8, 5));
		if (!first)
			close(fd);
		ASSERT_EQ(1, write(go[1], &byte, 1));
		close(go[1]);
		status = db_wait_status(pid);
		EXPECT_EQ(0, status);
		if (first) {
			EXPECT_EQ(2, db_module_refs());
			ASSERT_EQ(0, db_ring(fd, 8, 6));
			ASSERT_EQ(1, db_read(fd, &event, 1));
			EXPECT_TRUE(db_event_is(&event, 2, 2, 6));
			close(fd);
		}
		EXPECT_EQ(1, db_module_refs());
	}
}

static void on_signal(int sig)
{
}

struct blocked_reader {
	int fd;
	_Atomic pid_t tid;
	int result;
};

static void *blocked_reader(void *arg)
{
	struct blocked_reader *reader = arg;
	struct doorbell_event event;

	reader->tid = db_gettid();
	reader->result = db_read(reader->fd, &event, 1);
	return NULL;
}

/* A read() in progress keeps the consumer after the last close(). */
TEST_F_TIMEOUT(owner, close_under_reader, 120)
{
	struct sigaction action = { .sa_handler = on_signal };
	struct blocked_reader reader = { .fd = db_must_open(_metadata, 0) };
	pthread_t thread;

	ASSERT_EQ(0, db_attach(reader.fd, -1, 0, 4));
	ASSERT_EQ(0, sigaction(SIGUSR1, &action, NULL));
	ASSERT_EQ(0, pthread_create(&thread, NULL, blocked_reader, &reader));
	while (!reader.tid)
		db_yield();
	ASSERT_EQ(0, db_wait_sleeping(getpid(), reader.tid, SYS_read));
	close(reader.fd);
	EXPECT_EQ(2, db_module_refs());
	ASSERT_EQ(0, pthread_kill(thread, SIGUSR1));
	ASSERT_EQ(0, pthread_join(thread, NULL));
	EXPECT_EQ(-EINTR, reader.result);
	EXPECT_EQ(1, db_module_refs());
}

/*
 * A killed reader loses nothing but the events that it has read. It reads each
 * event into a buffer of its own in shared memory, where the parent finds all
 * that the kernel wrote.
 */
TEST_F_TIMEOUT(owner, killed_reader, 240)
{
	const unsigned int burst = 40;
	const size_t size = (burst + 1) * DB_EVENT_SIZE;
	struct doorbell_event event, *log;
	uint64_t rung = 0, got = 0, by_dead = 0;
	uint32_t seed = 1;
	unsigned int i;
	int round;

	log = db_shared_memory(size);
	ASSERT_NE(NULL, log);
	for (round = 0; round < ROUNDS_KILL; round++) {
		pid_t pid;

		memset(log, 0, size);
		pid = fork();
		ASSERT_LE(0, pid);
		if (!pid) {
			for (i = 0; i <= burst; i++)
				if (db_read(self->fd, &log[i], 1) != 1)
					_exit(1);
			_exit(2);
		}
		ASSERT_EQ(0, db_wait_sleeping(pid, pid, SYS_read));
		/* round 0 kills a reader that sleeps */
		for (i = 0; i < round * burst / ROUNDS_KILL; i++, rung++) {
			ASSERT_EQ(0, db_ring(self->fd,
					     4 * (db_random(&seed) % 16), i));
			db_spin(db_random(&seed) % 3000);
		}
		ASSERT_EQ(0, kill(pid, SIGKILL));
		ASSERT_EQ(0x100 + SIGKILL, db_wait_status(pid));
		for (i = 0; i <= burst; i++)
			by_dead += log[i].count;
		/* the consumer still works */
		ASSERT_EQ(0, db_ring(self->fd, 64, round));
		rung++;
		while (db_poll(self->fd, POLLIN, 0)) {
			ASSERT_EQ(1, db_read(self->fd, &event, 1));
			got += event.count;
		}
		ASSERT_EQ(rung, got + by_dead);
	}
	TH_LOG("%llu rings, %llu read by those killed",
	       (unsigned long long)rung, (unsigned long long)by_dead);
	EXPECT_LT(0, by_dead);
}

/* Two processes answer each ring with a ring, and none is lost. */
TEST_F_TIMEOUT(owner, ping_pong, 240)
{
	const int rounds = 1500;
	struct doorbell_event event;
	int back = db_must_open(_metadata, 0), i;
	uint32_t seed = 7;
	pid_t pid;

	ASSERT_EQ(0, db_attach(back, -1, 0, 64));
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		alarm(200);
		seed = 9;
		for (i = 0; i < rounds; i++) {
			if (db_read(self->fd, &event, 1) != 1 ||
			    !db_event_is(&event, i % 16, 1, i))
				_exit(1);
			db_spin(db_random(&seed) % 2000);
			if (db_ring(back, 4 * (i % 16), i))
				_exit(2);
		}
		_exit(0);
	}
	for (i = 0; i < rounds; i++) {
		ASSERT_EQ(0, db_ring(self->fd, 4 * (i % 16), i));
		db_spin(db_random(&seed) % 2000);
		/* after a lost ring the time limit ends the test */
		if (i % 2)
			ASSERT_EQ(POLLIN, db_poll(back, POLLIN, -1));
		ASSERT_EQ(1, db_read(back, &event, 1));
		ASSERT_TRUE(db_event_is(&event, i % 16, 1, i));
	}
	EXPECT_EQ(0, db_wait_status(pid));
	close(back);
}

FIXTURE(module)
{
	int ko;
};

FIXTURE_SETUP(module)
{
	self->ko = db_module_open();
	if (self->ko < 0)
		SKIP(return, "no module to load: %s", strerror(-self->ko));
}

FIXTURE_TEARDOWN(module)
{
	/* the next test needs the module */
	if (db_module_refs() < 0)
		EXPECT_EQ(0, db_module_load(self->ko));
	close(self->ko);
}

/* The module cannot be unloaded while a descriptor is open. */
TEST_F_TIMEOUT(module, unload_refused, 120)
{
	int fd, other;

	fd = db_must_open(_metadata, 0);
	EXPECT_EQ(-EWOULDBLOCK, db_module_unload());
	ASSERT_EQ(0, db_attach(fd, -1, 0, 8));
	other = dup(fd);
	ASSERT_LE(0, other);
	EXPECT_EQ(-EWOULDBLOCK, db_module_unload());
	ASSERT_EQ(0, db_ring(fd, 0, 1));
	close(fd);
	EXPECT_EQ(-EWOULDBLOCK, db_module_unload());
	ASSERT_EQ(0, db_detach(other));
	EXPECT_EQ(-EWOULDBLOCK, db_module_unload());
	close(other);
	ASSERT_EQ(0, db_module_unload());
	EXPECT_EQ(-ENOENT, db_module_refs());
	EXPECT_EQ(-ENOENT, db_open(0));
	EXPECT_EQ(0, db_module_load(self->ko));
}

/* Load, use and unload the module many times. */
TEST_F_TIMEOUT(module, unload_rounds, 240)
{
	uint64_t end = db_until(ROUNDS_LOAD_MS);
	struct doorbell_event event;
	int fd, round;

	for (round = 0; db_round(round, ROUNDS_LOAD_MIN, ROUNDS_LOAD, end);
	     round++) {
		ASSERT_EQ(0, db_module_unload());
		ASSERT_EQ(0, db_module_load(self->ko));
		fd = db_must_open(_metadata, 0);
		ASSERT_EQ(0, db_attach(fd, -1, 0x1000, 0x1000));
		ASSERT_EQ(0, db_ring(fd, 0x1000 + 4 * round, round));
		ASSERT_EQ(1, db_read(fd, &event, 1));
		EXPECT_TRUE(db_event_is(&event, round, 1, round));
		/* some rounds leave an event unread, some detach first */
		if (round % 2)
			ASSERT_EQ(0, db_ring(fd, 0x1000, 0));
		if (round % 3)
			ASSERT_EQ(0, db_detach(fd));
		close(fd);
	}
}

/* Objects of the kernel's workqueues: the module has two or more of them. */
static long workqueues(void)
{
	db_shrink_slabs();
	return db_add_up("/proc/slabinfo", WORKQUEUES);
}

/* The module's workqueues go with it. */
TEST_F_TIMEOUT(module, leaves_no_workqueue, 240)
{
	long before, last;
	int round;

	/* the kernel frees what earlier tests had, some seconds later */
	do {
		before = workqueues();
		if (!before)
			SKIP(return, "no " WORKQUEUES " in /proc/slabinfo");
		sleep(6);
		last = workqueues();
	} while (last < before - ROUNDS_LOAD_MIN / 4);
	before = last;
	for (round = 0; round < 2 * ROUNDS_LOAD_MIN; round++) {
		ASSERT_EQ(0, db_module_unload());
		ASSERT_EQ(0, db_module_load(self->ko));
	}
	/* other slabs may be merged with this one */
	ASSERT_TRUE(eventually(workqueues() < before + ROUNDS_LOAD_MIN));
}

int main(int argc, char **argv)
{
	if (argc == 3 && !strcmp(argv[1], ARG_READ))
		return read_one(atoi(argv[2]));
	return test_harness_run(argc, argv);
}
