/* SPDX-License-Identifier: LGPL-2.1 OR MIT */
/* Descriptors over a Unix socket, for the examples. */
#ifndef DOORBELL_EXAMPLES_SOCKET_H
#define DOORBELL_EXAMPLES_SOCKET_H

#include <err.h>
#include <string.h>
#include <sys/socket.h>

#define SOCKET_MAX_FDS	4

union socket_control {
	char buf[CMSG_SPACE(SOCKET_MAX_FDS * sizeof(int))];
	struct cmsghdr align;
};

/* Send @n descriptors, at most SOCKET_MAX_FDS. They stay open here, too. */
static inline void send_fds(int sock, const int *fds, unsigned int n)
{
	union socket_control control = { 0 };
	char byte = 0;
	struct iovec iov = { .iov_base = &byte, .iov_len = 1 };
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.buf,
		.msg_controllen = CMSG_SPACE(n * sizeof(*fds)),
	};
	struct cmsghdr *cmsg = CMSG_FIRSTHDR(&msg);

	cmsg->cmsg_level = SOL_SOCKET;
	cmsg->cmsg_type = SCM_RIGHTS;
	cmsg->cmsg_len = CMSG_LEN(n * sizeof(*fds));
	memcpy(CMSG_DATA(cmsg), fds, n * sizeof(*fds));
	if (sendmsg(sock, &msg, MSG_NOSIGNAL) != 1)
		err(1, "sendmsg");
}

/* Receive @n descriptors, which belong to this process then. */
static inline void receive_fds(int sock, int *fds, unsigned int n)
{
	union socket_control control;
	char byte;
	struct iovec iov = { .iov_base = &byte, .iov_len = 1 };
	struct msghdr msg = {
		.msg_iov = &iov,
		.msg_iovlen = 1,
		.msg_control = control.buf,
		.msg_controllen = sizeof(control.buf),
	};
	struct cmsghdr *cmsg;
	ssize_t ret = recvmsg(sock, &msg, MSG_CMSG_CLOEXEC);

	if (ret < 0)
		err(1, "recvmsg");
	if (!ret)
		errx(1, "the other side closed the socket");
	cmsg = CMSG_FIRSTHDR(&msg);
	if (!cmsg || cmsg->cmsg_level != SOL_SOCKET ||
	    cmsg->cmsg_type != SCM_RIGHTS ||
	    cmsg->cmsg_len != CMSG_LEN(n * sizeof(*fds)))
		errx(1, "not %u descriptors", n);
	memcpy(fds, CMSG_DATA(cmsg), n * sizeof(*fds));
}

#endif /* DOORBELL_EXAMPLES_SOCKET_H */
