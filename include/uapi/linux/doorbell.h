/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * doorbell: reads the doorbells that KVM guests ring.
 *
 * This header is the whole contract between /dev/doorbell and user space.
 *
 * Each open() of /dev/doorbell is one consumer. DOORBELL_ATTACH gives it a
 * region: guest-physical [base, base + len) on one KVM bus, divided into queues
 * of stride bytes. From then on every guest write into the region (a ring) is
 * taken inside KVM, without an exit to user space, and the consumer read()s
 * struct doorbell_event: which queue, how many rings, the last value written.
 *
 * Guest reads of the region, and accesses that are not wholly inside of it,
 * reach the VMM as if nothing were attached. (KVM makes two accesses of one that
 * crosses a page; each is taken on its own.)
 *
 * Promises, whatever the timing:
 *
 * - Coalescing (the default): at most one event per queue is pending, in the
 *   order of first ring; the counts read add up to the rings written. An event's
 *   value is at least as new as the rings that it counts. (Of rings that happen
 *   at the same time either may be first, and a ring at the moment in which its
 *   queue's event is taken may give the next one the place of that moment.)
 * - Ordered (DOORBELL_ATTACH_ORDERED): every ring is an event of its own, in the
 *   order in which they were taken. A guest's ring that finds no room reaches
 *   the VMM as an exit instead.
 * - Nothing is lost, and memory does not grow with the number of rings.
 * - A wake-up is never lost: blocking read(), poll(), level- and edge-triggered
 *   epoll, SIGIO and io_uring can all be relied upon.
 */
#ifndef _UAPI_LINUX_DOORBELL_H
#define _UAPI_LINUX_DOORBELL_H

#include <linux/ioctl.h>
#include <linux/types.h>

/** DOORBELL_QUEUES_MAX - most queues in one region */
#define DOORBELL_QUEUES_MAX	65535
/** DOORBELL_QUEUE_NONE - doorbell_event.queue of a ring that named no queue */
#define DOORBELL_QUEUE_NONE	0xffff

/** DOORBELL_STRIDE_MIN - smallest stride, in bytes */
#define DOORBELL_STRIDE_MIN	2
/** DOORBELL_STRIDE_MAX - largest stride, in bytes */
#define DOORBELL_STRIDE_MAX	65536
/** DOORBELL_STRIDE_DEFAULT - stride, in bytes, that a stride of 0 stands for */
#define DOORBELL_STRIDE_DEFAULT	4

/** DOORBELL_DEPTH_MAX - most events outstanding of an ordered region */
#define DOORBELL_DEPTH_MAX	(1U << 20)

/**
 * enum doorbell_event_type - what an event is about
 * @DOORBELL_EVENT_QUEUE: a queue was rung
 * @DOORBELL_EVENT_BAD_ADDRESS: rings by write() whose address is in no queue
 *	(BadAddress of Fuchsia's BellError)
 * @DOORBELL_EVENT_BAD_QUEUE: rings of a DOORBELL_ATTACH_BY_VALUE region whose
 *	value named no queue
 *
 * More types may come; a consumer ignores events of a type that it does not
 * know.
 */
enum doorbell_event_type {
	DOORBELL_EVENT_QUEUE = 0,
	DOORBELL_EVENT_BAD_ADDRESS = 1,
	DOORBELL_EVENT_BAD_QUEUE = 2,
};

/**
 * struct doorbell_event - what read() returns an array of
 * @queue: 0-based number of the queue; DOORBELL_QUEUE_NONE for a bad ring
 * @type: &enum doorbell_event_type
 * @width: size in bytes of the last write (1 to 8); 0 where KVM does not tell,
 *	and for rings by write(). Where vCPUs ring one queue with different
 *	widths at the same time, it may be that of another of these rings; the
 *	same goes for @type where rings are bad in different ways.
 * @count: how many rings this event stands for: 1 if ordered, at least 1 if
 *	coalescing. More rings than fit become several events.
 * @value: the last value written, zero-extended, or the last bad address
 */
struct doorbell_event {
	__u16 queue;
	__u8 type;
	__u8 width;
	__u32 count;
	__aligned_u64 value;
};

/**
 * struct doorbell_ring - what write() takes an array of
 * @addr: address that is rung, as a guest would
 * @value: value that is written
 */
struct doorbell_ring {
	__aligned_u64 addr;
	__aligned_u64 value;
};

/**
 * DOORBELL_ATTACH_PIO - the region is in I/O port space, not in memory space
 *
 * A flag in doorbell_attach.flags. The region must end within 64 KiB.
 */
#define DOORBELL_ATTACH_PIO		(1U << 0)

/**
 * DOORBELL_ATTACH_ORDERED - every ring is an event of its own
 *
 * A flag in doorbell_attach.flags. Up to doorbell_attach.depth events are
 * outstanding. When it is full the device declines a guest's ring: KVM exits to
 * the VMM with KVM_EXIT_MMIO (KVM_EXIT_IO for a port), and
 * doorbell_info.bounced counts it. To keep the order of that vCPU's rings the
 * VMM hands the ring in by write() before it runs the vCPU again.
 */
#define DOORBELL_ATTACH_ORDERED		(1U << 1)

/**
 * DOORBELL_ATTACH_BY_VALUE - the value names the queue, not the address
 *
 * A flag in doorbell_attach.flags, for regions whose queues share an address: a
 * notify_off_multiplier of 0 (section 4.1.4.4 of the virtio specification),
 * QueueNotify of virtio-mmio (4.2.2), the notify port of legacy virtio-pci
 * (4.1.4.8). The queue is the low 16 bits of the value; the event has all of the
 * value, as VIRTIO_F_NOTIFICATION_DATA wants. doorbell_attach.queues is the
 * number of queues; a value that names none of them becomes a
 * DOORBELL_EVENT_BAD_QUEUE.
 */
#define DOORBELL_ATTACH_BY_VALUE	(1U << 2)

/**
 * DOORBELL_ATTACH_NO_VALUE - the consumer does not want the values
 *
 * A flag in doorbell_attach.flags, not together with DOORBELL_ATTACH_PIO or
 * DOORBELL_ATTACH_BY_VALUE. doorbell_event.value and .width are 0. Where KVM
 * can (KVM_FAST_MMIO_BUS) the guest's write is then taken before its instruction
 * is decoded, which costs much less; a write that begins inside of the region
 * then rings even if it ends outside of it, and so may a guest's read.
 */
#define DOORBELL_ATTACH_NO_VALUE	(1U << 3)

/**
 * struct doorbell_attach - argument of DOORBELL_ATTACH
 * @size: sizeof(struct doorbell_attach)
 * @vm_fd: file descriptor of a KVM virtual machine, or -1 for a region that
 *	only write() rings. It may be closed after the call.
 * @base: first guest-physical address, or first I/O port; a multiple of @stride
 * @len: bytes in the region; a multiple of @stride, and 1 to
 *	DOORBELL_QUEUES_MAX times as large
 * @stride: bytes per queue (notify_off_multiplier in section 4.1.4.4 of the
 *	virtio specification): a power of two from DOORBELL_STRIDE_MIN to
 *	DOORBELL_STRIDE_MAX, or 0 for DOORBELL_STRIDE_DEFAULT
 * @flags: DOORBELL_ATTACH_* flags
 * @depth: with DOORBELL_ATTACH_ORDERED 1 to DOORBELL_DEPTH_MAX, else 0
 * @queues: with DOORBELL_ATTACH_BY_VALUE 1 to DOORBELL_QUEUES_MAX, else 0
 *
 * The structure can grow at its end. A larger one is accepted as long as all
 * that the kernel does not know is zero.
 */
struct doorbell_attach {
	__u32 size;
	__s32 vm_fd;
	__aligned_u64 base;
	__aligned_u64 len;
	__u32 stride;
	__u32 flags;
	__u32 depth;
	__u32 queues;
};

/**
 * enum doorbell_state - what a consumer is attached to
 * @DOORBELL_DETACHED: nothing: never attached, or detached
 * @DOORBELL_ATTACHED: a region that can be rung
 * @DOORBELL_HANGUP: a region whose VM's process is gone: ended, or in another
 *	program by execve()
 */
enum doorbell_state {
	DOORBELL_DETACHED = 0,
	DOORBELL_ATTACHED = 1,
	DOORBELL_HANGUP = 2,
};

/**
 * struct doorbell_info - result of DOORBELL_INFO
 * @size: in: sizeof(struct doorbell_info); out: the bytes that the kernel
 *	knows. Whatever the caller has beyond them is zeroed.
 * @state: &enum doorbell_state
 * @base: as attached
 * @len: as attached
 * @stride: bytes per queue, DOORBELL_STRIDE_DEFAULT if 0 was asked for
 * @flags: as attached
 * @depth: as attached
 * @queues: number of queues
 * @control_size: bytes of the control area, which mmap() has at offset 0
 * @readonly_size: bytes of the read-only area, which mmap() has at offset
 *	@control_size
 * @entries_offset: where in the read-only area the FIFO or the entries begin
 * @nr_entries: number of entries in either, a power of two
 * @rings: rings of queues since the region was attached
 * @bad_rings: rings of no queue since the region was attached
 * @pending: rings, bad ones included, that no event was taken for yet
 * @wakeups: how often a ring found the consumer armed (it waits, or has looked
 *	since the last ring of this kind), and woke whoever waits
 * @bounced: guests' rings that an ordered region had no room for
 *
 * All of it but @size and @state is that of the last region attached, until
 * another one takes its place; zero if there never was one. Counters are exact
 * once nobody rings and nobody reads. Adding them up takes longer the more queues
 * there are, and is left out for a caller whose size ends before them.
 */
struct doorbell_info {
	__u32 size;
	__u32 state;
	__aligned_u64 base;
	__aligned_u64 len;
	__u32 stride;
	__u32 flags;
	__u32 depth;
	__u32 queues;
	__u32 control_size;
	__u32 readonly_size;
	__u32 entries_offset;
	__u32 nr_entries;
	__aligned_u64 rings;
	__aligned_u64 bad_rings;
	__aligned_u64 pending;
	__aligned_u64 wakeups;
	__aligned_u64 bounced;
};

/** DOORBELL_IOC - the ioctl type of the calls below */
#define DOORBELL_IOC	0xD8

/**
 * DOORBELL_ATTACH - give the consumer a region
 *
 * Takes a &struct doorbell_attach; may sleep, also until a read() of this
 * consumer is out of a page fault. When the call returns every ring, from
 * whatever vCPU, reaches this consumer. Events of a region that was attached
 * before and that were not read until now are dropped. VM and consumer may be
 * different processes; whoever has the descriptors may attach. An attached
 * region keeps the VM in memory until it is detached, the consumer closed, or
 * the VM's process gone.
 *
 * A region has to be apart from every other device on its KVM bus: other
 * doorbell regions, ioeventfds, coalesced MMIO zones, in-kernel interrupt
 * controllers and so on. Adjacent is fine. Whoever attached must not put an
 * ioeventfd or a coalesced zone into the region later on.
 *
 * A failed call changes nothing. Return: 0, or -1 with errno
 *
 * - EFAULT: the structure cannot be read
 * - E2BIG: it is larger than a page, or not zero where this kernel knows
 *   nothing
 * - EINVAL: a size that is too small, an unknown flag or one that does not go
 *   with the others, a vm_fd that is not that of a KVM VM, or a base, len,
 *   stride, depth or queues against the rules above
 * - EBADF: vm_fd is neither -1 nor an open file
 * - EBUSY: this consumer is attached; detach first
 * - ESRCH: the process that the VM lived in is gone
 * - EEXIST: the region intersects another device on the same bus of the VM
 * - ENOSPC: that bus has no room for another device (KVM's NR_IOBUS_DEVS; a
 *   region counts once per GiB begun)
 * - ENOMEM: no memory, or the caller's memory cgroup has no room
 */
#define DOORBELL_ATTACH	_IO(DOORBELL_IOC, 0)

/**
 * DOORBELL_DETACH - take the region away
 *
 * No argument (pass 0); may sleep. When the call returns no vCPU is inside of
 * the module for this region, and further rings reach the VMM as exits. What
 * was rung before can still be read, until the next DOORBELL_ATTACH; after
 * that the consumer waits as if it had never been attached.
 *
 * Return: 0, or -1 with errno
 *
 * - EINVAL: the argument is not 0
 * - ENOTCONN: nothing is attached
 */
#define DOORBELL_DETACH	_IO(DOORBELL_IOC, 1)

/**
 * DOORBELL_INFO - tell state, geometry and counters
 *
 * Takes a &struct doorbell_info with only its size set. The same is in
 * /proc/PID/fdinfo/FD.
 *
 * Return: 0, or -1 with errno
 *
 * - EFAULT: the structure cannot be read or written
 * - E2BIG: size is larger than a page
 * - EINVAL: size is smaller than that of size and state
 */
#define DOORBELL_INFO	_IO(DOORBELL_IOC, 2)

/**
 * DOC: read(), write(), poll(), mmap()
 *
 * read() returns as many whole events as there are and as fit, and at most
 * 65,536. It waits for the first one unless O_NONBLOCK is set. Errors:
 *
 * - EINVAL: the buffer is too small for one event
 * - EAGAIN: O_NONBLOCK is set and there is no event
 * - EINTR: a signal came first (it restarts under SA_RESTART)
 * - EFAULT: the buffer cannot be written; the events stay readable
 *
 * It returns 0 once the VM's process is gone and the last event has been read.
 * Several readers may share a descriptor: each event is delivered to one.
 *
 * write() rings the attached region once for each &struct doorbell_ring, in
 * order, and returns the bytes used. A coalescing region never makes it wait; an
 * ordered one does while it is full, unless O_NONBLOCK is set. Errors, before
 * the first ring:
 *
 * - EINVAL: the length is 0 or not a multiple of the structure's
 * - EFAULT: the buffer cannot be read
 * - EAGAIN: O_NONBLOCK is set and an ordered region is full
 * - EINTR: a signal came while it waited (it restarts under SA_RESTART)
 * - ENOTCONN: nothing is attached
 * - EPIPE: the VM's process is gone (no SIGPIPE is sent)
 *
 * poll() reports EPOLLIN | EPOLLRDNORM when an event can be read,
 * EPOLLOUT | EPOLLWRNORM when write() would not wait, EPOLLHUP when the VM's
 * process is gone, and nothing when nothing is attached and nothing is left to
 * read. O_ASYNC sends SIGIO when an event becomes readable, when a region is
 * attached, and at the end.
 *
 * mmap() maps the memory of the region attached, or attached last, for consumers
 * without system calls; see struct doorbell_control for the protocol. The
 * control area may be mapped writable, the read-only area may not. A mapping
 * keeps its memory, and so does not follow a later DOORBELL_ATTACH. Errors:
 *
 * - ENOTCONN: there never was a region
 * - EINVAL: the mapping is private, or not within one of the two areas
 * - EACCES: the read-only area is to be writable
 * - ENOMEM: no memory for the mapping
 *
 * ioctl() fails with ENOTTY for a command that is none of the above.
 */

/**
 * struct doorbell_control - the control area, written by the consumer alone
 * @head: position of the first entry that the consumer has not taken. Positions
 *	count from doorbell_info.nr_entries and never wrap; the place of one is its
 *	remainder by doorbell_info.nr_entries, its lap is its quotient.
 * @armed: not 0: wake the consumer at the next entry. Cleared when that is done.
 * @reserved: leave it alone
 * @seen: coalescing: for each slot, the rings that events were made of, from
 *	DOORBELL_RINGS_SHIFT on; below it 0
 *
 * What goes wrong here goes wrong for those who share the descriptor, and for
 * nobody else: the kernel does not rely on any of it.
 *
 * Taking events, coalescing, in C11 (in kernel terms behind the slash):
 *
 * 1. Read fifo[place of head], memory_order_acquire / smp_load_acquire(). If its
 *    lap (above DOORBELL_FIFO_LAP_SHIFT, 16 bits) is not that of head there is
 *    no entry. Else the low bits are the number of a slot: a queue, or
 *    doorbell_info.queues for bad rings. Copy it, go on with the next position.
 * 2. Store head, past all these, memory_order_release / smp_store_release().
 * 3. atomic_thread_fence(memory_order_seq_cst) / smp_mb(). Without it a ring can
 *    be lost.
 * 4. For each slot copied: read rings, memory_order_acquire, then value. From
 *    DOORBELL_RINGS_SHIFT on, rings - seen is the event's count, and below it its
 *    kind. If the count is 0 there is no event, else add it to seen, without the
 *    kind. Who cannot do with all of the count at once looks at the slot again:
 *    it is not told of the rest before the next ring.
 *
 * Ordered:
 *
 * 1. Read word of entries[place of head], memory_order_acquire. If its lap (from
 *    DOORBELL_ENTRY_LAP_SHIFT on, 32 bits) is not that of head there is no entry.
 *    Else word and value are the event. Go on with the next position.
 * 2. Store head, past all these, memory_order_release.
 *
 * Waiting, in both modes: store 1 to armed, fence as above, look once more as in
 * step 1, and only if there is no entry wait in poll(), epoll_wait() (level or
 * edge) or read(). All of these arm by themselves, and have done so when they
 * tell of an event: then take events until there is none, and wait again. (A
 * multishot poll of io_uring only looks when it is submitted: arm.)
 *
 * read() and such a consumer may alternate, but not run at the same time. A
 * write() that waits for room notices a head moved by a store at the next tick
 * of the clock; EPOLLOUT is only signalled when read() makes room.
 */
struct doorbell_control {
	__aligned_u64 head;
	__u32 armed;
	__u32 reserved[13];
	__aligned_u64 seen[];
};

/**
 * struct doorbell_slot - coalescing: a queue's rings, written by the kernel alone
 * @value: the last value written
 * @rings: rings ever, modulo 2^48, from DOORBELL_RINGS_SHIFT on; below it the
 *	last ring's kind: its type, and its width from DOORBELL_KIND_WIDTH_SHIFT on
 * @pos: the last position that the queue got in the FIFO, or 0; all ones while
 *	it is about to get one
 *
 * The read-only area begins with doorbell_info.queues of these, one for each
 * queue, and one more for bad rings; @rings is also good for statistics. The
 * FIFO of slot numbers follows, __u32 each.
 */
struct doorbell_slot {
	__aligned_u64 value;
	__aligned_u64 rings;
	__aligned_u64 pos;
};

/** DOORBELL_RINGS_SHIFT - where the count begins in doorbell_slot.rings */
#define DOORBELL_RINGS_SHIFT		16
/** DOORBELL_KIND_WIDTH_SHIFT - where the width begins in a kind */
#define DOORBELL_KIND_WIDTH_SHIFT	8
/** DOORBELL_FIFO_LAP_SHIFT - where the lap begins in an entry of the FIFO */
#define DOORBELL_FIFO_LAP_SHIFT		16

/**
 * struct doorbell_entry - ordered: one ring, written by the kernel alone
 * @word: the lap from DOORBELL_ENTRY_LAP_SHIFT on; the kind from
 *	DOORBELL_ENTRY_KIND_SHIFT on; below it the number of the queue, or
 *	DOORBELL_QUEUE_NONE for a bad ring
 * @value: the value written, or the bad address
 *
 * The read-only area consists of these.
 */
struct doorbell_entry {
	__aligned_u64 word;
	__aligned_u64 value;
};

/** DOORBELL_ENTRY_KIND_SHIFT - where the kind begins in doorbell_entry.word */
#define DOORBELL_ENTRY_KIND_SHIFT	16
/** DOORBELL_ENTRY_LAP_SHIFT - where the lap begins in doorbell_entry.word */
#define DOORBELL_ENTRY_LAP_SHIFT	32

#endif /* _UAPI_LINUX_DOORBELL_H */
