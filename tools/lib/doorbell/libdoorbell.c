// SPDX-License-Identifier: GPL-2.0
/*
 * libdoorbell: the consumer side of /dev/doorbell.
 *
 * The protocol of the mapped memory is told at struct doorbell_control in
 * <linux/doorbell.h>; take_coalesced() and take_ordered() are its steps.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/uio.h>
#include <unistd.h>

#include "libdoorbell.h"

#define BATCH	64

/**
 * struct doorbell - a consumer
 * @fd: /dev/doorbell
 * @flags: DOORBELL_OPEN_*
 * @control: mapped, or NULL to use read()
 * @control_size: bytes of it
 * @shared: mapped read-only
 * @shared_size: bytes of it
 * @slots: coalescing: in @shared
 * @fifo: coalescing: in @shared
 * @entries: ordered: in @shared, else NULL
 * @mask: places in @fifo or @entries, less one
 * @order: log2 of the places
 */
struct doorbell {
	int fd;
	unsigned int flags;
	struct doorbell_control *control;
	size_t control_size;
	void *shared;
	size_t shared_size;
	const struct doorbell_slot *slots;
	const __u32 *fifo;
	const struct doorbell_entry *entries;
	__u32 mask;
	__u32 order;
};

static void unmap(struct doorbell *db)
{
	if (!db->control)
		return;
	munmap(db->control, db->control_size);
	munmap(db->shared, db->shared_size);
	db->control = NULL;
}

/* Where this does not work out read() does. */
static void map(struct doorbell *db)
{
	struct doorbell_info info;
	void *control, *shared;

	if (db->flags & DOORBELL_OPEN_READ || doorbell_info(db, &info) ||
	    !info.places)
		return;

	control = mmap(NULL, info.control_size, PROT_READ | PROT_WRITE,
		       MAP_SHARED, db->fd, 0);
	if (control == MAP_FAILED)
		return;
	shared = mmap(NULL, info.shared_size, PROT_READ, MAP_SHARED, db->fd,
		      info.control_size);
	if (shared == MAP_FAILED) {
		munmap(control, info.control_size);
		return;
	}

	db->control = control;
	db->control_size = info.control_size;
	db->shared = shared;
	db->shared_size = info.shared_size;
	db->slots = shared;
	db->entries = NULL;
	if (info.flags & DOORBELL_ATTACH_ORDERED)
		db->entries = shared;
	else
		db->fifo = (void *)((char *)shared + info.ring_offset);
	db->mask = info.places - 1;
	db->order = __builtin_ctz(info.places);
}

struct doorbell *doorbell_from_fd(int fd, unsigned int flags)
{
	struct doorbell *db;

	if (flags & ~DOORBELL_OPEN_READ) {
		errno = EINVAL;
		return NULL;
	}
	db = calloc(1, sizeof(*db));
	if (!db)
		return NULL;
	db->fd = fd;
	db->flags = flags;
	map(db);
	return db;
}

struct doorbell *doorbell_open(unsigned int flags)
{
	int fd = open("/dev/doorbell", O_RDWR | O_CLOEXEC);
	struct doorbell *db;

	if (fd < 0)
		return NULL;
	db = doorbell_from_fd(fd, flags);
	if (!db)
		close(fd);
	return db;
}

void doorbell_close(struct doorbell *db)
{
	if (!db)
		return;
	unmap(db);
	close(db->fd);
	free(db);
}

int doorbell_fd(const struct doorbell *db)
{
	return db->fd;
}

int doorbell_attach(struct doorbell *db, const struct doorbell_attach *arg)
{
	struct doorbell_attach sized = *arg;

	sized.size = sizeof(sized);
	if (ioctl(db->fd, DOORBELL_ATTACH, &sized))
		return -errno;
	unmap(db);
	map(db);
	return 0;
}

int doorbell_detach(struct doorbell *db)
{
	return ioctl(db->fd, DOORBELL_DETACH, 0) ? -errno : 0;
}

int doorbell_info(const struct doorbell *db, struct doorbell_info *info)
{
	info->size = sizeof(*info);
	return ioctl(db->fd, DOORBELL_INFO, info) ? -errno : 0;
}

int doorbell_ring(struct doorbell *db, __u64 addr, __u64 value)
{
	struct doorbell_ring ring = { .addr = addr, .value = value };

	return write(db->fd, &ring, sizeof(ring)) < 0 ? -errno : 0;
}

static void set_event(struct doorbell_event *event, __u32 queue, __u8 tag,
		      __u64 count, __u64 value)
{
	event->type = tag >> DOORBELL_TAG_TYPE_SHIFT;
	event->queue = event->type == DOORBELL_EVENT_QUEUE ?
		       queue : DOORBELL_QUEUE_NONE;
	event->width = tag & ((1 << DOORBELL_TAG_TYPE_SHIFT) - 1);
	event->count = count;
	event->value = value;
}

/* Step 1: the slot that position @at of the FIFO names; false if none yet. */
static bool fifo_peek(const struct doorbell *db, __u64 at, __u32 *index)
{
	__u32 entry = __atomic_load_n(&db->fifo[at & db->mask],
				      __ATOMIC_ACQUIRE);

	*index = entry & ((1U << DOORBELL_FIFO_LAP_SHIFT) - 1);
	return entry >> DOORBELL_FIFO_LAP_SHIFT ==
	       (__u16)((at >> db->order) + 1);
}

/* Step 4: make an event of what was not seen of a slot; false if nothing. */
static bool slot_take(struct doorbell *db, __u32 index,
		      struct doorbell_event *event)
{
	const struct doorbell_slot *slot = &db->slots[index];
	__u64 rings = __atomic_load_n(&slot->rings, __ATOMIC_ACQUIRE);
	__u64 seen = db->control->seen[index];
	__u64 count = (rings >> DOORBELL_RINGS_SHIFT) - seen;

	if (!count)
		return false;
	if (count > UINT32_MAX)
		count = UINT32_MAX;
	/* the kernel looks at it, too */
	__atomic_store_n(&db->control->seen[index], seen + count,
			 __ATOMIC_RELAXED);
	set_event(event, index, rings, count,
		  __atomic_load_n(&slot->value, __ATOMIC_RELAXED));
	return true;
}

/* Does a slot have so much that it needs another event before it is passed? */
static bool slot_overflows(const struct doorbell *db, __u32 index)
{
	__u64 rings = __atomic_load_n(&db->slots[index].rings,
				      __ATOMIC_RELAXED);

	return (rings >> DOORBELL_RINGS_SHIFT) - db->control->seen[index] >
	       UINT32_MAX / 2;
}

static unsigned int take_coalesced(struct doorbell *db,
				   struct doorbell_event *events,
				   unsigned int max)
{
	unsigned int passed, taken, i;
	__u64 head = db->control->head;
	__u32 index[BATCH];

	if (max > BATCH)
		max = BATCH;
	do {
		for (passed = 0; passed < max; passed++, head++) {
			if (!fifo_peek(db, head, &index[passed]))
				break;
			if (slot_overflows(db, index[passed]))
				break;
		}
		if (!passed) {
			__u32 first;

			/* nothing, or one that stays where it is for now */
			return fifo_peek(db, head, &first) &&
			       slot_take(db, first, events);
		}

		__atomic_store_n(&db->control->head, head, __ATOMIC_RELEASE);
		__atomic_thread_fence(__ATOMIC_SEQ_CST);

		for (i = 0, taken = 0; i < passed; i++)
			taken += slot_take(db, index[i], &events[taken]);
	} while (!taken);

	return taken;
}

static bool entry_peek(const struct doorbell *db, __u64 at, __u64 *word)
{
	*word = __atomic_load_n(&db->entries[at & db->mask].word,
				__ATOMIC_ACQUIRE);
	return *word >> DOORBELL_ENTRY_LAP_SHIFT ==
	       (__u32)((at >> db->order) + 1);
}

static unsigned int take_ordered(struct doorbell *db,
				 struct doorbell_event *events,
				 unsigned int max)
{
	__u64 head = db->control->head;
	unsigned int taken;
	__u64 word;

	for (taken = 0; taken < max; taken++, head++) {
		if (!entry_peek(db, head, &word))
			break;
		set_event(&events[taken], (__u16)word,
			  word >> DOORBELL_ENTRY_TAG_SHIFT, 1,
			  __atomic_load_n(&db->entries[head & db->mask].value,
					  __ATOMIC_RELAXED));
	}
	if (taken)
		__atomic_store_n(&db->control->head, head, __ATOMIC_RELEASE);
	return taken;
}

static int take_by_read(struct doorbell *db, struct doorbell_event *events,
			unsigned int max)
{
	struct iovec iov = {
		.iov_base = events,
		.iov_len = max * sizeof(*events),
	};
	ssize_t size = preadv2(db->fd, &iov, 1, -1, RWF_NOWAIT);

	if (size < 0)
		return errno == EAGAIN ? 0 : -errno;
	return size / sizeof(*events);
}

int doorbell_take(struct doorbell *db, struct doorbell_event *events,
		  unsigned int max)
{
	if (!max)
		return 0;
	if (!db->control)
		return take_by_read(db, events, max);
	if (db->entries)
		return take_ordered(db, events, max);
	return take_coalesced(db, events, max);
}

/* Is there an entry? It may turn out to have been counted already. */
static bool readable(const struct doorbell *db)
{
	__u64 head = db->control->head;
	__u64 word;
	__u32 index;

	return db->entries ? entry_peek(db, head, &word) :
			     fifo_peek(db, head, &index);
}

int doorbell_arm(struct doorbell *db)
{
	struct pollfd pfd = { .fd = db->fd, .events = POLLIN };

	if (!db->control)
		return poll(&pfd, 1, 0) < 0 ? -errno : !!pfd.revents;

	__atomic_store_n(&db->control->armed, 1, __ATOMIC_RELAXED);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	return readable(db);
}

int doorbell_wait(struct doorbell *db, int timeout)
{
	struct pollfd pfd = { .fd = db->fd, .events = POLLIN };
	int ret = poll(&pfd, 1, timeout);

	if (ret < 0)
		return -errno;
	if (pfd.revents & POLLIN)
		return 1;
	if (pfd.revents & POLLHUP)
		return -EPIPE;
	return pfd.revents & POLLNVAL ? -EBADF : ret;
}

int doorbell_complete(struct doorbell *db, doorbell_notify_fn notify,
		      void *ctx)
{
	struct doorbell_event events[BATCH];
	int i, n, ret;

	for (;;) {
		n = doorbell_take(db, events, BATCH);
		if (n < 0)
			return n;
		for (i = 0; i < n; i++) {
			ret = notify(events[i].queue, &events[i], ctx);
			if (ret)
				return ret;
		}
		if (n)
			continue;
		ret = doorbell_wait(db, -1);
		if (ret == -EPIPE)
			return 0;
		if (ret < 0 && ret != -EINTR)
			return ret;
	}
}
