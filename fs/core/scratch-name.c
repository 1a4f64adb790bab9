/* SPDX-License-Identifier: MIT
 * Names: each operation works on an open directory and a name in it, whether
 * the directory is scratch itself or stands for a shared one. */
#include "core/scratch-local.h"

#include <errno.h>
#include <string.h>

#include "core/key.h"
#include "util/buf.h"
#include "util/digest.h"
#include "util/log.h"

/* An open local directory; its path is that in the mount. */
struct place {
	int fd; /* O_PATH */
	char *path;
};

#define PLACE_INIT                                                                                 \
	{                                                                                          \
		-1, NULL                                                                           \
	}

static void placep(struct place *p)
{
	icm_closep(&p->fd);
	free(p->path);
}
#define AUTOPLACE ICM_CLEANUP(placep)

bool icm_scratch_is_stage(const char *name)
{
	return strncmp(name, ICM_SCRATCH_STAGE, strlen(ICM_SCRATCH_STAGE)) == 0;
}

void icm_scratch_stage_name(char name[static 64])
{
	char id[ICM_ID_HEX + 1];

	icm_random_id(id);
	snprintf(name, 64, "%s%s", ICM_SCRATCH_STAGE, id);
}

/* ---- places ---- */

/* Directories that stand for shared ones: nobody but us goes through them. */
static int make_stand_in(struct icm_scratch *s, const char *path)
{
	ICM_AUTOFREE char *dir = icm_xstrdup(path);
	char *slash = strrchr(dir, '/');
	ICM_AUTOCLOSE int fd = -1;

	if (slash)
		*slash = '\0';
	fd = icm_scratch_openat(s, slash ? dir : "", O_PATH | O_DIRECTORY);
	if (fd < 0)
		return fd;
	return mkdirat(fd, slash ? slash + 1 : dir, 0700) < 0 && errno != EEXIST ? -errno : 0;
}

static int make_stand_ins(struct icm_scratch *s, const char *path)
{
	ICM_AUTOFREE char *part = icm_xstrdup(path);

	for (char *slash = strchr(part, '/'); slash; slash = strchr(slash + 1, '/')) {
		int r;

		*slash = '\0';
		r = make_stand_in(s, part);
		if (r < 0)
			return r;
		*slash = '/';
	}
	return make_stand_in(s, part);
}

static int open_path(struct icm_scratch *s, const char *path, bool make, struct place *ret)
{
	int r = icm_scratch_openat(s, path, O_PATH | O_DIRECTORY);

	if (r == -ENOENT && make) {
		r = make_stand_ins(s, path);
		if (r >= 0)
			r = icm_scratch_openat(s, path, O_PATH | O_DIRECTORY);
	}
	if (r < 0)
		return r;
	*ret = (struct place){ r, icm_xstrdup(path) };
	return 0;
}

/* The directory that `path` is in; its name there is borrowed from `path`. */
static int open_parent(struct icm_scratch *s, const char *path, bool make, struct place *ret,
		       const char **ret_name)
{
	const char *slash = strrchr(path, '/');
	ICM_AUTOFREE char *dir = icm_xstrndup(path, slash ? (size_t)(slash - path) : 0);

	*ret_name = slash ? slash + 1 : path;
	return open_path(s, dir, make, ret);
}

/* -ENOENT for a directory that was removed: that is what a name in it gives. */
static int open_view(struct icm_view *dir, struct place *ret)
{
	struct icm_scratch_node *n = icm_scratch_node_of(dir);
	ICM_AUTOFREE char *path = icm_scratch_node_path(n);
	int fd;

	if (!S_ISDIR(dir->type))
		return -ENOTDIR;
	if (!path)
		return -ENOENT;
	fd = icm_scratch_node_fd(n);
	if (fd < 0)
		return fd == -ESTALE ? -ENOENT : fd;
	*ret = (struct place){ fd, ICM_STEAL(&path) };
	return 0;
}

static struct icm_scratch *scratch_of(struct icm_view *view)
{
	return icm_scratch_node_of(view)->s;
}

/* ---- looking up ---- */

/* A name's object, O_PATH; in a directory that is open already, so that it is
 * one component and no link is followed. */
static int open_name(const struct place *p, const char *name)
{
	int fd = openat(p->fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

static int get_view(struct icm_scratch *s, const struct place *p, const char *name, int fd,
		    struct icm_view **ret_view, struct stat *ret_st)
{
	ICM_AUTOFREE char *path = icm_path_join(p->path, name);
	struct stat st;

	if (fstat(fd, &st) < 0)
		return -errno;
	*ret_view = &icm_scratch_node_get(s, fd, &st, path)->view;
	st.st_ino = (*ret_view)->ino;
	*ret_st = st;
	return 0;
}

static int lookup_at(struct icm_scratch *s, const struct place *p, const char *name,
		     struct icm_view **ret_view, struct stat *ret_st)
{
	ICM_AUTOCLOSE int fd = -1;

	if (icm_scratch_is_stage(name))
		return -ENOENT;
	fd = open_name(p, name);
	return fd < 0 ? fd : get_view(s, p, name, fd, ret_view, ret_st);
}

int icm_scratch_lookup(struct icm_scratch *s, const char *dir, const char *name,
		       struct icm_view **ret_view, struct stat *ret_st)
{
	AUTOPLACE struct place p = PLACE_INIT;
	ICM_AUTOFREE char *path = icm_path_join(dir, name);
	ICM_RDLOCK_SCOPE(&s->moves);
	struct icm_view *view;
	struct stat st;
	int r = open_path(s, dir, false, &p);

	if (r >= 0)
		r = lookup_at(s, &p, name, &view, &st);
	if (r < 0)
		return r == -ENOTDIR ? -ENOENT : r;
	if (S_ISDIR(st.st_mode) && !icm_scratch_match(s, path, true)) {
		icm_fs_forget(view, 1); /* it stands for a shared one */
		return -ENOENT;
	}
	*ret_view = view;
	*ret_st = st;
	return 0;
}

int icm_scratch_view_lookup(struct icm_view *dir, const struct icm_call *call, const char *name,
			    struct icm_view **ret_view, struct stat *ret_st)
{
	struct icm_scratch *s = scratch_of(dir);
	AUTOPLACE struct place p = PLACE_INIT;
	ICM_RDLOCK_SCOPE(&s->moves);
	int r = open_view(dir, &p);

	return r < 0 ? r : lookup_at(s, &p, name, ret_view, ret_st);
}

int icm_scratch_view_lookup_cached(struct icm_view *dir, const char *name,
				   struct icm_view **ret_view, struct stat *ret_st)
{
	return icm_scratch_view_lookup(dir, NULL, name, ret_view, ret_st);
}

/* ---- making ---- */

/* What is to be made; the type is in `mode`. */
struct making {
	mode_t mode;
	dev_t rdev;
	const char *target; /* symbolic link */
};

/* Gives what was just made to the caller. The owner first, as that clears the
 * set-id bits; the umask of this process doesn't matter. */
static int adopt(struct icm_scratch *s, const struct icm_call *call, const struct place *p,
		 const char *name, mode_t mode)
{
	struct stat dir;
	gid_t gid = call->gid;

	if (fstat(p->fd, &dir) < 0)
		return -errno;
	if (dir.st_mode & S_ISGID) {
		gid = dir.st_gid;
		if (S_ISDIR(mode))
			mode |= S_ISGID;
	}
	if (s->is_root && fchownat(p->fd, name, call->uid, gid, AT_SYMLINK_NOFOLLOW) < 0)
		return -errno;
	if (!S_ISLNK(mode) && fchmodat(p->fd, name, mode & 07777, 0) < 0)
		return -errno;
	return 0;
}

static int make_object(const struct place *p, const char *name, const struct making *m)
{
	int r;

	if (S_ISDIR(m->mode))
		r = mkdirat(p->fd, name, 0700);
	else if (S_ISLNK(m->mode))
		r = symlinkat(m->target, p->fd, name);
	else
		r = mknodat(p->fd, name, (m->mode & S_IFMT) | 0600, m->rdev);
	return r < 0 ? -errno : 0;
}

static int make_at(struct icm_scratch *s, const struct icm_call *call, const struct place *p,
		   const char *name, const struct making *m, struct icm_view **ret_view,
		   struct stat *ret_st)
{
	int r = make_object(p, name, m);

	if (r < 0)
		return r;
	r = adopt(s, call, p, name, m->mode);
	if (r >= 0)
		r = lookup_at(s, p, name, ret_view, ret_st);
	if (r < 0)
		unlinkat(p->fd, name, S_ISDIR(m->mode) ? AT_REMOVEDIR : 0);
	return r;
}

static int make_in_path(struct icm_scratch *s, const struct icm_call *call, const char *dir,
			const char *name, const struct making *m, struct icm_view **ret_view,
			struct stat *ret_st)
{
	AUTOPLACE struct place p = PLACE_INIT;
	ICM_WRLOCK_SCOPE(&s->moves);
	int r = open_path(s, dir, true, &p);

	return r < 0 ? r : make_at(s, call, &p, name, m, ret_view, ret_st);
}

static int make_in_view(struct icm_view *dir, const struct icm_call *call, const char *name,
			const struct making *m, struct icm_view **ret_view, struct stat *ret_st)
{
	struct icm_scratch *s = scratch_of(dir);
	AUTOPLACE struct place p = PLACE_INIT;
	ICM_WRLOCK_SCOPE(&s->moves);
	int r = open_view(dir, &p);

	return r < 0 ? r : make_at(s, call, &p, name, m, ret_view, ret_st);
}

int icm_scratch_mknod(struct icm_scratch *s, const struct icm_call *call, const char *dir,
		      const char *name, mode_t mode, dev_t rdev, struct icm_view **ret_view,
		      struct stat *ret_st)
{
	struct making m = { .mode = mode, .rdev = rdev };

	return make_in_path(s, call, dir, name, &m, ret_view, ret_st);
}

int icm_scratch_mkdir(struct icm_scratch *s, const struct icm_call *call, const char *dir,
		      const char *name, mode_t mode, struct icm_view **ret_view,
		      struct stat *ret_st)
{
	struct making m = { .mode = S_IFDIR | (mode & 07777) };

	return make_in_path(s, call, dir, name, &m, ret_view, ret_st);
}

int icm_scratch_symlink(struct icm_scratch *s, const struct icm_call *call, const char *dir,
			const char *name, const char *target, struct icm_view **ret_view,
			struct stat *ret_st)
{
	struct making m = { .mode = S_IFLNK, .target = target };

	return make_in_path(s, call, dir, name, &m, ret_view, ret_st);
}

int icm_scratch_view_mknod(struct icm_view *dir, const struct icm_call *call, const char *name,
			   mode_t mode, dev_t rdev, struct icm_view **ret_view, struct stat *ret_st)
{
	struct making m = { .mode = mode, .rdev = rdev };

	return make_in_view(dir, call, name, &m, ret_view, ret_st);
}

int icm_scratch_view_mkdir(struct icm_view *dir, const struct icm_call *call, const char *name,
			   mode_t mode, struct icm_view **ret_view, struct stat *ret_st)
{
	struct making m = { .mode = S_IFDIR | (mode & 07777) };

	return make_in_view(dir, call, name, &m, ret_view, ret_st);
}

int icm_scratch_view_symlink(struct icm_view *dir, const struct icm_call *call, const char *name,
			     const char *target, struct icm_view **ret_view, struct stat *ret_st)
{
	struct making m = { .mode = S_IFLNK, .target = target };

	return make_in_view(dir, call, name, &m, ret_view, ret_st);
}

/* ---- making and opening a file ---- */

static int create_new(struct icm_scratch *s, const struct icm_call *call, const struct place *p,
		      const char *name, mode_t mode, int flags, struct icm_view **ret_view,
		      struct stat *ret_st, struct icm_open_result *ret)
{
	int keep = flags & (O_ACCMODE | O_SYNC | O_DSYNC);
	ICM_AUTOCLOSE int fd =
		openat(p->fd, name, keep | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	int r = fd < 0 ? -errno : adopt(s, call, p, name, S_IFREG | (mode & 07777));

	if (r >= 0)
		r = get_view(s, p, name, fd, ret_view, ret_st);
	if (r < 0) {
		if (fd >= 0)
			unlinkat(p->fd, name, 0);
		return r;
	}
	ret->handle = icm_scratch_handle_new(icm_scratch_node_of(*ret_view), fd, flags);
	fd = -1;
	ret->keep_cache = true;
	ret->direct = false;
	return 0;
}

/* Makes the file; 1 = the name exists, and was looked up. */
static int create_at(struct icm_scratch *s, const struct icm_call *call, const struct place *p,
		     const char *name, mode_t mode, int flags, struct icm_view **ret_view,
		     struct stat *ret_st, struct icm_open_result *ret)
{
	int r = create_new(s, call, p, name, mode, flags, ret_view, ret_st, ret);

	if (r != -EEXIST || (flags & O_EXCL))
		return r;
	r = lookup_at(s, p, name, ret_view, ret_st);
	return r < 0 ? r : 1;
}

/* The rest of a creation that met an existing file; without `moves`. */
static int open_existing(int r, const struct icm_call *call, int flags, struct icm_view **view,
			 struct stat *st, struct icm_open_result *ret)
{
	if (r <= 0)
		return r;
	r = icm_fs_open(*view, call, flags, ret);
	if (r >= 0)
		r = icm_fs_getattr(*view, call, ret->handle, st); /* O_TRUNC */
	if (r < 0)
		icm_fs_forget(ICM_STEAL(view), 1);
	return r;
}

int icm_scratch_create(struct icm_scratch *s, const struct icm_call *call, const char *dir,
		       const char *name, mode_t mode, int flags, struct icm_view **ret_view,
		       struct stat *ret_st, struct icm_open_result *ret)
{
	AUTOPLACE struct place p = PLACE_INIT;
	int r;

	pthread_rwlock_wrlock(&s->moves);
	r = open_path(s, dir, true, &p);
	if (r >= 0)
		r = create_at(s, call, &p, name, mode, flags, ret_view, ret_st, ret);
	pthread_rwlock_unlock(&s->moves);
	return open_existing(r, call, flags, ret_view, ret_st, ret);
}

int icm_scratch_view_create(struct icm_view *dir, const struct icm_call *call, const char *name,
			    mode_t mode, int flags, struct icm_view **ret_view, struct stat *ret_st,
			    struct icm_open_result *ret)
{
	struct icm_scratch *s = scratch_of(dir);
	AUTOPLACE struct place p = PLACE_INIT;
	int r;

	pthread_rwlock_wrlock(&s->moves);
	r = open_view(dir, &p);
	if (r >= 0)
		r = create_at(s, call, &p, name, mode, flags, ret_view, ret_st, ret);
	pthread_rwlock_unlock(&s->moves);
	return open_existing(r, call, flags, ret_view, ret_st, ret);
}

/* ---- links ---- */

static int link_at(struct icm_scratch *s, struct icm_view *view, const struct place *p,
		   const char *name, struct icm_view **ret_view, struct stat *ret_st)
{
	ICM_AUTOCLOSE int fd = icm_scratch_node_fd(icm_scratch_node_of(view));

	if (fd < 0)
		return fd == -ESTALE ? -ENOENT : fd;
	if (linkat(AT_FDCWD, icm_scratch_proc(fd).path, p->fd, name, AT_SYMLINK_FOLLOW) < 0)
		return -errno;
	return get_view(s, p, name, fd, ret_view, ret_st);
}

int icm_scratch_link(struct icm_scratch *s, struct icm_view *view, const char *dir,
		     const char *name, struct icm_view **ret_view, struct stat *ret_st)
{
	AUTOPLACE struct place p = PLACE_INIT;
	ICM_WRLOCK_SCOPE(&s->moves);
	int r = open_path(s, dir, true, &p);

	return r < 0 ? r : link_at(s, view, &p, name, ret_view, ret_st);
}

int icm_scratch_view_link(struct icm_view *view, const struct icm_call *call, struct icm_view *dir,
			  const char *name, struct icm_view **ret_view, struct stat *ret_st)
{
	struct icm_scratch *s = scratch_of(dir);
	AUTOPLACE struct place p = PLACE_INIT;
	ICM_WRLOCK_SCOPE(&s->moves);
	int r = open_view(dir, &p);

	return r < 0 ? r : link_at(s, view, &p, name, ret_view, ret_st);
}

/* ---- removing ---- */

static int remove_at(struct icm_scratch *s, const struct place *p, const char *name, int flags,
		     bool exported)
{
	ICM_AUTOFREE char *path = icm_path_join(p->path, name);
	ICM_AUTOCLOSE int fd = open_name(p, name);

	if (fd < 0)
		return fd;
	if (unlinkat(p->fd, name, flags) < 0)
		return -errno;
	icm_scratch_node_unlinked(s, fd, path, exported);
	return 0;
}

static int remove_in_path(struct icm_scratch *s, const char *dir, const char *name, int flags,
			  bool exported)
{
	AUTOPLACE struct place p = PLACE_INIT;
	ICM_WRLOCK_SCOPE(&s->moves);
	int r = open_path(s, dir, false, &p);

	return r < 0 ? r : remove_at(s, &p, name, flags, exported);
}

static int remove_in_view(struct icm_view *dir, const char *name, int flags)
{
	struct icm_scratch *s = scratch_of(dir);
	AUTOPLACE struct place p = PLACE_INIT;
	ICM_WRLOCK_SCOPE(&s->moves);
	int r = open_view(dir, &p);

	return r < 0 ? r : remove_at(s, &p, name, flags, false);
}

int icm_scratch_unlink(struct icm_scratch *s, const char *dir, const char *name)
{
	return remove_in_path(s, dir, name, 0, false);
}

int icm_scratch_rmdir(struct icm_scratch *s, const char *dir, const char *name)
{
	return remove_in_path(s, dir, name, AT_REMOVEDIR, false);
}

int icm_scratch_view_unlink(struct icm_view *dir, const struct icm_call *call, const char *name)
{
	return remove_in_view(dir, name, 0);
}

int icm_scratch_view_rmdir(struct icm_view *dir, const struct icm_call *call, const char *name)
{
	return remove_in_view(dir, name, AT_REMOVEDIR);
}

/* ---- renaming ---- */

/* Both names are one file: then a rename does nothing, and neither do we. */
static bool is_same_file(const struct place *a, const char *a_name, const struct place *b,
			 const char *b_name)
{
	struct stat x, y;

	return fstatat(a->fd, a_name, &x, AT_SYMLINK_NOFOLLOW) == 0 &&
	       fstatat(b->fd, b_name, &y, AT_SYMLINK_NOFOLLOW) == 0 && x.st_dev == y.st_dev &&
	       x.st_ino == y.st_ino;
}

static int rename_at(struct icm_scratch *s, const struct place *from, const char *name,
		     const struct place *to, const char *to_name, unsigned flags)
{
	ICM_AUTOFREE char *path = icm_path_join(from->path, name);
	ICM_AUTOFREE char *to_path = icm_path_join(to->path, to_name);
	ICM_AUTOCLOSE int victim = flags ? -1 : open_name(to, to_name);
	bool same = is_same_file(from, name, to, to_name);

	if (renameat2(from->fd, name, to->fd, to_name, flags) < 0)
		return -errno;
	if (same)
		return 0;
	if (victim >= 0)
		icm_scratch_node_unlinked(s, victim, to_path, false);
	icm_scratch_nodes_moved(s, path, to_path, flags & RENAME_EXCHANGE);
	return 0;
}

int icm_scratch_rename(struct icm_scratch *s, const char *dir, const char *name, const char *to_dir,
		       const char *to_name, unsigned flags)
{
	AUTOPLACE struct place from = PLACE_INIT;
	AUTOPLACE struct place to = PLACE_INIT;
	ICM_WRLOCK_SCOPE(&s->moves);
	int r = open_path(s, dir, false, &from);

	if (r >= 0)
		r = open_path(s, to_dir, true, &to);
	return r < 0 ? r : rename_at(s, &from, name, &to, to_name, flags);
}

int icm_scratch_view_rename(struct icm_view *dir, const struct icm_call *call, const char *name,
			    struct icm_view *to_dir, const char *to_name, unsigned flags)
{
	struct icm_scratch *s = scratch_of(dir);
	AUTOPLACE struct place from = PLACE_INIT;
	AUTOPLACE struct place to = PLACE_INIT;
	ICM_WRLOCK_SCOPE(&s->moves);
	int r = open_view(dir, &from);

	if (r >= 0)
		r = open_view(to_dir, &to);
	return r < 0 ? r : rename_at(s, &from, name, &to, to_name, flags);
}

/* ---- from and to shared names ---- */

int icm_scratch_export(struct icm_scratch *s, const char *dir, const char *name, int *ret_fd,
		       struct stat *ret_st)
{
	AUTOPLACE struct place p = PLACE_INIT;
	ICM_RDLOCK_SCOPE(&s->moves);
	ICM_AUTOCLOSE int fd = -1;
	int r = open_path(s, dir, false, &p);

	if (r < 0)
		return r;
	fd = open_name(&p, name);
	if (fd < 0)
		return fd;
	r = icm_scratch_fstat(fd, ret_st);
	if (r < 0)
		return r;
	*ret_fd = -1;
	if (!S_ISREG(ret_st->st_mode))
		return 0;
	*ret_fd = open(icm_scratch_proc(fd).path, O_RDONLY | O_CLOEXEC);
	return *ret_fd < 0 ? -errno : 0;
}

void icm_scratch_exported(struct icm_scratch *s, const char *dir, const char *name)
{
	remove_in_path(s, dir, name, 0, true);
}

/* A file of these attributes in the making, at the root. */
static int make_stage(struct icm_scratch *s, const char *stage, const struct stat *st,
		      int (*fill)(int fd, void *userdata), void *userdata)
{
	const struct timespec times[2] = { st->st_atim, st->st_mtim };
	ICM_AUTOCLOSE int fd =
		openat(s->root_fd, stage, O_RDWR | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC, 0600);
	int r;

	if (fd < 0)
		return -errno;
	r = fill(fd, userdata);
	if (r < 0)
		return r;
	if (s->is_root && fchown(fd, st->st_uid, st->st_gid) < 0)
		return -errno;
	/* The store is about to lose these bytes: they have to be on the disk. */
	if (fchmod(fd, st->st_mode & 07777) < 0 || futimens(fd, times) < 0 || fsync(fd) < 0)
		return -errno;
	return 0;
}

int icm_scratch_import(struct icm_scratch *s, const char *dir, const char *name,
		       const struct stat *st, int (*fill)(int fd, void *userdata), void *userdata)
{
	AUTOPLACE struct place from = PLACE_INIT;
	AUTOPLACE struct place to = PLACE_INIT;
	char stage[64];
	int r;

	if (!S_ISREG(st->st_mode))
		return -EXDEV;
	icm_scratch_stage_name(stage);
	r = make_stage(s, stage, st, fill, userdata);
	if (r >= 0) {
		ICM_WRLOCK_SCOPE(&s->moves);

		r = open_path(s, "", false, &from);
		if (r >= 0)
			r = open_path(s, dir, true, &to);
		if (r >= 0)
			r = rename_at(s, &from, stage, &to, name, 0);
	}
	if (r < 0)
		unlinkat(s->root_fd, stage, 0);
	return r;
}

/* ---- shared directories that move ---- */

/* Moves a local directory out of sight; -ENOENT when there is none. */
static int put_aside(struct icm_scratch *s, const char *path, const char *stage)
{
	AUTOPLACE struct place p = PLACE_INIT;
	const char *name;
	int r = open_parent(s, path, false, &p, &name);

	if (r < 0)
		return r;
	if (renameat2(p.fd, name, s->root_fd, stage, RENAME_NOREPLACE) < 0)
		return -errno;
	return 0;
}

void icm_scratch_dir_removed(struct icm_scratch *s, const char *path)
{
	char stage[64];
	int r;

	icm_scratch_stage_name(stage);
	pthread_rwlock_wrlock(&s->moves);
	r = path[0] ? put_aside(s, path, stage) : -EINVAL;
	if (r >= 0)
		icm_scratch_nodes_removed(s, path);
	pthread_rwlock_unlock(&s->moves);
	if (r >= 0)
		icm_scratch_remove_tree(s->root_fd, stage);
}

/* Brings what was put aside to `path`, in whose place there is nothing. */
static bool put_back(struct icm_scratch *s, const char *stage, const char *path)
{
	AUTOPLACE struct place p = PLACE_INIT;
	const char *name;

	if (open_parent(s, path, true, &p, &name) >= 0 &&
	    renameat2(s->root_fd, stage, p.fd, name, RENAME_NOREPLACE) == 0)
		return true;
	/* It stays aside, and goes with the next start. */
	icm_log_warning("scratch files can't follow their directory to '%s'", path);
	return false;
}

static void move_dir(struct icm_scratch *s, const char *from, const char *to)
{
	char stage[64];
	ICM_WRLOCK_SCOPE(&s->moves);

	icm_scratch_stage_name(stage);
	if (put_aside(s, from, stage) < 0)
		return; /* nothing scratch in it */
	if (put_back(s, stage, to))
		icm_scratch_nodes_moved(s, from, to, false);
	else
		icm_scratch_nodes_removed(s, from);
}

void icm_scratch_dir_moved(struct icm_scratch *s, const char *from, const char *to)
{
	if (!from[0] || !to[0] || strcmp(from, to) == 0)
		return;
	/* Left there by a directory that went on another host. */
	icm_scratch_dir_removed(s, to);
	move_dir(s, from, to);
}

void icm_scratch_dirs_exchanged(struct icm_scratch *s, const char *a, const char *b)
{
	char a_stage[64], b_stage[64];
	bool has_a, has_b;
	ICM_WRLOCK_SCOPE(&s->moves);

	icm_scratch_stage_name(a_stage);
	icm_scratch_stage_name(b_stage);
	has_a = put_aside(s, a, a_stage) >= 0;
	has_b = put_aside(s, b, b_stage) >= 0;
	if (has_a && !put_back(s, a_stage, b))
		icm_scratch_nodes_removed(s, a);
	if (has_b && !put_back(s, b_stage, a))
		icm_scratch_nodes_removed(s, b);
	icm_scratch_nodes_moved(s, a, b, true);
}
