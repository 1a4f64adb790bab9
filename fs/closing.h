/* SPDX-License-Identifier: MIT
 * Last closes under way. A close(2) doesn't wait until the last close of its
 * open file (RELEASE) has been carried out, nor even read. Who takes a lock
 * with LOCK_NB after a close must not meet the lock of the file that was
 * closed: no local file system does that. So a lock request that is refused
 * waits for the last closes that may be on their way, and tries again. */
#ifndef ICM_CLOSING_H
#define ICM_CLOSING_H

#include <stdbool.h>
#include <stdint.h>

/* A last close that is being carried out. */
struct icm_closing {
	struct icm_closing *next, **prev;
	uint64_t ino;
	int64_t at_ns; /* since when it has been known */
};

/* A descriptor of the open file was closed: the last close follows at once,
 * unless others are left. */
void icm_closing_expect(uint64_t fh, uint64_t ino);
void icm_closing_begin(struct icm_closing *c, uint64_t fh, uint64_t ino);
void icm_closing_end(struct icm_closing *c);
/* Waits for the last closes of this inode that were under way at the call, and
 * a moment for those that are expected; false if there were none. */
bool icm_closing_wait(uint64_t ino);

#endif
