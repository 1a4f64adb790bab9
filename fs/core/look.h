/* SPDX-License-Identifier: MIT
 * What an open asks the store: whether a file is still what the tree says. */
#ifndef ICM_CORE_LOOK_H
#define ICM_CORE_LOOK_H

#include "core/shared.h"

enum icm_look {
	ICM_LOOK_SAME,	/* both keys are as the tree says */
	ICM_LOOK_TAKEN, /* another mount's version is in the tree now */
	ICM_LOOK_ELSE,	/* something else: the caller has to find out */
};

/* For a file that has one name: compares attr/<path> (`attr_key`, which the tree knows
 * as of `attr_index`) and tree/<path> with the store, in one request. A small file's
 * contents come with it, in the same view, so that another version needs no further
 * request: they are at hand for icm_look_contents(). Fails as the store does. */
int icm_look_at_both(struct icm_volume *vol, struct icm_file *f, const char *attr_key,
		     uint64_t attr_index, enum icm_look *ret) ICM_MUST_CHECK;
/* Whether another program has written or deleted the contents: its tree/ key is
 * not as old as attr/<path>, whose index this is. */
int icm_look_at_contents(struct icm_volume *vol, struct icm_inode *inode, uint64_t attr_index,
			 bool *ret_foreign) ICM_MUST_CHECK;
/* Plain contents that a look has brought, with a reference, and the index of their
 * key (0: not known); NULL: none that are this file's with this hash. They are given
 * once. */
struct icm_content *icm_look_contents(struct icm_volume *vol, const struct icm_file *f,
				      const struct icm_sha256 *hash, size_t size,
				      uint64_t *ret_index);
/* Frees what nobody has taken; volume->lock held, or at the volume's end. */
void icm_look_forget(struct icm_volume *vol);

#endif
