/* SPDX-License-Identifier: MIT
 * What the record codecs share: strict access to the members of JSON objects,
 * and the parts that stand inside other values. Not for use outside
 * record*.c, except for the limits. All readers return 0 or -EPROTO and leave *ret alone on
 * failure; writers end the process when memory runs out, as icm_xmalloc does. */
#ifndef ICM_CORE_RECORD_JSON_H
#define ICM_CORE_RECORD_JSON_H

#include <jansson.h>

#include "core/record.h"

#define ICM_TEXT_MAX   4096 /* bytes of host, user, program, … ; encoders cut there */
#define ICM_JSON_DEPTH 16   /* nested brackets in a value, unknown members included */

/* Largest values in bytes: what a valid one can need, rounded up, so that a
 * hostile store can't make a mount build a large JSON tree. */
#define ICM_SMALL_VALUE_MAX  ((size_t)64 << 10) /* directory times, meta, lease, lock */
#define ICM_ATTR_VALUE_MAX   ((size_t)1 << 20)
#define ICM_LIST_VALUE_MAX   ((size_t)512 << 10)		       /* records and chunk lists */
#define ICM_INODE_VALUE_MAX  (ICM_ATTR_VALUE_MAX + ICM_LIST_VALUE_MAX) /* inode/, hist/ */
#define ICM_FEED_VALUE_MAX   ((size_t)64 << 20)			       /* feed and log */
#define ICM_SNAP_PART_MAX    ((size_t)2 << 20)			       /* part of a manifest */
#define ICM_CHANGE_VALUE_MAX ((size_t)128 << 10)		       /* change/ */

/* Parses one object or array of at most `max` bytes; -EPROTO for anything that
 * isn't exactly that: duplicates, NUL, invalid UTF-8, bytes behind it. */
int icm_json_parse(const void *data, size_t len, size_t max, json_t **ret_json) ICM_MUST_CHECK;
/* Fresh compact text of a value that the encoders built. Takes the reference. */
char *icm_json_dump(json_t *value, size_t *ret_len);

/* Writers. icm_json_set and _append take the reference of `value`. */
json_t *icm_json_object(void);
json_t *icm_json_array(void);
void icm_json_set(json_t *obj, const char *key, json_t *value);
void icm_json_append(json_t *array, json_t *value);
json_t *icm_json_hash(const struct icm_sha256 *sum);
void icm_json_set_ascii(json_t *obj, const char *key, const char *text);
void icm_json_set_u64(json_t *obj, const char *key, uint64_t n);
void icm_json_set_time(json_t *obj, const char *key, struct timespec t);
/* Any bytes, percent-encoded; NULL is written as "". */
void icm_json_set_text(json_t *obj, const char *key, const char *text);

/* Readers of a member that must be there. */
int icm_json_get_u64(const json_t *obj, const char *key, uint64_t min, uint64_t max,
		     uint64_t *ret_n) ICM_MUST_CHECK;
int icm_json_get_time(const json_t *obj, const char *key, struct timespec *ret_time) ICM_MUST_CHECK;
int icm_json_get_id(const json_t *obj, const char *key,
		    char ret_id[static ICM_ID_HEX + 1]) ICM_MUST_CHECK;
int icm_json_get_hash(const json_t *obj, const char *key, struct icm_sha256 *ret) ICM_MUST_CHECK;
/* Fresh bytes of a percent-encoded text of at most `max` bytes. */
int icm_json_get_text(const json_t *obj, const char *key, size_t max,
		      char **ret_text) ICM_MUST_CHECK;
/* Fresh path of a percent-encoded one; "" is the root. */
int icm_json_get_path(const json_t *obj, const char *key, char **ret_path) ICM_MUST_CHECK;
/* Borrowed member of that type. */
int icm_json_get(const json_t *obj, const char *key, json_type type,
		 json_t **ret_member) ICM_MUST_CHECK;
/* The hash in a string value. */
int icm_json_hash_value(const json_t *value, struct icm_sha256 *ret) ICM_MUST_CHECK;

/* Parts of other values; fresh references. */
json_t *icm_attr_to_json(const struct icm_attr *a);
int icm_attr_from_json(const json_t *obj, struct icm_attr *ret) ICM_MUST_CHECK;
json_t *icm_record_to_json(const struct icm_record *r);
int icm_record_from_json(const json_t *obj, struct icm_record *ret) ICM_MUST_CHECK;
/* Whether the attributes can be those of what the record (NULL: plain bytes)
 * describes. Readers rely on it: they take the type from one and the contents
 * from the other. */
bool icm_record_fits(const struct icm_attr *a, const struct icm_record *rec);

#endif
