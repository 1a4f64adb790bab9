/* SPDX-License-Identifier: MIT
 * Watches on one mount and changes on the other:
 *
 *   watches A B ROUNDS [CASE]
 *
 * A file and its directory are watched on B while the file is changed on A in
 * each way that programs have, in each state that B can have it in. Every
 * change has to be told to both watches, with what a local change would give
 * at least, and not many times over. TAP. */
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/inotify.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define WAIT_MS 10000
/* Events of a kind for one change: a local one gives two at most (a truncation
 * and a write); a version is told again to each inode that shows the file. */
#define MANY 6

enum way { SAME, GROW, SHRINK, TRUNCATE, EMPTY, APPEND, IN_TURN, SET_SIZE, REPLACE, CHMOD, N_WAYS };
enum state { UNTOUCHED, READ, OPEN_DURING, OPEN_SINCE, N_STATES };

static const char *const way_names[] = {
	[SAME] = "overwrites the same bytes",  [GROW] = "grows in place",
	[SHRINK] = "shrinks in place",	       [TRUNCATE] = "truncates and writes as much",
	[EMPTY] = "truncates and writes less", [APPEND] = "appends",
	[IN_TURN] = "writes in turn with B",   [SET_SIZE] = "sets another size",
	[REPLACE] = "renames over it",	       [CHMOD] = "changes its mode",
};
static const char *const state_names[] = {
	[UNTOUCHED] = "B has not opened it",
	[READ] = "B has read it",
	[OPEN_DURING] = "B has it open",
	[OPEN_SINCE] = "B has had it open from the start",
};

static const char *a_dir, *b_dir;
static unsigned n_tests, n_failed;
static char why[2000];

/* One kind of event each: what is counted. */
enum seen { S_OPEN, S_MODIFY, S_CLOSE_WRITE, S_ATTRIB, S_GONE, S_FROM, S_TO, S_MARK, N_SEEN };
static const struct {
	uint32_t bit;
	const char *name;
} kinds[N_SEEN] = {
	[S_OPEN] = { IN_OPEN, "OPEN" },
	[S_MODIFY] = { IN_MODIFY, "MODIFY" },
	[S_CLOSE_WRITE] = { IN_CLOSE_WRITE, "CLOSE_WRITE" },
	[S_ATTRIB] = { IN_ATTRIB, "ATTRIB" },
	[S_GONE] = { IN_DELETE_SELF, "DELETE_SELF" },
	[S_FROM] = { IN_MOVED_FROM, "MOVED_FROM" },
	[S_TO] = { IN_MOVED_TO, "MOVED_TO" },
	[S_MARK] = { 0, "mark" },
};

struct run {
	enum way way;
	enum state state;
	char dir[2][500], file[2][600], mark[600], new[600];
	int fd, file_wd, dir_wd;		/* inotify */
	unsigned file_n[N_SEEN], dir_n[N_SEEN]; /* of this round */
	int held;				/* B's open descriptor, or -1 */
	bool by_b;				/* the change of this round */
};

static bool bad(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

static bool bad(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(why, sizeof(why), fmt, ap);
	va_end(ap);
	return false;
}

/* ---- changes on A ---- */

static bool put(const char *path, int flags, const char *text, size_t len, off_t size)
{
	int fd = open(path, O_WRONLY | flags, 0644);

	if (fd < 0)
		return bad("open %s: %s", path, strerror(errno));
	if ((len && write(fd, text, len) != (ssize_t)len) || (size >= 0 && ftruncate(fd, size)))
		return bad("write %s: %s", path, strerror(errno));
	return close(fd) == 0 || bad("close %s: %s", path, strerror(errno));
}

static bool change(struct run *r, int round)
{
	const char *f = r->file[0];
	char text[64];
	size_t len = (size_t)snprintf(text, sizeof(text), "%08d is the contents\n", round);
	struct stat st;

	r->by_b = r->way == IN_TURN && round & 1;
	switch (r->way) {
	case SAME:
		return put(f, 0, text, len, -1);
	case GROW:
		return stat(f, &st) == 0 && put(f, 0, text, len, st.st_size + 5);
	case SHRINK:
		return put(f, 0, text, len, (off_t)(len + 1000 - (size_t)round % 1000));
	case TRUNCATE:
		return put(f, O_TRUNC, text, len, -1);
	case EMPTY:
		return put(f, O_TRUNC, text, 1 + len - (size_t)round % len, -1);
	case APPEND:
		return put(f, O_APPEND, text, len, -1);
	case IN_TURN:
		return put(r->file[r->by_b], 0, text, len, -1);
	case SET_SIZE:
		return truncate(f, round + 1) == 0 || bad("truncate: %s", strerror(errno));
	case REPLACE:
		return put(r->new, O_CREAT | O_EXCL, text, len, -1) &&
		       (rename(r->new, f) == 0 || bad("rename: %s", strerror(errno)));
	case CHMOD:
		return chmod(f, round & 1 ? 0600 : 0640) == 0 || bad("chmod: %s", strerror(errno));
	default:
		return false;
	}
}

/* ---- B ---- */

static bool watch_file(struct run *r)
{
	r->file_wd = inotify_add_watch(r->fd, r->file[1],
				       IN_OPEN | IN_MODIFY | IN_CLOSE_WRITE | IN_ATTRIB |
					       IN_DELETE_SELF | IN_MOVE_SELF);
	return r->file_wd >= 0 || bad("watch of %s: %s", r->file[1], strerror(errno));
}

static void take(struct run *r, const struct inotify_event *e)
{
	unsigned *n = e->wd == r->file_wd ? r->file_n : e->wd == r->dir_wd ? r->dir_n : NULL;
	bool is_mark = e->len && !strcmp(e->name, "mark");

	if (n && is_mark)
		n[S_MARK] += (e->mask & IN_CLOSE_WRITE) != 0;
	for (int k = 0; n && !is_mark && k < N_SEEN; k++)
		n[k] += (e->mask & kinds[k].bit) != 0;
}

/* Takes what comes within the time. */
static void listen(struct run *r, int ms)
{
	struct pollfd p = { .fd = r->fd, .events = POLLIN };
	char buf[8192] __attribute__((aligned(__alignof__(struct inotify_event))));
	ssize_t n;

	if (poll(&p, 1, ms) <= 0)
		return;
	n = read(r->fd, buf, sizeof(buf));
	for (char *at = buf; n > 0 && at < buf + n;) {
		const struct inotify_event *e = (const struct inotify_event *)at;

		take(r, e);
		at += sizeof(*e) + e->len;
	}
}

static void clear(struct run *r)
{
	memset(r->file_n, 0, sizeof(r->file_n));
	memset(r->dir_n, 0, sizeof(r->dir_n));
}

/* The first kind that is still missing, or N_SEEN. */
static enum seen missing(const struct run *r, const char **ret_where)
{
	*ret_where = "the directory";
	if (r->way == REPLACE) {
		if (!r->dir_n[S_FROM] || !r->dir_n[S_TO])
			return r->dir_n[S_FROM] ? S_TO : S_FROM;
		*ret_where = "the file";
		return r->file_n[S_ATTRIB] || r->file_n[S_GONE] ? N_SEEN : S_ATTRIB;
	}
	for (int f = 0; f < 2; f++) {
		const unsigned *n = f ? r->file_n : r->dir_n;

		*ret_where = f ? "the file" : "the directory";
		if (r->way == CHMOD && !n[S_ATTRIB])
			return S_ATTRIB;
		if (r->way <= SET_SIZE && !n[S_MODIFY])
			return S_MODIFY;
		if (r->way < SET_SIZE && !(n[S_OPEN] && n[S_CLOSE_WRITE]))
			return n[S_OPEN] ? S_CLOSE_WRITE : S_OPEN;
	}
	return N_SEEN;
}

static bool is_storm(const struct run *r)
{
	for (int k = 0; k < N_SEEN; k++)
		if (k != S_OPEN && (r->file_n[k] > MANY || r->dir_n[k] > MANY))
			return !bad("%u events %s on the file, %u on the directory for one change",
				    r->file_n[k], kinds[k].name, r->dir_n[k]);
	return false;
}

/* Who is told of a change and looks sees it. */
static bool shows_change(const struct run *r)
{
	struct stat st[2];

	if (r->by_b)
		return true;
	for (int m = 0; m < 2; m++)
		if (stat(r->file[m], &st[m]))
			return bad("stat %s: %s", r->file[m], strerror(errno));
	return (st[0].st_size == st[1].st_size && st[0].st_mode == st[1].st_mode &&
		st[0].st_mtim.tv_nsec == st[1].st_mtim.tv_nsec) ||
	       bad("after the event B still shows the former size, mode or time");
}

static bool told(struct run *r)
{
	const char *where;
	enum seen k = N_SEEN;

	for (int ms = 0; ms < WAIT_MS; ms += 10) {
		k = missing(r, &where);
		/* what was changed later is told later */
		if (k == N_SEEN && r->dir_n[S_MARK])
			return !is_storm(r) && shows_change(r);
		listen(r, 10);
	}
	return k == N_SEEN ? bad("no event for a later change")
			   : bad("no %s for the watch on %s%s", kinds[k].name, where,
				 r->dir_n[S_MARK] ? ", but for a later change" : "");
}

static bool read_on_b(struct run *r)
{
	char buf[100];
	int fd = open(r->file[1], O_RDONLY);

	if (fd < 0 || read(fd, buf, sizeof(buf)) < 0)
		return bad("read %s: %s", r->file[1], strerror(errno));
	if (r->state == READ)
		close(fd);
	else
		r->held = fd;
	return true;
}

static void let_go(struct run *r)
{
	if (r->held >= 0)
		close(r->held);
	r->held = -1;
}

/* ---- one case ---- */

static bool round_ok(struct run *r, int i)
{
	char text[16];

	if (r->state == READ || r->state == OPEN_DURING || (r->state == OPEN_SINCE && i == 0))
		if (!read_on_b(r))
			return false;
	listen(r, 0);
	clear(r);
	/* equal contents are no change */
	snprintf(text, sizeof(text), "%d", i);
	if (!change(r, i) || !put(r->mark, O_TRUNC, text, strlen(text), -1) || !told(r))
		return false;
	if (r->state == OPEN_DURING)
		let_go(r);
	if (r->way == REPLACE) {
		inotify_rm_watch(r->fd, r->file_wd);
		return watch_file(r);
	}
	return true;
}

static bool start(struct run *r, int id)
{
	for (int m = 0; m < 2; m++) {
		snprintf(r->dir[m], sizeof(r->dir[m]), "%s/watch.%d", m ? b_dir : a_dir, id);
		snprintf(r->file[m], sizeof(r->file[m]), "%s/f", r->dir[m]);
	}
	snprintf(r->mark, sizeof(r->mark), "%s/mark", r->dir[0]);
	snprintf(r->new, sizeof(r->new), "%s/f.new", r->dir[0]);
	r->held = -1;
	if (mkdir(r->dir[0], 0755) || !put(r->file[0], O_CREAT, "", 0, 30) ||
	    !put(r->mark, O_CREAT, "m", 1, -1))
		return bad("%s: %s", r->dir[0], strerror(errno));
	r->fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	r->dir_wd = inotify_add_watch(r->fd, r->dir[1], IN_ALL_EVENTS & ~IN_ACCESS);
	return (r->fd >= 0 && r->dir_wd >= 0 && watch_file(r)) ||
	       bad("watch of %s: %s", r->dir[1], strerror(errno));
}

static void run_case(enum way way, enum state state, int rounds)
{
	struct run r = { .way = way, .state = state };
	int i = 0;
	bool good = start(&r, (int)n_tests);

	while (good && i < rounds && (good = round_ok(&r, i)))
		i++;
	let_go(&r);
	close(r.fd);
	n_tests++;
	n_failed += !good;
	if (!good)
		printf("# round %d: %s\n", i, why);
	printf("%s %u - A %s, %s\n", good ? "ok" : "not ok", n_tests, way_names[way],
	       state_names[state]);
	fflush(stdout);
}

int main(int argc, char **argv)
{
	int rounds = argc > 3 ? atoi(argv[3]) : 0;
	int only = argc > 4 ? atoi(argv[4]) : 0, n = 0;

	if (rounds <= 0) {
		fprintf(stderr, "usage: watches A B ROUNDS [CASE]\n");
		return 2;
	}
	a_dir = argv[1];
	b_dir = argv[2];
	umask(022);
	printf("1..%d\n", only ? 1 : N_WAYS * N_STATES);
	for (int state = 0; state < N_STATES; state++)
		for (int way = 0; way < N_WAYS; way++)
			if (++n == only || !only)
				run_case((enum way)way, (enum state)state, rounds);
	return n_failed ? 1 : 0;
}
