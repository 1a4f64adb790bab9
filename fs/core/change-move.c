/* SPDX-License-Identifier: MIT
 * The keys of a directory move to its new name, some in a transaction, and the change
 * ends. Any mount may do it, several may do it at once: each transaction checks that
 * the change is still there and that the keys are as they were read. */
#include <stdlib.h>
#include <string.h>

#include "core/apply.h"
#include "core/change.h"
#include "core/feed.h"
#include "core/key.h"
#include "core/publish.h"
#include "util/clock.h"
#include "util/log.h"

/* Names read at once: two keys of each in one transaction. Where that has no limit of
 * operations: as many, up to so many bytes. */
#define READ_NAMES 30
#define MANY_NAMES 256
#define READ_BYTES ((uint64_t)16 << 20)

/* One name below the directory; a name can be a directory and a foreign file. */
struct item {
	char *rel;			 /* owned; the encoded path below the directory */
	bool is_dir, has_attr, has_tree; /* the last two: as listed */
	uint64_t size;			 /* of a file's contents, about */
	struct icm_entry attr, tree;	 /* owned; as read; without a key: absent */
	uint64_t to_index;		 /* of another program's key in the way, or 0 */
};

struct items {
	struct item *v;
	size_t n, cap;
};

struct mover {
	struct icm_volume *vol;
	struct icm_change_value v; /* owned */
	uint64_t index;		   /* of change/<id>, which never changes */
	char *key;		   /* owned; change/<id> */
	/* owned prefixes, '/' at the end */
	char *attr_from, *attr_to, *tree_from, *tree_to;
	struct items dirs, files; /* of one survey */
	bool moved;		  /* something has, in this pass */
	bool stuck;		  /* in the last one nothing has */
	bool quiet;		  /* no events: the kernel makes the change itself */
};

/* There is no such change any more. */
#define OVER 1

static void items_clear(struct items *items)
{
	for (size_t i = 0; i < items->n; i++) {
		free(items->v[i].rel);
		icm_entry_clear(&items->v[i].attr);
		icm_entry_clear(&items->v[i].tree);
	}
	free(items->v);
	*items = (struct items){ 0 };
}

static void mover_clear(struct mover *m)
{
	icm_change_value_clear(&m->v);
	items_clear(&m->dirs);
	items_clear(&m->files);
	free(m->key);
	free(m->attr_from);
	free(m->attr_to);
	free(m->tree_from);
	free(m->tree_to);
}

static struct item *add_item(struct items *items, const char *rel, size_t len)
{
	if (items->n == items->cap) {
		items->cap = items->cap ? items->cap * 2 : 64;
		items->v = icm_xrealloc(items->v, items->cap * sizeof(*items->v));
	}
	items->v[items->n] = (struct item){ .rel = icm_xstrndup(rel, len) };
	return &items->v[items->n++];
}

static int by_rel(const void *a, const void *b)
{
	return strcmp(((const struct item *)a)->rel, ((const struct item *)b)->rel);
}

/* Among the first n, which are in order. */
static struct item *find_item(struct items *items, size_t n, const char *rel)
{
	struct item key = { .rel = (char *)rel };

	return n ? bsearch(&key, items->v, n, sizeof(key), by_rel) : NULL;
}

static char *item_key(const char *prefix, const struct item *it, bool tree)
{
	return icm_asprintf("%s%s%s", prefix, it->rel, tree && it->is_dir ? "/" : "");
}

/* ---- what is there ---- */

/* Another change has a hand in this one: 0 when it has come to its end. */
static int end_other(struct mover *m, const char *id);

/* attr/ keys below, in one view. Each mark must be gone before anything moves. */
static int list_attrs(struct mover *m)
{
	struct icm_ctx ctx = icm_volume_ctx(m->vol);
	ICM_AUTORESULT struct icm_txn_result res = { 0 };
	const struct icm_op ops[] = {
		{ ICM_OP_CHECK_INDEX, .key = m->key, .index = m->index },
		{ ICM_OP_GET_TREE, .key = m->attr_from },
	};
	int r;

	ctx.consistent = true;
	r = icm_backend_txn(m->vol->be, &ctx, ops, ICM_COUNT(ops), &res);
	if (r < 0)
		return r == -ESTALE ? OVER : r;
	for (size_t i = 0; i < res.entries.n; i++) {
		const struct icm_entry *e = &res.entries.v[i];
		const char *rel = e->key + strlen(m->attr_from);
		ICM_AUTOATTR struct icm_attr attr = { 0 };
		bool damaged = icm_attr_decode(e->value, e->len, &attr) < 0;
		struct item *it;

		if (!damaged && attr.mark) {
			r = end_other(m, attr.mark);
			if (r != 0)
				return r;
		}
		it = add_item(!damaged && S_ISDIR(attr.mode) ? &m->dirs : &m->files, rel,
			      strlen(rel));
		it->is_dir = !damaged && S_ISDIR(attr.mode);
		it->has_attr = true;
		it->size = !damaged && S_ISREG(attr.mode) && attr.size <= ICM_PLAIN_MAX ? attr.size
											: 0;
	}
	return 0;
}

static void sort_items(struct items *items)
{
	if (items->n)
		qsort(items->v, items->n, sizeof(*items->v), by_rel);
}

/* The keys of contents; those without attributes are another program's. */
static int list_trees(struct mover *m)
{
	struct icm_ctx ctx = icm_volume_ctx(m->vol);
	ICM_AUTOENTRIES struct icm_entries list = { 0 };
	size_t n_dirs = m->dirs.n, n_files = m->files.n;
	uint64_t index;
	int r;

	ctx.consistent = true;
	r = icm_backend_list(m->vol->be, &ctx, m->tree_from, true, &list, &index);
	for (size_t i = 0; r == 0 && i < list.n; i++) {
		ICM_AUTOFREE char *rel = icm_xstrdup(list.v[i].key + strlen(m->tree_from));
		size_t len = strlen(rel);
		bool is_dir = len && rel[len - 1] == '/';
		struct item *it;

		if (!len)
			continue; /* the directory's own */
		if (is_dir)
			rel[len - 1] = '\0';
		it = is_dir ? find_item(&m->dirs, n_dirs, rel) : find_item(&m->files, n_files, rel);
		if (!it) {
			it = add_item(is_dir ? &m->dirs : &m->files, rel, strlen(rel));
			it->is_dir = is_dir;
		}
		it->has_tree = true;
	}
	return r;
}

static int survey(struct mover *m)
{
	int r;

	items_clear(&m->dirs);
	items_clear(&m->files);
	m->moved = false;
	r = list_attrs(m);
	if (r != 0)
		return r;
	sort_items(&m->dirs);
	sort_items(&m->files);
	r = list_trees(m);
	/* a directory before what is in it */
	sort_items(&m->dirs);
	return r;
}

/* ---- reading ---- */

static void take_entry(struct icm_entry *to, struct icm_entry *from)
{
	icm_entry_clear(to);
	*to = *from;
	*from = (struct icm_entry){ 0 };
}

/* All keys of some names. -ESTALE: one of them is gone. */
static int read_items(struct mover *m, struct item *v, size_t n)
{
	struct icm_ctx ctx = icm_volume_ctx(m->vol);
	ICM_AUTORESULT struct icm_txn_result res = { 0 };
	ICM_AUTOFREE struct icm_op *ops = icm_xcalloc(2 * n, sizeof(*ops));
	ICM_AUTOFREE struct icm_entry **to = icm_xcalloc(2 * n, sizeof(*to));
	size_t n_ops = 0;
	int r;

	for (size_t i = 0; i < n; i++) {
		if (v[i].has_attr) {
			to[n_ops] = &v[i].attr;
			ops[n_ops++] = (struct icm_op){ ICM_OP_GET, .key = item_key(m->attr_from,
										    &v[i], false) };
		}
		if (v[i].has_tree) {
			to[n_ops] = &v[i].tree;
			ops[n_ops++] = (struct icm_op){ ICM_OP_GET, .key = item_key(m->tree_from,
										    &v[i], true) };
		}
	}
	ctx.consistent = true;
	r = icm_backend_txn(m->vol->be, &ctx, ops, n_ops, &res);
	for (size_t i = 0; r == 0 && i < res.entries.n; i++)
		take_entry(to[res.entries.v[i].op], &res.entries.v[i]);
	for (size_t i = 0; i < n_ops; i++)
		free((char *)ops[i].key);
	return r;
}

static int read_key(struct mover *m, char *key, struct icm_entry *ret)
{
	ICM_AUTOFREE char *owned = key;
	struct icm_ctx ctx = icm_volume_ctx(m->vol);
	int r;

	icm_entry_clear(ret);
	ctx.consistent = true;
	r = icm_backend_get(m->vol->be, &ctx, owned, ret);
	return r == -ENOENT ? 0 : r;
}

/* ---- one transaction ---- */

static void add_move(struct icm_part *part, char *from, char *to, struct icm_entry *e,
		     uint64_t to_index, bool exact)
{
	if (exact) {
		icm_part_check_index(part, icm_xstrdup(from), e->modify_index);
		icm_part_delete(part, from);
	} else {
		icm_part_delete_cas(part, from, e->modify_index);
	}
	icm_part_cas(part, to, to_index, icm_xmemdup(e->value, e->len), e->len, e->flags);
}

/* Another program has written the contents, and no mount has looked yet: they move by
 * themselves, in a later pass, so that they are newer than the attributes there as well. */
static bool is_foreign(const struct item *it)
{
	return !it->is_dir && it->attr.key && it->tree.key &&
	       it->tree.modify_index > it->attr.modify_index;
}

/* With attributes, contents can't vanish but by another program's hand. Directories have
 * their last times with them. */
static void add_item_ops(struct mover *m, struct icm_part *part, struct item *it, bool attr,
			 bool tree)
{
	if (attr && it->attr.key)
		add_move(part, item_key(m->attr_from, it, false), item_key(m->attr_to, it, false),
			 &it->attr, 0, true);
	if (tree && it->tree.key)
		add_move(part, item_key(m->tree_from, it, true), item_key(m->tree_to, it, true),
			 &it->tree, it->to_index, it->is_dir || !it->attr.key);
	else if (it->is_dir && it->attr.key)
		icm_part_check_absent(part, item_key(m->tree_from, it, true));
}

static void start_part(struct mover *m, struct icm_part *part)
{
	icm_part_check_index(part, icm_xstrdup(m->key), m->index);
}

/* 0, OVER, or -ESTALE: a key isn't as it was read. */
static int commit(struct mover *m, struct icm_part *part)
{
	int r = icm_commit_quiet(m->vol, part);

	m->moved = m->moved || r == 0;
	return r == -ESTALE && part->failed_op == 0 ? OVER : r;
}

/* ---- one name ---- */

/* Another program's file with more bytes than go through a transaction with their
 * key: as icmfs would have stored them. */
static int make_chunks(struct mover *m, struct icm_entry *e)
{
	ICM_AUTORECORD struct icm_record rec = { 0 };
	int r;

	if (e->flags != ICM_FLAGS_PLAIN)
		return -EFBIG;
	r = icm_record_of_bytes(m->vol, e->value, e->len, &rec);
	if (r < 0)
		return r;
	free(e->value);
	e->value = icm_record_encode(&rec, &e->len);
	e->flags = ICM_FLAGS_RECORD;
	return 0;
}

/* Another program has written at the new name, where nobody could look yet: what moves
 * there takes its place, and the history keeps it, as it does of any overwritten file. */
static int keep_what_is_there(struct mover *m, struct item *it, struct icm_part *part)
{
	ICM_AUTOENTRY struct icm_entry e = { 0 };
	ICM_AUTOFREE char *path = NULL;
	struct icm_content *content;
	struct icm_attr attr = { .ino = ICM_INO_FIRST, .mode = S_IFREG | 0600, .has_hash = true };
	int r = read_key(m, item_key(m->tree_to, it, true), &e);

	if (r < 0 || !e.key)
		return r;
	it->to_index = e.modify_index;
	icm_log_warning("'%s' was written by another program while '%s' became its name", e.key,
			m->v.to);
	if (it->is_dir || e.flags != ICM_FLAGS_PLAIN || e.len > ICM_PLAIN_MAX ||
	    icm_key_decode(e.key + strlen("tree/"), &path) < 0)
		return 0;
	attr.uid = m->vol->uid;
	attr.gid = m->vol->gid;
	attr.size = e.len;
	attr.mtime = attr.ctime = attr.atime = m->v.time;
	attr.hash = icm_sha256(e.value, e.len);
	content = icm_content_new(e.value, e.len);
	icm_part_history(m->vol, part, path, e.modify_index, &attr, content, NULL, icm_wall_time());
	icm_content_unref(content);
	return 0;
}

/* Its attributes, its contents, or both, by one transaction. */
static int move_parts(struct mover *m, struct item *it, bool attr, bool tree)
{
	ICM_AUTOPART struct icm_part part = ICM_PART_INIT;
	int r = 0;

	start_part(m, &part);
	if (tree && it->tree.key)
		r = keep_what_is_there(m, it, &part);
	if (r < 0)
		return r;
	add_item_ops(m, &part, it, attr, tree);
	if (!icm_part_fits(m->vol, &part))
		return -EFBIG;
	return commit(m, &part);
}

/* As large as it may be, and whatever is in the way. What is refused stays for the next
 * pass. */
static int move_alone(struct mover *m, struct item *it)
{
	bool both;
	int r = read_key(m, item_key(m->attr_from, it, false), &it->attr);

	if (r == 0)
		r = read_key(m, item_key(m->tree_from, it, true), &it->tree);
	if (r < 0 || (!it->attr.key && !it->tree.key))
		return r;
	both = it->attr.key && it->tree.key;
	r = move_parts(m, it, true, !is_foreign(it));
	if (r == -EFBIG && both)
		r = move_parts(m, it, true, false); /* and the contents behind, as foreign ones */
	else if (r == -EFBIG && (r = make_chunks(m, &it->tree)) == 0)
		r = move_parts(m, it, false, true);
	return r == -ESTALE ? 0 : r;
}

/* ---- many names ---- */

static int move_each(struct mover *m, struct item *v, size_t n)
{
	int r = 0;

	for (size_t i = 0; i < n && r == 0; i++)
		r = move_alone(m, &v[i]);
	return r;
}

/* As many as go into one transaction, from those that were read. Returns how many. */
static size_t fill_part(struct mover *m, struct item *v, size_t n, struct icm_part *part)
{
	size_t i;

	start_part(m, part);
	for (i = 0; i < n; i++) {
		size_t before = part->n_ops;

		add_item_ops(m, part, &v[i], true, !is_foreign(&v[i]));
		if (icm_part_fits(m->vol, part))
			continue;
		icm_part_cut(part, before);
		break;
	}
	return i;
}

static int move_read(struct mover *m, struct item *v, size_t n)
{
	int r = 0;

	for (size_t at = 0, count; at < n && r == 0; at += count) {
		ICM_AUTOPART struct icm_part part = ICM_PART_INIT;

		count = fill_part(m, v + at, n - at, &part);
		if (!count)
			count = 1, r = -ESTALE; /* larger than a transaction */
		else
			r = commit(m, &part);
		if (r == -ESTALE)
			r = move_each(m, v + at, count);
	}
	return r;
}

/* How many of them are read at once. */
static size_t batch_of(struct mover *m, const struct item *v, size_t n)
{
	size_t most = m->vol->be->facts.max_txn_ops ? READ_NAMES : MANY_NAMES, i;
	uint64_t bytes = 0;

	for (i = 0; i < n && i < most && (!i || bytes + v[i].size <= READ_BYTES); i++)
		bytes += v[i].size;
	return i;
}

static void forget_values(struct item *v, size_t n)
{
	for (size_t i = 0; i < n; i++) {
		icm_entry_clear(&v[i].attr);
		icm_entry_clear(&v[i].tree);
	}
}

static int move_files(struct mover *m)
{
	int r = 0;

	for (size_t at = 0, n; at < m->files.n && r == 0; at += n) {
		struct item *v = m->files.v + at;

		n = batch_of(m, v, m->files.n - at);
		r = read_items(m, v, n);
		if (r == 0)
			r = move_read(m, v, n);
		else if (r == -ESTALE)
			r = move_each(m, v, n);
		forget_values(v, n);
	}
	return r;
}

/* Another change has begun with a directory since they were listed. */
static bool is_marked(const struct item *it)
{
	ICM_AUTOATTR struct icm_attr attr = { 0 };

	return it->attr.key && icm_attr_decode(it->attr.value, it->attr.len, &attr) == 0 &&
	       attr.mark;
}

static bool is_any_marked(const struct item *v, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (is_marked(&v[i]))
			return true;
	return false;
}

/* One that isn't as it was read is left for the next pass, and what is below it too:
 * as long as a directory is where it was, all below it is. */
static int move_dirs(struct mover *m)
{
	int r = 0;

	for (size_t at = 0, n; at < m->dirs.n && r == 0; at += n) {
		struct item *v = m->dirs.v + at;

		n = batch_of(m, v, m->dirs.n - at);
		r = read_items(m, v, n);
		if (r == 0 && is_any_marked(v, n))
			return -ESTALE;
		for (size_t i = 0, count; i < n && r == 0; i += count) {
			ICM_AUTOPART struct icm_part part = ICM_PART_INIT;

			count = fill_part(m, v + i, n - i, &part);
			r = count ? commit(m, &part) : -EFBIG;
		}
	}
	return r;
}

/* A directory in which many names are made is seldom as it was read. */
#define DIR_TRIES 32

/* At once after it was read, and past what another program has put at the new name. */
static int move_dir_alone(struct mover *m, struct item *it)
{
	int r = -ESTALE;

	for (int tries = 0; r == -ESTALE && tries < DIR_TRIES; tries++) {
		r = read_key(m, item_key(m->attr_from, it, false), &it->attr);
		if (r == 0)
			r = read_key(m, item_key(m->tree_from, it, true), &it->tree);
		if (r < 0 || (!it->attr.key && !it->tree.key))
			return r;
		if (is_marked(it))
			return -ESTALE;
		r = move_parts(m, it, true, true);
	}
	return r;
}

static int move_dirs_slowly(struct mover *m)
{
	int r = 0;

	for (size_t i = 0; i < m->dirs.n && r == 0; i++)
		r = move_dir_alone(m, &m->dirs.v[i]);
	return r;
}

/* ---- the end ---- */

/* The directory's own keys, and that nothing is left below. */
struct last {
	struct icm_entry attr, to_attr, times, to_times; /* owned; times: may be absent */
	bool left;
};

static void last_clear(struct last *l)
{
	icm_entry_clear(&l->attr);
	icm_entry_clear(&l->to_attr);
	icm_entry_clear(&l->times);
	icm_entry_clear(&l->to_times);
}

static int read_last(struct mover *m, struct last *l)
{
	struct icm_ctx ctx = icm_volume_ctx(m->vol);
	ICM_AUTORESULT struct icm_txn_result res = { 0 };
	ICM_AUTOFREE char *attr = icm_key_attr(m->v.path);
	ICM_AUTOFREE char *to_attr = icm_key_attr(m->v.to);
	const struct icm_op ops[] = {
		{ ICM_OP_CHECK_INDEX, .key = m->key, .index = m->index },
		{ ICM_OP_GET, .key = attr },
		{ ICM_OP_GET, .key = to_attr },
		{ ICM_OP_GET_TREE, .key = m->attr_from },
		{ ICM_OP_GET_TREE, .key = m->tree_from },
	};
	int r;

	ctx.consistent = true;
	r = icm_backend_txn(m->vol->be, &ctx, ops, ICM_COUNT(ops), &res);
	if (r == -ESTALE && res.n_errors && res.errors[0].op == 0)
		return OVER;
	if (r < 0)
		return r == -ESTALE ? -EIO : r; /* somebody has deleted what was marked */
	for (size_t i = 0; i < res.entries.n; i++) {
		struct icm_entry *e = &res.entries.v[i];

		if (e->op == 1)
			take_entry(&l->attr, e);
		else if (e->op == 2)
			take_entry(&l->to_attr, e);
		else if (e->op == 4 && strcmp(e->key, m->tree_from) == 0)
			take_entry(&l->times, e);
		else
			l->left = true;
	}
	return read_key(m, icm_xstrdup(m->tree_to), &l->to_times);
}

/* The directory as it is at its new name. */
static int new_attr(struct mover *m, const struct last *l, struct icm_attr *ret)
{
	struct icm_dir_times times;

	if (icm_attr_decode(l->attr.value, l->attr.len, ret) < 0)
		return -EIO;
	free(ret->mark);
	ret->mark = NULL;
	if (l->times.key && icm_dir_times_decode(l->times.value, l->times.len, &times) == 0)
		ret->mtime = times.mtime;
	ret->ctime = m->v.time;
	icm_random_id(ret->id);
	return 0;
}

static void add_last_ops(struct mover *m, const struct last *l, const struct icm_attr *attr,
			 struct icm_part *part)
{
	struct icm_dir_times times = { .mtime = attr->mtime, .ctime = attr->ctime };
	size_t len;
	char *json;

	start_part(m, part);
	icm_part_delete(part, icm_xstrdup(m->key));
	icm_part_check_index(part, icm_xstrdup(l->attr.key), l->attr.modify_index);
	icm_part_delete(part, icm_xstrdup(l->attr.key));
	if (l->times.key) {
		icm_part_check_index(part, icm_xstrdup(m->tree_from), l->times.modify_index);
		icm_part_delete(part, icm_xstrdup(m->tree_from));
	} else {
		icm_part_check_absent(part, icm_xstrdup(m->tree_from));
	}
	json = icm_attr_encode(attr, &len);
	icm_part_cas(part, icm_xstrdup(l->to_attr.key), l->to_attr.modify_index, json, len, 0);
	icm_random_id(times.id);
	json = icm_dir_times_encode(&times, &len);
	icm_part_cas(part, icm_xstrdup(m->tree_to), l->to_times.modify_index, json, len, 0);
}

/* The last transaction; -EAGAIN: there is something left to move. */
static int finish(struct mover *m)
{
	__attribute__((cleanup(last_clear))) struct last l = { 0 };
	ICM_AUTOPART struct icm_part part = ICM_PART_INIT;
	ICM_AUTOATTR struct icm_attr attr = { 0 };
	struct icm_change *change;
	int r = read_last(m, &l);

	if (r != 0)
		return r;
	if (l.left)
		return -EAGAIN;
	r = new_attr(m, &l, &attr);
	if (r < 0)
		return r;
	add_last_ops(m, &l, &attr, &part);
	part.alone = true;
	part.author = &m->v;
	part.pid = (pid_t)m->v.pid;
	change = icm_part_change(&part, ICM_CHANGE_RENAME, m->v.path, m->v.to, m->v.time, &attr);
	change->piecewise = true;
	r = icm_commit(m->vol, &part);
	if (r < 0)
		return r == -ESTALE ? -EAGAIN : r;
	/* in the order of the feed; where that can't be read now, the tree is listed */
	if (icm_feed_catch_up(m->vol) < 0)
		icm_log_debug("the tree is listed after the end of a change");
	icm_apply_own(m->vol, change, part.index);
	if (!m->quiet)
		icm_apply_event(m->vol, change);
	return OVER;
}

/* ---- all of it ---- */

static int one_pass(struct mover *m)
{
	int r = survey(m);

	if (r != 0)
		return r;
	if (!m->dirs.n && !m->files.n)
		return finish(m);
	/* files wait until no directory is left, in which they could be made */
	if (m->dirs.n)
		r = m->stuck ? move_dirs_slowly(m) : move_dirs(m);
	else
		r = move_files(m);
	return r == 0 || r == -ESTALE ? -EAGAIN : r;
}

static void pause_a_moment(void)
{
	struct timespec ts = { .tv_nsec = (long)(icm_random_u64() % (20 * ICM_NS_PER_MS)) };

	nanosleep(&ts, NULL);
}

static int run(struct mover *m)
{
	int64_t patience = (int64_t)m->vol->timeout_ms * ICM_NS_PER_MS;
	int64_t last = icm_now_ns();

	for (;;) {
		int r = one_pass(m);

		if (r != -EAGAIN)
			return r;
		m->stuck = !m->moved;
		if (m->moved) {
			last = icm_now_ns();
			continue;
		}
		if (icm_now_ns() > last + patience)
			return -ETIMEDOUT;
		if (atomic_load(&m->vol->stopping))
			return -ECANCELED; /* others end it */
		pause_a_moment();
	}
}

/* change_lock held. */
static int complete(struct icm_volume *vol, const char *id, bool quiet)
{
	__attribute__((cleanup(mover_clear))) struct mover m = { .vol = vol, .quiet = quiet };
	ICM_AUTOENTRY struct icm_entry e = { 0 };
	ICM_AUTOFREE char *attr_from = NULL;
	ICM_AUTOFREE char *attr_to = NULL;
	int r = read_key(&m, icm_key_change(id), &e);

	if (r < 0 || !e.key)
		return r;
	if (icm_change_value_decode(e.value, e.len, &m.v) < 0) {
		icm_log_err("'%s' is damaged: what it moves stays as it is", e.key);
		return -EIO;
	}
	m.index = e.modify_index;
	m.key = ICM_STEAL(&e.key);
	attr_from = icm_key_attr(m.v.path);
	attr_to = icm_key_attr(m.v.to);
	m.attr_from = icm_asprintf("%s/", attr_from);
	m.attr_to = icm_asprintf("%s/", attr_to);
	m.tree_from = icm_key_tree_dir(m.v.path);
	m.tree_to = icm_key_tree_dir(m.v.to);
	r = run(&m);
	return r == OVER ? 1 : r;
}

static int end_other(struct mover *m, const char *id)
{
	int r;

	if (strcmp(id, m->v.id) == 0)
		return 0;
	r = complete(m->vol, id, false);
	/* without such a change the mark means nothing, and moves along */
	return r == 1 ? -EAGAIN : r;
}

int icm_change_complete(struct icm_volume *vol, const char *id, bool quiet)
{
	ICM_LOCK_SCOPE(&vol->change_lock);

	return complete(vol, id, quiet);
}
