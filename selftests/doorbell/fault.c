// SPDX-License-Identifier: GPL-2.0
/*
 * Fault: each allocation fails once. Attach then fails with ENOMEM and changes
 * nothing; detach never fails. This needs a kernel with fault injection.
 *
 * Detach without memory pins the module until the next boot, so this program
 * has to run last.
 */
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>

#include "vmutil.h"

#define DEBUGFS	"/sys/kernel/debug/"

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

FIXTURE(fault) {
	struct vmm *vmm;
	int fd;
	int nth;
};

FIXTURE_SETUP(fault)
{
	self->nth = open("/proc/thread-self/fail-nth", O_RDWR | O_CLOEXEC);
	if (self->nth < 0)
		SKIP(return, "no fail-nth in /proc: no CONFIG_FAULT_INJECTION");
	/* the module's allocations may sleep: let these fail, too */
	if (db_write_file(DEBUGFS "failslab/ignore-gfp-wait", "N"))
		SKIP(return, "no failslab in debugfs: no CONFIG_FAILSLAB");
	db_write_file(DEBUGFS "fail_page_alloc/ignore-gfp-wait", "N");
	db_write_file(DEBUGFS "fail_page_alloc/ignore-gfp-highmem", "N");
	db_write_file(DEBUGFS "fail_page_alloc/min-order", "0");

	self->fd = db_must_open(_metadata, O_NONBLOCK);
	self->vmm = vmm_create(1);
	ASSERT_NE(NULL, self->vmm);
}

FIXTURE_TEARDOWN(fault)
{
	db_write_file(DEBUGFS "failslab/probability", "0");
	close(self->fd);
	vmm_destroy(self->vmm);
}

/* Make the @n-th call that can fail in this thread fail. */
static int fail_at(int nth, unsigned int n)
{
	char text[16];
	int len = snprintf(text, sizeof(text), "%u", n);

	return pwrite(nth, text, len, 0) == len ? 0 : -errno;
}

/*
 * Has the n-th call failed? The calls here can be the n-th one, so a failed try
 * to stop the injection is repeated.
 */
static bool has_failed(int nth)
{
	char text[16] = {};
	bool failed;

	failed = pread(nth, text, sizeof(text) - 1, 0) > 0 && !atoi(text);
	if (fail_at(nth, 0))
		fail_at(nth, 0);
	return failed;
}

/* A guest's write is an event if the region is attached, otherwise an exit. */
static void check_ring(struct __test_metadata *_metadata, struct vmm *vmm,
		       int fd, bool attached)
{
	__u64 exits = vmm_exits(vmm);
	struct doorbell_event events[2];

	ASSERT_EQ(0, vmm_op(vmm, 0, GUEST_MMIO_WRITE, 4,
			    MMIO_BASE + REGION_STRIDE, 5));
	ASSERT_EQ(exits + !attached, vmm_exits(vmm));
	ASSERT_EQ(attached, read_now(fd, events, 2));
	if (attached)
		ASSERT_TRUE(db_event_is(&events[0], 1, 1, 5));
}

/* Attach changes nothing if any one of its allocations fails. */
TEST_F_TIMEOUT(fault, attach, TEST_SECONDS)
{
	struct db_snapshot before, after;
	int ret, no_memory = 0, refs = db_module_refs();
	unsigned int n;
	bool failed;

	for (n = 1; n < 1000; n++) {
		ASSERT_EQ(0, db_snapshot(self->fd, &before));
		ASSERT_EQ(0, fail_at(self->nth, n));
		ret = attach_region(self->fd, self->vmm->vm_fd, 0);
		failed = has_failed(self->nth);
		if (!failed)
			break;
		if (ret) {
			/* the copy from user space can fail, too */
			if (ret != -EFAULT)
				ASSERT_EQ(-ENOMEM, ret);
			no_memory += ret == -ENOMEM;
			ASSERT_EQ(0, db_snapshot(self->fd, &after));
			ASSERT_TRUE(db_same(&before, &after));
			check_ring(_metadata, self->vmm, self->fd, false);
			ASSERT_EQ(0,
				  attach_region(self->fd, self->vmm->vm_fd, 0));
		}
		check_ring(_metadata, self->vmm, self->fd, true);
		ASSERT_EQ(0, db_detach(self->fd));
		check_ring(_metadata, self->vmm, self->fd, false);
	}
	ASSERT_EQ(0, ret);
	ASSERT_FALSE(failed);
	check_ring(_metadata, self->vmm, self->fd, true);
	/* it allocates region, buffer, registration and bus at least */
	ASSERT_LE(4, no_memory);
	ASSERT_EQ(refs, db_module_refs());
}

/*
 * The placeholder that detach left on the bus blocks nothing: no region in the
 * same place or across its edges, no device of KVM.
 */
static void check_free(struct __test_metadata *_metadata, struct vmm *vmm,
		       int fd, unsigned int way)
{
	int efd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
	struct doorbell_event event;
	__u64 count;

	ASSERT_LE(0, efd);
	check_ring(_metadata, vmm, fd, false);
	switch (way % 3) {
	case 0:
		break;
	case 1:
		ASSERT_EQ(0, db_attach_as(fd, vmm->vm_fd,
					  MMIO_BASE - REGION_LEN / 2,
					  REGION_LEN, 4, 0));
		ASSERT_EQ(0, vmm_op(vmm, 0, GUEST_MMIO_WRITE, 4, MMIO_BASE, 6));
		ASSERT_EQ(1, read_now(fd, &event, 1));
		ASSERT_TRUE(db_event_is(&event, REGION_LEN / 2 / 4, 1, 6));
		ASSERT_EQ(0, db_detach(fd));
		break;
	case 2:
		ASSERT_EQ(0, vmm_ioeventfd(vmm, MMIO_BASE + REGION_STRIDE, 4,
					   efd, 0));
		ASSERT_EQ(0, vmm_op(vmm, 0, GUEST_MMIO_WRITE, 4,
				    MMIO_BASE + REGION_STRIDE, 7));
		ASSERT_EQ(sizeof(count), read(efd, &count, sizeof(count)));
		ASSERT_EQ(1, count);
		ASSERT_EQ(-EEXIST, attach_region(fd, vmm->vm_fd, 0));
		ASSERT_EQ(0, vmm_ioeventfd(vmm, MMIO_BASE + REGION_STRIDE, 4,
					   efd, KVM_IOEVENTFD_FLAG_DEASSIGN));
		break;
	}
	close(efd);
	ASSERT_EQ(0, attach_region(fd, vmm->vm_fd, 0));
	check_ring(_metadata, vmm, fd, true);
	ASSERT_EQ(0, db_detach(fd));
	check_ring(_metadata, vmm, fd, false);
}

/* Detach, or close(), succeeds whichever of its allocations fails. */
static void detach_without_memory(struct __test_metadata *_metadata,
				  struct vmm *vmm, int *fd, int nth,
				  bool by_close)
{
	int ret, refs, pinned = 0;
	unsigned int n, way;
	bool failed = true;

	for (way = 0; way < 3; way++)
		for (n = 1; n < 1000; n++) {
			refs = db_module_refs();
			ASSERT_EQ(0, attach_region(*fd, vmm->vm_fd, 0));
			check_ring(_metadata, vmm, *fd, true);
			ASSERT_EQ(0, fail_at(nth, n));
			ret = by_close ? close(*fd) : db_detach(*fd);
			failed = has_failed(nth);
			ASSERT_EQ(0, ret);
			if (by_close)
				*fd = db_must_open(_metadata, O_NONBLOCK);
			ASSERT_EQ(0, poll_now(*fd));
			if (!failed)
				break;
			pinned += db_module_refs() > refs;
			check_free(_metadata, vmm, *fd, way);
		}
	ASSERT_FALSE(failed);
	/* a placeholder on the bus pins the module: one per way at least */
	ASSERT_LE(3, pinned);
}

TEST_F_TIMEOUT(fault, detach, TEST_SECONDS)
{
	detach_without_memory(_metadata, self->vmm, &self->fd, self->nth,
			      false);
}

TEST_F_TIMEOUT(fault, close, TEST_SECONDS)
{
	detach_without_memory(_metadata, self->vmm, &self->fd, self->nth, true);
}

/* A VMM that attaches its VM to the consumer of this process */
__attribute__((noreturn))
static void vmm_main(int fd, int answer)
{
	struct vmm *vmm = vmm_create(1);
	char ok = 1;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (!vmm || attach_region(fd, vmm->vm_fd, 0) || close(fd) ||
	    write(answer, &ok, 1) != 1)
		_exit(1);
	for (;;)
		pause();
}

/* The VM's process ends while all allocations of the module fail. */
TEST_F_TIMEOUT(fault, end_of_process, TEST_SECONDS)
{
	unsigned long long start, size;
	struct doorbell_event event;
	char text[32], ok;
	int refs, pipes[2];
	pid_t pid;

	start = number_in("/sys/module/doorbell/sections/.text", "", 16);
	size = number_in("/proc/modules", "doorbell ", 10);
	snprintf(text, sizeof(text), "%#llx", start + size);
	if (!start || !size ||
	    db_write_file(DEBUGFS "failslab/require-end", text))
		SKIP(return,
		     "no FAULT_INJECTION_STACKTRACE_FILTER, or not a module");
	snprintf(text, sizeof(text), "%#llx", start);
	ASSERT_EQ(0, db_write_file(DEBUGFS "failslab/require-start", text));

	ASSERT_EQ(0, pipe(pipes));
	pid = fork();
	ASSERT_LE(0, pid);
	if (!pid)
		vmm_main(self->fd, pipes[1]);
	ASSERT_EQ(1, read(pipes[0], &ok, 1));
	refs = db_module_refs();

	ASSERT_EQ(0, db_write_file(DEBUGFS "failslab/times", "-1"));
	ASSERT_EQ(0, db_write_file(DEBUGFS "failslab/probability", "100"));
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
	ASSERT_NE(0, POLLHUP & poll_for(self->fd, 0));
	ASSERT_TRUE(eventually(vms_alive(pid) <= 0));
	ASSERT_TRUE(eventually(refs < db_module_refs()));
	ASSERT_EQ(0, db_read(self->fd, &event, 1));
	ASSERT_EQ(0, db_detach(self->fd));
	ASSERT_EQ(-ENOMEM, attach_region(self->fd, self->vmm->vm_fd, 0));

	ASSERT_EQ(0, db_write_file(DEBUGFS "failslab/probability", "0"));
	ASSERT_EQ(0, attach_region(self->fd, self->vmm->vm_fd, 0));
	check_ring(_metadata, self->vmm, self->fd, true);
}

TEST_HARNESS_MAIN
