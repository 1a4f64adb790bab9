/* SPDX-License-Identifier: MIT
 * inotify for changes made on other hosts. The kernel makes events only for
 * what goes through a mount, so a helper process repeats each change through
 * this mount, on a name or file that somebody here may watch. Its requests are
 * recognised by its thread id and answered from the new state, without effect.
 *
 * It is a process of its own, without the device's descriptor, because a
 * thread of the daemon that waits in the daemon's own mount could keep the
 * connection open for ever. Nothing waits for it: it may be blocked by a
 * directory in which a request is stalled. It keeps nothing of the mount open
 * between changes, and ends with the daemon. On a read-only mount the kernel
 * refuses what it does, so there is none. */
#ifndef ICM_EVENTS_H
#define ICM_EVENTS_H

#include "front.h"
#include "request.h"

struct icm_events;

/* Forks the helper: before there are threads, before the mount. `mountpoint`
 * is absolute and without symbolic links; borrowed. */
int icm_events_new(const char *mountpoint, struct icm_events **ret) ICM_MUST_CHECK;
/* Starts passing changes on, once mounted; `dev` is the mount's device number,
 * by which the helper knows that it is still there. */
int icm_events_start(struct icm_events *e, struct icm_front *front, dev_t dev) ICM_MUST_CHECK;
/* Queues a change; where too many come some are left out. */
void icm_events_add(struct icm_events *e, const struct icm_event *event);
/* Passes nothing on for some seconds, so that umount finds the mount unused. */
void icm_events_pause(struct icm_events *e);
/* Ends the helper; what is queued is dropped. */
void icm_events_stop(struct icm_events *e);
struct icm_events *icm_events_free(struct icm_events *e);

/* A look-up by the helper. False: to be answered like any other. */
bool icm_events_lookup(struct icm_events *e, struct icm_req *r);

/* ---- between the daemon and the helper ---- */

/* What is to be repeated: followed by the path and, for a move, the other path, with their NULs. */
struct icm_events_msg {
	int32_t type;  /* enum icm_event_type */
	uint32_t mode; /* S_IFMT bits of what is there */
	uint32_t dev_major, dev_minor;
	uint32_t path_bytes, to_path_bytes;
};

/* The helper's life; ends when the socket does. */
ICM_NORETURN void icm_events_helper(int sock, const char *mountpoint);

#endif
