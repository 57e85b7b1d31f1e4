// SPDX-License-Identifier: GPL-2.0
/*
 * Rules: those of DOORBELL_ATTACH, as <linux/doorbell.h> has them.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "rules.h"

#define KNOWN_FLAGS	(DOORBELL_ATTACH_PIO | DOORBELL_ATTACH_ORDERED |  \
			 DOORBELL_ATTACH_BY_VALUE |			  \
			 DOORBELL_ATTACH_NO_VALUE |			  \
			 DOORBELL_ATTACH_BOUND_ONLY | DOORBELL_ATTACH_DROP | \
			 DOORBELL_ATTACH_EXACT)
#define PORTS		65536

/* In bytes, or 0 if it is none */
static uint64_t stride_of(const struct doorbell_attach *arg)
{
	uint64_t stride = arg->stride ?: DOORBELL_STRIDE_DEFAULT;

	return stride & (stride - 1) || stride < DOORBELL_STRIDE_MIN ||
	       stride > DOORBELL_STRIDE_MAX ? 0 : stride;
}

static bool flags_broken(const struct doorbell_attach *arg)
{
	return arg->flags & ~KNOWN_FLAGS;
}

static bool no_value_broken(const struct doorbell_attach *arg)
{
	return arg->flags & DOORBELL_ATTACH_NO_VALUE &&
	       arg->flags & (DOORBELL_ATTACH_PIO | DOORBELL_ATTACH_BY_VALUE);
}

static bool exact_broken(const struct doorbell_attach *arg)
{
	return arg->flags & DOORBELL_ATTACH_EXACT &&
	       !(arg->flags & DOORBELL_ATTACH_BOUND_ONLY);
}

static bool depth_broken(const struct doorbell_attach *arg)
{
	bool ordered = arg->flags & DOORBELL_ATTACH_ORDERED;

	return ordered != !!arg->depth || arg->depth > DOORBELL_DEPTH_MAX;
}

static bool queues_broken(const struct doorbell_attach *arg)
{
	bool by_value = arg->flags & DOORBELL_ATTACH_BY_VALUE;

	return by_value != !!arg->queues || arg->queues > DOORBELL_QUEUES_MAX;
}

static bool stride_broken(const struct doorbell_attach *arg)
{
	return !stride_of(arg);
}

static bool base_broken(const struct doorbell_attach *arg)
{
	return stride_of(arg) && arg->base % stride_of(arg);
}

static bool len_broken(const struct doorbell_attach *arg)
{
	return stride_of(arg) && arg->len % stride_of(arg);
}

static bool size_broken(const struct doorbell_attach *arg)
{
	return !arg->len || (stride_of(arg) && arg->len / stride_of(arg) >
					       DOORBELL_QUEUES_MAX);
}

static bool end_broken(const struct doorbell_attach *arg)
{
	return arg->base + arg->len < arg->base;
}

static bool ports_broken(const struct doorbell_attach *arg)
{
	return arg->flags & DOORBELL_ATTACH_PIO &&
	       (arg->len > PORTS || arg->base > PORTS - arg->len);
}

static const struct rule {
	const char *name;
	const char *why;
	bool (*broken)(const struct doorbell_attach *arg);
} rules[] = {
	{ "flags", "a flag is unknown", flags_broken },
	{ "no-value", "no-value does not go with pio, nor with by-value",
	  no_value_broken },
	{ "exact", "exact needs bound-only", exact_broken },
	{ "depth", "depth is 1 to 1048576 with ordered, and otherwise 0",
	  depth_broken },
	{ "queues", "queues is 1 to 65535 with by-value, and otherwise 0",
	  queues_broken },
	{ "stride", "the stride is a power of two from 2 to 65536, or 0 for 4",
	  stride_broken },
	{ "base", "the base is a multiple of the stride", base_broken },
	{ "len", "the len is a multiple of the stride", len_broken },
	{ "size", "the len is 1 to 65535 times the stride", size_broken },
	{ "end", "base + len fits into 64 bits", end_broken },
	{ "ports", "a region of ports ends within 65536", ports_broken },
	{}
};

unsigned int check_attach(const struct doorbell_attach *arg,
			  void (*broken)(const char *rule, const char *why,
					 void *ctx),
			  void *ctx)
{
	unsigned int n = 0;
	const struct rule *rule;

	for (rule = rules; rule->name; rule++) {
		if (!rule->broken(arg))
			continue;
		broken(rule->name, rule->why, ctx);
		n++;
	}
	return n;
}
