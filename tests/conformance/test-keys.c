/* SPDX-License-Identifier: MIT
 * Single keys and listings. */
#include "store.h"

TestSuite(keys, .init = store_setup, .fini = store_teardown, .timeout = 120);

Test(keys, get_reads_what_was_set)
{
	struct icm_op op = OP_SET("tree/a", "hello");
	ICM_AUTORESULT struct icm_txn_result result = { 0 };
	ICM_AUTOENTRY struct icm_entry e = { 0 };

	op.flags = 7;
	cr_assert_eq(TXN(be, &result, op), 0);
	cr_assert_eq(icm_backend_get(be, NULL, "tree/a", &e), 0);
	cr_assert(entry_is(&e, "tree/a", "hello"));
	cr_assert_eq(e.flags, 7);
	cr_assert_eq(e.create_index, result.index);
	cr_assert_eq(e.modify_index, result.index);
}

Test(keys, get_of_a_missing_key_leaves_the_output)
{
	struct icm_entry e = { .flags = 42 };

	put(be, "ab", "x");
	cr_assert_eq(icm_backend_get(be, NULL, "a", &e), -ENOENT);
	cr_assert_eq(icm_backend_get(be, NULL, "abc", &e), -ENOENT);
	cr_assert_eq(e.flags, 42);
	cr_assert_null(e.key);
}

Test(keys, another_instance_sees_a_write_at_once)
{
	struct icm_backend *other = store_open();
	struct icm_ctx consistent = { .consistent = true };

	for (int i = 0; i < 50; i++) {
		ICM_AUTOFREE char *value = icm_asprintf("%d", i);
		ICM_AUTOENTRY struct icm_entry e = { 0 };

		put(be, "k", value);
		cr_assert_eq(icm_backend_get(other, &consistent, "k", &e), 0);
		cr_assert(entry_is(&e, "k", value));
	}
	icm_backend_close(other);
}

Test(keys, delete_removes)
{
	put(be, "k", "x");
	cr_assert_eq(DO(be, OP_DELETE("k")), 0);
	cr_assert(has(be, "k", NULL));
	cr_assert_eq(DO(be, OP_DELETE("k")), 0);
}

Test(keys, an_empty_value_is_a_value)
{
	ICM_AUTOENTRY struct icm_entry e = { 0 };
	struct icm_op op = { .type = ICM_OP_SET, .key = "k" };

	cr_assert_eq(DO(be, op), 0);
	cr_assert_eq(icm_backend_get(be, NULL, "k", &e), 0);
	cr_assert_not_null(e.value);
	cr_assert_eq(e.len, 0);
	put(be, "k", "x");
	cr_assert(has(be, "k", "x"));
	cr_assert_eq(DO(be, op), 0);
	cr_assert(has(be, "k", ""));
}

Test(keys, values_are_any_bytes)
{
	ICM_AUTOENTRY struct icm_entry e = { 0 };
	unsigned char bytes[1024];
	struct icm_op op = { .type = ICM_OP_SET, .key = "k", .value = bytes, .len = sizeof(bytes) };

	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (unsigned char)(i * 7 + i / 256);
	cr_assert_eq(DO(be, op), 0);
	cr_assert_eq(icm_backend_get(be, NULL, "k", &e), 0);
	cr_assert_eq(e.len, sizeof(bytes));
	cr_assert_eq(memcmp(e.value, bytes, sizeof(bytes)), 0);
}

Test(keys, flags_have_64_bits)
{
	static const uint64_t flags[] = { 0,
					  1,
					  UINT64_C(1) << 31,
					  UINT64_C(1) << 32,
					  UINT64_C(1) << 53 | 1,
					  UINT64_C(1) << 63,
					  UINT64_MAX };

	for (size_t i = 0; i < ICM_COUNT(flags); i++) {
		ICM_AUTOENTRY struct icm_entry e = { 0 };
		struct icm_op op = OP_SET("k", "same");

		op.flags = flags[i];
		cr_assert_eq(DO(be, op), 0);
		cr_assert_eq(icm_backend_get(be, NULL, "k", &e), 0);
		cr_assert_eq(e.flags, flags[i]);
	}
}

Test(keys, a_change_of_flags_alone_is_a_change)
{
	struct icm_op op = OP_SET("k", "same");
	uint64_t before = put(be, "k", "same");

	op.flags = 1;
	cr_assert_eq(DO(be, op), 0);
	cr_assert_gt(modified(be, "k"), before);
}

static const char *const odd_keys[] = {
	/* in byte order */
	" ",   " a",   "!",   "\"",	  "%",	"%2F",	"%25",	 "..",	 "../..",     "./",  ".//",
	"/",   "//",   "///", "?a=b&c#d", "A",	"\\",	"a",	 "a b",	 "a/",	      "a//", "a//b",
	"a/b", "a/b/", "a;",  "a~",	  "ab", "tree", "tree/", "trex", "{\"k\":1}", "~",   "~~",
};

static int by_bytes(const void *a, const void *b)
{
	return strcmp(*(const char *const *)a, *(const char *const *)b);
}

Test(keys, odd_keys_are_ordinary)
{
	ICM_AUTOENTRIES struct icm_entries list = { 0 };
	const char *sorted[ICM_COUNT(odd_keys)];

	for (size_t i = 0; i < ICM_COUNT(odd_keys); i++)
		put(be, odd_keys[i], odd_keys[i]);
	for (size_t i = 0; i < ICM_COUNT(odd_keys); i++)
		cr_assert(has(be, odd_keys[i], odd_keys[i]), "%s", odd_keys[i]);

	memcpy(sorted, odd_keys, sizeof(sorted));
	qsort(sorted, ICM_COUNT(sorted), sizeof(*sorted), by_bytes);
	cr_assert_eq(icm_backend_list(be, NULL, "", false, &list, NULL), 0);
	cr_assert_eq(list.n, ICM_COUNT(sorted));
	for (size_t i = 0; i < list.n; i++)
		cr_assert(entry_is(&list.v[i], sorted[i], sorted[i]), "%s", sorted[i]);
}

Test(keys, every_key_byte_is_kept)
{
	for (int c = 0x20; c <= 0x7e; c++) {
		char key[] = { 'k', (char)c, 'z', '\0' };

		put(be, key, key);
	}
	for (int c = 0x20; c <= 0x7e; c++) {
		ICM_AUTOENTRIES struct icm_entries list = { 0 };
		char key[] = { 'k', (char)c, 'z', '\0' }, prefix[] = { 'k', (char)c, '\0' };

		cr_assert(has(be, key, key));
		cr_assert_eq(icm_backend_list(be, NULL, prefix, true, &list, NULL), 0);
		cr_assert_eq(list.n, 1);
		cr_assert_str_eq(list.v[0].key, key);
	}
}

Test(keys, long_keys)
{
	ICM_AUTOFREE char *key = icm_xmalloc(4201);

	memset(key, 'k', 4200);
	key[4200] = '\0';
	put(be, key, "long");
	key[4199] = 'j';
	put(be, key, "other");
	cr_assert(has(be, key, "other"));
	key[4199] = 'k';
	cr_assert(has(be, key, "long"));
}

Test(keys, create_index_is_kept_until_the_key_is_deleted)
{
	uint64_t created = put(be, "k", "1"), changed = put(be, "k", "2");

	for (int round = 0; round < 2; round++) {
		ICM_AUTOENTRY struct icm_entry e = { 0 };

		cr_assert_eq(icm_backend_get(be, NULL, "k", &e), 0);
		cr_assert_eq(e.create_index, created);
		cr_assert_eq(e.modify_index, changed);
		cr_assert_eq(DO(be, OP_DELETE("k")), 0);
		created = put(be, "k", "1");
		cr_assert_gt(created, changed);
		changed = put(be, "k", "2");
	}
}

/* ---- listings ---- */

/* The keys of a listing, separated by blanks. */
static char *listing(const char *prefix)
{
	ICM_AUTOENTRIES struct icm_entries list = { 0 };
	struct icm_buf b = ICM_BUF_INIT(0);

	must_be(icm_backend_list(be, NULL, prefix, true, &list, NULL), 0);
	for (size_t i = 0; i < list.n; i++)
		icm_buf_addf(&b, "%s%s", i ? " " : "", list.v[i].key);
	return icm_buf_steal(&b, NULL);
}

Test(keys, a_listing_has_the_keys_that_start_with_the_prefix)
{
	static const struct {
		const char *prefix, *keys;
	} cases[] = {
		{ "a", "a a/ a/b a/b/c a0 ab" },
		{ "a/", "a/ a/b a/b/c" },
		{ "a/b", "a/b a/b/c" },
		{ "a/b/", "a/b/c" },
		{ "a/b/c/", "" },
		{ "b", "b~" },
		{ "b~", "b~" },
		{ "b~~", "" },
		{ "c", "" },
		{ "", "a a/ a/b a/b/c a0 ab b~" },
	};

	cr_assert_eq(DO(be, OP_SET("ab", ""), OP_SET("a/b/c", ""), OP_SET("b~", ""),
			OP_SET("a", ""), OP_SET("a0", ""), OP_SET("a/", ""), OP_SET("a/b", "")),
		     0);
	for (size_t i = 0; i < ICM_COUNT(cases); i++) {
		ICM_AUTOFREE char *keys = listing(cases[i].prefix);

		cr_assert_str_eq(keys, cases[i].keys, "prefix \"%s\"", cases[i].prefix);
	}
}

Test(keys, keys_only_leaves_out_values_and_nothing_else)
{
	ICM_AUTOENTRIES struct icm_entries list = { 0 };
	struct icm_op op = OP_SET("p/k", "value");
	uint64_t created = put(be, "p/k", "first"), changed;
	ICM_AUTORESULT struct icm_txn_result result = { 0 };

	op.flags = 99;
	cr_assert_eq(TXN(be, &result, op), 0);
	changed = result.index;
	cr_assert_eq(icm_backend_list(be, NULL, "p/", true, &list, NULL), 0);
	cr_assert_eq(list.n, 1);
	cr_assert_null(list.v[0].value);
	if (!list.v[0].modify_index) /* a store may tell names alone */
		return;
	cr_assert_eq(list.v[0].flags, 99);
	cr_assert_eq(list.v[0].create_index, created);
	cr_assert_eq(list.v[0].modify_index, changed);
}

Test(keys, a_listing_has_values_flags_and_indexes)
{
	ICM_AUTOENTRIES struct icm_entries list = { 0 };
	uint64_t index = 0, first, second;

	first = put(be, "p/a", "1");
	second = put(be, "p/b", "");
	cr_assert_eq(icm_backend_list(be, NULL, "p/", false, &list, &index), 0);
	cr_assert_eq(list.n, 2);
	cr_assert(entry_is(&list.v[0], "p/a", "1"));
	cr_assert(entry_is(&list.v[1], "p/b", ""));
	cr_assert_eq(list.v[0].modify_index, first);
	cr_assert_eq(list.v[1].modify_index, second);
	cr_assert_geq(index, second);
}

Test(keys, a_listing_of_nothing_has_an_index)
{
	ICM_AUTOENTRIES struct icm_entries list = { 0 };
	uint64_t index = 0;

	cr_assert_eq(icm_backend_list(be, NULL, "", false, &list, &index), 0);
	cr_assert_eq(list.n, 0);
	cr_assert_gt(index, 0);
}

Test(keys, a_listing_of_thousands_is_complete_and_in_order)
{
	ICM_AUTOENTRIES struct icm_entries list = { 0 };
	static char keys[3000][16];
	static struct icm_op ops[3000];
	size_t step = be->facts.max_txn_ops ? be->facts.max_txn_ops : 1000;

	for (size_t i = 0; i < ICM_COUNT(ops); i++) {
		/* not in order of keys */
		snprintf(keys[i], sizeof(keys[i]), "many/%04zu", i * 1009 % ICM_COUNT(ops));
		ops[i] = OP_SET(keys[i], keys[i]);
	}
	for (size_t i = 0; i < ICM_COUNT(ops); i += step) {
		ICM_AUTORESULT struct icm_txn_result result = { 0 };
		size_t n = ICM_COUNT(ops) - i < step ? ICM_COUNT(ops) - i : step;

		cr_assert_eq(icm_backend_txn(be, NULL, &ops[i], n, &result), 0);
	}
	cr_assert_eq(icm_backend_list(be, NULL, "many/", false, &list, NULL), 0);
	cr_assert_eq(list.n, ICM_COUNT(ops));
	for (size_t i = 0; i < list.n; i++) {
		ICM_AUTOFREE char *key = icm_asprintf("many/%04zu", i);

		cr_assert(entry_is(&list.v[i], key, key));
	}
}

/* ---- indexes ---- */

Test(keys, the_index_of_a_prefix_grows_with_every_change_under_it)
{
	uint64_t last = 0, now = 0;

	cr_assert_eq(icm_backend_index(be, NULL, "p/", &last), 0);
	put(be, "p/a", "1");
	cr_assert_eq(icm_backend_index(be, NULL, "p/", &now), 0);
	cr_assert_gt(now, last);
	last = now;
	cr_assert_eq(DO(be, OP_DELETE("p/a")), 0);
	cr_assert_eq(icm_backend_index(be, NULL, "p/", &now), 0);
	cr_assert_gt(now, last, "a deletion counts");
	last = now;
	cr_assert_eq(DO(be, OP_SET("p/b", "1"), OP_SET("p/c", "2")), 0);
	cr_assert_eq(icm_backend_index(be, NULL, "p/", &now), 0);
	cr_assert_gt(now, last);
	cr_assert_geq(now, modified(be, "p/c"));
}

Test(keys, what_changes_nothing_moves_no_index)
{
	uint64_t before, now = 0;

	put(be, "p/a", "1");
	cr_assert_eq(icm_backend_index(be, NULL, "p/", &before), 0);
	cr_assert_eq(DO(be, OP_DELETE("p/missing")), 0);
	cr_assert_eq(DO(be, OP_DELETE_CAS("p/missing", 7)), 0);
	cr_assert_eq(DO(be, OP_CHECK("p/a", modified(be, "p/a"))), 0);
	cr_assert_eq(DO(be, OP_GET("p/a")), 0);
	cr_assert_eq(DO(be, OP_SET("p/b", "1"), OP_ABSENT("p/a")), -ESTALE);
	cr_assert_eq(icm_backend_index(be, NULL, "p/", &now), 0);
	cr_assert_eq(now, before);
}
