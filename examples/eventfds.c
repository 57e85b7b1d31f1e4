// SPDX-License-Identifier: LGPL-2.1 OR MIT
/*
 * A back end that knows nothing but eventfds, as those of vhost-user: the VMM
 * binds queues 1 and 2 to an eventfd each, and sends these. Queue 0 is not
 * bound: its rings are events, which the VMM takes itself.
 */
#include <err.h>
#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <sys/wait.h>
#include <unistd.h>

#include <libdoorbell.h>

#include "guest.h"
#include "socket.h"

#define BASE	0xfe000000
#define STRIDE	4
#define BOUND	2	/* queues 1 and 2 */
#define RINGS	5	/* of each queue */

/* Until the VMM closes the socket */
static int back_end(int sock)
{
	/* poll() looks at the socket first: no signal comes after its end */
	struct pollfd pfds[1 + BOUND] = { { .fd = sock, .events = POLLIN } };
	unsigned int i, rings = 0;
	int fds[BOUND];
	eventfd_t count;

	receive_fds(sock, fds, BOUND);
	for (i = 0; i < BOUND; i++)
		pfds[1 + i] = (struct pollfd){ fds[i], POLLIN, 0 };
	do {
		if (poll(pfds, 1 + BOUND, -1) < 0)
			err(1, "poll");
		for (i = 1; i <= BOUND; i++) {
			if (!(pfds[i].revents & POLLIN))
				continue;
			if (eventfd_read(pfds[i].fd, &count))
				err(1, "eventfd_read");
			printf("queue %u: %llu rings\n", i,
			       (unsigned long long)count);
			rings += count;
		}
	} while (!(pfds[0].revents & POLLHUP));
	printf("back end: %u rings\n", rings);
	return rings == BOUND * RINGS ? 0 : 1;
}

static void check(int ret, const char *what)
{
	if (ret < 0) {
		errno = -ret;
		err(1, "%s", what);
	}
}

/* The guest rings queue 0, and the queues of the back end. */
static void run_guest(int sock)
{
	struct doorbell_attach arg = {
		.base = BASE,
		.len = (1 + BOUND) * STRIDE,
		.stride = STRIDE,
	};
	struct doorbell *db = doorbell_open(0);
	struct doorbell_event events[2];
	struct doorbell_info info;
	struct guest guest;
	unsigned int i, q;
	int fds[BOUND];

	if (!db)
		err(1, "/dev/doorbell");
	guest_create(&guest);
	arg.vm_fd = guest.vm_fd;
	check(doorbell_attach_region(db, &arg), "DOORBELL_ATTACH");
	for (i = 0; i < BOUND; i++) {
		fds[i] = eventfd(0, EFD_CLOEXEC);
		if (fds[i] < 0)
			err(1, "eventfd");
	}
	check(doorbell_bind_queues(db, 1, BOUND, fds), "DOORBELL_BIND");
	send_fds(sock, fds, BOUND);
	/* the bindings and the back end have them */
	for (i = 0; i < BOUND; i++)
		close(fds[i]);

	for (i = 1; i <= RINGS; i++)
		for (q = 0; q <= BOUND; q++)
			if (guest_write(&guest, BASE + q * STRIDE, i))
				errx(1, "a ring reached the VMM");
	if (doorbell_take(db, events, 2) != 1 || events[0].queue != 0 ||
	    events[0].count != RINGS)
		errx(1, "not the event of queue 0");
	check(doorbell_get_info(db, &info), "DOORBELL_INFO");
	printf("VMM: %u rings of queue 0, %llu for the back end\n",
	       events[0].count, info.bound_rings);
	guest_destroy(&guest);
	doorbell_close(db);
	if (info.bound_rings != BOUND * RINGS)
		errx(1, "not all rings of the back end");
}

int main(void)
{
	int socks[2], status;
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
	run_guest(socks[0]);
	close(socks[0]);
	if (waitpid(child, &status, 0) != child)
		err(1, "waitpid");
	return status ? 1 : 0;
}
