/* SPDX-License-Identifier: MIT
 * The control directory .icmfs at the root: reachable by name, not listed.
 * Files are generated when they are opened: status (JSON), locks (JSON), log
 * (one JSON record a line, newest first), lock (an empty file to flock), and
 * history/<path>/<version> (read-only earlier versions). */
#ifndef ICM_CORE_CONTROL_H
#define ICM_CORE_CONTROL_H

#include "core/fs.h"
#include "core/view.h"

#define ICM_CONTROL_NAME ".icmfs"

extern const struct icm_view_ops icm_control_view_ops;

/* The view of .icmfs, with a reference for the caller. */
struct icm_view *icm_control_root(struct icm_volume *vol);

/* Fresh JSON text of status, as .icmfs/status shows it. */
char *icm_control_status(struct icm_volume *vol);

#endif
