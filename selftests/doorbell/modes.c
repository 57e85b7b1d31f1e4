// SPDX-License-Identifier: GPL-2.0
/*
 * Modes: ordered delivery with bounced rings, queues named by the value, and
 * regions without values, each with a guest.
 */
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/wait.h>

#include "libdoorbell.h"
#include "vmutil.h"

#define ORDERED		DOORBELL_ATTACH_ORDERED
#define BY_VALUE	DOORBELL_ATTACH_BY_VALUE
#define NO_VALUE	DOORBELL_ATTACH_NO_VALUE

#define VCPUS		4
#define SHARED_QUEUES	2

/* Order in ordered mode: each vCPU numbers its rings */

FIXTURE(ordered)
{
	struct vmm *vmm;
	struct doorbell *db;
};

FIXTURE_VARIANT(ordered)
{
	__u32 flags;
	__u32 depth;
	unsigned int open;
	unsigned int turns;	/* of an empty loop after each take */
	unsigned int numbers;	/* per vCPU */
};

#define ORDERED_VARIANT(_name, _flags, _depth, _open, _turns)		\
	FIXTURE_VARIANT_ADD(ordered, _name) {				\
		.flags = _flags, .depth = _depth, .open = _open,	\
		.turns = _turns,					\
		/* nearly all rings wait for room: fewer are enough */	\
		.numbers = (_depth) > 2 ? 600 : 200,			\
	}

ORDERED_VARIANT(mmap_1_fast, 0, 1, 0, 0);
ORDERED_VARIANT(mmap_2_slow, 0, 2, 0, 20000);
ORDERED_VARIANT(mmap_64_slow, 0, 64, 0, 20000);
ORDERED_VARIANT(mmap_4096_fast, 0, 4096, 0, 0);
ORDERED_VARIANT(read_1_slow, 0, 1, DOORBELL_OPEN_READ, 20000);
ORDERED_VARIANT(read_2_fast, 0, 2, DOORBELL_OPEN_READ, 0);
ORDERED_VARIANT(read_64_fast, 0, 64, DOORBELL_OPEN_READ, 0);
ORDERED_VARIANT(read_4096_slow, 0, 4096, DOORBELL_OPEN_READ, 20000);
ORDERED_VARIANT(pio_2, PIO, 2, 0, 2000);
ORDERED_VARIANT(pio_64, PIO, 64, DOORBELL_OPEN_READ, 2000);

FIXTURE_SETUP(ordered)
{
	SKIP_WITHOUT_PORTS(variant->flags);
	self->vmm = vmm_create(VCPUS);
	ASSERT_NE(NULL, self->vmm);
	self->db = doorbell_open(variant->open);
	ASSERT_NE(NULL, self->db);
}

FIXTURE_TEARDOWN(ordered)
{
	vmm_destroy(self->vmm);
	doorbell_close(self->db);
}

/* The VMM hands in a bounced ring by a write() that waits for room. */
static int hand_in(void *ctx, unsigned int vcpu, struct vmm_exit *exit)
{
	struct doorbell *db = ctx;

	return exit->is_write ?
		doorbell_ring_addr(db, exit->addr, exit->data) : 0;
}

TEST_F_TIMEOUT(ordered, numbers_are_complete_and_in_order, TEST_SECONDS)
{
	struct doorbell_attach arg = {
		.vm_fd = self->vmm->vm_fd,
		.base = base_of(variant->flags),
		.len = (SHARED_QUEUES + VCPUS) * 8,
		.stride = 8,
		.flags = variant->flags | ORDERED,
		.depth = variant->depth,
	};
	struct guest_job job = {
		.kind = GUEST_NUMBERED,
		.width = variant->flags & PIO ? 4 : 8,
		.pio = !!(variant->flags & PIO),
		.base = arg.base,
		.stride = 8,
		.weight = 128,
		.limit = variant->numbers,
	};
	struct doorbell_event events[64];
	struct doorbell_info info;
	__u64 next[VCPUS] = {};
	unsigned int total = 0, i;
	__u32 seed = 3;
	int n;

	/* 4 bytes have no room for the vCPU's number: one queue each */
	if (variant->flags & PIO)
		job.weight = 0;
	ASSERT_EQ(0, doorbell_attach_region(self->db, &arg));
	self->vmm->exit_cb = hand_in;
	self->vmm->exit_ctx = self->db;
	for (i = 0; i < VCPUS; i++) {
		job.range[0].first = i;
		job.range[0].nr = 1;
		job.range[1].first = VCPUS;
		job.range[1].nr = SHARED_QUEUES;
		ASSERT_EQ(0, vmm_job(self->vmm, i, &job));
		ASSERT_EQ(0, vmm_thread_start(self->vmm, i));
	}

	while (total < VCPUS * variant->numbers) {
		ASSERT_EQ(1, doorbell_wait(self->db, DB_PATIENCE_MS));
		n = doorbell_take(self->db, events,
				  1 + db_random(&seed) % 64);
		ASSERT_GE(n, 0);
		for (i = 0; i < n; i++) {
			unsigned int vcpu = events[i].value >> 32;

			ASSERT_EQ(DOORBELL_EVENT_QUEUE, events[i].type);
			ASSERT_EQ(1, events[i].count);
			if (variant->flags & PIO)
				vcpu = events[i].queue;
			ASSERT_LT(vcpu, VCPUS);
			if (events[i].queue < VCPUS)
				ASSERT_EQ(vcpu, events[i].queue);
			ASSERT_EQ(next[vcpu], (__u32)events[i].value);
			next[vcpu]++;
			total++;
		}
		db_spin(variant->turns);
	}

	for (i = 0; i < VCPUS; i++) {
		ASSERT_EQ(0, vmm_thread_join(self->vmm, i));
		ASSERT_EQ(variant->numbers, next[i]);
		ASSERT_EQ(variant->numbers, vmm_rings(self->vmm->shared, i));
	}
	ASSERT_EQ(0, doorbell_take(self->db, events, 64));
	ASSERT_EQ(0, doorbell_get_info(self->db, &info));
	ASSERT_EQ(VCPUS * variant->numbers, info.rings);
	ASSERT_EQ(0, info.pending);
	ASSERT_EQ(vmm_exits(self->vmm), info.bounced);
	if (variant->depth == 1)
		ASSERT_NE(0, info.bounced);
	if (variant->depth == 4096)
		ASSERT_EQ(0, info.bounced);
}

/* One VM and one consumer, which the test attaches */

FIXTURE(one)
{
	struct vmm *vmm;
	struct doorbell *db;
	struct exits exits;
};

FIXTURE_VARIANT(one)
{
	__u32 flags;
	unsigned int open;
};

FIXTURE_VARIANT_ADD(one, mmio) {};
FIXTURE_VARIANT_ADD(one, pio) { .flags = PIO, .open = DOORBELL_OPEN_READ };
FIXTURE_VARIANT_ADD(one, mmio_ordered) {
	.flags = ORDERED, .open = DOORBELL_OPEN_READ,
};
FIXTURE_VARIANT_ADD(one, pio_ordered) { .flags = PIO | ORDERED };

FIXTURE_SETUP(one)
{
	SKIP_WITHOUT_PORTS(variant->flags);
	self->vmm = vmm_create(1);
	ASSERT_NE(NULL, self->vmm);
	self->db = doorbell_open(variant->open);
	ASSERT_NE(NULL, self->db);
}

FIXTURE_TEARDOWN(one)
{
	vmm_destroy(self->vmm);
	doorbell_close(self->db);
}

/*
 * The low 16 bits of the value name the queue, at any address in the region. A
 * number that is no queue is a bad queue.
 */
TEST_F_TIMEOUT(one, queue_named_by_the_value, TEST_SECONDS)
{
	const __u32 queues = 100;
	struct doorbell_attach arg = {
		.vm_fd = self->vmm->vm_fd,
		.base = base_of(variant->flags),
		.len = 4,
		.flags = variant->flags | BY_VALUE,
		.depth = variant->flags & ORDERED ? 16 : 0,
		.queues = queues,
	};
	struct {
		unsigned int width;
		unsigned int offset;
		__u64 value;
		unsigned int queue;	/* none: DOORBELL_QUEUE_NONE */
	} rings[] = {
		{ 2, 0, 0, 0 },			/* legacy virtio-pci */
		{ 4, 0, 99, 99 },		/* virtio-mmio */
		{ 2, 2, 7, 7 },
		{ 1, 3, 8, 8 },
		{ 4, 0, 0x80030005, 5 },	/* VIRTIO_F_NOTIFICATION_DATA */
		{ 2, 0, 100, DOORBELL_QUEUE_NONE },
		{ 4, 0, 0x1234ffff, DOORBELL_QUEUE_NONE },
	};
	struct doorbell_event events[16];
	int i, n;

	ASSERT_EQ(0, doorbell_attach_region(self->db, &arg));
	for (i = 0; i < ARRAY_SIZE(rings); i++) {
		ASSERT_EQ(0, guest_write(self->vmm, variant->flags,
					 rings[i].width,
					 arg.base + rings[i].offset,
					 rings[i].value));
		n = doorbell_take(self->db, events, 16);
		ASSERT_EQ(1, n);
		ASSERT_EQ(rings[i].queue, events[0].queue);
		ASSERT_EQ(rings[i].queue == DOORBELL_QUEUE_NONE ?
			  DOORBELL_EVENT_BAD_QUEUE : DOORBELL_EVENT_QUEUE,
			  events[0].type);
		ASSERT_EQ(rings[i].value, events[0].value);
		ASSERT_EQ(rings[i].width, events[0].width);
		ASSERT_EQ(1, events[0].count);
	}
	ASSERT_EQ(0, vmm_exits(self->vmm));

	/* an address outside of the region is a bad address */
	ASSERT_EQ(0, doorbell_ring_addr(self->db, arg.base + 4, 1));
	ASSERT_EQ(1, doorbell_take(self->db, events, 16));
	ASSERT_TRUE(db_event_is_bad(&events[0], 1, arg.base + 4));

	ASSERT_EQ(0,
		  guest_write(self->vmm, variant->flags, 4, arg.base + 4, 1));
	ASSERT_EQ(1, vmm_exits(self->vmm));
}

/* NO_VALUE: events have no value, and writes outside reach the VMM. */
TEST_F_TIMEOUT(one, no_value, TEST_SECONDS)
{
	struct doorbell_attach arg = {
		.vm_fd = self->vmm->vm_fd,
		.base = base_of(variant->flags),
		.len = 12,
		.flags = variant->flags | NO_VALUE,
		.depth = variant->flags & ORDERED ? 16 : 0,
	};
	struct doorbell_event events[16];

	if (variant->flags & PIO) {
		ASSERT_EQ(-EINVAL, doorbell_attach_region(self->db, &arg));
		return;
	}
	ASSERT_EQ(0, doorbell_attach_region(self->db, &arg));
	ASSERT_EQ(0, guest_write(self->vmm, 0, 4, arg.base, 0x55));
	ASSERT_EQ(0, guest_write(self->vmm, 0, 4, arg.base + 8, 0x66));
	ASSERT_EQ(0, vmm_exits(self->vmm));
	ASSERT_EQ(2, doorbell_take(self->db, events, 16));
	ASSERT_TRUE(db_event_is(&events[0], 0, 1, 0));
	ASSERT_TRUE(db_event_is(&events[1], 2, 1, 0));
	ASSERT_EQ(0, events[0].width);

	ASSERT_EQ(0, guest_write(self->vmm, 0, 4, arg.base - 4, 1));
	ASSERT_EQ(0, guest_write(self->vmm, 0, 4, arg.base + 12, 1));
	ASSERT_EQ(2, vmm_exits(self->vmm));

	/* detach and attach work on both buses */
	ASSERT_EQ(0, doorbell_detach_region(self->db));
	ASSERT_EQ(0, guest_write(self->vmm, 0, 4, arg.base, 1));
	ASSERT_EQ(3, vmm_exits(self->vmm));
	ASSERT_EQ(0, doorbell_attach_region(self->db, &arg));
}

/* EEXIST: an ioeventfd of any length is on the fast bus, too. */
TEST_F_TIMEOUT(one, no_value_has_one_owner, TEST_SECONDS)
{
	struct doorbell_attach arg = {
		.vm_fd = self->vmm->vm_fd,
		.base = 0xd0000000,
		.len = 12,
		.flags = NO_VALUE,
	};
	int fd = eventfd(0, EFD_CLOEXEC);

	ASSERT_EQ(0, vmm_ioeventfd(self->vmm, arg.base + 8, 0, fd, 0));
	ASSERT_EQ(-EEXIST, doorbell_attach_region(self->db, &arg));
	arg.len = 8;
	ASSERT_EQ(0, doorbell_attach_region(self->db, &arg));
	ASSERT_EQ(0, guest_write(self->vmm, 0, 4, arg.base + 8, 1));
	ASSERT_EQ(0, vmm_exits(self->vmm));
	close(fd);
}

static int count_events(unsigned int queue, const struct doorbell_event *event,
			void *ctx)
{
	*(__u64 *)ctx += event->count;
	return 0;
}

/* doorbell_complete() returns 0 when the VM's process is gone. */
TEST_F_TIMEOUT(one, complete_ends_with_the_vm, TEST_SECONDS)
{
	struct doorbell_attach arg = {
		.base = base_of(variant->flags),
		.len = 12,
		.flags = variant->flags,
		.depth = variant->flags & ORDERED ? 16 : 0,
	};
	__u64 count = 0;
	pid_t child;
	int status;

	child = fork();
	if (!child) {
		struct vmm *vmm = vmm_create(1);
		int i;

		if (!vmm)
			_exit(1);
		arg.vm_fd = vmm->vm_fd;
		if (doorbell_attach_region(self->db, &arg))
			_exit(2);
		for (i = 0; i < 10; i++)
			if (guest_write(vmm, variant->flags, 4, arg.base, i))
				_exit(3);
		kill(getpid(), SIGKILL);
	}
	ASSERT_GT(child, 0);
	ASSERT_EQ(child, waitpid(child, &status, 0));
	ASSERT_TRUE(WIFSIGNALED(status));
	ASSERT_EQ(0, doorbell_complete(self->db, count_events, &count));
	ASSERT_EQ(10, count);
	ASSERT_EQ(-EPIPE, doorbell_ring_addr(self->db, arg.base, 1));
}

TEST_HARNESS_MAIN
