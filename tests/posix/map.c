/* SPDX-License-Identifier: MIT
 * mmap(2), shared and private, and fsync(2). */
#include "suite.h"

#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>

#define LEN 300007

static char *map_file(int fd, int prot, int flags, size_t len)
{
	char *p = mmap(NULL, len, prot, flags, fd, 0);

	if (!TRUE(p != MAP_FAILED))
		_exit(1);
	return p;
}

TEST(mmap, reads)
{
	char *model = malloc(LEN), *p;
	int fd;

	pattern(model, LEN, 0, 1);
	put("f", model, LEN);
	fd = (int)NEED(open("f", O_RDONLY));
	p = map_file(fd, PROT_READ, MAP_PRIVATE, LEN);
	EQ(memcmp(p, model, LEN), 0);
	OK(munmap(p, LEN));
	p = map_file(fd, PROT_READ, MAP_SHARED, LEN);
	OK(close(fd));
	EQ(memcmp(p, model, LEN), 0);
	context("the rest of the last page is zero");
	for (size_t i = LEN; i % 4096; i++) {
		if (p[i])
			EQ(p[i], 0);
	}
	OK(munmap(p, LEN));
	free(model);
}

TEST(mmap, shared_writes)
{
	char *model = malloc(LEN), *p, b[100];
	uint64_t state = 5;
	int fd;

	pattern(model, LEN, 0, 1);
	put("f", model, LEN);
	fd = (int)NEED(open("f", O_RDWR));
	p = map_file(fd, PROT_READ | PROT_WRITE, MAP_SHARED, LEN);
	for (int i = 0; i < 100; i++) {
		size_t at = rnd(&state) % (LEN - 100) | 1, n = 1 + rnd(&state) % 99;

		context("round %d", i);
		pattern(model + at, n, 0, (unsigned)i);
		if (i % 2) {
			memcpy(p + at, model + at, n);
			EQ(pread(fd, b, n, (off_t)at), n);
			EQ(memcmp(b, model + at, n), 0);
		} else {
			EQ(pwrite(fd, model + at, n, (off_t)at), n);
			EQ(memcmp(p + at, model + at, n), 0);
		}
		if (i % 25 == 0)
			OK(msync(p, LEN, MS_SYNC));
	}
	context("end");
	OK(msync(p, LEN, MS_SYNC));
	HOLDS("f", model, LEN);
	p[12345] ^= 0x55;
	model[12345] ^= 0x55;
	OK(close(fd)); /* the mapping lives on */
	p[99999] ^= 0x55;
	model[99999] ^= 0x55;
	OK(munmap(p, LEN));
	HOLDS("f", model, LEN);
	free(model);
}

TEST(mmap, private_writes_stay_private)
{
	char *p;
	int fd;

	put("f", "untouched", -1);
	fd = (int)NEED(open("f", O_RDONLY));
	p = map_file(fd, PROT_READ | PROT_WRITE, MAP_PRIVATE, 4096);
	memcpy(p, "scribbled", 9);
	OK(munmap(p, 4096));
	OK(close(fd));
	HOLDS("f", "untouched", 9);
}

static int maps_and_dies(void *arg)
{
	int fd = open(arg, O_RDWR);
	char *p = mmap(NULL, 8192, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);

	if (p == MAP_FAILED)
		return 1;
	memcpy(p + 4090, "written by a process", 20);
	return 0; /* no msync, no munmap, no close */
}

TEST(mmap, left_by_a_process)
{
	char want[8192], path[] = "f";

	memset(want, '.', sizeof(want));
	put("f", want, sizeof(want));
	EQ(in_child(maps_and_dies, path), 0);
	memcpy(want + 4090, "written by a process", 20);
	HOLDS("f", want, sizeof(want));
}

TEST(mmap, shared_by_two_processes)
{
	char *p;
	int fd;

	put("f", "????????????????", -1);
	NEED(truncate("f", 8192));
	fd = (int)NEED(open("f", O_RDWR));
	p = map_file(fd, PROT_READ | PROT_WRITE, MAP_SHARED, 8192);
	EQ(in_child(maps_and_dies, (char[]){ "f" }), 0);
	EQ(memcmp(p + 4090, "written by a process", 20), 0);
	OK(munmap(p, 8192));
	OK(close(fd));
}

TEST(mmap, grows_under_the_mapping)
{
	char *p;
	int fd = (int)NEED(open("f", O_RDWR | O_CREAT, 0644));

	OK(ftruncate(fd, 5000));
	p = map_file(fd, PROT_READ | PROT_WRITE, MAP_SHARED, 16384);
	p[4999] = 'a';
	OK(ftruncate(fd, 16384));
	EQ(p[5000], 0);
	p[16383] = 'z';
	OK(ftruncate(fd, 4999));
	OK(ftruncate(fd, 16384));
	EQ(p[4999], 0);
	EQ(p[16383], 0);
	p[10000] = 'm';
	OK(munmap(p, 16384));
	OK(close(fd));
	{
		char want[16384] = { 0 };

		want[10000] = 'm';
		HOLDS("f", want, 16384);
	}
}

static sigjmp_buf jump;

static void on_bus(int sig)
{
	(void)sig;
	siglongjmp(jump, 1);
}

TEST(mmap, beyond_the_end)
{
	struct sigaction sa = { .sa_handler = on_bus };
	volatile char *p;
	volatile bool hit = false;
	int fd;

	NEED(sigaction(SIGBUS, &sa, NULL));
	put("f", "x", 1);
	NEED(truncate("f", 8192));
	fd = (int)NEED(open("f", O_RDWR));
	p = map_file(fd, PROT_READ, MAP_SHARED, 8192);
	EQ(p[0], 'x');
	EQ(p[5000], 0);
	OK(ftruncate(fd, 10));
	if (sigsetjmp(jump, 1) == 0) {
		if (p[5000] == 1)
			EQ(p[5000], 0);
	} else {
		hit = true;
	}
	TRUE(hit);
	close(fd);
}

TEST(mmap, errors)
{
	int fd;

	put("f", "x", 1);
	fd = (int)NEED(open("f", O_WRONLY));
	TRUE(mmap(NULL, 1, PROT_READ, MAP_SHARED, fd, 0) == MAP_FAILED && errno == EACCES);
	close(fd);
	fd = (int)NEED(open("f", O_RDONLY));
	TRUE(mmap(NULL, 1, PROT_WRITE, MAP_SHARED, fd, 0) == MAP_FAILED && errno == EACCES);
	close(fd);
}

TEST(fsync, of_everything)
{
	int fd = (int)NEED(open("f", O_RDWR | O_CREAT, 0644)), d;

	EQ(write(fd, "abc", 3), 3);
	OK(fsync(fd));
	EQ(write(fd, "def", 3), 3);
	OK(fdatasync(fd));
	OK(fsync(fd));
	OK(syncfs(fd));
	OK(unlink("f"));
	EQ(write(fd, "ghi", 3), 3);
	OK(fsync(fd));
	close(fd);
	NEED(mkdir("d", 0755));
	d = (int)NEED(open("d", O_RDONLY | O_DIRECTORY));
	OK(fsync(d));
	OK(fdatasync(d));
	OK(close(d));
	fd = (int)NEED(open("s", O_RDWR | O_CREAT | O_SYNC, 0644));
	EQ(write(fd, "abc", 3), 3);
	EQ(write(fd, "def", 3), 3);
	OK(close(fd));
	HOLDS("s", "abcdef", 6);
	fd = (int)NEED(open("s", O_RDONLY));
	OK(fsync(fd));
	OK(close(fd));
	context("read-only descriptor of a file that another one has changed");
	fd = (int)NEED(open("s", O_WRONLY));
	d = (int)NEED(open("s", O_RDONLY));
	EQ(pwrite(fd, "X", 1, 1), 1);
	OK(fsync(d));
	OK(close(d));
	OK(close(fd));
	HOLDS("s", "aXcdef", 6);
}
