/* SPDX-License-Identifier: MIT
 * Watches without polling. A change is visible once the store's index has
 * moved; two kernel events lead to looking at it:
 *
 *   -wake changed   a commit is visible: its writer touches the file after it.
 *   -wal changed    a commit is on its way: SQLite writes the WAL, syncs it,
 *                   and only then makes the change visible. Its writer may be
 *                   killed before it touches -wake, so the index is looked at
 *                   again after growing pauses, and then no more.
 *
 * The pauses run whenever the WAL was written, whether a change was seen or
 * not: the frames may have been those of the commit after it. */
#include "backends/sqlite/sqlite.h"

#include <assert.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/inotify.h>
#include <sys/stat.h>

#include "util/clock.h"
#include "util/log.h"

static const int64_t look_after_ns[] = { 20 * ICM_NS_PER_MS, 200 * ICM_NS_PER_MS, ICM_NS_PER_S,
					 5 * ICM_NS_PER_S };

/* Where the kernel gives no events (out of inotify instances). */
#define FALLBACK_NS ICM_NS_PER_S

/* ---- the file -wake ---- */

static int wake_file_open(struct icm_sqlite *s)
{
	int fd, flags = O_CLOEXEC | O_NOFOLLOW | O_NOCTTY;
	struct stat st;

	if (s->be.facts.read_only)
		return -1;
	fd = open(s->wake_path, O_WRONLY | flags);
	if (fd >= 0 || errno != ENOENT || stat(s->path, &st))
		return fd;
	fd = open(s->wake_path, O_WRONLY | O_CREAT | flags, 0600);
	if (fd < 0)
		return fd;
	/* Whoever may write the store must be able to touch it. */
	(void)!fchown(fd, st.st_uid, st.st_gid);
	fchmod(fd, st.st_mode & 0666);
	return fd;
}

/* Opens the file anew when it was removed; true when it did. */
static bool wake_file_check_locked(struct icm_sqlite *s)
{
	struct stat st;

	if (s->wake_fd >= 0 && fstat(s->wake_fd, &st) == 0 && st.st_nlink > 0)
		return false;
	if (s->wake_fd >= 0)
		close(s->wake_fd);
	s->wake_fd = wake_file_open(s);
	return s->wake_fd >= 0;
}

static void wake_leader(struct icm_sqlite *s)
{
	(void)!write(s->hub.event_fd, &(uint64_t){ 1 }, sizeof(uint64_t));
}

void watch_poke(struct icm_sqlite *s)
{
	bool touched;

	pthread_mutex_lock(&s->wake_lock);
	wake_file_check_locked(s);
	touched = s->wake_fd >= 0 && futimens(s->wake_fd, NULL) == 0;
	pthread_mutex_unlock(&s->wake_lock);
	/* This instance's watches see the file as others do. */
	if (!touched)
		wake_leader(s);
}

/* ---- set-up ---- */

int watch_init(struct icm_sqlite *s)
{
	struct hub *h = &s->hub;
	pthread_condattr_t attr;

	pthread_mutex_init(&h->lock, NULL);
	pthread_mutex_init(&s->wake_lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&h->turn, &attr);
	pthread_condattr_destroy(&attr);
	h->wake_inotify = h->wal_inotify = h->wake_wd = h->wal_wd = -1;
	s->wake_fd = -1;
	h->event_fd = -1;
	return 0;
}

static void close_fd(int fd)
{
	if (fd >= 0)
		close(fd);
}

void watch_deinit(struct icm_sqlite *s)
{
	struct hub *h = &s->hub;

	assert(!h->leader);
	close_fd(h->event_fd);
	close_fd(h->wake_inotify);
	close_fd(h->wal_inotify);
	close_fd(s->wake_fd);
	pthread_cond_destroy(&h->turn);
	pthread_mutex_destroy(&h->lock);
	pthread_mutex_destroy(&s->wake_lock);
}

/* (Re)places the kernel's watches; the same inode keeps its number. */
static void place_locked(struct icm_sqlite *s)
{
	struct hub *h = &s->hub;
	uint32_t mask = IN_MODIFY | IN_ATTRIB | IN_DELETE_SELF | IN_MOVE_SELF;

	pthread_mutex_lock(&s->wake_lock);
	wake_file_check_locked(s);
	pthread_mutex_unlock(&s->wake_lock);
	if (h->wake_inotify >= 0)
		h->wake_wd = inotify_add_watch(h->wake_inotify, s->wake_path, mask);
	if (h->wal_inotify >= 0)
		h->wal_wd = inotify_add_watch(h->wal_inotify, s->wal_path, mask);
}

static void arm_locked(struct icm_sqlite *s)
{
	struct hub *h = &s->hub;

	if (h->armed)
		return;
	h->armed = true;
	h->wake_inotify = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	h->wal_inotify = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	place_locked(s);
	if (h->wake_wd < 0 || h->wal_wd < 0)
		icm_log_debug("sqlite: no kernel events for \"%s\" (%s)", s->path, strerror(errno));
}

/* ---- waiting ---- */

/* What the kernel said since it was last asked; *moved: a file went away. */
static bool drain(int fd, bool *moved)
{
	_Alignas(struct inotify_event) char buf[4096];
	bool any = false;
	ssize_t n;

	while (fd >= 0 && (n = read(fd, buf, sizeof(buf))) > 0) {
		any = true;
		for (char *p = buf; p < buf + n;) {
			const struct inotify_event *e = (const struct inotify_event *)p;

			/* an unlinked file that is still open says IN_ATTRIB only */
			if (e->mask & ~(uint32_t)IN_MODIFY)
				*moved = true;
			p += sizeof(*e) + e->len;
		}
	}
	return any;
}

static int64_t earlier(int64_t a, int64_t b)
{
	return !a || (b && b < a) ? b : a;
}

/* Waits for an event or a time (0 = none), without the hub's lock. */
static void wait_for_events(struct icm_sqlite *s, int64_t until_ns, bool with_wal)
{
	struct hub *h = &s->hub;
	struct pollfd fds[] = {
		{ .fd = h->event_fd, .events = POLLIN },
		{ .fd = h->wake_inotify, .events = POLLIN },
		/* while looks are due anyway, its events wait */
		{ .fd = with_wal ? h->wal_inotify : -1, .events = POLLIN },
	};
	int64_t left = until_ns ? until_ns - icm_now_ns() : 0;
	struct timespec ts = icm_ns_to_timespec(left > 0 ? left : 0);
	uint64_t count;

	ppoll(fds, ICM_COUNT(fds), until_ns ? &ts : NULL, NULL);
	(void)!read(h->event_fd, &count, sizeof(count));
}

static void note_wal_locked(struct hub *h, bool written)
{
	int64_t now = icm_now_ns();

	if (written)
		h->stage = 0;
	else if (h->look_ns && now >= h->look_ns)
		h->stage++;
	else
		return;
	h->look_ns = h->stage < ICM_COUNT(look_after_ns) ? now + look_after_ns[h->stage] : 0;
}

/* One wait on behalf of all watches of the instance. */
static void lead_locked(struct icm_sqlite *s, int64_t deadline_ns)
{
	struct hub *h = &s->hub;
	int64_t until = earlier(deadline_ns, h->look_ns);
	bool looking = h->look_ns, moved = false, written;

	if (h->wake_wd < 0 && h->wal_wd < 0)
		until = earlier(until, icm_now_ns() + FALLBACK_NS);
	h->leader = true;
	pthread_mutex_unlock(&h->lock);
	wait_for_events(s, until, !looking);
	pthread_mutex_lock(&h->lock);
	/* Before anybody looks at the index: what comes later is a new event. */
	drain(h->wake_inotify, &moved);
	written = drain(h->wal_inotify, &moved);
	if (moved || h->wake_wd < 0 || h->wal_wd < 0)
		place_locked(s);
	note_wal_locked(h, written);
	h->leader = false;
	h->generation++;
	pthread_cond_broadcast(&h->turn);
}

static void follow_locked(struct hub *h, int64_t deadline_ns)
{
	struct timespec ts = icm_ns_to_timespec(deadline_ns);

	if (deadline_ns)
		pthread_cond_timedwait(&h->turn, &h->lock, &ts);
	else
		pthread_cond_wait(&h->turn, &h->lock);
}

static int read_index(struct icm_sqlite *s, const struct icm_ctx *ctx, uint64_t *ret)
{
	struct connection *c;
	int r;

	r = reader_take(s, ctx, &c);
	if (r)
		return r;
	r = connection_index(c, ret);
	reader_give(s, c);
	return r;
}

int sqlite_watch(struct icm_backend *be, const struct icm_ctx *ctx, const char *prefix,
		 uint64_t since, uint64_t *ret_index)
{
	struct icm_sqlite *s = sqlite_of(be);
	struct hub *h = &s->hub;
	uint64_t generation, index = 0;
	int r;

	ICM_LOCK_SCOPE(&h->lock);
	arm_locked(s);
	for (;;) {
		if (ctx->cancel && atomic_load(ctx->cancel))
			return -ECANCELED;
		generation = h->generation;
		pthread_mutex_unlock(&h->lock);
		r = read_index(s, ctx, &index);
		pthread_mutex_lock(&h->lock);
		if (r == 0 && index != since)
			break;
		if (ctx->deadline_ns && icm_now_ns() >= ctx->deadline_ns)
			return -ETIMEDOUT;
		if (r)
			return r;
		if (h->generation != generation)
			continue;
		if (h->leader)
			follow_locked(h, ctx->deadline_ns);
		else
			lead_locked(s, ctx->deadline_ns);
	}
	*ret_index = index;
	return 0;
}

void sqlite_wake(struct icm_backend *be)
{
	struct icm_sqlite *s = sqlite_of(be);

	ICM_LOCK_SCOPE(&s->hub.lock);
	s->hub.generation++;
	pthread_cond_broadcast(&s->hub.turn);
	wake_leader(s);
}
