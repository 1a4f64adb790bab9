/* SPDX-License-Identifier: MIT
 * What scratch and the control directory have to know of the volume. */
#ifndef ICM_CORE_INTROSPECT_H
#define ICM_CORE_INTROSPECT_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

#include "backends/backend.h"
#include "core/fs.h"
#include "core/lock.h"

#define ICM_INO_LOCK_FILE (ICM_INO_CONTROL + 1) /* .icmfs/lock; with core/record.h */

/* ---- implemented with the volume ---- */

/* All locks of the volume, those on scratch files included. */
struct icm_lock_set *icm_volume_lock_set(struct icm_volume *vol);
/* The store, to read keys of. */
struct icm_backend *icm_volume_backend(struct icm_volume *vol);

/* A failure that no program was told. */
struct icm_volume_error {
	struct timespec time;
	char *path; /* owned */
	char *text; /* owned */
};

/* How the volume is, at one moment. */
struct icm_volume_status {
	const char *url;	/* of the store, without secrets; borrowed from the volume */
	const char *mountpoint; /* borrowed; may be NULL */
	bool reachable;		/* the last call to the store was answered */
	bool stale;		/* what is shown may be older than the store */
	bool read_only;
	bool offline;		   /* the local copy is shown; then: */
	struct timespec copy_time; /* as of when */
	uint64_t copy_left_out;	   /* files without contents */
	uint64_t index;		   /* everything up to here is known */
	uint64_t files;		   /* regular files in the tree */
	uint64_t unsaved_files, unsaved_bytes;
	const char *unsaved_dir; /* where what could not be committed is; borrowed; may be NULL */
	char *lease_key;	 /* owned; NULL: no lease */
	int64_t lease_age_ms;	 /* since the last renewal was sent */
	uint32_t lease_ttl_ms;
	uid_t uid; /* owner of the deployment's root */
	gid_t gid;
	struct icm_volume_error *errors; /* owned; oldest first */
	size_t n_errors;
};
/* Fills *ret, which icm_volume_status_clear frees. Doesn't ask the store. */
void icm_volume_get_status(struct icm_volume *vol, struct icm_volume_status *ret);

/* Every lock and waiter on shared files and on .icmfs/lock. `path` is borrowed,
 * NULL for a file without name; `host` and `user` are NULL for this mount.
 * With `ask` those of all mounts, from the store if that answers in time; else
 * the tables in which this mount has or wants something, as it knows them. */
struct icm_volume_lock {
	const char *path;
	uint64_t ino;
	const char *host, *user;
	const char *command;	   /* name of the program when it asked; "" = unknown */
	struct icm_lock_info info; /* info.pid 0: unknown */
};
typedef void (*icm_volume_lock_fn)(void *userdata, const struct icm_volume_lock *lock);
void icm_volume_list_locks(struct icm_volume *vol, bool ask, icm_volume_lock_fn fn, void *userdata);

/* The scratch directory of the volume, or NULL. */
struct icm_scratch *icm_volume_scratch(struct icm_volume *vol);

/* A handle of .icmfs/lock (view number ICM_INO_LOCK_FILE) is flushed by an
 * owner, or released: its locks end, as those of a shared file. */
void icm_volume_control_flush(struct icm_volume *vol, struct icm_handle *h, uint64_t owner);
void icm_volume_control_release(struct icm_volume *vol, struct icm_handle *h);

/* ---- implemented in control.c ---- */

void icm_volume_status_clear(struct icm_volume_status *s);

#endif
