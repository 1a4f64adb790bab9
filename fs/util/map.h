/* SPDX-License-Identifier: MIT
 * An intrusive hash table of objects that embed `struct icm_map_node`: the
 * table owns nothing and allocates only its bucket array. Keys live in the
 * objects; a lookup walks the nodes of one hash. Not locked. */
#ifndef ICM_UTIL_MAP_H
#define ICM_UTIL_MAP_H

#include <stddef.h>
#include <stdint.h>

struct icm_map_node {
	struct icm_map_node *next;
	uint64_t hash;
};

struct icm_map {
	struct icm_map_node **buckets; /* owned */
	size_t n_buckets;	       /* power of two, or 0 */
	size_t count;
};

/* Adds a node; duplicates are the caller's affair. */
void icm_map_add(struct icm_map *m, struct icm_map_node *node, uint64_t hash);
/* Removes a node that is in the table. */
void icm_map_remove(struct icm_map *m, struct icm_map_node *node);
/* First node with this hash, or NULL; icm_map_next goes on with the same hash. */
struct icm_map_node *icm_map_first(const struct icm_map *m, uint64_t hash);
struct icm_map_node *icm_map_next(const struct icm_map_node *node);
/* Frees the buckets; the objects stay. */
void icm_map_free(struct icm_map *m);

/* Hashes of bytes and of numbers, well mixed. */
uint64_t icm_hash_bytes(const void *data, size_t len, uint64_t seed);
static inline uint64_t icm_hash_u64(uint64_t n)
{
	n ^= n >> 33;
	n *= UINT64_C(0xff51afd7ed558ccd);
	n ^= n >> 33;
	n *= UINT64_C(0xc4ceb9fe1a85ec53);
	return n ^ n >> 33;
}

/* All nodes in no order; the body must not add or remove. */
#define icm_map_for_each(m, i, node)                                                               \
	for (size_t i = 0; i < (m)->n_buckets; i++)                                                \
		for (struct icm_map_node *node = (m)->buckets[i]; node; node = node->next)

#endif
