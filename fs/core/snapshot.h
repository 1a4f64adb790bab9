/* SPDX-License-Identifier: MIT
 * Snapshots: read-only states of the whole tree, kept in the store under a name.
 * A snapshot is a list of attributes, hashes and records; no contents are copied
 * for it: contents that are replaced later go to the history, where their hash
 * finds them. docs/data-model.md shows the values, control-snapshots.c presents
 * them in .icmfs/snapshots. */
#ifndef ICM_CORE_SNAPSHOT_H
#define ICM_CORE_SNAPSHOT_H

#include "core/shared.h"

/* ---- in the store ---- */

/* Keeps the present state, all that is committed before the call included, as
 * one consistent point. `pid`: on whose behalf, for the log; 0 = none. -EEXIST,
 * -EROFS, -EACCES, -EAGAIN (the tree changed faster than it could be read), -EIO,
 * -ETIMEDOUT. */
int icm_snapshot_create(struct icm_volume *vol, const char *name, pid_t pid) ICM_MUST_CHECK;
/* Forgets one; those who have it open go on. -ENOENT and as above. */
int icm_snapshot_delete(struct icm_volume *vol, const char *name, pid_t pid) ICM_MUST_CHECK;
/* What the store has for `name`, and the modify index of its key, which no other
 * snapshot of this name has. -ENOENT; -EIO (and a log line): damaged. */
int icm_snapshot_find(struct icm_volume *vol, const char *name, struct icm_snap *ret,
		      uint64_t *ret_index) ICM_MUST_CHECK;

/* ---- its tree ---- */

/* A snapshot in memory. Nothing of it changes, so it needs no lock. */
struct icm_snapshot {
	struct icm_snap snap;
	struct icm_tree tree;	/* only names, inodes, attributes; everything is published */
	struct icm_map records; /* struct icm_snapshot_record, by inode */
};
struct icm_snapshot_record {
	struct icm_map_node node;
	const struct icm_inode *inode; /* in the tree */
	struct icm_record record;
};

/* Reads the manifest of what was found; takes over *snap's contents. -EIO (and a
 * log line): damaged. */
int icm_snapshot_load(struct icm_volume *vol, const char *name, struct icm_snap *snap,
		      struct icm_snapshot **ret) ICM_MUST_CHECK;
/* Takes NULL; returns NULL. */
struct icm_snapshot *icm_snapshot_free(struct icm_snapshot *s);
/* The record of an inode, or NULL. */
const struct icm_record *icm_snapshot_record(const struct icm_snapshot *s,
					     const struct icm_inode *inode);
/* Contents of a regular file, from wherever in the store they are now. -EIO (and a
 * log line): they are nowhere (another program overwrote them) or damaged. */
int icm_snapshot_contents(struct icm_volume *vol, const struct icm_snapshot *s,
			  const struct icm_inode *inode, struct icm_data **ret) ICM_MUST_CHECK;

#endif
