/* SPDX-License-Identifier: MIT
 * Renames across the border between shared and scratch names: how editors and
 * `cmd > f.tmp && mv f.tmp f` save. The contents change their place, so that
 * the object becomes another one, published (or unlinked) in one transaction. */
#include <fcntl.h>
#include <string.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "core/apply.h"
#include "core/feed.h"
#include "core/key.h"
#include "core/port-common.h"
#include "core/publish.h"
#include "core/rename.h"
#include "util/clock.h"

#ifndef RENAME_NOREPLACE
#define RENAME_NOREPLACE 1
#define RENAME_EXCHANGE	 2
#endif

#define COPY_BYTES ((size_t)256 << 10)

int icm_scratch_is_dir(struct icm_scratch *s, const char *dir, const char *name)
{
	struct icm_view *view;
	struct stat st;
	int r = icm_scratch_lookup(s, dir, name, &view, &st);

	if (r < 0)
		return r;
	icm_fs_forget(view, 1);
	return S_ISDIR(st.st_mode);
}

static void expire(struct icm_scratch_rename *sr)
{
	struct icm_volume *vol = sr->vol;

	if (!vol->notify.expire_name)
		return;
	/* the kernel believes that the same object has the new name */
	vol->notify.expire_name(vol->notify_data, sr->from_view, sr->from);
	vol->notify.expire_name(vol->notify_data, sr->to_view, sr->to);
}

/* ---- scratch to shared ---- */

/* The local file's attributes that a shared one may have. */
static int take_xattrs(int fd, struct icm_attr *attr)
{
	ICM_CLEANUP(icm_port_xattrs_clear) struct icm_port_xattrs xattrs = { 0 };
	size_t total = 0;
	int r = icm_port_xattrs_of_fd(fd, &xattrs);

	for (size_t i = 0; r == 0 && i < xattrs.n; i++) {
		total += strlen(xattrs.v[i].name) + xattrs.v[i].len;
		if (total > ICM_XATTRS_MAX_BYTES)
			return -EXDEV; /* mv copies then, and says what it leaves out */
		icm_attr_set_xattr(attr, xattrs.v[i].name, xattrs.v[i].value, xattrs.v[i].len);
	}
	return r;
}

/* An inode without a name that holds the local file's bytes as a working copy. */
static int make_inode(struct icm_volume *vol, int fd, const struct stat *st, struct icm_file **ret)
{
	struct timespec now = icm_wall_time();
	ICM_AUTOATTR struct icm_attr attr = { .mode = S_IFREG | (st->st_mode & 07777),
					      .uid = st->st_uid,
					      .gid = st->st_gid,
					      .atime = st->st_atim,
					      .mtime = st->st_mtim,
					      .ctime = now };
	ICM_AUTOFREE char *buf = icm_xmalloc(COPY_BYTES);
	struct icm_inode *inode;
	struct icm_file *f;
	uint64_t off = 0;
	ssize_t n;
	int r = take_xattrs(fd, &attr);

	if (r < 0)
		return r;
	pthread_mutex_lock(&vol->lock);
	attr.ino = icm_tree_fresh_ino(&vol->tree);
	inode = icm_inode_new(&vol->tree, &attr);
	f = icm_file_get(vol, inode);
	icm_inode_unref(&vol->tree, inode);
	f->dirty = true;
	f->dirty_time = st->st_mtim;
	f->data = icm_data_new(vol->work_dir);
	f->data_is_work = true;
	pthread_mutex_unlock(&vol->lock);
	pthread_mutex_lock(&f->io);
	while (r == 0 && (n = pread(fd, buf, COPY_BYTES, (off_t)off)) != 0) {
		if (n < 0)
			r = -errno;
		else
			r = icm_data_write(f->data, buf, (size_t)n, off);
		off += (uint64_t)(n > 0 ? n : 0);
	}
	pthread_mutex_unlock(&f->io);
	if (r < 0) {
		icm_fs_forget(&f->view, 1);
		return r;
	}
	*ret = f;
	return 0;
}

/* Publishes the inode at the new name, replacing what is there. -ESTALE: again. */
static int place_once(struct icm_scratch_rename *sr, struct icm_inode *dir, struct icm_file *f,
		      struct icm_publication *p, const struct icm_place *b)
{
	struct icm_volume *vol = sr->vol;
	ICM_AUTOPART struct icm_part part = ICM_PART_INIT;
	ICM_AUTOATTR struct icm_attr attr = { 0 };
	__attribute__((cleanup(icm_moved_clear))) struct icm_moved old = { 0 };
	struct timespec now = icm_wall_time();
	struct icm_news news = { 0 };
	struct icm_name *name;
	struct icm_change *change;
	uint32_t left = 0;
	size_t len;
	char *json;
	int r = 0;

	pthread_mutex_lock(&vol->lock);
	icm_attr_copy(&attr, &f->inode->attr);
	pthread_mutex_unlock(&vol->lock);
	attr.size = p->size;
	attr.holes = p->holes;
	attr.has_hash = true;
	attr.hash = p->hash;
	attr.ctime = now;
	icm_random_id(attr.id);
	part.pid = sr->call->pid;
	if (b->exists)
		r = icm_moved_read(vol, b, &old);
	if (r < 0)
		return r;
	icm_part_names_change(&part, b->dir, b->dir_attr_index, now);
	if (b->exists)
		icm_part_remove_name(vol, &part, b, &old, true, now, &left);
	json = icm_attr_encode(&attr, &len);
	icm_part_cas(&part, icm_key_tree(b->path), b->exists ? old.tree_index : 0,
		     icm_xmemdup(p->value, p->len), p->len, p->flags);
	icm_part_cas(&part, icm_key_attr(b->path), b->exists ? b->attr_index : 0, json, len, 0);
	if (b->exists) {
		change = icm_part_change(&part, ICM_CHANGE_REMOVE, b->path, NULL, now, NULL);
		change->left = left;
	}
	icm_part_change(&part, ICM_CHANGE_CREATE, b->path, NULL, now, &attr);
	r = icm_commit(vol, &part);
	if (r < 0)
		return r;
	pthread_mutex_lock(&vol->lock);
	icm_feed_own_commit(vol, part.index);
	name = icm_tree_find(&vol->tree, dir, sr->to);
	if (name && name->inode == b->inode)
		icm_name_removed(vol, name, part.index, now, &news);
	name = icm_tree_find(&vol->tree, dir, sr->to)
		       ? NULL
		       : icm_tree_add(&vol->tree, dir, sr->to, f->inode);
	if (name) {
		name->attr_index = name->tree_index = part.index;
		icm_apply_attr(vol, f->inode, &attr, NULL, &news);
	} else {
		icm_volume_want_resync(vol);
	}
	f->dirty = f->written = false;
	icm_apply_dir_time(dir, now, part.index, &news);
	pthread_mutex_unlock(&vol->lock);
	icm_news_tell(vol, &news);
	return 0;
}

static int place(struct icm_scratch_rename *sr, struct icm_inode *dir, struct icm_file *f)
{
	struct icm_volume *vol = sr->vol;
	__attribute__((cleanup(icm_publication_clear))) struct icm_publication p = { 0 };
	int r = icm_publication_make(vol, f, &p);

	if (r < 0)
		return r;
	for (int tries = 0; tries < ICM_CONFLICT_TRIES; tries++) {
		struct icm_place b = { 0 };

		pthread_mutex_lock(&vol->lock);
		r = icm_place_take(vol, dir, sr->to, &b);
		if (r == 0 && b.exists && S_ISDIR(b.attr.mode)) {
			r = -EISDIR;
		} else if (r == 0 && b.exists && (sr->flags & RENAME_NOREPLACE)) {
			r = -EEXIST;
		}
		pthread_mutex_unlock(&vol->lock);
		if (r == 0 && b.exists && !b.published) {
			icm_drop_unpublished(vol, dir, sr->to, b.inode);
			r = -ESTALE;
		}
		if (r == 0)
			r = place_once(sr, dir, f, &p, &b);
		icm_place_clear(vol, &b);
		if (r != -ESTALE)
			return r;
		r = icm_dir_refresh(vol, dir);
		if (r == 0)
			r = icm_name_refresh(vol, dir, sr->to);
		if (r < 0 && r != -ENOENT)
			return r;
	}
	return -EBUSY;
}

int icm_rename_from_scratch(struct icm_scratch_rename *sr)
{
	struct icm_volume *vol = sr->vol;
	struct icm_inode *dir = icm_file_of(sr->to_view)->inode;
	ICM_AUTOCLOSE int fd = -1;
	struct icm_file *f;
	struct stat st;
	int r;

	if (vol->read_only)
		return -EROFS;
	if (sr->flags & RENAME_EXCHANGE)
		return -EINVAL;
	r = icm_scratch_export(vol->scratch, sr->from_dir, sr->from, &fd, &st);
	if (r < 0)
		return r;
	if (!S_ISREG(st.st_mode))
		return -EXDEV;
	r = make_inode(vol, fd, &st, &f);
	if (r < 0)
		return r;
	r = place(sr, dir, f);
	icm_fs_forget(&f->view, 1);
	if (r < 0)
		return r;
	icm_scratch_exported(vol->scratch, sr->from_dir, sr->from);
	expire(sr);
	return 0;
}

/* ---- shared to scratch ---- */

static int write_out(struct icm_volume *vol, struct icm_file *f, int fd)
{
	ICM_AUTOFREE char *buf = icm_xmalloc(COPY_BYTES);
	struct icm_data *d;
	uint64_t off = 0;
	ssize_t n;
	int r;
	ICM_LOCK_SCOPE(&f->io);

	r = icm_file_load(vol, f);
	if (r < 0)
		return r;
	d = f->data_is_work || !f->base ? f->data : NULL;
	if (!d && f->base)
		return write(fd, f->base->bytes, f->base->len) == (ssize_t)f->base->len ? 0 : -EIO;
	while (d && (n = icm_data_read(d, buf, COPY_BYTES, off)) != 0) {
		if (n < 0)
			return (int)n;
		if (pwrite(fd, buf, (size_t)n, (off_t)off) != n)
			return -EIO;
		off += (uint64_t)n;
	}
	return 0;
}

struct fill {
	struct icm_volume *vol;
	struct icm_file *f;
};

/* A local disk that can't hold an attribute makes it a copy (EXDEV). */
static int give_xattrs(struct icm_volume *vol, struct icm_file *f, int fd)
{
	ICM_AUTOATTR struct icm_attr attr = { 0 };

	pthread_mutex_lock(&vol->lock);
	icm_attr_copy(&attr, &f->inode->attr);
	pthread_mutex_unlock(&vol->lock);
	for (size_t i = 0; i < attr.n_xattrs; i++)
		if (fsetxattr(fd, attr.xattrs[i].name, attr.xattrs[i].value, attr.xattrs[i].len,
			      0) < 0)
			return -EXDEV;
	return 0;
}

static int fill_local(int fd, void *userdata)
{
	struct fill *fill = userdata;
	int r = write_out(fill->vol, fill->f, fd);

	return r < 0 ? r : give_xattrs(fill->vol, fill->f, fd);
}

int icm_rename_to_scratch(struct icm_scratch_rename *sr)
{
	struct icm_volume *vol = sr->vol;
	struct icm_name *name;
	struct icm_file *f = NULL;
	struct stat st;
	int r = 0;

	if (vol->read_only)
		return -EROFS;
	if (sr->flags & RENAME_EXCHANGE)
		return -EINVAL;
	if ((sr->flags & RENAME_NOREPLACE) &&
	    icm_scratch_is_dir(vol->scratch, sr->to_dir, sr->to) >= 0)
		return -EEXIST;
	pthread_mutex_lock(&vol->lock);
	name = icm_tree_find(&vol->tree, icm_file_of(sr->from_view)->inode, sr->from);
	if (!name)
		r = -ENOENT;
	else if (!S_ISREG(name->inode->attr.mode))
		r = -EXDEV; /* mv copies and removes then */
	else
		f = icm_file_get(vol, name->inode);
	if (f)
		icm_file_stat(vol, f, &st);
	pthread_mutex_unlock(&vol->lock);
	if (r < 0)
		return r;
	r = icm_scratch_import(vol->scratch, sr->to_dir, sr->to, &st, fill_local,
			       &(struct fill){ vol, f });
	if (r == 0)
		r = icm_shared_unlink(sr->from_view, sr->call, sr->from);
	icm_fs_forget(&f->view, 1);
	if (r == 0)
		expire(sr);
	return r;
}
