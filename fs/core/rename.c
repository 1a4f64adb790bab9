/* SPDX-License-Identifier: MIT
 * rename and exchange of shared names: files, and directories with everything
 * below, as one transaction. A rename between shared and scratch names is in
 * rename-scratch.c. */
#include "core/rename.h"

#include <fcntl.h>
#include <inttypes.h>
#include <string.h>

#include "core/apply.h"
#include "core/change.h"
#include "core/control.h"
#include "core/feed.h"
#include "core/key.h"
#include "core/names.h"
#include "util/clock.h"

#ifndef RENAME_NOREPLACE
#define RENAME_NOREPLACE 1
#define RENAME_EXCHANGE	 2
#endif

/* One key that moves. */
struct move {
	char *from, *to; /* owned keys */
	void *value;	 /* owned; as written at `to` */
	size_t len;
	uint64_t flags, index;
	bool exact; /* checked to be there with this index (else: or to be absent) */
};

/* All keys of one name (and of all below a directory). */
struct moves {
	struct move *v;
	size_t n, cap;
	struct icm_attr attr;	   /* owned; of the moved object at its new place */
	uint64_t tree_index;	   /* of its tree key */
	struct icm_moved contents; /* of a file, for the history */
};

static void moves_clear(struct moves *m)
{
	for (size_t i = 0; i < m->n; i++) {
		free(m->v[i].from);
		free(m->v[i].to);
		free(m->v[i].value);
	}
	free(m->v);
	icm_attr_clear(&m->attr);
	icm_moved_clear(&m->contents);
}

static struct move *add_move(struct moves *m, char *from, char *to)
{
	if (m->n == m->cap) {
		m->cap = m->cap ? m->cap * 2 : 4;
		m->v = icm_xrealloc(m->v, m->cap * sizeof(*m->v));
	}
	m->v[m->n] = (struct move){ .from = from, .to = to };
	return &m->v[m->n++];
}

/* "tree/a/x" at from = "tree/a/", to = "tree/b/" gives "tree/b/x". */
static char *moved_key(const char *key, const char *from, const char *to)
{
	return icm_asprintf("%s%s", to, key + strlen(from));
}

/* The times of a directory that moves: a new ctime. */
static void set_times(struct move *mv, const struct icm_attr *attr, struct timespec now)
{
	struct icm_dir_times times = { .mtime = attr->mtime, .ctime = now };

	icm_random_id(times.id);
	free(mv->value);
	mv->value = icm_dir_times_encode(&times, &mv->len);
}

/* A directory that is part of a change of its own moves when that is over. */
static int check_mark(struct icm_volume *vol, const struct icm_entry *e)
{
	ICM_AUTOATTR struct icm_attr attr = { 0 };
	ICM_AUTOFREE char *path = NULL;
	bool met;
	int r;

	if (icm_attr_decode(e->value, e->len, &attr) < 0 || !attr.mark ||
	    icm_key_decode(e->key + strlen("attr/"), &path) < 0)
		return 0; /* damaged, or not shown: moves as it is */
	r = icm_change_meet(vol, path, &met);
	return r == 0 && met ? -ESTALE : r;
}

/* Takes over everything that is below a directory, as one view has it. */
static int collect_below(struct icm_volume *vol, const struct icm_place *p, const char *to,
			 struct timespec now, struct moves *m)
{
	struct icm_ctx ctx = icm_volume_ctx(vol);
	ICM_AUTOFREE char *tree_from = icm_key_tree_dir(p->path);
	ICM_AUTOFREE char *tree_to = icm_key_tree_dir(to);
	ICM_AUTOFREE char *attr_key = icm_key_attr(p->path);
	ICM_AUTOFREE char *attr_from = icm_asprintf("%s/", attr_key);
	ICM_AUTOFREE char *attr_to_key = icm_key_attr(to);
	ICM_AUTOFREE char *attr_to = icm_asprintf("%s/", attr_to_key);
	const struct icm_op ops[] = {
		{ ICM_OP_GET, .key = attr_key },
		{ ICM_OP_GET_TREE, .key = tree_from },
		{ ICM_OP_GET_TREE, .key = attr_from },
	};
	ICM_AUTORESULT struct icm_txn_result res = { 0 };
	int r;

	ctx.consistent = true;
	r = icm_backend_txn(vol->be, &ctx, ops, ICM_COUNT(ops), &res);
	if (r < 0)
		return r;
	for (size_t i = 0; i < res.entries.n; i++) {
		struct icm_entry *e = &res.entries.v[i];
		struct move *mv;

		r = e->op == 1 ? 0 : check_mark(vol, e);
		if (r < 0)
			return r;
		if (e->op == 0)
			continue;
		mv = add_move(m, icm_xstrdup(e->key),
			      e->op == 1 ? moved_key(e->key, tree_from, tree_to)
					 : moved_key(e->key, attr_from, attr_to));
		mv->value = ICM_STEAL(&e->value);
		mv->len = e->len;
		mv->flags = e->flags;
		mv->index = e->modify_index;
		if (e->op == 1 && strcmp(e->key, tree_from) == 0)
			set_times(mv, &p->attr, now);
		/* files below can't vanish without their directory's generation
		 * moving, and that is checked */
		mv->exact = e->key[strlen(e->key) - 1] == '/';
	}
	return 0;
}

/* Everything that moves when `p` becomes `to`. */
static int collect(struct icm_volume *vol, const struct icm_place *p, const char *to,
		   struct timespec now, struct moves *m)
{
	struct icm_attr name_attr = { .ino = p->attr.ino, .mode = p->attr.mode, .linked = true };
	struct move *mv;
	int r;

	icm_attr_copy(&m->attr, &p->attr);
	m->attr.ctime = now;
	icm_random_id(m->attr.id);
	memcpy(name_attr.id, m->attr.id, sizeof(name_attr.id));
	mv = add_move(m, icm_key_attr(p->path), icm_key_attr(to));
	mv->value = icm_attr_encode(p->attr.linked ? &name_attr : &m->attr, &mv->len);
	mv->index = p->attr_index;
	mv->exact = true;
	if (S_ISDIR(p->attr.mode))
		return collect_below(vol, p, to, now, m);
	r = icm_moved_read(vol, p, &m->contents);
	if (r < 0)
		return r;
	mv = add_move(m, icm_key_tree(p->path), icm_key_tree(to));
	mv->value = m->contents.len ? icm_xmemdup(m->contents.value, m->contents.len) : NULL;
	mv->len = m->contents.len;
	mv->flags = m->contents.flags;
	mv->index = m->tree_index = m->contents.tree_index;
	return 0;
}

static void emit_removals(struct icm_part *part, const struct moves *m)
{
	for (size_t i = 0; i < m->n; i++) {
		if (m->v[i].exact) {
			icm_part_check_index(part, icm_xstrdup(m->v[i].from), m->v[i].index);
			icm_part_delete(part, icm_xstrdup(m->v[i].from));
		} else {
			icm_part_delete_cas(part, icm_xstrdup(m->v[i].from), m->v[i].index);
		}
	}
}

/* `over`: what is replaced at the new name, by its own moves (NULL: nothing). */
static void emit_additions(struct icm_part *part, struct moves *m, const struct moves *over)
{
	for (size_t i = 0; i < m->n; i++) {
		uint64_t index = 0;

		for (size_t j = 0; over && j < over->n && j < 2; j++)
			if (strcmp(over->v[j].from, m->v[i].to) == 0)
				index = over->v[j].index;
		icm_part_cas(part, icm_xstrdup(m->v[i].to), index, ICM_STEAL(&m->v[i].value),
			     m->v[i].len, m->v[i].flags);
	}
}

static void emit_parents(struct icm_part *part, const struct icm_place *a,
			 const struct icm_place *b, struct timespec now)
{
	icm_part_names_change(part, a->dir, a->dir_attr_index, now);
	if (strcmp(a->dir, b->dir) != 0)
		icm_part_names_change(part, b->dir, b->dir_attr_index, now);
}

/* ---- the plain rename ---- */

/* What is replaced leaves the store; `gone` has its keys afterwards. */
static int replace_target(struct icm_volume *vol, struct icm_part *part, const struct icm_place *b,
			  struct timespec now, struct moves *gone, uint32_t *left)
{
	uint64_t generation;
	int r;

	*left = 0;
	if (!b->exists || !b->published)
		return 0;
	if (S_ISDIR(b->attr.mode)) {
		r = icm_dir_is_empty(vol, b, &generation);
		if (r == 0)
			icm_part_remove_dir(part, b, generation);
		return r;
	}
	r = collect(vol, b, b->path, now, gone);
	if (r == 0)
		icm_part_remove_name(vol, part, b, &gone->contents, true, now, left);
	return r;
}

/* Whether what is known below a directory is what the commit `index` moved with it. */
static bool knows_below(struct icm_volume *vol, struct icm_inode *dir, uint64_t index)
{
	return !icm_inode_is_dir(dir) ||
	       (vol->position == index && !icm_tree_is_newer_below(dir, index));
}

/* After the commit: the tree follows. volume->lock held. */
static void rename_in_tree(struct icm_volume *vol, struct icm_rename *rn, struct icm_attr *attr,
			   uint64_t index, struct timespec now, struct icm_news *news)
{
	struct icm_name *from = icm_tree_find(&vol->tree, rn->from_dir, rn->from);
	struct icm_name *to = icm_tree_find(&vol->tree, rn->to_dir, rn->to);

	icm_feed_own_commit(vol, index);
	icm_grave_dig(vol, rn->a.path, index);
	if (!from || from->inode != rn->a.inode || (to && to->inode != rn->b.inode) ||
	    from->attr_index > index) {
		icm_volume_want_resync(vol); /* another change came in between */
		return;
	}
	if (to) {
		icm_news_inode(news, to->inode, false);
		icm_news_apart(news, to->inode, NULL, ICM_EVENT_ATTRIB);
		icm_name_removed(vol, to, index, now, news);
	}
	from = icm_tree_move(&vol->tree, from, rn->to_dir, rn->to);
	from->attr_index = from->tree_index = index;
	if (from->inode->attr.linked)
		from->inode->index = index;
	icm_apply_attr(vol, from->inode, attr, NULL, news);
	if (!knows_below(vol, from->inode, index))
		icm_volume_want_resync(vol);
	else if (icm_inode_is_dir(from->inode))
		icm_tree_moved_below(from->inode, index);
	icm_apply_dir_time(rn->from_dir, now, index, news);
	icm_apply_dir_time(rn->to_dir, now, index, news);
}

/* Keys of contents below a directory, and their bytes, as far as the tree tells;
 * volume->lock held. */
static void count_below(const struct icm_inode *dir, size_t *n, uint64_t *bytes)
{
	for (const struct icm_name *name = dir->first; name; name = name->next) {
		const struct icm_attr *a = &name->inode->attr;

		if (!name->inode->published)
			continue;
		++*n;
		if (S_ISREG(a->mode) && !a->linked && a->size <= ICM_PLAIN_MAX)
			*bytes += a->size;
		if (icm_inode_is_dir(name->inode))
			count_below(name->inode, n, bytes);
	}
}

/* All that is read and written at once is in memory. */
#define ONCE_BYTES ((uint64_t)64 << 20)
#define ONCE_NAMES 10000

/* What is below certainly doesn't go through one transaction: it need not be read. */
static bool is_large(struct icm_volume *vol, const struct icm_inode *dir)
{
	const struct icm_facts *f = &vol->be->facts;
	uint64_t bytes = 0;
	size_t n = 0;
	ICM_LOCK_SCOPE(&vol->lock);

	count_below(dir, &n, &bytes);
	return n > ONCE_NAMES || bytes > ONCE_BYTES || (f->max_txn_ops && 4 * n > f->max_txn_ops) ||
	       (f->max_txn_bytes && bytes > f->max_txn_bytes);
}

static int rename_once(struct icm_volume *vol, struct icm_rename *rn)
{
	ICM_AUTOPART struct icm_part part = ICM_PART_INIT;
	__attribute__((cleanup(moves_clear))) struct moves m = { 0 };
	__attribute__((cleanup(moves_clear))) struct moves gone = { 0 };
	struct timespec now = icm_wall_time();
	struct icm_news news = { 0 };
	struct icm_change *change;
	uint32_t left = 0;
	int r;

	if (S_ISDIR(rn->a.attr.mode) && is_large(vol, rn->a.inode))
		return icm_change_rename(vol, &rn->a, &rn->b, rn->call->pid, now);
	part.pid = rn->call->pid;
	emit_parents(&part, &rn->a, &rn->b, now);
	r = collect(vol, &rn->a, rn->b.path, now, &m);
	if (r == 0)
		r = replace_target(vol, &part, &rn->b, now, &gone, &left);
	if (r < 0)
		return r;
	emit_removals(&part, &m);
	if (rn->a.attr.linked)
		icm_part_touch_inode(vol, &part, &rn->a, 0, now);
	emit_additions(&part, &m, &gone);
	change = icm_part_change(&part, ICM_CHANGE_RENAME, rn->a.path, rn->b.path, now, &m.attr);
	change->left = left;
	if (!icm_part_fits(vol, &part)) {
		if (S_ISDIR(rn->a.attr.mode))
			return icm_change_rename(vol, &rn->a, &rn->b, rn->call->pid, now);
		return -EXDEV; /* mv copies then: another program has stored so many bytes */
	}
	r = icm_commit(vol, &part);
	if (r < 0)
		return r;
	pthread_mutex_lock(&vol->lock);
	rename_in_tree(vol, rn, &m.attr, part.index, now, &news);
	pthread_mutex_unlock(&vol->lock);
	icm_news_tell(vol, &news);
	if (S_ISDIR(rn->a.attr.mode) && vol->scratch)
		icm_scratch_dir_moved(vol->scratch, rn->a.path, rn->b.path);
	return 0;
}

/* ---- exchange ---- */

static int exchange_once(struct icm_volume *vol, struct icm_rename *rn)
{
	ICM_AUTOPART struct icm_part part = ICM_PART_INIT;
	__attribute__((cleanup(moves_clear))) struct moves a = { 0 };
	__attribute__((cleanup(moves_clear))) struct moves b = { 0 };
	struct timespec now = icm_wall_time();
	struct icm_news news = { 0 };
	struct icm_name *x, *y;
	int r;

	if (is_large(vol, rn->a.inode) || is_large(vol, rn->b.inode))
		return -EXDEV;
	part.pid = rn->call->pid;
	emit_parents(&part, &rn->a, &rn->b, now);
	r = collect(vol, &rn->a, rn->b.path, now, &a);
	if (r == 0)
		r = collect(vol, &rn->b, rn->a.path, now, &b);
	if (r < 0)
		return r;
	emit_removals(&part, &a);
	emit_removals(&part, &b);
	emit_additions(&part, &a, NULL);
	emit_additions(&part, &b, NULL);
	if (rn->a.attr.linked)
		icm_part_touch_inode(vol, &part, &rn->a, 0, now);
	if (rn->b.attr.linked)
		icm_part_touch_inode(vol, &part, &rn->b, 0, now);
	icm_part_change(&part, ICM_CHANGE_EXCHANGE, rn->a.path, rn->b.path, now, &b.attr);
	if (!icm_part_fits(vol, &part))
		return -EXDEV;
	r = icm_commit(vol, &part);
	if (r < 0)
		return r;
	pthread_mutex_lock(&vol->lock);
	icm_feed_own_commit(vol, part.index);
	x = icm_tree_find(&vol->tree, rn->from_dir, rn->from);
	y = icm_tree_find(&vol->tree, rn->to_dir, rn->to);
	if (x && y && x->inode == rn->a.inode && y->inode == rn->b.inode &&
	    knows_below(vol, x->inode, part.index) && knows_below(vol, y->inode, part.index)) {
		if (rn->a.attr.linked)
			x->inode->index = part.index;
		if (rn->b.attr.linked)
			y->inode->index = part.index;
		icm_apply_exchange(vol, x, y, part.index, now, &news);
	} else {
		icm_volume_want_resync(vol);
	}
	pthread_mutex_unlock(&vol->lock);
	icm_news_tell(vol, &news);
	if (vol->scratch && (S_ISDIR(rn->a.attr.mode) || S_ISDIR(rn->b.attr.mode)))
		icm_scratch_dirs_exchanged(vol->scratch, rn->a.path, rn->b.path);
	return 0;
}

/* ---- checks ---- */

static int check(struct icm_volume *vol, const struct icm_rename *rn)
{
	const struct icm_place *a = &rn->a, *b = &rn->b;

	if (!a->exists)
		return -ENOENT;
	if (icm_attr_is_broken(&a->attr) || (b->exists && icm_attr_is_broken(&b->attr)))
		return -EIO;
	if ((rn->flags & RENAME_NOREPLACE) && b->exists)
		return -EEXIST;
	if (rn->flags & RENAME_EXCHANGE)
		return b->exists ? 0 : -ENOENT;
	if (!b->exists)
		return 0;
	if (S_ISDIR(a->attr.mode) && !S_ISDIR(b->attr.mode))
		return -ENOTDIR;
	if (!S_ISDIR(a->attr.mode) && S_ISDIR(b->attr.mode))
		return -EISDIR;
	if (S_ISDIR(b->attr.mode) && icm_dir_has_local_names(vol, b->path, b->inode))
		return -ENOTEMPTY;
	return 0;
}

static int take_places(struct icm_volume *vol, struct icm_rename *rn)
{
	int r;
	ICM_LOCK_SCOPE(&vol->lock);

	r = icm_place_take(vol, rn->from_dir, rn->from, &rn->a);
	if (r == 0)
		r = icm_place_take(vol, rn->to_dir, rn->to, &rn->b);
	/* the kernel sees to that as well, but knows only its own names */
	if (r == 0 && rn->a.exists && icm_inode_is_below(rn->to_dir, rn->a.inode))
		r = -EINVAL;
	if (r == 0 && (rn->flags & RENAME_EXCHANGE) && rn->b.exists &&
	    icm_inode_is_below(rn->from_dir, rn->b.inode))
		r = -EINVAL;
	return r;
}

/* A name of ours that isn't published yet is, before it moves. */
static int publish_first(struct icm_volume *vol, struct icm_inode *inode, pid_t pid)
{
	struct icm_file *f;
	int r;

	pthread_mutex_lock(&vol->lock);
	f = icm_file_get(vol, inode);
	pthread_mutex_unlock(&vol->lock);
	r = icm_file_publish(vol, f, pid);
	icm_fs_forget(&f->view, 1);
	return r;
}

/* A name that only this mount has is replaced: it just goes. */
void icm_drop_unpublished(struct icm_volume *vol, struct icm_inode *dir, const char *text,
			  struct icm_inode *inode)
{
	struct icm_file *f = icm_unpublished_lock(vol, inode);
	struct icm_name *name;

	pthread_mutex_lock(&vol->lock);
	name = icm_tree_find(&vol->tree, dir, text);
	if (f && name && name->inode == inode)
		icm_tree_remove(&vol->tree, name);
	pthread_mutex_unlock(&vol->lock);
	icm_unpublished_unlock(f);
}

static int attempt(struct icm_volume *vol, struct icm_rename *rn)
{
	int r = take_places(vol, rn);

	if (r == 0)
		r = check(vol, rn);
	if (r < 0)
		return r;
	if (rn->b.exists && rn->a.inode == rn->b.inode)
		return 0; /* two names of one file: nothing happens */
	if (!rn->a.published) {
		r = publish_first(vol, rn->a.inode, rn->call->pid);
		return r < 0 ? r : -ESTALE;
	}
	if (rn->b.exists && !rn->b.published) {
		if (rn->flags & RENAME_EXCHANGE) {
			r = publish_first(vol, rn->b.inode, rn->call->pid);
			return r < 0 ? r : -ESTALE;
		}
		icm_drop_unpublished(vol, rn->to_dir, rn->to, rn->b.inode);
		return -ESTALE;
	}
	return rn->flags & RENAME_EXCHANGE ? exchange_once(vol, rn) : rename_once(vol, rn);
}

static int look_again(struct icm_volume *vol, struct icm_rename *rn)
{
	int r = icm_dir_refresh(vol, rn->from_dir);

	if (r == 0 && rn->to_dir != rn->from_dir)
		r = icm_dir_refresh(vol, rn->to_dir);
	if (r < 0)
		return r;
	r = icm_name_refresh(vol, rn->from_dir, rn->from);
	if (r < 0)
		return r;
	r = icm_name_refresh(vol, rn->to_dir, rn->to);
	return r == -ENOENT ? 0 : r;
}

static int rename_shared(struct icm_volume *vol, struct icm_rename *rn)
{
	for (int tries = 0; tries < ICM_CONFLICT_TRIES; tries++) {
		int r = attempt(vol, rn);

		icm_place_clear(vol, &rn->a);
		icm_place_clear(vol, &rn->b);
		if (r != -ESTALE)
			return r;
		r = look_again(vol, rn);
		if (r < 0)
			return r;
	}
	return -EBUSY;
}

/* ---- which kind of rename it is ---- */

static bool is_shared(const struct icm_view *view)
{
	return view->ops == &icm_shared_view_ops;
}

static char *dir_path(struct icm_volume *vol, struct icm_view *dir)
{
	ICM_AUTOFREE char *path = NULL;

	if (!is_shared(dir))
		return icm_scratch_path(dir);
	pthread_mutex_lock(&vol->lock);
	path = icm_inode_path(icm_file_of(dir)->inode);
	pthread_mutex_unlock(&vol->lock);
	return ICM_STEAL(&path);
}

/* Whether a name in this directory is one of the tree; its type. */
static bool in_tree(struct icm_volume *vol, struct icm_view *dir, const char *name,
		    mode_t *ret_mode)
{
	struct icm_name *n;
	ICM_LOCK_SCOPE(&vol->lock);

	n = is_shared(dir) ? icm_tree_find(&vol->tree, icm_file_of(dir)->inode, name) : NULL;
	*ret_mode = n ? n->inode->attr.mode : 0;
	return n != NULL;
}

int icm_shared_rename(struct icm_view *dir, const struct icm_call *call, const char *name,
		      struct icm_view *to_dir, const char *to_name, unsigned flags)
{
	struct icm_volume *vol = dir->vol;
	ICM_AUTOFREE char *from_path = dir_path(vol, dir);
	ICM_AUTOFREE char *to_path = dir_path(vol, to_dir);
	ICM_AUTOFREE char *target = NULL;
	struct icm_scratch_rename sr = { .vol = vol,
					 .call = call,
					 .from_dir = from_path,
					 .from = name,
					 .to_dir = to_path,
					 .to = to_name,
					 .flags = flags,
					 .from_view = dir,
					 .to_view = to_dir };
	mode_t from_mode, to_mode;
	bool from_shared, to_shared;

	if (!from_path || !to_path)
		return -ENOENT;
	if ((is_shared(dir) && !*from_path && strcmp(name, ICM_CONTROL_NAME) == 0) ||
	    (is_shared(to_dir) && !*to_path && strcmp(to_name, ICM_CONTROL_NAME) == 0))
		return -EBUSY;
	from_shared = in_tree(vol, dir, name, &from_mode);
	to_shared = in_tree(vol, to_dir, to_name, &to_mode);
	target = icm_path_join(to_path, to_name);
	if (!from_shared && vol->scratch) {
		int r = icm_scratch_is_dir(vol->scratch, from_path, name);

		if (r == -ENOENT && !is_shared(dir))
			return r;
		if (r >= 0) {
			if (!to_shared &&
			    (!is_shared(to_dir) || icm_scratch_match(vol->scratch, target, r > 0)))
				return icm_scratch_rename(vol->scratch, from_path, name, to_path,
							  to_name, flags);
			return icm_rename_from_scratch(&sr);
		}
	}
	if (!is_shared(to_dir) || (!to_shared && vol->scratch &&
				   icm_scratch_match(vol->scratch, target, S_ISDIR(from_mode))))
		return icm_rename_to_scratch(&sr);
	return rename_shared(vol, &(struct icm_rename){ .call = call,
							.from_dir = icm_file_of(dir)->inode,
							.to_dir = icm_file_of(to_dir)->inode,
							.from = name,
							.to = to_name,
							.flags = flags });
}
