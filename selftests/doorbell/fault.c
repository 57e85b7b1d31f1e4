// SPDX-License-Identifier: GPL-2.0
/*
 * Fault: the module's allocations fail, or its copies from and to user space.
 * Calls then fail with ENOMEM or EFAULT and change nothing; a consumer leaves,
 * and a VM ends, without memory.
 *
 * Fault injection chooses them by their call chain: those of the module, in the
 * caller's task and on its workqueue. The program needs a kernel with
 * fault injection. It unloads the module and loads it again, from $DOORBELL_KO
 * or from /doorbell.ko.
 */
#include <signal.h>
#include <sys/eventfd.h>

#include "vmutil.h"

#define DEBUGFS		"/sys/kernel/debug/"
#define SLAB		"failslab"
#define PAGES		"fail_page_alloc"
#define COPIES		"fail_usercopy"

/* More failures than any test causes, and more bytes than any allocates */
#define ALWAYS		1000000
#define NO_END		(1 << 30)

/* A region of three ranges on the bus */
#define LARGE_BASE	0x40000000ULL
#define LARGE_LEN	0xc0000000ULL
#define LARGE_STRIDE	DOORBELL_STRIDE_MAX

/* Where a region moves, and where other devices are on its bus */
#define NEW_BASE	(MMIO_BASE + 0x100000)
#define OTHERS_BASE	(MMIO_BASE + 0x200000)

/* The first of the queues that are bound, and how many a region may have */
#define FIRST_BOUND	2
#define MANY_QUEUES	2048

/* Needs page tables of its own: two of the last level, as two pages do here */
#define FAR_AREA	((void *)(0x100000000000 + 0x200000 - 0x1000))

#define ROUNDS_END	4

/* How often each allocation of a call has its turn, if some are left out */
#define MAX_WALKS	5

/* Which allocation fails when KVM removes an ioeventfd, and how many tries */
#define MAX_NTH		8
#define MAX_TRIES	(20 * MAX_NTH)

/* Injecting faults */

static int knob_set(const char *attr, const char *name, const char *value)
{
	char path[128];

	snprintf(path, sizeof(path), DEBUGFS "%s/%s", attr, name);
	return db_write_file(path, value);
}

static int knob_set_number(const char *attr, const char *name, int value)
{
	char text[16];

	snprintf(text, sizeof(text), "%d", value);
	return knob_set(attr, name, text);
}

static long knob(const char *attr, const char *name)
{
	char path[128];

	snprintf(path, sizeof(path), DEBUGFS "%s/%s", attr, name);
	return db_read_number(path);
}

/*
 * Fail @times allocations: @space bytes (or pages) are allocated before the
 * first failure. A copy counts as one byte.
 */
static int fail_start(const char *attr, int space, int times)
{
	return knob_set_number(attr, "space", space) ?:
	       knob_set_number(attr, "times", times) ?:
	       knob_set(attr, "probability", "100");
}

/* Return the failures since fail_start() with the same @times. */
static int fail_stop(const char *attr, int times)
{
	int ret = knob_set(attr, "probability", "0");

	return ret ?: times - knob(attr, "times");
}

/**
 * struct faults - how to fail each allocation, or copy, of a call
 * @attr: which
 * @times: failures in a row
 * @least: allocations that make the call fail
 */
struct faults {
	const char *attr;
	int times;
	int least;
};

/**
 * struct turns - calls in which each allocation in turn is the first that fails
 * @faults: how
 * @space: bytes, or pages, before the first failure of the next call; at first
 *	no failure. With as many as the last call had before its failure, the
 *	allocation before that one fails.
 * @passed: what the last call had
 * @again: it is the second call with this @space. Now and then the slabs, or
 *	what the debug kernel notes of an allocation, need an allocation more,
 *	and one of the module would be left out.
 * @failed: one of the calls with this @space failed
 * @allocations: allocations, or copies, that made a call fail
 * @walks: how often all of it began anew, as too few allocations had their turn
 */
struct turns {
	const struct faults *faults;
	int space;
	int passed;
	bool again;
	bool failed;
	int allocations;
	int walks;
};

/* What a call returns in which one failed */
static int turns_error(const struct turns *turns)
{
	return strcmp(turns->faults->attr, COPIES) ? -ENOMEM : -EFAULT;
}

static int turn_begin(const struct turns *turns)
{
	return fail_start(turns->faults->attr, turns->space,
			  turns->faults->times);
}

/* Return how many allocations failed in a call that returned @ret. */
static int turn_end(struct turns *turns, int ret)
{
	const struct faults *faults = turns->faults;
	int passed = turns->space - knob(faults->attr, "space");
	int failed = fail_stop(faults->attr, faults->times);

	turns->passed = passed > turns->passed ? passed : turns->passed;
	turns->failed |= failed > 0 && ret;
	if (turns->again) {
		turns->space = turns->passed;
		turns->passed = 0;
		turns->allocations += turns->failed;
		turns->failed = false;
	}
	turns->again = !turns->again;
	return failed;
}

/* Whether another call is due */
static bool turns_go_on(struct turns *turns)
{
	if (turns->space || turns->again)
		return true;
	if (turns->allocations >= turns->faults->least ||
	    ++turns->walks == MAX_WALKS)
		return false;
	turns->space = NO_END;
	turns->allocations = 0;
	return true;
}

static void turns_check(struct __test_metadata *_metadata,
			const struct turns *turns)
{
	TH_LOG("%d failures made the call fail", turns->allocations);
	ASSERT_LE(turns->faults->least, turns->allocations);
}

/* The number behind @key in the first line that starts with it, or 0 */
static unsigned long long number_in(const char *path, const char *key, int base)
{
	unsigned long long n = 0;
	char line[512];
	FILE *f = fopen(path, "re");

	while (f && fgets(line, sizeof(line), f))
		if (!strncmp(line, key, strlen(key))) {
			n = strtoull(line + strlen(key), NULL, base);
			break;
		}
	if (f)
		fclose(f);
	return n;
}

/* Fail only allocations below functions at [@start, @end). */
static int fail_only(const char *attr, unsigned long long start,
		     unsigned long long end)
{
	char text[32];
	int ret;

	snprintf(text, sizeof(text), "%#llx", start);
	ret = knob_set(attr, "require-start", text);
	snprintf(text, sizeof(text), "%#llx", end);
	return ret ?: knob_set(attr, "require-end", text);
}

/* Fail only allocations below a function of the kernel. */
static int fail_only_below(const char *name)
{
	unsigned long long address, start = 0, end = 0;
	FILE *f = fopen("/proc/kallsyms", "re");
	char line[512], symbol[256];

	/* they are sorted by their addresses */
	while (f && !end && fgets(line, sizeof(line), f)) {
		if (sscanf(line, "%llx %*c %255s", &address, symbol) != 2)
			continue;
		if (start && address > start)
			end = address;
		else if (!strcmp(symbol, name))
			start = address;
	}
	if (f)
		fclose(f);
	return end ? fail_only(SLAB, start, end) : -ENOENT;
}

/* Fail only allocations of the module, where it is loaded now. */
static int fail_only_module(void)
{
	unsigned long long start, size;

	start = number_in("/sys/module/doorbell/sections/.text", "", 16);
	size = number_in("/proc/modules", "doorbell ", 10);
	if (!start || !size)
		return -ENOENT;
	return fail_only(SLAB, start, start + size) ?:
	       fail_only(PAGES, start, start + size) ?:
	       fail_only(COPIES, start, start + size);
}

static void fail_end(void)
{
	knob_set(SLAB, "probability", "0");
	knob_set(PAGES, "probability", "0");
	knob_set(COPIES, "probability", "0");
	fail_only(SLAB, 0, ~0ULL);
	fail_only(PAGES, 0, ~0ULL);
	fail_only(COPIES, 0, ~0ULL);
}

/* Why this kernel, or this module, cannot run the tests: NULL if it can */
static const char *fail_setup(void)
{
	static const char * const attrs[] = { SLAB, PAGES, COPIES };
	unsigned int i;

	/* a test that failed need not have ended its own injection */
	fail_end();
	for (i = 0; i < ARRAY_SIZE(attrs); i++) {
		if (knob_set(attrs[i], "times", "0"))
			return "no fault injection of all kinds";
		/* one line for a failure, and few of them */
		knob_set(attrs[i], "verbose", "1");
		knob_set(attrs[i], "verbose_ratelimit_interval_ms", "5000");
		knob_set(attrs[i], "verbose_ratelimit_burst", "3");
	}
	/* the module's allocations may sleep: let these fail, too */
	knob_set(SLAB, "ignore-gfp-wait", "N");
	knob_set(PAGES, "ignore-gfp-wait", "N");
	knob_set(PAGES, "ignore-gfp-highmem", "N");
	knob_set(PAGES, "min-order", "0");
	if (fail_only_module())
		return "no filter for call chains, or the module is built in";
	return NULL;
}

/* Guests and consumers */

/* Make vCPU 0 ring 32 addresses of a region in a thread. */
static int start_vcpu(struct vmm *vmm, __u64 base, __u64 len)
{
	struct guest_job job = {
		.kind = GUEST_STORM, .width = 4,
		.base = base, .stride = len / REGION_QUEUES,
		.range = { { .first = 0, .nr = REGION_QUEUES } },
	};

	return vmm_job(vmm, 0, &job) ?: vmm_thread_start(vmm, 0);
}

static int stop_vcpu(struct vmm *vmm)
{
	vmm_stop(vmm);
	return vmm_thread_join(vmm, 0);
}

/*
 * Read until nothing is pending and add the rings to @rings. Return 0, 1 at the
 * end of the file, or a negative errno.
 */
static int read_rings(int fd, __u64 *rings)
{
	struct doorbell_event events[64];
	int i, n;

	while ((n = db_read(fd, events, 64)) > 0)
		for (i = 0; i < n; i++)
			*rings += events[i].count;
	return n == -EAGAIN ? 0 : n ?: 1;
}

/* The guest's writes reach the VMM. */
static bool exits_go_on(const struct vmm *vmm)
{
	__u64 before = vmm_exits(vmm);

	return eventually(vmm_exits(vmm) > before);
}

/*
 * A write by vCPU 1 is an event if the region is at @base. Otherwise it is an
 * exit, and @fd may be -1.
 */
static void check_ring_at(struct __test_metadata *_metadata, struct vmm *vmm,
			  int fd, __u64 base, unsigned int queue, bool attached)
{
	__u64 exits = vmm_exits(vmm);
	struct doorbell_event events[2];

	ASSERT_EQ(0, vmm_op(vmm, 1, GUEST_MMIO_WRITE, 4,
			    base + queue * REGION_STRIDE, 5));
	ASSERT_EQ(exits + !attached, vmm_exits(vmm));
	if (fd >= 0)
		ASSERT_EQ(attached, read_now(fd, events, 2));
	if (attached) {
		ASSERT_EQ(queue, events[0].queue);
		ASSERT_EQ(1, events[0].count);
	}
}

static void check_ring(struct __test_metadata *_metadata, struct vmm *vmm,
		       int fd, bool attached)
{
	check_ring_at(_metadata, vmm, fd, MMIO_BASE, 1, attached);
}

static bool no_vm_left(void)
{
	return vms_alive(getpid()) <= 0;
}

/* Load the module without memory: it is not there, and can be loaded later. */
TEST(load)
{
	const struct faults faults = { SLAB, .times = 1, .least = 10 };
	struct turns turns = { .faults = &faults, .space = NO_END };
	int file = db_module_open(), ret, failed;

	ASSERT_LE(0, file);
	ASSERT_EQ(NULL, fail_setup());
	ASSERT_EQ(0, fail_only_below("do_one_initcall"));
	ASSERT_TRUE(eventually(!db_module_unload()));
	while (turns_go_on(&turns)) {
		ASSERT_EQ(0, turn_begin(&turns));
		ret = db_module_load(file);
		failed = turn_end(&turns, ret);
		if (ret) {
			ASSERT_EQ(-ENOMEM, ret);
			ASSERT_LT(0, failed);
			ASSERT_NE(0, access(DB_PATH, F_OK));
			ASSERT_EQ(-ENOENT, db_module_refs());
		} else {
			ASSERT_TRUE(eventually(!db_module_unload()));
		}
	}
	fail_end();
	turns_check(_metadata, &turns);
	ASSERT_EQ(0, db_module_load(file));
	close(file);
}

/* Attach without memory */

FIXTURE(attach) {
	struct vmm *vmm;
	int fd;
};

FIXTURE_VARIANT(attach) {
	struct faults faults;
	__u64 base;
	__u64 len;
	__u32 stride;
	__u32 flags;
	__u32 depth;
};

FIXTURE_VARIANT_ADD(attach, plain) {
	.faults = { SLAB, .times = 1, .least = 7 },
	.base = MMIO_BASE, .len = REGION_LEN, .stride = REGION_STRIDE,
};

FIXTURE_VARIANT_ADD(attach, no_value) {
	.faults = { SLAB, .times = 1, .least = 8 },
	.flags = DOORBELL_ATTACH_NO_VALUE,
	.base = MMIO_BASE, .len = REGION_LEN, .stride = REGION_STRIDE,
};

FIXTURE_VARIANT_ADD(attach, bound_only) {
	.faults = { SLAB, .times = 1, .least = 8 },
	.flags = DOORBELL_ATTACH_BOUND_ONLY,
	.base = MMIO_BASE, .len = REGION_LEN, .stride = REGION_STRIDE,
};

FIXTURE_VARIANT_ADD(attach, ordered) {
	.faults = { SLAB, .times = 1, .least = 7 },
	.flags = DOORBELL_ATTACH_ORDERED, .depth = 512,
	.base = MMIO_BASE, .len = REGION_LEN, .stride = REGION_STRIDE,
};

FIXTURE_VARIANT_ADD(attach, large) {
	.faults = { SLAB, .times = 1, .least = 7 },
	.base = LARGE_BASE, .len = LARGE_LEN, .stride = LARGE_STRIDE,
};

/* So many that the kernel does not allocate all of them at once */
FIXTURE_VARIANT_ADD(attach, pages) {
	.faults = { PAGES, .times = ALWAYS, .least = 2 },
	.base = MMIO_BASE, .stride = DOORBELL_STRIDE_MIN,
	.len = 0x8000 * DOORBELL_STRIDE_MIN,
};

FIXTURE_VARIANT_ADD(attach, copies) {
	.faults = { COPIES, .times = 1, .least = 1 },
	.base = MMIO_BASE, .len = REGION_LEN, .stride = REGION_STRIDE,
};

FIXTURE_SETUP(attach)
{
	ASSERT_EQ(NULL, fail_setup());
	self->fd = db_must_open(_metadata, O_NONBLOCK);
	self->vmm = vmm_create(2);
	ASSERT_NE(NULL, self->vmm);
}

FIXTURE_TEARDOWN(attach)
{
	fail_end();
	close(self->fd);
	vmm_destroy(self->vmm);
	EXPECT_TRUE(eventually(no_vm_left()));
}

static int attach_variant(int fd, int vm_fd,
			  const FIXTURE_VARIANT(attach) *variant)
{
	struct doorbell_attach arg = db_attach_arg(vm_fd, variant->base,
						   variant->len);

	arg.stride = variant->stride;
	arg.flags |= variant->flags;
	arg.depth = variant->depth;
	return db_result(ioctl(fd, DOORBELL_ATTACH, &arg));
}

/* The region gets the guest's rings; with BOUND_ONLY it declines them. */
static bool is_rung(int fd, __u32 flags)
{
	return flags & DOORBELL_ATTACH_BOUND_ONLY ||
	       POLLIN & poll_for(fd, POLLIN);
}

/*
 * Each in turn is the first that fails, while the guest rings. The attach
 * changes nothing: it swallows no write and loses no event.
 */
TEST_F_TIMEOUT(attach, each_failure, TEST_SECONDS)
{
	struct turns turns = { .faults = &variant->faults, .space = NO_END };
	struct db_snapshot before, after;
	int ret, failed, refs;
	struct vmm *vmm = self->vmm;
	__u64 rings = 0;

	/* a failed attach must keep an unread event */
	ASSERT_EQ(0, attach_region(self->fd, -1, 0));
	ASSERT_EQ(0, db_ring(self->fd, MMIO_BASE, 1));
	ASSERT_EQ(0, db_detach(self->fd));
	refs = db_module_refs();
	ASSERT_EQ(0, start_vcpu(vmm, variant->base, variant->len));
	ASSERT_TRUE(exits_go_on(vmm));

	ASSERT_EQ(0, db_snapshot(self->fd, &before));
	do {
		ASSERT_EQ(0, turn_begin(&turns));
		ret = attach_variant(self->fd, vmm->vm_fd, variant);
		failed = turn_end(&turns, ret);
		ASSERT_LE(0, failed);
		if (!ret) {
			/* the kernel did without: events up to detach */
			ASSERT_TRUE(is_rung(self->fd, variant->flags));
			ASSERT_EQ(0, db_detach(self->fd));
			ASSERT_EQ(0, read_rings(self->fd, &rings));
			ASSERT_EQ(0, db_snapshot(self->fd, &before));
			continue;
		}
		ASSERT_LT(0, failed);
		ASSERT_EQ(turns_error(&turns), ret);
		ASSERT_EQ(0, db_snapshot(self->fd, &after));
		ASSERT_TRUE(db_same(&before, &after));
		ASSERT_TRUE(exits_go_on(vmm));
	} while (turns_go_on(&turns));
	ASSERT_EQ(0, attach_variant(self->fd, vmm->vm_fd, variant));
	ASSERT_TRUE(is_rung(self->fd, variant->flags));
	ASSERT_EQ(refs, db_module_refs());
	ASSERT_EQ(0, db_detach(self->fd));
	ASSERT_TRUE(exits_go_on(vmm));
	ASSERT_EQ(0, stop_vcpu(vmm));
	ASSERT_EQ(0, read_rings(self->fd, &rings));
	ASSERT_EQ(guest_total(vmm->shared), rings + vmm_exits(vmm));
	turns_check(_metadata, &turns);
}

/* Other calls without memory */

FIXTURE(calls) {
	struct vmm *vmm;
	int fd;
	int efd[2];
	unsigned int queues;
	__u64 base;	/* where the region is */
	int bound;	/* to what its queues are bound, or -1 */
};

static int bind_to(FIXTURE_DATA(calls) *self, int efd)
{
	static int fds[MANY_QUEUES];
	unsigned int i, count = self->queues - FIRST_BOUND;
	int ret;

	for (i = 0; i < count; i++)
		fds[i] = efd;
	ret = db_bind(self->fd, FIRST_BOUND, count, fds);
	if (!ret)
		self->bound = efd;
	return ret;
}

static int call_bind(FIXTURE_DATA(calls) *self)
{
	return bind_to(self, self->efd[1]);
}

static int call_move(FIXTURE_DATA(calls) *self)
{
	int ret = db_move(self->fd, self->vmm->vm_fd, NEW_BASE);

	if (!ret)
		self->base = NEW_BASE;
	return ret;
}

static int call_open(FIXTURE_DATA(calls) *self)
{
	int fd = db_open(0);

	return fd < 0 ? fd : close(fd);
}

/* The last try has left nothing in the area if this one does not get EEXIST. */
static int call_mmap(FIXTURE_DATA(calls) *self)
{
	size_t size = info_of(self->fd).control_size;
	void *mem = mmap(FAR_AREA, size, PROT_READ,
			 MAP_SHARED | MAP_FIXED_NOREPLACE, self->fd, 0);

	return mem == MAP_FAILED ? -errno : munmap(mem, size);
}

static int call_async(FIXTURE_DATA(calls) *self)
{
	int ret = db_result(fcntl(self->fd, F_SETFL, O_NONBLOCK | O_ASYNC));

	return ret ?: fcntl(self->fd, F_SETFL, O_NONBLOCK);
}

static int call_info(FIXTURE_DATA(calls) *self)
{
	struct doorbell_info info;

	return db_info(self->fd, &info);
}

static int call_bindings(FIXTURE_DATA(calls) *self)
{
	struct doorbell_queue_binding bindings[REGION_QUEUES];

	return db_bindings(self->fd, 0, REGION_QUEUES, bindings);
}

static int call_read(FIXTURE_DATA(calls) *self)
{
	struct doorbell_event event;
	int ret = db_read(self->fd, &event, 1);

	return ret == 1 ? 0 : ret;
}

static int call_write(FIXTURE_DATA(calls) *self)
{
	return db_ring(self->fd, self->base, 5);
}

FIXTURE_VARIANT(calls) {
	int (*call)(FIXTURE_DATA(calls) *self);
	struct faults faults;
	__u32 flags;
	unsigned int queues;	/* 0: REGION_QUEUES */
	unsigned int others;	/* other devices on the bus */
	bool bind;		/* queues are bound already */
	bool pending;		/* there is an event */
};

FIXTURE_VARIANT_ADD(calls, bind_first) {
	.call = call_bind,
	.faults = { SLAB, .times = 1, .least = 2 },
};

FIXTURE_VARIANT_ADD(calls, bind_again) {
	.call = call_bind, .bind = true,
	.faults = { SLAB, .times = 1, .least = 1 },
};

FIXTURE_VARIANT_ADD(calls, bind_pages) {
	.call = call_bind, .queues = MANY_QUEUES,
	.faults = { PAGES, .times = ALWAYS, .least = 2 },
};

FIXTURE_VARIANT_ADD(calls, bind_again_pages) {
	.call = call_bind, .bind = true, .queues = MANY_QUEUES,
	.faults = { PAGES, .times = ALWAYS, .least = 1 },
};

FIXTURE_VARIANT_ADD(calls, move) {
	.call = call_move, .bind = true,
	.faults = { SLAB, .times = 1, .least = 3 },
};

FIXTURE_VARIANT_ADD(calls, move_no_value) {
	.call = call_move, .bind = true, .flags = DOORBELL_ATTACH_NO_VALUE,
	.faults = { SLAB, .times = 1, .least = 4 },
};

/* A bus of more than two pages is no slab. */
FIXTURE_VARIANT_ADD(calls, move_pages) {
	.call = call_move, .bind = true, .others = 400,
	.faults = { PAGES, .times = ALWAYS, .least = 1 },
};

FIXTURE_VARIANT_ADD(calls, open) {
	.call = call_open,
	.faults = { SLAB, .times = 1, .least = 2 },
};

FIXTURE_VARIANT_ADD(calls, mmap) {
	.call = call_mmap, .queues = MANY_QUEUES,
	.faults = { PAGES, .times = ALWAYS, .least = 4 },
};

FIXTURE_VARIANT_ADD(calls, async) {
	.call = call_async,
	.faults = { SLAB, .times = 1, .least = 1 },
};

FIXTURE_VARIANT_ADD(calls, bind_copies) {
	.call = call_bind, .bind = true,
	.faults = { COPIES, .times = 1, .least = 1 },
};

FIXTURE_VARIANT_ADD(calls, move_copies) {
	.call = call_move, .bind = true,
	.faults = { COPIES, .times = 1, .least = 1 },
};

FIXTURE_VARIANT_ADD(calls, info_copies) {
	.call = call_info, .pending = true,
	.faults = { COPIES, .times = 1, .least = 1 },
};

FIXTURE_VARIANT_ADD(calls, bindings_copies) {
	.call = call_bindings, .bind = true,
	.faults = { COPIES, .times = 1, .least = 1 + REGION_QUEUES },
};

FIXTURE_VARIANT_ADD(calls, read_copies) {
	.call = call_read, .pending = true,
	.faults = { COPIES, .times = 1, .least = 1 },
};

FIXTURE_VARIANT_ADD(calls, write_copies) {
	.call = call_write, .pending = true,
	.faults = { COPIES, .times = 1, .least = 1 },
};

/* Attach a region, anew if there is one. */
static void attach_anew(struct __test_metadata *_metadata,
			FIXTURE_DATA(calls) *self,
			const FIXTURE_VARIANT(calls) *variant)
{
	db_detach(self->fd);
	self->base = MMIO_BASE;
	self->bound = -1;
	ASSERT_EQ(0, db_attach_as(self->fd, self->vmm->vm_fd, self->base,
				  self->queues * REGION_STRIDE, REGION_STRIDE,
				  variant->flags));
	if (variant->bind)
		ASSERT_EQ(0, bind_to(self, self->efd[0]));
}

FIXTURE_SETUP(calls)
{
	int i;

	ASSERT_EQ(NULL, fail_setup());
	self->queues = variant->queues ?: REGION_QUEUES;
	self->fd = db_must_open(_metadata, O_NONBLOCK);
	self->vmm = vmm_create(2);
	ASSERT_NE(NULL, self->vmm);
	for (i = 0; i < 2; i++) {
		self->efd[i] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
		ASSERT_LE(0, self->efd[i]);
	}
	for (i = 0; i < variant->others; i++)
		ASSERT_EQ(0, vmm_ioeventfd(self->vmm, OTHERS_BASE + 8 * i, 4,
					   self->efd[0], 0));
	attach_anew(_metadata, self, variant);
}

FIXTURE_TEARDOWN(calls)
{
	fail_end();
	close(self->fd);
	close(self->efd[0]);
	close(self->efd[1]);
	vmm_destroy(self->vmm);
}

/* The guest rings the region where it is, and the eventfd that is bound. */
static void check_region(struct __test_metadata *_metadata,
			 FIXTURE_DATA(calls) *self)
{
	struct vmm *vmm = self->vmm;
	eventfd_t count;
	int i;

	check_ring_at(_metadata, vmm, self->fd, self->base, 1, true);
	check_ring_at(_metadata, vmm, self->fd,
		      MMIO_BASE + NEW_BASE - self->base, 1, false);
	if (self->bound < 0)
		check_ring_at(_metadata, vmm, self->fd, self->base,
			      FIRST_BOUND, true);
	else
		ASSERT_EQ(0, vmm_op(vmm, 1, GUEST_MMIO_WRITE, 4, self->base +
				    FIRST_BOUND * REGION_STRIDE, 5));
	ASSERT_EQ(0, poll_now(self->fd) & POLLIN);
	for (i = 0; i < 2; i++) {
		bool bound = self->bound == self->efd[i];

		ASSERT_EQ(bound - 1, eventfd_read(self->efd[i], &count));
		if (bound)
			ASSERT_EQ(1, count);
	}
}

/* Each in turn is the first that fails: the call changes nothing. */
TEST_F_TIMEOUT(calls, each_failure, TEST_SECONDS)
{
	struct turns turns = { .faults = &variant->faults, .space = NO_END };
	static struct doorbell_queue_binding bindings[2][MANY_QUEUES];
	int ret, failed, refs = db_module_refs();
	struct db_snapshot before, after;
	struct doorbell_event event;

	do {
		if (variant->pending)
			ASSERT_EQ(0, db_ring(self->fd, self->base, 5));
		ASSERT_EQ(0, db_snapshot(self->fd, &before));
		ASSERT_EQ(0, db_bindings(self->fd, 0, self->queues,
					 bindings[0]));
		ASSERT_EQ(0, turn_begin(&turns));
		ret = variant->call(self);
		failed = turn_end(&turns, ret);
		ASSERT_LE(0, failed);
		if (ret) {
			ASSERT_LT(0, failed);
			ASSERT_EQ(turns_error(&turns), ret);
			ASSERT_EQ(0, db_snapshot(self->fd, &after));
			ASSERT_TRUE(db_same(&before, &after));
			ASSERT_EQ(0, db_bindings(self->fd, 0, self->queues,
						 bindings[1]));
			ASSERT_EQ(0, memcmp(bindings[0], bindings[1],
					    sizeof(bindings[0])));
		}
		ASSERT_EQ(refs, db_module_refs());
		if (variant->pending)
			read_now(self->fd, &event, 1);
		check_region(_metadata, self);
		/* the kernel did without, or nothing failed */
		if (!ret)
			attach_anew(_metadata, self, variant);
	} while (turns_go_on(&turns));
	turns_check(_metadata, &turns);
	vmm_destroy(self->vmm);
	self->vmm = NULL;
	ASSERT_TRUE(eventually(no_vm_left()));
}

/* Leave without memory */

FIXTURE(leave) {
	struct vmm *vmm;
	int fd;
	int other;
	int ko;
};

FIXTURE_VARIANT(leave) {
	bool by_close;
	__u32 flags;
};

FIXTURE_VARIANT_ADD(leave, detach) { .by_close = false, };
FIXTURE_VARIANT_ADD(leave, close) { .by_close = true, };
FIXTURE_VARIANT_ADD(leave, detach_no_value) {
	.flags = DOORBELL_ATTACH_NO_VALUE,
};

FIXTURE_VARIANT_ADD(leave, close_no_value) {
	.by_close = true, .flags = DOORBELL_ATTACH_NO_VALUE,
};

FIXTURE_SETUP(leave)
{
	ASSERT_EQ(NULL, fail_setup());
	self->ko = db_module_open();
	self->fd = db_must_open(_metadata, O_NONBLOCK);
	self->other = db_must_open(_metadata, O_NONBLOCK);
	self->vmm = vmm_create(2);
	ASSERT_NE(NULL, self->vmm);
}

FIXTURE_TEARDOWN(leave)
{
	fail_end();
	close(self->fd);
	close(self->other);
	close(self->ko);
	vmm_destroy(self->vmm);
}

/* The consumer leaves while no allocation of the module succeeds. */
static void leave_without_memory(struct __test_metadata *_metadata, int *fd,
				 bool by_close)
{
	ASSERT_EQ(0, fail_start(SLAB, 0, ALWAYS));
	if (by_close) {
		ASSERT_EQ(0, close(*fd));
		*fd = -1;
	} else {
		ASSERT_EQ(0, db_detach(*fd));
	}
	/* a smaller bus is what there is no memory for */
	ASSERT_TRUE(eventually(knob(SLAB, "times") < ALWAYS));
}

/* A device of KVM in the region's place gets the guest's write. */
static void check_ioeventfd(struct __test_metadata *_metadata, struct vmm *vmm)
{
	int efd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	__u64 exits = vmm_exits(vmm), addr = MMIO_BASE + REGION_STRIDE, count;

	ASSERT_LE(0, efd);
	ASSERT_EQ(0, vmm_ioeventfd(vmm, addr, 4, efd, 0));
	ASSERT_EQ(0, vmm_op(vmm, 1, GUEST_MMIO_WRITE, 4, addr, 7));
	ASSERT_EQ(exits, vmm_exits(vmm));
	ASSERT_EQ(sizeof(count), read(efd, &count, sizeof(count)));
	ASSERT_EQ(1, count);
	ASSERT_EQ(0, vmm_ioeventfd(vmm, addr, 4, efd,
				   KVM_IOEVENTFD_FLAG_DEASSIGN));
	close(efd);
}

/*
 * What is left on the bus declines writes and blocks no device of KVM. With
 * memory again it makes way for a region in the same place or across its edge.
 */
TEST_F_TIMEOUT(leave, place_is_free, TEST_SECONDS)
{
	struct vmm *vmm = self->vmm;
	struct doorbell_event event;
	int round;

	for (round = 0; round < 4; round++) {
		__u64 base = MMIO_BASE - (round % 2 ? REGION_LEN / 2 : 0);

		ASSERT_EQ(0, attach_region(self->fd, vmm->vm_fd,
					   variant->flags));
		check_ring(_metadata, vmm, self->fd, true);
		leave_without_memory(_metadata, &self->fd, variant->by_close);
		if (!variant->by_close)
			ASSERT_EQ(0, poll_now(self->fd));
		check_ring(_metadata, vmm, self->other, false);
		check_ioeventfd(_metadata, vmm);
		ASSERT_EQ(-ENOMEM, attach_region(self->other, vmm->vm_fd,
						 variant->flags));

		ASSERT_LT(0, fail_stop(SLAB, ALWAYS));
		/* at once, or after all is quiet */
		if (round / 2)
			usleep(200000);
		ASSERT_EQ(0, db_attach_as(self->other, vmm->vm_fd, base,
					  REGION_LEN, REGION_STRIDE,
					  variant->flags));
		ASSERT_EQ(0, vmm_op(vmm, 1, GUEST_MMIO_WRITE, 4, MMIO_BASE, 6));
		ASSERT_EQ(1, read_now(self->other, &event, 1));
		ASSERT_EQ((MMIO_BASE - base) / REGION_STRIDE, event.queue);
		ASSERT_EQ(0, db_detach(self->other));
		check_ring(_metadata, vmm, self->other, false);
		if (variant->by_close)
			self->fd = db_must_open(_metadata, O_NONBLOCK);
	}
}

/* The guest rings all the time: no write is swallowed. */
TEST_F_TIMEOUT(leave, while_ringing, TEST_SECONDS)
{
	struct vmm *vmm = self->vmm;
	__u64 rings = 0;
	int round;

	ASSERT_EQ(0, start_vcpu(vmm, MMIO_BASE, REGION_LEN));
	for (round = 0; round < 10; round++) {
		ASSERT_EQ(0, attach_region(self->fd, vmm->vm_fd,
					   variant->flags));
		ASSERT_EQ(POLLIN, POLLIN & poll_for(self->fd, POLLIN));
		/* close() would drop the events that are not read */
		leave_without_memory(_metadata, &self->fd, false);
		ASSERT_EQ(0, read_rings(self->fd, &rings));
		ASSERT_TRUE(exits_go_on(vmm));
		ASSERT_EQ(0, poll_now(self->fd));
		ASSERT_LT(0, fail_stop(SLAB, ALWAYS));
	}
	ASSERT_EQ(0, stop_vcpu(vmm));
	ASSERT_EQ(guest_total(vmm->shared), rings + vmm_exits(vmm));
}

static bool unload_runs(void)
{
	char state[16] = "";

	return db_read_file("/sys/module/doorbell/initstate", state,
			    sizeof(state)) > 0 && !strncmp(state, "going", 5);
}

/*
 * The consumer is gone, but its device still on the bus. Unloading waits a
 * moment for memory.
 */
TEST_F_TIMEOUT(leave, then_unload, TEST_SECONDS)
{
	__u64 exits = vmm_exits(self->vmm);
	int status = -1;
	pid_t pid;

	if (self->ko < 0)
		SKIP(return, "no module to load");
	ASSERT_EQ(0, attach_region(self->fd, self->vmm->vm_fd, variant->flags));
	leave_without_memory(_metadata, &self->fd, variant->by_close);
	close(self->fd);
	close(self->other);
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid)
		_exit(-db_module_unload());
	ASSERT_TRUE(eventually(unload_runs() ||
			       waitpid(pid, &status, WNOHANG) == pid));
	if (status < 0) {
		usleep(300000);
		ASSERT_EQ(0, waitpid(pid, NULL, WNOHANG));
		ASSERT_EQ(0, vmm_op(self->vmm, 1, GUEST_MMIO_WRITE, 4,
				    MMIO_BASE, 1));
		ASSERT_EQ(++exits, vmm_exits(self->vmm));
		ASSERT_LT(0, fail_stop(SLAB, ALWAYS));
		ASSERT_EQ(0, db_wait_status(pid));
	} else {
		/* the machine is so slow that the removal took long */
		ASSERT_EQ(EWOULDBLOCK, WEXITSTATUS(status));
		ASSERT_LT(0, fail_stop(SLAB, ALWAYS));
		ASSERT_TRUE(eventually(!db_module_unload()));
	}
	ASSERT_EQ(0, vmm_op(self->vmm, 1, GUEST_MMIO_WRITE, 4, MMIO_BASE, 1));
	ASSERT_EQ(++exits, vmm_exits(self->vmm));
	ASSERT_EQ(0, db_module_load(self->ko));
	self->fd = db_must_open(_metadata, O_NONBLOCK);
	self->other = db_must_open(_metadata, O_NONBLOCK);
	ASSERT_EQ(0, attach_region(self->fd, self->vmm->vm_fd, variant->flags));
	check_ring(_metadata, self->vmm, self->fd, true);
}

/* Where the device stays for long, it refuses to be unloaded until it goes. */
TEST_F_TIMEOUT(leave, then_stay, TEST_SECONDS)
{
	if (self->ko < 0)
		SKIP(return, "no module to load");
	ASSERT_EQ(0, attach_region(self->fd, self->vmm->vm_fd, variant->flags));
	leave_without_memory(_metadata, &self->fd, variant->by_close);
	close(self->fd);
	close(self->other);
	ASSERT_TRUE(eventually(db_module_refs() == 1));
	ASSERT_EQ(-EWOULDBLOCK, db_module_unload());
	check_ring(_metadata, self->vmm, -1, false);

	ASSERT_LT(0, fail_stop(SLAB, ALWAYS));
	ASSERT_TRUE(eventually(!db_module_refs()));
	ASSERT_EQ(0, db_module_unload());
	ASSERT_EQ(0, db_module_load(self->ko));
	self->fd = db_must_open(_metadata, O_NONBLOCK);
	self->other = db_must_open(_metadata, O_NONBLOCK);
}

/* The consumer leaves, and the VM ends at once or a moment later. */
TEST_F_TIMEOUT(leave, then_vm_ends, TEST_SECONDS)
{
	int round;

	for (round = 0; round < ROUNDS_END; round++) {
		if (self->fd < 0)
			self->fd = db_must_open(_metadata, O_NONBLOCK);
		ASSERT_EQ(0, attach_region(self->fd, self->vmm->vm_fd,
					   variant->flags));
		check_ring(_metadata, self->vmm, self->fd, true);
		/* vCPUs first: the VM's descriptor is then the last */
		vmm_close_vcpu(self->vmm, 0);
		vmm_close_vcpu(self->vmm, 1);
		if (round % 2) {
			leave_without_memory(_metadata, &self->fd,
					     variant->by_close);
			vmm_close_vm(self->vmm);
		} else {
			ASSERT_EQ(0, fail_start(SLAB, 0, ALWAYS));
			if (variant->by_close) {
				close(self->fd);
				self->fd = -1;
			} else {
				ASSERT_EQ(0, db_detach(self->fd));
			}
			vmm_close_vm(self->vmm);
		}
		ASSERT_TRUE(eventually(no_vm_left()));
		ASSERT_LE(0, fail_stop(SLAB, ALWAYS));
		vmm_destroy(self->vmm);
		self->vmm = vmm_create(2);
		ASSERT_NE(NULL, self->vmm);
	}
}

/* The VM ends, and the consumer leaves after that. */
TEST_F_TIMEOUT(leave, after_vm_ends, TEST_SECONDS)
{
	struct doorbell_event event;

	ASSERT_EQ(0, attach_region(self->fd, self->vmm->vm_fd, variant->flags));
	ASSERT_EQ(0, vmm_op(self->vmm, 1, GUEST_MMIO_WRITE, 4, MMIO_BASE, 1));
	ASSERT_EQ(0, fail_start(SLAB, 0, ALWAYS));
	vmm_destroy(self->vmm);
	self->vmm = NULL;
	ASSERT_EQ(POLLHUP, POLLHUP & poll_for(self->fd, 0));
	ASSERT_EQ(DOORBELL_HANGUP, info_of(self->fd).state);
	ASSERT_TRUE(eventually(no_vm_left()));
	ASSERT_EQ(1, db_read(self->fd, &event, 1));
	ASSERT_EQ(0, db_read(self->fd, &event, 1));
	if (variant->by_close) {
		ASSERT_EQ(0, close(self->fd));
		self->fd = -1;
	} else {
		ASSERT_EQ(0, db_detach(self->fd));
		ASSERT_EQ(0, poll_now(self->fd));
		close(self->fd);
	}
	close(self->other);
	if (self->ko >= 0) {
		ASSERT_EQ(0, db_module_unload());
		ASSERT_LE(0, fail_stop(SLAB, ALWAYS));
		ASSERT_EQ(0, db_module_load(self->ko));
	}
}

/* KVM itself gives up a bus */

FIXTURE(given_up) {
	struct vmm *vmm;
	int fd;
	int other;
	int efd;
	int nth;
	__u64 rings;
	__u64 rung;	/* by VMs before @vmm: the guest, the VMM, */
	__u64 exits;
};

FIXTURE_VARIANT(given_up) {
	__u64 base;
	__u64 len;
	__u32 stride;
	__u32 flags;
	bool fast;	/* the bus without values, not the MMIO bus */
};

FIXTURE_VARIANT_ADD(given_up, plain) {
	.base = MMIO_BASE, .len = REGION_LEN, .stride = REGION_STRIDE,
};

FIXTURE_VARIANT_ADD(given_up, large) {
	.base = LARGE_BASE, .len = LARGE_LEN, .stride = LARGE_STRIDE,
};

FIXTURE_VARIANT_ADD(given_up, no_value_mmio) {
	.base = MMIO_BASE, .len = REGION_LEN, .stride = REGION_STRIDE,
	.flags = DOORBELL_ATTACH_NO_VALUE,
};

FIXTURE_VARIANT_ADD(given_up, no_value_fast) {
	.base = MMIO_BASE, .len = REGION_LEN, .stride = REGION_STRIDE,
	.flags = DOORBELL_ATTACH_NO_VALUE, .fast = true,
};

FIXTURE_SETUP(given_up)
{
	/* KVM's allocations fail here, not the module's */
	fail_end();
	self->nth = open("/proc/thread-self/fail-nth", O_RDWR | O_CLOEXEC);
	ASSERT_LE(0, self->nth);
	self->efd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	ASSERT_LE(0, self->efd);
	self->fd = db_must_open(_metadata, O_NONBLOCK);
	self->other = db_must_open(_metadata, O_NONBLOCK);
}

FIXTURE_TEARDOWN(given_up)
{
	close(self->fd);
	close(self->other);
	close(self->efd);
	close(self->nth);
	vmm_destroy(self->vmm);
}

/* Make the @n-th call that can fail in this thread fail. */
static int fail_nth(int nth, unsigned int n)
{
	char text[16];
	int len = snprintf(text, sizeof(text), "%u", n);

	return pwrite(nth, text, len, 0) == len ? 0 : -errno;
}

/*
 * Remove an ioeventfd while the @n-th allocation of this thread fails. KVM
 * then gives up the whole bus.
 */
static void remove_ioeventfd(struct __test_metadata *_metadata,
			     struct vmm *vmm, int efd, int nth, unsigned int n)
{
	struct kvm_ioeventfd e = {
		.addr = MMIO_BASE - 0x1000, .fd = efd,
		.flags = KVM_IOEVENTFD_FLAG_DEASSIGN,
	};

	/* of no length: it is on both buses */
	ASSERT_EQ(0, vmm_ioeventfd(vmm, e.addr, 0, efd, 0));
	ASSERT_EQ(0, fail_nth(nth, n));
	ioctl(vmm->vm_fd, KVM_IOEVENTFD, &e);
	/* the write that ends the injection may be what fails */
	if (fail_nth(nth, 0))
		ASSERT_EQ(0, fail_nth(nth, 0));
}

/* Is a bus gone? With @fast the bus without values, and only that. */
static bool bus_is_gone(int fd, int vm_fd, bool fast)
{
	int mmio = db_attach(fd, vm_fd, MMIO_BASE + 0x10000, 8), both;

	if (!mmio)
		db_detach(fd);
	both = db_attach_as(fd, vm_fd, MMIO_BASE + 0x10000, 8, 4,
			    DOORBELL_ATTACH_NO_VALUE);
	if (!both)
		db_detach(fd);
	return fast ? !mmio && both == -ENOMEM : mmio == -ENOMEM;
}

/* The consumer learns that its bus is gone, and nothing is lost. */
TEST_F_TIMEOUT(given_up, while_ringing, TEST_SECONDS)
{
	struct db_snapshot before, after;
	struct vmm *vmm = NULL;
	unsigned int try;

	/* which allocation it is varies: debugging may allocate, too */
	for (try = 0; try < MAX_TRIES; try++) {
		close(self->fd);
		vmm_destroy(self->vmm);
		self->fd = db_must_open(_metadata, O_NONBLOCK);
		self->rings = 0;
		vmm = vmm_create(2);
		self->vmm = vmm;
		ASSERT_NE(NULL, vmm);
		ASSERT_EQ(0, db_attach_as(self->fd, vmm->vm_fd, variant->base,
					  variant->len, variant->stride,
					  variant->flags));
		ASSERT_EQ(0, start_vcpu(vmm, variant->base, variant->len));
		ASSERT_EQ(POLLIN, POLLIN & poll_for(self->fd, POLLIN));
		remove_ioeventfd(_metadata, vmm, self->efd, self->nth,
				 1 + try % MAX_NTH);
		if (bus_is_gone(self->other, vmm->vm_fd, variant->fast))
			break;
		ASSERT_EQ(0, stop_vcpu(vmm));
	}
	ASSERT_GT(MAX_TRIES, try);

	ASSERT_EQ(POLLHUP, POLLHUP & poll_for(self->fd, 0));
	ASSERT_EQ(DOORBELL_HANGUP, info_of(self->fd).state);
	ASSERT_EQ(1, read_rings(self->fd, &self->rings));
	ASSERT_EQ(POLLHUP, poll_now(self->fd));
	ASSERT_EQ(-EPIPE, db_ring(self->fd, variant->base, 1));
	ASSERT_TRUE(exits_go_on(vmm));
	ASSERT_EQ(1, read_rings(self->fd, &self->rings));
	ASSERT_EQ(0, stop_vcpu(vmm));
	ASSERT_EQ(guest_total(vmm->shared), self->rings + vmm_exits(vmm));

	ASSERT_EQ(0, db_detach(self->fd));
	ASSERT_EQ(0, db_snapshot(self->fd, &before));
	ASSERT_EQ(-ENOMEM, db_attach_as(self->fd, vmm->vm_fd, variant->base,
					variant->len, variant->stride,
					variant->flags));
	ASSERT_EQ(0, db_snapshot(self->fd, &after));
	ASSERT_TRUE(db_same(&before, &after));

	/* another bus works, and the VM ends like any other */
	ASSERT_EQ(0, attach_region(self->fd, vmm->vm_fd, PIO));
	if (vmm_has_ports) {
		ASSERT_EQ(0, vmm_op(vmm, 1, GUEST_PIO_OUT, 4, PIO_BASE + 8, 3));
		check_event(_metadata, self->fd, 1, 3);
	}
	vmm_destroy(vmm);
	self->vmm = NULL;
	ASSERT_EQ(POLLHUP, POLLHUP & poll_for(self->fd, 0));
	ASSERT_TRUE(eventually(no_vm_left()));
}

/* A consumer that has left already, or leaves at the same time */
TEST_F_TIMEOUT(given_up, while_leaving, TEST_SECONDS)
{
	unsigned int n, round, hits = 0;
	bool gone;

	for (round = 0; round < 3; round++)
		for (n = 1, gone = false; n <= MAX_NTH && !gone; n++) {
			struct vmm *vmm = vmm_create(2);

			self->vmm = vmm;
			ASSERT_NE(NULL, vmm);
			ASSERT_EQ(0, db_attach_as(self->fd, vmm->vm_fd,
						  variant->base, variant->len,
						  variant->stride,
						  variant->flags));
			ASSERT_EQ(0, start_vcpu(vmm, variant->base,
						variant->len));
			ASSERT_EQ(POLLIN,
				  POLLIN & poll_for(self->fd, POLLIN));
			if (round == 0)
				close(self->fd);
			remove_ioeventfd(_metadata, vmm, self->efd, self->nth,
					 n);
			if (round == 1)
				close(self->fd);
			if (round == 2)
				ASSERT_EQ(0, db_detach(self->fd));
			ASSERT_TRUE(exits_go_on(vmm));
			ASSERT_EQ(0, stop_vcpu(vmm));
			gone = bus_is_gone(self->other, vmm->vm_fd,
					   variant->fast);
			hits += gone;
			vmm_destroy(vmm);
			self->vmm = NULL;
			ASSERT_TRUE(eventually(no_vm_left()));
			if (round < 2)
				self->fd = db_must_open(_metadata, O_NONBLOCK);
		}
	/* whichever allocation it is, one of the tries made it fail */
	ASSERT_LT(0, hits);
}

int main(int argc, char **argv)
{
	const char *why = fail_setup();

	if (why) {
		ksft_print_header();
		ksft_set_plan(1);
		ksft_test_result_skip("%s\n", why);
		ksft_finished();
	}
	return test_harness_run(argc, argv);
}
