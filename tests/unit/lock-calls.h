/* SPDX-License-Identifier: MIT
 * Lock calls of programs on several mounts of one store, without a kernel. */
#ifndef ICM_TESTS_UNIT_LOCK_CALLS_H
#define ICM_TESTS_UNIT_LOCK_CALLS_H

#include <stdatomic.h>

#include "tests/unit/core-mount.h"

/* A request that waits, and what became of it. */
struct parked {
	struct icm_lock_wait *wait;
	atomic_int calls;
	atomic_int result;
	atomic_int order; /* of the answer among all, from 1 */
};

static atomic_int n_answers;

static inline void on_answer(void *userdata, int result)
{
	struct parked *p = userdata;

	atomic_store(&p->result, result);
	atomic_store(&p->order, atomic_fetch_add(&n_answers, 1) + 1);
	atomic_fetch_add(&p->calls, 1);
}

/* An open file of a program. */
struct program {
	struct icm_volume *vol;
	struct icm_view *view;
	struct icm_handle *h;
	uint64_t owner;
};

static inline struct program start(struct icm_volume *vol, const char *path, uint64_t owner)
{
	struct program p = { .vol = vol, .owner = owner };

	cr_assert_eq(open_path(vol, path, O_RDWR, &p.view, &p.h), 0);
	return p;
}

static inline void end(struct program *p)
{
	cr_assert_geq(icm_fs_flush(p->h, &no_call, p->owner), -EIO);
	close_path(p->view, p->h);
}

static inline int call_lock(struct program *p, bool flock, int type, uint64_t from, uint64_t to,
			    struct parked *parked)
{
	const struct icm_lock_request req = { .flock = flock,
					      .type = type,
					      .start = from,
					      .end = to,
					      .owner = p->owner,
					      .pid = 1000 + (pid_t)p->owner,
					      .wait = parked };
	struct icm_lock_wait *wait = NULL;
	int r;

	if (parked)
		*parked = (struct parked){ 0 };
	r = icm_fs_lock(p->h, &no_call, &req, on_answer, parked, &wait);
	if (parked)
		parked->wait = wait;
	return r;
}

static inline int try_flock(struct program *p, int type)
{
	return call_lock(p, true, type, 0, 0, NULL);
}

static inline int wait_flock(struct program *p, int type, struct parked *parked)
{
	return call_lock(p, true, type, 0, 0, parked);
}

static inline int try_record(struct program *p, int type, uint64_t from, uint64_t to)
{
	return call_lock(p, false, type, from, to, NULL);
}

static inline int wait_record(struct program *p, int type, uint64_t from, uint64_t to,
			      struct parked *parked)
{
	return call_lock(p, false, type, from, to, parked);
}

/* What an answer said; waits for it. */
static inline int answer(struct parked *p)
{
	WAIT_FOR(atomic_load(&p->calls));
	return atomic_load(&p->result);
}

static inline bool cancel(struct program *p, struct parked *parked)
{
	return icm_fs_lock_cancel(p->vol, parked->wait);
}

#endif
