/* SPDX-License-Identifier: MIT
 * What the kernel knows of this mount: node ids with their look-up counts, and
 * the names under which they were given out. Needed where everything must be
 * looked at anew, and to tell which remote changes anybody here can watch. */
#ifndef ICM_KNOWN_H
#define ICM_KNOWN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct icm_known;

struct icm_known *icm_known_new(void);
/* Takes NULL; returns NULL. */
struct icm_known *icm_known_free(struct icm_known *k);

/* One look-up of `node` is about to be given out, as `name` in `parent`; with NULL
 * under no name that counts. */
void icm_known_add(struct icm_known *k, uint64_t node, uint64_t parent, const char *name);
/* n look-ups were forgotten. Before the view's own references are dropped. */
void icm_known_sub(struct icm_known *k, uint64_t node, uint64_t n);
/* The name is gone, or has become another one. */
void icm_known_unlink(struct icm_known *k, uint64_t parent, const char *name);
void icm_known_rename(struct icm_known *k, uint64_t parent, const char *name, uint64_t to_parent,
		      const char *to_name);

bool icm_known_has(struct icm_known *k, uint64_t node);
/* Calls back for the node, while the kernel's references can't go; not if the kernel
 * doesn't know it. */
void icm_known_visit(struct icm_known *k, uint64_t node, void (*fn)(void *userdata, uint64_t node),
		     void *userdata);
/* The node under a name, or 0. `pin` is called for it, while the kernel's
 * references can't go, to take one more. */
uint64_t icm_known_find(struct icm_known *k, uint64_t parent, const char *name,
			void (*pin)(void *userdata, uint64_t node), void *userdata);

/* Calls back for each node, and for each name of it; no call of the table from inside. */
void icm_known_walk(struct icm_known *k, void (*node_fn)(void *userdata, uint64_t node),
		    void (*name_fn)(void *userdata, uint64_t parent, const char *name),
		    void *userdata);

#endif
