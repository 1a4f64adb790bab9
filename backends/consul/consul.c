/* SPDX-License-Identifier: MIT
 * The Consul driver's table: opening, and what the store can. */
#include "backends/consul/consul.h"

#include <jansson.h>
#include <string.h>

#include "backends/url.h"
#include "util/digest.h"
#include "util/log.h"

/* To reach the store at all: an election takes some seconds. */
#define OPEN_NS (10 * ICM_NS_PER_S)

/* For agents' limits; those that don't answer in time are taken to have the usual
 * ones. */
#define LIMITS_NS (5 * ICM_NS_PER_S)

/* An agent's description of itself is some 10 KiB. */
#define MAX_SELF ((size_t)1 << 20)

/* libcurl would ask before it sends a large body, and wait for the answer */
static char no_expect[] = "Expect:";

static pthread_once_t configured = PTHREAD_ONCE_INIT;

static void configure(void)
{
	curl_global_init(CURL_GLOBAL_DEFAULT);
}

static void free_store(struct icm_consul *c)
{
	http_forget(c);
	/* the strings of the headers are the settings' */
	for (struct curl_slist *h = c->headers, *next; h; h = next) {
		next = h->next;
		free(h);
	}
	settings_clear(&c->settings);
	for (size_t i = 0; i < CONSUL_TOLD; i++)
		free(c->told[i].prefix);
	pthread_cond_destroy(&c->woken);
	pthread_mutex_destroy(&c->lock);
	free(c);
}

static struct icm_consul *new_store(void)
{
	struct icm_consul *c = icm_xcalloc(1, sizeof(*c));
	pthread_condattr_t attr;

	pthread_mutex_init(&c->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&c->woken, &attr);
	pthread_condattr_destroy(&attr);
	return c;
}

/* By hand and not with curl_slist_append(), which would copy the token. */
static void add_header(struct icm_consul *c, char *line)
{
	struct curl_slist *h;

	if (!line)
		return;
	h = icm_xcalloc(1, sizeof(*h));
	h->data = line;
	h->next = c->headers;
	c->headers = h;
}

/* ---- limits ---- */

static size_t limit_of(const json_t *config, const char *name, size_t otherwise)
{
	json_int_t v = json_integer_value(json_object_get(config, name));

	/* an own bound, so that no answer is the reason for a huge allocation */
	return v > 0 && v <= (64 << 20) ? (size_t)v : otherwise;
}

struct limits {
	size_t value_bytes, txn_bytes;
};

/* What the agent at one address takes. Larger limits than usual are known only to
 * who may read its configuration. */
static struct limits limits_at(struct icm_consul *c, const struct icm_ctx *ctx, size_t address)
{
	struct request rq = { .method = "GET", .path = "/v1/agent/self", .max_answer = MAX_SELF };
	struct limits limits = { CONSUL_VALUE_BYTES, CONSUL_TXN_BYTES };
	ANSWER_AUTO struct answer a = { 0 };
	json_t *self, *config;

	if (http_send(c, address, ctx, ctx->deadline_ns, &rq, &a, NULL) || a.status != 200)
		return limits;
	self = json_loadb(a.body.data, a.body.len, 0, NULL);
	config = json_object_get(self, "DebugConfig");
	limits.value_bytes = limit_of(config, "KVMaxValueSize", limits.value_bytes);
	limits.txn_bytes = limit_of(config, "TxnMaxReqLen", limits.txn_bytes);
	json_decref(self);
	return limits;
}

static size_t smaller(size_t a, size_t b)
{
	return a < b ? a : b;
}

/* Any of the agents may be the one that a call goes to. */
static void read_limits(struct icm_consul *c, const struct icm_ctx *ctx)
{
	struct icm_facts *f = &c->be.facts;

	f->max_value_bytes = f->max_txn_bytes = SIZE_MAX;
	for (size_t i = 0; i < c->settings.n_addresses; i++) {
		struct limits limits = limits_at(c, ctx, i);

		f->max_value_bytes = smaller(f->max_value_bytes, limits.value_bytes);
		/* one for the bracket before the first operation */
		f->max_txn_bytes = smaller(f->max_txn_bytes, limits.txn_bytes - 1);
	}
}

/* ---- opening ---- */

/* Whether the token may write everywhere, as asked of one key in each folder: Consul
 * wants the right to write also for check-not-exists. 0 with *ret_denied: the first
 * where it may not, or NULL; *ret_some: it may in others. */
static int may_write(struct icm_consul *c, const struct icm_ctx *ctx, const char **ret_denied,
		     bool *ret_some)
{
	struct icm_op ops[CONSUL_TXN_OPS] = { 0 };
	ICM_AUTORESULT struct icm_txn_result result = { 0 };
	size_t n = 0;
	int r;

	for (; kv_folders[n]; n++)
		ops[n] = (struct icm_op){ .type = ICM_OP_CHECK_ABSENT, .key = kv_folders[n] };
	r = kv_txn(&c->be, ctx, ops, n, &result);
	*ret_denied = NULL;
	*ret_some = result.n_errors < n;
	/* -ESTALE: a key is there, which is no matter of rights */
	if (r != -EACCES)
		return r == -ESTALE ? 0 : r;
	*ret_denied = ops[result.n_errors ? result.errors[0].op : 0].key;
	return 0;
}

static int may_read(struct icm_consul *c, const struct icm_ctx *ctx, char **ret_error)
{
	ICM_AUTOFREE char *why = NULL;
	int r = 0;

	for (size_t i = 0; kv_folders[i] && !r; i++) {
		r = kv_may_read(c, ctx, CALL_PERSISTS, kv_folders[i], &why);
		if (r == -EACCES)
			*ret_error =
				icm_asprintf("Consul's access rules hide \"%s%s\" (%s)",
					     c->settings.prefix, kv_folders[i], why ? why : "403");
		else if (r)
			*ret_error = icm_asprintf("Consul stopped answering: %s",
						  why ? why : strerror(-r));
	}
	return r;
}

static int reach(struct icm_consul *c, const struct icm_ctx *ctx, char **ret_error)
{
	ICM_AUTOFREE char *why = NULL;
	int r = kv_may_read(c, ctx, CALL_ONCE, "meta", &why);

	if (r == -EACCES)
		*ret_error = icm_asprintf("Consul refuses to read \"%s\" (%s)", c->settings.prefix,
					  why ? why : "403");
	else if (r)
		*ret_error = icm_asprintf("cannot reach Consul at \"%s\": %s",
					  c->settings.socket ? c->settings.socket
							     : c->settings.addresses[0],
					  why ? why : strerror(-r));
	return r;
}

static void set_node(struct icm_consul *c)
{
	struct icm_sha256 sum = icm_sha256(c->settings.prefix, strlen(c->settings.prefix));
	char hex[ICM_SHA256_HEX + 1];

	icm_sha256_to_hex(&sum, hex);
	snprintf(c->node, sizeof(c->node), "icmfs-%.16s", hex);
}

/* Makes the store read-only where the token may not write all of it. */
static int ask_for_writing(struct icm_consul *c, const struct icm_ctx *ctx, char **ret_error)
{
	const char *denied = NULL;
	bool some = false;
	int r = may_write(c, ctx, &denied, &some);

	if (r) {
		*ret_error = icm_asprintf("Consul doesn't say whether \"%s\" may be written: %s",
					  c->settings.prefix, strerror(-r));
		return r;
	}
	if (!denied)
		return 0;
	if (some)
		icm_log_warning("the token may write a part of \"%s\", but not \"%s\": read-only",
				c->settings.prefix, denied);
	else
		icm_log_info("the token may only read \"%s\"", c->settings.prefix);
	c->be.facts.read_only = true;
	return 0;
}

/* What writing needs; what reading needs, where the right to write doesn't imply it. */
static int ask_for_rights(struct icm_consul *c, const struct icm_ctx *ctx, char **ret_error)
{
	int r = c->be.facts.read_only ? 0 : ask_for_writing(c, ctx, ret_error);

	if (r)
		return r;
	if (c->be.facts.read_only)
		return may_read(c, ctx, ret_error);
	set_node(c);
	if (lease_node(c, ctx, NULL) == -EACCES) {
		c->node[0] = '\0';
		c->be.facts.note = "locks end with the local agent: the token may not register"
				   " a node";
	}
	return 0;
}

static int connect_store(struct icm_consul *c, char **ret_error)
{
	struct icm_ctx ctx = { .deadline_ns = icm_now_ns() + OPEN_NS };
	int r = reach(c, &ctx, ret_error);

	if (r)
		return r;
	ctx.deadline_ns = icm_now_ns() + LIMITS_NS;
	read_limits(c, &ctx);
	ctx.deadline_ns = icm_now_ns() + OPEN_NS;
	return ask_for_rights(c, &ctx, ret_error);
}

static int open_store(const struct icm_url *url, const struct icm_open_options *options,
		      struct icm_backend **ret_be, char **ret_error)
{
	struct icm_consul *c;
	int r;

	pthread_once(&configured, configure);
	c = new_store();
	c->be.facts = (struct icm_facts){
		.max_value_bytes = CONSUL_VALUE_BYTES,
		.max_txn_ops = CONSUL_TXN_OPS,
		.max_txn_bytes = CONSUL_TXN_BYTES - 1,
		.max_key_bytes = 16384,
		.lease_ttl_min_ms = 10 * 1000,
		.lease_ttl_max_ms = 86400 * 1000,
		.lease_renewal = true,
		.foreign_writers = true,
		.lock_scope = ICM_LOCK_CLUSTER,
		.read_only = options->read_only,
	};
	r = settings_read(url, &c->settings, ret_error);
	if (!r) {
		add_header(c, no_expect);
		add_header(c, c->settings.token_header);
		add_header(c, c->settings.namespace_header);
		r = connect_store(c, ret_error);
	}
	if (r) {
		free_store(c);
		return r;
	}
	/* connections and a fork don't go together */
	http_forget(c);
	*ret_be = &c->be;
	return 0;
}

static int start_store(struct icm_backend *be)
{
	return 0;
}

static void close_store(struct icm_backend *be)
{
	free_store(consul_of(be));
}

static void wake(struct icm_backend *be)
{
	http_wake(consul_of(be));
}

static const char *const schemes[] = { "consul", "consul+https", "consul+unix", NULL };

extern const struct icm_backend_ops icm_backend_consul;
const struct icm_backend_ops icm_backend_consul = {
	.name = "consul",
	.schemes = schemes,
	.summary = "Consul's key-value store; mounts on many hosts",
	.open = open_store,
	.start = start_store,
	.close = close_store,
	.get = kv_get,
	.list = kv_list,
	.index = kv_index,
	.txn = kv_txn,
	.watch = kv_watch,
	.wake = wake,
	.lease_open = consul_lease_open,
	.lease_renew = consul_lease_renew,
	.lease_close = consul_lease_close,
	.op_cost = kv_op_cost,
};
