/* SPDX-License-Identifier: MIT */
#include "backends/memory/store.h"

#include <string.h>

#include "util/clock.h"

/* What one operation did to one key, so that it can be undone. */
struct undo {
	enum { UNDO_CREATED, UNDO_CHANGED, UNDO_DELETED } what;
	struct store_node *node; /* owned when deleted */
	void *value;		 /* owned; the old one of a changed node */
	size_t len;
	uint64_t flags;
	uint64_t modify_index;
};

struct apply {
	struct store *store;
	struct icm_txn_result *result;
	uint64_t index;	   /* that this transaction's writes get */
	struct undo *undo; /* owned */
	size_t n_undo;
};

/* ---- skip list ---- */

void store_init(struct store *s)
{
	*s = (struct store){ .index = 1, .random = UINT64_C(0x9e3779b97f4a7c15) };
}

static void node_free(struct store_node *n)
{
	free(n->key);
	free(n->value);
	free(n);
}

static void lease_free(struct store_lease *l)
{
	free(l->key);
	free(l);
}

void store_deinit(struct store *s)
{
	struct store_lease *l;
	struct store_node *n;

	while ((n = s->head[0])) {
		s->head[0] = n->next[0];
		node_free(n);
	}
	while ((l = s->leases)) {
		s->leases = l->next;
		lease_free(l);
	}
	for (size_t i = 0; i < s->n_subjects; i++)
		free(s->subjects[i].name);
	free(s->subjects);
}

/* The first node that is not before `key`; path[i] is the link at level i that
 * leads over it. */
static struct store_node *seek(struct store *s, const char *key, struct store_node ***path)
{
	struct store_node **links = s->head;

	for (unsigned i = STORE_MAX_HEIGHT; i-- > 0;) {
		while (links[i] && strcmp(links[i]->key, key) < 0)
			links = links[i]->next;
		if (path)
			path[i] = &links[i];
	}
	return links[0];
}

struct store_node *store_find(struct store *s, const char *key)
{
	struct store_node *n = seek(s, key, NULL);

	return n && !strcmp(n->key, key) ? n : NULL;
}

static struct store_node *node_new(struct store *s, const char *key)
{
	struct store_node *n;
	unsigned height = 1;

	s->random ^= s->random << 13;
	s->random ^= s->random >> 7;
	s->random ^= s->random << 17;
	while (height < STORE_MAX_HEIGHT && (s->random >> height & 1))
		height++;
	n = icm_xcalloc(1, sizeof(*n) + height * sizeof(n->next[0]));
	n->height = height;
	n->key = icm_xstrdup(key);
	return n;
}

static void link_node(struct store *s, struct store_node *n)
{
	struct store_node **path[STORE_MAX_HEIGHT];

	seek(s, n->key, path);
	for (unsigned i = 0; i < n->height; i++) {
		n->next[i] = *path[i];
		*path[i] = n;
	}
}

static void unlink_node(struct store *s, struct store_node *n)
{
	struct store_node **path[STORE_MAX_HEIGHT];

	seek(s, n->key, path);
	for (unsigned i = 0; i < n->height; i++)
		*path[i] = n->next[i];
}

/* ---- indexes of subjects ---- */

static struct store_subject *find_subject(const struct store *s, const char *key)
{
	size_t len = strcspn(key, "/");

	for (size_t i = 0; i < s->n_subjects; i++)
		if (strlen(s->subjects[i].name) == len && !strncmp(s->subjects[i].name, key, len))
			return &s->subjects[i];
	return NULL;
}

static void touch_subject(struct store *s, const char *key, uint64_t index)
{
	struct store_subject *subject = find_subject(s, key);

	if (!subject) {
		s->subjects = icm_xrealloc(s->subjects, (s->n_subjects + 1) * sizeof(*s->subjects));
		subject = &s->subjects[s->n_subjects++];
		subject->name = icm_xstrndup(key, strcspn(key, "/"));
	}
	subject->index = index;
}

uint64_t store_prefix_index(const struct store *s, const char *prefix)
{
	const struct store_subject *subject;

	if (!strchr(prefix, '/'))
		return s->index;
	subject = find_subject(s, prefix);
	return subject ? subject->index : 1; /* as in an empty store */
}

/* ---- copies ---- */

static void copy_node(struct store *to, const struct store_node *from)
{
	struct store_node *n = node_new(to, from->key);

	n->value = icm_xmemdup(from->value, from->len);
	n->len = from->len;
	n->flags = from->flags;
	n->create_index = from->create_index;
	n->modify_index = from->modify_index;
	link_node(to, n);
}

void store_copy(struct store *ret, struct store *from)
{
	store_init(ret);
	for (const struct store_node *n = from->head[0]; n; n = n->next[0])
		copy_node(ret, n);
	for (size_t i = 0; i < from->n_subjects; i++)
		touch_subject(ret, from->subjects[i].name, from->subjects[i].index);
	for (const struct store_lease *l = from->leases; l; l = l->next) {
		struct store_lease *copy = icm_xmemdup(l, sizeof(*l));

		copy->key = icm_xstrdup(l->key);
		copy->next = ret->leases;
		ret->leases = copy;
	}
	ret->index = from->index;
}

/* ---- reading ---- */

void store_entry(const struct store_node *n, bool keys_only, size_t op, struct icm_entry *ret)
{
	ret->key = icm_xstrdup(n->key);
	if (!keys_only)
		ret->value = icm_xmemdup(n->value, n->len);
	ret->len = keys_only ? 0 : n->len;
	ret->flags = n->flags;
	ret->create_index = n->create_index;
	ret->modify_index = n->modify_index;
	ret->op = op;
}

void store_list(struct store *s, const char *prefix, bool keys_only, size_t op,
		struct icm_entries *ret)
{
	size_t n = strlen(prefix);

	for (struct store_node *node = seek(s, prefix, NULL);
	     node && !strncmp(node->key, prefix, n); node = node->next[0])
		store_entry(node, keys_only, op, icm_entries_add(ret));
}

/* ---- leases ---- */

static void lease_drop(struct store *s, const char *key)
{
	for (struct store_lease **p = &s->leases; *p; p = &(*p)->next) {
		struct store_lease *l = *p;

		if (strcmp(l->key, key))
			continue;
		*p = l->next;
		lease_free(l);
		return;
	}
}

/* Consul ends a session between one and two TTL after its last renewal. */
static int64_t expiry(uint32_t ttl_ms)
{
	return icm_boottime_ns() + 2 * ttl_ms * ICM_NS_PER_MS;
}

uint64_t store_lease_open(struct store *s, const char *key, uint32_t ttl_ms, bool renewal,
			  const void *value, size_t len)
{
	struct icm_op op = { .type = ICM_OP_SET, .key = key, .value = value, .len = len };
	ICM_AUTORESULT struct icm_txn_result result = { 0 };
	struct store_lease *l = icm_xcalloc(1, sizeof(*l));

	l->key = icm_xstrdup(key);
	l->ttl_ms = ttl_ms;
	l->expires_ns = renewal ? expiry(ttl_ms) : 0;
	l->next = s->leases;
	s->leases = l;
	store_apply(s, &op, 1, &result);
	return result.index;
}

int store_lease_renew(struct store *s, const char *key)
{
	for (struct store_lease *l = s->leases; l; l = l->next) {
		if (strcmp(l->key, key))
			continue;
		if (l->expires_ns)
			l->expires_ns = expiry(l->ttl_ms);
		return 0;
	}
	return -ENOENT;
}

int store_lease_end(struct store *s, const char *key)
{
	struct icm_op op = { .type = ICM_OP_DELETE, .key = key };
	ICM_AUTORESULT struct icm_txn_result result = { 0 };

	for (struct store_lease *l = s->leases; l; l = l->next)
		if (!strcmp(l->key, key))
			return store_apply(s, &op, 1, &result);
	return -ENOENT;
}

bool store_lease_expire(struct store *s)
{
	int64_t now = icm_boottime_ns();
	bool any = false;

	for (struct store_lease *l = s->leases, *next; l; l = next) {
		next = l->next;
		if (l->expires_ns && l->expires_ns <= now)
			any |= store_lease_end(s, l->key) == 0;
	}
	return any;
}

int64_t store_lease_next_expiry(const struct store *s)
{
	int64_t first = 0;

	for (const struct store_lease *l = s->leases; l; l = l->next)
		if (l->expires_ns && (!first || l->expires_ns < first))
			first = l->expires_ns;
	return first;
}

/* ---- transaction ---- */

static struct undo *remember(struct apply *a, struct store_node *node)
{
	/* grown at the powers of two */
	if (!(a->n_undo & (a->n_undo - 1)))
		a->undo = icm_xrealloc(a->undo, (a->n_undo ? 2 * a->n_undo : 1) * sizeof(*a->undo));
	a->undo[a->n_undo] = (struct undo){ .node = node };
	return &a->undo[a->n_undo++];
}

static void set_value(struct store_node *n, const struct icm_op *op, uint64_t index)
{
	n->value = icm_xmemdup(op->value, op->len);
	n->len = op->len;
	n->flags = op->flags;
	n->modify_index = index;
}

static void apply_set(struct apply *a, const struct icm_op *op, struct store_node *n)
{
	struct undo *u;

	if (!n) {
		n = node_new(a->store, op->key);
		n->create_index = a->index;
		set_value(n, op, a->index);
		link_node(a->store, n);
		remember(a, n)->what = UNDO_CREATED;
		return;
	}
	/* As Consul does: what changes nothing keeps the index. */
	if (n->flags == op->flags && n->len == op->len &&
	    (!op->len || !memcmp(n->value, op->value, op->len)))
		return;
	u = remember(a, n);
	u->what = UNDO_CHANGED;
	u->value = n->value;
	u->len = n->len;
	u->flags = n->flags;
	u->modify_index = n->modify_index;
	set_value(n, op, a->index);
}

static void apply_delete(struct apply *a, struct store_node *n)
{
	if (!n)
		return;
	unlink_node(a->store, n);
	remember(a, n)->what = UNDO_DELETED;
}

/* Why an operation refuses, or 0. */
static enum icm_op_reason judge(const struct icm_op *op, const struct store_node *n)
{
	switch (op->type) {
	case ICM_OP_GET:
		return n ? 0 : ICM_REASON_ABSENT;
	case ICM_OP_CHECK_ABSENT:
		return n ? ICM_REASON_EXISTS : 0;
	case ICM_OP_CAS:
		if (op->index == 0)
			return n ? ICM_REASON_EXISTS : 0;
		ICM_FALLTHROUGH;
	case ICM_OP_CHECK_INDEX:
		if (!n)
			return ICM_REASON_ABSENT;
		return n->modify_index == op->index ? 0 : ICM_REASON_INDEX;
	case ICM_OP_DELETE_CAS:
		return !n || n->modify_index == op->index ? 0 : ICM_REASON_INDEX;
	case ICM_OP_GET_TREE:
	case ICM_OP_SET:
	case ICM_OP_DELETE:
		break;
	}
	return 0;
}

static bool apply_one(struct apply *a, const struct icm_op *op, size_t number)
{
	struct store_node *n = store_find(a->store, op->key);
	enum icm_op_reason reason = judge(op, n);

	if (reason) {
		icm_txn_result_error(a->result, number, reason);
		return false;
	}
	if (op->type == ICM_OP_GET)
		store_entry(n, false, number, icm_entries_add(&a->result->entries));
	else if (op->type == ICM_OP_GET_TREE)
		store_list(a->store, op->key, false, number, &a->result->entries);
	else if (op->type == ICM_OP_SET || op->type == ICM_OP_CAS)
		apply_set(a, op, n);
	else if (op->type == ICM_OP_DELETE || op->type == ICM_OP_DELETE_CAS)
		apply_delete(a, n);
	return true;
}

static void roll_back(struct apply *a)
{
	while (a->n_undo > 0) {
		struct undo *u = &a->undo[--a->n_undo];

		if (u->what == UNDO_CREATED) {
			unlink_node(a->store, u->node);
			node_free(u->node);
		} else if (u->what == UNDO_DELETED) {
			link_node(a->store, u->node);
		} else {
			free(u->node->value);
			u->node->value = u->value;
			u->node->len = u->len;
			u->node->flags = u->flags;
			u->node->modify_index = u->modify_index;
		}
	}
}

static void commit(struct apply *a)
{
	if (!a->n_undo)
		return;
	a->result->index = a->store->index = a->index;
	for (size_t i = 0; i < a->n_undo; i++) {
		struct undo *u = &a->undo[i];

		touch_subject(a->store, u->node->key, a->index);
		if (u->what == UNDO_CHANGED) {
			free(u->value);
		} else if (u->what == UNDO_DELETED) {
			/* a lease is over when its key is gone */
			if (!strncmp(u->node->key, "lease/", 6))
				lease_drop(a->store, u->node->key);
			node_free(u->node);
		}
	}
}

int store_apply(struct store *s, const struct icm_op *ops, size_t n_ops,
		struct icm_txn_result *result)
{
	struct apply a = { .store = s, .result = result, .index = s->index + 1 };
	int r = 0;

	for (size_t i = 0; i < n_ops && !r; i++)
		if (!apply_one(&a, &ops[i], i))
			r = -ESTALE;
	if (r)
		roll_back(&a);
	else
		commit(&a);
	free(a.undo);
	return r;
}
