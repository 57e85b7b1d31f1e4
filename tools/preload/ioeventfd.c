// SPDX-License-Identifier: LGPL-2.1 OR MIT
/*
 * libdoorbell-ioeventfd.so: an LD_PRELOAD library that serves a VMM's
 * KVM_IOEVENTFD calls by regions of /dev/doorbell.
 *
 * In place of a device on KVM's bus for each ioeventfd, there is one for each
 * page of notify addresses (or for each address, if the value names the queue):
 * a region with DOORBELL_ATTACH_EXACT, whose queues are bound to the VMM's
 * eventfds. The guest's writes signal what KVM's ioeventfds would signal, and
 * all others reach the VMM. What no region can express, and what fails, goes to
 * KVM as it came.
 *
 * Lifetime: a region exists as long as it has a bound queue, and holds no
 * reference to its VM. The number of a descriptor does not name a VM, as
 * close() and dup() are not intercepted. So the library marks the VM's open
 * file: it sets the signal of its SIGIO, which KVM never sends, to a number,
 * the VM's mark. Nor does the number of a descriptor name an eventfd, so the
 * library keeps a duplicate, as KVM keeps a reference.
 */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <linux/kcmp.h>
#include <linux/kvm.h>

#include "libdoorbell.h"

#define PAGE		4096
/* Queues of a device whose value names the queue: as many as virtio has. */
#define VALUES		1024
#define MAX_QUEUES	(PAGE / DOORBELL_STRIDE_MIN)
/* The numbers of signals */
#define MAX_MARKS	64
/* With so many regions detached, a new one takes the place of the oldest. */
#define MAX_DETACHED	256
/* Pages where no guest writes */
#define NOWHERE		(1ULL << 63)

#define CCW		KVM_IOEVENTFD_FLAG_VIRTIO_CCW_NOTIFY
/* KVM ignores the last one. */
#define KNOWN_FLAGS	(KVM_IOEVENTFD_FLAG_DATAMATCH | \
			 KVM_IOEVENTFD_FLAG_PIO | \
			 KVM_IOEVENTFD_FLAG_DEASSIGN | CCW | \
			 1U << kvm_ioeventfd_flag_nr_fast_mmio)

/**
 * struct queue - a queue of a region
 * @fd: a duplicate of the eventfd that it is bound to, or -1
 * @used: it was bound at some time
 * @rings: rings before the region was attached last
 */
struct queue {
	int fd;
	bool used;
	__u64 rings;
};

/**
 * struct region - a region, or the statistics of one that was detached
 * @next: in @regions
 * @db: its consumer, or NULL
 * @mark: the mark of its VM
 * @arg: what it was attached with last, the same for all ioeventfds in it
 * @detached: if it has no consumer, the number of its detach
 * @bound: number of queues that are bound
 * @nr_queues: number of queues
 * @queue: its queues
 */
struct region {
	struct region *next;
	struct doorbell *db;
	int mark;
	struct doorbell_attach arg;
	unsigned long long detached;
	unsigned int bound;
	unsigned int nr_queues;
	struct queue queue[];
};

typedef int (*ioctl_fn)(int fd, unsigned long request, ...);

static int find_next(int fd, unsigned long request, ...);

/* libc's ioctl(), or that of the next preload */
static ioctl_fn next_ioctl = find_next;
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
/* The rest is protected by @lock. */
static struct region *regions;
static struct doorbell_queue_binding bindings[MAX_QUEUES];
static bool stats;
/* Rings of regions whose statistics are not kept */
static unsigned long long forgotten;
static unsigned long long detaches;
/* By mark, the descriptor of the last call with that VM */
static int vm_fds[MAX_MARKS + 1];
/* SIGUSR2 found @lock taken. Atomic */
static bool stats_wanted;

static int find_next(int fd, unsigned long request, ...)
{
	void *arg;
	va_list ap;

	va_start(ap, request);
	arg = va_arg(ap, void *);
	va_end(ap);
	next_ioctl = (ioctl_fn)dlsym(RTLD_NEXT, "ioctl");
	return next_ioctl(fd, request, arg);
}

/* Statistics: printed by a signal handler, so without malloc() and stdio. */

static void __attribute__((format(printf, 1, 2))) print(const char *format, ...)
{
	char line[128];
	va_list ap;
	int len;

	va_start(ap, format);
	len = vsnprintf(line, sizeof(line), format, ap);
	va_end(ap);
	/* write() is a cancellation point, and the thread has the lock */
	syscall(SYS_write, STDERR_FILENO, line, len);
}

/* Get the rings of each queue since the region was attached. */
static void get_rings(const struct region *r)
{
	if (!r->db || doorbell_get_bindings(r->db, 0, r->nr_queues, bindings))
		memset(bindings, 0, sizeof(bindings));
}

static void print_region(const struct region *r)
{
	bool by_value = r->arg.flags & DOORBELL_ATTACH_BY_VALUE;
	unsigned int i, used = 0;
	__u64 rings, total = 0;

	get_rings(r);
	for (i = 0; i < r->nr_queues; i++) {
		used += r->queue[i].used;
		total += r->queue[i].rings + bindings[i].rings;
	}
	if (!used)
		return;
	print("doorbell: vm %d, %s %#llx: %u queues, %llu rings%s\n",
	      r->arg.vm_fd, r->arg.flags & DOORBELL_ATTACH_PIO ? "port" :
	      "mmio", r->arg.base, used, total, r->db ? "" : ", detached");
	for (i = 0; i < r->nr_queues; i++) {
		if (!r->queue[i].used)
			continue;
		rings = r->queue[i].rings + bindings[i].rings;
		if (by_value)
			print("doorbell:   queue %u: %llu rings\n", i, rings);
		else
			print("doorbell:   address %#llx: %llu rings\n",
			      r->arg.base + i * r->arg.stride, rings);
	}
}

static void print_stats(void)
{
	const struct region *r;

	for (r = regions; r; r = r->next)
		print_region(r);
	if (forgotten)
		print("doorbell: %llu rings of earlier regions\n", forgotten);
}

static void unlock(void)
{
	pthread_mutex_unlock(&lock);
	while (__atomic_load_n(&stats_wanted, __ATOMIC_SEQ_CST) &&
	       !pthread_mutex_trylock(&lock)) {
		if (__atomic_exchange_n(&stats_wanted, false, __ATOMIC_SEQ_CST))
			print_stats();
		pthread_mutex_unlock(&lock);
	}
}

/* If another thread, or the one that was interrupted, is busy, it prints. */
static void handle_usr2(int sig)
{
	int saved = errno, cancel;

	(void)sig;
	/* some threads may be cancelled anywhere */
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel);
	__atomic_store_n(&stats_wanted, true, __ATOMIC_SEQ_CST);
	if (!pthread_mutex_trylock(&lock))
		unlock();
	pthread_setcancelstate(cancel, NULL);
	errno = saved;
}

/* Regions */

/* Return the marks of the regions that are attached, a bit for each mark. */
static __u64 used_marks(void)
{
	const struct region *r;
	__u64 used = 0;

	for (r = regions; r; r = r->next)
		if (r->db)
			used |= 1ULL << (r->mark - 1);
	return used;
}

/* Set the eventfd that a queue is bound to: @fd is the library's, or -1. */
static void set_eventfd(struct region *r, unsigned int queue, int fd)
{
	struct queue *q = &r->queue[queue];

	if (q->fd >= 0)
		close(q->fd);
	r->bound += (fd >= 0) - (q->fd >= 0);
	q->used |= fd >= 0;
	q->fd = fd;
}

/* Was a queue bound at some time? */
static bool is_listed(const struct region *r)
{
	unsigned int i;

	for (i = 0; i < r->nr_queues; i++)
		if (r->queue[i].used)
			return true;
	return false;
}

/*
 * A guest that moves a BAR all the time gets no more than MAX_DETACHED. A VMM
 * that detaches more at a reset, or at its end, keeps the counts of all.
 */
static void forget_oldest(void)
{
	struct region **link, **oldest = NULL, *r;
	unsigned int i, n = 0;

	for (link = &regions; *link; link = &(*link)->next) {
		r = *link;
		if (r->db)
			continue;
		n++;
		if (!oldest || r->detached < (*oldest)->detached)
			oldest = link;
	}
	if (n < MAX_DETACHED)
		return;
	r = *oldest;
	for (i = 0; i < r->nr_queues; i++)
		forgotten += r->queue[i].rings;
	*oldest = r->next;
	free(r);
}

/*
 * Take a region off its addresses, without a wait: it goes on to signal, as a
 * move does not lose rings. Each one moves elsewhere, or it would wait for the
 * one before. Return whether that worked; there are no such ports.
 */
static bool region_leave(struct region *r)
{
	__u64 base = NOWHERE + detaches % (1ULL << 32) * PAGE;

	return !(r->arg.flags & DOORBELL_ATTACH_PIO) &&
	       !doorbell_move_region(r->db, vm_fds[r->mark], base);
}

static void region_detach(struct region *r)
{
	struct region **link = &regions;
	unsigned int i;

	/*
	 * close() does not wait for vCPUs that signal, nor until the region has
	 * left its addresses. DETACH does, for some milliseconds.
	 */
	if (r->db && (r->bound || !region_leave(r)))
		doorbell_detach_region(r->db);
	/* after the last ring */
	if (stats)
		get_rings(r);
	for (i = 0; i < r->nr_queues; i++) {
		set_eventfd(r, i, -1);
		r->queue[i].rings += bindings[i].rings;
	}
	doorbell_close(r->db);
	r->db = NULL;
	r->detached = ++detaches;
	if (stats && is_listed(r))
		return;
	while (*link != r)
		link = &(*link)->next;
	*link = r->next;
	free(r);
}

static bool has_hung_up(const struct region *r)
{
	struct doorbell_info info;

	return !doorbell_get_info(r->db, &info) &&
	       info.state == DOORBELL_HANGUP;
}

/*
 * Detach the regions of VMs that have ended, but not those of the VM @mark. If
 * KVM had no memory and gave up a bus, its regions have hung up, too, but the
 * VM lives and has its mark.
 */
static void reap(int mark)
{
	struct region *r, *next;

	for (r = regions; r; r = next) {
		next = r->next;
		if (r->db && r->mark != mark &&
		    fcntl(vm_fds[r->mark], F_GETSIG) != r->mark &&
		    has_hung_up(r))
			region_detach(r);
	}
}

static bool same_place(const struct region *r, const struct doorbell_attach *a)
{
	return r->arg.base == a->base && r->arg.stride == a->stride &&
	       r->arg.flags == a->flags;
}

/* Find the statistics of an earlier region, or make a new one. */
static struct region *region_get(const struct doorbell_attach *arg)
{
	unsigned int i, n = arg->queues ?: arg->len / arg->stride;
	struct region *r;

	for (r = regions; r; r = r->next)
		if (!r->db && r->arg.vm_fd == arg->vm_fd && same_place(r, arg))
			return r;
	r = calloc(1, sizeof(*r) + n * sizeof(r->queue[0]));
	if (!r)
		return NULL;
	r->arg = *arg;
	r->nr_queues = n;
	for (i = 0; i < n; i++)
		r->queue[i].fd = -1;
	r->next = regions;
	regions = r;
	return r;
}

/* Bind a queue, or unbind it with -1. Return 0, or -1 with errno. */
static int region_bind(struct region *r, unsigned int queue, int fd)
{
	int own = fcntl(fd, F_DUPFD_CLOEXEC, 0), ret;

	if (own < 0 && fd >= 0)
		return -1;
	ret = doorbell_bind_queues(r->db, queue, 1, &own);
	if (!ret) {
		set_eventfd(r, queue, own);
		return 0;
	}
	if (own >= 0)
		close(own);
	errno = -ret;
	return -1;
}

/* Attach a region whose first queue is @queue. Return whether that worked. */
static bool region_attach(const struct doorbell_attach *arg, int mark,
			  unsigned int queue, int fd)
{
	struct region *r;
	bool is_new;

	reap(mark);
	r = region_get(arg);
	if (!r)
		return false;
	is_new = !is_listed(r);
	r->mark = mark;
	r->db = doorbell_open(DOORBELL_OPEN_READ);
	if (r->db && !doorbell_attach_region(r->db, arg) &&
	    !region_bind(r, queue, fd)) {
		if (is_new)
			forget_oldest();
		return true;
	}
	region_detach(r);
	return false;
}

/* What KVM is asked for */

/*
 * May KVM accept the call, for memory or ports? If not, it has the right error,
 * and virtio-ccw has a bus of its own.
 */
static bool is_valid(const struct kvm_ioeventfd *e)
{
	/* with both flags, KVM takes the bus of ports */
	if (e->flags & CCW && !(e->flags & KVM_IOEVENTFD_FLAG_PIO))
		return false;
	/* KVM only looks for unknown flags if it adds an ioeventfd */
	if (!(e->flags & KVM_IOEVENTFD_FLAG_DEASSIGN) &&
	    e->flags & ~KNOWN_FLAGS)
		return false;
	if (e->len > 8 || e->len & (e->len - 1) ||
	    (!e->len && e->flags & KVM_IOEVENTFD_FLAG_DATAMATCH))
		return false;
	/* -1 would unbind a queue */
	return e->addr + e->len >= e->addr && e->fd >= 0;
}

/*
 * Which region, and which queue of it, takes exactly the writes that the
 * ioeventfd would take? Return false if there is none.
 */
static bool express(const struct kvm_ioeventfd *e, int vm_fd,
		    struct doorbell_attach *arg, unsigned int *queue)
{
	bool match = e->flags & KVM_IOEVENTFD_FLAG_DATAMATCH;
	bool pio = e->flags & KVM_IOEVENTFD_FLAG_PIO;

	/* a queue has two bytes at least; a port no more than four */
	if (e->len == 1 || (pio && (!e->len || e->len == 8)))
		return false;
	*arg = (struct doorbell_attach) {
		.vm_fd = vm_fd,
		.stride = e->len ?: DOORBELL_STRIDE_MIN,
		.flags = DOORBELL_ATTACH_BOUND_ONLY | DOORBELL_ATTACH_EXACT,
	};
	if (e->addr % arg->stride)
		return false;
	if (!e->len)
		arg->flags |= DOORBELL_ATTACH_NO_VALUE;
	if (pio)
		arg->flags |= DOORBELL_ATTACH_PIO;
	if (match) {
		arg->flags |= DOORBELL_ATTACH_BY_VALUE;
		arg->queues = VALUES;
	}

	arg->len = pio || match ? e->len : PAGE;
	arg->base = e->addr / arg->len * arg->len;
	*queue = match ? e->datamatch : (e->addr - arg->base) / arg->stride;
	return !match || e->datamatch < VALUES;
}

/* Are a region and an ioeventfd on the same bus, and do they intersect? */
static bool intersects(const struct region *r, int mark,
		       const struct kvm_ioeventfd *e)
{
	bool pio = e->flags & KVM_IOEVENTFD_FLAG_PIO;
	__u64 last = e->addr + (e->len ?: 1) - 1;

	return r->db && r->mark == mark &&
	       pio == !!(r->arg.flags & DOORBELL_ATTACH_PIO) &&
	       last >= r->arg.base && e->addr <= r->arg.base + r->arg.len - 1;
}

/* KVM_IOEVENTFD's len of a region's ioeventfds */
static unsigned int kvm_len(const struct region *r)
{
	return r->arg.flags & DOORBELL_ATTACH_NO_VALUE ? 0 : r->arg.stride;
}

/* Would KVM refuse an ioeventfd with another one of the region's there? */
static bool collides(const struct region *r, const struct kvm_ioeventfd *e)
{
	__u64 offset = e->addr - r->arg.base, queue = offset / r->arg.stride;

	if (offset >= r->arg.len || offset % r->arg.stride ||
	    (kvm_len(r) && e->len && kvm_len(r) != e->len))
		return false;
	if (r->arg.flags & DOORBELL_ATTACH_BY_VALUE) {
		if (!(e->flags & KVM_IOEVENTFD_FLAG_DATAMATCH))
			return true;
		queue = e->datamatch;
	}
	return queue < r->nr_queues && r->queue[queue].fd >= 0;
}

static int kvm_deassign(int vm_fd, const struct kvm_ioeventfd *e)
{
	struct kvm_ioeventfd arg = *e;

	arg.flags |= KVM_IOEVENTFD_FLAG_DEASSIGN;
	return next_ioctl(vm_fd, KVM_IOEVENTFD, &arg);
}

/* The call that gives a queue's ioeventfd to KVM */
static struct kvm_ioeventfd kvm_arg(const struct region *r, unsigned int queue)
{
	struct kvm_ioeventfd e = {
		.addr = r->arg.base + queue * r->arg.stride,
		.len = kvm_len(r),
		.fd = r->queue[queue].fd,
	};

	if (r->arg.flags & DOORBELL_ATTACH_PIO)
		e.flags |= KVM_IOEVENTFD_FLAG_PIO;
	if (r->arg.flags & DOORBELL_ATTACH_BY_VALUE) {
		e.flags |= KVM_IOEVENTFD_FLAG_DATAMATCH;
		e.datamatch = queue;
		e.addr = r->arg.base;
	}
	return e;
}

/*
 * Give the ioeventfds of a region to KVM, all or none. No ring reaches the VMM
 * meanwhile. The region precedes what is added, and KVM's search for an address
 * that still belongs to the region only compares with ioeventfds above it: so
 * begin with the highest address. A region that detaches is on the bus for a
 * while and declines, and may hide an ioeventfd from KVM's search. A move takes
 * it off the bus while it still signals. For ports, where there is no place to
 * move to, nothing is hidden; but newer KVMs add an ioeventfd without a wait
 * for vCPUs that search the old bus, and only wait when they remove one.
 */
static int region_evict(struct region *r, int vm_fd)
{
	struct kvm_ioeventfd e, other = {
		.addr = 1 << 16, .len = 2, .flags = KVM_IOEVENTFD_FLAG_PIO,
	};
	int i, saved;

	for (i = r->nr_queues - 1; i >= 0; i--) {
		e = kvm_arg(r, i);
		if (e.fd < 0)
			continue;
		if (next_ioctl(vm_fd, KVM_IOEVENTFD, &e))
			goto err;
		other.fd = e.fd;
	}
	if (!region_leave(r) && !next_ioctl(vm_fd, KVM_IOEVENTFD, &other))
		kvm_deassign(vm_fd, &other);
	region_detach(r);
	return 0;

err:
	saved = errno;
	while (++i < (int)r->nr_queues) {
		e = kvm_arg(r, i);
		if (e.fd >= 0)
			kvm_deassign(vm_fd, &e);
	}
	errno = saved;
	return -1;
}

/* Do two descriptors have the same file? Yes if kcmp() is not allowed. */
static bool same_file(int a, int b)
{
	pid_t tid = syscall(SYS_gettid);

	return syscall(SYS_kcmp, tid, tid, KCMP_FILE, a, b) <= 0;
}

/* VMs */

/* Return the next mark that is not in @used, or 0. */
static int next_mark(__u64 used)
{
	static int mark;
	int i;

	for (i = 0; i < MAX_MARKS; i++) {
		mark = mark % MAX_MARKS + 1;
		if (!(used & 1ULL << (mark - 1)))
			return mark;
	}
	return 0;
}

/*
 * Return the mark of a VM, or 0 if its ioeventfds have to go to KVM: it belongs
 * to another process, or there are too many.
 */
static int vm_mark(int vm_fd)
{
	__u64 used;
	int mark;

	/* EIO in another process, which may have a VM with the same mark */
	if (next_ioctl(vm_fd, KVM_CHECK_EXTENSION, KVM_CAP_IOEVENTFD) <= 0)
		return 0;
	mark = fcntl(vm_fd, F_GETSIG);
	if (mark < 0 || mark > MAX_MARKS)
		return 0;
	if (!mark) {
		used = used_marks();
		reap(0);
		/* those that were taken back come last: the VMs may live */
		mark = next_mark(used) ?: next_mark(used_marks());
		if (!mark || fcntl(vm_fd, F_SETSIG, mark))
			return 0;
	} else if (!(used_marks() & 1ULL << (mark - 1)) ||
		   /* reap() took this VM's mark, and gave it to another one */
		   (vm_fd != vm_fds[mark] &&
		    fcntl(vm_fds[mark], F_GETSIG) == mark &&
		    !same_file(vm_fds[mark], vm_fd))) {
		return 0;
	}
	vm_fds[mark] = vm_fd;
	return mark;
}

/* Take the mark back from a VM that has no region any more. */
static void vm_release(int vm_fd, int mark)
{
	if (mark && !(used_marks() & 1ULL << (mark - 1)))
		fcntl(vm_fd, F_SETSIG, 0);
}

static struct region *region_find(int mark, const struct doorbell_attach *arg)
{
	struct region *r;

	for (r = regions; r; r = r->next)
		if (r->db && r->mark == mark && same_place(r, arg))
			return r;
	return NULL;
}

static int assign(int vm_fd, int mark, struct kvm_ioeventfd *e)
{
	bool ok, occupied = false, exists = false;
	struct region *r = NULL, *next;
	struct doorbell_attach arg;
	unsigned int queue;

	ok = express(e, vm_fd, &arg, &queue);
	if (ok)
		r = region_find(mark, &arg);
	if (r && r->queue[queue].fd < 0 && !region_bind(r, queue, e->fd))
		return 0;

	for (r = regions; r; r = r->next)
		if (intersects(r, mark, e)) {
			occupied = true;
			exists |= collides(r, e);
		}
	if (!occupied) {
		if (ok && region_attach(&arg, mark, queue, e->fd))
			return 0;
		return next_ioctl(vm_fd, KVM_IOEVENTFD, e);
	}
	/* KVM checks the descriptors before it finds that it has none there */
	if (!kvm_deassign(vm_fd, e) || errno != ENOENT)
		return -1;
	if (exists) {
		errno = EEXIST;
		return -1;
	}
	/* KVM's search misses parts of a region that has a device inside */
	for (r = regions; r; r = next) {
		next = r->next;
		if (intersects(r, mark, e) && region_evict(r, vm_fd))
			return -1;
	}
	return next_ioctl(vm_fd, KVM_IOEVENTFD, e);
}

static int deassign(int vm_fd, int mark, struct kvm_ioeventfd *e)
{
	struct doorbell_attach arg;
	struct region *r = NULL;
	unsigned int queue;
	bool gone;
	int ret;

	if (express(e, vm_fd, &arg, &queue))
		r = region_find(mark, &arg);
	/* KVM also checks the descriptors of what it does not have */
	ret = next_ioctl(vm_fd, KVM_IOEVENTFD, e);
	if (!ret || errno != ENOENT || !r || r->queue[queue].fd < 0)
		return ret;
	if (!same_file(r->queue[queue].fd, e->fd)) {
		errno = ENOENT;
		return -1;
	}
	if (!region_bind(r, queue, -1)) {
		if (!r->bound)
			region_detach(r);
		return 0;
	}
	if (r->bound > 1 && errno != EPIPE)
		return -1;
	/* KVM forgets all ioeventfds of a bus that it gives up. */
	gone = has_hung_up(r);
	region_detach(r);
	if (!gone)
		return 0;
	errno = ENOENT;
	return -1;
}

/* Not inlined: other calls of ioctl() must not pay for it. */
static int __attribute__((noinline)) ioeventfd(int vm_fd,
					       struct kvm_ioeventfd *e)
{
	int ret, mark, saved = errno, cancel;

	if (!e || !is_valid(e))
		return next_ioctl(vm_fd, KVM_IOEVENTFD, e);
	/* ioctl() is no cancellation point, but others below are */
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel);
	pthread_mutex_lock(&lock);
	mark = vm_mark(vm_fd);
	if (!mark)
		ret = next_ioctl(vm_fd, KVM_IOEVENTFD, e);
	else if (e->flags & KVM_IOEVENTFD_FLAG_DEASSIGN)
		ret = deassign(vm_fd, mark, e);
	else
		ret = assign(vm_fd, mark, e);
	/* what succeeds leaves it alone */
	if (ret)
		saved = errno;
	vm_release(vm_fd, mark);
	unlock();
	pthread_setcancelstate(cancel, NULL);
	errno = saved;
	return ret;
}

/* Without "...", which costs other calls a dozen instructions */
int own_ioctl(int fd, unsigned long request, void *arg) __asm__("ioctl");

int own_ioctl(int fd, unsigned long request, void *arg)
{
	/* the kernel takes 32 bits, and musl passes no more */
	if (__builtin_expect((__u32)request == KVM_IOEVENTFD, 0))
		return ioeventfd(fd, arg);
	return next_ioctl(fd, request, arg);
}

/* The process */

static void before_fork(void)
{
	pthread_mutex_lock(&lock);
}

static void after_fork(void)
{
	unlock();
}

/* The VM, and its regions, are the parent's. */
static void in_child(void)
{
	struct region *r, *next;
	unsigned int i;
	int cancel;

	/* close() is a cancellation point */
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel);
	for (r = regions; r; r = next) {
		next = r->next;
		for (i = 0; i < r->nr_queues; i++)
			set_eventfd(r, i, -1);
		if (r->db)
			close(doorbell_fd(r->db));
		free(r);
	}
	regions = NULL;
	forgotten = 0;
	unlock();
	pthread_setcancelstate(cancel, NULL);
}

static void __attribute__((constructor)) begin(void)
{
	const char *text = getenv("DOORBELL_STATS");
	struct sigaction action = { .sa_handler = handle_usr2 }, old;

	pthread_atfork(before_fork, after_fork, in_child);
	stats = text && *text && strcmp(text, "0");
	/* leave it to a VMM that uses it, or ignores it */
	action.sa_flags = SA_RESTART;
	if (stats && !sigaction(SIGUSR2, NULL, &old) &&
	    !(old.sa_flags & SA_SIGINFO) && old.sa_handler == SIG_DFL)
		sigaction(SIGUSR2, &action, NULL);
}

static void __attribute__((destructor)) end(void)
{
	if (!stats)
		return;
	/* another thread may wait in a call, and exit() must not */
	__atomic_store_n(&stats_wanted, true, __ATOMIC_SEQ_CST);
	if (!pthread_mutex_trylock(&lock))
		unlock();
}
