/* SPDX-License-Identifier: MIT
 * What programs do with files, timed: ops WORK DIR START COUNT [ARGUMENT]
 * prints the nanoseconds of each operation, one per line. Files are named by
 * a letter and a number, from START on, and hold 1 KiB. */
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define LOST_MS	 1000
#define SMALL	 1024
#define BIG	 (10 << 20)
#define BIG_STEP (128 << 10)

struct job {
	const char *dir;
	unsigned start, count;
	const char *arg; /* "" = none */
};

static char *big;

static _Noreturn void fail(const char *what)
{
	fprintf(stderr, "ops: %s: %s\n", what, strerror(errno));
	exit(1);
}

static long long now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000LL + ts.tv_nsec;
}

/* Bytes that no store has yet. */
static void fill(char *buf, size_t size)
{
	static _Thread_local unsigned long long x;

	if (!x)
		x = (unsigned long long)now_ns() | 1;
	for (size_t i = 0; i + sizeof(x) <= size; i += sizeof(x)) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		memcpy(buf + i, &x, sizeof(x));
	}
}

static char *path_in(const char *dir, char letter, unsigned number)
{
	static _Thread_local char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/%c%u", dir, letter, number);
	return path;
}

static void put(const char *path, int flags)
{
	char buf[SMALL];
	int fd;

	fill(buf, sizeof(buf));
	fd = open(path, O_WRONLY | flags, 0644);
	if (fd < 0 || write(fd, buf, sizeof(buf)) != sizeof(buf) || close(fd))
		fail(path);
}

static void get(const char *path)
{
	char buf[SMALL];
	int fd = open(path, O_RDONLY);

	if (fd < 0 || read(fd, buf, sizeof(buf)) < 0 || close(fd))
		fail(path);
}

static void overwrite(const struct job *job, unsigned i)
{
	put(path_in(job->dir, 'w', i), O_TRUNC);
}

static void create(const struct job *job, unsigned i)
{
	put(path_in(job->dir, 'c', i), O_CREAT | O_TRUNC);
}

static void create_excl(const struct job *job, unsigned i)
{
	put(path_in(job->dir, 'x', i), O_CREAT | O_EXCL);
}

static void replace(const struct job *job, unsigned i)
{
	char *from = strdup(path_in(job->dir, 't', i));

	put(from, O_CREAT | O_TRUNC);
	if (rename(from, path_in(job->dir, 'w', i)))
		fail(from);
	free(from);
}

static void remove_created(const struct job *job, unsigned i)
{
	if (unlink(path_in(job->dir, 'c', i)))
		fail("unlink");
}

static void read_one(const struct job *job, unsigned i)
{
	get(path_in(job->dir, 'w', i % 100));
}

static void stat_one(const struct job *job, unsigned i)
{
	struct stat st;

	if (stat(path_in(job->dir, 'w', i % 100), &st))
		fail("stat");
}

static void stat_missing(const struct job *job, unsigned i)
{
	struct stat st;
	char path[PATH_MAX];

	snprintf(path, sizeof(path), "%s/missing-%lld-%u", job->dir, now_ns(), i);
	if (!stat(path, &st) || errno != ENOENT)
		fail("stat of a missing name");
}

static void write_big(const struct job *job, unsigned i)
{
	const char *path = path_in(job->dir, 'b', i);
	int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);

	if (fd < 0)
		fail(path);
	for (size_t off = 0; off < BIG; off += BIG_STEP)
		if (write(fd, big + off, BIG_STEP) != BIG_STEP)
			fail(path);
	if (fsync(fd) || close(fd))
		fail(path);
}

static void read_big(const struct job *job, unsigned i)
{
	const char *path = path_in(job->dir, 'b', i);
	int fd = open(path, O_RDONLY);
	ssize_t n;

	if (fd < 0)
		fail(path);
	posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED);
	while ((n = read(fd, big, BIG_STEP)) > 0)
		;
	if (n < 0 || close(fd))
		fail(path);
}

/* ---- two mounts: DIR is written, ARGUMENT is the same directory in the other ---- */

/* The bytes that the last put() wrote are what an open there finds. */
static bool same(const char *a, const char *b)
{
	char one[SMALL], two[SMALL];
	int fd = open(a, O_RDONLY), other = open(b, O_RDONLY);
	bool equal = fd >= 0 && other >= 0 && read(fd, one, SMALL) == SMALL &&
		     read(other, two, SMALL) == SMALL && !memcmp(one, two, SMALL);

	close(fd);
	close(other);
	return equal;
}

/* From the end of close() to the end of the first read elsewhere. */
static long long seen_by_open(const struct job *job, unsigned i)
{
	char *there = strdup(path_in(job->arg, 'w', i)), *here = path_in(job->dir, 'w', i);
	long long start, end;

	get(there);
	put(here, O_TRUNC);
	start = now_ns();
	get(there);
	end = now_ns();
	if (!same(here, there)) {
		fprintf(stderr, "ops: '%s' is old after a close elsewhere\n", there);
		exit(1);
	}
	free(there);
	return end - start;
}

/* To an event of inotify's elsewhere; LOST_MS when none comes. */
static long long seen_by_inotify(const struct job *job, unsigned i)
{
	int fd = inotify_init1(IN_CLOEXEC);
	long long start, end;

	if (fd < 0 || inotify_add_watch(fd, path_in(job->arg, 'w', i), IN_MODIFY) < 0)
		fail("inotify");
	usleep(20000);
	put(path_in(job->dir, 'w', i), O_TRUNC);
	start = now_ns();
	if (poll(&(struct pollfd){ .fd = fd, .events = POLLIN }, 1, LOST_MS) < 0)
		fail("inotify");
	end = now_ns();
	close(fd);
	return end - start;
}

/* To the new time in a stat() that the other kernel cache had an answer for. */
static long long seen_by_stat(const struct job *job, unsigned i)
{
	char *there = strdup(path_in(job->arg, 'w', i));
	long long start, end;
	struct stat old, new;

	if (stat(there, &old))
		fail(there);
	put(path_in(job->dir, 'w', i), O_TRUNC);
	start = now_ns();
	do {
		if (stat(there, &new))
			fail(there);
		end = now_ns();
	} while (!memcmp(&old.st_mtim, &new.st_mtim, sizeof(old.st_mtim)) &&
		 end - start < LOST_MS * 1000000LL);
	free(there);
	return end - start;
}

/* ---- threads ---- */

struct worker {
	pthread_t thread;
	struct job job;
	unsigned first, step;
	void (*fn)(const struct job *job, unsigned i);
};

/* No file is another thread's with 2, 4, 5, 8 or 10 of them. */
static void overwrite_own(const struct job *job, unsigned i)
{
	overwrite(job, i % 80);
}

static void *work(void *userdata)
{
	const struct worker *w = userdata;

	for (unsigned i = w->first; i < w->job.count; i += w->step)
		w->fn(&w->job, w->job.start + i);
	return NULL;
}

static void in_threads(const struct job *job, void (*fn)(const struct job *job, unsigned i))
{
	unsigned n = (unsigned)strtoul(job->arg, NULL, 10);
	struct worker *workers = calloc(n, sizeof(*workers));
	long long start = now_ns();

	for (unsigned i = 0; i < n; i++) {
		workers[i] = (struct worker){ .job = *job, .first = i, .step = n, .fn = fn };
		if (pthread_create(&workers[i].thread, NULL, work, &workers[i]))
			fail("pthread_create");
	}
	for (unsigned i = 0; i < n; i++)
		pthread_join(workers[i].thread, NULL);
	printf("%lld\n", (now_ns() - start) / job->count);
	free(workers);
}

/* A tree of small files, 100 in a directory; threads make theirs in different ones,
 * because the kernel lets only one at a time into a directory. */
static void make_file(const struct job *job, unsigned i)
{
	unsigned dirs = (job->count + 99) / 100, d = i % dirs, n = i / dirs;
	char path[PATH_MAX], text[512];
	int len = snprintf(text, sizeof(text),
			   "{\"machine\":\"%u-%u\",\"role\":\"DATA\",\"state\":\"%0300u\"}\n", d, n,
			   i);
	int fd;

	snprintf(path, sizeof(path), "%s/d%u/f%u.json", job->dir, d, n);
	fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
	if (fd < 0 || write(fd, text, (size_t)len) != len || close(fd))
		fail(path);
}

static void make_tree(const struct job *job)
{
	char path[PATH_MAX];

	for (unsigned i = 0; i < job->count; i += 100) {
		snprintf(path, sizeof(path), "%s/d%u", job->dir, i / 100);
		if (mkdir(path, 0755))
			fail(path);
	}
	in_threads(job, make_file);
}

/* Each line of standard input is a file to be read whole. */
static char *names[65536];

static void read_named(const struct job *job, unsigned i)
{
	(void)job;
	get(names[i]);
}

static void read_list(struct job *job)
{
	char line[PATH_MAX];

	job->start = job->count = 0;
	while (job->count < sizeof(names) / sizeof(*names) && fgets(line, sizeof(line), stdin)) {
		line[strcspn(line, "\n")] = '\0';
		names[job->count++] = strdup(line);
	}
	if (job->count)
		in_threads(job, read_named);
}

/* ---- */

static const struct {
	const char *name;
	void (*fn)(const struct job *job, unsigned i);	       /* timed as a whole */
	long long (*timed)(const struct job *job, unsigned i); /* says its time itself */
} works[] = {
	{ "overwrite", overwrite, NULL },
	{ "create", create, NULL },
	{ "create-excl", create_excl, NULL },
	{ "replace", replace, NULL },
	{ "unlink", remove_created, NULL },
	{ "read", read_one, NULL },
	{ "stat", stat_one, NULL },
	{ "stat-missing", stat_missing, NULL },
	{ "write-big", write_big, NULL },
	{ "read-big", read_big, NULL },
	{ "seen-by-open", NULL, seen_by_open },
	{ "seen-by-inotify", NULL, seen_by_inotify },
	{ "seen-by-stat", NULL, seen_by_stat },
};

static long long run(size_t which, const struct job *job, unsigned i)
{
	long long start = now_ns();

	if (works[which].timed)
		return works[which].timed(job, i);
	works[which].fn(job, i);
	return now_ns() - start;
}

int main(int argc, char **argv)
{
	struct job job;

	if (argc < 5) {
		fputs("usage: ops WORK DIR START COUNT [ARGUMENT]\n", stderr);
		return 2;
	}
	job = (struct job){ .dir = argv[2],
			    .start = (unsigned)strtoul(argv[3], NULL, 10),
			    .count = (unsigned)strtoul(argv[4], NULL, 10),
			    .arg = argc > 5 ? argv[5] : "" };
	big = malloc(BIG);
	if (!big)
		fail("memory");
	if (!strcmp(argv[1], "parallel")) {
		in_threads(&job, overwrite_own);
		return 0;
	}
	if (!strcmp(argv[1], "make-tree")) {
		make_tree(&job);
		return 0;
	}
	if (!strcmp(argv[1], "read-list")) {
		read_list(&job);
		return 0;
	}
	for (size_t w = 0; w < sizeof(works) / sizeof(*works); w++) {
		if (strcmp(works[w].name, argv[1]))
			continue;
		for (unsigned i = 0; i < job.count; i++) {
			/* 10 MiB of new bytes, outside of what is timed */
			if (works[w].fn == write_big)
				fill(big, BIG);
			printf("%lld\n", run(w, &job, job.start + i));
		}
		return 0;
	}
	fprintf(stderr, "ops: unknown work '%s'\n", argv[1]);
	return 2;
}
