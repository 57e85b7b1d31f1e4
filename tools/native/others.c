// SPDX-License-Identifier: GPL-2.0
/*
 * Others: paths to compare with: eventfds, one for each queue, and liburcu's
 * queue of many producers and one consumer.
 */
#define _LGPL_SOURCE	/* inline the functions of liburcu */
#include <err.h>
#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <unistd.h>

#include <urcu/wfcqueue.h>

#include "native.h"

#define READY	256

/* eventfd: as with KVM's ioeventfd, the queue is the descriptor that is ready.
 * The values are in memory.
 */
static struct eventfd {
	int fd;
	uint64_t value;
} *eventfds;
static struct epoll_event ready[READY];
static unsigned int nr_eventfds;
static int nr_ready, next_ready;
static int epoll;

static void eventfd_create(unsigned int queues, unsigned int depth)
{
	struct epoll_event event = { .events = EPOLLIN };
	struct rlimit limit;
	unsigned int q;

	(void)depth;
	if (getrlimit(RLIMIT_NOFILE, &limit))
		err(2, "getrlimit");
	limit.rlim_cur = limit.rlim_max;
	if (setrlimit(RLIMIT_NOFILE, &limit))
		err(2, "setrlimit");
	epoll = epoll_create1(EPOLL_CLOEXEC);
	nr_eventfds = queues;
	eventfds = calloc(queues, sizeof(*eventfds));
	if (epoll < 0 || !eventfds)
		err(2, "epoll");
	for (q = 0; q < queues; q++) {
		eventfds[q].fd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
		event.data.u32 = q;
		if (eventfds[q].fd < 0 ||
		    epoll_ctl(epoll, EPOLL_CTL_ADD, eventfds[q].fd, &event))
			err(2, "eventfd %u of %u", q, queues);
	}
}

static void eventfd_destroy(void)
{
	while (nr_eventfds--)
		close(eventfds[nr_eventfds].fd);
	free(eventfds);
	close(epoll);
}

static bool eventfd_ring(unsigned int queue, uint64_t value)
{
	uint64_t one = 1;

	__atomic_store_n(&eventfds[queue].value, value, __ATOMIC_RELEASE);
	return write(eventfds[queue].fd, &one, sizeof(one)) == sizeof(one);
}

static unsigned int eventfd_get(struct doorbell_event *events,
				unsigned int max)
{
	unsigned int n, q;
	uint64_t count;

	for (n = 0; n < max && next_ready < nr_ready; next_ready++) {
		q = ready[next_ready].data.u32;
		if (read(eventfds[q].fd, &count, sizeof(count)) < 0)
			continue;
		events[n++] = (struct doorbell_event) {
			.queue = q,
			.type = DOORBELL_EVENT_QUEUE,
			.width = 8,
			.count = count,
			.value = __atomic_load_n(&eventfds[q].value,
						 __ATOMIC_ACQUIRE),
		};
	}
	return n;
}

/* One call for each batch, as an event loop does */
static bool eventfd_sleep(void)
{
	next_ready = 0;
	nr_ready = epoll_wait(epoll, ready, READY, PATIENCE * 1000);
	return nr_ready > 0;
}

const struct path eventfd_path = {
	.name = "eventfd",
	.create = eventfd_create,
	.ring = eventfd_ring,
	.get = eventfd_get,
	.sleep = eventfd_sleep,
	.destroy = eventfd_destroy,
};

/* wfcqueue: each queue has one record, which is rung again after its event. It
 * does not wake up its consumer: the rest is as in doorbell_claim_wakeup().
 */
static struct record {
	struct cds_wfcq_node node;
	uint32_t queue;
	uint64_t value;
} *records;
static struct cds_wfcq_tail tail, local_tail;
static struct __cds_wfcq_head head, local_head;
static uint32_t armed __attribute__((aligned(64)));

static void wfcqueue_create(unsigned int queues, unsigned int depth)
{
	(void)depth;
	records = calloc(queues, sizeof(*records));
	if (!records)
		err(2, "records");
	__cds_wfcq_init(&head, &tail);
	__cds_wfcq_init(&local_head, &local_tail);
}

static void wfcqueue_destroy(void)
{
	free(records);
}

static bool wfcqueue_ring(unsigned int queue, uint64_t value)
{
	struct record *record = &records[queue];

	record->queue = queue;
	record->value = value;
	cds_wfcq_node_init(&record->node);
	/* an xchg(), before armed, pairs with wfcqueue_ready() */
	cds_wfcq_enqueue(&head, &tail, &record->node);
	if (__atomic_load_n(&armed, __ATOMIC_RELAXED) &&
	    __atomic_exchange_n(&armed, 0, __ATOMIC_SEQ_CST))
		wake_up(&consumer);
	return true;
}

/* All that there are move to the local queue, which costs least. */
static unsigned int wfcqueue_get(struct doorbell_event *events,
				 unsigned int max)
{
	struct cds_wfcq_node *node;
	struct record *record;
	unsigned int n;

	if (cds_wfcq_empty(&local_head, &local_tail))
		__cds_wfcq_splice_blocking(&local_head, &local_tail, &head,
					   &tail);
	for (n = 0; n < max; n++) {
		node = __cds_wfcq_dequeue_blocking(&local_head, &local_tail);
		if (!node)
			break;
		record = caa_container_of(node, struct record, node);
		events[n] = (struct doorbell_event) {
			.queue = record->queue,
			.type = DOORBELL_EVENT_QUEUE,
			.width = 8,
			.count = 1,
			.value = record->value,
		};
	}
	return n;
}

static bool wfcqueue_ready(void)
{
	__atomic_store_n(&armed, 1, __ATOMIC_SEQ_CST);
	return !cds_wfcq_empty(&head, &tail);
}

static bool wfcqueue_sleep(void)
{
	return sleep_unless(&consumer, wfcqueue_ready);
}

const struct path wfcqueue_path = {
	.name = "wfcqueue",
	.create = wfcqueue_create,
	.ring = wfcqueue_ring,
	.get = wfcqueue_get,
	.sleep = wfcqueue_sleep,
	.destroy = wfcqueue_destroy,
};
