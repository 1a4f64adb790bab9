/* SPDX-License-Identifier: MIT
 * A FUSE request on its way through the core. Most are carried out in the
 * worker thread that read them, from a structure on its stack. One that would
 * wait is *parked*: copied to the heap with all it needs, and done by another
 * thread, while the worker goes on.
 *
 * A parked request is answered exactly once: by its operation, or with EINTR
 * when its caller is being killed. In the latter case the operation goes on
 * (or is left out if it has not begun), and what it made is undone. EINTR is
 * for the dying only: programs don't expect it from open(2) or stat(2).
 * Lock requests answer every interrupt (`cancel`). */
#ifndef ICM_REQUEST_H
#define ICM_REQUEST_H

#include "executor.h"
#include "front.h"

struct icm_req;

/* Does the operation and answers. ICM_WOULD_WAIT: nothing was done, and the
 * same function is to be called again in a thread that may wait. */
typedef int (*icm_req_fn)(struct icm_req *r);

struct icm_req {
	struct icm_front *front;
	fuse_req_t req;
	icm_req_fn run;
	struct icm_call call;
	uint64_t seen; /* front->changes when the request came */

	/* What it is about; each operation uses what it needs. */
	uint64_t node, to_node;
	struct icm_view *view, *to_view;
	struct icm_handle *handle, *to_handle;
	const char *name, *to_name; /* copies in a parked one */
	const void *data;	    /* copy in a parked one */
	size_t size;
	off_t off, to_off;
	mode_t mode;
	dev_t rdev;
	int flags;
	unsigned set;
	struct stat st;
	struct fuse_file_info fi;
	struct icm_lock_request lock;

	/* Parked requests only. */
	struct icm_task task;
	bool parked;
	bool must_run; /* also when its caller is gone: it ends locks */
	atomic_uint refs;
	atomic_bool claimed; /* somebody has answered or is about to */
	bool abandoned;	     /* answered with EINTR; set before the last reference goes */
	/* Takes a waiting request back; true: it won't be answered by its operation. */
	bool (*cancel)(struct icm_req *r);
	struct icm_lock_wait *lock_wait; /* protected by the lock of fuse-lock.c */
	bool lock_done;			 /* the same */
	bool watched;			 /* protected by the watch's lock */
	struct icm_req *watch_next, **watch_prev;
};

/* Fills a fresh request. False: it was answered already (no such node). */
bool icm_req_init(struct icm_req *r, fuse_req_t req, uint64_t node, icm_req_fn run);
/* Adds the second node; as above. */
bool icm_req_init_to(struct icm_req *r, uint64_t node);
/* Adds the open file of fi; as above. */
bool icm_req_init_file(struct icm_req *r, const struct fuse_file_info *fi);

/* Carries a request out that asks the store at most for reading: here if it
 * needn't wait, else parked. */
void icm_req_try(struct icm_req *r);
/* Carries a request out that may write to the store: in another thread, or
 * here where the store is a local file and not too many are doing that. */
void icm_req_store(struct icm_req *r, enum icm_lane lane);
/* Whether work on a local store may be done in this worker thread: true until
 * icm_in_place_end. */
bool icm_in_place_begin(struct icm_front *front);
void icm_in_place_end(struct icm_front *front);
/* Parks: the copy, with one reference. `r` must not be answered any more. */
struct icm_req *icm_req_park(const struct icm_req *r);
void icm_req_submit(struct icm_req *r, enum icm_lane lane);
void icm_req_ref(struct icm_req *r);
void icm_req_unref(struct icm_req *r);

/* True: the caller is the one to answer, by one fuse_reply_*(), followed by
 * icm_req_answered. False: it was answered; undo what was made for it. */
bool icm_req_claim(struct icm_req *r);
void icm_req_answered(struct icm_req *r);
/* Claims and answers. */
void icm_reply_err(struct icm_req *r, int err);
/* errno for the kernel of a result of the core. */
int icm_errno(int err);

/* A last close. `is_dir` as opened. Done here or, where a killed caller's
 * operation still uses the handle, at its end. */
void icm_release_handle(struct icm_handle *h, bool is_dir);

/* The thread that looks after interrupted requests. */
struct icm_watch *icm_watch_new(void);
int icm_watch_start(struct icm_watch *w) ICM_MUST_CHECK;
void icm_watch_stop(struct icm_watch *w);
struct icm_watch *icm_watch_free(struct icm_watch *w);
/* Have it look now: a request that was interrupted can be cancelled now. */
void icm_watch_kick(struct icm_watch *w);

#endif
