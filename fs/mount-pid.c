/* SPDX-License-Identifier: MIT */
#include "mount-pid.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "settings.h"
#include "util/buf.h"
#include "util/log.h"

int icm_make_dirs(const char *path)
{
	ICM_AUTOFREE char *copy = icm_xstrdup(path);

	for (char *p = copy + 1;; p++) {
		char c = *p;

		if (c && c != '/')
			continue;
		*p = '\0';
		if (mkdir(copy, 0700) && errno != EEXIST)
			return -errno;
		*p = c;
		if (!c)
			return 0;
	}
}

/* The directories in which the file of a user's mount may be, best first; NULL
 * behind the last one. */
static char *run_dir(uid_t uid, int n)
{
	const char *xdg = getenv("XDG_RUNTIME_DIR");
	ICM_AUTOFREE char *state = NULL;
	struct icm_settings none = { 0 };

	if (uid == 0)
		return n == 0 ? icm_xstrdup("/run/icmfs") : NULL;
	switch (n) {
	case 0:
		if (geteuid() == uid && xdg && *xdg == '/')
			return icm_asprintf("%s/icmfs", xdg);
		return icm_asprintf("/run/user/%u/icmfs", (unsigned)uid);
	case 1:
		if (geteuid() != uid)
			return NULL;
		state = icm_settings_state_dir(&none);
		return icm_asprintf("%s/run", state);
	default:
		return NULL;
	}
}

static char *file_in(const char *dir, dev_t dev)
{
	return icm_asprintf("%s/mount-%u:%u", dir, major(dev), minor(dev));
}

/* Keeps the descriptor, and with it the lock, until the process ends. */
static int write_in(const char *dir, dev_t dev, const char *mountpoint)
{
	ICM_AUTOFREE char *path = file_in(dir, dev);
	ICM_AUTOFREE char *text = icm_asprintf("%d\n%s\n", getpid(), mountpoint);
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };
	int err = icm_make_dirs(dir);
	int fd;

	if (err)
		return err;
	fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	if (fd < 0)
		return -errno;
	if (fcntl(fd, F_SETLK, &lock) || ftruncate(fd, 0) ||
	    write(fd, text, strlen(text)) != (ssize_t)strlen(text)) {
		err = -errno;
		close(fd);
		return err;
	}
	return 0;
}

void icm_mount_pid_write(dev_t dev, const char *mountpoint)
{
	int err = -ENOENT;

	for (int n = 0; err; n++) {
		ICM_AUTOFREE char *dir = run_dir(geteuid(), n);

		if (!dir)
			break;
		err = write_in(dir, dev, mountpoint);
	}
	if (err)
		icm_log_warning("umount won't be able to wait for this process: no file for its "
				"number: %s",
				strerror(-err));
}

void icm_mount_pid_remove(dev_t dev)
{
	for (int n = 0;; n++) {
		ICM_AUTOFREE char *dir = run_dir(geteuid(), n);
		ICM_AUTOFREE char *path = dir ? file_in(dir, dev) : NULL;

		if (!dir)
			return;
		unlink(path);
	}
}

static pid_t locker_of(const char *path)
{
	ICM_AUTOCLOSE int fd = open(path, O_RDWR | O_CLOEXEC | O_NOFOLLOW);
	struct flock lock = { .l_type = F_WRLCK, .l_whence = SEEK_SET };

	/* a process of another pid namespace is shown as 0 */
	if (fd < 0 || fcntl(fd, F_GETLK, &lock) || lock.l_type == F_UNLCK || lock.l_pid <= 0)
		return -ESRCH;
	return lock.l_pid;
}

pid_t icm_mount_pid_find(dev_t dev, uid_t uid)
{
	pid_t pid = -ESRCH;

	for (int n = 0; pid < 0; n++) {
		ICM_AUTOFREE char *dir = run_dir(uid, n);
		ICM_AUTOFREE char *path = dir ? file_in(dir, dev) : NULL;

		if (!dir)
			break;
		pid = locker_of(path);
	}
	return pid;
}
