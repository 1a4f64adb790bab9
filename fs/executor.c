/* SPDX-License-Identifier: MIT */
#include "executor.h"

#include <pthread.h>
#include <signal.h>
#include <stdbool.h>

#include "util/buf.h"
#include "util/clock.h"

/* Enough for SQLite and for the recursion of a JSON parser. */
#define STACK_BYTES (1 << 20)

struct icm_executor {
	const char *name;
	unsigned max_threads;
	int64_t idle_ns;
	pthread_mutex_t lock; /* protects everything below */
	pthread_cond_t work;  /* for the threads */
	pthread_cond_t ended; /* a thread has ended */
	struct icm_task *first, **last;
	unsigned n_queued;
	unsigned n_threads;
	unsigned n_idle; /* threads that wait for work */
	bool draining;
};

int icm_thread_start(pthread_t *ret, void *(*fn)(void *arg), void *arg)
{
	sigset_t all, old;
	pthread_attr_t attr;
	int err;

	pthread_attr_init(&attr);
	pthread_attr_setstacksize(&attr, STACK_BYTES);
	/* a new thread inherits the mask: signals are for the main thread only */
	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, &old);
	err = pthread_create(ret, &attr, fn, arg);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	pthread_attr_destroy(&attr);
	return -err;
}

struct icm_executor *icm_executor_new(const char *name, unsigned max_threads, uint32_t idle_ms)
{
	struct icm_executor *e = icm_xcalloc(1, sizeof(*e));
	pthread_condattr_t attr;

	e->name = name;
	e->max_threads = max_threads;
	e->idle_ns = idle_ms * ICM_NS_PER_MS;
	e->last = &e->first;
	pthread_mutex_init(&e->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&e->work, &attr);
	pthread_cond_init(&e->ended, &attr);
	pthread_condattr_destroy(&attr);
	return e;
}

static struct icm_task *take_locked(struct icm_executor *e)
{
	struct icm_task *task = e->first;

	e->first = task->next;
	if (!e->first)
		e->last = &e->first;
	e->n_queued--;
	return task;
}

/* False when there has been nothing to do for the idle time and another thread
 * is left, or when there will never be anything. */
static bool wait_locked(struct icm_executor *e)
{
	struct timespec until = icm_ns_to_timespec(icm_now_ns() + e->idle_ns);

	e->n_idle++;
	while (!e->first && !e->draining) {
		if (e->n_threads == 1)
			pthread_cond_wait(&e->work, &e->lock);
		else if (pthread_cond_timedwait(&e->work, &e->lock, &until))
			break;
	}
	e->n_idle--;
	return e->first;
}

static void *work(void *arg)
{
	struct icm_executor *e = arg;

	pthread_setname_np(pthread_self(), e->name);
	pthread_mutex_lock(&e->lock);
	while (e->first || wait_locked(e)) {
		struct icm_task *task = take_locked(e);

		pthread_mutex_unlock(&e->lock);
		task->run(task);
		pthread_mutex_lock(&e->lock);
	}
	e->n_threads--;
	pthread_cond_broadcast(&e->ended);
	pthread_mutex_unlock(&e->lock);
	return NULL;
}

static int add_thread_locked(struct icm_executor *e)
{
	pthread_t thread;
	int err = icm_thread_start(&thread, work, e);

	if (err)
		return err;
	pthread_detach(thread);
	e->n_threads++;
	return 0;
}

int icm_executor_start(struct icm_executor *e)
{
	ICM_LOCK_SCOPE(&e->lock);

	return add_thread_locked(e);
}

void icm_executor_submit(struct icm_executor *e, struct icm_task *task)
{
	ICM_LOCK_SCOPE(&e->lock);

	task->next = NULL;
	*e->last = task;
	e->last = &task->next;
	e->n_queued++;
	/* when no thread can be made the first one does it */
	if (e->n_queued > e->n_idle && e->n_threads < e->max_threads)
		(void)!add_thread_locked(e);
	pthread_cond_signal(&e->work);
}

void icm_executor_drain(struct icm_executor *e)
{
	ICM_LOCK_SCOPE(&e->lock);

	e->draining = true;
	pthread_cond_broadcast(&e->work);
	while (e->n_threads > 0)
		pthread_cond_wait(&e->ended, &e->lock);
	e->draining = false;
}

struct icm_executor *icm_executor_free(struct icm_executor *e)
{
	if (!e)
		return NULL;
	icm_executor_drain(e);
	pthread_cond_destroy(&e->ended);
	pthread_cond_destroy(&e->work);
	pthread_mutex_destroy(&e->lock);
	free(e);
	return NULL;
}
