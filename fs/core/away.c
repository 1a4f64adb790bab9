/* SPDX-License-Identifier: MIT
 * Whether the store answers, and how long calls wait for it.
 *
 * A call waits for the mount's timeout. Once the store is known not to answer, that
 * time counts from when it went away, so that a store which is back in time is
 * waited for by all, and one that stays away is not waited for by each: from then on
 * a call has only the time that a store takes which is well. */
#include "core/shared.h"
#include "util/clock.h"
#include "util/log.h"

#define QUICK_NS ICM_NS_PER_S

static int64_t timeout_ns(const struct icm_volume *vol)
{
	return (int64_t)vol->timeout_ms * ICM_NS_PER_MS;
}

struct icm_ctx icm_volume_ctx(struct icm_volume *vol)
{
	int64_t now = icm_now_ns(), away = atomic_load(&vol->away_ns);
	int64_t deadline = now + timeout_ns(vol), most;

	if (away) {
		most = away + timeout_ns(vol);
		if (most < now + QUICK_NS)
			most = now + QUICK_NS;
		if (deadline > most)
			deadline = most;
	}
	return (struct icm_ctx){ .deadline_ns = deadline };
}

static void set(struct icm_volume *vol, bool reachable, int64_t since)
{
	long long none = 0;
	ICM_LOCK_SCOPE(&vol->lock);

	if (reachable)
		atomic_store(&vol->away_ns, 0);
	else
		atomic_compare_exchange_strong(&vol->away_ns, &none, since);
	if (vol->reachable != reachable)
		icm_log_warning(reachable ? "the store '%s' answers again"
					  : "the store '%s' does not answer, trying on; what is "
					    "shown may be stale",
				vol->be->url);
	vol->reachable = reachable;
	vol->stale |= !reachable;
}

void icm_volume_set_reachable(struct icm_volume *vol, bool reachable)
{
	set(vol, reachable, icm_now_ns());
}

void icm_volume_be_patient(struct icm_volume *vol)
{
	atomic_store(&vol->away_ns, 0);
}

bool icm_volume_is_given_up(const struct icm_volume *vol)
{
	int64_t away = atomic_load(&vol->away_ns);

	return !vol->be->facts.local && away && icm_now_ns() >= away + timeout_ns(vol);
}

int icm_volume_heard(struct icm_volume *vol, int r)
{
	bool away = icm_error_is_away(r), was_away = atomic_load(&vol->away_ns) != 0;

	/* a local store that is busy is no store that is away */
	if (!vol->be->facts.local && away != was_away)
		set(vol, !away, icm_now_ns() - timeout_ns(vol));
	return r;
}
