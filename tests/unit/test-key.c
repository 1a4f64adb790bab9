/* SPDX-License-Identifier: MIT
 * Keys and paths: one spelling per name, both ways. */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>

#include "core/key.h"
#include "core/record.h"

static void assert_roundtrip(const char *path)
{
	ICM_AUTOFREE char *encoded = icm_key_encoded(path);
	ICM_AUTOFREE char *again = NULL;

	cr_assert_eq(icm_key_decode(encoded, &again), 0, "\"%s\"", encoded);
	cr_assert_str_eq(again, path);
}

Test(key, every_byte_survives_a_roundtrip)
{
	for (int c = 1; c < 256; c++) {
		char path[] = { 'a', (char)c, 'b', '\0' };

		assert_roundtrip(path);
	}
}

Test(key, exactly_the_listed_characters_stand_for_themselves)
{
	static const char listed[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
				     "0123456789-_.~+,=@ ()[]{}!$&';";

	for (int c = 1; c < 256; c++) {
		char name[] = { (char)c, '\0' };
		char percent[4];
		ICM_AUTOFREE char *encoded = icm_key_encoded(name);

		snprintf(percent, sizeof(percent), "%%%02X", c);
		if (c == '/' || strchr(listed, c))
			cr_assert_str_eq(encoded, name);
		else
			cr_assert_str_eq(encoded, percent);
	}
}

Test(key, paths_are_spelled_as_documented)
{
	static const struct {
		const char *path, *encoded;
	} cases[] = {
		{ "", "" },
		{ "a", "a" },
		{ "a/b/c", "a/b/c" },
		{ ".a", ".a" },
		{ "...", "..." },
		{ "a..b", "a..b" },
		{ "100%", "100%25" },
		{ "%v", "%25v" },
		{ "%61", "%2561" },
		{ "new\nline", "new%0Aline" },
		{ "caf\xc3\xa9", "caf%C3%A9" },
		{ "bad\xff\xfe", "bad%FF%FE" },
		{ "a:b?c#d*e\\f\"g|h<i>", "a%3Ab%3Fc%23d%2Ae%5Cf%22g%7Ch%3Ci%3E" },
		{ "with space/and 'quote'", "with space/and 'quote'" },
		{ "\x7f", "%7F" },
	};

	for (size_t i = 0; i < ICM_COUNT(cases); i++) {
		ICM_AUTOFREE char *encoded = icm_key_encoded(cases[i].path);

		cr_assert_str_eq(encoded, cases[i].encoded);
		assert_roundtrip(cases[i].path);
	}
}

Test(key, encoding_appends_and_respects_the_ceiling)
{
	ICM_AUTOBUF struct icm_buf b = ICM_BUF_INIT(8);

	icm_buf_addstr(&b, "x/");
	icm_key_encode(&b, "%");
	cr_assert_str_eq(b.data, "x/%25");
	icm_key_encode(&b, "abcd");
	cr_assert_str_eq(b.data, "x/%25");
	icm_key_encode(&b, "abc");
	cr_assert_str_eq(b.data, "x/%25abc");
	cr_assert_eq(b.len, 8);
}

Test(key, any_other_spelling_is_refused)
{
	static const char *const bad[] = {
		"%61", /* 'a' stands for itself */
		"%2f",	  "%2F",    "%00", "%",	     "%4",	    "a%",   "a%2",   "%0a",
		"%c3%a9", "%zz",    "%2G", "%%25",   "%25%",	    "%-1",  "% 0",   "%v",
		"a%v00",  "%2561%", "a:b", "a\nb",   "caf\xc3\xa9", "\xff", "a\x7f", "a\\b",
		"a\"b",	  "a*b",    "a#b", "a?b",    "/",	    "/a",   "a/",    "a//b",
		"a/b/",	  "//",	    ".",   "..",     "a/.",	    "a/..", "./a",   "../a",
		"a/./b",  "a/../b", "%2E", "%2E%2E", "a/%2E%2E/b",
	};

	for (size_t i = 0; i < ICM_COUNT(bad); i++) {
		char *path = (char *)"untouched";

		cr_assert_eq(icm_key_decode(bad[i], &path), -EINVAL, "\"%s\"", bad[i]);
		cr_assert_str_eq(path, "untouched");
	}
}

Test(key, names_are_limited_to_255_bytes_before_encoding)
{
	char name[ICM_NAME_MAX + 2];
	ICM_AUTOFREE char *long_key = NULL;
	char *path = NULL;

	memset(name, '\xe4', sizeof(name));
	name[ICM_NAME_MAX] = '\0';
	assert_roundtrip(name);
	name[ICM_NAME_MAX] = '\xe4';
	name[ICM_NAME_MAX + 1] = '\0';
	long_key = icm_key_encoded(name);
	cr_assert_eq(icm_key_decode(long_key, &path), -EINVAL);
}

/* A path of `len` bytes with components of at most 200. */
static char *path_of(size_t len)
{
	char *path = icm_xmalloc(len + 1);

	memset(path, '%', len);
	for (size_t i = 200; i + 1 < len; i += 201)
		path[i] = '/';
	path[len] = '\0';
	return path;
}

Test(key, paths_are_limited_to_4096_bytes_before_encoding)
{
	ICM_AUTOFREE char *longest = path_of(ICM_PATH_MAX);
	ICM_AUTOFREE char *longer = path_of(ICM_PATH_MAX + 1);
	ICM_AUTOFREE char *key = icm_key_encoded(longer);
	char *path = NULL;

	assert_roundtrip(longest);
	cr_assert_eq(icm_key_decode(key, &path), -EINVAL);
}

Test(key, unescaping_knows_no_path_rules_but_a_limit)
{
	static const char *const texts[] = { "", ".", "..", "/", "//a/../", "a\nb\xff", "%v" };
	char *text = (char *)"untouched";

	for (size_t i = 0; i < ICM_COUNT(texts); i++) {
		ICM_AUTOFREE char *encoded = icm_key_encoded(texts[i]);
		ICM_AUTOFREE char *again = NULL;

		cr_assert_eq(icm_key_unescape(encoded, 10, &again), 0);
		cr_assert_str_eq(again, texts[i]);
	}
	cr_assert_eq(icm_key_unescape("abcd", 3, &text), -EINVAL);
	cr_assert_eq(icm_key_unescape("%25%25%25%25", 3, &text), -EINVAL);
	cr_assert_eq(icm_key_unescape("%2F", 3, &text), -EINVAL);
	cr_assert_eq(icm_key_unescape("%2", 3, &text), -EINVAL);
	cr_assert_str_eq(text, "untouched");
}

static void assert_key(char *key, const char *want)
{
	cr_assert_str_eq(key, want);
	free(key);
}

Test(key, each_kind_of_key_has_its_prefix)
{
	struct icm_sha256 sum = icm_sha256("abc", 3);

	assert_key(icm_key_tree("a/b:c"), "tree/a/b%3Ac");
	assert_key(icm_key_tree_dir("a/b"), "tree/a/b/");
	assert_key(icm_key_tree_dir(""), "tree/");
	assert_key(icm_key_attr("a/b"), "attr/a/b");
	assert_key(icm_key_attr(""), "attr/");
	assert_key(icm_key_inode(17), "inode/17");
	assert_key(icm_key_inode(ICM_INO_MAX - 1), "inode/4503599627370495");
	assert_key(icm_key_blob(&sum),
		   "blob/ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
	assert_key(icm_key_hist("a", 7), "hist/a%v00000000000000000007");
	assert_key(icm_key_hist("a%v", UINT64_MAX), "hist/a%25v%v18446744073709551615");
	assert_key(icm_key_feed("0123456789abcdef"), "feed/0123456789abcdef");
	assert_key(icm_key_lock(17), "lock/17");
}

Test(key, inode_numbers_come_back)
{
	static const uint64_t numbers[] = { 1, 2, 9, 10, 16, UINT64_C(4503599627370495) };

	for (size_t i = 0; i < ICM_COUNT(numbers); i++) {
		ICM_AUTOFREE char *inode = icm_key_inode(numbers[i]);
		ICM_AUTOFREE char *lock = icm_key_lock(numbers[i]);
		uint64_t ino = 0;

		cr_assert_eq(icm_key_parse_ino(inode, "inode/", &ino), 0);
		cr_assert_eq(ino, numbers[i]);
		ino = 0;
		cr_assert_eq(icm_key_parse_ino(lock, "lock/", &ino), 0);
		cr_assert_eq(ino, numbers[i]);
	}
}

Test(key, inode_numbers_have_one_spelling)
{
	static const char *const bad[] = {
		"inode/",
		"inode/0",
		"inode/01",
		"inode/+1",
		"inode/-1",
		"inode/ 1",
		"inode/1 ",
		"inode/1\n",
		"inode/0x1",
		"inode/1a",
		"inode/1/",
		"inode/4503599627370496",
		"inode/18446744073709551617",
		"inode/99999999999999999999999",
		"lock/1",
		"inode1",
		"1",
		"",
		"Inode/1",
	};

	for (size_t i = 0; i < ICM_COUNT(bad); i++) {
		uint64_t ino = 77;

		cr_assert_eq(icm_key_parse_ino(bad[i], "inode/", &ino), -EINVAL, "\"%s\"", bad[i]);
		cr_assert_eq(ino, 77);
	}
}

Test(key, history_keys_come_back)
{
	static const char *const paths[] = { "a", "a/b", "%v", "a%v00000000000000000001", "\xff" };

	for (size_t i = 0; i < ICM_COUNT(paths); i++) {
		ICM_AUTOFREE char *key = icm_key_hist(paths[i], UINT64_MAX - i);
		ICM_AUTOFREE char *path = NULL;
		uint64_t index;

		cr_assert_eq(icm_key_parse_hist(key, &path, &index), 0, "\"%s\"", key);
		cr_assert_str_eq(path, paths[i]);
		cr_assert_eq(index, UINT64_MAX - i);
	}
}

Test(key, history_keys_of_one_path_sort_by_index)
{
	ICM_AUTOFREE char *nine = icm_key_hist("a", 9);
	ICM_AUTOFREE char *ten = icm_key_hist("a", 10);

	cr_assert_lt(strcmp(nine, ten), 0);
}

Test(key, other_history_keys_are_refused)
{
	static const char *const bad[] = {
		"",
		"hist/",
		"hist/a",
		"hist/a%v",
		"hist/a%v1",
		"hist/a%v0000000000000000001",
		"hist/a%v000000000000000000001",
		"hist/a%v0000000000000000000x",
		"hist/a%v+0000000000000000001",
		"hist/a%v18446744073709551616",
		"hist/a%v99999999999999999999",
		"hist/%v00000000000000000001",
		"hist/a/%v00000000000000000001",
		"hist/../a%v00000000000000000001",
		"hist/%61%v00000000000000000001",
		"hist/a%v00000000000000000001%v00000000000000000001",
		"hist/a%V00000000000000000001",
		"tree/a%v00000000000000000001",
		"a%v00000000000000000001",
	};

	for (size_t i = 0; i < ICM_COUNT(bad); i++) {
		char *path = (char *)"untouched";
		uint64_t index = 77;

		cr_assert_eq(icm_key_parse_hist(bad[i], &path, &index), -EINVAL, "\"%s\"", bad[i]);
		cr_assert_str_eq(path, "untouched");
		cr_assert_eq(index, 77);
	}
}

Test(key, names_for_creation_are_checked)
{
	char name[ICM_NAME_MAX + 2];

	memset(name, 'n', sizeof(name));
	name[ICM_NAME_MAX] = '\0';
	cr_assert_eq(icm_name_check(name), 0);
	name[ICM_NAME_MAX] = 'n';
	name[ICM_NAME_MAX + 1] = '\0';
	cr_assert_eq(icm_name_check(name), -ENAMETOOLONG);
	cr_assert_eq(icm_name_check(""), -EINVAL);
	cr_assert_eq(icm_name_check("."), -EINVAL);
	cr_assert_eq(icm_name_check(".."), -EINVAL);
	cr_assert_eq(icm_name_check("a/b"), -EINVAL);
	cr_assert_eq(icm_name_check("..."), 0);
	cr_assert_eq(icm_name_check(".a"), 0);
	cr_assert_eq(icm_name_check("a\n\xff%v"), 0);
}

Test(key, joining_to_the_root_adds_no_slash)
{
	assert_key(icm_path_join("", "a"), "a");
	assert_key(icm_path_join("a", "b"), "a/b");
	assert_key(icm_path_join("a/b", "c"), "a/b/c");
}
