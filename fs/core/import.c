/* SPDX-License-Identifier: MIT */
#include "core/import.h"

#include <errno.h>
#include <fcntl.h>
#include <stddef.h>
#include <string.h>

#include "core/control.h"
#include "core/key.h"
#include "util/buf.h"
#include "util/clock.h"
#include "util/map.h"

#define BLOCK_BYTES ((size_t)1 << 20)

/* A file with several names, and the first one that was copied. */
struct linked {
	struct icm_map_node node;
	dev_t dev;
	ino_t ino;
	char path[];
};

struct import {
	struct icm_port *src, *dst;
	const struct icm_import_options *options;
	struct icm_import_result *result;
	struct icm_map links;
	char *block[2]; /* BLOCK_BYTES each, owned */
};

/* ---- reports ---- */

static void fail(struct import *im, const char *path, const char *what)
{
	im->result->failed++;
	if (im->options->problem)
		im->options->problem(im->options->userdata, path, what);
}

static void fail_errno(struct import *im, const char *path, const char *doing, int error)
{
	ICM_AUTOFREE char *what = icm_asprintf("%s: %s", doing, strerror(-error));

	fail(im, path, what);
}

static void say(struct import *im, const char *path, const char *what)
{
	if (im->options->action)
		im->options->action(im->options->userdata, path, what);
}

static void progress(struct import *im)
{
	if (im->options->progress)
		im->options->progress(im->options->userdata, im->result);
}

/* ---- contents ---- */

/* One stretch of data of an open pair. */
static int copy_range(struct import *im, struct icm_port_file *in, struct icm_port_file *out,
		      off_t off, off_t end)
{
	while (off < end) {
		size_t want = end - off < (off_t)BLOCK_BYTES ? (size_t)(end - off) : BLOCK_BYTES;
		ssize_t n = im->src->ops->read(im->src, in, im->block[0], want, off);
		int r;

		if (n <= 0)
			return (int)n; /* it became shorter: the comparison will say so */
		r = im->dst->ops->write(im->dst, out, im->block[0], (size_t)n, off);
		if (r < 0)
			return r;
		off += n;
		im->result->bytes += (uint64_t)n;
		progress(im);
	}
	return 0;
}

/* All data; holes stay holes. */
static int copy_bytes(struct import *im, struct icm_port_file *in, struct icm_port_file *out,
		      off_t size)
{
	off_t off = 0;

	while (off < size) {
		off_t data = im->src->ops->seek(im->src, in, off, SEEK_DATA);
		off_t hole;
		int r;

		if (data == -ENXIO)
			break;
		if (data < 0)
			return (int)data;
		hole = im->src->ops->seek(im->src, in, data, SEEK_HOLE);
		if (hole < 0)
			return (int)hole;
		r = copy_range(im, in, out, data, hole < size ? hole : size);
		if (r < 0)
			return r;
		off = hole;
	}
	return im->dst->ops->truncate(im->dst, out, size);
}

static int copy_xattrs(struct import *im, const char *path, struct icm_port_file *out)
{
	ICM_CLEANUP(icm_port_xattrs_clear) struct icm_port_xattrs have = { 0 };
	ICM_CLEANUP(icm_port_xattrs_clear) struct icm_port_xattrs want = { 0 };
	int r = im->src->ops->xattrs(im->src, path, &want);

	if (r >= 0)
		r = im->dst->ops->xattrs(im->dst, path, &have);
	for (size_t i = 0, j = 0; r >= 0 && (i < want.n || j < have.n);) {
		int c = i == want.n ? 1 : j == have.n ? -1 : strcmp(want.v[i].name, have.v[j].name);

		if (c > 0) {
			r = im->dst->ops->set_xattr(im->dst, path, out, have.v[j].name, NULL, 0);
		} else if (c < 0 || want.v[i].len != have.v[j].len ||
			   memcmp(want.v[i].value, have.v[j].value, want.v[i].len) != 0) {
			r = im->dst->ops->set_xattr(im->dst, path, out, want.v[i].name,
						    want.v[i].value, want.v[i].len);
		}
		i += c <= 0;
		j += c >= 0;
	}
	return r;
}

static int write_file(struct import *im, const char *path, const struct stat *st)
{
	struct icm_port_file *in, *out;
	int r = im->src->ops->open(im->src, path, O_RDONLY, &in);
	int closed;

	if (r < 0)
		return r;
	r = im->dst->ops->open(im->dst, path, O_WRONLY | O_CREAT | O_TRUNC, &out);
	if (r < 0) {
		im->src->ops->close(im->src, in);
		return r;
	}
	r = copy_bytes(im, in, out, st->st_size);
	if (r >= 0)
		r = copy_xattrs(im, path, out);
	if (r >= 0)
		r = im->dst->ops->set(im->dst, path, out, st);
	im->src->ops->close(im->src, in);
	closed = im->dst->ops->close(im->dst, out);
	return r < 0 ? r : closed;
}

/* Reads until `len` bytes or the end. */
static ssize_t read_full(struct icm_port *p, struct icm_port_file *f, char *buf, size_t len,
			 off_t off)
{
	size_t done = 0;

	while (done < len) {
		ssize_t n = p->ops->read(p, f, buf + done, len - done, off + (off_t)done);

		if (n < 0)
			return n;
		if (n == 0)
			break;
		done += (size_t)n;
	}
	return (ssize_t)done;
}

/* 1 equal, 0 not, or an error. */
static int compare_open(struct import *im, struct icm_port_file *a, struct icm_port_file *b)
{
	for (off_t off = 0;; off += (off_t)BLOCK_BYTES) {
		ssize_t n = read_full(im->src, a, im->block[0], BLOCK_BYTES, off);
		ssize_t m = n < 0 ? n : read_full(im->dst, b, im->block[1], BLOCK_BYTES, off);

		if (m < 0)
			return (int)m;
		if (n != m || memcmp(im->block[0], im->block[1], (size_t)n) != 0)
			return 0;
		if ((size_t)n < BLOCK_BYTES)
			return 1;
	}
}

static int compare_bytes(struct import *im, const char *path)
{
	struct icm_port_file *a, *b;
	int r = im->src->ops->open(im->src, path, O_RDONLY, &a);

	if (r < 0)
		return r;
	r = im->dst->ops->open(im->dst, path, O_RDONLY, &b);
	if (r >= 0) {
		r = compare_open(im, a, b);
		im->dst->ops->close(im->dst, b);
	}
	im->src->ops->close(im->src, a);
	return r;
}

/* ---- verification ---- */

static bool same_attributes(const struct stat *a, const struct stat *b)
{
	if ((a->st_mode & S_IFMT) != (b->st_mode & S_IFMT))
		return false;
	if (!S_ISLNK(a->st_mode) && (a->st_mode & 07777) != (b->st_mode & 07777))
		return false;
	if (geteuid() == 0 && (a->st_uid != b->st_uid || a->st_gid != b->st_gid))
		return false;
	return icm_timespec_cmp(a->st_mtim, b->st_mtim) == 0;
}

static bool same_xattrs(struct import *im, const char *path)
{
	ICM_CLEANUP(icm_port_xattrs_clear) struct icm_port_xattrs have = { 0 };
	ICM_CLEANUP(icm_port_xattrs_clear) struct icm_port_xattrs want = { 0 };

	if (im->src->ops->xattrs(im->src, path, &want) < 0 ||
	    im->dst->ops->xattrs(im->dst, path, &have) < 0 || want.n != have.n)
		return false;
	for (size_t i = 0; i < want.n; i++)
		if (strcmp(want.v[i].name, have.v[i].name) != 0 || want.v[i].len != have.v[i].len ||
		    memcmp(want.v[i].value, have.v[i].value, want.v[i].len) != 0)
			return false;
	return true;
}

/* 1 equal, 0 not, or an error; *ret_what says what differs. */
static int same_kind_contents(struct import *im, const char *path, const struct stat *a,
			      const struct stat *b)
{
	ICM_AUTOFREE char *want = NULL;
	ICM_AUTOFREE char *have = NULL;
	int r;

	if (S_ISREG(a->st_mode))
		return a->st_size == b->st_size ? compare_bytes(im, path) : 0;
	if (S_ISBLK(a->st_mode) || S_ISCHR(a->st_mode))
		return a->st_rdev == b->st_rdev;
	if (!S_ISLNK(a->st_mode))
		return 1;
	r = im->src->ops->readlink(im->src, path, &want);
	if (r >= 0)
		r = im->dst->ops->readlink(im->dst, path, &have);
	return r < 0 ? r : !strcmp(want, have);
}

/* Compares what is at the destination now with the source as it is now. */
static void verify(struct import *im, const char *path)
{
	struct stat a, b;
	int r = im->src->ops->stat(im->src, path, &a);

	if (r >= 0)
		r = im->dst->ops->stat(im->dst, path, &b);
	if (r >= 0 && (a.st_mode & S_IFMT) != (b.st_mode & S_IFMT))
		r = 0;
	else if (r >= 0)
		r = same_kind_contents(im, path, &a, &b);
	if (r < 0)
		fail_errno(im, path, "comparing", r);
	else if (r == 0)
		fail(im, path, "differs from its source after it was copied");
	else if (!same_attributes(&a, &b) || !same_xattrs(im, path))
		fail(im, path, "its attributes differ from those of its source");
}

/* ---- removing ---- */

static int remove_tree(struct import *im, const char *path, const struct stat *st)
{
	ICM_CLEANUP(icm_port_names_clear) struct icm_port_names names = { 0 };
	bool is_dir = S_ISDIR(st->st_mode);
	int r = is_dir ? im->dst->ops->list(im->dst, path, &names) : 0;

	for (size_t i = 0; r >= 0 && i < names.n; i++) {
		ICM_AUTOFREE char *below = icm_path_join(path, names.v[i]);
		struct stat child;

		r = im->dst->ops->stat(im->dst, below, &child);
		if (r >= 0)
			r = remove_tree(im, below, &child);
	}
	if (r >= 0)
		r = im->dst->ops->remove(im->dst, path, is_dir);
	return r;
}

/* Removes a name of the destination: 0, or an error that was reported. */
static int remove_name(struct import *im, const char *path, const struct stat *st)
{
	int r = 0;

	im->result->removed++;
	say(im, path, "remove");
	if (!im->options->dry_run)
		r = remove_tree(im, path, st);
	if (r < 0)
		fail_errno(im, path, "removing", r);
	return r;
}

static bool has_name(const struct icm_port_names *names, const char *name)
{
	size_t low = 0, high = names->n;

	while (low < high) {
		size_t middle = low + (high - low) / 2;
		int c = strcmp(names->v[middle], name);

		if (c == 0)
			return true;
		if (c < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return false;
}

/* What the source doesn't have goes. */
static void remove_others(struct import *im, const char *path, const struct icm_port_names *keep)
{
	ICM_CLEANUP(icm_port_names_clear) struct icm_port_names names = { 0 };
	int r = im->dst ? im->dst->ops->list(im->dst, path, &names) : 0;

	if (r < 0 && r != -ENOENT) /* a dry run hasn't made it */
		fail_errno(im, path, "listing", r);
	for (size_t i = 0; i < names.n; i++) {
		ICM_AUTOFREE char *below = icm_path_join(path, names.v[i]);
		struct stat st;

		if (has_name(keep, names.v[i]))
			continue;
		r = im->dst->ops->stat(im->dst, below, &st);
		if (r < 0)
			fail_errno(im, below, "looking at it", r);
		else
			remove_name(im, below, &st);
	}
}

/* ---- one name ---- */

/* The destination's object; false when there is none. Another kind of object
 * at the name goes (REPLACE, or both aren't directories) or is reported. */
enum there { THERE_NOTHING, THERE_SAME_KIND, THERE_ERROR };

static enum there look_at_destination(struct import *im, const char *path, const struct stat *st,
				      struct stat *ret)
{
	int r = im->dst ? im->dst->ops->stat(im->dst, path, ret) : -ENOENT;

	/* in a dry run a directory above may not be there */
	if (r == -ENOENT || (r == -ENOTDIR && im->options->dry_run))
		return THERE_NOTHING;
	if (r < 0) {
		fail_errno(im, path, "looking at the destination", r);
		return THERE_ERROR;
	}
	if ((ret->st_mode & S_IFMT) == (st->st_mode & S_IFMT))
		return THERE_SAME_KIND;
	if (im->options->mode == ICM_IMPORT_MERGE &&
	    (S_ISDIR(ret->st_mode) || S_ISDIR(st->st_mode))) {
		fail(im, path,
		     S_ISDIR(st->st_mode) ? "the destination has a file of this name"
					  : "the destination has a directory of this name");
		return THERE_ERROR;
	}
	return remove_name(im, path, ret) < 0 ? THERE_ERROR : THERE_NOTHING;
}

/* The path under which this file was copied before; NULL: first time, noted. */
static const char *earlier_link(struct import *im, const char *path, const struct stat *st)
{
	uint64_t hash = icm_hash_u64((uint64_t)st->st_ino ^ (uint64_t)st->st_dev << 40);
	struct linked *l;

	for (struct icm_map_node *n = icm_map_first(&im->links, hash); n; n = icm_map_next(n)) {
		l = ICM_CONTAINER(n, struct linked, node);
		if (l->dev == st->st_dev && l->ino == st->st_ino)
			return l->path;
	}
	l = icm_xcalloc(1, sizeof(*l) + strlen(path) + 1);
	strcpy(l->path, path);
	l->dev = st->st_dev;
	l->ino = st->st_ino;
	icm_map_add(&im->links, &l->node, hash);
	return NULL;
}

static void import_link(struct import *im, const char *path, const char *first, enum there there,
			const struct stat *old)
{
	struct stat st;
	int r = im->options->dry_run ? 0 : im->dst->ops->stat(im->dst, first, &st);

	if (r >= 0 && there == THERE_SAME_KIND && !im->options->dry_run &&
	    st.st_ino == old->st_ino) {
		im->result->unchanged++;
		return;
	}
	say(im, path, "link");
	im->result->files++;
	if (im->options->dry_run)
		return;
	if (r >= 0 && there == THERE_SAME_KIND)
		r = im->dst->ops->remove(im->dst, path, false);
	if (r >= 0)
		r = im->dst->ops->link(im->dst, first, path);
	if (r < 0)
		fail_errno(im, path, "linking", r);
}

static int make_other(struct import *im, const char *path, const struct stat *st)
{
	ICM_AUTOFREE char *target = NULL;
	int r;

	if (!S_ISLNK(st->st_mode)) {
		r = im->dst->ops->mknod(im->dst, path, (st->st_mode & S_IFMT) | 0600, st->st_rdev);
	} else {
		r = im->src->ops->readlink(im->src, path, &target);
		if (r >= 0)
			r = im->dst->ops->symlink(im->dst, path, target);
	}
	return r < 0 ? r : im->dst->ops->set(im->dst, path, NULL, st);
}

/* An object of this kind is there already: equal contents are left alone. */
static bool settle_same(struct import *im, const char *path, const struct stat *st,
			const struct stat *old)
{
	int r;

	if (same_kind_contents(im, path, st, old) <= 0)
		return false;
	if (same_attributes(st, old) && same_xattrs(im, path)) {
		im->result->unchanged++;
		return true;
	}
	say(im, path, "set attributes");
	im->result->files++;
	if (im->options->dry_run)
		return true;
	r = S_ISREG(st->st_mode) ? copy_xattrs(im, path, NULL) : 0;
	if (r >= 0)
		r = im->dst->ops->set(im->dst, path, NULL, st);
	if (r < 0)
		fail_errno(im, path, "setting attributes", r);
	else
		verify(im, path);
	return true;
}

static void import_file(struct import *im, const char *path, const struct stat *st)
{
	bool is_regular = S_ISREG(st->st_mode);
	struct stat old;
	enum there there = look_at_destination(im, path, st, &old);
	const char *first = st->st_nlink > 1 ? earlier_link(im, path, st) : NULL;
	int r;

	if (there == THERE_ERROR)
		return;
	if (first) {
		import_link(im, path, first, there, &old);
		return;
	}
	/* Writing through a name that has others would change those as well. */
	if (there == THERE_SAME_KIND && old.st_nlink > 1 && old.st_nlink != st->st_nlink)
		there = remove_name(im, path, &old) < 0 ? THERE_ERROR : THERE_NOTHING;
	if (there == THERE_ERROR || (there == THERE_SAME_KIND && settle_same(im, path, st, &old)))
		return;
	say(im, path, there == THERE_SAME_KIND ? "replace" : "create");
	if (is_regular)
		im->result->files++;
	else
		im->result->others++;
	if (im->options->dry_run)
		return;
	r = there == THERE_SAME_KIND && !is_regular ? im->dst->ops->remove(im->dst, path, false)
						    : 0;
	if (r >= 0)
		r = is_regular ? write_file(im, path, st) : make_other(im, path, st);
	if (r < 0)
		fail_errno(im, path, "copying", r);
	else
		verify(im, path);
	progress(im);
}

static void import_dir(struct import *im, const char *path, const struct stat *st);

static void import_name(struct import *im, const char *path)
{
	struct stat st;
	int r = im->src->ops->stat(im->src, path, &st);

	if (r < 0) {
		fail_errno(im, path, "reading", r);
		return;
	}
	if (im->options->skip &&
	    im->options->skip(im->options->userdata, path, S_ISDIR(st.st_mode))) {
		im->result->skipped++;
		return;
	}
	if (!strcmp(path, ICM_CONTROL_NAME))
		fail(im, path, "this name is reserved");
	else if (strlen(path) > ICM_PATH_MAX)
		fail(im, path, "the path is too long");
	else if (S_ISDIR(st.st_mode))
		import_dir(im, path, &st);
	else
		import_file(im, path, &st);
}

/* Makes the directory, open to us alone until its contents are there. */
static int make_dir(struct import *im, const char *path, const struct stat *st)
{
	struct stat old;
	enum there there = look_at_destination(im, path, st, &old);
	int r = 0;

	if (there != THERE_NOTHING)
		return there == THERE_ERROR ? -EEXIST : 0;
	say(im, path, "create");
	im->result->dirs++;
	if (!im->options->dry_run)
		r = im->dst->ops->mkdir(im->dst, path, 0700);
	if (r < 0)
		fail_errno(im, path, "making the directory", r);
	return r;
}

/* Last: what was done below changed its times, and its mode may forbid more. */
static void finish_dir(struct import *im, const char *path, const struct stat *st)
{
	struct stat now;
	int r = copy_xattrs(im, path, NULL);

	if (r >= 0)
		r = im->dst->ops->stat(im->dst, path, &now);
	if (r >= 0 && !same_attributes(st, &now))
		r = im->dst->ops->set(im->dst, path, NULL, st);
	if (r < 0)
		fail_errno(im, path, "setting attributes", r);
	else
		verify(im, path);
}

static void import_dir(struct import *im, const char *path, const struct stat *st)
{
	ICM_CLEANUP(icm_port_names_clear) struct icm_port_names names = { 0 };
	int r;

	if (make_dir(im, path, st) < 0)
		return;
	r = im->src->ops->list(im->src, path, &names);
	if (r < 0) {
		fail_errno(im, path, "listing", r);
		return;
	}
	for (size_t i = 0; i < names.n; i++) {
		ICM_AUTOFREE char *below = icm_path_join(path, names.v[i]);

		import_name(im, below);
	}
	if (im->options->mode == ICM_IMPORT_REPLACE)
		remove_others(im, path, &names);
	if (!im->options->dry_run)
		finish_dir(im, path, st);
}

/* ---- */

static int check_empty(struct icm_port *dst)
{
	ICM_CLEANUP(icm_port_names_clear) struct icm_port_names names = { 0 };
	int r = dst->ops->list(dst, "", &names);

	if (r < 0)
		return r;
	return names.n ? -ENOTEMPTY : 0;
}

static void forget_links(struct import *im)
{
	for (size_t i = 0; i < im->links.n_buckets; i++) {
		struct icm_map_node *node = im->links.buckets[i];

		while (node) {
			struct linked *l = ICM_CONTAINER(node, struct linked, node);

			node = node->next;
			free(l);
		}
	}
	icm_map_free(&im->links);
}

int icm_import(struct icm_port *src, struct icm_port *dst, const struct icm_import_options *options,
	       struct icm_import_result *ret)
{
	struct import im = { .src = src, .dst = dst, .options = options, .result = ret };
	struct stat st;
	int r = src->ops->stat(src, "", &st);

	*ret = (struct icm_import_result){ 0 };
	if (r >= 0 && dst && options->mode == ICM_IMPORT_NEW)
		r = check_empty(dst);
	if (r < 0)
		return r;
	im.block[0] = icm_xmalloc(BLOCK_BYTES);
	im.block[1] = icm_xmalloc(BLOCK_BYTES);
	import_dir(&im, "", &st);
	forget_links(&im);
	free(im.block[0]);
	free(im.block[1]);
	return ret->failed ? -EIO : 0;
}
