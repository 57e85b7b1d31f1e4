// SPDX-License-Identifier: GPL-2.0
/*
 * Trace: what the tracepoints show is what a guest and its consumer did.
 *
 * Kernels without tracing skip all of it.
 */
#include <sys/eventfd.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include "vmutil.h"

#define TRACEFS		"/sys/kernel/tracing"
#define EVENTS		TRACEFS "/events/doorbell"
#define LINES		64
#define ORDERED		DOORBELL_ATTACH_ORDERED

FIXTURE(trace) {
	struct vmm *vmm;
	int fd;
	unsigned int id;
	char *lines[LINES];
	unsigned int nr_lines;
	char text[1 << 16];
};

FIXTURE_VARIANT(trace) {
	const char *only;	/* the one tracepoint that is on, or NULL */
};

FIXTURE_VARIANT_ADD(trace, all) {};
FIXTURE_VARIANT_ADD(trace, ring) { .only = "ring" };
FIXTURE_VARIANT_ADD(trace, wake) { .only = "wake" };
FIXTURE_VARIANT_ADD(trace, bounce) { .only = "bounce" };

static bool is_on(const FIXTURE_VARIANT(trace) *variant, const char *event)
{
	return !variant->only || !strcmp(variant->only, event);
}

static unsigned int id_of(int fd)
{
	char path[64], text[4096];
	const char *line;

	snprintf(path, sizeof(path), "/proc/self/fdinfo/%d", fd);
	if (db_read_file(path, text, sizeof(text)) < 0)
		return 0;
	line = strstr(text, "doorbell-id:\t");
	return line ? strtoul(line + strlen("doorbell-id:\t"), NULL, 10) : 0;
}

static int switch_to(const char *event, const char *on)
{
	char path[128];

	snprintf(path, sizeof(path), EVENTS "/%s%senable", event ?: "",
		 event ? "/" : "");
	return db_write_file(path, on);
}

FIXTURE_SETUP(trace)
{
	if (access(TRACEFS "/events", F_OK) &&
	    mount("tracefs", TRACEFS, "tracefs", 0, NULL))
		SKIP(return, "no tracefs");
	if (access(EVENTS, F_OK))
		SKIP(return, "a kernel without tracepoints");
	self->fd = db_must_open(_metadata, O_NONBLOCK);
	self->id = id_of(self->fd);
	ASSERT_NE(0, self->id);
	self->vmm = vmm_create(1);
	ASSERT_NE(NULL, self->vmm);
	/* opening it so empties it */
	close(open(TRACEFS "/trace", O_WRONLY | O_TRUNC));
	ASSERT_LE(0, switch_to(variant->only, "1"));
}

FIXTURE_TEARDOWN(trace)
{
	switch_to(NULL, "0");
	if (self->vmm)
		vmm_destroy(self->vmm);
	close(self->fd);
}

/* Get what was traced: the texts from the names of the tracepoints on. */
static int read_trace(FIXTURE_DATA(trace) *self)
{
	char *line, *next;
	int size = db_read_file(TRACEFS "/trace", self->text,
				sizeof(self->text));

	if (size < 0)
		return size;
	self->nr_lines = 0;
	for (line = self->text; line && *line; line = next) {
		char *what;

		next = strchr(line, '\n');
		if (next)
			*next++ = 0;
		/* TASK-PID [CPU] FLAGS TIME: NAME: FIELDS */
		what = *line == '#' ? NULL : strstr(line, ": ");
		if (what && self->nr_lines < LINES)
			self->lines[self->nr_lines++] = what + 2;
	}
	return 0;
}

/* The next line that was traced has to be this, with "id=N" after the name. */
#define EXPECT_LINE(n, name, ...) do {					\
	char _want[160];						\
	int _len = snprintf(_want, sizeof(_want), "%s: id=%u", name,	\
			    self->id);					\
									\
	snprintf(_want + _len, sizeof(_want) - _len, __VA_ARGS__);	\
	ASSERT_LT(n, self->nr_lines);					\
	EXPECT_STREQ(_want, self->lines[n]);				\
	(n)++;								\
} while (0)

#define EXPECT_RING(n, name, queue, type, width, value)			\
	EXPECT_LINE(n, name, " queue=%u type=%u width=%u value=%#llx",	\
		    queue, type, width, (unsigned long long)(value))

/* Each step of an ordered consumer, each ring of its guest, in order */
TEST_F_TIMEOUT(trace, steps, TEST_SECONDS)
{
	bool all = !variant->only;
	bool rings = is_on(variant, "ring");
	bool wakes = is_on(variant, "wake");
	bool bounces = is_on(variant, "bounce");
	struct doorbell_attach arg = {
		.size = sizeof(arg), .vm_fd = self->vmm->vm_fd,
		.base = MMIO_BASE, .len = REGION_LEN, .stride = REGION_STRIDE,
		.flags = ORDERED, .depth = 2,
	};
	int evfd = eventfd(0, EFD_NONBLOCK), i;
	struct doorbell_event events[4];
	unsigned int n = 0;

	ASSERT_LE(0, evfd);
	ASSERT_EQ(0, db_result(ioctl(self->fd, DOORBELL_ATTACH, &arg)));
	for (i = 0; i < 3; i++)
		ASSERT_EQ(0, guest_write(self->vmm, 0, i == 1 ? 2 : 4,
					 MMIO_BASE + 8 * i, 0x50 + i));
	ASSERT_EQ(1, vmm_exits(self->vmm));
	ASSERT_EQ(2, db_read(self->fd, events, 4));
	ASSERT_EQ(0, db_ring(self->fd, 7, 0x99));
	ASSERT_EQ(0, db_move(self->fd, self->vmm->vm_fd,
			     MMIO_BASE + 0x1000));
	ASSERT_EQ(0, db_bind_one(self->fd, 5, evfd));
	ASSERT_EQ(0, guest_write(self->vmm, 0, 4, MMIO_BASE + 0x1000 + 8 * 5,
				 0x55));
	ASSERT_EQ(1, vmm_exits(self->vmm));
	ASSERT_EQ(0, db_detach(self->fd));
	arg.flags |= DOORBELL_ATTACH_DROP;
	ASSERT_EQ(0, db_result(ioctl(self->fd, DOORBELL_ATTACH, &arg)));
	vmm_destroy(self->vmm);
	self->vmm = NULL;
	ASSERT_EQ(POLLHUP, POLLHUP & poll_for(self->fd, 0));
	close(evfd);

	ASSERT_EQ(0, read_trace(self));
	if (all)
		EXPECT_LINE(n, "attach", " base=%#llx len=%#x queues=%u flags=%#x depth=2",
			    MMIO_BASE, REGION_LEN, REGION_QUEUES, ORDERED);
	if (rings)
		EXPECT_RING(n, "ring", 0, 0, 4, 0x50);
	if (wakes)
		EXPECT_LINE(n, "wake", "%s", "");
	if (rings) {
		EXPECT_RING(n, "ring", 1, 0, 2, 0x51);
		EXPECT_RING(n, "ring", 2, 0, 4, 0x52);
	}
	if (bounces)
		EXPECT_RING(n, "bounce", 2, 0, 4, 0x52);
	if (rings)
		EXPECT_RING(n, "ring", DOORBELL_QUEUE_NONE,
			    DOORBELL_EVENT_BAD_ADDRESS, 0, 7);
	if (wakes)
		EXPECT_LINE(n, "wake", "%s", "");
	if (all) {
		EXPECT_LINE(n, "move", " from=%#llx to=%#llx", MMIO_BASE,
			    MMIO_BASE + 0x1000);
		EXPECT_LINE(n, "bind", " first=5 count=1");
	}
	if (rings)
		EXPECT_RING(n, "ring", 5, 0, 4, 0x55);
	if (all) {
		EXPECT_LINE(n, "detach", "%s", "");
		EXPECT_LINE(n, "attach", " base=%#llx len=%#x queues=%u flags=%#x depth=2",
			    MMIO_BASE, REGION_LEN, REGION_QUEUES,
			    ORDERED | DOORBELL_ATTACH_DROP);
		EXPECT_LINE(n, "hangup", "%s", "");
	}
	EXPECT_EQ(n, self->nr_lines);
}

/* A value that names no queue is traced as of its own type. */
TEST_F_TIMEOUT(trace, by_value, TEST_SECONDS)
{
	struct doorbell_attach arg = {
		.size = sizeof(arg), .vm_fd = self->vmm->vm_fd,
		.base = MMIO_BASE, .len = 4, .queues = 2,
		.flags = DOORBELL_ATTACH_BY_VALUE | ORDERED, .depth = 2,
	};
	bool all = !variant->only;
	struct doorbell_event events[4];
	unsigned int n = 0, i;

	ASSERT_EQ(0, db_result(ioctl(self->fd, DOORBELL_ATTACH, &arg)));
	for (i = 0; i < 3; i++)
		ASSERT_EQ(0, guest_write(self->vmm, 0, 4, MMIO_BASE, 1 + i));
	ASSERT_EQ(1, vmm_exits(self->vmm));
	ASSERT_EQ(2, db_read(self->fd, events, 4));
	EXPECT_EQ(DOORBELL_EVENT_QUEUE, events[0].type);
	EXPECT_EQ(DOORBELL_EVENT_BAD_QUEUE, events[1].type);
	ASSERT_EQ(0, read_trace(self));

	if (all)
		EXPECT_LINE(n, "attach", " base=%#llx len=0x4 queues=2 flags=%#x depth=2",
			    MMIO_BASE, arg.flags);
	if (is_on(variant, "ring"))
		EXPECT_RING(n, "ring", 1, DOORBELL_EVENT_QUEUE, 4, 1);
	if (is_on(variant, "wake"))
		EXPECT_LINE(n, "wake", "%s", "");
	if (is_on(variant, "ring"))
		for (i = 2; i < 4; i++)
			EXPECT_RING(n, "ring", DOORBELL_QUEUE_NONE,
				    DOORBELL_EVENT_BAD_QUEUE, 4, i);
	if (is_on(variant, "bounce"))
		EXPECT_RING(n, "bounce", DOORBELL_QUEUE_NONE,
			    DOORBELL_EVENT_BAD_QUEUE, 4, 3);
	EXPECT_EQ(n, self->nr_lines);
}

/* A consumer that leaves without a DETACH detaches its region. */
TEST_F_TIMEOUT(trace, closed, TEST_SECONDS)
{
	unsigned int n = 0;

	ASSERT_EQ(0, attach_region(self->fd, self->vmm->vm_fd, 0));
	close(self->fd);
	self->fd = -1;
	ASSERT_EQ(0, read_trace(self));
	if (!variant->only) {
		EXPECT_LINE(n, "attach", " base=%#llx len=%#x queues=%u flags=%#x depth=0",
			    MMIO_BASE, REGION_LEN, REGION_QUEUES,
			    DOORBELL_ATTACH_DROP);
		EXPECT_LINE(n, "detach", "%s", "");
	}
	EXPECT_EQ(n, self->nr_lines);
}

/* Tracing changes nothing: the same events with it and without. */
TEST_F_TIMEOUT(trace, changes_nothing, TEST_SECONDS)
{
	struct doorbell_event event;
	int round;

	for (round = 0; round < 20; round++) {
		__u32 flags = round % 4 < 2 ? 0 : pio_or_0();

		ASSERT_LE(0, switch_to(variant->only, round % 2 ? "0" : "1"));
		ASSERT_EQ(0, attach_region(self->fd, self->vmm->vm_fd, flags));
		ASSERT_EQ(0, guest_write(self->vmm, flags, 4,
					 base_of(flags) + 8 * round, round));
		ASSERT_EQ(0, vmm_exits(self->vmm));
		check_event(_metadata, self->fd, round, round);
		ASSERT_EQ(0, read_now(self->fd, &event, 1));
		ASSERT_EQ(0, db_detach(self->fd));
	}
}

TEST_HARNESS_MAIN
