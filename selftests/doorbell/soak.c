// SPDX-License-Identifier: GPL-2.0
/*
 * Soak: all of it at random, round after round, for DOORBELL_SOAK seconds.
 *
 * In a round three guests ring all the time. Each has a VMM and a consumer, in
 * processes of their own. This process is the controller: it moves, binds,
 * detaches and attaches the regions, kills consumers, and stops vCPUs. At the
 * end of a round it ends the VMs and unloads the module.
 *
 * The guests count their rings. Each ring is an event, a signal of an eventfd,
 * or an exit to the VMM. At the end the kernel has as many objects and files as
 * after the first rounds. DOORBELL_SOAK_SEED starts the random numbers, but the
 * timing differs in each run.
 */
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>

#include "libdoorbell.h"
#include "peer.h"

/* DOORBELL_SOAK limits the time, and alarm() that of a round. */
#undef TEST_TIMEOUT_DEFAULT
#define TEST_TIMEOUT_DEFAULT	(7 * 24 * 3600)

#define SECONDS		5
/* How long guests ring in a round, at least and at most */
#define ROUND_MS	1000
#define ROUND_MAX_MS	7000
/* Rounds in which caches fill */
#define WARM_UP		2

#define PAIRS		3
/* Queues of a region; the guest rings REGION_QUEUES addresses */
#define QUEUES_MAX	4096
#define DEPTH_MAX	256
/* Most events that a consumer holds: a batch of libdoorbell */
#define BATCH		64
/* Two for each queue */
#define EVENTFDS	(2 * REGION_QUEUES)

/* How a consumer gets events: by doorbell_complete() and so on */
enum way {
	COMPLETE,
	TAKE,
	READ,
	NR_WAYS,
};

/**
 * struct log - what the consumers of a pair have handled, in shared memory
 * @book: their events
 * @ready: the last one has taken over
 */
struct log {
	struct book book;
	bool ready;
};

/**
 * struct pair - a VMM and a consumer
 * @peer: the VMM
 * @fd: the consumer's open file
 * @flags: what all regions of the round have: PIO, BY_VALUE
 * @queues: number of queues of all regions
 * @now: all flags of the present region
 * @since: number of events when it was attached
 * @consumer: process of the consumer
 * @way: how that gets events
 * @open: its flags for libdoorbell
 * @mortal: consumers are killed at times, so events may come twice
 * @log: what consumers have handled
 * @eventfd: for queue q those whose index modulo REGION_QUEUES is q
 * @written: rings of each queue by write()
 * @rings: rings that the kernel counted in all regions
 * @bound: those of them that signalled an eventfd
 */
struct pair {
	struct peer peer;
	int fd;
	__u32 flags;
	unsigned int queues;
	__u32 now;
	__u64 since;
	pid_t consumer;
	enum way way;
	unsigned int open;
	bool mortal;
	struct log *log;
	int eventfd[EVENTFDS];
	__u64 written[REGION_QUEUES];
	__u64 rings;
	__u64 bound;
};

static struct pair pairs[PAIRS];
static __u32 random_state;

/* What all rounds did */
static __u64 rounds, rings, events, exits, moves, binds, attaches, kills;
static __u64 unloads;

static unsigned int below(unsigned int n)
{
	return db_random(&random_state) % n;
}

static unsigned long env_number(const char *name, unsigned long otherwise)
{
	const char *text = getenv(name);

	return text ? strtoul(text, NULL, 0) : otherwise;
}

/* Consumers */

/* With BY_VALUE rings of one address are of many queues: count them as one. */
static void handle(struct pair *p, struct doorbell_event *event, int n)
{
	int i;

	for (i = 0; i < n && p->flags & DOORBELL_ATTACH_BY_VALUE; i++) {
		if (event[i].type == DOORBELL_EVENT_BAD_QUEUE)
			event[i].type = DOORBELL_EVENT_QUEUE;
		event[i].queue = 0;
	}
	book_events(&p->log->book, event, n);
}

static int notify(unsigned int queue, const struct doorbell_event *event,
		  void *ctx)
{
	struct doorbell_event copy = *event;

	handle(ctx, &copy, 1);
	return 0;
}

/* Get events until hang-up. Return: 0, or an error. */
static int consume(struct pair *p, struct doorbell *db, unsigned int room)
{
	struct doorbell_event event[BATCH];
	int n;

	if (p->way == COMPLETE)
		return doorbell_complete(db, notify, p);
	do {
		n = p->way == TAKE ? doorbell_take(db, event, room) :
				     db_read(p->fd, event, room);
		handle(p, event, n);
		if (!n && p->way == TAKE)
			n = doorbell_wait(db, -1);
	} while (n > 0);
	return n == -EPIPE && p->way == TAKE ? 0 : n;
}

static void start_consumer(struct __test_metadata *_metadata, struct pair *p)
{
	unsigned int room = 1 + below(BATCH);
	struct doorbell *db = NULL;

	p->way = below(NR_WAYS);
	p->open = below(2) ? DOORBELL_OPEN_READ : 0;
	p->log->ready = false;
	fflush(stdout);
	fflush(stderr);
	p->consumer = fork();
	ASSERT_LE(0, p->consumer);
	if (p->consumer) {
		ASSERT_TRUE(eventually(__atomic_load_n(&p->log->ready,
						       __ATOMIC_ACQUIRE)));
		return;
	}

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	/* other descriptors keep VMs, and the regions of other consumers */
	close_range(3, p->fd - 1, 0);
	close_range(p->fd + 1, ~0U, 0);
	if (p->way != READ)
		db = doorbell_from_fd(p->fd, p->open);
	if (p->way == READ ? ioctl(p->fd, DOORBELL_RECOVER, 0) : !db)
		_exit(1);
	__atomic_store_n(&p->log->ready, true, __ATOMIC_RELEASE);
	_exit(consume(p, db, room) ? 2 : 0);
}

static __u64 events_of(const struct pair *p)
{
	return __atomic_load_n(&p->log->book.events, __ATOMIC_ACQUIRE);
}

/*
 * A successor gets what its predecessor has not handled, but not the events of
 * an earlier region.
 */
static void kill_consumer(struct __test_metadata *_metadata, struct pair *p)
{
	if (!p->mortal || events_of(p) <= p->since + BATCH)
		return;
	ASSERT_EQ(0x100 + SIGKILL, killed(p->consumer));
	kills++;
	start_consumer(_metadata, p);
}

/* Regions */

/* In a random mode, once the consumer has all events of the region before */
static void attach(struct __test_metadata *_metadata, struct pair *p)
{
	__u64 base = base_of(p->flags);
	struct doorbell_attach arg =
		db_attach_arg(p->peer.vm_fd, base, REGION_LEN);
	int ret;

	arg.flags = p->flags;
	arg.stride = REGION_STRIDE;
	if (p->flags & DOORBELL_ATTACH_BY_VALUE)
		arg.queues = p->queues;
	if (!p->flags && below(2))
		arg.flags |= DOORBELL_ATTACH_NO_VALUE;
	if (!below(8))
		arg.flags |= DOORBELL_ATTACH_BOUND_ONLY;
	if (below(2)) {
		arg.flags |= DOORBELL_ATTACH_ORDERED;
		arg.depth = 1 + below(DEPTH_MAX);
	}
	ASSERT_TRUE(eventually(!(ret = ioctl(p->fd, DOORBELL_ATTACH, &arg)) ||
			       errno != ENOTEMPTY));
	ASSERT_EQ(0, ret);
	p->now = arg.flags;
	p->since = events_of(p);
	attaches++;
}

/* Nothing rings the present region any more: add up what it counted. */
static void add_counters(struct pair *p)
{
	struct doorbell_info info = info_of(p->fd);

	p->rings += info.rings + info.bad_rings;
	p->bound += info.bound_rings;
}

/* Away, where the guest rings none of it, or by value a part, and back */
static void move(struct __test_metadata *_metadata, struct pair *p)
{
	__u64 base = base_of(p->flags), by = 1 + below(8);

	by *= p->flags & DOORBELL_ATTACH_BY_VALUE ? REGION_STRIDE : REGION_LEN;
	ASSERT_EQ(0, db_move(p->fd, p->peer.vm_fd, base + by));
	usleep(below(2000));
	ASSERT_EQ(0, db_move(p->fd, p->peer.vm_fd, base));
	moves += 2;
}

/* Some queues, to one or the other of their eventfds, or to none */
static void bind_some(struct __test_metadata *_metadata, struct pair *p)
{
	unsigned int i, first = below(p->queues), set = below(3);
	unsigned int count = 1 + below(p->queues - first);
	static int fds[QUEUES_MAX];

	for (i = 0; i < count; i++)
		fds[i] = set == 2 ? -1 :
			 p->eventfd[set * REGION_QUEUES +
				    (first + i) % REGION_QUEUES];
	ASSERT_EQ(0, db_bind(p->fd, first, count, fds));
	binds++;
}

static void ring(struct __test_metadata *_metadata, struct pair *p)
{
	unsigned int q = below(REGION_QUEUES);
	int ret = db_ring(p->fd, base_of(p->flags) + q * REGION_STRIDE, q);

	/* a queue of BOUND_ONLY that is not bound */
	if (ret != -ENXIO)
		ASSERT_EQ(0, ret);
	p->written[q] += !ret;
}

static void do_something(struct __test_metadata *_metadata, struct pair *p)
{
	struct db_snapshot snapshot;

	switch (below(7)) {
	case 0:
		return move(_metadata, p);
	case 1:
		return bind_some(_metadata, p);
	case 2:
		return ring(_metadata, p);
	case 3:
		return kill_consumer(_metadata, p);
	case 4:
		ASSERT_EQ(0, db_detach(p->fd));
		add_counters(p);
		if (below(2))
			kill_consumer(_metadata, p);
		return attach(_metadata, p);
	case 5:
		ASSERT_EQ(0, peer_do(&p->peer, PEER_STOP));
		usleep(below(2000));
		ASSERT_EQ(0, peer_do(&p->peer, PEER_RING));
		return;
	case 6:
		ASSERT_EQ(0, db_snapshot(p->fd, &snapshot));
		ASSERT_EQ(DOORBELL_ATTACHED, snapshot.info.state);
		return;
	}
}

/* Rounds */

static void start_pair(struct __test_metadata *_metadata, struct pair *p)
{
	unsigned int i;

	p->log = db_shared_memory(sizeof(*p->log));
	ASSERT_NE(NULL, p->log);
	for (i = 0; i < EVENTFDS; i++) {
		p->eventfd[i] = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
		ASSERT_LE(0, p->eventfd[i]);
	}
	p->fd = db_must_open(_metadata, 0);
	attach(_metadata, p);
	start_consumer(_metadata, p);
	ASSERT_EQ(0, peer_do(&p->peer, PEER_RING));
}

/* Every ring was seen once, but for @cut that the end of the VM cut short. */
static void check_rings(struct __test_metadata *_metadata, struct pair *p,
			unsigned int cut)
{
	__u64 rung = 0, seen = 0, all = 0, signals = 0, left = 0;
	struct exits *exit = p->peer.exits;
	struct book *book = &p->log->book;
	eventfd_t value;
	unsigned int q, i;

	for (q = 0; q < REGION_QUEUES; q++) {
		for (i = q; i < EVENTFDS; i += REGION_QUEUES) {
			if (eventfd_read(p->eventfd[i], &value))
				continue;
			signals += value;
			seen += value;
		}
		seen += book->count[q] + exit->count[q];
		left += exit->count[q];
		rung += guest_count(p->peer.shared, q) + p->written[q];
		/* see handle() */
		if (p->flags & DOORBELL_ATTACH_BY_VALUE &&
		    q < REGION_QUEUES - 1)
			continue;
		ASSERT_TRUE(seen + cut >= rung && (p->mortal || seen <= rung)) {
			TH_LOG("queue %u: %llu rings, %llu seen, flags %#x, %scut",
			       q, rung, seen, p->now, cut ? "" : "not ");
		}
		all += rung;
		rung = 0;
		seen = 0;
	}
	/* exact even if consumers were killed */
	ASSERT_EQ(p->bound, signals);
	ASSERT_LE(p->rings + left, all);
	ASSERT_LE(all, p->rings + left + cut);
	ASSERT_LE(p->rings - p->bound, book_total(book));
	ASSERT_EQ(0, book->wrong + book->bad + exit->other);
	rings += all;
	events += book->events;
	exits += left;
}

static void end_pair(struct __test_metadata *_metadata, struct pair *p)
{
	unsigned int i, way = below(3), cut = PEER_VCPUS;
	struct peer *peer = &p->peer;
	pid_t pid = peer->pid;

	if (way == 0) {
		ASSERT_EQ(0, peer_do(peer, PEER_STOP));
		cut = 0;
	}
	ASSERT_EQ(0, way == 1 ? kill(pid, SIGKILL) : peer_do(peer, PEER_CLOSE));
	peer_close_vm(peer);
	ASSERT_EQ(POLLHUP, POLLHUP & poll_for(p->fd, 0));
	ASSERT_EQ(0, ended(p->consumer));
	add_counters(p);
	check_rings(_metadata, p, cut);

	for (i = 0; i < EVENTFDS; i++)
		close(p->eventfd[i]);
	close(p->fd);
	munmap(p->log, sizeof(*p->log));
	peer_end(peer);
	ASSERT_TRUE(eventually(vms_alive(pid) <= 0));
}

static void run_round(struct __test_metadata *_metadata)
{
	struct pair *p;
	__u64 end;
	int ret;

	alarm(TEST_SECONDS);
	memset(pairs, 0, sizeof(pairs));
	/* all VMMs first: peer_main() needs low descriptors */
	for (p = pairs; p < pairs + PAIRS; p++) {
		p->flags = below(3) ? 0 : pio_or_0();
		p->queues = REGION_QUEUES;
		if (!below(3)) {
			p->flags |= DOORBELL_ATTACH_BY_VALUE;
			p->queues <<= below(8);
		}
		p->mortal = below(2);
		peer_start(_metadata, &p->peer, p->flags);
	}
	for (p = pairs; p < pairs + PAIRS; p++)
		start_pair(_metadata, p);
	end = db_now_ms() + ROUND_MS + below(ROUND_MAX_MS - ROUND_MS);
	while (db_now_ms() < end) {
		do_something(_metadata, &pairs[below(PAIRS)]);
		usleep(below(20000));
	}
	for (p = pairs; p < pairs + PAIRS; p++)
		end_pair(_metadata, p);

	/* regions are freed after a grace period */
	ASSERT_TRUE(eventually(!db_add_up("/proc/vmallocinfo", "[doorbell]")));
	ASSERT_TRUE(eventually((ret = db_module_unload()) != -EWOULDBLOCK));
	ASSERT_EQ(0, ret);
	unloads++;
	rounds++;
}

/* Leaks */

/*
 * How much more there may be at the end. Measured differences between rounds
 * are half of that or less, and do not grow; leaks do. If each round leaks one
 * object of kmalloc() that is charged to a memory cgroup, as the module's are,
 * the test fails after nine rounds, that is after a minute. Others are KVM's
 * buses and eventfds: their caches are busy, and a leak of 30 in each round is
 * found after 50. Each CPU keeps a part of the count of files.
 */
static const struct {
	const char *name;
	long may_grow;
} usages[] = {
	{ "accounted objects", 8 },
	{ "objects", 1500 },
	{ "kB of slabs", 1024 },
	{ "files", 128 },
};

#define NR_USAGES	ARRAY_SIZE(usages)

static void get_usage(long usage[NR_USAGES])
{
	db_write_file("/proc/sys/vm/drop_caches", "3");
	/* for RCU */
	sleep(1);
	db_shrink_slabs();
	usage[0] = db_add_up("/proc/slabinfo", "kmalloc-cg-");
	usage[1] = db_add_up("/proc/slabinfo", "kmalloc-");
	usage[2] = db_add_up("/proc/meminfo", "SUnreclaim:");
	usage[3] = db_read_number("/proc/sys/fs/file-nr");
}

static bool came_back(const long before[NR_USAGES], long after[NR_USAGES])
{
	unsigned int i;
	bool ret = true;

	get_usage(after);
	for (i = 0; i < NR_USAGES; i++)
		ret &= after[i] <= before[i] + usages[i].may_grow;
	return ret;
}

TEST(at_random)
{
	__u64 end = db_now_ms() + 1000 * env_number("DOORBELL_SOAK", SECONDS);
	__u32 seed = env_number("DOORBELL_SOAK_SEED", time(NULL)) ?: 1;
	long before[NR_USAGES], after[NR_USAGES];
	int ko = db_module_open();
	unsigned int i;
	bool same;

	if (ko < 0)
		SKIP(return, "no module to load: %s", strerror(-ko));
	printf("# seed %u\n", seed);
	random_state = seed;
	while (rounds <= WARM_UP || db_now_ms() < end) {
		run_round(_metadata);
		ASSERT_EQ(0, db_module_load(ko));
		if (rounds == WARM_UP)
			get_usage(before);
	}
	/* what is freed late comes back late */
	same = eventually(came_back(before, after));
	for (i = 0; i < NR_USAGES; i++)
		printf("# %s: %ld, then %ld\n", usages[i].name, before[i],
		       after[i]);
	printf("# %llu rounds, %llu rings, %llu events, %llu exits, ", rounds,
	       rings, events, exits);
	printf("%llu moves, %llu binds, %llu attaches, ", moves, binds,
	       attaches);
	printf("%llu kills, %llu unloads, seed %u\n", kills, unloads, seed);
	ASSERT_TRUE(same);
}

TEST_HARNESS_MAIN
