// SPDX-License-Identifier: GPL-2.0
/*
 * The first process of a Linux guest: it does what lines on the second serial
 * port ask for, and answers each with one line, "ok WHAT" or "not ok WHY".
 *
 *   data PASSES    write the data disk, read it back, compare
 *   loop           the same without end, a line "pass N" each
 *   single N       on each CPU read each disk N times, one request at a time
 *   files          mount the other disk, write files, mount again, compare
 *   vsock KIB      send to the host, which sends all of it back, and compare
 *   gone           as loop, until the disk is unplugged
 *   there          wait until it is plugged
 *
 * The data disk is the larger one. It prints "ready" when it is up.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <termios.h>
#include <unistd.h>
#include <linux/aio_abi.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/utsname.h>
#include <linux/vm_sockets.h>

#include "port.h"

#define DEPTH		32
#define CHUNK		8192
#define PACKET		4096
#define FILES		24
/* sectors: the data disk is larger than this */
#define DATA_MIN	(7 << 11)

static int port;
static char why[160];

#define fail(...) (snprintf(why, sizeof(why), __VA_ARGS__), -1)

/* Of a disk that is unplugged, requests may fail */
#define DIFFER "the data differ"

/* splitmix64 */
static uint64_t mix(uint64_t x)
{
	x += 0x9e3779b97f4a7c15;
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9;
	x = (x ^ (x >> 27)) * 0x94d049bb133111eb;
	return x ^ (x >> 31);
}

static void fill(void *buf, size_t len, uint64_t seed)
{
	uint64_t *word = buf;

	for (size_t i = 0; i < len / 8; i++)
		word[i] = mix(seed + i);
}

static int same(const void *buf, size_t len, uint64_t seed)
{
	const uint64_t *word = buf;

	for (size_t i = 0; i < len / 8; i++)
		if (word[i] != mix(seed + i))
			return 0;
	return 1;
}

/* Find a disk. Returns its number of sectors, 0 if there is none. */
static long find_disk(int data, char *path, size_t size)
{
	DIR *dir = opendir("/sys/class/block");
	struct dirent *entry;
	long found = 0;

	while (dir && !found && (entry = readdir(dir))) {
		char name[300];
		long sectors = 0;
		int large;
		FILE *f;

		if (strncmp(entry->d_name, "vd", 2))
			continue;
		snprintf(name, sizeof(name), "/sys/class/block/%s/size",
			 entry->d_name);
		f = fopen(name, "r");
		if (!f)
			continue;
		if (fscanf(f, "%ld", &sectors) != 1)
			sectors = 0;
		large = sectors > DATA_MIN;
		if (sectors && large == data) {
			snprintf(path, size, "/dev/%.8s", entry->d_name);
			found = sectors;
		}
		fclose(f);
	}
	if (dir)
		closedir(dir);
	return found;
}

/* -- the data disk: each CPU does a part, with DEPTH requests at a time ---- */
struct part {
	pthread_t thread;
	int cpu;
	int fd;
	unsigned long first;	/* chunk */
	unsigned long chunks;
	uint64_t seed;
	int opcode;
	char *error;
};

static void use_cpu(int cpu)
{
	cpu_set_t cpus;

	CPU_ZERO(&cpus);
	CPU_SET(cpu, &cpus);
	sched_setaffinity(0, sizeof(cpus), &cpus);
}

/* Nothing hides that the data differ. */
static void part_fails(struct part *p, char *error)
{
	if (!p->error || !strcmp(error, DIFFER))
		p->error = error;
}

static void *do_part(void *arg)
{
	struct part *p = arg;
	struct iocb iocbs[DEPTH], *iocb;
	char *bufs, *buf;
	struct io_event events[DEPTH];
	unsigned long next = 0, done = 0, stride;
	aio_context_t ctx = 0;
	int slots = 0;

	use_cpu(p->cpu);
	if (posix_memalign((void **)&bufs, 4096, DEPTH * CHUNK) ||
	    syscall(SYS_io_setup, DEPTH, &ctx)) {
		p->error = "no memory";
		return NULL;
	}
	/* Any odd number visits all chunks, if they are a power of two. */
	stride = p->opcode == IOCB_CMD_PREAD ? 37 : 101;
	while (done < p->chunks && !p->error) {
		long n = 0, room;

		if (slots == DEPTH || next == p->chunks)
			n = syscall(SYS_io_getevents, ctx, 1, DEPTH, events,
				    NULL);
		for (long i = 0; i < n; i++) {
			iocb = (struct iocb *)(uintptr_t)events[i].obj;
			if (events[i].res != CHUNK)
				part_fails(p, "a request failed");
			else if (p->opcode == IOCB_CMD_PREAD &&
				 !same((void *)(uintptr_t)iocb->aio_buf, CHUNK,
				       p->seed + iocb->aio_offset))
				part_fails(p, DIFFER);
		}
		done += n;
		/* One call for each request, so that most of them ring. */
		room = n ? n : DEPTH - slots;
		for (long i = 0; i < room && next < p->chunks; i++) {
			iocb = n ? (void *)(uintptr_t)events[i].obj :
				   &iocbs[slots++];
			buf = bufs + (iocb - iocbs) * CHUNK;
			memset(iocb, 0, sizeof(*iocb));
			iocb->aio_fildes = p->fd;
			iocb->aio_lio_opcode = p->opcode;
			iocb->aio_buf = (uintptr_t)buf;
			iocb->aio_nbytes = CHUNK;
			iocb->aio_offset = CHUNK * (p->first +
				(next++ * stride) % p->chunks);
			if (p->opcode == IOCB_CMD_PWRITE)
				fill(buf, CHUNK, p->seed + iocb->aio_offset);
			if (syscall(SYS_io_submit, ctx, 1, &iocb) != 1)
				part_fails(p, "io_submit");
		}
	}
	syscall(SYS_io_destroy, ctx);
	free(bufs);
	return NULL;
}

static int data_pass(uint64_t seed)
{
	static const int opcodes[] = { IOCB_CMD_PWRITE, IOCB_CMD_PREAD };
	int fd, cpus = sysconf(_SC_NPROCESSORS_ONLN), ret = 0;
	struct part part[8];
	char path[32];
	long chunks;

	chunks = find_disk(1, path, sizeof(path)) / (CHUNK >> 9);
	if (!chunks)
		return fail("no data disk");
	fd = open(path, O_RDWR | O_DIRECT);
	if (fd < 0)
		return fail("%s: %m", path);
	for (int k = 0; k < 2 && !ret; k++) {
		for (int i = 0; i < cpus; i++) {
			part[i] = (struct part) {
				.cpu = i, .fd = fd, .seed = mix(seed),
				.first = i * (chunks / cpus),
				.chunks = chunks / cpus,
				.opcode = opcodes[k],
			};
			pthread_create(&part[i].thread, NULL, do_part,
				       &part[i]);
		}
		for (int i = 0; i < cpus; i++) {
			pthread_join(part[i].thread, NULL);
			if (!part[i].error || (ret && strstr(why, DIFFER)))
				continue;
			ret = fail("%s: %s", k ? "read" : "write",
				   part[i].error);
		}
	}
	close(fd);
	return ret;
}

static int data(int passes)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	for (int i = 0; i < passes; i++)
		if (data_pass(now.tv_nsec + i))
			return -1;
	return 0;
}

static int loop(int arg)
{
	(void)arg;
	for (int i = 1; !data_pass(i); i++)
		dprintf(port, "pass %d\n", i);
	return -1;
}

/* The device is idle before each request: without its kick it never ends. */
static int single(int requests)
{
	int cpus = sysconf(_SC_NPROCESSORS_ONLN), ret = 0, fd;
	char path[32];
	void *buf;

	if (posix_memalign(&buf, 4096, 4096))
		return fail("no memory");
	for (int disk = 0; disk < 2 && !ret; disk++) {
		if (!find_disk(disk, path, sizeof(path)))
			return fail("no disk %d", disk);
		fd = open(path, O_RDONLY | O_DIRECT);
		if (fd < 0)
			return fail("%s: %m", path);
		for (int i = 0; i < requests * cpus && !ret; i++) {
			use_cpu(i / requests);
			if (pread(fd, buf, 4096, i * 4096L) != 4096)
				ret = fail("%s: %m", path);
		}
		close(fd);
	}
	free(buf);
	return ret;
}

/* -- a file system --------------------------------------------------------- */
static int one_file(int i, int compare)
{
	size_t len = 4096 * (1 + i * i % 47);
	char name[32], *buf = malloc(len);
	int fd, ret = 0;

	snprintf(name, sizeof(name), "/mnt/%d/file", i % 4);
	*strrchr(name, '/') = 0;
	mkdir(name, 0700);
	snprintf(name, sizeof(name), "/mnt/%d/%d", i % 4, i);
	fd = open(name, compare ? O_RDONLY : O_RDWR | O_CREAT | O_TRUNC, 0600);
	if (!compare)
		fill(buf, len, i);
	if (fd < 0 || (compare ? read(fd, buf, len) : write(fd, buf, len)) !=
		      (ssize_t)len || (!compare && i % 3 == 0 && fsync(fd)))
		ret = fail("%s: %m", name);
	else if (compare && !same(buf, len, i))
		ret = fail("%s differs", name);
	if (fd >= 0)
		close(fd);
	free(buf);
	return ret;
}

static int files(int arg)
{
	char path[32];
	int ret = 0;

	(void)arg;
	if (!find_disk(0, path, sizeof(path)))
		return fail("no disk for files");
	mkdir("/mnt", 0700);
	for (int compare = 0; compare < 2 && !ret; compare++) {
		if (mount(path, "/mnt", "ext2", 0, NULL))
			return fail("mount %s: %m", path);
		for (int i = 0; i < FILES && !ret; i++)
			ret = one_file(i, compare);
		if (umount("/mnt"))
			ret = fail("umount: %m");
	}
	return ret;
}

/* -- vsock ----------------------------------------------------------------- */
struct stream {
	int fd;
	size_t at, len;
	int failed;
};

static int send_packet(int fd, size_t at)
{
	uint64_t buf[PACKET / 8];

	fill(buf, sizeof(buf), at);
	return write(fd, buf, sizeof(buf)) == sizeof(buf) ? 0 : fail("write");
}

static int receive_packet(int fd, size_t at)
{
	uint64_t buf[PACKET / 8];
	size_t n = 0;

	while (n < sizeof(buf)) {
		ssize_t got = read(fd, (char *)buf + n, sizeof(buf) - n);

		if (got <= 0)
			return fail("read after %zu bytes: %m", at + n);
		n += got;
	}
	return same(buf, n, at) ? 0 :
	       fail(DIFFER " after %zu bytes", at);
}

static void *send_all(void *arg)
{
	struct stream *s = arg;

	for (; s->at < s->len && !s->failed; s->at += PACKET)
		s->failed = send_packet(s->fd, s->at);
	return NULL;
}

/*
 * The first packets one by one: each kicks the host, which is idle. After that
 * a host that is busy asks for no kicks.
 */
static int vsock(int kib)
{
	struct sockaddr_vm addr = {
		.svm_family = AF_VSOCK,
		.svm_cid = VMADDR_CID_HOST,
		.svm_port = VSOCK_PORT,
	};
	struct stream s = { .len = kib * 1024UL };
	pthread_t thread;
	size_t at;

	s.fd = socket(AF_VSOCK, SOCK_STREAM, 0);
	if (s.fd < 0 || connect(s.fd, (void *)&addr, sizeof(addr)))
		return fail("connect: %m");
	for (; s.at < s.len / 4; s.at += PACKET)
		if (send_packet(s.fd, s.at) || receive_packet(s.fd, s.at))
			return -1;
	at = s.at;
	pthread_create(&thread, NULL, send_all, &s);
	for (; at < s.len; at += PACKET)
		if (receive_packet(s.fd, at))
			return -1;
	pthread_join(thread, NULL);
	close(s.fd);
	return s.failed;
}

/* -- hotplug --------------------------------------------------------------- */
static int wait_disk(int present)
{
	char path[32];

	for (int i = 0; i < 600; i++) {
		if (!!find_disk(1, path, sizeof(path)) == present)
			return 0;
		usleep(50000);
	}
	return fail("the disk is still %s", present ? "away" : "there");
}

/* Requests fail when the disk goes, but never with wrong data. */
static int gone(int arg)
{
	loop(arg);
	return strstr(why, DIFFER) ? -1 : wait_disk(0);
}

static int there(int arg)
{
	(void)arg;
	return wait_disk(1);
}

static const struct {
	const char *name;
	int (*fn)(int arg);
} commands[] = {
	{ "data", data }, { "loop", loop }, { "single", single },
	{ "files", files }, { "vsock", vsock }, { "gone", gone },
	{ "there", there },
};

static int command(const char *name, int arg)
{
	for (size_t i = 0; i < sizeof(commands) / sizeof(*commands); i++)
		if (!strcmp(name, commands[i].name))
			return commands[i].fn(arg);
	return fail("unknown command");
}

/* Load the modules that the kernel needs, if it is one that has modules. */
static void load_modules(void)
{
	struct dirent **files;
	struct utsname uts;
	char name[400];
	int fd, n;

	uname(&uts);
	snprintf(name, sizeof(name), "/modules/%s", uts.release);
	if (chdir(name))
		return;
	n = scandir(".", &files, NULL, alphasort);
	/* one of a CPU's own may fail; without a disk, "ready" never comes */
	for (int i = 0; i < n; i++) {
		fd = open(files[i]->d_name, O_RDONLY);
		syscall(SYS_finit_module, fd, "", 0);
		close(fd);
	}
	chdir("/");
}

int main(void)
{
	struct termios raw;
	char line[80];
	FILE *in;

	mkdir("/dev", 0755);
	mkdir("/sys", 0755);
	mkdir("/proc", 0755);
	mount("dev", "/dev", "devtmpfs", 0, NULL);
	mount("sys", "/sys", "sysfs", 0, NULL);
	mount("proc", "/proc", "proc", 0, NULL);
	load_modules();

	port = open("/dev/ttyS1", O_RDWR | O_NOCTTY);
	tcgetattr(port, &raw);
	cfmakeraw(&raw);
	tcsetattr(port, TCSANOW, &raw);
	in = fdopen(port, "r");

	there(0);
	/* A reset may have cut off a line. */
	dprintf(port, "\nready\n");
	for (;;) {
		char name[16];
		int arg = 0;

		if (!fgets(line, sizeof(line), in) ||
		    sscanf(line, "%15s %d", name, &arg) < 1)
			continue;
		if (command(name, arg))
			dprintf(port, "not ok %s: %s\n", name, why);
		else
			dprintf(port, "ok %s\n", name);
	}
}
