/* SPDX-License-Identifier: MIT
 * Open shared files: read, write, flush, fsync, release, and space. */
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <string.h>

#include "core/attr.h"
#include "core/key.h"
#include "core/names.h"
#include "core/shared.h"
#include "core/unsaved.h"
#include "util/clock.h"
#include "util/log.h"

/* ---- read ---- */

bool icm_file_lock_io(struct icm_file *f, const struct icm_call *call)
{
	if (call->nowait)
		return pthread_mutex_trylock(&f->io) == 0;
	pthread_mutex_lock(&f->io);
	return true;
}

/* Contents that can't be had: an old version that is gone for good, or damage. */
static int missing_contents(struct icm_volume *vol, struct icm_file *f)
{
	ICM_AUTOFREE char *path = NULL;
	bool old;

	pthread_mutex_lock(&vol->lock);
	old = f->frozen || !f->inode->names;
	path = icm_inode_path(f->inode);
	pthread_mutex_unlock(&vol->lock);
	if (old)
		return -ESTALE;
	icm_log_err("the contents of '%s' are damaged: they aren't what its attributes say",
		    path ? path : "a file");
	return -EIO;
}

/* Contents for `how`, which says -ESTALE when they aren't in the store as this mount
 * knows them. io held. */
static int bring(struct icm_volume *vol, struct icm_file *f,
		 int (*how)(struct icm_volume *vol, struct icm_file *f))
{
	int r = how(vol, f);

	if (r == -ESTALE) {
		/* another mount has published a version that we haven't heard of */
		r = icm_volume_catch_up(vol);
		if (r == 0)
			r = how(vol, f);
	}
	/* another program has overwritten them, and nobody has noticed */
	if (r == -ESTALE && icm_file_look_again(vol, f->inode) == 0)
		r = how(vol, f);
	return r == -ESTALE ? missing_contents(vol, f) : r;
}

static int load(struct icm_volume *vol, struct icm_file *f)
{
	return bring(vol, f, icm_file_load);
}

static int make_work_of_all(struct icm_volume *vol, struct icm_file *f)
{
	return icm_file_make_work(vol, f, false);
}

static int make_work(struct icm_volume *vol, struct icm_file *f)
{
	return bring(vol, f, make_work_of_all);
}

/* Reads what is loaded; -EAGAIN when that isn't the view's version any more. */
static ssize_t read_loaded(struct icm_volume *vol, struct icm_file *f, void *buf, size_t size,
			   uint64_t off)
{
	struct icm_version v;

	pthread_mutex_lock(&vol->lock);
	v = f->version;
	if (f->frozen)
		f->frozen_ns = icm_now_ns();
	pthread_mutex_unlock(&vol->lock);
	if (f->data_is_work)
		return icm_data_read(f->data, buf, size, off);
	if (off >= v.size)
		return 0;
	if (v.size > ICM_PLAIN_MAX)
		return f->data && f->data_gen == v.gen ? icm_data_read(f->data, buf, size, off)
						       : -EAGAIN;
	if (!f->base || f->base_gen != v.gen || f->base->len != v.size)
		return -EAGAIN;
	if (size > v.size - off)
		size = (size_t)(v.size - off);
	memcpy(buf, f->base->bytes + off, size);
	return (ssize_t)size;
}

static bool is_lost(struct icm_volume *vol, struct icm_handle *h, int *ret_error)
{
	struct icm_file *f = icm_file_of(h->view);
	ICM_LOCK_SCOPE(&vol->lock);

	*ret_error = f->lost || icm_file_lock_is_lost(vol, h) ? -EIO : f->conflict ? -ESTALE : 0;
	return *ret_error != 0;
}

ssize_t icm_shared_read(struct icm_handle *h, const struct icm_call *call, void *buf, size_t size,
			off_t off)
{
	struct icm_volume *vol = h->view->vol;
	struct icm_file *f = icm_file_of(h->view);
	ssize_t n = -EAGAIN;
	int r;

	if (is_lost(vol, h, &r))
		return r;
	if (!icm_file_lock_io(f, call))
		return ICM_WOULD_WAIT;
	for (int tries = 0; n == -EAGAIN && tries < ICM_CONFLICT_TRIES; tries++) {
		if (icm_file_is_loaded(vol, f, (uint64_t)off, size))
			r = 0;
		else if (call->nowait && !vol->be->facts.local)
			r = ICM_WOULD_WAIT;
		else
			r = load(vol, f);
		n = r < 0 ? r : read_loaded(vol, f, buf, size, (uint64_t)off);
	}
	pthread_mutex_unlock(&f->io);
	return n == -EAGAIN ? -EIO : n;
}

/* ---- changes of contents ---- */

/* After a change; io held, volume->lock not. */
static uint64_t mark_changed(struct icm_volume *vol, struct icm_file *f, bool written,
			     bool appended)
{
	ICM_LOCK_SCOPE(&vol->lock);

	if (!f->dirty) {
		f->dirty = true;
		f->base_size = f->version.size;
		f->append_only = true;
	}
	f->append_only = f->append_only && appended;
	f->written = f->written || written;
	f->dirty_size = icm_data_size(f->data);
	f->dirty_holes = icm_data_holes(f->data);
	f->dirty_time = icm_wall_time();
	f->times_set = false;
	return ++f->changes;
}

static int truncate_to(struct icm_volume *vol, struct icm_file *f, uint64_t size, bool written)
{
	int r;

	if (size > ICM_FILE_SIZE_MAX)
		return -EFBIG;
	pthread_mutex_lock(&f->io);
	r = size == 0 ? icm_file_make_work(vol, f, true) : make_work(vol, f);
	if (r == 0)
		r = icm_data_truncate(f->data, size);
	if (r == 0)
		mark_changed(vol, f, written, false);
	pthread_mutex_unlock(&f->io);
	return r;
}

int icm_file_truncate(struct icm_volume *vol, struct icm_file *f, uint64_t size)
{
	return truncate_to(vol, f, size, size != 0);
}

ssize_t icm_shared_write(struct icm_handle *h, const struct icm_call *call, const void *buf,
			 size_t size, off_t off, bool mapped)
{
	struct icm_volume *vol = h->view->vol;
	struct icm_file *f = icm_file_of(h->view);
	bool append = (h->flags & O_APPEND) && !mapped;
	bool moved = false;
	int r;

	if (is_lost(vol, h, &r))
		return r;
	if (!icm_file_lock_io(f, call))
		return ICM_WOULD_WAIT;
	if (call->nowait && !vol->be->facts.local && !f->data_is_work) {
		pthread_mutex_unlock(&f->io);
		return ICM_WOULD_WAIT;
	}
	r = make_work(vol, f);
	if (r == 0 && append && (uint64_t)off != icm_data_size(f->data)) {
		/* the kernel computed the end from a size that is no longer true */
		off = (off_t)icm_data_size(f->data);
		moved = true;
	}
	if (r == 0)
		r = icm_data_write(f->data, buf, size, (uint64_t)off);
	if (r == 0)
		icm_file_handle_of(h)->changed = mark_changed(vol, f, true, append);
	pthread_mutex_unlock(&f->io);
	if (moved)
		icm_file_doubt(vol, f);
	return r < 0 ? r : (ssize_t)size;
}

int icm_shared_fallocate(struct icm_handle *h, const struct icm_call *call, int mode, off_t off,
			 off_t len)
{
	struct icm_volume *vol = h->view->vol;
	struct icm_file *f = icm_file_of(h->view);
	int r;

	if (off < 0 || len <= 0)
		return -EINVAL;
	if (is_lost(vol, h, &r))
		return r;
	if (!icm_file_lock_io(f, call))
		return ICM_WOULD_WAIT;
	if (call->nowait && !vol->be->facts.local && !f->data_is_work)
		r = ICM_WOULD_WAIT;
	else
		r = make_work(vol, f);
	if (r == 0)
		r = icm_data_fallocate(f->data, mode, (uint64_t)off, (uint64_t)len);
	if (r == 0)
		icm_file_handle_of(h)->changed = mark_changed(vol, f, true, false);
	pthread_mutex_unlock(&f->io);
	return r;
}

static uint64_t version_gen(struct icm_volume *vol, const struct icm_file *f)
{
	ICM_LOCK_SCOPE(&vol->lock);

	return f->version.gen;
}

off_t icm_shared_lseek(struct icm_handle *h, const struct icm_call *call, off_t off, int whence)
{
	struct icm_volume *vol = h->view->vol;
	struct icm_file *f = icm_file_of(h->view);
	struct icm_data *d;
	uint64_t gen;
	off_t pos;
	int r;

	if (whence != SEEK_DATA && whence != SEEK_HOLE)
		return -EINVAL;
	if (off < 0)
		return -ENXIO;
	if (is_lost(vol, h, &r))
		return r;
	if (!icm_file_lock_io(f, call))
		return ICM_WOULD_WAIT;
	if (call->nowait && !vol->be->facts.local) {
		pthread_mutex_unlock(&f->io);
		return ICM_WOULD_WAIT;
	}
	r = load(vol, f);
	gen = version_gen(vol, f);
	if (r < 0) {
		pos = r;
	} else if (f->data_is_work || (f->data && f->data_gen == gen)) {
		pos = icm_data_seek(f->data, (uint64_t)off, whence);
	} else {
		d = f->base && f->base_gen == gen
			    ? icm_data_from_bytes(vol->work_dir, f->base->bytes, f->base->len)
			    : icm_data_new(vol->work_dir);
		pos = icm_data_seek(d, (uint64_t)off, whence);
		icm_data_free(d);
	}
	pthread_mutex_unlock(&f->io);
	return pos;
}

/* ---- flush, fsync, release ---- */

static bool wants_publication(struct icm_volume *vol, struct icm_file *f)
{
	ICM_LOCK_SCOPE(&vol->lock);

	return f->written;
}

bool icm_shared_flush_waits(struct icm_handle *h)
{
	struct icm_volume *vol = h->view->vol;
	struct icm_file *f = icm_file_of(h->view);
	ICM_LOCK_SCOPE(&vol->lock);

	return f->written || f->conflict || icm_file_lock_inode(f)->locks;
}

/* A flush by a process that inherited the descriptor doesn't publish while the
 * opener lives: `{ a; b; } > f` would make a version of each part. */
static bool is_openers_flush(const struct icm_file_handle *h, const struct icm_call *call)
{
	if (!h->opener || call->pid == h->opener || icm_process_of(call->pid) == h->opener)
		return true;
	return kill(h->opener, 0) < 0 && errno == ESRCH;
}

int icm_shared_flush(struct icm_handle *h, const struct icm_call *call, uint64_t lock_owner)
{
	struct icm_volume *vol = h->view->vol;
	struct icm_file *f = icm_file_of(h->view);
	bool writes = (h->flags & O_ACCMODE) != O_RDONLY;
	int r = 0;

	if (writes && is_lost(vol, h, &r) &&
	    (r != -ESTALE || icm_file_publish(vol, f, call->pid) < 0))
		return r;
	r = 0;
	if (wants_publication(vol, f) &&
	    (icm_file_lock_has_owner(vol, f, lock_owner) ||
	     (writes && is_openers_flush(icm_file_handle_of(h), call))))
		r = icm_file_publish(vol, f, call->pid);
	icm_file_lock_flush(vol, f, lock_owner);
	return r;
}

int icm_shared_fsync(struct icm_handle *h, const struct icm_call *call, bool datasync)
{
	struct icm_volume *vol = h->view->vol;
	int r;

	(void)datasync;
	if (is_lost(vol, h, &r))
		return r;
	return icm_file_publish(vol, icm_file_of(h->view), call->pid);
}

/* What can't be committed goes to the local disk, for icmfs recover. */
static void keep_or_lose(struct icm_volume *vol, struct icm_file *f, const char *path, int error)
{
	int r = icm_unsaved_keep(vol, f, path, strerror(-error));

	if (r == 0) {
		icm_log_err("'%s' could not be published after its last close: %s; its bytes are "
			    "kept, see icmfs recover",
			    path, strerror(-error));
		return;
	}
	icm_log_err("'%s' could not be published after its last close: %s; nor kept: %s", path,
		    strerror(-error),
		    r == -ENOENT ? "this mount has no place for it" : strerror(-r));
	icm_volume_note_error(vol, path, strerror(-error));
}

void icm_file_give_up(struct icm_volume *vol, struct icm_file *f, int error)
{
	ICM_AUTOFREE char *path = NULL;

	pthread_mutex_lock(&vol->lock);
	path = icm_inode_path(f->inode);
	if (!path && f->inode->last_path) /* removed by another mount */
		path = icm_xstrdup(f->inode->last_path);
	pthread_mutex_unlock(&vol->lock);
	/* else it was unlinked, or a conflict copy was made and logged */
	if (path && error != -ESTALE)
		keep_or_lose(vol, f, path, error);
	pthread_mutex_lock(&f->io);
	pthread_mutex_lock(&vol->lock);
	f->dirty = f->written = f->times_set = false;
	f->pages_gen = 0;
	if (!f->inode->published && f->inode->names)
		icm_tree_remove(&vol->tree, f->inode->names);
	pthread_mutex_unlock(&vol->lock);
	f->data = icm_data_free(f->data);
	f->data_is_work = false;
	pthread_mutex_unlock(&f->io);
}

void icm_shared_release(struct icm_handle *h)
{
	struct icm_volume *vol = h->view->vol;
	struct icm_file *f = icm_file_of(h->view);
	bool writes = (h->flags & O_ACCMODE) != O_RDONLY || (h->flags & O_TRUNC);
	bool dirty, last, lost;
	int r = 0;

	/* What another open file has cut and not written yet isn't ours to publish, and
	 * nothing that was written under a lock which is lost. */
	pthread_mutex_lock(&vol->lock);
	lost = icm_file_lock_is_lost(vol, h);
	dirty = f->dirty && writes && !lost &&
		(f->n_writers == 1 ||
		 (f->written && icm_file_handle_of(h)->changed > f->published_changes));
	pthread_mutex_unlock(&vol->lock);
	if (dirty)
		r = icm_file_publish(vol, f, icm_file_handle_of(h)->opener);
	icm_file_lock_release(vol, f, h);
	pthread_mutex_lock(&vol->lock);
	f->n_writers -= writes;
	last = --f->n_handles == 0;
	dirty = f->dirty;
	pthread_mutex_unlock(&vol->lock);
	if (last && dirty && lost) {
		r = -EIO;
	} else if (last && dirty && r == 0) {
		/* it was changed while it was published */
		r = icm_file_publish(vol, f, icm_file_handle_of(h)->opener);
		pthread_mutex_lock(&vol->lock);
		dirty = f->dirty;
		pthread_mutex_unlock(&vol->lock);
	}
	if (last && dirty)
		icm_file_give_up(vol, f, r);
	if (last) {
		struct icm_news news = { 0 };

		pthread_mutex_lock(&f->io);
		icm_file_drop_cache(f);
		pthread_mutex_unlock(&f->io);
		pthread_mutex_lock(&vol->lock);
		if (!icm_file_is_pinned(f))
			icm_file_thaw(vol, f, &news);
		pthread_mutex_unlock(&vol->lock);
		icm_news_tell(vol, &news);
	}
	icm_handle_deinit(h);
	free(icm_file_handle_of(h));
}
