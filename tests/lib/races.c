/* SPDX-License-Identifier: MIT
 * Races of two mounts of one tree:
 *
 *   races [--plain] A B ROUNDS [WORDS]
 *
 * Two processes, one per mount, are let off at the same moment; the outcome
 * has to be one that a single file system could have had. TAP. With --plain
 * what only two mounts can do is left out; with WORDS, all but the races with
 * these in their names. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdarg.h>
#include <stdatomic.h>
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

#define SETTLE_MS 10000

static const char *mounts[2];
static int rounds;
static bool plain;
static const char *only = "";
static unsigned n_tests, n_failed;
static char why[1000];

/* For the two racers. */
static struct {
	atomic_int waiting;
	atomic_int go;
	int rc[2], err[2];
	int close_rc[2], close_err[2];
} * shared;

static const char *name_of(int err)
{
	return err ? strerrorname_np(err) : "ok";
}

static bool bad(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

static bool bad(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(why, sizeof(why), fmt, ap);
	va_end(ap);
	return false;
}

static void at(char *out, int m, const char *fmt, ...) __attribute__((format(printf, 3, 4)));

static void at(char *out, int m, const char *fmt, ...)
{
	va_list ap;
	int n = snprintf(out, 600, "%s/", mounts[m]);

	va_start(ap, fmt);
	vsnprintf(out + n, 600 - (size_t)n, fmt, ap);
	va_end(ap);
}

/* Runs both at once; each gives 0 or -1 and errno. */
static void both(int (*fn)(int m, const void *arg), const void *arg)
{
	pid_t pids[2];

	shared->waiting = 0;
	shared->go = 0;
	for (int m = 0; m < 2; m++) {
		pids[m] = fork();
		if (pids[m] == 0) {
			shared->close_rc[m] = shared->close_err[m] = 0;
			shared->waiting++;
			while (!shared->go)
				;
			shared->rc[m] = fn(m, arg);
			shared->err[m] = shared->rc[m] < 0 ? errno : 0;
			_exit(0);
		}
	}
	while (shared->waiting < 2)
		sched_yield();
	shared->go = 1;
	for (int m = 0; m < 2; m++) {
		int status;

		if (waitpid(pids[m], &status, 0) < 0 || status)
			shared->rc[m] = -2;
	}
}

static bool put(int m, const char *name, const char *text)
{
	char p[600];
	int fd;
	bool good;

	at(p, m, "%s", name);
	fd = open(p, O_WRONLY | O_CREAT | O_TRUNC, 0644);
	if (fd < 0)
		return bad("%s: %s", p, name_of(errno));
	good = write(fd, text, strlen(text)) == (ssize_t)strlen(text);
	if (close(fd) < 0 || !good)
		return bad("%s: %s", p, name_of(errno));
	return true;
}

static ssize_t get(int m, const char *name, char *buf, size_t size)
{
	char p[600];
	ssize_t n, all = 0;
	int fd;

	at(p, m, "%s", name);
	fd = open(p, O_RDONLY);
	if (fd < 0)
		return -1;
	while ((n = read(fd, buf + all, size - 1 - (size_t)all)) > 0)
		all += n;
	close(fd);
	buf[all] = 0;
	return n < 0 ? -1 : all;
}

static mode_t type_of(int m, const char *name)
{
	struct stat st;
	char p[600];

	at(p, m, "%s", name);
	return lstat(p, &st) < 0 ? 0 : st.st_mode & S_IFMT;
}

/* Waits until both mounts show this type of the name (0: none). */
static bool becomes(const char *name, mode_t type)
{
	mode_t a = 0, b = 0;

	for (int ms = 0; ms < SETTLE_MS; ms++) {
		a = type_of(0, name);
		b = type_of(1, name);
		if (a == type && b == type)
			return true;
		nanosleep(&(struct timespec){ .tv_nsec = 1000000 }, NULL);
	}
	return bad("%s: type %o on A and %o on B, expected %o", name, a, b, type);
}

static bool one_winner(int losers_error)
{
	int winner = shared->rc[0] == 0 ? 0 : 1;

	if ((shared->rc[0] == 0) == (shared->rc[1] == 0))
		return bad("A: %s, B: %s: not exactly one succeeded", name_of(shared->err[0]),
			   name_of(shared->err[1]));
	if (shared->err[!winner] != losers_error)
		return bad("the loser got %s, expected %s", name_of(shared->err[!winner]),
			   name_of(losers_error));
	return true;
}

/* ---- the races ----------------------------------------------------- */

static int excl(int m, const void *arg)
{
	char p[600];
	int fd;

	at(p, m, "%s", (const char *)arg);
	fd = open(p, O_WRONLY | O_CREAT | O_EXCL, 0644);
	if (fd < 0)
		return -1;
	if (write(fd, m ? "B" : "A", 1) != 1)
		return -1;
	return close(fd);
}

static bool two_exclusive_creates(int i)
{
	char name[64], text[8];

	snprintf(name, sizeof(name), "excl.%d", i);
	both(excl, name);
	if (!one_winner(EEXIST))
		return false;
	for (int m = 0; m < 2; m++) {
		if (get(m, name, text, sizeof(text)) != 1 ||
		    text[0] != (shared->rc[0] == 0 ? 'A' : 'B'))
			return bad("%s doesn't hold the winner's byte", name);
	}
	return becomes(name, S_IFREG);
}

static int make_dir(int m, const void *arg)
{
	char p[600];

	at(p, m, "%s", (const char *)arg);
	return mkdir(p, 0755);
}

static bool two_mkdirs(int i)
{
	char name[64];

	snprintf(name, sizeof(name), "mkdir.%d", i);
	both(make_dir, name);
	return one_winner(EEXIST) && becomes(name, S_IFDIR);
}

static int file_or_dir(int m, const void *arg)
{
	return m == 0 ? excl(m, arg) : make_dir(m, arg);
}

static bool file_against_mkdir(int i)
{
	char name[64];

	snprintf(name, sizeof(name), "fod.%d", i);
	both(file_or_dir, name);
	return one_winner(EEXIST) && becomes(name, shared->rc[0] == 0 ? S_IFREG : S_IFDIR);
}

/* A file opened without O_EXCL comes into being when it is closed. */
static int late_file_or_dir(int m, const void *arg)
{
	char p[600];
	int fd;

	if (m == 1)
		return make_dir(m, arg);
	at(p, m, "%s", (const char *)arg);
	fd = open(p, O_WRONLY | O_CREAT, 0644);
	if (fd < 0)
		return -1;
	if (write(fd, "from A", 6) != 6)
		return -1;
	return close(fd);
}

/* A conflict copy beside `name` that holds exactly this, seen from both. */
static bool conflict_copy(const char *name, const char *want)
{
	char prefix[200];
	int found = 0;

	snprintf(prefix, sizeof(prefix), "%s.conflict-", name);
	for (int ms = 0; ms < SETTLE_MS; ms += 5) {
		found = 0;
		for (int m = 0; m < 2; m++) {
			DIR *d = opendir(mounts[m]);
			struct dirent *e;

			while (d && (e = readdir(d))) {
				char text[200];

				if (strncmp(e->d_name, prefix, strlen(prefix)))
					continue;
				if (get(m, e->d_name, text, sizeof(text)) >= 0 &&
				    !strcmp(text, want))
					found |= 1 << m;
			}
			if (d)
				closedir(d);
		}
		if (found == 3)
			return true;
		nanosleep(&(struct timespec){ .tv_nsec = 5000000 }, NULL);
	}
	return bad("%s…: no copy holding '%s' on %s", prefix, want,
		   found == 0	? "A and B"
		   : found == 1 ? "B"
				: "A");
}

static bool late_file_against_mkdir(int i)
{
	char name[64], text[64];

	snprintf(name, sizeof(name), "late.%d", i);
	both(late_file_or_dir, name);
	if (shared->rc[0] == 0 && shared->rc[1] == 0)
		return bad("both succeeded");
	if (shared->rc[1] == 0) {
		int err = shared->err[0];

		if (!becomes(name, S_IFDIR))
			return false;
		/* seen before the open, or at the close with the bytes kept */
		if (err == EISDIR || err == EEXIST)
			return true;
		if (err != ESTALE)
			return bad("A: %s, expected EISDIR or ESTALE", name_of(err));
		return plain || conflict_copy(name, "from A");
	}
	if (shared->err[1] != EEXIST || shared->rc[0] != 0)
		return bad("A: %s, B: %s", name_of(shared->err[0]), name_of(shared->err[1]));
	if (get(1, name, text, sizeof(text)) != 6)
		return bad("the file isn't there");
	return becomes(name, S_IFREG);
}

static int move(int m, const void *arg)
{
	char from[600], to[600];

	at(from, m, "%s", (const char *)arg);
	at(to, m, "%s.%c", (const char *)arg, 'a' + m);
	return rename(from, to);
}

static bool two_renames(int i)
{
	char name[64], a[80], b[80], text[64];

	snprintf(name, sizeof(name), "mv.%d", i);
	snprintf(a, sizeof(a), "%s.a", name);
	snprintf(b, sizeof(b), "%s.b", name);
	if (!put(i & 1, name, "moved") || !becomes(name, S_IFREG))
		return false;
	both(move, name);
	if (!one_winner(ENOENT) || !becomes(name, 0) ||
	    !becomes(a, shared->rc[0] == 0 ? S_IFREG : 0) ||
	    !becomes(b, shared->rc[1] == 0 ? S_IFREG : 0))
		return false;
	if (get(0, shared->rc[0] == 0 ? a : b, text, sizeof(text)) != 5)
		return bad("contents got lost");
	return true;
}

static int remove_one(int m, const void *arg)
{
	char p[600];

	at(p, m, "%s", (const char *)arg);
	return unlink(p);
}

static bool two_unlinks(int i)
{
	char name[64];

	snprintf(name, sizeof(name), "rm.%d", i);
	if (!put(i & 1, name, "x") || !becomes(name, S_IFREG))
		return false;
	both(remove_one, name);
	return one_winner(ENOENT) && becomes(name, 0);
}

static int rmdir_or_create(int m, const void *arg)
{
	char p[600];

	at(p, m, m == 0 ? "%s" : "%s/f", (const char *)arg);
	if (m == 0)
		return rmdir(p);
	return excl(m, p + strlen(mounts[m]) + 1);
}

static bool rmdir_against_create(int i)
{
	char name[64], file[80];

	snprintf(name, sizeof(name), "rd.%d", i);
	snprintf(file, sizeof(file), "%s/f", name);
	if (make_dir(i & 1, name) < 0 || !becomes(name, S_IFDIR))
		return bad("mkdir %s: %s", name, name_of(errno));
	both(rmdir_or_create, name);
	if (shared->rc[0] == 0) {
		if (shared->rc[1] == 0)
			return bad("both succeeded");
		if (shared->err[1] != ENOENT)
			return bad("create: %s, expected ENOENT", name_of(shared->err[1]));
		return becomes(name, 0);
	}
	if (shared->err[0] != ENOTEMPTY || shared->rc[1] != 0)
		return bad("rmdir: %s, create: %s", name_of(shared->err[0]),
			   name_of(shared->err[1]));
	return becomes(name, S_IFDIR) && becomes(file, S_IFREG);
}

static int mvdir_or_create(int m, const void *arg)
{
	char p[600], to[600];

	at(p, m, m == 0 ? "%s" : "%s/f", (const char *)arg);
	if (m == 0) {
		at(to, m, "%s.new", (const char *)arg);
		return rename(p, to);
	}
	return excl(m, p + strlen(mounts[m]) + 1);
}

static bool directory_rename_against_create(int i)
{
	char name[64], file[80];

	snprintf(name, sizeof(name), "md.%d", i);
	snprintf(file, sizeof(file), "%s.new/f", name);
	if (make_dir(i & 1, name) < 0 || !becomes(name, S_IFDIR))
		return bad("mkdir %s: %s", name, name_of(errno));
	both(mvdir_or_create, name);
	if (shared->rc[0] != 0)
		return bad("rename: %s", name_of(shared->err[0]));
	if (!becomes(name, 0))
		return false;
	if (shared->rc[1] == 0)
		return becomes(file, S_IFREG);
	/* refused by name, or found stale when its contents were stored */
	if (shared->err[1] != ENOENT && shared->err[1] != ESTALE)
		return bad("create: %s, expected ENOENT", name_of(shared->err[1]));
	return true;
}

#define APPENDS 20

static int append(int m, const void *arg)
{
	char p[600], line[64];

	at(p, m, "%s", (const char *)arg);
	for (int i = 0; i < APPENDS; i++) {
		int n = snprintf(line, sizeof(line), "%c %d\n", 'A' + m, i);
		int fd = open(p, O_WRONLY | O_APPEND);

		if (fd < 0 || write(fd, line, (size_t)n) != n)
			return -1;
		if (close(fd) < 0)
			return -1;
	}
	return 0;
}

static bool appends(int i)
{
	char name[64], text[2][4000];
	int next[2] = { 0 };
	ssize_t n[2], again[2];

	snprintf(name, sizeof(name), "app.%d", i);
	if (!put(0, name, "") || !becomes(name, S_IFREG))
		return false;
	both(append, name);
	if (shared->rc[0] || shared->rc[1])
		return bad("A: %s, B: %s", name_of(shared->err[0]), name_of(shared->err[1]));
	for (int m = 0; m < 2; m++) {
		n[m] = get(m, name, text[m], sizeof(text[m]));
		if (n[m] < 0)
			return bad("read: %s", name_of(errno));
	}
	if (n[0] != n[1] || memcmp(text[0], text[1], (size_t)n[0])) {
		for (int m = 0; m < 2; m++)
			again[m] = get(m, name, text[m], sizeof(text[m]));
		return bad("%zd bytes in A, %zd in B, or other ones (then %zd and %zd)", n[0], n[1],
			   again[0], again[1]);
	}
	for (char *line = strtok(text[0], "\n"); line; line = strtok(NULL, "\n")) {
		char who;
		int nr;

		if (sscanf(line, "%c %d", &who, &nr) != 2 || (who != 'A' && who != 'B') ||
		    nr != next[who - 'A'])
			return bad("line '%s' is out of place", line);
		next[who - 'A']++;
	}
	if (next[0] != APPENDS || next[1] != APPENDS)
		return bad("%d lines of A, %d of B, expected %d each", next[0], next[1], APPENDS);
	return true;
}

/* Not a race in time: both opened the same version, both change it. */
static bool conflicting_edits(int i)
{
	char name[64], p[600], text[64];
	int fds[2], first = i & 1, how = i % 3;

	snprintf(name, sizeof(name), "edit.%d", i);
	if (!put(0, name, "the old text") || !becomes(name, S_IFREG))
		return false;
	for (int m = 0; m < 2; m++) {
		at(p, m, "%s", name);
		fds[m] = open(p, O_RDWR | (how == 1 ? O_TRUNC : 0));
		if (fds[m] < 0 || pwrite(fds[m], m ? "by B" : "by A", 4, 0) != 4 ||
		    (how == 2 && ftruncate(fds[m], 4) < 0))
			return bad("%s: %s", p, name_of(errno));
	}
	if (close(fds[first]) < 0)
		return bad("first close: %s", name_of(errno));
	if (close(fds[!first]) == 0)
		return bad("second close succeeded");
	if (errno != ESTALE)
		return bad("second close: %s, expected ESTALE", name_of(errno));
	for (int m = 0; m < 2; m++) {
		char want[64];

		snprintf(want, sizeof(want), "%s%s", first ? "by B" : "by A",
			 how == 0 ? "old text" : "");
		if (get(m, name, text, sizeof(text)) < 0 || strcmp(text, want))
			return bad("%s holds '%s', expected '%s'", name, text, want);
	}
	snprintf(text, sizeof(text), "%s%s", first ? "by A" : "by B", how == 0 ? "old text" : "");
	return conflict_copy(name, text);
}

static void race(const char *name, bool (*fn)(int i), int n)
{
	int i;

	fflush(stdout);
	n_tests++;
	if (!strstr(name, only)) {
		printf("ok %u - %s # SKIP not asked for\n", n_tests, name);
		return;
	}
	for (i = 0; i < n; i++) {
		if (!fn(i))
			break;
	}
	if (i < n) {
		n_failed++;
		printf("# round %d: %s\nnot ok %u - %s\n", i, why, n_tests, name);
	} else {
		printf("ok %u - %s, %d rounds\n", n_tests, name, n);
	}
	fflush(stdout);
}

int main(int argc, char **argv)
{
	if (argc > 1 && !strcmp(argv[1], "--plain")) {
		plain = true;
		argv++;
		argc--;
	}
	if (argc != 4 && argc != 5) {
		fprintf(stderr, "usage: races [--plain] A B ROUNDS [WORDS]\n");
		return 2;
	}
	if (argc == 5)
		only = argv[4];
	mounts[0] = argv[1];
	mounts[1] = argv[2];
	rounds = atoi(argv[3]);
	umask(022);
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		      0);
	if (shared == MAP_FAILED)
		return 2;
	printf("1..%d\n", plain ? 8 : 10);
	race("two exclusive creates", two_exclusive_creates, rounds);
	race("two mkdirs", two_mkdirs, rounds);
	race("exclusive create against mkdir", file_against_mkdir, rounds);
	race("two renames of one file", two_renames, rounds);
	race("two unlinks of one file", two_unlinks, rounds);
	race("rmdir against create", rmdir_against_create, rounds);
	race("appends from both", appends, rounds / 5 + 1);
	race("directory rename against create", directory_rename_against_create, rounds);
	if (!plain) {
		race("create and close against mkdir", late_file_against_mkdir, rounds);
		race("conflicting edits", conflicting_edits, rounds / 5 + 6);
	}
	return n_failed ? 1 : 0;
}
