/* SPDX-License-Identifier: MIT
 * Limits are stated, kept and refused before anything changes. */
#include "store.h"

TestSuite(limits, .init = store_setup, .fini = store_teardown, .timeout = 300);

/* What is tried where no limit is known, and the most that is tried at all. */
#define SOME_BYTES ((size_t)1 << 20)
#define MOST_BYTES ((size_t)24 << 20)

static char *bytes(size_t n)
{
	char *p = icm_xmalloc(n);

	for (size_t i = 0; i < n; i++)
		p[i] = (char)(i * 31 + (i >> 12));
	return p;
}

Test(limits, the_largest_value_fits)
{
	size_t n = be->facts.max_value_bytes ? be->facts.max_value_bytes : SOME_BYTES;
	ICM_AUTOFREE char *value = bytes(n);
	ICM_AUTOENTRY struct icm_entry e = { 0 };
	struct icm_op op = { .type = ICM_OP_SET, .key = "k", .value = value, .len = n };

	cr_assert_eq(DO(be, op), 0);
	cr_assert_eq(icm_backend_get(be, NULL, "k", &e), 0);
	cr_assert_eq(e.len, n);
	cr_assert_eq(memcmp(e.value, value, n), 0);
}

Test(limits, a_larger_value_is_refused)
{
	size_t n = be->facts.max_value_bytes + 1;
	ICM_AUTOFREE char *value = NULL;
	struct icm_op op = { .type = ICM_OP_SET, .key = "k", .len = n };
	uint64_t index = store_index(be);
	struct icm_lease lease = { 0 };

	if (!be->facts.max_value_bytes)
		store_skip("no limit");
	op.value = value = bytes(n);
	cr_assert_eq(DO(be, op), -EFBIG);
	cr_assert_eq(DO(be, OP_SET("l", "x"), op), -EFBIG);
	cr_assert_eq(icm_backend_lease_open(be, NULL, be->facts.lease_ttl_min_ms, value, n, &lease),
		     -EFBIG);
	cr_assert_eq(store_index(be), index);
	cr_assert(has(be, "k", NULL) && has(be, "l", NULL));
}

static struct icm_op *sets(size_t n, char (**ret_keys)[32])
{
	struct icm_op *ops = icm_xcalloc(n, sizeof(*ops));
	char(*keys)[32] = icm_xcalloc(n, sizeof(*keys));

	for (size_t i = 0; i < n; i++) {
		snprintf(keys[i], sizeof(keys[i]), "n/%zu", i);
		ops[i] = OP_SET(keys[i], "x");
	}
	*ret_keys = keys;
	return ops;
}

Test(limits, the_most_operations_fit_and_one_more_does_not)
{
	size_t max = be->facts.max_txn_ops, n = max ? max : 10000;
	ICM_AUTOFREE char(*keys)[32] = NULL;
	ICM_AUTOFREE struct icm_op *ops = sets(n + 1, &keys);
	ICM_AUTORESULT struct icm_txn_result result = { 0 };
	uint64_t index = store_index(be);

	if (max) {
		cr_assert_eq(icm_backend_txn(be, NULL, ops, n + 1, &result), -EFBIG);
		cr_assert_eq(store_index(be), index);
	}
	cr_assert_eq(icm_backend_txn(be, NULL, ops, n, &result), 0);
	cr_assert_eq(modified(be, keys[0]), result.index);
	cr_assert_eq(modified(be, keys[n - 1]), result.index);
	cr_assert_eq(modified(be, keys[n]), 0);
}

/* As many sets of one value as stay below the limit; 0 when it has none. */
static size_t fill(struct icm_op *ops, char (*keys)[32], size_t max_ops, const char *value,
		   size_t len)
{
	size_t cost = 0, n = 0;

	for (; n < max_ops; n++) {
		ops[n] = (struct icm_op){
			.type = ICM_OP_SET, .key = keys[n], .value = value, .len = len
		};
		cost += icm_backend_op_cost(be, &ops[n]);
		if (be->facts.max_txn_bytes && cost > be->facts.max_txn_bytes)
			return n;
	}
	return n;
}

Test(limits, a_transaction_of_many_bytes)
{
	size_t max = be->facts.max_txn_bytes ? be->facts.max_txn_bytes : SOME_BYTES;
	size_t len = max / 40, max_ops = 50;
	ICM_AUTOFREE char *value = bytes(len);
	ICM_AUTOFREE char(*keys)[32] = NULL;
	ICM_AUTOFREE struct icm_op *ops = sets(max_ops, &keys);
	ICM_AUTORESULT struct icm_txn_result result = { 0 };
	uint64_t index = store_index(be);
	size_t n = fill(ops, keys, max_ops, value, len);

	if (n < max_ops) {
		cr_assert_eq(icm_backend_txn(be, NULL, ops, n + 1, &result), -EFBIG);
		cr_assert_eq(store_index(be), index);
		cr_assert(has(be, keys[0], NULL));
	}
	if (n * len > MOST_BYTES)
		n = MOST_BYTES / len;
	cr_assert_eq(icm_backend_txn(be, NULL, ops, n, &result), 0);
	for (size_t i = 0; i < n; i++) {
		ICM_AUTOENTRY struct icm_entry e = { 0 };

		cr_assert_eq(icm_backend_get(be, NULL, keys[i], &e), 0);
		cr_assert_eq(e.len, len);
		cr_assert_eq(memcmp(e.value, value, len), 0);
		cr_assert_eq(e.modify_index, result.index);
	}
}

Test(limits, a_large_transaction_that_fails_leaves_nothing)
{
	ICM_AUTOFREE char *value = bytes(8192);
	ICM_AUTOFREE char(*keys)[32] = NULL;
	size_t max_ops = be->facts.max_txn_ops && be->facts.max_txn_ops < 2000
				 ? be->facts.max_txn_ops
				 : 2000;
	ICM_AUTOFREE struct icm_op *ops = sets(max_ops, &keys);
	ICM_AUTORESULT struct icm_txn_result result = { 0 };
	size_t n = fill(ops, keys, max_ops, value, 8192);
	uint64_t index = store_index(be);

	ops[n - 1] = OP_CHECK("missing", 1);
	cr_assert_eq(icm_backend_txn(be, NULL, ops, n, &result), -ESTALE);
	cr_assert_eq(result.errors[0].op, n - 1);
	cr_assert_eq(store_index(be), index);
	cr_assert(has(be, keys[0], NULL) && has(be, keys[n - 2], NULL));
}

Test(limits, a_longer_key_is_refused)
{
	size_t max = be->facts.max_key_bytes;
	ICM_AUTOFREE char *key = NULL;
	struct icm_entry e = { 0 };

	if (!max)
		store_skip("no limit");
	key = icm_xmalloc(max + 2);
	memset(key, 'k', max + 1);
	key[max + 1] = '\0';
	cr_assert_eq(DO(be, OP_SET("a", "x"), OP_SET(key, "x")), -EFBIG);
	cr_assert_eq(icm_backend_get(be, NULL, key, &e), -EFBIG);
	cr_assert(has(be, "a", NULL));
	key[max] = '\0';
	put(be, key, "fits");
	cr_assert(has(be, key, "fits"));
}

Test(limits, a_lease_keeps_to_the_range_of_ttl)
{
	struct icm_lease lease = { 0 };

	if (be->facts.lease_ttl_min_ms)
		cr_assert_eq(icm_backend_lease_open(be, NULL, be->facts.lease_ttl_min_ms - 1, "v",
						    1, &lease),
			     -EINVAL);
	if (be->facts.lease_ttl_max_ms)
		cr_assert_eq(icm_backend_lease_open(be, NULL, be->facts.lease_ttl_max_ms + 1, "v",
						    1, &lease),
			     -EINVAL);
	cr_assert_null(lease.key);
}

Test(limits, a_read_only_instance_reads_and_refuses_writes)
{
	struct icm_open_options options = { .read_only = true };
	struct icm_backend *ro;
	ICM_AUTOENTRIES struct icm_entries list = { 0 };
	struct icm_lease lease = { 0 };
	uint64_t index = put(be, "k", "x");

	ro = store_open_with(&options);
	cr_assert(ro->facts.read_only);
	cr_assert(has(ro, "k", "x"));
	cr_assert_eq(DO(ro, OP_CHECK("k", index), OP_GET("k"), OP_TREE("")), 0);
	cr_assert_eq(icm_backend_list(ro, NULL, "", false, &list, NULL), 0);
	cr_assert_eq(list.n, 1);
	cr_assert_eq(DO(ro, OP_SET("k", "y")), -EROFS);
	cr_assert_eq(DO(ro, OP_GET("k"), OP_DELETE("k")), -EROFS);
	cr_assert_eq(icm_backend_lease_open(ro, NULL, ro->facts.lease_ttl_min_ms, "", 0, &lease),
		     -EROFS);
	put(be, "k", "z");
	cr_assert(has(ro, "k", "z"), "it sees others' writes");
	icm_backend_close(ro);
}

Test(limits, usage_is_told_or_unknown)
{
	struct icm_usage usage = { .used_bytes = 1 };

	put(be, "k", "x");
	cr_assert_eq(icm_backend_usage(be, NULL, &usage), 0);
	cr_assert_leq(usage.free_bytes, usage.total_bytes);
	if (store_is("sqlite"))
		cr_assert(usage.used_bytes > 4096 && usage.total_bytes > 0);
	icm_backend_maintain(be);
	cr_assert(has(be, "k", "x"));
}
