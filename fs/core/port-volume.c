/* SPDX-License-Identifier: MIT
 * A volume as a port: the same operations that a mount would do, without one. */
#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <string.h>

#include "core/fs.h"
#include "core/port-common.h"
#include "core/volume.h"
#include "util/buf.h"
#include "util/cleanup.h"

struct volume_port {
	struct icm_port port;
	struct icm_volume *vol;
	struct icm_call call;
};

struct icm_port_file {
	struct icm_view *view; /* referenced */
	struct icm_handle *handle;
};

static struct volume_port *volume_of(struct icm_port *p)
{
	return ICM_CONTAINER(p, struct volume_port, port);
}

static void forgetp(struct icm_view **view)
{
	if (*view)
		icm_fs_forget(*view, 1);
}
#define AUTOVIEW ICM_CLEANUP(forgetp)

/* The view of a path's first `len` bytes, with a reference. */
static int walk(struct volume_port *v, const char *path, size_t len, struct icm_view **ret_view,
		struct stat *ret_st)
{
	AUTOVIEW struct icm_view *view = icm_fs_root(v->vol);
	const char *end = path + len;
	int r;

	icm_view_ref(view);
	r = icm_fs_getattr(view, &v->call, NULL, ret_st);
	if (r < 0)
		return r;
	while (path < end) {
		const char *slash = memchr(path, '/', (size_t)(end - path));
		size_t n = (size_t)((slash ? slash : end) - path);
		ICM_AUTOFREE char *name = icm_xstrndup(path, n);
		struct icm_view *next;

		r = icm_fs_lookup(view, &v->call, name, &next, ret_st);
		if (r < 0)
			return r;
		icm_fs_forget(view, 1);
		view = next;
		path += n + !!slash;
	}
	*ret_view = ICM_STEAL(&view);
	return 0;
}

static int find(struct icm_port *p, const char *path, struct icm_view **ret_view,
		struct stat *ret_st)
{
	return walk(volume_of(p), path, strlen(path), ret_view, ret_st);
}

/* The directory of a path and the last component (borrowed from path). */
static int find_parent(struct icm_port *p, const char *path, struct icm_view **ret_dir,
		       const char **ret_name)
{
	const char *slash = strrchr(path, '/');
	struct stat st;

	*ret_name = slash ? slash + 1 : path;
	return walk(volume_of(p), path, slash ? (size_t)(slash - path) : 0, ret_dir, &st);
}

static int volume_stat(struct icm_port *p, const char *path, struct stat *ret)
{
	AUTOVIEW struct icm_view *view = NULL;

	return find(p, path, &view, ret);
}

static int take_name(void *userdata, const struct icm_dirent *e)
{
	if (strcmp(e->name, ".") != 0 && strcmp(e->name, "..") != 0)
		icm_port_names_add(userdata, e->name);
	return 0;
}

static int volume_list(struct icm_port *p, const char *path, struct icm_port_names *ret)
{
	AUTOVIEW struct icm_view *view = NULL;
	const struct icm_call *call = &volume_of(p)->call;
	struct icm_handle *h;
	struct stat st;
	int r = find(p, path, &view, &st);

	if (r >= 0)
		r = icm_fs_opendir(view, call, &h);
	if (r < 0)
		return r;
	r = icm_fs_readdir(h, call, 0, take_name, ret);
	icm_fs_releasedir(h);
	if (r < 0)
		icm_port_names_clear(ret);
	else
		icm_port_names_sort(ret);
	return r;
}

static int volume_readlink(struct icm_port *p, const char *path, char **ret_target)
{
	AUTOVIEW struct icm_view *view = NULL;
	struct stat st;
	int r = find(p, path, &view, &st);

	return r < 0 ? r : icm_fs_readlink(view, &volume_of(p)->call, ret_target);
}

struct xattr_object {
	struct icm_view *view;
	const struct icm_call *call;
};

static ssize_t view_listxattr(void *object, char *buf, size_t size)
{
	const struct xattr_object *o = object;

	return icm_fs_listxattr(o->view, o->call, buf, size);
}

static ssize_t view_getxattr(void *object, const char *name, void *buf, size_t size)
{
	const struct xattr_object *o = object;

	return icm_fs_getxattr(o->view, o->call, name, buf, size);
}

static int volume_xattrs(struct icm_port *p, const char *path, struct icm_port_xattrs *ret)
{
	AUTOVIEW struct icm_view *view = NULL;
	struct xattr_object o = { .call = &volume_of(p)->call };
	struct stat st;
	int r = find(p, path, &view, &st);

	if (r < 0)
		return r;
	o.view = view;
	return icm_port_xattrs_read(&(struct icm_xattr_source){ view_listxattr, view_getxattr, &o },
				    ret);
}

static int volume_mkdir(struct icm_port *p, const char *path, mode_t mode)
{
	AUTOVIEW struct icm_view *dir = NULL;
	AUTOVIEW struct icm_view *made = NULL;
	const char *name;
	struct stat st;
	int r = find_parent(p, path, &dir, &name);

	return r < 0 ? r : icm_fs_mkdir(dir, &volume_of(p)->call, name, mode, &made, &st);
}

static int volume_symlink(struct icm_port *p, const char *path, const char *target)
{
	AUTOVIEW struct icm_view *dir = NULL;
	AUTOVIEW struct icm_view *made = NULL;
	const char *name;
	struct stat st;
	int r = find_parent(p, path, &dir, &name);

	return r < 0 ? r : icm_fs_symlink(dir, &volume_of(p)->call, name, target, &made, &st);
}

static int volume_mknod(struct icm_port *p, const char *path, mode_t mode, dev_t rdev)
{
	AUTOVIEW struct icm_view *dir = NULL;
	AUTOVIEW struct icm_view *made = NULL;
	const char *name;
	struct stat st;
	int r = find_parent(p, path, &dir, &name);

	return r < 0 ? r : icm_fs_mknod(dir, &volume_of(p)->call, name, mode, rdev, &made, &st);
}

static int volume_link(struct icm_port *p, const char *from, const char *path)
{
	AUTOVIEW struct icm_view *dir = NULL;
	AUTOVIEW struct icm_view *view = NULL;
	AUTOVIEW struct icm_view *made = NULL;
	const char *name;
	struct stat st;
	int r = find(p, from, &view, &st);

	if (r >= 0)
		r = find_parent(p, path, &dir, &name);
	return r < 0 ? r : icm_fs_link(view, &volume_of(p)->call, dir, name, &made, &st);
}

static int volume_remove(struct icm_port *p, const char *path, bool is_dir)
{
	AUTOVIEW struct icm_view *dir = NULL;
	const struct icm_call *call = &volume_of(p)->call;
	const char *name;
	int r = find_parent(p, path, &dir, &name);

	if (r < 0)
		return r;
	return is_dir ? icm_fs_rmdir(dir, call, name) : icm_fs_unlink(dir, call, name);
}

/* In two steps as chown, chmod and utimensat through a mount would come: times
 * of an open file wait for its publication, the rest doesn't. */
static int set_view(struct icm_port *p, struct icm_view *view, struct icm_handle *handle,
		    const struct stat *st)
{
	const struct icm_call *call = &volume_of(p)->call;
	unsigned owner = geteuid() == 0 ? ICM_SET_UID | ICM_SET_GID : 0;
	unsigned mode = S_ISLNK(st->st_mode) ? 0 : ICM_SET_MODE;
	struct stat now;
	int r = owner | mode ? icm_fs_setattr(view, call, handle, owner | mode, st, &now) : 0;

	if (r < 0)
		return r;
	return icm_fs_setattr(view, call, handle, ICM_SET_ATIME | ICM_SET_MTIME, st, &now);
}

static int volume_set(struct icm_port *p, const char *path, struct icm_port_file *file,
		      const struct stat *st)
{
	AUTOVIEW struct icm_view *view = NULL;
	struct stat now;
	int r;

	if (file)
		return set_view(p, file->view, file->handle, st);
	r = find(p, path, &view, &now);
	return r < 0 ? r : set_view(p, view, NULL, st);
}

static int volume_set_xattr(struct icm_port *p, const char *path, struct icm_port_file *file,
			    const char *name, const void *value, size_t len)
{
	AUTOVIEW struct icm_view *found = NULL;
	const struct icm_call *call = &volume_of(p)->call;
	struct icm_view *view = file ? file->view : NULL;
	struct stat st;

	if (!view) {
		int r = find(p, path, &found, &st);

		if (r < 0)
			return r;
		view = found;
	}
	return value ? icm_fs_setxattr(view, call, name, value, len, 0)
		     : icm_fs_removexattr(view, call, name);
}

/* As open(2): a name that isn't there is created. */
static int open_or_create(struct icm_port *p, const char *path, int flags, struct icm_view **view,
			  struct icm_open_result *result)
{
	AUTOVIEW struct icm_view *dir = NULL;
	const struct icm_call *call = &volume_of(p)->call;
	const char *name;
	struct stat st;
	int r = find(p, path, view, &st);

	if (r >= 0 && S_ISREG(st.st_mode))
		return icm_fs_open(*view, call, flags & ~O_CREAT, result);
	if (r >= 0)
		return S_ISDIR(st.st_mode) ? -EISDIR : -EINVAL;
	if (r != -ENOENT || !(flags & O_CREAT))
		return r;
	r = find_parent(p, path, &dir, &name);
	if (r < 0)
		return r;
	return icm_fs_create(dir, call, name, S_IFREG | 0600, flags, view, &st, result);
}

static int volume_open(struct icm_port *p, const char *path, int flags, struct icm_port_file **ret)
{
	AUTOVIEW struct icm_view *view = NULL;
	struct icm_open_result result = { 0 };
	struct icm_port_file *f;
	int r = open_or_create(p, path, flags, &view, &result);

	if (r < 0)
		return r;
	f = icm_xcalloc(1, sizeof(*f));
	f->view = ICM_STEAL(&view);
	f->handle = result.handle;
	*ret = f;
	return 0;
}

static ssize_t volume_read(struct icm_port *p, struct icm_port_file *f, void *buf, size_t len,
			   off_t off)
{
	return icm_fs_read(f->handle, &volume_of(p)->call, buf, len, off);
}

static int volume_write(struct icm_port *p, struct icm_port_file *f, const void *buf, size_t len,
			off_t off)
{
	ssize_t n = icm_fs_write(f->handle, &volume_of(p)->call, buf, len, off, false);

	return n < 0 ? (int)n : 0;
}

static int volume_truncate(struct icm_port *p, struct icm_port_file *f, off_t size)
{
	const struct stat st = { .st_size = size };
	struct stat now;

	return icm_fs_setattr(f->view, &volume_of(p)->call, f->handle, ICM_SET_SIZE, &st, &now);
}

static off_t volume_seek(struct icm_port *p, struct icm_port_file *f, off_t off, int whence)
{
	return icm_fs_lseek(f->handle, &volume_of(p)->call, off, whence);
}

static int volume_close(struct icm_port *p, struct icm_port_file *f)
{
	int r = icm_fs_flush(f->handle, &volume_of(p)->call, 0);

	icm_fs_release(f->handle);
	icm_fs_forget(f->view, 1);
	free(f);
	return r;
}

static void volume_free(struct icm_port *p)
{
	free(volume_of(p));
}

static const struct icm_port_ops volume_ops = {
	.stat = volume_stat,
	.list = volume_list,
	.readlink = volume_readlink,
	.xattrs = volume_xattrs,
	.mkdir = volume_mkdir,
	.symlink = volume_symlink,
	.mknod = volume_mknod,
	.link = volume_link,
	.remove = volume_remove,
	.set = volume_set,
	.set_xattr = volume_set_xattr,
	.open = volume_open,
	.read = volume_read,
	.write = volume_write,
	.truncate = volume_truncate,
	.seek = volume_seek,
	.close = volume_close,
	.free = volume_free,
};

struct icm_port *icm_port_of_volume(struct icm_volume *vol)
{
	struct volume_port *v = icm_xcalloc(1, sizeof(*v));

	v->port.ops = &volume_ops;
	v->vol = vol;
	v->call = (struct icm_call){ .uid = geteuid(), .gid = getegid(), .pid = gettid() };
	return &v->port;
}
