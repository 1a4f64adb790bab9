/* SPDX-License-Identifier: MIT
 * What everybody does who comes upon a change that takes more than one transaction:
 * waits for its end, ends it if its mount doesn't, or, read-only, sees through it. */
#include <stdlib.h>
#include <string.h>

#include "core/change.h"
#include "core/key.h"
#include "core/lease.h"
#include "util/clock.h"
#include "util/log.h"

/* How long a mount that is alive is left alone at its change, and how often one looks
 * whether it is. */
#define PATIENCE_NS (5 * ICM_NS_PER_S)
#define LOOK_NS	    (300 * ICM_NS_PER_MS)

struct changes {
	struct icm_change_value *v; /* owned */
	size_t n;
};

static void changesp(struct changes *c)
{
	for (size_t i = 0; i < c->n; i++)
		icm_change_value_clear(&c->v[i]);
	free(c->v);
}

static void add(struct changes *c, const struct icm_entry *e)
{
	struct icm_change_value v;

	if (icm_change_value_decode(e->value, e->len, &v) < 0 ||
	    strcmp(v.id, e->key + strlen("change/")) != 0) {
		icm_log_err("'%s' is damaged", e->key);
		return;
	}
	c->v = icm_xrealloc(c->v, (c->n + 1) * sizeof(*c->v));
	c->v[c->n++] = v;
}

static int read_changes(struct icm_volume *vol, struct changes *ret)
{
	struct icm_ctx ctx = icm_volume_ctx(vol);
	ICM_AUTOENTRIES struct icm_entries list = { 0 };
	uint64_t index;
	int r;

	ctx.consistent = true;
	r = icm_backend_list(vol->be, &ctx, "change/", false, &list, &index);
	for (size_t i = 0; r == 0 && i < list.n; i++)
		add(ret, &list.v[i]);
	return r;
}

static bool concerns(const struct icm_change_value *v, const char *path)
{
	return !path || icm_path_is_below(path, v->path) || icm_path_is_below(path, v->to);
}

/* ---- waiting ---- */

static bool is_own(struct icm_volume *vol, const struct icm_change_value *v)
{
	ICM_AUTOFREE char *key = NULL;
	uint64_t index;

	return icm_lease_guard(vol, &key, &index) == 0 && strcmp(key, v->lease) == 0;
}

/* Nobody is at it, or a thread of this mount, for which icm_change_complete waits. */
static int is_orphan(struct icm_volume *vol, const struct icm_change_value *v, bool *ret)
{
	struct icm_ctx ctx = icm_volume_ctx(vol);
	ICM_AUTOENTRY struct icm_entry e = { 0 };
	int r;

	*ret = is_own(vol, v);
	if (*ret)
		return 0;
	ctx.consistent = true;
	r = icm_backend_get(vol->be, &ctx, v->lease, &e);
	*ret = r == -ENOENT;
	return r == -ENOENT ? 0 : r;
}

/* Sleeps until something has happened to a change since `index`, or for a moment. */
static int sleep_on(struct icm_volume *vol, uint64_t index, int64_t deadline)
{
	int64_t until = icm_now_ns() + LOOK_NS;
	struct icm_ctx ctx = { .cancel = &vol->stopping,
			       .deadline_ns = until < deadline ? until : deadline };
	int r = icm_backend_watch(vol->be, &ctx, "change/", index, &index);

	if (r == -ECANCELED)
		return -EIO; /* the mount ends */
	return r == -ETIMEDOUT && icm_now_ns() < deadline ? 0 : r;
}

static int wait_for_end(struct icm_volume *vol, const struct icm_change_value *v)
{
	ICM_AUTOFREE char *key = icm_key_change(v->id);
	struct icm_ctx ctx = icm_volume_ctx(vol);
	int64_t since = icm_now_ns(), deadline = ctx.deadline_ns;

	for (;;) {
		ICM_AUTOENTRY struct icm_entry e = { 0 };
		bool orphan = false;
		uint64_t index;
		int r;

		ctx = icm_volume_ctx(vol);
		ctx.consistent = true;
		r = icm_backend_index(vol->be, &ctx, "change/", &index);
		if (r == 0)
			r = icm_backend_get(vol->be, &ctx, key, &e);
		if (r == -ENOENT)
			return 0;
		if (r == 0)
			r = is_orphan(vol, v, &orphan);
		if (r == 0 && (orphan || icm_now_ns() > since + PATIENCE_NS))
			r = icm_change_complete(vol, v->id, false);
		else if (r == 0)
			r = sleep_on(vol, index, deadline);
		if (r < 0)
			return r;
	}
}

int icm_change_meet(struct icm_volume *vol, const char *path, bool *ret_met)
{
	__attribute__((cleanup(changesp))) struct changes c = { 0 };
	int r;

	/* one that this mount is at is over when its tree knows it, not before */
	pthread_mutex_lock(&vol->change_lock);
	pthread_mutex_unlock(&vol->change_lock);
	r = read_changes(vol, &c);
	*ret_met = false;
	for (size_t i = 0; r == 0 && i < c.n; i++) {
		if (!concerns(&c.v[i], path))
			continue;
		*ret_met = true;
		r = wait_for_end(vol, &c.v[i]);
	}
	return r;
}

void icm_change_end_orphans(struct icm_volume *vol, bool *ret_left)
{
	__attribute__((cleanup(changesp))) struct changes c = { 0 };
	int r = read_changes(vol, &c);

	*ret_left = r < 0;
	for (size_t i = 0; r == 0 && i < c.n && !atomic_load(&vol->stopping); i++) {
		bool orphan;

		if (is_orphan(vol, &c.v[i], &orphan) < 0 || !orphan ||
		    icm_change_complete(vol, c.v[i].id, false) < 0)
			*ret_left = true;
	}
}

/* ---- seeing through ---- */

/* "TO/x" for "FROM/x". */
static char *exchanged(const char *path, const char *from, const char *to)
{
	return icm_asprintf("%s%s", to, path + strlen(from));
}

char *icm_change_elsewhere(struct icm_volume *vol, const char *path)
{
	__attribute__((cleanup(changesp))) struct changes c = { 0 };

	if (read_changes(vol, &c) < 0)
		return NULL;
	for (size_t i = 0; i < c.n; i++)
		if (icm_path_is_below(path, c.v[i].path) && strcmp(path, c.v[i].path) != 0)
			return exchanged(path, c.v[i].path, c.v[i].to);
	return NULL;
}

bool icm_change_makes(struct icm_volume *vol, const char *path)
{
	__attribute__((cleanup(changesp))) struct changes c = { 0 };

	if (read_changes(vol, &c) < 0)
		return false;
	for (size_t i = 0; i < c.n; i++)
		if (icm_path_is_below(path, c.v[i].to))
			return strcmp(path, c.v[i].to) != 0 || !c.v[i].replaces;
	return false;
}

static int by_op_and_key(const void *a, const void *b)
{
	const struct icm_entry *x = a, *y = b;

	return x->op != y->op ? (x->op > y->op) - (x->op < y->op) : strcmp(x->key, y->key);
}

/* A key that has moved gets its old name. Returns whether it was one. */
static bool move_back(struct icm_entry *e, const struct icm_change_value *v)
{
	ICM_AUTOFREE char *from = icm_key_attr(v->path);
	ICM_AUTOFREE char *to = icm_key_attr(v->to);
	size_t len = strlen(to);
	char *key;

	if (strncmp(e->key, to, len) != 0 || e->key[len] != '/')
		return false;
	key = exchanged(e->key, to, from);
	free(e->key);
	e->key = key;
	return true;
}

static bool is_yet_to_come(const struct icm_entry *e, const struct icm_change_value *v)
{
	ICM_AUTOFREE char *key = icm_key_attr(v->to);

	return !v->replaces && strcmp(e->key, key) == 0;
}

bool icm_change_undo_in_listing(struct icm_entries *list, size_t attr_op, size_t change_op)
{
	__attribute__((cleanup(changesp))) struct changes c = { 0 };
	size_t n = 0;

	for (size_t i = 0; i < list->n; i++)
		if (list->v[i].op == change_op)
			add(&c, &list->v[i]);
	if (!c.n)
		return false;
	for (size_t i = 0; i < list->n; i++) {
		struct icm_entry *e = &list->v[i];
		bool drop = false;

		/* what has moved may have moved into what moves */
		for (size_t j = 0, turn = 0; e->op == attr_op && j < c.n && turn <= c.n; j++) {
			drop = drop || is_yet_to_come(e, &c.v[j]);
			if (move_back(e, &c.v[j])) {
				turn++;
				j = (size_t)-1;
			}
		}
		if (drop) {
			icm_entry_clear(e);
			continue;
		}
		list->v[n++] = *e;
	}
	list->n = n;
	qsort(list->v, list->n, sizeof(*list->v), by_op_and_key);
	return true;
}
