/* SPDX-License-Identifier: MIT
 * Lock calls, waits, interrupts and closes on two mounts of one store from many
 * threads at once, for ThreadSanitizer; and exclusion seen from outside: who has a
 * write lock is alone with its bytes. */
#undef NDEBUG
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "core/fs.h"
#include "core/introspect.h"
#include "core/volume.h"
#include "util/clock.h"

#define MOUNTS	2
#define THREADS 6
#define BYTES	4
#define RUN_NS	(3 * ICM_NS_PER_S)

static const struct icm_call call = { .pid = 0 };
static struct icm_volume *vols[MOUNTS];
static atomic_int readers[BYTES], writers[BYTES];
static int plain[BYTES]; /* written under write locks only: a race if they fail */
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

static void work_under(int type, unsigned from, unsigned to)
{
	for (unsigned i = from; i <= to; i++) {
		if (type == F_WRLCK) {
			assert(atomic_fetch_add(&writers[i], 1) == 0);
			assert(atomic_load(&readers[i]) == 0);
			plain[i]++;
		} else {
			atomic_fetch_add(&readers[i], 1);
			assert(atomic_load(&writers[i]) == 0);
			assert(plain[i] >= 0);
		}
	}
	for (unsigned i = from; i <= to; i++)
		atomic_fetch_sub(type == F_WRLCK ? &writers[i] : &readers[i], 1);
}

static struct icm_handle *open_file(struct icm_volume *vol, struct icm_view **view)
{
	struct icm_open_result res;
	struct stat st;

	assert(icm_fs_lookup(icm_fs_root(vol), &call, "file", view, &st) == 0);
	assert(icm_fs_open(*view, &call, O_RDWR, &res) == 0);
	return res.handle;
}

static int take(struct icm_volume *vol, struct icm_handle *h, const struct icm_lock_request *req,
		bool interrupt)
{
	struct answer a = { PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, false, 0 };
	struct icm_lock_wait *wait = NULL;
	int r = icm_fs_lock(h, &call, req, on_done, &a, &wait);

	if (r == -EINPROGRESS) {
		atomic_fetch_add(&waited, 1);
		if (interrupt && icm_fs_lock_cancel(vol, wait)) {
			atomic_fetch_add(&cancelled, 1);
			r = -EINTR;
		} else {
			r = wait_answer(&a);
		}
	}
	pthread_mutex_destroy(&a.mutex);
	pthread_cond_destroy(&a.cond);
	return r;
}

/* One lock, some work under it, and one of the ways to end it. */
static void one_turn(struct icm_volume *vol, unsigned self, unsigned *seed)
{
	struct icm_view *view;
	struct icm_handle *h = open_file(vol, &view);
	unsigned from = (unsigned)rand_r(seed) % BYTES;
	unsigned to = from + (unsigned)rand_r(seed) % (BYTES - from);
	struct icm_lock_request req = {
		.flock = rand_r(seed) % 3 == 0,
		.type = rand_r(seed) % 2 ? F_WRLCK : F_RDLCK,
		.start = from,
		.end = to,
		.owner = self,
		.wait = rand_r(seed) % 4,
	};
	int r = take(vol, h, &req, rand_r(seed) % 3 == 0);

	assert(r == 0 || r == -EAGAIN || r == -EINTR || r == -EDEADLK);
	if (r == 0) {
		atomic_fetch_add(&granted, 1);
		if (!req.flock)
			work_under(req.type, from, to);
		req.type = F_UNLCK;
		if (rand_r(seed) % 3 == 0)
			assert(icm_fs_lock(h, &call, &req, NULL, NULL, NULL) == 0);
	}
	assert(icm_fs_flush(h, &call, self) == 0);
	icm_fs_release(h);
	icm_fs_forget(view, 1);
}

static void *work(void *arg)
{
	unsigned self = (unsigned)(uintptr_t)arg, seed = self;
	int64_t end = icm_now_ns() + RUN_NS;

	while (icm_now_ns() < end)
		one_turn(vols[self % MOUNTS], self, &seed);
	return NULL;
}

static void ignore(void *userdata, const struct icm_volume_lock *lock)
{
	(void)userdata;
	assert(lock->info.start <= lock->info.end);
}

static void *look(void *arg)
{
	int64_t end = icm_now_ns() + RUN_NS;
	const struct icm_lock_request req = { .type = F_WRLCK, .end = BYTES, .owner = 99 };

	(void)arg;
	for (unsigned i = 0; icm_now_ns() < end; i++) {
		struct icm_view *view;
		struct icm_handle *h = open_file(vols[i % MOUNTS], &view);
		struct flock lk;

		icm_volume_list_locks(vols[i % MOUNTS], i & 2, ignore, NULL);
		assert(icm_fs_getlk(h, &call, &req, &lk) == 0);
		icm_fs_release(h);
		icm_fs_forget(view, 1);
	}
	return NULL;
}

static void make_file(struct icm_volume *vol)
{
	struct icm_open_result res;
	struct icm_view *view;
	struct stat st;

	assert(icm_fs_create(icm_fs_root(vol), &call, "file", 0644, O_RDWR | O_EXCL, &view, &st,
			     &res) == 0);
	icm_fs_release(res.handle);
	icm_fs_forget(view, 1);
}

int main(void)
{
	pthread_t threads[THREADS + 1];

	for (unsigned i = 0; i < MOUNTS; i++) {
		const struct icm_volume_config config = { .url = "memory:race-locks",
							  .create = true,
							  .timeout_ms = 20000 };

		assert(icm_volume_open(&config, &vols[i], NULL) == 0);
		assert(icm_volume_start(vols[i], NULL, NULL, NULL) == 0);
	}
	make_file(vols[0]);
	for (unsigned i = 0; i < THREADS; i++)
		assert(!pthread_create(&threads[i], NULL, work, (void *)(uintptr_t)(i + 1)));
	assert(!pthread_create(&threads[THREADS], NULL, look, NULL));
	for (unsigned i = 0; i <= THREADS; i++)
		pthread_join(threads[i], NULL);
	for (unsigned i = MOUNTS; i-- > 0;) {
		icm_volume_stop(vols[i]);
		icm_volume_free(vols[i]);
	}
	printf("%lu granted, %lu waited, %lu cancelled\n", granted, waited, cancelled);
	return 0;
}
