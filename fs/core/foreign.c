/* SPDX-License-Identifier: MIT */
#include "core/foreign.h"

#include <string.h>

#include "core/feed.h"
#include "core/key.h"
#include "core/names.h"
#include "util/clock.h"
#include "util/log.h"

/* A change that hides behind one of icmfs is found by a comparison after it. */
#define LOOK_AFTER_NS (ICM_NS_PER_S)
#define LOOK_EACH_NS  (60 * ICM_NS_PER_S)

/* ---- the keys ---- */

/* `meta` and all of tree/ in one view; the values aren't wanted, but there is no
 * other way to learn the indexes. */
static int read_all(struct icm_volume *vol, struct icm_entries *ret)
{
	struct icm_ctx ctx = icm_volume_ctx(vol);
	ICM_AUTORESULT struct icm_txn_result res = { 0 };
	const struct icm_op ops[] = {
		{ ICM_OP_GET, .key = ICM_KEY_META },
		{ ICM_OP_GET_TREE, .key = "tree/" },
	};
	int r = icm_backend_txn(vol->be, &ctx, ops, ICM_COUNT(ops), &res);

	if (r == -ESTALE)
		return -EPROTO; /* no meta: nothing here is believed */
	if (r < 0)
		return r;
	for (size_t i = 0; i < res.entries.n; i++) {
		free(res.entries.v[i].value);
		res.entries.v[i].value = NULL;
	}
	*ret = res.entries;
	res.entries = (struct icm_entries){ 0 };
	return 0;
}

/* Nothing but icmfs has written since the mount before, as far as one can see
 * from the last transaction's index. */
static bool looks_known(struct icm_volume *vol, uint64_t index)
{
	struct icm_ctx ctx = icm_volume_ctx(vol);
	ICM_AUTOENTRY struct icm_entry head = { 0 };

	return icm_backend_get(vol->be, &ctx, ICM_KEY_HEAD, &head) == 0 &&
	       head.modify_index == index;
}

static int read_keys(struct icm_volume *vol, bool at_mount, struct icm_entries *ret,
		     uint64_t *ret_index)
{
	struct icm_ctx ctx = icm_volume_ctx(vol);
	uint64_t view;
	int r = icm_backend_index(vol->be, &ctx, "tree/", ret_index);

	if (r < 0)
		return r;
	if (!vol->be->facts.foreign_writers || (at_mount && looks_known(vol, *ret_index)))
		return icm_backend_list(vol->be, &ctx, "tree/", true, ret, &view);
	return read_all(vol, ret);
}

/* ---- what differs ---- */

struct paths {
	char **v; /* owned */
	size_t n, cap;
};

static void add_path(struct paths *p, char *path)
{
	if (p->n == p->cap) {
		p->cap = p->cap ? p->cap * 2 : 16;
		p->v = icm_xrealloc(p->v, p->cap * sizeof(*p->v));
	}
	p->v[p->n++] = path;
}

static void pathsp(struct paths *p)
{
	for (size_t i = 0; i < p->n; i++)
		free(p->v[i]);
	free(p->v);
}

static void mark_seen(struct icm_name *name)
{
	for (; name && name->dir && !name->seen; name = name->dir->names)
		name->seen = true;
}

/* The path of a tree/ key, or NULL for a spelling that isn't shown. */
static char *path_of(const char *key, bool *ret_is_dir)
{
	const char *encoded = key + strlen("tree/");
	size_t len = strlen(encoded);
	ICM_AUTOFREE char *text = NULL;
	char *path;

	*ret_is_dir = len && encoded[len - 1] == '/';
	text = icm_xstrndup(encoded, *ret_is_dir ? len - 1 : len);
	return icm_key_decode(text, &path) < 0 ? NULL : path;
}

static bool differs(struct icm_volume *vol, const struct icm_entry *e, const char *path,
		    bool is_dir)
{
	struct icm_name *name = icm_tree_walk(&vol->tree, path);

	if (!name)
		return !icm_grave_has(vol, path, e->modify_index);
	mark_seen(name);
	if (!name->inode->published)
		return false; /* its publication will find it */
	if (icm_inode_is_dir(name->inode))
		return false;
	return is_dir || e->modify_index > name->attr_index;
}

static void set_seen(struct icm_inode *dir)
{
	for (struct icm_name *name = dir->first; name; name = name->next) {
		name->seen = false;
		if (icm_inode_is_dir(name->inode))
			set_seen(name->inode);
	}
}

/* Names without a key; what is in a directory comes before it. */
static void find_missing(struct icm_inode *dir, uint64_t index, struct paths *found)
{
	for (struct icm_name *name = dir->first; name; name = name->next) {
		char *path;

		if (icm_inode_is_dir(name->inode))
			find_missing(name->inode, index, found);
		if (name->seen || !name->inode->published || name->attr_index > index)
			continue;
		path = icm_name_path(name);
		if (path)
			add_path(found, path);
	}
}

static void find_differences(struct icm_volume *vol, const struct icm_entries *keys, uint64_t index,
			     struct paths *found)
{
	ICM_LOCK_SCOPE(&vol->lock);

	set_seen(vol->tree.root);
	for (size_t i = 0; i < keys->n; i++) {
		const struct icm_entry *e = &keys->v[i];
		bool is_dir;
		char *path;

		if (strncmp(e->key, "tree/", strlen("tree/")) != 0)
			continue; /* meta */
		path = path_of(e->key, &is_dir);
		if (path && *path && differs(vol, e, path, is_dir))
			add_path(found, path);
		else
			free(path);
	}
	find_missing(vol->tree.root, index, found);
}

/* ---- visiting ---- */

/* Asks the store for one component; the inode there, referenced, or NULL. */
static struct icm_inode *visit(struct icm_volume *vol, struct icm_inode *dir, const char *text,
			       bool last, int *ret_r)
{
	struct icm_name *name;
	bool known;

	pthread_mutex_lock(&vol->lock);
	name = icm_tree_find(&vol->tree, dir, text);
	known = name && icm_inode_is_dir(name->inode);
	pthread_mutex_unlock(&vol->lock);
	*ret_r = last || !known ? icm_name_refresh(vol, dir, text) : 0;
	ICM_LOCK_SCOPE(&vol->lock);

	name = icm_tree_find(&vol->tree, dir, text);
	return name ? icm_inode_ref(name->inode) : NULL;
}

/* From the top: a directory that only a deeper key implies is adopted on the way. */
static int visit_path(struct icm_volume *vol, char *path)
{
	struct icm_inode *at;
	char *part;
	int r = 0;

	pthread_mutex_lock(&vol->lock);
	at = icm_inode_ref(vol->tree.root);
	pthread_mutex_unlock(&vol->lock);
	while (r == 0 && at && (part = strsep(&path, "/"))) {
		struct icm_inode *next = visit(vol, at, part, path == NULL, &r);

		pthread_mutex_lock(&vol->lock);
		icm_inode_unref(&vol->tree, at);
		pthread_mutex_unlock(&vol->lock);
		at = next;
	}
	if (at) {
		pthread_mutex_lock(&vol->lock);
		icm_inode_unref(&vol->tree, at);
		pthread_mutex_unlock(&vol->lock);
	}
	return r == -ENOENT || r == -EBUSY ? 0 : r; /* it changes just now: seen next time */
}

/* The root's key is the first below tree/; only `meta` may come before. */
static bool has_root(const struct icm_entries *keys)
{
	size_t at = keys->n && strcmp(keys->v[0].key, ICM_KEY_META) == 0;

	return at < keys->n && strcmp(keys->v[at].key, "tree/") == 0;
}

int icm_foreign_compare(struct icm_volume *vol, bool at_mount)
{
	ICM_AUTOENTRIES struct icm_entries keys = { 0 };
	ICM_CLEANUP(pathsp) struct paths found = { 0 };
	uint64_t index;
	int r = read_keys(vol, at_mount, &keys, &index);

	if (r < 0)
		return r;
	if (!has_root(&keys)) {
		icm_log_warning(
			"the store lists nothing below tree/: nothing is taken for deleted");
		return 0;
	}
	if (!at_mount)
		r = icm_feed_catch_up(vol);
	if (r < 0)
		return r;
	find_differences(vol, &keys, index, &found);
	icm_entries_clear(&keys);
	for (size_t i = 0; i < found.n && r == 0; i++)
		r = visit_path(vol, found.v[i]);
	if (r < 0)
		return r;
	pthread_mutex_lock(&vol->lock);
	vol->compared = index;
	pthread_mutex_unlock(&vol->lock);
	if (found.n)
		icm_copy_changed(vol, UINT64_MAX); /* also what was only derived */
	return 0;
}

bool icm_foreign_is_suspected(struct icm_volume *vol)
{
	ICM_LOCK_SCOPE(&vol->lock);

	return vol->unexplained > vol->compared;
}

/* ---- the watch ---- */

/* A transaction with this index is known, perhaps after reading the feed. */
static int find_out(struct icm_volume *vol, uint64_t index, bool *ret_known)
{
	int r = 0;

	*ret_known = icm_feed_knows(vol, index);
	if (*ret_known)
		return 0;
	if (!icm_feed_becomes_known(vol, index))
		r = icm_feed_catch_up_to(vol, index);
	*ret_known = icm_feed_knows(vol, index);
	return r;
}

/* When to look for what a known change may hide; it stays, if it is set. */
static int64_t look_later(int64_t due, int64_t last)
{
	int64_t soon = icm_now_ns() + LOOK_AFTER_NS;

	if (due)
		return due;
	return last && last + LOOK_EACH_NS > soon ? last + LOOK_EACH_NS : soon;
}

/* An index that goes back may be that of a server which is behind the others. */
static int has_gone_back(struct icm_volume *vol, uint64_t since, bool *ret)
{
	struct icm_ctx ctx = icm_volume_ctx(vol);
	uint64_t index = since;
	int r;

	ctx.consistent = true;
	r = icm_backend_index(vol->be, &ctx, "tree/", &index);
	*ret = r == 0 && index < since;
	return r;
}

/* After a wake-up at `index`: 0 when it has been dealt with. */
static int follow(struct icm_volume *vol, uint64_t since, uint64_t index, int64_t *due,
		  int64_t *last)
{
	bool known = false, back = false;
	int r = index < since ? has_gone_back(vol, since, &back) : 0;

	if (r == 0 && back)
		icm_feed_restart(vol);
	else if (r == 0)
		r = find_out(vol, index, &known);
	if (r < 0)
		return r;
	if (known) {
		*due = look_later(*due, *last);
		return 0;
	}
	*due = 0;
	*last = icm_now_ns();
	return icm_foreign_compare(vol, false);
}

static void *watch_thread(void *arg)
{
	struct icm_volume *vol = arg;
	int64_t due = 0, last = 0;
	uint64_t since;

	pthread_mutex_lock(&vol->lock);
	since = vol->compared;
	pthread_mutex_unlock(&vol->lock);
	while (!atomic_load(&vol->stopping)) {
		struct icm_ctx ctx = { .cancel = &vol->stopping,
				       .others = true,
				       .deadline_ns = due };
		uint64_t index = since;
		int r = icm_backend_watch(vol->be, &ctx, "tree/", since, &index);

		if (atomic_load(&vol->stopping))
			break;
		if (r == -ETIMEDOUT && due) {
			last = icm_now_ns();
			r = icm_foreign_compare(vol, false);
			due = r < 0 ? last + LOOK_AFTER_NS : 0;
		} else if (r == 0) {
			r = follow(vol, since, index, &due, &last);
		}
		if (r == 0)
			since = index;
		else
			icm_feed_pause();
	}
	return NULL;
}

int icm_foreign_start(struct icm_volume *vol)
{
	int r;

	if (!vol->be->facts.foreign_writers)
		return 0;
	r = -pthread_create(&vol->foreign_watcher, NULL, watch_thread, vol);
	vol->watches_foreign = r == 0;
	return r;
}

void icm_foreign_stop(struct icm_volume *vol)
{
	if (!vol->watches_foreign)
		return;
	atomic_store(&vol->stopping, true);
	icm_backend_wake(vol->be);
	pthread_join(vol->foreign_watcher, NULL);
	vol->watches_foreign = false;
}
