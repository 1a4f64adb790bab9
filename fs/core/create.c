/* SPDX-License-Identifier: MIT
 * Look-up, and new names: files, directories, symbolic links, special files. */
#include <fcntl.h>
#include <string.h>

#include "core/apply.h"
#include "core/attr.h"
#include "core/control.h"
#include "core/feed.h"
#include "core/key.h"
#include "core/names.h"
#include "util/clock.h"

static struct icm_inode *inode_of(struct icm_view *view)
{
	return icm_file_of(view)->inode;
}

/* ---- look-up ---- */

/* What the tree has: 0, -ENOENT or -EIO; volume->lock held. */
static int found(struct icm_volume *vol, struct icm_inode *dir, const char *name, pid_t tid,
		 struct icm_view **ret_view, struct stat *ret_st, struct icm_file **ret_left)
{
	struct icm_name *n = icm_tree_find(&vol->tree, dir, name);
	struct icm_file *f;

	*ret_left = NULL;
	if (!n)
		return -ENOENT;
	if (icm_attr_is_broken(&n->inode->attr))
		return -EIO;
	f = icm_file_looked_up(vol, icm_file_get(vol, n->inode), tid, ret_left);
	icm_file_stat(vol, f, ret_st);
	*ret_view = &f->view;
	return 0;
}

static int lookup_in_tree(struct icm_view *dir, const char *name, pid_t tid,
			  struct icm_view **ret_view, struct stat *ret_st)
{
	struct icm_volume *vol = dir->vol;
	ICM_AUTOFREE char *path = NULL;
	struct icm_file *left;
	int r;

	pthread_mutex_lock(&vol->lock);
	r = found(vol, inode_of(dir), name, tid, ret_view, ret_st, &left);
	if (r == -ENOENT)
		path = icm_inode_path(inode_of(dir));
	pthread_mutex_unlock(&vol->lock);
	icm_file_leave(vol, left);
	if (r == -ENOENT && path && vol->scratch)
		r = icm_scratch_lookup(vol->scratch, path, name, ret_view, ret_st);
	return r;
}

int icm_shared_lookup_cached(struct icm_view *dir, const char *name, struct icm_view **ret_view,
			     struct stat *ret_st)
{
	return lookup_in_tree(dir, name, 0, ret_view, ret_st);
}

static int lookup_control(struct icm_volume *vol, const struct icm_call *call,
			  struct icm_view **ret_view, struct stat *ret_st)
{
	icm_view_ref(vol->control);
	*ret_view = vol->control;
	return vol->control->ops->getattr(vol->control, call, NULL, ret_st);
}

int icm_shared_lookup(struct icm_view *dir, const struct icm_call *call, const char *name,
		      struct icm_view **ret_view, struct stat *ret_st)
{
	struct icm_volume *vol = dir->vol;
	ICM_AUTOFREE char *path = NULL;
	ICM_AUTOFREE char *dir_path = NULL;
	int r;

	if (inode_of(dir) == vol->tree.root && strcmp(name, ICM_CONTROL_NAME) == 0)
		return lookup_control(vol, call, ret_view, ret_st);
	r = lookup_in_tree(dir, name, call->pid, ret_view, ret_st);
	if (r != -ENOENT)
		return r;
	pthread_mutex_lock(&vol->lock);
	dir_path = icm_inode_path(inode_of(dir));
	pthread_mutex_unlock(&vol->lock);
	if (!dir_path)
		return -ENOENT;
	path = icm_path_join(dir_path, name);
	if (vol->scratch && icm_scratch_match(vol->scratch, path, false))
		return -ENOENT; /* the store has no such names */
	if (call->nowait && !vol->be->facts.local)
		return ICM_WOULD_WAIT;
	r = icm_name_look_up(vol, inode_of(dir), name);
	return r < 0 ? r : lookup_in_tree(dir, name, call->pid, ret_view, ret_st);
}

/* ---- new names ---- */

/* What is to be made. */
struct made {
	mode_t mode; /* with type */
	dev_t rdev;
	const char *target; /* symbolic links */
	const struct icm_call *call;
};

/* Attributes of a new object in `dir`; volume->lock held. */
static void new_attr(struct icm_volume *vol, const struct icm_inode *dir, const struct made *m,
		     struct timespec now, struct icm_attr *a)
{
	*a = (struct icm_attr){
		.ino = icm_tree_fresh_ino(&vol->tree),
		.mode = m->mode,
		.uid = m->call->uid,
		.gid = m->call->gid,
		.rdev = m->rdev,
		.atime = now,
		.mtime = now,
		.ctime = now,
	};
	if (dir->attr.mode & S_ISGID) {
		a->gid = dir->attr.gid;
		if (S_ISDIR(m->mode))
			a->mode |= S_ISGID;
	}
	icm_random_id(a->id);
}

/* The value of the tree key: empty file, record, or times of a directory. */
static void add_tree_key(struct icm_part *part, const char *path, const struct made *m,
			 struct icm_attr *a)
{
	struct icm_record rec = { 0 };
	struct icm_dir_times times = { .mtime = a->mtime, .ctime = a->ctime };
	size_t len = 0;
	char *value = NULL;

	if (S_ISDIR(m->mode)) {
		icm_random_id(times.id);
		value = icm_dir_times_encode(&times, &len);
		icm_part_cas(part, icm_key_tree_dir(path), 0, value, len, 0);
		/* another program's file has no attr/ key to compete for yet */
		icm_part_check_absent(part, icm_key_tree(path));
		return;
	}
	if (S_ISREG(m->mode)) {
		a->has_hash = true;
		a->hash = icm_sha256("", 0);
		icm_part_cas(part, icm_key_tree(path), 0, NULL, 0, ICM_FLAGS_PLAIN);
		return;
	}
	rec.form = S_ISLNK(m->mode) ? ICM_RECORD_SYMLINK : ICM_RECORD_SPECIAL;
	rec.target = (char *)m->target;
	a->size = m->target ? strlen(m->target) : 0;
	value = icm_record_encode(&rec, &len);
	icm_part_cas(part, icm_key_tree(path), 0, value, len, ICM_FLAGS_RECORD);
}

/* One attempt; -ESTALE: the directory or the name changed. */
static int create_once(struct icm_volume *vol, struct icm_inode *dir, const char *name,
		       const struct made *m, struct icm_view **ret_view, struct stat *ret_st)
{
	ICM_AUTOPART struct icm_part part = ICM_PART_INIT;
	ICM_AUTOATTR struct icm_attr attr = { 0 };
	struct icm_place p;
	struct timespec now = icm_wall_time();
	struct icm_news news = { 0 };
	struct icm_file *left = NULL;
	ICM_AUTOFREE char *now_dir = NULL;
	ICM_AUTOFREE char *now_path = NULL;
	struct icm_name *made;
	size_t len;
	char *json;
	int r;

	pthread_mutex_lock(&vol->lock);
	r = icm_place_take(vol, dir, name, &p);
	new_attr(vol, dir, m, now, &attr);
	pthread_mutex_unlock(&vol->lock);
	if (r == 0 && p.exists)
		r = -EEXIST;
	if (r < 0) {
		icm_place_clear(vol, &p);
		return r;
	}
	part.pid = m->call->pid;
	icm_part_names_change(&part, p.dir, p.dir_attr_index, now);
	add_tree_key(&part, p.path, m, &attr);
	json = icm_attr_encode(&attr, &len);
	icm_part_cas(&part, icm_key_attr(p.path), 0, json, len, 0);
	icm_part_change(&part, ICM_CHANGE_CREATE, p.path, NULL, now, &attr);
	r = icm_commit(vol, &part);
	if (r == 0) {
		pthread_mutex_lock(&vol->lock);
		icm_feed_own_commit(vol, part.index);
		/* the directory may have moved meanwhile, and the name with it */
		now_dir = icm_inode_path(dir);
		now_path = now_dir ? icm_path_join(now_dir, name) : NULL;
		made = !now_path || icm_grave_has(vol, now_path, part.index)
			       ? NULL
			       : icm_apply_upsert(vol, dir, name, &attr, part.index, &news);
		if (made)
			made->attr_index = made->tree_index = part.index;
		icm_apply_dir_time(dir, now, part.index, &news);
		r = found(vol, dir, name, 0, ret_view, ret_st, &left);
		pthread_mutex_unlock(&vol->lock);
		icm_news_tell(vol, &news);
	}
	icm_place_clear(vol, &p);
	return r;
}

static int create(struct icm_view *dir_view, const char *name, const struct made *m,
		  struct icm_view **ret_view, struct stat *ret_st)
{
	struct icm_volume *vol = dir_view->vol;
	struct icm_inode *dir = inode_of(dir_view);
	int r = -ESTALE;

	if (dir == vol->tree.root && strcmp(name, ICM_CONTROL_NAME) == 0)
		return -EEXIST;
	for (int tries = 0; r == -ESTALE && tries < ICM_CONFLICT_TRIES; tries++) {
		r = create_once(vol, dir, name, m, ret_view, ret_st);
		if (r != -ESTALE)
			break;
		r = icm_dir_refresh(vol, dir);
		if (r < 0)
			return r;
		r = icm_name_refresh(vol, dir, name);
		if (r == 0)
			return -EEXIST;
		if (r != -ENOENT)
			return r;
		r = -ESTALE;
	}
	return r == -ESTALE ? -EBUSY : r;
}

/* The caller as the maker of a scratch name in a shared directory, which may be
 * set-group-id. Returns the mode that a directory made there gets. */
static mode_t scratch_maker(struct icm_view *dir, const struct icm_call *call, mode_t mode,
			    struct icm_call *ret)
{
	struct icm_volume *vol = dir->vol;
	ICM_LOCK_SCOPE(&vol->lock);

	*ret = *call;
	if (!(inode_of(dir)->attr.mode & S_ISGID))
		return mode;
	ret->gid = inode_of(dir)->attr.gid;
	return S_ISDIR(mode) ? mode | S_ISGID : mode;
}

/* The path of a new name if it is scratch, else NULL. */
static char *scratch_dir_for(struct icm_view *dir, const char *name, bool is_dir)
{
	struct icm_volume *vol = dir->vol;
	ICM_AUTOFREE char *dir_path = NULL;
	ICM_AUTOFREE char *path = NULL;
	bool exists;

	if (!vol->scratch)
		return NULL;
	pthread_mutex_lock(&vol->lock);
	dir_path = icm_inode_path(inode_of(dir));
	exists = icm_tree_find(&vol->tree, inode_of(dir), name) != NULL;
	pthread_mutex_unlock(&vol->lock);
	if (!dir_path || exists)
		return NULL; /* a shared name stays shared */
	path = icm_path_join(dir_path, name);
	return icm_scratch_match(vol->scratch, path, is_dir) ? ICM_STEAL(&dir_path) : NULL;
}

int icm_shared_mknod(struct icm_view *dir, const struct icm_call *call, const char *name,
		     mode_t mode, dev_t rdev, struct icm_view **ret_view, struct stat *ret_st)
{
	struct made m = { .mode = mode, .rdev = rdev, .call = call };
	struct icm_call maker;
	ICM_AUTOFREE char *local = scratch_dir_for(dir, name, false);

	if (!(mode & S_IFMT))
		m.mode |= S_IFREG;
	if (local) {
		scratch_maker(dir, call, m.mode, &maker);
		return icm_scratch_mknod(dir->vol->scratch, &maker, local, name, m.mode, rdev,
					 ret_view, ret_st);
	}
	return create(dir, name, &m, ret_view, ret_st);
}

int icm_shared_mkdir(struct icm_view *dir, const struct icm_call *call, const char *name,
		     mode_t mode, struct icm_view **ret_view, struct stat *ret_st)
{
	struct made m = { .mode = S_IFDIR | (mode & 07777), .call = call };
	struct icm_call maker;
	ICM_AUTOFREE char *local = scratch_dir_for(dir, name, true);

	if (local) {
		mode = scratch_maker(dir, call, m.mode, &maker) & 07777;
		return icm_scratch_mkdir(dir->vol->scratch, &maker, local, name, mode, ret_view,
					 ret_st);
	}
	return create(dir, name, &m, ret_view, ret_st);
}

int icm_shared_symlink(struct icm_view *dir, const struct icm_call *call, const char *name,
		       const char *target, struct icm_view **ret_view, struct stat *ret_st)
{
	struct made m = { .mode = S_IFLNK | 0777, .target = target, .call = call };
	struct icm_call maker;
	ICM_AUTOFREE char *local = scratch_dir_for(dir, name, false);

	if (!*target)
		return -ENOENT;
	if (strlen(target) > ICM_SYMLINK_MAX)
		return -ENAMETOOLONG;
	if (local) {
		scratch_maker(dir, call, m.mode, &maker);
		return icm_scratch_symlink(dir->vol->scratch, &maker, local, name, target, ret_view,
					   ret_st);
	}
	return create(dir, name, &m, ret_view, ret_st);
}

/* ---- create and open ---- */

/* A file that only this mount knows, until its first commit. */
static int create_unpublished(struct icm_view *dir_view, const char *name, const struct made *m,
			      struct icm_view **ret_view, struct stat *ret_st)
{
	struct icm_volume *vol = dir_view->vol;
	struct icm_inode *dir = inode_of(dir_view), *inode;
	struct timespec now = icm_wall_time();
	struct icm_place p;
	struct icm_attr attr;
	struct icm_file *f;
	int r;

	if (vol->read_only)
		return -EROFS;
	pthread_mutex_lock(&vol->lock);
	r = icm_place_take(vol, dir, name, &p);
	if (r == 0 && p.exists)
		r = -EEXIST;
	if (r == 0) {
		new_attr(vol, dir, m, now, &attr);
		inode = icm_inode_new(&vol->tree, &attr);
		icm_tree_add(&vol->tree, dir, name, inode);
		dir->attr.mtime = dir->attr.ctime = now;
		f = icm_file_get(vol, inode);
		icm_inode_unref(&vol->tree, inode);
		/* something to publish even if nobody writes: the file itself */
		f->dirty = true;
		f->append_only = true;
		f->dirty_time = now;
		f->changes++;
		f->data = icm_data_new(vol->work_dir);
		f->data_is_work = true;
		icm_file_stat(vol, f, ret_st);
		*ret_view = &f->view;
	}
	pthread_mutex_unlock(&vol->lock);
	icm_place_clear(vol, &p);
	return r;
}

/* Opens what the caller holds a look-up of; gives the look-up back on failure. */
static int open_found(struct icm_view **view, const struct icm_call *call, int flags, bool made,
		      struct stat *ret_st, struct icm_open_result *ret)
{
	const struct icm_view_ops *ops = (*view)->ops;
	int r = -EISDIR;

	if (ops == &icm_shared_view_ops)
		r = icm_file_open_found(view, call, flags, made, ret_st, ret);
	else if (ops->open)
		r = ops->open(*view, call, flags, ret);
	if (r < 0)
		icm_fs_forget(*view, 1);
	return r;
}

/* The name exists after all. */
static int open_existing(struct icm_view *dir, const struct icm_call *call, const char *name,
			 int flags, struct icm_view **ret_view, struct stat *ret_st,
			 struct icm_open_result *ret)
{
	int r = -ESTALE;

	for (int tries = 0; r == -ESTALE && tries < ICM_CONFLICT_TRIES; tries++) {
		r = icm_shared_lookup(dir, call, name, ret_view, ret_st);
		if (r < 0)
			return r;
		r = open_found(ret_view, call, flags, false, ret_st, ret);
	}
	return r;
}

int icm_shared_create(struct icm_view *dir, const struct icm_call *call, const char *name,
		      mode_t mode, int flags, struct icm_view **ret_view, struct stat *ret_st,
		      struct icm_open_result *ret)
{
	struct made m = { .mode = S_IFREG | (mode & 07777), .call = call };
	struct icm_call maker;
	ICM_AUTOFREE char *local = scratch_dir_for(dir, name, false);
	int r;

	if (local) {
		scratch_maker(dir, call, m.mode, &maker);
		return icm_scratch_create(dir->vol->scratch, &maker, local, name, mode, flags,
					  ret_view, ret_st, ret);
	}
	if (flags & O_EXCL)
		r = create(dir, name, &m, ret_view, ret_st);
	else
		r = create_unpublished(dir, name, &m, ret_view, ret_st);
	if (r == -EEXIST && !(flags & O_EXCL))
		return open_existing(dir, call, name, flags, ret_view, ret_st, ret);
	if (r < 0)
		return r;
	/* what was just made is empty */
	return open_found(ret_view, call, flags & ~O_TRUNC, true, ret_st, ret);
}
