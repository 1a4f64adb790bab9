/* SPDX-License-Identifier: MIT */
#include "core/upkeep.h"

#include <inttypes.h>
#include <string.h>

#include "core/change.h"
#include "core/commit.h"
#include "core/feed.h"
#include "core/key.h"
#include "util/clock.h"
#include "util/log.h"

/* The feed's length costs whoever reads its keys; a move costs one transaction. */
#define FEED_KEEP    64	 /* records that stay when the oldest are moved */
#define FEED_MAX     128 /* more are too many */
#define FEED_LOCAL   256 /* the same on a local store, where reading them is cheap */
#define FEED_MOVE    58	 /* at most so many at once, for a store with Consul's limits */
#define LOG_SEGMENTS 256 /* kept */
#define COMMITS	     32	 /* between two looks */

/* Between two looks whether a change has lost its mount. */
#define CHANGES_NS ICM_NS_PER_S

struct icm_upkeep {
	pthread_mutex_t lock;
	pthread_cond_t cond;
	pthread_t thread;
	unsigned commits; /* since the last look */
	bool wanted, stop;
	bool changes;	    /* of several transactions: to be looked after … */
	int64_t changes_ns; /* … from then on */
};

static size_t feed_max(const struct icm_volume *vol)
{
	return vol->be->facts.local ? FEED_LOCAL : FEED_MAX;
}

/* ---- moving old records to the log ---- */

static int by_index(const void *a, const void *b)
{
	const struct icm_entry *x = a, *y = b;

	return (x->modify_index > y->modify_index) - (x->modify_index < y->modify_index);
}

static void segment_free(struct icm_log_segment *seg)
{
	for (size_t i = 0; i < seg->n; i++)
		icm_feed_record_clear(&seg->records[i]);
	free(seg->records);
	free(seg->indexes);
}

/* One transaction: the first n entries of the feed out of it, into a segment. */
static int move_to_log(struct icm_volume *vol, const struct icm_entry *v, size_t n,
		       uint64_t floor_index)
{
	struct icm_log_segment seg = { .records = icm_xcalloc(n, sizeof(*seg.records)),
				       .indexes = icm_xcalloc(n, sizeof(*seg.indexes)) };
	ICM_AUTOPART struct icm_part part = ICM_PART_INIT;
	uint64_t last = v[n - 1].modify_index;
	char *floor = icm_asprintf("%" PRIu64, last);
	char *value;
	size_t len;

	for (size_t i = 0; i < n; i++) {
		icm_part_delete(&part, icm_xstrdup(v[i].key));
		if (icm_feed_record_decode(v[i].value, v[i].len, &seg.records[seg.n]) < 0)
			continue; /* damaged: nothing to keep */
		seg.indexes[seg.n++] = v[i].modify_index;
	}
	value = icm_log_segment_encode(&seg, &len);
	segment_free(&seg);
	icm_part_cas(&part, icm_xstrdup(ICM_KEY_FLOOR), floor_index, floor, strlen(floor), 0);
	icm_part_set(&part, icm_asprintf("log/%020" PRIu64, last), value, len, 0);
	if (!icm_part_fits(vol, &part) && n > 1)
		return move_to_log(vol, v, n / 2, floor_index);
	return icm_commit_quiet(vol, &part);
}

static void drop_old_log(struct icm_volume *vol)
{
	struct icm_ctx ctx = icm_volume_ctx(vol);
	ICM_AUTOENTRIES struct icm_entries list = { 0 };
	ICM_AUTOPART struct icm_part part = ICM_PART_INIT;
	uint64_t index;

	if (icm_backend_list(vol->be, &ctx, "log/", true, &list, &index) < 0)
		return;
	for (size_t i = 0; i + LOG_SEGMENTS < list.n && i < FEED_MOVE; i++)
		icm_part_delete(&part, icm_xstrdup(list.v[i].key));
	if (part.n_ops && icm_commit_quiet(vol, &part) < 0)
		icm_log_debug("old log segments stay for now");
}

/* Any mount does it; another one that is faster makes ours fail, which is fine. */
static void trim_feed(struct icm_volume *vol)
{
	struct icm_ctx ctx = icm_volume_ctx(vol);
	ICM_AUTOENTRIES struct icm_entries list = { 0 };
	uint64_t floor, floor_index, index;
	size_t old, most = vol->be->facts.local ? FEED_LOCAL : FEED_MOVE;
	int r;

	if (icm_feed_floor(vol, &floor, &floor_index) < 0 ||
	    icm_backend_list(vol->be, &ctx, "feed/", false, &list, &index) < 0 ||
	    list.n <= FEED_KEEP)
		return;
	qsort(list.v, list.n, sizeof(*list.v), by_index);
	old = list.n - FEED_KEEP;
	r = move_to_log(vol, list.v, old < most ? old : most, floor_index);
	if (r == 0)
		drop_old_log(vol);
	else
		icm_log_debug("feed not trimmed: %s", strerror(-r));
}

static bool feed_is_long(struct icm_volume *vol)
{
	struct icm_ctx ctx = icm_volume_ctx(vol);
	ICM_AUTOENTRIES struct icm_entries list = { 0 };
	uint64_t index;

	return icm_backend_list(vol->be, &ctx, "feed/", true, &list, &index) == 0 &&
	       list.n > feed_max(vol);
}

/* ---- the thread ---- */

/* Until something is wanted, or changes are due; u->lock held. */
static void sleep_locked(struct icm_upkeep *u)
{
	struct timespec until = icm_ns_to_timespec(u->changes_ns);

	if (u->changes)
		pthread_cond_timedwait(&u->cond, &u->lock, &until);
	else
		pthread_cond_wait(&u->cond, &u->lock);
}

static void look_after_feed(struct icm_volume *vol)
{
	if (feed_is_long(vol))
		trim_feed(vol);
	icm_backend_maintain(vol->be);
}

static void look_after_changes(struct icm_volume *vol)
{
	bool left;

	icm_change_end_orphans(vol, &left);
	if (left)
		icm_upkeep_changes(vol);
}

static void *upkeep_thread(void *arg)
{
	struct icm_volume *vol = arg;
	struct icm_upkeep *u = vol->upkeep;

	pthread_mutex_lock(&u->lock);
	while (!u->stop) {
		bool feed = u->wanted, changes = u->changes && u->changes_ns <= icm_now_ns();

		if (!feed && !changes) {
			sleep_locked(u);
			continue;
		}
		if (feed)
			u->commits = 0;
		u->wanted = false;
		u->changes = u->changes && !changes;
		pthread_mutex_unlock(&u->lock);
		if (feed)
			look_after_feed(vol);
		if (changes)
			look_after_changes(vol);
		pthread_mutex_lock(&u->lock);
	}
	pthread_mutex_unlock(&u->lock);
	return NULL;
}

static void want_locked(struct icm_upkeep *u)
{
	u->wanted = true;
	pthread_cond_signal(&u->cond);
}

void icm_upkeep_commit(struct icm_volume *vol)
{
	struct icm_upkeep *u = vol->upkeep;

	if (!u)
		return;
	ICM_LOCK_SCOPE(&u->lock);
	if (++u->commits == COMMITS)
		want_locked(u);
}

void icm_upkeep_feed_size(struct icm_volume *vol, size_t n)
{
	struct icm_upkeep *u = vol->upkeep;

	if (!u || n <= 2 * feed_max(vol))
		return;
	ICM_LOCK_SCOPE(&u->lock);
	want_locked(u);
}

void icm_upkeep_changes(struct icm_volume *vol)
{
	struct icm_upkeep *u = vol->upkeep;

	if (!u)
		return;
	ICM_LOCK_SCOPE(&u->lock);
	u->changes = true;
	u->changes_ns = icm_now_ns() + CHANGES_NS;
	pthread_cond_signal(&u->cond);
}

static void upkeep_free(struct icm_volume *vol)
{
	pthread_cond_destroy(&vol->upkeep->cond);
	pthread_mutex_destroy(&vol->upkeep->lock);
	free(vol->upkeep);
	vol->upkeep = NULL;
}

int icm_upkeep_start(struct icm_volume *vol)
{
	pthread_condattr_t attr;
	int r;

	if (vol->read_only)
		return 0;
	vol->upkeep = icm_xcalloc(1, sizeof(*vol->upkeep));
	pthread_mutex_init(&vol->upkeep->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&vol->upkeep->cond, &attr);
	pthread_condattr_destroy(&attr);
	/* left behind by a mount that is gone, perhaps: at once */
	vol->upkeep->changes = true;
	r = pthread_create(&vol->upkeep->thread, NULL, upkeep_thread, vol);
	if (r)
		upkeep_free(vol);
	return -r;
}

void icm_upkeep_stop(struct icm_volume *vol)
{
	struct icm_upkeep *u = vol->upkeep;

	if (!u)
		return;
	pthread_mutex_lock(&u->lock);
	u->stop = true;
	pthread_cond_signal(&u->cond);
	pthread_mutex_unlock(&u->lock);
	pthread_join(u->thread, NULL);
	upkeep_free(vol);
}
