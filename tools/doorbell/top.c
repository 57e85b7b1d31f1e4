// SPDX-License-Identifier: GPL-2.0
/*
 * Top: live rates of all queues, the busiest first.
 *
 * Between two looks the tool holds no descriptor: a consumer that its owner
 * closes must end.
 */
#include <poll.h>
#include <signal.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <time.h>
#include <unistd.h>

#include "tool.h"

/* Alternate screen without a cursor and line wrap, and back; home and clear */
#define SCREEN_ENTER	"\033[?1049h\033[?25l\033[?7l"
#define SCREEN_LEAVE	"\033[?7h\033[?25h\033[?1049l"
#define SCREEN_CLEAR	"\033[H\033[J"

/**
 * struct look - what a consumer's queues were when we looked
 * @consumer: the consumer
 * @snap: its queues; none if no region was ever attached
 */
struct look {
	struct consumer consumer;
	struct snapshot snap;
};

/**
 * struct looks - all consumers at one moment
 * @look: each of them, once, however many processes share it
 * @n: their number
 * @hidden: number of processes that the caller may not look into
 * @when: seconds
 */
struct looks {
	struct look *look;
	size_t n;
	unsigned int hidden;
	double when;
};

/**
 * struct rate - a queue that was rung in an interval
 * @look: its consumer
 * @queue: number of the queue
 * @rings: in the interval
 */
struct rate {
	const struct look *look;
	uint32_t queue;
	uint64_t rings;
};

/**
 * struct top - options and screen
 * @json: print JSON
 * @screen: standard output is a terminal
 * @interval: milliseconds
 * @count: number of intervals, 0 for no limit
 * @lines: most queues to print, 0 for no limit
 * @pid: the only process, or 0
 * @pidfd: the same, or -1
 * @fd: the only descriptor, or -1
 * @headings: print the headings next time
 */
struct top {
	bool json;
	bool screen;
	int interval;
	uint64_t count;
	uint64_t lines;
	pid_t pid;
	int pidfd;
	int fd;
	bool headings;
};

static struct termios terminal;
static bool terminal_changed;
static bool screen_entered;
static volatile sig_atomic_t suspended;
/* The caught signals are blocked, except while the tool waits or looks. */
static sigset_t caught, unblocked;

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec + ts.tv_nsec / 1e9;
}

static const struct look *look_of(const struct looks *looks,
				  const struct consumer *consumer)
{
	size_t i;

	for (i = 0; i < looks->n; i++)
		if (looks->look[i].consumer.id == consumer->id)
			return &looks->look[i];
	return NULL;
}

static void free_looks(struct looks *looks)
{
	size_t i;

	for (i = 0; i < looks->n; i++)
		free(looks->look[i].snap.queue);
	free(looks->look);
}

/* Return 0, or the error of consumer_open() or snapshot_take(). */
static int take_look(struct look *look, const struct consumer *consumer,
		     const struct look *before)
{
	int fd, ret;

	look->consumer = *consumer;
	fd = consumer_open(&look->consumer);
	if (fd < 0)
		return fd;
	ret = snapshot_take(fd, &look->snap, before ? before->snap.next : 0,
			    before ? before->snap.info.generation : 0);
	close(fd);
	return ret == -ENOTCONN ? 0 : ret;
}

static struct looks take_looks(const struct top *top,
			       const struct looks *before)
{
	struct consumer *list;
	struct looks looks;
	pid_t hidden = 0;
	size_t i, n;
	int ret;

	n = find_consumers(top->pid, &list, &looks.hidden);
	looks.look = must(calloc(n + 1, sizeof(*looks.look)));
	looks.n = 0;
	looks.when = now();
	for (i = 0; i < n && !interrupted; i++) {
		if ((top->fd >= 0 && list[i].fd != top->fd) ||
		    look_of(&looks, &list[i]))
			continue;
		ret = take_look(&looks.look[looks.n], &list[i],
				look_of(before, &list[i]));
		looks.n += !ret;
		/* the consumers of a process come one after the other */
		if (ret == -EPERM && list[i].pid != hidden) {
			hidden = list[i].pid;
			looks.hidden++;
		}
	}
	free(list);
	return looks;
}

/*
 * Rings of a queue since the look before, or since its region was attached. A
 * consumer that was not there before may have been somewhere else: whether its
 * rings are new shows at the next look.
 */
static uint64_t rings_since(const struct look *look, const struct look *before,
			    uint32_t i)
{
	const struct queue_state *is = &look->snap.queue[i], *was;
	bool ordered = look->snap.info.flags & DOORBELL_ATTACH_ORDERED;
	uint64_t rings = is->rings + is->bound_rings;

	if (!before)
		return 0;
	if (before->snap.info.generation != look->snap.info.generation ||
	    before->snap.info.queues != look->snap.info.queues)
		return rings;
	was = &before->snap.queue[i];
	/* an ordered snapshot counts from the one before on */
	return rings - was->bound_rings - (ordered ? 0 : was->rings);
}

static int busiest_first(const void *a, const void *b)
{
	const struct rate *x = a, *y = b;

	if (x->rings != y->rings)
		return x->rings < y->rings ? 1 : -1;
	if (x->look != y->look)
		return x->look < y->look ? -1 : 1;
	return (x->queue > y->queue) - (x->queue < y->queue);
}

static size_t find_rates(const struct looks *looks, const struct looks *before,
			 struct rate **rates)
{
	size_t i, n = 0, max = 0;
	uint64_t rings;
	uint32_t q;

	for (i = 0; i < looks->n; i++)
		max += looks->look[i].snap.info.queues + 1;
	*rates = must(calloc(max + 1, sizeof(**rates)));
	for (i = 0; i < looks->n; i++) {
		const struct look *look = &looks->look[i];
		const struct look *old = look_of(before, &look->consumer);

		for (q = 0; look->snap.queue && q <= look->snap.info.queues;
		     q++) {
			rings = rings_since(look, old, q);
			if (rings)
				(*rates)[n++] =
					(struct rate) { look, q, rings };
		}
	}
	qsort(*rates, n, sizeof(**rates), busiest_first);
	return n;
}

enum {
	TIME, PID, COMMAND, FD, QUEUE, RATE, RINGS, PENDING, BOUND, VALUE,
};

static const struct column columns[] = {
	[TIME] = { "TIME", SCOLS_JSON_NUMBER },
	[PID] = { "PID", SCOLS_JSON_NUMBER },
	[COMMAND] = { "COMMAND", SCOLS_JSON_STRING },
	[FD] = { "FD", SCOLS_JSON_NUMBER },
	[QUEUE] = { "QUEUE", SCOLS_JSON_NUMBER },
	[RATE] = { "RATE", SCOLS_JSON_NUMBER },
	[RINGS] = { "RINGS", SCOLS_JSON_NUMBER },
	[PENDING] = { "PENDING", SCOLS_JSON_NUMBER },
	[BOUND] = { "BOUND", SCOLS_JSON_BOOLEAN },
	[VALUE] = { "VALUE", SCOLS_JSON_STRING },
};

static void add_rate(struct libscols_table *table, const struct top *top,
		     const struct rate *rate, double when, double seconds)
{
	const struct queue_state *queue = &rate->look->snap.queue[rate->queue];
	struct libscols_line *line = must(scols_table_new_line(table, NULL));

	table_cell(line, TIME, "%.3f", when);
	table_cell(line, PID, "%d", rate->look->consumer.pid);
	table_cell(line, COMMAND, "%s", rate->look->consumer.comm);
	table_cell(line, FD, "%d", rate->look->consumer.fd);
	if (rate->queue < rate->look->snap.info.queues)
		table_cell(line, QUEUE, "%u", rate->queue);
	else if (!top->json)
		table_cell(line, QUEUE, "bad");
	table_cell(line, RATE, "%.1f", rate->rings / seconds);
	table_cell(line, RINGS, "%llu", (unsigned long long)rate->rings);
	table_cell(line, PENDING, "%llu", (unsigned long long)queue->pending);
	if (top->json)
		table_cell(line, BOUND, "%d", queue->bound);
	else
		table_cell(line, BOUND, "%s", queue->bound ? "yes" : "no");
	if (queue->rings && !queue->bound)
		table_cell(line, VALUE, "%#llx",
			   (unsigned long long)queue->value);
}

/* Queues that fit, below two lines and the headings */
static size_t room(const struct top *top)
{
	struct winsize size;

	if (top->screen && !ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) &&
	    size.ws_row > 4)
		return size.ws_row - 4;
	return SIZE_MAX;
}

static void print_rates(struct top *top, const struct looks *looks,
			const struct looks *before)
{
	struct libscols_table *table = table_new("queues", top->json, columns,
						 ARRAY_SIZE(columns));
	double seconds = looks->when - before->when;
	struct rate *rates;
	uint64_t total = 0;
	size_t i, n, max = room(top);

	if (top->lines && top->lines < max)
		max = top->lines;
	n = find_rates(looks, before, &rates);
	for (i = 0; i < n; i++) {
		total += rates[i].rings;
		if (i < max)
			add_rate(table, top, &rates[i], looks->when, seconds);
	}
	free(rates);
	if (top->screen) {
		/* 80 columns have room for the rest */
		scols_column_set_flags(scols_table_get_column(table, TIME),
				       SCOLS_FL_HIDDEN);
		scols_column_set_flags(scols_table_get_column(table, COMMAND),
				       SCOLS_FL_TRUNC);
		printf(SCREEN_CLEAR
		       "doorbell: %zu consumer%s, %zu queue%s rung, %.1f rings/s",
		       looks->n, looks->n == 1 ? "" : "s", n, n == 1 ? "" : "s",
		       total / seconds);
		if (looks->hidden)
			printf(", %u process%s hidden", looks->hidden,
			       looks->hidden == 1 ? "" : "es");
		else if (proc_hides())
			fputs(", processes hidden", stdout);
		fputs("   (q quits)\n\n", stdout);
	}
	/* lines of several intervals have the headings once */
	scols_table_enable_noheadings(table, !top->headings);
	if (n && !top->screen)
		top->headings = false;
	if (n || top->json)
		table_print(table);
	else
		scols_unref_table(table);
	must_flush();
}

static void on_signal(int signal)
{
	if (signal == SIGTSTP)
		suspended = 1;
	else
		interrupted = 1;
}

void leave_screen(void)
{
	if (!screen_entered)
		return;
	screen_entered = false;
	fputs(SCREEN_LEAVE, stdout);
	fflush(stdout);
	if (terminal_changed)
		tcsetattr(STDIN_FILENO, TCSAFLUSH, &terminal);
}

static void enter_screen(void)
{
	struct termios keys;

	screen_entered = true;
	fputs(SCREEN_ENTER, stdout);
	fflush(stdout);
	if (tcgetattr(STDIN_FILENO, &terminal))
		return;
	keys = terminal;
	keys.c_lflag &= ~(ICANON | ECHO);
	terminal_changed = !tcsetattr(STDIN_FILENO, TCSAFLUSH, &keys);
}

static void catch_signals(void)
{
	static const int signals[] = {
		SIGINT, SIGTERM, SIGHUP, SIGQUIT, SIGTSTP,
	};
	struct sigaction action = {
		.sa_handler = on_signal, .sa_flags = SA_RESTART,
	};
	size_t i;

	sigemptyset(&caught);
	for (i = 0; i < ARRAY_SIZE(signals); i++)
		sigaddset(&caught, signals[i]);
	sigprocmask(SIG_BLOCK, &caught, &unblocked);
	for (i = 0; i < ARRAY_SIZE(signals); i++) {
		sigdelset(&unblocked, signals[i]);
		sigaction(signals[i], &action, NULL);
	}
}

/* Stop as without a handler, and go on after SIGCONT. */
static void suspend(void)
{
	suspended = 0;
	leave_screen();
	signal(SIGTSTP, SIG_DFL);
	raise(SIGTSTP);
	sigprocmask(SIG_SETMASK, &unblocked, NULL);
	catch_signals();
	if (!interrupted)
		enter_screen();
}

/*
 * Wait for the next interval, or the end of the process: false if the user
 * wants to quit.
 */
static bool pause_until(const struct top *top, double end)
{
	struct pollfd pfds[] = {
		{ top->screen && terminal_changed ? STDIN_FILENO : -1, POLLIN,
		  0 },
		{ top->pidfd, POLLIN, 0 },
	};
	struct timespec timeout;
	double left;
	char key;

	do {
		if (suspended)
			suspend();
		if (interrupted)
			break;
		left = end - now();
		left = left > 0 ? left : 0;
		timeout.tv_sec = left;
		timeout.tv_nsec = (left - timeout.tv_sec) * 1e9;
		if (ppoll(pfds, ARRAY_SIZE(pfds), &timeout,
			  top->screen ? &unblocked : NULL) <= 0)
			continue;
		if (pfds[1].revents)
			break;
		if (read(STDIN_FILENO, &key, 1) != 1)
			pfds[0].fd = -1;
		else if (key == 'q')
			return false;
	} while (!interrupted && left > 0);
	return !interrupted;
}

static void run(struct top *top)
{
	struct looks before = {}, looks;
	uint64_t i;

	if (top->pid)
		top->pidfd = must_open_process(top->pid);
	/* errors of the first look leave the screen as it is */
	before = take_looks(top, &before);
	if (top->screen) {
		catch_signals();
		enter_screen();
	} else {
		warn_hidden(before.hidden);
	}
	for (i = 0; !top->count || i < top->count; i++) {
		if (!pause_until(top, before.when + top->interval / 1000.0))
			break;
		/* others decide how long that takes */
		if (top->screen)
			sigprocmask(SIG_SETMASK, &unblocked, NULL);
		looks = take_looks(top, &before);
		if (top->screen)
			sigprocmask(SIG_BLOCK, &caught, NULL);
		if (interrupted) {
			free_looks(&looks);
			break;
		}
		/* what has its PID by now is another process */
		if (top->pid && process_ended(top->pidfd)) {
			free_looks(&looks);
			warn_user("process %d has ended", top->pid);
			break;
		}
		print_rates(top, &looks, &before);
		free_looks(&before);
		before = looks;
	}
	free_looks(&before);
}

int cmd_top(int argc, char **argv)
{
	static const struct option options[] = {
		OPTION_JSON,
		{ "interval", required_argument, NULL, 'i' },
		{ "count", required_argument, NULL, 'n' },
		{ "lines", required_argument, NULL, 'l' },
		OPTIONS_END,
	};
	struct top top = {
		.interval = 1000, .pidfd = -1, .fd = -1, .headings = true,
	};
	int option;

	while ((option = next_option(argc, argv, options)) != -1) {
		switch (option) {
		case 'j':
			top.json = true;
			break;
		case 'i':
			top.interval = parse_seconds(optarg, "--interval");
			break;
		case 'n':
			top.count = parse_count(optarg);
			break;
		case 'l':
			top.lines = parse_count(optarg);
			break;
		}
	}
	if (argc - optind > 2)
		die_usage("top takes at most a PID and an FD");
	if (optind < argc)
		top.pid = parse_pid(argv[optind]);
	if (optind + 1 < argc)
		top.fd = find_consumer(argv[optind], argv[optind + 1]).fd;

	top.screen = isatty(STDOUT_FILENO) && !top.json;
	run(&top);
	leave_screen();
	return STATUS_OK;
}
