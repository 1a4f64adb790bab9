/* SPDX-License-Identifier: MIT
 * Open scratch files and attributes: system calls on the local object. */
#include "core/scratch-local.h"

#include <errno.h>
#include <string.h>
#include <sys/xattr.h>

#include "core/introspect.h"
#include "util/buf.h"

/* ---- handles ---- */

struct icm_handle *icm_scratch_handle_new(struct icm_scratch_node *n, int fd, int flags)
{
	struct icm_scratch_handle *h = icm_xcalloc(1, sizeof(*h));

	icm_handle_init(&h->h, &n->view, flags);
	h->fd = fd;
	pthread_mutex_init(&h->dir_lock, NULL);
	pthread_mutex_lock(&n->s->lock);
	h->next = n->handles;
	n->handles = h;
	pthread_mutex_unlock(&n->s->lock);
	return &h->h;
}

void icm_scratch_handle_free(struct icm_scratch_handle *h)
{
	struct icm_scratch_node *n = icm_scratch_node_of(h->h.view);
	struct icm_scratch_handle **at;
	struct stat st;
	bool known = icm_scratch_fstat(h->fd, &st) == 0;

	pthread_mutex_lock(&n->s->lock);
	for (at = &n->handles; *at != h; at = &(*at)->next)
		;
	*at = h->next;
	if (known && !n->is_listed)
		n->last = st; /* nobody can ask the file itself any more */
	pthread_mutex_unlock(&n->s->lock);
	close(h->fd);
	if (h->dir)
		closedir(h->dir);
	pthread_mutex_destroy(&h->dir_lock);
	icm_handle_deinit(&h->h);
	free(h);
}

static bool is_exported(struct icm_handle *h)
{
	return atomic_load(&icm_scratch_node_of(h->view)->is_exported);
}

int icm_scratch_view_open(struct icm_view *view, const struct icm_call *call, int flags,
			  struct icm_open_result *ret)
{
	struct icm_scratch_node *n = icm_scratch_node_of(view);
	/* Not O_APPEND: the kernel gives each write its offset. */
	int keep = flags & (O_ACCMODE | O_TRUNC | O_SYNC | O_DSYNC);
	ICM_AUTOCLOSE int object = -1;
	ICM_RDLOCK_SCOPE(&n->s->moves);
	int fd;

	if (atomic_load(&n->is_exported))
		return -ESTALE;
	object = icm_scratch_node_fd(n);
	if (object < 0)
		return object;
	fd = open(icm_scratch_proc(object).path, keep | O_NOCTTY | O_NONBLOCK | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	ret->handle = icm_scratch_handle_new(n, fd, flags);
	ret->keep_cache = true; /* nobody but the kernel of this mount changes it */
	ret->direct = false;
	return 0;
}

static ssize_t file_read(struct icm_handle *h, const struct icm_call *call, void *buf, size_t size,
			 off_t off)
{
	int fd = icm_scratch_handle_of(h)->fd;
	size_t done = 0;

	while (done < size) {
		ssize_t n = pread(fd, (char *)buf + done, size - done, off + (off_t)done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return done ? (ssize_t)done : -errno;
		if (n == 0)
			break;
		done += (size_t)n;
	}
	return (ssize_t)done;
}

static ssize_t file_write(struct icm_handle *h, const struct icm_call *call, const void *buf,
			  size_t size, off_t off, bool mapped)
{
	int fd = icm_scratch_handle_of(h)->fd;
	size_t done = 0;

	if (is_exported(h))
		return -ESTALE;
	while (done < size) {
		ssize_t n = pwrite(fd, (const char *)buf + done, size - done, off + (off_t)done);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		done += (size_t)n;
	}
	return (ssize_t)done;
}

static struct icm_lock_table *locks_of(struct icm_handle *h)
{
	struct icm_scratch_node *n = icm_scratch_node_of(h->view);
	ICM_LOCK_SCOPE(&n->s->lock);

	return n->locks;
}

static int file_flush(struct icm_handle *h, const struct icm_call *call, uint64_t lock_owner)
{
	struct icm_lock_table *locks = locks_of(h);

	if (locks)
		icm_lock_table_flush(locks, lock_owner);
	return 0;
}

static void file_release(struct icm_handle *h)
{
	struct icm_lock_table *locks = locks_of(h);

	if (locks)
		icm_lock_table_release(locks, h->serial);
	icm_scratch_handle_free(icm_scratch_handle_of(h));
}

static int file_fsync(struct icm_handle *h, const struct icm_call *call, bool datasync)
{
	int fd = icm_scratch_handle_of(h)->fd;

	return (datasync ? fdatasync(fd) : fsync(fd)) < 0 ? -errno : 0;
}

static int file_fallocate(struct icm_handle *h, const struct icm_call *call, int mode, off_t off,
			  off_t len)
{
	if (is_exported(h))
		return -ESTALE;
	return fallocate(icm_scratch_handle_of(h)->fd, mode, off, len) < 0 ? -errno : 0;
}

static off_t file_lseek(struct icm_handle *h, const struct icm_call *call, off_t off, int whence)
{
	/* The descriptor's own offset means nothing: reads and writes have theirs. */
	off_t at = lseek(icm_scratch_handle_of(h)->fd, off, whence);

	return at < 0 ? -errno : at;
}

static ssize_t file_copy_range(struct icm_handle *in, off_t off_in, struct icm_handle *out,
			       off_t off_out, size_t len, const struct icm_call *call)
{
	ssize_t n;

	if (is_exported(out))
		return -ESTALE;
	n = copy_file_range(icm_scratch_handle_of(in)->fd, &off_in, icm_scratch_handle_of(out)->fd,
			    &off_out, len, 0);
	return n < 0 ? -errno : n;
}

/* ---- attributes ---- */

/* Of an object without names and handles: as it was when it went. */
static int last_attributes(struct icm_scratch_node *n, struct stat *ret_st)
{
	ICM_LOCK_SCOPE(&n->s->lock);

	if (!n->last.st_mode)
		return -ESTALE;
	*ret_st = n->last;
	return 0;
}

/* A descriptor to work with; the handle's own isn't closed meanwhile. */
static int borrow_fd(struct icm_scratch_node *n, struct icm_handle *h, int *ret_owned)
{
	if (h)
		return icm_scratch_handle_of(h)->fd;
	*ret_owned = icm_scratch_node_fd(n);
	return *ret_owned;
}

static int view_getattr(struct icm_view *view, const struct icm_call *call, struct icm_handle *h,
			struct stat *ret_st)
{
	struct icm_scratch_node *n = icm_scratch_node_of(view);
	ICM_AUTOCLOSE int owned = -1;
	ICM_RDLOCK_SCOPE(&n->s->moves);
	int fd = borrow_fd(n, h, &owned);

	if (fd == -ESTALE)
		return last_attributes(n, ret_st);
	return fd < 0 ? fd : icm_scratch_fstat(fd, ret_st);
}

static int set_size(struct icm_scratch_node *n, struct icm_handle *h, int fd, off_t size)
{
	int r;

	if (atomic_load(&n->is_exported))
		return -ESTALE;
	if (h && (h->flags & O_ACCMODE) != O_RDONLY)
		r = ftruncate(fd, size); /* whatever the mode says by now */
	else
		r = truncate(icm_scratch_proc(fd).path, size);
	return r < 0 ? -errno : 0;
}

static int set_times(int fd, unsigned set, const struct stat *st)
{
	struct timespec times[2] = { { .tv_nsec = UTIME_OMIT }, { .tv_nsec = UTIME_OMIT } };

	if (set & ICM_SET_ATIME)
		times[0] = st->st_atim;
	if (set & ICM_SET_MTIME)
		times[1] = st->st_mtim;
	return utimensat(fd, "", times, AT_EMPTY_PATH) < 0 ? -errno : 0;
}

static int set_owner(int fd, unsigned set, const struct stat *st)
{
	uid_t uid = set & ICM_SET_UID ? st->st_uid : (uid_t)-1;
	gid_t gid = set & ICM_SET_GID ? st->st_gid : (gid_t)-1;

	return fchownat(fd, "", uid, gid, AT_EMPTY_PATH) < 0 ? -errno : 0;
}

/* The owner before the mode, whose set-id bits it clears; the times last. */
static int set_attributes(struct icm_scratch_node *n, struct icm_handle *h, int fd, unsigned set,
			  const struct stat *st)
{
	int r = 0;

	if (set & ICM_SET_SIZE)
		r = set_size(n, h, fd, st->st_size);
	if (r >= 0 && (set & (ICM_SET_UID | ICM_SET_GID)))
		r = set_owner(fd, set, st);
	if (r >= 0 && (set & ICM_SET_MODE))
		r = chmod(icm_scratch_proc(fd).path, st->st_mode & 07777) < 0 ? -errno : 0;
	if (r >= 0 && (set & (ICM_SET_ATIME | ICM_SET_MTIME)))
		r = set_times(fd, set, st);
	return r;
}

static int view_setattr(struct icm_view *view, const struct icm_call *call, struct icm_handle *h,
			unsigned set, const struct stat *st, struct stat *ret_st)
{
	struct icm_scratch_node *n = icm_scratch_node_of(view);
	ICM_AUTOCLOSE int owned = -1;
	ICM_RDLOCK_SCOPE(&n->s->moves);
	int fd = borrow_fd(n, h, &owned);
	int r = fd < 0 ? fd : set_attributes(n, h, fd, set, st);

	return r < 0 ? r : icm_scratch_fstat(fd, ret_st);
}

static int view_readlink(struct icm_view *view, const struct icm_call *call, char **ret_target)
{
	struct icm_scratch_node *n = icm_scratch_node_of(view);
	ICM_RDLOCK_SCOPE(&n->s->moves);
	ICM_AUTOCLOSE int fd = icm_scratch_node_fd(n);
	char target[PATH_MAX];
	ssize_t len;

	if (fd < 0)
		return fd;
	len = readlinkat(fd, "", target, sizeof(target));
	if (len < 0)
		return -errno;
	*ret_target = icm_xstrndup(target, (size_t)len);
	return 0;
}

/* ---- extended attributes ---- */

static ssize_t view_getxattr(struct icm_view *view, const struct icm_call *call, const char *name,
			     void *buf, size_t size)
{
	struct icm_scratch_node *n = icm_scratch_node_of(view);
	ICM_RDLOCK_SCOPE(&n->s->moves);
	ICM_AUTOCLOSE int fd = icm_scratch_node_fd(n);
	ssize_t len;

	if (fd < 0)
		return fd;
	len = getxattr(icm_scratch_proc(fd).path, name, buf, size);
	return len < 0 ? -errno : len;
}

/* Whether icm_fs_getxattr would give this one; the local disk may have others. */
static bool is_shown(const char *name, const struct icm_call *call)
{
	return strncmp(name, "user.", 5) == 0 ||
	       (call->uid == 0 && strncmp(name, "trusted.", 8) == 0);
}

static ssize_t copy_names(const char *names, size_t len, const struct icm_call *call, char *buf,
			  size_t size)
{
	size_t total = 0;

	for (const char *at = names; at < names + len; at += strlen(at) + 1) {
		size_t n = strlen(at) + 1;

		if (!is_shown(at, call))
			continue;
		if (size && total + n > size)
			return -ERANGE;
		if (size)
			memcpy(buf + total, at, n);
		total += n;
	}
	return (ssize_t)total;
}

static ssize_t view_listxattr(struct icm_view *view, const struct icm_call *call, char *buf,
			      size_t size)
{
	struct icm_scratch_node *n = icm_scratch_node_of(view);
	ICM_AUTOFREE char *names = icm_xmalloc(XATTR_LIST_MAX);
	ICM_RDLOCK_SCOPE(&n->s->moves);
	ICM_AUTOCLOSE int fd = icm_scratch_node_fd(n);
	ssize_t len;

	if (fd < 0)
		return fd;
	len = listxattr(icm_scratch_proc(fd).path, names, XATTR_LIST_MAX);
	if (len < 0)
		return errno == EOPNOTSUPP ? 0 : -errno;
	return copy_names(names, (size_t)len, call, buf, size);
}

static int view_setxattr(struct icm_view *view, const struct icm_call *call, const char *name,
			 const void *value, size_t size, int flags)
{
	struct icm_scratch_node *n = icm_scratch_node_of(view);
	ICM_RDLOCK_SCOPE(&n->s->moves);
	ICM_AUTOCLOSE int fd = icm_scratch_node_fd(n);

	if (fd < 0)
		return fd;
	return setxattr(icm_scratch_proc(fd).path, name, value, size, flags) < 0 ? -errno : 0;
}

static int view_removexattr(struct icm_view *view, const struct icm_call *call, const char *name)
{
	struct icm_scratch_node *n = icm_scratch_node_of(view);
	ICM_RDLOCK_SCOPE(&n->s->moves);
	ICM_AUTOCLOSE int fd = icm_scratch_node_fd(n);

	if (fd < 0)
		return fd;
	return removexattr(icm_scratch_proc(fd).path, name) < 0 ? -errno : 0;
}

const struct icm_view_ops icm_scratch_view_ops = {
	.name = "scratch",
	.lookup = icm_scratch_view_lookup,
	.mknod = icm_scratch_view_mknod,
	.mkdir = icm_scratch_view_mkdir,
	.symlink = icm_scratch_view_symlink,
	.link = icm_scratch_view_link,
	.unlink = icm_scratch_view_unlink,
	.rmdir = icm_scratch_view_rmdir,
	.rename = icm_scratch_view_rename,
	.getattr = view_getattr,
	.setattr = view_setattr,
	.readlink = view_readlink,
	.getxattr = view_getxattr,
	.listxattr = view_listxattr,
	.setxattr = view_setxattr,
	.removexattr = view_removexattr,
	.create = icm_scratch_view_create,
	.open = icm_scratch_view_open,
	.read = file_read,
	.write = file_write,
	.flush = file_flush,
	.fsync = file_fsync,
	.release = file_release,
	.fallocate = file_fallocate,
	.lseek = file_lseek,
	.opendir = icm_scratch_view_opendir,
	.readdir = icm_scratch_view_readdir,
	.lookup_cached = icm_scratch_view_lookup_cached,
	.releasedir = icm_scratch_view_releasedir,
	.copy_range = file_copy_range,
	.free = icm_scratch_node_free,
};
