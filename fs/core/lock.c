/* SPDX-License-Identifier: MIT
 * A request that conflicts with no lock is granted at once; else it waits in
 * its table's queue, from which each waiter is granted that conflicts with no
 * lock and with no earlier waiter. One mutex per set: no operation does more
 * than walk lists, and a search for a deadlock needs all tables at rest. */
#include "core/lock.h"

#include <assert.h>
#include <string.h>

#include "util/buf.h"
#include "util/cleanup.h"
#include "util/clock.h"
#include "util/map.h"

#define LAST_BYTE     (UINT64_MAX >> 1)
#define KEEP_PLACE_NS (2 * ICM_NS_PER_S)

/* Who has or wants record locks; lives as long as there is one of either. */
struct owner {
	struct icm_map_node node; /* in set->owners, by id */
	uint64_t id;
	size_t n_locks;
	struct waiter *waits; /* by next_of_owner */
	uint64_t stamp;	      /* of the search that came here last */
	struct owner *next_found;
};

struct lock {
	struct lock *next;
	struct owner *owner; /* NULL: flock */
	uint64_t handle;
	uint64_t start, end;
	int type;
	pid_t pid;
	struct timespec since;
};

/* A parked request or, when it has no `done`, the place of a cancelled one. */
struct waiter {
	struct waiter *next;	      /* in the table's queue, by place */
	struct waiter *next_of_owner; /* record locks */
	struct icm_map_node node;     /* in set->waits, by token */
	struct icm_lock_table *table;
	struct owner *owner; /* NULL: flock */
	struct icm_lock_request req;
	uint64_t handle;
	uint64_t token;	  /* what the caller knows it by; never used again */
	uint64_t place;	  /* order of arrival */
	int64_t until_ns; /* of a kept place */
	struct timespec since;
	icm_lock_done_fn done;
	void *userdata;
	int result;
};

struct icm_lock_table {
	struct icm_lock_set *set;
	struct icm_lock_table *prev, *next; /* in set->tables */
	struct lock *records;
	struct lock *flocks;
	struct waiter *queue;
};

struct icm_lock_set {
	pthread_mutex_t mutex; /* protects everything below, tables included */
	struct icm_lock_table *tables;
	struct icm_map owners;
	struct icm_map waits;
	uint64_t last_token;
	uint64_t last_place;
	uint64_t stamp;
};

/* Waiters taken out of their queues, whose callbacks are due after the unlock. */
struct answers {
	struct waiter *first;
	struct waiter **last;
};

#define ANSWERS_INIT(a)                                                                            \
	{                                                                                          \
		.last = &(a).first                                                                 \
	}

/* ---- owners ---- */

static struct owner *find_owner(struct icm_lock_set *s, uint64_t id)
{
	struct icm_map_node *node = icm_map_first(&s->owners, icm_hash_u64(id));

	for (; node; node = icm_map_next(node)) {
		struct owner *o = ICM_CONTAINER(node, struct owner, node);

		if (o->id == id)
			return o;
	}
	return NULL;
}

static struct owner *get_owner(struct icm_lock_set *s, uint64_t id)
{
	struct owner *o = find_owner(s, id);

	if (!o) {
		o = icm_xcalloc(1, sizeof(*o));
		o->id = id;
		icm_map_add(&s->owners, &o->node, icm_hash_u64(id));
	}
	return o;
}

static void drop_idle_owner(struct icm_lock_set *s, struct owner *o)
{
	if (!o || o->n_locks || o->waits)
		return;
	icm_map_remove(&s->owners, &o->node);
	free(o);
}

/* ---- locks ---- */

static bool overlaps(const struct lock *l, uint64_t start, uint64_t end)
{
	return l->start <= end && start <= l->end;
}

static void add_lock(struct lock **list, const struct lock *model)
{
	struct lock *l = icm_xmemdup(model, sizeof(*model));

	l->next = *list;
	*list = l;
	if (l->owner)
		l->owner->n_locks++;
}

/* The owner may have been its last lock's: drop_idle_owner() when all is done. */
static void remove_lock(struct lock **at)
{
	struct lock *l = *at;

	*at = l->next;
	if (l->owner)
		l->owner->n_locks--;
	free(l);
}

/* Ends what the owner has in the range, leaving what stands out on both sides. */
static void cut_records(struct icm_lock_table *t, const struct owner *owner, uint64_t start,
			uint64_t end)
{
	struct lock **at = &t->records;

	while (*at) {
		struct lock *l = *at;

		if (l->owner != owner || !overlaps(l, start, end)) {
			at = &l->next;
			continue;
		}
		if (l->end > end) {
			struct lock right = *l;

			right.start = end + 1;
			add_lock(&l->next, &right);
		}
		if (l->start < start) {
			l->end = start - 1;
			at = &l->next;
		} else {
			remove_lock(at);
		}
	}
}

/* Takes up neighbours of the same kind into *model. Another handle's lock of
 * this owner stays apart: it ends with that handle. */
static void merge_records(struct icm_lock_table *t, struct lock *model)
{
	struct lock **at = &t->records;

	while (*at) {
		struct lock *l = *at;

		if (l->owner != model->owner || l->handle != model->handle ||
		    l->type != model->type ||
		    (l->end + 1 != model->start && model->end + 1 != l->start)) {
			at = &l->next;
			continue;
		}
		if (l->start < model->start)
			model->start = l->start;
		else
			model->end = l->end;
		if (icm_timespec_cmp(l->since, model->since) < 0)
			model->since = l->since;
		remove_lock(at);
	}
}

static void set_record(struct icm_lock_table *t, struct lock *model)
{
	cut_records(t, model->owner, model->start, model->end);
	if (model->type == F_UNLCK)
		return;
	merge_records(t, model);
	add_lock(&t->records, model);
}

/* Ends the flock of a handle; false when it had none. */
static bool drop_flock(struct icm_lock_table *t, uint64_t handle)
{
	for (struct lock **at = &t->flocks; *at; at = &(*at)->next)
		if ((*at)->handle == handle) {
			remove_lock(at);
			return true;
		}
	return false;
}

/* Makes, changes or ends a lock, whoever else has one. */
static void apply(struct icm_lock_table *t, uint64_t handle, const struct icm_lock_request *req,
		  struct owner *owner)
{
	struct lock model = {
		.owner = owner,
		.handle = handle,
		.start = req->start,
		.end = req->end,
		.type = req->type,
		.pid = req->pid,
		.since = icm_wall_time(),
	};

	if (!req->flock) {
		set_record(t, &model);
		return;
	}
	drop_flock(t, handle);
	if (req->type != F_UNLCK)
		add_lock(&t->flocks, &model);
}

static bool is_exclusive(int a, int b)
{
	return a == F_WRLCK || b == F_WRLCK;
}

static bool conflicts(const struct lock *l, uint64_t handle, const struct icm_lock_request *req)
{
	if (!is_exclusive(l->type, req->type) || !overlaps(l, req->start, req->end))
		return false;
	return l->owner ? l->owner->id != req->owner : l->handle != handle;
}

/* The lock behind `after` (NULL = from the start) that stands in the way. */
static struct lock *next_conflict(const struct icm_lock_table *t, const struct lock *after,
				  uint64_t handle, const struct icm_lock_request *req)
{
	struct lock *l = after ? after->next : req->flock ? t->flocks : t->records;

	while (l && !conflicts(l, handle, req))
		l = l->next;
	return l;
}

/* ---- the queue ---- */

static bool is_waiting(const struct waiter *w)
{
	return w->done;
}

static bool waiters_conflict(const struct waiter *a, const struct waiter *b)
{
	if (a->req.flock != b->req.flock || !is_exclusive(a->req.type, b->req.type) ||
	    a->req.start > b->req.end || b->req.start > a->req.end)
		return false;
	return a->owner ? a->owner != b->owner : a->handle != b->handle;
}

static void enqueue(struct icm_lock_table *t, struct waiter *w)
{
	struct waiter **at = &t->queue;

	while (*at && (*at)->place < w->place)
		at = &(*at)->next;
	w->next = *at;
	*at = w;
	icm_map_add(&t->set->waits, &w->node, icm_hash_u64(w->token));
	if (w->owner) {
		w->next_of_owner = w->owner->waits;
		w->owner->waits = w;
	}
}

/* Nobody waits in this place any more: no callback, no edge in the graph. */
static void retire(struct waiter *w)
{
	icm_map_remove(&w->table->set->waits, &w->node);
	w->done = NULL;
	if (w->owner) {
		struct waiter **at = &w->owner->waits;

		while (*at != w)
			at = &(*at)->next_of_owner;
		*at = w->next_of_owner;
		drop_idle_owner(w->table->set, ICM_STEAL(&w->owner));
	}
}

/* Takes the waiter at *at out, to be told `result` after the unlock. */
static void answer(struct waiter **at, int result, struct answers *answers)
{
	struct waiter *w = *at;
	icm_lock_done_fn done = w->done;

	*at = w->next;
	retire(w);
	w->done = done;
	w->result = result;
	w->next = NULL;
	*answers->last = w;
	answers->last = &w->next;
}

static void call_answers(struct answers *answers)
{
	while (answers->first) {
		struct waiter *w = answers->first;

		answers->first = w->next;
		w->done(w->userdata, w->result);
		free(w);
	}
}

static void drop_old_places(struct icm_lock_table *t)
{
	struct waiter **at = &t->queue;
	int64_t now = t->queue ? icm_now_ns() : 0;

	while (*at) {
		struct waiter *w = *at;

		if (is_waiting(w) || w->until_ns > now) {
			at = &w->next;
			continue;
		}
		*at = w->next;
		free(w);
	}
}

/* The place of an equal request that was interrupted a moment ago, or a new one. */
static uint64_t take_place(struct icm_lock_table *t, uint64_t handle,
			   const struct icm_lock_request *req)
{
	for (struct waiter **at = &t->queue; *at; at = &(*at)->next) {
		struct waiter *w = *at;

		if (!is_waiting(w) && w->handle == handle && w->req.flock == req->flock &&
		    w->req.owner == req->owner && w->req.start == req->start &&
		    w->req.end == req->end && w->req.type == req->type) {
			uint64_t place = w->place;

			*at = w->next;
			free(w);
			return place;
		}
	}
	return ++t->set->last_place;
}

/* ---- who waits for whom ---- */

struct search {
	struct icm_lock_set *set;
	struct owner *found; /* to be looked at, by next_found */
	bool with_queue;     /* an earlier waiter in the way counts as well as a lock */
};

static void find(struct search *s, struct owner *o)
{
	if (o->stamp == s->set->stamp)
		return;
	o->stamp = s->set->stamp;
	o->next_found = s->found;
	s->found = o;
}

static void find_blockers(struct search *s, const struct waiter *w)
{
	struct lock *l = NULL;

	while ((l = next_conflict(w->table, l, w->handle, &w->req)))
		find(s, l->owner);
	if (!s->with_queue)
		return;
	for (const struct waiter *e = w->table->queue; e && e->place < w->place; e = e->next)
		if (is_waiting(e) && waiters_conflict(e, w))
			find(s, e->owner);
}

/* Whether the record lock waiter w waits, directly or not, for something of `target`. */
static bool waits_for(const struct waiter *w, const struct owner *target, bool with_queue)
{
	struct search s = { .set = w->table->set, .with_queue = with_queue };

	s.set->stamp++;
	find_blockers(&s, w);
	while (s.found) {
		struct owner *o = s.found;

		if (o == target)
			return true;
		s.found = o->next_found;
		for (const struct waiter *next = o->waits; next; next = next->next_of_owner)
			find_blockers(&s, next);
	}
	return false;
}

/* Whether w has to wait behind an earlier waiter. Not behind one that itself
 * waits for w's owner: without the queue there would be no deadlock there. */
static bool is_behind(const struct waiter *w)
{
	for (const struct waiter *e = w->table->queue; e != w; e = e->next) {
		if (!is_waiting(e) || !waiters_conflict(e, w))
			continue;
		if (!w->owner || !w->owner->n_locks || !waits_for(e, w->owner, true))
			return true;
	}
	return false;
}

/* Grants what can be granted. Starts anew after a grant to an owner who had
 * other locks: it may have been a downgrade of a part, or break a circle. */
static void serve(struct icm_lock_table *t, struct answers *answers)
{
	struct waiter **at = &t->queue;

	while (*at) {
		struct waiter *w = *at;
		bool again;

		if (!is_waiting(w) || next_conflict(t, NULL, w->handle, &w->req) || is_behind(w)) {
			at = &w->next;
			continue;
		}
		again = w->owner && (w->owner->n_locks || w->owner->waits->next_of_owner);
		apply(t, w->handle, &w->req, w->owner);
		answer(at, 0, answers);
		if (again)
			at = &t->queue;
	}
}

/* ---- requests ---- */

static int check_request(const struct icm_lock_request *req)
{
	if (req->type != F_RDLCK && req->type != F_WRLCK && req->type != F_UNLCK)
		return -EINVAL;
	return !req->flock && req->start > req->end ? -EINVAL : 0;
}

/* A flock covers everything, and "to the end" has one spelling. */
static struct icm_lock_request normal_request(const struct icm_lock_request *req)
{
	struct icm_lock_request r = *req;

	if (r.flock)
		r.start = 0;
	if (r.flock || r.end > LAST_BYTE)
		r.end = LAST_BYTE;
	return r;
}

/* Applies a request that nothing is in the way of. */
static void grant(struct icm_lock_table *t, uint64_t handle, const struct icm_lock_request *req,
		  struct answers *answers)
{
	struct owner *owner = req->flock ? NULL : get_owner(t->set, req->owner);

	apply(t, handle, req, owner);
	drop_idle_owner(t->set, owner);
	serve(t, answers); /* it may have been a downgrade or an unlock */
}

/* Takes w out of the answers if it is there: then it was granted at once. */
static bool take_answer(struct answers *answers, const struct waiter *w)
{
	for (struct waiter **at = &answers->first; *at; at = &(*at)->next) {
		if (*at != w)
			continue;
		*at = w->next;
		if (!*at)
			answers->last = at;
		return true;
	}
	return false;
}

static void serve_all(struct icm_lock_set *s, struct answers *answers)
{
	for (struct icm_lock_table *t = s->tables; t; t = t->next)
		serve(t, answers);
}

/* Puts w into the queue, or says that it would wait for itself. */
static int park(struct icm_lock_table *t, struct waiter *w, struct answers *answers)
{
	if (w->owner && (w->owner->n_locks || w->owner->waits)) {
		if (waits_for(w, w->owner, false))
			return -EDEADLK;
		enqueue(t, w);
		/* A circle with a link "queues behind" is broken by letting
		 * someone pass, in whichever table. */
		if (waits_for(w, w->owner, true))
			serve_all(t->set, answers);
		return -EINPROGRESS;
	}
	enqueue(t, w);
	/* Others may get the lock that a conversion of a flock gives up. */
	if (w->req.flock && drop_flock(t, w->handle))
		serve(t, answers);
	return -EINPROGRESS;
}

static int request_wait(struct icm_lock_table *t, uint64_t handle,
			const struct icm_lock_request *req, uint64_t place, icm_lock_done_fn done,
			void *userdata, uint64_t *ret_token, struct answers *answers)
{
	struct waiter *w = icm_xcalloc(1, sizeof(*w));
	int r;

	*w = (struct waiter){
		.table = t,
		.owner = req->flock ? NULL : get_owner(t->set, req->owner),
		.req = *req,
		.handle = handle,
		.token = ++t->set->last_token,
		.place = place,
		.since = icm_wall_time(),
		.done = done,
		.userdata = userdata,
	};
	*ret_token = w->token;
	r = park(t, w, answers);
	if (r == -EDEADLK)
		drop_idle_owner(t->set, w->owner);
	else if (take_answer(answers, w))
		r = 0;
	if (r != -EINPROGRESS)
		free(w);
	return r;
}

static int request(struct icm_lock_table *t, uint64_t handle, const struct icm_lock_request *req,
		   icm_lock_done_fn done, void *userdata, uint64_t *ret_token,
		   struct answers *answers)
{
	uint64_t place;

	drop_old_places(t);
	place = req->wait ? take_place(t, handle, req) : 0;
	if (req->type == F_UNLCK || !next_conflict(t, NULL, handle, req)) {
		grant(t, handle, req, answers);
		return 0;
	}
	if (req->wait)
		return request_wait(t, handle, req, place, done, userdata, ret_token, answers);
	/* As Linux does: two who hold a shared lock and try to convert it in a
	 * loop would never come to an end if a failed attempt kept it. */
	if (req->flock && drop_flock(t, handle))
		serve(t, answers);
	return -EAGAIN;
}

int icm_lock_table_set(struct icm_lock_table *t, uint64_t handle,
		       const struct icm_lock_request *req, icm_lock_done_fn done, void *userdata,
		       struct icm_lock_wait **ret_wait)
{
	struct icm_lock_request normal = normal_request(req);
	struct answers answers = ANSWERS_INIT(answers);
	uint64_t token = 0;
	int r = check_request(req);

	if (r < 0)
		return r;
	pthread_mutex_lock(&t->set->mutex);
	r = request(t, handle, &normal, done, userdata, &token, &answers);
	/* Before the unlock, as the answer may come right behind it. A number,
	 * so that cancelling late finds nothing instead of somebody else. */
	if (r == -EINPROGRESS)
		*ret_wait = (struct icm_lock_wait *)(uintptr_t)token;
	pthread_mutex_unlock(&t->set->mutex);
	call_answers(&answers);
	return r;
}

static struct waiter *find_waiter(const struct icm_lock_set *s, uint64_t token)
{
	struct icm_map_node *node = icm_map_first(&s->waits, icm_hash_u64(token));

	for (; node; node = icm_map_next(node)) {
		struct waiter *w = ICM_CONTAINER(node, struct waiter, node);

		if (w->token == token)
			return w;
	}
	return NULL;
}

bool icm_lock_cancel(struct icm_lock_set *s, struct icm_lock_wait *wait)
{
	struct answers answers = ANSWERS_INIT(answers);
	struct waiter *w;

	pthread_mutex_lock(&s->mutex);
	w = find_waiter(s, (uintptr_t)wait);
	if (w) {
		retire(w);
		w->until_ns = icm_now_ns() + KEEP_PLACE_NS;
		serve(w->table, &answers); /* who stood behind it */
	}
	pthread_mutex_unlock(&s->mutex);
	call_answers(&answers);
	return w;
}

void icm_lock_table_get(struct icm_lock_table *t, uint64_t handle,
			const struct icm_lock_request *req, struct flock *lk)
{
	struct icm_lock_request normal = normal_request(req);
	const struct lock *first = NULL;
	struct lock *l = NULL;
	ICM_LOCK_SCOPE(&t->set->mutex);

	while ((l = next_conflict(t, l, handle, &normal)))
		if (!first || l->start < first->start)
			first = l;
	memset(lk, 0, sizeof(*lk));
	lk->l_type = F_UNLCK;
	if (!first)
		return;
	lk->l_type = (short)first->type;
	lk->l_whence = SEEK_SET;
	lk->l_start = (off_t)first->start;
	lk->l_len = first->end == LAST_BYTE ? 0 : (off_t)(first->end - first->start + 1);
	lk->l_pid = first->pid;
}

bool icm_lock_table_flush(struct icm_lock_table *t, uint64_t owner)
{
	struct answers answers = ANSWERS_INIT(answers);
	bool any = false;
	struct owner *o;

	pthread_mutex_lock(&t->set->mutex);
	o = find_owner(t->set, owner);
	if (o) {
		size_t before = o->n_locks;

		cut_records(t, o, 0, LAST_BYTE);
		any = o->n_locks < before;
		drop_idle_owner(t->set, o);
	}
	if (any)
		serve(t, &answers);
	pthread_mutex_unlock(&t->set->mutex);
	call_answers(&answers);
	return any;
}

static void drop_handle_records(struct icm_lock_table *t, uint64_t handle)
{
	struct lock **at = &t->records;

	while (*at) {
		struct owner *owner = (*at)->owner;

		if ((*at)->handle != handle) {
			at = &(*at)->next;
			continue;
		}
		remove_lock(at);
		drop_idle_owner(t->set, owner);
	}
}

static void fail_waiters(struct icm_lock_table *t, const uint64_t *handle, int error,
			 struct answers *answers)
{
	struct waiter **at = &t->queue;

	while (*at) {
		struct waiter *w = *at;

		if (handle && w->handle != *handle) {
			at = &w->next;
		} else if (is_waiting(w)) {
			answer(at, error, answers);
		} else {
			*at = w->next;
			free(w);
		}
	}
}

void icm_lock_table_release(struct icm_lock_table *t, uint64_t handle)
{
	struct answers answers = ANSWERS_INIT(answers);

	pthread_mutex_lock(&t->set->mutex);
	fail_waiters(t, &handle, -EBADF, &answers);
	drop_handle_records(t, handle);
	drop_flock(t, handle);
	serve(t, &answers);
	pthread_mutex_unlock(&t->set->mutex);
	call_answers(&answers);
}

void icm_lock_table_revoke(struct icm_lock_table *t, int error)
{
	struct answers answers = ANSWERS_INIT(answers);

	pthread_mutex_lock(&t->set->mutex);
	fail_waiters(t, NULL, error, &answers);
	while (t->records) {
		struct owner *owner = t->records->owner;

		remove_lock(&t->records);
		drop_idle_owner(t->set, owner);
	}
	while (t->flocks)
		remove_lock(&t->flocks);
	pthread_mutex_unlock(&t->set->mutex);
	call_answers(&answers);
}

/* ---- looking at it ---- */

bool icm_lock_table_has_owner(struct icm_lock_table *t, uint64_t owner)
{
	ICM_LOCK_SCOPE(&t->set->mutex);

	for (const struct lock *l = t->records; l; l = l->next)
		if (l->owner->id == owner)
			return true;
	return false;
}

bool icm_lock_table_downgrades(struct icm_lock_table *t, uint64_t handle,
			       const struct icm_lock_request *req)
{
	struct icm_lock_request n = normal_request(req);
	ICM_LOCK_SCOPE(&t->set->mutex);

	if (req->type != F_RDLCK)
		return false;
	for (const struct lock *l = req->flock ? t->flocks : t->records; l; l = l->next)
		if (l->type == F_WRLCK && overlaps(l, n.start, n.end) &&
		    (l->owner ? l->owner->id == req->owner : l->handle == handle))
			return true;
	return false;
}

static bool has_waiters(const struct icm_lock_table *t)
{
	for (const struct waiter *w = t->queue; w; w = w->next)
		if (is_waiting(w))
			return true;
	return false;
}

bool icm_lock_table_empty(struct icm_lock_table *t)
{
	ICM_LOCK_SCOPE(&t->set->mutex);

	return !t->records && !t->flocks && !has_waiters(t);
}

struct infos {
	struct icm_lock_info *v; /* owned */
	size_t n;
};

static void add_info(struct infos *infos, struct icm_lock_info info)
{
	infos->v = icm_xrealloc(infos->v, (infos->n + 1) * sizeof(*infos->v));
	infos->v[infos->n++] = info;
}

static void add_locks(struct infos *infos, const struct lock *l)
{
	for (; l; l = l->next)
		add_info(infos, (struct icm_lock_info){
					.flock = !l->owner,
					.type = l->type,
					.start = l->start,
					.end = l->end,
					.pid = l->pid,
					.since = l->since,
				});
}

static void collect_infos(struct icm_lock_table *t, struct infos *infos)
{
	ICM_LOCK_SCOPE(&t->set->mutex);

	add_locks(infos, t->flocks);
	add_locks(infos, t->records);
	for (const struct waiter *w = t->queue; w; w = w->next)
		if (is_waiting(w))
			add_info(infos, (struct icm_lock_info){
						.flock = w->req.flock,
						.waiting = true,
						.type = w->req.type,
						.start = w->req.start,
						.end = w->req.end,
						.pid = w->req.pid,
						.since = w->since,
					});
}

void icm_lock_table_list(struct icm_lock_table *t, icm_lock_info_fn fn, void *userdata)
{
	struct infos infos = { 0 };

	collect_infos(t, &infos);
	for (size_t i = 0; i < infos.n; i++)
		fn(userdata, &infos.v[i]);
	free(infos.v);
}

/* ---- life ---- */

struct icm_lock_set *icm_lock_set_new(void)
{
	struct icm_lock_set *s = icm_xcalloc(1, sizeof(*s));

	pthread_mutex_init(&s->mutex, NULL);
	return s;
}

struct icm_lock_set *icm_lock_set_free(struct icm_lock_set *s)
{
	if (!s)
		return NULL;
	assert(!s->tables && !s->owners.count && !s->waits.count);
	icm_map_free(&s->owners);
	icm_map_free(&s->waits);
	pthread_mutex_destroy(&s->mutex);
	free(s);
	return NULL;
}

struct icm_lock_table *icm_lock_table_new(struct icm_lock_set *s)
{
	struct icm_lock_table *t = icm_xcalloc(1, sizeof(*t));
	ICM_LOCK_SCOPE(&s->mutex);

	t->set = s;
	t->next = s->tables;
	if (t->next)
		t->next->prev = t;
	s->tables = t;
	return t;
}

static void unlist_table(struct icm_lock_table *t)
{
	ICM_LOCK_SCOPE(&t->set->mutex);

	if (t->next)
		t->next->prev = t->prev;
	if (t->prev)
		t->prev->next = t->next;
	else
		t->set->tables = t->next;
}

struct icm_lock_table *icm_lock_table_free(struct icm_lock_table *t)
{
	if (!t)
		return NULL;
	unlist_table(t);
	assert(!t->records && !t->flocks && !has_waiters(t));
	while (t->queue) {
		struct waiter *w = t->queue;

		t->queue = w->next;
		free(w);
	}
	free(t);
	return NULL;
}
