/* SPDX-License-Identifier: MIT */
#include "closing.h"

#include <pthread.h>
#include <stddef.h>

#include "util/cleanup.h"
#include "util/clock.h"

/* For how long a last close is expected: it has been sent, and a worker thread
 * that has read it may be waiting for a processor. */
#define EXPECT_NS  (50 * ICM_NS_PER_MS)
#define N_EXPECTED 64

struct expected {
	uint64_t fh; /* 0: free */
	uint64_t ino;
	int64_t at_ns;
};

/* All of it is protected by the lock, and of all mounts of this process: one. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t cond = PTHREAD_COND_INITIALIZER;
static struct icm_closing *closings;
static struct expected expected[N_EXPECTED];
static unsigned next_expected;

/* When it was announced; 0: it wasn't. */
static int64_t forget_locked(uint64_t fh)
{
	int64_t at_ns = 0;

	for (size_t i = 0; i < N_EXPECTED; i++) {
		if (expected[i].fh != fh)
			continue;
		expected[i].fh = 0;
		at_ns = expected[i].at_ns;
	}
	return at_ns;
}

void icm_closing_expect(uint64_t fh, uint64_t ino)
{
	ICM_LOCK_SCOPE(&lock);

	forget_locked(fh);
	expected[next_expected++ % N_EXPECTED] =
		(struct expected){ .fh = fh, .ino = ino, .at_ns = icm_now_ns() };
}

void icm_closing_begin(struct icm_closing *c, uint64_t fh, uint64_t ino)
{
	ICM_LOCK_SCOPE(&lock);

	c->ino = ino;
	c->at_ns = forget_locked(fh);
	if (!c->at_ns)
		c->at_ns = icm_now_ns();
	c->next = closings;
	c->prev = &closings;
	if (c->next)
		c->next->prev = &c->next;
	closings = c;
}

void icm_closing_end(struct icm_closing *c)
{
	ICM_LOCK_SCOPE(&lock);

	*c->prev = c->next;
	if (c->next)
		c->next->prev = c->prev;
	pthread_cond_broadcast(&cond);
}

static bool is_closing_locked(uint64_t ino, int64_t start_ns)
{
	for (const struct icm_closing *c = closings; c; c = c->next)
		if (c->ino == ino && c->at_ns <= start_ns)
			return true;
	return false;
}

/* Until when one is expected that was announced before `start_ns`; 0: none is. */
static int64_t expected_locked(uint64_t ino, int64_t start_ns, int64_t now_ns)
{
	for (size_t i = 0; i < N_EXPECTED; i++) {
		const struct expected *e = &expected[i];

		if (e->fh && e->ino == ino && e->at_ns <= start_ns && e->at_ns + EXPECT_NS > now_ns)
			return e->at_ns + EXPECT_NS;
	}
	return 0;
}

bool icm_closing_wait(uint64_t ino)
{
	ICM_LOCK_SCOPE(&lock);
	int64_t start_ns = icm_now_ns(), until_ns;
	bool waited = false;

	for (;; waited = true) {
		until_ns = expected_locked(ino, start_ns, icm_now_ns());
		if (until_ns) {
			struct timespec until = icm_ns_to_timespec(until_ns);

			pthread_cond_clockwait(&cond, &lock, CLOCK_MONOTONIC, &until);
		} else if (is_closing_locked(ino, start_ns)) {
			pthread_cond_wait(&cond, &lock);
		} else {
			return waited;
		}
	}
}
