/* SPDX-License-Identifier: MIT
 * The JSON of Consul's key-value and transaction interface. Values are base64,
 * keys have the store's prefix. */
#include "backends/consul/consul.h"

#include <assert.h>
#include <ctype.h>
#include <string.h>

#include "backends/consul/scan.h"
#include "util/digest.h"

static const char *const verbs[] = {
	[ICM_OP_GET] = "get",
	[ICM_OP_GET_TREE] = "get-tree",
	[ICM_OP_CHECK_INDEX] = "check-index",
	[ICM_OP_CHECK_ABSENT] = "check-not-exists",
	[ICM_OP_SET] = "set",
	[ICM_OP_CAS] = "cas",
	[ICM_OP_DELETE] = "delete",
	[ICM_OP_DELETE_CAS] = "delete-cas",
};

/* ---- operations ---- */

static bool has_value(const struct icm_op *op)
{
	return op->type == ICM_OP_SET || op->type == ICM_OP_CAS;
}

static bool has_index(const struct icm_op *op)
{
	return op->type == ICM_OP_CHECK_INDEX || op->type == ICM_OP_CAS ||
	       op->type == ICM_OP_DELETE_CAS;
}

#define OP_HEAD	 "{\"KV\":{\"Verb\":\""
#define OP_KEY	 "\",\"Key\":\""
#define OP_VALUE ",\"Value\":\""
#define OP_FLAGS "\",\"Flags\":"
#define OP_INDEX ",\"Index\":"
#define OP_TAIL	 "}}"

void wire_add_op(struct icm_buf *b, const char *prefix, const struct icm_op *op)
{
	ICM_AUTOFREE char *key = icm_asprintf("%s%s", prefix, op->key);

	icm_buf_addf(b, OP_HEAD "%s\",\"Key\":", verbs[op->type]);
	scan_add_string(b, key);
	if (has_value(op)) {
		ICM_AUTOFREE char *value = icm_base64_encode(op->value, op->len);

		icm_buf_addstr(b, OP_VALUE);
		icm_buf_addstr(b, value);
		icm_buf_addf(b, OP_FLAGS "%llu", (unsigned long long)op->flags);
	}
	if (has_index(op))
		icm_buf_addf(b, OP_INDEX "%llu", (unsigned long long)op->index);
	icm_buf_addstr(b, OP_TAIL);
}

void wire_add_lock(struct icm_buf *b, const char *prefix, const struct icm_op *op,
		   const char *session)
{
	ICM_AUTOFREE char *key = icm_asprintf("%s%s", prefix, op->key);
	ICM_AUTOFREE char *value = icm_base64_encode(op->value, op->len);

	icm_buf_addstr(b, OP_HEAD "lock\",\"Key\":");
	scan_add_string(b, key);
	icm_buf_addf(b, ",\"Session\":\"%s\"" OP_VALUE, session);
	icm_buf_addstr(b, value);
	icm_buf_addstr(b, "\"" OP_TAIL);
}

static size_t escaped(const char *s)
{
	size_t n = 0;

	for (; *s; s++)
		n += *s == '"' || *s == '\\' ? 2 : 1;
	return n;
}

static size_t digits(uint64_t v)
{
	size_t n = 1;

	while (v /= 10)
		n++;
	return n;
}

size_t wire_op_bytes(const char *prefix, const struct icm_op *op)
{
	/* the quote behind the key and the comma behind all */
	size_t n = strlen(OP_HEAD OP_KEY OP_TAIL) + 2 + strlen(verbs[op->type]) + escaped(prefix) +
		   escaped(op->key);

	if (has_value(op))
		n += strlen(OP_VALUE OP_FLAGS) + (op->len + 2) / 3 * 4 + digits(op->flags);
	if (has_index(op))
		n += strlen(OP_INDEX) + digits(op->index);
	return n;
}

/* ---- entries ---- */

/* The part of a key behind the store's prefix; NULL when it isn't below it or
 * has bytes that no key of ours has. A foreign key may have any. */
static const char *own_part(const char *key, const char *prefix)
{
	size_t n = strlen(prefix);

	if (strncmp(key, prefix, n) != 0 || !key[n])
		return NULL;
	for (const char *p = key + n; *p; p++)
		if (*p < 0x20 || *p > 0x7e)
			return NULL;
	return key + n;
}

static bool starts_with(const char *s, const char *prefix)
{
	return strncmp(s, prefix, strlen(prefix)) == 0;
}

/* One object of a listing. The key with the store's prefix goes to *key, the
 * rest to *e. */
static bool read_entry(struct scan *j, struct icm_buf *key, struct icm_entry *e)
{
	ICM_AUTOBUF struct icm_buf name = ICM_BUF_INIT(256), value = ICM_BUF_INIT(0);
	bool first = true, ok = true;

	icm_buf_reset(key);
	icm_buf_add(key, "", 0);
	icm_buf_add(&value, "", 0);
	if (!scan_open(j, '{'))
		return false;
	while (ok && scan_more(j, '{', &first)) {
		ok = scan_name(j, &name);
		if (!ok)
			break;
		if (!strcmp(name.data, "Key"))
			ok = scan_string(j, key);
		else if (!strcmp(name.data, "Value"))
			ok = scan_string(j, &value);
		else if (!strcmp(name.data, "Flags"))
			ok = scan_uint(j, &e->flags);
		else if (!strcmp(name.data, "CreateIndex"))
			ok = scan_uint(j, &e->create_index);
		else if (!strcmp(name.data, "ModifyIndex"))
			ok = scan_uint(j, &e->modify_index);
		else
			ok = scan_skip(j);
	}
	if (!ok || j->failed || !e->create_index || e->modify_index < e->create_index)
		return false;
	return icm_base64_decode(value.data, &e->value, &e->len) == 0;
}

/* In byte order and each once, as the contract and the readers of results expect. */
static bool in_order(const struct icm_entries *list, const char *key)
{
	return !list->n || strcmp(list->v[list->n - 1].key, key) < 0;
}

int wire_entries(const void *data, size_t len, const char *prefix, const char *under,
		 struct icm_entries *list)
{
	ICM_AUTOBUF struct icm_buf key = ICM_BUF_INIT(0);
	struct scan j = scan_of(data, len);
	bool first = true;

	if (scan_open(&j, '['))
		while (scan_more(&j, '[', &first)) {
			ICM_AUTOENTRY struct icm_entry e = { 0 };
			const char *own;

			if (!read_entry(&j, &key, &e))
				return -EPROTO;
			own = own_part(key.data, prefix);
			if (!own || !starts_with(own, under))
				continue;
			if (!in_order(list, own))
				return -EPROTO;
			e.key = icm_xstrdup(own);
			*icm_entries_add(list) = e;
			e = (struct icm_entry){ 0 };
		}
	return scan_end(&j) ? 0 : -EPROTO;
}

int wire_keys(const void *data, size_t len, const char *prefix, const char *under,
	      struct icm_entries *list)
{
	ICM_AUTOBUF struct icm_buf key = ICM_BUF_INIT(0);
	struct scan j = scan_of(data, len);
	bool first = true;

	if (scan_open(&j, '['))
		while (scan_more(&j, '[', &first)) {
			const char *own;

			if (!scan_string(&j, &key))
				return -EPROTO;
			own = own_part(key.data, prefix);
			if (!own || !starts_with(own, under))
				continue;
			if (!in_order(list, own))
				return -EPROTO;
			icm_entries_add(list)->key = icm_xstrdup(own);
		}
	return scan_end(&j) ? 0 : -EPROTO;
}

/* ---- results of a transaction ---- */

/* {"KV":{…}}. A key that isn't ours stays as one that matches no operation. */
static bool read_result(struct scan *j, const char *prefix, struct icm_entries *all)
{
	ICM_AUTOBUF struct icm_buf name = ICM_BUF_INIT(256), key = ICM_BUF_INIT(0);
	ICM_AUTOENTRY struct icm_entry e = { 0 };
	bool first = true, found = false;
	const char *own;

	if (!scan_open(j, '{'))
		return false;
	while (scan_more(j, '{', &first)) {
		if (!scan_name(j, &name))
			return false;
		if (found || strcmp(name.data, "KV") != 0) {
			if (!scan_skip(j))
				return false;
			continue;
		}
		found = read_entry(j, &key, &e);
		if (!found)
			return false;
	}
	if (!found || j->failed)
		return false;
	own = own_part(key.data, prefix);
	e.key = icm_xstrdup(own ? own : "");
	*icm_entries_add(all) = e;
	e = (struct icm_entry){ 0 };
	return true;
}

static bool read_results(struct scan *j, const char *prefix, struct icm_entries *all)
{
	bool first = true;

	if (!scan_open(j, '['))
		return !j->failed;
	while (scan_more(j, '[', &first))
		if (!read_result(j, prefix, all))
			return false;
	return !j->failed;
}

/* Operations with exactly one result. Deletions and check-not-exists have none,
 * get-tree has as many as there are keys. */
static bool has_result(const struct icm_op *op)
{
	return op->type == ICM_OP_GET || op->type == ICM_OP_CHECK_INDEX || op->type == ICM_OP_SET ||
	       op->type == ICM_OP_CAS;
}

static size_t count_single(const struct icm_op *ops, size_t n_ops)
{
	size_t n = 0;

	for (size_t i = 0; i < n_ops; i++)
		n += has_result(&ops[i]);
	return n;
}

static void keep(struct icm_entry *e, size_t op, struct icm_txn_result *result)
{
	struct icm_entry *to = icm_entries_add(&result->entries);

	*to = *e;
	to->op = op;
	*e = (struct icm_entry){ 0 };
}

/* The results of a get-tree, from number `at` on: as long as keys below it grow,
 * but not those that the operations behind need. */
static size_t take_tree(struct icm_entries *all, size_t at, size_t needed_behind,
			const struct icm_op *op, size_t number, struct icm_txn_result *result)
{
	const char *last = NULL;
	size_t n = 0;

	while (at + n + needed_behind < all->n) {
		struct icm_entry *e = &all->v[at + n];

		if (!e->key || !starts_with(e->key, op->key) || !*e->key ||
		    (last && strcmp(e->key, last) <= 0))
			break;
		keep(e, number, result);
		last = result->entries.v[result->entries.n - 1].key;
		n++;
	}
	return n;
}

static int assign(struct icm_entries *all, const struct icm_op *ops, size_t n_ops,
		  struct icm_txn_result *result)
{
	size_t at = 0, single = count_single(ops, n_ops);

	for (size_t i = 0; i < n_ops; i++) {
		struct icm_entry *e;

		if (ops[i].type == ICM_OP_GET_TREE) {
			at += take_tree(all, at, single, &ops[i], i, result);
			continue;
		}
		if (!has_result(&ops[i]))
			continue;
		single--;
		e = at < all->n ? &all->v[at] : NULL;
		if (!e || strcmp(e->key, ops[i].key) != 0) {
			/* Left out by the store's rules. */
			icm_txn_result_error(result, i, ICM_REASON_DENIED);
			return -EACCES;
		}
		at++;
		if ((ops[i].type == ICM_OP_SET || ops[i].type == ICM_OP_CAS) &&
		    e->modify_index > result->index)
			result->index = e->modify_index;
		if (ops[i].type == ICM_OP_GET)
			keep(e, i, result);
	}
	return at == all->n ? 0 : -EPROTO;
}

int wire_results(const void *data, size_t len, const char *prefix, const struct icm_op *ops,
		 size_t n_ops, struct icm_txn_result *result)
{
	ICM_AUTOBUF struct icm_buf name = ICM_BUF_INIT(256);
	ICM_AUTOENTRIES struct icm_entries all = { 0 };
	struct scan j = scan_of(data, len);
	bool first = true, found = false;

	if (!scan_open(&j, '{'))
		return -EPROTO;
	while (scan_more(&j, '{', &first)) {
		if (!scan_name(&j, &name))
			return -EPROTO;
		if (!found && !strcmp(name.data, "Results"))
			found = read_results(&j, prefix, &all);
		else
			scan_skip(&j);
	}
	if (!found || !scan_end(&j))
		return -EPROTO;
	return assign(&all, ops, n_ops, result);
}

/* ---- refusals ---- */

static bool ends_with(const char *s, const char *end)
{
	size_t n = strlen(s), m = strlen(end);

	return n >= m && !strcmp(s + n - m, end);
}

/* What Consul 1.8.7 says, where no key (any text) can be mistaken for it. */
static enum icm_op_reason reason_of(const char *what, const struct icm_op *op)
{
	/* later releases say which permission */
	if (starts_with(what, "Permission denied"))
		return ICM_REASON_DENIED;
	if (starts_with(what, "failed index check for key"))
		return ICM_REASON_INDEX;
	if (ends_with(what, "\" doesn't exist"))
		return ICM_REASON_ABSENT;
	if (ends_with(what, "\" exists"))
		return ICM_REASON_EXISTS;
	if (ends_with(what, "index is stale"))
		return op->type == ICM_OP_CAS && !op->index ? ICM_REASON_EXISTS : ICM_REASON_INDEX;
	return 0;
}

static bool read_error(struct scan *j, uint64_t *ret_op, struct icm_buf *what)
{
	ICM_AUTOBUF struct icm_buf name = ICM_BUF_INIT(256);
	bool first = true, ok = true;

	*ret_op = UINT64_MAX;
	icm_buf_reset(what);
	icm_buf_add(what, "", 0);
	if (!scan_open(j, '{'))
		return false;
	while (ok && scan_more(j, '{', &first)) {
		ok = scan_name(j, &name);
		if (!ok)
			break;
		if (!strcmp(name.data, "OpIndex"))
			ok = scan_uint(j, ret_op);
		else if (!strcmp(name.data, "What"))
			ok = scan_string(j, what);
		else
			ok = scan_skip(j);
	}
	return ok && !j->failed;
}

static int read_errors(struct scan *j, const struct icm_op *ops, size_t n_ops,
		       struct icm_txn_result *result)
{
	ICM_AUTOBUF struct icm_buf what = ICM_BUF_INIT(0);
	int r = 0;
	bool first = true;

	if (!scan_open(j, '['))
		return j->failed ? -EPROTO : 0;
	while (scan_more(j, '[', &first)) {
		enum icm_op_reason reason;
		uint64_t op;

		if (!read_error(j, &op, &what) || op >= n_ops)
			return -EPROTO;
		reason = reason_of(what.data, &ops[op]);
		if (!reason)
			return -EIO;
		icm_txn_result_error(result, (size_t)op, reason);
		if (reason == ICM_REASON_DENIED)
			r = -EACCES;
		else if (!r)
			r = -ESTALE;
	}
	return j->failed ? -EPROTO : r;
}

static void drop_errors(struct icm_txn_result *result)
{
	free(result->errors);
	result->errors = NULL;
	result->n_errors = 0;
}

int wire_errors(const void *data, size_t len, const struct icm_op *ops, size_t n_ops,
		struct icm_txn_result *result)
{
	ICM_AUTOBUF struct icm_buf name = ICM_BUF_INIT(256);
	struct scan j = scan_of(data, len);
	bool first = true;
	int r = 0;

	if (!scan_open(&j, '{'))
		return -EPROTO;
	while (scan_more(&j, '{', &first)) {
		if (!scan_name(&j, &name))
			break;
		if (strcmp(name.data, "Errors") != 0)
			scan_skip(&j);
		else if (r || (r = read_errors(&j, ops, n_ops, result)) == -EPROTO || r == -EIO)
			break;
	}
	if (r == -EIO || (r && r != -EPROTO && scan_end(&j))) {
		if (r == -EIO)
			drop_errors(result);
		return r;
	}
	drop_errors(result);
	return -EPROTO;
}

/* ---- sessions ---- */

static bool is_uuid(const char *s)
{
	for (size_t i = 0; i < 36; i++) {
		bool dash = i == 8 || i == 13 || i == 18 || i == 23;

		if (dash ? s[i] != '-' : !isxdigit((unsigned char)s[i]))
			return false;
	}
	return !s[36];
}

int wire_session(const void *data, size_t len, char ret[static 37])
{
	ICM_AUTOBUF struct icm_buf name = ICM_BUF_INIT(256), id = ICM_BUF_INIT(256);
	struct scan j = scan_of(data, len);
	bool first = true;

	icm_buf_add(&id, "", 0);
	if (!scan_open(&j, '{'))
		return -EPROTO;
	while (scan_more(&j, '{', &first))
		if (!scan_name(&j, &name) ||
		    !(strcmp(name.data, "ID") ? scan_skip(&j) : scan_string(&j, &id)))
			break;
	if (!scan_end(&j) || !is_uuid(id.data))
		return -EPROTO;
	memcpy(ret, id.data, 37);
	return 0;
}
