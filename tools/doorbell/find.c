// SPDX-License-Identifier: GPL-2.0
/*
 * Find: consumers and VMs of other processes, by /proc and pidfd_getfd().
 */
#include <dirent.h>
#include <fcntl.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>
#include <unistd.h>

#include "tool.h"

#define DEVICE		"/dev/doorbell"
#define DEVICE_NUMBER	"/sys/class/misc/doorbell/dev"

void die_device(int error)
{
	switch (error) {
	case ENOENT:
	case ENXIO:
	case ENODEV:
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

static int read_fdinfo(pid_t pid, int fd, struct consumer *consumer)
{
	char path[64], line[128], key[32], text[64];
	int ret = -ENOTTY;
	FILE *file;

	*consumer = (struct consumer) { .pid = pid, .fd = fd };
	snprintf(path, sizeof(path), "/proc/%d/fdinfo/%d", pid, fd);
	file = fopen(path, "re");
	if (!file)
		return -errno;
	while (fgets(line, sizeof(line), file)) {
		if (sscanf(line, "doorbell-%31[^:]: %63s", key, text) != 2)
			continue;
		take_line(consumer, key, text);
		ret = 0;
	}
	fclose(file);
	return ret;
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
	       code <= 0x10ffff && (code < 0xd800 || code > 0xdfff) ?
	       more + 1 : 0;
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

static DIR *open_fds(pid_t pid)
{
	char path[64];

	snprintf(path, sizeof(path), "/proc/%d/fd", pid);
	return opendir(path);
}

/* The number that a name in /proc or in /proc/PID/fd is, or -1 */
static int number_of(const struct dirent *entry)
{
	char *end;
	long number = strtol(entry->d_name, &end, 10);

	return *end || end == entry->d_name ? -1 : number;
}

static bool is_vm(DIR *fds, const struct dirent *entry)
{
	static const char vm[] = "anon_inode:kvm-vm";
	char target[sizeof(vm)];

	return readlinkat(dirfd(fds), entry->d_name, target, sizeof(target)) ==
	       sizeof(vm) - 1 && !memcmp(target, vm, sizeof(vm) - 1);
}

/* The number of VM descriptors of a process, and one of them */
static unsigned int find_vms(pid_t pid, int *fd)
{
	DIR *fds = open_fds(pid);
	struct dirent *entry;
	unsigned int n = 0;

	if (!fds)
		return 0;
	while ((entry = readdir(fds))) {
		if (number_of(entry) >= 0 && is_vm(fds, entry)) {
			*fd = number_of(entry);
			n++;
		}
	}
	closedir(fds);
	return n;
}

/* Add the consumers of a process. Return false if the caller may not look. */
static bool add_consumers(pid_t pid, dev_t device, struct consumer **list,
			  size_t *n)
{
	DIR *fds = open_fds(pid);
	struct consumer consumer;
	struct dirent *entry;
	bool allowed = true;
	struct stat st;
	int ret;

	if (!fds)
		return errno != EACCES;
	while ((entry = readdir(fds))) {
		if (number_of(entry) < 0)
			continue;
		ret = fstatat(dirfd(fds), entry->d_name, &st, 0) ? -errno : 0;
		if (!ret && (!S_ISCHR(st.st_mode) || st.st_rdev != device))
			continue;
		/* a process may close it at any time */
		ret = ret ?: read_fdinfo(pid, number_of(entry), &consumer);
		allowed &= ret != -EACCES && ret != -EPERM;
		if (ret)
			continue;
		read_comm(pid, consumer.comm, sizeof(consumer.comm));
		*list = must(realloc(*list, (*n + 1) * sizeof(consumer)));
		(*list)[(*n)++] = consumer;
	}
	closedir(fds);
	return allowed;
}

size_t find_consumers(pid_t only, struct consumer **list, unsigned int *hidden)
{
	dev_t device = device_number();
	DIR *proc = opendir("/proc");
	struct dirent *process;
	size_t n = 0;
	pid_t pid;

	*list = NULL;
	*hidden = 0;
	if (!proc)
		die(STATUS_FAILED, "/proc: %s", strerror(errno));
	while ((process = readdir(proc))) {
		pid = number_of(process);
		if (pid >= 0 && (!only || pid == only))
			*hidden += !add_consumers(pid, device, list, &n);
	}
	closedir(proc);
	return n;
}

void warn_hidden(unsigned int hidden)
{
	if (hidden)
		warn_user("no permission to look into %u processes: run as root to see all consumers",
			  hidden);
}

__attribute__((noreturn))
static void die_consumer(pid_t pid, int fd, int error)
{
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
	default:
		die(STATUS_FAILED, "descriptor %d of process %d: %s", fd, pid,
		    strerror(error));
	}
}

struct consumer find_consumer(const char *pid_text, const char *fd_text)
{
	pid_t pid = parse_pid(pid_text);
	int fd = parse_number(fd_text, "FD", INT32_MAX), ret;
	struct consumer consumer;
	char path[32];

	device_number();
	snprintf(path, sizeof(path), "/proc/%d", pid);
	if (access(path, F_OK))
		die_consumer(pid, fd, ESRCH);
	ret = read_fdinfo(pid, fd, &consumer);
	if (ret)
		die_consumer(pid, fd, -ret);
	read_comm(pid, consumer.comm, sizeof(consumer.comm));
	return consumer;
}

static int get_fd(pid_t pid, int fd)
{
	int pidfd = pidfd_open(pid, 0);
	int ret;

	if (pidfd < 0)
		return -errno;
	ret = pidfd_getfd(pidfd, fd, 0);
	if (ret < 0)
		ret = -errno;
	close(pidfd);
	return ret;
}

/* The process may have put another file there since we looked. */
int consumer_open(pid_t pid, int fd)
{
	dev_t device = device_number();
	int ret = get_fd(pid, fd);
	struct stat st;

	if (ret >= 0 && (fstat(ret, &st) || !S_ISCHR(st.st_mode) ||
			 st.st_rdev != device)) {
		close(ret);
		return -EBADF;
	}
	return ret;
}

int must_open_consumer(const struct consumer *consumer)
{
	int fd = consumer_open(consumer->pid, consumer->fd);

	if (fd < 0)
		die_consumer(consumer->pid, consumer->fd, -fd);
	return fd;
}

void must_see(pid_t pid)
{
	DIR *fds = open_fds(pid);

	if (!fds)
		die_consumer(pid, -1, errno == ENOENT ? ESRCH : errno);
	closedir(fds);
}

int must_open_vm(pid_t pid, int fd)
{
	unsigned int n;

	must_see(pid);
	if (fd < 0) {
		n = find_vms(pid, &fd);
		if (!n)
			die(STATUS_NOT_FOUND, "process %d has no KVM VM", pid);
		if (n > 1)
			die(STATUS_USAGE,
			    "process %d has %u descriptors of VMs: choose one by --vm-fd (\"ls -l /proc/%d/fd\" has them)",
			    pid, n, pid);
	}
	fd = get_fd(pid, fd);
	if (fd == -EBADF)
		die(STATUS_NOT_FOUND, "process %d has no such descriptor", pid);
	if (fd < 0)
		die_consumer(pid, -1, -fd);
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
