// SPDX-License-Identifier: GPL-2.0
/*
 * Run the consumer of README.md with a VM that ends after some seconds. The
 * consumer must return then, and not before.
 */
#include <err.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include <linux/kvm.h>

void consume(int vm_fd);

static atomic_bool ended;

static void *end_vm(void *vm_fd)
{
	sleep(3);
	ended = 1;
	close(*(int *)vm_fd);
	return NULL;
}

int main(void)
{
	int kvm = open("/dev/kvm", O_RDWR);
	int vm_fd = kvm < 0 ? -1 : ioctl(kvm, KVM_CREATE_VM, 0);
	pthread_t thread;

	if (vm_fd < 0)
		err(1, "/dev/kvm");
	errno = pthread_create(&thread, NULL, end_vm, &vm_fd);
	if (errno)
		err(1, "pthread_create");
	consume(vm_fd);
	if (!ended)
		errx(1, "consume() returned before the VM ended");
	return 0;
}
