// SPDX-License-Identifier: GPL-2.0
/*
 * Arm64: what KVM does otherwise than on x86, as userspace-api.rst says. This
 * program is for arm64 only.
 */
#include <sys/auxv.h>

#include "vmutil.h"

#define NO_VALUE	DOORBELL_ATTACH_NO_VALUE
#define PAGE		4096UL
#define VALUE		0x1122334455667788ULL

/* The interrupt controller of the machine "virt" of QEMU, and behind it */
#define DIST_BASE	0x08000000ULL
#define DIST_SIZE	0x10000ULL
#define REDIST_BASE	0x080a0000ULL

FIXTURE(guest) {
	struct vmm *vmm;
	int fd;
};

FIXTURE_SETUP(guest)
{
	self->fd = db_must_open(_metadata, O_NONBLOCK);
	self->vmm = vmm_create(1);
	ASSERT_NE(NULL, self->vmm);
}

FIXTURE_TEARDOWN(guest)
{
	close(self->fd);
	vmm_destroy(self->vmm);
}

/* The guest writes 8 bytes to an address. */
static int store(FIXTURE_DATA(guest) *self, enum guest_op_kind kind, __u64 addr)
{
	return vmm_op(self->vmm, 0, kind, 8, addr, VALUE);
}

/* The last kind of stores that KVM cannot decode, and that the CPU has */
static enum guest_op_kind last_undecoded(void)
{
	return getauxval(AT_HWCAP) & HWCAP_ATOMICS ? GUEST_STORE_ATOMIC :
						     GUEST_STORE_EXCLUSIVE;
}

/* A store that KVM cannot decode ends KVM_RUN, with a region and without. */
TEST_F_TIMEOUT(guest, undecoded, TEST_SECONDS)
{
	static const __u32 flags[] = { 0, NO_VALUE };
	enum guest_op_kind kind;
	unsigned int i;

	for (i = 0; i < ARRAY_SIZE(flags); i++) {
		ASSERT_EQ(0, attach_region(self->fd, self->vmm->vm_fd,
					   flags[i]));
		for (kind = GUEST_STORE_PAIR; kind <= last_undecoded();
		     kind++) {
			ASSERT_EQ(-ENOSYS, store(self, kind, MMIO_BASE)) {
				TH_LOG("kind %u", kind);
			}
			ASSERT_EQ(-ENOSYS,
				  store(self, kind, MMIO_BASE + REGION_LEN));
		}
		ASSERT_TRUE(db_is_empty(self->fd));
		ASSERT_EQ(0, info_of(self->fd).rings);
		/* the vCPU goes on at another instruction */
		ASSERT_EQ(0, store(self, GUEST_MMIO_WRITE, MMIO_BASE + 8));
		check_event(_metadata, self->fd, 1, flags[i] ? 0 : VALUE);
		ASSERT_EQ(0, db_detach(self->fd));
	}
	ASSERT_EQ(0, vmm_exits(self->vmm));
}

/* The VMM can ask for these stores, and then has to decode them. */
TEST_F_TIMEOUT(guest, undecoded_to_the_vmm, TEST_SECONDS)
{
	struct kvm_enable_cap cap = { .cap = KVM_CAP_ARM_NISV_TO_USER };
	const struct kvm_run *run = self->vmm->vcpu[0].run;
	enum guest_op_kind kind;

	ASSERT_EQ(0, ioctl(self->vmm->vm_fd, KVM_ENABLE_CAP, &cap));
	ASSERT_EQ(0, attach_region(self->fd, self->vmm->vm_fd, 0));
	for (kind = GUEST_STORE_PAIR; kind <= last_undecoded(); kind++) {
		/* the small VMM knows no such exit */
		ASSERT_EQ(-EIO, store(self, kind, MMIO_BASE + 16));
		ASSERT_EQ(KVM_EXIT_ARM_NISV, run->exit_reason);
		ASSERT_EQ(MMIO_BASE + 16, run->arm_nisv.fault_ipa);
	}
	ASSERT_TRUE(db_is_empty(self->fd));
	ASSERT_EQ(0, info_of(self->fd).rings);
}

/* A store-release is what a driver's barrier and store may become. */
TEST_F_TIMEOUT(guest, release, TEST_SECONDS)
{
	ASSERT_EQ(0, attach_region(self->fd, self->vmm->vm_fd, 0));
	ASSERT_EQ(0, store(self, GUEST_STORE_RELEASE, MMIO_BASE + 8));
	check_event(_metadata, self->fd, 1, VALUE);
	ASSERT_TRUE(db_is_empty(self->fd));
	ASSERT_EQ(0, vmm_exits(self->vmm));
}

/* An access across a page is one access, and one ring. */
TEST_F_TIMEOUT(guest, across_a_page, TEST_SECONDS)
{
	__u64 base = MMIO_BASE + PAGE - 16, addr = MMIO_BASE + PAGE - 4;
	struct doorbell_event event;

	ASSERT_EQ(0, db_attach_as(self->fd, self->vmm->vm_fd, base, 32, 8, 0));
	ASSERT_EQ(0, store(self, GUEST_MMIO_WRITE, addr));
	ASSERT_EQ(1, db_read(self->fd, &event, 1));
	ASSERT_TRUE(db_event_is(&event, 1, 1, VALUE));
	ASSERT_EQ(8, event.width);
	ASSERT_TRUE(db_is_empty(self->fd));
	ASSERT_EQ(0, vmm_exits(self->vmm));
}

/* A region of more than 1 GiB has seams, and a store across one is no ring. */
TEST_F_TIMEOUT(guest, across_a_seam, TEST_SECONDS)
{
	const __u64 base = MMIO_BASE, seam = base + (1ULL << 30);
	struct doorbell_event event;
	int i;

	ASSERT_EQ(0, db_attach_as(self->fd, self->vmm->vm_fd, base, 3ULL << 30,
				  65536, 0));
	for (i = 1; i <= 2; i++) {
		ASSERT_EQ(0, store(self, GUEST_MMIO_WRITE,
				   base + ((__u64)i << 30) - 4));
		ASSERT_EQ(i, vmm_exits(self->vmm));
		ASSERT_TRUE(db_is_empty(self->fd));
	}
	/* those beside it are */
	ASSERT_EQ(0, store(self, GUEST_MMIO_WRITE, seam - 8));
	ASSERT_EQ(1, db_read(self->fd, &event, 1));
	ASSERT_TRUE(db_event_is(&event, (1 << 14) - 1, 1, VALUE));
	ASSERT_EQ(0, store(self, GUEST_MMIO_WRITE, seam));
	ASSERT_EQ(1, db_read(self->fd, &event, 1));
	ASSERT_TRUE(db_event_is(&event, 1 << 14, 1, VALUE));
	ASSERT_EQ(2, vmm_exits(self->vmm));
}

/* KVM never asks its fast bus: without values all rules are the usual ones. */
TEST_F_TIMEOUT(guest, no_fast_bus, TEST_SECONDS)
{
	const __u64 end = MMIO_BASE + REGION_LEN;

	ASSERT_EQ(0, attach_region(self->fd, self->vmm->vm_fd, NO_VALUE));
	ASSERT_EQ(0, store(self, GUEST_MMIO_WRITE, end - 4));
	ASSERT_EQ(1, vmm_exits(self->vmm));
	ASSERT_EQ(0, store(self, GUEST_MMIO_READ, MMIO_BASE));
	ASSERT_EQ(2, vmm_exits(self->vmm));
	ASSERT_TRUE(db_is_empty(self->fd));
}

/* Regions of ports exist, but only write() rings them. */
TEST_F_TIMEOUT(guest, ports, TEST_SECONDS)
{
	struct doorbell_event event;

	ASSERT_EQ(0, attach_region(self->fd, self->vmm->vm_fd, PIO));
	ASSERT_EQ(0, store(self, GUEST_MMIO_WRITE, PIO_BASE + 0x8000000));
	ASSERT_EQ(1, vmm_exits(self->vmm));
	ASSERT_TRUE(db_is_empty(self->fd));
	ASSERT_EQ(0, db_ring(self->fd, PIO_BASE + 8, 5));
	ASSERT_EQ(1, db_read(self->fd, &event, 1));
	ASSERT_TRUE(db_event_is(&event, 1, 1, 5));
}

static int gic_set(int gic, __u32 group, __u64 attr, const __u64 *value)
{
	struct kvm_device_attr arg = {
		.group = group, .attr = attr, .addr = (unsigned long)value,
	};

	return ioctl(gic, KVM_SET_DEVICE_ATTR, &arg) ? -errno : 0;
}

static int try_attach(FIXTURE_DATA(guest) *self, __u64 base)
{
	int ret = db_attach_as(self->fd, self->vmm->vm_fd, base, 8, 8, 0);

	return ret ? ret : db_detach(self->fd);
}

/*
 * The distributor of a GIC is on the bus only when the first vCPU has run; the
 * redistributors are when they have an address. Regions beside them stay.
 */
TEST_F_TIMEOUT(guest, gic, TEST_SECONDS)
{
	const __u64 dist = DIST_BASE, redist = REDIST_BASE;
	const __u64 beside = DIST_BASE + DIST_SIZE;
	struct kvm_create_device gic = { .type = KVM_DEV_TYPE_ARM_VGIC_V3 };
	int other = db_must_open(_metadata, O_NONBLOCK);

	ASSERT_EQ(0, ioctl(self->vmm->vm_fd, KVM_CREATE_DEVICE, &gic));
	ASSERT_EQ(0, try_attach(self, redist));
	ASSERT_EQ(0, gic_set(gic.fd, KVM_DEV_ARM_VGIC_GRP_ADDR,
			     KVM_VGIC_V3_ADDR_TYPE_DIST, &dist));
	ASSERT_EQ(0, gic_set(gic.fd, KVM_DEV_ARM_VGIC_GRP_ADDR,
			     KVM_VGIC_V3_ADDR_TYPE_REDIST, &redist));
	ASSERT_EQ(0, gic_set(gic.fd, KVM_DEV_ARM_VGIC_GRP_CTRL,
			     KVM_DEV_ARM_VGIC_CTRL_INIT, NULL));
	ASSERT_EQ(-EEXIST, try_attach(self, redist));
	ASSERT_EQ(0, try_attach(self, dist));
	ASSERT_EQ(0, db_attach_as(other, self->vmm->vm_fd, beside, 8, 8, 0));

	ASSERT_EQ(0, store(self, GUEST_MMIO_WRITE, MMIO_BASE));
	ASSERT_EQ(1, vmm_exits(self->vmm));
	ASSERT_EQ(-EEXIST, try_attach(self, redist));
	ASSERT_EQ(-EEXIST, try_attach(self, dist));
	ASSERT_EQ(-EEXIST, try_attach(self, beside - 8));
	ASSERT_EQ(0, store(self, GUEST_MMIO_WRITE, beside));
	check_event(_metadata, other, 0, VALUE);
	ASSERT_EQ(1, vmm_exits(self->vmm));
	close(other);
	close(gic.fd);
}

TEST_HARNESS_MAIN
