/* SPDX-License-Identifier: MIT
 * Usage: posix-suite [-l] [-t PART-OF-NAME]… [-T SECONDS] DIR
 */
#include "suite.h"

#include <dirent.h>
#include <grp.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/statvfs.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/un.h>
#include <sys/vfs.h>
#include <sys/wait.h>
#include <sys/xattr.h>

struct fs_facts facts;

static struct test *tests;
static struct test **tests_end = &tests;

/* Shared with the children. */
static struct {
	unsigned long checks;
	unsigned failed; /* of the running test */
	bool skipped;
	char why[200];
} * shared;

static char context_text[200];

void suite_add(struct test *t)
{
	*tests_end = t;
	tests_end = &t->next;
}

void context(const char *fmt, ...)
{
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(context_text, sizeof(context_text), fmt, ap);
	va_end(ap);
}

static bool count(bool good)
{
	shared->checks++;
	if (good)
		return true;
	return ++shared->failed > 12; /* true: say nothing any more */
}

static void say(const char *file, int line, const char *fmt, ...)
	__attribute__((format(printf, 3, 4)));

static void say(const char *file, int line, const char *fmt, ...)
{
	const char *base = strrchr(file, '/');
	va_list ap;

	printf("# %s:%d: ", base ? base + 1 : file, line);
	va_start(ap, fmt);
	vprintf(fmt, ap);
	va_end(ap);
	if (context_text[0])
		printf("  [%s]", context_text);
	printf("\n");
	fflush(stdout);
}

bool check_(const char *file, int line, bool good, const char *fmt, ...)
{
	char text[400];
	va_list ap;

	if (count(good))
		return good;
	va_start(ap, fmt);
	vsnprintf(text, sizeof(text), fmt, ap);
	va_end(ap);
	say(file, line, "%s", text);
	return false;
}

static const char *errno_text(int err)
{
	const char *name = strerrorname_np(err);

	return name ? name : "0";
}

long check_ok_(const char *file, int line, const char *what, long result)
{
	int err = errno;

	if (!count(result >= 0))
		say(file, line, "%s: %s", what, errno_text(err));
	errno = err;
	return result;
}

bool check_err_(const char *file, int line, const char *what, int err, long result)
{
	int got = errno;
	bool good = result == -1 && got == err;

	if (!count(good)) {
		if (result == -1)
			say(file, line, "%s: %s, expected %s", what, errno_text(got),
			    errno_text(err));
		else
			say(file, line, "%s: %ld, expected %s", what, result, errno_text(err));
	}
	return good;
}

bool check_eq_(const char *file, int line, const char *what, long long got, long long want)
{
	if (!count(got == want))
		say(file, line, "%s: %lld (0%llo), expected %lld (0%llo)", what, got,
		    (unsigned long long)got, want, (unsigned long long)want);
	return got == want;
}

long need_(const char *file, int line, const char *what, long result)
{
	check_ok_(file, line, what, result);
	if (result < 0)
		_exit(1);
	return result;
}

void skip(const char *why)
{
	root();
	shared->skipped = true;
	snprintf(shared->why, sizeof(shared->why), "%s", why);
	_exit(0);
}

static void become(uid_t uid, gid_t gid, const gid_t *groups, size_t n)
{
	root();
	if (setgroups(n, groups) < 0 || setresgid(gid, gid, 0) < 0 || setresuid(uid, uid, 0) < 0) {
		perror("# change of user");
		_exit(1);
	}
}

void user(uid_t uid, gid_t gid)
{
	become(uid, gid, NULL, 0);
}

void user_in(uid_t uid, gid_t gid, gid_t extra)
{
	become(uid, gid, &extra, 1);
}

void root(void)
{
	if (geteuid() == 0 && getuid() == 0 && getegid() == 0)
		return;
	if (setresuid(0, 0, 0) < 0 || setresgid(0, 0, 0) < 0 || setgroups(0, NULL) < 0) {
		perror("# back to root");
		_exit(1);
	}
}

void tick(void)
{
	struct timespec start, now;

	/* Kernel time stamps may come from the coarse clock: let that move twice. */
	for (int i = 0; i < 2; i++) {
		clock_gettime(CLOCK_REALTIME_COARSE, &start);
		do {
			nanosleep(&(struct timespec){ .tv_nsec = 500000 }, NULL);
			clock_gettime(CLOCK_REALTIME_COARSE, &now);
		} while (same(start, now));
	}
}

bool newer(struct timespec a, struct timespec b)
{
	return a.tv_sec > b.tv_sec || (a.tv_sec == b.tv_sec && a.tv_nsec > b.tv_nsec);
}

bool same(struct timespec a, struct timespec b)
{
	return a.tv_sec == b.tv_sec && a.tv_nsec == b.tv_nsec;
}

struct stat stat_of(const char *path)
{
	struct stat st = { 0 };
	int rc = lstat(path, &st);

	if (rc < 0)
		check_(__FILE__, __LINE__, false, "lstat %s: %s", path, errno_text(errno));
	return st;
}

struct stat stat_at(const char *path)
{
	struct stat st = { 0 };
	int rc = stat(path, &st);

	if (rc < 0)
		check_(__FILE__, __LINE__, false, "stat %s: %s", path, errno_text(errno));
	return st;
}

struct stat stat_fd(int fd)
{
	struct stat st = { 0 };
	int rc = fstat(fd, &st);

	if (rc < 0)
		check_(__FILE__, __LINE__, false, "fstat: %s", errno_text(errno));
	return st;
}

void times_moved_(const char *file, int line, const char *path, const struct stat *before, int what)
{
	struct stat now = stat_of(path);
	bool c = newer(now.st_ctim, before->st_ctim), m = newer(now.st_mtim, before->st_mtim);

	check_(file, line, c == !!(what & C_MOVED), "%s: ctime %s", path,
	       c ? "moved" : "didn't move");
	check_(file, line, m == !!(what & M_MOVED), "%s: mtime %s", path,
	       m ? "moved" : "didn't move");
	if (!(what & C_MOVED))
		check_(file, line, same(now.st_ctim, before->st_ctim), "%s: ctime is another",
		       path);
	if (!(what & M_MOVED))
		check_(file, line, same(now.st_mtim, before->st_mtim), "%s: mtime is another",
		       path);
}

void put(const char *path, const void *bytes, ssize_t len)
{
	int fd = (int)NEED(open(path, O_WRONLY | O_CREAT | O_TRUNC, 0644));
	size_t n = len < 0 ? strlen(bytes) : (size_t)len;

	for (size_t done = 0; done < n;)
		done += (size_t)NEED(write(fd, (const char *)bytes + done, n - done));
	OK(close(fd));
}

void touch(const char *path)
{
	put(path, "", 0);
}

void holds_(const char *file, int line, const char *path, const void *bytes, ssize_t len)
{
	size_t want = len < 0 ? strlen(bytes) : (size_t)len, got = 0;
	char *buf = malloc(want + 4096);
	int fd = open(path, O_RDONLY);

	if (!buf || fd < 0) {
		check_(file, line, false, "open %s: %s", path, errno_text(errno));
		goto out;
	}
	for (;;) {
		ssize_t n = read(fd, buf + got, want + 4096 - got);

		if (n < 0) {
			check_(file, line, false, "read %s: %s", path, errno_text(errno));
			goto out;
		}
		if (n == 0)
			break;
		got += (size_t)n;
		if (got == want + 4096)
			break;
	}
	if (!check_(file, line, got == want, "%s: %zu bytes, expected %zu", path, got, want))
		goto out;
	for (size_t i = 0; i < want; i++) {
		if (buf[i] != ((const char *)bytes)[i]) {
			check_(file, line, false, "%s: byte %zu of %zu is %02x, expected %02x",
			       path, i, want, (unsigned char)buf[i],
			       ((const unsigned char *)bytes)[i]);
			goto out;
		}
	}
	check_(file, line, true, "contents");
out:
	if (fd >= 0)
		close(fd);
	free(buf);
}

void pattern(void *buf, size_t len, uint64_t at, unsigned seed)
{
	unsigned char *p = buf;

	for (size_t i = 0; i < len; i++) {
		uint64_t x = (at + i) * UINT64_C(0x9e3779b97f4a7c15) + seed * UINT64_C(0x7f4a7c15);

		p[i] = (unsigned char)((x >> 32) | 1);
	}
}

uint64_t rnd(uint64_t *state)
{
	uint64_t z = (*state += UINT64_C(0x9e3779b97f4a7c15));

	z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
	z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
	return z ^ (z >> 31);
}

const char *const kind_name[K_COUNT] = {
	"file", "dir", "fifo", "block", "char", "socket", "symlink"
};
const mode_t kind_type[K_COUNT] = {
	S_IFREG, S_IFDIR, S_IFIFO, S_IFBLK, S_IFCHR, S_IFSOCK, S_IFLNK
};

void make(enum kind k, const char *path)
{
	switch (k) {
	case K_FILE:
		touch(path);
		break;
	case K_DIR:
		NEED(mkdir(path, 0755));
		break;
	case K_FIFO:
		NEED(mkfifo(path, 0644));
		break;
	case K_BLOCK:
		NEED(mknod(path, S_IFBLK | 0644, makedev(1, 2)));
		break;
	case K_CHAR:
		NEED(mknod(path, S_IFCHR | 0644, makedev(1, 2)));
		break;
	case K_SOCKET: {
		struct sockaddr_un a = { .sun_family = AF_UNIX };
		int s = (int)NEED(socket(AF_UNIX, SOCK_STREAM, 0));

		snprintf(a.sun_path, sizeof(a.sun_path), "%s", path);
		NEED(bind(s, (struct sockaddr *)&a, sizeof(a)));
		close(s);
		break;
	}
	case K_SYMLINK:
		NEED(symlink("target", path));
		break;
	case K_COUNT:
		break;
	}
}

void destroy(const char *path)
{
	if (unlink(path) < 0 && (errno == EISDIR || errno == EPERM))
		OK(rmdir(path));
}

int in_child(int (*fn)(void *), void *arg)
{
	int status = 0;
	pid_t pid;

	fflush(stdout);
	pid = fork();
	if (pid == 0)
		_exit(fn(arg));
	if (pid < 0 || waitpid(pid, &status, 0) != pid)
		return -1;
	return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

int sys_renameat2(const char *from, const char *to, unsigned flags)
{
	return (int)syscall(SYS_renameat2, AT_FDCWD, from, AT_FDCWD, to, flags);
}

/* ---- running ------------------------------------------------------- */

static int remove_below(int dirfd)
{
	int rc = 0, fd = openat(dirfd, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	DIR *d = fd < 0 ? NULL : fdopendir(fd);
	struct dirent *e;

	if (!d)
		return -1;
	while ((e = readdir(d))) {
		struct stat st;

		if (!strcmp(e->d_name, ".") || !strcmp(e->d_name, ".."))
			continue;
		if (fstatat(dirfd, e->d_name, &st, AT_SYMLINK_NOFOLLOW) < 0) {
			rc = -1;
			continue;
		}
		if (S_ISDIR(st.st_mode)) {
			int sub = openat(dirfd, e->d_name, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

			if (sub < 0 || remove_below(sub) < 0)
				rc = -1;
			if (sub >= 0)
				close(sub);
			if (unlinkat(dirfd, e->d_name, AT_REMOVEDIR) < 0)
				rc = -1;
		} else if (unlinkat(dirfd, e->d_name, 0) < 0) {
			rc = -1;
		}
	}
	closedir(d);
	return rc;
}

static int remove_tree(const char *path)
{
	int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	int rc = fd < 0 ? -1 : remove_below(fd);

	if (fd >= 0)
		close(fd);
	return rmdir(path) < 0 ? -1 : rc;
}

static void find_facts(void)
{
	struct statvfs v = { 0 };
	struct statfs s = { 0 };

	if (statvfs(".", &v) == 0) {
		facts.nodev = v.f_flag & ST_NODEV;
		facts.nosuid = v.f_flag & ST_NOSUID;
	}
	facts.is_fuse = statfs(".", &s) == 0 && s.f_type == 0x65735546;
	facts.is_tmpfs = s.f_type == 0x01021994;
	facts.xattr = setxattr(".", "user.icmfs-test", "x", 1, 0) == 0;
	removexattr(".", "user.icmfs-test");
	printf("# file system: type %#lx,%s%s%s\n", (unsigned long)s.f_type,
	       facts.nodev ? " nodev" : " dev", facts.nosuid ? " nosuid" : " suid",
	       facts.xattr ? " xattr" : " no user xattr");
}

static int wait_for(pid_t pid, unsigned limit, int *status)
{
	for (unsigned ms = 0; ms < limit * 1000; ms += ms < 50 ? 1 : 10) {
		pid_t got = waitpid(pid, status, WNOHANG);

		if (got == pid)
			return 0;
		if (got < 0)
			return -1;
		nanosleep(&(struct timespec){ .tv_nsec = ms < 50 ? 1000000 : 10000000 }, NULL);
	}
	kill(-pid, SIGKILL);
	kill(pid, SIGKILL);
	/* A process that hangs in the kernel can't be waited for. */
	for (int i = 0; i < 100; i++) {
		if (waitpid(pid, status, WNOHANG) == pid)
			break;
		nanosleep(&(struct timespec){ .tv_nsec = 20000000 }, NULL);
	}
	return -1;
}

static bool wanted(const struct test *t, char **parts, int n)
{
	char full[200];

	snprintf(full, sizeof(full), "%s.%s", t->subject, t->name);
	for (int i = 0; i < n; i++) {
		if (strstr(full, parts[i]))
			return true;
	}
	return n == 0;
}

int main(int argc, char **argv)
{
	unsigned total = 0, nr = 0, failed = 0, skipped = 0, limit = 120;
	char base[64], *parts[32];
	int opt, n_parts = 0;
	bool list = false;

	setvbuf(stdout, NULL, _IOLBF, 0);
	while ((opt = getopt(argc, argv, "lt:T:")) != -1) {
		if (opt == 'l')
			list = true;
		else if (opt == 't' && n_parts < 32)
			parts[n_parts++] = optarg;
		else if (opt == 'T')
			limit = (unsigned)atoi(optarg);
		else
			return 2;
	}
	for (struct test *t = tests; t; t = t->next) {
		if (!wanted(t, parts, n_parts))
			continue;
		total++;
		if (list)
			printf("%s.%s\n", t->subject, t->name);
	}
	if (list)
		return 0;
	if (optind + 1 != argc) {
		fprintf(stderr, "usage: posix-suite [-l] [-t PART-OF-NAME] [-T SECONDS] "
				"DIR\n");
		return 2;
	}
	if (geteuid() != 0) {
		printf("1..0 # SKIP needs root\n");
		return 77;
	}
	umask(0);
	signal(SIGPIPE, SIG_IGN);
	snprintf(base, sizeof(base), "posix-suite.%d", (int)getpid());
	if (chdir(argv[optind]) < 0 || mkdir(base, 0755) < 0 || chdir(base) < 0) {
		fprintf(stderr, "posix-suite: %s: %m\n", argv[optind]);
		return 2;
	}
	shared = mmap(NULL, sizeof(*shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1,
		      0);
	if (shared == MAP_FAILED)
		return 2;
	find_facts();
	printf("1..%u\n", total);
	for (struct test *t = tests; t; t = t->next) {
		char dir[200];
		int status = 0;
		pid_t pid;
		bool bad;

		if (!wanted(t, parts, n_parts))
			continue;
		nr++;
		shared->failed = 0;
		shared->skipped = false;
		snprintf(dir, sizeof(dir), "%s.%s", t->subject, t->name);
		fflush(stdout);
		pid = fork();
		if (pid == 0) {
			setpgid(0, 0);
			if (mkdir(dir, 0755) < 0 || chdir(dir) < 0) {
				printf("# %s: %m\n", dir);
				_exit(1);
			}
			t->run();
			fflush(stdout);
			_exit(0);
		}
		bad = wait_for(pid, limit, &status) < 0;
		if (bad)
			printf("# no end after %u s\n", limit);
		kill(-pid, SIGKILL); /* what the test may have left */
		if (WIFSIGNALED(status)) {
			printf("# ended by signal %d\n", WTERMSIG(status));
			bad = true;
		} else if (WEXITSTATUS(status)) {
			bad = true;
		}
		bad = bad || shared->failed;
		if (remove_tree(dir) < 0) {
			printf("# the test's directory could not be removed: %m\n");
			bad = true;
		}
		failed += bad;
		skipped += shared->skipped && !bad;
		printf("%s %u - %s.%s", bad ? "not ok" : "ok", nr, t->subject, t->name);
		if (shared->skipped && !bad)
			printf(" # SKIP %s", shared->why);
		printf("\n");
	}
	if (chdir("..") < 0 || rmdir(base) < 0) {
		printf("# %s could not be removed: %m\n", base);
		failed += failed == 0;
	}
	printf("# %lu assertions in %u tests, %u failed, %u skipped\n", shared->checks, total,
	       failed, skipped);
	return failed ? 1 : 0;
}
