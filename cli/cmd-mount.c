/* SPDX-License-Identifier: MIT
 * icmfs mount, and the same as mount(8) calls it: arguments to settings, and a
 * call of the front. */
#include <stdio.h>
#include <string.h>

#include "cli/cmd.h"
#include "cli/opt.h"
#include "cli/out.h"
#include "fs/mount.h"
#include "fs/settings.h"

static void print_mount_options(void)
{
	printf("\nmount options:\n");
	icm_settings_help(stdout);
}

/* `options` may be NULL or empty. */
static int mount_with(const char *store, const char *dir, const char *options, bool foreground)
{
	ICM_CLEANUP(icm_settings_clear) struct icm_settings settings;
	ICM_AUTOFREE char *error = NULL;

	icm_settings_init(&settings);
	settings.store = icm_xstrdup(store);
	settings.mountpoint = icm_xstrdup(dir);
	settings.foreground = foreground;
	if (options && icm_settings_parse(&settings, options, &error) < 0) {
		icm_cli_error("%s (see icmfs mount --help)", error);
		return ICM_EXIT_USAGE;
	}
	return icm_mount_run(&settings) == 0 ? ICM_EXIT_OK : ICM_EXIT_FAILURE;
}

int icm_cmd_mount(int argc, char **argv)
{
	ICM_AUTOBUF struct icm_buf options = ICM_BUF_INIT(0);
	bool foreground = false;
	const struct icm_opt opts[] = {
		{ .name = "foreground",
		  .letter = 'f',
		  .help = "stay in the foreground, log to stderr",
		  .flag = &foreground },
		{ .letter = 'o',
		  .arg = "OPTS",
		  .help = "mount options, separated by commas",
		  .list = &options },
	};
	const struct icm_opt_usage usage = {
		.command = "icmfs mount",
		.operands = "STORE DIR",
		.summary = "Shows the files of the deployment in STORE at DIR.",
		.details = "exit status: 0 the mount is there (-f: it has ended), 1 it failed,\n"
			   "2 wrong usage\n",
		.more = print_mount_options,
		.opts = opts,
		.n_opts = ICM_COUNT(opts),
		.min_args = 2,
		.max_args = 2,
	};
	int r = icm_opt_parse(&usage, argc, argv);

	if (r < 0)
		return icm_opt_status(r);
	return mount_with(argv[1], argv[2], options.data, foreground);
}

/* The next option of a list, up to a comma that isn't escaped; NULL at the end. */
static char *cut_option(char **rest)
{
	char *start = *rest;
	char *p = start;

	if (!start)
		return NULL;
	while (*p && *p != ',')
		p += p[0] == '\\' && p[1] ? 2 : 1;
	*rest = *p ? p + 1 : NULL;
	*p = '\0';
	return start;
}

static bool is_known(const char *option)
{
	size_t len = strcspn(option, "=");
	const char *name;

	for (size_t i = 0; (name = icm_settings_option(i)); i++)
		if (strlen(name) == len && !strncmp(name, option, len))
			return true;
	return false;
}

/* mount -s: autofs hands every file system the same options. */
static void drop_unknown(struct icm_buf *options)
{
	ICM_AUTOFREE char *copy = icm_xstrdup(options->data ? options->data : "");
	char *rest = copy, *one;

	icm_buf_reset(options);
	while ((one = cut_option(&rest))) {
		if (!is_known(one))
			continue;
		if (options->len)
			icm_buf_addc(options, ',');
		icm_buf_addstr(options, one);
	}
}

int icm_cmd_mount_helper(int argc, char **argv)
{
	ICM_AUTOBUF struct icm_buf options = ICM_BUF_INIT(0);
	bool fake = false, sloppy = false, ignored = false;
	const char *type = NULL;
	const struct icm_opt opts[] = {
		{ .letter = 'f', .help = "do nothing", .flag = &fake },
		{ .letter = 'n', .help = "ignored", .flag = &ignored },
		{ .letter = 's', .help = "ignore unknown mount options", .flag = &sloppy },
		{ .letter = 'v', .help = "ignored", .flag = &ignored },
		{ .letter = 't', .arg = "TYPE", .help = "ignored", .value = &type },
		{ .letter = 'o',
		  .arg = "OPTS",
		  .help = "mount options, separated by commas",
		  .list = &options },
	};
	const struct icm_opt_usage usage = {
		.command = "mount.icmfs",
		.operands = "STORE DIR",
		.summary = "What mount(8) runs for the type icmfs; icmfs mount is the command.",
		.more = print_mount_options,
		.opts = opts,
		.n_opts = ICM_COUNT(opts),
		.min_args = 2,
		.max_args = 2,
	};
	int r = icm_opt_parse(&usage, argc, argv);

	if (r < 0)
		return icm_opt_status(r);
	if (fake)
		return ICM_EXIT_OK;
	if (sloppy)
		drop_unknown(&options);
	return mount_with(argv[1], argv[2], options.data, false);
}
