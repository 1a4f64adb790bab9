/* SPDX-License-Identifier: MIT
 * Snapshots: the value of snap/<name>, and the parts of its manifest. */
#include "core/record.h"

#include <errno.h>
#include <sys/stat.h>

#include "core/record-json.h"

/* ---- snap/<name> ---- */

void icm_snap_clear(struct icm_snap *s)
{
	free(s->host);
	free(s->user);
	free(s->parts);
	*s = (struct icm_snap){ 0 };
}

char *icm_snap_encode(const struct icm_snap *s, size_t *ret_len)
{
	json_t *obj = icm_json_object(), *parts = icm_json_array();

	icm_json_set_ascii(obj, "id", s->id);
	icm_json_set_time(obj, "time", s->time);
	icm_json_set_text(obj, "host", s->host);
	icm_json_set_text(obj, "user", s->user);
	icm_json_set_u64(obj, "index", s->index);
	icm_json_set_u64(obj, "files", s->files);
	icm_json_set_u64(obj, "bytes", s->bytes);
	for (size_t i = 0; i < s->n_parts; i++)
		icm_json_append(parts, icm_json_hash(&s->parts[i]));
	icm_json_set(obj, "parts", parts);
	return icm_json_dump(obj, ret_len);
}

static int parts_from_json(const json_t *obj, struct icm_snap *s)
{
	json_t *list;
	size_t n;

	if (icm_json_get(obj, "parts", JSON_ARRAY, &list) < 0)
		return -EPROTO;
	n = json_array_size(list);
	if (n == 0 || n > ICM_SNAP_PARTS_MAX)
		return -EPROTO;
	s->parts = icm_xcalloc(n, sizeof(*s->parts));
	for (; s->n_parts < n; s->n_parts++)
		if (icm_json_hash_value(json_array_get(list, s->n_parts), &s->parts[s->n_parts]) <
		    0)
			return -EPROTO;
	return 0;
}

static int snap_from_json(const json_t *obj, struct icm_snap *s)
{
	int r = icm_json_get_id(obj, "id", s->id);

	if (r >= 0)
		r = icm_json_get_time(obj, "time", &s->time);
	if (r >= 0)
		r = icm_json_get_text(obj, "host", ICM_TEXT_MAX, &s->host);
	if (r >= 0)
		r = icm_json_get_text(obj, "user", ICM_TEXT_MAX, &s->user);
	if (r >= 0)
		r = icm_json_get_u64(obj, "index", 1, INT64_MAX, &s->index);
	if (r >= 0)
		r = icm_json_get_u64(obj, "files", 0, INT64_MAX, &s->files);
	if (r >= 0)
		r = icm_json_get_u64(obj, "bytes", 0, INT64_MAX, &s->bytes);
	return r < 0 ? r : parts_from_json(obj, s);
}

int icm_snap_decode(const void *data, size_t len, struct icm_snap *ret)
{
	ICM_CLEANUP(icm_snap_clear) struct icm_snap s = { 0 };
	json_auto_t *obj = NULL;
	int r = icm_json_parse(data, len, ICM_LIST_VALUE_MAX, &obj);

	if (r >= 0)
		r = snap_from_json(obj, &s);
	if (r < 0)
		return r;
	*ret = s;
	s = (struct icm_snap){ 0 };
	return 0;
}

/* ---- the manifest ---- */

void icm_snap_entry_clear(struct icm_snap_entry *e)
{
	free(e->path);
	icm_attr_clear(&e->attr);
	icm_record_clear(&e->record);
	*e = (struct icm_snap_entry){ 0 };
}

static json_t *entry_to_json(const struct icm_snap_entry *e)
{
	json_t *obj = icm_json_object();

	icm_json_set_text(obj, "path", e->path);
	icm_json_set(obj, "attr", icm_attr_to_json(&e->attr));
	if (e->has_record)
		icm_json_set(obj, "record", icm_record_to_json(&e->record));
	return obj;
}

char *icm_snap_entry_encode(const struct icm_snap_entry *e, size_t *ret_len)
{
	return icm_json_dump(entry_to_json(e), ret_len);
}

/* A `link` record would have to be followed out of the snapshot. */
bool icm_snap_entry_is_valid(const struct icm_snap_entry *e)
{
	if (S_ISDIR(e->attr.mode))
		return !e->has_record && !e->attr.linked;
	if (!*e->path || (e->has_record && e->record.form == ICM_RECORD_LINK))
		return false;
	return icm_record_fits(&e->attr, e->has_record ? &e->record : NULL);
}

static int entry_from_json(const json_t *obj, struct icm_snap_entry *e)
{
	const json_t *record = json_object_get(obj, "record");
	int r = icm_json_get_path(obj, "path", &e->path);

	if (r >= 0)
		r = icm_attr_from_json(json_object_get(obj, "attr"), &e->attr);
	if (r >= 0 && record)
		r = icm_record_from_json(record, &e->record);
	if (r < 0)
		return r;
	e->has_record = record;
	return icm_snap_entry_is_valid(e) ? 0 : -EPROTO;
}

void icm_snap_part_clear(struct icm_snap_part *p)
{
	for (size_t i = 0; i < p->n; i++)
		icm_snap_entry_clear(&p->v[i]);
	free(p->v);
	*p = (struct icm_snap_part){ 0 };
}

char *icm_snap_part_encode(const struct icm_snap_part *p, size_t *ret_len)
{
	json_t *list = icm_json_array();

	for (size_t i = 0; i < p->n; i++)
		icm_json_append(list, entry_to_json(&p->v[i]));
	return icm_json_dump(list, ret_len);
}

static int part_from_json(const json_t *list, struct icm_snap_part *p)
{
	size_t n = json_array_size(list);

	if (!json_is_array(list))
		return -EPROTO;
	p->v = n ? icm_xcalloc(n, sizeof(*p->v)) : NULL;
	for (; p->n < n; p->n++) {
		int r = entry_from_json(json_array_get(list, p->n), &p->v[p->n]);

		if (r < 0) {
			icm_snap_entry_clear(&p->v[p->n]);
			return r;
		}
	}
	return 0;
}

int icm_snap_part_decode(const void *data, size_t len, struct icm_snap_part *ret)
{
	ICM_CLEANUP(icm_snap_part_clear) struct icm_snap_part p = { 0 };
	json_auto_t *list = NULL;
	int r = icm_json_parse(data, len, ICM_SNAP_PART_MAX, &list);

	if (r >= 0)
		r = part_from_json(list, &p);
	if (r < 0)
		return r;
	*ret = p;
	p = (struct icm_snap_part){ 0 };
	return 0;
}
