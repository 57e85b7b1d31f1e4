/* SPDX-License-Identifier: GPL-2.0 */
/*
 * KVM: regions on the buses of virtual machines.
 */
#ifndef _DOORBELL_KVM_H
#define _DOORBELL_KVM_H

#include <linux/types.h>

struct doorbell_placement;
struct doorbell_region;

struct doorbell_placement *
doorbell_placement_create(struct doorbell_region *region, int vm_fd, u64 base);
struct doorbell_placement *
doorbell_placement_move(struct doorbell_placement *from, int vm_fd, u64 base);
void doorbell_placement_start(struct doorbell_placement *p);
bool doorbell_placement_cancel(struct doorbell_placement *p);
int doorbell_placement_wait_added(struct doorbell_placement *p);
void doorbell_placement_enable(struct doorbell_placement *p);
void doorbell_placement_remove(struct doorbell_placement *p);
int doorbell_placement_wait(struct doorbell_placement *p);
void doorbell_placement_get(struct doorbell_placement *p);
void doorbell_placement_put(struct doorbell_placement *p);

int doorbell_kvm_init(void);
void doorbell_kvm_exit(void);

#endif /* _DOORBELL_KVM_H */
