/* SPDX-License-Identifier: MIT */
#include "events.h"

#include <inttypes.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/sysmacros.h>
#include <sys/uio.h>
#include <sys/wait.h>

#include "core/control.h"
#include "executor.h"
#include "fuse-notify.h"
#include "fuse-ops.h"
#include "known.h"
#include "util/buf.h"
#include "util/clock.h"
#include "util/log.h"
#include "util/map.h"

#define QUEUE_MAX  4096
#define PER_SECOND 1000
#define PAUSE_NS   (5 * ICM_NS_PER_S)

/* A queued change; owns its strings. */
struct change {
	struct change *next;
	struct icm_map_node in_latest; /* MODIFY and ATTRIB only */
	enum icm_event_type type;
	struct icm_view *view; /* referenced; NULL: by path */
	char *path, *to_path;
	bool is_dir;
};

/* The change that the helper is repeating now: how its look-ups are answered. */
struct current {
	bool active;
	enum icm_event_type type;
	uint64_t dir, to_dir; /* nodes */
	const char *name, *to_name;
	bool is_dir;
	struct icm_view *view; /* has the name, in .icmfs, for the helper alone */
};

struct icm_events {
	struct icm_front *front; /* set at start */
	dev_t dev;
	int sock;
	pid_t helper;
	pthread_t thread;
	bool started;

	pthread_mutex_t lock; /* protects everything below */
	pthread_cond_t cond;
	struct change *first, **last;
	struct icm_map latest; /* queued MODIFY and ATTRIB, for coalescing */
	unsigned n_queued;
	bool dropping; /* has been logged */
	bool stopping;
	int64_t paused_until_ns;
	struct current current;
	uint64_t ghosts; /* serial number of the last one */
};

int icm_events_new(const char *mountpoint, struct icm_events **ret)
{
	struct icm_events *e;
	pthread_condattr_t attr;
	int socks[2];
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, socks))
		return -errno;
	pid = fork();
	if (pid < 0) {
		int err = -errno;

		close(socks[0]);
		close(socks[1]);
		return err;
	}
	if (pid == 0)
		icm_events_helper(socks[1], mountpoint);
	close(socks[1]);
	e = icm_xcalloc(1, sizeof(*e));
	e->sock = socks[0];
	e->helper = pid;
	e->last = &e->first;
	pthread_mutex_init(&e->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&e->cond, &attr);
	pthread_condattr_destroy(&attr);
	*ret = e;
	return 0;
}

static void free_change(struct change *c)
{
	if (c->view)
		icm_fs_forget(c->view, 1);
	free(c->path);
	free(c->to_path);
	free(c);
}

/* ---- the queue ---- */

static bool is_known(struct icm_front *front, struct icm_view *view)
{
	return view == front->root || icm_known_has(front->known, icm_view_node(front, view));
}

static bool is_repeatable(enum icm_event_type type)
{
	return type == ICM_EVENT_MODIFY || type == ICM_EVENT_ATTRIB;
}

static uint64_t hash_change(const struct icm_event *event)
{
	return event->view ? icm_hash_u64((uint64_t)(uintptr_t)event->view)
			   : icm_hash_bytes(event->path, strlen(event->path), 0);
}

/* The same is queued already, and nothing else of the path can be in between:
 * that would have changed the path. */
static bool is_queued_locked(struct icm_events *e, const struct icm_event *event, uint64_t hash)
{
	struct icm_map_node *n = icm_map_first(&e->latest, hash);

	for (; n; n = icm_map_next(n)) {
		const struct change *c = ICM_CONTAINER(n, struct change, in_latest);

		if (c->type == event->type && c->view == event->view &&
		    (c->view || !strcmp(c->path, event->path)))
			return true;
	}
	return false;
}

static void push_locked(struct icm_events *e, const struct icm_event *event, uint64_t hash)
{
	struct change *c = icm_xcalloc(1, sizeof(*c));

	c->type = event->type;
	c->view = event->view;
	if (c->view)
		icm_view_ref(c->view);
	c->path = event->path ? icm_xstrdup(event->path) : NULL;
	c->to_path = event->to_path ? icm_xstrdup(event->to_path) : NULL;
	c->is_dir = event->is_dir;
	*e->last = c;
	e->last = &c->next;
	e->n_queued++;
	if (is_repeatable(c->type))
		icm_map_add(&e->latest, &c->in_latest, hash);
	pthread_cond_signal(&e->cond);
}

void icm_events_add(struct icm_events *e, const struct icm_event *event)
{
	uint64_t hash = hash_change(event);
	ICM_LOCK_SCOPE(&e->lock);

	if (e->stopping || !e->started)
		return;
	if (event->view && !is_known(e->front, event->view))
		return;
	if (is_repeatable(event->type) && is_queued_locked(e, event, hash))
		return;
	if (e->n_queued < QUEUE_MAX) {
		e->dropping = false;
		push_locked(e, event, hash);
	} else if (!e->dropping) {
		e->dropping = true;
		icm_log_warning("too many changes on other hosts: inotify events are left out");
	}
}

static struct change *pop_locked(struct icm_events *e)
{
	struct change *c = e->first;

	e->first = c->next;
	if (!e->first)
		e->last = &e->first;
	e->n_queued--;
	if (is_repeatable(c->type))
		icm_map_remove(&e->latest, &c->in_latest);
	return c;
}

/* ---- one change ---- */

/* The directory of a path, as far as it is in the tree, with a reference. */
static struct icm_view *walk(struct icm_front *front, const char *path, const char **ret_name)
{
	ICM_AUTOFREE char *copy = icm_xstrdup(path);
	const char *slash = strrchr(path, '/');
	struct icm_view *dir = front->root;
	char *save = NULL;

	*ret_name = slash ? slash + 1 : path;
	if (slash)
		copy[slash - path] = '\0';
	icm_view_ref(dir);
	for (char *part = slash ? strtok_r(copy, "/", &save) : NULL; part;
	     part = strtok_r(NULL, "/", &save)) {
		struct icm_view *next = NULL;
		struct stat st;
		int err = icm_fs_lookup_cached(dir, part, &next, &st);

		icm_fs_forget(dir, 1);
		if (err)
			return NULL;
		dir = next;
	}
	return dir;
}

/* Type of what has a name now; 0: nothing. */
static mode_t type_of(struct icm_view *dir, const char *name)
{
	struct icm_view *view;
	struct stat st;

	if (icm_fs_lookup_cached(dir, name, &view, &st))
		return 0;
	icm_fs_forget(view, 1);
	return st.st_mode & S_IFMT;
}

/* Sends the change and waits until it was repeated; false: the helper is gone. */
static bool send_and_wait(struct icm_events *e, const struct icm_events_msg *msg, const char *path,
			  const char *to_path)
{
	struct iovec iov[3] = {
		{ (void *)msg, sizeof(*msg) },
		{ (char *)path, msg->path_bytes },
		{ (char *)to_path, msg->to_path_bytes },
	};
	const struct msghdr hdr = { .msg_iov = iov, .msg_iovlen = 3 };
	char ack;

	return sendmsg(e->sock, &hdr, MSG_NOSIGNAL) >= 0 && recv(e->sock, &ack, 1, 0) > 0;
}

/* What a change amounts to now that later ones may have been made as well. A
 * name that exists again must not be removed in the kernel's cache, since that
 * would hit its new file. */
struct effect {
	enum icm_event_type type;
	mode_t mode;
	const char *path, *to_path;
	struct icm_view *dir, *to_dir; /* referenced */
	const char *name, *to_name;
	struct icm_view *view; /* borrowed; what the name is to be for the helper */
};

static void forget_to(struct effect *f)
{
	if (f->to_dir)
		icm_fs_forget(f->to_dir, 1);
	f->to_dir = NULL;
}

static bool judge_move(struct effect *f, mode_t from, mode_t to, bool is_dir)
{
	f->mode = to;
	if (!from && !to) {
		f->type = is_dir ? ICM_EVENT_RMDIR : ICM_EVENT_DELETE;
		forget_to(f);
	} else if (!to) {
		return false;
	} else if (from) {
		f->type = S_ISDIR(to) ? ICM_EVENT_MKDIR : ICM_EVENT_CREATE;
		f->path = f->to_path;
		f->name = f->to_name;
		icm_fs_forget(f->dir, 1);
		f->dir = f->to_dir;
		f->to_dir = NULL;
	}
	return true;
}

static bool judge(struct effect *f, bool is_dir)
{
	mode_t now = f->dir ? type_of(f->dir, f->name) : 0;

	switch (f->type) {
	case ICM_EVENT_MODIFY:
	case ICM_EVENT_ATTRIB:
	case ICM_EVENT_CREATE:
	case ICM_EVENT_MKDIR:
		f->mode = now;
		return now;
	case ICM_EVENT_DELETE:
	case ICM_EVENT_RMDIR:
		return f->dir && !now;
	case ICM_EVENT_MOVE:
		return f->dir && f->to_dir &&
		       judge_move(f, now, type_of(f->to_dir, f->to_name), is_dir);
	}
	return false;
}

static void set_current(struct icm_events *e, const struct effect *f, bool is_dir)
{
	ICM_LOCK_SCOPE(&e->lock);

	e->current = (struct current){
		.active = true,
		.type = f->type,
		.dir = f->dir ? icm_view_node(e->front, f->dir) : 0,
		.to_dir = f->to_dir ? icm_view_node(e->front, f->to_dir) : 0,
		.name = f->name,
		.to_name = f->to_name,
		.is_dir = is_dir,
		.view = f->view,
	};
}

static void clear_current(struct icm_events *e)
{
	ICM_LOCK_SCOPE(&e->lock);

	e->current.active = false;
}

static bool carry_out(struct icm_events *e, const struct effect *f, bool is_dir)
{
	const char *to_path = f->type == ICM_EVENT_MOVE ? f->to_path : NULL;
	const struct icm_events_msg msg = {
		.type = f->type,
		.mode = f->mode,
		.dev_major = major(e->dev),
		.dev_minor = minor(e->dev),
		.path_bytes = (uint32_t)strlen(f->path) + 1,
		.to_path_bytes = to_path ? (uint32_t)strlen(to_path) + 1 : 0,
	};
	bool ok;

	set_current(e, f, is_dir);
	ok = send_and_wait(e, &msg, f->path, to_path);
	clear_current(e);
	return ok;
}

/* Who hears of a change looks at once: the kernel must have forgotten what was. */
static void wait_forgotten(struct icm_front *front, const struct effect *f)
{
	struct icm_view *view;
	struct stat st;

	icm_notify_drain(front->notifier, icm_view_node(front, f->dir));
	if (f->to_dir)
		icm_notify_drain(front->notifier, icm_view_node(front, f->to_dir));
	if (icm_fs_lookup_cached(f->dir, f->name, &view, &st))
		return;
	icm_notify_drain(front->notifier, icm_view_node(front, view));
	icm_fs_forget(view, 1);
}

/* A change of what a name stands for, or of the name; false: the helper is gone. */
static bool pass_on_name(struct icm_events *e, const struct change *c)
{
	struct icm_front *front = e->front;
	struct effect f = { .type = c->type, .path = c->path, .to_path = c->to_path };
	bool ok = true;

	f.dir = walk(front, c->path, &f.name);
	if (c->to_path)
		f.to_dir = walk(front, c->to_path, &f.to_name);
	if (judge(&f, c->is_dir) &&
	    (is_known(front, f.dir) || (f.to_dir && is_known(front, f.to_dir)))) {
		wait_forgotten(front, &f);
		ok = carry_out(e, &f, c->is_dir);
	}
	if (f.dir)
		icm_fs_forget(f.dir, 1);
	forget_to(&f);
	return ok;
}

/* A change of a view that no name stands for: reached by a name that only the
 * helper can look up, in a directory that nobody watches. */
static bool pass_on_view(struct icm_events *e, const struct change *c)
{
	uint64_t node = icm_view_node(e->front, c->view);
	ICM_AUTOFREE char *path = icm_asprintf(ICM_CONTROL_NAME "/@%" PRIx64, node);
	const struct effect f = {
		.type = c->type,
		.mode = S_IFREG,
		.path = path,
		.name = strchr(path, '@'),
		.view = c->view,
	};

	if (!is_known(e->front, c->view))
		return true;
	icm_notify_drain(e->front->notifier, node);
	return carry_out(e, &f, false);
}

/* ---- the thread that feeds the helper ---- */

/* Waits until there is a change to pass on; false: the end. */
static bool wait_locked(struct icm_events *e)
{
	for (;;) {
		struct timespec until = icm_ns_to_timespec(e->paused_until_ns);

		if (e->stopping)
			return false;
		if (!e->first)
			pthread_cond_wait(&e->cond, &e->lock);
		else if (e->paused_until_ns > icm_now_ns())
			pthread_cond_timedwait(&e->cond, &e->lock, &until);
		else
			return true;
	}
}

/* At most PER_SECOND; a pause like that of umount spreads the rest. */
static void limit_locked(struct icm_events *e, int64_t *second_ns, unsigned *n)
{
	int64_t now = icm_now_ns();

	if (now - *second_ns >= ICM_NS_PER_S) {
		*second_ns = now;
		*n = 0;
	}
	if (++*n >= PER_SECOND && e->paused_until_ns < *second_ns + ICM_NS_PER_S)
		e->paused_until_ns = *second_ns + ICM_NS_PER_S;
}

static void *events_thread(void *arg)
{
	struct icm_events *e = arg;
	int64_t second_ns = 0;
	unsigned n = 0;

	pthread_setname_np(pthread_self(), "icmfs-feed");
	pthread_mutex_lock(&e->lock);
	while (wait_locked(e)) {
		struct change *c = pop_locked(e);
		bool ok;

		limit_locked(e, &second_ns, &n);
		pthread_mutex_unlock(&e->lock);
		ok = c->view ? pass_on_view(e, c) : pass_on_name(e, c);
		free_change(c);
		pthread_mutex_lock(&e->lock);
		if (!ok && !e->stopping) {
			icm_log_warning("the event helper has ended: no more inotify events for "
					"changes on other hosts");
			e->stopping = true;
		}
	}
	pthread_mutex_unlock(&e->lock);
	return NULL;
}

int icm_events_start(struct icm_events *e, struct icm_front *front, dev_t dev)
{
	int err;

	e->front = front;
	e->dev = dev;
	atomic_store(&front->helper, e->helper);
	err = icm_thread_start(&e->thread, events_thread, e);
	pthread_mutex_lock(&e->lock);
	e->started = !err;
	pthread_mutex_unlock(&e->lock);
	return err;
}

void icm_events_pause(struct icm_events *e)
{
	ICM_LOCK_SCOPE(&e->lock);

	e->paused_until_ns = icm_now_ns() + PAUSE_NS;
	/* a request of the helper that waits is given up, and with it what it has open */
	if (e->current.active)
		kill(e->helper, SIGUSR1);
}

/* The helper ends with its socket, at once unless it is blocked in the kernel:
 * then it ends when the mount does. */
static void reap(struct icm_events *e)
{
	kill(e->helper, SIGKILL);
	for (int i = 0; i < 20 && waitpid(e->helper, NULL, WNOHANG) == 0; i++)
		usleep(5000);
	e->helper = 0;
}

void icm_events_stop(struct icm_events *e)
{
	bool started;

	pthread_mutex_lock(&e->lock);
	started = e->started;
	e->started = false;
	e->stopping = true;
	pthread_cond_signal(&e->cond);
	pthread_mutex_unlock(&e->lock);
	shutdown(e->sock, SHUT_RDWR);
	if (started)
		pthread_join(e->thread, NULL);
	if (e->helper)
		reap(e);
	while (e->first)
		free_change(pop_locked(e));
}

struct icm_events *icm_events_free(struct icm_events *e)
{
	if (!e)
		return NULL;
	icm_events_stop(e);
	icm_map_free(&e->latest);
	close(e->sock);
	pthread_cond_destroy(&e->cond);
	pthread_mutex_destroy(&e->lock);
	free(e);
	return NULL;
}

/* ---- answers ---- */

enum answer {
	ANSWER_USUAL,
	ANSWER_MISSING,
	ANSWER_REMOVED, /* what had the name */
	ANSWER_MOVED,	/* what has the other name now */
	ANSWER_VIEW,	/* whose event it is */
};

static bool is(uint64_t dir, const char *name, const struct icm_req *r)
{
	return name && dir == r->node && !strcmp(name, r->name);
}

static enum answer choose_locked(const struct current *c, const struct icm_req *r)
{
	if (!c->active)
		return ANSWER_USUAL;
	if (c->view)
		return icm_node_is_volatile(r->node) && !strcmp(c->name, r->name) ? ANSWER_VIEW
										  : ANSWER_USUAL;
	switch (c->type) {
	case ICM_EVENT_CREATE:
	case ICM_EVENT_MKDIR:
		return is(c->dir, c->name, r) ? ANSWER_MISSING : ANSWER_USUAL;
	case ICM_EVENT_DELETE:
	case ICM_EVENT_RMDIR:
		return is(c->dir, c->name, r) ? ANSWER_REMOVED : ANSWER_USUAL;
	case ICM_EVENT_MOVE:
		if (is(c->to_dir, c->to_name, r))
			return ANSWER_MISSING;
		return is(c->dir, c->name, r) ? ANSWER_MOVED : ANSWER_USUAL;
	case ICM_EVENT_MODIFY:
	case ICM_EVENT_ATTRIB:
		break;
	}
	return ANSWER_USUAL;
}

/* How to answer, with what is needed for it outside the lock: the feeding
 * thread may go on at any time if the helper is killed. */
struct choice {
	enum answer answer;
	bool is_dir;
	struct icm_view *to_dir; /* referenced */
	char *to_name;		 /* owned */
	struct icm_view *view;	 /* referenced */
};

static struct choice choose(struct icm_events *e, const struct icm_req *r)
{
	ICM_LOCK_SCOPE(&e->lock);
	struct choice c = {
		.answer = choose_locked(&e->current, r),
		.is_dir = e->current.is_dir,
	};

	if (c.answer == ANSWER_MOVED) {
		c.to_dir = icm_node_view(e->front, e->current.to_dir);
		icm_view_ref(c.to_dir);
		c.to_name = icm_xstrdup(e->current.to_name);
	}
	if (c.answer == ANSWER_VIEW) {
		c.view = e->current.view;
		icm_view_ref(c.view);
	}
	return c;
}

/* An answer that the kernel doesn't keep. */
static void reply_fleeting(struct icm_req *r, struct icm_view *view, const struct stat *st)
{
	struct fuse_entry_param e;

	icm_entry_fill(r->front, r->node, r->name, view, st, &e);
	e.entry_timeout = 0;
	e.attr_timeout = 0;
	if (fuse_reply_entry(r->req, &e))
		icm_entry_undo(r->front, &e);
}

/* The helper needs none but those that are known: asking a distant store would make
 * it wait. */
static int known_attr(const struct icm_req *r, struct icm_view *view, struct stat *st)
{
	struct icm_call call = r->call;

	call.as_known = true;
	return icm_fs_getattr(view, &call, NULL, st);
}

/* The same under a name that isn't one; takes the reference. */
static void reply_view(struct icm_req *r, struct icm_view *view)
{
	struct fuse_entry_param e = { .ino = icm_view_node(r->front, view) };
	int err = known_attr(r, view, &e.attr);

	icm_known_add(r->front->known, e.ino, 0, NULL);
	if (err)
		fuse_reply_err(r->req, icm_errno(err));
	if (err || fuse_reply_entry(r->req, &e))
		icm_entry_undo(r->front, &e);
}

/* Nobody here knows the file that was removed: any inode will do for an event
 * in its directory. */
static void reply_ghost(struct icm_events *ev, struct icm_req *r, bool is_dir)
{
	struct fuse_entry_param e = { 0 };

	pthread_mutex_lock(&ev->lock);
	e.ino = ++ev->ghosts << 2 | ICM_NODE_GHOST;
	pthread_mutex_unlock(&ev->lock);
	e.attr.st_ino = e.ino;
	e.attr.st_mode = is_dir ? S_IFDIR | 0700 : S_IFREG | 0600;
	e.attr.st_nlink = is_dir ? 2 : 1;
	e.attr.st_uid = r->call.uid;
	e.attr.st_gid = r->call.gid;
	fuse_reply_entry(r->req, &e);
}

static void pin(void *userdata, uint64_t node)
{
	struct icm_view *view = icm_node_view(userdata, node);

	if (view)
		icm_view_ref(view);
}

/* The view that the kernel has under the name, with a reference and its
 * attributes, if it is of the right kind. */
static struct icm_view *find_known(struct icm_req *r, bool is_dir, struct stat *st)
{
	struct icm_view *view;
	uint64_t node;

	node = icm_known_find(r->front->known, r->node, r->name, pin, r->front);
	view = node ? icm_node_view(r->front, node) : NULL;
	if (!view)
		return NULL;
	if (icm_view_is_dir(view) == is_dir && !known_attr(r, view, st))
		return view;
	icm_fs_forget(view, 1);
	return NULL;
}

static void answer_removed(struct icm_events *e, struct icm_req *r, bool is_dir)
{
	struct stat st;
	struct icm_view *view = find_known(r, is_dir, &st);

	if (view)
		reply_fleeting(r, view, &st);
	else
		reply_ghost(e, r, is_dir);
}

static void answer_moved(struct icm_req *r, struct choice *c)
{
	struct icm_view *view;
	struct stat st;

	if (icm_fs_lookup_cached(c->to_dir, c->to_name, &view, &st))
		fuse_reply_err(r->req, ENOENT);
	else
		reply_fleeting(r, view, &st);
	icm_fs_forget(c->to_dir, 1);
	free(c->to_name);
}

bool icm_events_lookup(struct icm_events *e, struct icm_req *r)
{
	struct choice c = choose(e, r);

	r->call.nowait = true;
	switch (c.answer) {
	case ANSWER_MISSING:
		fuse_reply_err(r->req, ENOENT);
		return true;
	case ANSWER_REMOVED:
		answer_removed(e, r, c.is_dir);
		return true;
	case ANSWER_MOVED:
		answer_moved(r, &c);
		return true;
	case ANSWER_VIEW:
		reply_view(r, c.view);
		return true;
	case ANSWER_USUAL:
		break;
	}
	return false;
}
