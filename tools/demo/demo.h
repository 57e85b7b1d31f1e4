/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The protocol of the two demo programs, over a Unix socket.
 */
#ifndef DOORBELL_DEMO_H
#define DOORBELL_DEMO_H

#include <linux/types.h>

/* The VMM's first message, with the descriptors of the VM and its memory */
struct demo_hello {
	__u64 base;
	__u64 len;
	__u32 stride;
	__u32 queues;
	__u32 vcpus;
};

/* All later messages are single bytes. */
#define DEMO_ATTACHED	'a'	/* consumer to VMM: the guest may start */
#define DEMO_STOPPED	's'	/* VMM to consumer: the guest has stopped */
#define DEMO_BYE	'b'	/* consumer to VMM: counters compared */

#endif /* DOORBELL_DEMO_H */
