/* SPDX-License-Identifier: MIT
 * Opening shared files: which version a program gets, and what the kernel has
 * to know before it reads.
 *
 * The kernel learns a new size from attributes only: a file that has shrunk
 * would be read with zeroes behind its end, since answers to parallel reads come
 * in any order. So an opener whose view has a version that the kernel hasn't
 * heard of is answered ESTALE, which makes the kernel look the name up again,
 * once; the answer to that look-up brings the size, and the view is pinned to
 * its version until the open that follows. */
#include <fcntl.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "core/attr.h"
#include "core/feed.h"
#include "core/key.h"
#include "core/look.h"
#include "core/names.h"
#include "core/shared.h"
#include "util/clock.h"
#include "util/log.h"

/* How long the look-up and the open may take that follow an ESTALE. */
#define AGAIN_NS (5 * ICM_NS_PER_S)

pid_t icm_process_of(pid_t tid)
{
	char path[64], line[256];
	ICM_AUTOFCLOSE FILE *f = NULL;
	int tgid = 0, fd;

	if (tid <= 0)
		return 0;
	fd = (int)syscall(SYS_pidfd_open, tid, 0);
	if (fd >= 0) { /* there are such descriptors for whole processes only */
		close(fd);
		return tid;
	}
	snprintf(path, sizeof(path), "/proc/%d/status", (int)tid);
	f = fopen(path, "re");
	while (f && !tgid && fgets(line, sizeof(line), f))
		if (strncmp(line, "Tgid:", 5) == 0)
			tgid = (int)strtol(line + 5, NULL, 10);
	return tgid;
}

/* The key that says whether the file is still what the tree says; its index there. */
static char *validation_key(struct icm_volume *vol, struct icm_file *f, uint64_t *ret_index)
{
	struct icm_inode *inode = f->inode;
	ICM_AUTOFREE char *path = NULL;
	ICM_LOCK_SCOPE(&vol->lock);

	if (!inode->published || f->dirty || !inode->names)
		return NULL; /* nothing in the store to compare with */
	if (inode->attr.linked) {
		*ret_index = inode->index;
		return icm_key_inode(inode->attr.ino);
	}
	path = icm_inode_path(inode);
	*ret_index = inode->names->attr_index;
	return path ? icm_key_attr(path) : NULL;
}

int icm_file_look_again(struct icm_volume *vol, struct icm_inode *inode)
{
	struct icm_inode *dir = NULL;
	ICM_AUTOFREE char *text = NULL;
	int r = -ENOENT;

	pthread_mutex_lock(&vol->lock);
	if (inode->names && inode->names->dir) {
		dir = icm_inode_ref(inode->names->dir);
		text = icm_xstrdup(inode->names->text);
	}
	pthread_mutex_unlock(&vol->lock);
	if (!dir)
		return r;
	r = icm_name_refresh(vol, dir, text);
	pthread_mutex_lock(&vol->lock);
	icm_inode_unref(&vol->tree, dir);
	pthread_mutex_unlock(&vol->lock);
	return r;
}

static bool has_name(struct icm_volume *vol, struct icm_inode *inode)
{
	ICM_LOCK_SCOPE(&vol->lock);

	return inode->names != NULL;
}

/* The whole tree is as the store is, and nothing is in it that only a look at the
 * file's own key would find: cheaper to ask than one key, where asking costs no
 * round trip. *ret_index: the store's index. */
static bool is_current(struct icm_volume *vol, const struct icm_ctx *ctx,
		       const struct icm_inode *inode, uint64_t *ret_index)
{
	bool compared;
	uint64_t position;

	if (icm_backend_index(vol->be, ctx, "", ret_index) < 0) {
		*ret_index = 0;
		return false;
	}
	pthread_mutex_lock(&vol->lock);
	position = icm_volume_wants_resync(vol) ? 0 : vol->position;
	compared = vol->unexplained <= vol->compared || vol->unexplained <= inode->compared;
	pthread_mutex_unlock(&vol->lock);
	return *ret_index <= position && compared;
}

static void note_compared(struct icm_volume *vol, struct icm_inode *inode, uint64_t index)
{
	ICM_LOCK_SCOPE(&vol->lock);

	if (inode->compared < index)
		inode->compared = index;
}

static int failure(struct icm_volume *vol, int r)
{
	return icm_volume_heard(vol, r) == -EHOSTUNREACH ? -EIO : r;
}

/* The key has an older index than it had: the store was put back to a copy, which the
 * watch need not have noticed, or a server answered that is behind the others. But
 * what a mount that may not write has derived has the index of tree/<path>. */
static int check_gone_back(struct icm_volume *vol, const char *key, uint64_t known)
{
	struct icm_ctx ctx = icm_volume_ctx(vol);
	ICM_AUTOENTRY struct icm_entry attr = { 0 };
	ICM_AUTOENTRY struct icm_entry tree = { 0 };
	ICM_AUTOFREE char *tree_key = NULL;
	int r;

	ctx.consistent = true;
	r = icm_backend_get(vol->be, &ctx, key, &attr);
	if (r == 0 && attr.modify_index < known && strncmp(key, "attr/", strlen("attr/")) == 0) {
		tree_key = icm_asprintf("tree/%s", key + strlen("attr/"));
		r = icm_backend_get(vol->be, &ctx, tree_key, &tree);
	}
	if (r < 0 || attr.modify_index >= known || tree.modify_index >= known)
		return r == -ENOENT ? 0 : r;
	icm_feed_restart(vol);
	return icm_feed_catch_up(vol);
}

/* Close-to-open: what another mount closed or another program wrote before is seen
 * here. */
int icm_file_revalidate(struct icm_volume *vol, struct icm_file *f, const struct icm_call *call)
{
	struct icm_ctx ctx = icm_volume_ctx(vol);
	ICM_AUTOENTRY struct icm_entry e = { 0 };
	uint64_t known = 0, index = 0;
	ICM_AUTOFREE char *key = vol->cached ? NULL : validation_key(vol, f, &known);
	bool foreign = false;
	int r;

	if (!key)
		return 0;
	if (call->nowait && !vol->be->facts.local)
		return ICM_WOULD_WAIT;
	if (vol->be->facts.local && is_current(vol, &ctx, f->inode, &index))
		return 0;
	if (!vol->be->facts.local) {
		enum icm_look look;

		r = icm_look_at_both(vol, f, key, known, &look);
		if (r < 0 || look == ICM_LOOK_SAME)
			return failure(vol, r);
		if (look == ICM_LOOK_TAKEN)
			return has_name(vol, f->inode) ? 0 : -ESTALE;
	}
	r = icm_backend_get(vol->be, &ctx, key, &e);
	if (r < 0 && r != -ENOENT)
		return failure(vol, r);
	if (r == 0 && e.modify_index < known)
		r = check_gone_back(vol, key, known);
	if (r < 0 && r != -ENOENT)
		return failure(vol, r);
	if (r == 0 && e.modify_index <= known) {
		r = icm_look_at_contents(vol, f->inode, known, &foreign);
		if (r < 0)
			return failure(vol, r);
		if (!foreign) {
			note_compared(vol, f->inode, index);
			return 0;
		}
	}
	r = icm_file_look_again(vol, f->inode);
	if (r == 0 && !has_name(vol, f->inode))
		r = -ENOENT; /* the name is another file's now */
	return r == -ENOENT ? -ESTALE : r;
}

/* ---- the second try ---- */

/* The thread's open was answered ESTALE a moment ago; volume->lock held. */
static struct icm_again *find_again(struct icm_volume *vol, pid_t tid)
{
	int64_t since = icm_now_ns() - AGAIN_NS;

	for (size_t i = 0; i < ICM_AGAINS; i++)
		if (vol->agains[i].tid == tid && vol->agains[i].when_ns > since)
			return &vol->agains[i];
	return NULL;
}

/* `drained`: the kernel has heard of so many doubts about this view. */
static int send_again(struct icm_volume *vol, const struct icm_call *call, struct icm_file *drained,
		      uint64_t doubts)
{
	struct icm_again *again;
	ICM_LOCK_SCOPE(&vol->lock);

	again = find_again(vol, call->pid);
	if (!again)
		again = &vol->agains[vol->next_again++ % ICM_AGAINS];
	*again = (struct icm_again){
		.tid = call->pid, .when_ns = icm_now_ns(), .drained = drained, .doubts = doubts
	};
	return -ESTALE;
}

/* The kernel has heard of all that there is, but for the size. */
static bool is_drained(const struct icm_again *again, const struct icm_file *f)
{
	return again->drained == f && again->doubts == f->doubts;
}

bool icm_file_is_pinned(const struct icm_file *f)
{
	return f->n_pins && f->pinned_ns > icm_now_ns() - AGAIN_NS;
}

/* The kernel gets its attributes from the answer that is being made; volume->lock
 * held. A view about which something else is on its way to the kernel is left
 * to those who have it. */
static struct icm_file *pin(struct icm_volume *vol, struct icm_file *f, bool drained,
			    struct icm_file **ret_left)
{
	*ret_left = NULL;
	if (f->doubts != f->settled && !drained) {
		icm_file_freeze(vol, f);
		*ret_left = f;
		f = icm_file_get(vol, f->inode);
	}
	/* opens that never came don't count any more */
	f->n_pins = icm_file_is_pinned(f) ? f->n_pins + 1 : 1;
	f->pinned_ns = icm_now_ns();
	f->pinned_doubts = f->doubts;
	return f;
}

struct icm_file *icm_file_looked_up(struct icm_volume *vol, struct icm_file *f, pid_t tid,
				    struct icm_file **ret_left)
{
	struct icm_again *again = tid ? find_again(vol, tid) : NULL;

	*ret_left = NULL;
	return again && S_ISREG(f->view.type) ? pin(vol, f, is_drained(again, f), ret_left) : f;
}

void icm_file_leave(struct icm_volume *vol, struct icm_file *left)
{
	struct icm_news news = { 0 };

	if (!left)
		return;
	/* an event of the name that is on its way doesn't reach it any more */
	pthread_mutex_lock(&vol->lock);
	icm_news_event(&news, left, ICM_EVENT_MODIFY);
	pthread_mutex_unlock(&vol->lock);
	icm_news_tell(vol, &news);
	icm_fs_forget(&left->view, 1);
}

/* Waits until the kernel has heard everything about a view that has followed, but
 * for the size, which it takes from the look-up that this makes it do. */
static int settle(struct icm_volume *vol, struct icm_file *f, const struct icm_call *call,
		  bool last)
{
	uint64_t doubts;

	pthread_mutex_lock(&vol->lock);
	if (f->doubts == f->settled) {
		pthread_mutex_unlock(&vol->lock);
		return 0;
	}
	if (last || call->nowait) {
		pthread_mutex_unlock(&vol->lock);
		return last ? -ESTALE : ICM_WOULD_WAIT;
	}
	while (f->untold)
		pthread_cond_wait(&vol->told, &vol->lock);
	doubts = f->doubts;
	pthread_mutex_unlock(&vol->lock);
	vol->notify.drain(vol->notify_data, &f->view);
	/* with more of them by the look-up, that makes another view */
	return send_again(vol, call, f, doubts);
}

/* The second try of an open that was sent to look up again. */
struct second_try {
	bool is;
	bool pinned;  /* its look-up has pinned the view */
	bool settled; /* and has told the kernel all that was in doubt */
	struct icm_news news;
};

static struct second_try take_second_try(struct icm_volume *vol, struct icm_file *f,
					 const struct icm_call *call)
{
	struct second_try t = { 0 };
	struct icm_again *again;
	ICM_LOCK_SCOPE(&vol->lock);

	again = find_again(vol, call->pid);
	if (!again)
		return t;
	t.is = true;
	/* by its own look-up or one that it shares */
	t.pinned = f->pinned_ns >= again->when_ns && icm_file_is_pinned(f);
	t.settled = t.pinned && f->doubts == f->pinned_doubts;
	if (t.settled)
		f->settled = f->doubts;
	else if (t.pinned && f->n_pins)
		f->n_pins--; /* the open won't be this view's, or as if it had not been pinned */
	icm_file_pay_attr(vol, f, &t.news);
	*again = (struct icm_again){ 0 };
	return t;
}

/* The file that is now where this one was, with a reference; itself, if it was
 * unlinked in this mount. */
static struct icm_file *newest(struct icm_volume *vol, struct icm_file *f)
{
	struct icm_inode *inode = f->inode;
	struct icm_name *name = NULL;
	ICM_LOCK_SCOPE(&vol->lock);

	if (!inode->names && inode->last_path)
		name = icm_tree_walk(&vol->tree, inode->last_path);
	if (name && S_ISREG(name->inode->attr.mode))
		inode = name->inode;
	if (!inode->names) {
		icm_view_ref(&f->view);
		return f;
	}
	return icm_file_get(vol, inode);
}

/* Whether the kernel may open this view; -ESTALE: let it look the name up again
 * (the last try: don't expect that it comes back). */
static int check_view(struct icm_volume *vol, struct icm_file *f, const struct icm_call *call,
		      bool last)
{
	int r = icm_file_revalidate(vol, f, call);
	bool old;

	if (r < 0 && r != -ESTALE)
		return r;
	/* after the store was asked: what the feed has brought meanwhile counts */
	pthread_mutex_lock(&vol->lock);
	old = icm_file_is_given_up(f) || f->frozen || f->aside || !f->inode->names;
	pthread_mutex_unlock(&vol->lock);
	if (r == 0 && !old)
		return vol->notify.drain ? settle(vol, f, call, last) : 0;
	return last ? -ESTALE : send_again(vol, call, NULL, 0);
}

/* Set-id bits go when somebody truncates: the kernel does it for writes and for
 * truncate(2), but an open with O_TRUNC reaches us alone. */
static int drop_set_id(struct icm_view *view, const struct icm_call *call)
{
	struct stat st;
	mode_t mode;

	icm_view_stat(view, &st);
	mode = st.st_mode & ~(mode_t)S_ISUID;
	if (st.st_mode & S_IXGRP)
		mode &= ~(mode_t)S_ISGID;
	if (call->uid == 0 || mode == st.st_mode)
		return 0;
	if (call->nowait)
		return ICM_WOULD_WAIT;
	st.st_mode = mode;
	return icm_shared_setattr(view, call, NULL, ICM_SET_MODE, &st, &st);
}

/* `pinned`: for this open, which keeps the version by itself from here on. */
static int open_view(struct icm_view *view, const struct icm_call *call, int flags, bool pinned,
		     struct icm_open_result *ret)
{
	struct icm_volume *vol = view->vol;
	struct icm_file *f = icm_file_of(view);
	bool writes = (flags & O_ACCMODE) != O_RDONLY || (flags & O_TRUNC);
	struct icm_file_handle *h = icm_xcalloc(1, sizeof(*h));
	bool keep;
	int r = 0;

	pthread_mutex_lock(&vol->lock);
	keep = f->pages_gen == f->version.gen;
	f->pages_gen = f->version.gen;
	f->n_handles++;
	f->n_writers += writes;
	if (pinned && f->n_pins)
		f->n_pins--;
	pthread_mutex_unlock(&vol->lock);
	icm_handle_init(&h->h, view, flags);
	h->opener = writes ? icm_process_of(call->pid) : 0;
	*ret = (struct icm_open_result){ .handle = &h->h, .keep_cache = keep };
	/* pending: `cmd > file` flushes before it writes, and nobody may see an
	 * empty file in between */
	if (flags & O_TRUNC)
		r = icm_file_truncate(vol, f, 0);
	if (r < 0)
		icm_shared_release(&h->h);
	return r;
}

/* The kernel came back with a view that is old again (several look-ups of one name
 * share an answer), and a second ESTALE would reach the program: the handle
 * gets the newest contents, past the pages that the kernel has of this view. */
static int open_past_cache(struct icm_file *f, const struct icm_call *call, int flags,
			   struct icm_open_result *ret)
{
	struct icm_volume *vol = f->view.vol;
	struct icm_file *g = newest(vol, f);
	uint64_t pages;
	int r;

	pthread_mutex_lock(&vol->lock);
	pages = g->pages_gen;
	pthread_mutex_unlock(&vol->lock);
	r = open_view(&g->view, call, flags, false, ret);
	if (r == 0) {
		ret->direct = true;
		ret->keep_cache = false;
		pthread_mutex_lock(&vol->lock);
		g->pages_gen = pages; /* nothing was cached by this */
		pthread_mutex_unlock(&vol->lock);
	}
	icm_fs_forget(&g->view, 1);
	return r;
}

static int check_kind(const struct icm_view *view, int flags)
{
	if (S_ISDIR(view->type))
		return -EISDIR;
	if (!S_ISREG(view->type))
		return S_ISLNK(view->type) ? -ELOOP : -ENXIO;
	return view->vol->read_only && ((flags & O_ACCMODE) != O_RDONLY || (flags & O_TRUNC))
		       ? -EROFS
		       : 0;
}

int icm_shared_open(struct icm_view *view, const struct icm_call *call, int flags,
		    struct icm_open_result *ret)
{
	struct icm_volume *vol = view->vol;
	struct icm_file *f = icm_file_of(view);
	struct second_try second;
	int r = check_kind(view, flags);

	if (r < 0)
		return r;
	second = take_second_try(vol, f, call);
	icm_news_tell(vol, &second.news);
	if (!second.settled)
		r = check_view(vol, f, call, second.is);
	if (r == 0 && (flags & O_TRUNC))
		r = drop_set_id(view, call);
	if (r == -ESTALE && second.is)
		return open_past_cache(f, call, flags, ret);
	return r < 0 ? r : open_view(view, call, flags, second.settled, ret);
}

/* open(2) with O_CREAT of a name that turns out to exist: look-up and open in one. */
int icm_file_open_found(struct icm_view **view, const struct icm_call *call, int flags, bool made,
			struct stat *ret_st, struct icm_open_result *ret)
{
	struct icm_volume *vol = (*view)->vol;
	struct icm_file *f = icm_file_of(*view), *left = NULL;
	int r = check_kind(*view, flags);

	if (r == 0 && !made)
		r = icm_file_revalidate(vol, f, call);
	if (r == 0 && (flags & O_TRUNC))
		r = drop_set_id(*view, call);
	if (r < 0)
		return r;
	pthread_mutex_lock(&vol->lock);
	if (!made && (f->frozen || f->aside || icm_file_is_given_up(f))) {
		pthread_mutex_unlock(&vol->lock);
		return -ESTALE;
	}
	f = pin(vol, f, false, &left);
	icm_file_stat(vol, f, ret_st);
	pthread_mutex_unlock(&vol->lock);
	icm_file_leave(vol, left);
	*view = &f->view;
	return open_view(*view, call, flags, true, ret);
}
