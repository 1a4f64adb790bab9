/* SPDX-License-Identifier: MIT
 * An elastic pool of threads for work that may wait: threads are made when
 * tasks come while none is free, up to a limit, and end after a time without
 * work, so that a mount in peace costs no memory for them. */
#ifndef ICM_EXECUTOR_H
#define ICM_EXECUTOR_H

#include <pthread.h>
#include <stdint.h>

#include "util/attrs.h"

struct icm_executor;

/* Embedded in what is to be done; the executor doesn't look at it any more
 * once `run` was called. */
struct icm_task {
	void (*run)(struct icm_task *task);
	struct icm_task *next;
};

/* `name` is shown by ps (15 bytes); borrowed. */
struct icm_executor *icm_executor_new(const char *name, unsigned max_threads, uint32_t idle_ms);
/* Makes the first thread, which stays; 0 or a negative errno. */
int icm_executor_start(struct icm_executor *e) ICM_MUST_CHECK;
/* Has the task run in another thread, in order of arrival as far as threads
 * are free. After icm_executor_start. */
void icm_executor_submit(struct icm_executor *e, struct icm_task *task);
/* Waits until everything submitted was done and the threads have ended.
 * Nothing may be submitted any more. */
void icm_executor_drain(struct icm_executor *e);
/* Drains and frees; takes NULL; returns NULL. */
struct icm_executor *icm_executor_free(struct icm_executor *e);

/* Starts a thread with a small stack and all signals blocked; 0 or a
 * negative errno. For this pool and for the other threads of the front. */
int icm_thread_start(pthread_t *ret, void *(*fn)(void *arg), void *arg) ICM_MUST_CHECK;

#endif
