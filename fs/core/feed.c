/* SPDX-License-Identifier: MIT
 * Reading the feed: which records are new, in which order they are applied, and
 * the thread that waits for them. What a record does to the tree is in apply.c,
 * the listing of a whole tree in listing.c. */
#include "core/feed.h"

#include <inttypes.h>
#include <string.h>

#include "core/apply.h"
#include "core/commit.h"
#include "core/key.h"
#include "core/lease.h"
#include "core/upkeep.h"
#include "util/clock.h"
#include "util/log.h"

#define READ_BATCH 60 /* keys in one read transaction */

struct record {
	struct icm_feed_record rec;
	char *key; /* owned; NULL where the caller has it */
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
	for (size_t i = 0; i < n; i++) {
		if (v[i].valid)
			icm_feed_record_clear(&v[i].rec);
		free(v[i].key);
	}
	free(v);
}

int icm_feed_floor(struct icm_volume *vol, uint64_t *ret_floor, uint64_t *ret_index)
{
	struct icm_ctx ctx = icm_volume_ctx(vol);
	ICM_AUTOENTRY struct icm_entry e = { 0 };
	ICM_AUTOFREE char *text = NULL;
	int r = icm_backend_get(vol->be, &ctx, ICM_KEY_FLOOR, &e);

	if (r < 0)
		return r == -ENOENT ? -EPROTO : r;
	text = icm_xstrndup(e.value, e.len);
	*ret_floor = strtoull(text, NULL, 10);
	*ret_index = e.modify_index;
	return 0;
}

/* Reads the records with these keys; one that is gone makes it -EAGAIN. */
static int read_records(struct icm_volume *vol, char *const *keys, size_t n, struct record *out)
{
	for (size_t at = 0; at < n; at += READ_BATCH) {
		size_t count = n - at < READ_BATCH ? n - at : READ_BATCH;
		struct icm_ctx ctx = icm_volume_ctx(vol);
		ICM_AUTORESULT struct icm_txn_result res = { 0 };
		struct icm_op ops[READ_BATCH] = { 0 };
		int r;

		for (size_t i = 0; i < count; i++)
			ops[i] = (struct icm_op){ ICM_OP_GET, .key = keys[at + i] };
		r = icm_backend_txn(vol->be, &ctx, ops, count, &res);
		if (r == -ESTALE)
			return -EAGAIN;
		if (r < 0)
			return r;
		for (size_t i = 0; i < res.entries.n; i++) {
			const struct icm_entry *e = &res.entries.v[i];
			struct record *rec = &out[at + i];

			rec->index = e->modify_index;
			rec->valid = icm_feed_record_decode(e->value, e->len, &rec->rec) == 0;
			if (!rec->valid)
				icm_log_err("feed record '%s' is damaged; the tree is listed anew",
					    e->key);
		}
	}
	return 0;
}

static bool is_own(struct icm_volume *vol, const struct icm_feed_record *rec)
{
	ICM_AUTOFREE char *key = NULL;
	uint64_t index;

	return icm_lease_guard(vol, &key, &index) == 0 && strcmp(key, rec->lease) == 0;
}

/* Applies what isn't own and newer than the position. Returns whether the tree
 * has to be listed anew. */
static bool apply_records(struct icm_volume *vol, struct record *v, size_t n)
{
	bool again = false;

	qsort(v, n, sizeof(*v), by_index);
	for (size_t i = 0; i < n; i++) {
		if (!v[i].valid)
			again = true;
		else if (!is_own(vol, &v[i].rec) && !icm_apply_record(vol, &v[i].rec, v[i].index))
			again = true;
	}
	return again;
}

/* Keys of the feed that may hold something new. */
static int new_keys(struct icm_volume *vol, char ***ret_keys, size_t *ret_n, size_t *ret_all,
		    uint64_t *ret_index)
{
	struct icm_ctx ctx = icm_volume_ctx(vol);
	ICM_AUTOENTRIES struct icm_entries list = { 0 };
	uint64_t position;
	int r = icm_backend_list(vol->be, &ctx, "feed/", true, &list, ret_index);

	if (r < 0)
		return r;
	pthread_mutex_lock(&vol->lock);
	position = vol->position;
	pthread_mutex_unlock(&vol->lock);
	*ret_keys = icm_xcalloc(list.n, sizeof(**ret_keys));
	*ret_n = 0;
	*ret_all = list.n;
	for (size_t i = 0; i < list.n; i++)
		/* a store that doesn't tell indexes of keys says 0 */
		if (!list.v[i].modify_index || list.v[i].modify_index > position)
			(*ret_keys)[(*ret_n)++] = ICM_STEAL(&list.v[i].key);
	return 0;
}

static void set_reachable(struct icm_volume *vol, bool reachable)
{
	pthread_mutex_lock(&vol->lock);
	if (vol->reachable != reachable)
		icm_log_warning(reachable ? "the store '%s' answers again"
					  : "the store '%s' does not answer, trying on",
				vol->be->url);
	vol->reachable = reachable;
	pthread_mutex_unlock(&vol->lock);
}

static int catch_up_once(struct icm_volume *vol, size_t *ret_all)
{
	char **keys = NULL;
	size_t n = 0;
	uint64_t index, floor = 0, floor_index, position;
	struct record *records;
	bool again;
	int r = new_keys(vol, &keys, &n, ret_all, &index);

	if (r < 0)
		return r;
	records = icm_xcalloc(n, sizeof(*records));
	if (n)
		r = read_records(vol, keys, n, records);
	if (r == 0)
		r = icm_feed_floor(vol, &floor, &floor_index);
	pthread_mutex_lock(&vol->lock);
	position = vol->position;
	again = vol->resync_wanted;
	pthread_mutex_unlock(&vol->lock);
	if (r == 0 && (floor > position || again)) {
		r = icm_feed_list(vol);
	} else if (r == 0) {
		if (apply_records(vol, records, n))
			r = icm_feed_list(vol);
		pthread_mutex_lock(&vol->lock);
		if (index > vol->position)
			vol->position = index;
		pthread_mutex_unlock(&vol->lock);
	}
	free_records(records, n);
	for (size_t i = 0; i < n; i++)
		free(keys[i]);
	free(keys);
	return r;
}

/* feed_lock held. */
static int catch_up(struct icm_volume *vol, size_t *ret_all)
{
	int r = -EAGAIN;

	/* another mount may move records to the log between our two looks */
	for (int tries = 0; r == -EAGAIN && tries < ICM_CONFLICT_TRIES; tries++)
		r = catch_up_once(vol, ret_all);
	return r == -EAGAIN ? icm_feed_list(vol) : r;
}

int icm_feed_catch_up(struct icm_volume *vol)
{
	size_t all;
	int r;
	ICM_LOCK_SCOPE(&vol->feed_lock);

	r = catch_up(vol, &all);
	if (r == 0 || r == -EHOSTUNREACH || r == -ETIMEDOUT)
		set_reachable(vol, r == 0);
	return r;
}

int icm_volume_catch_up(struct icm_volume *vol)
{
	struct icm_ctx ctx = icm_volume_ctx(vol);
	uint64_t index, position;
	int r = icm_backend_index(vol->be, &ctx, "feed/", &index);

	if (r < 0)
		return r;
	pthread_mutex_lock(&vol->lock);
	position = vol->resync_wanted ? 0 : vol->position;
	pthread_mutex_unlock(&vol->lock);
	return index <= position ? 0 : icm_feed_catch_up(vol);
}

void icm_feed_own_commit(struct icm_volume *vol, uint64_t index)
{
	/* nobody else's change can lie in between */
	if (index == vol->position + 1)
		vol->position = index;
}

/* ---- the watch ---- */

/* Own commits move the store's index as well, and are in the tree by themselves. */
static bool is_known(struct icm_volume *vol, uint64_t index)
{
	ICM_LOCK_SCOPE(&vol->lock);

	return !vol->resync_wanted && index <= vol->position;
}

static void *watch_thread(void *arg)
{
	struct icm_volume *vol = arg;
	uint64_t since;

	pthread_mutex_lock(&vol->lock);
	since = vol->position;
	pthread_mutex_unlock(&vol->lock);
	while (!atomic_load(&vol->stopping)) {
		int64_t due = icm_file_thaw_old(vol);
		struct icm_ctx ctx = { .cancel = &vol->stopping,
				       .others = true,
				       .deadline_ns = due ? icm_now_ns() + due : 0 };
		uint64_t index = since;
		size_t all = 0;
		int r = icm_backend_watch(vol->be, &ctx, "feed/", since, &index);

		if (atomic_load(&vol->stopping))
			break;
		if (r == -ETIMEDOUT)
			continue;
		if (r == 0 && !is_known(vol, index)) {
			pthread_mutex_lock(&vol->feed_lock);
			r = catch_up(vol, &all);
			pthread_mutex_unlock(&vol->feed_lock);
			if (r == 0)
				icm_upkeep_feed_size(vol, all);
		}
		set_reachable(vol, r == 0);
		if (r < 0) {
			/* a failing store is asked again, but not in a tight loop */
			struct timespec ts = { .tv_nsec = 200 * ICM_NS_PER_MS };

			nanosleep(&ts, NULL);
			continue;
		}
		since = index;
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
