/* SPDX-License-Identifier: MIT */
#ifndef ICM_CORE_ATTR_H
#define ICM_CORE_ATTR_H

#include "core/shared.h"

/* Changes the size of the working copy (file.c). */
int icm_file_truncate(struct icm_volume *vol, struct icm_file *f, uint64_t size);

/* A file that could not be published, and that nobody has open: its changes are
 * dropped, with a log line (file.c). */
void icm_file_give_up(struct icm_volume *vol, struct icm_file *f, int error);
/* Looks the first name up in the store again, and adopts what another program has
 * written there. Of volume->lock and feed_lock none held. */
int icm_file_look_again(struct icm_volume *vol, struct icm_inode *inode);
/* Whether the store has the version that this view shows; -ESTALE: another one is
 * at its name (open.c). */
int icm_file_revalidate(struct icm_volume *vol, struct icm_file *f, const struct icm_call *call);
/* The process of a thread; 0 when it is gone (open.c). */
pid_t icm_process_of(pid_t tid);
/* A view is about to be given to the kernel as the answer to a look-up by `tid`:
 * which view it is. *ret_left: the one passed in, if it is another, for
 * icm_file_leave. volume->lock held. */
struct icm_file *icm_file_looked_up(struct icm_volume *vol, struct icm_file *f, pid_t tid,
				    struct icm_file **ret_left);
/* Takes the reference (or NULL): its name stands for another view now. */
void icm_file_leave(struct icm_volume *vol, struct icm_file *left);
/* A thread is about to open it: its version stays. volume->lock held. */
bool icm_file_is_pinned(const struct icm_file *f);
/* The view stays at its version, and new openers get another one (file-view.c);
 * volume->lock held. */
void icm_file_freeze(struct icm_volume *vol, struct icm_file *f);
/* Attributes as they are known. */
void icm_view_stat(struct icm_view *view, struct stat *ret_st);
/* Another mount took a name away from the file: its other names get another view,
 * and who opens this one is sent to look the name up again, since he may have come
 * by the old name. volume->lock held. */
void icm_file_set_aside(struct icm_inode *inode);
/* Adds the news that was held back while an open was about to come, if it may be told
 * now; volume->lock held. */
void icm_file_pay_attr(struct icm_volume *vol, struct icm_file *f, struct icm_news *news);
/* The kernel has pages or a size of the view that are wrong, and which it didn't
 * get from a new version: it is told, and openers wait for that. No lock held. */
void icm_file_doubt(struct icm_volume *vol, struct icm_file *f);
/* Opens what a look-up found, in the answer that tells the kernel of it. *view may
 * become another one. -ESTALE: look up again; not for what this call has `made`. */
int icm_file_open_found(struct icm_view **view, const struct icm_call *call, int flags, bool made,
			struct stat *ret_st, struct icm_open_result *ret);
/* A value, or the names (as icm_fs_getxattr and icm_fs_listxattr), of what is stored. */
ssize_t icm_attr_give_xattr(const struct icm_attr *a, const char *name, void *buf, size_t size);
ssize_t icm_attr_give_xattrs(const struct icm_attr *a, char *buf, size_t size);

#endif
