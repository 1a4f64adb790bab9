/* SPDX-License-Identifier: MIT
 * mknod(2), mkfifo(3). */
#include "suite.h"

#include <sys/sysmacros.h>

TEST(mknod, kinds_modes_numbers)
{
	const struct {
		mode_t type;
		dev_t dev;
	} t[] = {
		{ S_IFREG, 0 },
		{ S_IFIFO, 0 },
		{ S_IFSOCK, 0 },
		{ S_IFCHR, makedev(1, 3) },
		{ S_IFBLK, makedev(7, 200) },
		{ S_IFCHR, makedev(4095, 1048575) },
		{ S_IFBLK, makedev(0, 1) },
		{ 0, 0 },
	};

	for (size_t i = 0; i < sizeof(t) / sizeof(*t); i++) {
		struct stat dir = stat_of("."), st;

		context("type %o, device %u:%u", t[i].type, major(t[i].dev), minor(t[i].dev));
		tick();
		OK(mknod("n", t[i].type | 0641, t[i].dev));
		MOVED(".", &dir, C_MOVED | M_MOVED);
		st = stat_of("n");
		EQ(st.st_mode, (t[i].type ? t[i].type : S_IFREG) | 0641);
		EQ(st.st_nlink, 1);
		EQ(st.st_size, 0);
		if (S_ISCHR(t[i].type) || S_ISBLK(t[i].type))
			EQ(st.st_rdev, t[i].dev);
		ERR(EEXIST, mknod("n", t[i].type | 0600, t[i].dev));
		OK(chmod("n", 0600));
		OK(chown("n", U1, G1));
		OK(rename("n", "m"));
		EQ(stat_of("m").st_uid, U1);
		EQ(stat_of("m").st_mode, (t[i].type ? t[i].type : S_IFREG) | 0600);
		if (S_ISCHR(t[i].type) || S_ISBLK(t[i].type))
			EQ(stat_of("m").st_rdev, t[i].dev);
		OK(unlink("m"));
	}
	ERR(EPERM, mknod("d", S_IFDIR | 0755, 0));
	ERR(EINVAL, mknod("l", S_IFLNK | 0755, 0));
}

TEST(mknod, permissions)
{
	NEED(chmod(".", 0777));
	user_in(U1, G1, G2);
	ERR(EPERM, mknod("c", S_IFCHR | 0644, makedev(1, 3)));
	ERR(EPERM, mknod("b", S_IFBLK | 0644, makedev(1, 3)));
	OK(mknod("f", S_IFIFO | 0644, 0));
	OK(mknod("s", S_IFSOCK | 0644, 0));
	OK(mknod("r", S_IFREG | 0644, 0));
	umask(022);
	OK(mkfifo("g", 0666));
	umask(0);
	root();
	EQ(stat_of("f").st_uid, U1);
	EQ(stat_of("f").st_gid, G1);
	EQ(stat_of("s").st_uid, U1);
	EQ(stat_of("r").st_uid, U1);
	EQ(stat_of("g").st_mode, S_IFIFO | 0644);
}

TEST(mknod, regular_file_is_usable)
{
	NEED(mknod("f", S_IFREG | 0644, 0));
	HOLDS("f", "", 0);
	put("f", "bytes", -1);
	HOLDS("f", "bytes", -1);
}
