/* SPDX-License-Identifier: MIT
 * Locks on shared files. Inside the mount they are in the file's lock table
 * (lock.c); towards other mounts the mount claims the whole file with the key
 * lock/<ino>, from its first lock on it to the last. While another live mount
 * has the claim a lock call is refused with ENOLCK: never granted wrongly. */
#include <fcntl.h>
#include <string.h>

#include "core/commit.h"
#include "core/control.h"
#include "core/feed.h"
#include "core/introspect.h"
#include "core/key.h"
#include "core/lease.h"
#include "util/clock.h"
#include "util/log.h"

/* Claim, table and the end of the claim change together. */
static pthread_mutex_t *claim_lock(struct icm_volume *vol, const struct icm_inode *inode)
{
	return &vol->claim_locks[icm_hash_u64((uintptr_t)inode) % ICM_CLAIM_LOCKS];
}

/* ---- the claim ---- */

static char *claim_value(struct icm_volume *vol, const char *lease, size_t *ret_len)
{
	struct icm_lock_claim c = { .lease = (char *)lease,
				    .host = vol->host,
				    .user = vol->user,
				    .pid = (uint64_t)getpid(),
				    .since = icm_wall_time() };

	icm_random_id(c.id);
	return icm_lock_claim_encode(&c, ret_len);
}

/* The key exists: its owner may be dead, or it may be ours of an earlier lease. */
static int take_over(struct icm_volume *vol, const char *key, const char *lease,
		     uint64_t *ret_index)
{
	struct icm_ctx ctx = icm_volume_ctx(vol);
	ICM_AUTOENTRY struct icm_entry e = { 0 };
	ICM_AUTOPART struct icm_part part = ICM_PART_INIT;
	struct icm_lock_claim c;
	size_t len;
	char *value;
	int r;

	ctx.consistent = true;
	r = icm_backend_get(vol->be, &ctx, key, &e);
	if (r < 0)
		return r == -ENOENT ? -ESTALE : r;
	if (icm_lock_claim_decode(e.value, e.len, &c) < 0) {
		icm_log_err("'%s' is damaged: nobody gets the lock", key);
		return -ENOLCK;
	}
	if (strcmp(c.lease, lease) == 0) {
		*ret_index = e.modify_index;
		icm_lock_claim_clear(&c);
		return 0;
	}
	value = claim_value(vol, lease, &len);
	icm_part_check_absent(&part, icm_xstrdup(c.lease));
	icm_part_cas(&part, icm_xstrdup(key), e.modify_index, value, len, 0);
	icm_lock_claim_clear(&c);
	r = icm_commit_quiet(vol, &part);
	if (r == 0)
		*ret_index = part.index;
	else if (r == -ESTALE && part.failed_op == 0)
		return -ENOLCK; /* its mount lives */
	return r;
}

static bool is_current_lease(struct icm_volume *vol, const char *lease)
{
	ICM_AUTOFREE char *now = NULL;
	uint64_t index;

	return icm_lease_guard(vol, &now, &index) == 0 && strcmp(now, lease) == 0;
}

/* Makes sure that this mount has the file's locks. */
static int claim(struct icm_volume *vol, struct icm_inode *inode)
{
	ICM_AUTOFREE char *key = icm_key_lock(inode->attr.ino);
	ICM_AUTOFREE char *lease = NULL;
	uint64_t lease_index, index = 0;
	int r = icm_lease_guard(vol, &lease, &lease_index);

	for (int tries = 0; r == 0 && tries < ICM_CONFLICT_TRIES; tries++) {
		ICM_AUTOPART struct icm_part part = ICM_PART_INIT;
		size_t len;
		char *value = claim_value(vol, lease, &len);

		icm_part_cas(&part, icm_xstrdup(key), 0, value, len, 0);
		r = icm_commit_quiet(vol, &part);
		index = part.index;
		if (r == -ESTALE)
			r = take_over(vol, key, lease, &index);
		if (r != -ESTALE)
			break;
		r = 0;
	}
	if (r < 0)
		return r == -ESTALE ? -ENOLCK : r;
	if (!is_current_lease(vol, lease))
		return -ENOLCK; /* it ended meanwhile, and the claim names it */
	pthread_mutex_lock(&vol->lock);
	inode->claim_index = index;
	pthread_mutex_unlock(&vol->lock);
	return 0;
}

/* Gives the claim back if nothing here needs it any more; the claim lock is held. */
static void unclaim(struct icm_volume *vol, struct icm_inode *inode)
{
	ICM_AUTOPART struct icm_part part = ICM_PART_INIT;
	uint64_t index = 0;

	pthread_mutex_lock(&vol->lock);
	if (inode->claim_index && (!inode->locks || icm_lock_table_empty(inode->locks))) {
		index = inode->claim_index;
		inode->claim_index = 0;
	}
	pthread_mutex_unlock(&vol->lock);
	if (!index)
		return;
	icm_part_delete_cas(&part, icm_key_lock(inode->attr.ino), index);
	/* a failure leaves a claim that ends with the lease */
	if (icm_commit_quiet(vol, &part) < 0)
		icm_log_debug("a lock claim stays until the lease ends");
}

/* ---- lock calls ---- */

static struct icm_lock_table *table_of(struct icm_volume *vol, struct icm_inode *inode)
{
	ICM_LOCK_SCOPE(&vol->lock);

	if (!inode->locks)
		inode->locks = icm_lock_table_new(vol->lock_set);
	return inode->locks;
}

static bool has_claim(struct icm_volume *vol, struct icm_inode *inode)
{
	ICM_LOCK_SCOPE(&vol->lock);

	return inode->claim_index != 0;
}

/* The handle reads the newest version from now on. Pages that a mapping has
 * changed come back first, while the view still is at the version that they are
 * based on. */
static void see_latest(struct icm_volume *vol, struct icm_file *f)
{
	struct icm_news news = { 0 };
	bool frozen;

	pthread_mutex_lock(&vol->lock);
	frozen = f->frozen;
	pthread_mutex_unlock(&vol->lock);
	if (frozen && vol->notify.inval_data) {
		vol->notify.inval_data(vol->notify_data, &f->view);
		vol->notify.drain(vol->notify_data, &f->view);
	}
	pthread_mutex_lock(&vol->lock);
	icm_file_thaw(vol, f, &news);
	pthread_mutex_unlock(&vol->lock);
	icm_news_tell(vol, &news);
	if (vol->notify.drain)
		vol->notify.drain(vol->notify_data, &f->view);
}

bool icm_file_lock_is_lost(struct icm_volume *vol, struct icm_handle *h)
{
	uint64_t epoch = icm_file_handle_of(h)->lock_epoch;

	return epoch && epoch != vol->lock_epoch;
}

static bool handle_lost(struct icm_volume *vol, struct icm_handle *h)
{
	ICM_LOCK_SCOPE(&vol->lock);

	return icm_file_lock_is_lost(vol, h);
}

/* Which lease a handle's locks hang on; a parked request counts as a lock. */
static void note_epoch(struct icm_volume *vol, struct icm_handle *h,
		       const struct icm_lock_request *req, int result)
{
	ICM_LOCK_SCOPE(&vol->lock);

	if (req->type != F_UNLCK && (result == 0 || result == -EINPROGRESS))
		icm_file_handle_of(h)->lock_epoch = vol->lock_epoch;
	else if (req->type == F_UNLCK && (req->flock || req->start == 0))
		icm_file_handle_of(h)->lock_epoch = 0;
}

static bool is_unpublished(struct icm_volume *vol, struct icm_file *f)
{
	ICM_LOCK_SCOPE(&vol->lock);

	return !f->inode->published && f->inode->names;
}

static int lock_shared(struct icm_handle *h, const struct icm_call *call,
		       const struct icm_lock_request *req, icm_lock_done_fn done, void *userdata,
		       struct icm_lock_wait **ret_wait)
{
	struct icm_volume *vol = h->view->vol;
	struct icm_file *f = icm_file_of(h->view);
	struct icm_lock_table *table = table_of(vol, f->inode);
	int r = 0;

	if (vol->read_only && req->type != F_UNLCK)
		return -ENOLCK;
	/* What was written under a lock is stored before the lock is released or weakened, and if
	 * it can't be, the lock stays (bytes that went to a conflict copy are stored). The first
	 * lock of a new file publishes it. */
	if (req->type == F_UNLCK || is_unpublished(vol, f) ||
	    icm_lock_table_downgrades(table, h->serial, req)) {
		r = icm_file_publish(vol, f, call->pid);
		if (r < 0 && (r != -ESTALE || req->type != F_UNLCK))
			return r;
	}
	if (req->type != F_UNLCK && handle_lost(vol, h))
		return -EIO;
	pthread_mutex_lock(claim_lock(vol, f->inode));
	if (req->type != F_UNLCK && !has_claim(vol, f->inode)) {
		int c = claim(vol, f->inode);

		if (c == 0)
			c = icm_volume_catch_up(vol);
		if (c < 0)
			r = c;
	}
	if (r == 0 && req->type != F_UNLCK)
		see_latest(vol, f);
	if (r == 0 || req->type == F_UNLCK) {
		int l = icm_lock_table_set(table, h->serial, req, done, userdata, ret_wait);

		if (r == 0)
			r = l;
		note_epoch(vol, h, req, l);
	}
	unclaim(vol, f->inode);
	pthread_mutex_unlock(claim_lock(vol, f->inode));
	return r;
}

/* .icmfs/lock is claimed like any file, under its own number; the table is the
 * root's, whose own locks nobody can take (it is a directory). */
static struct icm_file *file_for_locks(struct icm_handle *h)
{
	if (h->view->ops == &icm_shared_view_ops)
		return icm_file_of(h->view);
	return NULL;
}

static int lock_control(struct icm_handle *h, const struct icm_lock_request *req,
			icm_lock_done_fn done, void *userdata, struct icm_lock_wait **ret_wait)
{
	struct icm_volume *vol = h->view->vol;
	struct icm_inode *inode = vol->lock_inode;
	int r = 0;

	if (vol->read_only)
		return -ENOLCK;
	pthread_mutex_lock(claim_lock(vol, inode));
	if (req->type != F_UNLCK && !has_claim(vol, inode))
		r = claim(vol, inode);
	if (r == 0 && req->type != F_UNLCK)
		r = icm_volume_catch_up(vol);
	if (r == 0)
		r = icm_lock_table_set(table_of(vol, inode), h->serial, req, done, userdata,
				       ret_wait);
	unclaim(vol, inode);
	pthread_mutex_unlock(claim_lock(vol, inode));
	return r;
}

int icm_fs_lock(struct icm_handle *h, const struct icm_call *call,
		const struct icm_lock_request *req, icm_lock_done_fn done, void *userdata,
		struct icm_lock_wait **ret_wait)
{
	if (h->view->ops == &icm_shared_view_ops)
		return lock_shared(h, call, req, done, userdata, ret_wait);
	if (h->view->ops == &icm_scratch_view_ops)
		return icm_scratch_lock(h, req, done, userdata, ret_wait);
	if (h->view->ino == ICM_INO_LOCK_FILE)
		return lock_control(h, req, done, userdata, ret_wait);
	return -ENOLCK;
}

bool icm_fs_lock_cancel(struct icm_volume *vol, struct icm_lock_wait *wait)
{
	return icm_lock_cancel(vol->lock_set, wait);
}

int icm_fs_getlk(struct icm_handle *h, const struct icm_call *call,
		 const struct icm_lock_request *req, struct flock *lk)
{
	struct icm_volume *vol = h->view->vol;
	struct icm_file *f = file_for_locks(h);

	(void)call;
	lk->l_type = F_UNLCK;
	if (f)
		icm_lock_table_get(table_of(vol, f->inode), h->serial, req, lk);
	else if (h->view->ops == &icm_scratch_view_ops)
		icm_scratch_getlk(h, req, lk);
	else if (h->view->ino == ICM_INO_LOCK_FILE)
		icm_lock_table_get(table_of(vol, vol->lock_inode), h->serial, req, lk);
	return 0;
}

/* ---- ends of locks ---- */

static struct icm_lock_table *existing_table(struct icm_volume *vol, struct icm_file *f)
{
	ICM_LOCK_SCOPE(&vol->lock);

	return f->inode->locks;
}

bool icm_file_lock_has_owner(struct icm_volume *vol, struct icm_file *f, uint64_t owner)
{
	struct icm_lock_table *table = existing_table(vol, f);

	return table && icm_lock_table_has_owner(table, owner);
}

void icm_file_lock_flush(struct icm_volume *vol, struct icm_file *f, uint64_t owner)
{
	struct icm_lock_table *table = existing_table(vol, f);

	if (!table)
		return;
	pthread_mutex_lock(claim_lock(vol, f->inode));
	if (icm_lock_table_flush(table, owner))
		unclaim(vol, f->inode);
	pthread_mutex_unlock(claim_lock(vol, f->inode));
}

void icm_file_lock_release(struct icm_volume *vol, struct icm_file *f, struct icm_handle *h)
{
	struct icm_lock_table *table = existing_table(vol, f);

	if (!table)
		return;
	icm_lock_table_release(table, h->serial);
	pthread_mutex_lock(claim_lock(vol, f->inode));
	unclaim(vol, f->inode);
	pthread_mutex_unlock(claim_lock(vol, f->inode));
}

void icm_volume_control_flush(struct icm_volume *vol, struct icm_handle *h, uint64_t owner)
{
	(void)h;
	icm_file_lock_flush(vol, vol->lock_file, owner);
}

void icm_volume_control_release(struct icm_volume *vol, struct icm_handle *h)
{
	icm_file_lock_release(vol, vol->lock_file, h);
}

/* ---- all locks ---- */

/* Inodes that have a lock table, referenced: the tables call back without locks. */
static struct icm_inode **locked_inodes(struct icm_volume *vol, size_t *ret_n)
{
	struct icm_inode **v = NULL;
	size_t n = 0, cap = 0;
	ICM_LOCK_SCOPE(&vol->lock);

	icm_map_for_each (&vol->tree.inodes, i, node) {
		struct icm_inode *inode = ICM_CONTAINER(node, struct icm_inode, node);

		if (!inode->locks)
			continue;
		if (n == cap) {
			cap = cap ? cap * 2 : 8;
			v = icm_xrealloc(v, cap * sizeof(struct icm_inode *));
		}
		v[n++] = icm_inode_ref(inode);
	}
	*ret_n = n;
	return v;
}

static void unref_inodes(struct icm_volume *vol, struct icm_inode **v, size_t n)
{
	pthread_mutex_lock(&vol->lock);
	for (size_t i = 0; i < n; i++)
		icm_inode_unref(&vol->tree, v[i]);
	pthread_mutex_unlock(&vol->lock);
	free(v);
}

/* What was written under the locks isn't published any more: new openers get the
 * version that is stored. */
static void give_up_dirty_locked(struct icm_inode *inode, struct icm_news *news)
{
	for (struct icm_file *f = inode->views; f; f = f->next)
		f->lost = f->lost || f->dirty;
	for (struct icm_name *name = inode->names; name; name = name->alias)
		icm_news_name(news, name->dir, name->text);
}

void icm_locks_lost(struct icm_volume *vol)
{
	size_t n;
	struct icm_inode **v = locked_inodes(vol, &n);

	pthread_mutex_lock(&vol->lock);
	vol->lock_epoch++;
	pthread_mutex_unlock(&vol->lock);
	for (size_t i = 0; i < n; i++) {
		struct icm_news news = { 0 };

		pthread_mutex_lock(&vol->lock);
		if (v[i]->claim_index)
			give_up_dirty_locked(v[i], &news);
		v[i]->claim_index = 0;
		pthread_mutex_unlock(&vol->lock);
		icm_news_tell(vol, &news);
		icm_lock_table_revoke(v[i]->locks, -EIO);
	}
	unref_inodes(vol, v, n);
}

struct list_all {
	icm_volume_lock_fn fn;
	void *userdata;
	const char *path;
	uint64_t ino;
};

static void list_one(void *userdata, const struct icm_lock_info *info)
{
	struct list_all *l = userdata;
	struct icm_volume_lock lock = { .path = l->path, .ino = l->ino, .info = *info };

	l->fn(l->userdata, &lock);
}

void icm_volume_list_locks(struct icm_volume *vol, icm_volume_lock_fn fn, void *userdata)
{
	size_t n;
	struct icm_inode **v = locked_inodes(vol, &n);

	for (size_t i = 0; i < n; i++) {
		ICM_AUTOFREE char *path = NULL;
		struct list_all l = { .fn = fn, .userdata = userdata, .ino = v[i]->attr.ino };

		pthread_mutex_lock(&vol->lock);
		path = v[i] == vol->lock_inode ? icm_xstrdup(ICM_CONTROL_NAME "/lock")
					       : icm_inode_path(v[i]);
		pthread_mutex_unlock(&vol->lock);
		l.path = path;
		icm_lock_table_list(v[i]->locks, list_one, &l);
	}
	unref_inodes(vol, v, n);
}
