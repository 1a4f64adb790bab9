/* SPDX-License-Identifier: MIT
 * Operations on names. */
#include <linux/fs.h>

#include "events.h"
#include "fuse-ops.h"
#include "known.h"

/* A place where no name can be, for an exchange in the table of known names. */
#define NOWHERE 0, "/"

static bool is_helper(const struct icm_req *r)
{
	return icm_front_is_helper(r->front, r->call.pid);
}

static int lookup_run(struct icm_req *r)
{
	struct icm_view *view = NULL;
	struct stat st;
	int err = icm_fs_lookup(r->view, &r->call, r->name, &view, &st);

	if (err == ICM_WOULD_WAIT)
		return err;
	/* a missing name isn't cached by the kernel: another host may make it */
	icm_reply_entry(r, r->node, r->name, err, view, &st);
	return 0;
}

void icm_op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	struct icm_req r;

	if (!icm_req_init(&r, req, parent, lookup_run))
		return;
	r.name = name;
	if (is_helper(&r) && icm_events_lookup(r.front->events, &r))
		return;
	icm_req_try(&r);
}

/* What the helper "makes" exists already. */
static int remade_run(struct icm_req *r)
{
	struct icm_view *view = NULL;
	struct stat st;
	int err = icm_fs_lookup_cached(r->view, r->name, &view, &st);

	icm_reply_entry(r, r->node, r->name, err, view, &st);
	return 0;
}

/* Carries a request out that makes a name. */
static void make(struct icm_req *r)
{
	if (is_helper(r)) {
		r->run = remade_run;
		icm_req_try(r);
	} else {
		icm_req_store(r, ICM_LANE_STORE);
	}
}

static int mknod_run(struct icm_req *r)
{
	struct icm_view *view = NULL;
	struct stat st;
	int err = icm_fs_mknod(r->view, &r->call, r->name, r->mode, r->rdev, &view, &st);

	if (err == ICM_WOULD_WAIT)
		return err;
	icm_reply_entry(r, r->node, r->name, err, view, &st);
	return 0;
}

void icm_op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev)
{
	struct icm_req r;

	if (!icm_req_init(&r, req, parent, mknod_run))
		return;
	r.name = name;
	r.mode = mode;
	r.rdev = rdev;
	make(&r);
}

static int mkdir_run(struct icm_req *r)
{
	struct icm_view *view = NULL;
	struct stat st;
	int err = icm_fs_mkdir(r->view, &r->call, r->name, r->mode, &view, &st);

	if (err == ICM_WOULD_WAIT)
		return err;
	icm_reply_entry(r, r->node, r->name, err, view, &st);
	return 0;
}

void icm_op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode)
{
	struct icm_req r;

	if (!icm_req_init(&r, req, parent, mkdir_run))
		return;
	r.name = name;
	r.mode = mode;
	make(&r);
}

static int symlink_run(struct icm_req *r)
{
	struct icm_view *view = NULL;
	struct stat st;
	int err = icm_fs_symlink(r->view, &r->call, r->name, r->to_name, &view, &st);

	if (err == ICM_WOULD_WAIT)
		return err;
	icm_reply_entry(r, r->node, r->name, err, view, &st);
	return 0;
}

void icm_op_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name)
{
	struct icm_req r;

	if (!icm_req_init(&r, req, parent, symlink_run))
		return;
	r.name = name;
	r.to_name = target;
	make(&r);
}

static int link_run(struct icm_req *r)
{
	struct icm_view *view = NULL;
	struct stat st;
	int err = icm_fs_link(r->view, &r->call, r->to_view, r->name, &view, &st);

	if (err == ICM_WOULD_WAIT)
		return err;
	icm_reply_entry(r, r->to_node, r->name, err, view, &st);
	return 0;
}

void icm_op_link(fuse_req_t req, fuse_ino_t node, fuse_ino_t parent, const char *name)
{
	struct icm_req r;

	if (!icm_req_init(&r, req, node, link_run) || !icm_req_init_to(&r, parent))
		return;
	r.name = name;
	icm_req_store(&r, ICM_LANE_STORE);
}

/* After unlink and rmdir. */
static int removed(struct icm_req *r, int err)
{
	if (err == ICM_WOULD_WAIT)
		return err;
	if (!err)
		icm_known_unlink(r->front->known, r->node, r->name);
	icm_reply_err(r, err);
	return 0;
}

static int unlink_run(struct icm_req *r)
{
	return removed(r, icm_fs_unlink(r->view, &r->call, r->name));
}

static int rmdir_run(struct icm_req *r)
{
	return removed(r, icm_fs_rmdir(r->view, &r->call, r->name));
}

static void remove_name(fuse_req_t req, fuse_ino_t parent, const char *name, icm_req_fn run)
{
	struct icm_req r;

	if (!icm_req_init(&r, req, parent, run))
		return;
	r.name = name;
	if (is_helper(&r))
		removed(&r, 0);
	else
		icm_req_store(&r, ICM_LANE_STORE);
}

void icm_op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	remove_name(req, parent, name, unlink_run);
}

void icm_op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name)
{
	remove_name(req, parent, name, rmdir_run);
}

static int renamed(struct icm_req *r, int err)
{
	struct icm_known *known = r->front->known;

	if (err == ICM_WOULD_WAIT)
		return err;
	if (!err && r->flags & RENAME_EXCHANGE) {
		icm_known_rename(known, r->node, r->name, NOWHERE);
		icm_known_rename(known, r->to_node, r->to_name, r->node, r->name);
		icm_known_rename(known, NOWHERE, r->to_node, r->to_name);
	} else if (!err) {
		icm_known_rename(known, r->node, r->name, r->to_node, r->to_name);
	}
	icm_reply_err(r, err);
	return 0;
}

static int rename_run(struct icm_req *r)
{
	return renamed(r, icm_fs_rename(r->view, &r->call, r->name, r->to_view, r->to_name,
					(unsigned)r->flags));
}

void icm_op_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t to_parent,
		   const char *to_name, unsigned flags)
{
	struct icm_req r;

	if (!icm_req_init(&r, req, parent, rename_run) || !icm_req_init_to(&r, to_parent))
		return;
	r.name = name;
	r.to_name = to_name;
	r.flags = (int)flags;
	if (is_helper(&r))
		renamed(&r, 0);
	else
		icm_req_store(&r, ICM_LANE_STORE);
}

static void forget(struct icm_front *front, uint64_t node, uint64_t n)
{
	/* neither the root nor a ghost is counted */
	if (node == FUSE_ROOT_ID || node & ICM_NODE_GHOST)
		return;
	icm_known_sub(front->known, node, n);
	icm_fs_forget(icm_node_view(front, node), n);
}

void icm_op_forget(fuse_req_t req, fuse_ino_t node, uint64_t n)
{
	forget(fuse_req_userdata(req), node, n);
	fuse_reply_none(req);
}

void icm_op_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets)
{
	for (size_t i = 0; i < count; i++)
		forget(fuse_req_userdata(req), forgets[i].ino, forgets[i].nlookup);
	fuse_reply_none(req);
}
