/* SPDX-License-Identifier: MIT
 * The caller reads and hashes chunks, and threads send them; the last one it sends
 * itself, so that a file of one chunk needs no thread. */
#include "core/upload.h"

#include <pthread.h>
#include <string.h>

#include "core/commit.h"
#include "core/key.h"

/* Chunks put in one transaction of a store that takes it. */
#define BATCH 16
/* Threads of one upload; what they have is in memory twice, here and in libcurl's
 * buffers. */
#define SENDERS 8

struct batch {
	struct icm_op ops[BATCH]; /* keys and values owned */
	size_t index[BATCH];
	size_t n;
	struct batch *next;
};

struct upload {
	struct icm_volume *vol;
	size_t max; /* chunks in a batch */

	pthread_mutex_t lock; /* protects: */
	pthread_cond_t changed;
	struct batch *waiting; /* owned; at most one: the caller waits while it is there */
	struct batch *failed;  /* owned */
	int result;	       /* of the first that failed */
	bool closed;	       /* no more will come */

	/* of the caller's thread */
	pthread_t senders[SENDERS];
	size_t n_senders;
};

static void batch_free(struct batch *b)
{
	for (size_t i = 0; i < b->n; i++) {
		free((char *)b->ops[i].key);
		free((void *)b->ops[i].value);
	}
	free(b);
}

/* Sends it and frees it; what fails is kept for the caller. */
static void send(struct upload *u, struct batch *b)
{
	int r;

	pthread_mutex_lock(&u->lock);
	r = u->result;
	pthread_mutex_unlock(&u->lock);
	if (r == 0)
		r = icm_put_blobs(u->vol, b->ops, b->n);
	if (r == 0) {
		batch_free(b);
		return;
	}
	ICM_LOCK_SCOPE(&u->lock);
	if (u->result == 0)
		u->result = r;
	b->next = u->failed;
	u->failed = b;
}

static void *sender(void *arg)
{
	struct upload *u = arg;
	struct batch *b;

	pthread_mutex_lock(&u->lock);
	while (u->waiting || !u->closed) {
		if (!u->waiting) {
			pthread_cond_wait(&u->changed, &u->lock);
			continue;
		}
		b = ICM_STEAL(&u->waiting);
		pthread_cond_broadcast(&u->changed);
		pthread_mutex_unlock(&u->lock);
		send(u, b);
		pthread_mutex_lock(&u->lock);
	}
	pthread_mutex_unlock(&u->lock);
	return NULL;
}

/* Gives a batch to a thread, or sends it where there is none. */
static void hand_over(struct upload *u, struct batch *b)
{
	if (!u->vol->be->facts.local && u->n_senders < SENDERS &&
	    pthread_create(&u->senders[u->n_senders], NULL, sender, u) == 0)
		u->n_senders++;
	if (!u->n_senders) {
		send(u, b);
		return;
	}
	pthread_mutex_lock(&u->lock);
	while (u->waiting)
		pthread_cond_wait(&u->changed, &u->lock);
	u->waiting = b;
	pthread_cond_broadcast(&u->changed);
	pthread_mutex_unlock(&u->lock);
}

static bool has_failed(struct upload *u)
{
	ICM_LOCK_SCOPE(&u->lock);

	return u->result != 0;
}

/* The next batch; NULL: none is left, or *ret_r. A full one is given before anybody
 * knows whether another one follows. */
static struct batch *read_batch(struct upload *u, struct icm_data *d, size_t *at, int *ret_r)
{
	struct batch *b = icm_xcalloc(1, sizeof(*b));
	struct icm_sha256 sum;
	void *bytes;
	size_t len;

	*ret_r = 0;
	while (b->n < u->max && (*ret_r = icm_data_next_dirty(d, at, &bytes, &len, &sum)) > 0) {
		b->index[b->n] = (*at)++;
		b->ops[b->n++] =
			(struct icm_op){ ICM_OP_SET, icm_key_blob(&sum), bytes, len, 0, 0 };
	}
	if (b->n && *ret_r >= 0)
		return b;
	for (size_t i = 0; i < b->n; i++)
		icm_data_mark_dirty(d, b->index[i]);
	batch_free(b);
	return NULL;
}

/* After the last batch: everything has its outcome. */
static int finish(struct upload *u, struct icm_data *d)
{
	pthread_mutex_lock(&u->lock);
	u->closed = true;
	pthread_cond_broadcast(&u->changed);
	pthread_mutex_unlock(&u->lock);
	for (size_t i = 0; i < u->n_senders; i++)
		pthread_join(u->senders[i], NULL);
	for (struct batch *b = u->failed, *next; b; b = next) {
		next = b->next;
		for (size_t i = 0; i < b->n; i++)
			icm_data_mark_dirty(d, b->index[i]);
		batch_free(b);
	}
	pthread_cond_destroy(&u->changed);
	pthread_mutex_destroy(&u->lock);
	return u->result;
}

static size_t batch_size(const struct icm_facts *facts)
{
	size_t max = BATCH;

	if (!facts->local)
		return 1; /* several at a time cost less than several in one */
	if (facts->max_txn_bytes && facts->max_txn_bytes / (ICM_CHUNK_BYTES + 4096) < max)
		max = facts->max_txn_bytes / (ICM_CHUNK_BYTES + 4096);
	return max ? max : 1;
}

int icm_upload_chunks(struct icm_volume *vol, struct icm_data *d)
{
	struct upload u = { .vol = vol, .max = batch_size(&vol->be->facts) };
	struct batch *b, *next;
	size_t at = 0;
	int r, sent;

	pthread_mutex_init(&u.lock, NULL);
	pthread_cond_init(&u.changed, NULL);
	for (b = read_batch(&u, d, &at, &r); b && !has_failed(&u); b = next) {
		next = read_batch(&u, d, &at, &r);
		if (next)
			hand_over(&u, b);
		else
			send(&u, b);
	}
	if (b)
		send(&u, b); /* after a failure: it is kept, not sent */
	sent = finish(&u, d);
	return r < 0 ? r : sent;
}
