/* SPDX-License-Identifier: MIT
 * When another mount was faster (docs/consistency.md): a change of attributes
 * is taken over, equal contents are no conflict, appended bytes go behind the
 * newer contents, and anything else is saved beside it as
 * NAME.conflict-USER@HOST-TIME, so that nobody's bytes are lost. */
#include <string.h>

#include "core/apply.h"
#include "core/attr.h"
#include "core/feed.h"
#include "core/key.h"
#include "core/names.h"
#include "core/publish.h"
#include "util/clock.h"
#include "util/log.h"

/* "NAME.conflict-USER@HOST-20260102T030405Z", cut in front to fit; `n` > 0 tells
 * copies of one second apart. */
static char *conflict_name(struct icm_volume *vol, const char *name, unsigned n)
{
	struct timespec now = icm_wall_time();
	struct tm tm;
	char when[32];
	ICM_AUTOFREE char *tail = NULL;
	size_t room;

	gmtime_r(&now.tv_sec, &tm);
	strftime(when, sizeof(when), "%Y%m%dT%H%M%SZ", &tm);
	/* more than one in a second */
	tail = n ? icm_asprintf(".conflict-%.64s@%.64s-%s-%08x", vol->user, vol->host, when,
				(unsigned)icm_random_u64())
		 : icm_asprintf(".conflict-%.64s@%.64s-%s", vol->user, vol->host, when);
	for (char *c = tail; *c; c++)
		if (*c == '/')
			*c = '_';
	room = ICM_NAME_MAX - strlen(tail);
	return icm_asprintf("%.*s%s", (int)(strlen(name) < room ? strlen(name) : room), name, tail);
}

/* Where the copy goes: the directory (referenced) and the name that it is a copy of. */
static struct icm_inode *copy_place(struct icm_volume *vol, struct icm_file *f, char **ret_name)
{
	struct icm_inode *dir = NULL;
	const char *base = "file";
	ICM_LOCK_SCOPE(&vol->lock);

	if (f->inode->names) {
		dir = f->inode->names->dir;
		base = f->inode->names->text;
	} else if (f->inode->last_path) {
		dir = icm_tree_parent(&vol->tree, f->inode->last_path, &base);
	}
	if (!dir || !dir->names)
		dir = vol->tree.root; /* the directory went as well */
	*ret_name = icm_xstrdup(base);
	return icm_inode_ref(dir);
}

/* One attempt to create the copy. */
static int create_copy(struct icm_volume *vol, struct icm_file *f, struct icm_publication *p,
		       struct icm_inode *dir, const char *name)
{
	ICM_AUTOPART struct icm_part part = ICM_PART_INIT;
	ICM_AUTOATTR struct icm_attr attr = { 0 };
	ICM_AUTOFREE char *path = NULL;
	ICM_AUTOFREE char *dir_path = NULL;
	struct icm_news news = { 0 };
	struct icm_name *made;
	uint64_t dir_index = 0;
	size_t len;
	char *json;
	int r;

	pthread_mutex_lock(&vol->lock);
	dir_path = icm_inode_path(dir);
	if (dir_path)
		dir_index = dir->names->attr_index;
	icm_attr_copy(&attr, &f->inode->attr);
	attr.ino = icm_tree_fresh_ino(&vol->tree);
	pthread_mutex_unlock(&vol->lock);
	if (!dir_path)
		return -ESTALE;
	path = icm_path_join(dir_path, name);
	attr.linked = false;
	attr.nlink = 1;
	attr.size = p->size;
	attr.holes = p->holes;
	attr.has_hash = true;
	attr.hash = p->hash;
	attr.mtime = p->mtime;
	attr.ctime = p->ctime;
	icm_random_id(attr.id);
	json = icm_attr_encode(&attr, &len);
	part.pid = p->pid;
	icm_part_names_change(&part, dir_path, dir_index, p->ctime);
	icm_part_cas(&part, icm_key_tree(path), 0, icm_xmemdup(p->value, p->len), p->len, p->flags);
	icm_part_cas(&part, icm_key_attr(path), 0, json, len, 0);
	icm_part_change(&part, ICM_CHANGE_CREATE, path, NULL, p->ctime, &attr);
	r = icm_commit(vol, &part);
	if (r < 0)
		return r;
	icm_log_warning("a file was changed by another mount as well; ours is saved as '%s'", path);
	icm_volume_note_error(vol, path, "saved here because another mount changed the file too");
	pthread_mutex_lock(&vol->lock);
	made = icm_apply_upsert(vol, dir, name, &attr, part.index, &news);
	if (made)
		made->attr_index = made->tree_index = part.index;
	icm_apply_dir_time(dir, p->ctime, part.index, &news);
	icm_feed_own_commit(vol, part.index);
	pthread_mutex_unlock(&vol->lock);
	icm_news_tell(vol, &news);
	return 0;
}

/* This view's bytes are elsewhere now: its handles get ESTALE, new openers
 * another view. */
static void give_up_view(struct icm_volume *vol, struct icm_file *f, struct icm_append_to *append)
{
	struct icm_news news = { 0 };
	bool all = false;
	size_t len;
	void *bytes;

	pthread_mutex_lock(&f->io);
	/* other handles may have appended since the publication was made */
	if (append && append->to && icm_data_is_plain(f->data) &&
	    icm_data_bytes(f->data, &bytes, &len) == 0) {
		icm_content_unref(append->tail);
		append->tail = icm_content_new(bytes, len);
		free(bytes);
		all = true;
	}
	f->data = icm_data_free(f->data);
	f->data_is_work = false;
	pthread_mutex_lock(&vol->lock);
	f->dirty = f->written = f->times_set = false;
	f->conflict = true;
	if (all)
		f->published_changes = f->changes;
	for (struct icm_name *name = f->inode->names; name; name = name->alias)
		icm_news_name(&news, name->dir, name->text);
	pthread_mutex_unlock(&vol->lock);
	pthread_mutex_unlock(&f->io);
	icm_news_tell(vol, &news);
}

static int save_copy(struct icm_volume *vol, struct icm_file *f, struct icm_publication *p)
{
	ICM_AUTOFREE char *base = NULL;
	struct icm_inode *dir = copy_place(vol, f, &base);
	int r = -ESTALE;

	for (unsigned n = 0; r == -ESTALE && n < ICM_CONFLICT_TRIES; n++) {
		ICM_AUTOFREE char *name = conflict_name(vol, base, n);

		r = create_copy(vol, f, p, dir, name);
		if (r == -ESTALE)
			icm_dir_refresh(vol, dir);
	}
	pthread_mutex_lock(&vol->lock);
	icm_inode_unref(&vol->tree, dir);
	pthread_mutex_unlock(&vol->lock);
	if (r < 0)
		return r == -ESTALE ? -EIO : r;
	give_up_view(vol, f, NULL);
	return -ESTALE;
}

/* Our appended bytes, put behind the newer contents. */
static int rebase_append(struct icm_volume *vol, struct icm_file *f)
{
	ICM_AUTOFREE char *tail = NULL;
	uint64_t base;
	size_t len;
	ssize_t n;
	int r;
	ICM_LOCK_SCOPE(&f->io);

	pthread_mutex_lock(&vol->lock);
	base = f->base_size;
	pthread_mutex_unlock(&vol->lock);
	len = (size_t)(icm_data_size(f->data) - base);
	tail = icm_xmalloc(len);
	n = icm_data_read(f->data, tail, len, base);
	if (n < 0)
		return (int)n;
	f->data = icm_data_free(f->data);
	f->data_is_work = false;
	pthread_mutex_lock(&vol->lock);
	f->version = icm_inode_version(f->inode);
	base = f->base_size = f->version.size;
	pthread_mutex_unlock(&vol->lock);
	r = icm_file_make_work(vol, f, false);
	if (r == 0)
		r = icm_data_write(f->data, tail, len, base);
	pthread_mutex_lock(&vol->lock);
	f->dirty_size = base + len;
	f->dirty_holes = icm_data_holes(f->data);
	f->changes++;
	pthread_mutex_unlock(&vol->lock);
	icm_file_doubt(vol, f);
	return r < 0 ? r : ICM_CONFLICT_RETRY;
}

/* The other mount's file takes the name of ours, which wasn't published. */
static struct icm_inode *yield_name(struct icm_volume *vol, struct icm_file *f,
				    const struct icm_fetched *there, struct icm_news *news)
{
	struct icm_name *name = f->inode->names;
	struct icm_inode *dir = icm_inode_ref(name->dir);
	ICM_AUTOFREE char *text = icm_xstrdup(name->text);

	icm_news_name(news, dir, text);
	icm_tree_remove(&vol->tree, name);
	name = icm_fetched_apply(vol, dir, text, there, news);
	if (!name)
		icm_volume_want_resync(vol); /* the feed's news of it was for ours to wait */
	icm_inode_unref(&vol->tree, dir);
	return name ? name->inode : NULL;
}

/* Our file was never published, and the name exists in the store. */
static int resolve_unpublished(struct icm_volume *vol, struct icm_file *f,
			       struct icm_publication *p, const struct icm_fetched *there,
			       struct icm_append_to *append)
{
	struct icm_news news = { 0 };
	struct icm_inode *winner;
	bool regular = S_ISREG(there->attr.mode);
	bool same = regular && there->attr.has_hash && there->attr.size == p->size &&
		    memcmp(&there->attr.hash, &p->hash, sizeof(p->hash)) == 0;
	bool tail;

	pthread_mutex_lock(&vol->lock);
	tail = regular && f->append_only && p->content;
	winner = yield_name(vol, f, there, &news);
	if (winner && regular)
		f->lock_ino = winner->attr.ino;
	if (tail && !same && winner) {
		append->to = icm_file_get(vol, winner);
		append->tail = icm_content_ref(p->content);
		append->pid = p->pid;
	}
	free(f->inode->last_path);
	f->inode->last_path = winner ? icm_inode_path(winner) : NULL;
	pthread_mutex_unlock(&vol->lock);
	icm_news_tell(vol, &news);
	if (!same && !append->to && p->size)
		return save_copy(vol, f, p);
	give_up_view(vol, f, append);
	return 0;
}

int icm_conflict_resolve(struct icm_volume *vol, struct icm_file *f, struct icm_publication *p,
			 struct icm_append_to *append)
{
	__attribute__((cleanup(icm_fetched_clear))) struct icm_fetched there = { 0 };
	struct icm_inode *dir = NULL;
	ICM_AUTOFREE char *text = NULL;
	bool removed, published, moved = false, same = false, append_only = false;
	int r = 0;

	pthread_mutex_lock(&vol->lock);
	if (f->inode->names) {
		dir = icm_inode_ref(f->inode->names->dir);
		text = icm_xstrdup(f->inode->names->text);
	}
	published = f->inode->published;
	pthread_mutex_unlock(&vol->lock);
	if (dir) {
		r = icm_dir_refresh(vol, dir);
		if (r == 0 || r == -ENOENT)
			r = icm_name_fetch(vol, dir, text, &there);
		if (r == 0 && !published)
			r = resolve_unpublished(vol, f, p, &there, append);
		else if (published && (r == 0 || r == -ENOENT))
			r = icm_name_place(vol, dir, text, &there);
		else if (r == -ENOENT && !published)
			r = ICM_CONFLICT_RETRY;
		pthread_mutex_lock(&vol->lock);
		if (r == ICM_CONFLICT_RETRY && !dir->names)
			r = -ENOENT; /* no directory any more to publish it in */
		icm_inode_unref(&vol->tree, dir);
		pthread_mutex_unlock(&vol->lock);
		if (!published && r == -ENOENT)
			return save_copy(vol, f, p);
		if (!published)
			return r;
		if (r < 0 && r != -ENOENT)
			return r == -EAGAIN ? ICM_CONFLICT_RETRY : r;
	}
	pthread_mutex_lock(&vol->lock);
	removed = f->inode->names == NULL;
	if (removed && !f->inode->last_path) {
		pthread_mutex_unlock(&vol->lock);
		return ICM_CONFLICT_GONE;
	}
	moved = f->inode->gen != f->version.gen;
	same = f->inode->attr.has_hash && f->inode->attr.size == p->size &&
	       memcmp(&f->inode->attr.hash, &p->hash, sizeof(p->hash)) == 0;
	append_only = f->append_only && f->data_is_work;
	if (!removed && moved && same)
		f->version = icm_inode_version(f->inode);
	/* the refusal may have been that key's: who adopts contents leaves it as it is */
	if (!removed)
		f->inode->names->tree_index = 0;
	pthread_mutex_unlock(&vol->lock);
	if (removed)
		return save_copy(vol, f, p);
	if (!moved || same)
		return ICM_CONFLICT_RETRY;
	return append_only ? rebase_append(vol, f) : save_copy(vol, f, p);
}

int icm_conflict_append(struct icm_volume *vol, struct icm_append_to *append)
{
	struct icm_file *f = append->to;
	struct timespec now = icm_wall_time();
	uint64_t end = 0;
	int r;

	pthread_mutex_lock(&f->io);
	r = icm_file_make_work(vol, f, false);
	if (r == 0) {
		end = icm_data_size(f->data);
		r = icm_data_write(f->data, append->tail->bytes, append->tail->len, end);
	}
	if (r == 0) {
		pthread_mutex_lock(&vol->lock);
		if (!f->dirty) {
			f->base_size = end;
			f->append_only = true;
		}
		f->dirty = f->written = true;
		f->dirty_size = end + append->tail->len;
		f->dirty_holes = icm_data_holes(f->data);
		f->dirty_time = now;
		f->changes++;
		pthread_mutex_unlock(&vol->lock);
	}
	pthread_mutex_unlock(&f->io);
	if (r == 0)
		r = icm_file_publish(vol, f, append->pid);
	icm_content_unref(append->tail);
	icm_fs_forget(&f->view, 1);
	return r;
}
