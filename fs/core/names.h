/* SPDX-License-Identifier: MIT
 * Asking the store for names, and what operations on names share. */
#ifndef ICM_CORE_NAMES_H
#define ICM_CORE_NAMES_H

#include "core/commit.h"

/* A name as the store had it at one moment. */
struct icm_fetched {
	uint64_t clock, listings; /* of the tree and the volume, before the store was asked */
	char *path;		  /* owned; where it was asked for; NULL: the directory was gone */
	bool absent;
	struct icm_attr attr; /* owned; of a linked file: the inode's */
	uint64_t attr_index;
	uint64_t inode_index;	  /* linked files */
	struct icm_part adoption; /* owned; the changes with which it was adopted (adopt.c) */
	bool derived;		  /* … which this mount may not write */
	bool known;		  /* the tree had it, before the store was asked */
	bool elsewhere;		  /* its keys have moved already (change.h): read-only mounts */
};
void icm_fetched_clear(struct icm_fetched *f);

/* Asks the store, and adopts what another program has written or deleted there; the
 * tree stays. -ENOENT: absent (or dir is gone), noted in *ret. */
int icm_name_fetch(struct icm_volume *vol, struct icm_inode *dir, const char *name,
		   struct icm_fetched *ret) ICM_MUST_CHECK;
/* Puts it into the tree, if that isn't newer; volume->lock held. Returns the
 * name, if there is one; NULL too if it is outdated. */
struct icm_name *icm_fetched_apply(struct icm_volume *vol, struct icm_inode *dir, const char *name,
				   const struct icm_fetched *there, struct icm_news *news);
/* The same with the lock taken and the kernel told. -EAGAIN: it is outdated,
 * since the directory moved or the tree was listed meanwhile. */
int icm_name_place(struct icm_volume *vol, struct icm_inode *dir, const char *name,
		   const struct icm_fetched *there);
/* Fetch and place. 0 or -ENOENT, or a failure of the store. */
int icm_name_refresh(struct icm_volume *vol, struct icm_inode *dir, const char *name);
/* The same for a look-up, which asks for what another program has made only while
 * there may be something that no comparison has found yet. */
int icm_name_look_up(struct icm_volume *vol, struct icm_inode *dir, const char *name);
/* The same for a directory's own attributes (the root's too). */
int icm_dir_refresh(struct icm_volume *vol, struct icm_inode *dir);

/* What a name was at one moment, for a transaction; taken under volume->lock. */
struct icm_place {
	char *dir, *path; /* owned */
	uint64_t dir_attr_index;
	bool exists;
	struct icm_inode *inode; /* referenced, if it exists */
	struct icm_attr attr;	 /* owned copy */
	bool published;
	uint64_t attr_index, tree_index, inode_index;
	struct icm_name *name; /* valid under the same hold of the lock only */
};
/* Fills *ret; -ENOENT when the directory is gone. volume->lock held. */
int icm_place_take(struct icm_volume *vol, struct icm_inode *dir, const char *name,
		   struct icm_place *ret) ICM_MUST_CHECK;
void icm_place_clear(struct icm_volume *vol, struct icm_place *p);

/* Everything that a transaction needs of contents that it moves or removes. */
struct icm_moved {
	bool directory;
	void *value; /* owned; of tree/<path>: what a rename writes elsewhere */
	size_t len;
	uint64_t flags;
	uint64_t tree_index;
	struct icm_content *plain; /* referenced; plain contents, for the history */
	struct icm_record record;  /* owned; large contents */
	bool has_record;
};
int icm_moved_read(struct icm_volume *vol, const struct icm_place *p,
		   struct icm_moved *ret) ICM_MUST_CHECK;
void icm_moved_clear(struct icm_moved *m);

/* Adds to `part` what removing a file's name takes: its keys, one link less of a
 * linked file, the history copy. `moved` as read for this place. With `replaced`
 * the keys themselves are left alone: the caller writes another file there.
 * Returns in *left the names left. */
void icm_part_remove_name(struct icm_volume *vol, struct icm_part *part, const struct icm_place *p,
			  const struct icm_moved *moved, bool replaced, struct timespec now,
			  uint32_t *left);
/* Adds a change of inode/<ino>: `links` names more or less (the last one's removal
 * deletes it), ctime = now. */
void icm_part_touch_inode(struct icm_volume *vol, struct icm_part *part, const struct icm_place *p,
			  int links, struct timespec now);
/* After such a commit, volume->lock held: the inode has one name less. */
void icm_name_removed(struct icm_volume *vol, struct icm_name *name, uint64_t index,
		      struct timespec now, struct icm_news *news);

/* The view of a file that isn't published yet, referenced and with its commit
 * lock held, so that no publication is under way: whoever changes such a file
 * in the tree alone has to hold it. NULL: it is published (or was just now). */
struct icm_file *icm_unpublished_lock(struct icm_volume *vol, struct icm_inode *inode);
/* Takes NULL. */
void icm_unpublished_unlock(struct icm_file *f);

/* ---- remove.c ---- */

/* Whether nothing of the store is below a directory, in one view: 0 and the
 * index of its generation key (0: it has none), -ENOTEMPTY, -ESTALE (it is gone). */
int icm_dir_is_empty(struct icm_volume *vol, const struct icm_place *p,
		     uint64_t *ret_generation) ICM_MUST_CHECK;
/* Checks that it still is as it was seen, and deletes its keys. */
void icm_part_remove_dir(struct icm_part *part, const struct icm_place *p, uint64_t generation);
/* Scratch or unpublished names in it. */
bool icm_dir_has_local_names(struct icm_volume *vol, const char *path, const struct icm_inode *dir);

#endif
