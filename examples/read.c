// SPDX-License-Identifier: LGPL-2.1 OR MIT
/* Without the library: attach, ring queue 1 by write(), read the event. */
#include <err.h>
#include <fcntl.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <linux/doorbell.h>

int main(void)
{
	struct doorbell_attach arg = {
		.size = sizeof(arg),
		.vm_fd = -1,
		.base = 80,
		.len = 12,
	};
	struct doorbell_ring ring = { .addr = 84, .value = 42 };
	struct doorbell_event events[64];
	ssize_t n, i;
	int fd;

	fd = open("/dev/doorbell", O_RDWR | O_CLOEXEC);
	if (fd < 0)
		err(1, "/dev/doorbell");
	if (ioctl(fd, DOORBELL_ATTACH, &arg))
		err(1, "DOORBELL_ATTACH");
	if (write(fd, &ring, sizeof(ring)) != sizeof(ring))
		err(1, "write");
	n = read(fd, events, sizeof(events));
	if (n < 0)
		err(1, "read");
	n /= sizeof(events[0]);
	for (i = 0; i < n; i++)
		printf("queue %u: %u rings, last %#llx\n", events[i].queue,
		       events[i].count, events[i].value);
	close(fd);
	return n == 1 && events[0].queue == 1 ? 0 : 1;
}
