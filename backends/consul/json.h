/* SPDX-License-Identifier: MIT
 * A reader of Consul's JSON answers. Not jansson, which the rest of the project
 * uses: a key's flags are any unsigned number of 64 bits, and jansson refuses
 * integers over 2^63-1, or rounds them (JSON_DECODE_INT_AS_REAL). Listings are
 * large, too, and this needs no tree of them in memory. The bytes are foreign:
 * every function returns false at the first that isn't as expected, and then the
 * reader is at its end. Fuzzed by tests/fuzz/fuzz-consul.c. */
#ifndef ICM_BACKENDS_CONSUL_JSON_H
#define ICM_BACKENDS_CONSUL_JSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "util/attrs.h"
#include "util/buf.h"

struct json {
	const char *p;
	const char *end;
	bool failed;
};

static inline struct json json_reader(const void *data, size_t len)
{
	return (struct json){ .p = data, .end = (const char *)data + len };
}

/* Whether what comes next is `c`, blanks left out; takes it. Never a failure. */
bool json_try(struct json *j, char c);
/* The same for "null". */
bool json_try_null(struct json *j);
/* Begins an object or array ('{', '['); false and no failure at a null. */
bool json_open(struct json *j, char bracket);
/* The loop over what json_open() began: true while another item comes. `first`
 * starts as true. */
bool json_more(struct json *j, char bracket, bool *first);
/* A member's name and its colon; fresh in *ret (reset before). */
bool json_name(struct json *j, struct icm_buf *ret);
/* A string, unescaped; null gives the empty one. */
bool json_string(struct json *j, struct icm_buf *ret);
bool json_uint(struct json *j, uint64_t *ret);
/* Any value, of at most 64 levels. */
bool json_skip(struct json *j);
/* Nothing but blanks is left, and nothing failed. */
bool json_end(struct json *j);

/* Appends `s` as a JSON string with its quotes; the bytes are 0x20 to 0x7e. */
void json_add_string(struct icm_buf *b, const char *s);

#endif
