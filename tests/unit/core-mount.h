/* SPDX-License-Identifier: MIT
 * The core as a mount uses it, without a kernel: a volume, and programs' calls that
 * look a name up again when they are told to, as the kernel does. Failures end
 * the test. */
#ifndef ICM_TESTS_UNIT_CORE_MOUNT_H
#define ICM_TESTS_UNIT_CORE_MOUNT_H

#include <criterion/criterion.h>
#include <fcntl.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "backends/memory/memory.h"
#include "core/introspect.h"
#include "core/volume.h"
#include "util/buf.h"

static const struct icm_call no_call = { .pid = 0 };

static inline struct icm_volume *mount_with(struct icm_volume_config config)
{
	struct icm_volume *vol = NULL;
	char *error = NULL;
	int r = icm_volume_open(&config, &vol, &error);

	if (r == 0)
		r = icm_volume_start(vol, NULL, NULL, &error);
	cr_assert_eq(r, 0, "%s", error ? error : strerror(-r));
	return vol;
}

static inline struct icm_volume *mount_store(const char *url)
{
	return mount_with((struct icm_volume_config){
		.url = url, .create = true, .uid = 1000, .gid = 100, .timeout_ms = 20000 });
}

/* An instance that keeps a memory store while no mount does, with Consul's limits. */
static inline struct icm_backend *keep_consul_like(const char *url)
{
	struct icm_backend *be = NULL;

	cr_assert_eq(icm_backend_open(url, &(struct icm_open_options){ 0 }, &be, NULL), 0);
	icm_memory_set_consul_limits(be);
	cr_assert_eq(icm_backend_start(be), 0);
	return be;
}

static inline void unmount(struct icm_volume *vol)
{
	icm_volume_stop(vol);
	icm_volume_free(vol);
}

/* The view at a path, with a reference, and its attributes. */
static inline int walk(struct icm_volume *vol, const char *path, struct icm_view **ret,
		       struct stat *st)
{
	struct icm_view *at = icm_fs_root(vol);
	ICM_AUTOFREE char *copy = icm_xstrdup(path);
	char *rest = copy, *part;

	while ((part = strsep(&rest, "/"))) {
		struct icm_view *next;
		int r = icm_fs_lookup(at, &no_call, part, &next, st);

		if (at != icm_fs_root(vol))
			icm_fs_forget(at, 1);
		if (r < 0)
			return r;
		at = next;
	}
	*ret = at;
	return 0;
}

static inline int stat_path(struct icm_volume *vol, const char *path, struct stat *st)
{
	struct icm_view *view = NULL;
	int r = walk(vol, path, &view, st);

	if (r == 0)
		icm_fs_forget(view, 1);
	return r;
}

static inline int open_path(struct icm_volume *vol, const char *path, int flags,
			    struct icm_view **view, struct icm_handle **h)
{
	struct icm_open_result res;
	struct stat st;
	int r = -ESTALE;

	for (int tries = 0; r == -ESTALE && tries < 50; tries++) {
		r = walk(vol, path, view, &st);
		if (r == -ENOENT && (flags & O_CREAT))
			r = icm_fs_create(icm_fs_root(vol), &no_call, path, 0644, flags, view, &st,
					  &res);
		else if (r == 0 && (r = icm_fs_open(*view, &no_call, flags, &res)) < 0)
			icm_fs_forget(*view, 1);
	}
	if (r == 0)
		*h = res.handle;
	return r;
}

static inline void close_path(struct icm_view *view, struct icm_handle *h)
{
	icm_fs_release(h);
	icm_fs_forget(view, 1);
}

/* Replaces a file's contents (`flags`: O_TRUNC, O_APPEND, …); what the close said. */
static inline int save(struct icm_volume *vol, const char *path, int flags, const char *text)
{
	struct icm_view *view = NULL;
	struct icm_handle *h = NULL;
	struct stat st;
	int r = open_path(vol, path, O_WRONLY | O_CREAT | flags, &view, &h);
	ssize_t n;

	if (r < 0)
		return r;
	r = icm_fs_getattr(view, &no_call, h, &st);
	n = icm_fs_write(h, &no_call, text, strlen(text), flags & O_APPEND ? st.st_size : 0, false);
	if (r == 0)
		r = n < 0 ? (int)n : icm_fs_flush(h, &no_call, 1);
	close_path(view, h);
	return r;
}

/* Fresh contents, or NULL and the error. */
static inline char *contents_of(struct icm_volume *vol, const char *path, int *ret_error)
{
	size_t max = 2 << 20;
	char *text = icm_xcalloc(1, max);
	struct icm_view *view = NULL;
	struct icm_handle *h = NULL;
	ssize_t n;
	int r = open_path(vol, path, O_RDONLY, &view, &h);

	if (r == 0) {
		n = icm_fs_read(h, &no_call, text, max - 1, 0);
		r = n < 0 ? (int)n : 0;
		close_path(view, h);
	}
	*ret_error = r;
	if (r == 0)
		return text;
	free(text);
	return NULL;
}

static inline bool has_contents(struct icm_volume *vol, const char *path, const char *want)
{
	int r;
	ICM_AUTOFREE char *text = contents_of(vol, path, &r);

	return text && strcmp(text, want) == 0;
}

/* Waits for a condition, as long as the test may last. */
#define WAIT_FOR(condition)                                                                        \
	do {                                                                                       \
		while (!(condition))                                                               \
			nanosleep(&(struct timespec){ .tv_nsec = 2000000 }, NULL);                 \
	} while (0)

#endif
