/* SPDX-License-Identifier: MIT
 * The data of an in-memory store: a skip list of keys in byte order, the store
 * index and the leases. Knows no threads: every function needs the owner's
 * lock. Drawn to be simple, because the other drivers are measured against it. */
#ifndef ICM_BACKENDS_MEMORY_STORE_H
#define ICM_BACKENDS_MEMORY_STORE_H

#include <stdint.h>

#include "backends/backend.h"

#define STORE_MAX_HEIGHT 20

struct store_node {
	char *key;   /* owned */
	void *value; /* owned, never NULL */
	size_t len;
	uint64_t flags;
	uint64_t create_index;
	uint64_t modify_index;
	unsigned height;
	struct store_node *next[]; /* `height` of them */
};

struct store_lease {
	char *key; /* owned */
	uint32_t ttl_ms;
	int64_t expires_ns; /* CLOCK_BOOTTIME; 0 = never */
	struct store_lease *next;
};

/* Keys up to their first slash: "tree/". */
struct store_subject {
	char *name;	/* owned */
	uint64_t index; /* of the last change or deletion below */
};

struct store {
	struct store_node *head[STORE_MAX_HEIGHT];
	struct store_lease *leases;	/* owned */
	struct store_subject *subjects; /* owned */
	size_t n_subjects;
	uint64_t index;	 /* of the last change; 1 in an empty store */
	uint64_t random; /* for heights */
};

void store_init(struct store *s);
void store_deinit(struct store *s);
/* A store of its own with the same keys, indexes and leases. */
void store_copy(struct store *ret, struct store *from);

/* The key's node or NULL. */
struct store_node *store_find(struct store *s, const char *key);
/* Appends every key that starts with `prefix`; `op` as in struct icm_entry. */
void store_list(struct store *s, const char *prefix, bool keys_only, size_t op,
		struct icm_entries *ret);
/* Index of the last change of a key that starts like `prefix` up to its slash;
 * without a slash, of any key. */
uint64_t store_prefix_index(const struct store *s, const char *prefix);
/* Fills a zeroed entry. */
void store_entry(const struct store_node *n, bool keys_only, size_t op, struct icm_entry *ret);

/* The transaction: 0 or -ESTALE with the first error. */
int store_apply(struct store *s, const struct icm_op *ops, size_t n_ops,
		struct icm_txn_result *result);

/* Makes the lease and its key (whose name the caller chose). */
uint64_t store_lease_open(struct store *s, const char *key, uint32_t ttl_ms, bool renewal,
			  const void *value, size_t len);
/* -ENOENT when it is over. */
int store_lease_renew(struct store *s, const char *key);
/* Ends it, its key vanishes; -ENOENT when it is over. */
int store_lease_end(struct store *s, const char *key);
/* Ends those that were not renewed in time; true when any was. */
bool store_lease_expire(struct store *s);
/* When the next one would expire (CLOCK_BOOTTIME); 0 = none. */
int64_t store_lease_next_expiry(const struct store *s);

#endif
