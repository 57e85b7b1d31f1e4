// SPDX-License-Identifier: GPL-2.0
/*
 * What the calls of a VMM cost that gives KVM an eventfd for each queue. The
 * sequence is that of QEMU for a modern virtio-pci device: any length, at the
 * notify address and every four bytes from there. guest.sh runs the program
 * with and without the preload library.
 *
 * Usage: calls NAME QUEUES
 *
 * Prints samples for report.py: setup, all calls; other_ioctl, one call that
 * the library does not serve; remove, the calls that undo it all.
 */
#include <err.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/resource.h>

#include "bench.h"

#define OTHERS	1000

int main(int argc, char **argv)
{
	struct rlimit limit = { .rlim_cur = 100000, .rlim_max = 100000 };
	unsigned int queues, q;
	struct vmm *vmm;
	__u64 start;
	int *fds;

	if (argc != 3)
		errx(2, "usage: calls NAME QUEUES");
	queues = atoi(argv[2]);
	fds = calloc(queues, sizeof(*fds));
	vmm = vmm_create(1);
	if (!fds || !vmm || setrlimit(RLIMIT_NOFILE, &limit))
		err(1, "preparation");
	for (q = 0; q < queues; q++) {
		fds[q] = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
		if (fds[q] < 0)
			err(1, "eventfd");
	}

	start = ticks();
	for (q = 0; q < queues; q++)
		if (vmm_ioeventfd(vmm, bench_addr(q), 0, fds[q], 0))
			errx(1, "KVM_IOEVENTFD");
	printf("sample setup %s %u %llu\n", argv[1], queues, ticks() - start);

	/* The kernel frees what the calls replaced, after grace periods. */
	sleep(1);
	start = ticks();
	for (q = 0; q < OTHERS; q++)
		if (ioctl(vmm->vm_fd, KVM_CHECK_EXTENSION,
			  KVM_CAP_IOEVENTFD) < 1)
			err(1, "KVM_CHECK_EXTENSION");
	printf("sample other_ioctl %s %u %.1f\n", argv[1], queues,
	       (double)(ticks() - start) / OTHERS);

	start = ticks();
	for (q = 0; q < queues; q++)
		if (vmm_ioeventfd(vmm, bench_addr(q), 0, fds[q],
				  KVM_IOEVENTFD_FLAG_DEASSIGN))
			errx(1, "KVM_IOEVENTFD");
	printf("sample remove %s %u %llu\n", argv[1], queues, ticks() - start);
	return 0;
}
