/* SPDX-License-Identifier: MIT
 * icmfs check: the report of icm_check_store, for people or programs. */
#include <inttypes.h>
#include <stdio.h>

#include "cli/cmd.h"
#include "cli/opt.h"
#include "cli/out.h"
#include "cli/store.h"
#include "core/check.h"

static void print_people(const struct icm_check_report *r)
{
	ICM_AUTOFREE char *files = icm_out_count(r->files, "file", "files");
	ICM_AUTOFREE char *dirs = icm_out_count(r->dirs, "directory", "directories");
	ICM_AUTOFREE char *blobs = icm_out_count(r->blobs, "blob", "blobs");
	ICM_AUTOFREE char *bad = icm_out_count(r->n_bad, "problem", "problems");

	for (size_t i = 0; i < r->n_problems; i++) {
		const struct icm_problem *p = &r->problems[i];
		ICM_AUTOFREE char *key = icm_out_escape(p->key);
		ICM_AUTOFREE char *what = icm_out_escape(p->what);

		printf("%s: %s: %s\n", key, what, icm_severity_name(p->severity));
	}
	printf("%s, %s, %s: %s\n", files, dirs, blobs, r->n_bad ? bad : "no problems");
}

static json_t *problems_to_json(const struct icm_check_report *r)
{
	json_t *list = json_array();

	for (size_t i = 0; i < r->n_problems; i++) {
		const struct icm_problem *p = &r->problems[i];
		ICM_AUTOFREE char *key = icm_out_utf8(p->key);
		ICM_AUTOFREE char *what = icm_out_utf8(p->what);

		json_array_append_new(list, json_pack("{s:s, s:s, s:s}", "key", key, "what", what,
						      "severity", icm_severity_name(p->severity)));
	}
	return list;
}

static int print_json(const struct icm_backend *be, const struct icm_check_report *r)
{
	ICM_AUTOFREE char *url = icm_out_utf8(be->url);

	return icm_out_json(json_pack("{s:s, s:I, s:I, s:I, s:I, s:I, s:o}", "store", url, "index",
				      (json_int_t)r->index, "files", (json_int_t)r->files,
				      "directories", (json_int_t)r->dirs, "blobs",
				      (json_int_t)r->blobs, "problems", (json_int_t)r->n_bad,
				      "findings", problems_to_json(r)));
}

static int check(struct icm_backend *be, bool as_json)
{
	struct icm_check_report report;
	ICM_AUTOFREE char *error = NULL;
	int r = icm_check_store(be, &report, &error);

	if (r < 0) {
		icm_cli_error("%s: %s", be->url, error);
		return ICM_EXIT_UNCHECKED;
	}
	if (as_json)
		r = print_json(be, &report);
	else
		print_people(&report);
	if (r == 0)
		r = icm_out_finish() != 0 ? ICM_EXIT_UNCHECKED
		    : report.n_bad	  ? ICM_EXIT_FAILURE
					  : ICM_EXIT_OK;
	else
		r = ICM_EXIT_UNCHECKED;
	icm_check_report_clear(&report);
	return r;
}

int icm_cmd_check(int argc, char **argv)
{
	bool as_json = false;
	const struct icm_opt opts[] = {
		{ .name = "json", .help = "print JSON", .flag = &as_json },
	};
	const struct icm_opt_usage usage = {
		.command = "icmfs check",
		.operands = "STORE",
		.summary = "Verifies every record, chunk and hash of a store; changes nothing.",
		.details = "exit status: 0 clean, 1 problems found, 2 wrong usage, 3 could not "
			   "check\n",
		.opts = opts,
		.n_opts = ICM_COUNT(opts),
		.min_args = 1,
		.max_args = 1,
	};
	struct icm_backend *be;
	int r = icm_opt_parse(&usage, argc, argv);

	if (r < 0)
		return icm_opt_status(r);
	r = icm_store_open(argv[1], &(struct icm_open_options){ .read_only = true }, &be);
	if (r < 0)
		return ICM_EXIT_UNCHECKED;
	r = check(be, as_json);
	icm_backend_close(be);
	return r;
}
