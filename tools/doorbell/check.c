// SPDX-License-Identifier: GPL-2.0
/*
 * Check: says which rules of DOORBELL_ATTACH a region breaks.
 */
#include "rules.h"
#include "tool.h"

static const struct column columns[] = {
	{ "RULE", SCOLS_JSON_STRING },
	{ "WHY", SCOLS_JSON_STRING },
};

static void add_rule(const char *rule, const char *why, void *ctx)
{
	struct libscols_line *line = must(scols_table_new_line(ctx, NULL));

	table_cell(line, 0, "%s", rule);
	table_cell(line, 1, "%s", why);
}

int cmd_check(int argc, char **argv)
{
	static const struct option options[] = {
		OPTION_JSON, OPTIONS_REGION, OPTIONS_END,
	};
	struct doorbell_attach arg = {};
	struct libscols_table *table;
	bool json = false;
	unsigned long long queues;
	unsigned int n;
	int option;

	while ((option = next_option(argc, argv, options)) != -1) {
		if (option == 'j')
			json = true;
		else
			region_option(&arg, option);
	}
	region_arguments(&arg, argc, argv);

	table = table_new("broken", json, columns, ARRAY_SIZE(columns));
	n = check_attach(&arg, add_rule, table);
	queues = arg.queues ?: arg.len / (arg.stride ?:
					  DOORBELL_STRIDE_DEFAULT);
	if (n || json)
		table_print(table);
	else
		printf("valid: %llu queue%s\n", queues,
		       queues == 1 ? "" : "s");
	return n ? STATUS_FAILED : STATUS_OK;
}
