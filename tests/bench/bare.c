/* SPDX-License-Identifier: MIT
 * The bare store: the transactions that icmfs makes, by SQLite alone.
 *
 *   bare copy STORE COPY       a copy of a store that may be in use
 *   bare learn STORE           the rows of its last transaction: key, flags, size
 *   bare serve STORE           reads lines "ROWS NAME NEW START COUNT FILE" from
 *                              standard input: writes such rows COUNT times,
 *                              durably, and the nanoseconds of each into FILE, and
 *                              answers with a line. NAME in the keys becomes NEW
 *                              and a number, from START on; blobs, versions and
 *                              feed records get keys of their own.
 *
 * Same schema (the store's own), same settings, same statements as
 * backends/sqlite, but SQLite's own checkpoints, every 1,000 pages in a commit.
 * Nothing is checked, nobody is told, no hash is computed. */
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define MAX_ROWS 64
#define KEY_SIZE 700

struct row {
	char key[600];
	long long flags;
	int size;
};

static struct row rows[MAX_ROWS];
static size_t n_rows;
static sqlite3 *db;

static _Noreturn void fail(const char *what)
{
	fprintf(stderr, "bare: %s: %s\n", what, db ? sqlite3_errmsg(db) : "");
	exit(1);
}

static long long now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000LL + ts.tv_nsec;
}

static unsigned long long random64(void)
{
	static unsigned long long x;

	if (!x)
		x = (unsigned long long)now_ns() | 1;
	x ^= x << 13;
	x ^= x >> 7;
	x ^= x << 17;
	return x;
}

static void random_bytes(unsigned char *buf, size_t size)
{
	for (size_t i = 0; i + sizeof(long long) <= size; i += sizeof(long long))
		memcpy(buf + i, &(unsigned long long){ random64() }, sizeof(long long));
}

static void open_db(const char *path, sqlite3 **ret)
{
	if (sqlite3_open_v2(path, ret,
			    SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX,
			    NULL) != SQLITE_OK)
		fail(path);
	sqlite3_busy_timeout(*ret, 10000);
}

static void exec(const char *sql)
{
	if (sqlite3_exec(db, sql, NULL, NULL, NULL) != SQLITE_OK)
		fail(sql);
}

static sqlite3_stmt *prepare(const char *sql)
{
	sqlite3_stmt *st;

	if (sqlite3_prepare_v3(db, sql, -1, SQLITE_PREPARE_PERSISTENT, &st, NULL) != SQLITE_OK)
		fail(sql);
	return st;
}

static void step(sqlite3_stmt *st)
{
	int rc = sqlite3_step(st);

	sqlite3_reset(st);
	if (rc != SQLITE_DONE)
		fail("a statement");
}

static long long store_index(void)
{
	sqlite3_stmt *st = prepare("SELECT idx FROM state");
	long long index = sqlite3_step(st) == SQLITE_ROW ? sqlite3_column_int64(st, 0) : -1;

	sqlite3_finalize(st);
	return index;
}

static void copy(const char *from, const char *to)
{
	sqlite3 *source;
	sqlite3_backup *backup;

	open_db(from, &source);
	open_db(to, &db);
	backup = sqlite3_backup_init(db, "main", source, "main");
	if (!backup || sqlite3_backup_step(backup, -1) != SQLITE_DONE)
		fail("backup");
	sqlite3_backup_finish(backup);
	sqlite3_close(source);
	exec("PRAGMA journal_mode = WAL");
}

static void learn(const char *path)
{
	sqlite3_stmt *st;

	open_db(path, &db);
	st = prepare("SELECT key, flags, length(value) FROM kv, state WHERE modified = idx"
		     " ORDER BY kv.id");
	while (sqlite3_step(st) == SQLITE_ROW)
		printf("%s\t%lld\t%d\n", sqlite3_column_text(st, 0), sqlite3_column_int64(st, 1),
		       sqlite3_column_int(st, 2));
	sqlite3_finalize(st);
}

static void read_rows(const char *path)
{
	FILE *f = fopen(path, "r");

	if (!f)
		fail(path);
	n_rows = 0;
	while (n_rows < MAX_ROWS && fscanf(f, "%599[^\t]\t%lld\t%d\n", rows[n_rows].key,
					   &rows[n_rows].flags, &rows[n_rows].size) == 3)
		n_rows++;
	fclose(f);
}

/* The key of a row in this transaction. */
static void make_key(char *key, size_t size, const struct row *row, const char *name,
		     const char *new_name, unsigned number, long long index)
{
	const char *at = strstr(row->key, name), *end = at ? at + strlen(name) : NULL;

	if (!strncmp(row->key, "blob/", 5))
		snprintf(key, size, "blob/%016llx%016llx%016llx%016llx", random64(), random64(),
			 random64(), random64());
	else if (!strncmp(row->key, "feed/", 5))
		snprintf(key, size, "feed/%016llx", random64());
	else if (at && !strncmp(row->key, "hist/", 5))
		snprintf(key, size, "%.*s%s%u%%v%020lld", (int)(at - row->key), row->key, new_name,
			 number, index);
	else if (at && !*end)
		snprintf(key, size, "%.*s%s%u", (int)(at - row->key), row->key, new_name, number);
	else
		snprintf(key, size, "%.599s", row->key);
}

static struct {
	sqlite3_stmt *begin, *set, *bump, *commit;
} st;

static void prepare_all(void)
{
	st.begin = prepare("BEGIN IMMEDIATE");
	st.set = prepare("INSERT INTO kv (key, flags, created, modified, value)"
			 " VALUES (?1, ?2, ?3, ?3, ?4) ON CONFLICT (key) DO UPDATE"
			 " SET flags = excluded.flags, modified = excluded.modified,"
			 " value = excluded.value"
			 " WHERE flags <> excluded.flags OR value <> excluded.value");
	st.bump = prepare("UPDATE state SET idx = ?1");
	st.commit = prepare("COMMIT");
}

/* One transaction; returns how long it took. */
static long long commit_rows(char (*keys)[KEY_SIZE], unsigned char *const *values, long long index)
{
	long long from = now_ns();

	step(st.begin);
	for (size_t r = 0; r < n_rows; r++) {
		sqlite3_bind_text(st.set, 1, keys[r], -1, SQLITE_STATIC);
		sqlite3_bind_int64(st.set, 2, rows[r].flags);
		sqlite3_bind_int64(st.set, 3, index);
		sqlite3_bind_blob(st.set, 4, values[r], rows[r].size, SQLITE_STATIC);
		step(st.set);
	}
	sqlite3_bind_int64(st.bump, 1, index);
	step(st.bump);
	step(st.commit);
	return now_ns() - from;
}

static void run(const char *name, const char *new_name, unsigned start, unsigned count, FILE *out)
{
	static char keys[MAX_ROWS][KEY_SIZE];
	unsigned char *values[MAX_ROWS];
	long long index = store_index();

	for (size_t r = 0; r < n_rows; r++)
		values[r] = malloc((size_t)rows[r].size + 8);
	for (unsigned i = 0; i < count; i++) {
		index++;
		for (size_t r = 0; r < n_rows; r++) {
			random_bytes(values[r], (size_t)rows[r].size + 8);
			make_key(keys[r], sizeof(keys[r]), &rows[r], name, new_name, start + i,
				 index);
		}
		fprintf(out, "%lld\n", commit_rows(keys, values, index));
	}
	for (size_t r = 0; r < n_rows; r++)
		free(values[r]);
}

/* In one process, as a daemon: what it has in its caches stays there. */
static void serve(const char *path)
{
	char line[4096], file[1024], name[64], new_name[64], out[1024];
	unsigned start, count;

	open_db(path, &db);
	/* as backends/sqlite, but for wal_autocheckpoint */
	exec("PRAGMA synchronous = FULL; PRAGMA cache_size = -2048;"
	     "PRAGMA journal_size_limit = 8388608; PRAGMA temp_store = MEMORY");
	prepare_all();
	while (fgets(line, sizeof(line), stdin) && strcmp(line, "quit\n")) {
		FILE *f;

		if (sscanf(line, "%1023s %63s %63s %u %u %1023s", file, name, new_name, &start,
			   &count, out) != 6)
			fail("what is asked for");
		read_rows(file);
		f = fopen(out, "w");
		if (!f)
			fail(out);
		run(name, new_name, start, count, f);
		fclose(f);
		puts("done");
		fflush(stdout);
	}
}

int main(int argc, char **argv)
{
	sqlite3_config(SQLITE_CONFIG_MEMSTATUS, 0);
	if (argc == 4 && !strcmp(argv[1], "copy")) {
		copy(argv[2], argv[3]);
	} else if (argc == 3 && !strcmp(argv[1], "learn")) {
		learn(argv[2]);
	} else if (argc == 3 && !strcmp(argv[1], "serve")) {
		serve(argv[2]);
	} else {
		fputs("usage: bare copy|learn|serve STORE …\n", stderr);
		return 2;
	}
	return 0;
}
