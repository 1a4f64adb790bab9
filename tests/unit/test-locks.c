/* SPDX-License-Identifier: MIT
 * Locks of several mounts on one file: exclusion, order, what is seen, faults. */
#include "tests/unit/lock-calls.h"

#include "core/key.h"
#include "core/record.h"

#define TO_END (UINT64_MAX >> 1)

static const char *const store = "memory:locks";
static struct icm_backend *raw; /* keeps the store */
static struct icm_volume *a, *b, *c;

static void set_up(void)
{
	raw = keep_consul_like(store);
	a = mount_store(store);
	b = mount_store(store);
	c = mount_store(store);
	cr_assert_eq(save(a, "file", O_TRUNC, "0"), 0);
}

static void tear_down(void)
{
	unmount(c);
	unmount(b);
	unmount(a);
	icm_backend_close(raw);
}

TestSuite(locks, .init = set_up, .fini = tear_down, .timeout = 120);

static bool table_exists(const char *path)
{
	struct icm_entry e = { 0 };
	struct stat st;
	char key[64];
	bool there;

	cr_assert_eq(stat_path(a, path, &st), 0);
	snprintf(key, sizeof(key), "lock/%llu", (unsigned long long)st.st_ino);
	there = icm_backend_get(raw, NULL, key, &e) == 0;
	icm_entry_clear(&e);
	return there;
}

/* Entries in the queue of the file. */
static size_t waiting(const char *path)
{
	struct icm_lock_value v = { 0 };
	struct icm_entry e = { 0 };
	struct stat st;
	char key[64];
	size_t n = 0;

	cr_assert_eq(stat_path(a, path, &st), 0);
	snprintf(key, sizeof(key), "lock/%llu", (unsigned long long)st.st_ino);
	if (icm_backend_get(raw, NULL, key, &e) == 0) {
		cr_assert_eq(icm_lock_value_decode(e.value, e.len, &v), 0);
		n = v.queue.n;
		icm_lock_value_clear(&v);
	}
	icm_entry_clear(&e);
	return n;
}

static char *lease_of(struct icm_volume *vol)
{
	struct icm_volume_status s;
	char *key;

	icm_volume_get_status(vol, &s);
	key = icm_xstrdup(s.lease_key);
	icm_volume_status_clear(&s);
	return key;
}

Test(locks, exclude_each_other_and_are_free_afterwards)
{
	struct program p = start(a, "file", 1), q = start(b, "file", 2);

	cr_assert_eq(try_flock(&p, F_WRLCK), 0);
	cr_assert_eq(try_flock(&q, F_WRLCK), -EAGAIN);
	cr_assert_eq(try_flock(&q, F_RDLCK), -EAGAIN);
	cr_assert_eq(try_flock(&p, F_RDLCK), 0);
	cr_assert_eq(try_flock(&q, F_RDLCK), 0);
	cr_assert_eq(try_flock(&q, F_WRLCK), -EAGAIN, "the other one still is shared");
	cr_assert_eq(try_flock(&p, F_WRLCK), 0, "a conversion that failed gave up its lock");
	cr_assert_eq(try_flock(&p, F_UNLCK), 0);
	cr_assert_not(table_exists("file"));
	end(&p);
	end(&q);
}

Test(locks, of_records_by_range)
{
	struct program p = start(a, "file", 1), q = start(b, "file", 2);
	struct flock lk;
	const struct icm_lock_request probe = { .type = F_WRLCK, .end = TO_END, .owner = 2 };

	cr_assert_eq(try_record(&p, F_WRLCK, 0, 99), 0);
	cr_assert_eq(try_record(&q, F_WRLCK, 100, 199), 0);
	cr_assert_eq(try_record(&q, F_RDLCK, 50, 150), -EAGAIN);
	cr_assert_eq(try_record(&p, F_UNLCK, 40, 59), 0);
	cr_assert_eq(try_record(&q, F_WRLCK, 40, 59), 0);
	cr_assert_eq(try_record(&q, F_WRLCK, 39, 39), -EAGAIN);
	cr_assert_eq(try_flock(&q, F_WRLCK), 0, "flock is another space");
	cr_assert_eq(icm_fs_getlk(q.h, &no_call, &probe, &lk), 0);
	cr_assert_eq(lk.l_type, F_WRLCK);
	cr_assert_eq(lk.l_start, 0);
	cr_assert_eq(lk.l_len, 40);
	cr_assert_eq(lk.l_pid, 0, "a process of another mount has no number here");
	cr_assert_eq(icm_fs_getlk(p.h, &no_call, &probe, &lk), 0);
	cr_assert_eq(lk.l_pid, 1001);
	cr_assert_eq(icm_fs_flush(p.h, &no_call, 1), 0);
	cr_assert_eq(icm_fs_getlk(q.h, &no_call, &probe, &lk), 0);
	cr_assert_eq(lk.l_type, F_UNLCK);
	cr_assert_eq(try_record(&q, F_WRLCK, 0, TO_END), 0);
	end(&q);
	cr_assert_eq(try_record(&p, F_WRLCK, 0, TO_END), 0);
	end(&p);
	cr_assert_not(table_exists("file"));
}

Test(locks, cost_a_transaction_each_and_nothing_where_this_mount_knows)
{
	struct program p = start(a, "file", 1), q = start(a, "file", 2);
	uint64_t before;

	before = icm_memory_calls(raw, ICM_CALL_GET | ICM_CALL_LIST | ICM_CALL_TXN);
	cr_assert_eq(try_record(&p, F_WRLCK, 0, 9), 0);
	cr_assert_eq(try_record(&q, F_WRLCK, 0, 9), -EAGAIN);
	cr_assert_eq(try_record(&q, F_UNLCK, 0, 9), 0);
	cr_assert_eq(try_record(&p, F_UNLCK, 0, 9), 0);
	cr_assert_leq(icm_memory_calls(raw, ICM_CALL_GET | ICM_CALL_LIST | ICM_CALL_TXN) - before,
		      4, "2 for the table, and at most one look into the feed");
	end(&p);
	end(&q);
}

Test(locks, are_waited_for_in_order_of_arrival)
{
	struct icm_volume *vols[] = { a, b, c };
	struct program p[13];
	struct parked w[13];

	for (int i = 0; i < 13; i++)
		p[i] = start(vols[i % 3], "file", 100 + (uint64_t)i);
	cr_assert_eq(try_record(&p[0], F_WRLCK, 0, 9), 0);
	for (int i = 1; i < 13; i++)
		cr_assert_eq(wait_record(&p[i], F_WRLCK, 0, 9, &w[i]), -EINPROGRESS);
	for (int i = 1; i < 13; i++) {
		cr_assert_eq(w[i].calls, 0);
		if (i % 2)
			cr_assert_eq(try_record(&p[i - 1], F_UNLCK, 0, 9), 0);
		else
			end(&p[i - 1]);
		cr_assert_eq(answer(&w[i]), 0);
		cr_assert_eq(w[i].order, i);
	}
	for (int i = 0; i < 13; i++)
		if (i % 2 == 0 || i == 12)
			end(&p[i]);
	cr_assert_not(table_exists("file"));
}

Test(locks, a_waiter_sees_what_the_holder_stored)
{
	struct program p = start(a, "file", 1), q = start(b, "file", 2);
	struct parked w;
	char text[8] = "";

	cr_assert_eq(icm_fs_read(q.h, &no_call, text, 7, 0), 1);
	cr_assert_eq(try_flock(&p, F_WRLCK), 0);
	cr_assert_eq(wait_flock(&q, F_WRLCK, &w), -EINPROGRESS);
	cr_assert_eq(icm_fs_write(p.h, &no_call, "new", 3, 0, false), 3);
	cr_assert_eq(try_flock(&p, F_UNLCK), 0);
	cr_assert_eq(answer(&w), 0);
	cr_assert_eq(icm_fs_read(q.h, &no_call, text, 7, 0), 3);
	cr_assert_str_eq(text, "new");
	end(&p);
	end(&q);
}

Test(locks, an_interrupted_waiter_leaves_or_keeps_its_place)
{
	struct program p = start(a, "file", 1), q = start(b, "file", 2), r = start(c, "file", 3);
	struct parked w, x;

	cr_assert_eq(try_flock(&p, F_WRLCK), 0);
	cr_assert_eq(wait_flock(&q, F_WRLCK, &w), -EINPROGRESS);
	cr_assert_eq(wait_flock(&r, F_WRLCK, &x), -EINPROGRESS);
	cr_assert(cancel(&q, &w));
	cr_assert_not(cancel(&q, &w));
	/* a signal handler that restarts the call */
	cr_assert_eq(wait_flock(&q, F_WRLCK, &w), -EINPROGRESS);
	cr_assert_eq(try_flock(&p, F_UNLCK), 0);
	cr_assert_eq(answer(&w), 0);
	cr_assert_eq(x.calls, 0, "the place was kept");
	cr_assert_eq(try_flock(&q, F_UNLCK), 0);
	cr_assert_eq(answer(&x), 0);
	/* and one that doesn't */
	cr_assert_eq(wait_flock(&q, F_WRLCK, &w), -EINPROGRESS);
	cr_assert(cancel(&q, &w));
	cr_assert_eq(try_flock(&r, F_UNLCK), 0);
	WAIT_FOR(try_flock(&p, F_WRLCK) == 0);
	WAIT_FOR(waiting("file") == 0);
	cr_assert_eq(w.calls, 0);
	end(&p);
	end(&q);
	end(&r);
}

Test(locks, of_a_dead_mount_are_free_when_its_lease_is)
{
	struct program p = start(a, "file", 1), q = start(b, "file", 2), r = start(c, "file", 3);
	ICM_AUTOFREE char *lease = lease_of(a);
	struct parked w;

	cr_assert_eq(try_flock(&p, F_WRLCK), 0);
	cr_assert_eq(wait_flock(&q, F_WRLCK, &w), -EINPROGRESS);
	cr_assert_eq(icm_memory_expire_lease(raw, lease), 0);
	cr_assert_eq(answer(&w), 0);
	cr_assert_eq(try_flock(&q, F_UNLCK), 0);
	WAIT_FOR(icm_fs_write(p.h, &no_call, "x", 1, 0, false) == -EIO);
	end(&p);
	/* nobody waited: whoever comes finds it */
	p = start(a, "file", 1);
	cr_assert_eq(try_flock(&p, F_WRLCK), 0);
	free(ICM_STEAL(&lease));
	lease = lease_of(a);
	cr_assert_eq(icm_memory_expire_lease(raw, lease), 0);
	cr_assert_eq(try_flock(&r, F_WRLCK), 0);
	end(&r);
	end(&q);
	WAIT_FOR(icm_fs_write(p.h, &no_call, "x", 1, 0, false) == -EIO);
	end(&p);
}

Test(locks, end_with_the_mount)
{
	struct icm_volume *d = mount_store(store);
	struct program p = start(d, "file", 1), q = start(b, "file", 2);
	struct parked w;

	cr_assert_eq(try_flock(&p, F_WRLCK), 0);
	cr_assert_eq(wait_flock(&q, F_WRLCK, &w), -EINPROGRESS);
	icm_volume_stop(d); /* with the file open, as SIGTERM does */
	cr_assert_eq(answer(&w), 0);
	close_path(p.view, p.h);
	icm_volume_free(d);
	end(&q);
}

Test(locks, of_two_who_want_more_the_later_is_told)
{
	struct program p = start(a, "file", 1), q = start(b, "file", 2);
	struct parked w, x;

	cr_assert_eq(try_record(&p, F_RDLCK, 0, 9), 0);
	cr_assert_eq(try_record(&q, F_RDLCK, 0, 9), 0);
	cr_assert_eq(wait_record(&p, F_WRLCK, 0, 9, &w), -EINPROGRESS);
	cr_assert_eq(wait_record(&q, F_WRLCK, 0, 9, &x), -EDEADLK);
	cr_assert_eq(w.calls, 0);
	cr_assert_eq(try_record(&q, F_UNLCK, 0, 9), 0);
	cr_assert_eq(answer(&w), 0);
	end(&p);
	end(&q);
}

Test(locks, circles_over_files_are_found_within_a_mount)
{
	struct program p[2], q[2];
	struct parked w, x;

	cr_assert_eq(save(a, "other", O_TRUNC, "0"), 0);
	for (int i = 0; i < 2; i++) {
		p[i] = start(a, i ? "other" : "file", 1);
		q[i] = start(a, i ? "other" : "file", 2);
	}
	cr_assert_eq(try_record(&p[0], F_WRLCK, 0, 0), 0);
	cr_assert_eq(try_record(&q[1], F_WRLCK, 0, 0), 0);
	cr_assert_eq(wait_record(&p[1], F_WRLCK, 0, 0, &w), -EINPROGRESS);
	/* an interrupted one waits for nobody */
	cr_assert(cancel(&p[1], &w));
	cr_assert_eq(wait_record(&q[0], F_WRLCK, 0, 0, &x), -EINPROGRESS);
	cr_assert_eq(wait_record(&p[1], F_WRLCK, 0, 0, &w), -EDEADLK);
	end(&p[0]);
	cr_assert_eq(answer(&x), 0);
	end(&p[1]);
	end(&q[0]);
	end(&q[1]);
}

/* Two programs that start from nothing: with O_CREAT each mount has a file of its
 * own until the first lock, but there is one lock. */
Test(locks, of_a_file_that_two_mounts_make_at_once)
{
	struct program p = { .vol = a, .owner = 1 }, q = { .vol = b, .owner = 2 };
	struct parked w;

	cr_assert_eq(open_path(a, "new", O_RDWR | O_CREAT, &p.view, &p.h), 0);
	cr_assert_eq(open_path(b, "new", O_RDWR | O_CREAT, &q.view, &q.h), 0);
	cr_assert_eq(try_flock(&p, F_WRLCK), 0);
	cr_assert_eq(try_flock(&q, F_WRLCK), -EAGAIN);
	cr_assert_eq(wait_flock(&q, F_WRLCK, &w), -EINPROGRESS);
	cr_assert_eq(icm_fs_write(p.h, &no_call, "p", 1, 0, false), 1);
	cr_assert_eq(try_flock(&p, F_UNLCK), 0);
	cr_assert_eq(answer(&w), 0);
	cr_assert_eq(icm_fs_write(q.h, &no_call, "q", 1, 0, false), -ESTALE);
	cr_assert_eq(try_flock(&p, F_RDLCK), -EAGAIN);
	close_path(q.view, q.h);
	cr_assert_eq(try_flock(&p, F_RDLCK), 0);
	cr_assert(has_contents(b, "new", "p"));
	end(&p);
}

/* ---- faults ---- */

Test(locks, a_damaged_table_grants_nothing)
{
	struct program p = start(a, "file", 1);
	const struct icm_lock_request probe = { .type = F_WRLCK, .end = TO_END, .owner = 2 };
	struct icm_txn_result res;
	struct parked w;
	struct flock lk;
	struct stat st;
	char key[64];

	cr_assert_eq(stat_path(a, "file", &st), 0);
	snprintf(key, sizeof(key), "lock/%llu", (unsigned long long)st.st_ino);
	cr_assert_eq(icm_backend_txn(raw, NULL, &(struct icm_op){ ICM_OP_SET, key, "x", 1, 0, 0 },
				     1, &res),
		     0);
	icm_txn_result_clear(&res);
	cr_assert_eq(try_record(&p, F_WRLCK, 0, 9), -ENOLCK);
	cr_assert_eq(wait_record(&p, F_WRLCK, 0, 9, &w), -ENOLCK);
	cr_assert_eq(icm_fs_getlk(p.h, &no_call, &probe, &lk), -ENOLCK);
	cr_assert_eq(
		icm_backend_txn(raw, NULL, &(struct icm_op){ ICM_OP_DELETE, .key = key }, 1, &res),
		0);
	icm_txn_result_clear(&res);
	cr_assert_eq(try_record(&p, F_WRLCK, 0, 9), 0);
	end(&p);
}

/* The flock is unlocked, the record lock still hangs on the lease. */
Test(locks, of_one_open_file_are_lost_together)
{
	struct program p = start(a, "file", 1);
	ICM_AUTOFREE char *lease = lease_of(a);

	cr_assert_eq(try_record(&p, F_WRLCK, 5, 9), 0);
	cr_assert_eq(try_flock(&p, F_WRLCK), 0);
	cr_assert_eq(try_flock(&p, F_UNLCK), 0);
	cr_assert_eq(icm_memory_expire_lease(raw, lease), 0);
	WAIT_FOR(icm_fs_write(p.h, &no_call, "x", 1, 0, false) == -EIO);
	end(&p);
}

struct lost {
	atomic_int left; /* writes of lock tables whose answers are still to be lost */
	atomic_int skip; /* such writes that go well before */
	enum icm_fault how;
};

static struct icm_memory_fault lose_answers(uint64_t call, enum icm_memory_call kind,
					    const struct icm_op *ops, size_t n_ops, void *userdata)
{
	struct lost *l = userdata;

	for (size_t i = 0; i < n_ops; i++)
		if (strncmp(ops[i].key, "lock/", 5) == 0 &&
		    (ops[i].type == ICM_OP_CAS || ops[i].type == ICM_OP_DELETE_CAS)) {
			if (atomic_fetch_sub(&l->skip, 1) > 0)
				break;
			if (atomic_fetch_sub(&l->left, 1) > 0)
				return (struct icm_memory_fault){ l->how, -ETIMEDOUT,
								  20 * 1000 * 1000 };
			break;
		}
	return (struct icm_memory_fault){ 0 };
}

static void with_lost_answers(enum icm_fault how)
{
	for (int skip = 0; skip < 6; skip++) {
		struct lost lost = { .left = 1, .skip = skip, .how = how };
		struct program p = start(a, "file", 1), q = start(b, "file", 2);
		struct parked w;

		icm_memory_set_fault(raw, lose_answers, &lost);
		cr_assert_eq(try_record(&p, F_RDLCK, 0, 9), 0);
		cr_assert_eq(try_record(&p, F_WRLCK, 0, 9), 0);
		cr_assert_eq(wait_record(&q, F_WRLCK, 5, 9, &w), -EINPROGRESS);
		cr_assert_eq(try_record(&p, F_UNLCK, 5, 7), 0);
		cr_assert_eq(w.calls, 0);
		cr_assert_eq(try_record(&p, F_UNLCK, 0, 9), 0);
		cr_assert_eq(answer(&w), 0);
		cr_assert_eq(try_record(&p, F_RDLCK, 0, 9), -EAGAIN);
		end(&q);
		cr_assert_eq(try_record(&p, F_WRLCK, 0, 9), 0);
		end(&p);
		icm_memory_settle(raw);
		icm_memory_set_fault(raw, NULL, NULL);
		WAIT_FOR(!table_exists("file"));
	}
}

Test(locks, survive_lost_answers)
{
	with_lost_answers(ICM_FAULT_FAIL_AFTER);
}

Test(locks, survive_writes_that_come_late)
{
	with_lost_answers(ICM_FAULT_LATE);
}

static struct icm_memory_fault cut_off(uint64_t call, enum icm_memory_call kind,
				       const struct icm_op *ops, size_t n_ops, void *userdata)
{
	return (struct icm_memory_fault){ .fault = ICM_FAULT_FAIL, .error = -EHOSTUNREACH };
}

/* A mount that can't reach the store hears nothing, and loses its locks by its own
 * clock before anybody else gets them. */
Test(locks, of_a_mount_that_is_cut_off)
{
	struct program p = start(a, "file", 1), q = start(b, "file", 2);
	struct parked w;

	cr_assert_eq(try_flock(&p, F_WRLCK), 0);
	cr_assert_eq(wait_flock(&q, F_WRLCK, &w), -EINPROGRESS);
	icm_memory_set_instance_fault(icm_volume_backend(a), cut_off, NULL);
	cr_assert_eq(answer(&w), 0);
	cr_assert_eq(icm_fs_write(p.h, &no_call, "late", 4, 0, false), -EIO);
	cr_assert_eq(icm_fs_write(q.h, &no_call, "good", 4, 0, false), 4);
	cr_assert_eq(try_flock(&q, F_UNLCK), 0);
	icm_memory_set_instance_fault(icm_volume_backend(a), NULL, NULL);
	end(&p);
	p = start(a, "file", 1);
	cr_assert_eq(try_flock(&p, F_WRLCK), 0, "a new open file has no lost locks");
	cr_assert(has_contents(a, "file", "good"));
	end(&p);
	end(&q);
}

Test(locks, a_release_that_fails_is_made_up_for)
{
	struct icm_volume *d = mount_with(
		(struct icm_volume_config){ .url = store, .create = true, .timeout_ms = 300 });
	struct program p = start(d, "file", 1), q = start(b, "file", 2);

	cr_assert_eq(try_record(&p, F_WRLCK, 0, 9), 0);
	icm_memory_set_instance_fault(icm_volume_backend(d), cut_off, NULL);
	icm_fs_flush(p.h, &no_call, 1);
	icm_memory_set_instance_fault(icm_volume_backend(d), NULL, NULL);
	WAIT_FOR(try_record(&q, F_WRLCK, 0, 9) == 0);
	close_path(p.view, p.h);
	end(&q);
	unmount(d);
}
