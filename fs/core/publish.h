/* SPDX-License-Identifier: MIT
 * Between publish.c and conflict.c. */
#ifndef ICM_CORE_PUBLISH_H
#define ICM_CORE_PUBLISH_H

#include "core/commit.h"

/* Contents ready to be published, as they were at one moment. */
struct icm_publication {
	struct icm_content *content; /* plain; owned reference */
	struct icm_record record;    /* large; owned */
	void *value;		     /* owned; of the tree key */
	size_t len;
	uint64_t flags;
	uint64_t size, holes;
	struct icm_sha256 hash;
	struct timespec mtime, ctime, atime;
	bool atime_set;
	bool same;	  /* as what is published: attributes only */
	uint64_t changes; /* f->changes at that moment */
	pid_t pid;
};

void icm_publication_clear(struct icm_publication *p);
/* Takes the working copy of a file and puts its chunks. */
int icm_publication_make(struct icm_volume *vol, struct icm_file *f, struct icm_publication *p);
/* The record of bytes that another program has stored as they are although they are
 * too many for a plain file: puts its chunks. */
int icm_record_of_bytes(struct icm_volume *vol, const void *bytes, size_t len,
			struct icm_record *ret) ICM_MUST_CHECK;
/* Index of tree/<path>, asked of the store; -ESTALE when it is absent, or newer than
 * attr/<path> is known to be: then another program wrote it. */
int icm_tree_key_index(struct icm_volume *vol, const char *path, uint64_t attr_index,
		       uint64_t *ret_index);

/* What is to be put behind another file's contents: two mounts made a file of
 * one name, and ours had only appended to nothing. */
struct icm_append_to {
	struct icm_file *to;	  /* referenced */
	struct icm_content *tail; /* referenced */
	pid_t pid;
};

#define ICM_CONFLICT_RETRY 1 /* publish again: nothing of ours stands against it */
#define ICM_CONFLICT_GONE  2 /* the file was removed in this mount: nothing to publish */
/* A precondition failed: finds out what happened and does what section 4.4 of
 * docs/consistency.md says. One of the above; 0: settled in another way (see
 * *append); -ESTALE: a conflict copy has the bytes; another error. f->commit held. */
int icm_conflict_resolve(struct icm_volume *vol, struct icm_file *f, struct icm_publication *p,
			 struct icm_append_to *append);
int icm_conflict_append(struct icm_volume *vol, struct icm_append_to *append);

#endif
