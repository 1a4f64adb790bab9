/* SPDX-License-Identifier: MIT */
#include "core/tree.h"

#include <string.h>

#include "core/key.h"
#include "util/buf.h"

/* Cookies 1 and 2 stand behind "." and "..". */
#define FIRST_COOKIE 3

static uint64_t name_hash(const struct icm_inode *dir, const char *name)
{
	return icm_hash_bytes(name, strlen(name), (uint64_t)(uintptr_t)dir);
}

void icm_tree_init(struct icm_tree *t)
{
	*t = (struct icm_tree){ 0 };
}

struct icm_inode *icm_inode_new(struct icm_tree *t, struct icm_attr *attr)
{
	struct icm_inode *inode = icm_xcalloc(1, sizeof(*inode));

	inode->refs = 1;
	inode->attr = *attr;
	*attr = (struct icm_attr){ 0 };
	inode->next_cookie = FIRST_COOKIE;
	inode->gen = 1;
	icm_map_add(&t->inodes, &inode->node, icm_hash_u64(inode->attr.ino));
	return inode;
}

struct icm_inode *icm_inode_ref(struct icm_inode *inode)
{
	inode->refs++;
	return inode;
}

void icm_inode_unref(struct icm_tree *t, struct icm_inode *inode)
{
	if (--inode->refs)
		return;
	icm_map_remove(&t->inodes, &inode->node);
	icm_attr_clear(&inode->attr);
	icm_lock_state_free(inode->locks);
	free(inode->last_path);
	free(inode);
}

struct icm_inode *icm_tree_inode(const struct icm_tree *t, uint64_t ino)
{
	for (struct icm_map_node *n = icm_map_first(&t->inodes, icm_hash_u64(ino)); n;
	     n = icm_map_next(n)) {
		struct icm_inode *inode = ICM_CONTAINER(n, struct icm_inode, node);

		if (inode->attr.ino == ino)
			return inode;
	}
	return NULL;
}

uint64_t icm_tree_fresh_ino(const struct icm_tree *t)
{
	uint64_t ino;

	do {
		ino = icm_random_u64() & (ICM_INO_MAX - 1);
	} while (ino < ICM_INO_FIRST || icm_tree_inode(t, ino));
	return ino;
}

unsigned icm_inode_nlink(const struct icm_inode *inode)
{
	unsigned n = 0;

	if (inode->names && icm_inode_is_dir(inode))
		return 2 + inode->n_subdirs;
	for (const struct icm_name *name = inode->names; name; name = name->alias)
		n++;
	return n;
}

void icm_inode_stat(const struct icm_inode *inode, struct stat *ret)
{
	const struct icm_attr *a = &inode->attr;
	uint64_t size = S_ISDIR(a->mode) ? 4096 : a->size;

	*ret = (struct stat){
		.st_ino = a->ino,
		.st_mode = a->mode,
		.st_nlink = icm_inode_nlink(inode),
		.st_uid = a->uid,
		.st_gid = a->gid,
		.st_rdev = a->rdev,
		.st_size = (off_t)size,
		.st_blksize = 4096,
		.st_blocks = (blkcnt_t)((size - a->holes + 511) / 512),
		.st_atim = a->atime,
		.st_mtim = a->mtime,
		.st_ctim = a->ctime,
	};
}

struct icm_name *icm_tree_find(const struct icm_tree *t, const struct icm_inode *dir,
			       const char *name)
{
	for (struct icm_map_node *n = icm_map_first(&t->names, name_hash(dir, name)); n;
	     n = icm_map_next(n)) {
		struct icm_name *found = ICM_CONTAINER(n, struct icm_name, node);

		if (found->dir == dir && strcmp(found->text, name) == 0)
			return found;
	}
	return NULL;
}

struct icm_name *icm_tree_walk(const struct icm_tree *t, const char *path)
{
	struct icm_name *name = t->root ? t->root->names : NULL;

	while (name && *path) {
		size_t len = strcspn(path, "/");
		ICM_AUTOFREE char *part = icm_xstrndup(path, len);

		name = icm_inode_is_dir(name->inode) ? icm_tree_find(t, name->inode, part) : NULL;
		path += len + (path[len] == '/');
	}
	return name;
}

struct icm_inode *icm_tree_parent(const struct icm_tree *t, const char *path, const char **ret_base)
{
	const char *slash = strrchr(path, '/');
	ICM_AUTOFREE char *dir =
		slash ? icm_xstrndup(path, (size_t)(slash - path)) : icm_xstrdup("");
	struct icm_name *name = icm_tree_walk(t, dir);

	*ret_base = slash ? slash + 1 : path;
	return name && icm_inode_is_dir(name->inode) ? name->inode : NULL;
}

static void link_child(struct icm_inode *dir, struct icm_name *name)
{
	name->cookie = dir->next_cookie++;
	name->prev = dir->last;
	name->next = NULL;
	if (dir->last)
		dir->last->next = name;
	else
		dir->first = name;
	dir->last = name;
	dir->n_children++;
	dir->n_subdirs += icm_inode_is_dir(name->inode);
}

static void unlink_child(struct icm_inode *dir, struct icm_name *name)
{
	if (name->prev)
		name->prev->next = name->next;
	else
		dir->first = name->next;
	if (name->next)
		name->next->prev = name->prev;
	else
		dir->last = name->prev;
	dir->n_children--;
	dir->n_subdirs -= icm_inode_is_dir(name->inode);
}

struct icm_name *icm_tree_add(struct icm_tree *t, struct icm_inode *dir, const char *text,
			      struct icm_inode *inode)
{
	size_t len = strlen(text);
	struct icm_name *name = icm_xcalloc(1, sizeof(*name) + len + 1);

	memcpy(name->text, text, len + 1);
	name->dir = dir;
	name->inode = icm_inode_ref(inode);
	name->alias = inode->names;
	inode->names = name;
	if (dir) {
		icm_inode_ref(dir);
		link_child(dir, name);
	}
	icm_map_add(&t->names, &name->node, name_hash(dir, text));
	name->born = ++t->clock;
	t->n_files++;
	return name;
}

void icm_tree_remove(struct icm_tree *t, struct icm_name *name)
{
	struct icm_name **at = &name->inode->names;

	while (*at != name)
		at = &(*at)->alias;
	*at = name->alias;
	icm_map_remove(&t->names, &name->node);
	if (name->dir) {
		unlink_child(name->dir, name);
		icm_inode_unref(t, name->dir);
	}
	icm_inode_unref(t, name->inode);
	t->n_files--;
	free(name);
}

struct icm_name *icm_tree_move(struct icm_tree *t, struct icm_name *name, struct icm_inode *dir,
			       const char *text)
{
	struct icm_name *moved = icm_tree_add(t, dir, text, name->inode);

	moved->tree_index = name->tree_index;
	moved->attr_index = name->attr_index;
	icm_tree_remove(t, name);
	return moved;
}

char *icm_name_path(const struct icm_name *name)
{
	ICM_AUTOFREE char *path = icm_xstrdup(name->text);
	const struct icm_name *at = name;

	while (at->dir) {
		char *longer;

		at = at->dir->names;
		if (!at)
			return NULL; /* a directory above was removed */
		if (!at->dir)
			break;
		longer = icm_path_join(at->text, path);
		free(path);
		path = longer;
	}
	return ICM_STEAL(&path);
}

char *icm_inode_path(const struct icm_inode *inode)
{
	return inode->names ? icm_name_path(inode->names) : NULL;
}

bool icm_inode_is_below(const struct icm_inode *inode, const struct icm_inode *dir)
{
	while (inode && inode != dir)
		inode = inode->names ? inode->names->dir : NULL;
	return inode != NULL;
}

uint64_t icm_name_told_index(const struct icm_name *name)
{
	return name->attr_index == name->moved_index ? name->before_index : name->attr_index;
}

void icm_tree_moved_below(struct icm_inode *dir, uint64_t index)
{
	for (struct icm_name *name = dir->first; name; name = name->next) {
		/* what is not published yet has no keys that moved */
		if (name->attr_index) {
			name->before_index = icm_name_told_index(name);
			name->attr_index = name->tree_index = name->moved_index = index;
		}
		if (icm_inode_is_dir(name->inode))
			icm_tree_moved_below(name->inode, index);
	}
}

bool icm_tree_is_newer_below(const struct icm_inode *dir, uint64_t index)
{
	for (const struct icm_name *name = dir->first; name; name = name->next)
		if (name->attr_index > index ||
		    (icm_inode_is_dir(name->inode) && icm_tree_is_newer_below(name->inode, index)))
			return true;
	return false;
}

static void free_below(struct icm_tree *t, struct icm_inode *dir)
{
	while (dir->first) {
		struct icm_name *name = dir->first;

		if (icm_inode_is_dir(name->inode))
			free_below(t, name->inode);
		icm_tree_remove(t, name);
	}
}

void icm_tree_free(struct icm_tree *t)
{
	if (t->root) {
		free_below(t, t->root);
		icm_tree_remove(t, t->root->names);
		icm_inode_unref(t, t->root);
	}
	icm_map_free(&t->names);
	icm_map_free(&t->inodes);
	*t = (struct icm_tree){ 0 };
}
