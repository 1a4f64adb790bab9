/* SPDX-License-Identifier: MIT
 * Random operations, done in a directory under test and in an ordinary one,
 * with equal outcome and equal trees:
 *
 *   random-ops [--seed N] [--ops N] [--full N] --ref REF DIR1 [DIR2]
 *
 * With two directories (two mounts of one tree) each operation goes to one of
 * them and what it did is compared through the other: contents through a fresh
 * open at once, names and attributes within ten seconds. The seed is printed;
 * the same seed makes the same operations. Everything happens in a fresh
 * directory of its own, which stays there when something differs. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <linux/falloc.h>
#include <linux/fs.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/xattr.h>
#include <time.h>
#include <unistd.h>

#define PATH_BYTES 512
#define DATA_MAX   ((size_t)4 << 20)
#define SETTLE_NS  (INT64_C(10) * 1000000000)
#define KEPT	   40

enum op_kind {
	OP_SESSION, /* open, several changes and reads, close */
	OP_WRITE,
	OP_REWRITE,
	OP_APPEND,
	OP_TRUNCATE,
	OP_READ,
	OP_MAP,
	OP_SPACE,
	OP_COPY,
	OP_RENAME,
	OP_NOREPLACE,
	OP_EXCHANGE,
	OP_LINK,
	OP_SYMLINK,
	OP_UNLINK,
	OP_MKDIR,
	OP_RMDIR,
	OP_CHMOD,
	OP_UTIMENS,
	OP_SETXATTR,
	OP_DELXATTR,
	OP_LIST,
	OP_COUNT
};

static const struct {
	const char *name;
	int weight;
	bool data; /* changes contents */
} ops[OP_COUNT] = {
	[OP_SESSION] = { "session", 10, true },
	[OP_WRITE] = { "write", 14, true },
	[OP_REWRITE] = { "rewrite", 10, true },
	[OP_APPEND] = { "append", 6, true },
	[OP_TRUNCATE] = { "truncate", 5, true },
	[OP_READ] = { "read", 10, false },
	[OP_MAP] = { "map", 4, true },
	[OP_SPACE] = { "space", 3, true },
	[OP_COPY] = { "copy", 3, true },
	[OP_RENAME] = { "rename", 8, false },
	[OP_NOREPLACE] = { "noreplace", 1, false },
	[OP_EXCHANGE] = { "exchange", 2, false },
	[OP_LINK] = { "link", 3, false },
	[OP_SYMLINK] = { "symlink", 2, false },
	[OP_UNLINK] = { "unlink", 6, false },
	[OP_MKDIR] = { "mkdir", 4, false },
	[OP_RMDIR] = { "rmdir", 2, false },
	[OP_CHMOD] = { "chmod", 2, false },
	[OP_UTIMENS] = { "utimens", 2, false },
	[OP_SETXATTR] = { "setxattr", 2, false },
	[OP_DELXATTR] = { "delxattr", 1, false },
	[OP_LIST] = { "list", 2, false },
};

struct op {
	enum op_kind kind;
	char a[64], b[64];
	off_t at, to;
	size_t len;
	unsigned seed;
	int mode;
};

struct result {
	long rc;
	int err;
	size_t n;   /* bytes in data */
	char *data; /* what was read on the way */
};

static const char *ref_root;
static const char *roots[2];
static int n_roots;
static uint64_t seed, rng;
static bool have_xattr = true;
static int space_modes[4], n_space_modes;
static unsigned long op_nr, n_good, n_exdev;
static bool may_exdev; /* a directory that is large for the store is not exchanged */
static char kept[KEPT][256];
static struct result res_ref, res_dir;
static char *buf_a, *buf_b;

static uint64_t rnd(uint64_t *state)
{
	uint64_t z = (*state += UINT64_C(0x9e3779b97f4a7c15));

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

static size_t below(uint64_t *state, size_t n)
{
	return n ? (size_t)(rnd(state) % n) : 0;
}

static void fill(char *buf, size_t len, unsigned s)
{
	uint64_t state = s;

	for (size_t i = 0; i < len; i += 8) {
		uint64_t v = rnd(&state);

		memcpy(buf + i, &v, len - i < 8 ? len - i : 8);
	}
}

static int64_t now_ns(void)
{
	struct timespec t;

	clock_gettime(CLOCK_MONOTONIC, &t);
	return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

static void fail(const char *fmt, ...) __attribute__((noreturn, format(printf, 1, 2)));

static void fail(const char *fmt, ...)
{
	va_list ap;

	fprintf(stderr, "random-ops: operation %lu, seed %llu: ", op_nr, (unsigned long long)seed);
	va_start(ap, fmt);
	vfprintf(stderr, fmt, ap);
	va_end(ap);
	fprintf(stderr, "\nlast operations:\n");
	for (unsigned long i = op_nr >= KEPT ? op_nr - KEPT + 1 : 1; i <= op_nr; i++)
		fprintf(stderr, "  %s\n", kept[i % KEPT]);
	fprintf(stderr, "reference: %s\n", ref_root);
	for (int i = 0; i < n_roots; i++)
		fprintf(stderr, "tree %d: %s\n", i + 1, roots[i]);
	exit(1);
}

static const char *errname(int err)
{
	return err ? strerrorname_np(err) : "ok";
}

static void join(char *out, const char *root, const char *path)
{
	if (snprintf(out, PATH_BYTES, "%s%s%s", root, *path ? "/" : "", path) >= PATH_BYTES)
		fail("path too long: %s/%s", root, path);
}

/* ---- doing one operation ------------------------------------------- */

static void keep_data(struct result *r, const char *data, ssize_t n)
{
	if (n > 0 && r->n + (size_t)n <= DATA_MAX) {
		memcpy(r->data + r->n, data, (size_t)n);
		r->n += (size_t)n;
	}
}

static char *scratch(size_t len)
{
	static char *buf;
	static size_t have;

	if (len > have) {
		have = len + (1 << 20);
		buf = realloc(buf, have);
		if (!buf)
			abort();
	}
	return buf;
}

static int write_all(int fd, const char *buf, size_t len, off_t at)
{
	while (len) {
		ssize_t n = at < 0 ? write(fd, buf, len) : pwrite(fd, buf, len, at);

		if (n < 0)
			return -1;
		buf += n;
		len -= (size_t)n;
		if (at >= 0)
			at += n;
	}
	return 0;
}

/* Reads a window around the last change, through the same descriptor. */
static void look(int fd, struct result *r, off_t at, size_t len)
{
	off_t from = at > 17 ? at - 17 : 0;
	char *b = scratch(len + 40);

	keep_data(r, b, pread(fd, b, len + 40, from));
}

static int map_write(int fd, off_t at, size_t len, unsigned s)
{
	struct stat st;
	char *p, *b;

	if (fstat(fd, &st) < 0)
		return -1;
	if (st.st_size == 0 || at >= st.st_size)
		return 0;
	if (len > (size_t)(st.st_size - at))
		len = (size_t)(st.st_size - at);
	p = mmap(NULL, (size_t)st.st_size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (p == MAP_FAILED)
		return -1;
	b = scratch(len);
	fill(b, len, s);
	memcpy(p + at, b, len);
	if (s & 1)
		msync(p, (size_t)st.st_size, MS_SYNC);
	return munmap(p, (size_t)st.st_size);
}

static int session(const char *path, const struct op *o, struct result *r)
{
	uint64_t state = o->seed;
	int flags = O_RDWR | O_NONBLOCK, fd, rc = 0;
	bool pending; /* cut or created, and nothing written since */
	int steps = 1 + (int)below(&state, 6);
	struct stat st;

	if (below(&state, 3))
		flags |= O_CREAT;
	if (below(&state, 4) == 0)
		flags |= O_TRUNC;
	if (below(&state, 8) == 0)
		flags |= O_APPEND;
	fd = open(path, flags, 0644);
	if (fd < 0)
		return -1;
	pending = flags & (O_TRUNC | O_CREAT);
	for (int i = 0; i < steps && rc == 0; i++) {
		size_t len = 1 + below(&state, below(&state, 6) ? 3000 : 120000);
		off_t at = (off_t)below(&state, below(&state, 6) ? 8000 : 300000) | 1;
		unsigned s = (unsigned)rnd(&state);
		char *b;

		switch (below(&state, 7)) {
		case 0:
			rc = ftruncate(fd, at);
			pending = true;
			break;
		case 1:
			rc = map_write(fd, at, len, s);
			break;
		case 2:
			rc = fsync(fd);
			pending = false;
			break;
		case 3:
			look(fd, r, at, len);
			break;
		default:
			b = scratch(len);
			fill(b, len, s);
			rc = write_all(fd, b, len, at);
			pending = false;
			look(fd, r, at, len);
		}
		if (fstat(fd, &st) == 0)
			keep_data(r, (const char *)&st.st_size, sizeof(st.st_size));
	}
	/* A cut alone is published some time after the last close, unless it is synchronised. */
	if (pending && fsync(fd) < 0)
		rc = -1;
	if (close(fd) < 0)
		rc = -1;
	return rc;
}

static int by_name(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Sorted names of a directory; NULL with errno. */
static char **names_of(const char *path, size_t *ret_n)
{
	size_t n = 0, have = 0;
	char **v = NULL;
	struct dirent *e;
	DIR *d = opendir(path);

	if (!d)
		return NULL;
	while ((e = readdir(d))) {
		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
			continue;
		if (n == have) {
			have = have * 2 + 16;
			v = realloc(v, have * sizeof(*v));
			if (!v)
				abort();
		}
		v[n++] = strdup(e->d_name);
	}
	closedir(d);
	if (!v)
		v = malloc(sizeof(*v));
	if (n)
		qsort(v, n, sizeof(*v), by_name);
	*ret_n = n;
	return v;
}

static void names_free(char **v, size_t n)
{
	for (size_t i = 0; i < n; i++)
		free(v[i]);
	free(v);
}

static long copy_ranges(const char *pa, const char *pb, const struct op *o)
{
	int in = open(pa, O_RDONLY | O_NONBLOCK), out, err = 0;
	off_t from = o->at, to = o->to;
	size_t left = o->len;
	struct stat a, b;
	long rc = -1;

	if (in < 0)
		return -1;
	out = open(pb, O_RDWR | O_CREAT | O_NONBLOCK, 0644);
	if (out < 0) {
		err = errno;
		goto out;
	}
	if (fstat(in, &a) == 0 && fstat(out, &b) == 0 && a.st_ino == b.st_ino) {
		rc = 0; /* overlap is EINVAL at times: not worth knowing */
		goto out;
	}
	rc = 0;
	while (left) {
		long n = syscall(SYS_copy_file_range, in, &from, out, &to, left, 0);

		if (n < 0) {
			err = errno;
			rc = -1;
		}
		if (n <= 0)
			break;
		left -= (size_t)n;
	}
	/* A file made and not written is published some time after the last close. */
	if (left == o->len && fsync(out) < 0) {
		err = errno;
		rc = -1;
	}
out:
	close(in);
	if (out >= 0 && close(out) < 0 && rc == 0) {
		err = errno;
		rc = -1;
	}
	errno = err;
	return rc;
}

static void do_op(const char *root, const struct op *o, struct result *r)
{
	char pa[PATH_BYTES], pb[PATH_BYTES];
	char *b;
	int fd;

	join(pa, root, o->a);
	join(pb, root, o->b);
	r->n = 0;
	r->rc = -1;
	errno = 0;
	switch (o->kind) {
	case OP_SESSION:
		r->rc = session(pa, o, r);
		break;
	case OP_WRITE:
	case OP_REWRITE:
	case OP_APPEND:
		fd = open(pa,
			  O_RDWR | O_CREAT | O_NONBLOCK | (o->kind == OP_REWRITE ? O_TRUNC : 0) |
				  (o->kind == OP_APPEND ? O_APPEND : 0) |
				  (o->seed % 16 == 3 ? O_EXCL : 0),
			  0644);
		if (fd < 0)
			break;
		b = scratch(o->len);
		fill(b, o->len, o->seed);
		r->rc = write_all(fd, b, o->len, o->kind == OP_WRITE ? o->at : -1);
		look(fd, r, o->kind == OP_WRITE ? o->at : 3, o->len);
		if (close(fd) < 0)
			r->rc = -1;
		break;
	case OP_TRUNCATE:
		r->rc = truncate(pa, o->at);
		break;
	case OP_READ:
		fd = open(pa, O_RDONLY | O_NONBLOCK);
		if (fd < 0)
			break;
		b = scratch(o->len);
		r->rc = pread(fd, b, o->len, o->at);
		keep_data(r, b, r->rc);
		close(fd);
		break;
	case OP_MAP:
		fd = open(pa, O_RDWR | O_NONBLOCK);
		if (fd < 0)
			break;
		r->rc = map_write(fd, o->at, o->len, o->seed);
		if (close(fd) < 0)
			r->rc = -1;
		break;
	case OP_SPACE:
		fd = open(pa, O_RDWR | O_NONBLOCK);
		if (fd < 0)
			break;
		r->rc = fallocate(fd, o->mode, o->at, (off_t)o->len);
		if (r->rc == 0)
			r->rc = fsync(fd);
		if (close(fd) < 0)
			r->rc = -1;
		break;
	case OP_COPY:
		r->rc = copy_ranges(pa, pb, o);
		break;
	case OP_RENAME:
	case OP_NOREPLACE:
	case OP_EXCHANGE:
		r->rc = syscall(SYS_renameat2, AT_FDCWD, pa, AT_FDCWD, pb,
				o->kind == OP_RENAME	  ? 0
				: o->kind == OP_NOREPLACE ? RENAME_NOREPLACE
							  : RENAME_EXCHANGE);
		break;
	case OP_LINK:
		r->rc = link(pa, pb);
		break;
	case OP_SYMLINK:
		r->rc = symlink(o->b, pa);
		break;
	case OP_UNLINK:
		r->rc = unlink(pa);
		break;
	case OP_MKDIR:
		r->rc = mkdir(pa, 0755);
		break;
	case OP_RMDIR:
		r->rc = rmdir(pa);
		break;
	case OP_CHMOD:
		r->rc = chmod(pa, (mode_t)o->mode);
		break;
	case OP_UTIMENS: {
		struct timespec t[2] = { { o->at, o->seed % 1000000000 },
					 { o->to, (o->seed / 3) % 1000000000 } };

		r->rc = utimensat(AT_FDCWD, pa, t, AT_SYMLINK_NOFOLLOW);
		break;
	}
	case OP_SETXATTR:
	case OP_DELXATTR: {
		char name[16] = "user.a", value[400];

		name[5] = (char)('a' + o->seed % 3);
		fill(value, sizeof(value), o->seed);
		if (o->kind == OP_SETXATTR)
			r->rc = setxattr(pa, name, value, o->len % sizeof(value), 0);
		else
			r->rc = removexattr(pa, name);
		break;
	}
	case OP_LIST: {
		size_t n = 0;
		char **v = names_of(pa, &n);

		if (!v)
			break;
		for (size_t i = 0; i < n; i++)
			keep_data(r, v[i], (ssize_t)strlen(v[i]) + 1);
		r->rc = (long)n;
		names_free(v, n);
		break;
	}
	case OP_COUNT:
		break;
	}
	r->err = r->rc < 0 ? errno : 0;
}

/* ---- comparing ----------------------------------------------------- */

static char why[PATH_BYTES * 2];

static bool differs(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

static bool differs(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(why, sizeof(why), fmt, ap);
	va_end(ap);
	return false;
}

static ssize_t read_file(const char *path, char *buf)
{
	int fd = open(path, O_RDONLY | O_NONBLOCK);
	size_t got = 0;

	if (fd < 0)
		return -1;
	for (;;) {
		/* pieces of an odd size, so that no offset but the first is aligned */
		ssize_t n = read(fd, buf + got, got + 77777 > DATA_MAX ? DATA_MAX - got : 77777);

		if (n < 0) {
			close(fd);
			return -1;
		}
		if (n == 0)
			break;
		got += (size_t)n;
	}
	close(fd);
	return (ssize_t)got;
}

static bool same_contents(const char *root, const char *path)
{
	char pr[PATH_BYTES], pd[PATH_BYTES];
	ssize_t a, b;

	join(pr, ref_root, path);
	join(pd, root, path);
	a = read_file(pr, buf_a);
	if (a < 0)
		return differs("reference %s: %s", pr, errname(errno));
	b = read_file(pd, buf_b);
	if (b < 0)
		return differs("open and read of %s: %s", pd, errname(errno));
	if (a != b)
		return differs("%s: %zd bytes, expected %zd", pd, b, a);
	for (ssize_t i = 0; i < a; i++) {
		if (buf_a[i] != buf_b[i])
			return differs("%s: byte %zd of %zd is %02x, expected %02x", pd, i, a,
				       (unsigned char)buf_b[i], (unsigned char)buf_a[i]);
	}
	return true;
}

static bool same_xattrs(const char *pr, const char *pd)
{
	static const char *const names[] = { "user.a", "user.b", "user.c" };
	char a[512], b[512];

	for (int i = 0; have_xattr && i < 3; i++) {
		ssize_t n = getxattr(pr, names[i], a, sizeof(a));
		ssize_t m = getxattr(pd, names[i], b, sizeof(b));

		if (n != m || (n > 0 && memcmp(a, b, (size_t)n)))
			return differs("%s: attribute %s: %zd bytes, expected %zd", pd, names[i], m,
				       n);
	}
	return true;
}

static bool same_time(struct timespec a, struct timespec b)
{
	return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

/* Everything that lstat tells of a name, against the reference and, with two
 * mounts, between the two. */
static bool same_attrs(const char *path)
{
	char pr[PATH_BYTES], pd[PATH_BYTES];
	struct stat r, s[2];
	int rr, err;

	join(pr, ref_root, path);
	rr = lstat(pr, &r);
	err = rr < 0 ? errno : 0;
	for (int i = 0; i < n_roots; i++) {
		int rd, derr;

		join(pd, roots[i], path);
		rd = lstat(pd, &s[i]);
		derr = rd < 0 ? errno : 0;
		if (err != derr)
			return differs("lstat %s: %s, expected %s", pd, errname(derr),
				       errname(err));
		if (err)
			continue;
		if (r.st_mode != s[i].st_mode)
			return differs("%s: mode %o, expected %o", pd, s[i].st_mode, r.st_mode);
		if (r.st_nlink != s[i].st_nlink)
			return differs("%s: %ju links, expected %ju", pd, (uintmax_t)s[i].st_nlink,
				       (uintmax_t)r.st_nlink);
		if (r.st_uid != s[i].st_uid || r.st_gid != s[i].st_gid)
			return differs("%s: owner", pd);
		if (!S_ISDIR(r.st_mode) && r.st_size != s[i].st_size)
			return differs("%s: size %jd, expected %jd", pd, (intmax_t)s[i].st_size,
				       (intmax_t)r.st_size);
		if (S_ISLNK(r.st_mode)) {
			char a[PATH_BYTES], b[PATH_BYTES];
			ssize_t n = readlink(pr, a, sizeof(a)), m = readlink(pd, b, sizeof(b));

			if (n != m || memcmp(a, b, (size_t)n))
				return differs("%s: target", pd);
		}
	}
	if (!err && n_roots == 2) {
		if (s[0].st_ino != s[1].st_ino)
			return differs("%s: inode %ju and %ju", path, (uintmax_t)s[0].st_ino,
				       (uintmax_t)s[1].st_ino);
		if (!same_time(s[0].st_mtim, s[1].st_mtim) ||
		    !same_time(s[0].st_ctim, s[1].st_ctim) ||
		    !same_time(s[0].st_atim, s[1].st_atim))
			return differs("%s: times differ between the mounts", path);
	}
	return true;
}

/* ref inode ↔ tree inode must be one to one. */
struct pair {
	uint64_t ref, dir;
};
static struct pair pairs[20000];
static size_t n_pairs;

static bool same_identity(const char *path, uint64_t ref, uint64_t dir)
{
	for (size_t i = 0; i < n_pairs; i++) {
		if ((pairs[i].ref == ref) != (pairs[i].dir == dir))
			return differs("%s: inode number %ju is shared wrongly", path,
				       (uintmax_t)dir);
	}
	if (n_pairs < sizeof(pairs) / sizeof(*pairs))
		pairs[n_pairs++] = (struct pair){ ref, dir };
	return true;
}

static bool same_tree(const char *root, const char *path)
{
	char pr[PATH_BYTES], pd[PATH_BYTES], sub[PATH_BYTES];
	size_t n = 0, m = 0;
	char **a, **b;
	bool good;

	join(pr, ref_root, path);
	join(pd, root, path);
	a = names_of(pr, &n);
	b = names_of(pd, &m);
	if (!a || !b)
		good = differs("list of %s: %s", pd, errname(errno));
	else
		good = true;
	for (size_t i = 0; good && i < (n > m ? n : m); i++) {
		struct stat sr, sd;

		if (i >= n || i >= m || strcmp(a[i], b[i])) {
			good = differs("%s lists %s, expected %s", pd,
				       i < m ? b[i] : "nothing more",
				       i < n ? a[i] : "nothing more");
			break;
		}
		join(sub, path, a[i]);
		if (!*path)
			memmove(sub, sub + 1, strlen(sub));
		good = same_attrs(sub);
		if (!good)
			break;
		join(pr, ref_root, sub);
		join(pd, root, sub);
		if (lstat(pr, &sr) < 0 || lstat(pd, &sd) < 0) {
			good = differs("lstat %s: %s", pd, errname(errno));
			break;
		}
		if (S_ISDIR(sr.st_mode))
			good = same_identity(sub, sr.st_ino, sd.st_ino) && same_xattrs(pr, pd) &&
			       same_tree(root, sub);
		else if (S_ISREG(sr.st_mode))
			good = same_identity(sub, sr.st_ino, sd.st_ino) && same_xattrs(pr, pd) &&
			       same_contents(root, sub);
	}
	if (a)
		names_free(a, n);
	if (b)
		names_free(b, m);
	return good;
}

static bool same_attrs_arg(const char *root, const char *path)
{
	(void)root;
	return same_attrs(path);
}

/* Once, or with two mounts until equal, within the bound. */
static void settles(bool (*fn)(const char *root, const char *path), const char *root,
		    const char *path, const char *what)
{
	int64_t end = now_ns() + SETTLE_NS;

	for (;;) {
		n_pairs = 0;
		if (fn(root, path))
			return;
		if (n_roots == 1 || now_ns() > end)
			fail("%s: %s", what, why);
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
	}
}

static void parent_of(char *out, const char *path)
{
	const char *slash = strrchr(path, '/');

	size_t n = slash ? (size_t)(slash - path) : 0;

	memcpy(out, path, n);
	out[n] = 0;
}

static bool is_file(const char *root, const char *path, struct stat *st)
{
	char p[PATH_BYTES];

	join(p, root, path);
	return stat(p, st) == 0 && S_ISREG(st->st_mode);
}

/* ---- choosing ------------------------------------------------------ */

static void random_path(char *out, bool dir)
{
	static const char *const dirs[] = { "d0", "d1", "d2", "d3" };
	static const char *const files[] = {
		"f0",	    "f1",   "f2", "definitions.json", "with blank", "n\nl",
		"\xff\xfe", "100%", "f8", "terraform.tfstate"
	};
	size_t depth = below(&rng, 3);

	out[0] = 0;
	for (size_t i = 0; i < depth; i++) {
		strcat(out, dirs[below(&rng, 4)]);
		strcat(out, "/");
	}
	strcat(out, dir ? dirs[below(&rng, 4)] : files[below(&rng, 10)]);
}

static size_t random_len(void)
{
	switch (below(&rng, 10)) {
	case 0:
		return 1 + below(&rng, 600000);
	case 1:
	case 2:
		return 1 + below(&rng, 70000);
	default:
		return 1 + below(&rng, 5000);
	}
}

static void choose(struct op *o)
{
	int total = 0, at;

	for (int i = 0; i < OP_COUNT; i++)
		total += ops[i].weight;
	at = (int)below(&rng, (size_t)total);
	memset(o, 0, sizeof(*o));
	for (int i = 0; i < OP_COUNT; i++) {
		at -= ops[i].weight;
		if (at < 0) {
			o->kind = (enum op_kind)i;
			break;
		}
	}
	o->seed = (unsigned)rnd(&rng);
	o->len = random_len();
	o->at = (off_t)below(&rng, below(&rng, 5) ? 10000 : 600000) | 1;
	o->to = (off_t)below(&rng, below(&rng, 5) ? 10000 : 600000) | 1;
	random_path(o->a, false);
	random_path(o->b, false);
	switch (o->kind) {
	case OP_MKDIR:
	case OP_RMDIR:
		random_path(o->a, true);
		break;
	case OP_LIST:
		if (below(&rng, 4))
			random_path(o->a, true);
		else
			o->a[0] = 0;
		break;
	case OP_RENAME:
	case OP_NOREPLACE:
	case OP_EXCHANGE:
		if (below(&rng, 3) == 0) {
			random_path(o->a, true);
			random_path(o->b, true);
		}
		break;
	case OP_SYMLINK:
		if (below(&rng, 2))
			random_path(o->b, true);
		break;
	case OP_CHMOD:
		if (below(&rng, 3) == 0)
			random_path(o->a, true);
		o->mode = 0600 | (int)below(&rng, 0200);
		break;
	case OP_UTIMENS:
	case OP_SETXATTR:
	case OP_DELXATTR:
		if (below(&rng, 3) == 0)
			random_path(o->a, true);
		break;
	case OP_SPACE:
		o->mode = n_space_modes ? space_modes[below(&rng, (size_t)n_space_modes)] : -1;
		break;
	default:
		break;
	}
}

static void remember(const struct op *o, int where)
{
	char shown[2][72];

	for (int k = 0; k < 2; k++) {
		const char *s = k ? o->b : o->a;
		size_t n = 0;

		for (; *s && n < sizeof(shown[0]) - 1; s++)
			shown[k][n++] = *s < ' ' || *s > '~' ? '?' : *s;
		shown[k][n] = 0;
	}
	snprintf(kept[op_nr % KEPT], sizeof(kept[0]),
		 "%lu in tree %d: %s '%s' '%s' at %jd to %jd len %zu mode %#x seed %u", op_nr,
		 where + 1, ops[o->kind].name, shown[0], shown[1], (intmax_t)o->at, (intmax_t)o->to,
		 o->len, o->mode, o->seed);
}

/* The same in both trees. False where only the store refused, by its limits, and
 * the reference was left alone. */
static bool do_both(const struct op *o, int where)
{
	if (!may_exdev || o->kind != OP_EXCHANGE) {
		do_op(ref_root, o, &res_ref);
		do_op(roots[where], o, &res_dir);
		return true;
	}
	do_op(roots[where], o, &res_dir);
	if (res_dir.err == EXDEV) {
		n_exdev++;
		return false;
	}
	do_op(ref_root, o, &res_ref);
	return true;
}

static void step(void)
{
	int where = n_roots == 2 ? (int)below(&rng, 2) : 0;
	const char *other = roots[n_roots == 2 ? !where : 0];
	char up[PATH_BYTES];
	bool known;
	struct stat st, before;
	struct op o;

	choose(&o);
	if (o.kind == OP_SPACE && !n_space_modes)
		o.kind = OP_TRUNCATE;
	if ((o.kind == OP_SETXATTR || o.kind == OP_DELXATTR) && !have_xattr)
		o.kind = OP_CHMOD, o.mode = 0640;
	op_nr++;
	remember(&o, where);
	/* Was it a file before, for both? Then its new contents are due at once. */
	known = ops[o.kind].data && is_file(other, o.kind == OP_COPY ? o.b : o.a, &before);
	if (!do_both(&o, where))
		return;
	if (res_ref.err != res_dir.err || res_ref.rc != res_dir.rc)
		fail("%s: %ld %s, expected %ld %s", ops[o.kind].name, res_dir.rc,
		     errname(res_dir.err), res_ref.rc, errname(res_ref.err));
	n_good += res_ref.err == 0;
	if (res_ref.n != res_dir.n)
		fail("%s: read %zu bytes, expected %zu", ops[o.kind].name, res_dir.n, res_ref.n);
	if (memcmp(res_ref.data, res_dir.data, res_ref.n))
		fail("%s: what was read differs", ops[o.kind].name);
	if (ops[o.kind].data) {
		const char *p = o.kind == OP_COPY ? o.b : o.a;

		if (known && is_file(ref_root, p, &st) && !same_contents(other, p))
			fail("contents, at once: %s", why);
	}
	if (o.kind == OP_READ || o.kind == OP_LIST)
		return;
	settles(same_attrs_arg, other, o.a, ops[o.kind].name);
	parent_of(up, o.a);
	settles(same_attrs_arg, other, up, ops[o.kind].name);
	if (o.kind == OP_RENAME || o.kind == OP_NOREPLACE || o.kind == OP_EXCHANGE ||
	    o.kind == OP_LINK || o.kind == OP_COPY) {
		settles(same_attrs_arg, other, o.b, ops[o.kind].name);
		parent_of(up, o.b);
		settles(same_attrs_arg, other, up, ops[o.kind].name);
		if (is_file(ref_root, o.b, &st) && !same_contents(other, o.b))
			fail("contents: %s", why);
	}
	if (is_file(ref_root, o.a, &st) && !same_contents(other, o.a))
		fail("contents: %s", why);
	if (o.kind == OP_UTIMENS && res_ref.rc == 0) {
		char pr[PATH_BYTES], pd[PATH_BYTES];

		join(pr, ref_root, o.a);
		join(pd, other, o.a);
		if (lstat(pr, &st) < 0 || lstat(pd, &before) < 0 ||
		    !same_time(st.st_mtim, before.st_mtim))
			fail("mtime after utimensat");
	}
}

static void find_modes(void)
{
	static const int modes[] = { FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, 0,
				     FALLOC_FL_KEEP_SIZE, FALLOC_FL_ZERO_RANGE };
	const char *dirs[] = { ref_root, roots[0] };

	for (size_t m = 0; m < sizeof(modes) / sizeof(*modes); m++) {
		bool good = true;

		for (int i = 0; i < 2; i++) {
			char p[PATH_BYTES];
			int fd;

			join(p, dirs[i], "probe");
			fd = open(p, O_RDWR | O_CREAT, 0644);
			if (fd < 0)
				fail("%s: %s", p, errname(errno));
			if (fallocate(fd, modes[m], 0, 4096) < 0)
				good = false;
			if (fsetxattr(fd, "user.a", "x", 1, 0) < 0)
				have_xattr = false;
			close(fd);
			unlink(p);
		}
		if (good)
			space_modes[n_space_modes++] = modes[m];
	}
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "seed", required_argument, NULL, 's' }, { "ops", required_argument, NULL, 'n' },
		{ "full", required_argument, NULL, 'f' }, { "ref", required_argument, NULL, 'r' },
		{ "exdev", no_argument, NULL, 'x' },	  { 0 },
	};
	static char names[3][PATH_BYTES];
	unsigned long n = 10000, full = 1000;
	const char *ref = NULL;
	int64_t start;
	int c;

	seed = (uint64_t)now_ns() % 1000000007;
	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == 's')
			seed = strtoull(optarg, NULL, 0);
		else if (c == 'n')
			n = strtoul(optarg, NULL, 0);
		else if (c == 'f')
			full = strtoul(optarg, NULL, 0);
		else if (c == 'r')
			ref = optarg;
		else if (c == 'x')
			may_exdev = true;
		else
			return 2;
	}
	n_roots = argc - optind;
	if (!ref || n_roots < 1 || n_roots > 2) {
		fprintf(stderr, "usage: random-ops [--seed N] [--ops N] [--full N] [--exdev] "
				"--ref REF DIR1 [DIR2]\n");
		return 2;
	}
	setvbuf(stdout, NULL, _IOLBF, 0);
	umask(0);
	printf("seed %llu, %lu operations, %d tree%s\n", (unsigned long long)seed, n, n_roots,
	       n_roots == 1 ? "" : "s");
	rng = seed;
	res_ref.data = malloc(DATA_MAX);
	res_dir.data = malloc(DATA_MAX);
	buf_a = malloc(DATA_MAX);
	buf_b = malloc(DATA_MAX);
	for (int i = 0; i < 3 && i <= n_roots; i++) {
		snprintf(names[i], sizeof(names[i]), "%s/random-ops.%d",
			 i == 0 ? ref : argv[optind + i - 1], (int)getpid());
		if (i < 2 && mkdir(names[i], 0755) < 0) {
			fprintf(stderr, "random-ops: %s: %m\n", names[i]);
			return 2;
		}
		if (i > 0)
			roots[i - 1] = names[i];
	}
	ref_root = names[0];
	if (n_roots == 2) {
		int64_t end = now_ns() + SETTLE_NS;
		struct stat st;

		while (stat(roots[1], &st) < 0) {
			if (now_ns() > end)
				fail("the second mount doesn't show the directory made in the "
				     "first");
			nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
		}
	}
	find_modes();
	if (n_roots == 2)
		settles(same_tree, roots[1], "", "start");
	start = now_ns();
	while (op_nr < n) {
		step();
		if (op_nr % full == 0 || op_nr == n) {
			for (int i = 0; i < n_roots; i++)
				settles(same_tree, roots[i], "", "whole tree");
		}
		if (op_nr % 10000 == 0)
			printf("%lu operations, %.1f s\n", op_nr, (double)(now_ns() - start) / 1e9);
	}
	if (n_exdev)
		printf("%lu directories were too large to be exchanged\n", n_exdev);
	printf("%lu operations (%lu not refused), %.1f s, all equal\n", op_nr, n_good,
	       (double)(now_ns() - start) / 1e9);
	return 0;
}
