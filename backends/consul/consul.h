/* SPDX-License-Identifier: MIT
 * The Consul driver's inside. The keys of a store are Consul's keys below
 * PREFIX/. Consul's HTTP interface is spoken to by pooled keep-alive
 * connections; measured facts about Consul 1.8.7 stand where they are used,
 * together in docs/consul.md.
 *
 * One rule for each request that changes something: it goes out once. Whether it
 * took place is unknown when its answer is missing, and only the caller, whose
 * transactions are conditional, can find out. */
#ifndef ICM_BACKENDS_CONSUL_CONSUL_H
#define ICM_BACKENDS_CONSUL_CONSUL_H

#include <curl/curl.h>
#include <pthread.h>
#include <sys/types.h>

#include "backends/backend.h"
#include "backends/consul/wire.h"
#include "util/clock.h"

#define CONSUL_MAX_ADDRESSES 16

/* Consul's own limits, where its agent doesn't say others. */
#define CONSUL_VALUE_BYTES 524288
#define CONSUL_TXN_BYTES   524288
#define CONSUL_TXN_OPS	   64

/* Prefixes that are watched at the same time, and some to spare. */
#define CONSUL_TOLD 4

/* How long a call without a deadline goes on trying. */
#define CONSUL_CALL_NS (30 * ICM_NS_PER_S)

/* Where and how, from the URL and the environment (settings.c); constant after
 * open. */
struct consul_settings {
	char *addresses[CONSUL_MAX_ADDRESSES]; /* owned; "https://host:8501" */
	size_t n_addresses;
	char *socket;		 /* owned; path of a unix socket, or NULL */
	char *prefix;		 /* owned; "icm/x/" */
	char *namespace_header;	 /* owned; "X-Consul-Namespace: …", or NULL */
	char *token_header;	 /* owned, outside of core dumps; "X-Consul-Token: …", or NULL */
	char *ca_file, *ca_path; /* owned; NULL: the system's */
	char *client_cert, *client_key; /* owned; or NULL */
	char *server_name;		/* owned; name in the certificate, or NULL: the address */
};

struct connection;

struct icm_consul {
	struct icm_backend be;
	struct consul_settings settings;
	struct curl_slist *headers; /* owned; of every request */
	char node[40];		    /* virtual node of the leases; "" = the agent's own */

	pthread_cond_t woken;	 /* by http_wake(); of the monotonic clock, used with `lock` */
	pthread_mutex_t lock;	 /* protects: */
	struct connection *idle; /* owned; newest first */
	struct connection *used; /* of the calls under way */
	unsigned n_idle;
	unsigned generation;  /* connections of an earlier one are not used again */
	size_t address;	      /* the one that answered last */
	struct told {	      /* what watches gave last, each for a prefix */
		char *prefix; /* owned; NULL: none */
		uint64_t index;
	} told[CONSUL_TOLD];
	unsigned next_told;
};

static inline struct icm_consul *consul_of(struct icm_backend *be)
{
	return ICM_CONTAINER(be, struct icm_consul, be);
}

/* ---- settings (settings.c) ---- */

/* From the URL and the environment; -EINVAL, -EACCES (a file that others may
 * read) or -ENOENT with a fresh line for the user. */
int settings_read(const struct icm_url *url, struct consul_settings *ret, char **ret_error);
void settings_clear(struct consul_settings *s);

/* ---- one request (http.c) ---- */

struct request {
	const char *method;
	const char *path; /* with its query */
	const void *body; /* NULL: none */
	size_t len;
	bool writes;	 /* changes something: goes out once; its sender is not to be cancelled */
	int64_t wait_ns; /* a blocking query's: the answer may take so much longer */
	size_t max_answer;
};

struct answer {
	long status;
	uint64_t index; /* X-Consul-Index; 0 = none */
	bool filtered;	/* the token may not see all of it (Consul 1.11 and later say so) */
	struct icm_buf body;
};

static inline void answer_clearp(struct answer *a)
{
	icm_buf_free(&a->body);
}
#define ANSWER_AUTO ICM_CLEANUP(answer_clearp)

/* Sends to the address of this number and waits for the whole answer, whatever
 * its status: at most a few seconds beyond rq->wait_ns without any progress, and
 * not beyond `deadline_ns`. -EHOSTUNREACH: certainly not sent; -ETIMEDOUT: sent, perhaps
 * in part, and no whole answer; -EPROTO: the answer isn't HTTP or too large;
 * -ECANCELED; -EINVAL: the server's certificate is not to be trusted (then
 * nothing was sent). *ret_why (may be NULL): fresh words about a failure. */
int http_send(struct icm_consul *c, size_t address, const struct icm_ctx *ctx, int64_t deadline_ns,
	      const struct request *rq, struct answer *ret, char **ret_why);
/* Makes every call under way look at its context's cancel flag. */
void http_wake(struct icm_consul *c);
/* Closes idle connections. */
void http_forget(struct icm_consul *c);

/* ---- one call (call.c) ---- */

/* Whether a read that fails is sent anew. */
enum persistence {
	CALL_PERSISTS, /* until the deadline */
	CALL_ONCE,     /* not where no address can be reached */
	CALL_SINGLE,   /* never */
};

/* The request with everything that has to be tried: the other addresses where
 * one can't be reached, a fresh connection for a read without an answer. Gives
 * 0 with a status of 200, 404, 409 or 413; otherwise a code of the interface's
 * vocabulary: -EACCES, -EHOSTUNREACH (nothing was done), -ETIMEDOUT (unknown),
 * -EPROTO (of a write: Consul didn't take it), -ECANCELED. *ret_why (may be NULL):
 * fresh words about a failure. */
int consul_call(struct icm_consul *c, const struct icm_ctx *ctx, const struct request *rq,
		enum persistence persistence, struct answer *ret, char **ret_why);

/* Sleeps, unless the context is cancelled (-ECANCELED, after a wake). */
int consul_pause(struct icm_consul *c, const struct icm_ctx *ctx, int64_t until_ns);
/* Half of it to all of it, at random, so that many mounts don't come at once. */
int64_t consul_jitter(int64_t ns);

/* ---- keys and transactions (kv.c) ---- */

static inline bool op_writes(const struct icm_op *op)
{
	return op->type == ICM_OP_SET || op->type == ICM_OP_CAS || op->type == ICM_OP_DELETE ||
	       op->type == ICM_OP_DELETE_CAS;
}

/* Appends "/v1/kv/<prefix><key>", percent-encoded. */
void kv_add_path(struct icm_buf *b, const struct icm_consul *c, const char *key);
int kv_get(struct icm_backend *be, const struct icm_ctx *ctx, const char *key,
	   struct icm_entry *ret_entry);
int kv_list(struct icm_backend *be, const struct icm_ctx *ctx, const char *prefix, bool keys_only,
	    struct icm_entries *ret_entries, uint64_t *ret_index);
/* Where a store's keys are (docs/data-model.md): the folders, and single keys. All
 * that the driver knows of them is that a token must have the same rights in all.
 * Ends with NULL. */
extern const char *const kv_folders[];
/* Whether the token may read this key, existing or not; -EACCES if not. */
int kv_may_read(struct icm_consul *c, const struct icm_ctx *ctx, enum persistence persistence,
		const char *key, char **ret_why);
int kv_index(struct icm_backend *be, const struct icm_ctx *ctx, const char *prefix,
	     uint64_t *ret_index);
int kv_watch(struct icm_backend *be, const struct icm_ctx *ctx, const char *prefix, uint64_t since,
	     uint64_t *ret_index);
int kv_txn(struct icm_backend *be, const struct icm_ctx *ctx, const struct icm_op *ops,
	   size_t n_ops, struct icm_txn_result *result);
size_t kv_op_cost(struct icm_backend *be, const struct icm_op *op);

/* ---- leases (lease.c) ---- */

/* Registers the virtual node; -EACCES where the token may not. */
int lease_node(struct icm_consul *c, const struct icm_ctx *ctx, char **ret_why);
int consul_lease_open(struct icm_backend *be, const struct icm_ctx *ctx, uint32_t ttl_ms,
		      const void *value, size_t len, struct icm_lease *ret_lease);
int consul_lease_renew(struct icm_backend *be, const struct icm_ctx *ctx,
		       const struct icm_lease *lease);
int consul_lease_close(struct icm_backend *be, const struct icm_ctx *ctx,
		       const struct icm_lease *lease);

#endif
