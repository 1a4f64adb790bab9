/* SPDX-License-Identifier: MIT
 * What a mount does about a store that doesn't answer when it begins: the local
 * copy (copy.h) takes the store's place, read-only, until the mount ends. A store
 * that answers, be it with a refusal, is never replaced. */
#ifndef ICM_CORE_OFFLINE_H
#define ICM_CORE_OFFLINE_H

#include "core/shared.h"

/* Opens the store, or else its copy: vol->be, and with the latter vol->offline.
 * vol->url and vol->copy are set. Errors as of icm_backend_open. */
int icm_offline_open(struct icm_volume *vol, const struct icm_volume_config *config,
		     char **ret_error) ICM_MUST_CHECK;
/* The store stopped answering (`error`) before its tree was read: replaces vol->be by
 * the copy, and forgets what was read. Without a copy: `error`; *ret_error may be
 * set before, and says more afterwards. */
int icm_offline_fall_back(struct icm_volume *vol, int error, char **ret_error) ICM_MUST_CHECK;

#endif
