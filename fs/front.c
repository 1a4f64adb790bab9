/* SPDX-License-Identifier: MIT */
#include "front.h"

#include "events.h"
#include "executor.h"
#include "fuse-notify.h"
#include "known.h"
#include "request.h"
#include "util/buf.h"

/* A burst is often followed by another one. */
#define IDLE_MS 180000

static const struct {
	const char *name;
	unsigned max_threads;
} lanes[ICM_N_LANES] = {
	[ICM_LANE_IO] = { "icmfs-io", 64 },
	[ICM_LANE_STORE] = { "icmfs-store", 64 },
	[ICM_LANE_RELEASE] = { "icmfs-release", 32 },
};

struct icm_front *icm_front_new(struct icm_volume *vol)
{
	struct icm_front *front = icm_xcalloc(1, sizeof(*front));

	front->vol = vol;
	front->local = icm_volume_is_local(vol);
	front->known = icm_known_new();
	front->watch = icm_watch_new();
	front->notifier = icm_notifier_new(front);
	for (int i = 0; i < ICM_N_LANES; i++)
		front->lanes[i] = icm_executor_new(lanes[i].name, lanes[i].max_threads, IDLE_MS);
	pthread_rwlock_init(&front->live_lock, NULL);
	return front;
}

int icm_front_start(struct icm_front *front)
{
	int err = icm_watch_start(front->watch);

	if (!err)
		err = icm_notifier_start(front->notifier);
	for (int i = 0; i < ICM_N_LANES && !err; i++)
		err = icm_executor_start(front->lanes[i]);
	return err;
}

void icm_front_stop(struct icm_front *front)
{
	if (front->events)
		icm_events_stop(front->events);
	icm_notifier_stop(front->notifier);
	/* in this order: what waits may end with a last close */
	for (int i = 0; i < ICM_N_LANES; i++)
		icm_executor_drain(front->lanes[i]);
	icm_watch_stop(front->watch);
	pthread_rwlock_wrlock(&front->live_lock);
	front->live = false;
	pthread_rwlock_unlock(&front->live_lock);
}

struct icm_front *icm_front_free(struct icm_front *front)
{
	if (!front)
		return NULL;
	icm_events_free(front->events);
	icm_notifier_free(front->notifier);
	for (int i = 0; i < ICM_N_LANES; i++)
		icm_executor_free(front->lanes[i]);
	icm_watch_free(front->watch);
	icm_known_free(front->known);
	pthread_rwlock_destroy(&front->live_lock);
	free(front);
	return NULL;
}
