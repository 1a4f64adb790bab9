/* SPDX-License-Identifier: MIT
 * Bytes that could not be committed: kept on local disk until somebody restores
 * or drops them (icmfs recover). An item is two files of mode 0600 in one
 * directory (0700), both named after the item: ID.data, a sparse copy of the
 * file, and ID.json, the description, which is written last and whole: without
 * it there is no item. */
#ifndef ICM_CORE_UNSAVED_H
#define ICM_CORE_UNSAVED_H

#include <stdint.h>
#include <sys/types.h>

#include "core/record.h"

struct icm_volume;
struct icm_file;

/* A range of the file that was never changed here: its bytes are those of the
 * base version and aren't in ID.data. */
struct icm_unsaved_gap {
	uint64_t off, len;
};

struct icm_unsaved {
	char id[ICM_ID_HEX + 1];
	struct timespec time; /* when it was kept */
	char *store;	      /* owned; URL without secrets */
	char *mountpoint;     /* owned; may be "" */
	char *path;	      /* owned; in the tree */
	char *reason;	      /* owned; why it could not be committed */
	char *user;	      /* owned; of the mount */
	mode_t mode;	      /* permissions */
	uid_t uid;
	gid_t gid;
	uint64_t size;
	struct timespec mtime;
	bool has_base; /* false: the file was never published */
	uint64_t base_ino, base_size;
	struct timespec base_mtime;
	struct icm_unsaved_gap *gaps; /* owned; ascending, apart, inside size and base_size */
	size_t n_gaps;
};
#define ICM_UNSAVED_GAPS_MAX 2048 /* chunks of the largest file */

struct icm_unsaved_list {
	struct icm_unsaved *v; /* owned; oldest first */
	size_t n;
	size_t bad;	/* descriptions that aren't understood */
	uint64_t bytes; /* of the items' data */
};

void icm_unsaved_clear(struct icm_unsaved *u);
void icm_unsaved_list_clear(struct icm_unsaved_list *list);
/* The description as JSON (record-unsaved.c); strict as the other codecs. */
char *icm_unsaved_encode(const struct icm_unsaved *u, size_t *ret_len);
int icm_unsaved_decode(const void *data, size_t len, struct icm_unsaved *ret) ICM_MUST_CHECK;

/* Everything in a directory; one that isn't there is empty. */
int icm_unsaved_read(const char *dir, struct icm_unsaved_list *ret) ICM_MUST_CHECK;
/* Opens an item's data for reading: a descriptor or a negative errno; -EPROTO
 * when it isn't a file of the item's size. */
int icm_unsaved_open(const char *dir, const struct icm_unsaved *u) ICM_MUST_CHECK;
/* Removes an item. */
int icm_unsaved_drop(const char *dir, const char *id) ICM_MUST_CHECK;
/* Removes data without description: what a killed process left half done. Only
 * for the one process that keeps items there. */
void icm_unsaved_sweep(const char *dir);

/* Keeps the working copy of a view, whose path was `path`. Asks the store for
 * nothing. -ENOENT: the volume has no place for it; -ENOSPC: over its limit or
 * the disk's; -EIO. Takes f->io. */
int icm_unsaved_keep(struct icm_volume *vol, struct icm_file *f, const char *path,
		     const char *reason) ICM_MUST_CHECK;

#endif
