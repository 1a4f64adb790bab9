/* SPDX-License-Identifier: MIT
 * The SQLite driver's inside. One database file in WAL mode is the store:
 *
 *   kv(id, key, flags, created, modified, value)    the keys
 *   state(id = 1, idx)                              the store's index
 *   lease(key, boot, pid, start)                    whose death ends which key
 *
 * Writers take turns at one connection per instance, readers share a pool and
 * never wait for writers. Beside the file stand SQLite's own -wal and -shm and
 * our -wake: who watches holds a shared lock on it, and a commit opens it when
 * somebody else does, so that their watches wake. */
#ifndef ICM_BACKENDS_SQLITE_SQLITE_H
#define ICM_BACKENDS_SQLITE_SQLITE_H

#include <pthread.h>
#include <sqlite3.h>
#include <sys/types.h>

#include "backends/backend.h"
#include "util/clock.h"
#include "util/digest.h"

#define SQLITE_STORE_ID	     0x49434d46 /* application_id: "ICMF" */
#define SQLITE_STORE_VERSION 1		/* user_version */

/* How long opening waits for somebody else's lock. */
#define SQLITE_OPEN_NS (30 * ICM_NS_PER_S)

/* ---- connections (connection.c) ---- */

enum statement {
	ST_BEGIN,
	ST_BEGIN_WRITE,
	ST_COMMIT,
	ST_ROLLBACK,
	ST_INDEX,
	ST_BUMP,
	ST_GET,
	ST_MODIFIED,
	ST_LIST,
	ST_KEYS,
	ST_SET,
	ST_DELETE,
	ST_LEASES,
	ST_LEASE_ADD,
	ST_LEASE_DELETE,
	N_STATEMENTS,
};

struct connection {
	sqlite3 *db;				/* owned */
	sqlite3_stmt *statements[N_STATEMENTS]; /* owned; made when first used */
	const struct icm_ctx *ctx;		/* of the call that uses it, for the busy handler */
	bool cancelled;		 /* the busy handler gave up because of ctx->cancel */
	struct connection *next; /* in the pool */
};

/* Who a process is, beyond the reuse of its pid. */
struct identity {
	char boot[40]; /* the kernel's boot id */
	pid_t pid;
	int64_t start; /* clock ticks after boot */
};

/* The watches of an instance (watch.c). One of the blocked threads, the leader,
 * waits for the kernel's events for all of them. */
struct hub {
	pthread_mutex_t lock; /* protects everything below */
	pthread_cond_t turn;  /* CLOCK_MONOTONIC; generation or leader changed */
	bool armed;
	bool leader;
	uint64_t generation; /* counts the leader's wake-ups and icm_backend_wake() */
	unsigned own;	     /* blocked watches that want changes of this instance as well */
	int event_fd;	     /* wakes the leader */
	int wake_fd;	     /* -wake, with a shared lock: somebody watches here; -1 = none */
	int wake_inotify;    /* on -wake: commits */
	int wake_wd;	     /* -1 = not watched */
	int wal_inotify;     /* on -wal: writes of commits to come */
	int wal_wd;
	unsigned stage;	 /* of the looks after a write to the WAL */
	int64_t look_ns; /* when the next one is due; 0 = none */
};

struct icm_sqlite {
	struct icm_backend be;
	char *path;		    /* owned; with links resolved */
	char *wal_path;		    /* owned */
	char *wake_path;	    /* owned */
	bool immutable;		    /* on a read-only file system */
	struct identity self;	    /* set by start */
	char nonce[ICM_ID_HEX + 1]; /* begins the names of this instance's leases */
	atomic_uint n_leases;	    /* that were made */

	pthread_mutex_t lock;	     /* protects: */
	pthread_cond_t reader_freed; /* both by CLOCK_MONOTONIC */
	pthread_cond_t writer_freed;
	struct connection *idle; /* owned */
	unsigned n_readers;	 /* idle or in use */
	unsigned n_writers_waiting;
	bool writer_busy;

	struct connection *writer; /* owned; used by who set writer_busy */
	atomic_uint wal_pages;	   /* in the WAL after the last commit here */
	atomic_uint wal_copied;	   /* of them in the database by the last checkpoint */
	atomic_flag maintaining;
	struct hub hub;
};

static inline struct icm_sqlite *sqlite_of(struct icm_backend *be)
{
	return ICM_CONTAINER(be, struct icm_sqlite, be);
}

/* Opens a connection with the driver's settings; `flags` of sqlite3_open_v2.
 * It stays lent to `ctx`. */
int connection_open(const char *path, int flags, const struct icm_ctx *ctx,
		    struct connection **ret);
void connection_close(struct connection *c);
/* A URI for a file that nobody changes. */
char *connection_immutable_uri(const char *path);

/* A reader from the pool; waits when all are in use (-EHOSTUNREACH at the deadline). */
int reader_take(struct icm_sqlite *s, const struct icm_ctx *ctx, struct connection **ret);
/* For a read of a few rows: the writer, if nobody writes or wants to. Its page
 * cache outlives its own commits, a reader's has to be filled anew after each. */
int short_reader_take(struct icm_sqlite *s, const struct icm_ctx *ctx, struct connection **ret);
/* What either of the two gave. */
void reader_give(struct icm_sqlite *s, struct connection *c);
/* The writer, likewise. */
int writer_take(struct icm_sqlite *s, const struct icm_ctx *ctx, struct connection **ret);
void writer_give(struct icm_sqlite *s);

/* The error code for a result of SQLite's. */
int connection_error(struct connection *c, int rc);
/* Runs a statement without parameters and rows. */
int connection_run(struct connection *c, enum statement which);
/* A statement ready to bind; NULL: connection_error(c, sqlite3_errcode(c->db)). */
int connection_prepare(struct connection *c, enum statement which, sqlite3_stmt **ret);
/* 1 = a row, 0 = the end, negative = error. */
int connection_step(struct connection *c, sqlite3_stmt *st);
/* COMMIT; -ETIMEDOUT when nobody can tell whether it took place. */
int connection_commit(struct connection *c);
/* Ends whatever transaction there is. */
void connection_rollback(struct connection *c);
/* The store's index. */
int connection_index(struct connection *c, uint64_t *ret_index);

static inline void statement_resetp(sqlite3_stmt **st)
{
	if (*st) {
		sqlite3_reset(*st);
		sqlite3_clear_bindings(*st);
	}
}
#define STATEMENT_AUTO ICM_CLEANUP(statement_resetp)

/* ---- the file (schema.c) ---- */

/* Checks that there is a store that this program understands, makes one when
 * asked. Leaves no connection open. */
int schema_check(struct icm_sqlite *s, const char *path, const struct icm_open_options *options,
		 char **ret_error);

/* ---- keys and transactions (txn.c) ---- */

/* The first string behind all that start with `prefix`. */
char *prefix_end(const char *prefix);
/* Appends the keys of a range. */
int range_read(struct connection *c, const char *prefix, bool keys_only, size_t op,
	       struct icm_entries *list);
/* -ENOENT when absent. */
int key_read(struct connection *c, const char *key, size_t op, struct icm_entry *ret);
/* *changed is set, never cleared. */
int key_set(struct connection *c, const struct icm_op *op, uint64_t index, bool *changed);
int key_delete(struct connection *c, const char *key, bool *changed);

/* Takes the writer and begins; *ret_index is what the changes will get. On
 * success write_end() must follow, with the result so far: commits for 0. */
int write_begin(struct icm_sqlite *s, const struct icm_ctx *ctx, struct connection **ret,
		uint64_t *ret_index);
int write_end(struct icm_sqlite *s, struct connection *c, uint64_t index, bool changed, int r);

int sqlite_txn(struct icm_backend *be, const struct icm_ctx *ctx, const struct icm_op *ops,
	       size_t n_ops, struct icm_txn_result *result);

int sqlite_index(struct icm_backend *be, const struct icm_ctx *ctx, const char *prefix,
		 uint64_t *ret_index);

/* ---- leases (lease.c) ---- */

int identity_of_self(struct identity *ret);
/* Removes dead leases, if `prefix` reaches any of them. */
int lease_reap_prefix(struct icm_sqlite *s, const struct icm_ctx *ctx, const char *prefix);
/* The same for one key. */
int lease_reap_key(struct icm_sqlite *s, const struct icm_ctx *ctx, const char *key);
static inline bool lease_key(const char *key)
{
	return !__builtin_strncmp(key, "lease/", 6);
}

int sqlite_lease_open(struct icm_backend *be, const struct icm_ctx *ctx, uint32_t ttl_ms,
		      const void *value, size_t len, struct icm_lease *ret_lease);
int sqlite_lease_renew(struct icm_backend *be, const struct icm_ctx *ctx,
		       const struct icm_lease *lease);
int sqlite_lease_close(struct icm_backend *be, const struct icm_ctx *ctx,
		       const struct icm_lease *lease);

/* ---- watches (watch.c) ---- */

int watch_init(struct icm_sqlite *s);
void watch_deinit(struct icm_sqlite *s);
/* Says that a change is visible now. */
void watch_poke(struct icm_sqlite *s);
int sqlite_watch(struct icm_backend *be, const struct icm_ctx *ctx, const char *prefix,
		 uint64_t since, uint64_t *ret_index);
void sqlite_wake(struct icm_backend *be);

#endif
