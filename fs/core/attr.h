/* SPDX-License-Identifier: MIT */
#ifndef ICM_CORE_ATTR_H
#define ICM_CORE_ATTR_H

#include "core/shared.h"

/* Changes the size of the working copy (file.c). */
int icm_file_truncate(struct icm_volume *vol, struct icm_file *f, uint64_t size);

/* The view is opened by the answer that looks it up: it stays as it is until then. */
void icm_file_reopen(struct icm_volume *vol, struct icm_file *f);
/* The view is about to be given to the kernel as the answer to a look-up (file.c);
 * volume->lock held. */
void icm_file_looked_up(struct icm_file *f);

#endif
