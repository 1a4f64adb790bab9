/* SPDX-License-Identifier: MIT
 * Drivers under many threads, for ThreadSanitizer: readers, writers, watches,
 * leases and upkeep at once on the memory and the SQLite store. */
#undef NDEBUG
#include <assert.h>
#include <pthread.h>
#include <stdio.h>
#include <string.h>

#include "backends/memory/memory.h"
#include "util/clock.h"

#define WRITERS	 8
#define READERS	 8
#define WATCHERS 3
#define ROUNDS	 30

struct race {
	struct icm_backend *be;
	atomic_bool stop;
	atomic_uint next;
	atomic_uint wakes;
};

static int txn(struct icm_backend *be, const struct icm_op *ops, size_t n)
{
	ICM_AUTORESULT struct icm_txn_result result = { 0 };

	return icm_backend_txn(be, NULL, ops, n, &result);
}

static void *write_keys(void *userdata)
{
	struct race *race = userdata;
	unsigned me = atomic_fetch_add(&race->next, 1);

	for (unsigned i = 0; i < ROUNDS; i++) {
		char own[32], value[32];
		struct icm_op ops[3];
		int r;

		snprintf(own, sizeof(own), "k/%u/%u", me, i % 5);
		snprintf(value, sizeof(value), "%u.%u", me, i);
		ops[0] = (struct icm_op){
			.type = ICM_OP_SET, .key = "k/all", .value = value, .len = strlen(value)
		};
		ops[1] = ops[0];
		ops[1].key = own;
		ops[2] = (struct icm_op){ .type = ICM_OP_GET_TREE, .key = "k/" };
		if (i % 7 == 6)
			ops[1].type = ICM_OP_DELETE;
		if (i % 5 == 4)
			ops[2] = (struct icm_op){ .type = ICM_OP_CHECK_INDEX, .key = "none" };
		r = txn(race->be, ops, ICM_COUNT(ops));
		assert(r == 0 || (i % 5 == 4 && r == -ESTALE));
		icm_backend_maintain(race->be);
	}
	return NULL;
}

static void *read_keys(void *userdata)
{
	struct race *race = userdata;

	while (!atomic_load(&race->stop)) {
		ICM_AUTOENTRIES struct icm_entries list = { 0 };
		ICM_AUTOENTRY struct icm_entry e = { 0 };
		uint64_t index = 0;
		int r;

		r = icm_backend_get(race->be, NULL, "k/all", &e);
		assert(r == 0 || r == -ENOENT);
		r = icm_backend_list(race->be, NULL, "k/", false, &list, &index);
		assert(r == 0 && index >= e.modify_index);
	}
	return NULL;
}

static void *watch_keys(void *userdata)
{
	struct race *race = userdata;
	struct icm_ctx ctx = { .cancel = &race->stop };
	uint64_t since = 0;
	int r;

	while ((r = icm_backend_watch(race->be, &ctx, "k/", since, &since)) == 0)
		atomic_fetch_add(&race->wakes, 1);
	assert(r == -ECANCELED);
	return NULL;
}

static void *hold_leases(void *userdata)
{
	struct race *race = userdata;
	uint32_t ttl = race->be->facts.lease_ttl_min_ms;

	for (int i = 0; i < 5; i++) {
		struct icm_lease lease = { 0 };
		struct icm_op ops[2];

		assert(!icm_backend_lease_open(race->be, NULL, ttl, "x", 1, &lease));
		ops[0] = (struct icm_op){ .type = ICM_OP_CHECK_INDEX,
					  .key = lease.key,
					  .index = lease.index };
		ops[1] = (struct icm_op){
			.type = ICM_OP_SET, .key = "k/lease", .value = lease.key, .len = 8
		};
		assert(!txn(race->be, ops, 2));
		assert(!icm_backend_lease_renew(race->be, NULL, &lease));
		assert(!icm_backend_lease_close(race->be, NULL, &lease));
		assert(txn(race->be, ops, 2) == -ESTALE);
		icm_lease_clear(&lease);
	}
	return NULL;
}

static void run(const char *url)
{
	struct icm_open_options options = { .create = true };
	pthread_t finite[WRITERS + 2], endless[READERS + WATCHERS];
	struct race race = { 0 };
	size_t f = 0, e = 0;

	assert(!icm_backend_open(url, &options, &race.be, NULL));
	assert(!icm_backend_start(race.be));
	for (int i = 0; i < READERS; i++)
		assert(!pthread_create(&endless[e++], NULL, read_keys, &race));
	for (int i = 0; i < WATCHERS; i++)
		assert(!pthread_create(&endless[e++], NULL, watch_keys, &race));
	for (int i = 0; i < WRITERS; i++)
		assert(!pthread_create(&finite[f++], NULL, write_keys, &race));
	for (int i = 0; i < 2; i++)
		assert(!pthread_create(&finite[f++], NULL, hold_leases, &race));
	while (f)
		pthread_join(finite[--f], NULL);
	atomic_store(&race.stop, true);
	icm_backend_wake(race.be);
	while (e)
		pthread_join(endless[--e], NULL);
	assert(atomic_load(&race.wakes) > 0);
	race.be = icm_backend_close(race.be);
}

/* ---- late application beside other calls ---- */

static struct icm_memory_fault sometimes_late(uint64_t call, enum icm_memory_call kind,
					      const struct icm_op *ops, size_t n_ops,
					      void *userdata)
{
	static const struct icm_memory_fault faults[] = {
		{ ICM_FAULT_NONE, 0, 0 },
		{ ICM_FAULT_LATE, 0, ICM_NS_PER_MS },
		{ ICM_FAULT_FAIL_AFTER, -ETIMEDOUT, 0 },
		{ ICM_FAULT_DELAY, 0, ICM_NS_PER_MS },
	};

	return kind == ICM_CALL_TXN ? faults[call % ICM_COUNT(faults)] : faults[0];
}

static void *set_late(void *userdata)
{
	struct icm_op op = { .type = ICM_OP_SET, .key = "k", .value = "x", .len = 1 };
	struct race *race = userdata;

	for (int i = 0; i < 100; i++) {
		int r = txn(race->be, &op, 1);

		assert(r == 0 || r == -ETIMEDOUT);
	}
	return NULL;
}

static void run_late(void)
{
	struct race race = { 0 };
	pthread_t threads[4];

	assert(!icm_backend_open("memory:late", NULL, &race.be, NULL));
	assert(!icm_backend_start(race.be));
	icm_memory_set_fault(race.be, sometimes_late, NULL);
	for (size_t i = 0; i < ICM_COUNT(threads); i++)
		assert(!pthread_create(&threads[i], NULL, set_late, &race));
	for (size_t i = 0; i < ICM_COUNT(threads); i++)
		pthread_join(threads[i], NULL);
	icm_memory_settle(race.be);
	race.be = icm_backend_close(race.be);
}

/* Or on the stores named, such as consul://…: nothing is removed there. */
int main(int argc, char **argv)
{
	char dir[] = "/tmp/icmfs-race-XXXXXX";
	ICM_AUTOFREE char *url = NULL, *path = NULL;

	for (int i = 1; i < argc; i++)
		run(argv[i]);
	if (argc > 1)
		return 0;
	assert(mkdtemp(dir));
	path = icm_asprintf("%s/store.icmfs", dir);
	url = icm_asprintf("sqlite:%s", path);
	run("memory:race");
	run_late();
	run(url);
	assert(!unlink(path));
	assert(!rmdir(dir));
	return 0;
}
