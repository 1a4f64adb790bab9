/* SPDX-License-Identifier: MIT
 * The value of change/<id>: a change that takes more than one transaction. */
#include <errno.h>
#include <string.h>

#include "core/key.h"
#include "core/record-json.h"

/* There is one state: a move of keys has nothing to prepare (change.h). */
#define COMMITTED "committed"

void icm_change_value_clear(struct icm_change_value *v)
{
	free(v->host);
	free(v->user);
	free(v->program);
	free(v->lease);
	free(v->path);
	free(v->to);
	*v = (struct icm_change_value){ 0 };
}

char *icm_change_value_encode(const struct icm_change_value *v, size_t *ret_len)
{
	json_t *obj = icm_json_object();
	json_t *moves = icm_json_array();
	json_t *move = icm_json_object();

	icm_json_set_ascii(obj, "id", v->id);
	icm_json_set_ascii(obj, "state", COMMITTED);
	icm_json_set_time(obj, "time", v->time);
	icm_json_set_text(obj, "host", v->host);
	icm_json_set_text(obj, "user", v->user);
	icm_json_set_u64(obj, "pid", v->pid);
	icm_json_set_text(obj, "program", v->program);
	icm_json_set_text(obj, "lease", v->lease);
	icm_json_set_text(move, "path", v->path);
	icm_json_set_text(move, "to", v->to);
	if (v->replaces)
		icm_json_set(move, "replaces", json_true());
	icm_json_append(moves, move);
	icm_json_set(obj, "moves", moves);
	return icm_json_dump(obj, ret_len);
}

static bool is_below(const char *path, const char *dir)
{
	size_t len = strlen(dir);

	return strncmp(path, dir, len) == 0 && (!path[len] || path[len] == '/');
}

static int get_move(const json_t *obj, struct icm_change_value *v)
{
	const json_t *replaces = json_object_get(obj, "replaces");
	int r = icm_json_get_path(obj, "path", &v->path);

	if (r >= 0)
		r = icm_json_get_path(obj, "to", &v->to);
	if (r < 0)
		return r;
	if (!*v->path || !*v->to || is_below(v->path, v->to) || is_below(v->to, v->path))
		return -EPROTO;
	if (replaces && !json_is_boolean(replaces))
		return -EPROTO;
	v->replaces = json_is_true(replaces);
	return 0;
}

static int get_moves(const json_t *obj, struct icm_change_value *v)
{
	json_t *moves;

	if (icm_json_get(obj, "moves", JSON_ARRAY, &moves) < 0 || json_array_size(moves) != 1)
		return -EPROTO;
	return get_move(json_array_get(moves, 0), v);
}

static int get_author(const json_t *obj, struct icm_change_value *v)
{
	int r = icm_json_get_text(obj, "host", ICM_TEXT_MAX, &v->host);

	if (r >= 0)
		r = icm_json_get_text(obj, "user", ICM_TEXT_MAX, &v->user);
	if (r >= 0)
		r = icm_json_get_u64(obj, "pid", 0, INT64_MAX, &v->pid);
	if (r >= 0)
		r = icm_json_get_text(obj, "program", ICM_TEXT_MAX, &v->program);
	if (r >= 0)
		r = icm_json_get_text(obj, "lease", ICM_TEXT_MAX, &v->lease);
	return r;
}

/* Into *v, which the caller clears in any case. */
static int change_value_from_json(const json_t *obj, struct icm_change_value *v)
{
	json_t *state;
	int r = icm_json_get_id(obj, "id", v->id);

	if (r < 0)
		return r;
	if (icm_json_get(obj, "state", JSON_STRING, &state) < 0 ||
	    strcmp(json_string_value(state), COMMITTED) != 0)
		return -EPROTO;
	r = icm_json_get_time(obj, "time", &v->time);
	if (r >= 0)
		r = get_author(obj, v);
	return r < 0 ? r : get_moves(obj, v);
}

int icm_change_value_decode(const void *data, size_t len, struct icm_change_value *ret)
{
	ICM_CLEANUP(icm_change_value_clear) struct icm_change_value v = { 0 };
	json_auto_t *obj = NULL;
	int r = icm_json_parse(data, len, ICM_CHANGE_VALUE_MAX, &obj);

	if (r >= 0)
		r = change_value_from_json(obj, &v);
	if (r < 0)
		return r;
	*ret = v;
	v = (struct icm_change_value){ 0 };
	return 0;
}
