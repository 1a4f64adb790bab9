/* SPDX-License-Identifier: MIT
 * One running mount as the FUSE front sees it, and how node ids and file
 * handles of the protocol stand for views and handles of the core.
 *
 * A node id is the address of a view, with marks in its low bits that an
 * address leaves free; FUSE_ROOT_ID is the root. A file handle is the address
 * of a core handle with a mark; 0 is an open file of the event helper. */
#ifndef ICM_FRONT_H
#define ICM_FRONT_H

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdint.h>

#include <fuse_lowlevel.h>

#include "core/fs.h"
#include "core/volume.h"

/* Generated objects (.icmfs and all below): attributes and names aren't cached. */
#define ICM_NODE_VOLATILE UINT64_C(1)
/* No view at all: what the event helper is shown in place of a removed file. */
#define ICM_NODE_GHOST UINT64_C(2)
#define ICM_NODE_MARKS UINT64_C(3)

/* Opened for reading, not created: the last close has nothing to publish. */
#define ICM_FH_READER UINT64_C(1)

/* Seconds; "for ever" in the kernel's jiffies on every machine. */
#define ICM_FOR_EVER 1e9

enum icm_lane {
	ICM_LANE_IO,	  /* what was tried in place and would wait */
	ICM_LANE_STORE,	  /* what writes to the store; locks */
	ICM_LANE_RELEASE, /* last closes */
	ICM_N_LANES,
};

struct icm_front {
	struct icm_volume *vol;
	struct icm_view *root;
	struct fuse_session *session; /* set before anything is served */
	bool local;		      /* icm_volume_is_local */

	/* Set before start. Lanes are separate because what is in one may wait for what is in a
	 * later one: an open for a last close, a lock for the pages of a file that is being read.
	 */
	struct icm_executor *lanes[ICM_N_LANES];
	struct icm_watch *watch;
	struct icm_known *known;
	struct icm_notifier *notifier;
	struct icm_events *events; /* NULL: no helper */
	atomic_int helper;	   /* thread id of the helper; 0: none */

	atomic_int in_place;	      /* operations on the store in worker threads */
	atomic_uint_fast64_t changes; /* counts notifications: see icm_reply_entry */

	/* Replies and notifications go out under the read side; the write side ends them before
	 * the device is closed, whose descriptor number would be another file's afterwards. */
	pthread_rwlock_t live_lock;
	bool live;

	/* Called once, when the kernel has accepted the mount. */
	void (*ready)(void *userdata);
	void *ready_userdata;
};

/* The volume is borrowed. */
struct icm_front *icm_front_new(struct icm_volume *vol);
/* Starts the threads, after a daemon's fork; 0 or a negative errno. */
int icm_front_start(struct icm_front *front) ICM_MUST_CHECK;
/* Ends what serves requests: afterwards nothing is in progress and nothing
 * goes to the kernel any more. The session may then be unmounted. */
void icm_front_stop(struct icm_front *front);
/* Takes NULL; returns NULL. After the volume has been stopped. */
struct icm_front *icm_front_free(struct icm_front *front);

/* For icm_volume_start; userdata is the front. */
extern const struct icm_notify icm_front_notify;

static inline uint64_t icm_view_node(const struct icm_front *front, const struct icm_view *view)
{
	return view == front->root ? FUSE_ROOT_ID : (uint64_t)(uintptr_t)view;
}

/* NULL for a ghost. */
static inline struct icm_view *icm_node_view(const struct icm_front *front, uint64_t node)
{
	if (node == FUSE_ROOT_ID)
		return front->root;
	if (node & ICM_NODE_GHOST)
		return NULL;
	return (struct icm_view *)(uintptr_t)(node & ~ICM_NODE_MARKS);
}

static inline bool icm_node_is_volatile(uint64_t node)
{
	return node != FUSE_ROOT_ID && (node & ICM_NODE_VOLATILE);
}

/* Requests of the event helper are answered without any effect. */
static inline bool icm_front_is_helper(struct icm_front *front, pid_t pid)
{
	return pid > 0 && pid == atomic_load_explicit(&front->helper, memory_order_relaxed);
}

static inline struct icm_handle *icm_fh_handle(uint64_t fh)
{
	return (struct icm_handle *)(uintptr_t)(fh & ~ICM_FH_READER);
}

#endif
