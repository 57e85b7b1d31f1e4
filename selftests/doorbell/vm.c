// SPDX-License-Identifier: GPL-2.0
/*
 * Virtual machines as wholes: who owns a region, attaching and detaching while
 * the guest rings, and all the ways in which VM, VMM and consumer can end.
 */
#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/time.h>

#include "vmutil.h"

#define VCPUS		3

/* A VMM in a process of its own */

/**
 * struct peer - the other process
 * @pid: its id
 * @sock: for commands, each of which it answers
 * @vm_fd: its VM
 * @shared: the guest's counters
 * @exits: what reached the VMM
 */
struct peer {
	pid_t pid;
	int sock;
	int vm_fd;
	struct guest_shared *shared;
	struct exits *exits;
};

/* Where a VMM ends up that replaces itself: see PEER_EXEC. */
__attribute__((constructor)) static void pause_if_told(void)
{
	if (!getenv("DOORBELL_TEST_PAUSE"))
		return;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (;;)
		pause();
}

enum peer_command {
	PEER_RING = 1,
	PEER_STOP,
	PEER_EXIT,
	PEER_EXEC,
};

__attribute__((noreturn))
static void peer_main(int sock, int mem_fd, struct exits *exits, __u32 flags)
{
	char *const argv[] = { (char *)"vmm", NULL };
	char *const env[] = { (char *)"DOORBELL_TEST_PAUSE=1", NULL };
	struct vmm *vmm;
	char command;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	/* whoever holds a consumer open keeps it from ending */
	mem_fd = fcntl(mem_fd, F_DUPFD, 100);
	sock = fcntl(sock, F_DUPFD, 101);
	close_range(3, 99, 0);
	if (mem_fd != 100 || sock != 101)
		_exit(1);
	close_range(102, ~0U, 0);

	vmm = vmm_create_on(VCPUS, mem_fd);
	if (!vmm)
		_exit(1);
	count_exits(vmm, exits, flags);
	if (db_send_fd(sock, vmm->vm_fd))
		_exit(1);
	while (read(sock, &command, 1) == 1) {
		switch (command) {
		case PEER_RING:
			if (start_ringing(vmm, flags))
				_exit(1);
			break;
		case PEER_STOP:
			if (stop_ringing(vmm))
				_exit(1);
			break;
		case PEER_EXIT:
			_exit(0);
		case PEER_EXEC:
			execve("/proc/self/exe", argv, env);
			_exit(1);
		}
		if (write(sock, &command, 1) != 1)
			_exit(1);
	}
	_exit(0);
}

static void peer_start(struct __test_metadata *_metadata, struct peer *peer,
		       __u32 flags)
{
	int socks[2], mem_fd = vmm_mem_create();
	void *mem;

	ASSERT_LE(0, mem_fd);
	mem = vmm_mem_map(mem_fd);
	ASSERT_NE(NULL, mem);
	peer->shared = vmm_mem_shared(mem);
	peer->exits = db_shared_memory(sizeof(*peer->exits));
	ASSERT_NE(NULL, peer->exits);
	ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, socks));
	fflush(stdout);
	fflush(stderr);
	peer->pid = fork();
	ASSERT_LE(0, peer->pid);
	if (!peer->pid)
		peer_main(socks[1], mem_fd, peer->exits, flags);
	close(socks[1]);
	close(mem_fd);
	peer->sock = socks[0];
	peer->vm_fd = db_receive_fd(peer->sock);
	ASSERT_LE(0, peer->vm_fd);
}

/* Without an answer: the commands that end it have none. */
static int peer_send(struct peer *peer, char command)
{
	return write(peer->sock, &command, 1) == 1 ? 0 : -1;
}

static int peer_do(struct peer *peer, char command)
{
	char answer = 0;

	if (peer_send(peer, command) || read(peer->sock, &answer, 1) != 1)
		return -1;
	return answer == command ? 0 : -1;
}

/* Kill it if it has not ended yet. */
static void peer_end(struct peer *peer)
{
	kill(peer->pid, SIGKILL);
	waitpid(peer->pid, NULL, 0);
	close(peer->sock);
	if (peer->vm_fd >= 0)
		close(peer->vm_fd);
	munmap(peer->exits, sizeof(*peer->exits));
	munmap((char *)peer->shared - GUEST_SHARED_GPA, GUEST_MEM_SIZE);
}

/* Ownership (promise 2) */
FIXTURE(owner) {
	struct vmm *vmm;
	int fd[2];
};

FIXTURE_VARIANT(owner) {
	__u32 flags;
};

FIXTURE_VARIANT_ADD(owner, mmio) { .flags = 0, };
FIXTURE_VARIANT_ADD(owner, pio) { .flags = PIO, };

FIXTURE_SETUP(owner)
{
	int i;

	for (i = 0; i < 2; i++) {
		self->fd[i] = db_open(O_NONBLOCK);
		ASSERT_LE(0, self->fd[i]);
	}
	self->vmm = vmm_create(1);
	ASSERT_NE(NULL, self->vmm);
}

FIXTURE_TEARDOWN(owner)
{
	close(self->fd[0]);
	close(self->fd[1]);
	vmm_destroy(self->vmm);
}

/* Two consumers, two regions side by side: each has its own rings. */
TEST_F_TIMEOUT(owner, two_regions_in_one_vm, TEST_SECONDS)
{
	__u64 base = base_of(variant->flags);
	int vm = self->vmm->vm_fd;
	int i;

	for (i = 1; i >= 0; i--)
		ASSERT_EQ(0, db_attach_as(self->fd[i], vm,
					  base + i * REGION_LEN, REGION_LEN,
					  REGION_STRIDE, variant->flags));
	ASSERT_EQ(0, guest_write(self->vmm, variant->flags, 4,
				 base + REGION_LEN - 8, 1));
	ASSERT_EQ(0, guest_write(self->vmm, variant->flags, 4,
				 base + REGION_LEN, 2));
	check_event(_metadata, self->fd[0], REGION_QUEUES - 1, 1);
	check_event(_metadata, self->fd[1], 0, 2);
	ASSERT_EQ(POLLOUT, poll_now(self->fd[0]));
	ASSERT_EQ(POLLOUT, poll_now(self->fd[1]));
	ASSERT_EQ(0, vmm_exits(self->vmm));

	ASSERT_EQ(0, db_detach(self->fd[0]));
	ASSERT_EQ(0, guest_write(self->vmm, variant->flags, 4,
				 base + REGION_LEN - 8, 3));
	ASSERT_EQ(1, vmm_exits(self->vmm));
	ASSERT_EQ(0, guest_write(self->vmm, variant->flags, 4,
				 base + REGION_LEN, 4));
	check_event(_metadata, self->fd[1], 0, 4);
	ASSERT_EQ(0, poll_now(self->fd[0]));
	ASSERT_EQ(1, vmm_exits(self->vmm));
}

/* The same addresses in another VM are another region. */
TEST_F_TIMEOUT(owner, same_region_in_two_vms, TEST_SECONDS)
{
	__u64 base = base_of(variant->flags);
	struct vmm *vmm[2] = { self->vmm, vmm_create(1) };
	int i;

	ASSERT_NE(NULL, vmm[1]);
	for (i = 0; i < 2; i++)
		ASSERT_EQ(0, attach_region(self->fd[i], vmm[i]->vm_fd,
					   variant->flags));
	for (i = 0; i < 2; i++) {
		ASSERT_EQ(0, guest_write(vmm[i], variant->flags, 4,
					 base + 8 * i, 7 + i));
		check_event(_metadata, self->fd[i], i, 7 + i);
		ASSERT_EQ(POLLOUT, poll_now(self->fd[!i]));
	}
	ASSERT_EQ(0, db_detach(self->fd[0]));
	ASSERT_EQ(0, guest_write(vmm[1], variant->flags, 4, base, 9));
	check_event(_metadata, self->fd[1], 0, 9);
	ASSERT_EQ(0, vmm_exits(vmm[1]));
	vmm_destroy(vmm[1]);
}

/* EEXIST however they intersect, and the owner does not notice. */
TEST_F_TIMEOUT(owner, intersecting_regions, TEST_SECONDS)
{
	static const struct {
		int offset, len, stride, ret;
	} tries[] = {
		{ 0, REGION_LEN, 8, -EEXIST },		/* the same */
		{ 0, REGION_LEN, 2, -EEXIST },
		{ 0, 8, 8, -EEXIST },		/* inside */
		{ 64, 64, 4, -EEXIST },
		{ REGION_LEN - 2, 2, 2, -EEXIST },
		{ -64, 128 + REGION_LEN, 8, -EEXIST },	/* around */
		{ -64, 64 + REGION_LEN, 8, -EEXIST },
		{ 0, REGION_LEN + 8, 8, -EEXIST },
		{ -8, 16, 8, -EEXIST },		/* across an edge */
		{ -2, 4, 2, -EEXIST },
		{ REGION_LEN - 8, 16, 8, -EEXIST },
		{ REGION_LEN - 2, 4, 2, -EEXIST },
		{ -8, 8, 8, 0 },		/* adjacent */
		{ REGION_LEN, 8, 8, 0 },
		{ -2, 2, 2, 0 },
		{ REGION_LEN, 2, 2, 0 },
	};
	__u64 base = base_of(variant->flags);
	int ret, vm = self->vmm->vm_fd;
	struct db_snapshot before, after;
	unsigned int i;

	ASSERT_EQ(0, attach_region(self->fd[0], vm, variant->flags));
	ASSERT_EQ(0, db_snapshot(self->fd[1], &before));
	for (i = 0; i < ARRAY_SIZE(tries); i++) {
		ret = db_attach_as(self->fd[1], vm, base + tries[i].offset,
				   tries[i].len, tries[i].stride,
				   variant->flags);
		ASSERT_EQ(tries[i].ret, ret) {
			TH_LOG("[%d, +%d)", tries[i].offset, tries[i].len);
		}
		ASSERT_EQ(0, guest_write(self->vmm, variant->flags, 4,
					 base + REGION_LEN - 8, i));
		check_event(_metadata, self->fd[0], REGION_QUEUES - 1, i);
		ASSERT_EQ(0,
			  guest_write(self->vmm, variant->flags, 4, base, i));
		check_event(_metadata, self->fd[0], 0, i);
		if (tries[i].ret) {
			ASSERT_EQ(0, db_snapshot(self->fd[1], &after));
			ASSERT_TRUE(db_same(&before, &after));
		} else {
			ASSERT_EQ(POLLOUT, poll_now(self->fd[1]));
			ASSERT_EQ(0, db_detach(self->fd[1]));
			ASSERT_EQ(0, db_snapshot(self->fd[1], &before));
		}
	}
	ASSERT_EQ(-EBUSY, db_attach_as(self->fd[0], vm, base + REGION_LEN,
				       REGION_LEN, REGION_STRIDE,
				       variant->flags));
	ASSERT_EQ(0, vmm_exits(self->vmm));
	/* the other bus has addresses of its own */
	ASSERT_EQ(0, db_attach_as(self->fd[1], vm, base & 0xffff, REGION_LEN,
				  REGION_STRIDE, variant->flags ^ PIO));
}

/* Unlike the seed's trap, a region can be detached, and attached again. */
TEST_F_TIMEOUT(owner, attach_again, TEST_SECONDS)
{
	__u64 base = base_of(variant->flags);
	int vm = self->vmm->vm_fd, fd = self->fd[0];
	struct doorbell_info info;
	unsigned int i, stride;

	for (i = 0; i < 12; i++) {
		stride = 2U << i / 2 % 4;	/* the same twice, then another */
		ASSERT_EQ(0, db_attach_as(fd, vm, base, REGION_LEN, stride,
					  variant->flags));
		/* what was not read of the one before is dropped */
		ASSERT_EQ(POLLOUT, poll_now(fd));
		ASSERT_EQ(0, guest_write(self->vmm, variant->flags, 4,
					 base + 96, i));
		check_event(_metadata, fd, 96 / stride, i);
		info = info_of(fd);
		ASSERT_EQ(1, info.rings);
		ASSERT_EQ(stride, info.stride);
		ASSERT_EQ(REGION_LEN / stride, info.queues);
		ASSERT_EQ(0, guest_write(self->vmm, variant->flags, 4,
					 base + 32, i));
		ASSERT_EQ(i, vmm_exits(self->vmm));
		ASSERT_EQ(0, db_detach(fd));
		ASSERT_EQ(0, guest_write(self->vmm, variant->flags, 4,
					 base + 96, i));
		ASSERT_EQ(i + 1, vmm_exits(self->vmm));
		/* rung before the end, so still there */
		if (i % 2)
			check_event(_metadata, fd, 32 / stride, i);
		else
			ASSERT_EQ(POLLIN, poll_now(fd));
	}
	/* and by another consumer */
	ASSERT_EQ(0, attach_region(self->fd[1], vm, variant->flags));
	ASSERT_EQ(0, guest_write(self->vmm, variant->flags, 4, base, 5));
	check_event(_metadata, self->fd[1], 0, 5);
}

/* Attaching and detaching while the guest rings (promises 3 and 7) */
FIXTURE(ringing) {
	struct vmm *vmm;
	struct exits exits;
	struct book book;
	int fd;
};

FIXTURE_VARIANT(ringing) {
	__u32 flags;
};

FIXTURE_VARIANT_ADD(ringing, mmio) { .flags = 0, };
FIXTURE_VARIANT_ADD(ringing, pio) { .flags = PIO, };

FIXTURE_SETUP(ringing)
{
	self->fd = db_open(O_NONBLOCK);
	ASSERT_LE(0, self->fd);
	self->vmm = vmm_create(VCPUS);
	ASSERT_NE(NULL, self->vmm);
	count_exits(self->vmm, &self->exits, variant->flags);
}

FIXTURE_TEARDOWN(ringing)
{
	close(self->fd);
	vmm_destroy(self->vmm);
}

/* After DETACH no ring comes any more, and none is lost in between. */
TEST_F_TIMEOUT(ringing, detach, TEST_SECONDS)
{
	struct doorbell_info detached, end;

	ASSERT_EQ(0, attach_region(self->fd, self->vmm->vm_fd, variant->flags));
	ASSERT_EQ(0, start_ringing(self->vmm, variant->flags));
	ASSERT_TRUE(eventually(info_of(self->fd).rings > 1000));
	ASSERT_EQ(0, vmm_exits(self->vmm));
	ASSERT_EQ(0, book_drain(&self->book, self->fd));

	ASSERT_EQ(0, db_detach(self->fd));
	detached = info_of(self->fd);
	ASSERT_TRUE(eventually(all_exit(&self->exits, VCPUS)));
	ASSERT_EQ(0, stop_ringing(self->vmm));
	end = info_of(self->fd);
	ASSERT_EQ(DOORBELL_DETACHED, end.state);
	ASSERT_EQ(detached.rings, end.rings);
	ASSERT_EQ(detached.pending, end.pending);

	ASSERT_EQ(0, book_drain(&self->book, self->fd));
	ASSERT_EQ(end.rings, book_total(&self->book));
	check_books(_metadata, self->vmm->shared, &self->book, &self->exits);
}

/* The whole region and half of it in turns, under a guest that never pauses. */
TEST_F_TIMEOUT(ringing, attach_and_detach, TEST_SECONDS)
{
	__u64 before, rings = 0, end = db_now_ms() + 5000;
	unsigned int i;

	ASSERT_EQ(0, start_ringing(self->vmm, variant->flags));
	for (i = 0; db_round(i, 40, 120, end); i++) {
		ASSERT_EQ(0, db_attach_as(self->fd, self->vmm->vm_fd,
					  base_of(variant->flags),
					  i % 2 ? REGION_LEN : REGION_LEN / 2,
					  REGION_STRIDE, variant->flags));
		if (i % 4 == 1) {
			ASSERT_NE(0, POLLIN & poll_for(self->fd, POLLIN));
			ASSERT_EQ(0, book_drain(&self->book, self->fd));
		}
		before = vmm_exits(self->vmm);
		ASSERT_EQ(0, db_detach(self->fd));
		ASSERT_EQ(0, book_drain(&self->book, self->fd));
		rings += info_of(self->fd).rings;
		if (i % 16 == 0)
			ASSERT_TRUE(eventually(vmm_exits(self->vmm) >
					       before + 1));
	}
	ASSERT_EQ(0, stop_ringing(self->vmm));
	ASSERT_EQ(rings, book_total(&self->book));
	ASSERT_LT(100, rings);
	check_books(_metadata, self->vmm->shared, &self->book, &self->exits);
}

/* VM and consumer in different processes */
FIXTURE(process) {
	struct peer peer;
	struct book book;
	int fd;
};

FIXTURE_SETUP(process)
{
	peer_start(_metadata, &self->peer, 0);
	self->fd = db_open(O_NONBLOCK);
	ASSERT_LE(0, self->fd);
}

FIXTURE_TEARDOWN(process)
{
	close(self->fd);
	peer_end(&self->peer);
}

/* Whoever has the descriptors may attach, and need not keep the VM's. */
TEST_F_TIMEOUT(process, vm_fd_by_socket, TEST_SECONDS)
{
	struct peer *peer = &self->peer;

	ASSERT_EQ(0, attach_region(self->fd, peer->vm_fd, 0));
	ASSERT_EQ(0, close(peer->vm_fd));
	peer->vm_fd = -1;
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
	ASSERT_TRUE(eventually(all_exit(peer->exits, VCPUS)));
	ASSERT_EQ(0, peer_do(peer, PEER_STOP));
	ASSERT_EQ(0, poll_now(self->fd));
	check_books(_metadata, peer->shared, &self->book, peer->exits);
}

/* A VM whose process is gone cannot be attached, and nothing changes. */
TEST_F_TIMEOUT(process, attach_to_the_dead, TEST_SECONDS)
{
	struct db_snapshot before, after;

	/* something that was not read yet must survive */
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
	int tid;
	bool done;
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
	__atomic_store_n(&w->tid, db_gettid(), __ATOMIC_RELEASE);
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
	__atomic_store_n(&w->done, true, __ATOMIC_RELEASE);
	return NULL;
}

/* Whoever waits learns of the end (promise 6). */
TEST_F_TIMEOUT(process, waiters_see_the_end, TEST_SECONDS)
{
	static const long calls[] = { SYS_read, SYS_poll, SYS_epoll_wait };
	static const long results[] = { 0, POLLHUP, EPOLLHUP };
	struct waiter w[NR_WAITERS] = {};
	pthread_t thread;
	int i;

	ASSERT_EQ(0, fcntl(self->fd, F_SETFL, 0));
	ASSERT_EQ(0, attach_region(self->fd, self->peer.vm_fd, 0));
	for (i = 0; i < NR_WAITERS; i++) {
		w[i].kind = i;
		w[i].fd = self->fd;
		ASSERT_EQ(0, pthread_create(&thread, NULL, waiter_main, &w[i]));
		ASSERT_TRUE(eventually(__atomic_load_n(&w[i].tid,
						       __ATOMIC_ACQUIRE)));
		ASSERT_EQ(0, db_wait_sleeping(getpid(), w[i].tid, calls[i]));
	}
	for (i = 0; i < NR_WAITERS; i++)
		ASSERT_FALSE(w[i].done);
	kill(self->peer.pid, SIGKILL);
	for (i = 0; i < NR_WAITERS; i++) {
		ASSERT_TRUE(eventually(__atomic_load_n(&w[i].done,
						       __ATOMIC_ACQUIRE))) {
			TH_LOG("waiter %d still waits", i);
		}
		ASSERT_EQ(results[i], w[i].result);
	}
}

/* Attach and detach in a race with the end of the VM's process. */
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
			self->fd = db_open(O_NONBLOCK);
			ASSERT_LE(0, self->fd);
		}
	}
	ASSERT_LE(6, attached);
}

/* The module stays while someone has it open, whatever its state (promise 7). */
TEST_F_TIMEOUT(process, no_unload_while_open, TEST_SECONDS)
{
	int refs = db_module_refs(), other;

	if (refs < 0)
		SKIP(return, "no /sys/module/doorbell/refcnt: not a module");
	ASSERT_EQ(0, attach_region(self->fd, self->peer.vm_fd, 0));
	ASSERT_EQ(-EWOULDBLOCK, db_module_unload());

	kill(self->peer.pid, SIGKILL);
	ASSERT_NE(0, POLLHUP & poll_for(self->fd, 0));
	ASSERT_EQ(-EWOULDBLOCK, db_module_unload());

	other = db_open(0);
	ASSERT_LE(0, other);
	ASSERT_EQ(refs + 1, db_module_refs());
	close(other);
	ASSERT_EQ(refs, db_module_refs());
	ASSERT_EQ(0, db_detach(self->fd));
	ASSERT_EQ(-EWOULDBLOCK, db_module_unload());
	close(self->fd);
	ASSERT_EQ(refs - 1, db_module_refs());
	self->fd = -1;
}

/* The VMM's process ends while its guest rings (promises 6 and 7) */
FIXTURE(vmm_ends) {
	struct peer peer;
	struct book book;
	int fd, other;
};

FIXTURE_VARIANT(vmm_ends) {
	__u32 flags;
	char command;	/* 0: SIGKILL */
};

FIXTURE_VARIANT_ADD(vmm_ends, killed) { .command = 0, };
FIXTURE_VARIANT_ADD(vmm_ends, killed_pio) { .flags = PIO, };
FIXTURE_VARIANT_ADD(vmm_ends, exits) { .command = PEER_EXIT, };
FIXTURE_VARIANT_ADD(vmm_ends, execs) { .command = PEER_EXEC, };

FIXTURE_SETUP(vmm_ends)
{
	peer_start(_metadata, &self->peer, variant->flags);
	self->fd = db_open(0);
	ASSERT_LE(0, self->fd);
	self->other = db_open(0);
	ASSERT_LE(0, self->other);
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

	/* no vCPU is left: these do not change any more */
	started = guest_total(peer->shared);
	finished = guest_finished(peer->shared);
	info = info_of(self->fd);
	ASSERT_EQ(DOORBELL_HANGUP, info.state);
	ASSERT_EQ(-EPIPE, db_ring(self->fd, base, 0));
	ASSERT_EQ(-EBUSY, attach_region(self->fd, -1, 0));

	/* all that was rung, then the end, as often as one asks */
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

	/* then it waits as any consumer, and can serve another VM */
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

/* The consumer ends while the guest rings (promise 7) */
struct consumer_state {
	__u64 rings;
	bool ready;
	bool closed;
	bool close;
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
	__atomic_store_n(&state->ready, true, __ATOMIC_RELEASE);
	while (!__atomic_load_n(&state->close, __ATOMIC_ACQUIRE)) {
		n = db_read(fd, events, ARRAY_SIZE(events));
		for (i = 0; i < n; i++)
			__atomic_fetch_add(&state->rings, events[i].count,
					   __ATOMIC_RELEASE);
	}
	close(fd);
	__atomic_store_n(&state->closed, true, __ATOMIC_RELEASE);
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
	ASSERT_TRUE(eventually(__atomic_load_n(&state->ready,
					       __ATOMIC_ACQUIRE)));
	fd = db_open(O_NONBLOCK);
	ASSERT_LE(0, fd);
	ASSERT_EQ(-EEXIST, attach_region(fd, self->vmm->vm_fd, variant->flags));

	ASSERT_EQ(0, start_ringing(self->vmm, variant->flags));
	ASSERT_TRUE(eventually(__atomic_load_n(&state->rings,
					       __ATOMIC_ACQUIRE) > 300));
	ASSERT_EQ(0, vmm_exits(self->vmm));

	if (variant->kill) {
		ASSERT_EQ(0, kill(self->pid, SIGKILL));
		ASSERT_EQ(self->pid, waitpid(self->pid, NULL, 0));
	} else {
		__atomic_store_n(&state->close, true, __ATOMIC_RELEASE);
		ASSERT_TRUE(eventually(__atomic_load_n(&state->closed,
						       __ATOMIC_ACQUIRE)));
	}

	/* nobody's: all vCPUs reach the VMM; then somebody else's */
	ASSERT_TRUE(eventually(all_exit(&self->exits, VCPUS)));
	ASSERT_EQ(0, attach_region(fd, self->vmm->vm_fd, variant->flags));
	ASSERT_NE(0, POLLIN & poll_for(fd, POLLIN));
	ASSERT_EQ(0, stop_ringing(self->vmm));
	ASSERT_EQ(0, book_drain(&self->book, fd));
	ASSERT_EQ(info_of(fd).rings, book_total(&self->book));
	/* the rest went to the first consumer, which read this many of them */
	seen = book_total(&self->book) + vmm_exits(self->vmm);
	ASSERT_LE(state->rings, guest_total(self->vmm->shared) - seen);
	close(fd);
}

/* VM and consumer of this process, ending in every order (promise 7) */
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
	self->fd = db_open(O_NONBLOCK);
	ASSERT_LE(0, self->fd);
}

FIXTURE_TEARDOWN(vm_closed)
{
	close(self->fd);
}

/* All of the VM's descriptors are closed while it is attached. */
TEST_F_TIMEOUT(vm_closed, while_attached, TEST_SECONDS)
{
	bool can_tell = vms_alive(getpid()) == 0;
	struct vmm *vmm;
	int i;

	for (i = 0; i < 4; i++) {
		vmm = vmm_create(2);
		ASSERT_NE(NULL, vmm);
		ASSERT_EQ(0, attach_region(self->fd, vmm->vm_fd, 0));
		ASSERT_EQ(0, guest_write(vmm, 0, 4, MMIO_BASE + 8, i));
		if (i % 2)	/* the VM's descriptor first, or last */
			vmm_close_vm(vmm);
		vmm_destroy(vmm);

		/* its process is there: not the end */
		ASSERT_EQ(POLLIN | POLLOUT, poll_now(self->fd));
		ASSERT_EQ(DOORBELL_ATTACHED, info_of(self->fd).state);
		check_event(_metadata, self->fd, 1, i);
		ASSERT_EQ(0, db_ring(self->fd, MMIO_BASE, 1));
		if (can_tell)
			ASSERT_EQ(1, vms_alive(getpid()));

		if (variant->detach) {
			ASSERT_EQ(0, db_detach(self->fd));
			ASSERT_EQ(POLLIN, poll_now(self->fd));
		} else {
			close(self->fd);
			self->fd = db_open(O_NONBLOCK);
			ASSERT_LE(0, self->fd);
		}
		/* and that was the last that held it */
		if (can_tell)
			ASSERT_TRUE(eventually(!vms_alive(getpid())));
	}
	if (!can_tell)
		TH_LOG("no debugfs: cannot tell when KVM frees the VM");
}

/* vCPUs and VM are closed in one thread while the consumer goes in another. */
static void *detach_main(void *arg)
{
	int fd = *(int *)arg;

	db_detach(fd);
	return NULL;
}

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
			self->fd = db_open(O_NONBLOCK);
			ASSERT_LE(0, self->fd);
		}
		if (can_tell)
			ASSERT_TRUE(eventually(!vms_alive(getpid())));
	}
}

/* Attach is not disturbed by signals: a handler runs, and the call goes on. */
static volatile sig_atomic_t in_attach, hits, again;
static unsigned int delay_us;

static void arm(void)
{
	struct itimerval timer = { .it_value.tv_usec = delay_us };

	setitimer(ITIMER_REAL, &timer, NULL);
}

static void on_alarm(int sig)
{
	(void)sig;
	hits += in_attach;
	if (again) {
		again--;
		arm();
	}
}

FIXTURE(signals) {
	struct vmm *vmm;
	int fd;
};

FIXTURE_VARIANT(signals) {
	int flags;
};

FIXTURE_VARIANT_ADD(signals, restart) { .flags = SA_RESTART, };
FIXTURE_VARIANT_ADD(signals, no_restart) { .flags = 0, };

FIXTURE_SETUP(signals)
{
	struct sigaction sa = { .sa_handler = on_alarm, .sa_flags = variant->flags };

	self->fd = db_open(O_NONBLOCK);
	ASSERT_LE(0, self->fd);
	self->vmm = vmm_create(1);
	ASSERT_NE(NULL, self->vmm);
	ASSERT_EQ(0, sigaction(SIGALRM, &sa, NULL));
}

FIXTURE_TEARDOWN(signals)
{
	close(self->fd);
	vmm_destroy(self->vmm);
}

TEST_F_TIMEOUT(signals, during_attach, TEST_SECONDS)
{
	struct timespec start, end;
	unsigned int i, us;
	__u32 random = 3;
	int ret;

	/* how long it takes without, to have the signals come in the middle */
	clock_gettime(CLOCK_MONOTONIC, &start);
	ASSERT_EQ(0, attach_region(self->fd, self->vmm->vm_fd, 0));
	clock_gettime(CLOCK_MONOTONIC, &end);
	us = (end.tv_sec - start.tv_sec) * 1000000 +
	     (end.tv_nsec - start.tv_nsec) / 1000;
	ASSERT_EQ(0, db_detach(self->fd));

	for (i = 0; i < 1000 && hits < 100; i++) {
		delay_us = 1 + db_random(&random) % (us + 1);
		again = 3;
		arm();
		in_attach = 1;
		ret = attach_region(self->fd, self->vmm->vm_fd, 0);
		in_attach = 0;
		ASSERT_EQ(0, ret);
		ASSERT_EQ(0, guest_write(self->vmm, 0, 4, MMIO_BASE, i));
		check_event(_metadata, self->fd, 0, i);
		arm();
		ASSERT_EQ(0, db_detach(self->fd));
	}
	again = 0;
	ASSERT_LT(20, hits);
	ASSERT_EQ(0, vmm_exits(self->vmm));
}

/* VMM and consumer processes both killed, in both orders: nothing is left. */
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
		ASSERT_TRUE(eventually(__atomic_load_n(&state->ready,
						       __ATOMIC_ACQUIRE)));
		ASSERT_EQ(0, peer_do(&peer, PEER_RING));
		ASSERT_TRUE(eventually(__atomic_load_n(&state->rings,
						       __ATOMIC_ACQUIRE)));
		kill(i % 2 ? peer.pid : pid, SIGKILL);
		kill(i % 2 ? pid : peer.pid, SIGKILL);
		ASSERT_EQ(pid, waitpid(pid, NULL, 0));
		peer_end(&peer);
		ASSERT_EQ(refs, db_module_refs());
	}
}

TEST_HARNESS_MAIN
