/* SPDX-License-Identifier: MIT
 * truncate(2), ftruncate(2), limits of size, statfs(2). */
#include "suite.h"

#include <signal.h>
#include <sys/resource.h>
#include <sys/statvfs.h>
#include <sys/vfs.h>

TEST(truncate, shorter_and_longer)
{
	static const off_t sizes[] = { 0,      1,	4095,	4096,	4097,	8191,
				       10007,  65536,	131071, 262144, 262145, 524287,
				       524289, 1000003, 3,	524288, 0,	700001 };
	char *want = calloc(1, 1 << 20);
	off_t now = 0;
	int fd;

	touch("f");
	fd = (int)NEED(open("f", O_RDWR));
	for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
		struct stat st = stat_of("f");

		context("%lld to %lld", (long long)now, (long long)sizes[i]);
		if (sizes[i] < now)
			memset(want + sizes[i], 0, (size_t)(now - sizes[i]));
		tick();
		OK(i % 2 ? ftruncate(fd, sizes[i]) : truncate("f", sizes[i]));
		now = sizes[i];
		EQ(stat_of("f").st_size, now);
		EQ(stat_fd(fd).st_size, now);
		if (st.st_size != now || !facts.is_tmpfs)
			MOVED("f", &st, C_MOVED | M_MOVED);
		HOLDS("f", want, now);
		if (now > 3) { /* mark the end, at an odd offset */
			off_t at = (now - 3) | 1;
			size_t n = (size_t)(now - at < 2 ? now - at : 2);

			memcpy(want + at, "ZZ", n);
			EQ(pwrite(fd, "ZZ", n, at), (long)n);
		}
		if (i % 3 == 0)
			OK(fsync(fd));
	}
	OK(close(fd));
	HOLDS("f", want, now);
	free(want);
}

TEST(truncate, tail_is_zero_after_growing_again)
{
	char buf[10000], want[10000] = { 0 };

	pattern(buf, sizeof(buf), 0, 1);
	for (int closed = 0; closed < 2; closed++) {
		int fd;

		put("f", buf, sizeof(buf));
		fd = (int)NEED(open("f", O_RDWR));
		OK(ftruncate(fd, 1237));
		if (closed) {
			OK(close(fd));
			fd = (int)NEED(open("f", O_RDWR));
		}
		OK(ftruncate(fd, 9001));
		memcpy(want, buf, 1237);
		{
			char got[10000];

			EQ(pread(fd, got, sizeof(got), 0), 9001);
			EQ(memcmp(got, want, 9001), 0);
			EQ(pread(fd, got, sizeof(got), 1231), 9001 - 1231);
			EQ(memcmp(got, want + 1231, 9001 - 1231), 0);
		}
		OK(close(fd));
		HOLDS("f", want, 9001);
	}
}

TEST(truncate, same_size_moves_times)
{
	struct stat st;

	if (facts.is_tmpfs)
		skip("tmpfs does nothing then");
	put("f", "12345", -1);
	st = stat_of("f");
	tick();
	OK(truncate("f", 5));
	MOVED("f", &st, C_MOVED | M_MOVED);
	HOLDS("f", "12345", 5);
	touch("empty");
	st = stat_of("empty");
	tick();
	OK(truncate("empty", 0));
	MOVED("empty", &st, C_MOVED | M_MOVED);
}

TEST(truncate, errors)
{
	struct stat st;
	int fd;

	put("f", "12345", -1);
	st = stat_of("f");
	tick();
	ERR(EINVAL, truncate("f", -1));
	fd = (int)NEED(open("f", O_RDONLY));
	ERR(EINVAL, ftruncate(fd, 1));
	ERR(EBADF, ftruncate(-1, 1));
	close(fd);
	NEED(mkdir("d", 0755));
	ERR(EISDIR, truncate("d", 0));
	fd = (int)NEED(open("d", O_RDONLY));
	ERR(EINVAL, ftruncate(fd, 0));
	close(fd);
	make(K_FIFO, "fifo");
	ERR(EINVAL, truncate("fifo", 0));
	UNMOVED("f", &st);
	NEED(chmod("f", 0644));
	st = stat_of("f");
	tick();
	user(U1, G1);
	ERR(EACCES, truncate("f", 0));
	root();
	UNMOVED("f", &st);
	HOLDS("f", "12345", 5);
	context("a descriptor's right lasts");
	NEED(chown("f", U1, G1));
	user(U1, G1);
	fd = (int)NEED(open("f", O_RDWR));
	OK(fchmod(fd, 0));
	OK(ftruncate(fd, 2));
	ERR(EACCES, truncate("f", 0));
	close(fd);
	root();
	HOLDS("f", "12", 2);
}

/* Either refused or sparse; never a long wait, never memory. */
TEST(limits, huge_sizes)
{
	static const off_t sizes[] = { 999999999999999, INT64_MAX, (off_t)1 << 50 };

	put("f", "kept", -1);
	for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
		context("%lld", (long long)sizes[i]);
		if (truncate("f", sizes[i]) < 0) {
			EQ(errno, EFBIG);
			EQ(stat_of("f").st_size, 4);
		} else {
			EQ(stat_of("f").st_size, sizes[i]);
			EQ(stat_of("f").st_blocks < 1000, 1);
			OK(truncate("f", 4));
		}
		HOLDS("f", "kept", 4);
	}
	context("write far out");
	{
		int fd = (int)NEED(open("f", O_RDWR));

		errno = 0;
		if (pwrite(fd, "x", 1, INT64_MAX - 10) < 0)
			EQ(errno, EFBIG);
		ERR(EINVAL, pwrite(fd, "x", 1, -1));
		EQ(lseek(fd, 0, SEEK_END) >= 4, 1);
		OK(ftruncate(fd, 4));
		close(fd);
	}
	HOLDS("f", "kept", 4);
}

TEST(limits, process_file_size)
{
	struct rlimit r = { 10000, 10000 };
	char buf[8000] = { 0 };
	int fd;

	signal(SIGXFSZ, SIG_IGN);
	fd = (int)NEED(open("f", O_RDWR | O_CREAT, 0644));
	NEED(setrlimit(RLIMIT_FSIZE, &r));
	EQ(write(fd, buf, 8000), 8000);
	EQ(write(fd, buf, 8000), 2000);
	ERR(EFBIG, write(fd, buf, 1));
	ERR(EFBIG, ftruncate(fd, 10001));
	ERR(EFBIG, truncate("f", 20000));
	OK(ftruncate(fd, 9000));
	close(fd);
	EQ(stat_of("f").st_size, 9000);
}

TEST(limits, names_of_255_bytes)
{
	char name[257], other[257], path[600];

	memset(name, 'a', 255);
	name[255] = 0;
	memset(other, '\xfe', 255); /* three times as long where it is escaped */
	other[255] = 0;
	put(name, "x", 1);
	HOLDS(name, "x", 1);
	OK(rename(name, other));
	HOLDS(other, "x", 1);
	OK(link(other, name));
	OK(unlink(other));
	OK(unlink(name));
	OK(symlink(other, name));
	OK(unlink(name));
	OK(mkdir(other, 0755));
	snprintf(path, sizeof(path), "%s/%s", other, name);
	put(path, "y", 1);
	HOLDS(path, "y", 1);
	OK(mkfifo(name, 0644));
	OK(unlink(name));
	OK(rename(other, name));
	snprintf(path, sizeof(path), "%s/%s", name, name);
	HOLDS(path, "y", 1);
	EQ(pathconf(".", _PC_NAME_MAX), 255);
	name[255] = 'b';
	name[256] = 0;
	ERR(ENAMETOOLONG, rename(path, name));
	ERR(ENAMETOOLONG, link(path, name));
	ERR(ENAMETOOLONG, symlink("x", name));
	ERR(ENAMETOOLONG, mkdir(name, 0755));
	ERR(ENAMETOOLONG, open(name, O_WRONLY | O_CREAT, 0644));
	ERR(ENAMETOOLONG, mkfifo(name, 0644));
	ERR(ENAMETOOLONG, access(name, F_OK));
}

TEST(limits, deep_paths)
{
	char path[4000] = "";
	size_t len = 0;

	/* A path near 3,000 bytes, the rest being left to where this runs. */
	while (len < 2900) {
		size_t n = 100 + len % 97;

		memset(path + len, 'a' + (int)(len % 26), n);
		len += n;
		path[len] = 0;
		NEED(mkdir(path, 0755));
		path[len++] = '/';
	}
	strcpy(path + len, "file");
	put(path, "down there", -1);
	HOLDS(path, "down there", -1);
	EQ(stat_of(path).st_size, 10);
	OK(symlink(path, "l"));
	HOLDS("l", "down there", -1);
	OK(rename(path, "up"));
	OK(rename("up", path));
	OK(unlink(path));
}

TEST(statfs, plausible)
{
	struct statvfs v;
	struct statfs s;
	int fd;

	OK(statvfs(".", &v));
	EQ(v.f_namemax, 255);
	EQ(v.f_bsize > 0, 1);
	EQ(v.f_frsize > 0, 1);
	EQ(v.f_blocks >= v.f_bfree, 1);
	EQ(v.f_bfree >= v.f_bavail, 1);
	EQ(v.f_blocks > 0, 1);
	EQ(v.f_flag & ST_RDONLY, 0);
	touch("f");
	fd = (int)NEED(open("f", O_RDONLY));
	OK(fstatfs(fd, &s));
	EQ(s.f_namelen, 255);
	close(fd);
}

TEST(stat, block_counts)
{
	struct stat st;
	char buf[100000];

	touch("empty");
	EQ(stat_of("empty").st_blocks, 0);
	pattern(buf, sizeof(buf), 0, 3);
	put("f", buf, sizeof(buf));
	{
		int fd = (int)NEED(open("f", O_RDWR));

		OK(fsync(fd)); /* delayed allocation */
		close(fd);
	}
	st = stat_of("f");
	EQ(st.st_size, 100000);
	EQ(st.st_blocks >= 100000 / 512 && st.st_blocks < 100000 / 512 + 300, 1);
	EQ(st.st_blksize >= 512, 1);
}
