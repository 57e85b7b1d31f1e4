// SPDX-License-Identifier: GPL-2.0
/*
 * Tool: the doorbell command. It is /bin/doorbell here.
 *
 * This program is the owner of the consumers and the VMM. The guest counts its
 * rings, and the owner reads its events after the command has looked: both must
 * agree with what the command printed. A JSON parser that the command does not
 * use reads the output.
 */
#include <dirent.h>
#include <linux/sched.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/ptrace.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/user.h>
#include <termios.h>

#include <jansson.h>

#include "rules.h"
#include "vmutil.h"

#define ORDERED		DOORBELL_ATTACH_ORDERED
#define BY_VALUE	DOORBELL_ATTACH_BY_VALUE
#define NO_VALUE	DOORBELL_ATTACH_NO_VALUE
#define BOUND_ONLY	DOORBELL_ATTACH_BOUND_ONLY
#define EXACT		DOORBELL_ATTACH_EXACT
#define FLAGS		(PIO | ORDERED | BY_VALUE | NO_VALUE | BOUND_ONLY | \
			 DOORBELL_ATTACH_DROP | EXACT)

/* Exit statuses, as in doorbell(1) */
#define FAILED		1
#define USAGE		2
#define NO_DEVICE	3
#define DENIED		4
#define NOT_FOUND	5

#define ARGS		16
#define OUTPUT_SIZE	(1U << 20)
#define NOBODY		65534
#define DEPTH		4096

/* Running the command */

/**
 * struct tool - a command that runs, or has run
 * @pid: its process
 * @out: reading end of its output, if it is a pipe
 * @text: output so far
 * @len: of @text
 * @errors: what it printed on stderr
 * @err_fd: file of @errors
 */
struct tool {
	pid_t pid;
	int out;
	char *text;
	size_t len;
	char errors[4096];
	int err_fd;
};

static struct tool tool;
/* A system call that the command must not make, and whether we trace it. */
static long denied_call = -1;
static bool traced;
/* Most descriptors of the command, or 0 */
static rlim_t most_fds;
static char self_text[16], fd_text[16];

static const char *text_of(char *text, long number)
{
	snprintf(text, 16, "%ld", number);
	return text;
}

/*
 * Start a command. Its output is a pipe, or else @terminal, which gets its
 * errors as well if it is one.
 */
static int start_tool(const char * const *argv, uid_t uid, int terminal)
{
	int pipes[2] = { -1, -1 };

	if (!tool.text)
		tool.text = malloc(OUTPUT_SIZE);
	tool.len = 0;
	tool.text[0] = '\0';
	tool.err_fd = memfd_create("errors", MFD_CLOEXEC);
	if (tool.err_fd < 0 || (terminal < 0 && pipe2(pipes, O_CLOEXEC)))
		return -errno;
	tool.out = pipes[0];
	tool.pid = fork();
	if (tool.pid) {
		close(pipes[1]);
		return tool.pid < 0 ? -errno : 0;
	}

	if (terminal >= 0)
		dup2(terminal, 0);
	dup2(terminal >= 0 ? terminal : pipes[1], 1);
	dup2(isatty(terminal) ? terminal : tool.err_fd, 2);
	if (uid && (setgid(uid) || setuid(uid)))
		_exit(99);
	if ((denied_call >= 0 && deny_call(denied_call)) ||
	    (traced && ptrace(PTRACE_TRACEME, 0, 0, 0)))
		_exit(99);
	if (most_fds && setrlimit(RLIMIT_NOFILE, &(struct rlimit) {
				  most_fds, most_fds }))
		_exit(99);
	execvp(argv[0], (char **)argv);
	_exit(99);
}

/* Take more output: false at its end. */
static bool more_output(void)
{
	int n = read(tool.out, tool.text + tool.len,
		     OUTPUT_SIZE - tool.len - 1);

	if (n <= 0)
		return false;
	tool.len += n;
	tool.text[tool.len] = '\0';
	return true;
}

/* Return the exit status. */
static int end_tool(void)
{
	int status, n;

	while (tool.out >= 0 && more_output())
		;
	close(tool.out);
	status = ended(tool.pid);
	n = pread(tool.err_fd, tool.errors, sizeof(tool.errors) - 1, 0);
	tool.errors[n > 0 ? n : 0] = '\0';
	close(tool.err_fd);
	return status;
}

/* The same for a command that may not end. */
static int end_tool_soon(void)
{
	if (!eventually(db_poll(tool.out, POLLHUP, 0) & POLLHUP))
		kill(tool.pid, SIGKILL);
	return end_tool();
}

static int run_as(uid_t uid, const char * const *argv)
{
	int ret = start_tool(argv, uid, -1);

	return ret ?: end_tool();
}

#define START(...)							\
	start_tool((const char *[]) { "doorbell", __VA_ARGS__, NULL }, 0, -1)
#define RUN_AS(uid, ...)						\
	run_as(uid, (const char *[]) { "doorbell", __VA_ARGS__, NULL })
#define RUN(...)	RUN_AS(0, __VA_ARGS__)
#define SELF		text_of(self_text, getpid())
#define FD(fd)		text_of(fd_text, fd)

#define EXPECT_STATUS(expected, ran) do {				\
	int _status = ran;						\
									\
	ASSERT_EQ(expected, _status) {					\
		TH_LOG("printed: %s%s", tool.text, tool.errors);	\
	}								\
} while (0)

/* The command has said @text on stderr, */
#define EXPECT_ERROR(text) ASSERT_NE(NULL, strstr(tool.errors, text)) {	\
	TH_LOG("printed: %s", tool.errors);				\
}

/* or in its output. */
#define EXPECT_OUTPUT(line) ASSERT_NE(NULL, strstr(tool.text, line)) {	\
	TH_LOG("printed: %s", tool.text);				\
}

/* JSON */

/* The array that is the only member of what the command printed */
static json_t *json_array_of(const char *key)
{
	json_t *root = json_loads(tool.text, 0, NULL);

	return json_object_size(root) == 1 ? json_object_get(root, key) : NULL;
}

static __u64 json_number(const json_t *object, const char *key)
{
	const json_t *value = json_object_get(object, key);

	return json_is_integer(value) ? json_integer_value(value) : -1;
}

static double json_double(const json_t *object, const char *key)
{
	return json_number_value(json_object_get(object, key));
}

/* A number that is a hexadecimal string */
static __u64 json_hex(const json_t *object, const char *key)
{
	const char *text = json_string_value(json_object_get(object, key));

	return text && text[0] == '0' ? strtoull(text, NULL, 16) : -1;
}

static bool json_is(const json_t *object, const char *key, const char *text)
{
	const char *is = json_string_value(json_object_get(object, key));

	return is && !strcmp(is, text);
}

/* The consumer of a process in the output of list --json */
static json_t *json_consumer(pid_t pid, int fd)
{
	json_t *list = json_array_of("consumers"), *consumer;
	size_t i;

	json_array_foreach(list, i, consumer)
		if (json_number(consumer, "pid") == (__u64)pid &&
		    (fd < 0 || json_number(consumer, "fd") == (__u64)fd))
			return consumer;
	return NULL;
}

/* Consumers with a guest */

static int attach_as(int fd, int vm_fd, __u32 flags, __u32 depth, __u32 queues)
{
	struct doorbell_attach arg = db_attach_arg(vm_fd, base_of(flags),
						   REGION_LEN);

	arg.stride = REGION_STRIDE;
	arg.flags = flags;
	arg.depth = depth;
	arg.queues = queues;
	return db_result(ioctl(fd, DOORBELL_ATTACH, &arg));
}

/* Everything that the owner shares with the kernel */
static void *map_control(int fd, size_t *size)
{
	struct doorbell_info info = info_of(fd);
	void *mem = mmap(NULL, info.control_size, PROT_READ, MAP_SHARED, fd, 0);

	*size = info.control_size;
	return mem == MAP_FAILED ? NULL : mem;
}

/* Rings of some queues: each by both vCPUs, one after the other */
static int ring_some(struct vmm *vmm, __u32 flags, __u64 limit)
{
	struct guest_job job = {
		.kind = GUEST_STORM, .width = 4, .pio = !!(flags & PIO),
		.base = base_of(flags), .stride = REGION_STRIDE,
		.range = { { .first = 1, .nr = REGION_QUEUES - 2 } },
		.limit = limit, .seed = 7,
	};
	unsigned int v;
	int ret = 0;

	for (v = 0; !ret && v < vmm->nr_vcpus; v++) {
		ret = vmm_job(vmm, v, &job);
		if (!ret)
			ret = vmm_vcpu_run(vmm, v);
	}
	return ret;
}

FIXTURE(owner) {
	struct vmm *vmm;
	int fd;
};

FIXTURE_VARIANT(owner) {
	__u32 flags;
	__u32 depth;
	const char *mode;
};

FIXTURE_VARIANT_ADD(owner, mmio) { .mode = "coalescing" };
FIXTURE_VARIANT_ADD(owner, pio) { .flags = PIO, .mode = "coalescing" };
FIXTURE_VARIANT_ADD(owner, ordered) {
	.flags = ORDERED, .depth = DEPTH, .mode = "ordered"
};
FIXTURE_VARIANT_ADD(owner, no_value) {
	.flags = NO_VALUE, .mode = "coalescing,no-value"
};

FIXTURE_SETUP(owner)
{
	self->fd = db_must_open(_metadata, O_NONBLOCK);
	self->vmm = vmm_create(2);
	ASSERT_NE(NULL, self->vmm);
	ASSERT_EQ(0, attach_as(self->fd, self->vmm->vm_fd, variant->flags,
			       variant->depth, 0));
}

FIXTURE_TEARDOWN(owner)
{
	close(self->fd);
	vmm_destroy(self->vmm);
}

/* Also by info, whose JSON is a list with one consumer */
TEST_F(owner, list)
{
	static const char * const commands[] = { "list", "info" };
	json_t *consumer;
	size_t i;

	ASSERT_EQ(0, ring_some(self->vmm, variant->flags, 100));
	for (i = 0; i < 2; i++) {
		if (i)
			EXPECT_STATUS(0, RUN("info", "--json", SELF,
					     FD(self->fd)));
		else
			EXPECT_STATUS(0, RUN("list", "--json"));
		consumer = json_consumer(getpid(), self->fd);
		ASSERT_NE(NULL, consumer) {
			TH_LOG("%s: %s", commands[i], tool.text);
		}
		ASSERT_TRUE(json_is(consumer, "command", "tool"));
		ASSERT_EQ(getpid(), json_number(consumer, "vm"));
		ASSERT_TRUE(json_is(consumer, "state", "attached"));
		ASSERT_TRUE(json_is(consumer, "bus",
				    variant->flags & PIO ? "pio" : "mmio"));
		ASSERT_TRUE(json_is(consumer, "mode", variant->mode));
		ASSERT_EQ(base_of(variant->flags), json_hex(consumer, "base"));
		ASSERT_EQ(REGION_LEN, json_hex(consumer, "len"));
		ASSERT_EQ(variant->flags, json_hex(consumer, "flags"));
		ASSERT_EQ(REGION_STRIDE, json_number(consumer, "stride"));
		ASSERT_EQ(REGION_QUEUES, json_number(consumer, "queues"));
		ASSERT_EQ(variant->depth, json_number(consumer, "depth"));
		ASSERT_EQ(guest_total(self->vmm->shared),
			  json_number(consumer, "rings"));
		ASSERT_EQ(guest_total(self->vmm->shared),
			  json_number(consumer, "pending"));
		ASSERT_EQ(0, json_number(consumer, "bad"));
		ASSERT_EQ(0, json_number(consumer, "bounced"));
		ASSERT_EQ(info_of(self->fd).wakeups,
			  json_number(consumer, "wakeups"));
	}

	EXPECT_STATUS(0, RUN("info", SELF, FD(self->fd)));
	EXPECT_OUTPUT("RINGS     200\n");
	EXPECT_STATUS(0, RUN("list"));
	EXPECT_OUTPUT("WAKEUPS");
	EXPECT_OUTPUT("attached");
	vmm_destroy(self->vmm);
	self->vmm = vmm_create(1);
	ASSERT_TRUE(eventually(info_of(self->fd).state == DOORBELL_HANGUP));
	EXPECT_STATUS(0, RUN("list"));
	EXPECT_OUTPUT("hangup");
}

/* Nothing that the owner has changes, and its events are all there. */
TEST_F(owner, queues)
{
	__u32 left = variant->flags & ORDERED ? 200 : 0;
	struct db_snapshot before, after;
	struct book book = {};
	void *control, *copy;
	json_t *list, *queue;
	size_t size, i;
	__u64 value;

	ASSERT_EQ(0, ring_some(self->vmm, variant->flags, 100));
	if (!left) {
		ASSERT_EQ(0, book_drain(&book, self->fd));
	}
	ASSERT_EQ(0, ring_some(self->vmm, variant->flags, 50));
	control = map_control(self->fd, &size);
	copy = malloc(size);
	ASSERT_NE(NULL, control);
	ASSERT_EQ(0, db_snapshot(self->fd, &before));
	/* disarm, as the command must not arm */
	ASSERT_EQ(0, guest_write(self->vmm, variant->flags, 4,
				 base_of(variant->flags), 0x99));
	ASSERT_EQ(0, db_info(self->fd, &before.info));
	ASSERT_EQ(0, ((struct doorbell_control *)control)->armed);
	memcpy(copy, control, size);

	EXPECT_STATUS(0, RUN("queues", "--json", SELF, FD(self->fd)));
	ASSERT_EQ(0, memcmp(copy, control, size));
	ASSERT_EQ(0, db_info(self->fd, &after.info));
	ASSERT_EQ(0, memcmp(&before.info, &after.info, sizeof(after.info)));
	ASSERT_STREQ("", tool.errors);

	list = json_array_of("queues");
	ASSERT_EQ(REGION_QUEUES, json_array_size(list));
	ASSERT_EQ(1, json_number(json_array_get(list, 0), "rings"));
	json_array_foreach(list, i, queue) {
		if (!i)
			continue;
		ASSERT_EQ(i, json_number(queue, "queue"));
		ASSERT_EQ(guest_count(self->vmm->shared, i),
			  json_number(queue, "rings")) {
			TH_LOG("queue %zu of %s", i, tool.text);
		}
		ASSERT_EQ(guest_count(self->vmm->shared, i) - book.count[i],
			  json_number(queue, "pending"));
		ASSERT_TRUE(json_is_false(json_object_get(queue, "bound")));
	}
	ASSERT_EQ(0, json_number(json_array_get(list, REGION_QUEUES - 1),
				 "rings"));
	queue = json_array_get(list, REGION_QUEUES - 1);
	ASSERT_TRUE(json_is_null(json_object_get(queue, "value")));
	queue = json_array_get(list, 0);
	value = variant->flags & NO_VALUE ? 0 : 0x99;
	ASSERT_EQ(value, json_hex(queue, "value"));
	ASSERT_EQ(value ? 4 : 0, json_number(queue, "width"));

	ASSERT_EQ(0, book_drain(&book, self->fd));
	ASSERT_EQ(0, book.wrong);
	for (i = 1; i < REGION_QUEUES; i++) {
		ASSERT_EQ(guest_count(self->vmm->shared, i), book.count[i]);
		queue = json_array_get(list, i);
		if (book.count[i]) {
			ASSERT_EQ(book.last[i], json_hex(queue, "value"));
		}
	}
	free(copy);
	munmap(control, size);
}

/*
 * The first table proves that the command has looked: what it has not seen is
 * rung after it. Its intervals add up to what the guest counted.
 */
TEST_F(owner, top)
{
	__u64 rings[REGION_QUEUES] = {}, total = 0, last, n;
	__u64 before[REGION_QUEUES];
	json_error_t error;
	json_t *root, *list, *queue;
	size_t at, i, used = 0;

	ASSERT_EQ(0, ring_some(self->vmm, variant->flags, 30));
	for (i = 0; i < REGION_QUEUES; i++)
		before[i] = guest_count(self->vmm->shared, i);
	ASSERT_EQ(0, START("top", "--json", "--interval", "0.2", SELF,
			   FD(self->fd)));
	for (;;) {
		root = json_loads(tool.text + used, JSON_DISABLE_EOF_CHECK,
				  &error);
		if (!root) {
			ASSERT_TRUE(more_output());
			continue;
		}
		at = used;
		used += error.position;
		list = json_object_get(root, "queues");
		ASSERT_TRUE(json_is_array(list));
		/* the first table: all that was rung was rung before it */
		if (!at) {
			ASSERT_EQ(0, json_array_size(list));
			ASSERT_EQ(0, ring_some(self->vmm, variant->flags, 300));
			continue;
		}
		last = UINT64_MAX;
		json_array_foreach(list, i, queue) {
			n = json_number(queue, "rings");
			ASSERT_GE(last, n);
			last = n;
			total += n;
			ASSERT_GT(REGION_QUEUES, json_number(queue, "queue"));
			rings[json_number(queue, "queue")] += n;
			ASSERT_LT(0, json_double(queue, "rate"));
		}
		if (total >= 600)
			break;
	}
	ASSERT_EQ(600, total);
	kill(tool.pid, SIGTERM);
	ASSERT_EQ(0x100 + SIGTERM, end_tool());
	for (i = 0; i < REGION_QUEUES; i++)
		ASSERT_EQ(guest_count(self->vmm->shared, i) - before[i],
			  rings[i]);
}

TEST_F(owner, ring)
{
	struct doorbell_event event;
	__u64 value = variant->flags & NO_VALUE ? 0 : 7, n;
	json_t *queue;

	EXPECT_STATUS(0, RUN("ring", "--count", "3", "--value", "7", SELF,
			     FD(self->fd), "5"));
	for (n = 0; n < 3; n += event.count) {
		ASSERT_EQ(1, read_now(self->fd, &event, 1));
		ASSERT_TRUE(db_event_is(&event, 5, event.count, value));
	}
	ASSERT_EQ(3, n);
	EXPECT_STATUS(0, RUN("ring", "--address", SELF, FD(self->fd), "0x10"));
	ASSERT_EQ(1, read_now(self->fd, &event, 1));
	ASSERT_TRUE(db_event_is_bad(&event, 1, 0x10));
	EXPECT_STATUS(0, RUN("queues", "--json", "--rung", SELF,
			     FD(self->fd)));
	ASSERT_EQ(2, json_array_size(json_array_of("queues")));
	queue = json_array_get(json_array_of("queues"), 1);
	ASSERT_TRUE(json_is_null(json_object_get(queue, "queue")));
	n = info_of(self->fd).rings;
	EXPECT_STATUS(NOT_FOUND, RUN("ring", SELF, FD(self->fd), "1", "32"));
	EXPECT_ERROR("queues 0 to 31");
	EXPECT_STATUS(USAGE, RUN("ring", SELF, FD(self->fd), "1", "x"));
	ASSERT_EQ(n, info_of(self->fd).rings);
	vmm_destroy(self->vmm);
	self->vmm = vmm_create(1);
	ASSERT_TRUE(eventually(info_of(self->fd).state == DOORBELL_HANGUP));
	EXPECT_STATUS(FAILED, RUN("ring", SELF, FD(self->fd), "5"));
	EXPECT_ERROR("the VM of the consumer is gone");
	ASSERT_EQ(0, db_detach(self->fd));
	EXPECT_STATUS(FAILED, RUN("ring", SELF, FD(self->fd), "5"));
	EXPECT_ERROR("not attached");
}

/* Consumers without a guest */

FIXTURE(consumer) {
	int fd;
};

FIXTURE_SETUP(consumer)
{
	self->fd = db_must_open(_metadata, O_NONBLOCK);
}

FIXTURE_TEARDOWN(consumer)
{
	close(self->fd);
}

/* Was queue 17 of 1,024 rung at all? */
TEST_F(consumer, one_queue)
{
	json_t *list;

	ASSERT_EQ(0, db_attach(self->fd, -1, MMIO_BASE, 4096));
	ASSERT_EQ(0, db_ring(self->fd, MMIO_BASE + 4 * 18, 1));
	EXPECT_STATUS(0, RUN("queues", "--json", SELF, FD(self->fd), "17",
			     "18"));
	list = json_array_of("queues");
	ASSERT_EQ(2, json_array_size(list));
	ASSERT_EQ(0, json_number(json_array_get(list, 0), "rings"));
	ASSERT_EQ(1, json_number(json_array_get(list, 1), "rings"));
	EXPECT_STATUS(NOT_FOUND, RUN("queues", SELF, FD(self->fd),
				     "0x100000011"));
	EXPECT_STATUS(NOT_FOUND, RUN("queues", SELF, FD(self->fd), "1024"));
	EXPECT_ERROR("queues 0 to 1023");
	EXPECT_STATUS(0, RUN("queues", "--rung", SELF, FD(self->fd)));
	EXPECT_OUTPUT("BOUND-RINGS");
	EXPECT_OUTPUT("   18     1       1 no              0     0 0x1\n");
}

TEST_F(consumer, bound)
{
	int eventfd_fd = eventfd(0, EFD_CLOEXEC);
	json_t *list, *queue;

	ASSERT_EQ(0, attach_as(self->fd, -1, 0, 0, 0));
	ASSERT_EQ(0, db_ring(self->fd, MMIO_BASE + 3 * REGION_STRIDE, 1));
	ASSERT_EQ(0, db_bind_one(self->fd, 3, eventfd_fd));
	ASSERT_EQ(0, db_ring(self->fd, MMIO_BASE + 3 * REGION_STRIDE, 1));
	ASSERT_EQ(0, db_ring(self->fd, MMIO_BASE + 3 * REGION_STRIDE, 1));
	EXPECT_STATUS(0, RUN("queues", "--json", "--rung", SELF,
			     FD(self->fd)));
	list = json_array_of("queues");
	ASSERT_EQ(1, json_array_size(list));
	queue = json_array_get(list, 0);
	ASSERT_EQ(3, json_number(queue, "queue"));
	ASSERT_EQ(3, json_number(queue, "rings"));
	ASSERT_EQ(1, json_number(queue, "pending"));
	ASSERT_EQ(2, json_number(queue, "bound-rings"));
	ASSERT_TRUE(json_is_true(json_object_get(queue, "bound")));
	/* that of the first ring is not the last one */
	ASSERT_TRUE(json_is_null(json_object_get(queue, "value")));
	ASSERT_TRUE(json_is_null(json_object_get(queue, "width")));
	close(eventfd_fd);

	ASSERT_EQ(0, db_detach(self->fd));
	ASSERT_EQ(0, attach_as(self->fd, -1, BOUND_ONLY | EXACT |
			       DOORBELL_ATTACH_DROP, 0, 0));
	EXPECT_STATUS(0, RUN("info", SELF, FD(self->fd)));
	EXPECT_OUTPUT("coalescing,bound-only,exact\n");
	EXPECT_STATUS(FAILED, RUN("ring", SELF, FD(self->fd), "3"));
	EXPECT_ERROR("bound-only");
}

/* The kernel keeps the last rings only. */
TEST_F(consumer, ordered)
{
	struct doorbell_event events[4];
	json_t *list;
	int i;

	ASSERT_EQ(0, attach_as(self->fd, -1, ORDERED, 2, 0));
	ASSERT_EQ(4, info_of(self->fd).nr_entries);
	for (i = 0; i < 6; i++) {
		if (i >= 2)
			ASSERT_EQ(1, db_read(self->fd, events, 1));
		ASSERT_EQ(0, db_ring(self->fd, MMIO_BASE + i * REGION_STRIDE,
				     i));
	}
	/* what comes again is pending */
	ASSERT_EQ(0, ioctl(self->fd, DOORBELL_RECOVER, 0));
	EXPECT_STATUS(0, RUN("queues", "--json", "--rung", SELF,
			     FD(self->fd)));
	EXPECT_ERROR("the last 4 rings, of 6");
	list = json_array_of("queues");
	ASSERT_EQ(4, json_array_size(list));
	for (i = 0; i < 4; i++) {
		json_t *queue = json_array_get(list, i);

		ASSERT_EQ(i + 2, json_number(queue, "queue"));
		ASSERT_EQ(i + 2, json_hex(queue, "value"));
		ASSERT_EQ(1, json_number(queue, "rings"));
		ASSERT_EQ(i > 0, json_number(queue, "pending"));
	}
	ASSERT_EQ(2, db_read(self->fd, events, 2));
	/* one place is left */
	EXPECT_STATUS(0, RUN("ring", SELF, FD(self->fd), "7"));
	EXPECT_STATUS(FAILED, RUN("ring", SELF, FD(self->fd), "7"));
	EXPECT_ERROR("is full");
}

TEST_F(consumer, by_value)
{
	struct doorbell_event event;

	ASSERT_EQ(0, attach_as(self->fd, -1, BY_VALUE, 0, 10));
	EXPECT_STATUS(0, RUN("ring", "--value", "0x50007", SELF,
			     FD(self->fd), "9"));
	ASSERT_EQ(1, read_now(self->fd, &event, 1));
	ASSERT_TRUE(db_event_is(&event, 9, 1, 0x50009));
	EXPECT_STATUS(NOT_FOUND, RUN("ring", SELF, FD(self->fd), "10"));
}

TEST_F(consumer, not_attached)
{
	EXPECT_STATUS(0, RUN("list", "--json"));
	ASSERT_TRUE(json_is(json_consumer(getpid(), self->fd), "state",
			    "detached"));
	EXPECT_STATUS(NOT_FOUND, RUN("queues", SELF, FD(self->fd)));
	EXPECT_ERROR("no region was ever attached");
	EXPECT_STATUS(0, RUN("info", SELF, FD(self->fd)));
	EXPECT_OUTPUT("STATE     detached\n");
	EXPECT_STATUS(0, RUN("top", "--interval", "0.001", "--count", "1"));
	ASSERT_STREQ("", tool.text);
}

/*
 * A consumer, a pipe and another consumer take turns. What ring writes reaches
 * no pipe, and no consumer as if it were the other one.
 */
TEST_F(consumer, replaced)
{
	int pipes[2], fd = 100, i, rung = 0, ret, other;
	char pid[16], byte;
	pid_t child;

	other = db_must_open(_metadata, O_NONBLOCK);
	ASSERT_EQ(0, attach_as(self->fd, -1, 0, 0, 0));
	ASSERT_EQ(0, db_attach(other, -1, 0x1000, 64));
	ASSERT_EQ(0, pipe2(pipes, O_NONBLOCK));
	child = fork();
	if (!child) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (;;) {
			dup2(self->fd, fd);
			dup2(pipes[1], fd);
			dup2(other, fd);
		}
	}
	ASSERT_LT(0, child);
	text_of(pid, child);
	for (i = 0; i < 25; i++) {
		ret = RUN("ring", pid, FD(fd), "1");
		ASSERT_TRUE(!ret || ret == NOT_FOUND);
		rung += !ret;
		ASSERT_EQ(-EAGAIN, db_result(read(pipes[0], &byte, 1)));
		ASSERT_EQ(0, info_of(self->fd).bad_rings);
		ASSERT_EQ(0, info_of(other).bad_rings);
	}
	ASSERT_EQ(rung, info_of(self->fd).rings + info_of(other).rings);
	printf("# %d of %d calls rang\n", rung, i);
	kill(child, SIGKILL);
	ended(child);
	close(pipes[0]);
	close(pipes[1]);
	close(other);
}

/*
 * Here /proc is of another PID namespace, and another process has our PID, with
 * another consumer under the same descriptor.
 */
TEST_F(consumer, namespace)
{
	static const char * const commands[] = {
		"list", "info", "queues", "top", "ring", "monitor"
	};
	pid_t init, twin, tid = getpid();
	struct clone_args args = {
		.exit_signal = SIGCHLD,
		.set_tid = (uintptr_t)&tid,
		.set_tid_size = 1,
	};
	struct vmm *vmm;
	int other, ret;
	size_t i;

	other = db_must_open(_metadata, O_NONBLOCK);
	ASSERT_EQ(0, attach_as(self->fd, -1, 0, 0, 0));
	ASSERT_EQ(0, attach_as(other, -1, 0, 0, 0));
	vmm = vmm_create(1);
	ASSERT_NE(NULL, vmm);
	if (unshare(CLONE_NEWPID)) {
		ASSERT_EQ(EINVAL, errno);
		SKIP(return, "the kernel has no PID namespaces");
	}
	init = fork();
	if (!init) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		pause();
	}
	ASSERT_LT(0, init);
	twin = syscall(SYS_clone3, &args, sizeof(args));
	if (!twin) {
		dup2(other, self->fd);
		pause();
	}
	ASSERT_LT(0, twin);

	SELF;
	FD(self->fd);
	for (i = 0; i < ARRAY_SIZE(commands); i++) {
		const char *name = commands[i];

		if (!strcmp(name, "list"))
			ret = RUN(name);
		else if (!strcmp(name, "top"))
			ret = RUN(name, "--count", "1", "--interval", "0.001");
		else if (!strcmp(name, "ring"))
			ret = RUN(name, self_text, fd_text, "1");
		else if (!strcmp(name, "monitor"))
			ret = RUN(name, "--vm", self_text, "--idle-timeout",
				  "0.1", "0x1000", "64");
		else
			ret = RUN(name, self_text, fd_text);
		EXPECT_EQ(0, info_of(other).rings);
		EXPECT_EQ(FAILED, ret) {
			TH_LOG("%s: %s%s", name, tool.text, tool.errors);
		}
		EXPECT_NE(NULL, strstr(tool.errors, "PID namespace"));
	}
	EXPECT_STATUS(0, RUN("monitor", "--idle-timeout", "0.01", "0x1000",
			     "64"));
	/* the first process of a namespace ends after the others */
	killed(twin);
	killed(init);
	vmm_destroy(vmm);
	close(other);
}

/* Start a process, and wait until it has written @bytes. */
static pid_t fork_ready(void (*fn)(int pipe, const void *arg), const void *arg,
			int bytes)
{
	int pipes[2];
	pid_t child;
	char byte;

	if (pipe2(pipes, O_CLOEXEC))
		return -errno;
	child = fork();
	if (!child) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		fn(pipes[1], arg);
		for (;;)
			pause();
	}
	close(pipes[1]);
	while (bytes--)
		if (child > 0 && read(pipes[0], &byte, 1) != 1)
			child = -EPROTO;
	close(pipes[0]);
	return child;
}

static void become_nobody(void)
{
	if (setgid(NOBODY) || setuid(NOBODY))
		_exit(99);
	/* both end with the credentials */
	prctl(PR_SET_PDEATHSIG, SIGKILL);
	prctl(PR_SET_DUMPABLE, 1);
}

static void nobody(int pipe, const void *capable)
{
	prctl(PR_SET_KEEPCAPS, !!capable);
	become_nobody();
	write(pipe, "x", 1);
}

/* A process of NOBODY, which keeps what root may do if it is @capable */
static pid_t fork_nobody(bool capable)
{
	return fork_ready(nobody, capable ? "" : NULL, 1);
}

/* A descriptor of a file system whose server does not answer */
TEST_F(consumer, dead_file_system)
{
	int fuse = open("/dev/fuse", O_RDWR | O_CLOEXEC), dead;
	char pid[16], options[80];
	pid_t child;

	if (fuse < 0)
		SKIP(return, "the kernel has no FUSE");
	mkdir("/tmp/dead", 0755);
	snprintf(options, sizeof(options),
		 "fd=%d,rootmode=40000,user_id=0,group_id=0", fuse);
	ASSERT_EQ(0, mount("none", "/tmp/dead", "fuse", 0, options));
	dead = open("/tmp/dead", O_PATH | O_CLOEXEC);
	ASSERT_LE(0, dead);
	ASSERT_EQ(0, START("list", "--json"));
	EXPECT_EQ(0, end_tool_soon());
	EXPECT_NE(NULL, json_consumer(getpid(), self->fd));

	/* what another user may not do with it hides no process */
	child = fork_nobody(false);
	ASSERT_LT(0, child);
	EXPECT_EQ(0, RUN_AS(NOBODY, "top", "--interval", "0.001", "--count",
			    "1", text_of(pid, child)));
	EXPECT_STREQ("", tool.errors);
	killed(child);
	umount2("/tmp/dead", MNT_FORCE | MNT_DETACH);
	close(dead);
	close(fuse);
}

/* Tables of descriptors of threads */

enum { OWN_TABLE, NO_MAIN_THREAD, ONE_TABLE };

#define THREAD_FD	100

struct with_thread {
	int kind;
	int fd;
	int pipe;
};

static void *thread_with_table(void *arg)
{
	const struct with_thread *with = arg;
	char state[512] = "";

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (with->kind == OWN_TABLE && unshare(CLONE_FILES))
		_exit(99);
	dup2(with->fd, THREAD_FD);
	if (with->kind == OWN_TABLE)
		close(with->fd);
	if (with->kind == NO_MAIN_THREAD &&
	    !eventually(db_read_file("/proc/self/stat", state,
				     sizeof(state)) > 0 &&
			strstr(state, ") Z ")))
		_exit(99);
	write(with->pipe, "x", 1);
	pause();
	return NULL;
}

static void with_thread(int pipe, const void *arg)
{
	static struct with_thread with;
	pthread_t thread;

	with = *(const struct with_thread *)arg;
	with.pipe = pipe;
	become_nobody();
	if (pthread_create(&thread, NULL, thread_with_table, &with))
		_exit(99);
	if (with.kind == NO_MAIN_THREAD)
		syscall(SYS_exit, 0);
}

/* A process of NOBODY with two threads and a descriptor THREAD_FD */
static pid_t fork_with_thread(int kind, int fd)
{
	const struct with_thread with = { .kind = kind, .fd = fd };

	return fork_ready(with_thread, &with, 1);
}

/* Threads' consumers are listed with the process, and once. */
TEST_F(consumer, threads)
{
	/* PIDFD_THREAD, from Linux 6.9 on */
	bool threads = syscall(SYS_pidfd_open, getpid(), O_EXCL) >= 0;
	char pid[16], fd[16];
	json_t *list, *one;
	unsigned int n;
	int kind, ret;
	pid_t child;
	size_t i;

	ASSERT_EQ(0, attach_as(self->fd, -1, 0, 0, 0));
	text_of(fd, THREAD_FD);
	for (kind = OWN_TABLE; kind <= ONE_TABLE; kind++) {
		child = fork_with_thread(kind, self->fd);
		ASSERT_LT(0, child);
		text_of(pid, child);
		EXPECT_STATUS(0, RUN("list", "--json"));
		list = json_array_of("consumers");
		n = 0;
		json_array_foreach(list, i, one)
			n += json_number(one, "pid") == (__u64)child &&
			     json_number(one, "fd") == THREAD_FD;
		ASSERT_EQ(1, n) {
			TH_LOG("kind %d: %s", kind, tool.text);
		}
		EXPECT_STATUS(0, RUN_AS(NOBODY, "list", "--json"));
		ASSERT_NE(NULL, json_consumer(child, THREAD_FD));
		EXPECT_STATUS(0, RUN_AS(NOBODY, "info", pid, fd));
		EXPECT_STATUS(0, RUN("top", "--count", "1", "--interval",
				     "0.001", pid, fd));
		n = info_of(self->fd).rings;
		ret = RUN("ring", pid, fd, "1");
		if (kind == ONE_TABLE || threads) {
			EXPECT_STATUS(0, ret);
			ASSERT_EQ(n + 1, info_of(self->fd).rings);
		} else {
			EXPECT_STATUS(FAILED, ret);
			EXPECT_ERROR("Linux 6.9");
		}
		ASSERT_EQ(0x100 + SIGKILL, killed(child));
	}
}

/* kcmp() may be refused: then one table is walked once for each thread. */
TEST_F(consumer, no_kcmp)
{
	json_t *one;
	pid_t child;
	size_t i, n;
	int kind;

	if (prctl(PR_GET_SECCOMP, 0, 0, 0, 0) < 0)
		SKIP(return, "the kernel has no seccomp");
	ASSERT_EQ(0, attach_as(self->fd, -1, 0, 0, 0));
	denied_call = SYS_kcmp;
	for (kind = OWN_TABLE; kind <= ONE_TABLE; kind++) {
		child = fork_with_thread(kind, self->fd);
		ASSERT_LT(0, child);
		EXPECT_STATUS(0, RUN("list", "--json"));
		n = 0;
		json_array_foreach(json_array_of("consumers"), i, one)
			n += json_number(one, "pid") == (__u64)child &&
			     json_number(one, "fd") == THREAD_FD;
		ASSERT_EQ(1, n) {
			TH_LOG("kind %d: %s", kind, tool.text);
		}
		ASSERT_EQ(0x100 + SIGKILL, killed(child));
	}
	denied_call = -1;
}

#define TABLES	100

static void *own_table(void *pipe)
{
	if (unshare(CLONE_FILES))
		_exit(99);
	write((long)pipe, "x", 1);
	pause();
	return NULL;
}

static void with_tables(int pipe, const void *arg)
{
	void *to = (void *)(long)pipe;
	pthread_t thread;
	int i;

	(void)arg;
	for (i = 0; i < TABLES; i++)
		if (pthread_create(&thread, NULL, own_table, to))
			_exit(99);
}

/* A process with TABLES threads, each with a table of its own */
static pid_t fork_with_tables(void)
{
	return fork_ready(with_tables, NULL, TABLES);
}

/*
 * Let a traced command go on until it begins the system call @nr, and return
 * that; or until it exits, and return -2 minus its status; or -1. Counts its
 * calls of kcmp().
 */
static long trace_to(long nr, unsigned int *kcmps)
{
	struct __ptrace_syscall_info info;
	int status, sig = 0;

	for (;;) {
		if (ptrace(PTRACE_SYSCALL, tool.pid, 0, sig) ||
		    waitpid(tool.pid, &status, 0) != tool.pid)
			return -1;
		if (!WIFSTOPPED(status))
			return WIFEXITED(status) ? -WEXITSTATUS(status) - 2 :
						   -1;
		sig = WSTOPSIG(status);
		if (sig != (SIGTRAP | 0x80))
			continue;
		sig = 0;
		if (ptrace(PTRACE_GET_SYSCALL_INFO, tool.pid, sizeof(info),
			   &info) < 0)
			return -1;
		if (info.op != PTRACE_SYSCALL_INFO_ENTRY)
			continue;
		*kcmps += info.entry.nr == SYS_kcmp;
		if ((long)info.entry.nr == nr)
			return nr;
	}
}

/* A process with many tables does not make a search take for ever. */
TEST_F(consumer, many_tables)
{
	pid_t child = fork_with_tables();
	unsigned int kcmps = 0;
	char pid[16];
	int status;

	ASSERT_LT(0, child);
	traced = true;
	ASSERT_EQ(0, START("info", text_of(pid, child), "0"));
	traced = false;
	ASSERT_EQ(tool.pid, waitpid(tool.pid, &status, 0));
	ASSERT_TRUE(WIFSTOPPED(status));
	ASSERT_EQ(0, ptrace(PTRACE_SETOPTIONS, tool.pid, 0,
			    PTRACE_O_TRACESYSGOOD));
	ASSERT_EQ(-2 - NOT_FOUND, trace_to(-1, &kcmps));
	close(tool.out);
	close(tool.err_fd);
	/* all pairs would be 5,000 */
	ASSERT_LT(TABLES - 1, kcmps);
	ASSERT_GT(10 * TABLES, kcmps);
	killed(child);
}

/* Rings in the output of top --json */
static unsigned int rings_printed(void)
{
	static const char key[] = "\"rings\":";
	unsigned int rings = 0;
	const char *at;

	for (at = tool.text; (at = strstr(at, key)); at++)
		rings += atoi(at + sizeof(key) - 1);
	return rings;
}

/*
 * A consumer that top has not seen has rings of before. If top has seen it
 * without a region, they are new.
 */
TEST_F(consumer, first_look)
{
	int other = db_must_open(_metadata, O_NONBLOCK), fd = self->fd, i;
	unsigned int rung = 0;
	pid_t child;

	ASSERT_EQ(0, attach_as(fd, -1, 0, 0, 0));
	for (i = 0; i < 1000; i++)
		ASSERT_EQ(0, db_ring(fd, MMIO_BASE, 1));
	child = fork();
	if (!child) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		close(other);
		pause();
	}
	ASSERT_LT(0, child);
	close(fd);
	ASSERT_EQ(0, START("top", "--json", "--interval", "0.1", SELF));
	ASSERT_TRUE(more_output());
	ASSERT_EQ(0, attach_as(other, -1, 0, 0, 0));
	for (i = 0; i < 5; i++)
		ASSERT_EQ(0, db_ring(other, MMIO_BASE, 0x5eed));
	while (rings_printed() < 5)
		ASSERT_TRUE(more_output());
	ASSERT_EQ(5, rings_printed());

	self->fd = syscall(SYS_pidfd_getfd, syscall(SYS_pidfd_open, child, 0),
			   fd, 0);
	ASSERT_LE(0, self->fd);
	while (!strstr(tool.text, "0xabc")) {
		ASSERT_EQ(0, db_ring(self->fd, MMIO_BASE, 0xabc));
		rung++;
		usleep(20000);
		if (db_poll(tool.out, POLLIN, 0) & POLLIN)
			ASSERT_TRUE(more_output());
	}
	ASSERT_GE(5 + rung, rings_printed()) {
		TH_LOG("printed: %s", tool.text);
	}
	kill(tool.pid, SIGKILL);
	ASSERT_EQ(0x100 + SIGKILL, end_tool());
	killed(child);
	close(other);
}

/* top ends with the process, even if its parent has not waited for it. */
TEST_F(consumer, ended)
{
	pid_t child = fork();
	char pid[16];

	if (!child) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		pause();
	}
	ASSERT_LT(0, child);
	ASSERT_EQ(0, START("top", "--json", "--interval", "1000",
			   text_of(pid, child)));
	/* or while it starts */
	usleep(500000);
	kill(child, SIGKILL);
	EXPECT_STATUS(0, end_tool_soon());
	EXPECT_ERROR("has ended");
	ended(child);
}

TEST_F(consumer, write_only)
{
	int fd = open("/dev/doorbell", O_WRONLY | O_CLOEXEC);

	ASSERT_LE(0, fd);
	ASSERT_EQ(0, attach_as(fd, -1, 0, 0, 0));
	EXPECT_STATUS(0, RUN("ring", SELF, FD(fd), "1"));
	EXPECT_STATUS(DENIED, RUN("queues", SELF, FD(fd)));
	EXPECT_ERROR("not open for reading");
	close(fd);
	fd = open("/dev/doorbell", O_RDONLY | O_CLOEXEC);
	ASSERT_LE(0, fd);
	ASSERT_EQ(0, attach_as(fd, -1, 0, 0, 0));
	EXPECT_STATUS(DENIED, RUN("ring", SELF, FD(fd), "1"));
	EXPECT_STATUS(0, RUN("queues", SELF, FD(fd)));
	close(fd);
}

/* A region that the owner drops while the command runs does not stay. */
TEST_F(consumer, not_kept)
{
	ASSERT_EQ(0, attach_as(self->fd, -1, 0, 0, 0));
	ASSERT_EQ(0, START("top", "--json", "--interval", "0.1", SELF));
	ASSERT_TRUE(more_output());
	close(self->fd);
	ASSERT_TRUE(eventually(!db_module_refs()));
	self->fd = db_must_open(_metadata, O_NONBLOCK);
	kill(tool.pid, SIGKILL);
	ASSERT_EQ(0x100 + SIGKILL, end_tool());
}

/* A name is UTF-8 without control characters, whatever the process says. */
TEST_F(consumer, name)
{
	static const struct {
		const char *name;
		const char *printed;
	} names[] = {
		{ "a b\"\\", "a b\"\\" },
		{ "\u00fc\u20ac\U0001f514", "\u00fc\u20ac\U0001f514" },
		{ "\033[2J\177\t", "?[2J??" },
		{ "a\300\257b\377c\200", "a??b?c?" },
		/* one byte less than the character, CSI, and a surrogate */
		{ "\342\202", "??" },
		{ "\302\233\355\240\200", "?????" },
		{ "\364\220\200\200\370\210", "??????" },
	};
	size_t i;

	for (i = 0; i < ARRAY_SIZE(names); i++) {
		ASSERT_EQ(0, prctl(PR_SET_NAME, names[i].name));
		EXPECT_STATUS(0, RUN("list", "--json"));
		ASSERT_TRUE(json_is(json_consumer(getpid(), self->fd),
				    "command", names[i].printed)) {
			TH_LOG("%zu: %s", i, tool.text);
		}
		EXPECT_STATUS(0, RUN("info", SELF, FD(self->fd)));
		EXPECT_OUTPUT(names[i].printed);
	}
}

/* Two processes share it: both are listed, and top has its rings once. */
TEST_F(consumer, shared)
{
	struct db_snapshot snap;
	pid_t child = fork();
	int id, lines = 0;
	char *at;

	if (!child) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		pause();
	}
	ASSERT_LT(0, child);
	ASSERT_EQ(0, attach_as(self->fd, -1, 0, 0, 0));
	ASSERT_EQ(0, db_snapshot(self->fd, &snap));
	at = strstr(snap.fdinfo, "doorbell-id:");
	ASSERT_NE(NULL, at);
	id = atoi(at + strlen("doorbell-id:"));
	EXPECT_STATUS(0, RUN("list", "--json"));
	ASSERT_EQ(id, json_number(json_consumer(getpid(), self->fd), "id"));
	ASSERT_EQ(id, json_number(json_consumer(child, self->fd), "id"));
	ASSERT_EQ(0, START("top", "--json", "--interval", "0.2", "--count",
			   "2"));
	ASSERT_TRUE(more_output());
	ASSERT_EQ(0, db_ring(self->fd, MMIO_BASE, 0x5eed));
	EXPECT_STATUS(0, end_tool());
	for (at = tool.text; (at = strstr(at, "0x5eed")); at++)
		lines++;
	ASSERT_EQ(1, lines);
	kill(child, SIGKILL);
	ended(child);
}

TEST_F(consumer, lines)
{
	const char *at;
	int headings = 0, lines = 0;

	ASSERT_EQ(0, attach_as(self->fd, -1, 0, 0, 0));
	ASSERT_EQ(0, START("top", "--interval", "0.2", "--lines", "2", SELF));
	/* two intervals with rings, and the output of each */
	while (lines < 4) {
		ASSERT_EQ(0, db_ring(self->fd, MMIO_BASE, 0xabc));
		ASSERT_EQ(0, db_ring(self->fd, MMIO_BASE, 0xabc));
		ASSERT_EQ(0, db_ring(self->fd, MMIO_BASE + 8, 1));
		ASSERT_EQ(0, db_ring(self->fd, MMIO_BASE + 16, 1));
		usleep(20000);
		if (db_poll(tool.out, POLLIN, 0) & POLLIN)
			ASSERT_TRUE(more_output());
		for (lines = 0, at = tool.text; (at = strchr(at, '\n')); at++)
			lines++;
	}
	kill(tool.pid, SIGKILL);
	ASSERT_EQ(0x100 + SIGKILL, end_tool());
	ASSERT_EQ(NULL, strchr(tool.text, '\033'));
	for (at = tool.text; (at = strstr(at, "QUEUE")); at++)
		headings++;
	ASSERT_EQ(1, headings);
	EXPECT_OUTPUT("0xabc\n");
	/* the busiest one comes first */
	at = strchr(tool.text, '\n');
	ASSERT_LT(strstr(at, "0xabc\n"), strstr(at, "0x1\n"));
}

/* Do not run where there are no terminals. */
#define NEED_TERMINALS() do {						\
	mkdir("/dev/pts", 0755);					\
	if (mount("devpts", "/dev/pts", "devpts", 0,			\
		  "ptmxmode=0666") && errno == ENODEV)			\
		SKIP(return, "the kernel has no terminals");		\
} while (0)

/* Start top on a terminal of 80 columns and 7 rows: tool.out is its end. */
static int start_top_as(uid_t uid, const char *interval)
{
	struct winsize size = { .ws_row = 7, .ws_col = 80 };
	int terminal, program, unlock = 0, i, ret;
	char path[32];

	terminal = open("/dev/pts/ptmx", O_RDWR | O_CLOEXEC | O_NOCTTY);
	if (terminal < 0 || ioctl(terminal, TIOCSPTLCK, &unlock) ||
	    ioctl(terminal, TIOCGPTN, &i) ||
	    ioctl(terminal, TIOCSWINSZ, &size))
		return -errno;
	snprintf(path, sizeof(path), "/dev/pts/%d", i);
	program = open(path, O_RDWR | O_CLOEXEC | O_NOCTTY);
	if (program < 0)
		return -errno;
	ret = start_tool((const char *[]) { "doorbell", "top", "--interval",
			 interval, NULL }, uid, program);
	close(program);
	tool.out = terminal;
	return ret;
}

static int start_top(const char *interval)
{
	return start_top_as(0, interval);
}

/* Wait for @text on the terminal, after @at. */
static const char *on_screen(const char *at, const char *text)
{
	const char *found;

	while (!(found = strstr(at, text)))
		if (!more_output())
			return NULL;
	return found;
}

#define SCREEN_ENTER	"\033[?1049h"
#define SCREEN_LEAVE	"\033[?1049l"

/* The longest lines there are fit, and what does not fit is not wrapped. */
TEST_F(consumer, screen)
{
	const char *at, *end, *line;
	int i;

	NEED_TERMINALS();
	prctl(PR_SET_NAME, "name of 15 byte");
	ASSERT_EQ(0, attach_as(self->fd, -1, 0, 0, 0));
	ASSERT_EQ(0, start_top("0.2"));
	/* more queues than fit, until they show on a whole screen */
	do {
		for (i = 0; i < REGION_QUEUES; i++)
			ASSERT_EQ(0, db_ring(self->fd, MMIO_BASE +
					     i * REGION_STRIDE,
					     0xfedcba9876543210));
		ASSERT_TRUE(more_output());
		at = strstr(tool.text, "0xfedcba9876543210\r");
	} while (!at || !strstr(at, "\033[H\033[J"));
	EXPECT_OUTPUT(SCREEN_ENTER "\033[?25l\033[?7l");
	EXPECT_OUTPUT("rings/s");
	EXPECT_OUTPUT("doorbell: 1 consumer, ");
	EXPECT_OUTPUT("name of 15 byte");
	/* there is room for all but the time */
	ASSERT_EQ(NULL, strstr(tool.text, "TIME"));
	/* the screen with the first queues: a line each, the headings, two */
	while (at > tool.text && *at != '\033')
		at--;
	end = strstr(at + 1, "\033[H");
	for (i = 0, line = at; (at = memchr(line, '\n', end - line)); i++) {
		ASSERT_GE(81, at - line);
		line = at + 1;
	}
	ASSERT_EQ(6, i);
	ASSERT_EQ(1, write(tool.out, "q", 1));
	ASSERT_EQ(0, end_tool());
	EXPECT_OUTPUT("\033[?7h\033[?25h" SCREEN_LEAVE);
}

/* Signals of the terminal's keys give it back. */
TEST_F(consumer, screen_signals)
{
	const char *at;
	int status;

	NEED_TERMINALS();
	ASSERT_EQ(0, start_top("0.2"));
	at = on_screen(tool.text, "rings/s");
	ASSERT_NE(NULL, at);
	kill(tool.pid, SIGTSTP);
	ASSERT_EQ(tool.pid, waitpid(tool.pid, &status, WUNTRACED));
	ASSERT_TRUE(WIFSTOPPED(status));
	at = on_screen(at, SCREEN_LEAVE);
	ASSERT_NE(NULL, at);
	ASSERT_EQ(NULL, strstr(at, SCREEN_ENTER));
	kill(tool.pid, SIGCONT);
	at = on_screen(at, SCREEN_ENTER);
	ASSERT_NE(NULL, at);
	ASSERT_NE(NULL, on_screen(at, "rings/s"));
	kill(tool.pid, SIGQUIT);
	EXPECT_STATUS(0, end_tool());
	ASSERT_NE(NULL, strstr(at, SCREEN_LEAVE));
}

/* A signal that comes while top is stopped ends it as soon as it goes on. */
TEST_F(consumer, screen_stopped)
{
	int status;

	NEED_TERMINALS();
	ASSERT_EQ(0, start_top("1000"));
	ASSERT_NE(NULL, on_screen(tool.text, SCREEN_ENTER));
	kill(tool.pid, SIGTSTP);
	ASSERT_EQ(tool.pid, waitpid(tool.pid, &status, WUNTRACED));
	ASSERT_TRUE(WIFSTOPPED(status));
	kill(tool.pid, SIGTERM);
	kill(tool.pid, SIGCONT);
	EXPECT_STATUS(0, end_tool_soon());
}

#ifdef __x86_64__
/*
 * A signal that comes just before top waits ends it, too. Let the traced
 * command call poll() or ppoll() again, after the signal.
 */
TEST_F(consumer, screen_signal_race)
{
	struct user_regs_struct regs;
	long call;
	int status;

	NEED_TERMINALS();
	ASSERT_EQ(0, start_top("1000"));
	ASSERT_EQ(0, ptrace(PTRACE_SEIZE, tool.pid, 0, 0));
	do {
		usleep(1000);
		ASSERT_EQ(0, ptrace(PTRACE_INTERRUPT, tool.pid, 0, 0));
		ASSERT_EQ(tool.pid, waitpid(tool.pid, &status, 0));
		ASSERT_TRUE(WIFSTOPPED(status));
		ASSERT_EQ(0, ptrace(PTRACE_GETREGS, tool.pid, 0, &regs));
		call = regs.orig_rax;
		/* to the next stop, or on */
		ASSERT_EQ(0, ptrace(call == SYS_poll || call == SYS_ppoll ?
				    PTRACE_SYSCALL : PTRACE_CONT, tool.pid, 0,
				    0));
	} while (call != SYS_poll && call != SYS_ppoll);
	/* skip the call, and go back to before it */
	ASSERT_EQ(tool.pid, waitpid(tool.pid, &status, 0));
	ASSERT_EQ(0, ptrace(PTRACE_GETREGS, tool.pid, 0, &regs));
	regs.orig_rax = -1;
	ASSERT_EQ(0, ptrace(PTRACE_SETREGS, tool.pid, 0, &regs));
	ASSERT_EQ(0, ptrace(PTRACE_SYSCALL, tool.pid, 0, 0));
	ASSERT_EQ(tool.pid, waitpid(tool.pid, &status, 0));
	ASSERT_EQ(0, ptrace(PTRACE_GETREGS, tool.pid, 0, &regs));
	regs.rax = call;
	regs.rip -= 2;
	ASSERT_EQ(0, ptrace(PTRACE_SETREGS, tool.pid, 0, &regs));
	kill(tool.pid, SIGTERM);
	ASSERT_EQ(0, ptrace(PTRACE_CONT, tool.pid, 0, 0));
	ASSERT_EQ(tool.pid, waitpid(tool.pid, &status, 0));
	ASSERT_TRUE(WIFSTOPPED(status));
	ASSERT_EQ(SIGTERM, WSTOPSIG(status));
	ASSERT_EQ(0, ptrace(PTRACE_DETACH, tool.pid, 0, SIGTERM));
	EXPECT_STATUS(0, end_tool_soon());
	EXPECT_OUTPUT(SCREEN_LEAVE);
}
#endif

/* Nor does it keep top from ending. */
TEST_F(consumer, screen_signal_search)
{
	unsigned int kcmps = 0;
	pid_t child;
	int status;

	NEED_TERMINALS();
	child = fork_with_tables();
	ASSERT_LT(0, child);
	ASSERT_EQ(0, start_top("0.001"));
	ASSERT_NE(NULL, on_screen(tool.text, "rings/s"));
	ASSERT_EQ(0, ptrace(PTRACE_SEIZE, tool.pid, 0, PTRACE_O_TRACESYSGOOD));
	ASSERT_EQ(0, ptrace(PTRACE_INTERRUPT, tool.pid, 0, 0));
	ASSERT_EQ(tool.pid, waitpid(tool.pid, &status, 0));
	ASSERT_EQ(SYS_pidfd_open, trace_to(SYS_pidfd_open, &kcmps));
	ASSERT_EQ(SYS_kcmp, trace_to(SYS_kcmp, &kcmps));
	kill(tool.pid, SIGTERM);
	kcmps = 0;
	ASSERT_EQ(-2, trace_to(-1, &kcmps));
	ASSERT_GT(20, kcmps);
	while (more_output())
		;
	close(tool.out);
	close(tool.err_fd);
	EXPECT_OUTPUT(SCREEN_LEAVE);
	killed(child);
}

/* Tests that unload the module, which is there again for the next one */
FIXTURE(module)
{
	int file;
};

FIXTURE_SETUP(module)
{
	self->file = db_module_open();
	if (self->file < 0)
		SKIP(return, "no file of the module");
}

FIXTURE_TEARDOWN(module)
{
	if (self->file < 0)
		return;
	if (access("/sys/module/doorbell", F_OK)) {
		EXPECT_EQ(0, db_module_load(self->file));
	}
	close(self->file);
}

/* Leave the screen before an error, and do not enter it if one comes first. */
TEST_F(module, screen_errors)
{
	NEED_TERMINALS();
	ASSERT_EQ(0, start_top("0.2"));
	ASSERT_NE(NULL, on_screen(tool.text, "rings/s"));
	ASSERT_TRUE(eventually(!db_module_unload()));
	EXPECT_STATUS(NO_DEVICE, end_tool());
	EXPECT_OUTPUT(SCREEN_LEAVE);
	ASSERT_NE(NULL, strstr(strstr(tool.text, SCREEN_LEAVE),
			       "modprobe doorbell"));
	ASSERT_EQ(0, start_top("0.2"));
	EXPECT_STATUS(NO_DEVICE, end_tool());
	EXPECT_OUTPUT("modprobe doorbell");
	ASSERT_EQ(NULL, strstr(tool.text, SCREEN_ENTER));
}

/* Monitoring */

/* Wait until the command is attached. */
static bool monitor_attached(void)
{
	struct tool monitor = tool;
	bool attached;

	tool.text = NULL;
	RUN("list", "--json");
	attached = json_is(json_consumer(monitor.pid, -1), "state",
			   "attached");
	free(tool.text);
	tool = monitor;
	return attached;
}

/* The line that begins at @at is complete. */
static bool line_ends(size_t at)
{
	while (!strchr(tool.text + at, '\n'))
		if (!more_output())
			return false;
	return true;
}

TEST(monitor_vm)
{
	struct vmm *vmm = vmm_create(1);
	json_t *event;
	size_t at = 0;
	int i;

	ASSERT_NE(NULL, vmm);
	ASSERT_EQ(0, START("monitor", "--json", "--vm", SELF,
			   "--num-events", "5", "0xd0000000", "256", "8"));
	ASSERT_TRUE(eventually(monitor_attached()));
	for (i = 0; i < 5; i++) {
		ASSERT_EQ(0, guest_write(vmm, 0, 4, MMIO_BASE + i * 8,
					 0xc0000000 + i));
		ASSERT_TRUE(line_ends(at));
		event = json_loads(tool.text + at, JSON_DISABLE_EOF_CHECK,
				   NULL);
		ASSERT_TRUE(json_is(event, "type", "queue"));
		ASSERT_EQ(i, json_number(event, "queue"));
		ASSERT_EQ(1, json_number(event, "rings"));
		ASSERT_EQ(4, json_number(event, "width"));
		ASSERT_EQ(0xc0000000 + i, json_hex(event, "value"));
		ASSERT_LT(0, json_double(event, "monotonic"));
		at = strchr(tool.text + at, '\n') + 1 - tool.text;
	}
	ASSERT_EQ(0, vmm_exits(vmm));
	EXPECT_STATUS(0, end_tool());
	/* the region is gone with the command */
	ASSERT_EQ(0, guest_write(vmm, 0, 4, MMIO_BASE, 1));
	ASSERT_EQ(1, vmm_exits(vmm));
	vmm_destroy(vmm);
}

/* The command does not keep the VM alive, and ends with it. */
TEST(monitor_hangup)
{
	struct vmm *vmm = vmm_create(1);
	struct tool monitor;
	json_t *consumer;

	ASSERT_NE(NULL, vmm);
	ASSERT_EQ(0, START("monitor", "--vm", SELF, "--vm-fd",
			   FD(vmm->vm_fd), "--format", "%k %q %c %v %w 100%%",
			   "--pio", "--ordered", "16", "0x1000", "64"));
	ASSERT_TRUE(eventually(monitor_attached()));
	/* a consumer that is not the VM's process */
	monitor = tool;
	tool.text = NULL;
	EXPECT_STATUS(0, RUN("list", "--json"));
	consumer = json_consumer(monitor.pid, -1);
	ASSERT_NE(NULL, consumer);
	ASSERT_EQ(getpid(), json_number(consumer, "vm"));
	tool = monitor;
	ASSERT_EQ(0, guest_write(vmm, PIO, 2, PIO_BASE + 4, 5));
	ASSERT_EQ(0, guest_write(vmm, PIO, 1, PIO_BASE + 4, 6));
	vmm_destroy(vmm);
	EXPECT_STATUS(0, end_tool());
	ASSERT_STREQ("queue 1 1 0x5 2 100%\nqueue 1 1 0x6 1 100%\n", tool.text);
	EXPECT_ERROR("the VM is gone");
}

TEST(monitor_none)
{
	char pid[16];
	json_t *list, *consumer = NULL;
	struct tool monitor;
	size_t i;

	EXPECT_STATUS(0, RUN("monitor", "--idle-timeout", "0.01", "0x1000",
			     "64"));
	ASSERT_STREQ("", tool.text);

	ASSERT_EQ(0, START("monitor", "--num-events", "2", "0x1000", "64"));
	ASSERT_TRUE(eventually(monitor_attached()));
	monitor = tool;
	tool.text = NULL;
	EXPECT_STATUS(0, RUN("list", "--json"));
	list = json_array_of("consumers");
	json_array_foreach(list, i, consumer)
		if (json_number(consumer, "pid") == (__u64)monitor.pid)
			break;
	ASSERT_TRUE(json_is_null(json_object_get(consumer, "vm")));
	text_of(pid, monitor.pid);
	FD(json_number(consumer, "fd"));
	EXPECT_STATUS(0, RUN("ring", pid, fd_text, "3"));
	EXPECT_STATUS(0, RUN("ring", "--address", pid, fd_text, "3"));
	tool = monitor;
	EXPECT_STATUS(0, end_tool());
	EXPECT_OUTPUT(" queue 3 rings 1 value 0 width 0\n");
	EXPECT_OUTPUT(" bad-address - rings 1 value 0x3 width 0\n");
}

/* No command succeeds, or goes on, if it cannot print. */
TEST(full)
{
	static const char * const help[][4] = {
		{ "doorbell", "--help" },
		{ "doorbell", "help" },
		{ "doorbell", "--version" },
		{ "doorbell", "list", "--help" },
		{ "doorbell", "check", "0", "64" },
	};
	int full = open("/dev/full", O_WRONLY | O_CLOEXEC);
	struct tool monitor;
	char pid[16];
	size_t i;

	ASSERT_LE(0, full);
	for (i = 0; i < ARRAY_SIZE(help); i++) {
		const char *argv[5] = {};

		memcpy(argv, help[i], sizeof(help[i]));
		ASSERT_EQ(0, start_tool(argv, 0, full));
		EXPECT_STATUS(FAILED, end_tool());
		EXPECT_ERROR("cannot write");
	}
	ASSERT_EQ(0, start_tool((const char *[]) { "doorbell", "top", "--json",
				"--interval", "0.001", NULL }, 0, full));
	EXPECT_STATUS(FAILED, end_tool());
	EXPECT_ERROR("cannot write");

	ASSERT_EQ(0, start_tool((const char *[]) { "doorbell", "monitor",
				"0x1000", "64", NULL }, 0, full));
	ASSERT_TRUE(eventually(monitor_attached()));
	monitor = tool;
	tool.text = NULL;
	EXPECT_STATUS(0, RUN("list", "--json"));
	FD(json_number(json_consumer(monitor.pid, -1), "fd"));
	EXPECT_STATUS(0, RUN("ring", text_of(pid, monitor.pid), fd_text, "3"));
	tool = monitor;
	EXPECT_STATUS(FAILED, end_tool());
	EXPECT_ERROR("cannot write");
	close(full);
}

/* A consumer that took the place of standard output would ring itself. */
TEST(no_output)
{
	static const char * const argv[] = {
		"sh", "-c", "doorbell monitor 0x1000 64 >&-", NULL
	};
	struct tool monitor;
	char pid[16];
	int fd;

	ASSERT_EQ(0, start_tool(argv, 0, -1));
	ASSERT_TRUE(eventually(monitor_attached()));
	monitor = tool;
	tool.text = NULL;
	EXPECT_STATUS(0, RUN("list", "--json"));
	fd = json_number(json_consumer(monitor.pid, -1), "fd");
	ASSERT_LT(2, fd);
	EXPECT_STATUS(0, RUN("ring", text_of(pid, monitor.pid), FD(fd), "3"));
	tool = monitor;
	EXPECT_STATUS(FAILED, end_tool());
	EXPECT_ERROR("cannot write");
}

TEST(monitor_refused)
{
	struct vmm *vmm;
	int fd;

	EXPECT_STATUS(NOT_FOUND, RUN("monitor", "--vm", SELF, "0", "64"));
	EXPECT_ERROR("has no KVM VM");
	EXPECT_STATUS(USAGE, RUN("monitor", "2", "64"));
	EXPECT_ERROR("base: the base is a multiple of the stride");
	EXPECT_STATUS(USAGE, RUN("monitor", "--format", "%x", "0", "64"));
	EXPECT_STATUS(USAGE, RUN("monitor", "--vm", SELF, "--vm-fd", "2", "0",
				 "64"));
	EXPECT_ERROR("no KVM VM");

	vmm = vmm_create(1);
	ASSERT_NE(NULL, vmm);
	fd = db_must_open(_metadata, O_NONBLOCK);
	ASSERT_EQ(0, attach_as(fd, vmm->vm_fd, 0, 0, 0));
	EXPECT_STATUS(FAILED, RUN("monitor", "--vm", SELF, "0xd0000000",
				  "64"));
	EXPECT_ERROR("a device of the VM is there");
	close(fd);
	vmm_destroy(vmm);
}

/* Checking */

static void note_rule(const char *rule, const char *why, void *ctx)
{
	*(const char **)ctx = rule;
}

/* Mostly valid, so that one wrong field makes the difference */
static struct doorbell_attach random_attach(uint32_t *random)
{
	static const __u64 bases[] = { 0, 0x1000, 0x8000, 0xd0000000, 0xfe0000,
				       -65536, 0xff00, 0x10000 };
	static const __u64 lens[] = { 64, 256, 4096, 4096, 0x10000, 65535 * 4,
				      0, 65536 * 4, 65535ULL << 16, 1ULL << 32,
				      -64 };
	static const __u32 strides[] = { 0, 2, 4, 8, 64, 4096, 65536, 1, 3, 12,
					 131072, 1U << 31 };
	static const __u32 depths[] = { 1, 16, 1024, DOORBELL_DEPTH_MAX,
					DOORBELL_DEPTH_MAX + 1, UINT32_MAX };
	static const __u32 queues[] = { 1, 16, DOORBELL_QUEUES_MAX,
					DOORBELL_QUEUES_MAX + 1, UINT32_MAX };
	struct doorbell_attach arg = db_attach_arg(-1, 0, 0);
	uint32_t r = db_random(random);

#define PICK(array)	((array)[db_random(random) % (sizeof(array) /	\
					     sizeof((array)[0]))])
	arg.base = PICK(bases) + (r % 8 ? 0 : db_random(random) % 9);
	arg.len = PICK(lens) + (r / 8 % 8 ? 0 : db_random(random) % 9);
	arg.stride = PICK(strides);
	/* few flags, and all of them there are */
	arg.flags |= db_random(random) & db_random(random) & FLAGS;
	if (!!(arg.flags & ORDERED) == !!(r / 1024 % 8))
		arg.depth = PICK(depths);
	if (!!(arg.flags & BY_VALUE) == !!(r / 8192 % 8))
		arg.queues = PICK(queues);
#undef PICK
	return arg;
}

/*
 * The kernel has the last word: EINVAL if, and only if, a rule is broken.
 * Unlike DOORBELL_DETACH, close() does not wait for a grace period.
 */
static bool kernel_agrees(struct __test_metadata *_metadata, int *fd,
			  struct doorbell_attach *arg)
{
	int ret = db_result(ioctl(*fd, DOORBELL_ATTACH, arg));
	const char *rule = "none";

	check_attach(arg, note_rule, &rule);
	ASSERT_EQ(strcmp(rule, "none") != 0, ret == -EINVAL) {
		TH_LOG("base %#llx len %#llx stride %u flags %#x depth %u queues %u: %d, %s",
		       arg->base, arg->len, arg->stride, arg->flags, arg->depth,
		       arg->queues, ret, rule);
	}
	if (!ret) {
		close(*fd);
		*fd = db_must_open(_metadata, O_NONBLOCK);
	}
	return !ret;
}

/* What is valid is tried again with one bit of the flags changed. */
TEST(check_oracle)
{
	unsigned int n = db_debug_kernel() ? 2000 : 10000, i, good = 0;
	int fd = db_must_open(_metadata, O_NONBLOCK);
	uint32_t random = 1, valid = 0, changed = 0, bit;
	struct doorbell_attach arg;

	for (i = 0; i < n; i++) {
		arg = random_attach(&random);
		if (!kernel_agrees(_metadata, &fd, &arg))
			continue;
		valid |= arg.flags;
		bit = 1U << good++ % 32;
		changed |= bit;
		arg.flags ^= bit;
		kernel_agrees(_metadata, &fd, &arg);
	}
	printf("# %u of %u are valid\n", good, n);
	ASSERT_LT(n / 20, good);
	ASSERT_EQ(FLAGS, valid);
	ASSERT_EQ(UINT32_MAX, changed);
	close(fd);
}

/* One rule is broken. */
static const struct {
	const char *rule;
	const char *args[5];
} broken[] = {
	{ "flags", { "--flags", "0x100", "0", "64" } },
	{ "no-value", { "--no-value", "--pio", "0", "64" } },
	{ "exact", { "--exact", "0", "64" } },
	{ "depth", { "--ordered", "0", "0", "64" } },
	{ "depth", { "--depth", "1", "0", "64" } },
	{ "queues", { "--by-value", "65536", "0", "64" } },
	{ "queues", { "--queues", "1", "0", "64" } },
	{ "stride", { "0", "64", "12" } },
	{ "stride", { "0", "131072", "131072" } },
	{ "base", { "2", "64" } },
	{ "len", { "0", "66" } },
	{ "size", { "0", "0" } },
	{ "size", { "0", "262144" } },
	{ "end", { "0xffffffffffffffc0", "64" } },
	{ "ports", { "--pio", "0xffc0", "128" } },
	{}
};

TEST(check_rules)
{
	json_t *list;
	size_t i;

	for (i = 0; broken[i].rule; i++) {
		const char * const *args = broken[i].args;

		EXPECT_STATUS(FAILED, RUN("check", "--json", args[0], args[1],
					  args[2], args[3]));
		list = json_array_of("broken");
		ASSERT_EQ(1, json_array_size(list));
		ASSERT_TRUE(json_is(json_array_get(list, 0), "rule",
				    broken[i].rule)) {
			TH_LOG("%s: %s", broken[i].rule, tool.text);
		}
	}
	EXPECT_STATUS(FAILED, RUN("check", "0", "64", "12"));
	EXPECT_OUTPUT("the stride is a power of two");
	EXPECT_STATUS(0, RUN("check", "--json", "0xfe000000", "4096"));
	ASSERT_EQ(0, json_array_size(json_array_of("broken")));
	EXPECT_STATUS(0, RUN("check", "0xfe000000", "4096"));
	ASSERT_STREQ("valid: 1024 queues\n", tool.text);
	EXPECT_STATUS(0, RUN("check", "--by-value", "7", "0", "2", "2"));
	ASSERT_STREQ("valid: 7 queues\n", tool.text);
	EXPECT_STATUS(0, RUN("check", "--bound-only", "--exact", "0", "4"));
	ASSERT_STREQ("valid: 1 queue\n", tool.text);
}

/* Running a VMM */

TEST(run)
{
	static const char * const split[] = { "a b.so", "a:b.so" };
	const char *library = "/tmp/libpreload-test.so";
	size_t i;

	close(open(library, O_CREAT | O_RDWR, 0644));
	unsetenv("LD_PRELOAD");
	EXPECT_STATUS(NOT_FOUND, RUN("run", "env"));
	EXPECT_ERROR("set DOORBELL_PRELOAD");
	setenv("DOORBELL_PRELOAD", "/nowhere", 1);
	EXPECT_STATUS(NOT_FOUND, RUN("run", "env"));
	setenv("DOORBELL_PRELOAD", library, 1);
	/* BusyBox is static: no loader reads the variable */
	EXPECT_STATUS(0, RUN("run", "--", "env"));
	EXPECT_OUTPUT("LD_PRELOAD=/tmp/libpreload-test.so\n");
	ASSERT_STREQ("", tool.errors);
	ASSERT_EQ(NULL, strstr(tool.text, "DOORBELL_STATS"));
	setenv("LD_PRELOAD", "/tmp/other.so", 1);
	EXPECT_STATUS(0, RUN("run", "--stats", "--", "env"));
	EXPECT_OUTPUT("LD_PRELOAD=/tmp/libpreload-test.so:/tmp/other.so\n");
	EXPECT_OUTPUT("DOORBELL_STATS=1\n");
	unsetenv("LD_PRELOAD");
	EXPECT_STATUS(7, RUN("run", "sh", "-c", "exit 7"));
	EXPECT_STATUS(127, RUN("run", "--", "no-such-vmm"));
	EXPECT_STATUS(126, RUN("run", "--", "/tmp"));
	EXPECT_STATUS(USAGE, RUN("run"));
	EXPECT_STATUS(7, RUN_AS(NOBODY, "run", "sh", "-c", "exit 7"));
	EXPECT_ERROR("/dev/doorbell: Permission denied");
	/* the loader looks for it from elsewhere, or not at all */
	ASSERT_EQ(0, chdir("/tmp"));
	setenv("DOORBELL_PRELOAD", "libpreload-test.so", 1);
	EXPECT_STATUS(0, RUN("run", "env"));
	EXPECT_OUTPUT("LD_PRELOAD=/tmp/libpreload-test.so\n");
	setenv("DOORBELL_PRELOAD", "../tmp/./libpreload-test.so", 1);
	EXPECT_STATUS(0, RUN("run", "env"));
	EXPECT_OUTPUT("LD_PRELOAD=/tmp/libpreload-test.so\n");
	for (i = 0; i < ARRAY_SIZE(split); i++) {
		ASSERT_EQ(0, rename(library, split[i]));
		setenv("DOORBELL_PRELOAD", split[i], 1);
		EXPECT_STATUS(FAILED, RUN("run", "env"));
		EXPECT_ERROR("a blank or a colon");
		ASSERT_EQ(0, rename(split[i], library));
	}
	unsetenv("DOORBELL_PRELOAD");
	unlink(library);
}

/* Errors */

TEST(usage)
{
	EXPECT_STATUS(USAGE, RUN(NULL));
	EXPECT_STATUS(USAGE, RUN("lists"));
	EXPECT_ERROR("there is no command \"lists\"");
	EXPECT_STATUS(USAGE, RUN("list", "--nothing"));
	EXPECT_ERROR("Try \"doorbell list --help\"");
	EXPECT_STATUS(USAGE, RUN("list", "1"));
	EXPECT_STATUS(USAGE, RUN("info", "1"));
	EXPECT_STATUS(USAGE, RUN("queues", "1"));
	EXPECT_STATUS(USAGE, RUN("queues", "x", "3"));
	EXPECT_STATUS(USAGE, RUN("top", "--interval", "0"));
	EXPECT_STATUS(USAGE, RUN("top", "--count", "0"));
	EXPECT_STATUS(USAGE, RUN("top", "--lines", "0"));
	EXPECT_STATUS(USAGE, RUN("ring", "--count", "0", "1", "3", "0"));
	EXPECT_STATUS(USAGE, RUN("monitor", "--num-events", "0", "0x1000",
				 "64"));
	EXPECT_ERROR("N is a number from 1 to");
	EXPECT_STATUS(USAGE, RUN("top", "0"));
	EXPECT_ERROR("PID is a number from 1 to 2147483647");
	EXPECT_STATUS(USAGE, RUN("monitor", "--vm", "0", "0x1000", "64"));
	EXPECT_STATUS(0, RUN("check", "0", "64", "--json"));
	EXPECT_STATUS(USAGE, RUN("check", "--", "-4", "64"));
	EXPECT_STATUS(USAGE, RUN("ring", "1", "3"));
	EXPECT_STATUS(0, RUN("--help"));
	EXPECT_OUTPUT("monitor");
	EXPECT_STATUS(0, RUN("queues", "--help"));
	EXPECT_OUTPUT("[--rung] PID FD");
	EXPECT_STATUS(0, RUN("--version"));
}

TEST(not_found)
{
	EXPECT_STATUS(NOT_FOUND, RUN("info", "999999", "3"));
	EXPECT_ERROR("there is no process 999999");
	EXPECT_STATUS(NOT_FOUND, RUN("top", "999999"));
	EXPECT_ERROR("there is no process 999999");
	EXPECT_STATUS(NOT_FOUND, RUN("queues", SELF, "0"));
	EXPECT_ERROR("is no consumer");
	EXPECT_STATUS(NOT_FOUND, RUN("info", SELF, "999"));
	EXPECT_ERROR("\"doorbell list\" has those that are");
}

/*
 * A process of the same user, but with capabilities: its descriptors have names
 * for the user, and nothing behind them.
 */
TEST(hidden)
{
	pid_t child = fork_nobody(true);
	char pid[16];

	ASSERT_LT(0, child);
	EXPECT_STATUS(0, RUN_AS(NOBODY, "top", "--interval", "0.001",
				"--count", "1", text_of(pid, child)));
	EXPECT_ERROR("no permission to look into 1 process:");
	killed(child);
}

/* With too few descriptors of its own, the command does not find less. */
TEST(few_descriptors)
{
	int fd = db_must_open(_metadata, O_NONBLOCK), status;

	for (most_fds = 4; most_fds < 10; most_fds++) {
		status = RUN("list", "--json");
		if (status == FAILED)
			continue;
		EXPECT_STATUS(0, status);
		ASSERT_NE(NULL, json_consumer(getpid(), fd)) {
			TH_LOG("%u descriptors", (unsigned int)most_fds);
		}
	}
	most_fds = 0;
	ASSERT_EQ(0, status);
	close(fd);
}

/* The descriptors of a process show, but not what is behind them. */
TEST(hidden_consumers)
{
	int fd = db_must_open(_metadata, O_NONBLOCK);
	int other = db_must_open(_metadata, O_NONBLOCK);

	if (prctl(PR_GET_SECCOMP, 0, 0, 0, 0) < 0)
		SKIP(return, "the kernel has no seccomp");
	denied_call = SYS_pidfd_getfd;
	EXPECT_STATUS(0, RUN("top", "--interval", "0.001", "--count", "1"));
	denied_call = -1;
	EXPECT_ERROR("no permission to look into 1 process:");
	close(fd);
	close(other);
}

/* Processes that only root may look into: all that have a program */
static unsigned int roots_processes(void)
{
	DIR *proc = opendir("/proc");
	struct dirent *entry;
	char path[300], target;
	unsigned int n = 0;

	while ((entry = readdir(proc))) {
		snprintf(path, sizeof(path), "/proc/%s/exe", entry->d_name);
		n += entry->d_name[0] >= '0' && entry->d_name[0] <= '9' &&
		     readlink(path, &target, 1) > 0;
	}
	closedir(proc);
	return n;
}

TEST(denied)
{
	int fd = db_must_open(_metadata, O_NONBLOCK);
	char text[64];

	ASSERT_EQ(0, attach_as(fd, -1, 0, 0, 0));
	/* neither kernel threads nor zombies, whatever we call ourselves */
	ASSERT_EQ(0, prctl(PR_SET_NAME, ") Z 1 1 1 1 1 1"));
	EXPECT_STATUS(0, RUN_AS(NOBODY, "list", "--json"));
	snprintf(text, sizeof(text), "no permission to look into %u process",
		 roots_processes());
	EXPECT_ERROR(text);
	ASSERT_EQ(NULL, json_consumer(getpid(), fd));
	EXPECT_STATUS(DENIED, RUN_AS(NOBODY, "info", SELF, FD(fd)));
	EXPECT_STATUS(DENIED, RUN_AS(NOBODY, "queues", SELF, FD(fd)));
	EXPECT_ERROR("run as root");
	EXPECT_STATUS(DENIED, RUN_AS(NOBODY, "ring", SELF, FD(fd), "0"));
	EXPECT_STATUS(DENIED, RUN_AS(NOBODY, "top", SELF));
	EXPECT_STATUS(DENIED, RUN_AS(NOBODY, "monitor", "0", "64"));
	EXPECT_ERROR("no permission to open /dev/doorbell");
	close(fd);
}

/* A /proc that has only the caller's own processes, or their names only */
TEST(hidepid)
{
	static const char * const options[] = { "hidepid=1", "hidepid=2" };
	int fd = db_must_open(_metadata, O_NONBLOCK);
	size_t i;

	ASSERT_EQ(0, unshare(CLONE_NEWNS));
	ASSERT_EQ(0, mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL));
	for (i = 0; i < ARRAY_SIZE(options); i++) {
		ASSERT_EQ(0, mount("proc", "/proc", "proc", 0, options[i]));
		EXPECT_STATUS(0, RUN_AS(NOBODY, "list"));
		EXPECT_ERROR("run as root to see all consumers");
		EXPECT_STATUS(0, RUN_AS(NOBODY, "top", "--count", "1",
					"--interval", "0.001"));
		EXPECT_ERROR("run as root to see all consumers");
		EXPECT_STATUS(DENIED, RUN_AS(NOBODY, "info", SELF, FD(fd)));
		EXPECT_STATUS(DENIED, RUN_AS(NOBODY, "queues", SELF, FD(fd)));
		EXPECT_STATUS(DENIED, RUN_AS(NOBODY, "top", SELF));
		EXPECT_STATUS(NOT_FOUND, RUN_AS(NOBODY, "info", "999999", "3"));
		EXPECT_STATUS(0, RUN("info", SELF, FD(fd)));
		ASSERT_EQ(0, umount("/proc"));
	}
	close(fd);
}

TEST(hidepid_screen)
{
	NEED_TERMINALS();
	ASSERT_EQ(0, unshare(CLONE_NEWNS));
	ASSERT_EQ(0, mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL));
	ASSERT_EQ(0, mount("proc", "/proc", "proc", 0, "hidepid=2"));
	ASSERT_EQ(0, start_top_as(NOBODY, "0.2"));
	ASSERT_NE(NULL, on_screen(tool.text, "rings/s, processes hidden"));
	ASSERT_EQ(1, write(tool.out, "q", 1));
	EXPECT_STATUS(0, end_tool());
	ASSERT_EQ(0, umount("/proc"));
}

/* A container that was not given the device */
TEST(no_device_node)
{
	int fd = db_must_open(_metadata, O_NONBLOCK);

	ASSERT_EQ(0, rename("/dev/doorbell", "/dev/doorbell-away"));
	EXPECT_STATUS(0, RUN("info", SELF, FD(fd)));
	EXPECT_STATUS(NO_DEVICE, RUN("monitor", "0", "64"));
	ASSERT_EQ(0, rename("/dev/doorbell-away", "/dev/doorbell"));
	EXPECT_ERROR("the module is loaded, but there is no /dev/doorbell");
	close(fd);
}

TEST_F(module, none)
{
	EXPECT_STATUS(0, RUN("list"));
	EXPECT_ERROR("found no descriptor of /dev/doorbell");
	ASSERT_TRUE(eventually(!db_module_unload()));
	EXPECT_STATUS(NO_DEVICE, RUN("list"));
	EXPECT_ERROR("modprobe doorbell");
	EXPECT_STATUS(NO_DEVICE, RUN("queues", SELF, "0"));
	EXPECT_STATUS(NO_DEVICE, RUN("top"));
	EXPECT_STATUS(NO_DEVICE, RUN("monitor", "0", "64"));
	EXPECT_STATUS(0, RUN("check", "0", "64"));
}

TEST_HARNESS_MAIN
