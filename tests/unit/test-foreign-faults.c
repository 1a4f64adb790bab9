/* SPDX-License-Identifier: MIT
 * Other programs in a store that answers badly, late or from the past: what a mount
 * must not conclude. On the memory store with Consul's limits, whose watch tells of
 * such changes unless a test makes it fail. */
#include <pthread.h>
#include <stdatomic.h>

#include "tests/unit/raw-store.h"

#define STORE "memory:foreign-faults"

static void set_up(void)
{
	cr_assert_eq(icm_backend_open(STORE, &(struct icm_open_options){ 0 }, &raw, NULL), 0);
	icm_memory_set_consul_limits(raw);
	cr_assert_eq(icm_backend_start(raw), 0);
}

static void tear_down(void)
{
	icm_backend_close(raw);
}

TestSuite(foreign_faults, .init = set_up, .fini = tear_down, .timeout = 120);

/* ---- faults of one mount's calls ---- */

/* Set by the test, read by the calls. */
struct faults {
	atomic_bool blind;	    /* watches fail: nothing is noticed */
	atomic_bool hide;	    /* listings of tree/ are denied */
	atomic_size_t listed;	    /* listings of tree/ that were asked for */
	atomic_size_t slow_at;	    /* the get that is late, counted from 1; 0: none */
	atomic_size_t gets;	    /* counted while one is to be late */
	atomic_size_t n_blind;	    /* threads whose watch has failed */
	pthread_t blind_threads[2]; /* protected by the store's lock */
};

/* Called under the store's lock. */
static void note_blind(struct faults *f)
{
	size_t n = atomic_load(&f->n_blind);

	for (size_t i = 0; i < n; i++)
		if (pthread_equal(f->blind_threads[i], pthread_self()))
			return;
	cr_assert_lt(n, 2);
	f->blind_threads[n] = pthread_self();
	atomic_store(&f->n_blind, n + 1);
}

static bool lists_tree(enum icm_memory_call kind, const struct icm_op *ops, size_t n_ops)
{
	for (size_t i = 0; kind == ICM_CALL_TXN && i < n_ops; i++)
		if (ops[i].type == ICM_OP_GET_TREE && strcmp(ops[i].key, "tree/") == 0)
			return true;
	return false;
}

static struct icm_memory_fault decide(uint64_t call, enum icm_memory_call kind,
				      const struct icm_op *ops, size_t n_ops, void *userdata)
{
	struct faults *f = userdata;

	if (kind == ICM_CALL_WATCH && atomic_load(&f->blind)) {
		note_blind(f);
		return (struct icm_memory_fault){ ICM_FAULT_FAIL, -EHOSTUNREACH, 0 };
	}
	if (lists_tree(kind, ops, n_ops)) {
		atomic_fetch_add(&f->listed, 1);
		if (atomic_load(&f->hide))
			return (struct icm_memory_fault){ ICM_FAULT_FAIL, -EACCES, 0 };
	}
	if (kind == ICM_CALL_GET && atomic_load(&f->slow_at) &&
	    atomic_fetch_add(&f->gets, 1) + 1 == atomic_load(&f->slow_at))
		return (struct icm_memory_fault){ ICM_FAULT_DELAY, 0, 300 * 1000 * 1000 };
	return (struct icm_memory_fault){ 0 };
}

static struct icm_volume *mount_faulty(struct faults *f)
{
	struct icm_volume *vol = mount_store(STORE);

	icm_memory_set_instance_fault(icm_volume_backend(vol), decide, f);
	return vol;
}

/* From here on `vol` notices nothing. A watch that waits already returns once more,
 * for a change by another mount: tree/poke. */
static void make_blind(struct faults *f, size_t n_watches)
{
	struct icm_volume *other = mount_store(STORE);

	atomic_store(&f->blind, true);
	cr_assert_eq(save(other, "poke", O_TRUNC, "x"), 0);
	unmount(other);
	WAIT_FOR(atomic_load(&f->n_blind) == n_watches);
}

/* ---- listings ---- */

/* Everything is gone at once, the root's key too: a store that looks empty. */
Test(foreign_faults, an_empty_listing_deletes_nothing)
{
	struct faults faults = { 0 };
	struct icm_volume *vol = mount_faulty(&faults);
	ICM_AUTORESULT struct icm_txn_result res = { 0 };
	ICM_AUTOENTRY struct icm_entry root = { 0 };
	const struct icm_op ops[] = {
		{ .type = ICM_OP_DELETE, .key = "tree/f" },
		{ .type = ICM_OP_DELETE, .key = "tree/" },
	};
	struct icm_op back;
	size_t before;

	cr_assert_eq(save(vol, "f", O_TRUNC, "kept"), 0);
	cr_assert_eq(icm_backend_get(raw, NULL, "tree/", &root), 0);
	before = atomic_load(&faults.listed);
	cr_assert_eq(icm_backend_txn(raw, NULL, ops, ICM_COUNT(ops), &res), 0);
	WAIT_FOR(atomic_load(&faults.listed) > before);
	cr_assert(is_there(vol, "f"));
	cr_assert(has_key("attr/f"));
	put("tree/f", "back");
	back = (struct icm_op){ ICM_OP_SET, "tree/", root.value, root.len, root.flags, 0 };
	icm_txn_result_clear(&res);
	cr_assert_eq(icm_backend_txn(raw, NULL, &back, 1, &res), 0);
	WAIT_FOR(has_contents(vol, "f", "back"));
	unmount(vol);
	cr_assert_eq(problems(NULL), 0);
}

/* The foreign change hides behind one of icmfs, and the comparison that is to find it
 * is refused at first: it is made again without another change. */
Test(foreign_faults, a_comparison_that_failed_is_repeated)
{
	struct faults faults = { 0 };
	struct icm_volume *vol = mount_faulty(&faults);
	size_t before;

	make_blind(&faults, 2);
	put("tree/theirs", "x");
	cr_assert_eq(save(vol, "ours", O_TRUNC, "y"), 0);
	before = atomic_load(&faults.listed);
	atomic_store(&faults.hide, true);
	atomic_store(&faults.blind, false);
	WAIT_FOR(atomic_load(&faults.listed) > before);
	atomic_store(&faults.hide, false);
	WAIT_FOR(count_entries(vol) == 3);
	unmount(vol);
	cr_assert_eq(problems(NULL), 0);
}

static bool knows(struct icm_volume *vol, const char *name)
{
	struct icm_view *view = NULL;
	struct stat st;

	if (icm_fs_lookup_cached(icm_fs_root(vol), name, &view, &st) != 0)
		return false;
	icm_fs_forget(view, 1);
	return true;
}

/* ---- two reads that aren't one view ---- */

struct late_writer {
	struct faults *faults;
	struct icm_volume *vol;
};

/* Commits while the reader's look at tree/new waits. */
static void *write_in_between(void *arg)
{
	struct late_writer *w = arg;

	WAIT_FOR(atomic_load(&w->faults->gets) >= 2);
	cr_assert_eq(save(w->vol, "new", O_TRUNC, "ours"), 0);
	return NULL;
}

/* attr/new isn't there yet and tree/new is: one commit of icmfs in between, nothing
 * that a mount which can't write may derive attributes for. */
Test(foreign_faults, a_commit_between_two_reads_is_not_foreign)
{
	struct icm_volume *vol = mount_store(STORE), *reader;
	struct faults faults = { 0 };
	struct late_writer writer = { &faults, vol };
	struct stat st, there;
	pthread_t thread;

	reader = mount_with((struct icm_volume_config){
		.url = STORE, .read_only = true, .uid = 1000, .gid = 100 });
	icm_memory_set_instance_fault(icm_volume_backend(reader), decide, &faults);
	make_blind(&faults, 2);
	atomic_store(&faults.slow_at, 2);
	cr_assert_eq(pthread_create(&thread, NULL, write_in_between, &writer), 0);
	(void)stat_path(reader, "new", &there); /* absent, or what the commit says */
	pthread_join(thread, NULL);
	atomic_store(&faults.slow_at, 0);
	atomic_store(&faults.blind, false);
	cr_assert_eq(save(vol, "later", O_TRUNC, "x"), 0);
	WAIT_FOR(knows(reader, "later") && is_there(reader, "new"));
	cr_assert_eq(stat_path(vol, "new", &st), 0);
	cr_assert_eq(stat_path(reader, "new", &there), 0);
	cr_assert_eq(there.st_mode, st.st_mode, "%o, and not %o", there.st_mode, st.st_mode);
	cr_assert_eq(there.st_ino, st.st_ino);
	unmount(reader);
	unmount(vol);
}

/* ---- before it is noticed ---- */

/* Nobody has told this mount yet, and the bytes are needed now. */
Test(foreign_faults, contents_that_are_not_noticed_yet_are_not_damage)
{
	struct faults faults = { 0 };
	struct icm_volume *vol = mount_store(STORE);
	ICM_AUTOFREE char *text = NULL;
	struct stat st;
	int r;

	cr_assert_eq(save(vol, "f", O_TRUNC, "ours"), 0);
	unmount(vol); /* and what it has read of it */
	vol = mount_faulty(&faults);
	make_blind(&faults, 2);
	put("tree/f", "theirs, longer");
	text = contents_of(vol, "f", &r);
	cr_assert_eq(r, 0, "%s", strerror(-r));
	cr_assert_str_eq(text, "theirs, longer");
	cr_assert_eq(stat_path(vol, "f", &st), 0);
	cr_assert_eq(st.st_size, 14);
	unmount(vol);
	cr_assert_eq(problems(NULL), 0);
}

/* Opened before, read for the first time after: that version is gone for good. */
Test(foreign_faults, an_open_version_that_was_overwritten_is_gone)
{
	struct faults faults = { 0 };
	struct icm_volume *vol = mount_store(STORE);
	struct icm_view *view = NULL;
	struct icm_handle *h = NULL;
	char buf[32];
	ssize_t n;

	cr_assert_eq(save(vol, "f", O_TRUNC, "ours"), 0);
	unmount(vol);
	vol = mount_faulty(&faults);
	make_blind(&faults, 2);
	cr_assert_eq(open_path(vol, "f", O_RDONLY, &view, &h), 0);
	put("tree/f", "theirs, longer");
	n = icm_fs_read(h, &no_call, buf, sizeof(buf), 0);
	cr_assert(n == -ESTALE || (n == 4 && !memcmp(buf, "ours", 4)), "%zd", n);
	close_path(view, h);
	cr_assert(has_contents(vol, "f", "theirs, longer"));
	unmount(vol);
}

/* Who reads a version goes on reading it. */
Test(foreign_faults, an_open_file_keeps_what_it_reads)
{
	struct icm_volume *vol = mount_store(STORE);
	struct icm_view *view = NULL;
	struct icm_handle *h = NULL;
	char buf[32] = "";

	cr_assert_eq(save(vol, "f", O_TRUNC, "ours"), 0);
	cr_assert_eq(open_path(vol, "f", O_RDONLY, &view, &h), 0);
	cr_assert_eq(icm_fs_read(h, &no_call, buf, sizeof(buf), 0), 4);
	put("tree/f", "theirs");
	WAIT_FOR(has_contents(vol, "f", "theirs"));
	cr_assert_eq(icm_fs_read(h, &no_call, buf, sizeof(buf), 0), 4);
	cr_assert_str_eq(buf, "ours");
	close_path(view, h);
	unmount(vol);
}

/* Hidden behind this mount's own changes, of which the watch may tell alone. */
Test(foreign_faults, an_open_sees_at_once_what_nobody_was_told)
{
	struct faults faults = { 0 };
	struct icm_volume *vol = mount_faulty(&faults);

	cr_assert_eq(save(vol, "f", O_TRUNC, "ours"), 0);
	cr_assert_eq(save(vol, "mode", O_TRUNC, "ours"), 0);
	make_blind(&faults, 2);
	for (int i = 0; i < 10; i++) {
		ICM_AUTOFREE char *theirs = icm_asprintf("theirs %d", i);

		cr_assert(has_contents(vol, "mode", i ? theirs : "ours") || i);
		cr_assert_eq(save(vol, "busy", O_TRUNC, theirs), 0);
		put("tree/f", theirs);
		put("tree/mode", theirs);
		cr_assert_eq(save(vol, "busy", O_TRUNC, "x"), 0);
		cr_assert(has_contents(vol, "f", theirs));
		cr_assert(has_contents(vol, "mode", theirs));
	}
	drop("tree/f");
	cr_assert_eq(save(vol, "busy", O_TRUNC, "y"), 0);
	cr_assert_not(has_contents(vol, "f", "theirs 9"));
	cr_assert_not(is_there(vol, "f"));
	unmount(vol);
	cr_assert_eq(problems(NULL), 0);
}

/* What an open costs when nothing has happened: no contents are read for it. */
Test(foreign_faults, an_open_of_a_known_file_is_one_request)
{
	struct icm_volume *vol = mount_store(STORE);
	struct icm_open_result res;
	struct icm_view *view = NULL;
	struct stat st;
	uint64_t txns, gets;

	cr_assert_eq(save(vol, "f", O_TRUNC, "ours"), 0);
	unmount(vol);
	vol = mount_store(STORE);
	for (int i = 0; i < 2; i++) {
		cr_assert_eq(walk(vol, "f", &view, &st), 0);
		gets = icm_memory_calls(raw, ICM_CALL_GET);
		txns = icm_memory_calls(raw, ICM_CALL_TXN);
		cr_assert_eq(icm_fs_open(view, &no_call, O_RDONLY, &res), 0);
		cr_assert_eq(icm_memory_calls(raw, ICM_CALL_GET), gets);
		cr_assert_leq(icm_memory_calls(raw, ICM_CALL_TXN), txns + 1);
		close_path(view, res.handle);
	}
	unmount(vol);
}

/* ---- a backup ---- */

/* All indexes go back, and what was written since is gone. */
Test(foreign_faults, a_store_from_a_backup_is_noticed)
{
	struct icm_volume *a = mount_store(STORE), *b = mount_store(STORE);

	cr_assert_eq(save(a, "f", O_TRUNC, "then"), 0);
	cr_assert_eq(save(a, "gone", O_TRUNC, "x"), 0);
	cr_assert(has_contents(b, "f", "then"));
	icm_memory_save(raw);
	for (int i = 0; i < 20; i++)
		cr_assert_eq(save(a, "f", O_TRUNC, i % 2 ? "later" : "late"), 0);
	cr_assert_eq(save(a, "new", O_TRUNC, "x"), 0);
	cr_assert_eq(icm_fs_unlink(icm_fs_root(a), &no_call, "gone"), 0);
	WAIT_FOR(has_contents(b, "f", "later") && is_there(b, "new") && !is_there(b, "gone"));
	icm_memory_restore(raw);
	WAIT_FOR(count_entries(a) == 2 && count_entries(b) == 2);
	WAIT_FOR(has_contents(a, "f", "then") && has_contents(b, "f", "then"));
	WAIT_FOR(has_contents(a, "gone", "x") && has_contents(b, "gone", "x"));
	cr_assert_eq(save(a, "f", O_TRUNC, "again"), 0);
	WAIT_FOR(has_contents(b, "f", "again"));
	put("tree/f", "theirs");
	WAIT_FOR(has_contents(a, "f", "theirs") && has_contents(b, "f", "theirs"));
	unmount(a);
	unmount(b);
	cr_assert_eq(problems(NULL), 0);
}

/* ---- what check says ---- */

/* Before any mount has seen it, on a store whose listings of keys tell no indexes and
 * no flags. */
Test(foreign_faults, check_calls_no_foreign_key_damage)
{
	struct icm_volume *vol = mount_store(STORE);
	ICM_AUTOFREE char *big = icm_xcalloc(1, 600001);
	ICM_AUTOENTRY struct icm_entry e = { 0 };
	ICM_AUTORESULT struct icm_txn_result res = { 0 };
	struct icm_view *view = NULL, *again = NULL;
	struct stat st;
	struct icm_op copy;

	memset(big, 'x', 600000);
	cr_assert_eq(save(vol, "f", O_TRUNC, "ours"), 0);
	cr_assert_eq(save(vol, "chunks", O_TRUNC, big), 0);
	cr_assert_eq(save(vol, "record", O_TRUNC, big), 0);
	cr_assert_eq(save(vol, "one", O_TRUNC, "linked"), 0);
	cr_assert_eq(walk(vol, "one", &view, &st), 0);
	cr_assert_eq(icm_fs_link(view, &no_call, icm_fs_root(vol), "two", &again, &st), 0);
	icm_fs_forget(again, 1);
	icm_fs_forget(view, 1);
	unmount(vol);
	cr_assert_eq(icm_backend_get(raw, NULL, "tree/record", &e), 0);
	put("tree/f", "theirs");
	put("tree/chunks", "bytes");
	put("tree/two", "alone");
	put("tree/new", "x");
	put("tree/d/deep", "x");
	copy = (struct icm_op){ ICM_OP_SET, "tree/copy", e.value, e.len, e.flags, 0 };
	cr_assert_eq(icm_backend_txn(raw, NULL, &copy, 1, &res), 0);
	copy.key = "tree/f2";
	icm_txn_result_clear(&res);
	cr_assert_eq(icm_backend_txn(raw, NULL, &copy, 1, &res), 0);
	cr_assert_eq(problems(NULL), 0);
	for (int i = 0; i < 7; i++) {
		static const char *const keys[] = { "tree/f",	"tree/chunks", "tree/two",
						    "tree/new", "tree/d/deep", "tree/copy",
						    "tree/f2" };

		cr_assert_eq(problems(keys[i]), 1, "%s", keys[i]);
	}
	vol = mount_store(STORE);
	cr_assert(has_contents(vol, "copy", big));
	cr_assert(has_contents(vol, "chunks", "bytes"));
	cr_assert(has_contents(vol, "two", "alone"));
	unmount(vol);
	cr_assert_eq(problems(NULL), 0);
}
