/* SPDX-License-Identifier: MIT
 * Telling the kernel what to forget. Notifications can wait in the kernel, for
 * a page that is being read or for a directory in which a request is stalled,
 * so they go through a queue with several threads, in order for each node;
 * one blocked node delays no other. Nothing here is called with a core lock
 * held, and nothing is looked at through a view later: queued are numbers and
 * names. A number whose view is gone meanwhile is unknown to the kernel, or at
 * worst is another file's that is then looked at once more than needed. */
#ifndef ICM_FUSE_NOTIFY_H
#define ICM_FUSE_NOTIFY_H

#include "front.h"

struct icm_notifier *icm_notifier_new(struct icm_front *front);
int icm_notifier_start(struct icm_notifier *n) ICM_MUST_CHECK;
/* Ends when what is queued was told; nothing is taken afterwards. While
 * requests are still served: a notification may wait for one of them. */
void icm_notifier_stop(struct icm_notifier *n);
struct icm_notifier *icm_notifier_free(struct icm_notifier *n);

/* Attributes only; never waits. */
void icm_notify_attr(struct icm_front *front, uint64_t node);
/* Queued: the name is looked up at its next use. */
void icm_notify_expire(struct icm_notifier *n, uint64_t parent, const char *name);
/* The kernel will be answered about a name: before it is looked for the last time
 * whether the answer is true (expire-again.h). */
void icm_notify_answer(struct icm_notifier *n, uint64_t parent, const char *name);
/* Queued: attributes and pages. */
void icm_notify_data(struct icm_notifier *n, uint64_t node);
/* Until what was queued for this node so far has taken effect. */
void icm_notify_drain(struct icm_notifier *n, uint64_t node);
/* Everything. */
void icm_notify_reset(struct icm_front *front);

#endif
