/* SPDX-License-Identifier: MIT
 * history/: directories made of the keys hist/<path>%v<index>. */
#include "core/control-local.h"

#include <ctype.h>
#include <inttypes.h>
#include <string.h>

#include "core/history.h"
#include "core/key.h"
#include "core/shared.h"
#include "util/log.h"

/* ---- the keys ---- */

/* The number that `name` is the plain spelling of; 0 = it isn't one. */
static uint64_t parse_version(const char *name)
{
	char spelled[32];
	uint64_t index;

	if (!isdigit((unsigned char)name[0]))
		return 0;
	index = strtoull(name, NULL, 10);
	snprintf(spelled, sizeof(spelled), "%" PRIu64, index);
	return strcmp(spelled, name) == 0 ? index : 0;
}

static int list_keys(struct icm_volume *vol, const char *prefix, struct icm_entries *ret)
{
	struct icm_ctx ctx = icm_volume_ctx(vol);
	uint64_t index;

	return icm_backend_list(icm_volume_backend(vol), &ctx, prefix, true, ret, &index);
}

/* Whether the path or anything below it has versions: 0, -ENOENT. */
static int has_versions(struct icm_volume *vol, const char *path)
{
	ICM_AUTOFREE char *encoded = icm_key_encoded(path);
	ICM_AUTOFREE char *prefix = icm_asprintf("hist/%s", encoded);
	ICM_AUTOENTRIES struct icm_entries list = { 0 };
	size_t len = strlen(prefix);
	int r = list_keys(vol, prefix, &list);

	if (r < 0)
		return r;
	for (size_t i = 0; i < list.n; i++)
		if (list.v[i].key[len] == '/' || strncmp(list.v[i].key + len, "%v", 2) == 0)
			return 0;
	return -ENOENT;
}

/* ---- who may see it ---- */

/* Attributes of the directory that is at `path` now. */
static int present_dir(struct icm_volume *vol, const char *path, struct stat *ret_st)
{
	const struct icm_call call = { 0 };
	ICM_AUTOFREE char *copy = icm_xstrdup(path);
	struct icm_view *dir = icm_fs_root(vol);
	char *save, *part = strtok_r(copy, "/", &save);
	int r = 0;

	icm_view_ref(dir);
	for (; part && r >= 0; part = strtok_r(NULL, "/", &save)) {
		struct icm_view *next;

		r = icm_fs_lookup(dir, &call, part, &next, ret_st);
		icm_fs_forget(dir, 1);
		dir = r < 0 ? NULL : next;
		if (r >= 0 && !icm_view_is_dir(dir))
			r = -ENOTDIR;
	}
	if (r >= 0)
		r = icm_fs_getattr(dir, &call, NULL, ret_st);
	if (dir)
		icm_fs_forget(dir, 1);
	return r;
}

/* As the present directory, or as the parent where there is none. */
static int dir_attributes(struct icm_control_node *parent, const char *path, struct stat *ret_st)
{
	const struct icm_call call = { 0 };
	struct stat st;
	int r = present_dir(parent->view.vol, path, &st);

	if (r < 0)
		r = icm_fs_getattr(&parent->view, &call, NULL, &st);
	if (r < 0)
		return r;
	*ret_st = (struct stat){
		.st_mode = S_IFDIR | (st.st_mode & 0555),
		.st_nlink = 2,
		.st_uid = st.st_uid,
		.st_gid = st.st_gid,
		.st_blksize = 4096,
		.st_atim = parent->c->since,
		.st_mtim = parent->c->since,
		.st_ctim = parent->c->since,
	};
	return 0;
}

static struct stat version_attributes(const struct icm_attr *a)
{
	const struct icm_inode inode = { .attr = *a };
	struct stat st;

	icm_inode_stat(&inode, &st);
	st.st_mode = S_ISLNK(a->mode) ? a->mode : S_IFREG | (a->mode & 0444);
	st.st_nlink = 1;
	st.st_rdev = 0;
	return st;
}

/* ---- names ---- */

static struct icm_control_node *root_of(struct icm_control_node *n)
{
	return n->root ? n->root : n;
}

static int lookup_version(struct icm_control_node *dir, uint64_t index,
			  struct icm_control_node **ret)
{
	struct icm_hist hist;
	struct stat st;
	int r = icm_history_load(dir->view.vol, dir->path, index, &hist);

	if (r < 0)
		return r;
	st = version_attributes(&hist.attr);
	icm_hist_clear(&hist);
	*ret = icm_control_node_get(root_of(dir), ICM_CONTROL_VERSION, dir->path, index, &st);
	return 0;
}

int icm_control_history_lookup(struct icm_control_node *dir, const char *name,
			       struct icm_control_node **ret)
{
	ICM_AUTOFREE char *path = icm_path_join(dir->path, name);
	uint64_t index = dir->path[0] ? parse_version(name) : 0;
	struct stat st;
	int r = index ? lookup_version(dir, index, ret) : -ENOENT;

	if (r != -ENOENT)
		return r;
	r = has_versions(dir->view.vol, path);
	if (r >= 0)
		r = dir_attributes(dir, path, &st);
	if (r < 0)
		return r;
	*ret = icm_control_node_get(root_of(dir), ICM_CONTROL_HISTORY, path, 0, &st);
	return 0;
}

/* What a key adds to the listing of `path`: a version of it, or the first
 * component below it. */
static void add_key(struct icm_control_handle *h, const char *path, const char *key)
{
	ICM_AUTOFREE char *found = NULL;
	size_t len = strlen(path);
	uint64_t index;
	char *name;

	if (icm_key_parse_hist(key, &found, &index) < 0)
		return;
	if (strcmp(found, path) == 0) {
		char spelled[32];

		snprintf(spelled, sizeof(spelled), "%" PRIu64, index);
		icm_control_add_entry(h, spelled, icm_control_ino(ICM_CONTROL_VERSION, path, index),
				      S_IFREG);
		return;
	}
	if (strncmp(found, path, len) != 0 || (len && found[len] != '/'))
		return;
	name = found + len + (len > 0);
	name[strcspn(name, "/")] = '\0'; /* `found` ends with the child now */
	icm_control_add_entry(h, name, icm_control_ino(ICM_CONTROL_HISTORY, found, 0), S_IFDIR);
}

/* By name, versions before directories of the same name. */
static int compare_entries(const void *a, const void *b)
{
	const struct icm_control_entry *x = a, *y = b;
	int r = strcmp(x->name, y->name);

	return r ? r : S_ISDIR(x->type) - S_ISDIR(y->type);
}

void icm_control_sort_entries(struct icm_control_handle *h, size_t from)
{
	size_t to = from;

	if (h->n_entries - from < 2)
		return;
	qsort(h->entries + from, h->n_entries - from, sizeof(*h->entries), compare_entries);
	for (size_t i = from; i < h->n_entries; i++)
		if (i > from && strcmp(h->entries[to - 1].name, h->entries[i].name) == 0)
			free(h->entries[i].name);
		else
			h->entries[to++] = h->entries[i];
	h->n_entries = to;
}

int icm_control_history_list(struct icm_control_handle *h, const char *path)
{
	ICM_AUTOFREE char *encoded = icm_key_encoded(path);
	ICM_AUTOFREE char *prefix = icm_asprintf("hist/%s", encoded);
	ICM_AUTOENTRIES struct icm_entries list = { 0 };
	size_t from = h->n_entries;
	int r = list_keys(h->h.view->vol, prefix, &list);

	if (r < 0)
		return r;
	for (size_t i = 0; i < list.n; i++)
		add_key(h, path, list.v[i].key);
	icm_control_sort_entries(h, from);
	return 0;
}

/* ---- contents ---- */

int icm_control_version_open(struct icm_control_handle *h)
{
	struct icm_control_node *n = icm_control_node_of(h->h.view);
	struct icm_hist hist;
	int r = icm_history_load(n->view.vol, n->path, n->index, &hist);

	if (r < 0)
		return r == -ENOENT ? -ESTALE : r;
	r = icm_history_contents(n->view.vol, &hist, &h->data);
	icm_hist_clear(&hist);
	return r;
}

int icm_control_version_readlink(struct icm_control_node *n, char **ret_target)
{
	struct icm_hist hist;
	int r = icm_history_load(n->view.vol, n->path, n->index, &hist);

	if (r < 0)
		return r == -ENOENT ? -ESTALE : r;
	if (hist.record.target)
		*ret_target = icm_xstrdup(hist.record.target);
	else
		r = -EIO;
	icm_hist_clear(&hist);
	return r;
}
