// SPDX-License-Identifier: GPL-2.0
/*
 * Stuck: a VMM that holds a lock of KVM does not hold up its consumers.
 *
 * The VMM is the test. One of its threads takes a page fault that a userfaultfd
 * answers when the test says so, and holds kvm->slots_lock or kvm->srcu until
 * then. The consumers are other processes: a call that hangs there fails the
 * test instead of hanging it. "At once" means before the fault is answered.
 */
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/time.h>

#include <linux/userfaultfd.h>

#include "peer.h"
#include "vmutil.h"

/* The memory slot whose page is missing, or whose dirty bitmap is */
#define STUCK_SLOT	1
#define STUCK_GPA	0x10000000ULL
#define STUCK_SIZE	0x1000UL

/* The vCPU that gets stuck, and the one that does not */
#define STUCK_VCPU	0
#define OTHER_VCPU	1

/* More removals than a workqueue of 6.12 runs at a time */
#define REMOVALS	300

/* More moves than a vCPU that is stuck lets a VM have under way */
#define MOVES		300

/* Signals during attach, and memory areas of the VMM: fewer if slow */
#define SIGNAL_USEC	1000
#define SIGNALS		100
#define AREAS		60000
#define AREAS_MIN	1000
#define AREAS_MS	1000

/* Calls that other processes make */

/**
 * struct call - a call
 * @fd: the consumer
 * @vm_fd: a VM
 * @base: the first address of a region
 * @pid: the process whose fdinfo call_look() reads
 */
struct call {
	int fd;
	int vm_fd;
	__u64 base;
	pid_t pid;
};

/*
 * Make @call in a process of its own, which has no other descriptor: it keeps
 * no other consumer attached. Its exit status is the errno. With @hand_over the
 * caller's descriptor closes first, so that the process is the consumer.
 */
static pid_t start_as(int (*fn)(const struct call *call),
		      const struct call *call, bool hand_over)
{
	int first = call->fd, last = call->vm_fd, go[2];
	pid_t pid;
	char byte;

	if (pipe(go))
		return -1;
	fflush(stdout);
	fflush(stderr);
	pid = fork();
	if (pid) {
		if (hand_over)
			close(call->fd);
		close(go[0]);
		close(go[1]);
		return pid;
	}

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	/* until the parent closes its end */
	close(go[1]);
	if (read(go[0], &byte, 1))
		_exit(EPROTO);
	if (first > last) {
		first = call->vm_fd;
		last = call->fd;
	}
	close_range(3, first - 1, 0);
	if (last > first + 1)
		close_range(first + 1, last - 1, 0);
	close_range(last + 1, ~0U, 0);
	_exit(-fn(call));
}

static pid_t start(int (*fn)(const struct call *call), const struct call *call)
{
	return start_as(fn, call, false);
}

static pid_t hand_over(int (*fn)(const struct call *call), int fd)
{
	struct call call = { .fd = fd, .vm_fd = fd };

	return start_as(fn, &call, true);
}

static int call_close(const struct call *call)
{
	return db_result(close(call->fd));
}

static int call_exit(const struct call *call)
{
	return 0;
}

static int call_pause(const struct call *call)
{
	return db_result(pause());
}

static volatile sig_atomic_t signals;

static void on_alarm(int sig)
{
	signals++;
}

/* From now on signals interrupt what they can. */
static void start_signals(void)
{
	struct sigaction action = { .sa_handler = on_alarm };
	struct itimerval timer = {
		.it_interval.tv_usec = SIGNAL_USEC,
		.it_value.tv_usec = SIGNAL_USEC,
	};

	sigaction(SIGALRM, &action, NULL);
	setitimer(ITIMER_REAL, &timer, NULL);
}

static int call_attach(const struct call *call)
{
	return db_attach_as(call->fd, call->vm_fd, call->base, REGION_LEN,
			    REGION_STRIDE, 0);
}

/* Without DOORBELL_ATTACH_DROP */
static int call_attach_next(const struct call *call)
{
	struct doorbell_attach arg = db_attach_arg(call->vm_fd, call->base,
						   REGION_LEN);

	arg.stride = REGION_STRIDE;
	arg.flags = 0;
	return db_result(ioctl(call->fd, DOORBELL_ATTACH, &arg));
}

static int call_attach_no_vm(const struct call *call)
{
	return db_attach(call->fd, -1, 0, 4);
}

static int call_detach(const struct call *call)
{
	return db_detach(call->fd);
}

static int call_move(const struct call *call)
{
	return db_move(call->fd, call->vm_fd, call->base);
}

/* Move to and fro, and end one region from @base. */
static int call_move_often(const struct call *call)
{
	int i, ret = 0;

	for (i = 0; !ret && i < MOVES; i++)
		ret = db_move(call->fd, call->vm_fd, call->base +
			      (i % 2 ? REGION_LEN : 2 * REGION_LEN));
	return ret;
}

static int call_attach_among_signals(const struct call *call)
{
	start_signals();
	return call_attach(call);
}

static int call_detach_among_signals(const struct call *call)
{
	start_signals();
	return call_detach(call);
}

static int call_move_among_signals(const struct call *call)
{
	start_signals();
	return call_move(call);
}

static int call_unload(const struct call *call)
{
	return db_module_unload();
}

/* DOORBELL_INFO and fdinfo: EPROTO unless both show a detached consumer */
static int call_look(const struct call *call)
{
	struct doorbell_info info;
	char path[64], text[2048];
	int ret = db_info(call->fd, &info);

	if (ret)
		return ret;
	snprintf(path, sizeof(path), "/proc/%d/fdinfo/%d", call->pid, call->fd);
	ret = db_read_file(path, text, sizeof(text));
	if (ret < 0)
		return ret;
	if (info.state != DOORBELL_DETACHED ||
	    !strstr(text, "doorbell-state:\tdetached"))
		return -EPROTO;
	return 0;
}

/* Poll for one event and read it: EPROTO if it is not that of queue 1. */
static int call_read(const struct call *call)
{
	struct doorbell_event events[2];
	int n = poll_for(call->fd, POLLIN);

	if (n > 0 && n & POLLIN)
		n = db_read(call->fd, events, 2);
	if (n < 0)
		return n;
	return n == 1 && db_event_is(&events[0], 1, 1, 5) ? 0 : -EPROTO;
}

/* Wait until a process sleeps in ioctl(). */
static bool waits(pid_t pid)
{
	return !db_wait_sleeping(pid, pid, SYS_ioctl) &&
	       !waitpid(pid, NULL, WNOHANG);
}

/* The VMM */

FIXTURE(stuck) {
	struct vmm *vmm;
	int uffd;
	void *page;
	bool dirty_log;
	pthread_t thread;
	bool is_stuck;
	int result;
	int refs;
	bool freezer;
};

FIXTURE_VARIANT(stuck) {
	bool dirty_log;
};

FIXTURE_VARIANT_ADD(stuck, slots_lock) { .dirty_log = true, };
FIXTURE_VARIANT_ADD(stuck, srcu) { .dirty_log = false, };

/* A page whose first access waits in @uffd */
static void *missing_page(int uffd)
{
	struct uffdio_register reg = {
		.range.len = STUCK_SIZE, .mode = UFFDIO_REGISTER_MODE_MISSING,
	};
	void *page = mmap(NULL, STUCK_SIZE, PROT_READ | PROT_WRITE,
			  MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);

	reg.range.start = (unsigned long)page;
	if (page == MAP_FAILED || ioctl(uffd, UFFDIO_REGISTER, &reg))
		return NULL;
	return page;
}

static void stuck_create(struct __test_metadata *_metadata,
			 FIXTURE_DATA(stuck) *self, bool dirty_log)
{
	struct kvm_userspace_memory_region slot = {
		.slot = STUCK_SLOT, .guest_phys_addr = STUCK_GPA,
		.memory_size = STUCK_SIZE,
	};
	struct uffdio_api api = { .api = UFFD_API };
	void *memory;

	self->refs = db_module_refs();
	self->uffd = syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
	ASSERT_LE(0, self->uffd);
	ASSERT_EQ(0, ioctl(self->uffd, UFFDIO_API, &api));
	self->page = missing_page(self->uffd);
	ASSERT_NE(NULL, self->page);

	self->vmm = vmm_create(2);
	ASSERT_NE(NULL, self->vmm);
	self->dirty_log = dirty_log;
	memory = self->page;
	if (self->dirty_log) {
		slot.flags = KVM_MEM_LOG_DIRTY_PAGES;
		memory = mmap(NULL, STUCK_SIZE, PROT_READ | PROT_WRITE,
			      MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
		ASSERT_NE(MAP_FAILED, memory);
	}
	slot.userspace_addr = (unsigned long)memory;
	ASSERT_EQ(0, ioctl(self->vmm->vm_fd, KVM_SET_USER_MEMORY_REGION,
			   &slot));
}

FIXTURE_SETUP(stuck)
{
	stuck_create(_metadata, self, variant->dirty_log);
}

static void *stuck_main(void *arg)
{
	FIXTURE_DATA(stuck) *self = arg;
	struct kvm_dirty_log log = {
		.slot = STUCK_SLOT, .dirty_bitmap = self->page,
	};

	if (self->dirty_log)
		self->result = db_result(ioctl(self->vmm->vm_fd,
					       KVM_GET_DIRTY_LOG, &log));
	else
		self->result = vmm_op(self->vmm, STUCK_VCPU, GUEST_MMIO_WRITE,
				      4, STUCK_GPA, 1);
	return NULL;
}

/* Get stuck, and return when the thread sits in the page fault. */
static void stuck_begin(struct __test_metadata *_metadata,
			FIXTURE_DATA(stuck) *self)
{
	struct uffd_msg msg;

	ASSERT_EQ(0, pthread_create(&self->thread, NULL, stuck_main, self));
	self->is_stuck = true;
	ASSERT_EQ(POLLIN, db_poll(self->uffd, POLLIN, DB_PATIENCE_MS));
	ASSERT_EQ(sizeof(msg), read(self->uffd, &msg, sizeof(msg)));
	ASSERT_EQ(UFFD_EVENT_PAGEFAULT, msg.event);
}

/* Answer the fault. Return what became of the thread's call. */
static int stuck_end(FIXTURE_DATA(stuck) *self)
{
	struct uffdio_zeropage zero = {
		.range = { (unsigned long)self->page, STUCK_SIZE },
	};

	if (ioctl(self->uffd, UFFDIO_ZEROPAGE, &zero))
		return -errno;
	pthread_join(self->thread, NULL);
	self->is_stuck = false;
	return self->result;
}

/* The freezer of cgroup v1 stops a process in a call that waits killably. */
#define FREEZER		"/tmp/doorbell-freezer"

static int freezer_open(void)
{
	mkdir(FREEZER, 0755);
	if (mount("freezer", FREEZER, "cgroup", 0, "freezer"))
		return -errno;
	mkdir(FREEZER "/mover", 0755);
	return 0;
}

static int freezer_put(pid_t pid)
{
	char text[16];

	snprintf(text, sizeof(text), "%d", pid);
	return db_write_file(FREEZER "/mover/cgroup.procs", text);
}

/* FROZEN or THAWED */
static int freezer_set(const char *state)
{
	return db_write_file(FREEZER "/mover/freezer.state", state);
}

static bool freezer_is(const char *state)
{
	char text[16];

	return db_read_file(FREEZER "/mover/freezer.state", text,
			    sizeof(text)) > 0 &&
	       !strncmp(text, state, strlen(state));
}

static void freezer_close(void)
{
	freezer_set("THAWED");
	(void)eventually(!rmdir(FREEZER "/mover"));
	umount(FREEZER);
	rmdir(FREEZER);
}

static void stuck_destroy(FIXTURE_DATA(stuck) *self)
{
	if (self->is_stuck)
		stuck_end(self);
	vmm_destroy(self->vmm);
}

FIXTURE_TEARDOWN(stuck)
{
	if (self->freezer)
		freezer_close();
	stuck_destroy(self);
}

/* Regions of REGION_LEN bytes, with a gap behind each */
static __u64 region_base(unsigned int region)
{
	return MMIO_BASE + 2 * region * REGION_LEN;
}

static int attach_to(int fd, FIXTURE_DATA(stuck) *self, unsigned int region)
{
	return db_attach_as(fd, self->vmm->vm_fd, region_base(region),
			    REGION_LEN, REGION_STRIDE, 0);
}

/* The guest rings queue 1 of a region. Return the number of exits. */
static int ring(FIXTURE_DATA(stuck) *self, unsigned int region)
{
	__u64 before = vmm_exits(self->vmm);
	int ret = vmm_op(self->vmm, OTHER_VCPU, GUEST_MMIO_WRITE, 4,
			 region_base(region) + REGION_STRIDE, 5);

	return ret ?: vmm_exits(self->vmm) - before;
}

static void check_ring(struct __test_metadata *_metadata,
		       FIXTURE_DATA(stuck) *self, int fd, unsigned int region)
{
	ASSERT_EQ(0, ring(self, region));
	check_event(_metadata, fd, 1, 5);
}

/*
 * After the fault: other consumers can attach to the first @regions regions,
 * and no reference to the module is left.
 */
static void check_goes_on(struct __test_metadata *_metadata,
			  FIXTURE_DATA(stuck) *self, unsigned int regions)
{
	unsigned int i;
	int fd;

	for (i = 0; i < regions; i++) {
		fd = db_must_open(_metadata, O_NONBLOCK);
		ASSERT_EQ(0, attach_to(fd, self, i));
		check_ring(_metadata, self, fd, i);
		ASSERT_EQ(0, db_detach(fd));
		ASSERT_EQ(1, ring(self, i));
		close(fd);
	}
	ASSERT_TRUE(eventually(db_module_refs() == self->refs));
}

/* close(), exit and SIGKILL end a consumer at once, and then rings exit. */
TEST_F_TIMEOUT(stuck, consumers_end_at_once, TEST_SECONDS)
{
	int i, fd[3];

	for (i = 0; i < 3; i++) {
		fd[i] = db_must_open(_metadata, O_NONBLOCK);
		ASSERT_EQ(0, attach_to(fd[i], self, i));
		check_ring(_metadata, self, fd[i], i);
	}
	stuck_begin(_metadata, self);

	ASSERT_EQ(0, ended(hand_over(call_close, fd[0])));
	ASSERT_EQ(1, ring(self, 0));
	check_ring(_metadata, self, fd[1], 1);

	ASSERT_EQ(0, ended(hand_over(call_exit, fd[1])));
	ASSERT_EQ(1, ring(self, 1));
	check_ring(_metadata, self, fd[2], 2);

	ASSERT_EQ(0x100 + SIGKILL, killed(hand_over(call_pause, fd[2])));
	ASSERT_EQ(1, ring(self, 2));

	ASSERT_EQ(0, stuck_end(self));
	check_goes_on(_metadata, self, 3);
}

/*
 * DOORBELL_DETACH waits, killably, and no other call waits for it: the consumer
 * is detached, and free for another region.
 */
TEST_F_TIMEOUT(stuck, detach_waits_killably, TEST_SECONDS)
{
	struct call call[2], look;
	pid_t pid[2];
	int i;

	for (i = 0; i < 2; i++) {
		call[i].fd = db_must_open(_metadata, O_NONBLOCK);
		call[i].vm_fd = self->vmm->vm_fd;
		ASSERT_EQ(0, attach_to(call[i].fd, self, i));
		ASSERT_EQ(0, ring(self, i));
	}
	stuck_begin(_metadata, self);

	for (i = 0; i < 2; i++) {
		pid[i] = start(call_detach, &call[i]);
		ASSERT_TRUE(waits(pid[i]));
		look = call[i];
		look.pid = pid[i];
		ASSERT_EQ(0, ended(start(call_look, &look)));
		ASSERT_EQ(0, ended(start(call_read, &call[i])));
		ASSERT_EQ(1, ring(self, i));
		ASSERT_EQ(ENOTCONN, ended(start(call_detach, &call[i])));
		ASSERT_EQ(0, ended(start(call_attach_no_vm, &call[i])));
		ASSERT_EQ(0, ended(start(call_detach, &call[i])));
	}
	ASSERT_EQ(0x100 + SIGKILL, killed(pid[0]));
	ASSERT_TRUE(waits(pid[1]));

	ASSERT_EQ(0, stuck_end(self));
	ASSERT_EQ(0, ended(pid[1]));
	for (i = 0; i < 2; i++)
		close(call[i].fd);
	check_goes_on(_metadata, self, 2);
}

/* A consumer closes whose DOORBELL_DETACH was killed while it waited. */
TEST_F_TIMEOUT(stuck, close_after_killed_detach, TEST_SECONDS)
{
	struct call call = {
		.fd = db_must_open(_metadata, O_NONBLOCK),
		.vm_fd = self->vmm->vm_fd,
	};
	pid_t pid;

	ASSERT_EQ(0, attach_to(call.fd, self, 0));
	stuck_begin(_metadata, self);
	pid = start(call_detach, &call);
	ASSERT_TRUE(waits(pid));
	ASSERT_EQ(0x100 + SIGKILL, killed(pid));
	ASSERT_EQ(0, ended(hand_over(call_close, call.fd)));
	ASSERT_EQ(1, ring(self, 0));

	ASSERT_EQ(0, stuck_end(self));
	check_goes_on(_metadata, self, 1);
}

/*
 * DOORBELL_ATTACH waits for slots_lock, but not for kvm->srcu. SIGKILL ends the
 * wait without a trace. No other call waits for it.
 */
TEST_F_TIMEOUT(stuck, attach_waits_killably, TEST_SECONDS)
{
	struct call call[2], look;
	pid_t pid[2];
	int i;

	for (i = 0; i < 2; i++) {
		call[i].fd = db_must_open(_metadata, O_NONBLOCK);
		call[i].vm_fd = self->vmm->vm_fd;
		call[i].base = region_base(i);
	}
	stuck_begin(_metadata, self);

	for (i = 0; i < 2; i++) {
		pid[i] = start(call_attach, &call[i]);
		if (!variant->dirty_log) {
			ASSERT_EQ(0, ended(pid[i]));
			check_ring(_metadata, self, call[i].fd, i);
			continue;
		}
		ASSERT_TRUE(waits(pid[i]));
		look = call[i];
		look.pid = pid[i];
		ASSERT_EQ(0, ended(start(call_look, &look)));
		ASSERT_EQ(1, ring(self, i));
		ASSERT_EQ(EBUSY, ended(start(call_attach, &call[i])));
		ASSERT_EQ(ENOTCONN, ended(start(call_detach, &call[i])));
	}
	if (variant->dirty_log) {
		ASSERT_EQ(0x100 + SIGKILL, killed(pid[0]));
		ASSERT_EQ(1, ring(self, 0));
		ASSERT_EQ(0, poll_now(call[0].fd));
		ASSERT_TRUE(waits(pid[1]));
	}

	ASSERT_EQ(0, stuck_end(self));
	if (variant->dirty_log)
		ASSERT_EQ(0, ended(pid[1]));
	check_ring(_metadata, self, call[1].fd, 1);
	if (variant->dirty_log)
		ASSERT_EQ(1, ring(self, 0));
	for (i = 0; i < 2; i++)
		close(call[i].fd);
	check_goes_on(_metadata, self, 2);
}

/* Where a region has yet to leave its bus, attach waits, killably. */
TEST_F_TIMEOUT(stuck, attach_waits_for_a_removal, TEST_SECONDS)
{
	struct call call = { .vm_fd = self->vmm->vm_fd };
	pid_t pid[2];
	int i;

	call.base = region_base(0);
	call.fd = db_must_open(_metadata, O_NONBLOCK);
	if (variant->dirty_log)
		ASSERT_EQ(0, attach_to(call.fd, self, 0));
	stuck_begin(_metadata, self);
	/* its grace period has to begin after the vCPU got stuck */
	if (!variant->dirty_log)
		ASSERT_EQ(0, ended(start(call_attach, &call)));
	check_ring(_metadata, self, call.fd, 0);
	ASSERT_EQ(0, ended(hand_over(call_close, call.fd)));

	call.fd = db_must_open(_metadata, O_NONBLOCK);
	for (i = 0; i < 2; i++) {
		pid[i] = start(call_attach, &call);
		ASSERT_TRUE(waits(pid[i]));
		ASSERT_EQ(1, ring(self, 0));
		if (!i)
			ASSERT_EQ(0x100 + SIGKILL, killed(pid[0]));
	}

	ASSERT_EQ(0, stuck_end(self));
	ASSERT_EQ(0, ended(pid[1]));
	check_ring(_metadata, self, call.fd, 0);
	close(call.fd);
	check_goes_on(_metadata, self, 1);
}

/*
 * An attach that waits until a region has left its bus goes on to wait for
 * another one, if that was attached and detached meanwhile.
 */
TEST_F_TIMEOUT(stuck, attach_waits_for_each_region, TEST_SECONDS)
{
	FIXTURE_DATA(stuck) other = {};
	struct call call = {
		.fd = db_must_open(_metadata, O_NONBLOCK),
		.vm_fd = self->vmm->vm_fd, .base = region_base(1),
	};
	struct call between = { .fd = call.fd, .base = region_base(0) };
	pid_t detacher[2], attacher;

	stuck_create(_metadata, &other, variant->dirty_log);
	between.vm_fd = other.vmm->vm_fd;
	ASSERT_EQ(0, attach_to(call.fd, self, 0));
	stuck_begin(_metadata, self);
	detacher[0] = start(call_detach, &call);
	ASSERT_TRUE(waits(detacher[0]));
	attacher = start(call_attach_next, &call);
	ASSERT_TRUE(waits(attacher));

	ASSERT_EQ(0, ended(start(call_attach, &between)));
	stuck_begin(_metadata, &other);
	detacher[1] = start(call_detach, &between);
	ASSERT_TRUE(waits(detacher[1]));
	ASSERT_EQ(0, stuck_end(self));
	ASSERT_EQ(0, ended(detacher[0]));
	ASSERT_TRUE(waits(attacher));

	ASSERT_EQ(0, stuck_end(&other));
	ASSERT_EQ(0, ended(detacher[1]));
	ASSERT_EQ(0, ended(attacher));
	check_ring(_metadata, self, call.fd, 1);
	close(call.fd);
	stuck_destroy(&other);
	check_goes_on(_metadata, self, 2);
}

/*
 * DOORBELL_DETACH does not wait for a DOORBELL_MOVE that another process has
 * under way: the region has moved, or it will not. An attach waits until no
 * vCPU rings the region that was detached.
 */
TEST_F_TIMEOUT(stuck, detach_settles_move, TEST_SECONDS)
{
	struct call call = {
		.fd = db_must_open(_metadata, O_NONBLOCK),
		.vm_fd = self->vmm->vm_fd, .base = region_base(2),
	};
	struct call next = call;
	pid_t mover, detacher, attacher;

	next.base = region_base(3);
	ASSERT_EQ(0, attach_to(call.fd, self, 0));
	stuck_begin(_metadata, self);
	mover = start(call_move, &call);
	if (variant->dirty_log) {
		ASSERT_TRUE(waits(mover));
	} else {
		ASSERT_EQ(0, ended(mover));
	}

	detacher = start(call_detach, &call);
	ASSERT_TRUE(waits(detacher));
	ASSERT_EQ(region_base(variant->dirty_log ? 0 : 2),
		  info_of(call.fd).base);
	ASSERT_EQ(1, ring(self, 0));
	ASSERT_EQ(1, ring(self, 2));
	attacher = start(call_attach_next, &next);
	ASSERT_TRUE(waits(attacher));

	ASSERT_EQ(0, stuck_end(self));
	ASSERT_EQ(0, ended(detacher));
	if (variant->dirty_log)
		ASSERT_EQ(ENOTCONN, ended(mover));
	ASSERT_EQ(0, ended(attacher));
	ASSERT_EQ(1, ring(self, 0));
	ASSERT_EQ(1, ring(self, 2));
	check_ring(_metadata, self, call.fd, 3);
	close(call.fd);
	check_goes_on(_metadata, self, 4);
}

/* KVM's own calls that need slots_lock */
static void check_vmm_goes_on(struct __test_metadata *_metadata,
			      FIXTURE_DATA(stuck) *self)
{
	__u64 addr = region_base(6);
	int i, efd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);

	ASSERT_LE(0, efd);
	for (i = 0; i < 100; i++) {
		ASSERT_EQ(0, vmm_ioeventfd(self->vmm, addr, 4, efd, 0));
		ASSERT_EQ(0, vmm_ioeventfd(self->vmm, addr, 4, efd,
					   KVM_IOEVENTFD_FLAG_DEASSIGN));
	}
	close(efd);
}

/* Stop processes in the calls that they wait in. */
static void freeze(struct __test_metadata *_metadata, FIXTURE_DATA(stuck) *self,
		   const pid_t *pids, unsigned int n)
{
	self->freezer = true;
	while (n--)
		ASSERT_EQ(0, freezer_put(pids[n]));
	ASSERT_EQ(0, freezer_set("FROZEN"));
	ASSERT_TRUE(eventually(freezer_is("FROZEN")));
}

/*
 * A DOORBELL_MOVE that DOORBELL_DETACH finds done has happened, although the
 * mover has not learned of it.
 */
TEST_F_TIMEOUT(stuck, detach_finds_move_done, TEST_SECONDS)
{
	struct call call = {
		.fd = db_must_open(_metadata, O_NONBLOCK),
		.vm_fd = self->vmm->vm_fd, .base = region_base(2),
	};
	pid_t mover;

	if (!variant->dirty_log)
		SKIP(return, "the move does not wait");
	if (freezer_open())
		SKIP(return, "no freezer of cgroup v1");
	ASSERT_EQ(0, attach_to(call.fd, self, 0));
	stuck_begin(_metadata, self);
	mover = start(call_move, &call);
	ASSERT_TRUE(waits(mover));
	freeze(_metadata, self, &mover, 1);

	ASSERT_EQ(0, stuck_end(self));
	ASSERT_TRUE(eventually(!ring(self, 2)));
	check_event(_metadata, call.fd, 1, 5);
	ASSERT_TRUE(freezer_is("FROZEN"));
	ASSERT_EQ(0, ended(start(call_detach, &call)));
	ASSERT_EQ(region_base(2), info_of(call.fd).base);
	ASSERT_EQ(1, ring(self, 2));
	ASSERT_EQ(0, freezer_set("THAWED"));
	ASSERT_EQ(0, ended(mover));
	ASSERT_EQ(region_base(2), info_of(call.fd).base);
	ASSERT_EQ(1, ring(self, 0));
	close(call.fd);
	check_goes_on(_metadata, self, 3);
}

/*
 * Consumers that do not run, as they are stopped in the middle of a call, hold
 * nothing that the VMM's own calls need.
 */
TEST_F_TIMEOUT(stuck, stopped_consumers_hold_nothing, TEST_SECONDS)
{
	static int (*const calls[])(const struct call *call) = {
		call_attach, call_move, call_detach,
	};
	struct call call[ARRAY_SIZE(calls)];
	pid_t pid[ARRAY_SIZE(calls)];
	unsigned int i;

	if (!variant->dirty_log)
		SKIP(return, "attach and move do not wait");
	if (freezer_open())
		SKIP(return, "no freezer of cgroup v1");
	for (i = 0; i < ARRAY_SIZE(calls); i++) {
		call[i].fd = db_must_open(_metadata, O_NONBLOCK);
		call[i].vm_fd = self->vmm->vm_fd;
		call[i].base = region_base(3 + i);
		if (i)
			ASSERT_EQ(0, attach_to(call[i].fd, self, i));
	}
	stuck_begin(_metadata, self);
	for (i = 0; i < ARRAY_SIZE(calls); i++) {
		pid[i] = start(calls[i], &call[i]);
		ASSERT_TRUE(waits(pid[i]));
	}
	freeze(_metadata, self, pid, ARRAY_SIZE(calls));

	ASSERT_EQ(0, stuck_end(self));
	check_vmm_goes_on(_metadata, self);
	ASSERT_TRUE(freezer_is("FROZEN"));
	ASSERT_EQ(0, freezer_set("THAWED"));
	for (i = 0; i < ARRAY_SIZE(calls); i++)
		ASSERT_EQ(0, ended(pid[i]));
	check_ring(_metadata, self, call[0].fd, 3);
	check_ring(_metadata, self, call[1].fd, 4);
	ASSERT_EQ(1, ring(self, 1));
	ASSERT_EQ(1, ring(self, 2));
	for (i = 0; i < ARRAY_SIZE(calls); i++)
		close(call[i].fd);
	check_goes_on(_metadata, self, 5);
}

/*
 * DOORBELL_MOVE waits for slots_lock, but not for kvm->srcu. Meanwhile the
 * region rings where it was, and no other call changes it. SIGKILL ends the
 * wait without a trace.
 */
TEST_F_TIMEOUT(stuck, move_waits_killably, TEST_SECONDS)
{
	struct call call[2];
	pid_t pid[2];
	int i;

	for (i = 0; i < 2; i++) {
		call[i].fd = db_must_open(_metadata, O_NONBLOCK);
		call[i].vm_fd = self->vmm->vm_fd;
		call[i].base = region_base(2 + i);
		ASSERT_EQ(0, attach_to(call[i].fd, self, i));
	}
	stuck_begin(_metadata, self);

	for (i = 0; i < 2; i++) {
		ASSERT_EQ(0, ring(self, i));
		pid[i] = start(call_move, &call[i]);
		if (!variant->dirty_log) {
			ASSERT_EQ(0, ended(pid[i]));
			check_event(_metadata, call[i].fd, 1, 5);
			check_ring(_metadata, self, call[i].fd, 2 + i);
			ASSERT_EQ(1, ring(self, i));
			continue;
		}
		ASSERT_TRUE(waits(pid[i]));
		ASSERT_EQ(0, ended(start(call_read, &call[i])));
		ASSERT_EQ(region_base(i), info_of(call[i].fd).base);
		ASSERT_EQ(EBUSY, ended(start(call_move, &call[i])));
		ASSERT_EQ(EBUSY, ended(start(call_attach, &call[i])));
		check_ring(_metadata, self, call[i].fd, i);
		ASSERT_EQ(1, ring(self, 2 + i));
	}
	if (variant->dirty_log) {
		ASSERT_EQ(0x100 + SIGKILL, killed(pid[0]));
		check_ring(_metadata, self, call[0].fd, 0);
		ASSERT_EQ(region_base(0), info_of(call[0].fd).base);
		ASSERT_TRUE(waits(pid[1]));
	}
	/* a region that a killed move left, or one that has moved */
	pid[0] = start(call_detach, &call[0]);
	ASSERT_TRUE(waits(pid[0]));
	ASSERT_EQ(1, ring(self, 0));
	ASSERT_EQ(1, ring(self, 2));

	ASSERT_EQ(0, stuck_end(self));
	ASSERT_EQ(0, ended(pid[0]));
	if (variant->dirty_log)
		ASSERT_EQ(0, ended(pid[1]));
	ASSERT_EQ(1, ring(self, 0));
	ASSERT_EQ(1, ring(self, 2));
	ASSERT_EQ(region_base(3), info_of(call[1].fd).base);
	check_ring(_metadata, self, call[1].fd, 3);
	ASSERT_EQ(1, ring(self, 1));
	for (i = 0; i < 2; i++)
		close(call[i].fd);
	check_goes_on(_metadata, self, 4);
}

/* A consumer whose move was killed can close at once, and move again. */
TEST_F_TIMEOUT(stuck, killed_move_leaves_nothing, TEST_SECONDS)
{
	struct call call[2];
	pid_t pid;
	int i;

	for (i = 0; i < 2; i++) {
		call[i].fd = db_must_open(_metadata, O_NONBLOCK);
		call[i].vm_fd = self->vmm->vm_fd;
		call[i].base = region_base(2 + i);
		ASSERT_EQ(0, attach_to(call[i].fd, self, i));
	}
	stuck_begin(_metadata, self);
	for (i = 0; i < 2; i++) {
		pid = start(call_move, &call[i]);
		if (variant->dirty_log)
			ASSERT_TRUE(waits(pid));
		killed(pid);
	}
	ASSERT_EQ(0, ended(hand_over(call_close, call[0].fd)));
	ASSERT_EQ(1, ring(self, 0));
	ASSERT_EQ(1, ring(self, 2));
	pid = start(call_move, &call[1]);
	if (variant->dirty_log)
		ASSERT_TRUE(waits(pid));

	ASSERT_EQ(0, stuck_end(self));
	ASSERT_EQ(0, ended(pid));
	check_ring(_metadata, self, call[1].fd, 3);
	ASSERT_EQ(1, ring(self, 1));
	close(call[1].fd);
	check_goes_on(_metadata, self, 4);
}

/*
 * A stuck vCPU, or slots_lock, ends even a series of moves, which SIGKILL ends,
 * too. The region then is where DOORBELL_INFO says.
 */
TEST_F_TIMEOUT(stuck, moves_are_bounded, TEST_SECONDS)
{
	struct call call = { .vm_fd = self->vmm->vm_fd };
	__u64 base, seen;
	pid_t pid;

	call.base = region_base(0);
	call.fd = db_must_open(_metadata, O_NONBLOCK);
	ASSERT_EQ(0, attach_to(call.fd, self, 0));
	stuck_begin(_metadata, self);
	pid = start(call_move_often, &call);
	/* until it has come to a stop */
	do {
		seen = info_of(call.fd).base;
		usleep(300000);
	} while (seen != info_of(call.fd).base);
	ASSERT_TRUE(waits(pid));
	ASSERT_EQ(0x100 + SIGKILL, killed(pid));
	base = info_of(call.fd).base;
	ASSERT_EQ(variant->dirty_log, call.base == base);
	ASSERT_EQ(0, vmm_op(self->vmm, OTHER_VCPU, GUEST_MMIO_WRITE, 4,
			    base + REGION_STRIDE, 5));
	ASSERT_EQ(0, vmm_exits(self->vmm));
	check_event(_metadata, call.fd, 1, 5);

	ASSERT_EQ(0, stuck_end(self));
	ASSERT_EQ(0, ended(start(call_move_often, &call)));
	ASSERT_EQ(0, ended(start(call_detach, &call)));
	close(call.fd);
	check_goes_on(_metadata, self, 1);
}

/* No signal but SIGKILL ends the wait of attach, move and detach. */
TEST_F_TIMEOUT(stuck, signals_do_not_interrupt, TEST_SECONDS)
{
	struct call attach = {}, move = {}, detach = {};
	pid_t pid[3];

	detach.fd = db_must_open(_metadata, O_NONBLOCK);
	attach.fd = db_must_open(_metadata, O_NONBLOCK);
	move.fd = db_must_open(_metadata, O_NONBLOCK);
	detach.vm_fd = self->vmm->vm_fd;
	attach.vm_fd = self->vmm->vm_fd;
	move.vm_fd = self->vmm->vm_fd;
	attach.base = region_base(1);
	move.base = region_base(3);
	ASSERT_EQ(0, attach_to(detach.fd, self, 0));
	ASSERT_EQ(0, attach_to(move.fd, self, 2));
	stuck_begin(_metadata, self);

	pid[0] = start(call_detach_among_signals, &detach);
	pid[1] = start(call_attach_among_signals, &attach);
	pid[2] = start(call_move_among_signals, &move);
	usleep(SIGNALS * SIGNAL_USEC);
	ASSERT_TRUE(waits(pid[0]));
	if (variant->dirty_log) {
		ASSERT_TRUE(waits(pid[1]));
		ASSERT_TRUE(waits(pid[2]));
	}

	ASSERT_EQ(0, stuck_end(self));
	ASSERT_EQ(0, ended(pid[0]));
	ASSERT_EQ(0, ended(pid[1]));
	ASSERT_EQ(0, ended(pid[2]));
	check_ring(_metadata, self, attach.fd, 1);
	check_ring(_metadata, self, move.fd, 3);
	ASSERT_EQ(1, ring(self, 0));
	ASSERT_EQ(1, ring(self, 2));
	close(attach.fd);
	close(move.fd);
	close(detach.fd);
	check_goes_on(_metadata, self, 4);
}

/* A removal that takes long keeps the module: rmmod fails and does not wait. */
TEST_F_TIMEOUT(stuck, removal_keeps_the_module, TEST_SECONDS)
{
	struct call call = {};
	int fd;

	if (self->refs < 0)
		SKIP(return, "no /sys/module/doorbell/refcnt: not a module");
	fd = db_must_open(_metadata, O_NONBLOCK);
	ASSERT_EQ(0, attach_to(fd, self, 0));
	stuck_begin(_metadata, self);

	ASSERT_EQ(0, ended(hand_over(call_close, fd)));
	/* it takes a moment before it counts as long */
	ASSERT_TRUE(eventually(db_module_refs() > self->refs));
	ASSERT_EQ(EWOULDBLOCK, ended(start(call_unload, &call)));

	ASSERT_EQ(0, stuck_end(self));
	check_goes_on(_metadata, self, 1);
}

/*
 * Other consumers of the VM go on, and those of another VM attach and detach,
 * however many removals wait for the VMM that is stuck.
 */
TEST_F_TIMEOUT(stuck, others_go_on, TEST_SECONDS)
{
	struct call call = { .base = MMIO_BASE };
	int i, fd, fds[REMOVALS];
	struct peer peer;

	peer_start(_metadata, &peer, 0);
	fd = db_must_open(_metadata, O_NONBLOCK);
	ASSERT_EQ(0, attach_to(fd, self, 0));
	for (i = 0; i < REMOVALS; i++) {
		fds[i] = db_must_open(_metadata, O_NONBLOCK);
		ASSERT_EQ(0, attach_to(fds[i], self, 1 + i));
	}
	call.fd = db_must_open(_metadata, O_NONBLOCK);
	call.vm_fd = peer.vm_fd;
	stuck_begin(_metadata, self);

	ASSERT_EQ(0, ended(start(call_attach, &call)));
	for (i = 0; i < REMOVALS; i++)
		close(fds[i]);
	ASSERT_EQ(1, ring(self, 1));
	ASSERT_EQ(1, ring(self, REMOVALS));
	check_ring(_metadata, self, fd, 0);
	for (i = 0; i < 3; i++) {
		ASSERT_EQ(0, ended(start(call_detach, &call)));
		ASSERT_EQ(0, ended(start(call_attach, &call)));
		ASSERT_EQ(0, peer_do(&peer, PEER_RING));
		ASSERT_NE(0, POLLIN & poll_for(call.fd, POLLIN));
		ASSERT_EQ(0, peer_do(&peer, PEER_STOP));
	}

	ASSERT_EQ(0, stuck_end(self));
	close(call.fd);
	peer_end(&peer);
	check_ring(_metadata, self, fd, 0);
	close(fd);
	/* one region where all of them were */
	fd = db_must_open(_metadata, O_NONBLOCK);
	ASSERT_EQ(0, db_attach_as(fd, self->vmm->vm_fd, MMIO_BASE,
				  region_base(REMOVALS + 1) - MMIO_BASE,
				  2 * REGION_LEN, 0));
	close(fd);
	ASSERT_TRUE(eventually(db_module_refs() == self->refs));
}

/* Signals */

FIXTURE(signals) {
	struct vmm *vmm;
	int fd;
};

FIXTURE_SETUP(signals)
{
	self->vmm = vmm_create(1);
	ASSERT_NE(NULL, self->vmm);
	self->fd = db_must_open(_metadata, O_NONBLOCK);
}

FIXTURE_TEARDOWN(signals)
{
	close(self->fd);
	vmm_destroy(self->vmm);
}

/* Attach does not start over at each signal, however large the VMM is. */
TEST_F_TIMEOUT(signals, attach_returns, TEST_SECONDS)
{
	size_t page = sysconf(_SC_PAGESIZE), i;
	__u64 end = db_until(AREAS_MS);
	char *areas;

	/* each page is an area of its own, and every other one is there */
	areas = mmap(NULL, AREAS * page, PROT_READ | PROT_WRITE,
		     MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	ASSERT_NE(MAP_FAILED, areas);
	for (i = 0; db_round(i, AREAS_MIN, AREAS, end); i += 2) {
		ASSERT_EQ(0, mprotect(areas + i * page, page, PROT_READ));
		areas[(i + 1) * page] = 1;
	}

	start_signals();
	while (signals < SIGNALS) {
		ASSERT_EQ(0, attach_region(self->fd, self->vmm->vm_fd, 0));
		ASSERT_EQ(0, db_detach(self->fd));
	}
}

TEST_HARNESS_MAIN
