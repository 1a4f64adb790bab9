/* SPDX-License-Identifier: MIT
 * The operations of fs.h: arguments that are wrong for every kind of object are
 * refused here, the rest is the kind's own (view.h). */
#include "core/fs.h"

#include <limits.h>
#include <string.h>
#include <sys/xattr.h>

#include "core/key.h"
#include "core/record.h"
#include "core/scratch.h"
#include "core/view.h"

#define COPY_CHUNK_BYTES ((size_t)256 << 10)

static bool is_mixed(const struct icm_view *a, const struct icm_view *b)
{
	return (a->ops == &icm_shared_view_ops && b->ops == &icm_scratch_view_ops) ||
	       (a->ops == &icm_scratch_view_ops && b->ops == &icm_shared_view_ops);
}

/* Whose table does an operation on two objects: a shared and a scratch one are
 * the shared kind's business, every other mixture has no one's. */
static const struct icm_view_ops *ops_of_both(const struct icm_view *a, const struct icm_view *b)
{
	if (a->ops == b->ops)
		return a->ops;
	return is_mixed(a, b) ? &icm_shared_view_ops : NULL;
}

/* ---- names ---- */

int icm_fs_lookup(struct icm_view *dir, const struct icm_call *call, const char *name,
		  struct icm_view **ret_view, struct stat *ret_st)
{
	int r = icm_name_check(name);

	if (r < 0)
		return r;
	if (!dir->ops->lookup)
		return -ENOTDIR;
	return dir->ops->lookup(dir, call, name, ret_view, ret_st);
}

int icm_fs_mknod(struct icm_view *dir, const struct icm_call *call, const char *name, mode_t mode,
		 dev_t rdev, struct icm_view **ret_view, struct stat *ret_st)
{
	int r = icm_name_check(name);

	if (r < 0)
		return r;
	if (!(mode & S_IFMT))
		mode |= S_IFREG;
	if (S_ISDIR(mode) || S_ISLNK(mode))
		return -EINVAL;
	if (!dir->ops->mknod)
		return -EPERM;
	return dir->ops->mknod(dir, call, name, mode, rdev, ret_view, ret_st);
}

int icm_fs_mkdir(struct icm_view *dir, const struct icm_call *call, const char *name, mode_t mode,
		 struct icm_view **ret_view, struct stat *ret_st)
{
	int r = icm_name_check(name);

	if (r < 0)
		return r;
	if (!dir->ops->mkdir)
		return -EPERM;
	return dir->ops->mkdir(dir, call, name, mode, ret_view, ret_st);
}

int icm_fs_symlink(struct icm_view *dir, const struct icm_call *call, const char *name,
		   const char *target, struct icm_view **ret_view, struct stat *ret_st)
{
	int r = icm_name_check(name);

	if (r < 0)
		return r;
	if (!target[0])
		return -ENOENT;
	if (strlen(target) > ICM_SYMLINK_MAX)
		return -ENAMETOOLONG;
	if (!dir->ops->symlink)
		return -EPERM;
	return dir->ops->symlink(dir, call, name, target, ret_view, ret_st);
}

int icm_fs_link(struct icm_view *view, const struct icm_call *call, struct icm_view *dir,
		const char *name, struct icm_view **ret_view, struct stat *ret_st)
{
	const struct icm_view_ops *ops = ops_of_both(view, dir);
	int r = icm_name_check(name);

	if (r < 0)
		return r;
	if (S_ISDIR(view->type))
		return -EPERM;
	if (!ops)
		return -EXDEV;
	if (!ops->link)
		return -EPERM;
	return ops->link(view, call, dir, name, ret_view, ret_st);
}

int icm_fs_unlink(struct icm_view *dir, const struct icm_call *call, const char *name)
{
	int r = icm_name_check(name);

	if (r < 0)
		return r;
	if (!dir->ops->unlink)
		return -EPERM;
	return dir->ops->unlink(dir, call, name);
}

int icm_fs_rmdir(struct icm_view *dir, const struct icm_call *call, const char *name)
{
	int r = icm_name_check(name);

	if (r < 0)
		return r;
	if (!dir->ops->rmdir)
		return -EPERM;
	return dir->ops->rmdir(dir, call, name);
}

int icm_fs_rename(struct icm_view *dir, const struct icm_call *call, const char *name,
		  struct icm_view *to_dir, const char *to_name, unsigned flags)
{
	const struct icm_view_ops *ops = ops_of_both(dir, to_dir);
	int r = icm_name_check(name);

	if (r >= 0)
		r = icm_name_check(to_name);
	if (r < 0)
		return r;
	if (flags != 0 && flags != RENAME_NOREPLACE && flags != RENAME_EXCHANGE)
		return -EINVAL;
	if (!ops)
		return -EXDEV;
	if (!ops->rename)
		return -EPERM;
	return ops->rename(dir, call, name, to_dir, to_name, flags);
}

/* ---- attributes ---- */

int icm_fs_getattr(struct icm_view *view, const struct icm_call *call, struct icm_handle *handle,
		   struct stat *ret_st)
{
	return view->ops->getattr(view, call, handle, ret_st);
}

int icm_fs_setattr(struct icm_view *view, const struct icm_call *call, struct icm_handle *handle,
		   unsigned set, const struct stat *st, struct stat *ret_st)
{
	set &= ~(unsigned)ICM_SET_CTIME;
	if (set & ICM_SET_SIZE) {
		if (S_ISDIR(view->type))
			return -EISDIR;
		if (!S_ISREG(view->type) || st->st_size < 0)
			return -EINVAL;
	}
	if (!set)
		return view->ops->getattr(view, call, handle, ret_st);
	if (!view->ops->setattr)
		return -EPERM;
	return view->ops->setattr(view, call, handle, set, st, ret_st);
}

int icm_fs_readlink(struct icm_view *view, const struct icm_call *call, char **ret_target)
{
	if (!S_ISLNK(view->type) || !view->ops->readlink)
		return -EINVAL;
	return view->ops->readlink(view, call, ret_target);
}

static bool has_prefix(const char *s, const char *prefix)
{
	return strncmp(s, prefix, strlen(prefix)) == 0;
}

/* 0, or why nobody can have an extended attribute of this name. */
static int check_xattr(const struct icm_call *call, const char *name)
{
	size_t len = strlen(name);

	if (len == 0 || len > ICM_XATTR_NAME_MAX)
		return -ERANGE;
	if (has_prefix(name, "user."))
		return len > strlen("user.") ? 0 : -EINVAL;
	if (has_prefix(name, "trusted.") && call->uid == 0)
		return len > strlen("trusted.") ? 0 : -EINVAL;
	return -EOPNOTSUPP;
}

ssize_t icm_fs_getxattr(struct icm_view *view, const struct icm_call *call, const char *name,
			void *buf, size_t size)
{
	int r = check_xattr(call, name);

	if (r < 0)
		return r;
	if (!view->ops->getxattr)
		return -ENODATA;
	return view->ops->getxattr(view, call, name, buf, size);
}

ssize_t icm_fs_listxattr(struct icm_view *view, const struct icm_call *call, char *buf, size_t size)
{
	return view->ops->listxattr ? view->ops->listxattr(view, call, buf, size) : 0;
}

int icm_fs_setxattr(struct icm_view *view, const struct icm_call *call, const char *name,
		    const void *value, size_t size, int flags)
{
	int r = check_xattr(call, name);

	if (r < 0)
		return r;
	if (flags & ~(XATTR_CREATE | XATTR_REPLACE))
		return -EINVAL;
	if (size > ICM_XATTR_VALUE_MAX)
		return -E2BIG;
	if (!view->ops->setxattr)
		return -EOPNOTSUPP;
	return view->ops->setxattr(view, call, name, value, size, flags);
}

int icm_fs_removexattr(struct icm_view *view, const struct icm_call *call, const char *name)
{
	int r = check_xattr(call, name);

	if (r < 0)
		return r;
	if (!view->ops->removexattr)
		return -EOPNOTSUPP;
	return view->ops->removexattr(view, call, name);
}

/* ---- files ---- */

int icm_fs_create(struct icm_view *dir, const struct icm_call *call, const char *name, mode_t mode,
		  int flags, struct icm_view **ret_view, struct stat *ret_st,
		  struct icm_open_result *ret)
{
	int r = icm_name_check(name);

	if (r < 0)
		return r;
	if (!dir->ops->create)
		return -EPERM;
	return dir->ops->create(dir, call, name, mode, flags, ret_view, ret_st, ret);
}

int icm_fs_open(struct icm_view *view, const struct icm_call *call, int flags,
		struct icm_open_result *ret)
{
	if (S_ISDIR(view->type) || !view->ops->open)
		return -EISDIR;
	if (S_ISLNK(view->type))
		return -ELOOP;
	return view->ops->open(view, call, flags, ret);
}

/* Whether [off, off + len) is a range of bytes that a file may have. */
static bool is_range(off_t off, uint64_t len)
{
	return off >= 0 && len <= (uint64_t)INT64_MAX - (uint64_t)off;
}

static bool is_writable(const struct icm_handle *h)
{
	return (h->flags & O_ACCMODE) != O_RDONLY;
}

ssize_t icm_fs_read(struct icm_handle *h, const struct icm_call *call, void *buf, size_t size,
		    off_t off)
{
	if (!h->view->ops->read)
		return -EBADF;
	if (off < 0 || size > SSIZE_MAX)
		return -EINVAL;
	return h->view->ops->read(h, call, buf, size, off);
}

ssize_t icm_fs_write(struct icm_handle *h, const struct icm_call *call, const void *buf,
		     size_t size, off_t off, bool mapped)
{
	if (!h->view->ops->write || !is_writable(h))
		return -EBADF;
	if (off < 0 || size > SSIZE_MAX)
		return -EINVAL;
	if (!is_range(off, size))
		return -EFBIG;
	return h->view->ops->write(h, call, buf, size, off, mapped);
}

bool icm_fs_flush_waits(struct icm_handle *h)
{
	return h->view->ops->flush_waits && h->view->ops->flush_waits(h);
}

int icm_fs_flush(struct icm_handle *h, const struct icm_call *call, uint64_t lock_owner)
{
	return h->view->ops->flush ? h->view->ops->flush(h, call, lock_owner) : 0;
}

int icm_fs_fsync(struct icm_handle *h, const struct icm_call *call, bool datasync)
{
	return h->view->ops->fsync ? h->view->ops->fsync(h, call, datasync) : 0;
}

void icm_fs_release(struct icm_handle *h)
{
	h->view->ops->release(h);
}

int icm_fs_fallocate(struct icm_handle *h, const struct icm_call *call, int mode, off_t off,
		     off_t len)
{
	if (off < 0 || len <= 0)
		return -EINVAL;
	if (!is_writable(h))
		return -EBADF;
	if (!is_range(off, (uint64_t)len))
		return -EFBIG;
	if (!h->view->ops->fallocate)
		return -EOPNOTSUPP;
	return h->view->ops->fallocate(h, call, mode, off, len);
}

off_t icm_fs_lseek(struct icm_handle *h, const struct icm_call *call, off_t off, int whence)
{
	if (!h->view->ops->lseek || (whence != SEEK_DATA && whence != SEEK_HOLE))
		return -EINVAL;
	if (off < 0)
		return -ENXIO;
	return h->view->ops->lseek(h, call, off, whence);
}

/* ---- copy_file_range ---- */

/* One file in two views (an old version is being read) is still one file. */
static bool is_same_file(const struct icm_view *a, const struct icm_view *b)
{
	return a == b || (a->vol == b->vol && a->ino == b->ino);
}

/* Shortens *len to what `in` has at off_in; generic_copy_file_checks() of the kernel. */
static int check_copy(struct icm_handle *in, off_t off_in, struct icm_handle *out, off_t off_out,
		      const struct icm_call *call, size_t *len)
{
	struct stat st;
	int r;

	if (!S_ISREG(in->view->type) || !S_ISREG(out->view->type) || off_in < 0 || off_out < 0)
		return -EINVAL;
	if (!in->view->ops->read || !out->view->ops->write || !is_writable(out) ||
	    (in->flags & O_ACCMODE) == O_WRONLY || (out->flags & O_APPEND))
		return -EBADF;
	if (!is_range(off_in, *len) || !is_range(off_out, *len))
		return -EOVERFLOW;
	r = icm_fs_getattr(in->view, call, in, &st);
	if (r < 0)
		return r;
	if (off_in >= st.st_size)
		*len = 0;
	else if (*len > (uint64_t)(st.st_size - off_in))
		*len = (size_t)(st.st_size - off_in);
	if (is_same_file(in->view, out->view) && off_out + (off_t)*len > off_in &&
	    off_out < off_in + (off_t)*len)
		return -EINVAL;
	return 0;
}

/* What the kind can do better, if it can for these two. */
static ssize_t copy_by_kind(struct icm_handle *in, off_t off_in, struct icm_handle *out,
			    off_t off_out, size_t len, const struct icm_call *call)
{
	if (in->view->ops != out->view->ops || !in->view->ops->copy_range)
		return -EOPNOTSUPP;
	return in->view->ops->copy_range(in, off_in, out, off_out, len, call);
}

static ssize_t copy_by_buffer(struct icm_handle *in, off_t off_in, struct icm_handle *out,
			      off_t off_out, size_t len, const struct icm_call *call)
{
	size_t cap = len < COPY_CHUNK_BYTES ? len : COPY_CHUNK_BYTES;
	ICM_AUTOFREE char *buf = icm_xmalloc(cap);
	size_t done = 0;

	while (done < len) {
		size_t part = len - done < cap ? len - done : cap;
		ssize_t n = icm_fs_read(in, call, buf, part, off_in + (off_t)done);

		if (n > 0)
			n = icm_fs_write(out, call, buf, (size_t)n, off_out + (off_t)done, false);
		if (n < 0)
			return done ? (ssize_t)done : n;
		if (n == 0)
			break;
		done += (size_t)n;
	}
	return (ssize_t)done;
}

ssize_t icm_fs_copy_range(struct icm_handle *in, off_t off_in, struct icm_handle *out,
			  off_t off_out, size_t len, const struct icm_call *call)
{
	ssize_t n;
	int r;

	if (len > INT_MAX) /* what a system call gives at most */
		len = INT_MAX;
	r = check_copy(in, off_in, out, off_out, call, &len);
	if (r < 0 || len == 0)
		return r;
	n = copy_by_kind(in, off_in, out, off_out, len, call);
	if (n != -EOPNOTSUPP && n != -EXDEV)
		return n;
	return copy_by_buffer(in, off_in, out, off_out, len, call);
}

/* ---- directories ---- */

int icm_fs_opendir(struct icm_view *dir, const struct icm_call *call, struct icm_handle **ret)
{
	if (!S_ISDIR(dir->type) || !dir->ops->opendir)
		return -ENOTDIR;
	return dir->ops->opendir(dir, call, ret);
}

int icm_fs_readdir(struct icm_handle *h, const struct icm_call *call, off_t off, icm_dirent_fn fn,
		   void *userdata)
{
	if (!h->view->ops->readdir)
		return -ENOTDIR;
	if (off < 0)
		return -EINVAL;
	return h->view->ops->readdir(h, call, off, fn, userdata);
}

int icm_fs_lookup_cached(struct icm_view *dir, const char *name, struct icm_view **ret_view,
			 struct stat *ret_st)
{
	if (!dir->ops->lookup_cached)
		return -ENOENT;
	return dir->ops->lookup_cached(dir, name, ret_view, ret_st);
}

void icm_fs_releasedir(struct icm_handle *h)
{
	if (h->view->ops->releasedir)
		h->view->ops->releasedir(h);
}
