/* SPDX-License-Identifier: MIT
 * The description of bytes that could not be committed. */
#include <errno.h>
#include <string.h>

#include "core/key.h"
#include "core/record-json.h"
#include "core/unsaved.h"

void icm_unsaved_clear(struct icm_unsaved *u)
{
	free(u->store);
	free(u->mountpoint);
	free(u->path);
	free(u->reason);
	free(u->user);
	free(u->gaps);
	*u = (struct icm_unsaved){ 0 };
}

static json_t *base_to_json(const struct icm_unsaved *u)
{
	json_t *base = icm_json_object();

	icm_json_set_u64(base, "ino", u->base_ino);
	icm_json_set_u64(base, "size", u->base_size);
	icm_json_set_time(base, "mtime", u->base_mtime);
	return base;
}

static json_t *gaps_to_json(const struct icm_unsaved *u)
{
	json_t *array = icm_json_array();

	for (size_t i = 0; i < u->n_gaps; i++) {
		json_t *pair = icm_json_array();

		icm_json_append(pair, json_integer((json_int_t)u->gaps[i].off));
		icm_json_append(pair, json_integer((json_int_t)u->gaps[i].len));
		icm_json_append(array, pair);
	}
	return array;
}

char *icm_unsaved_encode(const struct icm_unsaved *u, size_t *ret_len)
{
	ICM_AUTOFREE char *path = icm_key_encoded(u->path);
	json_t *obj = icm_json_object();

	icm_json_set_ascii(obj, "id", u->id);
	icm_json_set_time(obj, "time", u->time);
	icm_json_set_text(obj, "store", u->store);
	icm_json_set_text(obj, "mountpoint", u->mountpoint);
	icm_json_set_ascii(obj, "path", path);
	icm_json_set_text(obj, "reason", u->reason);
	icm_json_set_text(obj, "user", u->user);
	icm_json_set_u64(obj, "mode", u->mode);
	icm_json_set_u64(obj, "uid", u->uid);
	icm_json_set_u64(obj, "gid", u->gid);
	icm_json_set_u64(obj, "size", u->size);
	icm_json_set_time(obj, "mtime", u->mtime);
	if (u->has_base)
		icm_json_set(obj, "base", base_to_json(u));
	if (u->n_gaps)
		icm_json_set(obj, "gaps", gaps_to_json(u));
	return icm_json_dump(obj, ret_len);
}

static int texts_from_json(const json_t *obj, struct icm_unsaved *u)
{
	int r = icm_json_get_text(obj, "store", ICM_TEXT_MAX, &u->store);

	if (r >= 0)
		r = icm_json_get_text(obj, "mountpoint", ICM_TEXT_MAX, &u->mountpoint);
	if (r >= 0)
		r = icm_json_get_path(obj, "path", &u->path);
	if (r >= 0)
		r = icm_json_get_text(obj, "reason", ICM_TEXT_MAX, &u->reason);
	if (r >= 0)
		r = icm_json_get_text(obj, "user", ICM_TEXT_MAX, &u->user);
	return r < 0 ? r : *u->path ? 0 : -EPROTO;
}

static int numbers_from_json(const json_t *obj, struct icm_unsaved *u)
{
	uint64_t mode, uid, gid;
	int r = icm_json_get_u64(obj, "mode", 0, 07777, &mode);

	if (r >= 0)
		r = icm_json_get_u64(obj, "uid", 0, UINT32_MAX, &uid);
	if (r >= 0)
		r = icm_json_get_u64(obj, "gid", 0, UINT32_MAX, &gid);
	if (r >= 0)
		r = icm_json_get_u64(obj, "size", 0, ICM_FILE_SIZE_MAX, &u->size);
	if (r >= 0)
		r = icm_json_get_time(obj, "mtime", &u->mtime);
	if (r < 0)
		return r;
	u->mode = (mode_t)mode;
	u->uid = (uid_t)uid;
	u->gid = (gid_t)gid;
	return 0;
}

static int base_from_json(const json_t *obj, struct icm_unsaved *u)
{
	json_t *base;
	int r;

	if (!json_object_get(obj, "base"))
		return 0;
	r = icm_json_get(obj, "base", JSON_OBJECT, &base);
	if (r >= 0)
		r = icm_json_get_u64(base, "ino", 1, INT64_MAX, &u->base_ino);
	if (r >= 0)
		r = icm_json_get_u64(base, "size", 0, ICM_FILE_SIZE_MAX, &u->base_size);
	if (r >= 0)
		r = icm_json_get_time(base, "mtime", &u->base_mtime);
	u->has_base = r >= 0;
	return r;
}

static int gap_from_json(const json_t *pair, const struct icm_unsaved *u, uint64_t from,
			 struct icm_unsaved_gap *ret)
{
	uint64_t end = u->size < u->base_size ? u->size : u->base_size;
	json_t *off = json_array_get(pair, 0), *len = json_array_get(pair, 1);

	if (json_array_size(pair) != 2 || !json_is_integer(off) || !json_is_integer(len) ||
	    json_integer_value(off) < 0 || json_integer_value(len) <= 0)
		return -EPROTO;
	ret->off = (uint64_t)json_integer_value(off);
	ret->len = (uint64_t)json_integer_value(len);
	return ret->off >= from && ret->off < end && ret->len <= end - ret->off ? 0 : -EPROTO;
}

static int gaps_from_json(const json_t *obj, struct icm_unsaved *u)
{
	uint64_t from = 0;
	json_t *array, *pair;
	size_t i;
	int r;

	if (!json_object_get(obj, "gaps"))
		return 0;
	r = icm_json_get(obj, "gaps", JSON_ARRAY, &array);
	if (r < 0 || !u->has_base || json_array_size(array) > ICM_UNSAVED_GAPS_MAX)
		return -EPROTO;
	u->gaps = icm_xcalloc(json_array_size(array), sizeof(*u->gaps));
	json_array_foreach(array, i, pair)
	{
		r = gap_from_json(pair, u, from, &u->gaps[i]);
		if (r < 0)
			return r;
		from = u->gaps[i].off + u->gaps[i].len;
		u->n_gaps++;
	}
	return 0;
}

int icm_unsaved_decode(const void *data, size_t len, struct icm_unsaved *ret)
{
	ICM_CLEANUP(icm_unsaved_clear) struct icm_unsaved u = { 0 };
	json_auto_t *obj = NULL;
	int r = icm_json_parse(data, len, ICM_LIST_VALUE_MAX, &obj);

	if (r >= 0)
		r = icm_json_get_id(obj, "id", u.id);
	if (r >= 0)
		r = icm_json_get_time(obj, "time", &u.time);
	if (r >= 0)
		r = texts_from_json(obj, &u);
	if (r >= 0)
		r = numbers_from_json(obj, &u);
	if (r >= 0)
		r = base_from_json(obj, &u);
	if (r >= 0)
		r = gaps_from_json(obj, &u);
	if (r < 0)
		return r;
	*ret = u;
	u = (struct icm_unsaved){ 0 };
	return 0;
}
