/* SPDX-License-Identifier: MIT
 * flock(2) and record locks. A lock that is not free is waited for by a parked
 * request, never by a thread. Every interrupt is answered: the waiter is taken
 * out of the queue and gets EINTR, unless it has got the lock in that moment,
 * in which case its call succeeds although a signal is pending. */
#include <sys/file.h>

#include "closing.h"
#include "fuse-ops.h"

/* Protects lock_wait and lock_done of parked lock requests, and that a wait
 * isn't cancelled any more once its end was reported. Held across
 * icm_fs_lock_cancel; the core reports the end of a wait without its locks. */
static pthread_mutex_t wait_lock = PTHREAD_MUTEX_INITIALIZER;

/* ---- a lock that came too late ---- */

static int undo_run(struct icm_req *r)
{
	(void)!icm_fs_lock(r->handle, &r->call, &r->lock, NULL, NULL, &r->lock_wait);
	return 0;
}

/* The caller was killed while the lock was being taken, and others may share
 * the open file. In another thread: it may wait for the store. */
static void undo(struct icm_req *r)
{
	pthread_rwlock_rdlock(&r->front->live_lock);
	if (r->front->live) {
		icm_req_ref(r);
		r->lock.type = F_UNLCK;
		r->lock.wait = false;
		r->run = undo_run;
		r->must_run = true;
		icm_req_submit(r, ICM_LANE_STORE);
	}
	pthread_rwlock_unlock(&r->front->live_lock);
}

static void finish(struct icm_req *r, int err)
{
	if (icm_req_claim(r)) {
		fuse_reply_err(r->req, icm_errno(err));
		icm_req_answered(r);
	} else if (!err && r->lock.type != F_UNLCK) {
		undo(r);
	}
}

/* ---- waiting ---- */

static void lock_done(void *userdata, int result)
{
	struct icm_req *r = userdata;

	pthread_mutex_lock(&wait_lock);
	r->lock_done = true;
	r->lock_wait = NULL;
	pthread_mutex_unlock(&wait_lock);
	finish(r, result);
	icm_req_unref(r);
}

static bool cancel(struct icm_req *r)
{
	bool cancelled = false;

	pthread_mutex_lock(&wait_lock);
	if (r->lock_wait) {
		cancelled = icm_fs_lock_cancel(r->front->vol, r->lock_wait);
		r->lock_wait = NULL;
	}
	pthread_mutex_unlock(&wait_lock);
	if (cancelled)
		icm_req_unref(r); /* lock_done won't be called */
	return cancelled;
}

/* The request waits in the core from now on; it may have been granted already. */
static void parked(struct icm_req *r, struct icm_lock_wait *wait)
{
	pthread_mutex_lock(&wait_lock);
	if (!r->lock_done)
		r->lock_wait = wait;
	pthread_mutex_unlock(&wait_lock);
	if (atomic_load(&r->claimed))
		cancel(r);
	else
		icm_watch_kick(r->front->watch);
}

static int lock_run(struct icm_req *r)
{
	struct icm_lock_wait *wait = NULL;
	int err;

	icm_req_ref(r); /* for lock_done */
	err = icm_fs_lock(r->handle, &r->call, &r->lock, lock_done, r, &wait);
	/* what is in the way may be the lock of a file that was closed before */
	if (err == -EAGAIN && icm_closing_wait(icm_view_ino(r->view)))
		err = icm_fs_lock(r->handle, &r->call, &r->lock, lock_done, r, &wait);
	if (err == -EINPROGRESS) {
		parked(r, wait);
	} else {
		finish(r, err);
		icm_req_unref(r);
	}
	return 0;
}

static void set_range(struct icm_lock_request *lock, const struct flock *lk)
{
	lock->type = lk->l_type;
	lock->start = (uint64_t)lk->l_start;
	lock->end = lk->l_len ? lock->start + (uint64_t)lk->l_len - 1 : UINT64_MAX >> 1;
	lock->pid = lk->l_pid;
}

static void start_lock(struct icm_req *r)
{
	r->lock.owner = r->fi.lock_owner;
	r->cancel = cancel;
	r->must_run = r->lock.type == F_UNLCK;
	icm_req_store(r, ICM_LANE_STORE);
}

void icm_op_setlk(fuse_req_t req, fuse_ino_t node, struct fuse_file_info *fi, struct flock *lk,
		  int sleep)
{
	struct icm_req r;

	if (!icm_req_init(&r, req, node, lock_run) || !icm_req_init_file(&r, fi))
		return;
	set_range(&r.lock, lk);
	r.lock.wait = sleep;
	start_lock(&r);
}

void icm_op_flock(fuse_req_t req, fuse_ino_t node, struct fuse_file_info *fi, int op)
{
	struct icm_req r;

	if (!icm_req_init(&r, req, node, lock_run) || !icm_req_init_file(&r, fi))
		return;
	r.lock = (struct icm_lock_request){
		.flock = true,
		.type = op & LOCK_UN   ? F_UNLCK
			: op & LOCK_EX ? F_WRLCK
				       : F_RDLCK,
		.end = UINT64_MAX >> 1,
		.pid = r.call.pid,
		.wait = !(op & LOCK_NB),
	};
	start_lock(&r);
}

static int getlk_run(struct icm_req *r)
{
	struct flock lk = { .l_type = F_UNLCK };
	int err = icm_fs_getlk(r->handle, &r->call, &r->lock, &lk);

	if (err == ICM_WOULD_WAIT)
		return err;
	if (err) {
		icm_reply_err(r, err);
	} else if (icm_req_claim(r)) {
		fuse_reply_lock(r->req, &lk);
		icm_req_answered(r);
	}
	return 0;
}

void icm_op_getlk(fuse_req_t req, fuse_ino_t node, struct fuse_file_info *fi, struct flock *lk)
{
	struct icm_req r;

	if (!icm_req_init(&r, req, node, getlk_run) || !icm_req_init_file(&r, fi))
		return;
	set_range(&r.lock, lk);
	r.lock.owner = fi->lock_owner;
	icm_req_store(&r, ICM_LANE_STORE);
}
