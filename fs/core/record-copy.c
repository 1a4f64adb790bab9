/* SPDX-License-Identifier: MIT
 * What a local copy is a copy of. */
#include <errno.h>

#include "core/copy.h"
#include "core/record-json.h"

void icm_copy_head_clear(struct icm_copy_head *h)
{
	free(h->store);
	*h = (struct icm_copy_head){ 0 };
}

char *icm_copy_head_encode(const struct icm_copy_head *h, size_t *ret_len)
{
	json_t *obj = icm_json_object();

	icm_json_set_u64(obj, "format", h->format);
	icm_json_set_text(obj, "store", h->store);
	icm_json_set_time(obj, "created", h->created);
	icm_json_set_u64(obj, "index", h->index);
	icm_json_set_time(obj, "time", h->time);
	icm_json_set_u64(obj, "names", h->names);
	icm_json_set_u64(obj, "left_out", h->left_out);
	return icm_json_dump(obj, ret_len);
}

static int from_json(const json_t *obj, struct icm_copy_head *h)
{
	uint64_t format;
	int r = icm_json_get_u64(obj, "format", 1, UINT32_MAX, &format);

	if (r < 0)
		return r;
	h->format = (uint32_t)format;
	if (h->format > ICM_COPY_FORMAT)
		return 0; /* its number is what the caller needs */
	r = icm_json_get_text(obj, "store", ICM_TEXT_MAX, &h->store);
	if (r >= 0)
		r = icm_json_get_time(obj, "created", &h->created);
	if (r >= 0)
		r = icm_json_get_u64(obj, "index", 1, INT64_MAX, &h->index);
	if (r >= 0)
		r = icm_json_get_time(obj, "time", &h->time);
	if (r >= 0)
		r = icm_json_get_u64(obj, "names", 1, INT64_MAX, &h->names);
	if (r >= 0)
		r = icm_json_get_u64(obj, "left_out", 0, INT64_MAX, &h->left_out);
	return r;
}

int icm_copy_head_decode(const void *data, size_t len, struct icm_copy_head *ret)
{
	ICM_CLEANUP(icm_copy_head_clear) struct icm_copy_head h = { 0 };
	json_auto_t *obj = NULL;
	int r = icm_json_parse(data, len, ICM_SMALL_VALUE_MAX, &obj);

	if (r >= 0)
		r = from_json(obj, &h);
	if (r < 0)
		return r;
	*ret = h;
	h = (struct icm_copy_head){ 0 };
	return 0;
}
