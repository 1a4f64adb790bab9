/* SPDX-License-Identifier: MIT
 * Attributes, symbolic links' targets, the file system's figures. */
#include "fuse-ops.h"
#include "util/clock.h"

static int getattr_run(struct icm_req *r)
{
	struct stat st;
	int err = icm_fs_getattr(r->view, &r->call, r->handle, &st);

	if (err == ICM_WOULD_WAIT)
		return err;
	icm_reply_attr(r, err, &st);
	return 0;
}

void icm_op_getattr(fuse_req_t req, fuse_ino_t node, struct fuse_file_info *fi)
{
	struct icm_req r;

	if (!icm_req_init(&r, req, node, getattr_run))
		return;
	if (fi)
		r.handle = icm_fh_handle(fi->fh);
	icm_req_try(&r);
}

static int setattr_run(struct icm_req *r)
{
	struct stat st;
	int err = icm_fs_setattr(r->view, &r->call, r->handle, r->set, &r->st, &st);

	if (err == ICM_WOULD_WAIT)
		return err;
	icm_reply_attr(r, err, &st);
	return 0;
}

/* The core's set; "now" becomes a time. */
static unsigned resolve(int to_set, struct stat *st)
{
	struct timespec now = icm_wall_time();
	unsigned set = 0;

	set |= to_set & FUSE_SET_ATTR_MODE ? ICM_SET_MODE : 0;
	set |= to_set & FUSE_SET_ATTR_UID ? ICM_SET_UID : 0;
	set |= to_set & FUSE_SET_ATTR_GID ? ICM_SET_GID : 0;
	set |= to_set & FUSE_SET_ATTR_SIZE ? ICM_SET_SIZE : 0;
	set |= to_set & FUSE_SET_ATTR_ATIME ? ICM_SET_ATIME : 0;
	set |= to_set & FUSE_SET_ATTR_MTIME ? ICM_SET_MTIME : 0;
	if (to_set & FUSE_SET_ATTR_ATIME_NOW) {
		st->st_atim = now;
		set |= ICM_SET_ATIME;
	}
	if (to_set & FUSE_SET_ATTR_MTIME_NOW) {
		st->st_mtim = now;
		set |= ICM_SET_MTIME;
	}
	return set;
}

void icm_op_setattr(fuse_req_t req, fuse_ino_t node, struct stat *st, int to_set,
		    struct fuse_file_info *fi)
{
	struct icm_req r;

	if (!icm_req_init(&r, req, node, setattr_run))
		return;
	if (fi)
		r.handle = icm_fh_handle(fi->fh);
	r.st = *st;
	r.set = resolve(to_set, &r.st);
	/* the helper repeats what was done elsewhere: the new state is the answer */
	if (r.set == 0 || icm_front_is_helper(r.front, r.call.pid)) {
		r.run = getattr_run;
		icm_req_try(&r);
	} else {
		icm_req_store(&r, ICM_LANE_STORE);
	}
}

static int readlink_run(struct icm_req *r)
{
	ICM_AUTOFREE char *target = NULL;
	int err = icm_fs_readlink(r->view, &r->call, &target);

	if (err == ICM_WOULD_WAIT)
		return err;
	if (err) {
		icm_reply_err(r, err);
	} else if (icm_req_claim(r)) {
		fuse_reply_readlink(r->req, target);
		icm_req_answered(r);
	}
	return 0;
}

void icm_op_readlink(fuse_req_t req, fuse_ino_t node)
{
	struct icm_req r;

	if (icm_req_init(&r, req, node, readlink_run))
		icm_req_try(&r);
}

static int statfs_run(struct icm_req *r)
{
	struct statvfs st = { 0 };
	int err = icm_fs_statfs(r->front->vol, &r->call, &st);

	if (err == ICM_WOULD_WAIT)
		return err;
	if (err) {
		icm_reply_err(r, err);
	} else if (icm_req_claim(r)) {
		fuse_reply_statfs(r->req, &st);
		icm_req_answered(r);
	}
	return 0;
}

void icm_op_statfs(fuse_req_t req, fuse_ino_t node)
{
	struct icm_req r;

	if (icm_req_init(&r, req, node ? node : FUSE_ROOT_ID, statfs_run))
		icm_req_try(&r);
}
