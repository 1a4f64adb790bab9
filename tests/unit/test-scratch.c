/* SPDX-License-Identifier: MIT
 * Scratch files on a directory of /tmp, without a volume behind them. */
#include <criterion/criterion.h>
#include <errno.h>
#include <ftw.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>
#include <unistd.h>

#include "core/introspect.h"
#include "core/scratch.h"
#include "util/buf.h"
#include "util/cleanup.h"

/* In place of the volume and of the shared kind. */
static struct icm_lock_set *lock_set;
const struct icm_view_ops icm_shared_view_ops = { .name = "shared" };

struct icm_lock_set *icm_volume_lock_set(struct icm_volume *vol)
{
	return lock_set;
}

static char root[] = "/tmp/icm-scratch-XXXXXX";
static char *dir; /* the scratch root */
static struct icm_scratch *s;
static const struct icm_call call = { .uid = 0, .gid = 0, .pid = 1 };
static const struct icm_call user = { .uid = 60001, .gid = 61001, .pid = 1 };

static void setup(void)
{
	char *error = NULL;

	cr_assert(mkdtemp(root));
	dir = icm_asprintf("%s/a/b", root);
	lock_set = icm_lock_set_new();
	cr_assert_eq(icm_scratch_open(NULL, dir, NULL, &s, &error), 0, "%s", error);
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	return remove(path);
}

static void teardown(void)
{
	s = icm_scratch_close(s);
	lock_set = icm_lock_set_free(lock_set);
	nftw(root, remove_one, 16, FTW_DEPTH | FTW_PHYS);
	free(dir);
}

TestSuite(scratch, .init = setup, .fini = teardown);

static char *local(const char *path)
{
	return icm_asprintf("%s/%s", dir, path);
}

static bool is_there(const char *path)
{
	ICM_AUTOFREE char *full = local(path);
	struct stat st;

	return lstat(full, &st) == 0;
}

/* Makes a file in a shared directory and leaves it open; its view is the handle's. */
static struct icm_handle *make(const char *in, const char *name, const char *text)
{
	struct icm_open_result open;
	struct icm_view *view;
	struct stat st;

	cr_assert_eq(icm_scratch_create(s, &call, in, name, 0644, O_RDWR, &view, &st, &open), 0);
	cr_assert(open.keep_cache && !open.direct);
	cr_assert_eq(icm_fs_write(open.handle, &call, text, strlen(text), 0, false),
		     (ssize_t)strlen(text));
	icm_fs_forget(view, 1);
	return open.handle;
}

static void make_closed(const char *in, const char *name, const char *text)
{
	icm_fs_release(make(in, name, text));
}

static struct icm_view *make_dir(const char *in, const char *name)
{
	struct icm_view *view;
	struct stat st;

	cr_assert_eq(icm_scratch_mkdir(s, &call, in, name, 0755, &view, &st), 0);
	return view;
}

static struct icm_view *find(const char *in, const char *name)
{
	struct icm_view *view;
	struct stat st;

	return icm_scratch_lookup(s, in, name, &view, &st) == 0 ? view : NULL;
}

static void assert_text(struct icm_view *view, const char *text)
{
	struct icm_open_result open;
	char buf[64];
	ssize_t n;

	cr_assert_eq(icm_fs_open(view, &call, O_RDONLY, &open), 0);
	n = icm_fs_read(open.handle, &call, buf, sizeof(buf), 0);
	cr_assert_eq(n, (ssize_t)strlen(text));
	cr_assert_arr_eq(buf, text, strlen(text));
	icm_fs_release(open.handle);
}

/* ---- which names ---- */

Test(scratch, default_patterns)
{
	static const char *const scratch[] = { "a.log",		".x.swp",
					       ".x.swo",	"x~",
					       ".#x",		"#x#",
					       "4913",		"d/a.tmp",
					       "ssh.out",	"d/e/ssh.err",
					       "docker.out",	"jdbc.out",
					       "terraform.err", ".terraform/plugin" };
	static const char *const shared[] = { "log",
					      "definitions.json",
					      "#x",
					      ".terraform.lock.hcl",
					      ".terraform.tfstate.lock.info",
					      "state/x/terraform.tfstate",
					      "terraform.out",
					      ".terraform" };

	for (size_t i = 0; i < ICM_COUNT(scratch); i++)
		cr_expect(icm_scratch_match(s, scratch[i], false), "%s", scratch[i]);
	for (size_t i = 0; i < ICM_COUNT(shared); i++)
		cr_expect_not(icm_scratch_match(s, shared[i], false), "%s", shared[i]);
	cr_expect(icm_scratch_match(s, "state/x/.terraform", true));
}

Test(scratch, the_tree_adds_patterns_and_takes_them_back)
{
	static const char text[] = "!keep.log\nbuild/\n";

	icm_scratch_set_ignore(s, text, strlen(text));
	cr_assert_not(icm_scratch_match(s, "keep.log", false));
	cr_assert(icm_scratch_match(s, "build/x", false));
	cr_assert(icm_scratch_match(s, "b.log", false));
	icm_scratch_set_ignore(s, NULL, 0);
	cr_assert(icm_scratch_match(s, "keep.log", false));
	cr_assert_not(icm_scratch_match(s, "build/x", false));
}

Test(scratch, a_bad_pattern_file_is_refused)
{
	ICM_AUTOFREE char *path = icm_asprintf("%s/patterns", root);
	ICM_AUTOFREE char *error = NULL;
	ICM_AUTOFREE char *missing = NULL;
	struct icm_scratch *other;
	FILE *f = fopen(path, "w");

	fputs("*.x\n[oops\n", f);
	fclose(f);
	cr_assert_eq(icm_scratch_open(NULL, dir, path, &other, &error), -EINVAL);
	cr_assert(strstr(error, "line 2"), "%s", error);
	cr_assert_eq(icm_scratch_open(NULL, dir, "/nowhere/x", &other, &missing), -EINVAL);
	cr_assert(strstr(missing, "/nowhere/x"));
}

/* ---- files ---- */

Test(scratch, a_file_keeps_its_bytes_and_its_number)
{
	struct icm_handle *h = make("state/d 0", "x.log", "hello");
	struct icm_view *view = find("state/d 0", "x.log");
	struct stat st;

	cr_assert_eq(view, h->view);
	cr_assert_eq(icm_fs_getattr(view, &call, NULL, &st), 0);
	cr_assert_eq(st.st_size, 5);
	cr_assert_eq(st.st_mode, S_IFREG | 0644);
	cr_assert_eq(st.st_ino, icm_view_ino(view));
	cr_assert_eq(st.st_ino >> 52, 1);
	cr_assert(is_there("state/d 0/x.log"));
	assert_text(view, "hello");
	icm_fs_release(h);
	icm_fs_forget(view, 1);
}

Test(scratch, creation_ignores_our_umask_and_gives_to_the_caller)
{
	struct icm_open_result open;
	struct icm_view *view;
	struct stat st;
	mode_t old = umask(077);

	cr_assert_eq(icm_scratch_create(s, &user, "", "x.log", 0666, O_WRONLY, &view, &st, &open),
		     0);
	cr_assert_eq(st.st_mode & 07777, 0666);
	if (geteuid() == 0)
		cr_assert(st.st_uid == user.uid && st.st_gid == user.gid);
	icm_fs_release(open.handle);
	icm_fs_forget(view, 1);
	cr_assert_eq(icm_scratch_mknod(s, &user, "", "y.log", S_IFIFO | 0622, 0, &view, &st), 0);
	cr_assert_eq(st.st_mode, S_IFIFO | 0622);
	icm_fs_forget(view, 1);
	umask(old);
}

Test(scratch, setgid_directories_hand_down_their_group)
{
	struct icm_view *top = make_dir("", ".terraform"), *sub;
	struct stat st = { .st_mode = S_IFDIR | 02775, .st_gid = 61003 }, got;
	struct icm_open_result open;
	struct icm_view *file;

	if (geteuid() != 0)
		cr_skip_test("needs root");
	cr_assert_eq(icm_fs_setattr(top, &call, NULL, ICM_SET_MODE | ICM_SET_GID, &st, &got), 0);
	cr_assert_eq(got.st_mode & 07777, 02775);
	cr_assert_eq(icm_fs_mkdir(top, &user, "sub", 0755, &sub, &got), 0);
	cr_assert_eq(got.st_mode & 07777, 02755);
	cr_assert_eq(got.st_gid, 61003);
	cr_assert_eq(icm_fs_create(sub, &user, "f", 0644, O_RDWR, &file, &got, &open), 0);
	cr_assert(got.st_uid == user.uid && got.st_gid == 61003);
	icm_fs_release(open.handle);
	icm_fs_forget(file, 1);
	icm_fs_forget(sub, 1);
	icm_fs_forget(top, 1);
}

Test(scratch, create_opens_what_exists_unless_exclusive)
{
	struct icm_open_result open;
	struct icm_view *view;
	struct stat st;

	make_closed("", "x.log", "hello");
	cr_assert_eq(
		icm_scratch_create(s, &call, "", "x.log", 0600, O_RDWR | O_EXCL, &view, &st, &open),
		-EEXIST);
	cr_assert_eq(icm_scratch_create(s, &call, "", "x.log", 0600, O_RDWR, &view, &st, &open), 0);
	cr_assert_eq(st.st_size, 5);
	cr_assert_eq(st.st_mode & 07777, 0644);
	icm_fs_release(open.handle);
	icm_fs_forget(view, 1);
	cr_assert_eq(icm_scratch_create(s, &call, "", "x.log", 0600, O_RDWR | O_TRUNC, &view, &st,
					&open),
		     0);
	cr_assert_eq(st.st_size, 0);
	icm_fs_release(open.handle);
	icm_fs_forget(view, 1);
}

Test(scratch, an_unlinked_file_lives_on_in_its_handles)
{
	struct icm_handle *h = make("", "x.log", "hello");
	struct icm_view *view = find("", "x.log");
	struct stat st = { .st_size = 2 }, got;
	char buf[8];

	cr_assert_eq(icm_scratch_unlink(s, "", "x.log"), 0);
	cr_assert_not(is_there("x.log"));
	cr_assert_null(find("", "x.log"));
	cr_assert_eq(icm_fs_getattr(view, &call, NULL, &got), 0);
	cr_assert_eq(got.st_nlink, 0);
	cr_assert_eq(icm_fs_setattr(view, &call, NULL, ICM_SET_SIZE, &st, &got), 0);
	cr_assert_eq(icm_fs_read(h, &call, buf, sizeof(buf), 0), 2);
	cr_assert_eq(icm_fs_write(h, &call, "!", 1, 2, false), 1);
	assert_text(view, "he!");
	cr_assert_null(icm_scratch_path(view));
	/* The number may be another file's now. */
	make_closed("", "x.log", "other");
	cr_assert_eq(icm_fs_getattr(view, &call, NULL, &got), 0);
	cr_assert_eq(got.st_size, 3);
	icm_fs_release(h);
	cr_assert_eq(icm_fs_getattr(view, &call, NULL, &got), 0);
	cr_assert_eq(got.st_size, 3);
	icm_fs_forget(view, 1);
}

Test(scratch, a_reused_inode_number_is_another_view)
{
	struct icm_view *old, *new;

	for (int i = 0; i < 20; i++) {
		make_closed("", "x.log", "old");
		old = find("", "x.log");
		cr_assert_eq(icm_scratch_unlink(s, "", "x.log"), 0);
		make_closed("", "x.log", "new");
		new = find("", "x.log");
		cr_assert_neq(old, new);
		icm_fs_forget(old, 1);
		assert_text(new, "new");
		icm_fs_forget(new, 1);
	}
}

Test(scratch, hard_links_share_a_view)
{
	struct icm_view *a, *b;
	struct stat st;

	make_closed("", "a.log", "text");
	a = find("", "a.log");
	cr_assert_eq(icm_scratch_link(s, a, "d", "b.log", &b, &st), 0);
	cr_assert_eq(a, b);
	cr_assert_eq(st.st_nlink, 2);
	cr_assert_eq(icm_scratch_unlink(s, "d", "b.log"), 0);
	assert_text(a, "text");
	cr_assert_eq(icm_scratch_link(s, a, "d", "b.log", &b, &st), 0);
	icm_fs_forget(b, 1);
	cr_assert_eq(icm_scratch_unlink(s, "", "a.log"), 0);
	assert_text(a, "text");
	cr_assert_eq(icm_scratch_rename(s, "d", "b.log", "d", "b.log", 0), 0);
	assert_text(a, "text");
	icm_fs_forget(a, 1);
	icm_fs_forget(b, 1);
}

Test(scratch, attributes_are_set)
{
	struct icm_handle *h = make("", "x.log", "hello");
	struct stat st = { .st_mode = 04711, .st_size = 8 }, got;

	st.st_atim = (struct timespec){ 1000, 1 };
	st.st_mtim = (struct timespec){ 2000, 999999999 };
	cr_assert_eq(icm_fs_setattr(h->view, &call, NULL,
				    ICM_SET_MODE | ICM_SET_SIZE | ICM_SET_ATIME | ICM_SET_MTIME,
				    &st, &got),
		     0);
	cr_assert_eq(got.st_mode & 07777, 04711);
	cr_assert_eq(got.st_size, 8);
	cr_assert_eq(got.st_atim.tv_nsec, 1);
	cr_assert_eq(got.st_mtim.tv_sec, 2000);
	cr_assert_eq(got.st_mtim.tv_nsec, 999999999);
	st.st_mtim.tv_sec = 3000;
	cr_assert_eq(icm_fs_setattr(h->view, &call, h, ICM_SET_MTIME, &st, &got), 0);
	cr_assert_eq(got.st_atim.tv_sec, 1000);
	icm_fs_release(h);
}

Test(scratch, holes_copies_and_allocation)
{
	struct icm_handle *h = make("", "x.log", "hello"), *to = make("", "y.log", "");
	struct stat st;
	char buf[8];

	cr_assert_eq(icm_fs_write(h, &call, "end", 3, 1 << 20, false), 3);
	cr_assert_geq(icm_fs_lseek(h, &call, 0, SEEK_HOLE), 5);
	cr_assert_leq(icm_fs_lseek(h, &call, 65536, SEEK_DATA), 1 << 20);
	cr_assert_eq(icm_fs_lseek(h, &call, 1 << 21, SEEK_DATA), -ENXIO);
	cr_assert_eq(icm_fs_copy_range(h, 1, to, 0, 3, &call), 3);
	cr_assert_eq(icm_fs_read(to, &call, buf, sizeof(buf), 0), 3);
	cr_assert_arr_eq(buf, "ell", 3);
	cr_assert_eq(icm_fs_copy_range(h, 0, h, 2, 3, &call), -EINVAL);
	cr_assert_eq(icm_fs_copy_range(h, 1 << 21, to, 0, 3, &call), 0);
	cr_assert_eq(icm_fs_fallocate(to, &call, 0, 0, 100), 0);
	cr_assert_eq(icm_fs_getattr(to->view, &call, to, &st), 0);
	cr_assert_eq(st.st_size, 100);
	icm_fs_release(h);
	icm_fs_release(to);
}

Test(scratch, extended_attributes)
{
	struct icm_handle *h = make("", "x.log", "");
	struct icm_view *v = h->view;
	char buf[64];
	int r = icm_fs_setxattr(v, &call, "user.a", "value", 5, XATTR_CREATE);

	if (r == -EOPNOTSUPP) {
		icm_fs_release(h);
		cr_skip_test("no user.* on this file system");
	}
	cr_assert_eq(r, 0);
	cr_assert_eq(icm_fs_setxattr(v, &call, "user.a", "x", 1, XATTR_CREATE), -EEXIST);
	cr_assert_eq(icm_fs_getxattr(v, &call, "user.a", NULL, 0), 5);
	cr_assert_eq(icm_fs_getxattr(v, &call, "user.a", buf, 4), -ERANGE);
	cr_assert_eq(icm_fs_getxattr(v, &call, "user.a", buf, sizeof(buf)), 5);
	cr_assert_eq(icm_fs_getxattr(v, &call, "security.capability", buf, 1), -EOPNOTSUPP);
	cr_assert_eq(icm_fs_listxattr(v, &call, NULL, 0), 7);
	cr_assert_eq(icm_fs_listxattr(v, &call, buf, sizeof(buf)), 7);
	cr_assert_str_eq(buf, "user.a");
	cr_assert_eq(icm_fs_listxattr(v, &call, buf, 6), -ERANGE);
	cr_assert_eq(icm_fs_removexattr(v, &call, "user.a"), 0);
	cr_assert_eq(icm_fs_getxattr(v, &call, "user.a", buf, sizeof(buf)), -ENODATA);
	icm_fs_release(h);
}

Test(scratch, symbolic_links_are_kept_and_never_followed)
{
	ICM_AUTOFREE char *target = NULL;
	struct icm_open_result open;
	struct icm_view *link, *view;
	struct stat st;

	cr_assert_eq(icm_scratch_symlink(s, &user, "", "x.log", "/etc", &link, &st), 0);
	cr_assert(S_ISLNK(st.st_mode));
	cr_assert_eq(icm_fs_readlink(link, &call, &target), 0);
	cr_assert_str_eq(target, "/etc");
	st.st_mtim.tv_sec = 77;
	cr_assert_eq(icm_fs_setattr(link, &call, NULL, ICM_SET_MTIME, &st, &st), 0);
	cr_assert_eq(st.st_mtim.tv_sec, 77);
	cr_assert_eq(icm_fs_open(link, &call, O_RDONLY, &open), -ELOOP);
	cr_assert_eq(icm_scratch_create(s, &call, "", "x.log", 0600, O_RDWR, &view, &st, &open),
		     -ELOOP);
	cr_assert_lt(icm_scratch_lookup(s, "x.log", "passwd", &view, &st), 0);
	cr_assert_lt(
		icm_scratch_create(s, &call, "x.log", "y.log", 0600, O_RDWR, &view, &st, &open), 0);
	cr_assert_lt(icm_scratch_lookup(s, "../..", "a", &view, &st), 0);
	icm_fs_forget(link, 1);
}

/* ---- directories ---- */

struct names {
	char text[512];
	int room; /* entries still taken */
	off_t last;
};

static int add_name(void *userdata, const struct icm_dirent *e)
{
	struct names *n = userdata;

	if (n->room-- <= 0)
		return 1;
	strcat(n->text, S_ISDIR(e->type) ? "/" : "");
	strcat(n->text, e->name);
	strcat(n->text, " ");
	n->last = e->next;
	return 0;
}

Test(scratch, list_shows_scratch_and_not_what_stands_for_shared_directories)
{
	struct names n = { .room = 10 };

	make_closed("state/x", "a.log", "");
	make_closed("state", "b.log", "");
	icm_fs_forget(make_dir("state", ".terraform"), 1);
	cr_assert_eq(icm_scratch_list(s, "state", add_name, &n), 0);
	cr_assert(strstr(n.text, "b.log") && strstr(n.text, "/.terraform"), "%s", n.text);
	cr_assert_null(strstr(n.text, "x"));
	cr_assert_null(find("state", "x"));
	cr_assert_null(find("", "state"));
	n = (struct names){ .room = 10 };
	cr_assert_eq(icm_scratch_list(s, "nowhere", add_name, &n), 0);
	cr_assert_str_eq(n.text, "");
}

Test(scratch, readdir_goes_on_where_it_stopped)
{
	struct icm_view *d = make_dir("", ".terraform"), *view;
	struct names all = { .room = 100 }, parts = { .room = 0 };
	struct icm_handle *h;
	struct stat st;

	for (char name[] = "a"; name[0] <= 'j'; name[0]++) {
		cr_assert_eq(icm_fs_mknod(d, &call, name, S_IFREG | 0600, 0, &view, &st), 0);
		icm_fs_forget(view, 1);
	}
	cr_assert_eq(icm_fs_opendir(d, &call, &h), 0);
	cr_assert_eq(icm_fs_readdir(h, &call, 0, add_name, &all), 0);
	cr_assert_eq(strlen(all.text), 3 + 4 + 10 * 2);
	for (int i = 0; i < 12; i++) {
		parts.room = 1;
		cr_assert_eq(icm_fs_readdir(h, &call, parts.last, add_name, &parts), 0);
		if (i == 5)
			icm_fs_unlink(d, &call, "zz");
	}
	cr_assert_str_eq(parts.text, all.text);
	parts.room = 1;
	cr_assert_eq(icm_fs_readdir(h, &call, parts.last, add_name, &parts), 0);
	cr_assert_eq(parts.room, 1);
	cr_assert_eq(icm_fs_lookup_cached(d, "c", &view, &st), 0);
	icm_fs_forget(view, 1);
	cr_assert_eq(icm_fs_lookup_cached(d, "zz", &view, &st), -ENOENT);
	icm_fs_releasedir(h);
	icm_fs_forget(d, 1);
}

Test(scratch, names_in_a_removed_directory_are_not_there)
{
	struct icm_view *d = make_dir("", ".terraform"), *view;
	struct stat st;

	cr_assert_eq(icm_scratch_rmdir(s, "", ".terraform"), 0);
	cr_assert_eq(icm_fs_mkdir(d, &call, "x", 0755, &view, &st), -ENOENT);
	cr_assert_eq(icm_fs_lookup(d, &call, "x", &view, &st), -ENOENT);
	cr_assert_eq(icm_fs_getattr(d, &call, NULL, &st), 0);
	cr_assert_eq(st.st_nlink, 0);
	icm_fs_forget(d, 1);
}

Test(scratch, renames_move_what_is_below)
{
	struct icm_view *d = make_dir("", ".terraform"), *sub, *file;
	struct icm_open_result open;
	ICM_AUTOFREE char *path = NULL;
	struct stat st;

	cr_assert_eq(icm_fs_mkdir(d, &call, "sub", 0755, &sub, &st), 0);
	cr_assert_eq(icm_fs_create(sub, &call, "f", 0644, O_RDWR, &file, &st, &open), 0);
	cr_assert_eq(icm_fs_write(open.handle, &call, "f", 1, 0, false), 1);
	icm_fs_release(open.handle);
	cr_assert_eq(icm_fs_rename(d, &call, "sub", d, "sub/x", 0), -EINVAL);
	cr_assert_eq(icm_fs_rename(d, &call, "sub", sub, "in", 0), -EINVAL);
	cr_assert_eq(icm_fs_rename(d, &call, "sub", d, "other", 0), 0);
	assert_text(file, "f");
	cr_assert_eq(icm_scratch_rename(s, "", ".terraform", "state", "x.tmp", 0), 0);
	assert_text(file, "f");
	path = icm_scratch_path(file);
	cr_assert_str_eq(path, "state/x.tmp/other/f");
	icm_fs_forget(file, 1);
	icm_fs_forget(sub, 1);
	icm_fs_forget(d, 1);
}

Test(scratch, rename_replaces_refuses_or_exchanges)
{
	struct icm_view *a, *b;
	struct icm_handle *victim;

	make_closed("", "a.log", "a");
	victim = make("d", "b.log", "b");
	a = find("", "a.log");
	cr_assert_eq(icm_scratch_rename(s, "", "a.log", "d", "b.log", RENAME_NOREPLACE), -EEXIST);
	cr_assert_eq(icm_scratch_rename(s, "", "a.log", "d", "b.log", RENAME_EXCHANGE), 0);
	b = find("", "a.log");
	cr_assert_eq(b, victim->view);
	assert_text(a, "a");
	assert_text(b, "b");
	cr_assert_eq(icm_scratch_rename(s, "d", "b.log", "", "a.log", 0), 0);
	assert_text(a, "a");
	assert_text(b, "b"); /* still open */
	cr_assert_null(icm_scratch_path(b));
	icm_fs_release(victim);
	icm_fs_forget(a, 1);
	icm_fs_forget(b, 1);
}

Test(scratch, follows_shared_directories)
{
	struct icm_handle *h = make("state/x", "a.log", "text");
	struct icm_view *view = find("state/x", "a.log");

	icm_scratch_dir_moved(s, "state", "moved/here");
	cr_assert_null(find("state/x", "a.log"));
	assert_text(view, "text");
	cr_assert(is_there("moved/here/x/a.log"));
	icm_fs_release(h);
	assert_text(view, "text");
	icm_scratch_dir_moved(s, "nowhere", "else");
	icm_scratch_dir_removed(s, "moved");
	cr_assert_not(is_there("moved"));
	cr_assert_null(icm_scratch_path(view));
	icm_fs_forget(view, 1);
}

Test(scratch, follows_exchanged_directories)
{
	struct icm_view *a, *b;

	make_closed("a/x", "a.log", "of a");
	make_closed("c/b", "b.log", "of b");
	a = find("a/x", "a.log");
	b = find("c/b", "b.log");
	icm_scratch_dirs_exchanged(s, "a", "c/b");
	cr_assert(is_there("c/b/x/a.log") && is_there("a/b.log"));
	assert_text(a, "of a");
	assert_text(b, "of b");
	icm_scratch_dirs_exchanged(s, "a", "only");
	cr_assert(is_there("only/b.log") && !is_there("a"));
	assert_text(b, "of b");
	icm_fs_forget(a, 1);
	icm_fs_forget(b, 1);
}

Test(scratch, a_deep_tree_goes_as_a_whole)
{
	ICM_AUTOFREE char *path = local("deep");
	int fd;

	cr_assert_eq(mkdir(path, 0700), 0);
	fd = open(path, O_PATH | O_DIRECTORY);
	for (int i = 0; i < 1500; i++) {
		int next;

		cr_assert_eq(mknodat(fd, "f", S_IFREG | 0400, 0), 0);
		cr_assert_eq(mkdirat(fd, "d", 0700), 0);
		next = openat(fd, "d", O_PATH | O_DIRECTORY);
		close(fd);
		fd = next;
	}
	close(fd);
	icm_scratch_dir_removed(s, "deep");
	cr_assert_not(is_there("deep"));
	icm_scratch_close(s);
	cr_assert_eq(rmdir(dir), 0, "something was left");
	cr_assert_eq(icm_scratch_open(NULL, dir, NULL, &s, &path), 0);
}

/* ---- between scratch and shared ---- */

Test(scratch, an_exported_file_takes_no_more_writes)
{
	struct icm_handle *h = make("", "x.tmp", "text");
	struct icm_view *view = find("", "x.tmp");
	struct stat st = { 0 }, got;
	struct icm_open_result open;
	char buf[8];
	int fd;

	cr_assert_eq(icm_scratch_export(s, "", "x.tmp", &fd, &got), 0);
	cr_assert_eq(got.st_size, 4);
	cr_assert_eq(read(fd, buf, sizeof(buf)), 4);
	close(fd);
	icm_scratch_exported(s, "", "x.tmp");
	cr_assert_not(is_there("x.tmp"));
	cr_assert_eq(icm_fs_write(h, &call, "x", 1, 0, false), -ESTALE);
	cr_assert_eq(icm_fs_fallocate(h, &call, 0, 0, 9), -ESTALE);
	cr_assert_eq(icm_fs_setattr(view, &call, h, ICM_SET_SIZE, &st, &got), -ESTALE);
	cr_assert_eq(icm_fs_read(h, &call, buf, sizeof(buf), 0), 4);
	cr_assert_eq(icm_fs_open(view, &call, O_RDONLY, &open), -ESTALE);
	icm_fs_release(h);
	cr_assert_eq(icm_fs_open(view, &call, O_RDONLY, &open), -ESTALE);
	icm_fs_forget(view, 1);
}

static int fill(int fd, void *userdata)
{
	const char *text = userdata;

	return text ? (write(fd, text, strlen(text)) > 0 ? 0 : -EIO) : -ENOSPC;
}

Test(scratch, import_appears_whole_or_not_at_all)
{
	const struct stat st = { .st_mode = S_IFREG | 0640,
				 .st_uid = 60001,
				 .st_gid = 61001,
				 .st_mtim = { 1234, 5678 } };
	struct names n = { .room = 10 };
	struct icm_view *view;
	struct stat got;
	char text[] = "imported";

	make_closed("d", "x.tmp", "former");
	cr_assert_eq(icm_scratch_import(s, "d", "x.tmp", &st, fill, NULL), -ENOSPC);
	view = find("d", "x.tmp");
	assert_text(view, "former");
	cr_assert_eq(icm_scratch_import(s, "d", "x.tmp", &st, fill, text), 0);
	icm_fs_forget(view, 1);
	view = find("d", "x.tmp");
	assert_text(view, "imported");
	cr_assert_eq(icm_fs_getattr(view, &call, NULL, &got), 0);
	cr_assert_eq(got.st_mode, st.st_mode);
	cr_assert_eq(got.st_mtim.tv_nsec, 5678);
	if (geteuid() == 0)
		cr_assert_eq(got.st_uid, 60001);
	icm_fs_forget(view, 1);
	cr_assert_eq(icm_scratch_list(s, "", add_name, &n), 0);
	cr_assert_str_eq(n.text, "");
}

/* ---- between the kinds ---- */

Test(scratch, other_kinds_are_another_file_system)
{
	static const struct icm_view_ops other_ops = { .name = "other" };
	struct icm_view *d = make_dir("", ".terraform"), *view;
	struct icm_view other, shared;
	struct stat st;

	icm_view_init(&other, &other_ops, NULL, 2, S_IFDIR);
	icm_view_init(&shared, &icm_shared_view_ops, NULL, 1, S_IFDIR);
	cr_assert_eq(icm_fs_rename(d, &call, "a", &other, "b", 0), -EXDEV);
	cr_assert_eq(icm_fs_rename(d, &call, "a", &shared, "b", 0), -EPERM);
	cr_assert_eq(icm_fs_rename(&shared, &call, "a", &other, "b", 0), -EXDEV);
	cr_assert_eq(icm_fs_rename(d, &call, "a", d, "b", RENAME_WHITEOUT), -EINVAL);
	cr_assert_eq(icm_fs_mkdir(&other, &call, "x", 0, &view, &st), -EPERM);
	cr_assert_eq(icm_fs_lookup(&other, &call, "x", &view, &st), -ENOTDIR);
	icm_fs_forget(d, 1);
}

Test(scratch, long_names_are_refused)
{
	struct icm_view *d = make_dir("", ".terraform"), *view;
	char name[300];
	struct stat st;

	memset(name, 'n', 256);
	name[256] = '\0';
	cr_assert_eq(icm_fs_lookup(d, &call, name, &view, &st), -ENAMETOOLONG);
	cr_assert_eq(icm_fs_mkdir(d, &call, name, 0755, &view, &st), -ENAMETOOLONG);
	name[255] = '\0';
	cr_assert_eq(icm_fs_mkdir(d, &call, name, 0755, &view, &st), 0);
	cr_assert_eq(icm_fs_rmdir(d, &call, name), 0);
	icm_fs_forget(view, 1);
	icm_fs_forget(d, 1);
}

/* ---- locks ---- */

static void no_answer(void *userdata, int result)
{
	cr_assert(false);
}

static void count_lock(void *userdata, const char *path, uint64_t ino,
		       const struct icm_lock_info *info)
{
	cr_assert_str_eq(path, "x.log");
	++*(int *)userdata;
}

Test(scratch, locks_end_with_flush_and_release)
{
	struct icm_handle *a = make("", "x.log", ""), *b;
	struct icm_lock_request req = { .type = F_WRLCK, .end = 9, .owner = 1, .pid = 11 };
	struct icm_lock_request whole = { .flock = true, .type = F_WRLCK };
	struct icm_open_result open;
	struct flock lk;
	int n = 0;

	cr_assert_eq(icm_fs_open(a->view, &call, O_RDWR, &open), 0);
	b = open.handle;
	cr_assert_eq(icm_scratch_lock(a, &req, no_answer, NULL, NULL), 0);
	cr_assert_eq(icm_scratch_lock(a, &whole, no_answer, NULL, NULL), 0);
	cr_assert_eq(icm_scratch_lock(b, &whole, no_answer, NULL, NULL), -EAGAIN);
	req.owner = 2;
	icm_scratch_getlk(b, &req, &lk);
	cr_assert_eq(lk.l_pid, 11);
	icm_scratch_list_locks(s, count_lock, &n);
	cr_assert_eq(n, 2);
	cr_assert_eq(icm_fs_flush(b, &call, 1), 0);
	icm_scratch_getlk(b, &req, &lk);
	cr_assert_eq(lk.l_type, F_UNLCK);
	icm_fs_release(a);
	cr_assert_eq(icm_scratch_lock(b, &whole, no_answer, NULL, NULL), 0);
	icm_fs_release(b);
}
