/* SPDX-License-Identifier: MIT
 * The whole tree from the store: at the mount, and when the feed can't tell
 * what happened since. */
#include <inttypes.h>
#include <string.h>

#include "core/apply.h"
#include "core/change.h"
#include "core/deployment.h"
#include "core/feed.h"
#include "core/key.h"
#include "core/upkeep.h"
#include "util/log.h"

#define DIRS_BATCH 30 /* two keys of each in one transaction */

/* ---- the deployment and its format ---- */

static int read_meta(struct icm_volume *vol, struct icm_meta *ret, uint64_t *ret_index)
{
	struct icm_ctx ctx = icm_volume_ctx(vol);
	ICM_AUTOENTRY struct icm_entry e = { 0 };
	int r = icm_backend_get(vol->be, &ctx, ICM_KEY_META, &e);

	if (r < 0)
		return r;
	*ret_index = e.modify_index;
	return icm_meta_decode(e.value, e.len, ret);
}

int icm_feed_open_deployment(struct icm_volume *vol, bool create, char **ret_error)
{
	struct icm_meta meta;
	uint64_t index = 0;
	int r = read_meta(vol, &meta, &index);

	if (r == -ENOENT && create && !vol->read_only) {
		struct icm_ctx ctx = icm_volume_ctx(vol);

		r = icm_deployment_create(vol->be, &ctx, "", vol->uid, vol->gid);
		if (r == 0 || r == -EEXIST) /* somebody else was first */
			r = read_meta(vol, &meta, &index);
	}
	if (r < 0) {
		if (ret_error)
			*ret_error = icm_asprintf(r == -ENOENT	 ? "no deployment in store '%s'"
						  : r == -EPROTO ? "'meta' of store '%s' is damaged"
								 : "store '%s' can't be read: %s",
						  vol->be->url, strerror(-r));
		return r;
	}
	if (meta.format > ICM_FORMAT_VERSION) {
		if (ret_error)
			*ret_error = icm_asprintf("store '%s' has format %" PRIu32
						  ", this icmfs knows up to %d: use a newer one",
						  vol->be->url, meta.format, ICM_FORMAT_VERSION);
		icm_meta_clear(&meta);
		return -EPROTO;
	}
	vol->created = meta.created;
	icm_meta_clear(&meta);
	vol->meta_index = index;
	return 0;
}

/* ---- the listing ---- */

/* inode/<ino> values of a listing, by number. */
struct inode_item {
	struct icm_map_node node;
	uint64_t ino, index;
	bool broken;
	struct icm_inode_value value;
};

static void index_inodes(const struct icm_entries *list, size_t op, struct icm_map *map)
{
	for (size_t i = 0; i < list->n; i++) {
		const struct icm_entry *e = &list->v[i];
		struct inode_item *item;
		uint64_t ino;

		if (e->op != op || icm_key_parse_ino(e->key, "inode/", &ino) < 0)
			continue;
		item = icm_xcalloc(1, sizeof(*item));
		item->ino = ino;
		item->index = e->modify_index;
		item->broken = icm_inode_value_decode(e->value, e->len, &item->value) < 0;
		icm_map_add(map, &item->node, icm_hash_u64(ino));
	}
}

static struct inode_item *find_inode(const struct icm_map *map, uint64_t ino)
{
	for (struct icm_map_node *n = icm_map_first(map, icm_hash_u64(ino)); n; n = icm_map_next(n))
		if (((struct inode_item *)n)->ino == ino)
			return (struct inode_item *)n;
	return NULL;
}

static void free_inodes(struct icm_map *map)
{
	for (size_t i = 0; i < map->n_buckets; i++) {
		for (struct icm_map_node *n = map->buckets[i], *next; n; n = next) {
			struct inode_item *item = (struct inode_item *)n;

			next = n->next;
			if (!item->broken)
				icm_inode_value_clear(&item->value);
			free(item);
		}
	}
	icm_map_free(map);
}

static void decode_or_broken(const struct icm_entry *e, const char *path, struct icm_attr *attr)
{
	if (icm_attr_decode(e->value, e->len, attr) == 0)
		return;
	icm_log_err("'%s' has damaged attributes and can't be used", path);
	icm_attr_broken(attr, path);
}

/* One attr/ key; volume->lock held. */
static void place_entry(struct icm_volume *vol, const struct icm_entry *e,
			const struct icm_map *inodes, struct icm_news *news)
{
	ICM_AUTOFREE char *path = NULL;
	ICM_AUTOATTR struct icm_attr attr = { 0 };
	bool marked;
	struct inode_item *item;
	struct icm_inode *dir;
	struct icm_name *name;
	const char *base;

	if (icm_key_decode(e->key + strlen("attr/"), &path) < 0 || !*path)
		return; /* foreign spellings aren't shown; the root was placed */
	dir = icm_tree_parent(&vol->tree, path, &base);
	if (!dir)
		return; /* an orphan: `icmfs check` names it */
	name = icm_tree_find(&vol->tree, dir, base);
	if (!name && icm_grave_has(vol, path, e->modify_index))
		return; /* removed while the listing was on its way */
	if (name && name->inode->published)
		name->seen = true;
	decode_or_broken(e, path, &attr);
	marked = attr.mark != NULL;
	free(attr.mark);
	attr.mark = NULL;
	item = attr.linked ? find_inode(inodes, attr.ino) : NULL;
	if (name && icm_name_is_told(name, e->modify_index, attr.ino) &&
	    (!item || name->inode->attr.ino != attr.ino || name->inode->index >= item->index))
		return;
	if (attr.linked) {
		icm_attr_clear(&attr);
		if (item && !item->broken)
			icm_attr_copy(&attr, &item->value.attr);
		else
			icm_attr_broken(&attr, path);
		attr.linked = item && !item->broken;
	}
	name = icm_apply_upsert(vol, dir, base, &attr, e->modify_index, news);
	if (!name)
		return;
	name->seen = true;
	/* whoever wants to write has to read it again, and comes upon the mark */
	name->attr_index = marked ? ICM_INDEX_OLD : e->modify_index;
	name->tree_index = 0;
	if (item)
		name->inode->index = item->index;
}

static void place_root(struct icm_volume *vol, const struct icm_entry *e)
{
	struct icm_attr attr;

	decode_or_broken(e, "/", &attr);
	if (!S_ISDIR(attr.mode))
		attr.mode = S_IFDIR | 0700;
	attr.ino = ICM_INO_ROOT;
	if (!vol->tree.root) {
		vol->tree.root = icm_inode_new(&vol->tree, &attr);
		vol->tree.root->published = true;
		icm_tree_add(&vol->tree, NULL, "", vol->tree.root);
	} else {
		attr.mtime = vol->tree.root->attr.mtime;
		icm_attr_clear(&vol->tree.root->attr);
		vol->tree.root->attr = attr;
	}
	vol->tree.root->names->attr_index = e->modify_index;
}

static void set_seen(struct icm_inode *dir, bool seen)
{
	for (struct icm_name *name = dir->first; name; name = name->next) {
		name->seen = seen;
		if (icm_inode_is_dir(name->inode))
			set_seen(name->inode, seen);
	}
}

/* What the listing didn't have is gone, unless it is newer than the listing or
 * not published yet. */
static void remove_unseen(struct icm_volume *vol, struct icm_inode *dir, uint64_t index,
			  struct icm_news *news)
{
	for (struct icm_name *name = dir->first, *next; name; name = next) {
		next = name->next;
		if (!name->seen && name->inode->published && name->attr_index <= index) {
			icm_apply_remove(vol, name, news);
			next = dir->first; /* a removal may take more than one */
			continue;
		}
		if (icm_inode_is_dir(name->inode))
			remove_unseen(vol, name->inode, index, news);
	}
}

static void collect_dirs(const struct icm_inode *dir, char ***paths, size_t *n, size_t *cap)
{
	char *path = icm_inode_path(dir);

	if (*n == *cap) {
		*cap = *cap ? *cap * 2 : 64;
		*paths = icm_xrealloc(*paths, *cap * sizeof(**paths));
	}
	if (path)
		(*paths)[(*n)++] = path;
	for (const struct icm_name *name = dir->first; name; name = name->next)
		if (icm_inode_is_dir(name->inode))
			collect_dirs(name->inode, paths, n, cap);
}

/* `attr` was read with them: the path may be another directory's by now. */
static void set_times(struct icm_volume *vol, const char *path, const struct icm_entry *e,
		      const struct icm_entry *attr)
{
	ICM_AUTOATTR struct icm_attr a = { 0 };
	struct icm_dir_times times;
	struct icm_name *name;
	struct icm_inode *dir;
	ICM_LOCK_SCOPE(&vol->lock);

	name = icm_tree_walk(&vol->tree, path);
	dir = name ? name->inode : NULL;
	/* damaged ones are only times: `icmfs check` reports it */
	if (!dir || !icm_inode_is_dir(dir) || dir->index > e->modify_index ||
	    icm_dir_times_decode(e->value, e->len, &times) < 0 ||
	    icm_attr_decode(attr->value, attr->len, &a) < 0 || a.ino != dir->attr.ino)
		return;
	dir->index = e->modify_index;
	dir->attr.mtime = times.mtime;
	dir->attr.ctime = times.ctime;
}

/* One of them has no key: it went, is implied by a deeper one, or a change has it
 * elsewhere. */
static int read_times_of(struct icm_volume *vol, const char *path)
{
	struct icm_ctx ctx = icm_volume_ctx(vol);
	ICM_AUTORESULT struct icm_txn_result res = { 0 };
	ICM_AUTOFREE char *there = icm_change_elsewhere(vol, path);
	ICM_AUTOFREE char *times = icm_key_tree_dir(there ? there : path);
	ICM_AUTOFREE char *attr = icm_key_attr(there ? there : path);
	const struct icm_op ops[] = { { ICM_OP_GET, .key = times }, { ICM_OP_GET, .key = attr } };
	int r;

	if (!there)
		return 0;
	r = icm_backend_txn(vol->be, &ctx, ops, ICM_COUNT(ops), &res);
	if (r == 0 && res.entries.n == 2)
		set_times(vol, path, &res.entries.v[0], &res.entries.v[1]);
	return r == -ESTALE ? 0 : r;
}

static int read_times(struct icm_volume *vol, char **paths, size_t n)
{
	struct icm_ctx ctx = icm_volume_ctx(vol);
	ICM_AUTORESULT struct icm_txn_result res = { 0 };
	struct icm_op ops[2 * DIRS_BATCH] = { 0 };
	const struct icm_entry *v;
	int r;

	for (size_t i = 0; i < n; i++) {
		ops[2 * i] = (struct icm_op){ ICM_OP_GET, .key = icm_key_tree_dir(paths[i]) };
		ops[2 * i + 1] = (struct icm_op){ ICM_OP_GET, .key = icm_key_attr(paths[i]) };
	}
	r = icm_backend_txn(vol->be, &ctx, ops, 2 * n, &res);
	v = res.entries.v;
	for (size_t i = 0; r == 0 && i + 1 < res.entries.n; i += 2)
		set_times(vol, paths[v[i].op / 2], &v[i], &v[i + 1]);
	for (size_t i = 0; i < 2 * n; i++)
		free((char *)ops[i].key);
	if (r != -ESTALE || n == 1)
		return r == -ESTALE ? read_times_of(vol, paths[0]) : r;
	for (size_t i = 0; i < n; i++) {
		r = read_times(vol, paths + i, 1);
		if (r < 0)
			return r;
	}
	return 0;
}

/* Times of directories are in keys of their own, among the contents, which
 * nobody wants to list. */
static int read_all_times(struct icm_volume *vol)
{
	char **paths = NULL;
	size_t n = 0, cap = 0;
	int r = 0;

	pthread_mutex_lock(&vol->lock);
	collect_dirs(vol->tree.root, &paths, &n, &cap);
	pthread_mutex_unlock(&vol->lock);
	for (size_t at = 0; at < n && r == 0; at += DIRS_BATCH)
		r = read_times(vol, paths + at, n - at < DIRS_BATCH ? n - at : DIRS_BATCH);
	for (size_t i = 0; i < n; i++)
		free(paths[i]);
	free(paths);
	return r;
}

static int place_listing(struct icm_volume *vol, const struct icm_entries *list, uint64_t index,
			 uint64_t asked)
{
	struct icm_map inodes = { 0 };
	struct icm_news news = { 0 };
	bool first = vol->tree.root == NULL;
	size_t at = 0;

	while (at < list->n && strcmp(list->v[at].key, "attr/") != 0)
		at++;
	if (at == list->n)
		return -EPROTO; /* a deployment has a root */
	index_inodes(list, 1, &inodes);
	pthread_mutex_lock(&vol->lock);
	place_root(vol, &list->v[at]);
	vol->listing = true;
	set_seen(vol->tree.root, false);
	for (size_t i = 0; i < list->n; i++)
		if (list->v[i].op == 0)
			place_entry(vol, &list->v[i], &inodes, &news);
	remove_unseen(vol, vol->tree.root, index, &news);
	if (index > vol->position)
		vol->position = index;
	vol->listing = false;
	vol->compare_wanted = vol->read_only && !first;
	vol->resyncs_done = asked;
	vol->listings++;
	pthread_mutex_unlock(&vol->lock);
	free_inodes(&inodes);
	icm_news_tell(vol, &news);
	if (!first && vol->notify.reset)
		vol->notify.reset(vol->notify_data);
	return 0;
}

int icm_feed_list(struct icm_volume *vol)
{
	struct icm_ctx ctx = icm_volume_ctx(vol);
	ICM_AUTORESULT struct icm_txn_result res = { 0 };
	const struct icm_op ops[] = {
		{ ICM_OP_GET_TREE, .key = "attr/" },
		{ ICM_OP_GET_TREE, .key = "inode/" },
		{ ICM_OP_GET_TREE, .key = "change/" },
	};
	uint64_t index, asked;
	int r;

	pthread_mutex_lock(&vol->lock);
	asked = vol->resyncs_asked;
	pthread_mutex_unlock(&vol->lock);
	/* The position is one from before the listing: what happened in between
	 * is in both, and applying it again changes nothing. */
	r = icm_backend_index(vol->be, &ctx, "", &index);
	if (r == 0)
		r = icm_feed_see(vol);
	if (r == 0)
		r = icm_backend_txn(vol->be, &ctx, ops, ICM_COUNT(ops), &res);
	if (r == 0 && icm_change_undo_in_listing(&res.entries, 0, 2))
		icm_upkeep_changes(vol);
	if (r == 0)
		r = place_listing(vol, &res.entries, index, asked);
	return r < 0 ? r : read_all_times(vol);
}
