/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Native: ways for records of threads to reach one consumer.
 */
#ifndef _DOORBELL_NATIVE_H
#define _DOORBELL_NATIVE_H

#include <stdbool.h>
#include <stdint.h>

#include <linux/doorbell.h>

/* Seconds after which a consumer that sleeps gives up, for what never ends */
#define PATIENCE	10

/**
 * struct path - a way from producers to the consumer
 * @name: for people
 * @create: prepare @queues queues; @depth is that of DOORBELL_ATTACH
 * @ring: give the consumer a record: false if there is no room
 * @room: wait for room; may return early
 * @get: get up to @max events, without waiting
 * @sleep: the consumer found nothing: sleep. false if PATIENCE is over
 * @destroy: undo @create
 *
 * One is in use at a time. A failed @create ends the program.
 */
struct path {
	const char *name;
	void (*create)(unsigned int queues, unsigned int depth);
	bool (*ring)(unsigned int queue, uint64_t value);
	void (*room)(void);
	unsigned int (*get)(struct doorbell_event *events, unsigned int max);
	bool (*sleep)(void);
	void (*destroy)(void);
};

extern const struct path read_path, mapped_path, eventfd_path, wfcqueue_path;

/**
 * struct sleeper - a thread that waits, and those that wake it
 * @wakeups: so many there were
 * @sleeping: number of threads that need the system call to wake up
 */
struct sleeper {
	uint32_t wakeups;
	uint32_t sleeping;
};

extern struct sleeper consumer;

/**
 * wake_up() - wake the threads that sleep
 * @sleeper: where they sleep
 */
void wake_up(struct sleeper *sleeper);

/**
 * sleep_unless() - sleep until woken
 * @sleeper: where to sleep
 * @ready: is there a reason not to sleep? Wake-ups from before the call to it
 *	on count.
 *
 * Return: false if nothing woke the thread for PATIENCE.
 */
bool sleep_unless(struct sleeper *sleeper, bool (*ready)(void));

#endif /* _DOORBELL_NATIVE_H */
