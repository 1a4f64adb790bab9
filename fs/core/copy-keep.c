/* SPDX-License-Identifier: MIT
 * The thread that keeps the local copy up to date while the store answers. */
#include <string.h>

#include "core/copy-local.h"
#include "core/feed.h"
#include "util/clock.h"
#include "util/log.h"

/* From the first change to the copy of it: what comes in between is copied with it. */
#define GATHER_NS ICM_NS_PER_S
/* A round may take one part in so many of this thread's time. */
#define SHARE 10
/* After a round that failed, and after one that found the tree in motion. */
#define RETRY_NS (5 * ICM_NS_PER_S)
#define AGAIN_NS (100 * ICM_NS_PER_MS)
/* A version of which this many rounds found nothing any more will not come back. */
#define TRIES 3
/* For the last round, at the end of the mount. */
#define END_NS (5 * ICM_NS_PER_S)

/* ---- one round ---- */

static int fetch_and_write(struct icm_volume *vol, const struct icm_copy_state *s, bool tolerant)
{
	struct icm_copy_fetch f = { .tolerant = tolerant };
	int r = icm_copy_fetch(vol, s, &f);

	if (r == 0)
		r = icm_copy_write(vol, s, &f);
	if (r == 0 && f.left_out)
		icm_log_info("%llu files are without contents in the local copy",
			     (unsigned long long)f.left_out);
	icm_copy_keys_clear(&f.needed);
	return r;
}

static void end_round(struct icm_copy *c)
{
	ICM_LOCK_SCOPE(&c->lock);

	c->taken = 0;
}

/* -EAGAIN: the tree was in motion. */
static int copy_once(struct icm_volume *vol, bool tolerant)
{
	struct icm_copy_state s = { 0 };
	int r = icm_volume_catch_up(vol);

	if (r == 0)
		r = icm_copy_state_take(vol, &s);
	if (r == -EAGAIN) {
		/* it has news of which the feed wasn't read yet */
		r = icm_feed_catch_up(vol);
		if (r == 0)
			r = icm_copy_state_take(vol, &s);
	}
	if (r == 0)
		r = fetch_and_write(vol, &s, tolerant);
	end_round(vol->copy);
	icm_copy_state_clear(&s);
	return r;
}

/* ---- the thread ---- */

/* How it goes: rounds that failed in a row. */
struct course {
	unsigned stale;
	int last;
};

static int64_t pause_after(int r, int64_t took_ns)
{
	if (r == -EAGAIN || r == -ESTALE)
		return AGAIN_NS;
	return r < 0 ? RETRY_NS : GATHER_NS + SHARE * took_ns;
}

static void report(struct course *course, int r)
{
	bool moves = r == -EAGAIN || r == -ESTALE || r == -ECANCELED || icm_error_is_away(r);

	if (r < 0 && !moves && course->last != r)
		icm_log_warning("the local copy can't be brought up to date: %s", strerror(-r));
	if (r == 0 || !moves)
		course->last = r;
	course->stale = r == -ESTALE ? course->stale + 1 : 0;
}

/* Until a change is wanted and `due` has come, or the end. False: the end, and
 * nothing to do. c->lock held. */
static bool wait_locked(struct icm_copy *c, int64_t due)
{
	struct timespec until = icm_ns_to_timespec(due);

	while (!c->stop && !c->wanted)
		pthread_cond_wait(&c->cond, &c->lock);
	while (!c->stop && icm_now_ns() < due)
		pthread_cond_timedwait(&c->cond, &c->lock, &until);
	return c->wanted || !c->stop;
}

static void *keep_thread(void *arg)
{
	struct icm_volume *vol = arg;
	struct icm_copy *c = vol->copy;
	struct course course = { 0 };
	int64_t due = 0;

	pthread_mutex_lock(&c->lock);
	while (wait_locked(c, due)) {
		bool last = c->stop;
		int64_t began = icm_now_ns();
		int r;

		c->wanted = false;
		pthread_mutex_unlock(&c->lock);
		r = copy_once(vol, course.stale >= TRIES);
		report(&course, r);
		pthread_mutex_lock(&c->lock);
		due = icm_now_ns() + pause_after(r, icm_now_ns() - began);
		c->wanted |= r < 0;
		if (!last)
			continue;
		if (pause_after(r, 0) != AGAIN_NS || icm_now_ns() > c->end_ns)
			break;
		/* what is in motion comes to rest soon */
		pthread_mutex_unlock(&c->lock);
		icm_feed_pause();
		pthread_mutex_lock(&c->lock);
	}
	pthread_mutex_unlock(&c->lock);
	return NULL;
}

/* ---- start and end ---- */

static int open_file(struct icm_copy *c, char **ret_why)
{
	const struct icm_open_options options = { .create = true };
	ICM_AUTOFREE char *url = icm_asprintf("sqlite:%s", c->file);
	int r = icm_backend_open(url, &options, &c->be, ret_why);

	if (r == 0)
		r = icm_backend_start(c->be);
	if (r < 0)
		c->be = icm_backend_close(c->be);
	return r;
}

static void remove_file(const struct icm_copy *c)
{
	static const char *const suffixes[] = { "", "-wal", "-shm", "-wake" };

	for (size_t i = 0; i < ICM_COUNT(suffixes); i++) {
		ICM_AUTOFREE char *path = icm_asprintf("%s%s", c->file, suffixes[i]);

		unlink(path);
	}
}

/* What is there must be this deployment's before anything else happens: the store
 * may be away the next time. One that can't be used is made anew, from the store. */
static int make_ready(struct icm_volume *vol)
{
	struct icm_copy *c = vol->copy;
	ICM_CLEANUP(icm_copy_head_clear) struct icm_copy_head head = { 0 };
	ICM_AUTOFREE char *why = NULL;
	int r = icm_copy_look(c, &head, &why);
	bool other = r == 0 && icm_timespec_cmp(head.created, vol->created) != 0;

	if (r < 0 && r != -ENOENT) {
		icm_log_warning("%s; it is made anew", why ? why : strerror(-r));
		remove_file(c);
	}
	free(ICM_STEAL(&why));
	r = open_file(c, &why);
	if (r == 0 && other) {
		icm_log_warning("the store '%s' has another deployment than its local copy, which "
				"is made anew",
				vol->url);
		r = icm_copy_erase(vol);
	}
	if (r < 0)
		icm_log_warning("no local copy is kept: %s", why ? why : strerror(-r));
	return r;
}

void icm_copy_start(struct icm_volume *vol)
{
	struct icm_copy *c = vol->copy;

	if (!c || vol->offline || make_ready(vol) < 0)
		return;
	c->wanted = true;
	c->threaded = pthread_create(&c->thread, NULL, keep_thread, vol) == 0;
	if (!c->threaded)
		icm_log_warning("no local copy is kept: no thread for it");
}

void icm_copy_stop(struct icm_volume *vol)
{
	struct icm_copy *c = vol->copy;

	if (!c || !c->threaded)
		return;
	pthread_mutex_lock(&c->lock);
	c->stop = true;
	c->wanted = true; /* at least the time as of which it is */
	c->end_ns = icm_now_ns() + END_NS;
	pthread_cond_broadcast(&c->cond);
	pthread_mutex_unlock(&c->lock);
	pthread_join(c->thread, NULL);
	c->threaded = false;
}

void icm_copy_changed(struct icm_volume *vol, uint64_t index)
{
	struct icm_copy *c = vol->copy;

	if (!c)
		return;
	ICM_LOCK_SCOPE(&c->lock);
	if (index <= c->taken)
		c->torn = true;
	if (!c->wanted)
		pthread_cond_signal(&c->cond);
	c->wanted = true;
}
