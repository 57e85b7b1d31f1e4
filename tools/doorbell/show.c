// SPDX-License-Identifier: GPL-2.0
/*
 * Show: the commands list, info and queues.
 */
#include <unistd.h>

#include "tool.h"

enum {
	PID, FD, ID, COMMAND, VM, STATE, BUS, BASE, LEN, STRIDE, QUEUES, MODE,
	DEPTH, FLAGS, RINGS, BAD, PENDING, WAKEUPS, BOUNCED, BOUND,
};

static const struct column columns[] = {
	[PID] = { "PID", SCOLS_JSON_NUMBER },
	[FD] = { "FD", SCOLS_JSON_NUMBER },
	[ID] = { "ID", SCOLS_JSON_NUMBER },
	[COMMAND] = { "COMMAND", SCOLS_JSON_STRING },
	[VM] = { "VM", SCOLS_JSON_NUMBER },
	[STATE] = { "STATE", SCOLS_JSON_STRING },
	[BUS] = { "BUS", SCOLS_JSON_STRING },
	[BASE] = { "BASE", SCOLS_JSON_STRING },
	[LEN] = { "LEN", SCOLS_JSON_STRING },
	[STRIDE] = { "STRIDE", SCOLS_JSON_NUMBER },
	[QUEUES] = { "QUEUES", SCOLS_JSON_NUMBER },
	[MODE] = { "MODE", SCOLS_JSON_STRING },
	[DEPTH] = { "DEPTH", SCOLS_JSON_NUMBER },
	[FLAGS] = { "FLAGS", SCOLS_JSON_STRING },
	[RINGS] = { "RINGS", SCOLS_JSON_NUMBER },
	[BAD] = { "BAD", SCOLS_JSON_NUMBER },
	[PENDING] = { "PENDING", SCOLS_JSON_NUMBER },
	[WAKEUPS] = { "WAKEUPS", SCOLS_JSON_NUMBER },
	[BOUNCED] = { "BOUNCED", SCOLS_JSON_NUMBER },
	[BOUND] = { "BOUND", SCOLS_JSON_NUMBER },
};

static const struct option options[] = {
	OPTION_JSON,
	{ "rung", no_argument, NULL, 'r' },
	OPTIONS_END,
};

static void add_consumer(struct libscols_table *table,
			 const struct consumer *consumer)
{
	struct libscols_line *line = must(scols_table_new_line(table, NULL));
	const struct doorbell_info *info = &consumer->info;
	char mode[64];

	table_cell(line, PID, "%d", consumer->pid);
	table_cell(line, FD, "%d", consumer->fd);
	table_cell(line, ID, "%u", consumer->id);
	table_cell(line, COMMAND, "%s", consumer->comm);
	if (consumer->vm_pid)
		table_cell(line, VM, "%d", consumer->vm_pid);
	table_cell(line, STATE, "%s", state_text(info));
	if (!info->queues)
		return;
	table_cell(line, BUS, "%s", bus_text(info));
	table_cell(line, BASE, "%#llx", info->base);
	table_cell(line, LEN, "%#llx", info->len);
	table_cell(line, STRIDE, "%u", info->stride);
	table_cell(line, QUEUES, "%u", info->queues);
	table_cell(line, MODE, "%s", mode_text(info, mode, sizeof(mode)));
	table_cell(line, DEPTH, "%u", info->depth);
	table_cell(line, FLAGS, "%#x", info->flags);
	table_cell(line, RINGS, "%llu", info->rings);
	table_cell(line, BAD, "%llu", info->bad_rings);
	table_cell(line, PENDING, "%llu", info->pending);
	table_cell(line, WAKEUPS, "%llu", info->wakeups);
	table_cell(line, BOUNCED, "%llu", info->bounced);
	table_cell(line, BOUND, "%llu", info->bound_rings);
}

static int by_pid(const void *a, const void *b)
{
	const struct consumer *x = a, *y = b;

	return x->pid != y->pid ? (x->pid > y->pid) - (x->pid < y->pid) :
				  (x->fd > y->fd) - (x->fd < y->fd);
}

int cmd_list(int argc, char **argv)
{
	static const struct option list_options[] = {
		OPTION_JSON, OPTIONS_END,
	};
	struct libscols_table *table;
	struct consumer *list;
	unsigned int hidden;
	bool json = false;
	size_t i, n;

	while (next_option(argc, argv, list_options) != -1)
		json = true;
	if (optind < argc)
		die_usage("list takes no arguments");

	n = find_consumers(0, &list, &hidden);
	qsort(list, n, sizeof(*list), by_pid);
	table = table_new("consumers", json, columns, ARRAY_SIZE(columns));
	for (i = 0; i < n; i++)
		add_consumer(table, &list[i]);
	table_print(table);
	if (!n && !json)
		warn_user("found no descriptor of /dev/doorbell");
	free(list);
	warn_hidden(hidden);
	return STATUS_OK;
}

/* One consumer is a list of its fields, as text; in JSON as in a list. */
static void print_fields(const struct consumer *consumer)
{
	struct libscols_table *table = table_new("consumers", false, columns,
						 ARRAY_SIZE(columns));
	struct libscols_line *line;
	const char *text;
	size_t i;

	add_consumer(table, consumer);
	line = scols_table_get_line(table, 0);
	for (i = 0; i < ARRAY_SIZE(columns); i++) {
		text = scols_cell_get_data(scols_line_get_cell(line, i));
		if (text)
			printf("%-10s%s\n", columns[i].name, text);
	}
	scols_unref_table(table);
}

int cmd_info(int argc, char **argv)
{
	static const struct option info_options[] = {
		OPTION_JSON, OPTIONS_END,
	};
	struct libscols_table *table;
	struct consumer consumer;
	bool json = false;

	while (next_option(argc, argv, info_options) != -1)
		json = true;
	if (argc - optind != 2)
		die_usage("info takes a PID and an FD");

	consumer = find_consumer(argv[optind], argv[optind + 1]);
	if (!json) {
		print_fields(&consumer);
		return STATUS_OK;
	}
	table = table_new("consumers", true, columns, ARRAY_SIZE(columns));
	add_consumer(table, &consumer);
	table_print(table);
	return STATUS_OK;
}

/* Queues */

enum {
	Q_QUEUE, Q_RINGS, Q_PENDING, Q_BOUND, Q_BOUND_RINGS, Q_WIDTH, Q_VALUE,
};

static const struct column queue_columns[] = {
	[Q_QUEUE] = { "QUEUE", SCOLS_JSON_NUMBER },
	[Q_RINGS] = { "RINGS", SCOLS_JSON_NUMBER },
	[Q_PENDING] = { "PENDING", SCOLS_JSON_NUMBER },
	[Q_BOUND] = { "BOUND", SCOLS_JSON_BOOLEAN },
	[Q_BOUND_RINGS] = { "BOUND-RINGS", SCOLS_JSON_NUMBER },
	[Q_WIDTH] = { "WIDTH", SCOLS_JSON_NUMBER },
	[Q_VALUE] = { "VALUE", SCOLS_JSON_STRING },
};

/*
 * JSON has null for the queue of bad rings, for what was never written, and for
 * what a queue that is bound does not keep.
 */
static void add_queue(struct libscols_table *table, bool json,
		      const struct snapshot *snap, unsigned int number)
{
	struct libscols_line *line = must(scols_table_new_line(table, NULL));
	const struct queue_state *queue = &snap->queue[number];

	if (number < snap->info.queues)
		table_cell(line, Q_QUEUE, "%u", number);
	else if (!json)
		table_cell(line, Q_QUEUE, "bad");
	table_cell(line, Q_RINGS, "%llu",
		   (unsigned long long)(queue->rings + queue->bound_rings));
	table_cell(line, Q_PENDING, "%llu", (unsigned long long)queue->pending);
	if (json)
		table_cell(line, Q_BOUND, "%d", queue->bound);
	else
		table_cell(line, Q_BOUND, "%s", queue->bound ? "yes" : "no");
	table_cell(line, Q_BOUND_RINGS, "%llu",
		   (unsigned long long)queue->bound_rings);
	if (!queue->rings || queue->bound)
		return;
	table_cell(line, Q_WIDTH, "%u", queue->width);
	table_cell(line, Q_VALUE, "%#llx", (unsigned long long)queue->value);
}

static bool is_rung(const struct queue_state *queue)
{
	return queue->rings || queue->bound_rings;
}

/* Show the queues that the rest of the arguments names, or else all. */
static void add_queues(struct libscols_table *table, bool json,
		       const struct snapshot *snap, bool rung, char **names)
{
	unsigned int queues = snap->info.queues;
	uint64_t i;

	for (i = 0; !names[0] && i < queues; i++)
		if (!rung || is_rung(&snap->queue[i]))
			add_queue(table, json, snap, i);
	if (!names[0] && is_rung(&snap->queue[queues]))
		add_queue(table, json, snap, queues);
	for (; names[0]; names++) {
		i = parse_number(names[0], "QUEUE", UINT64_MAX);
		if (i >= queues)
			die(STATUS_NOT_FOUND,
			    "there is no queue %llu: the region has queues 0 to %u",
			    (unsigned long long)i, queues - 1);
		if (!rung || is_rung(&snap->queue[i]))
			add_queue(table, json, snap, i);
	}
}

int cmd_queues(int argc, char **argv)
{
	bool json = false, rung = false;
	struct libscols_table *table;
	struct consumer consumer;
	struct snapshot snap;
	int option, fd, ret;

	while ((option = next_option(argc, argv, options)) != -1) {
		json |= option == 'j';
		rung |= option == 'r';
	}
	if (argc - optind < 2)
		die_usage("queues takes a PID and an FD");

	consumer = find_consumer(argv[optind], argv[optind + 1]);
	fd = must_open_consumer(&consumer);
	ret = snapshot_take(fd, &snap, 0, 0);
	close(fd);
	if (ret == -ENOTCONN)
		die(STATUS_NOT_FOUND,
		    "no region was ever attached to descriptor %d of process %d",
		    consumer.fd, consumer.pid);
	if (ret == -EACCES)
		die(STATUS_DENIED,
		    "descriptor %d of process %d is not open for reading",
		    consumer.fd, consumer.pid);
	if (ret)
		die(STATUS_FAILED, "descriptor %d of process %d: %s",
		    consumer.fd, consumer.pid, strerror(-ret));

	table = table_new("queues", json, queue_columns,
			  ARRAY_SIZE(queue_columns));
	add_queues(table, json, &snap, rung, &argv[optind + 2]);
	table_print(table);
	if (snap.partial)
		warn_user("the region is ordered: these are the last %u rings, of %llu",
			  snap.info.nr_entries,
			  snap.info.rings + snap.info.bad_rings);
	free(snap.queue);
	return STATUS_OK;
}
