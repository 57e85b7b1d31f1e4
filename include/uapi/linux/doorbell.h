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
 * reach the VMM as if nothing were attached.
 *
 * Promises, whatever the timing:
 *
 * - At most one event per queue is pending, in the order of first ring; the
 *   counts read add up to the rings written. Nothing is lost, and memory does
 *   not grow with the number of rings.
 * - An event's value is at least as new as the rings that it counts.
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

/**
 * enum doorbell_event_type - what an event is about
 * @DOORBELL_EVENT_QUEUE: a queue was rung
 * @DOORBELL_EVENT_BAD_ADDRESS: rings by write() whose address is in no queue
 *	(BadAddress of Fuchsia's BellError)
 *
 * More types may come; a consumer ignores events of a type that it does not
 * know.
 */
enum doorbell_event_type {
	DOORBELL_EVENT_QUEUE = 0,
	DOORBELL_EVENT_BAD_ADDRESS = 1,
};

/**
 * struct doorbell_event - what read() returns an array of
 * @queue: 0-based number of the queue; DOORBELL_QUEUE_NONE for a bad address
 * @type: &enum doorbell_event_type
 * @width: size in bytes of the last write (1 to 8); 0 where KVM does not tell,
 *	and for rings by write(). Where vCPUs ring one queue with different
 *	widths at the same time, it may be that of another of these rings.
 * @count: how many rings this event stands for, at least 1. More rings than
 *	fit become several events.
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
#define DOORBELL_ATTACH_PIO	(1U << 0)

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
 * @depth: must be 0
 * @reserved: must be 0
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
	__u32 reserved;
};

/**
 * enum doorbell_state - what a consumer is attached to
 * @DOORBELL_DETACHED: nothing: never attached, or detached
 * @DOORBELL_ATTACHED: a region that can be rung
 * @DOORBELL_HANGUP: a region whose VM's process is gone
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
 * @rings: rings of queues since the region was attached
 * @bad_rings: rings of bad addresses since the region was attached
 * @pending: rings, bad ones included, that no event was taken for yet
 * @wakeups: how often a ring found the consumer waiting, and woke it
 *
 * All of it but @size and @state is that of the last region attached, until
 * another one takes its place; zero if there never was one. Counters are exact
 * once nobody rings and nobody reads.
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
	__aligned_u64 rings;
	__aligned_u64 bad_rings;
	__aligned_u64 pending;
	__aligned_u64 wakeups;
};

/** DOORBELL_IOC - the ioctl type of the calls below */
#define DOORBELL_IOC	0xD8

/**
 * DOORBELL_ATTACH - give the consumer a region
 *
 * Takes a &struct doorbell_attach; may sleep. When the call returns every
 * ring, from whatever vCPU, reaches this consumer. Events of a region that was
 * attached before and that were not read until now are dropped. VM and
 * consumer may be different processes; whoever has the descriptors may attach.
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
 * - EINVAL: a size that is too small, an unknown flag, a reserved field that
 *   is not 0, a vm_fd that is not that of a KVM VM, or a base, len or stride
 *   against the rules above
 * - EBADF: vm_fd is neither -1 nor an open file
 * - EBUSY: this consumer is attached; detach first
 * - ESRCH: the process that the VM lived in is gone
 * - EEXIST: the region intersects another device on the same bus of the VM
 * - ENOSPC: that bus has no room for another device (NR_IOBUS_DEVS)
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
 * - EINVAL: size is smaller than that of size and state
 */
#define DOORBELL_INFO	_IO(DOORBELL_IOC, 2)

/**
 * DOC: read(), write(), poll()
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
 * order, and returns the bytes used. It never waits. Errors, before the first:
 *
 * - EINVAL: the length is 0 or not a multiple of the structure's
 * - EFAULT: the buffer cannot be read
 * - ENOTCONN: nothing is attached
 * - EPIPE: the VM's process is gone (no SIGPIPE is sent)
 *
 * poll() reports EPOLLIN | EPOLLRDNORM when an event can be read,
 * EPOLLOUT | EPOLLWRNORM when a region can be rung, EPOLLHUP when the VM's
 * process is gone, and nothing when nothing is attached and nothing is left to
 * read. O_ASYNC sends SIGIO when an event becomes readable.
 *
 * ioctl() fails with ENOTTY for a command that is none of the above.
 */

#endif /* _UAPI_LINUX_DOORBELL_H */
