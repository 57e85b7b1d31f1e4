// SPDX-License-Identifier: GPL-2.0
/*
 * Orders: VM, VMM, consumer and modules go in every order, while a guest rings.
 *
 * The tests unload doorbell, and the vendor module of KVM where its file is at
 * hand. They load doorbell again from $DOORBELL_KO, or from /doorbell.ko.
 */
#include <glob.h>

#include "peer.h"

#define ORDERS		5040
/* Orders are taken this far apart: coprime to their number, so each once */
#define ORDERS_APART	2311
/* Fewer orders on a slow machine, but never less than the minimum */
#define ORDERS_MIN	30
#define ORDERS_MS	60000
/* Enough for all of them */
#define ORDERS_SECONDS	7200

#define ROUNDS		200
#define ROUNDS_MIN	20
#define ROUNDS_MS	15000
/* What takes as long may make rmmod fail: less than LONG_PAUSE amounts to */
#define LONG_MS		200

/* Modules */

/**
 * struct modules - modules that the tests load and unload
 * @ko: file of doorbell, or a negative errno
 * @kvm: name of KVM's vendor module, or NULL if it has to stay
 * @kvm_ko: its file, or -1
 */
struct modules {
	int ko;
	const char *kvm;
	int kvm_ko;
};

static bool module_loaded(const char *name)
{
	char path[64];

	snprintf(path, sizeof(path), "/sys/module/%s/refcnt", name);
	return !access(path, F_OK);
}

static void modules_open(struct modules *m)
{
	static const char * const names[] = { "kvm_amd", "kvm_intel" };
	static const char * const files[] = {
		"/kvm/kvm_amd/*-kvm[-_]amd.ko",
		"/kvm/kvm_intel/*-kvm[-_]intel.ko",
	};
	glob_t found;
	int i;

	m->ko = db_module_open();
	m->kvm_ko = -1;
	for (i = 0; i < 2; i++) {
		if (!module_loaded(names[i]) ||
		    glob(files[i], 0, NULL, &found))
			continue;
		m->kvm = names[i];
		m->kvm_ko = open(found.gl_pathv[0], O_RDONLY | O_CLOEXEC);
		globfree(&found);
	}
	if (m->kvm_ko < 0)
		m->kvm = NULL;
}

/* Load what is not loaded. */
static int modules_load(const struct modules *m)
{
	int ret = 0;

	if (m->kvm && !module_loaded(m->kvm))
		ret = db_insmod(m->kvm_ko, "/dev/kvm");
	if (!ret && db_module_refs() < 0)
		ret = db_module_load(m->ko);
	return ret;
}

static void modules_close(struct modules *m)
{
	close(m->ko);
	if (m->kvm_ko >= 0)
		close(m->kvm_ko);
}

/*
 * Unload KVM's vendor module, which no descriptor pins. A VM that ends may pin
 * it for a moment.
 */
static bool kvm_unloads(const struct modules *m)
{
	int ret = 0;

	return eventually((ret = db_rmmod(m->kvm)) != -EWOULDBLOCK) &&
	       !ret;
}

/*
 * Unload doorbell.ko, whose last descriptor was closed at @closed. That fails
 * for the time if the removal of a region takes long; see design.rst, "Leaving
 * it". Return 0, or an error.
 */
static int unload_after(__u64 closed)
{
	int ret = db_module_unload();

	if (ret == -EWOULDBLOCK && db_now_ms() - closed >= LONG_MS)
		eventually((ret = db_module_unload()) != -EWOULDBLOCK);
	return ret;
}

/* Steps */

enum step {
	CLOSE_VM,
	NEW_VM,
	KILL,
	CLOSE,
	DETACH,
	UNLOAD,
	UNLOAD_KVM,
	NR_STEPS,
};

static const char * const step_names[] = {
	[CLOSE_VM] = "close_vm",
	[NEW_VM] = "new_vm",
	[KILL] = "kill",
	[CLOSE] = "close",
	[DETACH] = "detach",
	[UNLOAD] = "unload",
	[UNLOAD_KVM] = "unload_kvm",
};

/* The permutation of all steps that has number @n in lexical order */
static void order_steps(unsigned int n, enum step steps[NR_STEPS])
{
	enum step left[NR_STEPS];
	unsigned int i, pick, count = ORDERS;

	for (i = 0; i < NR_STEPS; i++)
		left[i] = i;
	for (i = 0; i < NR_STEPS; i++) {
		count /= NR_STEPS - i;
		pick = n / count;
		n %= count;
		steps[i] = left[pick];
		memmove(&left[pick], &left[pick + 1],
			(NR_STEPS - i - pick - 1) * sizeof(left[0]));
	}
}

/*
 * The fields after @book say what is true at the moment: @vmm lives, it has a
 * VM (@vm), the consumer is attached to that one (@attached) or to one that
 * ended (@hangup).
 */
FIXTURE(orders) {
	struct modules modules;
	struct peer peer;
	struct book book;
	__u32 flags;
	int fd;
	bool vmm, vm;
	bool attached, hangup;
	__u64 closed;		/* when, in milliseconds */
	bool dropped;		/* close() dropped events */
	unsigned int cut;	/* rings that a VM's end may have cut short */
};

FIXTURE_SETUP(orders)
{
	self->fd = -1;
	modules_open(&self->modules);
	if (self->modules.ko < 0)
		SKIP(return, "no module to load: %s",
		     strerror(-self->modules.ko));
	ASSERT_EQ(0, modules_load(&self->modules));
}

FIXTURE_TEARDOWN(orders)
{
	if (self->fd >= 0)
		close(self->fd);
	modules_load(&self->modules);
	modules_close(&self->modules);
}

static __u64 exits_total(const struct peer *peer)
{
	__u64 total = 0;
	int v;

	for (v = 0; v < PEER_VCPUS; v++)
		total += __atomic_load_n(&peer->exits->vcpu[v],
					 __ATOMIC_ACQUIRE);
	return total;
}

/* Read, and return whether there was something new. */
static bool reads_more(FIXTURE_DATA(orders) *self)
{
	__u64 before = book_total(&self->book);

	return !book_drain(&self->book, self->fd) &&
	       book_total(&self->book) > before;
}

/* The guest's rings are events of the consumer, or exits at the VMM. */
static void check_rings(struct __test_metadata *_metadata,
			FIXTURE_DATA(orders) *self)
{
	__u64 exits;

	if (self->fd >= 0 && !self->attached) {
		ASSERT_EQ(0, book_drain(&self->book, self->fd));
		ASSERT_EQ(self->hangup ? POLLHUP : 0, poll_now(self->fd));
	}
	if (!self->vm)
		return;
	exits = exits_total(&self->peer);
	if (self->attached) {
		ASSERT_TRUE(eventually(reads_more(self)));
		ASSERT_EQ(exits, exits_total(&self->peer));
	} else {
		ASSERT_TRUE(eventually(exits_total(&self->peer) > exits));
	}
}

/* The VM has just ended: so does the region of the consumer. */
static void vm_ended(struct __test_metadata *_metadata,
		     FIXTURE_DATA(orders) *self)
{
	struct doorbell_event event;

	if (self->vm)
		self->cut += PEER_VCPUS;
	self->vm = false;
	if (!self->attached)
		return;
	self->attached = false;
	self->hangup = true;
	ASSERT_EQ(POLLHUP, POLLHUP & poll_for(self->fd, 0));
	ASSERT_EQ(DOORBELL_HANGUP, info_of(self->fd).state);
	ASSERT_EQ(0, book_drain(&self->book, self->fd));
	ASSERT_EQ(0, db_read(self->fd, &event, 1));
	ASSERT_EQ(-EPIPE, db_ring(self->fd, MMIO_BASE, 0));
	ASSERT_EQ(-EBUSY, attach_region(self->fd, -1, 0));
}

static void new_vm(struct __test_metadata *_metadata,
		   FIXTURE_DATA(orders) *self)
{
	/* the VMM needs /dev/kvm */
	if (!self->vmm || access("/dev/kvm", F_OK))
		return;
	ASSERT_EQ(0, peer_anew(&self->peer));
	vm_ended(_metadata, self);
	self->vm = true;
	if (self->fd >= 0) {
		if (self->hangup)
			ASSERT_EQ(0, db_detach(self->fd));
		self->hangup = false;
		ASSERT_EQ(0, attach_region(self->fd, self->peer.vm_fd,
					   self->flags));
		self->attached = true;
	}
	peer_close_vm(&self->peer);
	ASSERT_EQ(0, peer_do(&self->peer, PEER_RING));
}

static void detach(struct __test_metadata *_metadata,
		   FIXTURE_DATA(orders) *self)
{
	if (self->fd < 0)
		return;
	ASSERT_EQ(self->attached || self->hangup ? 0 : -ENOTCONN,
		  db_detach(self->fd));
	self->attached = false;
	self->hangup = false;
	ASSERT_EQ(DOORBELL_DETACHED, info_of(self->fd).state);
}

static void close_consumer(struct __test_metadata *_metadata,
			   FIXTURE_DATA(orders) *self)
{
	if (self->fd < 0)
		return;
	self->dropped |= self->attached;
	self->closed = db_now_ms();
	ASSERT_EQ(0, close(self->fd));
	self->fd = -1;
	self->attached = false;
	self->hangup = false;
}

static void do_step(struct __test_metadata *_metadata,
		    FIXTURE_DATA(orders) *self, enum step step)
{
	switch (step) {
	case CLOSE_VM:
		if (!self->vm)
			return;
		ASSERT_EQ(0, peer_do(&self->peer, PEER_CLOSE));
		vm_ended(_metadata, self);
		break;
	case NEW_VM:
		new_vm(_metadata, self);
		break;
	case KILL:
		ASSERT_EQ(0, kill(self->peer.pid, SIGKILL));
		ASSERT_EQ(self->peer.pid, waitpid(self->peer.pid, NULL, 0));
		self->vmm = false;
		vm_ended(_metadata, self);
		break;
	case CLOSE:
		close_consumer(_metadata, self);
		break;
	case DETACH:
		detach(_metadata, self);
		break;
	case UNLOAD:
		if (self->fd < 0) {
			ASSERT_EQ(0, unload_after(self->closed));
		} else {
			ASSERT_EQ(-EWOULDBLOCK, db_module_unload());
		}
		break;
	case UNLOAD_KVM:
		if (!self->modules.kvm)
			return;
		if (self->vm) {
			ASSERT_EQ(-EWOULDBLOCK, db_rmmod(self->modules.kvm));
		} else {
			ASSERT_TRUE(kvm_unloads(&self->modules));
		}
		break;
	default:
		break;
	}
	check_rings(_metadata, self);
}

/* Every ring is an event or an exit, unless the end of a VM cut it short. */
static void check_account(struct __test_metadata *_metadata,
			  FIXTURE_DATA(orders) *self)
{
	__u64 rung, seen;

	if (self->vm)
		ASSERT_EQ(0, peer_do(&self->peer, PEER_STOP));
	if (self->fd >= 0)
		ASSERT_EQ(0, book_drain(&self->book, self->fd));
	rung = guest_total(self->peer.shared);
	seen = book_total(&self->book) + exits_total(&self->peer);
	ASSERT_LE(seen, rung);
	if (!self->dropped)
		ASSERT_LE(rung, seen + self->cut);
	ASSERT_EQ(0, self->peer.exits->other);
	ASSERT_EQ(0, self->book.wrong);
	ASSERT_EQ(0, self->book.bad);
}

static void start(struct __test_metadata *_metadata,
		  FIXTURE_DATA(orders) *self, __u32 flags)
{
	self->flags = flags;
	memset(&self->book, 0, sizeof(self->book));
	self->dropped = false;
	self->cut = 0;
	peer_start(_metadata, &self->peer, flags);
	self->fd = db_must_open(_metadata, O_NONBLOCK);
	ASSERT_EQ(0, attach_region(self->fd, self->peer.vm_fd, flags));
	peer_close_vm(&self->peer);
	self->vmm = true;
	self->vm = true;
	self->attached = true;
	self->hangup = false;
	ASSERT_EQ(0, peer_do(&self->peer, PEER_RING));
	check_rings(_metadata, self);
}

/* End the rest. No reference to a module is left. */
static void finish(struct __test_metadata *_metadata,
		   FIXTURE_DATA(orders) *self)
{
	close_consumer(_metadata, self);
	peer_end(&self->peer);
	if (db_module_refs() >= 0)
		ASSERT_EQ(0, unload_after(self->closed));
	if (self->modules.kvm && module_loaded(self->modules.kvm))
		ASSERT_TRUE(kvm_unloads(&self->modules));
	ASSERT_EQ(0, modules_load(&self->modules));
}

TEST_F_TIMEOUT(orders, each, ORDERS_SECONDS)
{
	const __u32 modes[] = { 0, pio_or_0(), DOORBELL_ATTACH_NO_VALUE };
	__u64 end = db_until(ORDERS_MS);
	/* other orders each time: few of them fit into the time */
	unsigned int i, n, order, first = time(NULL) % ORDERS;
	enum step steps[NR_STEPS];

	for (n = 0; db_round(n, ORDERS_MIN, ORDERS, end); n++) {
		order = (first + n) * ORDERS_APART % ORDERS;
		order_steps(order, steps);
		printf("# order %u:", order);
		for (i = 0; i < NR_STEPS; i++)
			printf(" %s", step_names[steps[i]]);
		putchar('\n');
		start(_metadata, self, modes[n % ARRAY_SIZE(modes)]);
		for (i = 0; i < NR_STEPS; i++)
			do_step(_metadata, self, steps[i]);
		check_account(_metadata, self);
		finish(_metadata, self);
	}
	TH_LOG("%u orders", n);
}

/* KVM's vendor module goes */

FIXTURE(kvm_unloaded) {
	struct modules modules;
};

FIXTURE_SETUP(kvm_unloaded)
{
	modules_open(&self->modules);
	if (!self->modules.kvm)
		SKIP(return, "KVM's vendor module is built in, or has no file");
	ASSERT_EQ(0, modules_load(&self->modules));
}

FIXTURE_TEARDOWN(kvm_unloaded)
{
	modules_load(&self->modules);
	modules_close(&self->modules);
}

/* How the consumer leaves: before the VM ends, before KVM goes, or after */
enum leave {
	CLOSES_FIRST,
	DETACHES_FIRST,
	CLOSES_SECOND,
	DETACHES_SECOND,
	CLOSES_LAST,
	DETACHES_LAST,
	EXITS_LAST,
	NR_LEAVES,
};

/* The VM ended, and the consumer has not left yet: one ring, and the end. */
static bool sees_the_end(int fd)
{
	struct doorbell_event event;

	return poll_for(fd, 0) & POLLHUP &&
	       info_of(fd).state == DOORBELL_HANGUP &&
	       db_read(fd, &event, 1) == 1 && db_event_is(&event, 1, 1, 7) &&
	       db_read(fd, &event, 1) == 0;
}

static void leave(int fd, enum leave how, enum leave closes,
		  enum leave detaches)
{
	if (how == closes)
		close(fd);
	if (how == detaches && db_detach(fd))
		_exit(4);
}

/* VMM and consumer in one process: the VM ends, and they live on. */
__attribute__((noreturn))
static void outlive_kvm(const struct modules *m, enum leave how, bool at_once)
{
	struct vmm *vmm = vmm_create(2);
	int fd = db_open(O_NONBLOCK);

	if (!vmm || fd < 0 || attach_region(fd, vmm->vm_fd, 0) ||
	    guest_write(vmm, 0, 4, MMIO_BASE + 8, 7))
		_exit(1);
	if (!at_once)
		usleep(100000);
	leave(fd, how, CLOSES_FIRST, DETACHES_FIRST);
	vmm_destroy(vmm);
	leave(fd, how, CLOSES_SECOND, DETACHES_SECOND);
	if (!kvm_unloads(m))
		_exit(2);
	if (how >= CLOSES_LAST && !sees_the_end(fd))
		_exit(3);
	leave(fd, how, CLOSES_LAST, DETACHES_LAST);
	_exit(0);
}

/* The consumer pins nothing of KVM, and needs nothing of it to leave. */
TEST_F_TIMEOUT(kvm_unloaded, outlive_kvm, TEST_SECONDS)
{
	int round;
	pid_t pid;

	for (round = 0; round < 6 * NR_LEAVES; round++) {
		pid = fork();
		ASSERT_LE(0, pid);
		if (!pid)
			outlive_kvm(&self->modules, round % NR_LEAVES,
				    round / NR_LEAVES % 2);
		ASSERT_EQ(0, db_wait_status(pid)) {
			TH_LOG("way to leave: %d", round % NR_LEAVES);
		}
		ASSERT_EQ(0, db_module_unload());
		ASSERT_EQ(0, modules_load(&self->modules));
	}
}

/* A VM made anew in one process */

FIXTURE(anew) {
	struct vmm *vmm;
	int fd;
	int log;
};

FIXTURE_SETUP(anew)
{
	self->fd = db_must_open(_metadata, O_NONBLOCK);
	self->log = open("/dev/kmsg", O_RDONLY | O_NONBLOCK | O_CLOEXEC);
	ASSERT_LE(0, self->log);
	ASSERT_LE(0, lseek(self->log, 0, SEEK_END));
}

FIXTURE_TEARDOWN(anew)
{
	close(self->fd);
	close(self->log);
	vmm_destroy(self->vmm);
}

/* Count the new messages of the kernel log that contain @text. */
static int log_count(int log, const char *text)
{
	char message[8192];
	int len, n = 0;

	for (;;) {
		len = read(log, message, sizeof(message) - 1);
		if (len < 0 && errno == EPIPE)	/* some were overwritten */
			continue;
		if (len <= 0)
			return n;
		message[len] = '\0';
		n += !!strstr(message, text);
	}
}

/*
 * The old VM ends with its last descriptor, so that the new one has all names
 * to itself. The old region is not the new VM's.
 */
TEST_F_TIMEOUT(anew, in_one_process, TEST_SECONDS)
{
	struct doorbell_event event;
	int round, vm_fd;

	for (round = 0; round < 12; round++) {
		self->vmm = vmm_create(1);
		ASSERT_NE(NULL, self->vmm);
		vm_fd = self->vmm->vm_fd;
		ASSERT_EQ(0, attach_region(self->fd, vm_fd, 0));
		if (round % 2)
			ASSERT_EQ(0, guest_write(self->vmm, 0, 4, MMIO_BASE,
						 round));
		if (round % 4 / 2)
			usleep(100000);
		vmm_destroy(self->vmm);
		self->vmm = vmm_create(1);
		ASSERT_NE(NULL, self->vmm);
		ASSERT_EQ(vm_fd, self->vmm->vm_fd);

		ASSERT_EQ(POLLHUP, POLLHUP & poll_now(self->fd));
		ASSERT_EQ(0, guest_write(self->vmm, 0, 4, MMIO_BASE, 99));
		ASSERT_EQ(1, vmm_exits(self->vmm));
		if (round % 2)
			check_event(_metadata, self->fd, 0, round);
		ASSERT_EQ(0, db_read(self->fd, &event, 1));
		ASSERT_EQ(0, db_detach(self->fd));

		ASSERT_EQ(0, attach_region(self->fd, vm_fd, 0));
		ASSERT_EQ(0, guest_write(self->vmm, 0, 4, MMIO_BASE + 8, 98));
		check_event(_metadata, self->fd, 1, 98);
		ASSERT_EQ(0, db_detach(self->fd));
		vmm_destroy(self->vmm);
		self->vmm = NULL;
	}
	/* KVM names what it shows of a VM after process and descriptor */
	ASSERT_EQ(0, log_count(self->log, "duplicate directory"));
}

/* Loading and unloading with a guest */

FIXTURE(load) {
	struct modules modules;
	struct vmm *vmm;
	int fd;
};

FIXTURE_SETUP(load)
{
	modules_open(&self->modules);
	if (self->modules.ko < 0)
		SKIP(return, "no module to load: %s",
		     strerror(-self->modules.ko));
	ASSERT_EQ(0, modules_load(&self->modules));
	self->vmm = vmm_create(2);
	ASSERT_NE(NULL, self->vmm);
}

FIXTURE_TEARDOWN(load)
{
	vmm_destroy(self->vmm);
	modules_load(&self->modules);
	modules_close(&self->modules);
}

/*
 * The module can be unloaded as soon as the last descriptor is closed, while
 * the guest rings the region.
 */
TEST_F_TIMEOUT(load, rounds, TEST_SECONDS)
{
	__u64 closed = db_now_ms(), end = db_until(ROUNDS_MS), exits;
	struct vmm *vmm = self->vmm;
	unsigned int round;
	int fd, other;

	ASSERT_EQ(0, start_ringing(vmm, 0));
	for (round = 0; db_round(round, ROUNDS_MIN, ROUNDS, end); round++) {
		ASSERT_EQ(0, unload_after(closed));
		exits = vmm_exits(vmm);
		ASSERT_TRUE(eventually(vmm_exits(vmm) > exits));
		ASSERT_EQ(0, db_module_load(self->modules.ko));
		fd = db_must_open(_metadata, O_NONBLOCK);
		other = db_must_open(_metadata, O_NONBLOCK);
		ASSERT_EQ(0, attach_region(fd, vmm->vm_fd, round % 2 ?
					   DOORBELL_ATTACH_NO_VALUE : 0));
		ASSERT_EQ(0, db_attach(other, vmm->vm_fd,
				       MMIO_BASE + REGION_LEN, 64));
		/* rung or not, detached or not */
		if (round % 3)
			ASSERT_EQ(POLLIN, POLLIN & poll_for(fd, POLLIN));
		if (round % 5 == 0)
			ASSERT_EQ(0, db_detach(fd));
		ASSERT_EQ(-EWOULDBLOCK, db_module_unload());
		closed = db_now_ms();
		close(other);
		close(fd);
	}
	ASSERT_EQ(0, stop_ringing(vmm));
	TH_LOG("%u rounds", round);
}

TEST_HARNESS_MAIN
