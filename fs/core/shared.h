/* SPDX-License-Identifier: MIT
 * Inside the core: the volume's state, and the views and handles of shared
 * objects (those in the store).
 *
 * Lock order, outermost first:
 *   volume->lock_calls one change of an inode's locks at a time; held over store calls
 *   locks->deadlock    one search for a circle of waiters at a time; held over store calls
 *   file->commit       one publication of a file at a time; held over store calls
 *   file->io           contents of a view; may be held over a fetch from the store
 *   volume->change_lock one change of many transactions at a time; held over store calls
 *   volume->feed_lock  one catch-up at a time; held over store calls
 *   volume->lock       the tree, facts of inodes, lists of views; short, no I/O
 *   commits.lock, lease.lock, copy.lock      inside their modules; short, no I/O
 * Two files' locks are never held at once. No driver call, no notification and
 * no reply under volume->lock. */
#ifndef ICM_CORE_SHARED_H
#define ICM_CORE_SHARED_H

#include <pthread.h>

#include "backends/backend.h"
#include "core/copy.h"
#include "core/data.h"
#include "core/lock.h"
#include "core/scratch.h"
#include "core/tree.h"
#include "core/view.h"
#include "core/volume.h"

#define ICM_CONFLICT_TRIES 16		     /* a name that changes each time we look */
#define ICM_CONTENT_KEEP   ((size_t)4 << 10) /* contents kept in memory without a handle */

/* Contents of a plain file, immutable, shared. */
struct icm_content {
	atomic_uint refs;
	size_t len;
	char bytes[];
};
struct icm_content *icm_content_new(const void *bytes, size_t len);
struct icm_content *icm_content_ref(struct icm_content *c);
struct icm_content *icm_content_unref(struct icm_content *c); /* takes NULL, returns NULL */

/* Which contents a view shows. */
struct icm_version {
	uint64_t gen; /* the inode's generation; 0 = none in the store */
	uint64_t size, holes;
	struct timespec mtime, ctime;
	bool has_hash;
	struct icm_sha256 hash;
};

/* The view of a shared object. `io` protects what is named under it, the
 * volume's lock the rest. */
struct icm_file {
	struct icm_view view;
	struct icm_inode *inode; /* referenced; constant */
	struct icm_file *next;	 /* further views of the inode */
	pthread_mutex_t commit;
	pthread_mutex_t io;

	/* under volume->lock */
	/* What may have left the kernel with pages or a size that are not this
	 * version's, counted, and how much of that it has certainly heard of. */
	uint64_t doubts, settled;
	bool owes_attr;		    /* the kernel is told of new attributes when it has the size */
	unsigned n_pins;	    /* look-ups for opens that are about to come … */
	int64_t pinned_ns;	    /* … the last of them */
	uint64_t pinned_doubts;	    /* what the kernel has heard of with its answer */
	unsigned untold;	    /* news of newer versions that are not yet with the front */
	bool aside;		    /* a name that the kernel has of it may be another file's */
	bool frozen;		    /* stays at `version` although a newer one exists */
	int64_t frozen_ns;	    /* when it was frozen, or last read since */
	struct icm_version version; /* contents that this view shows when it isn't dirty */
	uint64_t pages_gen;	    /* version whose pages the kernel may hold */
	unsigned n_handles;
	unsigned n_writers;
	bool dirty;	     /* has something to publish */
	bool written;	     /* … and a flush should publish it */
	bool append_only;    /* all changes since the base were O_APPEND writes */
	bool conflict;	     /* a conflict copy took the bytes: handles get -ESTALE */
	bool lost;	     /* was dirty when its locks were lost: handles get -EIO */
	uint64_t base_size;  /* size of the base when it became dirty */
	uint64_t dirty_size; /* size and holes while dirty, for stat without `io` */
	uint64_t dirty_holes;
	struct timespec dirty_time; /* of the last change */
	bool times_set;		    /* utimensat on a dirty file: published with it */
	struct timespec set_atime, set_mtime;
	uint64_t changes;	    /* counts writes, to see those during a publication */
	uint64_t published_changes; /* of these, how many are published */

	/* The other mount's file that got this one's name before it was published: its
	 * locks count. Its number, or 0; and, once locked, the inode (referenced). */
	uint64_t lock_ino;
	struct icm_inode *lock_inode;

	/* under io */
	struct icm_data *data;	  /* working copy, or large contents being read */
	bool data_is_work;	  /* `data` has changes; else a cache of `version` */
	uint64_t data_gen;	  /* version of a cache */
	struct icm_content *base; /* plain contents of version base_gen, or NULL */
	uint64_t base_gen;
};

struct icm_file_handle {
	struct icm_handle h;
	uint64_t changed;    /* f->changes after its own last change */
	pid_t opener;	     /* process that opened it */
	uint64_t lock_epoch; /* of the volume when it took a lock; 0 = it has none */
};

struct icm_dir_item {
	uint64_t cookie;
	uint64_t ino;
	mode_t type;
	char *name; /* owned */
};

struct icm_dir_handle {
	struct icm_handle h;
	pthread_mutex_t lock;
	bool filled;
	struct icm_dir_item *items; /* owned; by cookie */
	size_t n, cap;
};

/* A removed name, so that the late result of an older change doesn't bring it back. */
struct icm_grave {
	char *path;
	uint64_t index;
	int64_t when_ns;
};
#define ICM_GRAVES 256

/* A transaction of icmfs, by this mount or another, that this mount knows of. */
struct icm_known_txn {
	char id[ICM_ID_HEX + 1];
	uint64_t index;
	uint64_t before; /* own: index of the transaction of icmfs before it; 0 = not known */
	bool in_tree;	 /* own, and what it did is in the tree */
};
#define ICM_KNOWN_TXNS 256

/* Plain contents that a look at a file has brought, for who reads it next (look.c). */
struct icm_brought {
	uint64_t ino, attr_index, tree_index; /* as both keys were in one view */
	struct icm_sha256 hash;
	struct icm_content *content; /* referenced; NULL: none */
};
#define ICM_BROUGHT 16

#define ICM_LOCK_CALLS 16

/* A thread whose open was answered ESTALE: the kernel looks up and opens again. */
struct icm_again {
	pid_t tid;
	int64_t when_ns;
	struct icm_file *drained; /* compared only */
	uint64_t doubts;	  /* its doubts of which the kernel had heard */
};
#define ICM_AGAINS 64

struct icm_commits;	 /* commit.c */
struct icm_lease_keeper; /* lease.c */
struct icm_upkeep;	 /* upkeep.c */

struct icm_error_note {
	struct timespec time;
	char *path;
	char *text;
};
#define ICM_ERROR_NOTES 16

struct icm_volume {
	struct icm_backend *be; /* owned; set by open; the local copy's if `offline` */
	char *url;		/* owned; constant; canonical, of the store */
	char *mountpoint, *work_dir, *scratch_dir, *scratch_patterns; /* owned; constant */
	char *unsaved_dir;	     /* owned; constant; may be NULL */
	uint64_t unsaved_max;	     /* bytes in it */
	char *host, *user, *boot_id; /* owned; constant; for records */
	uid_t uid;
	gid_t gid;
	bool read_only, cached, create;
	uint32_t timeout_ms, ttl_ms;
	struct icm_copy *copy;		/* owned; NULL: none is kept */
	bool offline;			/* shows the copy; constant after start */
	struct icm_copy_head copy_head; /* owned; what is shown then */
	struct timespec created;	/* the deployment; tells it from others */
	struct icm_notify notify;	/* set before start */
	void *notify_data;
	struct icm_scratch *scratch;   /* owned; may be NULL */
	struct icm_lock_set *lock_set; /* owned */
	struct icm_view *control;      /* referenced */
	struct icm_file *root_view;    /* referenced */
	struct icm_inode *lock_inode;  /* referenced; .icmfs/lock for the lock code */
	struct icm_file *lock_file;    /* referenced; its view */

	pthread_mutex_t lock;
	pthread_cond_t told; /* a file's `untold` became 0 */
	struct icm_tree tree;
	struct icm_grave graves[ICM_GRAVES]; /* ring */
	size_t next_grave;
	struct icm_brought brought[ICM_BROUGHT]; /* ring */
	size_t next_brought;
	struct icm_known_txn known[ICM_KNOWN_TXNS]; /* ring */
	bool has_head;				    /* key `head` exists, as far as is known */
	/* of the last own commit that the position came to by itself, and when that was */
	uint64_t own_index;
	int64_t own_ns;
	size_t next_known;
	uint64_t position; /* everything in the feed up to here is in the tree */
	uint64_t
		unexplained; /* last index at which a transaction was seen that nobody here knows */
	bool compare_wanted; /* a listing has overwritten what this mount can only derive */
	uint64_t compared;   /* index of tree/ up to which it was compared as a whole */
	uint64_t lock_epoch; /* counts leases whose locks were lost; from 1 */
	uint64_t ignore_gen; /* version of .icmfsignore that counts */
	uint64_t meta_index;
	bool listing;			     /* a whole listing is being placed */
	struct icm_again agains[ICM_AGAINS]; /* ring */
	size_t next_again;
	/* The tree may differ from the store: list anew. How often this was asked
	 * for, and how many of these a listing has settled. */
	uint64_t resyncs_asked, resyncs_done;
	uint64_t listings;			       /* how often it was listed */
	unsigned n_frozen, n_owing;		       /* views */
	uint64_t next_gen;			       /* for generations of contents */
	struct icm_error_note errors[ICM_ERROR_NOTES]; /* ring */
	size_t next_error;
	bool reachable;	      /* the last that was heard of the store */
	bool stale;	      /* it was away since the tree was certainly as it is there */
	atomic_llong away_ns; /* since when it doesn't answer, for deadlines; 0: it does */

	pthread_mutex_t change_lock; /* change-move.c */
	pthread_mutex_t feed_lock;
	struct icm_entries feed_seen; /* keys of the feed that need no more reading; feed_lock */
	pthread_mutex_t lock_calls[ICM_LOCK_CALLS]; /* by inode (lock-turn.c) */
	struct icm_shared_locks *locks;		    /* owned */
	struct icm_commits *commits;		    /* owned */
	struct icm_lease_keeper *lease;		    /* owned */
	struct icm_upkeep *upkeep;		    /* owned; NULL read-only and before start */
	pthread_t watcher;
	pthread_t foreign_watcher;
	bool watches_foreign;
	bool started;
	atomic_bool stopping;
};

/* The inode whose locks are those of the view; volume->lock held. */
static inline struct icm_inode *icm_file_lock_inode(const struct icm_file *f)
{
	return f->lock_inode ? f->lock_inode : f->inode;
}

/* Both with volume->lock held. */
static inline void icm_volume_want_resync(struct icm_volume *vol)
{
	vol->resyncs_asked++;
}
static inline bool icm_volume_wants_resync(const struct icm_volume *vol)
{
	return vol->resyncs_asked != vol->resyncs_done;
}

extern const struct icm_view_ops icm_shared_view_ops;

static inline struct icm_file *icm_file_of(struct icm_view *view)
{
	return ICM_CONTAINER(view, struct icm_file, view);
}
/* Its handles go on failing, new openers get another view; volume->lock held. */
static inline bool icm_file_is_given_up(const struct icm_file *f)
{
	return f->conflict || f->lost;
}
static inline struct icm_file_handle *icm_file_handle_of(struct icm_handle *h)
{
	return ICM_CONTAINER(h, struct icm_file_handle, h);
}

/* ---- away.c ---- */

/* A store that gave this error doesn't answer. */
static inline bool icm_error_is_away(int error)
{
	return error == -EHOSTUNREACH || error == -ETIMEDOUT;
}

/* The context of one store call: the volume's time-out from now, or less while the
 * store is away. */
struct icm_ctx icm_volume_ctx(struct icm_volume *vol);
/* What a call with such a context came to: notes whether the store answers, unless it
 * is local, and returns r. volume->lock not held. */
int icm_volume_heard(struct icm_volume *vol, int r);
/* The same as the watch finds it, for any store. volume->lock not held. */
void icm_volume_set_reachable(struct icm_volume *vol, bool reachable);
/* It has answered: what is read now to follow it may take its time. */
void icm_volume_be_patient(struct icm_volume *vol);
/* It doesn't answer, and has not for longer than a call waits. Never of a local one. */
bool icm_volume_is_given_up(const struct icm_volume *vol);

/* ---- volume.c ---- */

/* Records a failure that no program was told, for status and the log. */
void icm_volume_note_error(struct icm_volume *vol, const char *path, const char *text);

/* Patterns of the tree's .icmfsignore, if they have changed. */
void icm_volume_load_ignore(struct icm_volume *vol);

/* ---- file-view.c: finding and making views; versions of views ---- */

/* The current view of an inode with a reference for the caller; volume->lock held. */
struct icm_file *icm_file_get(struct icm_volume *vol, struct icm_inode *inode);
/* Attributes as a program sees them through this view; volume->lock held. */
void icm_file_stat(struct icm_volume *vol, struct icm_file *f, struct stat *st);

/* What the kernel is to be told after volume->lock was released. */
struct icm_news {
	struct icm_news_item *v;
	size_t n, cap;
};
struct icm_news_item {
	enum { ICM_NEWS_DATA, ICM_NEWS_ATTR, ICM_NEWS_NAME, ICM_NEWS_EVENT } what;
	struct icm_view *view; /* referenced */
	char *name;	       /* owned; name */
	enum icm_event_type event;
};
void icm_news_view(struct icm_news *n, struct icm_file *f, bool data);
/* All views of an inode: attributes (or data). */
void icm_news_inode(struct icm_news *n, struct icm_inode *inode, bool data);
void icm_news_name(struct icm_news *n, struct icm_inode *dir, const char *name);
/* For inotify watchers. An event of a name reaches the view that the name stands
 * for; watches on any other view hear of a change by its own event only. */
void icm_news_event(struct icm_news *n, struct icm_file *f, enum icm_event_type type);
/* An event for each view that the inode's names don't stand for, but `by` (or NULL). */
void icm_news_apart(struct icm_news *n, struct icm_inode *inode, const struct icm_file *by,
		    enum icm_event_type type);
/* Tells and empties; volume->lock not held. */
void icm_news_tell(struct icm_volume *vol, struct icm_news *n);

/* The contents of an inode have a newer version, made by `by` (NULL: another
 * mount): every other view that nobody has open follows at once, the others
 * are frozen and the names expire. volume->lock held. */
void icm_file_new_version(struct icm_volume *vol, struct icm_inode *inode, struct icm_file *by,
			  struct icm_news *news);
/* A frozen clean view follows to the newest version in place (before a lock is
 * granted, or when it was frozen for long). volume->lock held. */
void icm_file_thaw(struct icm_volume *vol, struct icm_file *f, struct icm_news *news);
/* Thaws what was frozen long ago; returns ns until the next is due, or 0. */
int64_t icm_file_thaw_old(struct icm_volume *vol);
/* The version that the inode has in the store; volume->lock held. */
struct icm_version icm_inode_version(const struct icm_inode *inode);
/* Forgets cached contents of a view that nobody has open, if they are large; io held. */
void icm_file_drop_cache(struct icm_file *f);

/* ---- load.c: contents from the store ---- */

/* Brings contents so that [off, off+len) of the view's version can be read: into
 * f->base or f->data. io held. -ESTALE: that version is gone for good. -EWOULDBLOCK
 * is not used: the caller asks icm_file_is_loaded first. */
int icm_file_load(struct icm_volume *vol, struct icm_file *f);
bool icm_file_is_loaded(struct icm_volume *vol, const struct icm_file *f, uint64_t off,
			uint64_t len);
/* Makes f->data a working copy of the contents (or empty); io held. */
int icm_file_make_work(struct icm_volume *vol, struct icm_file *f, bool empty);
/* The plain bytes with this hash: from the live key of `path` (NULL: none), whose
 * index is returned in *ret_index then, or from a blob (*ret_index 0). */
int icm_load_plain(struct icm_volume *vol, const char *path, const struct icm_sha256 *hash,
		   size_t size, struct icm_content **ret, uint64_t *ret_index) ICM_MUST_CHECK;
/* The record of a large file in this version, with its chunks: from tree/<path>
 * (whose index is returned) or, if linked_ino, from inode/<ino>. -ESTALE: there
 * is another version by now. Of a large file that another program has stored as its
 * bytes there is no record, and *ret_plain is that key. */
int icm_load_record(struct icm_volume *vol, const char *path, uint64_t linked_ino,
		    const struct icm_version *v, struct icm_record *ret,
		    struct icm_entry *ret_plain, uint64_t *ret_index) ICM_MUST_CHECK;
/* What icm_load_record finds, ready to be read; errors as there. */
int icm_load_large(struct icm_volume *vol, const char *path, uint64_t linked_ino,
		   const struct icm_version *v, struct icm_data **ret,
		   uint64_t *ret_index) ICM_MUST_CHECK;
/* The contents that a `chunks` record stands for. Its list is brought, if it is a
 * blob, and stays in the record. -EIO: it isn't there, or damaged. */
int icm_load_chunks(struct icm_volume *vol, struct icm_record *rec,
		    struct icm_data **ret) ICM_MUST_CHECK;
/* A blob, verified; at most `max` bytes. */
int icm_load_blob(struct icm_volume *vol, const struct icm_sha256 *sum, size_t max,
		  void **ret_bytes, size_t *ret_len) ICM_MUST_CHECK;

/* A symbolic link's target, from tree/<path> or, if linked_ino, from inode/<ino>
 * (attr.c); fresh. -ESTALE: it is gone. */
int icm_load_target(struct icm_volume *vol, const char *path, uint64_t linked_ino,
		    char **ret_target) ICM_MUST_CHECK;

/* ---- file.c ---- */

/* Takes the content lock `io`; false: it would wait and the call may not. */
bool icm_file_lock_io(struct icm_file *f, const struct icm_call *call);

/* ---- publish.c ---- */

/* Publishes what the view has to publish; 0 when there is nothing. -ESTALE: a
 * conflict copy was made. */
int icm_file_publish(struct icm_volume *vol, struct icm_file *f, pid_t pid);

/* ---- names.c and others ---- */

/* Asks the store for a name and updates the tree: 0, -ENOENT. Used when a
 * precondition failed, and for names that the tree doesn't have. */
int icm_name_refresh(struct icm_volume *vol, struct icm_inode *dir, const char *name);
/* Ends every lock and waiter of an inode through a handle (lock-call.c). */
void icm_file_lock_release(struct icm_volume *vol, struct icm_file *f, struct icm_handle *h);
/* FLUSH: the record locks of that owner. */
void icm_file_lock_flush(struct icm_volume *vol, struct icm_file *f, uint64_t owner);
bool icm_file_lock_has_owner(struct icm_volume *vol, struct icm_file *f, uint64_t owner);
/* The handle held a lock when the lease was lost; volume->lock held. */
bool icm_file_lock_is_lost(struct icm_volume *vol, struct icm_handle *h);
/* The threads that wait for other mounts' locks (lock-wait.c). Stopping gives all
 * locks of this mount back and fails who waits. */
struct icm_shared_locks *icm_shared_locks_new(void);
struct icm_shared_locks *icm_shared_locks_free(struct icm_shared_locks *l);
int icm_shared_locks_start(struct icm_volume *vol) ICM_MUST_CHECK;
void icm_shared_locks_stop(struct icm_volume *vol);
/* The lease was lost: all locks of this mount are gone. */
void icm_locks_lost(struct icm_volume *vol);

/* members of icm_shared_view_ops by file */
int icm_shared_lookup(struct icm_view *, const struct icm_call *, const char *, struct icm_view **,
		      struct stat *);
int icm_shared_lookup_cached(struct icm_view *, const char *, struct icm_view **, struct stat *);
int icm_shared_mknod(struct icm_view *, const struct icm_call *, const char *, mode_t, dev_t,
		     struct icm_view **, struct stat *);
int icm_shared_mkdir(struct icm_view *, const struct icm_call *, const char *, mode_t,
		     struct icm_view **, struct stat *);
int icm_shared_symlink(struct icm_view *, const struct icm_call *, const char *, const char *,
		       struct icm_view **, struct stat *);
int icm_shared_link(struct icm_view *, const struct icm_call *, struct icm_view *, const char *,
		    struct icm_view **, struct stat *);
int icm_shared_unlink(struct icm_view *, const struct icm_call *, const char *);
int icm_shared_rmdir(struct icm_view *, const struct icm_call *, const char *);
int icm_shared_rename(struct icm_view *, const struct icm_call *, const char *, struct icm_view *,
		      const char *, unsigned);
int icm_shared_create(struct icm_view *, const struct icm_call *, const char *, mode_t, int,
		      struct icm_view **, struct stat *, struct icm_open_result *);
int icm_shared_getattr(struct icm_view *, const struct icm_call *, struct icm_handle *,
		       struct stat *);
int icm_shared_setattr(struct icm_view *, const struct icm_call *, struct icm_handle *, unsigned,
		       const struct stat *, struct stat *);
int icm_shared_readlink(struct icm_view *, const struct icm_call *, char **);
ssize_t icm_shared_getxattr(struct icm_view *, const struct icm_call *, const char *, void *,
			    size_t);
ssize_t icm_shared_listxattr(struct icm_view *, const struct icm_call *, char *, size_t);
int icm_shared_setxattr(struct icm_view *, const struct icm_call *, const char *, const void *,
			size_t, int);
int icm_shared_removexattr(struct icm_view *, const struct icm_call *, const char *);
int icm_shared_open(struct icm_view *, const struct icm_call *, int, struct icm_open_result *);
ssize_t icm_shared_read(struct icm_handle *, const struct icm_call *, void *, size_t, off_t);
ssize_t icm_shared_write(struct icm_handle *, const struct icm_call *, const void *, size_t, off_t,
			 bool);
bool icm_shared_flush_waits(struct icm_handle *);
int icm_shared_flush(struct icm_handle *, const struct icm_call *, uint64_t);
int icm_shared_fsync(struct icm_handle *, const struct icm_call *, bool);
void icm_shared_release(struct icm_handle *);
int icm_shared_fallocate(struct icm_handle *, const struct icm_call *, int, off_t, off_t);
off_t icm_shared_lseek(struct icm_handle *, const struct icm_call *, off_t, int);
int icm_shared_opendir(struct icm_view *, const struct icm_call *, struct icm_handle **);
int icm_shared_readdir(struct icm_handle *, const struct icm_call *, off_t, icm_dirent_fn, void *);
void icm_shared_releasedir(struct icm_handle *);
void icm_shared_free(struct icm_view *);

#endif
