/* SPDX-License-Identifier: MIT
 * Keys below tree/ that other programs write and delete: noticed, shown, adopted.
 * Each test on a store that tells of such changes (the memory store with Consul's
 * limits) and on two that don't, where they are found at the mount, by look-ups
 * and by opens. */
#include "tests/unit/raw-store.h"

enum kind { WATCHED, LOCAL, SQLITE };
#define KINDS 3

static char *url;
static char dir[64];

static void open_store(enum kind kind)
{
	static unsigned n;

	strcpy(dir, "/tmp/icmfs-foreign-XXXXXX");
	cr_assert(mkdtemp(dir));
	url = kind == SQLITE ? icm_asprintf("sqlite:%s/store.icmfs", dir)
			     : icm_asprintf("memory:foreign-%u", ++n);
	cr_assert_eq(
		icm_backend_open(url, &(struct icm_open_options){ .create = true }, &raw, NULL), 0);
	if (kind == WATCHED)
		icm_memory_set_consul_limits(raw);
	cr_assert_eq(icm_backend_start(raw), 0);
}

static void close_store(void)
{
	ICM_AUTOFREE char *remove = icm_asprintf("rm -rf '%s'", dir);

	raw = icm_backend_close(raw);
	free(url);
	cr_assert_eq(system(remove), 0);
}

TestSuite(foreign, .timeout = 120);

/* A test of its own for each kind of store, in one function. */
#define TEST_KINDS(name)                                                                           \
	static void name(enum kind kind);                                                          \
	Test(foreign, name)                                                                        \
	{                                                                                          \
		for (int kind = 0; kind < KINDS; kind++) {                                         \
			open_store((enum kind)kind);                                               \
			name((enum kind)kind);                                                     \
			close_store();                                                             \
		}                                                                                  \
	}                                                                                          \
	static void name(enum kind kind)

TEST_KINDS(a_foreign_tree_mounts)
{
	struct icm_volume *vol;
	struct stat st, again;

	put("tree/definitions.json", "{}");
	put("tree/state/deep/a.tfstate", "secret");
	put("tree/state/b", "");
	vol = mount_store(url);
	cr_assert_eq(count_entries(vol), 2);
	cr_assert_eq(stat_path(vol, "state/deep/a.tfstate", &st), 0);
	cr_assert_eq(st.st_size, 6);
	cr_assert_eq(st.st_mode, S_IFREG | 0600);
	cr_assert_eq(st.st_uid, 1000);
	cr_assert_eq(st.st_gid, 100);
	cr_assert_gt(st.st_mtim.tv_sec, 1700000000);
	cr_assert_eq(st.st_ino, UINT64_C(0x7c1c610a16b76)); /* 52 bits of sha256(path) */
	cr_assert(has_contents(vol, "state/deep/a.tfstate", "secret"));
	cr_assert(has_contents(vol, "definitions.json", "{}"));
	cr_assert(has_contents(vol, "state/b", ""));
	cr_assert_eq(stat_path(vol, "state/deep", &again), 0);
	cr_assert_eq(again.st_mode, S_IFDIR | 0700);
	unmount(vol);
	cr_assert_eq(problems(NULL), 0);
	vol = mount_store(url);
	cr_assert_eq(stat_path(vol, "state/deep/a.tfstate", &again), 0);
	cr_assert_eq(again.st_ino, st.st_ino);
	cr_assert_eq(again.st_mtim.tv_nsec, st.st_mtim.tv_nsec);
	cr_assert_eq(save(vol, "definitions.json", O_TRUNC, "[]"), 0);
	unmount(vol);
	cr_assert_eq(problems(NULL), 0);
}

TEST_KINDS(a_put_is_a_new_version_in_all_mounts)
{
	struct icm_volume *a = mount_store(url), *b = mount_store(url);
	struct stat before, st;

	cr_assert_eq(save(a, "f", O_TRUNC, "ours"), 0);
	cr_assert(has_contents(b, "f", "ours"));
	cr_assert_eq(stat_path(a, "f", &before), 0);
	put("tree/f", "theirs, longer");
	WAIT_FOR(has_contents(a, "f", "theirs, longer"));
	WAIT_FOR(has_contents(b, "f", "theirs, longer"));
	cr_assert_eq(stat_path(b, "f", &st), 0);
	cr_assert_eq(st.st_size, 14);
	cr_assert_eq(st.st_ino, before.st_ino);
	cr_assert_eq(st.st_mode, before.st_mode);
	cr_assert(st.st_mtim.tv_sec != before.st_mtim.tv_sec ||
		  st.st_mtim.tv_nsec != before.st_mtim.tv_nsec);
	cr_assert_eq(stat_path(a, "f", &before), 0);
	cr_assert_eq(st.st_mtim.tv_nsec, before.st_mtim.tv_nsec);
	cr_assert_eq(save(b, "f", O_TRUNC, "ours again"), 0);
	WAIT_FOR(has_contents(a, "f", "ours again"));
	unmount(a);
	unmount(b);
	cr_assert_eq(problems(NULL), 0);
}

TEST_KINDS(names_come_and_go)
{
	struct icm_volume *a = mount_store(url), *b = mount_store(url);

	put("tree/new/deep/file", "x");
	put("tree/other", "y");
	WAIT_FOR(is_there(a, "new/deep/file"));
	WAIT_FOR(is_there(b, "new/deep/file"));
	if (kind == WATCHED) /* a whole comparison finds what nobody has asked for */
		WAIT_FOR(count_entries(a) == 2 && count_entries(b) == 2);
	WAIT_FOR(has_contents(b, "other", "y"));
	drop("tree/other");
	WAIT_FOR(!has_contents(a, "other", "y"));
	WAIT_FOR(!is_there(a, "other"));
	WAIT_FOR(!is_there(b, "other"));
	cr_assert_not(has_key("attr/other"));
	unmount(a);
	unmount(b);
	cr_assert_eq(problems(NULL), 0);
}

TEST_KINDS(a_whole_directory_goes)
{
	struct icm_volume *vol = mount_store(url);

	put("tree/d/e/f", "x");
	put("tree/d/g", "x");
	WAIT_FOR(is_there(vol, "d/e/f") && is_there(vol, "d/g"));
	unmount(vol);
	drop("tree/d/e/f");
	drop("tree/d/g");
	drop("tree/d/e/");
	drop("tree/d/");
	vol = mount_store(url);
	cr_assert_not(is_there(vol, "d"));
	cr_assert_not(has_key("attr/d"));
	unmount(vol);
	cr_assert_eq(problems(NULL), 0);
}

TEST_KINDS(what_can_t_be_shown_is_reported)
{
	struct icm_volume *vol;

	put("tree/a", "hidden");
	put("tree/a/b", "shown");
	put("tree/c%64", "not canonical");
	put_flags("tree/garbage", "no record", ICM_FLAGS_RECORD);
	put_flags("tree/flags", "unknown", 77);
	put("tree/good", "good");
	vol = mount_store(url);
	cr_assert(has_contents(vol, "a/b", "shown"));
	cr_assert_eq(count_entries(vol), 4);
	for (int i = 0; i < 2; i++) {
		static const char *const names[] = { "garbage", "flags" };
		int r;

		cr_assert_null(contents_of(vol, names[i], &r));
		cr_assert_eq(r, -EIO, "%s: %d", names[i], r);
	}
	cr_assert(has_contents(vol, "good", "good"));
	cr_assert_eq(problems("tree/a"), 1);
	cr_assert_eq(problems("tree/c%64"), 1);
	cr_assert_eq(problems("tree/garbage"), 1);
	cr_assert_eq(problems("tree/flags"), 1);
	cr_assert_eq(problems("tree/good"), 0);
	cr_assert_eq(save(vol, "garbage", O_TRUNC, "good again"), 0);
	cr_assert(has_contents(vol, "garbage", "good again"));
	cr_assert_eq(icm_fs_unlink(icm_fs_root(vol), &no_call, "flags"), 0);
	unmount(vol);
	cr_assert_eq(problems("tree/garbage") + problems("tree/flags"), 0);
}

TEST_KINDS(plain_bytes_replace_records)
{
	struct icm_volume *vol = mount_store(url);
	ICM_AUTOFREE char *big = icm_xcalloc(1, 600001);
	struct icm_view *view = NULL, *again = NULL;
	struct stat st;

	memset(big, 'x', 600000);
	cr_assert_eq(save(vol, "chunks", O_TRUNC, big), 0);
	cr_assert_eq(icm_fs_symlink(icm_fs_root(vol), &no_call, "link", "chunks", &view, &st), 0);
	icm_fs_forget(view, 1);
	cr_assert_eq(save(vol, "one", O_TRUNC, "linked"), 0);
	cr_assert_eq(walk(vol, "one", &view, &st), 0);
	cr_assert_eq(icm_fs_link(view, &no_call, icm_fs_root(vol), "two", &again, &st), 0);
	icm_fs_forget(again, 1);
	icm_fs_forget(view, 1);
	unmount(vol);
	put("tree/chunks", "small");
	put("tree/link", "a file");
	put("tree/two", "alone");
	vol = mount_store(url);
	cr_assert(has_contents(vol, "chunks", "small"));
	cr_assert(has_contents(vol, "link", "a file"));
	cr_assert(has_contents(vol, "two", "alone"));
	cr_assert(has_contents(vol, "one", "linked"));
	unmount(vol);
	cr_assert_eq(problems(NULL), 0);
}

TEST_KINDS(a_read_only_mount_derives_the_same)
{
	struct icm_volume_config config = {
		.url = url, .read_only = true, .uid = 1000, .gid = 100
	};
	struct icm_volume *vol = mount_store(url), *reader;
	struct stat there, st;

	cr_assert_eq(save(vol, "old", O_TRUNC, "old"), 0);
	cr_assert_eq(save(vol, "gone", O_TRUNC, "gone"), 0);
	unmount(vol);
	put("tree/old", "new");
	put("tree/d/file", "x");
	drop("tree/gone");
	reader = mount_with(config);
	cr_assert(has_contents(reader, "old", "new"));
	cr_assert(has_contents(reader, "d/file", "x"));
	cr_assert_not(is_there(reader, "gone"));
	cr_assert(has_key("attr/gone"));
	cr_assert_not(has_key("attr/d/file"));
	cr_assert_eq(stat_path(reader, "d/file", &there), 0);
	vol = mount_store(url);
	cr_assert_eq(stat_path(vol, "d/file", &st), 0);
	cr_assert_eq(st.st_ino, there.st_ino);
	cr_assert_eq(st.st_mode, there.st_mode);
	WAIT_FOR(stat_path(reader, "d/file", &there) == 0 &&
		 there.st_mtim.tv_nsec == st.st_mtim.tv_nsec);
	unmount(vol);
	unmount(reader);
	cr_assert_eq(problems(NULL), 0);
}

/* More bytes than icmfs itself would store as a value. */
TEST_KINDS(large_values_are_files)
{
	ICM_AUTOFREE char *big = icm_xcalloc(1, 380001);
	struct icm_volume *vol = mount_store(url);
	struct icm_view *root = icm_fs_root(vol), *view = NULL, *again = NULL;
	struct stat st;
	int r;

	memset(big, 'x', 380000);
	cr_assert_eq(save(vol, "old", O_TRUNC, "small"), 0);
	put("tree/old", big);
	put("tree/new", big);
	put("tree/linked", big);
	put("tree/moved", big);
	put("tree/grown", big);
	WAIT_FOR(has_contents(vol, "old", big));
	WAIT_FOR(has_contents(vol, "new", big));
	cr_assert_eq(stat_path(vol, "new", &st), 0);
	cr_assert_eq(st.st_size, 380000);
	cr_assert_eq(save(vol, "old", O_TRUNC, "small again"), 0);
	cr_assert(has_contents(vol, "old", "small again"));
	cr_assert_eq(walk(vol, "linked", &view, &st), 0);
	cr_assert_eq(icm_fs_link(view, &no_call, root, "link", &again, &st), 0);
	icm_fs_forget(again, 1);
	icm_fs_forget(view, 1);
	cr_assert(has_contents(vol, "link", big));
	WAIT_FOR(has_contents(vol, "grown", big));
	cr_assert_eq(save(vol, "grown", O_APPEND, "y"), 0);
	cr_assert_eq(stat_path(vol, "grown", &st), 0);
	cr_assert_eq(st.st_size, 380001);
	cr_assert_eq(icm_fs_unlink(root, &no_call, "new"), 0);
	WAIT_FOR(is_there(vol, "moved"));
	r = icm_fs_rename(root, &no_call, "moved", root, "to", 0);
	cr_assert(r == 0 || r == -EXDEV, "%d", r); /* mv copies then */
	cr_assert(has_contents(vol, r == 0 ? "to" : "moved", big));
	unmount(vol);
	vol = mount_store(url);
	cr_assert(has_contents(vol, "linked", big));
	cr_assert(has_contents(vol, "old", "small again"));
	unmount(vol);
	cr_assert_eq(problems(NULL), 0);
}

static int find_copy(void *userdata, const struct icm_dirent *e)
{
	if (strstr(e->name, ".conflict-"))
		strcpy(userdata, e->name);
	return 0;
}

static bool has_copy(struct icm_volume *vol, const char *want)
{
	struct icm_handle *h = NULL;
	char name[256] = "";

	cr_assert_eq(icm_fs_opendir(icm_fs_root(vol), &no_call, &h), 0);
	cr_assert_eq(icm_fs_readdir(h, &no_call, 0, find_copy, name), 0);
	icm_fs_releasedir(h);
	return *name && has_contents(vol, name, want);
}

/* The foreign write comes between open and close. */
TEST_KINDS(a_commit_on_the_version_before_is_a_conflict)
{
	for (int mounted_anew = 0; mounted_anew < 2; mounted_anew++) {
		struct icm_volume *vol = mount_store(url);
		struct icm_view *view = NULL;
		struct icm_handle *h = NULL;
		int r;

		cr_assert_eq(save(vol, "f", O_TRUNC, "base"), 0);
		if (mounted_anew) { /* then the key's index isn't known */
			unmount(vol);
			vol = mount_store(url);
		}
		cr_assert_eq(open_path(vol, "f", O_RDWR | O_TRUNC, &view, &h), 0);
		cr_assert_eq(icm_fs_write(h, &no_call, "mine", 4, 0, false), 4);
		put("tree/f", mounted_anew ? "theirs 1" : "theirs 0");
		r = icm_fs_flush(h, &no_call, 1);
		cr_assert_eq(r, -ESTALE, "%d", r);
		close_path(view, h);
		cr_assert(has_contents(vol, "f", mounted_anew ? "theirs 1" : "theirs 0"));
		cr_assert(has_copy(vol, "mine"));
		unmount(vol);
		cr_assert_eq(problems(NULL), 0);
	}
}

TEST_KINDS(other_operations_take_what_is_there)
{
	struct icm_volume *vol = mount_store(url);
	struct icm_view *root = icm_fs_root(vol), *view = NULL;
	struct icm_handle *h = NULL;
	struct stat st;

	cr_assert_eq(save(vol, "log", O_APPEND, "a"), 0);
	cr_assert_eq(open_path(vol, "log", O_WRONLY | O_APPEND, &view, &h), 0);
	cr_assert_eq(icm_fs_write(h, &no_call, "c", 1, 1, false), 1);
	put("tree/log", "ab");
	cr_assert_eq(icm_fs_flush(h, &no_call, 1), 0);
	close_path(view, h);
	cr_assert(has_contents(vol, "log", "abc"));

	cr_assert_eq(save(vol, "from", O_TRUNC, "x"), 0);
	put("tree/from", "moved");
	put("tree/to", "replaced");
	cr_assert_eq(icm_fs_rename(root, &no_call, "from", root, "to", 0), 0);
	cr_assert(has_contents(vol, "to", "moved"));

	put("tree/made", "by them");
	cr_assert_eq(icm_fs_mkdir(root, &no_call, "made", 0755, &view, &st), -EEXIST);
	cr_assert(has_contents(vol, "made", "by them"));

	cr_assert_eq(save(vol, "rm", O_TRUNC, "x"), 0);
	put("tree/rm", "y");
	cr_assert_eq(icm_fs_unlink(root, &no_call, "rm"), 0);
	cr_assert_not(has_key("tree/rm") || has_key("attr/rm"));
	unmount(vol);
	cr_assert_eq(problems(NULL), 0);
}

/* Two mounts notice at once, many times over: one adopts, the other takes it. */
TEST_KINDS(two_mounts_agree)
{
	struct icm_volume *a = mount_store(url), *b = mount_store(url);

	for (int i = 0; i < 20; i++) {
		ICM_AUTOFREE char *name = icm_asprintf("f%d", i);
		ICM_AUTOFREE char *key = icm_asprintf("tree/%s", name);
		struct stat x, y;

		put(key, name);
		WAIT_FOR(has_contents(a, name, name) && has_contents(b, name, name));
		WAIT_FOR(stat_path(a, name, &x) == 0 && stat_path(b, name, &y) == 0 &&
			 x.st_ino == y.st_ino && x.st_mtim.tv_nsec == y.st_mtim.tv_nsec);
	}
	unmount(a);
	unmount(b);
	cr_assert_eq(problems(NULL), 0);
}

/* ---- what only a watch tells ---- */

static struct icm_memory_fault hide_tree(uint64_t call, enum icm_memory_call kind,
					 const struct icm_op *ops, size_t n_ops, void *userdata)
{
	for (size_t i = 0; kind == ICM_CALL_TXN && i < n_ops; i++)
		if (ops[i].type == ICM_OP_GET_TREE && strcmp(ops[i].key, "tree/") == 0)
			return (struct icm_memory_fault){ ICM_FAULT_FAIL, -EACCES, 0 };
	return (struct icm_memory_fault){ 0 };
}

Test(foreign, a_denied_listing_deletes_nothing)
{
	struct icm_volume *vol;

	open_store(WATCHED);
	vol = mount_store(url);
	cr_assert_eq(save(vol, "f", O_TRUNC, "kept"), 0);
	icm_memory_set_instance_fault(icm_volume_backend(vol), hide_tree, NULL);
	put("tree/g", "x");
	cr_assert(has_contents(vol, "f", "kept"));
	cr_assert(has_key("attr/f"));
	icm_memory_set_instance_fault(icm_volume_backend(vol), NULL, NULL);
	WAIT_FOR(is_there(vol, "g"));
	cr_assert(has_contents(vol, "f", "kept"));
	unmount(vol);
	close_store();
}

/* The foreign change and one of icmfs reach the watch together. */
Test(foreign, a_change_hidden_in_a_burst_is_found)
{
	struct icm_volume *a, *b;

	open_store(WATCHED);
	a = mount_store(url);
	b = mount_store(url);
	for (int i = 0; i < 50; i++) {
		cr_assert_eq(save(a, "ours", O_TRUNC, i % 2 ? "1" : "2"), 0);
		if (i == 25)
			put("tree/theirs", "x");
	}
	WAIT_FOR(has_contents(a, "theirs", "x"));
	WAIT_FOR(has_contents(b, "theirs", "x"));
	unmount(a);
	unmount(b);
	cr_assert_eq(problems(NULL), 0);
	close_store();
}
