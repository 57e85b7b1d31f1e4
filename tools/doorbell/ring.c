// SPDX-License-Identifier: GPL-2.0
/*
 * Ring: rings queues of a consumer by write().
 */
#include <sys/uio.h>
#include <unistd.h>

#include "tool.h"

__attribute__((noreturn))
static void die_ring(int error)
{
	switch (error) {
	case EAGAIN:
		die(STATUS_FAILED,
		    "the ordered region is full: its consumer has to take events first");
	case ENOTCONN:
		die(STATUS_FAILED, "the consumer is not attached");
	case EPIPE:
		die(STATUS_FAILED, "the VM of the consumer is gone");
	case ENXIO:
		die(STATUS_FAILED,
		    "the region is bound-only, and the queue is not bound");
	case EBADF:
		die(STATUS_DENIED,
		    "the descriptor of the consumer is not open for writing");
	default:
		die(STATUS_FAILED, "cannot ring: %s", strerror(error));
	}
}

static struct doorbell_ring ring_of(const struct doorbell_info *info,
				    uint64_t queue, uint64_t value)
{
	if (queue >= info->queues && info->queues)
		die(STATUS_NOT_FOUND,
		    "there is no queue %llu: the region has queues 0 to %u",
		    (unsigned long long)queue, info->queues - 1);
	if (info->flags & DOORBELL_ATTACH_BY_VALUE)
		return (struct doorbell_ring) {
			.addr = info->base,
			.value = (value & ~0xffffULL) | queue,
		};
	return (struct doorbell_ring) {
		.addr = info->base + queue * info->stride,
		.value = value,
	};
}

/* The owner may share O_NONBLOCK with others: leave it as it is. */
static void ring(int fd, struct doorbell_ring ring)
{
	struct iovec iov = { .iov_base = &ring, .iov_len = sizeof(ring) };

	if (pwritev2(fd, &iov, 1, -1, RWF_NOWAIT) < 0)
		die_ring(errno);
}

int cmd_ring(int argc, char **argv)
{
	static const struct option options[] = {
		{ "address", no_argument, NULL, 'a' },
		{ "value", required_argument, NULL, 'v' },
		{ "count", required_argument, NULL, 'n' },
		OPTIONS_END,
	};
	uint64_t value = 0, count = 1, number, i, j, n;
	struct doorbell_ring *rings;
	struct consumer consumer;
	bool address = false;
	int option, fd;

	while ((option = next_option(argc, argv, options)) != -1) {
		switch (option) {
		case 'a':
			address = true;
			break;
		case 'v':
			value = parse_number(optarg, "V", UINT64_MAX);
			break;
		case 'n':
			count = parse_count(optarg);
			break;
		}
	}
	if (argc - optind < 3)
		die_usage("ring takes a PID, an FD and a queue");

	consumer = find_consumer(argv[optind], argv[optind + 1]);
	fd = must_open_consumer(&consumer);
	argv += optind + 2;
	n = argc - optind - 2;
	rings = must(calloc(n, sizeof(*rings)));
	/* all of them before the first ring */
	for (i = 0; i < n; i++) {
		number = parse_number(argv[i], "QUEUE", UINT64_MAX);
		if (address)
			rings[i] = (struct doorbell_ring) {
				.addr = number, .value = value,
			};
		else
			rings[i] = ring_of(&consumer.info, number, value);
	}
	for (i = 0; i < n; i++)
		for (j = 0; j < count; j++)
			ring(fd, rings[i]);
	free(rings);
	close(fd);
	return STATUS_OK;
}
