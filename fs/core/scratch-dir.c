/* SPDX-License-Identifier: MIT
 * Scratch directories: positions are the local file system's own, which keep
 * their meaning while names come and go. */
#include "core/scratch-local.h"

#include <errno.h>
#include <string.h>

#include "core/key.h"
#include "util/buf.h"

static int open_dir_fd(int dir_fd, const char *name)
{
	int fd = openat(dir_fd, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);

	return fd < 0 ? -errno : fd;
}

static DIR *dir_of_fd(int fd)
{
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);

	if (!dir)
		icm_closep(&fd);
	return dir;
}

static bool is_dots(const char *name)
{
	return strcmp(name, ".") == 0 || strcmp(name, "..") == 0;
}

static mode_t type_of(DIR *dir, const struct dirent *e)
{
	struct stat st;

	if (e->d_type != DT_UNKNOWN)
		return DTTOIF(e->d_type);
	if (fstatat(dirfd(dir), e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0)
		return 0;
	return st.st_mode & S_IFMT;
}

/* ---- an open scratch directory ---- */

int icm_scratch_view_opendir(struct icm_view *view, const struct icm_call *call,
			     struct icm_handle **ret)
{
	struct icm_scratch_node *n = icm_scratch_node_of(view);
	ICM_RDLOCK_SCOPE(&n->s->moves);
	ICM_AUTOCLOSE int object = icm_scratch_node_fd(n);
	int fd = object < 0 ? object : open_dir_fd(object, ".");

	if (fd < 0)
		return fd;
	*ret = icm_scratch_handle_new(n, fd, O_RDONLY | O_DIRECTORY);
	return 0;
}

/* Brings the stream to `off`; from the start it looks anew. */
static int seek_dir(struct icm_scratch_handle *h, off_t off)
{
	if (!h->dir) {
		h->dir = dir_of_fd(open_dir_fd(h->fd, "."));
		if (!h->dir)
			return -errno;
		h->dir_at = 0;
	}
	if (off == 0)
		rewinddir(h->dir);
	else if (off != h->dir_at)
		seekdir(h->dir, off);
	h->dir_at = off;
	return 0;
}

int icm_scratch_view_readdir(struct icm_handle *handle, const struct icm_call *call, off_t off,
			     icm_dirent_fn fn, void *userdata)
{
	struct icm_scratch_handle *h = icm_scratch_handle_of(handle);
	ICM_LOCK_SCOPE(&h->dir_lock);
	int r = seek_dir(h, off);

	while (r >= 0) {
		const struct dirent *e;
		struct icm_dirent entry;

		errno = 0;
		e = readdir(h->dir);
		if (!e)
			return -errno; /* 0 at the end */
		entry = (struct icm_dirent){
			.name = e->d_name,
			.ino = icm_scratch_ino(e->d_ino),
			.type = type_of(h->dir, e),
			.next = e->d_off,
		};
		if (!icm_scratch_is_stage(e->d_name) && fn(userdata, &entry)) {
			/* Not taken: the next call comes for it again. */
			seekdir(h->dir, h->dir_at);
			return 0;
		}
		h->dir_at = e->d_off;
	}
	return r;
}

void icm_scratch_view_releasedir(struct icm_handle *h)
{
	icm_scratch_handle_free(icm_scratch_handle_of(h));
}

/* ---- scratch names in a shared directory ---- */

static int list_entry(struct icm_scratch *s, const char *path, DIR *dir, const struct dirent *e,
		      icm_dirent_fn fn, void *userdata)
{
	ICM_AUTOFREE char *full = icm_path_join(path, e->d_name);
	struct icm_dirent entry = {
		.name = e->d_name,
		.ino = icm_scratch_ino(e->d_ino),
		.type = type_of(dir, e),
	};

	if (S_ISDIR(entry.type) && !icm_scratch_match(s, full, true))
		return 0; /* it stands for a shared one */
	return fn(userdata, &entry);
}

int icm_scratch_list(struct icm_scratch *s, const char *path, icm_dirent_fn fn, void *userdata)
{
	const struct dirent *e;
	int stop = 0, fd;
	DIR *dir;

	pthread_rwlock_rdlock(&s->moves);
	fd = icm_scratch_openat(s, path, O_RDONLY | O_DIRECTORY);
	pthread_rwlock_unlock(&s->moves);
	if (fd == -ENOENT || fd == -ENOTDIR)
		return 0;
	if (fd < 0)
		return fd;
	dir = dir_of_fd(fd);
	if (!dir)
		return -errno;
	while (!stop && (e = readdir(dir)))
		if (!is_dots(e->d_name) && !icm_scratch_is_stage(e->d_name))
			stop = list_entry(s, path, dir, e, fn, userdata);
	closedir(dir);
	return 0;
}

/* ---- removal ---- */

/* Directories that wait to be removed, under names of their own at the root. */
struct pending {
	struct pending *next;
	char name[64];
};

static void add_pending(struct pending **list, const char *name)
{
	struct pending *p = icm_xcalloc(1, sizeof(*p));

	snprintf(p->name, sizeof(p->name), "%s", name);
	p->next = *list;
	*list = p;
}

/* An entry goes, or, if it is a directory, waits its turn: descending would take
 * a descriptor per level. */
static void remove_entry(int root_fd, DIR *dir, const char *name, struct pending **list)
{
	char stage[64];

	if (unlinkat(dirfd(dir), name, 0) == 0 || errno != EISDIR)
		return;
	icm_scratch_stage_name(stage);
	if (renameat(dirfd(dir), name, root_fd, stage) == 0)
		add_pending(list, stage);
}

static void remove_dir(int root_fd, const char *name, struct pending **list)
{
	const struct dirent *e;
	DIR *dir;

	/* what its owner may have forbidden himself; a failure shows below */
	(void)!fchmodat(root_fd, name, 0700, 0);
	dir = dir_of_fd(open_dir_fd(root_fd, name));
	if (!dir)
		return;
	while ((e = readdir(dir)))
		if (!is_dots(e->d_name))
			remove_entry(root_fd, dir, e->d_name, list);
	closedir(dir);
	unlinkat(root_fd, name, AT_REMOVEDIR);
}

void icm_scratch_remove_tree(int root_fd, const char *name)
{
	struct pending *list = NULL;

	if (unlinkat(root_fd, name, 0) == 0 || errno != EISDIR)
		return;
	add_pending(&list, name);
	while (list) {
		struct pending *p = list;

		list = p->next;
		remove_dir(root_fd, p->name, &list);
		free(p);
	}
}
