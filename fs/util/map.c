/* SPDX-License-Identifier: MIT */
#include "util/map.h"

#include "util/buf.h"

static void grow(struct icm_map *m)
{
	size_t n = m->n_buckets ? m->n_buckets * 2 : 16;
	struct icm_map_node **buckets = icm_xcalloc(n, sizeof(*buckets));

	for (size_t i = 0; i < m->n_buckets; i++) {
		struct icm_map_node *node = m->buckets[i];

		while (node) {
			struct icm_map_node *next = node->next;

			node->next = buckets[node->hash & (n - 1)];
			buckets[node->hash & (n - 1)] = node;
			node = next;
		}
	}
	free(m->buckets);
	m->buckets = buckets;
	m->n_buckets = n;
}

void icm_map_add(struct icm_map *m, struct icm_map_node *node, uint64_t hash)
{
	if (m->count >= m->n_buckets)
		grow(m);
	node->hash = hash;
	node->next = m->buckets[hash & (m->n_buckets - 1)];
	m->buckets[hash & (m->n_buckets - 1)] = node;
	m->count++;
}

void icm_map_remove(struct icm_map *m, struct icm_map_node *node)
{
	struct icm_map_node **at = &m->buckets[node->hash & (m->n_buckets - 1)];

	while (*at != node)
		at = &(*at)->next;
	*at = node->next;
	m->count--;
}

static struct icm_map_node *same_hash(struct icm_map_node *node, uint64_t hash)
{
	while (node && node->hash != hash)
		node = node->next;
	return node;
}

struct icm_map_node *icm_map_first(const struct icm_map *m, uint64_t hash)
{
	if (!m->n_buckets)
		return NULL;
	return same_hash(m->buckets[hash & (m->n_buckets - 1)], hash);
}

struct icm_map_node *icm_map_next(const struct icm_map_node *node)
{
	return same_hash(node->next, node->hash);
}

void icm_map_free(struct icm_map *m)
{
	free(m->buckets);
	*m = (struct icm_map){ 0 };
}

uint64_t icm_hash_bytes(const void *data, size_t len, uint64_t seed)
{
	const unsigned char *p = data;
	uint64_t h = UINT64_C(0xcbf29ce484222325) ^ seed; /* FNV-1a */

	for (size_t i = 0; i < len; i++)
		h = (h ^ p[i]) * UINT64_C(0x100000001b3);
	return icm_hash_u64(h);
}
