/* SPDX-License-Identifier: MIT
 * The core on the in-memory store, without a kernel: two mounts, threads on both,
 * while the store refuses, loses answers and applies writes late. What was
 * acknowledged is there at the end, once, and whole. A plain program, so that
 * it runs under ThreadSanitizer. */
#undef NDEBUG
#include <assert.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "backends/memory/memory.h"
#include "core/introspect.h"
#include "core/volume.h"
#include "util/clock.h"
#include "util/log.h"

#define THREADS 3 /* on each of two mounts */
#define ROUNDS	60

static const char *store = "memory:race-core";

static struct icm_call caller(void)
{
	return (struct icm_call){ .pid = getpid() };
}

static struct icm_volume *start(const char *copy_dir)
{
	struct icm_volume_config config = {
		.url = store, .create = true, .timeout_ms = 20000, .copy_dir = copy_dir
	};
	struct icm_volume *vol;
	char *error = NULL;
	int r = icm_volume_open(&config, &vol, &error);

	if (r == 0)
		r = icm_volume_start(vol, NULL, NULL, &error);
	if (r < 0) {
		fprintf(stderr, "race-core: %s\n", error ? error : strerror(-r));
		exit(1);
	}
	return vol;
}

/* ---- a program's calls, looked up again as the kernel does ---- */

static int look_up(struct icm_volume *vol, const char *name, struct icm_view **ret)
{
	struct icm_call c = caller();
	struct stat st;

	return icm_fs_lookup(icm_fs_root(vol), &c, name, ret, &st);
}

static int open_file(struct icm_volume *vol, const char *name, int flags, struct icm_view **view,
		     struct icm_handle **h)
{
	struct icm_call c = caller();
	struct icm_open_result res;
	struct stat st;
	int r = -ESTALE;

	for (int tries = 0; r == -ESTALE && tries < 50; tries++) {
		r = look_up(vol, name, view);
		if (r == -ENOENT && (flags & O_CREAT)) {
			r = icm_fs_create(icm_fs_root(vol), &c, name, 0644, flags, view, &st, &res);
			if (r == 0)
				break;
			continue;
		}
		if (r < 0)
			continue;
		r = icm_fs_open(*view, &c, flags, &res);
		if (r < 0)
			icm_fs_forget(*view, 1);
	}
	if (r == 0)
		*h = res.handle;
	return r;
}

static void close_file(struct icm_view *view, struct icm_handle *h)
{
	icm_fs_release(h);
	icm_fs_forget(view, 1);
}

/* Replaces a file's contents; 0 when the close was acknowledged. */
static int save(struct icm_volume *vol, const char *name, const char *text)
{
	struct icm_call c = caller();
	struct icm_view *view;
	struct icm_handle *h;
	ssize_t n;
	int r = open_file(vol, name, O_WRONLY | O_CREAT | O_TRUNC, &view, &h);

	if (r < 0)
		return r;
	n = icm_fs_write(h, &c, text, strlen(text), 0, false);
	r = n < 0 ? (int)n : icm_fs_flush(h, &c, 1);
	close_file(view, h);
	return r;
}

/* Where two mounts make a file at once, handles of the one that comes second are told
 * to open it again (docs/consistency.md, 4.4): nothing was written then. */
static int append_once(struct icm_volume *vol, const char *name, const char *line, bool *ret_again)
{
	struct icm_call c = caller();
	struct icm_view *view;
	struct icm_handle *h;
	struct stat st;
	ssize_t n;
	int r = open_file(vol, name, O_WRONLY | O_CREAT | O_APPEND, &view, &h);

	*ret_again = false;
	if (r < 0)
		return r;
	r = icm_fs_getattr(view, &c, h, &st);
	n = icm_fs_write(h, &c, line, strlen(line), st.st_size, false);
	*ret_again = n == -ESTALE;
	if (r == 0)
		r = n < 0 ? (int)n : icm_fs_flush(h, &c, 1);
	close_file(view, h);
	return r;
}

static int append_line(struct icm_volume *vol, const char *name, const char *line)
{
	bool again = true;
	int r = 0;

	for (int tries = 0; again && tries < 3; tries++)
		r = append_once(vol, name, line, &again);
	return r;
}

static char *contents(struct icm_volume *vol, const char *name)
{
	struct icm_call c = caller();
	struct icm_view *view;
	struct icm_handle *h;
	char *text = icm_xcalloc(1, 1 << 20);

	assert(open_file(vol, name, O_RDONLY, &view, &h) == 0);
	assert(icm_fs_read(h, &c, text, (1 << 20) - 1, 0) >= 0);
	close_file(view, h);
	return text;
}

/* ---- faults ---- */

/* Each tenth or so transaction: refused, its answer lost, or late. */
static struct icm_memory_fault faults(uint64_t call, enum icm_memory_call kind,
				      const struct icm_op *ops, size_t n_ops, void *userdata)
{
	static const struct icm_memory_fault kinds[] = {
		{ ICM_FAULT_FAIL, -EHOSTUNREACH, 0 },
		{ ICM_FAULT_FAIL_AFTER, -ETIMEDOUT, 0 },
		{ ICM_FAULT_LATE, -ETIMEDOUT, 30 * ICM_NS_PER_MS },
		{ ICM_FAULT_DELAY, 0, 2 * ICM_NS_PER_MS },
	};
	uint64_t dice = call * UINT64_C(0x9e3779b97f4a7c15) >> 40;

	(void)ops;
	(void)n_ops;
	(void)userdata;
	if (kind != ICM_CALL_TXN || dice % 8)
		return (struct icm_memory_fault){ .fault = ICM_FAULT_NONE };
	return kinds[dice / 8 % ICM_COUNT(kinds)];
}

/* ---- the threads ---- */

struct worker {
	pthread_t thread;
	struct icm_volume *vol;
	int number;
	int saved;    /* the last acknowledged contents of its own file */
	int appended; /* acknowledged lines in the common file */
};

static void *work(void *arg)
{
	struct worker *w = arg;

	for (int i = 1; i <= ROUNDS; i++) {
		ICM_AUTOFREE char *name = icm_asprintf("own-%d", w->number);
		ICM_AUTOFREE char *text = icm_asprintf("%d of worker %d\n", i, w->number);
		int r = save(w->vol, name, text);

		if (r == 0)
			w->saved = i;
		else
			fprintf(stderr, "race-core: save: %s\n", strerror(-r));
		assert(r == 0);
		r = append_line(w->vol, "common", text);
		if (r < 0)
			fprintf(stderr, "race-core: append: %s\n", strerror(-r));
		assert(r == 0);
		w->appended++;
	}
	return NULL;
}

static void check_own(struct icm_volume *vol, const struct worker *w)
{
	ICM_AUTOFREE char *name = icm_asprintf("own-%d", w->number);
	ICM_AUTOFREE char *want = icm_asprintf("%d of worker %d\n", w->saved, w->number);
	ICM_AUTOFREE char *text = contents(vol, name);

	assert(strcmp(text, want) == 0);
}

/* Each acknowledged line is in the common file exactly once. */
static void check_common(struct icm_volume *vol, const struct worker *workers, size_t n)
{
	ICM_AUTOFREE char *text = contents(vol, "common");
	size_t lines = 0;

	for (const char *p = text; *p; p++)
		lines += *p == '\n';
	for (size_t i = 0; i < n; i++) {
		for (int k = 1; k <= workers[i].appended; k++) {
			ICM_AUTOFREE char *line =
				icm_asprintf("\n%d of worker %d\n", k, workers[i].number);
			ICM_AUTOFREE char *framed = icm_asprintf("\n%s", text);
			const char *first = strstr(framed, line);

			assert(first && !strstr(first + 1, line));
		}
	}
	assert(lines == n * ROUNDS);
}

int main(void)
{
	struct icm_volume *mounts[2];
	struct worker workers[2 * THREADS] = { 0 };
	char dir[] = "/tmp/race-core.XXXXXX";
	ICM_AUTOFREE char *rm = NULL;
	size_t n = ICM_COUNT(workers);

	icm_log_init("race-core", false, LOG_ERR);
	assert(mkdtemp(dir));
	mounts[0] = start(dir); /* keeps a local copy meanwhile */
	mounts[1] = start(NULL);
	icm_memory_set_fault(icm_volume_backend(mounts[0]), faults, NULL);
	for (size_t i = 0; i < n; i++) {
		workers[i].vol = mounts[i % 2];
		workers[i].number = (int)i;
		assert(pthread_create(&workers[i].thread, NULL, work, &workers[i]) == 0);
	}
	for (size_t i = 0; i < n; i++)
		pthread_join(workers[i].thread, NULL);
	icm_memory_set_fault(icm_volume_backend(mounts[0]), NULL, NULL);
	icm_memory_settle(icm_volume_backend(mounts[0]));
	for (size_t m = 0; m < 2; m++) {
		for (size_t i = 0; i < n; i++)
			check_own(mounts[m], &workers[i]);
		check_common(mounts[m], workers, n);
	}
	for (size_t m = 0; m < 2; m++) {
		icm_volume_stop(mounts[m]);
		icm_volume_free(mounts[m]);
	}
	rm = icm_asprintf("rm -rf '%s'", dir);
	assert(system(rm) == 0);
	printf("1..1\nok 1 - %zu threads on two mounts, faults in each eighth transaction\n", n);
	return 0;
}
