/* SPDX-License-Identifier: MIT
 * Transactions of the file system. An operation describes its share as a
 * *part*: preconditions, effects and the change for the feed. icm_commit() puts
 * the guard around it (the mount's own lease, the format's epoch, the feed
 * record, the head), sends it together with parts that wait at the same moment,
 * settles an unknown outcome, and returns when the outcome is certain.
 * docs/consistency.md argues why this is enough. */
#ifndef ICM_CORE_COMMIT_H
#define ICM_CORE_COMMIT_H

#include "core/record.h"
#include "core/shared.h"

struct icm_part {
	struct icm_op *ops; /* keys and values owned */
	size_t n_ops, cap_ops;
	size_t cost;		    /* against the store's limit of bytes */
	struct icm_change *changes; /* owned */
	size_t n_changes, cap_changes;
	pid_t pid;	     /* thread for which it is done, for the record; 0 = none */
	uint64_t lock_epoch; /* volume's, while the mount has the file's locks; 0 = it hasn't */
	bool alone;	     /* not together with others */
	const struct icm_change_value
		*author; /* borrowed; whose it is, if not this mount's; alone */
	/* after icm_commit */
	uint64_t index;	     /* the transaction's */
	uint64_t read_index; /* quiet: modify index of what icm_part_read asked for; 0 = absent */
	size_t failed_op;    /* with -ESTALE: number of the operation in this part */
	enum icm_op_reason reason;
	/* inside commit.c */
	struct icm_part *next;
	int result;
	bool done;
};

#define ICM_PART_INIT                                                                              \
	{                                                                                          \
		0                                                                                  \
	}
void icm_part_clear(struct icm_part *p);
static inline void icm_partp(struct icm_part *p)
{
	icm_part_clear(p);
}
#define ICM_AUTOPART ICM_CLEANUP(icm_partp)

/* Keys and values are taken over. The number of the operation is returned. */
size_t icm_part_check_index(struct icm_part *p, char *key, uint64_t index);
size_t icm_part_check_absent(struct icm_part *p, char *key);
size_t icm_part_set(struct icm_part *p, char *key, void *value, size_t len, uint64_t flags);
size_t icm_part_cas(struct icm_part *p, char *key, uint64_t index, void *value, size_t len,
		    uint64_t flags);
/* Reads a key in the same transaction (as a tree: it may be absent). */
size_t icm_part_read(struct icm_part *p, char *key);
size_t icm_part_delete(struct icm_part *p, char *key);
size_t icm_part_delete_cas(struct icm_part *p, char *key, uint64_t index);
/* Takes back what was added behind the first n operations. */
void icm_part_cut(struct icm_part *p, size_t n);
/* attr is copied; NULL = none; to may be NULL. */
struct icm_change *icm_part_change(struct icm_part *p, enum icm_change_op op, const char *path,
				   const char *to, struct timespec time,
				   const struct icm_attr *attr);
/* `ci attr/<dir>`, `set tree/<dir>/`: names in dir change (R in the protocol).
 * Returns the number of the check. */
size_t icm_part_names_change(struct icm_part *p, const char *dir, uint64_t dir_attr_index,
			     struct timespec now);
/* The history copy of a version that is replaced or removed (H in the protocol):
 * plain contents, or the record of a large file. */
void icm_part_history(struct icm_volume *vol, struct icm_part *p, const char *path, uint64_t index,
		      const struct icm_attr *attr, const struct icm_content *plain,
		      const struct icm_record *record, struct timespec now);

struct icm_commits *icm_commits_new(struct icm_volume *vol);
struct icm_commits *icm_commits_free(struct icm_commits *c);
/* Whether a transaction has been sent and its outcome isn't known. */
bool icm_commits_under_way(struct icm_volume *vol);

/* Commits. 0: done at part->index. -ESTALE: precondition part->failed_op did
 * not hold, nothing was done. -EROFS, -EACCES, -ENOSPC, -EFBIG (over the
 * store's limits), -EIO also: the locks under which it was made are lost,
 * -ETIMEDOUT (the store stayed away; certainly not done, or
 * not known and reported so in the log), -EIO. Never called with volume->lock held. */
int icm_commit(struct icm_volume *vol, struct icm_part *part) ICM_MUST_CHECK;
/* Whether the part fits one transaction of this store. */
bool icm_part_fits(struct icm_volume *vol, const struct icm_part *part);
/* Fresh name of the program that a thread belongs to; "" if it isn't known. */
char *icm_program_of(pid_t pid);
/* Writes without feed record, under the lease's guard only (locks, upkeep). */
int icm_commit_quiet(struct icm_volume *vol, struct icm_part *part) ICM_MUST_CHECK;
/* Puts blobs that a later commit will refer to: `set` operations, in one
 * transaction that must fit the store. */
int icm_put_blobs(struct icm_volume *vol, const struct icm_op *ops, size_t n) ICM_MUST_CHECK;
/* The same for one. */
int icm_put_blob(struct icm_volume *vol, const struct icm_sha256 *sum, const void *bytes,
		 size_t len) ICM_MUST_CHECK;

#endif
