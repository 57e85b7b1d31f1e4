// SPDX-License-Identifier: GPL-2.0
/*
 * Attach: which region gets a guest's write; attach and detach while the guest
 * rings, and from several threads.
 */
#include <pthread.h>
#include <signal.h>
#include <sys/time.h>

#include "vmutil.h"

#define VCPUS		3

/* A guest's write rings one region: the one that covers its address */
FIXTURE(owner) {
	struct vmm *vmm;
	int fd[2];
};

FIXTURE_VARIANT(owner) {
	__u32 flags;
};

FIXTURE_VARIANT_ADD(owner, mmio) { .flags = 0, };
FIXTURE_VARIANT_ADD(owner, pio) { .flags = PIO, };

FIXTURE_SETUP(owner)
{
	int i;

	SKIP_WITHOUT_PORTS(variant->flags);
	for (i = 0; i < 2; i++) {
		self->fd[i] = db_must_open(_metadata, O_NONBLOCK);
	}
	self->vmm = vmm_create(1);
	ASSERT_NE(NULL, self->vmm);
}

FIXTURE_TEARDOWN(owner)
{
	close(self->fd[0]);
	close(self->fd[1]);
	vmm_destroy(self->vmm);
}

/* Only a negative vm_fd names no VM. */
TEST_F_TIMEOUT(owner, vm_fd_0, TEST_SECONDS)
{
	__u64 base = base_of(variant->flags);

	ASSERT_EQ(0, dup2(self->vmm->vm_fd, 0));
	ASSERT_EQ(0, db_attach_as(self->fd[0], 0, base, REGION_LEN,
				  REGION_STRIDE, variant->flags));
	ASSERT_EQ(0, guest_write(self->vmm, variant->flags, 4, base, 1));
	check_event(_metadata, self->fd[0], 0, 1);
	ASSERT_EQ(0, vmm_exits(self->vmm));
	ASSERT_EQ(0, db_detach(self->fd[0]));
	ASSERT_EQ(0, close(0));
}

/* Two consumers with adjacent regions each read their own rings. */
TEST_F_TIMEOUT(owner, two_regions_in_one_vm, TEST_SECONDS)
{
	__u64 base = base_of(variant->flags);
	int vm = self->vmm->vm_fd;
	int i;

	for (i = 1; i >= 0; i--)
		ASSERT_EQ(0, db_attach_as(self->fd[i], vm,
					  base + i * REGION_LEN, REGION_LEN,
					  REGION_STRIDE, variant->flags));
	ASSERT_EQ(0, guest_write(self->vmm, variant->flags, 4,
				 base + REGION_LEN - 8, 1));
	ASSERT_EQ(0, guest_write(self->vmm, variant->flags, 4,
				 base + REGION_LEN, 2));
	check_event(_metadata, self->fd[0], REGION_QUEUES - 1, 1);
	check_event(_metadata, self->fd[1], 0, 2);
	ASSERT_EQ(POLLOUT, poll_now(self->fd[0]));
	ASSERT_EQ(POLLOUT, poll_now(self->fd[1]));
	ASSERT_EQ(0, vmm_exits(self->vmm));

	ASSERT_EQ(0, db_detach(self->fd[0]));
	ASSERT_EQ(0, guest_write(self->vmm, variant->flags, 4,
				 base + REGION_LEN - 8, 3));
	ASSERT_EQ(1, vmm_exits(self->vmm));
	ASSERT_EQ(0, guest_write(self->vmm, variant->flags, 4,
				 base + REGION_LEN, 4));
	check_event(_metadata, self->fd[1], 0, 4);
	ASSERT_EQ(0, poll_now(self->fd[0]));
	ASSERT_EQ(1, vmm_exits(self->vmm));
}

/* The same addresses in two VMs are two regions. */
TEST_F_TIMEOUT(owner, same_region_in_two_vms, TEST_SECONDS)
{
	__u64 base = base_of(variant->flags);
	struct vmm *vmm[2] = { self->vmm, vmm_create(1) };
	int i;

	ASSERT_NE(NULL, vmm[1]);
	for (i = 0; i < 2; i++)
		ASSERT_EQ(0, attach_region(self->fd[i], vmm[i]->vm_fd,
					   variant->flags));
	for (i = 0; i < 2; i++) {
		ASSERT_EQ(0, guest_write(vmm[i], variant->flags, 4,
					 base + 8 * i, 7 + i));
		check_event(_metadata, self->fd[i], i, 7 + i);
		ASSERT_EQ(POLLOUT, poll_now(self->fd[!i]));
	}
	ASSERT_EQ(0, db_detach(self->fd[0]));
	ASSERT_EQ(0, guest_write(vmm[1], variant->flags, 4, base, 9));
	check_event(_metadata, self->fd[1], 0, 9);
	ASSERT_EQ(0, vmm_exits(vmm[1]));
	vmm_destroy(vmm[1]);
}

/* EEXIST for any intersection; the attached region keeps all its rings. */
TEST_F_TIMEOUT(owner, intersecting_regions, TEST_SECONDS)
{
	static const struct {
		int offset, len, stride, ret;
	} tries[] = {
		/* equal */
		{ 0, REGION_LEN, 8, -EEXIST },
		{ 0, REGION_LEN, 2, -EEXIST },
		/* inside */
		{ 0, 8, 8, -EEXIST },
		{ 64, 64, 4, -EEXIST },
		{ REGION_LEN - 2, 2, 2, -EEXIST },
		/* around */
		{ -64, 128 + REGION_LEN, 8, -EEXIST },
		{ -64, 64 + REGION_LEN, 8, -EEXIST },
		{ 0, REGION_LEN + 8, 8, -EEXIST },
		/* across an edge */
		{ -8, 16, 8, -EEXIST },
		{ -2, 4, 2, -EEXIST },
		{ REGION_LEN - 8, 16, 8, -EEXIST },
		{ REGION_LEN - 2, 4, 2, -EEXIST },
		/* adjacent */
		{ -8, 8, 8, 0 },
		{ REGION_LEN, 8, 8, 0 },
		{ -2, 2, 2, 0 },
		{ REGION_LEN, 2, 2, 0 },
	};
	__u64 base = base_of(variant->flags);
	int ret, vm = self->vmm->vm_fd;
	struct db_snapshot before, after;
	unsigned int i;

	ASSERT_EQ(0, attach_region(self->fd[0], vm, variant->flags));
	ASSERT_EQ(0, db_snapshot(self->fd[1], &before));
	for (i = 0; i < ARRAY_SIZE(tries); i++) {
		ret = db_attach_as(self->fd[1], vm, base + tries[i].offset,
				   tries[i].len, tries[i].stride,
				   variant->flags);
		ASSERT_EQ(tries[i].ret, ret) {
			TH_LOG("[%d, +%d)", tries[i].offset, tries[i].len);
		}
		ASSERT_EQ(0, guest_write(self->vmm, variant->flags, 4,
					 base + REGION_LEN - 8, i));
		check_event(_metadata, self->fd[0], REGION_QUEUES - 1, i);
		ASSERT_EQ(0,
			  guest_write(self->vmm, variant->flags, 4, base, i));
		check_event(_metadata, self->fd[0], 0, i);
		if (tries[i].ret) {
			ASSERT_EQ(0, db_snapshot(self->fd[1], &after));
			ASSERT_TRUE(db_same(&before, &after));
		} else {
			ASSERT_EQ(POLLOUT, poll_now(self->fd[1]));
			ASSERT_EQ(0, db_detach(self->fd[1]));
			ASSERT_EQ(0, db_snapshot(self->fd[1], &before));
		}
	}
	ASSERT_EQ(-EBUSY, db_attach_as(self->fd[0], vm, base + REGION_LEN,
				       REGION_LEN, REGION_STRIDE,
				       variant->flags));
	ASSERT_EQ(0, vmm_exits(self->vmm));
	/* the two buses do not share addresses */
	ASSERT_EQ(0, db_attach_as(self->fd[1], vm, base & 0xffff, REGION_LEN,
				  REGION_STRIDE, variant->flags ^ PIO));
}

/* Unlike Fuchsia's GuestBellTrap, a region can be detached and re-attached. */
TEST_F_TIMEOUT(owner, attach_again, TEST_SECONDS)
{
	__u64 base = base_of(variant->flags);
	int vm = self->vmm->vm_fd, fd = self->fd[0];
	struct doorbell_info info;
	unsigned int i, stride;

	for (i = 0; i < 12; i++) {
		stride = 2U << i / 2 % 4;	/* each stride twice */
		ASSERT_EQ(0, db_attach_as(fd, vm, base, REGION_LEN, stride,
					  variant->flags));
		/* attach drops the unread events of the last region */
		ASSERT_EQ(POLLOUT, poll_now(fd));
		ASSERT_EQ(0, guest_write(self->vmm, variant->flags, 4,
					 base + 96, i));
		check_event(_metadata, fd, 96 / stride, i);
		info = info_of(fd);
		ASSERT_EQ(1, info.rings);
		ASSERT_EQ(stride, info.stride);
		ASSERT_EQ(REGION_LEN / stride, info.queues);
		ASSERT_EQ(0, guest_write(self->vmm, variant->flags, 4,
					 base + 32, i));
		ASSERT_EQ(i, vmm_exits(self->vmm));
		ASSERT_EQ(0, db_detach(fd));
		ASSERT_EQ(0, guest_write(self->vmm, variant->flags, 4,
					 base + 96, i));
		ASSERT_EQ(i + 1, vmm_exits(self->vmm));
		/* detach keeps what was rung before */
		if (i % 2)
			check_event(_metadata, fd, 32 / stride, i);
		else
			ASSERT_EQ(POLLIN, poll_now(fd));
	}
	/* another consumer can attach the same region */
	ASSERT_EQ(0, attach_region(self->fd[1], vm, variant->flags));
	ASSERT_EQ(0, guest_write(self->vmm, variant->flags, 4, base, 5));
	check_event(_metadata, self->fd[1], 0, 5);
}

/* Conservation while the guest rings: every ring is an event or an exit */
FIXTURE(ringing) {
	struct vmm *vmm;
	struct exits exits;
	struct book book;
	int fd;
};

FIXTURE_VARIANT(ringing) {
	__u32 flags;
};

FIXTURE_VARIANT_ADD(ringing, mmio) { .flags = 0, };
FIXTURE_VARIANT_ADD(ringing, pio) { .flags = PIO, };

FIXTURE_SETUP(ringing)
{
	SKIP_WITHOUT_PORTS(variant->flags);
	self->fd = db_must_open(_metadata, O_NONBLOCK);
	self->vmm = vmm_create(VCPUS);
	ASSERT_NE(NULL, self->vmm);
	count_exits(self->vmm, &self->exits, variant->flags);
}

FIXTURE_TEARDOWN(ringing)
{
	close(self->fd);
	vmm_destroy(self->vmm);
}

/* No ring arrives after detach, and none is lost. */
TEST_F_TIMEOUT(ringing, detach, TEST_SECONDS)
{
	struct doorbell_info detached, end;

	ASSERT_EQ(0, attach_region(self->fd, self->vmm->vm_fd, variant->flags));
	ASSERT_EQ(0, start_ringing(self->vmm, variant->flags));
	ASSERT_TRUE(eventually(info_of(self->fd).rings > 1000));
	ASSERT_EQ(0, vmm_exits(self->vmm));
	ASSERT_EQ(0, book_drain(&self->book, self->fd));

	ASSERT_EQ(0, db_detach(self->fd));
	detached = info_of(self->fd);
	ASSERT_TRUE(eventually(all_exit(&self->exits, VCPUS)));
	ASSERT_EQ(0, stop_ringing(self->vmm));
	end = info_of(self->fd);
	ASSERT_EQ(DOORBELL_DETACHED, end.state);
	ASSERT_EQ(detached.rings, end.rings);
	ASSERT_EQ(detached.pending, end.pending);

	ASSERT_EQ(0, book_drain(&self->book, self->fd));
	ASSERT_EQ(end.rings, book_total(&self->book));
	check_books(_metadata, self->vmm->shared, &self->book, &self->exits);
}

/* Attach the whole region and half of it in turns. */
TEST_F_TIMEOUT(ringing, attach_and_detach, TEST_SECONDS)
{
	__u64 before, rings = 0, end = db_until(5000);
	unsigned int i;

	ASSERT_EQ(0, start_ringing(self->vmm, variant->flags));
	for (i = 0; db_round(i, 40, 120, end); i++) {
		ASSERT_EQ(0, db_attach_as(self->fd, self->vmm->vm_fd,
					  base_of(variant->flags),
					  i % 2 ? REGION_LEN : REGION_LEN / 2,
					  REGION_STRIDE, variant->flags));
		if (i % 4 == 1) {
			ASSERT_TRUE(eventually(info_of(self->fd).rings > 10));
			ASSERT_EQ(0, book_drain(&self->book, self->fd));
		}
		before = vmm_exits(self->vmm);
		ASSERT_EQ(0, db_detach(self->fd));
		ASSERT_EQ(0, book_drain(&self->book, self->fd));
		rings += info_of(self->fd).rings;
		if (i % 16 == 0)
			ASSERT_TRUE(eventually(vmm_exits(self->vmm) >
					       before + 1));
	}
	ASSERT_EQ(0, stop_ringing(self->vmm));
	ASSERT_EQ(rings, book_total(&self->book));
	ASSERT_LT(100, rings);
	check_books(_metadata, self->vmm->shared, &self->book, &self->exits);
}

/* Threads that attach and detach one descriptor get EBUSY, never EEXIST */
struct turns {
	int fd;
	int vm;
	__u64 end;
	unsigned int attached;
	int error;
};

static void *take_turns(void *arg)
{
	struct turns *t = arg;
	int ret;

	/* however slow the machine is */
	while (!t->error && (db_now_ms() < t->end || t->attached < 10)) {
		ret = attach_region(t->fd, t->vm, 0);
		if (ret == -EBUSY)
			continue;
		if (!ret)
			ret = db_detach(t->fd);
		t->error = ret == -ENOTCONN ? 0 : ret;
		t->attached++;
	}
	return NULL;
}

TEST_F_TIMEOUT(owner, attach_from_two_threads, TEST_SECONDS)
{
	struct turns turns[2];
	pthread_t thread[2];
	int i;

	for (i = 0; i < 2; i++) {
		turns[i] = (struct turns) {
			.fd = self->fd[0],
			.vm = self->vmm->vm_fd,
			.end = db_until(2000),
		};
		ASSERT_EQ(0, pthread_create(&thread[i], NULL, take_turns,
					    &turns[i]));
	}
	for (i = 0; i < 2; i++)
		ASSERT_EQ(0, pthread_join(thread[i], NULL));
	for (i = 0; i < 2; i++)
		EXPECT_EQ(0, turns[i].error);
}

/* A signal does not interrupt attach: its handler runs and the call goes on. */
static volatile sig_atomic_t in_attach, hits, again;
static unsigned int delay_us;

static void arm(void)
{
	struct itimerval timer = { .it_value.tv_usec = delay_us };

	setitimer(ITIMER_REAL, &timer, NULL);
}

static void on_alarm(int sig)
{
	hits += in_attach;
	if (again) {
		again--;
		arm();
	}
}

FIXTURE(signals) {
	struct vmm *vmm;
	int fd;
};

FIXTURE_VARIANT(signals) {
	int flags;
};

FIXTURE_VARIANT_ADD(signals, restart) { .flags = SA_RESTART, };
FIXTURE_VARIANT_ADD(signals, no_restart) { .flags = 0, };

FIXTURE_SETUP(signals)
{
	struct sigaction sa = {
		.sa_handler = on_alarm,
		.sa_flags = variant->flags,
	};

	self->fd = db_must_open(_metadata, O_NONBLOCK);
	self->vmm = vmm_create(1);
	ASSERT_NE(NULL, self->vmm);
	ASSERT_EQ(0, sigaction(SIGALRM, &sa, NULL));
}

FIXTURE_TEARDOWN(signals)
{
	close(self->fd);
	vmm_destroy(self->vmm);
}

static unsigned int now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return now.tv_sec * 1000000 + now.tv_nsec / 1000;
}

TEST_F_TIMEOUT(signals, during_attach, TEST_SECONDS)
{
	unsigned int i, start, us = 1000;
	__u64 end = db_until(12000);
	__u32 random = 3;
	int ret;

	for (i = 0; i < 1000 && hits < 100; i++) {
		if (hits > 20 && db_now_ms() > end)
			break;
		/* in the middle of a call that takes as long as the last one */
		delay_us = 1 + db_random(&random) % us;
		again = 3;
		arm();
		in_attach = 1;
		start = now_us();
		ret = attach_region(self->fd, self->vmm->vm_fd, 0);
		us = now_us() - start ?: 1;
		in_attach = 0;
		ASSERT_EQ(0, ret);
		ASSERT_EQ(0, guest_write(self->vmm, 0, 4, MMIO_BASE, i));
		check_event(_metadata, self->fd, 0, i);
		arm();
		ASSERT_EQ(0, db_detach(self->fd));
	}
	again = 0;
	ASSERT_LT(20, hits);
	ASSERT_EQ(0, vmm_exits(self->vmm));
}

TEST_HARNESS_MAIN
