/* SPDX-License-Identifier: MIT */
#include <fcntl.h>
#include <inttypes.h>
#include <string.h>
#include <sys/file.h>

#include "core/copy-local.h"
#include "util/clock.h"

#define LOOK_NS (10 * ICM_NS_PER_S)

/* A descriptor whose lock lasts as long as this process and those that it forks
 * have it open. */
static int take_lock(const char *dir)
{
	ICM_AUTOFREE char *path = icm_asprintf("%s/lock", dir);
	int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
	int r;

	if (fd < 0)
		return -errno;
	if (flock(fd, LOCK_EX | LOCK_NB) == 0)
		return fd;
	r = errno == EWOULDBLOCK ? -EBUSY : -errno;
	close(fd);
	return r;
}

int icm_copy_new(const char *dir, const char *store, uint64_t max, struct icm_copy **ret)
{
	struct icm_copy *c;
	pthread_condattr_t attr;
	int fd = take_lock(dir);

	if (fd < 0)
		return fd;
	c = icm_xcalloc(1, sizeof(*c));
	c->file = icm_asprintf("%s/copy.icmfs", dir);
	c->store = icm_xstrdup(store);
	c->max = max;
	c->lock_fd = fd;
	pthread_mutex_init(&c->lock, NULL);
	pthread_condattr_init(&attr);
	pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
	pthread_cond_init(&c->cond, &attr);
	pthread_condattr_destroy(&attr);
	*ret = c;
	return 0;
}

struct icm_copy *icm_copy_free(struct icm_copy *c)
{
	if (!c)
		return NULL;
	icm_backend_close(c->be);
	close(c->lock_fd);
	pthread_cond_destroy(&c->cond);
	pthread_mutex_destroy(&c->lock);
	free(c->file);
	free(c->store);
	free(c);
	return NULL;
}

/* ---- looking ---- */

/* What is in the database; *ret_why: what is wrong with it, in static words. */
static int read_head(struct icm_backend *be, struct icm_copy_head *ret, const char **ret_why)
{
	struct icm_ctx ctx = { .deadline_ns = icm_now_ns() + LOOK_NS };
	ICM_AUTOENTRIES struct icm_entries names = { 0 };
	ICM_AUTOENTRY struct icm_entry e = { 0 };
	uint64_t index;
	int r = icm_backend_get(be, &ctx, ICM_KEY_COPY, &e);

	*ret_why = "it can't be read";
	if (r < 0)
		return r; /* -ENOENT: it was not ready when its mount ended */
	r = icm_copy_head_decode(e.value, e.len, ret);
	if (r == 0 && ret->format <= ICM_COPY_FORMAT)
		r = icm_backend_list(be, &ctx, "attr/", true, &names, &index);
	if (r < 0) {
		*ret_why = "it is damaged";
		return r;
	}
	if (ret->format <= ICM_COPY_FORMAT && ret->names == names.n)
		return 0;
	*ret_why = ret->format > ICM_COPY_FORMAT ? "a newer icmfs has made it"
						 : "it is damaged: names are missing";
	icm_copy_head_clear(ret);
	return -EPROTO;
}

static int check_head(const struct icm_copy *c, struct icm_backend *be, struct icm_copy_head *ret,
		      const char **ret_why)
{
	int r = icm_backend_start(be);

	*ret_why = "it can't be read";
	if (r == 0)
		r = read_head(be, ret, ret_why);
	if (r < 0 || strcmp(ret->store, c->store) == 0)
		return r;
	*ret_why = "it is of another store";
	icm_copy_head_clear(ret);
	return -EPROTO;
}

static int open_file(const struct icm_copy *c, struct icm_backend **ret, char **ret_error)
{
	const struct icm_open_options options = { .read_only = true };
	ICM_AUTOFREE char *url = icm_asprintf("sqlite:%s", c->file);
	ICM_AUTOFREE char *why = NULL;
	int r;

	if (access(c->file, F_OK) < 0 && errno == ENOENT)
		return -ENOENT;
	r = icm_backend_open(url, &options, ret, &why);
	if (r == -ENOENT)
		r = -EIO; /* not: there is none */
	if (r < 0)
		*ret_error = icm_asprintf("the local copy can't be used: %s", why);
	return r;
}

int icm_copy_look(const struct icm_copy *c, struct icm_copy_head *ret, char **ret_error)
{
	struct icm_backend *be = NULL;
	const char *why;
	int r = open_file(c, &be, ret_error);

	if (r < 0)
		return r;
	r = check_head(c, be, ret, &why);
	icm_backend_close(be);
	if (r < 0 && r != -ENOENT)
		*ret_error = icm_asprintf("the local copy \"%s\" can't be used: %s", c->file, why);
	return r;
}

int icm_copy_open(const struct icm_copy *c, struct icm_backend **ret_be,
		  struct icm_copy_head *ret_head, char **ret_error)
{
	ICM_CLEANUP(icm_copy_head_clear) struct icm_copy_head head = { 0 };
	int r = icm_copy_look(c, &head, ret_error);

	if (r == 0)
		r = open_file(c, ret_be, ret_error);
	if (r < 0)
		return r;
	*ret_head = head;
	head = (struct icm_copy_head){ 0 };
	return 0;
}
