/* SPDX-License-Identifier: MIT
 * Attributes: the value of attr/<path>, and a part of most other values. */
#include "core/record.h"

#include <errno.h>
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/sysmacros.h>

#include "core/key.h"
#include "core/record-json.h"

static void xattr_free(struct icm_xattr *x)
{
	free(x->name);
	free(x->value);
}

void icm_attr_clear(struct icm_attr *a)
{
	for (size_t i = 0; i < a->n_xattrs; i++)
		xattr_free(&a->xattrs[i]);
	free(a->xattrs);
	free(a->mark);
	*a = (struct icm_attr){ 0 };
}

void icm_attr_copy(struct icm_attr *dst, const struct icm_attr *src)
{
	struct icm_attr copy = *src;

	copy.mark = src->mark ? icm_xstrdup(src->mark) : NULL;
	copy.xattrs = src->n_xattrs ? icm_xcalloc(src->n_xattrs, sizeof(*copy.xattrs)) : NULL;
	for (size_t i = 0; i < src->n_xattrs; i++) {
		const struct icm_xattr *x = &src->xattrs[i];

		copy.xattrs[i] = (struct icm_xattr){ .name = icm_xstrdup(x->name),
						     .value = icm_xmemdup(x->value, x->len),
						     .len = x->len };
	}
	*dst = copy;
}

/* Position of `name` in the sorted list, or where it would stand. */
static size_t xattr_position(const struct icm_attr *a, const char *name, bool *ret_found)
{
	size_t low = 0, high = a->n_xattrs;

	*ret_found = false;
	while (low < high) {
		size_t middle = low + (high - low) / 2;
		int c = strcmp(a->xattrs[middle].name, name);

		if (c == 0) {
			*ret_found = true;
			return middle;
		}
		if (c < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

const struct icm_xattr *icm_attr_xattr(const struct icm_attr *a, const char *name)
{
	bool found;
	size_t at = xattr_position(a, name, &found);

	return found ? &a->xattrs[at] : NULL;
}

static void xattr_remove(struct icm_attr *a, size_t at)
{
	xattr_free(&a->xattrs[at]);
	a->n_xattrs--;
	memmove(&a->xattrs[at], &a->xattrs[at + 1], (a->n_xattrs - at) * sizeof(*a->xattrs));
}

static void xattr_insert(struct icm_attr *a, size_t at, const char *name)
{
	a->xattrs = icm_xrealloc(a->xattrs, (a->n_xattrs + 1) * sizeof(*a->xattrs));
	memmove(&a->xattrs[at + 1], &a->xattrs[at], (a->n_xattrs - at) * sizeof(*a->xattrs));
	a->xattrs[at] = (struct icm_xattr){ .name = icm_xstrdup(name) };
	a->n_xattrs++;
}

void icm_attr_set_xattr(struct icm_attr *a, const char *name, const void *value, size_t len)
{
	bool found;
	size_t at = xattr_position(a, name, &found);
	void *copy;

	if (!value) {
		if (found)
			xattr_remove(a, at);
		return;
	}
	copy = icm_xmemdup(value, len); /* first: it may be the old value */
	if (!found)
		xattr_insert(a, at, name);
	free(a->xattrs[at].value);
	a->xattrs[at].value = copy;
	a->xattrs[at].len = len;
}

static bool has_size(mode_t mode)
{
	return S_ISREG(mode) || S_ISLNK(mode);
}

static bool is_device(mode_t mode)
{
	return S_ISCHR(mode) || S_ISBLK(mode);
}

static void set_mode(json_t *obj, mode_t mode)
{
	char text[16];

	snprintf(text, sizeof(text), "%o", mode);
	icm_json_set_ascii(obj, "mode", text);
}

static void set_rdev(json_t *obj, dev_t rdev)
{
	json_t *pair = icm_json_array();

	icm_json_append(pair, json_integer(major(rdev)));
	icm_json_append(pair, json_integer(minor(rdev)));
	icm_json_set(obj, "rdev", pair);
}

static void set_xattrs(json_t *obj, const struct icm_attr *a)
{
	json_t *xattrs = icm_json_object();

	for (size_t i = 0; i < a->n_xattrs; i++) {
		const struct icm_xattr *x = &a->xattrs[i];
		ICM_AUTOFREE char *name = icm_key_encoded(x->name);
		ICM_AUTOFREE char *value = icm_base64_encode(x->value, x->len);

		icm_json_set_ascii(xattrs, name, value);
	}
	icm_json_set(obj, "xattrs", xattrs);
}

json_t *icm_attr_to_json(const struct icm_attr *a)
{
	json_t *obj = icm_json_object();

	icm_json_set_u64(obj, "ino", a->ino);
	set_mode(obj, a->mode);
	icm_json_set_u64(obj, "uid", a->uid);
	icm_json_set_u64(obj, "gid", a->gid);
	if (has_size(a->mode))
		icm_json_set_u64(obj, "size", a->size);
	if (a->holes)
		icm_json_set_u64(obj, "holes", a->holes);
	if (is_device(a->mode))
		set_rdev(obj, a->rdev);
	icm_json_set_time(obj, "atime", a->atime);
	icm_json_set_time(obj, "mtime", a->mtime);
	icm_json_set_time(obj, "ctime", a->ctime);
	if (a->has_hash)
		icm_json_set(obj, "hash", icm_json_hash(&a->hash));
	if (a->linked)
		icm_json_set(obj, "linked", json_true());
	if (a->nlink > 1)
		icm_json_set_u64(obj, "nlink", a->nlink);
	if (*a->id)
		icm_json_set_ascii(obj, "id", a->id);
	if (a->mark)
		icm_json_set_ascii(obj, "mark", a->mark);
	if (a->n_xattrs)
		set_xattrs(obj, a);
	return obj;
}

char *icm_attr_encode(const struct icm_attr *a, size_t *ret_len)
{
	return icm_json_dump(icm_attr_to_json(a), ret_len);
}

static bool type_ok(mode_t mode)
{
	switch (mode & S_IFMT) {
	case S_IFREG:
	case S_IFDIR:
	case S_IFLNK:
	case S_IFCHR:
	case S_IFBLK:
	case S_IFIFO:
	case S_IFSOCK:
		return true;
	default:
		return false;
	}
}

static int get_mode(const json_t *obj, mode_t *ret_mode)
{
	json_t *member;
	const char *text;
	mode_t mode = 0;
	size_t len;

	if (icm_json_get(obj, "mode", JSON_STRING, &member) < 0)
		return -EPROTO;
	text = json_string_value(member);
	len = strlen(text);
	/* five or six digits: any type is at least 010000 */
	if (len < 5 || len > 6 || *text == '0' || strspn(text, "01234567") != len)
		return -EPROTO;
	for (; *text; text++)
		mode = mode << 3 | (mode_t)(*text - '0');
	if (!type_ok(mode) || mode > (S_IFMT | 07777))
		return -EPROTO;
	*ret_mode = mode;
	return 0;
}

static int get_rdev(const json_t *obj, dev_t *ret_rdev)
{
	json_t *pair, *high, *low;

	if (icm_json_get(obj, "rdev", JSON_ARRAY, &pair) < 0 || json_array_size(pair) != 2)
		return -EPROTO;
	high = json_array_get(pair, 0);
	low = json_array_get(pair, 1);
	if (!json_is_integer(high) || !json_is_integer(low))
		return -EPROTO;
	if (json_integer_value(high) < 0 || json_integer_value(high) > UINT32_MAX ||
	    json_integer_value(low) < 0 || json_integer_value(low) > UINT32_MAX)
		return -EPROTO;
	*ret_rdev = makedev((unsigned int)json_integer_value(high),
			    (unsigned int)json_integer_value(low));
	return 0;
}

static int get_numbers(const json_t *obj, struct icm_attr *a)
{
	uint64_t max = S_ISLNK(a->mode) ? ICM_SYMLINK_MAX : ICM_FILE_SIZE_MAX;
	uint64_t uid, gid, nlink = 1;
	int r;

	r = icm_json_get_u64(obj, "ino", 1, ICM_INO_MAX - 1, &a->ino);
	if (r < 0)
		return r;
	r = icm_json_get_u64(obj, "uid", 0, UINT32_MAX, &uid);
	if (r < 0)
		return r;
	r = icm_json_get_u64(obj, "gid", 0, UINT32_MAX, &gid);
	if (r < 0)
		return r;
	if (json_object_get(obj, "nlink"))
		r = icm_json_get_u64(obj, "nlink", 1, UINT32_MAX, &nlink);
	if (r >= 0 && has_size(a->mode))
		r = icm_json_get_u64(obj, "size", 0, max, &a->size);
	if (r >= 0 && S_ISREG(a->mode) && json_object_get(obj, "holes"))
		r = icm_json_get_u64(obj, "holes", 0, a->size, &a->holes);
	if (r >= 0 && is_device(a->mode))
		r = get_rdev(obj, &a->rdev);
	a->uid = (uid_t)uid;
	a->gid = (gid_t)gid;
	a->nlink = (uint32_t)nlink;
	return r;
}

static int get_times(const json_t *obj, struct icm_attr *a)
{
	int r = icm_json_get_time(obj, "atime", &a->atime);

	if (r < 0)
		return r;
	r = icm_json_get_time(obj, "mtime", &a->mtime);
	if (r < 0)
		return r;
	return icm_json_get_time(obj, "ctime", &a->ctime);
}

/* hash, linked, id and mark, each of which may be missing */
static int get_marks(const json_t *obj, struct icm_attr *a)
{
	json_t *linked = json_object_get(obj, "linked");
	char mark[ICM_ID_HEX + 1];
	int r = 0;

	if (linked && !json_is_boolean(linked))
		return -EPROTO;
	a->linked = json_is_true(linked);
	a->has_hash = json_object_get(obj, "hash");
	if (a->has_hash)
		r = icm_json_get_hash(obj, "hash", &a->hash);
	if (r >= 0 && json_object_get(obj, "id"))
		r = icm_json_get_id(obj, "id", a->id);
	if (r < 0 || !json_object_get(obj, "mark"))
		return r;
	r = icm_json_get_id(obj, "mark", mark);
	if (r >= 0)
		a->mark = icm_xstrdup(mark);
	return r;
}

static int get_xattr(const char *key, const json_t *value, struct icm_xattr *ret)
{
	ICM_AUTOFREE char *name = NULL;

	if (!json_is_string(value) || icm_key_unescape(key, ICM_XATTR_NAME_MAX, &name) < 0)
		return -EPROTO;
	if (!*name || icm_base64_decode(json_string_value(value), &ret->value, &ret->len) < 0)
		return -EPROTO;
	ret->name = ICM_STEAL(&name);
	return ret->len > ICM_XATTR_VALUE_MAX ? -EPROTO : 0;
}

static int by_name(const void *a, const void *b)
{
	const struct icm_xattr *x = a, *y = b;

	return strcmp(x->name, y->name);
}

static int get_xattrs(const json_t *obj, struct icm_attr *a)
{
	json_t *xattrs = json_object_get(obj, "xattrs");
	json_t *value;
	const char *key;
	size_t bytes = 0;

	if (!xattrs)
		return 0;
	if (!json_is_object(xattrs))
		return -EPROTO;
	if (!json_object_size(xattrs))
		return 0;
	a->xattrs = icm_xcalloc(json_object_size(xattrs), sizeof(*a->xattrs));
	json_object_foreach(xattrs, key, value)
	{
		struct icm_xattr *x = &a->xattrs[a->n_xattrs++];
		int r = get_xattr(key, value, x);

		if (r < 0)
			return r;
		bytes += strlen(x->name) + x->len;
		if (bytes > ICM_XATTRS_MAX_BYTES)
			return -EPROTO;
	}
	/* a tool that rewrote the JSON may have changed the order */
	qsort(a->xattrs, a->n_xattrs, sizeof(*a->xattrs), by_name);
	return 0;
}

int icm_attr_from_json(const json_t *obj, struct icm_attr *ret)
{
	ICM_AUTOATTR struct icm_attr a = { 0 };
	int r = get_mode(obj, &a.mode); /* first: it says which numbers there are */

	if (r < 0)
		return r;
	r = get_numbers(obj, &a);
	if (r < 0)
		return r;
	r = get_times(obj, &a);
	if (r < 0)
		return r;
	r = get_marks(obj, &a);
	if (r < 0)
		return r;
	r = get_xattrs(obj, &a);
	if (r < 0)
		return r;
	*ret = a;
	a = (struct icm_attr){ 0 };
	return 0;
}

int icm_attr_decode(const void *data, size_t len, struct icm_attr *ret)
{
	json_auto_t *obj = NULL;
	int r = icm_json_parse(data, len, ICM_ATTR_VALUE_MAX, &obj);

	return r < 0 ? r : icm_attr_from_json(obj, ret);
}
