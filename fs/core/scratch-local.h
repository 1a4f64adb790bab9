/* SPDX-License-Identifier: MIT
 * Inside scratch*.c. A node is the view of one local inode, found by device and
 * inode number so that hard links share it; it knows the paths by which it was
 * met. What an operation works on is a descriptor: a duplicate of an open
 * handle's, or the path opened beneath the scratch root and compared with the
 * node, so that a name that went to another file meanwhile is never taken for it.
 *
 * Locks, outermost first: `moves` (names on disk and in the table agree while
 * it is held; for writing by whoever changes names; held over local system
 * calls), `lock` (the table; no I/O), the lock set's own. */
#ifndef ICM_CORE_SCRATCH_LOCAL_H
#define ICM_CORE_SCRATCH_LOCAL_H

#include <dirent.h>
#include <pthread.h>
#include <stdatomic.h>

#include "core/ignore.h"
#include "core/lock.h"
#include "core/scratch.h"
#include "util/cleanup.h"
#include "util/map.h"

/* Names that begin so are files in the making or on their way out: never shown. */
#define ICM_SCRATCH_STAGE ".icmfs-stage-"

struct icm_scratch {
	struct icm_volume *vol;
	int root_fd;  /* O_PATH; constant */
	bool is_root; /* may give files to their makers; constant */
	pthread_rwlock_t moves;
	pthread_rwlock_t rules; /* protects the two lists */
	struct icm_ignore base; /* default or -o scratch patterns */
	struct icm_ignore tree; /* those of .icmfsignore */
	pthread_mutex_t lock;	/* protects the rest, and all nodes' members that change */
	struct icm_map by_inode;
	struct icm_scratch_node *nodes; /* all, linked ones or not, by `next` */
};

struct icm_scratch_name {
	struct icm_scratch_name *next;
	char *path; /* owned; relative to the scratch root */
};

struct icm_scratch_node {
	struct icm_view view;
	struct icm_scratch *s;
	struct icm_scratch_node *prev, *next;
	dev_t dev; /* constant, as `local_ino` */
	ino_t local_ino;
	struct icm_map_node by_inode;
	bool is_listed; /* in the map by_inode: has names on disk */
	struct icm_scratch_name *names;
	struct icm_scratch_handle *handles;
	struct icm_lock_table *locks; /* owned; NULL until the first request */
	struct stat last;	      /* without names and handles: what getattr answers */
	atomic_bool is_exported;      /* set once; read by writes without the lock */
};

struct icm_scratch_handle {
	struct icm_handle h;
	struct icm_scratch_handle *next; /* of the node */
	int fd;				 /* of the local file or directory; constant */
	pthread_mutex_t dir_lock;	 /* protects the rest */
	DIR *dir;			 /* owned; has a descriptor of its own */
	off_t dir_at;			 /* where it stands */
};

static inline struct icm_scratch_node *icm_scratch_node_of(struct icm_view *view)
{
	return ICM_CONTAINER(view, struct icm_scratch_node, view);
}

static inline struct icm_scratch_handle *icm_scratch_handle_of(struct icm_handle *h)
{
	return ICM_CONTAINER(h, struct icm_scratch_handle, h);
}

static inline void icm_rwunlockp(pthread_rwlock_t **m)
{
	pthread_rwlock_unlock(*m);
}

static inline pthread_rwlock_t *icm_rdlock_scope(pthread_rwlock_t *m)
{
	pthread_rwlock_rdlock(m);
	return m;
}

static inline pthread_rwlock_t *icm_wrlock_scope(pthread_rwlock_t *m)
{
	pthread_rwlock_wrlock(m);
	return m;
}

/* Hold `m` for reading or writing until the enclosing scope ends. */
#define ICM_RDLOCK_SCOPE(m)                                                                        \
	pthread_rwlock_t *ICM_SCOPE_NAME(icm_scope_, __LINE__) ICM_CLEANUP(icm_rwunlockp)          \
		ICM_UNUSED = icm_rdlock_scope(m)
#define ICM_WRLOCK_SCOPE(m)                                                                        \
	pthread_rwlock_t *ICM_SCOPE_NAME(icm_scope_, __LINE__) ICM_CLEANUP(icm_rwunlockp)          \
		ICM_UNUSED = icm_wrlock_scope(m)

/* ---- scratch-node.c: descriptors, the table ---- */

/* Opens a path beneath the root, following no symbolic link and crossing no
 * mount; "" is the root. A descriptor, or a negative errno. */
int icm_scratch_openat(struct icm_scratch *s, const char *path, int flags);
/* Path of a descriptor for calls that know no other way ("/proc/self/fd/N"). */
struct icm_scratch_proc {
	char path[40];
};
struct icm_scratch_proc icm_scratch_proc(int fd);
/* Attributes as programs see them. */
int icm_scratch_fstat(int fd, struct stat *ret_st);
uint64_t icm_scratch_ino(ino_t local);

/* The node of an open local object, known by `path` from now on, with a
 * reference for the caller. `moves` held. */
struct icm_scratch_node *icm_scratch_node_get(struct icm_scratch *s, int fd, const struct stat *st,
					      const char *path);
/* A descriptor for the object, at least O_PATH: -ESTALE when it has neither name
 * nor handle. `moves` held. */
int icm_scratch_node_fd(struct icm_scratch_node *n);
/* Fresh path of the node, or NULL. */
char *icm_scratch_node_path(struct icm_scratch_node *n);
/* After an operation that took `path` from the object behind `fd` (O_PATH, opened
 * before): forgets the name, and the node where it was the last. `moves` held. */
void icm_scratch_node_unlinked(struct icm_scratch *s, int fd, const char *path, bool exported);
/* Everything at and below `from` is at `to` now, and the other way when `exchange`. */
void icm_scratch_nodes_moved(struct icm_scratch *s, const char *from, const char *to,
			     bool exchange);
/* Everything below `path` is gone. */
void icm_scratch_nodes_removed(struct icm_scratch *s, const char *path);
void icm_scratch_node_free(struct icm_view *view);
/* Frees what nobody has open: at the end. */
void icm_scratch_nodes_clear(struct icm_scratch *s);

/* ---- scratch-name.c ---- */

bool icm_scratch_is_stage(const char *name);
/* A fresh name of that kind. */
void icm_scratch_stage_name(char name[static 64]);
int icm_scratch_view_lookup(struct icm_view *, const struct icm_call *, const char *,
			    struct icm_view **, struct stat *);
int icm_scratch_view_lookup_cached(struct icm_view *, const char *, struct icm_view **,
				   struct stat *);
int icm_scratch_view_mknod(struct icm_view *, const struct icm_call *, const char *, mode_t, dev_t,
			   struct icm_view **, struct stat *);
int icm_scratch_view_mkdir(struct icm_view *, const struct icm_call *, const char *, mode_t,
			   struct icm_view **, struct stat *);
int icm_scratch_view_symlink(struct icm_view *, const struct icm_call *, const char *, const char *,
			     struct icm_view **, struct stat *);
int icm_scratch_view_link(struct icm_view *, const struct icm_call *, struct icm_view *,
			  const char *, struct icm_view **, struct stat *);
int icm_scratch_view_unlink(struct icm_view *, const struct icm_call *, const char *);
int icm_scratch_view_rmdir(struct icm_view *, const struct icm_call *, const char *);
int icm_scratch_view_rename(struct icm_view *, const struct icm_call *, const char *,
			    struct icm_view *, const char *, unsigned);
int icm_scratch_view_create(struct icm_view *, const struct icm_call *, const char *, mode_t, int,
			    struct icm_view **, struct stat *, struct icm_open_result *);

/* ---- scratch-file.c ---- */

/* Opens a handle on the node; takes the descriptor, also when it fails. */
struct icm_handle *icm_scratch_handle_new(struct icm_scratch_node *n, int fd, int flags);
void icm_scratch_handle_free(struct icm_scratch_handle *h);
int icm_scratch_view_open(struct icm_view *, const struct icm_call *, int,
			  struct icm_open_result *);

/* ---- scratch-dir.c ---- */

int icm_scratch_view_opendir(struct icm_view *, const struct icm_call *, struct icm_handle **);
int icm_scratch_view_readdir(struct icm_handle *, const struct icm_call *, off_t, icm_dirent_fn,
			     void *);
void icm_scratch_view_releasedir(struct icm_handle *);
/* Removes an entry of the scratch root and everything below it, as far as that
 * is possible; what is left goes at the next start. */
void icm_scratch_remove_tree(int root_fd, const char *name);

#endif
