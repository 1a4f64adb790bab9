/* SPDX-License-Identifier: MIT
 * Connections: prepared statements, waiting for locks up to a deadline, error
 * codes, the pool of readers and the turn of writers. */
#include "backends/sqlite/sqlite.h"

#include <assert.h>
#include <string.h>

#include "util/clock.h"
#include "util/log.h"

/* Reads take microseconds, so a few connections serve any number of threads;
 * each costs a page cache of 256 KiB and about 100 KiB more. */
#define MAX_READERS 8

static const char *const sql[N_STATEMENTS] = {
	[ST_BEGIN] = "BEGIN",
	[ST_BEGIN_WRITE] = "BEGIN IMMEDIATE",
	[ST_COMMIT] = "COMMIT",
	[ST_ROLLBACK] = "ROLLBACK",
	[ST_INDEX] = "SELECT idx FROM state",
	[ST_BUMP] = "UPDATE state SET idx = ?1",
	[ST_GET] = "SELECT key, value, flags, created, modified FROM kv WHERE key = ?1",
	[ST_MODIFIED] = "SELECT modified FROM kv WHERE key = ?1",
	[ST_LIST] = "SELECT key, value, flags, created, modified FROM kv"
		    " WHERE key >= ?1 AND key < ?2 ORDER BY key",
	[ST_KEYS] = "SELECT key, NULL, flags, created, modified FROM kv"
		    " WHERE key >= ?1 AND key < ?2 ORDER BY key",
	/* What changes nothing keeps the index and costs no commit. */
	[ST_SET] =
		"INSERT INTO kv (key, flags, created, modified, value)"
		" VALUES (?1, ?2, ?3, ?3, ?4) ON CONFLICT (key) DO UPDATE"
		" SET flags = excluded.flags, modified = excluded.modified, value = excluded.value"
		" WHERE flags <> excluded.flags OR value <> excluded.value",
	[ST_DELETE] = "DELETE FROM kv WHERE key = ?1",
	[ST_LEASES] = "SELECT key, boot, pid, start FROM lease WHERE key >= ?1 AND key < ?2",
	[ST_LEASE_ADD] = "INSERT INTO lease (key, boot, pid, start) VALUES (?1, ?2, ?3, ?4)",
	[ST_LEASE_DELETE] = "DELETE FROM lease WHERE key = ?1",
};

/* ---- one connection ---- */

/* Another process has the lock. Waits a little longer each time, so that a
 * short transaction is not waited for long and a long one not asked often. */
static int on_busy(void *userdata, int count)
{
	struct connection *c = userdata;
	int64_t now = icm_now_ns(), deadline = c->ctx ? c->ctx->deadline_ns : 0;
	int64_t pause = (INT64_C(50000) << (count < 7 ? count : 7)) + (now & 0x3fff);
	struct timespec ts;

	if (c->ctx && c->ctx->cancel && atomic_load(c->ctx->cancel)) {
		c->cancelled = true;
		return 0;
	}
	if (deadline && now >= deadline)
		return 0;
	if (deadline && pause > deadline - now)
		pause = deadline - now;
	ts = icm_ns_to_timespec(pause);
	nanosleep(&ts, NULL);
	return 1;
}

int connection_open(const char *path, int flags, const struct icm_ctx *ctx, struct connection **ret)
{
	struct connection *c = icm_xcalloc(1, sizeof(*c));
	int rc;

	c->ctx = ctx;
	rc = sqlite3_open_v2(path, &c->db, flags | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_EXRESCODE,
			     NULL);
	if (rc == SQLITE_OK) {
		sqlite3_busy_handler(c->db, on_busy, c);
		sqlite3_db_config(c->db, SQLITE_DBCONFIG_LOOKASIDE, NULL, 512, 32);
		/* A foreign file's schema runs nothing here. */
		sqlite3_db_config(c->db, SQLITE_DBCONFIG_ENABLE_TRIGGER, 0, NULL);
		sqlite3_db_config(c->db, SQLITE_DBCONFIG_ENABLE_VIEW, 0, NULL);
		sqlite3_db_config(c->db, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, NULL);
		rc = sqlite3_exec(c->db, "PRAGMA cache_size = -256; PRAGMA temp_store = MEMORY",
				  NULL, NULL, NULL);
	}
	if (rc != SQLITE_OK) {
		rc = connection_error(c, rc);
		connection_close(c);
		return rc;
	}
	*ret = c;
	return 0;
}

void connection_close(struct connection *c)
{
	if (!c)
		return;
	for (size_t i = 0; i < N_STATEMENTS; i++)
		sqlite3_finalize(c->statements[i]);
	sqlite3_close(c->db);
	free(c);
}

char *connection_immutable_uri(const char *path)
{
	struct icm_buf b = ICM_BUF_INIT(0);

	icm_buf_addstr(&b, "file:");
	for (; *path; path++)
		icm_buf_addf(&b, strchr("%?#", *path) ? "%%%02x" : "%c", (unsigned char)*path);
	icm_buf_addstr(&b, "?immutable=1");
	return icm_buf_steal(&b, NULL);
}

static bool out_of_space(int error)
{
	/* EFBIG: the file size limit of this process */
	return error == ENOSPC || error == EDQUOT || error == EFBIG;
}

/* The errno behind a failure. SQLite keeps it for some calls only, a failed
 * write to the WAL is kept with the file. */
static int system_error(struct connection *c, int rc)
{
	sqlite3_file *wal = NULL;
	int error = errno;

	if (c->db && sqlite3_system_errno(c->db))
		return sqlite3_system_errno(c->db);
	if (rc == SQLITE_IOERR_WRITE &&
	    sqlite3_file_control(c->db, "main", SQLITE_FCNTL_JOURNAL_POINTER, &wal) == SQLITE_OK &&
	    wal && wal->pMethods)
		wal->pMethods->xFileControl(wal, SQLITE_FCNTL_LAST_ERRNO, &error);
	return error;
}

int connection_error(struct connection *c, int rc)
{
	int error = system_error(c, rc);

	icm_log_debug("sqlite: %s (%d, errno %d)", sqlite3_errstr(rc), rc, error);
	switch (rc & 0xff) {
	case SQLITE_BUSY:
	case SQLITE_LOCKED:
	case SQLITE_PROTOCOL: /* the same, noticed in the WAL's locks */
		return c->cancelled ? -ECANCELED : -EHOSTUNREACH;
	case SQLITE_FULL:
		return -ENOSPC;
	case SQLITE_IOERR:
		return out_of_space(error) ? -ENOSPC : -EIO;
	case SQLITE_CORRUPT:
	case SQLITE_NOTADB:
	case SQLITE_ERROR:	/* the schema is not ours */
	case SQLITE_CONSTRAINT: /* likewise */
	case SQLITE_MISMATCH:
	case SQLITE_SCHEMA:
		return -EPROTO;
	case SQLITE_READONLY:
		return -EROFS;
	case SQLITE_PERM:
	case SQLITE_AUTH:
		return -EACCES;
	case SQLITE_CANTOPEN:
		return error == EACCES || error == EPERM ? -EACCES : -EIO;
	case SQLITE_TOOBIG:
		return -EFBIG;
	default:
		return -EIO;
	}
}

int connection_prepare(struct connection *c, enum statement which, sqlite3_stmt **ret)
{
	int rc;

	if (!c->statements[which]) {
		rc = sqlite3_prepare_v3(c->db, sql[which], -1, SQLITE_PREPARE_PERSISTENT,
					&c->statements[which], NULL);
		if (rc != SQLITE_OK)
			return connection_error(c, rc);
	}
	*ret = c->statements[which];
	return 0;
}

int connection_step(struct connection *c, sqlite3_stmt *st)
{
	int rc = sqlite3_step(st);

	if (rc == SQLITE_ROW)
		return 1;
	return rc == SQLITE_DONE ? 0 : connection_error(c, rc);
}

int connection_run(struct connection *c, enum statement which)
{
	STATEMENT_AUTO sqlite3_stmt *st = NULL;
	int r = connection_prepare(c, which, &st);

	return r ? r : connection_step(c, st);
}

int connection_commit(struct connection *c)
{
	STATEMENT_AUTO sqlite3_stmt *st = NULL;
	int rc, r;

	r = connection_prepare(c, ST_COMMIT, &st);
	if (r)
		return r;
	rc = sqlite3_step(st);
	if (rc == SQLITE_DONE)
		return 0;
	r = connection_error(c, rc);
	/* Without room the last frame, which makes the rest count, can't be in
	 * the WAL. After any other failure (fsync) it may be, and the next
	 * process that recovers the WAL would bring the transaction back. */
	if (rc == SQLITE_FULL || (rc == SQLITE_IOERR_WRITE && r == -ENOSPC))
		return r;
	return -ETIMEDOUT;
}

void connection_rollback(struct connection *c)
{
	/* SQLite ends a transaction by itself after some errors. */
	if (!sqlite3_get_autocommit(c->db))
		connection_run(c, ST_ROLLBACK);
}

int connection_index(struct connection *c, uint64_t *ret_index)
{
	STATEMENT_AUTO sqlite3_stmt *st = NULL;
	int64_t index;
	int r;

	r = connection_prepare(c, ST_INDEX, &st);
	if (!r)
		r = connection_step(c, st);
	if (r < 0)
		return r;
	index = r ? sqlite3_column_int64(st, 0) : 0;
	if (index < 1)
		return -EPROTO;
	*ret_index = (uint64_t)index;
	return 0;
}

/* ---- taking turns ---- */

static bool wait_locked(struct icm_sqlite *s, const struct icm_ctx *ctx, pthread_cond_t *freed)
{
	struct timespec ts = icm_ns_to_timespec(ctx->deadline_ns);

	if (!ctx->deadline_ns) {
		pthread_cond_wait(freed, &s->lock);
		return true;
	}
	return pthread_cond_timedwait(freed, &s->lock, &ts) != ETIMEDOUT;
}

static void lend(struct connection *c, const struct icm_ctx *ctx)
{
	c->ctx = ctx;
	c->cancelled = false;
}

/* A connection of the pool's, or NULL with the right to make one more. */
static int reader_slot(struct icm_sqlite *s, const struct icm_ctx *ctx, struct connection **ret)
{
	ICM_LOCK_SCOPE(&s->lock);
	while (!s->idle && s->n_readers >= MAX_READERS)
		if (!wait_locked(s, ctx, &s->reader_freed) && !s->idle &&
		    s->n_readers >= MAX_READERS)
			return -EHOSTUNREACH;
	*ret = s->idle;
	if (s->idle)
		s->idle = s->idle->next;
	else
		s->n_readers++;
	return 0;
}

static int reader_open(struct icm_sqlite *s, const struct icm_ctx *ctx, struct connection **ret)
{
	ICM_AUTOFREE char *uri = NULL;

	if (s->immutable) {
		uri = connection_immutable_uri(s->path);
		return connection_open(uri, SQLITE_OPEN_READONLY | SQLITE_OPEN_URI, ctx, ret);
	}
	return connection_open(s->path,
			       s->be.facts.read_only ? SQLITE_OPEN_READONLY : SQLITE_OPEN_READWRITE,
			       ctx, ret);
}

int reader_take(struct icm_sqlite *s, const struct icm_ctx *ctx, struct connection **ret)
{
	struct connection *c = NULL;
	int r;

	r = reader_slot(s, ctx, &c);
	if (r)
		return r;
	if (!c) {
		r = reader_open(s, ctx, &c);
		if (r) {
			ICM_LOCK_SCOPE(&s->lock);
			s->n_readers--;
			pthread_cond_signal(&s->reader_freed);
			return r;
		}
		/* checkpoints are maintain()'s, and nobody's who reads */
		sqlite3_wal_autocheckpoint(c->db, 0);
	}
	lend(c, ctx);
	*ret = c;
	return 0;
}

int short_reader_take(struct icm_sqlite *s, const struct icm_ctx *ctx, struct connection **ret)
{
	pthread_mutex_lock(&s->lock);
	if (s->writer && !s->writer_busy && !s->n_writers_waiting) {
		s->writer_busy = true;
		lend(s->writer, ctx);
		*ret = s->writer;
		pthread_mutex_unlock(&s->lock);
		return 0;
	}
	pthread_mutex_unlock(&s->lock);
	return reader_take(s, ctx, ret);
}

void reader_give(struct icm_sqlite *s, struct connection *c)
{
	if (c == s->writer) {
		writer_give(s);
		return;
	}
	c->ctx = NULL;
	ICM_LOCK_SCOPE(&s->lock);
	c->next = s->idle;
	s->idle = c;
	pthread_cond_signal(&s->reader_freed);
}

int writer_take(struct icm_sqlite *s, const struct icm_ctx *ctx, struct connection **ret)
{
	bool in_time = true;
	ICM_LOCK_SCOPE(&s->lock);

	s->n_writers_waiting++;
	while (s->writer_busy && in_time)
		in_time = wait_locked(s, ctx, &s->writer_freed);
	s->n_writers_waiting--;
	if (s->writer_busy)
		return -EHOSTUNREACH;
	s->writer_busy = true;
	lend(s->writer, ctx);
	*ret = s->writer;
	return 0;
}

void writer_give(struct icm_sqlite *s)
{
	s->writer->ctx = NULL;
	ICM_LOCK_SCOPE(&s->lock);
	s->writer_busy = false;
	pthread_cond_signal(&s->writer_freed);
}
