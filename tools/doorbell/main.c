// SPDX-License-Identifier: GPL-2.0
/*
 * The doorbell command: shows, tries and checks consumers of /dev/doorbell.
 */
#include <fcntl.h>
#include <locale.h>
#include <stdarg.h>
#include <unistd.h>

#include "tool.h"

static const struct command {
	const char *name;
	const char *arguments;
	const char *summary;
	int (*run)(int argc, char **argv);
} commands[] = {
	{ "list", "[--json]", "all consumers on this system", cmd_list },
	{ "info", "[--json] PID FD", "one consumer", cmd_info },
	{ "queues", "[--json] [--rung] PID FD [QUEUE]...",
	  "the queues of a consumer", cmd_queues },
	{ "top",
	  "[--json] [--interval SECONDS] [--count N] [--lines N] [PID [FD]]",
	  "live rates, the busiest queue first", cmd_top },
	{ "monitor",
	  "[--vm PID] [--vm-fd FD] [--num-events N]\n"
	  "        [--idle-timeout SECONDS] [--format FORMAT | --json]\n"
	  "        [REGION-OPTION]... BASE LEN [STRIDE]",
	  "attach a region and print its events", cmd_monitor },
	{ "ring", "[--address] [--value V] [--count N] PID FD QUEUE...",
	  "ring queues of a consumer", cmd_ring },
	{ "check", "[--json] [REGION-OPTION]... BASE LEN [STRIDE]",
	  "which rules of DOORBELL_ATTACH a region breaks", cmd_check },
	{ "run", "[--stats] [--] VMM [ARGUMENT]...",
	  "run a VMM whose ioeventfds become a region", cmd_run },
};

static const char * const region_help[] = {
	"\nREGION-OPTION is --pio, --ordered DEPTH, --by-value QUEUES,",
	"--no-value, --bound-only, --exact, or sets a field: --flags N,",
	"--depth N, --queues N.",
};

static const struct command *command;

static void print_line(const char *format, va_list args)
{
	leave_screen();
	fflush(stdout);
	fputs("doorbell: ", stderr);
	vfprintf(stderr, format, args);
	fputc('\n', stderr);
}

void warn_user(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	print_line(format, args);
	va_end(args);
}

void die(int status, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	print_line(format, args);
	va_end(args);
	exit(status);
}

void must_flush(void)
{
	if (fflush(stdout) || ferror(stdout))
		die(STATUS_FAILED, "cannot write: %s", strerror(errno));
}

static void hint_at_help(void)
{
	fprintf(stderr, "Try \"doorbell %s%s--help\".\n",
		command ? command->name : "", command ? " " : "");
}

void die_usage(const char *format, ...)
{
	va_list args;

	va_start(args, format);
	print_line(format, args);
	va_end(args);
	hint_at_help();
	exit(STATUS_USAGE);
}

void *must(void *mem)
{
	if (!mem)
		die(STATUS_FAILED, "no memory");
	return mem;
}

int next_option(int argc, char **argv, const struct option *options)
{
	/* "+": what comes after a VMM are its own options */
	int option = getopt_long(argc, argv,
				 command->run == cmd_run ? "+" : "", options,
				 NULL);

	if (option == '?') {
		hint_at_help();
		exit(STATUS_USAGE);
	}
	if (option == 'h') {
		size_t i;

		printf("Usage: doorbell %s %s\n\n%c%s.\n", command->name,
		       command->arguments, command->summary[0] & ~0x20,
		       command->summary + 1);
		if (strstr(command->arguments, "REGION-OPTION"))
			for (i = 0; i < ARRAY_SIZE(region_help); i++)
				puts(region_help[i]);
		puts("\nSee doorbell(1).");
		must_flush();
		exit(STATUS_OK);
	}
	return option;
}

static uint64_t parse_range(const char *text, const char *what, uint64_t min,
			    uint64_t max)
{
	int base = !strncasecmp(text, "0x", 2) ? 16 : 10;
	unsigned long long number;
	char *end;

	errno = 0;
	number = strtoull(text, &end, base);
	/* strtoull() would take a sign and spaces */
	if (errno || *end || end == text || text[0] < '0' || text[0] > '9' ||
	    number < min || number > max)
		die_usage("%s is a number from %llu to %llu, not \"%s\"", what,
			  (unsigned long long)min, (unsigned long long)max,
			  text);
	return number;
}

uint64_t parse_number(const char *text, const char *what, uint64_t max)
{
	return parse_range(text, what, 0, max);
}

uint64_t parse_count(const char *text)
{
	return parse_range(text, "N", 1, UINT64_MAX);
}

pid_t parse_pid(const char *text)
{
	return parse_range(text, "PID", 1, INT32_MAX);
}

int parse_seconds(const char *text, const char *what)
{
	char *end;
	double seconds = strtod(text, &end);

	if (*end || end == text || !(seconds >= 0.001 && seconds <= 1000000))
		die_usage("%s is a number of seconds from 0.001 to 1000000, not \"%s\"",
			  what, text);
	return seconds * 1000;
}

/* Tables */

struct libscols_table *table_new(const char *name, bool json,
				 const struct column *columns, size_t n)
{
	struct libscols_table *table = must(scols_new_table());
	size_t i;

	scols_table_set_name(table, name);
	scols_table_enable_json(table, json);
	for (i = 0; i < n; i++) {
		int type = columns[i].type;
		struct libscols_column *column =
			must(scols_table_new_column(table, columns[i].name, 0,
						    type == SCOLS_JSON_NUMBER ?
						    SCOLS_FL_RIGHT : 0));

		scols_column_set_json_type(column, type);
	}
	return table;
}

void table_cell(struct libscols_line *line, size_t column,
		const char *format, ...)
{
	va_list args;
	char *text;

	va_start(args, format);
	if (vasprintf(&text, format, args) < 0)
		text = NULL;
	va_end(args);
	if (scols_line_refer_data(line, column, must(text)))
		must(NULL);
}

void table_print(struct libscols_table *table)
{
	scols_print_table(table);
	scols_unref_table(table);
}

static void help(FILE *to)
{
	size_t i;

	fputs("Usage: doorbell COMMAND [OPTION]... [ARGUMENT]...\n\n", to);
	for (i = 0; i < ARRAY_SIZE(commands); i++)
		fprintf(to, "  %-9s%s\n", commands[i].name,
			commands[i].summary);
	fputs("\n\"doorbell COMMAND --help\" has the arguments, doorbell(1) the rest.\n",
	      to);
}

/*
 * The next file that opens takes the place of a standard one that is closed. It
 * must be none that what we print, or read, does anything to.
 */
static void fill_standard_files(void)
{
	int fd;

	for (fd = STDIN_FILENO; fd <= STDERR_FILENO; fd++)
		if (fcntl(fd, F_GETFD) < 0 &&
		    open("/dev/null", fd ? O_RDONLY : O_WRONLY) != fd)
			exit(STATUS_FAILED);
}

int main(int argc, char **argv)
{
	char name[32];
	size_t i;
	int status;

	fill_standard_files();
	/* for names in tables */
	setlocale(LC_CTYPE, "");
	if (argc < 2) {
		help(stderr);
		return STATUS_USAGE;
	}
	if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "help")) {
		help(stdout);
		must_flush();
		return STATUS_OK;
	}
	if (!strcmp(argv[1], "--version")) {
		puts("doorbell " VERSION);
		must_flush();
		return STATUS_OK;
	}
	for (i = 0; i < ARRAY_SIZE(commands); i++)
		if (!strcmp(argv[1], commands[i].name))
			command = &commands[i];
	if (!command)
		die_usage("there is no command \"%s\"", argv[1]);

	/* for the messages of getopt_long() */
	snprintf(name, sizeof(name), "doorbell: %s", command->name);
	argv[1] = name;
	status = command->run(argc - 1, argv + 1);
	must_flush();
	return status;
}
