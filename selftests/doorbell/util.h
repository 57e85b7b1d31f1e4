/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Util: what several test programs share; nothing here tests anything.
 *
 * Functions that return an int return 0 or a count on success, and a negative
 * errno on failure.
 */
#ifndef _DOORBELL_SELFTEST_UTIL_H
#define _DOORBELL_SELFTEST_UTIL_H

#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <poll.h>
#include <sched.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

/*
 * The harness compares signed with unsigned numbers, passes every test
 * parameters that it may not use, and leaves a failed test by longjmp().
 */
#pragma GCC diagnostic ignored "-Wclobbered"
#pragma GCC diagnostic ignored "-Wsign-compare"
#pragma GCC diagnostic ignored "-Wunused-parameter"
#include <kselftest_harness.h>

#include <linux/doorbell.h>

#define DB_PATH		"/dev/doorbell"

/*
 * Most bytes before a fault that copy_to_user() leaves out. arm64 copies 64 at
 * a time.
 */
#if defined(__aarch64__) || defined(__arm__)
#define DB_COPY_SHORT	63
#else
#define DB_COPY_SHORT	0
#endif

/* libc waits by these where there are no older ones. */
#ifndef SYS_poll
#define SYS_poll	SYS_ppoll
#endif
#ifndef SYS_pause
#define SYS_pause	SYS_ppoll
#endif
#ifndef SYS_epoll_wait
#define SYS_epoll_wait	SYS_epoll_pwait
#endif

/* Only a wait that never ends takes longer, however slow the machine is. */
#define DB_PATIENCE_MS	40000

#define DB_EVENT_SIZE	sizeof(struct doorbell_event)

/* The convention of this file, from that of libc */
static inline int db_result(long ret)
{
	return ret < 0 ? -errno : ret;
}

/* The device */

static inline int db_open(int flags)
{
	return db_result(open(DB_PATH, O_RDWR | O_CLOEXEC | flags));
}

/* For tests: end the test if the device cannot be opened. */
static inline int db_must_open(struct __test_metadata *_metadata, int flags)
{
	int fd = db_open(flags);

	ASSERT_LE(0, fd) {
		TH_LOG("%s: %s", DB_PATH, strerror(-fd));
	}
	return fd;
}

/* Drops the events that a test has left: only some test that they are not. */
static inline struct doorbell_attach db_attach_arg(int vm_fd, uint64_t base,
						   uint64_t len)
{
	return (struct doorbell_attach) {
		.size = sizeof(struct doorbell_attach),
		.vm_fd = vm_fd,
		.base = base,
		.len = len,
		.flags = DOORBELL_ATTACH_DROP,
	};
}

static inline int db_attach_as(int fd, int vm_fd, uint64_t base, uint64_t len,
			       uint32_t stride, uint32_t flags)
{
	struct doorbell_attach arg = db_attach_arg(vm_fd, base, len);

	arg.stride = stride;
	arg.flags |= flags;
	return db_result(ioctl(fd, DOORBELL_ATTACH, &arg));
}

/* With the default stride and no flags */
static inline int db_attach(int fd, int vm_fd, uint64_t base, uint64_t len)
{
	return db_attach_as(fd, vm_fd, base, len, 0, 0);
}

static inline int db_detach(int fd)
{
	return db_result(ioctl(fd, DOORBELL_DETACH, 0));
}

static inline int db_move(int fd, int vm_fd, uint64_t base)
{
	struct doorbell_move arg = {
		.size = sizeof(arg), .vm_fd = vm_fd, .base = base,
	};

	return db_result(ioctl(fd, DOORBELL_MOVE, &arg));
}

static inline int db_info(int fd, struct doorbell_info *info)
{
	memset(info, 0, sizeof(*info));
	info->size = sizeof(*info);
	return db_result(ioctl(fd, DOORBELL_INFO, info));
}

/* One ring by write() */
static inline int db_ring(int fd, uint64_t addr, uint64_t value)
{
	struct doorbell_ring ring = { .addr = addr, .value = value };
	int ret = db_result(write(fd, &ring, sizeof(ring)));

	if (ret < 0)
		return ret;
	return ret == sizeof(ring) ? 0 : -EPROTO;
}

/* Read up to @max events and return their number. */
static inline int db_read(int fd, struct doorbell_event *events, size_t max)
{
	int ret = db_result(read(fd, events, max * DB_EVENT_SIZE));

	if (ret > 0 && ret % DB_EVENT_SIZE)
		return -EPROTO;
	return ret < 0 ? ret : (int)(ret / DB_EVENT_SIZE);
}

/* Nothing is pending. For descriptors with O_NONBLOCK */
static inline bool db_is_empty(int fd)
{
	struct doorbell_event event;

	return db_read(fd, &event, 1) == -EAGAIN;
}

/* Wait for bits of poll(). Return the bits it reports, 0 on timeout. */
static inline int db_poll(int fd, short events, int timeout_ms)
{
	struct pollfd pfd = { .fd = fd, .events = events };
	int ret = db_result(poll(&pfd, 1, timeout_ms));

	return ret > 0 ? pfd.revents : ret;
}

/* Bind queues from @first on to eventfds; -1 unbinds. */
static inline int db_bind(int fd, uint32_t first, uint32_t count,
			  const int *fds)
{
	struct doorbell_bind arg = {
		.size = sizeof(arg),
		.first = first,
		.count = count,
		.fds = (uintptr_t)fds,
	};

	return db_result(ioctl(fd, DOORBELL_BIND, &arg));
}

static inline int db_bind_one(int fd, uint32_t queue, int eventfd)
{
	return db_bind(fd, queue, 1, &eventfd);
}

static inline int db_bindings(int fd, uint32_t first, uint32_t count,
			      struct doorbell_queue_binding *bindings)
{
	struct doorbell_bindings arg = {
		.size = sizeof(arg),
		.first = first,
		.count = count,
		.bindings = (uintptr_t)bindings,
	};

	return db_result(ioctl(fd, DOORBELL_BINDINGS, &arg));
}

static inline bool db_event_is(const struct doorbell_event *event,
			       uint16_t queue, uint32_t count, uint64_t value)
{
	return event->type == DOORBELL_EVENT_QUEUE && event->queue == queue &&
	       event->count == count && event->value == value;
}

static inline bool db_event_is_bad(const struct doorbell_event *event,
				   uint32_t count, uint64_t addr)
{
	return event->type == DOORBELL_EVENT_BAD_ADDRESS &&
	       event->queue == DOORBELL_QUEUE_NONE && event->width == 0 &&
	       event->count == count && event->value == addr;
}

/* Files of text */

/* Read a small file, append a NUL, and return the length. */
static inline int db_read_file(const char *path, char *text, size_t size)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	int len;

	if (fd < 0)
		return -errno;
	len = db_result(read(fd, text, size - 1));
	close(fd);
	if (len >= 0)
		text[len] = '\0';
	return len;
}

/* The non-negative number at the start of a file */
static inline long db_read_number(const char *path)
{
	char text[32];
	int ret = db_read_file(path, text, sizeof(text));

	return ret < 0 ? ret : atol(text);
}

static inline int db_write_file(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY | O_CLOEXEC);
	int ret;

	if (fd < 0)
		return -errno;
	ret = db_result(write(fd, text, strlen(text)));
	close(fd);
	if (ret < 0)
		return ret;
	return ret == (int)strlen(text) ? 0 : -EIO;
}

/* Snapshots */

/**
 * struct db_snapshot - everything a consumer shows of its state
 * @info: DOORBELL_INFO
 * @fdinfo: the part of /proc/self/fdinfo/FD that is about doorbells
 * @bits: what poll() reports
 */
struct db_snapshot {
	struct doorbell_info info;
	char fdinfo[1024];
	int bits;
};

static inline int db_snapshot(int fd, struct db_snapshot *snap)
{
	char path[64], text[2048];
	const char *ours;
	int ret;

	memset(snap, 0, sizeof(*snap));
	ret = db_info(fd, &snap->info);
	if (ret)
		return ret;
	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	ret = db_read_file(path, text, sizeof(text));
	if (ret < 0)
		return ret;
	ours = strstr(text, "doorbell-");
	if (!ours || strlen(ours) >= sizeof(snap->fdinfo))
		return -EPROTO;
	memcpy(snap->fdinfo, ours, strlen(ours) + 1);
	snap->bits = db_poll(fd, POLLIN | POLLRDNORM | POLLOUT | POLLWRNORM |
			     POLLPRI | POLLRDHUP, 0);
	return 0;
}

/* Print a snapshot as one line of diagnostics. */
static inline void db_show(const char *what, const struct db_snapshot *snap)
{
	const char *at;

	printf("# %s: poll %#x ", what, snap->bits);
	for (at = snap->fdinfo; *at; at++)
		putchar(*at == '\n' || *at == '\t' ? ' ' : *at);
	putchar('\n');
}

/* Compare two snapshots and print them if they differ. */
static inline bool db_same(const struct db_snapshot *a,
			   const struct db_snapshot *b)
{
	if (!memcmp(&a->info, &b->info, sizeof(a->info)) &&
	    !strcmp(a->fdinfo, b->fdinfo) && a->bits == b->bits)
		return true;
	db_show("was", a);
	db_show("is ", b);
	return false;
}

/* Memory */

/* Zeroed memory that fork() shares, or NULL */
static inline void *db_shared_memory(size_t size)
{
	void *mem = mmap(NULL, size, PROT_READ | PROT_WRITE,
			 MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	return mem == MAP_FAILED ? NULL : mem;
}

/*
 * Return an address with @inside bytes that can be accessed as @prot says.
 * Every access beyond them faults.
 */
static inline void *db_edge(size_t inside, int prot)
{
	size_t page = sysconf(_SC_PAGESIZE);
	size_t room = (inside + page - 1) / page * page;
	char *mem;

	mem = mmap(NULL, room + page, PROT_READ | PROT_WRITE,
		   MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	if (mem == MAP_FAILED)
		abort();
	memset(mem, 0, room);
	if (mprotect(mem, room, prot) ||
	    mprotect(mem + room, page, PROT_NONE))
		abort();
	return mem + room - inside;
}

/* Time */

static inline uint64_t db_now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000ULL + ts.tv_nsec / 1000000;
}

/* Wait until @cond is true: false if it stays false. */
#define eventually(cond) __extension__ ({				\
	__u64 _end = db_now_ms() + DB_PATIENCE_MS;			\
	bool _ok;							\
									\
	while (!(_ok = (cond)) && db_now_ms() < _end)			\
		usleep(200);						\
	_ok;								\
})

/*
 * The time when a loop ends that would find more if it ran for longer. With
 * DOORBELL_LONG in the environment it has that many times @ms, else a fourth.
 */
static inline uint64_t db_until(uint64_t ms)
{
	const char *factor = getenv("DOORBELL_LONG");

	return db_now_ms() + (factor ? ms * (atoi(factor) ?: 1) : ms / 4);
}

/* True for @max rounds, or fewer if @end passes, but for @min at least */
static inline bool db_round(unsigned int done, unsigned int min,
			    unsigned int max, uint64_t end)
{
	return done < min || (done < max && db_now_ms() < end);
}

/* Threads and processes */

/* Is this a debug kernel? It is several times slower: loop less often there. */
static inline bool db_debug_kernel(void)
{
	return !access("/proc/lockdep_stats", F_OK);
}

static inline pid_t db_gettid(void)
{
	return syscall(SYS_gettid);
}

/* Run the calling thread on one CPU only. */
static inline int db_pin(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	return db_result(sched_setaffinity(0, sizeof(set), &set));
}

/*
 * Let other threads run, on this CPU and on others: an emulator that runs one
 * CPU at a time switches at a PAUSE, and otherwise after a tenth of a second.
 */
static inline void db_yield(void)
{
#if __has_builtin(__builtin_ia32_pause)
	__builtin_ia32_pause();
#elif defined(__aarch64__) || defined(__arm__)
	__asm__ volatile("yield");
#endif
	sched_yield();
}

static inline void db_spin(unsigned int turns)
{
	while (turns--)
		__asm__ volatile("" ::: "memory");
}

/*
 * Wait until a task sleeps in system call @nr. The kernel numbers the call in
 * the task's ABI, so 32-bit programs can only wait for 32-bit programs.
 */
static inline int db_wait_sleeping(pid_t pid, pid_t tid, long nr)
{
	uint64_t end = db_now_ms() + DB_PATIENCE_MS;
	char path[64], text[256];
	int len;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/syscall", pid, tid);
	while (db_now_ms() < end) {
		len = db_read_file(path, text, sizeof(text));
		if (len < 0)
			return len;
		/* "running", without a number, if the task does not sleep */
		if (text[0] >= '0' && text[0] <= '9' &&
		    strtol(text, NULL, 10) == nr)
			return 0;
		db_yield();
	}
	return -ETIMEDOUT;
}

/* Wait for a child. Return its exit status, or 0x100 plus its signal. */
static inline int db_wait_status(pid_t pid)
{
	int status;

	if (waitpid(pid, &status, 0) != pid)
		return -errno;
	return WIFEXITED(status) ? WEXITSTATUS(status) :
				   0x100 + WTERMSIG(status);
}

/* Pass a descriptor over a Unix socket. */
static inline int db_send_fd(int sock, int fd)
{
	char byte = 0, control[CMSG_SPACE(sizeof(fd))] = {};
	struct iovec iov = { .iov_base = &byte, .iov_len = 1 };
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1,
		.msg_control = control, .msg_controllen = sizeof(control),
	};
	struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);
	int ret;

	cmsg->cmsg_level = SOL_SOCKET;
	cmsg->cmsg_type = SCM_RIGHTS;
	cmsg->cmsg_len = CMSG_LEN(sizeof(fd));
	memcpy(CMSG_DATA(cmsg), &fd, sizeof(fd));
	ret = db_result(sendmsg(sock, &msg, 0));
	return ret < 0 ? ret : 0;
}

/* Receive a descriptor that db_send_fd() passed. */
static inline int db_receive_fd(int sock)
{
	char byte, control[CMSG_SPACE(sizeof(int))] = {};
	struct iovec iov = { .iov_base = &byte, .iov_len = 1 };
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1,
		.msg_control = control, .msg_controllen = sizeof(control),
	};
	struct cmsghdr *cmsg;
	int fd;

	fd = db_result(recvmsg(sock, &msg, MSG_CMSG_CLOEXEC));
	if (fd < 0)
		return fd;
	cmsg = CMSG_FIRSTHDR(&msg);
	if (!cmsg || cmsg->cmsg_type != SCM_RIGHTS)
		return -EPROTO;
	memcpy(&fd, CMSG_DATA(cmsg), sizeof(fd));
	return fd;
}

/* Modules */

/* Load a module from its file, and wait until its device node appears. */
static inline int db_insmod(int file, const char *node)
{
	uint64_t end = db_now_ms() + DB_PATIENCE_MS;
	int ret = db_result(syscall(SYS_finit_module, file, "", 0));

	if (ret)
		return ret;
	while (access(node, R_OK | W_OK)) {
		if (db_now_ms() >= end)
			return -ETIMEDOUT;
		usleep(200);
	}
	return 0;
}

static inline int db_rmmod(const char *name)
{
	return db_result(syscall(SYS_delete_module, name, O_NONBLOCK));
}

/* Open the file of the module, for db_module_load(). */
static inline int db_module_open(void)
{
	return db_result(open(getenv("DOORBELL_KO") ?: "/doorbell.ko",
			      O_RDONLY | O_CLOEXEC));
}

static inline int db_module_load(int file)
{
	return db_insmod(file, DB_PATH);
}

static inline int db_module_unload(void)
{
	return db_rmmod("doorbell");
}

/* References to the module, or -ENOENT if it is built in or not loaded */
static inline int db_module_refs(void)
{
	return db_read_number("/sys/module/doorbell/refcnt");
}

/* Kernel memory */

/* The sum of the second column, of the lines that have @word */
static inline long db_add_up(const char *path, const char *word)
{
	FILE *file = fopen(path, "re");
	char line[1024];
	long sum = 0;

	while (file && fgets(line, sizeof(line), file))
		if (strstr(line, word))
			sum += atol(line + strcspn(line, " "));
	if (file)
		fclose(file);
	return sum;
}

/* Let CPUs and KASAN give up free objects. */
static inline void db_shrink_slabs(void)
{
	glob_t found;
	size_t i;

	if (glob("/sys/kernel/slab/*/shrink", 0, NULL, &found))
		return;
	for (i = 0; i < found.gl_pathc; i++)
		db_write_file(found.gl_pathv[i], "1");
	globfree(&found);
}

/* Random numbers */

/* xorshift: repeatable, one stream for each *@state, which is never 0 */
static inline uint32_t db_random(uint32_t *state)
{
	uint32_t x = *state;

	x ^= x << 13;
	x ^= x >> 17;
	x ^= x << 5;
	*state = x;
	return x;
}

#endif /* _DOORBELL_SELFTEST_UTIL_H */
