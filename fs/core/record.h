/* SPDX-License-Identifier: MIT
 * The values of keys: attributes, records, directory times, feed records,
 * history entries, snapshots, meta, lease and lock values, as compact JSON. Store contents
 * are untrusted: every decoder checks types, ranges and sizes, returns -EPROTO
 * for anything else, and never reads outside its bytes. Encoders can't fail.
 * Byte strings that may not be UTF-8 (names, link targets) are spelled as in
 * keys (percent-encoded); xattr values are base64. docs/data-model.md shows
 * each form with an example. Pure functions. */
#ifndef ICM_CORE_RECORD_H
#define ICM_CORE_RECORD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>
#include <time.h>

#include "util/attrs.h"
#include "util/buf.h"
#include "util/digest.h"

#define ICM_FORMAT_VERSION   1
#define ICM_INO_MAX	     (UINT64_C(1) << 52) /* numbers are below */
#define ICM_INO_ROOT	     1
#define ICM_INO_CONTROL	     2 /* .icmfs; up to 15 reserved */
#define ICM_INO_FIRST	     16
#define ICM_FILE_SIZE_MAX    (UINT64_C(3) << 30)   /* 3 GiB; EFBIG beyond */
#define ICM_CHUNK_BYTES	     (UINT64_C(512) << 10) /* of a large file */
#define ICM_PLAIN_MAX	     ((size_t)256 << 10)   /* largest plain file */
#define ICM_CHUNKS_MAX	     ((size_t)(ICM_FILE_SIZE_MAX / ICM_CHUNK_BYTES))
#define ICM_CHUNK_LIST_MAX   (ICM_CHUNKS_MAX * 80) /* bytes of a list of them */
#define ICM_CHUNKS_INLINE    16			   /* more: the list is a blob of its own */
#define ICM_XATTR_NAME_MAX   255
#define ICM_XATTR_VALUE_MAX  ((size_t)64 << 10)
#define ICM_XATTRS_MAX_BYTES ((size_t)128 << 10) /* of one file, names and values */
#define ICM_SYMLINK_MAX	     4095

/* Flags of a tree key. */
#define ICM_FLAGS_PLAIN	 UINT64_C(0)
#define ICM_FLAGS_RECORD UINT64_C(1)

struct icm_xattr {
	char *name;  /* owned; NUL-terminated */
	void *value; /* owned */
	size_t len;
};

/* Value of attr/<path> and of inode/<ino>. */
struct icm_attr {
	uint64_t ino;
	mode_t mode; /* type and permission bits */
	uid_t uid;
	gid_t gid;
	uint64_t size;	       /* bytes; files and symbolic links */
	uint64_t holes;	       /* bytes of a regular file that are in no blob; at most size */
	dev_t rdev;	       /* devices */
	struct timespec atime; /* set by utimensat and creation only */
	struct timespec mtime;
	struct timespec ctime;
	bool has_hash;
	struct icm_sha256 hash; /* regular files: of the tree key's value (bytes, or record) */
	bool linked;	/* attr/: one of several names; all but ino and type is in inode/<ino> */
	uint32_t nlink; /* inode/ only; else 1 */
	char id[ICM_ID_HEX + 1];  /* of the change that wrote it: never the same twice */
	char *mark;		  /* owned; id of a change in progress (change/<id>), or NULL */
	struct icm_xattr *xattrs; /* owned; sorted by name */
	size_t n_xattrs;
};

void icm_attr_clear(struct icm_attr *a);
static inline void icm_attrp(struct icm_attr *a)
{
	icm_attr_clear(a);
}
#define ICM_AUTOATTR ICM_CLEANUP(icm_attrp)
/* Deep copy into uninitialised *dst. */
void icm_attr_copy(struct icm_attr *dst, const struct icm_attr *src);
/* Fresh JSON to the caller. */
char *icm_attr_encode(const struct icm_attr *a, size_t *ret_len);
/* Decodes into *ret (uninitialised before; untouched on failure). */
int icm_attr_decode(const void *data, size_t len, struct icm_attr *ret) ICM_MUST_CHECK;
/* The xattr called `name`, or NULL; borrowed. */
const struct icm_xattr *icm_attr_xattr(const struct icm_attr *a, const char *name);
/* Sets (value copied) or, with value NULL, removes an xattr, keeping the order. */
void icm_attr_set_xattr(struct icm_attr *a, const char *name, const void *value, size_t len);

/* Value of tree/<path>/ */
struct icm_dir_times {
	struct timespec mtime;
	struct timespec ctime;
	char id[ICM_ID_HEX + 1]; /* the generation: fresh with each change of names */
};
char *icm_dir_times_encode(const struct icm_dir_times *t, size_t *ret_len);
int icm_dir_times_decode(const void *data, size_t len, struct icm_dir_times *ret) ICM_MUST_CHECK;

/* Value of tree/<path> with ICM_FLAGS_RECORD. */
enum icm_record_form {
	ICM_RECORD_CHUNKS = 1, /* a regular file of chunks */
	ICM_RECORD_SYMLINK,
	ICM_RECORD_SPECIAL, /* fifo, socket, device; which: the attr */
	ICM_RECORD_LINK,    /* one of several names; contents: the record in inode/<ino> */
};

/* One chunk of ICM_CHUNK_BYTES (the last may be shorter). */
struct icm_chunk {
	bool hole; /* all zero, no blob */
	struct icm_sha256 sum;
};

struct icm_record {
	enum icm_record_form form;
	uint64_t ino;		  /* link */
	uint64_t size;		  /* chunks */
	struct icm_chunk *chunks; /* owned; size / ICM_CHUNK_BYTES rounded up */
	size_t n_chunks;
	bool list_is_blob; /* the list is in blob/<list>, one icm_chunks_encode() value */
	struct icm_sha256 list;
	char *target; /* owned; symlink */
};

void icm_record_clear(struct icm_record *r);
static inline void icm_recordp(struct icm_record *r)
{
	icm_record_clear(r);
}
#define ICM_AUTORECORD ICM_CLEANUP(icm_recordp)
char *icm_record_encode(const struct icm_record *r, size_t *ret_len);
/* With list_is_blob, chunks stays NULL and n_chunks 0: fetch the blob and decode it. */
int icm_record_decode(const void *data, size_t len, struct icm_record *ret) ICM_MUST_CHECK;
/* A list of chunks as a blob of its own. `want` = the number the size demands. */
char *icm_chunks_encode(const struct icm_chunk *chunks, size_t n, size_t *ret_len);
int icm_chunks_decode(const void *data, size_t len, size_t want,
		      struct icm_chunk **ret_chunks) ICM_MUST_CHECK;
static inline size_t icm_chunk_count(uint64_t size)
{
	return (size_t)((size + ICM_CHUNK_BYTES - 1) / ICM_CHUNK_BYTES);
}

/* Value of inode/<ino>: attributes and, for a regular file, its contents: a
 * record, or plain bytes up to ICM_PLAIN_MAX that stand in blob/<hash>. */
struct icm_inode_value {
	struct icm_attr attr;
	bool has_record; /* chunks, symlink or special; else contents are blob/<attr.hash> */
	struct icm_record record;
};
void icm_inode_value_clear(struct icm_inode_value *v);
char *icm_inode_value_encode(const struct icm_inode_value *v, size_t *ret_len);
int icm_inode_value_decode(const void *data, size_t len,
			   struct icm_inode_value *ret) ICM_MUST_CHECK;

/* What happened to one name; also the word in the JSON. */
enum icm_change_op {
	ICM_CHANGE_CREATE = 1, /* path came to be, with attr */
	ICM_CHANGE_WRITE,      /* new contents, with attr */
	ICM_CHANGE_ATTR,       /* attributes only, with attr */
	ICM_CHANGE_REMOVE,     /* path went */
	ICM_CHANGE_RENAME,     /* path -> to, replacing what was there, with attr of the moved */
	ICM_CHANGE_EXCHANGE,   /* path <-> to; attr of what is at path now */
	ICM_CHANGE_LINK,       /* to is a further name of path; attr: the inode's, nlink new */
};

struct icm_change {
	enum icm_change_op op;
	char *path;	      /* owned */
	char *to;	      /* owned; rename, exchange, link; else NULL */
	struct timespec time; /* new mtime and ctime of the directories concerned */
	bool has_attr;
	struct icm_attr attr; /* for linked files the inode's attributes (linked = true) */
	uint32_t left;	      /* remove or replaced by rename: names left of a linked file */
	bool piecewise;	      /* rename: what is below moved before, key by key (change.h) */
};

/* Value of feed/<id>: one transaction. */
struct icm_feed_record {
	char id[ICM_ID_HEX + 1];
	struct timespec time;
	char *host; /* owned */
	char *user; /* owned */
	uint64_t pid;
	char *program;		    /* owned; "" when unknown */
	char *lease;		    /* owned; lease key of the mount */
	struct icm_change *changes; /* owned */
	size_t n_changes;
};
#define ICM_FEED_CHANGES_MAX 65536

void icm_change_clear(struct icm_change *c);
void icm_feed_record_clear(struct icm_feed_record *f);
char *icm_feed_record_encode(const struct icm_feed_record *f, size_t *ret_len);
int icm_feed_record_decode(const void *data, size_t len,
			   struct icm_feed_record *ret) ICM_MUST_CHECK;
/* "create", "write", … */
const char *icm_change_op_name(enum icm_change_op op);

/* Value of log/<index>: feed records with their indexes, oldest first. */
struct icm_log_segment {
	struct icm_feed_record *records; /* owned */
	uint64_t *indexes;		 /* owned; ascending */
	size_t n;
};
void icm_log_segment_clear(struct icm_log_segment *s);
char *icm_log_segment_encode(const struct icm_log_segment *s, size_t *ret_len);
int icm_log_segment_decode(const void *data, size_t len,
			   struct icm_log_segment *ret) ICM_MUST_CHECK;

/* Value of change/<id>: a directory is being moved key by key (change.h). */
struct icm_change_value {
	char id[ICM_ID_HEX + 1];
	struct timespec time; /* of the rename */
	char *host, *user;    /* owned; whose it is */
	uint64_t pid;
	char *program; /* owned; "" when unknown */
	char *lease;   /* owned; lease key of the mount that is at it */
	char *path;    /* owned; the directory */
	char *to;      /* owned; what it becomes: neither is below the other */
	bool replaces; /* there is an empty directory at `to` */
};
void icm_change_value_clear(struct icm_change_value *v);
char *icm_change_value_encode(const struct icm_change_value *v, size_t *ret_len);
int icm_change_value_decode(const void *data, size_t len,
			    struct icm_change_value *ret) ICM_MUST_CHECK;

/* Value of hist/<path>%v<index>: a version that was replaced. */
struct icm_hist {
	struct icm_attr attr; /* of that version */
	bool plain;	      /* bytes in blob/<attr.hash>, else the record below */
	struct icm_record record;
	struct timespec until; /* when it was replaced */
	char *host;	       /* owned; by whom */
	char *user;	       /* owned */
};
void icm_hist_clear(struct icm_hist *h);
char *icm_hist_encode(const struct icm_hist *h, size_t *ret_len);
int icm_hist_decode(const void *data, size_t len, struct icm_hist *ret) ICM_MUST_CHECK;

/* Value of snap/<name>: a snapshot. */
struct icm_snap {
	char id[ICM_ID_HEX + 1];
	struct timespec time;	  /* when it was made */
	char *host;		  /* owned; by whom */
	char *user;		  /* owned */
	uint64_t index;		  /* of the store whose state it shows */
	uint64_t files;		  /* names in it, the root not counted */
	uint64_t bytes;		  /* of its regular files */
	struct icm_sha256 *parts; /* owned; the blobs of its manifest, in order */
	size_t n_parts;
};
#define ICM_SNAP_PARTS_MAX 4096
void icm_snap_clear(struct icm_snap *s);
char *icm_snap_encode(const struct icm_snap *s, size_t *ret_len);
int icm_snap_decode(const void *data, size_t len, struct icm_snap *ret) ICM_MUST_CHECK;

/* One name in the manifest of a snapshot. */
struct icm_snap_entry {
	char *path; /* owned; "" = the root */
	/* As in attr/, or for linked files as in inode/; a directory's times are
	 * those of tree/<path>/. */
	struct icm_attr attr;
	bool has_record; /* else a directory, or bytes with the hash in attr */
	struct icm_record record;
};
void icm_snap_entry_clear(struct icm_snap_entry *e);
/* Attributes, record and path fit each other: what a decoder accepts. */
bool icm_snap_entry_is_valid(const struct icm_snap_entry *e);
/* Fresh JSON of one entry. */
char *icm_snap_entry_encode(const struct icm_snap_entry *e, size_t *ret_len);

/* A part of a manifest: "[" entries with "," between "]". A directory stands
 * before what is in it, here or in an earlier part. */
struct icm_snap_part {
	struct icm_snap_entry *v; /* owned */
	size_t n;
};
void icm_snap_part_clear(struct icm_snap_part *p);
char *icm_snap_part_encode(const struct icm_snap_part *p, size_t *ret_len);
int icm_snap_part_decode(const void *data, size_t len, struct icm_snap_part *ret) ICM_MUST_CHECK;

/* Value of meta. */
struct icm_meta {
	uint32_t format; /* ICM_FORMAT_VERSION; newer ones are decoded as far as this */
	char *name;	 /* owned; of the deployment, may be "" */
	struct timespec created;
};
void icm_meta_clear(struct icm_meta *m);
char *icm_meta_encode(const struct icm_meta *m, size_t *ret_len);
int icm_meta_decode(const void *data, size_t len, struct icm_meta *ret) ICM_MUST_CHECK;

/* Value of lease/<id>: which mount it is. */
struct icm_lease_value {
	char *host;    /* owned */
	char *boot_id; /* owned */
	uint64_t pid;
	char *user;	  /* owned */
	char *mountpoint; /* owned; percent-encoded in JSON */
	struct timespec since;
	uint64_t counter;	 /* grows with each rewrite by the owner */
	char id[ICM_ID_HEX + 1]; /* fresh with each rewrite */
};
void icm_lease_value_clear(struct icm_lease_value *v);
char *icm_lease_value_encode(const struct icm_lease_value *v, size_t *ret_len);
int icm_lease_value_decode(const void *data, size_t len,
			   struct icm_lease_value *ret) ICM_MUST_CHECK;

/* Value of lock/<ino>: the locks of a file, and who waits for them. */
#define ICM_LOCK_VALUE_MAX ((size_t)256 << 10)

struct icm_lock_mount {
	char *lease; /* owned; lease key of the mount: its entries are void when that is gone */
	char *host;  /* owned */
	char *user;  /* owned; who has mounted */
};

struct icm_lock_entry {
	char id[ICM_ID_HEX + 1]; /* of the request; fresh */
	unsigned mount;		 /* whose; number in `mounts` */
	bool flock;		 /* else a record lock (POSIX or OFD) */
	bool paused;		 /* queue: interrupted a moment ago; keeps its place only */
	int type;		 /* F_RDLCK, F_WRLCK */
	uint64_t start, end;	 /* bytes; a flock covers all */
	uint64_t owner;		 /* within the mount; of a flock: its handle */
	uint64_t handle;	 /* open file, within the mount */
	uint64_t pid;		 /* on the mount's host; 0 = not known */
	char command[64];
	struct timespec since;
};

struct icm_lock_entries {
	struct icm_lock_entry *v; /* owned */
	size_t n;
};

struct icm_lock_value {
	struct icm_lock_mount *mounts; /* owned */
	size_t n_mounts;
	struct icm_lock_entries holders;
	struct icm_lock_entries queue; /* in order of arrival */
};
void icm_lock_value_clear(struct icm_lock_value *v);
/* *to is overwritten; to be cleared. */
void icm_lock_value_copy(struct icm_lock_value *to, const struct icm_lock_value *from);
/* Texts are copied; the mount's number is returned. */
unsigned icm_lock_value_add_mount(struct icm_lock_value *v, const char *lease, const char *host,
				  const char *user);
char *icm_lock_value_encode(const struct icm_lock_value *v, size_t *ret_len);
int icm_lock_value_decode(const void *data, size_t len, struct icm_lock_value *ret) ICM_MUST_CHECK;

#endif
