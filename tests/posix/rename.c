/* SPDX-License-Identifier: MIT
 * rename(2), renameat2(2): every kind over every kind, times, link counts,
 * sticky directories, exchange. */
#include "suite.h"

#include <dirent.h>
#include <linux/fs.h>

static int entries(const char *dir)
{
	DIR *d = opendir(dir);
	int n = 0;

	if (!d)
		return -1;
	while (readdir(d))
		n++;
	closedir(d);
	return n - 2;
}

TEST(rename, every_kind_to_a_new_name)
{
	NEED(mkdir("from", 0755));
	NEED(mkdir("to", 0755));
	for (enum kind k = 0; k < K_COUNT; k++) {
		struct stat st, dir1, dir2;

		context("%s", kind_name[k]);
		make(k, "from/n");
		st = stat_of("from/n");
		dir1 = stat_of("from");
		tick();
		OK(rename("from/n", "from/m"));
		MOVED("from/m", &st, C_MOVED);
		MOVED("from", &dir1, C_MOVED | M_MOVED);
		EQ(stat_of("from/m").st_ino, st.st_ino);
		EQ(stat_of("from/m").st_mode, st.st_mode);
		ERR(ENOENT, access("from/n", F_OK));
		st = stat_of("from/m");
		dir1 = stat_of("from");
		dir2 = stat_of("to");
		tick();
		OK(rename("from/m", "to/n"));
		MOVED("to/n", &st, C_MOVED);
		MOVED("from", &dir1, C_MOVED | M_MOVED);
		MOVED("to", &dir2, C_MOVED | M_MOVED);
		EQ(stat_of("to/n").st_ino, st.st_ino);
		EQ(stat_of("from").st_nlink, 2);
		EQ(stat_of("to").st_nlink, k == K_DIR ? 3 : 2);
		EQ(entries("from"), 0);
		EQ(entries("to"), 1);
		destroy("to/n");
		EQ(stat_of("to").st_nlink, 2);
	}
}

TEST(rename, every_kind_over_every_kind)
{
	NEED(mkdir("d", 0755));
	for (enum kind a = 0; a < K_COUNT; a++) {
		for (enum kind b = 0; b < K_COUNT; b++) {
			struct stat from, to;

			context("%s over %s", kind_name[a], kind_name[b]);
			make(a, "a");
			make(b, "d/b");
			from = stat_of("a");
			to = stat_of("d/b");
			if (a == K_DIR && b != K_DIR) {
				ERR(ENOTDIR, rename("a", "d/b"));
			} else if (a != K_DIR && b == K_DIR) {
				ERR(EISDIR, rename("a", "d/b"));
			} else {
				OK(rename("a", "d/b"));
				EQ(stat_of("d/b").st_ino, from.st_ino);
				EQ(stat_of("d/b").st_mode, from.st_mode);
				ERR(ENOENT, unlink("a"));
				EQ(entries("d"), 1);
				destroy("d/b");
				continue;
			}
			EQ(stat_of("a").st_ino, from.st_ino);
			EQ(stat_of("d/b").st_ino, to.st_ino);
			UNMOVED("a", &from);
			UNMOVED("d/b", &to);
			destroy("a");
			destroy("d/b");
		}
	}
	EQ(stat_of(".").st_nlink, 3);
	EQ(stat_of("d").st_nlink, 2);
}

TEST(rename, replaced_file)
{
	struct stat st;
	int fd;
	char b[8];

	put("a", "new", -1);
	put("b", "old", -1);
	NEED(link("b", "b2"));
	fd = (int)NEED(open("b", O_RDWR));
	st = stat_of("b2");
	tick();
	OK(rename("a", "b"));
	HOLDS("b", "new", 3);
	HOLDS("b2", "old", 3);
	EQ(stat_of("b2").st_nlink, 1);
	MOVED("b2", &st, C_MOVED);
	OK(unlink("b2"));
	EQ(stat_fd(fd).st_nlink, 0);
	EQ(pread(fd, b, sizeof(b), 0), 3);
	EQ(memcmp(b, "old", 3), 0);
	EQ(pwrite(fd, "OLDER", 5, 1), 5);
	EQ(pread(fd, b, sizeof(b), 0), 6);
	EQ(memcmp(b, "oOLDER", 6), 0);
	close(fd);
	HOLDS("b", "new", 3);
}

TEST(rename, names_of_one_inode)
{
	struct stat st, dir;

	put("a", "x", -1);
	NEED(link("a", "b"));
	st = stat_of("a");
	dir = stat_of(".");
	tick();
	OK(rename("a", "b")); /* does nothing, and both names stay */
	OK(rename("a", "a"));
	EQ(stat_of("a").st_nlink, 2);
	EQ(stat_of("b").st_ino, st.st_ino);
	UNMOVED("a", &st);
	UNMOVED(".", &dir);
	NEED(mkdir("d", 0755));
	OK(rename("d", "d"));
	ERR(EEXIST, sys_renameat2("a", "a", RENAME_NOREPLACE));
	ERR(EEXIST, sys_renameat2("a", "b", RENAME_NOREPLACE));
}

TEST(rename, directories)
{
	struct stat st, dir;

	NEED(mkdir("a", 0755));
	NEED(mkdir("a/sub", 0755));
	NEED(mkdir("a/sub/deep", 0755));
	put("a/sub/deep/f", "contents", -1);
	NEED(mkdir("empty", 0755));
	NEED(mkdir("full", 0755));
	touch("full/x");
	ERR(EINVAL, rename("a", "a/sub"));
	ERR(EINVAL, rename("a", "a/new"));
	ERR(EINVAL, rename("a", "a/sub/deep/new"));
	ERR(ENOTEMPTY, rename("a/sub", "a"));
	dir = stat_of("full");
	st = stat_of("a");
	tick();
	context("over a full one");
	TRUE(rename("a", "full") < 0 && (errno == ENOTEMPTY || errno == EEXIST));
	UNMOVED("full", &dir);
	UNMOVED("a", &st);
	context("over an empty one");
	OK(rename("a", "empty"));
	HOLDS("empty/sub/deep/f", "contents", -1);
	EQ(stat_of("empty").st_ino, st.st_ino);
	EQ(stat_of("empty").st_nlink, 3);
	EQ(stat_of(".").st_nlink, 4);
	ERR(ENOENT, access("a", F_OK));
	context("back and forth, seen through a descriptor of it");
	{
		int d = (int)NEED(open("empty/sub", O_RDONLY | O_DIRECTORY));

		OK(rename("empty", "again"));
		OK(faccessat(d, "deep/f", F_OK, 0));
		OK(mkdirat(d, "new", 0755));
		TRUE(access("again/sub/new", F_OK) == 0);
		OK(rename("again/sub", "moved"));
		EQ(stat_of("again").st_nlink, 2);
		{
			struct stat up;

			OK(fstatat(d, "..", &up, 0));
			EQ(up.st_ino, stat_of(".").st_ino);
		}
		close(d);
	}
	HOLDS("moved/deep/f", "contents", -1);
	ERR(EBUSY, rename(".", "dot"));
	ERR(EBUSY, rename("moved/..", "dot"));
}

TEST(rename, big_directory)
{
	char name[64];

	NEED(mkdir("a", 0755));
	for (int i = 0; i < 300; i++) {
		snprintf(name, sizeof(name), "a/file-%d", i);
		put(name, name, -1);
	}
	OK(rename("a", "b"));
	EQ(entries("b"), 300);
	for (int i = 0; i < 300; i += 37) {
		char old[64];

		snprintf(old, sizeof(old), "a/file-%d", i);
		snprintf(name, sizeof(name), "b/file-%d", i);
		HOLDS(name, old, -1);
	}
}

TEST(rename, open_file_is_written_on)
{
	int fd = (int)NEED(open("a", O_RDWR | O_CREAT, 0644));

	EQ(write(fd, "one ", 4), 4);
	OK(rename("a", "b"));
	EQ(write(fd, "two ", 4), 4);
	NEED(mkdir("d", 0755));
	OK(rename("b", "d/c"));
	EQ(write(fd, "three", 5), 5);
	EQ(stat_of("d/c").st_size, 13);
	OK(close(fd));
	HOLDS("d/c", "one two three", -1);
	ERR(ENOENT, access("a", F_OK));
	ERR(ENOENT, access("b", F_OK));
}

TEST(rename, noreplace_and_exchange)
{
	struct stat a, b, da, db;

	put("a", "AA", -1);
	put("b", "BBB", -1);
	ERR(EEXIST, sys_renameat2("a", "b", RENAME_NOREPLACE));
	OK(sys_renameat2("a", "c", RENAME_NOREPLACE));
	HOLDS("c", "AA", 2);
	ERR(ENOENT, sys_renameat2("a", "b", RENAME_EXCHANGE));
	ERR(ENOENT, sys_renameat2("b", "a", RENAME_EXCHANGE));
	ERR(EINVAL, sys_renameat2("b", "c", RENAME_EXCHANGE | RENAME_NOREPLACE));
	ERR(EINVAL, sys_renameat2("b", "c", 64));
	context("files");
	NEED(mkdir("d", 0755));
	NEED(rename("b", "d/b"));
	a = stat_of("c");
	b = stat_of("d/b");
	da = stat_of(".");
	db = stat_of("d");
	tick();
	OK(sys_renameat2("c", "d/b", RENAME_EXCHANGE));
	HOLDS("c", "BBB", 3);
	HOLDS("d/b", "AA", 2);
	EQ(stat_of("c").st_ino, b.st_ino);
	EQ(stat_of("d/b").st_ino, a.st_ino);
	MOVED("c", &b, C_MOVED);
	MOVED("d/b", &a, C_MOVED);
	MOVED(".", &da, C_MOVED | M_MOVED);
	MOVED("d", &db, C_MOVED | M_MOVED);
	context("file with a directory that is not empty");
	NEED(mkdir("e", 0755));
	NEED(mkdir("e/sub", 0755));
	put("e/sub/f", "deep", -1);
	da = stat_of(".");
	OK(sys_renameat2("e/sub", "d/b", RENAME_EXCHANGE));
	HOLDS("d/b/f", "deep", -1);
	HOLDS("e/sub", "AA", 2);
	EQ(stat_of("e").st_nlink, 2);
	EQ(stat_of("d").st_nlink, 3);
	OK(sys_renameat2("d", "c", RENAME_EXCHANGE));
	HOLDS("c/b/f", "deep", -1);
	HOLDS("d", "BBB", 3);
	EQ(stat_of(".").st_nlink, da.st_nlink);
	ERR(EINVAL, sys_renameat2("c", "c/b", RENAME_EXCHANGE));
	ERR(EINVAL, sys_renameat2("c/b", "c", RENAME_EXCHANGE));
	OK(sys_renameat2("d", "d", RENAME_EXCHANGE));
}

TEST(rename, needs_both_directories_writable)
{
	struct stat d1, d2, st;

	NEED(mkdir("from", 0755));
	NEED(mkdir("to", 0755));
	NEED(chown("from", U1, G1));
	put("from/f", "x", -1);
	NEED(chown("from/f", U1, G1));
	d1 = stat_of("from");
	d2 = stat_of("to");
	st = stat_of("from/f");
	tick();
	user(U1, G1);
	ERR(EACCES, rename("from/f", "to/f"));
	root();
	NEED(chown("to", U1, G1));
	NEED(chown("from", 0, 0));
	user(U1, G1);
	ERR(EACCES, rename("from/f", "to/f"));
	root();
	UNMOVED("from/f", &st);
	EQ(same(stat_of("from").st_mtim, d1.st_mtim), 1);
	EQ(same(stat_of("to").st_mtim, d2.st_mtim), 1);
	context("a directory whose .. changes must be writable itself");
	NEED(chown("from", U1, G1));
	NEED(mkdir("from/sub", 0755));
	user(U1, G1);
	ERR(EACCES, rename("from/sub", "to/sub"));
	OK(rename("from/sub", "from/other"));
	root();
	NEED(chown("from/other", U1, G1));
	user(U1, G1);
	OK(rename("from/other", "to/sub"));
}

/* Sticky: the mover must own the moved one or its directory, and the replaced
 * one or its directory. */
TEST(rename, sticky)
{
	static const uid_t owners[] = { U1, U2 };

	for (int i = 0; i < 64; i++) {
		enum kind k = i & 32 ? K_DIR : K_FILE;
		uid_t from_dir = owners[i & 1], from = owners[(i >> 1) & 1];
		uid_t to_dir = owners[(i >> 2) & 1], to = owners[(i >> 3) & 1];
		bool replace = i & 16;
		bool may = (from_dir == U1 || from == U1) && (!replace || to_dir == U1 || to == U1);

		context("%s, from %d/%d, to %d/%d%s", kind_name[k], (int)from_dir, (int)from,
			(int)to_dir, (int)to, replace ? " replacing" : "");
		NEED(mkdir("from", 0755));
		NEED(mkdir("to", 0755));
		make(k, "from/n");
		NEED(chown("from/n", from, G1));
		NEED(chmod("from/n", 0777));
		if (replace) {
			make(k, "to/m");
			NEED(chown("to/m", to, G1));
		}
		NEED(chown("from", from_dir, G1));
		NEED(chown("to", to_dir, G1));
		NEED(chmod("from", 01777));
		NEED(chmod("to", 01777));
		user(U1, G2);
		if (may)
			OK(rename("from/n", "to/m"));
		else
			TRUE(rename("from/n", "to/m") < 0 && (errno == EPERM || errno == EACCES));
		root();
		EQ(access("from/n", F_OK) == 0, !may);
		if (access("from/n", F_OK) == 0)
			destroy("from/n");
		if (access("to/m", F_OK) == 0)
			destroy("to/m");
		OK(rmdir("from"));
		OK(rmdir("to"));
	}
}

TEST(rename, failed_ones_change_nothing)
{
	struct stat a, d, here;

	put("a", "x", -1);
	NEED(mkdir("d", 0755));
	touch("d/x");
	a = stat_of("a");
	d = stat_of("d");
	here = stat_of(".");
	tick();
	ERR(ENOENT, rename("missing", "a"));
	ERR(EISDIR, rename("a", "d"));
	ERR(ENOTDIR, rename("d", "a"));
	ERR(ENOTDIR, rename("a", "a/x"));
	ERR(EINVAL, rename("d", "d/y"));
	ERR(ENOENT, rename("a", "no/x"));
	UNMOVED("a", &a);
	UNMOVED("d", &d);
	UNMOVED(".", &here);
}
