/* SPDX-License-Identifier: MIT
 * A change that takes more than one transaction: a directory is renamed whose keys
 * don't fit into one. docs/consistency.md, 2.4, argues why this is all or nothing.
 *
 *   ABSENT ──decision──► COMMITTED ──keys, some at a time──► last transaction ──► ABSENT
 *            (its mount)              (any mount)              (any mount)
 *
 * The decision is one transaction: it checks all that a rename checks, makes the key
 * change/<id>, and *marks* the two names (attr/FROM and attr/TO carry the id). From
 * there it is certain to happen. Then the keys below move, a few in a transaction,
 * directories before what is in them, so that nobody can make, remove or rename a
 * name in a place that has already gone. The last transaction takes the marks and
 * change/<id> away and tells the feed: with its record, each mount's tree moves as one.
 * Until then every mount shows the old names, and whoever comes upon a mark, or misses
 * a key that it knows of, waits for the end, or brings it about. */
#ifndef ICM_CORE_CHANGE_H
#define ICM_CORE_CHANGE_H

#include "core/commit.h"
#include "core/names.h"

/* The directory `a` becomes `b`, which is absent or an empty directory. 0: done, and
 * the tree has it. -ESTALE: something isn't as the places say, nothing was done; -EXDEV:
 * `b` is so deep that the decision doesn't fit. Other errors, after the decision: it
 * will be done, but not by this call (the log says so). Waits for the store. */
int icm_change_rename(struct icm_volume *vol, const struct icm_place *a, const struct icm_place *b,
		      pid_t pid, struct timespec now) ICM_MUST_CHECK;

/* Returns when no change concerns `path` (NULL: any) any more: it is neither of the two
 * names of one nor below. *ret_met: there was one; what was read of the path is to be read again.
 * -ETIMEDOUT, or why this mount can't bring it to its end. Not read-only, and not with
 * feed_lock held. */
int icm_change_meet(struct icm_volume *vol, const char *path, bool *ret_met) ICM_MUST_CHECK;
/* Ends the changes whose mount is gone (or this one). *ret_left: there are others. */
void icm_change_end_orphans(struct icm_volume *vol, bool *ret_left);

/* Where the keys of a name are that a change has moved already: a fresh path, or NULL. */
char *icm_change_elsewhere(struct icm_volume *vol, const char *path);
/* Whether a change is about to make `path`, so that it isn't there yet. */
bool icm_change_makes(struct icm_volume *vol, const char *path);
/* Entries of a listing, read in one view: those of operation `attr_op` get the keys that
 * they had before the changes in the entries of operation `change_op`, in byte order;
 * names that are yet to come are dropped. Returns whether there was a change. */
bool icm_change_undo_in_listing(struct icm_entries *list, size_t attr_op, size_t change_op);

/* ---- between change*.c ---- */

/* Moves what is left of a change and ends it; the tree follows. `quiet`: those who watch
 * with inotify have it from the kernel. 1: there was such a change, and there is none
 * now; 0: there was none. */
int icm_change_complete(struct icm_volume *vol, const char *id, bool quiet) ICM_MUST_CHECK;
/* `path` is `dir` or below. */
bool icm_path_is_below(const char *path, const char *dir);

#endif
