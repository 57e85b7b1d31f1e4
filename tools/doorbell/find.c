// SPDX-License-Identifier: GPL-2.0
/*
 * Find: consumers and VMs of other processes, by /proc and pidfd_getfd().
 */
#include <dirent.h>
#include <fcntl.h>
#include <linux/kcmp.h>
#include <poll.h>
#include <signal.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "tool.h"

#define DEVICE		"/dev/doorbell"
#define DEVICE_NUMBER	"/sys/class/misc/doorbell/dev"

/* pidfd_open() of a thread: from Linux 6.9 on */
#ifndef PIDFD_THREAD
#define PIDFD_THREAD	O_EXCL
#endif

/* In the flags of /proc/PID/stat */
#define PF_KTHREAD	0x00200000

volatile sig_atomic_t interrupted;

void die_device(int error)
{
	switch (error) {
	case ENOENT:
	case ENXIO:
	case ENODEV:
		if (!access(DEVICE_NUMBER, F_OK))
			die(STATUS_NO_DEVICE,
			    "the module is loaded, but there is no " DEVICE ": give it to this container");
		die(STATUS_NO_DEVICE,
		    "the doorbell module is not loaded: run \"modprobe doorbell\" as root");
	case EACCES:
	case EPERM:
		die(STATUS_DENIED,
		    "no permission to open " DEVICE ": join the group that it belongs to, or run as root");
	default:
		die(STATUS_FAILED, DEVICE ": %s", strerror(error));
	}
}

/* A container may have the device under another name: go by its number. */
static dev_t device_number(void)
{
	FILE *file = fopen(DEVICE_NUMBER, "re");
	unsigned int major, minor;

	if (!file)
		die_device(errno);
	if (fscanf(file, "%u:%u", &major, &minor) != 2)
		die(STATUS_FAILED, "cannot read " DEVICE_NUMBER);
	fclose(file);
	return makedev(major, minor);
}

static const char * const states[] = {
	[DOORBELL_DETACHED] = "detached",
	[DOORBELL_ATTACHED] = "attached",
	[DOORBELL_HANGUP] = "hangup",
};

#define FIELD(key, member)						\
	{ key, offsetof(struct consumer, member),			\
	  sizeof(((struct consumer *)NULL)->member) }

/* The numbers in fdinfo */
static const struct {
	const char *key;
	size_t offset;
	size_t size;
} fields[] = {
	FIELD("id", id),
	FIELD("vm-pid", vm_pid),
	FIELD("base", info.base),
	FIELD("len", info.len),
	FIELD("flags", info.flags),
	FIELD("depth", info.depth),
	FIELD("stride", info.stride),
	FIELD("queues", info.queues),
	FIELD("rings", info.rings),
	FIELD("bad-rings", info.bad_rings),
	FIELD("pending", info.pending),
	FIELD("wakeups", info.wakeups),
	FIELD("bounced", info.bounced),
	FIELD("bound-rings", info.bound_rings),
};

static void take_line(struct consumer *consumer, const char *key,
		      const char *text)
{
	uint64_t value = strtoull(text, NULL, 0);
	size_t i;

	for (i = 0; i < ARRAY_SIZE(states); i++)
		if (!strcmp(key, "state") && !strcmp(text, states[i]))
			consumer->info.state = i;
	/* the low bytes come first: the module is for such machines only */
	for (i = 0; i < ARRAY_SIZE(fields); i++)
		if (!strcmp(key, fields[i].key))
			memcpy((char *)consumer + fields[i].offset, &value,
			       fields[i].size);
}

/*
 * Return -errno of what failed below /proc: a process has ended, or the caller
 * may not look. Want of descriptors or memory must not hide consumers.
 */
static int proc_error(const char *path)
{
	int error = errno;

	if (error != ENOENT && error != ESRCH && error != EACCES &&
	    error != EPERM)
		die(STATUS_FAILED, "%s: %s", path, strerror(error));
	return -error;
}

static int read_fdinfo(pid_t tid, int fd, struct consumer *consumer)
{
	char path[64], line[128], key[32], text[64];
	int ret = -ENOTTY;
	FILE *file;

	*consumer = (struct consumer) { .tid = tid, .fd = fd };
	snprintf(path, sizeof(path), "/proc/%d/fdinfo/%d", tid, fd);
	file = fopen(path, "re");
	if (!file)
		return proc_error(path);
	while (fgets(line, sizeof(line), file)) {
		if (sscanf(line, "doorbell-%31[^:]: %63s", key, text) != 2)
			continue;
		take_line(consumer, key, text);
		ret = 0;
	}
	fclose(file);
	return ret;
}

/*
 * Return -ENOTTY if the descriptor is no consumer. Only files that say
 * "doorbell" are asked for more: another file system may be dead, and its
 * answer never come. The name of a dma-buf can say it, too.
 */
static int read_consumer(pid_t tid, int fd, dev_t device,
			 struct consumer *consumer)
{
	int ret = read_fdinfo(tid, fd, consumer);
	struct statx st;
	char path[64];

	if (ret)
		return ret;
	snprintf(path, sizeof(path), "/proc/%d/fd/%d", tid, fd);
	if (statx(AT_FDCWD, path, AT_STATX_DONT_SYNC, STATX_TYPE, &st) ||
	    !S_ISCHR(st.stx_mode) ||
	    makedev(st.stx_rdev_major, st.stx_rdev_minor) != device)
		return -ENOTTY;
	return 0;
}

/* Marks and controls of the direction, by which a name can hide others */
static bool is_bidi(uint32_t code)
{
	return (code >= 0x200e && code <= 0x200f) ||
	       (code >= 0x202a && code <= 0x202e) ||
	       (code >= 0x2066 && code <= 0x2069);
}

/* Bytes of the UTF-8 character at @text; 0: none, or one that controls */
static size_t character_size(const char *text)
{
	static const uint32_t min[] = { 0, 0xa0, 0x800, 0x10000 };
	unsigned char first = text[0];
	size_t more = first < 0x80 ? 0 : first < 0xe0 ? 1 : first < 0xf0 ? 2 :
									   3;
	uint32_t code = first & (more ? 0x3f >> more : 0x7f);
	size_t i;

	if (!more)
		return first >= 0x20 && first != 0x7f;
	for (i = 1; i <= more; i++) {
		if ((text[i] & 0xc0) != 0x80)
			return 0;
		code = code << 6 | (text[i] & 0x3f);
	}
	return first >= 0xc0 && first < 0xf8 && code >= min[more] &&
	       code <= 0x10ffff && (code < 0xd800 || code > 0xdfff) &&
	       !is_bidi(code) ? more + 1 : 0;
}

/* For terminals and JSON: a process may name itself by any bytes. */
static void make_printable(char *text)
{
	size_t size;

	for (; *text; text += size) {
		size = character_size(text);
		if (!size) {
			*text = '?';
			size = 1;
		}
	}
}

static void read_comm(pid_t pid, char *comm, size_t size)
{
	char path[64];
	FILE *file;

	snprintf(path, sizeof(path), "/proc/%d/comm", pid);
	file = fopen(path, "re");
	if (!file || !fgets(comm, size, file))
		comm[0] = '\0';
	comm[strcspn(comm, "\n")] = '\0';
	make_printable(comm);
	if (file)
		fclose(file);
}

/*
 * pidfd_open() takes PIDs of the caller's namespace: where /proc has others,
 * the tool would show one process and act on another.
 */
static void must_have_proc(void)
{
	FILE *file = fopen("/proc/self/status", "re");
	int here, below, n = 0;
	char line[256];

	/* a PID for each namespace, from that of /proc to the caller's */
	while (file && n < 1 && fgets(line, sizeof(line), file))
		n = sscanf(line, "NSpid: %d %d", &here, &below);
	if (!file || n > 1)
		die(STATUS_FAILED,
		    "/proc is not that of this PID namespace: mount it (\"mount -t proc none /proc\")");
	fclose(file);
}

/*
 * Kernel threads and zombies have no descriptors. The name may have any
 * characters: go by the last parenthesis.
 */
static bool has_descriptors(pid_t tid)
{
	char path[64], text[512], *at, state;
	unsigned int flags;
	FILE *file;
	size_t n;
	int ret;

	snprintf(path, sizeof(path), "/proc/%d/stat", tid);
	file = fopen(path, "re");
	if (!file) {
		ret = proc_error(path);
		return ret == -EACCES || ret == -EPERM;
	}
	n = fread(text, 1, sizeof(text) - 1, file);
	fclose(file);
	text[n] = '\0';
	at = strrchr(text, ')');
	if (!at || sscanf(at, ") %c %*d %*d %*d %*d %*d %u", &state,
			  &flags) != 2)
		return false;
	return state != 'Z' && state != 'X' && !(flags & PF_KTHREAD);
}

/* Return NULL with errno if the thread ended, or the caller may not look. */
static DIR *open_directory(pid_t tid, const char *name)
{
	char path[64];
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/%s", tid, name);
	dir = opendir(path);
	if (!dir)
		errno = -proc_error(path);
	return dir;
}

/* The number that a name in /proc or in /proc/PID/fd is, or -1 */
static int number_of(const struct dirent *entry)
{
	char *end;
	long number = strtol(entry->d_name, &end, 10);

	return *end || end == entry->d_name ? -1 : number;
}

/**
 * struct walk - a walk through the descriptors of processes
 * @look: called for each; -EACCES and -EPERM: the caller may not look
 * @pid: the process
 * @tid: the thread in whose table the descriptor is
 * @fds: the table
 */
struct walk {
	int (*look)(struct walk *walk, const struct dirent *entry);
	pid_t pid;
	pid_t tid;
	DIR *fds;
};

/* Return the number of descriptors, or -EACCES. */
static int walk_table(struct walk *walk, pid_t tid)
{
	struct dirent *entry;
	int n = 0, error = 0, ret;

	walk->tid = tid;
	walk->fds = open_directory(tid, "fd");
	if (!walk->fds) {
		error = errno == EACCES || errno == EPERM ? -EACCES : 0;
	} else {
		while (!interrupted && (entry = readdir(walk->fds))) {
			if (number_of(entry) < 0)
				continue;
			n++;
			ret = walk->look(walk, entry);
			if (ret == -EACCES || ret == -EPERM)
				error = -EACCES;
		}
		closedir(walk->fds);
	}
	return error && has_descriptors(tid) ? error : n;
}

/*
 * Was the table of @tid walked? @walked has a thread of each that was, in the
 * order of kcmp(), which has a place @at for @tid. If kcmp() is not allowed, or
 * not there, or a thread has ended: no, and the same table is walked again.
 */
static bool was_walked(const pid_t *walked, size_t n, pid_t tid, size_t *at)
{
	size_t low = 0, high = n, middle;
	long order;

	while (low < high) {
		middle = (low + high) / 2;
		order = syscall(SYS_kcmp, walked[middle], tid, KCMP_FILES, 0,
				0);
		if (!order)
			return true;
		if (order < 0)
			break;
		if (order == 1)
			low = middle + 1;
		else
			high = middle;
	}
	*at = low;
	return false;
}

/*
 * Walk through the tables of a process, that of the thread @pid first, and each
 * of them once if possible. A main thread that has ended has none. Return 0, or
 * -ESRCH, or -EACCES if the caller may not look.
 */
static int walk_process(struct walk *walk, pid_t pid)
{
	DIR *threads = open_directory(pid, "task");
	struct dirent *entry;
	pid_t *walked = NULL, tid = pid;
	size_t n = 0, at;
	int ret, error = 0;

	if (!threads)
		return errno == EACCES || errno == EPERM ? -EACCES : -ESRCH;
	walk->pid = pid;
	do {
		if (!was_walked(walked, n, tid, &at)) {
			ret = walk_table(walk, tid);
			if (ret < 0)
				error = ret;
			/* all the other threads are the same user's */
			if (ret < 0 && tid == pid)
				break;
			if (ret > 0) {
				walked = must(realloc(walked, (n + 1) *
						      sizeof(*walked)));
				memmove(walked + at + 1, walked + at,
					(n++ - at) * sizeof(*walked));
				walked[at] = tid;
			}
		}
		while ((entry = readdir(threads)) &&
		       ((tid = number_of(entry)) < 0 || tid == pid))
			;
	} while (entry && !interrupted);
	free(walked);
	closedir(threads);
	return error;
}

/**
 * struct search - a walk that finds consumers
 * @walk: the walk
 * @device: number of /dev/doorbell
 * @fd: the only descriptor, or -1
 * @list: the consumers
 * @n: their number
 */
struct search {
	struct walk walk;
	dev_t device;
	int fd;
	struct consumer *list;
	size_t n;
};

static int take_consumer(struct walk *walk, const struct dirent *entry)
{
	struct search *search = (struct search *)walk;
	int fd = number_of(entry), ret;
	struct consumer consumer;
	char first;
	size_t i;

	if (search->fd >= 0 && fd != search->fd)
		return 0;
	/* sockets and the like have no path: this is faster than fdinfo */
	if (readlinkat(dirfd(walk->fds), entry->d_name, &first, 1) == 1 &&
	    first != '/')
		return -ENOTTY;
	/* a process may close it at any time */
	ret = read_consumer(walk->tid, fd, search->device, &consumer);
	if (ret)
		return ret;
	/* in another table, or the same one again */
	for (i = walk->tid == walk->pid ? 0 : search->n;
	     i > 0 && search->list[i - 1].pid == walk->pid; i--)
		if (search->list[i - 1].fd == fd &&
		    search->list[i - 1].id == consumer.id)
			return 0;
	consumer.pid = walk->pid;
	read_comm(walk->pid, consumer.comm, sizeof(consumer.comm));
	search->list = must(realloc(search->list, (search->n + 1) *
				    sizeof(consumer)));
	search->list[search->n++] = consumer;
	return 0;
}

size_t find_consumers(pid_t only, struct consumer **list, unsigned int *hidden)
{
	struct search search = {
		.walk.look = take_consumer,
		.device = device_number(),
		.fd = -1,
	};
	struct dirent *process;
	DIR *proc;
	pid_t pid;

	must_have_proc();
	*hidden = 0;
	if (only) {
		*hidden = walk_process(&search.walk, only) == -EACCES;
		*list = search.list;
		return search.n;
	}
	proc = opendir("/proc");
	if (!proc)
		die(STATUS_FAILED, "/proc: %s", strerror(errno));
	while (!interrupted && (process = readdir(proc))) {
		pid = number_of(process);
		if (pid >= 0)
			*hidden += walk_process(&search.walk, pid) == -EACCES;
	}
	closedir(proc);
	*list = search.list;
	return search.n;
}

bool proc_hides(void)
{
	/* as far as it can be seen: each PID namespace has this process */
	return access("/proc/1", F_OK);
}

void warn_hidden(unsigned int hidden)
{
	if (proc_hides())
		warn_user("/proc hides processes (hidepid): run as root to see all consumers");
	if (hidden)
		warn_user("no permission to look into %u process%s: run as root to see all consumers",
			  hidden, hidden == 1 ? "" : "es");
}

__attribute__((noreturn))
static void die_consumer(pid_t pid, int fd, int error)
{
	/* /proc may hide it */
	if (error == ESRCH && kill(pid, 0) && errno == EPERM)
		error = EPERM;
	switch (error) {
	case EPERM:
	case EACCES:
		die(STATUS_DENIED,
		    "no permission to look into process %d: run as root, or as its user if kernel.yama.ptrace_scope is 0",
		    pid);
	case ESRCH:
	case EINVAL:
		die(STATUS_NOT_FOUND,
		    "there is no process %d: \"doorbell list\" has those with consumers",
		    pid);
	case EBADF:
	case ENOENT:
	case ENOTTY:
		die(STATUS_NOT_FOUND,
		    "descriptor %d of process %d is no consumer: \"doorbell list\" has those that are",
		    fd, pid);
	case ESTALE:
		die(STATUS_NOT_FOUND,
		    "process %d has replaced its descriptor %d meanwhile", pid,
		    fd);
	case EOPNOTSUPP:
		die(STATUS_FAILED,
		    "descriptor %d of process %d is a thread's: Linux 6.9 or newer can get it",
		    fd, pid);
	default:
		die(STATUS_FAILED, "descriptor %d of process %d: %s", fd, pid,
		    strerror(error));
	}
}

struct consumer find_consumer(const char *pid_text, const char *fd_text)
{
	pid_t pid = parse_pid(pid_text);
	struct search search = {
		.walk.look = take_consumer,
		.device = device_number(),
		.fd = parse_number(fd_text, "FD", INT32_MAX),
	};
	struct consumer consumer;
	int ret;

	must_have_proc();
	ret = walk_process(&search.walk, pid);
	if (!search.n)
		die_consumer(pid, search.fd, ret ? -ret : ENOTTY);
	consumer = search.list[0];
	free(search.list);
	return consumer;
}

static int get_fd(pid_t tid, int fd)
{
	int pidfd = pidfd_open(tid, PIDFD_THREAD);
	int ret;

	if (pidfd < 0 && errno == EINVAL) {
		pidfd = pidfd_open(tid, 0);
		if (pidfd < 0 && errno == EINVAL)
			return -EOPNOTSUPP;
	}
	if (pidfd < 0)
		return -errno;
	ret = pidfd_getfd(pidfd, fd, 0);
	if (ret < 0)
		ret = -errno;
	close(pidfd);
	return ret;
}

/*
 * The process may have put another file there since we looked, or be another
 * process: go by the duplicate.
 */
int consumer_open(struct consumer *consumer)
{
	dev_t device = device_number();
	int fd = get_fd(consumer->tid, consumer->fd), ret;
	struct consumer own;

	if (fd < 0)
		return fd;
	ret = read_consumer(getpid(), fd, device, &own);
	if (!ret && own.id != consumer->id)
		ret = -ESTALE;
	if (ret) {
		close(fd);
		return ret;
	}
	consumer->vm_pid = own.vm_pid;
	consumer->info = own.info;
	return fd;
}

int must_open_consumer(struct consumer *consumer)
{
	int fd = consumer_open(consumer);

	if (fd < 0)
		die_consumer(consumer->pid, consumer->fd, -fd);
	return fd;
}

static int look_only(struct walk *walk, const struct dirent *entry)
{
	(void)walk;
	(void)entry;
	return 0;
}

int must_open_process(pid_t pid)
{
	struct walk walk = { .look = look_only };
	int pidfd, ret;

	must_have_proc();
	pidfd = pidfd_open(pid, 0);
	/* a thread */
	if (pidfd < 0)
		pidfd = pidfd_open(pid, PIDFD_THREAD);
	if (pidfd < 0)
		die_consumer(pid, -1, errno);
	ret = walk_process(&walk, pid);
	if (ret)
		die_consumer(pid, -1, -ret);
	return pidfd;
}

bool process_ended(int pidfd)
{
	struct pollfd pfd = { .fd = pidfd, .events = POLLIN };

	return poll(&pfd, 1, 0) > 0;
}

static bool is_vm(int fds, const char *name)
{
	static const char vm[] = "anon_inode:kvm-vm";
	char target[sizeof(vm)];

	return readlinkat(fds, name, target, sizeof(target)) ==
	       sizeof(vm) - 1 && !memcmp(target, vm, sizeof(vm) - 1);
}

/**
 * struct vm_search - a walk that finds VMs
 * @walk: the walk
 * @only: the only descriptor, VM or not, or -1
 * @n: number of descriptors found
 * @fd: the first one
 * @tid: the thread that has it
 */
struct vm_search {
	struct walk walk;
	int only;
	unsigned int n;
	int fd;
	pid_t tid;
};

static int take_vm(struct walk *walk, const struct dirent *entry)
{
	struct vm_search *search = (struct vm_search *)walk;
	int fd = number_of(entry);

	/* the first table that has any */
	if (search->n && walk->tid != search->tid)
		return 0;
	if (search->only >= 0 ? fd != search->only :
				!is_vm(dirfd(walk->fds), entry->d_name))
		return 0;
	if (!search->n++) {
		search->fd = fd;
		search->tid = walk->tid;
	}
	return 0;
}

int must_open_vm(pid_t pid, int only)
{
	struct vm_search search = { .walk.look = take_vm, .only = only };
	int pidfd = must_open_process(pid), fd;
	char path[32];

	walk_process(&search.walk, pid);
	if (!search.n && only >= 0)
		die(STATUS_NOT_FOUND, "process %d has no such descriptor", pid);
	if (!search.n)
		die(STATUS_NOT_FOUND, "process %d has no KVM VM", pid);
	if (search.n > 1 && only < 0)
		die(STATUS_USAGE,
		    "process %d has %u descriptors of VMs: choose one by --vm-fd (\"ls -l /proc/%d/fd\" has them)",
		    pid, search.n, pid);
	fd = get_fd(search.tid, search.fd);
	if (fd < 0)
		die_consumer(pid, search.fd, -fd);
	/* what we looked at was this process, if it is still there */
	if (process_ended(pidfd))
		die_consumer(pid, -1, ESRCH);
	close(pidfd);
	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	if (only < 0 && !is_vm(AT_FDCWD, path))
		die_consumer(pid, search.fd, ESTALE);
	return fd;
}

const char *state_text(const struct doorbell_info *info)
{
	return states[info->state];
}

const char *bus_text(const struct doorbell_info *info)
{
	return info->flags & DOORBELL_ATTACH_PIO ? "pio" : "mmio";
}

const char *mode_text(const struct doorbell_info *info, char *text,
		      size_t size)
{
	snprintf(text, size, "%s%s%s%s%s",
		 info->flags & DOORBELL_ATTACH_ORDERED ? "ordered" :
							 "coalescing",
		 info->flags & DOORBELL_ATTACH_BY_VALUE ? ",by-value" : "",
		 info->flags & DOORBELL_ATTACH_NO_VALUE ? ",no-value" : "",
		 info->flags & DOORBELL_ATTACH_BOUND_ONLY ? ",bound-only" : "",
		 info->flags & DOORBELL_ATTACH_EXACT ? ",exact" : "");
	return text;
}
