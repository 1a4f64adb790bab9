/* SPDX-License-Identifier: MIT
 * Listing shared directories. A handle takes the names when it is read from the
 * start; positions are properties of names, so that going on behind one is
 * right whatever changed meanwhile. */
#include <string.h>

#include "core/key.h"
#include "core/shared.h"

#define POS_DOT	   1
#define POS_DOTDOT 2

/* Scratch names have no cookies: a hash of the name, above those of the tree. */
#define SCRATCH_POS (UINT64_C(1) << 61)

static struct icm_dir_handle *dir_handle_of(struct icm_handle *h)
{
	return ICM_CONTAINER(h, struct icm_dir_handle, h);
}

int icm_shared_opendir(struct icm_view *dir, const struct icm_call *call, struct icm_handle **ret)
{
	struct icm_volume *vol = dir->vol;
	struct icm_dir_handle *h;
	int r;

	if (!S_ISDIR(dir->type))
		return -ENOTDIR;
	if (!vol->cached && !icm_volume_is_given_up(vol)) {
		if (call->nowait && !vol->be->facts.local)
			return ICM_WOULD_WAIT;
		r = icm_volume_catch_up(vol);
		/* the names that are known are better than none: status says that they
		 * may be stale, and what is behind them can't be opened */
		if (r < 0 && !(icm_error_is_away(r) && icm_volume_is_given_up(vol)))
			return r == -EHOSTUNREACH ? -EIO : r;
	}
	h = icm_xcalloc(1, sizeof(*h));
	icm_handle_init(&h->h, dir, 0);
	pthread_mutex_init(&h->lock, NULL);
	*ret = &h->h;
	return 0;
}

static void clear_items(struct icm_dir_handle *h)
{
	for (size_t i = 0; i < h->n; i++)
		free(h->items[i].name);
	h->n = 0;
}

static void add_item(struct icm_dir_handle *h, uint64_t cookie, uint64_t ino, mode_t type,
		     const char *name)
{
	if (h->n == h->cap) {
		h->cap = h->cap ? h->cap * 2 : 32;
		h->items = icm_xrealloc(h->items, h->cap * sizeof(*h->items));
	}
	h->items[h->n++] = (struct icm_dir_item){ cookie, ino, type & S_IFMT, icm_xstrdup(name) };
}

struct scratch_filler {
	struct icm_volume *vol;
	struct icm_dir_handle *h;
	struct icm_inode *dir;
};

static int add_scratch(void *userdata, const struct icm_dirent *e)
{
	struct scratch_filler *s = userdata;
	uint64_t hash = icm_hash_bytes(e->name, strlen(e->name), 0);
	bool shared;

	pthread_mutex_lock(&s->vol->lock);
	shared = icm_tree_find(&s->vol->tree, s->dir, e->name) != NULL;
	pthread_mutex_unlock(&s->vol->lock);
	if (!shared)
		add_item(s->h, SCRATCH_POS | (hash & (SCRATCH_POS - 1)), e->ino, e->type, e->name);
	return 0;
}

static int by_cookie(const void *a, const void *b)
{
	const struct icm_dir_item *x = a, *y = b;

	return (x->cookie > y->cookie) - (x->cookie < y->cookie);
}

static void fill(struct icm_volume *vol, struct icm_dir_handle *h)
{
	struct icm_inode *dir = icm_file_of(h->h.view)->inode;
	struct scratch_filler filler = { vol, h, dir };
	ICM_AUTOFREE char *path = NULL;
	size_t shared;

	clear_items(h);
	pthread_mutex_lock(&vol->lock);
	path = icm_inode_path(dir);
	add_item(h, POS_DOT, h->h.view->ino, S_IFDIR, ".");
	add_item(h, POS_DOTDOT,
		 dir->names && dir->names->dir ? dir->names->dir->attr.ino : h->h.view->ino,
		 S_IFDIR, "..");
	for (const struct icm_name *n = dir->first; n; n = n->next)
		add_item(h, n->cookie, n->inode->attr.ino, n->inode->attr.mode, n->text);
	pthread_mutex_unlock(&vol->lock);
	shared = h->n;
	if (path && vol->scratch) {
		icm_scratch_list(vol->scratch, path, add_scratch, &filler);
		qsort(h->items + shared, h->n - shared, sizeof(*h->items), by_cookie);
	}
	h->filled = true;
}

int icm_shared_readdir(struct icm_handle *handle, const struct icm_call *call, off_t off,
		       icm_dirent_fn fn, void *userdata)
{
	struct icm_dir_handle *h = dir_handle_of(handle);
	size_t low = 0, high;
	ICM_LOCK_SCOPE(&h->lock);

	(void)call;
	if (off == 0 || !h->filled)
		fill(handle->view->vol, h);
	high = h->n;
	while (low < high) { /* first entry behind `off` */
		size_t mid = low + (high - low) / 2;

		if (h->items[mid].cookie <= (uint64_t)off)
			low = mid + 1;
		else
			high = mid;
	}
	for (size_t i = low; i < h->n; i++) {
		const struct icm_dir_item *item = &h->items[i];
		struct icm_dirent e = { .name = item->name,
					.ino = item->ino,
					.type = item->type,
					.next = (off_t)item->cookie };

		if (fn(userdata, &e))
			break;
	}
	return 0;
}

void icm_shared_releasedir(struct icm_handle *handle)
{
	struct icm_dir_handle *h = dir_handle_of(handle);

	clear_items(h);
	free(h->items);
	pthread_mutex_destroy(&h->lock);
	icm_handle_deinit(handle);
	free(h);
}
