/* SPDX-License-Identifier: MIT
 * link(2), unlink(2), symlink(2), readlink(2). */
#include "suite.h"

#include <limits.h>
#include <sys/sysmacros.h>

TEST(link, every_kind)
{
	NEED(mkdir("d", 0755));
	for (enum kind k = 0; k < K_COUNT; k++) {
		struct stat st, dir;

		context("%s", kind_name[k]);
		make(k, "a");
		if (k == K_DIR) {
			ERR(EPERM, link("a", "b"));
			destroy("a");
			continue;
		}
		st = stat_of("a");
		dir = stat_of("d");
		EQ(st.st_nlink, 1);
		tick();
		OK(link("a", "d/b"));
		EQ(stat_of("a").st_nlink, 2);
		EQ(stat_of("d/b").st_nlink, 2);
		EQ(stat_of("d/b").st_ino, st.st_ino);
		EQ(stat_of("d/b").st_mode, st.st_mode);
		EQ(stat_of("d/b").st_rdev, st.st_rdev);
		MOVED("a", &st, C_MOVED);
		MOVED("d", &dir, C_MOVED | M_MOVED);
		OK(link("d/b", "d/c"));
		EQ(stat_of("a").st_nlink, 3);
		if (k != K_SYMLINK) {
			OK(chmod("d/c", 0201));
			EQ(stat_of("a").st_mode, kind_type[k] | 0201);
		}
		OK(lchown("d/b", U1, G1));
		EQ(stat_of("a").st_uid, U1);
		EQ(stat_of("d/c").st_gid, G1);
		st = stat_of("d/b");
		tick();
		OK(unlink("a"));
		ERR(ENOENT, unlink("a"));
		EQ(stat_of("d/b").st_nlink, 2);
		MOVED("d/b", &st, C_MOVED);
		OK(unlink("d/b"));
		EQ(stat_of("d/c").st_nlink, 1);
		EQ(stat_of("d/c").st_ino, st.st_ino);
		OK(unlink("d/c"));
	}
}

TEST(link, contents_are_shared)
{
	int a, b;
	char buf[16];

	put("a", "0123456789", -1);
	NEED(mkdir("d", 0755));
	NEED(link("a", "d/b"));
	a = (int)NEED(open("a", O_RDWR));
	b = (int)NEED(open("d/b", O_RDWR));
	EQ(pwrite(a, "xyz", 3, 3), 3);
	EQ(pread(b, buf, sizeof(buf), 0), 10);
	EQ(memcmp(buf, "012xyz6789", 10), 0);
	OK(ftruncate(b, 5));
	EQ(stat_fd(a).st_size, 5);
	OK(close(a));
	OK(close(b));
	HOLDS("a", "012xy", 5);
	HOLDS("d/b", "012xy", 5);
	context("after a rename of one, and of its directory");
	OK(rename("a", "c"));
	OK(rename("d", "e"));
	put("c", "new contents", -1);
	HOLDS("e/b", "new contents", -1);
	EQ(stat_of("c").st_ino, stat_of("e/b").st_ino);
}

TEST(link, many)
{
	char name[32];

	put("f", "shared by all", -1);
	for (int i = 0; i < 120; i++) {
		snprintf(name, sizeof(name), "l%d", i);
		OK(link("f", name));
	}
	EQ(stat_of("f").st_nlink, 121);
	HOLDS("l77", "shared by all", -1);
	for (int i = 0; i < 120; i += 2) {
		snprintf(name, sizeof(name), "l%d", i);
		OK(unlink(name));
	}
	EQ(stat_of("l1").st_nlink, 61);
}

TEST(link, of_symbolic_links)
{
	put("f", "x", -1);
	NEED(symlink("f", "l"));
	OK(link("l", "l2")); /* the link itself */
	EQ(stat_of("l2").st_mode & S_IFMT, S_IFLNK);
	OK(linkat(AT_FDCWD, "l", AT_FDCWD, "f2", AT_SYMLINK_FOLLOW));
	EQ(stat_of("f2").st_ino, stat_of("f").st_ino);
}

TEST(link, permissions)
{
	struct stat st;

	NEED(mkdir("d", 0755));
	put("f", "x", -1);
	NEED(chown("f", U1, G1));
	st = stat_of("f");
	tick();
	user(U1, G1);
	ERR(EACCES, link("f", "d/l"));
	root();
	UNMOVED("f", &st);
	NEED(chown("d", U1, G1));
	user(U1, G1);
	OK(link("f", "d/l"));
	root();
	EQ(stat_of("f").st_nlink, 2);
	ERR(EEXIST, link("f", "d/l"));
	ERR(ENOENT, link("g", "d/m"));
}

TEST(unlink, every_kind)
{
	for (enum kind k = 0; k < K_COUNT; k++) {
		struct stat dir;

		context("%s", kind_name[k]);
		make(k, "n");
		dir = stat_of(".");
		tick();
		if (k == K_DIR) {
			ERR(EISDIR, unlink("n"));
			UNMOVED(".", &dir);
			OK(rmdir("n"));
		} else {
			ERR(ENOTDIR, rmdir("n"));
			UNMOVED(".", &dir);
			OK(unlink("n"));
		}
		MOVED(".", &dir, C_MOVED | M_MOVED);
		ERR(ENOENT, unlink("n"));
		ERR(ENOENT, rmdir("n"));
		ERR(ENOENT, access("n", F_OK));
	}
}

TEST(unlink, open_file_lives_on)
{
	struct stat st;
	char buf[32];
	int fd, fd2;

	put("f", "0123456789", -1);
	fd = (int)NEED(open("f", O_RDWR));
	st = stat_fd(fd);
	tick();
	OK(unlink("f"));
	EQ(stat_fd(fd).st_nlink, 0);
	EQ(stat_fd(fd).st_ino, st.st_ino);
	EQ(newer(stat_fd(fd).st_ctim, st.st_ctim), 1);
	EQ(pread(fd, buf, sizeof(buf), 0), 10);
	EQ(pwrite(fd, "abc", 3, 13), 3);
	EQ(stat_fd(fd).st_size, 16);
	EQ(pread(fd, buf, sizeof(buf), 0), 16);
	EQ(memcmp(buf, "0123456789\0\0\0abc", 16), 0);
	OK(fchmod(fd, 0600));
	EQ(stat_fd(fd).st_mode, S_IFREG | 0600);
	OK(fchown(fd, U1, G1));
	EQ(stat_fd(fd).st_uid, U1);
	OK(futimens(fd, (struct timespec[]){ { 1000, 1 }, { 2000, 2 } }));
	EQ(stat_fd(fd).st_mtim.tv_nsec, 2);
	OK(ftruncate(fd, 4));
	EQ(stat_fd(fd).st_size, 4);
	OK(fsync(fd));
	context("a new file of the name is another one");
	put("f", "new", -1);
	EQ(stat_of("f").st_ino != st.st_ino, 1);
	EQ(pread(fd, buf, sizeof(buf), 0), 4);
	EQ(memcmp(buf, "0123", 4), 0);
	fd2 = (int)OK(open("f", O_RDONLY));
	EQ(pread(fd2, buf, sizeof(buf), 0), 3);
	OK(close(fd2));
	OK(close(fd));
	HOLDS("f", "new", 3);
	context("created and removed before the first close");
	fd = (int)NEED(open("t", O_RDWR | O_CREAT | O_EXCL, 0600));
	OK(unlink("t"));
	EQ(pwrite(fd, "temporary", 9, 0), 9);
	EQ(pread(fd, buf, sizeof(buf), 3), 6);
	OK(close(fd));
	ERR(ENOENT, access("t", F_OK));
}

TEST(unlink, sticky)
{
	for (int i = 0; i < 16; i++) {
		enum kind k = i & 8 ? K_DIR : K_FILE;
		uid_t dir = i & 1 ? U1 : U2, file = i & 2 ? U1 : U2;
		bool sticky = i & 4;
		bool may = !sticky || dir == U1 || file == U1;

		context("%s of %d in %s of %d", kind_name[k], (int)file, sticky ? "sticky" : "dir",
			(int)dir);
		NEED(mkdir("d", 0755));
		make(k, "d/n");
		NEED(chown("d/n", file, G1));
		NEED(chown("d", dir, G1));
		NEED(chmod("d", sticky ? 01777 : 0777));
		user(U1, G2);
		if (may && k == K_DIR)
			OK(rmdir("d/n"));
		else if (may)
			OK(unlink("d/n"));
		else if (k == K_DIR)
			ERR(EPERM, rmdir("d/n"));
		else
			ERR(EPERM, unlink("d/n"));
		root();
		if (!may)
			destroy("d/n");
		OK(rmdir("d"));
	}
}

TEST(symlink, target_and_attributes)
{
	char buf[PATH_MAX + 10];
	struct stat st, dir = stat_of(".");

	tick();
	OK(symlink("some/where", "l"));
	MOVED(".", &dir, C_MOVED | M_MOVED);
	st = stat_of("l");
	EQ(st.st_mode, S_IFLNK | 0777);
	EQ(st.st_size, 10);
	EQ(st.st_nlink, 1);
	EQ(readlink("l", buf, sizeof(buf)), 10);
	EQ(memcmp(buf, "some/where", 10), 0);
	EQ(readlink("l", buf, 4), 4);

	touch("f");
	ERR(EINVAL, readlink("f", buf, sizeof(buf)));
	NEED(mkdir("d", 0755));
	ERR(EINVAL, readlink("d", buf, sizeof(buf)));
	context("odd targets");
	OK(symlink("a b\n\"\\\x01\xff\xfe%2F", "odd"));
	EQ(readlink("odd", buf, sizeof(buf)), 12);
	EQ(memcmp(buf, "a b\n\"\\\x01\xff\xfe%2F", 12), 0);
	ERR(ENOENT, symlink("", "empty"));
	memset(buf, 't', sizeof(buf));
	buf[PATH_MAX - 1] = 0;
	OK(symlink(buf, "long"));
	EQ(stat_of("long").st_size, PATH_MAX - 1);
	buf[PATH_MAX - 1] = 't';
	buf[PATH_MAX] = 0;
	ERR(ENAMETOOLONG, symlink(buf, "longer"));
	ERR(ENOENT, access("longer", F_OK));
}

TEST(symlink, is_followed)
{
	NEED(mkdir("d", 0755));
	put("d/f", "x", -1);
	NEED(symlink("d", "ld"));
	NEED(symlink("../d/f", "d/lf"));
	NEED(symlink("ld/lf", "chain"));
	HOLDS("chain", "x", 1);
	EQ(stat_at("chain").st_ino, stat_of("d/f").st_ino);
	OK(chmod("chain", 0600));
	EQ(stat_of("d/f").st_mode, S_IFREG | 0600);
	OK(mkdir("ld/sub", 0755));
	EQ(stat_of("d").st_nlink, 3);
	OK(unlink("chain"));
	TRUE(access("d/f", F_OK) == 0);
	user(U1, G1);
	root();
	context("owner");
	NEED(chmod(".", 0777));
	user(U1, G1);
	OK(symlink("x", "mine"));
	root();
	EQ(stat_of("mine").st_uid, U1);
	EQ(stat_of("mine").st_gid, G1);
	OK(lchown("mine", U2, G2));
	EQ(stat_of("mine").st_uid, U2);
	ERR(ENOENT, chown("mine", U1, G1));
	context("times");
	OK(utimensat(AT_FDCWD, "mine", (struct timespec[]){ { 5, 6 }, { 7, 8 } },
		     AT_SYMLINK_NOFOLLOW));
	EQ(stat_of("mine").st_mtim.tv_sec, 7);
	EQ(stat_of("mine").st_mtim.tv_nsec, 8);
	EQ(stat_of("mine").st_atim.tv_nsec, 6);
	context("rename keeps it");
	OK(rename("mine", "yours"));
	EQ(stat_of("yours").st_mode & S_IFMT, S_IFLNK);
	EQ(stat_of("yours").st_mtim.tv_nsec, 8);
}
