/* SPDX-License-Identifier: MIT */
#include "core/lease.h"

#include <string.h>
#include <unistd.h>

#include "util/clock.h"
#include "util/log.h"

struct icm_lease_keeper {
	pthread_mutex_t renewing; /* one opening or settling at a time; held over store calls */
	pthread_mutex_t lock;	  /* the fields below */
	pthread_cond_t stop_cond;
	struct icm_lease lease; /* key NULL: none */
	uint64_t index;		/* of the key, as this mount last knew */
	uint64_t counter;
	int64_t acked_ns; /* CLOCK_BOOTTIME when the last acknowledged renewal was sent */
	bool over;	  /* one TTL after that: the store may have let others in */
	bool stop, threaded;
	pthread_t thread;
};

struct icm_lease_keeper *icm_lease_keeper_new(struct icm_volume *vol)
{
	struct icm_lease_keeper *k = icm_xcalloc(1, sizeof(*k));
	pthread_condattr_t attr;

	(void)vol;
	pthread_mutex_init(&k->renewing, NULL);
	pthread_mutex_init(&k->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&k->stop_cond, &attr);
	pthread_condattr_destroy(&attr);
	return k;
}

struct icm_lease_keeper *icm_lease_keeper_free(struct icm_lease_keeper *k)
{
	if (!k)
		return NULL;
	icm_lease_clear(&k->lease);
	pthread_cond_destroy(&k->stop_cond);
	pthread_mutex_destroy(&k->lock);
	pthread_mutex_destroy(&k->renewing);
	free(k);
	return NULL;
}

/* The lease's value; a fresh id makes each rewrite move the key's index. */
static char *lease_value(struct icm_volume *vol, uint64_t counter, size_t *ret_len)
{
	struct icm_lease_value v = {
		.host = vol->host,
		.boot_id = vol->boot_id,
		.pid = (uint64_t)getpid(),
		.user = vol->user,
		.mountpoint = vol->mountpoint ? vol->mountpoint : (char *)"",
		.since = icm_wall_time(),
		.counter = counter,
	};

	icm_random_id(v.id);
	return icm_lease_value_encode(&v, ret_len);
}

/* Opens a lease in place of none; renewing held. */
static int open_lease(struct icm_volume *vol)
{
	struct icm_lease_keeper *k = vol->lease;
	struct icm_ctx ctx = icm_volume_ctx(vol);
	struct icm_lease lease = { 0 };
	int64_t sent = icm_boottime_ns();
	size_t len;
	ICM_AUTOFREE char *value = lease_value(vol, 0, &len);
	int r = icm_backend_lease_open(vol->be, &ctx, vol->ttl_ms, value, len, &lease);

	if (r < 0)
		return r;
	pthread_mutex_lock(&k->lock);
	icm_lease_clear(&k->lease);
	k->lease = lease;
	k->index = lease.index;
	k->counter = 0;
	k->acked_ns = sent;
	k->over = false;
	pthread_mutex_unlock(&k->lock);
	return 0;
}

int icm_lease_guard(struct icm_volume *vol, char **ret_key, uint64_t *ret_index)
{
	struct icm_lease_keeper *k = vol->lease;
	ICM_LOCK_SCOPE(&k->lock);

	if (!k->lease.key)
		return -EIO;
	if (k->over)
		return -EHOSTUNREACH; /* the renewal replaces it as soon as the store answers */
	*ret_key = icm_xstrdup(k->lease.key);
	*ret_index = k->index;
	return 0;
}

static void lose_locks(struct icm_volume *vol)
{
	icm_log_warning("the lease of this mount is over; locks held through it are lost");
	icm_volume_note_error(vol, "", "the lease was lost, and locks with it");
	icm_locks_lost(vol);
}

/* The lease is over: whatever was locked under it is lost, the rest goes on
 * with a new one. In this order: a commit that finds the new lease finds the
 * locks lost as well. renewing held. */
static int replace_lease(struct icm_volume *vol)
{
	lose_locks(vol);
	return open_lease(vol);
}

int icm_lease_recheck(struct icm_volume *vol, uint64_t index)
{
	struct icm_lease_keeper *k = vol->lease;
	struct icm_ctx ctx = icm_volume_ctx(vol);
	ICM_AUTOENTRY struct icm_entry e = { 0 };
	ICM_AUTOFREE char *key = NULL;
	uint64_t known;
	int r;
	ICM_LOCK_SCOPE(&k->renewing);

	r = icm_lease_guard(vol, &key, &known);
	if (r < 0 || known != index)
		return r; /* somebody here has rewritten or replaced it meanwhile */
	ctx.consistent = true;
	r = icm_backend_get(vol->be, &ctx, key, &e);
	if (r == -ENOENT)
		return replace_lease(vol);
	if (r < 0)
		return r;
	pthread_mutex_lock(&k->lock);
	k->index = e.modify_index;
	pthread_mutex_unlock(&k->lock);
	return 0;
}

int icm_lease_settle(struct icm_volume *vol)
{
	struct icm_lease_keeper *k = vol->lease;
	struct icm_ctx ctx = icm_volume_ctx(vol);
	ICM_AUTOENTRY struct icm_entry e = { 0 };
	ICM_AUTORESULT struct icm_txn_result res = { 0 };
	ICM_AUTOFREE char *key = NULL;
	ICM_AUTOFREE char *value = NULL;
	struct icm_op op = { .type = ICM_OP_CAS };
	uint64_t index;
	int r;
	ICM_LOCK_SCOPE(&k->renewing);

	r = icm_lease_guard(vol, &key, &index);
	if (r < 0)
		return r;
	pthread_mutex_lock(&k->lock);
	value = lease_value(vol, ++k->counter, &op.len);
	pthread_mutex_unlock(&k->lock);
	op.key = key;
	op.value = value;
	op.index = index;
	r = icm_backend_txn(vol->be, &ctx, &op, 1, &res);
	if (r == 0) {
		index = res.index;
	} else if (r == -ESTALE || r == -ETIMEDOUT) {
		/* what the key says now decides: another index, or absence, means
		 * that nothing guarded by the old one can be applied any more */
		ctx = icm_volume_ctx(vol);
		ctx.consistent = true;
		r = icm_backend_get(vol->be, &ctx, key, &e);
		if (r == -ENOENT)
			return replace_lease(vol);
		if (r < 0)
			return r;
		if (e.modify_index == index)
			return -ETIMEDOUT; /* not yet: the caller tries again */
		index = e.modify_index;
	} else {
		return r;
	}
	pthread_mutex_lock(&k->lock);
	k->index = index;
	pthread_mutex_unlock(&k->lock);
	return 0;
}

static int64_t ttl_ns(const struct icm_lease_keeper *k)
{
	return (int64_t)k->lease.ttl_ms * ICM_NS_PER_MS;
}

/* A renewal that isn't answered soon is sent anew: it has a third of the TTL. */
static int renew(struct icm_volume *vol)
{
	struct icm_lease_keeper *k = vol->lease;
	struct icm_lease lease = { 0 };
	struct icm_ctx ctx = { 0 };
	int64_t sent = icm_boottime_ns();
	bool over;
	int r;
	ICM_LOCK_SCOPE(&k->renewing);

	pthread_mutex_lock(&k->lock);
	ctx.deadline_ns = icm_now_ns() + ttl_ns(k) / 3;
	over = k->over;
	if (k->lease.key)
		lease = (struct icm_lease){ icm_xstrdup(k->lease.key), k->lease.index,
					    k->lease.ttl_ms };
	pthread_mutex_unlock(&k->lock);
	if (over) {
		/* what it had claimed goes with it */
		r = icm_backend_lease_close(vol->be, &ctx, &lease);
		if (r == 0)
			r = open_lease(vol);
	} else {
		r = lease.key ? icm_backend_lease_renew(vol->be, &ctx, &lease) : -ENOENT;
		if (r == -ENOENT)
			r = replace_lease(vol);
		pthread_mutex_lock(&k->lock);
		if (r == 0 && k->acked_ns < sent)
			k->acked_ns = sent;
		pthread_mutex_unlock(&k->lock);
	}
	icm_lease_clear(&lease);
	return r;
}

/* The mount's own clock says that the lease may have ended: nothing is to be
 * believed of its locks from now on, whatever the store still thinks. */
static void expire(struct icm_volume *vol)
{
	struct icm_lease_keeper *k = vol->lease;

	pthread_mutex_lock(&k->lock);
	k->over = true;
	pthread_mutex_unlock(&k->lock);
	lose_locks(vol);
}

/* Until a time of CLOCK_BOOTTIME, or stop; lock held. A machine that slept finds
 * itself late, not early. */
static void sleep_until_locked(struct icm_lease_keeper *k, int64_t boottime_ns)
{
	int64_t left = boottime_ns - icm_boottime_ns();
	struct timespec until = icm_ns_to_timespec(icm_now_ns() + (left > 0 ? left : 0));

	pthread_cond_timedwait(&k->stop_cond, &k->lock, &until);
}

static void *renew_thread(void *arg)
{
	struct icm_volume *vol = arg;
	struct icm_lease_keeper *k = vol->lease;
	int64_t due;

	pthread_mutex_lock(&k->lock);
	due = k->acked_ns + ttl_ns(k) / 3;
	while (!k->stop) {
		int64_t now = icm_boottime_ns(), end = k->acked_ns + ttl_ns(k);
		bool over = !k->over && now >= end;
		int r;

		if (!over && now < due) {
			sleep_until_locked(k, k->over || due < end ? due : end);
			continue;
		}
		pthread_mutex_unlock(&k->lock);
		if (over)
			expire(vol);
		r = renew(vol);
		pthread_mutex_lock(&k->lock);
		due = icm_boottime_ns() + ttl_ns(k) / (r == 0 ? 3 : 20);
	}
	pthread_mutex_unlock(&k->lock);
	return NULL;
}

/* A lease of which nobody heard ends by itself: so another one is asked for where
 * the answer was lost. */
static int open_first(struct icm_volume *vol)
{
	const struct timespec pause = { .tv_nsec = 100 * ICM_NS_PER_MS };
	struct icm_ctx ctx = icm_volume_ctx(vol);
	int r = open_lease(vol);

	while ((r == -ETIMEDOUT || r == -EHOSTUNREACH) && icm_now_ns() < ctx.deadline_ns) {
		nanosleep(&pause, NULL);
		r = open_lease(vol);
	}
	return r;
}

int icm_lease_start(struct icm_volume *vol)
{
	struct icm_lease_keeper *k = vol->lease;
	int r;

	pthread_mutex_lock(&k->renewing);
	r = open_first(vol);
	pthread_mutex_unlock(&k->renewing);
	if (r < 0)
		return r;
	if (!vol->be->facts.lease_renewal)
		return 0;
	r = pthread_create(&k->thread, NULL, renew_thread, vol);
	k->threaded = r == 0;
	return -r;
}

void icm_lease_stop(struct icm_volume *vol)
{
	struct icm_lease_keeper *k = vol->lease;
	struct icm_ctx ctx = icm_volume_ctx(vol);

	pthread_mutex_lock(&k->lock);
	k->stop = true;
	pthread_cond_broadcast(&k->stop_cond);
	pthread_mutex_unlock(&k->lock);
	if (k->threaded)
		pthread_join(k->thread, NULL);
	k->threaded = false;
	if (k->lease.key)
		icm_backend_lease_close(vol->be, &ctx, &k->lease);
	pthread_mutex_lock(&k->lock);
	icm_lease_clear(&k->lease);
	pthread_mutex_unlock(&k->lock);
}

void icm_lease_facts(struct icm_volume *vol, char **ret_key, int64_t *ret_age_ms,
		     uint32_t *ret_ttl_ms)
{
	struct icm_lease_keeper *k = vol->lease;
	ICM_LOCK_SCOPE(&k->lock);

	*ret_key = k->lease.key ? icm_xstrdup(k->lease.key) : NULL;
	*ret_age_ms = (icm_boottime_ns() - k->acked_ns) / ICM_NS_PER_MS;
	*ret_ttl_ms = k->lease.ttl_ms;
}
