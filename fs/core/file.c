/* SPDX-License-Identifier: MIT
 * Open shared files: open, read, write, flush, fsync, release, and space. */
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <string.h>

#include "core/attr.h"
#include "core/key.h"
#include "core/names.h"
#include "core/shared.h"
#include "util/clock.h"
#include "util/log.h"

/* The process of a thread; 0 when it is gone. */
static pid_t process_of(pid_t tid)
{
	char path[64], line[256];
	ICM_AUTOFCLOSE FILE *f = NULL;
	int tgid = 0;

	if (tid <= 0)
		return 0;
	snprintf(path, sizeof(path), "/proc/%d/status", (int)tid);
	f = fopen(path, "re");
	while (f && !tgid && fgets(line, sizeof(line), f))
		if (strncmp(line, "Tgid:", 5) == 0)
			tgid = (int)strtol(line + 5, NULL, 10);
	return tgid;
}

/* ---- open ---- */

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

/* Looks the first name up in the store again. */
static int refresh_first_name(struct icm_volume *vol, struct icm_inode *inode)
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

/* Close-to-open: what another mount closed before is seen here. */
static int revalidate(struct icm_volume *vol, struct icm_file *f, const struct icm_call *call)
{
	struct icm_ctx ctx = icm_volume_ctx(vol);
	ICM_AUTOENTRY struct icm_entry e = { 0 };
	uint64_t known = 0;
	ICM_AUTOFREE char *key = vol->cached ? NULL : validation_key(vol, f, &known);
	int r;

	if (!key)
		return 0;
	if (call->nowait && !vol->be->facts.local)
		return ICM_WOULD_WAIT;
	r = icm_backend_get(vol->be, &ctx, key, &e);
	if (r == 0 && e.modify_index <= known)
		return 0;
	if (r < 0 && r != -ENOENT)
		return r == -EHOSTUNREACH ? -EIO : r;
	r = refresh_first_name(vol, f->inode);
	if (r == 0 && !has_name(vol, f->inode))
		r = -ENOENT; /* the name is another file's now */
	return r == -ENOENT ? -ESTALE : r;
}

/* Under volume->lock: whether this view may be opened. */
static int may_open(const struct icm_file *f)
{
	if (f->conflict)
		return -ESTALE;
	if (f->frozen && f->inode->names && !f->reopening)
		return -ESTALE; /* there is a newer view at this name */
	return 0;
}

/* The kernel learns a new size from attributes only: a file that has shrunk
 * would be read with zeroes behind its end (answers to its parallel reads come
 * in any order). So an opener of a view that has followed to a newer version is
 * sent to look the name up once more, after the former pages are gone. */
static int settle(struct icm_volume *vol, struct icm_file *f, const struct icm_call *call)
{
	bool again;

	pthread_mutex_lock(&vol->lock);
	if (!f->unsettled || f->reopening) {
		/* or it was opened without a name (/proc/PID/fd): no look-up comes */
		pthread_mutex_unlock(&vol->lock);
		return 0;
	}
	if (call->nowait) {
		pthread_mutex_unlock(&vol->lock);
		return ICM_WOULD_WAIT;
	}
	while (f->untold)
		pthread_cond_wait(&vol->told, &vol->lock);
	pthread_mutex_unlock(&vol->lock);
	if (vol->notify.drain)
		vol->notify.drain(vol->notify_data, &f->view);
	pthread_mutex_lock(&vol->lock);
	again = f->unsettled && !f->frozen && !f->untold;
	f->reopening = f->reopening || again;
	pthread_mutex_unlock(&vol->lock);
	return -ESTALE;
}

void icm_file_reopen(struct icm_volume *vol, struct icm_file *f)
{
	ICM_LOCK_SCOPE(&vol->lock);

	f->reopening = true;
}

/* volume->lock held. What is looked up is settled: the kernel takes the size
 * from the answer. */
void icm_file_looked_up(struct icm_file *f)
{
	if (f->reopening && !f->frozen)
		f->unsettled = false;
}

static int truncate_at_open(struct icm_volume *vol, struct icm_file *f);

/* Set-id bits go when somebody truncates: the kernel does it for writes and for
 * truncate(2), but an open with O_TRUNC reaches us alone. */
static int drop_set_id(struct icm_view *view, const struct icm_call *call)
{
	struct stat st;
	mode_t mode;
	int r = icm_shared_getattr(view, call, NULL, &st);

	mode = st.st_mode & ~(mode_t)S_ISUID;
	if (st.st_mode & S_IXGRP)
		mode &= ~(mode_t)S_ISGID;
	if (r < 0 || call->uid == 0 || mode == st.st_mode)
		return r;
	if (call->nowait)
		return ICM_WOULD_WAIT;
	st.st_mode = mode;
	return icm_shared_setattr(view, call, NULL, ICM_SET_MODE, &st, &st);
}

int icm_shared_open(struct icm_view *view, const struct icm_call *call, int flags,
		    struct icm_open_result *ret)
{
	struct icm_volume *vol = view->vol;
	struct icm_file *f = icm_file_of(view);
	bool writes = (flags & O_ACCMODE) != O_RDONLY || (flags & O_TRUNC);
	struct icm_file_handle *h;
	bool keep;
	int r;

	if (S_ISDIR(view->type))
		return -EISDIR;
	if (!S_ISREG(view->type))
		return S_ISLNK(view->type) ? -ELOOP : -ENXIO;
	if (writes && vol->read_only)
		return -EROFS;
	r = revalidate(vol, f, call);
	if (r == 0 && (flags & O_TRUNC))
		r = drop_set_id(view, call);
	if (r == 0 && vol->notify.inval_data)
		r = settle(vol, f, call);
	if (r < 0)
		return r;
	h = icm_xcalloc(1, sizeof(*h));
	pthread_mutex_lock(&vol->lock);
	r = may_open(f);
	keep = f->pages_gen == f->version.gen;
	if (r == 0) {
		f->pages_gen = f->version.gen;
		f->unsettled = f->reopening = false;
		f->n_handles++;
		f->n_writers += writes;
	}
	pthread_mutex_unlock(&vol->lock);
	if (r < 0) {
		free(h);
		return r;
	}
	icm_handle_init(&h->h, view, flags);
	h->opener = writes ? process_of(call->pid) : 0;
	*ret = (struct icm_open_result){ .handle = &h->h, .keep_cache = keep };
	if (flags & O_TRUNC)
		r = truncate_at_open(vol, f);
	if (r < 0)
		icm_shared_release(&h->h);
	return r;
}

/* ---- read ---- */

/* Takes the content lock; false: it would wait and may not. */
static bool lock_io(struct icm_file *f, const struct icm_call *call)
{
	if (call->nowait)
		return pthread_mutex_trylock(&f->io) == 0;
	pthread_mutex_lock(&f->io);
	return true;
}

/* io held. */
static int load(struct icm_volume *vol, struct icm_file *f)
{
	int r = icm_file_load(vol, f);

	if (r == -ESTALE) {
		/* another mount has published a version that we haven't heard of */
		r = icm_volume_catch_up(vol);
		if (r == 0)
			r = icm_file_load(vol, f);
	}
	return r;
}

static ssize_t read_loaded(struct icm_volume *vol, struct icm_file *f, void *buf, size_t size,
			   uint64_t off)
{
	uint64_t total;
	bool plain;

	pthread_mutex_lock(&vol->lock);
	total = f->version.size;
	if (f->frozen)
		f->frozen_ns = icm_now_ns();
	pthread_mutex_unlock(&vol->lock);
	plain = !f->data_is_work && total <= ICM_PLAIN_MAX;
	if (!plain)
		return icm_data_read(f->data, buf, size, off);
	if (off >= total || !f->base)
		return 0;
	if (size > total - off)
		size = (size_t)(total - off);
	memcpy(buf, f->base->bytes + off, size);
	return (ssize_t)size;
}

static bool is_lost(struct icm_volume *vol, struct icm_handle *h, int *ret_error)
{
	struct icm_file *f = icm_file_of(h->view);
	ICM_LOCK_SCOPE(&vol->lock);

	*ret_error = icm_file_handle_of(h)->lost ? -EIO : f->conflict ? -ESTALE : 0;
	return *ret_error != 0;
}

ssize_t icm_shared_read(struct icm_handle *h, const struct icm_call *call, void *buf, size_t size,
			off_t off)
{
	struct icm_volume *vol = h->view->vol;
	struct icm_file *f = icm_file_of(h->view);
	ssize_t n;
	int r;

	if (is_lost(vol, h, &r))
		return r;
	if (!lock_io(f, call))
		return ICM_WOULD_WAIT;
	if (icm_file_is_loaded(vol, f, (uint64_t)off, size))
		n = 0;
	else if (call->nowait && !vol->be->facts.local)
		n = ICM_WOULD_WAIT;
	else
		n = load(vol, f);
	if (n == 0)
		n = read_loaded(vol, f, buf, size, (uint64_t)off);
	pthread_mutex_unlock(&f->io);
	return n;
}

/* ---- changes of contents ---- */

/* After a change; io held, volume->lock not. */
static void mark_changed(struct icm_volume *vol, struct icm_file *f, bool written, bool appended)
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
	f->changes++;
}

static int truncate_to(struct icm_volume *vol, struct icm_file *f, uint64_t size, bool written)
{
	int r;

	if (size > ICM_FILE_SIZE_MAX)
		return -EFBIG;
	pthread_mutex_lock(&f->io);
	r = icm_file_make_work(vol, f, size == 0);
	if (r == 0)
		r = icm_data_truncate(f->data, size);
	if (r == 0)
		mark_changed(vol, f, written, false);
	pthread_mutex_unlock(&f->io);
	return r;
}

static int truncate_at_open(struct icm_volume *vol, struct icm_file *f)
{
	/* pending: `cmd > file` flushes before it writes, and nobody may see an
	 * empty file in between */
	return truncate_to(vol, f, 0, false);
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
	if (!lock_io(f, call))
		return ICM_WOULD_WAIT;
	if (call->nowait && !vol->be->facts.local && !f->data_is_work) {
		pthread_mutex_unlock(&f->io);
		return ICM_WOULD_WAIT;
	}
	r = icm_file_make_work(vol, f, false);
	if (r == -ESTALE) {
		r = icm_volume_catch_up(vol);
		if (r == 0)
			r = icm_file_make_work(vol, f, false);
	}
	if (r == 0 && append && (uint64_t)off != icm_data_size(f->data)) {
		/* the kernel computed the end from a size that is no longer true */
		off = (off_t)icm_data_size(f->data);
		moved = true;
	}
	if (r == 0)
		r = icm_data_write(f->data, buf, size, (uint64_t)off);
	if (r == 0)
		mark_changed(vol, f, true, append);
	pthread_mutex_unlock(&f->io);
	if (moved && vol->notify.inval_data)
		vol->notify.inval_data(vol->notify_data, &f->view);
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
	if (!lock_io(f, call))
		return ICM_WOULD_WAIT;
	if (call->nowait && !vol->be->facts.local && !f->data_is_work)
		r = ICM_WOULD_WAIT;
	else
		r = icm_file_make_work(vol, f, false);
	if (r == 0)
		r = icm_data_fallocate(f->data, mode, (uint64_t)off, (uint64_t)len);
	if (r == 0)
		mark_changed(vol, f, true, false);
	pthread_mutex_unlock(&f->io);
	return r;
}

off_t icm_shared_lseek(struct icm_handle *h, const struct icm_call *call, off_t off, int whence)
{
	struct icm_volume *vol = h->view->vol;
	struct icm_file *f = icm_file_of(h->view);
	struct icm_data *d;
	off_t pos;
	int r;

	if (whence != SEEK_DATA && whence != SEEK_HOLE)
		return -EINVAL;
	if (off < 0)
		return -ENXIO;
	if (is_lost(vol, h, &r))
		return r;
	if (!lock_io(f, call))
		return ICM_WOULD_WAIT;
	if (call->nowait && !vol->be->facts.local) {
		pthread_mutex_unlock(&f->io);
		return ICM_WOULD_WAIT;
	}
	r = load(vol, f);
	if (r < 0) {
		pos = r;
	} else if (f->data_is_work || (f->data && f->data_gen == f->version.gen)) {
		pos = icm_data_seek(f->data, (uint64_t)off, whence);
	} else {
		d = f->base && f->base_gen == f->version.gen
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

	return f->written || f->conflict || f->inode->locks;
}

/* A flush by a process that inherited the descriptor doesn't publish while the
 * opener lives: `{ a; b; } > f` would make a version of each part. */
static bool is_openers_flush(const struct icm_file_handle *h, const struct icm_call *call)
{
	if (!h->opener || call->pid == h->opener || process_of(call->pid) == h->opener)
		return true;
	return kill(h->opener, 0) < 0 && errno == ESRCH;
}

int icm_shared_flush(struct icm_handle *h, const struct icm_call *call, uint64_t lock_owner)
{
	struct icm_volume *vol = h->view->vol;
	struct icm_file *f = icm_file_of(h->view);
	bool writes = (h->flags & O_ACCMODE) != O_RDONLY;
	int r = 0;

	if (writes && is_lost(vol, h, &r))
		return r;
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

/* A file that could not be published and that nobody has open any more. */
static void give_up(struct icm_volume *vol, struct icm_file *f, int error)
{
	ICM_AUTOFREE char *path = NULL;

	pthread_mutex_lock(&f->io);
	pthread_mutex_lock(&vol->lock);
	path = icm_inode_path(f->inode);
	f->dirty = f->written = f->times_set = false;
	f->pages_gen = 0;
	if (!f->inode->published && f->inode->names)
		icm_tree_remove(&vol->tree, f->inode->names);
	pthread_mutex_unlock(&vol->lock);
	f->data = icm_data_free(f->data);
	f->data_is_work = false;
	pthread_mutex_unlock(&f->io);
	if (!path || error == -ESTALE)
		return; /* it was unlinked, or a conflict copy was made and logged */
	icm_log_err("'%s' could not be published after its last close: %s", path, strerror(-error));
	icm_volume_note_error(vol, path, strerror(-error));
}

void icm_shared_release(struct icm_handle *h)
{
	struct icm_volume *vol = h->view->vol;
	struct icm_file *f = icm_file_of(h->view);
	bool writes = (h->flags & O_ACCMODE) != O_RDONLY || (h->flags & O_TRUNC);
	bool dirty, last;
	int r = 0;

	pthread_mutex_lock(&vol->lock);
	dirty = f->dirty && writes;
	pthread_mutex_unlock(&vol->lock);
	if (dirty)
		r = icm_file_publish(vol, f, icm_file_handle_of(h)->opener);
	icm_file_lock_release(vol, f, h);
	pthread_mutex_lock(&vol->lock);
	f->n_writers -= writes;
	last = --f->n_handles == 0;
	dirty = f->dirty;
	pthread_mutex_unlock(&vol->lock);
	if (last && dirty && r == 0) {
		/* it was changed while it was published */
		r = icm_file_publish(vol, f, icm_file_handle_of(h)->opener);
		pthread_mutex_lock(&vol->lock);
		dirty = f->dirty;
		pthread_mutex_unlock(&vol->lock);
	}
	if (last && dirty)
		give_up(vol, f, r);
	if (last) {
		struct icm_news news = { 0 };

		pthread_mutex_lock(&f->io);
		icm_file_drop_cache(f);
		pthread_mutex_unlock(&f->io);
		pthread_mutex_lock(&vol->lock);
		icm_file_thaw(vol, f, &news);
		pthread_mutex_unlock(&vol->lock);
		icm_news_tell(vol, &news);
	}
	icm_handle_deinit(h);
	free(icm_file_handle_of(h));
}
