// SPDX-License-Identifier: GPL-2.0
/*
 * Bind: queues bound to eventfds, with guests and without; bindings that change
 * while the guest rings; regions that leave unbound queues to the VMM.
 *
 * Each ring that the guest counted is one of these: a count of an eventfd, a
 * count of an event, or an exit.
 */
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/resource.h>

#include "cgroup.h"
#include "vmutil.h"

#define ORDERED		DOORBELL_ATTACH_ORDERED
#define BY_VALUE	DOORBELL_ATTACH_BY_VALUE
#define NO_VALUE	DOORBELL_ATTACH_NO_VALUE
#define BOUND_ONLY	DOORBELL_ATTACH_BOUND_ONLY

#define VCPUS		4
#define DEPTH		(1U << 14)
#define BASE		MMIO_BASE

/* A value that names a queue, and the rest of which is not zero */
#define VALUE(queue)	(0x50000U | (queue))

/* By a guest that names queues by value: rings of each queue by each vCPU */
#define CHUNKS		8
#define CHUNK		6

static struct doorbell_queue_binding bindings[DOORBELL_QUEUES_MAX];
static struct doorbell_ring rings[DOORBELL_QUEUES_MAX];
static int fds[DOORBELL_QUEUES_MAX];

/* Eventfds */

static int new_eventfd(int flags)
{
	return db_result(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC | flags));
}

/* Take the count of an eventfd. All ones on failure */
static __u64 take_count(int fd)
{
	__u64 count;

	if (read(fd, &count, sizeof(count)) == sizeof(count))
		return count;
	return errno == EAGAIN ? 0 : -1;
}

/* Bind all of @count queues to one eventfd, or to none. */
static int bind_all(int fd, unsigned int count, int eventfd)
{
	unsigned int i;

	for (i = 0; i < count; i++)
		fds[i] = eventfd;
	return db_bind(fd, 0, count, fds);
}

/* Regions */

/* REGION_QUEUES queues by address, @queues by value */
static int attach_as(int fd, int vm_fd, __u32 flags, unsigned int queues)
{
	struct doorbell_attach arg = db_attach_arg(vm_fd, base_of(flags),
						   REGION_LEN);

	arg.stride = REGION_STRIDE;
	arg.flags = flags;
	arg.depth = flags & ORDERED ? DEPTH : 0;
	arg.queues = flags & BY_VALUE ? queues : 0;
	return db_result(ioctl(fd, DOORBELL_ATTACH, &arg));
}

static __u64 addr_of(__u32 flags, unsigned int queue)
{
	return base_of(flags) + queue * REGION_STRIDE;
}

/* Events and exits */

/**
 * struct tally - rings that signalled nothing
 * @flags: those of the region
 * @events: counts of the events of each queue
 * @exits: of each queue
 * @all_events: counts of all events
 * @all_exits: all exits
 * @wrong: events and exits that should not be
 * @exit: the last exit
 */
struct tally {
	__u32 flags;
	__u64 events[REGION_QUEUES];
	__u64 exits[REGION_QUEUES];
	__u64 all_events;
	__u64 all_exits;
	__u64 wrong;
	struct vmm_exit exit;
};

static int drain(struct tally *tally, int fd)
{
	struct doorbell_event events[64];
	int i, n;

	while ((n = read_now(fd, events, 64)) > 0) {
		for (i = 0; i < n; i++) {
			tally->all_events += events[i].count;
			if (events[i].queue < REGION_QUEUES)
				tally->events[events[i].queue] +=
					events[i].count;
			else if (!(tally->flags & BY_VALUE))
				tally->wrong++;
		}
	}
	return n;
}

static int tally_exit(void *ctx, unsigned int vcpu, struct vmm_exit *exit)
{
	struct tally *tally = ctx;
	__u64 queue = (exit->addr - base_of(tally->flags)) / REGION_STRIDE;

	if (tally->flags & BY_VALUE)
		queue = exit->data & 0xffff;
	if (!exit->is_write || exit->is_pio != !!(tally->flags & PIO))
		__atomic_fetch_add(&tally->wrong, 1, __ATOMIC_RELAXED);
	if (queue < REGION_QUEUES)
		__atomic_fetch_add(&tally->exits[queue], 1, __ATOMIC_RELAXED);
	__atomic_fetch_add(&tally->all_exits, 1, __ATOMIC_RELEASE);
	if (!vcpu)
		tally->exit = *exit;
	return 0;
}

static void count_into(struct tally *tally, struct vmm *vmm, __u32 flags)
{
	tally->flags = flags;
	vmm->exit_cb = tally_exit;
	vmm->exit_ctx = tally;
}

/* All modes, in peace */

FIXTURE(mode) {
	struct vmm *vmm;
	struct tally tally;
	int fd;
	int eventfd[REGION_QUEUES];
};

FIXTURE_VARIANT(mode) {
	__u32 flags;
};

FIXTURE_VARIANT_ADD(mode, mmio) {};
FIXTURE_VARIANT_ADD(mode, pio) { .flags = PIO };
FIXTURE_VARIANT_ADD(mode, mmio_ordered) { .flags = ORDERED };
FIXTURE_VARIANT_ADD(mode, pio_ordered) { .flags = PIO | ORDERED };
FIXTURE_VARIANT_ADD(mode, mmio_by_value) { .flags = BY_VALUE };
FIXTURE_VARIANT_ADD(mode, pio_by_value) { .flags = PIO | BY_VALUE };
FIXTURE_VARIANT_ADD(mode, mmio_by_value_ordered) {
	.flags = BY_VALUE | ORDERED
};
FIXTURE_VARIANT_ADD(mode, pio_by_value_ordered) {
	.flags = PIO | BY_VALUE | ORDERED
};
FIXTURE_VARIANT_ADD(mode, no_value) { .flags = NO_VALUE };
FIXTURE_VARIANT_ADD(mode, no_value_ordered) { .flags = NO_VALUE | ORDERED };

FIXTURE_SETUP(mode)
{
	int q;

	SKIP_WITHOUT_PORTS(variant->flags);
	self->fd = db_must_open(_metadata, O_NONBLOCK);
	self->vmm = vmm_create(VCPUS);
	ASSERT_NE(NULL, self->vmm);
	count_into(&self->tally, self->vmm, variant->flags);
	for (q = 0; q < REGION_QUEUES; q++) {
		self->eventfd[q] = new_eventfd(0);
		ASSERT_LE(0, self->eventfd[q]);
	}
}

FIXTURE_TEARDOWN(mode)
{
	int q;

	close(self->fd);
	vmm_destroy(self->vmm);
	for (q = 0; q < REGION_QUEUES; q++)
		close(self->eventfd[q]);
}

/* Bind every second queue to an eventfd of its own, or unbind all queues. */
static int bind_even(FIXTURE_DATA(mode) *self, bool on)
{
	int q;

	for (q = 0; q < REGION_QUEUES; q++)
		fds[q] = q % 2 || !on ? -1 : self->eventfd[q];
	return db_bind(self->fd, 0, REGION_QUEUES, fds);
}

/*
 * All vCPUs ring all queues. With BY_VALUE they do by a script, which the guest
 * does not count: it has a fixed number of rings.
 */
static int all_ring(struct vmm *vmm, __u32 flags)
{
	struct guest_job job = {
		.kind = GUEST_STORM, .width = 4, .pio = !!(flags & PIO),
		.base = base_of(flags), .stride = REGION_STRIDE,
		.range = { { .first = 0, .nr = REGION_QUEUES } },
		.limit = REGION_QUEUES * CHUNKS * CHUNK,
	};
	struct guest_op ops[REGION_QUEUES * CHUNKS];
	unsigned int v, i;
	int ret = 0;

	for (v = 0; !ret && v < VCPUS; v++) {
		for (i = 0; i < ARRAY_SIZE(ops); i++)
			ops[i] = (struct guest_op) {
				.kind = write_op(flags), .width = 4,
				.addr = addr_of(flags, i % REGION_QUEUES),
				.value = (i + 9 * v) % REGION_QUEUES,
				.step = 0x10000, .repeat = CHUNK,
			};
		ret = flags & BY_VALUE ?
			vmm_script(vmm, v, ops, ARRAY_SIZE(ops)) :
			vmm_job(vmm, v, &job);
		if (!ret)
			ret = vmm_thread_start(vmm, v);
	}
	while (v--)
		ret = vmm_thread_join(vmm, v) ?: ret;
	return ret;
}

/* Rings of a queue in all_ring(), which ran once */
static __u64 rung(const struct vmm *vmm, __u32 flags, unsigned int queue)
{
	return flags & BY_VALUE ? VCPUS * CHUNKS * CHUNK :
				  guest_count(vmm->shared, queue);
}

static int write_ring(int fd, __u32 flags, unsigned int queue)
{
	return db_ring(fd, addr_of(flags, queue), VALUE(queue));
}

/*
 * Rings of the guest and of write(): the eventfd of each bound queue has all of
 * them, events those of all other queues, and the counters both.
 */
TEST_F_TIMEOUT(mode, each_ring_does_one_of_two, TEST_SECONDS)
{
	const __u32 flags = variant->flags;
	__u64 count, all = 0, bound = 0;
	struct doorbell_info info;
	unsigned int q;

	ASSERT_EQ(0, attach_as(self->fd, self->vmm->vm_fd, flags,
			       REGION_QUEUES));
	ASSERT_EQ(0, bind_even(self, true));
	ASSERT_EQ(0, all_ring(self->vmm, flags));
	for (q = 0; q < REGION_QUEUES; q++)
		ASSERT_EQ(0, write_ring(self->fd, flags, q));
	ASSERT_EQ(0, drain(&self->tally, self->fd));

	ASSERT_EQ(0, db_bindings(self->fd, 0, REGION_QUEUES, bindings));
	for (q = 0; q < REGION_QUEUES; q++) {
		count = rung(self->vmm, flags, q) + 1;
		all += count;
		ASSERT_LT(1, count);
		ASSERT_EQ(q % 2 ? 0 : count, take_count(self->eventfd[q])) {
			TH_LOG("queue %u", q);
		}
		ASSERT_EQ(q % 2 ? count : 0, self->tally.events[q]);
		ASSERT_EQ(q % 2 ? 0 : count, bindings[q].rings);
		ASSERT_EQ(q % 2 ? 0 : 1, bindings[q].bound);
		ASSERT_EQ(0, bindings[q].reserved);
		bound += bindings[q].rings;
	}
	info = info_of(self->fd);
	ASSERT_EQ(all, info.rings);
	ASSERT_EQ(bound, info.bound_rings);
	ASSERT_EQ(all - bound, self->tally.all_events);
	ASSERT_EQ(0, info.bad_rings);
	ASSERT_EQ(0, info.pending);
	ASSERT_EQ(0, info.bounced);
	ASSERT_EQ(0, vmm_exits(self->vmm));

	/* all are events again; the counts of the eventfds stay */
	ASSERT_EQ(0, bind_even(self, false));
	for (q = 0; q < REGION_QUEUES; q++) {
		ASSERT_EQ(0, guest_write(self->vmm, flags, 4, addr_of(flags, q),
					 VALUE(q)));
		check_event(_metadata, self->fd, q,
			    flags & NO_VALUE ? 0 : VALUE(q));
		ASSERT_EQ(0, take_count(self->eventfd[q]));
	}
	ASSERT_EQ(bound, info_of(self->fd).bound_rings);
	ASSERT_EQ(all + REGION_QUEUES, info_of(self->fd).rings);
}

/* What a ring of a bound queue does not do: wake up, wait, count as pending */
TEST_F_TIMEOUT(mode, no_event, TEST_SECONDS)
{
	const __u32 flags = variant->flags;
	struct doorbell_info info;
	int i;

	ASSERT_EQ(0, attach_as(self->fd, self->vmm->vm_fd, flags,
			       REGION_QUEUES));
	/* the event from before the call remains */
	ASSERT_EQ(0, write_ring(self->fd, flags, 4));
	ASSERT_EQ(0, db_bind_one(self->fd, 4, self->eventfd[4]));
	check_event(_metadata, self->fd, 4, flags & NO_VALUE ? 0 : VALUE(4));

	ASSERT_EQ(POLLOUT, poll_now(self->fd));
	info = info_of(self->fd);
	for (i = 1; i <= 10; i++) {
		ASSERT_EQ(0, guest_write(self->vmm, flags, 4, addr_of(flags, 4),
					 VALUE(4)));
		ASSERT_EQ(0, write_ring(self->fd, flags, 4));
		ASSERT_EQ(POLLIN, db_poll(self->eventfd[4], POLLIN, 0));
		ASSERT_EQ(POLLOUT, poll_now(self->fd));
	}
	ASSERT_EQ(20, take_count(self->eventfd[4]));
	ASSERT_TRUE(db_is_empty(self->fd));
	ASSERT_EQ(info.wakeups, info_of(self->fd).wakeups);
	ASSERT_EQ(info.rings + 20, info_of(self->fd).rings);
	ASSERT_EQ(20, info_of(self->fd).bound_rings);
	ASSERT_EQ(0, info_of(self->fd).pending);
	ASSERT_EQ(0, vmm_exits(self->vmm));
}

/* BOUND_ONLY: all vCPUs' rings of unbound queues are exits. */
TEST_F_TIMEOUT(mode, bound_only, TEST_SECONDS)
{
	const __u32 flags = variant->flags | BOUND_ONLY;
	__u64 count, bound = 0;
	unsigned int q;

	ASSERT_EQ(0, attach_as(self->fd, self->vmm->vm_fd, flags,
			       REGION_QUEUES));
	ASSERT_EQ(flags, info_of(self->fd).flags);
	ASSERT_EQ(0, bind_even(self, true));
	ASSERT_EQ(0, all_ring(self->vmm, flags));
	for (q = 0; q < REGION_QUEUES; q++)
		ASSERT_EQ(q % 2 ? -ENXIO : 0, write_ring(self->fd, flags, q));
	for (q = 0; q < REGION_QUEUES; q++) {
		count = rung(self->vmm, flags, q);
		ASSERT_EQ(q % 2 ? count : 0, self->tally.exits[q]) {
			TH_LOG("queue %u", q);
		}
		count = q % 2 ? 0 : count + 1;
		ASSERT_EQ(count, take_count(self->eventfd[q]));
		bound += count;
	}
	ASSERT_EQ(0, self->tally.wrong);
	ASSERT_TRUE(db_is_empty(self->fd));
	ASSERT_EQ(bound, info_of(self->fd).bound_rings);
	ASSERT_EQ(bound, info_of(self->fd).rings);
	ASSERT_EQ(0, info_of(self->fd).bad_rings);
	ASSERT_EQ(0, info_of(self->fd).bounced);
	ASSERT_EQ(0, info_of(self->fd).wakeups);
}

/* BOUND_ONLY: the VMM sees what the guest did, even if nothing is bound. */
TEST_F_TIMEOUT(mode, bound_only_exits, TEST_SECONDS)
{
	const __u32 flags = variant->flags | BOUND_ONLY;
	__u64 base = base_of(flags), exits = 0;
	struct vmm_exit *exit = &self->tally.exit;
	unsigned int q, turn;

	ASSERT_EQ(0, attach_as(self->fd, self->vmm->vm_fd, flags,
			       REGION_QUEUES));
	/* nothing bound, half of it, nothing any more */
	for (turn = 0; turn < 3; turn++) {
		if (turn)
			ASSERT_EQ(0, bind_even(self, turn == 1));
		for (q = 0; q < REGION_QUEUES; q++) {
			ASSERT_EQ(0, guest_write(self->vmm, flags, 4,
						 addr_of(flags, q), VALUE(q)));
			if (turn == 1 && q % 2 == 0) {
				ASSERT_EQ(1, take_count(self->eventfd[q]));
				continue;
			}
			ASSERT_EQ(0, take_count(self->eventfd[q]));
			ASSERT_EQ(++exits, vmm_exits(self->vmm));
			ASSERT_EQ(addr_of(flags, q), exit->addr);
			ASSERT_EQ(VALUE(q), exit->data);
			ASSERT_EQ(4, exit->len);
		}
		/* a value that names no queue */
		if (flags & BY_VALUE) {
			ASSERT_EQ(0, guest_write(self->vmm, flags, 4, base,
						 VALUE(REGION_QUEUES)));
			ASSERT_EQ(++exits, vmm_exits(self->vmm));
			ASSERT_EQ(base, exit->addr);
			ASSERT_EQ(VALUE(REGION_QUEUES), exit->data);
			ASSERT_EQ(-ENXIO, db_ring(self->fd, base,
						  VALUE(REGION_QUEUES)));
		}
		ASSERT_EQ(-ENXIO, db_ring(self->fd, base + REGION_LEN, 0));
		ASSERT_EQ(-ENXIO, db_ring(self->fd, base - 4, 0));
	}
	ASSERT_EQ(0, self->tally.wrong);
	ASSERT_TRUE(db_is_empty(self->fd));
	ASSERT_EQ(REGION_QUEUES / 2, info_of(self->fd).rings);
	ASSERT_EQ(0, info_of(self->fd).bad_rings);
}

/* Bindings end with the region. */
TEST_F_TIMEOUT(mode, detach, TEST_SECONDS)
{
	const __u32 flags = variant->flags;
	unsigned int q;

	ASSERT_EQ(0, attach_as(self->fd, self->vmm->vm_fd, flags,
			       REGION_QUEUES));
	ASSERT_EQ(0, bind_even(self, true));
	ASSERT_EQ(0, write_ring(self->fd, flags, 2));
	ASSERT_EQ(1, take_count(self->eventfd[2]));
	ASSERT_EQ(0, db_detach(self->fd));
	ASSERT_EQ(0, guest_write(self->vmm, flags, 4, addr_of(flags, 2),
				 VALUE(2)));
	ASSERT_EQ(1, vmm_exits(self->vmm));
	ASSERT_EQ(-ENOTCONN, write_ring(self->fd, flags, 2));
	ASSERT_EQ(-ENOTCONN, bind_even(self, true));
	/* that of the region attached last */
	ASSERT_EQ(0, db_bindings(self->fd, 2, 1, bindings));
	ASSERT_EQ(1, bindings[0].rings);

	ASSERT_EQ(0, attach_as(self->fd, self->vmm->vm_fd, flags,
			       REGION_QUEUES));
	ASSERT_EQ(0, db_bindings(self->fd, 0, REGION_QUEUES, bindings));
	for (q = 0; q < REGION_QUEUES; q++) {
		ASSERT_EQ(0, bindings[q].rings);
		ASSERT_EQ(0, bindings[q].bound);
		ASSERT_EQ(0, guest_write(self->vmm, flags, 4, addr_of(flags, q),
					 VALUE(q)));
		check_event(_metadata, self->fd, q,
			    flags & NO_VALUE ? 0 : VALUE(q));
		ASSERT_EQ(0, take_count(self->eventfd[q]));
	}
	ASSERT_EQ(0, info_of(self->fd).bound_rings);
	ASSERT_EQ(1, vmm_exits(self->vmm));
}

/* EPIPE after hang-up. What was bound is still to be seen. */
TEST_F_TIMEOUT(mode, hangup, TEST_SECONDS)
{
	const __u32 flags = variant->flags;
	unsigned int v;

	ASSERT_EQ(0, attach_as(self->fd, self->vmm->vm_fd, flags,
			       REGION_QUEUES));
	ASSERT_EQ(0, bind_even(self, true));
	ASSERT_EQ(0, guest_write(self->vmm, flags, 4, addr_of(flags, 6),
				 VALUE(6)));
	for (v = 0; v < VCPUS; v++)
		vmm_close_vcpu(self->vmm, v);
	vmm_close_vm(self->vmm);
	ASSERT_EQ(POLLHUP, poll_for(self->fd, POLLIN));
	ASSERT_EQ(-EPIPE, bind_even(self, false));
	ASSERT_EQ(-EPIPE, db_bind_one(self->fd, 1, self->eventfd[1]));
	ASSERT_EQ(-EPIPE, write_ring(self->fd, flags, 6));
	ASSERT_EQ(0, db_bindings(self->fd, 0, REGION_QUEUES, bindings));
	ASSERT_EQ(1, bindings[6].bound);
	ASSERT_EQ(1, bindings[6].rings);
	ASSERT_EQ(0, bindings[1].bound);
	ASSERT_EQ(1, take_count(self->eventfd[6]));
}

/* Bindings change while all vCPUs ring */

FIXTURE(load) {
	struct vmm *vmm;
	struct tally tally;
	int fd;
	int eventfd[2];
	__u64 signals;
	__u64 old_rings[REGION_QUEUES];
};

FIXTURE_VARIANT(load) {
	__u32 flags;
	unsigned int queues;
};

/* By value the guest names thousands of queues, by and by. */
#define LOAD_VARIANT(_name, _flags)					\
	FIXTURE_VARIANT_ADD(load, _name) {				\
		.flags = _flags,					\
		.queues = (_flags) & BY_VALUE ? DOORBELL_QUEUES_MAX :	\
						REGION_QUEUES,		\
	}

LOAD_VARIANT(mmio, 0);
LOAD_VARIANT(pio, PIO);
LOAD_VARIANT(ordered, ORDERED);
LOAD_VARIANT(by_value, BY_VALUE);
LOAD_VARIANT(no_value, NO_VALUE);
LOAD_VARIANT(bound_only, BOUND_ONLY);
LOAD_VARIANT(no_value_bound_only, NO_VALUE | BOUND_ONLY);

FIXTURE_SETUP(load)
{
	int i;

	SKIP_WITHOUT_PORTS(variant->flags);
	self->fd = db_must_open(_metadata, O_NONBLOCK);
	for (i = 0; i < 2; i++) {
		self->eventfd[i] = new_eventfd(0);
		ASSERT_LE(0, self->eventfd[i]);
	}
	self->vmm = vmm_create(VCPUS);
	ASSERT_NE(NULL, self->vmm);
	count_into(&self->tally, self->vmm, variant->flags);
	ASSERT_EQ(0, attach_as(self->fd, self->vmm->vm_fd, variant->flags,
			       variant->queues));
	ASSERT_EQ(0, start_ringing(self->vmm, variant->flags));
}

FIXTURE_TEARDOWN(load)
{
	close(self->fd);
	vmm_destroy(self->vmm);
	close(self->eventfd[0]);
	close(self->eventfd[1]);
}

/* Take the counts of both eventfds. */
static __u64 take_both(FIXTURE_DATA(load) *self)
{
	__u64 count = take_count(self->eventfd[0]) +
		      take_count(self->eventfd[1]);

	self->signals += count;
	return count;
}

/* Rings that have arrived somewhere: grows if the guest rings, and only then */
static __u64 arrived(FIXTURE_DATA(load) *self)
{
	return info_of(self->fd).rings + vmm_exits(self->vmm);
}

/* The guest has rung since this was called. */
static bool rings_go_on(FIXTURE_DATA(load) *self, unsigned int nr)
{
	__u64 before = arrived(self);

	return eventually(arrived(self) > before + nr);
}

/* Stop the guest. Nothing was lost, and nothing came twice. */
static void stop_and_check(struct __test_metadata *_metadata,
			   FIXTURE_DATA(load) *self,
			   const FIXTURE_VARIANT(load) *variant, bool signals)
{
	const struct tally *tally = &self->tally;
	__u64 guest, bound = 0;
	unsigned int q;

	ASSERT_EQ(0, stop_ringing(self->vmm));
	ASSERT_EQ(0, drain(&self->tally, self->fd));
	take_both(self);
	ASSERT_EQ(0, db_bindings(self->fd, 0, variant->queues, bindings));
	for (q = 0; q < variant->queues; q++)
		bound += bindings[q].rings;
	ASSERT_EQ(bound, info_of(self->fd).bound_rings);
	for (q = 0; q < REGION_QUEUES; q++)
		bound += self->old_rings[q];
	if (signals)
		ASSERT_EQ(bound, self->signals);

	guest = guest_total(self->vmm->shared);
	ASSERT_LT(0, guest);
	ASSERT_EQ(guest, bound + tally->all_events + tally->all_exits) {
		TH_LOG("%llu signals, %llu events, %llu exits", bound,
		       tally->all_events, tally->all_exits);
	}
	ASSERT_EQ(0, tally->wrong);
	if (!(variant->flags & ORDERED) && !(variant->flags & BOUND_ONLY))
		ASSERT_EQ(0, tally->all_exits);
	if (variant->flags & BOUND_ONLY)
		ASSERT_EQ(0, tally->all_events);
	if (variant->flags & BY_VALUE)
		return;
	for (q = 0; q < REGION_QUEUES; q++)
		ASSERT_EQ(guest_count(self->vmm->shared, q),
			  bindings[q].rings + self->old_rings[q] +
			  tally->events[q] + tally->exits[q]);
}

/* Bind to one eventfd, to the other one, to none; all queues, some, one. */
TEST_F_TIMEOUT(load, rebind, TEST_SECONDS)
{
	__u64 end = db_until(2000);
	unsigned int first, count, n, i;
	__u64 before = 0;
	__u32 seed = 7;

	for (i = 0; db_round(i, 12, 1000, end); i++) {
		first = i % 3 ? db_random(&seed) % variant->queues : 0;
		count = i % 3 ? 1 + db_random(&seed) %
				(variant->queues - first) : variant->queues;
		for (n = 0; n < count; n++)
			fds[n] = i % 2 ? self->eventfd[i / 2 % 2] : -1;
		/* each queue another one */
		if (i % 8 == 7)
			for (n = 0; n < count; n++)
				fds[n] = self->eventfd[n % 2];
		ASSERT_EQ(0, db_bind(self->fd, first, count, fds));
		if (i % 4 == 1)
			ASSERT_TRUE(rings_go_on(self, 20));
		ASSERT_EQ(0, drain(&self->tally, self->fd));
		take_both(self);
		ASSERT_GE(info_of(self->fd).bound_rings, before);
		before = info_of(self->fd).bound_rings;
	}
	stop_and_check(_metadata, self, variant, true);
	ASSERT_LT(0, self->signals);
	ASSERT_LT(0, self->tally.all_events + self->tally.all_exits);
}

/*
 * When the call that unbinds has returned, the eventfd is signalled no more;
 * when the call that replaces it has, the new one is.
 */
TEST_F_TIMEOUT(load, unbound_is_silent, TEST_SECONDS)
{
	int *a = &self->eventfd[0], *b = &self->eventfd[1];
	__u64 end = db_until(3000);
	unsigned int i;

	for (i = 0; db_round(i, 12, 1000, end); i++) {
		ASSERT_EQ(0, bind_all(self->fd, variant->queues, *a));
		ASSERT_EQ(POLLIN, poll_for(*a, POLLIN));
		ASSERT_EQ(0, bind_all(self->fd, variant->queues,
				      i % 2 ? -1 : *b));
		self->signals += take_count(*a);
		if (i % 4)
			db_spin(2000);
		else
			usleep(1000);
		ASSERT_EQ(0, take_count(*a)) {
			TH_LOG("round %u", i);
		}
		if (i % 2) {
			ASSERT_EQ(0, drain(&self->tally, self->fd));
		} else {
			ASSERT_EQ(POLLIN, poll_for(*b, POLLIN));
		}
		ASSERT_EQ(0, take_count(*a));
	}
	TH_LOG("%u rounds", i);
	stop_and_check(_metadata, self, variant, true);
}

/* A binding keeps its eventfd; unbinding, or another binding, frees it. */
TEST_F_TIMEOUT(load, close_eventfds, TEST_SECONDS)
{
	__u64 end = db_until(1500);
	unsigned int i;
	int fd;

	for (i = 0; db_round(i, 12, 1000, end); i++) {
		fd = new_eventfd(i % 3 ? 0 : EFD_SEMAPHORE);
		ASSERT_LE(0, fd);
		ASSERT_EQ(0, bind_all(self->fd, variant->queues, fd));
		ASSERT_EQ(0, close(fd));
		if (i % 4 == 0)
			ASSERT_TRUE(rings_go_on(self, 20));
		if (i % 2)
			ASSERT_EQ(0, bind_all(self->fd, variant->queues, -1));
		ASSERT_EQ(0, drain(&self->tally, self->fd));
	}
	stop_and_check(_metadata, self, variant, false);
}

/* Two threads bind the same queues: each has one of both eventfds, or none. */
struct binder {
	int fd;
	int eventfd;
	unsigned int queues;
	__u64 end;
	unsigned int rounds;
	int error;
};

static void *binder_main(void *arg)
{
	int *mine, ret = 0, none = -1;
	struct binder *b = arg;
	unsigned int i;

	mine = calloc(b->queues, sizeof(*mine));
	for (i = 0; mine && i < b->queues; i++)
		mine[i] = b->eventfd;
	if (!mine)
		ret = -ENOMEM;
	while (!ret && db_round(b->rounds, 10, 10000, b->end)) {
		ret = db_bind(b->fd, 0, b->queues, mine) ?:
		      db_bind(b->fd, b->rounds++ % b->queues, 1, &none);
		if (ret == -ENOTCONN)
			ret = 0;
	}
	free(mine);
	b->error = ret;
	return NULL;
}

static struct binder binder_of(FIXTURE_DATA(load) *self, unsigned int queues,
			       int eventfd)
{
	return (struct binder) {
		.fd = self->fd,
		.eventfd = eventfd,
		.queues = queues,
		.end = db_until(1500),
	};
}

TEST_F_TIMEOUT(load, two_threads_bind, TEST_SECONDS)
{
	struct binder binder[2];
	pthread_t thread[2];
	unsigned int q, events, bound = 0;
	int i;

	for (i = 0; i < 2; i++) {
		binder[i] = binder_of(self, variant->queues, self->eventfd[i]);
		ASSERT_EQ(0, pthread_create(&thread[i], NULL, binder_main,
					    &binder[i]));
	}
	while (db_now_ms() < binder[0].end) {
		ASSERT_EQ(0, drain(&self->tally, self->fd));
		usleep(1000);
	}
	for (i = 0; i < 2; i++) {
		ASSERT_EQ(0, pthread_join(thread[i], NULL));
		ASSERT_EQ(0, binder[i].error);
	}
	stop_and_check(_metadata, self, variant, true);

	/* a ring each: all bound queues signal, and all others make events */
	for (q = 0; q < variant->queues; q++) {
		rings[q].addr = variant->flags & BY_VALUE ?
			base_of(variant->flags) : addr_of(variant->flags, q);
		rings[q].value = q;
		if (variant->flags & BOUND_ONLY && !bindings[q].bound)
			rings[q].addr = addr_of(variant->flags, 0);
		bound += bindings[q].bound;
	}
	if (variant->flags & BOUND_ONLY) {
		ASSERT_EQ(0, bind_all(self->fd, variant->queues,
				      self->eventfd[1]));
		bound = variant->queues;
	}
	events = self->tally.all_events;
	ASSERT_EQ(variant->queues * sizeof(*rings),
		  write(self->fd, rings, variant->queues * sizeof(*rings)));
	ASSERT_EQ(bound, take_both(self));
	ASSERT_EQ(0, drain(&self->tally, self->fd));
	ASSERT_EQ(variant->queues - bound, self->tally.all_events - events);
}

/* Detach and attach while another thread binds. */
TEST_F_TIMEOUT(load, detach_while_binding, TEST_SECONDS)
{
	struct binder binder = binder_of(self, variant->queues,
					 self->eventfd[0]);
	pthread_t thread;
	unsigned int i, q;

	/* rings of earlier regions: their sum is enough */
	ASSERT_EQ(0, pthread_create(&thread, NULL, binder_main, &binder));
	for (i = 0; db_round(i, 6, 1000, binder.end); i++) {
		if (i % 2)
			ASSERT_TRUE(rings_go_on(self, 5));
		ASSERT_EQ(0, db_detach(self->fd));
		/* no vCPU is inside of the region: its eventfd is silent */
		self->signals += take_count(self->eventfd[0]);
		usleep(500);
		ASSERT_EQ(0, take_count(self->eventfd[0]));
		ASSERT_EQ(0, drain(&self->tally, self->fd));
		ASSERT_EQ(0, db_bindings(self->fd, 0, variant->queues,
					 bindings));
		for (q = 0; q < variant->queues; q++)
			self->old_rings[q % REGION_QUEUES] += bindings[q].rings;
		ASSERT_EQ(0, attach_as(self->fd, self->vmm->vm_fd,
				       variant->flags, variant->queues));
	}
	ASSERT_EQ(0, pthread_join(thread, NULL));
	ASSERT_EQ(0, binder.error);
	ASSERT_EQ(0, stop_ringing(self->vmm));
	ASSERT_EQ(0, drain(&self->tally, self->fd));
	take_both(self);
	ASSERT_EQ(0, db_bindings(self->fd, 0, variant->queues, bindings));
	for (q = 0; q < variant->queues; q++)
		self->old_rings[q % REGION_QUEUES] += bindings[q].rings;
	for (q = 1; q < REGION_QUEUES; q++)
		self->old_rings[0] += self->old_rings[q];
	ASSERT_EQ(self->old_rings[0], self->signals);
	ASSERT_EQ(guest_total(self->vmm->shared),
		  self->signals + self->tally.all_events +
		  self->tally.all_exits);
}

/* The eventfd as such */

FIXTURE(plain) {
	int fd;
	int eventfd[2];
};

FIXTURE_VARIANT(plain) {
	__u32 flags;
};

FIXTURE_VARIANT_ADD(plain, coalescing) {};
FIXTURE_VARIANT_ADD(plain, ordered) { .flags = ORDERED };
FIXTURE_VARIANT_ADD(plain, by_value) { .flags = BY_VALUE };
FIXTURE_VARIANT_ADD(plain, bound_only) { .flags = BOUND_ONLY };

FIXTURE_SETUP(plain)
{
	int i;

	self->fd = db_must_open(_metadata, O_NONBLOCK);
	ASSERT_EQ(0, attach_as(self->fd, -1, variant->flags, REGION_QUEUES));
	for (i = 0; i < 2; i++) {
		self->eventfd[i] = new_eventfd(0);
		ASSERT_LE(0, self->eventfd[i]);
	}
}

FIXTURE_TEARDOWN(plain)
{
	close(self->fd);
	close(self->eventfd[0]);
	close(self->eventfd[1]);
}

/* An EFD_SEMAPHORE gives away one ring at a time. */
TEST_F(plain, semaphore)
{
	int i, fd = new_eventfd(EFD_SEMAPHORE);

	ASSERT_LE(0, fd);
	ASSERT_EQ(0, db_bind_one(self->fd, 3, fd));
	for (i = 0; i < 5; i++)
		ASSERT_EQ(0, write_ring(self->fd, variant->flags, 3));
	for (i = 0; i < 5; i++)
		ASSERT_EQ(1, take_count(fd));
	ASSERT_EQ(0, take_count(fd));
	close(fd);
}

/* Queues, and regions, may share an eventfd. */
TEST_F(plain, shared)
{
	int other = db_must_open(_metadata, O_NONBLOCK);
	int fd = self->eventfd[0];
	unsigned int q;

	ASSERT_EQ(0, attach_as(other, -1, 0, 0));
	ASSERT_EQ(0, bind_all(self->fd, REGION_QUEUES, fd));
	ASSERT_EQ(0, db_bind_one(other, 1, fd));
	for (q = 0; q < REGION_QUEUES; q++)
		ASSERT_EQ(0, write_ring(self->fd, variant->flags, q));
	ASSERT_EQ(0, write_ring(other, 0, 1));
	ASSERT_EQ(REGION_QUEUES + 1, take_count(fd));
	ASSERT_EQ(0, db_bindings(self->fd, 0, REGION_QUEUES, bindings));
	for (q = 0; q < REGION_QUEUES; q++)
		ASSERT_EQ(1, bindings[q].rings);

	/* one of them goes, the others stay */
	ASSERT_EQ(0, db_bind_one(self->fd, 7, -1));
	for (q = 0; q < REGION_QUEUES; q++)
		ASSERT_EQ(q == 7 && variant->flags & BOUND_ONLY ? -ENXIO : 0,
			  write_ring(self->fd, variant->flags, q));
	ASSERT_EQ(REGION_QUEUES - 1, take_count(fd));
	ASSERT_EQ(0, close(self->fd));
	ASSERT_EQ(0, write_ring(other, 0, 1));
	ASSERT_EQ(1, take_count(fd));
	ASSERT_EQ(0, close(other));
	self->fd = db_open(O_NONBLOCK);
}

/* A full eventfd stays full, and the ring does not wait. */
TEST_F(plain, full_eventfd)
{
	__u64 most = -2;
	int i;

	ASSERT_EQ(0, db_bind_one(self->fd, 0, self->eventfd[0]));
	ASSERT_EQ(8, write(self->eventfd[0], &most, 8));
	for (i = 0; i < 5; i++)
		ASSERT_EQ(0, write_ring(self->fd, variant->flags, 0));
	ASSERT_EQ(8, read(self->eventfd[0], &most, 8));
	ASSERT_EQ(-1ULL, most);
	ASSERT_EQ(5, info_of(self->fd).bound_rings);
}

/* A ring wakes up a thread that waits for the eventfd in poll(). */
static void *wait_for_ring(void *arg)
{
	struct pollfd pfd = { .fd = *(int *)arg, .events = POLLIN };

	return (void *)(long)poll(&pfd, 1, DB_PATIENCE_MS);
}

TEST_F(plain, wakes)
{
	pthread_t thread;
	void *ret;

	ASSERT_EQ(0, db_bind_one(self->fd, 0, self->eventfd[0]));
	ASSERT_EQ(0, pthread_create(&thread, NULL, wait_for_ring,
				    &self->eventfd[0]));
	usleep(20000);
	ASSERT_EQ(0, write_ring(self->fd, variant->flags, 0));
	ASSERT_EQ(0, pthread_join(thread, &ret));
	ASSERT_EQ(1, (long)ret);
}

/* write() ends before the first record that cannot ring. */
TEST_F(plain, write_records)
{
	struct doorbell_ring three[3] = {
		{ .addr = BASE, .value = 0 },
		{ .addr = BASE + 8, .value = 1 },
		{ .addr = BASE, .value = 0 },
	};
	bool only = variant->flags & BOUND_ONLY;

	ASSERT_EQ(0, db_bind_one(self->fd, 0, self->eventfd[0]));
	ASSERT_EQ(only ? 16 : 48, write(self->fd, three, 48));
	ASSERT_EQ(only ? 1 : 2, take_count(self->eventfd[0]));
	ASSERT_EQ(only ? -ENXIO : 32, db_result(write(self->fd, &three[1],
						      32)));
	ASSERT_EQ(only ? 0 : 1, take_count(self->eventfd[0]));
	three[1].addr = BASE + REGION_LEN;
	ASSERT_EQ(only ? 16 : 48, write(self->fd, three, 48));
	ASSERT_EQ(only ? -ENXIO : 32, db_result(write(self->fd, &three[1],
						      32)));
	ASSERT_EQ(only ? 0 : 2, info_of(self->fd).bad_rings);
	ASSERT_EQ(only, db_is_empty(self->fd));
}

/* Rings of bound queues need no room in an ordered region. */
TEST_F(plain, no_room)
{
	struct doorbell_info info;
	unsigned int i;

	if (variant->flags != ORDERED)
		return;
	ASSERT_EQ(0, db_bind_one(self->fd, 0, self->eventfd[0]));
	for (i = 0; i < DEPTH; i++)
		ASSERT_EQ(0, write_ring(self->fd, variant->flags, 1));
	ASSERT_EQ(-EAGAIN, write_ring(self->fd, variant->flags, 1));
	ASSERT_EQ(0, write_ring(self->fd, variant->flags, 0));
	ASSERT_EQ(1, take_count(self->eventfd[0]));
	info = info_of(self->fd);
	ASSERT_EQ(DEPTH, info.pending);
	ASSERT_EQ(DEPTH + 1, info.rings);
}

/* Failures change nothing */

FIXTURE(failure) {
	int fd;
	int eventfd[2];
	struct db_snapshot before;
	struct doorbell_queue_binding bindings[REGION_QUEUES];
};

FIXTURE_VARIANT(failure) {
	bool bound;
};

FIXTURE_VARIANT_ADD(failure, none_bound) {};
FIXTURE_VARIANT_ADD(failure, some_bound) { .bound = true };

static void look(struct __test_metadata *_metadata, FIXTURE_DATA(failure) *self)
{
	ASSERT_EQ(0, db_snapshot(self->fd, &self->before));
	ASSERT_EQ(0, db_bindings(self->fd, 0, REGION_QUEUES, self->bindings));
}

FIXTURE_SETUP(failure)
{
	int i;

	self->fd = db_must_open(_metadata, O_NONBLOCK);
	ASSERT_EQ(0, attach_as(self->fd, -1, 0, 0));
	for (i = 0; i < 2; i++) {
		self->eventfd[i] = new_eventfd(0);
		ASSERT_LE(0, self->eventfd[i]);
	}
	if (variant->bound) {
		ASSERT_EQ(0, db_bind_one(self->fd, 0, self->eventfd[0]));
		ASSERT_EQ(0, db_bind_one(self->fd, 3, self->eventfd[0]));
	}
	ASSERT_EQ(0, write_ring(self->fd, 0, 0));
	ASSERT_EQ(0, write_ring(self->fd, 0, 1));
	take_count(self->eventfd[0]);
	look(_metadata, self);
}

FIXTURE_TEARDOWN(failure)
{
	close(self->fd);
	close(self->eventfd[0]);
	close(self->eventfd[1]);
}

static void failed(struct __test_metadata *_metadata,
		   FIXTURE_DATA(failure) *self, int error, int ret, int line)
{
	struct doorbell_queue_binding now[REGION_QUEUES];
	struct db_snapshot snap;

	EXPECT_EQ(-error, ret) {
		TH_LOG("line %d", line);
	}
	ASSERT_EQ(0, db_snapshot(self->fd, &snap));
	ASSERT_TRUE(db_same(&self->before, &snap));
	ASSERT_EQ(0, db_bindings(self->fd, 0, REGION_QUEUES, now));
	ASSERT_EQ(0, memcmp(now, self->bindings, sizeof(now))) {
		TH_LOG("line %d", line);
	}
}

#define FAILED(error, ret)	failed(_metadata, self, error, ret, __LINE__)
#define BIND(arg)		db_result(ioctl(self->fd, DOORBELL_BIND, arg))
#define BINDINGS(arg)	db_result(ioctl(self->fd, DOORBELL_BINDINGS, arg))

/* Rings go where they went before. */
static void same_rings(struct __test_metadata *_metadata,
		       FIXTURE_DATA(failure) *self, bool bound)
{
	struct doorbell_event events[REGION_QUEUES + 1];
	unsigned int q;

	db_read(self->fd, events, REGION_QUEUES + 1);
	for (q = 0; q < REGION_QUEUES; q++)
		ASSERT_EQ(0, write_ring(self->fd, 0, q));
	ASSERT_EQ(bound ? 2 : 0, take_count(self->eventfd[0]));
	ASSERT_EQ(0, take_count(self->eventfd[1]));
	ASSERT_EQ(bound ? REGION_QUEUES - 2 : REGION_QUEUES,
		  db_read(self->fd, events, REGION_QUEUES + 1));
}

/* One of the descriptors is not good, wherever it is. */
TEST_F(failure, all_or_nothing)
{
	static const unsigned int at[] = { 0, 1, 15, 30, 31 };
	unsigned int i, size = REGION_QUEUES * sizeof(int);
	int null = open("/dev/null", O_RDWR | O_CLOEXEC);
	int *edge;

	ASSERT_LE(0, null);
	for (i = 0; i < REGION_QUEUES; i++)
		fds[i] = i % 4 ? self->eventfd[1] : -1;
	for (i = 0; i < ARRAY_SIZE(at); i++) {
		int good = fds[at[i]];

		fds[at[i]] = 9999;
		FAILED(EBADF, db_bind(self->fd, 0, REGION_QUEUES, fds));
		fds[at[i]] = -2;
		FAILED(EBADF, db_bind(self->fd, 0, REGION_QUEUES, fds));
		fds[at[i]] = null;
		FAILED(EINVAL, db_bind(self->fd, 0, REGION_QUEUES, fds));
		fds[at[i]] = self->fd;
		FAILED(EINVAL, db_bind(self->fd, 0, REGION_QUEUES, fds));
		fds[at[i]] = good;

		edge = db_edge(size, PROT_READ | PROT_WRITE);
		memcpy(edge, fds, size);
		edge = (void *)((char *)edge + size - at[i] * sizeof(int));
		memmove(edge, fds, at[i] * sizeof(int));
		FAILED(EFAULT, db_bind(self->fd, 0, REGION_QUEUES, edge));
	}
	close(null);
	same_rings(_metadata, self, variant->bound);
	/* the same descriptors, all good */
	ASSERT_EQ(0, db_bind(self->fd, 0, REGION_QUEUES, fds));
	for (i = 0; i < REGION_QUEUES; i++)
		ASSERT_EQ(0, write_ring(self->fd, 0, i));
	ASSERT_EQ(REGION_QUEUES * 3 / 4, take_count(self->eventfd[1]));
	ASSERT_EQ(0, take_count(self->eventfd[0]));
}

/* EFAULT */
TEST_F(failure, fault)
{
	struct doorbell_bindings out = {
		.size = sizeof(out), .count = REGION_QUEUES,
	};
	struct doorbell_bind *arg;

	FAILED(EFAULT, BIND(NULL));
	FAILED(EFAULT, BIND((void *)-4096L));
	FAILED(EFAULT, BINDINGS(NULL));
	arg = db_edge(sizeof(*arg) - 1, PROT_READ | PROT_WRITE);
	arg->size = sizeof(*arg);
	arg->count = 1;
	FAILED(EFAULT, BIND(arg));
	FAILED(EFAULT, BINDINGS(arg));
	/* the end that this kernel does not know */
	arg = db_edge(64, PROT_READ | PROT_WRITE);
	arg->size = 65;
	arg->count = 1;
	FAILED(EFAULT, BIND(arg));
	FAILED(EFAULT, BINDINGS(arg));

	FAILED(EFAULT, db_bind(self->fd, 0, 1, NULL));
	FAILED(EFAULT, db_bind(self->fd, 0, 2, (int *)-4L));
	FAILED(EFAULT, db_bindings(self->fd, 0, 1, NULL));
	out.bindings = (uintptr_t)db_edge(sizeof(*bindings) * REGION_QUEUES,
					  PROT_READ);
	FAILED(EFAULT, BINDINGS(&out));
	out.bindings = (uintptr_t)db_edge(sizeof(*bindings) * REGION_QUEUES - 1,
					  PROT_READ | PROT_WRITE);
	FAILED(EFAULT, BINDINGS(&out));
	same_rings(_metadata, self, variant->bound);
}

/* E2BIG: larger than a page, or not zero beyond the known fields */
TEST_F(failure, too_big)
{
	static char buf[8192];
	struct doorbell_bind *arg = (void *)buf;
	unsigned int i;

	*arg = (struct doorbell_bind) {
		.count = 1, .fds = (uintptr_t)&self->eventfd[1],
	};
	arg->size = 4097;
	FAILED(E2BIG, BIND(buf));
	FAILED(E2BIG, BINDINGS(buf));
	arg->size = -1;
	FAILED(E2BIG, BIND(buf));
	FAILED(E2BIG, BINDINGS(buf));
	for (i = sizeof(*arg); i < 40; i++) {
		buf[i] = 1;
		arg->size = i + 1;
		FAILED(E2BIG, BIND(buf));
		FAILED(E2BIG, BINDINGS(buf));
		arg->size = 4096;
		FAILED(E2BIG, BIND(buf));
		FAILED(E2BIG, BINDINGS(buf));
		buf[i] = 0;
	}
	same_rings(_metadata, self, variant->bound);
	/* a newer structure, all of whose new fields are zero */
	arg->first = 1;
	ASSERT_EQ(0, BIND(buf));
	ASSERT_EQ(0, write_ring(self->fd, 0, 1));
	ASSERT_EQ(1, take_count(self->eventfd[1]));
	arg->fds = (uintptr_t)bindings;
	ASSERT_EQ(0, BINDINGS(buf));
	ASSERT_EQ(1, bindings[0].bound);
	ASSERT_EQ(1, bindings[0].rings);
}

/* EINVAL: too small, no such queues, flags */
TEST_F(failure, invalid)
{
	static const struct {
		__u32 first, count;
	} none[] = {
		{ 0, 0 }, { 5, 0 }, { REGION_QUEUES, 0 },
		{ REGION_QUEUES, 1 }, { 0, REGION_QUEUES + 1 },
		{ 1, REGION_QUEUES }, { REGION_QUEUES - 1, 2 },
		{ DOORBELL_QUEUES_MAX, 1 }, { -1, 1 }, { -1, 2 }, { 1, -1 },
		{ 2, -1 }, { 31, 0x80000000 }, { 0x80000000, 0x80000000 },
	};
	struct doorbell_bind arg = {
		.count = 1, .fds = (uintptr_t)fds,
	};
	unsigned int i;

	for (i = 0; i < REGION_QUEUES; i++)
		fds[i] = self->eventfd[1];
	for (i = 0; i < sizeof(arg); i++) {
		arg.size = i;
		FAILED(EINVAL, BIND(&arg));
		FAILED(EINVAL, BINDINGS(&arg));
	}
	arg.size = sizeof(arg);
	for (i = 0; i < 32; i++) {
		arg.flags = 1U << i;
		FAILED(EINVAL, BIND(&arg));
		FAILED(EINVAL, BINDINGS(&arg));
	}
	for (i = 0; i < ARRAY_SIZE(none); i++) {
		FAILED(EINVAL, db_bind(self->fd, none[i].first, none[i].count,
				       fds));
		FAILED(EINVAL, db_bindings(self->fd, none[i].first,
					   none[i].count, bindings));
	}
	same_rings(_metadata, self, variant->bound);
}

/* ENOTCONN: never attached; detached, except for what was bound */
TEST_F(failure, not_attached)
{
	int fd = db_must_open(_metadata, O_NONBLOCK);

	ASSERT_EQ(-ENOTCONN, db_bind_one(fd, 0, self->eventfd[0]));
	ASSERT_EQ(-ENOTCONN, db_bind_one(fd, 0, -1));
	ASSERT_EQ(-ENOTCONN, db_bindings(fd, 0, 1, bindings));
	ASSERT_EQ(0, close(fd));
	ASSERT_EQ(0, db_detach(self->fd));
	ASSERT_EQ(0, db_snapshot(self->fd, &self->before));
	FAILED(ENOTCONN, db_bind_one(self->fd, 0, self->eventfd[1]));
	FAILED(ENOTCONN, db_bind_one(self->fd, 0, -1));
	FAILED(ENOTCONN, db_bind_one(self->fd, REGION_QUEUES, -1));
}

/* All queues that there can be */

FIXTURE(most) {
	struct vmm *vmm;
	int fd;
};

FIXTURE_VARIANT(most) {
	__u32 flags;
	int eventfds;
};

FIXTURE_VARIANT_ADD(most, one) { .eventfds = 1 };
FIXTURE_VARIANT_ADD(most, several) { .eventfds = 3000 };
FIXTURE_VARIANT_ADD(most, each) { .eventfds = DOORBELL_QUEUES_MAX };
FIXTURE_VARIANT_ADD(most, bound_only) {
	.flags = BOUND_ONLY, .eventfds = 1,
};
FIXTURE_VARIANT_ADD(most, no_value) { .flags = NO_VALUE, .eventfds = 7 };

FIXTURE_SETUP(most)
{
	self->fd = db_must_open(_metadata, O_NONBLOCK);
	self->vmm = vmm_create(1);
	ASSERT_NE(NULL, self->vmm);
	ASSERT_EQ(0, db_attach_as(self->fd, self->vmm->vm_fd, BASE,
				  DOORBELL_QUEUES_MAX * 4, 4, variant->flags));
}

FIXTURE_TEARDOWN(most)
{
	close(self->fd);
	vmm_destroy(self->vmm);
}

/* Eventfds @from to @to have the rings of the queues that they are bound to. */
static void check_sums(struct __test_metadata *_metadata, const int *eventfds,
		       unsigned int nr, unsigned int step)
{
	unsigned int i, q, sum = 0;
	__u64 count;

	for (i = 0; i < nr; i++) {
		for (count = 0, q = i; q < DOORBELL_QUEUES_MAX; q += nr)
			count += q % step == 0;
		ASSERT_EQ(count, take_count(eventfds[i])) {
			TH_LOG("eventfd %u of %u", i, nr);
		}
		sum += count;
	}
	ASSERT_EQ((DOORBELL_QUEUES_MAX + step - 1) / step, sum);
}

/* One call binds all queues. They ring by write(), and by the guest. */
TEST_F_TIMEOUT(most, all_ring, TEST_SECONDS)
{
	struct rlimit limit = {
		.rlim_cur = DOORBELL_QUEUES_MAX + 100,
		.rlim_max = DOORBELL_QUEUES_MAX + 100,
	};
	/* 4,096 of them are enough for the guest */
	const unsigned int step = 16;
	struct guest_op op = {
		.kind = GUEST_MMIO_WRITE, .width = 4, .addr = BASE,
		.repeat = DOORBELL_QUEUES_MAX / step + 1,
		.addr_step = 4 * step,
	};
	unsigned int i, nr = variant->eventfds;
	static int eventfds[DOORBELL_QUEUES_MAX];

	if (nr > 500 && setrlimit(RLIMIT_NOFILE, &limit))
		SKIP(return, "RLIMIT_NOFILE: %s", strerror(errno));
	for (i = 0; i < nr; i++) {
		eventfds[i] = new_eventfd(0);
		ASSERT_LE(0, eventfds[i]);
	}
	for (i = 0; i < DOORBELL_QUEUES_MAX; i++) {
		fds[i] = eventfds[i % nr];
		rings[i].addr = BASE + 4 * i;
	}
	ASSERT_EQ(0, db_bind(self->fd, 0, DOORBELL_QUEUES_MAX, fds));
	ASSERT_EQ(sizeof(rings), write(self->fd, rings, sizeof(rings)));
	check_sums(_metadata, eventfds, nr, 1);
	ASSERT_EQ(0, vmm_script(self->vmm, 0, &op, 1));
	ASSERT_EQ(0, vmm_vcpu_run(self->vmm, 0));
	check_sums(_metadata, eventfds, nr, step);

	ASSERT_EQ(0, db_bindings(self->fd, 0, DOORBELL_QUEUES_MAX, bindings));
	for (i = 0; i < DOORBELL_QUEUES_MAX; i++) {
		ASSERT_EQ(i % step ? 1 : 2, bindings[i].rings);
		ASSERT_EQ(1, bindings[i].bound);
	}
	ASSERT_TRUE(db_is_empty(self->fd));
	ASSERT_EQ(0, vmm_exits(self->vmm));
	/* bindings keep eventfds that are closed */
	for (i = 0; i < nr; i++)
		close(eventfds[i]);
	ASSERT_EQ(sizeof(rings), write(self->fd, rings, sizeof(rings)));
	ASSERT_TRUE(db_is_empty(self->fd));
	if (nr == 1)
		ASSERT_EQ(0, bind_all(self->fd, DOORBELL_QUEUES_MAX, -1));
}

/* The memory of bindings is charged to the cgroup of the caller */

/* A binding has 64 bytes, and during the call 8 bytes more. */
#define BINDINGS_SIZE	(64L * DOORBELL_QUEUES_MAX)

/* By the first call, not by later ones */
TEST_F_TIMEOUT(cgroup, charged, TEST_SECONDS)
{
	long idle, before = 0, bound = 0, again = 0;
	int fd, turn, eventfd = new_eventfd(0);

	ASSERT_LE(0, eventfd);
	memset(rings, 0, sizeof(rings));
	memset(fds, 0, sizeof(fds));
	idle = cgroup_bytes(self->path);
	ASSERT_LT(0, idle);
	for (turn = 0; turn < CGROUP_TURNS; turn++) {
		fd = db_must_open(_metadata, O_NONBLOCK);
		ASSERT_EQ(0, db_attach(fd, -1, 0, 4 * DOORBELL_QUEUES_MAX));
		cgroup_least(self->path, turn, &before);
		ASSERT_EQ(0, bind_all(fd, DOORBELL_QUEUES_MAX, eventfd));
		cgroup_least(self->path, turn, &bound);
		ASSERT_EQ(0, bind_all(fd, DOORBELL_QUEUES_MAX, -1));
		ASSERT_EQ(0, bind_all(fd, DOORBELL_QUEUES_MAX, eventfd));
		cgroup_least(self->path, turn, &again);
		close(fd);
		ASSERT_TRUE(cgroup_rest(self->path, idle));
	}
	TH_LOG("%ld bytes", bound - before);
	EXPECT_GE(BINDINGS_SIZE + CGROUP_SLACK, bound - before);
	EXPECT_LE(BINDINGS_SIZE - CGROUP_SLACK, bound - before);
	EXPECT_GE(CGROUP_SLACK, again - bound);
	EXPECT_GE(CGROUP_SLACK, bound - again);
	close(eventfd);
}

/* With BOUND_ONLY by attaching, on top of what any region has */
TEST_F_TIMEOUT(cgroup, charged_by_attaching, TEST_SECONDS)
{
	long idle, plain = 0, attached = 0, bound = 0;
	int fd, turn, eventfd = new_eventfd(0);

	ASSERT_LE(0, eventfd);
	memset(fds, 0, sizeof(fds));
	idle = cgroup_bytes(self->path);
	ASSERT_LT(0, idle);
	for (turn = 0; turn < 2 * CGROUP_TURNS; turn++) {
		fd = db_must_open(_metadata, O_NONBLOCK);
		ASSERT_EQ(0, db_attach_as(fd, -1, 0, 4 * DOORBELL_QUEUES_MAX,
					  4, turn % 2 ? BOUND_ONLY : 0));
		cgroup_least(self->path, turn / 2,
			     turn % 2 ? &attached : &plain);
		ASSERT_EQ(0, bind_all(fd, DOORBELL_QUEUES_MAX, eventfd));
		if (turn % 2)
			cgroup_least(self->path, turn / 2, &bound);
		close(fd);
		ASSERT_TRUE(cgroup_rest(self->path, idle));
	}
	TH_LOG("%ld bytes, %ld plain", attached, plain);
	EXPECT_GE(BINDINGS_SIZE + CGROUP_SLACK, attached - plain);
	EXPECT_LE(BINDINGS_SIZE - CGROUP_SLACK, attached - plain);
	EXPECT_GE(CGROUP_SLACK, bound - attached);
	EXPECT_GE(CGROUP_SLACK, attached - bound);
	close(eventfd);
}

/* Bind, in a child that alone is in the limited cgroup. */
static int bind_in_cgroup(const char *path, int fd, int eventfd, long room)
{
	char limit[32];
	pid_t pid;

	fflush(stdout);
	pid = fork();
	if (!pid) {
		if (cgroup_put(path, "cgroup.procs", "0"))
			_exit(0);
		/* what the call needs beside the kernel's memory */
		bind_all(fd, 0, eventfd);
		memset(fds, 0, sizeof(fds));
		snprintf(limit, sizeof(limit), "%ld",
			 cgroup_bytes(path) + room);
		if (cgroup_put(path, "memory.max", limit))
			_exit(0);
		_exit(-bind_all(fd, DOORBELL_QUEUES_MAX, eventfd));
	}
	return db_wait_status(pid);
}

/* ENOMEM if the memory cgroup is full; the OOM killer stays away. */
TEST_F_TIMEOUT(cgroup, no_room, TEST_SECONDS)
{
	/* for nothing; for the descriptors, but not for the bindings */
	static const long room[] = { 128 << 10, 1 << 20 };
	int fd = db_must_open(_metadata, O_NONBLOCK);
	struct db_snapshot before, after;
	struct doorbell_event event;
	int eventfd = new_eventfd(0);
	unsigned int i, q;

	ASSERT_LE(0, eventfd);
	ASSERT_EQ(0, db_attach(fd, -1, 0, 4 * DOORBELL_QUEUES_MAX));
	ASSERT_EQ(0, db_snapshot(fd, &before));
	ASSERT_EQ(0, cgroup_put(CGROUP_ROOT, "cgroup.procs", "0"));
	for (i = 0; i < ARRAY_SIZE(room); i++) {
		EXPECT_EQ(ENOMEM, bind_in_cgroup(self->path, fd, eventfd,
						 room[i]));
		ASSERT_EQ(0, cgroup_put(self->path, "memory.max", "max"));
		ASSERT_EQ(0, db_snapshot(fd, &after));
		EXPECT_TRUE(db_same(&before, &after));
		ASSERT_EQ(0, db_bindings(fd, 0, DOORBELL_QUEUES_MAX, bindings));
		for (q = 0; q < DOORBELL_QUEUES_MAX; q++) {
			ASSERT_EQ(0, bindings[q].bound);
		}
	}
	ASSERT_EQ(0, db_ring(fd, 4, 1));
	ASSERT_EQ(1, db_read(fd, &event, 1));
	ASSERT_EQ(0, take_count(eventfd));
	ASSERT_EQ(0, bind_all(fd, DOORBELL_QUEUES_MAX, eventfd));
	ASSERT_EQ(0, db_ring(fd, 4, 1));
	ASSERT_EQ(1, take_count(eventfd));

	/* the same, with bindings that are to stay */
	ASSERT_EQ(ENOMEM, bind_in_cgroup(self->path, fd, -1, room[0]));
	ASSERT_EQ(0, cgroup_put(self->path, "memory.max", "max"));
	ASSERT_EQ(0, db_ring(fd, 4, 1));
	ASSERT_EQ(1, take_count(eventfd));
	ASSERT_TRUE(db_is_empty(fd));
	close(eventfd);
	close(fd);
}

TEST_HARNESS_MAIN
