/* SPDX-License-Identifier: MIT
 * Names that are expired more than once. The kernel takes the answer to the
 * look-up of a name that it has without a lock which a notification would wait
 * for, and the attributes of a file that was made without a version: a
 * notification that comes between the answer and its taking, which can be long
 * on a busy machine, has no effect, and the kernel keeps for ever what it was
 * answered. It doesn't tell when it has taken an answer. So a name about which it
 * was answered a moment before is expired again after growing pauses. */
#ifndef ICM_EXPIRE_AGAIN_H
#define ICM_EXPIRE_AGAIN_H

#include <stdint.h>

#include "util/attrs.h"

struct icm_expire_again;

/* `expire` is called from a thread of this, without locks, for each repetition. */
struct icm_expire_again *icm_expire_again_new(void (*expire)(void *userdata, uint64_t parent,
							     const char *name),
					      void *userdata);
int icm_expire_again_start(struct icm_expire_again *a) ICM_MUST_CHECK;
/* Drops what was to be repeated; the thread ends. */
void icm_expire_again_stop(struct icm_expire_again *a);
/* Stops and frees; takes NULL; returns NULL. */
struct icm_expire_again *icm_expire_again_free(struct icm_expire_again *a);

/* An answer about the name is about to be sent. Before it is looked whether the
 * answer is still true. Any thread. */
void icm_expire_again_answered(struct icm_expire_again *a, uint64_t parent, const char *name);
/* The name was expired (or will be at once). Any thread. */
void icm_expire_again_expired(struct icm_expire_again *a, uint64_t parent, const char *name);

#endif
