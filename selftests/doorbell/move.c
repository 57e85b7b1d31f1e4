// SPDX-License-Identifier: GPL-2.0
/*
 * Move: a region goes to another address, and all else stays. Every ring is an
 * event or an exit, and only one of both, whatever the vCPUs do meanwhile.
 */
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>

#include "libdoorbell.h"
#include "peer.h"
#include "vmutil.h"

#define ORDERED		DOORBELL_ATTACH_ORDERED
#define BY_VALUE	DOORBELL_ATTACH_BY_VALUE
#define NO_VALUE	DOORBELL_ATTACH_NO_VALUE

#define VCPUS		4
#define DEPTH		64

/* Moves under load: fewer on a slow machine, but never less than the minimum */
#define MOVES		6000
#define MOVES_MIN	300
#define MOVES_MS	4000
/* The same for what needs fewer */
#define SOME		1000
#define SOME_MIN	40
#define SOME_MS		1000

/* Movers that are killed */
#define KILLS		60
#define KILLS_MIN	10
#define KILLS_MS	2000

/* The VM of the test, or -1 */
static int vm_fd_now = -1;

static int move_to(int fd, __u64 base)
{
	return db_move(fd, vm_fd_now, base);
}

static int attach_at(int fd, int vm_fd, __u64 base, __u32 flags)
{
	struct doorbell_attach arg = db_attach_arg(vm_fd, base, REGION_LEN);

	arg.stride = REGION_STRIDE;
	arg.flags = flags;
	arg.depth = flags & ORDERED ? DEPTH : 0;
	arg.queues = flags & BY_VALUE ? REGION_QUEUES : 0;
	return db_result(ioctl(fd, DOORBELL_ATTACH, &arg));
}

/* Where nothing is at first, apart from base_of() */
static __u64 away_of(__u32 flags)
{
	return base_of(flags) + 8 * REGION_LEN;
}

/* The value that rings a queue, with a number in its upper half */
static __u64 value_for(__u32 flags, unsigned int queue, unsigned int number)
{
	return flags & BY_VALUE ? number << 16 | queue : number;
}

/* One VM and two consumers */

FIXTURE(move) {
	struct vmm *vmm;
	int fd[2];
	__u32 flags;
	unsigned int number;
};

FIXTURE_VARIANT(move) {
	__u32 flags;
};

FIXTURE_VARIANT_ADD(move, mmio) {};
FIXTURE_VARIANT_ADD(move, pio) { .flags = PIO, };
FIXTURE_VARIANT_ADD(move, no_value) { .flags = NO_VALUE, };
FIXTURE_VARIANT_ADD(move, by_value) { .flags = BY_VALUE, };
FIXTURE_VARIANT_ADD(move, ordered) { .flags = ORDERED, };
FIXTURE_VARIANT_ADD(move, pio_ordered) { .flags = PIO | ORDERED, };
FIXTURE_VARIANT_ADD(move, no_value_ordered) { .flags = NO_VALUE | ORDERED, };

FIXTURE_SETUP(move)
{
	int i;

	SKIP_WITHOUT_PORTS(variant->flags);
	self->flags = variant->flags;
	for (i = 0; i < 2; i++) {
		self->fd[i] = db_must_open(_metadata, O_NONBLOCK);
	}
	self->vmm = vmm_create(1);
	ASSERT_NE(NULL, self->vmm);
	vm_fd_now = self->vmm->vm_fd;
}

FIXTURE_TEARDOWN(move)
{
	close(self->fd[0]);
	close(self->fd[1]);
	vmm_destroy(self->vmm);
}

/* The guest writes to a queue of a region at @base. Return the exits. */
static int ring_at(FIXTURE_DATA(move) *self, __u64 base, unsigned int queue)
{
	__u64 before = vmm_exits(self->vmm);
	int ret = guest_write(self->vmm, self->flags, 4,
			      base + queue * REGION_STRIDE,
			      value_for(self->flags, queue, ++self->number));

	return ret ?: vmm_exits(self->vmm) - before;
}

/* The event of the ring before, which was of @queue */
static void check_last(struct __test_metadata *_metadata,
		       FIXTURE_DATA(move) *self, int fd, unsigned int queue)
{
	check_event(_metadata, fd, queue, self->flags & NO_VALUE ? 0 :
		    value_for(self->flags, queue, self->number));
}

/* The region is at @base: DOORBELL_INFO, fdinfo and all queues say so. */
static void check_at(struct __test_metadata *_metadata,
		     FIXTURE_DATA(move) *self, int fd, __u64 base)
{
	struct db_snapshot snap;
	char line[64];
	unsigned int q;

	ASSERT_EQ(0, db_snapshot(fd, &snap));
	ASSERT_EQ(base, snap.info.base);
	ASSERT_EQ(DOORBELL_ATTACHED, snap.info.state);
	snprintf(line, sizeof(line), "doorbell-base:\t%#llx\n", base);
	ASSERT_NE(NULL, strstr(snap.fdinfo, line)) {
		db_show("not there", &snap);
	}
	for (q = 0; q < REGION_QUEUES; q++) {
		ASSERT_EQ(0, ring_at(self, base, q)) {
			TH_LOG("queue %u at %#llx", q, base);
		}
		check_last(_metadata, self, fd, q);
	}
}

/* No region is at @base: rings of all queues exit. */
static void check_not_at(struct __test_metadata *_metadata,
			 FIXTURE_DATA(move) *self, __u64 base)
{
	unsigned int q;

	for (q = 0; q < REGION_QUEUES; q++) {
		ASSERT_EQ(1, ring_at(self, base, q)) {
			TH_LOG("queue %u at %#llx", q, base);
		}
	}
}

/* The old address exits, the new one rings, and all else is as before. */
TEST_F_TIMEOUT(move, moves, TEST_SECONDS)
{
	const __u64 base = base_of(self->flags), away = away_of(self->flags);
	__u64 place[] = { away, base, away + REGION_LEN, away };
	struct db_snapshot before, after;
	struct doorbell_event events[4];
	int i, fd = self->fd[0];

	ASSERT_EQ(0, attach_at(fd, self->vmm->vm_fd, base, self->flags));
	for (i = 0; i < ARRAY_SIZE(place); i++) {
		__u64 from = i ? place[i - 1] : base;

		check_at(_metadata, self, fd, from);
		check_not_at(_metadata, self, place[i]);
		ASSERT_EQ(0, ring_at(self, from, 3));
		ASSERT_EQ(0, ring_at(self, from, 1));
		ASSERT_EQ(0, db_snapshot(fd, &before));
		ASSERT_EQ(2, before.info.pending);

		ASSERT_EQ(0, move_to(fd, place[i]));
		ASSERT_EQ(0, db_snapshot(fd, &after));
		ASSERT_EQ(place[i], after.info.base);
		ASSERT_EQ(before.bits, after.bits);
		after.info.base = from;
		ASSERT_EQ(0, memcmp(&before.info, &after.info,
				    sizeof(before.info)));
		check_not_at(_metadata, self, from);
		ASSERT_EQ(0, ring_at(self, place[i], 2));
		ASSERT_EQ(3, db_read(fd, events, 4));
		ASSERT_EQ(3, events[0].queue);
		ASSERT_EQ(1, events[1].queue);
		ASSERT_EQ(2, events[2].queue);
		check_at(_metadata, self, fd, place[i]);
		ASSERT_EQ(before.info.rings + 1 + REGION_QUEUES,
			  info_of(fd).rings);
	}
	ASSERT_EQ(0, db_detach(fd));
	check_not_at(_metadata, self, away);
	ASSERT_EQ(away, info_of(fd).base);
}

/* Old and new place may overlap, and may be the same. */
TEST_F_TIMEOUT(move, overlapping, TEST_SECONDS)
{
	static const int steps[] = {
		1, -1, -1, 1, REGION_QUEUES / 2, -REGION_QUEUES / 2,
		-REGION_QUEUES / 2, 0, REGION_QUEUES - 1, 1 - REGION_QUEUES,
		0, REGION_QUEUES, -REGION_QUEUES, -1,
	};
	__u64 at, old, addr, base = away_of(self->flags);
	__u64 next = base + REGION_LEN + REGION_LEN / 2;
	int i, fd = self->fd[0], other = self->fd[1];
	__u64 exits;

	/* the direct neighbour of one of the places stays where it is */
	ASSERT_EQ(0, attach_at(other, self->vmm->vm_fd, next, self->flags));
	ASSERT_EQ(0, attach_at(fd, self->vmm->vm_fd, base, self->flags));
	at = base;
	for (i = 0; i < ARRAY_SIZE(steps); i++) {
		old = at;
		at += steps[i] * REGION_STRIDE;
		ASSERT_EQ(0, ring_at(self, old, 7));
		ASSERT_EQ(0, move_to(fd, at));
		check_last(_metadata, self, fd, 7);
		check_at(_metadata, self, fd, at);
		for (addr = old; addr < old + REGION_LEN; addr += 8) {
			if (addr >= at && addr < at + REGION_LEN)
				continue;
			exits = vmm_exits(self->vmm);
			ASSERT_EQ(0, guest_write(self->vmm, self->flags, 4,
						 addr, 1));
			ASSERT_EQ(exits + 1, vmm_exits(self->vmm)) {
				TH_LOG("from %#llx to %#llx: %#llx", old, at,
				       addr);
			}
		}
	}
	check_at(_metadata, self, other, next);
	ASSERT_EQ(0, poll_now(fd) & POLLIN);
}

/* Two regions change places: the first one goes out of the way. */
TEST_F_TIMEOUT(move, two_change_places, TEST_SECONDS)
{
	__u64 base = base_of(self->flags), next = base + REGION_LEN;
	__u64 parked = away_of(self->flags);
	int *fd = self->fd, vm = self->vmm->vm_fd;

	ASSERT_EQ(0, attach_at(fd[0], vm, base, self->flags));
	ASSERT_EQ(0, attach_at(fd[1], vm, next, self->flags));
	ASSERT_EQ(-EEXIST, move_to(fd[0], next));
	ASSERT_EQ(-EEXIST, move_to(fd[1], base));
	check_at(_metadata, self, fd[0], base);
	check_at(_metadata, self, fd[1], next);

	ASSERT_EQ(0, ring_at(self, base, 4));
	ASSERT_EQ(0, move_to(fd[0], parked));
	check_last(_metadata, self, fd[0], 4);
	check_not_at(_metadata, self, base);
	ASSERT_EQ(0, move_to(fd[1], base));
	check_not_at(_metadata, self, next);
	ASSERT_EQ(0, move_to(fd[0], next));
	check_not_at(_metadata, self, parked);
	check_at(_metadata, self, fd[0], next);
	check_at(_metadata, self, fd[1], base);
	ASSERT_EQ(POLLOUT, poll_now(fd[0]));
	ASSERT_EQ(POLLOUT, poll_now(fd[1]));
}

/* EEXIST: all is as before, and the region rings where it was. */
TEST_F_TIMEOUT(move, in_the_way, TEST_SECONDS)
{
	static const int offsets[] = {
		0, 8, -8, REGION_LEN - 8, 8 - REGION_LEN, REGION_LEN / 2,
	};
	__u32 pio = self->flags & PIO ? KVM_IOEVENTFD_FLAG_PIO : 0;
	__u64 base = base_of(self->flags), away = away_of(self->flags);
	int event, i, round, fd = self->fd[0], vm = self->vmm->vm_fd;
	struct db_snapshot before, after;
	int ret;

	event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	ASSERT_LE(0, event);
	ASSERT_EQ(0, attach_at(fd, vm, base, self->flags));
	for (round = 0; round < 2; round++) {
		if (round)
			ret = vmm_ioeventfd(self->vmm, away + 8, 4, event, pio);
		else
			ret = attach_at(self->fd[1], vm, away, self->flags);
		ASSERT_EQ(0, ret);
		ASSERT_EQ(0, ring_at(self, base, 9));
		ASSERT_EQ(0, db_snapshot(fd, &before));
		for (i = 0; i < ARRAY_SIZE(offsets); i++) {
			ret = -EEXIST;
			/* the ioeventfd has 4 bytes at @away + 8 */
			if (round && (offsets[i] > 8 ||
				      offsets[i] + REGION_LEN <= 8))
				ret = 0;
			ASSERT_EQ(ret, move_to(fd, away + offsets[i])) {
				TH_LOG("offset %d", offsets[i]);
			}
			if (!ret)
				ASSERT_EQ(0, move_to(fd, base));
			ASSERT_EQ(0, db_snapshot(fd, &after));
			ASSERT_TRUE(db_same(&before, &after));
		}
		check_last(_metadata, self, fd, 9);
		check_at(_metadata, self, fd, base);
		if (!round) {
			check_at(_metadata, self, self->fd[1], away);
			ASSERT_EQ(0, db_detach(self->fd[1]));
		} else {
			ASSERT_EQ(0, ring_at(self, away, 1));
			ASSERT_EQ(1, db_poll(event, POLLIN, 0) & POLLIN);
			pio |= KVM_IOEVENTFD_FLAG_DEASSIGN;
			ASSERT_EQ(0, vmm_ioeventfd(self->vmm, away + 8, 4,
						   event, pio));
		}
		check_not_at(_metadata, self, away);
	}
	ASSERT_EQ(0, move_to(fd, away));
	check_at(_metadata, self, fd, away);
	close(event);
}

static int move_arg(int fd, const void *arg)
{
	return db_result(ioctl(fd, DOORBELL_MOVE, arg));
}

/* What is refused changes nothing. */
TEST_F_TIMEOUT(move, refusals, TEST_SECONDS)
{
	const __u64 base = base_of(self->flags), away = away_of(self->flags);
	struct {
		struct doorbell_move arg;
		__u64 more[600];
	} big = { .arg = { .vm_fd = vm_fd_now, .base = away } };
	struct doorbell_move arg = {
		.size = sizeof(arg), .vm_fd = vm_fd_now, .base = away,
	};
	static const __u64 bad[] = {
		4, 2, 1, 7, -1ULL, -(__u64)REGION_LEN,
		-(__u64)REGION_LEN + REGION_STRIDE, -(__u64)REGION_STRIDE,
	};
	struct db_snapshot before, after;
	int i, fd = self->fd[0];
	struct vmm *other;
	void *edge;

	ASSERT_EQ(-ENOTCONN, move_to(fd, away));
	ASSERT_EQ(-ENOTCONN, move_to(fd, 1));
	ASSERT_EQ(0, attach_at(fd, self->vmm->vm_fd, base, self->flags));
	ASSERT_EQ(0, ring_at(self, base, 6));
	ASSERT_EQ(0, db_snapshot(fd, &before));

	ASSERT_EQ(-EFAULT, move_arg(fd, NULL));
	ASSERT_EQ(-EFAULT, move_arg(fd, (void *)-4096L));
	edge = db_edge(sizeof(arg) - 1, PROT_READ | PROT_WRITE);
	memcpy(edge, &arg, sizeof(arg) - 1);
	ASSERT_EQ(-EFAULT, move_arg(fd, edge));
	for (i = 0; i < sizeof(arg); i++) {
		arg.size = i;
		ASSERT_EQ(-EINVAL, move_arg(fd, &arg));
	}
	arg.size = sizeof(arg);
	/* a process without a descriptor of this VM cannot move its region */
	other = vmm_create(1);
	ASSERT_NE(NULL, other);
	ASSERT_EQ(-EBADF, db_move(fd, -1, away));
	ASSERT_EQ(-EINVAL, db_move(fd, fd, away));
	ASSERT_EQ(-EINVAL, db_move(fd, other->vm_fd, away));
	ASSERT_EQ(-EBADF, db_move(fd, 999, away));
	ASSERT_EQ(-EBADF, db_move(fd, -2, away));
	vmm_destroy(other);
	big.arg.size = 4097;
	ASSERT_EQ(-E2BIG, move_arg(fd, &big));
	big.arg.size = sizeof(arg) + 8;
	big.more[0] = 1;
	ASSERT_EQ(-E2BIG, move_arg(fd, &big));
	for (i = 0; i < ARRAY_SIZE(bad); i++) {
		ASSERT_EQ(-EINVAL, move_to(fd, bad[i])) {
			TH_LOG("%#llx", bad[i]);
		}
	}
	if (self->flags & PIO) {
		ASSERT_EQ(-EINVAL, move_to(fd, 0x10000));
		ASSERT_EQ(-EINVAL, move_to(fd, 0x10008 - REGION_LEN));
		ASSERT_EQ(-EINVAL, move_to(fd, 0x100000000));
	}
	ASSERT_EQ(0, db_snapshot(fd, &after));
	ASSERT_TRUE(db_same(&before, &after));
	check_last(_metadata, self, fd, 6);
	check_at(_metadata, self, fd, base);

	/* the ends of the space, and a structure that has grown */
	ASSERT_EQ(0, move_to(fd, 0));
	ASSERT_EQ(0, move_to(fd, (self->flags & PIO ? 0x10000 :
				  -(__u64)REGION_STRIDE) - REGION_LEN));
	big.more[0] = 0;
	ASSERT_EQ(0, move_arg(fd, &big));
	big.arg.size = 4096;
	ASSERT_EQ(0, move_arg(fd, &big));
	check_at(_metadata, self, fd, away);

	ASSERT_EQ(0, db_detach(fd));
	ASSERT_EQ(-ENOTCONN, move_to(fd, base));
	ASSERT_EQ(away, info_of(fd).base);
}

/* EPIPE after hang-up; the events remain. */
TEST_F_TIMEOUT(move, after_hang_up, TEST_SECONDS)
{
	const __u64 base = base_of(self->flags), away = away_of(self->flags);
	struct db_snapshot before, after;
	int fd = self->fd[0];

	ASSERT_EQ(0, attach_at(fd, self->vmm->vm_fd, base, self->flags));
	ASSERT_EQ(0, move_to(fd, away));
	ASSERT_EQ(0, ring_at(self, away, 2));
	vmm_destroy(self->vmm);
	self->vmm = NULL;
	ASSERT_TRUE(eventually(poll_now(fd) & POLLHUP));
	ASSERT_EQ(0, db_snapshot(fd, &before));
	ASSERT_EQ(DOORBELL_HANGUP, before.info.state);
	ASSERT_EQ(-EPIPE, move_to(fd, base));
	ASSERT_EQ(-EPIPE, move_to(fd, base + 1));
	ASSERT_EQ(0, db_snapshot(fd, &after));
	ASSERT_TRUE(db_same(&before, &after));
	check_last(_metadata, self, fd, 2);
	ASSERT_EQ(0, db_detach(fd));
	ASSERT_EQ(-ENOTCONN, move_to(fd, base));
}

/* A region of no VM moves, too: write() finds it at its new base. */
TEST_F_TIMEOUT(move, without_a_vm, TEST_SECONDS)
{
	const __u64 base = base_of(self->flags), away = away_of(self->flags);
	__u64 place[] = { away, base, base + REGION_STRIDE, base, base };
	struct doorbell_event event;
	__u64 value, old = base;
	int i, fd = self->fd[0];

	ASSERT_EQ(0, attach_at(fd, -1, base, self->flags));
	ASSERT_EQ(-EINVAL, db_move(fd, self->vmm->vm_fd, away));
	ASSERT_EQ(-EINVAL, db_move(fd, -2, away));
	for (i = 0; i < ARRAY_SIZE(place); i++) {
		ASSERT_EQ(0, db_move(fd, -1, place[i]));
		ASSERT_EQ(place[i], info_of(fd).base);
		value = value_for(self->flags, 5, i);
		ASSERT_EQ(0, db_ring(fd, place[i] + 5 * REGION_STRIDE, value));
		check_event(_metadata, fd, 5,
			    self->flags & NO_VALUE ? 0 : value);
		if (old == place[i])
			continue;
		/* an end of the old place that is not in the new one */
		value = old < place[i] ? old : old + REGION_LEN - 1;
		ASSERT_EQ(0, db_ring(fd, value, 0));
		ASSERT_EQ(1, db_read(fd, &event, 1));
		ASSERT_TRUE(db_event_is_bad(&event, 1, value));
		old = place[i];
	}
}

/* write() finds a region of a VM at its new base, too. */
TEST_F_TIMEOUT(move, write_follows, TEST_SECONDS)
{
	const __u64 base = base_of(self->flags), away = away_of(self->flags);
	struct doorbell_event event;
	int fd = self->fd[0];

	ASSERT_EQ(0, attach_at(fd, self->vmm->vm_fd, base, self->flags));
	ASSERT_EQ(0, move_to(fd, away));
	ASSERT_EQ(0, db_ring(fd, away + 3 * REGION_STRIDE,
			     value_for(self->flags, 3, 0)));
	ASSERT_EQ(0, db_ring(fd, base + 3 * REGION_STRIDE, 0));
	ASSERT_EQ(1, db_read(fd, &event, 1));
	ASSERT_EQ(3, event.queue);
	ASSERT_EQ(1, db_read(fd, &event, 1));
	ASSERT_TRUE(db_event_is_bad(&event, 1, base + 3 * REGION_STRIDE));
}

/* A region that has moved is detached, closed and attached as any other. */
TEST_F_TIMEOUT(move, ends, TEST_SECONDS)
{
	const __u64 base = base_of(self->flags), away = away_of(self->flags);
	int i, fd, vm = self->vmm->vm_fd;

	for (i = 0; i < 50; i++) {
		fd = db_must_open(_metadata, O_NONBLOCK);
		ASSERT_EQ(0, attach_at(fd, vm, base, self->flags));
		ASSERT_EQ(0, move_to(fd, away));
		ASSERT_EQ(0, ring_at(self, away, 1));
		if (i % 2)
			ASSERT_EQ(0, db_detach(fd));
		if (i % 4 == 1)
			ASSERT_EQ(0, attach_at(fd, vm, away, self->flags |
					       DOORBELL_ATTACH_DROP));
		close(fd);
		ASSERT_EQ(1, ring_at(self, away, 1));
		ASSERT_EQ(1, ring_at(self, base, 1));

		/* MOVE waits for a region that has to leave, as ATTACH does */
		ASSERT_EQ(0, attach_at(self->fd[0], vm, base, self->flags));
		ASSERT_EQ(0, move_to(self->fd[0], away + 8 * (i % 3 - 1)));
		ASSERT_EQ(0, ring_at(self, away + 8 * (i % 3 - 1), 1));
		check_last(_metadata, self, self->fd[0], 1);
		ASSERT_EQ(0, db_detach(self->fd[0]));
	}
	ASSERT_EQ(0, attach_at(self->fd[0], vm, base, self->flags));
	ASSERT_EQ(0, attach_at(self->fd[1], vm, away, self->flags));
	check_at(_metadata, self, self->fd[0], base);
	check_at(_metadata, self, self->fd[1], away);
}

/* Bound queues stay bound. */
TEST_F_TIMEOUT(move, bindings_stay, TEST_SECONDS)
{
	const __u64 base = base_of(self->flags), away = away_of(self->flags);
	struct doorbell_queue_binding binding;
	int event, fd = self->fd[0];
	__u64 count;

	event = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	ASSERT_LE(0, event);
	ASSERT_EQ(0, attach_at(fd, self->vmm->vm_fd, base, self->flags));
	ASSERT_EQ(0, db_bind_one(fd, 4, event));
	ASSERT_EQ(0, ring_at(self, base, 4));
	ASSERT_EQ(0, move_to(fd, away));
	ASSERT_EQ(0, ring_at(self, away, 4));
	ASSERT_EQ(1, ring_at(self, base, 4));
	ASSERT_EQ(0, ring_at(self, away, 5));
	check_last(_metadata, self, fd, 5);
	ASSERT_EQ(sizeof(count), read(event, &count, sizeof(count)));
	ASSERT_EQ(2, count);
	ASSERT_EQ(0, db_bindings(fd, 4, 1, &binding));
	ASSERT_EQ(2, binding.rings);
	ASSERT_EQ(1, binding.bound);
	close(event);
}

/* Regions of several GiB, which KVM needs several ranges for */
#define HUGE_LEN	0xa0000000ULL
#define HUGE_STRIDE	65536
#define HUGE_LOW	0x10000000ULL

static void check_huge(struct __test_metadata *_metadata,
		       FIXTURE_DATA(move) *self, __u64 base, __u32 flags)
{
	const __u64 gib = 1ULL << 30;
	__u64 offsets[] = {
		0, HUGE_STRIDE, gib - HUGE_STRIDE, gib, 2 * gib - HUGE_STRIDE,
		2 * gib, HUGE_LEN - HUGE_STRIDE,
	};
	__u64 exits = vmm_exits(self->vmm);
	int i;

	for (i = 0; i < ARRAY_SIZE(offsets); i++) {
		ASSERT_EQ(0, guest_write(self->vmm, flags, 4,
					 base + offsets[i], i));
		check_event(_metadata, self->fd[0], offsets[i] / HUGE_STRIDE,
			    flags & NO_VALUE ? 0 : i);
	}
	ASSERT_EQ(exits, vmm_exits(self->vmm));
	ASSERT_EQ(0, guest_write(self->vmm, flags, 4, base - 4, 1));
	ASSERT_EQ(0, guest_write(self->vmm, flags, 4, base + HUGE_LEN, 1));
	ASSERT_EQ(exits + 2, vmm_exits(self->vmm));
}

TEST_F_TIMEOUT(move, huge, TEST_SECONDS)
{
	static const __u64 steps[] = {
		HUGE_STRIDE, 0x10000000, 0x20000000, 0x30000000, 0x30000000,
		0x8000000, 0,
	};
	struct doorbell_attach arg = db_attach_arg(self->vmm->vm_fd, HUGE_LOW,
						   HUGE_LEN);
	int i, fd = self->fd[0];

	if (self->flags & (PIO | BY_VALUE))
		SKIP(return, "no large region with these flags");
	arg.stride = HUGE_STRIDE;
	arg.flags = self->flags;
	arg.depth = self->flags & ORDERED ? DEPTH : 0;
	ASSERT_EQ(0, ioctl(fd, DOORBELL_ATTACH, &arg));
	check_huge(_metadata, self, HUGE_LOW, self->flags);
	for (i = 0; i < ARRAY_SIZE(steps); i++) {
		ASSERT_EQ(0, move_to(fd, HUGE_LOW + steps[i]));
		check_huge(_metadata, self, HUGE_LOW + steps[i], self->flags);
	}
	ASSERT_EQ(0, db_detach(fd));
	ASSERT_EQ(0, attach_at(self->fd[1], self->vmm->vm_fd, 0xc0000000,
			       self->flags));
	ASSERT_EQ(0, ioctl(fd, DOORBELL_ATTACH, &arg));
	ASSERT_EQ(-EEXIST, move_to(fd, HUGE_LOW + 0x20000000));
	check_huge(_metadata, self, HUGE_LOW, self->flags);
}

/* ESRCH: the process of the VM is gone, but the VM is not. */
TEST(process_is_gone)
{
	struct db_snapshot before, after;
	struct peer peer;
	int fd;

	peer_start(_metadata, &peer, 0);
	fd = db_must_open(_metadata, O_NONBLOCK);
	ASSERT_EQ(0, attach_region(fd, peer.vm_fd, 0));
	ASSERT_EQ(0, db_move(fd, peer.vm_fd, MMIO_BASE + REGION_LEN));
	ASSERT_EQ(0x100 + SIGKILL, killed(peer.pid));
	ASSERT_EQ(0, db_snapshot(fd, &before));
	ASSERT_EQ(-ESRCH, db_move(fd, peer.vm_fd, MMIO_BASE));
	ASSERT_EQ(0, db_snapshot(fd, &after));
	ASSERT_TRUE(db_same(&before, &after));
	peer_close_vm(&peer);
	ASSERT_TRUE(eventually(poll_now(fd) & POLLHUP));
	/* before it looks whose descriptor this is */
	ASSERT_EQ(-EPIPE, db_move(fd, -1, MMIO_BASE));
	close(fd);
	peer_end(&peer);
}

/* While all vCPUs ring: the region moves among places of a window */

#define PLACES		4

FIXTURE(ringing) {
	struct vmm *vmm;
	struct exits exits;
	struct book book;
	int fd;
	__u32 flags;
	unsigned int step;
	__u32 random;
	__u64 base;
	unsigned int moves;
};

FIXTURE_VARIANT(ringing) {
	__u32 flags;
	unsigned int step;	/* between two places, in queues */
};

FIXTURE_VARIANT_ADD(ringing, mmio) { .step = REGION_QUEUES, };
FIXTURE_VARIANT_ADD(ringing, mmio_by_1) { .step = 1, };
FIXTURE_VARIANT_ADD(ringing, pio) { .flags = PIO, .step = REGION_QUEUES, };
FIXTURE_VARIANT_ADD(ringing, no_value) {
	.flags = NO_VALUE, .step = REGION_QUEUES,
};
FIXTURE_VARIANT_ADD(ringing, no_value_by_8) { .flags = NO_VALUE, .step = 8, };
FIXTURE_VARIANT_ADD(ringing, ordered) {
	.flags = ORDERED, .step = REGION_QUEUES,
};

FIXTURE_SETUP(ringing)
{
	SKIP_WITHOUT_PORTS(variant->flags);
	self->flags = variant->flags;
	self->step = variant->step;
	self->random = 5;
	self->base = base_of(self->flags);
	self->fd = db_must_open(_metadata, O_NONBLOCK);
	self->vmm = vmm_create(VCPUS);
	ASSERT_NE(NULL, self->vmm);
	vm_fd_now = self->vmm->vm_fd;
	count_exits(self->vmm, &self->exits, self->flags);
	ASSERT_EQ(0, attach_at(self->fd, self->vmm->vm_fd, self->base,
			       self->flags));
}

FIXTURE_TEARDOWN(ringing)
{
	close(self->fd);
	vmm_destroy(self->vmm);
}

/* Make vCPUs ring all addresses that the region may have. */
static void ring_window(struct __test_metadata *_metadata,
			FIXTURE_DATA(ringing) *self, unsigned int first)
{
	struct guest_job job = {
		.kind = GUEST_STORM, .width = 4, .pio = !!(self->flags & PIO),
		.base = base_of(self->flags), .stride = REGION_STRIDE,
	};
	unsigned int v;

	job.range[0].nr = REGION_QUEUES + (PLACES - 1) * self->step;
	for (v = first; v < VCPUS; v++) {
		ASSERT_EQ(0, vmm_job(self->vmm, v, &job));
		ASSERT_EQ(0, vmm_thread_start(self->vmm, v));
	}
}

/* Stop the vCPUs that ring_window() started. */
static int stop_window(FIXTURE_DATA(ringing) *self, unsigned int first)
{
	unsigned int v;
	int ret = 0;

	vmm_stop(self->vmm);
	for (v = first; v < VCPUS; v++)
		ret = vmm_thread_join(self->vmm, v) ?: ret;
	return ret;
}

static int move_somewhere(FIXTURE_DATA(ringing) *self)
{
	unsigned int place = db_random(&self->random) % PLACES;
	__u64 base = base_of(self->flags) +
		     place * self->step * REGION_STRIDE;
	int ret = move_to(self->fd, base);

	if (!ret) {
		self->base = base;
		self->moves++;
	}
	return ret;
}

static void report_moves(const FIXTURE_DATA(ringing) *self, __u64 events)
{
	printf("# %u moves, %llu rings, %llu events, %llu exits\n", self->moves,
	       guest_total(self->vmm->shared), events, vmm_exits(self->vmm));
}

/*
 * A ring of address w of the window is one of queue w minus a multiple of the
 * step: sums of queues that are that far apart are exact.
 */
static void check_sums(struct __test_metadata *_metadata,
		       FIXTURE_DATA(ringing) *self, const struct book *book)
{
	struct doorbell_info info = info_of(self->fd);
	unsigned int q;
	__u64 rings, sum;
	int class;

	report_moves(self, book_total(book));
	for (class = 0; class < self->step; class++) {
		rings = 0;
		sum = 0;
		for (q = class; q < BOOK_QUEUES; q += self->step) {
			rings += guest_count(self->vmm->shared, q);
			sum += book->count[q] + self->exits.count[q];
		}
		ASSERT_EQ(rings, sum) {
			TH_LOG("queues %d + n * %u", class, self->step);
		}
	}
	for (q = REGION_QUEUES; q < BOOK_QUEUES; q++)
		ASSERT_EQ(0, book->count[q]);
	ASSERT_EQ(0, book->wrong);
	ASSERT_EQ(0, book->bad);
	ASSERT_EQ(0, self->exits.other);
	ASSERT_EQ(self->base, info.base);
	ASSERT_EQ(DOORBELL_ATTACHED, info.state);
	ASSERT_EQ(0, info.pending);
	ASSERT_LT(0, book_total(book));
	ASSERT_LT(0, vmm_exits(self->vmm));
}

/* No ring is lost, and none counts twice. */
TEST_F_TIMEOUT(ringing, nothing_is_lost, TEST_SECONDS)
{
	__u64 end;

	ring_window(_metadata, self, 0);
	end = db_until(MOVES_MS);
	while (db_round(self->moves, MOVES_MIN, MOVES, end)) {
		ASSERT_EQ(0, move_somewhere(self));
		if (self->moves % 8 == 0)
			ASSERT_EQ(0, book_drain(&self->book, self->fd));
	}
	ASSERT_EQ(0, stop_window(self, 0));
	ASSERT_EQ(0, book_drain(&self->book, self->fd));
	check_sums(_metadata, self, &self->book);
	ASSERT_EQ(book_total(&self->book), info_of(self->fd).rings);
}

/*
 * When the call returns, the new address rings and the old one exits, though
 * other vCPUs ring. The first vCPU is the test's own.
 */
TEST_F_TIMEOUT(ringing, holds_on_return, TEST_SECONDS)
{
	__u64 end, old, last, exits;
	__u64 *mine = &self->exits.vcpu[0];
	unsigned int rounds;

	if (self->flags & ORDERED)
		SKIP(return, "exits, too, when it is full");
	ring_window(_metadata, self, 1);
	end = db_until(SOME_MS);
	for (rounds = 0; db_round(rounds, SOME_MIN, SOME, end); rounds++) {
		old = self->base;
		ASSERT_EQ(0, move_somewhere(self));
		exits = *mine;
		ASSERT_EQ(0, guest_write(self->vmm, self->flags, 4,
					 self->base, 1));
		ASSERT_EQ(exits, *mine);
		last = self->base + REGION_LEN - REGION_STRIDE;
		ASSERT_EQ(0, guest_write(self->vmm, self->flags, 4, last, 1));
		ASSERT_EQ(exits, *mine);
		if (old == self->base)
			continue;
		/* the end of the old place that is not in the new one */
		if (old > self->base)
			old += REGION_LEN - REGION_STRIDE;
		ASSERT_EQ(0, guest_write(self->vmm, self->flags, 4, old, 1));
		ASSERT_EQ(exits + 1, *mine);
	}
	ASSERT_EQ(0, stop_window(self, 1));
	report_moves(self, info_of(self->fd).rings);
}

/* A consumer in another process */

/* A ring of this address ends the consumer. */
#define END_ADDR	1ULL

static int book_one(unsigned int queue, const struct doorbell_event *event,
		    void *ctx)
{
	if (event->type == DOORBELL_EVENT_BAD_ADDRESS)
		return event->value == END_ADDR ? 1 : -EPROTO;
	book_events(ctx, event, 1);
	return 0;
}

/* Consume through mapped memory until END. */
__attribute__((noreturn))
static void mapped_consumer(int fd, struct book *book)
{
	struct doorbell *db;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	db = doorbell_from_fd(fd, 0);
	if (!db)
		_exit(2);
	_exit(doorbell_complete(db, book_one, book) == 1 ? 0 : 3);
}

/*
 * A consumer that mapped the region never notices: memory that was mapped
 * before the moves is that of the region after them.
 */
TEST_F_TIMEOUT(ringing, mapped_consumer_never_notices, TEST_SECONDS)
{
	struct book *book = db_shared_memory(sizeof(*book));
	struct doorbell_info info = info_of(self->fd);
	const struct doorbell_status *status;
	__u64 end;
	pid_t pid;

	ASSERT_NE(NULL, book);
	status = mmap(NULL, info.readonly_size, PROT_READ, MAP_SHARED,
		      self->fd, info.control_size);
	ASSERT_NE(MAP_FAILED, status);
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid)
		mapped_consumer(self->fd, book);
	ring_window(_metadata, self, 0);
	end = db_until(MOVES_MS);
	while (db_round(self->moves, MOVES_MIN, MOVES, end))
		ASSERT_EQ(0, move_somewhere(self));
	ASSERT_EQ(0, stop_window(self, 0));
	ASSERT_TRUE(eventually(!db_ring(self->fd, END_ADDR, 0)));
	ASSERT_EQ(0, ended(pid));
	check_sums(_metadata, self, book);
	ASSERT_EQ(1, status->generation);
	ASSERT_EQ(DOORBELL_ATTACHED, status->state);
	ASSERT_EQ(0, status->flags);
	munmap((void *)status, info.readonly_size);
}

/* What another thread does to other regions of the VM */
struct others {
	int vm_fd;
	__u32 flags;
	_Atomic bool stop;
	_Atomic unsigned int rounds;
	_Atomic int error;
};

static void *others_main(void *arg)
{
	struct others *o = arg;
	__u64 base = away_of(o->flags);
	int fd[2], i, ret = 0;

	for (i = 0; i < 2; i++)
		fd[i] = db_open(O_NONBLOCK);
	for (; !ret && !o->stop; o->rounds++) {
		for (i = 0; !ret && i < 2; i++)
			ret = attach_at(fd[i], o->vm_fd,
					base + i * REGION_LEN, o->flags);
		ret = ret ?: move_to(fd[0], base + 4 * REGION_LEN);
		ret = ret ?: move_to(fd[1], base);
		for (i = 0; !ret && i < 2; i++)
			ret = db_detach(fd[i]);
	}
	o->error = ret;
	close(fd[0]);
	close(fd[1]);
	return NULL;
}

/* Other regions of the VM come, move and go meanwhile. */
TEST_F_TIMEOUT(ringing, while_others_come_and_go, TEST_SECONDS)
{
	struct others others = {
		.vm_fd = self->vmm->vm_fd, .flags = self->flags,
	};
	pthread_t thread;
	__u64 end;

	ring_window(_metadata, self, 0);
	ASSERT_EQ(0, pthread_create(&thread, NULL, others_main, &others));
	end = db_until(SOME_MS);
	while (db_round(self->moves, SOME_MIN, SOME, end) ||
	       (others.rounds < 3 && !others.error)) {
		ASSERT_EQ(0, move_somewhere(self));
		if (self->moves % 8 == 0)
			ASSERT_EQ(0, book_drain(&self->book, self->fd));
	}
	others.stop = true;
	ASSERT_EQ(0, pthread_join(thread, NULL));
	ASSERT_EQ(0, stop_window(self, 0));
	ASSERT_EQ(0, book_drain(&self->book, self->fd));
	ASSERT_EQ(0, others.error);
	check_sums(_metadata, self, &self->book);
}

/* Bound queues signal, the others make events, wherever the region is. */
TEST_F_TIMEOUT(ringing, bound_queues, TEST_SECONDS)
{
	int i, fds[REGION_QUEUES / 2];
	struct doorbell_info info;
	__u64 end, count = 0;

	fds[0] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	ASSERT_LE(0, fds[0]);
	for (i = 1; i < REGION_QUEUES / 2; i++)
		fds[i] = fds[0];
	ASSERT_EQ(0, db_bind(self->fd, 0, REGION_QUEUES / 2, fds));
	ring_window(_metadata, self, 0);
	end = db_until(SOME_MS);
	while (db_round(self->moves, SOME_MIN, SOME, end)) {
		ASSERT_EQ(0, move_somewhere(self));
		if (self->moves % 8 == 0)
			ASSERT_EQ(0, book_drain(&self->book, self->fd));
	}
	ASSERT_EQ(0, stop_window(self, 0));
	ASSERT_EQ(0, book_drain(&self->book, self->fd));
	for (i = 0; i < REGION_QUEUES / 2; i++)
		ASSERT_EQ(0, self->book.count[i]);
	ASSERT_EQ(sizeof(count), read(fds[0], &count, sizeof(count)));
	info = info_of(self->fd);
	ASSERT_EQ(count, info.bound_rings);
	ASSERT_EQ(count + book_total(&self->book), info.rings);
	ASSERT_EQ(guest_total(self->vmm->shared),
		  info.rings + vmm_exits(self->vmm));
	close(fds[0]);
}

/* A mover that is killed has moved the region or not, as INFO says. */
TEST_F_TIMEOUT(ringing, killed_movers, TEST_SECONDS)
{
	__u64 exits, end = db_until(KILLS_MS);
	struct doorbell_info info;
	int kills, place, there;
	pid_t pid;

	if (self->flags & ORDERED)
		SKIP(return, "exits, too, when it is full");
	ring_window(_metadata, self, 1);
	for (kills = 0; db_round(kills, KILLS_MIN, KILLS, end); kills++) {
		pid = fork();
		ASSERT_LE(0, pid);
		if (!pid) {
			prctl(PR_SET_PDEATHSIG, SIGKILL);
			while (!move_somewhere(self))
				;
			_exit(1);
		}
		usleep(db_random(&self->random) % 20000);
		ASSERT_EQ(0x100 + SIGKILL, killed(pid));
		info = info_of(self->fd);
		for (place = there = 0; place < PLACES; place++) {
			self->base = base_of(self->flags) +
				     place * self->step * REGION_STRIDE;
			there += self->base == info.base;
			exits = self->exits.vcpu[0];
			/* no two places have the first queue at an address */
			ASSERT_EQ(0, guest_write(self->vmm, self->flags, 4,
						 self->base, 1));
			exits = self->exits.vcpu[0] - exits;
			if (self->base == info.base)
				ASSERT_EQ(0, exits);
			if (self->base < info.base ||
			    self->base >= info.base + REGION_LEN)
				ASSERT_EQ(1, exits);
		}
		ASSERT_EQ(1, there);
		ASSERT_EQ(0, move_somewhere(self));
	}
	ASSERT_EQ(0, db_detach(self->fd));
	ASSERT_EQ(0, stop_window(self, 1));
	printf("# %d movers killed\n", kills);
}

/* Ordered mode: each vCPU numbers its rings */

#define NUMBERS		(1U << 20)	/* per vCPU */
#define NR_SHIFTS	4
#define NUMBER_QUEUES	(VCPUS * NR_SHIFTS)

static unsigned char told[VCPUS][NUMBERS];

FIXTURE(numbers) {
	struct vmm *vmm;
	int fd;
	struct doorbell_attach arg;
	unsigned int events;
	__u32 next[VCPUS];
	int wrong;
	_Atomic bool stop;
};

FIXTURE_VARIANT(numbers) {
	__u32 flags;
	__u32 depth;
};

FIXTURE_VARIANT_ADD(numbers, mmio_3) { .depth = 3, };
FIXTURE_VARIANT_ADD(numbers, mmio_4096) { .depth = 4096, };
FIXTURE_VARIANT_ADD(numbers, pio_64) { .flags = PIO, .depth = 64, };

FIXTURE_SETUP(numbers)
{
	SKIP_WITHOUT_PORTS(variant->flags);
	self->fd = db_must_open(_metadata, O_NONBLOCK);
	self->vmm = vmm_create(VCPUS);
	ASSERT_NE(NULL, self->vmm);
	vm_fd_now = self->vmm->vm_fd;
	self->arg = db_attach_arg(self->vmm->vm_fd, base_of(variant->flags),
				  NUMBER_QUEUES * REGION_STRIDE);
	self->arg.stride = REGION_STRIDE;
	self->arg.flags = variant->flags | ORDERED;
	self->arg.depth = variant->depth;
	ASSERT_EQ(0, ioctl(self->fd, DOORBELL_ATTACH, &self->arg));
}

FIXTURE_TEARDOWN(numbers)
{
	close(self->fd);
	vmm_destroy(self->vmm);
}

static void tell(FIXTURE_DATA(numbers) *self, unsigned int vcpu, __u64 value)
{
	__u32 n = value;

	if (vcpu >= VCPUS || n >= NUMBERS ||
	    __atomic_fetch_add(&told[vcpu][n], 1, __ATOMIC_RELAXED))
		__atomic_fetch_add(&self->wrong, 1, __ATOMIC_RELAXED);
}

static int number_exits(void *ctx, unsigned int vcpu, struct vmm_exit *exit)
{
	tell(ctx, vcpu, exit->data);
	return 0;
}

/* vCPU v rings one address, which is one of four queues of the region. */
static void number_event(FIXTURE_DATA(numbers) *self,
			 const struct doorbell_event *event)
{
	unsigned int vcpu = event->queue / NR_SHIFTS;
	__u32 n = event->value;

	self->events++;
	tell(self, vcpu, n);
	if (event->type != DOORBELL_EVENT_QUEUE || event->count != 1 ||
	    (event->width == 8 && event->value >> 32 != vcpu) ||
	    vcpu >= VCPUS || n < self->next[vcpu]) {
		__atomic_fetch_add(&self->wrong, 1, __ATOMIC_RELAXED);
		return;
	}
	self->next[vcpu] = n + 1;
}

static void *number_reader(void *arg)
{
	FIXTURE_DATA(numbers) *self = arg;
	struct doorbell_event events[64];
	bool stop;
	int i, n;

	do {
		stop = self->stop;
		db_poll(self->fd, POLLIN, 5);
		while ((n = read_now(self->fd, events, 64)) > 0)
			for (i = 0; i < n; i++)
				number_event(self, &events[i]);
	} while (!stop);
	return NULL;
}

/* No number is lost, none comes twice, and those of events are in order. */
TEST_F_TIMEOUT(numbers, each_is_told_once, TEST_SECONDS)
{
	struct guest_job job = {
		.kind = GUEST_NUMBERED,
		.width = variant->flags & PIO ? 4 : 8,
		.pio = !!(variant->flags & PIO),
		.base = self->arg.base,
		.stride = REGION_STRIDE,
		.limit = NUMBERS,
		.range[0].nr = 1,
	};
	unsigned int v, n, shift, moves = 0;
	__u64 end, rings, total = 0;
	struct doorbell_info info;
	pthread_t reader;
	__u32 random = 9;

	self->vmm->exit_cb = number_exits;
	self->vmm->exit_ctx = self;
	ASSERT_EQ(0, pthread_create(&reader, NULL, number_reader, self));
	for (v = 0; v < VCPUS; v++) {
		job.range[0].first = v * NR_SHIFTS + NR_SHIFTS - 1;
		ASSERT_EQ(0, vmm_job(self->vmm, v, &job));
		ASSERT_EQ(0, vmm_thread_start(self->vmm, v));
	}
	end = db_until(MOVES_MS);
	for (; db_round(moves, MOVES_MIN, MOVES, end); moves++) {
		/* at times out of reach */
		shift = db_random(&random) % (NR_SHIFTS + 1);
		if (shift == NR_SHIFTS)
			shift = 2 * NUMBER_QUEUES;
		ASSERT_EQ(0, move_to(self->fd, self->arg.base +
				     shift * REGION_STRIDE));
	}
	ASSERT_EQ(0, stop_ringing(self->vmm));
	self->stop = true;
	ASSERT_EQ(0, pthread_join(reader, NULL));

	for (v = 0; v < VCPUS; v++) {
		rings = vmm_rings(self->vmm->shared, v);
		total += rings;
		for (n = 0; n < NUMBERS; n++) {
			ASSERT_EQ(n < rings, told[v][n]) {
				TH_LOG("vCPU %u number %u of %llu", v, n,
				       rings);
			}
		}
	}
	printf("# %u moves, %llu rings, %u events, %llu exits\n", moves, total,
	       self->events, vmm_exits(self->vmm));
	ASSERT_EQ(0, self->wrong);
	info = info_of(self->fd);
	ASSERT_EQ(self->events, info.rings);
	ASSERT_EQ(total, info.rings + vmm_exits(self->vmm));
	ASSERT_LT(20, self->events);
	ASSERT_LT(20, vmm_exits(self->vmm));
}

/* Threads */

FIXTURE(threads) {
	int fd;
	bool detaches;
	_Atomic bool stop;
	_Atomic unsigned int moves;
	_Atomic unsigned int busy;
	_Atomic int error;
};

FIXTURE_SETUP(threads)
{
	self->fd = db_must_open(_metadata, O_NONBLOCK);
}

FIXTURE_TEARDOWN(threads)
{
	close(self->fd);
}

static void *mover_main(void *arg)
{
	FIXTURE_DATA(threads) *self = arg;
	int ret;

	while (!self->stop) {
		ret = move_to(self->fd, self->moves % 2 ? MMIO_BASE :
						  MMIO_BASE + REGION_LEN);
		if (!ret)
			self->moves++;
		else if (ret == -EBUSY)
			self->busy++;
		else if (ret != -ENOTCONN || !self->detaches)
			self->error = ret;
	}
	return NULL;
}

/* A write() rings at the old base or at the new one, all of its rings. */
TEST_F_TIMEOUT(threads, write_sees_one_base, TEST_SECONDS)
{
	__u64 bad = 0, good = 0, end = db_until(2000);
	struct doorbell_ring rings[64] = {};
	struct doorbell_event events[2];
	pthread_t thread;
	int i, n;

	for (i = 0; i < ARRAY_SIZE(rings); i++)
		rings[i].addr = MMIO_BASE + 8;
	vm_fd_now = -1;
	ASSERT_EQ(0, attach_at(self->fd, -1, MMIO_BASE, 0));
	ASSERT_EQ(0, pthread_create(&thread, NULL, mover_main, self));
	/* as long as both have not been seen, however slow the machine is */
	while (db_now_ms() < end || !good || !bad) {
		ASSERT_EQ(sizeof(rings), write(self->fd, rings, sizeof(rings)));
		n = read_now(self->fd, events, 2);
		ASSERT_EQ(1, n);
		ASSERT_EQ(ARRAY_SIZE(rings), events[0].count);
		if (events[0].type == DOORBELL_EVENT_QUEUE)
			good++;
		else
			bad++;
	}
	self->stop = true;
	ASSERT_EQ(0, pthread_join(thread, NULL));
	ASSERT_EQ(0, self->error);
	ASSERT_EQ(good * ARRAY_SIZE(rings), info_of(self->fd).rings);
	ASSERT_EQ(bad * ARRAY_SIZE(rings), info_of(self->fd).bad_rings);
}

/* Of two movers one moves the region, and the other one is told to wait. */
TEST_F_TIMEOUT(threads, two_movers, TEST_SECONDS)
{
	struct vmm *vmm = vmm_create(1);
	__u64 base, end = db_until(2000);
	pthread_t thread[2];
	int i;

	ASSERT_NE(NULL, vmm);
	vm_fd_now = vmm->vm_fd;
	ASSERT_EQ(0, attach_region(self->fd, vmm->vm_fd, 0));
	for (i = 0; i < 2; i++)
		ASSERT_EQ(0, pthread_create(&thread[i], NULL, mover_main,
					    self));
	while (!self->error && (db_now_ms() < end || !self->busy ||
				self->moves < 20))
		usleep(1000);
	self->stop = true;
	for (i = 0; i < 2; i++)
		ASSERT_EQ(0, pthread_join(thread[i], NULL));
	printf("# %u moves, %u refused\n", self->moves, self->busy);
	ASSERT_EQ(0, self->error);
	ASSERT_EQ(DOORBELL_ATTACHED, info_of(self->fd).state);
	base = info_of(self->fd).base;
	if (base != MMIO_BASE)
		ASSERT_EQ(MMIO_BASE + REGION_LEN, base);
	ASSERT_EQ(0, guest_write(vmm, 0, 4, base + 8, 4));
	ASSERT_EQ(0, vmm_exits(vmm));
	check_event(_metadata, self->fd, 1, 4);
	vmm_destroy(vmm);
}

/* Threads that move, detach and attach one descriptor see each other. */
TEST_F_TIMEOUT(threads, of_one_descriptor, TEST_SECONDS)
{
	struct vmm *vmm = vmm_create(1);
	__u64 base, end = db_until(2000);
	unsigned int rounds = 0;
	pthread_t thread[2];
	int i;

	ASSERT_NE(NULL, vmm);
	self->detaches = true;
	vm_fd_now = vmm->vm_fd;
	ASSERT_EQ(0, attach_region(self->fd, vmm->vm_fd, 0));
	for (i = 0; i < 2; i++)
		ASSERT_EQ(0, pthread_create(&thread[i], NULL, mover_main,
					    self));
	while (db_now_ms() < end || !rounds || self->moves < 20) {
		ASSERT_EQ(0, db_detach(self->fd));
		ASSERT_EQ(DOORBELL_DETACHED, info_of(self->fd).state);
		ASSERT_EQ(0, attach_region(self->fd, vmm->vm_fd, 0));
		/* now and then, long enough for a move on any machine */
		usleep(rounds++ % 16 * 100);
	}
	self->stop = true;
	for (i = 0; i < 2; i++)
		ASSERT_EQ(0, pthread_join(thread[i], NULL));
	printf("# %u rounds, %u moves\n", rounds, self->moves);
	ASSERT_EQ(0, self->error);
	base = info_of(self->fd).base;
	ASSERT_EQ(0, guest_write(vmm, 0, 4, base + 8, 4));
	ASSERT_EQ(0, vmm_exits(vmm));
	check_event(_metadata, self->fd, 1, 4);
	vmm_destroy(vmm);
}

TEST_HARNESS_MAIN
