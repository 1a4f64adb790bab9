/* SPDX-License-Identifier: MIT
 * Store keys and paths. Paths inside the core are relative, without leading or
 * trailing '/', "" being the root; components are any bytes but '/' and NUL.
 * A component is percent-encoded in a key: A-Z a-z 0-9 and the characters
 * - _ . ~ + , = @ space ( ) [ ] { } ! $ & ' ; stand for themselves, every
 * other byte is %XX with upper-case digits; a component that would be "." or
 * ".." can't occur. "%v" never occurs in an encoded name. Pure functions. */
#ifndef ICM_CORE_KEY_H
#define ICM_CORE_KEY_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "util/attrs.h"
#include "util/buf.h"
#include "util/digest.h"

#define ICM_NAME_MAX 255 /* bytes of a component */
#define ICM_PATH_MAX                                                                               \
	5120 /* bytes of a path; what a call names at most, and some directories above */

/* Appends the encoded path to b. */
void icm_key_encode(struct icm_buf *b, const char *path);
/* Fresh encoded path. */
char *icm_key_encoded(const char *path);
/* Decodes one encoded path (of a key or of a record) into a fresh path; -EINVAL
 * unless it is the canonical spelling of a valid path (no empty, "." or ".."
 * component, none over ICM_NAME_MAX, whole not over ICM_PATH_MAX). "" is "". */
int icm_key_decode(const char *encoded, char **ret_path) ICM_MUST_CHECK;

/* The same spelling for byte strings that are no paths (link targets, names of
 * users and xattrs); icm_key_encode writes it. Fresh bytes, at most `max`;
 * -EINVAL for anything but the canonical spelling, or when it is longer. */
int icm_key_unescape(const char *encoded, size_t max, char **ret_text) ICM_MUST_CHECK;

/* Fresh keys. */
char *icm_key_tree(const char *path);		      /* tree/<path> */
char *icm_key_tree_dir(const char *path);	      /* tree/<path>/ ; root: tree/ */
char *icm_key_attr(const char *path);		      /* attr/<path> ; root: attr/ */
char *icm_key_inode(uint64_t ino);		      /* inode/<ino in decimal> */
char *icm_key_blob(const struct icm_sha256 *sum);     /* blob/<hex> */
char *icm_key_hist(const char *path, uint64_t index); /* hist/<path>%v<index, 20 digits> */
char *icm_key_feed(const char *id);		      /* feed/<id> */
char *icm_key_lock(uint64_t ino);		      /* lock/<ino in decimal> */
char *icm_key_snap(const char *name);		      /* snap/<name> */
char *icm_key_change(const char *id);		      /* change/<id> */

/* Reads the decimal number behind `prefix` in `key`; -EINVAL for anything but
 * the one spelling of a number in 1 … 2^52-1. */
int icm_key_parse_ino(const char *key, const char *prefix, uint64_t *ret_ino) ICM_MUST_CHECK;
/* Splits a hist key; -EINVAL when it isn't one. */
int icm_key_parse_hist(const char *key, char **ret_path, uint64_t *ret_index) ICM_MUST_CHECK;

#define ICM_KEY_META  "meta"
#define ICM_KEY_HEAD  "head"
#define ICM_KEY_FLOOR "floor"
#define ICM_KEY_SNAPS "snap/"

/* A component is valid for creation: 0, -ENAMETOOLONG, or -EINVAL. */
int icm_name_check(const char *name) ICM_MUST_CHECK;
/* Fresh "dir/name", or "name" when dir is "". */
char *icm_path_join(const char *dir, const char *name);

#endif
