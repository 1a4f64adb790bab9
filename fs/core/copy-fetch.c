/* SPDX-License-Identifier: MIT
 * Contents for the local copy. One request at a time, and each version once:
 * contents are found by their hash, in the copy as in the store. */
#include <inttypes.h>
#include <string.h>

#include "core/commit.h"
#include "core/copy-local.h"
#include "core/key.h"
#include "util/clock.h"

/* What is put into the copy at once: a transaction each. */
#define BATCH_BYTES ((size_t)1 << 20)
#define BATCH_OPS   256

#define COPY_NS (30 * ICM_NS_PER_S) /* for local disk */

/* ---- keys ---- */

void icm_copy_keys_clear(struct icm_copy_keys *k)
{
	for (size_t i = 0; i < k->n; i++)
		free(k->v[i]);
	free(k->v);
	*k = (struct icm_copy_keys){ 0 };
}

static void keys_add(struct icm_copy_keys *k, const char *key)
{
	if (k->n == k->cap) {
		k->cap = k->cap ? 2 * k->cap : 64;
		k->v = icm_xrealloc(k->v, k->cap * sizeof(*k->v));
	}
	k->v[k->n++] = icm_xstrdup(key);
}

static int by_text(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

static void keys_sort(struct icm_copy_keys *k)
{
	size_t n = 0;

	if (k->n)
		qsort(k->v, k->n, sizeof(*k->v), by_text);
	for (size_t i = 0; i < k->n; i++) {
		if (n && strcmp(k->v[n - 1], k->v[i]) == 0)
			free(k->v[i]);
		else
			k->v[n++] = k->v[i];
	}
	k->n = n;
}

bool icm_copy_keys_have(const struct icm_copy_keys *k, const char *key)
{
	return k->n && bsearch(&key, k->v, k->n, sizeof(*k->v), by_text);
}

char *icm_copy_record_key(const struct icm_attr *a)
{
	char hex[ICM_SHA256_HEX + 1];

	/* a link's target never changes */
	if (S_ISLNK(a->mode))
		return icm_asprintf("record/%" PRIu64, a->ino);
	if (!S_ISREG(a->mode) || a->size <= ICM_PLAIN_MAX || !a->has_hash)
		return NULL;
	icm_sha256_to_hex(&a->hash, hex);
	return icm_asprintf("record/%s", hex);
}

/* ---- the copy ---- */

int icm_copy_get(struct icm_volume *vol, const char *key, struct icm_entry *ret)
{
	struct icm_ctx ctx = { .deadline_ns = icm_now_ns() + COPY_NS };

	return icm_backend_get(vol->copy->be, &ctx, key, ret);
}

/* Contents that the copy has. */
static int list_present(struct icm_volume *vol, struct icm_copy_keys *ret)
{
	static const char *const prefixes[] = { "blob/", "record/" };
	struct icm_ctx ctx = { .deadline_ns = icm_now_ns() + COPY_NS };
	int r = 0;

	for (size_t p = 0; p < ICM_COUNT(prefixes) && r == 0; p++) {
		ICM_AUTOENTRIES struct icm_entries list = { 0 };
		uint64_t index;

		r = icm_backend_list(vol->copy->be, &ctx, prefixes[p], true, &list, &index);
		for (size_t i = 0; r == 0 && i < list.n; i++)
			keys_add(ret, list.v[i].key);
	}
	keys_sort(ret);
	return r;
}

/* ---- fetching ---- */

struct fetcher {
	struct icm_volume *vol;
	struct icm_copy_fetch *f;
	struct icm_copy_keys present; /* before */
	struct icm_part batch;	      /* on its way into the copy */
	size_t batch_bytes;
};

static int put_batch(struct fetcher *t)
{
	struct icm_ctx ctx = { .deadline_ns = icm_now_ns() + COPY_NS };
	ICM_AUTORESULT struct icm_txn_result res = { 0 };
	int r = 0;

	if (t->batch.n_ops)
		r = icm_backend_txn(t->vol->copy->be, &ctx, t->batch.ops, t->batch.n_ops, &res);
	icm_part_clear(&t->batch);
	t->batch = (struct icm_part)ICM_PART_INIT;
	t->batch_bytes = 0;
	return r;
}

/* Takes `value`. What comes later refers to what came before. */
static int put(struct fetcher *t, const char *key, void *value, size_t len, uint64_t flags)
{
	icm_part_set(&t->batch, icm_xstrdup(key), value, len, flags);
	t->batch_bytes += len;
	return t->batch_bytes >= BATCH_BYTES || t->batch.n_ops >= BATCH_OPS ? put_batch(t) : 0;
}

/* The copy gets what it doesn't have; a blob that the store has lost is -EIO. */
static int fetch_blob(struct fetcher *t, const struct icm_sha256 *sum, size_t max)
{
	ICM_AUTOFREE char *key = icm_key_blob(sum);
	ICM_AUTOFREE void *bytes = NULL;
	size_t len;
	int r;

	keys_add(&t->f->needed, key);
	if (icm_copy_keys_have(&t->present, key))
		return 0;
	r = icm_load_blob(t->vol, sum, max, &bytes, &len);
	if (r < 0)
		return r == -ENOENT ? -EIO : r;
	return put(t, key, ICM_STEAL(&bytes), len, ICM_FLAGS_PLAIN);
}

static int fetch_plain(struct fetcher *t, const struct icm_copy_name *name)
{
	const struct icm_attr *a = &name->attr;
	ICM_AUTOFREE char *key = NULL;
	struct icm_content *c;
	uint64_t index;
	int r;

	if (!a->has_hash)
		return -EIO;
	key = icm_key_blob(&a->hash);
	keys_add(&t->f->needed, key);
	if (icm_copy_keys_have(&t->present, key))
		return 0;
	r = icm_load_plain(t->vol, a->linked ? NULL : name->path, &a->hash, a->size, &c, &index);
	if (r < 0)
		return r;
	r = put(t, key, icm_xmemdup(c->bytes, c->len), c->len, ICM_FLAGS_PLAIN);
	icm_content_unref(c);
	return r;
}

/* What a record refers to. */
static int fetch_chunks(struct fetcher *t, const struct icm_record *rec)
{
	int r = rec->list_is_blob ? fetch_blob(t, &rec->list, ICM_CHUNK_LIST_MAX) : 0;

	for (size_t i = 0; i < rec->n_chunks && r == 0; i++)
		if (!rec->chunks[i].hole)
			r = fetch_blob(t, &rec->chunks[i].sum, ICM_CHUNK_BYTES);
	return r;
}

/* A record that the copy has, with its list. */
static int read_record(struct fetcher *t, const char *key, struct icm_record *ret)
{
	ICM_AUTOENTRY struct icm_entry e = { 0 }, list = { 0 };
	ICM_AUTORECORD struct icm_record rec = { 0 };
	ICM_AUTOFREE char *list_key = NULL;
	int r = icm_copy_get(t->vol, key, &e);

	if (r == 0)
		r = icm_record_decode(e.value, e.len, &rec);
	if (r == 0 && rec.list_is_blob) {
		list_key = icm_key_blob(&rec.list);
		r = icm_copy_get(t->vol, list_key, &list);
		if (r == 0)
			r = icm_chunks_decode(list.value, list.len, icm_chunk_count(rec.size),
					      &rec.chunks);
		if (r == 0)
			rec.n_chunks = icm_chunk_count(rec.size);
	}
	if (r < 0)
		return r;
	*ret = rec;
	rec = (struct icm_record){ 0 };
	return 0;
}

static int fetch_record(struct fetcher *t, const struct icm_copy_name *name, struct icm_record *ret)
{
	const struct icm_attr *a = &name->attr;
	const struct icm_version v = { .size = a->size, .has_hash = true, .hash = a->hash };
	ICM_AUTOENTRY struct icm_entry plain = { 0 };
	uint64_t index;
	int r = icm_load_record(t->vol, a->linked ? NULL : name->path, a->linked ? a->ino : 0, &v,
				ret, &plain, &index);

	/* another program's large value has no record to be stored by */
	return r == 0 && plain.key ? -EFBIG : r;
}

static int fetch_large(struct fetcher *t, const struct icm_copy_name *name)
{
	ICM_AUTOFREE char *key = icm_copy_record_key(&name->attr);
	ICM_AUTORECORD struct icm_record rec = { 0 };
	ICM_AUTOFREE char *text = NULL;
	struct icm_sha256 sum;
	size_t len;
	int r;

	if (!key)
		return -EIO;
	keys_add(&t->f->needed, key);
	if (icm_copy_keys_have(&t->present, key)) {
		r = read_record(t, key, &rec);
		return r < 0 ? r : fetch_chunks(t, &rec);
	}
	r = fetch_record(t, name, &rec);
	if (r < 0)
		return r;
	text = icm_record_encode(&rec, &len);
	sum = icm_sha256(text, len);
	if (!name->attr.linked && memcmp(&sum, &name->attr.hash, sizeof(sum)))
		return -EIO; /* not as icmfs spells it: it would not be recognised */
	r = fetch_chunks(t, &rec);
	return r < 0 ? r : put(t, key, ICM_STEAL(&text), len, ICM_FLAGS_RECORD);
}

static int fetch_link(struct fetcher *t, const struct icm_copy_name *name)
{
	ICM_AUTOFREE char *key = icm_copy_record_key(&name->attr);
	ICM_AUTORECORD struct icm_record rec = { .form = ICM_RECORD_SYMLINK };
	char *text;
	size_t len;
	int r;

	keys_add(&t->f->needed, key);
	if (icm_copy_keys_have(&t->present, key))
		return 0;
	r = icm_load_target(t->vol, name->path, name->attr.linked ? name->attr.ino : 0,
			    &rec.target);
	if (r < 0)
		return r;
	text = icm_record_encode(&rec, &len);
	return put(t, key, text, len, ICM_FLAGS_RECORD);
}

/* What it needs doesn't count when it isn't fetched whole. */
static int fetch_one(struct fetcher *t, const struct icm_copy_name *name)
{
	size_t before = t->f->needed.n;
	int r = S_ISLNK(name->attr.mode)	  ? fetch_link(t, name)
		: name->attr.size > ICM_PLAIN_MAX ? fetch_large(t, name)
						  : fetch_plain(t, name);

	while (r < 0 && t->f->needed.n > before)
		free(t->f->needed.v[--t->f->needed.n]);
	return r;
}

/* ---- which ---- */

/* Bytes that contents take in the copy. */
static uint64_t cost_of(const struct icm_attr *a)
{
	return S_ISREG(a->mode) ? a->size - a->holes : 0;
}

/* Smallest first, equal ones beside each other. */
static int by_size(const void *a, const void *b)
{
	const struct icm_attr *x = &(*(const struct icm_copy_name *const *)a)->attr;
	const struct icm_attr *y = &(*(const struct icm_copy_name *const *)b)->attr;

	if (cost_of(x) != cost_of(y))
		return cost_of(x) < cost_of(y) ? -1 : 1;
	return memcmp(&x->hash, &y->hash, sizeof(x->hash));
}

static bool has_contents(const struct icm_attr *a)
{
	return S_ISLNK(a->mode) || (S_ISREG(a->mode) && a->size);
}

static bool is_same(const struct icm_copy_name *a, const struct icm_copy_name *b)
{
	return a && S_ISREG(a->attr.mode) && S_ISREG(b->attr.mode) && a->attr.has_hash &&
	       b->attr.has_hash && a->attr.linked == b->attr.linked && by_size(&a, &b) == 0;
}

static const struct icm_copy_name **in_order(const struct icm_copy_state *s, size_t *ret_n)
{
	const struct icm_copy_name **v = icm_xcalloc(s->n, sizeof(*v));

	*ret_n = 0;
	for (size_t i = 0; i < s->n; i++)
		if (has_contents(&s->v[i].attr))
			v[(*ret_n)++] = &s->v[i];
	qsort(v, *ret_n, sizeof(*v), by_size);
	return v;
}

static bool ends_the_round(const struct icm_copy_fetch *f, int r)
{
	return icm_error_is_away(r) || r == -ECANCELED || r == -ENOSPC ||
	       (r == -ESTALE && !f->tolerant);
}

static bool is_cancelled(struct icm_copy *c)
{
	ICM_LOCK_SCOPE(&c->lock);

	return c->stop && icm_now_ns() > c->end_ns;
}

static int fetch_all(struct fetcher *t, const struct icm_copy_name **v, size_t n)
{
	const struct icm_copy_name *before = NULL;
	uint64_t bytes = 0;
	int last = 0;

	for (size_t i = 0; i < n; i++) {
		uint64_t cost = cost_of(&v[i]->attr);
		bool same = is_same(before, v[i]);
		int r;

		if (is_cancelled(t->vol->copy))
			return -ECANCELED;
		if (same) {
			t->f->left_out += last < 0;
			continue;
		}
		r = cost > t->vol->copy->max - bytes ? -EFBIG : fetch_one(t, v[i]);
		if (ends_the_round(t->f, r))
			return r;
		if (r == 0)
			bytes += cost;
		else
			t->f->left_out++;
		before = v[i];
		last = r;
	}
	return put_batch(t);
}

int icm_copy_fetch(struct icm_volume *vol, const struct icm_copy_state *s, struct icm_copy_fetch *f)
{
	struct fetcher t = { .vol = vol, .f = f, .batch = ICM_PART_INIT };
	size_t n;
	ICM_AUTOFREE const struct icm_copy_name **v = in_order(s, &n);
	int r = list_present(vol, &t.present);

	if (r == 0)
		r = fetch_all(&t, v, n);
	icm_part_clear(&t.batch);
	icm_copy_keys_clear(&t.present);
	keys_sort(&f->needed);
	return r;
}
