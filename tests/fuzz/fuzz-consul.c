/* SPDX-License-Identifier: MIT
 * Answers of Consul. The first byte says to what: a listing, names, a transaction
 * that took place or was refused, a new session. What is accepted keeps what the
 * driver's callers rely on. */
#include "backends/consul/wire.h"
#include "tests/fuzz/fuzz.h"

#define PREFIX "icm/x/"

static const struct icm_op ops[] = {
	{ .type = ICM_OP_GET, .key = "a" },
	{ .type = ICM_OP_GET_TREE, .key = "t/" },
	{ .type = ICM_OP_CHECK_INDEX, .key = "c" },
	{ .type = ICM_OP_CHECK_ABSENT, .key = "d" },
	{ .type = ICM_OP_CAS, .key = "b", .index = 3 },
	{ .type = ICM_OP_DELETE, .key = "e" },
	{ .type = ICM_OP_GET_TREE, .key = "" },
};

static void require_key(const char *key)
{
	FUZZ_REQUIRE(key && *key);
	for (; *key; key++)
		FUZZ_REQUIRE(*key >= 0x20 && *key <= 0x7e);
}

static void require_entry(const struct icm_entry *e)
{
	require_key(e->key);
	FUZZ_REQUIRE(e->value);
	FUZZ_REQUIRE(e->create_index && e->modify_index >= e->create_index);
}

/* In byte order, below what was asked for. */
static void listing(const void *data, size_t len, bool keys_only)
{
	ICM_AUTOENTRIES struct icm_entries list = { 0 };
	int r = keys_only ? wire_keys(data, len, PREFIX, "t", &list)
			  : wire_entries(data, len, PREFIX, "t", &list);

	FUZZ_REQUIRE(r == 0 || r == -EPROTO);
	for (size_t i = 0; r == 0 && i < list.n; i++) {
		require_key(list.v[i].key);
		FUZZ_REQUIRE(list.v[i].key[0] == 't');
		if (!keys_only)
			require_entry(&list.v[i]);
		FUZZ_REQUIRE(!i || strcmp(list.v[i - 1].key, list.v[i].key) < 0);
	}
}

static void results(const void *data, size_t len)
{
	ICM_AUTORESULT struct icm_txn_result result = { 0 };
	int r = wire_results(data, len, PREFIX, ops, ICM_COUNT(ops), &result);

	FUZZ_REQUIRE(r == 0 || r == -EPROTO || r == -EACCES);
	for (size_t i = 0; r == 0 && i < result.entries.n; i++) {
		const struct icm_entry *e = &result.entries.v[i];

		require_entry(e);
		FUZZ_REQUIRE(e->op < ICM_COUNT(ops));
		FUZZ_REQUIRE(ops[e->op].type == ICM_OP_GET || ops[e->op].type == ICM_OP_GET_TREE);
		FUZZ_REQUIRE(!strncmp(e->key, ops[e->op].key, strlen(ops[e->op].key)));
		FUZZ_REQUIRE(!i || result.entries.v[i - 1].op <= e->op);
	}
}

static void errors(const void *data, size_t len)
{
	ICM_AUTORESULT struct icm_txn_result result = { 0 };
	int r = wire_errors(data, len, ops, ICM_COUNT(ops), &result);

	FUZZ_REQUIRE(r == -ESTALE || r == -EACCES || r == -EPROTO || r == -EIO);
	FUZZ_REQUIRE((r == -ESTALE || r == -EACCES) == (result.n_errors > 0));
	for (size_t i = 0; i < result.n_errors; i++)
		FUZZ_REQUIRE(result.errors[i].op < ICM_COUNT(ops));
}

static void session(const void *data, size_t len)
{
	char id[37];

	if (wire_session(data, len, id) == 0)
		FUZZ_REQUIRE(strlen(id) == 36);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	if (!size)
		return 0;
	switch (*data++) {
	case 'l':
		listing(data, size - 1, false);
		break;
	case 'k':
		listing(data, size - 1, true);
		break;
	case 'r':
		results(data, size - 1);
		break;
	case 'e':
		errors(data, size - 1);
		break;
	case 's':
		session(data, size - 1);
		break;
	}
	return 0;
}
