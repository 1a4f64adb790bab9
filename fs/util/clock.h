/* SPDX-License-Identifier: MIT
 * Clocks as int64_t nanoseconds. */
#ifndef ICM_UTIL_CLOCK_H
#define ICM_UTIL_CLOCK_H

#include <stdint.h>
#include <time.h>

#define ICM_NS_PER_S  INT64_C(1000000000)
#define ICM_NS_PER_MS INT64_C(1000000)

static inline int64_t icm_clock_ns(clockid_t id)
{
	struct timespec ts;

	clock_gettime(id, &ts);
	return (int64_t)ts.tv_sec * ICM_NS_PER_S + ts.tv_nsec;
}

/* For deadlines of requests and waits. */
static inline int64_t icm_now_ns(void)
{
	return icm_clock_ns(CLOCK_MONOTONIC);
}

/* Goes on while the machine sleeps: for the age of leases. */
static inline int64_t icm_boottime_ns(void)
{
	return icm_clock_ns(CLOCK_BOOTTIME);
}

/* Wall clock: for time stamps of files and records. */
static inline struct timespec icm_wall_time(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_REALTIME, &ts);
	return ts;
}

static inline struct timespec icm_ns_to_timespec(int64_t ns)
{
	return (struct timespec){ .tv_sec = ns / ICM_NS_PER_S, .tv_nsec = ns % ICM_NS_PER_S };
}

/* -1, 0, 1 as a is before, at, after b. */
static inline int icm_timespec_cmp(struct timespec a, struct timespec b)
{
	if (a.tv_sec != b.tv_sec)
		return a.tv_sec < b.tv_sec ? -1 : 1;
	return (a.tv_nsec > b.tv_nsec) - (a.tv_nsec < b.tv_nsec);
}

#endif
