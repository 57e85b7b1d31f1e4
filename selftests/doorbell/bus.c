// SPDX-License-Identifier: GPL-2.0
/*
 * Bus: a guest's writes in and around a region, and the other devices on KVM's
 * bus.
 *
 * Each test compares what the guest writes with what the consumer reads, what
 * reaches the VMM, and what other devices of KVM get.
 */
#include <sys/eventfd.h>
#include <sys/resource.h>

#include "vmutil.h"

#define NR_IOBUS_DEVS	1000
#define PAGE		4096UL			/* of x86, which splits */
#define RANGE_SHIFT	30			/* of a range of the bus */
#define READ_DATA	0xa1b2c3d4e5f60718ULL

/* Exits of the only vCPU */
struct log {
	unsigned int nr;
	struct vmm_exit exit[1100];
};

static int log_cb(void *ctx, unsigned int vcpu, struct vmm_exit *exit)
{
	struct log *log = ctx;

	(void)vcpu;
	if (log->nr == ARRAY_SIZE(log->exit))
		return -ENOSPC;
	log->exit[log->nr++] = *exit;
	exit->data = READ_DATA;
	return 0;
}

static __u64 mask(unsigned int width)
{
	return ~0ULL >> (64 - 8 * width);
}

struct setup {
	struct vmm *vmm;
	struct log *log;
	int fd;
};

static void setup(struct __test_metadata *_metadata, struct setup *s)
{
	struct rlimit nofile = { .rlim_cur = 4096, .rlim_max = 4096 };

	setrlimit(RLIMIT_NOFILE, &nofile);
	s->log = calloc(1, sizeof(*s->log));
	ASSERT_NE(NULL, s->log);
	s->fd = db_must_open(_metadata, O_NONBLOCK);
	s->vmm = vmm_create(1);
	ASSERT_NE(NULL, s->vmm);
	s->vmm->exit_cb = log_cb;
	s->vmm->exit_ctx = s->log;
}

static void teardown(struct setup *s)
{
	close(s->fd);
	vmm_destroy(s->vmm);
	free(s->log);
}

static int attach(struct setup *s, __u64 base, __u64 len, __u32 stride,
		  __u32 flags)
{
	return db_attach_as(s->fd, s->vmm->vm_fd, base, len, stride, flags);
}

/*
 * Every write inside the region rings the queue of its first byte, with its
 * value and its width. Every other access reaches the VMM.
 */
FIXTURE(region) {
	struct setup s;
};

FIXTURE_VARIANT(region) {
	__u64 base;
	__u32 stride;
	__u32 queues;
	__u32 flags;
};

#define REGION(name, base_, stride_, queues_, flags_)			\
	FIXTURE_VARIANT_ADD(region, name) {				\
		.base = base_, .stride = stride_, .queues = queues_,	\
		.flags = flags_,					\
	}

REGION(mmio_stride2, 0xd0000100, 2, 3, 0);
REGION(mmio_stride4, 0xd0000100, 4, 3, 0);
REGION(mmio_stride8, 0xd0000100, 8, 3, 0);
REGION(mmio_stride4096, 0xd0004000, 4096, 3, 0);
/* KVM splits an access at a page boundary in two */
REGION(mmio_page_between_queues, 0xd0000ffc, 4, 3, 0);
REGION(mmio_page_in_queue, 0xd0008000, 8192, 3, 0);
REGION(mmio_page_at_start, 0xd0001000, 8, 3, 0);
REGION(mmio_page_at_end, 0xd0000fe8, 8, 3, 0);
REGION(pio_stride2, 0x100, 2, 3, PIO);
REGION(pio_stride4, 0x100, 4, 3, PIO);
REGION(pio_stride8, 0x100, 8, 3, PIO);
REGION(pio_stride4096, 0x4000, 4096, 3, PIO);
REGION(pio_first_port, 0, 4, 3, PIO);
REGION(pio_last_port, 0xfff4, 4, 3, PIO);

FIXTURE_SETUP(region)
{
	SKIP_WITHOUT_PORTS(variant->flags);
	setup(_metadata, &self->s);
	ASSERT_EQ(0, attach(&self->s, variant->base,
			    (__u64)variant->queues * variant->stride,
			    variant->stride, variant->flags));
}

FIXTURE_TEARDOWN(region)
{
	teardown(&self->s);
}

/* What one write has to cause, from the rules in userspace-api.rst */
struct outcome {
	int nr_events, nr_exits;
	struct doorbell_event event[2];
	struct vmm_exit exit[2];
};

static void expect_part(const FIXTURE_VARIANT(region) *v, bool attached,
			__u64 addr, unsigned int width, __u64 value,
			struct outcome *o)
{
	__u64 end = v->base + (__u64)v->queues * v->stride;
	struct doorbell_event *e = o->event + o->nr_events;
	__u64 offset = addr - v->base, last = offset + width - 1;
	__u16 queue = offset / v->stride;

	if (!attached || addr < v->base || addr + width > end ||
	    offset >> RANGE_SHIFT != last >> RANGE_SHIFT) {
		o->exit[o->nr_exits++] = (struct vmm_exit) {
			.is_write = true, .is_pio = v->flags & PIO,
			.addr = addr, .len = width, .data = value,
		};
		return;
	}
	if (o->nr_events && o->event[0].queue == queue) {
		e = o->event;	/* both parts ring one queue: one event */
	} else {
		o->nr_events++;
		*e = (struct doorbell_event) { .queue = queue };
	}
	e->width = width;
	e->count++;
	e->value = value;
}

static void check_write(struct __test_metadata *_metadata, struct setup *s,
			const FIXTURE_VARIANT(region) *v, bool attached,
			__u64 addr, unsigned int width, __u64 value)
{
	unsigned int left = PAGE - addr % PAGE;
	struct doorbell_event events[4] = {};
	struct outcome o = {};
	int i, n;

	value &= mask(width);
	if (v->flags & PIO || left >= width || !vmm_splits_pages) {
		expect_part(v, attached, addr, width, value, &o);
	} else {
		expect_part(v, attached, addr, left, value & mask(left), &o);
		expect_part(v, attached, addr + left, width - left,
			    value >> (8 * left), &o);
	}

	s->log->nr = 0;
	ASSERT_EQ(0, guest_write(s->vmm, v->flags, width, addr, value));
	n = read_now(s->fd, events, ARRAY_SIZE(events));
	ASSERT_EQ(o.nr_events, n) {
		TH_LOG("%u bytes to %#llx", width, addr);
	}
	for (i = 0; i < n; i++) {
		ASSERT_EQ(0, memcmp(&o.event[i], &events[i], sizeof(*events))) {
			TH_LOG("%u bytes to %#llx: queue %u type %u", width,
			       addr, events[i].queue, events[i].type);
			TH_LOG("width %u count %u value %#llx",
			       events[i].width, events[i].count,
			       events[i].value);
		}
	}
	ASSERT_EQ(o.nr_exits, s->log->nr) {
		TH_LOG("%u bytes to %#llx", width, addr);
	}
	for (i = 0; i < o.nr_exits; i++) {
		const struct vmm_exit *e = &s->log->exit[i];

		ASSERT_TRUE(e->is_write);
		ASSERT_EQ(o.exit[i].is_pio, e->is_pio);
		ASSERT_EQ(o.exit[i].addr, e->addr);
		ASSERT_EQ(o.exit[i].len, e->len);
		ASSERT_EQ(o.exit[i].data, e->data);
	}
}

/* In a large region test only the offsets near edges, and some others. */
static bool interesting(const FIXTURE_VARIANT(region) *v, long offset)
{
	long in_page = (v->base + offset) % PAGE;
	long in_queue = offset % (long)v->stride;

	if (v->stride <= 8)
		return true;
	return in_page < 8 || in_page >= (long)PAGE - 8 || in_queue < 8 ||
	       in_queue >= (long)v->stride - 8 || offset % 509 == 0;
}

/* Writes of every width at every offset are the right event, or an exit. */
TEST_F_TIMEOUT(region, writes_at_every_offset, TEST_SECONDS)
{
	long offset, len = (long)variant->queues * variant->stride;
	__u64 value = 0x1122334455667788ULL, addr, rings = 0;
	unsigned int width;

	for (offset = -9; offset < len + 9; offset++) {
		addr = variant->base + offset;
		if (!interesting(variant, offset) ||
		    (variant->flags & PIO && addr > 0xffff))
			continue;
		for (width = 1; width <= (variant->flags & PIO ? 4 : 8);
		     width *= 2) {
			value += 0x0102030405060709ULL;
			check_write(_metadata, &self->s, variant, true, addr,
				    width, value);
			rings++;
		}
	}
	/* a write counts as two rings at most */
	ASSERT_LE(info_of(self->s.fd).rings, 2 * rings);
	ASSERT_EQ(0, info_of(self->s.fd).pending);
	ASSERT_EQ(0, info_of(self->s.fd).bad_rings);

	/* without the region all writes reach the VMM */
	ASSERT_EQ(0, db_detach(self->s.fd));
	for (offset = 0; offset < len; offset += variant->stride)
		for (width = 1; width <= 4; width *= 2)
			check_write(_metadata, &self->s, variant, false,
				    variant->base + offset, width, value);
}

/* A guest's read reaches the VMM, and the guest gets the VMM's answer. */
TEST_F_TIMEOUT(region, reads_reach_the_vmm, TEST_SECONDS)
{
	bool pio = variant->flags & PIO;
	struct setup *s = &self->s;
	struct doorbell_event event;
	unsigned int width, n = 0;
	__u64 addr, q;

	for (q = 0; q < variant->queues; q++)
		for (width = 1; width <= (pio ? 4 : 8); width *= 2) {
			addr = variant->base + q * variant->stride;
			if (!pio && PAGE - addr % PAGE < width)
				continue;
			/* the access would end beyond the last port */
			if (pio && addr + width > 0x10000)
				continue;
			s->log->nr = 0;
			ASSERT_EQ(0, vmm_op(s->vmm, 0, pio ? GUEST_PIO_IN :
					    GUEST_MMIO_READ, width, addr, 0));
			ASSERT_EQ(1, s->log->nr);
			ASSERT_FALSE(s->log->exit[0].is_write);
			ASSERT_EQ(addr, s->log->exit[0].addr);
			ASSERT_EQ(width, s->log->exit[0].len);
			ASSERT_EQ(READ_DATA & mask(width),
				  vmm_op_value(s->vmm->shared, 0, 0) &
				  mask(width));
			n++;
		}
	ASSERT_LE(variant->queues, n);
	ASSERT_EQ(0, read_now(s->fd, &event, 1));
	ASSERT_EQ(0, info_of(s->fd).rings);
}

/*
 * Attach and detach do not disturb other devices: every ioeventfd counts all of
 * its writes before, during and after, and KVM can remove and add ioeventfds
 * while the region is attached.
 */
#define MIDDLE_LEN	32

FIXTURE(neighbours) {
	struct setup s;
	int *efd;
	struct guest_op *ops;
};

FIXTURE_VARIANT(neighbours) {
	__u64 base;
	__u32 flags;
	unsigned int nr;
};

#define NEIGHBOURS(name, base_, flags_, nr_)				\
	FIXTURE_VARIANT_ADD(neighbours, name) {				\
		.base = base_, .flags = flags_, .nr = nr_,		\
	}

NEIGHBOURS(mmio_0, 0xd0010000, 0, 0);
NEIGHBOURS(mmio_1, 0xd0010000, 0, 1);
NEIGHBOURS(mmio_1000, 0xd0010000, 0, 1000);
NEIGHBOURS(pio_0, 0x8000, PIO, 0);
NEIGHBOURS(pio_1, 0x8000, PIO, 1);
NEIGHBOURS(pio_1000, 0x8000, PIO, 1000);

FIXTURE_SETUP(neighbours)
{
	SKIP_WITHOUT_PORTS(variant->flags);
	setup(_metadata, &self->s);
	self->efd = calloc(variant->nr + 1, sizeof(*self->efd));
	self->ops = calloc(variant->nr + 1, sizeof(*self->ops));
	ASSERT_NE(NULL, self->efd);
	ASSERT_NE(NULL, self->ops);
}

FIXTURE_TEARDOWN(neighbours)
{
	teardown(&self->s);
}

/* Neighbours are below and above the region in turns; the first two adjoin. */
static __u64 neighbour_addr(const FIXTURE_VARIANT(neighbours) *v,
			    unsigned int i)
{
	if (i % 2)
		return v->base + MIDDLE_LEN + i / 2 * 8;
	return v->base - 8 - i / 2 * 8 + (i ? 0 : 4);
}

static __u32 neighbour_len(unsigned int i)
{
	static const __u32 lens[] = { 4, 2, 0, 1 };	/* 0: any length */

	return lens[i % ARRAY_SIZE(lens)];
}

static int neighbour_set(struct setup *s, const FIXTURE_VARIANT(neighbours) *v,
			 unsigned int i, int efd, bool add)
{
	__u32 flags = add ? 0 : KVM_IOEVENTFD_FLAG_DEASSIGN;

	if (v->flags & PIO)
		flags |= KVM_IOEVENTFD_FLAG_PIO;
	return vmm_ioeventfd(s->vmm, neighbour_addr(v, i), neighbour_len(i),
			     efd, flags);
}

/*
 * The guest writes once to each neighbour and to the region between them. Every
 * @missing-th neighbour is removed: the write reaches the VMM.
 */
static void ring_all(struct __test_metadata *_metadata, struct setup *s,
		     const FIXTURE_VARIANT(neighbours) *v, const int *efd,
		     struct guest_op *ops, bool attached, unsigned int missing)
{
	struct doorbell_event event = {};
	unsigned int i, want, exits = 0;
	__u64 count;

	for (i = 0; i <= v->nr; i++)
		ops[i] = (struct guest_op) {
			.kind = write_op(v->flags), .value = i,
			.width = neighbour_len(i) ?: 4,
			.addr = neighbour_addr(v, i),
		};
	i = v->nr / 2;
	ops[v->nr] = ops[i];
	ops[i].addr = v->base + 8;
	ops[i].width = 4;

	s->log->nr = 0;
	ASSERT_EQ(0, vmm_script(s->vmm, 0, ops, v->nr + 1));
	ASSERT_EQ(0, vmm_vcpu_run(s->vmm, 0));
	/* without neighbours the guest only writes to the region */
	for (i = 0; i < v->nr; i++) {
		want = !missing || i % missing;
		exits += !want;
		count = 0;
		ASSERT_EQ(want ? (ssize_t)sizeof(count) : -1,
			  read(efd[i], &count, sizeof(count))) {
			TH_LOG("neighbour %u", i);
		}
		ASSERT_EQ(want, count);
	}
	ASSERT_EQ(attached, read_now(s->fd, &event, 1));
	ASSERT_EQ(attached, event.count);
	if (attached) {
		ASSERT_EQ(1, event.queue);
		ASSERT_EQ(v->nr / 2, event.value);
	}
	ASSERT_EQ(exits + !attached, s->log->nr);
}

TEST_F_TIMEOUT(neighbours, ioeventfds_count_every_ring, TEST_SECONDS)
{
	struct setup *s = &self->s;
	struct doorbell_event event;
	int *efd = self->efd;
	unsigned int i;

	for (i = 0; i < variant->nr; i++) {
		efd[i] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
		ASSERT_LE(0, efd[i]);
		ASSERT_EQ(0, neighbour_set(s, variant, i, efd[i], true));
	}
	ring_all(_metadata, s, variant, efd, self->ops, false, 0);

	ASSERT_EQ(0, attach(s, variant->base, MIDDLE_LEN, 8, variant->flags));
	ring_all(_metadata, s, variant, efd, self->ops, true, 0);

	/* KVM removes and adds neighbours around the region */
	for (i = 0; i < variant->nr; i += 16)
		ASSERT_EQ(0, neighbour_set(s, variant, i, efd[i], false));
	ring_all(_metadata, s, variant, efd, self->ops, true, 16);
	for (i = 0; i < variant->nr; i += 16)
		ASSERT_EQ(0, neighbour_set(s, variant, i, efd[i], true));
	ring_all(_metadata, s, variant, efd, self->ops, true, 0);

	ASSERT_EQ(0, db_detach(s->fd));
	ring_all(_metadata, s, variant, efd, self->ops, false, 0);
	ASSERT_EQ(0, read_now(s->fd, &event, 1));

	/* KVM still finds every one of them */
	for (i = 0; i < variant->nr; i++)
		ASSERT_EQ(0, neighbour_set(s, variant, i, efd[i], false));
}

/* Attach next to other devices, and where they are */
FIXTURE(bus) {
	struct setup s;
	struct kvm_coalesced_mmio_ring *ring;
	int efd;
};

FIXTURE_VARIANT(bus) {
	__u64 base;
	__u32 flags;
};

FIXTURE_VARIANT_ADD(bus, mmio) { .base = 0xd0010100, };
FIXTURE_VARIANT_ADD(bus, pio) { .base = 0x8000, .flags = PIO, };

FIXTURE_SETUP(bus)
{
	int page;

	SKIP_WITHOUT_PORTS(variant->flags);
	setup(_metadata, &self->s);
	page = ioctl(self->s.vmm->kvm_fd, KVM_CHECK_EXTENSION,
		     KVM_CAP_COALESCED_MMIO);
	ASSERT_LT(0, page);
	self->ring = (void *)((char *)self->s.vmm->vcpu[0].run +
			      page * sysconf(_SC_PAGESIZE));
	self->efd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	ASSERT_LE(0, self->efd);
}

FIXTURE_TEARDOWN(bus)
{
	teardown(&self->s);
}

static int zone(struct setup *s, __u32 flags, __u64 addr, __u32 size, bool add)
{
	struct kvm_coalesced_mmio_zone z = {
		.addr = addr, .size = size, .pio = flags & PIO ? 1 : 0,
	};

	return ioctl(s->vmm->vm_fd, add ? KVM_REGISTER_COALESCED_MMIO :
		     KVM_UNREGISTER_COALESCED_MMIO, &z) ? -errno : 0;
}

/* Writes to coalesced zones since the last call */
static unsigned int zone_writes(struct kvm_coalesced_mmio_ring *ring)
{
	const unsigned int max = (sysconf(_SC_PAGESIZE) - sizeof(*ring)) /
				 sizeof(ring->coalesced_mmio[0]);
	unsigned int n = 0;

	for (; ring->first != ring->last; n++)
		ring->first = (ring->first + 1) % max;
	return n;
}

static __u64 efd_count(int efd)
{
	__u64 count = 0;

	if (read(efd, &count, sizeof(count)) != sizeof(count))
		return 0;
	return count;
}

/* Of overlapping devices KVM asks the first; attach keeps their order. */
TEST_F_TIMEOUT(bus, order_of_overlapping_devices, TEST_SECONDS)
{
	__u64 base = variant->base, below = base - 64, above = base + 64;
	__u32 pio = variant->flags & PIO ? KVM_IOEVENTFD_FLAG_PIO : 0;
	struct setup *s = &self->s;
	struct doorbell_event event;
	int i;

	/* below the region the zone comes first, above it the ioeventfd */
	ASSERT_EQ(0, zone(s, variant->flags, below, 4, true));
	ASSERT_EQ(0, vmm_ioeventfd(s->vmm, below, 4, self->efd, pio));
	ASSERT_EQ(0, vmm_ioeventfd(s->vmm, above, 4, self->efd, pio));
	ASSERT_EQ(0, zone(s, variant->flags, above, 4, true));

	for (i = 0; i < 7; i++) {
		/* no region, a region, no region, another region, ... */
		if (i % 2) {
			ASSERT_EQ(0, attach(s, base - 16 * (i / 2), 32, 8,
					    variant->flags));
		} else if (i) {
			ASSERT_EQ(0, db_detach(s->fd));
		}
		ASSERT_EQ(0, guest_write(s->vmm, variant->flags, 4, below, 1));
		ASSERT_EQ(1, zone_writes(self->ring));
		ASSERT_EQ(0, efd_count(self->efd));
		ASSERT_EQ(0, guest_write(s->vmm, variant->flags, 4, above, 1));
		ASSERT_EQ(0, zone_writes(self->ring));
		ASSERT_EQ(1, efd_count(self->efd));
		ASSERT_EQ(0, s->log->nr);
	}
	ASSERT_EQ(0, read_now(s->fd, &event, 1));
}

/* Attaching [base, base + 32) fails with EEXIST and changes nothing. */
static void check_exists(struct __test_metadata *_metadata, struct setup *s,
			 const FIXTURE_VARIANT(bus) *v)
{
	ASSERT_EQ(-EEXIST, attach(s, v->base, 32, 8, v->flags));
	ASSERT_EQ(DOORBELL_DETACHED, info_of(s->fd).state);
	ASSERT_EQ(0, info_of(s->fd).queues);
	ASSERT_EQ(0, poll_now(s->fd));
}

TEST_F_TIMEOUT(bus, intersects_ioeventfd, TEST_SECONDS)
{
	/* offset from the region's base, length, datamatch */
	static const struct {
		int offset, len, match;
	} in[] = {
		{ 0, 4, 0 }, { 0, 0, 0 }, { 31, 1, 0 }, { 31, 0, 0 },
		{ 12, 2, 0 }, { 12, 0, 0 }, { -2, 4, 0 }, { 30, 4, 0 },
		{ -1, 2, 0 }, { 8, 4, 1 },
	}, beside[] = {
		{ -4, 4, 0 }, { 32, 4, 0 }, { -1, 1, 0 }, { 32, 0, 0 },
		{ -1, 0, 0 }, { -8, 0, 0 }, { 33, 2, 0 },
	};
	__u32 pio = variant->flags & PIO ? KVM_IOEVENTFD_FLAG_PIO : 0;
	__u64 base = variant->base;
	struct setup *s = &self->s;
	struct doorbell_event event;
	unsigned int i;
	__u32 flags;

	for (i = 0; i < ARRAY_SIZE(in); i++) {
		flags = pio | (in[i].match ? KVM_IOEVENTFD_FLAG_DATAMATCH : 0);
		ASSERT_EQ(0, vmm_ioeventfd(s->vmm, base + in[i].offset,
					   in[i].len, self->efd, flags));
		check_exists(_metadata, s, variant);
		/* the ioeventfd still counts */
		ASSERT_EQ(0, guest_write(s->vmm, variant->flags, in[i].len ?: 1,
					 base + in[i].offset, 0));
		ASSERT_EQ(1, efd_count(self->efd)) {
			TH_LOG("ioeventfd %d, length %d", in[i].offset,
			       in[i].len);
		}
		ASSERT_EQ(0, vmm_ioeventfd(s->vmm, base + in[i].offset,
					   in[i].len, self->efd,
					   flags |
					   KVM_IOEVENTFD_FLAG_DEASSIGN));
	}
	ASSERT_EQ(0, s->log->nr);

	for (i = 0; i < ARRAY_SIZE(beside); i++) {
		ASSERT_EQ(0, vmm_ioeventfd(s->vmm, base + beside[i].offset,
					   beside[i].len, self->efd, pio));
		ASSERT_EQ(0, attach(s, base, 32, 8, variant->flags)) {
			TH_LOG("ioeventfd %d, length %d", beside[i].offset,
			       beside[i].len);
		}
		ASSERT_EQ(0, guest_write(s->vmm, variant->flags,
					 beside[i].len ?: 1,
					 base + beside[i].offset, 0));
		ASSERT_EQ(1, efd_count(self->efd));
		ASSERT_EQ(0, guest_write(s->vmm, variant->flags, 1, base, i));
		ASSERT_EQ(0,
			  guest_write(s->vmm, variant->flags, 1, base + 31, i));
		ASSERT_EQ(1, db_read(s->fd, &event, 1));
		ASSERT_EQ(0, event.queue);
		ASSERT_EQ(1, db_read(s->fd, &event, 1));
		ASSERT_EQ(3, event.queue);
		ASSERT_EQ(0, vmm_ioeventfd(s->vmm, base + beside[i].offset,
					   beside[i].len, self->efd,
					   pio | KVM_IOEVENTFD_FLAG_DEASSIGN));
		ASSERT_EQ(0, db_detach(s->fd));
	}
	ASSERT_EQ(0, s->log->nr);

	/* the two buses do not share addresses */
	ASSERT_EQ(0, vmm_ioeventfd(s->vmm, 0x4000, 4, self->efd,
				   pio ^ KVM_IOEVENTFD_FLAG_PIO));
	ASSERT_EQ(0, attach(s, 0x4000, 32, 8, variant->flags));
}

TEST_F_TIMEOUT(bus, intersects_coalesced_zone, TEST_SECONDS)
{
	static const struct {
		int offset, size;
	} in[] = {
		{ 0, 32 }, { 0, 1 }, { 31, 1 }, { 8, 8 }, { -8, 48 }, { -8, 9 },
		{ 31, 64 },
	}, beside[] = { { -8, 8 }, { 32, 8 } };
	__u64 base = variant->base, addr;
	struct setup *s = &self->s;
	struct doorbell_event event;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(in); i++) {
		addr = base + in[i].offset;
		ASSERT_EQ(0, zone(s, variant->flags, addr, in[i].size, true));
		check_exists(_metadata, s, variant);
		ASSERT_EQ(0, guest_write(s->vmm, variant->flags, 1, addr, 0));
		ASSERT_EQ(1, zone_writes(self->ring));
		ASSERT_EQ(0, zone(s, variant->flags, addr, in[i].size, false));
	}
	for (i = 0; i < ARRAY_SIZE(beside); i++) {
		addr = base + beside[i].offset;
		ASSERT_EQ(0,
			  zone(s, variant->flags, addr, beside[i].size, true));
		ASSERT_EQ(0, attach(s, base, 32, 8, variant->flags));
		ASSERT_EQ(0,
			  guest_write(s->vmm, variant->flags, 4, addr + 4, 0));
		ASSERT_EQ(1, zone_writes(self->ring));
		ASSERT_EQ(0, guest_write(s->vmm, variant->flags, 4,
					 base + i * 24, 0));
		ASSERT_EQ(0, zone_writes(self->ring));
		ASSERT_EQ(1, db_read(s->fd, &event, 1));
		ASSERT_EQ(i * 3, event.queue);
		ASSERT_EQ(0, db_detach(s->fd));
		ASSERT_EQ(0,
			  zone(s, variant->flags, addr, beside[i].size, false));
	}
	ASSERT_EQ(0, s->log->nr);
}

/* Regions take none of the room that KVM's limit leaves to other devices. */
TEST_F_TIMEOUT(bus, limit_of_devices, TEST_SECONDS)
{
	__u64 base = variant->base, zones = base + 64;
	struct doorbell_event event;
	struct setup *s = &self->s;
	unsigned int i;

	/* a region comes last, and KVM's devices are as many as ever */
	for (i = 0; i < NR_IOBUS_DEVS; i++)
		ASSERT_EQ(0, zone(s, variant->flags, zones + i * 8, 4, true));
	ASSERT_EQ(-ENOSPC, zone(s, variant->flags, base - 8, 4, true));
	ASSERT_EQ(0, attach(s, base, 32, 8, variant->flags));
	ASSERT_EQ(0, zone(s, variant->flags, zones, 4, false));
	ASSERT_EQ(0, zone(s, variant->flags, zones, 4, true));
	ASSERT_EQ(-ENOSPC, zone(s, variant->flags, base - 8, 4, true));

	ASSERT_EQ(0, guest_write(s->vmm, variant->flags, 4, base + 8, 5));
	ASSERT_EQ(1, db_read(s->fd, &event, 1));
	ASSERT_EQ(1, event.queue);
	ASSERT_EQ(0, guest_write(s->vmm, variant->flags, 4,
				 zones + (NR_IOBUS_DEVS - 1) * 8, 5));
	ASSERT_EQ(1, zone_writes(self->ring));
	ASSERT_EQ(0, db_detach(s->fd));
	ASSERT_EQ(-ENOSPC, zone(s, variant->flags, base - 8, 4, true));

	if (variant->flags & PIO)
		return;
	/* nor does one of several ranges */
	ASSERT_EQ(0, attach(s, 0x40000000, 33000ULL << 16, 65536, 0));
	ASSERT_EQ(0, zone(s, variant->flags, zones, 4, false));
	ASSERT_EQ(0, zone(s, variant->flags, zones, 4, true));
	ASSERT_EQ(-ENOSPC, zone(s, variant->flags, base - 8, 4, true));
}

/* 2,000 regions of one VM, and KVM's own devices come after them. */
TEST(many_regions)
{
	enum { REGIONS = 2000 };
	struct rlimit limit = { REGIONS + 64, REGIONS + 64 };
	/* KVM has room for 1,000 devices that no descriptor limits */
	int regions = db_debug_kernel() ? 1100 : REGIONS;
	struct vmm *vmm = vmm_create(1);
	struct doorbell_event event;
	int fds[REGIONS], efd, i;
	__u64 count;

	ASSERT_NE(NULL, vmm);
	ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &limit));
	for (i = 0; i < regions; i++) {
		fds[i] = db_must_open(_metadata, O_NONBLOCK);
		ASSERT_EQ(0, db_attach(fds[i], vmm->vm_fd, MMIO_BASE + 4 * i,
				       4)) {
			TH_LOG("region %d", i);
		}
	}
	efd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	ASSERT_LE(0, efd);
	ASSERT_EQ(0, vmm_ioeventfd(vmm, MMIO_BASE - 4, 4, efd, 0));
	ASSERT_EQ(0, vmm_op(vmm, 0, GUEST_MMIO_WRITE, 4, MMIO_BASE - 4, 1));
	ASSERT_EQ(sizeof(count), read(efd, &count, sizeof(count)));
	for (i = 0; i < regions; i += 37) {
		ASSERT_EQ(0, vmm_op(vmm, 0, GUEST_MMIO_WRITE, 4,
				    MMIO_BASE + 4 * i, i));
		ASSERT_EQ(1, db_read(fds[i], &event, 1));
		ASSERT_TRUE(db_event_is(&event, 0, 1, i));
	}
	ASSERT_EQ(0, vmm_exits(vmm));
	for (i = 0; i < regions; i++)
		close(fds[i]);
	close(efd);
	vmm_destroy(vmm);
}

/* Attach refuses the addresses of the in-kernel interrupt controllers. */
TEST(interrupt_controllers)
{
	static const struct {
		__u64 base;
		__u32 flags;
		int ret;
	} tries[] = {
		{ 0xfec00000, 0, -EEXIST },	/* I/O APIC */
		{ 0xfec00080, 0, -EEXIST },
		{ 0xfebffff8, 0, 0 },
		{ 0xfec00100, 0, 0 },
		{ 0x20, PIO, -EEXIST },		/* interrupt controllers */
		{ 0xa0, PIO, -EEXIST },
		{ 0x4d0, PIO, -EEXIST },
		{ 0x40, PIO, -EEXIST },		/* timer */
		{ 0x60, PIO, -EEXIST },		/* speaker at 0x61 */
		{ 0x18, PIO, 0 },
		{ 0x28, PIO, 0 },
	};
	struct kvm_pit_config pit = { .flags = KVM_PIT_SPEAKER_DUMMY };
	int kvm = open("/dev/kvm", O_RDWR | O_CLOEXEC);
	int ret, vm = ioctl(kvm, KVM_CREATE_VM, 0);
	int fd = db_must_open(_metadata, O_NONBLOCK);
	unsigned int i;

	if (!vmm_has_ports)
		SKIP(return, "the controllers of x86");
	ASSERT_LE(0, vm);
	ASSERT_EQ(0, ioctl(vm, KVM_CREATE_IRQCHIP, 0));
	ASSERT_EQ(0, ioctl(vm, KVM_CREATE_PIT2, &pit));
	for (i = 0; i < ARRAY_SIZE(tries); i++) {
		ret = db_attach_as(fd, vm, tries[i].base, 8, 8, tries[i].flags);
		ASSERT_EQ(tries[i].ret, ret) {
			TH_LOG("%#llx", tries[i].base);
		}
		if (!tries[i].ret)
			ASSERT_EQ(0, db_detach(fd));
	}
}

/* In large regions nothing is truncated or wraps */
FIXTURE(large) {
	struct setup s;
};

FIXTURE_SETUP(large)
{
	setup(_metadata, &self->s);
}

FIXTURE_TEARDOWN(large)
{
	teardown(&self->s);
}

/* KVM's bus has an int for a length: more than 2 GiB need several ranges. */
TEST_F_TIMEOUT(large, over_2_gib, TEST_SECONDS)
{
	const FIXTURE_VARIANT(region) v = {
		.base = 0x40000000, .stride = 65536, .queues = 40000,
	};
	const __u64 len = (__u64)v.queues * v.stride, end = v.base + len;
	const __u64 seams[] = {
		v.base, 0x80000000, 0xc0000000, end, v.base + 2 * v.stride,
	};
	struct setup *s = &self->s;
	unsigned int i, width;
	bool attached;
	int other;
	long d;

	ASSERT_EQ(0, attach(s, v.base, len, v.stride, 0));
	ASSERT_EQ(v.queues, info_of(s->fd).queues);
	other = db_must_open(_metadata, O_NONBLOCK);

	for (attached = true;; attached = false) {
		for (i = 0; i < ARRAY_SIZE(seams); i++)
			for (d = -9; d < 9; d++)
				for (width = 1; width <= 8; width *= 2)
					check_write(_metadata, s, &v, attached,
						    seams[i] + d, width,
						    0x8877665544332211 + d);
		if (!attached)
			break;
		for (i = 0; i < 4; i++)
			ASSERT_EQ(-EEXIST, db_attach_as(other, s->vmm->vm_fd,
							seams[i] - 8, 16, 8,
							0));
		ASSERT_EQ(0, db_attach_as(other, s->vmm->vm_fd, v.base - 8, 8,
					  8, 0));
		ASSERT_EQ(0, db_detach(other));
		ASSERT_EQ(0, db_attach_as(other, s->vmm->vm_fd, end, 8, 4, 0));
		ASSERT_EQ(0, db_detach(other));
		ASSERT_EQ(0, db_detach(s->fd));
	}
}

/* Each of 65,535 queues has its own event. */
TEST_F_TIMEOUT(large, most_queues, TEST_SECONDS)
{
	const __u64 base = 0x20000000;
	struct guest_op op = {
		.kind = GUEST_MMIO_WRITE, .width = 4, .addr = base, .value = 7,
	};
	struct setup *s = &self->s;
	struct doorbell_event *events;
	unsigned int n, step = 17, i;
	__u32 queue;

	ASSERT_EQ(-EINVAL,
		  attach(s, base, 4 * (DOORBELL_QUEUES_MAX + 1ULL), 4, 0));
	ASSERT_EQ(0, attach(s, base, 4 * DOORBELL_QUEUES_MAX, 4, 0));
	n = DOORBELL_QUEUES_MAX / step;
	ASSERT_EQ(DOORBELL_QUEUES_MAX, n * step);

	/* every step-th queue from the last one down, then the first one */
	op.addr = base + 4 * (DOORBELL_QUEUES_MAX - 1);
	op.addr_step = -4ULL * step;
	op.repeat = n;
	op.step = 1;
	ASSERT_EQ(0, vmm_script(s->vmm, 0, &op, 1));
	ASSERT_EQ(0, vmm_vcpu_run(s->vmm, 0));
	ASSERT_EQ(0, guest_write(s->vmm, 0, 4, base, 1));
	/* the first address beyond the region */
	ASSERT_EQ(0,
		  guest_write(s->vmm, 0, 4, base + 4 * DOORBELL_QUEUES_MAX, 9));
	ASSERT_EQ(1, s->log->nr);

	events = calloc(n + 2, sizeof(*events));
	ASSERT_NE(NULL, events);
	ASSERT_EQ(n + 1, db_read(s->fd, events, n + 2));
	for (i = 0; i < n; i++) {
		queue = DOORBELL_QUEUES_MAX - 1 - i * step;
		ASSERT_EQ(queue, events[i].queue);
		ASSERT_EQ(1, events[i].count);
		ASSERT_EQ(7 + i, events[i].value);
	}
	ASSERT_EQ(0, events[n].queue);
	free(events);
}

/* A region of all ports with the smallest stride */
TEST_F_TIMEOUT(large, all_ports, TEST_SECONDS)
{
	struct setup *s = &self->s;
	struct doorbell_event event;
	const __u32 ports[] = {
		0, 0x70, 0x3f8, 0x7ffe, 0x8000, 0xfffc, 0xfffe,
	};
	unsigned int i;

	SKIP_WITHOUT_PORTS(PIO);
	ASSERT_EQ(0, attach(s, 0, 65536, 2, PIO));
	for (i = 0; i < ARRAY_SIZE(ports); i++) {
		ASSERT_EQ(0, guest_write(s->vmm, PIO, 2, ports[i], i + 1));
		ASSERT_EQ(1, db_read(s->fd, &event, 1));
		ASSERT_EQ(ports[i] / 2, event.queue);
		ASSERT_EQ(i + 1, event.value);
	}
	ASSERT_EQ(0, s->log->nr);
	/* this write ends beyond the last port */
	ASSERT_EQ(0, guest_write(s->vmm, PIO, 4, 0xfffe, 5));
	ASSERT_EQ(1, s->log->nr);
	ASSERT_EQ(0, read_now(s->fd, &event, 1));
	ASSERT_EQ(0, db_detach(s->fd));
	ASSERT_EQ(-EINVAL, attach(s, 0xfffc, 8, 4, PIO));
}

TEST_HARNESS_MAIN
