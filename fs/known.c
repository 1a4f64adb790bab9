/* SPDX-License-Identifier: MIT */
#include "known.h"

#include <pthread.h>
#include <string.h>

#include "util/buf.h"
#include "util/map.h"

struct known_name {
	struct icm_map_node in_names;
	struct known_node *node;
	struct known_name *next; /* of the same node */
	uint64_t parent;
	char text[];
};

struct known_node {
	struct icm_map_node in_nodes;
	uint64_t id;
	uint64_t count;
	struct known_name *names; /* owned */
};

struct icm_known {
	pthread_mutex_t lock; /* protects all of it; held for some 100 ns */
	struct icm_map nodes; /* by id */
	struct icm_map names; /* by parent and name */
};

struct icm_known *icm_known_new(void)
{
	struct icm_known *k = icm_xcalloc(1, sizeof(*k));

	pthread_mutex_init(&k->lock, NULL);
	return k;
}

static struct known_node *find_node_locked(struct icm_known *k, uint64_t id)
{
	struct icm_map_node *n = icm_map_first(&k->nodes, icm_hash_u64(id));

	for (; n; n = icm_map_next(n)) {
		struct known_node *node = ICM_CONTAINER(n, struct known_node, in_nodes);

		if (node->id == id)
			return node;
	}
	return NULL;
}

static uint64_t hash_name(uint64_t parent, const char *name)
{
	return icm_hash_bytes(name, strlen(name), parent);
}

static struct known_name *find_name_locked(struct icm_known *k, uint64_t parent, const char *name)
{
	struct icm_map_node *n = icm_map_first(&k->names, hash_name(parent, name));

	for (; n; n = icm_map_next(n)) {
		struct known_name *found = ICM_CONTAINER(n, struct known_name, in_names);

		if (found->parent == parent && !strcmp(found->text, name))
			return found;
	}
	return NULL;
}

static void drop_name_locked(struct icm_known *k, struct known_name *name)
{
	struct known_name **p = &name->node->names;

	while (*p != name)
		p = &(*p)->next;
	*p = name->next;
	icm_map_remove(&k->names, &name->in_names);
	free(name);
}

static void set_name_locked(struct icm_known *k, struct known_node *node, uint64_t parent,
			    const char *text)
{
	struct known_name *name = find_name_locked(k, parent, text);
	size_t len = strlen(text);

	if (name && name->node == node)
		return;
	if (name)
		drop_name_locked(k, name);
	name = icm_xmalloc(sizeof(*name) + len + 1);
	*name = (struct known_name){ .node = node, .next = node->names, .parent = parent };
	memcpy(name->text, text, len + 1);
	node->names = name;
	icm_map_add(&k->names, &name->in_names, hash_name(parent, text));
}

static void drop_node_locked(struct icm_known *k, struct known_node *node)
{
	while (node->names)
		drop_name_locked(k, node->names);
	icm_map_remove(&k->nodes, &node->in_nodes);
	free(node);
}

struct icm_known *icm_known_free(struct icm_known *k)
{
	if (!k)
		return NULL;
	for (size_t i = 0; i < k->nodes.n_buckets; i++) {
		while (k->nodes.buckets[i])
			drop_node_locked(
				k, ICM_CONTAINER(k->nodes.buckets[i], struct known_node, in_nodes));
	}
	icm_map_free(&k->nodes);
	icm_map_free(&k->names);
	pthread_mutex_destroy(&k->lock);
	free(k);
	return NULL;
}

void icm_known_add(struct icm_known *k, uint64_t id, uint64_t parent, const char *name)
{
	ICM_LOCK_SCOPE(&k->lock);
	struct known_node *node = find_node_locked(k, id);

	if (!node) {
		node = icm_xcalloc(1, sizeof(*node));
		node->id = id;
		icm_map_add(&k->nodes, &node->in_nodes, icm_hash_u64(id));
	}
	node->count++;
	if (name)
		set_name_locked(k, node, parent, name);
}

void icm_known_sub(struct icm_known *k, uint64_t id, uint64_t n)
{
	ICM_LOCK_SCOPE(&k->lock);
	struct known_node *node = find_node_locked(k, id);

	if (!node)
		return;
	node->count -= n < node->count ? n : node->count;
	if (node->count == 0)
		drop_node_locked(k, node);
}

void icm_known_unlink(struct icm_known *k, uint64_t parent, const char *text)
{
	ICM_LOCK_SCOPE(&k->lock);
	struct known_name *name = find_name_locked(k, parent, text);

	if (name)
		drop_name_locked(k, name);
}

void icm_known_rename(struct icm_known *k, uint64_t parent, const char *text, uint64_t to_parent,
		      const char *to_text)
{
	ICM_LOCK_SCOPE(&k->lock);
	struct known_name *name = find_name_locked(k, parent, text);
	struct known_name *over = find_name_locked(k, to_parent, to_text);
	struct known_node *node;

	if (name == over)
		return;
	if (over)
		drop_name_locked(k, over);
	if (!name)
		return;
	node = name->node;
	drop_name_locked(k, name);
	set_name_locked(k, node, to_parent, to_text);
}

bool icm_known_has(struct icm_known *k, uint64_t node)
{
	ICM_LOCK_SCOPE(&k->lock);

	return find_node_locked(k, node);
}

void icm_known_visit(struct icm_known *k, uint64_t node, void (*fn)(void *userdata, uint64_t node),
		     void *userdata)
{
	ICM_LOCK_SCOPE(&k->lock);

	if (find_node_locked(k, node))
		fn(userdata, node);
}

uint64_t icm_known_find(struct icm_known *k, uint64_t parent, const char *text,
			void (*pin)(void *userdata, uint64_t node), void *userdata)
{
	ICM_LOCK_SCOPE(&k->lock);
	struct known_name *name = find_name_locked(k, parent, text);

	if (!name)
		return 0;
	pin(userdata, name->node->id);
	return name->node->id;
}

void icm_known_walk(struct icm_known *k, void (*node_fn)(void *userdata, uint64_t node),
		    void (*name_fn)(void *userdata, uint64_t parent, const char *name),
		    void *userdata)
{
	ICM_LOCK_SCOPE(&k->lock);

	icm_map_for_each (&k->nodes, i, n) {
		struct known_node *node = ICM_CONTAINER(n, struct known_node, in_nodes);

		node_fn(userdata, node->id);
		for (struct known_name *name = node->names; name_fn && name; name = name->next)
			name_fn(userdata, name->parent, name->text);
	}
}
