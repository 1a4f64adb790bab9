/* SPDX-License-Identifier: MIT
 * THE store interface: a versioned, transactional key-value store with leases.
 * A driver knows nothing of files; all meaning of keys is in fs/core, except
 * that a lease owns one key below "lease/".
 *
 * Keys are non-empty strings of the bytes 0x20 to 0x7e, relative to the store's
 * prefix ("tree/a/b"); "//", "..", a trailing '/' and '%' are ordinary. Values
 * are any bytes. Each key has 64 bits of flags, a create index and a modify
 * index. Indexes are positive, grow with every transaction that changes
 * anything, and all keys of one transaction get the same one.
 *
 * Contract in words (the conformance suite in tests/conformance states it in
 * code, source: docs/data-model.md and Consul's transaction API):
 * - A transaction is all or nothing, in the order of its operations; it sees
 *   its own writes. All its preconditions are judged against it that way.
 * - A `set` or `cas` that changes neither value nor flags may keep the key's
 *   index. Who needs a new index writes a value never used before.
 * - `delete` and `delete-cas` of a missing key succeed.
 * - A `get` of a missing key makes its whole transaction fail (-ESTALE, reason
 *   ABSENT); `get-tree` of nothing gives no entries.
 * - Failure with anything but -ETIMEDOUT means: certainly not applied.
 *   -ETIMEDOUT of a writing transaction means: unknown, and it may still be
 *   applied later. -EHOSTUNREACH means that nothing was sent.
 *
 * Threads: unless said otherwise every operation may run in any thread at once
 * on one instance. Results are owned by the caller. `ret_*` are untouched on
 * failure. Only the icm_backend_*() functions below call a driver's table.
 *
 * Error vocabulary: -ENOENT key or lease absent; -ESTALE a precondition did not
 * hold; -EACCES the store's rules say no; -EROFS store opened read-only;
 * -ETIMEDOUT, -EHOSTUNREACH as above; -EFBIG over a stated limit; -ENOSPC
 * store full; -EPROTO malformed answer or damaged store; -ECANCELED the
 * context was cancelled; -ENOTSUP; -EINVAL (open only: bad URL or option);
 * -EIO anything else of the store. */
#ifndef ICM_BACKENDS_BACKEND_H
#define ICM_BACKENDS_BACKEND_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "util/attrs.h"
#include "util/buf.h"

struct icm_backend;
struct icm_url; /* url.h */

/* How one call is to be carried out. NULL where a context is taken means
 * ICM_CTX_DEFAULT: no deadline, default consistency. */
struct icm_ctx {
	int64_t deadline_ns;	   /* CLOCK_MONOTONIC; 0 = none */
	bool consistent;	   /* reads see every write acknowledged before the call */
	const atomic_bool *cancel; /* may be NULL; looked at when icm_backend_wake() is called */
	bool others; /* of a watch: changes made through this very instance may be told late */
};

/* One key as read. */
struct icm_entry {
	char *key;   /* owned; relative to the store's prefix */
	void *value; /* owned; NULL where only keys were asked for */
	size_t len;  /* bytes of value */
	uint64_t flags;
	uint64_t create_index;
	uint64_t modify_index;
	size_t op; /* number of the transaction's operation that read it */
};

struct icm_entries {
	struct icm_entry *v; /* owned */
	size_t n;
};

void icm_entry_clear(struct icm_entry *e);
void icm_entries_clear(struct icm_entries *list);
/* Appends and returns a zeroed entry; the pointer is valid until the next append. */
struct icm_entry *icm_entries_add(struct icm_entries *list);
static inline void icm_entriesp(struct icm_entries *list)
{
	icm_entries_clear(list);
}
static inline void icm_entryp(struct icm_entry *e)
{
	icm_entry_clear(e);
}
#define ICM_AUTOENTRIES ICM_CLEANUP(icm_entriesp)
#define ICM_AUTOENTRY	ICM_CLEANUP(icm_entryp)

enum icm_op_type {
	ICM_OP_GET,	     /* reads key; fails the transaction when absent */
	ICM_OP_GET_TREE,     /* reads every key that starts with `key`, in byte order */
	ICM_OP_CHECK_INDEX,  /* key exists with modify index `index` */
	ICM_OP_CHECK_ABSENT, /* key does not exist */
	ICM_OP_SET,	     /* value and flags, whatever was there */
	ICM_OP_CAS,	     /* as set, if modify index is `index`; 0 = if absent */
	ICM_OP_DELETE,	     /* absent is fine */
	ICM_OP_DELETE_CAS,   /* if absent, or its modify index is `index` */
};

/* One operation of a transaction. Everything is borrowed for the call. */
struct icm_op {
	enum icm_op_type type;
	const char *key;
	const void *value; /* set, cas */
	size_t len;
	uint64_t flags; /* set, cas */
	uint64_t index; /* check-index, cas, delete-cas */
};

enum icm_op_reason {
	ICM_REASON_INDEX = 1, /* index differs from the one expected */
	ICM_REASON_ABSENT,    /* key had to exist */
	ICM_REASON_EXISTS,    /* key had to be absent */
	ICM_REASON_DENIED,    /* the store's rules say no (the call returns -EACCES) */
};

/* An operation that refused. A driver reports at least the first; it may
 * report all that it found. */
struct icm_op_error {
	size_t op; /* number of the operation, from 0 */
	enum icm_op_reason reason;
};

struct icm_txn_result {
	/* Of this transaction's writes; 0 when it wrote nothing. A store that doesn't
	 * tell gives 0 for deletions alone and for one value of its own. */
	uint64_t index;
	struct icm_entries entries;  /* of get and get-tree, in order of operations */
	struct icm_op_error *errors; /* owned; when -ESTALE or -EACCES was returned */
	size_t n_errors;
};

void icm_txn_result_clear(struct icm_txn_result *r);
static inline void icm_txn_resultp(struct icm_txn_result *r)
{
	icm_txn_result_clear(r);
}
#define ICM_AUTORESULT ICM_CLEANUP(icm_txn_resultp)
/* Adds an error; for drivers. */
void icm_txn_result_error(struct icm_txn_result *r, size_t op, enum icm_op_reason reason);

/* How far an advisory lock in this store reaches. */
enum icm_lock_scope { ICM_LOCK_NONE, ICM_LOCK_HOST, ICM_LOCK_CLUSTER };

/* What an open instance is and can; fixed after open. 0 = no limit known. */
struct icm_facts {
	size_t max_value_bytes; /* one value, in a transaction of its own */
	size_t max_txn_ops;
	size_t max_txn_bytes; /* sum of icm_backend_op_cost() over the operations */
	size_t max_key_bytes;
	uint32_t lease_ttl_min_ms;
	uint32_t lease_ttl_max_ms;
	bool lease_renewal; /* false: a lease lasts as long as its process */
	bool local;	    /* calls last as long as local disk I/O and never wait for a host */
	bool read_only;
	bool foreign_writers; /* programs that aren't icmfs may write: watches of "tree/" tell of
			       * it, with the index of the last change below exactly that prefix */
	enum icm_lock_scope lock_scope;
	const char *note; /* static; what is weaker here than usual, for the user; or NULL */
};

/* A lease: a key "lease/<id>" that vanishes when the lease ends. A name once
 * used is never used again. */
struct icm_lease {
	char *key;	 /* owned; "lease/<id>" */
	uint64_t index;	 /* modify index of the key when it was made */
	uint32_t ttl_ms; /* as granted */
};

void icm_lease_clear(struct icm_lease *l);

struct icm_usage {
	uint64_t total_bytes; /* size of what the store lives on; 0 = unknown */
	uint64_t free_bytes;
	uint64_t used_bytes; /* of this store */
};

struct icm_open_options {
	bool read_only;
	bool create; /* make the store's container (file, directory) when missing */
};

/* The table of a driver. One per driver, constant; each driver exports only
 * this (backends/registry.c lists them). */
struct icm_backend_ops {
	const char *name;	    /* "sqlite" */
	const char *const *schemes; /* URL schemes, NULL-terminated */
	const char *summary;	    /* one line for --help */

	/* Before the daemon forks: checks the URL, reaches the store once, sets
	 * facts. Starts no threads and keeps nothing that a fork breaks. On
	 * failure *ret_error is a fresh line for the user that the caller owns. */
	int (*open)(const struct icm_url *url, const struct icm_open_options *options,
		    struct icm_backend **ret_be, char **ret_error);
	/* After the fork, once, before any other operation. */
	int (*start)(struct icm_backend *be);
	/* Frees everything; takes an instance that was never started as well.
	 * No other call may be under way. */
	void (*close)(struct icm_backend *be);

	/* Reads one key. -ENOENT when it is absent. */
	int (*get)(struct icm_backend *be, const struct icm_ctx *ctx, const char *key,
		   struct icm_entry *ret_entry);
	/* All keys that start with `prefix`, in byte order, as one consistent
	 * view, and the view's index (>= every modify index in it). With
	 * keys_only, flags and indexes are 0 where the store doesn't tell them. */
	int (*list)(struct icm_backend *be, const struct icm_ctx *ctx, const char *prefix,
		    bool keys_only, struct icm_entries *ret_entries, uint64_t *ret_index);
	/* An index that has grown whenever anything under `prefix` was changed
	 * or deleted; cheap. */
	int (*index)(struct icm_backend *be, const struct icm_ctx *ctx, const char *prefix,
		     uint64_t *ret_index);
	/* The transaction; see the contract above. `result` is zeroed by the
	 * caller's wrapper; its errors are also set when -ESTALE is returned. */
	int (*txn)(struct icm_backend *be, const struct icm_ctx *ctx, const struct icm_op *ops,
		   size_t n_ops, struct icm_txn_result *result);
	/* Blocks until something under `prefix` has an index other than
	 * `since`, the deadline passes (-ETIMEDOUT) or the context is cancelled
	 * (-ECANCELED after wake). May return early; may not miss a change. A
	 * store that went away and came back is waited for; -EHOSTUNREACH may be
	 * returned meanwhile, after a pause of the driver's own. */
	int (*watch)(struct icm_backend *be, const struct icm_ctx *ctx, const char *prefix,
		     uint64_t since, uint64_t *ret_index);
	/* Makes every blocked watch look at its context's cancel flag. */
	void (*wake)(struct icm_backend *be);

	/* Opens a lease whose key has this value. ttl_ms outside the facts'
	 * range: -EINVAL. */
	int (*lease_open)(struct icm_backend *be, const struct icm_ctx *ctx, uint32_t ttl_ms,
			  const void *value, size_t len, struct icm_lease *ret_lease);
	/* Prolongs a lease; -ENOENT when it is over. No-op without lease_renewal,
	 * except for that check. */
	int (*lease_renew)(struct icm_backend *be, const struct icm_ctx *ctx,
			   const struct icm_lease *lease);
	/* Ends a lease: its key vanishes before the call returns. Ending one that
	 * is over is fine. */
	int (*lease_close)(struct icm_backend *be, const struct icm_ctx *ctx,
			   const struct icm_lease *lease);

	/* May be NULL (answered as unknown). */
	int (*usage)(struct icm_backend *be, const struct icm_ctx *ctx, struct icm_usage *ret);
	/* Bytes that one operation counts against max_txn_bytes; NULL: key + value. */
	size_t (*op_cost)(struct icm_backend *be, const struct icm_op *op);
	/* Upkeep that nobody waits for (a WAL checkpoint); called by the core's
	 * watch thread after changes. May be NULL. */
	void (*maintain)(struct icm_backend *be);
};

/* The instance. A driver embeds it first in its own structure. */
struct icm_backend {
	const struct icm_backend_ops *ops;
	struct icm_facts facts; /* set by open */
	char *url;		/* owned; canonical, without secrets; set by icm_backend_open */
};

/* Opens the store that `url` names. *ret_error (may be NULL) as in ops->open. */
int icm_backend_open(const char *url, const struct icm_open_options *options,
		     struct icm_backend **ret_be, char **ret_error) ICM_MUST_CHECK;
int icm_backend_start(struct icm_backend *be) ICM_MUST_CHECK;
/* Takes NULL; returns NULL. */
struct icm_backend *icm_backend_close(struct icm_backend *be);

int icm_backend_get(struct icm_backend *be, const struct icm_ctx *ctx, const char *key,
		    struct icm_entry *ret_entry) ICM_MUST_CHECK;
int icm_backend_list(struct icm_backend *be, const struct icm_ctx *ctx, const char *prefix,
		     bool keys_only, struct icm_entries *ret_entries,
		     uint64_t *ret_index) ICM_MUST_CHECK;
int icm_backend_index(struct icm_backend *be, const struct icm_ctx *ctx, const char *prefix,
		      uint64_t *ret_index) ICM_MUST_CHECK;
/* *result is overwritten; clear it afterwards whatever was returned. */
int icm_backend_txn(struct icm_backend *be, const struct icm_ctx *ctx, const struct icm_op *ops,
		    size_t n_ops, struct icm_txn_result *result) ICM_MUST_CHECK;
int icm_backend_watch(struct icm_backend *be, const struct icm_ctx *ctx, const char *prefix,
		      uint64_t since, uint64_t *ret_index) ICM_MUST_CHECK;
void icm_backend_wake(struct icm_backend *be);
int icm_backend_lease_open(struct icm_backend *be, const struct icm_ctx *ctx, uint32_t ttl_ms,
			   const void *value, size_t len,
			   struct icm_lease *ret_lease) ICM_MUST_CHECK;
int icm_backend_lease_renew(struct icm_backend *be, const struct icm_ctx *ctx,
			    const struct icm_lease *lease) ICM_MUST_CHECK;
int icm_backend_lease_close(struct icm_backend *be, const struct icm_ctx *ctx,
			    const struct icm_lease *lease);
/* Zeroes where the driver can't tell. */
int icm_backend_usage(struct icm_backend *be, const struct icm_ctx *ctx, struct icm_usage *ret);
size_t icm_backend_op_cost(struct icm_backend *be, const struct icm_op *op);
void icm_backend_maintain(struct icm_backend *be);

/* The drivers compiled in, NULL-terminated. */
extern const struct icm_backend_ops *const icm_backends[];

#endif
