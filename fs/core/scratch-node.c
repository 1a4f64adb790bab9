/* SPDX-License-Identifier: MIT */
#include "core/scratch-local.h"

#include <errno.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>

#include "core/record.h"
#include "util/buf.h"

/* ---- descriptors ---- */

int icm_scratch_openat(struct icm_scratch *s, const char *path, int flags)
{
	struct open_how how = {
		.flags = (uint64_t)(flags | O_CLOEXEC | O_NOFOLLOW),
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV,
	};
	long fd;

	do
		fd = syscall(SYS_openat2, s->root_fd, path[0] ? path : ".", &how, sizeof(how));
	while (fd < 0 && errno == EINTR);
	return fd < 0 ? -errno : (int)fd;
}

struct icm_scratch_proc icm_scratch_proc(int fd)
{
	struct icm_scratch_proc p;

	snprintf(p.path, sizeof(p.path), "/proc/self/fd/%d", fd);
	return p;
}

uint64_t icm_scratch_ino(ino_t local)
{
	return (local & (ICM_INO_MAX - 1)) | ICM_INO_MAX;
}

int icm_scratch_fstat(int fd, struct stat *ret_st)
{
	struct stat st;

	if (fstat(fd, &st) < 0)
		return -errno;
	st.st_ino = icm_scratch_ino(st.st_ino);
	*ret_st = st;
	return 0;
}

/* ---- names of a node; lock held ---- */

static void add_name_locked(struct icm_scratch_node *n, const char *path)
{
	struct icm_scratch_name *name;

	for (name = n->names; name; name = name->next)
		if (strcmp(name->path, path) == 0)
			return;
	name = icm_xmalloc(sizeof(*name));
	name->path = icm_xstrdup(path);
	name->next = n->names;
	n->names = name;
}

static void drop_name_locked(struct icm_scratch_name **at)
{
	struct icm_scratch_name *name = *at;

	*at = name->next;
	free(name->path);
	free(name);
}

static void drop_path_locked(struct icm_scratch_node *n, const char *path)
{
	for (struct icm_scratch_name **at = &n->names; *at; at = &(*at)->next)
		if (strcmp((*at)->path, path) == 0) {
			drop_name_locked(at);
			return;
		}
}

/* ---- the table ---- */

static uint64_t hash_inode(dev_t dev, ino_t ino)
{
	return icm_hash_u64(icm_hash_u64(dev) ^ ino);
}

/* Its number may belong to another file from now on. */
static void unlist_locked(struct icm_scratch_node *n)
{
	if (!n->is_listed)
		return;
	icm_map_remove(&n->s->by_inode, &n->by_inode);
	n->is_listed = false;
	while (n->names)
		drop_name_locked(&n->names);
}

/* The node of this inode with a reference, or NULL. */
static struct icm_scratch_node *find_locked(struct icm_scratch *s, const struct stat *st)
{
	struct icm_map_node *at = icm_map_first(&s->by_inode, hash_inode(st->st_dev, st->st_ino));

	for (; at; at = icm_map_next(at)) {
		struct icm_scratch_node *n = ICM_CONTAINER(at, struct icm_scratch_node, by_inode);

		if (n->dev != st->st_dev || n->local_ino != st->st_ino)
			continue;
		if (n->view.type != (st->st_mode & S_IFMT)) {
			/* Its file went behind our back, and the number is in use again. */
			unlist_locked(n);
			return NULL;
		}
		if (icm_view_tryref(&n->view))
			return n;
	}
	return NULL;
}

static struct icm_scratch_node *add_locked(struct icm_scratch *s, const struct stat *st)
{
	struct icm_scratch_node *n = icm_xcalloc(1, sizeof(*n));

	icm_view_init(&n->view, &icm_scratch_view_ops, s->vol, icm_scratch_ino(st->st_ino),
		      st->st_mode);
	n->s = s;
	n->dev = st->st_dev;
	n->local_ino = st->st_ino;
	n->next = s->nodes;
	if (n->next)
		n->next->prev = n;
	s->nodes = n;
	icm_map_add(&s->by_inode, &n->by_inode, hash_inode(st->st_dev, st->st_ino));
	n->is_listed = true;
	return n;
}

struct icm_scratch_node *icm_scratch_node_get(struct icm_scratch *s, int fd, const struct stat *st,
					      const char *path)
{
	struct icm_scratch_node *n;
	struct stat now;

	pthread_mutex_lock(&s->lock);
	n = find_locked(s, st);
	if (!n)
		n = add_locked(s, st);
	add_name_locked(n, path);
	pthread_mutex_unlock(&s->lock);
	/* Removed since it was opened, before it was in the table? While `fd`
	 * is open, nobody else has its number. */
	if (fstat(fd, &now) == 0 && now.st_nlink == 0)
		icm_scratch_node_unlinked(s, fd, path, false);
	return n;
}

static bool is_this(const struct icm_scratch_node *n, int fd)
{
	struct stat st;

	return fstat(fd, &st) == 0 && st.st_dev == n->dev && st.st_ino == n->local_ino &&
	       (st.st_mode & S_IFMT) == n->view.type;
}

/* A duplicate of a handle's descriptor, or -1 and the paths to try (owned). */
static int dup_handle(struct icm_scratch_node *n, struct icm_scratch_name **ret_names)
{
	struct icm_scratch_name *names = NULL;
	ICM_LOCK_SCOPE(&n->s->lock);

	if (n->handles) {
		int fd = fcntl(n->handles->fd, F_DUPFD_CLOEXEC, 0);

		return fd < 0 ? -errno : fd;
	}
	for (const struct icm_scratch_name *at = n->names; at; at = at->next) {
		struct icm_scratch_name *copy = icm_xmalloc(sizeof(*copy));

		copy->path = icm_xstrdup(at->path);
		copy->next = names;
		names = copy;
	}
	*ret_names = names;
	return -ESTALE;
}

/* A descriptor for the node by one of its paths, or the error to go on with. */
static int try_path(struct icm_scratch_node *n, const char *path, int error)
{
	int fd = icm_scratch_openat(n->s, path, O_PATH);

	if (fd == -ENOENT || fd == -ENOTDIR)
		return error;
	if (fd < 0 || is_this(n, fd))
		return fd;
	close(fd);
	return error;
}

int icm_scratch_node_fd(struct icm_scratch_node *n)
{
	struct icm_scratch_name *names = NULL;
	int fd = dup_handle(n, &names);

	while (names) {
		if (fd < 0)
			fd = try_path(n, names->path, fd);
		drop_name_locked(&names); /* of our own copy */
	}
	return fd;
}

char *icm_scratch_node_path(struct icm_scratch_node *n)
{
	ICM_LOCK_SCOPE(&n->s->lock);

	return n->names ? icm_xstrdup(n->names->path) : NULL;
}

void icm_scratch_node_unlinked(struct icm_scratch *s, int fd, const char *path, bool exported)
{
	struct icm_scratch_node *n;
	struct stat st;
	bool gone;

	if (fstat(fd, &st) < 0)
		return;
	/* Some file systems count a removed directory's links otherwise. */
	gone = st.st_nlink == 0 || S_ISDIR(st.st_mode);
	pthread_mutex_lock(&s->lock);
	n = find_locked(s, &st);
	if (n) {
		drop_path_locked(n, path);
		if (gone) {
			unlist_locked(n);
			n->last = st;
			n->last.st_nlink = 0;
			n->last.st_ino = n->view.ino;
			if (exported)
				atomic_store(&n->is_exported, true);
		}
	}
	pthread_mutex_unlock(&s->lock);
	if (n)
		icm_fs_forget(&n->view, 1);
}

/* `path` with its beginning `from` replaced by `to`; NULL when it isn't below it. */
static char *moved_path(const char *path, const char *from, const char *to)
{
	size_t len = strlen(from);

	if (strncmp(path, from, len) != 0 || (path[len] && path[len] != '/'))
		return NULL;
	return icm_asprintf("%s%s", to, path + len);
}

void icm_scratch_nodes_moved(struct icm_scratch *s, const char *from, const char *to, bool exchange)
{
	ICM_LOCK_SCOPE(&s->lock);

	for (struct icm_scratch_node *n = s->nodes; n; n = n->next)
		for (struct icm_scratch_name *name = n->names; name; name = name->next) {
			char *path = moved_path(name->path, from, to);

			if (!path && exchange)
				path = moved_path(name->path, to, from);
			if (!path)
				continue;
			free(name->path);
			name->path = path;
		}
}

/* Forgets the node's names below `path`; false when it has none there. */
static bool drop_below_locked(struct icm_scratch_node *n, const char *path, size_t len)
{
	struct icm_scratch_name **at = &n->names;
	bool any = false;

	while (*at) {
		if (strncmp((*at)->path, path, len) != 0 || (*at)->path[len] != '/') {
			at = &(*at)->next;
			continue;
		}
		drop_name_locked(at);
		any = true;
	}
	return any;
}

void icm_scratch_nodes_removed(struct icm_scratch *s, const char *path)
{
	size_t len = strlen(path);
	ICM_LOCK_SCOPE(&s->lock);

	for (struct icm_scratch_node *n = s->nodes; n; n = n->next)
		if (drop_below_locked(n, path, len) && !n->names)
			unlist_locked(n);
}

static void take_out_locked(struct icm_scratch_node *n)
{
	unlist_locked(n);
	if (n->next)
		n->next->prev = n->prev;
	if (n->prev)
		n->prev->next = n->next;
	else
		n->s->nodes = n->next;
}

static void free_node(struct icm_scratch_node *n)
{
	icm_lock_table_free(n->locks);
	free(n);
}

void icm_scratch_node_free(struct icm_view *view)
{
	struct icm_scratch_node *n = icm_scratch_node_of(view);

	pthread_mutex_lock(&n->s->lock);
	take_out_locked(n);
	pthread_mutex_unlock(&n->s->lock);
	free_node(n);
}

void icm_scratch_nodes_clear(struct icm_scratch *s)
{
	struct icm_scratch_node *next;

	for (struct icm_scratch_node *n = s->nodes; n; n = next) {
		next = n->next;
		if (n->handles)
			continue;
		take_out_locked(n);
		free_node(n);
	}
}
