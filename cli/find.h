/* SPDX-License-Identifier: MIT
 * Finds the mount that a path is in, as a program without privileges can:
 * upwards from the path, the first directory with a .icmfs/status to read. */
#ifndef ICM_CLI_FIND_H
#define ICM_CLI_FIND_H

#include <jansson.h>

#include "util/attrs.h"

/* Looks upwards from `path` (which must exist). *ret_root: fresh path of the
 * mount's root; *ret_status: its status as a JSON object, which the caller
 * drops. -ENOENT: not in a mount, or no such path; -ENOTCONN: the mount's
 * process is gone; -EPROTO: status is no JSON object; else as open(2). */
int icm_find_mount(const char *path, char **ret_root, json_t **ret_status) ICM_MUST_CHECK;

#endif
