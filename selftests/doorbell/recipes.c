// SPDX-License-Identifier: GPL-2.0
/*
 * Recipes: each section of Documentation/recipes.rst, done as it says. The
 * guest's own counters decide whether it worked.
 */
#include <linux/audit.h>
#include <linux/bpf.h>
#include <linux/filter.h>
#include <linux/landlock.h>
#include <linux/seccomp.h>
#include <liburing.h>
#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>

#include "cgroup.h"
#include "libdoorbell.h"
#include "vmutil.h"

#ifndef LANDLOCK_ACCESS_FS_IOCTL_DEV
#define LANDLOCK_ACCESS_FS_IOCTL_DEV	(1ULL << 15)
#endif

#define ORDERED		DOORBELL_ATTACH_ORDERED
#define BY_VALUE	DOORBELL_ATTACH_BY_VALUE
#define NO_VALUE	DOORBELL_ATTACH_NO_VALUE

#define BAR		MMIO_BASE
#define PIO_BAR		0xc000ULL
#define VCPUS		3

/* Take one event, which must be one ring of @queue with @value. */
static void expect(struct __test_metadata *_metadata, struct doorbell *db,
		   unsigned int queue, unsigned int width, __u64 value)
{
	struct doorbell_event events[2];

	ASSERT_EQ(1, doorbell_take(db, events, 2));
	ASSERT_TRUE(db_event_is(&events[0], queue, 1, value)) {
		TH_LOG("type %u queue %u count %u value %#llx, not %u: %#llx",
		       events[0].type, events[0].queue, events[0].count,
		       events[0].value, queue, value);
	}
	ASSERT_EQ(width, events[0].width);
}

/* Take all events, and return the sum of their counts. */
static __u64 drain(struct doorbell *db)
{
	struct doorbell_event events[64];
	__u64 count = 0;
	int i, n;

	while ((n = doorbell_take(db, events, 64)) > 0)
		for (i = 0; i < n; i++)
			count += events[i].count;
	return count;
}

/* Which device: one VM, one consumer, and the registers of each device */

FIXTURE(device)
{
	struct vmm *vmm;
	struct doorbell *db;
};

FIXTURE_VARIANT(device)
{
	unsigned int open;
};

FIXTURE_VARIANT_ADD(device, mapped) { .open = 0 };
FIXTURE_VARIANT_ADD(device, read) { .open = DOORBELL_OPEN_READ };

FIXTURE_SETUP(device)
{
	self->vmm = vmm_create(2);
	ASSERT_NE(NULL, self->vmm);
	self->db = doorbell_open(variant->open);
	ASSERT_NE(NULL, self->db);
}

FIXTURE_TEARDOWN(device)
{
	vmm_destroy(self->vmm);
	doorbell_close(self->db);
}

/* Section "virtio-pci": the address names the queue. */
TEST_F_TIMEOUT(device, virtio_pci, TEST_SECONDS)
{
	static const struct {
		__u32 multiplier;
		__u32 flags;
	} cases[] = {
		{ 2, 0 },
		{ 4, 0 },
		{ 4, NO_VALUE },
		{ 4096, 0 },		/* page-per-queue */
		{ 4096, NO_VALUE },
		{ 65536, 0 },
	};
	static const unsigned int queues[] = { 0, 1, 17, 63 };
	const __u64 notify = BAR + 0x30000;	/* cap.offset */
	unsigned int i, j, q;
	bool value;

	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		struct doorbell_attach arg = {
			.vm_fd = self->vmm->vm_fd,
			.base = notify,
			.len = 64 * cases[i].multiplier,
			.stride = cases[i].multiplier,
			.flags = cases[i].flags,
		};

		value = !(cases[i].flags & NO_VALUE);
		ASSERT_EQ(0, doorbell_attach_region(self->db, &arg));
		for (j = 0; j < ARRAY_SIZE(queues); j++) {
			q = queues[j];
			ASSERT_EQ(0, guest_write(self->vmm, 0, 2, notify +
						 q * cases[i].multiplier, q));
			expect(_metadata, self->db, q, value ? 2 : 0,
			       value ? q : 0);
		}
		ASSERT_EQ(0, doorbell_detach_region(self->db));
	}
	ASSERT_EQ(0, vmm_exits(self->vmm));
}

/* All queues share the address at @base: the value names the queue. */
static void by_value(struct __test_metadata *_metadata, struct vmm *vmm,
		     struct doorbell *db, __u32 flags, __u64 base,
		     unsigned int width)
{
	static const unsigned int queues[] = { 0, 1, 17, 63 };
	struct doorbell_attach arg = {
		.vm_fd = vmm->vm_fd,
		.base = base,
		.len = width,
		.stride = width,
		.flags = flags | BY_VALUE,
		.queues = 64,
	};
	struct doorbell_event event;
	__u64 exits = vmm_exits(vmm);
	unsigned int i;

	ASSERT_EQ(0, doorbell_attach_region(db, &arg));
	for (i = 0; i < ARRAY_SIZE(queues); i++) {
		ASSERT_EQ(0, guest_write(vmm, flags, width, base, queues[i]));
		expect(_metadata, db, queues[i], width, queues[i]);
	}
	/* a driver that writes the number of no queue */
	ASSERT_EQ(0, guest_write(vmm, flags, width, base, 64));
	ASSERT_EQ(1, doorbell_take(db, &event, 1));
	ASSERT_EQ(DOORBELL_EVENT_BAD_QUEUE, event.type);
	ASSERT_EQ(64, event.value);
	ASSERT_EQ(exits, vmm_exits(vmm));

	/* the registers beside it are the VMM's */
	ASSERT_EQ(0, guest_write(vmm, flags, 2, base - 2, 1));
	ASSERT_EQ(0, guest_write(vmm, flags, 1, base + width, 1));
	ASSERT_EQ(exits + 2, vmm_exits(vmm));
	ASSERT_EQ(0, doorbell_detach_region(db));
}

/* Section "One address for all queues" */
TEST_F_TIMEOUT(device, virtio_pci_multiplier_0, TEST_SECONDS)
{
	/* cap.offset may be a multiple of 2 only */
	by_value(_metadata, self->vmm, self->db, 0, BAR + 0x3002, 2);
}

TEST_F_TIMEOUT(device, virtio_pci_legacy, TEST_SECONDS)
{
	SKIP_WITHOUT_PORTS(PIO);
	by_value(_metadata, self->vmm, self->db, PIO, PIO_BAR + 16, 2);
}

TEST_F_TIMEOUT(device, virtio_mmio, TEST_SECONDS)
{
	by_value(_metadata, self->vmm, self->db, 0, BAR + 0x50, 4);
}

/* Section "VIRTIO_F_NOTIFICATION_DATA": the last value is all it takes. */
TEST_F_TIMEOUT(device, notification_data, TEST_SECONDS)
{
	static const struct {
		__u32 flags;
		__u32 stride;
		__u64 base;
	} cases[] = {
		{ 0, 4, BAR + 0x3000 },
		{ 0, 4096, BAR + 0x3000 },
		{ BY_VALUE, 4, BAR + 0x3000 },	/* a multiplier of 0 */
		{ BY_VALUE, 4, BAR + 0x50 },	/* virtio-mmio */
	};
	struct doorbell_event events[8];
	unsigned int i, n, q;
	__u64 addr, value = 0;

	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		bool shared = cases[i].flags & BY_VALUE;
		struct doorbell_attach arg = {
			.vm_fd = self->vmm->vm_fd,
			.base = cases[i].base,
			.len = shared ? 4 : 8 * cases[i].stride,
			.stride = cases[i].stride,
			.flags = cases[i].flags,
			.queues = shared ? 8 : 0,
		};

		ASSERT_EQ(0, doorbell_attach_region(self->db, &arg));
		for (n = 0; n < 3; n++) {
			for (q = 2; q < 5; q++) {
				addr = arg.base + (shared ? 0 : q * arg.stride);
				/* next_wrap, next_off, and the queue */
				value = 1U << 31 | (100 * q + n) << 16 | q;
				ASSERT_EQ(0, guest_write(self->vmm, 0, 4, addr,
							 value));
			}
		}
		ASSERT_EQ(3, doorbell_take(self->db, events, 8));
		for (q = 2; q < 5; q++) {
			value = 1U << 31 | (100 * q + 2) << 16 | q;
			ASSERT_TRUE(db_event_is(&events[q - 2], q, 3, value));
			ASSERT_EQ(4, events[q - 2].width);
		}
		ASSERT_EQ(0, doorbell_detach_region(self->db));
	}
	ASSERT_EQ(0, vmm_exits(self->vmm));
}

/* Section "NVMe" */
#define NVME_QUEUES	8

static void nvme_ring(struct __test_metadata *_metadata, struct vmm *vmm,
		      struct doorbell *db, unsigned int dstrd,
		      unsigned int doorbell, __u32 stride)
{
	const __u64 addr = BAR + 0x1000 + doorbell * (4ULL << dstrd);
	struct doorbell_event events[2];
	unsigned int i;

	for (i = 1; i <= 3; i++)
		ASSERT_EQ(0, guest_write(vmm, 0, 4, addr, 10 * doorbell + i));
	ASSERT_EQ(1, doorbell_take(db, events, 2));
	/* as the recipe computes it */
	ASSERT_EQ(doorbell, ((__u64)events[0].queue * stride) >> (2 + dstrd));
	ASSERT_EQ(0, ((__u64)events[0].queue * stride) % (4U << dstrd));
	ASSERT_EQ(3, events[0].count);
	ASSERT_EQ(10 * doorbell + 3, events[0].value);
}

TEST_F_TIMEOUT(device, nvme, TEST_SECONDS)
{
	struct doorbell_event event;
	unsigned int dstrd, y;

	for (dstrd = 0; dstrd < 16; dstrd++) {
		struct doorbell_attach arg = {
			.vm_fd = self->vmm->vm_fd,
			.base = BAR + 0x1000,
			.len = 2 * NVME_QUEUES * (4ULL << dstrd),
			.stride = 4U << dstrd,
		};

		if (dstrd > 10) {
			/* BAR + 0x1000 is no multiple of the stride */
			ASSERT_EQ(-EINVAL,
				  doorbell_attach_region(self->db, &arg));
			arg.stride = 4096;
		}
		ASSERT_EQ(0, doorbell_attach_region(self->db, &arg)) {
			TH_LOG("DSTRD %u", dstrd);
		}
		for (y = 0; y < NVME_QUEUES; y++) {
			nvme_ring(_metadata, self->vmm, self->db, dstrd, 2 * y,
				  arg.stride);
			nvme_ring(_metadata, self->vmm, self->db, dstrd,
				  2 * y + 1, arg.stride);
		}
		if (dstrd > 10) {
			/* between two doorbells */
			ASSERT_EQ(0, guest_write(self->vmm, 0, 4,
						 arg.base + 4096, 1));
			ASSERT_EQ(1, doorbell_take(self->db, &event, 1));
			ASSERT_NE(0, (__u64)event.queue * arg.stride %
				     (4U << dstrd));
		}
		ASSERT_EQ(dstrd, vmm_exits(self->vmm));
		/* CC is the VMM's */
		ASSERT_EQ(0, guest_write(self->vmm, 0, 4, BAR + 0x14, 1));
		ASSERT_EQ(dstrd + 1, vmm_exits(self->vmm));
		ASSERT_EQ(0, doorbell_detach_region(self->db));
	}
}

/* Section "xHCI" */
TEST_F_TIMEOUT(device, xhci, TEST_SECONDS)
{
	/* slot, and DB Target with DB Stream ID */
	static const __u32 rings[][2] = {
		{ 0, 0 }, { 3, 1 }, { 3, 2 }, { 3, 2 }, { 3, 7 << 16 | 5 },
		{ 4, 1 }, { 3, 2 }, { 0, 0 }, { 32, 31 },
	};
	struct doorbell_attach arg = {
		.vm_fd = self->vmm->vm_fd,
		.base = BAR + 0x2000,		/* DBOFF */
		.len = 33 * 4,			/* MaxSlots + 1 */
		.flags = ORDERED,
		.depth = 64,
	};
	struct doorbell_event events[8];
	unsigned int i;

	ASSERT_EQ(0, doorbell_attach_region(self->db, &arg));
	for (i = 0; i < ARRAY_SIZE(rings); i++)
		ASSERT_EQ(0, guest_write(self->vmm, 0, 4,
					 arg.base + 4 * rings[i][0],
					 rings[i][1]));
	for (i = 0; i < ARRAY_SIZE(rings); i++) {
		ASSERT_EQ(1, doorbell_take(self->db, events, 1));
		ASSERT_TRUE(db_event_is(&events[0], rings[i][0], 1,
					rings[i][1]));
	}
	ASSERT_EQ(0, vmm_exits(self->vmm));
	ASSERT_EQ(0, doorbell_detach_region(self->db));

	/* coalescing: endpoints of slot 3 are missing */
	arg.flags = 0;
	arg.depth = 0;
	ASSERT_EQ(0, doorbell_attach_region(self->db, &arg));
	for (i = 0; i < ARRAY_SIZE(rings); i++)
		ASSERT_EQ(0, guest_write(self->vmm, 0, 4,
					 arg.base + 4 * rings[i][0],
					 rings[i][1]));
	ASSERT_EQ(4, doorbell_take(self->db, events, 8));
	ASSERT_TRUE(db_event_is(&events[0], 0, 2, 0));
	ASSERT_TRUE(db_event_is(&events[1], 3, 5, 2));
}

/* Section "ivshmem": the upper half of the value is the peer. */
TEST_F_TIMEOUT(device, ivshmem, TEST_SECONDS)
{
	struct doorbell_attach arg = {
		.vm_fd = self->vmm->vm_fd,
		.base = BAR + 12,
		.len = 4,
		.flags = ORDERED | BY_VALUE,
		.depth = 64,
		.queues = 4,			/* vectors */
	};
	static const struct {
		unsigned int peer;
		unsigned int vector;
	} rings[] = { { 7, 1 }, { 8, 1 }, { 7, 1 }, { 9, 3 }, { 9, 1 } };
	const unsigned int nr = ARRAY_SIZE(rings);
	struct doorbell_event events[8];
	int fds[4] = { -1, eventfd(0, EFD_NONBLOCK), -1, -1 };
	eventfd_t count;
	unsigned int i;

	/* ordered: the value of each ring is there */
	ASSERT_EQ(0, doorbell_attach_region(self->db, &arg));
	for (i = 0; i < nr; i++)
		ASSERT_EQ(0, guest_write(self->vmm, 0, 4, arg.base,
					 rings[i].peer << 16 |
					 rings[i].vector));
	for (i = 0; i < nr; i++) {
		ASSERT_EQ(1, doorbell_take(self->db, events, 1));
		ASSERT_TRUE(db_event_is(&events[0], rings[i].vector, 1,
					rings[i].peer << 16 |
					rings[i].vector));
	}
	/* IVPosition reaches the VMM */
	ASSERT_EQ(0, vmm_exits(self->vmm));
	ASSERT_EQ(0, vmm_op(self->vmm, 0, GUEST_MMIO_READ, 4, BAR + 8, 0));
	ASSERT_EQ(1, vmm_exits(self->vmm));
	ASSERT_EQ(0, doorbell_detach_region(self->db));

	/* coalescing: of the peers with vector 1 only the last is left */
	arg.flags = BY_VALUE;
	arg.depth = 0;
	ASSERT_EQ(0, doorbell_attach_region(self->db, &arg));
	for (i = 0; i < nr; i++)
		ASSERT_EQ(0, guest_write(self->vmm, 0, 4, arg.base,
					 rings[i].peer << 16 |
					 rings[i].vector));
	ASSERT_EQ(2, doorbell_take(self->db, events, 8));
	ASSERT_TRUE(db_event_is(&events[0], 1, 4, 9 << 16 | 1));

	/* bound: the eventfd of a vector is signalled for every peer */
	ASSERT_EQ(0, doorbell_bind_queues(self->db, 0, 4, fds));
	for (i = 0; i < nr; i++)
		ASSERT_EQ(0, guest_write(self->vmm, 0, 4, arg.base,
					 rings[i].peer << 16 |
					 rings[i].vector));
	ASSERT_EQ(0, eventfd_read(fds[1], &count));
	ASSERT_EQ(4, count);
	close(fds[1]);
}

/* Section "64-bit doorbells written in halves" */
#define HALVES		340	/* doorbells rung per vCPU */

static __u64 halves_value(unsigned int n)
{
	return (__u64)(n ^ 0x5a5a5a5a) << 32 | n;
}

/* Every third value is written at once. Return the number of ops. */
static unsigned int halves_script(struct guest_op *ops, __u64 addr)
{
	unsigned int i, n = 0;

	for (i = 0; i < HALVES; i++) {
		__u64 value = halves_value(i);

		ops[n] = (struct guest_op) {
			.kind = GUEST_MMIO_WRITE, .width = 8, .addr = addr,
			.value = value,
		};
		if (i % 3 != 2) {
			ops[n].width = 4;
			ops[n].value = (__u32)value;
			ops[n + 1] = ops[n];
			ops[++n].addr = addr + 4;
			ops[n].value = value >> 32;
		}
		n++;
	}
	return n;
}

/* Pass a bounced ring on: eight bytes as two halves, which have no width. */
static int pass_halves(void *ctx, unsigned int vcpu, struct vmm_exit *exit)
{
	struct doorbell_ring rings[2] = {
		{ .addr = exit->addr, .value = (__u32)exit->data },
		{ .addr = exit->addr + 4, .value = exit->data >> 32 },
	};
	size_t size = (exit->len == 8 ? 2 : 1) * sizeof(rings[0]), done = 0;
	int ret;

	while (done < size) {
		ret = db_result(write(*(int *)ctx, (char *)rings + done,
				      size - done));
		if (ret < 0)
			return ret;
		done += ret;
	}
	return 0;
}

TEST_F_TIMEOUT(device, halves, TEST_SECONDS)
{
	struct doorbell_attach arg = {
		.vm_fd = self->vmm->vm_fd,
		.base = BAR,
		.len = 2 * 8,
		.stride = 4,
		.flags = ORDERED,
		.depth = 8,
	};
	static struct guest_op ops[2 * HALVES];
	struct doorbell_event events[16];
	unsigned int next[2] = {}, v, q;
	int i, n, fd = doorbell_fd(self->db);
	__u64 low[2] = {}, value;

	ASSERT_EQ(0, doorbell_attach_region(self->db, &arg));
	self->vmm->exit_cb = pass_halves;
	self->vmm->exit_ctx = &fd;
	for (v = 0; v < 2; v++) {
		n = halves_script(ops, BAR + 8 * v);
		ASSERT_EQ(0, vmm_script(self->vmm, v, ops, n));
		ASSERT_EQ(0, vmm_thread_start(self->vmm, v));
	}
	while (next[0] < HALVES || next[1] < HALVES) {
		ASSERT_EQ(1, doorbell_wait(self->db, DB_PATIENCE_MS));
		n = doorbell_take(self->db, events, 16);
		for (i = 0; i < n; i++) {
			q = events[i].queue / 2;
			value = events[i].value;
			if (events[i].queue % 2 == 0 && events[i].width != 8) {
				low[q] = value;
				continue;
			}
			if (events[i].queue % 2)
				value = value << 32 | low[q];
			ASSERT_EQ(halves_value(next[q]), value);
			next[q]++;
		}
	}
	for (v = 0; v < 2; v++)
		ASSERT_EQ(0, vmm_thread_join(self->vmm, v));
	ASSERT_EQ(0, drain(self->db));
}

/* One descriptor per worker thread */

#define WORKERS		4
#define WORK_QUEUES	16	/* per worker */

struct worker {
	struct doorbell *db;
	unsigned int first;
	__u64 count[WORKERS * WORK_QUEUES];
	int result;
	pthread_t thread;
};

static void *worker_main(void *arg)
{
	struct doorbell_event events[16];
	struct worker *w = arg;
	int i, n;

	while ((w->result = doorbell_wait(w->db, -1)) == 1) {
		n = doorbell_take(w->db, events, 16);
		for (i = 0; i < n; i++)
			w->count[w->first + events[i].queue] += events[i].count;
	}
	return NULL;
}

FIXTURE(workers)
{
	struct vmm *vmm;
};

FIXTURE_SETUP(workers)
{
	self->vmm = vmm_create(VCPUS);
	ASSERT_NE(NULL, self->vmm);
}

FIXTURE_TEARDOWN(workers)
{
	vmm_destroy(self->vmm);
}

/* 64 queues in four adjacent regions, each with its own thread */
TEST_F_TIMEOUT(workers, four_threads, TEST_SECONDS)
{
	struct guest_job job = {
		.kind = GUEST_STORM, .width = 4, .base = BAR, .stride = 4,
		.range = { { .first = 0, .nr = WORKERS * WORK_QUEUES } },
		.limit = 1500,
	};
	struct worker workers[WORKERS] = {};
	__u64 rung[WORKERS * WORK_QUEUES];
	unsigned int i, q;

	for (i = 0; i < WORKERS; i++) {
		struct doorbell_attach arg = {
			.vm_fd = self->vmm->vm_fd,
			.base = BAR + i * WORK_QUEUES * 4,
			.len = WORK_QUEUES * 4,
		};

		workers[i].first = i * WORK_QUEUES;
		workers[i].db = doorbell_open(i % 2 ? DOORBELL_OPEN_READ : 0);
		ASSERT_NE(NULL, workers[i].db);
		ASSERT_EQ(0, doorbell_attach_region(workers[i].db, &arg));
		ASSERT_EQ(0, pthread_create(&workers[i].thread, NULL,
					    worker_main, &workers[i]));
	}
	for (i = 0; i < VCPUS; i++) {
		ASSERT_EQ(0, vmm_job(self->vmm, i, &job));
		ASSERT_EQ(0, vmm_thread_start(self->vmm, i));
	}
	for (i = 0; i < VCPUS; i++)
		ASSERT_EQ(0, vmm_thread_join(self->vmm, i));
	for (q = 0; q < ARRAY_SIZE(rung); q++)
		rung[q] = guest_count(self->vmm->shared, q);
	ASSERT_EQ(0, vmm_exits(self->vmm));

	/* each of them sees the end of the VM */
	vmm_destroy(self->vmm);
	self->vmm = NULL;
	for (i = 0; i < WORKERS; i++) {
		pthread_join(workers[i].thread, NULL);
		ASSERT_EQ(-EPIPE, workers[i].result);
		for (q = 0; q < ARRAY_SIZE(rung); q++)
			ASSERT_EQ(q / WORK_QUEUES == i ? rung[q] : 0,
				  workers[i].count[q]);
		doorbell_close(workers[i].db);
	}
}

/**
 * struct division - queues that two threads share
 * @lock: the division does not change
 * @db: the consumers
 * @first: the first queue of each
 * @count: rings of each queue
 * @exits: rings that reached the VMM
 */
struct division {
	pthread_mutex_t lock;
	struct doorbell *db[2];
	unsigned int first[2];
	__u64 count[WORKERS * WORK_QUEUES];
	_Atomic __u64 exits;
};

/* Pass the ring on to the region that has the queue now. */
static int division_exit(void *ctx, unsigned int vcpu, struct vmm_exit *exit)
{
	struct division *d = ctx;
	unsigned int queue = (exit->addr - BAR) / 4;
	int ret;

	d->exits++;
	pthread_mutex_lock(&d->lock);
	ret = db_ring(doorbell_fd(d->db[queue >= d->first[1]]), exit->addr,
		      exit->data);
	pthread_mutex_unlock(&d->lock);
	return ret;
}

static int divide(struct division *d, int vm_fd, unsigned int cut)
{
	unsigned int i;
	int ret = 0;

	d->first[1] = cut;
	for (i = 0; i < 2 && !ret; i++) {
		struct doorbell_attach arg = {
			.vm_fd = vm_fd,
			.base = BAR + d->first[i] * 4,
			.len = (i ? WORKERS * WORK_QUEUES - cut : cut) * 4,
		};

		ret = doorbell_attach_region(d->db[i], &arg);
	}
	return ret;
}

static void division_take(struct division *d)
{
	struct doorbell_event events[16];
	unsigned int i;
	int j, n;

	for (i = 0; i < 2; i++)
		while ((n = doorbell_take(d->db[i], events, 16)) > 0)
			for (j = 0; j < n; j++)
				d->count[d->first[i] + events[j].queue] +=
					events[j].count;
}

/* Each queue keeps all of its rings, whichever thread has it. */
TEST_F_TIMEOUT(workers, division_changes, TEST_SECONDS)
{
	struct guest_job job = {
		.kind = GUEST_STORM, .width = 4, .base = BAR, .stride = 4,
		.range = { { .first = 0, .nr = WORKERS * WORK_QUEUES } },
	};
	struct division d = { .lock = PTHREAD_MUTEX_INITIALIZER };
	__u64 seen, end = db_until(3000);
	unsigned int i, q;

	for (i = 0; i < 2; i++) {
		d.db[i] = doorbell_open(i ? DOORBELL_OPEN_READ : 0);
		ASSERT_NE(NULL, d.db[i]);
	}
	ASSERT_EQ(0, divide(&d, self->vmm->vm_fd, WORK_QUEUES));
	self->vmm->exit_cb = division_exit;
	self->vmm->exit_ctx = &d;
	for (i = 0; i < VCPUS; i++) {
		ASSERT_EQ(0, vmm_job(self->vmm, i, &job));
		ASSERT_EQ(0, vmm_thread_start(self->vmm, i));
	}
	for (i = 0; db_round(i, 8, 40, end); i++) {
		ASSERT_EQ(1, doorbell_wait(d.db[i % 2], DB_PATIENCE_MS));
		division_take(&d);
		pthread_mutex_lock(&d.lock);
		seen = d.exits;
		ASSERT_EQ(0, doorbell_detach_region(d.db[0]));
		ASSERT_EQ(0, doorbell_detach_region(d.db[1]));
		division_take(&d);
		ASSERT_TRUE(eventually(d.exits > seen));
		ASSERT_EQ(0, divide(&d, self->vmm->vm_fd, 1 + i * 23 %
				    (WORKERS * WORK_QUEUES - 1)));
		pthread_mutex_unlock(&d.lock);
	}
	ASSERT_EQ(0, stop_ringing(self->vmm));
	division_take(&d);
	for (q = 0; q < ARRAY_SIZE(d.count); q++)
		ASSERT_EQ(guest_count(self->vmm->shared, q), d.count[q]) {
			TH_LOG("queue %u", q);
		}
	doorbell_close(d.db[0]);
	doorbell_close(d.db[1]);
}

/* Where the value names the queue, each thread has an eventfd. */
TEST_F_TIMEOUT(workers, eventfd_of_each_thread, TEST_SECONDS)
{
	struct doorbell_attach arg = {
		.vm_fd = self->vmm->vm_fd, .base = BAR, .len = 4,
		.flags = BY_VALUE, .queues = WORKERS * WORK_QUEUES,
	};
	struct guest_op op = {
		.kind = GUEST_MMIO_WRITE, .width = 4, .addr = BAR,
		.repeat = WORKERS * WORK_QUEUES, .step = 1,
	};
	struct doorbell *db = doorbell_open(0);
	int efd[WORKERS], fds[WORK_QUEUES];
	eventfd_t count;
	unsigned int i, q;

	ASSERT_NE(NULL, db);
	ASSERT_EQ(0, doorbell_attach_region(db, &arg));
	for (i = 0; i < WORKERS; i++) {
		efd[i] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
		for (q = 0; q < WORK_QUEUES; q++)
			fds[q] = efd[i];
		ASSERT_EQ(0, doorbell_bind_queues(db, i * WORK_QUEUES,
						  WORK_QUEUES, fds));
	}
	ASSERT_EQ(0, vmm_script(self->vmm, 0, &op, 1));
	ASSERT_EQ(0, vmm_vcpu_run(self->vmm, 0));
	ASSERT_EQ(0, vmm_exits(self->vmm));
	for (i = 0; i < WORKERS; i++) {
		ASSERT_EQ(0, eventfd_read(efd[i], &count));
		ASSERT_EQ(WORK_QUEUES, count);
		close(efd[i]);
	}
	ASSERT_EQ(0, drain(db));
	doorbell_close(db);
}

#define REGIONS		2000

TEST_F_TIMEOUT(workers, two_thousand_regions, TEST_SECONDS)
{
	struct rlimit files = { .rlim_cur = REGIONS + 100 };
	struct guest_op op = {
		.kind = GUEST_MMIO_WRITE, .width = 4, .addr = BAR,
		.repeat = 2 * REGIONS, .step = 1, .addr_step = 4,
	};
	struct doorbell_event events[3];
	static int fds[REGIONS];
	unsigned int i;

	files.rlim_max = files.rlim_cur;
	ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &files));
	for (i = 0; i < REGIONS; i++) {
		fds[i] = db_must_open(_metadata, O_NONBLOCK);
		ASSERT_EQ(0, db_attach(fds[i], self->vmm->vm_fd, BAR + 8 * i,
				       8));
	}
	ASSERT_EQ(0, vmm_script(self->vmm, 0, &op, 1));
	ASSERT_EQ(0, vmm_vcpu_run(self->vmm, 0));
	ASSERT_EQ(0, vmm_exits(self->vmm));
	for (i = 0; i < REGIONS; i++) {
		ASSERT_EQ(2, db_read(fds[i], events, 3));
		ASSERT_TRUE(db_event_is(&events[0], 0, 1, 2 * i));
		ASSERT_TRUE(db_event_is(&events[1], 1, 1, 2 * i + 1));
		close(fds[i]);
	}
}

/* Back ends in processes of their own */

/**
 * struct backend - a back end, in shared memory
 * @count: rings of each queue that all back ends handled
 * @last: last value of each queue
 * @total: sum of @count
 * @quota: it exits when @total has reached this
 * @events: events per take
 * @work: microseconds of work per event
 * @open: DOORBELL_OPEN_* flags
 */
struct backend {
	__u64 count[BOOK_QUEUES];
	__u64 last[BOOK_QUEUES];
	_Atomic __u64 total;
	_Atomic __u64 quota;
	unsigned int events;
	unsigned int work;
	unsigned int open;
};

/* Return 0 at the end of the VM, 1 at the quota, 2 at a bad address. */
static int backend_run(struct backend *b, struct doorbell *db)
{
	struct doorbell_event events[64];
	int i, n, ret;

	while (b->total < b->quota) {
		ret = doorbell_wait(db, -1);
		if (ret < 0)
			return ret == -EPIPE ? 0 : 10;
		n = doorbell_take(db, events, b->events);
		if (n < 0)
			return 11;
		for (i = 0; i < n; i++) {
			if (events[i].type != DOORBELL_EVENT_QUEUE)
				return 2;
			if (events[i].queue >= BOOK_QUEUES)
				return 12;
			if (b->work)
				usleep(b->work);
			b->last[events[i].queue] = events[i].value;
			b->count[events[i].queue] += events[i].count;
			b->total += events[i].count;
		}
	}
	return 1;
}

/*
 * Start a back end, which gets its descriptor over a socket. Without the VM's
 * descriptors: start it before the VM.
 */
static pid_t backend_start(struct backend *b, int *sock, unsigned int open)
{
	struct doorbell *db;
	int socks[2], fd;
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, socks))
		return -1;
	fflush(stdout);
	pid = fork();
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		fd = fcntl(socks[1], F_DUPFD, 100);
		close_range(3, 99, 0);
		close_range(fd + 1, ~0U, 0);
		fd = db_receive_fd(fd);
		if (fd < 0)
			_exit(20);
		db = doorbell_from_fd(fd, open | b->open);
		_exit(db ? backend_run(b, db) : 22);
	}
	close(socks[1]);
	*sock = socks[0];
	return pid;
}

FIXTURE(backend)
{
	struct backend *b;
	struct vmm *vmm;
	int fd;
};

FIXTURE_VARIANT(backend)
{
	unsigned int open;
};

FIXTURE_VARIANT_ADD(backend, mapped) { .open = 0 };
FIXTURE_VARIANT_ADD(backend, read) { .open = DOORBELL_OPEN_READ };

FIXTURE_SETUP(backend)
{
	self->b = db_shared_memory(sizeof(*self->b));
	ASSERT_NE(NULL, self->b);
	self->b->quota = ~0ULL;
	self->b->events = 64;
	self->fd = db_must_open(_metadata, O_NONBLOCK);
}

FIXTURE_TEARDOWN(backend)
{
	vmm_destroy(self->vmm);
	close(self->fd);
}

static void check_backend(struct __test_metadata *_metadata,
			  const struct backend *b, const __u64 *rung)
{
	unsigned int q;

	for (q = 0; q < REGION_QUEUES; q++)
		ASSERT_EQ(rung[q], b->count[q]) {
			TH_LOG("queue %u", q);
		}
}

/* Add up what the guest has rung. Its vCPUs do not run. */
static void add_rung(const struct guest_shared *shared, __u64 *rung)
{
	unsigned int q;

	for (q = 0; q < REGION_QUEUES; q++)
		rung[q] += guest_count(shared, q);
}

/* Section "Handing over the descriptor of the doorbell" */
TEST_F_TIMEOUT(backend, gets_the_descriptor, TEST_SECONDS)
{
	__u64 rung[REGION_QUEUES] = {};
	int sock;
	pid_t pid = backend_start(self->b, &sock, variant->open);

	ASSERT_LT(0, pid);
	self->vmm = vmm_create(VCPUS);
	ASSERT_NE(NULL, self->vmm);
	ASSERT_EQ(0, attach_region(self->fd, self->vmm->vm_fd, 0));
	ASSERT_EQ(0, db_send_fd(sock, self->fd));
	ASSERT_EQ(0, start_ringing(self->vmm, 0));
	ASSERT_TRUE(eventually(self->b->total > 500));
	ASSERT_EQ(0, stop_ringing(self->vmm));
	ASSERT_EQ(0, vmm_exits(self->vmm));
	add_rung(self->vmm->shared, rung);

	/* the back end sees the end, though the VMM keeps a duplicate */
	vmm_destroy(self->vmm);
	self->vmm = NULL;
	ASSERT_EQ(0, ended(pid));
	check_backend(_metadata, self->b, rung);
	close(sock);
}

/* Without DOORBELL_ATTACH_DROP */
static int attach_keeping(int fd, int vm_fd)
{
	struct doorbell_attach arg = db_attach_arg(vm_fd, MMIO_BASE,
						   REGION_LEN);

	arg.stride = REGION_STRIDE;
	arg.flags = 0;
	return db_result(ioctl(fd, DOORBELL_ATTACH, &arg));
}

static int stop_backend(pid_t pid)
{
	int status;

	if (kill(pid, SIGSTOP) || waitpid(pid, &status, WUNTRACED) != pid)
		return -errno;
	return WIFSTOPPED(status) ? 0 : -EPROTO;
}

/* What happens between the VM before and the one of a turn */
#define TURNS		5
#define KEEPS		2	/* the back end has yet to take events */
#define DROPS		4	/* the same, and they are dropped */

/* Section "Reboot": the back end goes on with the same descriptor. */
TEST_F_TIMEOUT(backend, stays_while_the_vm_reboots, TEST_SECONDS)
{
	__u64 rung[REGION_QUEUES] = {}, total = 0, before;
	int i, sock, vm;
	pid_t pid = backend_start(self->b, &sock, variant->open);

	ASSERT_LT(0, pid);
	for (i = 0; i < TURNS; i++) {
		self->vmm = vmm_create(VCPUS);
		ASSERT_NE(NULL, self->vmm);
		vm = self->vmm->vm_fd;
		if (i == KEEPS || i == DROPS) {
			ASSERT_EQ(-ENOTEMPTY, attach_keeping(self->fd, vm));
			if (i == DROPS)
				ASSERT_EQ(0, attach_region(self->fd, vm, 0));
			ASSERT_EQ(0, kill(pid, SIGCONT));
		}
		if (i != DROPS) {
			/* until the back end has taken all events */
			ASSERT_TRUE(eventually(attach_keeping(self->fd, vm) !=
					       -ENOTEMPTY));
			ASSERT_EQ(DOORBELL_ATTACHED, info_of(self->fd).state);
		}
		if (!i)
			ASSERT_EQ(0, db_send_fd(sock, self->fd));
		before = self->b->total;
		ASSERT_EQ(0, start_ringing(self->vmm, 0));
		ASSERT_TRUE(eventually(self->b->total > before + 200));
		if (i + 1 == KEEPS) {
			ASSERT_EQ(0, stop_backend(pid));
			ASSERT_TRUE(eventually(info_of(self->fd).pending >
					       REGION_QUEUES));
		}
		ASSERT_EQ(0, stop_ringing(self->vmm));
		add_rung(self->vmm->shared, rung);
		total += guest_total(self->vmm->shared);
		if (i + 1 == DROPS) {
			ASSERT_TRUE(eventually(self->b->total == total));
			ASSERT_EQ(0, stop_backend(pid));
			/* this one is dropped */
			ASSERT_EQ(0, guest_write(self->vmm, 0, 4, MMIO_BASE,
						 1));
		}

		ASSERT_EQ(0, db_detach(self->fd));
		vmm_destroy(self->vmm);
		self->vmm = NULL;
	}
	ASSERT_TRUE(eventually(self->b->total == total));
	check_backend(_metadata, self->b, rung);
	ASSERT_EQ(pid, killed(pid) == 0x100 + SIGKILL ? pid : 0);
	close(sock);
}

/* The same if the VM goes first: hang-up, the rest, detach, attach. */
TEST_F_TIMEOUT(backend, reboot_with_hangup, TEST_SECONDS)
{
	struct doorbell *db = doorbell_from_fd(dup(self->fd), variant->open);
	int i;

	ASSERT_NE(NULL, db);
	for (i = 0; i < 4; i++) {
		struct doorbell_attach arg = {
			.base = BAR, .len = REGION_LEN, .stride = REGION_STRIDE,
		};
		__u64 rung;

		self->vmm = vmm_create(VCPUS);
		ASSERT_NE(NULL, self->vmm);
		arg.vm_fd = self->vmm->vm_fd;
		ASSERT_EQ(0, doorbell_attach_region(db, &arg));
		ASSERT_EQ(0, start_ringing(self->vmm, 0));
		ASSERT_EQ(1, doorbell_wait(db, DB_PATIENCE_MS));
		ASSERT_EQ(0, stop_ringing(self->vmm));
		rung = guest_total(self->vmm->shared);
		vmm_destroy(self->vmm);
		self->vmm = NULL;

		ASSERT_NE(0, POLLHUP & poll_for(self->fd, 0));
		ASSERT_EQ(rung, drain(db));
		ASSERT_EQ(-EPIPE, doorbell_wait(db, DB_PATIENCE_MS));
		ASSERT_EQ(0, doorbell_detach_region(db));
	}
	doorbell_close(db);
}

#define LIVES		5

/* Section "Back end restart": orderly, at the end of a take */
TEST_F_TIMEOUT(backend, restarts, TEST_SECONDS)
{
	__u64 rung[REGION_QUEUES] = {};
	pid_t pid[LIVES];
	int i, sock[LIVES];

	self->b->events = 5;
	self->b->open = DOORBELL_OPEN_NO_RECOVER;
	for (i = 0; i < LIVES; i++) {
		pid[i] = backend_start(self->b, &sock[i], variant->open);
		ASSERT_LT(0, pid[i]);
	}
	self->vmm = vmm_create(VCPUS);
	ASSERT_NE(NULL, self->vmm);
	ASSERT_EQ(0, attach_region(self->fd, self->vmm->vm_fd, 0));
	ASSERT_EQ(0, start_ringing(self->vmm, 0));
	for (i = 0; i < LIVES; i++) {
		self->b->quota = i < LIVES - 1 ? self->b->total + 200 : ~0ULL;
		ASSERT_EQ(0, db_send_fd(sock[i], self->fd));
		if (i < LIVES - 1)
			ASSERT_EQ(1, ended(pid[i]));
	}
	ASSERT_EQ(0, stop_ringing(self->vmm));
	ASSERT_EQ(0, vmm_exits(self->vmm));
	add_rung(self->vmm->shared, rung);
	vmm_destroy(self->vmm);
	self->vmm = NULL;
	ASSERT_EQ(0, ended(pid[LIVES - 1]));
	check_backend(_metadata, self->b, rung);
}

/* Killed at any moment: the successor has the last value of each queue. */
TEST_F_TIMEOUT(backend, crashes, TEST_SECONDS)
{
	struct guest_job job = {
		.kind = GUEST_STORM, .width = 8, .base = MMIO_BASE,
		.stride = REGION_STRIDE,
		.range = { { .first = 0, .nr = REGION_QUEUES } },
	};
	__u64 start, value[REGION_QUEUES];
	__u32 random = 5;
	pid_t pid[LIVES];
	int i, q, sock[LIVES];

	/* killed while it has events that it has not handled */
	self->b->events = 3;
	self->b->work = 2000;
	for (i = 0; i < LIVES; i++) {
		pid[i] = backend_start(self->b, &sock[i], variant->open);
		ASSERT_LT(0, pid[i]);
	}
	self->vmm = vmm_create(1);
	ASSERT_NE(NULL, self->vmm);
	ASSERT_EQ(0, attach_region(self->fd, self->vmm->vm_fd, 0));
	ASSERT_EQ(0, vmm_job(self->vmm, 0, &job));
	ASSERT_EQ(0, vmm_thread_start(self->vmm, 0));
	for (i = 0; i < LIVES - 1; i++) {
		start = self->b->total;
		ASSERT_EQ(0, db_send_fd(sock[i], self->fd));
		ASSERT_TRUE(eventually(self->b->total > start + 20));
		db_spin(db_random(&random) % 100000);
		if (i == LIVES - 2) {
			/* the queues do not ring again */
			vmm_stop(self->vmm);
			ASSERT_EQ(0, vmm_thread_join(self->vmm, 0));
			usleep(5 * self->b->work);
		}
		ASSERT_EQ(0x100 + SIGKILL, killed(pid[i]));
	}
	for (q = 0; q < REGION_QUEUES; q++)
		value[q] = guest_value(0, guest_count(self->vmm->shared, q));
	ASSERT_EQ(0, db_send_fd(sock[i], self->fd));
	vmm_destroy(self->vmm);
	self->vmm = NULL;
	ASSERT_EQ(0, ended(pid[i]));
	for (q = 0; q < REGION_QUEUES; q++)
		ASSERT_EQ(value[q], self->b->last[q]) {
			TH_LOG("queue %d", q);
		}
}

/* A mapped consumer ends between steps 2 and 4 of the protocol. */
TEST_F_TIMEOUT(backend, crashes_between_steps, TEST_SECONDS)
{
	struct doorbell_control *control;
	struct doorbell_info info;
	struct doorbell *db;

	self->vmm = vmm_create(1);
	ASSERT_NE(NULL, self->vmm);
	ASSERT_EQ(0, attach_region(self->fd, self->vmm->vm_fd, 0));
	ASSERT_EQ(0, guest_write(self->vmm, 0, 4, MMIO_BASE + 3 * 8, 1));
	ASSERT_EQ(0, guest_write(self->vmm, 0, 4, MMIO_BASE + 3 * 8, 2));

	/* one entry: step 2, and then the end */
	info = info_of(self->fd);
	control = mmap(NULL, info.control_size, PROT_READ | PROT_WRITE,
		       MAP_SHARED, self->fd, 0);
	ASSERT_NE(MAP_FAILED, control);
	ASSERT_EQ(info.nr_entries, control->head);
	__atomic_store_n(&control->head, control->head + 1, __ATOMIC_RELEASE);
	ASSERT_EQ(0, munmap(control, info.control_size));

	db = doorbell_from_fd(dup(self->fd), variant->open);
	ASSERT_NE(NULL, db);
	ASSERT_EQ(1, doorbell_wait(db, 0));
	ASSERT_EQ(2, drain(db));
	ASSERT_EQ(0, info_of(self->fd).pending);
	doorbell_close(db);

	/* these were the events of the last take */
	db = doorbell_from_fd(dup(self->fd), variant->open |
			      DOORBELL_OPEN_NO_RECOVER);
	ASSERT_NE(NULL, db);
	ASSERT_EQ(0, drain(db));
	doorbell_close(db);
}

/* No other process has the descriptor: the VMM attaches anew. */
TEST_F_TIMEOUT(backend, crashes_with_the_descriptor, TEST_SECONDS)
{
	static struct exits exits;
	struct book book = {};
	__u64 before, exited;
	int sock;
	pid_t pid = backend_start(self->b, &sock, variant->open);

	ASSERT_LT(0, pid);
	self->vmm = vmm_create(VCPUS);
	ASSERT_NE(NULL, self->vmm);
	count_exits(self->vmm, &exits, 0);
	ASSERT_EQ(0, attach_region(self->fd, self->vmm->vm_fd, 0));
	ASSERT_EQ(0, db_send_fd(sock, self->fd));
	close(self->fd);
	self->fd = -1;
	ASSERT_EQ(0, start_ringing(self->vmm, 0));
	ASSERT_TRUE(eventually(self->b->total > 200));
	ASSERT_EQ(0, vmm_exits(self->vmm));
	ASSERT_EQ(0x100 + SIGKILL, killed(pid));
	ASSERT_TRUE(eventually(all_exit(&exits, VCPUS)));
	ASSERT_EQ(0, stop_ringing(self->vmm));

	before = guest_total(self->vmm->shared);
	self->fd = db_must_open(_metadata, O_NONBLOCK);
	ASSERT_EQ(0, attach_region(self->fd, self->vmm->vm_fd, 0));
	exited = vmm_exits(self->vmm);
	ASSERT_EQ(0, start_ringing(self->vmm, 0));
	ASSERT_TRUE(eventually(info_of(self->fd).rings > 200));
	ASSERT_EQ(0, stop_ringing(self->vmm));
	ASSERT_EQ(0, book_drain(&book, self->fd));
	ASSERT_EQ(guest_total(self->vmm->shared) - before, book_total(&book));
	ASSERT_EQ(exited, vmm_exits(self->vmm));
	close(sock);
}

/* Device reset */

#define EPOCHS		100
#define RESET_QUEUES	16
#define RESET_REG	(BAR + 0x8000)	/* a register that resets */
#define RING_OPS	3		/* of each queue between two resets */

/**
 * struct device - a device with a thread that handles events
 * @db: the consumer
 * @request: eventfd: the driver writes the reset register
 * @done: eventfd: the reset is over
 * @queue: the queue that a reset resets, or -1 for all
 * @complete: the thread waits in doorbell_complete()
 * @asked: there is a request
 * @stop: end the thread after the next request
 * @epoch: resets so far
 * @acted: rings handled
 * @discarded: rings that a reset discarded
 * @stale: events handled that are from before the reset
 * @thread: handles events
 */
struct device {
	struct doorbell *db;
	int request;
	int done;
	int queue;
	bool complete;
	_Atomic bool asked;
	_Atomic bool stop;
	__u64 epoch;
	__u64 acted;
	__u64 discarded;
	__u64 stale;
	pthread_t thread;
};

static bool is_reset(const struct device *d, const struct doorbell_event *e)
{
	return d->queue < 0 || e->queue == d->queue;
}

static void device_act(struct device *d, const struct doorbell_event *e)
{
	/* the driver writes the number of its reset */
	if (is_reset(d, e) && e->value != d->epoch)
		d->stale++;
	d->acted += e->count;
	db_spin(1000);
}

/* The recipe: all that was rung before is taken, and not acted on. */
static void device_reset(struct device *d)
{
	struct doorbell_event events[16];
	int i, n;

	while ((n = doorbell_take(d->db, events, 16)) > 0) {
		for (i = 0; i < n; i++) {
			if (events[i].type == DOORBELL_EVENT_BAD_ADDRESS)
				continue;
			if (is_reset(d, &events[i]))
				d->discarded += events[i].count;
			else
				device_act(d, &events[i]);
		}
	}
	d->asked = false;
	d->epoch++;
}

/* A ring of the VMM, at no queue, ends doorbell_complete() if it is idle. */
static int device_notify(unsigned int queue, const struct doorbell_event *event,
			 void *ctx)
{
	struct device *d = ctx;

	if (event->type == DOORBELL_EVENT_BAD_ADDRESS)
		return 1;
	device_act(d, event);
	return d->asked;
}

static void *device_main(void *arg)
{
	struct epoll_event event = { .events = EPOLLIN };
	int i, n, epfd = epoll_create1(EPOLL_CLOEXEC);
	struct doorbell_event events[3];
	struct device *d = arg;
	eventfd_t count;

	epoll_ctl(epfd, EPOLL_CTL_ADD, doorbell_fd(d->db), &event);
	epoll_ctl(epfd, EPOLL_CTL_ADD, d->request, &event);
	while (!d->stop) {
		if (d->complete) {
			n = 0;
			doorbell_complete(d->db, device_notify, d);
		} else {
			epoll_wait(epfd, &event, 1, -1);
			n = doorbell_take(d->db, events, ARRAY_SIZE(events));
		}
		for (i = 0; i < n; i++)
			device_act(d, &events[i]);
		if (!eventfd_read(d->request, &count)) {
			device_reset(d);
			eventfd_write(d->done, 1);
		}
	}
	close(epfd);
	return NULL;
}

static int request_reset(struct device *d)
{
	eventfd_t count;
	int ret = 0;

	d->asked = true;
	eventfd_write(d->request, 1);
	if (d->complete)
		ret = db_ring(doorbell_fd(d->db), BAR + RESET_QUEUES * 4, 0);
	return ret ?: eventfd_read(d->done, &count);
}

static int reset_exit(void *ctx, unsigned int vcpu, struct vmm_exit *exit)
{
	if (!exit->is_write || exit->addr != RESET_REG)
		return -EPROTO;
	return request_reset(ctx);
}

FIXTURE(reset)
{
	struct device d;
	struct vmm *vmm;
};

FIXTURE_VARIANT(reset)
{
	unsigned int open;
	__u32 flags;
	int queue;
	bool complete;
};

FIXTURE_VARIANT_ADD(reset, device_mapped) { .queue = -1 };
FIXTURE_VARIANT_ADD(reset, device_read) {
	.queue = -1, .open = DOORBELL_OPEN_READ,
};
FIXTURE_VARIANT_ADD(reset, device_ordered) { .queue = -1, .flags = ORDERED };
FIXTURE_VARIANT_ADD(reset, device_complete) { .queue = -1, .complete = true };
FIXTURE_VARIANT_ADD(reset, device_complete_ordered) {
	.queue = -1, .complete = true, .flags = ORDERED,
};
FIXTURE_VARIANT_ADD(reset, queue_mapped) { .queue = 5 };
FIXTURE_VARIANT_ADD(reset, queue_read) {
	.queue = 5, .open = DOORBELL_OPEN_READ,
};

FIXTURE_SETUP(reset)
{
	self->d.queue = variant->queue;
	self->d.complete = variant->complete;
	self->d.request = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	self->d.done = eventfd(0, EFD_CLOEXEC);
	self->vmm = vmm_create(1);
	ASSERT_NE(NULL, self->vmm);
	self->d.db = doorbell_open(variant->open);
	ASSERT_NE(NULL, self->d.db);
}

FIXTURE_TEARDOWN(reset)
{
	vmm_destroy(self->vmm);
	doorbell_close(self->d.db);
}

TEST_F_TIMEOUT(reset, no_event_from_before, TEST_SECONDS)
{
	struct doorbell_attach arg = {
		.vm_fd = self->vmm->vm_fd,
		.base = BAR,
		.len = RESET_QUEUES * 4,
		.flags = variant->flags,
		.depth = variant->flags & ORDERED ? 4096 : 0,
	};
	static struct guest_op ops[EPOCHS * (RING_OPS + 1)];
	unsigned int i, j, n = 0;

	for (i = 0; i < EPOCHS; i++) {
		for (j = 0; j < RING_OPS; j++)
			ops[n++] = (struct guest_op) {
				.kind = GUEST_MMIO_WRITE, .width = 4,
				.addr = BAR, .value = i,
				.repeat = RESET_QUEUES, .addr_step = 4,
			};
		ops[n++] = (struct guest_op) {
			.kind = GUEST_MMIO_WRITE, .width = 4, .addr = RESET_REG,
		};
	}
	ASSERT_EQ(0, doorbell_attach_region(self->d.db, &arg));
	self->vmm->exit_cb = reset_exit;
	self->vmm->exit_ctx = &self->d;
	ASSERT_EQ(0, pthread_create(&self->d.thread, NULL, device_main,
				    &self->d));
	ASSERT_EQ(0, vmm_script(self->vmm, 0, ops, n));
	ASSERT_EQ(0, vmm_vcpu_run(self->vmm, 0));
	self->d.stop = true;
	ASSERT_EQ(0, request_reset(&self->d));
	ASSERT_EQ(0, pthread_join(self->d.thread, NULL));

	ASSERT_EQ(EPOCHS, vmm_exits(self->vmm));
	ASSERT_EQ(0, self->d.stale);
	ASSERT_EQ(EPOCHS * RING_OPS * RESET_QUEUES,
		  self->d.acted + self->d.discarded);
	/* the device is slower than its driver, so resets had work to do */
	ASSERT_LT(0, self->d.discarded);
}

/* Pause, snapshot, restore */

#define STATE_MAX	4096
#define SNAPSHOTS	3

FIXTURE(snapshot)
{
	struct vmm *vmm;
	struct doorbell *db;
	int fd;
};

FIXTURE_VARIANT(snapshot)
{
	unsigned int open;
	__u32 flags;
	__u32 depth;
	bool nowait;
};

FIXTURE_VARIANT_ADD(snapshot, mapped) {};
FIXTURE_VARIANT_ADD(snapshot, read) { .open = DOORBELL_OPEN_READ };
FIXTURE_VARIANT_ADD(snapshot, by_value) { .flags = BY_VALUE };
FIXTURE_VARIANT_ADD(snapshot, ordered_mapped) { .flags = ORDERED, .depth = 5 };
FIXTURE_VARIANT_ADD(snapshot, ordered_read) {
	.flags = ORDERED, .depth = 5, .open = DOORBELL_OPEN_READ,
};
FIXTURE_VARIANT_ADD(snapshot, ordered_nowait) {
	.flags = ORDERED, .depth = 5, .nowait = true,
};

FIXTURE_SETUP(snapshot)
{
}

FIXTURE_TEARDOWN(snapshot)
{
	vmm_destroy(self->vmm);
	doorbell_close(self->db);
}

static void snapshot_open(struct __test_metadata *_metadata,
			  struct doorbell **db, struct vmm **vmm,
			  unsigned int open, __u32 flags, __u32 depth)
{
	struct doorbell_attach arg = {
		.base = BAR,
		.len = flags & BY_VALUE ? 8 : REGION_LEN,
		.stride = REGION_STRIDE,
		.flags = flags,
		.depth = depth,
		.queues = flags & BY_VALUE ? 50 : 0,
	};

	*vmm = vmm_create(VCPUS);
	ASSERT_NE(NULL, *vmm);
	*db = doorbell_open(open);
	ASSERT_NE(NULL, *db);
	arg.vm_fd = (*vmm)->vm_fd;
	ASSERT_EQ(0, doorbell_attach_region(*db, &arg));
}

/* The VMM passes a bounced ring on, and waits for room. */
static int pass_on(void *ctx, unsigned int vcpu, struct vmm_exit *exit)
{
	return db_ring(*(int *)ctx, exit->addr, exit->data);
}

/**
 * struct bounced - the rings that a VMM has yet to pass on
 * @fd: the region
 * @stop: do not try again
 * @ring: of each vCPU
 * @full: this vCPU has one
 */
struct bounced {
	int fd;
	_Atomic bool stop;
	struct doorbell_ring ring[VCPUS];
	bool full[VCPUS];
};

/* The same without waiting in write(). The vCPU does not run meanwhile. */
static int pass_on_nowait(void *ctx, unsigned int vcpu, struct vmm_exit *exit)
{
	struct doorbell_ring ring = { .addr = exit->addr, .value = exit->data };
	struct iovec iov = { &ring, sizeof(ring) };
	struct bounced *b = ctx;
	int ret;

	while ((ret = db_result(pwritev2(b->fd, &iov, 1, -1, RWF_NOWAIT))) ==
	       -EAGAIN && !b->stop)
		db_poll(b->fd, POLLOUT, 1);
	if (ret == -EAGAIN) {
		b->ring[vcpu] = ring;
		b->full[vcpu] = true;
		return 0;
	}
	return ret < 0 ? ret : 0;
}

/* Add them to the events of a snapshot. */
static int add_bounced(const struct bounced *b, struct doorbell_event *events)
{
	unsigned int v;
	int n = 0;

	for (v = 0; v < VCPUS; v++)
		if (b->full[v])
			events[n++] = (struct doorbell_event) {
				.type = DOORBELL_EVENT_QUEUE, .count = 1,
				.queue = (b->ring[v].addr - BAR) /
					 REGION_STRIDE,
				.value = b->ring[v].value,
			};
	return n;
}

static bool vcpus_run(const struct vmm *vmm)
{
	unsigned int v;

	for (v = 0; v < vmm->nr_vcpus; v++)
		if (__atomic_load_n(&vmm->vcpu[v].tid, __ATOMIC_SEQ_CST))
			return true;
	return false;
}

/* The recipe: ring what each event stands for. */
static int restore(int fd, __u32 flags, const struct doorbell_event *events,
		   int n)
{
	struct doorbell_ring rings[64];
	unsigned int left, some, i;
	int ret;

	for (; n; n--, events++) {
		struct doorbell_ring ring = {
			.addr = BAR, .value = events->value,
		};

		if (events->type == DOORBELL_EVENT_BAD_ADDRESS)
			ring.addr = events->value;
		else if (!(flags & BY_VALUE))
			ring.addr += events->queue * REGION_STRIDE;
		for (i = 0; i < ARRAY_SIZE(rings); i++)
			rings[i] = ring;
		for (left = events->count; left; left -= some) {
			some = left < ARRAY_SIZE(rings) ? left :
							  ARRAY_SIZE(rings);
			ret = db_result(write(fd, rings, some * sizeof(ring)));
			if (ret != (int)(some * sizeof(ring)))
				return ret < 0 ? ret : -EAGAIN;
		}
	}
	return 0;
}

/* Ordered: the numbers of each vCPU are complete, and in order. */
static void check_numbers(struct __test_metadata *_metadata,
			  const struct doorbell_event *events, int n,
			  __u64 next[VCPUS])
{
	unsigned int vcpu;

	for (; n; n--, events++) {
		vcpu = events->value >> 32;
		ASSERT_LT(vcpu, VCPUS);
		ASSERT_EQ(next[vcpu], (__u32)events->value);
		next[vcpu]++;
	}
}

/* Take all that there is now. */
static int take(struct doorbell *db, struct doorbell_event *events, int max)
{
	int ret, n = 0;

	while ((ret = doorbell_take(db, events + n, max - n)) > 0)
		n += ret;
	return n;
}

static __u64 sum(const struct doorbell_event *events, int n)
{
	__u64 count = 0;

	for (; n; n--, events++)
		count += events->count;
	return count;
}

TEST_F_TIMEOUT(snapshot, is_the_whole_state, TEST_SECONDS)
{
	const bool ordered = variant->flags & ORDERED;
	const enum doorbell_event_type bad = variant->flags & BY_VALUE ?
		DOORBELL_EVENT_BAD_QUEUE : DOORBELL_EVENT_BAD_ADDRESS;
	struct guest_job job = {
		.kind = ordered ? GUEST_NUMBERED : GUEST_STORM,
		.width = 8,
		.base = BAR,
		.stride = REGION_STRIDE,
		.range = { { .first = 0, .nr = variant->flags & BY_VALUE ?
			     1 : REGION_QUEUES } },
	};
	static struct doorbell_event state[STATE_MAX], again[STATE_MAX];
	struct doorbell_event some[8];
	struct doorbell_info info;
	unsigned int v, round;
	struct doorbell *db;
	struct vmm *vmm;
	__u64 handled, rung, types;
	int i, n;

	for (round = 0; round < SNAPSHOTS; round++) {
		struct bounced bounced = {};
		__u64 next[VCPUS] = {};

		snapshot_open(_metadata, &self->db, &self->vmm, variant->open,
			      variant->flags, variant->depth);
		self->fd = doorbell_fd(self->db);
		bounced.fd = self->fd;
		self->vmm->exit_cb = pass_on;
		self->vmm->exit_ctx = &self->fd;
		if (variant->nowait) {
			self->vmm->exit_cb = pass_on_nowait;
			self->vmm->exit_ctx = &bounced;
		}
		for (v = 0; v < VCPUS; v++) {
			ASSERT_EQ(0, vmm_job(self->vmm, v, &job));
			ASSERT_EQ(0, vmm_thread_start(self->vmm, v));
		}

		/* the device handles some events */
		handled = 0;
		for (i = 0; i < 20; i++) {
			ASSERT_EQ(1, doorbell_wait(self->db, DB_PATIENCE_MS));
			n = doorbell_take(self->db, some, ARRAY_SIZE(some));
			ASSERT_LE(0, n);
			handled += sum(some, n);
			if (ordered)
				check_numbers(_metadata, some, n, next);
		}
		/* until the region is full, and each vCPU has one ring more */
		if (ordered) {
			ASSERT_TRUE(eventually(info_of(self->fd).pending ==
					       variant->depth));
			rung = info_of(self->fd).rings + VCPUS;
			ASSERT_TRUE(eventually(guest_total(self->vmm->shared) ==
					       rung));
		}

		/* pause the vCPUs: write() may wait for room */
		n = 0;
		bounced.stop = true;
		vmm_stop(self->vmm);
		while (ordered && !variant->nowait && vcpus_run(self->vmm))
			n += take(self->db, state + n, STATE_MAX - n);
		for (v = 0; v < VCPUS; v++)
			ASSERT_EQ(0, vmm_thread_join(self->vmm, v));
		/* a bad ring, which belongs to the state as well */
		if (!ordered)
			ASSERT_EQ(0, db_ring(self->fd, variant->flags &
					     BY_VALUE ? BAR : BAR + REGION_LEN,
					     60));
		n += take(self->db, state + n, STATE_MAX - n);
		if (variant->nowait) {
			ASSERT_EQ(variant->depth, n);
			n += add_bounced(&bounced, state + n);
		}
		ASSERT_EQ(0, info_of(self->fd).pending);
		ASSERT_EQ(guest_total(self->vmm->shared) + !ordered,
			  handled + sum(state, n));
		for (i = 0, types = 0; i < n; i++)
			types |= 1ULL << state[i].type;
		if (ordered)
			ASSERT_EQ(variant->depth + VCPUS, n);
		if (!ordered)
			ASSERT_NE(0, types & 1ULL << bad);

		/* restore into another VM, and another consumer */
		snapshot_open(_metadata, &db, &vmm, variant->open,
			      variant->flags, ordered ? n : 0);
		ASSERT_EQ(0, restore(doorbell_fd(db), variant->flags, state,
				     n));
		ASSERT_EQ(0, doorbell_get_info(db, &info));
		ASSERT_EQ(sum(state, n), info.pending);
		ASSERT_EQ(n, doorbell_take(db, again, STATE_MAX));
		for (i = 0; i < n; i++) {
			ASSERT_EQ(state[i].type, again[i].type);
			ASSERT_EQ(state[i].queue, again[i].queue);
			ASSERT_EQ(state[i].count, again[i].count);
			ASSERT_EQ(state[i].value, again[i].value);
			ASSERT_EQ(0, again[i].width);
		}
		if (ordered) {
			check_numbers(_metadata, again, n, next);
			for (v = 0; v < VCPUS; v++)
				ASSERT_EQ(vmm_rings(self->vmm->shared, v),
					  next[v]);
		}
		vmm_destroy(self->vmm);
		doorbell_close(self->db);
		vmm_destroy(vmm);
		doorbell_close(db);
		self->vmm = NULL;
		self->db = NULL;
	}
}

/* The state of bound queues is what their eventfds hold. */
TEST_F_TIMEOUT(snapshot, bound_queues, TEST_SECONDS)
{
	const __u64 step = variant->flags & BY_VALUE ? 0 : REGION_STRIDE;
	struct doorbell_event state[4], again[4];
	int efd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	struct doorbell *db;
	struct vmm *vmm;
	eventfd_t count;

	ASSERT_LE(0, efd);
	snapshot_open(_metadata, &self->db, &self->vmm, variant->open,
		      variant->flags, variant->depth);
	ASSERT_EQ(0, doorbell_bind_queues(self->db, 1, 1, &efd));
	ASSERT_EQ(0, guest_write(self->vmm, 0, 4, BAR + step, 1));
	ASSERT_EQ(0, guest_write(self->vmm, 0, 4, BAR + 2 * step, 2));
	ASSERT_EQ(0, guest_write(self->vmm, 0, 4, BAR + step, 1));
	ASSERT_EQ(1, doorbell_take(self->db, state, 4));
	ASSERT_TRUE(db_event_is(&state[0], 2, 1, 2));

	snapshot_open(_metadata, &db, &vmm, variant->open, variant->flags,
		      variant->depth);
	ASSERT_EQ(0, restore(doorbell_fd(db), variant->flags, state, 1));
	ASSERT_EQ(0, doorbell_bind_queues(db, 1, 1, &efd));
	ASSERT_EQ(0, guest_write(vmm, 0, 4, BAR + step, 1));
	ASSERT_EQ(1, doorbell_take(db, again, 4));
	ASSERT_TRUE(db_event_is(&again[0], 2, 1, 2));
	ASSERT_EQ(0, eventfd_read(efd, &count));
	ASSERT_EQ(3, count);
	close(efd);
	vmm_destroy(vmm);
	doorbell_close(db);
}

/* BAR move */

#define BAR_REG		(BAR + 0x8000)	/* the BAR, in configuration space */
#define NEW_BAR		(BAR + 0x100000)
#define PARKED		(BAR + 0x200000)
#define MOVES		50
#define BAR_QUEUES	16

/**
 * struct bars - what the exits of a guest that moves BARs do
 * @db: the consumers
 * @vm_fd: the VM
 * @base: where their regions are
 * @writes: exits of writes to BAR_REG
 * @others: exits at an address where no region is
 */
struct bars {
	struct doorbell *db[2];
	int vm_fd;
	__u64 base[2];
	__u64 writes;
	_Atomic __u64 others;
};

FIXTURE(bar)
{
	struct bars bars;
	struct vmm *vmm;
};

FIXTURE_VARIANT(bar)
{
	unsigned int open;
	__u32 flags;
};

FIXTURE_VARIANT_ADD(bar, mapped) {};
FIXTURE_VARIANT_ADD(bar, read) { .open = DOORBELL_OPEN_READ };
FIXTURE_VARIANT_ADD(bar, no_value) { .flags = NO_VALUE };

FIXTURE_SETUP(bar)
{
	unsigned int i;

	self->vmm = vmm_create(2);
	ASSERT_NE(NULL, self->vmm);
	self->bars.vm_fd = self->vmm->vm_fd;
	self->bars.base[0] = BAR;
	self->bars.base[1] = NEW_BAR;
	for (i = 0; i < 2; i++) {
		self->bars.db[i] = doorbell_open(variant->open);
		ASSERT_NE(NULL, self->bars.db[i]);
	}
}

FIXTURE_TEARDOWN(bar)
{
	vmm_destroy(self->vmm);
	doorbell_close(self->bars.db[0]);
	doorbell_close(self->bars.db[1]);
}

#define BAR_DEPTH	2	/* if ordered */

static int bar_attach(struct bars *bars, struct vmm *vmm, unsigned int i,
		      __u32 flags)
{
	struct doorbell_attach arg = {
		.vm_fd = vmm->vm_fd,
		.base = bars->base[i],
		.len = BAR_QUEUES * 4,
		.flags = flags,
		.depth = flags & ORDERED ? BAR_DEPTH : 0,
	};

	return doorbell_attach_region(bars->db[i], &arg);
}

static int move_exit(void *ctx, unsigned int vcpu, struct vmm_exit *exit)
{
	struct bars *bars = ctx;

	if (exit->addr != BAR_REG) {
		bars->others++;
		return exit->addr & 0x20 ? 0 : -EPROTO;
	}
	bars->writes++;
	return doorbell_move_region(bars->db[0], bars->vm_fd, exit->data);
}

/*
 * vCPU 0 moves the BAR, and rings the lower queues where it is. No such ring
 * exits. vCPU 1 rings the upper ones at the old place only.
 */
TEST_F_TIMEOUT(bar, moves, TEST_SECONDS)
{
	struct guest_job job = {
		.kind = GUEST_STORM, .width = 4, .base = BAR, .stride = 4,
		.range = { { .first = BAR_QUEUES / 2, .nr = BAR_QUEUES / 2 } },
	};
	static struct guest_op ops[2 * MOVES];
	__u64 count[BAR_QUEUES] = {}, upper = 0;
	struct bars *bars = &self->bars;
	struct doorbell_event events[8];
	unsigned int i, q;
	bool running;
	int n;

	for (i = 0; i < MOVES; i++) {
		__u64 base = i % 2 ? NEW_BAR : BAR;

		ops[2 * i] = (struct guest_op) {
			.kind = GUEST_MMIO_WRITE, .width = 4, .addr = BAR_REG,
			.value = base,
		};
		ops[2 * i + 1] = (struct guest_op) {
			.kind = GUEST_MMIO_WRITE, .width = 4, .addr = base,
			.repeat = BAR_QUEUES / 2, .addr_step = 4,
		};
	}
	ASSERT_EQ(0, bar_attach(bars, self->vmm, 0, variant->flags));
	self->vmm->exit_cb = move_exit;
	self->vmm->exit_ctx = bars;
	ASSERT_EQ(0, vmm_job(self->vmm, 1, &job));
	ASSERT_EQ(0, vmm_thread_start(self->vmm, 1));
	ASSERT_EQ(0, vmm_script(self->vmm, 0, ops, 2 * MOVES));
	ASSERT_EQ(0, vmm_thread_start(self->vmm, 0));
	do {
		running = __atomic_load_n(&self->vmm->vcpu[0].busy,
					  __ATOMIC_SEQ_CST);
		ASSERT_LE(0, doorbell_wait(bars->db[0], 1));
		n = doorbell_take(bars->db[0], events, ARRAY_SIZE(events));
		ASSERT_LE(0, n);
		for (i = 0; i < n; i++)
			count[events[i].queue] += events[i].count;
	} while (n || running);
	ASSERT_EQ(0, vmm_thread_join(self->vmm, 0));
	vmm_stop(self->vmm);
	ASSERT_EQ(0, vmm_thread_join(self->vmm, 1));
	while ((n = doorbell_take(bars->db[0], events, ARRAY_SIZE(events))) > 0)
		for (i = 0; i < n; i++)
			count[events[i].queue] += events[i].count;

	ASSERT_EQ(MOVES, bars->writes);
	for (q = 0; q < BAR_QUEUES / 2; q++)
		ASSERT_EQ(MOVES, count[q]) {
			TH_LOG("queue %u", q);
		}
	for (; q < BAR_QUEUES; q++)
		upper += count[q];
	ASSERT_EQ(guest_total(self->vmm->shared), upper + bars->others);
}

/* The recipe: two regions change places by way of a third one. */
static int swap_exit(void *ctx, unsigned int vcpu, struct vmm_exit *exit)
{
	struct bars *bars = ctx;
	__u64 base = bars->base[0];
	int ret;

	if (exit->addr != BAR_REG)
		return -EPROTO;
	bars->writes++;
	ret = doorbell_move_region(bars->db[0], bars->vm_fd, bars->base[1]);
	if (ret != -EEXIST)
		return ret ?: -EPROTO;
	ret = doorbell_move_region(bars->db[0], bars->vm_fd, PARKED);
	ret = ret ?: doorbell_move_region(bars->db[1], bars->vm_fd, base);
	ret = ret ?: doorbell_move_region(bars->db[0], bars->vm_fd,
					  bars->base[1]);
	bars->base[0] = bars->base[1];
	bars->base[1] = base;
	return ret;
}

TEST_F_TIMEOUT(bar, two_change_places, TEST_SECONDS)
{
	static struct guest_op ops[3 * MOVES];
	const bool value = !(variant->flags & NO_VALUE);
	struct bars *bars = &self->bars;
	struct doorbell_event events[4];
	unsigned int i, n = 0;

	for (i = 0; i < 2; i++)
		ASSERT_EQ(0, bar_attach(bars, self->vmm, i, variant->flags));
	for (i = 0; i < MOVES; i++) {
		ops[n++] = (struct guest_op) {
			.kind = GUEST_MMIO_WRITE, .width = 4,
			.addr = (i % 2 ? NEW_BAR : BAR) + 4, .value = 1000,
		};
		ops[n++] = (struct guest_op) {
			.kind = GUEST_MMIO_WRITE, .width = 4,
			.addr = (i % 2 ? BAR : NEW_BAR) + 8, .value = 2000,
		};
		ops[n++] = (struct guest_op) {
			.kind = GUEST_MMIO_WRITE, .width = 4, .addr = BAR_REG,
		};
	}
	self->vmm->exit_cb = swap_exit;
	self->vmm->exit_ctx = bars;
	ASSERT_EQ(0, vmm_script(self->vmm, 0, ops, n));
	ASSERT_EQ(0, vmm_vcpu_run(self->vmm, 0));
	ASSERT_EQ(MOVES, bars->writes);
	ASSERT_EQ(MOVES, vmm_exits(self->vmm));
	for (i = 0; i < 2; i++) {
		ASSERT_EQ(1, doorbell_take(bars->db[i], events, 4));
		ASSERT_TRUE(db_event_is(&events[0], 1 + i, MOVES,
					value ? 1000 + 1000 * i : 0));
	}
}

static int keep_exit(void *ctx, unsigned int vcpu, struct vmm_exit *exit)
{
	*(struct vmm_exit *)ctx = *exit;
	return 0;
}

/* A ring that bounced before the move names the old address. */
TEST_F_TIMEOUT(bar, bounce_before_move, TEST_SECONDS)
{
	const bool value = !(variant->flags & NO_VALUE);
	struct doorbell *db = self->bars.db[0];
	struct doorbell_event event;
	struct vmm_exit bounce;
	unsigned int i;

	ASSERT_EQ(0, bar_attach(&self->bars, self->vmm, 0,
				variant->flags | ORDERED));
	self->vmm->exit_cb = keep_exit;
	self->vmm->exit_ctx = &bounce;
	for (i = 0; i <= BAR_DEPTH; i++)
		ASSERT_EQ(0, guest_write(self->vmm, 0, 4, BAR + 4 * i, 7));
	ASSERT_EQ(1, vmm_exits(self->vmm));
	ASSERT_EQ(BAR + 4 * BAR_DEPTH, bounce.addr);
	ASSERT_EQ(0, doorbell_move_region(db, self->bars.vm_fd, NEW_BAR));
	ASSERT_EQ(BAR_DEPTH, drain(db));

	ASSERT_EQ(0, doorbell_ring_addr(db, bounce.addr, bounce.data));
	ASSERT_EQ(1, doorbell_take(db, &event, 1));
	ASSERT_TRUE(db_event_is_bad(&event, 1, BAR + 4 * BAR_DEPTH));
	ASSERT_EQ(0, doorbell_ring_addr(db, bounce.addr - BAR + NEW_BAR,
					bounce.data));
	expect(_metadata, db, BAR_DEPTH, 0, value ? 7 : 0);
}

/* Hot-unplug under load */

/**
 * struct unplug - a device that is plugged in and out
 * @db: its consumer
 * @fd: the descriptor
 * @events: rings that it got
 * @refused: exits that the VMM could not pass on
 * @end_fd: eventfd that ends the back end, or -1 for a bad address
 * @result: of doorbell_complete()
 */
struct unplug {
	struct doorbell *db;
	int fd;
	int end_fd;
	_Atomic __u64 events;
	_Atomic __u64 refused;
	int result;
};

FIXTURE(unplug)
{
	struct unplug u;
	struct vmm *vmm;
};

FIXTURE_VARIANT(unplug)
{
	unsigned int open;
	__u32 flags;
};

FIXTURE_VARIANT_ADD(unplug, mapped) {};
FIXTURE_VARIANT_ADD(unplug, read) { .open = DOORBELL_OPEN_READ };
FIXTURE_VARIANT_ADD(unplug, by_value_mapped) { .flags = BY_VALUE };
FIXTURE_VARIANT_ADD(unplug, by_value_read) {
	.flags = BY_VALUE, .open = DOORBELL_OPEN_READ,
};
FIXTURE_VARIANT_ADD(unplug, ordered_mapped) { .flags = ORDERED };
FIXTURE_VARIANT_ADD(unplug, ordered_read) {
	.flags = ORDERED, .open = DOORBELL_OPEN_READ,
};

FIXTURE_SETUP(unplug)
{
	self->vmm = vmm_create(VCPUS);
	ASSERT_NE(NULL, self->vmm);
	self->u.db = doorbell_open(variant->open);
	ASSERT_NE(NULL, self->u.db);
	self->u.fd = doorbell_fd(self->u.db);
	self->u.end_fd = variant->flags & BY_VALUE ?
		eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC) : -1;
}

FIXTURE_TEARDOWN(unplug)
{
	close(self->u.end_fd);
	vmm_destroy(self->vmm);
	doorbell_close(self->u.db);
}

static int unplug_notify(unsigned int queue, const struct doorbell_event *event,
			 void *ctx)
{
	struct unplug *u = ctx;

	if (event->type == DOORBELL_EVENT_BAD_ADDRESS)
		return 1;
	u->events += event->count;
	return 0;
}

/* A guest's bad rings may hide the VMM's. So wait for an eventfd, too. */
static int unplug_until_event(struct unplug *u)
{
	struct pollfd fds[] = {
		{ .fd = u->fd, .events = POLLIN },
		{ .fd = u->end_fd, .events = POLLIN },
	};

	while (poll(fds, ARRAY_SIZE(fds), -1) > 0 && !fds[1].revents)
		u->events += drain(u->db);
	return 1;
}

static void *unplug_main(void *arg)
{
	struct unplug *u = arg;

	if (u->end_fd >= 0)
		u->result = unplug_until_event(u);
	else
		u->result = doorbell_complete(u->db, unplug_notify, u);
	return NULL;
}

static int unplug_end(struct unplug *u)
{
	if (u->end_fd >= 0)
		return eventfd_write(u->end_fd, 1);
	return db_ring(u->fd, MMIO_BASE + REGION_LEN, 0);
}

/* Pass the ring on; if there is no device any more, it goes nowhere. */
static int unplug_exit(void *ctx, unsigned int vcpu, struct vmm_exit *exit)
{
	struct unplug *u = ctx;
	int ret = db_ring(u->fd, exit->addr, exit->data);

	if (ret == -ENOTCONN) {
		u->refused++;
		ret = 0;
	}
	return ret;
}

TEST_F_TIMEOUT(unplug, under_load, TEST_SECONDS)
{
	struct doorbell_attach arg = {
		.vm_fd = self->vmm->vm_fd,
		.base = MMIO_BASE,
		.len = REGION_LEN,
		.stride = REGION_STRIDE,
		.flags = variant->flags,
		.depth = variant->flags & ORDERED ? 16 : 0,
	};
	struct guest_job job = {
		.kind = GUEST_STORM, .width = 4, .base = MMIO_BASE,
		.stride = REGION_STRIDE,
		.range = { { .first = 0, .nr = REGION_QUEUES } },
	};
	__u64 seen, rung, end = db_until(3000);
	struct unplug *u = &self->u;
	pthread_t thread;
	eventfd_t count;
	unsigned int i;

	/* values that name a queue at first, and none later */
	if (variant->flags & BY_VALUE) {
		arg.len = REGION_STRIDE;
		arg.queues = 200;
		job.range[0].nr = 1;
	}

	self->vmm->exit_cb = unplug_exit;
	self->vmm->exit_ctx = u;
	for (i = 0; i < VCPUS; i++) {
		ASSERT_EQ(0, vmm_job(self->vmm, i, &job));
		ASSERT_EQ(0, vmm_thread_start(self->vmm, i));
	}
	for (i = 0; db_round(i, 8, 40, end); i++) {
		ASSERT_EQ(0, doorbell_attach_region(u->db, &arg));
		ASSERT_EQ(0, pthread_create(&thread, NULL, unplug_main, u));
		seen = u->events;
		ASSERT_TRUE(eventually(u->events > seen + 100));

		/* the back end stops, then nothing rings, then the rest */
		ASSERT_EQ(0, unplug_end(u));
		ASSERT_EQ(0, pthread_join(thread, NULL));
		if (u->end_fd >= 0)
			ASSERT_EQ(0, eventfd_read(u->end_fd, &count));
		ASSERT_EQ(1, u->result);
		ASSERT_EQ(0, doorbell_detach_region(u->db));
		u->events += drain(u->db);
		seen = u->refused;
		ASSERT_TRUE(eventually(u->refused > seen + 3));
	}
	ASSERT_EQ(0, stop_ringing(self->vmm));
	rung = guest_total(self->vmm->shared);
	ASSERT_EQ(rung, u->events + u->refused);
}

/* seccomp */

/* A system call, or one request of ioctl() */
struct allowed {
	long nr;
	__u32 request;
};

#ifdef __aarch64__
#define SECCOMP_ARCH	AUDIT_ARCH_AARCH64
#else
#define SECCOMP_ARCH	AUDIT_ARCH_X86_64
#endif

#define CALL(_name)	{ SYS_##_name, 0 }
#define IOCTL(_request)	{ SYS_ioctl, _request }
#define END		{ -1, 0 }

/* The tables of section "seccomp", line by line */
static const struct allowed consumer_by_read[] = {
	CALL(read), CALL(epoll_wait), CALL(close), CALL(exit_group),
	END
};

static const struct allowed consumer_mapped[] = {
	CALL(poll), CALL(restart_syscall), IOCTL(DOORBELL_INFO), CALL(mmap),
	CALL(munmap), CALL(preadv2), CALL(close), CALL(exit_group),
	END
};

static const struct allowed vmm_side[] = {
	CALL(openat), IOCTL(DOORBELL_ATTACH), IOCTL(DOORBELL_DETACH),
	IOCTL(DOORBELL_INFO), IOCTL(DOORBELL_MOVE), IOCTL(DOORBELL_BIND),
	IOCTL(DOORBELL_BINDINGS), CALL(write), CALL(pwritev2),
	CALL(sendmsg), CALL(close), CALL(exit_group),
	END
};

/* What this program's VMM needs for its guest, whatever the device */
static const struct allowed vmm_own[] = {
	IOCTL(KVM_RUN), CALL(gettid),
	END
};

static unsigned int filter_add(struct sock_filter *f,
			       const struct allowed *list)
{
	const __u32 nr = offsetof(struct seccomp_data, nr);
	const __u32 request = offsetof(struct seccomp_data, args[1]);
	unsigned int n = 0;

	for (; list->nr >= 0; list++) {
		bool is_ioctl = list->nr == SYS_ioctl;

		f[n++] = (struct sock_filter)
			BPF_STMT(BPF_LD | BPF_W | BPF_ABS, nr);
		f[n++] = (struct sock_filter)
			BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, list->nr, 0,
				 is_ioctl ? 3 : 1);
		if (is_ioctl) {
			/* the kernel ignores the upper half of the request */
			f[n++] = (struct sock_filter)
				BPF_STMT(BPF_LD | BPF_W | BPF_ABS, request);
			f[n++] = (struct sock_filter)
				BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K,
					 list->request, 0, 1);
		}
		f[n++] = (struct sock_filter)
			BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	}
	return n;
}

/* Allow what is in the lists, and nothing else. */
static int filter_install(const struct allowed *list,
			  const struct allowed *more)
{
	struct sock_filter f[256];
	struct sock_fprog prog = { .filter = f };
	unsigned int n = 0;

	f[n++] = (struct sock_filter)
		BPF_STMT(BPF_LD | BPF_W | BPF_ABS,
			 offsetof(struct seccomp_data, arch));
	f[n++] = (struct sock_filter)
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, SECCOMP_ARCH, 1, 0);
	f[n++] = (struct sock_filter)
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
	n += filter_add(f + n, list);
	if (more)
		n += filter_add(f + n, more);
	f[n++] = (struct sock_filter)
		BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
	prog.len = n;
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		return -errno;
	return db_result(syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0,
				 &prog));
}

FIXTURE(sandbox)
{
	struct backend *b;
	struct vmm *vmm;
	int fd;
};

FIXTURE_SETUP(sandbox)
{
	self->b = db_shared_memory(sizeof(*self->b));
	ASSERT_NE(NULL, self->b);
	self->b->quota = ~0ULL;
	self->b->events = 64;
	self->fd = db_must_open(_metadata, 0);
	if (prctl(PR_GET_SECCOMP, 0, 0, 0, 0) < 0)
		SKIP(return, "the kernel has no seccomp");
}

FIXTURE_TEARDOWN(sandbox)
{
	vmm_destroy(self->vmm);
	close(self->fd);
}

/* Ring until the consumer has got some rings, and end it by a bad address. */
static void ring_sandbox(struct __test_metadata *_metadata, struct vmm *vmm,
			 struct backend *b, int fd, pid_t pid, long wait)
{
	__u64 rung[REGION_QUEUES] = {}, total;
	int i, status;

	for (i = 0; i < 3; i++) {
		/* another region each time: libdoorbell maps it */
		if (i)
			ASSERT_EQ(0, db_detach(fd));
		ASSERT_EQ(0, attach_region(fd, vmm->vm_fd, 0));
		/* as a debugger does, while it waits */
		ASSERT_EQ(0, db_wait_sleeping(pid, pid, wait));
		ASSERT_EQ(0, kill(pid, SIGSTOP));
		ASSERT_EQ(pid, waitpid(pid, &status, WUNTRACED));
		ASSERT_TRUE(WIFSTOPPED(status));
		ASSERT_EQ(0, kill(pid, SIGCONT));
		total = b->total;
		ASSERT_EQ(0, start_ringing(vmm, 0));
		ASSERT_TRUE(eventually(b->total > total + 100));
		ASSERT_EQ(0, stop_ringing(vmm));
		total = guest_total(vmm->shared);
		ASSERT_TRUE(eventually(b->total == total));
	}
	add_rung(vmm->shared, rung);
	check_backend(_metadata, b, rung);
	ASSERT_EQ(0, db_ring(fd, MMIO_BASE + REGION_LEN, 0));
}

/* Each event by epoll_wait() and read() */
__attribute__((noreturn))
static void read_in_sandbox(struct backend *b, int fd)
{
	struct epoll_event event = { .events = EPOLLIN };
	int n, i, epfd = epoll_create1(EPOLL_CLOEXEC);
	struct doorbell_event events[16];

	if (epoll_ctl(epfd, EPOLL_CTL_ADD, fd, &event) ||
	    filter_install(consumer_by_read, NULL))
		_exit(1);
	for (;;) {
		/* a signal that stops the process interrupts this call */
		if (epoll_wait(epfd, &event, 1, -1) != 1)
			continue;
		n = db_read(fd, events, ARRAY_SIZE(events));
		for (i = 0; i < n; i++) {
			if (events[i].type != DOORBELL_EVENT_QUEUE) {
				close(fd);
				_exit(0);
			}
			b->count[events[i].queue] += events[i].count;
			b->total += events[i].count;
		}
	}
}

TEST_F_TIMEOUT(sandbox, read_consumer, TEST_SECONDS)
{
	pid_t pid = fork();

	ASSERT_LE(0, pid);
	if (!pid)
		read_in_sandbox(self->b, self->fd);
	self->vmm = vmm_create(VCPUS);
	ASSERT_NE(NULL, self->vmm);
	ring_sandbox(_metadata, self->vmm, self->b, self->fd, pid,
		     SYS_epoll_wait);
	ASSERT_EQ(0, ended(pid));
}

TEST_F_TIMEOUT(sandbox, mapped_consumer, TEST_SECONDS)
{
	struct doorbell *db;
	pid_t pid;
	int ret;

	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		db = doorbell_from_fd(self->fd, 0);
		if (!db || filter_install(consumer_mapped, NULL))
			_exit(30);
		ret = backend_run(self->b, db);
		doorbell_close(db);
		_exit(ret);
	}
	self->vmm = vmm_create(VCPUS);
	ASSERT_NE(NULL, self->vmm);
	ring_sandbox(_metadata, self->vmm, self->b, self->fd, pid, SYS_poll);
	ASSERT_EQ(2, ended(pid));
}

/* All that a VMM does with a doorbell; returns the number of the step. */
static int vmm_in_sandbox(int sock)
{
	struct doorbell_info info = { .size = sizeof(info) };
	struct doorbell_queue_binding bindings[4];
	struct doorbell_bindings get = {
		.size = sizeof(get), .count = 4,
		.bindings = (uintptr_t)bindings,
	};
	struct doorbell_ring ring = { .addr = NEW_BAR + 8, .value = 3 };
	struct doorbell_move move = {
		.size = sizeof(move), .vm_fd = -1, .base = NEW_BAR,
	};
	struct iovec iov = { .iov_base = &ring, .iov_len = sizeof(ring) };
	int fds[4] = { eventfd(0, 0), -1, -1, -1 };
	struct doorbell_bind bind = {
		.size = sizeof(bind), .count = 4, .fds = (uintptr_t)fds,
	};
	struct vmm *vmm = vmm_create(1);
	int fd;

	if (vmm)
		move.vm_fd = vmm->vm_fd;
	if (!vmm || fds[0] < 0 || filter_install(vmm_side, vmm_own))
		return 1;
	fd = db_open(0);
	if (fd < 0 || db_attach(fd, vmm->vm_fd, BAR, 16) ||
	    db_send_fd(sock, fd))
		return 2;
	if (ioctl(fd, DOORBELL_BIND, &bind) || ioctl(fd, DOORBELL_MOVE, &move))
		return 3;
	if (guest_write(vmm, 0, 4, NEW_BAR, 1) ||
	    guest_write(vmm, 0, 4, NEW_BAR + 4, 2))
		return 4;
	if (write(fd, &ring, sizeof(ring)) != sizeof(ring) ||
	    pwritev2(fd, &iov, 1, -1, RWF_NOWAIT) != sizeof(ring))
		return 5;
	if (ioctl(fd, DOORBELL_BINDINGS, &get) || bindings[0].rings != 1)
		return 6;
	if (ioctl(fd, DOORBELL_INFO, &info) || info.rings != 4)
		return 7;
	if (db_detach(fd) || close(fd))
		return 8;
	return 0;
}

TEST_F_TIMEOUT(sandbox, vmm, TEST_SECONDS)
{
	struct doorbell_event events[4];
	int fd, socks[2];
	pid_t pid;

	ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_STREAM, 0, socks));
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid)
		_exit(vmm_in_sandbox(socks[1]));
	ASSERT_EQ(0, ended(pid));
	fd = db_receive_fd(socks[0]);
	ASSERT_LE(0, fd);
	ASSERT_EQ(2, db_read(fd, events, 4));
	ASSERT_TRUE(db_event_is(&events[0], 1, 1, 2));
	ASSERT_TRUE(db_event_is(&events[1], 2, 2, 3));
	close(fd);
}

/* The filter works: a consumer that detaches is killed. */
TEST_F_TIMEOUT(sandbox, kills_for_another_request, TEST_SECONDS)
{
	static const struct allowed *const lists[] = {
		consumer_by_read, consumer_mapped,
	};
	unsigned int i;
	pid_t pid;

	ASSERT_EQ(0, attach_region(self->fd, -1, 0));
	for (i = 0; i < ARRAY_SIZE(lists); i++) {
		pid = fork();
		ASSERT_LE(0, pid);
		if (!pid) {
			if (filter_install(lists[i], NULL))
				_exit(1);
			_exit(db_detach(self->fd) ? 2 : 3);
		}
		ASSERT_EQ(0x100 + SIGSYS, ended(pid));
		ASSERT_EQ(DOORBELL_ATTACHED, info_of(self->fd).state);
	}
}

/* landlock */

#define LANDLOCK_RW	(LANDLOCK_ACCESS_FS_READ_FILE | \
			 LANDLOCK_ACCESS_FS_WRITE_FILE)

/* Handle the rights of @handled, and allow those of @allowed for the device. */
static int landlock_restrict(__u64 handled, __u64 allowed)
{
	struct landlock_ruleset_attr attr = { .handled_access_fs = handled };
	struct landlock_path_beneath_attr rule = { .allowed_access = allowed };
	int fd = syscall(SYS_landlock_create_ruleset, &attr,
			 sizeof(attr.handled_access_fs), 0);
	int ret = 0;

	if (fd < 0)
		return -errno;
	if (allowed) {
		rule.parent_fd = open(DB_PATH, O_PATH | O_CLOEXEC);
		ret = db_result(syscall(SYS_landlock_add_rule, fd,
					LANDLOCK_RULE_PATH_BENEATH, &rule, 0));
		close(rule.parent_fd);
	}
	if (!ret && prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0))
		ret = -errno;
	if (!ret)
		ret = db_result(syscall(SYS_landlock_restrict_self, fd, 0));
	close(fd);
	return ret;
}

/* An inherited descriptor works: return the number of the step that fails. */
static int use_descriptor(int fd)
{
	struct doorbell_event event;
	struct doorbell *db;

	if (db_attach(fd, -1, 0, 64) || db_ring(fd, 8, 5) ||
	    db_read(fd, &event, 1) != 1 || !db_event_is(&event, 2, 1, 5))
		return 10;
	db = doorbell_from_fd(fd, DOORBELL_OPEN_NO_RECOVER);
	if (!db || doorbell_ring_addr(db, 4, 6) || drain(db) != 1)
		return 11;
	if (doorbell_wait(db, 0))
		return 12;
	return doorbell_detach_region(db) ? 13 : 0;
}

/* In a child: what open() and then ioctl() return under these rights */
__attribute__((noreturn))
static void landlocked(int fd, __u64 handled, __u64 allowed)
{
	struct doorbell_info info;
	int own, ret;

	if (landlock_restrict(handled, allowed))
		_exit(1);
	ret = use_descriptor(fd);
	if (ret)
		_exit(ret);
	own = db_open(0);
	if (own < 0)
		_exit(own == -EACCES ? 100 : 2);
	ret = db_info(own, &info);
	if (ret)
		_exit(ret == -EACCES ? 101 : 3);
	_exit(use_descriptor(own) ? 4 : 102);
}

#define CANNOT_OPEN	100
#define CANNOT_IOCTL	101
#define CAN_ALL		102

FIXTURE(landlock)
{
	int fd;
	int abi;
};

FIXTURE_SETUP(landlock)
{
	self->fd = db_must_open(_metadata, 0);
	self->abi = syscall(SYS_landlock_create_ruleset, NULL, 0,
			    LANDLOCK_CREATE_RULESET_VERSION);
	if (self->abi < 1)
		SKIP(return, "the kernel has no landlock");
}

FIXTURE_TEARDOWN(landlock)
{
	close(self->fd);
}

TEST_F_TIMEOUT(landlock, rights, TEST_SECONDS)
{
	static const struct {
		int abi;
		__u64 handled;
		__u64 allowed;
		int result;
	} cases[] = {
		{ 1, LANDLOCK_RW, 0, CANNOT_OPEN },
		{ 1, LANDLOCK_RW, LANDLOCK_ACCESS_FS_READ_FILE, CANNOT_OPEN },
		{ 1, LANDLOCK_RW, LANDLOCK_RW, CAN_ALL },
		{ 5, LANDLOCK_RW | LANDLOCK_ACCESS_FS_IOCTL_DEV, 0,
		  CANNOT_OPEN },
		{ 5, LANDLOCK_RW | LANDLOCK_ACCESS_FS_IOCTL_DEV, LANDLOCK_RW,
		  CANNOT_IOCTL },
		{ 5, LANDLOCK_RW | LANDLOCK_ACCESS_FS_IOCTL_DEV,
		  LANDLOCK_RW | LANDLOCK_ACCESS_FS_IOCTL_DEV, CAN_ALL },
	};
	unsigned int i;
	pid_t pid;

	for (i = 0; i < ARRAY_SIZE(cases); i++) {
		if (cases[i].abi > self->abi)
			continue;
		pid = fork();
		ASSERT_LE(0, pid);
		if (!pid)
			landlocked(self->fd, cases[i].handled,
				   cases[i].allowed);
		ASSERT_EQ(cases[i].result, ended(pid)) {
			TH_LOG("case %u, ABI %d", i, self->abi);
		}
	}
}

/* Containers */

#define NOBODY		65534
#define NO_NAMESPACES	77

/* The process of a container: no privileges, and namespaces of its own */
static int in_container(int sock)
{
	int fd, ret;
	pid_t pid;

	if (syscall(SYS_setgroups, 0, NULL) || setgid(NOBODY) || setuid(NOBODY))
		return 1;
	if (unshare(CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWPID))
		return NO_NAMESPACES;
	/* the first process of the new namespace */
	pid = fork();
	if (pid)
		return pid < 0 ? 2 : ended(pid);
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	fd = db_open(0);
	if (fd != -EACCES)
		return 3;
	fd = db_receive_fd(sock);
	if (fd < 0 || getpid() != 1)
		return 4;
	ret = use_descriptor(fd);
	return ret ?: db_open(0) == -EACCES ? 0 : 5;
}

/* Section "Containers": one that receives the descriptor needs nothing. */
TEST(container_receives_the_descriptor)
{
	int fd = db_must_open(_metadata, 0), socks[2], ret;
	pid_t pid;

	ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, socks));
	ASSERT_EQ(0, db_send_fd(socks[0], fd));
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid)
		_exit(in_container(socks[1]));
	ret = ended(pid);
	close(socks[0]);
	close(socks[1]);
	close(fd);
	if (ret == NO_NAMESPACES)
		SKIP(return, "no namespaces for users without privileges");
	ASSERT_EQ(0, ret);
}

/* A container that opens the device itself, in a root of its own */
#define OPENER_ROOT	"/tmp/container"
#define OPENER_GROUP	4711

FIXTURE(opener)
{
	char cgroup[64];
	struct stat device;
};

FIXTURE_VARIANT(opener)
{
	bool node;
	bool rule;
	bool group;
	int error;
};

FIXTURE_VARIANT_ADD(opener, all) {
	.node = true, .rule = true, .group = true,
};

FIXTURE_VARIANT_ADD(opener, no_node) {
	.rule = true, .group = true, .error = ENOENT,
};

FIXTURE_VARIANT_ADD(opener, no_rule) {
	.node = true, .group = true, .error = EPERM,
};

FIXTURE_VARIANT_ADD(opener, no_group) {
	.node = true, .rule = true, .error = EACCES,
};

/* Let processes of a cgroup use only this device: what a runtime sets up. */
static int device_rule(const char *cgroup, unsigned int major,
		       unsigned int minor)
{
	/* two loads, 0, two comparisons that skip what follows, 1, the end */
	const struct bpf_insn insns[] = {
		{ BPF_LDX | BPF_MEM | BPF_W, 2, 1,
		  offsetof(struct bpf_cgroup_dev_ctx, major), 0 },
		{ BPF_LDX | BPF_MEM | BPF_W, 3, 1,
		  offsetof(struct bpf_cgroup_dev_ctx, minor), 0 },
		{ BPF_ALU64 | BPF_MOV | BPF_K, 0, 0, 0, 0 },
		{ BPF_JMP | BPF_JNE | BPF_K, 2, 0, 2, major },
		{ BPF_JMP | BPF_JNE | BPF_K, 3, 0, 1, minor },
		{ BPF_ALU64 | BPF_MOV | BPF_K, 0, 0, 0, 1 },
		{ BPF_JMP | BPF_EXIT, 0, 0, 0, 0 },
	};
	union bpf_attr load = {
		.prog_type = BPF_PROG_TYPE_CGROUP_DEVICE,
		.insn_cnt = ARRAY_SIZE(insns),
		.insns = (unsigned long)insns,
		.license = (unsigned long)"GPL",
	};
	union bpf_attr attach = { .attach_type = BPF_CGROUP_DEVICE };
	int ret;

	attach.attach_bpf_fd = syscall(SYS_bpf, BPF_PROG_LOAD, &load,
				       sizeof(load));
	if ((int)attach.attach_bpf_fd < 0)
		return -errno;
	attach.target_fd = open(cgroup, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	ret = db_result(syscall(SYS_bpf, BPF_PROG_ATTACH, &attach,
				sizeof(attach)));
	close(attach.target_fd);
	close(attach.attach_bpf_fd);
	return ret;
}

FIXTURE_SETUP(opener)
{
	unsigned int minor;
	int ret;

	ASSERT_EQ(0, stat(DB_PATH, &self->device));
	snprintf(self->cgroup, sizeof(self->cgroup),
		 CGROUP_ROOT "/doorbell-%d", getpid());
	ASSERT_EQ(0, mkdir(self->cgroup, 0755));
	minor = minor(self->device.st_rdev) + !variant->rule;
	ret = device_rule(self->cgroup, major(self->device.st_rdev), minor);
	if (ret == -ENOSYS || ret == -EINVAL)
		SKIP(return, "the kernel has no rules for devices");
	ASSERT_EQ(0, ret);
}

FIXTURE_TEARDOWN(opener)
{
	EXPECT_EQ(0, rmdir(self->cgroup));
}

static int opener_root(const struct stat *device, bool node)
{
	const char *path = OPENER_ROOT DB_PATH;

	if (unshare(CLONE_NEWNS) ||
	    mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) ||
	    (mkdir(OPENER_ROOT, 0755) && errno != EEXIST) ||
	    mount("none", OPENER_ROOT, "tmpfs", 0, "mode=755") ||
	    mkdir(OPENER_ROOT "/dev", 0755))
		return -errno;
	if (node && (mknod(path, S_IFCHR, device->st_rdev) ||
		     chmod(path, 0660) || chown(path, 0, OPENER_GROUP)))
		return -errno;
	return 0;
}

static int opener(const struct stat *device, const char *cgroup,
		  const FIXTURE_VARIANT(opener) *variant)
{
	const gid_t group = OPENER_GROUP;
	int fd;

	if (opener_root(device, variant->node) ||
	    cgroup_put(cgroup, "cgroup.procs", "0") ||
	    chroot(OPENER_ROOT) || chdir("/") ||
	    syscall(SYS_setgroups, (int)variant->group, &group) ||
	    setgid(NOBODY) || setuid(NOBODY))
		return 1;
	fd = db_open(0);
	if (variant->error)
		return fd == -variant->error ? 0 : 2;
	return fd < 0 ? 3 : use_descriptor(fd);
}

/* Section "Containers": node, rule and group are needed, and are enough. */
TEST_F(opener, needs_node_rule_and_group)
{
	pid_t pid = fork();

	ASSERT_LE(0, pid);
	if (!pid)
		_exit(opener(&self->device, self->cgroup, variant));
	ASSERT_EQ(0, ended(pid));
}

/* Edge-triggered loops of eventfds */

FIXTURE(edges)
{
	struct vmm *vmm;
	int fd;
	int epfd;
};

FIXTURE_SETUP(edges)
{
	self->fd = db_must_open(_metadata, O_NONBLOCK);
	self->epfd = epoll_create1(EPOLL_CLOEXEC);
	ASSERT_LE(0, self->epfd);
	self->vmm = vmm_create(VCPUS);
	ASSERT_NE(NULL, self->vmm);
	ASSERT_EQ(0, attach_region(self->fd, self->vmm->vm_fd, 0));
}

FIXTURE_TEARDOWN(edges)
{
	close(self->fd);
	close(self->epfd);
	vmm_destroy(self->vmm);
}

static int edge_add(int epfd, int fd)
{
	struct epoll_event event = { .events = EPOLLIN | EPOLLET };

	return epoll_ctl(epfd, EPOLL_CTL_ADD, fd, &event);
}

/* Is there an edge? */
static int edge(int epfd)
{
	struct epoll_event event;

	return epoll_wait(epfd, &event, 1, 0);
}

/* With epoll, a loop that never reads gets an edge for each ring, but ... */
TEST_F_TIMEOUT(edges, never_read, TEST_SECONDS)
{
	int i, efd = eventfd(0, EFD_NONBLOCK);
	struct doorbell_attach arg =
		db_attach_arg(self->vmm->vm_fd, MMIO_BASE, REGION_LEN);

	ASSERT_EQ(0, edge_add(self->epfd, efd));
	ASSERT_EQ(0, vmm_ioeventfd(self->vmm, NEW_BAR, 4, efd, 0));
	ASSERT_EQ(0, edge_add(self->epfd, self->fd));
	for (i = 0; i < 4; i++) {
		ASSERT_EQ(0, guest_write(self->vmm, 0, 4, NEW_BAR, i));
		ASSERT_EQ(1, edge(self->epfd));
		ASSERT_EQ(0, edge(self->epfd));
		ASSERT_EQ(0, guest_write(self->vmm, 0, 4, MMIO_BASE, i));
		ASSERT_EQ(1, edge(self->epfd));
		ASSERT_EQ(0, edge(self->epfd));
	}
	/* the descriptor stays readable */
	ASSERT_EQ(4, info_of(self->fd).pending);
	ASSERT_NE(0, POLLIN & poll_now(self->fd));

	/* ... an ordered region gets full */
	arg.flags = ORDERED | DOORBELL_ATTACH_DROP;
	arg.depth = 2;
	ASSERT_EQ(0, db_detach(self->fd));
	ASSERT_EQ(0, ioctl(self->fd, DOORBELL_ATTACH, &arg));
	for (i = 0; i < 4; i++)
		ASSERT_EQ(0, guest_write(self->vmm, 0, 4, MMIO_BASE, i));
	ASSERT_EQ(2, info_of(self->fd).bounced);
	ASSERT_EQ(2, vmm_exits(self->vmm));
	close(efd);
}

/* Is there a SIGIO? */
static bool sigio(const sigset_t *set)
{
	const struct timespec now = {};

	return sigtimedwait(set, NULL, &now) == SIGIO;
}

/* With SIGIO nothing arms but reading: there is no second wake-up. */
TEST_F_TIMEOUT(edges, never_read_with_sigio, TEST_SECONDS)
{
	struct doorbell_event events[4];
	sigset_t set;
	int i;

	sigemptyset(&set);
	sigaddset(&set, SIGIO);
	ASSERT_EQ(0, sigprocmask(SIG_BLOCK, &set, NULL));
	ASSERT_EQ(0, fcntl(self->fd, F_SETOWN, getpid()));
	ASSERT_EQ(0, fcntl(self->fd, F_SETFL, O_NONBLOCK | O_ASYNC));
	for (i = 0; i < 3; i++) {
		ASSERT_EQ(0, guest_write(self->vmm, 0, 4, MMIO_BASE, i));
		ASSERT_TRUE(sigio(&set));
		ASSERT_EQ(0, guest_write(self->vmm, 0, 4, MMIO_BASE, i));
		ASSERT_EQ(0, guest_write(self->vmm, 0, 4, MMIO_BASE + 8, i));
		ASSERT_FALSE(sigio(&set));
		ASSERT_EQ(2, db_read(self->fd, events, 4));
	}
}

static int multishot_add(struct io_uring *uring, int fd)
{
	struct io_uring_sqe *sqe = io_uring_get_sqe(uring);

	io_uring_prep_poll_multishot(sqe, fd, POLLIN);
	return io_uring_submit(uring);
}

/* Completions so far of a multishot poll that goes on, or -1 if it does not */
static int completions(struct io_uring *uring)
{
	struct io_uring_cqe *cqe;
	int n = 0;

	while (n >= 0 && !io_uring_peek_cqe(uring, &cqe)) {
		n = cqe->res == POLLIN && cqe->flags & IORING_CQE_F_MORE ?
		    n + 1 : -1;
		io_uring_cqe_seen(uring, cqe);
	}
	return n;
}

/* A multishot poll completes for each ring of an eventfd, but here ... */
TEST_F_TIMEOUT(edges, never_read_with_multishot, TEST_SECONDS)
{
	int i, ret, efd = eventfd(0, EFD_NONBLOCK);
	struct doorbell_event events[4];
	struct io_uring uring;

	ret = io_uring_queue_init(8, &uring, 0);
	if (ret)
		SKIP(return, "no io_uring: %s", strerror(-ret));
	ASSERT_EQ(0, vmm_ioeventfd(self->vmm, NEW_BAR, 4, efd, 0));
	ASSERT_EQ(1, multishot_add(&uring, efd));
	for (i = 0; i < 3; i++) {
		ASSERT_EQ(0, guest_write(self->vmm, 0, 4, NEW_BAR, i));
		ASSERT_EQ(1, completions(&uring));
	}

	/* ... for one, until read() arms again */
	ASSERT_EQ(1, multishot_add(&uring, self->fd));
	for (i = 0; i < 3; i++) {
		ASSERT_EQ(0, guest_write(self->vmm, 0, 4, MMIO_BASE, i));
		ASSERT_EQ(1, completions(&uring));
		ASSERT_EQ(0, guest_write(self->vmm, 0, 4, MMIO_BASE, i));
		ASSERT_EQ(0, guest_write(self->vmm, 0, 4, MMIO_BASE + 8, i));
		ASSERT_EQ(0, completions(&uring));
		ASSERT_EQ(2, db_read(self->fd, events, 4));
		ASSERT_EQ(0, completions(&uring));
	}
	io_uring_queue_exit(&uring);
	close(efd);
}

/* A loop that never reads and looks at all queues misses no ring. */
TEST_F_TIMEOUT(edges, never_read_in_a_storm, TEST_SECONDS)
{
	struct guest_job job = {
		.kind = GUEST_STORM, .width = 4, .base = MMIO_BASE,
		.stride = REGION_STRIDE, .limit = 1000,
		.range = { { .first = 0, .nr = REGION_QUEUES } },
	};
	struct epoll_event event;
	__u64 seen = 0;
	int v;

	ASSERT_EQ(0, edge_add(self->epfd, self->fd));
	for (v = 0; v < VCPUS; v++) {
		ASSERT_EQ(0, vmm_job(self->vmm, v, &job));
		ASSERT_EQ(0, vmm_thread_start(self->vmm, v));
	}
	while (seen < VCPUS * job.limit) {
		ASSERT_EQ(1, epoll_wait(self->epfd, &event, 1,
					DB_PATIENCE_MS));
		seen = guest_total(self->vmm->shared);
	}
	for (v = 0; v < VCPUS; v++)
		ASSERT_EQ(0, vmm_thread_join(self->vmm, v));
	ASSERT_EQ(seen, info_of(self->fd).pending);
}

/* The loop stays as it is if the queues are bound to its eventfds. */
TEST_F_TIMEOUT(edges, bound_to_eventfds, TEST_SECONDS)
{
	struct doorbell_bind bind = {
		.size = sizeof(bind), .count = REGION_QUEUES,
	};
	int i, fds[REGION_QUEUES];

	for (i = 0; i < REGION_QUEUES; i++) {
		fds[i] = eventfd(0, EFD_NONBLOCK);
		ASSERT_EQ(0, edge_add(self->epfd, fds[i]));
	}
	bind.fds = (uintptr_t)fds;
	ASSERT_EQ(0, ioctl(self->fd, DOORBELL_BIND, &bind));
	for (i = 0; i < 3 * REGION_QUEUES; i++) {
		ASSERT_EQ(0, guest_write(self->vmm, 0, 4,
					 MMIO_BASE + i / 3 * REGION_STRIDE, i));
		ASSERT_EQ(1, edge(self->epfd));
		ASSERT_EQ(0, edge(self->epfd));
	}
	ASSERT_EQ(0, read_now(self->fd, NULL, 0));
}

/* The changed loop misses nothing while all vCPUs ring. */
TEST_F_TIMEOUT(edges, read_until_empty, TEST_SECONDS)
{
	struct doorbell_event events[REGION_QUEUES];
	struct epoll_event event;
	struct book book = {};
	int n;

	ASSERT_EQ(0, edge_add(self->epfd, self->fd));
	ASSERT_EQ(0, start_ringing(self->vmm, 0));
	while (book_total(&book) < 3000) {
		ASSERT_EQ(1, epoll_wait(self->epfd, &event, 1,
					DB_PATIENCE_MS));
		do {
			n = db_read(self->fd, events, 3);
			book_events(&book, events, n);
		} while (n > 0);
		ASSERT_EQ(-EAGAIN, n);
	}
	ASSERT_EQ(0, stop_ringing(self->vmm));
	while (book_total(&book) < guest_total(self->vmm->shared)) {
		ASSERT_EQ(1, epoll_wait(self->epfd, &event, 1,
					DB_PATIENCE_MS));
		while ((n = db_read(self->fd, events, 3)) > 0)
			book_events(&book, events, n);
	}
	ASSERT_EQ(guest_total(self->vmm->shared), book_total(&book));
	ASSERT_EQ(0, book.wrong);
}

TEST_HARNESS_MAIN
