/* SPDX-License-Identifier: MIT
 * The scratch root: opening, what is scratch, locks. */
#include "core/scratch-local.h"

#include <errno.h>
#include <string.h>

#include "core/introspect.h"
#include "util/buf.h"

/* What editors, Terraform and ICM's own runs leave behind. Not the lock files
 * .terraform.tfstate.lock.info and .terraform.lock.hcl: other hosts need them. */
static const char default_patterns[] = ".terraform/\n"
				       "*.log\n"
				       "*.swp\n"
				       "*.swo\n"
				       "*~\n"
				       ".#*\n"
				       "\\#*#\n"
				       "4913\n"
				       "*.tmp\n"
				       "ssh.out\n"
				       "ssh.err\n"
				       "docker.out\n"
				       "jdbc.out\n"
				       "terraform.err\n";

/* ---- opening ---- */

static int read_patterns(const char *path, char **ret_text, size_t *ret_len)
{
	ICM_AUTOFCLOSE FILE *f = fopen(path, "re");
	ICM_AUTOFREE char *text = NULL;
	size_t len;

	if (!f)
		return -errno;
	text = icm_xmalloc(ICM_IGNORE_MAX_BYTES + 1);
	len = fread(text, 1, ICM_IGNORE_MAX_BYTES + 1, f);
	if (ferror(f))
		return -EIO;
	if (len > ICM_IGNORE_MAX_BYTES)
		return -EFBIG;
	*ret_text = ICM_STEAL(&text);
	*ret_len = len;
	return 0;
}

static int load_patterns(struct icm_scratch *s, const char *path, char **ret_error)
{
	ICM_AUTOFREE char *text = NULL;
	size_t len = 0, bad;
	int r;

	if (!path) {
		icm_ignore_add(&s->base, default_patterns, strlen(default_patterns));
		return 0;
	}
	r = read_patterns(path, &text, &len);
	if (r < 0) {
		*ret_error = icm_asprintf("can't read the scratch patterns in '%s': %s", path,
					  strerror(-r));
		return -EINVAL;
	}
	bad = icm_ignore_add(&s->base, text, len);
	if (!bad)
		return 0;
	*ret_error = icm_asprintf("bad pattern in line %zu of '%s'", bad, path);
	return -EINVAL;
}

/* Makes a directory and those above it. */
static int make_dirs(const char *dir)
{
	ICM_AUTOFREE char *path = icm_xstrdup(dir);

	for (char *slash = strchr(path + 1, '/'); slash; slash = strchr(slash + 1, '/')) {
		*slash = '\0';
		if (mkdir(path, 0700) < 0 && errno != EEXIST)
			return -errno;
		*slash = '/';
	}
	return mkdir(path, 0700) < 0 && errno != EEXIST ? -errno : 0;
}

/* What a mount that was killed had in the making. */
static void remove_stages(struct icm_scratch *s)
{
	int fd = icm_scratch_openat(s, "", O_RDONLY | O_DIRECTORY);
	DIR *dir = fd < 0 ? NULL : fdopendir(fd);
	const struct dirent *e;

	if (!dir) {
		icm_closep(&fd);
		return;
	}
	while ((e = readdir(dir)))
		if (icm_scratch_is_stage(e->d_name))
			icm_scratch_remove_tree(s->root_fd, e->d_name);
	closedir(dir);
}

static int open_root(struct icm_scratch *s, const char *dir, char **ret_error)
{
	struct stat st;
	int r = dir[0] ? make_dirs(dir) : -ENOENT;

	if (r >= 0) {
		s->root_fd = open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
		r = s->root_fd < 0 || fstat(s->root_fd, &st) < 0 ? -errno : 0;
	}
	if (r >= 0 && st.st_uid != geteuid())
		r = -EPERM;
	if (r < 0) {
		*ret_error =
			icm_asprintf("can't use the scratch directory '%s': %s", dir, strerror(-r));
		return r;
	}
	remove_stages(s);
	return 0;
}

static struct icm_scratch *new_scratch(struct icm_volume *vol)
{
	struct icm_scratch *s = icm_xcalloc(1, sizeof(*s));
	pthread_rwlockattr_t attr;

	s->vol = vol;
	s->root_fd = -1;
	s->is_root = geteuid() == 0;
	pthread_rwlockattr_init(&attr);
	/* Else look-ups, which never end, could keep a rename waiting for ever. */
	pthread_rwlockattr_setkind_np(&attr, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
	pthread_rwlock_init(&s->moves, &attr);
	pthread_rwlock_init(&s->rules, NULL);
	pthread_mutex_init(&s->lock, NULL);
	pthread_rwlockattr_destroy(&attr);
	return s;
}

int icm_scratch_open(struct icm_volume *vol, const char *dir, const char *patterns,
		     struct icm_scratch **ret, char **ret_error)
{
	struct icm_scratch *s = new_scratch(vol);
	int r = load_patterns(s, patterns, ret_error);

	if (r >= 0)
		r = open_root(s, dir, ret_error);
	if (r < 0) {
		icm_scratch_close(s);
		return r;
	}
	*ret = s;
	return 0;
}

struct icm_scratch *icm_scratch_close(struct icm_scratch *s)
{
	if (!s)
		return NULL;
	icm_scratch_nodes_clear(s);
	icm_map_free(&s->by_inode);
	icm_ignore_clear(&s->base);
	icm_ignore_clear(&s->tree);
	icm_closep(&s->root_fd);
	pthread_mutex_destroy(&s->lock);
	pthread_rwlock_destroy(&s->rules);
	pthread_rwlock_destroy(&s->moves);
	free(s);
	return NULL;
}

/* ---- what is scratch ---- */

void icm_scratch_set_ignore(struct icm_scratch *s, const char *text, size_t len)
{
	struct icm_ignore list = { 0 };

	if (text)
		icm_ignore_add(&list, text, len);
	pthread_rwlock_wrlock(&s->rules);
	icm_ignore_clear(&s->tree);
	s->tree = list;
	pthread_rwlock_unlock(&s->rules);
}

bool icm_scratch_match(struct icm_scratch *s, const char *path, bool is_dir)
{
	const struct icm_ignore *lists[] = { &s->base, &s->tree };
	ICM_RDLOCK_SCOPE(&s->rules);

	return icm_ignore_match(lists, ICM_COUNT(lists), path, is_dir);
}

char *icm_scratch_path(struct icm_view *view)
{
	return icm_scratch_node_path(icm_scratch_node_of(view));
}

/* ---- locks ---- */

static struct icm_lock_table *lock_table(struct icm_scratch_node *n, bool make)
{
	ICM_LOCK_SCOPE(&n->s->lock);

	if (!n->locks && make)
		n->locks = icm_lock_table_new(icm_volume_lock_set(n->s->vol));
	return n->locks;
}

int icm_scratch_lock(struct icm_handle *h, const struct icm_lock_request *req,
		     icm_lock_done_fn done, void *userdata, struct icm_lock_wait **ret_wait)
{
	struct icm_lock_table *t = lock_table(icm_scratch_node_of(h->view), true);

	return icm_lock_table_set(t, h->serial, req, done, userdata, ret_wait);
}

void icm_scratch_getlk(struct icm_handle *h, const struct icm_lock_request *req, struct flock *lk)
{
	struct icm_lock_table *t = lock_table(icm_scratch_node_of(h->view), true);

	icm_lock_table_get(t, h->serial, req, lk);
}

struct list_locks {
	icm_scratch_lock_fn fn;
	void *userdata;
	const char *path;
	uint64_t ino;
};

static void list_lock(void *userdata, const struct icm_lock_info *info)
{
	const struct list_locks *l = userdata;

	l->fn(l->userdata, l->path, l->ino, info);
}

/* All nodes with a lock table, referenced; fresh. */
static struct icm_scratch_node **locked_nodes(struct icm_scratch *s, size_t *ret_n)
{
	struct icm_scratch_node **list = NULL;
	size_t n_list = 0;
	ICM_LOCK_SCOPE(&s->lock);

	for (struct icm_scratch_node *n = s->nodes; n; n = n->next) {
		if (!n->locks || !icm_view_tryref(&n->view))
			continue;
		list = icm_xrealloc(list, (n_list + 1) * sizeof(struct icm_scratch_node *));
		list[n_list++] = n;
	}
	*ret_n = n_list;
	return list;
}

void icm_scratch_list_locks(struct icm_scratch *s, icm_scratch_lock_fn fn, void *userdata)
{
	size_t n_list;
	ICM_AUTOFREE struct icm_scratch_node **list = locked_nodes(s, &n_list);

	for (size_t i = 0; i < n_list; i++) {
		ICM_AUTOFREE char *path = icm_scratch_node_path(list[i]);
		struct list_locks l = { fn, userdata, path, list[i]->view.ino };

		icm_lock_table_list(list[i]->locks, list_lock, &l);
		icm_fs_forget(&list[i]->view, 1);
	}
}
