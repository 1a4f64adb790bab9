/* SPDX-License-Identifier: MIT */
#include "fuse-ops.h"

#include <string.h>

#include "core/control.h"
#include "fuse-notify.h"
#include "known.h"

/* Larger requests save little (10 MiB: 1 ms) and would let each of 64 worker
 * threads hold a buffer of 1 MiB. */
#define MAX_WRITE_BYTES (256 * 1024)

static void op_init(void *userdata, struct fuse_conn_info *conn)
{
	struct icm_front *front = userdata;

	/* What libfuse would turn on by itself or what must never be: with automatic invalidation
	 * each own write drops the own pages; with write-back size and times are the kernel's;
	 * with KILLPRIV set-id bits would be ours to clear. Splicing gains nothing for small files.
	 */
	conn->want &= ~(FUSE_CAP_AUTO_INVAL_DATA | FUSE_CAP_WRITEBACK_CACHE | FUSE_CAP_DONT_MASK |
			FUSE_CAP_POSIX_ACL | FUSE_CAP_HANDLE_KILLPRIV | FUSE_CAP_EXPORT_SUPPORT |
			FUSE_CAP_SPLICE_READ | FUSE_CAP_SPLICE_WRITE | FUSE_CAP_SPLICE_MOVE);
	conn->want |= conn->capable &
		      (FUSE_CAP_EXPLICIT_INVAL_DATA | FUSE_CAP_POSIX_LOCKS | FUSE_CAP_FLOCK_LOCKS |
		       FUSE_CAP_EXPIRE_ONLY | FUSE_CAP_PARALLEL_DIROPS | FUSE_CAP_READDIRPLUS |
		       FUSE_CAP_READDIRPLUS_AUTO | FUSE_CAP_ATOMIC_O_TRUNC | FUSE_CAP_ASYNC_READ);
	conn->max_write = MAX_WRITE_BYTES;
	conn->time_gran = 1;
	if (front->ready)
		front->ready(front->ready_userdata);
}

const struct fuse_lowlevel_ops icm_fuse_ops = {
	.init = op_init,
	.lookup = icm_op_lookup,
	.forget = icm_op_forget,
	.forget_multi = icm_op_forget_multi,
	.mknod = icm_op_mknod,
	.mkdir = icm_op_mkdir,
	.symlink = icm_op_symlink,
	.link = icm_op_link,
	.unlink = icm_op_unlink,
	.rmdir = icm_op_rmdir,
	.rename = icm_op_rename,
	.getattr = icm_op_getattr,
	.setattr = icm_op_setattr,
	.readlink = icm_op_readlink,
	.statfs = icm_op_statfs,
	.create = icm_op_create,
	.open = icm_op_open,
	.read = icm_op_read,
	.write = icm_op_write,
	.flush = icm_op_flush,
	.release = icm_op_release,
	.fsync = icm_op_fsync,
	.fallocate = icm_op_fallocate,
	.copy_file_range = icm_op_copy_file_range,
	.lseek = icm_op_lseek,
	.ioctl = icm_op_ioctl,
	.opendir = icm_op_opendir,
	.readdir = icm_op_readdir,
	.readdirplus = icm_op_readdirplus,
	.releasedir = icm_op_releasedir,
	.fsyncdir = icm_op_fsyncdir,
	.getxattr = icm_op_getxattr,
	.listxattr = icm_op_listxattr,
	.setxattr = icm_op_setxattr,
	.removexattr = icm_op_removexattr,
	.getlk = icm_op_getlk,
	.setlk = icm_op_setlk,
	.flock = icm_op_flock,
};

/* ---- answers ---- */

static bool is_volatile(uint64_t parent, const char *name)
{
	return icm_node_is_volatile(parent) ||
	       (parent == FUSE_ROOT_ID && !strcmp(name, ICM_CONTROL_NAME));
}

void icm_entry_fill(struct icm_front *front, uint64_t parent, const char *name,
		    struct icm_view *view, const struct stat *st, struct fuse_entry_param *e)
{
	bool fresh = is_volatile(parent, name);

	*e = (struct fuse_entry_param){
		.ino = icm_view_node(front, view) | (fresh ? ICM_NODE_VOLATILE : 0),
		.attr = *st,
		.attr_timeout = fresh ? 0 : ICM_FOR_EVER,
		.entry_timeout = fresh ? 0 : ICM_FOR_EVER,
	};
	icm_known_add(front->known, e->ino, parent, name);
}

void icm_entry_undo(struct icm_front *front, const struct fuse_entry_param *e)
{
	icm_known_sub(front->known, e->ino, 1);
	icm_fs_forget(icm_node_view(front, e->ino), 1);
}

void icm_entry_doubt(struct icm_front *front, uint64_t seen, uint64_t parent, const char *name,
		     struct fuse_entry_param *e)
{
	icm_notify_answer(front->notifier, parent, name);
	if (atomic_load(&front->changes) != seen)
		e->entry_timeout = e->attr_timeout = 0;
}

void icm_reply_entry(struct icm_req *r, uint64_t parent, const char *name, int err,
		     struct icm_view *view, const struct stat *st)
{
	struct fuse_entry_param e;
	int sent;

	if (err) {
		icm_reply_err(r, err);
		return;
	}
	if (!icm_req_claim(r)) {
		icm_fs_forget(view, 1);
		return;
	}
	icm_entry_fill(r->front, parent, name, view, st, &e);
	icm_entry_doubt(r->front, r->seen, parent, name, &e);
	sent = fuse_reply_entry(r->req, &e);
	icm_req_answered(r);
	if (sent)
		icm_entry_undo(r->front, &e);
}

void icm_reply_attr(struct icm_req *r, int err, const struct stat *st)
{
	if (err) {
		icm_reply_err(r, err);
		return;
	}
	if (!icm_req_claim(r))
		return;
	fuse_reply_attr(r->req, st, icm_node_is_volatile(r->node) ? 0 : ICM_FOR_EVER);
	icm_req_answered(r);
}

void icm_reply_buf(struct icm_req *r, ssize_t result, const void *buf)
{
	if (result < 0) {
		icm_reply_err(r, (int)result);
		return;
	}
	if (!icm_req_claim(r))
		return;
	fuse_reply_buf(r->req, buf, (size_t)result);
	icm_req_answered(r);
}
