/* SPDX-License-Identifier: MIT
 * The tree of a store: names, attributes, records and contents against each
 * other. What another program wrote into the store is legal and noted: a plain
 * file without attributes, or one that is newer than its attributes. */
#include "core/check-state.h"

#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

#include "core/key.h"

#define ERROR(c, key, ...) icm_check_add(c, ICM_SEVERITY_ERROR, key, __VA_ARGS__)
#define WARN(c, key, ...)  icm_check_add(c, ICM_SEVERITY_WARNING, key, __VA_ARGS__)
#define NOTE(c, key, ...)  icm_check_add(c, ICM_SEVERITY_NOTE, key, __VA_ARGS__)

#define NOT_CANONICAL "not the one spelling of a name: not shown in mounts"

static int compare_key(const void *key, const void *name)
{
	return strcmp(key, ((const struct icm_check_name *)name)->key);
}

static const struct icm_check_name *find_name(const struct icm_check *c, const char *path)
{
	ICM_AUTOFREE char *key = icm_key_attr(path);

	return c->n_names ? bsearch(key, c->names, c->n_names, sizeof(*c->names), compare_key)
			  : NULL;
}

/* An attr/ key is there, decodable or not. */
static bool has_attr_key(const struct icm_check *c, const char *path)
{
	ICM_AUTOFREE char *key = icm_key_attr(path);

	return icm_check_key(c, key);
}

/* ---- contents ---- */

static void check_blob(struct icm_check *c, const char *key, const struct icm_sha256 *sum,
		       uint64_t len, const char *what)
{
	const struct icm_check_blob *b = icm_check_use_blob(c, sum);
	char hex[ICM_SHA256_HEX + 1];

	icm_sha256_to_hex(sum, hex);
	if (!b)
		ERROR(c, key, "%s: blob/%s is missing", what, hex);
	else if (b->damaged)
		ERROR(c, key, "%s: blob/%s is damaged", what, hex);
	else if (len != UINT64_MAX && b->len != len)
		ERROR(c, key, "%s: blob/%s has %" PRIu64 " bytes, not %" PRIu64, what, hex, b->len,
		      len);
}

static void check_chunks(struct icm_check *c, const char *key, uint64_t size,
			 const struct icm_chunk *chunks, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		uint64_t left = size - i * ICM_CHUNK_BYTES;
		char what[32];

		if (chunks[i].hole)
			continue;
		snprintf(what, sizeof(what), "chunk %zu", i);
		check_blob(c, key, &chunks[i].sum, left < ICM_CHUNK_BYTES ? left : ICM_CHUNK_BYTES,
			   what);
	}
}

/* A list of chunks that is a blob of its own. */
static int check_chunk_list(struct icm_check *c, const char *key, const struct icm_record *rec)
{
	ICM_AUTOFREE char *blob = icm_key_blob(&rec->list);
	ICM_AUTOFREE struct icm_chunk *chunks = NULL;
	ICM_AUTOENTRY struct icm_entry e = { 0 };
	size_t want = icm_chunk_count(rec->size);
	const struct icm_check_blob *b = icm_check_use_blob(c, &rec->list);
	int r;

	check_blob(c, key, &rec->list, UINT64_MAX, "list of chunks");
	if (!b || b->damaged)
		return 0;
	r = icm_check_read(c, blob, &e);
	if (r <= 0)
		return r;
	if (icm_chunks_decode(e.value, e.len, want, &chunks) < 0) {
		ERROR(c, key, "list of chunks: not one of %zu chunks", want);
		return 0;
	}
	check_chunks(c, key, rec->size, chunks, want);
	return 0;
}

int icm_check_record_blobs(struct icm_check *c, const char *key, const struct icm_record *rec)
{
	if (rec->form != ICM_RECORD_CHUNKS)
		return 0;
	if (rec->list_is_blob)
		return check_chunk_list(c, key, rec);
	check_chunks(c, key, rec->size, rec->chunks, rec->n_chunks);
	return 0;
}

static void add_hash(struct icm_check *c, const struct icm_attr *a)
{
	if (!a->has_hash)
		return;
	if (c->n_hashes == c->cap_hashes) {
		c->cap_hashes = c->cap_hashes ? 2 * c->cap_hashes : 256;
		c->hashes = icm_xrealloc(c->hashes, c->cap_hashes * sizeof(*c->hashes));
	}
	c->hashes[c->n_hashes++] = a->hash;
}

/* What an inode or an earlier version consists of: a record, or one blob. */
static int check_stored(struct icm_check *c, const char *key, const struct icm_attr *attr,
			const struct icm_record *rec)
{
	if (rec) {
		if (rec->form == ICM_RECORD_SYMLINK && attr->size != strlen(rec->target))
			ERROR(c, key, "size is not the length of the link's target");
		return icm_check_record_blobs(c, key, rec);
	}
	if (attr->size > ICM_PLAIN_MAX)
		ERROR(c, key, "%" PRIu64 " bytes without a list of chunks", attr->size);
	if (attr->size > 0) /* nothing needs no blob */
		check_blob(c, key, &attr->hash, attr->size, "contents");
	return 0;
}

static void check_hash(struct icm_check *c, const char *key, const struct icm_attr *attr,
		       const struct icm_entry *e)
{
	struct icm_sha256 sum = icm_sha256(e->value, e->len);

	if (!attr->has_hash)
		ERROR(c, key, "its attributes have no hash");
	else if (memcmp(&sum, &attr->hash, sizeof(sum)) != 0)
		ERROR(c, key, "the value has another sha256 than its attributes say");
}

static void check_plain(struct icm_check *c, const char *key, const struct icm_attr *attr,
			const struct icm_entry *e)
{
	if (!S_ISREG(attr->mode) || attr->linked)
		ERROR(c, key, "plain bytes, but its attributes are of another kind of file");
	else if (attr->size != e->len)
		ERROR(c, key, "%zu bytes, but its attributes say %" PRIu64, e->len, attr->size);
	else
		check_hash(c, key, attr, e);
}

/* The kind of a record against the type in the attributes. */
static bool form_fits(const struct icm_record *rec, const struct icm_attr *attr)
{
	switch (rec->form) {
	case ICM_RECORD_LINK:
		return attr->linked && attr->ino == rec->ino;
	case ICM_RECORD_CHUNKS:
		return !attr->linked && S_ISREG(attr->mode);
	case ICM_RECORD_SYMLINK:
		return !attr->linked && S_ISLNK(attr->mode);
	case ICM_RECORD_SPECIAL:
		return !attr->linked && !S_ISREG(attr->mode) && !S_ISLNK(attr->mode) &&
		       !S_ISDIR(attr->mode);
	}
	return false;
}

static int check_record(struct icm_check *c, const char *key, const struct icm_attr *attr,
			const struct icm_entry *e)
{
	ICM_AUTORECORD struct icm_record rec = { 0 };

	if (icm_record_decode(e->value, e->len, &rec) < 0) {
		ERROR(c, key, "not a valid record");
		return 0;
	}
	if (!form_fits(&rec, attr)) {
		ERROR(c, key, "the record doesn't fit the kind of file in its attributes");
		return 0;
	}
	if (rec.form == ICM_RECORD_CHUNKS && rec.size != attr->size)
		ERROR(c, key, "the record says %" PRIu64 " bytes, its attributes %" PRIu64,
		      rec.size, attr->size);
	if (rec.form == ICM_RECORD_SYMLINK && strlen(rec.target) != attr->size)
		ERROR(c, key, "size is not the length of the link's target");
	if (rec.form == ICM_RECORD_CHUNKS)
		check_hash(c, key, attr, e);
	return icm_check_record_blobs(c, key, &rec);
}

/* ---- tree/ ---- */

/* There are names below tree/<path>/. */
static bool has_below(const struct icm_check *c, const char *path)
{
	ICM_AUTOFREE char *key = icm_key_tree_dir(path);
	size_t i = icm_check_position(c, key);

	return i < c->keys.n && !strncmp(c->keys.v[i].key, key, strlen(key));
}

/* What a mount makes a file of: bytes, or the copy of a record. A listing of keys may
 * tell no flags: `e` was read. */
static bool can_be_adopted(const struct icm_entry *e)
{
	ICM_AUTORECORD struct icm_record rec = { 0 };

	if (e->flags != ICM_FLAGS_RECORD)
		return e->flags == ICM_FLAGS_PLAIN;
	return icm_record_decode(e->value, e->len, &rec) == 0 &&
	       (rec.form == ICM_RECORD_CHUNKS || rec.form == ICM_RECORD_SYMLINK);
}

static int note_foreign(struct icm_check *c, const struct icm_entry *e)
{
	ICM_AUTORECORD struct icm_record rec = { 0 };

	NOTE(c, e->key, "written by another program, not yet seen by a mount");
	if (e->flags != ICM_FLAGS_RECORD || icm_record_decode(e->value, e->len, &rec) < 0)
		return 0;
	return icm_check_record_blobs(c, e->key, &rec);
}

/* A tree/<path> without a usable attr/<path>. */
static int check_foreign(struct icm_check *c, const struct icm_entry *listed, const char *path)
{
	ICM_AUTOENTRY struct icm_entry e = { 0 };
	int r;

	if (has_attr_key(c, path))
		return 0; /* the attributes are reported by themselves */
	c->report->files++;
	if (has_below(c, path)) {
		WARN(c, listed->key, "hidden by the directory of the same name");
		return 0;
	}
	r = icm_check_read(c, listed->key, &e);
	if (r <= 0)
		return r;
	if (can_be_adopted(&e))
		return note_foreign(c, &e);
	ERROR(c, e.key, "written by another program, and no valid file");
	return 0;
}

static int check_file_key(struct icm_check *c, const struct icm_entry *listed, const char *path)
{
	const struct icm_check_name *name = find_name(c, path);
	ICM_AUTOENTRY struct icm_entry e = { 0 };
	int r;

	if (!name)
		return check_foreign(c, listed, path);
	if (S_ISDIR(name->attr.mode)) {
		WARN(c, listed->key, "hidden by the directory of the same name");
		return 0;
	}
	r = icm_check_read(c, listed->key, &e);
	if (r <= 0)
		return r;
	if (e.modify_index > name->index && can_be_adopted(&e))
		return note_foreign(c, &e);
	if (e.flags == ICM_FLAGS_RECORD)
		return check_record(c, e.key, &name->attr, &e);
	if (e.flags == ICM_FLAGS_PLAIN)
		check_plain(c, e.key, &name->attr, &e);
	else
		ERROR(c, e.key, "unknown flags %#" PRIx64, e.flags);
	return 0;
}

static int check_dir_key(struct icm_check *c, const struct icm_entry *listed, const char *path)
{
	const struct icm_check_name *name = find_name(c, path);
	ICM_AUTOENTRY struct icm_entry e = { 0 };
	struct icm_dir_times times;
	bool valid;
	int r = icm_check_read(c, listed->key, &e);

	if (r <= 0)
		return r;
	valid = icm_dir_times_decode(e.value, e.len, &times) >= 0;
	if (name && !S_ISDIR(name->attr.mode))
		ERROR(c, e.key, "a directory, but its attributes are of another kind");
	else if (name && !valid)
		ERROR(c, e.key, "not valid times of a directory");
	else if (!name && valid && !has_attr_key(c, path))
		ERROR(c, e.key, "a directory without attributes");
	else if (!name && !valid)
		NOTE(c, e.key, "made by another program, not yet seen by a mount");
	return 0;
}

static int check_tree_key(struct icm_check *c, const struct icm_entry *e)
{
	const char *encoded = e->key + strlen("tree/");
	size_t len = strlen(encoded);
	bool is_dir = len == 0 || encoded[len - 1] == '/';
	ICM_AUTOFREE char *text = icm_xstrndup(encoded, is_dir && len ? len - 1 : len);
	ICM_AUTOFREE char *path = NULL;

	if (icm_key_decode(text, &path) < 0 || (is_dir && len && !*path)) {
		WARN(c, e->key, NOT_CANONICAL);
		return 0;
	}
	return is_dir ? check_dir_key(c, e, path) : check_file_key(c, e, path);
}

/* ---- attr/ ---- */

static void check_parent(struct icm_check *c, const struct icm_check_name *name)
{
	ICM_AUTOFREE char *parent = icm_xstrdup(name->path);
	char *slash = strrchr(parent, '/');
	const struct icm_check_name *dir;

	if (!*name->path)
		return;
	parent[slash ? slash - parent : 0] = '\0';
	dir = find_name(c, parent);
	if (dir && !S_ISDIR(dir->attr.mode))
		ERROR(c, name->key, "the name above it is not a directory");
	else if (!dir && !has_attr_key(c, parent) && !icm_check_in_transit(c, name->path))
		ERROR(c, name->key, "the directory above it is missing");
}

static void check_pair(struct icm_check *c, const struct icm_check_name *name)
{
	bool is_dir = S_ISDIR(name->attr.mode);
	ICM_AUTOFREE char *key = is_dir ? icm_key_tree_dir(name->path) : icm_key_tree(name->path);

	if (!icm_check_key(c, key) && !icm_check_in_transit(c, name->path))
		ERROR(c, name->key, "%s is missing", key);
}

static void check_attr(struct icm_check *c, const struct icm_check_name *name)
{
	const struct icm_attr *a = &name->attr;
	bool is_root = !*name->path;

	check_pair(c, name);
	check_parent(c, name);
	if (is_root && (!S_ISDIR(a->mode) || a->ino != ICM_INO_ROOT))
		ERROR(c, name->key, "the root is not directory number %d", ICM_INO_ROOT);
	else if (!is_root && a->ino < ICM_INO_FIRST)
		ERROR(c, name->key, "inode number %" PRIu64 " is reserved", a->ino);
	if (a->linked) {
		ICM_AUTOFREE char *inode = icm_key_inode(a->ino);

		if (!icm_check_key(c, inode))
			ERROR(c, name->key, "%s is missing", inode);
	}
	if (a->mark) {
		ICM_AUTOFREE char *change = icm_asprintf("change/%s", a->mark);

		if (!icm_check_key(c, change))
			ERROR(c, name->key, "part of a change that isn't there: %s", change);
	}
	if (S_ISDIR(a->mode))
		c->report->dirs++;
	else
		c->report->files++;
}

static int add_name(struct icm_check *c, const char *key)
{
	ICM_AUTOENTRY struct icm_entry e = { 0 };
	struct icm_check_name name = { .key = key };
	int r = icm_check_read(c, key, &e);

	if (r <= 0)
		return r;
	if (icm_key_decode(key + strlen("attr/"), &name.path) < 0) {
		WARN(c, key, NOT_CANONICAL);
		return 0;
	}
	if (icm_attr_decode(e.value, e.len, &name.attr) < 0) {
		ERROR(c, key, "not valid attributes");
		free(name.path);
		return 0;
	}
	name.index = e.modify_index;
	add_hash(c, &name.attr);
	c->names = icm_xrealloc(c->names, (c->n_names + 1) * sizeof(*c->names));
	c->names[c->n_names++] = name;
	return 0;
}

/* ---- inode/ and numbers ---- */

static int compare_ino(const void *a, const void *b)
{
	const struct icm_check_name *x = *(const struct icm_check_name *const *)a;
	const struct icm_check_name *y = *(const struct icm_check_name *const *)b;

	if (x->attr.ino != y->attr.ino)
		return x->attr.ino < y->attr.ino ? -1 : 1;
	return strcmp(x->key, y->key);
}

/* Fresh array of the names in order of their numbers. */
static const struct icm_check_name **names_by_ino(const struct icm_check *c)
{
	const struct icm_check_name **v = icm_xcalloc(c->n_names, sizeof(*v));

	for (size_t i = 0; i < c->n_names; i++)
		v[i] = &c->names[i];
	if (c->n_names)
		qsort(v, c->n_names, sizeof(*v), compare_ino);
	return v;
}

static void check_numbers(struct icm_check *c, const struct icm_check_name **v)
{
	for (size_t i = 1; i < c->n_names; i++)
		if (v[i]->attr.ino == v[i - 1]->attr.ino &&
		    !(v[i]->attr.linked && v[i - 1]->attr.linked))
			ERROR(c, v[i]->key, "has the inode number %" PRIu64 " of %s",
			      v[i]->attr.ino, v[i - 1]->key);
}

/* Names of a linked file; a name of another type than its inode is reported. */
static uint32_t count_links(struct icm_check *c, const struct icm_check_name **v,
			    const struct icm_attr *inode)
{
	uint32_t n = 0;

	for (size_t i = 0; i < c->n_names; i++) {
		const struct icm_attr *a = &v[i]->attr;

		if (a->ino != inode->ino || !a->linked)
			continue;
		if ((a->mode & S_IFMT) != (inode->mode & S_IFMT))
			ERROR(c, v[i]->key, "is of another type than its inode");
		n++;
	}
	return n;
}

static int check_inode(struct icm_check *c, const char *key, const struct icm_check_name **v)
{
	ICM_CLEANUP(icm_inode_value_clear) struct icm_inode_value value = { 0 };
	ICM_AUTOENTRY struct icm_entry e = { 0 };
	uint64_t ino;
	uint32_t links;
	int r;

	if (icm_key_parse_ino(key, "inode/", &ino) < 0) {
		WARN(c, key, "not the name of an inode");
		return 0;
	}
	r = icm_check_read(c, key, &e);
	if (r <= 0)
		return r;
	if (icm_inode_value_decode(e.value, e.len, &value) < 0) {
		ERROR(c, key, "not a valid inode");
		return 0;
	}
	if (value.attr.ino != ino)
		ERROR(c, key, "says that it is inode %" PRIu64, value.attr.ino);
	links = count_links(c, v, &value.attr);
	if (links != value.attr.nlink)
		ERROR(c, key, "has %" PRIu32 " names, but says %" PRIu32, links, value.attr.nlink);
	return check_stored(c, key, &value.attr, value.has_record ? &value.record : NULL);
}

/* ---- hist/ ---- */

static int check_hist(struct icm_check *c, const char *key)
{
	ICM_CLEANUP(icm_hist_clear) struct icm_hist h = { 0 };
	ICM_AUTOENTRY struct icm_entry e = { 0 };
	ICM_AUTOFREE char *path = NULL;
	uint64_t index;
	int r;

	if (icm_key_parse_hist(key, &path, &index) < 0) {
		WARN(c, key, "not the name of an earlier version");
		return 0;
	}
	r = icm_check_read(c, key, &e);
	if (r <= 0)
		return r;
	if (icm_hist_decode(e.value, e.len, &h) < 0) {
		ERROR(c, key, "not a valid earlier version");
		return 0;
	}
	add_hash(c, &h.attr);
	return check_stored(c, key, &h.attr, h.plain ? NULL : &h.record);
}

/* ---- */

static bool has_prefix(const char *key, const char *prefix)
{
	return !strncmp(key, prefix, strlen(prefix));
}

static int read_names(struct icm_check *c)
{
	int r = 0;

	for (size_t i = 0; r >= 0 && i < c->keys.n; i++)
		if (has_prefix(c->keys.v[i].key, "attr/"))
			r = add_name(c, c->keys.v[i].key);
	return r;
}

static int check_keys(struct icm_check *c, const struct icm_check_name **by_ino)
{
	int r = 0;

	for (size_t i = 0; r >= 0 && i < c->keys.n; i++) {
		const struct icm_entry *e = &c->keys.v[i];

		if (has_prefix(e->key, "tree/"))
			r = check_tree_key(c, e);
		else if (has_prefix(e->key, "inode/"))
			r = check_inode(c, e->key, by_ino);
		else if (has_prefix(e->key, "hist/"))
			r = check_hist(c, e->key);
	}
	return r;
}

int icm_check_files(struct icm_check *c)
{
	const struct icm_check_name **by_ino;
	int r = read_names(c);

	if (r < 0)
		return r;
	for (size_t i = 0; i < c->n_names; i++)
		check_attr(c, &c->names[i]);
	by_ino = names_by_ino(c);
	check_numbers(c, by_ino);
	r = check_keys(c, by_ino);
	free(by_ino);
	return r;
}

void icm_check_files_clear(struct icm_check *c)
{
	for (size_t i = 0; i < c->n_names; i++) {
		free(c->names[i].path);
		icm_attr_clear(&c->names[i].attr);
	}
	free(c->names);
	free(c->hashes);
	c->names = NULL;
	c->hashes = NULL;
	c->n_names = c->n_hashes = 0;
}
