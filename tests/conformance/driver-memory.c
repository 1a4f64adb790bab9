/* SPDX-License-Identifier: MIT
 * The memory store's faults and limits, on which the core's tests rely. */
#include "store.h"

#include <jansson.h>

#include "backends/memory/memory.h"
#include "util/digest.h"

TestSuite(memory, .init = store_setup, .fini = store_teardown, .timeout = 60);

/* One fault for calls of some kinds from call number `from` on. */
struct plan {
	struct icm_memory_fault fault;
	unsigned kinds;
	uint64_t from;
	uint64_t calls; /* seen */
	size_t n_ops;	/* of the last */
};

static struct icm_memory_fault follow(uint64_t call, enum icm_memory_call kind,
				      const struct icm_op *ops, size_t n_ops, void *userdata)
{
	struct plan *p = userdata;

	p->calls++;
	p->n_ops = n_ops;
	if (!(p->kinds & kind) || call < p->from)
		return (struct icm_memory_fault){ 0 };
	return p->fault;
}

Test(memory, fail_refuses_and_does_nothing)
{
	struct plan plan = { .fault = { ICM_FAULT_FAIL, -EHOSTUNREACH, 0 }, .kinds = ICM_CALL_ANY };
	ICM_AUTOENTRIES struct icm_entries list = { 0 };
	struct icm_lease lease = { 0 };
	struct icm_entry e = { 0 };
	uint64_t index;

	put(be, "k", "old");
	icm_memory_set_fault(be, follow, &plan);
	cr_assert_eq(DO(be, OP_SET("k", "new"), OP_SET("l", "x")), -EHOSTUNREACH);
	cr_assert_eq(plan.n_ops, 2);
	cr_assert_eq(icm_backend_get(be, NULL, "k", &e), -EHOSTUNREACH);
	cr_assert_eq(icm_backend_list(be, NULL, "", true, &list, NULL), -EHOSTUNREACH);
	cr_assert_eq(icm_backend_index(be, NULL, "", &index), -EHOSTUNREACH);
	cr_assert_eq(icm_backend_watch(be, NULL, "", 0, &index), -EHOSTUNREACH);
	cr_assert_eq(icm_backend_lease_open(be, NULL, 0, "", 0, &lease), -EHOSTUNREACH);
	cr_assert_eq(plan.calls, 6);
	icm_memory_set_fault(be, NULL, NULL);
	cr_assert(has(be, "k", "old") && has(be, "l", NULL));
}

Test(memory, a_refusal_on_demand_has_an_error)
{
	struct plan plan = { .fault = { ICM_FAULT_FAIL, -ESTALE, 0 }, .kinds = ICM_CALL_TXN };
	ICM_AUTORESULT struct icm_txn_result result = { 0 };

	icm_memory_set_fault(be, follow, &plan);
	cr_assert_eq(TXN(be, &result, OP_SET("k", "x")), -ESTALE);
	cr_assert_eq(result.n_errors, 1);
}

Test(memory, fail_after_loses_the_answer_only)
{
	struct plan plan = { .fault = { ICM_FAULT_FAIL_AFTER, -ETIMEDOUT, 0 },
			     .kinds = ICM_CALL_TXN };
	ICM_AUTORESULT struct icm_txn_result result = { 0 };

	icm_memory_set_fault(be, follow, &plan);
	cr_assert_eq(TXN(be, &result, OP_SET("k", "new"), OP_GET("k")), -ETIMEDOUT);
	cr_assert_eq(result.index, 0);
	cr_assert_eq(result.entries.n, 0);
	cr_assert(has(be, "k", "new"));
}

Test(memory, late_answers_now_and_applies_afterwards)
{
	struct plan plan = { .fault = { ICM_FAULT_LATE, 0, 200 * ICM_NS_PER_MS },
			     .kinds = ICM_CALL_TXN };
	int64_t start = icm_now_ns();
	char key[] = "k", value[] = "late";

	icm_memory_set_fault(be, follow, &plan);
	cr_assert_eq(DO(be, OP_SET(key, value)), -ETIMEDOUT);
	icm_memory_set_fault(be, NULL, NULL);
	/* the operations were borrowed for the call only */
	memset(key, 'x', 1);
	memset(value, 'x', 4);
	if (has(be, "k", "late"))
		cr_assert_geq(icm_now_ns(), start + plan.fault.late_ns);
	icm_memory_settle(be);
	cr_assert(has(be, "k", "late"));
	cr_assert(has(be, "x", NULL));
}

Test(memory, late_is_judged_when_it_arrives)
{
	struct plan plan = { .fault = { ICM_FAULT_LATE, 0, 20 * ICM_NS_PER_MS },
			     .kinds = ICM_CALL_TXN };
	uint64_t index = put(be, "k", "0");

	icm_memory_set_fault(be, follow, &plan);
	cr_assert_eq(DO(be, OP_CAS("k", "late", index)), -ETIMEDOUT);
	icm_memory_set_fault(be, NULL, NULL);
	/* whichever of the two is first, the other must fail */
	if (DO(be, OP_CAS("k", "mine", index)) == 0) {
		icm_memory_settle(be);
		cr_assert(has(be, "k", "mine"));
	} else {
		cr_assert(has(be, "k", "late"));
	}
}

Test(memory, late_ones_keep_their_order)
{
	struct plan plan = { .fault = { ICM_FAULT_LATE, 0, 40 * ICM_NS_PER_MS },
			     .kinds = ICM_CALL_TXN };
	uint64_t first, second;

	icm_memory_set_fault(be, follow, &plan);
	cr_assert_eq(DO(be, OP_SET("second", "x")), -ETIMEDOUT);
	plan.fault.late_ns = 1;
	cr_assert_eq(DO(be, OP_SET("first", "x")), -ETIMEDOUT);
	icm_memory_set_fault(be, NULL, NULL);
	icm_memory_settle(be);
	first = modified(be, "first");
	second = modified(be, "second");
	cr_assert(first && second);
}

Test(memory, late_wakes_watches)
{
	struct plan plan = { .fault = { ICM_FAULT_LATE, 0, 10 * ICM_NS_PER_MS },
			     .kinds = ICM_CALL_TXN };
	uint64_t since = store_index(be);

	icm_memory_set_fault(be, follow, &plan);
	cr_assert_eq(DO(be, OP_SET("k", "x")), -ETIMEDOUT);
	cr_assert_eq(icm_backend_watch(be, NULL, "", since, &since), 0);
	cr_assert(has(be, "k", "x"));
}

Test(memory, delay_takes_its_time)
{
	struct plan plan = { .fault = { ICM_FAULT_DELAY, 0, 30 * ICM_NS_PER_MS },
			     .kinds = ICM_CALL_ANY };
	int64_t start = icm_now_ns();

	icm_memory_set_fault(be, follow, &plan);
	put(be, "k", "x");
	cr_assert_geq(icm_now_ns(), start + plan.fault.late_ns);
	cr_assert(has(be, "k", "x"));
	cr_assert_geq(icm_now_ns(), start + 2 * plan.fault.late_ns);
}

Test(memory, who_gives_up_a_delayed_write_has_sent_it)
{
	struct plan plan = { .fault = { ICM_FAULT_DELAY, 0, 60 * ICM_NS_PER_MS },
			     .kinds = ICM_CALL_TXN };
	ICM_AUTORESULT struct icm_txn_result result = { 0 };
	struct icm_op op = OP_SET("k", "x");
	struct icm_ctx ctx = within_ms(5);

	icm_memory_set_fault(be, follow, &plan);
	cr_assert_eq(icm_backend_txn(be, &ctx, &op, 1, &result), -ETIMEDOUT);
	icm_memory_settle(be);
	cr_assert(has(be, "k", "x"));
}

Test(memory, a_lease_can_be_lost_in_all_these_ways)
{
	struct plan plan = { .fault = { ICM_FAULT_FAIL_AFTER, -ETIMEDOUT, 0 },
			     .kinds = ICM_CALL_LEASE };
	ICM_AUTOENTRIES struct icm_entries list = { 0 };
	struct icm_lease lease = { 0 };

	icm_memory_set_fault(be, follow, &plan);
	cr_assert_eq(icm_backend_lease_open(be, NULL, 0, "v", 1, &lease), -ETIMEDOUT);
	cr_assert_null(lease.key);
	cr_assert_eq(icm_backend_list(be, NULL, "lease/", true, &list, NULL), 0);
	cr_assert_eq(list.n, 1);

	icm_memory_set_fault(be, NULL, NULL);
	cr_assert_eq(icm_backend_lease_open(be, NULL, 0, "v", 1, &lease), 0);
	plan.fault = (struct icm_memory_fault){ ICM_FAULT_LATE, 0, ICM_NS_PER_MS };
	icm_memory_set_fault(be, follow, &plan);
	cr_assert_eq(icm_backend_lease_close(be, NULL, &lease), -ETIMEDOUT);
	icm_memory_set_fault(be, NULL, NULL);
	icm_memory_settle(be);
	cr_assert(has(be, lease.key, NULL));
	icm_lease_clear(&lease);
}

Test(memory, faults_of_one_instance_spare_the_other)
{
	struct plan plan = { .fault = { ICM_FAULT_FAIL, -EHOSTUNREACH, 0 }, .kinds = ICM_CALL_ANY };
	struct icm_backend *other = store_open();

	icm_memory_set_instance_fault(be, follow, &plan);
	cr_assert_eq(DO(be, OP_SET("k", "x")), -EHOSTUNREACH);
	put(other, "k", "y");
	icm_memory_set_instance_fault(be, NULL, NULL);
	cr_assert(has(be, "k", "y"));

	icm_memory_set_fault(other, follow, &plan);
	cr_assert_eq(DO(be, OP_SET("k", "x")), -EHOSTUNREACH, "faults of the store reach all");
	icm_memory_set_fault(be, NULL, NULL);
	put(other, "k", "z");
	icm_backend_close(other);
}

Test(memory, calls_are_counted_by_kind)
{
	uint64_t index = put(be, "k", "x");

	has(be, "k", "x");
	has(be, "l", NULL);
	cr_assert_eq(icm_memory_calls(be, ICM_CALL_TXN), 1);
	cr_assert_eq(icm_memory_calls(be, ICM_CALL_GET), 2);
	cr_assert_eq(icm_backend_watch(be, NULL, "", index - 1, &index), 0);
	cr_assert_eq(icm_memory_calls(be, ICM_CALL_GET | ICM_CALL_WATCH), 3);
	cr_assert_eq(icm_memory_calls(be, ICM_CALL_ANY), 4);
}

Test(memory, an_expired_lease_is_over)
{
	uint64_t since = 0, index = 0;
	struct icm_lease lease = { 0 };

	cr_assert_eq(icm_backend_lease_open(be, NULL, 0, "v", 1, &lease), 0);
	since = store_index(be);
	cr_assert_eq(icm_memory_expire_lease(be, lease.key), 0);
	cr_assert_eq(icm_backend_watch(be, NULL, "lease/", since, &index), 0);
	cr_assert(has(be, lease.key, NULL));
	cr_assert_eq(icm_backend_lease_renew(be, NULL, &lease), -ENOENT);
	cr_assert_eq(icm_memory_expire_lease(be, lease.key), -ENOENT);
	cr_assert_eq(icm_backend_lease_close(be, NULL, &lease), 0);
	icm_lease_clear(&lease);
}

Test(memory, a_store_ends_with_its_last_instance)
{
	struct icm_backend *other = store_open();

	put(be, "k", "x");
	be = icm_backend_close(be);
	cr_assert(has(other, "k", "x"));
	icm_backend_close(other);
	be = store_open();
	cr_assert(has(be, "k", NULL));
}

Test(memory, consul_limits_hold_for_later_instances)
{
	struct icm_backend *other;

	icm_memory_set_consul_limits(be);
	other = store_open();
	cr_assert_eq(other->facts.max_txn_ops, 64);
	cr_assert_eq(other->facts.max_txn_bytes, 524288);
	cr_assert(!other->facts.local);
	cr_assert(other->facts.lease_renewal);
	icm_backend_close(other);
}

/* What Consul's driver sends, as large as it gets: every field there. */
static json_t *body_of(const struct icm_op *op)
{
	static const char *const verbs[] = { "get", "get-tree", "check-index", "check-not-exists",
					     "set", "cas",	"delete",      "delete-cas" };
	ICM_AUTOFREE char *value = icm_base64_encode(op->value, op->len);

	return json_pack("{s:{s:s,s:s,s:s,s:I,s:I}}", "KV", "Verb", verbs[op->type], "Key", op->key,
			 "Value", value, "Flags", INT64_MIN, "Index", INT64_MIN);
}

Test(memory, the_cost_is_never_below_consuls)
{
	char key[96] = { 0 }, value[200] = { 0 };
	size_t cost = 0, n = 1000;
	json_t *body = json_array();
	ICM_AUTOFREE char *text = NULL;

	icm_memory_set_consul_limits(be);
	for (size_t i = 0; i < n; i++) {
		struct icm_op op = { .type = (enum icm_op_type)(i % 8),
				     .key = key,
				     .value = value,
				     .len = i % sizeof(value) };

		/* every key byte, quotes and backslashes among them */
		for (size_t j = 0; j < sizeof(key) - 1; j++)
			key[j] = (char)(0x20 + (i * 7 + j) % 95);
		key[1 + i % (sizeof(key) - 1)] = '\0';
		json_array_append_new(body, body_of(&op));
		cost += icm_backend_op_cost(be, &op);
	}
	text = json_dumps(body, JSON_COMPACT);
	cr_assert_geq(cost, strlen(text));
	cr_assert_leq(cost, 2 * strlen(text), "and not far above");
	json_decref(body);
}
