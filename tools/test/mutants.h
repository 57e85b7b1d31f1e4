/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Mutants: what the code has that mutants.py makes of the module and the
 * library. It includes this file first in each of their files.
 *
 * The name of the host is the number of the mutant that is wanted. If it is 0,
 * the kernel log gets the number of each one that a test reaches.
 */
#ifndef _DOORBELL_MUTANTS_H
#define _DOORBELL_MUTANTS_H

#define MUTANT(n)		doorbell_mutant(n)

#ifdef __KERNEL__
#include <linux/atomic.h>
#include <linux/processor.h>

bool doorbell_mutant(int number);

#define relaxed_load(p)		READ_ONCE(*(p))
#define relaxed_store(p, v)	WRITE_ONCE(*(p), v)

/*
 * In place of an atomic operation, with a pause that lets other CPUs in, also
 * where QEMU runs all of them on one thread.
 */
#define plain_op(read, write, if_it) ({					\
	__auto_type _old = (read);					\
									\
	cpu_relax();							\
	if (if_it)							\
		write;							\
	_old;								\
})
#define plain_xchg(p, v)						\
	plain_op(READ_ONCE(*(p)), WRITE_ONCE(*(p), v), true)
#define plain_cmpxchg(p, old, v)					\
	plain_op(READ_ONCE(*(p)), WRITE_ONCE(*(p), v), _old == (old))
#define plain_atomic64_fetch_add(n, v)					\
	plain_op(atomic64_read(v), atomic64_set(v, _old + (n)), true)
#define plain_atomic64_fetch_inc(v)	plain_atomic64_fetch_add(1, v)
#define plain_atomic64_inc(v)		plain_atomic64_fetch_add(1, v)
#define plain_atomic_add(n, v)						\
	plain_op(atomic_read(v), atomic_set(v, _old + (n)), true)
#define plain_atomic_inc(v)		plain_atomic_add(1, v)
#define plain_atomic_dec(v)		plain_atomic_add(-1, v)
#define plain_atomic_inc_return(v)	(plain_atomic_add(1, v) + 1)
#define plain_test_and_set_bit(n, p)					\
	plain_op(test_bit(n, p), __set_bit(n, p), true)
#define plain_atomic64_try_cmpxchg(v, old, new) ({			\
	s64 _was = plain_op(atomic64_read(v), atomic64_set(v, new),	\
			    _old == *(old));				\
	bool _same = _was == *(old);					\
									\
	*(old) = _was;							\
	_same;								\
})
#else
#include <errno.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

static bool doorbell_mutant(int number)
{
	static bool reached[MUTANTS];
	static int wanted = -1;
	char name[65] = "";
	int error = errno;
	FILE *log;

	if (wanted < 0) {
		gethostname(name, sizeof(name) - 1);
		wanted = atoi(name);
	}
	if (!wanted && !reached[number]) {
		reached[number] = true;
		log = fopen("/dev/kmsg", "w");
		if (log) {
			fprintf(log, "mutant %d reached\n", number);
			fclose(log);
		}
		errno = error;
	}
	return number == wanted;
}
#endif

#endif /* _DOORBELL_MUTANTS_H */
