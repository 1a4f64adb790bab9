/* SPDX-License-Identifier: MIT
 * The local copy: that it is always one state of the store, whatever two mounts do
 * meanwhile; what it costs; and which stores it takes the place of. What it shows to
 * programs is tested on mounts (tests/mount/offline.sh). */
#include <stdatomic.h>
#include <stdlib.h>

#include "core/copy.h"
#include "core/key.h"
#include "core/record.h"
#include "tests/unit/core-mount.h"
#include "util/clock.h"

static const char *const store = "memory:offline";
static struct icm_backend *raw; /* keeps the store */
static char dir[] = "/tmp/test-offline.XXXXXX";

static void set_up(void)
{
	raw = keep_consul_like(store);
	cr_assert(mkdtemp(dir));
}

static void tear_down(void)
{
	ICM_AUTOFREE char *rm = icm_asprintf("rm -rf '%s'", dir);

	icm_backend_close(raw);
	cr_assert_eq(system(rm), 0);
}

TestSuite(offline, .init = set_up, .fini = tear_down, .timeout = 60);

static const struct icm_volume_config with_copy = {
	.url = "memory:offline", .create = true, .timeout_ms = 2000, .copy_dir = dir
};

/* What the store answers to everything: an error, as all mounts see it. */
static int answer_error;

static struct icm_memory_fault answer(uint64_t call, enum icm_memory_call kind,
				      const struct icm_op *ops, size_t n_ops, void *userdata)
{
	return (struct icm_memory_fault){ .fault = ICM_FAULT_FAIL, .error = answer_error };
}

static void store_answers(int error)
{
	answer_error = error;
	icm_memory_set_fault(raw, error ? answer : NULL, NULL);
}

/* ---- the copy as a store, beside its mount ---- */

static struct icm_backend *open_copy(void)
{
	ICM_AUTOFREE char *url = icm_asprintf("sqlite:%s/copy.icmfs", dir);
	struct icm_backend *be = NULL;

	WAIT_FOR(icm_backend_open(url, &(struct icm_open_options){ .read_only = true }, &be,
				  NULL) == 0);
	cr_assert_eq(icm_backend_start(be), 0);
	return be;
}

/* Index of the store that the copy is of, and sizes of two files then; 0: not there. */
struct seen {
	uint64_t index, first, second;
};

static struct seen look(struct icm_backend *copy)
{
	const struct icm_op ops[] = { { ICM_OP_GET, .key = ICM_KEY_COPY },
				      { ICM_OP_GET_TREE, .key = "attr/" } };
	ICM_AUTORESULT struct icm_txn_result res = { 0 };
	struct icm_copy_head head;
	struct seen seen = { 0 };

	if (icm_backend_txn(copy, NULL, ops, ICM_COUNT(ops), &res) < 0)
		return seen;
	cr_assert_eq(icm_copy_head_decode(res.entries.v[0].value, res.entries.v[0].len, &head), 0);
	cr_assert_eq(head.names, res.entries.n - 1);
	seen.index = head.index;
	icm_copy_head_clear(&head);
	for (size_t i = 1; i < res.entries.n; i++) {
		const struct icm_entry *e = &res.entries.v[i];
		struct icm_attr attr;

		cr_assert_eq(icm_attr_decode(e->value, e->len, &attr), 0);
		if (strcmp(e->key, "attr/first") == 0)
			seen.first = attr.size;
		if (strcmp(e->key, "attr/second") == 0)
			seen.second = attr.size;
		icm_attr_clear(&attr);
	}
	return seen;
}

/* ---- one state ---- */

/* Two mounts, of which one has the copy, write in turn: the second never before it
 * has seen what the first one wrote. */
struct turns {
	struct icm_volume *first, *second;
	atomic_bool stop;
	unsigned n;
};

static void append(struct icm_volume *vol, const char *name)
{
	cr_assert_eq(save(vol, name, O_APPEND, "x"), 0);
}

static void *write_in_turn(void *arg)
{
	struct turns *t = arg;

	while (!atomic_load(&t->stop)) {
		append(t->first, "first");
		append(t->second, "second");
		t->n++;
	}
	return NULL;
}

static void copies_are_states(struct turns *t)
{
	struct icm_backend *copy = open_copy();
	struct seen last = { 0 }, now;
	pthread_t writer;
	unsigned states = 0;

	cr_assert_eq(pthread_create(&writer, NULL, write_in_turn, t), 0);
	while (states < 4) {
		now = look(copy);
		if (now.index == last.index)
			continue;
		cr_assert_geq(now.index, last.index);
		cr_assert_leq(now.second, now.first);
		cr_assert_leq(now.first, now.second + 1);
		states += now.first > last.first;
		last = now;
	}
	atomic_store(&t->stop, true);
	pthread_join(writer, NULL);
	icm_backend_close(copy);
}

Test(offline, the_copy_is_a_state_while_its_mount_writes_first)
{
	struct turns t = { .first = mount_with(with_copy), .second = mount_store(store) };

	copies_are_states(&t);
	unmount(t.first);
	unmount(t.second);
}

Test(offline, the_copy_is_a_state_while_its_mount_writes_last)
{
	struct turns t = { .first = mount_store(store), .second = mount_with(with_copy) };

	copies_are_states(&t);
	unmount(t.first);
	unmount(t.second);
}

/* ---- what it shows ---- */

/* The store was away before the mount, or goes while it reads the tree. */
static struct icm_memory_fault lists_fail(uint64_t call, enum icm_memory_call kind,
					  const struct icm_op *ops, size_t n_ops, void *userdata)
{
	struct icm_memory_fault away = { .fault = ICM_FAULT_FAIL, .error = -EHOSTUNREACH };

	return kind == ICM_CALL_LIST ? away : (struct icm_memory_fault){ 0 };
}

static void shows_the_copy(void)
{
	struct icm_volume *vol = mount_with(with_copy);
	struct icm_volume_status status;

	icm_volume_get_status(vol, &status);
	cr_assert(status.offline && status.stale && status.read_only && !status.reachable);
	cr_assert_str_eq(status.url, store);
	icm_volume_status_clear(&status);
	cr_assert(has_contents(vol, "file", "text"));
	cr_assert_eq(save(vol, "file", O_TRUNC, "other"), -EROFS);
	cr_assert_eq(save(vol, "new", O_TRUNC, "other"), -EROFS);
	unmount(vol);
}

static void make_copy(void)
{
	struct icm_volume *vol = mount_with(with_copy);

	cr_assert_eq(save(vol, "file", O_TRUNC, "text"), 0);
	unmount(vol);
}

Test(offline, a_store_that_does_not_answer_is_replaced)
{
	make_copy();
	store_answers(-EHOSTUNREACH);
	shows_the_copy();
	store_answers(-ETIMEDOUT);
	shows_the_copy();
	icm_memory_set_fault(raw, lists_fail, NULL);
	shows_the_copy();
	store_answers(0);
	cr_assert(has_contents(mount_with(with_copy), "file", "text"));
}

static void is_refused(struct icm_volume_config config, int error, const char *words)
{
	struct icm_volume *vol = NULL;
	ICM_AUTOFREE char *text = NULL;
	int r = icm_volume_open(&config, &vol, &text);

	if (r == 0)
		r = icm_volume_start(vol, NULL, NULL, &text);
	icm_volume_free(vol);
	cr_assert_eq(r, error, "%s", strerror(-r));
	cr_assert(strstr(text, words), "%s", text);
}

Test(offline, a_store_that_answers_is_not)
{
	make_copy();
	store_answers(-EACCES);
	is_refused(with_copy, -EACCES, "can't be read");
	store_answers(-EPROTO);
	is_refused(with_copy, -EPROTO, "damaged");
	store_answers(0);
	/* an empty one gets no deployment in place of what was there */
	icm_memory_restore(raw);
	is_refused(with_copy, -ENOENT, "no deployment");
}

Test(offline, without_a_copy_the_reason_is_said)
{
	struct icm_volume_config config = with_copy;

	store_answers(-EHOSTUNREACH);
	is_refused(config, -EHOSTUNREACH, "no local copy of it yet");
	config.copy_dir = NULL;
	is_refused(config, -EHOSTUNREACH, "can't be read");
}

Test(offline, another_mount_does_without_the_copy)
{
	struct icm_volume *first = mount_with(with_copy), *second = mount_with(with_copy);

	cr_assert_eq(save(second, "file", O_TRUNC, "text"), 0);
	unmount(second);
	unmount(first);
	store_answers(-EHOSTUNREACH);
	shows_the_copy(); /* the first one's, which saw it */
}

/* ---- what it costs ---- */

static struct icm_memory_fault count_reads(uint64_t call, enum icm_memory_call kind,
					   const struct icm_op *ops, size_t n_ops, void *userdata)
{
	if (kind == ICM_CALL_GET)
		atomic_fetch_add((atomic_uint *)userdata, 1);
	return (struct icm_memory_fault){ 0 };
}

Test(offline, a_version_is_fetched_once)
{
	struct icm_volume *other = mount_store(store), *vol;
	struct icm_backend *copy;
	uint64_t index = 0;
	atomic_uint reads = 0;

	for (int i = 0; i < 20; i++) {
		ICM_AUTOFREE char *name = icm_asprintf("file-%d", i);

		cr_assert_eq(save(other, name, O_TRUNC, name), 0);
	}
	vol = mount_with(with_copy);
	copy = open_copy();
	WAIT_FOR((index = look(copy).index));
	icm_memory_set_instance_fault(icm_volume_backend(vol), count_reads, &reads);
	cr_assert_eq(save(other, "first", O_TRUNC, "one"), 0);
	cr_assert_eq(save(other, "second", O_TRUNC, "two"), 0);
	WAIT_FOR(look(copy).second);
	cr_assert_leq(atomic_load(&reads), 2);
	icm_memory_set_instance_fault(icm_volume_backend(vol), NULL, NULL);
	icm_backend_close(copy);
	unmount(vol);
	unmount(other);
}

/* Bytes that aren't those of the hash in the attributes, and nowhere else either. */
static void damage(const char *path)
{
	ICM_AUTOFREE char *attr_key = icm_key_attr(path);
	ICM_AUTOFREE char *tree_key = icm_key_tree(path);
	ICM_AUTOENTRY struct icm_entry e = { 0 };
	ICM_AUTORESULT struct icm_txn_result res = { 0 };
	ICM_AUTOATTR struct icm_attr attr = { 0 };
	ICM_AUTOFREE char *text = NULL;
	struct icm_op ops[] = { { ICM_OP_SET, .key = attr_key },
				{ ICM_OP_SET, tree_key, "TEXT", 4, ICM_FLAGS_PLAIN, 0 } };

	cr_assert_eq(icm_backend_get(raw, NULL, attr_key, &e), 0);
	cr_assert_eq(icm_attr_decode(e.value, e.len, &attr), 0);
	attr.hash.bytes[0] ^= 1;
	text = icm_attr_encode(&attr, &ops[0].len);
	ops[0].value = text;
	cr_assert_eq(icm_backend_txn(raw, NULL, ops, ICM_COUNT(ops), &res), 0);
}

Test(offline, what_is_damaged_is_left_out)
{
	struct icm_volume *vol = mount_store(store);
	struct icm_volume_status status;
	struct icm_backend *copy;
	int r;

	cr_assert_eq(save(vol, "file", O_TRUNC, "text"), 0);
	cr_assert_eq(save(vol, "good", O_TRUNC, "good"), 0);
	unmount(vol);
	damage("file");
	vol = mount_with(with_copy);
	copy = open_copy();
	WAIT_FOR(look(copy).index);
	icm_backend_close(copy);
	unmount(vol);
	store_answers(-EHOSTUNREACH);
	vol = mount_with(with_copy);
	icm_volume_get_status(vol, &status);
	cr_assert_eq(status.copy_left_out, 1);
	icm_volume_status_clear(&status);
	cr_assert(has_contents(vol, "good", "good"));
	cr_assert_null(contents_of(vol, "file", &r));
	cr_assert_eq(r, -EIO, "%s", strerror(-r));
	unmount(vol);
}

/* ---- the head ---- */

#define HEAD                                                                                       \
	"{\"format\":1,\"store\":\"memory%3As\",\"created\":[5,6],\"index\":7,\"time\":[8,9],"     \
	"\"names\":10,\"left_out\":11}"

Test(offline, the_head_is_read_as_written)
{
	struct icm_copy_head head;
	ICM_AUTOFREE char *text = NULL;
	size_t len;

	cr_assert_eq(icm_copy_head_decode(HEAD, strlen(HEAD), &head), 0);
	cr_assert(head.format == 1 && head.created.tv_sec == 5 && head.created.tv_nsec == 6 &&
		  head.index == 7 && head.time.tv_sec == 8 && head.names == 10 &&
		  head.left_out == 11);
	cr_assert_str_eq(head.store, "memory:s");
	text = icm_copy_head_encode(&head, &len);
	cr_assert_str_eq(text, HEAD);
	icm_copy_head_clear(&head);
}

Test(offline, other_heads_are_refused)
{
	static const char *const bad[] = {
		"",
		"{}",
		"[]",
		"{\"format\":0}",
		"{\"format\":1}",
		"{\"format\":1,\"store\":\"s\",\"created\":[5,6],\"index\":0,\"time\":[8,9],"
		"\"names\":1,"
		"\"left_out\":0}",
		"{\"format\":1,\"store\":\"s\",\"created\":[5,6],\"index\":1,\"time\":[8,9],"
		"\"names\":1,"
		"\"left_out\":-1}",
	};
	struct icm_copy_head head;

	for (size_t i = 0; i < ICM_COUNT(bad); i++)
		cr_assert_eq(icm_copy_head_decode(bad[i], strlen(bad[i]), &head), -EPROTO, "%zu",
			     i);
	/* of a newer one, the number is enough */
	cr_assert_eq(icm_copy_head_decode("{\"format\":2}", 12, &head), 0);
	cr_assert_eq(head.format, 2);
	icm_copy_head_clear(&head);
}
