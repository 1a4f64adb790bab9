/* SPDX-License-Identifier: MIT
 * One writer saves two files over and over, as programs do; readers look at
 * them through another mount. No reader may ever see an empty, short or mixed
 * file, nor an older one than it has seen before.
 *
 *   save-loop [--saves N] [--readers N] [--seed N] [--rename] WRITE-DIR READ-DIR
 *
 * Three ways of saving in turn: in place without truncation (then cut to the
 * length before the close), truncated, and by rename of a new file (with
 * --rename only so, which an ordinary directory can do as well). Contents
 * state their own length, generation and checksum. */
#include <errno.h>
#include <fcntl.h>
#include <getopt.h>
#include <setjmp.h>
#include <signal.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define SIZE_MAX_BYTES 300000
#define N_FILES	       2

static const char *const file_names[N_FILES] = { "terraform.tfstate", "definitions.json" };

/* What stands at a file's start, if the file is long enough; a shorter one is
 * its generation's low byte, repeated. */
struct head {
	char magic[8];
	uint64_t generation;
	uint64_t size;
	uint64_t sum; /* of all that follows */
};

static bool only_rename;

static uint64_t mix(uint64_t z)
{
	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

static uint64_t sum_of(const unsigned char *p, size_t n)
{
	uint64_t h = UINT64_C(0xcbf29ce484222325);

	for (size_t i = 0; i < n; i++)
		h = (h ^ p[i]) * UINT64_C(0x100000001b3);
	return h;
}

/* One in sixteen is tiny; else anything up to the maximum, mostly small. */
static size_t size_of(uint64_t generation, uint64_t seed)
{
	uint64_t r = mix(generation * 77 + seed);

	if (r % 16 == 0)
		return 1 + (r >> 8) % (sizeof(struct head) - 1);
	if (r % 16 < 12)
		return sizeof(struct head) + (r >> 8) % 9000;
	return sizeof(struct head) + (r >> 8) % (SIZE_MAX_BYTES - sizeof(struct head));
}

static void build(unsigned char *buf, uint64_t generation, size_t size)
{
	struct head h = { .magic = "icmsave", .generation = generation, .size = size };

	if (size < sizeof(h)) {
		memset(buf, (int)(generation & 0xff) | 1, size);
		return;
	}
	for (size_t i = sizeof(h); i < size; i++)
		buf[i] = (unsigned char)mix(generation * 1000003 + i / 8) + (unsigned char)i;
	h.sum = sum_of(buf + sizeof(h), size - sizeof(h));
	memcpy(buf, &h, sizeof(h));
}

/* 0 and the generation (0 for a tiny file, which tells only its length's
 * consistency), or -1 with a line on stderr. */
static int verify(const unsigned char *buf, size_t n, uint64_t *ret_generation, const char *how)
{
	struct head h;

	*ret_generation = 0;
	if (n == 0) {
		fprintf(stderr, "save-loop: %s: empty\n", how);
		return -1;
	}
	if (n < sizeof(h)) {
		for (size_t i = 1; i < n; i++) {
			if (buf[i] != buf[0]) {
				fprintf(stderr, "save-loop: %s: %zu bytes, cut off\n", how, n);
				return -1;
			}
		}
		return 0;
	}
	memcpy(&h, buf, sizeof(h));
	if (memcmp(h.magic, "icmsave", 8)) {
		fprintf(stderr, "save-loop: %s: %zu bytes without a head\n", how, n);
		return -1;
	}
	if (h.size != n) {
		fprintf(stderr, "save-loop: %s: generation %ju has %zu of %ju bytes\n", how,
			(uintmax_t)h.generation, n, (uintmax_t)h.size);
		return -1;
	}
	if (h.sum != sum_of(buf + sizeof(h), n - sizeof(h))) {
		fprintf(stderr, "save-loop: %s: generation %ju is mixed with another\n", how,
			(uintmax_t)h.generation);
		return -1;
	}
	*ret_generation = h.generation;
	return 0;
}

static int write_all(int fd, const unsigned char *buf, size_t n, size_t piece)
{
	while (n) {
		ssize_t w = write(fd, buf, n < piece ? n : piece);

		if (w < 0)
			return -1;
		buf += w;
		n -= (size_t)w;
	}
	return 0;
}

static int save(const char *path, const unsigned char *buf, size_t n, uint64_t how)
{
	size_t piece = how & 8 ? 4099 : SIZE_MAX_BYTES;
	char temp[600];
	int fd;

	switch (only_rename ? 2 : how % 3) {
	case 0: /* in place */
		fd = open(path, O_WRONLY | O_CREAT, 0644);
		if (fd < 0 || write_all(fd, buf, n, piece) < 0 || ftruncate(fd, (off_t)n) < 0 ||
		    (how & 16 && fsync(fd) < 0))
			return -1;
		return close(fd);
	case 1: /* truncated */
		fd = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644);
		if (fd < 0 || write_all(fd, buf, n, piece) < 0)
			return -1;
		return close(fd);
	default: /* by rename */
		snprintf(temp, sizeof(temp), "%s.new", path);
		fd = open(temp, O_WRONLY | O_CREAT | O_EXCL, 0644);
		if (fd < 0 || write_all(fd, buf, n, piece) < 0 || (how & 16 && fsync(fd) < 0))
			return -1;
		return close(fd) < 0 ? -1 : rename(temp, path);
	}
}

static volatile sig_atomic_t stop;

static void on_term(int sig)
{
	(void)sig;
	stop = 1;
}

static ssize_t read_pieces(const char *path, unsigned char *buf, size_t piece)
{
	int fd = open(path, O_RDONLY);
	size_t got = 0;

	if (fd < 0)
		return -1;
	for (;;) {
		size_t room = SIZE_MAX_BYTES + 4096 - got;
		ssize_t n = read(fd, buf + got, piece < room ? piece : room);

		if (n < 0) {
			close(fd);
			return -1;
		}
		if (n == 0)
			break;
		got += (size_t)n;
	}
	close(fd);
	return (ssize_t)got;
}

static sigjmp_buf cut_off;

static void on_bus(int sig)
{
	(void)sig;
	siglongjmp(cut_off, 1);
}

static bool unchanged(const struct stat *a, const struct stat *b)
{
	return a->st_size == b->st_size && a->st_mtim.tv_sec == b->st_mtim.tv_sec &&
	       a->st_mtim.tv_nsec == b->st_mtim.tv_nsec;
}

/* By a mapping. It may show a newer version while it is being copied out, and
 * be cut short: only what was the same version before and after is judged;
 * -2 for the rest. */
static ssize_t read_map(const char *path, unsigned char *buf)
{
	int fd = open(path, O_RDONLY);
	struct stat st, after;
	unsigned char *p;
	ssize_t n = -2;

	if (fd < 0)
		return -1;
	if (fstat(fd, &st) < 0 || st.st_size == 0 || st.st_size > SIZE_MAX_BYTES) {
		close(fd);
		return st.st_size == 0 ? 0 : -1;
	}
	p = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);
	if (p == MAP_FAILED) {
		close(fd);
		return -1;
	}
	if (sigsetjmp(cut_off, 1) == 0) {
		memcpy(buf, p, (size_t)st.st_size);
		if (fstat(fd, &after) == 0 && unchanged(&st, &after))
			n = (ssize_t)st.st_size;
	}
	munmap(p, (size_t)st.st_size);
	close(fd);
	return n;
}

static int reader(const char *dir, int nr)
{
	unsigned char *buf = malloc(SIZE_MAX_BYTES + 4096);
	uint64_t last[N_FILES] = { 0 }, reads = 0;
	struct sigaction sa = { .sa_handler = on_term };

	sigaction(SIGTERM, &sa, NULL);
	sigaction(SIGBUS, &(struct sigaction){ .sa_handler = on_bus }, NULL);
	while (!stop || reads < 10) {
		for (int f = 0; f < N_FILES; f++) {
			char path[600], how[64];
			uint64_t generation;
			ssize_t n;

			snprintf(path, sizeof(path), "%s/%s", dir, file_names[f]);
			switch ((reads + (uint64_t)nr) % 4) {
			case 0:
				n = read_pieces(path, buf, SIZE_MAX_BYTES + 4096);
				snprintf(how, sizeof(how), "%s at once", file_names[f]);
				break;
			case 1:
				n = read_pieces(path, buf, 4096);
				snprintf(how, sizeof(how), "%s by 4096", file_names[f]);
				break;
			case 2:
				n = read_pieces(path, buf, 1237);
				snprintf(how, sizeof(how), "%s by 1237", file_names[f]);
				break;
			default:
				n = read_map(path, buf);
				snprintf(how, sizeof(how), "%s mapped", file_names[f]);
			}
			if (n == -2)
				continue;
			if (n < 0) {
				fprintf(stderr, "save-loop: %s: %m\n", how);
				return 1;
			}
			if (verify(buf, (size_t)n, &generation, how) < 0)
				return 1;
			if (generation && generation < last[f]) {
				fprintf(stderr, "save-loop: %s: generation %ju after %ju\n", how,
					(uintmax_t)generation, (uintmax_t)last[f]);
				return 1;
			}
			if (generation)
				last[f] = generation;
		}
		reads++;
	}
	printf("reader %d: %ju rounds, last generations %ju and %ju\n", nr, (uintmax_t)reads,
	       (uintmax_t)last[0], (uintmax_t)last[1]);
	fflush(stdout);
	free(buf);
	return 0;
}

/* Close-to-open: what was closed here is what an opener over there gets. */
static int seen_at_once(const char *dir, int f, const unsigned char *want, size_t n)
{
	unsigned char *buf = malloc(SIZE_MAX_BYTES + 4096);
	char path[600];
	ssize_t got;
	bool same;

	snprintf(path, sizeof(path), "%s/%s", dir, file_names[f]);
	got = read_pieces(path, buf, SIZE_MAX_BYTES + 4096);
	same = got == (ssize_t)n && !memcmp(buf, want, n);
	if (!same)
		fprintf(stderr, "save-loop: %s right after the save: %zd bytes, expected %zu\n",
			file_names[f], got, n);
	free(buf);
	return same ? 0 : -1;
}

int main(int argc, char **argv)
{
	static const struct option options[] = {
		{ "saves", required_argument, NULL, 'n' },
		{ "readers", required_argument, NULL, 'r' },
		{ "seed", required_argument, NULL, 's' },
		{ "rename", no_argument, NULL, 'm' },
		{ 0 },
	};
	unsigned long saves = 2000, readers = 3;
	unsigned char *buf = malloc(SIZE_MAX_BYTES);
	uint64_t seed;
	pid_t pids[64];
	struct timespec t;
	int c, rc = 0, status;

	clock_gettime(CLOCK_MONOTONIC, &t);
	seed = (uint64_t)t.tv_nsec;
	while ((c = getopt_long(argc, argv, "", options, NULL)) != -1) {
		if (c == 'n')
			saves = strtoul(optarg, NULL, 0);
		else if (c == 'r')
			readers = strtoul(optarg, NULL, 0);
		else if (c == 's')
			seed = strtoull(optarg, NULL, 0);
		else if (c == 'm')
			only_rename = true;
		else
			return 2;
	}
	if (argc - optind != 2 || readers > 64) {
		fprintf(stderr, "usage: save-loop [--saves N] [--readers N] [--seed N] WRITE-DIR "
				"READ-DIR\n");
		return 2;
	}
	printf("seed %ju, %lu saves, %lu readers\n", (uintmax_t)seed, saves, readers);
	for (int f = 0; f < N_FILES; f++) {
		char path[600];

		snprintf(path, sizeof(path), "%s/%s", argv[optind], file_names[f]);
		build(buf, 1, sizeof(struct head));
		if (save(path, buf, sizeof(struct head), 1) < 0) {
			fprintf(stderr, "save-loop: %s: %m\n", path);
			return 2;
		}
		if (seen_at_once(argv[optind + 1], f, buf, sizeof(struct head)) < 0)
			return 1;
	}
	fflush(stdout);
	for (unsigned long i = 0; i < readers; i++) {
		pids[i] = fork();
		if (pids[i] == 0)
			_exit(reader(argv[optind + 1], (int)i));
	}
	for (uint64_t g = 2; g < saves + 2; g++) {
		int f = (int)(g % N_FILES);
		size_t n = size_of(g, seed);
		char path[600];

		snprintf(path, sizeof(path), "%s/%s", argv[optind], file_names[f]);
		build(buf, g, n);
		if (save(path, buf, n, mix(g + seed)) < 0) {
			fprintf(stderr, "save-loop: save %ju of %s: %m\n", (uintmax_t)g,
				file_names[f]);
			rc = 1;
			break;
		}
		if (seen_at_once(argv[optind + 1], f, buf, n) < 0) {
			rc = 1;
			break;
		}
		for (unsigned long i = 0; i < readers; i++) {
			if (pids[i] > 0 && waitpid(pids[i], &status, WNOHANG) == pids[i]) {
				pids[i] = 0;
				rc = 1;
			}
		}
		if (rc)
			break;
	}
	for (unsigned long i = 0; i < readers; i++) {
		if (pids[i] <= 0)
			continue;
		kill(pids[i], SIGTERM);
		if (waitpid(pids[i], &status, 0) < 0 || status)
			rc = 1;
	}
	printf("%s\n", rc ? "FAILED" : "every version was whole");
	free(buf);
	return rc;
}
