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
 * @status: in @readonly
 * @generation: that of the mapped region
 * @slots: coalescing: in @readonly
 * @fifo: coalescing: in @readonly
 * @entries: ordered: in @readonly, else NULL
 * @nr_slots: coalescing: number of @slots
 * @mask: number of entries in @fifo or @entries, less one
 * @order: log2 of that number
 * @kept: ordered: most events to take before some are handled
 * @taken: position of head after the last call that took events, or 0
 * @map_later: not mapped, as there is no region yet
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
	const struct doorbell_status *status;
	__u32 generation;
	const struct doorbell_slot *slots;
	const __u32 *fifo;
	const struct doorbell_entry *entries;
	__u32 nr_slots;
	__u32 mask;
	__u32 order;
	__u32 kept;
	__u64 taken;
	bool map_later;
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
	db->taken = 0;
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
 * Map the region that was attached last. Return: false if another one was
 * attached in between.
 */
static bool map_once(struct doorbell *db, const struct doorbell_info *info)
{
	struct doorbell_control *control;
	const struct doorbell_status *status;
	void *readonly;

	control = mmap(NULL, info->control_size, PROT_READ | PROT_WRITE,
		       MAP_SHARED, db->fd, 0);
	if (control == MAP_FAILED)
		return errno != EINVAL;
	readonly = mmap(NULL, info->readonly_size, PROT_READ, MAP_SHARED,
			db->fd, info->control_size);
	if (readonly == MAP_FAILED) {
		munmap(control, info->control_size);
		return errno != EINVAL;
	}
	status = readonly;
	if (__atomic_load_n(&status->generation, __ATOMIC_ACQUIRE) !=
	    info->generation) {
		munmap(control, info->control_size);
		munmap(readonly, info->readonly_size);
		return false;
	}

	db->control = control;
	db->control_size = info->control_size;
	db->readonly = readonly;
	db->readonly_size = info->readonly_size;
	db->status = status;
	db->generation = info->generation;
	db->slots = (const void *)(status + 1);
	db->entries = NULL;
	if (info->flags & DOORBELL_ATTACH_ORDERED)
		db->entries = (const void *)(status + 1);
	else
		db->fifo = (void *)((char *)readonly + info->entries_offset);
	db->nr_slots = info->queues + 1;
	db->mask = info->nr_entries - 1;
	db->order = __builtin_ctz(info->nr_entries);
	db->kept = info->nr_entries - info->depth;
	return true;
}

/* Map the region. If that fails db->control is NULL, and read() works, too. */
static void map(struct doorbell *db)
{
	struct doorbell_info info;

	db->map_later = false;
	if (db->flags & DOORBELL_OPEN_READ)
		return;
	do {
		if (get_geometry(db->fd, &info))
			return;
		db->map_later = !info.generation;
	} while (!db->map_later && !map_once(db, &info));
}

/*
 * Has another region replaced the one that is mapped? If so, and if no event is
 * found after this call, none will come.
 */
static inline bool replaced(const struct doorbell *db)
{
	return __atomic_load_n(&db->status->generation, __ATOMIC_ACQUIRE) !=
	       db->generation;
}

static bool dropped(const struct doorbell *db)
{
	return __atomic_load_n(&db->status->flags, __ATOMIC_RELAXED) &
	       DOORBELL_STATUS_DROPPED;
}

/* Are there events that the kernel does not know of? */
static bool has_own_events(const struct doorbell *db)
{
	return db->nr_held || db->nr_partial;
}

/*
 * The position of the first event that is not handled, if the last @n that were
 * taken are not, or 0 if it is unknown. Coalescing: an entry may have had no
 * event, and a partial slot has more of them.
 */
static inline __u64 handled_position(const struct doorbell *db, unsigned int n)
{
	if (!db->taken || (!db->entries && (n || db->nr_partial)))
		return 0;
	return db->taken - n;
}

/*
 * Step 0: a successor need not get the events before @pos again. The position
 * only moves forward, and not past the last event that this consumer took.
 */
static inline void mark_handled(struct doorbell *db, __u64 pos)
{
	if (pos && pos > __atomic_load_n(&db->control->handled,
					 __ATOMIC_RELAXED))
		__atomic_store_n(&db->control->handled, pos, __ATOMIC_RELEASE);
}

struct doorbell *doorbell_from_fd(int fd, unsigned int flags)
{
	struct doorbell_info info;
	struct doorbell *db;

	if (flags & ~(DOORBELL_OPEN_READ | DOORBELL_OPEN_NO_RECOVER)) {
		errno = EINVAL;
		return NULL;
	}
	if (get_geometry(fd, &info))
		return NULL;
	/* another device may have this ioctl(), but does not fill in this */
	if (info.size < offsetof(struct doorbell_info, bound_rings)) {
		errno = ENOTTY;
		return NULL;
	}
	db = calloc(1, sizeof(*db));
	if (!db)
		return NULL;
	db->fd = fd;
	db->flags = flags;
	/* The consumer before may have died in the middle of its work. */
	if (!(flags & DOORBELL_OPEN_NO_RECOVER) &&
	    ioctl(fd, DOORBELL_RECOVER, 0) && errno != ENOTCONN) {
		free(db);
		return NULL;
	}
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
	mark_handled(db, handled_position(db, db->nr_held));
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
	/* The kernel does not know of these. */
	if (has_own_events(db) && !(arg->flags & DOORBELL_ATTACH_DROP))
		return -ENOTEMPTY;
	if (ioctl(db->fd, DOORBELL_ATTACH, &sized))
		return -errno;
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

int doorbell_move_region(struct doorbell *db, int vm_fd, __u64 base)
{
	struct doorbell_move arg = {
		.size = sizeof(arg), .vm_fd = vm_fd, .base = base,
	};

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
	const __u32 *fifo = db->fifo + first, *entry, *end;

	if (max > db->mask - first + 1)
		max = db->mask - first + 1;
	for (entry = fifo, end = fifo + max; entry < end; entry++, events++) {
		__u32 slot = __atomic_load_n(entry, __ATOMIC_ACQUIRE) - lap;

		/* larger than any slot in an entry of another lap */
		if (slot >= db->nr_slots)
			break;
		events->queue = slot;
	}
	return entry - fifo;
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
		__u64 rings = __atomic_load_n(&slot->rings, __ATOMIC_ACQUIRE);
		__u64 count = (rings - old) >> DOORBELL_RINGS_SHIFT;
		/* not of the difference: others can write seen */
		__u16 kind = rings;

		/* rare: none, or very many */
		if (__builtin_expect((count - 1) >> 31, 0)) {
			if (!count)
				continue;
			if (count > UINT32_MAX) {
				count = UINT32_MAX;
				db->partial[db->nr_partial++] = index;
			}
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

/* Step 1, at most to the end of this lap; sets @head past the entries. */
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
	return n;
}

static inline unsigned int take_ordered(struct doorbell *db,
					struct doorbell_event *events,
					unsigned int max)
{
	__u64 head = __atomic_load_n(&db->control->head, __ATOMIC_RELAXED);
	unsigned int n, taken = 0;

	do {
		n = ordered_events(db, &head, events + taken, max - taken);
		taken += n;
	} while (n && taken < max && !(head & db->mask));
	if (taken)
		__atomic_store_n(&db->control->head, head, __ATOMIC_RELEASE);
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

/* Go on with the region that is attached now. */
static __attribute__((noinline)) void remap(struct doorbell *db)
{
	db->nr_partial = 0;
	unmap(db);
	map(db);
}

/*
 * Take events that are not held; @max is 1 to TAKE_MAX. The last @held events
 * that were taken are not handled.
 */
static inline int take_new(struct doorbell *db, struct doorbell_event *events,
			   unsigned int max, unsigned int held)
{
	unsigned int n = 0;
	bool old;

	if (db->map_later)
		map(db);
	while (db->control) {
		old = replaced(db);
		if (old && dropped(db))
			n = 0;
		else if (!db->entries)
			n = take_coalesced(db, events, max);
		else if (held < db->kept)
			n = take_ordered(db, events, max < db->kept - held ?
						     max : db->kept - held);
		if (n)
			db->taken = __atomic_load_n(&db->control->head,
						    __ATOMIC_RELAXED);
		if (n || !old || held)
			return n;
		remap(db);
	}
	/* read() says that all events before are handled */
	return held ? 0 : take_by_read(db, events, max);
}

static unsigned int take_held(struct doorbell *db,
			      struct doorbell_event *events, unsigned int max)
{
	unsigned int n;

	if (db->control && replaced(db) && dropped(db))
		db->nr_held = 0;
	n = db->nr_held < max ? db->nr_held : max;
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

	if (!max)
		return 0;
	mark_handled(db, handled_position(db, db->nr_held));
	if (max > TAKE_MAX)
		max = TAKE_MAX;
	if (db->nr_held)
		held = take_held(db, events, max);
	if (held == max)
		return held;
	n = take_new(db, events + held, max - held, held);
	if (n < 0)
		return held ? (int)held : n;
	return held + n;
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
		return readable(db) || replaced(db);
	}
	/* poll() arms. The caller's epoll_wait() or poll() reports the end. */
	ret = doorbell_wait(db, 0);
	return ret == -EPIPE ? 0 : ret;
}

int doorbell_wait(struct doorbell *db, int timeout)
{
	struct pollfd pfd = { .fd = db->fd, .events = POLLIN };
	int ret;

	/* doorbell_take() goes on with the region that is attached now */
	if (has_own_events(db) || (db->control && replaced(db)))
		return 1;
	ret = poll(&pfd, 1, timeout);
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
	struct doorbell_event event;
	__u32 generation;
	__u64 pos;
	int n, ret;

	for (;;) {
		while (db->nr_held) {
			/* @notify may take events: no pointer into held[] */
			if (!take_held(db, &event, 1))
				break;
			/* nor is what it takes handled, or of this region */
			pos = handled_position(db, db->nr_held);
			generation = db->generation;
			ret = notify(event.queue, &event, ctx);
			if (db->control && db->generation == generation)
				mark_handled(db, pos);
			if (ret)
				return ret;
		}
		mark_handled(db, handled_position(db, 0));
		n = take_new(db, db->held, BATCH, 0);
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
