/* SPDX-License-Identifier: MIT */
#include "fuse-notify.h"

#include <linux/fuse.h>
#include <string.h>
#include <sys/uio.h>

#include "events.h"
#include "executor.h"
#include "expire-again.h"
#include "known.h"
#include "util/buf.h"
#include "util/log.h"
#include "util/map.h"

/* At most so many nodes can be blocked in the kernel before others wait. */
#define N_THREADS 16
#define IDLE_MS	  60000
/* Names of one directory that are compared before one is queued twice. */
#define SAME_NAME_LOOKS 64

/* Drops the names that the kernel knows by making all of them older than the
 * mount; kernel 6.16, fs/fuse/dev.c. Not in this version of linux/fuse.h. */
#define NOTIFY_INC_EPOCH 8

struct item {
	struct item *next;
	uint64_t number; /* in its queue */
	char name[];	 /* empty: attributes and pages of the node itself */
};

/* One node for which something is queued or being told. */
struct queue {
	struct icm_task task;
	struct icm_map_node in_queues;
	struct icm_notifier *notifier;
	uint64_t node;
	struct item *first, **last;
	uint64_t asked, done; /* numbers of the last items queued and told */
	unsigned drains;      /* who waits in icm_notify_drain */
	bool idle;	      /* no task is submitted */
};

struct icm_notifier {
	struct icm_front *front;
	struct icm_executor *threads;
	struct icm_expire_again *again;
	pthread_mutex_t lock; /* protects everything below and the queues */
	pthread_cond_t done;
	struct icm_map queues; /* by node */
	bool stopped;
};

static void expire_again(void *userdata, uint64_t parent, const char *name);

struct icm_notifier *icm_notifier_new(struct icm_front *front)
{
	struct icm_notifier *n = icm_xcalloc(1, sizeof(*n));

	n->front = front;
	n->again = icm_expire_again_new(expire_again, n);
	n->threads = icm_executor_new("icmfs-notify", N_THREADS, IDLE_MS);
	pthread_mutex_init(&n->lock, NULL);
	pthread_cond_init(&n->done, NULL);
	return n;
}

int icm_notifier_start(struct icm_notifier *n)
{
	int err = icm_executor_start(n->threads);

	return err ? err : icm_expire_again_start(n->again);
}

void icm_notifier_stop(struct icm_notifier *n)
{
	pthread_mutex_lock(&n->lock);
	n->stopped = true;
	pthread_mutex_unlock(&n->lock);
	icm_expire_again_stop(n->again);
	icm_executor_drain(n->threads);
}

struct icm_notifier *icm_notifier_free(struct icm_notifier *n)
{
	if (!n)
		return NULL;
	icm_notifier_stop(n);
	icm_executor_free(n->threads);
	icm_expire_again_free(n->again);
	icm_map_free(&n->queues);
	pthread_cond_destroy(&n->done);
	pthread_mutex_destroy(&n->lock);
	free(n);
	return NULL;
}

/* ---- the calls into the kernel ---- */

/* An inode or name that the kernel doesn't know, and a mount that is gone, are
 * as good as told. */
static void told(int err, const char *what)
{
	if (err && err != -ENOENT && err != -ENOTDIR && err != -EBADF && err != -ENODEV &&
	    err != -ENOTCONN)
		icm_log_warning("the kernel refused a notification (%s): %s", what, strerror(-err));
}

/* True with the read side of the lock held: the device is open. */
static bool enter(struct icm_front *front)
{
	pthread_rwlock_rdlock(&front->live_lock);
	if (front->live)
		return true;
	pthread_rwlock_unlock(&front->live_lock);
	return false;
}

void icm_notify_attr(struct icm_front *front, uint64_t node)
{
	if (!enter(front))
		return;
	told(fuse_lowlevel_notify_inval_inode(front->session, node, -1, 0), "attributes");
	pthread_rwlock_unlock(&front->live_lock);
}

static void tell_data(struct icm_front *front, uint64_t node)
{
	if (!enter(front))
		return;
	told(fuse_lowlevel_notify_inval_inode(front->session, node, 0, 0), "contents");
	pthread_rwlock_unlock(&front->live_lock);
}

/* Expires, never invalidates: a name in use as a working directory, by an open
 * file or under a mount stays what it is. */
static void tell_name(struct icm_front *front, uint64_t parent, const char *name)
{
	int err;

	if (!enter(front))
		return;
#if FUSE_VERSION >= FUSE_MAKE_VERSION(3, 16)
	err = fuse_lowlevel_notify_expire_entry(front->session, parent, name, strlen(name));
#else
	err = fuse_lowlevel_notify_expire_entry(front->session, parent, name, strlen(name),
						FUSE_LL_EXPIRE_ONLY);
#endif
	told(err, "name");
	pthread_rwlock_unlock(&front->live_lock);
}

/* False: this kernel doesn't know it. */
static bool tell_epoch(struct icm_front *front)
{
	struct fuse_out_header out = { .len = sizeof(out), .error = NOTIFY_INC_EPOCH };
	bool ok;

	if (!enter(front))
		return true;
	ok = write(fuse_session_fd(front->session), &out, sizeof(out)) >= 0 || errno != EINVAL;
	pthread_rwlock_unlock(&front->live_lock);
	return ok;
}

/* ---- the queue ---- */

static struct queue *find_locked(struct icm_notifier *n, uint64_t node)
{
	struct icm_map_node *m = icm_map_first(&n->queues, icm_hash_u64(node));

	for (; m; m = icm_map_next(m)) {
		struct queue *q = ICM_CONTAINER(m, struct queue, in_queues);

		if (q->node == node)
			return q;
	}
	return NULL;
}

static void drop_unused_locked(struct icm_notifier *n, struct queue *q)
{
	if (!q->idle || q->drains > 0)
		return;
	icm_map_remove(&n->queues, &q->in_queues);
	free(q);
}

static void tell(struct icm_notifier *n, uint64_t node, const struct item *item)
{
	if (item->name[0])
		tell_name(n->front, node, item->name);
	else
		tell_data(n->front, node);
}

static void queue_task(struct icm_task *task)
{
	struct queue *q = ICM_CONTAINER(task, struct queue, task);
	struct icm_notifier *n = q->notifier;
	ICM_LOCK_SCOPE(&n->lock);

	while (q->first) {
		struct item *item = q->first;

		q->first = item->next;
		if (!q->first)
			q->last = &q->first;
		pthread_mutex_unlock(&n->lock);
		tell(n, q->node, item);
		pthread_mutex_lock(&n->lock);
		q->done = item->number;
		if (q->drains)
			pthread_cond_broadcast(&n->done);
		free(item);
	}
	q->idle = true;
	drop_unused_locked(n, q);
}

static bool is_queued_locked(const struct queue *q, const char *name)
{
	unsigned looks = 0;

	for (const struct item *i = q->first; i && looks < SAME_NAME_LOOKS; i = i->next, looks++)
		if (!strcmp(i->name, name))
			return true;
	return false;
}

static void push_locked(struct icm_notifier *n, struct queue *q, const char *name)
{
	size_t len = strlen(name);
	struct item *item;

	if (is_queued_locked(q, name))
		return;
	item = icm_xmalloc(sizeof(*item) + len + 1);
	item->next = NULL;
	item->number = ++q->asked;
	memcpy(item->name, name, len + 1);
	*q->last = item;
	q->last = &item->next;
	if (q->idle) {
		q->idle = false;
		icm_executor_submit(n->threads, &q->task);
	}
}

static struct queue *get_locked(struct icm_notifier *n, uint64_t node)
{
	struct queue *q = find_locked(n, node);

	if (q)
		return q;
	q = icm_xcalloc(1, sizeof(*q));
	*q = (struct queue){ .notifier = n, .node = node, .task.run = queue_task, .idle = true };
	q->last = &q->first;
	icm_map_add(&n->queues, &q->in_queues, icm_hash_u64(node));
	return q;
}

static void expire(struct icm_notifier *n, uint64_t parent, const char *name)
{
	ICM_LOCK_SCOPE(&n->lock);

	if (!n->stopped)
		push_locked(n, get_locked(n, parent), name);
}

static void note_node(void *userdata, uint64_t node)
{
	*(uint64_t *)userdata = node;
}

struct dir_query {
	struct icm_front *front;
	bool is_dir;
};

static void ask_for_dir(void *userdata, uint64_t node)
{
	struct dir_query *q = userdata;

	q->is_dir = icm_view_is_dir(icm_node_view(q->front, node));
}

/* The number of a directory that is gone may be a file's by now. */
static bool is_dir(struct icm_front *front, uint64_t node)
{
	struct dir_query q = { front, node == FUSE_ROOT_ID };

	if (!q.is_dir)
		icm_known_visit(front->known, node, ask_for_dir, &q);
	return q.is_dir;
}

static void expire_again(void *userdata, uint64_t parent, const char *name)
{
	struct icm_notifier *n = userdata;
	uint64_t node = 0;

	icm_known_find(n->front->known, parent, name, note_node, &node);
	if (!node || !is_dir(n->front, parent))
		return;
	icm_notify_attr(n->front, node);
	expire(n, parent, name);
}

void icm_notify_expire(struct icm_notifier *n, uint64_t parent, const char *name)
{
	expire(n, parent, name);
	icm_expire_again_expired(n->again, parent, name);
}

void icm_notify_answer(struct icm_notifier *n, uint64_t parent, const char *name)
{
	icm_expire_again_answered(n->again, parent, name);
}

void icm_notify_data(struct icm_notifier *n, uint64_t node)
{
	ICM_LOCK_SCOPE(&n->lock);

	if (!n->stopped)
		push_locked(n, get_locked(n, node), "");
}

void icm_notify_drain(struct icm_notifier *n, uint64_t node)
{
	ICM_LOCK_SCOPE(&n->lock);
	struct queue *q = find_locked(n, node);
	uint64_t asked;

	if (!q)
		return;
	asked = q->asked;
	q->drains++;
	while (q->done < asked)
		pthread_cond_wait(&n->done, &n->lock);
	q->drains--;
	drop_unused_locked(n, q);
}

static void reset_node(void *userdata, uint64_t node)
{
	icm_notify_data(userdata, node);
}

static void reset_name(void *userdata, uint64_t parent, const char *name)
{
	icm_notify_expire(userdata, parent, name);
}

void icm_notify_reset(struct icm_front *front)
{
	bool epoch = tell_epoch(front);

	icm_known_walk(front->known, reset_node, epoch ? NULL : reset_name, front->notifier);
	icm_notify_data(front->notifier, FUSE_ROOT_ID);
}

/* ---- for the core ---- */

static void on_inval_data(void *userdata, struct icm_view *view)
{
	struct icm_front *front = userdata;

	atomic_fetch_add(&front->changes, 1);
	icm_notify_data(front->notifier, icm_view_node(front, view));
}

static void on_attr_changed(void *userdata, struct icm_view *view)
{
	struct icm_front *front = userdata;

	atomic_fetch_add(&front->changes, 1);
	icm_notify_attr(front, icm_view_node(front, view));
}

static void on_expire_name(void *userdata, struct icm_view *dir, const char *name)
{
	struct icm_front *front = userdata;

	atomic_fetch_add(&front->changes, 1);
	icm_notify_expire(front->notifier, icm_view_node(front, dir), name);
}

static void on_reset(void *userdata)
{
	struct icm_front *front = userdata;

	atomic_fetch_add(&front->changes, 1);
	icm_notify_reset(front);
}

static void on_event(void *userdata, const struct icm_event *event)
{
	struct icm_front *front = userdata;

	if (front->events)
		icm_events_add(front->events, event);
}

static void on_drain(void *userdata, struct icm_view *view)
{
	struct icm_front *front = userdata;

	icm_notify_drain(front->notifier, icm_view_node(front, view));
}

const struct icm_notify icm_front_notify = {
	.inval_data = on_inval_data,
	.attr_changed = on_attr_changed,
	.expire_name = on_expire_name,
	.reset = on_reset,
	.event = on_event,
	.drain = on_drain,
};
