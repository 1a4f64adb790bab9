/* SPDX-License-Identifier: MIT
 * Publication: the working copy of a file becomes one new version, in one
 * transaction, or stays what it was. What happens when another mount was
 * faster is in conflict.c. */
#include "core/publish.h"

#include <string.h>

#include "core/apply.h"
#include "core/attr.h"
#include "core/feed.h"
#include "core/key.h"
#include "core/upload.h"
#include "util/clock.h"
#include "util/log.h"

void icm_publication_clear(struct icm_publication *p)
{
	icm_content_unref(p->content);
	icm_record_clear(&p->record);
	free(p->value);
	*p = (struct icm_publication){ 0 };
}

/* ---- contents ---- */

static int make_chunked(struct icm_volume *vol, struct icm_data *d, struct icm_publication *p)
{
	int r = icm_upload_chunks(vol, d);

	if (r < 0)
		return r;
	p->record.form = ICM_RECORD_CHUNKS;
	p->record.size = icm_data_size(d);
	p->record.chunks = icm_data_chunks(d, &p->record.n_chunks);
	if (p->record.n_chunks > ICM_CHUNKS_INLINE) {
		size_t len;
		ICM_AUTOFREE char *list =
			icm_chunks_encode(p->record.chunks, p->record.n_chunks, &len);

		p->record.list_is_blob = true;
		p->record.list = icm_sha256(list, len);
		r = icm_put_blob(vol, &p->record.list, list, len);
		if (r < 0)
			return r;
	}
	p->value = icm_record_encode(&p->record, &p->len);
	p->flags = ICM_FLAGS_RECORD;
	return 0;
}

int icm_record_of_bytes(struct icm_volume *vol, const void *bytes, size_t len,
			struct icm_record *ret)
{
	struct icm_publication p = { 0 };
	struct icm_data *d = icm_data_new(vol->work_dir);
	int r = icm_data_write(d, bytes, len, 0);

	if (r == 0)
		r = make_chunked(vol, d, &p);
	if (r == 0) {
		*ret = p.record;
		p.record = (struct icm_record){ 0 };
	}
	icm_publication_clear(&p);
	icm_data_free(d);
	return r;
}

static int make_plain(struct icm_data *d, struct icm_publication *p)
{
	void *bytes;
	int r = icm_data_bytes(d, &bytes, &p->len);

	if (r < 0)
		return r;
	p->value = bytes;
	p->content = icm_content_new(bytes, p->len);
	p->flags = ICM_FLAGS_PLAIN;
	return 0;
}

int icm_publication_make(struct icm_volume *vol, struct icm_file *f, struct icm_publication *p)
{
	int r;
	ICM_LOCK_SCOPE(&f->io);

	pthread_mutex_lock(&vol->lock);
	p->changes = f->changes;
	p->mtime = f->times_set ? f->set_mtime : f->dirty_time;
	p->ctime = f->dirty_time;
	p->atime_set = f->times_set;
	p->atime = f->set_atime;
	pthread_mutex_unlock(&vol->lock);
	if (!f->data_is_work)
		return -EIO;
	p->size = icm_data_size(f->data);
	r = icm_data_is_plain(f->data) ? make_plain(f->data, p) : make_chunked(vol, f->data, p);
	if (r == 0) {
		p->hash = icm_sha256(p->value, p->len);
		p->holes = icm_data_is_plain(f->data) ? 0 : icm_data_holes(f->data);
	}
	return r;
}

/* ---- the transaction ---- */

/* Facts of the file, taken under volume->lock. */
struct target {
	char *path, *dir;	    /* owned; dir: of its first name */
	struct icm_attr attr;	    /* owned copy; as published */
	struct icm_version version; /* that the working copy is based on */
	uint64_t attr_index, tree_index, inode_index, dir_attr_index, gen, lock_epoch;
	bool published, gone, base_moved;
};

static void target_clear(struct target *t)
{
	free(t->path);
	free(t->dir);
	icm_attr_clear(&t->attr);
}

static void read_target(struct icm_volume *vol, struct icm_file *f, struct target *t)
{
	struct icm_inode *inode = f->inode;
	ICM_LOCK_SCOPE(&vol->lock);

	*t = (struct target){ 0 };
	icm_attr_copy(&t->attr, &inode->attr);
	t->version = f->version;
	t->gen = inode->gen;
	t->published = inode->published;
	t->lock_epoch = icm_inode_is_locked(inode) ? vol->lock_epoch : 0;
	t->base_moved = inode->published && f->version.gen != inode->gen;
	t->path = icm_inode_path(inode);
	t->inode_index = inode->index;
	t->gone = !t->path;
	if (t->gone)
		return;
	t->attr_index = inode->names->attr_index;
	t->tree_index = inode->names->tree_index;
	t->dir = icm_inode_path(inode->names->dir);
	t->dir_attr_index = inode->names->dir->names->attr_index;
}

static int add_old_version(struct icm_volume *vol, struct icm_file *f, struct target *t,
			   struct icm_part *part)
{
	struct icm_content *plain = NULL;
	ICM_AUTORECORD struct icm_record record = { 0 };
	ICM_AUTOENTRY struct icm_entry large = { 0 };
	uint64_t index = 0, linked = t->attr.linked ? f->view.ino : 0;
	int r = 0;

	pthread_mutex_lock(&f->io);
	if (f->base && f->base_gen == t->gen)
		plain = icm_content_ref(f->base);
	pthread_mutex_unlock(&f->io);
	if (plain && !linked && !t->tree_index) {
		r = icm_tree_key_index(vol, t->path, t->attr_index, &t->tree_index);
		if (r < 0) {
			icm_content_unref(plain);
			return r;
		}
	}
	if (plain)
		index = t->tree_index;
	else if (t->attr.size <= ICM_PLAIN_MAX)
		r = icm_load_plain(vol, linked ? NULL : t->path, &t->attr.hash, t->attr.size,
				   &plain, &index);
	else
		r = icm_load_record(
			vol, t->path, linked,
			&(struct icm_version){ .size = t->attr.size, .hash = t->attr.hash },
			&record, &large, &index);
	if (r == 0 && large.key)
		r = icm_record_of_bytes(vol, large.value, large.len, &record);
	if (r == -EIO) {
		/* a damaged file may be overwritten; there is nothing to keep */
		icm_log_err("'%s' is replaced, its former contents are damaged", t->path);
		return 0;
	}
	if (r < 0)
		return r;
	if (index)
		t->tree_index = index;
	icm_part_history(vol, part, t->path, linked ? t->inode_index : t->tree_index, &t->attr,
			 plain, plain ? NULL : &record, icm_wall_time());
	icm_content_unref(plain);
	return 0;
}

int icm_tree_key_index(struct icm_volume *vol, const char *path, uint64_t attr_index,
		       uint64_t *ret_index)
{
	struct icm_ctx ctx = icm_volume_ctx(vol);
	ICM_AUTOFREE char *key = icm_key_tree(path);
	ICM_AUTOENTRY struct icm_entry e = { 0 };
	int r = icm_backend_get(vol->be, &ctx, key, &e);

	if (r == 0 && e.modify_index > attr_index)
		return -ESTALE; /* another program's */
	if (r == 0)
		*ret_index = e.modify_index;
	return r == -ENOENT ? -ESTALE : r;
}

/* The attributes of the new version. */
static void new_attr(const struct target *t, const struct icm_publication *p, struct icm_attr *a)
{
	icm_attr_copy(a, &t->attr);
	a->size = p->size;
	a->holes = p->holes;
	a->has_hash = true;
	a->hash = p->hash;
	a->mtime = p->mtime;
	/* a change of attributes meanwhile may have been later */
	if (icm_timespec_cmp(a->ctime, p->ctime) < 0)
		a->ctime = p->ctime;
	if (p->atime_set)
		a->atime = p->atime;
	icm_random_id(a->id);
}

static void add_linked(struct icm_part *part, const struct target *t, const struct icm_attr *attr,
		       struct icm_publication *p)
{
	struct icm_inode_value v = { .attr = *attr,
				     .has_record = p->flags == ICM_FLAGS_RECORD,
				     .record = p->record };
	size_t len;
	char *json = icm_inode_value_encode(&v, &len);

	icm_part_cas(part, icm_key_inode(attr->ino), t->inode_index, json, len, 0);
	if (!v.has_record)
		icm_part_set(part, icm_key_blob(&p->hash), icm_xmemdup(p->value, p->len), p->len,
			     0);
}

static int build(struct icm_volume *vol, struct icm_file *f, struct target *t,
		 struct icm_publication *p, struct icm_attr *attr, struct icm_part *part)
{
	size_t len;
	char *json;
	int r = 0;

	new_attr(t, p, attr);
	if (!t->published) {
		icm_part_names_change(part, t->dir, t->dir_attr_index, p->ctime);
	} else if (!p->same) {
		r = add_old_version(vol, f, t, part);
		if (r == 0 && !t->tree_index && !attr->linked)
			r = icm_tree_key_index(vol, t->path, t->attr_index, &t->tree_index);
	}
	if (r < 0)
		return r;
	if (attr->linked) {
		add_linked(part, t, attr, p);
	} else {
		json = icm_attr_encode(attr, &len);
		if (!p->same)
			icm_part_cas(part, icm_key_tree(t->path), t->tree_index,
				     icm_xmemdup(p->value, p->len), p->len, p->flags);
		icm_part_cas(part, icm_key_attr(t->path), t->attr_index, json, len, 0);
	}
	icm_part_change(part,
			!t->published ? ICM_CHANGE_CREATE
			: p->same     ? ICM_CHANGE_ATTR
				      : ICM_CHANGE_WRITE,
			t->path, NULL, p->ctime, attr);
	return 0;
}

/* ---- afterwards ---- */

/* The working copy up to p->changes is version `gen` now; io and volume->lock held. */
static void settle_working_copy(struct icm_file *f, struct icm_publication *p)
{
	bool more = f->changes != p->changes;

	f->dirty = f->written = more;
	f->published_changes = p->changes;
	f->times_set = f->times_set && more;
	f->append_only = more && f->append_only;
	f->base_size = p->size;
	f->pages_gen = f->version.gen;
	if (p->content) {
		icm_content_unref(f->base);
		f->base = icm_content_ref(p->content);
		f->base_gen = f->version.gen;
	}
	if (more)
		return;
	f->data_is_work = false;
	f->data_gen = f->version.gen;
	if (p->content)
		f->data = icm_data_free(f->data);
}

/* The view shows what it has published, whoever told the tree about it; if the
 * tree knows a later version already, the view is an old one. */
static void show_published(struct icm_volume *vol, struct icm_file *f,
			   const struct icm_publication *p, const struct icm_attr *attr)
{
	const struct icm_attr *now = &f->inode->attr;

	if (f->inode->names && now->size == p->size && now->has_hash &&
	    memcmp(&now->hash, &p->hash, sizeof(p->hash)) == 0) {
		f->version = icm_inode_version(f->inode);
		return;
	}
	f->version = (struct icm_version){ .gen = ++vol->next_gen,
					   .size = p->size,
					   .holes = p->holes,
					   .mtime = attr->mtime,
					   .ctime = attr->ctime,
					   .has_hash = true,
					   .hash = p->hash };
	if (f->inode->names && !f->frozen)
		icm_file_freeze(vol, f);
}

static void published(struct icm_volume *vol, struct icm_file *f, struct icm_publication *p,
		      struct icm_attr *attr, uint64_t index)
{
	struct icm_inode *inode = f->inode;
	struct icm_news news = { 0 };

	pthread_mutex_lock(&f->io);
	pthread_mutex_lock(&vol->lock);
	if (!inode->published && inode->names)
		icm_apply_dir_time(inode->names->dir, p->ctime, index, &news);
	if (attr->linked ? inode->index < index
			 : inode->names && icm_name_told_index(inode->names) < index)
		icm_apply_attr(vol, inode, attr, f, &news);
	show_published(vol, f, p, attr);
	if (attr->linked) {
		inode->index = inode->index < index ? index : inode->index;
	} else if (inode->names && inode->names->attr_index < index) {
		inode->names->attr_index = index;
		if (!p->same)
			inode->names->tree_index = index;
	}
	settle_working_copy(f, p);
	icm_feed_own_commit(vol, index);
	pthread_mutex_unlock(&vol->lock);
	pthread_mutex_unlock(&f->io);
	icm_news_tell(vol, &news);
}

/* The file has no name any more: what was written to it goes with it. */
static void discard(struct icm_volume *vol, struct icm_file *f)
{
	pthread_mutex_lock(&vol->lock);
	f->written = false; /* handles go on reading and writing the working copy */
	pthread_mutex_unlock(&vol->lock);
}

/* A conflict took the view's bytes elsewhere: were they all that was written? What
 * was written under a lost lock is never published. */
static int given_up(struct icm_volume *vol, struct icm_file *f)
{
	ICM_LOCK_SCOPE(&vol->lock);

	if (f->lost)
		return -EIO;
	return f->conflict && f->changes != f->published_changes ? -ESTALE : 0;
}

static bool is_dirty(struct icm_volume *vol, struct icm_file *f)
{
	ICM_LOCK_SCOPE(&vol->lock);

	return f->dirty && !f->conflict;
}

/* One attempt; -ESTALE: look again, somebody else was faster. */
static int publish_once(struct icm_volume *vol, struct icm_file *f, struct icm_publication *p)
{
	__attribute__((cleanup(target_clear))) struct target t;
	ICM_AUTOATTR struct icm_attr attr = { 0 };
	ICM_AUTOPART struct icm_part part = ICM_PART_INIT;
	int r;

	read_target(vol, f, &t);
	if (t.gone || t.base_moved)
		return -ESTALE;
	p->same = t.published && t.attr.has_hash && t.attr.size == p->size &&
		  memcmp(&t.attr.hash, &p->hash, sizeof(p->hash)) == 0;
	part.pid = p->pid;
	part.lock_epoch = t.lock_epoch;
	r = build(vol, f, &t, p, &attr, &part);
	if (r == 0)
		r = icm_commit(vol, &part);
	if (r == 0)
		published(vol, f, p, &attr, part.index);
	return r;
}

/* Another mount on a faster host may be first many times in turn. */
static bool may_try(int tries, int64_t deadline_ns)
{
	struct timespec pause = { .tv_nsec = (long)(icm_random_u64() % (5 * ICM_NS_PER_MS)) };

	if (tries < ICM_CONFLICT_TRIES)
		return true;
	nanosleep(&pause, NULL);
	return icm_now_ns() < deadline_ns;
}

int icm_file_publish(struct icm_volume *vol, struct icm_file *f, pid_t pid)
{
	struct icm_ctx ctx = icm_volume_ctx(vol);
	int r = -ESTALE;
	struct icm_append_to append = { 0 };

	pthread_mutex_lock(&f->commit);
	for (int tries = 0; r == -ESTALE && may_try(tries, ctx.deadline_ns); tries++) {
		__attribute__((cleanup(icm_publication_clear))) struct icm_publication p = { 0 };

		r = given_up(vol, f);
		if (r < 0 || !is_dirty(vol, f))
			break;
		p.pid = pid;
		r = icm_publication_make(vol, f, &p);
		if (r == 0)
			r = publish_once(vol, f, &p);
		if (r != -ESTALE)
			break;
		r = icm_conflict_resolve(vol, f, &p, &append);
		if (r == ICM_CONFLICT_RETRY)
			r = -ESTALE;
		else if (r == ICM_CONFLICT_GONE)
			discard(vol, f), r = 0;
		else
			break;
		if (r == 0)
			break;
	}
	pthread_mutex_unlock(&f->commit);
	if (append.to)
		r = icm_conflict_append(vol, &append);
	return r;
}
