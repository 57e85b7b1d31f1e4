// SPDX-License-Identifier: GPL-2.0
/*
 * The measurements: how many instructions a ring costs on each path until the
 * consumer knows the queue. Prints one sample per line, for report.py: what,
 * path, queues, figure.
 *
 * Every figure is of the whole machine: the guest's loop, KVM, the VMM's loop
 * around KVM_RUN, the consumer, and timer ticks. The path "floor" has all of
 * these but the consumer. report.py subtracts its figure.
 *
 * batch64: the guest rings 64 queues and halts. Then the consumer, on the same
 * thread, makes the call that it sleeps in (which returns at once), gets all
 * events, and prepares to sleep again.
 *
 * batch1: the guest rings one queue and halts. The consumer is another thread,
 * asleep until the ring. It has the higher priority, so it runs as soon as the
 * ring wakes it up, and the vCPU's thread continues when it sleeps again. The
 * vCPU's thread measures a round: exit, wake-up, switch to the consumer, its
 * work, its way back to sleep, switch back, the guest's halt. Every path pays
 * for the two switches in the same way. The floor has no consumer, so a figure
 * above the floor includes them. KVM's exits to the VMM and its ring of
 * coalesced MMIO wake up no consumer: there the vCPU's thread hands over the
 * queue in an array, and signals one eventfd.
 *
 * queues: the guest rings one queue and halts, then the consumer, if the path
 * has one, checks once, without sleeping. Each round rings another queue, all
 * over the region. A single ring is the same work for any number of queues.
 */
#include <errno.h>
#include <sched.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "bench.h"

#define ROUNDS_BATCH	100
#define ROUNDS_SINGLE	1000
#define SETTLE_US	200000
#define WARMUP		50

/* Distance between the queues of two rounds: a prime, to reach all queues. */
#define STEP		25033

void die(const char *what)
{
	fprintf(stderr, "bench: %s: %s\n", what, strerror(errno));
	exit(1);
}

void sample(const char *what, const char *path, unsigned int queues, double n)
{
	printf("sample %s %s %u %.3f\n", what, path, queues, n);
	fflush(stdout);
}

void in_child(void (*fn)(const struct path *path, unsigned int queues),
	      const struct path *path, unsigned int queues)
{
	int status;
	pid_t pid;

	pid = fork();
	if (pid < 0)
		die("fork");
	if (!pid) {
		fn(path, queues);
		exit(0);
	}
	if (waitpid(pid, &status, 0) != pid)
		die("waitpid");
	if (status) {
		fprintf(stderr, "bench: %s, %u queues: failed\n", path->name,
			queues);
		exit(1);
	}
}

void bench_create(struct bench *b, const struct path *path, unsigned int queues)
{
	memset(b, 0, sizeof(*b));
	b->path = path;
	b->queues = queues;
	b->epfd = -1;
	b->handed_fd = -1;
	b->vmm = vmm_create(1);
	if (!b->vmm)
		die("vmm_create");
	if (path->prepare)
		path->prepare(b);
}

static void run_guest(struct bench *b)
{
	struct vmm_vcpu *v = &b->vmm->vcpu[0];

	do {
		if (ioctl(v->fd, KVM_RUN, 0))
			die("KVM_RUN");
		if (b->path->exited)
			b->path->exited(b, v->run);
		else if (v->run->exit_reason != KVM_EXIT_HLT)
			die("unexpected exit");
	} while (v->run->exit_reason != KVM_EXIT_HLT);
}

/* The guest rings @rings queues from @queue on, and the consumer hears them. */
static __u64 run_round(struct bench *b, unsigned int queue, unsigned int rings)
{
	struct guest_job *job = &b->vmm->shared->job[0];
	__u64 expected = b->heard + rings;
	__u64 sum = b->sum + (__u64)rings * queue + rings * (rings - 1) / 2;
	__u64 start, end;

	job->range[0].first = queue;
	start = ticks();
	run_guest(b);
	if (!b->threaded && b->path->consume)
		while (b->heard < expected)
			b->path->consume(b, rings > 1);
	end = ticks();

	errno = EPROTO;
	if (b->path->consume && (b->heard != expected || b->sum != sum))
		die("the consumer did not hear exactly the rings");
	return end - start;
}

static void start_job(struct bench *b, unsigned int rings)
{
	struct guest_job job = {
		.kind = GUEST_LOOP,
		.width = 4,
		.base = BENCH_BASE,
		.stride = BENCH_STRIDE,
		.range = { { .nr = rings } },
		.limit = rings,
	};

	if (vmm_job(b->vmm, 0, &job))
		die("vmm_job");
}

/* Not measured: KVM maps each page of the region as MMIO at its first ring. */
static void warm_up(struct bench *b, unsigned int rings)
{
	unsigned int q, i;

	for (q = 0; q + rings <= b->queues; q += 4096 / BENCH_STRIDE)
		run_round(b, q, rings);
	for (i = 0; i < WARMUP; i++)
		run_round(b, 0, rings);
}

static void measure(struct bench *b, const char *what, unsigned int rings,
		    unsigned int rounds)
{
	unsigned int rep, i, queue = 0;
	__u64 total;

	start_job(b, rings);
	/* not measured: grace periods that end after attaching */
	usleep(SETTLE_US);
	warm_up(b, rings);
	for (rep = 0; rep < BENCH_REPEAT; rep++) {
		for (total = 0, i = 0; i < rounds; i++) {
			if (rings == 1)
				queue = (queue + STEP) % b->queues;
			total += run_round(b, queue, rings);
		}
		sample(what, b->path->name, b->queues,
		       (double)total / rounds / rings);
	}
}

static void batch64(const struct path *path, unsigned int queues)
{
	struct bench b;

	bench_create(&b, path, queues);
	path->attach(&b);
	if (path->listen)
		path->listen(&b);
	measure(&b, "batch64", BENCH_BATCH, ROUNDS_BATCH);
}

static sem_t ready;

static void *consumer(void *arg)
{
	struct bench *b = arg;

	b->path->listen(b);
	sem_post(&ready);
	for (;;)
		b->path->consume(b, true);
	return NULL;
}

static void start_consumer(struct bench *b)
{
	struct sched_param param = { .sched_priority = 1 };
	pthread_attr_t attr;
	pthread_t thread;

	sem_init(&ready, 0, 0);
	pthread_attr_init(&attr);
	pthread_attr_setinheritsched(&attr, PTHREAD_EXPLICIT_SCHED);
	pthread_attr_setschedpolicy(&attr, SCHED_FIFO);
	pthread_attr_setschedparam(&attr, &param);
	errno = pthread_create(&thread, &attr, consumer, b);
	if (errno)
		die("pthread_create");
	sem_wait(&ready);
}

static void batch1(const struct path *path, unsigned int queues)
{
	struct bench b;

	bench_create(&b, path, queues);
	b.threaded = true;
	path->attach(&b);
	if (path->consume)
		start_consumer(&b);
	measure(&b, "batch1", 1, ROUNDS_SINGLE);
}

/* Measure all paths that share the attach function of @path. */
static void over_queues(const struct path *path, unsigned int queues)
{
	const struct path *end = paths + BENCH_PATHS;
	struct bench b;
	unsigned int i;

	bench_create(&b, path, queues);
	path->attach(&b);
	for (i = 0; path + i < end && path[i].attach == path->attach; i++) {
		b.path = path + i;
		if (b.path->listen)
			b.path->listen(&b);
		measure(&b, "queues", 1, ROUNDS_SINGLE);
		if (b.path->unlisten)
			b.path->unlisten(&b);
	}
}

static void repeat(void (*fn)(const struct path *path, unsigned int queues),
		   const char *name, const unsigned int *queues)
{
	int i;

	for (; *queues; queues++)
		for (i = 0; i < BENCH_REPEAT; i++)
			in_child(fn, path_find(name), *queues);
}

int main(void)
{
	static const unsigned int setups[] = { 64, 1024, 4096, 0 };
	static const unsigned int memory[] = { 4096, 0 };
	static const unsigned int sweep[] = { 1, 64, 1024, 16384, 65535, 0 };
	struct rlimit limit = { .rlim_cur = 100000, .rlim_max = 100000 };
	unsigned int i, j;

	if (setrlimit(RLIMIT_NOFILE, &limit))
		die("setrlimit");

	for (i = 0; i < BENCH_PATHS; i++)
		if (!i || paths[i].consume)
			in_child(batch64, &paths[i], BENCH_BATCH);
	for (i = 0; i < BENCH_PATHS; i++)
		if (!i || paths[i].consume)
			in_child(batch1, &paths[i], BENCH_BATCH);

	repeat(costs_setup, "ioeventfd_epoll", setups);
	repeat(costs_setup, "doorbell_mmap", setups);
	repeat(costs_setup, "ioeventfd_kick", setups);
	repeat(costs_setup, "doorbell_bound", setups);
	repeat(costs_memory, "ioeventfd_epoll", memory);
	repeat(costs_memory_many, "doorbell_mmap", memory);

	for (j = 0; sweep[j]; j++)
		for (i = 0; i < BENCH_PATHS; i++)
			if ((!i || paths[i].attach != paths[i - 1].attach) &&
			    sweep[j] <= paths[i].max_queues)
				in_child(over_queues, &paths[i], sweep[j]);
	return 0;
}
