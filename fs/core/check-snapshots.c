/* SPDX-License-Identifier: MIT
 * Snapshots: that they can be read, and that what they refer to is still there. */
#include <inttypes.h>
#include <string.h>
#include <sys/stat.h>

#include "core/check-state.h"
#include "core/key.h"

#define ERROR(c, key, ...) icm_check_add(c, ICM_SEVERITY_ERROR, key, __VA_ARGS__)

static int compare_hashes(const void *a, const void *b)
{
	return memcmp(a, b, sizeof(struct icm_sha256));
}

/* A file, or an earlier version of one, has these contents. */
static bool is_in_files(const struct icm_check *c, const struct icm_sha256 *hash)
{
	return c->n_hashes &&
	       bsearch(hash, c->hashes, c->n_hashes, sizeof(*c->hashes), compare_hashes);
}

static int check_entry(struct icm_check *c, const char *key, const struct icm_snap_entry *e)
{
	const struct icm_check_blob *b;
	ICM_AUTOFREE char *name = NULL;

	if (e->has_record)
		return icm_check_record_blobs(c, key, &e->record);
	if (S_ISDIR(e->attr.mode) || e->attr.size == 0)
		return 0;
	b = icm_check_use_blob(c, &e->attr.hash);
	if ((b && !b->damaged) || is_in_files(c, &e->attr.hash))
		return 0;
	name = icm_key_encoded(e->path);
	ERROR(c, key, "the contents of '%s' are not in the store any more", name);
	return 0;
}

static int check_part(struct icm_check *c, const char *key, const struct icm_sha256 *sum)
{
	ICM_CLEANUP(icm_snap_part_clear) struct icm_snap_part part = { 0 };
	ICM_AUTOFREE char *blob = icm_key_blob(sum);
	ICM_AUTOENTRY struct icm_entry e = { 0 };
	const struct icm_check_blob *b = icm_check_use_blob(c, sum);
	int r;

	if (!b || b->damaged) {
		ERROR(c, key, "%s, a part of its manifest, is %s", blob, b ? "damaged" : "missing");
		return 0;
	}
	r = icm_check_read(c, blob, &e);
	if (r <= 0)
		return r;
	if (icm_snap_part_decode(e.value, e.len, &part) < 0) {
		ERROR(c, key, "%s is not a part of a manifest", blob);
		return 0;
	}
	for (size_t i = 0; i < part.n && r >= 0; i++)
		r = check_entry(c, key, &part.v[i]);
	return r;
}

static int check_snapshot(struct icm_check *c, const char *key)
{
	ICM_CLEANUP(icm_snap_clear) struct icm_snap snap = { 0 };
	ICM_AUTOFREE char *name = NULL;
	ICM_AUTOENTRY struct icm_entry e = { 0 };
	int r;

	if (icm_key_decode(key + strlen(ICM_KEY_SNAPS), &name) < 0 || icm_name_check(name) < 0) {
		icm_check_add(c, ICM_SEVERITY_WARNING, key, "not the name of a snapshot");
		return 0;
	}
	r = icm_check_read(c, key, &e);
	if (r <= 0)
		return r;
	if (icm_snap_decode(e.value, e.len, &snap) < 0) {
		ERROR(c, key, "not a valid snapshot");
		return 0;
	}
	for (size_t i = 0; i < snap.n_parts && r >= 0; i++)
		r = check_part(c, key, &snap.parts[i]);
	return r;
}

int icm_check_snapshots(struct icm_check *c)
{
	int r = 0;

	if (c->n_hashes)
		qsort(c->hashes, c->n_hashes, sizeof(*c->hashes), compare_hashes);
	for (size_t i = icm_check_position(c, ICM_KEY_SNAPS); r >= 0 && i < c->keys.n; i++) {
		if (strncmp(c->keys.v[i].key, ICM_KEY_SNAPS, strlen(ICM_KEY_SNAPS)) != 0)
			break;
		r = check_snapshot(c, c->keys.v[i].key);
	}
	return r;
}
