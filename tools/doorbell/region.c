// SPDX-License-Identifier: GPL-2.0
/*
 * Region: command-line arguments that name a region.
 */
#include "tool.h"

void region_option(struct doorbell_attach *arg, int option)
{
	switch (option) {
	case OPTION_PIO:
		arg->flags |= DOORBELL_ATTACH_PIO;
		break;
	case OPTION_ORDERED:
		arg->flags |= DOORBELL_ATTACH_ORDERED;
		arg->depth = parse_number(optarg, "DEPTH", UINT32_MAX);
		break;
	case OPTION_BY_VALUE:
		arg->flags |= DOORBELL_ATTACH_BY_VALUE;
		arg->queues = parse_number(optarg, "QUEUES", UINT32_MAX);
		break;
	case OPTION_NO_VALUE:
		arg->flags |= DOORBELL_ATTACH_NO_VALUE;
		break;
	case OPTION_BOUND_ONLY:
		arg->flags |= DOORBELL_ATTACH_BOUND_ONLY;
		break;
	case OPTION_EXACT:
		arg->flags |= DOORBELL_ATTACH_EXACT;
		break;
	case OPTION_FLAGS:
		arg->flags |= parse_number(optarg, "FLAGS", UINT32_MAX);
		break;
	case OPTION_DEPTH:
		arg->depth = parse_number(optarg, "DEPTH", UINT32_MAX);
		break;
	case OPTION_QUEUES:
		arg->queues = parse_number(optarg, "QUEUES", UINT32_MAX);
		break;
	}
}

void region_arguments(struct doorbell_attach *arg, int argc, char **argv)
{
	if (argc - optind < 2 || argc - optind > 3)
		die_usage("the region is BASE LEN [STRIDE]");
	arg->size = sizeof(*arg);
	arg->base = parse_number(argv[optind], "BASE", UINT64_MAX);
	arg->len = parse_number(argv[optind + 1], "LEN", UINT64_MAX);
	if (argc - optind == 3)
		arg->stride = parse_number(argv[optind + 2], "STRIDE",
					   UINT32_MAX);
}
