/* SPDX-License-Identifier: MIT
 * Hard links: the first further name moves a file's attributes and contents to
 * inode/<ino>; its names only point there. */
#include <string.h>

#include "core/apply.h"
#include "core/feed.h"
#include "core/key.h"
#include "core/names.h"
#include "util/clock.h"

#define LINKS_MAX 65000

/* One link attempt. */
struct linking {
	struct icm_volume *vol;
	const struct icm_call *call;
	struct icm_inode *inode;
	struct icm_inode *dir;
	const char *name;
	struct icm_place to;
	char *from_path;      /* owned */
	struct icm_attr attr; /* owned; of the inode */
	uint64_t from_attr_index, inode_index;
	bool first; /* it has one name so far */
};

static void linking_clear(struct linking *l)
{
	icm_place_clear(l->vol, &l->to);
	icm_attr_clear(&l->attr);
	free(l->from_path);
	l->from_path = NULL;
}

/* The facts; 0, or why it can't be. */
static int take(struct linking *l)
{
	struct icm_inode *inode = l->inode;
	int r;
	ICM_LOCK_SCOPE(&l->vol->lock);

	r = icm_place_take(l->vol, l->dir, l->name, &l->to);
	if (r < 0)
		return r;
	if (S_ISDIR(inode->attr.mode))
		return -EPERM;
	l->from_path = icm_inode_path(inode);
	if (!l->from_path)
		return -ENOENT;
	if (l->to.exists)
		return -EEXIST;
	icm_attr_copy(&l->attr, &inode->attr);
	l->from_attr_index = inode->names->attr_index;
	l->inode_index = inode->index;
	l->first = !inode->attr.linked;
	return !l->first && inode->attr.nlink >= LINKS_MAX ? -EMLINK : 0;
}

static char *link_attr(const struct linking *l, size_t *ret_len)
{
	struct icm_attr a = { .ino = l->attr.ino, .mode = l->attr.mode, .linked = true };

	icm_random_id(a.id);
	return icm_attr_encode(&a, ret_len);
}

static char *link_record(const struct linking *l, size_t *ret_len)
{
	struct icm_record rec = { .form = ICM_RECORD_LINK, .ino = l->attr.ino };

	return icm_record_encode(&rec, ret_len);
}

/* The single name becomes one of several. */
static int convert_first(struct linking *l, struct icm_part *part)
{
	struct icm_place from = { .path = l->from_path,
				  .attr = l->attr,
				  .attr_index = l->from_attr_index };
	__attribute__((cleanup(icm_moved_clear))) struct icm_moved moved;
	struct icm_inode_value v = { .attr = l->attr };
	ICM_AUTORECORD struct icm_record rec = { 0 };
	size_t len;
	char *json;
	int r;

	from.attr.linked = false; /* it isn't yet */
	r = icm_moved_read(l->vol, &from, &moved);
	if (r < 0)
		return r;
	if (moved.flags == ICM_FLAGS_RECORD) {
		if (icm_record_decode(moved.value, moved.len, &rec) < 0)
			return -EIO;
		v.has_record = true;
		v.record = rec;
	} else if (moved.has_record) { /* of many bytes that another program has stored */
		v.has_record = true;
		v.record = moved.record;
	} else if (moved.plain) {
		icm_part_set(part, icm_key_blob(&l->attr.hash),
			     icm_xmemdup(moved.plain->bytes, moved.plain->len), moved.plain->len,
			     0);
	} else {
		return -ESTALE;
	}
	json = icm_inode_value_encode(&v, &len);
	icm_part_cas(part, icm_key_inode(l->attr.ino), 0, json, len, 0);
	json = link_attr(l, &len);
	icm_part_cas(part, icm_key_attr(l->from_path), l->from_attr_index, json, len, 0);
	json = link_record(l, &len);
	icm_part_cas(part, icm_key_tree(l->from_path), moved.tree_index, json, len,
		     ICM_FLAGS_RECORD);
	return 0;
}

static int build(struct linking *l, struct icm_part *part, struct timespec now)
{
	size_t len;
	char *json;
	int r = 0;

	l->attr.linked = true;
	l->attr.nlink = l->first ? 2 : l->attr.nlink + 1;
	l->attr.ctime = now;
	icm_random_id(l->attr.id);
	icm_part_names_change(part, l->to.dir, l->to.dir_attr_index, now);
	if (l->first) {
		r = convert_first(l, part);
	} else {
		struct icm_place from = { .attr = l->attr, .inode_index = l->inode_index };

		icm_part_touch_inode(l->vol, part, &from, 1, now);
	}
	if (r < 0)
		return r;
	json = link_attr(l, &len);
	icm_part_cas(part, icm_key_attr(l->to.path), 0, json, len, 0);
	json = link_record(l, &len);
	icm_part_cas(part, icm_key_tree(l->to.path), 0, json, len, ICM_FLAGS_RECORD);
	icm_part_change(part, ICM_CHANGE_LINK, l->from_path, l->to.path, now, &l->attr);
	return 0;
}

static int link_once(struct linking *l)
{
	struct icm_volume *vol = l->vol;
	ICM_AUTOPART struct icm_part part = ICM_PART_INIT;
	struct timespec now = icm_wall_time();
	struct icm_news news = { 0 };
	struct icm_name *name;
	int r = take(l);

	if (r == 0) {
		part.pid = l->call->pid;
		r = build(l, &part, now);
	}
	if (r == 0)
		r = icm_commit(vol, &part);
	if (r < 0)
		return r;
	pthread_mutex_lock(&vol->lock);
	icm_feed_own_commit(vol, part.index);
	if (l->inode->names && !icm_tree_find(&vol->tree, l->dir, l->name) && l->dir->names) {
		if (l->first)
			l->inode->names->attr_index = l->inode->names->tree_index = part.index;
		icm_apply_attr(vol, l->inode, &l->attr, NULL, &news);
		l->inode->index = part.index;
		name = icm_tree_add(&vol->tree, l->dir, l->name, l->inode);
		name->attr_index = name->tree_index = part.index;
	} else {
		icm_volume_want_resync(vol);
	}
	icm_apply_dir_time(l->dir, now, part.index, &news);
	pthread_mutex_unlock(&vol->lock);
	icm_news_tell(vol, &news);
	return 0;
}

/* The source as the store has it now. */
static int refresh_source(struct icm_volume *vol, struct icm_inode *inode)
{
	struct icm_inode *dir = NULL;
	ICM_AUTOFREE char *text = NULL;
	int r = -ENOENT;

	pthread_mutex_lock(&vol->lock);
	if (inode->names && inode->names->dir) {
		dir = icm_inode_ref(inode->names->dir);
		text = icm_xstrdup(inode->names->text);
	}
	pthread_mutex_unlock(&vol->lock);
	if (dir) {
		r = icm_name_refresh(vol, dir, text);
		pthread_mutex_lock(&vol->lock);
		icm_inode_unref(&vol->tree, dir);
		pthread_mutex_unlock(&vol->lock);
	}
	return r;
}

static char *scratch_target(struct icm_view *dir, const char *name)
{
	struct icm_volume *vol = dir->vol;
	ICM_AUTOFREE char *dir_path = NULL;
	ICM_AUTOFREE char *path = NULL;

	if (dir->ops != &icm_shared_view_ops)
		return icm_scratch_path(dir);
	if (!vol->scratch)
		return NULL;
	pthread_mutex_lock(&vol->lock);
	dir_path = icm_inode_path(icm_file_of(dir)->inode);
	pthread_mutex_unlock(&vol->lock);
	if (!dir_path)
		return NULL;
	path = icm_path_join(dir_path, name);
	return icm_scratch_match(vol->scratch, path, false) ? ICM_STEAL(&dir_path) : NULL;
}

int icm_shared_link(struct icm_view *view, const struct icm_call *call, struct icm_view *dir,
		    const char *name, struct icm_view **ret_view, struct stat *ret_st)
{
	struct icm_volume *vol = dir->vol;
	ICM_AUTOFREE char *local = scratch_target(dir, name);
	bool shared = view->ops == &icm_shared_view_ops;
	struct linking l = { .vol = vol, .call = call, .name = name };
	int r = -ESTALE;

	if (local && !shared)
		return icm_scratch_link(vol->scratch, view, local, name, ret_view, ret_st);
	if (local || !shared)
		return -EXDEV; /* a file is in one place */
	l.inode = icm_file_of(view)->inode;
	l.dir = icm_file_of(dir)->inode;
	for (int tries = 0; r == -ESTALE && tries < ICM_CONFLICT_TRIES; tries++) {
		pthread_mutex_lock(&vol->lock);
		r = l.inode->published ? 0 : -ENOENT;
		pthread_mutex_unlock(&vol->lock);
		if (r < 0)
			r = icm_file_publish(vol, icm_file_of(view), call->pid);
		if (r < 0)
			return r;
		r = link_once(&l);
		linking_clear(&l);
		if (r != -ESTALE)
			break;
		r = icm_dir_refresh(vol, l.dir);
		if (r == 0)
			r = refresh_source(vol, l.inode);
		if (r == 0) {
			r = icm_name_refresh(vol, l.dir, name);
			r = r == 0 ? -EEXIST : r == -ENOENT ? -ESTALE : r;
		}
	}
	if (r < 0)
		return r == -ESTALE ? -EBUSY : r;
	return icm_shared_lookup_cached(dir, name, ret_view, ret_st);
}
