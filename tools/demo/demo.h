/* SPDX-License-Identifier: GPL-2.0 */
/*
 * What the two programs of the demo say to each other over a Unix socket.
 */
#ifndef DOORBELL_DEMO_H
#define DOORBELL_DEMO_H

#include <linux/types.h>

/* The VMM's first message; the VM's and its memory's descriptors come with it */
struct demo_hello {
	__u64 base;
	__u64 len;
	__u32 stride;
	__u32 queues;
	__u32 vcpus;
};

/* Then single bytes: */
#define DEMO_ATTACHED	'a'	/* consumer to VMM: the guest may start */
#define DEMO_STOPPED	's'	/* VMM to consumer: the guest has stopped */
#define DEMO_BYE	'b'	/* consumer to VMM: counters are compared */

#endif /* DOORBELL_DEMO_H */
