/* SPDX-License-Identifier: MIT
 * Writes files and notes, outside the file system, what was acknowledged:
 *
 *   ack-writer MANIFEST DIR [SEED]     writes until the mount is gone; exit 0
 *   ack-writer --verify MANIFEST DIR   compares; exit 0 when nothing is missing
 *
 * A manifest line in lower case says what is about to be done, the same letter
 * in upper case that the call came back well. After a kill each file must be
 * as acknowledged; the one operation under way has happened or it hasn't, and
 * nothing is ever half done. Verification notes which of the two it was, so
 * that the next writer can go on. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define N_FILES 24
#define MAX	((size_t)1500000)

struct version {
	bool there;
	size_t size;
	unsigned long seed;
};

/* An operation: what it makes of up to two files. */
struct step {
	char what; /* w write, u unlink, r rename */
	unsigned a, b;
	struct version v; /* of w */
};

static struct version files[N_FILES];
static struct step pending;
static bool is_pending;
static FILE *manifest;
static char *buf, *buf2;

static uint64_t rnd(uint64_t *state)
{
	uint64_t z = (*state += UINT64_C(0x9e3779b97f4a7c15));

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

static void fill(char *b, size_t len, unsigned long s)
{
	uint64_t state = s;

	for (size_t i = 0; i < len; i += 8) {
		uint64_t v = rnd(&state);

		memcpy(b + i, &v, len - i < 8 ? len - i : 8);
	}
}

static void apply(const struct step *s)
{
	if (s->what == 'w') {
		files[s->a] = s->v;
	} else if (s->what == 'u') {
		files[s->a].there = false;
	} else {
		files[s->b] = files[s->a];
		files[s->a].there = false;
	}
}

static void note(const struct step *s, bool done)
{
	fprintf(manifest, "%c %u %u %zu %lu\n", done ? s->what - 'a' + 'A' : s->what, s->a, s->b,
		s->v.size, s->v.seed);
	fflush(manifest);
}

static void load(const char *path)
{
	FILE *f = fopen(path, "r");
	char line[200];

	while (f && fgets(line, sizeof(line), f)) {
		struct step s = { 0 };

		if (sscanf(line, "%c %u %u %zu %lu", &s.what, &s.a, &s.b, &s.v.size, &s.v.seed) !=
			    5 ||
		    s.a >= N_FILES || s.b >= N_FILES || s.v.size > MAX) {
			fprintf(stderr, "ack-writer: bad line in %s: %s", path, line);
			exit(2);
		}
		s.v.there = true;
		if (s.what == 'X') { /* the pending one had not happened */
			is_pending = false;
		} else if (s.what >= 'a') {
			pending = s;
			is_pending = true;
		} else {
			s.what += 'a' - 'A';
			apply(&s);
			is_pending = false;
		}
	}
	if (f)
		fclose(f);
}

static void path_of(char *out, const char *dir, unsigned i)
{
	snprintf(out, 600, "%s/file-%02u", dir, i);
}

/* ---- verification -------------------------------------------------- */

static bool matches(const char *dir, unsigned i, const struct version *v, char *why)
{
	char path[600];
	size_t got = 0;
	int fd;

	path_of(path, dir, i);
	fd = open(path, O_RDONLY);
	if (fd < 0) {
		if (errno == ENOENT && !v->there)
			return true;
		snprintf(why, 800, "%s: %s", path, strerror(errno));
		return false;
	}
	if (!v->there) {
		close(fd);
		snprintf(why, 800, "%s is there but was removed", path);
		return false;
	}
	for (;;) {
		ssize_t n = read(fd, buf + got, MAX + 4096 - got);

		if (n < 0) {
			snprintf(why, 800, "%s: %s", path, strerror(errno));
			close(fd);
			return false;
		}
		if (n == 0)
			break;
		got += (size_t)n;
	}
	close(fd);
	fill(buf2, v->size, v->seed);
	if (got != v->size) {
		snprintf(why, 800, "%s has %zu bytes, acknowledged were %zu", path, got, v->size);
		return false;
	}
	if (memcmp(buf, buf2, got)) {
		snprintf(why, 800, "%s has other bytes than acknowledged (%zu of them)", path, got);
		return false;
	}
	return true;
}

static bool all_match(const char *dir, char *why)
{
	for (unsigned i = 0; i < N_FILES; i++) {
		if (!matches(dir, i, &files[i], why))
			return false;
	}
	return true;
}

static int verify(const char *path, const char *dir)
{
	char why[800], why2[800];
	struct dirent *e;
	DIR *d;
	int rc = 0;

	load(path);
	manifest = fopen(path, "a");
	if (!manifest)
		return 2;
	if (!all_match(dir, why)) {
		if (is_pending)
			apply(&pending);
		if (!is_pending || !all_match(dir, why2)) {
			fprintf(stderr, "ack-writer: %s\n", why);
			if (is_pending)
				fprintf(stderr, "ack-writer: or, the last one done: %s\n", why2);
			return 1;
		}
		note(&pending, true);
	} else if (is_pending) {
		fprintf(manifest, "X 0 0 0 0\n");
		fflush(manifest);
	}
	/* Nothing else is there. */
	d = opendir(dir);
	if (!d) {
		fprintf(stderr, "ack-writer: %s: %m\n", dir);
		return 1;
	}
	while ((e = readdir(d))) {
		unsigned i;

		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
			continue;
		if (sscanf(e->d_name, "file-%u", &i) != 1 || i >= N_FILES || !files[i].there ||
		    strlen(e->d_name) != 7) {
			fprintf(stderr, "ack-writer: %s/%s should not be there\n", dir, e->d_name);
			rc = 1;
		}
	}
	closedir(d);
	return rc;
}

/* ---- writing ------------------------------------------------------- */

static int put(int fd, const char *b, size_t n, size_t piece)
{
	while (n) {
		ssize_t w = write(fd, b, n < piece ? n : piece);

		if (w < 0)
			return -1;
		b += w;
		n -= (size_t)w;
	}
	return 0;
}

static bool gone(void)
{
	return errno == ENOTCONN || errno == ECONNABORTED || errno == EIO || errno == EINTR ||
	       errno == ENOENT;
}

static int write_on(const char *path, const char *dir, uint64_t state)
{
	unsigned long done = 0;

	load(path);
	if (is_pending) {
		fprintf(stderr, "ack-writer: verify %s first\n", path);
		return 2;
	}
	manifest = fopen(path, "a");
	if (!manifest) {
		perror(path);
		return 2;
	}
	for (;; done++) {
		struct step s = { .a = (unsigned)(rnd(&state) % N_FILES),
				  .b = (unsigned)(rnd(&state) % N_FILES) };
		unsigned kind = (unsigned)(rnd(&state) % 10);
		char a[600], b[600];
		int fd, rc;

		path_of(a, dir, s.a);
		path_of(b, dir, s.b);
		if (!files[s.a].there && kind >= 7)
			kind = 0;
		if (kind == 9 && s.a == s.b)
			kind = 8;
		if (kind < 8) {
			uint64_t r = rnd(&state);
			bool twice = kind == 7;
			int flags = kind % 2 ? O_TRUNC : 0;

			s.what = 'w';
			s.v.there = true;
			s.v.seed = (unsigned long)rnd(&state);
			s.v.size = 1 + (size_t)(r >> 8) % (r % 32 == 0 ? MAX
							   : r % 4     ? 5000
								       : 300000);
			note(&s, false);
			fill(buf, s.v.size, s.v.seed);
			fd = open(a, O_WRONLY | O_CREAT | flags, 0644);
			rc = fd < 0 ? -1 : put(fd, buf, s.v.size, r & 64 ? 8191 : MAX);
			if (rc == 0)
				rc = ftruncate(fd, (off_t)s.v.size);
			if (rc == 0 && twice) {
				/* acknowledged by fsync, then once more by close */
				rc = fsync(fd);
				if (rc == 0) {
					note(&s, true);
					apply(&s);
					s.v.seed++;
					note(&s, false);
					fill(buf, s.v.size, s.v.seed);
					lseek(fd, 0, SEEK_SET);
					rc = put(fd, buf, s.v.size, MAX);
				}
			}
			if (fd >= 0) {
				int err = errno;

				if (close(fd) < 0)
					rc = -1;
				else
					errno = err;
			}
		} else if (kind == 8) {
			s.what = 'u';
			note(&s, false);
			rc = unlink(a);
		} else {
			s.what = 'r';
			note(&s, false);
			rc = rename(a, b);
		}
		if (rc < 0) {
			if (!gone()) {
				fprintf(stderr, "ack-writer: %c of %s: %m\n", s.what, a);
				return 1;
			}
			break;
		}
		note(&s, true);
		apply(&s);
	}
	printf("%lu operations\n", done);
	return 0;
}

int main(int argc, char **argv)
{
	struct timespec t;

	clock_gettime(CLOCK_REALTIME, &t);
	buf = malloc(MAX + 4096);
	buf2 = malloc(MAX + 4096);
	if (!buf || !buf2)
		return 2;
	if (argc == 4 && !strcmp(argv[1], "--verify"))
		return verify(argv[2], argv[3]);
	if (argc == 3 || argc == 4)
		return write_on(argv[1], argv[2],
				argc == 4 ? strtoull(argv[3], NULL, 0) : (uint64_t)t.tv_nsec);
	fprintf(stderr, "usage: ack-writer [--verify] MANIFEST DIR [SEED]\n");
	return 2;
}
