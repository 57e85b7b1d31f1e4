// SPDX-License-Identifier: GPL-2.0
/*
 * Run: runs a VMM with the library that makes a region of its ioeventfds.
 */
#include <libgen.h>
#include <limits.h>
#include <unistd.h>

#include "tool.h"

#define LIBRARY		"libdoorbell-ioeventfd.so"

/* As shells do */
#define STATUS_NOT_EXECUTABLE	126
#define STATUS_NO_COMMAND	127

/* ../lib beside the tool, or where the libraries are installed */
static void find_library(char *path, size_t size)
{
	const char *chosen = getenv("DOORBELL_PRELOAD");
	char self[PATH_MAX];
	ssize_t len;

	if (chosen) {
		snprintf(path, size, "%s", chosen);
		if (access(path, R_OK))
			die(STATUS_NOT_FOUND, "DOORBELL_PRELOAD: %s: %s",
			    path, strerror(errno));
		return;
	}
	len = readlink("/proc/self/exe", self, sizeof(self) - 1);
	if (len > 0) {
		self[len] = '\0';
		snprintf(path, size, "%s/../lib/" LIBRARY, dirname(self));
		if (!access(path, R_OK))
			return;
	}
	snprintf(path, size, LIBDIR "/" LIBRARY);
	if (access(path, R_OK))
		die(STATUS_NOT_FOUND,
		    "there is no " LIBRARY " in " LIBDIR ": install it, or set DOORBELL_PRELOAD to its path");
}

static void set_environment(const char *library, bool stats)
{
	const char *before = getenv("LD_PRELOAD");
	char *preload;

	if (asprintf(&preload, "%s%s%s", library,
		     before && before[0] ? ":" : "", before ?: "") < 0)
		must(NULL);
	if (setenv("LD_PRELOAD", preload, 1) ||
	    (stats && setenv("DOORBELL_STATS", "1", 1)))
		must(NULL);
	free(preload);
}

int cmd_run(int argc, char **argv)
{
	static const struct option options[] = {
		{ "stats", no_argument, NULL, 's' },
		OPTIONS_END,
	};
	char library[PATH_MAX + sizeof("/../lib/" LIBRARY)];
	bool stats = false;

	while (next_option(argc, argv, options) != -1)
		stats = true;
	if (optind == argc)
		die_usage("run takes a VMM");

	find_library(library, sizeof(library));
	if (access("/dev/doorbell", R_OK | W_OK))
		warn_user("/dev/doorbell: %s: KVM keeps all ioeventfds of the VMM",
			  strerror(errno));
	set_environment(library, stats);
	execvp(argv[optind], &argv[optind]);
	die(errno == ENOENT ? STATUS_NO_COMMAND : STATUS_NOT_EXECUTABLE,
	    "%s: %s", argv[optind], strerror(errno));
}
