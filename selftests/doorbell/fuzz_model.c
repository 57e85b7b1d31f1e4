// SPDX-License-Identifier: GPL-2.0
/*
 * What the calls of /dev/doorbell return and change, from userspace-api.rst and
 * the uapi header alone. Where several errors apply, and they do not say which
 * one comes first, each of them is right.
 */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#include "fuzz_model.h"
#include "libdoorbell.h"

#define FLAGS	(DOORBELL_ATTACH_PIO | DOORBELL_ATTACH_ORDERED | \
		 DOORBELL_ATTACH_BY_VALUE | DOORBELL_ATTACH_NO_VALUE | \
		 DOORBELL_ATTACH_BOUND_ONLY | DOORBELL_ATTACH_DROP | \
		 DOORBELL_ATTACH_EXACT)

static void error_if(struct model *m, bool cond, int error)
{
	if (cond)
		m->error[m->nr_errors++] = -error;
}

static void set_state(struct model_region *r, enum doorbell_state state)
{
	r->info.state = state;
	r->status.state = state;
}

/* Ends */

static void put_file(struct model_file *f)
{
	if (f && !--f->refs && f->region)
		f->region->info.state = DOORBELL_DETACHED;
}

static void put_vm(struct model *m, struct model_vm *vm)
{
	struct model_region *r;

	if (!vm || --vm->refs)
		return;
	for (r = m->regions; r; r = r->next)
		if (r->vm == vm && r->info.state == DOORBELL_ATTACHED)
			set_state(r, DOORBELL_HANGUP);
}

/* A child gets all descriptors, or ends. */
static void fork_or_exit(struct model *m, struct model_kid *kid, bool ends)
{
	int i;

	kid->lives = !ends;
	for (i = 0; i <= FUZZ_FDS; i++) {
		if (ends)
			put_file(kid->file[i]);
		kid->file[i] = ends ? NULL : i < FUZZ_FDS ? m->fd[i] : m->lib;
		if (kid->file[i])
			kid->file[i]->refs++;
	}
	for (i = 0; i < FUZZ_VMS; i++) {
		if (ends)
			put_vm(m, kid->vm[i]);
		kid->vm[i] = !ends && m->held[i] ? m->vm[i] : NULL;
		if (kid->vm[i])
			kid->vm[i]->refs++;
	}
}

/* Errors */

static bool is_closed(int n)
{
	return n == FUZZ_NEGATIVE || n == FUZZ_CLOSED;
}

static void struct_errors(struct model *m, const struct fuzz_op *op, __u32 size)
{
	error_if(m, op->room < sizeof(__u32) || op->room < op->size, EFAULT);
	error_if(m, op->size < size, EINVAL);
	error_if(m, op->size > FUZZ_PAGE, E2BIG);
	error_if(m, op->size > size && op->tail, E2BIG);
}

static void state_errors(struct model *m, const struct model_region *r)
{
	error_if(m, !r || r->info.state == DOORBELL_DETACHED, ENOTCONN);
	error_if(m, r && r->info.state == DOORBELL_HANGUP, EPIPE);
}

/* The VM that @n names, for a region like @want, which is @self if it moves */
static struct model_vm *place_errors(struct model *m, int n,
				     const struct doorbell_info *want,
				     const struct model_region *self)
{
	bool pio = want->flags & DOORBELL_ATTACH_PIO, exists;
	__u64 base = want->base, end = base + want->len;
	__u64 device = (pio ? FUZZ_PIO : FUZZ_MMIO) + FUZZ_DEVICE;
	const struct model_region *r;
	struct model_vm *vm;

	error_if(m, base % want->stride || end < base, EINVAL);
	error_if(m, pio && end > 65536, EINVAL);
	error_if(m, is_closed(n) || (n >= 0 && !m->held[n]), EBADF);
	error_if(m, n == FUZZ_OTHER, EINVAL);
	if (n < 0 || !m->held[n])
		return NULL;
	vm = m->vm[n];
	error_if(m, vm->remote && m->killed, ESRCH);
	exists = base <= device && device < end;
	for (r = m->regions; r; r = r->next)
		exists |= r->info.state == DOORBELL_ATTACHED && r != self &&
			  r->vm == vm && IS(r, PIO) == pio &&
			  base < r->info.base + r->info.len &&
			  r->info.base < end;
	error_if(m, exists, EEXIST);
	return vm;
}

static void attach(struct model *m, const struct fuzz_op *op,
		   struct model_file *f, const struct fuzz_result *got,
		   struct fuzz_result *want)
{
	const struct doorbell_attach *a = &op->attach;
	struct model_region *old = f->region, *r = model_alloc(m, sizeof(*r));
	struct doorbell_info *i = &r->info;
	__u32 flags = a->flags;

	i->stride = a->stride ?: DOORBELL_STRIDE_DEFAULT;
	i->base = a->base;
	i->len = a->len;
	i->depth = a->depth;
	i->flags = flags & ~DOORBELL_ATTACH_DROP;
	i->queues = flags & DOORBELL_ATTACH_BY_VALUE ? a->queues :
		    a->len / i->stride;
	r->vm = place_errors(m, a->vm_fd, i, NULL);
	struct_errors(m, op, sizeof(*a));
	error_if(m, flags & ~FLAGS, EINVAL);
	error_if(m, IS(r, NO_VALUE) && (IS(r, PIO) || IS(r, BY_VALUE)), EINVAL);
	error_if(m, IS(r, EXACT) && !IS(r, BOUND_ONLY), EINVAL);
	error_if(m, IS(r, ORDERED) ? a->depth - 1 >= DOORBELL_DEPTH_MAX :
				     a->depth, EINVAL);
	error_if(m, a->queues && !IS(r, BY_VALUE), EINVAL);
	error_if(m, i->queues - 1 >= DOORBELL_QUEUES_MAX, EINVAL);
	error_if(m, i->stride & (i->stride - 1) || a->len % i->stride ||
		 i->stride < DOORBELL_STRIDE_MIN ||
		 i->stride > DOORBELL_STRIDE_MAX || !a->len ||
		 a->len / i->stride > DOORBELL_QUEUES_MAX, EINVAL);
	error_if(m, old && old->info.state != DOORBELL_DETACHED, EBUSY);
	error_if(m, old && model_pending(old) &&
		 !(flags & DOORBELL_ATTACH_DROP), ENOTEMPTY);
	if (m->nr_errors)
		return;

	set_state(r, DOORBELL_ATTACHED);
	i->generation = ++f->generation;
	r->status.generation = f->generation;
	fuzz_copy_sizes(i, &got->info);
	fuzz_copy_sizes(&want->info, &got->info);
	r->armed = true;
	r->bound = model_alloc(m, i->queues * sizeof(*r->bound));
	r->bound_rings = model_alloc(m, i->queues * sizeof(*r->bound_rings));
	r->nr_slots = IS(r, ORDERED) ? 0 : i->queues + 1;
	r->slot = model_alloc(m, (i->queues + 1) * sizeof(*r->slot));
	if (old) {
		old->status.generation = f->generation;
		if (flags & DOORBELL_ATTACH_DROP)
			old->status.flags = DOORBELL_STATUS_DROPPED;
	}
	r->next = m->regions;
	m->regions = r;
	f->region = r;
}

static void move(struct model *m, const struct fuzz_op *op,
		 struct model_region *r)
{
	struct doorbell_info i = { .stride = 1 };

	struct_errors(m, op, sizeof(struct doorbell_move));
	state_errors(m, r);
	if (r)
		i = r->info;
	i.base = op->base;
	if (r && r->vm && op->to == FUZZ_NONE)
		error_if(m, true, EBADF);
	if (place_errors(m, op->to, &i, r) != (r ? r->vm : NULL) ||
	    (r && !r->vm && op->to != FUZZ_NONE))
		error_if(m, true, EINVAL);
	if (!m->nr_errors)
		r->info.base = op->base;
}

/* DOORBELL_BIND and DOORBELL_BINDINGS; @arg elements of the array are there. */
static void bind(struct model *m, const struct fuzz_op *op,
		 struct model_region *r, struct fuzz_result *want)
{
	bool binds = op->kind == FUZZ_BIND;
	__u32 i;

	struct_errors(m, op, sizeof(struct doorbell_bind));
	error_if(m, op->flags || !op->count, EINVAL);
	error_if(m, r && (op->first >= r->info.queues ||
			  op->count > r->info.queues - op->first), EINVAL);
	error_if(m, op->count > op->arg, EFAULT);
	if (binds)
		state_errors(m, r);
	else
		error_if(m, !r, ENOTCONN);
	for (i = 0; binds && i < op->count && i < op->arg; i++) {
		error_if(m, is_closed(op->eventfd[i]), EBADF);
		error_if(m, op->eventfd[i] == FUZZ_OTHER, EINVAL);
	}
	for (i = 0; !m->nr_errors && i < op->count; i++) {
		__u64 **bound = &r->bound[op->first + i];

		if (binds) {
			*bound = op->eventfd[i] < 0 ? NULL :
				 m->eventfd[op->eventfd[i]];
			continue;
		}
		want->binding[i].bound = !!*bound;
		want->binding[i].rings = r->bound_rings[op->first + i];
	}
}

static void info(struct model *m, const struct fuzz_op *op,
		 const struct model_region *r, struct fuzz_result *want)
{
	struct doorbell_info *i = &want->info;

	error_if(m, op->room < sizeof(__u32) || op->room < op->size, EFAULT);
	error_if(m, op->size < offsetof(struct doorbell_info, base), EINVAL);
	error_if(m, op->size > FUZZ_PAGE, E2BIG);
	if (m->nr_errors)
		return;
	if (r) {
		*i = r->info;
		i->pending = model_pending(r);
	}
	i->size = sizeof(*i);
	i->features = DOORBELL_FEATURES;
	if (op->size < sizeof(*i))
		memset((char *)i + op->size, 0, sizeof(*i) - op->size);
}

static long write_rings(struct model *m, const struct fuzz_op *op,
			struct model_file *f)
{
	struct model_region *r = f->region;
	const struct doorbell_ring *next = op->ring;
	__u32 done = 0, batch = 0;
	int ret = 0;

	error_if(m, (f->flags & O_ACCMODE) == O_RDONLY, EBADF);
	error_if(m, !op->size || op->size % sizeof(*next), EINVAL);
	state_errors(m, r);
	if (m->nr_errors)
		error_if(m, op->room < op->size, EFAULT);
	for (; !m->nr_errors && done < op->size; done += sizeof(*next)) {
		/* up to 16 rings are fetched before the first of them rings */
		if (done == batch)
			batch = batch + 256 < op->size ? batch + 256 : op->size;
		ret = op->room < batch ? -EFAULT :
		      model_ring(m, r, model_name(r, next->addr, next->value,
						  0));
		if (ret)
			break;
		next++;
	}
	return done ? (long)done : ret;
}

static void read_events(struct model *m, const struct fuzz_op *op,
			struct model_file *f, struct fuzz_result *want)
{
	__u32 room = op->room < op->size ? op->room : op->size;
	struct model_region *r = f->region;
	bool some = r && model_is_ready(r);

	error_if(m, (f->flags & O_ACCMODE) == O_WRONLY, EBADF);
	error_if(m, op->size < EVENT_SIZE, EINVAL);
	if (r && !m->nr_errors) {
		r->armed = true;
		r->handled = r->head;
		model_take(r, model_most(&r->info, room / EVENT_SIZE),
			   room / EVENT_SIZE < op->size / EVENT_SIZE, false,
			   want);
		want->ret *= EVENT_SIZE;
	}
	error_if(m, some && room < EVENT_SIZE, EFAULT);
	error_if(m, !some && (!r || r->info.state != DOORBELL_HANGUP), EAGAIN);
}

static long poll_bits(struct model_region *r)
{
	long bits = 0;

	if (!r)
		return 0;
	if (model_is_ready(r))
		bits |= POLLIN | POLLRDNORM;
	if (r->info.state == DOORBELL_ATTACHED && !model_is_full(r))
		bits |= POLLOUT | POLLWRNORM;
	if (r->info.state == DOORBELL_HANGUP)
		bits |= POLLHUP;
	r->armed = true;
	return bits;
}

static void mmap_some(struct model *m, const struct fuzz_op *op,
		      const struct model_file *f, struct fuzz_result *want)
{
	const struct model_region *r = f->region;
	__u64 control = r ? r->info.control_size : 0;
	__u64 end = control + (r ? r->info.readonly_size : 0);
	__u64 size = (op->size + FUZZ_PAGE - 1) / FUZZ_PAGE * FUZZ_PAGE;
	__u64 start = fuzz_mmap_start(op, control, end);
	bool writable = start < control && (f->flags & O_ACCMODE) == O_RDWR;

	error_if(m, !r, ENOTCONN);
	error_if(m, op->private || !size || start + size > end, EINVAL);
	error_if(m, start < control && start + size > control, EINVAL);
	error_if(m, (f->flags & O_ACCMODE) == O_WRONLY, EACCES);
	error_if(m, op->prot & PROT_WRITE && !writable, EACCES);
	if (!m->nr_errors)	/* of mprotect() afterwards */
		want->counter = writable ? 0 : EACCES;
}

/* The library's caller has handled what it took: say so, unless others did. */
static void lib_handled(struct model *m)
{
	if (m->lib_took && m->lib_took->handled < m->lib_head)
		m->lib_took->handled = m->lib_head;
}

void model_does(struct model *m, const struct fuzz_op *op,
		const struct fuzz_result *got, struct fuzz_result *want)
{
	struct model_file *f = m->fd[op->fd];
	struct model_region *r = f ? f->region : NULL;
	struct model_map *map = &m->map[op->to];
	unsigned int i;
	bool reads;

	memset(want, 0, sizeof(*want));
	m->nr_errors = 0;
	switch (op->kind) {
	case FUZZ_OPEN:
		f = model_alloc(m, sizeof(*f));
		m->fd[op->fd] = f;
		f->refs = 1;
		f->flags = op->flags;
		break;
	case FUZZ_DUP:
		m->fd[op->to] = f;
		f->refs++;
		break;
	case FUZZ_CLOSE:
		m->fd[op->fd] = NULL;
		put_file(f);
		break;
	case FUZZ_FORK:
	case FUZZ_KID_EXIT:
		fork_or_exit(m, &m->kid[op->to], op->kind == FUZZ_KID_EXIT);
		break;
	case FUZZ_ATTACH:
		attach(m, op, f, got, want);
		break;
	case FUZZ_DETACH:
		error_if(m, op->arg, EINVAL);
		error_if(m, !r || r->info.state == DOORBELL_DETACHED, ENOTCONN);
		if (!m->nr_errors)
			set_state(r, DOORBELL_DETACHED);
		break;
	case FUZZ_MOVE:
		move(m, op, r);
		break;
	case FUZZ_BIND:
	case FUZZ_BINDINGS:
		bind(m, op, r, want);
		break;
	case FUZZ_INFO:
		info(m, op, r, want);
		break;
	case FUZZ_RECOVER:
		error_if(m, op->arg, EINVAL);
		error_if(m, !r, ENOTCONN);
		if (!m->nr_errors)
			model_recover(m, r);
		break;
	case FUZZ_IOCTL:
		error_if(m, true, ENOTTY);
		break;
	case FUZZ_WRITE:
		want->ret = write_rings(m, op, f);
		break;
	case FUZZ_READ:
		read_events(m, op, f, want);
		break;
	case FUZZ_POLL:
		want->ret = poll_bits(r);
		break;
	case FUZZ_SEEK:
		error_if(m, true, ESPIPE);
		break;
	case FUZZ_EVENTFD_READ:
		error_if(m, !*m->eventfd[op->to], EAGAIN);
		want->ret = sizeof(want->counter);
		want->counter = *m->eventfd[op->to];
		*m->eventfd[op->to] = 0;
		break;
	case FUZZ_EVENTFD_NEW:
		m->eventfd[op->to] = model_alloc(m, sizeof(*m->eventfd[0]));
		break;
	case FUZZ_VM_NEW:
		m->vm[op->to] = model_alloc(m, sizeof(*m->vm[0]));
		m->vm[op->to]->remote = op->to == FUZZ_VMS - 1;
		m->vm[op->to]->refs = 1 + m->vm[op->to]->remote;
		m->held[op->to] = true;
		m->runs[op->to] = true;
		break;
	case FUZZ_VM_END:
		m->runs[op->to] = false;
		m->held[op->to] &= m->vm[op->to]->remote;
		put_vm(m, m->vm[op->to]);
		break;
	case FUZZ_VM_CLOSE:
		m->held[op->to] = false;
		put_vm(m, m->vm[op->to]);
		break;
	case FUZZ_VMM_KILL:
		m->killed = true;
		if (m->runs[FUZZ_VMS - 1])
			put_vm(m, m->vm[FUZZ_VMS - 1]);
		m->runs[FUZZ_VMS - 1] = false;
		break;
	case FUZZ_GUEST:
		model_guest(m, op, want);
		break;
	case FUZZ_MAP:
		error_if(m, !r, ENOTCONN);
		error_if(m, (f->flags & O_ACCMODE) != O_RDWR, EACCES);
		if (m->nr_errors)
			break;
		map->file = f;
		map->region = r;
		f->refs++;
		break;
	case FUZZ_UNMAP:
		put_file(map->file);
		memset(map, 0, sizeof(*map));
		break;
	case FUZZ_MMAP:
		mmap_some(m, op, f, want);
		break;
	case FUZZ_STATUS:
		want->status = map->region->status;
		break;
	case FUZZ_ARM:
		map->region->armed = true;
		want->ret = map->region->head < map->region->tail;
		break;
	case FUZZ_PEEK:
		model_peek(map, op->arg, want);
		break;
	case FUZZ_CONSUME:
		model_consume(map);
		break;
	case FUZZ_COUNT:
		model_count(map, want);
		break;
	case FUZZ_LIB_OPEN:
		m->lib = f;
		m->lib_flags = op->flags;
		m->lib_took = NULL;
		f->refs++;
		if (r && !(op->flags & DOORBELL_OPEN_NO_RECOVER))
			model_recover(m, r);
		break;
	case FUZZ_LIB_TAKE:
		reads = m->lib_flags & DOORBELL_OPEN_READ;
		r = m->lib->region;
		if (!r)
			break;
		r->armed |= reads;
		if (reads)
			r->handled = r->head;
		else
			lib_handled(m);
		model_take(r, model_most(&r->info, op->arg), false, !reads,
			   want);
		if (reads || !want->ret)
			break;
		m->lib_took = r;
		m->lib_head = r->head;
		break;
	case FUZZ_LIB_CLOSE:
		lib_handled(m);
		put_file(m->lib);
		m->lib = NULL;
		break;
	default:
		break;
	}
	if (!m->nr_errors)
		return;
	want->ret = m->error[0];
	for (i = 0; i < m->nr_errors; i++)
		if (got->ret == m->error[i])
			want->ret = got->ret;
}

void model_init(struct model *m)
{
	int i;

	memset(m, 0, sizeof(*m));
	for (i = 0; i < FUZZ_EVENTFDS; i++)
		m->eventfd[i] = model_alloc(m, sizeof(*m->eventfd[i]));
}

void model_free(struct model *m)
{
	void **mem = m->memory, **next;

	for (; mem; mem = next) {
		next = *mem;
		free(mem);
	}
}
