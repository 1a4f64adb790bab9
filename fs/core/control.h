/* SPDX-License-Identifier: MIT
 * The control directory .icmfs at the root: reachable by name, not listed.
 *
 *   status        JSON object: version, store, mountpoint (null: none), pid,
 *                 reachable, stale, read_only, offline (null, or {time, left_out}:
 *                 the local copy is shown), index, files, unsaved {files,
 *                 bytes}, locks (their number), lease (null, or {key, age_ms,
 *                 ttl_ms}), errors [{time, path, text}], oldest first: failures
 *                 that no program was told
 *   locks         JSON array of {path (null: the file has no name any more),
 *                 inode, kind "flock" or "record", type "read" or "write", start,
 *                 end (null: to the end of the file), waiting, scratch, host,
 *                 user, pid, command, since}; what isn't known is null
 *   log           one JSON object a line, newest first: {time, host, user, pid,
 *                 program, index, changes [{op, path, to}]}; read from the store
 *                 as far as the reader reads
 *   lock          an empty file to flock: the deployment's lock
 *   history/      the paths that have earlier versions; a version is a read-only
 *                 file named by its index, with the attributes it had, and
 *                 hides a path of that name. A directory lets in whom the present
 *                 directory of this path lets in.
 *   snapshots/    read-only states of the whole tree: mkdir makes one of the present
 *                 state, rmdir forgets one with all that is in it
 *
 * Times are UTC, "2024-12-31T23:59:59.123456Z". A path that isn't UTF-8 is
 * spelled as in keys (percent-encoded). Files are generated when they are
 * opened. log and locks name files in directories that are not for everybody:
 * only the owner and the group of the deployment's root may read them. */
#ifndef ICM_CORE_CONTROL_H
#define ICM_CORE_CONTROL_H

#include "core/fs.h"
#include "core/view.h"

#define ICM_CONTROL_NAME ".icmfs"

extern const struct icm_view_ops icm_control_view_ops;

/* The view of .icmfs, with a reference for the caller; once for a volume. */
struct icm_view *icm_control_root(struct icm_volume *vol);
/* Frees all views of the directory, referenced or not; no handle is open. Takes NULL. */
void icm_control_close(struct icm_view *root);

/* Number of .icmfs/snapshots. */
#define ICM_INO_SNAPSHOTS (ICM_INO_CONTROL + 6) /* with core/record.h */

/* Fresh JSON text of status, as .icmfs/status shows it. */
char *icm_control_status(struct icm_volume *vol);

#endif
