/* SPDX-License-Identifier: MIT
 * The file system as its front (FUSE, the import command, a test) sees it:
 * views, handles and POSIX operations on them. Knows neither FUSE nor a store.
 *
 * A *view* is what the kernel calls an inode: one object (file, directory, …)
 * as one reader may see it. A regular file that changes on another host while
 * it is open here gets a further view for new openers, with the same st_ino,
 * so that whoever reads the old version goes on reading the old version.
 * A *handle* is an open file.
 *
 * All operations return 0 or a negative errno that can be given to a program
 * as it is, and block until they are done, unless call->nowait is set: then
 * an operation marked [nowait] returns ICM_WOULD_WAIT instead of waiting for a
 * store that is not local or for another operation, having done nothing.
 * Operations marked [store] may write to the store: never call them from a
 * thread that must not wait. Any operation may be called in any thread at
 * once. Views and handles passed in must be referenced by the caller
 * (a kernel look-up count, an open handle). Names are single components. */
#ifndef ICM_CORE_FS_H
#define ICM_CORE_FS_H

#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <sys/types.h>

#include "util/attrs.h"

struct icm_volume; /* one mounted deployment; volume.h */
struct icm_view;
struct icm_handle;

#define ICM_WOULD_WAIT (-ERESTART)

/* On whose behalf an operation is done. */
struct icm_call {
	uid_t uid;
	gid_t gid;
	pid_t pid; /* thread id of the caller as the kernel gives it; 0 = none (mapped pages) */
	bool nowait;
	bool as_known; /* icm_fs_getattr: what this mount knows, without asking the store */
};

/* The root's view; lives as long as the volume. */
struct icm_view *icm_fs_root(struct icm_volume *vol);
/* Inode number as programs see it. */
uint64_t icm_view_ino(const struct icm_view *view);
bool icm_view_is_dir(const struct icm_view *view);
/* Takes one look-up reference more; the caller has one already. */
void icm_view_ref(struct icm_view *view);
/* Drops n references; frees the view when it was the last. */
void icm_fs_forget(struct icm_view *view, uint64_t n);

/* ---- names. *ret_view comes with one reference for icm_fs_forget. ---- */

/* [nowait] -ENOENT; -ENAMETOOLONG; -EACCES … */
int icm_fs_lookup(struct icm_view *dir, const struct icm_call *call, const char *name,
		  struct icm_view **ret_view, struct stat *ret_st);
/* [store] mode with type; published before it returns. */
int icm_fs_mknod(struct icm_view *dir, const struct icm_call *call, const char *name, mode_t mode,
		 dev_t rdev, struct icm_view **ret_view, struct stat *ret_st);
/* [store] */
int icm_fs_mkdir(struct icm_view *dir, const struct icm_call *call, const char *name, mode_t mode,
		 struct icm_view **ret_view, struct stat *ret_st);
/* [store] */
int icm_fs_symlink(struct icm_view *dir, const struct icm_call *call, const char *name,
		   const char *target, struct icm_view **ret_view, struct stat *ret_st);
/* [store] A further name for a file. */
int icm_fs_link(struct icm_view *view, const struct icm_call *call, struct icm_view *dir,
		const char *name, struct icm_view **ret_view, struct stat *ret_st);
/* [store] */
int icm_fs_unlink(struct icm_view *dir, const struct icm_call *call, const char *name);
int icm_fs_rmdir(struct icm_view *dir, const struct icm_call *call, const char *name);
/* [store] flags: 0, RENAME_NOREPLACE or RENAME_EXCHANGE; -EINVAL for others. */
int icm_fs_rename(struct icm_view *dir, const struct icm_call *call, const char *name,
		  struct icm_view *to_dir, const char *to_name, unsigned flags);

/* ---- attributes ---- */

/* [nowait] `handle` may be NULL. */
int icm_fs_getattr(struct icm_view *view, const struct icm_call *call, struct icm_handle *handle,
		   struct stat *ret_st);

enum icm_set {
	ICM_SET_MODE = 1,
	ICM_SET_UID = 2,
	ICM_SET_GID = 4,
	ICM_SET_SIZE = 8,
	ICM_SET_ATIME = 16,
	ICM_SET_MTIME = 32,
	ICM_SET_CTIME = 64 /* ignored: ctime is ours */,
};
/* [store] Sets what `set` names from *st; "now" was resolved by the front. A
 * change of size alone on a handle or a view is a write like any other: it is
 * published when the file is (a truncate(2) without handle: before it returns). */
int icm_fs_setattr(struct icm_view *view, const struct icm_call *call, struct icm_handle *handle,
		   unsigned set, const struct stat *st, struct stat *ret_st);
/* Fresh target, which the caller frees. */
int icm_fs_readlink(struct icm_view *view, const struct icm_call *call, char **ret_target);

/* Value into buf; returns its length; size 0 asks for the length. -ENODATA,
 * -ERANGE, -EOPNOTSUPP (name spaces other than user., and trusted. for root). */
ssize_t icm_fs_getxattr(struct icm_view *view, const struct icm_call *call, const char *name,
			void *buf, size_t size);
/* NUL-terminated names one after the other; as getxattr. */
ssize_t icm_fs_listxattr(struct icm_view *view, const struct icm_call *call, char *buf,
			 size_t size);
/* [store] flags: XATTR_CREATE, XATTR_REPLACE. */
int icm_fs_setxattr(struct icm_view *view, const struct icm_call *call, const char *name,
		    const void *value, size_t size, int flags);
int icm_fs_removexattr(struct icm_view *view, const struct icm_call *call, const char *name);
int icm_fs_statfs(struct icm_volume *vol, const struct icm_call *call, struct statvfs *ret);

/* ---- files ---- */

/* How an open file is to be treated by a front with a page cache. */
struct icm_open_result {
	struct icm_handle *handle;
	bool keep_cache; /* pages that the kernel holds of this view are right */
	bool direct;	 /* don't cache (generated files) */
};

/* [store] Makes and opens a file: open(2) with O_CREAT where the name doesn't
 * exist for the kernel; with O_EXCL published before it returns. If the name
 * exists after all it is opened (without O_EXCL). */
int icm_fs_create(struct icm_view *dir, const struct icm_call *call, const char *name, mode_t mode,
		  int flags, struct icm_view **ret_view, struct stat *ret_st,
		  struct icm_open_result *ret);
/* [nowait] flags as in open(2), O_TRUNC included. -ESTALE: look the name up
 * again (the kernel does so by itself). Attributes that changed since the
 * kernel last heard are notified through icm_notify.attr_changed from inside. */
int icm_fs_open(struct icm_view *view, const struct icm_call *call, int flags,
		struct icm_open_result *ret);
/* [nowait] Reads up to size bytes at off; the count, 0 at the end. */
ssize_t icm_fs_read(struct icm_handle *h, const struct icm_call *call, void *buf, size_t size,
		    off_t off);
/* [nowait] All or an error. `mapped`: dirty mapped pages, with no caller. Nothing is
 * published here. */
ssize_t icm_fs_write(struct icm_handle *h, const struct icm_call *call, const void *buf,
		     size_t size, off_t off, bool mapped);
/* True when icm_fs_flush would have something to publish or record locks to
 * end: if not, it may be called in any thread. */
bool icm_fs_flush_waits(struct icm_handle *h);
/* [store] A close(2) of one descriptor; lock_owner as FUSE gives it: ends the
 * record locks of that owner on the file, after publishing. */
int icm_fs_flush(struct icm_handle *h, const struct icm_call *call, uint64_t lock_owner);
/* [store] */
int icm_fs_fsync(struct icm_handle *h, const struct icm_call *call, bool datasync);
/* [store] The last close: publishes what is left, ends flock and OFD locks,
 * frees the handle. Errors go to the log and to status. */
void icm_fs_release(struct icm_handle *h);
/* [nowait] mode as in fallocate(2). */
int icm_fs_fallocate(struct icm_handle *h, const struct icm_call *call, int mode, off_t off,
		     off_t len);
/* Both on regular files; the count copied. */
ssize_t icm_fs_copy_range(struct icm_handle *in, off_t off_in, struct icm_handle *out,
			  off_t off_out, size_t len, const struct icm_call *call);
/* SEEK_DATA, SEEK_HOLE: the offset, or -ENXIO. */
off_t icm_fs_lseek(struct icm_handle *h, const struct icm_call *call, off_t off, int whence);

/* ---- directories ---- */

struct icm_dirent {
	const char *name; /* borrowed during the call */
	uint64_t ino;
	mode_t type; /* S_IFMT bits */
	off_t next;  /* where to go on behind this entry; stable for the name's life */
};
/* Takes one entry; non-zero: the buffer is full, the entry was not taken. */
typedef int (*icm_dirent_fn)(void *userdata, const struct icm_dirent *e);

/* [nowait] */
int icm_fs_opendir(struct icm_view *dir, const struct icm_call *call, struct icm_handle **ret);
/* Entries behind position `off` (0 = from the start, which looks anew), "." and ".." included. */
int icm_fs_readdir(struct icm_handle *h, const struct icm_call *call, off_t off, icm_dirent_fn fn,
		   void *userdata);
/* Look-up of a name that icm_fs_readdir just gave, without asking the store
 * (for readdirplus); -ENOENT if it is gone. *ret_view with a reference. */
int icm_fs_lookup_cached(struct icm_view *dir, const char *name, struct icm_view **ret_view,
			 struct stat *ret_st);
void icm_fs_releasedir(struct icm_handle *h);
/* fsync of a directory: nothing to do, names are published at once. */

/* ---- locks ---- */

struct icm_lock_wait; /* a parked lock request */

struct icm_lock_request {
	bool flock; /* flock(2); else a record lock (POSIX or OFD) */
	int type;   /* F_RDLCK, F_WRLCK, F_UNLCK */
	uint64_t start,
		end;	/* record locks: first and last byte (end UINT64_MAX >> 1 = to the end) */
	uint64_t owner; /* FUSE lock owner */
	pid_t pid;	/* of the process, for F_GETLK */
	bool wait;	/* F_SETLKW, flock without LOCK_NB */
};
/* Called once, in any thread, without locks held, when a parked request is
 * granted (0) or fails. Not called after icm_fs_lock_cancel returned true. */
typedef void (*icm_lock_done_fn)(void *userdata, int result);

/* [store] 0 = done; -EAGAIN; -EDEADLK; -ENOLCK (read-only, or too many locks on this
 * file); -EINPROGRESS: parked, *ret_wait is valid until done was called or the
 * wait was cancelled. Releasing: publishes before. */
int icm_fs_lock(struct icm_handle *h, const struct icm_call *call,
		const struct icm_lock_request *req, icm_lock_done_fn done, void *userdata,
		struct icm_lock_wait **ret_wait);
/* Takes a parked request out of the queue: true = it is gone, answer EINTR;
 * false = it was granted or failed, done is called or was. */
bool icm_fs_lock_cancel(struct icm_volume *vol, struct icm_lock_wait *wait);
/* F_GETLK: fills *lk (l_type F_UNLCK if nothing conflicts). */
int icm_fs_getlk(struct icm_handle *h, const struct icm_call *call,
		 const struct icm_lock_request *req, struct flock *lk);

/* ---- what the kernel has to forget ---- */

enum icm_event_type {
	ICM_EVENT_MODIFY, /* contents of `name` in `dir` */
	ICM_EVENT_ATTRIB,
	ICM_EVENT_CREATE,
	ICM_EVENT_MKDIR,
	ICM_EVENT_DELETE,
	ICM_EVENT_RMDIR,
	ICM_EVENT_MOVE, /* `name` in `dir` became `to_name` in `to_dir` */
};

/* A change for inotify watchers that the kernel here hasn't made itself: of a name
 * on another mount, or (MODIFY, ATTRIB) of one view that its name doesn't stand
 * for at present. Everything is borrowed during the call. */
struct icm_event {
	enum icm_event_type type;
	struct icm_view *view; /* NULL: by path */
	const char *path;      /* relative to the root */
	const char *to_path;   /* move */
	bool is_dir;
};

/* Set by the front. Called without core locks held, from any thread, also from
 * inside operations: an implementation queues, except attr_changed. */
struct icm_notify {
	/* Drop attributes and pages of this view. */
	void (*inval_data)(void *userdata, struct icm_view *view);
	/* Drop attributes only, now, in this thread (see icm_fs_open). */
	void (*attr_changed)(void *userdata, struct icm_view *view);
	/* The next use of the name looks it up again. */
	void (*expire_name)(void *userdata, struct icm_view *dir, const char *name);
	/* Everything that is cached must be looked at anew. */
	void (*reset)(void *userdata);
	/* May be NULL. */
	void (*event)(void *userdata, const struct icm_event *event);
	/* Returns when all inval_data calls so far have taken effect; called
	 * before a lock is reported, never from a notification thread. */
	void (*drain)(void *userdata, struct icm_view *view);
};

#endif
