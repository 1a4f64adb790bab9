/* SPDX-License-Identifier: MIT
 * unlink and rmdir. */
#include <string.h>

#include "core/apply.h"
#include "core/control.h"
#include "core/feed.h"
#include "core/key.h"
#include "core/names.h"
#include "util/clock.h"

static struct icm_inode *inode_of(struct icm_view *view)
{
	return icm_file_of(view)->inode;
}

/* After a refused transaction: what is there now. */
static int look_again(struct icm_volume *vol, struct icm_inode *dir, const char *name)
{
	int r = icm_dir_refresh(vol, dir);

	return r < 0 ? r : icm_name_refresh(vol, dir, name);
}

/* A name that no other mount knows. */
static int unlink_unpublished(struct icm_volume *vol, struct icm_inode *dir, const char *text,
			      struct icm_inode *inode)
{
	struct icm_file *f = icm_unpublished_lock(vol, inode);
	struct icm_name *name;
	struct timespec now = icm_wall_time();
	int r = -ESTALE;

	pthread_mutex_lock(&vol->lock);
	name = icm_tree_find(&vol->tree, dir, text);
	if (!name) {
		r = -ENOENT;
	} else if (f && name->inode == inode) {
		name->inode->attr.ctime = now;
		icm_tree_remove(&vol->tree, name);
		dir->attr.mtime = dir->attr.ctime = now;
		r = 0;
	}
	pthread_mutex_unlock(&vol->lock);
	icm_unpublished_unlock(f);
	return r;
}

static int take_for_unlink(struct icm_volume *vol, struct icm_inode *dir, const char *text,
			   struct icm_place *p)
{
	int r;
	ICM_LOCK_SCOPE(&vol->lock);

	r = icm_place_take(vol, dir, text, p);
	if (r < 0)
		return r;
	if (!p->exists)
		return -ENOENT;
	return S_ISDIR(p->attr.mode) ? -EISDIR : 0;
}

/* One attempt; -ESTALE: something moved. */
static int unlink_once(struct icm_volume *vol, const struct icm_call *call, struct icm_inode *dir,
		       const char *text, const struct icm_place *p)
{
	ICM_AUTOPART struct icm_part part = ICM_PART_INIT;
	__attribute__((cleanup(icm_moved_clear))) struct icm_moved moved;
	struct timespec now = icm_wall_time();
	struct icm_news news = { 0 };
	struct icm_change *change;
	struct icm_name *name;
	uint32_t left;
	int r = icm_moved_read(vol, p, &moved);

	if (r < 0)
		return r;
	part.pid = call->pid;
	icm_part_names_change(&part, p->dir, p->dir_attr_index, now);
	icm_part_remove_name(vol, &part, p, &moved, false, now, &left);
	change = icm_part_change(&part, ICM_CHANGE_REMOVE, p->path, NULL, now, NULL);
	change->left = left;
	r = icm_commit(vol, &part);
	if (r < 0)
		return r;
	pthread_mutex_lock(&vol->lock);
	icm_feed_own_commit(vol, part.index);
	icm_grave_dig(vol, p->path, part.index);
	name = icm_tree_find(&vol->tree, dir, text);
	if (name && name->inode == p->inode)
		icm_name_removed(vol, name, part.index, now, &news);
	icm_apply_dir_time(dir, now, part.index, &news);
	icm_news_inode(&news, p->inode, false);
	icm_news_apart(&news, p->inode, NULL, ICM_EVENT_ATTRIB);
	pthread_mutex_unlock(&vol->lock);
	icm_news_tell(vol, &news);
	return 0;
}

static bool in_tree(struct icm_volume *vol, struct icm_inode *dir, const char *name,
		    char **ret_dir_path)
{
	ICM_LOCK_SCOPE(&vol->lock);

	*ret_dir_path = icm_inode_path(dir);
	return icm_tree_find(&vol->tree, dir, name) != NULL;
}

int icm_shared_unlink(struct icm_view *dir_view, const struct icm_call *call, const char *name)
{
	struct icm_volume *vol = dir_view->vol;
	struct icm_inode *dir = inode_of(dir_view);
	ICM_AUTOFREE char *dir_path = NULL;
	int r;

	if (!in_tree(vol, dir, name, &dir_path) && dir_path && vol->scratch) {
		r = icm_scratch_unlink(vol->scratch, dir_path, name);
		if (r != -ENOENT)
			return r;
	}
	for (int tries = 0; tries < ICM_CONFLICT_TRIES; tries++) {
		struct icm_place p = { 0 };

		r = take_for_unlink(vol, dir, name, &p);
		if (r == 0)
			r = p.published ? unlink_once(vol, call, dir, name, &p)
					: unlink_unpublished(vol, dir, name, p.inode);
		icm_place_clear(vol, &p);
		if (r == -ENOENT && tries == 0)
			r = -ESTALE; /* the store may know it */
		if (r != -ESTALE)
			return r;
		r = look_again(vol, dir, name);
		if (r < 0)
			return r;
	}
	return -EBUSY;
}

/* ---- rmdir ---- */

/* Reads the directory's own keys and whether anything is below, in one view. */
int icm_dir_is_empty(struct icm_volume *vol, const struct icm_place *p, uint64_t *ret_generation)
{
	struct icm_ctx ctx = icm_volume_ctx(vol);
	ICM_AUTOFREE char *times = icm_key_tree_dir(p->path);
	ICM_AUTOFREE char *attr = icm_key_attr(p->path);
	ICM_AUTOFREE char *below_attr = icm_asprintf("%s/", attr);
	const struct icm_op ops[] = {
		{ ICM_OP_GET, .key = attr },
		{ ICM_OP_GET_TREE, .key = times }, /* the key itself, if any, and all below */
		{ ICM_OP_GET_TREE, .key = below_attr },
	};
	ICM_AUTORESULT struct icm_txn_result res = { 0 };
	int r;

	ctx.consistent = true;
	r = icm_backend_txn(vol->be, &ctx, ops, ICM_COUNT(ops), &res);
	if (r < 0)
		return r;
	*ret_generation = 0;
	for (size_t i = 0; i < res.entries.n; i++) {
		const struct icm_entry *e = &res.entries.v[i];

		if (e->op == 0)
			continue;
		if (e->op == 1 && strcmp(e->key, times) == 0)
			*ret_generation = e->modify_index;
		else
			return -ENOTEMPTY;
	}
	return 0;
}

/* The directory's own keys go. */
void icm_part_remove_dir(struct icm_part *part, const struct icm_place *p, uint64_t generation)
{
	icm_part_check_index(part, icm_key_attr(p->path), p->attr_index);
	if (generation)
		icm_part_check_index(part, icm_key_tree_dir(p->path), generation);
	else
		icm_part_check_absent(part, icm_key_tree_dir(p->path));
	icm_part_delete(part, icm_key_attr(p->path));
	icm_part_delete(part, icm_key_tree_dir(p->path));
}

static int rmdir_once(struct icm_volume *vol, const struct icm_call *call, struct icm_inode *dir,
		      const char *text, const struct icm_place *p)
{
	ICM_AUTOPART struct icm_part part = ICM_PART_INIT;
	struct timespec now = icm_wall_time();
	struct icm_news news = { 0 };
	struct icm_name *name;
	uint64_t generation;
	int r = icm_dir_is_empty(vol, p, &generation);

	if (r < 0)
		return r;
	part.pid = call->pid;
	icm_part_names_change(&part, p->dir, p->dir_attr_index, now);
	icm_part_remove_dir(&part, p, generation);
	icm_part_change(&part, ICM_CHANGE_REMOVE, p->path, NULL, now, &p->attr);
	r = icm_commit(vol, &part);
	if (r < 0)
		return r;
	pthread_mutex_lock(&vol->lock);
	icm_feed_own_commit(vol, part.index);
	icm_grave_dig(vol, p->path, part.index);
	name = icm_tree_find(&vol->tree, dir, text);
	if (name && name->inode == p->inode)
		icm_name_removed(vol, name, part.index, now, &news);
	icm_apply_dir_time(dir, now, part.index, &news);
	icm_news_inode(&news, p->inode, false);
	pthread_mutex_unlock(&vol->lock);
	icm_news_tell(vol, &news);
	if (vol->scratch)
		icm_scratch_dir_removed(vol->scratch, p->path);
	return 0;
}

static int note_entry(void *userdata, const struct icm_dirent *e)
{
	(void)e;
	*(bool *)userdata = true;
	return 1;
}

/* Names in a shared directory that only this mount has. */
bool icm_dir_has_local_names(struct icm_volume *vol, const char *path, const struct icm_inode *dir)
{
	bool any = false;

	pthread_mutex_lock(&vol->lock);
	for (const struct icm_name *n = dir->first; n; n = n->next)
		any = any || !n->inode->published;
	pthread_mutex_unlock(&vol->lock);
	if (!any && vol->scratch)
		icm_scratch_list(vol->scratch, path, note_entry, &any);
	return any;
}

static int take_for_rmdir(struct icm_volume *vol, struct icm_inode *dir, const char *text,
			  struct icm_place *p)
{
	int r;

	pthread_mutex_lock(&vol->lock);
	r = icm_place_take(vol, dir, text, p);
	pthread_mutex_unlock(&vol->lock);
	if (r < 0)
		return r;
	if (!p->exists)
		return -ENOENT;
	if (!S_ISDIR(p->attr.mode))
		return -ENOTDIR;
	return icm_dir_has_local_names(vol, p->path, p->inode) ? -ENOTEMPTY : 0;
}

int icm_shared_rmdir(struct icm_view *dir_view, const struct icm_call *call, const char *name)
{
	struct icm_volume *vol = dir_view->vol;
	struct icm_inode *dir = inode_of(dir_view);
	ICM_AUTOFREE char *dir_path = NULL;
	int r;

	if (dir == vol->tree.root && strcmp(name, ICM_CONTROL_NAME) == 0)
		return -EBUSY;
	if (!in_tree(vol, dir, name, &dir_path) && dir_path && vol->scratch) {
		r = icm_scratch_rmdir(vol->scratch, dir_path, name);
		if (r != -ENOENT)
			return r;
	}
	for (int tries = 0; tries < ICM_CONFLICT_TRIES; tries++) {
		struct icm_place p = { 0 };

		r = take_for_rmdir(vol, dir, name, &p);
		if (r == 0)
			r = rmdir_once(vol, call, dir, name, &p);
		icm_place_clear(vol, &p);
		if (r == -ENOENT && tries == 0)
			r = -ESTALE;
		if (r != -ESTALE)
			return r;
		r = look_again(vol, dir, name);
		if (r < 0)
			return r;
	}
	return -EBUSY;
}
