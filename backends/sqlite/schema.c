/* SPDX-License-Identifier: MIT
 * The database file: is it ours, do we understand it, and making a new one.
 * Nothing is written before the file is known to be ours or empty. */
#include "backends/sqlite/sqlite.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/statvfs.h>

#define refuse(r, ret_error, ...)                                                                  \
	({                                                                                         \
		*(ret_error) = icm_asprintf(__VA_ARGS__);                                          \
		(r);                                                                               \
	})

/* A table with rowid: values of half a megabyte stay out of the tree that is
 * searched by key. STRICT: what is read back has the type that was written. */
static const char schema[] =
	"CREATE TABLE kv ("
	" id INTEGER PRIMARY KEY,"
	" key TEXT NOT NULL UNIQUE,"
	" flags INTEGER NOT NULL,"
	" created INTEGER NOT NULL,"
	" modified INTEGER NOT NULL,"
	" value BLOB NOT NULL"
	") STRICT;"
	"CREATE TABLE state (id INTEGER PRIMARY KEY CHECK (id = 1), idx INTEGER NOT NULL) STRICT;"
	"CREATE TABLE lease ("
	" key TEXT PRIMARY KEY, boot TEXT NOT NULL, pid INTEGER NOT NULL, start INTEGER NOT NULL"
	") STRICT, WITHOUT ROWID;"
	"INSERT INTO state (id, idx) VALUES (1, 1);";

/* For a line to the user. */
static const char *why(int r)
{
	return r == -EHOSTUNREACH ? "another program keeps it locked" : strerror(-r);
}

static int read_number(struct connection *c, const char *query, int64_t *ret)
{
	sqlite3_stmt *st = NULL;
	int rc, r;

	rc = sqlite3_prepare_v2(c->db, query, -1, &st, NULL);
	if (rc != SQLITE_OK)
		return connection_error(c, rc);
	r = connection_step(c, st);
	if (r > 0)
		*ret = sqlite3_column_int64(st, 0);
	sqlite3_finalize(st);
	return r < 0 ? r : 0;
}

/* What tells one database from another. */
struct marks {
	int64_t id;
	int64_t version;
	int64_t objects;
};

/* In one transaction, if it isn't in one already: somebody may be making a
 * store of the file. */
static int read_marks(struct connection *c, struct marks *ret)
{
	bool begin = sqlite3_get_autocommit(c->db);
	int r = 0;

	if (begin)
		r = connection_run(c, ST_BEGIN);
	if (!r)
		r = read_number(c, "PRAGMA application_id", &ret->id);
	if (!r)
		r = read_number(c, "PRAGMA user_version", &ret->version);
	if (!r)
		r = read_number(c, "SELECT count(*) FROM sqlite_schema", &ret->objects);
	if (begin)
		connection_rollback(c);
	return r;
}

/* 1 = a store of ours, 0 = an empty database, negative = neither. */
static int identify(struct connection *c, const char *path, char **ret_error)
{
	struct marks m = { 0 };
	int r;

	r = read_marks(c, &m);
	if (r == -EPROTO)
		return refuse(r, ret_error, "\"%s\" is no icmfs store, or it is damaged", path);
	if (r)
		return refuse(r, ret_error, "cannot read \"%s\": %s", path, why(r));
	if (!m.id && !m.version && !m.objects)
		return 0;
	if (m.id != SQLITE_STORE_ID)
		return refuse(-EPROTO, ret_error, "\"%s\" is a database of another program", path);
	if (m.version != SQLITE_STORE_VERSION)
		return refuse(
			-EPROTO, ret_error,
			"\"%s\" has format %lld, this program knows format %d: use a newer icmfs",
			path, (long long)m.version, SQLITE_STORE_VERSION);
	return 1;
}

/* Fills an empty database, unless another process does. */
static int make(struct connection *c, const char *path, char **ret_error)
{
	ICM_AUTOFREE char *numbers =
		icm_asprintf("PRAGMA application_id = %d; PRAGMA user_version = %d",
			     SQLITE_STORE_ID, SQLITE_STORE_VERSION);
	int rc, r;

	rc = sqlite3_exec(c->db, "BEGIN IMMEDIATE", NULL, NULL, NULL);
	if (rc == SQLITE_OK) {
		r = identify(c, path, ret_error);
		if (r) {
			connection_rollback(c);
			return r < 0 ? r : 0;
		}
		rc = sqlite3_exec(c->db, schema, NULL, NULL, NULL);
	}
	if (rc == SQLITE_OK)
		rc = sqlite3_exec(c->db, numbers, NULL, NULL, NULL);
	if (rc == SQLITE_OK)
		rc = sqlite3_exec(c->db, "COMMIT", NULL, NULL, NULL);
	if (rc == SQLITE_OK)
		return 0;
	r = connection_error(c, rc);
	*ret_error = icm_asprintf("cannot make a store in \"%s\": %s", path, sqlite3_errmsg(c->db));
	connection_rollback(c);
	return r;
}

/* 1 = the file is in WAL mode now, 0 = it can't be. */
static int try_wal(struct connection *c)
{
	sqlite3_stmt *st = NULL;
	int rc, r;

	rc = sqlite3_prepare_v2(c->db, "PRAGMA journal_mode = WAL", -1, &st, NULL);
	if (rc != SQLITE_OK)
		return connection_error(c, rc);
	r = connection_step(c, st);
	if (r > 0)
		r = !strcmp((const char *)sqlite3_column_text(st, 0), "wal");
	sqlite3_finalize(st);
	return r;
}

static int use_wal(struct connection *c, const char *path, char **ret_error)
{
	struct timespec pause = icm_ns_to_timespec(ICM_NS_PER_MS);
	int r;

	/* Two who switch at once could wait for each other for ever: SQLite
	 * refuses without asking the busy handler. */
	while ((r = try_wal(c)) == -EHOSTUNREACH && icm_now_ns() < c->ctx->deadline_ns)
		nanosleep(&pause, NULL);
	if (r > 0)
		return 0;
	if (r == 0)
		return refuse(-EIO, ret_error,
			      "cannot use \"%s\": its file system has no shared memory for SQLite",
			      path);
	return refuse(r, ret_error, "cannot open \"%s\": %s", path, why(r));
}

/* A new file is private: a store holds secrets. */
static int create_file(const char *path, char **ret_error)
{
	int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

	if (fd >= 0) {
		close(fd);
		return 0;
	}
	if (errno == EEXIST)
		return 0;
	return refuse(errno == EACCES || errno == EROFS || errno == ENOSPC || errno == ENOENT
			      ? -errno
			      : -EIO,
		      ret_error, "cannot create \"%s\": %s", path, strerror(errno));
}

static int check_file(const char *path, const struct icm_open_options *options, char **ret_error)
{
	struct stat st;

	if (stat(path, &st) == 0)
		return S_ISREG(st.st_mode)
			       ? 0
			       : refuse(-EINVAL, ret_error, "\"%s\" is not a file", path);
	if (errno != ENOENT)
		return refuse(errno == EACCES ? -EACCES : -EIO, ret_error,
			      "cannot reach \"%s\": %s", path, strerror(errno));
	if (options->create && !options->read_only)
		return create_file(path, ret_error);
	return refuse(-ENOENT, ret_error, "store \"%s\" does not exist", path);
}

static int open_file(struct icm_sqlite *s, const char *path, const struct icm_ctx *ctx,
		     char **ret_error, struct connection **ret)
{
	bool read_only = s->be.facts.read_only;
	ICM_AUTOFREE char *uri = NULL;
	struct statvfs fs;
	int r;

	/* A WAL database needs its -shm, which nobody can make here; nobody can
	 * change the file either. */
	s->immutable = read_only && statvfs(path, &fs) == 0 && (fs.f_flag & ST_RDONLY);
	if (s->immutable) {
		uri = connection_immutable_uri(path);
		r = connection_open(uri, SQLITE_OPEN_READONLY | SQLITE_OPEN_URI, ctx, ret);
	} else {
		r = connection_open(path, read_only ? SQLITE_OPEN_READONLY : SQLITE_OPEN_READWRITE,
				    ctx, ret);
	}
	if (r == -EPROTO)
		return refuse(r, ret_error, "\"%s\" is no icmfs store, or it is damaged", path);
	if (r)
		return refuse(r, ret_error, "cannot open \"%s\": %s", path, why(r));
	return 0;
}

static int check_open(struct connection *c, const char *path,
		      const struct icm_open_options *options, char **ret_error)
{
	int r;

	/* Closing must not checkpoint another program's database. */
	sqlite3_db_config(c->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
	r = identify(c, path, ret_error);
	if (r < 0)
		return r;
	if (!options->read_only && sqlite3_db_readonly(c->db, "main"))
		return refuse(-EACCES, ret_error, "no permission to write \"%s\"", path);
	if (r == 0 && (!options->create || options->read_only))
		return refuse(-EPROTO, ret_error, "\"%s\" is empty: not a store yet", path);
	if (r == 0) {
		r = make(c, path, ret_error);
		if (r)
			return r;
	}
	sqlite3_db_config(c->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 0, NULL);
	return options->read_only ? 0 : use_wal(c, path, ret_error);
}

int schema_check(struct icm_sqlite *s, const char *path, const struct icm_open_options *options,
		 char **ret_error)
{
	struct icm_ctx ctx = { .deadline_ns = icm_now_ns() + SQLITE_OPEN_NS };
	struct connection *c = NULL;
	int r;

	r = check_file(path, options, ret_error);
	if (r)
		return r;
	r = open_file(s, path, &ctx, ret_error, &c);
	if (r)
		return r;
	r = check_open(c, path, options, ret_error);
	if (!r) {
		s->path = icm_xstrdup(s->immutable ? path : sqlite3_db_filename(c->db, "main"));
		s->wal_path = icm_asprintf("%s-wal", s->path);
		s->wake_path = icm_asprintf("%s-wake", s->path);
	}
	connection_close(c);
	return r;
}
