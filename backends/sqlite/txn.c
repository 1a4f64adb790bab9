/* SPDX-License-Identifier: MIT
 * Keys and transactions. */
#include "backends/sqlite/sqlite.h"

#include <string.h>

char *prefix_end(const char *prefix)
{
	size_t n = strlen(prefix);
	char *end = icm_xmalloc(n + 2);

	/* Key bytes end at 0x7e: adding one to the last never overflows, and
	 * 0x7f is behind every key. */
	memcpy(end, prefix, n + 1);
	if (n)
		end[n - 1]++;
	else
		memcpy(end, "\x7f", 2);
	return end;
}

/* One row of ST_GET, ST_LIST or ST_KEYS. */
static int row_to_entry(sqlite3_stmt *st, bool keys_only, size_t op, struct icm_entry *ret)
{
	const char *key = (const char *)sqlite3_column_text(st, 0);
	int64_t created = sqlite3_column_int64(st, 3), modified = sqlite3_column_int64(st, 4);

	/* The file is not to be trusted with what the contract promises. */
	if (!key || !*key || created < 1 || modified < created)
		return -EPROTO;
	ret->key = icm_xstrdup(key);
	if (!keys_only) {
		const void *value = sqlite3_column_blob(st, 1);

		ret->len = (size_t)sqlite3_column_bytes(st, 1);
		ret->value = icm_xmemdup(value, ret->len);
	}
	ret->flags = (uint64_t)sqlite3_column_int64(st, 2);
	ret->create_index = (uint64_t)created;
	ret->modify_index = (uint64_t)modified;
	ret->op = op;
	return 0;
}

static int bind_key(struct connection *c, enum statement which, const char *key, sqlite3_stmt **ret)
{
	int r = connection_prepare(c, which, ret);

	if (!r)
		sqlite3_bind_text(*ret, 1, key, -1, SQLITE_STATIC);
	return r;
}

int key_read(struct connection *c, const char *key, size_t op, struct icm_entry *ret)
{
	STATEMENT_AUTO sqlite3_stmt *st = NULL;
	int r;

	r = bind_key(c, ST_GET, key, &st);
	if (!r)
		r = connection_step(c, st);
	if (r < 0)
		return r;
	return r ? row_to_entry(st, false, op, ret) : -ENOENT;
}

int range_read(struct connection *c, const char *prefix, bool keys_only, size_t op,
	       struct icm_entries *list)
{
	ICM_AUTOFREE char *end = prefix_end(prefix);
	STATEMENT_AUTO sqlite3_stmt *st = NULL;
	int r;

	r = bind_key(c, keys_only ? ST_KEYS : ST_LIST, prefix, &st);
	if (r)
		return r;
	sqlite3_bind_text(st, 2, end, -1, SQLITE_STATIC);
	while ((r = connection_step(c, st)) > 0) {
		r = row_to_entry(st, keys_only, op, icm_entries_add(list));
		if (r)
			return r;
	}
	return r;
}

/* The key's modify index; 0 = absent. */
static int key_modified(struct connection *c, const char *key, uint64_t *ret)
{
	STATEMENT_AUTO sqlite3_stmt *st = NULL;
	int r;

	r = bind_key(c, ST_MODIFIED, key, &st);
	if (!r)
		r = connection_step(c, st);
	if (r < 0)
		return r;
	*ret = r ? (uint64_t)sqlite3_column_int64(st, 0) : 0;
	return 0;
}

int key_set(struct connection *c, const struct icm_op *op, uint64_t index, bool *changed)
{
	STATEMENT_AUTO sqlite3_stmt *st = NULL;
	int r;

	r = bind_key(c, ST_SET, op->key, &st);
	if (r)
		return r;
	sqlite3_bind_int64(st, 2, (int64_t)op->flags);
	sqlite3_bind_int64(st, 3, (int64_t)index);
	/* a null pointer would bind NULL */
	sqlite3_bind_blob64(st, 4, op->len ? op->value : "", op->len, SQLITE_STATIC);
	r = connection_step(c, st);
	if (!r && sqlite3_changes(c->db))
		*changed = true;
	return r;
}

int key_delete(struct connection *c, const char *key, bool *changed)
{
	STATEMENT_AUTO sqlite3_stmt *st = NULL;
	STATEMENT_AUTO sqlite3_stmt *lease = NULL;
	int r;

	r = bind_key(c, ST_DELETE, key, &st);
	if (!r)
		r = connection_step(c, st);
	if (r)
		return r;
	if (sqlite3_changes(c->db))
		*changed = true;
	/* a lease is over when its key is gone */
	if (!lease_key(key))
		return 0;
	r = bind_key(c, ST_LEASE_DELETE, key, &lease);
	return r ? r : connection_step(c, lease);
}

/* ---- writing ---- */

int write_begin(struct icm_sqlite *s, const struct icm_ctx *ctx, struct connection **ret,
		uint64_t *ret_index)
{
	struct connection *c;
	uint64_t index;
	int r;

	r = writer_take(s, ctx, &c);
	if (r)
		return r;
	r = connection_run(c, ST_BEGIN_WRITE);
	if (!r)
		r = connection_index(c, &index);
	if (r) {
		connection_rollback(c);
		writer_give(s);
		return r;
	}
	*ret = c;
	*ret_index = index + 1;
	return 0;
}

static int bump(struct connection *c, uint64_t index)
{
	STATEMENT_AUTO sqlite3_stmt *st = NULL;
	int r;

	r = connection_prepare(c, ST_BUMP, &st);
	if (r)
		return r;
	sqlite3_bind_int64(st, 1, (int64_t)index);
	return connection_step(c, st);
}

int write_end(struct icm_sqlite *s, struct connection *c, uint64_t index, bool changed, int r)
{
	if (!r && changed)
		r = bump(c, index);
	if (!r && changed)
		r = connection_commit(c);
	connection_rollback(c);
	writer_give(s);
	if (!r && changed)
		watch_poke(s);
	return r;
}

/* ---- the transaction ---- */

/* Why an operation refuses, or 0. `modified` is the key's index, 0 = absent. */
static enum icm_op_reason judge(const struct icm_op *op, uint64_t modified)
{
	switch (op->type) {
	case ICM_OP_CHECK_ABSENT:
		return modified ? ICM_REASON_EXISTS : 0;
	case ICM_OP_CAS:
		if (op->index == 0)
			return modified ? ICM_REASON_EXISTS : 0;
		ICM_FALLTHROUGH;
	case ICM_OP_CHECK_INDEX:
		if (!modified)
			return ICM_REASON_ABSENT;
		return modified == op->index ? 0 : ICM_REASON_INDEX;
	case ICM_OP_DELETE_CAS:
		return !modified || modified == op->index ? 0 : ICM_REASON_INDEX;
	default:
		return 0;
	}
}

static bool has_precondition(enum icm_op_type type)
{
	return type == ICM_OP_CHECK_ABSENT || type == ICM_OP_CHECK_INDEX || type == ICM_OP_CAS ||
	       type == ICM_OP_DELETE_CAS;
}

static int refused(struct icm_txn_result *result, size_t number, enum icm_op_reason reason)
{
	icm_txn_result_error(result, number, reason);
	return -ESTALE;
}

static int read_for_txn(struct connection *c, const struct icm_op *op, size_t number,
			struct icm_txn_result *result)
{
	int r;

	if (op->type == ICM_OP_GET_TREE)
		return range_read(c, op->key, false, number, &result->entries);
	r = key_read(c, op->key, number, icm_entries_add(&result->entries));
	return r == -ENOENT ? refused(result, number, ICM_REASON_ABSENT) : r;
}

static int apply_one(struct connection *c, const struct icm_op *op, size_t number, uint64_t index,
		     bool *changed, struct icm_txn_result *result)
{
	enum icm_op_reason reason;
	uint64_t modified = 0;
	int r;

	if (has_precondition(op->type)) {
		r = key_modified(c, op->key, &modified);
		if (r)
			return r;
		reason = judge(op, modified);
		if (reason)
			return refused(result, number, reason);
	}
	switch (op->type) {
	case ICM_OP_GET:
	case ICM_OP_GET_TREE:
		return read_for_txn(c, op, number, result);
	case ICM_OP_SET:
	case ICM_OP_CAS:
		return key_set(c, op, index, changed);
	case ICM_OP_DELETE:
	case ICM_OP_DELETE_CAS:
		return key_delete(c, op->key, changed);
	case ICM_OP_CHECK_INDEX:
	case ICM_OP_CHECK_ABSENT:
		break;
	}
	return 0;
}

static int apply(struct connection *c, const struct icm_op *ops, size_t n_ops, uint64_t index,
		 bool *changed, struct icm_txn_result *result)
{
	int r = 0;

	for (size_t i = 0; i < n_ops && !r; i++)
		r = apply_one(c, &ops[i], i, index, changed, result);
	return r;
}

/* So many single keys are read in no time. */
#define SHORT_OPS 4

static bool reads_tree(const struct icm_op *ops, size_t n_ops)
{
	for (size_t i = 0; i < n_ops; i++)
		if (ops[i].type == ICM_OP_GET_TREE)
			return true;
	return false;
}

/* A transaction that only looks waits for no writer. */
static int txn_read(struct icm_sqlite *s, const struct icm_ctx *ctx, const struct icm_op *ops,
		    size_t n_ops, struct icm_txn_result *result)
{
	struct connection *c;
	bool changed = false;
	int r;

	r = n_ops <= SHORT_OPS && !reads_tree(ops, n_ops) ? short_reader_take(s, ctx, &c)
							  : reader_take(s, ctx, &c);
	if (r)
		return r;
	r = connection_run(c, ST_BEGIN);
	if (!r)
		r = apply(c, ops, n_ops, 0, &changed, result);
	connection_rollback(c);
	reader_give(s, c);
	return r;
}

static int txn_write(struct icm_sqlite *s, const struct icm_ctx *ctx, const struct icm_op *ops,
		     size_t n_ops, struct icm_txn_result *result)
{
	struct connection *c;
	bool changed = false;
	uint64_t index;
	int r;

	r = write_begin(s, ctx, &c, &index);
	if (r)
		return r;
	r = apply(c, ops, n_ops, index, &changed, result);
	r = write_end(s, c, index, changed, r);
	if (!r && changed)
		result->index = index;
	return r;
}

int sqlite_txn(struct icm_backend *be, const struct icm_ctx *ctx, const struct icm_op *ops,
	       size_t n_ops, struct icm_txn_result *result)
{
	struct icm_sqlite *s = sqlite_of(be);
	bool writes = false;
	int r = 0;

	for (size_t i = 0; i < n_ops && !r; i++) {
		enum icm_op_type type = ops[i].type;

		writes |= type == ICM_OP_SET || type == ICM_OP_CAS || type == ICM_OP_DELETE ||
			  type == ICM_OP_DELETE_CAS;
		if (type == ICM_OP_GET_TREE)
			r = lease_reap_prefix(s, ctx, ops[i].key);
		else if (lease_key(ops[i].key))
			r = lease_reap_key(s, ctx, ops[i].key);
	}
	if (r)
		return r;
	return writes ? txn_write(s, ctx, ops, n_ops, result)
		      : txn_read(s, ctx, ops, n_ops, result);
}
