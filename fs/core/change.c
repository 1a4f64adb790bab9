/* SPDX-License-Identifier: MIT
 * The decision of a change that takes more than one transaction. */
#include "core/change.h"

#include <string.h>

#include "core/feed.h"
#include "core/key.h"
#include "core/lease.h"
#include "core/upkeep.h"
#include "util/log.h"

bool icm_path_is_below(const char *path, const char *dir)
{
	size_t len = strlen(dir);

	return strncmp(path, dir, len) == 0 && (!len || !path[len] || path[len] == '/');
}

/* ---- directories above the new name ---- */

/* That two directories don't move into each other: each decision checks that no
 * directory above its new name is about to move. Those above both names can't be: the
 * change would be inside of what moves. */
static int check_above(struct icm_volume *vol, struct icm_part *part, const char *path)
{
	struct icm_ctx ctx = icm_volume_ctx(vol);
	ICM_AUTOFREE char *key = icm_key_attr(path);
	ICM_AUTOENTRY struct icm_entry e = { 0 };
	ICM_AUTOATTR struct icm_attr attr = { 0 };
	bool met;
	int r;

	ctx.consistent = true;
	r = icm_backend_get(vol->be, &ctx, key, &e);
	if (r < 0)
		return r == -ENOENT ? -ESTALE : r;
	if (icm_attr_decode(e.value, e.len, &attr) < 0)
		return -EIO;
	if (attr.mark) {
		r = icm_change_meet(vol, path, &met);
		return r < 0 ? r : -ESTALE;
	}
	icm_part_check_index(part, ICM_STEAL(&key), e.modify_index);
	return 0;
}

static int check_all_above(struct icm_volume *vol, struct icm_part *part, const struct icm_place *a,
			   const struct icm_place *b)
{
	ICM_AUTOFREE char *dir = icm_xstrdup(b->dir);
	char *slash = dir + strlen(dir);
	int r = 0;

	/* the directory itself is checked with its names */
	while (r == 0 && (slash = strrchr(dir, '/'))) {
		*slash = '\0';
		if (icm_path_is_below(a->dir, dir))
			break;
		r = check_above(vol, part, dir);
	}
	return r;
}

/* ---- the decision ---- */

static void mark(struct icm_part *part, const char *path, uint64_t index,
		 const struct icm_attr *attr, const char *id)
{
	ICM_AUTOATTR struct icm_attr marked;
	size_t len;
	char *json;

	icm_attr_copy(&marked, attr);
	free(marked.mark);
	marked.mark = icm_xstrdup(id);
	icm_random_id(marked.id);
	json = icm_attr_encode(&marked, &len);
	icm_part_cas(part, icm_key_attr(path), index, json, len, 0);
}

/* A directory that nobody sees until the end, with a number of its own. */
static void mark_new(struct icm_volume *vol, struct icm_part *part, const struct icm_place *b,
		     const struct icm_change_value *v)
{
	struct icm_attr attr = { .mode = S_IFDIR | 0700,
				 .uid = vol->uid,
				 .gid = vol->gid,
				 .atime = v->time,
				 .mtime = v->time,
				 .ctime = v->time };
	struct icm_dir_times times = { .mtime = v->time, .ctime = v->time };
	size_t len;
	char *json;

	pthread_mutex_lock(&vol->lock);
	attr.ino = icm_tree_fresh_ino(&vol->tree);
	pthread_mutex_unlock(&vol->lock);
	mark(part, b->path, 0, &attr, v->id);
	icm_random_id(times.id);
	json = icm_dir_times_encode(&times, &len);
	icm_part_cas(part, icm_key_tree_dir(b->path), 0, json, len, 0);
	icm_part_check_absent(part, icm_key_tree(b->path));
}

static int mark_target(struct icm_volume *vol, struct icm_part *part, const struct icm_place *b,
		       const struct icm_change_value *v)
{
	uint64_t generation;
	int r;

	if (!b->exists) {
		mark_new(vol, part, b, v);
		return 0;
	}
	r = icm_dir_is_empty(vol, b, &generation);
	if (r < 0)
		return r;
	if (generation)
		icm_part_check_index(part, icm_key_tree_dir(b->path), generation);
	else
		icm_part_check_absent(part, icm_key_tree_dir(b->path));
	mark(part, b->path, b->attr_index, &b->attr, v->id);
	return 0;
}

static int decide(struct icm_volume *vol, const struct icm_place *a, const struct icm_place *b,
		  const struct icm_change_value *v)
{
	ICM_AUTOPART struct icm_part part = ICM_PART_INIT;
	size_t len;
	char *json;
	int r;

	part.pid = (pid_t)v->pid;
	icm_part_names_change(&part, a->dir, a->dir_attr_index, v->time);
	if (strcmp(a->dir, b->dir) != 0)
		icm_part_names_change(&part, b->dir, b->dir_attr_index, v->time);
	r = check_all_above(vol, &part, a, b);
	if (r < 0)
		return r;
	mark(&part, a->path, a->attr_index, &a->attr, v->id);
	r = mark_target(vol, &part, b, v);
	if (r < 0)
		return r;
	json = icm_change_value_encode(v, &len);
	icm_part_cas(&part, icm_key_change(v->id), 0, json, len, 0);
	if (!icm_part_fits(vol, &part))
		return -EXDEV;
	/* a record without changes: what it has decided is told at the end */
	return icm_commit(vol, &part);
}

int icm_change_rename(struct icm_volume *vol, const struct icm_place *a, const struct icm_place *b,
		      pid_t pid, struct timespec now)
{
	ICM_AUTOFREE char *program = icm_program_of(pid);
	ICM_AUTOFREE char *lease = NULL;
	struct icm_change_value v = { .time = now,
				      .host = vol->host,
				      .user = vol->user,
				      .pid = (uint64_t)pid,
				      .program = program,
				      .path = a->path,
				      .to = b->path,
				      .replaces = b->exists };
	uint64_t index;
	int r = vol->read_only ? -EROFS : icm_lease_guard(vol, &lease, &index);

	if (r < 0)
		return r == -EHOSTUNREACH ? -EIO : r;
	v.lease = lease;
	icm_random_id(v.id);
	r = decide(vol, a, b, &v);
	if (r < 0)
		return r;
	r = icm_change_complete(vol, v.id, true);
	if (r >= 0) /* whose last transaction that was, the feed tells */
		r = icm_feed_catch_up(vol);
	if (r < 0) {
		icm_log_err("'%s' is becoming '%s', but not now: %s", a->path, b->path,
			    strerror(-r));
		icm_volume_note_error(vol, a->path, "a rename is under way and couldn't be ended");
		icm_upkeep_changes(vol);
	}
	return r == -EHOSTUNREACH ? -EIO : r;
}
