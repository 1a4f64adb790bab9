/* SPDX-License-Identifier: MIT
 * The local copy of a tree (-o offline): names, attributes and contents as of one
 * index of the store, which a mount shows, read-only, when the store doesn't answer.
 *
 * It is an SQLite database in a directory of the mount's own. While the store
 * answers, a thread keeps it up to date: a moment after the tree has changed it
 * takes all names and attributes at one position of the feed, fetches, one after
 * the other, what contents are new, and makes the copy that state in a single
 * transaction. So the copy is always one state of the store, whole, also after a
 * crash; it may be some seconds old.
 *
 * Its keys are those of a store (docs/data-model.md), so that a volume reads it as
 * one: attr/PATH, inode/INO, tree/PATH/ (times of directories), tree/PATH of
 * records, blob/SHA256 of all contents. A plain file has no tree/PATH: its
 * contents are found by their hash. Besides:
 *   copy         what it is a copy of (struct icm_copy_head); written with each state
 *   record/NAME  a record as the copy has fetched it: NAME is the hash in a large
 *                file's attributes, or a symbolic link's inode number
 * There is no `meta`: it is not to be mounted as a store. */
#ifndef ICM_CORE_COPY_H
#define ICM_CORE_COPY_H

#include <stdbool.h>
#include <stdint.h>
#include <time.h>

#include "backends/backend.h"
#include "util/attrs.h"

#define ICM_KEY_COPY	"copy"
#define ICM_COPY_FORMAT 1

struct icm_volume;
struct icm_copy;

/* Value of `copy`. */
struct icm_copy_head {
	uint32_t format;
	char *store;		 /* owned; canonical URL */
	struct timespec created; /* the deployment's, which tells it from others */
	uint64_t index;		 /* of the store */
	struct timespec time;	 /* when that was the store's state */
	uint64_t names;		 /* attr/ keys */
	uint64_t left_out;	 /* files whose contents the copy doesn't have */
};
void icm_copy_head_clear(struct icm_copy_head *h);
/* As JSON (record-copy.c); strict as the other codecs. */
char *icm_copy_head_encode(const struct icm_copy_head *h, size_t *ret_len);
int icm_copy_head_decode(const void *data, size_t len, struct icm_copy_head *ret) ICM_MUST_CHECK;

/* ---- opening (copy.c) ---- */

/* The copy in the directory `dir` (0700) of the store with this canonical URL,
 * with contents of up to `max` bytes. -EBUSY: another process has it. */
int icm_copy_new(const char *dir, const char *store, uint64_t max,
		 struct icm_copy **ret) ICM_MUST_CHECK;
/* Takes NULL; returns NULL. The keeping has been stopped. */
struct icm_copy *icm_copy_free(struct icm_copy *c);
/* Whether there is a copy: 0 and what it is, for icm_copy_head_clear; -ENOENT: none
 * yet. Otherwise *ret_error is a fresh line: -EPROTO it is damaged, of another
 * store, or of a newer format; others as of the file. */
int icm_copy_look(const struct icm_copy *c, struct icm_copy_head *ret,
		  char **ret_error) ICM_MUST_CHECK;
/* An open instance of the copy, for reading, and what it is; errors and *ret_error
 * as of icm_copy_look. */
int icm_copy_open(const struct icm_copy *c, struct icm_backend **ret_be,
		  struct icm_copy_head *ret_head, char **ret_error) ICM_MUST_CHECK;

/* ---- keeping (copy-keep.c) ---- */

/* The thread; of a volume whose store answers, whose tree is read. What can't be
 * done is logged: a mount works without. */
void icm_copy_start(struct icm_volume *vol);
/* Brings it up to date once more, as far as the store answers, and ends. */
void icm_copy_stop(struct icm_volume *vol);
/* The tree has changed, as of this index; any thread, volume->lock may be held.
 * Costs nothing where there is no copy. */
void icm_copy_changed(struct icm_volume *vol, uint64_t index);

#endif
