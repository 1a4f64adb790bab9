/* SPDX-License-Identifier: MIT
 * Directories. Entries are collected first, as many as fit into the answer,
 * and looked up (readdirplus) when the core has let go of its locks. */
#include <string.h>

#include "fuse-ops.h"
#include "util/buf.h"

static int opendir_run(struct icm_req *r)
{
	struct icm_handle *h = NULL;
	int err = icm_fs_opendir(r->view, &r->call, &h);

	if (err == ICM_WOULD_WAIT)
		return err;
	if (err) {
		icm_reply_err(r, err);
		return 0;
	}
	if (!icm_req_claim(r)) {
		icm_release_handle(h, true);
		return 0;
	}
	r->fi.fh = (uint64_t)(uintptr_t)h;
	err = fuse_reply_open(r->req, &r->fi);
	icm_req_answered(r);
	if (err)
		icm_release_handle(h, true);
	return 0;
}

void icm_op_opendir(fuse_req_t req, fuse_ino_t node, struct fuse_file_info *fi)
{
	struct icm_req r;

	if (!icm_req_init(&r, req, node, opendir_run))
		return;
	r.fi = *fi;
	icm_req_try(&r);
}

void icm_op_releasedir(fuse_req_t req, fuse_ino_t node, struct fuse_file_info *fi)
{
	struct icm_handle *h = icm_fh_handle(fi->fh);

	if (h)
		icm_release_handle(h, true);
	fuse_reply_err(req, 0);
}

void icm_op_fsyncdir(fuse_req_t req, fuse_ino_t node, int datasync, struct fuse_file_info *fi)
{
	/* changes of names were published when they were made */
	fuse_reply_err(req, 0);
}

/* One answer to readdir. */
struct listing {
	struct icm_req *r;
	char *buf; /* owned; r->size bytes */
	size_t len;
	bool full;
};

static int add_entry(void *userdata, const struct icm_dirent *e)
{
	struct listing *l = userdata;
	const struct stat st = { .st_ino = e->ino, .st_mode = e->type };
	size_t need = fuse_add_direntry(l->r->req, l->buf + l->len, l->r->size - l->len, e->name,
					&st, e->next);

	if (need > l->r->size - l->len) {
		l->full = true;
		return 1;
	}
	l->len += need;
	return 0;
}

static int readdir_run(struct icm_req *r)
{
	ICM_AUTOFREE char *buf = icm_xmalloc(r->size);
	struct listing l = { .r = r, .buf = buf };
	int err = icm_fs_readdir(r->handle, &r->call, r->off, add_entry, &l);

	if (err == ICM_WOULD_WAIT)
		return err;
	if (!err && l.full && l.len == 0)
		err = -EINVAL; /* an empty answer would be the end */
	icm_reply_buf(r, err < 0 ? err : (ssize_t)l.len, buf);
	return 0;
}

static void start_readdir(fuse_req_t req, fuse_ino_t node, size_t size, off_t off,
			  struct fuse_file_info *fi, icm_req_fn run)
{
	struct icm_req r;

	if (!icm_req_init(&r, req, node, run) || !icm_req_init_file(&r, fi))
		return;
	r.size = size;
	r.off = off;
	icm_req_try(&r);
}

void icm_op_readdir(fuse_req_t req, fuse_ino_t node, size_t size, off_t off,
		    struct fuse_file_info *fi)
{
	start_readdir(req, node, size, off, fi, readdir_run);
}

/* One entry of an answer to readdirplus. */
struct plus_entry {
	struct plus_entry *next;
	struct fuse_entry_param e; /* with ino 0: no look-up */
	off_t off;
	char name[];
};

struct plus_listing {
	struct icm_req *r;
	size_t len; /* bytes of the answer */
	bool full;
	struct plus_entry *first, **last;
};

static int collect_entry(void *userdata, const struct icm_dirent *e)
{
	struct plus_listing *l = userdata;
	size_t need = fuse_add_direntry_plus(l->r->req, NULL, 0, e->name, NULL, 0);
	size_t len = strlen(e->name);
	struct plus_entry *p;

	if (need > l->r->size - l->len) {
		l->full = true;
		return 1;
	}
	l->len += need;
	p = icm_xcalloc(1, sizeof(*p) + len + 1);
	p->e.attr = (struct stat){ .st_ino = e->ino, .st_mode = e->type };
	p->off = e->next;
	memcpy(p->name, e->name, len + 1);
	*l->last = p;
	l->last = &p->next;
	return 0;
}

static bool is_dots(const char *name)
{
	return !strcmp(name, ".") || !strcmp(name, "..");
}

/* Gives the entry an inode and attributes, with a look-up count, if it has any. */
static void look_up_entry(struct icm_req *r, struct plus_entry *p)
{
	struct icm_view *view;
	struct stat st;

	if (is_dots(p->name) || icm_fs_lookup_cached(r->view, p->name, &view, &st))
		return;
	icm_entry_fill(r->front, r->node, p->name, view, &st, &p->e);
	icm_entry_doubt(r->front, r->seen, r->node, p->name, &p->e);
}

static void reply_plus(struct icm_req *r, struct plus_listing *l)
{
	ICM_AUTOFREE char *buf = icm_xmalloc(l->len + 1);
	size_t len = 0;
	int sent;

	if (!icm_req_claim(r))
		return;
	for (struct plus_entry *p = l->first; p; p = p->next) {
		look_up_entry(r, p);
		len += fuse_add_direntry_plus(r->req, buf + len, l->len - len, p->name, &p->e,
					      p->off);
	}
	sent = fuse_reply_buf(r->req, buf, len);
	icm_req_answered(r);
	for (struct plus_entry *p = l->first; sent && p; p = p->next)
		if (p->e.ino != 0)
			icm_entry_undo(r->front, &p->e);
}

static int readdirplus_run(struct icm_req *r)
{
	struct plus_listing l = { .r = r };
	int err;

	l.last = &l.first;
	err = icm_fs_readdir(r->handle, &r->call, r->off, collect_entry, &l);
	if (!err && l.full && l.len == 0)
		err = -EINVAL; /* an empty answer would be the end */
	if (err < 0 && err != ICM_WOULD_WAIT)
		icm_reply_err(r, err);
	else if (err != ICM_WOULD_WAIT)
		reply_plus(r, &l);
	while (l.first) {
		struct plus_entry *p = l.first;

		l.first = p->next;
		free(p);
	}
	return err == ICM_WOULD_WAIT ? err : 0;
}

void icm_op_readdirplus(fuse_req_t req, fuse_ino_t node, size_t size, off_t off,
			struct fuse_file_info *fi)
{
	start_readdir(req, node, size, off, fi, readdirplus_run);
}
