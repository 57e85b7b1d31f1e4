// SPDX-License-Identifier: GPL-2.0
/*
 * demo-vmm: runs a guest whose vCPUs ring the queues of a notify region, each
 * queue at its own rate. The guest counts its rings in its memory.
 *
 * The VMM knows nothing of doorbell: it sends its VM to the consumer that
 * connects.
 *
 * Usage: demo-vmm SOCKET SECONDS
 */
#include <err.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "demo.h"
#include "vmm.h"

#define VCPUS			2
#define QUEUES_PER_VCPU		32
#define REGION_BASE		0xfe000000
#define REGION_STRIDE		4096

static int accept_consumer(const char *path)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int listener, fd;

	if (strlen(path) >= sizeof(addr.sun_path))
		errx(1, "%s: path too long for a socket", path);
	strcpy(addr.sun_path, path);
	listener = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (listener < 0)
		err(1, "socket");
	if (bind(listener, (struct sockaddr *)&addr, sizeof(addr)) ||
	    listen(listener, 1))
		err(1, "%s", path);
	fd = accept(listener, NULL, NULL);
	if (fd < 0)
		err(1, "accept");
	close(listener);
	unlink(path);
	return fd;
}

static void send_hello(int sock, const struct vmm *vmm)
{
	struct demo_hello hello = {
		.base = REGION_BASE,
		.len = (__u64)VCPUS * QUEUES_PER_VCPU * REGION_STRIDE,
		.stride = REGION_STRIDE,
		.queues = VCPUS * QUEUES_PER_VCPU,
		.vcpus = VCPUS,
	};
	int fds[] = { vmm->vm_fd, vmm->mem_fd };
	union {
		char buf[CMSG_SPACE(sizeof(fds))];
		struct cmsghdr align;
	} control = {};
	struct iovec iov = { .iov_base = &hello, .iov_len = sizeof(hello) };
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.buf,
		.msg_controllen = sizeof(control.buf),
	};
	struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);

	cmsg->cmsg_level = SOL_SOCKET;
	cmsg->cmsg_type = SCM_RIGHTS;
	cmsg->cmsg_len = CMSG_LEN(sizeof(fds));
	memcpy(CMSG_DATA(cmsg), fds, sizeof(fds));
	if (sendmsg(sock, &msg, 0) != sizeof(hello))
		err(1, "sendmsg");
}

static void expect(int sock, char what)
{
	char got;

	if (read(sock, &got, 1) != 1 || got != what)
		errx(1, "the consumer closed the connection");
}

int main(int argc, char **argv)
{
	struct guest_job job = {
		.kind = GUEST_RATES,
		.width = 8,
		.base = REGION_BASE,
		.stride = REGION_STRIDE,
	};
	struct vmm *vmm;
	unsigned int i;
	int sock;

	if (argc != 3)
		errx(2, "usage: demo-vmm SOCKET SECONDS");
	vmm = vmm_create(VCPUS);
	if (!vmm)
		err(1, "cannot create a VM");
	sock = accept_consumer(argv[1]);
	send_hello(sock, vmm);
	expect(sock, DEMO_ATTACHED);

	for (i = 0; i < VCPUS; i++) {
		job.range[0].first = i * QUEUES_PER_VCPU;
		job.range[0].nr = QUEUES_PER_VCPU;
		if (vmm_job(vmm, i, &job) || vmm_thread_start(vmm, i))
			errx(1, "cannot start vCPU %u", i);
	}
	sleep(atoi(argv[2]));
	vmm_stop(vmm);
	for (i = 0; i < VCPUS; i++)
		if (vmm_thread_join(vmm, i))
			errx(1, "vCPU %u failed", i);
	if (vmm_exits(vmm))
		errx(1, "%llu rings reached the VMM, not the consumer",
		     (unsigned long long)vmm_exits(vmm));

	if (write(sock, &(char) { DEMO_STOPPED }, 1) != 1)
		err(1, "write");
	expect(sock, DEMO_BYE);
	vmm_destroy(vmm);
	return 0;
}
