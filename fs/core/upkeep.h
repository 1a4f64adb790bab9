/* SPDX-License-Identifier: MIT
 * What has to be done now and then and nobody waits for: a thread that moves
 * the feed's oldest records to the log, bounds the log, ends changes whose mount is
 * gone, and lets the driver do its own upkeep. It sleeps until there is a reason. */
#ifndef ICM_CORE_UPKEEP_H
#define ICM_CORE_UPKEEP_H

#include "core/shared.h"

/* Started before the feed's watch and ended after it. Not needed read-only:
 * then both do nothing, as do the calls below. */
int icm_upkeep_start(struct icm_volume *vol) ICM_MUST_CHECK;
void icm_upkeep_stop(struct icm_volume *vol);

/* A transaction of this mount was applied. Any thread, any lock but upkeep's own. */
void icm_upkeep_commit(struct icm_volume *vol);
/* So many records are in the feed, as a catch-up has seen. Whoever commits moves
 * them; others help when that isn't enough. */
void icm_upkeep_feed_size(struct icm_volume *vol, size_t n);
/* There may be a change of several transactions: it is looked after until it is over. */
void icm_upkeep_changes(struct icm_volume *vol);

#endif
