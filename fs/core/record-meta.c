/* SPDX-License-Identifier: MIT
 * The values that aren't about files: meta and leases. */
#include "core/record.h"

#include <errno.h>
#include <string.h>

#include "core/key.h"
#include "core/record-json.h"

void icm_meta_clear(struct icm_meta *m)
{
	free(m->name);
	*m = (struct icm_meta){ 0 };
}

char *icm_meta_encode(const struct icm_meta *m, size_t *ret_len)
{
	json_t *obj = icm_json_object();

	icm_json_set_u64(obj, "format", m->format);
	icm_json_set_text(obj, "name", m->name);
	icm_json_set_time(obj, "created", m->created);
	return icm_json_dump(obj, ret_len);
}

static int meta_from_json(const json_t *obj, struct icm_meta *m)
{
	uint64_t format;
	int r = icm_json_get_u64(obj, "format", 1, UINT32_MAX, &format);

	if (r < 0)
		return r;
	m->format = (uint32_t)format;
	r = icm_json_get_text(obj, "name", ICM_TEXT_MAX, &m->name);
	if (r >= 0)
		r = icm_json_get_time(obj, "created", &m->created);
	if (r < 0 && m->format > ICM_FORMAT_VERSION) {
		/* its number is what the caller needs, to refuse it by name */
		if (!m->name)
			m->name = icm_xstrdup("");
		return 0;
	}
	return r;
}

int icm_meta_decode(const void *data, size_t len, struct icm_meta *ret)
{
	ICM_CLEANUP(icm_meta_clear) struct icm_meta m = { 0 };
	json_auto_t *obj = NULL;
	int r = icm_json_parse(data, len, ICM_SMALL_VALUE_MAX, &obj);

	if (r >= 0)
		r = meta_from_json(obj, &m);
	if (r < 0)
		return r;
	*ret = m;
	m = (struct icm_meta){ 0 };
	return 0;
}

void icm_lease_value_clear(struct icm_lease_value *v)
{
	free(v->host);
	free(v->boot_id);
	free(v->user);
	free(v->mountpoint);
	*v = (struct icm_lease_value){ 0 };
}

char *icm_lease_value_encode(const struct icm_lease_value *v, size_t *ret_len)
{
	json_t *obj = icm_json_object();

	icm_json_set_text(obj, "host", v->host);
	icm_json_set_text(obj, "boot_id", v->boot_id);
	icm_json_set_u64(obj, "pid", v->pid);
	icm_json_set_text(obj, "user", v->user);
	icm_json_set_text(obj, "mountpoint", v->mountpoint);
	icm_json_set_time(obj, "since", v->since);
	icm_json_set_u64(obj, "counter", v->counter);
	icm_json_set_ascii(obj, "id", v->id);
	return icm_json_dump(obj, ret_len);
}

static int lease_texts_from_json(const json_t *obj, struct icm_lease_value *v)
{
	int r = icm_json_get_text(obj, "host", ICM_TEXT_MAX, &v->host);

	if (r < 0)
		return r;
	r = icm_json_get_text(obj, "boot_id", ICM_TEXT_MAX, &v->boot_id);
	if (r < 0)
		return r;
	r = icm_json_get_text(obj, "user", ICM_TEXT_MAX, &v->user);
	if (r < 0)
		return r;
	return icm_json_get_text(obj, "mountpoint", ICM_TEXT_MAX, &v->mountpoint);
}

static int lease_value_from_json(const json_t *obj, struct icm_lease_value *v)
{
	int r = lease_texts_from_json(obj, v);

	if (r < 0)
		return r;
	r = icm_json_get_u64(obj, "pid", 0, INT64_MAX, &v->pid);
	if (r < 0)
		return r;
	r = icm_json_get_time(obj, "since", &v->since);
	if (r < 0)
		return r;
	r = icm_json_get_u64(obj, "counter", 0, INT64_MAX, &v->counter);
	if (r < 0)
		return r;
	return icm_json_get_id(obj, "id", v->id);
}

int icm_lease_value_decode(const void *data, size_t len, struct icm_lease_value *ret)
{
	ICM_CLEANUP(icm_lease_value_clear) struct icm_lease_value v = { 0 };
	json_auto_t *obj = NULL;
	int r = icm_json_parse(data, len, ICM_SMALL_VALUE_MAX, &obj);

	if (r >= 0)
		r = lease_value_from_json(obj, &v);
	if (r < 0)
		return r;
	*ret = v;
	v = (struct icm_lease_value){ 0 };
	return 0;
}
