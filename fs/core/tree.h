/* SPDX-License-Identifier: MIT
 * The tree copy: names and inodes of the whole deployment in memory, as far as
 * the mount's position in the feed, and what this mount has made but not yet
 * published. Memory is proportional to the number of names. No store, no
 * contents. Everything here is protected by the volume's lock. */
#ifndef ICM_CORE_TREE_H
#define ICM_CORE_TREE_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/stat.h>

#include "core/record.h"
#include "util/map.h"

struct icm_file;       /* shared.h: a view of an inode */
struct icm_lock_state; /* lock-local.h */

/* An index that is older than anything in the store, and not the 0 of what was never
 * there: who relies on the fact finds out that it has to be read again. */
#define ICM_INDEX_OLD 1

struct icm_inode {
	struct icm_map_node node;      /* in tree->inodes, by number */
	unsigned refs;		       /* names, views, operations under way */
	struct icm_attr attr;	       /* as in the store (or as it will be, unpublished) */
	uint64_t index;		       /* linked files: of inode/<ino>; directories: of the
					* transaction that set their times; else 0 */
	uint64_t gen;		       /* counts versions of the contents in this mount; never 0 */
	bool published;		       /* in the store; else known to this mount only */
	struct icm_name *names;	       /* its names, by alias; NULL: gone */
	struct icm_name *first, *last; /* directories: children in order of cookie */
	uint64_t next_cookie;
	unsigned n_children, n_subdirs;
	struct icm_file *views;	      /* all views of it */
	struct icm_file *named;	      /* the one that its names stood for last, or NULL */
	struct icm_lock_state *locks; /* owned; made with the first lock (lock-turn.c) */
	uint64_t compared; /* index of the store up to which its tree/ key was looked at */
	char *last_path;   /* owned; where it was when another mount removed it */
};

struct icm_name {
	struct icm_map_node node;     /* in tree->names, by directory and name */
	struct icm_inode *dir;	      /* NULL for the root's name */
	struct icm_inode *inode;      /* referenced */
	struct icm_name *prev, *next; /* siblings */
	struct icm_name *alias;	      /* further names of the inode */
	uint64_t cookie;	      /* position for readdir; never 0 to 2 */
	uint64_t tree_index;	      /* of tree/<path>; 0 = not known (it was listed) */
	uint64_t attr_index;	      /* of attr/<path>; 0 = not in the store */
	/* A directory above moved at `moved_index`, which is the attr_index since
	 * then; what it was before tells how old the attributes are. */
	uint64_t moved_index, before_index;
	uint64_t born; /* the tree's clock when it was added, or published */
	bool seen;     /* mark of a listing */
	char text[];
};

struct icm_tree {
	struct icm_map names;
	struct icm_map inodes;
	struct icm_inode *root; /* referenced; has one name, "" */
	size_t n_files;		/* names */
	uint64_t clock;		/* counts names added */
};

void icm_tree_init(struct icm_tree *t);
/* Frees all names and inodes; no views may be left. */
void icm_tree_free(struct icm_tree *t);

/* A fresh inode with one reference for the caller; takes over *attr's contents. */
struct icm_inode *icm_inode_new(struct icm_tree *t, struct icm_attr *attr);
struct icm_inode *icm_inode_ref(struct icm_inode *inode);
void icm_inode_unref(struct icm_tree *t, struct icm_inode *inode);
struct icm_inode *icm_tree_inode(const struct icm_tree *t, uint64_t ino);
/* A number that no inode of the tree has. */
uint64_t icm_tree_fresh_ino(const struct icm_tree *t);
static inline bool icm_inode_is_dir(const struct icm_inode *i)
{
	return S_ISDIR(i->attr.mode);
}
/* Number of names as stat shows it: of those in the tree, which has all. */
unsigned icm_inode_nlink(const struct icm_inode *inode);

/* Attributes as stat shows what is in the tree. */
void icm_inode_stat(const struct icm_inode *inode, struct stat *ret);

struct icm_name *icm_tree_find(const struct icm_tree *t, const struct icm_inode *dir,
			       const char *name);
/* The name at a path ("" = the root's); NULL when there is none. */
struct icm_name *icm_tree_walk(const struct icm_tree *t, const char *path);
/* The directory of a path and, in *ret_base, its last component (borrowed from path). */
struct icm_inode *icm_tree_parent(const struct icm_tree *t, const char *path,
				  const char **ret_base);
/* Adds a name (there must be none), with a reference on the inode. */
struct icm_name *icm_tree_add(struct icm_tree *t, struct icm_inode *dir, const char *name,
			      struct icm_inode *inode);
/* Removes a name and frees it; the inode may go with it. */
void icm_tree_remove(struct icm_tree *t, struct icm_name *name);
/* Gives a name another place (free by then); its indexes stay. Returns the new
 * object, the old one is freed. */
struct icm_name *icm_tree_move(struct icm_tree *t, struct icm_name *name, struct icm_inode *dir,
			       const char *text);
/* Fresh path of a name, of an inode's first name; NULL when it has none, or a
 * directory above has none any more. */
char *icm_name_path(const struct icm_name *name);
char *icm_inode_path(const struct icm_inode *inode);
/* `inode` is `dir` or lies below it. */
bool icm_inode_is_below(const struct icm_inode *inode, const struct icm_inode *dir);
/* Index up to which the attributes of the name are known. */
uint64_t icm_name_told_index(const struct icm_name *name);
/* Whether the name is known as of `index`, at which it was the file `ino`'s. */
static inline bool icm_name_is_told(const struct icm_name *name, uint64_t index, uint64_t ino)
{
	return name->attr_index > index ||
	       (name->attr_index == index && name->inode->attr.ino == ino);
}
/* A directory was moved by the transaction `index`, before which nothing happened
 * that the tree doesn't have: everything below has this index now. */
void icm_tree_moved_below(struct icm_inode *dir, uint64_t index);
/* Whether the tree has something below a directory that is newer. */
bool icm_tree_is_newer_below(const struct icm_inode *dir, uint64_t index);

/* ---- lock-turn.c ---- */

/* This mount has locks on the inode; volume->lock held. */
bool icm_inode_is_locked(const struct icm_inode *inode);
/* Its state in the lock code; NULL is fine. volume->lock held. */
void icm_lock_state_free(struct icm_lock_state *st);

#endif
