// SPDX-License-Identifier: GPL-2.0
/*
 * Doorbell: the module's own buffer as a path. Producers ring it as the module
 * does. The consumer gets events as read() does; or by libdoorbell, for which
 * this file stands in for the device.
 */
#include <err.h>
#include <limits.h>
#include <stdarg.h>
#include <sys/types.h>
#include <unistd.h>

#include <libdoorbell.h>

#include "../../drivers/virt/doorbell/buffer.h"
#include "../../drivers/virt/doorbell/produce.h"
#include "native.h"

static struct doorbell_buffer buffer;
static struct doorbell *mapped;
static struct sleeper producers;
static u32 waiting;	/* producers, for room */

static void create(unsigned int queues, unsigned int depth)
{
	buffer = (struct doorbell_buffer) {};
	if (doorbell_buffer_init(&buffer, queues, depth))
		errx(2, "no memory");
	buffer.status->generation = 1;
}

static void destroy(void)
{
	doorbell_buffer_destroy(&buffer);
}

static bool ring(unsigned int queue, uint64_t value)
{
	u16 kind = doorbell_kind(DOORBELL_EVENT_QUEUE, 8);
	enum doorbell_ring_result result;

	if (buffer.entries)
		result = doorbell_ordered_ring(&buffer, queue, kind, value);
	else
		result = doorbell_coalesced_ring(&buffer, queue, kind, value);
	if (result == DOORBELL_RING_WAKE)
		wake_up(&consumer);
	return result != DOORBELL_RING_FULL;
}

/* read() */

static unsigned int read_get(struct doorbell_event *events, unsigned int max)
{
	unsigned int n, got = 0;
	bool wake;

	doorbell_buffer_handled(&buffer);
	max = min(max, doorbell_buffer_kept(&buffer));
	do {
		n = doorbell_buffer_peek(&buffer, events + got, max - got,
					 &wake);
		/* this is the only reader: there are no others to wake */
		if (n)
			doorbell_buffer_consume(&buffer, events + got, n);
		got += n;
	} while (n && got < max);
	/* (B), in doorbell_buffer_consume(), pairs with (I) */
	if (got && READ_ONCE(waiting))
		wake_up(&producers);
	return got;
}

static bool read_arm(void)
{
	return doorbell_buffer_arm(&buffer);
}

static bool read_sleep(void)
{
	return sleep_unless(&consumer, read_arm);
}

static bool writable(void)
{
	/* (I): waiting before head, pairs with (B) */
	__atomic_fetch_add(&waiting, 1, __ATOMIC_SEQ_CST);
	return doorbell_buffer_writable(&buffer);
}

static void read_room(void)
{
	if (!sleep_unless(&producers, writable))
		errx(1, "no room, or a wake-up of a producer is lost");
	__atomic_fetch_sub(&waiting, 1, __ATOMIC_SEQ_CST);
}

const struct path read_path = {
	.name = "read",
	.create = create,
	.ring = ring,
	.room = read_room,
	.get = read_get,
	.sleep = read_sleep,
	.destroy = destroy,
};

/* Mapped memory: libdoorbell calls these functions in place of the system's. */

int native_ioctl(int fd, unsigned long request, ...);
void *native_mmap(void *addr, size_t len, int prot, int flags, int fd,
		  off_t offset);
int native_munmap(void *addr, size_t len);

int native_ioctl(int fd, unsigned long request, ...)
{
	struct doorbell_info *info;
	va_list args;

	(void)fd;
	if (request != DOORBELL_INFO)
		errx(2, "an ioctl() that is not DOORBELL_INFO");
	va_start(args, request);
	info = va_arg(args, struct doorbell_info *);
	va_end(args);
	info->size = sizeof(*info);
	info->flags = buffer.depth ? DOORBELL_ATTACH_ORDERED : 0;
	info->depth = buffer.depth;
	info->queues = buffer.nr_slots - 1;
	info->control_size = buffer.control_size;
	info->readonly_size = buffer.readonly_size;
	info->entries_offset = doorbell_buffer_entries_offset(&buffer);
	info->nr_entries = buffer.mask + 1;
	info->generation = buffer.status->generation;
	return 0;
}

void *native_mmap(void *addr, size_t len, int prot, int flags, int fd,
		  off_t offset)
{
	(void)addr;
	(void)len;
	(void)prot;
	(void)flags;
	(void)fd;
	return (char *)buffer.control + offset;
}

int native_munmap(void *addr, size_t len)
{
	(void)addr;
	(void)len;
	return 0;
}

static void mapped_create(unsigned int queues, unsigned int depth)
{
	create(queues, depth);
	mapped = doorbell_from_fd(-1, DOORBELL_OPEN_NO_RECOVER);
	if (!mapped)
		err(2, "doorbell_from_fd");
}

static void mapped_destroy(void)
{
	doorbell_close(mapped);
	destroy();
}

static unsigned int mapped_get(struct doorbell_event *events, unsigned int max)
{
	return doorbell_take(mapped, events, max);
}

static bool mapped_arm(void)
{
	return doorbell_arm(mapped);
}

static bool mapped_sleep(void)
{
	return sleep_unless(&consumer, mapped_arm);
}

/* As in the kernel, a consumer of mapped memory wakes no producer. */
static void mapped_room(void)
{
	usleep(1);
}

const struct path mapped_path = {
	.name = "mapped",
	.create = mapped_create,
	.ring = ring,
	.room = mapped_room,
	.get = mapped_get,
	.sleep = mapped_sleep,
	.destroy = mapped_destroy,
};
