/* SPDX-License-Identifier: MIT
 * Inside the core: views and handles as tables of functions. There are four
 * kinds of objects in a mount: shared ones (in the store; file.c, name.c, …),
 * scratch ones (on local disk; scratch.c) and those of the control directory
 * .icmfs (generated; control.c), and those of snapshots (snapshot-view.c). fs.c dispatches
 * icm_fs_*() to these tables; each member does what its namesake in fs.h says. A missing member
 * gives the errno noted here. */
#ifndef ICM_CORE_VIEW_H
#define ICM_CORE_VIEW_H

#include <stdatomic.h>

#include "core/fs.h"

struct icm_view_ops {
	const char *name;
	int (*lookup)(struct icm_view *dir, const struct icm_call *call, const char *name,
		      struct icm_view **ret_view, struct stat *ret_st); /* -ENOTDIR */
	int (*mknod)(struct icm_view *dir, const struct icm_call *call, const char *name,
		     mode_t mode, dev_t rdev, struct icm_view **ret_view,
		     struct stat *ret_st); /* -EPERM */
	int (*mkdir)(struct icm_view *dir, const struct icm_call *call, const char *name,
		     mode_t mode, struct icm_view **ret_view, struct stat *ret_st); /* -EPERM */
	int (*symlink)(struct icm_view *dir, const struct icm_call *call, const char *name,
		       const char *target, struct icm_view **ret_view,
		       struct stat *ret_st); /* -EPERM */
	/* `view` is of the same kind (else fs.c says -EXDEV). */
	int (*link)(struct icm_view *view, const struct icm_call *call, struct icm_view *dir,
		    const char *name, struct icm_view **ret_view, struct stat *ret_st); /* -EPERM */
	int (*unlink)(struct icm_view *dir, const struct icm_call *call,
		      const char *name); /* -EPERM */
	int (*rmdir)(struct icm_view *dir, const struct icm_call *call,
		     const char *name); /* -EPERM */
	/* Both directories of this kind. */
	int (*rename)(struct icm_view *dir, const struct icm_call *call, const char *name,
		      struct icm_view *to_dir, const char *to_name, unsigned flags); /* -EPERM */
	int (*getattr)(struct icm_view *view, const struct icm_call *call, struct icm_handle *h,
		       struct stat *ret_st); /* must be there */
	int (*setattr)(struct icm_view *view, const struct icm_call *call, struct icm_handle *h,
		       unsigned set, const struct stat *st, struct stat *ret_st); /* -EPERM */
	int (*readlink)(struct icm_view *view, const struct icm_call *call,
			char **ret_target); /* -EINVAL */
	ssize_t (*getxattr)(struct icm_view *view, const struct icm_call *call, const char *name,
			    void *buf, size_t size); /* -ENODATA */
	ssize_t (*listxattr)(struct icm_view *view, const struct icm_call *call, char *buf,
			     size_t size); /* 0 */
	int (*setxattr)(struct icm_view *view, const struct icm_call *call, const char *name,
			const void *value, size_t size, int flags); /* -EOPNOTSUPP */
	int (*removexattr)(struct icm_view *view, const struct icm_call *call, const char *name);
	int (*create)(struct icm_view *dir, const struct icm_call *call, const char *name,
		      mode_t mode, int flags, struct icm_view **ret_view, struct stat *ret_st,
		      struct icm_open_result *ret); /* -EPERM */
	int (*open)(struct icm_view *view, const struct icm_call *call, int flags,
		    struct icm_open_result *ret); /* -EISDIR */
	ssize_t (*read)(struct icm_handle *h, const struct icm_call *call, void *buf, size_t size,
			off_t off); /* -EBADF */
	ssize_t (*write)(struct icm_handle *h, const struct icm_call *call, const void *buf,
			 size_t size, off_t off, bool mapped); /* -EBADF */
	bool (*flush_waits)(struct icm_handle *h);	       /* false */
	int (*flush)(struct icm_handle *h, const struct icm_call *call,
		     uint64_t lock_owner);						/* 0 */
	int (*fsync)(struct icm_handle *h, const struct icm_call *call, bool datasync); /* 0 */
	void (*release)(struct icm_handle *h); /* must be there */
	int (*fallocate)(struct icm_handle *h, const struct icm_call *call, int mode, off_t off,
			 off_t len); /* -EOPNOTSUPP */
	off_t (*lseek)(struct icm_handle *h, const struct icm_call *call, off_t off,
		       int whence); /* -EINVAL */
	int (*opendir)(struct icm_view *dir, const struct icm_call *call,
		       struct icm_handle **ret); /* -ENOTDIR */
	int (*readdir)(struct icm_handle *h, const struct icm_call *call, off_t off,
		       icm_dirent_fn fn, void *userdata);
	int (*lookup_cached)(struct icm_view *dir, const char *name, struct icm_view **ret_view,
			     struct stat *ret_st); /* -ENOENT */
	void (*releasedir)(struct icm_handle *h);
	/* Both handles of this kind, regular files; missing: by read and write. */
	ssize_t (*copy_range)(struct icm_handle *in, off_t off_in, struct icm_handle *out,
			      off_t off_out, size_t len, const struct icm_call *call);
	/* Frees a view whose last reference went (icm_view_tryref on it fails by then). */
	void (*free)(struct icm_view *view);
};

/* The kind that also does what concerns a shared and a scratch object at once. */
extern const struct icm_view_ops icm_shared_view_ops;

/* Read-only: snapshot-view.c. */
extern const struct icm_view_ops icm_snapshot_view_ops;

/* Embedded first by each kind. */
struct icm_view {
	const struct icm_view_ops *ops;
	struct icm_volume *vol;
	uint64_t ino;		   /* st_ino; constant */
	mode_t type;		   /* S_IFMT bits; constant */
	atomic_uint_fast64_t refs; /* of the kernel and of the core */
};

/* Embedded first by each kind. Serial numbers are never used again. */
struct icm_handle {
	struct icm_view *view; /* referenced */
	uint64_t serial;
	int flags; /* of open(2) */
};

/* Starts a view with one reference. */
void icm_view_init(struct icm_view *view, const struct icm_view_ops *ops, struct icm_volume *vol,
		   uint64_t ino, mode_t type);
/* Takes a reference on a view found in a table that holds none itself: false
 * when the last one is gone already and free() is about to remove it (the
 * caller goes on as if it had found nothing). Under the table's lock. */
bool icm_view_tryref(struct icm_view *view) ICM_MUST_CHECK;
/* Starts a handle: takes a reference on the view and a serial number. */
void icm_handle_init(struct icm_handle *h, struct icm_view *view, int flags);
/* Drops the handle's reference on its view; the caller frees the handle. */
void icm_handle_deinit(struct icm_handle *h);

#endif
