// SPDX-License-Identifier: GPL-2.0
/*
 * What a path costs before the first ring: instructions to set it up, file
 * descriptors, kernel memory.
 *
 * Memory is what the kernel's counters say: Slab (with what is too large for
 * slabs), VmallocUsed and PageTables of /proc/meminfo. Unused slabs are given
 * back first. Not counted is what a path makes user space itself allocate.
 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "bench.h"

#define MEMINFO_SIZE	8192

/* Slabs come in up to 32 KiB, which is little to many only. */
#define MANY		16

static unsigned int count_fds(void)
{
	DIR *dir = opendir("/proc/self/fd");
	unsigned int n = 0;

	if (!dir)
		die("/proc/self/fd");
	while (readdir(dir))
		n++;
	closedir(dir);
	return n;
}

/* One epoll instance is there in any case, and is not counted. */
void costs_setup(const struct path *path, unsigned int queues)
{
	unsigned int fds;
	struct bench b;
	__u64 start, end;

	bench_create(&b, path, queues);
	fds = count_fds();

	start = ticks();
	path->attach(&b);
	path->listen(&b);
	end = ticks();

	sample("setup", path->name, queues, end - start);
	sample("fds", path->name, queues, count_fds() - fds - 1);
}

static void write_file(const char *name, const char *text)
{
	int fd = open(name, O_WRONLY);

	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		die(name);
	close(fd);
}

/* Make the counters exact. */
static void settle(void)
{
	DIR *dir = opendir("/sys/kernel/slab");
	struct dirent *e;
	char name[512];

	if (!dir)
		die("/sys/kernel/slab");
	sleep(1);	/* what was freed by RCU is free */
	while ((e = readdir(dir))) {
		if (e->d_name[0] == '.')
			continue;
		snprintf(name, sizeof(name), "/sys/kernel/slab/%s/shrink",
			 e->d_name);
		write_file(name, "1");
	}
	closedir(dir);
	write_file("/proc/sys/vm/stat_refresh", "1");
}

static double field(const char *text, const char *name)
{
	const char *at = strstr(text, name);

	if (!at)
		die(name);
	return strtoul(at + strlen(name), NULL, 10) * 1024.0;
}

static double memory(void)
{
	static char text[MEMINFO_SIZE];
	int fd = open("/proc/meminfo", O_RDONLY);
	ssize_t len;

	if (fd < 0)
		die("/proc/meminfo");
	len = read(fd, text, sizeof(text) - 1);
	if (len < 0)
		die("/proc/meminfo");
	text[len] = 0;
	close(fd);
	return field(text, "\nSlab:") + field(text, "\nVmallocUsed:") +
	       field(text, "\nPageTables:");
}

static void measure_memory(const struct path *path, unsigned int queues,
			   unsigned int times)
{
	struct bench b[MANY];
	unsigned int i;
	double before;

	for (i = 0; i < times; i++)
		bench_create(&b[i], path, queues);
	settle();
	before = memory();
	for (i = 0; i < times; i++) {
		path->attach(&b[i]);
		path->listen(&b[i]);
	}
	settle();
	sample("memory", path->name, queues, (memory() - before) / times);
}

void costs_memory(const struct path *path, unsigned int queues)
{
	measure_memory(path, queues, 1);
}

void costs_memory_many(const struct path *path, unsigned int queues)
{
	measure_memory(path, queues, MANY);
}
