/* SPDX-License-Identifier: MIT
 * Parts of the FUSE front that need no mount: the pool of threads, the table
 * of what the kernel knows, last closes, mount points. */
#include <criterion/criterion.h>
#include <errno.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "fs/closing.h"
#include "fs/executor.h"
#include "fs/expire-again.h"
#include "fs/known.h"
#include "fs/mount.h"
#include "fs/mountinfo.h"
#include "util/buf.h"
#include "util/clock.h"

/* ---- executor ---- */

struct job {
	struct icm_task task;
	useconds_t us;
};

static atomic_int done, running, most;

static void work(struct icm_task *task)
{
	struct job *j = ICM_CONTAINER(task, struct job, task);
	int now = atomic_fetch_add(&running, 1) + 1;
	int seen = atomic_load(&most);

	while (now > seen && !atomic_compare_exchange_weak(&most, &seen, now))
		;
	usleep(j->us);
	atomic_fetch_sub(&running, 1);
	atomic_fetch_add(&done, 1);
}

Test(executor, does_all_and_never_exceeds_its_threads)
{
	struct icm_executor *e = icm_executor_new("test", 4, 10);
	struct job jobs[200];

	cr_assert_eq(icm_executor_start(e), 0);
	for (size_t i = 0; i < ICM_COUNT(jobs); i++) {
		jobs[i] = (struct job){ .task.run = work, .us = 500 };
		icm_executor_submit(e, &jobs[i].task);
	}
	icm_executor_drain(e);
	cr_assert_eq(atomic_load(&done), 200);
	cr_assert_leq(atomic_load(&most), 4);
	cr_assert_gt(atomic_load(&most), 1);
	icm_executor_free(e);
}

Test(executor, one_that_waits_delays_no_other)
{
	struct icm_executor *e = icm_executor_new("test", 4, 10);
	struct job slow = { .task.run = work, .us = 300000 };
	struct job fast = { .task.run = work };
	int64_t start = icm_now_ns();

	cr_assert_eq(icm_executor_start(e), 0);
	icm_executor_submit(e, &slow.task);
	icm_executor_submit(e, &fast.task);
	while (atomic_load(&done) == 0)
		usleep(1000);
	cr_assert_lt(icm_now_ns() - start, 250 * ICM_NS_PER_MS);
	icm_executor_free(e);
	cr_assert_eq(atomic_load(&done), 2);
}

/* ---- what the kernel knows ---- */

static unsigned pins;

static void pin(void *userdata, uint64_t node)
{
	pins++;
}

Test(known, counts_look_ups)
{
	struct icm_known *k = icm_known_new();

	icm_known_add(k, 16, 1, "a");
	icm_known_add(k, 16, 1, "a");
	icm_known_sub(k, 16, 1);
	cr_assert(icm_known_has(k, 16));
	icm_known_sub(k, 16, 1);
	cr_assert_not(icm_known_has(k, 16));
	cr_assert_eq(icm_known_find(k, 1, "a", pin, NULL), 0);
	cr_assert_eq(pins, 0);
	icm_known_free(k);
}

Test(known, follows_names)
{
	struct icm_known *k = icm_known_new();

	icm_known_add(k, 16, 1, "a");
	icm_known_add(k, 16, 1, "second");
	icm_known_add(k, 32, 1, "b");
	icm_known_rename(k, 1, "a", 1, "b");
	cr_assert_eq(icm_known_find(k, 1, "b", pin, NULL), 16);
	cr_assert_eq(icm_known_find(k, 1, "a", pin, NULL), 0);
	cr_assert_eq(icm_known_find(k, 1, "second", pin, NULL), 16);
	cr_assert_eq(pins, 2);
	icm_known_unlink(k, 1, "b");
	cr_assert_eq(icm_known_find(k, 1, "b", pin, NULL), 0);
	/* another file under a name takes it over */
	icm_known_add(k, 48, 1, "second");
	cr_assert_eq(icm_known_find(k, 1, "second", pin, NULL), 48);
	cr_assert(icm_known_has(k, 16));
	icm_known_free(k);
}

static void count_node(void *userdata, uint64_t node)
{
	++*(unsigned *)userdata;
}

static void count_name(void *userdata, uint64_t parent, const char *name)
{
	*(unsigned *)userdata += 1000;
}

Test(known, walks_over_everything)
{
	struct icm_known *k = icm_known_new();
	unsigned n = 0;

	for (uint64_t i = 1; i <= 100; i++) {
		ICM_AUTOFREE char *name = icm_asprintf("n%d", (int)i);

		icm_known_add(k, i * 16, 1, name);
	}
	icm_known_walk(k, count_node, count_name, &n);
	cr_assert_eq(n, 100100);
	n = 0;
	icm_known_walk(k, count_node, NULL, &n);
	cr_assert_eq(n, 100);
	icm_known_free(k);
}

/* ---- names that are expired again ---- */

static atomic_int expired_answered, expired_other;

static void count_expired(void *userdata, uint64_t parent, const char *name)
{
	bool answered = parent == 7 && strcmp(name, "answered") == 0;

	atomic_fetch_add(answered ? &expired_answered : &expired_other, 1);
}

Test(expire_again, only_what_was_answered_a_moment_ago, .timeout = 60)
{
	struct icm_expire_again *a = icm_expire_again_new(count_expired, NULL);

	cr_assert_eq(icm_expire_again_start(a), 0);
	icm_expire_again_answered(a, 7, "answered");
	icm_expire_again_expired(a, 7, "other");
	icm_expire_again_expired(a, 8, "answered");
	icm_expire_again_expired(a, 7, "answered");
	icm_expire_again_expired(a, 7, "answered");
	/* after growing pauses, so more than once */
	while (atomic_load(&expired_answered) < 3)
		usleep(1000);
	icm_expire_again_stop(a);
	icm_expire_again_expired(a, 7, "answered");
	icm_expire_again_free(a);
	cr_assert_eq(atomic_load(&expired_other), 0);
}

/* ---- last closes ---- */

static void *end_later(void *arg)
{
	usleep(50000);
	icm_closing_end(arg);
	return NULL;
}

Test(closing, is_waited_for)
{
	struct icm_closing c;
	pthread_t thread;
	int64_t start = icm_now_ns();

	cr_assert_not(icm_closing_wait(5));
	icm_closing_begin(&c, 0x1000, 5);
	cr_assert_not(icm_closing_wait(6));
	cr_assert_eq(icm_thread_start(&thread, end_later, &c), 0);
	cr_assert(icm_closing_wait(5));
	cr_assert_geq(icm_now_ns() - start, 40 * ICM_NS_PER_MS);
	pthread_join(thread, NULL);
}

Test(closing, is_expected_for_a_moment_only)
{
	int64_t start = icm_now_ns();

	icm_closing_expect(0x1000, 5);
	cr_assert(icm_closing_wait(5));
	cr_assert_lt(icm_now_ns() - start, ICM_NS_PER_S);
	cr_assert_not(icm_closing_wait(5));
}

/* ---- mount points ---- */

Test(mountpoint, becomes_what_the_kernel_says)
{
	char dir[] = "/tmp/icmfs-test-front.XXXXXX";
	ICM_AUTOFREE char *link = NULL;
	ICM_AUTOFREE char *path = NULL;

	cr_assert(mkdtemp(dir));
	link = icm_asprintf("%s/link", dir);
	cr_assert_eq(symlink("/proc", link), 0);
	path = icm_mountpoint_path(link);
	cr_assert_str_eq(path, "/proc");
	free(path);
	path = icm_mountpoint_path("//proc//");
	cr_assert_str_eq(path, "/proc");
	free(path);
	path = icm_mountpoint_path("/proc/../proc/.");
	cr_assert_str_eq(path, "/proc");
	free(path);
	path = icm_mountpoint_path("/");
	cr_assert_str_eq(path, "/");
	free(path);
	path = NULL;
	cr_assert_null(icm_mountpoint_path("/nonexistent/x"));
	unlink(link);
	rmdir(dir);
}

Test(mountinfo, finds_what_is_mounted_exactly_there)
{
	struct icm_mountinfo m = { 0 };

	cr_assert_eq(icm_mountinfo_at("/proc", &m), 0);
	cr_assert_str_eq(m.type, "proc");
	cr_assert_not(icm_mountinfo_is_ours(&m));
	icm_mountinfo_clear(&m);
	cr_assert_eq(icm_mountinfo_at("/proc/self", &m), -ENOENT);
}
