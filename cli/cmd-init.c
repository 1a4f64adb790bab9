/* SPDX-License-Identifier: MIT
 * icmfs init: an empty deployment in a store. */
#include <string.h>

#include "cli/cmd.h"
#include "cli/opt.h"
#include "cli/out.h"
#include "cli/store.h"
#include "core/deployment.h"

#define NAME_MAX_BYTES 255

static int init(const char *url, const char *name)
{
	struct icm_backend *be;
	int r = icm_store_open(url, &(struct icm_open_options){ .create = true }, &be);

	if (r < 0)
		return ICM_EXIT_FAILURE;
	r = icm_deployment_create(be, NULL, name, geteuid(), getegid());
	if (r == -EEXIST)
		icm_cli_error("%s: there is a deployment already", be->url);
	else if (r < 0)
		icm_cli_error("%s: %s", be->url, strerror(-r));
	icm_backend_close(be);
	return r < 0 ? ICM_EXIT_FAILURE : ICM_EXIT_OK;
}

int icm_cmd_init(int argc, char **argv)
{
	const char *name = "";
	const struct icm_opt opts[] = {
		{ .name = "name",
		  .arg = "NAME",
		  .help = "what the deployment is called (default: nothing)",
		  .value = &name },
	};
	const struct icm_opt_usage usage = {
		.command = "icmfs init",
		.operands = "STORE",
		.summary =
			"Makes an empty deployment; the store's file is made where it is missing.",
		.details =
			"exit status: 0 made, 1 not (there is one already, or the store failed),\n"
			"2 wrong usage\n",
		.opts = opts,
		.n_opts = ICM_COUNT(opts),
		.min_args = 1,
		.max_args = 1,
	};
	int r = icm_opt_parse(&usage, argc, argv);

	if (r < 0)
		return icm_opt_status(r);
	if (strlen(name) > NAME_MAX_BYTES) {
		icm_cli_error("the name is longer than %d bytes", NAME_MAX_BYTES);
		return ICM_EXIT_USAGE;
	}
	return init(argv[1], name);
}
