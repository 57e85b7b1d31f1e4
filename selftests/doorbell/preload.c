// SPDX-License-Identifier: GPL-2.0
/*
 * Preload: libdoorbell-ioeventfd.so in the place of KVM_IOEVENTFD.
 *
 * The oracle is KVM. Most tests make the same calls for two VMs, one of which
 * has the library in between, and the same accesses by both guests. Results,
 * errors, counts of eventfds, and exits have to be the same. Other tests show
 * that regions of /dev/doorbell served the calls.
 *
 * The library is beside the program. Tests load it by dlopen(); for what is
 * about processes, the program runs itself with LD_PRELOAD.
 */
#include <dlfcn.h>
#include <libgen.h>
#include <limits.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/time.h>

#include <linux/kcmp.h>

#include "vmutil.h"

#define ASSIGN_PIO	KVM_IOEVENTFD_FLAG_PIO
#define MATCH		KVM_IOEVENTFD_FLAG_DATAMATCH
#define DEASSIGN	KVM_IOEVENTFD_FLAG_DEASSIGN
#define CCW		KVM_IOEVENTFD_FLAG_VIRTIO_CCW_NOTIFY
/* KVM accepts and ignores it */
#define FAST		(1U << kvm_ioeventfd_flag_nr_fast_mmio)

#define VCPUS		4
#define FDS		8
/* No test has more descriptors of one kind. */
#define MAX_FDS		128
#define PAGE		0x1000
#define BASE		MMIO_BASE
#define PORT		PIO_BASE

#define FAILSLAB	"/sys/kernel/debug/failslab/"

typedef int (*ioctl_fn)(int fd, unsigned long request, ...);

/* The library */

static const char *library(void)
{
	static char path[PATH_MAX + 32];
	char exe[PATH_MAX] = "";

	if (readlink("/proc/self/exe", exe, sizeof(exe) - 1) < 0)
		return NULL;
	snprintf(path, sizeof(path), "%s/libdoorbell-ioeventfd.so",
		 dirname(exe));
	return path;
}

static ioctl_fn load(struct __test_metadata *_metadata)
{
	void *lib = dlopen(library(), RTLD_NOW);
	ioctl_fn fn = lib ? (ioctl_fn)dlsym(lib, "ioctl") : NULL;

	ASSERT_NE(NULL, fn) {
		TH_LOG("%s", dlerror());
	}
	return fn;
}

/* Get the descriptors of @file in this process; return their number. */
static int list_fds(const char *file, int fds[MAX_FDS])
{
	DIR *dir = opendir("/proc/self/fd");
	struct dirent *e;
	char link[64];
	int len, n = 0;

	while (n < MAX_FDS && dir && (e = readdir(dir))) {
		len = readlinkat(dirfd(dir), e->d_name, link, sizeof(link) - 1);
		if (len < 0)
			continue;
		link[len] = '\0';
		if (!strcmp(link, file))
			fds[n++] = atoi(e->d_name);
	}
	closedir(dir);
	return n;
}

static int regions(void)
{
	int fds[MAX_FDS];

	return list_fds(DB_PATH, fds);
}

/* The descriptor of a region, or -1 */
static int any_region(void)
{
	int fds[MAX_FDS];

	return list_fds(DB_PATH, fds) ? fds[0] : -1;
}

/* Also those that the library keeps */
static int eventfds(void)
{
	int fds[MAX_FDS];

	return list_fds("anon_inode:[eventfd]", fds);
}

static __u64 bound_rings(void)
{
	int fds[MAX_FDS], i = list_fds(DB_PATH, fds);
	__u64 rings = 0;

	while (i--)
		rings += info_of(fds[i]).bound_rings;
	return rings;
}

/* A VM, and its ioeventfds */

/**
 * struct side - one of two VMs that have to behave in the same way
 * @ioctl: how it calls KVM_IOEVENTFD
 * @vmm: the VM
 * @fd: its eventfds
 * @exits: accesses that reached the VMM
 * @last: the last of them
 */
struct side {
	ioctl_fn ioctl;
	struct vmm *vmm;
	int fd[FDS];
	__u64 exits;
	struct vmm_exit last;
};

static int count_exit(void *ctx, unsigned int vcpu, struct vmm_exit *exit)
{
	struct side *side = ctx;

	side->exits++;
	side->last = *exit;
	return 0;
}

static int new_eventfd(void)
{
	return db_result(eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC));
}

static bool side_create(struct side *side, ioctl_fn fn, unsigned int vcpus)
{
	int i;

	side->ioctl = fn;
	side->vmm = vmm_create(vcpus);
	if (!side->vmm)
		return false;
	side->vmm->exit_cb = count_exit;
	side->vmm->exit_ctx = side;
	for (i = 0; i < FDS; i++) {
		side->fd[i] = new_eventfd();
		if (side->fd[i] < 0)
			return false;
	}
	return true;
}

static void side_destroy(struct side *side)
{
	int i;

	vmm_destroy(side->vmm);
	for (i = 0; i < FDS; i++)
		close(side->fd[i]);
}

/* Take the count of an eventfd. All ones on failure */
static __u64 take_count(int fd)
{
	__u64 count;

	if (read(fd, &count, sizeof(count)) == sizeof(count))
		return count;
	return errno == EAGAIN ? 0 : -1;
}

static int call_fd(const struct side *side, __u64 addr, __u32 len, __u32 flags,
		   __u64 match, int fd)
{
	struct kvm_ioeventfd e = {
		.addr = addr, .len = len, .flags = flags, .fd = fd,
		.datamatch = match,
	};

	return db_result(side->ioctl(side->vmm->vm_fd, KVM_IOEVENTFD, &e));
}

/* With one of the VM's eventfds */
static int call(const struct side *side, __u64 addr, __u32 len, __u32 flags,
		__u64 match, int i)
{
	return call_fd(side, addr, len, flags, match, side->fd[i]);
}

/* KVM itself does not have the ioeventfd. */
static bool not_in_kvm(const struct side *side, __u64 addr, __u32 len,
		       __u32 flags, __u64 match, int i)
{
	struct side kvm = *side;

	kvm.ioctl = ioctl;
	return call(&kvm, addr, len, flags | DEASSIGN, match, i) == -ENOENT;
}

/* Two VMs */

FIXTURE(pair) {
	struct side kvm;
	struct side ours;
};

FIXTURE_SETUP(pair)
{
	ASSERT_TRUE(side_create(&self->kvm, ioctl, 1));
	ASSERT_TRUE(side_create(&self->ours, load(_metadata), 1));
}

FIXTURE_TEARDOWN(pair)
{
	side_destroy(&self->kvm);
	side_destroy(&self->ours);
}

/* The same call for both VMs, with the same result, which is returned */
static int both(struct __test_metadata *_metadata, FIXTURE_DATA(pair) *self,
		__u64 addr, __u32 len, __u32 flags, __u64 match, int i)
{
	int ret = call(&self->kvm, addr, len, flags, match, i);

	errno = 0;
	ASSERT_EQ(ret, call(&self->ours, addr, len, flags, match, i)) {
		TH_LOG("addr %#llx len %u flags %#x match %#llx eventfd %d",
		       addr, len, flags, match, i);
	}
	ASSERT_EQ(-ret, errno);
	return ret;
}

static int both_fd(struct __test_metadata *_metadata, FIXTURE_DATA(pair) *self,
		   __u64 addr, __u32 len, __u32 flags, int fd)
{
	int ret = call_fd(&self->kvm, addr, len, flags, 0, fd);

	ASSERT_EQ(ret, call_fd(&self->ours, addr, len, flags, 0, fd));
	return ret;
}

/* The same access of both guests, with the same effect */
static void both_access(struct __test_metadata *_metadata,
			FIXTURE_DATA(pair) *self, enum guest_op_kind kind,
			unsigned int width, __u64 addr, __u64 value)
{
	struct side *kvm = &self->kvm, *ours = &self->ours;
	__u64 count;
	int i;

	ASSERT_EQ(0, vmm_op(kvm->vmm, 0, kind, width, addr, value));
	ASSERT_EQ(0, vmm_op(ours->vmm, 0, kind, width, addr, value));
	for (i = 0; i < FDS; i++) {
		count = take_count(kvm->fd[i]);
		ASSERT_EQ(count, take_count(ours->fd[i])) {
			TH_LOG("kind %d width %u addr %#llx value %#llx fd %d",
			       kind, width, addr, value, i);
		}
	}
	ASSERT_EQ(kvm->exits, ours->exits) {
		TH_LOG("kind %d width %u addr %#llx value %#llx",
		       kind, width, addr, value);
	}
	ASSERT_EQ(kvm->last.addr, ours->last.addr);
	ASSERT_EQ(kvm->last.len, ours->last.len);
	ASSERT_EQ(kvm->last.data, ours->last.data);
}

/* All widths, at the address and around it, with and without the value */
static void both_try(struct __test_metadata *_metadata,
		     FIXTURE_DATA(pair) *self, __u64 addr, __u32 flags,
		     __u64 match)
{
	const __u64 values[] = { match, match + 1, match | 0x10000,
				 match | 1ULL << 32 };
	enum guest_op_kind kind = flags & ASSIGN_PIO ? GUEST_PIO_OUT :
						       GUEST_MMIO_WRITE;
	unsigned int width, i;
	int offset;

	for (width = 1; width <= (flags & ASSIGN_PIO ? 4 : 8); width *= 2)
		for (offset = -4; offset <= 4; offset++)
			for (i = 0; i < ARRAY_SIZE(values); i++)
				both_access(_metadata, self, kind, width,
					    addr + offset, values[i]);
	both_access(_metadata, self, kind + 1, 4, addr, 0);
}

/* What VMMs ask for, by device */

static const struct device {
	const char *name;
	__u64 addr;
	__u32 len;
	__u32 flags;
	__u32 step;		/* from one queue's address to the next one's */
	int regions;
} devices[] = {
	{ "pci_modern", BASE, 0, 0, 4, 1 },
	{ "pci_modern_in_page", BASE + 0x800, 0, 0, 4, 1 },
	{ "pci_multiplier_2", BASE + 2, 0, 0, 2, 1 },
	{ "pci_page_per_vq", BASE, 0, 0, PAGE, 4 },
	{ "pci_legacy", PORT + 0x10, 2, ASSIGN_PIO | MATCH, 0, 1 },
	{ "pci_by_value", BASE, 2, MATCH, 0, 1 },
	{ "virtio_mmio", BASE + 0x50, 4, MATCH, 0, 1 },
	{ "nvme", BASE + 8, 4, 0, 4, 1 },
	{ "eight_bytes", BASE + 0xff0, 8, 0, 8, 2 },
	{ "eight_bytes_by_value", BASE + 8, 8, MATCH, 0, 1 },
	{ "port_2", PORT, 2, ASSIGN_PIO, 2, 4 },
	{ "port_4", PORT, 4, ASSIGN_PIO, 4, 4 },
	{ "two_bytes", BASE + 0xffc, 2, 0, 2, 2 },
	{ "ignored_flag", BASE, 0, FAST, 4, 1 },
	{ "ignored_flag_by_value", BASE, 4, FAST | MATCH, 0, 1 },
	{ "port_and_ccw", PORT, 2, ASSIGN_PIO | MATCH | CCW, 0, 1 },
};

/* The same for what goes to KVM */
static const struct device inexpressible[] = {
	{ "one_byte", BASE, 1, 0, 1, 0 },
	{ "odd", BASE + 1, 0, 0, 2, 0 },
	{ "misaligned", BASE + 2, 4, 0, 4, 0 },
	{ "port_any", PORT, 0, ASSIGN_PIO, 4, 0 },
	{ "port_1", PORT, 1, ASSIGN_PIO | MATCH, 0, 0 },
	{ "port_8", PORT, 8, ASSIGN_PIO, 8, 0 },
	{ "ccw", BASE, 0, CCW, 4, 0 },
	{ "ccw_by_value", BASE, 8, CCW | MATCH | FAST, 0, 0 },
};

#define QUEUES 4

static void try_device(struct __test_metadata *_metadata,
		       FIXTURE_DATA(pair) *self, const struct device *d)
{
	const __u32 flags = d->flags;
	const __u32 len = d->len;
	__u64 addr;
	int q, round;

	TH_LOG("%s", d->name);
	ASSERT_EQ(2 * FDS, eventfds());
	/* assigned and removed again, as by firmware and drivers */
	for (round = 0; round < 3; round++) {
		for (q = 0; q < QUEUES; q++) {
			addr = d->addr + q * d->step;
			ASSERT_EQ(0, both(_metadata, self, addr, len, flags, q,
					  q));
			ASSERT_EQ(-EEXIST, both(_metadata, self, addr, len,
						flags, q, q));
			ASSERT_EQ(-EEXIST, both(_metadata, self, addr, len,
						flags, q, q + 1));
			if (d->regions)
				ASSERT_TRUE(not_in_kvm(&self->ours, addr, len,
						       flags, q, q));
		}
		ASSERT_EQ(d->regions, regions());
		ASSERT_EQ(2 * FDS + (d->regions ? QUEUES : 0), eventfds());
		for (q = 0; q < QUEUES && !round; q++)
			both_try(_metadata, self, d->addr + q * d->step, flags,
				 q);
		for (q = 0; q < QUEUES; q++) {
			addr = d->addr + q * d->step;
			ASSERT_EQ(0, both(_metadata, self, addr, len,
					  flags | DEASSIGN, q, q));
			ASSERT_EQ(-ENOENT, both(_metadata, self, addr, len,
						flags | DEASSIGN, q, q));
			if (!round)
				both_try(_metadata, self, addr, flags, q);
		}
		ASSERT_EQ(0, regions());
		ASSERT_EQ(2 * FDS, eventfds());
	}
}

/* Served by regions, or by KVM: the guest and the VMM see no difference. */
TEST_F_TIMEOUT(pair, devices, TEST_SECONDS)
{
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(devices); i++)
		try_device(_metadata, self, &devices[i]);
	for (i = 0; i < ARRAY_SIZE(inexpressible); i++)
		try_device(_metadata, self, &inexpressible[i]);
}

/* Can the library tell one eventfd from another? */
static const char *no_kcmp(void)
{
	pid_t pid = getpid();

	return syscall(SYS_kcmp, pid, pid, KCMP_FILE, 2, 2) ?
	       "the kernel has no kcmp()" : NULL;
}

/* Another eventfd does not remove an ioeventfd, whatever its number was. */
TEST_F_TIMEOUT(pair, other_eventfd, TEST_SECONDS)
{
	struct side *sides[] = { &self->kvm, &self->ours };
	const struct device *d = devices;
	int i, fd;

	if (no_kcmp())
		SKIP(return, "%s", no_kcmp());
	for (; d < devices + ARRAY_SIZE(devices); d++) {
		ASSERT_EQ(0, both(_metadata, self, d->addr, d->len, d->flags, 3,
				  3));
		ASSERT_EQ(-ENOENT, both(_metadata, self, d->addr, d->len,
					d->flags | DEASSIGN, 3, 4));
		ASSERT_EQ(1, regions());
		ASSERT_EQ(0, both(_metadata, self, d->addr, d->len,
				  d->flags | DEASSIGN, 3, 3));
	}
	for (i = 0; i < 2; i++) {
		fd = dup(sides[i]->fd[0]);
		ASSERT_EQ(0, call_fd(sides[i], BASE, 0, 0, 0, fd));
		ASSERT_EQ(fd, dup2(sides[i]->fd[1], fd));
		ASSERT_EQ(-ENOENT, call_fd(sides[i], BASE, 0, DEASSIGN, 0, fd));
		close(fd);
		ASSERT_EQ(0, call(sides[i], BASE, 0, DEASSIGN, 0, 0));
	}
}

/* Errors of KVM, in its order */
TEST_F_TIMEOUT(pair, errors, TEST_SECONDS)
{
	const int not_eventfd = self->kvm.vmm->mem_fd;
	__u32 flags;
	int i;

	/* at first, with a region there, and with one that is in use */
	for (i = 0; i < 3; i++) {
		__u64 addr = i < 2 ? BASE : BASE + 8;

		for (flags = 0; flags <= DEASSIGN; flags += DEASSIGN) {
			ASSERT_EQ(-EBADF, both_fd(_metadata, self, addr, 0,
						  flags, -1));
			ASSERT_EQ(-EBADF, both_fd(_metadata, self, addr, 0,
						  flags, 999));
			ASSERT_EQ(-EINVAL, both_fd(_metadata, self, addr, 0,
						   flags, not_eventfd));
		}
		ASSERT_EQ(-ENOENT, both(_metadata, self, BASE, 0, DEASSIGN, 0,
					0));
		ASSERT_EQ(-EINVAL, both(_metadata, self, addr, 3, 0, 0, 0));
		ASSERT_EQ(-EINVAL, both(_metadata, self, addr, 16, 0, 0, 0));
		ASSERT_EQ(-EINVAL, both(_metadata, self, addr, 0, MATCH, 0, 0));
		ASSERT_EQ(-EINVAL, both(_metadata, self, addr, 4, 1U << 31, 0,
					0));
		ASSERT_EQ(-ENOENT, both(_metadata, self, addr, 4,
					DEASSIGN | 1U << 31, 0, 0));
		ASSERT_EQ(-EINVAL, both(_metadata, self, -2ULL, 4, 0, 0, 0));
		if (!i)
			ASSERT_EQ(0, both(_metadata, self, BASE + 8, 0, 0, 0,
					  0));
	}
	/* an ioeventfd of any length collides with all others at its address */
	ASSERT_EQ(-EEXIST, both(_metadata, self, BASE + 8, 4, 0, 0, 1));
	ASSERT_EQ(-EEXIST, both(_metadata, self, BASE + 8, 2, MATCH, 0, 1));
	ASSERT_EQ(-EEXIST, both(_metadata, self, BASE + 8, 1, 0, 0, 1));
	ASSERT_EQ(1, regions());
	ASSERT_EQ(0, both(_metadata, self, BASE + PAGE, 4, MATCH, 5, 1));
	ASSERT_EQ(-EEXIST, both(_metadata, self, BASE + PAGE, 0, 0, 0, 1));
	ASSERT_EQ(-EEXIST, both(_metadata, self, BASE + PAGE, 4, 0, 0, 1));
	ASSERT_EQ(-EEXIST, both(_metadata, self, BASE + PAGE, 4, MATCH, 5, 1));
	ASSERT_EQ(0, both(_metadata, self, BASE + PAGE, 4, MATCH, 6, 1));
	ASSERT_EQ(2, regions());
	/* KVM ignores a flag that it does not know, if it is not another bus */
	ASSERT_EQ(-ENOENT, both(_metadata, self, BASE + 8, 0, DEASSIGN | CCW, 0,
				0));
	ASSERT_EQ(0, both(_metadata, self, BASE + 8, 0, DEASSIGN | 1U << 31, 0,
			  0));
	ASSERT_EQ(1, regions());
	/* not a VM */
	ASSERT_EQ(-1, self->ours.ioctl(self->ours.vmm->kvm_fd, KVM_IOEVENTFD,
				       &(struct kvm_ioeventfd){}));
	ASSERT_EQ(EINVAL, errno);
	ASSERT_EQ(-1, self->ours.ioctl(not_eventfd, KVM_IOEVENTFD,
				       &(struct kvm_ioeventfd){}));
	ASSERT_EQ(ENOTTY, errno);
}

/* Flags that name no other ioeventfd, and one that does, in a region */
TEST_F_TIMEOUT(pair, flags, TEST_SECONDS)
{
	int q;

	for (q = 0; q < QUEUES; q++) {
		ASSERT_EQ(0, both(_metadata, self, BASE + 4 * q, 0,
				  q % 2 ? FAST : 0, 0, q));
		ASSERT_EQ(0, both(_metadata, self, PORT, 2, ASSIGN_PIO | MATCH |
				  (q % 2 ? CCW | FAST : 0), q, q));
	}
	ASSERT_EQ(2, regions());
	for (q = 0; q < QUEUES; q++) {
		ASSERT_EQ(-EEXIST, both(_metadata, self, BASE + 4 * q, 0,
					q % 2 ? 0 : FAST, 0, 4));
		ASSERT_EQ(-EEXIST, both(_metadata, self, PORT, 2, ASSIGN_PIO |
					MATCH | (q % 2 ? 0 : CCW), q, 4));
	}
	/* the bus of virtio-ccw has the same addresses */
	ASSERT_EQ(0, both(_metadata, self, BASE, 0, CCW, 0, 4));
	ASSERT_EQ(-EINVAL, both(_metadata, self, BASE + 0x100, 0, 1U << 5, 0,
				5));
	ASSERT_EQ(-EINVAL, both(_metadata, self, PORT, 2, ASSIGN_PIO | MATCH |
				CCW | 1U << 5, 5, 5));
	ASSERT_EQ(2, regions());
	for (q = 0; q < QUEUES; q++) {
		both_try(_metadata, self, BASE + 4 * q, 0, 0);
		both_try(_metadata, self, PORT, ASSIGN_PIO, q);
	}
	ASSERT_EQ(0, both(_metadata, self, BASE, 0, DEASSIGN | CCW, 0, 4));
	for (q = 0; q < QUEUES; q++) {
		ASSERT_EQ(-ENOENT, both(_metadata, self, BASE + 4 * q, 0,
					DEASSIGN | CCW, 0, q));
		ASSERT_EQ(0, both(_metadata, self, BASE + 4 * q, 0,
				  DEASSIGN | (q % 2 ? 0 : FAST), 0, q));
		ASSERT_EQ(0, both(_metadata, self, PORT, 2, DEASSIGN |
				  ASSIGN_PIO | MATCH | (q % 2 ? 0 : CCW), q,
				  q));
	}
	ASSERT_EQ(0, regions());
}

/* Another descriptor of the same eventfd removes the ioeventfd. */
TEST_F_TIMEOUT(pair, duplicate_eventfd, TEST_SECONDS)
{
	struct side *sides[] = { &self->kvm, &self->ours };
	int i, old, fd;

	for (i = 0; i < 2; i++) {
		ASSERT_EQ(0, call(sides[i], BASE, 0, 0, 0, 0));
		ASSERT_EQ(0, call(sides[i], BASE + 4, 0, 0, 0, 1));
		fd = dup(sides[i]->fd[0]);
		ASSERT_EQ(0, call_fd(sides[i], BASE, 0, DEASSIGN, 0, fd));
		/* the VMM may close the first one */
		old = dup(sides[i]->fd[0]);
		ASSERT_EQ(0, call_fd(sides[i], BASE, 0, 0, 0, old));
		close(old);
		ASSERT_EQ(0, vmm_op(sides[i]->vmm, 0, GUEST_MMIO_WRITE, 4, BASE,
				    0));
		ASSERT_EQ(1, take_count(fd));
		ASSERT_EQ(0, call_fd(sides[i], BASE, 0, DEASSIGN, 0, fd));
		close(fd);
		ASSERT_EQ(0, vmm_op(sides[i]->vmm, 0, GUEST_MMIO_WRITE, 4, BASE,
				    0));
		ASSERT_EQ(1, sides[i]->exits);
	}
	ASSERT_EQ(1, regions());
}

/* One eventfd for a memory address and a port, as transitional devices have */
TEST_F_TIMEOUT(pair, transitional, TEST_SECONDS)
{
	int q;

	for (q = 0; q < QUEUES; q++) {
		ASSERT_EQ(0, both(_metadata, self, BASE + 4 * q, 0, 0, 0, q));
		ASSERT_EQ(0, both(_metadata, self, PORT + 0x10, 2,
				  ASSIGN_PIO | MATCH, q, q));
	}
	ASSERT_EQ(2, regions());
	for (q = 0; q < QUEUES; q++) {
		both_try(_metadata, self, BASE + 4 * q, 0, 0);
		both_try(_metadata, self, PORT + 0x10, ASSIGN_PIO, q);
	}
}

/*
 * Several lengths in one page: the region's ioeventfds go to KVM, once a call
 * comes that the region cannot have.
 */
TEST_F_TIMEOUT(pair, mixed_page, TEST_SECONDS)
{
	int q;

	for (q = 0; q < QUEUES; q++)
		ASSERT_EQ(0, both(_metadata, self, BASE + 4 * q, 0, 0, 0, q));
	ASSERT_EQ(1, regions());
	ASSERT_EQ(0, both(_metadata, self, BASE + 0x100, 4, 0, 0, 4));
	ASSERT_EQ(0, regions());
	ASSERT_EQ(0, both(_metadata, self, BASE + 0x200, 0, 0, 0, 5));
	ASSERT_EQ(0, both(_metadata, self, BASE + 0x301, 1, 0, 0, 6));
	ASSERT_EQ(0, regions());
	for (q = 0; q < QUEUES; q++)
		both_try(_metadata, self, BASE + 4 * q, 0, 0);
	both_try(_metadata, self, BASE + 0x100, 0, 0);
	both_try(_metadata, self, BASE + 0x200, 0, 0);
	both_try(_metadata, self, BASE + 0x301, 0, 0);

	/* all of it removed, the page can have a region again */
	for (q = 0; q < QUEUES; q++)
		ASSERT_EQ(0, both(_metadata, self, BASE + 4 * q, 0, DEASSIGN, 0,
				  q));
	ASSERT_EQ(0, both(_metadata, self, BASE + 0x100, 4, DEASSIGN, 0, 4));
	ASSERT_EQ(0, both(_metadata, self, BASE + 0x200, 0, DEASSIGN, 0, 5));
	ASSERT_EQ(0, both(_metadata, self, BASE + 0x301, 1, DEASSIGN, 0, 6));
	ASSERT_EQ(0, both(_metadata, self, BASE, 4, 0, 0, 0));
	ASSERT_EQ(1, regions());
	both_try(_metadata, self, BASE, 0, 0);
}

/* A failed call for a page leaves the region, and what it serves, as it is. */
TEST_F_TIMEOUT(pair, mixed_page_fails, TEST_SECONDS)
{
	struct side behind = self->ours;

	ASSERT_EQ(0, both(_metadata, self, BASE, 0, 0, 0, 0));
	ASSERT_EQ(0, both(_metadata, self, BASE + 4, 0, 0, 0, 1));
	ASSERT_EQ(-EBADF, both_fd(_metadata, self, BASE + 8, 4, 0, 999));
	ASSERT_EQ(-EINVAL, both_fd(_metadata, self, BASE + 8, 4, 0,
				   self->kvm.vmm->mem_fd));
	ASSERT_EQ(1, regions());
	/* KVM takes the second one, but has another one in the first's place */
	behind.ioctl = ioctl;
	ASSERT_EQ(0, call(&behind, BASE, 0, 0, 0, 2));
	ASSERT_EQ(-EEXIST, call(&self->ours, BASE + 8, 4, 0, 0, 2));
	ASSERT_EQ(0, call(&behind, BASE, 0, DEASSIGN, 0, 2));
	ASSERT_EQ(1, regions());
	ASSERT_TRUE(not_in_kvm(&self->ours, BASE + 4, 0, 0, 0, 1));
	both_try(_metadata, self, BASE, 0, 0);
	both_try(_metadata, self, BASE + 4, 0, 0);
}

/* What goes to KVM is the eventfd, not what has its number now. */
TEST_F_TIMEOUT(pair, mixed_page_numbers, TEST_SECONDS)
{
	struct side *sides[] = { &self->kvm, &self->ours };
	int i, closed, reused;

	for (i = 0; i < 2; i++) {
		closed = dup(sides[i]->fd[0]);
		reused = dup(sides[i]->fd[1]);
		ASSERT_EQ(0, call_fd(sides[i], BASE, 0, 0, 0, closed));
		ASSERT_EQ(0, call_fd(sides[i], BASE + 4, 0, 0, 0, reused));
		close(closed);
		ASSERT_EQ(reused, dup2(sides[i]->fd[2], reused));
		ASSERT_EQ(0, call(sides[i], BASE + 8, 4, 0, 0, 3));
		close(reused);
	}
	ASSERT_EQ(0, regions());
	ASSERT_FALSE(not_in_kvm(&self->ours, BASE, 0, 0, 0, 0));
	ASSERT_EQ(0, call(&self->ours, BASE, 0, 0, 0, 0));
	both_try(_metadata, self, BASE, 0, 0);
	both_try(_metadata, self, BASE + 4, 0, 0);
	both_try(_metadata, self, BASE + 8, 0, 0);
}

/* No descriptor is left for the library: the page goes to KVM. */
TEST_F_TIMEOUT(pair, no_descriptor, TEST_SECONDS)
{
	struct rlimit limit, few;

	ASSERT_EQ(0, both(_metadata, self, BASE, 0, 0, 0, 0));
	ASSERT_EQ(1, regions());
	ASSERT_EQ(0, getrlimit(RLIMIT_NOFILE, &limit));
	few = limit;
	few.rlim_cur = 3;
	ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &few));
	both(_metadata, self, BASE + 4, 0, 0, 0, 1);
	both(_metadata, self, BASE + PAGE, 0, 0, 0, 2);
	ASSERT_EQ(0, setrlimit(RLIMIT_NOFILE, &limit));
	ASSERT_EQ(0, regions());
	both_try(_metadata, self, BASE, 0, 0);
	both_try(_metadata, self, BASE + 4, 0, 0);
	both_try(_metadata, self, BASE + PAGE, 0, 0);
	ASSERT_EQ(0, both(_metadata, self, BASE, 0, DEASSIGN, 0, 0));
	ASSERT_EQ(0, both(_metadata, self, BASE + 4, 0, DEASSIGN, 0, 1));
}

/*
 * Random calls and accesses. KVM's search misses some ioeventfds if those of
 * different lengths overlap or touch, so each 64 bytes have a length of their
 * own, besides 0.
 */
TEST_F_TIMEOUT(pair, random, TEST_SECONDS)
{
	static const __u32 lengths[] = { 4, 2, 8, 1 };
	const int rounds = db_debug_kernel() ? 600 : 2400;
	__u32 x = 12345, len, flags, served = 0;
	__u64 addr, match;
	bool pio;
	int i;

	if (no_kcmp())
		SKIP(return, "%s", no_kcmp());
	for (i = 0; i < rounds; i++) {
		__u32 slot = db_random(&x) % 8, page = db_random(&x) % 3;

		pio = !(db_random(&x) % 4);
		page *= !pio;
		addr = slot * 64 + (pio ? PORT : BASE + page * PAGE);
		/* one page has only one length, and so mostly a region */
		len = page == 2 ? 4 : lengths[slot % 4];
		if (page != 2 && !(db_random(&x) % 3))
			len = 0;
		/* half of the addresses are odd */
		addr += slot < 4 ? len * (db_random(&x) % 2) : 1;
		match = db_random(&x) % 3;
		if (!(db_random(&x) % 8))
			match += 0x10000;
		flags = (pio ? ASSIGN_PIO : 0) |
			(db_random(&x) % 2 ? MATCH : 0) |
			(db_random(&x) % 2 ? DEASSIGN : 0);
		both(_metadata, self, addr, len, flags, match,
		     (addr / 64 + match) % FDS);
		both_access(_metadata, self,
			    pio ? GUEST_PIO_OUT : GUEST_MMIO_WRITE,
			    1 << db_random(&x) % (pio ? 3 : 4), addr, match);
		both_access(_metadata, self,
			    pio ? GUEST_PIO_OUT : GUEST_MMIO_WRITE,
			    len && (!pio || len < 8) ? len : 2, addr,
			    db_random(&x) % 3);
		if (!(i % 32))
			served += regions();
	}
	TH_LOG("%u regions after %d calls", served, rounds / 32);
	ASSERT_LT(rounds / 32, served);
}

/* A region of a consumer in the page: the calls go to KVM. */
TEST_F_TIMEOUT(pair, page_of_others, TEST_SECONDS)
{
	int fd = db_must_open(_metadata, O_NONBLOCK);

	ASSERT_EQ(0, db_attach(fd, self->ours.vmm->vm_fd, BASE + 0x800, 4));
	ASSERT_EQ(0, both(_metadata, self, BASE, 0, 0, 0, 0));
	ASSERT_EQ(0, both(_metadata, self, BASE + PAGE, 0, 0, 0, 1));
	ASSERT_EQ(2, regions());
	both_try(_metadata, self, BASE, 0, 0);
	both_try(_metadata, self, BASE + PAGE, 0, 0);
}

/* The VMM's end, and that of its VMs */

FIXTURE(alone) {
	struct side side;
};

FIXTURE_SETUP(alone)
{
	ASSERT_TRUE(side_create(&self->side, load(_metadata), VCPUS));
}

FIXTURE_TEARDOWN(alone)
{
	side_destroy(&self->side);
}

static int ring(const struct side *side, __u64 addr)
{
	return vmm_op(side->vmm, 0, GUEST_MMIO_WRITE, 4, addr, 0);
}

/* No device: KVM serves all calls. */
TEST_F_TIMEOUT(alone, no_device, TEST_SECONDS)
{
	ASSERT_EQ(0, rename(DB_PATH, DB_PATH ".hidden"));
	EXPECT_EQ(0, call(&self->side, BASE, 0, 0, 0, 0));
	EXPECT_EQ(0, call(&self->side, BASE + 4, 0, 0, 0, 1));
	ASSERT_EQ(0, rename(DB_PATH ".hidden", DB_PATH));
	ASSERT_EQ(0, ring(&self->side, BASE));
	ASSERT_EQ(1, take_count(self->side.fd[0]));
	ASSERT_EQ(0, vmm_exits(self->side.vmm));
	ASSERT_FALSE(not_in_kvm(&self->side, BASE, 0, 0, 0, 0));
	ASSERT_EQ(0, call(&self->side, BASE + 4, 0, DEASSIGN, 0, 1));
	ASSERT_EQ(0, regions());
	/* as soon as it is there it serves */
	ASSERT_EQ(0, call(&self->side, BASE, 0, 0, 0, 0));
	ASSERT_EQ(1, regions());
}

/* The device goes: KVM serves all calls but those for the region. */
TEST_F_TIMEOUT(alone, device_goes, TEST_SECONDS)
{
	const struct side *side = &self->side;

	ASSERT_EQ(0, call(side, BASE, 0, 0, 0, 0));
	ASSERT_EQ(0, rename(DB_PATH, DB_PATH ".hidden"));
	EXPECT_EQ(0, call(side, BASE + PAGE, 0, 0, 0, 1));
	EXPECT_EQ(0, call(side, BASE + 4, 0, 0, 0, 2));
	EXPECT_EQ(0, call(side, BASE, 0, DEASSIGN, 0, 0));
	ASSERT_EQ(0, rename(DB_PATH ".hidden", DB_PATH));
	ASSERT_EQ(1, regions());
	ASSERT_EQ(0, ring(side, BASE + PAGE));
	ASSERT_EQ(1, take_count(side->fd[1]));
	ASSERT_EQ(0, ring(side, BASE + 4));
	ASSERT_EQ(1, take_count(side->fd[2]));
	ASSERT_EQ(0, call(side, BASE + 4, 0, DEASSIGN, 0, 2));
	ASSERT_EQ(0, regions());
	ASSERT_FALSE(not_in_kvm(side, BASE + PAGE, 0, 0, 0, 1));
}

/* The region ends with the VM, and its descriptor when the next VM comes. */
TEST_F_TIMEOUT(alone, vm_ends, TEST_SECONDS)
{
	struct side next = {};
	int fd, vm_fd = self->side.vmm->vm_fd;
	unsigned int v;

	ASSERT_EQ(0, call(&self->side, BASE, 0, 0, 0, 0));
	fd = any_region();
	ASSERT_LE(0, fd);
	ASSERT_EQ(DOORBELL_ATTACHED, info_of(fd).state);
	vmm_close_vm(self->side.vmm);
	ASSERT_EQ(DOORBELL_ATTACHED, info_of(fd).state);
	for (v = 0; v < VCPUS; v++)
		vmm_close_vcpu(self->side.vmm, v);
	ASSERT_EQ(POLLHUP, poll_for(fd, 0));

	ASSERT_TRUE(side_create(&next, self->side.ioctl, 1));
	ASSERT_EQ(0, dup2(next.vmm->vm_fd, vm_fd) != vm_fd);
	next.vmm->vm_fd = vm_fd;
	ASSERT_EQ(0, call(&next, BASE, 0, 0, 0, 0));
	ASSERT_EQ(1, regions());
	ASSERT_EQ(0, ring(&next, BASE));
	ASSERT_EQ(1, take_count(next.fd[0]));
	ASSERT_EQ(1, bound_rings());
	side_destroy(&next);
}

/* The same if the other VM has regions already */
TEST_F_TIMEOUT(alone, vm_ends_beside_another, TEST_SECONDS)
{
	struct side next = {};

	ASSERT_EQ(0, call(&self->side, BASE, 0, 0, 0, 0));
	ASSERT_TRUE(side_create(&next, self->side.ioctl, 1));
	ASSERT_EQ(0, call(&next, BASE, 0, 0, 0, 0));
	ASSERT_EQ(2, regions());
	ASSERT_EQ(2 * FDS + 2, eventfds());
	vmm_destroy(self->side.vmm);
	self->side.vmm = NULL;
	ASSERT_EQ(0, call(&next, BASE + PAGE, 0, 0, 0, 1));
	ASSERT_EQ(2, regions());
	ASSERT_EQ(2 * FDS + 2, eventfds());
	ASSERT_EQ(0, ring(&next, BASE + PAGE));
	ASSERT_EQ(1, take_count(next.fd[1]));
	side_destroy(&next);
}

/* The number of a descriptor is not the VM. */
TEST_F_TIMEOUT(alone, vm_descriptors, TEST_SECONDS)
{
	struct side *side = &self->side, next = {};
	int vm_fd = side->vmm->vm_fd;

	ASSERT_EQ(0, call(side, BASE, 0, 0, 0, 0));
	ASSERT_EQ(0, call(side, BASE + 4, 0, 0, 0, 1));
	side->vmm->vm_fd = dup(vm_fd);
	ASSERT_TRUE(side_create(&next, side->ioctl, 1));
	ASSERT_EQ(vm_fd, dup2(next.vmm->vm_fd, vm_fd));
	close(next.vmm->vm_fd);
	next.vmm->vm_fd = vm_fd;

	ASSERT_EQ(-ENOENT, call(&next, BASE, 0, DEASSIGN, 0, 0));
	ASSERT_EQ(0, call(&next, BASE, 0, 0, 0, 0));
	ASSERT_EQ(-EEXIST, call(side, BASE, 0, 0, 0, 0));
	ASSERT_EQ(2, regions());
	ASSERT_EQ(0, ring(side, BASE));
	ASSERT_EQ(1, take_count(side->fd[0]));
	ASSERT_EQ(0, take_count(next.fd[0]));
	ASSERT_EQ(0, ring(&next, BASE));
	ASSERT_EQ(1, take_count(next.fd[0]));
	ASSERT_EQ(0, call(side, BASE, 0, DEASSIGN, 0, 0));
	ASSERT_EQ(0, call(side, BASE + 4, 0, DEASSIGN, 0, 1));
	ASSERT_EQ(1, regions());
	side_destroy(&next);
}

/* 64 VMs have regions, as there are 64 signals. KVM serves the others. */
TEST_F_TIMEOUT(alone, many_vms, TEST_SECONDS)
{
	struct kvm_ioeventfd e = { .addr = BASE, .fd = self->side.fd[0] };
	int vm[70], i, round;

	for (round = 0; round < 2; round++) {
		for (i = 0; i < 70; i++) {
			vm[i] = ioctl(self->side.vmm->kvm_fd, KVM_CREATE_VM, 0);
			ASSERT_LE(0, vm[i]);
			ASSERT_EQ(0, self->side.ioctl(vm[i], KVM_IOEVENTFD,
						      &e));
		}
		ASSERT_EQ(64, regions());
		for (i = 0; i < 70; i++) {
			e.flags = DEASSIGN;
			/* of a VM with a region, and of one without */
			if (i == 3 || i == 69)
				ASSERT_EQ(0, self->side.ioctl(vm[i],
							      KVM_IOEVENTFD,
							      &e));
			e.flags = 0;
			close(vm[i]);
		}
	}
}

/* A child has no VM, and the parent keeps its own. */
TEST_F_TIMEOUT(alone, fork_child, TEST_SECONDS)
{
	struct side *side = &self->side, kvm = *side, own = {};
	pid_t pid;

	ASSERT_EQ(0, call(side, BASE, 0, 0, 0, 0));
	ASSERT_EQ(0, call(side, BASE + 4, 0, 0, 0, 1));
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid) {
		kvm.ioctl = ioctl;
		if (regions() || eventfds() != FDS)
			_exit(1);
		if (call(side, BASE, 0, DEASSIGN, 0, 0) !=
		    call(&kvm, BASE, 0, DEASSIGN, 0, 0))
			_exit(2);
		if (call(side, BASE + 8, 0, 0, 0, 0) !=
		    call(&kvm, BASE + 8, 0, 0, 0, 0))
			_exit(3);
		if (!side_create(&own, side->ioctl, 1) ||
		    call(&own, BASE, 0, 0, 0, 0) || regions() != 1 ||
		    ring(&own, BASE) || take_count(own.fd[0]) != 1)
			_exit(4);
		/* the parent gave its VM the same mark */
		if (call(side, BASE + 4, 0, 0, 0, 0) != -EIO ||
		    call(side, BASE, 0, DEASSIGN, 0, 0) != -EIO)
			_exit(5);
		_exit(0);
	}
	ASSERT_EQ(0, ended(pid));
	ASSERT_EQ(1, regions());
	ASSERT_EQ(0, ring(side, BASE));
	ASSERT_EQ(1, take_count(side->fd[0]));
	ASSERT_EQ(0, call(side, BASE, 0, DEASSIGN, 0, 0));
	ASSERT_EQ(0, ring(side, BASE));
	ASSERT_EQ(1, vmm_exits(side->vmm));
}

/* A VM of another process: KVM's error, also before the parent used it */
TEST_F_TIMEOUT(alone, fork_before_use, TEST_SECONDS)
{
	pid_t pid = fork();

	ASSERT_LE(0, pid);
	if (!pid)
		_exit(call(&self->side, BASE, 0, 0, 0, 0) != -EIO ||
		      regions());
	ASSERT_EQ(0, ended(pid));
}

/* Without kcmp() any eventfd removes an ioeventfd: the VMM's own does. */
TEST_F_TIMEOUT(alone, kcmp_fails, TEST_SECONDS)
{
	struct side own = {};
	pid_t pid;

	if (prctl(PR_GET_SECCOMP, 0, 0, 0, 0) < 0)
		SKIP(return, "the kernel has no seccomp");
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid)
		_exit(deny_call(SYS_kcmp) ||
		      !side_create(&own, self->side.ioctl, 1) ||
		      call(&own, BASE, 0, 0, 0, 0) ||
		      call(&own, BASE + 4, 0, 0, 0, 1) || regions() != 1 ||
		      call_fd(&own, BASE, 0, DEASSIGN, 0, dup(own.fd[0])) ||
		      call(&own, BASE + 4, 0, DEASSIGN, 0, 1) || regions());
	ASSERT_EQ(0, ended(pid));
}

/* No memory */

FIXTURE(memory) {
	struct side side;
	struct side next;
	int fd;
};

FIXTURE_SETUP(memory)
{
	self->fd = open(FAILSLAB "probability", O_WRONLY | O_CLOEXEC);
	if (self->fd < 0)
		SKIP(return, "the kernel has no fault injection");
	ASSERT_TRUE(side_create(&self->side, load(_metadata), 1));
	ASSERT_EQ(0, db_write_file(FAILSLAB "verbose", "0"));
	ASSERT_EQ(0, db_write_file(FAILSLAB "times", "1000000"));
	ASSERT_EQ(0, db_write_file(FAILSLAB "ignore-gfp-wait", "N"));
	ASSERT_EQ(0, db_write_file(FAILSLAB "task-filter", "Y"));
	ASSERT_EQ(0, db_write_file("/proc/self/make-it-fail", "1"));
}

FIXTURE_TEARDOWN(memory)
{
	if (self->fd < 0)
		return;
	db_write_file(FAILSLAB "task-filter", "N");
	close(self->fd);
	side_destroy(&self->side);
	if (self->next.vmm)
		side_destroy(&self->next);
}

/* No allocation of the kernel for this thread succeeds. */
static void no_memory(FIXTURE_DATA(memory) *self, bool on)
{
	const char *text = on ? "100" : "0";

	if (write(self->fd, text, strlen(text)) < 0)
		abort();
}

/* A queue of a region needs no memory to be bound, or unbound, as with KVM. */
TEST_F_TIMEOUT(memory, binding, TEST_SECONDS)
{
	const struct side *side = &self->side;
	int bind, unbind;

	ASSERT_EQ(0, call(side, BASE, 0, 0, 0, 0));
	no_memory(self, true);
	bind = call(side, BASE + 4, 0, 0, 0, 1);
	unbind = call(side, BASE, 0, DEASSIGN, 0, 0);
	no_memory(self, false);
	ASSERT_EQ(0, bind);
	ASSERT_EQ(0, unbind);
	ASSERT_EQ(1, regions());
	ASSERT_EQ(0, ring(side, BASE + 4));
	ASSERT_EQ(1, take_count(side->fd[1]));
	ASSERT_EQ(0, ring(side, BASE));
	ASSERT_EQ(1, vmm_exits(side->vmm));
}

/* KVM gives up a bus, as it has no memory for a smaller one. */
static void give_up_bus(struct __test_metadata *_metadata,
			FIXTURE_DATA(memory) *self)
{
	struct side kvm = self->side;

	kvm.ioctl = ioctl;
	ASSERT_EQ(0, call(&kvm, BASE + PAGE, 4, 0, 0, 2));
	no_memory(self, true);
	call(&kvm, BASE + PAGE, 4, DEASSIGN, 0, 2);
	no_memory(self, false);
	ASSERT_TRUE(eventually(info_of(any_region()).state ==
			       DOORBELL_HANGUP));
}

/*
 * KVM gives up a bus, as it has no memory for a smaller one. The VM's region
 * has hung up, but the VM lives: no other VM may get its mark.
 */
TEST_F_TIMEOUT(memory, bus_given_up, TEST_SECONDS)
{
	struct side *side = &self->side, *next = &self->next, kvm = *side;

	kvm.ioctl = ioctl;
	ASSERT_EQ(0, call(side, BASE, 0, 0, 0, 0));
	ASSERT_EQ(0, call(side, BASE + 8, 0, 0, 0, 1));
	ASSERT_EQ(0, call(&kvm, BASE + PAGE + 4, 4, 0, 0, 3));
	give_up_bus(_metadata, self);

	ASSERT_TRUE(side_create(next, side->ioctl, 1));
	ASSERT_EQ(0, call(next, BASE, 0, 0, 0, 0));
	ASSERT_EQ(-ENOMEM, call(&kvm, BASE + 4, 0, 0, 0, 1));
	ASSERT_EQ(-ENOMEM, call(side, BASE + 4, 0, 0, 0, 1));
	ASSERT_EQ(0, ring(next, BASE + 4));
	ASSERT_EQ(1, next->exits);
	ASSERT_EQ(0, take_count(side->fd[1]));

	/* as KVM, which has none of the bus left */
	ASSERT_EQ(-ENOENT, call(&kvm, BASE + PAGE + 4, 4, DEASSIGN, 0, 3));
	ASSERT_EQ(-ENOENT, call(side, BASE + 8, 0, DEASSIGN, 0, 1));
	ASSERT_EQ(-ENOENT, call(side, BASE, 0, DEASSIGN, 0, 0));
	ASSERT_EQ(1, regions());
}

/*
 * The same where the library cannot see that the VM lives: its last call came
 * by a descriptor that is closed. The next VM is not taken for it.
 */
TEST_F_TIMEOUT(memory, bus_given_up_mark, TEST_SECONDS)
{
	struct side *side = &self->side, *next = &self->next;
	int vm_fd = side->vmm->vm_fd, other;

	ASSERT_EQ(0, call(side, BASE, 0, 0, 0, 0));
	give_up_bus(_metadata, self);
	other = dup(vm_fd);
	side->vmm->vm_fd = other;
	ASSERT_EQ(-ENOENT, call(side, BASE + 8, 0, DEASSIGN, 0, 1));
	side->vmm->vm_fd = vm_fd;
	close(other);

	ASSERT_TRUE(side_create(next, side->ioctl, 1));
	ASSERT_EQ(0, call(next, BASE, 0, 0, 0, 0));
	ASSERT_EQ(-ENOMEM, call(side, BASE + 4, 0, 0, 0, 1));
	ASSERT_EQ(0, ring(next, BASE + 4));
	ASSERT_EQ(1, next->exits);
	ASSERT_EQ(0, take_count(side->fd[1]));
	ASSERT_EQ(1, regions());
}

/* The same for the last ioeventfd of a region */
TEST_F_TIMEOUT(memory, bus_given_up_last, TEST_SECONDS)
{
	struct side *side = &self->side;

	ASSERT_EQ(0, call(side, BASE, 0, 0, 0, 0));
	give_up_bus(_metadata, self);
	ASSERT_EQ(-ENOENT, call(side, BASE, 0, DEASSIGN, 0, 0));
	ASSERT_EQ(0, regions());
}

/* Four vCPUs ring */

FIXTURE(busy) {
	struct side side;
	struct exits exits;
	int fd[REGION_QUEUES];
	__u64 count[REGION_QUEUES];
};

FIXTURE_VARIANT(busy) {
	__u32 len;
};

FIXTURE_VARIANT_ADD(busy, any_length) { .len = 0 };
FIXTURE_VARIANT_ADD(busy, length_4) { .len = 4 };

FIXTURE_SETUP(busy)
{
	int q;

	ASSERT_TRUE(side_create(&self->side, load(_metadata), VCPUS));
	count_exits(self->side.vmm, &self->exits, 0);
	for (q = 0; q < REGION_QUEUES; q++) {
		self->fd[q] = new_eventfd();
		ASSERT_LE(0, self->fd[q]);
	}
}

FIXTURE_TEARDOWN(busy)
{
	int q;

	side_destroy(&self->side);
	for (q = 0; q < REGION_QUEUES; q++)
		close(self->fd[q]);
}

static int busy_call(FIXTURE_DATA(busy) *self, __u32 len, __u32 flags, int q)
{
	return call_fd(&self->side, BASE + q * REGION_STRIDE, len, flags, 0,
		       self->fd[q]);
}

/* Assign a queue's ioeventfd, or deassign it: then nothing signals any more. */
static void toggle(struct __test_metadata *_metadata, FIXTURE_DATA(busy) *self,
		   __u32 len, bool *on, int q)
{
	ASSERT_EQ(0, busy_call(self, len, on[q] ? DEASSIGN : 0, q));
	on[q] = !on[q];
	self->count[q] += take_count(self->fd[q]);
	if (on[q])
		return;
	usleep(500);
	ASSERT_EQ(0, take_count(self->fd[q]));
}

/* Each ring signals or exits; also if the page has one ioeventfd, then none. */
TEST_F_TIMEOUT(busy, reassign, TEST_SECONDS)
{
	const __u32 len = variant->len;
	const __u64 end = db_until(3000), end_of_one = db_until(5000);
	bool on[REGION_QUEUES] = {};
	__u32 x = 7, signals = 0;
	unsigned int i;
	int q;

	for (q = 0; q < REGION_QUEUES; q++)
		toggle(_metadata, self, len, on, q);
	ASSERT_EQ(0, start_ringing(self->side.vmm, 0));
	for (i = 0; db_round(i, 20, 400, end); i++)
		toggle(_metadata, self, len, on,
		       db_random(&x) % REGION_QUEUES);
	ASSERT_EQ(1, regions());
	for (q = 0; q < REGION_QUEUES; q++)
		if (on[q])
			toggle(_metadata, self, len, on, q);
	ASSERT_EQ(0, regions());
	for (i = 0; db_round(i, 20, 200, end_of_one); i++)
		toggle(_metadata, self, len, on, 1 + i % 4 / 2);
	ASSERT_EQ(0, stop_ringing(self->side.vmm));
	for (q = 0; q < REGION_QUEUES; q++) {
		self->count[q] += take_count(self->fd[q]);
		signals += !!self->count[q];
		ASSERT_EQ(guest_count(self->side.vmm->shared, q),
			  self->count[q] + self->exits.count[q]) {
			TH_LOG("queue %d: %llu signals, %llu exits", q,
			       self->count[q], self->exits.count[q]);
		}
	}
	ASSERT_LT(0, signals);
	ASSERT_EQ(0, self->exits.other);
}

/*
 * A page goes to KVM while the guest rings: no ring reaches the VMM. KVM begins
 * its search in the middle of the bus: there, with as many devices below.
 */
TEST_F_TIMEOUT(busy, evict, TEST_SECONDS)
{
	const __u32 len = variant->len;
	const __u64 end = db_until(6000);
	unsigned int i, round;
	int q;

	for (i = 0; i < REGION_QUEUES; i++)
		ASSERT_EQ(0, call(&self->side, BASE - PAGE + 2 * i + 1,
				  len ? 1 : 0, 0, 0, 0));
	ASSERT_EQ(0, regions());
	for (q = 0; q < REGION_QUEUES; q++)
		ASSERT_EQ(0, busy_call(self, len, 0, q));
	ASSERT_EQ(0, start_ringing(self->side.vmm, 0));
	for (i = 0; db_round(i, 10, 300, end); i++) {
		ASSERT_EQ(1, regions());
		ASSERT_TRUE(eventually(bound_rings() > 10));
		ASSERT_EQ(0, call(&self->side, BASE + 0x800, 2, 0, 0, 0));
		ASSERT_EQ(0, regions());
		round = vmm_rings(self->side.vmm->shared, 0);
		ASSERT_TRUE(eventually(vmm_rings(self->side.vmm->shared, 0) >
				       round + 10));
		ASSERT_EQ(0, vmm_exits(self->side.vmm)) {
			TH_LOG("in round %u", i);
		}

		/* back to the region: the guest waits, so all reach it */
		ASSERT_EQ(0, stop_ringing(self->side.vmm));
		ASSERT_EQ(0, call(&self->side, BASE + 0x800, 2, DEASSIGN, 0,
				  0));
		for (q = 0; q < REGION_QUEUES; q++)
			ASSERT_EQ(0, busy_call(self, len, DEASSIGN, q));
		for (q = 0; q < REGION_QUEUES; q++)
			ASSERT_EQ(0, busy_call(self, len, 0, q));
		ASSERT_EQ(0, start_ringing(self->side.vmm, 0));
	}
	ASSERT_EQ(0, stop_ringing(self->side.vmm));
	for (q = 0; q < REGION_QUEUES; q++)
		ASSERT_EQ(guest_count(self->side.vmm->shared, q),
			  take_count(self->fd[q]));
	ASSERT_EQ(0, vmm_exits(self->side.vmm));
}

/* The same for ports, each of which is a region */
TEST_F_TIMEOUT(alone, evict_ports, TEST_SECONDS)
{
	struct side side = {};
	struct exits exits = {};
	unsigned int i;
	int fd, q;

	ASSERT_TRUE(side_create(&side, self->side.ioctl, VCPUS));
	count_exits(side.vmm, &exits, PIO);
	fd = new_eventfd();
	for (q = 0; q < REGION_QUEUES; q++)
		ASSERT_EQ(0, call_fd(&side, PORT + q * REGION_STRIDE, 4,
				     ASSIGN_PIO, 0, fd));
	ASSERT_EQ(0, start_ringing(side.vmm, PIO));
	for (q = 0; q < REGION_QUEUES; q++) {
		i = vmm_rings(side.vmm->shared, 0);
		ASSERT_TRUE(eventually(vmm_rings(side.vmm->shared, 0) >
				       i + 10));
		ASSERT_EQ(0, call(&side, PORT + q * REGION_STRIDE, 2,
				  ASSIGN_PIO, 0, 0));
		ASSERT_EQ(REGION_QUEUES - 1 - q, regions());
		ASSERT_EQ(0, vmm_exits(side.vmm)) {
			TH_LOG("port %d", q);
		}
	}
	ASSERT_EQ(0, stop_ringing(side.vmm));
	ASSERT_EQ(0, vmm_exits(side.vmm));
	ASSERT_EQ(guest_total(side.vmm->shared), take_count(fd));
	side_destroy(&side);
	close(fd);
}

/* Threads of the VMM, each with queues of its own in the same page */

static struct thread_arg {
	FIXTURE_DATA(busy) *self;
	__u32 len;
	int first;
} thread_args[4];

static void *assign_thread(void *arg)
{
	struct thread_arg *t = arg;
	long failed = 0;
	int i, q;

	for (i = 0; i < 10; i++) {
		for (q = t->first; q < REGION_QUEUES; q += 4)
			failed += !!busy_call(t->self, t->len, 0, q);
		for (q = t->first; q < REGION_QUEUES && i < 9; q += 4)
			failed += !!busy_call(t->self, t->len, DEASSIGN, q);
	}
	return (void *)failed;
}

TEST_F_TIMEOUT(busy, threads, TEST_SECONDS)
{
	pthread_t threads[4];
	void *failed;
	int i;

	for (i = 0; i < 4; i++) {
		thread_args[i] = (struct thread_arg){
			.self = self, .len = variant->len, .first = i
		};
		ASSERT_EQ(0, pthread_create(&threads[i], NULL, assign_thread,
					    &thread_args[i]));
	}
	for (i = 0; i < 4; i++) {
		ASSERT_EQ(0, pthread_join(threads[i], &failed));
		ASSERT_EQ(NULL, failed);
	}
	ASSERT_EQ(1, regions());
	for (i = 0; i < REGION_QUEUES; i++) {
		ASSERT_EQ(0, ring(&self->side, BASE + i * REGION_STRIDE));
		ASSERT_EQ(1, take_count(self->fd[i]));
	}
	ASSERT_EQ(0, vmm_exits(self->side.vmm));
}

/* The call is no cancellation point, as ioctl() is none. */
static void *call_cancelled(void *arg)
{
	FIXTURE_DATA(busy) *self = arg;
	long ret;

	pthread_cancel(pthread_self());
	ret = busy_call(self, 0, 0, 0) ?: busy_call(self, 0, DEASSIGN, 0);
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
	return (void *)ret;
}

TEST_F_TIMEOUT(busy, cancelled_thread, TEST_SECONDS)
{
	pthread_t thread;
	void *ret;

	ASSERT_EQ(0, pthread_create(&thread, NULL, call_cancelled, self));
	ASSERT_EQ(0, pthread_join(thread, &ret));
	ASSERT_EQ(NULL, ret);
	ASSERT_EQ(0, busy_call(self, 0, 0, 0));
	ASSERT_EQ(1, regions());
}

/* A process forks while a thread of it calls. */
TEST_F_TIMEOUT(busy, fork_with_threads, TEST_SECONDS)
{
	struct side own = {};
	pthread_t thread;
	int i, status = 0;
	void *failed;
	pid_t pid;

	thread_args[0] = (struct thread_arg){
		.self = self, .len = variant->len, .first = 0
	};
	ASSERT_EQ(0, pthread_create(&thread, NULL, assign_thread,
				    &thread_args[0]));
	for (i = 0; i < 20 && !status; i++) {
		pid = fork();
		if (!pid) {
			alarm(TEST_SECONDS / 2);
			if (regions() ||
			    !side_create(&own, self->side.ioctl, 1))
				_exit(1);
			_exit(call(&own, BASE, 0, 0, 0, 0) || regions() != 1);
		}
		status = ended(pid);
	}
	ASSERT_EQ(0, pthread_join(thread, &failed));
	ASSERT_EQ(0, status);
	ASSERT_EQ(NULL, failed);
}

/* A VMM of its own, with LD_PRELOAD */

static void on_usr2(int sig)
{
	static const char text[] = "own handler\n";

	if (write(STDERR_FILENO, text, sizeof(text) - 1) < 0)
		_exit(1);
}

/* What the program does with PRELOAD_VMM in its environment */
static int vmm_main(const char *role)
{
	struct side side = {};
	int i, vm_fd = 900;

	if (!strcmp(role, "handler"))
		signal(SIGUSR2, on_usr2);
	if (!side_create(&side, ioctl, 1) ||
	    dup2(side.vmm->vm_fd, vm_fd) != vm_fd)
		return 1;
	close(side.vmm->vm_fd);
	side.vmm->vm_fd = vm_fd;
	if (!strcmp(role, "idle"))
		return 0;
	for (i = 0; i < 2; i++)
		if (call(&side, BASE + 4 * i, 0, 0, 0, i) ||
		    call(&side, PORT, 2, ASSIGN_PIO | MATCH, 3 + i, i))
			return 2;
	for (i = 0; i < 3; i++)
		if (ring(&side, BASE + 4) ||
		    vmm_op(side.vmm, 0, GUEST_PIO_OUT, 2, PORT, 3))
			return 3;
	raise(SIGUSR2);
	/* the counts go on after a reset */
	for (i = 0; i < 2; i++)
		if (call(&side, BASE + 4 * i, 0, DEASSIGN, 0, i))
			return 4;
	if (call(&side, BASE + 4, 0, 0, 0, 1) || ring(&side, BASE + 4) ||
	    call(&side, BASE + 4, 0, DEASSIGN, 0, 1))
		return 5;
	if (take_count(side.fd[0]) != 3 || take_count(side.fd[1]) != 4)
		return 6;
	return 0;
}

static void __attribute__((constructor)) act_as_vmm(void)
{
	const char *role = getenv("PRELOAD_VMM");

	if (role)
		exit(vmm_main(role));
}

/* Run the program with the library; return its status, and what it prints. */
static int run_vmm(const char *role, const char *stats, char *text, size_t size)
{
	size_t used = 0;
	int fds[2], n;
	pid_t pid;

	if (pipe(fds))
		return -errno;
	pid = fork();
	if (!pid) {
		dup2(fds[1], STDERR_FILENO);
		if (!strcmp(role, "ignore"))
			signal(SIGUSR2, SIG_IGN);
		setenv("LD_PRELOAD", library(), 1);
		setenv("PRELOAD_VMM", role, 1);
		setenv("DOORBELL_STATS", stats, 1);
		execl("/proc/self/exe", "preload", NULL);
		_exit(127);
	}
	close(fds[1]);
	while ((n = read(fds[0], text + used, size - 1 - used)) > 0)
		used += n;
	text[used] = '\0';
	close(fds[0]);
	return db_wait_status(pid);
}

#define PORT_STATS							\
	"doorbell: vm 900, port 0x1000: 2 queues, 3 rings\n"		\
	"doorbell:   queue 3: 3 rings\n"				\
	"doorbell:   queue 4: 0 rings\n"

#define STATS_BEFORE PORT_STATS						\
	"doorbell: vm 900, mmio 0xd0000000: 2 queues, 3 rings\n"	\
	"doorbell:   address 0xd0000000: 0 rings\n"			\
	"doorbell:   address 0xd0000004: 3 rings\n"

#define STATS_AFTER PORT_STATS						\
	"doorbell: vm 900, mmio 0xd0000000: 2 queues, 4 rings, detached\n" \
	"doorbell:   address 0xd0000000: 0 rings\n"			\
	"doorbell:   address 0xd0000004: 4 rings\n"

TEST(statistics)
{
	char text[4096];

	ASSERT_EQ(0, run_vmm("plain", "1", text, sizeof(text)));
	ASSERT_STREQ(STATS_BEFORE STATS_AFTER, text);
	/* SIGUSR2 is the VMM's if it wants it */
	ASSERT_EQ(0, run_vmm("handler", "1", text, sizeof(text)));
	ASSERT_STREQ("own handler\n" STATS_AFTER, text);
	ASSERT_EQ(0, run_vmm("ignore", "1", text, sizeof(text)));
	ASSERT_STREQ(STATS_AFTER, text);
	/* and none without a reason */
	ASSERT_EQ(0, run_vmm("idle", "1", text, sizeof(text)));
	ASSERT_STREQ("", text);
	ASSERT_EQ(0, run_vmm("ignore", "", text, sizeof(text)));
	ASSERT_STREQ("", text);
	ASSERT_EQ(0, run_vmm("ignore", "0", text, sizeof(text)));
	ASSERT_STREQ("", text);
	ASSERT_EQ(0x100 + SIGUSR2, run_vmm("plain", "0", text, sizeof(text)));
}

/* Statistics of this process: send standard error to a file, or back. */

static int stats_begin(int *saved)
{
	int text = memfd_create("statistics", MFD_CLOEXEC);

	*saved = dup(STDERR_FILENO);
	return dup2(text, STDERR_FILENO) < 0 ? -errno : text;
}

static void stats_end(int saved)
{
	dup2(saved, STDERR_FILENO);
	close(saved);
}

/* How often is @part in a file? */
static unsigned int occurrences(int file, const char *part)
{
	const size_t size = 1 << 20;
	char *text = calloc(1, size), *next = text;
	unsigned int n = 0;

	if (!text || pread(file, text, size - 1, 0) < 0)
		next = NULL;
	for (; next && (next = strstr(next, part)); next++)
		n++;
	free(text);
	return n;
}

/* A guest that moves a BAR all the time: the list has an end. */
TEST(statistics_of_moves)
{
	struct side side = {};
	unsigned int i, failed = 0;
	int file, saved;

	setenv("DOORBELL_STATS", "1", 1);
	ASSERT_TRUE(side_create(&side, load(_metadata), 1));
	for (i = 0; i < 300; i++) {
		failed += call(&side, BASE + i * PAGE, 8, 0, 0, 0) ||
			  vmm_op(side.vmm, 0, GUEST_MMIO_WRITE, 8,
				 BASE + i * PAGE, 0) ||
			  call(&side, BASE + i * PAGE, 8, DEASSIGN, 0, 0);
	}
	file = stats_begin(&saved);
	raise(SIGUSR2);
	stats_end(saved);
	ASSERT_EQ(0, failed);
	ASSERT_EQ(300, take_count(side.fd[0]));
	ASSERT_EQ(256, occurrences(file, "1 rings, detached"));
	ASSERT_EQ(1, occurrences(file, "doorbell: 44 rings of earlier"));

	/* what was never a region takes no place of these */
	ASSERT_EQ(0, rename(DB_PATH, DB_PATH "-away"));
	for (i = 300; i < 600; i++)
		failed += !!call(&side, BASE + i * PAGE, 8, 0, 0, 0);
	ASSERT_EQ(0, rename(DB_PATH "-away", DB_PATH));
	file = stats_begin(&saved);
	raise(SIGUSR2);
	stats_end(saved);
	ASSERT_EQ(0, failed);
	ASSERT_EQ(256, occurrences(file, "1 rings, detached"));
	side_destroy(&side);
}

/* Regions that the VMM removes at its end: all of them are listed. */
TEST(statistics_of_the_end)
{
	const __u32 flags = ASSIGN_PIO, len = 4;
	unsigned int i, failed = 0;
	struct side side = {};
	int file, saved;

	setenv("DOORBELL_STATS", "1", 1);
	ASSERT_TRUE(side_create(&side, load(_metadata), 1));
	for (i = 0; i < 300; i++)
		failed += !!call(&side, PORT + i * 4, len, flags, 0, 0);
	for (i = 0; i < 300; i++)
		failed += !!call(&side, PORT + i * 4, len, flags | DEASSIGN, 0,
				 0);
	file = stats_begin(&saved);
	raise(SIGUSR2);
	stats_end(saved);
	ASSERT_EQ(0, failed);
	ASSERT_EQ(300, occurrences(file, "0 rings, detached"));
	side_destroy(&side);
}

/* A page goes to KVM, and the one behind it in the list is the oldest. */
TEST(statistics_of_the_oldest)
{
	struct side side = {};
	int i;

	setenv("DOORBELL_STATS", "1", 1);
	ASSERT_TRUE(side_create(&side, load(_metadata), 1));
	ASSERT_EQ(0, call(&side, BASE, 4, 0, 0, 0));
	ASSERT_EQ(0, call(&side, BASE + PAGE, 4, 0, 0, 1));
	ASSERT_EQ(0, call(&side, BASE, 4, DEASSIGN, 0, 0));
	for (i = 2; i < 257; i++) {
		ASSERT_EQ(0, call(&side, BASE + i * PAGE, 4, 0, 0, 0));
		ASSERT_EQ(0, call(&side, BASE + i * PAGE, 4, DEASSIGN, 0, 0));
	}
	ASSERT_EQ(0, call(&side, BASE + PAGE + 8, 2, 0, 0, 2));
	ASSERT_EQ(0, regions());
	ASSERT_EQ(0, ring(&side, BASE + PAGE));
	ASSERT_EQ(1, take_count(side.fd[1]));
	side_destroy(&side);
}

static bool stop_calling;

static void *call_again(void *arg)
{
	long failed = 0;

	while (!__atomic_load_n(&stop_calling, __ATOMIC_RELAXED))
		failed += call(arg, BASE, 0, 0, 0, 0) ||
			  call(arg, BASE, 0, DEASSIGN, 0, 0);
	return (void *)failed;
}

/* SIGUSR2 while a call is under way: the statistics come at its end. */
TEST(statistics_of_calls)
{
	struct side side = {};
	int text, saved, i;
	pthread_t thread;
	bool ok = true;
	void *failed;
	off_t end;

	setenv("DOORBELL_STATS", "1", 1);
	ASSERT_TRUE(side_create(&side, load(_metadata), 1));
	ASSERT_EQ(0, call(&side, BASE + 4, 0, 0, 0, 1));
	ASSERT_EQ(0, pthread_create(&thread, NULL, call_again, &side));
	text = stats_begin(&saved);
	for (i = 0; ok && i < 50; i++) {
		end = lseek(text, 0, SEEK_END);
		raise(SIGUSR2);
		ok = eventually(lseek(text, 0, SEEK_END) > end);
	}
	__atomic_store_n(&stop_calling, true, __ATOMIC_RELAXED);
	pthread_join(thread, &failed);
	stats_end(saved);
	ASSERT_EQ(NULL, failed);
	ASSERT_TRUE(ok) {
		TH_LOG("signal %d", i);
	}
	side_destroy(&side);
}

/* Threads that end while the library prints: none takes the lock along. */

static pid_t paused;

static void *pause_until_cancelled(void *type)
{
	pthread_setcanceltype((long)type, NULL);
	__atomic_store_n(&paused, db_gettid(), __ATOMIC_RELEASE);
	while (pause())
		;
	return NULL;
}

/* A pipe that is full */
static bool full_pipe(int fds[2])
{
	static const char page[PAGE];

	if (pipe2(fds, O_CLOEXEC | O_NONBLOCK))
		return false;
	while (write(fds[1], page, sizeof(page)) > 0)
		;
	return errno == EAGAIN && !fcntl(fds[1], F_SETFL, 0);
}

static void cancel_in_print(struct __test_metadata *_metadata, long type)
{
	struct side side = {};
	int fds[2], saved;
	char text[PAGE];
	pthread_t thread;
	bool sleeps;

	setenv("DOORBELL_STATS", "1", 1);
	ASSERT_TRUE(side_create(&side, load(_metadata), 1));
	ASSERT_EQ(0, call(&side, BASE, 0, 0, 0, 0));
	ASSERT_TRUE(full_pipe(fds));
	ASSERT_EQ(0, pthread_create(&thread, NULL, pause_until_cancelled,
				    (void *)type));
	ASSERT_TRUE(eventually(__atomic_load_n(&paused, __ATOMIC_ACQUIRE)));
	saved = dup(STDERR_FILENO);
	dup2(fds[1], STDERR_FILENO);
	pthread_kill(thread, SIGUSR2);
	sleeps = !db_wait_sleeping(getpid(), paused, SYS_write);
	pthread_cancel(thread);
	while (read(fds[0], text, sizeof(text)) > 0)
		;
	pthread_join(thread, NULL);
	stats_end(saved);
	ASSERT_TRUE(sleeps);
	ASSERT_EQ(0, call(&side, BASE, 0, DEASSIGN, 0, 0));
	side_destroy(&side);
}

TEST(statistics_of_cancelled_thread)
{
	cancel_in_print(_metadata, PTHREAD_CANCEL_DEFERRED);
}

TEST(statistics_of_thread_cancelled_at_once)
{
	cancel_in_print(_metadata, PTHREAD_CANCEL_ASYNCHRONOUS);
}

/* Called with the library's lock, as it was registered before the library's */
static void usr2_at_fork(void)
{
	raise(SIGUSR2);
}

static void *fork_cancelled(void *arg)
{
	pid_t pid;

	pthread_cancel(pthread_self());
	pid = fork();
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, NULL);
	if (!pid)
		_exit(call(arg, BASE, 0, 0, 0, 0) == -EIO && !regions() ?
		      42 : 1);
	return (void *)(long)pid;
}

/* fork() is no cancellation point, neither in the parent nor in the child. */
TEST(statistics_of_cancelled_fork)
{
	struct side side = {};
	pthread_t thread;
	int text, saved;
	void *pid;

	setenv("DOORBELL_STATS", "1", 1);
	ASSERT_EQ(0, pthread_atfork(usr2_at_fork, NULL, NULL));
	ASSERT_TRUE(side_create(&side, load(_metadata), 1));
	ASSERT_EQ(0, call(&side, BASE, 0, 0, 0, 0));
	text = stats_begin(&saved);
	ASSERT_EQ(0, pthread_create(&thread, NULL, fork_cancelled, &side));
	pthread_join(thread, &pid);
	stats_end(saved);
	ASSERT_EQ(0, call(&side, BASE + 4, 0, 0, 0, 1));
	ASSERT_NE(PTHREAD_CANCELED, pid);
	ASSERT_EQ(42, ended((long)pid));
	ASSERT_EQ(1, occurrences(text, "address 0xd0000000: 0 rings"));
	side_destroy(&side);
}

/* Stay wherever the signal comes, while the guest rings. */
static void on_alarm(int sig)
{
	usleep(1000);
}

/* The last DEASSIGN, while the guest rings: no ring is missing. */
TEST(statistics_of_rings)
{
	struct guest_job job = {
		.kind = GUEST_STORM, .width = 4, .base = BASE, .stride = 4,
		.range = { { .first = 0, .nr = 1 } },
	};
	struct itimerval timer = {};
	const __u64 end = db_until(3000);
	unsigned int i, v, failed = 0;
	char line[4096] = "", *printed;
	struct side side = {};
	__u64 counted = 0;
	int text, saved;
	sigset_t alarm;

	setenv("DOORBELL_STATS", "1", 1);
	sigemptyset(&alarm);
	sigaddset(&alarm, SIGALRM);
	pthread_sigmask(SIG_BLOCK, &alarm, NULL);
	ASSERT_TRUE(side_create(&side, load(_metadata), VCPUS));
	for (v = 0; v < VCPUS; v++) {
		ASSERT_EQ(0, vmm_job(side.vmm, v, &job));
		ASSERT_EQ(0, vmm_thread_start(side.vmm, v));
	}
	/* for this thread, as the others have it blocked */
	signal(SIGALRM, on_alarm);
	pthread_sigmask(SIG_UNBLOCK, &alarm, NULL);
	for (i = 0; db_round(i, 20, 400, end); i++) {
		failed += !!call(&side, BASE, 0, 0, 0, 0);
		usleep(500);
		timer.it_value.tv_usec = 100 + i % 30 * 100;
		setitimer(ITIMER_REAL, &timer, NULL);
		failed += !!call(&side, BASE, 0, DEASSIGN, 0, 0);
		counted += take_count(side.fd[0]);
	}
	ASSERT_EQ(0, stop_ringing(side.vmm));
	text = stats_begin(&saved);
	raise(SIGUSR2);
	stats_end(saved);
	ASSERT_EQ(0, failed);
	ASSERT_LT(0, pread(text, line, sizeof(line) - 1, 0));
	printed = strstr(line, "queues, ");
	ASSERT_NE(NULL, printed);
	ASSERT_LT(0, counted);
	ASSERT_EQ(counted, strtoull(printed + 8, NULL, 10)) {
		TH_LOG("%s", line);
	}
	side_destroy(&side);
}

TEST_HARNESS_MAIN
