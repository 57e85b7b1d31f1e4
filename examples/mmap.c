// SPDX-License-Identifier: LGPL-2.1 OR MIT
/*
 * Mapped memory without the library, in C11: attach, ring three queues by
 * write(), consume. Documentation/userspace-api.rst has the functions before
 * main(); struct doorbell_control in <linux/doorbell.h> explains the steps.
 */
#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/ioctl.h>
#include <sys/mman.h>

#include <linux/doorbell.h>

static struct doorbell_info info = { .size = sizeof(info) };
static _Atomic uint64_t *head, *handled, *seen;
static _Atomic uint32_t *armed, *fifo, *generation;
static struct doorbell_slot *slots;

/* Has another region taken the place of the one that is mapped? */
bool replaced(void)
{
	return atomic_load_explicit(generation, memory_order_acquire) !=
	       info.generation;
}

/* False if that fails, or if a region is attached at this moment. */
bool map(int fd)
{
	struct doorbell_control *control;
	struct doorbell_status *status;

	if (ioctl(fd, DOORBELL_INFO, &info))
		return false;
	control = mmap(NULL, info.control_size, PROT_READ | PROT_WRITE,
		       MAP_SHARED, fd, 0);
	status = mmap(NULL, info.readonly_size, PROT_READ, MAP_SHARED, fd,
		      info.control_size);
	if (control == MAP_FAILED || status == MAP_FAILED)
		goto unmap;
	generation = (void *)&status->generation;
	slots = (void *)(status + 1);
	fifo = (void *)((char *)status + info.entries_offset);
	head = (void *)&control->head;
	armed = (void *)&control->armed;
	handled = (void *)&control->handled;
	seen = (void *)control->seen;
	if (!replaced())
		return true;
unmap:
	if (control != MAP_FAILED)
		munmap(control, info.control_size);
	if (status != MAP_FAILED)
		munmap(status, info.readonly_size);
	return false;
}

/* Step 1: the slot at a position; false if there is no entry yet. */
static bool peek(uint64_t at, uint32_t *slot)
{
	uint32_t entry =
		atomic_load_explicit(&fifo[at & (info.nr_entries - 1)],
				     memory_order_acquire);

	*slot = entry & ((1U << DOORBELL_FIFO_LAP_SHIFT) - 1);
	return entry >> DOORBELL_FIFO_LAP_SHIFT ==
	       (uint16_t)(at / info.nr_entries);
}

/*
 * Consume one entry; false if there is none. A count of 0 is no event. The
 * caller has handled the event before.
 */
bool consume(uint32_t *slot, uint64_t *count, uint64_t *value)
{
	uint64_t at = atomic_load_explicit(head, memory_order_relaxed);
	_Atomic uint64_t *from;
	uint64_t rings, old;

	atomic_store_explicit(handled, at, memory_order_release); /* 0 */
	if (!peek(at, slot))
		return false;
	atomic_store_explicit(head, at + 1, memory_order_release); /* 2 */
	atomic_thread_fence(memory_order_seq_cst); /* 3 */
	from = (void *)&slots[*slot].rings; /* 4 */
	rings = atomic_load_explicit(from, memory_order_acquire);
	from = (void *)&slots[*slot].value;
	*value = atomic_load_explicit(from, memory_order_relaxed);
	old = atomic_load_explicit(&seen[*slot], memory_order_relaxed);
	*count = (rings - old) >> DOORBELL_RINGS_SHIFT;
	atomic_store_explicit(&seen[*slot],
			      old + (*count << DOORBELL_RINGS_SHIFT),
			      memory_order_relaxed);
	return true;
}

/* Before poll(), epoll_wait() or read(): true if it is safe to sleep. */
bool arm(void)
{
	uint32_t slot;

	atomic_store_explicit(armed, 1, memory_order_relaxed);
	atomic_thread_fence(memory_order_seq_cst);
	return !peek(atomic_load_explicit(head, memory_order_relaxed),
		     &slot) && !replaced();
}

/* A whole program, without a VM */

#include <err.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <unistd.h>

int main(void)
{
	static const struct doorbell_ring rings[] = {
		{ 80, 5 }, { 88, 6 }, { 84, 7 }, { 88, 8 },
	};
	struct doorbell_attach arg = {
		.size = sizeof(arg),
		.vm_fd = -1,
		.base = 80,
		.len = 12,
	};
	struct pollfd pfd = { .events = POLLIN };
	uint64_t count, value, all = 0;
	uint32_t slot;

	pfd.fd = open("/dev/doorbell", O_RDWR | O_CLOEXEC);
	if (pfd.fd < 0)
		err(1, "/dev/doorbell");
	if (ioctl(pfd.fd, DOORBELL_ATTACH, &arg) || !map(pfd.fd))
		err(1, "cannot attach and map");
	if (write(pfd.fd, rings, sizeof(rings)) != sizeof(rings))
		err(1, "write");

	while (all < 4) {
		if (arm() && poll(&pfd, 1, -1) < 0)
			err(1, "poll");
		while (consume(&slot, &count, &value)) {
			if (!count)
				continue;
			printf("queue %" PRIu32 ": %" PRIu64 " rings, last %#"
			       PRIx64 "\n", slot, count, value);
			all += count;
		}
	}
	close(pfd.fd);
	return 0;
}
