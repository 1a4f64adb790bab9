/* SPDX-License-Identifier: MIT
 * Leases: sessions of a node that stands for the store and has no health checks,
 * so that no agent's end ends them. A session's key is locked by it once and
 * vanishes in the log entry that ends the session. */
#include "backends/consul/consul.h"

#include <string.h>

#define MAX_ANSWER ((size_t)64 << 10)

/* Each of them goes out once, also those that would do no harm twice: a second one
 * that can't be sent would hide that the first may have been carried out. */
static int put(struct icm_consul *c, const struct icm_ctx *ctx, const char *path, const char *body,
	       struct answer *a, char **ret_why)
{
	struct request rq = {
		.method = "PUT",
		.path = path,
		.body = body,
		.len = body ? strlen(body) : 0,
		.writes = true,
		.max_answer = MAX_ANSWER,
	};

	return consul_call(c, ctx, &rq, CALL_PERSISTS, a, ret_why);
}

static bool says(const struct answer *a, const char *words)
{
	return a->body.data && strstr(a->body.data, words);
}

int lease_node(struct icm_consul *c, const struct icm_ctx *ctx, char **ret_why)
{
	ICM_AUTOFREE char *body =
		icm_asprintf("{\"Node\":\"%s\",\"Address\":\"127.0.0.1\"}", c->node);
	ANSWER_AUTO struct answer a = { 0 };
	int r = put(c, ctx, "/v1/catalog/register", body, &a, ret_why);

	if (r)
		return r;
	return a.status == 200 ? 0 : -ETIMEDOUT;
}

/* ---- opening ---- */

static int session_create(struct icm_consul *c, const struct icm_ctx *ctx, uint32_t ttl_ms,
			  char id[static 37], char **ret_why)
{
	ICM_AUTOBUF struct icm_buf body = ICM_BUF_INIT(0);
	ANSWER_AUTO struct answer a = { 0 };
	int r;

	icm_buf_addc(&body, '{');
	/* without: the agent's own node, still without its checks */
	if (c->node[0])
		icm_buf_addf(&body, "\"Node\":\"%s\",", c->node);
	icm_buf_addf(&body,
		     "\"Name\":\"icmfs\",\"NodeChecks\":[],\"TTL\":\"%ums\",\"LockDelay\":\"0s\","
		     "\"Behavior\":\"delete\"}",
		     ttl_ms);
	r = put(c, ctx, "/v1/session/create", body.data, &a, ret_why);
	if (r)
		return r;
	if (a.status != 200)
		return -ETIMEDOUT;
	return wire_session(a.body.data, a.body.len, id) ? -ETIMEDOUT : 0;
}

static int session_destroy(struct icm_consul *c, const struct icm_ctx *ctx, const char *id)
{
	ICM_AUTOFREE char *path = icm_asprintf("/v1/session/destroy/%s", id);
	ANSWER_AUTO struct answer a = { 0 };
	int r = put(c, ctx, path, NULL, &a, NULL);

	if (r)
		return r;
	return a.status == 200 ? 0 : -ETIMEDOUT;
}

/* Makes the key, locked by the session: {"Verb":"lock"} in a transaction, whose
 * answer has its index. */
static int key_lock(struct icm_consul *c, const struct icm_ctx *ctx, const char *id,
		    const struct icm_op *op, uint64_t *ret_index)
{
	ICM_AUTORESULT struct icm_txn_result result = { 0 };
	ICM_AUTOBUF struct icm_buf body = ICM_BUF_INIT(0);
	ANSWER_AUTO struct answer a = { 0 };
	int r;

	icm_buf_addc(&body, '[');
	wire_add_lock(&body, c->settings.prefix, op, id);
	icm_buf_addc(&body, ']');
	r = put(c, ctx, "/v1/txn", body.data, &a, NULL);
	if (r)
		return r;
	if (a.status == 409)
		return says(&a, "Permission denied") ? -EACCES : -EIO;
	if (a.status != 200)
		return a.status == 413 ? -EFBIG : -ETIMEDOUT;
	r = wire_results(a.body.data, a.body.len, c->settings.prefix, op, 1, &result);
	if (r || !result.index)
		return -ETIMEDOUT;
	*ret_index = result.index;
	return 0;
}

int consul_lease_open(struct icm_backend *be, const struct icm_ctx *ctx, uint32_t ttl_ms,
		      const void *value, size_t len, struct icm_lease *ret_lease)
{
	struct icm_consul *c = consul_of(be);
	struct icm_op op = { .type = ICM_OP_SET, .value = value, .len = len };
	ICM_AUTOFREE char *key = NULL, *why = NULL;
	char id[37];
	int r;

	r = session_create(c, ctx, ttl_ms, id, &why);
	/* nothing was made: somebody removed the node */
	if (r == -ETIMEDOUT && why && strstr(why, "Missing node registration")) {
		r = lease_node(c, ctx, NULL);
		if (!r)
			r = session_create(c, ctx, ttl_ms, id, NULL);
	}
	if (r)
		return r;
	op.key = key = icm_asprintf("lease/%s", id);
	r = key_lock(c, ctx, id, &op, &ret_lease->index);
	if (r) {
		/* its end would end the key too, only later */
		(void)session_destroy(c, ctx, id);
		return r;
	}
	ret_lease->key = ICM_STEAL(&key);
	ret_lease->ttl_ms = ttl_ms;
	return 0;
}

/* ---- afterwards ---- */

static const char *session_of(const struct icm_lease *lease)
{
	return lease->key + strlen("lease/");
}

int consul_lease_renew(struct icm_backend *be, const struct icm_ctx *ctx,
		       const struct icm_lease *lease)
{
	ICM_AUTOFREE char *path = icm_asprintf("/v1/session/renew/%s", session_of(lease));
	ANSWER_AUTO struct answer a = { 0 };
	int r = put(consul_of(be), ctx, path, NULL, &a, NULL);

	if (r)
		return r;
	/* "Session id '…' not found", and no page of some other server */
	if (a.status == 404 && says(&a, session_of(lease)))
		return -ENOENT;
	return a.status == 200 ? 0 : -ETIMEDOUT;
}

/* Whether the key is gone, by a read that sees every write before it. */
static int key_gone(struct icm_backend *be, const struct icm_ctx *ctx, const char *key, bool *ret)
{
	struct icm_ctx look = { .deadline_ns = ctx->deadline_ns,
				.cancel = ctx->cancel,
				.consistent = true };
	ICM_AUTOENTRY struct icm_entry e = { 0 };
	int r = kv_get(be, &look, key, &e);

	*ret = r == -ENOENT;
	return r == -ENOENT ? 0 : r;
}

int consul_lease_close(struct icm_backend *be, const struct icm_ctx *ctx,
		       const struct icm_lease *lease)
{
	struct icm_op op = { .type = ICM_OP_DELETE, .key = lease->key };
	ICM_AUTORESULT struct icm_txn_result result = { 0 };
	struct icm_consul *c = consul_of(be);
	bool gone = false;
	int r;

	r = session_destroy(c, ctx, session_of(lease));
	if (r)
		return r;
	r = key_gone(be, ctx, lease->key, &gone);
	if (r || gone)
		return r;
	/* it lost its session: somebody deleted and made it anew */
	return kv_txn(be, ctx, &op, 1, &result);
}
