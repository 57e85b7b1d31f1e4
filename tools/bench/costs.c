// SPDX-License-Identifier: GPL-2.0
/*
 * The costs of a path before its first ring: instructions to set it up, file
 * descriptors, kernel memory.
 *
 * The kernel's counters in /proc/meminfo give the memory: Slab (which includes
 * allocations too large for a slab), VmallocUsed and PageTables. Unused slabs
 * are freed first. Memory that user space itself allocates does not count.
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

/* A slab has up to 32 KiB: average over enough consumers to fill several. */
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

/* Every path needs one epoll instance, which does not count. */
void costs_setup(const struct path *path, unsigned int queues)
{
	unsigned int fds;
	struct bench b;
	__u64 start, end;

	bench_create(&b, path, queues);
	fds = count_fds();

	start = ticks();
	path->attach(&b);
	if (path->listen)
		path->listen(&b);
	end = ticks();

	sample("setup", path->name, queues, end - start);
	if (path->listen)
		sample("fds", path->name, queues, count_fds() - fds - 1);
}

static void write_file(const char *name, const char *text)
{
	int fd = open(name, O_WRONLY);

	if (fd < 0 || write(fd, text, strlen(text)) < 0)
		die(name);
	close(fd);
}

/* Free unused memory, and make the counters exact. */
static void settle(void)
{
	DIR *dir = opendir("/sys/kernel/slab");
	struct dirent *e;
	char name[512];

	if (!dir)
		die("/sys/kernel/slab");
	sleep(1);	/* let RCU free its memory first */
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
