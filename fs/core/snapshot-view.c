/* SPDX-License-Identifier: MIT */
#include "core/snapshot-view.h"

#include <errno.h>
#include <string.h>

#include "core/attr.h"
#include "core/control.h"

/* Apart from shared files (below 2^52), scratch (bit 52) and .icmfs (bit 53). */
#define SNAPSHOT_BIT (ICM_INO_MAX << 2)

struct icm_snapshots {
	struct icm_volume *vol;
	pthread_mutex_t lock; /* protects the list and what is in it */
	struct opened *first;
};

/* A snapshot that the kernel knows something of. */
struct opened {
	struct opened *prev, *next;
	struct icm_snapshots *all;
	char *name;	/* owned */
	uint64_t index; /* of its key, when it was loaded */
	struct icm_snapshot *data;
	struct icm_map views; /* by inode; the last one frees this */
};

struct snapshot_view {
	struct icm_view view;
	struct icm_map_node node;
	struct opened *of;
	const struct icm_inode *inode; /* in the snapshot's tree; constant */
};

struct snapshot_handle {
	struct icm_handle h;
	pthread_mutex_t lock;
	struct icm_data *data; /* files; under lock */
};

static struct snapshot_view *view_of(struct icm_view *view)
{
	return ICM_CONTAINER(view, struct snapshot_view, view);
}

static struct snapshot_handle *handle_of(struct icm_handle *h)
{
	return ICM_CONTAINER(h, struct snapshot_handle, h);
}

static uint64_t ino_of(const struct icm_inode *inode)
{
	return inode->attr.ino | SNAPSHOT_BIT;
}

uint64_t icm_snapshots_root_ino(void)
{
	return ICM_INO_ROOT | SNAPSHOT_BIT;
}

/* ---- which there are ---- */

struct icm_snapshots *icm_snapshots_new(struct icm_volume *vol)
{
	struct icm_snapshots *all = icm_xcalloc(1, sizeof(*all));

	all->vol = vol;
	pthread_mutex_init(&all->lock, NULL);
	return all;
}

static void link_opened(struct icm_snapshots *all, struct opened *o)
{
	o->next = all->first;
	if (o->next)
		o->next->prev = o;
	all->first = o;
}

static void unlink_opened(struct opened *o)
{
	if (o->next)
		o->next->prev = o->prev;
	if (o->prev)
		o->prev->next = o->next;
	else
		o->all->first = o->next;
}

static void free_opened(struct opened *o)
{
	icm_map_free(&o->views);
	icm_snapshot_free(o->data);
	free(o->name);
	free(o);
}

static void free_view(struct icm_view *view)
{
	struct snapshot_view *v = view_of(view);
	struct opened *o = v->of;
	bool last;

	pthread_mutex_lock(&o->all->lock);
	icm_map_remove(&o->views, &v->node);
	last = o->views.count == 0;
	if (last)
		unlink_opened(o);
	pthread_mutex_unlock(&o->all->lock);
	free(v);
	if (last)
		free_opened(o);
}

struct icm_snapshots *icm_snapshots_free(struct icm_snapshots *all)
{
	struct opened *o;

	while (all && (o = all->first)) {
		unlink_opened(o);
		for (size_t i = 0; i < o->views.n_buckets; i++) {
			for (struct icm_map_node *n = o->views.buckets[i], *next; n; n = next) {
				next = n->next;
				free(ICM_CONTAINER(n, struct snapshot_view, node));
			}
		}
		free_opened(o);
	}
	if (all)
		pthread_mutex_destroy(&all->lock);
	free(all);
	return NULL;
}

/* The view of an inode with a reference for the caller; the lock held. */
static struct icm_view *get_view(struct opened *o, const struct icm_inode *inode)
{
	uint64_t hash = icm_hash_u64((uintptr_t)inode);
	struct snapshot_view *v;

	for (struct icm_map_node *n = icm_map_first(&o->views, hash); n; n = icm_map_next(n)) {
		v = ICM_CONTAINER(n, struct snapshot_view, node);
		if (v->inode == inode && icm_view_tryref(&v->view))
			return &v->view;
	}
	v = icm_xcalloc(1, sizeof(*v));
	icm_view_init(&v->view, &icm_snapshot_view_ops, o->all->vol, ino_of(inode),
		      inode->attr.mode);
	v->of = o;
	v->inode = inode;
	icm_map_add(&o->views, &v->node, hash);
	return &v->view;
}

/* The root of one that is in use already; NULL: it isn't. */
static struct icm_view *find_root(struct icm_snapshots *all, const char *name, uint64_t index)
{
	ICM_LOCK_SCOPE(&all->lock);

	for (struct opened *o = all->first; o; o = o->next)
		if (o->index == index && strcmp(o->name, name) == 0)
			return get_view(o, o->data->tree.root);
	return NULL;
}

static struct icm_view *add_root(struct icm_snapshots *all, const char *name, uint64_t index,
				 struct icm_snapshot *data)
{
	struct opened *o = icm_xcalloc(1, sizeof(*o));
	ICM_LOCK_SCOPE(&all->lock);

	o->all = all;
	o->name = icm_xstrdup(name);
	o->index = index;
	o->data = data;
	link_opened(all, o);
	return get_view(o, data->tree.root);
}

static void give_stat(const struct icm_inode *inode, struct stat *ret)
{
	icm_inode_stat(inode, ret);
	ret->st_ino = ino_of(inode);
}

int icm_snapshots_lookup(struct icm_snapshots *all, const char *name, struct icm_view **ret_view,
			 struct stat *ret_st)
{
	struct icm_snapshot *data;
	struct icm_snap snap;
	struct icm_view *view;
	uint64_t index;
	int r = icm_snapshot_find(all->vol, name, &snap, &index);

	if (r < 0)
		return r;
	view = find_root(all, name, index);
	if (view) {
		icm_snap_clear(&snap);
	} else {
		r = icm_snapshot_load(all->vol, name, &snap, &data);
		if (r < 0)
			return r;
		/* whoever else loads it now has a second one: they are alike */
		view = add_root(all, name, index, data);
	}
	give_stat(view_of(view)->inode, ret_st);
	*ret_view = view;
	return 0;
}

/* ---- names and attributes ---- */

static int snapshot_lookup_cached(struct icm_view *view, const char *name,
				  struct icm_view **ret_view, struct stat *ret_st)
{
	struct snapshot_view *dir = view_of(view);
	struct opened *o = dir->of;
	const struct icm_name *found = icm_tree_find(&o->data->tree, dir->inode, name);

	if (!found)
		return -ENOENT;
	pthread_mutex_lock(&o->all->lock);
	*ret_view = get_view(o, found->inode);
	pthread_mutex_unlock(&o->all->lock);
	give_stat(found->inode, ret_st);
	return 0;
}

static int snapshot_lookup(struct icm_view *view, const struct icm_call *call, const char *name,
			   struct icm_view **ret_view, struct stat *ret_st)
{
	if (!S_ISDIR(view->type))
		return -ENOTDIR;
	return snapshot_lookup_cached(view, name, ret_view, ret_st);
}

static int snapshot_getattr(struct icm_view *view, const struct icm_call *call,
			    struct icm_handle *h, struct stat *ret_st)
{
	give_stat(view_of(view)->inode, ret_st);
	return 0;
}

static int snapshot_readlink(struct icm_view *view, const struct icm_call *call, char **ret_target)
{
	struct snapshot_view *v = view_of(view);
	const struct icm_record *rec = icm_snapshot_record(v->of->data, v->inode);

	if (!rec || !rec->target)
		return -EIO;
	*ret_target = icm_xstrdup(rec->target);
	return 0;
}

static ssize_t snapshot_getxattr(struct icm_view *view, const struct icm_call *call,
				 const char *name, void *buf, size_t size)
{
	return icm_attr_give_xattr(&view_of(view)->inode->attr, name, buf, size);
}

static ssize_t snapshot_listxattr(struct icm_view *view, const struct icm_call *call, char *buf,
				  size_t size)
{
	return icm_attr_give_xattrs(&view_of(view)->inode->attr, buf, size);
}

/* ---- handles ---- */

static struct snapshot_handle *new_handle(struct icm_view *view, int flags)
{
	struct snapshot_handle *h = icm_xcalloc(1, sizeof(*h));

	icm_handle_init(&h->h, view, flags);
	pthread_mutex_init(&h->lock, NULL);
	return h;
}

static void snapshot_release(struct icm_handle *handle)
{
	struct snapshot_handle *h = handle_of(handle);

	icm_data_free(h->data);
	pthread_mutex_destroy(&h->lock);
	icm_handle_deinit(handle);
	free(h);
}

/* What is asked of the store may take its time. */
static bool would_wait(const struct icm_view *view, const struct icm_call *call)
{
	return call->nowait && !icm_volume_is_local(view->vol);
}

static int snapshot_open(struct icm_view *view, const struct icm_call *call, int flags,
			 struct icm_open_result *ret)
{
	struct snapshot_view *v = view_of(view);
	struct snapshot_handle *h;
	int r = 0;

	if ((flags & O_ACCMODE) != O_RDONLY || (flags & O_TRUNC))
		return -EROFS;
	if (would_wait(view, call))
		return ICM_WOULD_WAIT;
	h = new_handle(view, flags);
	if (S_ISREG(view->type))
		r = icm_snapshot_contents(view->vol, v->of->data, v->inode, &h->data);
	if (r < 0) {
		snapshot_release(&h->h);
		return r;
	}
	ret->handle = &h->h;
	ret->keep_cache = true; /* never changes */
	ret->direct = false;
	return 0;
}

static ssize_t snapshot_read(struct icm_handle *handle, const struct icm_call *call, void *buf,
			     size_t size, off_t off)
{
	struct snapshot_handle *h = handle_of(handle);
	ssize_t n;

	if (!would_wait(handle->view, call))
		pthread_mutex_lock(&h->lock);
	else if (pthread_mutex_trylock(&h->lock) != 0)
		return ICM_WOULD_WAIT; /* another reader has it while the store is asked */
	if (would_wait(handle->view, call) && icm_data_needs_fetch(h->data, (uint64_t)off, size))
		n = ICM_WOULD_WAIT;
	else
		n = icm_data_read(h->data, buf, size, (uint64_t)off);
	pthread_mutex_unlock(&h->lock);
	return n;
}

static off_t snapshot_lseek(struct icm_handle *handle, const struct icm_call *call, off_t off,
			    int whence)
{
	struct snapshot_handle *h = handle_of(handle);
	ICM_LOCK_SCOPE(&h->lock);

	return icm_data_seek(h->data, (uint64_t)off, whence);
}

/* ---- directories ---- */

static int snapshot_opendir(struct icm_view *view, const struct icm_call *call,
			    struct icm_handle **ret)
{
	*ret = &new_handle(view, O_RDONLY | O_DIRECTORY)->h;
	return 0;
}

/* "." and "..", which stand at 1 and 2; names have larger cookies. */
static bool give_dots(const struct icm_inode *dir, off_t off, icm_dirent_fn fn, void *userdata)
{
	uint64_t above = dir->names->dir ? ino_of(dir->names->dir) : ICM_INO_SNAPSHOTS;
	const struct icm_dirent dots[] = { { ".", ino_of(dir), S_IFDIR, 1 },
					   { "..", above, S_IFDIR, 2 } };

	for (size_t i = (size_t)off; i < ICM_COUNT(dots); i++)
		if (fn(userdata, &dots[i]))
			return false;
	return true;
}

static int snapshot_readdir(struct icm_handle *handle, const struct icm_call *call, off_t off,
			    icm_dirent_fn fn, void *userdata)
{
	const struct icm_inode *dir = view_of(handle->view)->inode;

	if (off < 2 && !give_dots(dir, off, fn, userdata))
		return 0;
	for (const struct icm_name *n = dir->first; n; n = n->next) {
		const struct icm_dirent e = { n->text, ino_of(n->inode),
					      n->inode->attr.mode & S_IFMT, (off_t)n->cookie };

		if (n->cookie > (uint64_t)off && fn(userdata, &e))
			break;
	}
	return 0;
}

/* ---- nothing changes here ---- */

static int refuse_setattr(struct icm_view *view, const struct icm_call *call, struct icm_handle *h,
			  unsigned set, const struct stat *st, struct stat *ret_st)
{
	return -EROFS;
}

static int refuse_mknod(struct icm_view *dir, const struct icm_call *call, const char *name,
			mode_t mode, dev_t rdev, struct icm_view **ret_view, struct stat *ret_st)
{
	return -EROFS;
}

static int refuse_mkdir(struct icm_view *dir, const struct icm_call *call, const char *name,
			mode_t mode, struct icm_view **ret_view, struct stat *ret_st)
{
	return -EROFS;
}

static int refuse_symlink(struct icm_view *dir, const struct icm_call *call, const char *name,
			  const char *target, struct icm_view **ret_view, struct stat *ret_st)
{
	return -EROFS;
}

static int refuse_link(struct icm_view *view, const struct icm_call *call, struct icm_view *dir,
		       const char *name, struct icm_view **ret_view, struct stat *ret_st)
{
	return -EROFS;
}

static int refuse_removal(struct icm_view *dir, const struct icm_call *call, const char *name)
{
	return -EROFS;
}

static int refuse_rename(struct icm_view *dir, const struct icm_call *call, const char *name,
			 struct icm_view *to_dir, const char *to_name, unsigned flags)
{
	return -EROFS;
}

static int refuse_setxattr(struct icm_view *view, const struct icm_call *call, const char *name,
			   const void *value, size_t size, int flags)
{
	return -EROFS;
}

static int refuse_removexattr(struct icm_view *view, const struct icm_call *call, const char *name)
{
	return -EROFS;
}

static int refuse_create(struct icm_view *dir, const struct icm_call *call, const char *name,
			 mode_t mode, int flags, struct icm_view **ret_view, struct stat *ret_st,
			 struct icm_open_result *ret)
{
	return -EROFS;
}

const struct icm_view_ops icm_snapshot_view_ops = {
	.name = "snapshot",
	.lookup = snapshot_lookup,
	.mknod = refuse_mknod,
	.mkdir = refuse_mkdir,
	.symlink = refuse_symlink,
	.link = refuse_link,
	.unlink = refuse_removal,
	.rmdir = refuse_removal,
	.rename = refuse_rename,
	.getattr = snapshot_getattr,
	.setattr = refuse_setattr,
	.readlink = snapshot_readlink,
	.getxattr = snapshot_getxattr,
	.listxattr = snapshot_listxattr,
	.setxattr = refuse_setxattr,
	.removexattr = refuse_removexattr,
	.create = refuse_create,
	.open = snapshot_open,
	.read = snapshot_read,
	.release = snapshot_release,
	.lseek = snapshot_lseek,
	.opendir = snapshot_opendir,
	.readdir = snapshot_readdir,
	.lookup_cached = snapshot_lookup_cached,
	.releasedir = snapshot_release,
	.free = free_view,
};
