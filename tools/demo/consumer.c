// SPDX-License-Identifier: GPL-2.0
/*
 * demo-consumer: a device back end in a process of its own. It receives a VM
 * over a Unix socket, attaches the notify region, and prints which queues ring.
 * At the end it compares what it read with what the guest counted.
 *
 * Usage: demo-consumer SOCKET [live]
 *
 * With "live" it updates the table in place, on a terminal.
 */
#include <err.h>
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

#include "demo.h"
#include "libdoorbell.h"
#include "vmm.h"

#define COLUMNS		4
#define EVENTS		256

struct queue {
	__u64 rings;
	__u64 value;
};

static struct queue *queues;
static __u64 bad;

static int connect_vmm(const char *path)
{
	struct sockaddr_un addr = { .sun_family = AF_UNIX };
	int sock, tries;

	if (strlen(path) >= sizeof(addr.sun_path))
		errx(1, "%s: path too long for a socket", path);
	strcpy(addr.sun_path, path);
	sock = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
	if (sock < 0)
		err(1, "socket");
	/* the VMM may not listen yet */
	for (tries = 0; connect(sock, (void *)&addr, sizeof(addr)); tries++) {
		if ((errno != ENOENT && errno != ECONNREFUSED) || tries == 100)
			err(1, "%s", path);
		usleep(100000);
	}
	return sock;
}

static void receive_hello(int sock, struct demo_hello *hello, int fds[2])
{
	union {
		char buf[CMSG_SPACE(2 * sizeof(int))];
		struct cmsghdr align;
	} control;
	struct iovec iov = { .iov_base = hello, .iov_len = sizeof(*hello) };
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.buf,
		.msg_controllen = sizeof(control.buf),
	};
	struct cmsghdr *cmsg;

	if (recvmsg(sock, &msg, MSG_CMSG_CLOEXEC) != sizeof(*hello))
		errx(1, "the VMM closed the connection");
	cmsg = CMSG_FIRSTHDR(&msg);
	if (!cmsg || cmsg->cmsg_type != SCM_RIGHTS ||
	    cmsg->cmsg_len != CMSG_LEN(2 * sizeof(int)))
		errx(1, "the VMM sent no descriptors");
	memcpy(fds, CMSG_DATA(cmsg), 2 * sizeof(int));
}

static struct doorbell *attach(const struct demo_hello *hello, int vm_fd)
{
	struct doorbell_attach arg = {
		.vm_fd = vm_fd,
		.base = hello->base,
		.len = hello->len,
		.stride = hello->stride,
	};
	struct doorbell *db = doorbell_open(0);
	int ret;

	if (!db)
		err(1, "/dev/doorbell");
	ret = doorbell_attach_region(db, &arg);
	if (ret)
		errx(1, "DOORBELL_ATTACH: %s", strerror(-ret));
	return db;
}

static void take_events(struct doorbell *db)
{
	struct doorbell_event events[EVENTS];
	int n, i;

	while ((n = doorbell_take(db, events, EVENTS)) > 0) {
		for (i = 0; i < n; i++) {
			struct queue *q = &queues[events[i].queue];

			if (events[i].type != DOORBELL_EVENT_QUEUE) {
				bad++;
				continue;
			}
			q->rings += events[i].count;
			q->value = events[i].value;
		}
	}
	if (n < 0)
		errx(1, "doorbell_take: %s", strerror(-n));
}

static void show(const struct demo_hello *hello, bool again)
{
	unsigned int rows = (hello->queues + COLUMNS - 1) / COLUMNS;
	unsigned int row, q;
	int i;

	if (again)
		printf("\033[%uA", rows + 1);
	for (i = 0; i < COLUMNS; i++)
		printf("%5s %8s %-16s%s", "queue", "rings", "last value",
		       i < COLUMNS - 1 ? "  " : "");
	printf("\n");
	for (row = 0; row < rows; row++) {
		for (q = row; q < hello->queues; q += rows)
			printf("%5u %8llu %016llx%s", q,
			       (unsigned long long)queues[q].rings,
			       (unsigned long long)queues[q].value,
			       q + rows < hello->queues ? "  " : "");
		printf("\n");
	}
	fflush(stdout);
}

static int compare(const struct demo_hello *hello, int mem_fd)
{
	__u64 rung = 0, delivered = 0, guest, last;
	struct guest_shared *shared;
	unsigned int q, v;
	void *mem = vmm_mem_map(mem_fd);

	if (!mem)
		err(1, "cannot map the guest's memory");
	shared = vmm_mem_shared(mem);
	for (q = 0; q < hello->queues; q++) {
		guest = 0;
		last = 0;
		for (v = 0; v < hello->vcpus; v++) {
			__u64 count = vmm_count(shared, v, q);

			guest += count;
			if (count)
				last = guest_value(v, count);
		}
		rung += guest;
		delivered += queues[q].rings;
		if (queues[q].rings != guest || queues[q].value != last) {
			printf("queue %u: ", q);
			printf("the guest rang %llu times, last %#llx\n",
			       (unsigned long long)guest,
			       (unsigned long long)last);
			bad++;
		}
	}
	printf("demo: queues=%u rung=%llu delivered=%llu lost=%lld bad=%llu\n",
	       hello->queues, (unsigned long long)rung,
	       (unsigned long long)delivered, (long long)(rung - delivered),
	       (unsigned long long)bad);
	return rung && rung == delivered && !bad ? 0 : 1;
}

int main(int argc, char **argv)
{
	bool live = argc == 3 && !strcmp(argv[2], "live");
	struct epoll_event ev = { .events = EPOLLIN };
	struct timespec now, shown = {};
	bool stopped = false, again = false;
	struct demo_hello hello;
	struct doorbell *db;
	int sock, epoll, ret;
	int fds[2];
	char byte;

	if (argc != 2 && !live)
		errx(2, "usage: demo-consumer SOCKET [live]");
	sock = connect_vmm(argv[1]);
	receive_hello(sock, &hello, fds);
	queues = calloc(hello.queues, sizeof(*queues));
	if (!queues)
		err(1, "calloc");
	db = attach(&hello, fds[0]);
	/* an open descriptor would keep the VM, and so its region */
	close(fds[0]);

	epoll = epoll_create1(EPOLL_CLOEXEC);
	ev.data.fd = doorbell_fd(db);
	if (epoll < 0 || epoll_ctl(epoll, EPOLL_CTL_ADD, ev.data.fd, &ev))
		err(1, "epoll");
	ev.data.fd = sock;
	if (epoll_ctl(epoll, EPOLL_CTL_ADD, sock, &ev))
		err(1, "epoll");
	if (write(sock, &(char) { DEMO_ATTACHED }, 1) != 1)
		err(1, "write");

	while (!stopped) {
		if (epoll_wait(epoll, &ev, 1, -1) != 1)
			err(1, "epoll_wait");
		if (ev.data.fd == doorbell_fd(db)) {
			take_events(db);
		} else {
			if (read(sock, &byte, 1) != 1 || byte != DEMO_STOPPED)
				errx(1, "the VMM closed the connection");
			stopped = true;
		}
		clock_gettime(CLOCK_MONOTONIC, &now);
		if (now.tv_sec != shown.tv_sec && !stopped) {
			show(&hello, live && again);
			again = true;
			shown = now;
		}
	}
	/* the guest has stopped, so no further event comes */
	take_events(db);
	doorbell_close(db);
	show(&hello, live && again);
	ret = compare(&hello, fds[1]);
	if (write(sock, &(char) { DEMO_BYE }, 1) != 1)
		err(1, "write");
	return ret;
}
