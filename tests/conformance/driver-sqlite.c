/* SPDX-License-Identifier: MIT
 * The SQLite store's file: what is refused, what a full disk, a lock and a
 * foreign hand do to it. */
#include "store.h"

#include <fcntl.h>
#include <sched.h>
#include <signal.h>
#include <sqlite3.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

TestSuite(sqlite, .init = store_setup_closed, .fini = store_teardown, .timeout = 120);

static const char *file(void)
{
	return store_url + strlen("sqlite:");
}

/* SQL by a connection that is not the driver's. */
static void sql(const char *path, const char *text)
{
	sqlite3 *db = NULL;

	must_be(sqlite3_open(path, &db), SQLITE_OK);
	must_be(sqlite3_exec(db, text, NULL, NULL, NULL), SQLITE_OK);
	must_be(sqlite3_close(db), SQLITE_OK);
}

static void write_file(const char *path, const char *data, size_t len)
{
	FILE *f = fopen(path, "w");

	must(f);
	must_be(fwrite(data, 1, len, f), len);
	must_be(fclose(f), 0);
}

static char *read_file(const char *path, size_t *ret_len)
{
	struct icm_buf b = ICM_BUF_INIT(0);
	char chunk[4096];
	FILE *f = fopen(path, "r");
	size_t n;

	must(f);
	while ((n = fread(chunk, 1, sizeof(chunk), f)) > 0)
		icm_buf_add(&b, chunk, n);
	fclose(f);
	return icm_buf_steal(&b, ret_len);
}

/* Opening fails with this code and a line that has `words`; the file stays. */
static void refused(bool create, int code, const char *words)
{
	struct icm_open_options options = { .create = create };
	ICM_AUTOFREE char *before = NULL, *after = NULL, *error = NULL;
	struct icm_backend *b = NULL;
	size_t len = 0, now = 0;

	if (access(file(), F_OK) == 0)
		before = read_file(file(), &len);
	cr_assert_eq(icm_backend_open(store_url, &options, &b, &error), code);
	cr_assert_not_null(error);
	cr_assert_not_null(strstr(error, words), "\"%s\" has \"%s\"", error, words);
	cr_assert_null(strchr(error, '\n'));
	if (!before) {
		cr_assert(access(file(), F_OK) < 0);
		return;
	}
	after = read_file(file(), &now);
	cr_assert(now == len && !memcmp(before, after, len), "the file is untouched");
}

/* ---- what is refused ---- */

Test(sqlite, a_missing_file)
{
	refused(false, -ENOENT, "does not exist");
}

Test(sqlite, a_missing_directory)
{
	free(store_url);
	store_url = icm_asprintf("sqlite:%s/none/store.icmfs", store_dir);
	refused(true, -ENOENT, "cannot create");
}

Test(sqlite, a_directory)
{
	struct icm_backend *b = NULL;
	ICM_AUTOFREE char *error = NULL;

	cr_assert_eq(mkdir(file(), 0700), 0);
	cr_assert_eq(icm_backend_open(store_url, NULL, &b, &error), -EINVAL);
	cr_assert_not_null(strstr(error, "is not a file"));
}

Test(sqlite, a_file_that_is_no_database)
{
	static char junk[10000];

	memset(junk, 'j', sizeof(junk));
	write_file(file(), junk, sizeof(junk));
	refused(true, -EPROTO, "no icmfs store");
	write_file(file(), "short", 5);
	refused(true, -EPROTO, "no icmfs store");
}

Test(sqlite, an_empty_file_unless_a_store_may_be_made)
{
	write_file(file(), "", 0);
	refused(false, -EPROTO, "not a store yet");
	be = store_open();
	put(be, "k", "x");
}

Test(sqlite, a_database_of_another_program)
{
	sql(file(), "CREATE TABLE t (x); PRAGMA user_version = 1");
	refused(true, -EPROTO, "another program");
}

Test(sqlite, a_wal_database_of_another_program)
{
	sql(file(), "PRAGMA journal_mode = WAL; CREATE TABLE t (x); PRAGMA application_id = 7");
	refused(true, -EPROTO, "another program");
}

Test(sqlite, a_newer_format)
{
	be = store_open();
	be = icm_backend_close(be);
	sql(file(), "PRAGMA user_version = 2");
	refused(true, -EPROTO, "newer icmfs");
}

Test(sqlite, a_store_without_its_tables)
{
	struct icm_backend *b = NULL;

	be = store_open();
	be = icm_backend_close(be);
	sql(file(), "DROP TABLE state");
	cr_assert_eq(icm_backend_open(store_url, NULL, &b, NULL), 0);
	cr_assert_eq(icm_backend_start(b), -EPROTO);
	icm_backend_close(b);
}

Test(sqlite, damage_is_told)
{
	struct icm_entry e = { 0 };
	char junk[4096];
	int fd, r = 0;

	be = store_open();
	for (int i = 0; i < 50; i++) {
		ICM_AUTOFREE char *key = icm_asprintf("k%d", i);

		put(be, key, "some value that is there");
	}
	be = icm_backend_close(be);
	memset(junk, 0xa5, sizeof(junk));
	fd = open(file(), O_WRONLY);
	for (off_t page = 1; page < 8; page++)
		if (page != 3)
			cr_assert_gt(pwrite(fd, junk, sizeof(junk), page * 4096), 0);
	close(fd);
	if (icm_backend_open(store_url, NULL, &be, NULL))
		return;
	r = icm_backend_start(be);
	if (!r)
		r = icm_backend_get(be, NULL, "k1", &e);
	cr_assert_eq(r, -EPROTO);
}

Test(sqlite, rows_that_break_the_contract_are_damage)
{
	struct icm_entry e = { 0 };

	be = store_open();
	put(be, "k", "x");
	sql(file(), "UPDATE kv SET created = -1");
	cr_assert_eq(icm_backend_get(be, NULL, "k", &e), -EPROTO);
	sql(file(), "UPDATE state SET idx = 0");
	cr_assert_eq(DO(be, OP_SET("k", "y")), -EPROTO);
}

/* ---- files ---- */

static mode_t mode_of(const char *suffix)
{
	ICM_AUTOFREE char *path = icm_asprintf("%s%s", file(), suffix);
	struct stat st;

	return stat(path, &st) < 0 ? 0 : st.st_mode & 0777;
}

Test(sqlite, a_new_store_is_private_and_leaves_one_file)
{
	be = store_open();
	put(be, "k", "x");
	cr_assert_eq(mode_of(""), 0600);
	cr_assert_eq(mode_of("-wake"), 0600);
	be = icm_backend_close(be);
	cr_assert_eq(mode_of("-wake"), 0);
	cr_assert_eq(mode_of("-wal"), 0);
	cr_assert_eq(mode_of("-shm"), 0);
}

Test(sqlite, the_wake_file_may_be_touched_by_who_may_write_the_store)
{
	be = store_open();
	be = icm_backend_close(be);
	cr_assert_eq(chmod(file(), 0666), 0);
	be = store_open();
	put(be, "k", "x");
	cr_assert_eq(mode_of("-wake"), 0666);
}

Test(sqlite, a_link_leads_to_the_same_store)
{
	ICM_AUTOFREE char *link = icm_asprintf("%s/link", store_dir);
	ICM_AUTOFREE char *target = icm_xstrdup(file());
	struct icm_backend *other;
	uint64_t since;

	be = store_open();
	since = put(be, "k", "x");
	cr_assert_eq(symlink(target, link), 0);
	free(store_url);
	store_url = icm_asprintf("sqlite:%s", link);
	other = store_open();
	cr_assert(has(other, "k", "x"));
	put(other, "k", "y");
	cr_assert_eq(icm_backend_watch(be, NULL, "", since, &since), 0);
	cr_assert(has(be, "k", "y"));
	icm_backend_close(other);
}

Test(sqlite, the_log_stays_bounded_with_upkeep)
{
	static char value[65536];
	ICM_AUTOFREE char *wal = icm_asprintf("%s-wal", file());
	struct icm_op op = { .type = ICM_OP_SET, .key = "k", .value = value, .len = sizeof(value) };
	struct stat st;

	be = store_open();
	for (int i = 0; i < 500; i++) {
		memset(value, i, sizeof(value));
		cr_assert_eq(DO(be, op), 0);
		icm_backend_maintain(be);
	}
	cr_assert_eq(stat(wal, &st), 0);
	cr_assert_lt(st.st_size, 12 << 20);
}

/* ---- no room ---- */

static int fill(int from, int to)
{
	static char value[65536];
	int r = 0;

	for (int i = from; i < to && !r; i++) {
		char key[2][32];
		struct icm_op ops[2] = {
			{ .type = ICM_OP_SET, .value = value, .len = sizeof(value) },
			{ .type = ICM_OP_SET, .value = "x", .len = 1 }
		};

		for (size_t j = 0; j < 2; j++) {
			snprintf(key[j], sizeof(key[j]), "%c/%d", j ? 'b' : 'a', i);
			ops[j].key = key[j];
		}
		memset(value, i, sizeof(value));
		r = DO(be, ops[0], ops[1]);
	}
	return r;
}

/* All of a transaction or nothing, by pairs of keys. */
static size_t check_pairs(void)
{
	ICM_AUTOENTRIES struct icm_entries a = { 0 }, b = { 0 };

	must_be(icm_backend_list(be, NULL, "a/", true, &a, NULL), 0);
	must_be(icm_backend_list(be, NULL, "b/", true, &b, NULL), 0);
	must_be(a.n, b.n);
	return a.n;
}

Test(sqlite, a_full_disk_is_told_and_nothing_is_half_done)
{
	ICM_AUTOFREE char *dir = icm_asprintf("%s/small", store_dir);
	uint64_t index;
	size_t n;

	cr_assert_eq(mkdir(dir, 0700), 0);
	if (mount("tmpfs", dir, "tmpfs", 0, "size=3m") < 0)
		store_skip("can't mount");
	free(store_url);
	store_url = icm_asprintf("sqlite:%s/store", dir);
	be = store_open();
	cr_expect_eq(fill(0, 1000), -ENOSPC);
	n = check_pairs();
	cr_expect_gt(n, 2);
	index = store_index(be);
	cr_expect_eq(fill(2000, 2001), -ENOSPC);
	cr_expect_eq(store_index(be), index);
	cr_expect(has(be, "b/1", "x"), "it still reads");
	/* and goes on when there is room */
	cr_expect_eq(mount("tmpfs", dir, "tmpfs", MS_REMOUNT, "size=30m"), 0);
	cr_expect_eq(fill(2000, 2010), 0);
	be = icm_backend_close(be);
	be = store_open();
	cr_expect_eq(check_pairs(), n + 10);
	be = icm_backend_close(be);
	cr_assert_eq(umount2(dir, MNT_DETACH), 0);
}

Test(sqlite, the_limit_of_file_sizes_is_a_full_disk_too)
{
	struct rlimit limit = { 2 << 20, RLIM_INFINITY };
	size_t n;

	signal(SIGXFSZ, SIG_IGN);
	be = store_open();
	cr_assert_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
	cr_expect_eq(fill(0, 1000), -ENOSPC);
	n = check_pairs();
	cr_expect_gt(n, 2);
	limit.rlim_cur = RLIM_INFINITY;
	cr_assert_eq(setrlimit(RLIMIT_FSIZE, &limit), 0);
	cr_expect_eq(fill(2000, 2010), 0);
	cr_assert_eq(check_pairs(), n + 10);
}

/* ---- locks of others ---- */

Test(sqlite, a_writer_that_holds_on_is_waited_for_up_to_the_deadline)
{
	struct icm_ctx ctx = within_ms(50);
	struct icm_op op = OP_SET("k", "new");
	ICM_AUTORESULT struct icm_txn_result result = { 0 };
	sqlite3 *db = NULL;

	be = store_open();
	put(be, "k", "old");
	cr_assert_eq(sqlite3_open(file(), &db), SQLITE_OK);
	cr_assert_eq(sqlite3_exec(db, "BEGIN IMMEDIATE", NULL, NULL, NULL), SQLITE_OK);
	cr_assert_eq(icm_backend_txn(be, &ctx, &op, 1, &result), -EHOSTUNREACH);
	cr_assert_geq(icm_now_ns(), ctx.deadline_ns);
	cr_assert(has(be, "k", "old"), "readers don't wait");
	cr_assert_eq(sqlite3_exec(db, "ROLLBACK", NULL, NULL, NULL), SQLITE_OK);
	sqlite3_close(db);
	put(be, "k", "new");
	cr_assert(has(be, "k", "new"));
}

static void *set_without_deadline(void *userdata)
{
	put(userdata, "k", "new");
	return NULL;
}

Test(sqlite, without_a_deadline_it_is_waited_for)
{
	pthread_t thread;
	sqlite3 *db = NULL;

	be = store_open();
	put(be, "k", "old");
	cr_assert_eq(sqlite3_open(file(), &db), SQLITE_OK);
	cr_assert_eq(sqlite3_exec(db, "BEGIN IMMEDIATE", NULL, NULL, NULL), SQLITE_OK);
	cr_assert_eq(pthread_create(&thread, NULL, set_without_deadline, be), 0);
	for (int i = 0; i < 20; i++)
		cr_assert(has(be, "k", "old"));
	cr_assert_eq(sqlite3_exec(db, "COMMIT", NULL, NULL, NULL), SQLITE_OK);
	pthread_join(thread, NULL);
	cr_assert(has(be, "k", "new"));
	sqlite3_close(db);
}

Test(sqlite, a_cancelled_write_stops_waiting)
{
	atomic_bool cancel = true;
	struct icm_ctx ctx = { .cancel = &cancel };
	struct icm_op op = OP_SET("k", "new");
	ICM_AUTORESULT struct icm_txn_result result = { 0 };
	sqlite3 *db = NULL;

	be = store_open();
	cr_assert_eq(sqlite3_open(file(), &db), SQLITE_OK);
	cr_assert_eq(sqlite3_exec(db, "BEGIN IMMEDIATE", NULL, NULL, NULL), SQLITE_OK);
	cr_assert_eq(icm_backend_txn(be, &ctx, &op, 1, &result), -ECANCELED);
	sqlite3_close(db);
	cr_assert(has(be, "k", NULL));
}

/* ---- watches ---- */

/* A commit whose writer was killed before it could touch -wake looks just so. */
static void commit_without_wake(void *userdata)
{
	char c;

	must_be(read(*(int *)userdata, &c, 1), 1);
	sql(file(), "UPDATE state SET idx = idx + 1");
}

Test(sqlite, a_commit_without_a_wake_is_noticed)
{
	uint64_t since;
	pid_t child;
	int fds[2];

	cr_assert_eq(pipe(fds), 0);
	child = child_start(commit_without_wake, &fds[0]);
	be = store_open();
	since = put(be, "k", "x");
	/* now the watch waits for something new */
	cr_assert_eq(write(fds[1], "x", 1), 1);
	cr_assert_eq(icm_backend_watch(be, NULL, "", since, &since), 0);
	child_join(child);
}

/* The next sync of this process says so, and waits for a word. */
static struct sync_gate {
	int said_fd, go_fd;
} * sync_gate;

/* SQLite calls this between writing the WAL and making it visible. */
int fdatasync(int fd)
{
	struct timespec some = { .tv_nsec = 50 * ICM_NS_PER_MS };
	struct sync_gate *gate = sync_gate;
	char c;

	sync_gate = NULL;
	if (gate) {
		must_be(write(gate->said_fd, "x", 1), 1);
		must_be(read(gate->go_fd, &c, 1), 1);
		/* so that the watch stands; what is shown holds whenever this ends */
		nanosleep(&some, NULL);
	}
	return (int)syscall(SYS_fdatasync, fd);
}

static void commit_through_gate(void *userdata)
{
	struct sync_gate *gate = userdata;
	sqlite3 *db = NULL;
	char c;

	must_be(read(gate->go_fd, &c, 1), 1);
	must_be(sqlite3_open(file(), &db), SQLITE_OK);
	sync_gate = gate;
	must_be(sqlite3_exec(db, "UPDATE state SET idx = idx + 1", NULL, NULL, NULL), SQLITE_OK);
	must(!sync_gate);
	must_be(sqlite3_close(db), SQLITE_OK);
}

Test(sqlite, a_commit_that_was_written_before_the_watch_stood_is_noticed)
{
	struct icm_ctx idle = within_ms(1);
	struct sync_gate gate;
	uint64_t since, index;
	int said[2], go[2];
	pid_t child;
	char c;

	cr_assert(pipe(said) == 0 && pipe(go) == 0);
	gate = (struct sync_gate){ said[1], go[0] };
	child = child_start(commit_through_gate, &gate);
	be = store_open();
	since = put(be, "k", "x");
	cr_assert_eq(write(go[1], "x", 1), 1);
	cr_assert_eq(read(said[0], &c, 1), 1);
	cr_assert_eq(icm_backend_watch(be, &idle, "", since, &index), -ETIMEDOUT);
	cr_assert_eq(write(go[1], "x", 1), 1);
	cr_assert_eq(icm_backend_watch(be, NULL, "", since, &index), 0);
	child_join(child);
}

Test(sqlite, a_wake_file_that_was_removed_comes_back)
{
	ICM_AUTOFREE char *wake = icm_asprintf("%s-wake", file());
	struct icm_backend *other;
	uint64_t since;

	be = store_open();
	other = store_open();
	since = put(be, "k", "0");
	for (int i = 1; i < 10; i++) {
		struct icm_ctx idle = within_ms(1);
		uint64_t index;

		/* the watch stands when the file goes away */
		cr_assert_eq(icm_backend_watch(be, &idle, "", since, &index), -ETIMEDOUT);
		cr_assert_eq(unlink(wake), 0);
		since = put(other, "k", i % 2 ? "1" : "2");
		cr_assert_eq(icm_backend_watch(be, NULL, "", since - 1, &index), 0);
		cr_assert_eq(mode_of("-wake"), 0600);
	}
	icm_backend_close(other);
}

/* ---- leases ---- */

Test(sqlite, leases_of_another_boot_or_a_reused_pid_are_dead)
{
	struct icm_lease leases[3] = { 0 };
	ICM_AUTOFREE char *text = NULL;

	be = store_open();
	for (size_t i = 0; i < ICM_COUNT(leases); i++)
		cr_assert_eq(icm_backend_lease_open(be, NULL, 0, "x", 1, &leases[i]), 0);
	text = icm_asprintf("UPDATE lease SET boot = 'earlier' WHERE key = '%s';"
			    "UPDATE lease SET start = start - 1 WHERE key = '%s'",
			    leases[0].key, leases[1].key);
	sql(file(), text);
	cr_assert_eq(icm_backend_lease_renew(be, NULL, &leases[0]), -ENOENT);
	cr_assert(has(be, leases[1].key, NULL));
	cr_assert(has(be, leases[2].key, "x"));
	for (size_t i = 0; i < ICM_COUNT(leases); i++)
		icm_lease_clear(&leases[i]);
}

/* ---- killed in the middle ---- */

static void large_child(void *userdata)
{
	static char value[262144];
	static char keys[200][16];
	static struct icm_op ops[200];
	ICM_AUTORESULT struct icm_txn_result result = { 0 };
	struct icm_backend *b = store_open();

	memset(value, 'n', sizeof(value));
	for (size_t i = 0; i < ICM_COUNT(ops); i++) {
		snprintf(keys[i], sizeof(keys[i]), "a/%zu", i);
		ops[i] = (struct icm_op){
			.type = ICM_OP_SET, .key = keys[i], .value = value, .len = sizeof(value)
		};
	}
	send_number(*(int *)userdata, 1);
	must_be(icm_backend_txn(b, NULL, ops, ICM_COUNT(ops), &result), 0);
	send_number(*(int *)userdata, 2);
}

Test(sqlite, killed_in_a_large_transaction_nothing_of_it_is_there)
{
	for (int round = 0; round < 10; round++) {
		uint64_t n = 0, last = 0;
		ICM_AUTOENTRIES struct icm_entries list = { 0 };
		struct timespec some = { .tv_nsec = round * 20 * ICM_NS_PER_MS };
		int fds[2];
		pid_t pid;

		cr_assert_eq(pipe(fds), 0);
		pid = child_start(large_child, &fds[1]);
		close(fds[1]);
		cr_assert(receive_number(fds[0], &n));
		/* anywhere in it; the check holds wherever it was */
		nanosleep(&some, NULL);
		child_kill(pid);
		while (receive_number(fds[0], &n))
			last = n;
		close(fds[0]);
		be = store_open();
		cr_assert_eq(icm_backend_list(be, NULL, "a/", true, &list, NULL), 0);
		cr_assert(list.n == 200 || (list.n == 0 && last != 2));
		if (list.n)
			cr_assert_eq(list.v[0].modify_index, list.v[199].modify_index);
		be = icm_backend_close(be);
		cr_assert_eq(unlink(file()), 0);
	}
}

/* ---- read-only ---- */

/* As a user who may read the file and nothing else. */
static void read_as_nobody(void *userdata)
{
	struct icm_open_options options = { .read_only = true };
	struct icm_backend *b = NULL;
	ICM_AUTOFREE char *error = NULL;
	uint64_t n;

	must(receive_number(*(int *)userdata, &n));
	must_be(setgid(65534), 0);
	must_be(setuid(65534), 0);
	if (icm_backend_open(store_url, &options, &b, &error)) {
		fprintf(stderr, "%s\n", error);
		_exit(1);
	}
	must_be(icm_backend_start(b), 0);
	must(has(b, "k", "x"));
	must_be(DO(b, OP_SET("k", "y")), -EROFS);
	icm_backend_close(b);
}

Test(sqlite, who_may_only_read_reads_beside_a_writer)
{
	pid_t child;
	int fds[2];

	if (geteuid() != 0)
		store_skip("needs root");
	cr_assert_eq(pipe(fds), 0);
	child = child_start(read_as_nobody, &fds[0]);
	cr_assert_eq(chmod(store_dir, 0755), 0);
	be = store_open();
	be = icm_backend_close(be);
	cr_assert_eq(chmod(file(), 0644), 0);
	be = store_open();
	put(be, "k", "x");
	send_number(fds[1], 1);
	child_join(child);
	cr_assert(has(be, "k", "x"));
}

Test(sqlite, a_read_only_file_system_is_read)
{
	ICM_AUTOFREE char *dir = icm_asprintf("%s/media", store_dir);
	struct icm_open_options options = { .read_only = true };
	struct icm_backend *ro = NULL;
	uint64_t index = 0;

	cr_assert_eq(mkdir(dir, 0700), 0);
	if (mount("tmpfs", dir, "tmpfs", 0, "size=3m") < 0)
		store_skip("can't mount");
	free(store_url);
	store_url = icm_asprintf("sqlite:%s/a store?#%%", dir);
	be = store_open();
	put(be, "k", "x");
	be = icm_backend_close(be);
	cr_assert_eq(mount("tmpfs", dir, "tmpfs", MS_REMOUNT | MS_RDONLY, NULL), 0);
	cr_expect_eq(icm_backend_open(store_url, &options, &ro, NULL), 0);
	if (ro) {
		struct icm_ctx ctx = within_ms(20);

		cr_expect_eq(icm_backend_start(ro), 0);
		cr_expect(has(ro, "k", "x"));
		cr_expect_eq(icm_backend_watch(ro, &ctx, "", store_index(ro), &index), -ETIMEDOUT);
		icm_backend_close(ro);
	}
	cr_assert_eq(umount2(dir, MNT_DETACH), 0);
}
