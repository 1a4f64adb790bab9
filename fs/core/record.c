/* SPDX-License-Identifier: MIT
 * Directory times, and what a file consists of: records, chunk lists, the
 * inode of a linked file, and an earlier version. */
#include "core/record.h"

#include <errno.h>
#include <string.h>
#include <sys/stat.h>

#include "core/key.h"
#include "core/record-json.h"

static const char *const form_names[] = {
	[ICM_RECORD_CHUNKS] = "chunks",
	[ICM_RECORD_SYMLINK] = "symlink",
	[ICM_RECORD_SPECIAL] = "special",
	[ICM_RECORD_LINK] = "link",
};

char *icm_dir_times_encode(const struct icm_dir_times *t, size_t *ret_len)
{
	json_t *obj = icm_json_object();

	icm_json_set_time(obj, "mtime", t->mtime);
	icm_json_set_time(obj, "ctime", t->ctime);
	icm_json_set_ascii(obj, "id", t->id);
	return icm_json_dump(obj, ret_len);
}

int icm_dir_times_decode(const void *data, size_t len, struct icm_dir_times *ret)
{
	json_auto_t *obj = NULL;
	struct icm_dir_times t;
	int r = icm_json_parse(data, len, ICM_SMALL_VALUE_MAX, &obj);

	if (r < 0)
		return r;
	r = icm_json_get_time(obj, "mtime", &t.mtime);
	if (r < 0)
		return r;
	r = icm_json_get_time(obj, "ctime", &t.ctime);
	if (r < 0)
		return r;
	r = icm_json_get_id(obj, "id", t.id);
	if (r < 0)
		return r;
	*ret = t;
	return 0;
}

static json_t *chunks_to_json(const struct icm_chunk *chunks, size_t n)
{
	json_t *list = icm_json_array();

	for (size_t i = 0; i < n; i++)
		icm_json_append(list, chunks[i].hole ? json_null() : icm_json_hash(&chunks[i].sum));
	return list;
}

static int chunks_from_json(const json_t *list, size_t want, struct icm_chunk **ret_chunks)
{
	ICM_AUTOFREE struct icm_chunk *chunks = NULL;

	if (!json_is_array(list) || json_array_size(list) != want)
		return -EPROTO;
	chunks = want ? icm_xcalloc(want, sizeof(*chunks)) : NULL;
	for (size_t i = 0; i < want; i++) {
		const json_t *item = json_array_get(list, i);

		chunks[i].hole = json_is_null(item);
		if (!chunks[i].hole && icm_json_hash_value(item, &chunks[i].sum) < 0)
			return -EPROTO;
	}
	*ret_chunks = ICM_STEAL(&chunks);
	return 0;
}

char *icm_chunks_encode(const struct icm_chunk *chunks, size_t n, size_t *ret_len)
{
	return icm_json_dump(chunks_to_json(chunks, n), ret_len);
}

int icm_chunks_decode(const void *data, size_t len, size_t want, struct icm_chunk **ret_chunks)
{
	json_auto_t *list = NULL;
	int r;

	if (want > ICM_CHUNKS_MAX)
		return -EPROTO;
	r = icm_json_parse(data, len, ICM_LIST_VALUE_MAX, &list);
	return r < 0 ? r : chunks_from_json(list, want, ret_chunks);
}

void icm_record_clear(struct icm_record *r)
{
	free(r->chunks);
	free(r->target);
	*r = (struct icm_record){ 0 };
}

json_t *icm_record_to_json(const struct icm_record *r)
{
	json_t *obj = icm_json_object();

	icm_json_set_ascii(obj, "form", form_names[r->form]);
	switch (r->form) {
	case ICM_RECORD_CHUNKS:
		icm_json_set_u64(obj, "size", r->size);
		if (r->list_is_blob)
			icm_json_set(obj, "list", icm_json_hash(&r->list));
		else
			icm_json_set(obj, "chunks", chunks_to_json(r->chunks, r->n_chunks));
		break;
	case ICM_RECORD_SYMLINK:
		icm_json_set_text(obj, "target", r->target);
		break;
	case ICM_RECORD_SPECIAL:
		break;
	case ICM_RECORD_LINK:
		icm_json_set_u64(obj, "ino", r->ino);
		break;
	}
	return obj;
}

char *icm_record_encode(const struct icm_record *r, size_t *ret_len)
{
	return icm_json_dump(icm_record_to_json(r), ret_len);
}

static int get_form(const json_t *obj, enum icm_record_form *ret_form)
{
	json_t *member;

	if (icm_json_get(obj, "form", JSON_STRING, &member) < 0)
		return -EPROTO;
	for (size_t i = ICM_RECORD_CHUNKS; i < ICM_COUNT(form_names); i++) {
		if (strcmp(json_string_value(member), form_names[i]) == 0) {
			*ret_form = (enum icm_record_form)i;
			return 0;
		}
	}
	return -EPROTO;
}

static int get_chunks(const json_t *obj, struct icm_record *rec)
{
	const json_t *inline_list = json_object_get(obj, "chunks");
	int r = icm_json_get_u64(obj, "size", 0, ICM_FILE_SIZE_MAX, &rec->size);

	if (r < 0)
		return r;
	rec->list_is_blob = json_object_get(obj, "list");
	if (rec->list_is_blob)
		return inline_list ? -EPROTO : icm_json_get_hash(obj, "list", &rec->list);
	r = chunks_from_json(inline_list, icm_chunk_count(rec->size), &rec->chunks);
	if (r >= 0)
		rec->n_chunks = icm_chunk_count(rec->size);
	return r;
}

static int get_target(const json_t *obj, struct icm_record *rec)
{
	int r = icm_json_get_text(obj, "target", ICM_SYMLINK_MAX, &rec->target);

	if (r < 0)
		return r;
	return *rec->target ? 0 : -EPROTO; /* symlink(2) never makes an empty one */
}

int icm_record_from_json(const json_t *obj, struct icm_record *ret)
{
	ICM_AUTORECORD struct icm_record rec = { 0 };
	int r = get_form(obj, &rec.form);

	if (r < 0)
		return r;
	if (rec.form == ICM_RECORD_CHUNKS)
		r = get_chunks(obj, &rec);
	else if (rec.form == ICM_RECORD_SYMLINK)
		r = get_target(obj, &rec);
	else if (rec.form == ICM_RECORD_LINK)
		r = icm_json_get_u64(obj, "ino", 1, ICM_INO_MAX - 1, &rec.ino);
	if (r < 0)
		return r;
	*ret = rec;
	rec = (struct icm_record){ 0 };
	return 0;
}

int icm_record_decode(const void *data, size_t len, struct icm_record *ret)
{
	json_auto_t *obj = NULL;
	int r = icm_json_parse(data, len, ICM_LIST_VALUE_MAX, &obj);

	return r < 0 ? r : icm_record_from_json(obj, ret);
}

bool icm_record_fits(const struct icm_attr *a, const struct icm_record *rec)
{
	if (!rec)
		return S_ISREG(a->mode) && a->has_hash;
	switch (rec->form) {
	case ICM_RECORD_CHUNKS:
		return S_ISREG(a->mode) && a->size == rec->size;
	case ICM_RECORD_SYMLINK:
		return S_ISLNK(a->mode);
	case ICM_RECORD_SPECIAL:
		return !S_ISREG(a->mode) && !S_ISLNK(a->mode) && !S_ISDIR(a->mode);
	case ICM_RECORD_LINK:
		return !S_ISDIR(a->mode) && a->ino == rec->ino;
	}
	return false;
}

/* Members "attr" and "record"; the latter may be missing. */
static int get_contents(const json_t *obj, struct icm_attr *attr, bool *ret_has_record,
			struct icm_record *rec)
{
	const json_t *record = json_object_get(obj, "record");
	int r = icm_attr_from_json(json_object_get(obj, "attr"), attr);

	if (r < 0)
		return r;
	if (record)
		r = icm_record_from_json(record, rec);
	if (r < 0)
		return r;
	*ret_has_record = record;
	return icm_record_fits(attr, record ? rec : NULL) ? 0 : -EPROTO;
}

static void set_contents(json_t *obj, const struct icm_attr *attr, const struct icm_record *rec)
{
	icm_json_set(obj, "attr", icm_attr_to_json(attr));
	if (rec)
		icm_json_set(obj, "record", icm_record_to_json(rec));
}

void icm_inode_value_clear(struct icm_inode_value *v)
{
	icm_attr_clear(&v->attr);
	icm_record_clear(&v->record);
	*v = (struct icm_inode_value){ 0 };
}

char *icm_inode_value_encode(const struct icm_inode_value *v, size_t *ret_len)
{
	json_t *obj = icm_json_object();

	set_contents(obj, &v->attr, v->has_record ? &v->record : NULL);
	return icm_json_dump(obj, ret_len);
}

static int inode_value_from_json(const json_t *obj, struct icm_inode_value *v)
{
	int r = get_contents(obj, &v->attr, &v->has_record, &v->record);

	if (r < 0)
		return r;
	/* an inode that points to itself would be followed for ever */
	return v->has_record && v->record.form == ICM_RECORD_LINK ? -EPROTO : 0;
}

int icm_inode_value_decode(const void *data, size_t len, struct icm_inode_value *ret)
{
	ICM_CLEANUP(icm_inode_value_clear) struct icm_inode_value v = { 0 };
	json_auto_t *obj = NULL;
	int r = icm_json_parse(data, len, ICM_INODE_VALUE_MAX, &obj);

	if (r >= 0)
		r = inode_value_from_json(obj, &v);
	if (r < 0)
		return r;
	*ret = v;
	v = (struct icm_inode_value){ 0 };
	return 0;
}

void icm_hist_clear(struct icm_hist *h)
{
	icm_attr_clear(&h->attr);
	icm_record_clear(&h->record);
	free(h->host);
	free(h->user);
	*h = (struct icm_hist){ 0 };
}

char *icm_hist_encode(const struct icm_hist *h, size_t *ret_len)
{
	json_t *obj = icm_json_object();

	set_contents(obj, &h->attr, h->plain ? NULL : &h->record);
	icm_json_set_time(obj, "until", h->until);
	icm_json_set_text(obj, "host", h->host);
	icm_json_set_text(obj, "user", h->user);
	return icm_json_dump(obj, ret_len);
}

static int hist_from_json(const json_t *obj, struct icm_hist *h)
{
	bool has_record = false;
	int r = get_contents(obj, &h->attr, &has_record, &h->record);

	if (r < 0)
		return r;
	h->plain = !has_record;
	r = icm_json_get_time(obj, "until", &h->until);
	if (r < 0)
		return r;
	r = icm_json_get_text(obj, "host", ICM_TEXT_MAX, &h->host);
	if (r < 0)
		return r;
	return icm_json_get_text(obj, "user", ICM_TEXT_MAX, &h->user);
}

int icm_hist_decode(const void *data, size_t len, struct icm_hist *ret)
{
	ICM_CLEANUP(icm_hist_clear) struct icm_hist h = { 0 };
	json_auto_t *obj = NULL;
	int r = icm_json_parse(data, len, ICM_INODE_VALUE_MAX, &obj);

	if (r >= 0)
		r = hist_from_json(obj, &h);
	if (r < 0)
		return r;
	*ret = h;
	h = (struct icm_hist){ 0 };
	return 0;
}
