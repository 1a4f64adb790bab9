/* SPDX-License-Identifier: MIT
 * A volume: one store opened as a deployment's tree. Owns the driver, the tree
 * copy, the lease, the watch thread and the scratch directory. */
#ifndef ICM_CORE_VOLUME_H
#define ICM_CORE_VOLUME_H

#include <stdbool.h>
#include <stdint.h>

#include "backends/backend.h"
#include "core/fs.h"
#include "util/attrs.h"

struct icm_volume_config {
	const char *url; /* store */
	bool read_only;
	bool cached;		      /* no revalidation at open */
	bool create;		      /* make the store's container and an empty deployment */
	uint32_t timeout_ms;	      /* how long an operation waits for the store; 0 = 30,000 */
	uint32_t ttl_ms;	      /* of the lease; 0 = 10,000 */
	const char *scratch_dir;      /* local directory for scratch names; NULL = no scratch */
	const char *scratch_patterns; /* file, or NULL */
	const char *work_dir;	 /* for working copies of large files; NULL = $TMPDIR or /var/tmp */
	const char *unsaved_dir; /* for what can't be committed; NULL: it is lost */
	uint64_t unsaved_max;	 /* bytes there; 0 = 1 GiB */
	const char *copy_dir;	 /* of the mount's local copy (copy.h); NULL: none */
	uint64_t copy_max;	 /* bytes of contents there; 0 = 64 MiB */
	const char *mountpoint;	 /* for records and status; may be NULL */
	uid_t uid;		 /* owner of what has none (root of a new deployment) */
	gid_t gid;
};

/* Opens the store and looks at its format. No threads yet. *ret_error: a fresh
 * line for the user. With a local copy, a store that doesn't answer is replaced by it:
 * then the volume is read-only. Errors: those of icm_backend_open; -EPROTO newer or
 * damaged format; -ENOENT no deployment there and create not set. */
int icm_volume_open(const struct icm_volume_config *config, struct icm_volume **ret,
		    char **ret_error) ICM_MUST_CHECK;
/* After a daemon's fork: opens the lease, reads the tree, starts the watch.
 * `notify` and its userdata outlive the volume; NULL = nobody to tell. */
int icm_volume_start(struct icm_volume *vol, const struct icm_notify *notify, void *userdata,
		     char **ret_error) ICM_MUST_CHECK;
/* Publishes what is left, ends the lease, stops the threads. */
void icm_volume_stop(struct icm_volume *vol);
/* Frees; takes NULL; returns NULL. */
struct icm_volume *icm_volume_free(struct icm_volume *vol);

/* Operations that ask the store may be done in place: they last as long as
 * local disk I/O. A constant of an open volume. */
bool icm_volume_is_local(const struct icm_volume *vol);
bool icm_volume_is_read_only(const struct icm_volume *vol);
/* Canonical URL of the store, without secrets; borrowed. */
const char *icm_volume_url(const struct icm_volume *vol);
/* Waits until the tree copy has everything committed before this call. */
int icm_volume_catch_up(struct icm_volume *vol);
/* The same if the store tells its index within a second; what fails leaves the tree
 * as it is. Reading what is new is bounded as every call is, by the mount's timeout. */
void icm_volume_glance(struct icm_volume *vol);
/* Bytes not yet published (open dirty files) and files concerned. */
void icm_volume_unsaved(struct icm_volume *vol, uint64_t *ret_files, uint64_t *ret_bytes);

#endif
