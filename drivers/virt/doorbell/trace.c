// SPDX-License-Identifier: GPL-2.0
/*
 * Trace: the code behind the tracepoints of trace.h, and whether a ring has to
 * look at them.
 */
#include <linux/jump_label.h>

#include "region.h"

#define CREATE_TRACE_POINTS
#include "trace.h"

DEFINE_STATIC_KEY_FALSE(doorbell_tracing);

/**
 * doorbell_trace_reg() - ring, wake or bounce gets its first user
 *
 * Return: 0.
 */
int doorbell_trace_reg(void)
{
	static_branch_inc(&doorbell_tracing);
	return 0;
}

/**
 * doorbell_trace_unreg() - ring, wake or bounce loses its last user
 */
void doorbell_trace_unreg(void)
{
	static_branch_dec(&doorbell_tracing);
}
