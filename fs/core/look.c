/* SPDX-License-Identifier: MIT */
#include "core/look.h"

#include <string.h>

#include "core/key.h"
#include "core/names.h"

/* ---- contents that were read before anybody asked for them ---- */

static void keep(struct icm_volume *vol, uint64_t ino, const struct icm_sha256 *hash,
		 uint64_t attr_index, const struct icm_entry *e)
{
	struct icm_content *content = icm_content_new(e->value, e->len);
	struct icm_brought *b;
	ICM_LOCK_SCOPE(&vol->lock);

	b = &vol->brought[vol->next_brought++ % ICM_BROUGHT];
	icm_content_unref(b->content);
	*b = (struct icm_brought){ .ino = ino,
				   .hash = *hash,
				   .attr_index = attr_index,
				   .tree_index = e->modify_index,
				   .content = content };
}

struct icm_content *icm_look_contents(struct icm_volume *vol, const struct icm_file *f,
				      const struct icm_sha256 *hash, size_t size,
				      uint64_t *ret_index)
{
	const struct icm_name *name;
	ICM_LOCK_SCOPE(&vol->lock);

	name = f->inode->names;
	for (size_t i = 0; i < ICM_BROUGHT; i++) {
		struct icm_brought *b = &vol->brought[i];

		if (!b->content || b->ino != f->view.ino || b->content->len != size ||
		    memcmp(&b->hash, hash, sizeof(*hash)) != 0)
			continue;
		/* the same contents may have come back as a later version */
		*ret_index = name && name->attr_index == b->attr_index ? b->tree_index : 0;
		return ICM_STEAL(&b->content);
	}
	return NULL;
}

void icm_look_forget(struct icm_volume *vol)
{
	for (size_t i = 0; i < ICM_BROUGHT; i++)
		vol->brought[i].content = icm_content_unref(vol->brought[i].content);
}

/* What isn't what the attributes say is left to who reads it, and says so. */
static void keep_contents(struct icm_volume *vol, const struct icm_attr *attr, uint64_t attr_index,
			  const struct icm_entry *e)
{
	struct icm_sha256 sum;

	if (e->flags != ICM_FLAGS_PLAIN || e->len > ICM_PLAIN_MAX || e->len != attr->size ||
	    !attr->has_hash)
		return;
	sum = icm_sha256(e->value, e->len);
	if (memcmp(&sum, &attr->hash, sizeof(sum)) == 0)
		keep(vol, attr->ino, &sum, attr_index, e);
}

/* ---- the keys ---- */

/* tree/<path> of a file that has one name, or NULL; the key's index, if it is known. */
static char *contents_key(struct icm_volume *vol, struct icm_inode *inode, uint64_t *ret_index)
{
	ICM_AUTOFREE char *path = NULL;
	ICM_LOCK_SCOPE(&vol->lock);

	if (!inode->attr.linked)
		path = icm_inode_path(inode);
	if (!path)
		return NULL;
	*ret_index = inode->names->tree_index;
	return icm_key_tree(path);
}

/* The key was looked at when attr/<path> had `attr_index`. */
static void learn_index(struct icm_volume *vol, struct icm_inode *inode, uint64_t attr_index,
			uint64_t index)
{
	ICM_LOCK_SCOPE(&vol->lock);

	if (inode->names && inode->names->attr_index == attr_index && !inode->names->tree_index)
		inode->names->tree_index = index;
}

int icm_look_at_contents(struct icm_volume *vol, struct icm_inode *inode, uint64_t attr_index,
			 bool *ret_foreign)
{
	struct icm_ctx ctx = icm_volume_ctx(vol);
	ICM_AUTOENTRY struct icm_entry e = { 0 };
	uint64_t index;
	ICM_AUTOFREE char *key = contents_key(vol, inode, &index);
	int r;

	*ret_foreign = false;
	if (!key)
		return 0;
	r = icm_backend_get(vol->be, &ctx, key, &e);
	*ret_foreign = r == -ENOENT || (r == 0 && e.modify_index > attr_index);
	if (r == 0 && !*ret_foreign)
		learn_index(vol, inode, attr_index, e.modify_index);
	return r == -ENOENT ? 0 : r;
}

/* ---- one look ---- */

struct look {
	struct icm_file *f;
	const char *attr_key;
	uint64_t attr_index;   /* as the tree knows it */
	char *tree_key;	       /* owned */
	uint64_t tree_index;   /* the same; 0: not known */
	struct icm_inode *dir; /* referenced; where the file was before the store was asked */
	char *text;	       /* owned */
	struct icm_fetched there;
	struct icm_txn_result res;
};

static void look_clear(struct icm_volume *vol, struct look *l)
{
	icm_txn_result_clear(&l->res);
	icm_fetched_clear(&l->there);
	free(l->tree_key);
	free(l->text);
	if (!l->dir)
		return;
	pthread_mutex_lock(&vol->lock);
	icm_inode_unref(&vol->tree, l->dir);
	pthread_mutex_unlock(&vol->lock);
}

/* What the tree says before the store is asked. */
static bool look_begin(struct icm_volume *vol, struct look *l)
{
	struct icm_inode *inode = l->f->inode;
	ICM_LOCK_SCOPE(&vol->lock);

	if (inode->attr.linked || !inode->names || !inode->names->dir)
		return false;
	l->there = (struct icm_fetched){ .clock = vol->tree.clock,
					 .listings = vol->listings,
					 .path = icm_inode_path(inode) };
	if (!l->there.path)
		return false;
	l->tree_key = icm_key_tree(l->there.path);
	l->tree_index = inode->names->tree_index;
	l->dir = icm_inode_ref(inode->names->dir);
	l->text = icm_xstrdup(inode->names->text);
	return true;
}

/* attr/<path> and tree/<path>, with its contents or only its index compared. */
static int ask(struct icm_volume *vol, struct look *l, bool contents)
{
	struct icm_ctx ctx = icm_volume_ctx(vol);
	struct icm_op ops[] = {
		{ ICM_OP_GET, .key = l->attr_key },
		{ contents ? ICM_OP_GET : ICM_OP_CHECK_INDEX, .key = l->tree_key,
		  /* unless attributes alone were changed since it is that of attr/<path> */
		  .index = contents	   ? 0
			   : l->tree_index ? l->tree_index
					   : l->attr_index },
	};
	int r;

	icm_txn_result_clear(&l->res);
	r = icm_backend_txn(vol->be, &ctx, ops, ICM_COUNT(ops), &l->res);
	if (r == 0 && l->res.entries.n != (contents ? 2 : 1))
		return -EPROTO;
	if (r == 0 && !contents)
		learn_index(vol, l->f->inode, l->attr_index, ops[1].index);
	return r;
}

/* Contents are wanted by a reader whose kernel has none of this version. */
static bool wants_contents(struct icm_volume *vol, const struct icm_file *f)
{
	ICM_LOCK_SCOPE(&vol->lock);

	return f->pages_gen != f->version.gen;
}

/* Both keys in one view say that another mount has made a version: it goes into the
 * tree. What isn't as simple is left to who asks for everything. */
static int take(struct icm_volume *vol, struct look *l, bool *ret_taken)
{
	const struct icm_entry *attr = &l->res.entries.v[0], *tree = &l->res.entries.v[1];
	struct icm_fetched *there = &l->there;
	int r;

	*ret_taken = false;
	if (tree->modify_index > attr->modify_index || attr->modify_index <= l->attr_index ||
	    icm_attr_decode(attr->value, attr->len, &there->attr) < 0)
		return 0;
	if (!S_ISREG(there->attr.mode) || there->attr.linked || there->attr.mark)
		return 0;
	there->attr_index = attr->modify_index;
	keep_contents(vol, &there->attr, there->attr_index, tree);
	r = icm_name_place(vol, l->dir, l->text, there);
	*ret_taken = r == 0;
	return r == -EAGAIN ? 0 : r;
}

/* With both indexes, whether they are those of the version that the tree has. What a
 * mount that may not write has derived has the index of tree/<path>; otherwise a lower
 * index of attr/<path> is one that has gone back. */
static bool are_known(const struct look *l, uint64_t attr_index, uint64_t tree_index)
{
	return (attr_index == l->attr_index || tree_index == l->attr_index) &&
	       (l->tree_index ? tree_index == l->tree_index : tree_index <= l->attr_index);
}

static bool is_same(const struct look *l)
{
	return are_known(l, l->res.entries.v[0].modify_index, l->res.entries.v[1].modify_index);
}

static int look_with_contents(struct icm_volume *vol, struct look *l, enum icm_look *ret)
{
	ICM_AUTOATTR struct icm_attr attr = { 0 };
	const struct icm_entry *v;
	bool taken;
	int r = ask(vol, l, true);

	if (r < 0)
		return r == -ESTALE ? 0 : r; /* one of them is gone */
	v = l->res.entries.v;
	if (!is_same(l)) {
		r = take(vol, l, &taken);
		if (taken)
			*ret = ICM_LOOK_TAKEN;
		return r;
	}
	*ret = ICM_LOOK_SAME;
	learn_index(vol, l->f->inode, l->attr_index, v[1].modify_index);
	if (wants_contents(vol, l->f) && icm_attr_decode(v[0].value, v[0].len, &attr) == 0)
		keep_contents(vol, &attr, v[0].modify_index, &v[1]);
	return 0;
}

static bool is_small(struct icm_volume *vol, const struct icm_file *f)
{
	ICM_LOCK_SCOPE(&vol->lock);

	return f->inode->attr.size <= ICM_CONTENT_KEEP;
}

int icm_look_at_both(struct icm_volume *vol, struct icm_file *f, const char *attr_key,
		     uint64_t attr_index, enum icm_look *ret)
{
	struct look l = { .f = f, .attr_key = attr_key, .attr_index = attr_index };
	bool known = false;
	int r = 0;

	*ret = ICM_LOOK_ELSE;
	if (look_begin(vol, &l)) {
		/* where it has changed, the contents will be wanted, whatever their size */
		r = is_small(vol, f) ? -ESTALE : ask(vol, &l, false);
		known = r == 0 && are_known(&l, l.res.entries.v[0].modify_index,
					    l.tree_index ? l.tree_index : attr_index);
		if (known)
			*ret = ICM_LOOK_SAME;
		else if (r == 0 || r == -ESTALE)
			r = look_with_contents(vol, &l, ret);
	}
	look_clear(vol, &l);
	return r;
}
