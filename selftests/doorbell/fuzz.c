// SPDX-License-Identifier: GPL-2.0
/*
 * Fuzz: random sequences of operations against a model of the documents
 * (fuzz_model.c), and a hostile consumer that writes garbage into the control
 * area from several CPUs.
 *
 * One thread decides, so a seed repeats a run: DOORBELL_FUZZ_SEED. A sequence
 * that fails is shrunk and printed. DOORBELL_FUZZ_OPS is the number of
 * operations.
 */
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>
#include <sys/prctl.h>
#include <sys/random.h>
#include <sys/uio.h>

#include "fuzz_model.h"
#include "libdoorbell.h"
#include "util.h"
#include "vmutil.h"

/* The number of operations limits the time, and hang_main() what hangs. */
#define FUZZ_SECONDS	(7 * 24 * 3600)
#define HANG_SECONDS	120

#define SEQUENCE	400
#define OPS		40000
#define OPS_DEBUG	10000
#define SHRINK_RUNS	3000

#define CLOSED_FD	1000
#define BUFFER		(4 * FUZZ_PAGE)

/* What there is outside of the model */

struct mapping {
	struct doorbell_info info;
	struct doorbell_control *control;
	struct doorbell_status *status;
	__u32 noted[FUZZ_EVENTS];
	unsigned int nr_noted;
};

struct other {
	pid_t pid;
	int sock;
};

struct world {
	int fd[FUZZ_FDS];
	int vm_fd[FUZZ_VMS];
	struct vmm *vmm[FUZZ_VMS];
	struct other other;
	pid_t kid[FUZZ_KIDS];
	struct mapping map[FUZZ_MAPS];
	int eventfd[FUZZ_EVENTFDS];
	struct doorbell *lib;
	char *edge;		/* from there on no byte can be accessed */
	char *array;		/* the same, for arrays and buffers */
};

static int exit_cb(void *ctx, unsigned int vcpu, struct vmm_exit *exit)
{
	struct fuzz_result *got = ctx;

	if (got->nr_exits < FUZZ_EXITS)
		got->exit[got->nr_exits] = (struct fuzz_exit) {
			.addr = exit->addr, .width = exit->len,
			.data = exit->is_write ? exit->data : 0,
			.pio = exit->is_pio, .is_read = !exit->is_write,
		};
	got->nr_exits++;
	return 0;
}

/* What the process of a VM does with it */
static int vm_does(struct vmm **vmm, const struct fuzz_op *op,
		   struct fuzz_result *got)
{
	int efd, ret;

	if (op->kind == FUZZ_VM_END) {
		vmm_destroy(*vmm);
		*vmm = NULL;
		return 0;
	}
	if (op->kind == FUZZ_GUEST) {
		(*vmm)->exit_cb = exit_cb;
		(*vmm)->exit_ctx = got;
		return vmm_op(*vmm, 0, 2 * op->pio + op->is_read, op->width,
			      op->addr, op->value);
	}
	*vmm = vmm_create(1);
	efd = eventfd(0, EFD_CLOEXEC);
	if (!*vmm || efd < 0)
		return -errno;
	ret = vmm_ioeventfd(*vmm, FUZZ_MMIO + FUZZ_DEVICE, 0, efd, 0) ?:
	      vmm_ioeventfd(*vmm, FUZZ_PIO + FUZZ_DEVICE, 0, efd,
			    KVM_IOEVENTFD_FLAG_PIO);
	close(efd);
	return ret;
}

/* The VMM of the last VM: another process, which has nothing else open */
__attribute__((noreturn))
static void other_main(int sock)
{
	struct fuzz_result got;
	struct vmm *vmm = NULL;
	struct fuzz_op op;

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	while (read(sock, &op, sizeof(op)) == sizeof(op)) {
		memset(&got, 0, sizeof(got));
		got.ret = vm_does(&vmm, &op, &got);
		if (write(sock, &got, sizeof(got)) != sizeof(got))
			break;
		if (op.kind == FUZZ_VM_NEW && !got.ret)
			db_send_fd(sock, vmm->vm_fd);
	}
	_exit(0);
}

static void world_begin(struct world *w)
{
	int socks[2], i;

	*w = (struct world) { .edge = w->edge, .array = w->array };
	memset(w->fd, 0xff, sizeof(w->fd));
	memset(w->vm_fd, 0xff, sizeof(w->vm_fd));
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, socks))
		abort();
	w->other.pid = fork();
	if (!w->other.pid) {
		close(socks[0]);
		other_main(socks[1]);
	}
	close(socks[1]);
	w->other.sock = socks[0];
	for (i = 0; i < FUZZ_EVENTFDS; i++)
		w->eventfd[i] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
}

static void unmap_pair(struct mapping *map)
{
	if (!map->control)
		return;
	munmap(map->control, map->info.control_size);
	munmap(map->status, map->info.readonly_size);
	memset(map, 0, sizeof(*map));
}

static long end_process(pid_t *pid, int sig)
{
	pid_t old = *pid;

	*pid = 0;
	if (!old)
		return 0;
	kill(old, sig);
	return waitpid(old, NULL, 0) == old ? 0 : -errno;
}

static void close_fd(int *fd)
{
	if (*fd >= 0)
		close(*fd);
	*fd = -1;
}

static void world_end(struct world *w)
{
	int i;

	for (i = 0; i < FUZZ_KIDS; i++)
		end_process(&w->kid[i], SIGKILL);
	doorbell_close(w->lib);
	for (i = 0; i < FUZZ_MAPS; i++)
		unmap_pair(&w->map[i]);
	for (i = 0; i < FUZZ_FDS; i++)
		close_fd(&w->fd[i]);
	for (i = 0; i < FUZZ_EVENTFDS; i++)
		close_fd(&w->eventfd[i]);
	end_process(&w->other.pid, SIGKILL);
	close(w->other.sock);
	close_fd(&w->vm_fd[FUZZ_VMS - 1]);
	for (i = 0; i < FUZZ_VMS; i++)
		vmm_destroy(w->vmm[i]);
}

/* Operations in the world */

static long sys_result(long ret)
{
	return ret < 0 ? -errno : ret;
}

/* @room bytes at the edge, with a copy of a structure as far as it fits */
static void *at_edge(const struct world *w, const struct fuzz_op *op,
		     const void *arg, size_t size)
{
	char *at = w->edge - op->room;

	memset(at, 0, op->room);
	memcpy(at, arg, size < op->room ? size : op->room);
	if (op->room >= sizeof(op->size))
		memcpy(at, &op->size, sizeof(op->size));
	if (op->tail && op->size > size && op->size <= op->room)
		at[op->size - 1] = 1;
	return at;
}

static int fd_of(const struct world *w, const struct fuzz_op *op,
		 const int *fds, int n)
{
	if (n == FUZZ_NONE || n == FUZZ_NEGATIVE)
		return n;
	if (n == FUZZ_OTHER)
		return w->fd[op->fd];
	return n < 0 || fds[n] < 0 ? CLOSED_FD : fds[n];
}

/* A child holds all descriptors, and has none of the mappings. */
static long fork_kid(struct world *w, pid_t *kid)
{
	unsigned char vec[1];
	int pipe_fd[2], i;
	char ok = 1;

	if (pipe(pipe_fd))
		return -errno;
	*kid = fork();
	if (!*kid) {
		prctl(PR_SET_PDEATHSIG, SIGKILL);
		for (i = 0; i < FUZZ_MAPS; i++)
			if (w->map[i].control &&
			    !mincore(w->map[i].control, FUZZ_PAGE, vec))
				ok = 0;
		if (write(pipe_fd[1], &ok, 1) != 1)
			_exit(1);
		for (;;)
			pause();
	}
	close(pipe_fd[1]);
	if (read(pipe_fd[0], &ok, 1) != 1)
		ok = 0;
	close(pipe_fd[0]);
	return ok ? 0 : -EPROTO;
}

static long attach(const struct world *w, const struct fuzz_op *op,
		   struct fuzz_result *got)
{
	struct doorbell_attach arg = op->attach;
	struct doorbell_info info;
	int fd = w->fd[op->fd];
	long ret;

	arg.vm_fd = fd_of(w, op, w->vm_fd, op->attach.vm_fd);
	ret = sys_result(ioctl(fd, DOORBELL_ATTACH,
			       at_edge(w, op, &arg, sizeof(arg))));
	if (ret)
		return ret;
	db_info(fd, &info);
	fuzz_copy_sizes(&got->info, &info);
	return 0;
}

static long move(const struct world *w, const struct fuzz_op *op)
{
	struct doorbell_move arg = {
		.vm_fd = fd_of(w, op, w->vm_fd, op->to), .base = op->base,
	};

	return sys_result(ioctl(w->fd[op->fd], DOORBELL_MOVE,
				at_edge(w, op, &arg, sizeof(arg))));
}

/* The array is at an edge of its own. */
static long do_bind(const struct world *w, const struct fuzz_op *op,
		    struct fuzz_result *got)
{
	bool binds = op->kind == FUZZ_BIND;
	size_t size = op->arg * (binds ? sizeof(int) : sizeof(*got->binding));
	void *array = w->array - size;
	struct doorbell_bind arg = {
		.first = op->first, .count = op->count, .flags = op->flags,
		.fds = (uintptr_t)array,
	};
	int *fds = array;
	unsigned int i;
	long ret;

	for (i = 0; binds && i < op->arg; i++)
		fds[i] = fd_of(w, op, w->eventfd, op->eventfd[i]);
	ret = sys_result(ioctl(w->fd[op->fd],
			       binds ? DOORBELL_BIND : DOORBELL_BINDINGS,
			       at_edge(w, op, &arg, sizeof(arg))));
	if (!binds && !ret)
		memcpy(got->binding, array,
		       op->count * sizeof(*got->binding));
	return ret;
}

static long info(const struct world *w, const struct fuzz_op *op,
		 struct fuzz_result *got)
{
	__u32 known = sizeof(got->info), i;
	char *at = w->edge - op->room;
	long ret;

	memset(at, 0xff, op->room);
	if (op->room >= sizeof(op->size))
		memcpy(at, &op->size, sizeof(op->size));
	ret = sys_result(ioctl(w->fd[op->fd], DOORBELL_INFO, at));
	if (ret)
		return ret;
	memcpy(&got->info, at, op->size < known ? op->size : known);
	for (i = op->size < known ? op->size : known; i < op->room; i++)
		got->counter |= at[i] != (i < op->size ? 0 : (char)0xff);
	return 0;
}

static long write_rings(const struct world *w, const struct fuzz_op *op)
{
	struct iovec iov = {
		.iov_base = w->array - op->room, .iov_len = op->size,
	};

	memset(iov.iov_base, 0, op->room);
	memcpy(iov.iov_base, op->ring,
	       op->room < sizeof(op->ring) ? op->room : sizeof(op->ring));
	if (op->flags)
		return sys_result(pwritev2(w->fd[op->fd], &iov, 1, -1,
					   RWF_NOWAIT));
	return sys_result(write(w->fd[op->fd], iov.iov_base, iov.iov_len));
}

static long read_events(const struct world *w, const struct fuzz_op *op,
			struct fuzz_result *got)
{
	struct iovec iov = {
		.iov_base = w->array - op->room, .iov_len = op->size,
	};
	long ret;

	if (op->flags)
		ret = sys_result(preadv2(w->fd[op->fd], &iov, 1, -1,
					 RWF_NOWAIT));
	else
		ret = sys_result(read(w->fd[op->fd], iov.iov_base, op->size));
	if (ret > 0 && ret <= (long)sizeof(got->event))
		memcpy(got->event, iov.iov_base, ret);
	return ret;
}

static long seek(int fd, unsigned int how)
{
	char byte[sizeof(struct doorbell_event)] = { 0 };

	if (how % 3 == 0)
		return sys_result(lseek(fd, 0, SEEK_SET));
	if (how % 3 == 1)
		return sys_result(pread(fd, byte, sizeof(byte), 0));
	return sys_result(pwrite(fd, byte, sizeof(byte), 0));
}

static long vm_op(struct world *w, const struct fuzz_op *op,
		  struct fuzz_result *got)
{
	int vm = op->to;
	long ret;

	if (vm < FUZZ_VMS - 1) {
		ret = vm_does(&w->vmm[vm], op, got);
		w->vm_fd[vm] = w->vmm[vm] ? w->vmm[vm]->vm_fd : -1;
		return ret;
	}
	if (write(w->other.sock, op, sizeof(*op)) != sizeof(*op) ||
	    read(w->other.sock, got, sizeof(*got)) != sizeof(*got))
		return -EPROTO;
	if (op->kind == FUZZ_VM_NEW && !got->ret)
		w->vm_fd[vm] = db_receive_fd(w->other.sock);
	return got->ret;
}

/* Mapped memory */

static long map_pair(const struct world *w, const struct fuzz_op *op,
		     struct mapping *map)
{
	int fd = w->fd[op->fd];
	void *control, *status;

	if (db_info(fd, &map->info))
		return -errno;
	control = mmap(NULL, map->info.control_size ?: FUZZ_PAGE,
		       PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (control == MAP_FAILED)
		return -errno;
	status = mmap(NULL, map->info.readonly_size, PROT_READ, MAP_SHARED, fd,
		      map->info.control_size);
	if (status == MAP_FAILED)
		return -errno;
	map->control = control;
	map->status = status;
	return 0;
}

static long map_some(const struct world *w, const struct fuzz_op *op,
		     struct fuzz_result *got)
{
	struct doorbell_info info;
	volatile char *mem;
	int fd = w->fd[op->fd];

	if (db_info(fd, &info))
		return -EPROTO;
	mem = mmap(NULL, op->size, op->prot, op->private ? MAP_PRIVATE :
		   MAP_SHARED, fd,
		   fuzz_mmap_start(op, info.control_size,
				   info.control_size + info.readonly_size));
	if (mem == MAP_FAILED)
		return -errno;
	if (op->prot & PROT_READ)
		(void)*mem;
	if (mprotect((void *)mem, op->size, PROT_READ | PROT_WRITE))
		got->counter = errno;
	return munmap((void *)mem, op->size);
}

static __u64 load(const void *p)
{
	return __atomic_load_n((const __u64 *)p, __ATOMIC_ACQUIRE);
}

static void store(void *p, __u64 value)
{
	__atomic_store_n((__u64 *)p, value, __ATOMIC_RELEASE);
}

static const struct doorbell_slot *slots_of(const struct mapping *map)
{
	return (void *)(map->status + 1);
}

static bool is_ordered(const struct mapping *map)
{
	return map->info.flags & DOORBELL_ATTACH_ORDERED;
}

/* Is there an entry at @pos? Its event, or its slot as queue */
static bool entry_at(const struct mapping *map, __u64 pos,
		     struct doorbell_event *event)
{
	const void *entries = (char *)map->status + map->info.entries_offset;
	__u64 index = pos % map->info.nr_entries;
	__u64 lap = pos / map->info.nr_entries;
	const struct doorbell_entry *entry = entries;
	const __u32 *fifo = entries;
	__u64 word;
	__u32 slot;

	memset(event, 0, sizeof(*event));
	if (!is_ordered(map)) {
		slot = __atomic_load_n(&fifo[index], __ATOMIC_ACQUIRE);
		event->queue = slot;
		return slot >> DOORBELL_FIFO_LAP_SHIFT == (__u16)lap;
	}
	word = load(&entry[index].word);
	*event = (struct doorbell_event) {
		.queue = word,
		.type = word >> DOORBELL_ENTRY_KIND_SHIFT,
		.width = word >> (DOORBELL_ENTRY_KIND_SHIFT +
				  DOORBELL_KIND_WIDTH_SHIFT),
		.count = 1,
		.value = load(&entry[index].value),
	};
	return word >> DOORBELL_ENTRY_LAP_SHIFT == (__u32)lap;
}

static long arm(const struct mapping *map)
{
	struct doorbell_event event;

	__atomic_store_n(&map->control->armed, 1, __ATOMIC_RELAXED);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	return entry_at(map, load(&map->control->head), &event);
}

/* Steps 0 and 1 of the protocol */
static long peek(struct mapping *map, const struct fuzz_op *op,
		 struct fuzz_result *got)
{
	__u64 head = load(&map->control->head);
	unsigned int n = 0, max = model_most(&map->info, op->arg);

	store(&map->control->handled, head);
	for (; n < max && entry_at(map, head + n, &got->event[n]); n++)
		map->noted[n] = got->event[n].queue;
	memset(&got->event[n], 0, sizeof(got->event[n]));
	map->nr_noted = n;
	got->head = head - map->info.nr_entries;
	return n;
}

/* Steps 2 and 3 */
static long consume(struct mapping *map)
{
	store(&map->control->head, load(&map->control->head) + map->nr_noted);
	__atomic_thread_fence(__ATOMIC_SEQ_CST);
	return 0;
}

/* Step 4 */
static long count(struct mapping *map, struct fuzz_result *got)
{
	struct doorbell_event *event = got->event;
	const struct doorbell_slot *slot;
	__u64 rings, *seen;
	unsigned int i;

	for (i = 0; i < map->nr_noted; i++, event++) {
		slot = &slots_of(map)[map->noted[i]];
		seen = (__u64 *)&map->control->seen[map->noted[i]];
		rings = load(&slot->rings);
		*event = (struct doorbell_event) {
			.queue = map->noted[i] < map->info.queues ?
				 map->noted[i] : DOORBELL_QUEUE_NONE,
			.type = rings,
			.width = (__u16)rings >> DOORBELL_KIND_WIDTH_SHIFT,
			.count = (rings - *seen) >> DOORBELL_RINGS_SHIFT,
			.value = load(&slot->value),
		};
		*seen += (__u64)event->count << DOORBELL_RINGS_SHIFT;
	}
	return map->nr_noted;
}

static long lib_open(struct world *w, const struct fuzz_op *op)
{
	int fd = fcntl(w->fd[op->fd], F_DUPFD_CLOEXEC, 0);

	w->lib = doorbell_from_fd(fd, op->flags);
	return w->lib ? 0 : -errno;
}

/* Do an operation and note the result. */
static void do_op(struct world *w, const struct fuzz_op *op,
		  struct fuzz_result *got)
{
	struct mapping *map = &w->map[op->to];
	int *fd = &w->fd[op->fd];
	size_t n;

	memset(got, 0, sizeof(*got));
	switch (op->kind) {
	case FUZZ_OPEN:
		*fd = open(DB_PATH, O_CLOEXEC | op->flags);
		got->ret = *fd < 0 ? -errno : 0;
		break;
	case FUZZ_DUP:
		w->fd[op->to] = fcntl(*fd, F_DUPFD_CLOEXEC, 0);
		break;
	case FUZZ_CLOSE:
		close_fd(fd);
		break;
	case FUZZ_FORK:
		got->ret = fork_kid(w, &w->kid[op->to]);
		break;
	case FUZZ_KID_EXIT:
		got->ret = end_process(&w->kid[op->to], SIGTERM);
		break;
	case FUZZ_ATTACH:
		got->ret = attach(w, op, got);
		break;
	case FUZZ_DETACH:
		got->ret = sys_result(ioctl(*fd, DOORBELL_DETACH, op->arg));
		break;
	case FUZZ_MOVE:
		got->ret = move(w, op);
		break;
	case FUZZ_BIND:
	case FUZZ_BINDINGS:
		got->ret = do_bind(w, op, got);
		break;
	case FUZZ_INFO:
		got->ret = info(w, op, got);
		break;
	case FUZZ_RECOVER:
		got->ret = sys_result(ioctl(*fd, DOORBELL_RECOVER, op->arg));
		break;
	case FUZZ_IOCTL:
		got->ret = sys_result(ioctl(*fd, op->arg, w->edge - 64));
		break;
	case FUZZ_WRITE:
		got->ret = write_rings(w, op);
		break;
	case FUZZ_READ:
		got->ret = read_events(w, op, got);
		break;
	case FUZZ_POLL:
		got->ret = db_poll(*fd, POLLIN | POLLRDNORM | POLLOUT |
				   POLLWRNORM | POLLPRI | POLLRDHUP, 0);
		break;
	case FUZZ_SEEK:
		got->ret = seek(*fd, op->arg);
		break;
	case FUZZ_EVENTFD_READ:
		got->ret = sys_result(read(w->eventfd[op->to], &got->counter,
					   sizeof(got->counter)));
		break;
	case FUZZ_EVENTFD_NEW:
		close_fd(&w->eventfd[op->to]);
		w->eventfd[op->to] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
		break;
	case FUZZ_VM_NEW:
	case FUZZ_VM_END:
	case FUZZ_GUEST:
		got->ret = vm_op(w, op, got);
		break;
	case FUZZ_VM_CLOSE:
		close_fd(&w->vm_fd[op->to]);
		break;
	case FUZZ_VMM_KILL:
		got->ret = end_process(&w->other.pid, SIGKILL);
		break;
	case FUZZ_MAP:
		got->ret = map_pair(w, op, map);
		break;
	case FUZZ_UNMAP:
		unmap_pair(map);
		break;
	case FUZZ_MMAP:
		got->ret = map_some(w, op, got);
		break;
	case FUZZ_STATUS:
		memcpy(&got->status, map->status, sizeof(got->status));
		break;
	case FUZZ_ARM:
		got->ret = arm(map);
		break;
	case FUZZ_PEEK:
		got->ret = peek(map, op, got);
		break;
	case FUZZ_CONSUME:
		got->ret = consume(map);
		break;
	case FUZZ_COUNT:
		got->ret = count(map, got);
		break;
	case FUZZ_LIB_OPEN:
		got->ret = lib_open(w, op);
		break;
	case FUZZ_LIB_TAKE:
		got->ret = doorbell_take(w->lib, got->event, op->arg);
		/* the rest of the array is the library's to write to */
		n = got->ret > 0 ? got->ret : 0;
		memset(got->event + n, 0, sizeof(got->event) -
					  n * sizeof(got->event[0]));
		break;
	case FUZZ_LIB_CLOSE:
		doorbell_close(w->lib);
		w->lib = NULL;
		break;
	default:
		abort();
	}
}

/* What makes no sense, or would wait */

/* Does a consumer of the region's mapped memory have entries noted? */
static bool is_noted(const struct model *m, const struct model_region *r)
{
	int i;

	for (i = 0; i < FUZZ_MAPS; i++)
		if (r && m->map[i].region == r && m->map[i].noted)
			return true;
	return false;
}

/* On a fast bus KVM knows neither direction nor width. */
static bool guest_skips(const struct model *m, const struct fuzz_op *op)
{
	__u64 device = (op->pio ? FUZZ_PIO : FUZZ_MMIO) + FUZZ_DEVICE;
	struct model_region *r = model_region_at(m, op, op->addr, op->width,
						 true);

	return !m->runs[op->to] || (op->pio && !vmm_has_ports) ||
	       (op->addr <= device && device < op->addr + op->width) ||
	       (r && IS(r, NO_VALUE) && (op->is_read || op->width >
		FUZZ_PAGE - op->addr % FUZZ_PAGE ||
		r != model_region_at(m, op, op->addr, op->width, false)));
}

static bool skips(const struct model *m, const struct fuzz_op *op)
{
	struct model_file *f = m->fd[op->fd];
	struct model_region *r = f ? f->region : NULL;
	const struct model_map *map = &m->map[op->to];
	bool waits = f && !(f->flags & O_NONBLOCK) && !op->flags;

	switch (op->kind) {
	case FUZZ_OPEN:
		return f;
	case FUZZ_DUP:
		return !f || m->fd[op->to];
	case FUZZ_FORK:
		return m->kid[op->to].lives;
	case FUZZ_KID_EXIT:
		return !m->kid[op->to].lives;
	case FUZZ_RECOVER:
		return !f || is_noted(m, r);
	case FUZZ_WRITE:
		return !f || (waits && r && model_is_full(r));
	case FUZZ_READ:
		if (r && (model_is_ready(r) ||
			  r->info.state == DOORBELL_HANGUP))
			waits = false;
		/* how much of a buffer is filled is not exact there */
		return !f || waits || is_noted(m, r) ||
		       (DB_COPY_SHORT && op->room < op->size);
	case FUZZ_EVENTFD_READ:
	case FUZZ_EVENTFD_NEW:
		return false;
	case FUZZ_VM_NEW:
		return m->held[op->to] || m->runs[op->to] ||
		       (op->to == FUZZ_VMS - 1 && m->killed);
	case FUZZ_VM_END:
		return !m->runs[op->to];
	case FUZZ_VM_CLOSE:
		return op->to < FUZZ_VMS - 1 || !m->held[op->to];
	case FUZZ_VMM_KILL:
		return m->killed;
	case FUZZ_GUEST:
		return guest_skips(m, op);
	case FUZZ_MAP:
		return !f || map->file;
	case FUZZ_UNMAP:
	case FUZZ_STATUS:
		return !map->file;
	case FUZZ_ARM:
		return !map->file || map->region->status.flags;
	case FUZZ_PEEK:
		return !map->file || map->region->status.flags ||
		       is_noted(m, map->region);
	case FUZZ_CONSUME:
		return !map->noted || map->consumed ||
		       map->region->status.flags;
	case FUZZ_COUNT:
		return !map->consumed || map->region->status.flags;
	case FUZZ_LIB_OPEN:
		return !f || m->lib || is_noted(m, r) ||
		       (f->flags & O_ACCMODE) != O_RDWR;
	case FUZZ_LIB_TAKE:
		return !m->lib || is_noted(m, m->lib->region);
	case FUZZ_LIB_CLOSE:
		return !m->lib;
	default:
		return !f;
	}
}

/* Random operations */

struct fuzz {
	__u32 seed;		/* of this sequence */
	unsigned long steps;	/* as long as it grows, nothing hangs */
	__u32 random;
	struct model model;
	struct world world;
	struct fuzz_op op[SEQUENCE];
	unsigned int at;
	struct fuzz_result got;
	struct fuzz_result want;
};

static __u32 below(struct fuzz *z, __u32 n)
{
	return db_random(&z->random) % n;
}

/* True once in @n times */
static bool rarely(struct fuzz *z, __u32 n)
{
	return !below(z, n);
}

#define ONE_OF(z, ...) ({						\
	const __u64 _these[] = { __VA_ARGS__ };				\
									\
	_these[below(z, ARRAY_SIZE(_these))];				\
})

/* The number of a VM, or FUZZ_NONE */
static int number_of(const struct model *m, const struct model_vm *vm)
{
	int i;

	for (i = 0; vm && i < FUZZ_VMS; i++)
		if (m->vm[i] == vm && (m->held[i] || m->runs[i]))
			return i;
	return FUZZ_NONE;
}

/* A region that a guest can ring, mostly, and its VM */
static const struct model_region *some_region(struct fuzz *z, int *vm)
{
	const struct model_region *r = z->model.regions, *found = NULL;
	unsigned int n = 0;

	*vm = below(z, FUZZ_VMS);
	if (rarely(z, 8))
		return r;
	for (; r; r = r->next)
		if (r->info.state == DOORBELL_ATTACHED &&
		    number_of(&z->model, r->vm) != FUZZ_NONE &&
		    rarely(z, ++n))
			found = r;
	if (found)
		*vm = number_of(&z->model, found->vm);
	return found;
}

static __u64 some_base(struct fuzz *z, bool pio)
{
	__u64 base = pio ? FUZZ_PIO : FUZZ_MMIO;

	if (rarely(z, 16))
		return base + FUZZ_DEVICE + 16 - 16 * below(z, 3);
	return base + FUZZ_PAGE * below(z, 2) +
	       ONE_OF(z, 0, 0x10, 0x20, 0x40, 0x80, 0xfc0, 0xff0, 0xff8);
}

/* An address in a region, or close by */
static __u64 some_addr(struct fuzz *z, const struct model_region *r, bool pio)
{
	__u64 addr;

	if (!r || rarely(z, 20))
		return some_base(z, pio);
	addr = r->info.base + below(z, r->info.queues + 1) * r->info.stride;
	if (rarely(z, 4))
		addr = r->info.base + below(z, r->info.len);
	if (rarely(z, 8))
		addr = r->info.base + ONE_OF(z, 0, r->info.len) - below(z, 5);
	return addr;
}

static __u64 some_value(struct fuzz *z, const struct model_region *r)
{
	__u64 value = below(z, r ? r->info.queues + 1 : 8);

	if (rarely(z, 4))
		value |= (__u64)db_random(&z->random) << ONE_OF(z, 16, 32);
	if (rarely(z, 16))
		value = ONE_OF(z, 0xffff, 0xfffe, 0x10000, ~0ULL);
	return value;
}

/* A structure of @size bytes that can grow, now and then a bad one */
static void some_struct(struct fuzz *z, struct fuzz_op *op, __u32 size)
{
	op->size = size;
	op->room = size;
	if (!rarely(z, 12))
		return;
	op->size = ONE_OF(z, size - 4, size - 1, size + 1, size + 8, FUZZ_PAGE,
			  FUZZ_PAGE + 1, 0, below(z, size), ~0U);
	op->tail = rarely(z, 2);
	op->room = op->size < BUFFER ? op->size : BUFFER;
	if (rarely(z, 4))
		op->room = below(z, op->room + 1);
}

static void bad_attach(struct fuzz *z, struct fuzz_op *op)
{
	struct doorbell_attach *a = &op->attach;
	__u64 stride = a->stride ?: DOORBELL_STRIDE_DEFAULT;

	switch (below(z, 10)) {
	case 0:
		a->flags |= 1U << below(z, 32);
		break;
	case 1:
		a->flags ^= 1U << below(z, 7);
		break;
	case 2:
		a->depth = ONE_OF(z, 0, 1, DOORBELL_DEPTH_MAX,
				  DOORBELL_DEPTH_MAX + 1, ~0U);
		break;
	case 3:
		a->queues = ONE_OF(z, 0, 1, DOORBELL_QUEUES_MAX,
				   DOORBELL_QUEUES_MAX + 1, ~0U);
		break;
	case 4:
		a->stride = ONE_OF(z, 1, 2, 3, 6, 12, DOORBELL_STRIDE_MAX,
				   2 * DOORBELL_STRIDE_MAX, 1U << 31);
		break;
	case 5:
		a->base += ONE_OF(z, 1, 2, stride / 2, stride - 1);
		break;
	case 6:
		a->len = ONE_OF(z, 0, a->len + 1, a->len - 1,
				stride * DOORBELL_QUEUES_MAX,
				stride * (DOORBELL_QUEUES_MAX + 1), 1ULL << 63,
				-stride);
		break;
	case 7:
		a->base = ONE_OF(z, 0, -a->len, -a->len - stride,
				 65536 - a->len, 65536 - a->len + stride,
				 65536, ~0ULL << 16);
		break;
	case 8:
		a->vm_fd = ONE_OF(z, FUZZ_NEGATIVE, FUZZ_CLOSED, FUZZ_OTHER, 0,
				  1, 2);
		break;
	default:
		some_struct(z, op, sizeof(*a));
		break;
	}
}

static void some_attach(struct fuzz *z, struct fuzz_op *op)
{
	struct doorbell_attach *a = &op->attach;
	bool pio = rarely(z, 4);

	op->size = sizeof(*a);
	op->room = sizeof(*a);
	a->vm_fd = rarely(z, 3) ? FUZZ_NONE : (int)below(z, FUZZ_VMS);
	a->flags = pio ? DOORBELL_ATTACH_PIO : 0;
	if (rarely(z, 3)) {
		a->flags |= DOORBELL_ATTACH_ORDERED;
		a->depth = 1 + below(z, 6);
	}
	if (rarely(z, 4)) {
		a->flags |= DOORBELL_ATTACH_BY_VALUE;
		a->queues = 1 + below(z, 6);
	} else if (!pio && rarely(z, 4)) {
		a->flags |= DOORBELL_ATTACH_NO_VALUE;
	}
	if (rarely(z, 4))
		a->flags |= DOORBELL_ATTACH_BOUND_ONLY |
			    ONE_OF(z, 0, DOORBELL_ATTACH_EXACT);
	if (rarely(z, 2))
		a->flags |= DOORBELL_ATTACH_DROP;
	a->stride = ONE_OF(z, 0, 2, 4, 4, 8, 16);
	a->base = some_base(z, pio);
	a->len = (1 + below(z, 8)) * (a->stride ?: DOORBELL_STRIDE_DEFAULT);
	if (rarely(z, 4))
		bad_attach(z, op);
}

static void some_move(struct fuzz *z, struct fuzz_op *op)
{
	const struct model_file *f = z->model.fd[op->fd];
	const struct model_region *r = f ? f->region : NULL;

	some_struct(z, op, sizeof(struct doorbell_move));
	op->to = r ? number_of(&z->model, r->vm) : FUZZ_NONE;
	if (rarely(z, 12))
		op->to = FUZZ_OTHER + (int)below(z, 4 + FUZZ_VMS);
	op->base = some_base(z, r && r->info.flags & DOORBELL_ATTACH_PIO);
	if (r && rarely(z, 3))
		op->base = r->info.base + r->info.stride -
			   2 * r->info.stride * below(z, 2);
	if (r && rarely(z, 12))
		op->base = ONE_OF(z, 0, op->base + 1, -r->info.len,
				  65536 - r->info.len, 65536,
				  -r->info.len - r->info.stride);
}

static void some_bind(struct fuzz *z, struct fuzz_op *op)
{
	const struct model_file *f = z->model.fd[op->fd];
	__u32 queues = f && f->region ? f->region->info.queues : 4, i;

	some_struct(z, op, sizeof(struct doorbell_bind));
	op->first = below(z, queues);
	op->count = 1 + below(z, queues - op->first < FUZZ_BINDS - 1 ?
				 queues - op->first : FUZZ_BINDS - 1);
	if (rarely(z, 12))
		op->first = ONE_OF(z, op->first + 1, queues, queues - 1, ~0U);
	op->arg = op->count;
	if (rarely(z, 12))
		op->arg = below(z, op->count);
	if (rarely(z, 12))
		op->count = ONE_OF(z, 0, ~0U, 1U << 30, op->count + 1);
	if (rarely(z, 32))
		op->flags = 1U << below(z, 32);
	for (i = 0; i < FUZZ_BINDS; i++)
		op->eventfd[i] = (int)below(z, FUZZ_EVENTFDS + 1) - 1;
	if (rarely(z, 10))
		op->eventfd[below(z, op->arg + 1)] =
			ONE_OF(z, FUZZ_NEGATIVE, FUZZ_CLOSED, FUZZ_OTHER);
}

static void some_info(struct fuzz *z, struct fuzz_op *op)
{
	__u32 size = sizeof(struct doorbell_info);

	op->size = size;
	if (rarely(z, 4))
		op->size = ONE_OF(z, 8, 7, 0, 40, 80, 88, below(z, size),
				  size - 8, size + 8, 200, FUZZ_PAGE,
				  FUZZ_PAGE + 1);
	op->room = op->size + below(z, 9);
	if (rarely(z, 16))
		op->room = below(z, op->size + 1);
}

static void some_write(struct fuzz *z, struct fuzz_op *op)
{
	const struct model_file *f = z->model.fd[op->fd];
	const struct model_region *r = f ? f->region : NULL;
	__u32 n = rarely(z, 6) ? 1 + below(z, FUZZ_RINGS) : 1 + below(z, 3), i;

	op->flags = rarely(z, 4);
	op->size = n * sizeof(op->ring[0]);
	if (rarely(z, 24))	/* the kernel returns 0 for empty vectors */
		op->size = below(z, op->size - op->flags) + op->flags;
	op->room = op->size;
	if (rarely(z, 20))
		op->room = below(z, op->size + 1);
	for (i = 0; i < n; i++) {
		op->ring[i].addr = some_addr(z, r, false);
		op->ring[i].value = some_value(z, r);
		if (rarely(z, 40))
			op->ring[i].addr = ONE_OF(z, 0, ~0ULL, 1ULL << 63);
	}
}

static void some_read(struct fuzz *z, struct fuzz_op *op)
{
	op->flags = rarely(z, 4);
	op->size = EVENT_SIZE * ONE_OF(z, 1, 1, 2, 3, 8, FUZZ_EVENTS);
	if (rarely(z, 8))
		op->size += below(z, EVENT_SIZE);
	if (rarely(z, 20))
		op->size = below(z, EVENT_SIZE - op->flags) + op->flags;
	if (op->size > EVENT_SIZE * FUZZ_EVENTS)
		op->size = EVENT_SIZE * FUZZ_EVENTS;
	op->room = op->size;
	if (rarely(z, 12))
		op->room = below(z, op->size + 1);
}

static void some_access(struct fuzz *z, struct fuzz_op *op)
{
	const struct model_region *r = some_region(z, &op->to);

	op->pio = r ? !!(r->info.flags & DOORBELL_ATTACH_PIO) : rarely(z, 2);
	op->is_read = rarely(z, 10);
	op->width = op->pio ? ONE_OF(z, 1, 2, 4) : ONE_OF(z, 1, 2, 4, 8);
	if (r && rarely(z, 2) && r->info.stride <= (op->pio ? 4 : 8))
		op->width = r->info.stride;
	op->addr = some_addr(z, r, op->pio);
	op->value = some_value(z, r);
	if (op->pio && op->addr > 65536 - op->width)
		op->addr = 65536 - op->width;
	if (!op->pio && (op->addr < GUEST_MEM_SIZE || op->addr >= 0xf0000000))
		op->addr = FUZZ_MMIO;
	/* the vCPU writes all bytes of the value that it has */
	op->value &= ~0ULL >> (64 - 8 * op->width);
}

static void some_mmap(struct fuzz *z, struct fuzz_op *op)
{
	op->area = below(z, 3);
	op->offset = op->area ? (int)below(z, 3) - 1 : (int)below(z, 2);
	op->size = ONE_OF(z, 1, FUZZ_PAGE, FUZZ_PAGE, 2 * FUZZ_PAGE,
			  8 * FUZZ_PAGE, 0);
	op->prot = ONE_OF(z, PROT_READ, PROT_READ, PROT_READ | PROT_WRITE,
			  PROT_WRITE, PROT_NONE);
	op->private = rarely(z, 6);
}

static void some_op(struct fuzz *z, struct fuzz_op *op)
{
	static const __u8 weight[FUZZ_KINDS] = {
		[FUZZ_OPEN] = 8, [FUZZ_DUP] = 2, [FUZZ_CLOSE] = 3,
		[FUZZ_FORK] = 1, [FUZZ_KID_EXIT] = 2, [FUZZ_ATTACH] = 16,
		[FUZZ_DETACH] = 6, [FUZZ_MOVE] = 8, [FUZZ_BIND] = 14,
		[FUZZ_BINDINGS] = 6, [FUZZ_INFO] = 14, [FUZZ_RECOVER] = 4,
		[FUZZ_IOCTL] = 1, [FUZZ_WRITE] = 32, [FUZZ_READ] = 24,
		[FUZZ_POLL] = 10, [FUZZ_SEEK] = 1, [FUZZ_EVENTFD_READ] = 8,
		[FUZZ_EVENTFD_NEW] = 1, [FUZZ_VM_NEW] = 4, [FUZZ_VM_END] = 1,
		[FUZZ_VM_CLOSE] = 1, [FUZZ_VMM_KILL] = 1, [FUZZ_GUEST] = 40,
		[FUZZ_MAP] = 4, [FUZZ_UNMAP] = 2, [FUZZ_MMAP] = 4,
		[FUZZ_STATUS] = 6, [FUZZ_ARM] = 6, [FUZZ_PEEK] = 10,
		[FUZZ_CONSUME] = 10, [FUZZ_COUNT] = 10, [FUZZ_LIB_OPEN] = 4,
		[FUZZ_LIB_TAKE] = 8, [FUZZ_LIB_CLOSE] = 2,
	};
	__u32 sum = 0, kind;

	for (kind = 0; kind < FUZZ_KINDS; kind++)
		sum += weight[kind];
	sum = below(z, sum);
	for (kind = 0; sum >= weight[kind]; kind++)
		sum -= weight[kind];

	memset(op, 0, sizeof(*op));
	op->kind = kind;
	op->fd = below(z, FUZZ_FDS);
	switch (op->kind) {
	case FUZZ_OPEN:
		op->flags = ONE_OF(z, O_RDWR, O_RDWR, O_RDWR, O_RDWR, O_RDWR,
				   O_RDONLY, O_WRONLY);
		op->flags |= rarely(z, 4) ? 0 : O_NONBLOCK;
		break;
	case FUZZ_DUP:
		op->to = below(z, FUZZ_FDS);
		break;
	case FUZZ_FORK:
	case FUZZ_KID_EXIT:
		op->to = below(z, FUZZ_KIDS);
		break;
	case FUZZ_ATTACH:
		some_attach(z, op);
		break;
	case FUZZ_DETACH:
	case FUZZ_RECOVER:
		op->arg = rarely(z, 12) ? 1ULL << below(z, 64) : 0;
		break;
	case FUZZ_MOVE:
		some_move(z, op);
		break;
	case FUZZ_BIND:
	case FUZZ_BINDINGS:
		some_bind(z, op);
		break;
	case FUZZ_INFO:
		some_info(z, op);
		break;
	case FUZZ_IOCTL:
		op->arg = ONE_OF(z, _IO(DOORBELL_IOC, 7), _IO(0xAE, 1),
				 _IOW(DOORBELL_IOC, 0, struct doorbell_attach),
				 _IO(DOORBELL_IOC, below(z, 249) + 7));
		break;
	case FUZZ_WRITE:
		some_write(z, op);
		break;
	case FUZZ_READ:
		some_read(z, op);
		break;
	case FUZZ_SEEK:
		op->arg = below(z, 3);
		break;
	case FUZZ_EVENTFD_READ:
	case FUZZ_EVENTFD_NEW:
		op->to = below(z, FUZZ_EVENTFDS);
		break;
	case FUZZ_GUEST:
		some_access(z, op);
		break;
	case FUZZ_VM_NEW:
	case FUZZ_VM_END:
		op->to = below(z, FUZZ_VMS);
		break;
	case FUZZ_VM_CLOSE:
	case FUZZ_VMM_KILL:
		op->to = FUZZ_VMS - 1;
		break;
	case FUZZ_MMAP:
		some_mmap(z, op);
		break;
	case FUZZ_PEEK:
		op->arg = ONE_OF(z, 1, 2, 4, FUZZ_EVENTS);
		op->to = below(z, FUZZ_MAPS);
		break;
	case FUZZ_LIB_OPEN:
		op->flags = below(z, 4);
		break;
	case FUZZ_LIB_TAKE:
		op->arg = ONE_OF(z, 1, 2, FUZZ_EVENTS);
		break;
	default:
		op->to = below(z, FUZZ_MAPS);
		break;
	}
}

/* What a person reads */

static const char *const kinds[FUZZ_KINDS] = {
	"open", "dup", "close", "fork", "child exits", "ATTACH", "DETACH",
	"MOVE", "BIND", "BINDINGS", "INFO", "RECOVER", "ioctl", "write",
	"read", "poll", "seek", "read eventfd", "new eventfd", "create VM",
	"VMM closes VM", "close VM's descriptor", "kill VMM", "guest", "map",
	"unmap", "mmap", "status", "arm", "peek", "consume", "count",
	"lib open", "lib take", "lib close",
};

static void show_op(unsigned int i, const struct fuzz_op *op)
{
	const struct doorbell_attach *a = &op->attach;
	bool on_fd = op->kind < FUZZ_EVENTFD_READ || op->kind == FUZZ_MAP ||
		     op->kind == FUZZ_MMAP || op->kind == FUZZ_LIB_OPEN;
	unsigned int j;

	printf("# %3u %s", i, kinds[op->kind]);
	if (on_fd && op->kind != FUZZ_FORK && op->kind != FUZZ_KID_EXIT)
		printf(" fd %d", op->fd);
	if (!on_fd || op->kind == FUZZ_DUP || op->kind == FUZZ_FORK ||
	    op->kind == FUZZ_KID_EXIT || op->kind == FUZZ_MOVE ||
	    op->kind == FUZZ_MAP)
		printf(" %s%d", op->kind == FUZZ_GUEST ||
		       op->kind == FUZZ_MOVE ? "vm " : "", op->to);
	if (op->flags)
		printf(" flags %#x", op->flags);
	if (op->arg)
		printf(" arg %#llx", op->arg);
	if (op->size || op->room)
		printf(" size %u", op->size);
	if (op->room != op->size)
		printf(" room %u", op->room);
	if (op->tail)
		printf(" tail");
	if (op->kind == FUZZ_ATTACH)
		printf(" vm %d base %#llx len %#llx stride %u flags %#x depth %u queues %u",
		       a->vm_fd, a->base, a->len, a->stride, a->flags,
		       a->depth, a->queues);
	if (op->kind == FUZZ_MOVE)
		printf(" base %#llx", op->base);
	if (op->kind == FUZZ_BIND || op->kind == FUZZ_BINDINGS)
		printf(" first %u count %u", op->first, op->count);
	for (j = 0; op->kind == FUZZ_BIND && j < op->arg; j++)
		printf(" %d", op->eventfd[j]);
	for (j = 0; op->kind == FUZZ_WRITE && j < FUZZ_RINGS &&
	     j * EVENT_SIZE < op->size; j++)
		printf(" %#llx:%#llx", op->ring[j].addr, op->ring[j].value);
	if (op->kind == FUZZ_GUEST)
		printf(" %s %s %#llx width %u value %#llx",
		       op->pio ? "port" : "mmio", op->is_read ? "read" :
		       "write", op->addr, op->width, op->value);
	if (op->kind == FUZZ_MMAP)
		printf(" area %d offset %lld pages prot %d%s", op->area,
		       op->offset, op->prot, op->private ? " private" : "");
	printf("\n");
}

static void show_result(const char *what, const struct fuzz_result *res)
{
	const struct doorbell_event *e;
	unsigned int i;

	printf("#     %s: returns %ld", what, res->ret);
	if (res->counter || res->head)
		printf(" counter %llu head %llu", res->counter, res->head);
	for (i = 0; i < FUZZ_EVENTS; i++) {
		e = &res->event[i];
		if (e->count || e->queue)
			printf(" [%u] queue %u type %u width %u count %u value %#llx",
			       i, e->queue, e->type, e->width, e->count,
			       e->value);
	}
	for (i = 0; i < FUZZ_BINDS; i++)
		if (res->binding[i].bound || res->binding[i].rings)
			printf(" [%u] bound %u rings %llu", i,
			       res->binding[i].bound, res->binding[i].rings);
	for (i = 0; i < res->nr_exits && i < FUZZ_EXITS; i++)
		printf(" exit %#llx width %u data %#llx%s%s",
		       res->exit[i].addr, res->exit[i].width, res->exit[i].data,
		       res->exit[i].pio ? " port" : "",
		       res->exit[i].is_read ? " read" : "");
	if (res->info.size)
		printf(" size %u state %u base %#llx len %#llx stride %u flags %#x depth %u queues %u features %#x generation %u rings %llu bad %llu pending %llu wakeups %llu bounced %llu bound %llu",
		       res->info.size, res->info.state, res->info.base,
		       res->info.len, res->info.stride, res->info.flags,
		       res->info.depth, res->info.queues, res->info.features,
		       res->info.generation, res->info.rings,
		       res->info.bad_rings, res->info.pending,
		       res->info.wakeups, res->info.bounced,
		       res->info.bound_rings);
	if (res->status.generation)
		printf(" state %u generation %u flags %u", res->status.state,
		       res->status.generation, res->status.flags);
	printf("\n");
}

/* Sequences */

static bool has_hung_up(int fd)
{
	struct doorbell_info info = {
		.size = offsetof(struct doorbell_info, base),
	};

	return !ioctl(fd, DOORBELL_INFO, &info) &&
	       info.state == DOORBELL_HANGUP;
}

/* Some milliseconds after a change of its buses, the module keeps a VM. */
static void wait_for_hangups(const struct world *w, const struct model *m)
{
	const struct model_region *r;
	int i;

	for (i = 0; i < FUZZ_FDS; i++) {
		r = m->fd[i] ? m->fd[i]->region : NULL;
		if (r && r->info.state == DOORBELL_HANGUP)
			eventually(has_hung_up(w->fd[i]));
	}
	for (i = 0; i < FUZZ_MAPS; i++) {
		r = m->map[i].region;
		if (r && r->status.state == DOORBELL_HANGUP)
			eventually(__atomic_load_n(&w->map[i].status->state,
						   __ATOMIC_ACQUIRE) ==
				   DOORBELL_HANGUP);
	}
}

/* Run a sequence, or invent it: true if all went well. */
static bool run(struct fuzz *z, unsigned int n, bool invent)
{
	bool good = true;

	world_begin(&z->world);
	model_init(&z->model);
	for (z->at = 0; good && z->at < n; z->at++) {
		struct fuzz_op *op = &z->op[z->at];

		if (invent) {
			do {
				some_op(z, op);
			} while (skips(&z->model, op));
		} else if (skips(&z->model, op)) {
			continue;
		}
		do_op(&z->world, op, &z->got);
		__atomic_fetch_add(&z->steps, 1, __ATOMIC_RELAXED);
		model_does(&z->model, op, &z->got, &z->want);
		good = !memcmp(&z->got, &z->want, sizeof(z->got));
		if (op->kind == FUZZ_VM_END || op->kind == FUZZ_VM_CLOSE ||
		    op->kind == FUZZ_VMM_KILL || op->kind == FUZZ_KID_EXIT)
			wait_for_hangups(&z->world, &z->model);
	}
	world_end(&z->world);
	model_free(&z->model);
	return good;
}

/* Delete operations as long as the sequence fails. Return its length. */
static unsigned int shrink(struct fuzz *z)
{
	static struct fuzz_op saved[SEQUENCE];
	unsigned int n = z->at, chunk = n / 2, first, runs = 0;

	while (chunk) {
		for (first = 0; first + chunk <= n && runs < SHRINK_RUNS;) {
			memcpy(saved, z->op, sizeof(saved));
			memmove(&z->op[first], &z->op[first + chunk],
				(n - first - chunk) * sizeof(z->op[0]));
			runs++;
			if (!run(z, n - chunk, false)) {
				n = z->at;
			} else {
				memcpy(z->op, saved, sizeof(saved));
				first += chunk;
			}
		}
		chunk /= 2;
	}
	return n;
}

static void show(struct fuzz *z, unsigned int n)
{
	unsigned int i;

	for (i = 0; i < n; i++)
		show_op(i, &z->op[i]);
	show_result("got ", &z->got);
	show_result("want", &z->want);
	fflush(stdout);
}

static unsigned long env_number(const char *name, unsigned long otherwise)
{
	const char *text = getenv(name);

	return text ? strtoul(text, NULL, 0) : otherwise;
}

/* Report an operation that never returns, which no signal may end. */
static void *hang_main(void *arg)
{
	struct fuzz *z = arg;
	unsigned long steps = 0, now, seconds = 0;

	while (seconds++ < HANG_SECONDS) {
		sleep(1);
		now = __atomic_load_n(&z->steps, __ATOMIC_RELAXED);
		if (now != steps)
			seconds = 0;
		steps = now;
	}
	printf("# seed %u hangs at number %u\n", z->seed, z->at);
	show(z, z->at < SEQUENCE ? z->at + 1 : SEQUENCE);
	_exit(1);
}

FIXTURE(fuzz)
{
	struct fuzz *z;
};

FIXTURE_SETUP(fuzz)
{
	static struct fuzz fuzz;

	self->z = &fuzz;
	self->z->world.edge = db_edge(BUFFER, PROT_READ | PROT_WRITE) + BUFFER;
	self->z->world.array = db_edge(BUFFER, PROT_READ | PROT_WRITE) + BUFFER;
}

FIXTURE_TEARDOWN(fuzz)
{
}

TEST_F_TIMEOUT(fuzz, model, FUZZ_SECONDS)
{
	struct fuzz *z = self->z;
	unsigned long ops, done;
	pthread_t thread;
	unsigned int n;

	ASSERT_EQ(0, pthread_create(&thread, NULL, hang_main, z));
	ops = env_number("DOORBELL_FUZZ_OPS", db_debug_kernel() ? OPS_DEBUG :
								  OPS);
	ASSERT_EQ(sizeof(z->seed), getrandom(&z->seed, sizeof(z->seed), 0));
	z->seed = env_number("DOORBELL_FUZZ_SEED", z->seed);
	printf("# seed %u\n", z->seed);
	for (done = 0; done < ops; done += SEQUENCE, z->seed++) {
		z->random = z->seed * 0x9e3779b1 ?: 1;
		if (run(z, SEQUENCE, true))
			continue;
		n = z->at;
		printf("# seed %u fails after %lu operations, at number %u\n",
		       z->seed, done + n, n - 1);
		show(z, n);
		n = shrink(z);
		printf("# seed %u, shrunk to %u operations:\n", z->seed, n);
		if (run(z, n, false))
			printf("# which do not always fail\n");
		show(z, n);
		ASSERT_TRUE(false) {
			TH_LOG("DOORBELL_FUZZ_SEED=%u fails", z->seed);
		}
	}
	printf("# %lu operations\n", done);
}

/* A hostile consumer */

#define ROUNDS		2000
#define ROUNDS_MIN	20
#define ROUNDS_MS	6000

FIXTURE(hostile)
{
	int fd;
	int other;
	struct vmm *vmm;
	struct doorbell_info info;
	void *control;
	bool stop;
	__u64 events;
	__u64 wrong;
};

FIXTURE_VARIANT(hostile)
{
	__u32 flags;
	__u32 depth;
};

FIXTURE_VARIANT_ADD(hostile, coalescing) {};
FIXTURE_VARIANT_ADD(hostile, ordered) {
	.flags = DOORBELL_ATTACH_ORDERED, .depth = 8,
};

static int attach_hostile(int fd, int vm_fd, __u32 flags, __u32 depth)
{
	struct doorbell_attach arg = db_attach_arg(vm_fd, MMIO_BASE,
						   REGION_LEN);

	arg.stride = REGION_STRIDE;
	arg.flags |= flags;
	arg.depth = depth;
	return db_result(ioctl(fd, DOORBELL_ATTACH, &arg));
}

/* Map the control area at @at, in the place of that of the region before. */
static void *map_control(int fd, size_t size, void *at)
{
	return mmap(at, size, PROT_READ | PROT_WRITE,
		    MAP_SHARED | (at ? MAP_FIXED : 0), fd, 0);
}

FIXTURE_SETUP(hostile)
{
	self->fd = db_must_open(_metadata, O_NONBLOCK);
	self->other = db_must_open(_metadata, O_NONBLOCK);
	self->vmm = vmm_create(2);
	ASSERT_NE(NULL, self->vmm);
	ASSERT_EQ(0, attach_hostile(self->fd, self->vmm->vm_fd, variant->flags,
				    variant->depth));
	ASSERT_EQ(0, db_attach(self->other, -1, 0, 64));
	ASSERT_EQ(0, db_info(self->fd, &self->info));
	self->control = map_control(self->fd, self->info.control_size, NULL);
	ASSERT_NE(MAP_FAILED, self->control);
}

FIXTURE_TEARDOWN(hostile)
{
	vmm_destroy(self->vmm);
	munmap(self->control, self->info.control_size);
	close(self->fd);
	close(self->other);
}

static bool goes_on(const FIXTURE_DATA(hostile) *self)
{
	return !__atomic_load_n(&self->stop, __ATOMIC_ACQUIRE);
}

static void *garbler_main(void *arg)
{
	static const __u64 nasty[] = {
		0, 1, 7, 0x7fffffff, 0xffffffff, 1ULL << 32, 1ULL << 48,
		1ULL << 63, ~0ULL - 1, ~0ULL,
	};
	FIXTURE_DATA(hostile) *self = arg;
	struct doorbell_control *control = self->control;
	size_t words = self->info.control_size / sizeof(__u64);
	__u32 seed = db_gettid();
	__u64 junk;

	while (goes_on(self)) {
		junk = (__u64)db_random(&seed) << 32 | db_random(&seed);
		if (db_random(&seed) & 1)
			junk = nasty[db_random(&seed) % ARRAY_SIZE(nasty)];
		switch (db_random(&seed) % 5) {
		case 0:
			control->head = junk;
			break;
		case 1:
			control->head += db_random(&seed) % 5 - 2;
			break;
		case 2:
			control->handled = control->head -
					   db_random(&seed) % 80;
			break;
		case 3:
			control->armed = junk;
			break;
		default:
			((__u64 *)control)[db_random(&seed) % words] = junk;
			break;
		}
		db_yield();
	}
	return NULL;
}

static void *ringer_main(void *arg)
{
	FIXTURE_DATA(hostile) *self = arg;
	__u32 seed = 5;

	while (goes_on(self)) {
		db_ring(self->fd,
			MMIO_BASE + db_random(&seed) % (REGION_LEN + 8), seed);
		db_yield();
	}
	return NULL;
}

/* No event has a queue that the region does not have. */
static void *reader_main(void *arg)
{
	FIXTURE_DATA(hostile) *self = arg;
	struct doorbell_event events[64];
	struct doorbell_info info;
	__u32 seed = 6;
	int n;

	while (goes_on(self)) {
		db_poll(self->fd, POLLIN | POLLOUT, 0);
		n = db_read(self->fd, events, 1 + db_random(&seed) % 64);
		self->wrong += n < 0 && n != -EAGAIN;
		for (; n > 0; n--, self->events++)
			self->wrong += events[n - 1].queue >= REGION_QUEUES &&
				       events[n - 1].type ==
				       DOORBELL_EVENT_QUEUE;
		if (!(db_random(&seed) % 16))
			ioctl(self->fd, DOORBELL_RECOVER, 0);
		self->wrong += db_info(self->fd, &info) != 0;
		db_yield();
	}
	return NULL;
}

/*
 * Garbage from several CPUs in the control area harms no other process. The
 * kernel's log says whether it harmed the kernel.
 */
TEST_F_TIMEOUT(hostile, garbage, TEST_SECONDS)
{
	static void *(*const mains[])(void *) = {
		garbler_main, garbler_main, ringer_main, reader_main,
	};
	__u64 end = db_now_ms() + ROUNDS_MS;
	pthread_t thread[ARRAY_SIZE(mains)];
	struct doorbell_event events[2];
	unsigned int i, round;

	ASSERT_EQ(0, start_ringing(self->vmm, 0));
	for (i = 0; i < ARRAY_SIZE(mains); i++)
		ASSERT_EQ(0, pthread_create(&thread[i], NULL, mains[i], self));
	for (round = 0; db_round(round, ROUNDS_MIN, ROUNDS, end); round++) {
		usleep(1000);
		ASSERT_EQ(0, db_ring(self->other, 4, round));
		ASSERT_EQ(1, db_read(self->other, events, 2));
		ASSERT_TRUE(db_event_is(events, 1, 1, round));

		ASSERT_EQ(0, db_detach(self->fd));
		ASSERT_EQ(0, attach_hostile(self->fd, self->vmm->vm_fd,
					    variant->flags, variant->depth));
		ASSERT_EQ(self->control,
			  map_control(self->fd, self->info.control_size,
				      self->control));
	}
	__atomic_store_n(&self->stop, true, __ATOMIC_RELEASE);
	for (i = 0; i < ARRAY_SIZE(mains); i++)
		ASSERT_EQ(0, pthread_join(thread[i], NULL));
	ASSERT_EQ(0, stop_ringing(self->vmm));
	TH_LOG("%u regions, %llu events", round, self->events);
	ASSERT_EQ(0, self->wrong);

	/* a region without garbage works */
	ASSERT_EQ(0, db_detach(self->fd));
	ASSERT_EQ(0, attach_hostile(self->fd, self->vmm->vm_fd, variant->flags,
				    variant->depth));
	ASSERT_EQ(0, guest_write(self->vmm, 0, 4, MMIO_BASE + REGION_STRIDE,
				 7));
	check_event(_metadata, self->fd, 1, 7);
	ASSERT_EQ(0, db_ring(self->fd, MMIO_BASE, 8));
	check_event(_metadata, self->fd, 0, 8);
	ASSERT_TRUE(db_is_empty(self->fd));
}

TEST_HARNESS_MAIN
