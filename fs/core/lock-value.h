/* SPDX-License-Identifier: MIT
 * The lock table of one file as it is in the store (struct icm_lock_value): what
 * requests do to it. Pure functions on values; no store, no threads.
 *
 * Owners are pairs of a mount and a number of that mount. Two spaces that never
 * conflict with each other: flock, and records (POSIX and OFD locks), with the
 * rules of core/lock.h. */
#ifndef ICM_CORE_LOCK_VALUE_H
#define ICM_CORE_LOCK_VALUE_H

#include "core/record.h"

/* Number of the mount with this lease, or -1. */
int icm_lock_value_mount(const struct icm_lock_value *v, const char *lease);

bool icm_lock_entries_same_owner(const struct icm_lock_entry *a, const struct icm_lock_entry *b);
bool icm_lock_entries_overlap(const struct icm_lock_entry *a, const struct icm_lock_entry *b);

/* The holder with the lowest start that stands in e's way; `mount` >= 0: of
 * entries of that mount only. NULL = none. */
const struct icm_lock_entry *icm_lock_value_conflict(const struct icm_lock_value *v,
						     const struct icm_lock_entry *e, int mount);
/* Somebody of another mount than e's is in its way: a holder, or an earlier waiter. */
bool icm_lock_value_foreign_ahead(const struct icm_lock_value *v, const struct icm_lock_entry *e);
/* e's owner holds all of e's range with e's type. */
bool icm_lock_value_covers(const struct icm_lock_value *v, const struct icm_lock_entry *e);
/* The request would turn an exclusive lock of its owner's into a shared one. */
bool icm_lock_value_downgrades(const struct icm_lock_value *v, const struct icm_lock_entry *e);

/* Makes, changes or (type F_UNLCK) ends a lock, whoever else has one: what its
 * owner has in the range is replaced, neighbours of the same kind are merged. */
void icm_lock_value_set(struct icm_lock_value *v, const struct icm_lock_entry *e);
/* Puts e at the end of the queue. */
void icm_lock_value_enqueue(struct icm_lock_value *v, const struct icm_lock_entry *e);
/* The entry of the queue with this id, or NULL; valid until the next change. */
struct icm_lock_entry *icm_lock_value_queued(const struct icm_lock_value *v, const char *id);
void icm_lock_value_unqueue(struct icm_lock_value *v, const char *id);

/* Ends of locks; true if there were any. */
bool icm_lock_value_end_owner(struct icm_lock_value *v, int mount, uint64_t owner);
/* Its places in the queue as well. */
bool icm_lock_value_end_handle(struct icm_lock_value *v, int mount, uint64_t handle);
bool icm_lock_value_end_mount(struct icm_lock_value *v, int mount);

/* Tables that are looked at together for who waits for whom; the first one is
 * that of the question. */
struct icm_lock_tables {
	const struct icm_lock_value **v;
	size_t n;
};
/* Grants, in order of arrival, what conflicts with no lock and no earlier waiter.
 * An earlier waiter that itself waits for something of the later one's owner is
 * passed: without the queue there would be no deadlock there. tables->v[0] == v. */
void icm_lock_value_serve(struct icm_lock_value *v, const struct icm_lock_tables *tables);
/* The record lock that e (in the queue of tables->v[0]) waits for is, directly or
 * not, its own owner's. with_queue: an earlier waiter in the way counts as well. */
bool icm_lock_waits_for_itself(const struct icm_lock_tables *tables, const struct icm_lock_entry *e,
			       bool with_queue);

/* Forgets mounts without entries. */
void icm_lock_value_tidy(struct icm_lock_value *v);

#endif
