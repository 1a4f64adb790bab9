/* SPDX-License-Identifier: MIT
 * Adoption: what another program wrote or deleted at a tree/ key becomes a version
 * like any other. A tree/<path> that is newer than attr/<path>, or has none, is
 * foreign, since icmfs writes both in one transaction; so is an attr/<path> whose
 * tree/ key is gone. The mount that notices it writes the attributes, so that all
 * agree on number, times and hash; a mount that may not write derives the same. */
#ifndef ICM_CORE_ADOPT_H
#define ICM_CORE_ADOPT_H

#include "core/names.h"

/* `there` is attr/<path> as it was read a moment ago (path isn't the root's). Looks
 * at the tree/ keys beside it and adopts what is foreign: *there is the result,
 * with the changes that were made. 0, also when nothing was foreign; -EAGAIN:
 * another mount was faster, read attr/<path> again; or a failure of the store.
 * volume->lock not held. */
int icm_adopt(struct icm_volume *vol, const char *path, struct icm_fetched *there) ICM_MUST_CHECK;

#endif
