/* SPDX-License-Identifier: MIT
 * What is mounted where, from /proc/self/mountinfo: without any request to a
 * mount, which might hang. */
#ifndef ICM_MOUNTINFO_H
#define ICM_MOUNTINFO_H

#include <stdbool.h>
#include <sys/types.h>

#include "util/attrs.h"

struct icm_mountinfo {
	dev_t dev;
	char *type;   /* owned; "fuse.icmfs" */
	char *source; /* owned */
	uid_t uid;    /* FUSE: who mounted it */
};

/* The topmost mount at `path` (absolute, without symbolic links); -ENOENT if
 * nothing is mounted exactly there. */
int icm_mountinfo_at(const char *path, struct icm_mountinfo *ret) ICM_MUST_CHECK;
void icm_mountinfo_clear(struct icm_mountinfo *m);
bool icm_mountinfo_is_ours(const struct icm_mountinfo *m);

#endif
