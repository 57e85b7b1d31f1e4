// SPDX-License-Identifier: LGPL-2.1 OR MIT
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
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <unistd.h>

#include <linux/fs.h>

#include "libdoorbell.h"

#define BATCH	64

/**
 * struct doorbell - a consumer
 * @fd: /dev/doorbell
 * @flags: DOORBELL_OPEN_*
 * @control: mapped, or NULL to use read()
 * @control_size: bytes of it
 * @shared: mapped read-only
 * @readonly_size: bytes of it
 * @slots: coalescing: in @shared
 * @fifo: coalescing: in @shared
 * @entries: ordered: in @shared, else NULL
 * @mask: places in @fifo or @entries, less one
 * @order: log2 of the places
 * @partial: coalescing: slots of which an event could not tell all rings
 * @nr_partial: how many there are, usually none
 */
struct doorbell {
	int fd;
	unsigned int flags;
	struct doorbell_control *control;
	size_t control_size;
	void *shared;
	size_t readonly_size;
	const struct doorbell_slot *slots;
	const __u32 *fifo;
	const struct doorbell_entry *entries;
	__u32 mask;
	__u32 order;
	__u32 partial[BATCH];
	unsigned int nr_partial;
};

static void unmap(struct doorbell *db)
{
	if (!db->control)
		return;
	munmap(db->control, db->control_size);
	munmap(db->shared, db->readonly_size);
	db->control = NULL;
}

/* Geometry and state, without the counters, which take long to add up. */
static int get_geometry(int fd, struct doorbell_info *info)
{
	*info = (struct doorbell_info) {
		.size = offsetof(struct doorbell_info, rings),
	};
	return ioctl(fd, DOORBELL_INFO, info);
}

/* Where this does not work out read() does. */
static void map(struct doorbell *db)
{
	struct doorbell_info info;
	void *control, *shared;

	db->nr_partial = 0;
	if (db->flags & DOORBELL_OPEN_READ ||
	    get_geometry(db->fd, &info) || !info.nr_entries)
		return;

	control = mmap(NULL, info.control_size, PROT_READ | PROT_WRITE,
		       MAP_SHARED, db->fd, 0);
	if (control == MAP_FAILED)
		return;
	shared = mmap(NULL, info.readonly_size, PROT_READ, MAP_SHARED, db->fd,
		      info.control_size);
	if (shared == MAP_FAILED) {
		munmap(control, info.control_size);
		return;
	}

	db->control = control;
	db->control_size = info.control_size;
	db->shared = shared;
	db->readonly_size = info.readonly_size;
	db->slots = shared;
	db->entries = NULL;
	if (info.flags & DOORBELL_ATTACH_ORDERED)
		db->entries = shared;
	else
		db->fifo = (void *)((char *)shared + info.entries_offset);
	db->mask = info.nr_entries - 1;
	db->order = __builtin_ctz(info.nr_entries);
}

struct doorbell *doorbell_from_fd(int fd, unsigned int flags)
{
	struct doorbell_info info;
	struct doorbell *db;

	if (flags & ~DOORBELL_OPEN_READ) {
		errno = EINVAL;
		return NULL;
	}
	if (get_geometry(fd, &info))
		return NULL;
	/* Another device may have this ioctl(), but does not fill in this. */
	if (info.size < sizeof(info)) {
		errno = ENOTTY;
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

int doorbell_attach_region(struct doorbell *db,
			   const struct doorbell_attach *arg)
{
	struct doorbell_attach sized = *arg;

	sized.size = sizeof(sized);
	if (ioctl(db->fd, DOORBELL_ATTACH, &sized))
		return -errno;
	unmap(db);
	map(db);
	return 0;
}

int doorbell_detach_region(struct doorbell *db)
{
	return ioctl(db->fd, DOORBELL_DETACH, 0) ? -errno : 0;
}

int doorbell_get_info(const struct doorbell *db, struct doorbell_info *info)
{
	info->size = sizeof(*info);
	return ioctl(db->fd, DOORBELL_INFO, info) ? -errno : 0;
}

int doorbell_ring_addr(struct doorbell *db, __u64 addr, __u64 value)
{
	struct doorbell_ring ring = { .addr = addr, .value = value };

	return write(db->fd, &ring, sizeof(ring)) < 0 ? -errno : 0;
}

/* The slot that the place at @head names, or more than UINT16_MAX if none yet. */
static inline __u32 coalesced_slot(const struct doorbell *db, __u64 head)
{
	__u32 lap = head >> db->order;

	return __atomic_load_n(&db->fifo[head & db->mask], __ATOMIC_ACQUIRE) -
	       (lap << DOORBELL_FIFO_LAP_SHIFT);
}

/*
 * Step 1: the slots that up to @max places from @head on name, at most to the
 * end of this lap, as the queues of @events. Return: how many there are.
 */
static inline unsigned int coalesced_peek(const struct doorbell *db, __u64 head,
				     struct doorbell_event *events,
				     unsigned int max)
{
	__u32 first = head & db->mask;
	__u32 lap = (__u32)(head >> db->order) << DOORBELL_FIFO_LAP_SHIFT;
	const __u32 *fifo = db->fifo + first;
	unsigned int n;

	if (max > db->mask - first + 1)
		max = db->mask - first + 1;
	for (n = 0; n < max; n++) {
		__u32 slot = __atomic_load_n(&fifo[n], __ATOMIC_ACQUIRE) - lap;

		/* too large if it is one of another lap */
		if (slot > UINT16_MAX)
			break;
		events[n].queue = slot;
	}
	return n;
}

/*
 * Step 4: make whole events of what was not seen of the slots that @n @events
 * name. Return: how many there are.
 */
static inline unsigned int coalesced_events(struct doorbell *db,
				      struct doorbell_event *events,
				      unsigned int n)
{
	const struct doorbell_event *from = events, *end = events + n;
	const struct doorbell_slot *slots = db->slots;
	struct doorbell_event *event = events;
	__u64 *seen = db->control->seen;

	for (; from < end; from++) {
		__u32 index = from->queue;
		const struct doorbell_slot *slot = &slots[index];
		__u64 old = seen[index];
		__u64 unseen = __atomic_load_n(&slot->rings,
					       __ATOMIC_ACQUIRE) - old;
		__u64 count = unseen >> DOORBELL_RINGS_SHIFT;
		__u16 kind = unseen;

		if (!count)
			continue;
		if (count > UINT32_MAX) {
			count = UINT32_MAX;
			db->partial[db->nr_partial++] = index;
		}
		/* the kernel looks at it, too */
		__atomic_store_n(&seen[index],
				 old + (count << DOORBELL_RINGS_SHIFT),
				 __ATOMIC_RELAXED);

		event->queue = (__u8)kind == DOORBELL_EVENT_QUEUE ?
			       index : DOORBELL_QUEUE_NONE;
		event->type = kind;
		event->width = kind >> DOORBELL_KIND_WIDTH_SHIFT;
		event->count = count;
		event->value = __atomic_load_n(&slot->value, __ATOMIC_RELAXED);
		event++;
	}
	return event - events;
}

/* The next events of slots that have more rings than fit one: a rare thing. */
static __attribute__((noinline))
unsigned int take_partial(struct doorbell *db, struct doorbell_event *events,
		       unsigned int max)
{
	unsigned int n = db->nr_partial < max ? db->nr_partial : max;
	unsigned int i;

	for (i = 0; i < n; i++)
		events[i].queue = db->partial[--db->nr_partial];
	return coalesced_events(db, events, n);
}

static unsigned int take_coalesced(struct doorbell *db,
				   struct doorbell_event *events,
				   unsigned int max)
{
	unsigned int n, room, taken = 0;
	__u64 head;

	while (taken < max) {
		room = max - taken < BATCH ? max - taken : BATCH;
		if (db->nr_partial) {
			taken += take_partial(db, events + taken, room);
			continue;
		}
		head = db->control->head;
		n = coalesced_peek(db, head, events + taken, room);
		if (!n)
			break;

		__atomic_store_n(&db->control->head, head + n,
				 __ATOMIC_RELEASE);
		__atomic_thread_fence(__ATOMIC_SEQ_CST);

		taken += coalesced_events(db, events + taken, n);
		/* neither the end of the room, nor that of the lap */
		if (n < room && (head + n) & db->mask && !db->nr_partial)
			break;
	}
	return taken;
}

/* Events of entries, at most to the end of this lap. */
static unsigned int ordered_events(struct doorbell *db,
				 struct doorbell_event *events,
				 unsigned int max)
{
	__u64 head = db->control->head;
	__u32 first = head & db->mask;
	const struct doorbell_entry *entries = db->entries + first;
	__u64 lap = (__u32)(head >> db->order);
	unsigned int n;
	__u64 word;
	__u16 kind;

	if (max > db->mask - first + 1)
		max = db->mask - first + 1;
	for (n = 0; n < max; n++) {
		word = __atomic_load_n(&entries[n].word, __ATOMIC_ACQUIRE);
		if (word >> DOORBELL_ENTRY_LAP_SHIFT != lap)
			break;
		kind = word >> DOORBELL_ENTRY_KIND_SHIFT;
		events[n].queue = word;
		events[n].type = kind;
		events[n].width = kind >> DOORBELL_KIND_WIDTH_SHIFT;
		events[n].count = 1;
		events[n].value = __atomic_load_n(&entries[n].value,
						  __ATOMIC_RELAXED);
	}
	if (n)
		__atomic_store_n(&db->control->head, head + n,
				 __ATOMIC_RELEASE);
	return n;
}

static unsigned int take_ordered(struct doorbell *db,
				 struct doorbell_event *events,
				 unsigned int max)
{
	unsigned int n, taken = 0;

	do {
		n = ordered_events(db, events + taken, max - taken);
		taken += n;
	} while (n && taken < max && !(db->control->head & db->mask));
	return taken;
}

/*
 * RWF_NOWAIT never waits, neither for events that another reader takes first nor
 * for that reader, and leaves O_NONBLOCK to those who share the descriptor. musl
 * has no preadv2() before 1.2.5. An offset of -1, in two halves, is that of read().
 */
static int take_by_read(struct doorbell *db, struct doorbell_event *events,
			unsigned int max)
{
	struct iovec iov = {
		.iov_base = events,
		.iov_len = max * sizeof(*events),
	};
	long size = syscall(SYS_preadv2, (long)db->fd, &iov, 1L, -1L, -1L,
			    (long)RWF_NOWAIT);

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

	if (!db->entries)
		return coalesced_slot(db, head) <= UINT16_MAX || db->nr_partial;
	word = __atomic_load_n(&db->entries[head & db->mask].word,
			       __ATOMIC_ACQUIRE);
	return word >> DOORBELL_ENTRY_LAP_SHIFT == (__u32)(head >> db->order);
}

static int arm_by_poll(const struct doorbell *db)
{
	struct pollfd pfd = { .fd = db->fd, .events = POLLIN };

	return poll(&pfd, 1, 0) < 0 ? -errno : !!pfd.revents;
}

int doorbell_arm(struct doorbell *db)
{
	if (!db->control)
		return arm_by_poll(db);

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
