/* SPDX-License-Identifier: MIT
 * A snapshot that is read: its tree from the manifest, and contents by hash. */
#include "core/snapshot.h"

#include <string.h>

#include "core/history.h"
#include "util/log.h"

/* ---- its tree ---- */

static struct icm_snapshot_record *find_record(const struct icm_snapshot *s,
					       const struct icm_inode *inode)
{
	struct icm_map_node *n = icm_map_first(&s->records, icm_hash_u64((uintptr_t)inode));

	for (; n; n = icm_map_next(n))
		if (((struct icm_snapshot_record *)n)->inode == inode)
			return (struct icm_snapshot_record *)n;
	return NULL;
}

const struct icm_record *icm_snapshot_record(const struct icm_snapshot *s,
					     const struct icm_inode *inode)
{
	const struct icm_snapshot_record *r = find_record(s, inode);

	return r ? &r->record : NULL;
}

static void keep_record(struct icm_snapshot *s, const struct icm_inode *inode,
			struct icm_record *record)
{
	struct icm_snapshot_record *r = icm_xcalloc(1, sizeof(*r));

	r->inode = inode;
	r->record = *record;
	*record = (struct icm_record){ 0 };
	icm_map_add(&s->records, &r->node, icm_hash_u64((uintptr_t)inode));
}

static void free_records(struct icm_map *records)
{
	for (size_t i = 0; i < records->n_buckets; i++) {
		for (struct icm_map_node *n = records->buckets[i], *next; n; n = next) {
			next = n->next;
			icm_record_clear(&((struct icm_snapshot_record *)n)->record);
			free(n);
		}
	}
	icm_map_free(records);
}

/* The inode of an entry: a new one, or that of an earlier name of a linked file. */
static struct icm_inode *inode_of_entry(struct icm_snapshot *s, struct icm_snap_entry *e)
{
	struct icm_inode *inode = e->attr.linked ? icm_tree_inode(&s->tree, e->attr.ino) : NULL;

	if (inode)
		return inode->attr.linked ? icm_inode_ref(inode) : NULL;
	inode = icm_inode_new(&s->tree, &e->attr);
	e->attr = (struct icm_attr){ 0 };
	inode->published = true;
	if (e->has_record)
		keep_record(s, inode, &e->record);
	return inode;
}

static int place(struct icm_snapshot *s, struct icm_snap_entry *e)
{
	struct icm_inode *dir = NULL, *inode;
	const char *base = "";

	if (*e->path)
		dir = icm_tree_parent(&s->tree, e->path, &base);
	else if (s->tree.root)
		return -EPROTO;
	if (*e->path && (!dir || !icm_inode_is_dir(dir) || icm_tree_find(&s->tree, dir, base)))
		return -EPROTO;
	inode = inode_of_entry(s, e);
	if (!inode)
		return -EPROTO;
	icm_tree_add(&s->tree, dir, base, inode);
	if (dir)
		icm_inode_unref(&s->tree, inode); /* the root's is the tree's own */
	else
		s->tree.root = inode;
	return 0;
}

static int load_part(struct icm_volume *vol, struct icm_snapshot *s, const struct icm_sha256 *sum)
{
	ICM_CLEANUP(icm_snap_part_clear) struct icm_snap_part part = { 0 };
	ICM_AUTOFREE void *bytes = NULL;
	size_t len;
	int r = icm_load_blob(vol, sum, ICM_CHUNK_BYTES, &bytes, &len);

	if (r == 0)
		r = icm_snap_part_decode(bytes, len, &part);
	for (size_t i = 0; i < part.n && r == 0; i++)
		r = place(s, &part.v[i]);
	return r;
}

int icm_snapshot_load(struct icm_volume *vol, const char *name, struct icm_snap *snap,
		      struct icm_snapshot **ret)
{
	struct icm_snapshot *s = icm_xcalloc(1, sizeof(*s));
	int r = 0;

	icm_tree_init(&s->tree);
	s->snap = *snap;
	*snap = (struct icm_snap){ 0 };
	for (size_t i = 0; i < s->snap.n_parts && r == 0; i++)
		r = load_part(vol, s, &s->snap.parts[i]);
	if (r == 0 && !s->tree.root)
		r = -EPROTO;
	if (r == 0) {
		*ret = s;
		return 0;
	}
	icm_snapshot_free(s);
	if (r != -ENOENT && r != -EPROTO)
		return r;
	icm_log_err("the manifest of snapshot '%s' is damaged", name);
	return -EIO;
}

struct icm_snapshot *icm_snapshot_free(struct icm_snapshot *s)
{
	if (!s)
		return NULL;
	free_records(&s->records);
	icm_tree_free(&s->tree);
	icm_snap_clear(&s->snap);
	free(s);
	return NULL;
}

/* ---- contents ---- */

/* Where the file is now, if it still is: contents move with it. */
static char *present_path(struct icm_volume *vol, uint64_t ino)
{
	struct icm_inode *inode;
	ICM_LOCK_SCOPE(&vol->lock);

	inode = icm_tree_inode(&vol->tree, ino);
	return inode && !inode->attr.linked ? icm_inode_path(inode) : NULL;
}

/* Bytes with the hash in `a`: in the live file, or, where it has others by now,
 * in a blob; once more in the live file, which may have got them back or a new
 * name in between. */
static int load_plain(struct icm_volume *vol, const struct icm_attr *a, struct icm_data **ret)
{
	struct icm_content *c = NULL;
	uint64_t index;
	int r = -ESTALE;

	for (int tries = 0; r == -ESTALE && tries < 2; tries++) {
		ICM_AUTOFREE char *path = a->linked ? NULL : present_path(vol, a->ino);

		r = icm_load_plain(vol, path, &a->hash, a->size, &c, &index);
	}
	if (r < 0)
		return r;
	*ret = icm_data_from_bytes(vol->work_dir, c->bytes, c->len);
	icm_content_unref(c);
	return 0;
}

/* Another program's large file has no record: the bytes are one value while it
 * stands, and chunks of an earlier version later. */
static int load_foreign(struct icm_volume *vol, const char *then, const struct icm_attr *a,
			struct icm_data **ret)
{
	const struct icm_version v = { .size = a->size, .has_hash = true, .hash = a->hash };
	ICM_AUTOFREE char *path = present_path(vol, a->ino);
	uint64_t index;
	int r = icm_load_large(vol, path, 0, &v, ret, &index);

	return r == -ESTALE ? icm_history_find(vol, then, &a->hash, a->size, ret) : r;
}

/* Of a copy: loading keeps the list of chunks in the record, which is shared here. */
static int load_chunks(struct icm_volume *vol, const struct icm_record *rec, struct icm_data **ret)
{
	ICM_AUTORECORD struct icm_record copy = *rec;

	copy.target = NULL;
	if (rec->chunks)
		copy.chunks = icm_xmemdup(rec->chunks, rec->n_chunks * sizeof(*rec->chunks));
	return icm_load_chunks(vol, &copy, ret);
}

int icm_snapshot_contents(struct icm_volume *vol, const struct icm_snapshot *s,
			  const struct icm_inode *inode, struct icm_data **ret)
{
	const struct icm_snapshot_record *rec = find_record(s, inode);
	ICM_AUTOFREE char *path = icm_inode_path(inode);
	const struct icm_attr *a = &inode->attr;
	int r = 0;

	if (a->size == 0)
		*ret = icm_data_new(vol->work_dir);
	else if (rec)
		r = load_chunks(vol, &rec->record, ret);
	else if (a->size <= ICM_PLAIN_MAX)
		r = load_plain(vol, a, ret);
	else
		r = load_foreign(vol, path, a, ret);
	if (r != -ESTALE)
		return r;
	icm_log_err("'%s' has contents in a snapshot that are not in the store any more", path);
	return -EIO;
}
