/* SPDX-License-Identifier: MIT
 * What following another mount costs on a store whose listing of keys tells no
 * indexes: one listing and one short transaction for a change. */
#include <pthread.h>

#include "tests/unit/core-mount.h"

static const char *const store = "memory:follow";
static struct icm_backend *raw; /* keeps the store */

static void set_up(void)
{
	raw = keep_consul_like(store);
}

static void tear_down(void)
{
	icm_backend_close(raw);
}

TestSuite(follow, .init = set_up, .fini = tear_down, .timeout = 60);

/* Calls of one mount, counted under the store's lock. */
struct counts {
	pthread_mutex_t lock;
	size_t lists, txns, ops;
};

static struct icm_memory_fault count(uint64_t call, enum icm_memory_call kind,
				     const struct icm_op *ops, size_t n_ops, void *userdata)
{
	struct counts *c = userdata;
	ICM_LOCK_SCOPE(&c->lock);

	c->lists += kind == ICM_CALL_LIST;
	c->txns += kind == ICM_CALL_TXN;
	if (kind == ICM_CALL_TXN)
		c->ops += n_ops;
	return (struct icm_memory_fault){ 0 };
}

static struct counts snapshot(struct counts *c)
{
	ICM_LOCK_SCOPE(&c->lock);

	return *c;
}

static bool knows(struct icm_volume *vol, const char *name)
{
	struct icm_view *view;
	struct stat st;

	if (icm_fs_lookup_cached(icm_fs_root(vol), name, &view, &st) != 0)
		return false;
	icm_fs_forget(view, 1);
	return true;
}

Test(follow, a_record_is_read_once)
{
	struct counts counts = { .lock = PTHREAD_MUTEX_INITIALIZER };
	struct icm_volume *writer = mount_store(store), *reader = mount_store(store);
	struct counts now;

	for (int i = 0; i < 50; i++) {
		ICM_AUTOFREE char *name = icm_asprintf("file-%d", i);

		cr_assert_eq(save(writer, name, O_TRUNC, name), 0);
		WAIT_FOR(knows(reader, name));
	}
	icm_memory_set_instance_fault(icm_volume_backend(reader), count, &counts);
	cr_assert_eq(save(writer, "last", O_TRUNC, "x"), 0);
	WAIT_FOR(knows(reader, "last"));
	/* the record of a change is there with the change: whatever number of wake-ups
	 * it took, it was read once, the floor with each listing */
	icm_memory_set_instance_fault(icm_volume_backend(reader), NULL, NULL);
	now = snapshot(&counts);
	cr_assert_geq(now.txns, 1);
	cr_assert_leq(now.txns, now.lists);
	cr_assert_leq(now.ops, now.txns + 1);
	unmount(reader);
	unmount(writer);
}

Test(follow, own_records_are_not_read)
{
	struct counts counts = { .lock = PTHREAD_MUTEX_INITIALIZER };
	struct icm_volume *vol = mount_store(store);
	struct icm_volume *other = mount_store(store);
	struct counts now;

	for (int i = 0; i < 20; i++)
		cr_assert_eq(save(vol, "file", O_TRUNC, i % 2 ? "odd" : "even"), 0);
	icm_memory_set_instance_fault(icm_volume_backend(vol), count, &counts);
	cr_assert_eq(save(other, "theirs", O_TRUNC, "x"), 0);
	WAIT_FOR(knows(vol, "theirs"));
	icm_memory_set_instance_fault(icm_volume_backend(vol), NULL, NULL);
	now = snapshot(&counts);
	cr_assert_leq(now.ops, now.txns + 2); /* the floor each time, and theirs */
	unmount(other);
	unmount(vol);
}
