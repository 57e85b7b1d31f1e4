// SPDX-License-Identifier: GPL-2.0
/*
 * Count: a preload that keeps, in the file that $COUNT names, what the process
 * has on the buses of KVM by KVM_IOEVENTFD: a line "BUS ADDRESS VALUE" each.
 * One of any length, which is on two buses, is there once.
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include <linux/kvm.h>
#include <sys/ioctl.h>

#define MOST		256

static struct kvm_ioeventfd entries[MOST];
static int nr;

static int is_same(const struct kvm_ioeventfd *a, const struct kvm_ioeventfd *b)
{
	__u32 flags = a->flags ^ b->flags;

	return a->addr == b->addr && a->len == b->len &&
	       !(flags & ~KVM_IOEVENTFD_FLAG_DEASSIGN) &&
	       (!(a->flags & KVM_IOEVENTFD_FLAG_DATAMATCH) ||
		a->datamatch == b->datamatch);
}

static void count(const struct kvm_ioeventfd *e)
{
	int i;

	if (!(e->flags & KVM_IOEVENTFD_FLAG_DEASSIGN)) {
		if (nr == MOST)
			abort();
		entries[nr++] = *e;
		return;
	}
	for (i = 0; i < nr; i++) {
		if (is_same(&entries[i], e)) {
			entries[i] = entries[--nr];
			return;
		}
	}
	abort();
}

/* A reader sees the old file or the new one. */
static void keep(void)
{
	const char *name = getenv("COUNT");
	char new[64];
	FILE *file;
	int i;

	if (!name)
		return;
	snprintf(new, sizeof(new), "%s.new", name);
	file = fopen(new, "we");
	if (!file)
		abort();
	for (i = 0; i < nr; i++)
		fprintf(file, "%s %#llx %lld\n",
			entries[i].flags & KVM_IOEVENTFD_FLAG_PIO ? "pio" :
			"mmio", entries[i].addr,
			entries[i].flags & KVM_IOEVENTFD_FLAG_DATAMATCH ?
			(long long)entries[i].datamatch : -1);
	if (fclose(file) || rename(new, name))
		abort();
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
		count(arg);
		keep();
	}
	return ret;
}
