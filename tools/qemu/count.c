// SPDX-License-Identifier: GPL-2.0
/*
 * Count: a preload that keeps, in the file that $COUNT names, how many entries
 * the process has on the buses of KVM by KVM_IOEVENTFD: now, and at most. One
 * of any length, which is on two buses, counts once.
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <linux/kvm.h>
#include <sys/ioctl.h>

static int now, most, fd = -1;

__attribute__((constructor)) static void start(void)
{
	const char *name = getenv("COUNT");

	if (name)
		fd = open(name, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
}

int ioctl(int kvm, unsigned long request, ...)
{
	static int (*next)(int kvm, unsigned long request, ...);
	va_list args;
	void *arg;
	int ret;

	va_start(args, request);
	arg = va_arg(args, void *);
	va_end(args);
	if (!next)
		next = dlsym(RTLD_NEXT, "ioctl");
	ret = next(kvm, request, arg);
	if (request == KVM_IOEVENTFD && !ret) {
		struct kvm_ioeventfd *io = arg;
		char text[32];
		int len;

		now += io->flags & KVM_IOEVENTFD_FLAG_DEASSIGN ? -1 : 1;
		most = now > most ? now : most;
		len = snprintf(text, sizeof(text), "%-5d %-5d\n", now, most);
		if (fd >= 0 && pwrite(fd, text, len, 0) != len)
			abort();
	}
	return ret;
}
