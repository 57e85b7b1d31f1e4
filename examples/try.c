// SPDX-License-Identifier: LGPL-2.1 OR MIT
/*
 * A consumer without a guest: the child rings queue 3 ten times, as a VMM does
 * with writes that reached it, and the parent consumes.
 *
 * Detaching does not end doorbell_complete(), since another region may follow.
 * So the child rings an address outside of the region at last, and the callback
 * ends the call.
 */
#include <err.h>
#include <errno.h>
#include <stdio.h>
#include <sys/wait.h>
#include <unistd.h>

#include <libdoorbell.h>

#define BASE	0xfe000000
#define STRIDE	4096
#define QUEUES	64

#define LAST	1

static int rung(unsigned int queue, const struct doorbell_event *event,
		void *ctx)
{
	unsigned int *rings = ctx;

	if (event->type == DOORBELL_EVENT_BAD_ADDRESS)
		return LAST;
	printf("queue %u: %u rings, last %#llx\n",
	       queue, event->count, event->value);
	*rings += event->count;
	return 0;
}

/* The child has the descriptor, but must not use its parent's consumer. */
static int ring(int fd)
{
	struct doorbell_ring ring = { .addr = BASE + 3 * STRIDE };

	while (ring.value++ < 10)
		if (write(fd, &ring, sizeof(ring)) != sizeof(ring))
			return 1;
	ring.addr = 0;
	return write(fd, &ring, sizeof(ring)) != sizeof(ring);
}

int main(void)
{
	struct doorbell_attach arg = {
		.vm_fd = -1,
		.base = BASE,
		.len = QUEUES * STRIDE,
		.stride = STRIDE,
	};
	struct doorbell *db = doorbell_open(0);
	unsigned int rings = 0;
	pid_t child;
	int ret;

	if (!db)
		err(1, "/dev/doorbell");
	errno = -doorbell_attach_region(db, &arg);
	if (errno)
		err(1, "DOORBELL_ATTACH");

	child = fork();
	if (child < 0)
		err(1, "fork");
	if (!child)
		_exit(ring(doorbell_fd(db)));

	ret = doorbell_complete(db, rung, &rings);
	if (ret != LAST) {
		errno = -ret;
		err(1, "doorbell_complete");
	}
	wait(NULL);
	doorbell_close(db);
	printf("%u rings in all\n", rings);
	return rings == 10 ? 0 : 1;
}
