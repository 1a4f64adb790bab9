/* SPDX-License-Identifier: MIT */
#include "core/unsaved.h"

#include <dirent.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "core/record-json.h"
#include "core/shared.h"
#include "util/clock.h"
#include "util/log.h"

/* ---- the directory ---- */

static char *data_path(const char *dir, const char *id)
{
	return icm_asprintf("%s/%s.data", dir, id);
}

static char *text_path(const char *dir, const char *id)
{
	return icm_asprintf("%s/%s.json", dir, id);
}

/* "0123456789abcdef.SUFFIX"; the id, or NULL. */
static char *id_of(const char *name, const char *suffix)
{
	if (strspn(name, "0123456789abcdef") != ICM_ID_HEX || strcmp(name + ICM_ID_HEX, suffix))
		return NULL;
	return icm_xstrndup(name, ICM_ID_HEX);
}

void icm_unsaved_list_clear(struct icm_unsaved_list *list)
{
	for (size_t i = 0; i < list->n; i++)
		icm_unsaved_clear(&list->v[i]);
	free(list->v);
	*list = (struct icm_unsaved_list){ 0 };
}

static int read_text(const char *path, struct icm_buf *text)
{
	ICM_AUTOCLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	char part[4096];
	ssize_t n;
	int r = 0;

	if (fd < 0)
		return -errno;
	while (r >= 0 && (n = read(fd, part, sizeof(part))) != 0)
		r = n < 0 ? -errno : icm_buf_add(text, part, (size_t)n);
	return r;
}

/* An item that another process has dropped meanwhile is no bad one. */
static void read_item(const char *dir, const char *id, struct icm_unsaved_list *list)
{
	ICM_AUTOFREE char *path = text_path(dir, id);
	ICM_AUTOFREE char *data = data_path(dir, id);
	ICM_AUTOBUF struct icm_buf text = ICM_BUF_INIT(ICM_LIST_VALUE_MAX);
	struct icm_unsaved u;
	struct stat st;
	int r = read_text(path, &text);

	if (r == -ENOENT)
		return;
	if (r < 0 || icm_unsaved_decode(text.data ? text.data : "", text.len, &u) < 0) {
		list->bad++;
		return;
	}
	if (strcmp(u.id, id)) {
		icm_unsaved_clear(&u);
		list->bad++;
		return;
	}
	if (stat(data, &st) == 0)
		list->bytes += (uint64_t)st.st_blocks * 512;
	list->v = icm_xrealloc(list->v, (list->n + 1) * sizeof(*list->v));
	list->v[list->n++] = u;
}

static int by_time(const void *a, const void *b)
{
	const struct icm_unsaved *x = a, *y = b;
	int order = icm_timespec_cmp(x->time, y->time);

	return order ? order : strcmp(x->id, y->id);
}

int icm_unsaved_read(const char *dir, struct icm_unsaved_list *ret)
{
	DIR *d = opendir(dir);
	struct dirent *e;

	*ret = (struct icm_unsaved_list){ 0 };
	if (!d)
		return errno == ENOENT ? 0 : -errno;
	while ((e = readdir(d))) {
		ICM_AUTOFREE char *id = id_of(e->d_name, ".json");

		if (id)
			read_item(dir, id, ret);
	}
	closedir(d);
	if (ret->n)
		qsort(ret->v, ret->n, sizeof(*ret->v), by_time);
	return 0;
}

int icm_unsaved_open(const char *dir, const struct icm_unsaved *u)
{
	ICM_AUTOFREE char *path = data_path(dir, u->id);
	int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
	struct stat st;

	if (fd < 0)
		return -errno;
	if (fstat(fd, &st) < 0 || !S_ISREG(st.st_mode) || (uint64_t)st.st_size != u->size) {
		close(fd);
		return -EPROTO;
	}
	return fd;
}

static int sync_dir(const char *dir)
{
	ICM_AUTOCLOSE int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

	return fd < 0 || fsync(fd) < 0 ? -errno : 0;
}

int icm_unsaved_drop(const char *dir, const char *id)
{
	ICM_AUTOFREE char *text = text_path(dir, id);
	ICM_AUTOFREE char *data = data_path(dir, id);

	/* the description first: then it is no item any more */
	if (unlink(text) < 0)
		return -errno;
	if (unlink(data) < 0 && errno != ENOENT)
		return -errno;
	return sync_dir(dir);
}

void icm_unsaved_sweep(const char *dir)
{
	DIR *d = opendir(dir);
	struct dirent *e;

	if (!d)
		return;
	while ((e = readdir(d))) {
		ICM_AUTOFREE char *id = id_of(e->d_name, ".data");
		ICM_AUTOFREE char *text = id ? text_path(dir, id) : NULL;
		ICM_AUTOFREE char *half = id_of(e->d_name, ".new");

		if (half || (id && access(text, F_OK) < 0 && errno == ENOENT))
			unlinkat(dirfd(d), e->d_name, 0);
	}
	closedir(d);
}

/* ---- keeping ---- */

static bool is_zero(const char *buf, size_t len)
{
	return len == 0 || (buf[0] == 0 && memcmp(buf, buf + 1, len - 1) == 0);
}

static void add_gap(struct icm_unsaved *u, uint64_t off, uint64_t len)
{
	struct icm_unsaved_gap *last = u->n_gaps ? &u->gaps[u->n_gaps - 1] : NULL;

	if (last && last->off + last->len == off) {
		last->len += len;
		return;
	}
	u->gaps = icm_xrealloc(u->gaps, (u->n_gaps + 1) * sizeof(*u->gaps));
	u->gaps[u->n_gaps++] = (struct icm_unsaved_gap){ off, len };
}

/* Bytes that only the store has are not asked for: it may be away. */
static int copy_data(struct icm_data *d, struct icm_unsaved *u, int fd)
{
	ICM_AUTOFREE char *buf = icm_xmalloc(ICM_CHUNK_BYTES);
	ssize_t n;

	for (uint64_t off = 0; off < u->size; off += (uint64_t)n) {
		uint64_t left = u->size - off;
		size_t len = left < ICM_CHUNK_BYTES ? (size_t)left : ICM_CHUNK_BYTES;

		if (u->has_base && icm_data_needs_fetch(d, off, len)) {
			n = (ssize_t)len;
			add_gap(u, off, len);
			continue;
		}
		n = icm_data_read(d, buf, len, off);
		if (n <= 0)
			return n < 0 ? (int)n : -EIO;
		if (!is_zero(buf, (size_t)n) && pwrite(fd, buf, (size_t)n, (off_t)off) != n)
			return errno == ENOSPC ? -ENOSPC : -EIO;
	}
	return ftruncate(fd, (off_t)u->size) < 0 || fsync(fd) < 0 ? -errno : 0;
}

/* The description appears whole: it is renamed into place. */
static int write_text(const char *dir, const struct icm_unsaved *u)
{
	ICM_AUTOFREE char *path = text_path(dir, u->id);
	ICM_AUTOFREE char *tmp = icm_asprintf("%s/%s.new", dir, u->id);
	ICM_AUTOCLOSE int fd =
		open(tmp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, 0600);
	size_t len;
	ICM_AUTOFREE char *text = icm_unsaved_encode(u, &len);

	if (fd < 0)
		return -errno;
	if (write(fd, text, len) != (ssize_t)len || fsync(fd) < 0)
		return -EIO;
	return rename(tmp, path) < 0 ? -errno : sync_dir(dir);
}

static int write_item(const char *dir, struct icm_data *d, struct icm_unsaved *u)
{
	ICM_AUTOFREE char *path = data_path(dir, u->id);
	ICM_AUTOCLOSE int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
	int r = fd < 0 ? -errno : copy_data(d, u, fd);

	if (r >= 0)
		r = write_text(dir, u);
	if (r < 0)
		unlink(path);
	return r;
}

/* Bytes of all that is kept, what is being written included. */
static uint64_t used_bytes(const char *dir)
{
	DIR *d = opendir(dir);
	uint64_t total = 0;
	struct dirent *e;
	struct stat st;

	while (d && (e = readdir(d)))
		if (fstatat(dirfd(d), e->d_name, &st, AT_SYMLINK_NOFOLLOW) == 0 &&
		    S_ISREG(st.st_mode))
			total += (uint64_t)st.st_blocks * 512;
	if (d)
		closedir(d);
	return total;
}

static bool has_room(const struct icm_volume *vol, uint64_t bytes)
{
	uint64_t used = used_bytes(vol->unsaved_dir);

	return used <= vol->unsaved_max && bytes <= vol->unsaved_max - used;
}

/* volume->lock held. */
static void describe_locked(struct icm_volume *vol, struct icm_file *f, struct icm_unsaved *u)
{
	const struct icm_attr *a = &f->inode->attr;

	u->mode = a->mode & 07777;
	u->uid = a->uid;
	u->gid = a->gid;
	u->mtime = f->times_set ? f->set_mtime : f->dirty_time;
	u->has_base = f->inode->published;
	u->base_ino = a->ino;
	u->base_size = f->version.size;
	u->base_mtime = f->version.mtime;
}

int icm_unsaved_keep(struct icm_volume *vol, struct icm_file *f, const char *path,
		     const char *reason)
{
	/* all but the strings of `u` that are freed at the end belong to others */
	struct icm_unsaved u = { .time = icm_wall_time(),
				 .store = vol->be->url,
				 .mountpoint = vol->mountpoint ? vol->mountpoint : (char *)"",
				 .path = (char *)path,
				 .reason = (char *)reason,
				 .user = vol->user };
	int r = -EIO;

	if (!vol->unsaved_dir)
		return -ENOENT;
	icm_random_id(u.id);
	ICM_LOCK_SCOPE(&f->io);
	pthread_mutex_lock(&vol->lock);
	describe_locked(vol, f, &u);
	pthread_mutex_unlock(&vol->lock);
	if (f->data_is_work) {
		u.size = icm_data_size(f->data);
		r = has_room(vol, u.size - icm_data_holes(f->data))
			    ? write_item(vol->unsaved_dir, f->data, &u)
			    : -ENOSPC;
	}
	free(u.gaps);
	return r;
}
