/* SPDX-License-Identifier: LGPL-2.1 OR MIT */
/*
 * libdoorbell: the consumer side of /dev/doorbell, without system calls where
 * it can.
 *
 * Events are taken from mapped memory, or by read() where the memory cannot be
 * mapped; the caller sees no difference. <linux/doorbell.h> has the structures
 * and tells what they mean.
 *
 * Functions return 0 or more on success and a negative errno on failure, unless
 * they say otherwise. One thread at a time may use a struct doorbell.
 */
#ifndef LIBDOORBELL_H
#define LIBDOORBELL_H

#include <linux/doorbell.h>

#ifdef __cplusplus
extern "C" {
#endif

struct doorbell;

/** DOORBELL_OPEN_READ - take events by read() only, never map memory */
#define DOORBELL_OPEN_READ	(1U << 0)

/**
 * typedef doorbell_notify_fn - what doorbell_complete() calls for each event
 * @queue: number of the queue, or DOORBELL_QUEUE_NONE for a bad ring
 * @event: the event
 * @ctx: as given to doorbell_complete()
 *
 * Return: 0 to go on; anything else ends doorbell_complete(), which returns it.
 */
typedef int (*doorbell_notify_fn)(unsigned int queue,
				  const struct doorbell_event *event,
				  void *ctx);

/**
 * doorbell_open() - a new consumer, with nothing attached
 * @flags: 0 or DOORBELL_OPEN_READ
 *
 * Return: the consumer, or NULL with errno.
 */
struct doorbell *doorbell_open(unsigned int flags);

/**
 * doorbell_from_fd() - a consumer from a descriptor of /dev/doorbell
 * @fd: the descriptor, from a socket or a parent; owned by the consumer if the
 *	call succeeds, else still by the caller
 * @flags: 0 or DOORBELL_OPEN_READ
 *
 * Whoever attaches another region through another descriptor of the same open
 * file has to tell: memory mapped from the region before is not followed.
 *
 * Return: the consumer, or NULL with errno: EBADF or ENOTTY if @fd is no
 * descriptor of /dev/doorbell.
 */
struct doorbell *doorbell_from_fd(int fd, unsigned int flags);

/**
 * doorbell_close() - close the descriptor and free the consumer
 * @db: the consumer, or NULL
 */
void doorbell_close(struct doorbell *db);

/**
 * doorbell_fd() - the descriptor, for poll(), epoll and passing on
 * @db: the consumer
 */
int doorbell_fd(const struct doorbell *db);

/**
 * doorbell_attach_region() - DOORBELL_ATTACH
 * @db: the consumer
 * @arg: what to attach; its size is filled in
 */
int doorbell_attach_region(struct doorbell *db,
			   const struct doorbell_attach *arg);

/**
 * doorbell_detach_region() - DOORBELL_DETACH; what was rung can still be taken
 * @db: the consumer
 */
int doorbell_detach_region(struct doorbell *db);

/**
 * doorbell_get_info() - DOORBELL_INFO
 * @db: the consumer
 * @info: filled in
 */
int doorbell_get_info(const struct doorbell *db, struct doorbell_info *info);

/**
 * doorbell_ring_addr() - ring the region as a guest would
 * @db: the consumer
 * @addr: address to ring
 * @value: value to write
 *
 * Return: 0, or a negative errno of write() on /dev/doorbell.
 */
int doorbell_ring_addr(struct doorbell *db, __u64 addr, __u64 value);

/**
 * doorbell_take() - take the events there are, without waiting
 * @db: the consumer
 * @events: filled
 * @max: room in @events
 *
 * Return: number of events, less than @max only if there are no more, or a
 * negative errno.
 */
int doorbell_take(struct doorbell *db, struct doorbell_event *events,
		  unsigned int max);

/**
 * doorbell_arm() - ask to be woken, before sleeping in epoll_wait() or poll()
 * @db: the consumer
 *
 * Arms and takes a last look, without a system call where memory is mapped.
 * poll(), epoll_wait() and read() arm by themselves whenever they look: who was
 * woken by them and has taken all there was can sleep again without this.
 *
 * Return: 1 if there is something to take now, 0 if it is safe to sleep, or a
 * negative errno.
 */
int doorbell_arm(struct doorbell *db);

/**
 * doorbell_wait() - wait until there is something to take
 * @db: the consumer
 * @timeout: milliseconds, or -1 for ever
 *
 * Return: 1 if there is something to take, 0 if time is up, -EPIPE if the VM's
 * process is gone and everything was taken, or another negative errno.
 */
int doorbell_wait(struct doorbell *db, int timeout);

/**
 * doorbell_complete() - call a function for each event, waiting for more
 * @db: the consumer
 * @notify: called for each event, in order
 * @ctx: handed to @notify
 *
 * complete() of Fuchsia's GuestBellTrap.
 *
 * Return: 0 at the end: the VM's process is gone and everything was taken; what
 * @notify returned, if not 0; or a negative errno.
 */
int doorbell_complete(struct doorbell *db, doorbell_notify_fn notify,
		      void *ctx);

#ifdef __cplusplus
}
#endif

#endif /* LIBDOORBELL_H */
