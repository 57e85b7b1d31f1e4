// SPDX-License-Identifier: LGPL-2.1 OR MIT
/*
 * A consumer in a program that waits with io_uring: the ring polls the
 * descriptor, and the library takes the events from mapped memory. main.c calls
 * it.
 *
 * A multishot poll reports each wake-up, but it checks the descriptor only when
 * it is submitted. So the consumer takes events and arms until there are none,
 * and waits then.
 */
#include <err.h>
#include <errno.h>
#include <poll.h>
#include <stdbool.h>
#include <stdio.h>

#include <liburing.h>

#include <libdoorbell.h>

static void submit_poll(struct io_uring *ring, int fd)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(ring);

	if (!sqe)
		errx(1, "the submission queue is full");
	io_uring_prep_poll_multishot(sqe, fd, POLLIN);
	if (io_uring_submit(ring) != 1)
		errx(1, "io_uring_submit");
}

/* Wait for the poll's next completion. *@more: the poll goes on. */
static int wait_poll(struct io_uring *ring, bool *more)
{
	struct io_uring_cqe *cqe;
	int events;

	errno = -io_uring_wait_cqe(ring, &cqe);
	if (errno)
		err(1, "io_uring_wait_cqe");
	events = cqe->res;
	*more = cqe->flags & IORING_CQE_F_MORE;
	io_uring_cqe_seen(ring, cqe);
	if (events < 0) {
		errno = -events;
		err(1, "poll");
	}
	return events;
}

/* Take all events and arm. Returns the number of rings. */
static unsigned long long take(struct doorbell *db)
{
	struct doorbell_event events[64];
	unsigned long long rings = 0;
	int i, n;

	do {
		while ((n = doorbell_take(db, events, 64)) > 0) {
			for (i = 0; i < n; i++) {
				if (events[i].type != DOORBELL_EVENT_QUEUE)
					continue;
				printf("queue %u: %u rings, last %#llx\n",
				       events[i].queue, events[i].count,
				       events[i].value);
				rings += events[i].count;
			}
		}
		if (!n)
			n = doorbell_arm(db);
	} while (n > 0);
	if (n < 0) {
		errno = -n;
		err(1, "cannot take events");
	}
	return rings;
}

/* 64 queues, one page each from 0xfe000000 on, until the VM is gone */
void consume(int vm_fd)
{
	struct doorbell_attach arg = {
		.vm_fd = vm_fd,
		.base = 0xfe000000,
		.len = 64 * 4096,
		.stride = 4096,
	};
	struct doorbell *db = doorbell_open(0);
	unsigned long long rings = 0;
	struct doorbell_info info;
	struct io_uring ring;
	bool polls = false;
	int events;

	if (!db)
		err(1, "/dev/doorbell");
	errno = -doorbell_attach_region(db, &arg);
	if (!errno)
		errno = -io_uring_queue_init(4, &ring, 0);
	if (errno)
		err(1, "cannot attach, or no io_uring");
	do {
		if (!polls)
			submit_poll(&ring, doorbell_fd(db));
		events = wait_poll(&ring, &polls);
		rings += take(db);
	} while (!(events & POLLHUP));
	io_uring_queue_exit(&ring);

	errno = -doorbell_get_info(db, &info);
	if (errno)
		err(1, "DOORBELL_INFO");
	printf("%llu rings in all\n", rings);
	if (rings != info.rings)
		errx(1, "%llu rings, and not those of the guest", rings);
	doorbell_close(db);
}
