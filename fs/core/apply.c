/* SPDX-License-Identifier: MIT */
#include "core/apply.h"

#include <string.h>

#include "core/attr.h"
#include "core/feed.h"
#include "core/key.h"
#include "util/clock.h"
#include "util/log.h"

uint64_t icm_ino_of_path(const char *path)
{
	struct icm_sha256 sum = icm_sha256(path, strlen(path));
	uint64_t ino = 0;

	for (size_t i = 0; i < sizeof(ino); i++)
		ino = ino << 8 | (unsigned char)sum.bytes[i];
	return (ino & (ICM_INO_MAX - 1)) | ICM_INO_FIRST;
}

void icm_attr_broken(struct icm_attr *attr, const char *path)
{
	/* no type: no valid attr has none */
	*attr = (struct icm_attr){ .ino = icm_ino_of_path(path) };
}

bool icm_attr_is_broken(const struct icm_attr *attr)
{
	return (attr->mode & S_IFMT) == 0;
}

void icm_apply_dir_time(struct icm_inode *dir, struct timespec time, uint64_t index,
			struct icm_news *news)
{
	if (index < dir->index)
		return;
	dir->index = index;
	dir->attr.mtime = dir->attr.ctime = time;
	icm_news_inode(news, dir, false);
}

void icm_apply_keep_times(struct icm_inode *inode, uint64_t index, struct icm_attr *attr)
{
	if (!S_ISDIR(attr->mode))
		return;
	if (inode->index > index) {
		attr->mtime = inode->attr.mtime;
		attr->ctime = inode->attr.ctime;
	} else {
		inode->index = index;
	}
}

/* The file is in the store from now on: answers of before that don't have its name
 * are old. */
static void publish(struct icm_volume *vol, struct icm_inode *inode)
{
	for (struct icm_name *name = inode->names; !inode->published && name; name = name->alias)
		name->born = ++vol->tree.clock;
	inode->published = true;
}

void icm_apply_attr(struct icm_volume *vol, struct icm_inode *inode, const struct icm_attr *attr,
		    struct icm_file *by, struct icm_news *news)
{
	bool contents = S_ISREG(attr->mode) &&
			(attr->size != inode->attr.size || attr->has_hash != inode->attr.has_hash ||
			 memcmp(&attr->hash, &inode->attr.hash, sizeof(attr->hash)) != 0);

	if (&inode->attr != attr) {
		icm_attr_clear(&inode->attr);
		icm_attr_copy(&inode->attr, attr);
	}
	publish(vol, inode);
	if (contents) {
		inode->gen = ++vol->next_gen;
		icm_file_new_version(vol, inode, by, news);
	} else {
		for (struct icm_file *f = inode->views; f; f = f->next) {
			if (f == by)
				continue;
			if (!f->frozen)
				f->version = icm_inode_version(inode);
			icm_news_view(news, f, false);
		}
		icm_news_apart(news, inode, by, ICM_EVENT_ATTRIB);
	}
}

void icm_apply_remove(struct icm_volume *vol, struct icm_name *name, struct icm_news *news)
{
	struct icm_inode *inode = name->inode;

	/* a directory that went was empty, but for files that only this mount has */
	while (inode->first)
		icm_apply_remove(vol, inode->first, news);
	icm_inode_ref(inode);
	if (S_ISREG(inode->attr.mode)) {
		/* unpublished changes of it become a conflict copy there */
		free(inode->last_path);
		inode->last_path = icm_name_path(name);
	}
	icm_news_name(news, name->dir, name->text);
	icm_file_set_aside(inode);
	icm_tree_remove(&vol->tree, name);
	icm_news_inode(news, inode, false); /* link count, ctime */
	for (struct icm_file *f = inode->views; f && !icm_inode_is_dir(inode); f = f->next)
		icm_news_event(news, f, ICM_EVENT_ATTRIB);
	icm_inode_unref(&vol->tree, inode);
}

/* A directory was renamed, by this mount too, and a look-up tells before the
 * rename itself has reached the tree. In a listing both names would be there. */
static bool moved_dir(struct icm_volume *vol, struct icm_inode *inode, struct icm_inode *to,
		      const struct icm_attr *attr)
{
	return icm_inode_is_dir(inode) && S_ISDIR(attr->mode) && inode->published &&
	       inode->names->dir && !icm_inode_is_below(to, inode) &&
	       !(vol->listing && inode->names->seen);
}

struct icm_name *icm_apply_upsert(struct icm_volume *vol, struct icm_inode *dir, const char *text,
				  const struct icm_attr *attr, uint64_t index,
				  struct icm_news *news)
{
	struct icm_name *name = icm_tree_find(&vol->tree, dir, text);
	struct icm_inode *inode;
	struct icm_attr copy;

	if (name && !name->inode->published)
		return NULL; /* ours is published, or becomes a conflict copy, later */
	if (name && name->inode->attr.ino == attr->ino &&
	    (name->inode->attr.mode & S_IFMT) == (attr->mode & S_IFMT)) {
		icm_apply_attr(vol, name->inode, attr, NULL, news);
		return name;
	}
	inode = icm_tree_inode(&vol->tree, attr->ino);
	if (inode && inode->names && !attr->linked && inode->names->attr_index > index)
		return NULL; /* told by a look-up, before the feed */
	if (inode && inode->names && !attr->linked && !inode->published) {
		/* Ours, just being published; another mount has renamed it already, and
		 * its old name has yet to learn that it is in the store. */
		icm_volume_want_resync(vol);
		return NULL;
	}
	if (name)
		icm_apply_remove(vol, name, news);
	inode = icm_tree_inode(&vol->tree, attr->ino);
	if (inode && inode->names && !attr->linked) {
		/* it had another name, which went by a change that is not here yet,
		 * unless two files claim one number */
		if (moved_dir(vol, inode, dir, attr)) {
			name = icm_tree_move(&vol->tree, inode->names, dir, text);
			/* A listing tells about each name in it; what look-ups told was
			 * perhaps of another directory that had its path, and by itself its
			 * new name doesn't tell when its keys have moved. */
			icm_tree_moved_below(inode, ICM_INDEX_OLD);
			icm_apply_attr(vol, inode, attr, NULL, news);
			icm_news_name(news, dir, text);
			return name;
		}
		if (icm_inode_is_dir(inode) ||
		    (inode->attr.mode & S_IFMT) != (attr->mode & S_IFMT)) {
			ICM_AUTOFREE char *path = icm_inode_path(inode);

			icm_log_err("'%s' and '%s' have the same inode number", text,
				    path ? path : "?");
			icm_attr_broken(&copy, text);
			inode = icm_inode_new(&vol->tree, &copy);
			name = icm_tree_add(&vol->tree, dir, text, inode);
			icm_inode_unref(&vol->tree, inode);
			return name;
		}
		icm_apply_remove(vol, inode->names, news);
		inode = icm_tree_inode(&vol->tree, attr->ino);
	}
	if (inode) {
		icm_inode_ref(inode);
		icm_apply_attr(vol, inode, attr, NULL, news);
	} else {
		icm_attr_copy(&copy, attr);
		inode = icm_inode_new(&vol->tree, &copy);
		inode->published = true;
		inode->gen = ++vol->next_gen;
	}
	name = icm_tree_add(&vol->tree, dir, text, inode);
	icm_inode_unref(&vol->tree, inode);
	icm_news_name(news, dir, text);
	return name;
}

/* ---- feed records ---- */

/* What is known of the name or of the file that the change is about. */
static bool is_newer(const struct icm_name *name, uint64_t ino, uint64_t index)
{
	const struct icm_inode *inode = name->inode;

	return name->attr_index >= index ||
	       (inode->attr.linked && inode->attr.ino == ino && inode->index >= index);
}

/* Attributes of a directory carry its times. */
static void apply_own_attr(struct icm_volume *vol, struct icm_inode *inode,
			   const struct icm_change *c, uint64_t index, struct icm_news *news)
{
	ICM_AUTOATTR struct icm_attr attr;

	icm_attr_copy(&attr, &c->attr);
	icm_apply_keep_times(inode, index, &attr);
	icm_apply_attr(vol, inode, &attr, NULL, news);
}

static bool apply_upsert_change(struct icm_volume *vol, const struct icm_change *c, uint64_t index,
				struct icm_news *news)
{
	const char *base;
	struct icm_inode *dir = *c->path ? icm_tree_parent(&vol->tree, c->path, &base) : NULL;
	struct icm_name *name;

	if (!c->has_attr)
		return false;
	if (!*c->path) { /* the root's own attributes */
		apply_own_attr(vol, vol->tree.root, c, index, news);
		vol->tree.root->names->attr_index = index;
		return true;
	}
	if (!dir)
		return false; /* removed since, or moved with what is in it */
	name = icm_tree_find(&vol->tree, dir, base);
	if (name && is_newer(name, c->attr.ino, index))
		return true;
	if (icm_grave_has(vol, c->path, index))
		return true;
	if (!name && c->op != ICM_CHANGE_CREATE)
		return false;
	if (name && icm_inode_is_dir(name->inode) && name->inode->attr.ino == c->attr.ino)
		apply_own_attr(vol, name->inode, c, index, news);
	else
		name = icm_apply_upsert(vol, dir, base, &c->attr, index, news);
	if (name && c->attr.linked) {
		name->inode->index = index;
	} else if (name) {
		name->attr_index = index;
		if (c->op != ICM_CHANGE_ATTR)
			name->tree_index = index;
	}
	return true;
}

/* The attributes of a file with several names are its inode record's, of which a
 * look-up by another name may have told something newer. */
static bool is_outdated(const struct icm_inode *inode, uint64_t index)
{
	return inode->attr.linked && inode->index > index;
}

static void apply_attr_at(struct icm_volume *vol, struct icm_inode *inode,
			  const struct icm_attr *attr, uint64_t index, struct icm_news *news)
{
	if (is_outdated(inode, index))
		return;
	icm_apply_attr(vol, inode, attr, NULL, news);
	if (attr->linked)
		inode->index = index;
}

static void count_names_left(struct icm_inode *inode, uint32_t left, uint64_t index,
			     struct timespec time)
{
	if (is_outdated(inode, index))
		return;
	inode->attr.ctime = time;
	if (!inode->attr.linked)
		return;
	inode->attr.nlink = left;
	inode->index = index;
}

/* The tree has the file there that the change was made to. */
static bool is_about(const struct icm_change *c, const struct icm_name *name)
{
	return c->has_attr && c->attr.ino == name->inode->attr.ino;
}

/* A look-up told of what is in the directory that came to the same path later: it
 * must not move with this one. */
static bool is_newer_below(const struct icm_name *name, uint64_t index)
{
	return icm_inode_is_dir(name->inode) && icm_tree_is_newer_below(name->inode, index);
}

static bool apply_remove_change(struct icm_volume *vol, const struct icm_change *c, uint64_t index,
				struct icm_news *news)
{
	const char *base;
	struct icm_inode *dir = icm_tree_parent(&vol->tree, c->path, &base);
	struct icm_name *name = dir ? icm_tree_find(&vol->tree, dir, base) : NULL;

	icm_grave_dig(vol, c->path, index);
	if (!dir)
		return false; /* it moved, by what a look-up told, and this with it */
	if (!name || !name->inode->published || name->attr_index >= index)
		return true;
	count_names_left(name->inode, c->left, index, c->time);
	icm_apply_remove(vol, name, news);
	return true;
}

static bool apply_rename_change(struct icm_volume *vol, const struct icm_change *c, uint64_t index,
				struct icm_news *news)
{
	const char *from_base, *to_base;
	struct icm_inode *from = icm_tree_parent(&vol->tree, c->path, &from_base);
	struct icm_inode *to = c->to ? icm_tree_parent(&vol->tree, c->to, &to_base) : NULL;
	struct icm_name *name = from ? icm_tree_find(&vol->tree, from, from_base) : NULL;
	struct icm_name *old = to ? icm_tree_find(&vol->tree, to, to_base) : NULL;

	icm_grave_dig(vol, c->path, index);
	if (old && old->attr_index >= index) {
		/* A look-up has told what became of the target later. What was renamed
		 * was replaced there, and isn't here any more. */
		if (name && name->inode->published && name->attr_index < index)
			icm_apply_remove(vol, name, news);
		return true;
	}
	if (!name || !to || name->attr_index >= index || !is_about(c, name) ||
	    (old && !old->inode->published) || is_newer_below(name, index))
		return false;
	if (old) {
		count_names_left(old->inode, c->left, index, c->time);
		icm_apply_remove(vol, old, news);
	}
	icm_news_name(news, from, from_base);
	icm_file_set_aside(name->inode);
	name = icm_tree_move(&vol->tree, name, to, to_base);
	icm_news_name(news, to, to_base);
	name->attr_index = name->tree_index = index;
	apply_attr_at(vol, name->inode, &c->attr, index, news);
	if (icm_inode_is_dir(name->inode))
		icm_tree_moved_below(name->inode, c->piecewise ? ICM_INDEX_OLD : index);
	return true;
}

/* volume->lock held. Also for own exchanges. */
static void swap_names(struct icm_volume *vol, struct icm_name *a, struct icm_name *b,
		       uint64_t index, struct icm_news *news)
{
	struct icm_inode *a_inode = icm_inode_ref(a->inode), *b_inode = icm_inode_ref(b->inode);
	struct icm_inode *a_dir = icm_inode_ref(a->dir), *b_dir = icm_inode_ref(b->dir);
	ICM_AUTOFREE char *a_text = icm_xstrdup(a->text);
	ICM_AUTOFREE char *b_text = icm_xstrdup(b->text);

	icm_news_name(news, a_dir, a_text);
	icm_news_name(news, b_dir, b_text);
	icm_tree_remove(&vol->tree, a);
	icm_tree_remove(&vol->tree, b);
	a = icm_tree_add(&vol->tree, a_dir, a_text, b_inode);
	b = icm_tree_add(&vol->tree, b_dir, b_text, a_inode);
	a->attr_index = a->tree_index = b->attr_index = b->tree_index = index;
	if (icm_inode_is_dir(a_inode))
		icm_tree_moved_below(a_inode, index);
	if (icm_inode_is_dir(b_inode))
		icm_tree_moved_below(b_inode, index);
	icm_inode_unref(&vol->tree, a_inode);
	icm_inode_unref(&vol->tree, b_inode);
	icm_inode_unref(&vol->tree, a_dir);
	icm_inode_unref(&vol->tree, b_dir);
}

void icm_apply_exchange(struct icm_volume *vol, struct icm_name *a, struct icm_name *b,
			uint64_t index, struct timespec time, struct icm_news *news)
{
	a->inode->attr.ctime = b->inode->attr.ctime = time;
	icm_news_inode(news, a->inode, false);
	icm_news_inode(news, b->inode, false);
	icm_apply_dir_time(a->dir, time, index, news);
	icm_apply_dir_time(b->dir, time, index, news);
	swap_names(vol, a, b, index, news);
}

static bool apply_exchange_change(struct icm_volume *vol, const struct icm_change *c,
				  uint64_t index, struct icm_news *news)
{
	struct icm_name *a = icm_tree_walk(&vol->tree, c->path);
	struct icm_name *b = c->to ? icm_tree_walk(&vol->tree, c->to) : NULL;

	if (!a || !b || !a->dir || !b->dir)
		return false;
	icm_grave_dig(vol, c->path, index);
	icm_grave_dig(vol, c->to, index);
	if (a->attr_index >= index || b->attr_index >= index)
		return a->attr_index >= index && b->attr_index >= index;
	if (!is_about(c, b) || is_newer_below(a, index) || is_newer_below(b, index))
		return false;
	icm_file_set_aside(a->inode);
	icm_file_set_aside(b->inode);
	icm_apply_exchange(vol, a, b, index, c->time, news);
	return true;
}

static bool apply_link_change(struct icm_volume *vol, const struct icm_change *c, uint64_t index,
			      struct icm_news *news)
{
	const char *base;
	struct icm_name *name = icm_tree_walk(&vol->tree, c->path);
	struct icm_inode *dir = c->to ? icm_tree_parent(&vol->tree, c->to, &base) : NULL;
	struct icm_name *old = dir ? icm_tree_find(&vol->tree, dir, base) : NULL;

	if (name && name->attr_index >= index && old && old->attr_index >= index)
		return true;
	if (!name || !dir || !is_about(c, name) || (old && old->attr_index < index))
		return false;
	if (!name->inode->attr.linked && name->attr_index < index)
		name->attr_index = name->tree_index = index;
	apply_attr_at(vol, name->inode, &c->attr, index, news);
	if (old)
		return true; /* a look-up has told what became of the new name later */
	name = icm_tree_add(&vol->tree, dir, base, name->inode);
	name->attr_index = name->tree_index = index;
	icm_news_name(news, dir, base);
	return true;
}

/* The directories of names that changed, whether or not the names themselves
 * are known already (from a look-up). */
static void touch_dirs(struct icm_volume *vol, const struct icm_change *c, uint64_t index,
		       struct icm_news *news)
{
	const char *base;
	struct icm_inode *dir;

	if (c->op == ICM_CHANGE_WRITE || c->op == ICM_CHANGE_ATTR)
		return;
	dir = c->op == ICM_CHANGE_LINK ? NULL : icm_tree_parent(&vol->tree, c->path, &base);
	if (dir)
		icm_apply_dir_time(dir, c->time, index, news);
	dir = c->to ? icm_tree_parent(&vol->tree, c->to, &base) : NULL;
	if (dir)
		icm_apply_dir_time(dir, c->time, index, news);
}

static bool apply_change(struct icm_volume *vol, const struct icm_change *c, uint64_t index,
			 struct icm_news *news)
{
	touch_dirs(vol, c, index, news);
	switch (c->op) {
	case ICM_CHANGE_CREATE:
	case ICM_CHANGE_WRITE:
	case ICM_CHANGE_ATTR:
		return apply_upsert_change(vol, c, index, news);
	case ICM_CHANGE_REMOVE:
		return apply_remove_change(vol, c, index, news);
	case ICM_CHANGE_RENAME:
		return apply_rename_change(vol, c, index, news);
	case ICM_CHANGE_EXCHANGE:
		return apply_exchange_change(vol, c, index, news);
	case ICM_CHANGE_LINK:
		return apply_link_change(vol, c, index, news);
	}
	return false;
}

void icm_apply_event(struct icm_volume *vol, const struct icm_change *c)
{
	bool is_dir = c->has_attr && S_ISDIR(c->attr.mode);
	struct icm_event ev = { .path = c->path, .to_path = c->to, .is_dir = is_dir };

	switch (c->op) {
	case ICM_CHANGE_CREATE:
		ev.type = is_dir ? ICM_EVENT_MKDIR : ICM_EVENT_CREATE;
		break;
	case ICM_CHANGE_LINK:
		ev.type = ICM_EVENT_CREATE;
		ev.path = c->to;
		ev.to_path = NULL;
		break;
	case ICM_CHANGE_WRITE:
	case ICM_CHANGE_EXCHANGE:
		ev.type = ICM_EVENT_MODIFY;
		break;
	case ICM_CHANGE_ATTR:
		ev.type = ICM_EVENT_ATTRIB;
		break;
	case ICM_CHANGE_REMOVE:
		ev.type = is_dir ? ICM_EVENT_RMDIR : ICM_EVENT_DELETE;
		break;
	case ICM_CHANGE_RENAME:
		ev.type = ICM_EVENT_MOVE;
		break;
	}
	if (vol->notify.event)
		vol->notify.event(vol->notify_data, &ev);
}

/* What is scratch in a directory stays in it. */
static void move_scratch(struct icm_volume *vol, const struct icm_change *c)
{
	if (!vol->scratch || !c->has_attr || !S_ISDIR(c->attr.mode))
		return;
	if (c->op == ICM_CHANGE_RENAME)
		icm_scratch_dir_moved(vol->scratch, c->path, c->to);
	else if (c->op == ICM_CHANGE_EXCHANGE)
		icm_scratch_dirs_exchanged(vol->scratch, c->path, c->to);
	else if (c->op == ICM_CHANGE_REMOVE)
		icm_scratch_dir_removed(vol->scratch, c->path);
}

void icm_apply_own(struct icm_volume *vol, const struct icm_change *c, uint64_t index)
{
	struct icm_news news = { 0 };

	pthread_mutex_lock(&vol->lock);
	if (!apply_change(vol, c, index, &news))
		icm_volume_want_resync(vol);
	icm_feed_own_commit(vol, index);
	pthread_mutex_unlock(&vol->lock);
	icm_news_tell(vol, &news);
	move_scratch(vol, c);
}

bool icm_apply_record(struct icm_volume *vol, const struct icm_feed_record *rec, uint64_t index)
{
	struct icm_news news = { 0 };
	bool fits = true;

	pthread_mutex_lock(&vol->lock);
	for (size_t i = 0; i < rec->n_changes; i++)
		fits = apply_change(vol, &rec->changes[i], index, &news) && fits;
	pthread_mutex_unlock(&vol->lock);
	icm_news_tell(vol, &news);
	for (size_t i = 0; i < rec->n_changes; i++)
		move_scratch(vol, &rec->changes[i]);
	for (size_t i = 0; i < rec->n_changes; i++)
		icm_apply_event(vol, &rec->changes[i]);
	return fits;
}
