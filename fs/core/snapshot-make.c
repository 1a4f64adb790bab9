/* SPDX-License-Identifier: MIT
 * Making and removing snapshots. One read transaction gives all attributes; what
 * stands elsewhere (link targets, lists of chunks, times of directories) is read in
 * it as well as far as the store's limit of operations goes. Beyond that, links and
 * lists are read later and checked against it, and times are the tree copy's. */
#include <inttypes.h>
#include <string.h>

#include "core/change.h"
#include "core/commit.h"
#include "core/key.h"
#include "core/snapshot.h"
#include "util/clock.h"
#include "util/log.h"

#define TRIES 16
/* Before the keys that the tree copy knows of: head, attr/, inode/, change/. */
#define N_FIXED 4

/* Times of a directory as the tree copy has them. */
struct dir_times {
	uint64_t ino;
	struct timespec mtime, ctime;
};

/* What was read of the store. */
struct state {
	struct icm_entries list; /* everything, by key */
	size_t n_sorted;
	char **wishes; /* owned; further keys to read */
	size_t n_wishes, cap_wishes;
	uint64_t index;		/* of the last change in it */
	struct dir_times *dirs; /* owned; by number once sorted */
	size_t n_dirs, cap_dirs;
};

static void clear_state(struct state *s)
{
	icm_entries_clear(&s->list);
	for (size_t i = 0; i < s->n_wishes; i++)
		free(s->wishes[i]);
	free(s->wishes);
	free(s->dirs);
	*s = (struct state){ 0 };
}

static void add_wish(struct state *s, char *key)
{
	if (s->n_wishes == s->cap_wishes) {
		s->cap_wishes = s->cap_wishes ? 2 * s->cap_wishes : 64;
		s->wishes = icm_xrealloc(s->wishes, s->cap_wishes * sizeof(*s->wishes));
	}
	s->wishes[s->n_wishes++] = key;
}

static int compare_entries(const void *a, const void *b)
{
	return strcmp(((const struct icm_entry *)a)->key, ((const struct icm_entry *)b)->key);
}

static void sort(struct state *s)
{
	if (s->list.n)
		qsort(s->list.v, s->list.n, sizeof(*s->list.v), compare_entries);
	s->n_sorted = s->list.n;
}

static const struct icm_entry *find(const struct state *s, const char *key)
{
	const struct icm_entry wanted = { .key = (char *)key };

	return s->n_sorted ? bsearch(&wanted, s->list.v, s->n_sorted, sizeof(*s->list.v),
				     compare_entries)
			   : NULL;
}

/* Takes the entries over. */
static void take(struct state *s, struct icm_entries *from)
{
	for (size_t i = 0; i < from->n; i++) {
		*icm_entries_add(&s->list) = from->v[i];
		from->v[i] = (struct icm_entry){ 0 };
	}
	icm_entries_clear(from);
}

/* ---- what is read ---- */

/* The key beside attr/<path> that has a part of what is to be known, or NULL. */
static char *further_key(const char *path, const struct icm_attr *a)
{
	if (S_ISDIR(a->mode))
		return icm_key_tree_dir(path);
	if (a->linked)
		return icm_key_inode(a->ino);
	if (S_ISLNK(a->mode) || (S_ISREG(a->mode) && a->size > ICM_PLAIN_MAX))
		return icm_key_tree(path);
	return NULL;
}

static void note_times(struct state *s, const struct icm_inode *dir)
{
	if (s->n_dirs == s->cap_dirs) {
		s->cap_dirs = s->cap_dirs ? 2 * s->cap_dirs : 64;
		s->dirs = icm_xrealloc(s->dirs, s->cap_dirs * sizeof(*s->dirs));
	}
	s->dirs[s->n_dirs++] =
		(struct dir_times){ dir->attr.ino, dir->attr.mtime, dir->attr.ctime };
}

static int compare_dirs(const void *a, const void *b)
{
	const struct dir_times *x = a, *y = b;

	return (x->ino > y->ino) - (x->ino < y->ino);
}

static const struct dir_times *find_times(const struct state *s, uint64_t ino)
{
	const struct dir_times wanted = { .ino = ino };

	return s->n_dirs ? bsearch(&wanted, s->dirs, s->n_dirs, sizeof(*s->dirs), compare_dirs)
			 : NULL;
}

/* Further keys of directories, or of all else, that the tree copy has;
 * volume->lock held. */
static void wish_below(struct state *s, const struct icm_inode *dir, bool dirs)
{
	for (const struct icm_name *name = dir->first; name; name = name->next) {
		const struct icm_inode *inode = name->inode;
		ICM_AUTOFREE char *path = NULL;
		char *key;

		if (icm_inode_is_dir(inode))
			wish_below(s, inode, dirs);
		if (!inode->published || inode->attr.linked || icm_inode_is_dir(inode) != dirs)
			continue;
		path = icm_name_path(name);
		key = path ? further_key(path, &inode->attr) : NULL;
		if (key)
			add_wish(s, key);
		if (dirs)
			note_times(s, inode);
	}
}

/* What can't be had later comes first. */
static void wish_all(struct icm_volume *vol, struct state *s)
{
	ICM_LOCK_SCOPE(&vol->lock);

	wish_below(s, vol->tree.root, false);
	add_wish(s, icm_key_tree_dir(""));
	wish_below(s, vol->tree.root, true);
	note_times(s, vol->tree.root);
	qsort(s->dirs, s->n_dirs, sizeof(*s->dirs), compare_dirs);
}

static size_t most_ops(struct icm_volume *vol)
{
	size_t max = vol->be->facts.max_txn_ops;

	return max ? max : 4096;
}

static void drop_wish(struct state *s, size_t i)
{
	free(s->wishes[i]);
	memmove(s->wishes + i, s->wishes + i + 1, (s->n_wishes - i - 1) * sizeof(*s->wishes));
	s->n_wishes--;
}

static int wait_for_changes(struct icm_volume *vol)
{
	bool met;
	int r = icm_change_meet(vol, NULL, &met);

	return r < 0 ? r : -EAGAIN;
}

/* All attributes at one index, and the wishes that fit. -ESTALE: one of them is gone
 * and no wish any more. */
static int try_first(struct icm_volume *vol, struct state *s)
{
	struct icm_ctx ctx = icm_volume_ctx(vol);
	ICM_AUTORESULT struct icm_txn_result res = { 0 };
	size_t n = most_ops(vol) - N_FIXED;
	ICM_AUTOFREE struct icm_op *ops = NULL;
	int r;

	if (n > s->n_wishes)
		n = s->n_wishes;
	ops = icm_xcalloc(N_FIXED + n, sizeof(*ops));
	ops[0] = (struct icm_op){ ICM_OP_GET, .key = ICM_KEY_HEAD };
	ops[1] = (struct icm_op){ ICM_OP_GET_TREE, .key = "attr/" };
	ops[2] = (struct icm_op){ ICM_OP_GET_TREE, .key = "inode/" };
	ops[3] = (struct icm_op){ ICM_OP_GET_TREE, .key = "change/" };
	for (size_t i = 0; i < n; i++)
		ops[N_FIXED + i] = (struct icm_op){ ICM_OP_GET, .key = s->wishes[i] };
	ctx.consistent = true;
	r = icm_backend_txn(vol->be, &ctx, ops, N_FIXED + n, &res);
	if (r == -ESTALE && (!res.n_errors || res.errors[0].op < N_FIXED))
		return -EIO; /* no `head`: no deployment */
	if (r == -ESTALE)
		drop_wish(s, res.errors[0].op - N_FIXED);
	if (r < 0)
		return r;
	for (size_t i = 0; i < res.entries.n; i++) {
		if (res.entries.v[i].op == 3) /* keys are on their way */
			return wait_for_changes(vol);
		if (res.entries.v[i].modify_index > s->index)
			s->index = res.entries.v[i].modify_index;
	}
	take(s, &res.entries);
	sort(s);
	return 0;
}

static int read_first(struct icm_volume *vol, struct state *s)
{
	int r;

	do
		r = try_first(vol, s);
	while (r == -ESTALE);
	return r;
}

/* One attr/ key whose further key wasn't read with it. */
struct later {
	const char *attr_key; /* borrowed from the list's entries */
	uint64_t attr_index;
	char *key; /* owned */
};

struct laters {
	struct later *v; /* owned */
	size_t n;
};

static void clear_laters(struct laters *l)
{
	for (size_t i = 0; i < l->n; i++)
		free(l->v[i].key);
	free(l->v);
}

static void find_laters(const struct state *s, struct laters *ret)
{
	ret->v = icm_xcalloc(s->n_sorted + 1, sizeof(*ret->v));
	for (size_t i = 0; i < s->n_sorted; i++) {
		const struct icm_entry *e = &s->list.v[i];
		ICM_AUTOATTR struct icm_attr attr = { 0 };
		ICM_AUTOFREE char *path = NULL;
		ICM_AUTOFREE char *key = NULL;

		if (strncmp(e->key, "attr/", 5) != 0 || icm_key_decode(e->key + 5, &path) < 0 ||
		    icm_attr_decode(e->value, e->len, &attr) < 0 || attr.linked ||
		    S_ISDIR(attr.mode))
			continue;
		key = further_key(path, &attr);
		if (key && !find(s, key))
			ret->v[ret->n++] =
				(struct later){ e->key, e->modify_index, ICM_STEAL(&key) };
	}
}

/* Some of them with their attributes, which must be those that were listed.
 * -EAGAIN: they aren't. A further key that doesn't exist is left out. */
static int read_later(struct icm_volume *vol, struct state *s, const struct later *v, size_t n)
{
	struct icm_ctx ctx = icm_volume_ctx(vol);
	ICM_AUTORESULT struct icm_txn_result res = { 0 };
	ICM_AUTOFREE struct icm_op *ops = icm_xcalloc(2 * n, sizeof(*ops));
	int r;

	for (size_t i = 0; i < n; i++) {
		ops[2 * i] = (struct icm_op){ ICM_OP_CHECK_INDEX, .key = v[i].attr_key,
					      .index = v[i].attr_index };
		ops[2 * i + 1] = (struct icm_op){ ICM_OP_GET, .key = v[i].key };
	}
	r = icm_backend_txn(vol->be, &ctx, ops, 2 * n, &res);
	if (r == -ESTALE) {
		if (!res.n_errors || res.errors[0].op % 2 == 0)
			return -EAGAIN;
		if (n == 1)
			return 0; /* damaged: a name without its key */
		for (size_t i = 0; i < n && (r == -ESTALE || r == 0); i++)
			r = read_later(vol, s, &v[i], 1);
		return r;
	}
	if (r == 0)
		take(s, &res.entries);
	return r;
}

static int read_laters(struct icm_volume *vol, struct state *s)
{
	ICM_CLEANUP(clear_laters) struct laters l = { 0 };
	size_t most = most_ops(vol) / 2;
	int r = 0;

	find_laters(s, &l);
	for (size_t i = 0, n; i < l.n && r == 0; i += n) {
		n = l.n - i < most ? l.n - i : most;
		r = read_later(vol, s, &l.v[i], n);
	}
	sort(s);
	return r;
}

static int read_state(struct icm_volume *vol, struct state *s)
{
	int r;

	clear_state(s);
	r = icm_volume_catch_up(vol);
	if (r < 0)
		return r;
	wish_all(vol, s);
	r = read_first(vol, s);
	return r < 0 ? r : read_laters(vol, s);
}

/* ---- the manifest ---- */

/* Parts under way: text that is no blob yet. */
struct writer {
	struct icm_volume *vol;
	struct icm_buf text;
	struct icm_snap *snap;
};

static int put_part(struct writer *w)
{
	struct icm_snap *snap = w->snap;
	struct icm_sha256 sum;
	int r;

	if (snap->n_parts == ICM_SNAP_PARTS_MAX)
		return -EFBIG;
	icm_buf_addc(&w->text, ']');
	sum = icm_sha256(w->text.data, w->text.len);
	r = icm_put_blob(w->vol, &sum, w->text.data, w->text.len);
	if (r < 0)
		return r;
	snap->parts = icm_xrealloc(snap->parts, (snap->n_parts + 1) * sizeof(*snap->parts));
	snap->parts[snap->n_parts++] = sum;
	icm_buf_reset(&w->text);
	return 0;
}

static int add_entry(struct writer *w, const struct icm_snap_entry *e)
{
	size_t len;
	ICM_AUTOFREE char *text = icm_snap_entry_encode(e, &len);
	int r = 0;

	if (w->text.len && w->text.len + len + 2 > ICM_CHUNK_BYTES)
		r = put_part(w);
	if (r < 0)
		return r;
	icm_buf_addc(&w->text, w->text.len ? ',' : '[');
	icm_buf_add(&w->text, text, len);
	w->snap->files += *e->path != '\0';
	if (S_ISREG(e->attr.mode))
		w->snap->bytes += e->attr.size;
	return 0;
}

static int add_dir(const struct state *s, struct icm_snap_entry *e, const struct icm_entry *times)
{
	const struct dir_times *known = find_times(s, e->attr.ino);
	struct icm_dir_times t;

	if (times && icm_dir_times_decode(times->value, times->len, &t) == 0) {
		e->attr.mtime = t.mtime;
		e->attr.ctime = t.ctime;
	} else if (known) {
		e->attr.mtime = known->mtime;
		e->attr.ctime = known->ctime;
	}
	return 0;
}

static int add_linked(struct icm_snap_entry *e, const struct icm_entry *inode)
{
	struct icm_inode_value v;

	if (!inode || icm_inode_value_decode(inode->value, inode->len, &v) < 0)
		return -EPROTO;
	icm_attr_clear(&e->attr);
	e->attr = v.attr;
	e->has_record = v.has_record;
	e->record = v.record;
	e->attr.linked = true;
	return 0;
}

static int add_record(struct icm_snap_entry *e, const struct icm_entry *tree)
{
	if (!tree)
		return -EPROTO;
	if (tree->flags == ICM_FLAGS_PLAIN && S_ISREG(e->attr.mode))
		return 0; /* large, and another program's */
	if (icm_record_decode(tree->value, tree->len, &e->record) < 0)
		return -EPROTO;
	e->has_record = true;
	return 0;
}

/* What the attributes alone don't say. */
static int complete(const struct state *s, struct icm_snap_entry *e)
{
	ICM_AUTOFREE char *key = further_key(e->path, &e->attr);
	const struct icm_entry *further = key ? find(s, key) : NULL;

	if (S_ISDIR(e->attr.mode))
		return add_dir(s, e, further);
	if (e->attr.linked)
		return add_linked(e, further);
	if (key)
		return add_record(e, further);
	e->has_record = !S_ISREG(e->attr.mode);
	e->record.form = ICM_RECORD_SPECIAL;
	return 0;
}

static int write_entry(struct writer *w, const struct state *s, const struct icm_entry *listed)
{
	ICM_CLEANUP(icm_snap_entry_clear) struct icm_snap_entry e = { 0 };
	int r;

	if (icm_key_decode(listed->key + strlen("attr/"), &e.path) < 0)
		return 0; /* not the spelling of a name: not shown */
	r = icm_attr_decode(listed->value, listed->len, &e.attr);
	if (r == 0)
		r = complete(s, &e);
	if (r == 0 && !icm_snap_entry_is_valid(&e))
		r = -EPROTO;
	if (r < 0) {
		icm_log_err("'%s' is damaged and left out of the snapshot", e.path);
		return 0;
	}
	free(e.attr.mark);
	e.attr.mark = NULL;
	return add_entry(w, &e);
}

static int write_manifest(struct icm_volume *vol, const struct state *s, struct icm_snap *snap)
{
	struct writer w = { .vol = vol, .snap = snap };
	int r = 0;

	for (size_t i = 0; i < s->n_sorted && r == 0; i++)
		if (strncmp(s->list.v[i].key, "attr/", 5) == 0)
			r = write_entry(&w, s, &s->list.v[i]);
	if (r == 0)
		r = put_part(&w);
	icm_buf_free(&w.text);
	return r;
}

/* ---- the key ---- */

static int commit(struct icm_volume *vol, const char *name, const struct icm_snap *snap, pid_t pid)
{
	ICM_AUTOPART struct icm_part p = ICM_PART_INIT;
	size_t len;
	char *value = icm_snap_encode(snap, &len);
	int r;

	p.pid = pid;
	icm_part_cas(&p, icm_key_snap(name), 0, value, len, 0);
	r = icm_commit(vol, &p);
	return r == -ESTALE ? -EEXIST : r;
}

static bool exists(struct icm_volume *vol, const char *name)
{
	struct icm_snap snap;
	uint64_t index;
	int r = icm_snapshot_find(vol, name, &snap, &index);

	if (r == 0)
		icm_snap_clear(&snap);
	return r != -ENOENT;
}

static int make(struct icm_volume *vol, const char *name, pid_t pid, struct icm_snap *snap)
{
	ICM_CLEANUP(clear_state) struct state s = { 0 };
	int r = -EAGAIN;

	for (int tries = 0; r == -EAGAIN && tries < TRIES; tries++)
		r = read_state(vol, &s);
	if (r < 0)
		return r;
	icm_random_id(snap->id);
	snap->time = icm_wall_time();
	snap->host = icm_xstrdup(vol->host);
	snap->user = icm_xstrdup(vol->user);
	snap->index = s.index;
	r = write_manifest(vol, &s, snap);
	return r < 0 ? r : commit(vol, name, snap, pid);
}

int icm_snapshot_create(struct icm_volume *vol, const char *name, pid_t pid)
{
	ICM_CLEANUP(icm_snap_clear) struct icm_snap snap = { 0 };

	if (vol->read_only)
		return -EROFS;
	if (exists(vol, name))
		return -EEXIST;
	return make(vol, name, pid, &snap);
}

int icm_snapshot_delete(struct icm_volume *vol, const char *name, pid_t pid)
{
	ICM_AUTOPART struct icm_part p = ICM_PART_INIT;

	if (vol->read_only)
		return -EROFS;
	if (!exists(vol, name))
		return -ENOENT;
	p.pid = pid;
	icm_part_delete(&p, icm_key_snap(name));
	return icm_commit(vol, &p);
}

int icm_snapshot_find(struct icm_volume *vol, const char *name, struct icm_snap *ret,
		      uint64_t *ret_index)
{
	struct icm_ctx ctx = icm_volume_ctx(vol);
	ICM_AUTOFREE char *key = icm_key_snap(name);
	ICM_AUTOENTRY struct icm_entry e = { 0 };
	int r = icm_backend_get(vol->be, &ctx, key, &e);

	if (r < 0)
		return r;
	if (icm_snap_decode(e.value, e.len, ret) < 0) {
		icm_log_err("'%s' is damaged: that snapshot can't be read", key);
		return -EIO;
	}
	*ret_index = e.modify_index;
	return 0;
}
