/* SPDX-License-Identifier: MIT
 * A new deployment in an empty store. */
#ifndef ICM_CORE_DEPLOYMENT_H
#define ICM_CORE_DEPLOYMENT_H

#include <sys/types.h>

#include "backends/backend.h"

/* Writes meta and the root directory (mode 0700) in one transaction. `name` of
 * the deployment may be "". -EEXIST when there is a deployment already; else
 * the driver's errors. */
int icm_deployment_create(struct icm_backend *be, const struct icm_ctx *ctx, const char *name,
			  uid_t uid, gid_t gid) ICM_MUST_CHECK;

#endif
