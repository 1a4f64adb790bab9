/* SPDX-License-Identifier: MIT
 * fs/util: buffers, scope cleanup, clocks, digests and the hash table. */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "util/buf.h"
#include "util/clock.h"
#include "util/digest.h"
#include "util/map.h"

Test(buf, text_is_terminated_after_every_addition)
{
	ICM_AUTOBUF struct icm_buf b = ICM_BUF_INIT(0);

	cr_assert_eq(icm_buf_add(&b, "ab", 2), 0);
	cr_assert_str_eq(b.data, "ab");
	cr_assert_eq(icm_buf_addc(&b, 'c'), 0);
	cr_assert_str_eq(b.data, "abc");
	cr_assert_eq(icm_buf_addstr(&b, "de"), 0);
	cr_assert_eq(icm_buf_addf(&b, "%d/%s", 7, "x"), 0);
	cr_assert_str_eq(b.data, "abcde7/x");
	cr_assert_eq(b.len, 8);
}

Test(buf, bytes_may_contain_nul)
{
	ICM_AUTOBUF struct icm_buf b = ICM_BUF_INIT(0);

	cr_assert_eq(icm_buf_add(&b, "a\0b", 3), 0);
	cr_assert_eq(b.len, 3);
	cr_assert_arr_eq(b.data, "a\0b", 4);
}

Test(buf, adding_nothing_is_fine)
{
	ICM_AUTOBUF struct icm_buf b = ICM_BUF_INIT(0);

	cr_assert_eq(icm_buf_add(&b, NULL, 0), 0);
	cr_assert_eq(b.len, 0);
	cr_assert_str_eq(b.data, "");
}

Test(buf, grows_over_many_additions)
{
	ICM_AUTOBUF struct icm_buf b = ICM_BUF_INIT(0);

	for (int i = 0; i < 100000; i++)
		cr_assert_eq(icm_buf_addc(&b, (char)('a' + i % 26)), 0);
	cr_assert_eq(b.len, 100000);
	for (size_t i = 0; i < b.len; i++)
		cr_assert_eq(b.data[i], (char)('a' + i % 26));
}

Test(buf, ceiling_is_reached_exactly_and_refusal_adds_nothing)
{
	ICM_AUTOBUF struct icm_buf b = ICM_BUF_INIT(4);

	cr_assert_eq(icm_buf_addstr(&b, "abc"), 0);
	cr_assert_eq(icm_buf_addstr(&b, "de"), -EFBIG);
	cr_assert_str_eq(b.data, "abc");
	cr_assert_eq(icm_buf_addc(&b, 'd'), 0);
	cr_assert_eq(icm_buf_addc(&b, 'e'), -EFBIG);
	cr_assert_eq(icm_buf_addf(&b, "%d", 1), -EFBIG);
	cr_assert_str_eq(b.data, "abcd");
}

Test(buf, size_overflow_is_refused)
{
	ICM_AUTOBUF struct icm_buf b = ICM_BUF_INIT(0);

	cr_assert_eq(icm_buf_addc(&b, 'x'), 0);
	cr_assert_eq(icm_buf_reserve(&b, SIZE_MAX), -EFBIG);
	cr_assert_eq(icm_buf_reserve(&b, SIZE_MAX - 1), -EFBIG);
	cr_assert_str_eq(b.data, "x");
}

Test(buf, reserve_makes_room_without_changing_the_length)
{
	ICM_AUTOBUF struct icm_buf b = ICM_BUF_INIT(0);

	cr_assert_eq(icm_buf_reserve(&b, 1000), 0);
	cr_assert_eq(b.len, 0);
	cr_assert_gt(b.cap, 1000);
}

Test(buf, reset_keeps_memory_and_free_is_repeatable)
{
	struct icm_buf b = ICM_BUF_INIT(0);

	icm_buf_reset(&b);
	cr_assert_eq(icm_buf_addstr(&b, "abc"), 0);
	icm_buf_reset(&b);
	cr_assert_eq(b.len, 0);
	cr_assert_str_eq(b.data, "");
	cr_assert_gt(b.cap, 0);
	icm_buf_free(&b);
	icm_buf_free(&b);
	cr_assert_null(b.data);
}

Test(buf, steal_never_returns_null)
{
	struct icm_buf b = ICM_BUF_INIT(0);
	ICM_AUTOFREE char *empty = icm_buf_steal(&b, NULL);
	ICM_AUTOFREE char *text = NULL;
	size_t len = 99;

	cr_assert_str_eq(empty, "");
	cr_assert_eq(icm_buf_addstr(&b, "abc"), 0);
	text = icm_buf_steal(&b, &len);
	cr_assert_eq(len, 3);
	cr_assert_str_eq(text, "abc");
	cr_assert_null(b.data);
}

Test(buf, string_helpers_copy)
{
	ICM_AUTOFREE char *part = icm_xstrndup("abcdef", 3);
	ICM_AUTOFREE char *shorter = icm_xstrndup("ab", 10);
	ICM_AUTOFREE char *all = icm_xstrdup("abc");
	ICM_AUTOFREE void *bytes = icm_xmemdup("a\0b", 3);
	ICM_AUTOFREE void *nothing = icm_xmemdup(NULL, 0);
	ICM_AUTOFREE char *printed = icm_asprintf("%s-%d", "a", 1);

	cr_assert_str_eq(part, "abc");
	cr_assert_str_eq(shorter, "ab");
	cr_assert_str_eq(all, "abc");
	cr_assert_arr_eq(bytes, "a\0b", 3);
	cr_assert_not_null(nothing);
	cr_assert_str_eq(printed, "a-1");
}

static int unlocked_after_scope(pthread_mutex_t *m)
{
	{
		ICM_LOCK_SCOPE(m);
		if (pthread_mutex_trylock(m) != EBUSY)
			return -EINVAL;
	}
	return pthread_mutex_trylock(m);
}

Test(cleanup, lock_is_held_until_the_scope_ends)
{
	pthread_mutex_t m = PTHREAD_MUTEX_INITIALIZER;

	cr_assert_eq(unlocked_after_scope(&m), 0);
	pthread_mutex_unlock(&m);
}

Test(cleanup, stealing_leaves_null_and_cleanup_keeps_errno)
{
	char *p = icm_xstrdup("x");
	ICM_AUTOFREE char *q = ICM_STEAL(&p);
	int fd = -1;
	FILE *none = NULL;

	cr_assert_null(p);
	cr_assert_str_eq(q, "x");
	errno = EXDEV;
	icm_closep(&fd);
	icm_fclosep(&none);
	icm_freep(&p);
	cr_assert_eq(errno, EXDEV);
}

Test(clock, times_are_compared_by_second_then_nanosecond)
{
	struct timespec a = { .tv_sec = 1, .tv_nsec = 5 };
	struct timespec b = { .tv_sec = 2, .tv_nsec = 0 };
	struct timespec c = { .tv_sec = 1, .tv_nsec = 6 };

	cr_assert_eq(icm_timespec_cmp(a, b), -1);
	cr_assert_eq(icm_timespec_cmp(b, a), 1);
	cr_assert_eq(icm_timespec_cmp(a, c), -1);
	cr_assert_eq(icm_timespec_cmp(c, a), 1);
	cr_assert_eq(icm_timespec_cmp(a, a), 0);
}

Test(clock, nanoseconds_split_into_a_timespec_and_clocks_advance)
{
	struct timespec t = icm_ns_to_timespec(INT64_C(1500000007));
	int64_t before = icm_now_ns();

	cr_assert_eq(t.tv_sec, 1);
	cr_assert_eq(t.tv_nsec, 500000007);
	cr_assert_geq(icm_now_ns(), before);
	cr_assert_gt(icm_boottime_ns(), 0);
	cr_assert_gt(icm_wall_time().tv_sec, 1500000000);
}

Test(digest, sha256_equals_the_published_vectors)
{
	/* FIPS 180-4 examples */
	static const struct {
		const char *text, *hex;
	} cases[] = {
		{ "", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855" },
		{ "abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad" },
	};

	for (size_t i = 0; i < ICM_COUNT(cases); i++) {
		struct icm_sha256 sum = icm_sha256(cases[i].text, strlen(cases[i].text));
		struct icm_sha256 again;
		char hex[ICM_SHA256_HEX + 1];

		icm_sha256_to_hex(&sum, hex);
		cr_assert_str_eq(hex, cases[i].hex);
		cr_assert_eq(icm_sha256_from_hex(hex, &again), 0);
		cr_assert_arr_eq(again.bytes, sum.bytes, sizeof(sum.bytes));
	}
}

Test(digest, hex_of_another_spelling_is_refused)
{
	char hex[ICM_SHA256_HEX + 2];
	struct icm_sha256 sum;

	memset(hex, 'a', sizeof(hex) - 1);
	hex[65] = '\0';
	cr_assert_eq(icm_sha256_from_hex(hex, &sum), -EINVAL, "too long");
	hex[63] = '\0';
	cr_assert_eq(icm_sha256_from_hex(hex, &sum), -EINVAL, "too short");
	cr_assert_eq(icm_sha256_from_hex("", &sum), -EINVAL);
	hex[63] = 'A';
	hex[64] = '\0';
	cr_assert_eq(icm_sha256_from_hex(hex, &sum), -EINVAL, "upper case");
	hex[63] = 'g';
	cr_assert_eq(icm_sha256_from_hex(hex, &sum), -EINVAL, "no digit");
	hex[63] = '0';
	cr_assert_eq(icm_sha256_from_hex(hex, &sum), 0);
}

Test(digest, ids_are_sixteen_hex_digits_and_differ)
{
	char a[ICM_ID_HEX + 1], b[ICM_ID_HEX + 1];

	icm_random_id(a);
	icm_random_id(b);
	cr_assert_eq(strlen(a), ICM_ID_HEX);
	cr_assert_eq(strspn(a, "0123456789abcdef"), ICM_ID_HEX);
	cr_assert_str_neq(a, b);
	cr_assert_neq(icm_random_u64(), icm_random_u64());
}

Test(digest, base64_equals_rfc_4648_and_comes_back)
{
	static const struct {
		const char *text, *base64;
	} cases[] = {
		{ "", "" },
		{ "f", "Zg==" },
		{ "fo", "Zm8=" },
		{ "foo", "Zm9v" },
		{ "foob", "Zm9vYg==" },
		{ "fooba", "Zm9vYmE=" },
		{ "foobar", "Zm9vYmFy" },
	};

	for (size_t i = 0; i < ICM_COUNT(cases); i++) {
		size_t want = strlen(cases[i].text), len = 99;
		ICM_AUTOFREE char *base64 = icm_base64_encode(cases[i].text, want);
		ICM_AUTOFREE void *data = NULL;

		cr_assert_str_eq(base64, cases[i].base64);
		cr_assert_eq(icm_base64_decode(base64, &data, &len), 0);
		cr_assert_not_null(data);
		cr_assert_eq(len, want);
		cr_assert_eq(memcmp(data, cases[i].text, want), 0);
	}
}

Test(digest, base64_of_all_bytes_comes_back)
{
	unsigned char bytes[256];

	for (size_t i = 0; i < sizeof(bytes); i++)
		bytes[i] = (unsigned char)(255 - i);
	for (size_t n = 0; n <= sizeof(bytes); n++) {
		ICM_AUTOFREE char *base64 = icm_base64_encode(bytes, n);
		ICM_AUTOFREE void *data = NULL;
		size_t len;

		cr_assert_eq(icm_base64_decode(base64, &data, &len), 0);
		cr_assert_eq(len, n);
		cr_assert_eq(memcmp(data, bytes, n), 0);
	}
}

Test(digest, base64_in_any_other_spelling_is_refused)
{
	static const char *const bad[] = {
		"Z",	    "Zg",     "Zg=",	"Zg===",   "====",  "Z===",	"=Zg=",
		"Zh==",	    "Zm9=",   " Zg==",	"Zg==\n",  "Zg== ", "Z-8_",	"Zm9vYg",
		"Zg==Zg==", "Zm9v\n", "Zm\n9v", "\x80m9v", "    ",  "Zm9v    ",
	};

	for (size_t i = 0; i < ICM_COUNT(bad); i++) {
		void *data = NULL;
		size_t len = 77;

		cr_assert_eq(icm_base64_decode(bad[i], &data, &len), -EINVAL, "\"%s\"", bad[i]);
		cr_assert_null(data);
		cr_assert_eq(len, 77);
	}
}

struct item {
	struct icm_map_node node;
	unsigned int number;
};

Test(map, empty_table_finds_nothing_and_can_be_freed)
{
	struct icm_map m = { 0 };

	cr_assert_null(icm_map_first(&m, 1));
	icm_map_for_each (&m, i, node)
		cr_assert_fail("there is nothing");
	icm_map_free(&m);
	icm_map_free(&m);
}

Test(map, every_item_is_found_until_it_is_removed)
{
	enum { N = 5000 };
	static struct item items[N];
	struct icm_map m = { 0 };
	size_t seen = 0;

	for (unsigned int i = 0; i < N; i++) {
		items[i].number = i;
		icm_map_add(&m, &items[i].node, icm_hash_u64(i));
	}
	cr_assert_eq(m.count, N);
	icm_map_for_each (&m, b, node)
		seen++;
	cr_assert_eq(seen, N);
	for (unsigned int i = 0; i < N; i += 2)
		icm_map_remove(&m, &items[i].node);
	cr_assert_eq(m.count, N / 2);
	for (unsigned int i = 0; i < N; i++) {
		struct icm_map_node *node = icm_map_first(&m, icm_hash_u64(i));

		if (i % 2 == 0) {
			cr_assert_null(node);
			continue;
		}
		cr_assert_eq(ICM_CONTAINER(node, struct item, node)->number, i);
	}
	icm_map_free(&m);
}

Test(map, items_of_one_hash_are_all_walked)
{
	struct item items[3] = { { .number = 1 }, { .number = 2 }, { .number = 4 } };
	struct item other = { .number = 8 };
	struct icm_map m = { 0 };
	unsigned int sum = 0;

	for (size_t i = 0; i < 3; i++)
		icm_map_add(&m, &items[i].node, 42);
	icm_map_add(&m, &other.node, 42 + 16); /* the same bucket of 16 */
	for (struct icm_map_node *n = icm_map_first(&m, 42); n; n = icm_map_next(n))
		sum += ICM_CONTAINER(n, struct item, node)->number;
	cr_assert_eq(sum, 7);
	icm_map_remove(&m, &items[1].node);
	sum = 0;
	for (struct icm_map_node *n = icm_map_first(&m, 42); n; n = icm_map_next(n))
		sum += ICM_CONTAINER(n, struct item, node)->number;
	cr_assert_eq(sum, 5);
	icm_map_free(&m);
}

Test(map, hash_depends_on_bytes_and_seed)
{
	cr_assert_neq(icm_hash_bytes("a", 1, 0), icm_hash_bytes("b", 1, 0));
	cr_assert_neq(icm_hash_bytes("a", 1, 0), icm_hash_bytes("a", 1, 1));
	cr_assert_neq(icm_hash_bytes("a\0", 2, 0), icm_hash_bytes("a", 1, 0));
	cr_assert_eq(icm_hash_bytes("a\0b", 3, 7), icm_hash_bytes("a\0b", 3, 7));
}
