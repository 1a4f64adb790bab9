/* SPDX-License-Identifier: MIT */
#include "core/volume.h"

#include <pwd.h>
#include <string.h>

#include "backends/url.h"
#include "core/attr.h"
#include "core/commit.h"
#include "core/control.h"
#include "core/feed.h"
#include "core/foreign.h"
#include "core/introspect.h"
#include "core/key.h"
#include "core/lease.h"
#include "core/look.h"
#include "core/offline.h"
#include "core/unsaved.h"
#include "core/upkeep.h"
#include "util/clock.h"
#include "util/log.h"

const struct icm_view_ops icm_shared_view_ops = {
	.name = "shared",
	.lookup = icm_shared_lookup,
	.lookup_cached = icm_shared_lookup_cached,
	.mknod = icm_shared_mknod,
	.mkdir = icm_shared_mkdir,
	.symlink = icm_shared_symlink,
	.link = icm_shared_link,
	.unlink = icm_shared_unlink,
	.rmdir = icm_shared_rmdir,
	.rename = icm_shared_rename,
	.getattr = icm_shared_getattr,
	.setattr = icm_shared_setattr,
	.readlink = icm_shared_readlink,
	.getxattr = icm_shared_getxattr,
	.listxattr = icm_shared_listxattr,
	.setxattr = icm_shared_setxattr,
	.removexattr = icm_shared_removexattr,
	.create = icm_shared_create,
	.open = icm_shared_open,
	.read = icm_shared_read,
	.write = icm_shared_write,
	.flush_waits = icm_shared_flush_waits,
	.flush = icm_shared_flush,
	.fsync = icm_shared_fsync,
	.release = icm_shared_release,
	.fallocate = icm_shared_fallocate,
	.lseek = icm_shared_lseek,
	.opendir = icm_shared_opendir,
	.readdir = icm_shared_readdir,
	.releasedir = icm_shared_releasedir,
	.free = icm_shared_free,
};

void icm_volume_note_error(struct icm_volume *vol, const char *path, const char *text)
{
	struct icm_error_note *note;
	ICM_LOCK_SCOPE(&vol->lock);

	note = &vol->errors[vol->next_error++ % ICM_ERROR_NOTES];
	free(note->path);
	free(note->text);
	*note = (struct icm_error_note){ icm_wall_time(), icm_xstrdup(path), icm_xstrdup(text) };
}

/* ---- graves ---- */

void icm_grave_dig(struct icm_volume *vol, const char *path, uint64_t index)
{
	struct icm_grave *g = &vol->graves[vol->next_grave++ % ICM_GRAVES];

	free(g->path);
	*g = (struct icm_grave){ icm_xstrdup(path), index, icm_now_ns() };
}

bool icm_grave_has(struct icm_volume *vol, const char *path, uint64_t index)
{
	for (size_t i = 0; i < ICM_GRAVES; i++) {
		const struct icm_grave *g = &vol->graves[i];
		size_t len;

		if (!g->path || g->index <= index)
			continue;
		len = strlen(g->path);
		if (strncmp(g->path, path, len) == 0 && (!path[len] || path[len] == '/'))
			return true;
	}
	return false;
}

/* ---- open ---- */

static char *host_name(void)
{
	char name[256] = "";

	if (gethostname(name, sizeof(name) - 1) < 0)
		return icm_xstrdup("unknown");
	return icm_xstrdup(name);
}

static char *user_name(uid_t uid)
{
	struct passwd *pw = getpwuid(uid);

	return pw ? icm_xstrdup(pw->pw_name) : icm_asprintf("%u", (unsigned)uid);
}

static char *boot_id(void)
{
	ICM_AUTOFCLOSE FILE *f = fopen("/proc/sys/kernel/random/boot_id", "re");
	char line[64] = "";

	if (!f || !fgets(line, sizeof(line), f))
		return icm_xstrdup("unknown");
	line[strcspn(line, "\n")] = '\0';
	return icm_xstrdup(line);
}

static char *dup_or_null(const char *s)
{
	return s ? icm_xstrdup(s) : NULL;
}

static char *work_dir(const char *configured)
{
	const char *tmp = getenv("TMPDIR");

	if (configured)
		return icm_xstrdup(configured);
	return icm_xstrdup(tmp && *tmp == '/' ? tmp : "/var/tmp");
}

#define UNSAVED_MAX ((uint64_t)1 << 30)
#define COPY_MAX    ((uint64_t)64 << 20)

/* A mount goes on without: another one may end only now, with files still open. */
static void take_copy(struct icm_volume *vol, const struct icm_volume_config *config)
{
	int r;

	if (!config->copy_dir)
		return;
	r = icm_copy_new(config->copy_dir, vol->url, config->copy_max ? config->copy_max : COPY_MAX,
			 &vol->copy);
	if (r < 0)
		icm_log_warning("no local copy can be used or kept in '%s': %s", config->copy_dir,
				r == -EBUSY ? "another mount has it" : strerror(-r));
}

static int open_store(struct icm_volume *vol, const struct icm_volume_config *config,
		      char **ret_error)
{
	struct icm_url url = { 0 };
	int r = icm_url_parse(config->url, &url, ret_error);

	if (r < 0)
		return r;
	vol->url = ICM_STEAL(&url.text);
	icm_url_clear(&url);
	take_copy(vol, config);
	return icm_offline_open(vol, config, ret_error);
}

int icm_volume_open(const struct icm_volume_config *config, struct icm_volume **ret,
		    char **ret_error)
{
	struct icm_volume *vol = icm_xcalloc(1, sizeof(*vol));
	int r = open_store(vol, config, ret_error);

	if (r < 0) {
		icm_copy_free(vol->copy);
		free(vol->url);
		free(vol);
		return r;
	}
	vol->mountpoint = dup_or_null(config->mountpoint);
	vol->scratch_dir = dup_or_null(config->scratch_dir);
	vol->scratch_patterns = dup_or_null(config->scratch_patterns);
	vol->unsaved_dir = dup_or_null(config->unsaved_dir);
	vol->unsaved_max = config->unsaved_max ? config->unsaved_max : UNSAVED_MAX;
	vol->work_dir = work_dir(config->work_dir);
	vol->host = host_name();
	vol->user = user_name(config->uid);
	vol->boot_id = boot_id();
	vol->uid = config->uid;
	vol->gid = config->gid;
	vol->read_only = config->read_only || vol->be->facts.read_only;
	vol->cached = config->cached;
	vol->timeout_ms = config->timeout_ms ? config->timeout_ms : 30000;
	vol->ttl_ms = config->ttl_ms ? config->ttl_ms : 10000;
	vol->reachable = true;
	vol->lock_epoch = 1;
	pthread_mutex_init(&vol->lock, NULL);
	pthread_cond_init(&vol->told, NULL);
	pthread_mutex_init(&vol->change_lock, NULL);
	pthread_mutex_init(&vol->feed_lock, NULL);
	for (size_t i = 0; i < ICM_LOCK_CALLS; i++)
		pthread_mutex_init(&vol->lock_calls[i], NULL);
	vol->locks = icm_shared_locks_new();
	icm_tree_init(&vol->tree);
	vol->commits = icm_commits_new(vol);
	vol->lease = icm_lease_keeper_new(vol);
	vol->lock_set = icm_lock_set_new();
	*ret = vol;
	return 0;
}

/* ---- start ---- */

#define ICM_IGNORE_NAME ".icmfsignore"

static int fail(char **ret_error, int r, const char *what)
{
	if (ret_error && !*ret_error)
		*ret_error = icm_asprintf("%s: %s", what, strerror(-r));
	return r;
}

/* The inode that stands for .icmfs/lock in the lock code; it has no name. */
static void make_lock_file(struct icm_volume *vol)
{
	struct icm_attr attr = { .ino = ICM_INO_LOCK_FILE, .mode = S_IFREG | 0600 };

	pthread_mutex_lock(&vol->lock);
	vol->lock_inode = icm_inode_new(&vol->tree, &attr);
	vol->lock_inode->published = true;
	vol->lock_file = icm_file_get(vol, vol->lock_inode);
	pthread_mutex_unlock(&vol->lock);
}

static int start_scratch(struct icm_volume *vol, char **ret_error)
{
	int r;

	if (!vol->scratch_dir)
		return 0;
	r = icm_scratch_open(vol, vol->scratch_dir, vol->scratch_patterns, &vol->scratch,
			     ret_error);
	return r < 0 ? fail(ret_error, r, "the scratch directory can't be used") : 0;
}

/* What can't be compared now is found when it is opened. */
static void compare_with_store(struct icm_volume *vol)
{
	int r = icm_foreign_compare(vol, true);

	if (r < 0)
		icm_log_warning("changes by other programs in '%s' can't be looked for: %s",
				vol->be->url, strerror(-r));
}

/* The lease and the whole tree. */
static int read_store(struct icm_volume *vol, char **ret_error)
{
	int r = icm_backend_start(vol->be);

	if (r < 0)
		return fail(ret_error, r, "the store can't be used");
	if (!vol->offline) {
		r = icm_feed_open_deployment(vol, vol->create, ret_error);
		if (r < 0)
			return r;
	}
	if (!vol->read_only) {
		r = icm_lease_start(vol);
		if (r < 0)
			return fail(ret_error, r, "no lease from the store");
	}
	pthread_mutex_lock(&vol->feed_lock);
	r = icm_feed_list(vol);
	pthread_mutex_unlock(&vol->feed_lock);
	if (r < 0) {
		icm_lease_stop(vol);
		return fail(ret_error, r, "the tree can't be read");
	}
	return 0;
}

int icm_volume_start(struct icm_volume *vol, const struct icm_notify *notify, void *userdata,
		     char **ret_error)
{
	int r;

	if (ret_error)
		*ret_error = NULL;
	if (notify)
		vol->notify = *notify;
	vol->notify_data = userdata;
	if (vol->unsaved_dir)
		icm_unsaved_sweep(vol->unsaved_dir);
	r = read_store(vol, ret_error);
	if (r < 0 && icm_offline_fall_back(vol, r, ret_error) == 0)
		r = read_store(vol, ret_error);
	if (r < 0)
		return r;
	pthread_mutex_lock(&vol->lock);
	vol->root_view = icm_file_get(vol, vol->tree.root);
	pthread_mutex_unlock(&vol->lock);
	make_lock_file(vol);
	vol->control = icm_control_root(vol);
	if (!vol->offline)
		compare_with_store(vol);
	r = start_scratch(vol, ret_error);
	icm_volume_load_ignore(vol);
	if (r == 0)
		r = icm_upkeep_start(vol);
	if (r == 0)
		r = icm_foreign_start(vol);
	if (r == 0)
		r = icm_shared_locks_start(vol);
	if (r == 0)
		r = icm_feed_start(vol);
	if (r < 0) {
		icm_shared_locks_stop(vol);
		icm_foreign_stop(vol);
		icm_upkeep_stop(vol);
		icm_lease_stop(vol);
		return fail(ret_error, r, "the watch can't be started");
	}
	icm_copy_start(vol);
	vol->started = true;
	return 0;
}

void icm_volume_load_ignore(struct icm_volume *vol)
{
	struct icm_content *c = NULL;
	struct icm_attr attr = { 0 };
	struct icm_name *name;
	uint64_t gen = 0, index;
	int r = 0;

	if (!vol->scratch)
		return;
	pthread_mutex_lock(&vol->lock);
	name = icm_tree_find(&vol->tree, vol->tree.root, ICM_IGNORE_NAME);
	if (name && name->inode->published && S_ISREG(name->inode->attr.mode)) {
		gen = name->inode->gen;
		attr = name->inode->attr;
	}
	pthread_mutex_unlock(&vol->lock);
	if (gen == vol->ignore_gen || attr.size > ICM_PLAIN_MAX)
		return;
	if (gen && attr.size)
		r = icm_load_plain(vol, ICM_IGNORE_NAME, &attr.hash, attr.size, &c, &index);
	if (r < 0)
		return; /* it changes in this moment: the next record tells */
	icm_scratch_set_ignore(vol->scratch, c ? c->bytes : NULL, c ? c->len : 0);
	icm_content_unref(c);
	vol->ignore_gen = gen;
}

/* Publishes what programs left open: a daemon that is told to end. A store that
 * is away is waited for once, not for each file. */
static void publish_all(struct icm_volume *vol)
{
	int r = 0;

	for (;;) {
		struct icm_file *dirty = NULL;

		pthread_mutex_lock(&vol->lock);
		icm_map_for_each (&vol->tree.inodes, i, node) {
			struct icm_inode *inode = ICM_CONTAINER(node, struct icm_inode, node);

			for (struct icm_file *f = inode->views; f && !dirty; f = f->next)
				if (f->dirty && !f->conflict && inode->names &&
				    icm_view_tryref(&f->view))
					dirty = f;
		}
		pthread_mutex_unlock(&vol->lock);
		if (!dirty)
			return;
		if (r != -ETIMEDOUT)
			r = icm_file_publish(vol, dirty, 0);
		if (r < 0)
			icm_file_give_up(vol, dirty, r);
		icm_fs_forget(&dirty->view, 1);
	}
}

void icm_volume_stop(struct icm_volume *vol)
{
	if (!vol->started)
		return;
	vol->started = false;
	publish_all(vol);
	icm_shared_locks_stop(vol);
	icm_copy_stop(vol);
	icm_feed_stop(vol);
	icm_foreign_stop(vol);
	icm_upkeep_stop(vol);
	if (!vol->read_only)
		icm_lease_stop(vol);
}

/* ---- the end ---- */

/* Views that the kernel never forgot (it was killed, or unmounted lazily). */
static void free_views(struct icm_volume *vol)
{
	for (;;) {
		struct icm_file *left = NULL;

		pthread_mutex_lock(&vol->lock);
		icm_map_for_each (&vol->tree.inodes, i, node) {
			struct icm_inode *inode = ICM_CONTAINER(node, struct icm_inode, node);

			if (inode->views)
				left = inode->views;
		}
		pthread_mutex_unlock(&vol->lock);
		if (!left)
			return;
		icm_shared_free(&left->view);
	}
}

struct icm_volume *icm_volume_free(struct icm_volume *vol)
{
	if (!vol)
		return NULL;
	icm_volume_stop(vol);
	if (vol->control)
		icm_control_close(vol->control);
	free_views(vol);
	icm_scratch_close(vol->scratch);
	if (vol->lock_inode)
		icm_inode_unref(&vol->tree, vol->lock_inode);
	icm_tree_free(&vol->tree);
	icm_shared_locks_free(vol->locks);
	icm_lock_set_free(vol->lock_set);
	icm_lease_keeper_free(vol->lease);
	icm_commits_free(vol->commits);
	icm_backend_close(vol->be);
	icm_copy_free(vol->copy);
	icm_copy_head_clear(&vol->copy_head);
	icm_entries_clear(&vol->feed_seen);
	icm_look_forget(vol);
	for (size_t i = 0; i < ICM_GRAVES; i++)
		free(vol->graves[i].path);
	for (size_t i = 0; i < ICM_ERROR_NOTES; i++) {
		free(vol->errors[i].path);
		free(vol->errors[i].text);
	}
	for (size_t i = 0; i < ICM_LOCK_CALLS; i++)
		pthread_mutex_destroy(&vol->lock_calls[i]);
	pthread_mutex_destroy(&vol->feed_lock);
	pthread_mutex_destroy(&vol->change_lock);
	pthread_cond_destroy(&vol->told);
	pthread_mutex_destroy(&vol->lock);
	free(vol->url);
	free(vol->mountpoint);
	free(vol->work_dir);
	free(vol->unsaved_dir);
	free(vol->scratch_dir);
	free(vol->scratch_patterns);
	free(vol->host);
	free(vol->user);
	free(vol->boot_id);
	free(vol);
	return NULL;
}

/* ---- facts ---- */

bool icm_volume_is_local(const struct icm_volume *vol)
{
	return vol->be->facts.local;
}

bool icm_volume_is_read_only(const struct icm_volume *vol)
{
	return vol->read_only;
}

const char *icm_volume_url(const struct icm_volume *vol)
{
	return vol->url;
}

struct icm_view *icm_fs_root(struct icm_volume *vol)
{
	return &vol->root_view->view;
}

struct icm_lock_set *icm_volume_lock_set(struct icm_volume *vol)
{
	return vol->lock_set;
}

struct icm_backend *icm_volume_backend(struct icm_volume *vol)
{
	return vol->be;
}

struct icm_scratch *icm_volume_scratch(struct icm_volume *vol)
{
	return vol->scratch;
}

static void unsaved_locked(struct icm_volume *vol, uint64_t *ret_files, uint64_t *ret_bytes)
{
	*ret_files = *ret_bytes = 0;
	icm_map_for_each (&vol->tree.inodes, i, node) {
		struct icm_inode *inode = ICM_CONTAINER(node, struct icm_inode, node);

		for (struct icm_file *f = inode->views; f; f = f->next) {
			if (!f->dirty || !inode->names)
				continue;
			(*ret_files)++;
			*ret_bytes += f->dirty_size;
		}
	}
}

void icm_volume_unsaved(struct icm_volume *vol, uint64_t *ret_files, uint64_t *ret_bytes)
{
	ICM_LOCK_SCOPE(&vol->lock);

	unsaved_locked(vol, ret_files, ret_bytes);
}

static uint64_t count_files(struct icm_volume *vol)
{
	uint64_t n = 0;

	icm_map_for_each (&vol->tree.inodes, i, node) {
		struct icm_inode *inode = ICM_CONTAINER(node, struct icm_inode, node);

		n += S_ISREG(inode->attr.mode) && inode->names;
	}
	return n;
}

void icm_volume_get_status(struct icm_volume *vol, struct icm_volume_status *ret)
{
	*ret = (struct icm_volume_status){ .url = vol->url,
					   .mountpoint = vol->mountpoint,
					   .read_only = vol->read_only,
					   .offline = vol->offline,
					   .copy_time = vol->copy_head.time,
					   .copy_left_out = vol->copy_head.left_out };
	icm_lease_facts(vol, &ret->lease_key, &ret->lease_age_ms, &ret->lease_ttl_ms);
	ICM_LOCK_SCOPE(&vol->lock);
	ret->reachable = vol->reachable && !vol->offline;
	ret->stale = vol->stale || vol->offline;
	ret->index = vol->offline ? vol->copy_head.index : vol->position;
	ret->files = count_files(vol);
	ret->unsaved_dir = vol->unsaved_dir;
	unsaved_locked(vol, &ret->unsaved_files, &ret->unsaved_bytes);
	ret->uid = vol->tree.root->attr.uid;
	ret->gid = vol->tree.root->attr.gid;
	ret->errors = icm_xcalloc(ICM_ERROR_NOTES, sizeof(*ret->errors));
	for (size_t i = 0; i < ICM_ERROR_NOTES; i++) {
		const struct icm_error_note *note =
			&vol->errors[(vol->next_error + i) % ICM_ERROR_NOTES];

		if (note->text)
			ret->errors[ret->n_errors++] =
				(struct icm_volume_error){ note->time, icm_xstrdup(note->path),
							   icm_xstrdup(note->text) };
	}
}

/* Where a store can't tell: programs take no free space for a full disk. */
#define UNKNOWN_BYTES (UINT64_C(1) << 40)

int icm_fs_statfs(struct icm_volume *vol, const struct icm_call *call, struct statvfs *ret)
{
	struct icm_ctx ctx = icm_volume_ctx(vol);
	struct icm_usage usage = { 0 };

	if (call->nowait && !vol->be->facts.local)
		return ICM_WOULD_WAIT;
	icm_backend_usage(vol->be, &ctx, &usage); /* zeroes where it can't tell */
	if (!usage.total_bytes)
		usage.total_bytes = usage.free_bytes = UNKNOWN_BYTES;
	*ret = (struct statvfs){ .f_bsize = 4096, .f_frsize = 4096, .f_namemax = ICM_NAME_MAX };
	ret->f_blocks = usage.total_bytes / 4096;
	ret->f_bfree = ret->f_bavail = usage.free_bytes / 4096;
	pthread_mutex_lock(&vol->lock);
	ret->f_files = vol->tree.n_files + ret->f_bfree;
	pthread_mutex_unlock(&vol->lock);
	ret->f_ffree = ret->f_favail = ret->f_bfree;
	return 0;
}
