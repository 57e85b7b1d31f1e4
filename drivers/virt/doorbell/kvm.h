/* SPDX-License-Identifier: GPL-2.0 */
/*
 * KVM: the little that the rest of the module needs to know of it.
 */
#ifndef _DOORBELL_KVM_H
#define _DOORBELL_KVM_H

struct doorbell_region;
struct doorbell_vm;

struct doorbell_vm *doorbell_vm_attach(struct doorbell_region *region,
				       int vm_fd);
void doorbell_vm_detach(struct doorbell_vm *vm);

#endif /* _DOORBELL_KVM_H */
