/* SPDX-License-Identifier: MIT
 * A growing byte buffer with a ceiling. Allocation failure ends the process in
 * icm_xmalloc and its siblings: small allocations don't fail on Linux, and no
 * caller could do better; sizes that foreign data decides are checked against
 * a limit before they get here. */
#ifndef ICM_UTIL_BUF_H
#define ICM_UTIL_BUF_H

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include "util/attrs.h"
#include "util/cleanup.h"

struct icm_buf {
	char *data; /* owned; NUL-terminated behind `len` once anything was added */
	size_t len; /* bytes */
	size_t cap;
	size_t max; /* ceiling in bytes; 0 = none */
};

#define ICM_BUF_INIT(max_bytes)                                                                    \
	{                                                                                          \
		.max = (max_bytes)                                                                 \
	}

void *icm_xmalloc(size_t n);
void *icm_xcalloc(size_t n, size_t size);
void *icm_xrealloc(void *p, size_t n);
char *icm_xstrdup(const char *s);
char *icm_xstrndup(const char *s, size_t n);
void *icm_xmemdup(const void *p, size_t n);
/* printf into a fresh string, which the caller owns. */
char *icm_asprintf(const char *fmt, ...) ICM_PRINTF(1, 2);

/* Appends bytes; -EFBIG over the ceiling (nothing is added then). */
int icm_buf_add(struct icm_buf *b, const void *data, size_t len);
int icm_buf_addstr(struct icm_buf *b, const char *s);
int icm_buf_addc(struct icm_buf *b, char c);
int icm_buf_addf(struct icm_buf *b, const char *fmt, ...) ICM_PRINTF(2, 3);
/* Makes room for `more` bytes behind len, without changing len; -EFBIG as above. */
int icm_buf_reserve(struct icm_buf *b, size_t more);
/* Empties without freeing. */
void icm_buf_reset(struct icm_buf *b);
/* Frees the data and empties. */
void icm_buf_free(struct icm_buf *b);
/* Hands the bytes to the caller (never NULL) and empties; ret_len may be NULL. */
char *icm_buf_steal(struct icm_buf *b, size_t *ret_len);

static inline void icm_buf_freep(struct icm_buf *b)
{
	icm_buf_free(b);
}
#define ICM_AUTOBUF ICM_CLEANUP(icm_buf_freep)

#endif
