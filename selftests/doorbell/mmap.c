// SPDX-License-Identifier: GPL-2.0
/*
 * Mmap: consumers of mapped memory and libdoorbell, in both modes; counters;
 * garbage in the control area; how long a mapping keeps a region attached. All
 * rings but those of the last subject come from write().
 */
#include <poll.h>
#include <pthread.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/wait.h>

#include "libdoorbell.h"
#include "util.h"
#include "vmutil.h"

#define BASE		0x1000
#define STRIDE		4
#define QUEUES		12
#define WRITERS		3
#define RINGS		4000		/* per writer */
#define ROUNDS		2000
/* Looks at the counters, fewer on a slow machine, of so many queues */
#define COUNTS		20000
#define COUNTS_MIN	100
#define COUNTS_MS	2000
#define COUNT_QUEUES	32
#define COUNT_DEPTH	1024

/* A mapped region, with nothing but the uapi header */
struct mapped {
	struct doorbell_info info;
	struct doorbell_control *control;
	void *readonly;
};

static bool map_region(int fd, struct mapped *m)
{
	if (db_info(fd, &m->info))
		return false;
	m->control = mmap(NULL, m->info.control_size, PROT_READ | PROT_WRITE,
			  MAP_SHARED, fd, 0);
	m->readonly = mmap(NULL, m->info.readonly_size, PROT_READ, MAP_SHARED,
			   fd, m->info.control_size);
	return m->control != MAP_FAILED && m->readonly != MAP_FAILED;
}

static void unmap_region(struct mapped *m)
{
	munmap(m->control, m->info.control_size);
	munmap(m->readonly, m->info.readonly_size);
}

static struct doorbell_slot *mapped_slots(const struct mapped *m)
{
	return m->readonly + sizeof(struct doorbell_status);
}

static struct doorbell_attach region(__u32 flags, __u32 depth)
{
	struct doorbell_attach arg = db_attach_arg(-1, BASE, QUEUES * STRIDE);

	arg.flags |= flags;
	arg.depth = depth;
	return arg;
}

static int attach_mode(int fd, __u32 flags, __u32 depth)
{
	struct doorbell_attach arg = region(flags, depth);

	return db_result(ioctl(fd, DOORBELL_ATTACH, &arg));
}

FIXTURE(raw)
{
	int fd;
	struct mapped m;
};

FIXTURE_SETUP(raw)
{
	self->fd = db_must_open(_metadata, 0);
}

FIXTURE_TEARDOWN(raw)
{
	close(self->fd);
}

static int mmap_errno(int fd, size_t size, int prot, int flags, off_t offset)
{
	void *p = mmap(NULL, size, prot, flags, fd, offset);

	if (p == MAP_FAILED)
		return errno;
	munmap(p, size);
	return 0;
}

/* mmap() fails with each errno of the uapi header. */
TEST_F_TIMEOUT(raw, errors, TEST_SECONDS)
{
	const int rw = PROT_READ | PROT_WRITE;
	struct doorbell_info *info = &self->m.info;
	size_t control, readonly;
	void *p;

	ASSERT_EQ(ENOTCONN, mmap_errno(self->fd, 4096, rw, MAP_SHARED, 0));
	ASSERT_EQ(0, attach_mode(self->fd, 0, 0));
	ASSERT_EQ(0, db_info(self->fd, info));
	control = info->control_size;
	readonly = info->readonly_size;
	ASSERT_EQ(sizeof(struct doorbell_status) +
		  (QUEUES + 1) * sizeof(struct doorbell_slot),
		  info->entries_offset);
	ASSERT_GE(info->nr_entries, QUEUES + 1);

	ASSERT_EQ(0, mmap_errno(self->fd, control, rw, MAP_SHARED, 0));
	ASSERT_EQ(0, mmap_errno(self->fd, readonly, PROT_READ, MAP_SHARED,
				control));
	ASSERT_EQ(EACCES, mmap_errno(self->fd, readonly, rw, MAP_SHARED,
				     control));
	ASSERT_EQ(EINVAL, mmap_errno(self->fd, control, rw, MAP_PRIVATE, 0));
	ASSERT_EQ(EINVAL, mmap_errno(self->fd, readonly, PROT_READ, MAP_PRIVATE,
				     control));
	ASSERT_EQ(EINVAL, mmap_errno(self->fd, control + 4096, rw, MAP_SHARED,
				     0));
	ASSERT_EQ(EINVAL, mmap_errno(self->fd, readonly + 4096, PROT_READ,
				     MAP_SHARED, control));
	ASSERT_EQ(EINVAL, mmap_errno(self->fd, 4096, PROT_READ, MAP_SHARED,
				     control + readonly));

	p = mmap(NULL, readonly, PROT_READ, MAP_SHARED, self->fd, control);
	ASSERT_NE(MAP_FAILED, p);
	ASSERT_EQ(-1, mprotect(p, readonly, rw));
	ASSERT_EQ(EACCES, errno);
	ASSERT_EQ(MAP_FAILED, mremap(p, readonly, readonly + 4096,
				     MREMAP_MAYMOVE));
	munmap(p, readonly);
}

/* A consumer that was opened O_RDONLY maps what it may read. */
TEST_F_TIMEOUT(raw, read_only_consumer, TEST_SECONDS)
{
	const int rw = PROT_READ | PROT_WRITE;
	struct doorbell_control *control;
	struct doorbell_info info;
	int fd;

	fd = open(DB_PATH, O_RDONLY | O_CLOEXEC);
	ASSERT_LE(0, fd);
	ASSERT_EQ(0, attach_mode(fd, 0, 0));
	ASSERT_EQ(0, db_info(fd, &info));
	ASSERT_EQ(EACCES, mmap_errno(fd, info.control_size, rw, MAP_SHARED,
				     0));
	ASSERT_EQ(EACCES, mmap_errno(fd, info.readonly_size, rw, MAP_SHARED,
				     info.control_size));
	ASSERT_EQ(EINVAL, mmap_errno(fd, info.control_size, PROT_READ,
				     MAP_PRIVATE, 0));
	ASSERT_EQ(EINVAL, mmap_errno(fd, info.readonly_size, PROT_READ,
				     MAP_PRIVATE, info.control_size));
	ASSERT_EQ(0, mmap_errno(fd, info.readonly_size, PROT_READ, MAP_SHARED,
				info.control_size));
	control = mmap(NULL, info.control_size, PROT_READ, MAP_SHARED, fd, 0);
	ASSERT_NE(MAP_FAILED, control);
	ASSERT_EQ(info.nr_entries, control->head);
	ASSERT_EQ(-1, mprotect(control, info.control_size, rw));
	ASSERT_EQ(EACCES, errno);
	munmap(control, info.control_size);
	close(fd);

	/* mmap() reads the file, whatever the protection */
	fd = open(DB_PATH, O_WRONLY | O_CLOEXEC);
	ASSERT_LE(0, fd);
	ASSERT_EQ(0, attach_mode(fd, 0, 0));
	ASSERT_EQ(EACCES, mmap_errno(fd, info.control_size, PROT_WRITE,
				     MAP_SHARED, 0));
	close(fd);
}

/* Coalescing: layout and steps are those of the uapi header. */
TEST_F_TIMEOUT(raw, coalescing_by_the_header, TEST_SECONDS)
{
	struct doorbell_slot *slots;
	struct doorbell_event event;
	__u32 *fifo, first;

	ASSERT_EQ(0, attach_mode(self->fd, 0, 0));
	ASSERT_TRUE(map_region(self->fd, &self->m));
	slots = mapped_slots(&self->m);
	fifo = self->m.readonly + self->m.info.entries_offset;
	/* the first position is entry 0 of lap 1 */
	first = self->m.info.nr_entries;
	ASSERT_EQ(first, self->m.control->head);
	ASSERT_EQ(1, self->m.control->armed);
	ASSERT_EQ(0, fifo[0] >> DOORBELL_FIFO_LAP_SHIFT);

	ASSERT_EQ(0, db_ring(self->fd, BASE + 5 * STRIDE, 77));
	ASSERT_EQ(0, self->m.control->armed);
	ASSERT_EQ(0, db_ring(self->fd, BASE + 5 * STRIDE, 78));
	ASSERT_EQ(0, db_ring(self->fd, 4, 0));
	ASSERT_EQ(1U << DOORBELL_FIFO_LAP_SHIFT | 5, fifo[0]);
	ASSERT_EQ(1U << DOORBELL_FIFO_LAP_SHIFT | QUEUES, fifo[1]);
	ASSERT_EQ(0, fifo[2]);
	ASSERT_EQ(2, slots[5].rings >> DOORBELL_RINGS_SHIFT);
	ASSERT_EQ(78, slots[5].value);
	ASSERT_EQ(DOORBELL_EVENT_BAD_ADDRESS,
		  (__u8)slots[QUEUES].rings);
	ASSERT_EQ(4, slots[QUEUES].value);

	/* read() does not deliver what was consumed here */
	self->m.control->head = first + 1;
	self->m.control->seen[5] = 2 << DOORBELL_RINGS_SHIFT;
	ASSERT_EQ(1, db_read(self->fd, &event, 1));
	ASSERT_TRUE(db_event_is_bad(&event, 1, 4));
	ASSERT_EQ(0, db_poll(self->fd, POLLIN, 0));
	ASSERT_EQ(first + 2, self->m.control->head);
	unmap_region(&self->m);
}

/*
 * Wake-ups: arming skips entries whose rings are all counted, so a later ring
 * of such a queue must wake the consumer.
 */
TEST_F_TIMEOUT(raw, no_lost_wake_up_behind_a_counted_entry, TEST_SECONDS)
{
	struct doorbell_info before, after;
	struct doorbell_event event;

	ASSERT_EQ(0, attach_mode(self->fd, 0, 0));
	ASSERT_TRUE(map_region(self->fd, &self->m));
	ASSERT_EQ(0, db_ring(self->fd, BASE, 1));
	/* ring 2 comes between steps 2 and 4 of the consumer */
	self->m.control->head++;
	ASSERT_EQ(0, db_ring(self->fd, BASE, 2));
	self->m.control->seen[0] = 2 << DOORBELL_RINGS_SHIFT;

	ASSERT_EQ(0, db_poll(self->fd, POLLIN, 0));
	ASSERT_EQ(1, self->m.control->armed);
	ASSERT_EQ(0, db_info(self->fd, &before));
	ASSERT_EQ(0, db_ring(self->fd, BASE, 3));
	ASSERT_EQ(0, db_info(self->fd, &after));
	ASSERT_EQ(before.wakeups + 1, after.wakeups);
	ASSERT_EQ(POLLIN, db_poll(self->fd, POLLIN, 0));
	ASSERT_EQ(1, db_read(self->fd, &event, 1));
	ASSERT_TRUE(db_event_is(&event, 0, 1, 3));
	unmap_region(&self->m);
}

/* More rings than a count holds become several events. */
TEST_F_TIMEOUT(raw, counts_that_do_not_fit, TEST_SECONDS)
{
	const __u64 missed = 2 * 0xffffffffULL + 5;
	struct doorbell_event events[8];
	struct doorbell *db;
	int by_mmap, i, n;
	__u64 sum;

	ASSERT_EQ(0, attach_mode(self->fd, 0, 0));
	ASSERT_TRUE(map_region(self->fd, &self->m));
	for (by_mmap = 0; by_mmap < 2; by_mmap++) {
		ASSERT_EQ(0, db_ring(self->fd, BASE, 7));
		ASSERT_EQ(0, db_ring(self->fd, BASE + STRIDE, 7));
		for (i = 0; i < 2; i++)
			self->m.control->seen[i] -= (missed - 1) <<
						    DOORBELL_RINGS_SHIFT;
		db = doorbell_from_fd(dup(self->fd),
				      by_mmap ? 0 : DOORBELL_OPEN_READ);
		ASSERT_NE(NULL, db);
		/* three events for each queue, and room for more */
		n = doorbell_take(db, events, 8);
		ASSERT_EQ(6, n);
		for (sum = 0, i = 0; i < n; i++) {
			ASSERT_GE(events[i].count, 1);
			sum += events[i].count;
		}
		ASSERT_EQ(2 * missed, sum);
		ASSERT_EQ(0, doorbell_take(db, events, 8));
		doorbell_close(db);
	}
	unmap_region(&self->m);
}

/* A mapping keeps its memory after detach, the next attach and close. */
TEST_F_TIMEOUT(raw, mapping_outlives_the_region, TEST_SECONDS)
{
	struct doorbell_slot *slots;
	int fd = db_must_open(_metadata, 0);

	ASSERT_EQ(0, attach_mode(fd, 0, 0));
	ASSERT_TRUE(map_region(fd, &self->m));
	slots = mapped_slots(&self->m);
	ASSERT_EQ(0, db_ring(fd, BASE, 123));
	ASSERT_EQ(0, db_detach(fd));
	ASSERT_EQ(123, slots[0].value);
	ASSERT_EQ(0, attach_mode(fd, 0, 0));
	ASSERT_EQ(0, db_ring(fd, BASE, 456));
	ASSERT_EQ(123, slots[0].value);
	ASSERT_EQ(0, close(fd));
	ASSERT_EQ(123, slots[0].value);
	self->m.control->head = 99;
	unmap_region(&self->m);
}

/* The status block, while regions come and go; generation as in INFO */
#define STATUS_IS(m, is, number, bits) do {				\
	const volatile struct doorbell_status *_status = (m)->readonly;	\
									\
	ASSERT_EQ(is, _status->state);					\
	ASSERT_EQ(number, _status->generation);				\
	ASSERT_EQ(bits, _status->flags);				\
} while (0)

TEST_F_TIMEOUT(raw, status, TEST_SECONDS)
{
	static const __u32 zero[13];
	const struct doorbell_status *status;
	struct doorbell_attach arg;
	struct mapped m[4];
	struct doorbell_info info;
	__u32 i;

	for (i = 0; i < 4; i++) {
		/* 1 is DROP with events, 2 DROP without, 3 has no flag */
		arg = region(i % 2 ? DOORBELL_ATTACH_ORDERED : 0,
			     i % 2 ? 4 : 0);
		if (i == 3)
			arg.flags &= ~DOORBELL_ATTACH_DROP;
		ASSERT_EQ(0, ioctl(self->fd, DOORBELL_ATTACH, &arg));
		ASSERT_TRUE(map_region(self->fd, &m[i]));
		ASSERT_EQ(i + 1, m[i].info.generation);
		ASSERT_EQ(DOORBELL_FEATURES, m[i].info.features);
		ASSERT_EQ(arg.flags & ~DOORBELL_ATTACH_DROP, m[i].info.flags);
		STATUS_IS(&m[i], DOORBELL_ATTACHED, i + 1, 0);
		status = m[i].readonly;
		ASSERT_EQ(0, memcmp(zero, status->reserved, sizeof(zero)));
		if (i)
			STATUS_IS(&m[i - 1], DOORBELL_DETACHED, i + 1,
				  i == 3 ? 0 : DOORBELL_STATUS_DROPPED);
		if (!i)
			ASSERT_EQ(0, db_ring(self->fd, BASE, 1));
		ASSERT_EQ(0, db_detach(self->fd));
		STATUS_IS(&m[i], DOORBELL_DETACHED, i + 1, 0);
	}
	/* each shows once the region that took its place */
	for (i = 0; i < 3; i++)
		STATUS_IS(&m[i], DOORBELL_DETACHED, i + 2,
			  i == 2 ? 0 : DOORBELL_STATUS_DROPPED);
	STATUS_IS(&m[3], DOORBELL_DETACHED, 4, 0);
	/* a refused attach changes nothing */
	arg.depth = 0;
	ASSERT_EQ(-1, ioctl(self->fd, DOORBELL_ATTACH, &arg));
	ASSERT_EQ(0, db_info(self->fd, &info));
	ASSERT_EQ(4, info.generation);
	STATUS_IS(&m[3], DOORBELL_DETACHED, 4, 0);
	for (i = 0; i < 4; i++)
		unmap_region(&m[i]);
}

/* Each consumer counts its own regions. */
TEST_F_TIMEOUT(raw, status_of_another_consumer, TEST_SECONDS)
{
	int other = db_must_open(_metadata, 0);
	struct doorbell_info info;

	ASSERT_EQ(0, attach_mode(self->fd, 0, 0));
	ASSERT_TRUE(map_region(self->fd, &self->m));
	ASSERT_EQ(0, attach_mode(other, 0, 0));
	ASSERT_EQ(0, db_info(other, &info));
	ASSERT_EQ(1, info.generation);
	ASSERT_EQ(0, db_detach(other));
	ASSERT_EQ(0, attach_mode(other, 0, 0));
	STATUS_IS(&self->m, DOORBELL_ATTACHED, 1, 0);
	close(other);
	unmap_region(&self->m);
}

/* libdoorbell does the same by mmap() and by read(), in both modes */

FIXTURE(lib)
{
	struct doorbell *db;
};

FIXTURE_VARIANT(lib)
{
	unsigned int open;
	__u32 flags;
	__u32 depth;
};

FIXTURE_VARIANT_ADD(lib, mmap) { .open = 0 };
FIXTURE_VARIANT_ADD(lib, read) { .open = DOORBELL_OPEN_READ };
FIXTURE_VARIANT_ADD(lib, mmap_ordered) {
	.open = 0, .flags = DOORBELL_ATTACH_ORDERED, .depth = 16,
};
FIXTURE_VARIANT_ADD(lib, read_ordered) {
	.open = DOORBELL_OPEN_READ, .flags = DOORBELL_ATTACH_ORDERED,
	.depth = 16,
};

static int lib_attach(struct doorbell *db, __u32 flags, __u32 depth)
{
	struct doorbell_attach arg = region(flags, depth);

	return doorbell_attach_region(db, &arg);
}

FIXTURE_SETUP(lib)
{
	self->db = doorbell_open(variant->open);
	ASSERT_NE(NULL, self->db);
	ASSERT_EQ(0, lib_attach(self->db, variant->flags, variant->depth));
}

FIXTURE_TEARDOWN(lib)
{
	doorbell_close(self->db);
}

static int notify(unsigned int queue, const struct doorbell_event *event,
		  void *ctx)
{
	struct doorbell_event **next = ctx;

	**next = *event;
	(*next)++;
	return queue == DOORBELL_QUEUE_NONE ? 42 : 0;
}

/* packet_stream of Fuchsia's bell.rs, with doorbell_complete() */
TEST_F_TIMEOUT(lib, complete, TEST_SECONDS)
{
	struct doorbell_event events[4], *next = events;

	ASSERT_EQ(0, doorbell_ring_addr(self->db, BASE, 1));
	ASSERT_EQ(0, doorbell_ring_addr(self->db, BASE + 4, 2));
	ASSERT_EQ(0, doorbell_ring_addr(self->db, BASE - 1, 3));
	ASSERT_EQ(42, doorbell_complete(self->db, notify, &next));
	ASSERT_EQ(3, next - events);
	ASSERT_TRUE(db_event_is(&events[0], 0, 1, 1));
	ASSERT_TRUE(db_event_is(&events[1], 1, 1, 2));
	ASSERT_TRUE(db_event_is_bad(&events[2], 1, BASE - 1));
	ASSERT_EQ(0, doorbell_take(self->db, events, 4));
	ASSERT_EQ(0, doorbell_wait(self->db, 0));
}

/* Each writer rings a queue of its own, and queues that all of them ring. */
struct writer {
	int fd;
	unsigned int index;
	__u64 rung[QUEUES];
	int error;
};

static void *writer_main(void *arg)
{
	struct writer *w = arg;
	__u32 seed = w->index + 1;
	unsigned int queue, i;

	for (i = 0; i < RINGS; i++) {
		queue = w->index;
		if (db_random(&seed) & 1)
			queue = WRITERS + db_random(&seed) % (QUEUES - WRITERS);
		/* each writer numbers its rings, over all queues */
		w->error = db_ring(w->fd, BASE + queue * STRIDE,
				   (__u64)w->index << 32 | i);
		if (w->error)
			break;
		w->rung[queue]++;
		db_spin(db_random(&seed) % 64);
	}
	return NULL;
}

/*
 * Conservation, Order and Value while consumers by read() and mmap() alternate:
 * counts add up, and values of a writer's own queue never decrease. In ordered
 * mode each writer's numbers arrive complete and in order.
 */
TEST_F_TIMEOUT(lib, conservation_while_consumers_alternate, TEST_SECONDS)
{
	__u64 got[QUEUES] = {}, last[QUEUES] = {}, next[WRITERS] = {};
	bool ordered = variant->flags & DOORBELL_ATTACH_ORDERED;
	struct writer writers[WRITERS] = {};
	struct doorbell_event events[16];
	pthread_t threads[WRITERS];
	struct doorbell *other;
	unsigned int i, turn = 0, total = 0;
	__u32 seed = 1;
	int n;

	other = doorbell_from_fd(dup(doorbell_fd(self->db)),
				 variant->open ^ DOORBELL_OPEN_READ);
	ASSERT_NE(NULL, other);
	for (i = 0; i < WRITERS; i++) {
		writers[i].fd = doorbell_fd(self->db);
		writers[i].index = i;
		ASSERT_EQ(0, pthread_create(&threads[i], NULL, writer_main,
					    &writers[i]));
	}

	while (total < WRITERS * RINGS) {
		struct doorbell *db = turn++ / 5 % 2 ? other : self->db;

		ASSERT_EQ(1, doorbell_wait(db, DB_PATIENCE_MS));
		n = doorbell_take(db, events, 1 + db_random(&seed) % 16);
		ASSERT_GE(n, 0);
		for (i = 0; i < n; i++) {
			__u64 value = events[i].value;

			ASSERT_EQ(DOORBELL_EVENT_QUEUE, events[i].type);
			ASSERT_LT(events[i].queue, QUEUES);
			got[events[i].queue] += events[i].count;
			total += events[i].count;
			if (events[i].queue < WRITERS)
				ASSERT_EQ(events[i].queue, value >> 32);
			if (events[i].queue < WRITERS)
				ASSERT_GE(value, last[events[i].queue]);
			last[events[i].queue] = value;
			if (ordered) {
				ASSERT_EQ(1, events[i].count);
				ASSERT_EQ(next[value >> 32]++, (__u32)value);
			}
		}
		db_spin(db_random(&seed) % 512);
	}
	for (i = 0; i < WRITERS; i++) {
		ASSERT_EQ(0, pthread_join(threads[i], NULL));
		ASSERT_EQ(0, writers[i].error);
	}
	ASSERT_EQ(0, doorbell_take(self->db, events, 16));
	ASSERT_EQ(0, doorbell_take(other, events, 16));
	for (n = 0; n < QUEUES; n++) {
		for (i = 0; i < WRITERS; i++)
			got[n] -= writers[i].rung[n];
		ASSERT_EQ(0, got[n]);
	}
	doorbell_close(other);
}

struct ponger {
	int fd;
	int error;
	__u32 seed;
	__u64 allowed;
};

static void *ponger_main(void *arg)
{
	struct ponger *p = arg;
	unsigned int i;

	for (i = 0; i < ROUNDS; i++) {
		while (__atomic_load_n(&p->allowed, __ATOMIC_ACQUIRE) <= i)
			db_yield();
		db_spin(db_random(&p->seed) % 400);
		p->error = db_ring(p->fd, BASE, i);
		if (p->error)
			break;
	}
	return NULL;
}

/*
 * Take events, and sleep in epoll_wait() until there are any. A consumer that
 * @looks_first also arms by itself; otherwise epoll_wait() arms.
 */
static int take_or_sleep(struct __test_metadata *_metadata,
			 struct doorbell *db, int epfd, bool looks_first,
			 struct doorbell_event *events, int max)
{
	struct epoll_event ev;
	int n;

	for (;;) {
		if (looks_first) {
			n = doorbell_take(db, events, max);
			if (n)
				return n;
			if (doorbell_arm(db))
				continue;
		}
		ASSERT_EQ(1, epoll_wait(epfd, &ev, 1, DB_PATIENCE_MS));
		n = doorbell_take(db, events, max);
		if (n)
			return n;
	}
}

static void edge_triggered(struct __test_metadata *_metadata,
			   struct doorbell *db, bool looks_first)
{
	struct ponger p = { .fd = doorbell_fd(db), .seed = 5 };
	struct epoll_event ev = { .events = EPOLLIN | EPOLLET };
	int epfd = epoll_create1(EPOLL_CLOEXEC);
	struct doorbell_event events[2];
	pthread_t thread;
	__u32 seed = 9;
	unsigned int i;

	ASSERT_EQ(0, epoll_ctl(epfd, EPOLL_CTL_ADD, p.fd, &ev));
	ASSERT_EQ(0, pthread_create(&thread, NULL, ponger_main, &p));
	for (i = 0; i < ROUNDS; i++) {
		__atomic_store_n(&p.allowed, i + 1, __ATOMIC_RELEASE);
		db_spin(db_random(&seed) % 400);
		ASSERT_EQ(1, take_or_sleep(_metadata, db, epfd, looks_first,
					   events, ARRAY_SIZE(events)));
		ASSERT_TRUE(db_event_is(&events[0], 0, 1, i));
	}
	ASSERT_EQ(0, pthread_join(thread, NULL));
	ASSERT_EQ(0, p.error);
	close(epfd);
}

/* Wake-ups: edge-triggered epoll loses none. */
TEST_F_TIMEOUT(lib, edge_triggered_wake_ups, TEST_SECONDS)
{
	edge_triggered(_metadata, self->db, true);
	edge_triggered(_metadata, self->db, false);
}

/* Ordered mode: write() to a full region waits, fails or is short */

FIXTURE(full)
{
	struct doorbell *db;
	int fd;
};

FIXTURE_SETUP(full)
{
	struct doorbell_ring rings[4] = {
		{ BASE, 0 }, { BASE, 1 }, { BASE, 2 }, { BASE, 3 },
	};

	self->db = doorbell_open(0);
	ASSERT_NE(NULL, self->db);
	self->fd = doorbell_fd(self->db);
	ASSERT_EQ(0, lib_attach(self->db, DOORBELL_ATTACH_ORDERED, 3));
	/* three of four rings fit */
	ASSERT_EQ(3 * sizeof(*rings), write(self->fd, rings, sizeof(rings)));
	ASSERT_EQ(POLLIN, db_poll(self->fd, POLLIN | POLLOUT, 0));
}

FIXTURE_TEARDOWN(full)
{
	doorbell_close(self->db);
}

static void *blocked_main(void *arg)
{
	struct ponger *p = arg;

	p->error = db_ring(p->fd, BASE, 3);
	__atomic_store_n(&p->allowed, 1, __ATOMIC_RELEASE);
	return NULL;
}

TEST_F_TIMEOUT(full, write_fails_without_room, TEST_SECONDS)
{
	struct doorbell_info info;

	fcntl(self->fd, F_SETFL, O_NONBLOCK);
	ASSERT_EQ(-EAGAIN, doorbell_ring_addr(self->db, BASE, 3));
	ASSERT_EQ(0, doorbell_get_info(self->db, &info));
	ASSERT_EQ(3, info.rings);
	ASSERT_EQ(3, info.pending);
	ASSERT_EQ(0, info.bounced);
}

TEST_F_TIMEOUT(full, write_waits_for_read, TEST_SECONDS)
{
	struct ponger p = { .fd = self->fd };
	struct doorbell_event events[4];
	pthread_t thread;

	ASSERT_EQ(0, pthread_create(&thread, NULL, blocked_main, &p));
	usleep(20000);
	ASSERT_EQ(0, __atomic_load_n(&p.allowed, __ATOMIC_ACQUIRE));
	ASSERT_EQ(1, db_read(self->fd, events, 1));
	ASSERT_EQ(0, pthread_join(thread, NULL));
	ASSERT_EQ(0, p.error);
	ASSERT_EQ(3, db_read(self->fd, events, 4));
	ASSERT_TRUE(db_event_is(&events[2], 0, 1, 3));
	ASSERT_EQ(POLLOUT, db_poll(self->fd, POLLIN | POLLOUT, 0));
}

TEST_F_TIMEOUT(full, write_waits_for_mmap, TEST_SECONDS)
{
	struct ponger p = { .fd = self->fd };
	struct doorbell_event events[4];
	pthread_t thread;

	ASSERT_EQ(0, pthread_create(&thread, NULL, blocked_main, &p));
	usleep(20000);
	ASSERT_EQ(3, doorbell_take(self->db, events, 4));
	ASSERT_EQ(0, pthread_join(thread, NULL));
	ASSERT_EQ(0, p.error);
	ASSERT_EQ(1, doorbell_take(self->db, events, 4));
	ASSERT_TRUE(db_event_is(&events[0], 0, 1, 3));
}

TEST_F_TIMEOUT(full, detach_ends_a_waiting_write, TEST_SECONDS)
{
	struct ponger p = { .fd = self->fd };
	pthread_t thread;

	ASSERT_EQ(0, pthread_create(&thread, NULL, blocked_main, &p));
	usleep(20000);
	ASSERT_EQ(0, doorbell_detach_region(self->db));
	ASSERT_EQ(0, pthread_join(thread, NULL));
	ASSERT_EQ(-ENOTCONN, p.error);
}

/* read() makes room and signals EPOLLOUT, also edge-triggered. */
TEST_F_TIMEOUT(full, room_wakes_pollers, TEST_SECONDS)
{
	struct epoll_event ev = { .events = EPOLLOUT | EPOLLET };
	int epfd = epoll_create1(EPOLL_CLOEXEC);
	struct doorbell_event event;

	ASSERT_EQ(0, epoll_ctl(epfd, EPOLL_CTL_ADD, self->fd, &ev));
	ASSERT_EQ(0, epoll_wait(epfd, &ev, 1, 0));
	ASSERT_EQ(1, db_read(self->fd, &event, 1));
	ASSERT_EQ(1, epoll_wait(epfd, &ev, 1, DB_PATIENCE_MS));
	ASSERT_TRUE(ev.events & EPOLLOUT);
	close(epfd);
}

/* Counters make sense at any time */

FIXTURE(counters)
{
	int fd;
};

FIXTURE_VARIANT(counters)
{
	__u32 flags;
	__u32 depth;
};

FIXTURE_VARIANT_ADD(counters, coalescing) {};
FIXTURE_VARIANT_ADD(counters, ordered) {
	.flags = DOORBELL_ATTACH_ORDERED, .depth = COUNT_DEPTH,
};

FIXTURE_SETUP(counters)
{
	struct doorbell_attach arg = region(variant->flags, variant->depth);

	self->fd = db_must_open(_metadata, O_NONBLOCK);
	arg.len = COUNT_QUEUES * STRIDE;
	ASSERT_EQ(0, ioctl(self->fd, DOORBELL_ATTACH, &arg));
}

FIXTURE_TEARDOWN(counters)
{
	close(self->fd);
}

/**
 * struct traffic - threads that ring and read while another one looks
 * @fd: the consumer
 * @stop: the threads have to end
 * @begun: rings that have begun
 * @done: rings that are done
 * @read: rings that were read
 * @error: what went wrong, as a negative errno
 */
struct traffic {
	int fd;
	_Atomic bool stop;
	_Atomic __u64 begun;
	_Atomic __u64 done;
	_Atomic __u64 read;
	_Atomic int error;
};

/* Ring each queue, and no queue, and read until nothing is pending. */
static void ring_and_read(struct traffic *t)
{
	struct doorbell_ring rings[COUNT_QUEUES + 1] = {};
	struct doorbell_event events[16];
	int i, n;

	for (i = 0; i <= COUNT_QUEUES; i++)
		rings[i].addr = BASE + i * STRIDE;
	t->begun += ARRAY_SIZE(rings);
	if (write(t->fd, rings, sizeof(rings)) != sizeof(rings))
		t->error = -EPROTO;
	t->done += ARRAY_SIZE(rings);

	while ((n = db_read(t->fd, events, ARRAY_SIZE(events))) > 0)
		for (i = 0; i < n; i++)
			t->read += events[i].count;
	if (n != -EAGAIN)
		t->error = n;
}

static void *traffic_main(void *arg)
{
	struct traffic *t = arg;

	while (!t->stop) {
		ring_and_read(t);
		usleep(100);
	}
	return NULL;
}

/* Preempt the thread that looks, wherever the kernel allows it. */
static void *preempting_main(void *arg)
{
	struct sched_param param = { .sched_priority = 1 };
	struct traffic *t = arg;

	if (db_pin(0) || sched_setscheduler(0, SCHED_FIFO, &param))
		t->error = -errno;
	return traffic_main(t);
}

/* The number behind a name in fdinfo; all ones if it is not there */
static __u64 fdinfo_number(const char *text, const char *name)
{
	const char *at = strstr(text, name);

	return at ? strtoull(at + strlen(name), NULL, 10) : ~0ULL;
}

/* The counters of fdinfo */
static int fdinfo_counters(int fd, struct doorbell_info *info)
{
	char path[64], text[2048];
	int ret;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	ret = db_read_file(path, text, sizeof(text));
	if (ret < 0)
		return ret;
	info->rings = fdinfo_number(text, "doorbell-rings:\t");
	info->bad_rings = fdinfo_number(text, "doorbell-bad-rings:\t");
	info->pending = fdinfo_number(text, "doorbell-pending:\t");
	return 0;
}

/*
 * While others ring and read: no more rings than have begun, no fewer than are
 * done, no more pending than are not read, and no counter that runs backwards.
 */
TEST_F_TIMEOUT(counters, make_sense_at_any_time, TEST_SECONDS)
{
	bool ordered = variant->flags & DOORBELL_ATTACH_ORDERED;
	struct doorbell_info info = {}, last = {};
	struct traffic t = { .fd = self->fd };
	__u64 end, done, read, sum;
	pthread_t thread[2];
	unsigned int i;

	ASSERT_EQ(0, pthread_create(&thread[0], NULL, traffic_main, &t));
	ASSERT_EQ(0, pthread_create(&thread[1], NULL, preempting_main, &t));
	ASSERT_EQ(0, db_pin(0));
	end = db_until(COUNTS_MS);
	for (i = 0; db_round(i, COUNTS_MIN, COUNTS, end); i++) {
		done = t.done;
		read = t.read;
		ASSERT_EQ(0, i % 8 ? db_info(self->fd, &info) :
				     fdinfo_counters(self->fd, &info));
		sum = info.rings + info.bad_rings;
		ASSERT_LE(sum, t.begun);
		ASSERT_GE(sum, done);
		ASSERT_LE(info.pending, sum);
		ASSERT_LE(info.pending, t.begun - read);
		ASSERT_GE(sum, last.rings + last.bad_rings);
		ASSERT_GE(info.bad_rings, last.bad_rings);
		/* ordered: a bad ring counts as a ring for a moment */
		if (!ordered)
			ASSERT_GE(info.rings, last.rings);
		last = info;
	}
	t.stop = true;
	for (i = 0; i < 2; i++)
		ASSERT_EQ(0, pthread_join(thread[i], NULL));
	ASSERT_EQ(0, t.error);

	/* exact at rest */
	ASSERT_EQ(0, db_info(self->fd, &info));
	ASSERT_EQ(t.done, info.rings + info.bad_rings);
	ASSERT_EQ(t.done - t.read, info.pending);
}

/* Garbage in the control area disturbs only its own consumer */

FIXTURE(hostile)
{
	int fd;
	int other;
	struct mapped m;
};

FIXTURE_VARIANT(hostile)
{
	__u32 flags;
	__u32 depth;
};

FIXTURE_VARIANT_ADD(hostile, coalescing) {};
FIXTURE_VARIANT_ADD(hostile, ordered) {
	.flags = DOORBELL_ATTACH_ORDERED, .depth = 8,
};

FIXTURE_SETUP(hostile)
{
	self->fd = db_must_open(_metadata, O_NONBLOCK);
	self->other = db_must_open(_metadata, 0);
	ASSERT_EQ(0, attach_mode(self->fd, variant->flags, variant->depth));
	ASSERT_EQ(0, attach_mode(self->other, 0, 0));
	ASSERT_TRUE(map_region(self->fd, &self->m));
}

FIXTURE_TEARDOWN(hostile)
{
	unmap_region(&self->m);
	close(self->fd);
	close(self->other);
}

struct garbler {
	struct mapped *m;
	bool stop;
};

static void *garbler_main(void *arg)
{
	static const __u64 nasty[] = {
		0, 1, 7, 0x7fffffff, 0xffffffff, 0x100000000ULL, 1ULL << 56,
		1ULL << 63, ~0ULL - 1, ~0ULL,
	};
	struct garbler *g = arg;
	struct mapped *m = g->m;
	__u64 *words = (__u64 *)m->control;
	size_t nr_words = m->info.control_size / sizeof(*words);
	__u32 seed = 77;

	while (!__atomic_load_n(&g->stop, __ATOMIC_ACQUIRE)) {
		__u64 junk = (__u64)db_random(&seed) << 32 | db_random(&seed);

		if (db_random(&seed) & 1)
			junk = nasty[db_random(&seed) % ARRAY_SIZE(nasty)];
		switch (db_random(&seed) % 4) {
		case 0:
			m->control->head = junk;
			break;
		case 1:
			m->control->head += db_random(&seed) % 5 - 2;
			break;
		case 2:
			m->control->armed = junk;
			break;
		default:
			words[db_random(&seed) % nr_words] = junk;
			break;
		}
		db_yield();
	}
	return NULL;
}

/* A garbler hurts only its own consumer. */
TEST_F_TIMEOUT(hostile, garbage_is_contained, TEST_SECONDS)
{
	struct garbler g = { .m = &self->m };
	struct doorbell_event events[16];
	struct doorbell_info info;
	pthread_t thread;
	unsigned int i;
	pid_t child;
	int n;

	ASSERT_EQ(0, pthread_create(&thread, NULL, garbler_main, &g));
	for (i = 0; i < ROUNDS; i++) {
		db_ring(self->fd, BASE + i % QUEUES * STRIDE, i);
		db_ring(self->fd, i, i);
		db_poll(self->fd, POLLIN | POLLOUT, 0);
		n = db_read(self->fd, events, 1 + i % 16);
		if (n < 0)
			ASSERT_EQ(-EAGAIN, n);
		ASSERT_EQ(0, db_info(self->fd, &info));
		ASSERT_LE(info.pending, variant->depth ? info.nr_entries :
			  info.rings + info.bad_rings);

		/* the other consumer gets exactly its own events */
		ASSERT_EQ(0, db_ring(self->other, BASE, i));
		ASSERT_EQ(1, db_read(self->other, events, 16));
		ASSERT_TRUE(db_event_is(&events[0], 0, 1, i));

		if (i % 100 == 0) {
			/* fork, map, unmap and close meanwhile */
			child = fork();
			if (!child) {
				if (!map_region(self->fd, &self->m))
					_exit(1);
				unmap_region(&self->m);
				close(self->fd);
				_exit(0);
			}
			ASSERT_GT(child, 0);
			ASSERT_EQ(child, waitpid(child, &n, 0));
			ASSERT_EQ(0, n);
		}
	}
	ASSERT_EQ(0, db_detach(self->fd));
	__atomic_store_n(&g.stop, true, __ATOMIC_RELEASE);
	ASSERT_EQ(0, pthread_join(thread, NULL));

	/* after the next attach everything works */
	ASSERT_EQ(0, attach_mode(self->fd, variant->flags, variant->depth));
	ASSERT_EQ(0, db_ring(self->fd, BASE + STRIDE, 5));
	ASSERT_EQ(1, db_read(self->fd, events, 16));
	ASSERT_TRUE(db_event_is(&events[0], 1, 1, 5));
}

/* Whatever a consumer leaves in seen, no event of a bad ring names a queue. */
TEST_F_TIMEOUT(hostile, garbage_names_no_queue, TEST_SECONDS)
{
	struct doorbell *db = doorbell_from_fd(dup(self->fd), 0);
	struct doorbell_event event;
	unsigned int i, bad;
	int n;

	ASSERT_NE(NULL, db);
	for (i = 0; i < 8; i++) {
		if (!variant->flags)
			self->m.control->seen[QUEUES] = i / 2;
		bad = BASE + QUEUES * STRIDE + i;
		ASSERT_EQ(0, db_ring(self->fd, bad, 0));
		n = i % 2 ? db_read(self->fd, &event, 1) :
			    doorbell_take(db, &event, 1);
		ASSERT_EQ(1, n);
		ASSERT_EQ(DOORBELL_QUEUE_NONE, event.queue);
		ASSERT_EQ(DOORBELL_EVENT_BAD_ADDRESS, event.type);
		ASSERT_EQ(bad, event.value);
	}
	doorbell_close(db);
}

/*
 * Memory that is mapped still when its region is freed is the consumer's alone:
 * the kernel keeps nothing of its own there, where a consumer could write.
 */
TEST_F_TIMEOUT(hostile, freed_region_leaves_the_mapping, TEST_SECONDS)
{
	struct garbler g = { .m = &self->m };
	size_t i, size = self->m.info.control_size;
	const unsigned char *bytes;
	struct mapped next;
	pthread_t thread;
	int round;

	for (round = 0; round < 20; round++) {
		bool garbles = round % 2;

		memset(self->m.control, 0x5a, size);
		g.stop = false;
		if (garbles)
			ASSERT_EQ(0, pthread_create(&thread, NULL, garbler_main,
						    &g));
		ASSERT_EQ(0, db_detach(self->fd));
		ASSERT_EQ(0, attach_mode(self->fd, variant->flags,
					 variant->depth));
		ASSERT_TRUE(map_region(self->fd, &next));
		/* an RCU grace period, and what comes after it */
		usleep(100000);
		if (garbles) {
			__atomic_store_n(&g.stop, true, __ATOMIC_RELEASE);
			ASSERT_EQ(0, pthread_join(thread, NULL));
		}
		bytes = (const unsigned char *)self->m.control;
		for (i = 0; i < size && !garbles; i++) {
			ASSERT_EQ(0x5a, bytes[i]) {
				TH_LOG("round %d, byte %zu", round, i);
			}
		}
		unmap_region(&self->m);
		self->m = next;
	}
}

/* Read or ring in another process, for ever. */
static pid_t start_endless(int fd, bool rings)
{
	struct doorbell_event events[16];
	pid_t pid = fork();

	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (;;) {
		if (rings)
			db_ring(fd, BASE, 0);
		else
			db_read(fd, events, ARRAY_SIZE(events));
	}
}

/* SIGKILL ends read() and write(), whatever happens to the control area. */
TEST_F_TIMEOUT(hostile, garbage_does_not_stop_a_signal, TEST_SECONDS)
{
	struct garbler g = { .m = &self->m };
	pthread_t thread;
	pid_t pid[2];
	int i, n;

	ASSERT_EQ(0, fcntl(self->fd, F_SETFL, 0));
	ASSERT_EQ(0, pthread_create(&thread, NULL, garbler_main, &g));
	for (i = 0; i < 5; i++) {
		for (n = 0; n < 2; n++) {
			pid[n] = start_endless(self->fd, n);
			ASSERT_LT(0, pid[n]);
		}
		usleep(20000);
		for (n = 0; n < 2; n++)
			ASSERT_EQ(0x100 + SIGKILL, killed(pid[n]));
	}
	__atomic_store_n(&g.stop, true, __ATOMIC_RELEASE);
	ASSERT_EQ(0, pthread_join(thread, NULL));
}

/* A consumer that makes an event of the last queue again and again */
struct repeater {
	struct mapped m;
	__u64 head;
	bool stop;
};

static void *repeater_main(void *arg)
{
	struct repeater *r = arg;

	while (!__atomic_load_n(&r->stop, __ATOMIC_ACQUIRE)) {
		__atomic_store_n(&r->m.control->head, r->head,
				 __ATOMIC_RELAXED);
		__atomic_store_n(&r->m.control->seen[DOORBELL_QUEUES_MAX - 1],
				 0, __ATOMIC_RELAXED);
	}
	return NULL;
}

/*
 * read() of many events, each of which has all entries of the region before it.
 * Without a look at signals it goes on for minutes, if the two CPUs run at the
 * same time; emulated ones hardly meet.
 */
static pid_t start_long_read(int fd)
{
	static char events[1 << 20];
	pid_t pid = fork();

	if (pid)
		return pid;
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	for (;;)
		db_result(read(fd, events, sizeof(events)));
}

TEST(many_entries_do_not_stop_a_signal)
{
	static struct doorbell_ring rings[DOORBELL_QUEUES_MAX];
	static struct doorbell_event events[DOORBELL_QUEUES_MAX];
	struct repeater r = {};
	pthread_t thread;
	int i, fd;
	pid_t pid;

	fd = db_must_open(_metadata, O_NONBLOCK);
	ASSERT_EQ(0, db_attach(fd, -1, 0, 4 * DOORBELL_QUEUES_MAX));
	ASSERT_TRUE(map_region(fd, &r.m));
	r.head = r.m.control->head;
	for (i = 0; i < DOORBELL_QUEUES_MAX; i++)
		rings[i].addr = 4 * i;
	ASSERT_EQ(sizeof(rings), write(fd, rings, sizeof(rings)));
	ASSERT_EQ(DOORBELL_QUEUES_MAX,
		  db_read(fd, events, DOORBELL_QUEUES_MAX));
	ASSERT_EQ(0, pthread_create(&thread, NULL, repeater_main, &r));
	for (i = 0; i < 5; i++) {
		pid = start_long_read(fd);
		ASSERT_LT(0, pid);
		usleep(50000);
		EXPECT_EQ(0x100 + SIGKILL, killed(pid));
	}
	__atomic_store_n(&r.stop, true, __ATOMIC_RELEASE);
	ASSERT_EQ(0, pthread_join(thread, NULL));
	unmap_region(&r.m);
	close(fd);
}

/* A mapping keeps a region attached as a descriptor does */

FIXTURE(vm)
{
	struct vmm *vmm;
	int fd;
	int other;
	struct mapped m;
};

FIXTURE_SETUP(vm)
{
	self->vmm = vmm_create(1);
	ASSERT_NE(NULL, self->vmm);
	self->other = db_must_open(_metadata, O_NONBLOCK);
	self->fd = db_must_open(_metadata, 0);
	ASSERT_EQ(0, attach_region(self->fd, self->vmm->vm_fd, 0));
	ASSERT_TRUE(map_region(self->fd, &self->m));
}

FIXTURE_TEARDOWN(vm)
{
	close(self->other);
	vmm_destroy(self->vmm);
}

/* The guest rings queue 1. Return the number of exits. */
static int guest_ring(struct vmm *vmm)
{
	__u64 before = vmm_exits(vmm);
	int ret = guest_write(vmm, 0, 4, MMIO_BASE + REGION_STRIDE, 7);

	return ret ?: vmm_exits(vmm) - before;
}

/* The region is off, and another consumer can attach. */
static void check_off(struct __test_metadata *_metadata,
		      FIXTURE_DATA(vm) *self)
{
	ASSERT_EQ(1, guest_ring(self->vmm));
	ASSERT_EQ(0, attach_region(self->other, self->vmm->vm_fd, 0));
	ASSERT_EQ(0, guest_ring(self->vmm));
	check_event(_metadata, self->other, 1, 7);
}

/* Each of the two areas does, until munmap(). */
TEST_F_TIMEOUT(vm, mapping_keeps_the_region, TEST_SECONDS)
{
	struct doorbell_slot *slots = mapped_slots(&self->m);

	ASSERT_EQ(0, close(self->fd));
	ASSERT_EQ(0, guest_ring(self->vmm));
	ASSERT_EQ(1, slots[1].rings >> DOORBELL_RINGS_SHIFT);
	ASSERT_EQ(7, slots[1].value);
	ASSERT_EQ(-EEXIST, attach_region(self->other, self->vmm->vm_fd, 0));

	munmap(self->m.control, self->m.info.control_size);
	ASSERT_EQ(0, guest_ring(self->vmm));
	ASSERT_EQ(2, slots[1].rings >> DOORBELL_RINGS_SHIFT);
	ASSERT_EQ(-EEXIST, attach_region(self->other, self->vmm->vm_fd, 0));

	munmap(self->m.readonly, self->m.info.readonly_size);
	check_off(_metadata, self);
}

/* The status block of a region whose VM ends, before and after a detach */
TEST_F_TIMEOUT(vm, status, TEST_SECONDS)
{
	struct vmm *vmm = vmm_create(1);
	struct mapped m;

	ASSERT_NE(NULL, vmm);
	STATUS_IS(&self->m, DOORBELL_ATTACHED, 1, 0);
	ASSERT_EQ(0, attach_region(self->other, vmm->vm_fd, 0));
	ASSERT_TRUE(map_region(self->other, &m));
	STATUS_IS(&m, DOORBELL_ATTACHED, 1, 0);
	vmm_destroy(vmm);
	ASSERT_EQ(POLLHUP, poll_for(self->other, POLLIN));
	STATUS_IS(&m, DOORBELL_HANGUP, 1, 0);
	ASSERT_EQ(DOORBELL_HANGUP, info_of(self->other).state);
	ASSERT_EQ(0, db_detach(self->other));
	STATUS_IS(&m, DOORBELL_DETACHED, 1, 0);
	/* a hang-up of a region without a bus does not show */
	ASSERT_EQ(0, attach_region(self->other, self->vmm->vm_fd, PIO));
	STATUS_IS(&m, DOORBELL_DETACHED, 2, DOORBELL_STATUS_DROPPED);
	unmap_region(&m);
	STATUS_IS(&self->m, DOORBELL_ATTACHED, 1, 0);
	ASSERT_EQ(0, db_detach(self->fd));
	STATUS_IS(&self->m, DOORBELL_DETACHED, 1, 0);
	unmap_region(&self->m);
	close(self->fd);
}

static bool is_unmapped(void *area, size_t size)
{
	return msync(area, size, MS_ASYNC) && errno == ENOMEM;
}

/* A forked child inherits the descriptor, which it closes, but no mapping. */
TEST_F_TIMEOUT(vm, fork_inherits_no_mapping, TEST_SECONDS)
{
	struct mapped *m = &self->m;
	pid_t pid = fork();

	ASSERT_LE(0, pid);
	if (!pid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close_range(3, ~0U, 0);
		/* sleep for ever, unless one of the areas is there */
		while (is_unmapped(m->control, m->info.control_size) &&
		       is_unmapped(m->readonly, m->info.readonly_size))
			pause();
		_exit(0);
	}
	ASSERT_EQ(0, db_wait_sleeping(pid, pid, SYS_pause));
	unmap_region(m);
	ASSERT_EQ(0, close(self->fd));
	check_off(_metadata, self);
	ASSERT_EQ(0x100 + SIGKILL, killed(pid));
}

TEST_HARNESS_MAIN
