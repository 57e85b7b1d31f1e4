// SPDX-License-Identifier: GPL-2.0
/*
 * Monitor: attaches a region and prints its events.
 */
#include <time.h>
#include <unistd.h>

#include <libdoorbell.h>

#include "rules.h"
#include "tool.h"

#define BATCH		64

static const char * const types[] = {
	[DOORBELL_EVENT_QUEUE] = "queue",
	[DOORBELL_EVENT_BAD_ADDRESS] = "bad-address",
	[DOORBELL_EVENT_BAD_QUEUE] = "bad-queue",
};

#define DEFAULT_FORMAT	"%T %k %q rings %c value %v width %w"
#define SPECIFIERS	"TUkqcvw%"

static void print_monotonic(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	printf("%lld.%06ld", (long long)now.tv_sec, now.tv_nsec / 1000);
}

static void print_utc(void)
{
	struct timespec now;
	char text[32];

	clock_gettime(CLOCK_REALTIME, &now);
	strftime(text, sizeof(text), "%Y-%m-%dT%H:%M:%S",
		 gmtime(&now.tv_sec));
	printf("%s.%06ldZ", text, now.tv_nsec / 1000);
}

static void print_specifier(char specifier, const struct doorbell_event *event)
{
	switch (specifier) {
	case 'T':
		print_monotonic();
		break;
	case 'U':
		print_utc();
		break;
	case 'k':
		fputs(types[event->type], stdout);
		break;
	case 'q':
		if (event->queue == DOORBELL_QUEUE_NONE)
			putchar('-');
		else
			printf("%u", event->queue);
		break;
	case 'c':
		printf("%u", event->count);
		break;
	case 'v':
		printf("%#llx", event->value);
		break;
	case 'w':
		printf("%u", event->width);
		break;
	case '%':
		putchar('%');
		break;
	}
}

static void check_format(const char *format)
{
	const char *at = format;

	while ((at = strchr(at, '%'))) {
		if (!at[1] || !strchr(SPECIFIERS, at[1]))
			die_usage("the format has \"%.2s\"; there are %%T, %%U, %%k, %%q, %%c, %%v, %%w and %%%%",
				  at);
		at += 2;
	}
}

static void print_formatted(const char *format,
			    const struct doorbell_event *event)
{
	for (; *format; format++) {
		if (*format == '%')
			print_specifier(*++format, event);
		else
			putchar(*format);
	}
	putchar('\n');
}

/* One object a line: nothing in it needs quoting. */
static void print_json(const struct doorbell_event *event)
{
	fputs("{\"monotonic\": ", stdout);
	print_monotonic();
	fputs(", \"time\": \"", stdout);
	print_utc();
	printf("\", \"type\": \"%s\", \"queue\": ", types[event->type]);
	if (event->queue == DOORBELL_QUEUE_NONE)
		fputs("null", stdout);
	else
		printf("%u", event->queue);
	printf(", \"rings\": %u, \"value\": \"%#llx\", \"width\": %u}\n",
	       event->count, event->value, event->width);
}

/**
 * struct monitor - what to print, and until when
 * @format: of a line
 * @json: print JSON instead
 * @left: events to print; 0: no limit
 * @timeout: milliseconds without an event, or -1
 */
struct monitor {
	const char *format;
	bool json;
	uint64_t left;
	int timeout;
};

static void print_broken(const char *rule, const char *why, void *ctx)
{
	(void)ctx;
	warn_user("%s: %s", rule, why);
}

__attribute__((noreturn))
static void die_attach(const struct doorbell_attach *arg, int error)
{
	switch (error) {
	case EINVAL:
		if (!check_attach(arg, print_broken, NULL))
			die(STATUS_USAGE,
			    "the descriptor of --vm-fd is no KVM VM");
		die_usage("that is no valid region");
	case EEXIST:
		die(STATUS_FAILED,
		    "a device of the VM is there: another region, an ioeventfd or an interrupt controller");
	case ESRCH:
	case EIO:
		die(STATUS_NOT_FOUND, "the VM is gone");
	default:
		die(STATUS_FAILED, "cannot attach: %s", strerror(error));
	}
}

/* Return false when it is time to end. */
static bool print_events(struct monitor *monitor, struct doorbell *db)
{
	struct doorbell_event events[BATCH];
	uint64_t max = monitor->left && monitor->left < BATCH ? monitor->left :
								BATCH;
	int i, n = doorbell_take(db, events, max);

	if (n < 0)
		die(STATUS_FAILED, "cannot take events: %s", strerror(-n));
	for (i = 0; i < n; i++) {
		if (events[i].type >= ARRAY_SIZE(types))
			continue;
		if (monitor->json)
			print_json(&events[i]);
		else
			print_formatted(monitor->format, &events[i]);
	}
	must_flush();
	if (monitor->left) {
		monitor->left -= n;
		return monitor->left;
	}
	return true;
}

static void print_all(struct monitor *monitor, struct doorbell *db)
{
	int ret;

	do {
		ret = doorbell_wait(db, monitor->timeout);
		if (ret == -EPIPE)
			warn_user("the VM is gone");
		else if (ret < 0)
			die(STATUS_FAILED, "cannot wait: %s", strerror(-ret));
	} while (ret > 0 && print_events(monitor, db));
}

int cmd_monitor(int argc, char **argv)
{
	static const struct option options[] = {
		OPTION_JSON,
		{ "vm", required_argument, NULL, 'v' },
		{ "vm-fd", required_argument, NULL, 'f' },
		{ "num-events", required_argument, NULL, 'n' },
		{ "idle-timeout", required_argument, NULL, 'i' },
		{ "format", required_argument, NULL, 'F' },
		OPTIONS_REGION,
		OPTIONS_END,
	};
	struct monitor monitor = { .format = DEFAULT_FORMAT, .timeout = -1 };
	struct doorbell_attach arg = { .vm_fd = -1 };
	int vm_fd = -1, option, ret;
	struct doorbell *db;
	pid_t vm = 0;

	while ((option = next_option(argc, argv, options)) != -1) {
		switch (option) {
		case 'j':
			monitor.json = true;
			break;
		case 'v':
			vm = parse_pid(optarg);
			break;
		case 'f':
			vm_fd = parse_number(optarg, "FD", INT32_MAX);
			break;
		case 'n':
			monitor.left = parse_count(optarg);
			break;
		case 'i':
			monitor.timeout = parse_seconds(optarg,
							"--idle-timeout");
			break;
		case 'F':
			monitor.format = optarg;
			check_format(optarg);
			break;
		default:
			region_option(&arg, option);
		}
	}
	if (vm_fd >= 0 && !vm)
		die_usage("--vm-fd needs --vm");
	region_arguments(&arg, argc, argv);

	db = doorbell_open(0);
	if (!db)
		die_device(errno);
	if (vm)
		arg.vm_fd = must_open_vm(vm, vm_fd);
	ret = doorbell_attach_region(db, &arg);
	if (ret)
		die_attach(&arg, -ret);
	/* it would keep the VM alive */
	if (vm)
		close(arg.vm_fd);
	print_all(&monitor, db);
	doorbell_close(db);
	return STATUS_OK;
}
