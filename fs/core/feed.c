/* SPDX-License-Identifier: MIT
 * Reading the feed: which records are new, in which order they are applied, and
 * the thread that waits for them. What a record does to the tree is in apply.c,
 * the listing of a whole tree in listing.c. */
#include "core/feed.h"

#include <inttypes.h>
#include <string.h>

#include "core/apply.h"
#include "core/commit.h"
#include "core/foreign.h"
#include "core/key.h"
#include "core/lease.h"
#include "core/look.h"
#include "core/upkeep.h"
#include "util/clock.h"
#include "util/log.h"

#define READ_BATCH 60 /* keys in one read transaction */

struct record {
	struct icm_feed_record rec;
	uint64_t index;
	bool valid;
};

static int by_index(const void *a, const void *b)
{
	const struct record *x = a, *y = b;

	return (x->index > y->index) - (x->index < y->index);
}

static void free_records(struct record *v, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (v[i].valid)
			icm_feed_record_clear(&v[i].rec);
	free(v);
}

static uint64_t parse_floor(const struct icm_entry *e)
{
	ICM_AUTOFREE char *text = icm_xstrndup(e->value, e->len);

	return strtoull(text, NULL, 10);
}

int icm_feed_floor(struct icm_volume *vol, uint64_t *ret_floor, uint64_t *ret_index)
{
	struct icm_ctx ctx = icm_volume_ctx(vol);
	ICM_AUTOENTRY struct icm_entry e = { 0 };
	int r = icm_backend_get(vol->be, &ctx, ICM_KEY_FLOOR, &e);

	if (r < 0)
		return r == -ENOENT ? -EPROTO : r;
	*ret_floor = parse_floor(&e);
	*ret_index = e.modify_index;
	return 0;
}

static void take_record(struct icm_volume *vol, const struct icm_entry *e, struct record *rec)
{
	rec->index = e->modify_index;
	rec->valid = icm_feed_record_decode(e->value, e->len, &rec->rec) == 0;
	if (!rec->valid)
		icm_log_err("feed record '%s' is damaged; the tree is listed anew", e->key);
}

/* One transaction: the floor, and the records with these keys. -EAGAIN: one of
 * them is gone. */
static int read_batch(struct icm_volume *vol, char *const *keys, size_t n, struct record *out,
		      uint64_t *ret_floor)
{
	struct icm_ctx ctx = icm_volume_ctx(vol);
	ICM_AUTORESULT struct icm_txn_result res = { 0 };
	struct icm_op ops[1 + READ_BATCH] = { { ICM_OP_GET, .key = ICM_KEY_FLOOR } };
	int r;

	for (size_t i = 0; i < n; i++)
		ops[1 + i] = (struct icm_op){ ICM_OP_GET, .key = keys[i] };
	r = icm_backend_txn(vol->be, &ctx, ops, 1 + n, &res);
	if (r == -ESTALE)
		return res.n_errors && res.errors[0].op == 0 ? -EPROTO : -EAGAIN;
	for (size_t i = 0; r == 0 && i < res.entries.n; i++) {
		const struct icm_entry *e = &res.entries.v[i];

		if (e->op == 0)
			*ret_floor = parse_floor(e);
		else
			take_record(vol, e, &out[e->op - 1]);
	}
	return r;
}

/* The floor counts as it is after the keys were listed, and before any later batch:
 * a record that goes meanwhile fails its batch. */
static int read_records(struct icm_volume *vol, char *const *keys, size_t n, struct record *out,
			uint64_t *ret_floor)
{
	size_t at = 0;
	int r;

	do {
		size_t count = n - at < READ_BATCH ? n - at : READ_BATCH;
		uint64_t floor;

		r = read_batch(vol, keys + at, count, out + at, at ? &floor : ret_floor);
		at += count;
	} while (r == 0 && at < n);
	return r;
}

static bool is_own(struct icm_volume *vol, const struct icm_feed_record *rec)
{
	ICM_AUTOFREE char *key = NULL;
	uint64_t index;

	return icm_lease_guard(vol, &key, &index) == 0 && strcmp(key, rec->lease) == 0;
}

/* Applies what isn't own and newer than the position. Returns whether the tree
 * has to be listed anew: what comes after a record that doesn't fit would be
 * applied to something else. */
static bool apply_records(struct icm_volume *vol, struct record *v, size_t n)
{
	bool again = false;

	qsort(v, n, sizeof(*v), by_index);
	for (size_t i = 0; i < n && !again; i++) {
		if (!v[i].valid)
			again = true;
		else if (is_own(vol, &v[i].rec))
			continue;
		else if (!v[i].rec.n_changes) /* the decision of one that comes later */
			icm_upkeep_changes(vol);
		else if (!icm_apply_record(vol, &v[i].rec, v[i].index))
			again = true;
	}
	return again;
}

/* ---- which records are new ---- */

static struct icm_known_txn *find_known(struct icm_volume *vol, uint64_t index)
{
	for (size_t i = 0; i < ICM_KNOWN_TXNS; i++)
		if (vol->known[i].index == index)
			return &vol->known[i];
	return NULL;
}

void icm_feed_note_own(struct icm_volume *vol, const char *id, uint64_t index, uint64_t before)
{
	struct icm_known_txn *known;
	ICM_LOCK_SCOPE(&vol->lock);

	known = find_known(vol, index);
	if (!known) {
		known = &vol->known[vol->next_known++ % ICM_KNOWN_TXNS];
		*known = (struct icm_known_txn){ .index = index };
		snprintf(known->id, sizeof(known->id), "%s", id);
	}
	known->before = before; /* it may have been read in the feed before its answer came */
}

void icm_feed_note(struct icm_volume *vol, const char *id, uint64_t index)
{
	struct icm_known_txn *known;
	ICM_LOCK_SCOPE(&vol->lock);

	if (find_known(vol, index))
		return;
	known = &vol->known[vol->next_known++ % ICM_KNOWN_TXNS];
	*known = (struct icm_known_txn){ .index = index };
	snprintf(known->id, sizeof(known->id), "%s", id);
}

bool icm_feed_knows(struct icm_volume *vol, uint64_t index)
{
	ICM_LOCK_SCOPE(&vol->lock);

	return find_known(vol, index) != NULL;
}

/* Where indexes have no gaps, a transaction that is nobody's can be seen by its
 * index alone: it may be another mount's lock, or a foreign writer. volume->lock
 * held; the store is at `index`, the position not yet. */
static void note_unexplained(struct icm_volume *vol, uint64_t index)
{
	uint64_t known = 0;

	for (size_t i = 0; i < ICM_KNOWN_TXNS; i++)
		known += vol->known[i].index > vol->position && vol->known[i].index <= index;
	if (index > vol->position && known < index - vol->position)
		vol->unexplained = index;
}

static void forget_indexes(struct icm_inode *dir)
{
	dir->index = 0;
	for (struct icm_name *name = dir->first; name; name = name->next) {
		name->attr_index = name->tree_index = 0;
		name->moved_index = name->before_index = 0;
		name->inode->index = name->inode->compared = 0;
		if (icm_inode_is_dir(name->inode))
			forget_indexes(name->inode);
	}
}

void icm_feed_restart(struct icm_volume *vol)
{
	ICM_LOCK_SCOPE(&vol->lock);

	icm_log_warning("the indexes of '%s' have gone back: the tree is read anew", vol->be->url);
	for (size_t i = 0; i < ICM_GRAVES; i++)
		vol->graves[i].index = 0;
	memset(vol->known, 0, sizeof(vol->known));
	icm_look_forget(vol);
	forget_indexes(vol->tree.root);
	vol->tree.root->names->attr_index = 0;
	vol->position = vol->compared = vol->unexplained = 0;
	icm_volume_want_resync(vol);
}

/* volume->lock held. */
static bool is_known_record(struct icm_volume *vol, const char *key)
{
	for (size_t i = 0; i < ICM_KNOWN_TXNS; i++)
		if (strcmp(vol->known[i].id, key + strlen("feed/")) == 0)
			return true;
	return false;
}

/* Both lists are in byte order; *at is the position in the older one. */
static bool was_seen(const struct icm_entries *seen, size_t *at, const char *key)
{
	int order = 1;

	while (*at < seen->n && (order = strcmp(seen->v[*at].key, key)) < 0)
		++*at;
	return *at < seen->n && order == 0;
}

/* Takes the keys out of `list` (they stay in it, borrowed) that have to be read:
 * where the store tells their indexes, those behind the position; else those that
 * weren't there the last time. What this mount knows anyway needs no reading. */
static char **new_keys(struct icm_volume *vol, const struct icm_entries *list, size_t *ret_n)
{
	char **keys = icm_xcalloc(list->n, sizeof(*keys));
	size_t at = 0;
	ICM_LOCK_SCOPE(&vol->lock);

	*ret_n = 0;
	for (size_t i = 0; i < list->n; i++) {
		const struct icm_entry *e = &list->v[i];
		bool old = e->modify_index ? e->modify_index <= vol->position
					   : was_seen(&vol->feed_seen, &at, e->key);

		if (!old && !is_known_record(vol, e->key))
			keys[(*ret_n)++] = e->key;
	}
	return keys;
}

static int list_keys(struct icm_volume *vol, struct icm_entries *list, uint64_t *ret_index)
{
	struct icm_ctx ctx = icm_volume_ctx(vol);

	return icm_backend_list(vol->be, &ctx, "feed/", true, list, ret_index);
}

static void set_seen(struct icm_volume *vol, struct icm_entries *list)
{
	icm_entries_clear(&vol->feed_seen);
	vol->feed_seen = *list;
	*list = (struct icm_entries){ 0 };
}

int icm_feed_see(struct icm_volume *vol)
{
	ICM_AUTOENTRIES struct icm_entries list = { 0 };
	uint64_t index;
	int r = list_keys(vol, &list, &index);

	if (r == 0)
		set_seen(vol, &list);
	return r;
}

static int catch_up_once(struct icm_volume *vol, size_t *ret_all)
{
	ICM_AUTOENTRIES struct icm_entries list = { 0 };
	ICM_AUTOFREE char **keys = NULL;
	struct record *records;
	uint64_t index, floor = 0;
	size_t n = 0;
	bool again;
	int r = list_keys(vol, &list, &index);

	if (r < 0)
		return r;
	*ret_all = list.n;
	keys = new_keys(vol, &list, &n);
	records = icm_xcalloc(n, sizeof(*records));
	r = read_records(vol, keys, n, records, &floor);
	pthread_mutex_lock(&vol->lock);
	again = icm_volume_wants_resync(vol) || floor > vol->position;
	pthread_mutex_unlock(&vol->lock);
	if (r == 0 && (again || apply_records(vol, records, n)))
		r = icm_feed_list(vol);
	if (r == 0) {
		set_seen(vol, &list);
		for (size_t i = 0; i < n; i++)
			if (records[i].valid)
				icm_feed_note(vol, records[i].rec.id, records[i].index);
		pthread_mutex_lock(&vol->lock);
		if (again)
			vol->unexplained = index; /* what the listing left out is not known */
		else
			note_unexplained(vol, index);
		if (!again && index > vol->position)
			vol->position = index;
		pthread_mutex_unlock(&vol->lock);
	}
	free_records(records, n);
	return r;
}

/* The tree is certainly as the store was at some time after it was away. */
static void set_fresh(struct icm_volume *vol)
{
	ICM_LOCK_SCOPE(&vol->lock);

	vol->stale = false;
}

/* feed_lock held. */
static int catch_up(struct icm_volume *vol, size_t *ret_all)
{
	int r = -EAGAIN;

	/* another mount may move records to the log between our two looks */
	for (int tries = 0; r == -EAGAIN && tries < ICM_CONFLICT_TRIES; tries++)
		r = catch_up_once(vol, ret_all);
	if (r == -EAGAIN)
		r = icm_feed_list(vol);
	if (r == 0)
		set_fresh(vol);
	return r;
}

/* Own commits move the store's index as well, and are in the tree by themselves. */
static bool is_known(struct icm_volume *vol, uint64_t index)
{
	ICM_LOCK_SCOPE(&vol->lock);

	return !icm_volume_wants_resync(vol) && index <= vol->position;
}

int icm_feed_catch_up_to(struct icm_volume *vol, uint64_t index)
{
	size_t all;
	int r;
	ICM_LOCK_SCOPE(&vol->feed_lock);

	if (is_known(vol, index))
		return 0;
	r = catch_up(vol, &all);
	if (r == 0 || r == -EHOSTUNREACH || r == -ETIMEDOUT)
		icm_volume_set_reachable(vol, r == 0);
	return r;
}

int icm_feed_catch_up(struct icm_volume *vol)
{
	size_t all;
	int r;
	ICM_LOCK_SCOPE(&vol->feed_lock);

	r = catch_up(vol, &all);
	if (r == 0 || r == -EHOSTUNREACH || r == -ETIMEDOUT)
		icm_volume_set_reachable(vol, r == 0);
	return r;
}

int icm_volume_catch_up(struct icm_volume *vol)
{
	struct icm_ctx ctx = icm_volume_ctx(vol);
	uint64_t index, position;
	int r = icm_volume_heard(vol, icm_backend_index(vol->be, &ctx, "feed/", &index));

	if (r < 0)
		return r;
	pthread_mutex_lock(&vol->lock);
	position = icm_volume_wants_resync(vol) ? 0 : vol->position;
	vol->stale &= index > position;
	pthread_mutex_unlock(&vol->lock);
	return index <= position ? 0 : icm_feed_catch_up(vol);
}

/* How long a watch waits for the answer to a transaction that it has heard of. */
#define ANSWER_TRIES 20
#define ANSWER_NS    ICM_NS_PER_MS

bool icm_feed_becomes_known(struct icm_volume *vol, uint64_t index)
{
	struct timespec pause = { .tv_nsec = ANSWER_NS };
	bool wait = icm_commits_under_way(vol);

	for (int tries = 0; wait && tries < ANSWER_TRIES && !is_known(vol, index); tries++)
		nanosleep(&pause, NULL);
	return is_known(vol, index);
}

/* Longer than a store takes that is well. */
#define GLANCE_NS ICM_NS_PER_S

void icm_volume_glance(struct icm_volume *vol)
{
	struct icm_ctx ctx = { .deadline_ns = icm_now_ns() + GLANCE_NS };
	struct timespec until = icm_wall_time();
	uint64_t index;
	size_t all;
	bool known;

	pthread_mutex_lock(&vol->lock);
	known = !vol->reachable;
	pthread_mutex_unlock(&vol->lock);
	if (known || icm_backend_index(vol->be, &ctx, "feed/", &index) < 0 || is_known(vol, index))
		return;
	until.tv_sec++;
	if (pthread_mutex_timedlock(&vol->feed_lock, &until) != 0)
		return; /* who has it waits for the store */
	(void)!catch_up(vol, &all);
	pthread_mutex_unlock(&vol->feed_lock);
}

/* An own transaction before which nobody's record is that the tree doesn't have. */
static struct icm_known_txn *next_own(struct icm_volume *vol)
{
	for (size_t i = 0; i < ICM_KNOWN_TXNS; i++) {
		struct icm_known_txn *known = &vol->known[i];

		if (known->in_tree && known->before && known->before <= vol->position &&
		    known->index > vol->position)
			return known;
	}
	return NULL;
}

void icm_feed_own_commit(struct icm_volume *vol, uint64_t index)
{
	struct icm_known_txn *known = find_known(vol, index);

	/* nobody else's change can lie in between */
	if (index == vol->position + 1)
		vol->position = index;
	icm_copy_changed(vol, index);
	if (!known)
		return;
	known->in_tree = true;
	/* nor between an own change and the one that `head` told of before it */
	while ((known = next_own(vol))) {
		vol->position = vol->own_index = known->index;
		vol->own_ns = icm_now_ns();
	}
}

/* As long as others' changes take to be seen by stat() anyway. */
#define JUST_NS (10 * ICM_NS_PER_MS)

bool icm_feed_just_made(const struct icm_volume *vol, const struct icm_inode *inode)
{
	uint64_t index = inode->index;

	if (inode->names && inode->names->attr_index > index)
		index = inode->names->attr_index;
	return index && index == vol->own_index && icm_now_ns() - vol->own_ns < JUST_NS;
}

/* ---- the watch ---- */

static void pause_ns(long ns)
{
	struct timespec ts = { .tv_nsec = ns };

	nanosleep(&ts, NULL);
}

void icm_feed_pause(void)
{
	pause_ns(200 * ICM_NS_PER_MS);
}

/* Before the next wait, after one that told of nothing but own commits: whoever saves
 * many files would else be told of each. Others' changes may be seen so much later. */
#define OWN_PAUSE_NS (5 * ICM_NS_PER_MS)

/* A listing shows attr/ as it is: a mount that may not adopt compares again. */
static int compare_after_listing(struct icm_volume *vol)
{
	bool wanted;

	pthread_mutex_lock(&vol->lock);
	wanted = vol->compare_wanted;
	vol->compare_wanted = false;
	pthread_mutex_unlock(&vol->lock);
	return wanted ? icm_foreign_compare(vol, false) : 0;
}

/* A watch that nothing happens to says nothing of a store that is gone, or back. */
#define ASK_EACH_NS (15 * ICM_NS_PER_S)
#define ASK_NS	    (5 * ICM_NS_PER_S)

static int64_t watch_until(const struct icm_volume *vol, int64_t due, int64_t asked_ns)
{
	int64_t until = due ? icm_now_ns() + due : 0;

	if (!vol->be->facts.local && (!until || until > asked_ns + ASK_EACH_NS))
		until = asked_ns + ASK_EACH_NS;
	return until;
}

/* When it is time to: what is not known yet, the next watch tells at once. */
static void ask(struct icm_volume *vol, int64_t *asked_ns)
{
	struct icm_ctx ctx = { .cancel = &vol->stopping, .deadline_ns = icm_now_ns() + ASK_NS };
	uint64_t index;
	int r;

	if (vol->be->facts.local || icm_now_ns() < *asked_ns + ASK_EACH_NS)
		return;
	r = icm_backend_index(vol->be, &ctx, "feed/", &index);
	*asked_ns = icm_now_ns();
	if (r == -ECANCELED)
		return;
	icm_volume_set_reachable(vol, r == 0);
	if (r == 0 && is_known(vol, index))
		set_fresh(vol);
}

static int follow(struct icm_volume *vol, uint64_t index)
{
	size_t all = 0;
	int r;

	icm_volume_be_patient(vol);
	pthread_mutex_lock(&vol->feed_lock);
	/* the watch of tree/ is told of the same at the same time */
	r = is_known(vol, index) ? 0 : catch_up(vol, &all);
	pthread_mutex_unlock(&vol->feed_lock);
	if (r == 0)
		icm_upkeep_feed_size(vol, all);
	return r == 0 ? compare_after_listing(vol) : r;
}

static void *watch_thread(void *arg)
{
	struct icm_volume *vol = arg;
	int64_t asked_ns = icm_now_ns();
	uint64_t since;

	pthread_mutex_lock(&vol->lock);
	since = vol->position;
	pthread_mutex_unlock(&vol->lock);
	while (!atomic_load(&vol->stopping)) {
		int64_t due = icm_file_thaw_old(vol);
		struct icm_ctx ctx = { .cancel = &vol->stopping,
				       .others = true,
				       .deadline_ns = watch_until(vol, due, asked_ns) };
		uint64_t index = since;
		int r = icm_backend_watch(vol->be, &ctx, "feed/", since, &index);

		if (atomic_load(&vol->stopping))
			break;
		if (r == -ETIMEDOUT) {
			ask(vol, &asked_ns);
			continue;
		}
		if (r == 0 && icm_feed_becomes_known(vol, index))
			pause_ns(OWN_PAUSE_NS);
		else if (r == 0)
			r = follow(vol, index);
		icm_volume_set_reachable(vol, r == 0);
		if (r < 0) {
			icm_feed_pause();
			continue;
		}
		since = index;
		set_fresh(vol);
		icm_copy_changed(vol, UINT64_MAX);
		icm_volume_load_ignore(vol);
	}
	return NULL;
}

int icm_feed_start(struct icm_volume *vol)
{
	return -pthread_create(&vol->watcher, NULL, watch_thread, vol);
}

void icm_feed_stop(struct icm_volume *vol)
{
	atomic_store(&vol->stopping, true);
	icm_backend_wake(vol->be);
	pthread_join(vol->watcher, NULL);
}
