/* SPDX-License-Identifier: GPL-2.0 */
/*
 * Tool: what the files of the doorbell command share.
 *
 * Functions that return an int return 0 or more on success and a negative errno
 * on failure, unless their description says otherwise.
 */
#ifndef _DOORBELL_TOOL_H
#define _DOORBELL_TOOL_H

#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>

#include <libsmartcols/libsmartcols.h>
#include <linux/doorbell.h>

/* Exit statuses, which doorbell(1) documents */
enum {
	STATUS_OK,
	STATUS_FAILED,
	STATUS_USAGE,
	STATUS_NO_DEVICE,
	STATUS_DENIED,
	STATUS_NOT_FOUND,
};

#define ARRAY_SIZE(a)	(sizeof(a) / sizeof((a)[0]))

#define OPTION_JSON	{ "json", no_argument, NULL, 'j' }
#define OPTIONS_END	{ "help", no_argument, NULL, 'h' }, {}

/** warn_user() - print a line on stderr */
__attribute__((format(printf, 1, 2)))
void warn_user(const char *format, ...);

/** die() - print a line on stderr and exit */
__attribute__((noreturn, format(printf, 2, 3)))
void die(int status, const char *format, ...);

/** die_usage() - print a line and a hint at --help, and exit */
__attribute__((noreturn, format(printf, 1, 2)))
void die_usage(const char *format, ...);

/** leave_screen() - give the terminal back, if top has taken it: top.c */
void leave_screen(void);

/** must_flush() - write out what was printed, or exit */
void must_flush(void);

/** must() - return @mem, or exit if it is NULL */
void *must(void *mem);

/** next_option() - getopt_long() that handles --help and errors */
int next_option(int argc, char **argv, const struct option *options);

/** parse_number() - decimal, or hexadecimal after 0x, or exit */
uint64_t parse_number(const char *text, const char *what, uint64_t max);

/** parse_count() - the same for N of an option, which is not 0 */
uint64_t parse_count(const char *text);

/** parse_pid() - a number of a process, or exit */
pid_t parse_pid(const char *text);

/** parse_seconds() - a positive number of seconds in milliseconds, or exit */
int parse_seconds(const char *text, const char *what);

/* Tables, as text or JSON */

/**
 * struct column - a column of a table
 * @name: heading; in lower case also the key in JSON
 * @type: SCOLS_JSON_*; numbers are aligned to the right
 */
struct column {
	const char *name;
	int type;
};

struct libscols_table *table_new(const char *name, bool json,
				 const struct column *columns, size_t n);

__attribute__((format(printf, 3, 4)))
void table_cell(struct libscols_line *line, size_t column,
		const char *format, ...);

/** table_print() - print and free */
void table_print(struct libscols_table *table);

/* Consumers: find.c */

/**
 * struct consumer - a descriptor of /dev/doorbell in some process
 * @pid: the process
 * @tid: the thread in whose table of descriptors it is
 * @fd: the descriptor
 * @id: the kernel's name of the open file, which several processes may share
 * @comm: name of the process
 * @vm_pid: the process whose VM the region is in, or 0
 * @info: from fdinfo; only the fields that it has
 */
struct consumer {
	pid_t pid;
	pid_t tid;
	int fd;
	uint32_t id;
	char comm[32];
	pid_t vm_pid;
	struct doorbell_info info;
};

/**
 * find_consumers() - find all descriptors of /dev/doorbell
 * @only: in this process, or 0
 * @list: the result, for free()
 * @hidden: number of processes that the caller may not look into
 *
 * Exits if the module is not there. Returns early if @interrupted is set.
 * Return: the number of consumers.
 */
size_t find_consumers(pid_t only, struct consumer **list, unsigned int *hidden);

/** interrupted - for handlers of signals: end a search */
extern volatile sig_atomic_t interrupted;

/** proc_hides() - does /proc hide other users' processes? */
bool proc_hides(void);

/** warn_hidden() - say that consumers may be missing, if so */
void warn_hidden(unsigned int hidden);

/** must_open_process() - get a pidfd of a process, or exit if it is hidden */
int must_open_process(pid_t pid);

/** process_ended() - has it, even if its parent has not waited for it? */
bool process_ended(int pidfd);

/** find_consumer() - the consumer that arguments name, or exit */
struct consumer find_consumer(const char *pid, const char *fd);

/**
 * consumer_open() - get a duplicate of a consumer's descriptor
 * @consumer: its facts are then those of the duplicate
 *
 * Return: the duplicate, or -ESTALE if it is another consumer by now, or
 * another error.
 */
int consumer_open(struct consumer *consumer);

/** must_open_consumer() - the same, or exit */
int must_open_consumer(struct consumer *consumer);

/** must_open_vm() - get a descriptor of a process's VM, or exit; -1: any */
int must_open_vm(pid_t pid, int fd);

/** die_device() - exit because of @error of opening /dev/doorbell */
__attribute__((noreturn))
void die_device(int error);

/** mode_text() - the mode and the flags of a region, in words */
const char *mode_text(const struct doorbell_info *info, char *text,
		      size_t size);

/** state_text() - "detached", "attached" or "hangup" */
const char *state_text(const struct doorbell_info *info);

/** bus_text() - "mmio" or "pio" */
const char *bus_text(const struct doorbell_info *info);

/* Queues of a consumer: snapshot.c */

/**
 * struct queue_state - what there is to know of a queue
 * @rings: rings, without those that signalled an eventfd
 * @pending: those that no event has counted yet
 * @bound_rings: rings that signalled an eventfd
 * @value: the last value written, if @rings is not 0
 * @type: of the last ring, if @rings is not 0
 * @width: of the last ring, if @rings is not 0
 * @bound: the queue is bound to an eventfd now
 */
struct queue_state {
	uint64_t rings;
	uint64_t pending;
	uint64_t bound_rings;
	uint64_t value;
	uint8_t type;
	uint8_t width;
	bool bound;
};

/**
 * struct snapshot - the queues of a consumer at some moment
 * @info: the region
 * @partial: ordered: there were more rings than the kernel keeps, and
 *	queue_state.rings counts the last ones only
 * @next: ordered: position after the last ring counted
 * @queue: info.queues of them, and one more for bad rings
 */
struct snapshot {
	struct doorbell_info info;
	bool partial;
	uint64_t next;
	struct queue_state *queue;
};

/**
 * snapshot_take() - look at the queues, without changing anything
 * @fd: a descriptor of the consumer
 * @snap: the result; free snap->queue
 * @since: ordered: count rings from this position on, 0 for all
 * @generation: region that @since is about
 *
 * Return: 0, or -ENOTCONN if no region was ever attached, or another error.
 */
int snapshot_take(int fd, struct snapshot *snap, uint64_t since,
		  uint32_t generation);

/* Arguments that name a region: region.c */

enum {
	OPTION_PIO = 0x100,
	OPTION_ORDERED,
	OPTION_BY_VALUE,
	OPTION_NO_VALUE,
	OPTION_BOUND_ONLY,
	OPTION_EXACT,
	OPTION_FLAGS,
	OPTION_DEPTH,
	OPTION_QUEUES,
};

#define OPTIONS_REGION							\
	{ "pio", no_argument, NULL, OPTION_PIO },			\
	{ "ordered", required_argument, NULL, OPTION_ORDERED },		\
	{ "by-value", required_argument, NULL, OPTION_BY_VALUE },	\
	{ "no-value", no_argument, NULL, OPTION_NO_VALUE },		\
	{ "bound-only", no_argument, NULL, OPTION_BOUND_ONLY },		\
	{ "exact", no_argument, NULL, OPTION_EXACT },			\
	{ "flags", required_argument, NULL, OPTION_FLAGS },		\
	{ "depth", required_argument, NULL, OPTION_DEPTH },		\
	{ "queues", required_argument, NULL, OPTION_QUEUES }

/** region_option() - take one of OPTIONS_REGION */
void region_option(struct doorbell_attach *arg, int option);

/** region_arguments() - take BASE LEN [STRIDE] from argv[optind] on */
void region_arguments(struct doorbell_attach *arg, int argc, char **argv);

/* Subcommands: take argc and argv, return the exit status */

int cmd_list(int argc, char **argv);
int cmd_info(int argc, char **argv);
int cmd_queues(int argc, char **argv);
int cmd_top(int argc, char **argv);
int cmd_monitor(int argc, char **argv);
int cmd_ring(int argc, char **argv);
int cmd_check(int argc, char **argv);
int cmd_run(int argc, char **argv);

#endif /* _DOORBELL_TOOL_H */
