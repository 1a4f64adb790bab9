/* SPDX-License-Identifier: MIT
 * Lock requests, waits, cancelled waits, releases and revocations from many
 * threads at once, for ThreadSanitizer; and exclusion seen from outside: who
 * has a write lock is alone with its bytes. */
#undef NDEBUG
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>

#include "core/lock.h"
#include "util/attrs.h"
#include "util/clock.h"

#define THREADS 8
#define TABLES	2
#define BYTES	4
#define RUN_NS	(2 * ICM_NS_PER_S)

static struct icm_lock_set *set;
static struct icm_lock_table *tables[TABLES];
static atomic_int readers[TABLES][BYTES], writers[TABLES][BYTES];
static int plain[TABLES][BYTES]; /* written under write locks only: a race if they fail */
static atomic_ulong granted, waited, cancelled;

struct answer {
	pthread_mutex_t mutex;
	pthread_cond_t cond;
	bool done;
	int result;
};

static void on_done(void *userdata, int result)
{
	struct answer *a = userdata;

	pthread_mutex_lock(&a->mutex);
	assert(!a->done);
	a->done = true;
	a->result = result;
	pthread_cond_signal(&a->cond);
	pthread_mutex_unlock(&a->mutex);
}

static int wait_answer(struct answer *a)
{
	pthread_mutex_lock(&a->mutex);
	while (!a->done)
		pthread_cond_wait(&a->cond, &a->mutex);
	pthread_mutex_unlock(&a->mutex);
	return a->result;
}

static void work_alone(unsigned t, unsigned from, unsigned to)
{
	for (unsigned i = from; i <= to; i++) {
		assert(atomic_fetch_add(&writers[t][i], 1) == 0);
		assert(atomic_load(&readers[t][i]) == 0);
		plain[t][i]++;
	}
	for (unsigned i = from; i <= to; i++)
		atomic_fetch_sub(&writers[t][i], 1);
}

static void work_shared(unsigned t, unsigned from, unsigned to)
{
	for (unsigned i = from; i <= to; i++) {
		atomic_fetch_add(&readers[t][i], 1);
		assert(atomic_load(&writers[t][i]) == 0);
		assert(plain[t][i] >= 0);
	}
	for (unsigned i = from; i <= to; i++)
		atomic_fetch_sub(&readers[t][i], 1);
}

/* One lock, some work under it, and one of the ways to end it. */
static void one_turn(unsigned self, unsigned *seed)
{
	unsigned t = (unsigned)rand_r(seed) % TABLES;
	unsigned from = (unsigned)rand_r(seed) % BYTES;
	unsigned to = from + (unsigned)rand_r(seed) % (BYTES - from);
	bool flock = rand_r(seed) % 3 == 0;
	struct answer a = { PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, false, 0 };
	struct icm_lock_request req = {
		.flock = flock,
		.type = rand_r(seed) % 2 ? F_WRLCK : F_RDLCK,
		.start = from,
		.end = to,
		.owner = self,
		.pid = (pid_t)self,
		.wait = rand_r(seed) % 4,
	};
	struct icm_lock_wait *wait;
	int r = icm_lock_table_set(tables[t], self, &req, on_done, &a, &wait);

	if (r == -EINPROGRESS) {
		atomic_fetch_add(&waited, 1);
		if (rand_r(seed) % 3 == 0 && icm_lock_cancel(set, wait)) {
			atomic_fetch_add(&cancelled, 1);
			r = -EINTR;
		} else {
			r = wait_answer(&a);
			assert(!icm_lock_cancel(set, wait));
		}
	}
	assert(r == 0 || r == -EAGAIN || r == -EINTR || r == -EDEADLK);
	if (r == 0) {
		atomic_fetch_add(&granted, 1);
		if (!flock && req.type == F_WRLCK)
			work_alone(t, from, to);
		else if (!flock)
			work_shared(t, from, to);
		req.type = F_UNLCK;
		if (flock || rand_r(seed) % 2)
			assert(icm_lock_table_set(tables[t], self, &req, on_done, &a, &wait) == 0);
		else
			assert(icm_lock_table_flush(tables[t], self));
	}
	pthread_mutex_destroy(&a.mutex);
	pthread_cond_destroy(&a.cond);
}

static void *work(void *arg)
{
	unsigned self = (unsigned)(uintptr_t)arg, seed = self;
	int64_t end = icm_now_ns() + RUN_NS;

	while (icm_now_ns() < end)
		one_turn(self, &seed);
	for (unsigned t = 0; t < TABLES; t++)
		icm_lock_table_release(tables[t], self);
	return NULL;
}

static void ignore_info(void *userdata, const struct icm_lock_info *info)
{
	(void)userdata;
	assert(info->start <= info->end);
}

static void *look(void *arg)
{
	int64_t end = icm_now_ns() + RUN_NS;

	(void)arg;
	for (unsigned i = 0; icm_now_ns() < end; i++) {
		struct icm_lock_request req = { .type = F_WRLCK, .end = BYTES, .owner = 99 };
		struct flock lk;

		icm_lock_table_list(tables[i % TABLES], ignore_info, NULL);
		icm_lock_table_get(tables[i % TABLES], 99, &req, &lk);
	}
	return NULL;
}

int main(void)
{
	pthread_t threads[THREADS + 1];

	set = icm_lock_set_new();
	for (unsigned t = 0; t < TABLES; t++)
		tables[t] = icm_lock_table_new(set);
	for (unsigned i = 0; i < THREADS; i++)
		assert(!pthread_create(&threads[i], NULL, work, (void *)(uintptr_t)(i + 1)));
	assert(!pthread_create(&threads[THREADS], NULL, look, NULL));
	for (unsigned i = 0; i <= THREADS; i++)
		pthread_join(threads[i], NULL);
	for (unsigned t = 0; t < TABLES; t++) {
		assert(icm_lock_table_empty(tables[t]));
		icm_lock_table_free(tables[t]);
	}
	icm_lock_set_free(set);
	printf("%lu granted, %lu waited, %lu cancelled\n", granted, waited, cancelled);
	return 0;
}
