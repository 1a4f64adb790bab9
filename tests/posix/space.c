/* SPDX-License-Identifier: MIT
 * Holes, SEEK_HOLE and SEEK_DATA, fallocate(2), copy_file_range(2). A file
 * system may refuse a mode of fallocate with EOPNOTSUPP, and may call a hole
 * data; what it does, it does right. */
#include "suite.h"

#include <linux/falloc.h>
#include <sys/syscall.h>

TEST(sparse, reads_as_zero)
{
	char *want = calloc(1, 2000011);
	int fd = (int)NEED(open("f", O_RDWR | O_CREAT, 0644));

	memcpy(want + 1999990, "the end", 7);
	memcpy(want + 700001, "middle", 6);
	EQ(pwrite(fd, "the end", 7, 1999990), 7);
	EQ(stat_fd(fd).st_size, 1999997);
	EQ(pwrite(fd, "middle", 6, 700001), 6);
	HOLDS("f", want, 1999997);
	OK(close(fd));
	HOLDS("f", want, 1999997);
	OK(truncate("f", 2000011));
	HOLDS("f", want, 2000011);
	free(want);
}

TEST(sparse, far_out)
{
	char b[8];
	int fd = (int)NEED(open("f", O_RDWR | O_CREAT, 0644));
	off_t far = 500000007;

	EQ(pwrite(fd, "far", 3, far), 3);
	EQ(stat_fd(fd).st_size, far + 3);
	OK(close(fd));
	fd = (int)NEED(open("f", O_RDWR));
	EQ(pread(fd, b, sizeof(b), far - 2), 5);
	EQ(memcmp(b, "\0\0far", 5), 0);
	EQ(pread(fd, b, sizeof(b), far / 2 + 1), 8);
	EQ(memcmp(b, "\0\0\0\0\0\0\0\0", 8), 0);
	if (!facts.is_fuse) /* a store's attributes have no count of blocks */
		EQ(stat_fd(fd).st_blocks < 20000, 1);
	OK(ftruncate(fd, 1));
	EQ(stat_fd(fd).st_size, 1);
	OK(close(fd));
}

/* Data is never called a hole; walking makes progress and ends at the end. */
static void walk(int fd, off_t size, const off_t (*data)[2], int n)
{
	off_t at = 0;
	bool seen[8] = { false };

	for (int steps = 0; at < size && steps < 10000; steps++) {
		off_t d = lseek(fd, at, SEEK_DATA), h;

		if (d < 0) {
			EQ(errno, ENXIO);
			break;
		}
		EQ(d >= at, 1);
		h = OK(lseek(fd, d, SEEK_HOLE));
		EQ(h > d, 1);
		EQ(h <= size, 1);
		for (int i = 0; i < n; i++)
			seen[i] |= d <= data[i][0] && data[i][1] <= h;
		at = h;
	}
	for (int i = 0; i < n; i++) {
		context("data at %lld", (long long)data[i][0]);
		TRUE(seen[i]);
	}
}

TEST(sparse, holes_and_data)
{
	static const off_t data[][2] = { { 100000, 100010 }, { 1500001, 1500011 } };
	int fd = (int)NEED(open("f", O_RDWR | O_CREAT, 0644));

	ERR(ENXIO, lseek(fd, 0, SEEK_DATA));
	ERR(ENXIO, lseek(fd, 0, SEEK_HOLE));
	EQ(pwrite(fd, "0123456789", 10, 100000), 10);
	EQ(pwrite(fd, "0123456789", 10, 1500001), 10);
	OK(ftruncate(fd, 3000000));
	walk(fd, 3000000, data, 2);
	OK(close(fd));
	fd = (int)NEED(open("f", O_RDONLY));
	walk(fd, 3000000, data, 2);
	ERR(ENXIO, lseek(fd, 3000000, SEEK_DATA));
	ERR(ENXIO, lseek(fd, 3000000, SEEK_HOLE));
	ERR(ENXIO, lseek(fd, 3000001, SEEK_HOLE));
	EQ(lseek(fd, 1500003, SEEK_DATA), 1500003);
	EQ(lseek(fd, 1500003, SEEK_HOLE) > 1500003, 1);
	EQ(lseek(fd, 2999999, SEEK_HOLE) >= 2999999, 1);
	OK(close(fd));
	put("full", "12345", -1);
	fd = (int)NEED(open("full", O_RDONLY));
	EQ(lseek(fd, 2, SEEK_DATA), 2);
	EQ(lseek(fd, 2, SEEK_HOLE), 5);
	close(fd);
}

#define SIZE 700013

static void allocate_case(int mode, off_t at, off_t len)
{
	char *model = calloc(1, 2 * SIZE), *src = calloc(1, 2 * SIZE);
	size_t size = SIZE;
	struct stat before;
	int fd;

	context("mode %#x, %lld + %lld", (unsigned)mode, (long long)at, (long long)len);
	pattern(model, SIZE, 0, 6);
	put("f", model, SIZE);
	fd = (int)NEED(open("f", O_RDWR));
	before = stat_fd(fd);
	tick();
	if (fallocate(fd, mode, at, len) < 0) {
		EQ(errno, EOPNOTSUPP);
		UNMOVED("f", &before);
		goto out;
	}
	if (mode & (FALLOC_FL_PUNCH_HOLE | FALLOC_FL_ZERO_RANGE)) {
		for (off_t i = at; i < at + len && i < 2 * SIZE; i++) {
			if (i < SIZE || !(mode & FALLOC_FL_KEEP_SIZE))
				model[i] = 0;
		}
		MOVED("f", &before, C_MOVED | M_MOVED);
	}
	if (!(mode & FALLOC_FL_KEEP_SIZE) && (size_t)(at + len) > size)
		size = (size_t)(at + len);
	EQ(stat_fd(fd).st_size, size);
	EQ(stat_of("f").st_size, size);
	HOLDS("f", model, (ssize_t)size);
	{
		off_t from = at > 11 ? at - 11 : 0;
		ssize_t want = from >= (off_t)size	  ? 0
			       : (off_t)size - from < 333 ? (ssize_t)((off_t)size - from)
							  : 333;

		EQ(pread(fd, src, 333, from), want);
		EQ(memcmp(src, model + from, (size_t)want), 0);
	}
out:
	OK(close(fd));
	HOLDS("f", model, (ssize_t)size);
	EQ(stat_of("f").st_size, size);
	OK(unlink("f"));
	free(model);
	free(src);
}

TEST(fallocate, every_mode_at_every_offset)
{
	static const int modes[] = {
		0,
		FALLOC_FL_KEEP_SIZE,
		FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
		FALLOC_FL_ZERO_RANGE,
		FALLOC_FL_ZERO_RANGE | FALLOC_FL_KEEP_SIZE,
	};
	static const off_t ranges[][2] = {
		{ 0, 4096 },	  { 0, SIZE },	 { 1, 1 },	    { 4095, 2 },
		{ 511, 9001 },	  { 262143, 3 }, { 524287, 70001 }, { SIZE - 5, 5 },
		{ SIZE - 5, 11 }, { SIZE, 1 },	 { SIZE + 7, 101 }, { 0, SIZE + 4097 },
		{ 8192, 600001 },
	};

	for (size_t m = 0; m < sizeof(modes) / sizeof(*modes); m++) {
		for (size_t r = 0; r < sizeof(ranges) / sizeof(*ranges); r++)
			allocate_case(modes[m], ranges[r][0], ranges[r][1]);
	}
}

TEST(fallocate, makes_room)
{
	int fd = (int)NEED(open("f", O_RDWR | O_CREAT, 0644));

	EQ(posix_fallocate(fd, 0, 100003), 0);
	EQ(stat_fd(fd).st_size, 100003);
	EQ(posix_fallocate(fd, 7, 5), 0);
	EQ(stat_fd(fd).st_size, 100003);
	EQ(pwrite(fd, "x", 1, 100002), 1);
	OK(close(fd));
	EQ(stat_of("f").st_size, 100003);
}

TEST(fallocate, errors)
{
	int fd = (int)NEED(open("f", O_RDWR | O_CREAT, 0644)), ro, p[2];

	ERR(EINVAL, fallocate(fd, 0, 0, 0));
	ERR(EINVAL, fallocate(fd, 0, -1, 5));
	ERR(EINVAL, fallocate(fd, 0, 5, -1));
	ERR(EOPNOTSUPP, fallocate(fd, FALLOC_FL_PUNCH_HOLE, 0, 5));
	ERR(EFBIG, fallocate(fd, 0, INT64_MAX - 5, 10));
	ro = (int)NEED(open("f", O_RDONLY));
	ERR(EBADF, fallocate(ro, 0, 0, 5));
	NEED(pipe(p));
	ERR(ESPIPE, fallocate(p[1], 0, 0, 5));
	EQ(stat_fd(fd).st_size, 0);
	EQ(posix_fallocate(fd, 0, 0), EINVAL);
	EQ(posix_fallocate(ro, 0, 5), EBADF);
	close(ro);
	close(fd);
}

TEST(fallocate, range_removal_and_insertion)
{
	char *model = malloc(40960);
	int fd;

	pattern(model, 40960, 0, 2);
	put("f", model, 40960);
	fd = (int)NEED(open("f", O_RDWR));
	if (fallocate(fd, FALLOC_FL_COLLAPSE_RANGE, 4096, 4096) < 0) {
		EQ(errno, EOPNOTSUPP);
		HOLDS("f", model, 40960);
	} else {
		EQ(stat_fd(fd).st_size, 36864);
		memmove(model + 4096, model + 8192, 32768);
		HOLDS("f", model, 36864);
	}
	close(fd);
	free(model);
}

static long copy_range(int in, off_t *at_in, int out, off_t *at_out, size_t len)
{
	return syscall(SYS_copy_file_range, in, at_in, out, at_out, len, 0);
}

TEST(copy, ranges_at_every_offset)
{
	static const struct {
		off_t from, to;
		size_t len;
	} c[] = {
		{ 0, 0, SIZE },	       { 0, 0, 1 },	      { 1, 3, 4095 },
		{ 4097, 1, 90001 },    { 262143, 524289, 3 }, { SIZE - 7, 11, 100 },
		{ 5, SIZE + 99, 777 }, { 524289, 0, 100000 }, { 3, 262145, 300001 },
	};
	char *a = malloc(SIZE), *b = malloc(3 * SIZE);

	pattern(a, SIZE, 0, 1);
	put("a", a, SIZE);
	for (size_t i = 0; i < sizeof(c) / sizeof(*c); i++) {
		size_t size = SIZE / 2, left = c[i].len, all;
		off_t from = c[i].from, to = c[i].to;
		struct stat st;
		int in, out;

		context("%zu from %lld to %lld", c[i].len, (long long)from, (long long)to);
		memset(b, 0, 3 * SIZE);
		pattern(b, size, 0, 77);
		put("b", b, (ssize_t)size);
		st = stat_of("b");
		tick();
		in = (int)NEED(open("a", O_RDONLY));
		out = (int)NEED(open("b", O_RDWR));
		all = c[i].len < (size_t)(SIZE - from) ? c[i].len : (size_t)(SIZE - from);
		for (size_t done = 0; done < all;) {
			long n = copy_range(in, &from, out, &to, left);

			if (n <= 0) {
				if (n < 0 && (errno == EOPNOTSUPP || errno == EXDEV))
					skip("no copy_file_range");
				EQ(n, 1);
				break;
			}
			done += (size_t)n;
			left -= (size_t)n;
		}
		EQ(from, c[i].from + (off_t)all);
		EQ(to, c[i].to + (off_t)all);
		memcpy(b + c[i].to, a + c[i].from, all);
		if ((size_t)c[i].to + all > size)
			size = (size_t)c[i].to + all;
		EQ(stat_fd(out).st_size, size);
		OK(close(in));
		OK(close(out));
		HOLDS("b", b, (ssize_t)size);
		HOLDS("a", a, SIZE);
		MOVED("b", &st, C_MOVED | M_MOVED);
	}
	free(a);
	free(b);
}

TEST(copy, sees_what_is_not_yet_closed)
{
	int in = (int)NEED(open("a", O_RDWR | O_CREAT, 0644));
	int out = (int)NEED(open("b", O_RDWR | O_CREAT, 0644));
	off_t zero = 0, to = 3;

	EQ(pwrite(in, "fresh bytes", 11, 0), 11);
	EQ(pwrite(out, "abc", 3, 0), 3);
	EQ(copy_range(in, &zero, out, &to, 100), 11);
	EQ(copy_range(in, &zero, out, &to, 100), 0);
	HOLDS("b", "abcfresh bytes", -1);
	OK(close(in));
	OK(close(out));
	HOLDS("b", "abcfresh bytes", -1);
	context("inside one file");
	in = (int)NEED(open("b", O_RDWR));
	zero = 3;
	to = 20;
	EQ(copy_range(in, &zero, in, &to, 5), 5);
	zero = 0;
	to = 3;
	ERR(EINVAL, copy_range(in, &zero, in, &to, 10));
	OK(close(in));
	HOLDS("b", "abcfresh bytes\0\0\0\0\0\0fresh", 25);
}

TEST(copy, errors)
{
	off_t a = 0, b = 0;
	int in, out, ap;

	put("a", "x", -1);
	put("b", "y", -1);
	in = (int)NEED(open("a", O_RDONLY));
	out = (int)NEED(open("b", O_WRONLY));
	ap = (int)NEED(open("b", O_WRONLY | O_APPEND));
	ERR(EBADF, copy_range(out, &a, in, &b, 1));
	ERR(EBADF, copy_range(in, &a, ap, &b, 1));
	NEED(mkdir("d", 0755));
	ERR(EISDIR, copy_range((int)NEED(open("d", O_RDONLY)), &a, out, &b, 1));
	EQ(syscall(SYS_copy_file_range, in, &a, out, &b, 1, 99), -1);
	close(in);
	close(out);
	close(ap);
	HOLDS("b", "y", 1);
}
