/* SPDX-License-Identifier: MIT
 * Earlier versions of files: hist/<path>%v<index>, and their contents. */
#ifndef ICM_CORE_HISTORY_H
#define ICM_CORE_HISTORY_H

#include "core/shared.h"

/* The version of `path` with this index. -ENOENT; -EIO (and a log line): damaged. */
int icm_history_load(struct icm_volume *vol, const char *path, uint64_t index,
		     struct icm_hist *ret) ICM_MUST_CHECK;
/* Contents of a regular file's version, ready to be read; *ret stays as it is for
 * what has none (a FIFO, a device, a link). -EIO: they are damaged or gone. */
int icm_history_contents(struct icm_volume *vol, struct icm_hist *hist,
			 struct icm_data **ret) ICM_MUST_CHECK;
/* Contents of the version of `path` that has this hash and size. -ESTALE: none has. */
int icm_history_find(struct icm_volume *vol, const char *path, const struct icm_sha256 *hash,
		     uint64_t size, struct icm_data **ret) ICM_MUST_CHECK;

#endif
