/* SPDX-License-Identifier: MIT
 * Late writes: A's commit is held back in the network and A's link is cut; B commits
 * to the same file; the link heals, and the old request reaches the store, all three
 * in random order and at random moments.
 *
 *   late A B PROXY-PORT ROUNDS [SEED]
 *
 * A and B are two mounts, A through tests/lib/proxy.c. After each round:
 * - who was told that its close succeeded has its bytes in the file or its history,
 * - who was told ESTALE has them in a copy beside it and neither there nor there,
 * - B's version, where it was acknowledged, is what stands in the file: A's is based
 *   on the one before. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <netinet/in.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

/* One round in so many has a link that swallows everything instead of ending it,
 * which takes A seconds to see. */
#define MUTE_ONE_IN 40
#define PAUSE_MS    40

static const char *a_dir, *b_dir;
static unsigned proxy_port, seed;

#define die(...)                                                                                   \
	do {                                                                                       \
		fprintf(stderr, __VA_ARGS__);                                                      \
		fprintf(stderr, " (%s)\n", strerror(errno));                                       \
		exit(1);                                                                           \
	} while (0)

static unsigned random_below(unsigned n)
{
	return (unsigned)rand_r(&seed) % n;
}

static void pause_ms(unsigned ms)
{
	struct timespec ts = { ms / 1000, (long)(ms % 1000) * 1000000 };

	nanosleep(&ts, NULL);
}

/* Tells the proxy, and waits until it has done it. */
static void tell(const char *what)
{
	struct sockaddr_in at = { .sin_family = AF_INET,
				  .sin_port = htons((uint16_t)proxy_port),
				  .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
	char text[128];
	ssize_t n;

	if (fd < 0 || connect(fd, (struct sockaddr *)&at, sizeof(at)) < 0)
		die("the proxy can't be reached");
	n = snprintf(text, sizeof(text), "PUT /proxy/%s HTTP/1.1\r\n\r\n", what);
	if (send(fd, text, (size_t)n, MSG_NOSIGNAL) != n || recv(fd, text, sizeof(text), 0) <= 0)
		die("the proxy doesn't answer to %s", what);
	close(fd);
}

/* ---- the two writers ---- */

struct writer {
	pthread_t thread;
	char path[4096];
	char text[64];
	int fd;
	int error; /* of close */
};

static void writer_open(struct writer *w, const char *dir, unsigned round, const char *who)
{
	snprintf(w->path, sizeof(w->path), "%s/f%03u", dir, round);
	snprintf(w->text, sizeof(w->text), "round %u by %s\n", round, who);
	w->fd = open(w->path, O_WRONLY | O_TRUNC | O_CLOEXEC);
	if (w->fd < 0)
		die("open %s", w->path);
}

static void *writer_close(void *userdata)
{
	struct writer *w = userdata;
	ssize_t len = (ssize_t)strlen(w->text);

	if (write(w->fd, w->text, (size_t)len) != len)
		die("write %s", w->path);
	w->error = close(w->fd) ? errno : 0;
	return NULL;
}

/* B opens only when it is its turn: it sees what A has stored by then. */
static void b_writes(struct writer *b, unsigned round)
{
	writer_open(b, b_dir, round, "B");
	writer_close(b);
}

/* ---- what came out ---- */

static bool holds(const char *path, const char *text)
{
	char got[64] = { 0 };
	int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		die("open %s", path);
	n = read(fd, got, sizeof(got) - 1);
	close(fd);
	return n == (ssize_t)strlen(text) && !memcmp(got, text, (size_t)n);
}

/* Whether one of the files of this pattern does. */
static bool any_holds(const char *pattern, const char *text)
{
	glob_t g;
	bool any = false;

	if (glob(pattern, 0, NULL, &g) == 0) {
		for (size_t i = 0; i < g.gl_pathc && !any; i++)
			any = holds(g.gl_pathv[i], text);
		globfree(&g);
	}
	return any;
}

static void judge(const struct writer *w, unsigned round, const char *who)
{
	char name[4096], history[4096], copies[4096];
	bool stored, copied;

	snprintf(name, sizeof(name), "%s/f%03u", b_dir, round);
	snprintf(history, sizeof(history), "%s/.icmfs/history/f%03u/*", b_dir, round);
	snprintf(copies, sizeof(copies), "%s/f%03u.conflict-*", b_dir, round);
	stored = holds(name, w->text) || any_holds(history, w->text);
	copied = any_holds(copies, w->text);
	errno = w->error;
	if (w->error && w->error != ESTALE)
		die("round %u: %s's close failed", round, who);
	if (stored != !w->error || copied == stored)
		die("round %u: %s was told something else: stored %d, copied %d", round, who,
		    stored, copied);
}

/* ---- a round ---- */

enum step { B_WRITES, RELEASE, HEAL, N_STEPS };

static void shuffle(enum step *steps)
{
	for (unsigned i = N_STEPS - 1; i > 0; i--) {
		unsigned j = random_below(i + 1);
		enum step s = steps[i];

		steps[i] = steps[j];
		steps[j] = s;
	}
}

static void make_file(unsigned round)
{
	char path[4096];
	FILE *f;

	snprintf(path, sizeof(path), "%s/f%03u", b_dir, round);
	f = fopen(path, "we");
	if (!f || fprintf(f, "round %u before\n", round) < 0 || fclose(f))
		die("%s", path);
}

/* A's error. */
static int run_round(unsigned round)
{
	enum step steps[] = { B_WRITES, RELEASE, HEAL };
	struct writer a = { 0 }, b = { 0 };
	char path[4096];

	make_file(round);
	writer_open(&a, a_dir, round, "A");
	tell(random_below(MUTE_ONE_IN) ? "catch" : "mute");
	if (pthread_create(&a.thread, NULL, writer_close, &a))
		die("pthread_create");
	tell("caught");
	shuffle(steps);
	for (unsigned i = 0; i < N_STEPS; i++) {
		pause_ms(random_below(PAUSE_MS));
		if (steps[i] == B_WRITES)
			b_writes(&b, round);
		else
			tell(steps[i] == RELEASE ? "release" : "heal");
	}
	pthread_join(a.thread, NULL);
	tell("settle");
	judge(&a, round, "A");
	judge(&b, round, "B");
	for (unsigned i = 0; i < 2; i++) {
		snprintf(path, sizeof(path), "%s/f%03u", i ? b_dir : a_dir, round);
		if (!holds(path, b.error ? a.text : b.text))
			die("round %u: the newer version did not stay in %s", round, path);
	}
	return a.error;
}

int main(int argc, char **argv)
{
	unsigned rounds, stored = 0;

	if (argc < 5) {
		fprintf(stderr, "usage: late A B PROXY-PORT ROUNDS [SEED]\n");
		return 2;
	}
	a_dir = argv[1];
	b_dir = argv[2];
	proxy_port = (unsigned)atoi(argv[3]);
	rounds = (unsigned)atoi(argv[4]);
	if (argc > 5)
		seed = (unsigned)strtoul(argv[5], NULL, 10);
	else if (getrandom(&seed, sizeof(seed), 0) < 0)
		return 1;
	printf("# ICMFS_TEST_SEED=%u\n", seed);
	fflush(stdout);
	for (unsigned i = 0; i < rounds; i++)
		stored += run_round(i) == 0;
	printf("# %u rounds, A's version was stored in %u\n", rounds, stored);
	return 0;
}
