/* SPDX-License-Identifier: LGPL-2.1 OR MIT */
/**
 * DOC: libdoorbell - consumer side of /dev/doorbell
 *
 * The library takes events from mapped memory, or by read() where it cannot map
 * the memory; the caller sees no difference. <linux/doorbell.h> describes the
 * structures.
 *
 * Functions return 0 or more on success and a negative errno on failure, unless
 * their description says otherwise. One thread at a time may use a struct
 * doorbell.
 */
#ifndef LIBDOORBELL_H
#define LIBDOORBELL_H

#include <linux/doorbell.h>

#ifdef __cplusplus
extern "C" {
#endif

struct doorbell;

/**
 * DOORBELL_OPEN_READ - take events by read() only, never map memory
 */
#define DOORBELL_OPEN_READ	(1U << 0)
/**
 * DOORBELL_OPEN_NO_RECOVER - doorbell_from_fd() repeats no events
 */
#define DOORBELL_OPEN_NO_RECOVER	(1U << 1)

/**
 * typedef doorbell_notify_fn - function that doorbell_complete() calls
 * @queue: number of the queue, or DOORBELL_QUEUE_NONE for a bad ring
 * @event: the event
 * @ctx: pointer that the caller of doorbell_complete() passed
 *
 * The function may call any function of the library except doorbell_close().
 *
 * Return: 0 to continue. doorbell_complete() returns any other value at once.
 */
typedef int (*doorbell_notify_fn)(unsigned int queue,
				  const struct doorbell_event *event,
				  void *ctx);

/**
 * doorbell_open() - open a consumer with nothing attached
 * @flags: DOORBELL_OPEN_* flags
 *
 * Return: the consumer, or NULL with errno.
 */
struct doorbell *doorbell_open(unsigned int flags);

/**
 * doorbell_from_fd() - make a consumer of a descriptor of /dev/doorbell
 * @fd: the descriptor, from a socket or a parent. It belongs to the consumer if
 *	the call succeeds, and stays the caller's if the call fails.
 * @flags: DOORBELL_OPEN_* flags
 *
 * If several consumers share one open file and take events at the same time, in
 * threads or in processes, all of them must use DOORBELL_OPEN_READ, and those
 * that join the others DOORBELL_OPEN_NO_RECOVER.
 *
 * If another process attaches another region to the open file,
 * doorbell_take() and doorbell_complete() take the events of the old region
 * that are left, and then go on with the new one. If the open file has no
 * region yet, they begin with the first one. A consumer that waits in
 * epoll_wait() or poll() calls doorbell_arm() each time before it waits, and
 * takes events again if that returns 1.
 *
 * The function takes over from a consumer that has died, by DOORBELL_RECOVER:
 * events that it may not have handled come again. These are:
 *
 * - what doorbell_take() returned last, until the next call that takes events,
 *   until a later callback returns, or until doorbell_close() with mapped
 *   memory;
 * - coalescing: the events of the last batch of doorbell_complete(), up to 64,
 *   until the last one is handled;
 * - ordered: those of the batch whose callback has not returned.
 *
 * A callback that takes events says that its own one is handled. Without mapped
 * memory, the whole batch of doorbell_complete() comes again, until the next
 * one, in both modes. With DOORBELL_OPEN_NO_RECOVER nothing comes again: for a
 * consumer that joins others at work, or follows one that ended in order and
 * used read().
 *
 * Return: the consumer, or NULL with errno: EBADF if @fd is not open, usually
 * ENOTTY if it is another file than /dev/doorbell.
 */
struct doorbell *doorbell_from_fd(int fd, unsigned int flags);

/**
 * doorbell_close() - close the descriptor and free the consumer
 * @db: the consumer, or NULL
 *
 * A child of fork() does not inherit the mapped memory: it must not use the
 * consumer, not even with this function. It may pass doorbell_fd() to
 * doorbell_from_fd(), or close it.
 *
 * The events that are left stay as long as another descriptor of the same open
 * file exists. Those that doorbell_complete() took and did not hand over come
 * again for doorbell_from_fd().
 */
void doorbell_close(struct doorbell *db);

/**
 * doorbell_fd() - get the descriptor, for poll(), epoll and passing on
 * @db: the consumer
 *
 * Return: the descriptor. It still belongs to @db.
 */
int doorbell_fd(const struct doorbell *db);

/**
 * doorbell_attach_region() - attach a region by DOORBELL_ATTACH
 * @db: the consumer
 * @arg: the region; the function fills in its size
 *
 * With DOORBELL_ATTACH_DROP, events of the region before that the caller did
 * not take are dropped. Without it the call fails with -ENOTEMPTY if there are
 * any, in the kernel or in the library: take them first.
 *
 * Return: 0, or a negative errno of DOORBELL_ATTACH.
 */
int doorbell_attach_region(struct doorbell *db,
			   const struct doorbell_attach *arg);

/**
 * doorbell_detach_region() - detach the region by DOORBELL_DETACH
 * @db: the consumer
 *
 * The caller can still take the events of earlier rings.
 *
 * Return: 0, or a negative errno of DOORBELL_DETACH.
 */
int doorbell_detach_region(struct doorbell *db);

/**
 * doorbell_move_region() - move the region by DOORBELL_MOVE
 * @db: the consumer
 * @vm_fd: the region's VM, or -1
 * @base: first address of the region from now on
 *
 * Queues, bindings, mapped memory and events stay.
 *
 * Return: 0, or a negative errno of DOORBELL_MOVE.
 */
int doorbell_move_region(struct doorbell *db, int vm_fd, __u64 base);

/**
 * doorbell_bind_queues() - bind queues to eventfds by DOORBELL_BIND
 * @db: the consumer
 * @first: number of the first queue
 * @count: number of queues, at least 1
 * @fds: @count descriptors of eventfds, or -1 to unbind a queue; the caller may
 *	close them after the call
 *
 * A ring of a bound queue signals its eventfd and makes no event. The caller
 * can still take the events of earlier rings. After the call, eventfds that
 * were unbound or replaced are signalled no more.
 *
 * Return: 0, or a negative errno of DOORBELL_BIND, and no binding has changed.
 */
int doorbell_bind_queues(struct doorbell *db, unsigned int first,
			 unsigned int count, const int *fds);

/**
 * doorbell_get_bindings() - get what is bound, by DOORBELL_BINDINGS
 * @db: the consumer
 * @first: number of the first queue
 * @count: number of queues, at least 1
 * @bindings: array of @count for the result
 *
 * Return: 0, or a negative errno of DOORBELL_BINDINGS.
 */
int doorbell_get_bindings(const struct doorbell *db, unsigned int first,
			  unsigned int count,
			  struct doorbell_queue_binding *bindings);

/**
 * doorbell_get_info() - get state, geometry and counters by DOORBELL_INFO
 * @db: the consumer
 * @info: the result
 *
 * Return: 0, or a negative errno of DOORBELL_INFO.
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
 * doorbell_take() - take events, without waiting
 * @db: the consumer
 * @events: array for the events
 * @max: room in @events; one call takes at most 65,536 events
 *
 * The call never waits, even if the descriptor is blocking and other readers
 * share it.
 *
 * Return: number of events, 0 if there are none, or a negative errno. It can be
 * less than @max although there are more: of an ordered region not more than
 * can come again after a crash. So a consumer that waits for an edge (EPOLLET)
 * calls the function until it returns 0.
 */
int doorbell_take(struct doorbell *db, struct doorbell_event *events,
		  unsigned int max);

/**
 * doorbell_arm() - arm the wake-up before epoll_wait() or poll()
 * @db: the consumer
 *
 * The function arms and re-checks, usually without a system call. poll(),
 * epoll_wait() and read() arm when they check the descriptor. So a consumer
 * that one of them woke up, and that took all events, can wait again without
 * this call.
 *
 * Return: 1 if there are events to take, 0 if the caller can wait, or a
 * negative errno.
 */
int doorbell_arm(struct doorbell *db);

/**
 * doorbell_wait() - wait for events
 * @db: the consumer
 * @timeout: milliseconds, or -1 to wait for ever
 *
 * If another process detaches the region, the function waits for the next one:
 * see doorbell_complete().
 *
 * Return: 1 if there are events to take, 0 after @timeout, -EPIPE after hang-up
 * if no event is left, or another negative errno. Now and then doorbell_take()
 * finds none after a 1: wait again.
 */
int doorbell_wait(struct doorbell *db, int timeout);

/**
 * doorbell_complete() - call a function for each event, and wait for more
 * @db: the consumer
 * @notify: function to call for each event, in order
 * @ctx: pointer to pass to @notify
 *
 * complete() of Fuchsia's GuestBellTrap. If @notify ends the call, the events
 * after that one are not lost: the next call of this function, doorbell_take(),
 * doorbell_wait() or doorbell_arm() finds them first.
 *
 * DOORBELL_DETACH in another process does not end this function, because that
 * process may attach another region. To end such a consumer,
 *
 * - ring an address outside of the region by write() before you detach it, and
 *   let @notify return non-zero for DOORBELL_EVENT_BAD_ADDRESS; but not in a
 *   coalescing region where the value names the queue: there a guest's own bad
 *   rings can hide this event; or
 * - do not call this function: wait for doorbell_fd() and an eventfd of your
 *   own in epoll_wait(), and call doorbell_take(); or
 * - kill the process. A signal with a handler does not end the call.
 *
 * Return: 0 after hang-up, when no event is left; the value that @notify
 * returned, if not 0; or a negative errno.
 */
int doorbell_complete(struct doorbell *db, doorbell_notify_fn notify,
		      void *ctx);

#ifdef __cplusplus
}
#endif

#endif /* LIBDOORBELL_H */
