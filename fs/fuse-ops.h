/* SPDX-License-Identifier: MIT
 * The table of FUSE operations and the answers that carry views and handles.
 * The operations themselves stand by subject in fuse-name.c, fuse-attr.c,
 * fuse-file.c, fuse-dir.c, fuse-xattr.c and fuse-lock.c: each takes a request
 * apart, has it carried out (request.h) and answers. */
#ifndef ICM_FUSE_OPS_H
#define ICM_FUSE_OPS_H

#include "front.h"
#include "request.h"

/* The session's userdata is the struct icm_front. */
extern const struct fuse_lowlevel_ops icm_fuse_ops;

/* Describes `view` (one reference, which becomes the kernel's) as `name` in
 * the node `parent`, and counts it as known. Undone by icm_entry_undo. */
void icm_entry_fill(struct icm_front *front, uint64_t parent, const char *name,
		    struct icm_view *view, const struct stat *st, struct fuse_entry_param *e);
void icm_entry_undo(struct icm_front *front, const struct fuse_entry_param *e);
/* Just before the answer. If something changed since the request came (`seen`), the
 * kernel may use the entry once, and not keep it; what changes from here on is
 * told to it twice. */
void icm_entry_doubt(struct icm_front *front, uint64_t seen, uint64_t parent, const char *name,
		     struct fuse_entry_param *e);

/* Answers with an entry, or with the error; takes the reference. */
void icm_reply_entry(struct icm_req *r, uint64_t parent, const char *name, int err,
		     struct icm_view *view, const struct stat *st);
void icm_reply_attr(struct icm_req *r, int err, const struct stat *st);
/* For results >= 0 that are the value of an xattr call, of a copy, of a seek. */
void icm_reply_buf(struct icm_req *r, ssize_t result, const void *buf);

/* For the table. */
void icm_op_lookup(fuse_req_t req, fuse_ino_t parent, const char *name);
void icm_op_mknod(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode, dev_t rdev);
void icm_op_mkdir(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode);
void icm_op_symlink(fuse_req_t req, const char *target, fuse_ino_t parent, const char *name);
void icm_op_link(fuse_req_t req, fuse_ino_t node, fuse_ino_t parent, const char *name);
void icm_op_unlink(fuse_req_t req, fuse_ino_t parent, const char *name);
void icm_op_rmdir(fuse_req_t req, fuse_ino_t parent, const char *name);
void icm_op_rename(fuse_req_t req, fuse_ino_t parent, const char *name, fuse_ino_t to_parent,
		   const char *to_name, unsigned flags);
void icm_op_forget(fuse_req_t req, fuse_ino_t node, uint64_t n);
void icm_op_forget_multi(fuse_req_t req, size_t count, struct fuse_forget_data *forgets);

void icm_op_getattr(fuse_req_t req, fuse_ino_t node, struct fuse_file_info *fi);
void icm_op_setattr(fuse_req_t req, fuse_ino_t node, struct stat *st, int to_set,
		    struct fuse_file_info *fi);
void icm_op_readlink(fuse_req_t req, fuse_ino_t node);
void icm_op_statfs(fuse_req_t req, fuse_ino_t node);

void icm_op_create(fuse_req_t req, fuse_ino_t parent, const char *name, mode_t mode,
		   struct fuse_file_info *fi);
void icm_op_open(fuse_req_t req, fuse_ino_t node, struct fuse_file_info *fi);
void icm_op_read(fuse_req_t req, fuse_ino_t node, size_t size, off_t off,
		 struct fuse_file_info *fi);
void icm_op_write(fuse_req_t req, fuse_ino_t node, const char *buf, size_t size, off_t off,
		  struct fuse_file_info *fi);
void icm_op_flush(fuse_req_t req, fuse_ino_t node, struct fuse_file_info *fi);
void icm_op_release(fuse_req_t req, fuse_ino_t node, struct fuse_file_info *fi);
void icm_op_fsync(fuse_req_t req, fuse_ino_t node, int datasync, struct fuse_file_info *fi);
void icm_op_fallocate(fuse_req_t req, fuse_ino_t node, int mode, off_t off, off_t len,
		      struct fuse_file_info *fi);
void icm_op_copy_file_range(fuse_req_t req, fuse_ino_t node_in, off_t off_in,
			    struct fuse_file_info *fi_in, fuse_ino_t node_out, off_t off_out,
			    struct fuse_file_info *fi_out, size_t len, int flags);
void icm_op_lseek(fuse_req_t req, fuse_ino_t node, off_t off, int whence,
		  struct fuse_file_info *fi);
void icm_op_ioctl(fuse_req_t req, fuse_ino_t node, unsigned cmd, void *arg,
		  struct fuse_file_info *fi, unsigned flags, const void *in_buf, size_t in_size,
		  size_t out_size);

void icm_op_opendir(fuse_req_t req, fuse_ino_t node, struct fuse_file_info *fi);
void icm_op_readdir(fuse_req_t req, fuse_ino_t node, size_t size, off_t off,
		    struct fuse_file_info *fi);
void icm_op_readdirplus(fuse_req_t req, fuse_ino_t node, size_t size, off_t off,
			struct fuse_file_info *fi);
void icm_op_releasedir(fuse_req_t req, fuse_ino_t node, struct fuse_file_info *fi);
void icm_op_fsyncdir(fuse_req_t req, fuse_ino_t node, int datasync, struct fuse_file_info *fi);

void icm_op_getxattr(fuse_req_t req, fuse_ino_t node, const char *name, size_t size);
void icm_op_listxattr(fuse_req_t req, fuse_ino_t node, size_t size);
void icm_op_setxattr(fuse_req_t req, fuse_ino_t node, const char *name, const char *value,
		     size_t size, int flags);
void icm_op_removexattr(fuse_req_t req, fuse_ino_t node, const char *name);

void icm_op_getlk(fuse_req_t req, fuse_ino_t node, struct fuse_file_info *fi, struct flock *lk);
void icm_op_setlk(fuse_req_t req, fuse_ino_t node, struct fuse_file_info *fi, struct flock *lk,
		  int sleep);
void icm_op_flock(fuse_req_t req, fuse_ino_t node, struct fuse_file_info *fi, int op);

#endif
