/* SPDX-License-Identifier: MIT */
#include "settled.h"

#include "consul-server.h"
#include "store.h"
#include "util/digest.h"

#define MARK_CHARS (sizeof(SETTLED_MARKS) + ICM_ID_HEX)

struct settled {
	struct icm_backend be;	   /* first */
	struct icm_backend *lossy; /* owned */
	struct icm_backend *sure;  /* owned */
	unsigned proxy;
};

static struct settled *of(struct icm_backend *b)
{
	return (struct settled *)b;
}

static void settle(struct settled *s)
{
	long status;

	/* it may take longer than one request waits for its answer */
	do
		status = consul_server_ask(s->proxy, "PUT", "/proxy/settle", NULL, NULL);
	while (status == 0);
	must_be(status, 200);
}

/* ---- reading ---- */

static bool is_mark(const struct icm_entry *e)
{
	return !strncmp(e->key, SETTLED_MARKS, strlen(SETTLED_MARKS));
}

static void drop_marks(struct icm_entries *list)
{
	size_t n = 0;

	for (size_t i = 0; i < list->n; i++)
		if (is_mark(&list->v[i]))
			icm_entry_clear(&list->v[i]);
		else
			list->v[n++] = list->v[i];
	list->n = n;
}

static int settled_get(struct icm_backend *b, const struct icm_ctx *ctx, const char *key,
		       struct icm_entry *ret)
{
	return icm_backend_get(of(b)->lossy, ctx, key, ret);
}

static int settled_list(struct icm_backend *b, const struct icm_ctx *ctx, const char *prefix,
			bool keys_only, struct icm_entries *ret, uint64_t *ret_index)
{
	int r = icm_backend_list(of(b)->lossy, ctx, prefix, keys_only, ret, ret_index);

	if (!r)
		drop_marks(ret);
	return r;
}

static int settled_index(struct icm_backend *b, const struct icm_ctx *ctx, const char *prefix,
			 uint64_t *ret_index)
{
	return icm_backend_index(of(b)->lossy, ctx, prefix, ret_index);
}

static int settled_watch(struct icm_backend *b, const struct icm_ctx *ctx, const char *prefix,
			 uint64_t since, uint64_t *ret_index)
{
	int r;

	/* a store that is away for a moment is waited for */
	do
		r = icm_backend_watch(of(b)->lossy, ctx, prefix, since, ret_index);
	while (r == -EHOSTUNREACH);
	return r;
}

static void settled_wake(struct icm_backend *b)
{
	icm_backend_wake(of(b)->lossy);
}

/* ---- transactions ---- */

static bool writes(const struct icm_op *ops, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (ops[i].type >= ICM_OP_SET)
			return true;
	return false;
}

static bool reads(const struct icm_op *ops, size_t n)
{
	for (size_t i = 0; i < n; i++)
		if (ops[i].type == ICM_OP_GET || ops[i].type == ICM_OP_GET_TREE)
			return true;
	return false;
}

static struct icm_op mark_op(char *key)
{
	char id[ICM_ID_HEX + 1];

	icm_random_id(id);
	snprintf(key, MARK_CHARS, SETTLED_MARKS "%s", id);
	/* only if absent: what a network does twice is done once */
	return OP_CAS(key, "", 0);
}

static size_t cost_of(struct settled *s, const struct icm_op *ops, size_t n)
{
	size_t cost = 0;

	for (size_t i = 0; i < n; i++)
		cost += icm_backend_op_cost(s->lossy, &ops[i]);
	return cost;
}

/* The index of the mark's key, once nothing is under way any more; 0: not done. */
static uint64_t mark_index(struct settled *s, const char *mark)
{
	struct icm_ctx ctx = { .consistent = true };
	ICM_AUTOENTRY struct icm_entry e = { 0 };
	int r = icm_backend_get(s->sure, &ctx, mark, &e);

	must(r == 0 || r == -ENOENT);
	return r ? 0 : e.modify_index;
}

/* One value that is too large for a transaction with a mark: setting it again does
 * no harm. */
static int set_again(struct settled *s, const struct icm_ctx *ctx, const struct icm_op *op,
		     struct icm_txn_result *result)
{
	int r;

	while ((r = icm_backend_txn(s->lossy, ctx, op, 1, result)) == -ETIMEDOUT ||
	       r == -EHOSTUNREACH)
		settle(s);
	return r;
}

static int once(struct settled *s, const struct icm_ctx *ctx, struct icm_op *ops, size_t n,
		struct icm_txn_result *result)
{
	char mark[MARK_CHARS];
	int r;

	ops[n] = mark_op(mark);
	r = icm_backend_txn(s->lossy, ctx, ops, n + 1, result);
	if (r != -ETIMEDOUT)
		return r;
	settle(s);
	result->index = mark_index(s, mark);
	return result->index ? 0 : r;
}

static int settled_txn(struct icm_backend *b, const struct icm_ctx *ctx, const struct icm_op *ops,
		       size_t n, struct icm_txn_result *result)
{
	ICM_AUTOFREE struct icm_op *marked = icm_xcalloc(n + 1, sizeof(*marked));
	struct settled *s = of(b);
	int r;

	if (!writes(ops, n))
		return icm_backend_txn(s->lossy, ctx, ops, n, result);
	/* what it read while it wrote nobody can ask for again */
	if (reads(ops, n))
		return icm_backend_txn(s->sure, ctx, ops, n, result);
	if (n == 1 && ops->type == ICM_OP_SET && cost_of(s, ops, 1) > b->facts.max_txn_bytes)
		return set_again(s, ctx, ops, result);
	memcpy(marked, ops, n * sizeof(*ops));
	do
		r = once(s, ctx, marked, n, result);
	while (r == -ETIMEDOUT || r == -EHOSTUNREACH);
	drop_marks(&result->entries);
	return r;
}

static size_t settled_op_cost(struct icm_backend *b, const struct icm_op *op)
{
	return icm_backend_op_cost(of(b)->lossy, op);
}

/* ---- leases ---- */

static struct icm_entries leases(struct settled *s)
{
	struct icm_ctx ctx = { .consistent = true };
	struct icm_entries list = { 0 };

	must_be(icm_backend_list(s->sure, &ctx, "lease/", true, &list, NULL), 0);
	return list;
}

static bool among(const struct icm_entries *list, const char *key)
{
	for (size_t i = 0; i < list->n; i++)
		if (!strcmp(list->v[i].key, key))
			return true;
	return false;
}

/* A lease whose opening has an unknown outcome would end by its time; a test that
 * counts leases doesn't wait for that. */
static void drop_new_leases(struct settled *s, const struct icm_entries *before)
{
	ICM_AUTOENTRIES struct icm_entries now = leases(s);

	for (size_t i = 0; i < now.n; i++)
		if (!among(before, now.v[i].key))
			must_be(DO(s->sure, OP_DELETE(now.v[i].key)), 0);
}

static int settled_lease_open(struct icm_backend *b, const struct icm_ctx *ctx, uint32_t ttl_ms,
			      const void *value, size_t len, struct icm_lease *ret)
{
	struct settled *s = of(b);

	for (;;) {
		ICM_AUTOENTRIES struct icm_entries before = leases(s);
		int r = icm_backend_lease_open(s->lossy, ctx, ttl_ms, value, len, ret);

		if (r != -ETIMEDOUT && r != -EHOSTUNREACH)
			return r;
		settle(s);
		drop_new_leases(s, &before);
	}
}

static int settled_lease_renew(struct icm_backend *b, const struct icm_ctx *ctx,
			       const struct icm_lease *lease)
{
	int r;

	do
		r = icm_backend_lease_renew(of(b)->lossy, ctx, lease);
	while (r == -ETIMEDOUT || r == -EHOSTUNREACH);
	return r;
}

static int settled_lease_close(struct icm_backend *b, const struct icm_ctx *ctx,
			       const struct icm_lease *lease)
{
	int r;

	do
		r = icm_backend_lease_close(of(b)->lossy, ctx, lease);
	while (r == -ETIMEDOUT || r == -EHOSTUNREACH);
	return r;
}

/* ---- the instance ---- */

static int settled_start(struct icm_backend *b)
{
	return 0; /* both are started */
}

static void settled_close(struct icm_backend *b)
{
	icm_backend_close(of(b)->lossy);
	icm_backend_close(of(b)->sure);
	free(b);
}

static void settled_maintain(struct icm_backend *b)
{
	icm_backend_maintain(of(b)->lossy);
}

static const struct icm_backend_ops settled_ops = {
	.name = "settled",
	.start = settled_start,
	.close = settled_close,
	.get = settled_get,
	.list = settled_list,
	.index = settled_index,
	.txn = settled_txn,
	.watch = settled_watch,
	.wake = settled_wake,
	.lease_open = settled_lease_open,
	.lease_renew = settled_lease_renew,
	.lease_close = settled_lease_close,
	.op_cost = settled_op_cost,
	.maintain = settled_maintain,
};

struct icm_backend *settled(struct icm_backend *lossy, struct icm_backend *sure, unsigned proxy)
{
	struct settled *s = icm_xcalloc(1, sizeof(*s));
	char key[MARK_CHARS];
	struct icm_op mark = mark_op(key);

	s->be.ops = &settled_ops;
	s->be.facts = lossy->facts;
	if (s->be.facts.max_txn_ops)
		s->be.facts.max_txn_ops--;
	if (s->be.facts.max_txn_bytes)
		s->be.facts.max_txn_bytes -= icm_backend_op_cost(lossy, &mark);
	s->be.url = icm_xstrdup(lossy->url);
	s->lossy = lossy;
	s->sure = sure;
	s->proxy = proxy;
	return &s->be;
}
