/* SPDX-License-Identifier: MIT
 * Inside check: what one pass over a store knows. check.c reads the keys and
 * judges those that stand for themselves, check-files.c judges the tree: names,
 * attributes, records and contents against each other; check-snapshots.c that what
 * snapshots refer to is there. */
#ifndef ICM_CORE_CHECK_STATE_H
#define ICM_CORE_CHECK_STATE_H

#include <stdbool.h>

#include "core/check.h"
#include "core/record.h"

/* A blob/<sum> whose value was read. */
struct icm_check_blob {
	struct icm_sha256 sum;
	uint64_t len;
	bool damaged; /* the value has another sum */
	bool used;
};

/* An attr/<path> that decodes, or an inode/<ino>. */
struct icm_check_name {
	const char *key; /* borrowed from `keys` */
	char *path;	 /* owned */
	struct icm_attr attr;
	uint64_t index; /* modify index of attr/<path> */
};

struct icm_check {
	struct icm_backend *be;
	struct icm_entries keys;      /* all, without values, in byte order */
	struct icm_check_blob *blobs; /* by sum */
	size_t n_blobs;
	struct icm_check_name *names; /* by key */
	size_t n_names;
	struct icm_sha256 *hashes; /* of contents in tree/ and hist/, as the attributes say */
	size_t n_hashes, cap_hashes;
	struct icm_change_value *changes; /* owned; under way */
	size_t n_changes;
	struct icm_check_report *report;
};

/* Adds a problem at `key`. */
void icm_check_add(struct icm_check *c, enum icm_severity severity, const char *key,
		   const char *fmt, ...) ICM_PRINTF(4, 5);
/* The key as listed, or NULL. */
const struct icm_entry *icm_check_key(const struct icm_check *c, const char *key);
/* Number of the first listed key that is not before `key`. */
size_t icm_check_position(const struct icm_check *c, const char *key);
/* Reads a key that was listed. 1: read; 0: gone meanwhile, or damaged (then it
 * is reported); negative: the store failed. */
int icm_check_read(struct icm_check *c, const char *key, struct icm_entry *ret);
/* The blob, marked as used; NULL when it isn't there. */
struct icm_check_blob *icm_check_use_blob(struct icm_check *c, const struct icm_sha256 *sum);

/* The blobs of a record that stands in the value of `key`. */
int icm_check_record_blobs(struct icm_check *c, const char *key, const struct icm_record *rec);
/* A change under way has some keys of this name here, and some there. */
bool icm_check_in_transit(const struct icm_check *c, const char *path);

/* Judges attr/, tree/, inode/ and hist/; fills names. */
int icm_check_files(struct icm_check *c);
void icm_check_files_clear(struct icm_check *c);

/* Judges snap/, after the files. */
int icm_check_snapshots(struct icm_check *c);

#endif
