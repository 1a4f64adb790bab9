/* SPDX-License-Identifier: MIT */
#include "mount.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/sysmacros.h>
#include <sys/wait.h>
#include <fcntl.h>

#include "mount-pid.h"
#include "mountinfo.h"
#include "util/buf.h"
#include "util/clock.h"
#include "util/log.h"

#define FUSECTL "/sys/fs/fuse/connections"

/* The daemon's event helper may be at work in the mount for a moment. */
#define BUSY_TRIES   50
#define BUSY_WAIT_US 20000
/* Twice what a daemon waits for a store that is away. */
#define END_MS	   60000
#define NOTE_MS	   3000
#define PROGRAM_MS 10000

extern char **environ;

char *icm_mountpoint_path(const char *dir)
{
	ICM_AUTOFREE char *copy = icm_xstrdup(dir);
	ICM_AUTOFREE char *parent = NULL;
	ICM_AUTOFREE char *path = NULL;
	size_t len = strlen(copy);
	const char *base;
	char *slash, c;

	while (len > 1 && copy[len - 1] == '/')
		copy[--len] = '\0';
	slash = strrchr(copy, '/');
	base = slash ? slash + 1 : copy;
	if (!*base || !strcmp(base, ".") || !strcmp(base, ".."))
		return realpath(copy, NULL);
	if (slash)
		*slash = '\0';
	parent = realpath(!slash ? "." : *copy ? copy : "/", NULL);
	if (!parent)
		return NULL;
	path = icm_asprintf("%s/%s", strcmp(parent, "/") ? parent : "", base);
	/* readlink asks no file system whose root this may be */
	if (readlink(path, &c, 1) >= 0)
		return realpath(path, NULL);
	return ICM_STEAL(&path);
}

static int wait_program(pid_t pid)
{
	int64_t end = icm_now_ns() + PROGRAM_MS * ICM_NS_PER_MS;
	int status;

	while (waitpid(pid, &status, WNOHANG) == 0) {
		if (icm_now_ns() > end) {
			kill(pid, SIGKILL);
			return -ETIMEDOUT;
		}
		usleep(2000);
	}
	return WIFEXITED(status) ? WEXITSTATUS(status) : -EINTR;
}

int icm_run_program(const char *const argv[])
{
	posix_spawnattr_t attr;
	sigset_t none, ignored;
	pid_t pid;
	int err;

	sigemptyset(&none);
	sigemptyset(&ignored);
	sigaddset(&ignored, SIGPIPE); /* what a program expects to end it */
	posix_spawnattr_init(&attr);
	posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
	posix_spawnattr_setsigmask(&attr, &none);
	posix_spawnattr_setsigdefault(&attr, &ignored);
	err = posix_spawnp(&pid, argv[0], NULL, &attr, (char *const *)argv, environ);
	posix_spawnattr_destroy(&attr);
	return err ? -err : wait_program(pid);
}

/* One attempt. An unprivileged user needs fusermount3, whose reasons can't be
 * told apart: what is still mounted afterwards is busy. */
static int try_umount(const char *path, bool lazy)
{
	const char *const argv[] = {
		"fusermount3",	    "-u", "-q", lazy ? "-z" : "--", lazy ? "--" : path,
		lazy ? path : NULL, NULL
	};
	int status;

	if (!umount2(path, UMOUNT_NOFOLLOW | (lazy ? MNT_DETACH : 0)))
		return 0;
	if (errno != EPERM || geteuid() == 0)
		return -errno;
	status = icm_run_program(argv);
	return status > 0 ? -EBUSY : status;
}

int icm_umount_detach(const char *path)
{
	return try_umount(path, true);
}

static int fail(const char *path, const char *why)
{
	icm_log_err("cannot unmount '%s': %s", path, why);
	return 1;
}

/* Ends every request of the connection; -ENOENT without the control file system. */
static int abort_connection(dev_t dev)
{
	/* kernel, fs/fuse/control.c: the directory is the device number in decimal */
	ICM_AUTOFREE char *path = icm_asprintf(FUSECTL "/%u/abort", major(dev) << 20 | minor(dev));
	ICM_AUTOCLOSE int fd = open(path, O_WRONLY | O_CLOEXEC);

	if (fd < 0 && geteuid() == 0 && !mount("fusectl", FUSECTL, "fusectl", 0, NULL))
		fd = open(path, O_WRONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	return write(fd, "1", 1) == 1 ? 0 : -errno;
}

static int umount_busy(const char *path, pid_t daemon)
{
	int err = try_umount(path, false);

	for (int i = 0; err == -EBUSY && daemon > 0 && i < BUSY_TRIES; i++) {
		if (i == 0)
			kill(daemon, SIGUSR1);
		usleep(BUSY_WAIT_US);
		err = try_umount(path, false);
	}
	return err;
}

static int wait_end(const char *path, int pidfd, pid_t daemon, bool must)
{
	struct pollfd p = { .fd = pidfd, .events = POLLIN };
	int ready = poll(&p, 1, must ? NOTE_MS : 500);

	if (ready > 0 || !must)
		return 0;
	fprintf(stderr, "'%s' is unmounted; waiting until everything is in the store ...\n", path);
	if (poll(&p, 1, END_MS) > 0)
		return 0;
	icm_log_err(
		"process %d, which served '%s', has not finished yet: there may be data that is "
		"not in the store",
		daemon, path);
	return 1;
}

static int umount_ours(const char *path, const struct icm_mountinfo *m, bool lazy, bool force)
{
	pid_t daemon = icm_mount_pid_find(m->dev, m->uid);
	ICM_AUTOCLOSE int pidfd = daemon > 0 ? (int)syscall(SYS_pidfd_open, daemon, 0) : -1;
	int err = force ? abort_connection(m->dev) : 0;

	if (err)
		icm_log_warning("cannot abort the requests of '%s': %s", path, strerror(-err));
	/* nobody serves it any more: then it is no use to say that it is busy */
	lazy = lazy || force || daemon < 0;
	err = lazy ? try_umount(path, true) : umount_busy(path, daemon);
	if (err == -EBUSY)
		return fail(path,
			    "in use: a program has a file open or its working directory there "
			    "(fuser -m shows which; --lazy unmounts all the same)");
	if (err)
		return fail(path, strerror(-err));
	return pidfd < 0 ? 0 : wait_end(path, pidfd, daemon, !lazy || force);
}

int icm_umount(const char *dir, bool lazy, bool force)
{
	ICM_AUTOFREE char *path = icm_mountpoint_path(dir);
	struct icm_mountinfo m = { 0 };
	int err = path ? icm_mountinfo_at(path, &m) : -errno;
	int status;

	if (err == -ENOENT || (!err && !icm_mountinfo_is_ours(&m)))
		status = fail(dir, "not mounted: there is no icmfs at this place");
	else if (err)
		status = fail(dir, strerror(-err));
	else
		status = umount_ours(path, &m, lazy, force);
	icm_mountinfo_clear(&m);
	return status;
}
