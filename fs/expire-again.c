/* SPDX-License-Identifier: MIT */
#include "expire-again.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>

#include "executor.h"
#include "util/buf.h"
#include "util/clock.h"
#include "util/map.h"

/* An answer that is older has been taken. */
#define ANSWER_NS (5 * ICM_NS_PER_S)
#define N_SLOTS	  4096

static const int64_t pauses_ns[] = {
	10 * ICM_NS_PER_MS,  40 * ICM_NS_PER_MS, 150 * ICM_NS_PER_MS,
	500 * ICM_NS_PER_MS, ICM_NS_PER_S,	 ANSWER_NS,
};

/* A name that has been expired. */
struct item {
	struct item *next;
	int64_t due_ns;
	size_t pause; /* index of the pause that ends then */
	uint64_t parent;
	char name[];
};

struct icm_expire_again {
	/* When a name with this hash was last answered about: names that share a
	 * slot are expired more often than needed. */
	_Atomic int64_t answered[N_SLOTS];
	void (*expire)(void *userdata, uint64_t parent, const char *name);
	void *userdata;
	pthread_t thread;
	pthread_mutex_t lock; /* protects what follows */
	pthread_cond_t changed;
	struct item *first; /* by due_ns */
	bool started, stopped;
};

struct icm_expire_again *icm_expire_again_new(void (*expire)(void *userdata, uint64_t parent,
							     const char *name),
					      void *userdata)
{
	struct icm_expire_again *a = icm_xcalloc(1, sizeof(*a));
	pthread_condattr_t attr;

	a->expire = expire;
	a->userdata = userdata;
	pthread_mutex_init(&a->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&a->changed, &attr);
	pthread_condattr_destroy(&attr);
	return a;
}

static void insert_locked(struct icm_expire_again *a, struct item *item)
{
	struct item **at = &a->first;

	item->due_ns = icm_now_ns() + pauses_ns[item->pause];
	while (*at && (*at)->due_ns <= item->due_ns)
		at = &(*at)->next;
	item->next = *at;
	*at = item;
}

static void wait_locked(struct icm_expire_again *a)
{
	struct timespec until;

	if (!a->first) {
		pthread_cond_wait(&a->changed, &a->lock);
		return;
	}
	until = icm_ns_to_timespec(a->first->due_ns);
	pthread_cond_timedwait(&a->changed, &a->lock, &until);
}

static void *repeat_thread(void *arg)
{
	struct icm_expire_again *a = arg;
	ICM_LOCK_SCOPE(&a->lock);

	while (!a->stopped) {
		struct item *item = a->first;

		if (!item || item->due_ns > icm_now_ns()) {
			wait_locked(a);
			continue;
		}
		a->first = item->next;
		pthread_mutex_unlock(&a->lock);
		a->expire(a->userdata, item->parent, item->name);
		pthread_mutex_lock(&a->lock);
		if (++item->pause < ICM_COUNT(pauses_ns))
			insert_locked(a, item);
		else
			free(item);
	}
	return NULL;
}

int icm_expire_again_start(struct icm_expire_again *a)
{
	int err = icm_thread_start(&a->thread, repeat_thread, a);

	a->started = err == 0;
	return err;
}

void icm_expire_again_stop(struct icm_expire_again *a)
{
	pthread_mutex_lock(&a->lock);
	a->stopped = true;
	pthread_cond_signal(&a->changed);
	pthread_mutex_unlock(&a->lock);
	if (a->started)
		pthread_join(a->thread, NULL);
	a->started = false;
}

struct icm_expire_again *icm_expire_again_free(struct icm_expire_again *a)
{
	if (!a)
		return NULL;
	icm_expire_again_stop(a);
	while (a->first) {
		struct item *item = a->first;

		a->first = item->next;
		free(item);
	}
	pthread_cond_destroy(&a->changed);
	pthread_mutex_destroy(&a->lock);
	free(a);
	return NULL;
}

static _Atomic int64_t *slot_of(struct icm_expire_again *a, uint64_t parent, const char *name)
{
	return &a->answered[icm_hash_bytes(name, strlen(name), parent) % N_SLOTS];
}

void icm_expire_again_answered(struct icm_expire_again *a, uint64_t parent, const char *name)
{
	atomic_store(slot_of(a, parent, name), icm_now_ns());
}

static bool is_queued_locked(const struct icm_expire_again *a, uint64_t parent, const char *name)
{
	for (const struct item *i = a->first; i; i = i->next)
		if (i->pause == 0 && i->parent == parent && !strcmp(i->name, name))
			return true;
	return false;
}

void icm_expire_again_expired(struct icm_expire_again *a, uint64_t parent, const char *name)
{
	int64_t answered = atomic_load(slot_of(a, parent, name));
	size_t len = strlen(name);
	struct item *item;

	if (!answered || answered < icm_now_ns() - ANSWER_NS)
		return;
	ICM_LOCK_SCOPE(&a->lock);
	if (a->stopped || is_queued_locked(a, parent, name))
		return;
	item = icm_xmalloc(sizeof(*item) + len + 1);
	item->pause = 0;
	item->parent = parent;
	memcpy(item->name, name, len + 1);
	insert_locked(a, item);
	pthread_cond_signal(&a->changed);
}
