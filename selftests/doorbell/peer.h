/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Peer: a VMM in another process, which takes commands.
 */
#ifndef _DOORBELL_SELFTEST_PEER_H
#define _DOORBELL_SELFTEST_PEER_H

#include <signal.h>
#include <sys/prctl.h>

#include "vmutil.h"

#define PEER_VCPUS	3

/**
 * struct peer - a VMM in another process
 * @pid: its id
 * @sock: carries commands and their answers
 * @vm_fd: its VM, or -1
 * @shared: the guest's counters, which go on if the peer makes its VM anew
 * @exits: accesses that reached the VMM
 */
struct peer {
	pid_t pid;
	int sock;
	int vm_fd;
	struct guest_shared *shared;
	struct exits *exits;
};

/**
 * enum peer_command - what a peer does
 * @PEER_RING: make all vCPUs ring, see start_ringing()
 * @PEER_STOP: stop them
 * @PEER_CLOSE: stop them and close all descriptors of the VM; live on
 * @PEER_ANEW: close the VM as well, and create another one; see peer_anew()
 * @PEER_EXIT: exit; no answer
 * @PEER_EXEC: become a process that only pauses; no answer
 */
enum peer_command {
	PEER_RING = 1,
	PEER_STOP,
	PEER_CLOSE,
	PEER_ANEW,
	PEER_EXIT,
	PEER_EXEC,
};

/* PEER_EXEC replaces the VMM by a process that does nothing but pause. */
__attribute__((constructor)) static void pause_after_exec(void)
{
	if (!getenv("DOORBELL_TEST_PAUSE"))
		return;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (;;)
		pause();
}

/* Create the peer's VM and send its descriptor. NULL on failure */
static inline struct vmm *peer_create_vm(int sock, int mem_fd,
					 struct exits *exits, __u32 flags)
{
	struct vmm *vmm = vmm_create_on(PEER_VCPUS, mem_fd);

	if (!vmm)
		return NULL;
	count_exits(vmm, exits, flags);
	return db_send_fd(sock, vmm->vm_fd) ? NULL : vmm;
}

__attribute__((noreturn))
static inline void peer_main(int sock, int mem_fd, struct exits *exits,
			     __u32 flags)
{
	char *const argv[] = { (char *)"vmm", NULL };
	char *const env[] = { (char *)"DOORBELL_TEST_PAUSE=1", NULL };
	struct vmm *vmm;
	char command;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	/* close inherited consumers: an open descriptor keeps one attached */
	mem_fd = fcntl(mem_fd, F_DUPFD, 100);
	sock = fcntl(sock, F_DUPFD, 101);
	close_range(3, 99, 0);
	if (mem_fd != 100 || sock != 101)
		_exit(1);
	close_range(102, ~0U, 0);

	vmm = peer_create_vm(sock, mem_fd, exits, flags);
	if (!vmm)
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
		case PEER_CLOSE:
			vmm_destroy(vmm);
			vmm = NULL;
			break;
		case PEER_ANEW:
			vmm_destroy(vmm);
			vmm = peer_create_vm(sock, mem_fd, exits, flags);
			if (!vmm)
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

/* For tests: start a peer, whose region is on the bus that @flags name. */
static inline void peer_start(struct __test_metadata *_metadata,
			      struct peer *peer, __u32 flags)
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

/* Send a command that ends the peer, which has no answer. */
static inline int peer_send(struct peer *peer, char command)
{
	int ret = db_result(write(peer->sock, &command, 1));

	return ret < 0 ? ret : 0;
}

static inline int peer_answer(struct peer *peer, char command)
{
	char answer = 0;
	int ret = db_result(read(peer->sock, &answer, 1));

	if (ret < 0)
		return ret;
	return ret == 1 && answer == command ? 0 : -EPROTO;
}

static inline int peer_do(struct peer *peer, char command)
{
	int ret = peer_send(peer, command);

	return ret ?: peer_answer(peer, command);
}

/* As a back end does after attaching: an open descriptor keeps the VM. */
static inline void peer_close_vm(struct peer *peer)
{
	if (peer->vm_fd >= 0)
		close(peer->vm_fd);
	peer->vm_fd = -1;
}

/* Make the peer replace its VM, and receive the new one as @peer->vm_fd. */
static inline int peer_anew(struct peer *peer)
{
	int ret;

	peer_close_vm(peer);
	ret = peer_send(peer, PEER_ANEW);
	if (ret)
		return ret;
	peer->vm_fd = db_receive_fd(peer->sock);
	return peer->vm_fd < 0 ? peer->vm_fd : peer_answer(peer, PEER_ANEW);
}

/* End the peer if it still runs, and free everything. */
static inline void peer_end(struct peer *peer)
{
	kill(peer->pid, SIGKILL);
	waitpid(peer->pid, NULL, 0);
	close(peer->sock);
	peer_close_vm(peer);
	munmap(peer->exits, sizeof(*peer->exits));
	munmap((char *)peer->shared - GUEST_SHARED_GPA, GUEST_MEM_SIZE);
}

#endif /* _DOORBELL_SELFTEST_PEER_H */
