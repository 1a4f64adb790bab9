/* SPDX-License-Identifier: MIT */
#include "core/lock-value.h"

#include <fcntl.h>
#include <string.h>

#include "util/buf.h"
#include "util/clock.h"

#define LAST_BYTE (UINT64_MAX >> 1)

/* ---- lists of entries ---- */

static void add(struct icm_lock_entries *list, const struct icm_lock_entry *e)
{
	struct icm_lock_entry copy = *e; /* e may be of this very list */

	list->v = icm_xrealloc(list->v, (list->n + 1) * sizeof(*list->v));
	list->v[list->n++] = copy;
}

static void take_out(struct icm_lock_entries *list, size_t i)
{
	list->n--;
	memmove(list->v + i, list->v + i + 1, (list->n - i) * sizeof(*list->v));
}

int icm_lock_value_mount(const struct icm_lock_value *v, const char *lease)
{
	for (size_t i = 0; i < v->n_mounts; i++)
		if (strcmp(v->mounts[i].lease, lease) == 0)
			return (int)i;
	return -1;
}

bool icm_lock_entries_same_owner(const struct icm_lock_entry *a, const struct icm_lock_entry *b)
{
	return a->flock == b->flock && a->mount == b->mount && a->owner == b->owner;
}

bool icm_lock_entries_overlap(const struct icm_lock_entry *a, const struct icm_lock_entry *b)
{
	return a->start <= b->end && b->start <= a->end;
}

static bool conflict(const struct icm_lock_entry *a, const struct icm_lock_entry *b)
{
	return a->flock == b->flock && (a->type == F_WRLCK || b->type == F_WRLCK) &&
	       icm_lock_entries_overlap(a, b) && !icm_lock_entries_same_owner(a, b);
}

const struct icm_lock_entry *icm_lock_value_conflict(const struct icm_lock_value *v,
						     const struct icm_lock_entry *e, int mount)
{
	const struct icm_lock_entry *first = NULL;

	for (size_t i = 0; i < v->holders.n; i++) {
		const struct icm_lock_entry *h = &v->holders.v[i];

		if (conflict(h, e) && (mount < 0 || h->mount == (unsigned)mount) &&
		    (!first || h->start < first->start))
			first = h;
	}
	return first;
}

bool icm_lock_value_foreign_ahead(const struct icm_lock_value *v, const struct icm_lock_entry *e)
{
	for (size_t i = 0; i < v->holders.n; i++)
		if (v->holders.v[i].mount != e->mount && conflict(&v->holders.v[i], e))
			return true;
	for (size_t i = 0; i < v->queue.n && strcmp(v->queue.v[i].id, e->id) != 0; i++)
		if (v->queue.v[i].mount != e->mount && conflict(&v->queue.v[i], e))
			return true;
	return false;
}

/* The end of what the owner holds from `at` on with this type; at - 1: nothing. */
static uint64_t held_to(const struct icm_lock_value *v, const struct icm_lock_entry *e, uint64_t at)
{
	for (size_t i = 0; i < v->holders.n; i++) {
		const struct icm_lock_entry *h = &v->holders.v[i];

		if (icm_lock_entries_same_owner(h, e) && h->type == e->type && h->start <= at &&
		    h->end >= at)
			return h->end;
	}
	return at - 1;
}

bool icm_lock_value_covers(const struct icm_lock_value *v, const struct icm_lock_entry *e)
{
	uint64_t at = e->start;

	for (;;) {
		uint64_t end = held_to(v, e, at);

		if (end == at - 1)
			return false;
		if (end >= e->end)
			return true;
		at = end + 1;
	}
}

bool icm_lock_value_downgrades(const struct icm_lock_value *v, const struct icm_lock_entry *e)
{
	if (e->type != F_RDLCK)
		return false;
	for (size_t i = 0; i < v->holders.n; i++)
		if (v->holders.v[i].type == F_WRLCK &&
		    icm_lock_entries_same_owner(&v->holders.v[i], e) &&
		    icm_lock_entries_overlap(&v->holders.v[i], e))
			return true;
	return false;
}

/* ---- changes ---- */

/* Ends what the owner has in the range, leaving what stands out on both sides. */
static void cut(struct icm_lock_value *v, const struct icm_lock_entry *e)
{
	for (size_t i = v->holders.n; i-- > 0;) {
		struct icm_lock_entry h = v->holders.v[i];

		if (!icm_lock_entries_same_owner(&h, e) || !icm_lock_entries_overlap(&h, e))
			continue;
		take_out(&v->holders, i);
		if (h.start < e->start) {
			struct icm_lock_entry left = h;

			left.end = e->start - 1;
			add(&v->holders, &left);
		}
		if (h.end > e->end) {
			struct icm_lock_entry right = h;

			right.start = e->end + 1;
			add(&v->holders, &right);
		}
	}
}

/* Takes up neighbours of the same kind into *e. Another handle's lock of this
 * owner stays apart: it ends with that handle. */
static void merge(struct icm_lock_value *v, struct icm_lock_entry *e)
{
	for (size_t i = v->holders.n; i-- > 0;) {
		const struct icm_lock_entry *h = &v->holders.v[i];

		if (!icm_lock_entries_same_owner(h, e) || h->handle != e->handle ||
		    h->type != e->type || (h->end + 1 != e->start && e->end + 1 != h->start))
			continue;
		if (h->start < e->start)
			e->start = h->start;
		else
			e->end = h->end;
		if (icm_timespec_cmp(h->since, e->since) < 0)
			e->since = h->since;
		take_out(&v->holders, i);
	}
}

void icm_lock_value_set(struct icm_lock_value *v, const struct icm_lock_entry *e)
{
	struct icm_lock_entry model = *e;

	model.paused = false;
	cut(v, &model);
	if (model.type == F_UNLCK)
		return;
	merge(v, &model);
	add(&v->holders, &model);
}

void icm_lock_value_enqueue(struct icm_lock_value *v, const struct icm_lock_entry *e)
{
	add(&v->queue, e);
}

struct icm_lock_entry *icm_lock_value_queued(const struct icm_lock_value *v, const char *id)
{
	for (size_t i = 0; i < v->queue.n; i++)
		if (strcmp(v->queue.v[i].id, id) == 0)
			return &v->queue.v[i];
	return NULL;
}

void icm_lock_value_unqueue(struct icm_lock_value *v, const char *id)
{
	const struct icm_lock_entry *e = icm_lock_value_queued(v, id);

	if (e)
		take_out(&v->queue, (size_t)(e - v->queue.v));
}

bool icm_lock_value_end_owner(struct icm_lock_value *v, int mount, uint64_t owner)
{
	size_t before = v->holders.n;

	for (size_t i = v->holders.n; i-- > 0;) {
		const struct icm_lock_entry *h = &v->holders.v[i];

		if (!h->flock && (int)h->mount == mount && h->owner == owner)
			take_out(&v->holders, i);
	}
	return v->holders.n < before;
}

static bool end_in(struct icm_lock_entries *list, int mount, const uint64_t *handle)
{
	size_t before = list->n;

	for (size_t i = list->n; i-- > 0;)
		if ((int)list->v[i].mount == mount && (!handle || list->v[i].handle == *handle))
			take_out(list, i);
	return list->n < before;
}

bool icm_lock_value_end_handle(struct icm_lock_value *v, int mount, uint64_t handle)
{
	bool held = end_in(&v->holders, mount, &handle);

	return end_in(&v->queue, mount, &handle) || held;
}

bool icm_lock_value_end_mount(struct icm_lock_value *v, int mount)
{
	bool held = end_in(&v->holders, mount, NULL);

	return end_in(&v->queue, mount, NULL) || held;
}

static bool is_used(const struct icm_lock_entries *list, size_t mount)
{
	for (size_t i = 0; i < list->n; i++)
		if (list->v[i].mount == mount)
			return true;
	return false;
}

static void renumber(struct icm_lock_entries *list, size_t gone)
{
	for (size_t i = 0; i < list->n; i++)
		list->v[i].mount -= list->v[i].mount > gone;
}

void icm_lock_value_tidy(struct icm_lock_value *v)
{
	for (size_t m = v->n_mounts; m-- > 0;) {
		if (is_used(&v->holders, m) || is_used(&v->queue, m))
			continue;
		free(v->mounts[m].lease);
		free(v->mounts[m].host);
		free(v->mounts[m].user);
		v->n_mounts--;
		memmove(v->mounts + m, v->mounts + m + 1, (v->n_mounts - m) * sizeof(*v->mounts));
		renumber(&v->holders, m);
		renumber(&v->queue, m);
	}
}

/* ---- who waits for whom ---- */

struct node {
	const char *lease; /* borrowed from a table */
	uint64_t owner;
};

struct search {
	const struct icm_lock_tables *tables;
	struct node *found; /* owned; grows while it is walked */
	size_t n;
	bool with_queue;
};

static bool is_of(const struct icm_lock_value *v, const struct icm_lock_entry *e,
		  const struct node *n)
{
	return !e->flock && e->owner == n->owner &&
	       strcmp(v->mounts[e->mount].lease, n->lease) == 0;
}

static void found(struct search *s, const struct icm_lock_value *v, const struct icm_lock_entry *e)
{
	for (size_t i = 0; i < s->n; i++)
		if (is_of(v, e, &s->found[i]))
			return;
	s->found = icm_xrealloc(s->found, (s->n + 1) * sizeof(*s->found));
	s->found[s->n++] = (struct node){ v->mounts[e->mount].lease, e->owner };
}

static void find_blockers(struct search *s, const struct icm_lock_value *v,
			  const struct icm_lock_entry *e)
{
	for (size_t i = 0; i < v->holders.n; i++)
		if (conflict(&v->holders.v[i], e))
			found(s, v, &v->holders.v[i]);
	for (size_t i = 0; s->with_queue && i < v->queue.n; i++) {
		const struct icm_lock_entry *q = &v->queue.v[i];

		if (strcmp(q->id, e->id) == 0)
			break;
		if (!q->paused && conflict(q, e))
			found(s, v, q);
	}
}

/* Whether the record lock waiter e of tables->v[0] waits, directly or not, for
 * something of `target`. */
static bool waits_for(const struct icm_lock_tables *tables, const struct icm_lock_entry *e,
		      const struct node *target, bool with_queue)
{
	struct search s = { .tables = tables, .with_queue = with_queue };
	bool yes = false;

	find_blockers(&s, tables->v[0], e);
	for (size_t i = 0; i < s.n && !yes; i++) {
		struct node at = s.found[i];

		yes = at.owner == target->owner && strcmp(at.lease, target->lease) == 0;
		for (size_t t = 0; t < tables->n && !yes; t++) {
			const struct icm_lock_value *v = tables->v[t];

			for (size_t q = 0; q < v->queue.n; q++)
				if (!v->queue.v[q].paused && is_of(v, &v->queue.v[q], &at))
					find_blockers(&s, v, &v->queue.v[q]);
		}
	}
	free(s.found);
	return yes;
}

bool icm_lock_waits_for_itself(const struct icm_lock_tables *tables, const struct icm_lock_entry *e,
			       bool with_queue)
{
	struct node self = { tables->v[0]->mounts[e->mount].lease, e->owner };

	return !e->flock && waits_for(tables, e, &self, with_queue);
}

/* Whether queue entry w has to wait behind an earlier waiter. */
static bool is_behind(const struct icm_lock_tables *tables, const struct icm_lock_entry *w)
{
	const struct icm_lock_value *v = tables->v[0];
	struct node self = { v->mounts[w->mount].lease, w->owner };

	for (const struct icm_lock_entry *e = v->queue.v; e != w; e++) {
		if (e->paused || !conflict(e, w))
			continue;
		if (w->flock || !waits_for(tables, e, &self, true))
			return true;
	}
	return false;
}

void icm_lock_value_serve(struct icm_lock_value *v, const struct icm_lock_tables *tables)
{
	size_t i = 0;

	while (i < v->queue.n) {
		struct icm_lock_entry w = v->queue.v[i];

		if (w.paused || icm_lock_value_conflict(v, &w, -1) ||
		    is_behind(tables, &v->queue.v[i])) {
			i++;
			continue;
		}
		take_out(&v->queue, i);
		icm_lock_value_set(v, &w);
		i = 0; /* it may have weakened a lock of its own, or broken a circle */
	}
}
