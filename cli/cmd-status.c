/* SPDX-License-Identifier: MIT
 * icmfs status: what .icmfs/status of a mount says, for people or programs. */
#include <stdio.h>
#include <string.h>

#include "cli/cmd.h"
#include "cli/find.h"
#include "cli/opt.h"
#include "cli/out.h"

static bool is_true(const json_t *status, const char *name)
{
	return json_is_true(json_object_get(status, name));
}

static uint64_t number(const json_t *object, const char *name)
{
	json_int_t n = json_integer_value(json_object_get(object, name));

	return n > 0 ? (uint64_t)n : 0;
}

static const char *string(const json_t *object, const char *name)
{
	const char *s = json_string_value(json_object_get(object, name));

	return s ? s : "";
}

static bool is_healthy(const json_t *status)
{
	const json_t *unsaved = json_object_get(status, "unsaved");

	return is_true(status, "reachable") && number(unsaved, "files") == 0 &&
	       number(unsaved, "bytes") == 0 &&
	       number(json_object_get(status, "kept"), "files") == 0 &&
	       json_array_size(json_object_get(status, "errors")) == 0;
}

static void print_line(const char *name, const char *text)
{
	ICM_AUTOFREE char *safe = icm_out_escape(text);

	printf("%-12s %s\n", name, safe);
}

static void print_unsaved(const json_t *status)
{
	const json_t *unsaved = json_object_get(status, "unsaved");
	ICM_AUTOFREE char *files = icm_out_count(number(unsaved, "files"), "file", "files");
	ICM_AUTOFREE char *bytes = icm_out_bytes(number(unsaved, "bytes"));
	ICM_AUTOFREE char *text = icm_asprintf("%s, %s", files, bytes);

	print_line("unsaved:", number(unsaved, "files") == 0 ? "nothing" : text);
}

static void print_kept(const json_t *status)
{
	const json_t *kept = json_object_get(status, "kept");
	ICM_AUTOFREE char *files = icm_out_count(number(kept, "files"), "file", "files");
	ICM_AUTOFREE char *text = NULL;

	if (!number(kept, "files"))
		return;
	text = icm_asprintf("%s that could not be committed (see icmfs recover)", files);
	print_line("kept:", text);
}

static void print_offline(const json_t *status)
{
	const json_t *offline = json_object_get(status, "offline");
	uint64_t left_out = number(offline, "left_out");
	ICM_AUTOFREE char *files = icm_out_count(left_out, "file", "files");
	ICM_AUTOFREE char *text =
		icm_asprintf("the local copy as of %s%s%s", string(offline, "time"),
			     left_out ? ", without the contents of " : "", left_out ? files : "");

	if (json_is_object(offline))
		print_line("offline:", text);
}

static void print_lease(const json_t *status)
{
	const json_t *lease = json_object_get(status, "lease");
	ICM_AUTOFREE char *text = NULL;

	if (!*string(lease, "key")) {
		print_line("lease:", "none");
		return;
	}
	text = icm_asprintf("%s, renewed %.1f s ago, ends after %.1f s", string(lease, "key"),
			    (double)number(lease, "age_ms") / 1000,
			    (double)number(lease, "ttl_ms") / 1000);
	print_line("lease:", text);
}

static void print_number(const char *name, uint64_t n)
{
	ICM_AUTOFREE char *text = icm_asprintf("%llu", (unsigned long long)n);

	print_line(name, text);
}

static void print_people(const json_t *status, const char *root)
{
	const json_t *errors = json_object_get(status, "errors");
	ICM_AUTOFREE char *store =
		icm_asprintf("%s (%s%s%s)", string(status, "store"),
			     is_true(status, "reachable") ? "reachable" : "not reachable",
			     is_true(status, "stale") ? ", what is shown may be stale" : "",
			     is_true(status, "read_only") ? ", read-only" : "");
	ICM_AUTOFREE char *mount =
		icm_asprintf("%s (process %llu)", root, (unsigned long long)number(status, "pid"));

	print_line("store:", store);
	print_line("mounted on:", mount);
	print_offline(status);
	print_number("index:", number(status, "index"));
	print_number("files:", number(status, "files"));
	print_unsaved(status);
	print_kept(status);
	print_number("locks:", json_is_array(json_object_get(status, "locks"))
				       ? json_array_size(json_object_get(status, "locks"))
				       : number(status, "locks"));
	print_lease(status);
	print_line("version:", string(status, "version"));
	for (size_t i = 0; i < json_array_size(errors); i++) {
		const json_t *e = json_array_get(errors, i);
		ICM_AUTOFREE char *text = json_is_string(e) ? icm_xstrdup(json_string_value(e))
							    : json_dumps(e, JSON_COMPACT);

		print_line("error:", text ? text : "unknown");
	}
}

static void explain(const char *dir, int error)
{
	switch (error) {
	case -ENOENT:
		if (access(dir, F_OK) < 0)
			icm_cli_error("%s: %s", dir, strerror(errno));
		else
			icm_cli_error("%s: not in a mount of icmfs", dir);
		break;
	case -ENOTCONN:
		icm_cli_error("%s: the mount's process is gone; end the mount with icmfs umount",
			      dir);
		break;
	case -EPROTO:
		icm_cli_error("%s: .icmfs/status is not understood", dir);
		break;
	default:
		icm_cli_error("%s: %s", dir, strerror(-error));
	}
}

int icm_cmd_status(int argc, char **argv)
{
	bool as_json = false;
	const struct icm_opt opts[] = {
		{ .name = "json", .help = "print JSON", .flag = &as_json },
	};
	const struct icm_opt_usage usage = {
		.command = "icmfs status",
		.operands = "[DIR]",
		.summary = "Says how the mount that DIR (default: the current directory) is in is "
			   "doing.",
		.details = "exit status: 0 everything is saved and the store reachable, 1 not so "
			   "or no\n"
			   "mount there, 2 wrong usage\n",
		.opts = opts,
		.n_opts = ICM_COUNT(opts),
		.max_args = 1,
	};
	ICM_AUTOFREE char *root = NULL;
	json_auto_t *status = NULL;
	const char *dir;
	int r = icm_opt_parse(&usage, argc, argv);

	if (r < 0)
		return icm_opt_status(r);
	dir = r > 0 ? argv[1] : ".";
	r = icm_find_mount(dir, &root, &status);
	if (r < 0) {
		explain(dir, r);
		return ICM_EXIT_FAILURE;
	}
	if (as_json)
		r = icm_out_json(json_incref(status));
	else
		print_people(status, root);
	if (r != 0 || icm_out_finish() != 0)
		return ICM_EXIT_FAILURE;
	return is_healthy(status) ? ICM_EXIT_OK : ICM_EXIT_FAILURE;
}
