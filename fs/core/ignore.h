/* SPDX-License-Identifier: MIT
 * Lists of patterns in gitignore syntax: one a line, '#' comments, '!' takes
 * out again, a trailing '/' matches directories only, a '/' elsewhere anchors
 * at the root, `**` between slashes stands for any number of directories, and
 * `*`, `?`, `[…]`, `\` are as in the shell. The last pattern that matches wins;
 * what is below a directory that matches can't be taken out again. Bytes, no
 * locale; the cost of a match is bounded by the product of the lengths. */
#ifndef ICM_CORE_IGNORE_H
#define ICM_CORE_IGNORE_H

#include <stdbool.h>
#include <stddef.h>

#define ICM_IGNORE_MAX_BYTES ((size_t)64 << 10) /* of one text */

struct icm_ignore_pattern;

/* A list; all zero is the empty one. */
struct icm_ignore {
	struct icm_ignore_pattern *patterns; /* owned */
	size_t n;
};

/* Appends the patterns of a text, of which no more than ICM_IGNORE_MAX_BYTES are
 * looked at. Returns 0, or the number of the first line whose pattern can match
 * nothing because it is malformed (a bracket or an escape without end). */
size_t icm_ignore_add(struct icm_ignore *list, const char *text, size_t len);
/* Frees the patterns and empties. */
void icm_ignore_clear(struct icm_ignore *list);

/* Whether `path` (relative, without leading or trailing '/') matches, by itself
 * or through a directory above it. The lists stand one behind the other. */
bool icm_ignore_match(const struct icm_ignore *const *lists, size_t n_lists, const char *path,
		      bool is_dir);

#endif
