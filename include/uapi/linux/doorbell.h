/* SPDX-License-Identifier: GPL-2.0 WITH Linux-syscall-note */
/*
 * doorbell: reports the doorbells that KVM guests ring.
 *
 * This header is the contract between /dev/doorbell and user space: structures,
 * calls, errors, and the protocol of mapped memory. Documentation/index.rst
 * defines the words, Documentation/userspace-api.rst explains the guarantees.
 *
 * Each open() of /dev/doorbell creates a consumer. DOORBELL_ATTACH gives it a
 * region: guest-physical [base, base + len) on one KVM bus, divided into queues
 * of stride bytes. From then on KVM handles each guest write into the region (a
 * ring) without an exit to user space. The consumer reads struct
 * doorbell_event: the queue, the number of rings and the last value written.
 *
 * Guest reads of the region, and accesses that are not wholly inside of it,
 * reach the VMM as if nothing were attached.
 *
 * On x86, KVM splits an access that crosses a page boundary, and handles each
 * part on its own. On arm64 it is one access, and reaches the VMM if it crosses
 * a multiple of 1 GiB from the base; there are no ports that a guest could
 * write, and no KVM_FAST_MMIO_BUS; and only a store of one general register
 * without write-back rings, as KVM cannot decode others: KVM_RUN fails with
 * ENOSYS, or returns KVM_EXIT_ARM_NISV, as it does without a region. There, an
 * attach over the GIC's distributor does not fail before the first KVM_RUN.
 *
 * All structures have the same layout for 32-bit and 64-bit callers. Fields are
 * in the byte order of the host.
 *
 * What does not change: the layout of the records of read() and write(), and of
 * mapped memory; the numbers and the meaning of calls, flags, states, event
 * types and fields.
 *
 * What may change: structures that begin with their size grow at their end, a
 * zero there means what it means today; what fails with EINVAL, E2BIG or ENOTTY
 * today may get a meaning; there may be more calls, flags, event types, states
 * and DOORBELL_FEATURE_* bits, and lines in fdinfo. So a program
 * ignores what it does not know in results, and asks doorbell_info.features
 * before it relies on a feature. The sizes and offsets that DOORBELL_INFO
 * reports differ between modules: do not compute them.
 */
#ifndef _UAPI_LINUX_DOORBELL_H
#define _UAPI_LINUX_DOORBELL_H

#include <linux/ioctl.h>
#include <linux/types.h>

/**
 * DOORBELL_QUEUES_MAX - most queues in one region
 */
#define DOORBELL_QUEUES_MAX	65535
/**
 * DOORBELL_QUEUE_NONE - doorbell_event.queue of a ring that named no queue
 */
#define DOORBELL_QUEUE_NONE	0xffff

/**
 * DOORBELL_STRIDE_MIN - smallest stride, in bytes
 */
#define DOORBELL_STRIDE_MIN	2
/**
 * DOORBELL_STRIDE_MAX - largest stride, in bytes
 */
#define DOORBELL_STRIDE_MAX	65536
/**
 * DOORBELL_STRIDE_DEFAULT - stride, in bytes, that 0 stands for
 */
#define DOORBELL_STRIDE_DEFAULT	4

/**
 * DOORBELL_DEPTH_MAX - most outstanding events of an ordered region
 */
#define DOORBELL_DEPTH_MAX	(1U << 20)

/**
 * enum doorbell_event_type - what an event is about
 * @DOORBELL_EVENT_QUEUE: rings of a queue
 * @DOORBELL_EVENT_BAD_ADDRESS: rings by write() whose address is outside of the
 *	region (BadAddress of Fuchsia's BellError)
 * @DOORBELL_EVENT_BAD_QUEUE: rings of a DOORBELL_ATTACH_BY_VALUE region whose
 *	value is not the number of a queue
 *
 * More types may follow. A consumer ignores events of a type that it does not
 * know.
 */
enum doorbell_event_type {
	DOORBELL_EVENT_QUEUE = 0,
	DOORBELL_EVENT_BAD_ADDRESS = 1,
	DOORBELL_EVENT_BAD_QUEUE = 2,
};

/**
 * struct doorbell_event - what read() returns an array of
 * @queue: number of the queue, from 0; DOORBELL_QUEUE_NONE for bad rings
 * @type: &enum doorbell_event_type
 * @width: size of the last write in bytes, 1 to 8; 0 for rings by write(), and
 *	in a DOORBELL_ATTACH_NO_VALUE region
 * @count: number of rings: 1 if ordered, at least 1 if coalescing. More rings
 *	than fit become several events.
 * @value: the last value written, zero-extended; or the last bad address
 *
 * If vCPUs ring one queue at the same time with different widths, @width may
 * belong to another of these rings than @value. The same holds for @type if bad
 * rings differ in their types.
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
 * @addr: address to ring, as a guest would
 * @value: value to write
 *
 * The event has a width of 0, and in a DOORBELL_ATTACH_NO_VALUE region a value
 * of 0. An @addr outside of the region becomes a DOORBELL_EVENT_BAD_ADDRESS,
 * whose value is @addr. In a DOORBELL_ATTACH_BOUND_ONLY region write() fails
 * with ENXIO instead, as for any record that names no bound queue.
 */
struct doorbell_ring {
	__aligned_u64 addr;
	__aligned_u64 value;
};

/**
 * DOORBELL_ATTACH_PIO - the region is in I/O port space, not in memory space
 *
 * A flag in doorbell_attach.flags. The region has to end within 64 KiB. On
 * arm64 only write() rings it.
 */
#define DOORBELL_ATTACH_PIO		(1U << 0)

/**
 * DOORBELL_ATTACH_ORDERED - every ring is an event of its own
 *
 * A flag in doorbell_attach.flags. A ring finds room if fewer than
 * doorbell_attach.depth events are outstanding, that is, not consumed. A
 * guest's ring that finds no room bounces: KVM exits to the VMM with
 * KVM_EXIT_MMIO, or KVM_EXIT_IO for a port, and doorbell_info.bounced counts
 * it. To keep the order of that vCPU's rings, the VMM passes the ring on by
 * write() before it runs the vCPU again.
 */
#define DOORBELL_ATTACH_ORDERED		(1U << 1)

/**
 * DOORBELL_ATTACH_BY_VALUE - the value names the queue, not the address
 *
 * A flag in doorbell_attach.flags, for queues that share an address: a
 * notify_off_multiplier of 0 (section 4.1.4.4 of the virtio specification),
 * QueueNotify of virtio-mmio (4.2.2), the notify port of legacy virtio-pci
 * (4.1.4.10). The queue is the low 16 bits of the value. The event has the
 * whole value, as VIRTIO_F_NOTIFICATION_DATA wants. doorbell_attach.queues is
 * the number of queues. A value that names none becomes a
 * DOORBELL_EVENT_BAD_QUEUE.
 */
#define DOORBELL_ATTACH_BY_VALUE	(1U << 2)

/**
 * DOORBELL_ATTACH_NO_VALUE - the consumer does not want the values
 *
 * A flag in doorbell_attach.flags, not valid with DOORBELL_ATTACH_PIO or
 * DOORBELL_ATTACH_BY_VALUE. doorbell_event.value and .width are 0. Where KVM
 * can (KVM_FAST_MMIO_BUS), it handles the write before it decodes the
 * instruction, which costs much less. KVM then knows neither the length nor the
 * direction of the access: a write that begins inside of the region rings even
 * if it ends outside of it, and a guest's read may ring, too.
 */
#define DOORBELL_ATTACH_NO_VALUE	(1U << 3)

/**
 * DOORBELL_ATTACH_BOUND_ONLY - rings of unbound queues reach the VMM
 *
 * A flag in doorbell_attach.flags. Guests' rings of queues that DOORBELL_BIND
 * has not bound to an eventfd, and those that name no queue, reach the VMM as
 * exits, as if nothing were attached. So a region may cover a whole page of
 * notify addresses of which only some belong to eventfds. There are no events.
 */
#define DOORBELL_ATTACH_BOUND_ONLY	(1U << 4)

/**
 * DOORBELL_ATTACH_DROP - drop the events of the region before
 *
 * A flag in doorbell_attach.flags. Without it, DOORBELL_ATTACH fails with
 * ENOTEMPTY as long as rings of the region before are pending. An event names a
 * queue by its number only, so the kernel cannot hand over events of two
 * regions one after the other. DOORBELL_INFO does not show this flag.
 */
#define DOORBELL_ATTACH_DROP		(1U << 5)

/**
 * DOORBELL_ATTACH_EXACT - only what an ioeventfd would accept rings
 *
 * A flag in doorbell_attach.flags, only valid with DOORBELL_ATTACH_BOUND_ONLY.
 * A guest's write rings only if it begins at the first byte of a queue and is
 * stride bytes wide. With DOORBELL_ATTACH_BY_VALUE the whole value has to be
 * the number of a queue. With DOORBELL_ATTACH_NO_VALUE the width does not
 * matter. So a queue accepts what a KVM_IOEVENTFD with a len of stride would
 * accept (with a len of 0 for DOORBELL_ATTACH_NO_VALUE, with the queue's number
 * as datamatch for DOORBELL_ATTACH_BY_VALUE). The flag does not restrict
 * write().
 */
#define DOORBELL_ATTACH_EXACT		(1U << 6)

/**
 * struct doorbell_attach - argument of DOORBELL_ATTACH
 * @size: sizeof(struct doorbell_attach)
 * @vm_fd: file descriptor of a KVM virtual machine, or -1 for a region that
 *	only write() rings. A consumer in another process than the VM closes it
 *	after the call: as long as any descriptor of the VM or of one of its
 *	vCPUs is open, the VM does not end, and no consumer gets a hang-up.
 * @base: first guest-physical address, or first I/O port; a multiple of @stride
 * @len: bytes in the region; a multiple of @stride, 1 to DOORBELL_QUEUES_MAX
 *	times as large. @base + @len fits into 64 bits.
 * @stride: bytes per queue (notify_off_multiplier in section 4.1.4.4 of the
 *	virtio specification): a power of two from DOORBELL_STRIDE_MIN to
 *	DOORBELL_STRIDE_MAX; 0 stands for DOORBELL_STRIDE_DEFAULT
 * @flags: DOORBELL_ATTACH_* flags
 * @depth: with DOORBELL_ATTACH_ORDERED the most outstanding events, 1 to
 *	DOORBELL_DEPTH_MAX, to which DOORBELL_RECOVER can add some; otherwise 0
 * @queues: with DOORBELL_ATTACH_BY_VALUE the number of queues, 1 to
 *	DOORBELL_QUEUES_MAX; otherwise 0, and there are @len / @stride queues
 *
 * The structure can grow at its end. The kernel accepts a larger one if all
 * bytes beyond the fields that it knows are zero.
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
 * @DOORBELL_HANGUP: a region that no guest can ring any more, because KVM
 *	destroyed the VM, or gave up the bus for want of memory. KVM destroys a
 *	VM when the last descriptor of the VM and of its vCPUs is closed.
 */
enum doorbell_state {
	DOORBELL_DETACHED = 0,
	DOORBELL_ATTACHED = 1,
	DOORBELL_HANGUP = 2,
};

/**
 * DOORBELL_FEATURE_MOVE - there is DOORBELL_MOVE
 */
#define DOORBELL_FEATURE_MOVE		(1U << 0)
/**
 * DOORBELL_FEATURE_BIND - queues can be bound to eventfds
 *
 * There are DOORBELL_BIND, DOORBELL_BINDINGS, DOORBELL_ATTACH_BOUND_ONLY and
 * DOORBELL_ATTACH_EXACT.
 */
#define DOORBELL_FEATURE_BIND		(1U << 1)
/**
 * DOORBELL_FEATURE_STATUS - mapped memory has a &struct doorbell_status
 *
 * There is DOORBELL_ATTACH_DROP, and DOORBELL_ATTACH without it fails with
 * ENOTEMPTY while rings of the region before are pending.
 */
#define DOORBELL_FEATURE_STATUS		(1U << 2)
/**
 * DOORBELL_FEATURE_RECOVER - there is DOORBELL_RECOVER
 */
#define DOORBELL_FEATURE_RECOVER	(1U << 3)
/**
 * DOORBELL_FEATURES - all features that this header knows
 */
#define DOORBELL_FEATURES		(DOORBELL_FEATURE_MOVE | \
					 DOORBELL_FEATURE_BIND | \
					 DOORBELL_FEATURE_STATUS | \
					 DOORBELL_FEATURE_RECOVER)

/**
 * struct doorbell_info - result of DOORBELL_INFO
 * @size: in: sizeof(struct doorbell_info); out: the number of bytes that the
 *	kernel knows. The kernel zeroes what the caller has beyond them.
 * @state: &enum doorbell_state
 * @base: as attached, or as moved last
 * @len: as attached, in bytes
 * @stride: bytes per queue; DOORBELL_STRIDE_DEFAULT if attached with 0
 * @flags: as attached
 * @depth: as attached
 * @queues: number of queues
 * @control_size: bytes of the control area, which mmap() has at offset 0
 * @readonly_size: bytes of the read-only area, which mmap() has at offset
 *	@control_size
 * @entries_offset: bytes from the beginning of the read-only area to the FIFO,
 *	or to the entries if ordered
 * @nr_entries: number of entries there, a power of two; ordered: at least twice
 *	@depth
 * @features: DOORBELL_FEATURE_* that the module has, also before the first
 *	DOORBELL_ATTACH
 * @generation: which region of the consumer this is: 1 for the first one. It
 *	wraps from all ones to 1.
 * @rings: rings of queues since the region was attached
 * @bad_rings: bad rings since the region was attached
 * @pending: rings, bad ones included, that no event has counted yet;
 *	coalescing: not more than @rings and @bad_rings together; ordered: not
 *	more than @nr_entries, and usually not more than @depth
 * @wakeups: rings that found the consumer armed and woke it up. Attaching,
 *	reading, polling and waiting arm; one ring disarms.
 * @bounced: guests' rings that found no room in an ordered region
 * @bound_rings: those of @rings that signalled an eventfd; see DOORBELL_BIND
 *
 * All fields but @size, @state and @features describe the region attached last,
 * until the next one replaces it, and are zero if there was none. If a thread
 * attaches during the call, @base may be that of the next region; @state then
 * is DOORBELL_DETACHED. The counters are exact if no thread rings or consumes
 * during the call. The time to add them up grows with the number of queues; the
 * kernel skips that if @size ends before @rings.
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
	__u32 features;
	__u32 generation;
	__aligned_u64 rings;
	__aligned_u64 bad_rings;
	__aligned_u64 pending;
	__aligned_u64 wakeups;
	__aligned_u64 bounced;
	__aligned_u64 bound_rings;
};

/**
 * struct doorbell_move - argument of DOORBELL_MOVE
 * @size: sizeof(struct doorbell_move)
 * @vm_fd: file descriptor of the VM that the region is attached to, or -1 for a
 *	region without one. So a process that has only the consumer's descriptor
 *	cannot move the region over other devices of the VM.
 * @base: first address of the region from now on; what holds for
 *	doorbell_attach.base holds for it
 *
 * The structure can grow at its end, as struct doorbell_attach.
 */
struct doorbell_move {
	__u32 size;
	__s32 vm_fd;
	__aligned_u64 base;
};

/**
 * struct doorbell_bind - argument of DOORBELL_BIND
 * @size: sizeof(struct doorbell_bind)
 * @first: number of the first queue
 * @count: number of queues, at least 1
 * @flags: 0
 * @fds: pointer to @count descriptors, one __s32 each: of eventfds, or -1 to
 *	unbind a queue. Several queues may have the same one.
 *
 * The structure can grow at its end, as struct doorbell_attach.
 */
struct doorbell_bind {
	__u32 size;
	__u32 first;
	__u32 count;
	__u32 flags;
	__aligned_u64 fds;
};

/**
 * struct doorbell_queue_binding - what an eventfd has to do with a queue
 * @rings: rings of the queue that signalled an eventfd, since the region was
 *	attached
 * @bound: 1 if the queue is bound now, else 0
 * @reserved: 0
 */
struct doorbell_queue_binding {
	__aligned_u64 rings;
	__u32 bound;
	__u32 reserved;
};

/**
 * struct doorbell_bindings - argument of DOORBELL_BINDINGS
 * @size: sizeof(struct doorbell_bindings)
 * @first: number of the first queue
 * @count: number of queues, at least 1
 * @flags: 0
 * @bindings: pointer to @count &struct doorbell_queue_binding, which the kernel
 *	fills
 *
 * The structure can grow at its end, as struct doorbell_attach.
 */
struct doorbell_bindings {
	__u32 size;
	__u32 first;
	__u32 count;
	__u32 flags;
	__aligned_u64 bindings;
};

/**
 * DOORBELL_IOC - the ioctl type of the calls below
 */
#define DOORBELL_IOC	0xD8

/**
 * DOORBELL_ATTACH - give the consumer a region
 *
 * Takes a pointer to a &struct doorbell_attach. The VM may belong to another
 * process: its descriptor is all that the caller needs. When the call returns,
 * the rings of all vCPUs reach this consumer; they may do so before. Threads
 * that wait for events wake up and wait for those of this region. The events of
 * the region before have to be consumed, unless DOORBELL_ATTACH_DROP is set.
 *
 * The region must not intersect any other device on its KVM bus: doorbell
 * regions, ioeventfds, coalesced MMIO zones, in-kernel interrupt controllers.
 * Adjacent is fine. The VMM must not put an ioeventfd, a coalesced MMIO zone or
 * an interrupt controller into the region afterwards. Regions count as
 * ioeventfds do: they do not count towards KVM's limit of devices on a bus.
 *
 * A region does not keep its VM alive. See DOORBELL_HANGUP for its end. The
 * kernel frees a region soon after another one has replaced it, or after the
 * last descriptor and mapping are gone, but not at once.
 *
 * Context: Sleeps until the region is on the bus. The VMM can delay that
 * without limit, by a call to KVM that does not return (slots_lock). So can a
 * region in the same place that was detached or closed and cannot leave the bus
 * yet; and so can, unless DOORBELL_ATTACH_DROP is set, the region before, whose
 * last rings may yet become events. A vCPU that stays inside of KVM (kvm->srcu)
 * delays the call once 64 changes of the VM's buses wait for it, or fewer on a
 * bus with very many devices. Only a fatal signal ends the wait. An attach
 * right after a DOORBELL_DETACH also waits for an RCU grace period.
 *
 * Return: 0, or -1 with errno, and then nothing has changed:
 *
 *  - EFAULT: the structure cannot be read
 *  - E2BIG: @size is larger than a page, or bytes beyond the fields that the
 *    kernel knows are not zero
 *  - EINVAL: @size is too small; a flag is unknown or not valid with others;
 *    base, len, stride, depth or queues violates the rules above; vm_fd is open
 *    but no KVM VM
 *  - EBADF: vm_fd is neither -1 nor open
 *  - EBUSY: the consumer is attached, perhaps to a region that has hung up:
 *    detach first. Or another DOORBELL_ATTACH of it is under way
 *  - ENOTEMPTY: rings of the region before are pending
 *  - ESRCH: the process that created the VM is gone
 *  - EIO: the VM is dead: KVM refuses its own calls on it, too
 *  - EEXIST: the region intersects another device
 *  - ENOMEM: no memory, no room in the caller's memory cgroup, or KVM has given
 *    up the bus
 *  - EINTR: the caller was killed
 */
#define DOORBELL_ATTACH	_IO(DOORBELL_IOC, 0)

/**
 * DOORBELL_DETACH - detach the region
 *
 * Takes no argument: pass 0. When the call returns 0, no vCPU and no write()
 * rings the region any more, and guest writes reach the VMM as exits. The
 * consumer can still get the events of earlier rings, until the next
 * DOORBELL_ATTACH, and waits after them as if it had never been attached.
 *
 * The call does not fail for want of memory. The region's device then stays on
 * the bus for now and declines all writes, and the module tries again until it
 * has removed the device.
 *
 * A DOORBELL_MOVE that another thread has under way either has happened before,
 * or fails with ENOTCONN.
 *
 * Context: Sleeps until the region is off the bus and no vCPU is inside of the
 * handler. The VMM can delay that without limit, by a call to KVM that does not
 * return (slots_lock) or a vCPU that stays inside of KVM (kvm->srcu). Only a
 * fatal signal ends the wait. An RCU grace period follows.
 *
 * Return: 0, or -1 with errno:
 *
 *  - EINVAL: the argument is not 0
 *  - ENOTCONN: nothing is attached
 *  - EINTR: the caller was killed. The region is detached all the same and
 *    leaves the bus as soon as it can.
 */
#define DOORBELL_DETACH	_IO(DOORBELL_IOC, 1)

/**
 * DOORBELL_INFO - get state, geometry and counters
 *
 * Takes a pointer to a &struct doorbell_info in which only size is set.
 * /proc/PID/fdinfo/FD has most of it as text.
 *
 * Context: Takes no lock and waits for no other caller.
 *
 * Return: 0, or -1 with errno:
 *
 *  - EFAULT: the structure cannot be read or written
 *  - E2BIG: size is larger than a page
 *  - EINVAL: size is smaller than that of size and state together
 */
#define DOORBELL_INFO	_IO(DOORBELL_IOC, 2)

/**
 * DOORBELL_MOVE - move the region to another address
 *
 * Takes a pointer to a &struct doorbell_move. This is what a VMM calls when its
 * guest writes a BAR. The region stays on its bus, and keeps its queues,
 * mappings, bindings, pending events and consumers. The addresses before and
 * after may overlap.
 *
 * No ring is lost, and none counts twice. While the call is under way a ring
 * at either address reaches the region or the VMM. When it returns 0, a ring
 * that begins later reaches the region at the new address only, and an access
 * to the old one the VMM. To let two regions change places, move one of them
 * out of the way first.
 *
 * Context: As for the first DOORBELL_ATTACH of a consumer.
 *
 * Return: 0, or -1 with errno, and then nothing has changed:
 *
 *  - EFAULT: the structure cannot be read
 *  - E2BIG: @size is larger than a page, or bytes beyond the fields that the
 *    kernel knows are not zero
 *  - EINVAL: @size is too small; @base is no multiple of the stride, or the
 *    region would not fit there; vm_fd is open, but not the region's VM; vm_fd
 *    is not -1 for a region without a VM
 *  - EBADF: vm_fd is not open, for a region of a VM
 *  - ENOTCONN: nothing is attached, or another thread has detached the region
 *  - EPIPE: hang-up
 *  - EBUSY: another DOORBELL_MOVE of the consumer is under way
 *  - ESRCH, EIO, EEXIST, ENOMEM, EINTR: as for DOORBELL_ATTACH
 */
#define DOORBELL_MOVE	_IO(DOORBELL_IOC, 3)

/**
 * DOORBELL_BIND - bind queues to eventfds, or unbind them
 *
 * Takes a pointer to a &struct doorbell_bind. A ring of a bound queue adds 1 to
 * its eventfd, as KVM's ioeventfd does, and makes no event. This holds for
 * guests' rings and for write(), whatever the region's flags. So back ends that
 * know eventfds only (vhost, vhost-user, vDPA) can serve some queues of a
 * region. Rings of bound queues are counted: see DOORBELL_BINDINGS.
 *
 * Each ring does one of the two: it makes an event, or it signals. A ring that
 * began before the call returned may make its event after that. So a VMM that
 * binds a queue while its guest runs keeps reading, and signals the eventfd for
 * each event of that queue, also for those that come after the call.
 *
 * When the call returns 0, a ring that begins later signals the new eventfd,
 * and no eventfd that was replaced or unbound is signalled any more. Calls at
 * the same time for the same queues leave each queue with what one of them has
 * for it. Bindings keep the eventfds, which may be closed, and end soon after
 * the region: when the next one is attached, or with the last descriptor.
 *
 * The first call for a region allocates memory for all of its queues, which
 * stays as long as the region. (In a DOORBELL_ATTACH_BOUND_ONLY region
 * DOORBELL_ATTACH does that.) It is charged to the caller's memory cgroup.
 *
 * Context: Sleeps for an expedited RCU grace period if a queue was bound
 * before, and for other calls at the same time.
 *
 * Return: 0, or -1 with errno, and then nothing has changed:
 *
 *  - EFAULT: the structure or the descriptors cannot be read
 *  - E2BIG: @size is larger than a page, or bytes beyond the fields that the
 *    kernel knows are not zero
 *  - EINVAL: @size is too small; @count is 0; the region does not have all of
 *    the queues; @flags is not 0; a descriptor is not that of an eventfd
 *  - EBADF: a descriptor is neither -1 nor open
 *  - ENOTCONN: nothing is attached
 *  - EPIPE: hang-up
 *  - ENOMEM: no memory, or no room in the caller's memory cgroup
 *  - EINTR: the caller was killed
 */
#define DOORBELL_BIND	_IO(DOORBELL_IOC, 4)

/**
 * DOORBELL_BINDINGS - get which queues are bound, and their rings
 *
 * Takes a pointer to a &struct doorbell_bindings. The region is the one that is
 * attached, or was attached last.
 *
 * Context: Takes no lock and waits for no other caller.
 *
 * Return: 0, or -1 with errno:
 *
 *  - EFAULT: the structure cannot be read, or the array cannot be written
 *  - E2BIG, EINVAL: as for DOORBELL_BIND
 *  - ENOTCONN: no region was ever attached
 */
#define DOORBELL_BINDINGS	_IO(DOORBELL_IOC, 5)

/**
 * DOORBELL_RECOVER - take over from a consumer that has died
 *
 * Takes no argument: pass 0. A process that continues where another one died,
 * on the same open file, calls this before it gets events, by read() or from
 * mapped memory. No ring is lost then, wherever the other process died: the
 * kernel repeats the events that the process may not have handled. These are
 * the events of its last read(), or those from the position in
 * doorbell_control.handled on. Until they are taken, they are pending again. If
 * there is an event then, the call wakes up waiters and disarms, which
 * doorbell_info.wakeups does not count. The events of a region that another
 * DOORBELL_ATTACH has replaced do not come again.
 *
 * Ordered: the events come again as they were, before those that are pending.
 * If some of the entries from handled on are not kept any more, all that are
 * kept come again.
 *
 * Coalescing: an event that comes again counts all rings of its queue since the
 * region was attached, as the kernel does not know how many of them were
 * handled. Repeated events follow the pending ones, in the order of the numbers
 * of the queues. If later entries have overwritten one of those from handled
 * on, the events of all queues come again. Rings that a consumer of mapped
 * memory has consumed and not counted get an event, too.
 *
 * The call does no harm if there is nothing to repeat. While another process
 * gets events, though, it makes events come twice; and one that maps an ordered
 * region, and moves head at that moment, may find no more events until the next
 * DOORBELL_RECOVER. The kernel cannot know what each of several consumers has
 * handled: by the next read() of any of them, or what it stores to handled, all
 * events of earlier ones count as handled. No DOORBELL_ATTACH must be under
 * way.
 *
 * Context: Waits for a read() that is copying.
 *
 * Return: 0, or -1 with errno:
 *
 *  - EINVAL: the argument is not 0
 *  - ENOTCONN: no region was ever attached
 *  - EINTR: a signal came while the call waited (it restarts under SA_RESTART)
 */
#define DOORBELL_RECOVER	_IO(DOORBELL_IOC, 6)

/**
 * DOC: read(), write(), poll(), mmap()
 *
 * read() returns as many whole events as there are and as fit, up to 65,536,
 * and of an ordered region up to nr_entries - depth of struct doorbell_info,
 * which DOORBELL_RECOVER can repeat; or fewer if a signal comes. If there is
 * none, it waits, unless O_NONBLOCK or RWF_NOWAIT is set. It returns 0 after
 * hang-up, when no event is left. Several readers may share a descriptor: each
 * event goes to one of them, and a reader waits for one that is copying, unless
 * RWF_NOWAIT is set. If read() fails after some events, it returns the length
 * of these. Errors:
 *
 * - EINVAL: the buffer is too small for one event
 * - EAGAIN: O_NONBLOCK is set and there is no event; RWF_NOWAIT is set and
 *   there is no event, or another reader is copying, and waiters are woken up
 *   when it has ended
 * - EINTR: a signal came first (the call restarts under SA_RESTART)
 * - EFAULT: the buffer cannot be written; no event is lost
 *
 * write() rings the attached region once for each &struct doorbell_ring, in
 * order, and returns the bytes used. It never waits in a coalescing region. In
 * an ordered region that is full it waits for room for the first ring, unless
 * O_NONBLOCK or RWF_NOWAIT is set. If it fails after the first ring, or a
 * signal comes, it returns the bytes used. It fetches up to 16 rings at a time,
 * and rings none of them if it cannot read all. Errors:
 *
 * - EINVAL: the length is 0 or not a multiple of the structure's size
 * - EFAULT: the buffer cannot be read
 * - EAGAIN: O_NONBLOCK or RWF_NOWAIT is set, and an ordered region is full
 * - EINTR: a signal came while the call waited (it restarts under SA_RESTART)
 * - ENXIO: DOORBELL_ATTACH_BOUND_ONLY is set, and a record names no queue that
 *   is bound
 * - ENOTCONN: nothing is attached, or not any more after waiting
 * - EPIPE: hang-up (the kernel sends no SIGPIPE), perhaps a moment before
 *   poll() and DOORBELL_INFO report it
 *
 * poll() reports EPOLLIN | EPOLLRDNORM if there is an event to read, EPOLLOUT |
 * EPOLLWRNORM if a region is attached and write() would not wait, and EPOLLHUP
 * instead of these two after hang-up. With O_ASYNC the kernel sends SIGIO
 * (POLL_IN) when an event becomes readable and when a region is attached, and
 * POLL_HUP at hang-up.
 *
 * mmap() maps memory of the region attached, or attached last; see struct
 * doorbell_control for the protocol. A mapping is shared and lies in one of the
 * two areas. A descriptor opened O_RDONLY can map both for reading. A mapping
 * stays with its region: map again after a later DOORBELL_ATTACH. A mapping
 * counts as an open descriptor: the region stays attached until the last
 * descriptor and the last mapping are gone. A child does not inherit mappings
 * by fork(). Errors, beside those of any mmap():
 *
 * - ENOTCONN: no region was ever attached
 * - EINVAL: the mapping is private, or not within one of the two areas
 * - EACCES: write access to the read-only area, also by mprotect(); or access
 *   that the descriptor was not opened for
 * - ENOMEM: no memory for page tables
 *
 * ioctl() fails with ENOTTY for any other command.
 */

/**
 * struct doorbell_control - the control area, which the consumer writes
 * @head: position of the first entry that is not consumed. Positions begin at
 *	doorbell_info.nr_entries and never wrap. The index of a position is its
 *	remainder by doorbell_info.nr_entries, its lap is its quotient.
 * @armed: not 0: the next ring wakes up the consumer and stores 0 here
 * @reserved: do not write
 * @handled: position of the first entry whose event the consumer may not have
 *	handled; see DOORBELL_RECOVER
 * @reserved2: do not write
 * @seen: coalescing: for each slot, how many of its rings events have counted,
 *	from DOORBELL_RINGS_SHIFT on; the bits below are 0
 *
 * The kernel does not rely on the content: garbage harms those that share the
 * descriptor, and no others.
 *
 * To get events, coalescing, in C11 (and in the kernel's terms):
 *
 * 0. Handle the events of the last time. Then store head to handled,
 *    memory_order_release. Where other consumers take turns with this one,
 *    their events may not be handled: store what this one stored to head with
 *    its last events, and only if the field handled is less.
 * 1. Load fifo[index of head], memory_order_acquire (smp_load_acquire()). There
 *    is an entry if its lap, the 16 bits from DOORBELL_FIFO_LAP_SHIFT on,
 *    equals the low 16 bits of the lap of head. The bits below are the number
 *    of a slot: a queue, or doorbell_info.queues for bad rings. Note the slot,
 *    and repeat with the next position.
 * 2. Store to head the position after the last entry found,
 *    memory_order_release (smp_store_release()).
 * 3. atomic_thread_fence(memory_order_seq_cst) (smp_mb()). Without the fence a
 *    ring can get lost.
 * 4. For each slot noted, load rings, memory_order_acquire, and then value.
 *    From DOORBELL_RINGS_SHIFT on, rings - seen is the event's count. The bits
 *    of rings below are its kind. Add the count, without the kind, to seen. A
 *    count of 0 is no event: an earlier event has counted these rings. A
 *    consumer that cannot use the whole count must revisit the slot; it is not
 *    notified of the rest until the next ring of the queue. It stores no more
 *    to handled until it has handled the rest.
 *
 * To get events, ordered:
 *
 * 0. As above.
 * 1. Load word of entries[index of head], memory_order_acquire. There is an
 *    entry if its lap, the 32 bits from DOORBELL_ENTRY_LAP_SHIFT on, equals the
 *    low 32 bits of the lap of head. word and value are the event. Repeat with
 *    the next position.
 * 2. Store to head the position after the last entry found,
 *    memory_order_release. The kernel keeps nr_entries - depth of struct
 *    doorbell_info, at least depth, entries before head. So consume no more
 *    than these, and begin with step 0 again to get more.
 *
 * To wait, in both modes: store 1 to armed, fence as in step 3, and check for
 * an entry as in step 1. If there is none, wait in read(), poll() or
 * epoll_wait() (level- or edge-triggered). These calls arm and check by
 * themselves, and have armed when they report an event. So a consumer that they
 * wake up gets all events and waits again, without arming. (A multishot poll of
 * io_uring checks only when it is submitted: arm.)
 *
 * read() and mapped memory may alternate, but must not be used at the same
 * time. A store to head wakes up no producer: a write() that waits for room
 * notices it at the next tick of the clock, and only read() signals EPOLLOUT.
 */
struct doorbell_control {
	__aligned_u64 head;
	__u32 armed;
	__u32 reserved;
	__aligned_u64 handled;
	__u32 reserved2[10];
	__aligned_u64 seen[];
};

/**
 * DOORBELL_STATUS_DROPPED - DOORBELL_ATTACH_DROP has dropped the events
 */
#define DOORBELL_STATUS_DROPPED		(1U << 0)

/**
 * struct doorbell_status - the first 64 bytes of the read-only area
 * @state: &enum doorbell_state of the region; it stays DOORBELL_DETACHED when
 *	another region replaces this one
 * @generation: doorbell_info.generation of the region, until another region
 *	replaces it; then that of the other region. The mapping still shows the
 *	old region: map again.
 * @flags: DOORBELL_STATUS_* flags, at least as new as @generation
 * @reserved: 0
 *
 * The kernel writes it. A consumer loads @generation, memory_order_acquire. If
 * it has changed, and the consumer then finds no entry, there is no event left
 * in the old region. The same holds for DOORBELL_HANGUP in @state.
 *
 * To map a region: get doorbell_info, map both areas, and load @generation. If
 * it is doorbell_info.generation, both are of that region; if not, another
 * region was attached in between: begin again.
 */
struct doorbell_status {
	__u32 state;
	__u32 generation;
	__u32 flags;
	__u32 reserved[13];
};

/**
 * struct doorbell_slot - coalescing: state of a queue, which the kernel writes
 * @value: the last value written
 * @rings: number of rings ever, modulo 2^48, from DOORBELL_RINGS_SHIFT on; the
 *	bits below are the kind of the last ring: its type, and from
 *	DOORBELL_KIND_WIDTH_SHIFT on its width
 * @pos: position of the queue's last entry in the FIFO; 0 before the first; all
 *	ones while a producer claims one
 *
 * In the read-only area, doorbell_info.queues slots follow struct
 * doorbell_status, one for each queue, and one more for bad rings. The FIFO of
 * slot numbers, one __u32 each, comes last. @rings is useful for statistics,
 * too.
 */
struct doorbell_slot {
	__aligned_u64 value;
	__aligned_u64 rings;
	__aligned_u64 pos;
};

/**
 * DOORBELL_RINGS_SHIFT - where the count begins in doorbell_slot.rings
 */
#define DOORBELL_RINGS_SHIFT		16
/**
 * DOORBELL_KIND_WIDTH_SHIFT - where the width begins in a kind
 */
#define DOORBELL_KIND_WIDTH_SHIFT	8
/**
 * DOORBELL_FIFO_LAP_SHIFT - where the lap begins in an entry of the FIFO
 */
#define DOORBELL_FIFO_LAP_SHIFT		16

/**
 * struct doorbell_entry - ordered: one ring, which the kernel writes
 * @word: the lap from DOORBELL_ENTRY_LAP_SHIFT on, the kind from
 *	DOORBELL_ENTRY_KIND_SHIFT on; the bits below are the number of the
 *	queue, or DOORBELL_QUEUE_NONE for a bad ring
 * @value: the value written, or the bad address
 *
 * In the read-only area these follow struct doorbell_status.
 */
struct doorbell_entry {
	__aligned_u64 word;
	__aligned_u64 value;
};

/**
 * DOORBELL_ENTRY_KIND_SHIFT - where the kind begins in doorbell_entry.word
 */
#define DOORBELL_ENTRY_KIND_SHIFT	16
/**
 * DOORBELL_ENTRY_LAP_SHIFT - where the lap begins in doorbell_entry.word
 */
#define DOORBELL_ENTRY_LAP_SHIFT	32

#endif /* _UAPI_LINUX_DOORBELL_H */
