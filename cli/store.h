/* SPDX-License-Identifier: MIT
 * Stores as commands open them: with one clear line on stderr when they can't. */
#ifndef ICM_CLI_STORE_H
#define ICM_CLI_STORE_H

#include "backends/backend.h"

/* Opens and starts; a negative errno after a line was printed. */
int icm_store_open(const char *url, const struct icm_open_options *options,
		   struct icm_backend **ret_be) ICM_MUST_CHECK;

#endif
