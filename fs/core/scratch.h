/* SPDX-License-Identifier: MIT
 * Scratch: names that live on local disk, at local speed, never in the store
 * (editor swap files, logs, .terraform/). The scratch root is a private
 * directory of this mount on local disk; below it the path of a scratch file
 * is its path in the mount ("state/definition 0/.terraform/x"). Directories
 * of the scratch root that stand for shared directories are made as needed
 * and mean nothing by themselves.
 *
 * Scratch views do every operation on the local file (openat2 below the root
 * without following symbolic links), with the local file's attributes, xattrs,
 * holes and page-cache rules; st_ino is the local inode number with bit 52 set. */
#ifndef ICM_CORE_SCRATCH_H
#define ICM_CORE_SCRATCH_H

#include "core/fs.h"
#include "core/lock.h"
#include "core/view.h"

struct icm_scratch;

extern const struct icm_view_ops icm_scratch_view_ops;

/* Opens the scratch root `dir` (made with 0700 where missing) for a volume.
 * `patterns` = a file in gitignore syntax that replaces the default patterns,
 * or NULL. -EINVAL with a fresh line in *ret_error for a bad pattern file. */
int icm_scratch_open(struct icm_volume *vol, const char *dir, const char *patterns,
		     struct icm_scratch **ret, char **ret_error) ICM_MUST_CHECK;
struct icm_scratch *icm_scratch_close(struct icm_scratch *s);
/* The text of the tree's .icmfsignore, or NULL when there is none: replaces the
 * former one's patterns, which stand behind the default or -o scratch ones. */
void icm_scratch_set_ignore(struct icm_scratch *s, const char *text, size_t len);

/* Whether a name that is to be made at `path` is scratch: by its own name or
 * because a directory above it is. gitignore rules: last match wins, '!'
 * negates, a trailing '/' matches directories only, a '/' elsewhere anchors. */
bool icm_scratch_match(struct icm_scratch *s, const char *path, bool is_dir);

/* Operations in a *shared* directory, given by its path, on a scratch name in
 * it. Same results as the fs.h operations. In a setgid directory the caller
 * gives the directory's group (and, to mkdir, S_ISGID) by itself. A local
 * directory that isn't scratch by its name stands for a shared one and isn't
 * found here. */
int icm_scratch_lookup(struct icm_scratch *s, const char *dir, const char *name,
		       struct icm_view **ret_view, struct stat *ret_st);
int icm_scratch_create(struct icm_scratch *s, const struct icm_call *call, const char *dir,
		       const char *name, mode_t mode, int flags, struct icm_view **ret_view,
		       struct stat *ret_st, struct icm_open_result *ret);
int icm_scratch_mknod(struct icm_scratch *s, const struct icm_call *call, const char *dir,
		      const char *name, mode_t mode, dev_t rdev, struct icm_view **ret_view,
		      struct stat *ret_st);
int icm_scratch_mkdir(struct icm_scratch *s, const struct icm_call *call, const char *dir,
		      const char *name, mode_t mode, struct icm_view **ret_view,
		      struct stat *ret_st);
int icm_scratch_symlink(struct icm_scratch *s, const struct icm_call *call, const char *dir,
			const char *name, const char *target, struct icm_view **ret_view,
			struct stat *ret_st);
int icm_scratch_unlink(struct icm_scratch *s, const char *dir, const char *name);
int icm_scratch_rmdir(struct icm_scratch *s, const char *dir, const char *name);
/* Both names scratch; directories given by path, shared or scratch. */
int icm_scratch_rename(struct icm_scratch *s, const char *dir, const char *name, const char *to_dir,
		       const char *to_name, unsigned flags);
int icm_scratch_link(struct icm_scratch *s, struct icm_view *view, const char *dir,
		     const char *name, struct icm_view **ret_view, struct stat *ret_st);

/* Scratch names in the shared directory `dir`: entries without "." and "..",
 * `next` is left 0. Entries that stand for shared directories are left out by
 * the caller (they exist in the tree). */
int icm_scratch_list(struct icm_scratch *s, const char *dir, icm_dirent_fn fn, void *userdata);
/* A shared directory was moved or removed: what is scratch in it follows. */
void icm_scratch_dir_moved(struct icm_scratch *s, const char *from, const char *to);
void icm_scratch_dir_removed(struct icm_scratch *s, const char *path);
/* Two shared names, of which one or both are directories, were exchanged. */
void icm_scratch_dirs_exchanged(struct icm_scratch *s, const char *a, const char *b);

/* A scratch file that is being renamed to a shared name: a fresh read-only
 * descriptor (-1 unless it is a regular file) and its attributes; and, once the shared name is
 * published, the removal of the local file, whose handles then get -ESTALE for writes and whose
 * view -ESTALE at open. */
int icm_scratch_export(struct icm_scratch *s, const char *dir, const char *name, int *ret_fd,
		       struct stat *ret_st);
void icm_scratch_exported(struct icm_scratch *s, const char *dir, const char *name);
/* A shared file that is being renamed to a scratch name: a local file with
 * these attributes appears atomically at the name, replacing it; its contents
 * are what `fill` writes to fd. */
int icm_scratch_import(struct icm_scratch *s, const char *dir, const char *name,
		       const struct stat *st, int (*fill)(int fd, void *userdata), void *userdata);

/* Path of a scratch view relative to the mount's root; fresh; NULL when it has
 * no name any more. */
char *icm_scratch_path(struct icm_view *view);

/* Locks on scratch files stay in this mount (the table is in the volume's lock
 * set): as icm_fs_lock and icm_fs_getlk, for a handle of this kind. They end by
 * themselves at flush and release. */
int icm_scratch_lock(struct icm_handle *h, const struct icm_lock_request *req,
		     icm_lock_done_fn done, void *userdata, struct icm_lock_wait **ret_wait);
void icm_scratch_getlk(struct icm_handle *h, const struct icm_lock_request *req, struct flock *lk);
/* Every lock and waiter on a scratch file, for .icmfs/locks; `path` is NULL for
 * a file without name. */
typedef void (*icm_scratch_lock_fn)(void *userdata, const char *path, uint64_t ino,
				    const struct icm_lock_info *info);
void icm_scratch_list_locks(struct icm_scratch *s, icm_scratch_lock_fn fn, void *userdata);

#endif
