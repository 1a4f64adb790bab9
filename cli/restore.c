/* SPDX-License-Identifier: MIT */
#include "cli/restore.h"

#include <fcntl.h>
#include <linux/openat2.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <time.h>

#include "core/key.h"
#include "util/clock.h"

#define COPY_BYTES ((size_t)256 << 10)
#define COPY_NAMES 100

static int fail(char **ret_error, int r, char *line)
{
	*ret_error = line;
	return r;
}

/* Nothing in the tree leads out of it: a description is not trusted. */
static int open_below(const char *root, const char *path, int flags)
{
	struct open_how how = { .flags = (uint64_t)(flags | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY),
				.mode = flags & O_CREAT ? 0600 : 0,
				.resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS };
	ICM_AUTOCLOSE int dir = open(root, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int fd = dir < 0 ? -1 : (int)syscall(SYS_openat2, dir, path, &how, sizeof(how));

	return fd < 0 ? -errno : fd;
}

/* ---- bytes ---- */

static int copy_range(int from, int to, uint64_t off, uint64_t end)
{
	ICM_AUTOFREE char *buf = icm_xmalloc(COPY_BYTES);

	while (off < end) {
		size_t len = end - off < COPY_BYTES ? (size_t)(end - off) : COPY_BYTES;
		ssize_t n = pread(from, buf, len, (off_t)off);

		if (n <= 0)
			return n < 0 ? -errno : -EIO;
		if (pwrite(to, buf, (size_t)n, (off_t)off) != n)
			return errno ? -errno : -EIO;
		off += (uint64_t)n;
	}
	return 0;
}

/* All but the gaps, which are in the file already. */
static int fill(const struct icm_unsaved *u, int data, int fd)
{
	uint64_t off = 0;
	int r = 0;

	for (size_t i = 0; i <= u->n_gaps && r == 0; i++) {
		r = copy_range(data, fd, off, i < u->n_gaps ? u->gaps[i].off : u->size);
		if (i < u->n_gaps)
			off = u->gaps[i].off + u->gaps[i].len;
	}
	if (r == 0 && ftruncate(fd, (off_t)u->size) < 0)
		r = -errno;
	return r;
}

/* ---- places ---- */

static bool is_base(const struct icm_unsaved *u, const struct stat *st)
{
	return u->has_base && S_ISREG(st->st_mode) && st->st_ino == u->base_ino &&
	       (uint64_t)st->st_size == u->base_size &&
	       icm_timespec_cmp(st->st_mtim, u->base_mtime) == 0;
}

/* "PATH.conflict-USER-20260102T030405Z", with a number when there are several. */
static char *copy_path(const struct icm_unsaved *u, unsigned n)
{
	char when[32], number[16] = "";
	struct tm tm;

	gmtime_r(&u->time.tv_sec, &tm);
	strftime(when, sizeof(when), "%Y%m%dT%H%M%SZ", &tm);
	if (n)
		snprintf(number, sizeof(number), "-%u", n);
	return icm_asprintf("%s.conflict-%.64s-%s%s", u->path, u->user, when, number);
}

/* A new file beside what is there now. */
static int open_copy(const struct icm_unsaved *u, const char *root, char **ret_path)
{
	int fd = -EEXIST;

	for (unsigned n = 0; fd == -EEXIST && n < COPY_NAMES; n++) {
		free(*ret_path);
		*ret_path = copy_path(u, n);
		fd = open_below(root, *ret_path, O_WRONLY | O_CREAT | O_EXCL);
	}
	return fd;
}

struct place {
	int fd;
	bool made;  /* it is a new file */
	char *path; /* owned; as the user is told */
};

/* Where the bytes go by themselves: into the file while it is the base version,
 * to its name while nobody has it, else beside it. */
static int find_place(const struct icm_unsaved *u, const char *root, struct place *p)
{
	ICM_AUTOFREE char *path = icm_xstrdup(u->path);
	struct stat st;

	p->fd = open_below(root, path, O_WRONLY);
	if (p->fd >= 0 && (fstat(p->fd, &st) < 0 || !is_base(u, &st))) {
		close(p->fd);
		p->fd = -EEXIST;
	}
	if (p->fd < 0 && u->n_gaps)
		return -ESTALE; /* its other parts are gone with the base version */
	p->made = p->fd < 0;
	if (p->fd == -ENOENT)
		p->fd = open_below(root, path, O_WRONLY | O_CREAT | O_EXCL);
	/* somebody else's file, a directory, a link */
	if (p->fd == -EEXIST || p->fd == -EISDIR || p->fd == -ELOOP || p->fd == -ENXIO)
		p->fd = open_copy(u, root, &path);
	if (p->fd >= 0)
		p->path = icm_asprintf("%s/%s", strcmp(root, "/") ? root : "", path);
	return p->fd < 0 ? p->fd : 0;
}

static int open_given(const struct icm_unsaved *u, const char *to, struct place *p)
{
	if (u->n_gaps)
		return -ESTALE;
	p->fd = open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOCTTY, 0600);
	p->made = true;
	p->path = icm_xstrdup(to);
	return p->fd < 0 ? -errno : 0;
}

/* ---- all of it ---- */

static int set_attributes(const struct icm_unsaved *u, int fd)
{
	const struct timespec times[2] = { { .tv_nsec = UTIME_OMIT }, u->mtime };

	/* who isn't root can't give files away */
	if (geteuid() == 0 && fchown(fd, u->uid, u->gid) < 0)
		return -errno;
	return fchmod(fd, u->mode & 07777) < 0 || futimens(fd, times) < 0 ? -errno : 0;
}

static char *explain(const struct icm_unsaved *u, int r)
{
	switch (r) {
	case -ESTALE:
		return icm_asprintf("'%s' is not the version any more that these changes were "
				    "made to, and they don't have the rest of it (see --show)",
				    u->path);
	case -ENOENT:
		return icm_asprintf("the directory of '%s' is gone (see --to)", u->path);
	case -EEXIST:
		return icm_xstrdup("there is a file of that name already");
	default:
		return icm_asprintf("'%s': %s", u->path, strerror(-r));
	}
}

int icm_restore(const struct icm_unsaved *u, int data, const char *root, const char *to,
		char **ret_path, char **ret_error)
{
	struct place p = { .fd = -1 };
	ICM_AUTOFREE char *path = NULL;
	int r = to ? open_given(u, to, &p) : find_place(u, root, &p);

	path = p.path;
	if (r < 0)
		return fail(ret_error, r, explain(u, r));
	r = fill(u, data, p.fd);
	if (r == 0 && p.made)
		r = set_attributes(u, p.fd);
	if (r == 0 && fsync(p.fd) < 0)
		r = -errno;
	close(p.fd);
	/* another mount was faster: the file system has made the copy itself */
	if (r == -ESTALE && !p.made)
		r = 0;
	if (r < 0 && p.made)
		unlink(path);
	if (r < 0)
		return fail(ret_error, r, icm_asprintf("'%s': %s", path, strerror(-r)));
	*ret_path = ICM_STEAL(&path);
	return 0;
}
