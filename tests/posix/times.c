/* SPDX-License-Identifier: MIT
 * utimensat(2), and which call moves which time. */
#include "suite.h"

#include <sys/mman.h>

static int set(const char *path, long as, long an, long ms, long mn)
{
	struct timespec t[2] = { { as, an }, { ms, mn } };

	return utimensat(AT_FDCWD, path, t, AT_SYMLINK_NOFOLLOW);
}

TEST(utimens, exact_nanoseconds)
{
	static const struct {
		long s, n;
	} v[] = { { 0, 0 },
		  { 1, 1 },
		  { 1234567890, 123456789 },
		  { 1700000000, 999999999 },
		  { 2147483647, 5 },
		  { 2147483648, 500000001 },
		  { 4000000000, 7 } };

	for (enum kind k = 0; k < K_COUNT; k++) {
		make(k, "n");
		for (size_t i = 0; i < sizeof(v) / sizeof(*v); i++) {
			struct stat before = stat_of("n"), st;

			context("%s, %ld.%09ld", kind_name[k], v[i].s, v[i].n);
			tick();
			OK(set("n", v[i].s + 11, v[i].n, v[i].s, v[i].n));
			st = stat_of("n");
			EQ(st.st_mtim.tv_sec, v[i].s);
			EQ(st.st_mtim.tv_nsec, v[i].n);
			EQ(st.st_atim.tv_sec, v[i].s + 11);
			EQ(st.st_atim.tv_nsec, v[i].n);
			EQ(newer(st.st_ctim, before.st_ctim), 1);
		}
		destroy("n");
	}
	context("before 1970");
	touch("f");
	OK(set("f", -1, 5, -1000, 999999999));
	EQ(stat_of("f").st_mtim.tv_sec, -1000);
	EQ(stat_of("f").st_mtim.tv_nsec, 999999999);
	EQ(stat_of("f").st_atim.tv_sec, -1);
	EQ(stat_of("f").st_atim.tv_nsec, 5);
}

TEST(utimens, each_by_itself)
{
	struct stat st, before;

	touch("f");
	OK(set("f", 100, 1, 200, 2));
	OK(set("f", 0, UTIME_OMIT, 300, 3));
	st = stat_of("f");
	EQ(st.st_atim.tv_sec, 100);
	EQ(st.st_atim.tv_nsec, 1);
	EQ(st.st_mtim.tv_sec, 300);
	EQ(st.st_mtim.tv_nsec, 3);
	OK(set("f", 400, 4, 0, UTIME_OMIT));
	st = stat_of("f");
	EQ(st.st_atim.tv_sec, 400);
	EQ(st.st_mtim.tv_sec, 300);
	context("both omitted: nothing");
	before = st;
	tick();
	OK(set("f", 0, UTIME_OMIT, 0, UTIME_OMIT));
	UNMOVED("f", &before);
	context("now");
	{
		struct timespec t0, t1;

		clock_gettime(CLOCK_REALTIME_COARSE, &t0);
		OK(set("f", 0, UTIME_OMIT, 0, UTIME_NOW));
		clock_gettime(CLOCK_REALTIME, &t1);
		st = stat_of("f");
		EQ(st.st_atim.tv_sec, 400);
		EQ(newer(t0, st.st_mtim), 0);
		EQ(newer(st.st_mtim, t1), 0);
		OK(set("f", 0, UTIME_NOW, 55, 5));
		st = stat_of("f");
		EQ(newer(t0, st.st_atim), 0);
		EQ(st.st_mtim.tv_sec, 55);
		OK(utimensat(AT_FDCWD, "f", NULL, 0));
		st = stat_of("f");
		EQ(newer(t0, st.st_mtim), 0);
		EQ(same(st.st_mtim, st.st_atim), 1);
	}
	context("bad values");
	ERR(EINVAL, set("f", 0, 1000000000, 0, 0));
	ERR(EINVAL, set("f", 0, 0, 0, -1));
}

TEST(utimens, symbolic_link_and_descriptor)
{
	struct timespec t[2] = { { 10, 11 }, { 20, 21 } };
	int fd;

	touch("f");
	NEED(symlink("f", "l"));
	OK(utimensat(AT_FDCWD, "l", t, 0));
	EQ(stat_of("f").st_mtim.tv_nsec, 21);
	OK(set("l", 30, 31, 40, 41));
	EQ(stat_of("l").st_mtim.tv_nsec, 41);
	EQ(stat_of("f").st_mtim.tv_nsec, 21);
	fd = (int)NEED(open("f", O_RDONLY));
	t[1].tv_nsec = 99;
	OK(futimens(fd, t));
	EQ(stat_fd(fd).st_mtim.tv_nsec, 99);
	close(fd);
}

TEST(utimens, who_may)
{
	struct stat st;

	touch("f");
	NEED(chown("f", U1, G1));
	NEED(chmod("f", 0644));
	st = stat_of("f");
	tick();
	user(U2, G2);
	ERR(EACCES, utimensat(AT_FDCWD, "f", NULL, 0));
	ERR(EACCES, set("f", 0, UTIME_NOW, 0, UTIME_NOW));
	ERR(EPERM, set("f", 1, 1, 1, 1));
	ERR(EPERM, set("f", 0, UTIME_OMIT, 0, UTIME_NOW));
	ERR(EPERM, set("f", 0, UTIME_NOW, 0, UTIME_OMIT));
	ERR(EPERM, set("f", 0, UTIME_NOW, 5, 5));
	OK(set("f", 0, UTIME_OMIT, 0, UTIME_OMIT));
	root();
	UNMOVED("f", &st);
	NEED(chmod("f", 0666));
	user(U2, G2);
	OK(utimensat(AT_FDCWD, "f", NULL, 0));
	OK(set("f", 0, UTIME_NOW, 0, UTIME_NOW));
	ERR(EPERM, set("f", 1, 1, 1, 1));
	root();
	NEED(chmod("f", 0));
	user(U1, G1);
	OK(utimensat(AT_FDCWD, "f", NULL, 0));
	OK(set("f", 7, 8, 9, 10));
	root();
	EQ(stat_of("f").st_mtim.tv_nsec, 10);
}

TEST(times, of_data_changes)
{
	struct stat st;
	char b[4];
	int fd;

	put("f", "some contents", -1);
	context("write");
	fd = (int)NEED(open("f", O_RDWR));
	st = stat_of("f");
	tick();
	EQ(pwrite(fd, "x", 1, 3), 1);
	MOVED("f", &st, C_MOVED | M_MOVED);
	st = stat_of("f");
	context("close moves nothing, nor fsync");
	tick();
	OK(fsync(fd));
	UNMOVED("f", &st);
	OK(close(fd));
	UNMOVED("f", &st);
	context("read");
	fd = (int)NEED(open("f", O_RDWR));
	EQ(pread(fd, b, 4, 0), 4);
	UNMOVED("f", &st);
	context("write of nothing");
	EQ(pwrite(fd, "x", 0, 3), 0);
	UNMOVED("f", &st);
	context("write of the same bytes");
	tick();
	EQ(pwrite(fd, "x", 1, 3), 1);
	OK(close(fd));
	MOVED("f", &st, C_MOVED | M_MOVED);
	context("times set while open for writing stay");
	fd = (int)NEED(open("f", O_RDWR));
	EQ(pwrite(fd, "y", 1, 3), 1);
	OK(futimens(fd, (struct timespec[]){ { 1, 2 }, { 3, 4 } }));
	OK(close(fd));
	EQ(stat_of("f").st_mtim.tv_sec, 3);
	EQ(stat_of("f").st_mtim.tv_nsec, 4);
	HOLDS("f", "somy contents", -1);
}

TEST(times, of_attribute_changes)
{
	struct stat st, dir;

	touch("f");
	dir = stat_of(".");
	st = stat_of("f");
	tick();
	OK(chmod("f", 0600));
	MOVED("f", &st, C_MOVED);
	st = stat_of("f");
	tick();
	OK(chown("f", U1, G1));
	MOVED("f", &st, C_MOVED);
	UNMOVED(".", &dir);
	context("of a directory, apart from its own names");
	NEED(mkdir("d", 0755));
	put("d/f", "x", -1);
	dir = stat_of("d");
	tick();
	put("d/f", "longer", -1);
	OK(chmod("d/f", 0600));
	OK(truncate("d/f", 1));
	UNMOVED("d", &dir);
	NEED(mkdir("d/e", 0755));
	dir = stat_of("d");
	tick();
	touch("d/e/deeper");
	UNMOVED("d", &dir);
}

TEST(times, mapped_write)
{
	struct stat st;
	char *p;
	int fd;

	put("f", "0123456789", -1);
	st = stat_of("f");
	tick();
	fd = (int)NEED(open("f", O_RDWR));
	p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	TRUE(p != MAP_FAILED);
	p[5] = 'x';
	OK(msync(p, 4096, MS_SYNC));
	OK(munmap(p, 4096));
	OK(close(fd));
	MOVED("f", &st, C_MOVED | M_MOVED);
	HOLDS("f", "01234x6789", 10);
}
