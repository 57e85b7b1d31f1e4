// SPDX-License-Identifier: GPL-2.0
/*
 * Refusals: calls that fail in every state of a consumer and change nothing.
 *
 * Each error of read(), write() and ioctl() that needs no guest has its test
 * here, but those that need more than such a consumer: ENOTEMPTY and ENXIO. The
 * 32-bit build runs the same tests.
 */
#include <limits.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/uio.h>

#include "util.h"

static struct doorbell_ring rings[DOORBELL_QUEUES_MAX + 1];

FIXTURE(refusal)
{
	int fd;
	struct db_snapshot before;
};

FIXTURE_VARIANT(refusal)
{
	bool rung;
	bool attached;
};

FIXTURE_VARIANT_ADD(refusal, never_attached)
{
};

FIXTURE_VARIANT_ADD(refusal, attached)
{
	.rung = true,
	.attached = true,
};

FIXTURE_VARIANT_ADD(refusal, detached)
{
	.rung = true,
};

FIXTURE_SETUP(refusal)
{
	self->fd = db_must_open(_metadata, O_NONBLOCK);
	if (variant->rung) {
		ASSERT_EQ(0, db_attach(self->fd, -1, 0x100, 0x10));
		ASSERT_EQ(0, db_ring(self->fd, 0x108, 1));
		ASSERT_EQ(0, db_ring(self->fd, 0x108, 2));
		ASSERT_EQ(0, db_ring(self->fd, 0x200, 3));
		ASSERT_EQ(0, db_ring(self->fd, 0x100, 4));
	}
	if (variant->rung && !variant->attached)
		ASSERT_EQ(0, db_detach(self->fd));
	ASSERT_EQ(0, db_snapshot(self->fd, &self->before));
}

FIXTURE_TEARDOWN(refusal)
{
	close(self->fd);
}

/* The call returned -@error, and the consumer shows no change. */
static void refused(struct __test_metadata *_metadata,
		    FIXTURE_DATA(refusal) *self, int error, int ret,
		    const char *call, int line)
{
	struct db_snapshot now;

	EXPECT_EQ(-error, ret) {
		TH_LOG("line %d: %s", line, call);
	}
	ASSERT_EQ(0, db_snapshot(self->fd, &now));
	EXPECT_TRUE(db_same(&self->before, &now)) {
		TH_LOG("line %d: %s changed something", line, call);
	}
}

#define REFUSED(error, call)						\
	refused(_metadata, self, error, db_result(call), #call, __LINE__)

/* An attached consumer may check for EBUSY before it looks at the arguments. */
static void attach_refused(struct __test_metadata *_metadata,
			   FIXTURE_DATA(refusal) *self, bool attached,
			   int error, const void *arg, int line)
{
	int ret = db_result(ioctl(self->fd, DOORBELL_ATTACH, arg));

	if (attached && ret == -EBUSY)
		ret = -error;
	refused(_metadata, self, error, ret, "DOORBELL_ATTACH", line);
}

#define ATTACH_REFUSED(error, arg)					\
	attach_refused(_metadata, self, variant->attached, error, arg,	\
		       __LINE__)

/* The consumer works as if there had been no refusal. */
static void still_works(struct __test_metadata *_metadata,
			const FIXTURE_DATA(refusal) *self,
			const FIXTURE_VARIANT(refusal) *variant)
{
	struct doorbell_event events[9];

	if (variant->rung) {
		ASSERT_EQ(3, db_read(self->fd, events, 9));
		EXPECT_TRUE(db_event_is(&events[0], 2, 2, 2));
		EXPECT_TRUE(db_event_is_bad(&events[1], 1, 0x200));
		EXPECT_TRUE(db_event_is(&events[2], 0, 1, 4));
	}
	EXPECT_TRUE(db_is_empty(self->fd));
	if (!variant->attached)
		ASSERT_EQ(0, db_attach(self->fd, -1, 0x100, 0x10));
	ASSERT_EQ(0, db_ring(self->fd, 0x104, 5));
	ASSERT_EQ(1, db_read(self->fd, events, 9));
	EXPECT_TRUE(db_event_is(events, 1, 1, 5));
}

/* EBUSY: a consumer has one region at a time. */
TEST_F(refusal, attach_busy)
{
	struct doorbell_attach arg = db_attach_arg(-1, 0x100, 0x10);
	int i;

	if (!variant->attached) {
		/* the first attach succeeds; the next ones are refused */
		ASSERT_EQ(0, ioctl(self->fd, DOORBELL_ATTACH, &arg));
		ASSERT_EQ(0, db_snapshot(self->fd, &self->before));
	}
	for (i = 0; i < 100; i++)
		REFUSED(EBUSY, ioctl(self->fd, DOORBELL_ATTACH, &arg));
	arg.base = 0x10000;
	REFUSED(EBUSY, ioctl(self->fd, DOORBELL_ATTACH, &arg));
	if (!variant->attached) {
		EXPECT_TRUE(db_is_empty(self->fd));
		ASSERT_EQ(0, db_detach(self->fd));
	} else {
		still_works(_metadata, self, variant);
	}
}

/* EFAULT: the structure, its size or its end cannot be read. */
TEST_F(refusal, attach_fault)
{
	struct doorbell_attach *arg, whole;

	REFUSED(EFAULT, ioctl(self->fd, DOORBELL_ATTACH, NULL));
	REFUSED(EFAULT, ioctl(self->fd, DOORBELL_ATTACH, (void *)-4096L));
	REFUSED(EFAULT,
		ioctl(self->fd, DOORBELL_ATTACH, db_edge(0, PROT_READ)));
	whole = db_attach_arg(-1, 0, 4);
	/* not aligned */
	arg = db_edge(39, PROT_READ | PROT_WRITE);
	memcpy(arg, &whole, 39);
	ATTACH_REFUSED(EFAULT, arg);
	/* the end that this kernel does not know */
	arg = db_edge(64, PROT_READ | PROT_WRITE);
	*arg = db_attach_arg(-1, 0, 4);
	arg->size = 65;
	ATTACH_REFUSED(EFAULT, arg);
	still_works(_metadata, self, variant);
}

/* E2BIG: larger than a page, or not zero beyond the known fields */
TEST_F(refusal, attach_too_big)
{
	static char buf[8192];
	struct doorbell_attach *arg = (void *)buf;
	unsigned int i;

	*arg = db_attach_arg(-1, 0, 4);
	arg->size = 4097;
	ATTACH_REFUSED(E2BIG, arg);
	arg->size = UINT_MAX;
	ATTACH_REFUSED(E2BIG, arg);
	for (i = sizeof(*arg); i < 128; i++) {
		buf[i] = 1;
		arg->size = i + 1;
		ATTACH_REFUSED(E2BIG, arg);
		arg->size = 4096;
		ATTACH_REFUSED(E2BIG, arg);
		buf[i] = 0;
	}
	buf[4095] = 0x80;
	ATTACH_REFUSED(E2BIG, arg);
	still_works(_metadata, self, variant);
}

/* EINVAL: too small, unknown flags, fields that do not go with the flags */
TEST_F(refusal, attach_invalid_member)
{
	struct doorbell_attach arg;
	uint32_t i;

	for (i = 0; i < sizeof(arg); i++) {
		arg = db_attach_arg(-1, 0, 4);
		arg.size = i;
		ATTACH_REFUSED(EINVAL, &arg);
	}
	for (i = 0; i < 32; i++) {
		arg = db_attach_arg(-1, 0, 4);
		arg.flags = 1U << i;
		/* these are valid alone */
		if (arg.flags != DOORBELL_ATTACH_PIO &&
		    arg.flags != DOORBELL_ATTACH_NO_VALUE &&
		    arg.flags != DOORBELL_ATTACH_BOUND_ONLY &&
		    arg.flags != DOORBELL_ATTACH_DROP)
			ATTACH_REFUSED(EINVAL, &arg);
		arg = db_attach_arg(-1, 0, 4);
		arg.depth = 1U << i;
		ATTACH_REFUSED(EINVAL, &arg);
		arg = db_attach_arg(-1, 0, 4);
		arg.queues = 1U << i;
		ATTACH_REFUSED(EINVAL, &arg);
	}
	still_works(_metadata, self, variant);
}

/* EINVAL: base, len or stride against the rules, without wrap-around */
TEST_F(refusal, attach_geometry)
{
	static const struct {
		uint64_t base, len;
		uint32_t stride, flags;
	} bad[] = {
		{ 0, 0, 4, 0 },
		{ 0, 0, 0, 0 },
		/* unaligned */
		{ 1, 4, 0, 0 },
		{ 2, 4, 4, 0 },
		{ 4, 8, 8, 0 },
		{ 0, 1, 0, 0 },
		{ 0, 6, 4, 0 },
		{ 0, 3, 2, 0 },
		{ 0, 65536 + 4, 65536, 0 },
		/* invalid stride */
		{ 0, 4, 1, 0 },
		{ 0, 12, 3, 0 },
		{ 0, 12, 6, 0 },
		{ 0, 131072, 131072, 0 },
		{ 0, 1ULL << 31, 1U << 31, 0 },
		{ 0, 4, UINT_MAX, 0 },
		/* too many queues, some look valid in 16 or 32 bits */
		{ 0, 65536ULL * 2, 2, 0 },
		{ 0, 65536ULL * 4, 4, 0 },
		{ 0, 65537ULL * 4, 4, 0 },
		{ 0, 65536ULL * 65536, 65536, 0 },
		{ 0, (1ULL << 32) + 4, 4, 0 },
		{ 0, 1ULL << 34, 4, 0 },
		{ 0, (1ULL << 34) + 4, 4, 0 },
		{ 0, 1ULL << 63, 4, 0 },
		{ 0, UINT64_MAX - 3, 4, 0 },
		{ 0, (1ULL << 48) + 65536, 65536, 0 },
		/* base + len overflows */
		{ UINT64_MAX - 3, 4, 4, 0 },
		{ UINT64_MAX - 3, 8, 4, 0 },
		{ UINT64_MAX - 7, 8, 4, 0 },
		{ UINT64_MAX - 0xffff, 0x20000, 0x10000, 0 },
		/* I/O ports end at 64 KiB */
		{ 0, 65540, 4, DOORBELL_ATTACH_PIO },
		{ 4, 65536, 4, DOORBELL_ATTACH_PIO },
		{ 65532, 8, 4, DOORBELL_ATTACH_PIO },
		{ 65536, 4, 4, DOORBELL_ATTACH_PIO },
		{ 1ULL << 32, 4, 4, DOORBELL_ATTACH_PIO },
		{ UINT64_MAX - 7, 4, 4, DOORBELL_ATTACH_PIO },
	};
	struct doorbell_attach arg;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(bad); i++) {
		arg = db_attach_arg(-1, bad[i].base, bad[i].len);
		arg.stride = bad[i].stride;
		arg.flags = bad[i].flags;
		ATTACH_REFUSED(EINVAL, &arg);
	}
	still_works(_metadata, self, variant);
}

/* EBADF: vm_fd is neither -1 nor an open file. */
TEST_F(refusal, attach_bad_fd)
{
	struct doorbell_attach arg = db_attach_arg(-2, 0, 4);
	int closed = dup(self->fd), path = open("/", O_PATH);

	ASSERT_LE(0, closed);
	ASSERT_LE(0, path);
	close(closed);
	ATTACH_REFUSED(EBADF, &arg);
	arg.vm_fd = INT_MIN;
	ATTACH_REFUSED(EBADF, &arg);
	arg.vm_fd = INT_MAX;
	ATTACH_REFUSED(EBADF, &arg);
	arg.vm_fd = closed;
	ATTACH_REFUSED(EBADF, &arg);
	arg.vm_fd = path;
	ATTACH_REFUSED(EBADF, &arg);
	close(path);
	still_works(_metadata, self, variant);
}

/* EINVAL: vm_fd is a file, but no KVM VM, even if it is named like one. */
TEST_F(refusal, attach_not_a_vm)
{
	static const char fake[] = "/tmp/kvm-vm";
	struct doorbell_attach arg = db_attach_arg(-1, 0, 4);
	int fds[12], pair[2], i, n = 0;

	fds[n++] = self->fd;
	fds[n++] = open("/proc/self/exe", O_RDONLY);
	fds[n++] = open("/", O_RDONLY | O_DIRECTORY);
	fds[n++] = open("/dev/null", O_RDWR);
	fds[n++] = eventfd(0, 0);
	fds[n++] = epoll_create1(0);
	fds[n++] = memfd_create("kvm-vm", 0);
	fds[n++] = open(fake, O_RDWR | O_CREAT, 0600);
	unlink(fake);
	ASSERT_EQ(0, pipe(pair));
	fds[n++] = pair[0];
	ASSERT_EQ(0, socketpair(AF_UNIX, SOCK_STREAM, 0, pair));
	fds[n++] = pair[0];
	fds[n] = open("/dev/kvm", O_RDWR);
	if (fds[n] < 0)
		TH_LOG("no /dev/kvm, going on without it");
	else
		n++;
	for (i = 0; i < n; i++) {
		arg.vm_fd = fds[i];
		ASSERT_LE(0, arg.vm_fd);
		ATTACH_REFUSED(EINVAL, &arg);
	}
	still_works(_metadata, self, variant);
}

/* EINVAL: DOORBELL_DETACH takes no argument. ENOTCONN: not attached */
TEST_F(refusal, detach)
{
	unsigned int bit;

	for (bit = 0; bit < 8 * sizeof(long); bit++)
		REFUSED(EINVAL, ioctl(self->fd, DOORBELL_DETACH, 1UL << bit));
	if (!variant->attached) {
		REFUSED(ENOTCONN, ioctl(self->fd, DOORBELL_DETACH, 0));
		REFUSED(ENOTCONN, ioctl(self->fd, DOORBELL_DETACH, 0));
	}
	still_works(_metadata, self, variant);
}

/* EINVAL: DOORBELL_RECOVER takes no argument. What it would repeat stays. */
TEST_F(refusal, recover)
{
	unsigned int bit;

	for (bit = 0; bit < 8 * sizeof(long); bit++)
		REFUSED(EINVAL, ioctl(self->fd, DOORBELL_RECOVER, 1UL << bit));
	if (!variant->rung)
		REFUSED(ENOTCONN, ioctl(self->fd, DOORBELL_RECOVER, 0));
	still_works(_metadata, self, variant);
}

/* What holds for each structure that can grow: EFAULT, EINVAL, E2BIG */
static void growing_refused(struct __test_metadata *_metadata,
			    FIXTURE_DATA(refusal) *self, unsigned int command,
			    const void *arg, uint32_t size)
{
	static char buf[8192];
	uint32_t *usize = (uint32_t *)buf;
	char *edgy;

	memset(buf, 0, sizeof(buf));
	memcpy(buf, arg, size);
	REFUSED(EFAULT, ioctl(self->fd, command, NULL));
	REFUSED(EFAULT, ioctl(self->fd, command, (void *)-4096L));
	REFUSED(EFAULT, ioctl(self->fd, command, db_edge(0, PROT_READ)));
	edgy = db_edge(size - 1, PROT_READ | PROT_WRITE);
	memcpy(edgy, arg, size - 1);
	REFUSED(EFAULT, ioctl(self->fd, command, edgy));
	for (*usize = 0; *usize < size; ++*usize)
		REFUSED(EINVAL, ioctl(self->fd, command, buf));
	*usize = 4097;
	REFUSED(E2BIG, ioctl(self->fd, command, buf));
	*usize = UINT_MAX;
	REFUSED(E2BIG, ioctl(self->fd, command, buf));
	buf[size] = 1;
	*usize = size + 1;
	REFUSED(E2BIG, ioctl(self->fd, command, buf));
	*usize = 4096;
	REFUSED(E2BIG, ioctl(self->fd, command, buf));
}

/* ENOTCONN: not attached. EINVAL: the base or the VM. */
TEST_F(refusal, move)
{
	struct doorbell_move arg = {
		.size = sizeof(arg), .vm_fd = -1, .base = 0x1000,
	};

	growing_refused(_metadata, self, DOORBELL_MOVE, &arg, sizeof(arg));
	if (variant->attached) {
		REFUSED(EINVAL, db_move(self->fd, -1, 0x1001));
		REFUSED(EINVAL, db_move(self->fd, -1, 0x1002));
		REFUSED(EINVAL, db_move(self->fd, -1, -4));
		REFUSED(EINVAL, db_move(self->fd, -1, -0x10));
		REFUSED(EINVAL, db_move(self->fd, -2, 0x1000));
		REFUSED(EINVAL, db_move(self->fd, self->fd, 0x1000));
	} else {
		REFUSED(ENOTCONN, ioctl(self->fd, DOORBELL_MOVE, &arg));
	}
	still_works(_metadata, self, variant);
}

/* EINVAL: queues or flags. EFAULT, EBADF: descriptors. ENOTCONN */
TEST_F(refusal, bind)
{
	int fds[4] = { -1, -1, -1, -1 };
	struct doorbell_bind arg = {
		.size = sizeof(arg), .count = 4, .fds = (uintptr_t)fds,
	};
	unsigned int bit;

	growing_refused(_metadata, self, DOORBELL_BIND, &arg, sizeof(arg));
	for (bit = 0; bit < 32; bit++) {
		arg.flags = 1U << bit;
		REFUSED(EINVAL, ioctl(self->fd, DOORBELL_BIND, &arg));
	}
	if (variant->attached) {
		REFUSED(EINVAL, db_bind(self->fd, 0, 0, fds));
		REFUSED(EINVAL, db_bind(self->fd, 0, 5, fds));
		REFUSED(EINVAL, db_bind(self->fd, 4, 1, fds));
		REFUSED(EINVAL, db_bind(self->fd, 1, UINT_MAX, fds));
		REFUSED(EFAULT, db_bind(self->fd, 0, 4, NULL));
		REFUSED(EINVAL, db_bind_one(self->fd, 0, self->fd));
		REFUSED(EBADF, db_bind_one(self->fd, 0, -2));
		REFUSED(EBADF, db_bind_one(self->fd, 0, INT_MAX));
	} else {
		REFUSED(ENOTCONN, db_bind(self->fd, 0, 4, fds));
	}
	still_works(_metadata, self, variant);
}

/* EINVAL: queues or flags. EFAULT: not writable. ENOTCONN: never attached */
TEST_F(refusal, bindings)
{
	struct doorbell_queue_binding bindings[4];
	struct doorbell_bindings arg = {
		.size = sizeof(arg), .count = 4,
		.bindings = (uintptr_t)bindings,
	};
	unsigned int bit;

	growing_refused(_metadata, self, DOORBELL_BINDINGS, &arg, sizeof(arg));
	for (bit = 0; bit < 32; bit++) {
		arg.flags = 1U << bit;
		REFUSED(EINVAL, ioctl(self->fd, DOORBELL_BINDINGS, &arg));
	}
	if (variant->rung) {
		REFUSED(EINVAL, db_bindings(self->fd, 0, 0, bindings));
		REFUSED(EINVAL, db_bindings(self->fd, 0, 5, bindings));
		REFUSED(EINVAL, db_bindings(self->fd, 4, 1, bindings));
		REFUSED(EINVAL, db_bindings(self->fd, 1, UINT_MAX, bindings));
		REFUSED(EFAULT, db_bindings(self->fd, 0, 4, NULL));
		REFUSED(EFAULT, db_bindings(self->fd, 0, 4,
					    db_edge(63, PROT_READ |
							PROT_WRITE)));
	} else {
		REFUSED(ENOTCONN, db_bindings(self->fd, 0, 4, bindings));
	}
	still_works(_metadata, self, variant);
}

/* EFAULT: not readable, or not writable. EINVAL, E2BIG: size */
TEST_F(refusal, info)
{
	struct doorbell_info info = { };
	struct doorbell_info *edgy;
	unsigned int i, page = sysconf(_SC_PAGESIZE);

	for (i = 0; i < 8; i++) {
		info.size = i;
		REFUSED(EINVAL, ioctl(self->fd, DOORBELL_INFO, &info));
	}
	REFUSED(EFAULT, ioctl(self->fd, DOORBELL_INFO, NULL));
	REFUSED(EFAULT, ioctl(self->fd, DOORBELL_INFO, db_edge(0, PROT_READ)));
	for (i = 8; i < sizeof(info); i += 8) {
		edgy = db_edge(i, PROT_READ | PROT_WRITE);
		edgy->size = sizeof(info);
		REFUSED(EFAULT, ioctl(self->fd, DOORBELL_INFO, edgy));
	}
	/* the end that the kernel zeroes */
	edgy = db_edge(sizeof(info) + 8, PROT_READ | PROT_WRITE);
	edgy->size = sizeof(info) + 9;
	REFUSED(EFAULT, ioctl(self->fd, DOORBELL_INFO, edgy));
	edgy->size = page + 1;
	REFUSED(E2BIG, ioctl(self->fd, DOORBELL_INFO, edgy));
	edgy->size = UINT_MAX;
	REFUSED(E2BIG, ioctl(self->fd, DOORBELL_INFO, edgy));
	/* readable, but not writable */
	edgy = db_edge(page, PROT_READ | PROT_WRITE);
	edgy->size = sizeof(info);
	ASSERT_EQ(0, mprotect(edgy, page, PROT_READ));
	REFUSED(EFAULT, ioctl(self->fd, DOORBELL_INFO, edgy));
	still_works(_metadata, self, variant);
}

#define COMMANDS	7

/* ENOTTY: other commands, also known numbers with a size or a direction */
TEST_F(refusal, unknown_command)
{
	struct doorbell_attach arg = db_attach_arg(-1, 0, 4);
	unsigned int i;

	for (i = COMMANDS; i < 256; i++)
		REFUSED(ENOTTY, ioctl(self->fd, _IO(DOORBELL_IOC, i), &arg));
	for (i = 0; i < COMMANDS; i++) {
		REFUSED(ENOTTY, ioctl(self->fd, _IO(0xAE, i), &arg));
		REFUSED(ENOTTY, ioctl(self->fd, _IOW(DOORBELL_IOC, i,
						     struct doorbell_attach),
				      &arg));
		REFUSED(ENOTTY, ioctl(self->fd, _IOR(DOORBELL_IOC, i,
						     struct doorbell_info),
				      &arg));
	}
	still_works(_metadata, self, variant);
}

/* EINVAL: the buffer is too small for one event. */
TEST_F(refusal, read_too_small)
{
	char buf[16];
	struct iovec iov[2] = { { buf, 7 }, { buf + 7, 8 } };
	unsigned int i;

	for (i = 0; i < 16; i++)
		REFUSED(EINVAL, read(self->fd, buf, i));
	REFUSED(EINVAL, readv(self->fd, iov, 2));
	still_works(_metadata, self, variant);
}

/* EFAULT: the buffer is not writable; all events stay pending in order. */
TEST_F(refusal, read_fault)
{
	size_t page = sysconf(_SC_PAGESIZE);
	char *readonly = mmap(NULL, page, PROT_READ,
			      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	char small[8];
	struct iovec iov[2] = { { small, 8 }, { readonly, 64 } };
	int error = variant->rung ? EFAULT : EAGAIN;
	int i;

	ASSERT_TRUE(readonly != MAP_FAILED);
	REFUSED(error, read(self->fd, db_edge(0, PROT_READ), 16));
	REFUSED(error, read(self->fd, db_edge(0, PROT_READ), 4096));
	REFUSED(error, read(self->fd, readonly, 64));
	/* room for less than one event */
	for (i = 1; i < 16; i++)
		REFUSED(error,
			read(self->fd, db_edge(i, PROT_READ | PROT_WRITE), 48));
	REFUSED(error, readv(self->fd, iov, 2));
	still_works(_metadata, self, variant);
}

/* EINVAL: the length is 0 or no multiple of a ring. */
TEST_F(refusal, write_length)
{
	struct doorbell_ring two[2] = { { .addr = 0x100 }, { .addr = 0x104 } };
	unsigned int i;

	for (i = 0; i < sizeof(two); i++)
		if (i != 16)
			REFUSED(EINVAL, write(self->fd, two, i));
	still_works(_metadata, self, variant);
}

/* EFAULT: the first ring is not readable. ENOTCONN: not attached */
TEST_F(refusal, write)
{
	struct doorbell_ring ring = { .addr = 0x104 };
	int i;

	if (variant->attached) {
		REFUSED(EFAULT, write(self->fd, db_edge(0, PROT_READ), 16));
		REFUSED(EFAULT,
			write(self->fd, db_edge(0, PROT_READ), 1 << 20));
		for (i = 1; i < 16; i++)
			REFUSED(EFAULT,
				write(self->fd, db_edge(i, PROT_READ), 32));
	} else {
		REFUSED(ENOTCONN, write(self->fd, &ring, 16));
		REFUSED(ENOTCONN, write(self->fd, rings, sizeof(rings)));
	}
	still_works(_metadata, self, variant);
}

TEST_HARNESS_MAIN
