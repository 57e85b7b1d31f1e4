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

/* Return the path without links and "..", or NULL with errno. */
static char *find(const char *path)
{
	return access(path, R_OK) ? NULL : realpath(path, NULL);
}

/* ../lib beside the tool, or where the libraries are installed */
static char *find_library(void)
{
	const char *chosen = getenv("DOORBELL_PRELOAD");
	char self[PATH_MAX], beside[PATH_MAX + sizeof("/../lib/" LIBRARY)];
	char *path = NULL;
	ssize_t len;

	if (chosen) {
		path = find(chosen);
		if (!path)
			die(STATUS_NOT_FOUND, "DOORBELL_PRELOAD: %s: %s",
			    chosen, strerror(errno));
		return path;
	}
	len = readlink("/proc/self/exe", self, sizeof(self) - 1);
	if (len > 0) {
		self[len] = '\0';
		snprintf(beside, sizeof(beside), "%s/../lib/" LIBRARY,
			 dirname(self));
		path = find(beside);
	}
	path = path ?: find(LIBDIR "/" LIBRARY);
	if (!path)
		die(STATUS_NOT_FOUND,
		    "there is no " LIBRARY " in " LIBDIR ": install it, or set DOORBELL_PRELOAD to its path");
	return path;
}

static void set_environment(const char *library, bool stats)
{
	const char *before = getenv("LD_PRELOAD");
	char *preload;

	/* the loader would ignore it, and run the VMM without it */
	if (strpbrk(library, ": \t\n"))
		die(STATUS_FAILED,
		    "LD_PRELOAD cannot name %s: the path has a blank or a colon",
		    library);
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
	const char *library;
	bool stats = false;

	while (next_option(argc, argv, options) != -1)
		stats = true;
	if (optind == argc)
		die_usage("run takes a VMM");

	library = find_library();
	if (access("/dev/doorbell", R_OK | W_OK))
		warn_user("/dev/doorbell: %s: KVM keeps all ioeventfds of the VMM",
			  strerror(errno));
	set_environment(library, stats);
	execvp(argv[optind], &argv[optind]);
	die(errno == ENOENT ? STATUS_NO_COMMAND : STATUS_NOT_EXECUTABLE,
	    "%s: %s", argv[optind], strerror(errno));
}
