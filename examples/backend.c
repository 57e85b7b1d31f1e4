// SPDX-License-Identifier: LGPL-2.1 OR MIT
/*
 * A back end that the VMM does not trust: the VMM attaches, and sends the
 * descriptor of the doorbell over a Unix socket. The back end can reach this
 * region only, neither the VM nor the device.
 *
 * The back end is a child here, from before there was a VM: an open descriptor
 * of the VM in it would keep the VM alive. It may be any process that has a
 * Unix socket.
 */
#include <err.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include <libdoorbell.h>

#include "guest.h"
#include "socket.h"

#define BASE	0xfe000000
#define STRIDE	4096
#define QUEUES	4
#define ROUNDS	5

static int rung(unsigned int queue, const struct doorbell_event *event,
		void *ctx)
{
	unsigned int *rings = ctx;

	if (event->type != DOORBELL_EVENT_QUEUE)
		return 0;
	printf("queue %u: %u rings, last %#llx\n",
	       queue, event->count, event->value);
	*rings += event->count;
	return 0;
}

/* Until the VM is gone */
static int back_end(int sock)
{
	unsigned int rings = 0;
	struct doorbell *db;
	int fd;

	receive_fds(sock, &fd, 1);
	db = doorbell_from_fd(fd, 0);
	if (!db)
		err(1, "not a doorbell");
	errno = -doorbell_complete(db, rung, &rings);
	if (errno)
		err(1, "doorbell_complete");
	doorbell_close(db);
	printf("back end: %u rings\n", rings);
	return rings == ROUNDS * QUEUES ? 0 : 1;
}

/* Keep the consumer: to move or detach the region, and to pass rings on. */
static struct doorbell *attach(int vm_fd)
{
	struct doorbell_attach arg = {
		.vm_fd = vm_fd,
		.base = BASE,
		.len = QUEUES * STRIDE,
		.stride = STRIDE,
	};
	struct doorbell *db = doorbell_open(0);

	if (!db)
		err(1, "/dev/doorbell");
	errno = -doorbell_attach_region(db, &arg);
	if (errno)
		err(1, "DOORBELL_ATTACH");
	return db;
}

int main(void)
{
	int socks[2], fd, status;
	struct guest guest;
	struct doorbell *db;
	unsigned int i, q;
	pid_t child;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, socks))
		err(1, "socketpair");
	child = fork();
	if (child < 0)
		err(1, "fork");
	if (!child) {
		close(socks[0]);
		exit(back_end(socks[1]));
	}
	close(socks[1]);

	guest_create(&guest);
	db = attach(guest.vm_fd);
	fd = doorbell_fd(db);
	send_fds(socks[0], &fd, 1);
	for (i = 1; i <= ROUNDS; i++)
		for (q = 0; q < QUEUES; q++)
			if (guest_write(&guest, BASE + q * STRIDE, i))
				errx(1, "a ring reached the VMM");
	/* the back end gets the hang-up, though the VMM has a descriptor */
	guest_destroy(&guest);
	if (waitpid(child, &status, 0) != child)
		err(1, "waitpid");
	doorbell_close(db);
	printf("VMM: the back end has ended\n");
	return status ? 1 : 0;
}
