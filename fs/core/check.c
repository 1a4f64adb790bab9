/* SPDX-License-Identifier: MIT */
#include "core/check.h"

#include <inttypes.h>
#include <string.h>

#include "core/change.h"
#include "core/check-state.h"
#include "core/key.h"

/* Passes over a store that others change, before the result is taken as it is. */
#define PASSES_MAX 5

void icm_check_report_clear(struct icm_check_report *r)
{
	for (size_t i = 0; i < r->n_problems; i++) {
		free(r->problems[i].key);
		free(r->problems[i].what);
	}
	free(r->problems);
	*r = (struct icm_check_report){ 0 };
}

const char *icm_severity_name(enum icm_severity severity)
{
	static const char *const names[] = {
		[ICM_SEVERITY_NOTE] = "note",
		[ICM_SEVERITY_WARNING] = "warning",
		[ICM_SEVERITY_ERROR] = "error",
	};

	return names[severity];
}

void icm_check_add(struct icm_check *c, enum icm_severity severity, const char *key,
		   const char *fmt, ...)
{
	struct icm_check_report *r = c->report;
	struct icm_problem *p;
	va_list ap;

	r->problems = icm_xrealloc(r->problems, (r->n_problems + 1) * sizeof(*r->problems));
	p = &r->problems[r->n_problems++];
	*p = (struct icm_problem){ .key = icm_xstrdup(key), .severity = severity };
	va_start(ap, fmt);
	if (vasprintf(&p->what, fmt, ap) < 0)
		p->what = icm_xstrdup(fmt);
	va_end(ap);
}

size_t icm_check_position(const struct icm_check *c, const char *key)
{
	size_t low = 0, high = c->keys.n;

	while (low < high) {
		size_t middle = low + (high - low) / 2;

		if (strcmp(c->keys.v[middle].key, key) < 0)
			low = middle + 1;
		else
			high = middle;
	}
	return low;
}

const struct icm_entry *icm_check_key(const struct icm_check *c, const char *key)
{
	size_t i = icm_check_position(c, key);

	return i < c->keys.n && !strcmp(c->keys.v[i].key, key) ? &c->keys.v[i] : NULL;
}

int icm_check_read(struct icm_check *c, const char *key, struct icm_entry *ret)
{
	int r = icm_backend_get(c->be, NULL, key, ret);

	if (r == -ENOENT)
		return 0;
	if (r == -EPROTO) {
		icm_check_add(c, ICM_SEVERITY_ERROR, key, "the store can't read this value");
		return 0;
	}
	if (r < 0)
		return r;
	c->report->bytes += ret->len;
	return 1;
}

static int compare_blobs(const void *sum, const void *blob)
{
	return memcmp(sum, &((const struct icm_check_blob *)blob)->sum, sizeof(struct icm_sha256));
}

struct icm_check_blob *icm_check_use_blob(struct icm_check *c, const struct icm_sha256 *sum)
{
	struct icm_check_blob *b =
		c->n_blobs ? bsearch(sum, c->blobs, c->n_blobs, sizeof(*b), compare_blobs) : NULL;

	if (b)
		b->used = true;
	return b;
}

/* ---- keys that stand for themselves ---- */

static int judge_blob(struct icm_check *c, const char *key)
{
	ICM_AUTOENTRY struct icm_entry e = { 0 };
	struct icm_check_blob blob = { 0 };
	struct icm_sha256 sum;
	int r;

	if (icm_sha256_from_hex(key + strlen("blob/"), &blob.sum) < 0) {
		icm_check_add(c, ICM_SEVERITY_WARNING, key, "not the name of a blob");
		return 0;
	}
	r = icm_check_read(c, key, &e);
	if (r <= 0)
		return r;
	sum = icm_sha256(e.value, e.len);
	blob.len = e.len;
	blob.damaged = memcmp(&sum, &blob.sum, sizeof(sum)) != 0;
	if (blob.damaged)
		icm_check_add(c, ICM_SEVERITY_ERROR, key, "the value has another sha256");
	c->blobs = icm_xrealloc(c->blobs, (c->n_blobs + 1) * sizeof(*c->blobs));
	c->blobs[c->n_blobs++] = blob;
	c->report->blobs++;
	return 0;
}

static int judge_feed(struct icm_check *c, const char *key)
{
	ICM_AUTOENTRY struct icm_entry e = { 0 };
	struct icm_feed_record f;
	int r = icm_check_read(c, key, &e);

	if (r <= 0)
		return r;
	if (icm_feed_record_decode(e.value, e.len, &f) < 0) {
		icm_check_add(c, ICM_SEVERITY_ERROR, key, "not a valid feed record");
		return 0;
	}
	if (strcmp(f.id, key + strlen("feed/")) != 0)
		icm_check_add(c, ICM_SEVERITY_ERROR, key, "the record has another id: %s", f.id);
	icm_feed_record_clear(&f);
	return 0;
}

static int judge_log(struct icm_check *c, const char *key)
{
	ICM_AUTOENTRY struct icm_entry e = { 0 };
	struct icm_log_segment s;
	int r = icm_check_read(c, key, &e);

	if (r <= 0)
		return r;
	if (icm_log_segment_decode(e.value, e.len, &s) < 0) {
		icm_check_add(c, ICM_SEVERITY_ERROR, key, "not a valid part of the log");
		return 0;
	}
	icm_log_segment_clear(&s);
	return 0;
}

static int judge_lease(struct icm_check *c, const char *key)
{
	ICM_AUTOENTRY struct icm_entry e = { 0 };
	struct icm_lease_value v;
	int r = icm_check_read(c, key, &e);

	if (r <= 0)
		return r;
	if (icm_lease_value_decode(e.value, e.len, &v) < 0) {
		icm_check_add(c, ICM_SEVERITY_WARNING, key, "not a valid lease");
		return 0;
	}
	icm_lease_value_clear(&v);
	return 0;
}

static int judge_lock(struct icm_check *c, const char *key)
{
	ICM_AUTOENTRY struct icm_entry e = { 0 };
	struct icm_lock_value v;
	uint64_t ino;
	int r;

	if (icm_key_parse_ino(key, "lock/", &ino) < 0) {
		icm_check_add(c, ICM_SEVERITY_WARNING, key, "not the name of a lock");
		return 0;
	}
	r = icm_check_read(c, key, &e);
	if (r <= 0)
		return r;
	if (icm_lock_value_decode(e.value, e.len, &v) < 0) {
		icm_check_add(c, ICM_SEVERITY_WARNING, key, "not a valid table of locks");
		return 0;
	}
	for (size_t i = 0; i < v.n_mounts; i++)
		if (!icm_check_key(c, v.mounts[i].lease))
			icm_check_add(c, ICM_SEVERITY_NOTE, key,
				      "a mount that has locks here is gone; the next one that "
				      "wants them ends them");
	icm_lock_value_clear(&v);
	return 0;
}

static int judge_change(struct icm_check *c, const char *key)
{
	ICM_AUTOENTRY struct icm_entry e = { 0 };
	struct icm_change_value v;
	int r = icm_check_read(c, key, &e);

	if (r <= 0)
		return r;
	if (icm_change_value_decode(e.value, e.len, &v) < 0) {
		icm_check_add(c, ICM_SEVERITY_ERROR, key, "not a valid change");
		return 0;
	}
	if (strcmp(v.id, key + strlen("change/")) != 0)
		icm_check_add(c, ICM_SEVERITY_ERROR, key, "the change has another id: %s", v.id);
	else
		icm_check_add(c, ICM_SEVERITY_NOTE, key, "'%s' is becoming '%s'%s", v.path, v.to,
			      icm_check_key(c, v.lease)
				      ? ""
				      : ": the mount that was at it is gone, the next one ends it");
	c->changes = icm_xrealloc(c->changes, (c->n_changes + 1) * sizeof(*c->changes));
	c->changes[c->n_changes++] = v;
	return 0;
}

bool icm_check_in_transit(const struct icm_check *c, const char *path)
{
	for (size_t i = 0; i < c->n_changes; i++)
		if (icm_path_is_below(path, c->changes[i].path) ||
		    icm_path_is_below(path, c->changes[i].to))
			return true;
	return false;
}

static int judge_head(struct icm_check *c, const char *key)
{
	ICM_AUTOENTRY struct icm_entry e = { 0 };
	int r = icm_check_read(c, key, &e);
	bool valid;

	if (r <= 0)
		return r;
	valid = e.len == ICM_ID_HEX;
	for (size_t i = 0; valid && i < e.len; i++)
		valid = memchr("0123456789abcdef", ((const char *)e.value)[i], 16);
	if (!valid)
		icm_check_add(c, ICM_SEVERITY_ERROR, key, "not the id of a change");
	return 0;
}

static int judge_floor(struct icm_check *c, const char *key)
{
	ICM_AUTOENTRY struct icm_entry e = { 0 };
	int r = icm_check_read(c, key, &e);
	bool valid;

	if (r <= 0)
		return r;
	valid = e.len > 0 && e.len <= 20;
	for (size_t i = 0; valid && i < e.len; i++)
		valid = ((const char *)e.value)[i] >= '0' && ((const char *)e.value)[i] <= '9';
	if (!valid)
		icm_check_add(c, ICM_SEVERITY_ERROR, key, "not an index");
	return 0;
}

/* What has its place in check-files.c and check-snapshots.c. */
static int judge_nothing(struct icm_check *c, const char *key)
{
	return 0;
}

static int judge_later(struct icm_check *c, const char *key)
{
	icm_check_add(c, ICM_SEVERITY_NOTE, key, "not looked at by this version");
	return 0;
}

static const struct {
	const char *prefix;
	int (*judge)(struct icm_check *c, const char *key);
} subjects[] = {
	{ "attr/", judge_nothing },  { "tree/", judge_nothing }, { "inode/", judge_nothing },
	{ "hist/", judge_nothing },  { "blob/", judge_blob },	 { "feed/", judge_feed },
	{ "log/", judge_log },	     { "lease/", judge_lease },	 { "lock/", judge_lock },
	{ "change/", judge_change }, { "snap/", judge_nothing },
};

/* Keys by themselves. */
static const struct {
	const char *key;
	int (*judge)(struct icm_check *c, const char *key);
} singles[] = {
	{ ICM_KEY_META, judge_nothing }, /* first of all: look_at_meta() */
	{ ICM_KEY_HEAD, judge_head },
	{ ICM_KEY_FLOOR, judge_floor },
	{ "primary", judge_later },
};

static int judge_key(struct icm_check *c, const char *key)
{
	for (size_t i = 0; i < ICM_COUNT(subjects); i++)
		if (!strncmp(key, subjects[i].prefix, strlen(subjects[i].prefix)))
			return subjects[i].judge(c, key);
	for (size_t i = 0; i < ICM_COUNT(singles); i++)
		if (!strcmp(key, singles[i].key))
			return singles[i].judge(c, key);
	icm_check_add(c, ICM_SEVERITY_WARNING, key, "unknown key");
	return 0;
}

static void note_orphans(struct icm_check *c)
{
	for (size_t i = 0; i < c->n_blobs; i++) {
		ICM_AUTOFREE char *key = NULL;

		if (c->blobs[i].used)
			continue;
		key = icm_key_blob(&c->blobs[i].sum);
		icm_check_add(c, ICM_SEVERITY_NOTE, key,
			      "nothing refers to this blob of %" PRIu64 " bytes", c->blobs[i].len);
	}
}

/* ---- passes ---- */

static int compare_problems(const void *a, const void *b)
{
	const struct icm_problem *x = a, *y = b;
	int r = strcmp(x->key, y->key);

	return r ? r : strcmp(x->what, y->what);
}

static int look_at_meta(struct icm_check *c, char **ret_error)
{
	ICM_AUTOENTRY struct icm_entry e = { 0 };
	struct icm_meta meta;
	uint32_t format;
	int r;

	if (c->keys.n == 0) {
		*ret_error = icm_xstrdup("no deployment there: the store is empty");
		return -ENOENT;
	}
	if (!icm_check_key(c, ICM_KEY_META)) {
		icm_check_add(c, ICM_SEVERITY_ERROR, ICM_KEY_META, "missing");
		return 0;
	}
	r = icm_check_read(c, ICM_KEY_META, &e);
	if (r <= 0)
		return r;
	if (icm_meta_decode(e.value, e.len, &meta) < 0) {
		icm_check_add(c, ICM_SEVERITY_ERROR, ICM_KEY_META, "not valid");
		return 0;
	}
	format = meta.format;
	icm_meta_clear(&meta);
	if (format > ICM_FORMAT_VERSION) {
		*ret_error = icm_asprintf("the store has format %" PRIu32
					  ", this program knows formats up to %d",
					  format, ICM_FORMAT_VERSION);
		return -EPROTO;
	}
	return 0;
}

static int one_pass(struct icm_check *c, char **ret_error)
{
	int r = icm_backend_list(c->be, NULL, "", true, &c->keys, &c->report->index);

	if (r < 0)
		return r;
	r = look_at_meta(c, ret_error);
	for (size_t i = 0; r >= 0 && i < c->keys.n; i++)
		r = judge_key(c, c->keys.v[i].key);
	if (r >= 0)
		r = icm_check_files(c);
	if (r >= 0)
		r = icm_check_snapshots(c);
	if (r < 0)
		return r;
	note_orphans(c);
	if (c->report->n_problems)
		qsort(c->report->problems, c->report->n_problems, sizeof(*c->report->problems),
		      compare_problems);
	return 0;
}

static int run_pass(struct icm_backend *be, struct icm_check_report *report, char **ret_error)
{
	struct icm_check c = { .be = be, .report = report };
	int r = one_pass(&c, ret_error);

	icm_check_files_clear(&c);
	icm_entries_clear(&c.keys);
	for (size_t i = 0; i < c.n_changes; i++)
		icm_change_value_clear(&c.changes[i]);
	free(c.changes);
	free(c.blobs);
	return r;
}

static bool has_problem(const struct icm_check_report *r, const struct icm_problem *p)
{
	return r->n_problems &&
	       bsearch(p, r->problems, r->n_problems, sizeof(*p), compare_problems);
}

/* Keeps the problems that an earlier pass found as well: what others changed
 * during a pass looks like damage in that pass only. */
static void keep_common(struct icm_check_report *r, const struct icm_check_report *earlier)
{
	size_t n = 0;

	for (size_t i = 0; i < r->n_problems; i++) {
		if (has_problem(earlier, &r->problems[i])) {
			r->problems[n++] = r->problems[i];
			continue;
		}
		free(r->problems[i].key);
		free(r->problems[i].what);
	}
	r->n_problems = n;
}

/* Whether a pass has to be done again: something was found while others wrote. */
static int is_doubtful(struct icm_backend *be, const struct icm_check_report *r, uint64_t before,
		       bool *ret_doubtful)
{
	uint64_t now;
	int ret;

	*ret_doubtful = false;
	if (r->n_problems == 0)
		return 0;
	ret = icm_backend_index(be, NULL, "", &now);
	*ret_doubtful = ret >= 0 && now != before;
	return ret;
}

static int run_passes(struct icm_backend *be, struct icm_check_report *report, char **ret_error)
{
	for (int pass = 0; pass < PASSES_MAX; pass++) {
		struct icm_check_report earlier = *report;
		bool doubtful;
		uint64_t before;
		int r = icm_backend_index(be, NULL, "", &before);

		*report = (struct icm_check_report){ 0 };
		if (r >= 0)
			r = run_pass(be, report, ret_error);
		if (r >= 0)
			r = is_doubtful(be, report, before, &doubtful);
		if (r >= 0 && doubtful && pass == PASSES_MAX - 1)
			keep_common(report, &earlier);
		icm_check_report_clear(&earlier);
		if (r < 0 || !doubtful)
			return r;
	}
	return 0;
}

int icm_check_store(struct icm_backend *be, struct icm_check_report *ret, char **ret_error)
{
	struct icm_check_report report = { 0 };
	ICM_AUTOFREE char *error = NULL;
	int r = run_passes(be, &report, &error);

	if (r < 0) {
		icm_check_report_clear(&report);
		if (!error)
			error = icm_asprintf("the store can't be read: %s", strerror(-r));
		*ret_error = ICM_STEAL(&error);
		return r;
	}
	for (size_t i = 0; i < report.n_problems; i++)
		report.n_bad += report.problems[i].severity != ICM_SEVERITY_NOTE;
	*ret = report;
	return 0;
}
