/* SPDX-License-Identifier: MIT
 * Store URLs: sqlite:PATH, PATH.icmfs, memory:NAME, consul://HOST:PORT,…/PREFIX
 * and so on (design: docs/architecture.md). Pure functions. */
#ifndef ICM_BACKENDS_URL_H
#define ICM_BACKENDS_URL_H

#include "util/attrs.h"

struct icm_url {
	char *text;   /* owned; canonical spelling, for messages and for /proc/mounts */
	char *scheme; /* owned; "sqlite"; a bare path that ends in .icmfs gives "sqlite" */
	char *path;   /* owned; what stands behind "scheme:"; for sqlite and dir an absolute path */
};

/* Parses; -EINVAL with a fresh line for the user in *ret_error (may be NULL):
 * unknown scheme, empty path, over 4,096 bytes, control characters, or a
 * user or password part (secrets never stand in a URL). */
int icm_url_parse(const char *text, struct icm_url *ret, char **ret_error) ICM_MUST_CHECK;
void icm_url_clear(struct icm_url *u);

#endif
