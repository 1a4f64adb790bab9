/* SPDX-License-Identifier: MIT
 * Which process serves a mount: a small file named after the mount's device
 * number, locked by the process for its life, so that umount can wait for the
 * end of it without asking the mount itself, which might hang. In /run/icmfs
 * for root, else in $XDG_RUNTIME_DIR/icmfs or below the state directory. */
#ifndef ICM_MOUNT_PID_H
#define ICM_MOUNT_PID_H

#include <sys/types.h>

#include "util/attrs.h"

/* Writes and locks the file for this process. Failure only costs comfort. */
void icm_mount_pid_write(dev_t dev, const char *mountpoint);
/* Removes what icm_mount_pid_write made, at the end. */
void icm_mount_pid_remove(dev_t dev);
/* The process that serves the mount `dev` of user `uid`; -ESRCH if none is known. */
pid_t icm_mount_pid_find(dev_t dev, uid_t uid);

/* mkdir -p with mode 0700 for what is missing; 0 or a negative errno. */
int icm_make_dirs(const char *path) ICM_MUST_CHECK;

#endif
