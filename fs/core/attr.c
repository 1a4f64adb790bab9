/* SPDX-License-Identifier: MIT
 * Attributes, symbolic links' targets, extended attributes of shared objects. */
#include <string.h>
#include <sys/xattr.h>

#include "core/apply.h"
#include "core/attr.h"
#include "core/feed.h"
#include "core/key.h"
#include "core/names.h"
#include "util/clock.h"

/* Says how strong a file's locks are; not stored. */
#define XATTR_LOCK "user.icmfs.lock"

static struct icm_inode *inode_of(struct icm_view *view)
{
	return icm_file_of(view)->inode;
}

void icm_view_stat(struct icm_view *view, struct stat *ret_st)
{
	struct icm_volume *vol = view->vol;
	ICM_LOCK_SCOPE(&vol->lock);

	icm_file_stat(vol, icm_file_of(view), ret_st);
}

/* What is being written here is known best here; and what a call of this mount has
 * just changed, such as a directory by a new name in it, the kernel asks for because
 * of that call. */
static bool is_ours(struct icm_volume *vol, const struct icm_file *f)
{
	ICM_LOCK_SCOPE(&vol->lock);

	return f->dirty || f->n_writers || !f->inode->published || !f->inode->names ||
	       icm_feed_just_made(vol, f->inode);
}

/* The kernel asks seldom, and among others before it denies something: another mount
 * may have allowed it a moment ago. */
int icm_shared_getattr(struct icm_view *view, const struct icm_call *call, struct icm_handle *h,
		       struct stat *ret_st)
{
	struct icm_volume *vol = view->vol;

	(void)h;
	if (!call->as_known && !vol->cached && !is_ours(vol, icm_file_of(view))) {
		if (call->nowait && !vol->be->facts.local)
			return ICM_WOULD_WAIT;
		icm_volume_glance(vol);
	}
	icm_view_stat(view, ret_st);
	return 0;
}

/* ---- a change of attributes as one transaction ---- */

/* Changes *a; 0, or an error that ends the operation. */
typedef int (*change_fn)(struct icm_attr *a, void *userdata);

/* What is changed, at one moment. */
struct attr_target {
	char *path;	      /* owned */
	struct icm_attr attr; /* owned copy */
	uint64_t attr_index, inode_index;
	bool published;
};

static void target_clear(struct attr_target *t)
{
	free(t->path);
	icm_attr_clear(&t->attr);
}

static void take_target(struct icm_volume *vol, struct icm_inode *inode, struct attr_target *t)
{
	ICM_LOCK_SCOPE(&vol->lock);

	*t = (struct attr_target){ .path = icm_inode_path(inode),
				   .inode_index = inode->index,
				   .published = inode->published && inode->names };
	icm_attr_copy(&t->attr, &inode->attr);
	if (inode->names)
		t->attr_index = inode->names->attr_index;
}

/* inode/<ino> keeps its contents: read it and put the new attributes in. */
static int add_linked(struct icm_volume *vol, struct icm_part *part, const struct attr_target *t)
{
	struct icm_ctx ctx = icm_volume_ctx(vol);
	ICM_AUTOFREE char *key = icm_key_inode(t->attr.ino);
	ICM_AUTOENTRY struct icm_entry e = { 0 };
	struct icm_inode_value v;
	size_t len;
	char *json;
	int r = icm_backend_get(vol->be, &ctx, key, &e);

	if (r < 0)
		return r == -ENOENT ? -ESTALE : r;
	if (e.modify_index != t->inode_index)
		return -ESTALE;
	if (icm_inode_value_decode(e.value, e.len, &v) < 0)
		return -EIO;
	icm_attr_clear(&v.attr);
	icm_attr_copy(&v.attr, &t->attr);
	json = icm_inode_value_encode(&v, &len);
	icm_inode_value_clear(&v);
	icm_part_cas(part, ICM_STEAL(&key), t->inode_index, json, len, 0);
	return 0;
}

static void add_dir_times(struct icm_part *part, const struct attr_target *t)
{
	struct icm_dir_times times = { .mtime = t->attr.mtime, .ctime = t->attr.ctime };
	size_t len;
	char *json;

	icm_random_id(times.id);
	json = icm_dir_times_encode(&times, &len);
	icm_part_set(part, icm_key_tree_dir(t->path), json, len, 0);
}

static int commit_attr(struct icm_volume *vol, struct icm_inode *inode, pid_t pid,
		       struct attr_target *t)
{
	ICM_AUTOPART struct icm_part part = ICM_PART_INIT;
	struct icm_news news = { 0 };
	size_t len;
	char *json;
	int r = 0;

	icm_random_id(t->attr.id);
	part.pid = pid;
	if (t->attr.linked) {
		r = add_linked(vol, &part, t);
	} else {
		json = icm_attr_encode(&t->attr, &len);
		icm_part_cas(&part, icm_key_attr(t->path), t->attr_index, json, len, 0);
		if (S_ISDIR(t->attr.mode))
			add_dir_times(&part, t);
	}
	icm_part_change(&part, ICM_CHANGE_ATTR, t->path, NULL, t->attr.ctime, &t->attr);
	if (r == 0)
		r = icm_commit(vol, &part);
	if (r < 0)
		return r;
	pthread_mutex_lock(&vol->lock);
	if (t->attr.linked && inode->index < part.index) {
		icm_apply_attr(vol, inode, &t->attr, NULL, &news);
		inode->index = part.index;
	} else if (!t->attr.linked && inode->names &&
		   icm_name_told_index(inode->names) < part.index) {
		icm_apply_keep_times(inode, part.index, &t->attr);
		icm_apply_attr(vol, inode, &t->attr, NULL, &news);
		if (inode->names->attr_index < part.index)
			inode->names->attr_index = part.index;
	}
	icm_feed_own_commit(vol, part.index);
	pthread_mutex_unlock(&vol->lock);
	icm_news_tell(vol, &news);
	return 0;
}

/* Of an object that the store doesn't have: not published yet, or unlinked.
 * -ESTALE: it has been published in this moment. */
static int change_local(struct icm_volume *vol, struct icm_inode *inode, change_fn fn,
			void *userdata)
{
	struct icm_file *f = icm_unpublished_lock(vol, inode);
	int r = -ESTALE;

	pthread_mutex_lock(&vol->lock);
	if (f || !inode->names)
		r = fn(&inode->attr, userdata);
	pthread_mutex_unlock(&vol->lock);
	icm_unpublished_unlock(f);
	return r;
}

static int look_again(struct icm_volume *vol, struct icm_inode *inode)
{
	struct icm_inode *dir = NULL;
	ICM_AUTOFREE char *text = NULL;
	int r;

	pthread_mutex_lock(&vol->lock);
	if (inode->names && inode->names->dir) {
		dir = icm_inode_ref(inode->names->dir);
		text = icm_xstrdup(inode->names->text);
	}
	pthread_mutex_unlock(&vol->lock);
	if (!dir)
		return icm_dir_refresh(vol, inode);
	r = icm_name_refresh(vol, dir, text);
	pthread_mutex_lock(&vol->lock);
	icm_inode_unref(&vol->tree, dir);
	pthread_mutex_unlock(&vol->lock);
	return r;
}

static int change_attr(struct icm_volume *vol, struct icm_inode *inode, const struct icm_call *call,
		       change_fn fn, void *userdata)
{
	if (vol->read_only)
		return -EROFS;
	for (int tries = 0; tries < ICM_CONFLICT_TRIES; tries++) {
		__attribute__((cleanup(target_clear))) struct attr_target t;
		int r;

		take_target(vol, inode, &t);
		if (!t.published) {
			r = change_local(vol, inode, fn, userdata);
			if (r != -ESTALE)
				return r;
			continue;
		}
		if (!t.path)
			return -ESTALE;
		r = fn(&t.attr, userdata);
		if (r == 0)
			r = commit_attr(vol, inode, call->pid, &t);
		if (r != -ESTALE)
			return r;
		r = look_again(vol, inode);
		if (r < 0)
			return r == -ENOENT ? -ESTALE : r;
	}
	return -EBUSY;
}

/* ---- setattr ---- */

struct setting {
	unsigned set;
	const struct stat *st;
};

static int apply_setting(struct icm_attr *a, void *userdata)
{
	const struct setting *s = userdata;

	if (s->set & ICM_SET_MODE)
		a->mode = (a->mode & S_IFMT) | (s->st->st_mode & 07777);
	if (s->set & ICM_SET_UID)
		a->uid = s->st->st_uid;
	if (s->set & ICM_SET_GID)
		a->gid = s->st->st_gid;
	if (s->set & ICM_SET_ATIME)
		a->atime = s->st->st_atim;
	if (s->set & ICM_SET_MTIME)
		a->mtime = s->st->st_mtim;
	a->ctime = icm_wall_time();
	return 0;
}

/* Times of a file that will be published anyway go with it. A publication that is
 * under way, perhaps the last one, is waited for. */
static bool defer_times(struct icm_volume *vol, struct icm_file *f, const struct setting *s)
{
	struct stat now;
	ICM_LOCK_SCOPE(&f->commit);
	ICM_LOCK_SCOPE(&vol->lock);

	if (!f->dirty || !f->n_writers || !S_ISREG(f->view.type) ||
	    (s->set & ~(ICM_SET_ATIME | ICM_SET_MTIME)))
		return false;
	icm_file_stat(vol, f, &now);
	f->set_atime = s->set & ICM_SET_ATIME ? s->st->st_atim : now.st_atim;
	f->set_mtime = s->set & ICM_SET_MTIME ? s->st->st_mtim : now.st_mtim;
	f->times_set = true;
	f->dirty_time = icm_wall_time();
	f->changes++;
	return true;
}

static bool is_open(struct icm_volume *vol, const struct icm_file *f)
{
	ICM_LOCK_SCOPE(&vol->lock);

	return f->n_handles > 0;
}

static int set_size(struct icm_volume *vol, struct icm_file *f, const struct icm_call *call,
		    struct icm_handle *h, const struct stat *st)
{
	int r;

	if (S_ISDIR(f->view.type))
		return -EISDIR;
	if (!S_ISREG(f->view.type))
		return -EINVAL;
	if (vol->read_only)
		return -EROFS;
	if (!h) {
		r = icm_file_revalidate(vol, f, call);
		if (r < 0)
			return r;
	}
	r = icm_file_truncate(vol, f, (uint64_t)st->st_size);
	if (r < 0 || h)
		return r;
	/* truncate(2) has no close that could publish it */
	r = icm_file_publish(vol, f, call->pid);
	if (r < 0 && !is_open(vol, f))
		icm_file_give_up(vol, f, r);
	return r;
}

int icm_shared_setattr(struct icm_view *view, const struct icm_call *call, struct icm_handle *h,
		       unsigned set, const struct stat *st, struct stat *ret_st)
{
	struct icm_volume *vol = view->vol;
	struct icm_file *f = icm_file_of(view);
	struct setting s = { .set = set & ~(ICM_SET_SIZE | ICM_SET_CTIME), .st = st };
	int r = 0;

	if (set & ICM_SET_SIZE) {
		r = set_size(vol, f, call, h, st);
		/* the kernel names the new mtime as well, which is now */
		s.set &= ~(unsigned)(ICM_SET_MTIME | ICM_SET_ATIME);
	}
	if (r == 0 && s.set && !defer_times(vol, f, &s))
		r = change_attr(vol, f->inode, call, apply_setting, &s);
	if (r == 0)
		icm_view_stat(view, ret_st);
	return r;
}

/* ---- symbolic links ---- */

int icm_load_target(struct icm_volume *vol, const char *path, uint64_t linked_ino,
		    char **ret_target)
{
	struct icm_ctx ctx = icm_volume_ctx(vol);
	ICM_AUTOENTRY struct icm_entry e = { 0 };
	ICM_AUTORECORD struct icm_record rec = { 0 };
	ICM_AUTOFREE char *key = linked_ino ? icm_key_inode(linked_ino) : icm_key_tree(path);
	struct icm_inode_value v;
	int r = icm_backend_get(vol->be, &ctx, key, &e);

	if (r < 0)
		return r == -ENOENT ? -ESTALE : r;
	if (!linked_ino) {
		if (e.flags != ICM_FLAGS_RECORD || icm_record_decode(e.value, e.len, &rec) < 0)
			return -EIO;
	} else {
		if (icm_inode_value_decode(e.value, e.len, &v) < 0)
			return -EIO;
		icm_attr_clear(&v.attr);
		if (v.has_record)
			rec = v.record;
	}
	if (rec.form != ICM_RECORD_SYMLINK)
		return -EIO;
	*ret_target = ICM_STEAL(&rec.target);
	return 0;
}

/* In f->base, as contents of files are. */
static int load_target(struct icm_volume *vol, struct icm_file *f, const char *path,
		       uint64_t linked_ino)
{
	ICM_AUTOFREE char *target = NULL;
	int r = icm_load_target(vol, path, linked_ino, &target);

	if (r == 0)
		f->base = icm_content_new(target, strlen(target));
	return r;
}

/* From where the link is now; io held. */
static int load_target_once(struct icm_volume *vol, struct icm_file *f)
{
	ICM_AUTOFREE char *path = NULL;
	bool linked;

	pthread_mutex_lock(&vol->lock);
	linked = f->inode->attr.linked;
	path = icm_inode_path(f->inode);
	pthread_mutex_unlock(&vol->lock);
	if (!path && !linked)
		return -ENOENT;
	return load_target(vol, f, path, linked ? f->view.ino : 0);
}

int icm_shared_readlink(struct icm_view *view, const struct icm_call *call, char **ret_target)
{
	struct icm_volume *vol = view->vol;
	struct icm_file *f = icm_file_of(view);
	int r = 0;

	if (!S_ISLNK(view->type))
		return -EINVAL;
	if (!icm_file_lock_io(f, call))
		return ICM_WOULD_WAIT;
	if (!f->base && call->nowait && !vol->be->facts.local) {
		pthread_mutex_unlock(&f->io);
		return ICM_WOULD_WAIT;
	}
	if (!f->base) { /* a link's target never changes */
		r = load_target_once(vol, f);
		/* it has moved with its directory, or was made again elsewhere */
		if (r == -ESTALE && look_again(vol, f->inode) == 0)
			r = load_target_once(vol, f);
	}
	if (r == 0)
		*ret_target = icm_xstrndup(f->base->bytes, f->base->len);
	pthread_mutex_unlock(&f->io);
	return r;
}

/* ---- extended attributes ---- */

static const char *lock_scope_name(struct icm_volume *vol)
{
	switch (vol->be->facts.lock_scope) {
	case ICM_LOCK_CLUSTER:
		return "cluster";
	case ICM_LOCK_HOST:
		return "host";
	default:
		return "none";
	}
}

static ssize_t give(const void *value, size_t len, void *buf, size_t size)
{
	if (size && size < len)
		return -ERANGE;
	if (size && len)
		memcpy(buf, value, len);
	return (ssize_t)len;
}

ssize_t icm_attr_give_xattr(const struct icm_attr *a, const char *name, void *buf, size_t size)
{
	const struct icm_xattr *x = icm_attr_xattr(a, name);

	return x ? give(x->value, x->len, buf, size) : -ENODATA;
}

ssize_t icm_attr_give_xattrs(const struct icm_attr *a, char *buf, size_t size)
{
	ICM_AUTOBUF struct icm_buf names = ICM_BUF_INIT(0);

	for (size_t i = 0; i < a->n_xattrs; i++)
		icm_buf_add(&names, a->xattrs[i].name, strlen(a->xattrs[i].name) + 1);
	return give(names.data, names.len, buf, size);
}

ssize_t icm_shared_getxattr(struct icm_view *view, const struct icm_call *call, const char *name,
			    void *buf, size_t size)
{
	struct icm_volume *vol = view->vol;

	(void)call;
	if (strcmp(name, XATTR_LOCK) == 0 && S_ISREG(view->type)) {
		const char *scope = lock_scope_name(vol);

		return give(scope, strlen(scope), buf, size);
	}
	ICM_LOCK_SCOPE(&vol->lock);
	return icm_attr_give_xattr(&inode_of(view)->attr, name, buf, size);
}

ssize_t icm_shared_listxattr(struct icm_view *view, const struct icm_call *call, char *buf,
			     size_t size)
{
	ICM_LOCK_SCOPE(&view->vol->lock);

	(void)call;
	return icm_attr_give_xattrs(&inode_of(view)->attr, buf, size);
}

/* Which names can be set, as on other file systems. */
static int check_name(const struct icm_view *view, const struct icm_call *call, const char *name)
{
	if (strlen(name) > ICM_XATTR_NAME_MAX)
		return -ERANGE;
	if (strcmp(name, XATTR_LOCK) == 0)
		return -EPERM;
	if (strncmp(name, "trusted.", 8) == 0)
		return call->uid == 0 ? 0 : -EPERM;
	if (strncmp(name, "user.", 5) != 0)
		return -EOPNOTSUPP;
	return S_ISREG(view->type) || S_ISDIR(view->type) ? 0 : -EPERM;
}

struct xattr_setting {
	const char *name;
	const void *value; /* NULL: remove */
	size_t size;
	int flags;
};

static size_t xattrs_size(const struct icm_attr *a)
{
	size_t total = 0;

	for (size_t i = 0; i < a->n_xattrs; i++)
		total += strlen(a->xattrs[i].name) + a->xattrs[i].len;
	return total;
}

static int apply_xattr(struct icm_attr *a, void *userdata)
{
	const struct xattr_setting *s = userdata;
	const struct icm_xattr *old = icm_attr_xattr(a, s->name);

	if (!old && (!s->value || (s->flags & XATTR_REPLACE)))
		return -ENODATA;
	if (old && s->value && (s->flags & XATTR_CREATE))
		return -EEXIST;
	if (s->value && xattrs_size(a) - (old ? old->len : 0) + strlen(s->name) + s->size >
				ICM_XATTRS_MAX_BYTES)
		return -ENOSPC;
	icm_attr_set_xattr(a, s->name, s->value, s->size);
	a->ctime = icm_wall_time();
	return 0;
}

int icm_shared_setxattr(struct icm_view *view, const struct icm_call *call, const char *name,
			const void *value, size_t size, int flags)
{
	struct xattr_setting s = { name, size ? value : "", size, flags };
	int r = check_name(view, call, name);

	if (r == 0 && size > ICM_XATTR_VALUE_MAX)
		r = -E2BIG;
	return r < 0 ? r : change_attr(view->vol, inode_of(view), call, apply_xattr, &s);
}

int icm_shared_removexattr(struct icm_view *view, const struct icm_call *call, const char *name)
{
	struct xattr_setting s = { .name = name };
	int r = check_name(view, call, name);

	return r < 0 ? r : change_attr(view->vol, inode_of(view), call, apply_xattr, &s);
}
