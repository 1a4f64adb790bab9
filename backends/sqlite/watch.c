/* SPDX-License-Identifier: MIT
 * Watches without polling. A change is visible once the store's index has
 * moved; two kernel events lead to looking at it:
 *
 *   -wake opened    a commit is visible: its writer opens the file after it,
 *                   if somebody else watches (holds a lock on it).
 *   -wal changed    a commit is on its way: SQLite writes the WAL, syncs it,
 *                   and only then makes the change visible. Its writer may be
 *                   killed before it opens -wake, so the index is looked at
 *                   again after growing pauses, and then no more.
 *
 * The pauses run whenever the WAL was written, whether a change was seen or
 * not: the frames may have been those of the commit after it. They run too
 * after the kernel's watches were placed: a commit may have been on its way. */
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

/* Opening it is what the others' watches see. Unlike a new time stamp, that is
 * no change of an inode, which would wait for a file system that is writing its
 * journal. */
static int wake_file_open(struct icm_sqlite *s)
{
	int fd, flags = O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK | O_NOCTTY;
	struct stat st;

	fd = open(s->wake_path, flags);
	if (fd >= 0 || errno != ENOENT || s->be.facts.read_only || stat(s->path, &st))
		return fd;
	fd = open(s->wake_path, flags | O_CREAT, 0600);
	if (fd < 0)
		return fd;
	/* Whoever may open the store must be able to open it. */
	(void)!fchown(fd, st.st_uid, st.st_gid);
	fchmod(fd, st.st_mode & 0666);
	return fd;
}

static void wake_leader(struct icm_sqlite *s)
{
	(void)!write(s->hub.event_fd, &(uint64_t){ 1 }, sizeof(uint64_t));
}

static void next_turn_locked(struct icm_sqlite *s)
{
	s->hub.generation++;
	pthread_cond_broadcast(&s->hub.turn);
	wake_leader(s);
}

/* Whether another instance watches; yes, if it can't be told. Who begins to
 * watch takes its lock first and looks at the index then, so it can't miss a
 * commit that didn't see its lock. */
static bool others_watch_locked(struct hub *h)
{
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET, .l_len = 1 };

	return h->wake_fd < 0 || fcntl(h->wake_fd, F_OFD_GETLK, &lock) < 0 ||
	       lock.l_type != F_UNLCK;
}

void watch_poke(struct icm_sqlite *s)
{
	bool others;
	int fd;

	pthread_mutex_lock(&s->hub.lock);
	others = others_watch_locked(&s->hub);
	if (s->hub.own)
		next_turn_locked(s);
	pthread_mutex_unlock(&s->hub.lock);
	fd = others ? wake_file_open(s) : -1;
	if (fd >= 0)
		close(fd);
}

/* ---- set-up ---- */

int watch_init(struct icm_sqlite *s)
{
	struct hub *h = &s->hub;
	pthread_condattr_t attr;

	pthread_mutex_init(&h->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&h->turn, &attr);
	pthread_condattr_destroy(&attr);
	h->wake_inotify = h->wal_inotify = h->wake_wd = h->wal_wd = -1;
	h->event_fd = h->wake_fd = -1;
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
	close_fd(h->wake_fd);
	close_fd(h->wake_inotify);
	close_fd(h->wal_inotify);
	pthread_cond_destroy(&h->turn);
	pthread_mutex_destroy(&h->lock);
}

/* Says to those who commit that somebody watches here. */
static void lock_wake_locked(struct icm_sqlite *s)
{
	struct flock lock = { .l_type = F_RDLCK, .l_whence = SEEK_SET, .l_len = 1 };
	struct hub *h = &s->hub;

	close_fd(h->wake_fd);
	h->wake_fd = wake_file_open(s);
	if (h->wake_fd >= 0)
		fcntl(h->wake_fd, F_OFD_SETLK, &lock);
}

/* (Re)places the lock and the kernel's watches; the same inode keeps its
 * number. In this order: opening the file would wake this watch too. */
static void place_locked(struct icm_sqlite *s)
{
	uint32_t gone = IN_DELETE_SELF | IN_MOVE_SELF | IN_ATTRIB;
	struct hub *h = &s->hub;

	lock_wake_locked(s);
	if (h->wake_inotify >= 0)
		h->wake_wd = inotify_add_watch(h->wake_inotify, s->wake_path, IN_OPEN | gone);
	/* SQLite holds the WAL open: its removal is a change of its links only */
	if (h->wal_inotify >= 0)
		h->wal_wd = inotify_add_watch(h->wal_inotify, s->wal_path,
					      IN_MODIFY | IN_ATTRIB | gone);
}

/* When to look at the index next. */
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

static void arm_locked(struct icm_sqlite *s)
{
	struct hub *h = &s->hub;

	if (h->armed)
		return;
	h->armed = true;
	h->wake_inotify = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	h->wal_inotify = inotify_init1(IN_CLOEXEC | IN_NONBLOCK);
	place_locked(s);
	note_wal_locked(h, true);
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

			if (e->mask & ~(uint32_t)(IN_MODIFY | IN_OPEN))
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

/* One wait on behalf of all watches of the instance. */
static void lead_locked(struct icm_sqlite *s, int64_t deadline_ns)
{
	struct hub *h = &s->hub;
	int64_t until = earlier(deadline_ns, h->look_ns);
	bool looking = h->look_ns, moved = false, written;

	if (h->wake_wd < 0 && h->wal_wd < 0 && !s->immutable)
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
	note_wal_locked(h, written || moved);
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

/* hub->lock held. */
static int watch_locked(struct icm_sqlite *s, const struct icm_ctx *ctx, uint64_t since,
			uint64_t *ret_index)
{
	struct hub *h = &s->hub;
	uint64_t generation;
	int r;

	for (;;) {
		if (ctx->cancel && atomic_load(ctx->cancel))
			return -ECANCELED;
		generation = h->generation;
		pthread_mutex_unlock(&h->lock);
		r = sqlite_index(&s->be, ctx, "", ret_index);
		pthread_mutex_lock(&h->lock);
		if (r == 0 && *ret_index != since)
			return 0;
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
}

int sqlite_watch(struct icm_backend *be, const struct icm_ctx *ctx, const char *prefix,
		 uint64_t since, uint64_t *ret_index)
{
	struct icm_sqlite *s = sqlite_of(be);
	uint64_t index = 0;
	int r;

	ICM_LOCK_SCOPE(&s->hub.lock);
	arm_locked(s);
	s->hub.own += !ctx->others;
	r = watch_locked(s, ctx, since, &index);
	s->hub.own -= !ctx->others;
	if (!r)
		*ret_index = index;
	return r;
}

void sqlite_wake(struct icm_backend *be)
{
	struct icm_sqlite *s = sqlite_of(be);

	ICM_LOCK_SCOPE(&s->hub.lock);
	next_turn_locked(s);
}
