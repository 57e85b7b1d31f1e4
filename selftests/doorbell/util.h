/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Util: what several of the test programs need, and nothing that tests.
 *
 * Opening, attaching, ringing and reading in one line each; a snapshot of all
 * that a consumer shows of itself; looking at what another thread waits in.
 */
#ifndef _DOORBELL_SELFTEST_UTIL_H
#define _DOORBELL_SELFTEST_UTIL_H

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <time.h>
#include <unistd.h>

/*
 * The harness compares whatever it is given, signed or not, hands every test
 * more than it may want, and jumps out of a failed one.
 */
#pragma GCC diagnostic ignored "-Wclobbered"
#pragma GCC diagnostic ignored "-Wsign-compare"
#pragma GCC diagnostic ignored "-Wunused-parameter"
#include <kselftest_harness.h>

#include <linux/doorbell.h>

#define DB_PATH		"/dev/doorbell"

/* Longer than anything takes, however slow the machine; for what never ends. */
#define DB_PATIENCE_MS	40000

#define DB_EVENT_SIZE	sizeof(struct doorbell_event)

static inline int db_open(int flags)
{
	return open(DB_PATH, O_RDWR | O_CLOEXEC | flags);
}

static inline struct doorbell_attach db_attach_arg(int vm_fd, uint64_t base,
						   uint64_t len)
{
	return (struct doorbell_attach) {
		.size = sizeof(struct doorbell_attach),
		.vm_fd = vm_fd,
		.base = base,
		.len = len,
	};
}

/* stride 0: the default */
static inline int db_attach_full(int fd, int vm_fd, uint64_t base, uint64_t len,
				 uint32_t stride, uint32_t flags)
{
	struct doorbell_attach arg = db_attach_arg(vm_fd, base, len);

	arg.stride = stride;
	arg.flags = flags;
	return ioctl(fd, DOORBELL_ATTACH, &arg);
}

static inline int db_attach(int fd, int vm_fd, uint64_t base, uint64_t len)
{
	return db_attach_full(fd, vm_fd, base, len, 0, 0);
}

static inline int db_detach(int fd)
{
	return ioctl(fd, DOORBELL_DETACH, 0);
}

static inline int db_info(int fd, struct doorbell_info *info)
{
	memset(info, 0, sizeof(*info));
	info->size = sizeof(*info);
	return ioctl(fd, DOORBELL_INFO, info);
}

/* Ring once by write(): 0, or -1 with errno. */
static inline int db_ring(int fd, uint64_t addr, uint64_t value)
{
	struct doorbell_ring ring = { .addr = addr, .value = value };
	ssize_t ret = write(fd, &ring, sizeof(ring));

	if (ret >= 0 && ret != sizeof(ring)) {
		errno = EPROTO;
		return -1;
	}
	return ret < 0 ? -1 : 0;
}

/* Read up to @max events: their number, or -1 with errno. */
static inline int db_read(int fd, struct doorbell_event *events, size_t max)
{
	ssize_t ret = read(fd, events, max * DB_EVENT_SIZE);

	if (ret > 0 && ret % DB_EVENT_SIZE) {
		errno = EPROTO;
		return -1;
	}
	return ret < 0 ? -1 : (int)(ret / DB_EVENT_SIZE);
}

/* Wait for bits of poll(); what it reports, 0 if none of them ever comes. */
static inline int db_poll(int fd, short events, int timeout_ms)
{
	struct pollfd pfd = { .fd = fd, .events = events };
	int ret = poll(&pfd, 1, timeout_ms);

	return ret < 0 ? -1 : ret ? pfd.revents : 0;
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

/* One line of a file under /proc/PID/fdinfo, or "" if it is not there. */
static inline const char *db_fdinfo(const char *text, const char *key)
{
	static char value[64];
	const char *line = strstr(text, key);

	value[0] = '\0';
	if (line)
		sscanf(line + strlen(key), ":\t%63[^\n]", value);
	return value;
}

/**
 * struct db_snapshot - all that a consumer shows of itself
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
	ssize_t len;
	int proc;

	memset(snap, 0, sizeof(*snap));
	if (db_info(fd, &snap->info))
		return -1;
	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	proc = open(path, O_RDONLY | O_CLOEXEC);
	if (proc < 0)
		return -1;
	len = read(proc, text, sizeof(text) - 1);
	close(proc);
	if (len < 0)
		return -1;
	text[len] = '\0';
	ours = strstr(text, "doorbell-");
	if (!ours || strlen(ours) >= sizeof(snap->fdinfo))
		return -1;
	memcpy(snap->fdinfo, ours, strlen(ours) + 1);
	snap->bits = db_poll(fd, POLLIN | POLLRDNORM | POLLOUT | POLLWRNORM |
			     POLLPRI | POLLRDHUP, 0);
	return 0;
}

/* As one line of diagnostics. */
static inline void db_show(const char *what, const struct db_snapshot *snap)
{
	const char *at;

	printf("# %s: poll %#x ", what, snap->bits);
	for (at = snap->fdinfo; *at; at++)
		putchar(*at == '\n' || *at == '\t' ? ' ' : *at);
	putchar('\n');
}

/* Shows the difference, if there is one. */
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

/* Time and threads */

static inline uint64_t db_now_ms(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000ULL + ts.tv_nsec / 1000000;
}

/* One more round? @max of them, or until @end, but not less than @min. */
static inline bool db_round(unsigned int done, unsigned int min,
			    unsigned int max, uint64_t end)
{
	return done < min || (done < max && db_now_ms() < end);
}

static inline pid_t db_gettid(void)
{
	return syscall(SYS_gettid);
}

/* Let the caller run on one CPU only: 0, or -1 if it is not there. */
static inline int db_pin(int cpu)
{
	cpu_set_t set;

	CPU_ZERO(&set);
	CPU_SET(cpu, &set);
	return sched_setaffinity(0, sizeof(set), &set);
}

/*
 * Let others run, here and elsewhere: an emulator that runs one CPU at a time
 * goes on to the next one at a PAUSE, and otherwise only after a tenth of a
 * second.
 */
static inline void db_yield(void)
{
#if __has_builtin(__builtin_ia32_pause)
	__builtin_ia32_pause();
#endif
	sched_yield();
}

/*
 * Wait until a task sleeps in a system call: 0, or -1 if it never does. The
 * kernel shows the call's number in the numbering of the caller's own ABI, as
 * long as both programs are built alike.
 */
static inline int db_wait_sleeping(pid_t pid, pid_t tid, long nr)
{
	uint64_t end = db_now_ms() + DB_PATIENCE_MS;
	char path[64], text[256];
	ssize_t len;
	int fd;

	snprintf(path, sizeof(path), "/proc/%d/task/%d/syscall", pid, tid);
	while (db_now_ms() < end) {
		fd = open(path, O_RDONLY | O_CLOEXEC);
		if (fd < 0)
			return -1;
		len = read(fd, text, sizeof(text) - 1);
		close(fd);
		if (len > 0) {
			text[len] = '\0';
			/* "running" without a number if it does not sleep */
			if (text[0] >= '0' && text[0] <= '9' &&
			    strtol(text, NULL, 10) == nr)
				return 0;
		}
		db_yield();
	}
	return -1;
}

/* xorshift: repeatable, and as many streams as one likes; *@state is not 0. */
static inline uint32_t db_random(uint32_t *state)
{
	uint32_t x = *state;

	x ^= x << 13;
	x ^= x >> 17;
	x ^= x << 5;
	*state = x;
	return x;
}

static inline void db_spin(unsigned int turns)
{
	while (turns--)
		__asm__ volatile("" ::: "memory");
}

#endif /* _DOORBELL_SELFTEST_UTIL_H */
