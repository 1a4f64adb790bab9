/* SPDX-License-Identifier: MIT
 * Attributes, directory times, records, chunk lists, inodes and history
 * entries: what is written, what comes back, and what is refused. */
#include <criterion/criterion.h>
#include <errno.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "core/record.h"
#include "tests/unit/json-cases.h"

#define HEX "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
#define ID  "0123456789abcdef"

#define TIMES "\"atime\":[1700000000,1],\"mtime\":[1700000001,2],\"ctime\":[1700000002,3]"
#define FILE_ATTR                                                                                  \
	"{\"ino\":17,\"mode\":\"100644\",\"uid\":1000,\"gid\":100,\"size\":3," TIMES               \
	",\"hash\":\"" HEX "\",\"id\":\"" ID "\"}"
#define RICH_ATTR                                                                                  \
	"{\"ino\":17,\"mode\":\"104755\",\"uid\":1000,\"gid\":100,\"size\":3," TIMES               \
	",\"hash\":\"" HEX "\",\"linked\":true,\"nlink\":2,\"id\":\"" ID                           \
	"\",\"mark\":\"fedcba9876543210\",\"xattrs\":{\"user.a\":\"YWJj\",\"user.b\":\"\"}}"
#define LINK_ATTR                                                                                  \
	"{\"ino\":17,\"mode\":\"120777\",\"uid\":0,\"gid\":0,\"size\":1," TIMES ",\"id\":\"" ID    \
	"\"}"
#define DEVICE_ATTR                                                                                \
	"{\"ino\":17,\"mode\":\"60660\",\"uid\":0,\"gid\":6,\"rdev\":[8,1]," TIMES ",\"id\":\"" ID \
	"\"}"
#define DIR_ATTR "{\"ino\":1,\"mode\":\"40755\",\"uid\":0,\"gid\":0," TIMES ",\"id\":\"" ID "\"}"

static int decode_attr(const void *data, size_t len)
{
	struct icm_attr a;
	int r = icm_attr_decode(data, len, &a);

	if (r == 0)
		icm_attr_clear(&a);
	return r;
}

static struct icm_attr attr_of(const char *json)
{
	struct icm_attr a;

	cr_assert_eq(icm_attr_decode(json, strlen(json), &a), 0, "%s", json);
	return a;
}

static void assert_attr_text(const struct icm_attr *a, const char *want)
{
	size_t len;
	ICM_AUTOFREE char *json = icm_attr_encode(a, &len);

	cr_assert_str_eq(json, want);
	cr_assert_eq(len, strlen(want));
}

Test(attr, each_type_is_written_as_it_was_read)
{
	static const char *const texts[] = { FILE_ATTR, RICH_ATTR, LINK_ATTR, DEVICE_ATTR,
					     DIR_ATTR };

	for (size_t i = 0; i < ICM_COUNT(texts); i++) {
		ICM_AUTOATTR struct icm_attr a = attr_of(texts[i]);

		assert_attr_text(&a, texts[i]);
	}
}

Test(attr, every_field_is_read)
{
	ICM_AUTOATTR struct icm_attr a = attr_of(RICH_ATTR);
	struct icm_sha256 abc = icm_sha256("abc", 3);

	cr_assert_eq(a.ino, 17);
	cr_assert_eq(a.mode, S_IFREG | 04755);
	cr_assert_eq(a.uid, 1000);
	cr_assert_eq(a.gid, 100);
	cr_assert_eq(a.size, 3);
	cr_assert_eq(a.atime.tv_sec, 1700000000);
	cr_assert_eq(a.atime.tv_nsec, 1);
	cr_assert_eq(a.mtime.tv_nsec, 2);
	cr_assert_eq(a.ctime.tv_nsec, 3);
	cr_assert(a.has_hash);
	cr_assert_arr_eq(a.hash.bytes, abc.bytes, sizeof(abc.bytes));
	cr_assert(a.linked);
	cr_assert_eq(a.nlink, 2);
	cr_assert_str_eq(a.id, ID);
	cr_assert_str_eq(a.mark, "fedcba9876543210");
	cr_assert_eq(a.n_xattrs, 2);
	cr_assert_str_eq(a.xattrs[0].name, "user.a");
	cr_assert_eq(a.xattrs[0].len, 3);
	cr_assert_arr_eq(a.xattrs[0].value, "abc", 3);
	cr_assert_eq(a.xattrs[1].len, 0);
	cr_assert_not_null(a.xattrs[1].value);
}

Test(attr, missing_parts_have_defaults)
{
	ICM_AUTOATTR struct icm_attr a =
		attr_of("{\"ino\":1,\"mode\":\"40755\",\"uid\":0,\"gid\":0," TIMES
			",\"size\":\"ignored\",\"rdev\":0}");

	cr_assert_eq(a.nlink, 1);
	cr_assert_eq(a.size, 0);
	cr_assert_eq(a.rdev, 0);
	cr_assert_not(a.has_hash);
	cr_assert_not(a.linked);
	cr_assert_str_eq(a.id, "");
	cr_assert_null(a.mark);
	cr_assert_null(a.xattrs);
}

Test(attr, device_numbers_use_all_bits)
{
	struct icm_attr a = { .ino = 16, .mode = S_IFCHR | 0600, .nlink = 1, .id = ID };
	ICM_AUTOATTR struct icm_attr again = { 0 };
	ICM_AUTOFREE char *json = NULL;
	size_t len;

	a.rdev = makedev(UINT32_MAX, UINT32_MAX - 1);
	json = icm_attr_encode(&a, &len);
	cr_assert_not_null(strstr(json, "\"rdev\":[4294967295,4294967294]"), "%s", json);
	cr_assert_eq(icm_attr_decode(json, len, &again), 0);
	cr_assert_eq(again.rdev, a.rdev);
}

Test(attr, edges_of_the_ranges_are_taken)
{
	static const struct json_case cases[] = {
		{ "\"ino\":17", "\"ino\":1" },
		{ "\"ino\":17", "\"ino\":4503599627370495" },
		{ "\"uid\":1000", "\"uid\":4294967295" },
		{ "\"gid\":100", "\"gid\":4294967295" },
		{ "\"size\":3", "\"size\":0" },
		{ "\"size\":3", "\"size\":1073741824" },
		{ "\"mode\":\"104755\"", "\"mode\":\"107777\"" },
		{ "\"mode\":\"104755\"", "\"mode\":\"100000\"" },
		{ "\"mode\":\"104755\"", "\"mode\":\"10644\"" },
		{ "\"mode\":\"104755\"", "\"mode\":\"140755\"" },
		{ "[1700000000,1]", "[-9223372036854775808,0]" },
		{ "[1700000000,1]", "[9223372036854775807,999999999]" },
		{ "\"nlink\":2", "\"nlink\":1" },
		{ "\"nlink\":2", "\"nlink\":4294967295" },
		{ "\"linked\":true", "\"linked\":false" },
		{ "{\"user.a\":\"YWJj\",\"user.b\":\"\"}", "{}" },
		{ "\"user.a\"", "\"\\u0075ser.a\"" },
		{ "\"user.a\"", "\"user./\"" },
	};

	json_expect(RICH_ATTR, cases, ICM_COUNT(cases), decode_attr, 0);
}

Test(attr, wrong_types_ranges_and_spellings_are_refused)
{
	static const struct json_case cases[] = {
		{ "\"ino\":17,", "" },
		{ "\"ino\":17", "\"ino\":0" },
		{ "\"ino\":17", "\"ino\":-1" },
		{ "\"ino\":17", "\"ino\":4503599627370496" },
		{ "\"ino\":17", "\"ino\":17.0" },
		{ "\"ino\":17", "\"ino\":\"17\"" },
		{ "\"ino\":17", "\"ino\":null" },
		{ "\"ino\":17", "\"ino\":17,\"ino\":17" },
		{ "\"mode\":\"104755\",", "" },
		{ "\"104755\"", "34285" },
		{ "\"104755\"", "\"\"" },
		{ "\"104755\"", "\"755\"" },
		{ "\"104755\"", "\"0104755\"" },
		{ "\"104755\"", "\"0o04755\"" },
		{ "\"104755\"", "\"104758\"" },
		{ "\"104755\"", "\"004755\"" },
		{ "\"104755\"", "\"174755\"" },
		{ "\"104755\"", "\"304755\"" },
		{ "\"104755\"", "\"1104755\"" },
		{ "\"104755\"", "\"-04755\"" },
		{ "\"104755\"", "\" 104755\"" },
		{ "\"uid\":1000,", "" },
		{ "\"uid\":1000", "\"uid\":-1" },
		{ "\"uid\":1000", "\"uid\":4294967296" },
		{ "\"gid\":100,", "" },
		{ "\"gid\":100", "\"gid\":-1" },
		{ "\"gid\":100", "\"gid\":true" },
		{ "\"size\":3,", "" },
		{ "\"size\":3", "\"size\":-1" },
		{ "\"size\":3", "\"size\":3221225473" },
		{ "\"atime\":[1700000000,1],", "" },
		{ "[1700000000,1]", "[1700000000]" },
		{ "[1700000000,1]", "[1700000000,1,1]" },
		{ "[1700000000,1]", "[1700000000,-1]" },
		{ "[1700000000,1]", "[1700000000,1000000000]" },
		{ "[1700000000,1]", "[1700000000.5,1]" },
		{ "[1700000000,1]", "[\"1700000000\",1]" },
		{ "[1700000000,1]", "[9223372036854775808,1]" },
		{ "[1700000000,1]", "1700000000" },
		{ "\"mtime\":[1700000001,2]", "\"mtime\":null" },
		{ "\"ctime\":[1700000002,3]", "\"ctime\":[]" },
		{ "\"" HEX "\"", "\"" HEX "0\"" },
		{ "\"ba78", "\"BA78" },
		{ "\"ba78", "\"ba7" },
		{ "\"ba78", "\"gggg" },
		{ "\"hash\":\"" HEX "\"", "\"hash\":null" },
		{ "\"hash\":\"" HEX "\"", "\"hash\":7" },
		{ "\"linked\":true", "\"linked\":1" },
		{ "\"linked\":true", "\"linked\":\"true\"" },
		{ "\"linked\":true", "\"linked\":null" },
		{ "\"nlink\":2", "\"nlink\":0" },
		{ "\"nlink\":2", "\"nlink\":4294967296" },
		{ "\"nlink\":2", "\"nlink\":\"2\"" },
		{ "\"" ID "\"", "\"\"" },
		{ "\"" ID "\"", "\"0123456789abcde\"" },
		{ "\"" ID "\"", "\"0123456789abcdef0\"" },
		{ "\"" ID "\"", "\"0123456789abcdeF\"" },
		{ "\"" ID "\"", "\"0123456789abcde \"" },
		{ "\"" ID "\"", "null" },
		{ "\"fedcba9876543210\"", "\"\"" },
		{ "\"fedcba9876543210\"", "\"fedcba987654321g\"" },
		{ "\"fedcba9876543210\"", "null" },
		{ "\"YWJj\"", "\"YWJ\"" },
		{ "\"YWJj\"", "\"YWJj=\"" },
		{ "\"YWJj\"", "\" YWJj\"" },
		{ "\"YWJj\"", "null" },
		{ "\"YWJj\"", "3" },
		{ "\"user.a\"", "\"\"" },
		{ "\"user.a\"", "\"user.%61\"" },
		{ "\"user.a\"", "\"user:a\"" },
		{ "\"user.a\"", "\"user.%0\"" },
		{ "\"user.a\"", "\"user.b\"" },
		{ "{\"user.a\":\"YWJj\",\"user.b\":\"\"}", "[]" },
		{ "{\"user.a\":\"YWJj\",\"user.b\":\"\"}", "null" },
	};

	json_expect(RICH_ATTR, cases, ICM_COUNT(cases), decode_attr, -EPROTO);
}

Test(attr, device_numbers_are_checked)
{
	static const struct json_case cases[] = {
		{ "\"rdev\":[8,1],", "" },     { "[8,1]", "[8]" },
		{ "[8,1]", "[8,1,0]" },	       { "[8,1]", "[8,-1]" },
		{ "[8,1]", "[4294967296,1]" }, { "[8,1]", "[8,4294967296]" },
		{ "[8,1]", "[\"8\",1]" },      { "[8,1]", "2049" },
		{ "[8,1]", "[8,1.0]" },
	};

	json_expect(DEVICE_ATTR, cases, ICM_COUNT(cases), decode_attr, -EPROTO);
}

Test(attr, link_targets_bound_the_size_of_links)
{
	static const struct json_case good[] = { { "\"size\":1", "\"size\":4095" } };
	static const struct json_case bad[] = { { "\"size\":1", "\"size\":4096" } };

	json_expect(LINK_ATTR, good, 1, decode_attr, 0);
	json_expect(LINK_ATTR, bad, 1, decode_attr, -EPROTO);
}

Test(attr, garbage_is_refused_and_unknown_members_are_ignored)
{
	json_expect_no_garbage(RICH_ATTR, decode_attr);
	json_expect_unknown_members(RICH_ATTR, decode_attr);
}

Test(attr, failure_leaves_the_result_alone)
{
	static const char bad[] = "{\"ino\":17,\"mode\":\"100644\"}";
	struct icm_attr a, before;

	memset(&a, 0xa5, sizeof(a));
	before = a;
	cr_assert_eq(icm_attr_decode(bad, strlen(bad), &a), -EPROTO);
	cr_assert_eq(memcmp(&a, &before, sizeof(a)), 0);
}

Test(attr, xattrs_stay_sorted_through_changes)
{
	ICM_AUTOATTR struct icm_attr a = attr_of(FILE_ATTR);

	icm_attr_set_xattr(&a, "user.m", "1", 1);
	icm_attr_set_xattr(&a, "user.z", "2", 1);
	icm_attr_set_xattr(&a, "user.a", "", 0);
	icm_attr_set_xattr(&a, "user.m", "three", 5);
	icm_attr_set_xattr(&a, "user.none", NULL, 0);
	cr_assert_eq(a.n_xattrs, 3);
	cr_assert_str_eq(a.xattrs[0].name, "user.a");
	cr_assert_str_eq(a.xattrs[1].name, "user.m");
	cr_assert_str_eq(a.xattrs[2].name, "user.z");
	cr_assert_eq(icm_attr_xattr(&a, "user.a")->len, 0);
	cr_assert_eq(icm_attr_xattr(&a, "user.m")->len, 5);
	cr_assert_arr_eq(icm_attr_xattr(&a, "user.m")->value, "three", 5);
	cr_assert_null(icm_attr_xattr(&a, "user.n"));
	icm_attr_set_xattr(&a, "user.m", NULL, 0);
	icm_attr_set_xattr(&a, "user.z", NULL, 0);
	icm_attr_set_xattr(&a, "user.a", NULL, 0);
	cr_assert_eq(a.n_xattrs, 0);
	assert_attr_text(&a, FILE_ATTR);
}

Test(attr, an_xattr_may_be_set_to_its_own_value)
{
	ICM_AUTOATTR struct icm_attr a = attr_of(RICH_ATTR);
	const struct icm_xattr *x = icm_attr_xattr(&a, "user.a");

	icm_attr_set_xattr(&a, "user.a", x->value, x->len);
	cr_assert_arr_eq(icm_attr_xattr(&a, "user.a")->value, "abc", 3);
}

Test(attr, xattrs_in_another_order_are_sorted)
{
	ICM_AUTOFREE char *json = json_edit(
		RICH_ATTR, &(struct json_case){ "{\"user.a\":\"YWJj\",\"user.b\":\"\"}",
						"{\"user.b\":\"\",\"user.a\":\"YWJj\"}" });
	ICM_AUTOATTR struct icm_attr a = attr_of(json);

	assert_attr_text(&a, RICH_ATTR);
}

Test(attr, xattr_names_and_values_of_any_bytes_come_back)
{
	ICM_AUTOATTR struct icm_attr a = attr_of(FILE_ATTR);
	ICM_AUTOATTR struct icm_attr again = { 0 };
	ICM_AUTOFREE char *json = NULL;
	ICM_AUTOFREE char *name = icm_xcalloc(1, ICM_XATTR_NAME_MAX + 1);
	ICM_AUTOFREE char *value = icm_xcalloc(1, ICM_XATTR_VALUE_MAX);
	size_t len;

	memset(name, '\xff', ICM_XATTR_NAME_MAX);
	for (size_t i = 0; i < ICM_XATTR_VALUE_MAX; i++)
		value[i] = (char)i;
	icm_attr_set_xattr(&a, name, value, ICM_XATTR_VALUE_MAX);
	icm_attr_set_xattr(&a, "user.%61\n\"", "\0", 1);
	json = icm_attr_encode(&a, &len);
	cr_assert_eq(icm_attr_decode(json, len, &again), 0);
	cr_assert_eq(again.n_xattrs, 2);
	cr_assert_eq(icm_attr_xattr(&again, name)->len, ICM_XATTR_VALUE_MAX);
	cr_assert_arr_eq(icm_attr_xattr(&again, name)->value, value, ICM_XATTR_VALUE_MAX);
	cr_assert_arr_eq(icm_attr_xattr(&again, "user.%61\n\"")->value, "\0", 1);
}

/* Encodes with xattrs of these sizes and answers what the decoder says. */
static int decode_with_xattrs(size_t name_len, const size_t *sizes, size_t n)
{
	ICM_AUTOATTR struct icm_attr a = attr_of(FILE_ATTR);
	ICM_AUTOFREE char *json = NULL;
	ICM_AUTOFREE char *value = icm_xcalloc(1, ICM_XATTRS_MAX_BYTES);
	char name[300];
	size_t len;

	memset(name, 'x', sizeof(name));
	name[name_len] = '\0';
	for (size_t i = 0; i < n; i++) {
		name[0] = (char)('a' + i);
		icm_attr_set_xattr(&a, name, value, sizes[i]);
	}
	json = icm_attr_encode(&a, &len);
	return decode_attr(json, len);
}

Test(attr, xattrs_are_limited_one_by_one_and_in_sum)
{
	static const size_t full[] = { ICM_XATTR_VALUE_MAX - 8, ICM_XATTR_VALUE_MAX - 8 };
	static const size_t over[] = { ICM_XATTR_VALUE_MAX - 8, ICM_XATTR_VALUE_MAX - 7 };
	static const size_t one[] = { ICM_XATTR_VALUE_MAX + 1 };
	static const size_t small[] = { 1 };

	cr_assert_eq(decode_with_xattrs(8, full, 2), 0);
	cr_assert_eq(decode_with_xattrs(8, over, 2), -EPROTO);
	cr_assert_eq(decode_with_xattrs(8, one, 1), -EPROTO);
	cr_assert_eq(decode_with_xattrs(ICM_XATTR_NAME_MAX, small, 1), 0);
	cr_assert_eq(decode_with_xattrs(ICM_XATTR_NAME_MAX + 1, small, 1), -EPROTO);
}

Test(attr, the_largest_valid_value_fits_its_limit)
{
	ICM_AUTOATTR struct icm_attr a = attr_of(FILE_ATTR);
	ICM_AUTOATTR struct icm_attr again = { 0 };
	ICM_AUTOFREE char *json = NULL;
	size_t len;

	/* two bytes that cost three characters each, nothing else: the most JSON per byte */
	a.xattrs = icm_xcalloc((size_t)127 * 127, sizeof(*a.xattrs));
	for (unsigned int high = 0x81; high <= 0xff; high++) {
		for (unsigned int low = 0x81; low <= 0xff; low++) {
			char name[] = { (char)high, (char)low, '\0' };

			a.xattrs[a.n_xattrs++] = (struct icm_xattr){ .name = icm_xstrdup(name),
								     .value = icm_xcalloc(1, 6),
								     .len = 6 };
		}
	}
	json = icm_attr_encode(&a, &len);
	cr_assert_eq(icm_attr_decode(json, len, &again), 0, "%zu bytes", len);
	cr_assert_eq(again.n_xattrs, a.n_xattrs);
}

Test(attr, a_copy_shares_nothing)
{
	struct icm_attr a = attr_of(RICH_ATTR);
	ICM_AUTOATTR struct icm_attr copy;

	icm_attr_copy(&copy, &a);
	icm_attr_clear(&a);
	assert_attr_text(&copy, RICH_ATTR);
	cr_assert_null(a.xattrs);
	icm_attr_clear(&a);
}

#define DIR_TIMES "{\"mtime\":[1700000001,2],\"ctime\":[1700000002,3],\"id\":\"" ID "\"}"

static int decode_dir_times(const void *data, size_t len)
{
	struct icm_dir_times t;

	return icm_dir_times_decode(data, len, &t);
}

Test(dir_times, are_written_as_read)
{
	struct icm_dir_times t;
	ICM_AUTOFREE char *json = NULL;
	size_t len;

	cr_assert_eq(icm_dir_times_decode(DIR_TIMES, strlen(DIR_TIMES), &t), 0);
	cr_assert_eq(t.mtime.tv_sec, 1700000001);
	cr_assert_eq(t.ctime.tv_nsec, 3);
	cr_assert_str_eq(t.id, ID);
	json = icm_dir_times_encode(&t, &len);
	cr_assert_str_eq(json, DIR_TIMES);
	cr_assert_eq(len, strlen(DIR_TIMES));
}

Test(dir_times, malformed_ones_are_refused)
{
	static const struct json_case cases[] = {
		{ "\"mtime\":[1700000001,2],", "" },
		{ "\"ctime\":[1700000002,3],", "" },
		{ ",\"id\":\"" ID "\"", "" },
		{ "[1700000001,2]", "[1700000001,1000000000]" },
		{ "\"" ID "\"", "\"x\"" },
	};

	json_expect(DIR_TIMES, cases, ICM_COUNT(cases), decode_dir_times, -EPROTO);
	json_expect_no_garbage(DIR_TIMES, decode_dir_times);
	json_expect_unknown_members(DIR_TIMES, decode_dir_times);
}

#define CHUNKS	"{\"form\":\"chunks\",\"size\":1048577,\"chunks\":[\"" HEX "\",null,\"" HEX "\"]}"
#define LISTED	"{\"form\":\"chunks\",\"size\":1073741824,\"list\":\"" HEX "\"}"
#define EMPTY	"{\"form\":\"chunks\",\"size\":0,\"chunks\":[]}"
#define SYMLINK "{\"form\":\"symlink\",\"target\":\"../a%3Ab//./%FF\"}"
#define SPECIAL "{\"form\":\"special\"}"
#define LINK	"{\"form\":\"link\",\"ino\":17}"

static int decode_record(const void *data, size_t len)
{
	struct icm_record rec;
	int r = icm_record_decode(data, len, &rec);

	if (r == 0)
		icm_record_clear(&rec);
	return r;
}

Test(record, each_form_is_written_as_it_was_read)
{
	static const char *const texts[] = { CHUNKS, LISTED, EMPTY, SYMLINK, SPECIAL, LINK };

	for (size_t i = 0; i < ICM_COUNT(texts); i++) {
		ICM_AUTORECORD struct icm_record rec;
		ICM_AUTOFREE char *json = NULL;
		size_t len;

		cr_assert_eq(icm_record_decode(texts[i], strlen(texts[i]), &rec), 0, "%s",
			     texts[i]);
		json = icm_record_encode(&rec, &len);
		cr_assert_str_eq(json, texts[i]);
		cr_assert_eq(len, strlen(texts[i]));
	}
}

Test(record, fields_are_those_of_the_form)
{
	ICM_AUTORECORD struct icm_record chunks, listed, symlink, link;

	cr_assert_eq(icm_record_decode(CHUNKS, strlen(CHUNKS), &chunks), 0);
	cr_assert_eq(chunks.form, ICM_RECORD_CHUNKS);
	cr_assert_eq(chunks.size, 1048577);
	cr_assert_eq(chunks.n_chunks, 3);
	cr_assert_not(chunks.chunks[0].hole);
	cr_assert(chunks.chunks[1].hole);
	cr_assert_not(chunks.list_is_blob);
	cr_assert_eq(icm_record_decode(LISTED, strlen(LISTED), &listed), 0);
	cr_assert(listed.list_is_blob);
	cr_assert_null(listed.chunks);
	cr_assert_eq(listed.n_chunks, 0);
	cr_assert_eq(icm_record_decode(SYMLINK, strlen(SYMLINK), &symlink), 0);
	cr_assert_eq(symlink.form, ICM_RECORD_SYMLINK);
	cr_assert_str_eq(symlink.target, "../a:b//./\xff");
	cr_assert_eq(icm_record_decode(LINK, strlen(LINK), &link), 0);
	cr_assert_eq(link.form, ICM_RECORD_LINK);
	cr_assert_eq(link.ino, 17);
}

Test(record, malformed_chunk_records_are_refused)
{
	static const struct json_case cases[] = {
		{ "\"form\":\"chunks\",", "" },
		{ "\"form\":\"chunks\"", "\"form\":\"Chunks\"" },
		{ "\"form\":\"chunks\"", "\"form\":\"\"" },
		{ "\"form\":\"chunks\"", "\"form\":1" },
		{ "\"size\":1048577,", "" },
		{ "1048577", "1048576" },
		{ "1048577", "1572865" },
		{ "1048577", "3221225473" },
		{ "1048577", "-1" },
		{ "null", "false" },
		{ "null", "\"\"" },
		{ "null", "0" },
		{ "null,", "" },
		{ "null", "null,null" },
		{ "\"ba7816", "\"BA7816" },
		{ "\"chunks\":[", "\"list\":\"" HEX "\",\"chunks\":[" },
		{ NULL, "{\"form\":\"chunks\",\"size\":1}" },
		{ NULL, "{\"form\":\"chunks\",\"size\":1,\"list\":null}" },
		{ NULL, "{\"form\":\"chunks\",\"size\":1,\"list\":\"\"}" },
		{ NULL, "{\"form\":\"chunks\",\"size\":1,\"chunks\":{}}" },
		{ NULL, "{\"form\":\"chunks\",\"size\":1,\"chunks\":[]}" },
		{ NULL, "{\"form\":\"chunks\",\"size\":0,\"chunks\":[null]}" },
	};

	json_expect(CHUNKS, cases, ICM_COUNT(cases), decode_record, -EPROTO);
	json_expect_no_garbage(CHUNKS, decode_record);
	json_expect_unknown_members(CHUNKS, decode_record);
}

Test(record, malformed_other_records_are_refused)
{
	static const struct json_case cases[] = {
		{ NULL, "{\"form\":\"symlink\"}" },
		{ NULL, "{\"form\":\"symlink\",\"target\":\"\"}" },
		{ NULL, "{\"form\":\"symlink\",\"target\":null}" },
		{ NULL, "{\"form\":\"symlink\",\"target\":\"a:b\"}" },
		{ NULL, "{\"form\":\"symlink\",\"target\":\"%61\"}" },
		{ NULL, "{\"form\":\"symlink\",\"target\":\"a%2Fb\"}" },
		{ NULL, "{\"form\":\"symlink\",\"target\":\"a%00b\"}" },
		{ NULL, "{\"form\":\"link\"}" },
		{ NULL, "{\"form\":\"link\",\"ino\":0}" },
		{ NULL, "{\"form\":\"link\",\"ino\":4503599627370496}" },
	};

	json_expect(LINK, cases, ICM_COUNT(cases), decode_record, -EPROTO);
	json_expect_no_garbage(LINK, decode_record);
	json_expect_unknown_members(LINK, decode_record);
}

Test(record, link_targets_are_limited_to_4095_bytes)
{
	ICM_AUTOFREE char *target = icm_xcalloc(1, ICM_SYMLINK_MAX + 2);
	struct icm_record rec = { .form = ICM_RECORD_SYMLINK, .target = target };
	ICM_AUTORECORD struct icm_record again = { 0 };
	ICM_AUTOFREE char *longest = NULL;
	ICM_AUTOFREE char *longer = NULL;
	size_t len;

	memset(target, '\xfe', ICM_SYMLINK_MAX);
	longest = icm_record_encode(&rec, &len);
	cr_assert_eq(icm_record_decode(longest, len, &again), 0);
	cr_assert_str_eq(again.target, target);
	target[ICM_SYMLINK_MAX] = 'x';
	longer = icm_record_encode(&rec, &len);
	cr_assert_eq(decode_record(longer, len), -EPROTO);
}

Test(chunks, a_list_of_the_largest_file_comes_back)
{
	ICM_AUTOFREE struct icm_chunk *chunks = icm_xcalloc(ICM_CHUNKS_MAX, sizeof(*chunks));
	ICM_AUTOFREE struct icm_chunk *again = NULL;
	ICM_AUTOFREE char *json = NULL;
	size_t len;

	for (size_t i = 0; i < ICM_CHUNKS_MAX; i++) {
		chunks[i].hole = i % 3 == 0;
		if (!chunks[i].hole)
			chunks[i].sum = icm_sha256(&i, sizeof(i));
	}
	json = icm_chunks_encode(chunks, ICM_CHUNKS_MAX, &len);
	cr_assert_eq(icm_chunks_decode(json, len, ICM_CHUNKS_MAX, &again), 0);
	for (size_t i = 0; i < ICM_CHUNKS_MAX; i++) {
		cr_assert_eq(again[i].hole, chunks[i].hole);
		cr_assert_arr_eq(again[i].sum.bytes, chunks[i].sum.bytes, ICM_SHA256_BYTES);
	}
}

static int decode_two_chunks(const void *data, size_t len)
{
	struct icm_chunk *chunks = NULL;
	int r = icm_chunks_decode(data, len, 2, &chunks);

	cr_assert_eq(r == 0, chunks != NULL);
	free(chunks);
	return r;
}

Test(chunks, malformed_lists_are_refused)
{
	static const struct json_case cases[] = {
		{ "null,", "" },    { "null", "null,null" },
		{ "null", "[]" },   { "null", "true" },
		{ "null", "\"\"" }, { "null", "1" },
		{ "\"ba", "\"Ba" }, { NULL, "[]" },
		{ NULL, "{}" },	    { NULL, "[null,null,]" },
		{ NULL, "" },	    { NULL, "[null,null]x" },
	};
	struct icm_chunk *chunks = NULL;

	json_expect("[null,\"" HEX "\"]", cases, ICM_COUNT(cases), decode_two_chunks, -EPROTO);
	cr_assert_eq(icm_chunks_decode("[]", 2, ICM_CHUNKS_MAX + 1, &chunks), -EPROTO);
	cr_assert_eq(icm_chunks_decode("[]", 2, SIZE_MAX, &chunks), -EPROTO);
	cr_assert_eq(icm_chunks_decode("[]", 2, 0, &chunks), 0);
	cr_assert_null(chunks);
}

Test(chunks, the_number_follows_from_the_size)
{
	cr_assert_eq(icm_chunk_count(0), 0);
	cr_assert_eq(icm_chunk_count(1), 1);
	cr_assert_eq(icm_chunk_count(ICM_CHUNK_BYTES), 1);
	cr_assert_eq(icm_chunk_count(ICM_CHUNK_BYTES + 1), 2);
	cr_assert_eq(icm_chunk_count(ICM_FILE_SIZE_MAX), ICM_CHUNKS_MAX);
}

#define BIG_ATTR                                                                                   \
	"{\"ino\":17,\"mode\":\"100644\",\"uid\":0,\"gid\":0,\"size\":1048577," TIMES              \
	",\"nlink\":2,\"id\":\"" ID "\"}"
#define PLAIN_INODE   "{\"attr\":" FILE_ATTR "}"
#define CHUNKED_INODE "{\"attr\":" BIG_ATTR ",\"record\":" CHUNKS "}"
#define DEVICE_INODE  "{\"attr\":" DEVICE_ATTR ",\"record\":" SPECIAL "}"
#define SYMLINK_INODE "{\"attr\":" LINK_ATTR ",\"record\":" SYMLINK "}"

static int decode_inode(const void *data, size_t len)
{
	struct icm_inode_value v;
	int r = icm_inode_value_decode(data, len, &v);

	if (r == 0)
		icm_inode_value_clear(&v);
	return r;
}

Test(inode_value, each_kind_is_written_as_it_was_read)
{
	static const char *const texts[] = { PLAIN_INODE, CHUNKED_INODE, DEVICE_INODE,
					     SYMLINK_INODE };

	for (size_t i = 0; i < ICM_COUNT(texts); i++) {
		struct icm_inode_value v;
		ICM_AUTOFREE char *json = NULL;
		size_t len;

		cr_assert_eq(icm_inode_value_decode(texts[i], strlen(texts[i]), &v), 0, "%s",
			     texts[i]);
		cr_assert_eq(v.has_record, i > 0);
		json = icm_inode_value_encode(&v, &len);
		cr_assert_str_eq(json, texts[i]);
		cr_assert_eq(len, strlen(texts[i]));
		icm_inode_value_clear(&v);
		icm_inode_value_clear(&v);
	}
}

Test(inode_value, attributes_and_contents_must_fit_together)
{
	static const struct json_case cases[] = {
		{ "\"attr\":" BIG_ATTR ",", "" },
		{ "\"attr\":" BIG_ATTR, "\"attr\":null" },
		{ "\"ino\":17", "\"ino\":0" },
		{ "\"size\":1048577", "\"size\":1048578" },
		{ "\"mode\":\"100644\"", "\"mode\":\"120777\"" },
		{ "\"mode\":\"100644\"", "\"mode\":\"40755\"" },
		{ "\"record\":" CHUNKS, "\"record\":null" },
		{ "\"record\":" CHUNKS, "\"record\":" SPECIAL },
		{ "\"record\":" CHUNKS, "\"record\":" SYMLINK },
		{ "\"record\":" CHUNKS, "\"record\":" LINK },
		{ ",\"record\":" CHUNKS, "" }, /* plain bytes, but no hash */
		{ NULL, "{\"attr\":" LINK_ATTR "}" },
		{ NULL, "{\"attr\":" DIR_ATTR "}" },
		{ NULL, "{\"attr\":" DIR_ATTR ",\"record\":" SPECIAL "}" },
		{ NULL, "{\"attr\":" DEVICE_ATTR ",\"record\":" CHUNKS "}" },
		{ NULL, "{\"attr\":" LINK_ATTR ",\"record\":" SPECIAL "}" },
	};

	json_expect(CHUNKED_INODE, cases, ICM_COUNT(cases), decode_inode, -EPROTO);
	json_expect_no_garbage(CHUNKED_INODE, decode_inode);
	json_expect_unknown_members(CHUNKED_INODE, decode_inode);
}

#define HIST_END     ",\"until\":[1700000009,9],\"host\":\"host.example\",\"user\":\"caf%C3%A9\"}"
#define PLAIN_HIST   "{\"attr\":" FILE_ATTR HIST_END
#define CHUNKED_HIST "{\"attr\":" BIG_ATTR ",\"record\":" CHUNKS HIST_END
#define LINKED_HIST  "{\"attr\":" RICH_ATTR ",\"record\":" LINK HIST_END

static int decode_hist(const void *data, size_t len)
{
	struct icm_hist h;
	int r = icm_hist_decode(data, len, &h);

	if (r == 0)
		icm_hist_clear(&h);
	return r;
}

Test(hist, each_kind_is_written_as_it_was_read)
{
	static const char *const texts[] = { PLAIN_HIST, CHUNKED_HIST, LINKED_HIST };

	for (size_t i = 0; i < ICM_COUNT(texts); i++) {
		struct icm_hist h;
		ICM_AUTOFREE char *json = NULL;
		size_t len;

		cr_assert_eq(icm_hist_decode(texts[i], strlen(texts[i]), &h), 0, "%s", texts[i]);
		cr_assert_eq(h.plain, i == 0);
		cr_assert_eq(h.until.tv_nsec, 9);
		cr_assert_str_eq(h.host, "host.example");
		cr_assert_str_eq(h.user, "caf\xc3\xa9");
		json = icm_hist_encode(&h, &len);
		cr_assert_str_eq(json, texts[i]);
		cr_assert_eq(len, strlen(texts[i]));
		icm_hist_clear(&h);
		icm_hist_clear(&h);
	}
}

Test(hist, malformed_entries_are_refused)
{
	static const struct json_case cases[] = {
		{ "\"until\":[1700000009,9],", "" },
		{ "[1700000009,9]", "[1700000009,-9]" },
		{ "\"host\":\"host.example\",", "" },
		{ "\"host.example\"", "\"host:example\"" },
		{ ",\"user\":\"caf%C3%A9\"", "" },
		{ "caf%C3%A9", "caf\xc3\xa9" },
		{ ",\"record\":" LINK, ",\"record\":{\"form\":\"link\",\"ino\":18}" },
		{ ",\"record\":" LINK, ",\"record\":" CHUNKS },
		{ ",\"record\":" LINK, ",\"record\":[]" },
		{ NULL, "{\"attr\":" DIR_ATTR HIST_END },
		{ NULL, "{\"attr\":" BIG_ATTR HIST_END },
	};

	json_expect(LINKED_HIST, cases, ICM_COUNT(cases), decode_hist, -EPROTO);
	json_expect_no_garbage(LINKED_HIST, decode_hist);
	json_expect_unknown_members(LINKED_HIST, decode_hist);
}
