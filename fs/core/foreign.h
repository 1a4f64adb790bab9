/* SPDX-License-Identifier: MIT
 * Noticing what other programs change in the store: keys below tree/ that no
 * transaction of icmfs has written. What is done with them is in adopt.c. */
#ifndef ICM_CORE_FOREIGN_H
#define ICM_CORE_FOREIGN_H

#include "core/shared.h"

/* Compares the tree copy with all of tree/ and adopts what differs. At the mount
 * (where nothing hints at another writer, a store that tells no indexes of keys is
 * compared by names alone), and when a change is nobody's that is known. An
 * answer without `meta` or the root is not believed. feed_lock not held. */
int icm_foreign_compare(struct icm_volume *vol, bool at_mount) ICM_MUST_CHECK;
/* Whether there may be something that no comparison has found: then look-ups and
 * opens look at tree/ as well. Only where no watch tells of it. */
bool icm_foreign_is_suspected(struct icm_volume *vol);

/* The thread that watches tree/, on stores that others can write to. */
int icm_foreign_start(struct icm_volume *vol) ICM_MUST_CHECK;
void icm_foreign_stop(struct icm_volume *vol);

#endif
