// SPDX-License-Identifier: LGPL-2.1 OR MIT
/* A consumer of a VM's doorbells, for a program to call: see README.md. */
#include <err.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

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
	struct doorbell_attach region = {
		.vm_fd = vm_fd,
		.base = 0xfe000000,
		.len = 64 * 4096,
		.stride = 4096,
	};
	struct doorbell *db = doorbell_open(0);
	int ret = db ? doorbell_attach_region(db, &region) : -errno;

	if (!ret) /* calls rung() for each event */
		ret = doorbell_complete(db, rung, NULL);
	doorbell_close(db);
	if (ret)
		errx(1, "doorbell: %s", strerror(-ret));
}
