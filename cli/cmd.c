/* SPDX-License-Identifier: MIT */
#include "cli/cmd.h"

#include <stdio.h>
#include <string.h>

#include "backends/backend.h"
#include "cli/opt.h"
#include "cli/out.h"

const struct icm_cmd icm_cmds[] = {
	{ "mount", icm_cmd_mount, "show a deployment's files at a directory" },
	{ "umount", icm_cmd_umount, "end a mount" },
	{ "status", icm_cmd_status, "say how a mount is doing" },
	{ "init", icm_cmd_init, "make an empty deployment" },
	{ "import", icm_cmd_import, "copy a plain directory into a deployment" },
	{ "recover", icm_cmd_recover, "list, restore or drop what could not be committed" },
	{ "check", icm_cmd_check, "verify every record, chunk and hash of a store" },
	{ NULL, NULL, NULL },
};

static int print_help(void)
{
	printf("usage: icmfs COMMAND [ARGUMENT...]\n"
	       "       icmfs --help | --version\n"
	       "       icmfs COMMAND --help\n"
	       "\n"
	       "A file system whose files live in a transactional store.\n"
	       "\n"
	       "commands:\n");
	for (const struct icm_cmd *c = icm_cmds; c->name; c++)
		printf("  %-10s %s\n", c->name, c->summary);
	printf("\nstores:\n");
	for (const struct icm_backend_ops *const *be = icm_backends; *be; be++)
		printf("  %-10s %s\n", (*be)->name, (*be)->summary);
	return icm_out_finish();
}

static const struct icm_cmd *find(const char *name)
{
	for (const struct icm_cmd *c = icm_cmds; c->name; c++)
		if (!strcmp(c->name, name))
			return c;
	return NULL;
}

/* "icmfs STORE DIR -o …" as mount -t fuse.icmfs calls it: a store is a URL or
 * a path, so it has a ':', a '/' or the suffix; no command has. */
static bool looks_like_store(const char *arg)
{
	size_t len = strlen(arg);

	return strchr(arg, ':') || strchr(arg, '/') ||
	       (len > 6 && !strcmp(arg + len - 6, ".icmfs"));
}

static int run(int argc, char **argv)
{
	const struct icm_cmd *c;

	if (argc < 2) {
		icm_cli_error("no command given (see icmfs --help)");
		return ICM_EXIT_USAGE;
	}
	if (!strcmp(argv[1], "--help") || !strcmp(argv[1], "-h"))
		return print_help();
	if (!strcmp(argv[1], "--version"))
		return icm_opt_print_version();
	c = find(argv[1]);
	if (c)
		return c->fn(argc - 1, argv + 1);
	if (argv[1][0] != '-' && looks_like_store(argv[1]))
		return icm_cmd_mount_helper(argc, argv);
	icm_cli_error("unknown %s '%s' (see icmfs --help)",
		      argv[1][0] == '-' ? "option" : "command", argv[1]);
	return ICM_EXIT_USAGE;
}

int icm_cli_main(int argc, char **argv)
{
	const char *program = argc > 0 ? strrchr(argv[0], '/') : NULL;

	program = program ? program + 1 : argc > 0 ? argv[0] : "icmfs";
	if (!strncmp(program, "mount.", 6))
		return icm_cmd_mount_helper(argc, argv);
	return run(argc, argv);
}
