/* SPDX-License-Identifier: MIT
 * A mount whose lease is over: it changes nothing under the locks that it had,
 * says so to who held them, and goes on with everything else. */
#include <sys/file.h>

#include "tests/unit/core-mount.h"

static const char *const store = "memory:lease";
static struct icm_backend *raw; /* keeps the store */

static void set_up(void)
{
	raw = keep_consul_like(store);
}

static void tear_down(void)
{
	icm_backend_close(raw);
}

TestSuite(lease, .init = set_up, .fini = tear_down, .timeout = 120);

static int lock(struct icm_handle *h, int type)
{
	const struct icm_lock_request req = { .flock = true, .type = type, .owner = 7 };
	struct icm_lock_wait *wait;

	return icm_fs_lock(h, &no_call, &req, NULL, NULL, &wait);
}

static char *lease_key(struct icm_volume *vol)
{
	struct icm_volume_status s;
	char *key;

	icm_volume_get_status(vol, &s);
	key = s.lease_key ? icm_xstrdup(s.lease_key) : NULL;
	icm_volume_status_clear(&s);
	return key;
}

static int put(struct icm_handle *h, const char *text)
{
	ssize_t n = icm_fs_write(h, &no_call, text, strlen(text), 0, false);

	return n < 0 ? (int)n : 0;
}

/* No call reaches the store. */
static struct icm_memory_fault cut_off(uint64_t call, enum icm_memory_call kind,
				       const struct icm_op *ops, size_t n_ops, void *userdata)
{
	return (struct icm_memory_fault){ .fault = ICM_FAULT_FAIL, .error = -EHOSTUNREACH };
}

/* A file that one mount has locked, and written without publishing. */
struct locked {
	struct icm_view *view;
	struct icm_handle *h;
};

static struct locked write_locked(struct icm_volume *vol, const char *path, const char *text)
{
	struct locked l = { 0 };

	cr_assert_eq(open_path(vol, path, O_RDWR, &l.view, &l.h), 0);
	cr_assert_eq(lock(l.h, F_WRLCK), 0);
	cr_assert_eq(put(l.h, text), 0);
	return l;
}

Test(lease, nothing_is_published_under_a_lost_lock)
{
	struct icm_volume *a = mount_store(store), *b = mount_store(store);
	ICM_AUTOFREE char *key = lease_key(a);
	struct icm_view *view = NULL;
	struct icm_handle *h = NULL;
	struct locked l = { 0 };
	int r;

	cr_assert_eq(save(a, "file", O_TRUNC, "first"), 0);
	l = write_locked(a, "file", "by A!");
	cr_assert_eq(icm_memory_expire_lease(raw, key), 0);
	/* B gets the lock, and is done with it, before A hears of anything */
	cr_assert_eq(open_path(b, "file", O_RDWR, &view, &h), 0);
	cr_assert_eq(lock(h, F_WRLCK), 0);
	cr_assert_eq(put(h, "by B!"), 0);
	cr_assert_eq(lock(h, F_UNLCK), 0);
	close_path(view, h);
	/* ESTALE: A knew of B's version before it knew of its lease; a copy has its bytes */
	r = icm_fs_fsync(l.h, &no_call, false);
	cr_assert(r == -EIO || r == -ESTALE, "%d", r);
	cr_assert_lt(put(l.h, "more!"), 0);
	cr_assert_lt(icm_fs_flush(l.h, &no_call, 7), 0);
	close_path(l.view, l.h);
	cr_assert(has_contents(b, "file", "by B!"));
	cr_assert(has_contents(a, "file", "by B!"));
	/* the mount goes on, also with this file */
	cr_assert_eq(save(a, "file", O_TRUNC, "again"), 0);
	cr_assert(has_contents(b, "file", "again"));
	unmount(b);
	unmount(a);
}

/* The store may still believe in the lease; the mount's own clock decides. */
Test(lease, the_own_clock_ends_locks_while_the_store_is_away)
{
	struct icm_volume *a = mount_with((struct icm_volume_config){
		.url = store, .create = true, .ttl_ms = 10000, .timeout_ms = 20000 });
	ICM_AUTOFREE char *key = lease_key(a);
	ICM_AUTOFREE char *now = NULL;
	struct locked l = { 0 };

	cr_assert_eq(save(a, "file", O_TRUNC, "first"), 0);
	l = write_locked(a, "file", "by A!");
	icm_memory_set_instance_fault(icm_volume_backend(a), cut_off, NULL);
	WAIT_FOR(put(l.h, "more!") == -EIO);
	cr_assert_eq(icm_fs_fsync(l.h, &no_call, false), -EIO);
	icm_memory_set_instance_fault(icm_volume_backend(a), NULL, NULL);
	cr_assert_eq(save(a, "other", O_TRUNC, "goes on"), 0);
	cr_assert(has_contents(a, "file", "first"));
	close_path(l.view, l.h);
	cr_assert(has_contents(a, "file", "first"));
	now = lease_key(a);
	cr_assert_str_neq(now, key, "it goes on with a new lease");
	unmount(a);
}
