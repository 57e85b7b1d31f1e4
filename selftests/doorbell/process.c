// SPDX-License-Identifier: GPL-2.0
/*
 * Process: VM and consumer end in every order, in one process or in two.
 */
#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/prctl.h>

#include "peer.h"
#include "vmutil.h"

#define VCPUS		3

/* VM and consumer in different processes */
FIXTURE(process) {
	struct peer peer;
	struct book book;
	int fd;
};

FIXTURE_SETUP(process)
{
	peer_start(_metadata, &self->peer, 0);
	self->fd = db_must_open(_metadata, O_NONBLOCK);
}

FIXTURE_TEARDOWN(process)
{
	close(self->fd);
	peer_end(&self->peer);
}

/* Attach a VM received over a socket; the region outlives the descriptor. */
TEST_F_TIMEOUT(process, vm_fd_by_socket, TEST_SECONDS)
{
	struct peer *peer = &self->peer;

	ASSERT_EQ(0, attach_region(self->fd, peer->vm_fd, 0));
	peer_close_vm(peer);
	ASSERT_EQ(0, peer_do(peer, PEER_RING));
	ASSERT_TRUE(eventually(guest_finished(peer->shared) > 200));
	ASSERT_EQ(0, book_drain(&self->book, self->fd));
	ASSERT_EQ(0, peer_do(peer, PEER_STOP));
	ASSERT_EQ(0, book_drain(&self->book, self->fd));
	ASSERT_EQ(0, peer->exits->other);
	ASSERT_EQ(guest_total(peer->shared), book_total(&self->book));
	check_books(_metadata, peer->shared, &self->book, peer->exits);

	ASSERT_EQ(0, db_detach(self->fd));
	ASSERT_EQ(0, peer_do(peer, PEER_RING));
	ASSERT_TRUE(eventually(all_exit(peer->exits, PEER_VCPUS)));
	ASSERT_EQ(0, peer_do(peer, PEER_STOP));
	ASSERT_EQ(0, poll_now(self->fd));
	check_books(_metadata, peer->shared, &self->book, peer->exits);
}

/* ESRCH: the process of the VM is gone. Nothing changes. */
TEST_F_TIMEOUT(process, attach_to_the_dead, TEST_SECONDS)
{
	struct db_snapshot before, after;

	/* one unread event has to survive the refusal */
	ASSERT_EQ(0, attach_region(self->fd, -1, 0));
	ASSERT_EQ(0, db_ring(self->fd, MMIO_BASE + 8, 5));
	ASSERT_EQ(0, db_detach(self->fd));
	ASSERT_EQ(0, db_snapshot(self->fd, &before));

	kill(self->peer.pid, SIGKILL);
	ASSERT_EQ(self->peer.pid, waitpid(self->peer.pid, NULL, 0));
	ASSERT_EQ(-ESRCH, attach_region(self->fd, self->peer.vm_fd, 0));
	ASSERT_EQ(0, db_snapshot(self->fd, &after));
	ASSERT_TRUE(db_same(&before, &after));
	check_event(_metadata, self->fd, 1, 5);
	ASSERT_EQ(0, poll_now(self->fd));
}

enum waiter_kind {
	IN_READ,
	IN_POLL,
	IN_EPOLL,
	NR_WAITERS,
};

struct waiter {
	enum waiter_kind kind;
	int fd;
	_Atomic int tid;
	_Atomic bool done;
	long result;
};

static void *waiter_main(void *arg)
{
	struct waiter *w = arg;
	struct epoll_event event = { .events = EPOLLIN | EPOLLET };
	struct pollfd p = { .fd = w->fd, .events = POLLIN };
	int epfd = epoll_create1(EPOLL_CLOEXEC);
	struct doorbell_event e;

	epoll_ctl(epfd, EPOLL_CTL_ADD, w->fd, &event);
	w->tid = db_gettid();
	switch (w->kind) {
	case IN_READ:
		w->result = read(w->fd, &e, sizeof(e));
		break;
	case IN_POLL:
		w->result = poll(&p, 1, -1) == 1 ? p.revents : -1;
		break;
	default:
		w->result = epoll_wait(epfd, &event, 1, -1) == 1 ?
			    (long)event.events : -1;
	}
	close(epfd);
	w->done = true;
	return NULL;
}

/* Wake-ups: the end of the VM wakes every waiter. */
TEST_F_TIMEOUT(process, waiters_see_the_end, TEST_SECONDS)
{
	static const long calls[] = { SYS_read, SYS_poll, SYS_epoll_wait };
	static const long results[] = { 0, POLLHUP, EPOLLHUP };
	struct waiter w[NR_WAITERS] = {};
	pthread_t thread;
	int i;

	ASSERT_EQ(0, fcntl(self->fd, F_SETFL, 0));
	ASSERT_EQ(0, attach_region(self->fd, self->peer.vm_fd, 0));
	peer_close_vm(&self->peer);
	for (i = 0; i < NR_WAITERS; i++) {
		w[i].kind = i;
		w[i].fd = self->fd;
		ASSERT_EQ(0, pthread_create(&thread, NULL, waiter_main, &w[i]));
		ASSERT_TRUE(eventually(w[i].tid));
		ASSERT_EQ(0, db_wait_sleeping(getpid(), w[i].tid, calls[i]));
	}
	for (i = 0; i < NR_WAITERS; i++)
		ASSERT_FALSE(w[i].done);
	kill(self->peer.pid, SIGKILL);
	for (i = 0; i < NR_WAITERS; i++) {
		ASSERT_TRUE(eventually(w[i].done)) {
			TH_LOG("waiter %d still waits", i);
		}
		ASSERT_EQ(results[i], w[i].result);
	}
}

/* Attach and detach race with the end of the VM. */
TEST_F_TIMEOUT(process, races_with_the_end, TEST_SECONDS)
{
	struct doorbell_event event;
	int i, ret, attached = 0;

	for (i = 0; i < 12; i++) {
		if (i) {
			peer_end(&self->peer);
			peer_start(_metadata, &self->peer, 0);
		}
		if (i % 4 >= 2)
			ASSERT_EQ(0, peer_do(&self->peer, PEER_RING));
		if (i % 2)
			kill(self->peer.pid, SIGKILL);
		ret = attach_region(self->fd, self->peer.vm_fd, 0);
		peer_close_vm(&self->peer);
		if (!(i % 2))
			kill(self->peer.pid, SIGKILL);
		if (ret) {
			ASSERT_EQ(-ESRCH, ret);
			ASSERT_EQ(1, i % 2);
			continue;
		}
		attached++;
		if (i % 3 == 0) {
			ASSERT_NE(0, POLLHUP & poll_for(self->fd, 0));
			while ((ret = db_read(self->fd, &event, 1)) == 1)
				;
			ASSERT_EQ(0, ret);
		}
		if (i % 5) {
			ASSERT_EQ(0, db_detach(self->fd));
		} else {
			close(self->fd);
			self->fd = db_must_open(_metadata, O_NONBLOCK);
		}
	}
	ASSERT_LE(6, attached);
}

/* The module cannot be unloaded while a descriptor is open. */
TEST_F_TIMEOUT(process, no_unload_while_open, TEST_SECONDS)
{
	int refs = db_module_refs(), other;

	if (refs < 0)
		SKIP(return, "no /sys/module/doorbell/refcnt: not a module");
	ASSERT_EQ(0, attach_region(self->fd, self->peer.vm_fd, 0));
	peer_close_vm(&self->peer);
	ASSERT_EQ(-EWOULDBLOCK, db_module_unload());

	kill(self->peer.pid, SIGKILL);
	ASSERT_NE(0, POLLHUP & poll_for(self->fd, 0));
	ASSERT_EQ(-EWOULDBLOCK, db_module_unload());

	other = db_must_open(_metadata, 0);
	ASSERT_EQ(refs + 1, db_module_refs());
	close(other);
	ASSERT_EQ(refs, db_module_refs());
	ASSERT_EQ(0, db_detach(self->fd));
	ASSERT_EQ(-EWOULDBLOCK, db_module_unload());
	close(self->fd);
	ASSERT_EQ(refs - 1, db_module_refs());
	self->fd = -1;
}

/* The VMM ends while its guest rings */
FIXTURE(vmm_ends) {
	struct peer peer;
	struct book book;
	int fd, other;
};

FIXTURE_VARIANT(vmm_ends) {
	__u32 flags;
	char command;	/* 0: kill it */
};

FIXTURE_VARIANT_ADD(vmm_ends, killed) { .command = 0, };
FIXTURE_VARIANT_ADD(vmm_ends, killed_pio) { .flags = PIO, };
FIXTURE_VARIANT_ADD(vmm_ends, exits) { .command = PEER_EXIT, };
FIXTURE_VARIANT_ADD(vmm_ends, execs) { .command = PEER_EXEC, };

FIXTURE_SETUP(vmm_ends)
{
	SKIP_WITHOUT_PORTS(variant->flags);
	peer_start(_metadata, &self->peer, variant->flags);
	self->fd = db_must_open(_metadata, 0);
	self->other = db_must_open(_metadata, 0);
}

FIXTURE_TEARDOWN(vmm_ends)
{
	close(self->fd);
	close(self->other);
	peer_end(&self->peer);
}

TEST_F_TIMEOUT(vmm_ends, while_ringing, TEST_SECONDS)
{
	__u64 base = base_of(variant->flags), started, finished;
	struct peer *peer = &self->peer;
	struct doorbell_event events[3];
	struct doorbell_info info;
	struct vmm *vmm;
	unsigned int q;
	int n;

	ASSERT_EQ(0, attach_region(self->fd, peer->vm_fd, variant->flags));
	ASSERT_EQ(0, db_attach_as(self->other, peer->vm_fd, base + REGION_LEN,
				  REGION_LEN, REGION_STRIDE, variant->flags));
	peer_close_vm(peer);
	ASSERT_EQ(0, peer_do(peer, PEER_RING));
	ASSERT_TRUE(eventually(guest_finished(peer->shared) > 300));
	n = db_read(self->fd, events, ARRAY_SIZE(events));
	ASSERT_LT(0, n);
	book_events(&self->book, events, n);
	ASSERT_EQ(0, poll_for(self->fd, POLLOUT) & POLLHUP);
	ASSERT_EQ(DOORBELL_ATTACHED, info_of(self->fd).state);

	if (variant->command) {
		ASSERT_EQ(0, peer_send(peer, variant->command));
	} else {
		ASSERT_EQ(0, kill(peer->pid, SIGKILL));
	}
	ASSERT_NE(0, POLLHUP & poll_for(self->fd, 0));
	ASSERT_NE(0, POLLHUP & poll_for(self->other, 0));

	/* no vCPU runs any more: the guest's counters are final */
	started = guest_total(peer->shared);
	finished = guest_finished(peer->shared);
	info = info_of(self->fd);
	ASSERT_EQ(DOORBELL_HANGUP, info.state);
	ASSERT_EQ(-EPIPE, db_ring(self->fd, base, 0));
	ASSERT_EQ(-EBUSY, attach_region(self->fd, -1, 0));

	/* read() returns what was rung, and after that always 0 */
	while ((n = db_read(self->fd, events, ARRAY_SIZE(events))) > 0)
		book_events(&self->book, events, n);
	ASSERT_EQ(0, n);
	ASSERT_EQ(0, db_read(self->fd, events, 1));
	ASSERT_EQ(POLLHUP, poll_now(self->fd));
	ASSERT_EQ(0, db_read(self->other, events, 1));
	for (q = 0; q < REGION_QUEUES; q++)
		ASSERT_LE(self->book.count[q], guest_count(peer->shared, q));
	ASSERT_LE(finished, book_total(&self->book));
	ASSERT_LE(book_total(&self->book), started);
	ASSERT_EQ(info.rings, book_total(&self->book));
	ASSERT_EQ(0, self->book.wrong);
	ASSERT_EQ(0, peer->exits->other);

	/* after detach it is a consumer like any other */
	ASSERT_EQ(0, db_detach(self->fd));
	ASSERT_EQ(0, poll_now(self->fd));
	ASSERT_EQ(-ENOTCONN, db_detach(self->fd));
	ASSERT_EQ(-ENOTCONN, db_ring(self->fd, base, 0));
	vmm = vmm_create(1);
	ASSERT_NE(NULL, vmm);
	ASSERT_EQ(0, attach_region(self->fd, vmm->vm_fd, variant->flags));
	ASSERT_EQ(0, guest_write(vmm, variant->flags, 4, base + 8, 3));
	check_event(_metadata, self->fd, 1, 3);
	ASSERT_EQ(0, vmm_exits(vmm));
	vmm_destroy(vmm);
}

/* The consumer ends while the guest rings */
/**
 * struct consumer_state - a consumer in another process, in shared memory
 * @rings: rings it has read
 * @ready: it is attached
 * @close: it has to close its descriptor
 * @closed: it has done so
 */
struct consumer_state {
	_Atomic __u64 rings;
	_Atomic bool ready;
	_Atomic bool close;
	_Atomic bool closed;
};

FIXTURE(consumer_ends) {
	struct vmm *vmm;
	struct exits exits;
	struct book book;
	struct consumer_state *state;
	pid_t pid;
};

FIXTURE_VARIANT(consumer_ends) {
	__u32 flags;
	bool kill;
};

FIXTURE_VARIANT_ADD(consumer_ends, killed) { .kill = true, };
FIXTURE_VARIANT_ADD(consumer_ends, killed_pio) { .flags = PIO, .kill = true, };
FIXTURE_VARIANT_ADD(consumer_ends, closes) { .kill = false, };

FIXTURE_SETUP(consumer_ends)
{
	SKIP_WITHOUT_PORTS(variant->flags);
	self->state = db_shared_memory(sizeof(*self->state));
	ASSERT_NE(NULL, self->state);
	self->vmm = vmm_create(VCPUS);
	ASSERT_NE(NULL, self->vmm);
	count_exits(self->vmm, &self->exits, variant->flags);
}

FIXTURE_TEARDOWN(consumer_ends)
{
	vmm_destroy(self->vmm);
	if (self->pid > 0)
		kill(self->pid, SIGKILL);
}

__attribute__((noreturn))
static void consumer_main(struct consumer_state *state, int vm_fd, __u32 flags)
{
	int n, i, fd = db_open(0);
	struct doorbell_event events[8];

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (attach_region(fd, vm_fd, flags))
		_exit(1);
	state->ready = true;
	while (!state->close) {
		n = db_read(fd, events, ARRAY_SIZE(events));
		for (i = 0; i < n; i++)
			state->rings += events[i].count;
	}
	close(fd);
	state->closed = true;
	for (;;)
		pause();
}

TEST_F_TIMEOUT(consumer_ends, while_ringing, TEST_SECONDS)
{
	struct consumer_state *state = self->state;
	__u64 seen;
	int fd;

	self->pid = fork();
	ASSERT_LE(0, self->pid);
	if (!self->pid)
		consumer_main(state, self->vmm->vm_fd, variant->flags);
	ASSERT_TRUE(eventually(state->ready));
	fd = db_must_open(_metadata, O_NONBLOCK);
	ASSERT_EQ(-EEXIST, attach_region(fd, self->vmm->vm_fd, variant->flags));

	ASSERT_EQ(0, start_ringing(self->vmm, variant->flags));
	ASSERT_TRUE(eventually(state->rings > 300));
	ASSERT_EQ(0, vmm_exits(self->vmm));

	if (variant->kill) {
		ASSERT_EQ(0, kill(self->pid, SIGKILL));
		ASSERT_EQ(self->pid, waitpid(self->pid, NULL, 0));
	} else {
		state->close = true;
		ASSERT_TRUE(eventually(state->closed));
	}

	/* the VMM gets all writes, until another consumer attaches */
	ASSERT_TRUE(eventually(all_exit(&self->exits, VCPUS)));
	ASSERT_EQ(0, attach_region(fd, self->vmm->vm_fd, variant->flags));
	ASSERT_NE(0, POLLIN & poll_for(fd, POLLIN));
	ASSERT_EQ(0, stop_ringing(self->vmm));
	ASSERT_EQ(0, book_drain(&self->book, fd));
	ASSERT_EQ(info_of(fd).rings, book_total(&self->book));
	/* the first consumer got the rest, but need not have read all of it */
	seen = book_total(&self->book) + vmm_exits(self->vmm);
	ASSERT_LE(state->rings, guest_total(self->vmm->shared) - seen);
	close(fd);
}

/* VM and consumer end in one process, in every order */
FIXTURE(vm_closed) {
	int fd;
};

FIXTURE_VARIANT(vm_closed) {
	bool detach;
};

FIXTURE_VARIANT_ADD(vm_closed, then_detach) { .detach = true, };
FIXTURE_VARIANT_ADD(vm_closed, then_close) { .detach = false, };

FIXTURE_SETUP(vm_closed)
{
	self->fd = db_must_open(_metadata, O_NONBLOCK);
}

FIXTURE_TEARDOWN(vm_closed)
{
	close(self->fd);
}

/* The last descriptor of the VM closes, its process goes on: hang-up. */
TEST_F_TIMEOUT(vm_closed, while_attached, TEST_SECONDS)
{
	bool can_tell = vms_alive(getpid()) == 0;
	struct doorbell_event event;
	struct vmm *vmm;
	int i;

	for (i = 0; i < 4; i++) {
		vmm = vmm_create(2);
		ASSERT_NE(NULL, vmm);
		ASSERT_EQ(0, attach_region(self->fd, vmm->vm_fd, 0));
		ASSERT_EQ(0, guest_write(vmm, 0, 4, MMIO_BASE + 8, i));
		/* close the VM's descriptor first, or last */
		if (i % 2)
			vmm_close_vm(vmm);
		vmm_destroy(vmm);

		ASSERT_NE(0, POLLHUP & poll_for(self->fd, 0));
		ASSERT_EQ(POLLIN | POLLHUP, poll_now(self->fd));
		ASSERT_EQ(DOORBELL_HANGUP, info_of(self->fd).state);
		check_event(_metadata, self->fd, 1, i);
		ASSERT_EQ(0, db_read(self->fd, &event, 1));
		ASSERT_EQ(-EPIPE, db_ring(self->fd, MMIO_BASE, 1));
		/* the consumer keeps nothing of the VM */
		if (can_tell)
			ASSERT_TRUE(eventually(!vms_alive(getpid())));

		if (variant->detach) {
			ASSERT_EQ(0, db_detach(self->fd));
			ASSERT_EQ(0, poll_now(self->fd));
		} else {
			close(self->fd);
			self->fd = db_must_open(_metadata, O_NONBLOCK);
		}
	}
	if (!can_tell)
		TH_LOG("no debugfs: cannot tell when KVM frees the VM");
}

static void *detach_main(void *arg)
{
	int fd = *(int *)arg;

	db_detach(fd);
	return NULL;
}

/* One thread closes vCPUs and VM, another one ends the consumer. */
TEST_F_TIMEOUT(vm_closed, in_a_race, TEST_SECONDS)
{
	bool can_tell = vms_alive(getpid()) == 0;
	pthread_t thread;
	struct vmm *vmm;
	int i;

	for (i = 0; i < 6; i++) {
		vmm = vmm_create(2);
		ASSERT_NE(NULL, vmm);
		ASSERT_EQ(0, attach_region(self->fd, vmm->vm_fd, 0));
		ASSERT_EQ(0, start_ringing(vmm, 0));
		ASSERT_NE(0, POLLIN & poll_for(self->fd, POLLIN));
		if (variant->detach) {
			ASSERT_EQ(0, pthread_create(&thread, NULL, detach_main,
						    &self->fd));
			vmm_destroy(vmm);
			pthread_join(thread, NULL);
			ASSERT_EQ(DOORBELL_DETACHED, info_of(self->fd).state);
		} else {
			vmm_destroy(vmm);
			close(self->fd);
			self->fd = db_must_open(_metadata, O_NONBLOCK);
		}
		if (can_tell)
			ASSERT_TRUE(eventually(!vms_alive(getpid())));
	}
}

/* write() and the end of the VM */

#define WRITERS		2
/* Fewer rounds on a slow machine, but never less than the minimum */
#define ENDS		300
#define ENDS_MIN	20
#define ENDS_MS		6000

/**
 * struct end - threads that ring a region, or read it, until its VM ends
 * @fd: the consumer
 * @rings: write()s that succeeded
 * @counted: rings that were read
 * @last: what the last read() returned
 */
struct end {
	int fd;
	_Atomic __u64 rings;
	__u64 counted;
	int last;
};

static void *read_to_the_end(void *arg)
{
	struct doorbell_event events[REGION_QUEUES];
	struct end *end = arg;
	int i, n;

	while ((n = db_read(end->fd, events, REGION_QUEUES)) > 0)
		for (i = 0; i < n; i++)
			end->counted += events[i].count;
	end->last = n;
	return NULL;
}

static void *write_to_the_end(void *arg)
{
	struct end *end = arg;
	int ret;

	while (!(ret = db_ring(end->fd, MMIO_BASE, 1)))
		end->rings++;
	return (void *)(long)ret;
}

/* No write() rings after read() has returned 0, the end of file. */
TEST(no_write_after_the_end)
{
	__u64 rings = 0, until = db_until(ENDS_MS);
	pthread_t reader, writers[WRITERS];
	struct doorbell_event event;
	struct vmm *vmm;
	__u32 seed = 3;
	int i, round;
	void *ret;

	for (round = 0; db_round(round, ENDS_MIN, ENDS, until); round++) {
		struct end end = { .fd = db_must_open(_metadata, 0) };

		vmm = vmm_create(1);
		ASSERT_NE(NULL, vmm);
		ASSERT_EQ(0, attach_region(end.fd, vmm->vm_fd, 0));
		ASSERT_EQ(0, pthread_create(&reader, NULL, read_to_the_end,
					    &end));
		for (i = 0; i < WRITERS; i++)
			ASSERT_EQ(0, pthread_create(&writers[i], NULL,
						    write_to_the_end, &end));
		while (end.rings < db_random(&seed) % 100)
			db_yield();
		vmm_destroy(vmm);
		ASSERT_EQ(0, pthread_join(reader, NULL));
		for (i = 0; i < WRITERS; i++) {
			ASSERT_EQ(0, pthread_join(writers[i], &ret));
			ASSERT_EQ(-EPIPE, (long)ret);
		}
		ASSERT_EQ(0, end.last);
		ASSERT_EQ(end.rings, end.counted);
		ASSERT_EQ(0, db_read(end.fd, &event, 1));
		rings += end.rings;
		close(end.fd);
	}
	TH_LOG("%d ends, %llu rings", round, rings);
}

/* VMM and consumer are killed in both orders, and nothing is left */
FIXTURE(both_end) {
	struct consumer_state *state;
};

FIXTURE_SETUP(both_end)
{
	self->state = db_shared_memory(sizeof(*self->state));
	ASSERT_NE(NULL, self->state);
}

FIXTURE_TEARDOWN(both_end)
{
}

TEST_F_TIMEOUT(both_end, killed, TEST_SECONDS)
{
	struct consumer_state *state = self->state;
	int i, refs = db_module_refs();
	struct peer peer;
	pid_t pid;

	for (i = 0; i < 4; i++) {
		memset(state, 0, sizeof(*state));
		peer_start(_metadata, &peer, 0);
		pid = fork();
		ASSERT_LE(0, pid);
		if (!pid)
			consumer_main(state, peer.vm_fd, 0);
		ASSERT_TRUE(eventually(state->ready));
		ASSERT_EQ(0, peer_do(&peer, PEER_RING));
		ASSERT_TRUE(eventually(state->rings));
		kill(i % 2 ? peer.pid : pid, SIGKILL);
		kill(i % 2 ? pid : peer.pid, SIGKILL);
		ASSERT_EQ(pid, waitpid(pid, NULL, 0));
		peer_end(&peer);
		ASSERT_EQ(refs, db_module_refs());
	}
}

TEST_HARNESS_MAIN
