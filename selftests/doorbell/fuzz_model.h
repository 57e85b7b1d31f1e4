/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Fuzz_model: operations of the fuzzer, their results, and the judge of these.
 */
#ifndef _DOORBELL_SELFTEST_FUZZ_MODEL_H
#define _DOORBELL_SELFTEST_FUZZ_MODEL_H

#include <stdbool.h>
#include <stddef.h>

#include <linux/doorbell.h>

#define FUZZ_FDS	6	/* descriptors of consumers */
#define FUZZ_VMS	3	/* the last one belongs to another process */
#define FUZZ_KIDS	2	/* children that hold all descriptors */
#define FUZZ_MAPS	3	/* mapped regions */
#define FUZZ_EVENTFDS	4
#define FUZZ_RINGS	20	/* most in one write() */
#define FUZZ_EVENTS	64	/* most in one read() */
#define FUZZ_BINDS	16	/* most descriptors in one DOORBELL_BIND */
#define FUZZ_EXITS	4	/* most exits of one access */

/* In the place of a VM or an eventfd, with the descriptor that op gets */
#define FUZZ_NONE	(-1)	/* -1 */
#define FUZZ_NEGATIVE	(-2)	/* -2 */
#define FUZZ_CLOSED	(-3)	/* one that is not open */
#define FUZZ_OTHER	(-4)	/* a file of another kind */

/* Each VM has an ioeventfd for accesses of any length here, on both buses. */
#define FUZZ_MMIO	0xd0000000ULL
#define FUZZ_PIO	0x1000ULL
#define FUZZ_WINDOW	0x3000ULL
#define FUZZ_DEVICE	0x2ff0ULL	/* relative to the two above */
#define FUZZ_PAGE	4096

#define EVENT_SIZE	sizeof(struct doorbell_event)

enum fuzz_kind {
	FUZZ_OPEN, FUZZ_DUP, FUZZ_CLOSE, FUZZ_FORK, FUZZ_KID_EXIT,
	FUZZ_ATTACH, FUZZ_DETACH, FUZZ_MOVE, FUZZ_BIND, FUZZ_BINDINGS,
	FUZZ_INFO, FUZZ_RECOVER, FUZZ_IOCTL, FUZZ_WRITE, FUZZ_READ, FUZZ_POLL,
	FUZZ_SEEK, FUZZ_EVENTFD_READ, FUZZ_EVENTFD_NEW, FUZZ_VM_NEW,
	FUZZ_VM_END, FUZZ_VM_CLOSE, FUZZ_VMM_KILL, FUZZ_GUEST, FUZZ_MAP,
	FUZZ_UNMAP, FUZZ_MMAP, FUZZ_STATUS, FUZZ_ARM, FUZZ_PEEK, FUZZ_CONSUME,
	FUZZ_COUNT, FUZZ_LIB_OPEN, FUZZ_LIB_TAKE, FUZZ_LIB_CLOSE, FUZZ_KINDS,
};

/**
 * struct fuzz_op - one operation
 * @kind: what to do
 * @fd: descriptor of a consumer to do it with
 * @to: second operand: a descriptor to make, a VM, a child, a mapping, or an
 *	eventfd
 * @flags: of open(), of DOORBELL_BIND, of doorbell_from_fd(); or not 0: with
 *	RWF_NOWAIT, by munmap() of one area only, ...
 * @size: of the structure, as its first field says; or bytes of a buffer
 * @room: bytes of it that can be accessed
 * @tail: a byte beyond the fields of the structure is not 0
 * @arg: argument of calls that take none; number of an ioctl(), of events
 * @attach: DOORBELL_ATTACH; @vm_fd of it is a number of a VM, or FUZZ_CLOSED
 * @base: DOORBELL_MOVE, whose VM is @to
 * @first: first queue of DOORBELL_BIND and DOORBELL_BINDINGS
 * @count: their number of queues
 * @eventfd: of these queues, numbers of eventfds
 * @ring: what to write()
 * @addr: of the guest's access; or offset of mmap()
 * @value: of the guest's access
 * @width: bytes of the guest's access
 * @pio: the guest accesses a port
 * @is_read: the guest reads
 * @area: mmap(): from the start of the control area, of the read-only area, or
 *	from the end of both
 * @prot: mmap(): PROT_*
 * @private: mmap(): MAP_PRIVATE
 */
struct fuzz_op {
	enum fuzz_kind kind;
	int fd;
	int to;
	__u32 flags;
	__u32 size;
	__u32 room;
	bool tail;
	__u64 arg;
	union {
		struct doorbell_attach attach;
		__u64 base;
		struct {
			__u32 first;
			__u32 count;
			int eventfd[FUZZ_BINDS];
		};
		struct doorbell_ring ring[FUZZ_RINGS];
		struct {
			__u64 addr;
			__u64 value;
			__u32 width;
			bool pio;
			bool is_read;
		};
		struct {
			__s64 offset;
			int area;
			int prot;
			bool private;
		};
	};
};

/**
 * struct fuzz_exit - one access that reached the VMM
 */
struct fuzz_exit {
	__u64 addr;
	__u64 data;
	__u32 width;
	bool pio;
	bool is_read;
};

/**
 * struct fuzz_result - what an operation returned
 * @ret: of the system call, with a negative errno on failure; or a number of
 *	events or entries; or bits of poll()
 * @counter: of an eventfd; not 0 if DOORBELL_INFO wrote other bytes than it
 *	should; error of mprotect() after mmap()
 * @head: position of the first entry that is not consumed, from 0 on
 * @event: events; for entries of a coalescing region their slots, as queues
 * @info: DOORBELL_INFO; after DOORBELL_ATTACH sizes that only the module knows
 * @binding: DOORBELL_BINDINGS
 * @exit: accesses that reached the VMM
 * @nr_exits: their number
 * @status: of a mapped region
 */
struct fuzz_result {
	long ret;
	__u64 counter;
	__u64 head;
	struct doorbell_event event[FUZZ_EVENTS];
	struct doorbell_info info;
	struct doorbell_queue_binding binding[FUZZ_BINDS];
	struct fuzz_exit exit[FUZZ_EXITS];
	unsigned int nr_exits;
	struct doorbell_status status;
};

/* Where mmap() begins; the areas end at @control and @end. */
static inline __u64 fuzz_mmap_start(const struct fuzz_op *op, __u64 control,
				    __u64 end)
{
	__u64 start = op->area > 1 ? end : op->area ? control : 0;

	return start || op->offset > 0 ? start + op->offset * FUZZ_PAGE : 0;
}

static inline void fuzz_copy_sizes(struct doorbell_info *to,
				   const struct doorbell_info *from)
{
	to->control_size = from->control_size;
	to->readonly_size = from->readonly_size;
	to->entries_offset = from->entries_offset;
	to->nr_entries = from->nr_entries;
}

/* A queue of a coalescing region, or its bad rings */
struct model_slot {
	struct doorbell_event last;
	__u64 rings;
	__u64 seen;
	bool queued;	/* an entry is not consumed */
};

struct model_vm {
	unsigned int refs;	/* processes that have descriptors of it */
	bool remote;		/* the other process created it */
};

struct model_region {
	struct model_region *next;
	struct doorbell_info info;
	struct doorbell_status status;
	bool armed;
	struct model_vm *vm;
	struct model_slot *slot;
	unsigned int nr_slots;
	struct doorbell_event *entry;
	__u64 head;		/* positions, from 0 on */
	__u64 tail;
	__u64 handled;
	__u64 **bound;		/* counters of eventfds */
	__u64 *bound_rings;
};

struct model_file {
	unsigned int refs;	/* descriptors and mappings, in all processes */
	int flags;		/* of open() */
	struct model_region *region;
	__u32 generation;
};

struct model_kid {
	bool lives;
	struct model_file *file[FUZZ_FDS + 1];
	struct model_vm *vm[FUZZ_VMS];
};

/* A mapped region, and the entries that its consumer noted and has to count */
struct model_map {
	struct model_file *file;
	struct model_region *region;
	__u64 first;
	unsigned int noted;
	bool consumed;
};

struct model {
	struct model_file *fd[FUZZ_FDS];
	struct model_vm *vm[FUZZ_VMS];
	bool held[FUZZ_VMS];	/* there is a descriptor of the VM */
	bool runs[FUZZ_VMS];	/* its process has not closed it */
	bool killed;		/* the other process */
	struct model_kid kid[FUZZ_KIDS];
	struct model_map map[FUZZ_MAPS];
	__u64 *eventfd[FUZZ_EVENTFDS];
	struct model_file *lib;
	struct model_region *lib_took;	/* last, from mapped memory */
	__u64 lib_head;
	__u32 lib_flags;
	struct model_region *regions;
	void *memory;
	long error[32];
	unsigned int nr_errors;
};

#define IS(r, flag)	(!!((r)->info.flags & DOORBELL_ATTACH_##flag))

/* fuzz_region.c */
void *model_alloc(struct model *m, size_t size);
bool model_is_full(const struct model_region *r);
bool model_is_ready(const struct model_region *r);
__u64 model_pending(const struct model_region *r);
struct doorbell_event model_name(const struct model_region *r, __u64 addr,
				 __u64 value, unsigned int width);
int model_ring(struct model *m, struct model_region *r,
	       struct doorbell_event e);
void model_take(struct model_region *r, unsigned int max, bool looks,
		bool passes, struct fuzz_result *want);
void model_recover(struct model *m, struct model_region *r);
__u32 model_most(const struct doorbell_info *info, __u32 max);
void model_peek(struct model_map *map, __u64 max, struct fuzz_result *want);
void model_consume(struct model_map *map);
void model_count(struct model_map *map, struct fuzz_result *want);
struct model_region *model_region_at(const struct model *m,
				     const struct fuzz_op *op, __u64 addr,
				     unsigned int width, bool any);
void model_guest(struct model *m, const struct fuzz_op *op,
		 struct fuzz_result *want);

/** model_init() - nothing is open, but FUZZ_EVENTFDS eventfds */
void model_init(struct model *m);

void model_free(struct model *m);

/**
 * model_does() - do an operation in the model
 * @m: the model
 * @op: the operation
 * @got: its result; decides where the documents allow more than one
 * @want: what @got has to be
 */
void model_does(struct model *m, const struct fuzz_op *op,
		const struct fuzz_result *got, struct fuzz_result *want);

#endif /* _DOORBELL_SELFTEST_FUZZ_MODEL_H */
