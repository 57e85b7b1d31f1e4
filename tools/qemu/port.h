/* SPDX-License-Identifier: GPL-2.0 */
/* Port: where host.c waits for guest.c */
#ifndef PORT_H
#define PORT_H

#define VSOCK_PORT	9999

#endif /* PORT_H */
