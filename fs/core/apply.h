/* SPDX-License-Identifier: MIT
 * What a change on another mount does to the tree copy. Each fact carries the
 * index of its transaction; what the tree knows from a later one stays. */
#ifndef ICM_CORE_APPLY_H
#define ICM_CORE_APPLY_H

#include "core/shared.h"

/* Applies one transaction of another mount and tells the kernel. False: the
 * record doesn't fit the tree, which must be listed anew. */
bool icm_apply_record(struct icm_volume *vol, const struct icm_feed_record *rec, uint64_t index);
/* The same of one change by this mount that isn't in the tree yet. Nobody who watches
 * with inotify is told. */
void icm_apply_own(struct icm_volume *vol, const struct icm_change *c, uint64_t index);

/* The parts that own commits use as well; volume->lock held. */

/* A name with these attributes (copied) exists since `index`. For a linked file
 * the attributes are the inode's. NULL when the name is unpublished here, or the
 * object is known to have gone to another name since. */
struct icm_name *icm_apply_upsert(struct icm_volume *vol, struct icm_inode *dir, const char *name,
				  const struct icm_attr *attr, uint64_t index,
				  struct icm_news *news);
/* Takes a name away: views stay as long as somebody has them. */
void icm_apply_remove(struct icm_volume *vol, struct icm_name *name, struct icm_news *news);
/* New attributes (copied) of an inode; contents changed if the hash did. */
void icm_apply_attr(struct icm_volume *vol, struct icm_inode *inode, const struct icm_attr *attr,
		    struct icm_file *by, struct icm_news *news);
/* Two names change places at `index`; frees both objects. */
void icm_apply_exchange(struct icm_volume *vol, struct icm_name *a, struct icm_name *b,
			uint64_t index, struct timespec time, struct icm_news *news);
/* A change of names in a directory, unless a later one is known. */
void icm_apply_dir_time(struct icm_inode *dir, struct timespec time, uint64_t index,
			struct icm_news *news);
/* The times of a directory in *attr, which was read or made at `index`, are
 * replaced by what the tree knows from later. */
void icm_apply_keep_times(struct icm_inode *inode, uint64_t index, struct icm_attr *attr);
/* Tells those who watch with inotify; volume->lock not held. */
void icm_apply_event(struct icm_volume *vol, const struct icm_change *c);
/* The inode number of a file that nobody has given one: 52 bits of sha256(path). */
uint64_t icm_ino_of_path(const char *path);
/* Attributes of a name whose record can't be read: it is listed, and gives EIO. */
void icm_attr_broken(struct icm_attr *attr, const char *path);
bool icm_attr_is_broken(const struct icm_attr *attr);

#endif
