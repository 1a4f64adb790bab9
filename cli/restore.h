/* SPDX-License-Identifier: MIT
 * Puts bytes that could not be committed into a mounted tree, by ordinary system
 * calls: a file that still is the version they were based on gets them as its
 * next version, in one step; anything else stays, and they go beside it. */
#ifndef ICM_CLI_RESTORE_H
#define ICM_CLI_RESTORE_H

#include "core/unsaved.h"

/* `data` is the item's data, open for reading; `root` the mount's root. `to`: a
 * path of the caller's to make instead, or NULL. 0: the bytes are stored, and
 * *ret_path is a fresh path of where. Negative: nothing is, and *ret_error is a
 * fresh line. */
int icm_restore(const struct icm_unsaved *u, int data, const char *root, const char *to,
		char **ret_path, char **ret_error) ICM_MUST_CHECK;

#endif
