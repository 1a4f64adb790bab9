/* SPDX-License-Identifier: MIT
 * One change of a file's lock table in the store: a transaction on condition of
 * the table's index, under the guard of every write of the mount. Dead mounts are
 * taken out in the same transaction, which checks that their leases are gone. */
#include <fcntl.h>
#include <string.h>

#include "core/commit.h"
#include "core/feed.h"
#include "core/key.h"
#include "core/lease.h"
#include "core/lock-local.h"
#include "util/clock.h"
#include "util/log.h"

#define DEAD_MAX 40 /* taken out in one transaction */

/* ---- the state of a file ---- */

pthread_mutex_t *icm_lock_calls(struct icm_volume *vol, const struct icm_inode *inode)
{
	return &vol->lock_calls[icm_hash_u64((uintptr_t)inode) % ICM_LOCK_CALLS];
}

struct icm_lock_state *icm_lock_state_get(struct icm_volume *vol, struct icm_inode *inode)
{
	struct icm_lock_state *st;
	ICM_LOCK_SCOPE(&vol->lock);

	if (inode->locks)
		return inode->locks;
	st = icm_xcalloc(1, sizeof(*st));
	st->vol = vol;
	st->inode = inode;
	st->next = vol->locks->states;
	if (st->next)
		st->next->prev = st;
	vol->locks->states = st;
	inode->locks = st;
	return st;
}

void icm_lock_state_free(struct icm_lock_state *st)
{
	if (!st)
		return;
	if (st->next)
		st->next->prev = st->prev;
	if (st->prev)
		st->prev->next = st->next;
	else
		st->vol->locks->states = st->next;
	icm_lock_value_clear(&st->value);
	free(st->lease);
	free(st);
}

bool icm_inode_is_locked(const struct icm_inode *inode)
{
	return inode->locks && inode->locks->n_held;
}

int icm_lock_state_me(const struct icm_lock_state *st)
{
	return st->lease ? icm_lock_value_mount(&st->value, st->lease) : -1;
}

static bool others_in(const struct icm_lock_entries *list, int me)
{
	for (size_t i = 0; i < list->n; i++)
		if ((int)list->v[i].mount != me)
			return true;
	return false;
}

void icm_lock_state_count(struct icm_lock_state *st)
{
	int me = icm_lock_state_me(st);

	st->n_held = 0;
	for (size_t i = 0; i < st->value.holders.n; i++)
		st->n_held += (int)st->value.holders.v[i].mount == me;
	st->foreign = others_in(&st->value.holders, me) || others_in(&st->value.queue, me);
}

void icm_lock_state_owes(struct icm_lock_state *st)
{
	st->stale = st->debt = true;
	if (!st->pinned)
		icm_inode_ref(st->inode);
	st->pinned = true;
	icm_shared_locks_kick(st);
}

/* ---- reading ---- */

int icm_lock_read(struct icm_volume *vol, uint64_t ino, struct icm_lock_value *ret, char **ret_text,
		  uint64_t *ret_index, uint64_t *ret_head)
{
	struct icm_ctx ctx = icm_volume_ctx(vol);
	ICM_AUTORESULT struct icm_txn_result res = { 0 };
	ICM_AUTOFREE char *key = icm_key_lock(ino);
	/* trees, because a `get` of nothing would fail */
	const struct icm_op ops[] = { { ICM_OP_GET_TREE, .key = key },
				      { ICM_OP_GET_TREE, .key = ICM_KEY_HEAD } };
	const struct icm_entry *found = NULL;
	int r;

	ctx.consistent = true;
	r = icm_backend_txn(vol->be, &ctx, ops, ICM_COUNT(ops), &res);
	if (r < 0)
		return r;
	*ret_head = 0;
	for (size_t i = 0; i < res.entries.n; i++) {
		const struct icm_entry *e = &res.entries.v[i];

		if (strcmp(e->key, key) == 0)
			found = e;
		else if (strcmp(e->key, ICM_KEY_HEAD) == 0)
			*ret_head = e->modify_index;
	}
	*ret = (struct icm_lock_value){ 0 };
	if (found && icm_lock_value_decode(found->value, found->len, ret) < 0) {
		icm_log_err("'%s' is damaged: nobody gets the lock", key);
		return -ENOLCK;
	}
	*ret_index = found ? found->modify_index : 0;
	if (ret_text)
		*ret_text = found ? icm_xstrndup(found->value, found->len) : icm_xstrdup("");
	return 0;
}

static struct icm_shared_wait *find_wait(const struct icm_lock_state *st, const char *id)
{
	struct icm_shared_wait *w = st->waits;

	while (w && strcmp(w->entry.id, id) != 0)
		w = w->next;
	return w;
}

static bool is_entry_of(const struct icm_lock_entry *h, const struct icm_lock_entry *e)
{
	return h->flock == e->flock && h->owner == e->owner && icm_lock_entries_overlap(h, e);
}

/* Whether this mount knows of the lock, or somebody here waits to hear of it. */
static bool is_wanted(const struct icm_lock_state *st, const struct icm_lock_value *v,
		      const struct icm_lock_entry *h)
{
	int mine = icm_lock_state_me(st);

	for (size_t i = 0; i < st->value.holders.n; i++)
		if ((int)st->value.holders.v[i].mount == mine &&
		    is_entry_of(h, &st->value.holders.v[i]))
			return true;
	for (const struct icm_shared_wait *w = st->waits; w; w = w->next)
		if (w->how == ICM_WAIT_PARKED && is_entry_of(h, &w->entry) &&
		    !icm_lock_value_queued(v, w->entry.id))
			return true;
	return false;
}

/* A conversion that was granted although its caller was interrupted: what the
 * owner had before. */
static void take_back(const struct icm_lock_state *st, struct icm_lock_value *v, int me,
		      const struct icm_shared_wait *w)
{
	struct icm_lock_entry e = w->entry;
	int mine = icm_lock_state_me(st);

	e.mount = (unsigned)me;
	e.type = F_UNLCK;
	icm_lock_value_set(v, &e);
	for (size_t i = 0; i < st->value.holders.n; i++) {
		struct icm_lock_entry had = st->value.holders.v[i];

		if ((int)had.mount != mine || !is_entry_of(&had, &e))
			continue;
		had.mount = (unsigned)me;
		icm_lock_value_set(v, &had);
	}
}

/* Entries of this mount that nobody here wants go: what a call left that failed or
 * never heard an answer, places that were kept long enough. volume->lock held. */
static void reconcile(const struct icm_lock_state *st, const char *lease, struct icm_lock_value *v)
{
	int me = icm_lock_value_mount(v, lease);

	if (me < 0)
		return;
	for (const struct icm_shared_wait *w = st->waits; w; w = w->next)
		if (w->how == ICM_WAIT_PLACE && !icm_lock_value_queued(v, w->entry.id))
			take_back(st, v, me, w);
	for (size_t i = v->queue.n; i-- > 0;) {
		struct icm_lock_entry *e = &v->queue.v[i];
		const struct icm_shared_wait *w = find_wait(st, e->id);

		if ((int)e->mount != me)
			continue;
		if (!w || (w->how == ICM_WAIT_PLACE && w->until_ns <= icm_now_ns()))
			icm_lock_value_unqueue(v, e->id);
		else
			e->paused = w->how == ICM_WAIT_PLACE;
	}
	for (size_t i = v->holders.n; i-- > 0;) {
		const struct icm_lock_entry *h = &v->holders.v[i];

		if ((int)h->mount != me || is_wanted(st, v, h))
			continue;
		v->holders.n--;
		memmove(v->holders.v + i, v->holders.v + i + 1,
			(v->holders.n - i) * sizeof(*v->holders.v));
	}
}

static void clear_dead(struct icm_lock_turn *t)
{
	for (size_t i = 0; i < t->n_dead; i++)
		free(t->dead[i]);
	free(t->dead);
	t->dead = NULL;
	t->n_dead = 0;
}

static int read_table(struct icm_lock_turn *t)
{
	struct icm_lock_value v;
	char *text = NULL;
	uint64_t index, head;
	int r = icm_lock_read(t->vol, t->st->inode->attr.ino, &v, &text, &index, &head);

	if (r < 0)
		return r;
	pthread_mutex_lock(&t->vol->lock);
	reconcile(t->st, t->lease, &v);
	pthread_mutex_unlock(&t->vol->lock);
	icm_lock_value_clear(&t->known);
	free(t->text);
	t->known = v;
	t->text = text;
	t->index = index;
	t->head = head;
	t->fresh = true;
	return 0;
}

/* ---- who is dead ---- */

int icm_lock_find_dead(struct icm_volume *vol, const struct icm_lock_value *v, const char *own,
		       const char ***ret_dead, size_t *ret_n)
{
	struct icm_ctx ctx = icm_volume_ctx(vol);
	ICM_AUTOENTRIES struct icm_entries list = { 0 };
	const char **dead;
	uint64_t index;
	size_t n = 0;
	bool self = false;
	int r;

	ctx.consistent = true;
	r = icm_backend_list(vol->be, &ctx, "lease/", true, &list, &index);
	if (r < 0)
		return r;
	dead = icm_xcalloc(v->n_mounts, sizeof(*dead));
	for (size_t i = 0; i < list.n; i++)
		self = self || strcmp(list.v[i].key, own) == 0;
	/* where the own key doesn't show, nothing is concluded from others' absence */
	for (size_t m = 0; self && m < v->n_mounts; m++) {
		bool alive = false;

		for (size_t i = 0; i < list.n && !alive; i++)
			alive = strcmp(list.v[i].key, v->mounts[m].lease) == 0;
		if (!alive)
			dead[n++] = v->mounts[m].lease;
	}
	*ret_dead = dead;
	*ret_n = n;
	return 0;
}

static int ask(struct icm_lock_turn *t)
{
	ICM_AUTOFREE const char **dead = NULL;
	size_t n;
	int r = icm_lock_find_dead(t->vol, &t->known, t->lease, &dead, &n);

	if (r < 0)
		return r;
	clear_dead(t);
	t->dead = icm_xcalloc(n, sizeof(char *));
	for (size_t i = 0; i < n && i < DEAD_MAX; i++)
		t->dead[t->n_dead++] = icm_xstrdup(dead[i]);
	t->asked = true;
	return 0;
}

/* ---- the transaction ---- */

static bool is_current_lease(struct icm_volume *vol, const char *lease)
{
	ICM_AUTOFREE char *now = NULL;
	uint64_t index;

	return icm_lease_guard(vol, &now, &index) == 0 && strcmp(now, lease) == 0;
}

static uint64_t current_epoch(struct icm_volume *vol)
{
	ICM_LOCK_SCOPE(&vol->lock);

	return vol->lock_epoch;
}

/* -ESTALE: another mount was faster, or a lease that seemed over isn't. */
static int write_table(struct icm_lock_turn *t)
{
	ICM_AUTOPART struct icm_part part = ICM_PART_INIT;
	char *key = icm_key_lock(t->st->inode->attr.ino);
	char *text = NULL;
	size_t len = 0;
	int r;

	if (t->work.holders.n || t->work.queue.n)
		text = icm_lock_value_encode(&t->work, &len);
	if (strcmp(text ? text : "", t->text) == 0 || len > ICM_LOCK_VALUE_MAX) {
		free(text);
		free(key);
		return len > ICM_LOCK_VALUE_MAX ? -ENOLCK : 0;
	}
	free(t->text);
	t->text = icm_xstrdup(text ? text : "");
	for (size_t i = 0; i < t->n_dead; i++)
		icm_part_check_absent(&part, icm_xstrdup(t->dead[i]));
	if (text)
		icm_part_cas(&part, key, t->index, text, len, 0);
	else
		icm_part_delete_cas(&part, key, t->index);
	icm_part_read(&part, icm_xstrdup(ICM_KEY_HEAD));
	part.lock_epoch = t->epoch;
	r = icm_commit_quiet(t->vol, &part);
	if (r == -ESTALE && part.failed_op < t->n_dead)
		clear_dead(t); /* it lives: the listing was older than the table */
	if (r < 0)
		return r;
	t->index = text ? part.index : 0;
	t->head = part.read_index;
	if (part.index) {
		ICM_LOCK_SCOPE(&t->vol->lock);

		icm_feed_own_commit(t->vol, part.index);
	}
	return 0;
}

void icm_lock_turn_serve(struct icm_lock_turn *t)
{
	struct icm_lock_tables tables = { .n = 1 };
	size_t n = 1;

	for (const struct icm_lock_state *st = t->vol->locks->states; st; st = st->next)
		n += st->waits != NULL;
	tables.v = icm_xcalloc(n, sizeof(struct icm_lock_value *));
	tables.v[0] = &t->work;
	for (const struct icm_lock_state *st = t->vol->locks->states; st; st = st->next)
		if (st->waits && st != t->st)
			tables.v[tables.n++] = &st->value;
	icm_lock_value_serve(&t->work, &tables);
	free(tables.v);
}

/* ---- a turn ---- */

/* Epoch and lease belong together unless it is lost in this moment, which is found
 * after the write. */
static int begin(struct icm_lock_turn *t)
{
	uint64_t index;
	int r;

	t->epoch = current_epoch(t->vol);
	r = icm_lease_guard(t->vol, &t->lease, &index);
	if (r < 0)
		return r;
	pthread_mutex_lock(&t->vol->lock);
	icm_lock_value_copy(&t->known, &t->st->value);
	t->index = t->st->index;
	t->fresh = false;
	pthread_mutex_unlock(&t->vol->lock);
	t->text = t->index ? icm_lock_value_encode(&t->known, &(size_t){ 0 }) : icm_xstrdup("");
	return 0;
}

static bool is_stale(struct icm_lock_state *st)
{
	ICM_LOCK_SCOPE(&st->vol->lock);

	return st->stale;
}

static void make_work(struct icm_lock_turn *t)
{
	icm_lock_value_clear(&t->work);
	icm_lock_value_copy(&t->work, &t->known);
	for (size_t i = 0; i < t->n_dead; i++) {
		int m = icm_lock_value_mount(&t->work, t->dead[i]);

		if (m >= 0)
			icm_lock_value_end_mount(&t->work, m);
	}
	t->me = icm_lock_value_mount(&t->work, t->lease);
	if (t->me < 0)
		t->me = (int)icm_lock_value_add_mount(&t->work, t->lease, t->vol->host,
						      t->vol->user);
}

/* The table is like this from now on. */
static bool install(struct icm_lock_turn *t)
{
	struct icm_lock_state *st = t->st;
	ICM_LOCK_SCOPE(&t->vol->lock);

	if (t->vol->lock_epoch != t->epoch)
		return false;
	icm_lock_value_clear(&st->value);
	st->value = t->work;
	t->work = (struct icm_lock_value){ 0 };
	st->index = t->index;
	free(st->lease);
	st->lease = icm_xstrdup(t->lease);
	icm_lock_state_count(st);
	st->stale = st->foreign;
	st->debt = st->debt && !t->fresh;
	icm_shared_waits_granted(st, t->head);
	icm_shared_locks_plan(st);
	return true;
}

static int change_table(struct icm_lock_turn *t, icm_lock_change_fn change, void *userdata,
			int *ret_result)
{
	make_work(t);
	pthread_mutex_lock(&t->vol->lock);
	*ret_result = change(t, userdata);
	pthread_mutex_unlock(&t->vol->lock);
	if (*ret_result == ICM_LOCK_READ)
		return read_table(t);
	if (*ret_result == ICM_LOCK_ASK)
		return ask(t);
	icm_lock_value_tidy(&t->work);
	return write_table(t);
}

static void pause_turn(unsigned tries)
{
	struct timespec ts = { .tv_nsec = (long)(icm_random_u64() % (5 * ICM_NS_PER_MS)) };

	if (tries >= 4)
		nanosleep(&ts, NULL);
}

static int run(struct icm_lock_turn *t, icm_lock_change_fn change, void *userdata)
{
	int64_t deadline = icm_now_ns() + (int64_t)t->vol->timeout_ms * ICM_NS_PER_MS;
	int result = 0, r = begin(t);

	if (r == 0 && is_stale(t->st))
		r = read_table(t);
	for (unsigned tries = 0; r == 0; tries++) {
		r = change_table(t, change, userdata, &result);
		if (r == -ESTALE) {
			if (icm_now_ns() >= deadline)
				return -ETIMEDOUT;
			pause_turn(tries);
			r = read_table(t);
			continue;
		}
		if (r == 0 && result != ICM_LOCK_READ && result != ICM_LOCK_ASK)
			break;
	}
	if (current_epoch(t->vol) != t->epoch || (r == 0 && !is_current_lease(t->vol, t->lease)))
		return ICM_LOCK_LOST;
	if (r < 0)
		return r;
	return install(t) ? result : ICM_LOCK_LOST;
}

int icm_lock_turn(struct icm_lock_state *st, icm_lock_change_fn change, void *userdata,
		  uint64_t *ret_epoch, uint64_t *ret_head)
{
	struct icm_lock_turn t = { .vol = st->vol, .st = st };
	int r = run(&t, change, userdata);

	if (r == ICM_LOCK_LOST || (r < 0 && r != -EAGAIN && r != -EINPROGRESS)) {
		ICM_LOCK_SCOPE(&st->vol->lock);

		st->stale = true; /* it may have been written all the same */
	}
	if (ret_epoch)
		*ret_epoch = t.epoch;
	if (ret_head)
		*ret_head = t.head;
	clear_dead(&t);
	icm_lock_value_clear(&t.known);
	icm_lock_value_clear(&t.work);
	free(t.text);
	free(t.lease);
	return r;
}
