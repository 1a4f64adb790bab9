/* SPDX-License-Identifier: MIT */
#include "core/view.h"

#include <assert.h>

#include "util/cleanup.h"

void icm_view_init(struct icm_view *view, const struct icm_view_ops *ops, struct icm_volume *vol,
		   uint64_t ino, mode_t type)
{
	view->ops = ops;
	view->vol = vol;
	view->ino = ino;
	view->type = type & S_IFMT;
	atomic_init(&view->refs, 1);
}

void icm_view_ref(struct icm_view *view)
{
	uint_fast64_t before = atomic_fetch_add_explicit(&view->refs, 1, memory_order_relaxed);

	assert(before > 0);
	(void)before;
}

bool icm_view_tryref(struct icm_view *view)
{
	uint_fast64_t refs = atomic_load_explicit(&view->refs, memory_order_relaxed);

	while (refs > 0)
		if (atomic_compare_exchange_weak_explicit(&view->refs, &refs, refs + 1,
							  memory_order_acquire,
							  memory_order_relaxed))
			return true;
	return false;
}

void icm_fs_forget(struct icm_view *view, uint64_t n)
{
	uint_fast64_t before;

	if (!n)
		return;
	/* Whoever drops the last one sees everything that the others did. */
	before = atomic_fetch_sub_explicit(&view->refs, n, memory_order_acq_rel);
	assert(before >= n);
	if (before == n && view->ops->free)
		view->ops->free(view);
}

uint64_t icm_view_ino(const struct icm_view *view)
{
	return view->ino;
}

bool icm_view_is_dir(const struct icm_view *view)
{
	return S_ISDIR(view->type);
}

void icm_handle_init(struct icm_handle *h, struct icm_view *view, int flags)
{
	static atomic_uint_fast64_t serials; /* atomic, because any thread opens files */

	icm_view_ref(view);
	h->view = view;
	h->serial = atomic_fetch_add_explicit(&serials, 1, memory_order_relaxed) + 1;
	h->flags = flags;
}

void icm_handle_deinit(struct icm_handle *h)
{
	icm_fs_forget(ICM_STEAL(&h->view), 1);
}
