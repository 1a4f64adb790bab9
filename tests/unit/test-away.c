/* SPDX-License-Identifier: MIT
 * A store that is away: how long calls wait for it, what is served meanwhile, and that
 * the mount says so. With a real server: tests/mount/store-gone.sh. */
#include "core/shared.h"
#include "tests/unit/core-mount.h"
#include "util/clock.h"

static const char *const store = "memory:away";
static struct icm_backend *raw; /* keeps the store */

static void set_up(void)
{
	raw = keep_consul_like(store);
}

static void tear_down(void)
{
	icm_backend_close(raw);
}

TestSuite(away, .init = set_up, .fini = tear_down, .timeout = 60);

static int64_t deadline(struct icm_volume *vol)
{
	return icm_volume_ctx(vol).deadline_ns;
}

static bool is_reachable(struct icm_volume *vol)
{
	struct icm_volume_status status;
	bool reachable;

	icm_volume_get_status(vol, &status);
	reachable = status.reachable;
	icm_volume_status_clear(&status);
	return reachable;
}

static bool is_stale(struct icm_volume *vol)
{
	struct icm_volume_status status;
	bool stale;

	icm_volume_get_status(vol, &status);
	stale = status.stale;
	icm_volume_status_clear(&status);
	return stale;
}

/* Nothing is answered, the watch included: as a connection that is refused. */
static struct icm_memory_fault refuse(uint64_t call, enum icm_memory_call kind,
				      const struct icm_op *ops, size_t n_ops, void *userdata)
{
	return (struct icm_memory_fault){ .fault = ICM_FAULT_FAIL, .error = -EHOSTUNREACH };
}

/* Calls end without an answer; the watch hangs on. */
static struct icm_memory_fault hang(uint64_t call, enum icm_memory_call kind,
				    const struct icm_op *ops, size_t n_ops, void *userdata)
{
	struct icm_memory_fault late = { .fault = ICM_FAULT_FAIL, .error = -ETIMEDOUT };

	return kind == ICM_CALL_WATCH || kind == ICM_CALL_LEASE ? (struct icm_memory_fault){ 0 }
								: late;
}

static void set_fault(struct icm_volume *vol, icm_memory_fault_fn fn)
{
	icm_memory_set_instance_fault(icm_volume_backend(vol), fn, NULL);
}

static int count_one(void *userdata, const struct icm_dirent *e)
{
	*(unsigned *)userdata += e->name[0] != '.';
	return 0;
}

static unsigned count_names(struct icm_volume *vol)
{
	struct icm_handle *h = NULL;
	unsigned n = 0;

	if (icm_fs_opendir(icm_fs_root(vol), &no_call, &h) < 0)
		return 0;
	cr_assert_eq(icm_fs_readdir(h, &no_call, 0, count_one, &n), 0);
	icm_fs_releasedir(h);
	return n;
}

Test(away, the_time_counts_from_when_it_went)
{
	struct icm_volume *vol = mount_store(store), *other = mount_store(store);
	int64_t full = (int64_t)vol->timeout_ms * ICM_NS_PER_MS, before = icm_now_ns(), first;

	cr_assert_geq(deadline(vol), before + full);
	set_fault(vol, refuse);
	cr_assert_eq(save(other, "file", O_TRUNC, "text"), 0); /* ends the watch's call */
	WAIT_FOR(!is_reachable(vol));
	first = deadline(vol);
	cr_assert_leq(first, icm_now_ns() + full);
	cr_assert_eq(deadline(vol), first); /* for all calls the same */
	cr_assert(is_stale(vol));
	set_fault(vol, NULL);
	WAIT_FOR(is_reachable(vol) && !is_stale(vol));
	before = icm_now_ns();
	cr_assert_geq(deadline(vol), before + full);
	unmount(other);
	unmount(vol);
}

/* An open fails, and calls after it don't wait for long. The watch may still have to
 * say that the store answered before. */
static bool is_given_up(struct icm_volume *vol)
{
	int r;

	cr_assert_null(contents_of(vol, "file", &r));
	cr_assert_eq(r, -ETIMEDOUT, "%s", strerror(-r));
	return deadline(vol) <= icm_now_ns() + ICM_NS_PER_S && !is_reachable(vol) && is_stale(vol);
}

Test(away, only_the_first_call_waits_for_long)
{
	struct icm_volume *vol = mount_store(store), *other = mount_store(store);
	int r;

	cr_assert_eq(save(vol, "file", O_TRUNC, "text"), 0);
	cr_assert_eq(icm_volume_catch_up(vol), 0); /* nothing is new to the watch */
	set_fault(vol, hang);
	WAIT_FOR(is_given_up(vol));
	/* names are shown as they are known, contents aren't taken for the newest */
	cr_assert_eq(count_names(vol), 1);
	cr_assert_null(contents_of(vol, "file", &r));
	cr_assert_eq(save(vol, "new", O_TRUNC, "text"), -ETIMEDOUT);
	set_fault(vol, NULL);
	cr_assert(has_contents(vol, "file", "text"));
	cr_assert(is_reachable(vol));
	/* the watch says when everything is known again */
	cr_assert_eq(save(other, "file", O_TRUNC, "newer"), 0);
	WAIT_FOR(!is_stale(vol));
	cr_assert(has_contents(vol, "file", "newer"));
	unmount(other);
	unmount(vol);
}

Test(away, cached_contents_are_served_without_asking)
{
	struct icm_volume *vol = mount_with((struct icm_volume_config){
		.url = store, .create = true, .cached = true, .timeout_ms = 20000 });
	struct icm_view *view = NULL;
	struct stat st;

	cr_assert_eq(save(vol, "file", O_TRUNC, "text"), 0);
	/* as the kernel does, who knows it; nobody has it open */
	cr_assert_eq(walk(vol, "file", &view, &st), 0);
	cr_assert(has_contents(vol, "file", "text"));
	set_fault(vol, hang);
	cr_assert_eq(count_names(vol), 1);
	cr_assert(has_contents(vol, "file", "text"));
	set_fault(vol, NULL);
	icm_fs_forget(view, 1);
	unmount(vol);
}

Test(away, a_local_store_that_is_busy_is_not)
{
	struct icm_volume *vol = mount_store("memory:here");
	int64_t before;

	cr_assert_eq(icm_volume_heard(vol, -EHOSTUNREACH), -EHOSTUNREACH);
	before = icm_now_ns();
	cr_assert_geq(deadline(vol), before + (int64_t)vol->timeout_ms * ICM_NS_PER_MS);
	cr_assert(is_reachable(vol));
	unmount(vol);
}
