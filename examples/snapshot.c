// SPDX-License-Identifier: LGPL-2.1 OR MIT
/*
 * Snapshot and restore. All events that a consumer can read are the whole state
 * of a region: take them while the vCPUs are stopped. To restore them, ring by
 * write() in a new VM, which may be on another machine. Both modes do the same.
 */
#include <err.h>
#include <errno.h>
#include <stdio.h>

#include <libdoorbell.h>

#include "guest.h"

#define BASE	0xfe000000
#define STRIDE	4
#define QUEUES	8
#define DEPTH	16
#define RINGS	5

/* The region's part of a snapshot */
struct snapshot {
	unsigned int n;
	struct doorbell_event events[DEPTH];
};

static void check(int ret, const char *what)
{
	if (ret < 0) {
		errno = -ret;
		err(1, "%s", what);
	}
}

static struct doorbell *attach(int vm_fd, unsigned int flags)
{
	struct doorbell_attach arg = {
		.vm_fd = vm_fd,
		.base = BASE,
		.len = QUEUES * STRIDE,
		.stride = STRIDE,
		.flags = flags,
		.depth = flags & DOORBELL_ATTACH_ORDERED ? DEPTH : 0,
	};
	struct doorbell *db = doorbell_open(0);

	if (!db)
		err(1, "/dev/doorbell");
	check(doorbell_attach_region(db, &arg), "DOORBELL_ATTACH");
	return db;
}

/* The vCPUs are stopped. doorbell_take() is 0 where read() fails with EAGAIN */
static void save(struct doorbell *db, struct snapshot *snapshot)
{
	struct doorbell_info info;
	int n;

	snapshot->n = 0;
	do {
		n = doorbell_take(db, &snapshot->events[snapshot->n],
				  DEPTH - snapshot->n);
		check(n, "doorbell_take");
		snapshot->n += n;
	} while (n && snapshot->n < DEPTH);
	check(doorbell_get_info(db, &info), "DOORBELL_INFO");
	if (info.pending)
		errx(1, "%llu rings are not in the snapshot", info.pending);
}

/* Before the vCPUs run. A device that needs no counts rings once per event. */
static void restore(struct doorbell *db, const struct snapshot *snapshot)
{
	const struct doorbell_event *event = snapshot->events;
	const struct doorbell_event *end = event + snapshot->n;
	unsigned int i;
	__u64 addr;

	for (; event < end; event++) {
		/* another process rang it: no guest causes such an event */
		addr = event->type == DOORBELL_EVENT_BAD_ADDRESS ?
		       event->value : BASE + event->queue * STRIDE;
		for (i = 0; i < event->count; i++)
			check(doorbell_ring_addr(db, addr, event->value),
			      "write");
	}
}

/* All but the width, which is 0 after restoring */
static void compare(const struct snapshot *a, const struct snapshot *b)
{
	unsigned int i;

	if (a->n != b->n)
		errx(1, "%u events became %u", a->n, b->n);
	for (i = 0; i < a->n; i++)
		if (a->events[i].queue != b->events[i].queue ||
		    a->events[i].type != b->events[i].type ||
		    a->events[i].count != b->events[i].count ||
		    a->events[i].value != b->events[i].value)
			errx(1, "event %u is another one", i);
}

static void run(const char *mode, unsigned int flags)
{
	static const unsigned int queues[RINGS] = { 6, 2, 6, 6, 1 };
	struct snapshot before, after;
	struct doorbell *db;
	struct guest guest;
	unsigned int i;

	guest_create(&guest);
	db = attach(guest.vm_fd, flags);
	for (i = 0; i < RINGS; i++)
		if (guest_write(&guest, BASE + queues[i] * STRIDE, 10 + i))
			errx(1, "a ring reached the VMM");
	check(doorbell_ring_addr(db, BASE + QUEUES * STRIDE, 0), "write");
	save(db, &before);
	guest_destroy(&guest);
	doorbell_close(db);
	printf("%s: %u events\n", mode, before.n);

	guest_create(&guest);
	db = attach(guest.vm_fd, flags);
	restore(db, &before);
	/* here the new VM's consumer goes on; the example looks what it gets */
	save(db, &after);
	for (i = 0; i < after.n; i++) {
		if (after.events[i].type)
			printf("bad rings: ");
		printf("queue %u: %u rings, last %#llx\n",
		       after.events[i].queue, after.events[i].count,
		       after.events[i].value);
	}
	compare(&before, &after);
	guest_destroy(&guest);
	doorbell_close(db);
}

int main(void)
{
	run("coalescing", 0);
	run("ordered", DOORBELL_ATTACH_ORDERED);
	return 0;
}
