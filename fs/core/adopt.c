/* SPDX-License-Identifier: MIT */
#include "core/adopt.h"

#include <string.h>

#include "core/apply.h"
#include "core/feed.h"
#include "core/key.h"
#include "util/clock.h"
#include "util/log.h"

/* State files hold secrets: nobody but the owner reads them. */
#define MODE_FILE (S_IFREG | 0600)
#define MODE_DIR  (S_IFDIR | 0700)

/* One adoption. */
struct adoption {
	struct icm_volume *vol;
	const char *path;
	struct icm_fetched *there;
	struct icm_entry value; /* tree/<path>; without a key: absent, or: */
	bool known;		/* it is the one that belongs to attr/<path> */
	bool below;		/* there are keys below tree/<path>/, or that key itself: */
	struct icm_entry first; /* one of them, without its value */
	bool invalid;		/* the value is no file's */
	struct icm_inode *dir;	/* referenced; the directory it is in */
	char *dir_path;		/* owned */
	uint64_t dir_attr_index;
	struct timespec now;
	struct icm_attr attr; /* of what is there now; owned */
};

static void adoption_clear(struct adoption *a)
{
	icm_entry_clear(&a->value);
	icm_entry_clear(&a->first);
	icm_attr_clear(&a->attr);
	free(a->dir_path);
	if (!a->dir)
		return;
	pthread_mutex_lock(&a->vol->lock);
	icm_inode_unref(&a->vol->tree, a->dir);
	pthread_mutex_unlock(&a->vol->lock);
}

/* ---- what is there ---- */

static int has_keys(struct icm_volume *vol, const char *prefix, bool *ret)
{
	struct icm_ctx ctx = icm_volume_ctx(vol);
	ICM_AUTOENTRIES struct icm_entries list = { 0 };
	uint64_t index;
	int r = icm_backend_list(vol->be, &ctx, prefix, true, &list, &index);

	*ret = list.n > 0;
	return r;
}

/* A missing key isn't an error: *ret stays without a key. */
static int read_key(struct icm_volume *vol, const char *key, struct icm_entry *ret)
{
	struct icm_ctx ctx = icm_volume_ctx(vol);
	int r = icm_backend_get(vol->be, &ctx, key, ret);

	return r == -ENOENT ? 0 : r;
}

/* One of the keys below tree/<path>/; a listing of keys tells no indexes. */
static int read_below(struct adoption *a, const char *prefix)
{
	struct icm_ctx ctx = icm_volume_ctx(a->vol);
	ICM_AUTOENTRIES struct icm_entries list = { 0 };
	uint64_t index;
	int r = icm_backend_list(a->vol->be, &ctx, prefix, true, &list, &index);

	a->below = r == 0 && list.n > 0;
	if (!a->below)
		return r;
	r = read_key(a->vol, list.v[0].key, &a->first);
	return r == 0 && !a->first.key ? -EAGAIN : r;
}

/* Index that tree/<path> has if nobody but icmfs has written it, as far as is known. */
static uint64_t expected_index(struct adoption *a)
{
	struct icm_name *name;
	ICM_LOCK_SCOPE(&a->vol->lock);

	name = icm_tree_walk(&a->vol->tree, a->path);
	return name && name->tree_index && name->attr_index == a->there->attr_index
		       ? name->tree_index
		       : a->there->attr_index;
}

/* Contents are read over a network only if they may be foreign. */
static int read_value(struct adoption *a)
{
	struct icm_ctx ctx = icm_volume_ctx(a->vol);
	ICM_AUTORESULT struct icm_txn_result res = { 0 };
	ICM_AUTOFREE char *key = icm_key_tree(a->path);
	struct icm_op op = { ICM_OP_CHECK_INDEX, .key = key };
	int r = -ESTALE;

	if (!a->there->absent && !a->vol->be->facts.local) {
		op.index = expected_index(a);
		r = icm_backend_txn(a->vol->be, &ctx, &op, 1, &res);
		a->known = r == 0;
	}
	return r == -ESTALE ? read_key(a->vol, key, &a->value) : r;
}

static int read_there(struct adoption *a)
{
	ICM_AUTOFREE char *below = icm_key_tree_dir(a->path);
	bool is_dir = !a->there->absent && S_ISDIR(a->there->attr.mode);
	int r = is_dir ? read_key(a->vol, below, &a->first) : read_value(a);

	a->below = a->first.key != NULL;
	return r < 0 || a->below ? r : read_below(a, below);
}

/* Two reads are no view: a commit of icmfs may have come between them. It would
 * have written attr/<path> as well. */
static int confirm(struct adoption *a)
{
	ICM_AUTOFREE char *key = icm_key_attr(a->path);
	ICM_AUTOENTRY struct icm_entry e = { 0 };
	uint64_t index = a->there->absent ? 0 : a->there->attr_index;
	int r = read_key(a->vol, key, &e);

	return r < 0 || e.modify_index == index ? r : -EAGAIN;
}

static bool find_dir(struct adoption *a)
{
	const char *base;
	ICM_LOCK_SCOPE(&a->vol->lock);

	a->dir = icm_tree_parent(&a->vol->tree, a->path, &base);
	if (!a->dir)
		return false;
	icm_inode_ref(a->dir);
	a->dir_path = icm_inode_path(a->dir);
	if (!a->dir_path)
		return false;
	a->dir_attr_index = a->dir->names->attr_index;
	return true;
}

/* ---- its attributes ---- */

/* A number that follows from the path, so that mounts agree on it before anybody
 * has written it down; another one if a file that was here has taken it along. */
static uint64_t number_for(struct adoption *a)
{
	uint64_t ino = icm_ino_of_path(a->path);
	ICM_LOCK_SCOPE(&a->vol->lock);

	return icm_tree_inode(&a->vol->tree, ino) ? icm_tree_fresh_ino(&a->vol->tree) : ino;
}

static void new_attr(struct adoption *a, mode_t mode)
{
	a->attr = (struct icm_attr){
		.ino = number_for(a),
		.mode = mode,
		.uid = a->vol->uid,
		.gid = a->vol->gid,
		.atime = a->now,
	};
}

/* Contents: plain bytes, or a record that another program has copied here. What is
 * no valid record becomes a file that gives EIO when it is read. */
static void describe_contents(struct adoption *a, struct icm_attr *attr)
{
	ICM_AUTORECORD struct icm_record rec = { 0 };
	const struct icm_entry *e = &a->value;

	attr->size = e->len;
	attr->holes = 0;
	attr->has_hash = true;
	attr->hash = icm_sha256(e->value, e->len);
	if (e->flags == ICM_FLAGS_PLAIN)
		return;
	if (e->flags == ICM_FLAGS_RECORD && icm_record_decode(e->value, e->len, &rec) == 0 &&
	    rec.form == ICM_RECORD_CHUNKS)
		attr->size = rec.size;
	else
		a->invalid = true;
}

static bool is_symlink(const struct icm_entry *e, uint64_t *ret_size)
{
	ICM_AUTORECORD struct icm_record rec = { 0 };

	if (e->flags != ICM_FLAGS_RECORD || icm_record_decode(e->value, e->len, &rec) < 0 ||
	    rec.form != ICM_RECORD_SYMLINK)
		return false;
	*ret_size = strlen(rec.target);
	return true;
}

/* The same file with other contents: its number, owner, mode and extended
 * attributes stay. */
static bool is_same_file(const struct adoption *a)
{
	const struct icm_fetched *there = a->there;
	uint64_t size;

	return !there->absent && S_ISREG(there->attr.mode) && !there->attr.linked && !a->below &&
	       !is_symlink(&a->value, &size);
}

static void describe(struct adoption *a)
{
	uint64_t size;

	if (is_same_file(a))
		icm_attr_copy(&a->attr, &a->there->attr);
	else
		new_attr(a, a->below ? MODE_DIR : MODE_FILE);
	a->attr.mtime = a->attr.ctime = a->now;
	icm_random_id(a->attr.id);
	if (a->below)
		return;
	if (is_symlink(&a->value, &size)) {
		a->attr.mode = S_IFLNK | 0777;
		a->attr.size = size;
		return;
	}
	describe_contents(a, &a->attr);
}

/* ---- the transaction ---- */

/* What proves that there is a directory is checked: one that icmfs has removed
 * meanwhile isn't made again. */
static void write_dir(struct adoption *a, struct icm_part *part)
{
	struct icm_dir_times times = { .mtime = a->now, .ctime = a->now };
	ICM_AUTOFREE char *key = icm_key_tree_dir(a->path);
	bool has_times = strcmp(a->first.key, key) == 0;
	size_t len;
	char *json;

	icm_random_id(times.id);
	json = icm_dir_times_encode(&times, &len);
	if (!has_times)
		icm_part_check_index(part, icm_xstrdup(a->first.key), a->first.modify_index);
	icm_part_cas(part, ICM_STEAL(&key), has_times ? a->first.modify_index : 0, json, len, 0);
}

/* One name less of a linked file; the names that it has left. */
static uint32_t leave_links(struct adoption *a, struct icm_part *part)
{
	struct icm_place p = { .attr = a->there->attr, .inode_index = a->there->inode_index };

	if (a->there->absent || !a->there->attr.linked)
		return 0;
	icm_part_touch_inode(a->vol, part, &p, -1, a->now);
	return p.attr.nlink ? p.attr.nlink - 1 : 0;
}

static void add_removal_change(struct adoption *a, struct icm_part *part, uint32_t left)
{
	bool is_dir = S_ISDIR(a->there->attr.mode);
	struct icm_change *c = icm_part_change(part, ICM_CHANGE_REMOVE, a->path, NULL, a->now,
					       is_dir ? &a->there->attr : NULL);

	c->left = left;
}

static void build_write(struct adoption *a, struct icm_part *part)
{
	bool same = is_same_file(a);
	uint64_t attr_index = a->there->absent ? 0 : a->there->attr_index;
	size_t len;
	char *json;

	if (!same)
		icm_part_names_change(part, a->dir_path, a->dir_attr_index, a->now);
	if (a->below)
		write_dir(a, part);
	else
		icm_part_check_index(part, icm_key_tree(a->path), a->value.modify_index);
	json = icm_attr_encode(&a->attr, &len);
	icm_part_cas(part, icm_key_attr(a->path), attr_index, json, len, 0);
	if (!same && !a->there->absent)
		add_removal_change(a, part, leave_links(a, part));
	icm_part_change(part, same ? ICM_CHANGE_WRITE : ICM_CHANGE_CREATE, a->path, NULL, a->now,
			&a->attr);
}

/* The key of the directory's times is gone too when a whole directory was deleted:
 * it isn't made again, or its own removal would find it there. */
static int build_removal(struct adoption *a, struct icm_part *part)
{
	bool is_dir = S_ISDIR(a->there->attr.mode);
	ICM_AUTOFREE char *dir_key = icm_key_tree_dir(a->dir_path);
	ICM_AUTOENTRY struct icm_entry dir = { 0 };
	int r = read_key(a->vol, dir_key, &dir);

	if (r < 0)
		return r;
	if (dir.key)
		icm_part_names_change(part, a->dir_path, a->dir_attr_index, a->now);
	icm_part_check_absent(part, is_dir ? icm_key_tree_dir(a->path) : icm_key_tree(a->path));
	icm_part_check_index(part, icm_key_attr(a->path), a->there->attr_index);
	icm_part_delete(part, icm_key_attr(a->path));
	add_removal_change(a, part, leave_links(a, part));
	return 0;
}

/* Whether the mount may only derive what it can't write. */
static bool derives(int r)
{
	return r == -EROFS || r == -EACCES || r == -ENOSPC;
}

/* Sends it. What the mount may not write is taken as if it had. */
static int commit(struct adoption *a, struct icm_part *part, uint64_t derived_index)
{
	int r = icm_commit(a->vol, part);

	if (r == -ESTALE) {
		icm_dir_refresh(a->vol, a->dir);
		return -EAGAIN;
	}
	if (r < 0 && !derives(r))
		return r;
	a->there->derived = r < 0;
	if (r < 0)
		part->index = derived_index;
	a->there->adoption = *part;
	*part = (struct icm_part)ICM_PART_INIT;
	return 0;
}

static int adopt_write(struct adoption *a)
{
	ICM_AUTOPART struct icm_part part = ICM_PART_INIT;
	int r;

	describe(a);
	build_write(a, &part);
	r = commit(a, &part, a->below ? 1 : a->value.modify_index);
	if (r < 0)
		return r;
	if (a->invalid)
		icm_log_err("'%s' was written by another program, and is no valid file", a->path);
	icm_attr_clear(&a->there->attr);
	a->there->attr = a->attr;
	a->attr = (struct icm_attr){ 0 };
	a->there->absent = false;
	a->there->attr_index = a->there->adoption.index;
	a->there->inode_index = 0;
	return 0;
}

static int adopt_removal(struct adoption *a)
{
	ICM_AUTOPART struct icm_part part = ICM_PART_INIT;
	int r = build_removal(a, &part);

	if (r == 0)
		r = commit(a, &part, 0);
	if (r < 0)
		return r;
	pthread_mutex_lock(&a->vol->lock);
	if (a->there->adoption.index)
		icm_grave_dig(a->vol, a->path, a->there->adoption.index);
	pthread_mutex_unlock(&a->vol->lock);
	icm_attr_clear(&a->there->attr);
	a->there->attr = (struct icm_attr){ 0 };
	a->there->absent = true;
	return 0;
}

/* A directory goes after what was in it. */
static int is_empty(struct adoption *a, bool *ret)
{
	ICM_AUTOFREE char *key = icm_key_attr(a->path);
	ICM_AUTOFREE char *below = icm_asprintf("%s/", key);
	bool any = false;
	int r = 0;

	/* a mount that may not write can't take them away */
	if (S_ISDIR(a->there->attr.mode) && !a->vol->read_only)
		r = has_keys(a->vol, below, &any);
	*ret = !any;
	return r;
}

static bool is_foreign(const struct adoption *a)
{
	const struct icm_fetched *there = a->there;

	if (there->absent)
		return a->value.key || a->below;
	if (S_ISDIR(there->attr.mode))
		return !a->below;
	if (a->known)
		return a->below;
	return a->below || !a->value.key || a->value.modify_index > there->attr_index;
}

int icm_adopt(struct icm_volume *vol, const char *path, struct icm_fetched *there)
{
	__attribute__((cleanup(adoption_clear))) struct adoption a = {
		.vol = vol, .path = path, .there = there, .now = icm_wall_time()
	};
	bool empty = false;
	int r;

	/* damaged attributes, and a change under way, are not a foreign writer's */
	if (!there->absent && (icm_attr_is_broken(&there->attr) || there->attr.mark))
		return 0;
	r = read_there(&a);
	if (r < 0 || !is_foreign(&a))
		return r;
	r = confirm(&a);
	if (r < 0)
		return r;
	if (!find_dir(&a))
		return 0; /* moved or gone: so is what was asked for */
	if (a.value.key || a.below)
		return adopt_write(&a);
	r = is_empty(&a, &empty);
	return r < 0 || !empty ? r : adopt_removal(&a);
}
