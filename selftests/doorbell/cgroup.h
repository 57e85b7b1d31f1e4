/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Cgroup: a memory cgroup that a test process joins, to see what it is charged.
 */
#ifndef _DOORBELL_SELFTEST_CGROUP_H
#define _DOORBELL_SELFTEST_CGROUP_H

#include <sys/stat.h>

#include "util.h"

#define CGROUP_ROOT	"/sys/fs/cgroup"
/* What the kernel charges ahead, or uncharges late */
#define CGROUP_SLACK	(64L * 4096)

static inline int cgroup_put(const char *dir, const char *file,
			     const char *text)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/%s", dir, file);
	return db_write_file(path, text);
}

/* The bytes charged */
static inline long cgroup_bytes(const char *dir)
{
	char path[128];

	snprintf(path, sizeof(path), "%s/memory.current", dir);
	return db_read_number(path);
}

/*
 * What the kernel charges ahead or uncharges late only adds. So a test measures
 * in a few turns, and takes the least. The first turn also allocates what
 * stays, and does not count.
 */
#define CGROUP_TURNS	4
/* More than stays, and less than any turn allocates */
#define CGROUP_STAYS	(3L << 19)
#define CGROUP_REST_MS	300

static inline void cgroup_least(const char *dir, int turn, long *least)
{
	long bytes = cgroup_bytes(dir);

	if (turn && (!*least || bytes < *least))
		*least = bytes;
}

/* Wait until the cgroup is charged less: the kernel frees memory late. */
static inline bool cgroup_below(const char *dir, long bytes)
{
	uint64_t end = db_now_ms() + DB_PATIENCE_MS;

	while (cgroup_bytes(dir) >= bytes && db_now_ms() < end)
		db_yield();
	return cgroup_bytes(dir) < bytes;
}

/* The end of a turn: most of its memory is free, and no more comes. */
static inline bool cgroup_rest(const char *dir, long idle)
{
	long bytes, least = idle + CGROUP_STAYS;
	uint64_t fell;

	if (!cgroup_below(dir, least))
		return false;
	fell = db_now_ms();
	while (db_now_ms() < fell + CGROUP_REST_MS) {
		usleep(1000);
		bytes = cgroup_bytes(dir);
		if (bytes < least) {
			least = bytes;
			fell = db_now_ms();
		}
	}
	return true;
}

FIXTURE(cgroup)
{
	char path[64];
	bool joined;
};

FIXTURE_SETUP(cgroup)
{
	/* the kernel charges ahead for each CPU: use one only */
	ASSERT_EQ(0, db_pin(0));
	snprintf(self->path, sizeof(self->path), CGROUP_ROOT "/doorbell-%d",
		 getpid());
	if (cgroup_put(CGROUP_ROOT, "cgroup.subtree_control", "+memory") ||
	    mkdir(self->path, 0755))
		SKIP(return, "no memory controller in " CGROUP_ROOT);
	ASSERT_EQ(0, cgroup_put(self->path, "cgroup.procs", "0"));
	self->joined = true;
}

FIXTURE_TEARDOWN(cgroup)
{
	if (!self->joined)
		return;
	EXPECT_EQ(0, cgroup_put(CGROUP_ROOT, "cgroup.procs", "0"));
	EXPECT_EQ(0, rmdir(self->path));
}

#endif
