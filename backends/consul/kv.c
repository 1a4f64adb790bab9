/* SPDX-License-Identifier: MIT
 * Keys and transactions over HTTP. */
#include "backends/consul/consul.h"

#include <assert.h>
#include <string.h>

/* More than any store of the size that icmfs is made for answers at once. */
#define MAX_LISTING ((size_t)512 << 20)
/* An answer with one value, or with no values. */
#define MAX_SMALL ((size_t)64 << 10)

static size_t max_value_answer(const struct icm_consul *c)
{
	return c->be.facts.max_value_bytes / 3 * 4 + MAX_SMALL;
}

/* ---- paths ---- */

static void add_encoded(struct icm_buf *b, const char *s)
{
	static const char plain[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
				    "0123456789-._~/";

	for (; *s; s++)
		icm_buf_addf(b, strchr(plain, *s) ? "%c" : "%%%02X", (unsigned char)*s);
}

void kv_add_path(struct icm_buf *b, const struct icm_consul *c, const char *key)
{
	icm_buf_addstr(b, "/v1/kv/");
	add_encoded(b, c->settings.prefix);
	add_encoded(b, key);
}

/* Bytes of `key` that a path can say: Consul takes "a//b", "a/./b" and "a/../b"
 * for sloppy spellings of other keys, encoded or not, and redirects. Transactions
 * take every key as it is. */
static size_t sayable(const char *key)
{
	const char *part = key;

	for (;;) {
		size_t n = strcspn(part, "/");

		if ((!n && *part) || (n == 1 && part[0] == '.') ||
		    (n == 2 && part[0] == '.' && part[1] == '.'))
			return (size_t)(part - key);
		if (!part[n])
			return strlen(key);
		part += n + 1;
	}
}

/* ---- reading ---- */

static void add_consistency(struct icm_buf *b, const struct icm_ctx *ctx, char sign)
{
	if (ctx->consistent)
		icm_buf_addf(b, "%cconsistent", sign);
}

/* One read transaction; for keys that no path can say. */
static int get_by_txn(struct icm_backend *be, const struct icm_ctx *ctx, const char *key,
		      struct icm_entry *ret_entry)
{
	ICM_AUTORESULT struct icm_txn_result result = { 0 };
	struct icm_op op = { .type = ICM_OP_GET, .key = key };
	int r = kv_txn(be, ctx, &op, 1, &result);

	if (r == -ESTALE)
		return -ENOENT;
	if (r)
		return r;
	*ret_entry = result.entries.v[0];
	result.entries.v[0] = (struct icm_entry){ 0 };
	return 0;
}

int kv_get(struct icm_backend *be, const struct icm_ctx *ctx, const char *key,
	   struct icm_entry *ret_entry)
{
	struct icm_consul *c = consul_of(be);
	ICM_AUTOBUF struct icm_buf path = ICM_BUF_INIT(0);
	ICM_AUTOENTRIES struct icm_entries list = { 0 };
	ANSWER_AUTO struct answer a = { 0 };
	struct request rq = { .method = "GET", .max_answer = max_value_answer(c) };
	int r;

	if (sayable(key) < strlen(key))
		return get_by_txn(be, ctx, key, ret_entry);
	kv_add_path(&path, c, key);
	add_consistency(&path, ctx, '?');
	rq.path = path.data;
	r = consul_call(c, ctx, &rq, CALL_PERSISTS, &a, NULL);
	if (r)
		return r;
	/* Consul says the index with it; a page of some other server doesn't */
	if (a.status == 404 && a.index)
		return -ENOENT;
	if (a.status != 200)
		return -EPROTO;
	r = wire_entries(a.body.data, a.body.len, c->settings.prefix, key, &list);
	if (r)
		return r;
	if (list.n != 1 || strcmp(list.v[0].key, key) != 0)
		return -EPROTO;
	*ret_entry = list.v[0];
	list.v[0] = (struct icm_entry){ 0 };
	return 0;
}

/* ---- what the token may see ---- */

/* Consul leaves out of a listing, and of a get-tree, what the token may not see: a
 * denied tree looks empty, and a lapsed token's store as if all had been deleted.
 * It tells the truth about single keys, existing or not. Rights are asked for by
 * folder; a policy that hides a part of one is seen only where Consul (1.11 and
 * later) says that it left something out. */

const char *const kv_folders[] = { "tree/", "attr/",  "inode/",	 "blob/", "hist/",
				   "feed/", "head",   "meta",	 "floor", "log/",
				   "lock/", "lease/", "change/", "snap/", NULL };

int kv_may_read(struct icm_consul *c, const struct icm_ctx *ctx, enum persistence persistence,
		const char *key, char **ret_why)
{
	ICM_AUTOBUF struct icm_buf path = ICM_BUF_INIT(0);
	ANSWER_AUTO struct answer a = { 0 };
	struct request rq = { .method = "GET", .max_answer = max_value_answer(c) };
	ICM_AUTOFREE char *said = icm_xstrndup(key, sayable(key));
	int r;

	kv_add_path(&path, c, said);
	rq.path = path.data;
	/* Any key's name does: 403 where it is denied, 404 where it is not. */
	r = consul_call(c, ctx, &rq, persistence, &a, ret_why);
	if (r)
		return r;
	if (a.index && (a.status == 200 || a.status == 404))
		return 0;
	if (ret_why) {
		free(*ret_why);
		*ret_why = icm_xstrdup("what answers is not Consul");
	}
	return -EPROTO;
}

/* Whether a folder's name, or a part of one, stands alone: rights may differ below. */
static bool spans_folders(const char *prefix)
{
	return !strchr(prefix, '/');
}

/* Whether the token may read what a listing of this prefix has. */
static int may_list(struct icm_consul *c, const struct icm_ctx *ctx, const char *prefix)
{
	size_t n = strlen(prefix);
	bool any = false;
	int r = 0;

	if (spans_folders(prefix))
		for (size_t i = 0; kv_folders[i] && !r; i++)
			if (!strncmp(kv_folders[i], prefix, n)) {
				any = true;
				r = kv_may_read(c, ctx, CALL_PERSISTS, kv_folders[i], NULL);
			}
	return any ? r : kv_may_read(c, ctx, CALL_PERSISTS, prefix, NULL);
}

/* ---- listings ---- */

/* One listing. Nothing found gives no entries. */
static int list_once(struct icm_consul *c, const struct icm_ctx *ctx, const char *prefix,
		     bool keys_only, struct icm_entries *list, uint64_t *ret_index)
{
	ICM_AUTOFREE char *said = icm_xstrndup(prefix, sayable(prefix));
	ICM_AUTOBUF struct icm_buf path = ICM_BUF_INIT(0);
	ANSWER_AUTO struct answer a = { 0 };
	struct request rq = { .method = "GET", .max_answer = MAX_LISTING };
	int r;

	kv_add_path(&path, c, said);
	icm_buf_addstr(&path, keys_only ? "?keys" : "?recurse");
	add_consistency(&path, ctx, '&');
	rq.path = path.data;
	r = consul_call(c, ctx, &rq, CALL_PERSISTS, &a, NULL);
	if (r)
		return r;
	if (!a.index || (a.status != 200 && a.status != 404))
		return -EPROTO;
	if (a.filtered)
		return -EACCES;
	*ret_index = a.index;
	if (a.status == 404)
		return 0;
	if (keys_only)
		return wire_keys(a.body.data, a.body.len, c->settings.prefix, prefix, list);
	return wire_entries(a.body.data, a.body.len, c->settings.prefix, prefix, list);
}

/* What a listing has proves that the token may read that folder. That there is
 * nothing is believed when the token may read there, and a second listing says the
 * same: the token's rights may have changed in between. */
int kv_list(struct icm_backend *be, const struct icm_ctx *ctx, const char *prefix, bool keys_only,
	    struct icm_entries *ret_entries, uint64_t *ret_index)
{
	struct icm_consul *c = consul_of(be);
	int r = list_once(c, ctx, prefix, keys_only, ret_entries, ret_index);

	if (r || (ret_entries->n && !spans_folders(prefix)))
		return r;
	r = may_list(c, ctx, prefix);
	if (r || ret_entries->n)
		return r;
	return list_once(c, ctx, prefix, keys_only, ret_entries, ret_index);
}

/* ---- the index of a prefix ---- */

/* The first level of names below it: an answer of almost constant size, whose
 * index counts all keys below, deletions as well. */
static int index_once(struct icm_consul *c, const struct icm_ctx *ctx, const char *prefix,
		      const char *query, int64_t wait_ns, enum persistence persistence,
		      uint64_t *ret_index)
{
	size_t n = sayable(prefix);
	ICM_AUTOFREE char *said = NULL;
	ICM_AUTOBUF struct icm_buf path = ICM_BUF_INIT(0);
	ANSWER_AUTO struct answer a = { 0 };
	struct request rq = { .method = "GET", .max_answer = MAX_LISTING, .wait_ns = wait_ns };
	int r;

	/* "feed/" is asked for as "feed", which answers that one name */
	while (n && prefix[n - 1] == '/')
		n--;
	said = icm_xstrndup(prefix, n);
	kv_add_path(&path, c, said);
	icm_buf_addf(&path, "?keys&separator=/%s", query);
	rq.path = path.data;
	r = consul_call(c, ctx, &rq, persistence, &a, NULL);
	if (r)
		return r;
	if (!a.index || (a.status != 200 && a.status != 404))
		return -EPROTO;
	*ret_index = a.index;
	return 0;
}

int kv_index(struct icm_backend *be, const struct icm_ctx *ctx, const char *prefix,
	     uint64_t *ret_index)
{
	return index_once(consul_of(be), ctx, prefix, ctx->consistent ? "&consistent" : "", 0,
			  CALL_PERSISTS, ret_index);
}

/* ---- watching ---- */

/* Of one blocking query. Short, because an agent whose server is cut off says
 * nothing until it is over, and a fresh query succeeds. */
#define WATCH_NS (10 * ICM_NS_PER_S)

/* After a failure, before the caller tries again. */
#define WATCH_PAUSE_NS ICM_NS_PER_S

/* However late it is: a change that is there counts more than a deadline that has
 * passed. */
#define FIRST_LOOK_NS ICM_NS_PER_S

static int first_look(struct icm_consul *c, const struct icm_ctx *ctx, const char *prefix,
		      uint64_t *ret_index)
{
	struct icm_ctx look = { .cancel = ctx->cancel };
	int64_t least = icm_now_ns() + FIRST_LOOK_NS;

	if (ctx->deadline_ns)
		look.deadline_ns = ctx->deadline_ns > least ? ctx->deadline_ns : least;
	return index_once(c, &look, prefix, "", 0, CALL_SINGLE, ret_index);
}

/* One blocking query, which ends by itself after `wait_ns`. */
static int wait_for_change(struct icm_consul *c, const struct icm_ctx *ctx, const char *prefix,
			   uint64_t since, int64_t wait_ns, uint64_t *ret_index)
{
	/* Consul adds up to a sixteenth */
	ICM_AUTOFREE char *query =
		icm_asprintf("&index=%llu&wait=%lldms", (unsigned long long)since,
			     (long long)(wait_ns * 15 / 16 / ICM_NS_PER_MS + 1));
	struct icm_ctx single = { .cancel = ctx->cancel };

	return index_once(c, &single, prefix, query, wait_ns, CALL_SINGLE, ret_index);
}

/* What a watch gives that could not be carried out: never at once, or its caller
 * would spin. */
static int watch_failed(struct icm_consul *c, const struct icm_ctx *ctx, int failure)
{
	int64_t until = icm_now_ns() + consul_jitter(WATCH_PAUSE_NS);
	int r;

	if (failure == -ECANCELED)
		return failure;
	if (ctx->deadline_ns && ctx->deadline_ns < until)
		until = ctx->deadline_ns;
	r = consul_pause(c, ctx, until);
	if (r)
		return r;
	if (ctx->deadline_ns && icm_now_ns() >= ctx->deadline_ns)
		return -ETIMEDOUT;
	return failure == -ETIMEDOUT ? -EHOSTUNREACH : failure;
}

static struct told *find_told_locked(struct icm_consul *c, const char *prefix)
{
	for (size_t i = 0; i < CONSUL_TOLD; i++)
		if (c->told[i].prefix && !strcmp(c->told[i].prefix, prefix))
			return &c->told[i];
	return NULL;
}

/* Whether `since` is what the last watch of this prefix gave. */
static bool was_told(struct icm_consul *c, const char *prefix, uint64_t since)
{
	const struct told *t;
	ICM_LOCK_SCOPE(&c->lock);

	t = find_told_locked(c, prefix);
	return t && t->index == since;
}

static void note_told(struct icm_consul *c, const char *prefix, uint64_t index)
{
	struct told *t;
	ICM_LOCK_SCOPE(&c->lock);

	t = find_told_locked(c, prefix);
	if (!t) {
		t = &c->told[c->next_told++ % CONSUL_TOLD];
		free(t->prefix);
		t->prefix = icm_xstrdup(prefix);
	}
	t->index = index;
}

/* A blocking query doesn't return for an index from the future; a look does. So
 * it is left out only where the index is one that the store itself has told for
 * this prefix: should it go back after that, the query that is over after WATCH_NS
 * says so. */
static bool needs_look(struct icm_consul *c, const struct icm_ctx *ctx, const char *prefix,
		       uint64_t since)
{
	return (ctx->deadline_ns && icm_now_ns() >= ctx->deadline_ns) ||
	       !was_told(c, prefix, since);
}

static int watch(struct icm_consul *c, const struct icm_ctx *ctx, const char *prefix,
		 uint64_t since, uint64_t *ret_index)
{
	int r = 0;

	*ret_index = since;
	if (needs_look(c, ctx, prefix, since))
		r = first_look(c, ctx, prefix, ret_index);

	while (r == 0 && *ret_index == since) {
		int64_t now = icm_now_ns(), wait = WATCH_NS;

		if (ctx->cancel && atomic_load(ctx->cancel))
			return -ECANCELED;
		if (ctx->deadline_ns && now >= ctx->deadline_ns)
			return -ETIMEDOUT;
		if (ctx->deadline_ns && ctx->deadline_ns - now < wait)
			wait = ctx->deadline_ns - now;
		r = wait_for_change(c, ctx, prefix, since, wait, ret_index);
	}
	return r ? watch_failed(c, ctx, r) : 0;
}

int kv_watch(struct icm_backend *be, const struct icm_ctx *ctx, const char *prefix, uint64_t since,
	     uint64_t *ret_index)
{
	struct icm_consul *c = consul_of(be);
	int r = watch(c, ctx, prefix, since, ret_index);

	if (r == 0)
		note_told(c, prefix, *ret_index);
	return r;
}

/* ---- transactions ---- */

size_t kv_op_cost(struct icm_backend *be, const struct icm_op *op)
{
	return wire_op_bytes(consul_of(be)->settings.prefix, op);
}

static char *txn_body(struct icm_consul *c, const struct icm_op *ops, size_t n_ops, size_t *ret_len)
{
	struct icm_buf b = ICM_BUF_INIT(0);

	icm_buf_addc(&b, '[');
	for (size_t i = 0; i < n_ops; i++) {
		if (i)
			icm_buf_addc(&b, ',');
		wire_add_op(&b, c->settings.prefix, &ops[i]);
	}
	icm_buf_addc(&b, ']');
	return icm_buf_steal(&b, ret_len);
}

/* Consul says of a cas that the index is stale, also where the key is missing.
 * What it was at that moment, the operations before tell, or one more look. */
static enum icm_op_reason reason_of_cas(struct icm_consul *c, const struct icm_ctx *ctx,
					const struct icm_op *ops, size_t op)
{
	struct icm_ctx look = { .deadline_ns = ctx->deadline_ns, .consistent = true };
	ICM_AUTOENTRY struct icm_entry e = { 0 };

	for (size_t i = op; i-- > 0;) {
		if (!op_writes(&ops[i]) || strcmp(ops[i].key, ops[op].key) != 0)
			continue;
		return ops[i].type == ICM_OP_SET || ops[i].type == ICM_OP_CAS ? ICM_REASON_INDEX
									      : ICM_REASON_ABSENT;
	}
	return kv_get(&c->be, &look, ops[op].key, &e) == -ENOENT ? ICM_REASON_ABSENT
								 : ICM_REASON_INDEX;
}

static int refused(struct icm_consul *c, const struct icm_ctx *ctx, const struct icm_op *ops,
		   size_t n_ops, const struct answer *a, struct icm_txn_result *result)
{
	int r = wire_errors(a->body.data, a->body.len, ops, n_ops, result);

	for (size_t i = 0; i < result->n_errors; i++) {
		struct icm_op_error *e = &result->errors[i];

		if (e->reason == ICM_REASON_INDEX && ops[e->op].type == ICM_OP_CAS)
			e->reason = reason_of_cas(c, ctx, ops, e->op);
	}
	return r;
}

static int txn_answer(struct icm_consul *c, const struct icm_ctx *ctx, const struct icm_op *ops,
		      size_t n_ops, const struct answer *a, struct icm_txn_result *result)
{
	switch (a->status) {
	case 200:
		return wire_results(a->body.data, a->body.len, c->settings.prefix, ops, n_ops,
				    result);
	case 409:
		return refused(c, ctx, ops, n_ops, a, result);
	case 413:
		return -EFBIG;
	default:
		return -EPROTO;
	}
}

static int txn_once(struct icm_consul *c, const struct icm_ctx *ctx, const struct icm_op *ops,
		    size_t n_ops, bool writes, struct icm_txn_result *result)
{
	ANSWER_AUTO struct answer a = { 0 };
	ICM_AUTOFREE char *body = NULL;
	struct request rq = {
		.method = "PUT",
		.path = ctx->consistent && !writes ? "/v1/txn?consistent" : "/v1/txn",
		.writes = writes,
		.max_answer = MAX_LISTING,
	};
	int r;

	rq.body = body = txn_body(c, ops, n_ops, &rq.len);
	r = consul_call(c, ctx, &rq, CALL_PERSISTS, &a, NULL);
	if (r)
		return r;
	r = txn_answer(c, ctx, ops, n_ops, &a, result);
	if (writes && (r == -EPROTO || (r && a.status == 200))) {
		/* It took place, and what it read is not to be had; or it is not
		 * Consul that answered, and nobody knows. */
		icm_txn_result_clear(result);
		return -ETIMEDOUT;
	}
	return r;
}

/* ---- trees in transactions ---- */

static size_t count_trees(const struct icm_op *ops, size_t n_ops)
{
	size_t n = 0;

	for (size_t i = 0; i < n_ops; i++)
		n += ops[i].type == ICM_OP_GET_TREE;
	return n;
}

/* The same operations and, for each get-tree, that a key is absent below it that
 * no key of ours is called. Consul asks for the right to write there, which says
 * at the same instant that nothing was left out. NULL where that doesn't fit, or
 * a get-tree reads more than one folder. */
static struct icm_op *with_probes(struct icm_consul *c, const struct icm_op *ops, size_t n_ops,
				  size_t n_trees)
{
	struct icm_op *all = icm_xcalloc(n_ops + n_trees, sizeof(*all));
	size_t n = n_ops, bytes = 0;
	bool fits = n_ops + n_trees <= c->be.facts.max_txn_ops;

	memcpy(all, ops, n_ops * sizeof(*all));
	for (size_t i = 0; i < n_ops; i++)
		if (ops[i].type == ICM_OP_GET_TREE) {
			fits &= !spans_folders(ops[i].key);
			all[n].type = ICM_OP_CHECK_ABSENT;
			all[n++].key = icm_asprintf("%s\x7f", ops[i].key);
		}
	for (size_t i = 0; i < n; i++)
		bytes += wire_op_bytes(c->settings.prefix, &all[i]);
	if (fits && bytes <= c->be.facts.max_txn_bytes)
		return all;
	for (size_t i = n_ops; i < n; i++)
		free((char *)all[i].key);
	free(all);
	return NULL;
}

/* Whether a probe refused: the token may not write there, so that this way of
 * asking doesn't work. Nothing was done. */
static bool probe_refused(int r, size_t n_ops, const struct icm_txn_result *result)
{
	for (size_t i = 0; (r == -EACCES || r == -ESTALE) && i < result->n_errors; i++)
		if (result->errors[i].op >= n_ops)
			return true;
	return false;
}

/* True when it was carried out this way, with its outcome in *ret. */
static bool txn_probed(struct icm_consul *c, const struct icm_ctx *ctx, const struct icm_op *ops,
		       size_t n_ops, bool writes, struct icm_txn_result *result, int *ret)
{
	size_t n_trees = count_trees(ops, n_ops);
	struct icm_op *all = c->be.facts.read_only ? NULL : with_probes(c, ops, n_ops, n_trees);
	bool done;

	if (!all)
		return false;
	*ret = txn_once(c, ctx, all, n_ops + n_trees, writes, result);
	done = !probe_refused(*ret, n_ops, result);
	if (!done)
		icm_txn_result_clear(result);
	for (size_t i = n_ops; i < n_ops + n_trees; i++)
		free((char *)all[i].key);
	free(all);
	return done;
}

static int may_read_trees(struct icm_consul *c, const struct icm_ctx *ctx, const struct icm_op *ops,
			  size_t n_ops)
{
	int r = 0;

	for (size_t i = 0; i < n_ops && !r; i++)
		if (ops[i].type == ICM_OP_GET_TREE)
			r = may_list(c, ctx, ops[i].key);
	return r;
}

/* A tree that is denied is an error, not an empty one. */
static int txn_with_trees(struct icm_consul *c, const struct icm_ctx *ctx, const struct icm_op *ops,
			  size_t n_ops, bool writes, struct icm_txn_result *result)
{
	int r;

	if (txn_probed(c, ctx, ops, n_ops, writes, result, &r))
		return r;
	/* Asked before and after where that is harmless: rights may change. */
	r = may_read_trees(c, ctx, ops, n_ops);
	if (!r)
		r = txn_once(c, ctx, ops, n_ops, writes, result);
	return r || writes ? r : may_read_trees(c, ctx, ops, n_ops);
}

/* ---- one value too large for a transaction ---- */

/* Why a conditional put was refused, as far as that can still be seen. */
static int put_refused(struct icm_backend *be, const struct icm_ctx *ctx, const struct icm_op *op,
		       struct icm_txn_result *result)
{
	ICM_AUTOENTRY struct icm_entry e = { 0 };
	enum icm_op_reason reason = op->index ? ICM_REASON_INDEX : ICM_REASON_EXISTS;

	if (op->index && kv_get(be, ctx, op->key, &e) == -ENOENT)
		reason = ICM_REASON_ABSENT;
	icm_txn_result_error(result, 0, reason);
	return -ESTALE;
}

static int put_raw(struct icm_backend *be, const struct icm_ctx *ctx, const struct icm_op *op,
		   struct icm_txn_result *result)
{
	struct icm_consul *c = consul_of(be);
	ICM_AUTOBUF struct icm_buf path = ICM_BUF_INIT(0);
	ANSWER_AUTO struct answer a = { 0 };
	struct request rq = {
		.method = "PUT",
		.body = op->value,
		.len = op->len,
		.writes = true,
		.max_answer = MAX_SMALL,
	};
	int r;

	/* no path says this key, no transaction holds this value */
	if (sayable(op->key) < strlen(op->key))
		return -EFBIG;
	kv_add_path(&path, c, op->key);
	icm_buf_addf(&path, "?flags=%llu", (unsigned long long)op->flags);
	if (op->type == ICM_OP_CAS)
		icm_buf_addf(&path, "&cas=%llu", (unsigned long long)op->index);
	rq.path = path.data;
	r = consul_call(c, ctx, &rq, CALL_PERSISTS, &a, NULL);
	if (r)
		return r;
	if (a.status == 413)
		return -EFBIG;
	if (a.status != 200)
		return -ETIMEDOUT;
	if (a.body.data && !strncmp(a.body.data, "true", 4))
		return 0;
	if (a.body.data && !strncmp(a.body.data, "false", 5) && op->type == ICM_OP_CAS)
		return put_refused(be, ctx, op, result);
	return -ETIMEDOUT;
}

int kv_txn(struct icm_backend *be, const struct icm_ctx *ctx, const struct icm_op *ops,
	   size_t n_ops, struct icm_txn_result *result)
{
	struct icm_consul *c = consul_of(be);
	bool writes = false;

	for (size_t i = 0; i < n_ops; i++)
		writes |= op_writes(&ops[i]);
	if (count_trees(ops, n_ops))
		return txn_with_trees(c, ctx, ops, n_ops, writes, result);
	if (writes && n_ops == 1 &&
	    wire_op_bytes(c->settings.prefix, ops) > be->facts.max_txn_bytes)
		return put_raw(be, ctx, ops, result);
	return txn_once(c, ctx, ops, n_ops, writes, result);
}
