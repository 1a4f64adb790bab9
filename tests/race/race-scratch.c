/* SPDX-License-Identifier: MIT
 * Everything that changes scratch names, from many threads in the same two
 * directories, for ThreadSanitizer. What an operation gives depends on the
 * others; that files have the bytes that their view says doesn't. */
#undef NDEBUG
#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <ftw.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "core/introspect.h"
#include "core/scratch.h"
#include "util/clock.h"

#define THREADS 6
#define RUN_NS	(3 * ICM_NS_PER_S)

static struct icm_lock_set *lock_set;
static struct icm_scratch *s;
static struct icm_view *dirs[2];
static const struct icm_call call = { .pid = 1 };

/* In place of the volume. */
struct icm_lock_set *icm_volume_lock_set(struct icm_volume *vol)
{
	return lock_set;
}

const struct icm_view_ops icm_shared_view_ops = { .name = "shared" };

/* A file says its own inode number, once it says anything. */
static void work_on(struct icm_view *view, struct icm_handle *h, unsigned *seed)
{
	struct icm_lock_request req = { .flock = true, .type = F_RDLCK };
	uint64_t ino = icm_view_ino(view), got;
	struct stat st;

	if (rand_r(seed) % 2)
		assert(icm_fs_write(h, &call, &ino, sizeof(ino), 0, false) == sizeof(ino));
	if (icm_fs_read(h, &call, &got, sizeof(got), 0) == sizeof(got))
		assert(got == ino);
	assert(icm_fs_getattr(view, &call, NULL, &st) == 0 && st.st_ino == ino);
	assert(icm_scratch_lock(h, &req, NULL, NULL, NULL) == 0);
	icm_fs_flush(h, &call, 1);
}

static int ignore_entry(void *userdata, const struct icm_dirent *e)
{
	return e->name[0] == '\0';
}

static void read_dir(struct icm_view *dir)
{
	struct icm_handle *h;

	assert(icm_fs_opendir(dir, &call, &h) == 0);
	assert(icm_fs_readdir(h, &call, 0, ignore_entry, NULL) == 0);
	icm_fs_releasedir(h);
}

static void create(struct icm_view *dir, const char *name, unsigned *seed)
{
	struct icm_open_result open;
	struct icm_view *view;
	struct stat st;
	int r = icm_fs_create(dir, &call, name, 0600, O_RDWR, &view, &st, &open);

	/* It existed, and was gone again when it was opened. */
	if (r < 0) {
		assert(r == -ENOENT || r == -ESTALE);
		return;
	}
	work_on(view, open.handle, seed);
	icm_fs_release(open.handle);
	icm_fs_forget(view, 1);
}

static void look(struct icm_view *dir, const char *name, struct icm_view *to_dir,
		 const char *to_name, unsigned *seed)
{
	struct icm_view *view, *linked;
	struct icm_open_result open;
	struct stat st;

	if (icm_fs_lookup(dir, &call, name, &view, &st) < 0)
		return;
	if (icm_fs_open(view, &call, O_RDWR, &open) == 0) {
		work_on(view, open.handle, seed);
		icm_fs_release(open.handle);
	}
	if (icm_fs_link(view, &call, to_dir, to_name, &linked, &st) == 0) {
		assert(linked == view);
		icm_fs_forget(linked, 1);
	}
	icm_fs_forget(view, 1);
}

static void one_turn(unsigned self, unsigned *seed)
{
	struct icm_view *dir = dirs[rand_r(seed) % 2], *to_dir = dirs[rand_r(seed) % 2];
	const char name[] = { (char)('a' + rand_r(seed) % 4), '\0' };
	const char to_name[] = { (char)('a' + rand_r(seed) % 4), '\0' };

	switch (rand_r(seed) % 8) {
	case 0:
		icm_fs_unlink(dir, &call, name);
		break;
	case 1:
		icm_fs_rename(dir, &call, name, to_dir, to_name, 0);
		break;
	case 2:
		icm_fs_rename(dir, &call, name, to_dir, to_name, RENAME_EXCHANGE);
		break;
	case 3:
		read_dir(dir);
		break;
	case 4:
		if (self != 1)
			break; /* a second one would take away what the first has moved */
		icm_scratch_dir_moved(s, "one", "two");
		icm_scratch_dir_moved(s, "two", "one");
		break;
	case 5:
	case 6:
		look(dir, name, to_dir, to_name, seed);
		break;
	default:
		create(dir, name, seed);
	}
}

static void *work(void *arg)
{
	unsigned self = (unsigned)(uintptr_t)arg, seed = self;
	int64_t end = icm_now_ns() + RUN_NS;

	while (icm_now_ns() < end)
		one_turn(self, &seed);
	return NULL;
}

static int remove_one(const char *path, const struct stat *st, int type, struct FTW *ftw)
{
	return remove(path);
}

int main(void)
{
	char root[] = "/tmp/icm-race-XXXXXX";
	pthread_t threads[THREADS];
	char *error = NULL;
	struct stat st;

	assert(mkdtemp(root));
	lock_set = icm_lock_set_new();
	assert(icm_scratch_open(NULL, root, NULL, &s, &error) == 0);
	assert(icm_scratch_mkdir(s, &call, "one", "x.tmp", 0700, &dirs[0], &st) == 0);
	assert(icm_fs_mkdir(dirs[0], &call, "sub", 0700, &dirs[1], &st) == 0);
	for (unsigned i = 0; i < THREADS; i++)
		assert(!pthread_create(&threads[i], NULL, work, (void *)(uintptr_t)(i + 1)));
	for (unsigned i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	icm_fs_forget(dirs[0], 1);
	icm_fs_forget(dirs[1], 1);
	icm_scratch_close(s);
	icm_lock_set_free(lock_set);
	nftw(root, remove_one, 16, FTW_DEPTH | FTW_PHYS);
	return 0;
}
