// SPDX-License-Identifier: LGPL-2.1 OR MIT
/*
 * A BAR that moves: the guest's driver gives a device's BAR another address,
 * through the configuration space, and the VMM moves the region with it. The
 * guest rings before and after.
 */
#include <err.h>
#include <errno.h>
#include <stdio.h>

#include <linux/pci_regs.h>

#include <libdoorbell.h>

#include "guest.h"

#define CONFIG		0xe0000000	/* of the device */
#define OLD_BAR		0xfe000000
#define NEW_BAR		0xfd000000
#define BAR_SIZE	0x4000
#define NOTIFY		0x3000		/* the doorbells, in the BAR */
#define STRIDE		4
#define QUEUES		16

/**
 * struct device - a PCI device of the VMM
 * @db: the consumer of its doorbells
 * @vm_fd: its VM
 * @bar: what the guest wrote to BAR 0 last
 * @base: where the region is
 * @other: writes that reached the VMM and were not for the device
 */
struct device {
	struct doorbell *db;
	int vm_fd;
	__u32 bar;
	__u32 base;
	unsigned int other;
};

/* Memory decoding is on: the region has to be where the BAR is now. */
static void place(struct device *dev)
{
	if (dev->base == dev->bar + NOTIFY)
		return;
	errno = -doorbell_move_region(dev->db, dev->vm_fd, dev->bar + NOTIFY);
	if (errno)
		err(1, "DOORBELL_MOVE");
	printf("moved from %#x to %#x\n", dev->base, dev->bar + NOTIFY);
	dev->base = dev->bar + NOTIFY;
}

/* A write of the guest reached the VMM. The vCPU waits until this returns. */
static void handle_exit(void *ctx, uint64_t addr, uint32_t value)
{
	struct device *dev = ctx;

	switch (addr) {
	case CONFIG + PCI_BASE_ADDRESS_0:
		/* a driver that writes all ones reads the size */
		dev->bar = value & ~(BAR_SIZE - 1);
		break;
	case CONFIG + PCI_COMMAND:
		if (value & PCI_COMMAND_MEMORY)
			place(dev);
		break;
	default:
		printf("no device at %#llx\n", (unsigned long long)addr);
		dev->other++;
	}
}

static void ring(struct guest *guest, __u32 bar, unsigned int queue, int n)
{
	while (n--)
		guest_write(guest, bar + NOTIFY + queue * STRIDE, queue);
}

/* What Linux does to move a BAR */
static void move_bar(struct guest *guest)
{
	guest_write(guest, CONFIG + PCI_COMMAND, 0);
	guest_write(guest, CONFIG + PCI_BASE_ADDRESS_0, 0xffffffff);
	guest_write(guest, CONFIG + PCI_BASE_ADDRESS_0, NEW_BAR);
	guest_write(guest, CONFIG + PCI_COMMAND, PCI_COMMAND_MEMORY);
}

int main(void)
{
	struct device dev = { .bar = OLD_BAR, .base = OLD_BAR + NOTIFY };
	struct doorbell_attach arg = {
		.base = dev.base,
		.len = QUEUES * STRIDE,
		.stride = STRIDE,
	};
	struct doorbell_event events[QUEUES];
	struct guest guest;
	int i, n;

	guest_create(&guest);
	guest.exit = handle_exit;
	guest.ctx = &dev;
	dev.vm_fd = guest.vm_fd;
	dev.db = doorbell_open(0);
	if (!dev.db)
		err(1, "/dev/doorbell");
	arg.vm_fd = guest.vm_fd;
	errno = -doorbell_attach_region(dev.db, &arg);
	if (errno)
		err(1, "DOORBELL_ATTACH");

	ring(&guest, OLD_BAR, 1, 2);
	ring(&guest, OLD_BAR, 5, 3);
	move_bar(&guest);
	ring(&guest, NEW_BAR, 5, 4);
	ring(&guest, OLD_BAR, 5, 1);	/* reaches the VMM */

	/* events from before the move are still there */
	n = doorbell_take(dev.db, events, QUEUES);
	for (i = 0; i < n; i++)
		printf("queue %u: %u rings, last %#llx\n", events[i].queue,
		       events[i].count, events[i].value);
	guest_destroy(&guest);
	doorbell_close(dev.db);
	return n == 2 && events[0].count == 2 && events[1].count == 7 &&
	       dev.other == 1 ? 0 : 1;
}
