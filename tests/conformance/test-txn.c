/* SPDX-License-Identifier: MIT
 * Transactions: atomicity, preconditions, indexes, what they read. */
#include "store.h"

TestSuite(txn, .init = store_setup, .fini = store_teardown, .timeout = 120);

Test(txn, all_keys_get_one_index_which_the_result_has)
{
	uint64_t first = put(be, "before", "x");
	ICM_AUTORESULT struct icm_txn_result result = { 0 };

	put(be, "b", "old");
	cr_assert_eq(TXN(be, &result, OP_SET("a", "1"), OP_SET("b", "2"), OP_CAS("c", "3", 0)), 0);
	cr_assert_gt(result.index, first);
	cr_assert_eq(modified(be, "a"), result.index);
	cr_assert_eq(modified(be, "b"), result.index);
	cr_assert_eq(modified(be, "c"), result.index);
	cr_assert_eq(modified(be, "before"), first);
}

Test(txn, indexes_grow)
{
	uint64_t last = store_index(be);

	for (int i = 0; i < 20; i++) {
		ICM_AUTOFREE char *value = icm_asprintf("%d", i);
		uint64_t index = put(be, i % 2 ? "a" : "b", value);

		cr_assert_gt(index, last);
		cr_assert_geq(store_index(be), index);
		last = index;
	}
}

Test(txn, no_operations_are_fine)
{
	struct icm_txn_result result = { .index = 9 };

	cr_assert_eq(icm_backend_txn(be, NULL, NULL, 0, &result), 0);
	cr_assert_eq(result.index, 0);
}

Test(txn, a_set_that_changes_nothing_may_keep_the_index)
{
	uint64_t before = put(be, "k", "same"), now;
	ICM_AUTORESULT struct icm_txn_result result = { 0 };

	cr_assert_eq(TXN(be, &result, OP_SET("k", "same")), 0);
	cr_assert(has(be, "k", "same"));
	now = modified(be, "k");
	cr_assert(now == before || now == result.index);
	/* and it is the index that later preconditions go by */
	cr_assert_eq(DO(be, OP_CAS("k", "other", now)), 0);
}

Test(txn, a_transaction_that_only_reads_has_no_index)
{
	ICM_AUTORESULT struct icm_txn_result result = { 0 };
	uint64_t index = put(be, "k", "x");

	cr_assert_eq(TXN(be, &result, OP_CHECK("k", index), OP_GET("k"), OP_ABSENT("l")), 0);
	cr_assert_eq(result.index, 0);
	cr_assert_eq(result.entries.n, 1);
	cr_assert_eq(store_index(be), index);
}

Test(txn, operations_see_those_before_them)
{
	ICM_AUTORESULT struct icm_txn_result result = { 0 };

	put(be, "k", "0");
	cr_assert_eq(TXN(be, &result, OP_GET("k"), OP_SET("k", "1"), OP_GET("k"), OP_SET("k", "2"),
			 OP_GET("k")),
		     0);
	cr_assert_eq(result.entries.n, 3);
	for (size_t i = 0; i < 3; i++) {
		char value[] = { (char)('0' + i), '\0' };

		cr_assert(entry_is(&result.entries.v[i], "k", value));
		cr_assert_eq(result.entries.v[i].op, 2 * i);
	}
	cr_assert_eq(result.entries.v[2].modify_index, result.index);
	cr_assert(has(be, "k", "2"));
}

Test(txn, get_tree_sees_own_writes_in_byte_order)
{
	ICM_AUTORESULT struct icm_txn_result result = { 0 };

	cr_assert_eq(DO(be, OP_SET("t/b", "old"), OP_SET("t/c", "gone"), OP_SET("u", "x")), 0);
	cr_assert_eq(TXN(be, &result, OP_TREE("t/"), OP_SET("t/b", "new"), OP_DELETE("t/c"),
			 OP_SET("t/a", "made"), OP_TREE("t/"), OP_TREE("none/")),
		     0);
	cr_assert_eq(result.entries.n, 4);
	cr_assert(entry_is(&result.entries.v[0], "t/b", "old"));
	cr_assert(entry_is(&result.entries.v[1], "t/c", "gone"));
	cr_assert(entry_is(&result.entries.v[2], "t/a", "made"));
	cr_assert(entry_is(&result.entries.v[3], "t/b", "new"));
	cr_assert_eq(result.entries.v[1].op, 0);
	cr_assert_eq(result.entries.v[2].op, 4);
	cr_assert_eq(result.entries.v[3].op, 4);
	cr_assert_eq(result.entries.v[3].modify_index, result.index);
}

Test(txn, a_get_has_flags_and_indexes)
{
	ICM_AUTORESULT struct icm_txn_result result = { 0 }, made = { 0 };
	struct icm_op op = OP_SET("k", "x");

	op.flags = UINT64_MAX;
	cr_assert_eq(TXN(be, &made, op), 0);
	cr_assert_eq(TXN(be, &result, OP_SET("l", "y"), OP_GET("k")), 0);
	cr_assert_eq(result.entries.n, 1);
	cr_assert_eq(result.entries.v[0].flags, UINT64_MAX);
	cr_assert_eq(result.entries.v[0].create_index, made.index);
	cr_assert_eq(result.entries.v[0].modify_index, made.index);
}

/* ---- preconditions that hold ---- */

Test(txn, preconditions_that_hold)
{
	uint64_t a = put(be, "a", "1"), b = put(be, "b", "1");

	cr_assert_eq(DO(be, OP_CHECK("a", a), OP_CHECK("b", b), OP_ABSENT("c")), 0);
	cr_assert_eq(DO(be, OP_CAS("a", "2", a), OP_CAS("c", "1", 0), OP_DELETE_CAS("b", b)), 0);
	cr_assert(has(be, "a", "2"));
	cr_assert(has(be, "b", NULL));
	cr_assert(has(be, "c", "1"));
}

Test(txn, deleting_what_is_missing_succeeds)
{
	ICM_AUTORESULT struct icm_txn_result result = { 0 };

	cr_assert_eq(TXN(be, &result, OP_DELETE("x"), OP_DELETE_CAS("y", 12345),
			 OP_DELETE_CAS("z", 0), OP_SET("k", "v")),
		     0);
	cr_assert_eq(result.index, modified(be, "k"));
}

Test(txn, a_key_can_be_replaced_within)
{
	uint64_t before = put(be, "k", "old");
	ICM_AUTORESULT struct icm_txn_result result = { 0 };
	ICM_AUTOENTRY struct icm_entry e = { 0 };

	cr_assert_eq(TXN(be, &result, OP_CHECK("k", before), OP_DELETE("k"), OP_ABSENT("k"),
			 OP_CAS("k", "new", 0)),
		     0);
	cr_assert_eq(icm_backend_get(be, NULL, "k", &e), 0);
	cr_assert(entry_is(&e, "k", "new"));
	cr_assert_eq(e.create_index, result.index);
}

Test(txn, a_key_can_be_made_and_deleted_within)
{
	cr_assert_eq(DO(be, OP_SET("k", "x"), OP_DELETE("k"), OP_ABSENT("k")), 0);
	cr_assert(has(be, "k", NULL));
}

/* ---- preconditions that don't ---- */

/* Keys: "a" = "1" and "b" = "2" exist, "x" doesn't. 1 is an index of no key. */
static const struct {
	const char *name;
	struct icm_op ops[5];
	size_t n;
	size_t op;
	enum icm_op_reason reason;
} refusals[] = {
#define SET(k, v)                                                                                  \
	{                                                                                          \
		.type = ICM_OP_SET, .key = (k), .value = (v), .len = 1                             \
	}
#define OTHER(t, k, i)                                                                             \
	{                                                                                          \
		.type = ICM_OP_##t, .key = (k), .value = "v", .len = 1, .index = (i)               \
	}
	{ "check-index, missing", { OTHER(CHECK_INDEX, "x", 1) }, 1, 0, ICM_REASON_ABSENT },
	{ "check-index, 0", { OTHER(CHECK_INDEX, "x", 0) }, 1, 0, ICM_REASON_ABSENT },
	{ "check-index, other", { OTHER(CHECK_INDEX, "a", 1) }, 1, 0, ICM_REASON_INDEX },
	{ "check-absent", { OTHER(CHECK_ABSENT, "a", 0) }, 1, 0, ICM_REASON_EXISTS },
	{ "cas, exists", { OTHER(CAS, "a", 0) }, 1, 0, ICM_REASON_EXISTS },
	{ "cas, missing", { OTHER(CAS, "x", 1) }, 1, 0, ICM_REASON_ABSENT },
	{ "cas, other", { OTHER(CAS, "a", 1) }, 1, 0, ICM_REASON_INDEX },
	{ "delete-cas, other", { OTHER(DELETE_CAS, "a", 1) }, 1, 0, ICM_REASON_INDEX },
	{ "get, missing", { OTHER(GET, "x", 0) }, 1, 0, ICM_REASON_ABSENT },
	{ "get, deleted within",
	  { OTHER(DELETE, "a", 0), OTHER(GET, "a", 0) },
	  2,
	  1,
	  ICM_REASON_ABSENT },
	{ "last of five",
	  { SET("x", "1"), SET("a", "9"), OTHER(DELETE, "b", 0), SET("y", "1"),
	    OTHER(CHECK_ABSENT, "a", 0) },
	  5,
	  4,
	  ICM_REASON_EXISTS },
	{ "made within",
	  { SET("x", "1"), OTHER(CHECK_ABSENT, "x", 0), SET("a", "9") },
	  3,
	  1,
	  ICM_REASON_EXISTS },
	{ "created within", { SET("x", "1"), OTHER(CAS, "x", 0) }, 2, 1, ICM_REASON_EXISTS },
	{ "deleted within",
	  { OTHER(DELETE, "a", 0), OTHER(CAS, "a", 1) },
	  2,
	  1,
	  ICM_REASON_ABSENT },
	{ "made, deleted, got",
	  { SET("x", "1"), OTHER(DELETE, "x", 0), OTHER(GET, "x", 0) },
	  3,
	  2,
	  ICM_REASON_ABSENT },
	{ "read before it",
	  { OTHER(GET, "a", 0), SET("a", "9"), OTHER(CHECK_INDEX, "b", 1) },
	  3,
	  2,
	  ICM_REASON_INDEX },
};

Test(txn, a_refusal_names_its_operation_and_changes_nothing)
{
	uint64_t a = put(be, "a", "1"), b = put(be, "b", "2");

	for (size_t i = 0; i < ICM_COUNT(refusals); i++) {
		ICM_AUTORESULT struct icm_txn_result result = { 0 };
		const char *name = refusals[i].name;

		cr_assert_eq(icm_backend_txn(be, NULL, refusals[i].ops, refusals[i].n, &result),
			     -ESTALE, "%s", name);
		cr_assert_geq(result.n_errors, 1, "%s", name);
		cr_assert_eq(result.errors[0].op, refusals[i].op, "%s", name);
		cr_assert_eq(result.errors[0].reason, refusals[i].reason, "%s", name);
		cr_assert_eq(result.index, 0, "%s", name);
		cr_assert_eq(result.entries.n, 0, "%s", name);
		cr_assert(has(be, "a", "1") && has(be, "b", "2"), "%s", name);
		cr_assert(has(be, "x", NULL) && has(be, "y", NULL), "%s", name);
		cr_assert_eq(modified(be, "a"), a, "%s", name);
		cr_assert_eq(modified(be, "b"), b, "%s", name);
		cr_assert_eq(store_index(be), b, "%s", name);
	}
}

Test(txn, an_old_index_is_refused_after_an_own_write)
{
	uint64_t a = put(be, "a", "1");
	ICM_AUTORESULT struct icm_txn_result result = { 0 };

	cr_assert_eq(TXN(be, &result, OP_SET("a", "2"), OP_CAS("a", "3", a)), -ESTALE);
	cr_assert_eq(result.errors[0].op, 1);
	cr_assert_eq(result.errors[0].reason, ICM_REASON_INDEX);
	cr_assert(has(be, "a", "1"));
}

Test(txn, errors_are_in_order_of_operations)
{
	ICM_AUTORESULT struct icm_txn_result result = { 0 };

	put(be, "a", "1");
	cr_assert_eq(TXN(be, &result, OP_SET("b", "1"), OP_ABSENT("a"), OP_CHECK("x", 1)), -ESTALE);
	cr_assert_geq(result.n_errors, 1);
	cr_assert_eq(result.errors[0].op, 1);
	for (size_t i = 1; i < result.n_errors; i++)
		cr_assert_gt(result.errors[i].op, result.errors[i - 1].op);
}

Test(txn, a_refusal_restores_flags_values_and_creation)
{
	ICM_AUTOENTRY struct icm_entry before = { 0 }, after = { 0 };
	struct icm_op op = OP_SET("k", "old");

	op.flags = 5;
	cr_assert_eq(DO(be, op), 0);
	cr_assert_eq(icm_backend_get(be, NULL, "k", &before), 0);
	cr_assert_eq(DO(be, OP_SET("k", "new"), OP_DELETE("k"), OP_SET("k", "again"),
			OP_SET("k", "and again"), OP_GET("missing")),
		     -ESTALE);
	cr_assert_eq(icm_backend_get(be, NULL, "k", &after), 0);
	cr_assert(entry_is(&after, "k", "old"));
	cr_assert_eq(after.flags, 5);
	cr_assert_eq(after.create_index, before.create_index);
	cr_assert_eq(after.modify_index, before.modify_index);
}

Test(txn, of_two_that_expect_one_index_one_wins)
{
	struct icm_backend *other = store_open();
	uint64_t index = put(be, "k", "0");

	cr_assert_eq(DO(be, OP_CAS("k", "mine", index)), 0);
	cr_assert_eq(DO(other, OP_CAS("k", "theirs", index)), -ESTALE);
	cr_assert(has(other, "k", "mine"));
	icm_backend_close(other);
}
