/* SPDX-License-Identifier: MIT
 * Feed records, which tell other mounts what a transaction changed, and the
 * log segments they end up in. */
#include "core/record.h"

#include <errno.h>
#include <string.h>

#include "core/key.h"
#include "core/record-json.h"

static const struct {
	const char *name;
	bool to;   /* has a second path */
	bool attr; /* has attributes */
	bool left; /* may say how many names are left */
	bool root; /* may happen to the root */
} ops[] = {
	[ICM_CHANGE_CREATE] = { .name = "create", .attr = true },
	[ICM_CHANGE_WRITE] = { .name = "write", .attr = true },
	[ICM_CHANGE_ATTR] = { .name = "attr", .attr = true, .root = true },
	[ICM_CHANGE_REMOVE] = { .name = "remove", .left = true },
	[ICM_CHANGE_RENAME] = { .name = "rename", .to = true, .attr = true, .left = true },
	[ICM_CHANGE_EXCHANGE] = { .name = "exchange", .to = true, .attr = true },
	[ICM_CHANGE_LINK] = { .name = "link", .to = true, .attr = true },
};

const char *icm_change_op_name(enum icm_change_op op)
{
	return ops[op].name;
}

void icm_change_clear(struct icm_change *c)
{
	free(c->path);
	free(c->to);
	icm_attr_clear(&c->attr);
	*c = (struct icm_change){ 0 };
}

void icm_feed_record_clear(struct icm_feed_record *f)
{
	for (size_t i = 0; i < f->n_changes; i++)
		icm_change_clear(&f->changes[i]);
	free(f->changes);
	free(f->host);
	free(f->user);
	free(f->program);
	free(f->lease);
	*f = (struct icm_feed_record){ 0 };
}

void icm_log_segment_clear(struct icm_log_segment *s)
{
	for (size_t i = 0; i < s->n; i++)
		icm_feed_record_clear(&s->records[i]);
	free(s->records);
	free(s->indexes);
	*s = (struct icm_log_segment){ 0 };
}

static json_t *change_to_json(const struct icm_change *c)
{
	json_t *obj = icm_json_object();

	icm_json_set_ascii(obj, "op", ops[c->op].name);
	icm_json_set_text(obj, "path", c->path);
	if (c->to)
		icm_json_set_text(obj, "to", c->to);
	icm_json_set_time(obj, "time", c->time);
	if (c->left)
		icm_json_set_u64(obj, "left", c->left);
	if (c->piecewise)
		icm_json_set(obj, "piecewise", json_true());
	if (c->has_attr)
		icm_json_set(obj, "attr", icm_attr_to_json(&c->attr));
	return obj;
}

static json_t *feed_record_to_json(const struct icm_feed_record *f)
{
	json_t *obj = icm_json_object();
	json_t *changes = icm_json_array();

	icm_json_set_ascii(obj, "id", f->id);
	icm_json_set_time(obj, "time", f->time);
	icm_json_set_text(obj, "host", f->host);
	icm_json_set_text(obj, "user", f->user);
	icm_json_set_u64(obj, "pid", f->pid);
	icm_json_set_text(obj, "program", f->program);
	icm_json_set_text(obj, "lease", f->lease);
	for (size_t i = 0; i < f->n_changes; i++)
		icm_json_append(changes, change_to_json(&f->changes[i]));
	icm_json_set(obj, "changes", changes);
	return obj;
}

char *icm_feed_record_encode(const struct icm_feed_record *f, size_t *ret_len)
{
	return icm_json_dump(feed_record_to_json(f), ret_len);
}

static int get_op(const json_t *obj, enum icm_change_op *ret_op)
{
	json_t *member;

	if (icm_json_get(obj, "op", JSON_STRING, &member) < 0)
		return -EPROTO;
	for (size_t i = ICM_CHANGE_CREATE; i < ICM_COUNT(ops); i++) {
		if (strcmp(json_string_value(member), ops[i].name) == 0) {
			*ret_op = (enum icm_change_op)i;
			return 0;
		}
	}
	return -EPROTO;
}

static int get_paths(const json_t *obj, struct icm_change *c)
{
	int r = icm_json_get_path(obj, "path", &c->path);

	if (r < 0)
		return r;
	if (!*c->path && !ops[c->op].root)
		return -EPROTO;
	if (!ops[c->op].to)
		return json_object_get(obj, "to") ? -EPROTO : 0;
	r = icm_json_get_path(obj, "to", &c->to);
	if (r < 0)
		return r;
	return *c->to ? 0 : -EPROTO;
}

static int get_piecewise(const json_t *obj, struct icm_change *c)
{
	const json_t *piecewise = json_object_get(obj, "piecewise");

	if (piecewise && (!json_is_boolean(piecewise) || c->op != ICM_CHANGE_RENAME))
		return -EPROTO;
	c->piecewise = json_is_true(piecewise);
	return 0;
}

/* attr, left and piecewise, as far as the op has them */
static int get_details(const json_t *obj, struct icm_change *c)
{
	const json_t *attr = json_object_get(obj, "attr");
	uint64_t left = 0;
	int r = 0;

	if (json_object_get(obj, "left"))
		r = icm_json_get_u64(obj, "left", 0, ops[c->op].left ? UINT32_MAX : 0, &left);
	if (r >= 0)
		r = get_piecewise(obj, c);
	if (r < 0)
		return r;
	c->left = (uint32_t)left;
	if (!attr)
		return ops[c->op].attr ? -EPROTO : 0;
	r = icm_attr_from_json(attr, &c->attr);
	c->has_attr = r >= 0;
	return r;
}

/* Into *c, which the caller clears in any case. */
static int change_from_json(const json_t *obj, struct icm_change *c)
{
	int r = get_op(obj, &c->op);

	if (r < 0)
		return r;
	r = get_paths(obj, c);
	if (r < 0)
		return r;
	r = icm_json_get_time(obj, "time", &c->time);
	if (r < 0)
		return r;
	return get_details(obj, c);
}

static int get_changes(const json_t *obj, struct icm_feed_record *f)
{
	json_t *list;
	size_t n;

	if (icm_json_get(obj, "changes", JSON_ARRAY, &list) < 0)
		return -EPROTO;
	n = json_array_size(list);
	if (n > ICM_FEED_CHANGES_MAX)
		return -EPROTO;
	f->changes = n ? icm_xcalloc(n, sizeof(*f->changes)) : NULL;
	while (f->n_changes < n) {
		size_t i = f->n_changes++;
		int r = change_from_json(json_array_get(list, i), &f->changes[i]);

		if (r < 0)
			return r;
	}
	return 0;
}

static int get_author(const json_t *obj, struct icm_feed_record *f)
{
	int r = icm_json_get_text(obj, "host", ICM_TEXT_MAX, &f->host);

	if (r < 0)
		return r;
	r = icm_json_get_text(obj, "user", ICM_TEXT_MAX, &f->user);
	if (r < 0)
		return r;
	r = icm_json_get_u64(obj, "pid", 0, INT64_MAX, &f->pid);
	if (r < 0)
		return r;
	r = icm_json_get_text(obj, "program", ICM_TEXT_MAX, &f->program);
	if (r < 0)
		return r;
	return icm_json_get_text(obj, "lease", ICM_TEXT_MAX, &f->lease);
}

/* Into *f, which the caller clears in any case. */
static int feed_record_from_json(const json_t *obj, struct icm_feed_record *f)
{
	int r = icm_json_get_id(obj, "id", f->id);

	if (r < 0)
		return r;
	r = icm_json_get_time(obj, "time", &f->time);
	if (r < 0)
		return r;
	r = get_author(obj, f);
	if (r < 0)
		return r;
	return get_changes(obj, f);
}

int icm_feed_record_decode(const void *data, size_t len, struct icm_feed_record *ret)
{
	ICM_CLEANUP(icm_feed_record_clear) struct icm_feed_record f = { 0 };
	json_auto_t *obj = NULL;
	int r = icm_json_parse(data, len, ICM_FEED_VALUE_MAX, &obj);

	if (r >= 0)
		r = feed_record_from_json(obj, &f);
	if (r < 0)
		return r;
	*ret = f;
	f = (struct icm_feed_record){ 0 };
	return 0;
}

char *icm_log_segment_encode(const struct icm_log_segment *s, size_t *ret_len)
{
	json_t *obj = icm_json_object();
	json_t *list = icm_json_array();

	for (size_t i = 0; i < s->n; i++) {
		json_t *item = icm_json_object();

		icm_json_set_u64(item, "index", s->indexes[i]);
		icm_json_set(item, "record", feed_record_to_json(&s->records[i]));
		icm_json_append(list, item);
	}
	icm_json_set(obj, "records", list);
	return icm_json_dump(obj, ret_len);
}

static int log_segment_from_json(const json_t *obj, struct icm_log_segment *s)
{
	uint64_t above = 0; /* the next index is at least this */
	json_t *list;
	size_t n;

	if (icm_json_get(obj, "records", JSON_ARRAY, &list) < 0)
		return -EPROTO;
	n = json_array_size(list);
	s->records = n ? icm_xcalloc(n, sizeof(*s->records)) : NULL;
	s->indexes = n ? icm_xcalloc(n, sizeof(*s->indexes)) : NULL;
	while (s->n < n) {
		const json_t *item = json_array_get(list, s->n);
		size_t i = s->n++;
		int r = icm_json_get_u64(item, "index", above, INT64_MAX, &s->indexes[i]);

		if (r >= 0)
			r = feed_record_from_json(json_object_get(item, "record"), &s->records[i]);
		if (r < 0)
			return r;
		above = s->indexes[i] + 1;
	}
	return 0;
}

int icm_log_segment_decode(const void *data, size_t len, struct icm_log_segment *ret)
{
	ICM_CLEANUP(icm_log_segment_clear) struct icm_log_segment s = { 0 };
	json_auto_t *obj = NULL;
	int r = icm_json_parse(data, len, ICM_FEED_VALUE_MAX, &obj);

	if (r >= 0)
		r = log_segment_from_json(obj, &s);
	if (r < 0)
		return r;
	*ret = s;
	s = (struct icm_log_segment){ 0 };
	return 0;
}
