/* SPDX-License-Identifier: MIT
 * Views, handles and attributes; what the files say is in control-*.c. */
#include "core/control-local.h"

#include <errno.h>
#include <string.h>

#include "core/key.h"
#include "core/volume.h"
#include "util/buf.h"
#include "util/clock.h"

/* What is in .icmfs. The numbers are below ICM_INO_FIRST; the permissions are
 * limited to those of the deployment's root, except of status. */
static const struct fixed {
	const char *name;
	enum icm_control_kind kind;
	uint64_t ino;
	mode_t mode;
} fixed[] = {
	{ "", ICM_CONTROL_ROOT, ICM_INO_CONTROL, S_IFDIR | 0555 },
	{ "lock", ICM_CONTROL_LOCK, ICM_INO_LOCK_FILE, S_IFREG | 0666 },
	{ "status", ICM_CONTROL_STATUS, ICM_INO_CONTROL + 2, S_IFREG | 0444 },
	{ "locks", ICM_CONTROL_LOCKS, ICM_INO_CONTROL + 3, S_IFREG | 0440 },
	{ "log", ICM_CONTROL_LOG, ICM_INO_CONTROL + 4, S_IFREG | 0440 },
	{ "history", ICM_CONTROL_HISTORY, ICM_INO_CONTROL + 5, S_IFDIR | 0555 },
	{ "snapshots", ICM_CONTROL_SNAPSHOTS, ICM_INO_SNAPSHOTS, S_IFDIR | 0755 },
};

static const struct fixed *find_fixed(enum icm_control_kind kind)
{
	for (size_t i = 0; i < ICM_COUNT(fixed); i++)
		if (fixed[i].kind == kind)
			return &fixed[i];
	return NULL;
}

/* ---- nodes ---- */

static uint64_t hash_node(enum icm_control_kind kind, const char *path, uint64_t index)
{
	return icm_hash_bytes(path, strlen(path), icm_hash_u64(index) + kind);
}

uint64_t icm_control_ino(enum icm_control_kind kind, const char *path, uint64_t index)
{
	const struct fixed *f = find_fixed(kind);

	if (f && !path[0])
		return f->ino;
	/* Apart from shared files (below 2^52) and scratch (bit 52). */
	return (hash_node(kind, path, index) & (ICM_INO_MAX - 1)) | ICM_INO_MAX << 1;
}

static struct icm_control_node *find_locked(struct icm_control *c, enum icm_control_kind kind,
					    const char *path, uint64_t index)
{
	struct icm_map_node *at = icm_map_first(&c->nodes, hash_node(kind, path, index));

	for (; at; at = icm_map_next(at)) {
		struct icm_control_node *n = ICM_CONTAINER(at, struct icm_control_node, node);

		if (n->kind == kind && n->index == index && strcmp(n->path, path) == 0 &&
		    icm_view_tryref(&n->view))
			return n;
	}
	return NULL;
}

static struct icm_control_node *add_locked(struct icm_control *c, enum icm_control_kind kind,
					   const char *path, uint64_t index, mode_t type)
{
	struct icm_control_node *n = icm_xcalloc(1, sizeof(*n));

	icm_view_init(&n->view, &icm_control_view_ops, c->vol, icm_control_ino(kind, path, index),
		      type);
	n->c = c;
	n->kind = kind;
	n->path = icm_xstrdup(path);
	n->index = index;
	n->next = c->all;
	if (n->next)
		n->next->prev = n;
	c->all = n;
	icm_map_add(&c->nodes, &n->node, hash_node(kind, path, index));
	return n;
}

struct icm_control_node *icm_control_node_get(struct icm_control_node *root,
					      enum icm_control_kind kind, const char *path,
					      uint64_t index, const struct stat *st)
{
	struct icm_control_node *n;
	ICM_LOCK_SCOPE(&root->c->lock);

	n = find_locked(root->c, kind, path, index);
	if (n)
		return n;
	n = add_locked(root->c, kind, path, index, st->st_mode);
	n->st = *st;
	n->root = root;
	icm_view_ref(&root->view);
	return n;
}

static void take_out(struct icm_control_node *n)
{
	ICM_LOCK_SCOPE(&n->c->lock);

	icm_map_remove(&n->c->nodes, &n->node);
	if (n->next)
		n->next->prev = n->prev;
	if (n->prev)
		n->prev->next = n->next;
	else
		n->c->all = n->next;
}

static void free_control(struct icm_control *c)
{
	icm_snapshots_free(c->snapshots);
	icm_map_free(&c->nodes);
	pthread_mutex_destroy(&c->lock);
	free(c);
}

static void free_node(struct icm_view *view)
{
	struct icm_control_node *n = icm_control_node_of(view);
	struct icm_control_node *root = n->root;

	take_out(n);
	if (!root)
		free_control(n->c);
	free(n->path);
	free(n);
	if (root)
		icm_fs_forget(&root->view, 1);
}

struct icm_view *icm_control_root(struct icm_volume *vol)
{
	struct icm_control *c = icm_xcalloc(1, sizeof(*c));

	c->vol = vol;
	c->since = icm_wall_time();
	c->snapshots = icm_snapshots_new(vol);
	pthread_mutex_init(&c->lock, NULL);
	return &add_locked(c, ICM_CONTROL_ROOT, "", 0, S_IFDIR)->view;
}

void icm_control_close(struct icm_view *view)
{
	struct icm_control_node *root, *next;

	if (!view)
		return;
	root = icm_control_node_of(view);
	for (struct icm_control_node *n = root->c->all; n; n = next) {
		next = n->next;
		if (n == root)
			continue;
		n->root = root;
		icm_view_ref(view); /* one of theirs is given back, ours stays */
		free_node(&n->view);
	}
	free_node(view);
}

/* ---- attributes ---- */

static int get_attributes(struct icm_control_node *n, const struct icm_call *call,
			  struct stat *ret_st)
{
	const struct fixed *f = find_fixed(n->kind);
	struct stat root;
	int r;

	if (n->kind == ICM_CONTROL_VERSION || (n->kind == ICM_CONTROL_HISTORY && n->path[0])) {
		*ret_st = n->st;
		ret_st->st_ino = n->view.ino;
		return 0;
	}
	r = icm_fs_getattr(icm_fs_root(n->view.vol), call, NULL, &root);
	if (r < 0)
		return r;
	*ret_st = (struct stat){
		.st_ino = n->view.ino,
		.st_mode = f->mode,
		.st_nlink = S_ISDIR(f->mode) ? 2 : 1,
		.st_uid = root.st_uid,
		.st_gid = root.st_gid,
		.st_blksize = 4096,
	};
	if (n->kind != ICM_CONTROL_STATUS)
		ret_st->st_mode &= S_IFMT | root.st_mode;
	if (S_ISDIR(f->mode) || n->kind == ICM_CONTROL_LOCK)
		ret_st->st_mtim = n->c->since;
	else
		ret_st->st_mtim = icm_wall_time();
	ret_st->st_atim = ret_st->st_ctim = ret_st->st_mtim;
	return 0;
}

static int control_getattr(struct icm_view *view, const struct icm_call *call, struct icm_handle *h,
			   struct stat *ret_st)
{
	return get_attributes(icm_control_node_of(view), call, ret_st);
}

/* Whoever opens the lock file by `9>.icmfs/lock` or touches it is no writer. */
static int control_setattr(struct icm_view *view, const struct icm_call *call, struct icm_handle *h,
			   unsigned set, const struct stat *st, struct stat *ret_st)
{
	struct icm_control_node *n = icm_control_node_of(view);

	if (n->kind != ICM_CONTROL_LOCK ||
	    (set & ~(unsigned)(ICM_SET_SIZE | ICM_SET_ATIME | ICM_SET_MTIME)) ||
	    ((set & ICM_SET_SIZE) && st->st_size))
		return -EPERM;
	return get_attributes(n, call, ret_st);
}

/* ---- names ---- */

/* What is asked of the store may take its time. */
static bool would_wait(const struct icm_view *view, const struct icm_call *call)
{
	return call->nowait && !icm_volume_is_local(view->vol);
}

static struct icm_control_node *root_of(struct icm_control_node *n)
{
	return n->root ? n->root : n;
}

static int lookup_fixed(struct icm_control_node *root, const char *name,
			struct icm_control_node **ret)
{
	for (size_t i = 1; i < ICM_COUNT(fixed); i++)
		if (strcmp(fixed[i].name, name) == 0) {
			struct stat st = { .st_mode = fixed[i].mode };

			*ret = icm_control_node_get(root, fixed[i].kind, "", 0, &st);
			return 0;
		}
	return -ENOENT;
}

/* ---- snapshots ---- */

static bool has_snapshots(struct icm_view *view)
{
	return icm_control_node_of(view)->kind == ICM_CONTROL_SNAPSHOTS;
}

static int lookup_snapshot(struct icm_view *view, const struct icm_call *call, const char *name,
			   struct icm_view **ret_view, struct stat *ret_st)
{
	if (would_wait(view, call))
		return ICM_WOULD_WAIT;
	return icm_snapshots_lookup(icm_control_node_of(view)->c->snapshots, name, ret_view,
				    ret_st);
}

static int control_mkdir(struct icm_view *view, const struct icm_call *call, const char *name,
			 mode_t mode, struct icm_view **ret_view, struct stat *ret_st)
{
	int r = has_snapshots(view) ? icm_snapshot_create(view->vol, name, call->pid) : -EPERM;

	return r < 0 ? r : lookup_snapshot(view, call, name, ret_view, ret_st);
}

static int control_rmdir(struct icm_view *view, const struct icm_call *call, const char *name)
{
	return has_snapshots(view) ? icm_snapshot_delete(view->vol, name, call->pid) : -EPERM;
}

static int control_lookup(struct icm_view *view, const struct icm_call *call, const char *name,
			  struct icm_view **ret_view, struct stat *ret_st)
{
	struct icm_control_node *dir = icm_control_node_of(view), *n;
	int r = -ENOENT;

	if (!S_ISDIR(view->type))
		return -ENOTDIR;
	if (dir->kind == ICM_CONTROL_SNAPSHOTS)
		return lookup_snapshot(view, call, name, ret_view, ret_st);
	if (dir->kind == ICM_CONTROL_ROOT)
		r = lookup_fixed(dir, name, &n);
	else if (dir->kind == ICM_CONTROL_HISTORY)
		r = would_wait(view, call) ? ICM_WOULD_WAIT
					   : icm_control_history_lookup(dir, name, &n);
	if (r < 0)
		return r;
	r = get_attributes(n, call, ret_st);
	if (r < 0) {
		icm_fs_forget(&n->view, 1);
		return r;
	}
	*ret_view = &n->view;
	return 0;
}

static int control_lookup_cached(struct icm_view *view, const char *name,
				 struct icm_view **ret_view, struct stat *ret_st)
{
	const struct icm_call call = { 0 };

	if (icm_control_node_of(view)->kind != ICM_CONTROL_ROOT)
		return -ENOENT;
	return control_lookup(view, &call, name, ret_view, ret_st);
}

static int control_readlink(struct icm_view *view, const struct icm_call *call, char **ret_target)
{
	return icm_control_version_readlink(icm_control_node_of(view), ret_target);
}

/* ---- handles ---- */

static struct icm_control_handle *new_handle(struct icm_view *view, int flags)
{
	struct icm_control_handle *h = icm_xcalloc(1, sizeof(*h));

	icm_handle_init(&h->h, view, flags);
	pthread_mutex_init(&h->lock, NULL);
	return h;
}

static void clear_entries(struct icm_control_handle *h)
{
	for (size_t i = 0; i < h->n_entries; i++)
		free(h->entries[i].name);
	free(h->entries);
	h->entries = NULL;
	h->n_entries = 0;
}

static void free_handle(struct icm_control_handle *h)
{
	icm_buf_free(&h->text);
	for (size_t i = 0; i < h->n_segments; i++)
		free(h->segments[i]);
	free(h->segments);
	icm_data_free(h->data);
	clear_entries(h);
	pthread_mutex_destroy(&h->lock);
	icm_handle_deinit(&h->h);
	free(h);
}

static int generate(struct icm_control_handle *h)
{
	struct icm_control_node *n = icm_control_node_of(h->h.view);
	ICM_AUTOFREE char *text = NULL;

	switch (n->kind) {
	case ICM_CONTROL_STATUS:
		text = icm_control_status(n->view.vol);
		break;
	case ICM_CONTROL_LOCKS:
		text = icm_control_locks(n->view.vol);
		break;
	case ICM_CONTROL_LOG:
		return icm_control_log_open(h);
	case ICM_CONTROL_VERSION:
		return icm_control_version_open(h);
	default:
		return 0;
	}
	return icm_buf_addstr(&h->text, text);
}

static int control_open(struct icm_view *view, const struct icm_call *call, int flags,
			struct icm_open_result *ret)
{
	struct icm_control_node *n = icm_control_node_of(view);
	bool is_version = n->kind == ICM_CONTROL_VERSION;
	struct icm_control_handle *h;
	int r;

	if (n->kind != ICM_CONTROL_LOCK && ((flags & O_ACCMODE) != O_RDONLY || (flags & O_TRUNC)))
		return -EPERM;
	if ((is_version || n->kind == ICM_CONTROL_LOG) && would_wait(view, call))
		return ICM_WOULD_WAIT;
	h = new_handle(view, flags);
	r = generate(h);
	if (r < 0) {
		free_handle(h);
		return r;
	}
	ret->handle = &h->h;
	ret->keep_cache = is_version; /* never changes */
	ret->direct = !is_version;
	return 0;
}

static ssize_t read_locked(struct icm_control_handle *h, const struct icm_call *call, void *buf,
			   size_t size, size_t at)
{
	if (h->data) {
		if (icm_data_needs_fetch(h->data, at, size) && would_wait(h->h.view, call))
			return ICM_WOULD_WAIT;
		return icm_data_read(h->data, buf, size, at);
	}
	if (at + size > h->text.len && h->n_segments) {
		int r = would_wait(h->h.view, call) ? ICM_WOULD_WAIT
						    : icm_control_log_more(h, at + size);

		if (r < 0)
			return r;
	}
	if (at >= h->text.len)
		return 0;
	if (size > h->text.len - at)
		size = h->text.len - at;
	memcpy(buf, h->text.data + at, size);
	return (ssize_t)size;
}

static ssize_t control_read(struct icm_handle *handle, const struct icm_call *call, void *buf,
			    size_t size, off_t off)
{
	struct icm_control_handle *h = icm_control_handle_of(handle);
	ssize_t r;

	/* Another reader of this handle may have it while the store is asked. */
	if (!would_wait(handle->view, call))
		pthread_mutex_lock(&h->lock);
	else if (pthread_mutex_trylock(&h->lock) != 0)
		return ICM_WOULD_WAIT;
	r = read_locked(h, call, buf, size, (size_t)off);
	pthread_mutex_unlock(&h->lock);
	return r;
}

/* Only .icmfs/lock can be open for writing. */
static ssize_t control_write(struct icm_handle *h, const struct icm_call *call, const void *buf,
			     size_t size, off_t off, bool mapped)
{
	return -EPERM;
}

static bool is_lock_file(struct icm_handle *h)
{
	return h->view->ino == ICM_INO_LOCK_FILE;
}

static int control_flush(struct icm_handle *h, const struct icm_call *call, uint64_t lock_owner)
{
	if (is_lock_file(h))
		icm_volume_control_flush(h->view->vol, h, lock_owner);
	return 0;
}

static void control_release(struct icm_handle *h)
{
	if (is_lock_file(h))
		icm_volume_control_release(h->view->vol, h);
	free_handle(icm_control_handle_of(h));
}

/* ---- directories ---- */

void icm_control_add_entry(struct icm_control_handle *h, const char *name, uint64_t ino,
			   mode_t type)
{
	size_t n = h->n_entries;

	if ((n & (n - 1)) == 0) /* a power of two: full */
		h->entries = icm_xrealloc(h->entries, (n ? 2 * n : 1) * sizeof(*h->entries));
	h->entries[h->n_entries++] = (struct icm_control_entry){ icm_xstrdup(name), ino, type };
}

static int control_opendir(struct icm_view *view, const struct icm_call *call,
			   struct icm_handle **ret)
{
	*ret = &new_handle(view, O_RDONLY | O_DIRECTORY)->h;
	return 0;
}

/* Everything in the directory, from now until it is looked at from its start again. */
static int fill_entries(struct icm_control_handle *h)
{
	struct icm_control_node *n = icm_control_node_of(h->h.view);

	clear_entries(h);
	icm_control_add_entry(h, ".", n->view.ino, S_IFDIR);
	icm_control_add_entry(h, "..", n->root ? root_of(n)->view.ino : ICM_INO_ROOT, S_IFDIR);
	if (n->kind == ICM_CONTROL_ROOT)
		for (size_t i = 1; i < ICM_COUNT(fixed); i++)
			icm_control_add_entry(h, fixed[i].name, fixed[i].ino,
					      fixed[i].mode & S_IFMT);
	if (n->kind == ICM_CONTROL_SNAPSHOTS)
		return icm_control_snapshots_list(h);
	return n->kind == ICM_CONTROL_HISTORY ? icm_control_history_list(h, n->path) : 0;
}

/* Begins anew where the reader begins. History and snapshots ask the store. */
static int start_entries(struct icm_control_handle *h, const struct icm_call *call)
{
	if (icm_control_node_of(h->h.view)->kind != ICM_CONTROL_ROOT && would_wait(h->h.view, call))
		return ICM_WOULD_WAIT;
	return fill_entries(h);
}

static int control_readdir(struct icm_handle *handle, const struct icm_call *call, off_t off,
			   icm_dirent_fn fn, void *userdata)
{
	struct icm_control_handle *h = icm_control_handle_of(handle);
	ICM_LOCK_SCOPE(&h->lock);
	int r = off == 0 ? start_entries(h, call) : 0;

	if (r < 0)
		return r;
	for (size_t i = (size_t)off; i < h->n_entries; i++) {
		const struct icm_dirent e = { h->entries[i].name, h->entries[i].ino,
					      h->entries[i].type, (off_t)i + 1 };

		if (fn(userdata, &e))
			break;
	}
	return 0;
}

static void control_releasedir(struct icm_handle *h)
{
	free_handle(icm_control_handle_of(h));
}

const struct icm_view_ops icm_control_view_ops = {
	.name = "control",
	.lookup = control_lookup,
	.mkdir = control_mkdir,
	.rmdir = control_rmdir,
	.getattr = control_getattr,
	.setattr = control_setattr,
	.readlink = control_readlink,
	.open = control_open,
	.read = control_read,
	.write = control_write,
	.flush_waits = is_lock_file, /* its locks end in the store */
	.flush = control_flush,
	.release = control_release,
	.opendir = control_opendir,
	.readdir = control_readdir,
	.lookup_cached = control_lookup_cached,
	.releasedir = control_releasedir,
	.free = free_node,
};
