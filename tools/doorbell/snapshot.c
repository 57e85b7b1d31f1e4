// SPDX-License-Identifier: GPL-2.0
/*
 * Snapshot: the state of a consumer's queues, from its mapped memory.
 *
 * Both areas are mapped read-only, so nothing arms or consumes, and the owner
 * gets all of its events. The mappings are gone when the function returns:
 * while they last they keep the region attached.
 */
#include <sys/ioctl.h>
#include <sys/mman.h>

#include "tool.h"

/* Another region may be attached at each step. */
#define ATTEMPTS	100

#define KIND_MASK	((1U << DOORBELL_RINGS_SHIFT) - 1)

static uint64_t load(const __u64 *from)
{
	return __atomic_load_n(from, __ATOMIC_ACQUIRE);
}

static void take_kind(struct queue_state *queue, uint64_t kind)
{
	queue->type = kind & ((1U << DOORBELL_KIND_WIDTH_SHIFT) - 1);
	queue->width = kind >> DOORBELL_KIND_WIDTH_SHIFT;
}

static void take_slots(struct snapshot *snap,
		       const struct doorbell_control *control,
		       const struct doorbell_slot *slots)
{
	uint32_t i;

	for (i = 0; i <= snap->info.queues; i++) {
		struct queue_state *queue = &snap->queue[i];
		/* seen first: it never passes rings */
		uint64_t seen = load(&control->seen[i]);
		uint64_t rings = load(&slots[i].rings);

		queue->rings = rings >> DOORBELL_RINGS_SHIFT;
		queue->pending = (rings - seen) >> DOORBELL_RINGS_SHIFT;
		queue->value = load(&slots[i].value);
		take_kind(queue, rings & KIND_MASK);
	}
}

/*
 * The position of an entry, from its index and the low 32 bits of its lap. It
 * is near @head. Return: 0 if nothing was written there yet.
 */
static uint64_t position_of(uint64_t word, uint32_t index, uint64_t head,
			    const struct doorbell_info *info)
{
	uint64_t laps = head / info->nr_entries;
	int32_t ahead = (uint32_t)(word >> DOORBELL_ENTRY_LAP_SHIFT) -
			(uint32_t)laps;

	if (!(word >> DOORBELL_ENTRY_LAP_SHIFT))
		return 0;
	return (laps + ahead) * info->nr_entries + index;
}

/*
 * Load word and value of an entry. A producer that overwrites it at this moment
 * may have stored the value only: that entry is consumed, and not the last one.
 */
static struct doorbell_entry load_entry(const struct doorbell_entry *from)
{
	struct doorbell_entry entry;

	do {
		entry.word = load(&from->word);
		entry.value = load(&from->value);
	} while (load(&from->word) != entry.word);
	return entry;
}

static void take_entries(struct snapshot *snap,
			 const struct doorbell_control *control,
			 const struct doorbell_entry *entries, uint64_t since)
{
	const struct doorbell_info *info = &snap->info;
	uint64_t head = load(&control->head);
	uint64_t last = 0, first, pos, found;
	struct doorbell_entry entry;
	struct queue_state *queue;
	uint32_t i, n;

	for (i = 0; i < info->nr_entries; i++) {
		pos = position_of(load(&entries[i].word), i, head, info);
		last = pos > last ? pos : last;
	}
	/* positions begin at nr_entries */
	first = last >= 2ULL * info->nr_entries ? last + 1 - info->nr_entries :
						  info->nr_entries;
	since = since ?: info->nr_entries;
	snap->partial = first > since;
	pos = head < since ? head : since;
	pos = pos < first ? first : pos;
	for (n = 0; n < info->nr_entries && pos <= last; n++, pos++) {
		i = pos & (info->nr_entries - 1);
		entry = load_entry(&entries[i]);
		found = position_of(entry.word, i, head, info);
		/* claimed and not yet published: for the next snapshot */
		if (found < pos)
			break;
		if (found > pos)
			continue;
		i = entry.word & ((1U << DOORBELL_ENTRY_KIND_SHIFT) - 1);
		queue = &snap->queue[i < info->queues ? i : info->queues];
		queue->rings += pos >= since;
		queue->pending += pos >= head;
		queue->value = entry.value;
		take_kind(queue, entry.word >> DOORBELL_ENTRY_KIND_SHIFT &
				 KIND_MASK);
	}
	snap->next = pos;
}

static int take_bindings(struct snapshot *snap, int fd)
{
	struct doorbell_queue_binding *bindings =
		must(calloc(snap->info.queues, sizeof(*bindings)));
	struct doorbell_bindings arg = {
		.size = sizeof(arg),
		.count = snap->info.queues,
		.bindings = (uintptr_t)bindings,
	};
	int ret = ioctl(fd, DOORBELL_BINDINGS, &arg) ? -errno : 0;
	uint32_t i;

	for (i = 0; !ret && i < snap->info.queues; i++) {
		snap->queue[i].bound = bindings[i].bound;
		snap->queue[i].bound_rings = bindings[i].rings;
	}
	free(bindings);
	return ret;
}

/* Return -EAGAIN if another region was attached in the middle. */
static int take_once(int fd, struct snapshot *snap, uint64_t since,
		     uint32_t generation)
{
	struct doorbell_info *info = &snap->info;
	struct doorbell_control *control;
	struct doorbell_status *status;
	int ret;

	*info = (struct doorbell_info) { .size = sizeof(*info) };
	if (ioctl(fd, DOORBELL_INFO, info))
		return -errno;
	if (!info->generation)
		return -ENOTCONN;
	control = mmap(NULL, info->control_size, PROT_READ, MAP_SHARED, fd, 0);
	if (control == MAP_FAILED)
		return errno == EINVAL ? -EAGAIN : -errno;
	status = mmap(NULL, info->readonly_size, PROT_READ, MAP_SHARED, fd,
		      info->control_size);
	if (status == MAP_FAILED) {
		ret = errno == EINVAL ? -EAGAIN : -errno;
		munmap(control, info->control_size);
		return ret;
	}

	snap->queue = must(calloc(info->queues + 1, sizeof(*snap->queue)));
	if (info->flags & DOORBELL_ATTACH_ORDERED)
		take_entries(snap, control,
			     (void *)((char *)status + info->entries_offset),
			     info->generation == generation ? since : 0);
	else
		take_slots(snap, control, (void *)(status + 1));
	ret = take_bindings(snap, fd);
	if (__atomic_load_n(&status->generation, __ATOMIC_ACQUIRE) !=
	    info->generation)
		ret = -EAGAIN;
	munmap(control, info->control_size);
	munmap(status, info->readonly_size);
	if (ret) {
		free(snap->queue);
		snap->queue = NULL;
	}
	return ret;
}

int snapshot_take(int fd, struct snapshot *snap, uint64_t since,
		  uint32_t generation)
{
	int i, ret = -EAGAIN;

	*snap = (struct snapshot) {};
	for (i = 0; ret == -EAGAIN && i < ATTEMPTS; i++)
		ret = take_once(fd, snap, since, generation);
	return ret;
}
