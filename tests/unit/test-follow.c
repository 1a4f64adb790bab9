/* SPDX-License-Identifier: MIT
 * Following another mount: what it costs on a store whose listing of keys tells no
 * indexes (one listing and one short transaction for a change), and that the tree
 * comes out right whatever look-ups have told before the feed did. */
#include <linux/fs.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

#include "core/key.h"
#include "tests/unit/core-mount.h"
#include "util/clock.h"

static const char *const store = "memory:follow";
static struct icm_backend *raw; /* keeps the store */

static void set_up(void)
{
	raw = keep_consul_like(store);
}

static void tear_down(void)
{
	icm_backend_close(raw);
}

TestSuite(follow, .init = set_up, .fini = tear_down, .timeout = 60);

/* Calls of one mount, counted under the store's lock. */
struct counts {
	pthread_mutex_t lock;
	size_t lists, txns, ops;
};

static struct icm_memory_fault count(uint64_t call, enum icm_memory_call kind,
				     const struct icm_op *ops, size_t n_ops, void *userdata)
{
	struct counts *c = userdata;
	ICM_LOCK_SCOPE(&c->lock);

	c->lists += kind == ICM_CALL_LIST;
	c->txns += kind == ICM_CALL_TXN;
	if (kind == ICM_CALL_TXN)
		c->ops += n_ops;
	return (struct icm_memory_fault){ 0 };
}

static struct counts snapshot(struct counts *c)
{
	ICM_LOCK_SCOPE(&c->lock);

	return *c;
}

static bool knows(struct icm_volume *vol, const char *name)
{
	struct icm_view *view;
	struct stat st;

	if (icm_fs_lookup_cached(icm_fs_root(vol), name, &view, &st) != 0)
		return false;
	icm_fs_forget(view, 1);
	return true;
}

Test(follow, a_record_is_read_once)
{
	struct counts counts = { .lock = PTHREAD_MUTEX_INITIALIZER };
	struct icm_volume *writer = mount_store(store), *reader = mount_store(store);
	struct counts now;

	for (int i = 0; i < 50; i++) {
		ICM_AUTOFREE char *name = icm_asprintf("file-%d", i);

		cr_assert_eq(save(writer, name, O_TRUNC, name), 0);
		WAIT_FOR(knows(reader, name));
	}
	icm_memory_set_instance_fault(icm_volume_backend(reader), count, &counts);
	cr_assert_eq(save(writer, "last", O_TRUNC, "x"), 0);
	WAIT_FOR(knows(reader, "last"));
	/* the record of a change is there with the change: whatever number of wake-ups
	 * it took, it was read once, the floor with each listing */
	icm_memory_set_instance_fault(icm_volume_backend(reader), NULL, NULL);
	now = snapshot(&counts);
	cr_assert_geq(now.txns, 1);
	cr_assert_leq(now.txns, now.lists);
	cr_assert_leq(now.ops, now.txns + 1);
	unmount(reader);
	unmount(writer);
}

Test(follow, own_records_are_not_read)
{
	struct counts counts = { .lock = PTHREAD_MUTEX_INITIALIZER };
	struct icm_volume *vol = mount_store(store);
	struct icm_volume *other = mount_store(store);
	struct counts now;

	for (int i = 0; i < 20; i++)
		cr_assert_eq(save(vol, "file", O_TRUNC, i % 2 ? "odd" : "even"), 0);
	icm_memory_set_instance_fault(icm_volume_backend(vol), count, &counts);
	cr_assert_eq(save(other, "theirs", O_TRUNC, "x"), 0);
	WAIT_FOR(knows(vol, "theirs"));
	icm_memory_set_instance_fault(icm_volume_backend(vol), NULL, NULL);
	now = snapshot(&counts);
	cr_assert_leq(now.ops, now.txns + 2); /* the floor each time, and theirs */
	unmount(other);
	unmount(vol);
}

/* ---- look-ups between the records ---- */

#define N_ROUNDS  20
#define N_STEPS	  400
#define N_LOOKERS 3

/* Records come late, so that look-ups overtake them. */
static struct icm_memory_fault late_lists(uint64_t call, enum icm_memory_call kind,
					  const struct icm_op *ops, size_t n_ops, void *userdata)
{
	struct icm_memory_fault late = { .fault = ICM_FAULT_DELAY,
					 .late_ns = (int64_t)(call * 7919 % 5) * ICM_NS_PER_MS };

	return kind == ICM_CALL_LIST ? late : (struct icm_memory_fault){ 0 };
}

/* One of 3 directories, which come and go, and the root; one of 3 names. */
static const char *random_name(unsigned *seed)
{
	static const char *const names[] = { "x", "y", "z" };

	return names[rand_r(seed) % ICM_COUNT(names)];
}

static char *random_dir(unsigned *seed)
{
	int n = rand_r(seed) % 4;

	return n == 3 ? NULL : icm_asprintf("d%d", n);
}

static char *random_path(unsigned *seed)
{
	ICM_AUTOFREE char *dir = random_dir(seed);

	return dir ? icm_path_join(dir, random_name(seed)) : icm_xstrdup(random_name(seed));
}

/* A random directory's view, or the root's; NULL: there is none. */
static struct icm_view *directory(struct icm_volume *vol, unsigned *seed)
{
	ICM_AUTOFREE char *dir = random_dir(seed);
	struct icm_view *view = NULL;
	struct stat st;

	if (!dir) {
		view = icm_fs_root(vol);
		icm_view_ref(view);
	} else if (walk(vol, dir, &view, &st) < 0) {
		return NULL;
	}
	return view;
}

static void forget(struct icm_view *view)
{
	if (view)
		icm_fs_forget(view, 1);
}

static void make_file(struct icm_volume *vol, struct icm_view *dir, unsigned *seed)
{
	struct icm_open_result res;
	struct icm_view *view = NULL;
	struct stat st;

	if (icm_fs_create(dir, &no_call, random_name(seed), 0644, O_WRONLY | O_CREAT | O_TRUNC,
			  &view, &st, &res) < 0)
		return;
	icm_fs_write(res.handle, &no_call, "contents", 1 + (unsigned)rand_r(seed) % 8, 0, false);
	icm_fs_flush(res.handle, &no_call, 1);
	close_path(view, res.handle);
}

static void make_link(struct icm_volume *vol, struct icm_view *dir, unsigned *seed)
{
	ICM_AUTOFREE char *path = random_path(seed);
	struct icm_view *view = NULL, *made = NULL;
	struct stat st;

	if (walk(vol, path, &view, &st) < 0)
		return;
	if (icm_fs_link(view, &no_call, dir, random_name(seed), &made, &st) == 0)
		forget(made);
	forget(view);
}

/* Any operation; most of them fail now and then, as they should. */
static void random_step(struct icm_volume *vol, unsigned *seed)
{
	struct icm_view *dir = directory(vol, seed), *to = directory(vol, seed), *made = NULL;
	ICM_AUTOFREE char *name = random_dir(seed);
	ICM_AUTOFREE char *to_name = random_dir(seed);
	struct stat st;
	int what = rand_r(seed) % 16;

	if (what < 3 && name &&
	    icm_fs_mkdir(icm_fs_root(vol), &no_call, name, 0755, &made, &st) == 0)
		forget(made);
	else if (what < 4 && name)
		icm_fs_rmdir(icm_fs_root(vol), &no_call, name);
	else if (what < 5 && name && to_name)
		icm_fs_rename(icm_fs_root(vol), &no_call, name, icm_fs_root(vol), to_name, 0);
	else if (what < 9 && dir)
		make_file(vol, dir, seed);
	else if (what < 13 && dir && to)
		icm_fs_rename(dir, &no_call, random_name(seed), to, random_name(seed),
			      what == 12 ? RENAME_EXCHANGE : 0);
	else if (what < 14 && dir)
		icm_fs_unlink(dir, &no_call, random_name(seed));
	else if (what < 15 && dir)
		make_link(vol, dir, seed);
	forget(dir);
	forget(to);
}

/* A thread that does random things at one mount. */
struct looker {
	pthread_t thread;
	struct icm_volume *vol;
	unsigned seed;
	atomic_bool *stop;
};

static void *look(void *userdata)
{
	struct looker *l = userdata;

	while (!atomic_load(l->stop)) {
		ICM_AUTOFREE char *path = random_path(&l->seed);
		struct stat st;

		stat_path(l->vol, path, &st);
	}
	return NULL;
}

struct dump {
	struct icm_buf text;
	struct icm_view *dir;
	const char *path;
};

static void dump_dir(struct icm_view *dir, const char *path, struct icm_buf *text);

static int dump_name(void *userdata, const struct icm_dirent *e)
{
	struct dump *d = userdata;
	ICM_AUTOFREE char *path = icm_path_join(d->path, e->name);
	struct icm_view *view;
	struct stat st;

	if (e->name[0] == '.' || icm_fs_lookup_cached(d->dir, e->name, &view, &st) != 0)
		return 0;
	icm_buf_addf(&d->text, "%s %o %ju %ju %ju.%09ld %ju\n", path, st.st_mode,
		     (uintmax_t)st.st_nlink, (uintmax_t)st.st_size, (uintmax_t)st.st_mtim.tv_sec,
		     st.st_mtim.tv_nsec, (uintmax_t)st.st_ino);
	if (S_ISDIR(st.st_mode))
		dump_dir(view, path, &d->text);
	forget(view);
	return 0;
}

static int by_text(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Lines in an order of their own. */
static void add_sorted(struct icm_buf *to, char *lines)
{
	size_t n = 0, max = strlen(lines);
	ICM_AUTOFREE char **v = icm_xcalloc(max, sizeof(*v));
	char *line;

	while ((line = strsep(&lines, "\n")) && *line)
		v[n++] = line;
	qsort(v, n, sizeof(*v), by_text);
	for (size_t i = 0; i < n; i++)
		icm_buf_addf(to, "%s\n", v[i]);
}

static void dump_dir(struct icm_view *dir, const char *path, struct icm_buf *text)
{
	struct dump d = { .text = ICM_BUF_INIT(0), .dir = dir, .path = path };
	ICM_AUTOFREE char *lines = NULL;
	struct icm_handle *h;

	cr_assert_eq(icm_fs_opendir(dir, &no_call, &h), 0);
	icm_fs_readdir(h, &no_call, 0, dump_name, &d);
	icm_fs_releasedir(h);
	lines = icm_buf_steal(&d.text, NULL);
	if (lines)
		add_sorted(text, lines);
}

/* Everything that the mount shows, by names. */
static char *dump(struct icm_volume *vol)
{
	struct icm_buf text = ICM_BUF_INIT(0);

	icm_buf_addstr(&text, "tree\n");
	dump_dir(icm_fs_root(vol), "", &text);
	return icm_buf_steal(&text, NULL);
}

/* Waits until both show the same. Else says what the two and a new mount show: the
 * other threads live on, so that the test can't just fail. */
static void expect_same(struct icm_volume *a, struct icm_volume *b)
{
	int64_t deadline = icm_now_ns() + 10 * ICM_NS_PER_S;

	for (;;) {
		ICM_AUTOFREE char *in_a = dump(a);
		ICM_AUTOFREE char *in_b = dump(b);

		if (strcmp(in_a, in_b) == 0)
			return;
		if (icm_now_ns() > deadline) {
			ICM_AUTOFREE char *in_store = dump(mount_store(store));

			fprintf(stderr, "A: %s\nB: %s\nnew: %s\n", in_a, in_b, in_store);
			abort();
		}
		nanosleep(&(struct timespec){ .tv_nsec = 2000000 }, NULL);
	}
}

static void *write_steps(void *userdata)
{
	struct looker *l = userdata;

	for (int i = 0; i < N_STEPS; i++)
		random_step(l->vol, &l->seed);
	return NULL;
}

/* Rounds of operations by one mount, or by both, while the second one looks names
 * up; after each both have to show the same. */
static void follow_rounds(bool both)
{
	struct icm_volume *writer = mount_store(store), *reader = mount_store(store);
	struct looker lookers[N_LOOKERS], first = { .vol = writer, .seed = 1 };
	struct looker second = { .vol = reader, .seed = 2 };
	atomic_bool stop = false;

	icm_memory_set_instance_fault(icm_volume_backend(reader), late_lists, NULL);
	for (unsigned i = 0; i < N_LOOKERS; i++) {
		lookers[i] = (struct looker){ .vol = reader, .seed = i, .stop = &stop };
		cr_assert_eq(pthread_create(&lookers[i].thread, NULL, look, &lookers[i]), 0);
	}
	for (int round = 0; round < N_ROUNDS; round++) {
		if (both)
			cr_assert_eq(pthread_create(&second.thread, NULL, write_steps, &second), 0);
		write_steps(&first);
		if (both)
			pthread_join(second.thread, NULL);
		expect_same(writer, reader);
	}
	atomic_store(&stop, true);
	for (unsigned i = 0; i < N_LOOKERS; i++)
		pthread_join(lookers[i].thread, NULL);
	unmount(reader);
	unmount(writer);
}

Test(follow, whatever_was_looked_up_between_the_records)
{
	follow_rounds(false);
}

Test(follow, whatever_two_mounts_do_at_once)
{
	follow_rounds(true);
}
