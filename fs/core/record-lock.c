/* SPDX-License-Identifier: MIT
 * The value of lock/<ino>: who has the locks of a file, and who waits for them. */
#include "core/record.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>

#include "core/key.h"
#include "core/record-json.h"

#define LAST_BYTE (UINT64_MAX >> 1)

void icm_lock_value_clear(struct icm_lock_value *v)
{
	for (size_t i = 0; i < v->n_mounts; i++) {
		free(v->mounts[i].lease);
		free(v->mounts[i].host);
		free(v->mounts[i].user);
	}
	free(v->mounts);
	free(v->holders.v);
	free(v->queue.v);
	*v = (struct icm_lock_value){ 0 };
}

static struct icm_lock_entries copy_entries(const struct icm_lock_entries *from)
{
	struct icm_lock_entries to = { .v = icm_xcalloc(from->n, sizeof(*to.v)), .n = from->n };

	if (from->n)
		memcpy(to.v, from->v, from->n * sizeof(*to.v));
	return to;
}

void icm_lock_value_copy(struct icm_lock_value *to, const struct icm_lock_value *from)
{
	*to = (struct icm_lock_value){ 0 };
	for (size_t i = 0; i < from->n_mounts; i++)
		icm_lock_value_add_mount(to, from->mounts[i].lease, from->mounts[i].host,
					 from->mounts[i].user);
	to->holders = copy_entries(&from->holders);
	to->queue = copy_entries(&from->queue);
}

unsigned icm_lock_value_add_mount(struct icm_lock_value *v, const char *lease, const char *host,
				  const char *user)
{
	v->mounts = icm_xrealloc(v->mounts, (v->n_mounts + 1) * sizeof(*v->mounts));
	v->mounts[v->n_mounts] =
		(struct icm_lock_mount){ icm_xstrdup(lease), icm_xstrdup(host), icm_xstrdup(user) };
	return (unsigned)v->n_mounts++;
}

/* ---- writing ---- */

static json_t *entry_to_json(const struct icm_lock_entry *e)
{
	json_t *obj = icm_json_object();
	char owner[17];

	snprintf(owner, sizeof(owner), "%016" PRIx64, e->owner);
	icm_json_set_ascii(obj, "id", e->id);
	icm_json_set_u64(obj, "mount", e->mount);
	icm_json_set_ascii(obj, "kind", e->flock ? "flock" : "record");
	icm_json_set_ascii(obj, "type", e->type == F_WRLCK ? "write" : "read");
	icm_json_set_u64(obj, "start", e->start);
	icm_json_set_u64(obj, "end", e->end);
	icm_json_set_ascii(obj, "owner", owner);
	icm_json_set_u64(obj, "handle", e->handle);
	icm_json_set_u64(obj, "pid", e->pid);
	icm_json_set_text(obj, "command", e->command);
	icm_json_set_time(obj, "since", e->since);
	if (e->paused)
		icm_json_set(obj, "paused", json_true());
	return obj;
}

static json_t *entries_to_json(const struct icm_lock_entries *list)
{
	json_t *array = icm_json_array();

	for (size_t i = 0; i < list->n; i++)
		icm_json_append(array, entry_to_json(&list->v[i]));
	return array;
}

char *icm_lock_value_encode(const struct icm_lock_value *v, size_t *ret_len)
{
	json_t *obj = icm_json_object();
	json_t *mounts = icm_json_array();

	for (size_t i = 0; i < v->n_mounts; i++) {
		json_t *m = icm_json_object();

		icm_json_set_text(m, "lease", v->mounts[i].lease);
		icm_json_set_text(m, "host", v->mounts[i].host);
		icm_json_set_text(m, "user", v->mounts[i].user);
		icm_json_append(mounts, m);
	}
	icm_json_set(obj, "mounts", mounts);
	icm_json_set(obj, "holders", entries_to_json(&v->holders));
	icm_json_set(obj, "queue", entries_to_json(&v->queue));
	return icm_json_dump(obj, ret_len);
}

/* ---- reading ---- */

static int get_choice(const json_t *obj, const char *key, const char *yes, const char *no,
		      bool *ret)
{
	json_t *text;
	int r = icm_json_get(obj, key, JSON_STRING, &text);

	if (r < 0)
		return r;
	*ret = strcmp(json_string_value(text), yes) == 0;
	return *ret || strcmp(json_string_value(text), no) == 0 ? 0 : -EPROTO;
}

static int owner_from_json(const json_t *obj, struct icm_lock_entry *e)
{
	char text[ICM_ID_HEX + 1];
	int r = icm_json_get_id(obj, "owner", text);

	if (r < 0)
		return r;
	e->owner = strtoull(text, NULL, 16);
	r = icm_json_get_u64(obj, "handle", 0, INT64_MAX, &e->handle);
	if (r < 0)
		return r;
	/* the owner of a flock is its open file */
	return e->flock && e->owner != e->handle ? -EPROTO : 0;
}

static int command_from_json(const json_t *obj, struct icm_lock_entry *e)
{
	ICM_AUTOFREE char *text = NULL;
	int r = icm_json_get_text(obj, "command", sizeof(e->command) - 1, &text);

	if (r >= 0)
		strcpy(e->command, text);
	return r;
}

static int range_from_json(const json_t *obj, struct icm_lock_entry *e)
{
	int r = icm_json_get_u64(obj, "start", 0, LAST_BYTE, &e->start);

	if (r < 0)
		return r;
	r = icm_json_get_u64(obj, "end", e->start, LAST_BYTE, &e->end);
	if (r < 0)
		return r;
	return e->flock && (e->start != 0 || e->end != LAST_BYTE) ? -EPROTO : 0;
}

static int entry_from_json(const json_t *obj, size_t n_mounts, struct icm_lock_entry *e)
{
	uint64_t mount;
	bool write;
	int r;

	if (!n_mounts || !json_is_object(obj))
		return -EPROTO;
	r = icm_json_get_id(obj, "id", e->id);
	if (r >= 0)
		r = icm_json_get_u64(obj, "mount", 0, n_mounts - 1, &mount);
	if (r >= 0)
		r = get_choice(obj, "kind", "flock", "record", &e->flock);
	if (r >= 0)
		r = get_choice(obj, "type", "write", "read", &write);
	if (r >= 0)
		r = range_from_json(obj, e);
	if (r >= 0)
		r = owner_from_json(obj, e);
	if (r >= 0)
		r = icm_json_get_u64(obj, "pid", 0, INT32_MAX, &e->pid);
	if (r >= 0)
		r = command_from_json(obj, e);
	if (r >= 0)
		r = icm_json_get_time(obj, "since", &e->since);
	if (r < 0)
		return r;
	e->mount = (unsigned)mount;
	e->type = write ? F_WRLCK : F_RDLCK;
	e->paused = json_is_true(json_object_get(obj, "paused"));
	return 0;
}

static int entries_from_json(const json_t *obj, const char *key, size_t n_mounts,
			     struct icm_lock_entries *ret)
{
	json_t *array;
	int r = icm_json_get(obj, key, JSON_ARRAY, &array);

	if (r < 0)
		return r;
	ret->v = icm_xcalloc(json_array_size(array), sizeof(*ret->v));
	for (size_t i = 0; r >= 0 && i < json_array_size(array); i++)
		r = entry_from_json(json_array_get(array, i), n_mounts, &ret->v[ret->n++]);
	return r;
}

static int mounts_from_json(const json_t *obj, struct icm_lock_value *v)
{
	json_t *array;
	int r = icm_json_get(obj, "mounts", JSON_ARRAY, &array);

	if (r < 0)
		return r;
	v->mounts = icm_xcalloc(json_array_size(array), sizeof(*v->mounts));
	for (size_t i = 0; r >= 0 && i < json_array_size(array); i++) {
		const json_t *m = json_array_get(array, i);
		struct icm_lock_mount *to = &v->mounts[v->n_mounts++];

		r = json_is_object(m) ? icm_json_get_text(m, "lease", ICM_TEXT_MAX, &to->lease)
				      : -EPROTO;
		if (r >= 0)
			r = icm_json_get_text(m, "host", ICM_TEXT_MAX, &to->host);
		if (r >= 0)
			r = icm_json_get_text(m, "user", ICM_TEXT_MAX, &to->user);
	}
	return r;
}

int icm_lock_value_decode(const void *data, size_t len, struct icm_lock_value *ret)
{
	ICM_CLEANUP(icm_lock_value_clear) struct icm_lock_value v = { 0 };
	json_auto_t *obj = NULL;
	int r = icm_json_parse(data, len, ICM_LOCK_VALUE_MAX, &obj);

	if (r >= 0 && !json_is_object(obj))
		r = -EPROTO;
	if (r >= 0)
		r = mounts_from_json(obj, &v);
	if (r >= 0)
		r = entries_from_json(obj, "holders", v.n_mounts, &v.holders);
	if (r >= 0)
		r = entries_from_json(obj, "queue", v.n_mounts, &v.queue);
	if (r < 0)
		return r;
	*ret = v;
	v = (struct icm_lock_value){ 0 };
	return 0;
}
