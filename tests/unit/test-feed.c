/* SPDX-License-Identifier: MIT
 * Feed records, log segments, meta, leases and lock claims. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>

#include "core/record.h"
#include "tests/unit/json-cases.h"

#define ID "0123456789abcdef"
#define ATTR                                                                                       \
	"{\"ino\":17,\"mode\":\"100644\",\"uid\":0,\"gid\":0,\"size\":3,\"atime\":[5,0],"          \
	"\"mtime\":[6,0],\"ctime\":[7,0],\"id\":\"" ID "\"}"
#define CHANGES                                                                                    \
	"{\"op\":\"create\",\"path\":\"a/b\",\"time\":[6,0],\"attr\":" ATTR "},"                   \
	"{\"op\":\"write\",\"path\":\"a/b\",\"time\":[6,0],\"attr\":" ATTR "},"                    \
	"{\"op\":\"attr\",\"path\":\"\",\"time\":[6,0],\"attr\":" ATTR "},"                        \
	"{\"op\":\"remove\",\"path\":\"caf%C3%A9\",\"time\":[6,0],\"left\":2},"                    \
	"{\"op\":\"rename\",\"path\":\"a\",\"to\":\"b\",\"time\":[6,0],\"left\":1,\"attr\":" ATTR  \
	"},"                                                                                       \
	"{\"op\":\"exchange\",\"path\":\"c\",\"to\":\"d\",\"time\":[6,0],\"attr\":" ATTR "},"      \
	"{\"op\":\"link\",\"path\":\"e\",\"to\":\"f%0A\",\"time\":[6,0],\"attr\":" ATTR "}"
#define FEED_HEAD                                                                                  \
	"{\"id\":\"" ID "\",\"time\":[1700000000,5],\"host\":\"host.example\",\"user\":\"root\","  \
	"\"pid\":4711,\"program\":\"%C3%A9ditor\",\"lease\":\"lease/x%3A1\",\"changes\":["
#define FEED FEED_HEAD CHANGES "]}"

static int decode_feed(const void *data, size_t len)
{
	struct icm_feed_record f;
	int r = icm_feed_record_decode(data, len, &f);

	if (r == 0)
		icm_feed_record_clear(&f);
	return r;
}

Test(feed, every_operation_is_written_as_it_was_read)
{
	static const char *const texts[] = { FEED, FEED_HEAD "]}" };

	for (size_t i = 0; i < ICM_COUNT(texts); i++) {
		struct icm_feed_record f;
		ICM_AUTOFREE char *json = NULL;
		size_t len;

		cr_assert_eq(icm_feed_record_decode(texts[i], strlen(texts[i]), &f), 0);
		json = icm_feed_record_encode(&f, &len);
		cr_assert_str_eq(json, texts[i]);
		cr_assert_eq(len, strlen(texts[i]));
		icm_feed_record_clear(&f);
		icm_feed_record_clear(&f);
	}
}

Test(feed, every_field_is_read)
{
	struct icm_feed_record f;

	cr_assert_eq(icm_feed_record_decode(FEED, strlen(FEED), &f), 0);
	cr_assert_str_eq(f.id, ID);
	cr_assert_eq(f.time.tv_nsec, 5);
	cr_assert_str_eq(f.host, "host.example");
	cr_assert_str_eq(f.user, "root");
	cr_assert_eq(f.pid, 4711);
	cr_assert_str_eq(f.program, "\xc3\xa9"
				    "ditor");
	cr_assert_str_eq(f.lease, "lease/x:1");
	cr_assert_eq(f.n_changes, 7);
	for (unsigned int i = 0; i < f.n_changes; i++) {
		cr_assert_eq(f.changes[i].op, i + 1);
		cr_assert_eq(f.changes[i].time.tv_sec, 6);
		cr_assert_eq(f.changes[i].has_attr, f.changes[i].op != ICM_CHANGE_REMOVE);
		cr_assert_eq(f.changes[i].to != NULL, f.changes[i].op >= ICM_CHANGE_RENAME);
	}
	cr_assert_str_eq(f.changes[2].path, "");
	cr_assert_str_eq(f.changes[3].path, "caf\xc3\xa9");
	cr_assert_eq(f.changes[3].left, 2);
	cr_assert_eq(f.changes[4].left, 1);
	cr_assert_str_eq(f.changes[6].to, "f\n");
	cr_assert_eq(f.changes[6].attr.ino, 17);
	icm_feed_record_clear(&f);
}

Test(feed, operations_have_the_names_of_the_json)
{
	static const char *const names[] = { "create", "write",	   "attr", "remove",
					     "rename", "exchange", "link" };

	for (unsigned int i = 0; i < ICM_COUNT(names); i++)
		cr_assert_str_eq(icm_change_op_name((enum icm_change_op)(i + 1)), names[i]);
}

Test(feed, texts_that_are_missing_or_too_long_stay_decodable)
{
	ICM_AUTOFREE char *long_text = icm_xcalloc(1, 5001);
	struct icm_feed_record f = { .id = ID, .program = long_text };
	struct icm_feed_record again;
	ICM_AUTOFREE char *json = NULL;
	size_t len;

	memset(long_text, '\xff', 5000);
	json = icm_feed_record_encode(&f, &len);
	cr_assert_eq(icm_feed_record_decode(json, len, &again), 0);
	cr_assert_str_eq(again.host, "");
	cr_assert_eq(strlen(again.program), 4096);
	icm_feed_record_clear(&again);
}

Test(feed, malformed_records_are_refused)
{
	static const struct json_case cases[] = {
		{ "\"id\":\"" ID "\",", "" },
		{ "\"" ID "\"", "\"" ID "0\"" },
		{ "\"time\":[1700000000,5],", "" },
		{ "[1700000000,5]", "[1700000000,1000000000]" },
		{ "\"host\":\"host.example\",", "" },
		{ "\"host.example\"", "\"host%2Eexample\"" },
		{ "\"user\":\"root\",", "" },
		{ "\"root\"", "0" },
		{ "\"pid\":4711,", "" },
		{ "4711", "-4711" },
		{ "4711", "9223372036854775808" },
		{ "4711", "47.11" },
		{ "\"program\":\"%C3%A9ditor\",", "" },
		{ "%C3%A9ditor", "\xc3\xa9"
				 "ditor" },
		{ "\"lease\":\"lease/x%3A1\",", "" },
		{ "lease/x%3A1", "lease/x:1" },
		{ "\"changes\":[" CHANGES "]", "\"changes\":{}" },
		{ ",\"changes\":[" CHANGES "]", "" },
		{ "\"changes\":[", "\"changes\":[null," },
		{ "\"changes\":[", "\"changes\":[[]," },
		{ "\"op\":\"create\",", "" },
		{ "\"op\":\"create\"", "\"op\":\"made\"" },
		{ "\"op\":\"create\"", "\"op\":1" },
		{ "\"path\":\"a/b\",", "" },
		{ "\"path\":\"a/b\"", "\"path\":\"\"" },
		{ "\"path\":\"a/b\"", "\"path\":\"a//b\"" },
		{ "\"path\":\"a/b\"", "\"path\":\"/a\"" },
		{ "\"path\":\"a/b\"", "\"path\":\"a/../b\"" },
		{ "\"path\":\"a/b\"", "\"path\":\"%61\"" },
		{ "\"path\":\"a/b\"", "\"path\":null" },
		{ "\"path\":\"a/b\"", "\"path\":\"a/b\",\"to\":\"c\"" },
		{ "\"path\":\"a/b\"", "\"path\":\"a/b\",\"left\":1" },
		{ "\"to\":\"b\",", "" },
		{ "\"to\":\"b\"", "\"to\":\"\"" },
		{ "\"to\":\"b\"", "\"to\":\"b/\"" },
		{ "\"time\":[6,0],", "" },
		{ "\"time\":[6,0]", "\"time\":6" },
		{ "\"left\":2", "\"left\":-2" },
		{ "\"left\":2", "\"left\":4294967296" },
		{ "\"left\":2", "\"left\":\"2\"" },
		{ ",\"attr\":" ATTR, "" },
		{ "\"attr\":" ATTR, "\"attr\":null" },
		{ "\"ino\":17", "\"ino\":0" },
	};

	json_expect(FEED, cases, ICM_COUNT(cases), decode_feed, -EPROTO);
	json_expect_no_garbage(FEED, decode_feed);
	json_expect_unknown_members(FEED, decode_feed);
}

/* A feed record with n small changes. */
static int decode_changes(size_t n)
{
	static const char change[] = "{\"op\":\"remove\",\"path\":\"a\",\"time\":[6,0]}";
	ICM_AUTOBUF struct icm_buf b = ICM_BUF_INIT(0);

	icm_buf_addstr(&b, FEED_HEAD);
	for (size_t i = 0; i < n; i++)
		icm_buf_addf(&b, "%s%s", i ? "," : "", change);
	icm_buf_addstr(&b, "]}");
	return decode_feed(b.data, b.len);
}

Test(feed, the_number_of_changes_is_limited)
{
	cr_assert_eq(decode_changes(ICM_FEED_CHANGES_MAX), 0);
	cr_assert_eq(decode_changes(ICM_FEED_CHANGES_MAX + 1), -EPROTO);
}

#define LOG                                                                                        \
	"{\"records\":[{\"index\":5,\"record\":" FEED "},{\"index\":9,\"record\":" FEED_HEAD "]}}" \
	"]}"

static int decode_log(const void *data, size_t len)
{
	struct icm_log_segment s;
	int r = icm_log_segment_decode(data, len, &s);

	if (r == 0)
		icm_log_segment_clear(&s);
	return r;
}

Test(log_segment, is_written_as_it_was_read)
{
	static const char *const texts[] = { LOG, "{\"records\":[]}" };

	for (size_t i = 0; i < ICM_COUNT(texts); i++) {
		struct icm_log_segment s;
		ICM_AUTOFREE char *json = NULL;
		size_t len;

		cr_assert_eq(icm_log_segment_decode(texts[i], strlen(texts[i]), &s), 0);
		json = icm_log_segment_encode(&s, &len);
		cr_assert_str_eq(json, texts[i]);
		cr_assert_eq(len, strlen(texts[i]));
		icm_log_segment_clear(&s);
		icm_log_segment_clear(&s);
	}
}

Test(log_segment, indexes_and_records_belong_together)
{
	struct icm_log_segment s;

	cr_assert_eq(icm_log_segment_decode(LOG, strlen(LOG), &s), 0);
	cr_assert_eq(s.n, 2);
	cr_assert_eq(s.indexes[0], 5);
	cr_assert_eq(s.records[0].n_changes, 7);
	cr_assert_eq(s.indexes[1], 9);
	cr_assert_eq(s.records[1].n_changes, 0);
	icm_log_segment_clear(&s);
}

Test(log_segment, malformed_segments_are_refused)
{
	static const struct json_case cases[] = {
		{ "\"index\":9", "\"index\":5" },
		{ "\"index\":9", "\"index\":4" },
		{ "\"index\":9", "\"index\":-1" },
		{ "\"index\":5", "\"index\":9223372036854775807" },
		{ "\"index\":5", "\"index\":9223372036854775808" },
		{ "\"index\":5,", "" },
		{ "\"index\":5", "\"index\":\"5\"" },
		{ "\"record\":" FEED, "\"record\":null" },
		{ ",\"record\":" FEED, "" },
		{ "\"pid\":4711", "\"pid\":null" },
		{ "\"records\":[", "\"records\":[0," },
		{ NULL, "{\"records\":{}}" },
		{ NULL, "{\"record\":[]}" },
	};

	json_expect(LOG, cases, ICM_COUNT(cases), decode_log, -EPROTO);
	json_expect_no_garbage(LOG, decode_log);
	json_expect_unknown_members(LOG, decode_log);
}

#define META "{\"format\":1,\"name\":\"prod %231\",\"created\":[1700000000,5]}"

static int decode_meta(const void *data, size_t len)
{
	struct icm_meta m;
	int r = icm_meta_decode(data, len, &m);

	if (r == 0)
		icm_meta_clear(&m);
	return r;
}

Test(meta, is_written_as_it_was_read)
{
	struct icm_meta m;
	ICM_AUTOFREE char *json = NULL;
	size_t len;

	cr_assert_eq(icm_meta_decode(META, strlen(META), &m), 0);
	cr_assert_eq(m.format, ICM_FORMAT_VERSION);
	cr_assert_str_eq(m.name, "prod #1");
	cr_assert_eq(m.created.tv_nsec, 5);
	json = icm_meta_encode(&m, &len);
	cr_assert_str_eq(json, META);
	cr_assert_eq(len, strlen(META));
	icm_meta_clear(&m);
	icm_meta_clear(&m);
}

Test(meta, malformed_values_are_refused)
{
	static const struct json_case cases[] = {
		{ "\"format\":1,", "" },
		{ "\"format\":1", "\"format\":0" },
		{ "\"format\":1", "\"format\":-1" },
		{ "\"format\":1", "\"format\":4294967296" },
		{ "\"format\":1", "\"format\":\"1\"" },
		{ "\"format\":1", "\"format\":1.5" },
		{ "\"name\":\"prod %231\",", "" },
		{ "\"prod %231\"", "\"prod #1\"" },
		{ "\"prod %231\"", "null" },
		{ ",\"created\":[1700000000,5]", "" },
	};

	json_expect(META, cases, ICM_COUNT(cases), decode_meta, -EPROTO);
	json_expect_no_garbage(META, decode_meta);
	json_expect_unknown_members(META, decode_meta);
}

Test(meta, a_newer_format_is_decoded_as_far_as_its_number)
{
	static const char *const texts[] = {
		"{\"format\":2}",
		"{\"format\":2,\"name\":[\"a\"],\"created\":\"now\"}",
		"{\"format\":2,\"name\":\"\",\"created\":0}",
		"{\"what\":{},\"format\":4294967295,\"name\":\"a:b\"}",
	};

	for (size_t i = 0; i < ICM_COUNT(texts); i++) {
		struct icm_meta m;

		cr_assert_eq(icm_meta_decode(texts[i], strlen(texts[i]), &m), 0, "%s", texts[i]);
		cr_assert_gt(m.format, ICM_FORMAT_VERSION);
		cr_assert_str_eq(m.name, "");
		cr_assert_eq(m.created.tv_sec, 0);
		icm_meta_clear(&m);
	}
}

#define LEASE                                                                                      \
	"{\"host\":\"host.example\",\"boot_id\":\"b-1\",\"pid\":4711,\"user\":\"root\","           \
	"\"mountpoint\":\"/mnt/a%0Ab%FF\",\"since\":[1700000000,5],\"counter\":9,\"id\":\"" ID     \
	"\"}"

static int decode_lease(const void *data, size_t len)
{
	struct icm_lease_value v;
	int r = icm_lease_value_decode(data, len, &v);

	if (r == 0)
		icm_lease_value_clear(&v);
	return r;
}

Test(lease, is_written_as_it_was_read)
{
	struct icm_lease_value v;
	ICM_AUTOFREE char *json = NULL;
	size_t len;

	cr_assert_eq(icm_lease_value_decode(LEASE, strlen(LEASE), &v), 0);
	cr_assert_str_eq(v.host, "host.example");
	cr_assert_str_eq(v.boot_id, "b-1");
	cr_assert_eq(v.pid, 4711);
	cr_assert_str_eq(v.user, "root");
	cr_assert_str_eq(v.mountpoint, "/mnt/a\nb\xff");
	cr_assert_eq(v.since.tv_sec, 1700000000);
	cr_assert_eq(v.counter, 9);
	cr_assert_str_eq(v.id, ID);
	json = icm_lease_value_encode(&v, &len);
	cr_assert_str_eq(json, LEASE);
	cr_assert_eq(len, strlen(LEASE));
	icm_lease_value_clear(&v);
	icm_lease_value_clear(&v);
}

Test(lease, malformed_values_are_refused)
{
	static const struct json_case cases[] = {
		{ "\"host\":\"host.example\",", "" },
		{ "\"boot_id\":\"b-1\",", "" },
		{ "\"b-1\"", "1" },
		{ "\"pid\":4711,", "" },
		{ "4711", "-1" },
		{ "\"user\":\"root\",", "" },
		{ "\"mountpoint\":\"/mnt/a%0Ab%FF\",", "" },
		{ "%0A", "%0a" },
		{ "%0A", "\\n" },
		{ "\"since\":[1700000000,5],", "" },
		{ "[1700000000,5]", "[1700000000,-5]" },
		{ "\"counter\":9,", "" },
		{ "\"counter\":9", "\"counter\":-9" },
		{ ",\"id\":\"" ID "\"", "" },
	};

	json_expect(LEASE, cases, ICM_COUNT(cases), decode_lease, -EPROTO);
	json_expect_no_garbage(LEASE, decode_lease);
	json_expect_unknown_members(LEASE, decode_lease);
}

#define LOCKS                                                                                      \
	"{\"mounts\":[{\"lease\":\"lease/" ID "\",\"host\":\"host.example\",\"user\":\"root\"}],"  \
	"\"holders\":[{\"id\":\"" ID "\",\"mount\":0,\"kind\":\"record\",\"type\":\"write\","      \
	"\"start\":10,\"end\":19,\"owner\":\"fedcba9876543210\",\"handle\":7,\"pid\":4711,"        \
	"\"command\":\"sh\",\"since\":[1700000000,5]}],"                                           \
	"\"queue\":[{\"id\":\"00000000000000aa\",\"mount\":0,\"kind\":\"flock\",\"type\":"         \
	"\"read\","                                                                                \
	"\"start\":0,\"end\":9223372036854775807,\"owner\":\"0000000000000009\",\"handle\":9,"     \
	"\"pid\":0,\"command\":\"\",\"since\":[1700000000,6],\"paused\":true}]}"

static int decode_locks(const void *data, size_t len)
{
	struct icm_lock_value v;
	int r = icm_lock_value_decode(data, len, &v);

	if (r == 0)
		icm_lock_value_clear(&v);
	return r;
}

Test(lock_value, is_written_as_it_was_read)
{
	struct icm_lock_value v;
	ICM_AUTOFREE char *json = NULL;
	size_t len;

	cr_assert_eq(icm_lock_value_decode(LOCKS, strlen(LOCKS), &v), 0);
	cr_assert_eq(v.n_mounts, 1);
	cr_assert_str_eq(v.mounts[0].lease, "lease/" ID);
	cr_assert_str_eq(v.mounts[0].host, "host.example");
	cr_assert_str_eq(v.mounts[0].user, "root");
	cr_assert_eq(v.holders.n, 1);
	cr_assert_eq(v.holders.v[0].owner, 0xfedcba9876543210);
	cr_assert_eq(v.holders.v[0].type, F_WRLCK);
	cr_assert_eq(v.holders.v[0].end, 19);
	cr_assert_eq(v.holders.v[0].pid, 4711);
	cr_assert_str_eq(v.holders.v[0].command, "sh");
	cr_assert_eq(v.queue.n, 1);
	cr_assert(v.queue.v[0].flock && v.queue.v[0].paused);
	json = icm_lock_value_encode(&v, &len);
	cr_assert_str_eq(json, LOCKS);
	cr_assert_eq(len, strlen(LOCKS));
	icm_lock_value_clear(&v);
	icm_lock_value_clear(&v);
}

Test(lock_value, malformed_values_are_refused)
{
	static const struct json_case cases[] = {
		{ "\"lease\":\"lease/" ID "\",", "" },
		{ "\"host\":\"host.example\",", "" },
		{ ",\"user\":\"root\"", "" },
		{ "\"root\"", "[]" },
		{ "\"id\":\"" ID "\",", "" },
		{ "\"mount\":0", "\"mount\":1" },
		{ "\"kind\":\"record\",", "" },
		{ "\"record\"", "\"lease\"" },
		{ "\"write\"", "\"unlock\"" },
		{ "\"start\":10", "\"start\":20" },
		{ "\"start\":10", "\"start\":-1" },
		{ "\"end\":19", "\"end\":9223372036854775808" },
		{ "\"fedcba9876543210\"", "5" },
		{ "\"start\":0", "\"start\":1" },
		{ "\"end\":9223372036854775807", "\"end\":5" },
		{ "0000000000000009", "0000000000000008" },
		{ "4711", "true" },
		{ "\"command\":\"sh\",", "" },
		{ "\"sh\"",
		  "\"0123456789012345678901234567890123456789012345678901234567890123\"" },
		{ "\"since\":[1700000000,5]", "\"since\":[1700000000]" },
		{ "\"holders\":[", "\"holders\":[1," },
		{ "\"mounts\":[", "\"mounts\":[1," },
		{ "\"queue\":", "\"other\":" },
	};

	json_expect(LOCKS, cases, ICM_COUNT(cases), decode_locks, -EPROTO);
	json_expect_no_garbage(LOCKS, decode_locks);
	json_expect_unknown_members(LOCKS, decode_locks);
}
