/* SPDX-License-Identifier: MIT
 * A request with all that has to be tried, and what Consul's statuses mean. */
#include "backends/consul/consul.h"

#include <string.h>

#include "util/digest.h"

#define PAUSE_FIRST_NS (20 * ICM_NS_PER_MS)
#define PAUSE_MOST_NS  ICM_NS_PER_S

/* Failures of the agent (status 500) before the request reached what carries it
 * out. Every other may have come after: a leader that is deposed while it
 * commits, a connection between agents that ends. */
static bool certainly_not_done(const struct icm_buf *body)
{
	static const char *const words[] = {
		"No cluster leader",	      /* nobody to hand it to */
		"No known Consul servers",    /* likewise, at a client agent */
		"failed to get conn",	      /* the next hop can't be reached */
		"rate limit",		      /* refused at the door */
		"raft apply is not possible", /* so is this */
	};

	for (size_t i = 0; i < ICM_COUNT(words); i++)
		if (body->data && strstr(body->data, words[i]))
			return true;
	return false;
}

static void say(char **ret_why, const struct answer *a)
{
	size_t n;

	if (!ret_why)
		return;
	/* the first line of what it says, without control characters */
	n = a->body.data ? strcspn(a->body.data, "\r\n") : 0;
	free(*ret_why);
	*ret_why = icm_asprintf("status %ld: %.*s", a->status, (int)(n < 200 ? n : 200),
				a->body.data ? a->body.data : "");
	for (char *p = *ret_why; *p; p++)
		if ((unsigned char)*p < 0x20 || *p == 0x7f)
			*p = '?';
}

/* The code for an answer. */
static int judge(const struct request *rq, const struct answer *a, char **ret_why)
{
	switch (a->status) {
	case 200:
	case 404:
	case 409:
	case 413:
		return 0;
	}
	say(ret_why, a);
	if (a->status == 403)
		return -EACCES;
	if (a->status == 429 || (a->status >= 500 && certainly_not_done(&a->body)))
		return -EHOSTUNREACH;
	if (a->status >= 500)
		return -ETIMEDOUT;
	/* Consul didn't understand it: nothing was done. */
	if (a->status == 400)
		return -EPROTO;
	/* A redirect, a page of some other server: not Consul as we know it. What
	 * it made of a write is not known. */
	return rq->writes ? -ETIMEDOUT : -EPROTO;
}

static size_t address_now(struct icm_consul *c)
{
	ICM_LOCK_SCOPE(&c->lock);
	return c->address;
}

static void address_works(struct icm_consul *c, size_t address)
{
	ICM_LOCK_SCOPE(&c->lock);
	c->address = address;
}

/* Each address at most once, from the one that answered last. Goes on to the next
 * where the request was certainly not carried out. */
static int each_address(struct icm_consul *c, const struct icm_ctx *ctx, int64_t deadline_ns,
			const struct request *rq, struct answer *ret, char **ret_why)
{
	size_t n = c->settings.n_addresses, first = address_now(c);
	int r = -EHOSTUNREACH;

	for (size_t i = 0; i < n; i++) {
		size_t address = (first + i) % n;

		r = http_send(c, address, ctx, deadline_ns, rq, ret, ret_why);
		if (!r)
			r = judge(rq, ret, ret_why);
		if (r == 0)
			address_works(c, address);
		else if (r == -ETIMEDOUT)
			/* whoever comes next begins with another */
			address_works(c, (address + 1) % n);
		if (r != -EHOSTUNREACH)
			break;
		if (deadline_ns && icm_now_ns() >= deadline_ns)
			break;
	}
	/* what else is idle may be as dead */
	if (r == -EHOSTUNREACH || r == -ETIMEDOUT)
		http_forget(c);
	return r;
}

/* ---- pauses ---- */

static bool cancelled(const struct icm_ctx *ctx)
{
	return ctx->cancel && atomic_load(ctx->cancel);
}

int consul_pause(struct icm_consul *c, const struct icm_ctx *ctx, int64_t until_ns)
{
	struct timespec ts = icm_ns_to_timespec(until_ns);

	ICM_LOCK_SCOPE(&c->lock);
	while (!cancelled(ctx) && icm_now_ns() < until_ns)
		pthread_cond_timedwait(&c->woken, &c->lock, &ts);
	return cancelled(ctx) ? -ECANCELED : 0;
}

int64_t consul_jitter(int64_t ns)
{
	return ns / 2 + (int64_t)(icm_random_u64() % (uint64_t)(ns / 2 + 1));
}

static int pause_before(struct icm_consul *c, const struct icm_ctx *ctx, int64_t deadline_ns,
			int64_t *pause_ns)
{
	int64_t until = icm_now_ns() + consul_jitter(*pause_ns);

	*pause_ns = 2 * *pause_ns < PAUSE_MOST_NS ? 2 * *pause_ns : PAUSE_MOST_NS;
	return consul_pause(c, ctx, until < deadline_ns ? until : deadline_ns);
}

/* ---- one call ---- */

/* Whether a read that failed this way is tried once more. */
static bool again(enum persistence persistence, int r, const struct answer *a)
{
	if ((r != -EHOSTUNREACH && r != -ETIMEDOUT) || persistence == CALL_SINGLE)
		return false;
	/* an agent that answers is likely to have a leader soon */
	return persistence == CALL_PERSISTS || r == -ETIMEDOUT || a->status;
}

int consul_call(struct icm_consul *c, const struct icm_ctx *ctx, const struct request *rq,
		enum persistence persistence, struct answer *ret, char **ret_why)
{
	int64_t deadline = ctx->deadline_ns ? ctx->deadline_ns : icm_now_ns() + CONSUL_CALL_NS;
	int64_t pause = PAUSE_FIRST_NS;
	int r, p;

	for (;;) {
		r = each_address(c, ctx, deadline, rq, ret, ret_why);
		if (r == -EINVAL)
			return -EHOSTUNREACH;
		/* no HTTP at all: a write may have been carried out all the same */
		if (rq->writes)
			return r == -EPROTO && !ret->status ? -ETIMEDOUT : r;
		if (!again(persistence, r, ret))
			return r;
		p = pause_before(c, ctx, deadline, &pause);
		if (p == -ECANCELED)
			return p;
		if (icm_now_ns() >= deadline)
			return r;
	}
}
