/* SPDX-License-Identifier: MIT
 * The SQLite driver's table: opening, reading, upkeep. */
#include "backends/sqlite/sqlite.h"

#include <assert.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#include "backends/url.h"
#include "util/clock.h"
#include "util/digest.h"

/* In pages of 4 KiB. Below the first the WAL is left alone; from the second on
 * writers wait until it is emptied, so that it stays bounded even if there is
 * always a reader who uses it. */
#define WAL_COPY_PAGES	1024
#define WAL_EMPTY_PAGES 16384
#define WAL_EMPTY_NS	(200 * ICM_NS_PER_MS)

#define START_NS (30 * ICM_NS_PER_S)

static pthread_once_t configured = PTHREAD_ONCE_INIT;

static void configure(void)
{
	/* Its statistics take a global lock at every allocation. Refused when
	 * SQLite runs already; then it is only slower. */
	sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0);
}

/* Wide, but bounded: what the file says is never the reason for a larger
 * allocation, and a transaction's pages stay in the WAL, not in memory. */
static const struct icm_facts facts = {
	.max_value_bytes = 16 << 20,
	.max_txn_ops = 200000,
	.max_txn_bytes = 128 << 20,
	.max_key_bytes = 16384,
	.local = true,
	.lock_scope = ICM_LOCK_HOST,
};

static int open_store(const struct icm_url *url, const struct icm_open_options *options,
		      struct icm_backend **ret_be, char **ret_error)
{
	struct icm_sqlite *s = icm_xcalloc(1, sizeof(*s));
	pthread_condattr_t attr;
	int r;

	pthread_once(&configured, configure);
	s->be.facts = facts;
	s->be.facts.read_only = options->read_only;
	r = schema_check(s, url->path, options, ret_error);
	if (r) {
		free(s);
		return r;
	}
	pthread_mutex_init(&s->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&s->reader_freed, &attr);
	pthread_cond_init(&s->writer_freed, &attr);
	pthread_condattr_destroy(&attr);
	atomic_flag_clear(&s->maintaining);
	watch_init(s);
	*ret_be = &s->be;
	return 0;
}

static int on_commit(void *userdata, sqlite3 *db, const char *name, int pages)
{
	struct icm_sqlite *s = userdata;

	atomic_store(&s->wal_pages, (unsigned)pages);
	return SQLITE_OK;
}

static int start_writer(struct icm_sqlite *s)
{
	struct icm_ctx ctx = { .deadline_ns = icm_now_ns() + SQLITE_OPEN_NS };
	int rc, r;

	r = connection_open(s->path, SQLITE_OPEN_READWRITE, &ctx, &s->writer);
	if (r)
		return r;
	/* FULL: a commit is on the disk before it is acknowledged. */
	rc = sqlite3_exec(s->writer->db,
			  "PRAGMA synchronous = FULL; PRAGMA cache_size = -2048;"
			  "PRAGMA journal_size_limit = 8388608; PRAGMA wal_autocheckpoint = 0;",
			  NULL, NULL, NULL);
	sqlite3_wal_hook(s->writer->db, on_commit, s);
	/* Reading makes this connection hold the file: nobody else's close is
	 * the last one and takes the WAL away. */
	r = rc == SQLITE_OK ? connection_index(s->writer, &(uint64_t){ 0 })
			    : connection_error(s->writer, rc);
	s->writer->ctx = NULL;
	return r;
}

static int start_store(struct icm_backend *be)
{
	struct icm_ctx ctx = { .deadline_ns = icm_now_ns() + SQLITE_OPEN_NS };
	struct icm_sqlite *s = sqlite_of(be);
	struct connection *c;
	int r;

	s->hub.event_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
	icm_random_id(s->nonce);
	if (s->hub.event_fd < 0 || identity_of_self(&s->self))
		return -EIO;
	if (!be->facts.read_only)
		return start_writer(s);
	r = reader_take(s, &ctx, &c);
	if (r)
		return r;
	r = connection_index(c, &(uint64_t){ 0 });
	reader_give(s, c);
	return r;
}

static void close_store(struct icm_backend *be)
{
	struct icm_sqlite *s = sqlite_of(be);
	bool started = s->hub.event_fd >= 0;
	struct connection *c;

	while ((c = s->idle)) {
		s->idle = c->next;
		connection_close(c);
	}
	/* The last close of the file copies the WAL and removes it. */
	connection_close(s->writer);
	if (started && !be->facts.read_only && access(s->wal_path, F_OK) < 0)
		unlink(s->wake_path);
	watch_deinit(s);
	pthread_cond_destroy(&s->reader_freed);
	pthread_cond_destroy(&s->writer_freed);
	pthread_mutex_destroy(&s->lock);
	free(s->path);
	free(s->wal_path);
	free(s->wake_path);
	free(s);
}

/* ---- reading ---- */

static int get(struct icm_backend *be, const struct icm_ctx *ctx, const char *key,
	       struct icm_entry *ret_entry)
{
	struct icm_sqlite *s = sqlite_of(be);
	struct connection *c;
	int r = 0;

	if (lease_key(key))
		r = lease_reap_key(s, ctx, key);
	if (!r)
		r = short_reader_take(s, ctx, &c);
	if (r)
		return r;
	r = key_read(c, key, 0, ret_entry);
	reader_give(s, c);
	return r;
}

static int list(struct icm_backend *be, const struct icm_ctx *ctx, const char *prefix,
		bool keys_only, struct icm_entries *ret_entries, uint64_t *ret_index)
{
	struct icm_sqlite *s = sqlite_of(be);
	struct connection *c;
	int r;

	r = lease_reap_prefix(s, ctx, prefix);
	if (!r)
		r = reader_take(s, ctx, &c);
	if (r)
		return r;
	/* one snapshot for the keys and their index */
	r = connection_run(c, ST_BEGIN);
	if (!r)
		r = connection_index(c, ret_index);
	if (!r)
		r = range_read(c, prefix, keys_only, 0, ret_entries);
	connection_rollback(c);
	reader_give(s, c);
	return r;
}

int sqlite_index(struct icm_backend *be, const struct icm_ctx *ctx, const char *prefix,
		 uint64_t *ret_index)
{
	struct icm_sqlite *s = sqlite_of(be);
	struct connection *c;
	int r;

	r = short_reader_take(s, ctx, &c);
	if (r)
		return r;
	r = connection_index(c, ret_index);
	reader_give(s, c);
	return r;
}

/* ---- upkeep ---- */

static int usage(struct icm_backend *be, const struct icm_ctx *ctx, struct icm_usage *ret)
{
	struct icm_sqlite *s = sqlite_of(be);
	struct statvfs fs;
	struct stat st;

	if (statvfs(s->path, &fs) == 0) {
		ret->total_bytes = (uint64_t)fs.f_blocks * fs.f_frsize;
		ret->free_bytes = (uint64_t)fs.f_bavail * fs.f_frsize;
	}
	if (stat(s->path, &st) == 0)
		ret->used_bytes = (uint64_t)st.st_size;
	if (stat(s->wal_path, &st) == 0)
		ret->used_bytes += (uint64_t)st.st_size;
	return 0;
}

/* Copies what the WAL has into the database, beside readers and writers. */
static void copy_wal(struct icm_sqlite *s, const struct icm_ctx *ctx)
{
	struct connection *c;
	int copied = 0;

	if (reader_take(s, ctx, &c))
		return;
	if (sqlite3_wal_checkpoint_v2(c->db, NULL, SQLITE_CHECKPOINT_PASSIVE, NULL, &copied) ==
		    SQLITE_OK &&
	    copied >= 0)
		atomic_store(&s->wal_copied, (unsigned)copied);
	reader_give(s, c);
}

/* Copies what was written meanwhile, with the writers kept out: only a WAL that
 * is copied to its end is begun anew by the next commit, and to overwrite it
 * costs half of what it costs to let it grow. */
static void finish_wal(struct icm_sqlite *s, const struct icm_ctx *ctx)
{
	struct connection *c;
	int copied = 0;

	if (writer_take(s, ctx, &c))
		return;
	if (sqlite3_wal_checkpoint_v2(c->db, NULL, SQLITE_CHECKPOINT_PASSIVE, NULL, &copied) ==
		    SQLITE_OK &&
	    copied >= 0)
		atomic_store(&s->wal_copied, (unsigned)copied);
	writer_give(s);
}

/* Empties it, with the writers kept out. */
static void empty_wal(struct icm_sqlite *s, const struct icm_ctx *ctx)
{
	struct connection *c;

	if (writer_take(s, ctx, &c))
		return;
	if (sqlite3_wal_checkpoint_v2(c->db, NULL, SQLITE_CHECKPOINT_TRUNCATE, NULL, NULL) ==
	    SQLITE_OK) {
		atomic_store(&s->wal_pages, 0);
		atomic_store(&s->wal_copied, 0);
	}
	writer_give(s);
}

static void maintain(struct icm_backend *be)
{
	struct icm_sqlite *s = sqlite_of(be);
	unsigned pages = atomic_load(&s->wal_pages), copied = atomic_load(&s->wal_copied);
	struct icm_ctx ctx = { 0 };

	/* fewer than were copied: it was begun anew since then */
	if (be->facts.read_only || (pages >= copied ? pages - copied : pages) < WAL_COPY_PAGES ||
	    atomic_flag_test_and_set(&s->maintaining))
		return;
	ctx.deadline_ns = icm_now_ns() + WAL_EMPTY_NS;
	copy_wal(s, &ctx);
	finish_wal(s, &ctx);
	if (pages >= WAL_EMPTY_PAGES) {
		ctx.deadline_ns = icm_now_ns() + WAL_EMPTY_NS;
		empty_wal(s, &ctx);
	}
	atomic_flag_clear(&s->maintaining);
}

static const char *const schemes[] = { "sqlite", NULL };

extern const struct icm_backend_ops icm_backend_sqlite;
const struct icm_backend_ops icm_backend_sqlite = {
	.name = "sqlite",
	.schemes = schemes,
	.summary = "one SQLite file; several mounts on one host",
	.open = open_store,
	.start = start_store,
	.close = close_store,
	.get = get,
	.list = list,
	.index = sqlite_index,
	.txn = sqlite_txn,
	.watch = sqlite_watch,
	.wake = sqlite_wake,
	.lease_open = sqlite_lease_open,
	.lease_renew = sqlite_lease_renew,
	.lease_close = sqlite_lease_close,
	.usage = usage,
	.maintain = maintain,
};
