/* SPDX-License-Identifier: MIT */
#include "core/names.h"

#include <string.h>

#include "core/adopt.h"
#include "core/apply.h"
#include "core/change.h"
#include "core/feed.h"
#include "core/foreign.h"
#include "core/key.h"
#include "core/publish.h"
#include "util/log.h"

/* ---- asking the store ---- */

void icm_fetched_clear(struct icm_fetched *f)
{
	icm_attr_clear(&f->attr);
	icm_part_clear(&f->adoption);
	free(f->path);
	*f = (struct icm_fetched){ 0 };
}

static int fetch_inode(struct icm_volume *vol, uint64_t ino, struct icm_fetched *ret)
{
	struct icm_ctx ctx = icm_volume_ctx(vol);
	ICM_AUTOFREE char *key = icm_key_inode(ino);
	ICM_AUTOENTRY struct icm_entry e = { 0 };
	struct icm_inode_value value;
	int r = icm_backend_get(vol->be, &ctx, key, &e);

	if (r < 0)
		return r == -ENOENT ? -EIO : r;
	if (icm_inode_value_decode(e.value, e.len, &value) < 0)
		return -EIO;
	if (value.has_record)
		icm_record_clear(&value.record);
	icm_attr_clear(&ret->attr);
	ret->attr = value.attr;
	ret->attr.linked = true;
	ret->inode_index = e.modify_index;
	return 0;
}

static int fetch_key(struct icm_volume *vol, const char *path, struct icm_fetched *ret)
{
	struct icm_ctx ctx = icm_volume_ctx(vol);
	ICM_AUTOFREE char *key = icm_key_attr(path);
	ICM_AUTOENTRY struct icm_entry e = { 0 };
	int r = icm_backend_get(vol->be, &ctx, key, &e);

	icm_attr_clear(&ret->attr);
	ret->attr_index = ret->inode_index = 0;
	ret->absent = r == -ENOENT;
	if (r < 0)
		return r;
	ret->attr_index = e.modify_index;
	if (icm_attr_decode(e.value, e.len, &ret->attr) < 0) {
		icm_log_err("'%s' has damaged attributes and can't be used", path);
		icm_attr_broken(&ret->attr, path);
	}
	return 0;
}

/* A file with several names may lose them between the two looks: what it refers to
 * is damaged only if it refers to it still. */
static int fetch_attr(struct icm_volume *vol, const char *path, struct icm_fetched *ret)
{
	uint64_t before = 0;
	int r, found;

	for (;;) {
		r = fetch_key(vol, path, ret);
		if (r < 0 || !ret->attr.linked)
			return r;
		found = fetch_inode(vol, ret->attr.ino, ret);
		if (found != -EIO)
			return found;
		if (ret->attr_index == before)
			break;
		before = ret->attr_index;
	}
	icm_log_err("'%s' refers to a damaged inode record and can't be used", path);
	icm_attr_clear(&ret->attr);
	icm_attr_broken(&ret->attr, path);
	return 0;
}

/* ---- changes that take more than one transaction (change.h) ---- */

/* A mount that can't end them shows what was before them. */
static int see_through(struct icm_volume *vol, const char *path, struct icm_fetched *ret)
{
	ICM_AUTOFREE char *there = NULL;
	int r;

	if (!ret->absent) {
		free(ret->attr.mark);
		ret->attr.mark = NULL;
		ret->absent = icm_change_makes(vol, path);
		return ret->absent ? -ENOENT : 0;
	}
	there = icm_change_elsewhere(vol, path);
	if (!there)
		return -ENOENT;
	r = fetch_attr(vol, there, ret);
	ret->elsewhere = r == 0;
	return r;
}

/* What was read as `r` says may be a change's doing. -EAGAIN: it was, and is over. */
static int meet_change(struct icm_volume *vol, const char *path, struct icm_fetched *ret, int r)
{
	bool met;

	/* a name that is missed, one that is marked, one that nobody has told of */
	if (r == -ENOENT ? !ret->known : r < 0 || (!ret->attr.mark && (ret->known || !*path)))
		return r;
	if (vol->read_only) {
		r = see_through(vol, path, ret);
	} else {
		int met_r = icm_change_meet(vol, path, &met);

		if (met_r < 0)
			return met_r == -EHOSTUNREACH ? -EIO : met_r;
		if (met)
			return -EAGAIN;
	}
	if (r == -ENOENT && ret->known) {
		/* gone by itself, or with a directory, of which the feed tells */
		int feed_r = icm_feed_catch_up(vol);

		return feed_r < 0 ? feed_r : r;
	}
	return r;
}

/* A mark whose change is over by now is read again; one that stays says nothing. */
static int fetch_settled(struct icm_volume *vol, const char *path, struct icm_fetched *ret)
{
	uint64_t before = 0;
	int r = fetch_attr(vol, path, ret);

	for (int tries = 0; tries < ICM_CONFLICT_TRIES; tries++) {
		r = meet_change(vol, path, ret, r);
		if (r != -EAGAIN && (r < 0 || !ret->attr.mark))
			return r;
		if (r == 0 && ret->attr_index == before) {
			icm_log_err("'%s' is marked by a change that isn't there", path);
			free(ret->attr.mark);
			ret->attr.mark = NULL;
			return 0;
		}
		before = ret->attr_index;
		r = fetch_attr(vol, path, ret);
	}
	return -EBUSY;
}

/* attr/<path>, and what is foreign beside it is adopted if `adopt`. */
static int fetch_path(struct icm_volume *vol, const char *path, bool adopt, struct icm_fetched *ret)
{
	int r = -EAGAIN;

	for (int tries = 0; r == -EAGAIN && tries < ICM_CONFLICT_TRIES; tries++) {
		r = fetch_settled(vol, path, ret);
		if (adopt && *path && !ret->elsewhere && (r == 0 || r == -ENOENT)) {
			r = icm_adopt(vol, path, ret);
			if (r == 0 && ret->absent)
				r = -ENOENT;
		}
	}
	return r == -EAGAIN ? -EBUSY : r;
}

static int fetch_name(struct icm_volume *vol, struct icm_inode *dir, const char *name, bool adopt,
		      struct icm_fetched *ret)
{
	ICM_AUTOFREE char *dir_path = NULL;
	struct icm_name *known;

	pthread_mutex_lock(&vol->lock);
	dir_path = icm_inode_path(dir);
	known = icm_tree_find(&vol->tree, dir, name);
	*ret = (struct icm_fetched){ .clock = vol->tree.clock,
				     .listings = vol->listings,
				     .absent = true,
				     .known = known && known->inode->published };
	pthread_mutex_unlock(&vol->lock);
	if (!dir_path)
		return -ENOENT;
	ret->path = icm_path_join(dir_path, name);
	return icm_volume_heard(vol, fetch_path(vol, ret->path, adopt, ret));
}

int icm_name_fetch(struct icm_volume *vol, struct icm_inode *dir, const char *name,
		   struct icm_fetched *ret)
{
	return fetch_name(vol, dir, name, true, ret);
}

/* What was asked for is not what has the directory's path now, or the whole tree
 * was listed meanwhile, perhaps without what had been there. */
static bool is_outdated(struct icm_volume *vol, struct icm_inode *dir, const char *text,
			const struct icm_fetched *there)
{
	ICM_AUTOFREE char *dir_path = icm_inode_path(dir);
	ICM_AUTOFREE char *path = dir_path ? icm_path_join(dir_path, text) : NULL;

	return there->listings != vol->listings || !path != !there->path ||
	       (path && strcmp(path, there->path) != 0);
}

/* What the adoption did besides. The feed's record of it is this mount's own, and
 * isn't applied. */
static void apply_adoption(struct icm_volume *vol, struct icm_inode *dir,
			   const struct icm_part *part, struct icm_news *news)
{
	for (size_t i = 0; i < part->n_changes; i++)
		if (part->changes[i].op != ICM_CHANGE_WRITE)
			icm_apply_dir_time(dir, part->changes[i].time, part->index, news);
	/* the other names of a file that has lost one are brought up to date */
	if (part->n_changes > 1)
		icm_volume_want_resync(vol);
	icm_feed_own_commit(vol, part->index);
}

/* A directory's times are in another key, and the feed tells of their changes. */
static void keep_dir_times(struct icm_volume *vol, struct icm_attr *attr)
{
	const struct icm_inode *inode =
		S_ISDIR(attr->mode) ? icm_tree_inode(&vol->tree, attr->ino) : NULL;

	if (!inode || !icm_inode_is_dir(inode) || !inode->published)
		return;
	attr->mtime = inode->attr.mtime;
	attr->ctime = inode->attr.ctime;
}

struct icm_name *icm_fetched_apply(struct icm_volume *vol, struct icm_inode *dir, const char *text,
				   const struct icm_fetched *there, struct icm_news *news)
{
	struct icm_name *name = icm_tree_find(&vol->tree, dir, text);
	ICM_AUTOATTR struct icm_attr attr = { 0 };

	if (is_outdated(vol, dir, text, there)) {
		if (there->adoption.n_changes && !there->derived)
			icm_volume_want_resync(vol);
		return NULL;
	}
	if (!there->derived)
		apply_adoption(vol, dir, &there->adoption, news);
	if (there->absent) {
		/* what came into the tree meanwhile is newer */
		if (name && name->inode->published && name->born <= there->clock)
			icm_apply_remove(vol, name, news);
		return NULL;
	}
	if (!there->path || (!name && icm_grave_has(vol, there->path, there->attr_index)))
		return NULL;
	if (name && icm_name_is_told(name, there->attr_index, there->attr.ino) &&
	    (!there->attr.linked || name->inode->attr.ino != there->attr.ino ||
	     name->inode->index >= there->inode_index))
		return name;
	icm_attr_copy(&attr, &there->attr);
	keep_dir_times(vol, &attr);
	name = icm_apply_upsert(vol, dir, text, &attr, there->attr_index, news);
	if (!name)
		return NULL;
	if (name->attr_index < there->attr_index) {
		name->attr_index = there->attr_index;
		name->tree_index = 0;
	}
	if (there->attr.linked)
		name->inode->index = there->inode_index;
	return name;
}

/* The tree still has the object under another name: a rename that we haven't
 * heard of. volume->lock held. */
static bool has_moved(struct icm_volume *vol, struct icm_inode *dir, const char *text,
		      const struct icm_fetched *there)
{
	struct icm_inode *inode = icm_tree_inode(&vol->tree, there->attr.ino);
	struct icm_name *name = icm_tree_find(&vol->tree, dir, text);

	return inode && inode->names && !there->attr.linked && (!name || name->inode != inode);
}

int icm_name_place(struct icm_volume *vol, struct icm_inode *dir, const char *name,
		   const struct icm_fetched *there)
{
	struct icm_news news = { 0 };
	bool moved, again;
	int r;

	pthread_mutex_lock(&vol->lock);
	moved = !there->absent && has_moved(vol, dir, name, there);
	if (!moved)
		icm_fetched_apply(vol, dir, name, there, &news);
	again = is_outdated(vol, dir, name, there);
	pthread_mutex_unlock(&vol->lock);
	if (moved) {
		/* With everything that came before it in the tree, what is below a moved
		 * directory is as it was moved. */
		r = icm_feed_catch_up(vol);
		if (r < 0)
			return r;
		pthread_mutex_lock(&vol->lock);
		icm_fetched_apply(vol, dir, name, there, &news);
		again = is_outdated(vol, dir, name, there);
		pthread_mutex_unlock(&vol->lock);
	}
	icm_news_tell(vol, &news);
	for (size_t i = 0; i < there->adoption.n_changes; i++)
		icm_apply_event(vol, &there->adoption.changes[i]);
	return again ? -EAGAIN : 0;
}

static int refresh(struct icm_volume *vol, struct icm_inode *dir, const char *name, bool adopt)
{
	int r, placed = -EAGAIN;

	for (int tries = 0; placed == -EAGAIN && tries < ICM_CONFLICT_TRIES; tries++) {
		__attribute__((cleanup(icm_fetched_clear))) struct icm_fetched there = { 0 };

		r = fetch_name(vol, dir, name, adopt, &there);
		placed = r == 0 || r == -ENOENT ? icm_name_place(vol, dir, name, &there) : 0;
	}
	return placed < 0 ? placed : r;
}

int icm_name_refresh(struct icm_volume *vol, struct icm_inode *dir, const char *name)
{
	int r = refresh(vol, dir, name, true);
	struct icm_name *known;
	ICM_LOCK_SCOPE(&vol->lock);

	/* What was refused may have been the index of tree/<path>: a store may keep it
	 * where a file is replaced by the same bytes. */
	known = icm_tree_find(&vol->tree, dir, name);
	if (known)
		known->tree_index = 0;
	return r;
}

int icm_name_look_up(struct icm_volume *vol, struct icm_inode *dir, const char *name)
{
	/* what a mount that may not write has derived is nowhere in the store */
	return refresh(vol, dir, name, vol->read_only || icm_foreign_is_suspected(vol));
}

static int refresh_root(struct icm_volume *vol)
{
	__attribute__((cleanup(icm_fetched_clear))) struct icm_fetched there = { 0 };
	struct icm_news news = { 0 };
	int r = fetch_path(vol, "", true, &there);

	if (r < 0 || icm_attr_is_broken(&there.attr))
		return r == -ENOENT ? -EIO : r;
	pthread_mutex_lock(&vol->lock);
	if (there.attr_index > vol->tree.root->names->attr_index) {
		there.attr.mtime = vol->tree.root->attr.mtime;
		icm_apply_attr(vol, vol->tree.root, &there.attr, NULL, &news);
		vol->tree.root->names->attr_index = there.attr_index;
	}
	pthread_mutex_unlock(&vol->lock);
	icm_news_tell(vol, &news);
	return 0;
}

int icm_dir_refresh(struct icm_volume *vol, struct icm_inode *dir)
{
	struct icm_inode *parent = NULL;
	ICM_AUTOFREE char *text = NULL;
	int r;

	pthread_mutex_lock(&vol->lock);
	if (dir->names && dir->names->dir) {
		parent = icm_inode_ref(dir->names->dir);
		text = icm_xstrdup(dir->names->text);
	}
	pthread_mutex_unlock(&vol->lock);
	if (!parent)
		return dir == vol->tree.root ? refresh_root(vol) : -ENOENT;
	r = icm_name_refresh(vol, parent, text);
	pthread_mutex_lock(&vol->lock);
	icm_inode_unref(&vol->tree, parent);
	pthread_mutex_unlock(&vol->lock);
	return r;
}

/* ---- places ---- */

int icm_place_take(struct icm_volume *vol, struct icm_inode *dir, const char *text,
		   struct icm_place *p)
{
	struct icm_name *name = icm_tree_find(&vol->tree, dir, text);

	*p = (struct icm_place){ .dir = icm_inode_path(dir), .name = name };
	if (!p->dir)
		return -ENOENT;
	p->path = icm_path_join(p->dir, text);
	if (strlen(p->path) > ICM_PATH_MAX)
		return -ENAMETOOLONG;
	p->dir_attr_index = dir->names->attr_index;
	if (!name)
		return 0;
	p->exists = true;
	p->inode = icm_inode_ref(name->inode);
	icm_attr_copy(&p->attr, &name->inode->attr);
	p->published = name->inode->published;
	p->attr_index = name->attr_index;
	p->tree_index = name->tree_index;
	p->inode_index = name->inode->index;
	return 0;
}

void icm_place_clear(struct icm_volume *vol, struct icm_place *p)
{
	if (p->inode) {
		pthread_mutex_lock(&vol->lock);
		icm_inode_unref(&vol->tree, p->inode);
		pthread_mutex_unlock(&vol->lock);
	}
	icm_attr_clear(&p->attr);
	free(p->dir);
	free(p->path);
	*p = (struct icm_place){ 0 };
}

/* ---- contents that move ---- */

void icm_moved_clear(struct icm_moved *m)
{
	free(m->value);
	icm_content_unref(m->plain);
	if (m->has_record)
		icm_record_clear(&m->record);
	*m = (struct icm_moved){ 0 };
}

/* What the history is to keep; damaged contents are not kept. */
static int note_contents(struct icm_volume *vol, const struct icm_place *p,
			 const struct icm_entry *e, struct icm_moved *m)
{
	if (e->flags == ICM_FLAGS_PLAIN && e->len > ICM_PLAIN_MAX) {
		int r = icm_record_of_bytes(vol, e->value, e->len, &m->record);

		m->has_record = r == 0;
		return r;
	}
	if (e->flags == ICM_FLAGS_PLAIN) {
		m->plain = icm_content_new(e->value, e->len);
	} else if (icm_record_decode(e->value, e->len, &m->record) == 0) {
		m->has_record = true;
	} else {
		icm_log_err("'%s' has a damaged record", p->path);
	}
	return 0;
}

/* A view of the newest contents, with a reference; NULL: none. */
static struct icm_file *newest_view(struct icm_volume *vol, struct icm_inode *inode)
{
	ICM_LOCK_SCOPE(&vol->lock);

	for (struct icm_file *f = inode->views; f; f = f->next)
		if (f->version.gen == inode->gen && icm_view_tryref(&f->view))
			return f;
	return NULL;
}

/* What a view has of the plain contents that the place's attributes describe. */
static struct icm_content *contents_at_hand(struct icm_volume *vol, const struct icm_place *p)
{
	struct icm_file *f = newest_view(vol, p->inode);
	struct icm_content *found = NULL;
	struct icm_sha256 sum;

	if (!f)
		return NULL;
	/* who has it may be waiting for the store; then this asks the store as well */
	if (pthread_mutex_trylock(&f->io) == 0) {
		if (f->base && f->base->len == p->attr.size)
			found = icm_content_ref(f->base);
		pthread_mutex_unlock(&f->io);
	}
	icm_fs_forget(&f->view, 1);
	if (!found)
		return NULL;
	sum = icm_sha256(found->bytes, found->len);
	return memcmp(&sum, &p->attr.hash, sizeof(sum)) == 0 ? found : icm_content_unref(found);
}

/* Small contents that the mount has in memory needn't be read: that they are still
 * what the store has, the transaction's conditions say. */
static bool moved_at_hand(struct icm_volume *vol, const struct icm_place *p, struct icm_moved *m)
{
	if (!p->published || !p->tree_index || !S_ISREG(p->attr.mode) || p->attr.linked ||
	    !p->attr.has_hash || p->attr.size > ICM_CONTENT_KEEP)
		return false;
	m->plain = contents_at_hand(vol, p);
	if (!m->plain)
		return false;
	m->value = icm_xmemdup(m->plain->bytes, m->plain->len);
	m->len = m->plain->len;
	m->flags = ICM_FLAGS_PLAIN;
	m->tree_index = p->tree_index;
	return true;
}

int icm_moved_read(struct icm_volume *vol, const struct icm_place *p, struct icm_moved *m)
{
	struct icm_ctx ctx = icm_volume_ctx(vol);
	ICM_AUTOFREE char *key = icm_key_tree(p->path);
	ICM_AUTOENTRY struct icm_entry e = { 0 };
	struct icm_sha256 sum;
	int r;

	*m = (struct icm_moved){ .directory = S_ISDIR(p->attr.mode) };
	if (m->directory || moved_at_hand(vol, p, m))
		return 0;
	r = icm_backend_get(vol->be, &ctx, key, &e);
	if (r == -ENOENT) /* damaged or moved: the checks of the transaction tell */
		return 0;
	if (r == 0 && p->attr_index && e.modify_index > p->attr_index)
		r = -ESTALE; /* another program's, to be adopted first */
	if (r < 0)
		return r;
	m->flags = e.flags;
	m->tree_index = e.modify_index;
	m->len = e.len;
	sum = icm_sha256(e.value, e.len);
	if (S_ISREG(p->attr.mode) && !p->attr.linked && p->attr.has_hash &&
	    memcmp(&sum, &p->attr.hash, sizeof(sum)) == 0)
		r = note_contents(vol, p, &e, m);
	m->value = ICM_STEAL(&e.value);
	return r;
}

/* A change of a linked file's attributes: `links` more or less, a new ctime. Its
 * contents stay in the value, so that it is read; a failure to do so makes the
 * transaction fail, and the caller look again. */
void icm_part_touch_inode(struct icm_volume *vol, struct icm_part *part, const struct icm_place *p,
			  int links, struct timespec now)
{
	struct icm_ctx ctx = icm_volume_ctx(vol);
	ICM_AUTOFREE char *key = icm_key_inode(p->attr.ino);
	ICM_AUTOENTRY struct icm_entry e = { 0 };
	struct icm_inode_value v;
	size_t len;
	char *json;

	if (links < 0 && p->attr.nlink <= 1) {
		icm_part_check_index(part, icm_xstrdup(key), p->inode_index);
		icm_part_delete(part, icm_xstrdup(key));
		return;
	}
	if (icm_backend_get(vol->be, &ctx, key, &e) < 0 || e.modify_index != p->inode_index ||
	    icm_inode_value_decode(e.value, e.len, &v) < 0) {
		icm_part_check_index(part, icm_xstrdup(key), 0);
		return;
	}
	v.attr.nlink = (uint32_t)((int64_t)v.attr.nlink + links);
	v.attr.ctime = now;
	icm_random_id(v.attr.id);
	json = icm_inode_value_encode(&v, &len);
	icm_inode_value_clear(&v);
	icm_part_cas(part, icm_xstrdup(key), p->inode_index, json, len, 0);
}

void icm_part_remove_name(struct icm_volume *vol, struct icm_part *part, const struct icm_place *p,
			  const struct icm_moved *m, bool replaced, struct timespec now,
			  uint32_t *left)
{
	*left = 0;
	if (!replaced) {
		icm_part_check_index(part, icm_key_attr(p->path), p->attr_index);
		icm_part_delete(part, icm_key_attr(p->path));
		icm_part_delete_cas(part, icm_key_tree(p->path), m->tree_index);
	}
	if (p->attr.linked) {
		*left = p->attr.nlink ? p->attr.nlink - 1 : 0;
		icm_part_touch_inode(vol, part, p, -1, now);
	} else if (m->plain || m->has_record) {
		icm_part_history(vol, part, p->path, m->tree_index, &p->attr, m->plain,
				 m->plain ? NULL : &m->record, now);
	}
}

void icm_name_removed(struct icm_volume *vol, struct icm_name *name, uint64_t index,
		      struct timespec now, struct icm_news *news)
{
	struct icm_inode *inode = name->inode;

	/* the store's directory was empty: what is still in ours is gone already */
	while (inode->first)
		icm_apply_remove(vol, inode->first, news);
	inode->attr.ctime = now;
	if (inode->attr.linked) {
		if (inode->attr.nlink)
			inode->attr.nlink--;
		inode->index = index;
	}
	icm_tree_remove(&vol->tree, name);
}

/* ---- files that only this mount has ---- */

struct icm_file *icm_unpublished_lock(struct icm_volume *vol, struct icm_inode *inode)
{
	struct icm_file *f = NULL;
	bool published;

	pthread_mutex_lock(&vol->lock);
	if (!inode->published)
		f = icm_file_get(vol, inode);
	pthread_mutex_unlock(&vol->lock);
	if (!f)
		return NULL;
	pthread_mutex_lock(&f->commit);
	pthread_mutex_lock(&vol->lock);
	published = inode->published;
	pthread_mutex_unlock(&vol->lock);
	if (!published)
		return f;
	icm_unpublished_unlock(f);
	return NULL;
}

void icm_unpublished_unlock(struct icm_file *f)
{
	if (!f)
		return;
	pthread_mutex_unlock(&f->commit);
	icm_fs_forget(&f->view, 1);
}
