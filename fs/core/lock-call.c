/* SPDX-License-Identifier: MIT
 * Lock calls on shared files: what is stored before, what is seen after, and the
 * turn of the file's table in between. */
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>

#include "core/control.h"
#include "core/feed.h"
#include "core/introspect.h"
#include "core/key.h"
#include "core/lease.h"
#include "core/lock-local.h"
#include "util/clock.h"
#include "util/log.h"

#define LAST_BYTE (UINT64_MAX >> 1)

/* ---- what is seen ---- */

/* The handle reads the newest version from now on. Pages that a mapping has
 * changed come back first, while the view still is at the version that they are
 * based on. */
static void see_latest(struct icm_volume *vol, struct icm_file *f)
{
	struct icm_news news = { 0 };
	bool frozen;

	pthread_mutex_lock(&vol->lock);
	frozen = f->frozen;
	pthread_mutex_unlock(&vol->lock);
	if (frozen && vol->notify.inval_data) {
		vol->notify.inval_data(vol->notify_data, &f->view);
		vol->notify.drain(vol->notify_data, &f->view);
	}
	pthread_mutex_lock(&vol->lock);
	icm_file_thaw(vol, f, &news);
	pthread_mutex_unlock(&vol->lock);
	icm_news_tell(vol, &news);
	if (vol->notify.drain)
		vol->notify.drain(vol->notify_data, &f->view);
}

static bool has_seen(struct icm_volume *vol, uint64_t head)
{
	ICM_LOCK_SCOPE(&vol->lock);

	return !icm_volume_wants_resync(vol) && vol->position >= head;
}

/* A listing may come from a server that is behind the one that has the lock. */
static int see_feed(struct icm_volume *vol, uint64_t head)
{
	int64_t deadline = icm_now_ns() + (int64_t)vol->timeout_ms * ICM_NS_PER_MS;
	const struct timespec pause = { .tv_nsec = 5 * ICM_NS_PER_MS };

	for (unsigned tries = 0; !has_seen(vol, head); tries++) {
		int r;

		if (tries && icm_now_ns() >= deadline)
			return -ETIMEDOUT;
		if (tries)
			nanosleep(&pause, NULL);
		r = icm_feed_catch_up(vol);
		if (r < 0)
			return r;
	}
	return 0;
}

int icm_lock_see_all(struct icm_volume *vol, struct icm_file *f, uint64_t head)
{
	int r = see_feed(vol, head);

	if (r == 0 && f != vol->lock_file)
		see_latest(vol, f);
	return r;
}

/* ---- requests ---- */

static void read_command(struct icm_lock_entry *e)
{
	ICM_AUTOFREE char *path = icm_asprintf("/proc/%" PRIu64 "/comm", e->pid);
	ICM_AUTOFCLOSE FILE *f = e->pid ? fopen(path, "re") : NULL;

	if (!f || !fgets(e->command, sizeof(e->command), f))
		e->command[0] = '\0';
	e->command[strcspn(e->command, "\n")] = '\0';
}

static int make_entry(struct icm_handle *h, const struct icm_lock_request *req,
		      struct icm_lock_entry *e)
{
	if ((req->type != F_RDLCK && req->type != F_WRLCK && req->type != F_UNLCK) ||
	    (!req->flock && req->start > req->end))
		return -EINVAL;
	*e = (struct icm_lock_entry){
		.flock = req->flock,
		.type = req->type,
		.start = req->flock ? 0 : req->start,
		.end = req->flock || req->end > LAST_BYTE ? LAST_BYTE : req->end,
		.owner = req->flock ? h->serial : req->owner,
		.handle = h->serial,
		.pid = req->pid > 0 ? (uint64_t)req->pid : 0,
		.since = icm_wall_time(),
	};
	icm_random_id(e->id);
	return 0;
}

struct acquire {
	struct icm_lock_entry e;
	struct icm_shared_wait *wait; /* NULL: it doesn't */
};

static int refuse(struct icm_lock_turn *t, const struct icm_lock_entry *e)
{
	struct icm_lock_entry none = *e;

	none.type = F_UNLCK;
	/* As Linux does: two who hold a shared lock and try to convert it in a
	 * loop would never come to an end if a failed attempt kept it. */
	if (e->flock) {
		icm_lock_value_set(&t->work, &none);
		icm_lock_turn_serve(t);
	}
	return -EAGAIN;
}

static int queue_up(struct icm_lock_turn *t, const struct icm_lock_entry *e,
		    struct icm_shared_wait *w)
{
	struct icm_lock_entry *queued = icm_lock_value_queued(&t->work, e->id);
	struct icm_lock_entry none = *e;

	none.type = F_UNLCK;
	w->epoch = t->epoch;
	w->converts = false;
	for (size_t i = 0; i < t->work.holders.n && !e->flock; i++)
		w->converts =
			w->converts || (icm_lock_entries_same_owner(&t->work.holders.v[i], e) &&
					icm_lock_entries_overlap(&t->work.holders.v[i], e));
	if (queued)
		queued->paused = false;
	else
		icm_lock_value_enqueue(&t->work, e);
	if (e->flock) /* others may get what the conversion gives up */
		icm_lock_value_set(&t->work, &none);
	icm_lock_turn_serve(t);
	return icm_lock_value_queued(&t->work, e->id) ? -EINPROGRESS : 0;
}

static int acquire_change(struct icm_lock_turn *t, void *userdata)
{
	struct acquire *a = userdata;
	struct icm_lock_entry e = a->e;

	e.mount = (unsigned)t->me;
	if (!icm_lock_value_conflict(&t->work, &e, -1)) {
		icm_lock_value_unqueue(&t->work, e.id);
		icm_lock_value_set(&t->work, &e);
		icm_lock_turn_serve(t); /* it may have been a downgrade */
		return 0;
	}
	/* Of this mount's own locks it knows; others' may be gone. */
	if (!icm_lock_value_conflict(&t->work, &e, t->me)) {
		if (!t->fresh)
			return ICM_LOCK_READ;
		if (!a->wait && !t->asked)
			return ICM_LOCK_ASK;
	}
	return a->wait ? queue_up(t, &e, a->wait) : refuse(t, &e);
}

static int end_change(struct icm_lock_turn *t, void *userdata)
{
	struct icm_lock_entry e = *(const struct icm_lock_entry *)userdata;

	e.mount = (unsigned)t->me;
	icm_lock_value_set(&t->work, &e);
	icm_lock_turn_serve(t);
	return 0;
}

/* ---- this mount's locks, as it knows them ---- */

struct icm_inode *icm_lock_inode(struct icm_volume *vol, struct icm_file *f)
{
	struct icm_inode *winner;
	ICM_LOCK_SCOPE(&vol->lock);

	if (f->lock_ino && !f->lock_inode) {
		winner = icm_tree_inode(&vol->tree, f->lock_ino);
		if (winner)
			f->lock_inode = icm_inode_ref(winner);
		f->lock_ino = 0; /* decided once: it may be gone, and come back */
	}
	return icm_file_lock_inode(f);
}

static struct icm_lock_state *existing(struct icm_volume *vol, struct icm_file *f)
{
	ICM_LOCK_SCOPE(&vol->lock);

	return icm_file_lock_inode(f)->locks;
}

static bool has_in_range(struct icm_lock_state *st, const struct icm_lock_entry *e)
{
	struct icm_lock_entry own = *e;
	int me;
	ICM_LOCK_SCOPE(&st->vol->lock);

	me = icm_lock_state_me(st);
	own.mount = (unsigned)me;
	for (size_t i = 0; me >= 0 && i < st->value.holders.n; i++)
		if (icm_lock_entries_same_owner(&st->value.holders.v[i], &own) &&
		    icm_lock_entries_overlap(&st->value.holders.v[i], &own))
			return true;
	return false;
}

static bool downgrades(struct icm_lock_state *st, const struct icm_lock_entry *e)
{
	struct icm_lock_entry own = *e;
	int me;
	ICM_LOCK_SCOPE(&st->vol->lock);

	me = icm_lock_state_me(st);
	own.mount = (unsigned)me;
	return me >= 0 && icm_lock_value_downgrades(&st->value, &own);
}

bool icm_file_lock_is_lost(struct icm_volume *vol, struct icm_handle *h)
{
	uint64_t epoch = icm_file_handle_of(h)->lock_epoch;

	return epoch && epoch != vol->lock_epoch;
}

/* Handles of .icmfs/lock have no contents that could be wrong. */
static struct icm_file_handle *file_handle(struct icm_handle *h)
{
	return h->view->ops == &icm_shared_view_ops ? icm_file_handle_of(h) : NULL;
}

static bool handle_lost(struct icm_volume *vol, struct icm_handle *h)
{
	ICM_LOCK_SCOPE(&vol->lock);

	return file_handle(h) && icm_file_lock_is_lost(vol, h);
}

/* Which lease a handle's locks hang on; a parked request counts as a lock. False
 * when that one is over by now. */
static bool note_epoch(struct icm_volume *vol, struct icm_handle *h, uint64_t epoch)
{
	ICM_LOCK_SCOPE(&vol->lock);

	if (file_handle(h))
		file_handle(h)->lock_epoch = epoch;
	return epoch == vol->lock_epoch;
}

/* ---- lock and unlock ---- */

void icm_lock_undo(struct icm_lock_state *st, const struct icm_lock_entry *e)
{
	struct icm_lock_entry none = *e;
	struct icm_volume *vol = st->vol;

	none.type = F_UNLCK;
	pthread_mutex_lock(icm_lock_calls(vol, st->inode));
	if (icm_lock_turn(st, end_change, &none, NULL, NULL) < 0) {
		ICM_LOCK_SCOPE(&vol->lock);

		none.mount = (unsigned)icm_lock_state_me(st);
		icm_lock_value_set(&st->value, &none);
		icm_lock_state_count(st);
		icm_lock_state_owes(st);
	}
	pthread_mutex_unlock(icm_lock_calls(vol, st->inode));
}

/* Turns under a lease that was lost meanwhile are done again under the next one. */
static int acquire_turn(struct icm_lock_state *st, struct icm_handle *h, struct acquire *a,
			uint64_t *ret_epoch, uint64_t *ret_head)
{
	int64_t deadline = icm_now_ns() + (int64_t)st->vol->timeout_ms * ICM_NS_PER_MS;
	const struct timespec pause = { .tv_nsec = 20 * ICM_NS_PER_MS };

	for (;;) {
		int r;

		if (handle_lost(st->vol, h))
			return -EIO;
		r = icm_lock_turn(st, acquire_change, a, ret_epoch, ret_head);
		if (r != ICM_LOCK_LOST && r != -EHOSTUNREACH)
			return r;
		if (icm_now_ns() >= deadline)
			return r == ICM_LOCK_LOST ? -EIO : -ETIMEDOUT;
		nanosleep(&pause, NULL);
	}
}

/* The wait's list entry is kept for what waits and freed for all else. */
static int acquire(struct icm_lock_state *st, struct icm_file *f, struct icm_handle *h,
		   const struct icm_lock_entry *e, struct icm_shared_wait *w,
		   struct icm_lock_wait **ret_wait)
{
	struct icm_volume *vol = st->vol;
	struct acquire a = { .e = w ? w->entry : *e, .wait = w };
	bool converted = has_in_range(st, e);
	uint64_t epoch = 0, head = 0, token;
	int r = acquire_turn(st, h, &a, &epoch, &head);

	if (r == -EINPROGRESS)
		r = icm_shared_wait_deadlock(w, &head);
	if (r == ICM_LOCK_LOST)
		r = -EIO;
	if (r == -EINPROGRESS) {
		note_epoch(vol, h, epoch);
		if (icm_shared_wait_park(w, &token)) {
			*ret_wait = (struct icm_lock_wait *)(uintptr_t)token;
			return r;
		}
		r = -EIO;
	}
	if (w)
		icm_shared_wait_drop(w);
	if (r < 0 && r != -EAGAIN && r != -EDEADLK) {
		ICM_LOCK_SCOPE(&vol->lock);

		icm_lock_state_owes(st); /* it may stand in the store all the same */
	}
	if (r < 0)
		return r;
	if (!note_epoch(vol, h, epoch))
		return -EIO;
	pthread_mutex_unlock(icm_lock_calls(vol, st->inode));
	r = icm_lock_see_all(vol, f, head);
	if (r < 0 && !converted)
		icm_lock_undo(st, e);
	pthread_mutex_lock(icm_lock_calls(vol, st->inode));
	if (r == 0 && handle_lost(vol, h))
		r = -EIO;
	return r;
}

/* Something of this open file's is in the table as this mount knows it. */
static bool has_handle(struct icm_lock_state *st, uint64_t handle)
{
	int me;
	ICM_LOCK_SCOPE(&st->vol->lock);

	me = icm_lock_state_me(st);
	for (size_t i = 0; me >= 0 && i < st->value.holders.n; i++)
		if ((int)st->value.holders.v[i].mount == me &&
		    st->value.holders.v[i].handle == handle)
			return true;
	for (size_t i = 0; me >= 0 && i < st->value.queue.n; i++)
		if ((int)st->value.queue.v[i].mount == me && st->value.queue.v[i].handle == handle)
			return true;
	return false;
}

static int release(struct icm_lock_state *st, struct icm_handle *h, const struct icm_lock_entry *e)
{
	int r = 0;

	if (has_in_range(st, e))
		r = icm_lock_turn(st, end_change, (void *)e, NULL, NULL);
	if (r == ICM_LOCK_LOST)
		r = 0;
	if (r == 0 && !has_handle(st, h->serial))
		note_epoch(st->vol, h, 0);
	return r;
}

static bool is_unpublished(struct icm_volume *vol, struct icm_file *f)
{
	ICM_LOCK_SCOPE(&vol->lock);

	return !f->inode->published && f->inode->names;
}

/* Another mount's file has got the name. */
static bool has_yielded(struct icm_volume *vol, struct icm_file *f)
{
	return icm_lock_inode(vol, f) != f->inode;
}

static int lock_shared(struct icm_handle *h, struct icm_file *f, const struct icm_call *call,
		       const struct icm_lock_request *req, icm_lock_done_fn done, void *userdata,
		       struct icm_lock_wait **ret_wait)
{
	struct icm_volume *vol = h->view->vol;
	struct icm_lock_state *st = icm_lock_state_get(vol, icm_lock_inode(vol, f));
	struct icm_shared_wait *w = NULL;
	struct icm_lock_entry e;
	int r = make_entry(h, req, &e), l;

	if (r == 0 && vol->read_only && req->type != F_UNLCK)
		r = -ENOLCK;
	if (r < 0)
		return r;
	/* What was written under a lock is stored before the lock is released or weakened, and if
	 * it can't be, the lock stays (bytes that went to a conflict copy are stored). The first
	 * lock of a new file publishes it. */
	if (req->type == F_UNLCK || is_unpublished(vol, f) || downgrades(st, &e)) {
		r = icm_file_publish(vol, f, call->pid);
		if (r == -ESTALE && req->type != F_UNLCK && has_yielded(vol, f))
			r = 0;
		if (r < 0 && (r != -ESTALE || req->type != F_UNLCK))
			return r;
	}
	/* another mount's file may have got the name: its locks are meant, and who
	 * reads or writes through this handle is told ESTALE */
	st = icm_lock_state_get(vol, icm_lock_inode(vol, f));
	pthread_mutex_lock(icm_lock_calls(vol, st->inode));
	if (req->type == F_UNLCK) {
		l = release(st, h, &e);
	} else {
		read_command(&e);
		if (req->wait)
			w = icm_shared_wait_new(st, f, &e, done, userdata);
		l = acquire(st, f, h, &e, w, ret_wait);
	}
	pthread_mutex_unlock(icm_lock_calls(vol, st->inode));
	return l ? l : r;
}

/* The file whose table a handle's locks are in. .icmfs/lock is locked like any
 * file, under its own number. */
static struct icm_file *file_for_locks(struct icm_handle *h)
{
	if (h->view->ops == &icm_shared_view_ops)
		return icm_file_of(h->view);
	return h->view->ino == ICM_INO_LOCK_FILE ? h->view->vol->lock_file : NULL;
}

int icm_fs_lock(struct icm_handle *h, const struct icm_call *call,
		const struct icm_lock_request *req, icm_lock_done_fn done, void *userdata,
		struct icm_lock_wait **ret_wait)
{
	struct icm_file *f;

	if (h->view->ops == &icm_scratch_view_ops)
		return icm_scratch_lock(h, req, done, userdata, ret_wait);
	f = file_for_locks(h);
	return f ? lock_shared(h, f, call, req, done, userdata, ret_wait) : -ENOLCK;
}

/* ---- F_GETLK ---- */

static void set_flock(struct flock *lk, const struct icm_lock_entry *e, bool here)
{
	*lk = (struct flock){
		.l_type = (short)e->type,
		.l_whence = SEEK_SET,
		.l_start = (off_t)e->start,
		.l_len = e->end == LAST_BYTE ? 0 : (off_t)(e->end - e->start + 1),
		.l_pid = here ? (pid_t)e->pid : 0, /* a number of another host says nothing */
	};
}

static bool own_conflict(struct icm_lock_state *st, struct icm_lock_entry e, struct flock *lk)
{
	const struct icm_lock_entry *c;
	int me;
	ICM_LOCK_SCOPE(&st->vol->lock);

	me = icm_lock_state_me(st);
	if (me < 0)
		return false;
	e.mount = (unsigned)me;
	c = icm_lock_value_conflict(&st->value, &e, me);
	if (c)
		set_flock(lk, c, true);
	return c;
}

/* Locks of other mounts that live. */
static int foreign_conflict(struct icm_lock_state *st, struct icm_lock_entry e, struct flock *lk)
{
	struct icm_volume *vol = st->vol;
	ICM_CLEANUP(icm_lock_value_clear) struct icm_lock_value v = { 0 };
	ICM_AUTOFREE const char **dead = NULL;
	ICM_AUTOFREE char *lease = NULL;
	const struct icm_lock_entry *c;
	uint64_t index, head;
	size_t n;
	int r = icm_lock_read(vol, st->inode->attr.ino, &v, NULL, &index, &head);

	if (r == 0 && !vol->read_only)
		r = icm_lease_guard(vol, &lease, &index);
	if (r < 0)
		return r;
	if (lease)
		icm_lock_value_end_mount(&v, icm_lock_value_mount(&v, lease));
	e.mount = (unsigned)v.n_mounts; /* nobody's */
	if (!icm_lock_value_conflict(&v, &e, -1))
		return 0;
	if (lease) {
		r = icm_lock_find_dead(vol, &v, lease, &dead, &n);
		for (size_t i = 0; r == 0 && i < n; i++)
			icm_lock_value_end_mount(&v, icm_lock_value_mount(&v, dead[i]));
	}
	c = icm_lock_value_conflict(&v, &e, -1);
	if (r == 0 && c)
		set_flock(lk, c, false);
	return r;
}

int icm_fs_getlk(struct icm_handle *h, const struct icm_call *call,
		 const struct icm_lock_request *req, struct flock *lk)
{
	struct icm_volume *vol = h->view->vol;
	struct icm_file *f = file_for_locks(h);
	struct icm_lock_state *st;
	struct icm_lock_entry e;
	int r;

	(void)call;
	*lk = (struct flock){ .l_type = F_UNLCK };
	if (h->view->ops == &icm_scratch_view_ops)
		icm_scratch_getlk(h, req, lk);
	if (!f)
		return 0;
	r = make_entry(h, req, &e);
	if (r < 0)
		return r;
	st = icm_lock_state_get(vol, icm_lock_inode(vol, f));
	return own_conflict(st, e, lk) ? 0 : foreign_conflict(st, e, lk);
}

/* ---- ends of locks ---- */

bool icm_file_lock_has_owner(struct icm_volume *vol, struct icm_file *f, uint64_t owner)
{
	const struct icm_lock_entry e = { .owner = owner, .end = LAST_BYTE };
	struct icm_lock_state *st = existing(vol, f);

	return st && has_in_range(st, &e);
}

static int end_owner_change(struct icm_lock_turn *t, void *userdata)
{
	if (icm_lock_value_end_owner(&t->work, t->me, *(const uint64_t *)userdata))
		icm_lock_turn_serve(t);
	return 0;
}

static int end_handle_change(struct icm_lock_turn *t, void *userdata)
{
	if (icm_lock_value_end_handle(&t->work, t->me, *(const uint64_t *)userdata))
		icm_lock_turn_serve(t);
	return 0;
}

void icm_file_lock_flush(struct icm_volume *vol, struct icm_file *f, uint64_t owner)
{
	struct icm_lock_state *st = existing(vol, f);

	if (!st)
		return;
	pthread_mutex_lock(icm_lock_calls(vol, st->inode));
	if (icm_file_lock_has_owner(vol, f, owner) &&
	    icm_lock_turn(st, end_owner_change, &owner, NULL, NULL) < 0) {
		ICM_LOCK_SCOPE(&vol->lock);

		icm_lock_value_end_owner(&st->value, icm_lock_state_me(st), owner);
		icm_lock_state_count(st);
		icm_lock_state_owes(st);
	}
	pthread_mutex_unlock(icm_lock_calls(vol, st->inode));
}

void icm_file_lock_release(struct icm_volume *vol, struct icm_file *f, struct icm_handle *h)
{
	struct icm_lock_state *st = existing(vol, f);

	if (!st)
		return;
	icm_shared_waits_fail(st, &h->serial, -EBADF);
	pthread_mutex_lock(icm_lock_calls(vol, st->inode));
	if (has_handle(st, h->serial) &&
	    icm_lock_turn(st, end_handle_change, &h->serial, NULL, NULL) < 0) {
		ICM_LOCK_SCOPE(&vol->lock);

		icm_lock_value_end_handle(&st->value, icm_lock_state_me(st), h->serial);
		icm_lock_state_count(st);
		icm_lock_state_owes(st);
	}
	pthread_mutex_unlock(icm_lock_calls(vol, st->inode));
}

void icm_volume_control_flush(struct icm_volume *vol, struct icm_handle *h, uint64_t owner)
{
	(void)h;
	icm_file_lock_flush(vol, vol->lock_file, owner);
}

void icm_volume_control_release(struct icm_volume *vol, struct icm_handle *h)
{
	icm_file_lock_release(vol, vol->lock_file, h);
}

/* ---- all locks ---- */

/* What was written under the locks isn't published any more: new openers get the
 * version that is stored. */
static void give_up_dirty_locked(struct icm_inode *inode, struct icm_news *news)
{
	for (struct icm_file *f = inode->views; f; f = f->next)
		f->lost = f->lost || f->dirty;
	for (struct icm_name *name = inode->names; name; name = name->alias)
		icm_news_name(news, name->dir, name->text);
}

static void lose(struct icm_lock_state *st, struct icm_news *news)
{
	if (st->n_held)
		give_up_dirty_locked(st->inode, news);
	icm_lock_value_clear(&st->value);
	st->index = 0;
	free(ICM_STEAL(&st->lease));
	st->n_held = 0;
	st->foreign = st->debt = false;
	st->stale = true;
	if (st->pinned)
		icm_shared_locks_kick(st);
}

/* A state with waiters, its inode referenced; NULL: none. */
static struct icm_lock_state *next_waiting(struct icm_volume *vol)
{
	ICM_LOCK_SCOPE(&vol->lock);

	for (struct icm_lock_state *st = vol->locks->states; st; st = st->next)
		for (const struct icm_shared_wait *w = st->waits; w; w = w->next)
			if (w->how != ICM_WAIT_FRESH && w->epoch != vol->lock_epoch) {
				icm_inode_ref(st->inode);
				return st;
			}
	return NULL;
}

void icm_locks_lost(struct icm_volume *vol)
{
	struct icm_news news = { 0 };
	struct icm_lock_state *st;

	pthread_mutex_lock(&vol->lock);
	vol->lock_epoch++;
	for (st = vol->locks->states; st; st = st->next)
		lose(st, &news);
	pthread_mutex_unlock(&vol->lock);
	icm_news_tell(vol, &news);
	while ((st = next_waiting(vol))) {
		struct icm_inode *inode = st->inode;

		icm_shared_waits_fail(st, NULL, -EIO);
		pthread_mutex_lock(&vol->lock);
		icm_inode_unref(&vol->tree, inode);
		pthread_mutex_unlock(&vol->lock);
	}
}

/* ---- listing ---- */

struct lister {
	struct icm_volume *vol;
	icm_volume_lock_fn fn;
	void *userdata;
	char *lease; /* own; may be NULL */
};

static void list_entries(const struct lister *l, uint64_t ino, const char *path,
			 const struct icm_lock_value *v, const struct icm_lock_entries *list,
			 bool waiting)
{
	for (size_t i = 0; i < list->n; i++) {
		const struct icm_lock_entry *e = &list->v[i];
		const struct icm_lock_mount *m = &v->mounts[e->mount];
		bool own = l->lease && strcmp(m->lease, l->lease) == 0;
		struct icm_volume_lock lock = {
			.path = path,
			.ino = ino,
			.host = own ? NULL : m->host,
			.user = own ? NULL : m->user,
			.command = e->command,
			.info = { .flock = e->flock,
				  .waiting = waiting,
				  .type = e->type,
				  .start = e->start,
				  .end = e->end,
				  .pid = (pid_t)e->pid,
				  .since = e->since },
		};

		if (!e->paused)
			l->fn(l->userdata, &lock);
	}
}

static void list_table(const struct lister *l, uint64_t ino, const struct icm_lock_value *v)
{
	ICM_AUTOFREE char *path = NULL;
	struct icm_inode *inode;

	pthread_mutex_lock(&l->vol->lock);
	inode = icm_tree_inode(&l->vol->tree, ino);
	path = ino == ICM_INO_LOCK_FILE ? icm_xstrdup(ICM_CONTROL_NAME "/lock")
	       : inode			? icm_inode_path(inode)
					: NULL;
	pthread_mutex_unlock(&l->vol->lock);
	list_entries(l, ino, path, v, &v->holders, false);
	list_entries(l, ino, path, v, &v->queue, true);
}

/* Tables that are to be listed. */
struct tables {
	struct table {
		uint64_t ino;
		struct icm_lock_value value;
	} * v; /* owned */
	size_t n;
};

static struct icm_lock_value *add_table(struct tables *t, uint64_t ino)
{
	t->v = icm_xrealloc(t->v, (t->n + 1) * sizeof(*t->v));
	t->v[t->n] = (struct table){ .ino = ino };
	return &t->v[t->n++].value;
}

static void tables_clear(struct tables *t)
{
	for (size_t i = 0; i < t->n; i++)
		icm_lock_value_clear(&t->v[i].value);
	free(t->v);
	*t = (struct tables){ 0 };
}

#define LIST_NS (2 * ICM_NS_PER_S)

/* What all mounts have, from the store, without the dead. */
static int get_stored(const struct lister *l, struct tables *t)
{
	struct icm_ctx ctx = { .deadline_ns = icm_now_ns() + LIST_NS };
	ICM_AUTOENTRIES struct icm_entries keys = { 0 };
	uint64_t index, ino;
	int r = icm_backend_list(l->vol->be, &ctx, "lock/", false, &keys, &index);

	for (size_t i = 0; r == 0 && i < keys.n; i++) {
		ICM_AUTOFREE const char **dead = NULL;
		struct icm_lock_value *v;
		size_t n = 0;

		if (icm_key_parse_ino(keys.v[i].key, "lock/", &ino) < 0)
			continue;
		v = add_table(t, ino);
		if (icm_lock_value_decode(keys.v[i].value, keys.v[i].len, v) < 0 || !l->lease)
			continue;
		r = icm_lock_find_dead(l->vol, v, l->lease, &dead, &n);
		for (size_t d = 0; r == 0 && d < n; d++)
			icm_lock_value_end_mount(v, icm_lock_value_mount(v, dead[d]));
	}
	return r;
}

/* What this mount has, without asking. */
static void get_known(const struct lister *l, struct tables *t)
{
	ICM_LOCK_SCOPE(&l->vol->lock);

	for (const struct icm_lock_state *st = l->vol->locks->states; st; st = st->next)
		if (st->n_held || st->waits)
			icm_lock_value_copy(add_table(t, st->inode->attr.ino), &st->value);
}

void icm_volume_list_locks(struct icm_volume *vol, bool ask, icm_volume_lock_fn fn, void *userdata)
{
	ICM_CLEANUP(tables_clear) struct tables t = { 0 };
	ICM_AUTOFREE char *lease = NULL;
	struct lister l = { .vol = vol, .fn = fn, .userdata = userdata };
	uint64_t index;

	if (icm_lease_guard(vol, &lease, &index) == 0)
		l.lease = lease;
	if (!ask || get_stored(&l, &t) < 0) {
		tables_clear(&t);
		get_known(&l, &t);
	}
	for (size_t i = 0; i < t.n; i++)
		list_table(&l, t.v[i].ino, &t.v[i].value);
}
