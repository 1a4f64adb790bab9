/* SPDX-License-Identifier: MIT
 * The in-memory driver: the reference of the contract, and the store of the
 * core's tests with faults on demand. */
#include "backends/memory/memory.h"

#include <assert.h>
#include <string.h>

#include "backends/memory/shared.h"
#include "backends/url.h"
#include "util/clock.h"
#include "util/digest.h"

/* Pause before a watch that is made to fail answers, so that its caller's loop
 * doesn't spin (the contract asks for it). */
#define WATCH_FAIL_PAUSE_NS (10 * ICM_NS_PER_MS)

struct memory {
	struct icm_backend be;
	struct shared *shared;	   /* a reference */
	icm_memory_fault_fn fault; /* protected by shared->lock, as is: */
	void *fault_userdata;
};

extern const struct icm_backend_ops icm_backend_memory;

static struct memory *memory_of(struct icm_backend *be)
{
	assert(be->ops == &icm_backend_memory);
	return ICM_CONTAINER(be, struct memory, be);
}

static void facts_local(struct icm_facts *f)
{
	*f = (struct icm_facts){ .local = true, .lock_scope = ICM_LOCK_HOST };
}

/* Consul 1.8.7: kv_max_value_size and the limit of a transaction's JSON body
 * are 512 KiB, 64 operations, session TTL from 10 s to 24 h. */
static void facts_consul(struct icm_facts *f)
{
	*f = (struct icm_facts){
		.max_value_bytes = 524288,
		.max_txn_ops = 64,
		.max_txn_bytes = 524288,
		.lease_ttl_min_ms = 10 * 1000,
		.lease_ttl_max_ms = 86400 * 1000,
		.lease_renewal = true,
		.foreign_writers = true,
		.lock_scope = ICM_LOCK_CLUSTER,
	};
}

static int memory_open(const struct icm_url *url, const struct icm_open_options *options,
		       struct icm_backend **ret_be, char **ret_error)
{
	struct memory *m = icm_xcalloc(1, sizeof(*m));

	m->shared = shared_ref(url->path);
	ICM_LOCK_SCOPE(&m->shared->lock);
	if (m->shared->consul_limits)
		facts_consul(&m->be.facts);
	else
		facts_local(&m->be.facts);
	m->be.facts.read_only = options->read_only;
	*ret_be = &m->be;
	return 0;
}

static int memory_start(struct icm_backend *be)
{
	return 0;
}

static void memory_close(struct icm_backend *be)
{
	struct memory *m = memory_of(be);

	shared_unref(m->shared);
	free(m);
}

/* ---- faults ---- */

static struct icm_memory_fault next_fault_locked(struct memory *m, enum icm_memory_call kind,
						 const struct icm_op *ops, size_t n_ops)
{
	struct shared *s = m->shared;
	struct icm_memory_fault f = { 0 };

	s->calls++;
	s->calls_of[__builtin_ctz(kind)]++;
	if (m->fault)
		f = m->fault(s->calls, kind, ops, n_ops, m->fault_userdata);
	if (f.fault == ICM_FAULT_NONE && s->fault)
		f = s->fault(s->calls, kind, ops, n_ops, s->fault_userdata);
	return f;
}

/* Waits until a time or the context's deadline; -ETIMEDOUT for the latter. */
static int pause_locked(struct shared *s, const struct icm_ctx *ctx, int64_t until_ns)
{
	bool cut = ctx->deadline_ns && ctx->deadline_ns < until_ns;
	int64_t end = cut ? ctx->deadline_ns : until_ns;

	while (icm_now_ns() < end) {
		if (ctx->cancel && atomic_load(ctx->cancel))
			return -ECANCELED;
		shared_wait_locked(s, end);
	}
	return cut ? -ETIMEDOUT : 0;
}

/* A call that reads: 0 when it is to go on. */
static int enter_read_locked(struct memory *m, const struct icm_ctx *ctx, enum icm_memory_call kind)
{
	struct icm_memory_fault f = next_fault_locked(m, kind, NULL, 0);

	switch (f.fault) {
	case ICM_FAULT_NONE:
		break;
	case ICM_FAULT_FAIL:
	case ICM_FAULT_FAIL_AFTER:
		if (kind == ICM_CALL_WATCH)
			pause_locked(m->shared, ctx, icm_now_ns() + WATCH_FAIL_PAUSE_NS);
		return f.error;
	case ICM_FAULT_LATE:
		return -ETIMEDOUT;
	case ICM_FAULT_DELAY:
		return pause_locked(m->shared, ctx, icm_now_ns() + f.late_ns);
	}
	if (store_lease_expire(&m->shared->data))
		pthread_cond_broadcast(&m->shared->changed);
	return 0;
}

static int fail_write(const struct icm_memory_fault *f, struct icm_txn_result *result)
{
	icm_txn_result_clear(result);
	if (f->error == -ESTALE || f->error == -EACCES)
		icm_txn_result_error(result, 0,
				     f->error == -ESTALE ? ICM_REASON_INDEX : ICM_REASON_DENIED);
	return f->error;
}

static int call_write(struct memory *m, const struct icm_ctx *ctx, enum icm_memory_call kind,
		      const struct write *w, struct icm_txn_result *result)
{
	struct shared *s = m->shared;
	struct icm_memory_fault f;
	int64_t due;
	int r;

	ICM_LOCK_SCOPE(&s->lock);
	f = next_fault_locked(m, kind, w->ops, w->n_ops);
	due = icm_now_ns() + f.late_ns;
	if (f.fault == ICM_FAULT_FAIL)
		return fail_write(&f, result);
	if (f.fault == ICM_FAULT_LATE) {
		shared_write_late_locked(s, w, due);
		return -ETIMEDOUT;
	}
	if (f.fault == ICM_FAULT_DELAY) {
		/* who gives up earlier has sent it all the same */
		if (ctx->deadline_ns && ctx->deadline_ns < due)
			shared_write_late_locked(s, w, due);
		r = pause_locked(s, &(struct icm_ctx){ .deadline_ns = ctx->deadline_ns }, due);
		if (r)
			return r;
	}
	r = shared_write_locked(s, w, result);
	return f.fault == ICM_FAULT_FAIL_AFTER ? fail_write(&f, result) : r;
}

/* ---- the driver's table ---- */

static int memory_get(struct icm_backend *be, const struct icm_ctx *ctx, const char *key,
		      struct icm_entry *ret_entry)
{
	struct memory *m = memory_of(be);
	const struct store_node *n;
	int r;

	ICM_LOCK_SCOPE(&m->shared->lock);
	r = enter_read_locked(m, ctx, ICM_CALL_GET);
	if (r)
		return r;
	n = store_find(&m->shared->data, key);
	if (!n)
		return -ENOENT;
	store_entry(n, false, 0, ret_entry);
	return 0;
}

/* Consul's `?keys` answers with names alone. */
static void forget_all_but_keys(struct icm_entries *list)
{
	for (size_t i = 0; i < list->n; i++)
		list->v[i].flags = list->v[i].create_index = list->v[i].modify_index = 0;
}

static int memory_list(struct icm_backend *be, const struct icm_ctx *ctx, const char *prefix,
		       bool keys_only, struct icm_entries *ret_entries, uint64_t *ret_index)
{
	struct memory *m = memory_of(be);
	int r;

	ICM_LOCK_SCOPE(&m->shared->lock);
	r = enter_read_locked(m, ctx, ICM_CALL_LIST);
	if (r)
		return r;
	store_list(&m->shared->data, prefix, keys_only, 0, ret_entries);
	if (keys_only && m->shared->consul_limits)
		forget_all_but_keys(ret_entries);
	*ret_index = m->shared->data.index;
	return 0;
}

/* As Consul: by what was changed below a prefix; else one index for all. */
static uint64_t index_of_locked(struct memory *m, const char *prefix)
{
	const struct store *data = &m->shared->data;

	return m->be.facts.foreign_writers ? store_prefix_index(data, prefix) : data->index;
}

static int memory_index(struct icm_backend *be, const struct icm_ctx *ctx, const char *prefix,
			uint64_t *ret_index)
{
	struct memory *m = memory_of(be);
	int r;

	ICM_LOCK_SCOPE(&m->shared->lock);
	r = enter_read_locked(m, ctx, ICM_CALL_INDEX);
	if (!r)
		*ret_index = index_of_locked(m, prefix);
	return r;
}

static int memory_txn(struct icm_backend *be, const struct icm_ctx *ctx, const struct icm_op *ops,
		      size_t n_ops, struct icm_txn_result *result)
{
	struct write w = { .type = WRITE_TXN, .ops = ops, .n_ops = n_ops };

	return call_write(memory_of(be), ctx, ICM_CALL_TXN, &w, result);
}

/* The time at which a watch has to look again. */
static int64_t watch_until(const struct store *data, const struct icm_ctx *ctx)
{
	int64_t expiry = store_lease_next_expiry(data), until = ctx->deadline_ns;

	if (expiry) {
		/* by the other clock */
		expiry += icm_now_ns() - icm_boottime_ns();
		if (!until || expiry < until)
			until = expiry > 0 ? expiry : 1;
	}
	return until;
}

static int memory_watch(struct icm_backend *be, const struct icm_ctx *ctx, const char *prefix,
			uint64_t since, uint64_t *ret_index)
{
	struct memory *m = memory_of(be);
	struct shared *s = m->shared;
	int r;

	ICM_LOCK_SCOPE(&s->lock);
	r = enter_read_locked(m, ctx, ICM_CALL_WATCH);
	if (r)
		return r;
	for (;;) {
		if (ctx->cancel && atomic_load(ctx->cancel))
			return -ECANCELED;
		if (store_lease_expire(&s->data))
			pthread_cond_broadcast(&s->changed);
		if (index_of_locked(m, prefix) != since)
			break;
		if (ctx->deadline_ns && icm_now_ns() >= ctx->deadline_ns)
			return -ETIMEDOUT;
		shared_wait_locked(s, watch_until(&s->data, ctx));
	}
	*ret_index = index_of_locked(m, prefix);
	return 0;
}

static void memory_wake(struct icm_backend *be)
{
	struct memory *m = memory_of(be);

	ICM_LOCK_SCOPE(&m->shared->lock);
	pthread_cond_broadcast(&m->shared->changed);
}

static int memory_lease_open(struct icm_backend *be, const struct icm_ctx *ctx, uint32_t ttl_ms,
			     const void *value, size_t len, struct icm_lease *ret_lease)
{
	ICM_AUTORESULT struct icm_txn_result result = { 0 };
	ICM_AUTOFREE char *key = NULL;
	char id[ICM_ID_HEX + 1];
	int r;

	icm_random_id(id);
	key = icm_asprintf("lease/%s", id);
	r = call_write(memory_of(be), ctx, ICM_CALL_LEASE,
		       &(struct write){ .type = WRITE_LEASE_OPEN,
					.key = key,
					.value = value,
					.len = len,
					.ttl_ms = ttl_ms,
					.renewal = be->facts.lease_renewal },
		       &result);
	if (r)
		return r;
	ret_lease->key = ICM_STEAL(&key);
	ret_lease->index = result.index;
	ret_lease->ttl_ms = ttl_ms;
	return 0;
}

static int memory_lease_renew(struct icm_backend *be, const struct icm_ctx *ctx,
			      const struct icm_lease *lease)
{
	ICM_AUTORESULT struct icm_txn_result result = { 0 };
	struct write w = { .type = WRITE_LEASE_RENEW, .key = lease->key };

	return call_write(memory_of(be), ctx, ICM_CALL_LEASE, &w, &result);
}

static int memory_lease_close(struct icm_backend *be, const struct icm_ctx *ctx,
			      const struct icm_lease *lease)
{
	ICM_AUTORESULT struct icm_txn_result result = { 0 };
	struct write w = { .type = WRITE_LEASE_CLOSE, .key = lease->key };

	return call_write(memory_of(be), ctx, ICM_CALL_LEASE, &w, &result);
}

/* Never below what the operation takes in Consul's transaction body:
 * {"KV":{"Verb":"check-not-exists","Key":"","Value":"","Flags":N,"Index":N}},
 * is 113 bytes with two numbers of 20 digits. */
static size_t memory_op_cost(struct icm_backend *be, const struct icm_op *op)
{
	size_t cost = 128;

	if (be->facts.local)
		return strlen(op->key) + op->len;
	for (const char *p = op->key; *p; p++)
		cost += *p == '"' || *p == '\\' ? 2 : 1;
	return cost + (op->len + 2) / 3 * 4;
}

static const char *const memory_schemes[] = { "memory", NULL };

const struct icm_backend_ops icm_backend_memory = {
	.name = "memory",
	.schemes = memory_schemes,
	.summary = "in the memory of this process, for tests",
	.open = memory_open,
	.start = memory_start,
	.close = memory_close,
	.get = memory_get,
	.list = memory_list,
	.index = memory_index,
	.txn = memory_txn,
	.watch = memory_watch,
	.wake = memory_wake,
	.lease_open = memory_lease_open,
	.lease_renew = memory_lease_renew,
	.lease_close = memory_lease_close,
	.op_cost = memory_op_cost,
};

/* ---- control, for tests ---- */

void icm_memory_set_fault(struct icm_backend *be, icm_memory_fault_fn fn, void *userdata)
{
	struct shared *s = memory_of(be)->shared;

	ICM_LOCK_SCOPE(&s->lock);
	s->fault = fn;
	s->fault_userdata = userdata;
}

void icm_memory_set_instance_fault(struct icm_backend *be, icm_memory_fault_fn fn, void *userdata)
{
	struct memory *m = memory_of(be);

	ICM_LOCK_SCOPE(&m->shared->lock);
	m->fault = fn;
	m->fault_userdata = userdata;
}

void icm_memory_set_consul_limits(struct icm_backend *be)
{
	struct shared *s = memory_of(be)->shared;
	bool read_only = be->facts.read_only;

	ICM_LOCK_SCOPE(&s->lock);
	s->consul_limits = true;
	facts_consul(&be->facts);
	be->facts.read_only = read_only;
}

int icm_memory_expire_lease(struct icm_backend *be, const char *key)
{
	struct shared *s = memory_of(be)->shared;
	int r;

	ICM_LOCK_SCOPE(&s->lock);
	r = store_lease_end(&s->data, key);
	if (!r)
		pthread_cond_broadcast(&s->changed);
	return r;
}

static void replace(struct store *to, struct store *by)
{
	store_deinit(to);
	store_copy(to, by);
}

void icm_memory_save(struct icm_backend *be)
{
	struct shared *s = memory_of(be)->shared;

	ICM_LOCK_SCOPE(&s->lock);
	replace(&s->saved, &s->data);
}

void icm_memory_restore(struct icm_backend *be)
{
	struct shared *s = memory_of(be)->shared;

	ICM_LOCK_SCOPE(&s->lock);
	replace(&s->data, &s->saved);
	pthread_cond_broadcast(&s->changed);
}

uint64_t icm_memory_calls(struct icm_backend *be, unsigned kinds)
{
	struct shared *s = memory_of(be)->shared;
	uint64_t n = 0;

	ICM_LOCK_SCOPE(&s->lock);
	for (size_t i = 0; i < ICM_COUNT(s->calls_of); i++)
		if (kinds >> i & 1)
			n += s->calls_of[i];
	return n;
}

void icm_memory_settle(struct icm_backend *be)
{
	struct shared *s = memory_of(be)->shared;

	ICM_LOCK_SCOPE(&s->lock);
	while (s->late)
		shared_wait_locked(s, 0);
}
