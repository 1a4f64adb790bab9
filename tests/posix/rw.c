/* SPDX-License-Identifier: MIT
 * read(2), write(2) and their kin, at every offset: aligned, odd, across
 * pages, chunks and ends. */
#include "suite.h"

#include <limits.h>
#include <pthread.h>
#include <sys/uio.h>
#include <sys/wait.h>

/* Offsets around the borders of pages, plain files and chunks. */
static const off_t offsets[] = { 0,	 1,	 2,	 511,	 513,	  4095,	  4096,
				 4097,	 8191,	 12289,	 65535,	 131073,  262143, 262144,
				 262145, 524287, 524288, 524289, 1048575, 1048577 };
static const size_t lengths[] = { 1,	2,    3,    7,	   511,	   512,	  4095,
				  4096, 4097, 9999, 65537, 131071, 300001 };
#define N_OFFSETS (sizeof(offsets) / sizeof(*offsets))
#define N_LENGTHS (sizeof(lengths) / sizeof(*lengths))
#define BIG	  (2u << 20)

/* Reads [at, at+len) and compares with the model; beyond `size` there is nothing. */
static void compare(int fd, const char *model, size_t size, off_t at, size_t len, char *buf)
{
	size_t want = (size_t)at >= size ? 0 : size - (size_t)at < len ? size - (size_t)at : len;
	ssize_t n = pread(fd, buf, len, at);

	if (n != (ssize_t)want) {
		context("read %zu at %lld of %zu", len, (long long)at, size);
		EQ(n, want);
	} else if (want && memcmp(buf, model + at, want)) {
		context("read %zu at %lld of %zu", len, (long long)at, size);
		EQ(memcmp(buf, model + at, want), 0);
	}
}

TEST(rw, reads_at_every_offset)
{
	char *model = malloc(BIG), *buf = malloc(BIG);
	static const size_t sizes[] = { 1,	4096,	4097,	100003, 262144,
					262145, 524288, 524289, 1300007 };

	for (size_t s = 0; s < sizeof(sizes) / sizeof(*sizes); s++) {
		int fd;

		pattern(model, sizes[s], 0, (unsigned)s);
		put("f", model, (ssize_t)sizes[s]);
		HOLDS("f", model, (ssize_t)sizes[s]);
		fd = (int)NEED(open("f", O_RDONLY));
		for (size_t o = 0; o < N_OFFSETS; o++) {
			for (size_t l = 0; l < N_LENGTHS; l++)
				compare(fd, model, sizes[s], offsets[o], lengths[l], buf);
			compare(fd, model, sizes[s], (off_t)sizes[s] - 1, 3, buf);
			compare(fd, model, sizes[s], (off_t)sizes[s], 3, buf);
			compare(fd, model, sizes[s], (off_t)sizes[s] + 5, 3, buf);
		}
		OK(close(fd));
		TRUE(true);
	}
	free(model);
	free(buf);
}

TEST(rw, writes_at_every_offset)
{
	char *model = malloc(2 * BIG), *buf = malloc(2 * BIG);
	unsigned seed = 7;

	for (size_t o = 0; o < N_OFFSETS; o++) {
		size_t size = 0;
		int fd = (int)NEED(open("f", O_RDWR | O_CREAT | O_TRUNC, 0644));

		memset(model, 0, 2 * BIG);
		for (size_t l = 0; l < N_LENGTHS; l += 2) {
			size_t end = (size_t)offsets[o] + lengths[l];

			context("%zu at %lld", lengths[l], (long long)offsets[o]);
			pattern(model + offsets[o], lengths[l], 0, seed++);
			EQ(pwrite(fd, model + offsets[o], lengths[l], offsets[o]), lengths[l]);
			if (end > size)
				size = end;
			compare(fd, model, size, offsets[o] > 5 ? offsets[o] - 5 : 0,
				lengths[l] + 10, buf);
			if (l % 4 == 0) {
				OK(close(fd));
				fd = (int)NEED(open("f", O_RDWR));
				compare(fd, model, size, offsets[o] > 5 ? offsets[o] - 5 : 0,
					lengths[l] + 10, buf);
			}
			EQ(stat_fd(fd).st_size, size);
		}
		OK(close(fd));
		HOLDS("f", model, (ssize_t)size);
	}
	free(model);
	free(buf);
}

TEST(rw, overwrites_inside_and_across_the_end)
{
	enum { SIZE = 600011 };
	char *model = malloc(BIG), *buf = malloc(BIG);
	uint64_t state = 42;
	size_t size = SIZE;

	pattern(model, BIG, 0, 1);
	put("f", model, SIZE);
	for (int i = 0; i < 120; i++) {
		off_t at = (off_t)(rnd(&state) % (SIZE + 1)) | 1;
		size_t len = 1 + rnd(&state) % (i % 3 ? 5000 : 90001);
		int fd = (int)NEED(open("f", O_RDWR));

		if ((size_t)at > size)
			at = (off_t)size;
		context("%zu at %lld", len, (long long)at);
		pattern(model + at, len, 0, (unsigned)i + 100);
		EQ(pwrite(fd, model + at, len, at), len);
		if ((size_t)at + len > size)
			size = (size_t)at + len;
		compare(fd, model, size, at > 3 ? at - 3 : 0, len + 6, buf);
		OK(close(fd));
		if (i % 10 == 0)
			HOLDS("f", model, (ssize_t)size);
	}
	HOLDS("f", model, (ssize_t)size);
	free(model);
	free(buf);
}

TEST(rw, small_sequential_writes)
{
	char model[30000], b[13];
	size_t done = 0;
	int fd;

	pattern(model, sizeof(model), 0, 9);
	fd = (int)NEED(open("f", O_RDWR | O_CREAT, 0644));
	while (done < sizeof(model)) {
		size_t n = sizeof(model) - done < 13 ? sizeof(model) - done : 13;

		EQ(write(fd, model + done, n), n);
		done += n;
	}
	EQ(lseek(fd, 0, SEEK_CUR), (long)sizeof(model));
	EQ(lseek(fd, 17, SEEK_SET), 17);
	for (size_t at = 17;;) {
		ssize_t n = read(fd, b, sizeof(b));

		if (n <= 0 || memcmp(b, model + at, (size_t)n)) {
			EQ(n, 0);
			EQ(at, sizeof(model));
			break;
		}
		at += (size_t)n;
	}
	OK(close(fd));
	HOLDS("f", model, sizeof(model));
}

TEST(rw, vectors)
{
	char a[5], b[100], c[3], model[108];
	struct iovec v[4] = { { a, 5 }, { b, 100 }, { NULL, 0 }, { c, 3 } };
	int fd;

	pattern(model, sizeof(model), 0, 4);
	memcpy(a, model, 5);
	memcpy(b, model + 5, 100);
	memcpy(c, model + 105, 3);
	fd = (int)NEED(open("f", O_RDWR | O_CREAT, 0644));
	EQ(writev(fd, v, 4), 108);
	EQ(pwritev(fd, v, 4, 4001), 108);
	memset(a, 0, 5);
	memset(b, 0, 100);
	memset(c, 0, 3);
	EQ(preadv(fd, v, 4, 4001), 108);
	EQ(memcmp(a, model, 5), 0);
	EQ(memcmp(b, model + 5, 100), 0);
	EQ(memcmp(c, model + 105, 3), 0);
	OK(close(fd));
	EQ(stat_of("f").st_size, 4109);
}

TEST(rw, descriptor_and_path_agree_at_once)
{
	char buf[64];
	int w, r;

	w = (int)NEED(open("f", O_RDWR | O_CREAT, 0644));
	r = (int)NEED(open("f", O_RDONLY));
	for (int i = 0; i < 50; i++) {
		size_t n = (size_t)snprintf(buf, sizeof(buf), "line %d\n", i);
		off_t at = lseek(w, 0, SEEK_CUR);
		char got[64];

		EQ(write(w, buf, n), n);
		EQ(stat_of("f").st_size, at + (off_t)n);
		EQ(pread(r, got, sizeof(got), at), n);
		EQ(memcmp(got, buf, n), 0);
	}
	close(r);
	close(w);
}

TEST(append, goes_to_the_end)
{
	char buf[32];
	int a, b;

	put("f", "start;", -1);
	a = (int)NEED(open("f", O_RDWR | O_APPEND));
	b = (int)NEED(open("f", O_WRONLY | O_APPEND));
	EQ(lseek(a, 0, SEEK_SET), 0);
	EQ(write(a, "one;", 4), 4);
	EQ(write(b, "two;", 4), 4);
	EQ(write(a, "three;", 6), 6);
	EQ(lseek(a, 0, SEEK_CUR), 20);
	EQ(pread(a, buf, 6, 0), 6);
	OK(ftruncate(b, 3));
	EQ(write(a, "end", 3), 3);
	OK(close(a));
	OK(close(b));
	HOLDS("f", "staend", 6);
	context("create, append, again");
	for (int i = 0; i < 20; i++) {
		a = (int)NEED(open("log", O_WRONLY | O_CREAT | O_APPEND, 0644));
		EQ(write(a, "0123456", 7), 7);
		OK(close(a));
		EQ(stat_of("log").st_size, 7 * (i + 1));
	}
}

static int appender(void *arg)
{
	int me = *(int *)arg;
	char line[32];

	for (int i = 0; i < 200; i++) {
		int fd = open("log", O_WRONLY | O_APPEND);
		int n = snprintf(line, sizeof(line), "%d:%03d\n", me, i);

		if (fd < 0 || write(fd, line, (size_t)n) != n || close(fd) < 0)
			return 1;
	}
	return 0;
}

TEST(append, by_several_processes)
{
	int next[4] = { 0 }, status, lines = 0;
	char line[64];
	FILE *f;

	touch("log");
	fflush(stdout);
	for (int i = 0; i < 4; i++) {
		if (fork() == 0)
			_exit(appender(&i));
	}
	for (int i = 0; i < 4; i++) {
		OK(wait(&status));
		EQ(status, 0);
	}
	f = fopen("log", "r");
	while (f && fgets(line, sizeof(line), f)) {
		int who, nr;

		if (!TRUE(sscanf(line, "%d:%d\n", &who, &nr) == 2 && who >= 0 && who < 4))
			break;
		EQ(nr, next[who]);
		next[who]++;
		lines++;
	}
	if (f)
		fclose(f);
	EQ(lines, 800);
}

struct hammer {
	int fd;
	int id;
	bool good;
};

static void *hammer(void *arg)
{
	struct hammer *h = arg;
	char buf[1021], got[1021];

	h->good = true;
	for (int i = 0; i < 100 && h->good; i++) {
		off_t at = (off_t)h->id * 102100 + (off_t)i * 1021;

		pattern(buf, sizeof(buf), (uint64_t)at, 5);
		h->good = pwrite(h->fd, buf, sizeof(buf), at) == sizeof(buf) &&
			  pread(h->fd, got, sizeof(got), at) == sizeof(got) &&
			  !memcmp(buf, got, sizeof(buf));
	}
	return NULL;
}

TEST(rw, threads_on_one_file)
{
	struct hammer h[8];
	pthread_t t[8];
	char *model = malloc(8 * 102100);
	int fd = (int)NEED(open("f", O_RDWR | O_CREAT, 0644));

	for (int i = 0; i < 8; i++) {
		h[i] = (struct hammer){ .fd = fd, .id = i };
		TRUE(pthread_create(&t[i], NULL, hammer, &h[i]) == 0);
	}
	for (int i = 0; i < 8; i++) {
		pthread_join(t[i], NULL);
		TRUE(h[i].good);
	}
	OK(close(fd));
	pattern(model, 8 * 102100, 0, 5);
	HOLDS("f", model, 8 * 102100);
	free(model);
}

TEST(rw, seek)
{
	int fd;

	put("f", "0123456789", -1);
	fd = (int)NEED(open("f", O_RDWR));
	EQ(lseek(fd, 0, SEEK_END), 10);
	EQ(lseek(fd, -3, SEEK_END), 7);
	EQ(lseek(fd, 2, SEEK_CUR), 9);
	EQ(lseek(fd, 100, SEEK_SET), 100);
	ERR(EINVAL, lseek(fd, -1, SEEK_SET));
	ERR(EINVAL, lseek(fd, -11, SEEK_END));
	ERR(EINVAL, lseek(fd, 0, 99));
	EQ(write(fd, "x", 1), 1);
	EQ(stat_fd(fd).st_size, 101);
	close(fd);
}

TEST(rw, big_file)
{
	enum { MB = 1 << 20, N = 12 };
	char *buf = malloc(MB), *got = malloc(MB);
	uint64_t state = 3;
	int fd;

	fd = (int)NEED(open("f", O_RDWR | O_CREAT, 0644));
	for (int i = 0; i < N; i++) {
		pattern(buf, MB, (uint64_t)i * MB, 8);
		EQ(write(fd, buf, MB), MB);
	}
	OK(fsync(fd));
	OK(close(fd));
	EQ(stat_of("f").st_size, (off_t)N * MB);
	fd = (int)NEED(open("f", O_RDWR));
	for (int i = 0; i < 60; i++) {
		off_t at = (off_t)(rnd(&state) % ((uint64_t)N * MB - 40001)) | 1;

		pattern(buf, 40001, (uint64_t)at, 8);
		EQ(pread(fd, got, 40001, at), 40001);
		EQ(memcmp(buf, got, 40001), 0);
	}
	context("one odd write in the middle leaves the rest");
	pattern(buf, 1001, 0, 99);
	EQ(pwrite(fd, buf, 1001, 5 * MB + 77), 1001);
	OK(close(fd));
	fd = (int)NEED(open("f", O_RDONLY));
	for (int i = 0; i < N; i++) {
		pattern(buf, MB, (uint64_t)i * MB, 8);
		if (i == 5)
			pattern(buf + 77, 1001, 0, 99);
		EQ(read(fd, got, MB), MB);
		EQ(memcmp(buf, got, MB), 0);
	}
	OK(close(fd));
	free(buf);
	free(got);
}
