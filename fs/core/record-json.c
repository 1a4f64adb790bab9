/* SPDX-License-Identifier: MIT */
#include "core/record-json.h"

#include <errno.h>
#include <inttypes.h>
#include <limits.h>
#include <string.h>

#include "core/key.h"

/* jansson bounds nesting by itself, at 2,048 levels of recursion: too much for
 * the stack of a small thread. */
static bool depth_ok(const char *data, size_t len)
{
	unsigned int depth = 0;
	bool in_string = false;

	for (size_t i = 0; i < len; i++) {
		char c = data[i];

		if (in_string) {
			if (c == '\\')
				i++;
			else if (c == '"')
				in_string = false;
		} else if (c == '"') {
			in_string = true;
		} else if (c == '{' || c == '[') {
			if (++depth > ICM_JSON_DEPTH)
				return false;
		} else if ((c == '}' || c == ']') && depth) {
			depth--;
		}
	}
	return true;
}

int icm_json_parse(const void *data, size_t len, size_t max, json_t **ret_json)
{
	json_t *json;

	if (!len || len > max || !depth_ok(data, len))
		return -EPROTO;
	json = json_loadb(data, len, JSON_REJECT_DUPLICATES, NULL);
	if (!json)
		return -EPROTO;
	*ret_json = json;
	return 0;
}

/* The encoders hand only valid values to jansson: what fails is memory. */
static void need(bool done)
{
	if (!done)
		abort();
}

static int add_to_buf(const char *text, size_t len, void *userdata)
{
	return icm_buf_add(userdata, text, len);
}

char *icm_json_dump(json_t *value, size_t *ret_len)
{
	ICM_AUTOBUF struct icm_buf b = ICM_BUF_INIT(0);

	(void)icm_buf_reserve(&b, 500);
	need(json_dump_callback(value, add_to_buf, &b, JSON_COMPACT) == 0);
	json_decref(value);
	return icm_buf_steal(&b, ret_len);
}

json_t *icm_json_object(void)
{
	json_t *obj = json_object();

	need(obj);
	return obj;
}

json_t *icm_json_array(void)
{
	json_t *array = json_array();

	need(array);
	return array;
}

void icm_json_set(json_t *obj, const char *key, json_t *value)
{
	need(json_object_set_new_nocheck(obj, key, value) == 0);
}

void icm_json_append(json_t *array, json_t *value)
{
	need(json_array_append_new(array, value) == 0);
}

json_t *icm_json_hash(const struct icm_sha256 *sum)
{
	char hex[ICM_SHA256_HEX + 1];

	icm_sha256_to_hex(sum, hex);
	return json_stringn_nocheck(hex, ICM_SHA256_HEX);
}

void icm_json_set_ascii(json_t *obj, const char *key, const char *text)
{
	icm_json_set(obj, key, json_string_nocheck(text));
}

void icm_json_set_u64(json_t *obj, const char *key, uint64_t n)
{
	icm_json_set(obj, key, json_integer((json_int_t)n));
}

void icm_json_set_time(json_t *obj, const char *key, struct timespec t)
{
	json_t *pair = icm_json_array();

	icm_json_append(pair, json_integer(t.tv_sec));
	icm_json_append(pair, json_integer(t.tv_nsec));
	icm_json_set(obj, key, pair);
}

void icm_json_set_text(json_t *obj, const char *key, const char *text)
{
	ICM_AUTOBUF struct icm_buf b = ICM_BUF_INIT(0);
	ICM_AUTOFREE char *cut = NULL;

	if (!text)
		text = "";
	if (strlen(text) > ICM_TEXT_MAX) {
		cut = icm_xstrndup(text, ICM_TEXT_MAX);
		text = cut;
	}
	icm_key_encode(&b, text);
	icm_json_set(obj, key, json_stringn_nocheck(b.data ? b.data : "", b.len));
}

int icm_json_get(const json_t *obj, const char *key, json_type type, json_t **ret_member)
{
	json_t *member = json_object_get(obj, key);

	if (!member || json_typeof(member) != type)
		return -EPROTO;
	*ret_member = member;
	return 0;
}

int icm_json_get_u64(const json_t *obj, const char *key, uint64_t min, uint64_t max,
		     uint64_t *ret_n)
{
	json_t *member;
	json_int_t n;

	if (icm_json_get(obj, key, JSON_INTEGER, &member) < 0)
		return -EPROTO;
	n = json_integer_value(member);
	if (n < 0 || (uint64_t)n < min || (uint64_t)n > max)
		return -EPROTO;
	*ret_n = (uint64_t)n;
	return 0;
}

int icm_json_get_time(const json_t *obj, const char *key, struct timespec *ret_time)
{
	json_t *pair, *sec, *nsec;

	if (icm_json_get(obj, key, JSON_ARRAY, &pair) < 0 || json_array_size(pair) != 2)
		return -EPROTO;
	sec = json_array_get(pair, 0);
	nsec = json_array_get(pair, 1);
	if (!json_is_integer(sec) || !json_is_integer(nsec) || json_integer_value(nsec) < 0 ||
	    json_integer_value(nsec) > 999999999)
		return -EPROTO;
	*ret_time = (struct timespec){ .tv_sec = json_integer_value(sec),
				       .tv_nsec = json_integer_value(nsec) };
	return 0;
}

int icm_json_get_id(const json_t *obj, const char *key, char ret_id[static ICM_ID_HEX + 1])
{
	json_t *member;
	const char *id;

	if (icm_json_get(obj, key, JSON_STRING, &member) < 0)
		return -EPROTO;
	id = json_string_value(member);
	if (strlen(id) != ICM_ID_HEX || strspn(id, "0123456789abcdef") != ICM_ID_HEX)
		return -EPROTO;
	memcpy(ret_id, id, ICM_ID_HEX + 1);
	return 0;
}

int icm_json_hash_value(const json_t *value, struct icm_sha256 *ret)
{
	if (!json_is_string(value) || icm_sha256_from_hex(json_string_value(value), ret) < 0)
		return -EPROTO;
	return 0;
}

int icm_json_get_hash(const json_t *obj, const char *key, struct icm_sha256 *ret)
{
	return icm_json_hash_value(json_object_get(obj, key), ret);
}

int icm_json_get_text(const json_t *obj, const char *key, size_t max, char **ret_text)
{
	json_t *member;

	if (icm_json_get(obj, key, JSON_STRING, &member) < 0 ||
	    icm_key_unescape(json_string_value(member), max, ret_text) < 0)
		return -EPROTO;
	return 0;
}

int icm_json_get_path(const json_t *obj, const char *key, char **ret_path)
{
	json_t *member;

	if (icm_json_get(obj, key, JSON_STRING, &member) < 0 ||
	    icm_key_decode(json_string_value(member), ret_path) < 0)
		return -EPROTO;
	return 0;
}
