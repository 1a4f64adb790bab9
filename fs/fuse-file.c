/* SPDX-License-Identifier: MIT
 * Open files. */
#include <string.h>

#include "closing.h"
#include "executor.h"
#include "fuse-ops.h"
#include "util/buf.h"

/* ---- open and close ---- */

static void set_result(struct fuse_file_info *fi, const struct icm_open_result *res, bool reader)
{
	fi->fh = (uint64_t)(uintptr_t)res->handle | (reader ? ICM_FH_READER : 0);
	fi->keep_cache = res->keep_cache;
	fi->direct_io = res->direct;
}

static void reply_create(struct icm_req *r, struct icm_view *view, const struct stat *st,
			 const struct icm_open_result *res)
{
	struct fuse_entry_param e;
	int sent;

	if (!icm_req_claim(r)) {
		icm_release_handle(res->handle, false);
		icm_fs_forget(view, 1);
		return;
	}
	set_result(&r->fi, res, false);
	icm_entry_fill(r->front, r->node, r->name, view, st, &e);
	icm_entry_doubt(r->front, r->seen, r->node, r->name, &e);
	sent = fuse_reply_create(r->req, &e, &r->fi);
	icm_req_answered(r);
	if (sent) {
		icm_release_handle(res->handle, false);
		icm_entry_undo(r->front, &e);
	}
}

/* The event helper's files: the core hears nothing of them. */
static void set_helper_file(struct fuse_file_info *fi)
{
	fi->fh = 0;
	fi->keep_cache = 1;
	fi->noflush = 1;
}

/* What the helper "creates" exists already. */
static int recreate_run(struct icm_req *r)
{
	struct fuse_entry_param e;
	struct icm_view *view;
	struct stat st;
	int err = icm_fs_lookup_cached(r->view, r->name, &view, &st);

	if (err) {
		icm_reply_err(r, err);
		return 0;
	}
	set_helper_file(&r->fi);
	icm_entry_fill(r->front, r->node, r->name, view, &st, &e);
	if (fuse_reply_create(r->req, &e, &r->fi))
		icm_entry_undo(r->front, &e);
	return 0;
}

static int create_run(struct icm_req *r)
{
	struct icm_open_result res = { 0 };
	struct icm_view *view = NULL;
	struct stat st;
	int err = icm_fs_create(r->view, &r->call, r->name, r->mode, r->fi.flags, &view, &st, &res);

	if (err == ICM_WOULD_WAIT)
		return err;
	if (!err && !S_ISREG(st.st_mode)) {
		/* made by another host meanwhile, and not a file: the kernel looks again. It would
		 * make an EIO of such an answer, and never release the handle. */
		icm_release_handle(res.handle, false);
		icm_fs_forget(view, 1);
		err = -ESTALE;
	}
	if (err)
		icm_reply_err(r, err);
	else
		reply_create(r, view, &st, &res);
	return 0;
}

void icm_op_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
		   struct fuse_file_info *fi)
{
	struct icm_req r;

	if (!icm_req_init(&r, req, parent, create_run))
		return;
	r.name = name;
	r.mode = mode;
	r.fi = *fi;
	if (icm_front_is_helper(r.front, r.call.pid))
		recreate_run(&r);
	else
		icm_req_store(&r, ICM_LANE_STORE);
}

static int open_run(struct icm_req *r)
{
	struct icm_open_result res = { 0 };
	int err = icm_fs_open(r->view, &r->call, r->fi.flags, &res);
	bool reader = (r->fi.flags & (O_ACCMODE | O_TRUNC)) == O_RDONLY;

	if (err == ICM_WOULD_WAIT)
		return err;
	if (err) {
		icm_reply_err(r, err);
		return 0;
	}
	if (!icm_req_claim(r)) {
		icm_release_handle(res.handle, false);
		return 0;
	}
	set_result(&r->fi, &res, reader);
	err = fuse_reply_open(r->req, &r->fi);
	icm_req_answered(r);
	if (err)
		icm_release_handle(res.handle, false);
	return 0;
}

void icm_op_open(fuse_req_t req, fuse_ino_t node, struct fuse_file_info *fi)
{
	struct icm_req r;

	if (!icm_req_init(&r, req, node, open_run))
		return;
	r.fi = *fi;
	if (icm_front_is_helper(r.front, r.call.pid)) {
		set_helper_file(&r.fi);
		fuse_reply_open(req, &r.fi);
		return;
	}
	icm_req_try(&r);
}

static int flush_run(struct icm_req *r)
{
	icm_reply_err(r, icm_fs_flush(r->handle, &r->call, r->fi.lock_owner));
	return 0;
}

void icm_op_flush(fuse_req_t req, fuse_ino_t node, struct fuse_file_info *fi)
{
	struct icm_req r;

	if (!icm_req_init(&r, req, node, flush_run))
		return;
	if (fi->fh == 0) {
		fuse_reply_err(req, 0);
		return;
	}
	if (!icm_req_init_file(&r, fi))
		return;
	icm_closing_expect(fi->fh, icm_view_ino(r.view));
	r.must_run = true; /* it is the unlock of the process's record locks */
	if (icm_fs_flush_waits(r.handle))
		icm_req_store(&r, ICM_LANE_STORE);
	else
		flush_run(&r);
}

/* Stands on its own: nobody waits for the answer, which can be given at once,
 * and after the end of the mount there is none to give. */
struct release {
	struct icm_task task;
	struct icm_closing closing;
	struct icm_handle *handle;
};

static void release_run(struct icm_task *task)
{
	struct release *rel = ICM_CONTAINER(task, struct release, task);

	icm_release_handle(rel->handle, false);
	icm_closing_end(&rel->closing);
	free(rel);
}

void icm_op_release(fuse_req_t req, fuse_ino_t node, struct fuse_file_info *fi)
{
	struct icm_front *front = fuse_req_userdata(req);
	struct icm_view *view = icm_node_view(front, node);
	struct icm_handle *h = icm_fh_handle(fi->fh);
	struct release *rel;

	if (!h || !view) {
		fuse_reply_err(req, 0);
		return;
	}
	rel = icm_xcalloc(1, sizeof(*rel));
	rel->task.run = release_run;
	rel->handle = h;
	icm_closing_begin(&rel->closing, fi->fh, icm_view_ino(view));
	fuse_reply_err(req, 0);
	if (fi->fh & ICM_FH_READER && !fi->flock_release && !icm_fs_flush_waits(h)) {
		release_run(&rel->task);
	} else if (icm_in_place_begin(front)) {
		release_run(&rel->task);
		icm_in_place_end(front);
	} else {
		icm_executor_submit(front->lanes[ICM_LANE_RELEASE], &rel->task);
	}
}

/* ---- contents ---- */

static int read_run(struct icm_req *r)
{
	ICM_AUTOFREE char *buf = icm_xmalloc(r->size);
	ssize_t n = icm_fs_read(r->handle, &r->call, buf, r->size, r->off);

	if (n == ICM_WOULD_WAIT)
		return ICM_WOULD_WAIT;
	icm_reply_buf(r, n, buf);
	return 0;
}

void icm_op_read(fuse_req_t req, fuse_ino_t node, size_t size, off_t off, struct fuse_file_info *fi)
{
	struct icm_req r;

	if (!icm_req_init(&r, req, node, read_run) || !icm_req_init_file(&r, fi))
		return;
	r.size = size;
	r.off = off;
	icm_req_try(&r);
}

static void reply_count(struct icm_req *r, ssize_t n)
{
	if (n < 0) {
		icm_reply_err(r, (int)n);
	} else if (icm_req_claim(r)) {
		fuse_reply_write(r->req, (size_t)n);
		icm_req_answered(r);
	}
}

static int write_run(struct icm_req *r)
{
	ssize_t n = icm_fs_write(r->handle, &r->call, r->data, r->size, r->off, r->fi.writepage);

	if (n == ICM_WOULD_WAIT)
		return ICM_WOULD_WAIT;
	reply_count(r, n);
	return 0;
}

void icm_op_write(fuse_req_t req, fuse_ino_t node, const char *buf, size_t size, off_t off,
		  struct fuse_file_info *fi)
{
	struct icm_req r;

	if (!icm_req_init(&r, req, node, write_run) || !icm_req_init_file(&r, fi))
		return;
	r.data = buf;
	r.size = size;
	r.off = off;
	if (fi->writepage)
		r.call.pid = 0;
	icm_req_try(&r);
}

static int fsync_run(struct icm_req *r)
{
	icm_reply_err(r, icm_fs_fsync(r->handle, &r->call, r->flags));
	return 0;
}

void icm_op_fsync(fuse_req_t req, fuse_ino_t node, int datasync, struct fuse_file_info *fi)
{
	struct icm_req r;

	if (!icm_req_init(&r, req, node, fsync_run) || !icm_req_init_file(&r, fi))
		return;
	r.flags = datasync;
	icm_req_store(&r, ICM_LANE_STORE);
}

static int fallocate_run(struct icm_req *r)
{
	int err = icm_fs_fallocate(r->handle, &r->call, r->flags, r->off, r->to_off);

	if (err == ICM_WOULD_WAIT)
		return err;
	icm_reply_err(r, err);
	return 0;
}

void icm_op_fallocate(fuse_req_t req, fuse_ino_t node, int mode, off_t off, off_t len,
		      struct fuse_file_info *fi)
{
	struct icm_req r;

	if (!icm_req_init(&r, req, node, fallocate_run) || !icm_req_init_file(&r, fi))
		return;
	r.flags = mode;
	r.off = off;
	r.to_off = len;
	icm_req_try(&r);
}

static int copy_run(struct icm_req *r)
{
	ssize_t n =
		icm_fs_copy_range(r->handle, r->off, r->to_handle, r->to_off, r->size, &r->call);

	if (n == ICM_WOULD_WAIT)
		return ICM_WOULD_WAIT;
	reply_count(r, n);
	return 0;
}

void icm_op_copy_file_range(fuse_req_t req, fuse_ino_t node_in, off_t off_in,
			    struct fuse_file_info *fi_in, fuse_ino_t node_out, off_t off_out,
			    struct fuse_file_info *fi_out, size_t len, int flags)
{
	struct icm_req r;

	if (!icm_req_init(&r, req, node_in, copy_run) || !icm_req_init_to(&r, node_out) ||
	    !icm_req_init_file(&r, fi_in))
		return;
	r.to_handle = icm_fh_handle(fi_out->fh);
	r.off = off_in;
	r.to_off = off_out;
	r.size = len;
	if (!r.to_handle)
		icm_reply_err(&r, -EBADF);
	else
		icm_req_store(&r, ICM_LANE_IO); /* as long as the files are large */
}

static int lseek_run(struct icm_req *r)
{
	off_t off = icm_fs_lseek(r->handle, &r->call, r->off, r->flags);

	if (off == ICM_WOULD_WAIT)
		return ICM_WOULD_WAIT;
	if (off < 0) {
		icm_reply_err(r, (int)off);
	} else if (icm_req_claim(r)) {
		fuse_reply_lseek(r->req, off);
		icm_req_answered(r);
	}
	return 0;
}

void icm_op_lseek(fuse_req_t req, fuse_ino_t node, off_t off, int whence, struct fuse_file_info *fi)
{
	struct icm_req r;

	if (!icm_req_init(&r, req, node, lseek_run) || !icm_req_init_file(&r, fi))
		return;
	r.off = off;
	r.flags = whence;
	icm_req_try(&r);
}

void icm_op_ioctl(fuse_req_t req, fuse_ino_t node, unsigned cmd, void *arg,
		  struct fuse_file_info *fi, unsigned flags, const void *in_buf, size_t in_size,
		  size_t out_size)
{
	/* TCGETS, which Python and others send for each file that they open */
	fuse_reply_err(req, ENOTTY);
}
