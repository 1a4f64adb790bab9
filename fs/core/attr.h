/* SPDX-License-Identifier: MIT */
#ifndef ICM_CORE_ATTR_H
#define ICM_CORE_ATTR_H

#include "core/shared.h"

/* Changes the size of the working copy (file.c). */
int icm_file_truncate(struct icm_volume *vol, struct icm_file *f, uint64_t size);

#endif
