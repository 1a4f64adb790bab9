/* SPDX-License-Identifier: MIT
 * Views of shared objects: finding, versions, and what the kernel must hear. */
#include <string.h>

#include "core/attr.h"
#include "core/shared.h"
#include "util/clock.h"

/* How long a reader of an old version may go on reading it undisturbed before
 * its view follows to the newest one. */
#define FREEZE_NS (3 * ICM_NS_PER_S)

/* ---- contents ---- */

struct icm_content *icm_content_new(const void *bytes, size_t len)
{
	struct icm_content *c = icm_xmalloc(sizeof(*c) + len);

	atomic_init(&c->refs, 1);
	c->len = len;
	if (len)
		memcpy(c->bytes, bytes, len);
	return c;
}

struct icm_content *icm_content_ref(struct icm_content *c)
{
	if (c)
		atomic_fetch_add(&c->refs, 1);
	return c;
}

struct icm_content *icm_content_unref(struct icm_content *c)
{
	if (c && atomic_fetch_sub(&c->refs, 1) == 1)
		free(c);
	return NULL;
}

/* ---- views ---- */

struct icm_version icm_inode_version(const struct icm_inode *inode)
{
	return (struct icm_version){ .gen = inode->gen,
				     .size = inode->attr.size,
				     .holes = inode->attr.holes,
				     .mtime = inode->attr.mtime,
				     .ctime = inode->attr.ctime,
				     .has_hash = inode->attr.has_hash,
				     .hash = inode->attr.hash };
}

/* New openers may get it. */
static bool is_newest(const struct icm_file *f)
{
	return !f->frozen && !f->aside && !icm_file_is_given_up(f);
}

/* The kernel finds it by the inode's names. */
static bool is_named(const struct icm_file *f)
{
	return f->inode->named == f && is_newest(f);
}

struct icm_file *icm_file_get(struct icm_volume *vol, struct icm_inode *inode)
{
	struct icm_file *f = inode->named;

	/* the same as before, as long as it will do: others may have thawed meanwhile */
	if (f && is_newest(f) && icm_view_tryref(&f->view))
		return f;
	for (f = inode->views; f; f = f->next)
		if (is_newest(f) && icm_view_tryref(&f->view))
			return inode->named = f;
	f = icm_xcalloc(1, sizeof(*f));
	icm_view_init(&f->view, &icm_shared_view_ops, vol, inode->attr.ino, inode->attr.mode);
	f->inode = icm_inode_ref(inode);
	pthread_mutex_init(&f->commit, NULL);
	pthread_mutex_init(&f->io, NULL);
	f->version = icm_inode_version(inode);
	f->next = inode->views;
	inode->views = f;
	inode->named = f;
	return f;
}

void icm_shared_free(struct icm_view *view)
{
	struct icm_file *f = icm_file_of(view);
	struct icm_volume *vol = view->vol;
	struct icm_file **at;

	pthread_mutex_lock(&vol->lock);
	at = &f->inode->views;
	while (*at != f)
		at = &(*at)->next;
	*at = f->next;
	if (f->inode->named == f)
		f->inode->named = NULL;
	if (f->frozen)
		vol->n_frozen--;
	vol->n_owing -= f->owes_attr;
	if (f->lock_inode)
		icm_inode_unref(&vol->tree, f->lock_inode);
	icm_inode_unref(&vol->tree, f->inode);
	pthread_mutex_unlock(&vol->lock);
	icm_data_free(f->data);
	icm_content_unref(f->base);
	pthread_mutex_destroy(&f->io);
	pthread_mutex_destroy(&f->commit);
	free(f);
}

static struct timespec later(struct timespec a, struct timespec b)
{
	return icm_timespec_cmp(a, b) < 0 ? b : a;
}

void icm_file_stat(struct icm_volume *vol, struct icm_file *f, struct stat *st)
{
	uint64_t size = f->version.size, holes = f->version.holes;

	(void)vol;
	icm_inode_stat(f->inode, st);
	if (!S_ISREG(st->st_mode))
		return;
	st->st_mtim = f->version.mtime;
	if (f->dirty) {
		size = f->dirty_size;
		holes = f->dirty_holes;
		st->st_mtim = f->times_set ? f->set_mtime : f->dirty_time;
		if (f->times_set)
			st->st_atim = f->set_atime;
		st->st_ctim = later(st->st_ctim, f->dirty_time);
	}
	st->st_size = (off_t)size;
	st->st_blocks = (blkcnt_t)((size - holes + 511) / 512);
}

/* ---- news ---- */

/* Room for one about this view; NULL: nobody knows it any more. */
static struct icm_news_item *add_news(struct icm_news *n, struct icm_file *f, int what)
{
	if (!icm_view_tryref(&f->view))
		return NULL;
	f->untold += what == ICM_NEWS_DATA;
	if (n->n == n->cap) {
		n->cap = n->cap ? n->cap * 2 : 8;
		n->v = icm_xrealloc(n->v, n->cap * sizeof(*n->v));
	}
	n->v[n->n] = (struct icm_news_item){ .what = what, .view = &f->view };
	return &n->v[n->n++];
}

void icm_news_view(struct icm_news *n, struct icm_file *f, bool data)
{
	/* The kernel drops the answer to a look-up that this overtakes, and the size
	 * with it. */
	if (!data && f->doubts != f->settled && icm_file_is_pinned(f)) {
		f->view.vol->n_owing += !f->owes_attr;
		f->owes_attr = true;
		return;
	}
	add_news(n, f, data ? ICM_NEWS_DATA : ICM_NEWS_ATTR);
}

void icm_news_inode(struct icm_news *n, struct icm_inode *inode, bool data)
{
	for (struct icm_file *f = inode->views; f; f = f->next)
		icm_news_view(n, f, data);
}

void icm_news_name(struct icm_news *n, struct icm_inode *dir, const char *name)
{
	for (struct icm_file *f = dir->views; f; f = f->next) {
		struct icm_news_item *item = add_news(n, f, ICM_NEWS_NAME);

		if (item)
			item->name = icm_xstrdup(name);
	}
}

void icm_news_event(struct icm_news *n, struct icm_file *f, enum icm_event_type type)
{
	struct icm_news_item *item = add_news(n, f, ICM_NEWS_EVENT);

	if (item)
		item->event = type;
}

void icm_news_apart(struct icm_news *n, struct icm_inode *inode, const struct icm_file *by,
		    enum icm_event_type type)
{
	if (icm_inode_is_dir(inode))
		return; /* has one view */
	for (struct icm_file *f = inode->views; f; f = f->next)
		if (f != by && !is_named(f))
			icm_news_event(n, f, type);
}

static void told(struct icm_volume *vol, struct icm_file *f)
{
	ICM_LOCK_SCOPE(&vol->lock);

	if (--f->untold == 0)
		pthread_cond_broadcast(&vol->told);
}

void icm_news_tell(struct icm_volume *vol, struct icm_news *n)
{
	const struct icm_notify *to = &vol->notify;

	for (size_t i = 0; i < n->n; i++) {
		struct icm_news_item *item = &n->v[i];

		if (item->what == ICM_NEWS_DATA && to->inval_data)
			to->inval_data(vol->notify_data, item->view);
		else if (item->what == ICM_NEWS_ATTR && to->attr_changed)
			to->attr_changed(vol->notify_data, item->view);
		else if (item->what == ICM_NEWS_NAME && to->expire_name)
			to->expire_name(vol->notify_data, item->view, item->name);
		else if (item->what == ICM_NEWS_EVENT && to->event)
			to->event(vol->notify_data,
				  &(struct icm_event){ .type = item->event, .view = item->view });
		if (item->what == ICM_NEWS_DATA)
			told(vol, icm_file_of(item->view));
		free(item->name);
		icm_fs_forget(item->view, 1);
	}
	free(n->v);
	*n = (struct icm_news){ 0 };
}

/* ---- versions ---- */

/* The view shows the newest version from now on; what it has cached of another
 * one is recognised by its generation. */
static void follow(struct icm_volume *vol, struct icm_file *f, struct icm_news *news)
{
	bool thaws = f->frozen;

	if (thaws)
		vol->n_frozen--;
	f->frozen = false;
	f->doubts++;
	f->version = icm_inode_version(f->inode);
	icm_news_view(news, f, true);
	/* its readers see the change only now */
	if (thaws)
		icm_news_event(news, f, ICM_EVENT_MODIFY);
}

void icm_file_doubt(struct icm_volume *vol, struct icm_file *f)
{
	struct icm_news news = { 0 };

	pthread_mutex_lock(&vol->lock);
	f->doubts++;
	f->pages_gen = 0;
	icm_news_view(&news, f, true);
	pthread_mutex_unlock(&vol->lock);
	icm_news_tell(vol, &news);
}

void icm_file_set_aside(struct icm_inode *inode)
{
	if (!S_ISREG(inode->attr.mode))
		return;
	/* what is being written is for all programs of the mount to see */
	for (struct icm_file *f = inode->views; f; f = f->next)
		f->aside = f->aside || (!f->dirty && !f->n_writers);
}

void icm_file_freeze(struct icm_volume *vol, struct icm_file *f)
{
	f->frozen = true;
	f->frozen_ns = icm_now_ns();
	vol->n_frozen++;
}

void icm_file_new_version(struct icm_volume *vol, struct icm_inode *inode, struct icm_file *by,
			  struct icm_news *news)
{
	bool froze = false;

	for (struct icm_file *f = inode->views; f; f = f->next) {
		if (f == by || f->dirty) {
			if (f == by)
				f->version = icm_inode_version(inode);
			continue; /* a dirty one finds out when it is published */
		}
		if (!f->n_handles && !icm_file_is_pinned(f)) {
			follow(vol, f, news);
		} else if (!f->frozen) {
			icm_file_freeze(vol, f);
			froze = true;
		}
	}
	for (struct icm_name *name = inode->names; froze && name; name = name->alias)
		icm_news_name(news, name->dir, name->text);
	icm_news_apart(news, inode, by, ICM_EVENT_MODIFY);
}

void icm_file_thaw(struct icm_volume *vol, struct icm_file *f, struct icm_news *news)
{
	if (f->frozen && !f->dirty)
		follow(vol, f, news);
}

void icm_file_pay_attr(struct icm_volume *vol, struct icm_file *f, struct icm_news *news)
{
	if (!f->owes_attr)
		return;
	f->owes_attr = false;
	vol->n_owing--;
	icm_news_view(news, f, false);
}

/* Follows if it is time; else when it will be, or 0. */
static int64_t thaw_in(struct icm_volume *vol, struct icm_file *f, int64_t now,
		       struct icm_news *news)
{
	int64_t since = f->pinned_ns > f->frozen_ns ? f->pinned_ns : f->frozen_ns;
	int64_t left = since + FREEZE_NS - now;

	/* mapped pages of a writer may still come back */
	if (!f->frozen || f->dirty || f->n_writers)
		return 0;
	if (left > 0)
		return left;
	follow(vol, f, news);
	return 0;
}

int64_t icm_file_thaw_old(struct icm_volume *vol)
{
	int64_t now = icm_now_ns(), next = 0;
	struct icm_news news = { 0 };

	pthread_mutex_lock(&vol->lock);
	if (vol->n_frozen || vol->n_owing) {
		icm_map_for_each (&vol->tree.inodes, i, node) {
			struct icm_inode *inode = ICM_CONTAINER(node, struct icm_inode, node);

			for (struct icm_file *f = inode->views; f; f = f->next) {
				int64_t left = thaw_in(vol, f, now, &news);

				icm_file_pay_attr(vol, f, &news);
				if (f->owes_attr && !left)
					left = FREEZE_NS;
				if (left && (!next || left < next))
					next = left;
			}
		}
	}
	pthread_mutex_unlock(&vol->lock);
	icm_news_tell(vol, &news);
	return next;
}

void icm_file_drop_cache(struct icm_file *f)
{
	if (f->base && f->base->len > ICM_CONTENT_KEEP)
		f->base = icm_content_unref(f->base);
	if (f->data && !f->data_is_work)
		f->data = icm_data_free(f->data);
}
