/* SPDX-License-Identifier: MIT
 * The change feed: brings the tree copy up to the store and tells the kernel
 * what to forget. */
#ifndef ICM_CORE_FEED_H
#define ICM_CORE_FEED_H

#include "core/shared.h"

/* Makes an empty deployment where there is none and `create`; checks the format. */
int icm_feed_open_deployment(struct icm_volume *vol, bool create, char **ret_error) ICM_MUST_CHECK;
/* Reads the whole tree. At start, and when the feed doesn't reach back far enough. */
int icm_feed_list(struct icm_volume *vol) ICM_MUST_CHECK;
/* Notes that all records which are in the feed now are taken care of: a listing
 * follows. feed_lock held. */
int icm_feed_see(struct icm_volume *vol) ICM_MUST_CHECK;
/* Applies all records up to the store's present state. */
int icm_feed_catch_up(struct icm_volume *vol) ICM_MUST_CHECK;
/* The same up to an index at least: nothing, where somebody else has just done it. */
int icm_feed_catch_up_to(struct icm_volume *vol, uint64_t index) ICM_MUST_CHECK;
/* The thread that watches; started last, ended first. */
int icm_feed_start(struct icm_volume *vol) ICM_MUST_CHECK;
void icm_feed_stop(struct icm_volume *vol);

/* The index up to which records have left the feed, and the modify index of that
 * key. Errors: as of the store, -EPROTO when it isn't there. */
int icm_feed_floor(struct icm_volume *vol, uint64_t *ret_floor, uint64_t *ret_index) ICM_MUST_CHECK;
/* A transaction of icmfs with this id of its feed record ("": it has none) has this
 * index. */
void icm_feed_note(struct icm_volume *vol, const char *id, uint64_t index);
/* The same for one of this mount; `before`: index that `head` had, 0 = not known. */
void icm_feed_note_own(struct icm_volume *vol, const char *id, uint64_t index, uint64_t before);
/* Whether the tree has all of the feed up to `index`. Waits a moment for transactions
 * of this mount that are under way: a watch may hear of them before their senders. */
bool icm_feed_becomes_known(struct icm_volume *vol, uint64_t index);
/* Whether such a transaction has this index, as far as the last ones are remembered. */
bool icm_feed_knows(struct icm_volume *vol, uint64_t index);
/* The store's indexes have gone back (it was restored from a copy): nothing that
 * the tree knows is newer than a listing any more. The next catch-up lists. */
void icm_feed_restart(struct icm_volume *vol);
/* Before a failing store is asked again. */
void icm_feed_pause(void);
/* A name's removal at an index; volume->lock held. */
void icm_grave_dig(struct icm_volume *vol, const char *path, uint64_t index);
/* Whether `path` was removed after `index`; volume->lock held. */
bool icm_grave_has(struct icm_volume *vol, const char *path, uint64_t index);
/* The own commit `index` is in the tree; volume->lock held. */
void icm_feed_own_commit(struct icm_volume *vol, uint64_t index);
/* Whether the last change of this inode is one that this mount made a moment ago, when
 * it knew of all others; volume->lock held. */
bool icm_feed_just_made(const struct icm_volume *vol, const struct icm_inode *inode);
/* One name as read from the store (attr NULL: absent there): updates the tree;
 * volume->lock held. Returns false when the tree must be listed anew. */
bool icm_feed_apply_name(struct icm_volume *vol, struct icm_inode *dir, const char *name,
			 const struct icm_attr *attr, uint64_t attr_index, uint64_t tree_index,
			 struct icm_news *news);

#endif
