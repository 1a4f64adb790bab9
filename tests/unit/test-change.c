/* SPDX-License-Identifier: MIT
 * Renames of directories that don't fit into one transaction: all or nothing for every
 * mount, whatever fails, comes late, or dies on the way, and whatever others do. */
#include <linux/fs.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "core/check.h"
#include "core/key.h"
#include "core/record.h"
#include "core/snapshot.h"
#include "tests/unit/core-mount.h"
#include "util/clock.h"

static const char *const store = "memory:change";
static struct icm_backend *raw; /* keeps the store */

static void set_up(void)
{
	raw = keep_consul_like(store);
}

static void tear_down(void)
{
	raw = icm_backend_close(raw);
}

TestSuite(change, .init = set_up, .fini = tear_down, .timeout = 110);

/* ---- programs' calls by path ---- */

static int parent_of(struct icm_volume *vol, const char *path, struct icm_view **dir,
		     const char **base)
{
	const char *slash = strrchr(path, '/');
	struct stat st;

	*base = slash ? slash + 1 : path;
	if (!slash) {
		*dir = icm_fs_root(vol);
		icm_view_ref(*dir);
		return 0;
	}
	ICM_AUTOFREE char *text = icm_xstrndup(path, (size_t)(slash - path));

	return walk(vol, text, dir, &st);
}

static int make_dir(struct icm_volume *vol, const char *path)
{
	struct icm_view *dir = NULL, *view = NULL;
	const char *base;
	struct stat st;
	int r = parent_of(vol, path, &dir, &base);

	if (r < 0)
		return r;
	r = icm_fs_mkdir(dir, &no_call, base, 0755, &view, &st);
	if (r == 0)
		icm_fs_forget(view, 1);
	icm_fs_forget(dir, 1);
	return r;
}

static int make_file(struct icm_volume *vol, const char *path, const char *text)
{
	struct icm_view *dir = NULL, *view = NULL;
	struct icm_open_result res;
	const char *base;
	struct stat st;
	int r = parent_of(vol, path, &dir, &base);

	if (r < 0)
		return r;
	r = icm_fs_create(dir, &no_call, base, 0644, O_WRONLY | O_CREAT | O_EXCL, &view, &st, &res);
	icm_fs_forget(dir, 1);
	if (r < 0)
		return r;
	r = (int)icm_fs_write(res.handle, &no_call, text, strlen(text), 0, false);
	if (r >= 0)
		r = icm_fs_flush(res.handle, &no_call, 1);
	close_path(view, res.handle);
	return r;
}

static int remove_path(struct icm_volume *vol, const char *path, bool is_dir)
{
	struct icm_view *dir = NULL;
	const char *base;
	int r = parent_of(vol, path, &dir, &base);

	if (r < 0)
		return r;
	r = is_dir ? icm_fs_rmdir(dir, &no_call, base) : icm_fs_unlink(dir, &no_call, base);
	icm_fs_forget(dir, 1);
	return r;
}

/* As the kernel does: the name is looked up before. */
static int move_path(struct icm_volume *vol, const char *from, const char *to, unsigned flags)
{
	struct icm_view *a = NULL, *b = NULL;
	const char *a_base, *b_base;
	struct stat st;
	int r = stat_path(vol, from, &st);

	if (r == 0)
		r = parent_of(vol, from, &a, &a_base);
	if (r < 0)
		return r;
	r = parent_of(vol, to, &b, &b_base);
	if (r == 0) {
		r = icm_fs_rename(a, &no_call, a_base, b, b_base, flags);
		icm_fs_forget(b, 1);
	}
	icm_fs_forget(a, 1);
	return r;
}

static bool exists(struct icm_volume *vol, const char *path)
{
	struct stat st;
	int r = stat_path(vol, path, &st);

	cr_assert(r == 0 || r == -ENOENT, "%s: %d", path, r);
	return r == 0;
}

/* ---- a tree, and what it is to be ---- */

#define N_FILES 99

/* `dir` with files, two subdirectories with files, an empty one. */
static void fill(struct icm_volume *vol, const char *dir)
{
	static const char *const below[] = { "", "/one", "/one/two", "/empty" };

	for (size_t i = 0; i < ICM_COUNT(below); i++) {
		ICM_AUTOFREE char *path = icm_asprintf("%s%s", dir, below[i]);

		cr_assert_eq(make_dir(vol, path), 0);
	}
	for (int i = 0; i < N_FILES; i++) {
		ICM_AUTOFREE char *path = icm_asprintf("%s%s/f%d", dir, below[i % 3], i);
		ICM_AUTOFREE char *text = icm_asprintf("file %d", i);

		cr_assert_eq(make_file(vol, path, text), 0);
	}
}

/* What is missing, or NULL. */
static char *missing_in(struct icm_volume *vol, const char *dir)
{
	static const char *const below[] = { "", "/one", "/one/two" };
	ICM_AUTOFREE char *empty = icm_asprintf("%s/empty", dir);

	for (int i = 0; i < N_FILES; i++) {
		ICM_AUTOFREE char *path = icm_asprintf("%s%s/f%d", dir, below[i % 3], i);
		ICM_AUTOFREE char *want = icm_asprintf("file %d", i);
		ICM_AUTOFREE char *text = NULL;
		int r;

		text = contents_of(vol, path, &r);
		if (!text || strcmp(text, want) != 0)
			return icm_asprintf("%s: %s", path, text ? text : strerror(-r));
	}
	return exists(vol, empty) ? NULL : ICM_STEAL(&empty);
}

static void assert_full(struct icm_volume *vol, const char *dir)
{
	ICM_AUTOFREE char *missing = missing_in(vol, dir);

	cr_assert_null(missing, "%s", missing);
}

struct names {
	char list[4096];
	size_t n;
};

static int note_name(void *userdata, const struct icm_dirent *e)
{
	struct names *names = userdata;

	if (strcmp(e->name, ".") == 0 || strcmp(e->name, "..") == 0)
		return 0;
	names->n++;
	if (strlen(names->list) + strlen(e->name) + 2 <= sizeof(names->list)) {
		strcat(names->list, e->name);
		strcat(names->list, " ");
	}
	return 0;
}

/* As one program's ls shows it. */
static void list_dir(struct icm_volume *vol, const char *path, struct names *ret)
{
	struct icm_view *view = icm_fs_root(vol);
	struct icm_handle *h;
	struct stat st;

	*ret = (struct names){ .n = 0 };
	if (*path)
		cr_assert_eq(walk(vol, path, &view, &st), 0, "%s", path);
	cr_assert_eq(icm_fs_opendir(view, &no_call, &h), 0);
	cr_assert_eq(icm_fs_readdir(h, &no_call, 0, note_name, ret), 0);
	icm_fs_releasedir(h);
	if (*path)
		icm_fs_forget(view, 1);
}

static size_t count_names(struct icm_volume *vol, const char *path)
{
	struct names names;

	list_dir(vol, path, &names);
	return names.n;
}

static bool lists(struct icm_volume *vol, const char *name)
{
	ICM_AUTOFREE char *word = icm_asprintf("%s ", name);
	struct names names;

	list_dir(vol, "", &names);
	return strstr(names.list, word) != NULL;
}

static size_t count_keys(const char *prefix)
{
	ICM_AUTOENTRIES struct icm_entries list = { 0 };
	uint64_t index;

	cr_assert_eq(icm_backend_list(raw, NULL, prefix, true, &list, &index), 0);
	return list.n;
}

/* The store is sound, and nothing is under way. */
static void assert_sound(void)
{
	struct icm_check_report report = { 0 };
	char *error = NULL;

	cr_assert_eq(icm_check_store(raw, &report, &error), 0, "%s", error ? error : "?");
	for (size_t i = 0; i < report.n_problems; i++)
		cr_assert_eq(report.problems[i].severity, ICM_SEVERITY_NOTE, "%s: %s",
			     report.problems[i].key, report.problems[i].what);
	icm_check_report_clear(&report);
	cr_assert_eq(count_keys("change/"), 0);
}

/* ---- without faults ---- */

Test(change, large_directory_is_renamed)
{
	struct icm_volume *vol = mount_store(store), *other = mount_store(store);

	fill(vol, "a");
	assert_full(other, "a");
	cr_assert_eq(move_path(vol, "a", "b", 0), 0);
	assert_full(vol, "b");
	assert_full(other, "b");
	cr_assert_not(exists(vol, "a"));
	cr_assert_not(exists(other, "a"));
	cr_assert_not(lists(other, "a"));
	cr_assert_eq(count_names(other, "b"), N_FILES / 3 + 2);
	cr_assert_eq(count_names(vol, "b/one"), N_FILES / 3 + 1);
	assert_sound();
	/* what moved can be written, by both */
	cr_assert_eq(save(vol, "b/f0", O_TRUNC, "new"), 0);
	cr_assert_eq(save(other, "b/one/f1", O_TRUNC, "new"), 0);
	cr_assert_eq(make_file(other, "b/one/two/more", "x"), 0);
	cr_assert_eq(remove_path(vol, "b/one/two/f2", false), 0);
	cr_assert(has_contents(other, "b/f0", "new"));
	cr_assert(has_contents(vol, "b/one/f1", "new"));
	WAIT_FOR(!exists(other, "b/one/two/f2"));
	cr_assert_eq(make_dir(vol, "a"), 0);
	assert_sound();
	unmount(other);
	unmount(vol);
}

Test(change, an_empty_directory_is_replaced)
{
	struct icm_volume *vol = mount_store(store), *other = mount_store(store);
	struct stat before, after;

	fill(vol, "a");
	cr_assert_eq(make_dir(vol, "d"), 0);
	cr_assert_eq(make_dir(vol, "d/b"), 0);
	cr_assert_eq(stat_path(vol, "a", &before), 0);
	cr_assert_eq(before.st_nlink, 4);
	WAIT_FOR(count_names(other, "a/empty") == 0);
	cr_assert_eq(move_path(vol, "a", "d/b", RENAME_NOREPLACE), -EEXIST);
	cr_assert_eq(move_path(vol, "a", "d/b", 0), 0);
	for (int i = 0; i < 2; i++) {
		/* the name of a directory that is another one now is followed by the feed */
		WAIT_FOR(stat_path(i ? vol : other, "d/b", &after) == 0 &&
			 after.st_ino == before.st_ino);
		assert_full(i ? vol : other, "d/b");
		cr_assert_eq(after.st_nlink, before.st_nlink);
		cr_assert_eq(after.st_mtim.tv_nsec, before.st_mtim.tv_nsec);
		cr_assert_eq(after.st_mtim.tv_sec, before.st_mtim.tv_sec);
		cr_assert(icm_timespec_cmp(after.st_ctim, before.st_ctim) > 0);
	}
	/* full directories aren't replaced, nor files, nor what is above */
	fill(vol, "a");
	cr_assert_eq(move_path(vol, "a", "d/b", 0), -ENOTEMPTY);
	cr_assert_eq(save(vol, "file", 0, "x"), 0);
	cr_assert_eq(move_path(vol, "a", "file", 0), -ENOTDIR);
	cr_assert_eq(move_path(vol, "a", "a/one/a", 0), -EINVAL);
	assert_full(other, "a");
	assert_sound();
	unmount(other);
	unmount(vol);
}

Test(change, all_kinds_of_files_move)
{
	struct icm_volume *vol = mount_store(store), *other = mount_store(store);
	ICM_AUTOFREE char *large = icm_xcalloc(1, (700 << 10) + 1);
	ICM_AUTOFREE char *plain = icm_xcalloc(1, (256 << 10) + 1);
	ICM_AUTOFREE char *target = NULL;
	struct icm_view *a = NULL, *view = NULL, *link = NULL;
	struct stat st;
	int r;

	memset(large, 'l', 700 << 10);
	memset(plain, 'p', 256 << 10);
	fill(vol, "a");
	cr_assert_eq(make_file(vol, "a/large", large), 0);
	cr_assert_eq(make_file(vol, "a/plain1", plain), 0);
	cr_assert_eq(make_file(vol, "a/plain2", plain), 0);
	cr_assert_eq(make_file(vol, "a/%: \n", "odd"), 0);
	cr_assert_eq(walk(vol, "a", &a, &st), 0);
	cr_assert_eq(icm_fs_symlink(a, &no_call, "symlink", "f0", &view, &st), 0);
	icm_fs_forget(view, 1);
	cr_assert_eq(icm_fs_mknod(a, &no_call, "fifo", S_IFIFO | 0600, 0, &view, &st), 0);
	icm_fs_forget(view, 1);
	cr_assert_eq(walk(vol, "a/f0", &view, &st), 0);
	cr_assert_eq(icm_fs_link(view, &no_call, icm_fs_root(vol), "linked", &link, &st), 0);
	icm_fs_forget(link, 1);
	icm_fs_forget(view, 1);
	icm_fs_forget(a, 1);
	cr_assert_eq(move_path(vol, "a", "b", 0), 0);
	for (int i = 0; i < 2; i++) {
		struct icm_volume *at = i ? vol : other;
		ICM_AUTOFREE char *text = contents_of(at, "b/large", &r);

		assert_full(at, "b");
		cr_assert(text && strcmp(text, large) == 0);
		cr_assert(has_contents(at, "b/plain1", plain));
		cr_assert(has_contents(at, "b/plain2", plain));
		cr_assert(has_contents(at, "b/%: \n", "odd"));
		cr_assert_eq(walk(at, "b/symlink", &view, &st), 0);
		cr_assert_eq(icm_fs_readlink(view, &no_call, &target), 0);
		cr_assert_str_eq(target, "f0");
		free(ICM_STEAL(&target));
		icm_fs_forget(view, 1);
		cr_assert_eq(stat_path(at, "b/fifo", &st), 0);
		cr_assert(S_ISFIFO(st.st_mode));
		WAIT_FOR(stat_path(at, "b/f0", &st) == 0 && st.st_nlink == 2);
	}
	cr_assert_eq(save(other, "linked", O_TRUNC, "both"), 0);
	cr_assert(has_contents(vol, "b/f0", "both"));
	cr_assert_eq(remove_path(vol, "b/f0", false), 0);
	cr_assert(has_contents(other, "linked", "both"));
	assert_sound();
	unmount(other);
	unmount(vol);
}

Test(change, open_files_are_written_on)
{
	struct icm_volume *vol = mount_store(store), *other = mount_store(store);
	struct icm_view *views[3];
	struct icm_handle *handles[3];

	fill(vol, "a");
	cr_assert_eq(open_path(vol, "a/f0", O_RDWR, &views[0], &handles[0]), 0);
	cr_assert_eq(open_path(other, "a/one/f1", O_RDWR, &views[1], &handles[1]), 0);
	cr_assert_eq(open_path(vol, "a/one/two/f2", O_RDWR, &views[2], &handles[2]), 0);
	cr_assert_eq(remove_path(vol, "a/one/two/f2", false), 0);
	for (int i = 0; i < 3; i++)
		cr_assert_eq(icm_fs_write(handles[i], &no_call, "FILE", 4, 0, false), 4);
	cr_assert_eq(move_path(vol, "a", "b", 0), 0);
	for (int i = 0; i < 3; i++) {
		cr_assert_eq(icm_fs_flush(handles[i], &no_call, 1), 0);
		close_path(views[i], handles[i]);
	}
	cr_assert(has_contents(other, "b/f0", "FILE 0"));
	cr_assert(has_contents(vol, "b/one/f1", "FILE 1"));
	WAIT_FOR(!exists(other, "b/one/two/f2"));
	assert_sound();
	unmount(other);
	unmount(vol);
}

/* ---- faults ---- */

/* What happens to the `at`th write of one mount, counted from 1, and later. */
struct plan {
	enum { FAIL, LOSE, LATE, LOSE_UNDONE, KILL } kind;
	unsigned at;
	atomic_uint writes;
	atomic_bool dead;
};

static bool is_write(enum icm_memory_call kind, const struct icm_op *ops, size_t n_ops)
{
	for (size_t i = 0; kind == ICM_CALL_TXN && i < n_ops; i++)
		if (ops[i].type >= ICM_OP_SET)
			return true;
	return false;
}

static struct icm_memory_fault fault(uint64_t call, enum icm_memory_call kind,
				     const struct icm_op *ops, size_t n_ops, void *userdata)
{
	static const struct icm_memory_fault faults[] = {
		[FAIL] = { ICM_FAULT_FAIL, -EHOSTUNREACH, 0 },
		[LOSE] = { ICM_FAULT_FAIL_AFTER, -ETIMEDOUT, 0 },
		[LATE] = { ICM_FAULT_LATE, -ETIMEDOUT, 20 * ICM_NS_PER_MS },
		[LOSE_UNDONE] = { ICM_FAULT_FAIL, -ETIMEDOUT, 0 },
		[KILL] = { ICM_FAULT_FAIL, -EHOSTUNREACH, 0 },
	};
	struct plan *p = userdata;

	if (atomic_load(&p->dead))
		return faults[KILL];
	if (!is_write(kind, ops, n_ops) || atomic_fetch_add(&p->writes, 1) + 1 != p->at)
		return (struct icm_memory_fault){ 0 };
	if (p->kind == KILL)
		atomic_store(&p->dead, true);
	return faults[p->kind];
}

static char *lease_key(struct icm_volume *vol)
{
	struct icm_volume_status st;
	char *key;

	icm_volume_get_status(vol, &st);
	key = icm_xstrdup(st.lease_key);
	icm_volume_status_clear(&st);
	return key;
}

/* On every mount either all is below `a`, or all below `b`. */
static void assert_one(struct icm_volume *vol, const char *a, const char *b)
{
	struct names names;
	bool old, new;
	ICM_AUTOFREE char *missing = NULL;

	list_dir(vol, "", &names);
	old = strstr(names.list, a);
	new = strstr(names.list, b);
	cr_assert(old != new, "%s", names.list);
	missing = missing_in(vol, old ? a : b);
	if (!missing)
		return;
	/* it is the other by now, as a whole */
	cr_assert(old && strstr(missing, "No such"), "%s", missing);
	cr_assert(!lists(vol, a) && lists(vol, b));
	assert_full(vol, b);
}

/* Renames with the fault; returns whether it was hit. */
static bool rename_with(int kind, unsigned at)
{
	struct plan plan = { .kind = kind, .at = at };
	struct icm_volume *vol, *other;

	set_up();
	vol = mount_store(store);
	other = mount_store(store);
	fill(vol, "a");
	icm_memory_set_instance_fault(icm_volume_backend(vol), fault, &plan);
	cr_assert_eq(move_path(vol, "a", "b", 0), 0, "%d at %u", kind, at);
	icm_memory_set_instance_fault(icm_volume_backend(vol), NULL, NULL);
	icm_memory_settle(raw);
	assert_full(vol, "b");
	WAIT_FOR(!lists(other, "a"));
	assert_full(other, "b");
	assert_sound();
	unmount(other);
	unmount(vol);
	tear_down();
	return atomic_load(&plan.writes) >= at;
}

static void rename_with_each(int kind)
{
	unsigned at = 1;

	tear_down();
	while (rename_with(kind, at))
		at++;
	cr_assert_gt(at, 10);
	set_up();
}

Test(change, each_write_fails_once)
{
	rename_with_each(FAIL);
}

Test(change, each_answer_is_lost_once)
{
	rename_with_each(LOSE);
}

Test(change, each_write_comes_late_once)
{
	rename_with_each(LATE);
}

Test(change, each_write_is_lost_once)
{
	rename_with_each(LOSE_UNDONE);
}

/* A mount that is cut off at its `at`th write and whose lease ends. */
static bool die_at(unsigned at, bool others_look)
{
	struct plan plan = { .kind = KILL, .at = at };
	struct icm_volume *vol, *other, *third;
	ICM_AUTOFREE char *key = NULL;
	bool hit;

	set_up();
	vol = mount_with((struct icm_volume_config){
		.url = store, .create = true, .uid = 1000, .gid = 100, .timeout_ms = 100 });
	other = mount_store(store);
	fill(vol, "a");
	WAIT_FOR(lists(other, "a"));
	key = lease_key(vol);
	icm_memory_set_instance_fault(icm_volume_backend(vol), fault, &plan);
	(void)!move_path(vol, "a", "b", 0);
	hit = atomic_load(&plan.dead);
	if (hit) {
		icm_memory_expire_lease(raw, key);
		third = mount_store(store); /* while it is under way, perhaps */
		if (others_look) {
			assert_one(other, "a", "b");
			assert_one(third, "a", "b");
		}
		WAIT_FOR(count_keys("change/") == 0);
		WAIT_FOR(lists(third, "a") == lists(other, "a"));
		assert_one(other, "a", "b");
		assert_one(third, "a", "b");
		assert_sound();
		unmount(third);
	}
	unmount(vol);
	unmount(other);
	tear_down();
	return hit;
}

static void die_at_each(bool others_look)
{
	unsigned at = 1;

	tear_down();
	while (die_at(at, others_look))
		at++;
	cr_assert_gt(at, 10);
	set_up();
}

Test(change, a_mount_dies_at_each_write)
{
	die_at_each(false);
}

Test(change, a_mount_dies_at_each_write_and_others_look)
{
	die_at_each(true);
}

/* ---- others, at each moment ---- */

/* What another mount does that has not heard of the change. */
static void do_something(struct icm_volume *vol, unsigned what)
{
	struct icm_view *view = NULL;
	struct stat st;
	char *target;
	int r = -ESTALE;

	switch (what) {
	case 0: /* creates where it knows the directory, or finds it gone */
		r = make_file(vol, "a/one/new", "new");
		if (r == -ENOENT)
			r = make_file(vol, "b/one/new", "new");
		break;
	case 1:
		r = remove_path(vol, "a/one/f1", false);
		if (r == -ENOENT)
			r = remove_path(vol, "b/one/f1", false);
		cr_assert_eq(r, 0);
		r = make_file(vol, "b/one/f1", "file 1");
		if (r == -ENOENT)
			r = make_file(vol, "a/one/f1", "file 1");
		break;
	case 2:
		r = remove_path(vol, "a/one/two", true);
		cr_assert(r == -ENOTEMPTY || r == -ENOENT, "%d", r);
		r = remove_path(vol, "a", true);
		cr_assert(r == -ENOTEMPTY || r == -ENOENT, "%d", r);
		r = 0;
		break;
	case 3: /* a small directory out of it, and back */
		r = move_path(vol, "a/empty", "empty", 0);
		if (r == -ENOENT)
			r = move_path(vol, "b/empty", "empty", 0);
		cr_assert_eq(r, 0);
		r = move_path(vol, "empty", "b/empty", 0);
		if (r == -ENOENT)
			r = move_path(vol, "empty", "a/empty", 0);
		break;
	case 4: /* the old name is free, or isn't */
		r = make_dir(vol, "a");
		cr_assert(r == 0 || r == -EEXIST, "%d", r);
		if (r == 0)
			r = remove_path(vol, "a", true);
		r = r == -EEXIST ? 0 : r;
		break;
	case 5: /* and the new one */
		r = make_dir(vol, "b");
		cr_assert(r == 0 || r == -EEXIST, "%d", r);
		if (r == 0)
			r = remove_path(vol, "b", true);
		r = r == -EEXIST ? 0 : r;
		break;
	case 6: /* the same rename, and another one of the same directory */
		r = move_path(vol, "a", "b", 0);
		cr_assert(r == 0 || r == -ENOENT, "%d", r);
		r = 0;
		break;
	case 7: /* a large directory that has the target in it */
		r = move_path(vol, "a/one", "one", 0);
		if (r == -ENOENT)
			r = move_path(vol, "b/one", "one", 0);
		cr_assert_eq(r, 0);
		r = move_path(vol, "one", "b/one", 0);
		if (r == -ENOENT)
			r = move_path(vol, "one", "a/one", 0);
		break;
	case 8:
		r = save(vol, "linked", O_TRUNC, "file 0");
		cr_assert_eq(r, 0);
		r = walk(vol, "a/symlink", &view, &st);
		if (r == -ENOENT)
			r = walk(vol, "b/symlink", &view, &st);
		cr_assert_eq(r, 0);
		r = icm_fs_readlink(view, &no_call, &target);
		cr_assert_eq(r, 0, "%d", r);
		cr_assert_str_eq(target, "f0");
		free(target);
		break;
	case 9: /* attributes of a directory in it */
		r = walk(vol, "a/one/two", &view, &st);
		if (r == -ENOENT)
			r = walk(vol, "b/one/two", &view, &st);
		cr_assert_eq(r, 0);
		st.st_mode = S_IFDIR | 0700;
		r = icm_fs_setattr(view, &no_call, NULL, ICM_SET_MODE, &st, &st);
		break;
	default:
		cr_assert_fail("%u", what);
	}
	cr_assert_eq(r, 0, "%u: %d", what, r);
	if (view)
		icm_fs_forget(view, 1);
}

static void add_odd_names(struct icm_volume *vol)
{
	struct icm_view *a = NULL, *view = NULL, *link = NULL;
	struct stat st;

	cr_assert_eq(walk(vol, "a", &a, &st), 0);
	cr_assert_eq(icm_fs_symlink(a, &no_call, "symlink", "f0", &view, &st), 0);
	icm_fs_forget(view, 1);
	cr_assert_eq(walk(vol, "a/f0", &view, &st), 0);
	cr_assert_eq(icm_fs_link(view, &no_call, icm_fs_root(vol), "linked", &link, &st), 0);
	icm_fs_forget(link, 1);
	icm_fs_forget(view, 1);
	icm_fs_forget(a, 1);
}

/* A mount dies at its `at`th write, and another one at once does something. */
static bool die_and_do(unsigned at, unsigned what)
{
	struct plan plan = { .kind = KILL, .at = at };
	struct icm_volume *vol, *other, *third;
	ICM_AUTOFREE char *key = NULL;
	bool hit;

	set_up();
	vol = mount_with((struct icm_volume_config){
		.url = store, .create = true, .uid = 1000, .gid = 100, .timeout_ms = 100 });
	other = mount_store(store);
	fill(vol, "a");
	add_odd_names(vol);
	WAIT_FOR(lists(other, "linked"));
	key = lease_key(vol);
	icm_memory_set_instance_fault(icm_volume_backend(vol), fault, &plan);
	(void)!move_path(vol, "a", "b", 0);
	hit = atomic_load(&plan.dead);
	if (hit) {
		icm_memory_expire_lease(raw, key);
		do_something(other, what);
		WAIT_FOR(count_keys("change/") == 0);
		third = mount_store(store);
		WAIT_FOR(lists(third, "a") == lists(other, "a"));
		assert_one(other, "a", "b");
		assert_one(third, "a", "b");
		assert_sound();
		unmount(third);
	}
	unmount(vol);
	unmount(other);
	tear_down();
	return hit;
}

/* Every second one: each costs two or three mounts. */
static void die_and_do_each(unsigned what)
{
	unsigned at = 1 + what % 2;

	tear_down();
	while (die_and_do(at, what))
		at += 2;
	cr_assert_gt(at, 10);
	set_up();
}

#define TEST_THING(n)                                                                              \
	Test(change, others_go_on_##n)                                                             \
	{                                                                                          \
		die_and_do_each(n);                                                                \
	}
TEST_THING(0)
TEST_THING(1)
TEST_THING(2)
TEST_THING(3)
TEST_THING(4)
TEST_THING(5)
TEST_THING(6)
TEST_THING(7)
TEST_THING(8)
TEST_THING(9)

/* ---- mounts that may not write ---- */

static bool die_and_read(unsigned at)
{
	struct plan plan = { .kind = KILL, .at = at };
	struct icm_volume_config reads = { .url = store, .read_only = true, .timeout_ms = 20000 };
	struct icm_volume *vol, *before, *after, *writer;
	bool hit;

	set_up();
	vol = mount_with((struct icm_volume_config){
		.url = store, .create = true, .uid = 1000, .gid = 100, .timeout_ms = 100 });
	fill(vol, "a");
	before = mount_with(reads);
	icm_memory_set_instance_fault(icm_volume_backend(vol), fault, &plan);
	(void)!move_path(vol, "a", "b", 0);
	hit = atomic_load(&plan.dead);
	if (hit) {
		/* nobody ends it, or somebody has already: the same is shown by both */
		after = mount_with(reads);
		WAIT_FOR(lists(before, "a") == lists(after, "a"));
		assert_one(before, "a", "b");
		assert_one(after, "a", "b");
		cr_assert(lists(after, "a") || count_keys("change/") == 0);
		writer = mount_store(store);
		if (count_keys("change/") == 0) {
			assert_one(writer, "a", "b");
		} else {
			/* its mount is alive for all that one knows, and is given some time */
			cr_assert_eq(remove_path(writer, "b", true), -ENOTEMPTY);
			WAIT_FOR(!lists(before, "a") && !lists(after, "a"));
			assert_full(writer, "b");
			assert_full(before, "b");
			assert_full(after, "b");
		}
		assert_sound();
		unmount(writer);
		unmount(after);
	}
	unmount(before);
	unmount(vol);
	tear_down();
	return hit;
}

Test(change, read_only_mounts_see_through_it)
{
	unsigned at = 1;

	tear_down();
	/* each takes as long as one waits for a mount that is alive: some will do */
	while (die_and_read(at))
		at += 4;
	cr_assert_gt(at, 8);
	set_up();
}

/* ---- all at once ---- */

#define N_TURNS 6
#define N_MADE	200

struct bustle {
	struct icm_volume *vol;
	atomic_bool *stop;
	unsigned number, done;
};

/* The directory goes to and fro by two mounts; one of them is the first each time. */
static void *rename_on(void *arg)
{
	struct bustle *b = arg;

	while (b->done < N_TURNS) {
		bool back = lists(b->vol, "b");
		int r = move_path(b->vol, back ? "b" : "a", back ? "a" : "b", RENAME_NOREPLACE);

		cr_assert(r == 0 || r == -ENOENT || r == -EEXIST, "%d", r);
		b->done += r == 0;
	}
	return NULL;
}

static const char *now_at(struct icm_volume *vol)
{
	return lists(vol, "a") ? "a" : "b";
}

/* Each name that this makes is there in the end. */
static void *create_on(void *arg)
{
	struct bustle *b = arg;

	while (!atomic_load(b->stop) && b->done < N_MADE) {
		ICM_AUTOFREE char *path =
			icm_asprintf("%s/one/two/w%u-%u", now_at(b->vol), b->number, b->done);
		int r = make_file(b->vol, path, "made");

		cr_assert(r == 0 || r == -ENOENT, "%s: %d", path, r);
		b->done += r == 0;
	}
	return NULL;
}

/* What is written through a name is in the file in the end. */
static void *write_on(void *arg)
{
	struct bustle *b = arg;

	while (!atomic_load(b->stop)) {
		ICM_AUTOFREE char *path = icm_asprintf("%s/f%u", now_at(b->vol), 3 * b->number);
		ICM_AUTOFREE char *text = icm_asprintf("written %u", b->done + 1);
		int r = make_file(b->vol, path, text);

		if (r == -EEXIST)
			r = remove_path(b->vol, path, false);
		else if (r == 0)
			b->done++;
		cr_assert(r == 0 || r == -ENOENT, "%s: %d", path, r);
	}
	return NULL;
}

static void *look_on(void *arg)
{
	struct bustle *b = arg;

	while (!atomic_load(b->stop)) {
		struct names names;

		list_dir(b->vol, "", &names);
		cr_assert_eq(names.n, 1, "%s", names.list);
		b->done++;
	}
	return NULL;
}

Test(change, everybody_works_on)
{
	struct icm_volume *vol[3] = { mount_store(store), mount_store(store), mount_store(store) };
	void *(*const does[])(void *) = { rename_on, rename_on, create_on,
					  write_on,  create_on, look_on };
	struct bustle b[ICM_COUNT(does)];
	pthread_t threads[ICM_COUNT(does)];
	atomic_bool stop = false;
	struct names names;
	const char *dir;

	fill(vol[0], "a");
	for (size_t i = 0; i < ICM_COUNT(does); i++) {
		b[i] = (struct bustle){ .vol = vol[i % 3], .stop = &stop, .number = (unsigned)i };
		cr_assert_eq(pthread_create(&threads[i], NULL, does[i], &b[i]), 0);
	}
	for (size_t i = 0; i < ICM_COUNT(does); i++) {
		pthread_join(threads[i], NULL);
		atomic_store(&stop, i >= 1); /* when both have renamed enough */
	}
	dir = now_at(vol[0]);
	for (size_t i = 2; i < ICM_COUNT(does); i++)
		cr_assert_gt(b[i].done, 0);
	for (int v = 0; v < 3; v++) {
		ICM_AUTOFREE char *two = icm_asprintf("%s/one/two", dir);

		list_dir(vol[v], two, &names);
		for (size_t i = 2; i <= 4; i += 2) {
			for (unsigned n = 0; n < b[i].done; n++) {
				ICM_AUTOFREE char *path = icm_asprintf("%s/w%zu-%u", two, i, n);

				cr_assert(has_contents(vol[v], path, "made"), "%s", path);
			}
		}
		cr_assert_eq(names.n, N_FILES / 3 + b[2].done + b[4].done);
	}
	assert_sound();
	for (int v = 0; v < 3; v++)
		unmount(vol[v]);
}

/* ---- snapshots ---- */

Test(change, a_snapshot_waits_for_the_end)
{
	struct plan plan = { .kind = KILL, .at = 5 };
	struct icm_volume *vol = mount_with((struct icm_volume_config){
		.url = store, .create = true, .uid = 1000, .gid = 100, .timeout_ms = 100 });
	struct icm_volume *other = mount_store(store);
	ICM_AUTOFREE char *key = NULL;
	struct icm_view *snapshots = NULL, *made = NULL;
	struct stat st;

	fill(vol, "a");
	key = lease_key(vol);
	icm_memory_set_instance_fault(icm_volume_backend(vol), fault, &plan);
	cr_assert_lt(move_path(vol, "a", "b", 0), 0);
	cr_assert_eq(count_keys("change/"), 1);
	icm_memory_expire_lease(raw, key);
	cr_assert_eq(icm_snapshot_create(other, "shot", 0), 0);
	cr_assert_eq(count_keys("change/"), 0);
	cr_assert_eq(walk(other, ".icmfs/snapshots/shot", &snapshots, &st), 0);
	cr_assert_eq(icm_fs_lookup(snapshots, &no_call, "b", &made, &st), 0);
	icm_fs_forget(made, 1);
	cr_assert_eq(icm_fs_lookup(snapshots, &no_call, "a", &made, &st), -ENOENT);
	icm_fs_forget(snapshots, 1);
	unmount(other);
	unmount(vol);
}
