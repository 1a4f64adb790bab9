/* SPDX-License-Identifier: MIT
 * The dispatcher: the only code that calls a driver's table. It asserts what
 * the caller owes, refuses what is over the stated limits before the driver is
 * asked, and asserts what the driver owes. */
#include "backends/backend.h"

#include <assert.h>
#include <string.h>

#include "backends/url.h"

static const struct icm_ctx ctx_default;

static const struct icm_ctx *ctx_or_default(const struct icm_ctx *ctx)
{
	return ctx ? ctx : &ctx_default;
}

/* ---- results ---- */

void icm_entry_clear(struct icm_entry *e)
{
	free(e->key);
	free(e->value);
	*e = (struct icm_entry){ 0 };
}

void icm_entries_clear(struct icm_entries *list)
{
	for (size_t i = 0; i < list->n; i++)
		icm_entry_clear(&list->v[i]);
	free(list->v);
	*list = (struct icm_entries){ 0 };
}

struct icm_entry *icm_entries_add(struct icm_entries *list)
{
	/* Grown at the powers of two, so that no capacity needs to be kept. */
	if (!(list->n & (list->n - 1)))
		list->v = icm_xrealloc(list->v, (list->n ? 2 * list->n : 1) * sizeof(*list->v));
	list->v[list->n] = (struct icm_entry){ 0 };
	return &list->v[list->n++];
}

void icm_txn_result_clear(struct icm_txn_result *r)
{
	icm_entries_clear(&r->entries);
	free(r->errors);
	*r = (struct icm_txn_result){ 0 };
}

void icm_txn_result_error(struct icm_txn_result *r, size_t op, enum icm_op_reason reason)
{
	r->errors = icm_xrealloc(r->errors, (r->n_errors + 1) * sizeof(*r->errors));
	r->errors[r->n_errors++] = (struct icm_op_error){ .op = op, .reason = reason };
}

void icm_lease_clear(struct icm_lease *l)
{
	free(l->key);
	*l = (struct icm_lease){ 0 };
}

/* ---- checks ---- */

static bool bytes_valid(const char *key)
{
	for (; *key; key++)
		if (*key < 0x20 || *key > 0x7e)
			return false;
	return true;
}

/* Used by assertions only. */
__attribute__((unused)) static bool key_valid(const char *key)
{
	return key && *key && bytes_valid(key);
}

static bool over(size_t n, size_t limit)
{
	return limit && n > limit;
}

static bool writes(enum icm_op_type type)
{
	return type == ICM_OP_SET || type == ICM_OP_CAS || type == ICM_OP_DELETE ||
	       type == ICM_OP_DELETE_CAS;
}

/* Passes a driver's result on; anything outside the vocabulary is its bug. */
static int checked(int r)
{
	switch (r) {
	case 0:
	case -ENOENT:
	case -ESTALE:
	case -EACCES:
	case -EROFS:
	case -ETIMEDOUT:
	case -EHOSTUNREACH:
	case -EFBIG:
	case -ENOSPC:
	case -EPROTO:
	case -ECANCELED:
	case -ENOTSUP:
	case -EIO:
		return r;
	}
	assert(!"driver's result is in the vocabulary");
	return -EIO;
}

/* ---- opening ---- */

static const struct icm_backend_ops *driver_of(const char *scheme)
{
	for (size_t i = 0; icm_backends[i]; i++)
		for (size_t j = 0; icm_backends[i]->schemes[j]; j++)
			if (!strcmp(icm_backends[i]->schemes[j], scheme))
				return icm_backends[i];
	return NULL;
}

int icm_backend_open(const char *text, const struct icm_open_options *options,
		     struct icm_backend **ret_be, char **ret_error)
{
	static const struct icm_open_options none;
	const struct icm_backend_ops *ops;
	ICM_AUTOFREE char *error = NULL;
	struct icm_backend *be = NULL;
	struct icm_url url = { 0 };
	int r;

	r = icm_url_parse(text, &url, &error);
	if (!r) {
		ops = driver_of(url.scheme);
		r = ops->open(&url, options ? options : &none, &be, &error);
		assert(r || be);
		assert(!r || error);
	}
	if (!r) {
		be->ops = ops;
		be->url = ICM_STEAL(&url.text);
		*ret_be = be;
	} else if (ret_error) {
		*ret_error = ICM_STEAL(&error);
	}
	icm_url_clear(&url);
	return r == -EINVAL ? r : checked(r);
}

int icm_backend_start(struct icm_backend *be)
{
	return checked(be->ops->start(be));
}

struct icm_backend *icm_backend_close(struct icm_backend *be)
{
	char *url;

	if (!be)
		return NULL;
	url = be->url;
	be->ops->close(be);
	free(url);
	return NULL;
}

/* ---- reading ---- */

int icm_backend_get(struct icm_backend *be, const struct icm_ctx *ctx, const char *key,
		    struct icm_entry *ret_entry)
{
	struct icm_entry e = { 0 };
	int r;

	assert(key_valid(key));
	if (over(strlen(key), be->facts.max_key_bytes))
		return -EFBIG;
	r = checked(be->ops->get(be, ctx_or_default(ctx), key, &e));
	if (r)
		return r;
	assert(e.key && e.value && e.create_index && e.modify_index >= e.create_index);
	*ret_entry = e;
	return 0;
}

int icm_backend_list(struct icm_backend *be, const struct icm_ctx *ctx, const char *prefix,
		     bool keys_only, struct icm_entries *ret_entries, uint64_t *ret_index)
{
	struct icm_entries list = { 0 };
	uint64_t index = 0;
	int r;

	assert(prefix && bytes_valid(prefix));
	r = checked(be->ops->list(be, ctx_or_default(ctx), prefix, keys_only, &list, &index));
	if (r) {
		icm_entries_clear(&list);
		return r;
	}
	assert(index);
	*ret_entries = list;
	if (ret_index)
		*ret_index = index;
	return 0;
}

int icm_backend_index(struct icm_backend *be, const struct icm_ctx *ctx, const char *prefix,
		      uint64_t *ret_index)
{
	uint64_t index = 0;
	int r;

	assert(prefix && bytes_valid(prefix));
	r = checked(be->ops->index(be, ctx_or_default(ctx), prefix, &index));
	if (r)
		return r;
	assert(index);
	*ret_index = index;
	return 0;
}

/* ---- transactions ---- */

/* -EFBIG over the limits, -EROFS for a write where none is possible. */
static int admit(struct icm_backend *be, const struct icm_op *ops, size_t n_ops)
{
	const struct icm_facts *facts = &be->facts;
	size_t cost = 0;

	if (over(n_ops, facts->max_txn_ops))
		return -EFBIG;
	for (size_t i = 0; i < n_ops; i++) {
		/* get-tree takes a prefix, which may be empty */
		assert(ops[i].type == ICM_OP_GET_TREE ? ops[i].key && bytes_valid(ops[i].key)
						      : key_valid(ops[i].key));
		assert(ops[i].value || !ops[i].len);
		if (writes(ops[i].type) && facts->read_only)
			return -EROFS;
		if (over(strlen(ops[i].key), facts->max_key_bytes) ||
		    over(ops[i].len, facts->max_value_bytes))
			return -EFBIG;
		if (__builtin_add_overflow(cost, icm_backend_op_cost(be, &ops[i]), &cost))
			return -EFBIG;
	}
	/* A single operation is bounded by max_value_bytes alone: a driver has
	 * a way for it that is not a transaction of its store. */
	return n_ops > 1 && over(cost, facts->max_txn_bytes) ? -EFBIG : 0;
}

int icm_backend_txn(struct icm_backend *be, const struct icm_ctx *ctx, const struct icm_op *ops,
		    size_t n_ops, struct icm_txn_result *result)
{
	int r;

	*result = (struct icm_txn_result){ 0 };
	r = admit(be, ops, n_ops);
	if (r || !n_ops)
		return r;
	r = checked(be->ops->txn(be, ctx_or_default(ctx), ops, n_ops, result));
	assert(r != -ESTALE || result->n_errors);
	assert(r == -ESTALE || r == -EACCES || !result->n_errors);
	if (r) {
		icm_entries_clear(&result->entries);
		result->index = 0;
	}
	return r;
}

size_t icm_backend_op_cost(struct icm_backend *be, const struct icm_op *op)
{
	if (be->ops->op_cost)
		return be->ops->op_cost(be, op);
	return strlen(op->key) + op->len;
}

/* ---- watching ---- */

int icm_backend_watch(struct icm_backend *be, const struct icm_ctx *ctx, const char *prefix,
		      uint64_t since, uint64_t *ret_index)
{
	uint64_t index = 0;
	int r;

	assert(prefix && bytes_valid(prefix));
	r = checked(be->ops->watch(be, ctx_or_default(ctx), prefix, since, &index));
	if (r)
		return r;
	assert(index);
	*ret_index = index;
	return 0;
}

void icm_backend_wake(struct icm_backend *be)
{
	be->ops->wake(be);
}

/* ---- leases ---- */

int icm_backend_lease_open(struct icm_backend *be, const struct icm_ctx *ctx, uint32_t ttl_ms,
			   const void *value, size_t len, struct icm_lease *ret_lease)
{
	struct icm_lease lease = { 0 };
	int r;

	assert(value || !len);
	if (ttl_ms < be->facts.lease_ttl_min_ms || over(ttl_ms, be->facts.lease_ttl_max_ms))
		return -EINVAL;
	if (be->facts.read_only)
		return -EROFS;
	if (over(len, be->facts.max_value_bytes))
		return -EFBIG;
	r = checked(be->ops->lease_open(be, ctx_or_default(ctx), ttl_ms, value, len, &lease));
	if (r)
		return r;
	assert(lease.key && !strncmp(lease.key, "lease/", 6) && lease.index);
	*ret_lease = lease;
	return 0;
}

int icm_backend_lease_renew(struct icm_backend *be, const struct icm_ctx *ctx,
			    const struct icm_lease *lease)
{
	return checked(be->ops->lease_renew(be, ctx_or_default(ctx), lease));
}

int icm_backend_lease_close(struct icm_backend *be, const struct icm_ctx *ctx,
			    const struct icm_lease *lease)
{
	return checked(be->ops->lease_close(be, ctx_or_default(ctx), lease));
}

/* ---- upkeep ---- */

int icm_backend_usage(struct icm_backend *be, const struct icm_ctx *ctx, struct icm_usage *ret)
{
	struct icm_usage usage = { 0 };
	int r = 0;

	if (be->ops->usage)
		r = checked(be->ops->usage(be, ctx_or_default(ctx), &usage));
	if (r)
		return r;
	*ret = usage;
	return 0;
}

void icm_backend_maintain(struct icm_backend *be)
{
	if (be->ops->maintain)
		be->ops->maintain(be);
}
