// SPDX-License-Identifier: LGPL-2.1 OR MIT
/*
 * A VM for consumer.c, consumer.cc and uring.c: the main thread consumes, the
 * other one is the vCPU. The VM ends when the guest has rung, and so consume()
 * returns.
 */
#include <err.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <unistd.h>

#include "guest.h"

#define BASE	0xfe000000
#define STRIDE	4096

void consume(int vm_fd);

static void ring(struct guest *guest, unsigned int queue, uint32_t value)
{
	if (guest_write(guest, BASE + queue * STRIDE, value))
		errx(1, "a ring of queue %u reached the VMM", queue);
}

static void *vcpu(void *arg)
{
	struct guest *guest = arg;
	unsigned int i;

	/* until consume() has attached the region, writes reach the VMM */
	while (guest_write(guest, BASE, 0))
		usleep(1000);
	for (i = 1; i <= 10; i++)
		ring(guest, 3, i);
	ring(guest, 63, 42);
	guest_destroy(guest);
	return NULL;
}

int main(void)
{
	struct guest guest;
	pthread_t thread;

	guest_create(&guest);
	errno = pthread_create(&thread, NULL, vcpu, &guest);
	if (errno)
		err(1, "pthread_create");
	consume(guest.vm_fd);
	errno = pthread_join(thread, NULL);
	if (errno)
		err(1, "pthread_join");
	printf("the VM has ended\n");
	return 0;
}
