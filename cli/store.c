/* SPDX-License-Identifier: MIT */
#include "cli/store.h"

#include <string.h>

#include "cli/out.h"

int icm_store_open(const char *url, const struct icm_open_options *options,
		   struct icm_backend **ret_be)
{
	ICM_AUTOFREE char *error = NULL;
	struct icm_backend *be;
	int r = icm_backend_open(url, options, &be, &error);

	if (r < 0) {
		if (error)
			icm_cli_error("%s", error);
		else
			icm_cli_error("%s: %s", url, strerror(-r));
		return r;
	}
	r = icm_backend_start(be);
	if (r < 0) {
		icm_cli_error("%s: %s", be->url, strerror(-r));
		icm_backend_close(be);
		return r;
	}
	*ret_be = be;
	return 0;
}
