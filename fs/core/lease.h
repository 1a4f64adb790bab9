/* SPDX-License-Identifier: MIT
 * The mount's own lease: opened at start, renewed in time, rewritten to settle
 * unknown outcomes. Every write of the mount checks its key's index. */
#ifndef ICM_CORE_LEASE_H
#define ICM_CORE_LEASE_H

#include "core/shared.h"

struct icm_lease_keeper *icm_lease_keeper_new(struct icm_volume *vol);
struct icm_lease_keeper *icm_lease_keeper_free(struct icm_lease_keeper *k);

/* Opens the first lease and, where the store asks for renewals, starts the
 * thread that renews. */
int icm_lease_start(struct icm_volume *vol) ICM_MUST_CHECK;
/* Ends the lease and the thread. */
void icm_lease_stop(struct icm_volume *vol);

/* Key (fresh copy) and index to be checked by a write; -EIO while there is none. */
int icm_lease_guard(struct icm_volume *vol, char **ret_key, uint64_t *ret_index) ICM_MUST_CHECK;
/* A check of `index` failed: finds out whether another request of this mount has
 * rewritten the key (0: the guard has the new index) or the lease is over (0 as
 * well, after a new one was opened and locks were given up as lost). */
int icm_lease_recheck(struct icm_volume *vol, uint64_t index) ICM_MUST_CHECK;
/* Rewrites the key: when 0 is returned, nothing sent before can be applied any
 * more. */
int icm_lease_settle(struct icm_volume *vol) ICM_MUST_CHECK;
/* For status: key (fresh, may be NULL), age of the last acknowledged renewal. */
void icm_lease_facts(struct icm_volume *vol, char **ret_key, int64_t *ret_age_ms,
		     uint32_t *ret_ttl_ms);

#endif
