/* SPDX-License-Identifier: MIT */
#include "backends/memory/shared.h"

#include <string.h>

#include "util/clock.h"

static pthread_mutex_t registry_lock = PTHREAD_MUTEX_INITIALIZER;
static struct shared *registry; /* protected by registry_lock */

static struct shared *shared_new(const char *name)
{
	struct shared *s = icm_xcalloc(1, sizeof(*s));
	pthread_condattr_t attr;

	s->name = icm_xstrdup(name);
	pthread_mutex_init(&s->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&s->changed, &attr);
	pthread_condattr_destroy(&attr);
	store_init(&s->data);
	store_init(&s->saved);
	return s;
}

struct shared *shared_ref(const char *name)
{
	struct shared *s;

	ICM_LOCK_SCOPE(&registry_lock);
	for (s = registry; s && strcmp(s->name, name); s = s->next)
		;
	if (!s) {
		s = shared_new(name);
		s->next = registry;
		registry = s;
	}
	s->refs++;
	return s;
}

static void late_free(struct late *l)
{
	for (size_t i = 0; i < l->write.n_ops; i++) {
		free((char *)l->write.ops[i].key);
		free((void *)l->write.ops[i].value);
	}
	free((void *)l->write.ops);
	free((char *)l->write.key);
	free((void *)l->write.value);
	free(l);
}

static void shared_free(struct shared *s)
{
	struct late *l;

	if (s->late_running) {
		pthread_mutex_lock(&s->lock);
		s->late_stop = true;
		pthread_cond_broadcast(&s->changed);
		pthread_mutex_unlock(&s->lock);
		pthread_join(s->late_thread, NULL);
	}
	while ((l = s->late)) {
		s->late = l->next;
		late_free(l);
	}
	store_deinit(&s->data);
	store_deinit(&s->saved);
	pthread_cond_destroy(&s->changed);
	pthread_mutex_destroy(&s->lock);
	free(s->name);
	free(s);
}

void shared_unref(struct shared *s)
{
	pthread_mutex_lock(&registry_lock);
	if (--s->refs == 0) {
		struct shared **p = &registry;

		while (*p != s)
			p = &(*p)->next;
		*p = s->next;
	} else {
		s = NULL;
	}
	pthread_mutex_unlock(&registry_lock);
	if (s)
		shared_free(s);
}

bool shared_wait_locked(struct shared *s, int64_t until_ns)
{
	struct timespec ts = icm_ns_to_timespec(until_ns);

	if (!until_ns) {
		pthread_cond_wait(&s->changed, &s->lock);
		return true;
	}
	return pthread_cond_timedwait(&s->changed, &s->lock, &ts) != ETIMEDOUT;
}

int shared_write_locked(struct shared *s, const struct write *w, struct icm_txn_result *result)
{
	uint64_t before = s->data.index;
	int r = 0;

	store_lease_expire(&s->data);
	switch (w->type) {
	case WRITE_TXN:
		r = store_apply(&s->data, w->ops, w->n_ops, result);
		break;
	case WRITE_LEASE_OPEN:
		result->index =
			store_lease_open(&s->data, w->key, w->ttl_ms, w->renewal, w->value, w->len);
		break;
	case WRITE_LEASE_RENEW:
		r = store_lease_renew(&s->data, w->key);
		break;
	case WRITE_LEASE_CLOSE:
		store_lease_end(&s->data, w->key);
		break;
	}
	if (s->data.index != before)
		pthread_cond_broadcast(&s->changed);
	return r;
}

/* ---- late application ---- */

static void *late_main(void *userdata)
{
	struct shared *s = userdata;
	struct late *l;

	ICM_LOCK_SCOPE(&s->lock);
	while (!s->late_stop) {
		l = s->late;
		if (!l || l->due_ns > icm_now_ns()) {
			shared_wait_locked(s, l ? l->due_ns : 0);
			continue;
		}
		ICM_AUTORESULT struct icm_txn_result result = { 0 };

		shared_write_locked(s, &l->write, &result);
		s->late = l->next;
		late_free(l);
		pthread_cond_broadcast(&s->changed);
	}
	return NULL;
}

static const struct icm_op *copy_ops(const struct icm_op *ops, size_t n)
{
	struct icm_op *copy = icm_xmalloc(n * sizeof(*copy));

	for (size_t i = 0; i < n; i++) {
		copy[i] = ops[i];
		copy[i].key = icm_xstrdup(ops[i].key);
		copy[i].value = icm_xmemdup(ops[i].value, ops[i].len);
	}
	return copy;
}

void shared_write_late_locked(struct shared *s, const struct write *w, int64_t due_ns)
{
	struct late *l = icm_xcalloc(1, sizeof(*l)), **p = &s->late;

	l->write = *w;
	l->write.ops = w->n_ops ? copy_ops(w->ops, w->n_ops) : NULL;
	l->write.key = w->key ? icm_xstrdup(w->key) : NULL;
	l->write.value = w->value ? icm_xmemdup(w->value, w->len) : NULL;
	l->due_ns = due_ns;
	while (*p && (*p)->due_ns <= due_ns)
		p = &(*p)->next;
	l->next = *p;
	*p = l;
	/* Made when first needed: an instance is opened before the daemon forks. */
	if (!s->late_running)
		s->late_running = pthread_create(&s->late_thread, NULL, late_main, s) == 0;
	pthread_cond_broadcast(&s->changed);
}
