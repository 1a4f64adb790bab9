/* SPDX-License-Identifier: MIT
 * Mounting and unmounting, as the commands do it: what goes wrong is one line
 * on stderr, the result is an exit status.
 *
 * The daemon's life: the store is opened before the fork, so that its errors
 * reach the terminal; the calling process ends when the kernel has accepted
 * the mount. The daemon logs to syslog and, since there may be none, warnings
 * and errors also to a file (icm_settings_log_file; kept at start under the
 * name FILE.1 when it has grown over 1 MiB). Its umask is 0: whatever creates
 * files in it says their mode. SIGTERM, SIGINT and SIGHUP unmount: programs
 * that still have files open have some seconds to close them, then they get
 * ENOTCONN; what they wrote is published. SIGUSR1 makes it keep off its mount
 * for some seconds (events.h). */
#ifndef ICM_MOUNT_H
#define ICM_MOUNT_H

#include <stdbool.h>

#include "settings.h"

/* Mounts; serves in this process with s->foreground, else in a daemon. 0 or 1. */
int icm_mount_run(const struct icm_settings *s);

/* Unmounts and waits until everything is in the store and the daemon has
 * ended. `lazy`: also while files are open; the daemon then ends after the
 * last close, for which this doesn't wait. `force`: for a mount that hangs;
 * ends all its requests, and loses what is in no store yet. 0 or 1. */
int icm_umount(const char *dir, bool lazy, bool force);

/* A mount point as the kernel names it: fresh absolute path without symbolic
 * links. Asks the mount itself nothing. NULL with errno set. */
char *icm_mountpoint_path(const char *dir);
/* Detaches a mount at once, as this user may; 0 or a negative errno. */
int icm_umount_detach(const char *path);
/* Runs a program, without a shell, until it ends or for at most 10 s; its exit
 * status or a negative errno. Safe in a process with threads. */
int icm_run_program(const char *const argv[]);

#endif
