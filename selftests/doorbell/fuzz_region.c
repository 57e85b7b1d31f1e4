// SPDX-License-Identifier: GPL-2.0
/*
 * What rings become and consumers get, from userspace-api.rst and the uapi
 * header alone.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "fuzz_model.h"
#include "vmm.h"

void *model_alloc(struct model *m, size_t size)
{
	void **mem = calloc(1, sizeof(*mem) + size);

	if (!mem)
		abort();
	*mem = m->memory;
	m->memory = mem;
	return mem + 1;
}

bool model_is_full(const struct model_region *r)
{
	return IS(r, ORDERED) && r->tail - r->head >= r->info.depth;
}

/* Rings that no event has counted */
static __u64 fresh(const struct model_slot *s)
{
	return s->rings - s->seen;
}

static struct model_slot *slot_at(const struct model_region *r, __u64 pos)
{
	const struct doorbell_event *e = &r->entry[pos];

	return &r->slot[e->type ? r->info.queues : e->queue];
}

static bool has_event(const struct model_region *r, __u64 pos)
{
	return IS(r, ORDERED) || fresh(slot_at(r, pos));
}

bool model_is_ready(const struct model_region *r)
{
	__u64 pos = r->head;

	while (pos < r->tail && !has_event(r, pos))
		pos++;
	return pos < r->tail;
}

__u64 model_pending(const struct model_region *r)
{
	__u64 sum = IS(r, ORDERED) ? r->tail - r->head : 0;
	__u32 s;

	for (s = 0; s < r->nr_slots; s++)
		sum += fresh(&r->slot[s]);
	return sum;
}

/* What a write names; the count of the event is not known yet. */
struct doorbell_event model_name(const struct model_region *r, __u64 addr,
				 __u64 value, unsigned int width)
{
	struct doorbell_event e = { .value = value, .width = width };
	__u64 queue = IS(r, BY_VALUE) ? value & 0xffff :
		      (addr - r->info.base) / r->info.stride;

	if (addr < r->info.base || addr - r->info.base >= r->info.len) {
		e.type = DOORBELL_EVENT_BAD_ADDRESS;
		e.value = addr;
	} else if (queue >= r->info.queues) {
		e.type = DOORBELL_EVENT_BAD_QUEUE;
	} else if (IS(r, NO_VALUE)) {
		e.value = 0;
		e.width = 0;
	}
	e.queue = e.type ? DOORBELL_QUEUE_NONE : queue;
	return e;
}

static void append(struct model *m, struct model_region *r,
		   const struct doorbell_event *e)
{
	struct doorbell_event *old = r->entry;

	if (!(r->tail & (r->tail - 1))) {	/* an array twice as large */
		r->entry = model_alloc(m, 2 * (r->tail + 1) * sizeof(*e));
		memcpy(r->entry, old ?: e, r->tail * sizeof(*e));
	}
	r->entry[r->tail++] = *e;
}

/* One ring: 0, or the error of write() */
int model_ring(struct model *m, struct model_region *r, struct doorbell_event e)
{
	struct model_slot *s;

	if (!e.type && r->bound[e.queue]) {
		++*r->bound[e.queue];
		r->bound_rings[e.queue]++;
		r->info.bound_rings++;
		r->info.rings++;
		return 0;
	}
	if (IS(r, BOUND_ONLY))
		return -ENXIO;
	if (model_is_full(r))
		return -EAGAIN;
	++*(e.type ? &r->info.bad_rings : &r->info.rings);
	r->info.wakeups += r->armed;
	r->armed = false;
	e.count = 1;
	if (!IS(r, ORDERED)) {
		s = &r->slot[e.type ? r->info.queues : e.queue];
		s->rings++;
		s->last = e;
		if (s->queued)
			return 0;
		s->queued = true;
	}
	append(m, r, &e);
	return 0;
}

static void consume_to(struct model_region *r, __u64 pos)
{
	for (; r->head < pos; r->head++)
		if (!IS(r, ORDERED))
			slot_at(r, r->head)->queued = false;
}

/* The event at a position. It counts all rings of its queue. */
static struct doorbell_event count(struct model_region *r, __u64 pos)
{
	struct model_slot *s = slot_at(r, pos);
	struct doorbell_event e;

	if (IS(r, ORDERED))
		return r->entry[pos];
	e = s->last;
	e.count = fresh(s);
	s->seen = s->rings;
	return e;
}

/*
 * A consumer takes up to @max events, and looks for one more if @looks: it has
 * room for that one, which faults. read() leaves entries without an event that
 * come last, unless it finds none; the library passes them.
 */
void model_take(struct model_region *r, unsigned int max, bool looks,
		bool passes, struct fuzz_result *want)
{
	__u64 pos = r->head;

	for (; pos < r->tail && (want->ret < max || looks); pos++) {
		if (!has_event(r, pos))
			continue;
		if (want->ret == max)
			break;
		want->event[want->ret++] = count(r, pos);
		consume_to(r, pos + 1);
	}
	if (!want->ret || passes || pos < r->tail)
		consume_to(r, pos);
}

/* Most events to take at a time, of @max: a successor can get them again. */
__u32 model_most(const struct doorbell_info *info, __u32 max)
{
	__u32 kept = info->nr_entries - info->depth;

	return !(info->flags & DOORBELL_ATTACH_ORDERED) || max < kept ? max :
								       kept;
}

/* Ordered: the events since handled, or all that are kept, come again. */
static void recover_ordered(struct model_region *r)
{
	__u64 most = model_most(&r->info, -1);

	if (r->head > r->handled + most)
		r->handled = r->head - most;
	if (r->tail > r->handled + r->info.nr_entries)
		r->handled = r->tail - r->info.nr_entries;
	if (r->head > r->handled)
		r->head = r->handled;
	r->handled = r->head;
	if (model_is_ready(r))
		r->armed = false;
}

/* Coalescing: they come again with all rings of their queues. */
void model_recover(struct model *m, struct model_region *r)
{
	bool all = r->tail - r->handled > r->info.nr_entries;
	__u32 s;

	if (IS(r, ORDERED)) {
		recover_ordered(r);
		return;
	}
	all = all && r->handled < r->head;
	for (; r->handled < r->head; r->handled++)
		slot_at(r, r->handled)->seen = 0;
	for (s = 0; s < r->nr_slots; s++) {
		if (all)
			r->slot[s].seen = 0;
		if (!fresh(&r->slot[s]))
			continue;
		if (!r->slot[s].queued)
			append(m, r, &r->slot[s].last);
		r->slot[s].queued = true;
		r->armed = false;
	}
}

/* Steps of the mapped protocol */

void model_peek(struct model_map *map, __u64 max, struct fuzz_result *want)
{
	struct model_region *r = map->region;

	max = model_most(&r->info, max);
	r->handled = r->head;
	map->first = r->head;
	map->noted = r->tail - r->head < max ? r->tail - r->head : max;
	want->head = r->head;
	for (; want->ret < map->noted; want->ret++) {
		struct doorbell_event *e = &want->event[want->ret];

		*e = r->entry[r->head + want->ret];
		if (!IS(r, ORDERED))
			*e = (struct doorbell_event) {
				.queue = slot_at(r, r->head + want->ret) -
					 r->slot,
			};
	}
}

void model_consume(struct model_map *map)
{
	consume_to(map->region, map->first + map->noted);
	map->consumed = !IS(map->region, ORDERED);
	if (!map->consumed)
		map->noted = 0;
}

void model_count(struct model_map *map, struct fuzz_result *want)
{
	for (; map->noted; map->noted--)
		want->event[want->ret++] = count(map->region, map->first++);
	map->consumed = false;
}

/* Guests */

/* The region that has all of these bytes, or, if @any, one of them */
struct model_region *model_region_at(const struct model *m,
				     const struct fuzz_op *op, __u64 addr,
				     unsigned int width, bool any)
{
	struct model_region *r;
	__u64 end;

	for (r = m->regions; r; r = r->next) {
		end = r->info.base + r->info.len;
		if (r->vm == m->vm[op->to] && IS(r, PIO) == op->pio &&
		    r->info.state == DOORBELL_ATTACHED &&
		    (any ? addr < end && addr + width > r->info.base :
			   addr >= r->info.base && addr + width <= end))
			return r;
	}
	return NULL;
}

static bool rings(struct model *m, struct model_region *r, __u64 addr,
		  __u64 value, unsigned int width)
{
	bool exact = (addr - r->info.base) % r->info.stride == 0;
	int ret;

	exact &= width == r->info.stride || IS(r, NO_VALUE);
	exact &= value < r->info.queues || !IS(r, BY_VALUE);
	if (IS(r, EXACT) && !exact)
		return false;
	ret = model_ring(m, r, model_name(r, addr, value, width));
	r->info.bounced += ret == -EAGAIN;
	return !ret;
}

void model_guest(struct model *m, const struct fuzz_op *op,
		 struct fuzz_result *want)
{
	__u64 addr = op->addr, end = addr + op->width, value = op->value;
	struct model_region *r;
	struct fuzz_exit e;

	while (addr < end) {
		e = (struct fuzz_exit) {
			.addr = addr, .pio = op->pio, .is_read = op->is_read,
			.width = end - addr,
		};
		/* KVM handles the part in each page on its own, if it does. */
		if (!op->pio && vmm_splits_pages &&
		    addr / FUZZ_PAGE != (end - 1) / FUZZ_PAGE)
			e.width = FUZZ_PAGE - addr % FUZZ_PAGE;
		e.data = value & ~0ULL >> (64 - 8 * e.width);
		value = e.width < 8 ? value >> 8 * e.width : 0;
		addr += e.width;
		if (op->is_read)
			e.data = 0;
		r = model_region_at(m, op, e.addr, e.width, false);
		if (op->is_read || !r ||
		    !rings(m, r, e.addr, e.data, e.width))
			want->exit[want->nr_exits++] = e;
	}
}
