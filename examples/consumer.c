// SPDX-License-Identifier: LGPL-2.1 OR MIT
/* A consumer of a VM's doorbells, for a program to call: see README.md. */
#include <err.h>
#include <errno.h>
#include <stdio.h>

#include <libdoorbell.h>

static int rung(unsigned int queue, const struct doorbell_event *event,
		void *ctx)
{
	(void)ctx;
	if (event->type == DOORBELL_EVENT_QUEUE)
		printf("queue %u: %u rings, last %#llx\n",
		       queue, event->count, event->value);
	return 0;
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

	if (!db)
		err(1, "/dev/doorbell");
	errno = -doorbell_attach_region(db, &arg);
	if (!errno)
		errno = -doorbell_complete(db, rung, NULL);
	if (errno)
		err(1, "doorbell");
	doorbell_close(db);
}
