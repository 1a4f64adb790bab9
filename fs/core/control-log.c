/* SPDX-License-Identifier: MIT
 * The log, newest first: the feed's records, then the log's segments one by one
 * as they are read. A record may move from the feed to the log meanwhile: it is
 * known by its index, and what was shown isn't shown again. */
#include "core/control-local.h"

#include <string.h>

#include "core/shared.h"
#include "util/log.h"

#define LOG_TEXT_MAX ((size_t)1 << 30)

static json_t *change_object(const struct icm_change *c)
{
	json_t *o = json_object();

	json_object_set_new(o, "op", json_string(icm_change_op_name(c->op)));
	json_object_set_new(o, "path", icm_control_json_path(c->path));
	if (c->to)
		json_object_set_new(o, "to", icm_control_json_path(c->to));
	return o;
}

static json_t *record_object(const struct icm_feed_record *f, uint64_t index)
{
	json_t *o = json_object(), *changes = json_array();

	for (size_t i = 0; i < f->n_changes; i++)
		json_array_append_new(changes, change_object(&f->changes[i]));
	json_object_set_new(o, "time", icm_control_json_time(f->time));
	json_object_set_new(o, "host", icm_control_json_path(f->host));
	json_object_set_new(o, "user", icm_control_json_path(f->user));
	json_object_set_new(o, "pid", json_integer((json_int_t)f->pid));
	json_object_set_new(o, "program", icm_control_json_path(f->program));
	json_object_set_new(o, "index", json_integer((json_int_t)index));
	json_object_set_new(o, "changes", changes);
	return o;
}

static int add_record(struct icm_control_handle *h, const struct icm_feed_record *f, uint64_t index)
{
	json_t *o;
	char *line;
	int r;

	if (index >= h->below)
		return 0;
	h->below = index;
	o = record_object(f, index);
	line = json_dumps(o, JSON_COMPACT);
	json_decref(o);
	r = line ? icm_buf_addf(&h->text, "%s\n", line) : 0;
	free(line);
	return r;
}

static int newest_first(const void *a, const void *b)
{
	const struct icm_entry *x = a, *y = b;

	return (x->modify_index < y->modify_index) - (x->modify_index > y->modify_index);
}

static int add_feed(struct icm_control_handle *h)
{
	struct icm_volume *vol = h->h.view->vol;
	struct icm_ctx ctx = icm_volume_ctx(vol);
	ICM_AUTOENTRIES struct icm_entries list = { 0 };
	uint64_t index;
	int r = icm_backend_list(icm_volume_backend(vol), &ctx, "feed/", false, &list, &index);

	if (r < 0)
		return r;
	if (list.n)
		qsort(list.v, list.n, sizeof(*list.v), newest_first);
	for (size_t i = 0; i < list.n && r >= 0; i++) {
		struct icm_feed_record f;

		if (icm_feed_record_decode(list.v[i].value, list.v[i].len, &f) < 0) {
			icm_log_err("'%s' is damaged and not in the log", list.v[i].key);
			continue;
		}
		r = add_record(h, &f, list.v[i].modify_index);
		icm_feed_record_clear(&f);
	}
	return r;
}

/* After the feed: what moves from there in between is in both, not in neither. */
static int list_segments(struct icm_control_handle *h)
{
	struct icm_volume *vol = h->h.view->vol;
	struct icm_ctx ctx = icm_volume_ctx(vol);
	ICM_AUTOENTRIES struct icm_entries list = { 0 };
	uint64_t index;
	int r = icm_backend_list(icm_volume_backend(vol), &ctx, "log/", true, &list, &index);

	if (r < 0)
		return r;
	h->segments = icm_xcalloc(list.n + 1, sizeof(char *));
	for (size_t i = 0; i < list.n; i++) /* the index has leading zeros: in order */
		h->segments[h->n_segments++] = ICM_STEAL(&list.v[i].key);
	return 0;
}

int icm_control_log_open(struct icm_control_handle *h)
{
	int r;

	h->below = UINT64_MAX;
	h->text.max = LOG_TEXT_MAX;
	r = add_feed(h);
	return r < 0 ? r : list_segments(h);
}

static int add_segment(struct icm_control_handle *h, const char *key)
{
	struct icm_volume *vol = h->h.view->vol;
	struct icm_ctx ctx = icm_volume_ctx(vol);
	ICM_AUTOENTRY struct icm_entry e = { 0 };
	struct icm_log_segment s;
	int r = icm_backend_get(icm_volume_backend(vol), &ctx, key, &e);

	if (r < 0)
		return r == -ENOENT ? 0 : r; /* pruned meanwhile */
	if (icm_log_segment_decode(e.value, e.len, &s) < 0) {
		icm_log_err("'%s' is damaged and not in the log", key);
		return 0;
	}
	for (size_t i = s.n; i-- > 0 && r >= 0;)
		r = add_record(h, &s.records[i], s.indexes[i]);
	icm_log_segment_clear(&s);
	return r;
}

int icm_control_log_more(struct icm_control_handle *h, size_t want)
{
	while (h->n_segments && h->text.len < want) {
		int r = add_segment(h, h->segments[h->n_segments - 1]);

		if (r < 0)
			return r; /* the next read tries it again */
		free(h->segments[--h->n_segments]);
	}
	return 0;
}
