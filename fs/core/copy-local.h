/* SPDX-License-Identifier: MIT
 * Inside the local copy: what copy.c and copy-keep.c share, and the state of a tree
 * as copy-state.c takes it. */
#ifndef ICM_CORE_COPY_LOCAL_H
#define ICM_CORE_COPY_LOCAL_H

#include <pthread.h>
#include <stdatomic.h>

#include "core/copy.h"
#include "core/shared.h"

struct icm_copy {
	char *file;   /* owned; the database */
	char *store;  /* owned; canonical URL */
	uint64_t max; /* bytes of contents */
	int lock_fd;  /* its lock says that this process has the copy */

	struct icm_backend *be; /* owned; of the keeping thread */
	bool threaded;
	pthread_t thread;
	pthread_mutex_t lock; /* what follows; nothing is called under it */
	pthread_cond_t cond;
	bool wanted, stop;
	uint64_t taken; /* index of the state that is being written, or 0 */
	bool torn;	/* it lacks a change that it should have */
	int64_t end_ns; /* once `stop` is set: until when the last round may take */
};

/* One name. */
struct icm_copy_name {
	char *path;	      /* owned */
	struct icm_attr attr; /* owned */
};

/* All names and attributes at one position of the feed. */
struct icm_copy_state {
	struct icm_copy_name *v; /* owned; in the tree's order */
	size_t n, cap;
	uint64_t index;
	struct timespec time;
};
void icm_copy_state_clear(struct icm_copy_state *s);
/* Takes the state; -EAGAIN: the tree has something newer than its position, so it is
 * no state of the store at this moment. volume->lock not held. */
int icm_copy_state_take(struct icm_volume *vol, struct icm_copy_state *ret) ICM_MUST_CHECK;

/* ---- copy-fetch.c ---- */

/* Keys of contents. */
struct icm_copy_keys {
	char **v; /* owned; sorted, each once */
	size_t n, cap;
};
void icm_copy_keys_clear(struct icm_copy_keys *k);
bool icm_copy_keys_have(const struct icm_copy_keys *k, const char *key);

/* Key in the copy of the record of a large file or of a symbolic link; NULL: it has
 * none. Fresh. */
char *icm_copy_record_key(const struct icm_attr *a);

/* How contents are fetched, and what came of it. */
struct icm_copy_fetch {
	bool tolerant;		     /* a version that is gone is left out, and no failure */
	struct icm_copy_keys needed; /* of all that the copy has of the state then */
	uint64_t left_out;	     /* files whose contents don't fit, or are damaged */
};
/* Puts those of a state's contents that the copy doesn't have into it, the smallest
 * files first, as far as they fit. Errors: -ESTALE there is a newer version of a file
 * by now; -ECANCELED the keeping ends; else as of the store or the copy. */
int icm_copy_fetch(struct icm_volume *vol, const struct icm_copy_state *s,
		   struct icm_copy_fetch *f) ICM_MUST_CHECK;
/* One value of the copy; -ENOENT. */
int icm_copy_get(struct icm_volume *vol, const char *key, struct icm_entry *ret) ICM_MUST_CHECK;

/* ---- copy-write.c ---- */

/* Makes the copy this state, whose contents were fetched. -EAGAIN: a change of
 * before was placed in the tree only afterwards. */
int icm_copy_write(struct icm_volume *vol, const struct icm_copy_state *s,
		   const struct icm_copy_fetch *f) ICM_MUST_CHECK;
/* Empties the copy. */
int icm_copy_erase(struct icm_volume *vol) ICM_MUST_CHECK;

#endif
