/* SPDX-License-Identifier: MIT
 * A reader of Consul's JSON answers. Not jansson, which the rest of the project
 * uses: a key's flags are any unsigned number of 64 bits, and jansson refuses
 * integers over 2^63-1, or rounds them (JSON_DECODE_INT_AS_REAL). Listings are
 * large, too, and this needs no tree of them in memory. The bytes are foreign:
 * every function returns false at the first that isn't as expected, and then the
 * reader is at its end. (None is called json_…: a name of jansson's would replace
 * jansson's in the whole program.) Fuzzed by tests/fuzz/fuzz-consul.c. */
#ifndef ICM_BACKENDS_CONSUL_SCAN_H
#define ICM_BACKENDS_CONSUL_SCAN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "util/attrs.h"
#include "util/buf.h"

struct scan {
	const char *p;
	const char *end;
	bool failed;
};

static inline struct scan scan_of(const void *data, size_t len)
{
	return (struct scan){ .p = data, .end = (const char *)data + len };
}

/* Whether what comes next is `c`, blanks left out; takes it. Never a failure. */
bool scan_try(struct scan *j, char c);
/* The same for "null". */
bool scan_try_null(struct scan *j);
/* Begins an object or array ('{', '['); false and no failure at a null. */
bool scan_open(struct scan *j, char bracket);
/* The loop over what scan_open() began: true while another item comes. `first`
 * starts as true. */
bool scan_more(struct scan *j, char bracket, bool *first);
/* A member's name and its colon; fresh in *ret (reset before). */
bool scan_name(struct scan *j, struct icm_buf *ret);
/* A string, unescaped; null gives the empty one. */
bool scan_string(struct scan *j, struct icm_buf *ret);
bool scan_uint(struct scan *j, uint64_t *ret);
/* Any value, of at most 64 levels. */
bool scan_skip(struct scan *j);
/* Nothing but blanks is left, and nothing failed. */
bool scan_end(struct scan *j);

/* Appends `s` as a JSON string with its quotes; the bytes are 0x20 to 0x7e. */
void scan_add_string(struct icm_buf *b, const char *s);

#endif
