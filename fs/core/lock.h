/* SPDX-License-Identifier: MIT
 * Advisory locks inside one mount (scratch files): a table per file of flock and record locks,
 * with the rules of Linux for FUSE (who owns what, docs/posix.md). No store and
 * no files here.
 *
 * Two spaces that never conflict with each other: flock, and records (POSIX
 * and OFD). A flock or OFD lock belongs to its open file (handle serial); a
 * POSIX lock to the FUSE owner. Which of both a record lock is can't be told
 * when it is made: it is both "of owner" and "through handle", and goes with
 * whichever ends first: flush(owner) or release(handle). A record lock
 * conflicts with another owner's only; a flock with another handle's only. */
#ifndef ICM_CORE_LOCK_H
#define ICM_CORE_LOCK_H

#include "core/fs.h"

struct icm_lock_set;   /* all locks of a volume: finds deadlocks over files */
struct icm_lock_table; /* of one file */

struct icm_lock_set *icm_lock_set_new(void);
struct icm_lock_set *icm_lock_set_free(struct icm_lock_set *s);

struct icm_lock_table *icm_lock_table_new(struct icm_lock_set *s);
/* No locks and no waiters may be left. */
struct icm_lock_table *icm_lock_table_free(struct icm_lock_table *t);

/* As icm_fs_lock, for the open file `handle` (its serial). Waiters are served
 * in order of arrival; a waiter that was cancelled and asks again with the same
 * (handle, owner, range, type) within two seconds gets its former place. A
 * flock conversion that must wait, or fails, gives the old lock up first (as
 * Linux does); a record lock conversion keeps it. -EDEADLK: only over owners of
 * record locks that wait. A new request looks at locks only, a waiter also at
 * earlier waiters. `done` may be called before -EINPROGRESS is returned, by
 * another thread. Cancelling a wait that is over is safe at any time. */
int icm_lock_table_set(struct icm_lock_table *t, uint64_t handle,
		       const struct icm_lock_request *req, icm_lock_done_fn done, void *userdata,
		       struct icm_lock_wait **ret_wait);
bool icm_lock_cancel(struct icm_lock_set *s, struct icm_lock_wait *wait);
/* F_GETLK. */
void icm_lock_table_get(struct icm_lock_table *t, uint64_t handle,
			const struct icm_lock_request *req, struct flock *lk);
/* All record locks of this owner end (FLUSH). True if there were any. */
bool icm_lock_table_flush(struct icm_lock_table *t, uint64_t owner);
/* All locks made through this handle end (RELEASE); its waiters fail with -EBADF. */
void icm_lock_table_release(struct icm_lock_table *t, uint64_t handle);
/* All locks end and all waiters fail with `error` (the lease was lost). */
void icm_lock_table_revoke(struct icm_lock_table *t, int error);
bool icm_lock_table_has_owner(struct icm_lock_table *t, uint64_t owner);
/* The request would turn an exclusive lock of its owner's into a shared one. */
bool icm_lock_table_downgrades(struct icm_lock_table *t, uint64_t handle,
			       const struct icm_lock_request *req);
/* Neither locks nor waiters. */
bool icm_lock_table_empty(struct icm_lock_table *t);

/* For .icmfs/locks. */
struct icm_lock_info {
	bool flock;
	bool waiting;
	int type;
	uint64_t start, end;
	pid_t pid;
	struct timespec since;
};
typedef void (*icm_lock_info_fn)(void *userdata, const struct icm_lock_info *info);
void icm_lock_table_list(struct icm_lock_table *t, icm_lock_info_fn fn, void *userdata);

#endif
