/* SPDX-License-Identifier: MIT
 * Snapshots over the memory store, as two mounts see them. */
#include <pthread.h>
#include <stdatomic.h>
#include <sys/xattr.h>

#include "core/key.h"
#include "core/snapshot.h"
#include "tests/unit/raw-store.h"

#define STORE "memory:snapshots"
#define SNAPS ".icmfs/snapshots"

static struct icm_volume *a, *b;

static void set_up(void)
{
	raw = keep_consul_like(STORE);
	a = mount_store(STORE);
	b = mount_store(STORE);
}

static void tear_down(void)
{
	unmount(a);
	unmount(b);
	icm_backend_close(raw);
}

TestSuite(snapshot, .init = set_up, .fini = tear_down, .timeout = 120);

/* ---- calls by path ---- */

/* The directory of a path and its last component (borrowed). */
static struct icm_view *parent_of(struct icm_volume *vol, const char *path, const char **ret_base)
{
	const char *slash = strrchr(path, '/');
	struct icm_view *dir = NULL;
	struct stat st;

	*ret_base = slash ? slash + 1 : path;
	if (!slash) {
		icm_view_ref(icm_fs_root(vol));
		return icm_fs_root(vol);
	}
	ICM_AUTOFREE char *above = icm_xstrndup(path, (size_t)(slash - path));
	cr_assert_eq(walk(vol, above, &dir, &st), 0, "%s", above);
	return dir;
}

/* mkdir, mknod, symlink: whichever the mode says. */
static int make(struct icm_volume *vol, const char *path, mode_t mode, const char *target)
{
	const char *base;
	struct icm_view *dir = parent_of(vol, path, &base), *view = NULL;
	struct stat st;
	int r;

	if (S_ISDIR(mode))
		r = icm_fs_mkdir(dir, &no_call, base, mode & 07777, &view, &st);
	else if (S_ISLNK(mode))
		r = icm_fs_symlink(dir, &no_call, base, target, &view, &st);
	else
		r = icm_fs_mknod(dir, &no_call, base, mode, 0, &view, &st);
	if (r == 0)
		icm_fs_forget(view, 1);
	icm_fs_forget(dir, 1);
	return r;
}

static int removal(struct icm_volume *vol, const char *path, bool is_dir)
{
	const char *base;
	struct icm_view *dir = parent_of(vol, path, &base);
	int r = is_dir ? icm_fs_rmdir(dir, &no_call, base) : icm_fs_unlink(dir, &no_call, base);

	icm_fs_forget(dir, 1);
	return r;
}

static int move(struct icm_volume *vol, const char *from, const char *to)
{
	const char *base, *to_base;
	struct icm_view *dir = parent_of(vol, from, &base), *to_dir = parent_of(vol, to, &to_base);
	int r = icm_fs_rename(dir, &no_call, base, to_dir, to_base, 0);

	icm_fs_forget(dir, 1);
	icm_fs_forget(to_dir, 1);
	return r;
}

static int make_link(struct icm_volume *vol, const char *from, const char *to)
{
	const char *base;
	struct icm_view *dir = parent_of(vol, to, &base), *file = NULL, *view = NULL;
	struct stat st;
	int r;

	cr_assert_eq(walk(vol, from, &file, &st), 0);
	r = icm_fs_link(file, &no_call, dir, base, &view, &st);
	if (r == 0)
		icm_fs_forget(view, 1);
	icm_fs_forget(file, 1);
	icm_fs_forget(dir, 1);
	return r;
}

/* A file of `len` bytes, all the same, but a hole before the last. */
static void save_large(struct icm_volume *vol, const char *path, size_t len, char c)
{
	struct icm_view *view = NULL;
	struct icm_handle *h = NULL;
	ICM_AUTOFREE char *bytes = icm_xmalloc(1 << 20);

	memset(bytes, c, 1 << 20);
	cr_assert_eq(open_path(vol, path, O_WRONLY | O_CREAT | O_TRUNC, &view, &h), 0);
	cr_assert_eq(icm_fs_write(h, &no_call, bytes, 600000, 0, false), 600000);
	cr_assert_eq(icm_fs_write(h, &no_call, &c, 1, (off_t)len - 1, false), 1);
	cr_assert_eq(icm_fs_flush(h, &no_call, 1), 0);
	close_path(view, h);
}

static bool is_large(struct icm_volume *vol, const char *path, size_t len, char c)
{
	int r;
	ICM_AUTOFREE char *text = contents_of(vol, path, &r);

	return text && text[0] == c && text[599999] == c && text[600000] == 0 && text[len - 1] == c;
}

static int snap(struct icm_volume *vol, const char *name)
{
	ICM_AUTOFREE char *path = icm_asprintf(SNAPS "/%s", name);

	return make(vol, path, S_IFDIR | 0755, NULL);
}

static int add_name(void *userdata, const struct icm_dirent *e)
{
	if (strcmp(e->name, ".") != 0 && strcmp(e->name, "..") != 0)
		icm_buf_addf(userdata, "%s ", e->name);
	return 0;
}

static char *names_in(struct icm_volume *vol, const char *path)
{
	struct icm_buf names = ICM_BUF_INIT(0);
	struct icm_view *dir = NULL;
	struct icm_handle *h;
	struct stat st;

	cr_assert_eq(walk(vol, path, &dir, &st), 0);
	cr_assert_eq(icm_fs_opendir(dir, &no_call, &h), 0);
	cr_assert_eq(icm_fs_readdir(h, &no_call, 0, add_name, &names), 0);
	icm_fs_releasedir(h);
	icm_fs_forget(dir, 1);
	return icm_buf_steal(&names, NULL);
}

static char *target_of(struct icm_volume *vol, const char *path)
{
	struct icm_view *view = NULL;
	char *target = NULL;
	struct stat st;

	cr_assert_eq(walk(vol, path, &view, &st), 0);
	cr_assert_eq(icm_fs_readlink(view, &no_call, &target), 0);
	icm_fs_forget(view, 1);
	return target;
}

static bool same_time(struct timespec x, struct timespec y)
{
	return x.tv_sec == y.tv_sec && x.tv_nsec == y.tv_nsec;
}

/* ---- what is in one ---- */

static const char *const everything[] = {
	"plain", "empty", "large", "link", "fifo", "one", "two", "d", "d/in", "d/sub", "d/sub/deep",
};

static void fill(void)
{
	struct icm_view *view = NULL;
	struct stat st = { .st_mode = 0600 };

	cr_assert_eq(save(a, "plain", O_TRUNC, "before"), 0);
	cr_assert_eq(save(a, "empty", O_TRUNC, ""), 0);
	save_large(a, "large", 1300000, 'x');
	cr_assert_eq(make(a, "link", S_IFLNK, "to/somewhere"), 0);
	cr_assert_eq(make(a, "fifo", S_IFIFO | 0640, NULL), 0);
	cr_assert_eq(save(a, "one", O_TRUNC, "linked"), 0);
	cr_assert_eq(make_link(a, "one", "two"), 0);
	cr_assert_eq(make(a, "d", S_IFDIR | 0750, NULL), 0);
	cr_assert_eq(make(a, "d/in", S_IFREG | 0644, NULL), 0);
	cr_assert_eq(make(a, "d/sub", S_IFDIR | 0755, NULL), 0);
	cr_assert_eq(make(a, "d/sub/deep", S_IFREG | 0644, NULL), 0);
	cr_assert_eq(walk(a, "plain", &view, &st), 0);
	cr_assert_eq(icm_fs_setxattr(view, &no_call, "user.note", "kept", 4, 0), 0);
	st.st_mode = 0600;
	cr_assert_eq(icm_fs_setattr(view, &no_call, NULL, ICM_SET_MODE, &st, &st), 0);
	icm_fs_forget(view, 1);
}

/* Everything is changed, moved or removed, by both mounts. */
static void change_all(void)
{
	cr_assert_eq(save(b, "plain", O_TRUNC, "after, and longer"), 0);
	cr_assert_eq(save(b, "empty", O_TRUNC, "no more"), 0);
	save_large(a, "large", 1200000, 'y');
	cr_assert_eq(removal(b, "link", false), 0);
	cr_assert_eq(removal(a, "fifo", false), 0);
	cr_assert_eq(save(a, "two", O_TRUNC, "other bytes"), 0);
	cr_assert_eq(removal(b, "one", false), 0);
	cr_assert_eq(move(a, "d", "moved"), 0);
	cr_assert_eq(removal(b, "moved/in", false), 0);
	cr_assert_eq(save(a, "new", O_TRUNC, "new"), 0);
}

static void expect_stat(struct icm_volume *vol, const char *path, const struct stat *want)
{
	ICM_AUTOFREE char *there = icm_asprintf(SNAPS "/s/%s", path);
	struct stat st;

	cr_assert_eq(stat_path(vol, there, &st), 0, "%s", there);
	cr_expect_eq(st.st_mode, want->st_mode, "%s: %o", path, st.st_mode);
	cr_expect_eq(st.st_nlink, want->st_nlink, "%s", path);
	cr_expect_eq(st.st_uid, want->st_uid);
	cr_expect_eq(st.st_gid, want->st_gid);
	cr_expect_eq(st.st_size, want->st_size, "%s", path);
	cr_expect_eq(st.st_blocks, want->st_blocks, "%s", path);
	cr_expect(same_time(st.st_mtim, want->st_mtim), "%s: mtime", path);
	cr_expect(same_time(st.st_ctim, want->st_ctim), "%s: ctime", path);
	cr_expect_neq(st.st_ino, want->st_ino, "%s: cp would take it for the same file", path);
	cr_expect_eq(st.st_ino & (ICM_INO_MAX - 1), want->st_ino, "%s", path);
}

static void expect_contents(struct icm_volume *vol)
{
	ICM_AUTOFREE char *target = target_of(vol, SNAPS "/s/link");
	ICM_AUTOFREE char *names = names_in(vol, SNAPS "/s");
	struct icm_view *view = NULL;
	struct stat st;
	char value[10];

	cr_expect(has_contents(vol, SNAPS "/s/plain", "before"));
	cr_expect(has_contents(vol, SNAPS "/s/empty", ""));
	cr_expect(is_large(vol, SNAPS "/s/large", 1300000, 'x'));
	cr_expect(has_contents(vol, SNAPS "/s/one", "linked"));
	cr_expect(has_contents(vol, SNAPS "/s/two", "linked"));
	cr_expect(has_contents(vol, SNAPS "/s/d/in", ""));
	cr_expect_str_eq(target, "to/somewhere");
	cr_expect_str_eq(names, "d empty fifo large link one plain two ");
	cr_assert_eq(walk(vol, SNAPS "/s/plain", &view, &st), 0);
	cr_expect_eq(icm_fs_getxattr(view, &no_call, "user.note", value, sizeof(value)), 4);
	cr_expect_eq(icm_fs_listxattr(view, &no_call, NULL, 0), (ssize_t)sizeof("user.note"));
	icm_fs_forget(view, 1);
}

Test(snapshot, keeps_everything_as_it_was)
{
	struct stat before[ICM_COUNT(everything)], root, st;

	fill();
	for (size_t i = 0; i < ICM_COUNT(everything); i++)
		cr_assert_eq(stat_path(a, everything[i], &before[i]), 0, "%s", everything[i]);
	cr_assert_eq(icm_fs_getattr(icm_fs_root(a), &no_call, NULL, &root), 0);
	cr_assert_eq(snap(a, "s"), 0);
	expect_contents(a);
	change_all();
	expect_contents(a);
	expect_contents(b);
	for (size_t i = 0; i < ICM_COUNT(everything); i++) {
		expect_stat(a, everything[i], &before[i]);
		expect_stat(b, everything[i], &before[i]);
	}
	cr_assert_eq(stat_path(b, SNAPS "/s", &st), 0);
	cr_expect(same_time(st.st_mtim, root.st_mtim));
	cr_expect_eq(stat_path(b, SNAPS "/s/new", &st), -ENOENT);
	cr_expect_eq(problems(NULL), 0);
}

Test(snapshot, cannot_be_changed)
{
	struct icm_view *dir = NULL, *view = NULL;
	struct icm_open_result res;
	struct stat st;

	fill();
	cr_assert_eq(snap(a, "s"), 0);
	cr_assert_eq(walk(a, SNAPS "/s", &dir, &st), 0);
	cr_expect_eq(save(a, SNAPS "/s/plain", O_TRUNC, "x"), -EROFS);
	cr_expect_eq(icm_fs_create(dir, &no_call, "x", 0644, O_RDWR, &view, &st, &res), -EROFS);
	cr_expect_eq(make(a, SNAPS "/s/x", S_IFDIR | 0755, NULL), -EROFS);
	cr_expect_eq(make(a, SNAPS "/s/x", S_IFIFO | 0755, NULL), -EROFS);
	cr_expect_eq(make(a, SNAPS "/s/x", S_IFLNK, "t"), -EROFS);
	cr_expect_eq(removal(a, SNAPS "/s/plain", false), -EROFS);
	cr_expect_eq(removal(a, SNAPS "/s/d", true), -EROFS);
	cr_expect_eq(move(a, SNAPS "/s/plain", SNAPS "/s/x"), -EROFS);
	cr_expect_eq(move(a, SNAPS "/s/plain", "x"), -EXDEV);
	cr_expect_eq(make_link(a, SNAPS "/s/plain", "x"), -EXDEV);
	cr_assert_eq(walk(a, SNAPS "/s/plain", &view, &st), 0);
	cr_expect_eq(icm_fs_setattr(view, &no_call, NULL, ICM_SET_MODE, &st, &st), -EROFS);
	cr_expect_eq(icm_fs_setxattr(view, &no_call, "user.x", "y", 1, 0), -EROFS);
	cr_expect_eq(icm_fs_removexattr(view, &no_call, "user.note"), -EROFS);
	icm_fs_forget(view, 1);
	icm_fs_forget(dir, 1);
}

/* ---- names ---- */

Test(snapshot, names_of_snapshots)
{
	ICM_AUTOFREE char *names = NULL;
	ICM_AUTOFREE char *left = NULL;
	ICM_AUTOFREE char *long_name = icm_xcalloc(1, 300);
	struct stat st;

	memset(long_name, 'n', 256);
	cr_assert_eq(save(a, "f", O_TRUNC, "1"), 0);
	cr_expect_eq(snap(a, "first"), 0);
	cr_expect_eq(snap(b, "first"), -EEXIST);
	cr_expect_eq(snap(b, "50% \xff\n"), 0);
	cr_expect_eq(snap(a, long_name), -ENAMETOOLONG);
	put("snap/a%62", "{}"); /* another spelling, and a path: no names */
	put("snap/x/y", "{}");
	names = names_in(b, SNAPS);
	cr_expect_str_eq(names, "50% \xff\n first ");
	cr_assert_eq(save(a, "f", O_TRUNC, "2"), 0);
	cr_expect(has_contents(a, SNAPS "/50% \xff\n/f", "1"));
	cr_expect_eq(removal(b, SNAPS "/first", true), 0);
	cr_expect_eq(removal(b, SNAPS "/first", true), -ENOENT);
	cr_expect_eq(stat_path(a, SNAPS "/first", &st), -ENOENT);
	cr_expect_eq(snap(a, "first"), 0);
	cr_expect(has_contents(b, SNAPS "/first/f", "2"));
	left = names_in(a, SNAPS);
	cr_expect_str_eq(left, names);
}

/* Who has one open goes on reading it. */
Test(snapshot, a_removed_one_stays_with_its_readers)
{
	struct icm_view *view = NULL;
	struct icm_handle *h = NULL;
	char text[10] = "";

	cr_assert_eq(save(a, "f", O_TRUNC, "kept"), 0);
	cr_assert_eq(snap(a, "s"), 0);
	cr_assert_eq(open_path(a, SNAPS "/s/f", O_RDONLY, &view, &h), 0);
	cr_assert_eq(removal(b, SNAPS "/s", true), 0);
	cr_assert_eq(save(a, "f", O_TRUNC, "other"), 0);
	cr_assert_eq(snap(a, "s"), 0);
	cr_expect_eq(icm_fs_read(h, &no_call, text, sizeof(text), 0), 4);
	cr_expect_str_eq(text, "kept");
	cr_expect(has_contents(a, SNAPS "/s/f", "other"));
	close_path(view, h);
}

/* ---- one point in time ---- */

static atomic_bool stop;

/* Saves 1, 2, 3, … first in one file, then in a second one, then a directory of
 * that name, which it moves. */
static void *count_up(void *arg)
{
	(void)arg;
	for (int i = 1; !atomic_load(&stop); i++) {
		char text[20];

		snprintf(text, sizeof(text), "%d", i);
		cr_assert_eq(save(b, "first", O_TRUNC, text), 0);
		cr_assert_eq(save(b, "second", O_TRUNC, text), 0);
		cr_assert_eq(move(b, i % 2 ? "odd" : "even", i % 2 ? "even" : "odd"), 0);
	}
	return NULL;
}

static int number_in(const char *snapshot, const char *file)
{
	ICM_AUTOFREE char *path = icm_asprintf(SNAPS "/%s/%s", snapshot, file);
	int r;
	ICM_AUTOFREE char *text = contents_of(a, path, &r);

	cr_assert(text, "%s: %s", path, strerror(-r));
	return atoi(text);
}

Test(snapshot, is_one_point_in_time)
{
	pthread_t writer;

	cr_assert_eq(save(a, "first", O_TRUNC, "0"), 0);
	cr_assert_eq(save(a, "second", O_TRUNC, "0"), 0);
	cr_assert_eq(make(a, "odd", S_IFDIR | 0755, NULL), 0);
	/* more directories than fit into the first transaction with Consul's limits */
	for (int i = 0; i < 80; i++) {
		char path[30];

		snprintf(path, sizeof(path), "odd/%d", i % 10);
		cr_assert_geq(i < 10 ? make(a, path, S_IFDIR | 0755, NULL) : 0, 0);
		snprintf(path, sizeof(path), "d%d", i);
		cr_assert_eq(make(a, path, S_IFDIR | 0755, NULL), 0);
	}
	cr_assert_eq(pthread_create(&writer, NULL, count_up, NULL), 0);
	for (int i = 0; i < 40; i++) {
		struct stat st;
		char name[20], path[60];
		int first, second, r;

		snprintf(name, sizeof(name), "s%d", i);
		cr_assert_eq(r = snap(a, name), 0, "%s", strerror(-r));
		first = number_in(name, "first");
		second = number_in(name, "second");
		cr_expect(first == second || first == second + 1, "%d and %d", first, second);
		snprintf(path, sizeof(path), SNAPS "/%s/odd/9", name);
		r = stat_path(a, path, &st);
		snprintf(path, sizeof(path), SNAPS "/%s/even/9", name);
		cr_expect_neq(r == 0, stat_path(a, path, &st) == 0, "one of odd and even");
	}
	atomic_store(&stop, true);
	pthread_join(writer, NULL);
	cr_expect_eq(problems(NULL), 0);
}

/* ---- damage ---- */

/* The first key that starts with a prefix. */
static char *first_key(const char *prefix)
{
	ICM_AUTOENTRIES struct icm_entries list = { 0 };
	uint64_t index;

	cr_assert_eq(icm_backend_list(raw, NULL, prefix, true, &list, &index), 0);
	cr_assert_gt(list.n, 0);
	return icm_xstrdup(list.v[0].key);
}

Test(snapshot, a_damaged_one_harms_nothing_else)
{
	ICM_AUTOFREE char *manifest = NULL;
	struct stat st;

	cr_assert_eq(save(a, "f", O_TRUNC, "fine"), 0);
	cr_assert_eq(snap(a, "s"), 0);
	put("snap/bad", "{\"id\":1}");
	cr_expect_eq(stat_path(a, SNAPS "/bad", &st), -EIO);
	cr_expect_eq(problems("snap/bad"), 1);
	cr_expect_eq(stat_path(a, SNAPS "/s/f", &st), 0);
	manifest = first_key("blob/");
	put(manifest, "[{\"path\":\"\"}]");
	cr_expect_eq(stat_path(b, SNAPS "/s/f", &st), -EIO);
	drop(manifest);
	cr_expect_eq(stat_path(b, SNAPS "/s/f", &st), -EIO);
	cr_expect_eq(problems("snap/s"), 1);
	cr_expect(has_contents(b, "f", "fine"));
	cr_expect_eq(removal(a, SNAPS "/bad", true), 0);
	cr_expect_eq(removal(a, SNAPS "/s", true), 0);
	cr_expect_eq(problems(NULL), 0);
}

/* What another program overwrites is gone, and said to be. */
Test(snapshot, contents_that_are_lost_are_named)
{
	int r;

	cr_assert_eq(save(a, "f", O_TRUNC, "icmfs"), 0);
	cr_assert_eq(save(a, "g", O_TRUNC, "icmfs too"), 0);
	cr_assert_eq(snap(a, "s"), 0);
	put("tree/f", "another program");
	WAIT_FOR(has_contents(a, "f", "another program"));
	cr_expect_null(contents_of(a, SNAPS "/s/f", &r));
	cr_expect_eq(r, -EIO);
	cr_expect(has_contents(a, SNAPS "/s/g", "icmfs too"));
	cr_expect_eq(problems("snap/s"), 1);
}

/* What lacks a key, which another program may just be removing, or can't be read
 * doesn't keep the rest from being kept. */
Test(snapshot, of_a_damaged_tree)
{
	struct stat st;

	cr_assert_eq(make(a, "d", S_IFDIR | 0755, NULL), 0);
	cr_assert_eq(save(a, "f", O_TRUNC, "fine"), 0);
	cr_assert_eq(make(a, "l", S_IFLNK, "gone"), 0);
	drop("tree/d/");
	drop("tree/l");
	put("attr/x", "{");
	cr_assert_eq(snap(a, "s"), 0);
	cr_expect(has_contents(b, SNAPS "/s/f", "fine"));
	cr_expect_eq(stat_path(b, SNAPS "/s/l", &st), -ENOENT);
	cr_expect_eq(stat_path(b, SNAPS "/s/x", &st), -ENOENT);
}

/* ---- faults ---- */

struct fault_at {
	size_t at; /* the call that is faulty, counted from 1 */
	struct icm_memory_fault fault;
	size_t n; /* calls so far */
};

static struct icm_memory_fault decide(uint64_t call, enum icm_memory_call kind,
				      const struct icm_op *ops, size_t n_ops, void *userdata)
{
	struct fault_at *f = userdata;

	(void)call;
	for (size_t i = 0; kind == ICM_CALL_TXN && i < n_ops; i++)
		if (strncmp(ops[i].key, "snap/", 5) == 0 && ++f->n == f->at)
			return f->fault;
	return (struct icm_memory_fault){ 0 };
}

Test(snapshot, an_unknown_outcome_is_settled)
{
	const struct icm_memory_fault faults[] = {
		{ .fault = ICM_FAULT_FAIL_AFTER, .error = -ETIMEDOUT },
		{ .fault = ICM_FAULT_FAIL, .error = -ETIMEDOUT },
		{ .fault = ICM_FAULT_FAIL, .error = -EHOSTUNREACH },
	};

	cr_assert_eq(save(a, "f", O_TRUNC, "fine"), 0);
	for (size_t i = 0; i < ICM_COUNT(faults); i++) {
		struct fault_at f = { .at = 1, .fault = faults[i] };
		char name[20], path[60];

		snprintf(name, sizeof(name), "s%zu", i);
		icm_memory_set_instance_fault(icm_volume_backend(a), decide, &f);
		cr_expect_eq(snap(a, name), 0, "%zu", i);
		icm_memory_set_instance_fault(icm_volume_backend(a), NULL, NULL);
		cr_expect_geq(f.n, 1);
		snprintf(path, sizeof(path), SNAPS "/%s/f", name);
		cr_expect(has_contents(b, path, "fine"));
	}
	cr_expect_eq(problems(NULL), 0);
}
