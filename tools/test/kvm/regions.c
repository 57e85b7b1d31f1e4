// SPDX-License-Identifier: GPL-2.0
/*
 * Regions: a preload for KVM's selftests. It attaches regions to each VM that
 * the test creates: over all I/O ports, and over the addresses that tests write
 * to. Each write of a guest passes through the module and must reach the test.
 *
 * $REGIONS says why the module declines all writes: "bound", as no queue of a
 * DOORBELL_ATTACH_BOUND_ONLY region is bound, or "full", as the ordered regions
 * have no room; then the module counts the writes. One more region is an
 * ordinary one, at an address that no test uses.
 *
 * Appends lines to the file $BOOKS: "vm" for each VM, "writes NUMBER" for each
 * VM whose regions are closed, "error WHAT" if something fails.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <linux/doorbell.h>
#include <linux/kvm.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#define ARRAY_SIZE(array)	(sizeof(array) / sizeof((array)[0]))
#define PIO			DOORBELL_ATTACH_PIO
#define BY_VALUE		DOORBELL_ATTACH_BY_VALUE
#define NO_VALUE		DOORBELL_ATTACH_NO_VALUE
#define MISS			(1U << 31)	/* the ordinary region */

/*
 * KVM's own devices come later, so leave out what they take: PICs (0x20, 0xa0,
 * 0x4d0), PIT (0x40), speaker (0x61) and I/O APIC (0xfec00000). Guest memory
 * hides what it covers.
 */
static const struct {
	uint64_t base;
	uint64_t end;
	uint32_t stride;
	uint32_t flags;
} regions[] = {
	{ 0x0, 0x20, 4, PIO },
	{ 0x22, 0x40, 2, PIO },
	{ 0x44, 0x60, 4, PIO },
	{ 0x62, 0xa0, 2, PIO },
	{ 0xa2, 0x4d0, 2, PIO },
	{ 0x4d2, 0x1000, 2, PIO },
	{ 0x1000, 0x10000, 0x1000, PIO },
	{ 0x0, 0xfec00000, 0x10000, BY_VALUE },
	{ 0xfec10000, 0x100000000, 0x10000, 0 },
	{ 0x100000000, 0x100100000, 0x1000, NO_VALUE },
	{ 0x100100000, 0x200000000, 0x10000, BY_VALUE },
	{ 0x700000000, 0x700010000, 0x10, 0 },
	{ 0x3ffff0000000, 0x3ffff0001000, 4, MISS },
};

#define NR_REGIONS	ARRAY_SIZE(regions)
#define NR_VMS		64

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
/* The regions of the last VMs, until the oldest has to make room. */
static int vms[NR_VMS][NR_REGIONS];
static unsigned int nr_vms;
static pid_t owner;	/* of the regions: not a child of fork() */

__attribute__((format(printf, 1, 2))) static void book(const char *format, ...)
{
	int fd = open(getenv("BOOKS"), O_WRONLY | O_APPEND | O_CLOEXEC);
	va_list args;

	va_start(args, format);
	if (fd < 0 || vdprintf(fd, format, args) < 0)
		abort();
	va_end(args);
	close(fd);
}

static int call(int fd, unsigned long request, void *arg)
{
	return syscall(SYS_ioctl, fd, request, arg);
}

/* A consumer whose descriptor is where no test expects one of its own. */
static int open_consumer(void)
{
	struct rlimit limit;
	int fd, high;

	if (getrlimit(RLIMIT_NOFILE, &limit))
		return -1;
	fd = open("/dev/doorbell", O_RDWR | O_CLOEXEC);
	if (fd < 0)
		return -1;
	high = fcntl(fd, F_DUPFD_CLOEXEC,
		     (int)limit.rlim_cur - (int)(NR_VMS * NR_REGIONS) - 1);
	close(fd);
	return high;
}

static int attach(int vm, unsigned int i, int full)
{
	uint32_t flags = regions[i].flags & ~MISS;
	struct doorbell_attach region = {
		.size = sizeof(region),
		.vm_fd = vm,
		.base = regions[i].base,
		.len = regions[i].end - regions[i].base,
		.stride = regions[i].stride,
		.queues = !!(flags & BY_VALUE),
		.flags = flags,
	};
	struct doorbell_ring ring = { .addr = region.base };
	int fd = open_consumer();

	if (fd < 0) {
		book("error: open: %s\n", strerror(errno));
		return fd;
	}
	if (regions[i].flags & MISS)
		full = 0;
	else if (full)
		region.depth = 1, region.flags |= DOORBELL_ATTACH_ORDERED;
	else
		region.flags |= DOORBELL_ATTACH_BOUND_ONLY;
	if (call(fd, DOORBELL_ATTACH, &region) ||
	    (full && write(fd, &ring, sizeof(ring)) != sizeof(ring)))
		book("error: attach %#llx: %s\n", region.base, strerror(errno));
	return fd;
}

/* Add up what a VM's regions counted, and close them. */
static void leave(const int *fds)
{
	unsigned long long writes = 0;
	unsigned int i;

	for (i = 0; i < NR_REGIONS; i++) {
		struct doorbell_info info = { .size = sizeof(info) };
		unsigned int rings;

		if (call(fds[i], DOORBELL_INFO, &info))
			book("error: info: %s\n", strerror(errno));
		/* the ring by write() that fills the region */
		rings = !!(info.flags & DOORBELL_ATTACH_ORDERED);
		if (info.rings != rings || info.bad_rings)
			book("error: %#llx: rings %llu, bad %llu\n", info.base,
			     info.rings, info.bad_rings);
		writes += info.bounced;
		close(fds[i]);
	}
	book("writes %llu\n", writes);
}

static void created(int vm)
{
	int full = !strcmp(getenv("REGIONS"), "full");
	int *fds;
	unsigned int i;

	pthread_mutex_lock(&lock);
	/* the parent books its own regions */
	if (owner != getpid())
		nr_vms = 0;
	owner = getpid();
	fds = vms[nr_vms % NR_VMS];
	if (nr_vms++ >= NR_VMS)
		leave(fds);
	for (i = 0; i < NR_REGIONS; i++)
		fds[i] = attach(vm, i, full);
	book("vm 1\n");
	pthread_mutex_unlock(&lock);
}

__attribute__((destructor)) static void finish(void)
{
	unsigned int i;

	for (i = 0; owner == getpid() && i < NR_VMS && i < nr_vms; i++)
		leave(vms[i]);
}

int ioctl(int fd, unsigned long request, ...)
{
	va_list args;
	void *arg;
	int ret;

	va_start(args, request);
	arg = va_arg(args, void *);
	va_end(args);
	ret = call(fd, request, arg);
	if (request == KVM_CREATE_VM && ret >= 0) {
		int error = errno;

		created(ret);
		errno = error;
	}
	return ret;
}
