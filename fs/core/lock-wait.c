/* SPDX-License-Identifier: MIT
 * Waiting for locks. Nobody waits in a call: a request stands in the queue in the
 * store, and here in its file's list. Whoever changes the table grants what has
 * become free, so a waiter is granted
 * - by a turn of this mount, or
 * - by another mount, which the watcher is woken by: one blocking query for all
 *   locks and leases, only while there is somebody to wait for.
 * The worker looks at tables after a wake-up, takes dead mounts out of them, tells
 * who was granted, and gives back what could not be given back before. */
#include <fcntl.h>
#include <string.h>

#include "core/feed.h"
#include "core/key.h"
#include "core/lease.h"
#include "core/lock-local.h"
#include "util/clock.h"
#include "util/log.h"

#define KEEP_PLACE_NS (2 * ICM_NS_PER_S)
#define RETRY_NS      (200 * ICM_NS_PER_MS)
#define DAMAGED_NS    (10 * ICM_NS_PER_S)
/* Where leases last as long as their processes, nothing tells of a dead one. */
#define LOOK_NS	 (500 * ICM_NS_PER_MS)
#define WATCH_NS (10 * ICM_NS_PER_S)

/* "lease/" and "lock/" by one query; that "log/" is in it as well does no harm. */
#define WATCHED "l"

/* Tokens of the lock tables inside the mount (scratch files) are small numbers. */
#define TOKEN_BIT (UINT64_C(1) << 63)

/* ---- the lists ---- */

static void unlink_wait(struct icm_shared_wait *w)
{
	struct icm_shared_wait **at = &w->state->waits;

	while (*at != w)
		at = &(*at)->next;
	*at = w->next;
	w->next = NULL;
	w->state = NULL;
}

static void free_wait(struct icm_shared_wait *w)
{
	icm_fs_forget(&w->file->view, 1);
	free(w);
}

static struct icm_shared_wait *find_place(struct icm_lock_state *st, const struct icm_lock_entry *e)
{
	for (struct icm_shared_wait *w = st->waits; w; w = w->next)
		if (w->how == ICM_WAIT_PLACE && w->entry.flock == e->flock &&
		    w->entry.owner == e->owner && w->entry.handle == e->handle &&
		    w->entry.start == e->start && w->entry.end == e->end &&
		    w->entry.type == e->type)
			return w;
	return NULL;
}

struct icm_shared_wait *icm_shared_wait_new(struct icm_lock_state *st, struct icm_file *f,
					    const struct icm_lock_entry *e, icm_lock_done_fn done,
					    void *userdata)
{
	struct icm_shared_wait **at = &st->waits;
	struct icm_shared_wait *w;
	ICM_LOCK_SCOPE(&st->vol->lock);

	w = find_place(st, e);
	if (!w) {
		w = icm_xcalloc(1, sizeof(*w));
		if (!icm_view_tryref(&f->view)) {
			free(w);
			return NULL; /* can't be: an open file references it */
		}
		w->file = f;
		w->entry = *e;
		w->state = st;
		while (*at)
			at = &(*at)->next;
		*at = w;
	} else {
		st->stale = true; /* its entry may be marked as a place */
	}
	w->how = ICM_WAIT_FRESH;
	w->token = ++st->vol->locks->last_token | TOKEN_BIT;
	w->epoch = st->vol->lock_epoch;
	w->done = done;
	w->userdata = userdata;
	return w;
}

void icm_shared_wait_drop(struct icm_shared_wait *w)
{
	struct icm_volume *vol = w->file->view.vol;

	pthread_mutex_lock(&vol->lock);
	if (w->state)
		unlink_wait(w);
	pthread_mutex_unlock(&vol->lock);
	free_wait(w);
}

static bool has_waits(const struct icm_lock_state *st)
{
	for (const struct icm_shared_wait *w = st->waits; w; w = w->next)
		if (w->how != ICM_WAIT_FRESH)
			return true;
	return false;
}

static bool waits_for_others(const struct icm_lock_state *st)
{
	return st->foreign && has_waits(st);
}

static void due_by(struct icm_lock_state *st, int64_t when_ns)
{
	if (st->due_ns && st->due_ns <= when_ns)
		return;
	st->due_ns = when_ns;
	pthread_cond_signal(&st->vol->locks->work);
}

void icm_shared_locks_kick(struct icm_lock_state *st)
{
	due_by(st, icm_now_ns());
}

void icm_shared_locks_plan(struct icm_lock_state *st)
{
	for (const struct icm_shared_wait *w = st->waits; w; w = w->next)
		if (w->how == ICM_WAIT_PLACE)
			due_by(st, w->until_ns);
	if (st->debt)
		due_by(st, icm_now_ns() + RETRY_NS);
	if (!waits_for_others(st))
		return;
	if (!st->vol->be->facts.lease_renewal)
		due_by(st, icm_now_ns() + LOOK_NS);
	pthread_cond_signal(&st->vol->locks->watch);
}

bool icm_shared_wait_park(struct icm_shared_wait *w, uint64_t *ret_token)
{
	struct icm_lock_state *st = w->state;
	struct icm_lock_entry *queued;
	ICM_LOCK_SCOPE(&st->vol->lock);

	if (st->vol->lock_epoch != w->epoch)
		return false;
	*ret_token = w->token;
	w->how = ICM_WAIT_PARKED;
	queued = icm_lock_value_queued(&st->value, w->entry.id);
	if (queued && icm_lock_value_foreign_ahead(&st->value, queued))
		icm_shared_locks_kick(st); /* they may be dead */
	icm_shared_locks_plan(st);
	return true;
}

/* To be told by the worker; without `done`: only to be freed. */
static void finish(struct icm_shared_wait *w, int result)
{
	struct icm_shared_locks *l = w->state->vol->locks;

	unlink_wait(w);
	w->result = result;
	*l->last_granted = w;
	l->last_granted = &w->next;
	pthread_cond_signal(&l->work);
}

/* Granted while its caller was interrupted. */
static void give_back(struct icm_lock_state *st, struct icm_lock_entry e)
{
	e.type = F_UNLCK;
	icm_lock_value_set(&st->value, &e);
	icm_lock_state_count(st);
	icm_lock_state_owes(st);
}

void icm_shared_waits_granted(struct icm_lock_state *st, uint64_t head)
{
	struct icm_shared_wait *next;

	for (struct icm_shared_wait *w = st->waits; w; w = next) {
		struct icm_lock_entry e = w->entry;
		int me = icm_lock_state_me(st);
		bool has;

		next = w->next;
		if (w->how == ICM_WAIT_FRESH || icm_lock_value_queued(&st->value, e.id))
			continue;
		e.mount = (unsigned)me;
		has = me >= 0 && icm_lock_value_covers(&st->value, &e);
		w->head = head;
		if (w->how == ICM_WAIT_PLACE && has && !w->converts)
			give_back(st, e);
		finish(w, has ? 0 : -EIO);
	}
}

void icm_shared_waits_fail(struct icm_lock_state *st, const uint64_t *handle, int error)
{
	struct icm_shared_wait *next, *failed = NULL;

	pthread_mutex_lock(&st->vol->lock);
	for (struct icm_shared_wait *w = st->waits; w; w = next) {
		next = w->next;
		if (w->how == ICM_WAIT_FRESH || (handle && w->entry.handle != *handle))
			continue;
		unlink_wait(w);
		w->next = failed;
		failed = w;
	}
	pthread_mutex_unlock(&st->vol->lock);
	while (failed) {
		struct icm_shared_wait *w = failed;

		failed = w->next;
		if (w->how == ICM_WAIT_PARKED)
			w->done(w->userdata, error);
		free_wait(w);
	}
}

/* ---- interrupts ---- */

static bool cancel_shared(struct icm_volume *vol, uint64_t token)
{
	ICM_LOCK_SCOPE(&vol->lock);

	for (struct icm_lock_state *st = vol->locks->states; st; st = st->next)
		for (struct icm_shared_wait *w = st->waits; w; w = w->next) {
			if (w->token != token || w->how != ICM_WAIT_PARKED)
				continue;
			w->how = ICM_WAIT_PLACE;
			w->until_ns = icm_now_ns() + KEEP_PLACE_NS;
			st->stale = true; /* the store doesn't know that it is a place */
			icm_shared_locks_kick(st);
			return true;
		}
	return false;
}

bool icm_fs_lock_cancel(struct icm_volume *vol, struct icm_lock_wait *wait)
{
	uint64_t token = (uintptr_t)wait;

	return token & TOKEN_BIT ? cancel_shared(vol, token) : icm_lock_cancel(vol->lock_set, wait);
}

/* ---- circles ---- */

/* The tables in which somebody of this mount waits, that of `first` in front. */
struct view {
	struct icm_lock_value *v;	     /* owned */
	const struct icm_lock_value **order; /* owned */
	uint64_t *inos;			     /* owned */
	size_t n;
};

static void view_clear(struct view *view)
{
	for (size_t i = 0; i < view->n; i++)
		icm_lock_value_clear(&view->v[i]);
	free(view->v);
	free(view->order);
	free(view->inos);
}

/* Their values as they are known here, and their numbers; volume->lock held. */
static void known_view(struct icm_lock_state *first, struct view *ret)
{
	struct icm_shared_locks *l = first->vol->locks;
	size_t max = 1;

	for (const struct icm_lock_state *st = l->states; st; st = st->next)
		max += st->waits != NULL;
	ret->v = icm_xcalloc(max, sizeof(*ret->v));
	ret->order = icm_xcalloc(max, sizeof(struct icm_lock_value *));
	ret->inos = icm_xcalloc(max, sizeof(*ret->inos));
	ret->n = 1;
	icm_lock_value_copy(&ret->v[0], &first->value);
	ret->inos[0] = first->inode->attr.ino;
	for (const struct icm_lock_state *st = l->states; st; st = st->next) {
		if (!st->waits || st == first)
			continue;
		icm_lock_value_copy(&ret->v[ret->n], &st->value);
		ret->inos[ret->n++] = st->inode->attr.ino;
	}
	for (size_t i = 0; i < ret->n; i++)
		ret->order[i] = &ret->v[i];
}

static bool waits_here(struct icm_volume *vol, const char *id)
{
	for (const struct icm_lock_state *st = vol->locks->states; st; st = st->next)
		for (const struct icm_shared_wait *w = st->waits; w; w = w->next)
			if (w->how != ICM_WAIT_PLACE && strcmp(w->entry.id, id) == 0)
				return true;
	return false;
}

/* Entries of the dead, and of this mount those that nobody waits in, don't count. */
static int drop_void(struct icm_volume *vol, struct icm_lock_value *v, const char *lease)
{
	ICM_AUTOFREE const char **dead = NULL;
	size_t n;
	int me, r = icm_lock_find_dead(vol, v, lease, &dead, &n);
	ICM_LOCK_SCOPE(&vol->lock);

	for (size_t i = 0; r == 0 && i < n; i++)
		icm_lock_value_end_mount(v, icm_lock_value_mount(v, dead[i]));
	me = icm_lock_value_mount(v, lease);
	for (size_t i = 0; i < v->queue.n; i++)
		if ((int)v->queue.v[i].mount == me && !waits_here(vol, v->queue.v[i].id))
			v->queue.v[i].paused = true;
	return r;
}

/* The same tables as the store has them, all at one moment. */
static int store_view(struct icm_volume *vol, struct view *view, const char *lease)
{
	struct icm_ctx ctx = icm_volume_ctx(vol);
	ICM_AUTORESULT struct icm_txn_result res = { 0 };
	size_t max = vol->be->facts.max_txn_ops;
	struct icm_op *ops = icm_xcalloc(view->n, sizeof(*ops));
	size_t n = max && view->n > max ? max : view->n;
	int r;

	ctx.consistent = true;
	for (size_t i = 0; i < n; i++)
		ops[i] = (struct icm_op){ ICM_OP_GET_TREE, .key = icm_key_lock(view->inos[i]) };
	r = icm_backend_txn(vol->be, &ctx, ops, n, &res);
	for (size_t i = 0; i < view->n; i++)
		icm_lock_value_clear(&view->v[i]);
	for (size_t i = 0; r == 0 && i < res.entries.n; i++) {
		const struct icm_entry *e = &res.entries.v[i];

		if (strcmp(e->key, ops[e->op].key) == 0)
			r = icm_lock_value_decode(e->value, e->len, &view->v[e->op]);
	}
	for (size_t i = 0; i < n; i++)
		free((char *)ops[i].key);
	free(ops);
	for (size_t i = 0; r == 0 && i < n; i++)
		r = drop_void(vol, &view->v[i], lease);
	return r;
}

static bool is_circle(const struct view *view, const char *id, bool with_queue)
{
	const struct icm_lock_tables tables = { .v = view->order, .n = view->n };
	const struct icm_lock_entry *e = icm_lock_value_queued(&view->v[0], id);

	return e && icm_lock_waits_for_itself(&tables, e, with_queue);
}

static int leave_change(struct icm_lock_turn *t, void *userdata)
{
	const struct icm_shared_wait *w = userdata;

	if (!t->fresh)
		return ICM_LOCK_READ;
	if (!icm_lock_value_queued(&t->work, w->entry.id))
		return 0;
	icm_lock_value_unqueue(&t->work, w->entry.id);
	icm_lock_turn_serve(t);
	return -EDEADLK;
}

/* What is known here may be old: only a view of the store counts. */
static int leave_circle(struct icm_shared_wait *w, struct view *view, uint64_t *ret_head)
{
	struct icm_lock_state *st = w->state;
	ICM_AUTOFREE char *lease = NULL;
	uint64_t index;
	ICM_LOCK_SCOPE(&st->vol->locks->deadlock);

	if (icm_lease_guard(st->vol, &lease, &index) < 0 || store_view(st->vol, view, lease) < 0 ||
	    !is_circle(view, w->entry.id, false))
		return -EINPROGRESS;
	return icm_lock_turn(st, leave_change, w, NULL, ret_head);
}

int icm_shared_wait_deadlock(struct icm_shared_wait *w, uint64_t *ret_head)
{
	struct icm_volume *vol = w->state->vol;
	ICM_CLEANUP(view_clear) struct view view = { 0 };

	if (w->entry.flock)
		return -EINPROGRESS;
	pthread_mutex_lock(&vol->lock);
	known_view(w->state, &view);
	if (!is_circle(&view, w->entry.id, false)) {
		/* one with a link "queues behind" is broken by letting someone pass */
		if (is_circle(&view, w->entry.id, true))
			for (struct icm_lock_state *st = vol->locks->states; st; st = st->next)
				if (st->waits)
					icm_shared_locks_kick(st);
		pthread_mutex_unlock(&vol->lock);
		return -EINPROGRESS;
	}
	pthread_mutex_unlock(&vol->lock);
	return leave_circle(w, &view, ret_head);
}

/* ---- the worker ---- */

struct look {
	bool again;
};

static int look_change(struct icm_lock_turn *t, void *userdata)
{
	struct look *look = userdata;
	bool others = false, granted = false;

	if (!t->fresh)
		return ICM_LOCK_READ;
	icm_lock_turn_serve(t);
	for (const struct icm_shared_wait *w = t->st->waits; w; w = w->next) {
		const struct icm_lock_entry *e = icm_lock_value_queued(&t->work, w->entry.id);

		if (w->how != ICM_WAIT_PARKED)
			continue;
		granted = granted || !e;
		others = others || (e && icm_lock_value_foreign_ahead(&t->work, e));
	}
	/* who was granted is told first */
	look->again = others && granted && !t->asked;
	return others && !granted && !t->asked ? ICM_LOCK_ASK : 0;
}

static bool wants_look(struct icm_lock_state *st)
{
	ICM_LOCK_SCOPE(&st->vol->lock);

	return st->waits || st->debt;
}

/* The inode is referenced by the caller. */
static void look_at(struct icm_lock_state *st)
{
	struct icm_volume *vol = st->vol;
	struct look look = { 0 };
	int r = 0;

	if (wants_look(st)) {
		pthread_mutex_lock(icm_lock_calls(vol, st->inode));
		r = icm_lock_turn(st, look_change, &look, NULL, NULL);
		pthread_mutex_unlock(icm_lock_calls(vol, st->inode));
	}
	if (r == -ENOLCK) /* the table is damaged: there is nothing to wait for */
		icm_shared_waits_fail(st, NULL, r);
	pthread_mutex_lock(&vol->lock);
	if (r != 0 && (st->waits || st->debt))
		due_by(st, icm_now_ns() + (r == -ENOLCK ? DAMAGED_NS : RETRY_NS));
	else if (look.again)
		icm_shared_locks_kick(st);
	if (st->pinned && !st->debt) {
		st->pinned = false;
		icm_inode_unref(&vol->tree, st->inode);
	}
	pthread_mutex_unlock(&vol->lock);
}

/* Reports the end of a wait; volume->lock not held. */
static void tell(struct icm_volume *vol, struct icm_shared_wait *w)
{
	int r = w->result;
	bool lost;

	if (w->how == ICM_WAIT_PLACE) {
		free_wait(w);
		return;
	}
	if (r == 0)
		r = icm_lock_see_all(vol, w->file, w->head);
	pthread_mutex_lock(&vol->lock);
	lost = vol->lock_epoch != w->epoch;
	pthread_mutex_unlock(&vol->lock);
	if (r < 0 && w->result == 0 && !lost && !w->converts)
		icm_lock_undo(icm_lock_state_get(vol, icm_lock_inode(vol, w->file)), &w->entry);
	w->done(w->userdata, lost ? -EIO : r);
	free_wait(w);
}

static struct icm_shared_wait *next_granted(struct icm_shared_locks *l)
{
	struct icm_shared_wait *w = l->granted;

	if (!w)
		return NULL;
	l->granted = w->next;
	if (!l->granted)
		l->last_granted = &l->granted;
	return w;
}

static struct icm_lock_state *first_due(struct icm_shared_locks *l)
{
	struct icm_lock_state *first = NULL;

	for (struct icm_lock_state *st = l->states; st; st = st->next)
		if (st->due_ns && (!first || st->due_ns < first->due_ns))
			first = st;
	return first;
}

static void *work_thread(void *arg)
{
	struct icm_volume *vol = arg;
	struct icm_shared_locks *l = vol->locks;

	pthread_mutex_lock(&vol->lock);
	while (!atomic_load(&l->stopping)) {
		struct icm_shared_wait *w = next_granted(l);
		struct icm_lock_state *st = first_due(l);

		if (w) {
			pthread_mutex_unlock(&vol->lock);
			tell(vol, w);
			pthread_mutex_lock(&vol->lock);
		} else if (st && st->due_ns <= icm_now_ns()) {
			struct icm_inode *inode = icm_inode_ref(st->inode);

			st->due_ns = 0;
			pthread_mutex_unlock(&vol->lock);
			look_at(st);
			pthread_mutex_lock(&vol->lock);
			icm_inode_unref(&vol->tree, inode);
		} else if (st) {
			struct timespec until = icm_ns_to_timespec(st->due_ns);

			pthread_cond_timedwait(&l->work, &vol->lock, &until);
		} else {
			pthread_cond_wait(&l->work, &vol->lock);
		}
	}
	pthread_mutex_unlock(&vol->lock);
	return NULL;
}

/* ---- the watcher ---- */

static bool anybody_waits(struct icm_shared_locks *l)
{
	for (const struct icm_lock_state *st = l->states; st; st = st->next)
		if (waits_for_others(st))
			return true;
	return false;
}

static void kick_waiting(struct icm_volume *vol)
{
	ICM_LOCK_SCOPE(&vol->lock);

	for (struct icm_lock_state *st = vol->locks->states; st; st = st->next)
		if (waits_for_others(st))
			icm_shared_locks_kick(st);
}

/* Sleeps until somebody waits; false at the end. */
static bool wait_for_waiters(struct icm_volume *vol, bool *ret_slept)
{
	struct icm_shared_locks *l = vol->locks;
	ICM_LOCK_SCOPE(&vol->lock);

	*ret_slept = false;
	while (!atomic_load(&l->stopping) && !anybody_waits(l)) {
		*ret_slept = true;
		pthread_cond_wait(&l->watch, &vol->lock);
	}
	return !atomic_load(&l->stopping);
}

static void *watch_thread(void *arg)
{
	struct icm_volume *vol = arg;
	bool known = false, slept;
	uint64_t since = 0;

	while (wait_for_waiters(vol, &slept)) {
		struct icm_ctx ctx = { .cancel = &vol->locks->stopping,
				       .deadline_ns = icm_now_ns() + WATCH_NS };
		int r;

		if (!known || slept) {
			/* the tables are looked at after the index from which is watched */
			struct icm_ctx now = icm_volume_ctx(vol);

			r = icm_backend_index(vol->be, &now, WATCHED, &since);
		} else {
			r = icm_backend_watch(vol->be, &ctx, WATCHED, since, &since);
		}
		if (r == -ETIMEDOUT && known)
			continue;
		known = r == 0;
		if (r == 0)
			kick_waiting(vol);
		else if (!atomic_load(&vol->locks->stopping))
			icm_feed_pause();
	}
	return NULL;
}

/* ---- life ---- */

struct icm_shared_locks *icm_shared_locks_new(void)
{
	struct icm_shared_locks *l = icm_xcalloc(1, sizeof(*l));
	pthread_condattr_t attr;

	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&l->work, &attr);
	pthread_condattr_destroy(&attr);
	pthread_cond_init(&l->watch, NULL);
	pthread_mutex_init(&l->deadlock, NULL);
	l->last_granted = &l->granted;
	return l;
}

struct icm_shared_locks *icm_shared_locks_free(struct icm_shared_locks *l)
{
	if (!l)
		return NULL;
	pthread_mutex_destroy(&l->deadlock);
	pthread_cond_destroy(&l->watch);
	pthread_cond_destroy(&l->work);
	free(l);
	return NULL;
}

int icm_shared_locks_start(struct icm_volume *vol)
{
	struct icm_shared_locks *l = vol->locks;
	int r;

	if (vol->read_only)
		return 0;
	r = pthread_create(&l->worker, NULL, work_thread, vol);
	if (r)
		return -r;
	r = pthread_create(&l->watcher, NULL, watch_thread, vol);
	if (r) {
		atomic_store(&l->stopping, true);
		pthread_mutex_lock(&vol->lock);
		pthread_cond_signal(&l->work);
		pthread_mutex_unlock(&vol->lock);
		pthread_join(l->worker, NULL);
		return -r;
	}
	l->started = true;
	return 0;
}

static void join_threads(struct icm_volume *vol)
{
	struct icm_shared_locks *l = vol->locks;

	pthread_mutex_lock(&vol->lock);
	atomic_store(&l->stopping, true);
	pthread_cond_signal(&l->work);
	pthread_cond_signal(&l->watch);
	pthread_mutex_unlock(&vol->lock);
	icm_backend_wake(vol->be);
	pthread_join(l->worker, NULL);
	pthread_join(l->watcher, NULL);
	l->started = false;
}

static int end_all_change(struct icm_lock_turn *t, void *userdata)
{
	(void)userdata;
	if (icm_lock_value_end_mount(&t->work, t->me))
		icm_lock_turn_serve(t);
	return 0;
}

/* A state that holds something or has waiters, its inode referenced; NULL: none. */
static struct icm_lock_state *next_to_end(struct icm_volume *vol)
{
	ICM_LOCK_SCOPE(&vol->lock);

	for (struct icm_lock_state *st = vol->locks->states; st; st = st->next)
		if (st->n_held || has_waits(st) || st->pinned) {
			icm_inode_ref(st->inode);
			return st;
		}
	return NULL;
}

/* What stays in the store is void with the lease, which ends right after. */
static void forget(struct icm_volume *vol, struct icm_lock_state *st)
{
	struct icm_inode *inode = st->inode;
	ICM_LOCK_SCOPE(&vol->lock);

	icm_lock_value_clear(&st->value);
	st->n_held = 0;
	st->debt = false;
	if (st->pinned)
		icm_inode_unref(&vol->tree, inode);
	st->pinned = false;
	icm_inode_unref(&vol->tree, inode);
}

void icm_shared_locks_stop(struct icm_volume *vol)
{
	struct icm_shared_locks *l = vol->locks;
	struct icm_lock_state *st;
	struct icm_shared_wait *w;
	bool away = false;

	if (!l->started)
		return;
	join_threads(vol);
	for (;;) {
		pthread_mutex_lock(&vol->lock);
		w = next_granted(l);
		pthread_mutex_unlock(&vol->lock);
		if (!w)
			break;
		tell(vol, w);
	}
	while ((st = next_to_end(vol))) {
		icm_shared_waits_fail(st, NULL, -EIO);
		pthread_mutex_lock(icm_lock_calls(vol, st->inode));
		if (!away)
			away = icm_lock_turn(st, end_all_change, NULL, NULL, NULL) < 0;
		pthread_mutex_unlock(icm_lock_calls(vol, st->inode));
		forget(vol, st);
	}
}
