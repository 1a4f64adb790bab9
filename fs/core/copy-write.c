/* SPDX-License-Identifier: MIT
 * A state of the tree as the keys of the local copy, and the one transaction that
 * makes the copy that state. */
#include <string.h>

#include "core/commit.h"
#include "core/copy-local.h"
#include "core/key.h"
#include "util/clock.h"

#define COPY_NS (30 * ICM_NS_PER_S) /* for local disk */

/* ---- keys ---- */

/* Takes both. */
static void add(struct icm_entries *list, char *key, char *value, size_t len, uint64_t flags)
{
	struct icm_entry *e = icm_entries_add(list);

	e->key = key;
	e->value = value;
	e->len = len;
	e->flags = flags;
}

static void add_attr(struct icm_entries *list, const struct icm_copy_name *name)
{
	struct icm_attr a = name->attr; /* its members are borrowed */
	char *value;
	size_t len;

	a.mark = NULL; /* what was shown counts; nobody finishes a change here */
	value = icm_attr_encode(&a, &len);
	add(list, icm_key_attr(name->path), value, len, 0);
}

static void add_dir_times(struct icm_entries *list, const struct icm_copy_name *name)
{
	/* a generation is for those who write */
	const struct icm_dir_times times = { .mtime = name->attr.mtime,
					     .ctime = name->attr.ctime,
					     .id = "0000000000000000" };
	size_t len;
	char *value = icm_dir_times_encode(&times, &len);

	add(list, icm_key_tree_dir(name->path), value, len, 0);
}

/* A file with several names, with its record if it has one. What the copy doesn't
 * have of a large one it refers to all the same, in vain. */
static void add_inode(struct icm_entries *list, const struct icm_copy_name *name,
		      const struct icm_record *rec)
{
	const struct icm_record lost = { .form = ICM_RECORD_CHUNKS,
					 .size = name->attr.size,
					 .list_is_blob = true,
					 .list = name->attr.hash };
	const struct icm_record special = { .form = ICM_RECORD_SPECIAL };
	struct icm_inode_value v = { .attr = name->attr };
	size_t len;
	char *value;

	v.attr.mark = NULL;
	if (rec)
		v.record = *rec;
	else if (S_ISREG(v.attr.mode) && v.attr.size > ICM_PLAIN_MAX)
		v.record = lost;
	else if (!S_ISREG(v.attr.mode))
		v.record = special;
	v.has_record = v.record.form != 0;
	value = icm_inode_value_encode(&v, &len);
	add(list, icm_key_inode(name->attr.ino), value, len, 0);
}

static int add_name(struct icm_volume *vol, struct icm_entries *list,
		    const struct icm_copy_name *name, const struct icm_copy_keys *have)
{
	ICM_AUTOFREE char *key = icm_copy_record_key(&name->attr);
	ICM_AUTORECORD struct icm_record rec = { 0 };
	ICM_AUTOENTRY struct icm_entry e = { 0 };
	bool has_record = key && icm_copy_keys_have(have, key);
	int r = has_record ? icm_copy_get(vol, key, &e) : 0;

	if (r < 0)
		return r;
	add_attr(list, name);
	if (S_ISDIR(name->attr.mode)) {
		add_dir_times(list, name);
	} else if (name->attr.linked) {
		r = has_record ? icm_record_decode(e.value, e.len, &rec) : 0;
		add_inode(list, name, has_record && r == 0 ? &rec : NULL);
	} else if (has_record) {
		add(list, icm_key_tree(name->path), ICM_STEAL(&e.value), e.len, e.flags);
	}
	return r;
}

static int by_key(const void *a, const void *b)
{
	const struct icm_entry *x = a, *y = b;

	return strcmp(x->key, y->key);
}

static int keys_of(struct icm_volume *vol, const struct icm_copy_state *s,
		   const struct icm_copy_keys *have, struct icm_entries *ret)
{
	int r = 0;

	for (size_t i = 0; i < s->n && r == 0; i++)
		r = add_name(vol, ret, &s->v[i], have);
	qsort(ret->v, ret->n, sizeof(*ret->v), by_key);
	return r;
}

/* ---- what is different ---- */

static const char *const prefixes[] = { "attr/", "inode/", "tree/" };

/* In byte order, as the prefixes are. */
static int present(struct icm_volume *vol, struct icm_entries *ret)
{
	struct icm_ctx ctx = { .deadline_ns = icm_now_ns() + COPY_NS };
	int r = 0;

	for (size_t p = 0; p < ICM_COUNT(prefixes) && r == 0; p++) {
		ICM_AUTOENTRIES struct icm_entries list = { 0 };
		uint64_t index;

		r = icm_backend_list(vol->copy->be, &ctx, prefixes[p], false, &list, &index);
		for (size_t i = 0; r == 0 && i < list.n; i++) {
			*icm_entries_add(ret) = list.v[i];
			list.v[i] = (struct icm_entry){ 0 };
		}
	}
	return r;
}

static bool is_equal(const struct icm_entry *a, const struct icm_entry *b)
{
	return a->len == b->len && a->flags == b->flags && memcmp(a->value, b->value, a->len) == 0;
}

static void set(struct icm_part *part, struct icm_entry *e)
{
	icm_part_set(part, ICM_STEAL(&e->key), ICM_STEAL(&e->value), e->len, e->flags);
}

/* Operations that make `old` be `new`; takes from both. */
static void add_differences(struct icm_part *part, struct icm_entries *old, struct icm_entries *new)
{
	size_t i = 0, j = 0;

	while (i < old->n || j < new->n) {
		int order = i == old->n	  ? 1
			    : j == new->n ? -1
					  : strcmp(old->v[i].key, new->v[j].key);

		if (order < 0) {
			icm_part_delete(part, ICM_STEAL(&old->v[i].key));
			i++;
			continue;
		}
		/* inode/INO stands there once for each name */
		if (j + 1 < new->n && strcmp(new->v[j].key, new->v[j + 1].key) == 0) {
			j++;
			continue;
		}
		if (order > 0 || !is_equal(&old->v[i], &new->v[j]))
			set(part, &new->v[j]);
		i += order == 0;
		j++;
	}
}

static int commit(struct icm_volume *vol, const struct icm_part *part)
{
	struct icm_ctx ctx = { .deadline_ns = icm_now_ns() + COPY_NS };
	ICM_AUTORESULT struct icm_txn_result res = { 0 };

	return part->n_ops ? icm_backend_txn(vol->copy->be, &ctx, part->ops, part->n_ops, &res) : 0;
}

/* ---- writing ---- */

static void add_head(struct icm_volume *vol, struct icm_part *part, const struct icm_copy_state *s,
		     uint64_t left_out)
{
	const struct icm_copy_head head = { .format = ICM_COPY_FORMAT,
					    .store = vol->copy->store,
					    .created = vol->created,
					    .index = s->index,
					    .time = s->time,
					    .names = s->n,
					    .left_out = left_out };
	size_t len;
	char *value = icm_copy_head_encode(&head, &len);

	icm_part_set(part, icm_xstrdup(ICM_KEY_COPY), value, len, 0);
}

/* Contents that the state doesn't refer to. They are of no harm, so a failure is
 * none: the next round tries again. */
static void drop_unneeded(struct icm_volume *vol, const struct icm_copy_keys *needed)
{
	static const char *const contents[] = { "blob/", "record/" };
	struct icm_ctx ctx = { .deadline_ns = icm_now_ns() + COPY_NS };
	ICM_AUTOPART struct icm_part part = ICM_PART_INIT;

	for (size_t p = 0; p < ICM_COUNT(contents); p++) {
		ICM_AUTOENTRIES struct icm_entries list = { 0 };
		uint64_t index;

		if (icm_backend_list(vol->copy->be, &ctx, contents[p], true, &list, &index) < 0)
			continue;
		for (size_t i = 0; i < list.n; i++)
			if (!icm_copy_keys_have(needed, list.v[i].key))
				icm_part_delete(&part, ICM_STEAL(&list.v[i].key));
	}
	(void)!commit(vol, &part);
}

static bool is_torn(struct icm_copy *c)
{
	ICM_LOCK_SCOPE(&c->lock);

	return c->torn;
}

int icm_copy_write(struct icm_volume *vol, const struct icm_copy_state *s,
		   const struct icm_copy_fetch *f)
{
	ICM_AUTOENTRIES struct icm_entries old = { 0 }, new = { 0 };
	ICM_AUTOPART struct icm_part part = ICM_PART_INIT;
	int r = keys_of(vol, s, &f->needed, &new);

	if (r == 0)
		r = present(vol, &old);
	if (r < 0)
		return r;
	add_differences(&part, &old, &new);
	add_head(vol, &part, s, f->left_out);
	if (is_torn(vol->copy))
		return -EAGAIN;
	r = commit(vol, &part);
	if (r == 0)
		drop_unneeded(vol, &f->needed);
	icm_backend_maintain(vol->copy->be);
	return r;
}

int icm_copy_erase(struct icm_volume *vol)
{
	ICM_AUTOENTRIES struct icm_entries old = { 0 }, new = { 0 };
	ICM_AUTOPART struct icm_part part = ICM_PART_INIT;
	const struct icm_copy_keys none = { 0 };
	int r = present(vol, &old);

	if (r < 0)
		return r;
	add_differences(&part, &old, &new);
	icm_part_delete(&part, icm_xstrdup(ICM_KEY_COPY));
	r = commit(vol, &part);
	if (r == 0)
		drop_unneeded(vol, &none);
	return r;
}
