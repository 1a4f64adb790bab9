/* SPDX-License-Identifier: MIT
 * The event helper: repeats changes through the mount (events.h). What each
 * call makes inotify report was tried out; the daemon's answers to them are in
 * events.c and fuse-name.c. */
#include <errno.h>
#include <linux/openat2.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>

#include "events.h"
#include "util/buf.h"

#define MSG_BYTES (sizeof(struct icm_events_msg) + (1 << 16))

struct helper {
	const char *mountpoint;
	struct icm_events_msg msg;
	char *path, *to_path; /* borrowed from the message */
};

/* A directory of the mount, or -1: never through a symbolic link, never into
 * another file system mounted below. */
static int open_dir(int root, const char *path)
{
	const struct open_how how = {
		.flags = O_PATH | O_DIRECTORY | O_CLOEXEC,
		.resolve = RESOLVE_BENEATH | RESOLVE_NO_XDEV | RESOLVE_NO_SYMLINKS,
	};

	return (int)syscall(SYS_openat2, root, *path ? path : ".", &how, sizeof(how));
}

/* The mount's root, or -1 if something else is at its place now: after a lazy
 * unmount the same calls would change the directory below. */
static int open_root(const struct helper *h)
{
	ICM_AUTOCLOSE int fd = open(h->mountpoint, O_PATH | O_DIRECTORY | O_CLOEXEC);
	struct statx st;

	if (fd < 0 || statx(fd, "", AT_EMPTY_PATH | AT_STATX_DONT_SYNC, STATX_TYPE, &st))
		return -1;
	if (st.stx_dev_major != h->msg.dev_major || st.stx_dev_minor != h->msg.dev_minor)
		return -1;
	int root = fd;

	fd = -1;
	return root;
}

/* Splits "a/b/c" in place: the directory, and the name in it. */
static int open_parent(const struct helper *h, char *path, const char **ret_name)
{
	ICM_AUTOCLOSE int root = open_root(h);
	char *slash = strrchr(path, '/');

	*ret_name = slash ? slash + 1 : path;
	if (root < 0)
		return -1;
	if (!slash)
		return open_dir(root, "");
	*slash = '\0';
	return open_dir(root, path);
}

static const struct timespec only_mtime[2] = { { .tv_nsec = UTIME_OMIT },
					       { .tv_nsec = UTIME_NOW } };

/* OPEN, MODIFY, CLOSE_WRITE, as a commit should give. */
static void modify(int dir, const char *name)
{
	const struct open_how how = {
		.flags = O_WRONLY | O_NONBLOCK | O_NOCTTY | O_NOFOLLOW | O_CLOEXEC,
		.resolve = RESOLVE_NO_XDEV,
	};
	int fd = (int)syscall(SYS_openat2, dir, name, &how, sizeof(how));

	if (fd >= 0) {
		futimens(fd, only_mtime);
		close(fd);
	} else {
		/* no right to write: the owner at least may touch it */
		utimensat(dir, name, only_mtime, AT_SYMLINK_NOFOLLOW);
	}
}

static void create(int dir, const char *name, mode_t mode)
{
	if (S_ISDIR(mode)) {
		mkdirat(dir, name, 0700);
	} else if (S_ISLNK(mode)) {
		(void)!symlinkat("-", dir, name);
	} else if (S_ISREG(mode)) {
		int fd = openat(dir, name, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

		if (fd >= 0)
			close(fd);
	} else {
		mknodat(dir, name, (mode & S_IFMT) | 0600, 0);
	}
}

static void move(struct helper *h, int dir, const char *name)
{
	const char *to_name;
	ICM_AUTOCLOSE int to_dir = open_parent(h, h->to_path, &to_name);

	if (to_dir >= 0)
		renameat(dir, name, to_dir, to_name);
}

static void repeat(struct helper *h)
{
	const char *name;
	ICM_AUTOCLOSE int dir = open_parent(h, h->path, &name);

	if (dir < 0)
		return;
	switch ((enum icm_event_type)h->msg.type) {
	case ICM_EVENT_MODIFY:
		if (S_ISREG(h->msg.mode))
			modify(dir, name);
		break;
	case ICM_EVENT_ATTRIB:
		utimensat(dir, name, NULL, AT_SYMLINK_NOFOLLOW);
		break;
	case ICM_EVENT_CREATE:
	case ICM_EVENT_MKDIR:
		create(dir, name, h->msg.mode);
		break;
	case ICM_EVENT_DELETE:
		unlinkat(dir, name, 0);
		break;
	case ICM_EVENT_RMDIR:
		unlinkat(dir, name, AT_REMOVEDIR);
		break;
	case ICM_EVENT_MOVE:
		move(h, dir, name);
		break;
	}
}

/* Only interrupts a call that is being waited for. */
static void on_signal(int sig)
{
}

static void set_signals(void)
{
	const struct sigaction interrupt = { .sa_handler = on_signal };

	sigaction(SIGUSR1, &interrupt, NULL);
	/* the terminal's signals are for the daemon, after which the socket ends */
	signal(SIGINT, SIG_IGN);
	signal(SIGHUP, SIG_IGN);
	signal(SIGTERM, SIG_IGN);
	signal(SIGPIPE, SIG_IGN);
}

/* Sound, or not from the daemon. */
static bool take_apart(struct helper *h, char *buf, size_t len)
{
	if (len < sizeof(h->msg))
		return false;
	memcpy(&h->msg, buf, sizeof(h->msg));
	if ((size_t)h->msg.path_bytes + h->msg.to_path_bytes != len - sizeof(h->msg))
		return false;
	h->path = buf + sizeof(h->msg);
	h->to_path = h->path + h->msg.path_bytes;
	return true;
}

void icm_events_helper(int sock, const char *mountpoint)
{
	struct helper h = { .mountpoint = mountpoint };
	char *buf = icm_xmalloc(MSG_BYTES);
	int null;

	prctl(PR_SET_NAME, "icmfs-events");
	set_signals();
	null = open("/dev/null", O_RDWR);
	if (chdir("/") || null < 0)
		_exit(1);
	for (int fd = 0; fd < 3; fd++)
		dup2(null, fd);
	/* all that the daemon has open but the socket: it must not live on here */
	if (sock > 3)
		close_range(3, (unsigned)sock - 1, 0);
	close_range((unsigned)sock + 1, ~0U, 0);
	for (;;) {
		ssize_t n = recv(sock, buf, MSG_BYTES, 0);

		if (n < 0 && errno == EINTR)
			continue;
		if (n <= 0)
			_exit(0);
		if (take_apart(&h, buf, (size_t)n))
			repeat(&h);
		if (send(sock, "", 1, 0) < 0 && errno != EINTR)
			_exit(0);
	}
}
