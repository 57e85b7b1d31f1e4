/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Rules of DOORBELL_ATTACH, also for the test that compares them with those of
 * the kernel.
 */
#ifndef _DOORBELL_RULES_H
#define _DOORBELL_RULES_H

#include <linux/doorbell.h>

/**
 * check_attach() - find the rules that an argument breaks
 * @arg: the argument; size and vm_fd do not matter
 * @broken: called for each rule, with its name and a sentence
 * @ctx: last argument of @broken
 *
 * Return: the number of rules; DOORBELL_ATTACH fails with EINVAL if it is not
 * 0.
 */
unsigned int check_attach(const struct doorbell_attach *arg,
			  void (*broken)(const char *rule, const char *why,
					 void *ctx),
			  void *ctx);

#endif /* _DOORBELL_RULES_H */
