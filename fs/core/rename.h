/* SPDX-License-Identifier: MIT
 * Between rename.c and rename-scratch.c. */
#ifndef ICM_CORE_RENAME_H
#define ICM_CORE_RENAME_H

#include "core/names.h"

/* A rename of shared names under way. */
struct icm_rename {
	const struct icm_call *call;
	struct icm_inode *from_dir, *to_dir; /* held by their views */
	const char *from, *to;
	unsigned flags;
	struct icm_place a, b; /* of one attempt */
};

/* A rename across the border of the scratch names; directories by path. */
struct icm_scratch_rename {
	struct icm_volume *vol;
	const struct icm_call *call;
	const char *from_dir, *from, *to_dir, *to;
	struct icm_view *from_view, *to_view;
	unsigned flags;
};

/* A local file becomes a shared one: one transaction publishes it at the new
 * name, then the local file goes. -EXDEV for anything but a regular file. */
int icm_rename_from_scratch(struct icm_scratch_rename *sr);
/* A shared file becomes a local one, and its shared name goes. -EXDEV as above. */
int icm_rename_to_scratch(struct icm_scratch_rename *sr);
/* The name of a file that only this mount has goes, without a word to the store. */
void icm_drop_unpublished(struct icm_volume *vol, struct icm_inode *dir, const char *text,
			  struct icm_inode *inode);
/* In scratch: 1 directory, 0 something else, -ENOENT. */
int icm_scratch_is_dir(struct icm_scratch *s, const char *dir, const char *name);

#endif
