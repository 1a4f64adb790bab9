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
	pthread_mutex_destroy(&c->lock);
	free(c);
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
	return v >= CONSUL_VALUE_BYTES && v <= (64 << 20) ? (size_t)v : otherwise;
}

/* Larger ones than usual are known only to who may read the agent's
 * configuration. */
static void read_limits(struct icm_consul *c, const struct icm_ctx *ctx)
{
	struct request rq = { .method = "GET", .path = "/v1/agent/self", .max_answer = MAX_SELF };
	struct icm_facts *f = &c->be.facts;
	ANSWER_AUTO struct answer a = { 0 };
	json_t *self, *config;

	if (consul_call(c, ctx, &rq, CALL_ONCE, &a, NULL) || a.status != 200)
		return;
	self = json_loadb(a.body.data, a.body.len, 0, NULL);
	config = json_object_get(self, "DebugConfig");
	f->max_value_bytes = limit_of(config, "KVMaxValueSize", f->max_value_bytes);
	/* two brackets, less the comma that the last operation doesn't need */
	f->max_txn_bytes = limit_of(config, "TxnMaxReqLen", CONSUL_TXN_BYTES) - 1;
	json_decref(self);
}

/* ---- opening ---- */

/* Whether the token may write here: Consul asks that of check-not-exists too. */
static bool may_write(struct icm_consul *c, const struct icm_ctx *ctx)
{
	struct icm_op op = { .type = ICM_OP_CHECK_ABSENT, .key = "lease/none" };
	ICM_AUTORESULT struct icm_txn_result result = { 0 };

	return kv_txn(&c->be, ctx, &op, 1, &result) != -EACCES;
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

/* What writing needs. */
static void prepare_writing(struct icm_consul *c, const struct icm_ctx *ctx)
{
	if (c->be.facts.read_only)
		return;
	if (!may_write(c, ctx)) {
		icm_log_info("the token may only read \"%s\"", c->settings.prefix);
		c->be.facts.read_only = true;
		return;
	}
	set_node(c);
	if (lease_node(c, ctx, NULL) == -EACCES) {
		c->node[0] = '\0';
		c->be.facts.note = "locks end with the local agent: the token may not register"
				   " a node";
	}
}

static int open_store(const struct icm_url *url, const struct icm_open_options *options,
		      struct icm_backend **ret_be, char **ret_error)
{
	struct icm_ctx ctx = { .deadline_ns = icm_now_ns() + OPEN_NS };
	struct icm_consul *c;
	int r;

	pthread_once(&configured, configure);
	c = icm_xcalloc(1, sizeof(*c));
	pthread_mutex_init(&c->lock, NULL);
	c->be.facts = (struct icm_facts){
		.max_value_bytes = CONSUL_VALUE_BYTES,
		.max_txn_ops = CONSUL_TXN_OPS,
		.max_txn_bytes = CONSUL_TXN_BYTES - 1,
		.max_key_bytes = 16384,
		.lease_ttl_min_ms = 10 * 1000,
		.lease_ttl_max_ms = 86400 * 1000,
		.lease_renewal = true,
		.lock_scope = ICM_LOCK_CLUSTER,
		.read_only = options->read_only,
	};
	r = settings_read(url, &c->settings, ret_error);
	if (!r) {
		add_header(c, no_expect);
		add_header(c, c->settings.token_header);
		add_header(c, c->settings.namespace_header);
		r = reach(c, &ctx, ret_error);
	}
	if (r) {
		free_store(c);
		return r;
	}
	read_limits(c, &ctx);
	prepare_writing(c, &ctx);
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
