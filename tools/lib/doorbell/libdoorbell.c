// SPDX-License-Identifier: LGPL-2.1 OR MIT
/*
 * libdoorbell: the consumer side of /dev/doorbell.
 *
 * struct doorbell_control in <linux/doorbell.h> has the protocol of the mapped
 * memory; take_coalesced() and take_ordered() are its steps. Other processes
 * may share the control area: this code loads each field once, checks each
 * index, and bounds each loop by what is not in shared memory.
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

#define BATCH		64
/* Most events in one doorbell_take(), as in one read() */
#define TAKE_MAX	65536

/**
 * struct doorbell - a consumer
 * @fd: /dev/doorbell
 * @flags: DOORBELL_OPEN_*
 * @control: mapped, or NULL to use read()
 * @control_size: bytes of it
 * @readonly: mapped read-only
 * @readonly_size: bytes of it
 * @slots: coalescing: in @readonly
 * @fifo: coalescing: in @readonly
 * @entries: ordered: in @readonly, else NULL
 * @nr_slots: coalescing: number of @slots
 * @mask: number of entries in @fifo or @entries, less one
 * @order: log2 of that number
 * @map_later: try to map at the next event, since there was no region, or
 *	another process attached one in the meantime
 * @idle_wakeups: doorbell_wait() calls that found events in the kernel, since
 *	mapped memory had an event
 * @idle_arms: doorbell_arm() calls since mapped memory had an event
 * @nr_partial: number of slots in @partial, usually 0
 * @partial: coalescing: slots with more rings than their last event can count
 * @nr_held: number of events in @held, from @next_held on
 * @next_held: first of them
 * @held: events that doorbell_complete() took and did not hand over
 */
struct doorbell {
	int fd;
	unsigned int flags;
	struct doorbell_control *control;
	size_t control_size;
	void *readonly;
	size_t readonly_size;
	const struct doorbell_slot *slots;
	const __u32 *fifo;
	const struct doorbell_entry *entries;
	__u32 nr_slots;
	__u32 mask;
	__u32 order;
	bool map_later;
	unsigned int idle_wakeups;
	unsigned int idle_arms;
	unsigned int nr_partial;
	__u32 partial[BATCH];
	unsigned int nr_held;
	unsigned int next_held;
	struct doorbell_event held[BATCH];
};

static void unmap(struct doorbell *db)
{
	if (!db->control)
		return;
	munmap(db->control, db->control_size);
	munmap(db->readonly, db->readonly_size);
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

/*
 * Do two mappings of a control area show the same memory? Any number but 0 in
 * armed arms. A ring may then store 0 there: if so, try again.
 */
static bool same_memory(struct doorbell_control *a, struct doorbell_control *b)
{
	__u32 mark = (__u32)getpid() << 8;
	__u32 end = mark + 100;
	__u32 found = 0;

	while (!found && ++mark < end) {
		__atomic_store_n(&a->armed, mark, __ATOMIC_SEQ_CST);
		found = __atomic_load_n(&b->armed, __ATOMIC_SEQ_CST);
	}
	return found == mark;
}

/*
 * Map the region. If that fails db->control is NULL, and read() works, too.
 *
 * Another process can attach another region between two of these calls, and no
 * call reports that. But a region that is replaced never comes back: if the
 * control area is the same before and after, all in between is of one region.
 */
static void map(struct doorbell *db)
{
	struct doorbell_control *before, *control;
	struct doorbell_info info;
	void *readonly;

	db->idle_wakeups = 0;
	db->idle_arms = 0;
	db->map_later = false;
	if (db->flags & DOORBELL_OPEN_READ)
		return;
	before = mmap(NULL, sizeof(*before), PROT_READ | PROT_WRITE,
		      MAP_SHARED, db->fd, 0);
	if (before == MAP_FAILED) {
		db->map_later = errno == ENOTCONN;
		return;
	}
	db->map_later = true;
	if (get_geometry(db->fd, &info))
		goto unmap_before;
	readonly = mmap(NULL, info.readonly_size, PROT_READ, MAP_SHARED,
			db->fd, info.control_size);
	if (readonly == MAP_FAILED)
		goto unmap_before;
	control = mmap(NULL, info.control_size, PROT_READ | PROT_WRITE,
		       MAP_SHARED, db->fd, 0);
	if (control == MAP_FAILED)
		goto unmap_readonly;
	if (!same_memory(before, control))
		goto unmap_control;
	munmap(before, sizeof(*before));

	db->map_later = false;
	db->control = control;
	db->control_size = info.control_size;
	db->readonly = readonly;
	db->readonly_size = info.readonly_size;
	db->slots = readonly;
	db->entries = NULL;
	if (info.flags & DOORBELL_ATTACH_ORDERED)
		db->entries = readonly;
	else
		db->fifo = (void *)((char *)readonly + info.entries_offset);
	db->nr_slots = info.queues + 1;
	db->mask = info.nr_entries - 1;
	db->order = __builtin_ctz(info.nr_entries);
	return;

unmap_control:
	munmap(control, info.control_size);
unmap_readonly:
	munmap(readonly, info.readonly_size);
unmap_before:
	munmap(before, sizeof(*before));
}

/*
 * The kernel has an event. If it had one before and mapped memory had none,
 * another process has attached another region: map that one. To map the same
 * region again does no harm, as its head and seen are in it.
 */
static void follow_region(struct doorbell *db)
{
	if (db->control && !db->idle_wakeups++)
		return;
	if (db->control || db->map_later) {
		unmap(db);
		map(db);
	}
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
	/*
	 * Another device may have this ioctl(), but does not fill in this. The
	 * first kernels with /dev/doorbell do not know bound_rings.
	 */
	if (info.size < offsetof(struct doorbell_info, bound_rings)) {
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
	/* The kernel dropped the events of the region before, too. */
	db->nr_held = 0;
	db->nr_partial = 0;
	unmap(db);
	map(db);
	return 0;
}

int doorbell_detach_region(struct doorbell *db)
{
	return ioctl(db->fd, DOORBELL_DETACH, 0) ? -errno : 0;
}

int doorbell_move_region(struct doorbell *db, __u64 base)
{
	struct doorbell_move arg = { .size = sizeof(arg), .base = base };

	return ioctl(db->fd, DOORBELL_MOVE, &arg) ? -errno : 0;
}

int doorbell_bind_queues(struct doorbell *db, unsigned int first,
			 unsigned int count, const int *fds)
{
	struct doorbell_bind arg = {
		.size = sizeof(arg),
		.first = first,
		.count = count,
		.fds = (uintptr_t)fds,
	};

	return ioctl(db->fd, DOORBELL_BIND, &arg) ? -errno : 0;
}

int doorbell_get_bindings(const struct doorbell *db, unsigned int first,
			  unsigned int count,
			  struct doorbell_queue_binding *bindings)
{
	struct doorbell_bindings arg = {
		.size = sizeof(arg),
		.first = first,
		.count = count,
		.bindings = (uintptr_t)bindings,
	};

	return ioctl(db->fd, DOORBELL_BINDINGS, &arg) ? -errno : 0;
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

/* The slot of the entry at @head, or at least nr_slots if there is no entry. */
static inline __u32 coalesced_slot(const struct doorbell *db, __u64 head)
{
	__u32 lap = head >> db->order;

	return __atomic_load_n(&db->fifo[head & db->mask], __ATOMIC_ACQUIRE) -
	       (lap << DOORBELL_FIFO_LAP_SHIFT);
}

/*
 * Step 1: put the slots of up to @max entries from @head on into the queues of
 * @events. Return: number of entries, at most to the end of this lap.
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

		/* larger than any slot in an entry of another lap */
		if (slot >= db->nr_slots)
			break;
		events[n].queue = slot;
	}
	return n;
}

/*
 * Step 4: make events of the unseen rings of the slots that @n @events name.
 * Return: number of events, which is less if a slot has no unseen rings.
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
		__u64 old = __atomic_load_n(&seen[index], __ATOMIC_RELAXED);
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

/* The next events of slots that have more rings than fit into one; rare. */
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
	/*
	 * Entries to go. One of a slot can be without an event, if its rings
	 * were counted with the slot's entry before: at most one for each event
	 * of this call, and one for each slot. More than that is garbage.
	 */
	unsigned int left = 2 * max + db->mask + 1;
	unsigned int n, room, taken = 0;
	__u64 head;

	while (taken < max && left) {
		room = max - taken < BATCH ? max - taken : BATCH;
		/* each of these slots has an event, or is partial no more */
		if (db->nr_partial) {
			taken += take_partial(db, events + taken, room);
			continue;
		}
		if (room > left)
			room = left;
		head = __atomic_load_n(&db->control->head, __ATOMIC_RELAXED);
		n = coalesced_peek(db, head, events + taken, room);
		if (!n)
			break;
		left -= n;

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

/* Both steps, at most to the end of this lap; sets @head past the entries. */
static inline unsigned int ordered_events(struct doorbell *db, __u64 *head,
					  struct doorbell_event *events,
					  unsigned int max)
{
	__u32 first = *head & db->mask;
	const struct doorbell_entry *entries = db->entries + first;
	__u64 lap = (__u32)(*head >> db->order);
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
	*head += n;
	if (n)
		__atomic_store_n(&db->control->head, *head, __ATOMIC_RELEASE);
	return n;
}

static unsigned int take_ordered(struct doorbell *db,
				 struct doorbell_event *events,
				 unsigned int max)
{
	__u64 head = __atomic_load_n(&db->control->head, __ATOMIC_RELAXED);
	unsigned int n, taken = 0;

	do {
		n = ordered_events(db, &head, events + taken, max - taken);
		taken += n;
	} while (n && taken < max && !(head & db->mask));
	return taken;
}

/*
 * RWF_NOWAIT never waits, neither for events that another reader takes first
 * nor for that reader, and leaves O_NONBLOCK, which belongs to the open file,
 * alone. musl has no preadv2() before 1.2.5. The offset -1 means read().
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

/* Take events that are not held; @max is 1 to TAKE_MAX. */
static inline int take_new(struct doorbell *db, struct doorbell_event *events,
			   unsigned int max)
{
	unsigned int n;

	if (!db->control)
		return take_by_read(db, events, max);
	if (db->entries)
		n = take_ordered(db, events, max);
	else
		n = take_coalesced(db, events, max);
	if (n) {
		db->idle_wakeups = 0;
		db->idle_arms = 0;
	}
	return n;
}

static unsigned int take_held(struct doorbell *db,
			      struct doorbell_event *events, unsigned int max)
{
	unsigned int n = db->nr_held < max ? db->nr_held : max;

	memcpy(events, db->held + db->next_held, n * sizeof(*events));
	db->next_held += n;
	db->nr_held -= n;
	return n;
}

int doorbell_take(struct doorbell *db, struct doorbell_event *events,
		  unsigned int max)
{
	unsigned int held = 0;
	int n;

	if (max > TAKE_MAX)
		max = TAKE_MAX;
	if (db->nr_held)
		held = take_held(db, events, max);
	if (held == max)
		return held;
	n = take_new(db, events + held, max - held);
	if (n < 0)
		return held ? (int)held : n;
	return held + n;
}

/* Are there events that the kernel does not know of? */
static bool has_own_events(const struct doorbell *db)
{
	return db->nr_held || db->nr_partial;
}

/* Is there an entry? It may turn out to have been counted already. */
static bool readable(const struct doorbell *db)
{
	__u64 head = __atomic_load_n(&db->control->head, __ATOMIC_RELAXED);
	__u64 word;

	if (!db->entries)
		return coalesced_slot(db, head) < db->nr_slots;
	word = __atomic_load_n(&db->entries[head & db->mask].word,
			       __ATOMIC_ACQUIRE);
	return word >> DOORBELL_ENTRY_LAP_SHIFT == (__u32)(head >> db->order);
}

int doorbell_arm(struct doorbell *db)
{
	int ret;

	if (has_own_events(db))
		return 1;
	if (db->control) {
		__atomic_store_n(&db->control->armed, 1, __ATOMIC_RELAXED);
		__atomic_thread_fence(__ATOMIC_SEQ_CST);
		if (readable(db))
			return 1;
		/* Was the last wake-up for the region that is mapped? */
		if (!db->idle_arms++)
			return 0;
	}
	/* poll() arms. The caller's epoll_wait() or poll() reports the end. */
	ret = doorbell_wait(db, 0);
	return ret == -EPIPE ? 0 : ret;
}

int doorbell_wait(struct doorbell *db, int timeout)
{
	struct pollfd pfd = { .fd = db->fd, .events = POLLIN };
	int ret;

	if (has_own_events(db))
		return 1;
	ret = poll(&pfd, 1, timeout);
	if (ret < 0)
		return -errno;
	if (pfd.revents & POLLIN) {
		follow_region(db);
		return 1;
	}
	if (pfd.revents & POLLHUP)
		return -EPIPE;
	return pfd.revents & POLLNVAL ? -EBADF : ret;
}

int doorbell_complete(struct doorbell *db, doorbell_notify_fn notify,
		      void *ctx)
{
	struct doorbell_event event;
	int n, ret;

	for (;;) {
		while (db->nr_held) {
			/* @notify may take events: no pointer into held[] */
			take_held(db, &event, 1);
			ret = notify(event.queue, &event, ctx);
			if (ret)
				return ret;
		}
		n = take_new(db, db->held, BATCH);
		if (n < 0)
			return n;
		db->next_held = 0;
		db->nr_held = n;
		if (n)
			continue;
		ret = doorbell_wait(db, -1);
		if (ret == -EPIPE)
			return 0;
		if (ret < 0 && ret != -EINTR)
			return ret;
	}
}
