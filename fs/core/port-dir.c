/* SPDX-License-Identifier: MIT
 * A plain directory as a port. Every path is resolved by openat2 below the
 * root without symbolic links: whoever else can write there can't make an
 * import by root read or write a file elsewhere. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <linux/openat2.h>
#include <stddef.h>
#include <string.h>
#include <sys/syscall.h>
#include <sys/xattr.h>

#include "core/port-common.h"
#include "util/cleanup.h"
#include "util/buf.h"

struct dir_port {
	struct icm_port port;
	int root; /* O_PATH descriptor */
};

struct icm_port_file {
	int fd;
};

/* The directory of a path, open, and its last component. */
struct place {
	int dir;
	char *owned;
	const char *name;
};

static void place_clear(struct place *pl)
{
	icm_closep(&pl->dir);
	free(pl->owned);
}

static int root_of(struct icm_port *p)
{
	return ICM_CONTAINER(p, struct dir_port, port)->root;
}

static int open_below(struct icm_port *p, const char *path, int flags, mode_t mode)
{
	/* openat2 refuses O_NOCTTY beside O_PATH, where it means nothing */
	struct open_how how = {
		.flags = (uint64_t)(flags | O_CLOEXEC | (flags & O_PATH ? 0 : O_NOCTTY)),
		.mode = flags & O_CREAT ? mode : 0,
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS,
	};
	long fd = syscall(SYS_openat2, root_of(p), *path ? path : ".", &how, sizeof(how));

	return fd < 0 ? -errno : (int)fd;
}

static int find_place(struct icm_port *p, const char *path, struct place *ret)
{
	char *parent = icm_xstrdup(path);
	char *slash = strrchr(parent, '/');
	int fd;

	if (slash)
		*slash = '\0';
	fd = open_below(p, slash ? parent : "", O_PATH | O_DIRECTORY, 0);
	if (fd < 0) {
		free(parent);
		return fd;
	}
	*ret = (struct place){ .dir = fd, .owned = parent, .name = slash ? slash + 1 : parent };
	return 0;
}

/* The root itself is named by an empty name in its own descriptor. */
#define AT_FLAGS (AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH)

static int dir_stat(struct icm_port *p, const char *path, struct stat *ret)
{
	ICM_CLEANUP(place_clear) struct place pl = { .dir = -1 };
	int r = find_place(p, path, &pl);

	if (r < 0)
		return r;
	return fstatat(pl.dir, pl.name, ret, AT_FLAGS) < 0 ? -errno : 0;
}

static void closedirp(DIR **d)
{
	if (*d)
		closedir(*d);
}

static int dir_list(struct icm_port *p, const char *path, struct icm_port_names *ret)
{
	ICM_CLEANUP(closedirp) DIR *d = NULL;
	int fd = open_below(p, path, O_RDONLY | O_DIRECTORY, 0);
	const struct dirent *e;

	if (fd < 0)
		return fd;
	d = fdopendir(fd);
	if (!d) {
		icm_closep(&fd);
		return -errno;
	}
	while (errno = 0, (e = readdir(d)))
		if (strcmp(e->d_name, ".") != 0 && strcmp(e->d_name, "..") != 0)
			icm_port_names_add(ret, e->d_name);
	if (errno) {
		int r = -errno;

		icm_port_names_clear(ret);
		return r;
	}
	icm_port_names_sort(ret);
	return 0;
}

static int dir_readlink(struct icm_port *p, const char *path, char **ret_target)
{
	ICM_CLEANUP(place_clear) struct place pl = { .dir = -1 };
	char target[ICM_SYMLINK_MAX + 2];
	int r = find_place(p, path, &pl);
	ssize_t n;

	if (r < 0)
		return r;
	n = readlinkat(pl.dir, pl.name, target, sizeof(target));
	if (n < 0)
		return -errno;
	if (n > ICM_SYMLINK_MAX)
		return -ENAMETOOLONG;
	*ret_target = icm_xstrndup(target, (size_t)n);
	return 0;
}

static ssize_t fd_listxattr(void *object, char *buf, size_t size)
{
	ssize_t n = flistxattr(*(int *)object, buf, size);

	return n < 0 ? -errno : n;
}

static ssize_t fd_getxattr(void *object, const char *name, void *buf, size_t size)
{
	ssize_t n = fgetxattr(*(int *)object, name, buf, size);

	return n < 0 ? -errno : n;
}

/* Other kinds than files and directories have no user.* attributes. */
int icm_port_xattrs_of_fd(int fd, struct icm_port_xattrs *ret)
{
	return icm_port_xattrs_read(&(struct icm_xattr_source){ fd_listxattr, fd_getxattr, &fd },
				    ret);
}

static int dir_xattrs(struct icm_port *p, const char *path, struct icm_port_xattrs *ret)
{
	ICM_AUTOCLOSE int fd = -1;
	struct stat st;
	int r = dir_stat(p, path, &st);

	if (r < 0)
		return r;
	*ret = (struct icm_port_xattrs){ 0 };
	if (!S_ISREG(st.st_mode) && !S_ISDIR(st.st_mode))
		return 0;
	fd = open_below(p, path, O_RDONLY | O_NONBLOCK, 0);
	if (fd < 0)
		return fd;
	return icm_port_xattrs_of_fd(fd, ret);
}

static int dir_mkdir(struct icm_port *p, const char *path, mode_t mode)
{
	ICM_CLEANUP(place_clear) struct place pl = { .dir = -1 };
	int r = find_place(p, path, &pl);

	if (r < 0)
		return r;
	return mkdirat(pl.dir, pl.name, mode) < 0 ? -errno : 0;
}

static int dir_symlink(struct icm_port *p, const char *path, const char *target)
{
	ICM_CLEANUP(place_clear) struct place pl = { .dir = -1 };
	int r = find_place(p, path, &pl);

	if (r < 0)
		return r;
	return symlinkat(target, pl.dir, pl.name) < 0 ? -errno : 0;
}

static int dir_mknod(struct icm_port *p, const char *path, mode_t mode, dev_t rdev)
{
	ICM_CLEANUP(place_clear) struct place pl = { .dir = -1 };
	int r = find_place(p, path, &pl);

	if (r < 0)
		return r;
	return mknodat(pl.dir, pl.name, mode, rdev) < 0 ? -errno : 0;
}

static int dir_link(struct icm_port *p, const char *from, const char *path)
{
	ICM_CLEANUP(place_clear) struct place old = { .dir = -1 };
	ICM_CLEANUP(place_clear) struct place pl = { .dir = -1 };
	int r = find_place(p, from, &old);

	if (r >= 0)
		r = find_place(p, path, &pl);
	if (r < 0)
		return r;
	return linkat(old.dir, old.name, pl.dir, pl.name, 0) < 0 ? -errno : 0;
}

static int dir_remove(struct icm_port *p, const char *path, bool is_dir)
{
	ICM_CLEANUP(place_clear) struct place pl = { .dir = -1 };
	int r = find_place(p, path, &pl);

	if (r < 0)
		return r;
	return unlinkat(pl.dir, pl.name, is_dir ? AT_REMOVEDIR : 0) < 0 ? -errno : 0;
}

/* Owner first: changing it takes set-id bits away. Times last. */
static int set_fd(int fd, const struct stat *st)
{
	const struct timespec times[] = { st->st_atim, st->st_mtim };

	if (geteuid() == 0 && fchown(fd, st->st_uid, st->st_gid) < 0)
		return -errno;
	if (fchmod(fd, st->st_mode & 07777) < 0 || futimens(fd, times) < 0)
		return -errno;
	return 0;
}

static int dir_set(struct icm_port *p, const char *path, struct icm_port_file *file,
		   const struct stat *st)
{
	ICM_CLEANUP(place_clear) struct place pl = { .dir = -1 };
	const struct timespec times[] = { st->st_atim, st->st_mtim };
	int r;

	if (file)
		return set_fd(file->fd, st);
	r = find_place(p, path, &pl);
	if (r < 0)
		return r;
	if (geteuid() == 0 && fchownat(pl.dir, pl.name, st->st_uid, st->st_gid, AT_FLAGS) < 0)
		return -errno;
	/* A name of ours that was checked to be no link just now; there is no
	 * fchmodat that takes AT_SYMLINK_NOFOLLOW for all kinds. */
	if (!S_ISLNK(st->st_mode) &&
	    fchmodat(pl.dir, *pl.name ? pl.name : ".", st->st_mode & 07777, 0) < 0)
		return -errno;
	if (utimensat(pl.dir, *pl.name ? pl.name : ".", times, AT_SYMLINK_NOFOLLOW) < 0)
		return -errno;
	return 0;
}

static int dir_set_xattr(struct icm_port *p, const char *path, struct icm_port_file *file,
			 const char *name, const void *value, size_t len)
{
	ICM_AUTOCLOSE int opened = -1;
	int fd = file ? file->fd : -1;
	int r;

	if (!file) {
		opened = fd = open_below(p, path, O_RDONLY | O_NONBLOCK, 0);
		if (fd < 0)
			return fd;
	}
	r = value ? fsetxattr(fd, name, value, len, 0) : fremovexattr(fd, name);
	return r < 0 ? -errno : 0;
}

static int dir_open(struct icm_port *p, const char *path, int flags, struct icm_port_file **ret)
{
	int fd = open_below(p, path, flags | O_NONBLOCK, 0600);
	struct icm_port_file *f;

	if (fd < 0)
		return fd;
	f = icm_xcalloc(1, sizeof(*f));
	f->fd = fd;
	*ret = f;
	return 0;
}

static ssize_t dir_read(struct icm_port *p, struct icm_port_file *f, void *buf, size_t len,
			off_t off)
{
	ssize_t n = pread(f->fd, buf, len, off);

	return n < 0 ? -errno : n;
}

static int dir_write(struct icm_port *p, struct icm_port_file *f, const void *buf, size_t len,
		     off_t off)
{
	const char *from = buf;

	while (len) {
		ssize_t n = pwrite(f->fd, from, len, off);

		if (n < 0)
			return -errno;
		from += n;
		off += n;
		len -= (size_t)n;
	}
	return 0;
}

static int dir_truncate(struct icm_port *p, struct icm_port_file *f, off_t size)
{
	return ftruncate(f->fd, size) < 0 ? -errno : 0;
}

static off_t dir_seek(struct icm_port *p, struct icm_port_file *f, off_t off, int whence)
{
	off_t r = lseek(f->fd, off, whence);

	return r < 0 ? -errno : r;
}

static int dir_close(struct icm_port *p, struct icm_port_file *f)
{
	int r = close(f->fd) < 0 ? -errno : 0;

	free(f);
	return r;
}

static void dir_free(struct icm_port *p)
{
	struct dir_port *d = ICM_CONTAINER(p, struct dir_port, port);

	close(d->root);
	free(d);
}

static const struct icm_port_ops dir_ops = {
	.stat = dir_stat,
	.list = dir_list,
	.readlink = dir_readlink,
	.xattrs = dir_xattrs,
	.mkdir = dir_mkdir,
	.symlink = dir_symlink,
	.mknod = dir_mknod,
	.link = dir_link,
	.remove = dir_remove,
	.set = dir_set,
	.set_xattr = dir_set_xattr,
	.open = dir_open,
	.read = dir_read,
	.write = dir_write,
	.truncate = dir_truncate,
	.seek = dir_seek,
	.close = dir_close,
	.free = dir_free,
};

int icm_port_open_dir(const char *path, struct icm_port **ret)
{
	int fd = open(path, O_PATH | O_DIRECTORY | O_CLOEXEC);
	struct dir_port *d;

	if (fd < 0)
		return -errno;
	d = icm_xcalloc(1, sizeof(*d));
	d->port.ops = &dir_ops;
	d->root = fd;
	*ret = &d->port;
	return 0;
}
