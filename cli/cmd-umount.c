/* SPDX-License-Identifier: MIT
 * icmfs umount. */
#include "cli/cmd.h"
#include "cli/opt.h"
#include "cli/out.h"
#include "fs/mount.h"

int icm_cmd_umount(int argc, char **argv)
{
	bool lazy = false, force = false;
	const struct icm_opt opts[] = {
		{ .name = "lazy",
		  .letter = 'l',
		  .help = "also while files are open; it ends after the last close",
		  .flag = &lazy },
		{ .name = "force",
		  .help = "end a mount that hangs; what is not saved is lost",
		  .flag = &force },
	};
	const struct icm_opt_usage usage = {
		.command = "icmfs umount",
		.operands = "DIR",
		.summary = "Ends the mount at DIR when everything is in the store.",
		.details = "exit status: 0 unmounted, 1 not, 2 wrong usage\n",
		.opts = opts,
		.n_opts = ICM_COUNT(opts),
		.min_args = 1,
		.max_args = 1,
	};
	int r = icm_opt_parse(&usage, argc, argv);

	if (r < 0)
		return icm_opt_status(r);
	if (lazy && force) {
		icm_cli_error("--lazy and --force exclude each other (see icmfs umount --help)");
		return ICM_EXIT_USAGE;
	}
	return icm_umount(argv[1], lazy, force) == 0 ? ICM_EXIT_OK : ICM_EXIT_FAILURE;
}
