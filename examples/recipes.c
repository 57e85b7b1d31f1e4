// SPDX-License-Identifier: LGPL-2.1 OR MIT
/*
 * The code of Documentation/recipes.rst, and of the overview of
 * userspace-api.rst, for the compiler. Nothing calls it: the tests of the
 * recipes have it with what is around it.
 */
#include <fcntl.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <libdoorbell.h>

struct worker {
	struct doorbell *db;
	unsigned int first;
};

ssize_t overview(struct doorbell_attach arg)
{
	struct doorbell_event events[64];
	ssize_t n;
	int fd;

	fd = open("/dev/doorbell", O_RDWR | O_CLOEXEC);
	ioctl(fd, DOORBELL_ATTACH, &arg);       /* a region of a VM */
	n = read(fd, events, sizeof(events));   /* waits for rings */
	return n;
}

int virtio_pci(struct doorbell *db, int vm_fd, __u64 bar, __u64 cap_offset,
	       unsigned int queues, unsigned int multiplier)
{
	struct doorbell_attach arg = {
		.size = sizeof(arg),
		.vm_fd = vm_fd,
		.base = bar + cap_offset,
		.len = queues * multiplier,
		.stride = multiplier,
	};

	return doorbell_attach_region(db, &arg);
}

void cq_head(unsigned int queue, __u64 value);
void sq_tail(unsigned int queue, __u64 value);
void attach_and_take(struct doorbell_attach *arg, struct doorbell_event *event);

void nvme(int vm_fd, __u64 bar, unsigned int queue_pairs, unsigned int dstrd)
{
	struct doorbell_event event;
	unsigned int each = 4 << dstrd;
	unsigned int stride = each < 4096 ? each : 4096;
	struct doorbell_attach arg = {
		.size = sizeof(arg),
		.vm_fd = vm_fd,
		.base = bar + 0x1000,
		.len = 2ULL * queue_pairs * each,
		.stride = stride,
	};

	attach_and_take(&arg, &event);

	unsigned int offset = event.queue * stride;
	unsigned int doorbell = offset / each;

	if (offset % each)
		return; /* between two doorbells */
	if (doorbell % 2)
		cq_head(doorbell / 2, event.value);
	else
		sq_tail(doorbell / 2, event.value);
}

void ring(unsigned int doorbell, __u64 value);

void halves(struct doorbell_event event, __u64 *low)
{
	unsigned int doorbell = event.queue / 2;

	if (event.queue % 2)
		ring(doorbell, event.value << 32 | low[doorbell]);
	else if (event.width == 8)
		ring(doorbell, event.value);
	else
		low[doorbell] = event.value;
}

int workers(int vm_fd, __u64 bar, struct worker *worker)
{
	int i, ret = 0;

	for (i = 0; i < 4; i++) {
		struct doorbell_attach arg = {
			.vm_fd = vm_fd,
			.base = bar + i * 16 * 4,
			.len = 16 * 4,
			.stride = 4,
		};

		worker[i].db = doorbell_open(0);
		worker[i].first = 16 * i;
		ret = doorbell_attach_region(worker[i].db, &arg);
	}
	return ret;
}

int reset(struct doorbell *db, struct doorbell_event *events)
{
	int n;

	while ((n = doorbell_take(db, events, 16)) > 0)
		;
	return n;
}

ssize_t restore(int fd, struct doorbell_event *events, int n, __u64 base,
		unsigned int stride, __u32 flags)
{
	ssize_t ret = 0;
	int i;

	for (i = 0; i < n; i++) {
		struct doorbell_ring ring = {
			.addr = base + events[i].queue * stride,
			.value = events[i].value,
		};

		if (events[i].type == DOORBELL_EVENT_BAD_ADDRESS)
			ring.addr = events[i].value;
		else if (flags & DOORBELL_ATTACH_BY_VALUE)
			ring.addr = base;
		while (events[i].count--)
			ret = write(fd, &ring, sizeof(ring));
	}
	return ret;
}

int move(struct doorbell *db, int vm_fd, __u64 new_bar, __u64 cap_offset)
{
	int ret;

	ret = doorbell_move_region(db, vm_fd, new_bar + cap_offset);
	return ret;
}

void change_places(struct doorbell *a, struct doorbell *b, int vm_fd,
		   __u64 a_base, __u64 b_base, __u64 parked)
{
	doorbell_move_region(a, vm_fd, parked);   /* where nothing else is */
	doorbell_move_region(b, vm_fd, a_base);
	doorbell_move_region(a, vm_fd, b_base);
}

void handle(struct doorbell_event *events, size_t n);

void edges(int epfd, int fd)
{
	struct doorbell_event events[64];
	struct epoll_event event;
	ssize_t n;

	epoll_wait(epfd, &event, 1, -1);
	while ((n = read(fd, events, sizeof(events))) > 0)
		handle(events, n / sizeof(events[0]));
	/* EAGAIN: the next ring is a new edge */
}
