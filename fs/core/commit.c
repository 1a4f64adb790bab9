/* SPDX-License-Identifier: MIT
 * Group commit: whoever finds no transaction under way sends one for all parts
 * that wait; the others sleep until theirs is certain. One transaction is under
 * way at a time on a local store (it has one writer anyway), two elsewhere. */
#include "core/commit.h"

#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#include "core/feed.h"
#include "core/key.h"
#include "core/lease.h"
#include "core/upkeep.h"
#include "util/clock.h"
#include "util/log.h"

struct icm_commits {
	pthread_mutex_t lock;
	pthread_cond_t changed;		/* of the monotonic clock */
	struct icm_part *first, **last; /* waiting, in order of arrival */
	size_t n_waiting, n_sent;	/* parts that wait, and whose outcome isn't known */
	unsigned active, max_active;
	/* how many there were at once at most, lately and before that; since when */
	size_t peak, peak_before;
	int64_t peak_since_ns;
	int64_t last_ns;   /* how long the last transaction took */
	bool gathers;	   /* on a distant store: several parts are worth waiting for */
	bool is_gathering; /* somebody does, and will send what waits */
};

/* The longest wait for further parts. */
#define GATHER_NS (5 * ICM_NS_PER_MS)

/* Parts that travel together, and the whole transaction. */
struct batch {
	struct icm_part *parts[64];
	size_t n_parts;
	bool quiet; /* no feed record */
	int64_t deadline_ns;
};

/* Guard and feed record around the parts. */
#define N_GUARD 2
#define N_FEED	3

struct icm_commits *icm_commits_new(struct icm_volume *vol)
{
	struct icm_commits *c = icm_xcalloc(1, sizeof(*c));
	pthread_condattr_t attr;

	pthread_mutex_init(&c->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&c->changed, &attr);
	pthread_condattr_destroy(&attr);
	c->last = &c->first;
	c->gathers = !vol->be->facts.local;
	c->max_active = vol->be->facts.local ? 1 : 2;
	return c;
}

struct icm_commits *icm_commits_free(struct icm_commits *c)
{
	if (!c)
		return NULL;
	pthread_cond_destroy(&c->changed);
	pthread_mutex_destroy(&c->lock);
	free(c);
	return NULL;
}

bool icm_commits_under_way(struct icm_volume *vol)
{
	ICM_LOCK_SCOPE(&vol->commits->lock);

	return vol->commits->active != 0;
}

static size_t part_cost(struct icm_volume *vol, const struct icm_part *p)
{
	size_t cost = 0;

	for (size_t i = 0; i < p->n_ops; i++)
		cost += icm_backend_op_cost(vol->be, &p->ops[i]);
	/* each change stands in the feed record as well: its attr about twice encoded */
	return cost + p->n_changes * 2048;
}

/* What guard, head and an empty feed record take, generously. */
#define FRAME_COST 4096

static bool fits(struct icm_volume *vol, size_t ops, size_t cost)
{
	const struct icm_facts *f = &vol->be->facts;

	return (!f->max_txn_ops || ops + N_GUARD + N_FEED <= f->max_txn_ops) &&
	       (!f->max_txn_bytes || cost + FRAME_COST <= f->max_txn_bytes);
}

bool icm_part_fits(struct icm_volume *vol, const struct icm_part *p)
{
	return fits(vol, p->n_ops, part_cost(vol, p));
}

/* Takes as many waiting parts as fit; c->lock held. */
static void take_batch(struct icm_volume *vol, struct icm_commits *c, struct batch *b)
{
	size_t ops = 0, cost = 0;

	while (c->first && b->n_parts < ICM_COUNT(b->parts)) {
		struct icm_part *p = c->first;

		if (b->n_parts &&
		    (p->alone || b->parts[0]->alone || !fits(vol, ops + p->n_ops, cost + p->cost)))
			break;
		c->first = p->next;
		if (!c->first)
			c->last = &c->first;
		b->parts[b->n_parts++] = p;
		ops += p->n_ops;
		cost += p->cost;
	}
	c->n_waiting -= b->n_parts;
	c->n_sent += b->n_parts;
}

/* How many are worth waiting for: half of those who have been here at the same time
 * lately, because two transactions may be under way. */
static size_t wanted(const struct icm_commits *c)
{
	size_t peak = c->peak > c->peak_before ? c->peak : c->peak_before;

	return (peak + 1) / 2;
}

/* A part has come; c->lock held. */
static void note_peak(struct icm_commits *c)
{
	int64_t now = icm_now_ns();

	if (now - c->peak_since_ns > 4 * c->last_ns) {
		c->peak_before = now - c->peak_since_ns > 8 * c->last_ns ? 0 : c->peak;
		c->peak = 0;
		c->peak_since_ns = now;
	}
	if (c->n_waiting + c->n_sent > c->peak)
		c->peak = c->n_waiting + c->n_sent;
}

/* Who has just got an answer is likely to come again soon. Without this the first to
 * come would take the second transaction that may be under way for itself alone, time
 * and again, and all others would wait for the first. c->lock held, and released
 * meanwhile. */
static void gather(struct icm_commits *c)
{
	int64_t most = c->last_ns / 2 < GATHER_NS ? c->last_ns / 2 : GATHER_NS;
	struct timespec until = icm_ns_to_timespec(icm_now_ns() + most);
	int r = 0;

	if (!c->gathers || c->n_waiting >= wanted(c))
		return;
	c->is_gathering = true;
	while (c->n_waiting < wanted(c) && r == 0)
		r = pthread_cond_timedwait(&c->changed, &c->lock, &until);
	c->is_gathering = false;
	pthread_cond_broadcast(&c->changed);
}

char *icm_program_of(pid_t pid)
{
	ICM_AUTOCLOSE int fd = -1;
	char path[32], comm[64];
	ssize_t n;

	if (pid <= 0)
		return icm_xstrdup("");
	snprintf(path, sizeof(path), "/proc/%d/comm", (int)pid);
	fd = open(path, O_RDONLY | O_CLOEXEC);
	n = fd < 0 ? -1 : read(fd, comm, sizeof(comm));
	/* the kernel ends it with a newline */
	return n > 0 ? icm_xstrndup(comm, (size_t)n - 1) : icm_xstrdup("");
}

static char *feed_value(struct icm_volume *vol, const struct batch *b, const char *id,
			const char *lease_key, size_t *ret_len)
{
	struct icm_feed_record rec = { .time = icm_wall_time(),
				       .host = vol->host,
				       .user = vol->user,
				       .lease = (char *)lease_key };
	ICM_AUTOFREE char *program = NULL;
	ICM_AUTOFREE struct icm_change *changes = NULL;
	size_t n = 0;

	strcpy(rec.id, id);
	for (size_t i = 0; i < b->n_parts; i++)
		n += b->parts[i]->n_changes;
	changes = icm_xcalloc(n, sizeof(*changes));
	rec.changes = changes;
	rec.pid = (uint64_t)b->parts[0]->pid;
	for (size_t i = 0; i < b->n_parts; i++) {
		if (b->parts[i]->pid != b->parts[0]->pid)
			rec.pid = 0;	    /* several programs share the transaction */
		if (b->parts[i]->n_changes) /* a snapshot changes none, nor does a decision */
			memcpy(changes + rec.n_changes, b->parts[i]->changes,
			       b->parts[i]->n_changes * sizeof(*changes));
		rec.n_changes += b->parts[i]->n_changes;
	}
	if (b->parts[0]->author) {
		rec.host = b->parts[0]->author->host;
		rec.user = b->parts[0]->author->user;
		rec.program = b->parts[0]->author->program;
	} else {
		rec.program = program = icm_program_of((pid_t)rec.pid);
	}
	return icm_feed_record_encode(&rec, ret_len);
}

/* One attempt. The results of a transaction, and what it was guarded by. */
struct attempt {
	char id[ICM_ID_HEX + 1];
	uint64_t lease_index;
	size_t head_op; /* number of the operation that reads `head`; 0 = none */
	struct icm_txn_result result;
};

static void finish_part(struct batch *b, size_t i, int result, uint64_t index)
{
	b->parts[i]->result = result;
	b->parts[i]->index = index;
	memmove(b->parts + i, b->parts + i + 1, (b->n_parts - i - 1) * sizeof(b->parts[0]));
	b->n_parts--;
}

/* What was made under locks of a former lease isn't sent under this one: others
 * may have had the locks meanwhile. After the guard was taken: see replace_lease. */
static void drop_lost(struct icm_volume *vol, struct batch *b)
{
	uint64_t epoch;

	pthread_mutex_lock(&vol->lock);
	epoch = vol->lock_epoch;
	pthread_mutex_unlock(&vol->lock);
	for (size_t i = b->n_parts; i-- > 0;)
		if (b->parts[i]->lock_epoch && b->parts[i]->lock_epoch != epoch)
			finish_part(b, i, -EIO, 0);
}

/* On a store of many hosts, where indexes have gaps, `head` as it was before says
 * whether this mount knows all that happened until then: without asking the feed
 * after each commit of its own. A deployment has the key from its first commit on. */
static bool reads_head(struct icm_volume *vol)
{
	ICM_LOCK_SCOPE(&vol->lock);

	return !vol->be->facts.local && vol->has_head;
}

static void note_head(struct icm_volume *vol, bool has_head)
{
	ICM_LOCK_SCOPE(&vol->lock);

	vol->has_head = has_head;
}

/* Index that `head` had before the transaction; 0: it wasn't read. */
static uint64_t head_before(const struct attempt *a)
{
	for (size_t i = 0; a->head_op && i < a->result.entries.n; i++)
		if (a->result.entries.v[i].op == a->head_op)
			return a->result.entries.v[i].modify_index;
	return 0;
}

static int send(struct icm_volume *vol, struct batch *b, struct attempt *a)
{
	struct icm_ctx ctx = icm_volume_ctx(vol);
	ICM_AUTOFREE struct icm_op *ops = NULL;
	ICM_AUTOFREE char *lease_key = NULL;
	ICM_AUTOFREE char *feed_key = NULL;
	ICM_AUTOFREE char *feed = NULL;
	size_t n = 0, feed_len = 0;
	int r;

	r = icm_lease_guard(vol, &lease_key, &a->lease_index);
	if (r < 0)
		return r;
	drop_lost(vol, b);
	if (!b->n_parts)
		return 0;
	for (size_t i = 0; i < b->n_parts; i++)
		n += b->parts[i]->n_ops;
	ops = icm_xcalloc(n + N_GUARD + N_FEED, sizeof(*ops));
	pthread_mutex_lock(&vol->lock);
	ops[1] = (struct icm_op){ ICM_OP_CHECK_INDEX, .key = ICM_KEY_META,
				  .index = vol->meta_index };
	pthread_mutex_unlock(&vol->lock);
	ops[0] = (struct icm_op){ ICM_OP_CHECK_INDEX, .key = lease_key, .index = a->lease_index };
	n = N_GUARD;
	for (size_t i = 0; i < b->n_parts; i++) {
		memcpy(ops + n, b->parts[i]->ops, b->parts[i]->n_ops * sizeof(*ops));
		n += b->parts[i]->n_ops;
	}
	if (!b->quiet) {
		icm_random_id(a->id);
		if (reads_head(vol)) {
			a->head_op = n;
			ops[n++] = (struct icm_op){ ICM_OP_GET, .key = ICM_KEY_HEAD };
		}
		feed_key = icm_key_feed(a->id);
		feed = feed_value(vol, b, a->id, lease_key, &feed_len);
		ops[n++] = (struct icm_op){ ICM_OP_SET, feed_key, feed, feed_len, 0, 0 };
		ops[n++] = (struct icm_op){ ICM_OP_SET, ICM_KEY_HEAD, a->id, strlen(a->id), 0, 0 };
	}
	return icm_backend_txn(vol->be, &ctx, ops, n, &a->result);
}

/* A record that the feed no longer has is in the log. */
static int find_in_log(struct icm_volume *vol, const char *id, uint64_t *ret_index)
{
	struct icm_ctx ctx = icm_volume_ctx(vol);
	ICM_AUTOENTRIES struct icm_entries list = { 0 };
	uint64_t index;
	int r = icm_backend_list(vol->be, &ctx, "log/", false, &list, &index);

	for (size_t i = 0; r == 0 && i < list.n; i++) {
		struct icm_log_segment s;

		if (icm_log_segment_decode(list.v[i].value, list.v[i].len, &s) < 0)
			continue;
		for (size_t j = 0; j < s.n; j++) {
			if (strcmp(s.records[j].id, id) == 0) {
				*ret_index = s.indexes[j];
				icm_log_segment_clear(&s);
				return 0;
			}
		}
		icm_log_segment_clear(&s);
	}
	return r < 0 ? r : -ENOENT;
}

/* After a settle: whether the transaction with this id was applied. 0 and its
 * index, -ENOENT: certainly not. */
static int read_back(struct icm_volume *vol, const char *id, uint64_t *ret_index)
{
	struct icm_ctx ctx = icm_volume_ctx(vol);
	ICM_AUTOFREE char *key = icm_key_feed(id);
	ICM_AUTOENTRY struct icm_entry e = { 0 };
	int r;

	ctx.consistent = true;
	r = icm_backend_get(vol->be, &ctx, key, &e);
	if (r == 0) {
		*ret_index = e.modify_index;
		return 0;
	}
	return r == -ENOENT ? find_in_log(vol, id, ret_index) : r;
}

static void pause_before_retry(unsigned tries)
{
	/* 10 ms to about 1 s, with jitter, so that mounts don't come in step */
	int64_t ns = (10 + (int64_t)(icm_random_u64() % 10)) * ICM_NS_PER_MS
		     << (tries < 6 ? tries : 6);
	struct timespec ts = icm_ns_to_timespec(ns);

	nanosleep(&ts, NULL);
}

/* The outcome is unknown: makes it certain. 0 = was applied, -ENOENT = was not. */
static int settle(struct icm_volume *vol, struct batch *b, struct attempt *a)
{
	for (unsigned tries = 0; icm_now_ns() < b->deadline_ns; tries++) {
		int r = icm_lease_settle(vol);

		if (r == 0)
			r = b->quiet ? -ENOENT : read_back(vol, a->id, &a->result.index);
		if (r == 0 || r == -ENOENT)
			return r;
		pause_before_retry(tries);
	}
	return -ETIMEDOUT;
}

static int recheck_meta(struct icm_volume *vol)
{
	struct icm_ctx ctx = icm_volume_ctx(vol);
	ICM_AUTOENTRY struct icm_entry e = { 0 };
	struct icm_meta meta;
	int r = icm_backend_get(vol->be, &ctx, ICM_KEY_META, &e);

	if (r == 0)
		r = icm_meta_decode(e.value, e.len, &meta);
	if (r < 0)
		return r == -ENOENT ? -EIO : r;
	if (meta.format > ICM_FORMAT_VERSION) {
		icm_log_err(
			"the deployment now has format %u, this icmfs knows %u: nothing is written",
			meta.format, ICM_FORMAT_VERSION);
		icm_meta_clear(&meta);
		return -EROFS;
	}
	icm_meta_clear(&meta);
	pthread_mutex_lock(&vol->lock);
	vol->meta_index = e.modify_index;
	pthread_mutex_unlock(&vol->lock);
	return 0;
}

static void finish_all(struct batch *b, int result, uint64_t index)
{
	while (b->n_parts)
		finish_part(b, b->n_parts - 1, result, index);
}

/* Takes the parts out whose operation refused. Returns whether one was found. */
static bool drop_refused(struct batch *b, const struct icm_txn_result *res)
{
	bool any = false;

	for (size_t e = res->n_errors; e-- > 0;) {
		size_t op = res->errors[e].op;
		size_t at = N_GUARD;

		for (size_t i = 0; i < b->n_parts; at += b->parts[i]->n_ops, i++) {
			if (op < at || op >= at + b->parts[i]->n_ops)
				continue;
			b->parts[i]->failed_op = op - at;
			b->parts[i]->reason = res->errors[e].reason;
			any = true;
			break;
		}
	}
	if (!any)
		return false;
	for (size_t i = b->n_parts; i-- > 0;)
		if (b->parts[i]->reason)
			finish_part(b, i, -ESTALE, 0);
	return true;
}

/* After -ESTALE: 0 = send the rest again. */
static int after_refusal(struct icm_volume *vol, struct batch *b, struct attempt *a)
{
	bool guard = false;
	int r = 0;

	for (size_t e = 0; e < a->result.n_errors && r == 0; e++) {
		if (a->result.errors[e].op == 0)
			r = icm_lease_recheck(vol, a->lease_index);
		else if (a->result.errors[e].op == 1)
			r = recheck_meta(vol);
		else if (a->head_op && a->result.errors[e].op == a->head_op)
			note_head(vol, false); /* somebody deleted it */
		else
			continue;
		guard = true;
	}
	if (r < 0 || guard)
		return r;
	return drop_refused(b, &a->result) ? 0 : -EPROTO;
}

/* Sends the parts until each has its result. */
static void run_batch(struct icm_volume *vol, struct batch *b)
{
	unsigned tries = 0;

	b->deadline_ns = icm_volume_ctx(vol).deadline_ns;
	while (b->n_parts) {
		struct attempt a = { .id = "" };
		int r = send(vol, b, &a);

		if (!b->n_parts)
			return; /* nothing was left to send */
		if (r == -ETIMEDOUT) {
			r = settle(vol, b, &a);
			if (r == -ENOENT)
				r = icm_now_ns() < b->deadline_ns ? -EHOSTUNREACH : -ETIMEDOUT;
		}
		if (r == -ESTALE)
			r = after_refusal(vol, b, &a);
		else if (r == 0) {
			icm_feed_note_own(vol, a.id, a.result.index, head_before(&a));
			if (!b->quiet)
				note_head(vol, true);
			for (size_t i = 0; b->quiet && i < a.result.entries.n; i++)
				b->parts[0]->read_index = a.result.entries.v[i].modify_index;
			finish_all(b, 0, a.result.index);
		}
		icm_txn_result_clear(&a.result);
		if (r == -EHOSTUNREACH && icm_now_ns() < b->deadline_ns) {
			pause_before_retry(tries++);
			continue;
		}
		if (r < 0 && b->n_parts > 1 && (r == -ENOSPC || r == -EFBIG || r == -EACCES)) {
			/* one of them, perhaps: each alone */
			while (b->n_parts) {
				struct batch one = { .parts = { b->parts[0] },
						     .n_parts = 1,
						     .quiet = b->quiet };

				memmove(b->parts, b->parts + 1, --b->n_parts * sizeof(b->parts[0]));
				run_batch(vol, &one);
			}
			return;
		}
		icm_volume_heard(vol, r);
		if (r == -ETIMEDOUT)
			icm_log_err("the store didn't answer in time: whether change %s was made "
				    "is not known",
				    a.id);
		if (r < 0)
			finish_all(b, r == -EHOSTUNREACH ? -ETIMEDOUT : r, 0);
	}
}

int icm_commit(struct icm_volume *vol, struct icm_part *part)
{
	struct icm_commits *c = vol->commits;

	if (vol->read_only)
		return -EROFS;
	part->cost = part_cost(vol, part);
	if (!fits(vol, part->n_ops, part->cost))
		return -EFBIG;
	part->next = NULL;
	part->done = false;
	part->reason = 0;
	pthread_mutex_lock(&c->lock);
	*c->last = part;
	c->last = &part->next;
	c->n_waiting++;
	note_peak(c);
	if (c->is_gathering && c->n_waiting >= wanted(c))
		pthread_cond_broadcast(&c->changed);
	while (!part->done) {
		struct batch b = { .n_parts = 0 };
		struct icm_part *sent[ICM_COUNT(b.parts)];
		int64_t start;
		size_t n;

		if (c->active == c->max_active || !c->first || c->is_gathering) {
			pthread_cond_wait(&c->changed, &c->lock);
			continue;
		}
		gather(c);
		take_batch(vol, c, &b);
		start = icm_now_ns();
		n = b.n_parts;
		memcpy(sent, b.parts, n * sizeof(sent[0]));
		c->active++;
		pthread_mutex_unlock(&c->lock);
		run_batch(vol, &b);
		icm_upkeep_commit(vol);
		pthread_mutex_lock(&c->lock);
		c->active--;
		c->n_sent -= n;
		c->last_ns = icm_now_ns() - start;
		for (size_t i = 0; i < n; i++)
			sent[i]->done = true;
		pthread_cond_broadcast(&c->changed);
	}
	pthread_mutex_unlock(&c->lock);
	return part->result;
}

int icm_commit_quiet(struct icm_volume *vol, struct icm_part *part)
{
	struct batch b = { .parts = { part }, .n_parts = 1, .quiet = true };

	if (vol->read_only)
		return -EROFS;
	part->reason = 0;
	run_batch(vol, &b);
	return part->result;
}

int icm_put_blobs(struct icm_volume *vol, const struct icm_op *ops, size_t n)
{
	/* No guard: the same bytes under the same name are harmless at any time,
	 * so a put whose outcome is unknown is simply sent again. */
	int64_t deadline = icm_volume_ctx(vol).deadline_ns;
	int r;

	if (vol->read_only)
		return -EROFS;
	for (unsigned tries = 0;; tries++) {
		struct icm_ctx ctx = icm_volume_ctx(vol);
		ICM_AUTORESULT struct icm_txn_result res = { 0 };

		r = icm_backend_txn(vol->be, &ctx, ops, n, &res);
		if (r == 0)
			icm_feed_note(vol, "", res.index);
		if ((r != -ETIMEDOUT && r != -EHOSTUNREACH) || icm_now_ns() >= deadline)
			return icm_volume_heard(vol, r == -EHOSTUNREACH ? -ETIMEDOUT : r);
		pause_before_retry(tries);
	}
}

int icm_put_blob(struct icm_volume *vol, const struct icm_sha256 *sum, const void *bytes,
		 size_t len)
{
	ICM_AUTOFREE char *key = icm_key_blob(sum);
	struct icm_op op = { ICM_OP_SET, key, bytes, len, 0, 0 };

	return icm_put_blobs(vol, &op, 1);
}
