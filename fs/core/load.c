/* SPDX-License-Identifier: MIT
 * Contents from the store. Everything read is verified against its hash: what
 * doesn't fit gives EIO and one log line, never wrong bytes. */
#include <inttypes.h>
#include <string.h>

#include "core/change.h"
#include "core/key.h"
#include "core/look.h"
#include "core/shared.h"
#include "util/log.h"

static bool same_hash(const struct icm_sha256 *a, const struct icm_sha256 *b)
{
	return memcmp(a, b, sizeof(*a)) == 0;
}

int icm_load_blob(struct icm_volume *vol, const struct icm_sha256 *sum, size_t max,
		  void **ret_bytes, size_t *ret_len)
{
	struct icm_ctx ctx = icm_volume_ctx(vol);
	ICM_AUTOFREE char *key = icm_key_blob(sum);
	ICM_AUTOENTRY struct icm_entry e = { 0 };
	struct icm_sha256 found;
	int r = icm_backend_get(vol->be, &ctx, key, &e);

	if (r < 0)
		return r;
	found = icm_sha256(e.value, e.len);
	if (e.len > max || !same_hash(&found, sum)) {
		icm_log_err("'%s' is damaged: it has other bytes than its name says", key);
		return -EIO;
	}
	*ret_bytes = ICM_STEAL(&e.value);
	*ret_len = e.len;
	return 0;
}

/* tree/<path>, wherever a change has it that isn't over yet. */
static int get_live(struct icm_volume *vol, const char *path, struct icm_entry *ret)
{
	struct icm_ctx ctx = icm_volume_ctx(vol);
	ICM_AUTOFREE char *key = icm_key_tree(path);
	ICM_AUTOFREE char *there = NULL;
	ICM_AUTOFREE char *there_key = NULL;
	int r = icm_backend_get(vol->be, &ctx, key, ret);

	if (r != -ENOENT)
		return r;
	there = icm_change_elsewhere(vol, path);
	if (!there)
		return r;
	there_key = icm_key_tree(there);
	return icm_backend_get(vol->be, &ctx, there_key, ret);
}

/* Value of tree/<path> if it is what the hash says; -ESTALE otherwise. */
static int load_live(struct icm_volume *vol, const char *path, const struct icm_sha256 *hash,
		     struct icm_entry *ret)
{
	ICM_AUTOENTRY struct icm_entry e = { 0 };
	struct icm_sha256 found;
	int r = get_live(vol, path, &e);

	if (r < 0)
		return r == -ENOENT ? -ESTALE : r;
	found = icm_sha256(e.value, e.len);
	if (!same_hash(&found, hash))
		return -ESTALE;
	*ret = e;
	e = (struct icm_entry){ 0 };
	return 0;
}

int icm_load_plain(struct icm_volume *vol, const char *path, const struct icm_sha256 *hash,
		   size_t size, struct icm_content **ret, uint64_t *ret_index)
{
	ICM_AUTOENTRY struct icm_entry e = { 0 };
	ICM_AUTOFREE void *bytes = NULL;
	size_t len;
	int r = path ? load_live(vol, path, hash, &e) : -ESTALE;

	if (r == 0 && e.flags != ICM_FLAGS_PLAIN) {
		icm_log_err("'%s' has flags that no plain file has", path);
		return -EIO;
	}
	if (r == 0) {
		*ret_index = e.modify_index;
		*ret = icm_content_new(e.value, e.len);
	} else if (r == -ESTALE) {
		r = icm_load_blob(vol, hash, ICM_PLAIN_MAX, &bytes, &len);
		if (r < 0)
			return r == -ENOENT ? -ESTALE : r;
		*ret_index = 0;
		*ret = icm_content_new(bytes, len);
	} else {
		return r;
	}
	if ((*ret)->len != size) {
		icm_log_err("'%s' has %zu bytes, its attributes say %zu", path ? path : "a blob",
			    (*ret)->len, size);
		*ret = icm_content_unref(*ret);
		return -EIO;
	}
	return 0;
}

static int fetch_chunk(void *userdata, const struct icm_sha256 *sum, void *buf, size_t len)
{
	struct icm_volume *vol = userdata;
	ICM_AUTOFREE void *bytes = NULL;
	size_t got;
	int r = icm_load_blob(vol, sum, ICM_CHUNK_BYTES, &bytes, &got);

	if (r == -ENOENT || (r == 0 && got != len)) {
		icm_log_err("a chunk of a file is missing or has another length");
		return -EIO;
	}
	if (r == 0)
		memcpy(buf, bytes, len);
	return r;
}

/* The list of chunks, from the record or the blob it names. */
static int load_chunk_list(struct icm_volume *vol, struct icm_record *rec)
{
	ICM_AUTOFREE void *bytes = NULL;
	size_t len;
	int r;

	if (!rec->list_is_blob)
		return 0;
	r = icm_load_blob(vol, &rec->list, ICM_CHUNK_LIST_MAX, &bytes, &len);
	if (r == 0)
		r = icm_chunks_decode(bytes, len, icm_chunk_count(rec->size), &rec->chunks);
	if (r == 0)
		rec->n_chunks = icm_chunk_count(rec->size);
	return r == -ENOENT || r == -EPROTO ? -EIO : r;
}

/* Another program's, which knows no records. */
static bool is_large_plain(const struct icm_entry *e, const struct icm_version *v)
{
	return e->flags == ICM_FLAGS_PLAIN && e->len > ICM_PLAIN_MAX && e->len == v->size;
}

int icm_load_record(struct icm_volume *vol, const char *path, uint64_t linked_ino,
		    const struct icm_version *v, struct icm_record *ret,
		    struct icm_entry *ret_plain, uint64_t *ret_index)
{
	struct icm_ctx ctx = icm_volume_ctx(vol);
	ICM_AUTOENTRY struct icm_entry e = { 0 };
	int r;

	*ret_index = 0;
	if (linked_ino) {
		struct icm_inode_value value;
		ICM_AUTOFREE char *key = icm_key_inode(linked_ino);

		r = icm_backend_get(vol->be, &ctx, key, &e);
		if (r < 0)
			return r == -ENOENT ? -ESTALE : r;
		r = icm_inode_value_decode(e.value, e.len, &value);
		if (r < 0)
			return -EIO;
		if (!value.has_record || !same_hash(&value.attr.hash, &v->hash)) {
			icm_inode_value_clear(&value);
			return -ESTALE;
		}
		icm_attr_clear(&value.attr);
		*ret = value.record;
	} else {
		r = path ? load_live(vol, path, &v->hash, &e) : -ESTALE;
		if (r < 0)
			return r;
		if (is_large_plain(&e, v)) {
			*ret_index = e.modify_index;
			*ret_plain = e;
			e = (struct icm_entry){ 0 };
			return 0;
		}
		if (e.flags != ICM_FLAGS_RECORD || icm_record_decode(e.value, e.len, ret) < 0)
			return -EIO;
		*ret_index = e.modify_index;
	}
	if (ret->form != ICM_RECORD_CHUNKS || ret->size != v->size) {
		icm_record_clear(ret);
		return -EIO;
	}
	r = load_chunk_list(vol, ret);
	if (r < 0)
		icm_record_clear(ret);
	return r;
}

/* Where contents are: taken under volume->lock. */
struct place {
	char *path;	     /* owned; of a name that has the contents, or NULL */
	uint64_t linked_ino; /* contents are in inode/<ino> */
	struct icm_version version;
};

static void placep(struct place *p)
{
	free(p->path);
}

static void find_place(struct icm_volume *vol, struct icm_file *f, struct place *p)
{
	pthread_mutex_lock(&vol->lock);
	p->version = f->version;
	p->path = f->inode->attr.linked ? NULL : icm_inode_path(f->inode);
	p->linked_ino = f->inode->attr.linked ? f->view.ino : 0;
	pthread_mutex_unlock(&vol->lock);
}

/* The key's index is worth knowing: a commit checks it. */
static void learn_index(struct icm_volume *vol, struct icm_file *f, const struct place *p,
			uint64_t index)
{
	pthread_mutex_lock(&vol->lock);
	if (index && f->inode->names && !f->inode->attr.linked && f->inode->gen == p->version.gen)
		f->inode->names->tree_index = index;
	pthread_mutex_unlock(&vol->lock);
}

static struct icm_version version_of(struct icm_volume *vol, const struct icm_file *f)
{
	ICM_LOCK_SCOPE(&vol->lock);

	return f->version;
}

bool icm_file_is_loaded(struct icm_volume *vol, const struct icm_file *f, uint64_t off,
			uint64_t len)
{
	struct icm_version v;

	if (f->data_is_work)
		return !icm_data_needs_fetch(f->data, off, len);
	v = version_of(vol, f);
	if (v.size == 0)
		return true;
	if (v.size <= ICM_PLAIN_MAX)
		return f->base && f->base_gen == v.gen;
	return f->data && f->data_gen == v.gen && !icm_data_needs_fetch(f->data, off, len);
}

int icm_load_chunks(struct icm_volume *vol, struct icm_record *rec, struct icm_data **ret)
{
	int r = rec->chunks ? 0 : load_chunk_list(vol, rec);

	return r < 0 ? r
		     : icm_data_from_chunks(vol->work_dir, rec->size, rec->chunks, fetch_chunk, vol,
					    ret);
}

int icm_load_large(struct icm_volume *vol, const char *path, uint64_t linked_ino,
		   const struct icm_version *v, struct icm_data **ret, uint64_t *ret_index)
{
	ICM_AUTORECORD struct icm_record rec = { 0 };
	ICM_AUTOENTRY struct icm_entry plain = { 0 };
	int r = icm_load_record(vol, path, linked_ino, v, &rec, &plain, ret_index);

	if (r < 0)
		return r;
	if (!plain.key)
		return icm_load_chunks(vol, &rec, ret);
	*ret = icm_data_new(vol->work_dir);
	r = icm_data_write(*ret, plain.value, plain.len, 0);
	if (r < 0)
		*ret = icm_data_free(*ret);
	return r;
}

static int load(struct icm_volume *vol, struct icm_file *f)
{
	__attribute__((cleanup(placep))) struct place p = { 0 };
	uint64_t index = 0;
	int r;

	find_place(vol, f, &p);
	if (f->data_is_work || p.version.size == 0)
		return 0;
	if (p.version.size <= ICM_PLAIN_MAX) {
		struct icm_content *c;

		if (f->base && f->base_gen == p.version.gen)
			return 0;
		if (!p.version.has_hash)
			return -EIO;
		c = icm_look_contents(vol, f, &p.version.hash, p.version.size, &index);
		r = c ? 0
		      : icm_load_plain(vol, p.path, &p.version.hash, p.version.size, &c, &index);
		if (r < 0)
			return r;
		icm_content_unref(f->base);
		f->base = c;
		f->base_gen = p.version.gen;
	} else {
		struct icm_data *d;

		if (f->data && f->data_gen == p.version.gen)
			return 0;
		r = icm_load_large(vol, p.path, p.linked_ino, &p.version, &d, &index);
		if (r < 0)
			return r;
		icm_data_free(f->data);
		f->data = d;
		f->data_gen = p.version.gen;
	}
	learn_index(vol, f, &p, index);
	return 0;
}

int icm_file_load(struct icm_volume *vol, struct icm_file *f)
{
	ICM_AUTOFREE char *path = NULL;
	int r = load(vol, f);

	if (icm_error_is_away(r)) /* it may not have asked for anything */
		icm_volume_heard(vol, r);
	if (!vol->offline || (r != -ESTALE && r != -EIO))
		return r;
	/* nobody has replaced it: the copy has no more than it has */
	pthread_mutex_lock(&vol->lock);
	path = icm_inode_path(f->inode);
	pthread_mutex_unlock(&vol->lock);
	icm_log_err("'%s' can't be read: the store is away, and the local copy is without its "
		    "contents",
		    path ? path : "a file");
	return -EIO;
}

int icm_file_make_work(struct icm_volume *vol, struct icm_file *f, bool empty)
{
	struct icm_version v = version_of(vol, f);
	int r;

	if (f->data_is_work)
		return empty ? icm_data_truncate(f->data, 0) : 0;
	if (empty) {
		icm_data_free(f->data);
		f->data = icm_data_new(vol->work_dir);
	} else {
		r = icm_file_load(vol, f);
		if (r < 0)
			return r;
		if (v.size <= ICM_PLAIN_MAX) {
			icm_data_free(f->data);
			f->data = v.size ? icm_data_from_bytes(vol->work_dir, f->base->bytes,
							       f->base->len)
					 : icm_data_new(vol->work_dir);
		}
	}
	f->data_is_work = true;
	return 0;
}
