/* SPDX-License-Identifier: MIT
 * Leases: a key that is there as long as the lease. */
#include "store.h"

#include <signal.h>
#include <sys/wait.h>

TestSuite(lease, .init = store_setup, .fini = store_teardown, .timeout = 120);
TestSuite(lease_processes, .init = store_setup_closed, .fini = store_teardown, .timeout = 120);

static struct icm_lease lease_open(struct icm_backend *b, const char *value)
{
	struct icm_lease lease = { 0 };
	uint32_t ttl = b->facts.lease_ttl_min_ms ? b->facts.lease_ttl_min_ms : 10000;

	must_be(icm_backend_lease_open(b, NULL, ttl, value, strlen(value), &lease), 0);
	return lease;
}

Test(lease, has_a_key_with_its_value_and_index)
{
	struct icm_lease lease = lease_open(be, "who I am");
	ICM_AUTOENTRY struct icm_entry e = { 0 };

	cr_assert_eq(strncmp(lease.key, "lease/", 6), 0);
	cr_assert_gt(lease.ttl_ms, 0);
	cr_assert_eq(icm_backend_get(be, NULL, lease.key, &e), 0);
	cr_assert(entry_is(&e, lease.key, "who I am"));
	cr_assert_eq(e.modify_index, lease.index);
	cr_assert_eq(DO(be, OP_CHECK(lease.key, lease.index), OP_SET("k", "x")), 0);
	icm_lease_clear(&lease);
}

Test(lease, its_key_vanishes_with_it)
{
	struct icm_lease lease = lease_open(be, "x");
	ICM_AUTORESULT struct icm_txn_result result = { 0 };
	uint64_t before = store_index(be);

	cr_assert_eq(icm_backend_lease_renew(be, NULL, &lease), 0);
	cr_assert_eq(icm_backend_lease_close(be, NULL, &lease), 0);
	cr_assert(has(be, lease.key, NULL));
	cr_assert_gt(store_index(be), before);
	cr_assert_eq(TXN(be, &result, OP_SET("k", "x"), OP_CHECK(lease.key, lease.index)), -ESTALE);
	cr_assert_eq(result.errors[0].op, 1);
	cr_assert_eq(result.errors[0].reason, ICM_REASON_ABSENT);
	cr_assert_eq(icm_backend_lease_renew(be, NULL, &lease), -ENOENT);
	cr_assert_eq(icm_backend_lease_close(be, NULL, &lease), 0, "ending it twice is fine");
	icm_lease_clear(&lease);
}

Test(lease, a_rewritten_key_still_vanishes)
{
	struct icm_lease lease = lease_open(be, "1");
	uint64_t index = lease.index;

	for (int i = 0; i < 3; i++) {
		ICM_AUTOFREE char *value = icm_asprintf("rewritten %d", i);

		cr_assert_eq(DO(be, OP_CAS(lease.key, value, index)), 0);
		cr_assert_gt(modified(be, lease.key), index);
		cr_assert_eq(DO(be, OP_CHECK(lease.key, index)), -ESTALE);
		index = modified(be, lease.key);
	}
	cr_assert_eq(icm_backend_lease_renew(be, NULL, &lease), 0);
	cr_assert_eq(icm_backend_lease_close(be, NULL, &lease), 0);
	cr_assert(has(be, lease.key, NULL));
	icm_lease_clear(&lease);
}

Test(lease, renewing_moves_no_index)
{
	struct icm_lease lease = lease_open(be, "1");
	uint64_t before = store_index(be);

	for (int i = 0; i < 5; i++)
		cr_assert_eq(icm_backend_lease_renew(be, NULL, &lease), 0);
	cr_assert_eq(store_index(be), before);
	cr_assert_eq(modified(be, lease.key), lease.index);
	icm_lease_clear(&lease);
}

Test(lease, several_live_side_by_side)
{
	struct icm_backend *other = store_open();
	struct icm_lease leases[10];
	ICM_AUTOENTRIES struct icm_entries list = { 0 }, after = { 0 };

	for (size_t i = 0; i < ICM_COUNT(leases); i++) {
		leases[i] = lease_open(i % 2 ? be : other, "x");
		for (size_t j = 0; j < i; j++)
			cr_assert_str_neq(leases[i].key, leases[j].key);
	}
	cr_assert_eq(icm_backend_list(be, NULL, "lease/", true, &list, NULL), 0);
	cr_assert_eq(list.n, ICM_COUNT(leases));
	for (size_t i = 0; i < ICM_COUNT(leases); i += 2)
		cr_assert_eq(icm_backend_lease_close(be, NULL, &leases[i]), 0);
	cr_assert_eq(icm_backend_list(be, NULL, "lease/", true, &after, NULL), 0);
	cr_assert_eq(after.n, ICM_COUNT(leases) / 2);
	for (size_t i = 0; i < ICM_COUNT(leases); i++) {
		cr_assert_eq(icm_backend_lease_renew(other, NULL, &leases[i]), i % 2 ? 0 : -ENOENT);
		icm_lease_clear(&leases[i]);
	}
	icm_backend_close(other);
}

Test(lease, takes_an_empty_and_a_binary_value)
{
	struct icm_lease lease = { 0 };
	ICM_AUTOENTRY struct icm_entry e = { 0 };

	cr_assert_eq(icm_backend_lease_open(be, NULL, be->facts.lease_ttl_min_ms, NULL, 0, &lease),
		     0);
	cr_assert(has(be, lease.key, ""));
	icm_lease_clear(&lease);
	cr_assert_eq(
		icm_backend_lease_open(be, NULL, be->facts.lease_ttl_min_ms, "a\0b", 3, &lease), 0);
	cr_assert_eq(icm_backend_get(be, NULL, lease.key, &e), 0);
	cr_assert_eq(e.len, 3);
	icm_lease_clear(&lease);
}

Test(lease, its_key_may_be_deleted_by_force)
{
	struct icm_lease lease = lease_open(be, "x");

	cr_assert_eq(DO(be, OP_DELETE_CAS(lease.key, lease.index)), 0);
	cr_assert_eq(DO(be, OP_CHECK(lease.key, lease.index)), -ESTALE);
	cr_assert_eq(icm_backend_lease_close(be, NULL, &lease), 0);
	cr_assert(has(be, lease.key, NULL));
	icm_lease_clear(&lease);
}

/* ---- a process that dies ---- */

/* Opens a lease, tells its name and sleeps. */
static void holder(void *userdata)
{
	struct icm_backend *b = store_open();
	struct icm_lease lease = lease_open(b, "holder");
	int fd = *(int *)userdata;

	must_be(write(fd, lease.key, strlen(lease.key)), strlen(lease.key));
	for (;;)
		pause();
}

/* The key of a lease whose process is alive in *ret_pid. */
static void holder_start(pid_t *ret_pid, char *key, size_t size)
{
	ssize_t n;
	int fds[2];

	must_be(pipe(fds), 0);
	*ret_pid = child_start(holder, &fds[1]);
	close(fds[1]);
	n = read(fds[0], key, size - 1);
	must(n > 0);
	key[n] = '\0';
	close(fds[0]);
}

static bool gone_by_get(const char *key)
{
	return has(be, key, NULL);
}

static bool gone_by_absent(const char *key)
{
	return DO(be, OP_ABSENT(key), OP_SET("k", key)) == 0;
}

static bool gone_by_check(const char *key)
{
	return DO(be, OP_CHECK(key, 1), OP_SET("k", "never")) == -ESTALE && has(be, key, NULL);
}

static bool gone_by_read(const char *key)
{
	ICM_AUTORESULT struct icm_txn_result result = { 0 };

	return TXN(be, &result, OP_GET(key)) == -ESTALE &&
	       result.errors[0].reason == ICM_REASON_ABSENT;
}

static bool gone_by_list(const char *key)
{
	ICM_AUTOENTRIES struct icm_entries list = { 0 };

	must_be(icm_backend_list(be, NULL, "lease/", true, &list, NULL), 0);
	return list.n == 0;
}

static bool gone_by_tree(const char *key)
{
	ICM_AUTORESULT struct icm_txn_result result = { 0 };

	return TXN(be, &result, OP_TREE("lea")) == 0 && result.entries.n == 0;
}

static bool gone_by_opening(const char *key)
{
	struct icm_lease lease = lease_open(be, "x");
	uint64_t before = store_index(be);
	bool gone;

	must_be(icm_backend_lease_close(be, NULL, &lease), 0);
	/* one change, the close: looking at the other key was no second one */
	gone = has(be, key, NULL) && store_index(be) == before + 1;
	icm_lease_clear(&lease);
	return gone;
}

static void killed(bool (*gone)(const char *key))
{
	uint64_t before;
	char key[64];
	pid_t pid;

	if (!store_shared())
		store_skip("one process only");
	holder_start(&pid, key, sizeof(key));
	be = store_open();
	if (be->facts.lease_renewal)
		store_skip("leases end by time");
	cr_assert(has(be, key, "holder"));
	before = store_index(be);
	child_kill(pid);
	cr_assert(gone(key));
	cr_assert_gt(store_index(be), before, "its end is a change");
}

#define KILLED(way)                                                                                \
	Test(lease_processes, a_killed_process_has_none_##way)                                     \
	{                                                                                          \
		killed(gone_##way);                                                                \
	}

KILLED(by_get)
KILLED(by_absent)
KILLED(by_check)
KILLED(by_read)
KILLED(by_list)
KILLED(by_tree)
KILLED(by_opening)

Test(lease_processes, a_killed_process_that_nobody_waited_for_has_none_either)
{
	siginfo_t info;
	char key[64];
	pid_t pid;

	if (!store_shared())
		store_skip("one process only");
	holder_start(&pid, key, sizeof(key));
	be = store_open();
	if (be->facts.lease_renewal)
		store_skip("leases end by time");
	cr_assert_eq(kill(pid, SIGKILL), 0);
	/* dead, and still in the process table */
	cr_assert_eq(waitid(P_PID, (id_t)pid, &info, WEXITED | WNOWAIT), 0);
	cr_assert(has(be, key, NULL));
	cr_assert_eq(waitpid(pid, NULL, 0), pid);
}

Test(lease_processes, a_live_process_keeps_its_lease)
{
	char key[64];
	pid_t pid;

	if (!store_shared())
		store_skip("one process only");
	holder_start(&pid, key, sizeof(key));
	be = store_open();
	for (int i = 0; i < 20; i++) {
		struct icm_lease lease = lease_open(be, "x");

		cr_assert(has(be, key, "holder"));
		cr_assert_eq(icm_backend_lease_renew(be, NULL, &lease), 0);
		cr_assert_eq(icm_backend_lease_close(be, NULL, &lease), 0);
		icm_lease_clear(&lease);
	}
	cr_assert(has(be, key, "holder"));
	child_kill(pid);
}
