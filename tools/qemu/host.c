// SPDX-License-Identifier: GPL-2.0
/*
 * Host: what the machine that runs QEMU does beside it.
 *
 * Usage: host hangup PID   attach to both buses of the VM, wait for its end
 *        host churn PID    attach, ring, move and detach until SIGTERM
 *        host echo         send back what a guest sends by vsock
 *
 * PID is that of the VMM, from which the first two take the VM's descriptor.
 * Each prints a line when it has begun, and another one at its end.
 */
#include <dirent.h>
#include <err.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <linux/doorbell.h>
#include <linux/vm_sockets.h>

#include "port.h"

/* Far from RAM and BARs of the guest, and from its ports */
#define MMIO_BASE	(64ULL << 30)
#define PIO_BASE	0x9000ULL
#define MMIO_STEP	4096
#define PIO_STEP	256
#define QUEUES		32

static volatile sig_atomic_t stop;

static void on_term(int sig)
{
	(void)sig;
	stop = 1;
}

static int vm_of(int pid)
{
	char dir[64], link[64], path[400];
	struct dirent *entry;
	DIR *fds;
	int fd = -1;

	snprintf(dir, sizeof(dir), "/proc/%d/fd", pid);
	fds = opendir(dir);
	while (fds && fd < 0 && (entry = readdir(fds))) {
		ssize_t n;

		snprintf(path, sizeof(path), "%s/%s", dir, entry->d_name);
		n = readlink(path, link, sizeof(link) - 1);
		if (n < 0)
			continue;
		link[n] = 0;
		if (!strcmp(link, "anon_inode:kvm-vm"))
			fd = syscall(SYS_pidfd_getfd,
				     syscall(SYS_pidfd_open, pid, 0),
				     atoi(entry->d_name), 0);
	}
	if (fd < 0)
		err(1, "no VM in process %d", pid);
	closedir(fds);
	return fd;
}

static int open_doorbell(void)
{
	int fd = open("/dev/doorbell", O_RDWR | O_NONBLOCK | O_CLOEXEC);

	if (fd < 0)
		err(1, "/dev/doorbell");
	return fd;
}

static int attach(int fd, int vm, __u64 base, int pio)
{
	struct doorbell_attach arg = {
		.size = sizeof(arg),
		.vm_fd = vm,
		.base = base,
		.len = QUEUES * 4,
		.flags = pio ? DOORBELL_ATTACH_PIO : 0,
	};

	return ioctl(fd, DOORBELL_ATTACH, &arg);
}

static int hangup(int pid)
{
	struct pollfd fds[2] = { { .fd = -1 }, { .fd = -1 } };
	int vm = vm_of(pid);

	for (int pio = 0; pio < 2; pio++) {
		fds[pio].fd = open_doorbell();
		if (attach(fds[pio].fd, vm, pio ? PIO_BASE + PIO_STEP * 9 :
			   MMIO_BASE + MMIO_STEP * 9, pio))
			err(1, "attach");
	}
	close(vm);
	puts("attached");
	for (int pio = 0; pio < 2; pio++)
		if (poll(&fds[pio], 1, -1) != 1 ||
		    !(fds[pio].revents & POLLHUP))
			errx(1, "events %#x", fds[pio].revents);
	puts("hang-up");
	return 0;
}

/* Ring a queue by write() and expect one event of it. */
static void ring(int fd, __u64 base, unsigned int queue)
{
	struct doorbell_ring ring = { .addr = base + queue * 4, .value = base };
	struct doorbell_event event[2];
	ssize_t n;

	if (write(fd, &ring, sizeof(ring)) != sizeof(ring))
		err(1, "write");
	n = read(fd, event, sizeof(event));
	if (n != sizeof(*event) || event->queue != queue ||
	    event->count != 1 || event->value != base)
		errx(1, "read %zd bytes, queue %u", n, event->queue);
}

/* DOORBELL_INFO says where the region is. */
static void is_at(int fd, __u64 base)
{
	struct doorbell_info info = { .size = sizeof(info) };

	if (ioctl(fd, DOORBELL_INFO, &info))
		err(1, "info");
	if (info.state != DOORBELL_ATTACHED || info.base != base ||
	    info.queues != QUEUES)
		errx(1, "state %u, base %#llx, not %#llx", info.state,
		     info.base, base);
}

static int churn(int pid)
{
	unsigned int rounds = 0;
	int fd[2] = { open_doorbell(), open_doorbell() }, vm = vm_of(pid);

	signal(SIGTERM, on_term);
	puts("attached");
	while (!stop) {
		for (int pio = 0; pio < 2; pio++) {
			struct doorbell_move move = {
				.size = sizeof(move),
				.vm_fd = vm,
			};
			__u64 step = pio ? PIO_STEP : MMIO_STEP;
			__u64 base = pio ? PIO_BASE : MMIO_BASE;

			base += rounds % 3 * step;
			if (attach(fd[pio], vm, base, pio))
				err(1, "attach");
			is_at(fd[pio], base);
			ring(fd[pio], base, rounds % QUEUES);
			move.base = base + step / 2;
			if (ioctl(fd[pio], DOORBELL_MOVE, &move))
				err(1, "move");
			is_at(fd[pio], move.base);
			ring(fd[pio], move.base, (rounds + 1) % QUEUES);
			if (ioctl(fd[pio], DOORBELL_DETACH, 0))
				err(1, "detach");
		}
		rounds++;
		/* Leave the only CPU to others. */
		usleep(2000);
	}
	printf("%u rounds\n", rounds);
	return 0;
}

static int echo(void)
{
	struct sockaddr_vm addr = {
		.svm_family = AF_VSOCK,
		.svm_cid = VMADDR_CID_ANY,
		.svm_port = VSOCK_PORT,
	};
	int listener = socket(AF_VSOCK, SOCK_STREAM, 0), fd;
	char buf[8192];
	size_t bytes = 0;
	ssize_t n;

	if (listener < 0 || bind(listener, (void *)&addr, sizeof(addr)) ||
	    listen(listener, 1))
		err(1, "vsock");
	puts("listening");
	fd = accept(listener, NULL, NULL);
	while ((n = read(fd, buf, sizeof(buf))) > 0) {
		if (write(fd, buf, n) != n)
			err(1, "write");
		bytes += n;
	}
	printf("%zu bytes\n", bytes);
	return 0;
}

int main(int argc, char **argv)
{
	setvbuf(stdout, NULL, _IOLBF, 0);
	if (argc == 3 && !strcmp(argv[1], "hangup"))
		return hangup(atoi(argv[2]));
	if (argc == 3 && !strcmp(argv[1], "churn"))
		return churn(atoi(argv[2]));
	if (argc == 2 && !strcmp(argv[1], "echo"))
		return echo();
	errx(2, "usage: host hangup PID | churn PID | echo");
}
