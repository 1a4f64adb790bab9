/* SPDX-License-Identifier: MIT */
#include "request.h"

#include <signal.h>

#include "util/buf.h"
#include "util/clock.h"
#include "util/log.h"

/* Worker threads that may be busy with a local store at once; the others go on
 * reading requests, interrupts among them. */
#define IN_PLACE_MAX 16

int icm_errno(int err)
{
	int e = err < 0 ? -err : err;

	/* ICM_WOULD_WAIT and its like are not for programs */
	return e >= 512 ? EIO : e;
}

bool icm_req_init(struct icm_req *r, fuse_req_t req, uint64_t node, icm_req_fn run)
{
	const struct fuse_ctx *ctx = fuse_req_ctx(req);
	struct icm_front *front = fuse_req_userdata(req);

	*r = (struct icm_req){
		.front = front,
		.req = req,
		.run = run,
		.call = { .uid = ctx->uid, .gid = ctx->gid, .pid = ctx->pid },
		.seen = atomic_load(&front->changes),
		.node = node,
		.view = icm_node_view(front, node),
	};
	if (!r->view)
		fuse_reply_err(req, ENOENT);
	return r->view;
}

bool icm_req_init_to(struct icm_req *r, uint64_t node)
{
	r->to_node = node;
	r->to_view = icm_node_view(r->front, node);
	if (!r->to_view)
		fuse_reply_err(r->req, ENOENT);
	return r->to_view;
}

bool icm_req_init_file(struct icm_req *r, const struct fuse_file_info *fi)
{
	r->fi = *fi;
	r->handle = icm_fh_handle(fi->fh);
	if (!r->handle)
		fuse_reply_err(r->req, EBADF);
	return r->handle;
}

/* ---- interrupts ---- */

struct icm_watch {
	pthread_t thread;
	bool started;
	pthread_mutex_t lock; /* protects everything below */
	pthread_cond_t cond;
	struct icm_req *first; /* interrupted, not answered; each holds a reference */
	bool kicked, stopping;
};

/* Called by libfuse with the request's own lock held: an answer from here
 * would free that lock. Only takes note. */
static void interrupted(fuse_req_t req, void *data)
{
	struct icm_req *r = data;
	struct icm_watch *w = r->front->watch;
	ICM_LOCK_SCOPE(&w->lock);

	if (r->watched)
		return;
	r->watched = true;
	icm_req_ref(r);
	r->watch_next = w->first;
	r->watch_prev = &w->first;
	if (w->first)
		w->first->watch_prev = &r->watch_next;
	w->first = r;
	w->kicked = true;
	pthread_cond_signal(&w->cond);
}

static void unwatch_locked(struct icm_req *r)
{
	*r->watch_prev = r->watch_next;
	if (r->watch_next)
		r->watch_next->watch_prev = r->watch_prev;
	r->watched = false;
}

/* Takes the request off the list; its reference is the caller's then. */
static bool unwatch(struct icm_req *r)
{
	ICM_LOCK_SCOPE(&r->front->watch->lock);

	if (!r->watched)
		return false;
	unwatch_locked(r);
	return true;
}

/* Whether SIGKILL is pending for a thread: so it is as well for other signals
 * that it dies of, but not for signals that it handles. */
static bool is_dying(pid_t tid)
{
	char path[40], line[256];
	bool dying = false;
	FILE *f;

	if (tid <= 0)
		return false;
	snprintf(path, sizeof(path), "/proc/%d/status", tid);
	f = fopen(path, "re");
	if (!f)
		return false;
	while (!dying && fgets(line, sizeof(line), f)) {
		unsigned long long set;

		if (sscanf(line, "SigPnd: %llx", &set) == 1 ||
		    sscanf(line, "ShdPnd: %llx", &set) == 1)
			dying = set >> (SIGKILL - 1) & 1;
	}
	fclose(f);
	return dying;
}

static bool gives_up(struct icm_req *r)
{
	if (r->cancel && r->cancel(r))
		return true;
	/* the helper's open of a file must not keep umount waiting */
	return icm_front_is_helper(r->front, r->call.pid) || is_dying(r->call.pid);
}

/* An open file whose operation goes on although its caller was answered. */
struct abandoned {
	struct icm_task task;
	struct icm_front *front;
	struct abandoned *next;
	struct icm_handle *handle;
	unsigned n;
	bool release, is_dir; /* its last close has come meanwhile */
};

/* All mounts of this process; there is one. */
static pthread_mutex_t abandoned_lock = PTHREAD_MUTEX_INITIALIZER;
static struct abandoned *abandoned_list; /* protected by abandoned_lock */
static atomic_uint abandoned_count;	 /* lets others not take the lock */

static struct abandoned **find_abandoned_locked(struct icm_handle *h)
{
	struct abandoned **p = &abandoned_list;

	while (*p && (*p)->handle != h)
		p = &(*p)->next;
	return p;
}

static void abandon_handle(struct icm_front *front, struct icm_handle *h)
{
	ICM_LOCK_SCOPE(&abandoned_lock);
	struct abandoned *a;

	if (!h)
		return;
	a = *find_abandoned_locked(h);
	if (!a) {
		a = icm_xcalloc(1, sizeof(*a));
		*a = (struct abandoned){ .front = front, .handle = h, .next = abandoned_list };
		abandoned_list = a;
		atomic_fetch_add(&abandoned_count, 1);
	}
	a->n++;
}

static void release_now(struct icm_handle *h, bool is_dir)
{
	if (is_dir)
		icm_fs_releasedir(h);
	else
		icm_fs_release(h);
}

static void release_task(struct icm_task *task)
{
	struct abandoned *a = ICM_CONTAINER(task, struct abandoned, task);

	release_now(a->handle, a->is_dir);
	free(a);
}

static struct abandoned *unabandon(struct icm_handle *h)
{
	ICM_LOCK_SCOPE(&abandoned_lock);
	struct abandoned **p = find_abandoned_locked(h);
	struct abandoned *a = *p;

	if (--a->n > 0)
		return NULL;
	*p = a->next;
	atomic_fetch_sub(&abandoned_count, 1);
	return a;
}

static void unabandon_handle(struct icm_handle *h)
{
	struct abandoned *a = h ? unabandon(h) : NULL;

	if (!a)
		return;
	a->task.run = release_task;
	if (a->release)
		icm_executor_submit(a->front->lanes[ICM_LANE_RELEASE], &a->task);
	else
		free(a);
}

static bool defer_release(struct icm_handle *h, bool is_dir)
{
	ICM_LOCK_SCOPE(&abandoned_lock);
	struct abandoned *a = *find_abandoned_locked(h);

	if (!a)
		return false;
	a->release = true;
	a->is_dir = is_dir;
	return true;
}

void icm_release_handle(struct icm_handle *h, bool is_dir)
{
	if (atomic_load(&abandoned_count) && defer_release(h, is_dir))
		return;
	release_now(h, is_dir);
}

/* ---- answers ---- */

bool icm_req_claim(struct icm_req *r)
{
	if (!r->parked)
		return true;
	if (atomic_exchange(&r->claimed, true))
		return false;
	pthread_rwlock_rdlock(&r->front->live_lock);
	if (!r->front->live) {
		pthread_rwlock_unlock(&r->front->live_lock);
		return false;
	}
	/* waits for a running `interrupted`, after which none comes any more */
	fuse_req_interrupt_func(r->req, NULL, NULL);
	if (unwatch(r))
		icm_req_unref(r);
	return true;
}

void icm_req_answered(struct icm_req *r)
{
	if (r->parked)
		pthread_rwlock_unlock(&r->front->live_lock);
}

void icm_reply_err(struct icm_req *r, int err)
{
	if (!icm_req_claim(r))
		return;
	fuse_reply_err(r->req, icm_errno(err));
	icm_req_answered(r);
}

static void give_up(struct icm_req *r)
{
	/* before the answer: the caller's last close can follow it at once */
	abandon_handle(r->front, r->handle);
	abandon_handle(r->front, r->to_handle);
	if (icm_req_claim(r)) {
		r->abandoned = true;
		fuse_reply_err(r->req, EINTR);
		icm_req_answered(r);
	} else {
		unabandon_handle(r->handle);
		unabandon_handle(r->to_handle);
	}
}

/* ---- the watch ---- */

/* References to all requests on the list. */
static struct icm_req **snapshot(struct icm_watch *w, size_t *ret_n)
{
	ICM_LOCK_SCOPE(&w->lock);
	struct icm_req **all;
	size_t n = 0;

	for (struct icm_req *r = w->first; r; r = r->watch_next)
		n++;
	all = icm_xcalloc(n ? n : 1, sizeof(*all));
	*ret_n = n;
	for (struct icm_req *r = w->first; r; r = r->watch_next) {
		icm_req_ref(r);
		all[--n] = r;
	}
	return all;
}

/* Looks at each; without the lock, since a cancellation takes the core's locks
 * and a worker thread that brings an interrupt must not wait for that. */
static void look(struct icm_watch *w)
{
	ICM_AUTOFREE struct icm_req **all = NULL;
	size_t n;

	all = snapshot(w, &n);
	for (size_t i = 0; i < n; i++) {
		if (gives_up(all[i]))
			give_up(all[i]);
		icm_req_unref(all[i]);
	}
}

static void watch_sleep_locked(struct icm_watch *w)
{
	struct timespec until;

	while (!w->first && !w->stopping)
		pthread_cond_wait(&w->cond, &w->lock);
	/* an interrupt comes once for each request, and the first may have been harmless */
	until = icm_ns_to_timespec(icm_now_ns() + 100 * ICM_NS_PER_MS);
	while (!w->kicked && !w->stopping)
		if (pthread_cond_timedwait(&w->cond, &w->lock, &until))
			break;
	w->kicked = false;
}

static void *watch_thread(void *arg)
{
	struct icm_watch *w = arg;

	pthread_setname_np(pthread_self(), "icmfs-watch");
	pthread_mutex_lock(&w->lock);
	while (!w->stopping) {
		pthread_mutex_unlock(&w->lock);
		look(w);
		pthread_mutex_lock(&w->lock);
		watch_sleep_locked(w);
	}
	pthread_mutex_unlock(&w->lock);
	return NULL;
}

struct icm_watch *icm_watch_new(void)
{
	struct icm_watch *w = icm_xcalloc(1, sizeof(*w));
	pthread_condattr_t attr;

	pthread_mutex_init(&w->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&w->cond, &attr);
	pthread_condattr_destroy(&attr);
	return w;
}

int icm_watch_start(struct icm_watch *w)
{
	int err = icm_thread_start(&w->thread, watch_thread, w);

	w->started = !err;
	return err;
}

void icm_watch_stop(struct icm_watch *w)
{
	pthread_mutex_lock(&w->lock);
	w->stopping = true;
	pthread_cond_signal(&w->cond);
	pthread_mutex_unlock(&w->lock);
	if (w->started)
		pthread_join(w->thread, NULL);
	w->started = false;
}

struct icm_watch *icm_watch_free(struct icm_watch *w)
{
	if (!w)
		return NULL;
	pthread_cond_destroy(&w->cond);
	pthread_mutex_destroy(&w->lock);
	free(w);
	return NULL;
}

void icm_watch_kick(struct icm_watch *w)
{
	ICM_LOCK_SCOPE(&w->lock);

	w->kicked = true;
	pthread_cond_signal(&w->cond);
}

/* ---- parking ---- */

void icm_req_ref(struct icm_req *r)
{
	atomic_fetch_add(&r->refs, 1);
}

void icm_req_unref(struct icm_req *r)
{
	if (atomic_fetch_sub(&r->refs, 1) > 1)
		return;
	if (r->abandoned) {
		unabandon_handle(r->handle);
		unabandon_handle(r->to_handle);
	}
	icm_fs_forget(r->view, 1);
	if (r->to_view)
		icm_fs_forget(r->to_view, 1);
	free((char *)r->name);
	free((char *)r->to_name);
	free((void *)r->data);
	free(r);
}

struct icm_req *icm_req_park(const struct icm_req *from)
{
	struct icm_req *r = icm_xmemdup(from, sizeof(*from));

	r->parked = true;
	r->call.nowait = false;
	atomic_init(&r->refs, 1);
	/* the kernel may forget both once a killed caller was answered */
	icm_view_ref(r->view);
	if (r->to_view)
		icm_view_ref(r->to_view);
	r->name = r->name ? icm_xstrdup(r->name) : NULL;
	r->to_name = r->to_name ? icm_xstrdup(r->to_name) : NULL;
	r->data = r->data ? icm_xmemdup(r->data, r->size) : NULL;
	fuse_req_interrupt_func(r->req, interrupted, r);
	return r;
}

/* Does a parked operation; drops the reference. */
static void run_parked(struct icm_req *r)
{
	if ((r->must_run || !atomic_load(&r->claimed)) && r->run(r) == ICM_WOULD_WAIT) {
		icm_log_err("an operation gave up without having been asked to; answered with EIO");
		icm_reply_err(r, EIO);
	}
	icm_req_unref(r);
}

static void req_task(struct icm_task *task)
{
	run_parked(ICM_CONTAINER(task, struct icm_req, task));
}

void icm_req_submit(struct icm_req *r, enum icm_lane lane)
{
	r->task.run = req_task;
	icm_executor_submit(r->front->lanes[lane], &r->task);
}

void icm_req_try(struct icm_req *r)
{
	r->call.nowait = true;
	if (r->run(r) == ICM_WOULD_WAIT)
		icm_req_submit(icm_req_park(r), ICM_LANE_IO);
}

bool icm_in_place_begin(struct icm_front *front)
{
	if (!front->local)
		return false;
	if (atomic_fetch_add(&front->in_place, 1) < IN_PLACE_MAX)
		return true;
	atomic_fetch_sub(&front->in_place, 1);
	return false;
}

void icm_in_place_end(struct icm_front *front)
{
	atomic_fetch_sub(&front->in_place, 1);
}

void icm_req_store(struct icm_req *from, enum icm_lane lane)
{
	struct icm_front *front = from->front;
	struct icm_req *r = icm_req_park(from);

	if (icm_in_place_begin(front)) {
		run_parked(r);
		icm_in_place_end(front);
	} else {
		icm_req_submit(r, lane);
	}
}
