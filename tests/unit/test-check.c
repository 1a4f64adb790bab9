/* SPDX-License-Identifier: MIT
 * check over hand-made stores: a sound one, and one damage at a time. */
#undef NDEBUG
#include <assert.h>
#include <criterion/criterion.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "core/check.h"
#include "core/deployment.h"
#include "core/key.h"
#include "core/lock-value.h"
#include "core/record.h"

static struct icm_backend *be;

static void put(const char *key, const void *value, size_t len, uint64_t flags)
{
	ICM_AUTORESULT struct icm_txn_result result = { 0 };
	struct icm_op op = {
		.type = ICM_OP_SET, .key = key, .value = value, .len = len, .flags = flags
	};

	assert(icm_backend_txn(be, NULL, &op, 1, &result) == 0);
}

static void put_text(const char *key, const char *text)
{
	put(key, text, strlen(text), 0);
}

static void drop(const char *key)
{
	ICM_AUTORESULT struct icm_txn_result result = { 0 };
	struct icm_op op = { .type = ICM_OP_DELETE, .key = key };

	assert(icm_backend_txn(be, NULL, &op, 1, &result) == 0);
}

static struct icm_attr attr_of(uint64_t ino, mode_t mode, uint64_t size)
{
	struct icm_attr a = { .ino = ino, .mode = mode, .size = size, .nlink = 1 };

	a.mtime = a.ctime = a.atime = (struct timespec){ .tv_sec = 1700000000 };
	icm_random_id(a.id);
	return a;
}

static void put_attr(const char *path, const struct icm_attr *a)
{
	size_t len;
	ICM_AUTOFREE char *key = icm_key_attr(path);
	ICM_AUTOFREE char *text = icm_attr_encode(a, &len);

	put(key, text, len, 0);
}

static struct icm_sha256 put_blob(const void *value, size_t len)
{
	struct icm_sha256 sum = icm_sha256(value, len);
	ICM_AUTOFREE char *key = icm_key_blob(&sum);

	put(key, value, len, 0);
	return sum;
}

static void add_plain(const char *path, uint64_t ino, const char *text)
{
	struct icm_attr a = attr_of(ino, S_IFREG | 0600, strlen(text));
	ICM_AUTOFREE char *key = icm_key_tree(path);

	a.has_hash = true;
	a.hash = icm_sha256(text, strlen(text));
	put(key, text, strlen(text), ICM_FLAGS_PLAIN);
	put_attr(path, &a);
}

static void add_dir(const char *path, uint64_t ino)
{
	struct icm_attr a = attr_of(ino, S_IFDIR | 0700, 0);
	struct icm_dir_times t = { .mtime = a.mtime, .ctime = a.ctime };
	ICM_AUTOFREE char *key = icm_key_tree_dir(path);
	ICM_AUTOFREE char *text = NULL;
	size_t len;

	icm_random_id(t.id);
	text = icm_dir_times_encode(&t, &len);
	put(key, text, len, 0);
	put_attr(path, &a);
}

static void add_record(const char *path, struct icm_attr *a, const struct icm_record *rec)
{
	size_t len;
	ICM_AUTOFREE char *key = icm_key_tree(path);
	ICM_AUTOFREE char *text = icm_record_encode(rec, &len);

	if (S_ISREG(a->mode) && !a->linked) {
		a->has_hash = true;
		a->hash = icm_sha256(text, len);
	}
	put(key, text, len, ICM_FLAGS_RECORD);
	put_attr(path, a);
}

/* A chunk of bytes, a hole, and a short chunk. */
static void add_large(const char *path, uint64_t ino)
{
	ICM_AUTOFREE char *first = icm_xmalloc(ICM_CHUNK_BYTES);
	struct icm_chunk chunks[3] = { { 0 }, { .hole = true }, { 0 } };
	struct icm_record rec = { .form = ICM_RECORD_CHUNKS,
				  .size = 2 * ICM_CHUNK_BYTES + 3,
				  .chunks = chunks,
				  .n_chunks = 3 };
	struct icm_attr a = attr_of(ino, S_IFREG | 0600, rec.size);

	memset(first, 'x', ICM_CHUNK_BYTES);
	chunks[0].sum = put_blob(first, ICM_CHUNK_BYTES);
	chunks[2].sum = put_blob("end", 3);
	add_record(path, &a, &rec);
}

static void add_symlink(const char *path, uint64_t ino, const char *target)
{
	struct icm_record rec = { .form = ICM_RECORD_SYMLINK, .target = (char *)target };
	struct icm_attr a = attr_of(ino, S_IFLNK | 0777, strlen(target));

	add_record(path, &a, &rec);
}

/* Two names of one small file. */
static void add_links(const char *one, const char *two, uint64_t ino)
{
	struct icm_record rec = { .form = ICM_RECORD_LINK, .ino = ino };
	struct icm_attr a = attr_of(ino, S_IFREG | 0600, 6);
	struct icm_inode_value v;
	ICM_AUTOFREE char *key = icm_key_inode(ino);
	ICM_AUTOFREE char *text = NULL;
	size_t len;

	a.linked = true;
	a.nlink = 2;
	a.has_hash = true;
	a.hash = put_blob("linked", 6);
	v = (struct icm_inode_value){ .attr = a };
	text = icm_inode_value_encode(&v, &len);
	put(key, text, len, 0);
	add_record(one, &a, &rec);
	add_record(two, &a, &rec);
}

static void setup(void)
{
	char *error = NULL;

	assert(icm_backend_open("memory:check", &(struct icm_open_options){ .create = true }, &be,
				&error) == 0);
	assert(icm_backend_start(be) == 0);
	assert(icm_deployment_create(be, NULL, "test", 0, 0) == 0);
	add_plain("a", 16, "alpha");
	add_plain("empty", 17, "");
	add_dir("d", 18);
	add_plain("d/odd\nname", 19, "odd");
	add_large("d/large", 20);
	add_symlink("link", 21, "d/large");
	add_links("one", "d/two", 22);
	put_text(ICM_KEY_HEAD, "0123456789abcdef");
}

static void teardown(void)
{
	icm_backend_close(be);
}

TestSuite(check, .init = setup, .fini = teardown);

static struct icm_check_report run(void)
{
	struct icm_check_report report;
	char *error = NULL;

	cr_assert_eq(icm_check_store(be, &report, &error), 0, "%s", error);
	return report;
}

/* Something that contains `what` was found at `key`, and nothing else anywhere. */
static void expect_only(const char *key, enum icm_severity severity, const char *what)
{
	struct icm_check_report r = run();
	bool found = false;

	for (size_t i = 0; i < r.n_problems; i++) {
		const struct icm_problem *p = &r.problems[i];

		if (!strcmp(p->key, key) && p->severity == severity && strstr(p->what, what))
			found = true;
		else
			cr_expect(0, "%s: %s: %s", p->key, p->what, icm_severity_name(p->severity));
	}
	cr_expect(found, "%s: %s was not found", key, what);
	cr_expect_eq(r.n_bad, severity == ICM_SEVERITY_NOTE ? 0 : r.n_problems);
	icm_check_report_clear(&r);
}

/* The same among others. */
static void expect(const char *key, enum icm_severity severity, const char *what)
{
	struct icm_check_report r = run();
	bool found = false;

	for (size_t i = 0; i < r.n_problems; i++)
		found |= !strcmp(r.problems[i].key, key) && r.problems[i].severity == severity &&
			 strstr(r.problems[i].what, what);
	cr_expect(found, "%s: %s was not found", key, what);
	icm_check_report_clear(&r);
}

Test(check, finds_nothing_in_a_sound_store)
{
	struct icm_check_report r = run();

	for (size_t i = 0; i < r.n_problems; i++)
		cr_expect(0, "%s: %s", r.problems[i].key, r.problems[i].what);
	cr_expect_eq(r.files, 7);
	cr_expect_eq(r.dirs, 2);
	cr_expect_eq(r.blobs, 3);
	icm_check_report_clear(&r);
}

Test(check, refuses_a_newer_format_and_an_empty_store)
{
	struct icm_check_report report;
	char *error = NULL;

	put_text("meta", "{\"format\":7}");
	cr_expect_eq(icm_check_store(be, &report, &error), -EPROTO);
	cr_expect(strstr(error, "format 7"), "%s", error);
	free(error);
	icm_backend_close(be);
	assert(icm_backend_open("memory:check-empty", &(struct icm_open_options){ .create = true },
				&be, &error) == 0);
	assert(icm_backend_start(be) == 0);
	cr_expect_eq(icm_check_store(be, &report, &error), -ENOENT);
	free(error);
}

Test(check, finds_a_file_without_contents_and_contents_without_a_file)
{
	drop("tree/a");
	expect_only("attr/a", ICM_SEVERITY_ERROR, "tree/a is missing");
	add_plain("a", 16, "alpha");
	drop("attr/link");
	expect_only("tree/link", ICM_SEVERITY_NOTE, "another program");
}

Test(check, finds_wrong_bytes_and_sizes)
{
	struct icm_attr a = attr_of(16, S_IFREG | 0600, 5);

	put_text("tree/a", "ALPHA");
	a.has_hash = true;
	a.hash = icm_sha256("alpha", 5);
	put_attr("a", &a);
	expect_only("tree/a", ICM_SEVERITY_ERROR, "another sha256");
	a.size = 6;
	put_attr("a", &a);
	expect_only("tree/a", ICM_SEVERITY_ERROR, "5 bytes, but its attributes say 6");
}

Test(check, notes_what_other_programs_wrote)
{
	put_text("tree/a", "written by another");
	expect_only("tree/a", ICM_SEVERITY_NOTE, "another program");
	add_plain("a", 16, "alpha");
	put_text("tree/foreign/deep", "x");
	expect_only("tree/foreign/deep", ICM_SEVERITY_NOTE, "another program");
}

Test(check, names_what_is_not_shown)
{
	put_text("tree/%61b", "x");
	expect_only("tree/%61b", ICM_SEVERITY_WARNING, "spelling");
	drop("tree/%61b");
	put_text("attr/..", "{}");
	expect_only("attr/..", ICM_SEVERITY_WARNING, "spelling");
	drop("attr/..");
	put_text("tree/d", "a file beside a directory");
	expect_only("tree/d", ICM_SEVERITY_WARNING, "hidden");
	drop("tree/d");
	put_text("tree/f", "a file");
	put_text("tree/f/g", "below it");
	expect("tree/f", ICM_SEVERITY_WARNING, "hidden");
	drop("tree/f");
	drop("tree/f/g");
	put_text("stray", "x");
	expect_only("stray", ICM_SEVERITY_WARNING, "unknown key");
}

Test(check, finds_missing_and_damaged_chunks)
{
	struct icm_sha256 sum = icm_sha256("end", 3);
	ICM_AUTOFREE char *key = icm_key_blob(&sum);

	drop(key);
	expect_only("tree/d/large", ICM_SEVERITY_ERROR, "chunk 2: blob/");
	put_text(key, "END");
	expect("tree/d/large", ICM_SEVERITY_ERROR, "is damaged");
	expect(key, ICM_SEVERITY_ERROR, "another sha256");
}

Test(check, reads_lists_of_chunks_that_are_blobs)
{
	struct icm_chunk chunks[40];
	struct icm_record rec = { .form = ICM_RECORD_CHUNKS,
				  .size = 40 * ICM_CHUNK_BYTES,
				  .list_is_blob = true };
	struct icm_attr a = attr_of(30, S_IFREG | 0600, rec.size);
	struct icm_check_report r;
	ICM_AUTOFREE char *list = NULL;
	size_t len;

	for (size_t i = 0; i < 40; i++)
		chunks[i] = (struct icm_chunk){ .hole = true };
	list = icm_chunks_encode(chunks, 40, &len);
	rec.list = put_blob(list, len);
	add_record("d/huge", &a, &rec);
	r = run();
	cr_expect_eq(r.n_problems, 0);
	icm_check_report_clear(&r);
	free(list);
	list = icm_chunks_encode(chunks, 39, &len);
	rec.list = put_blob(list, len);
	add_record("d/huge", &a, &rec);
	expect("tree/d/huge", ICM_SEVERITY_ERROR, "not one of 40 chunks");
}

Test(check, finds_orphans_of_directories)
{
	drop("attr/d");
	drop("tree/d/");
	expect("attr/d/large", ICM_SEVERITY_ERROR, "directory above it is missing");
	add_plain("d", 18, "a file now");
	expect("attr/d/large", ICM_SEVERITY_ERROR, "not a directory");
}

Test(check, finds_directories_without_times)
{
	drop("tree/d/");
	expect_only("attr/d", ICM_SEVERITY_ERROR, "tree/d/ is missing");
	put_text("tree/d/", "nonsense");
	expect_only("tree/d/", ICM_SEVERITY_ERROR, "not valid times");
	add_dir("d", 18);
	drop("attr/d");
	expect("tree/d/", ICM_SEVERITY_ERROR, "without attributes");
}

Test(check, counts_links)
{
	drop("attr/one");
	drop("tree/one");
	expect_only("inode/22", ICM_SEVERITY_ERROR, "has 1 names, but says 2");
	add_links("one", "d/two", 22);
	drop("inode/22");
	expect("attr/one", ICM_SEVERITY_ERROR, "inode/22 is missing");
}

Test(check, finds_a_number_twice)
{
	add_plain("b", 16, "beta");
	expect_only("attr/b", ICM_SEVERITY_ERROR, "has the inode number 16 of attr/a");
}

Test(check, finds_broken_values)
{
	put_text("attr/a", "{");
	expect("attr/a", ICM_SEVERITY_ERROR, "not valid attributes");
	add_plain("a", 16, "alpha");
	put("tree/link", "[]", 2, ICM_FLAGS_RECORD);
	expect_only("tree/link", ICM_SEVERITY_ERROR, "not a valid record");
	add_symlink("link", 21, "d/large");
	put("tree/a", "alpha", 5, 99);
	add_plain("unused", 40, "");
	expect("tree/a", ICM_SEVERITY_ERROR, "unknown flags");
	add_plain("a", 16, "alpha");
	put_text("head", "x");
	expect_only("head", ICM_SEVERITY_ERROR, "not the id");
	put_text("head", "0123456789abcdef");
	put_text("feed/0123456789abcdef", "x");
	expect_only("feed/0123456789abcdef", ICM_SEVERITY_ERROR, "feed record");
	drop("feed/0123456789abcdef");
	put_text("log/00000000000000000001", "x");
	expect_only("log/00000000000000000001", ICM_SEVERITY_ERROR, "log");
	drop("log/00000000000000000001");
	put_text("hist/a%v00000000000000000001", "x");
	expect_only("hist/a%v00000000000000000001", ICM_SEVERITY_ERROR, "earlier version");
}

Test(check, notes_orphan_blobs_and_locks_of_the_dead)
{
	struct icm_sha256 sum = put_blob("nobody's", 8);
	ICM_AUTOFREE char *key = icm_key_blob(&sum);
	struct icm_lock_value locks = { 0 };
	struct icm_lock_entry e = { .owner = 1, .end = 9, .type = F_WRLCK };
	ICM_AUTOFREE char *text = NULL;
	size_t len;

	expect_only(key, ICM_SEVERITY_NOTE, "nothing refers");
	drop(key);
	icm_random_id(e.id);
	e.mount = icm_lock_value_add_mount(&locks, "lease/gone", "h", "u");
	icm_lock_value_set(&locks, &e);
	text = icm_lock_value_encode(&locks, &len);
	icm_lock_value_clear(&locks);
	put("lock/16", text, len, 0);
	expect_only("lock/16", ICM_SEVERITY_NOTE, "gone");
}

Test(check, finds_records_of_another_kind_than_the_attributes)
{
	struct icm_attr a = attr_of(21, S_IFIFO | 0600, 0);

	put_attr("link", &a);
	expect_only("tree/link", ICM_SEVERITY_ERROR, "doesn't fit");
}
