/* SPDX-License-Identifier: MIT
 * The views of snapshots: read-only trees in .icmfs/snapshots. A file's number is
 * that of the live file with one bit more, the same in all snapshots and mounts:
 * backup programs know an unchanged file again, and cp doesn't take a file and
 * its earlier state for one file. */
#ifndef ICM_CORE_SNAPSHOT_VIEW_H
#define ICM_CORE_SNAPSHOT_VIEW_H

#include "core/snapshot.h"

struct icm_snapshots; /* those of a volume that are in use */

struct icm_snapshots *icm_snapshots_new(struct icm_volume *vol);
/* Frees all views, referenced or not; no handle is open. Takes NULL; returns NULL. */
struct icm_snapshots *icm_snapshots_free(struct icm_snapshots *all);
/* The root of a snapshot, with a reference for the caller. -ENOENT, -EIO … */
int icm_snapshots_lookup(struct icm_snapshots *all, const char *name, struct icm_view **ret_view,
			 struct stat *ret_st) ICM_MUST_CHECK;
/* Number of the root of every snapshot. */
uint64_t icm_snapshots_root_ino(void);

#endif
