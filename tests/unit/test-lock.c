/* SPDX-License-Identifier: MIT
 * The lock table: single rules by example, and all of them together against a
 * model that is a type per byte and owner. */
#include <criterion/criterion.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "core/lock.h"
#include "util/attrs.h"
#include "util/buf.h"
#include "util/digest.h"

#define TO_END (UINT64_MAX >> 1)

/* A request that was parked, and what became of it. */
struct parked {
	struct icm_lock_wait *wait;
	int calls;
	int result;
	int order; /* of the callback among all */
};

static int n_done;

static void on_done(void *userdata, int result)
{
	struct parked *p = userdata;

	p->calls++;
	p->result = result;
	p->order = ++n_done;
}

static struct icm_lock_set *set;
static struct icm_lock_table *table;

static void setup(void)
{
	n_done = 0;
	set = icm_lock_set_new();
	table = icm_lock_table_new(set);
}

static void teardown(void)
{
	table = icm_lock_table_free(table);
	set = icm_lock_set_free(set);
}

TestSuite(lock, .init = setup, .fini = teardown);

static struct icm_lock_request record(uint64_t owner, int type, uint64_t start, uint64_t end)
{
	return (struct icm_lock_request){
		.type = type,
		.start = start,
		.end = end,
		.owner = owner,
		.pid = (pid_t)(1000 + owner),
	};
}

static int set_record(uint64_t owner, int type, uint64_t start, uint64_t end)
{
	struct icm_lock_request req = record(owner, type, start, end);

	return icm_lock_table_set(table, owner, &req, on_done, NULL, NULL);
}

static int wait_record_in(struct icm_lock_table *t, struct parked *p, uint64_t owner, int type,
			  uint64_t start, uint64_t end)
{
	struct icm_lock_request req = record(owner, type, start, end);

	memset(p, 0, sizeof(*p));
	req.wait = true;
	return icm_lock_table_set(t, owner, &req, on_done, p, &p->wait);
}

static int wait_record(struct parked *p, uint64_t owner, int type, uint64_t start, uint64_t end)
{
	return wait_record_in(table, p, owner, type, start, end);
}

static int set_flock(uint64_t handle, int type, struct parked *p)
{
	struct icm_lock_request req = {
		.flock = true,
		.type = type,
		.owner = 7,
		.pid = (pid_t)(2000 + handle),
		.wait = p,
	};

	if (p)
		memset(p, 0, sizeof(*p));
	return icm_lock_table_set(table, handle, &req, on_done, p, p ? &p->wait : NULL);
}

static void describe(void *userdata, const struct icm_lock_info *info)
{
	struct icm_buf *b = userdata;

	icm_buf_addf(b, "%s%s%c%d:%llu-", b->len ? " " : "", info->waiting ? "?" : "",
		     info->type == F_WRLCK ? 'W' : 'R', (int)info->pid % 1000,
		     (unsigned long long)info->start);
	if (info->end == TO_END)
		icm_buf_addstr(b, "end");
	else
		icm_buf_addf(b, "%llu", (unsigned long long)info->end);
}

static int compare_words(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* Locks and waiters as sorted words: "W1:0-9 ?R2:5-end". */
#define cr_assert_table(expected)                                                                  \
	do {                                                                                       \
		char *got = table_words();                                                         \
		cr_assert_str_eq(got, expected, "%s", got);                                        \
		free(got);                                                                         \
	} while (0)

static char *table_words(void)
{
	ICM_AUTOBUF struct icm_buf b = ICM_BUF_INIT(0);
	struct icm_buf sorted = ICM_BUF_INIT(0);
	char *words[64];
	size_t n = 0;
	char *save;

	icm_lock_table_list(table, describe, &b);
	if (!b.len)
		return icm_xstrdup("");
	for (char *w = strtok_r(b.data, " ", &save); w; w = strtok_r(NULL, " ", &save))
		words[n++] = w;
	qsort(words, n, sizeof(*words), compare_words);
	for (size_t i = 0; i < n; i++)
		icm_buf_addf(&sorted, "%s%s", i ? " " : "", words[i]);
	return icm_buf_steal(&sorted, NULL);
}

/* ---- ranges ---- */

Test(lock, unlocking_the_middle_splits)
{
	cr_assert_eq(set_record(1, F_WRLCK, 0, 9), 0);
	cr_assert_eq(set_record(1, F_UNLCK, 3, 5), 0);
	cr_assert_table("W1:0-2 W1:6-9");
	icm_lock_table_revoke(table, -EIO);
}

Test(lock, neighbours_of_one_kind_merge)
{
	cr_assert_eq(set_record(1, F_RDLCK, 0, 2), 0);
	cr_assert_eq(set_record(1, F_RDLCK, 6, 9), 0);
	cr_assert_eq(set_record(1, F_RDLCK, 3, 5), 0);
	cr_assert_table("R1:0-9");
	cr_assert_eq(set_record(1, F_WRLCK, 9, TO_END), 0);
	cr_assert_table("R1:0-8 W1:9-end");
	icm_lock_table_revoke(table, -EIO);
}

Test(lock, a_change_of_type_inside_makes_three)
{
	cr_assert_eq(set_record(1, F_WRLCK, 0, 9), 0);
	cr_assert_eq(set_record(1, F_RDLCK, 4, 5), 0);
	cr_assert_table("R1:4-5 W1:0-3 W1:6-9");
	cr_assert_eq(set_record(2, F_RDLCK, 4, 5), 0);
	cr_assert_eq(set_record(2, F_RDLCK, 4, 6), -EAGAIN);
	icm_lock_table_revoke(table, -EIO);
}

Test(lock, all_pairs_of_ranges_of_one_owner)
{
	/* Every first lock, every second one or unlock, over the bytes 0 to 5. */
	const int types[] = { F_RDLCK, F_WRLCK, F_UNLCK };

	for (unsigned i = 0; i < 6 * 6 * 6 * 6 * 2 * 3; i++) {
		unsigned a = i % 6, b = i / 6 % 6, c = i / 36 % 6, d = i / 216 % 6;
		int first = types[i / 1296 % 2], second = types[i / 2592];
		struct flock lk;

		if (a > b || c > d)
			continue;
		cr_assert_eq(set_record(1, first, a, b), 0);
		cr_assert_eq(set_record(1, second, c, d), 0);
		for (unsigned at = 0; at < 6; at++) {
			int expected = at >= c && at <= d   ? second
				       : at >= a && at <= b ? first
							    : F_UNLCK;
			struct icm_lock_request probe = record(2, F_WRLCK, at, at);

			icm_lock_table_get(table, 2, &probe, &lk);
			cr_assert_eq(lk.l_type, expected, "%u-%u then %u-%u", a, b, c, d);
		}
		icm_lock_table_flush(table, 1);
		cr_assert(icm_lock_table_empty(table));
	}
}

Test(lock, bad_requests_are_refused)
{
	cr_assert_eq(set_record(1, F_RDLCK, 2, 1), -EINVAL);
	cr_assert_eq(set_record(1, 17, 0, 1), -EINVAL);
	cr_assert(icm_lock_table_empty(table));
}

Test(lock, getlk_tells_the_first_lock_in_the_way)
{
	struct icm_lock_request probe = record(3, F_RDLCK, 0, UINT64_MAX);
	struct flock lk;

	cr_assert_eq(set_record(2, F_WRLCK, 20, UINT64_MAX), 0);
	cr_assert_eq(set_record(1, F_WRLCK, 5, 6), 0);
	cr_assert_eq(set_record(1, F_RDLCK, 0, 1), 0);
	icm_lock_table_get(table, 3, &probe, &lk);
	cr_assert_eq(lk.l_type, F_WRLCK);
	cr_assert_eq(lk.l_start, 5);
	cr_assert_eq(lk.l_len, 2);
	cr_assert_eq(lk.l_pid, 1001);
	probe.start = 7;
	icm_lock_table_get(table, 3, &probe, &lk);
	cr_assert_eq(lk.l_start, 20);
	cr_assert_eq(lk.l_len, 0);
	probe.end = 19;
	icm_lock_table_get(table, 3, &probe, &lk);
	cr_assert_eq(lk.l_type, F_UNLCK);
	icm_lock_table_revoke(table, -EIO);
}

/* ---- what ends a lock ---- */

Test(lock, flush_ends_the_locks_of_an_owner_through_any_handle)
{
	struct icm_lock_request req = record(1, F_WRLCK, 0, 1);

	cr_assert_eq(icm_lock_table_set(table, 50, &req, on_done, NULL, NULL), 0);
	req.start = req.end = 5;
	cr_assert_eq(icm_lock_table_set(table, 51, &req, on_done, NULL, NULL), 0);
	cr_assert_eq(set_flock(50, F_WRLCK, NULL), 0);
	cr_assert(icm_lock_table_has_owner(table, 1));
	cr_assert(icm_lock_table_flush(table, 1));
	cr_assert_not(icm_lock_table_flush(table, 1));
	cr_assert_not(icm_lock_table_has_owner(table, 1));
	cr_assert_table("W50:0-end");
	icm_lock_table_release(table, 50);
	cr_assert(icm_lock_table_empty(table));
}

Test(lock, release_spares_the_lock_of_a_later_file_with_the_same_owner)
{
	/* Linux uses owner numbers again at once; RELEASE comes late. */
	struct icm_lock_request req = record(1, F_WRLCK, 0, 9);

	cr_assert_eq(icm_lock_table_set(table, 50, &req, on_done, NULL, NULL), 0);
	req.start = 5;
	req.end = 14;
	cr_assert_eq(icm_lock_table_set(table, 51, &req, on_done, NULL, NULL), 0);
	cr_assert_table("W1:0-4 W1:5-14");
	icm_lock_table_release(table, 50);
	cr_assert_table("W1:5-14");
	icm_lock_table_release(table, 51);
}

Test(lock, revoke_fails_waiters_and_ends_locks)
{
	struct parked p;

	cr_assert_eq(set_record(1, F_WRLCK, 0, 9), 0);
	cr_assert_eq(set_flock(1, F_WRLCK, NULL), 0);
	cr_assert_eq(wait_record(&p, 2, F_RDLCK, 0, 9), -EINPROGRESS);
	cr_assert_not(icm_lock_table_empty(table));
	icm_lock_table_revoke(table, -EIO);
	cr_assert_eq(p.calls, 1);
	cr_assert_eq(p.result, -EIO);
	cr_assert(icm_lock_table_empty(table));
	cr_assert_not(icm_lock_cancel(set, p.wait));
}

Test(lock, waiters_of_a_released_handle_fail)
{
	struct parked p;

	cr_assert_eq(set_record(1, F_WRLCK, 0, 9), 0);
	cr_assert_eq(wait_record(&p, 2, F_RDLCK, 0, 9), -EINPROGRESS);
	icm_lock_table_release(table, 2);
	cr_assert_eq(p.result, -EBADF);
	icm_lock_table_release(table, 1);
}

/* ---- flock ---- */

Test(lock, flock_and_records_do_not_meet)
{
	cr_assert_eq(set_record(1, F_WRLCK, 0, TO_END), 0);
	cr_assert_eq(set_flock(2, F_WRLCK, NULL), 0);
	cr_assert_eq(set_flock(3, F_RDLCK, NULL), -EAGAIN);
	icm_lock_table_revoke(table, -EIO);
}

Test(lock, flock_conversion_without_others_is_done_at_once)
{
	struct parked p;

	cr_assert_eq(set_flock(1, F_RDLCK, NULL), 0);
	cr_assert_eq(set_flock(1, F_WRLCK, NULL), 0);
	cr_assert_table("W1:0-end");
	cr_assert_eq(set_flock(2, F_RDLCK, &p), -EINPROGRESS);
	cr_assert_eq(set_flock(1, F_RDLCK, NULL), 0);
	cr_assert_eq(p.calls, 1);
	cr_assert_table("R1:0-end R2:0-end");
	icm_lock_table_revoke(table, -EIO);
}

Test(lock, flock_conversion_that_waits_gives_up_the_old_lock)
{
	struct parked a, b;

	cr_assert_eq(set_flock(1, F_RDLCK, NULL), 0);
	cr_assert_eq(set_flock(2, F_RDLCK, NULL), 0);
	cr_assert_eq(set_flock(1, F_WRLCK, &a), -EINPROGRESS);
	cr_assert_table("?W1:0-end R2:0-end");
	/* The second one converts without waiting for the first: no deadlock. */
	cr_assert_eq(set_flock(2, F_WRLCK, &b), 0);
	cr_assert_eq(set_flock(2, F_UNLCK, NULL), 0);
	cr_assert_eq(a.calls, 1);
	cr_assert_table("W1:0-end");
	icm_lock_table_release(table, 1);
}

Test(lock, failed_flock_conversion_loses_the_lock)
{
	cr_assert_eq(set_flock(1, F_RDLCK, NULL), 0);
	cr_assert_eq(set_flock(2, F_RDLCK, NULL), 0);
	cr_assert_eq(set_flock(1, F_WRLCK, NULL), -EAGAIN);
	cr_assert_table("R2:0-end");
	cr_assert_eq(set_flock(2, F_WRLCK, NULL), 0);
	icm_lock_table_release(table, 2);
}

/* ---- waiting ---- */

Test(lock, waiters_are_served_in_order_of_arrival)
{
	struct parked p[6];
	const int types[6] = { F_RDLCK, F_WRLCK, F_RDLCK, F_RDLCK, F_WRLCK, F_RDLCK };

	cr_assert_eq(set_flock(100, F_WRLCK, NULL), 0);
	for (unsigned i = 0; i < 6; i++)
		cr_assert_eq(set_flock(i, types[i], &p[i]), -EINPROGRESS);
	set_flock(100, F_UNLCK, NULL);
	cr_assert_table("?R2:0-end ?R3:0-end ?R5:0-end ?W1:0-end ?W4:0-end R0:0-end");
	set_flock(0, F_UNLCK, NULL);
	cr_assert_table("?R2:0-end ?R3:0-end ?R5:0-end ?W4:0-end W1:0-end");
	set_flock(1, F_UNLCK, NULL);
	cr_assert_table("?R5:0-end ?W4:0-end R2:0-end R3:0-end");
	set_flock(3, F_UNLCK, NULL);
	set_flock(2, F_UNLCK, NULL);
	set_flock(4, F_UNLCK, NULL);
	for (int i = 0; i < 6; i++)
		cr_assert(p[i].calls == 1 && p[i].result == 0 && p[i].order == i + 1, "%d", i);
	icm_lock_table_release(table, 5);
}

Test(lock, waiters_of_other_ranges_pass)
{
	struct parked a, b;

	cr_assert_eq(set_record(1, F_WRLCK, 0, 9), 0);
	cr_assert_eq(set_record(1, F_WRLCK, 20, 29), 0);
	cr_assert_eq(wait_record(&a, 2, F_WRLCK, 0, 15), -EINPROGRESS);
	cr_assert_eq(wait_record(&b, 3, F_WRLCK, 16, 29), -EINPROGRESS);
	cr_assert_eq(set_record(1, F_UNLCK, 20, 29), 0);
	cr_assert_table("?W2:0-15 W1:0-9 W3:16-29");
	icm_lock_table_flush(table, 1);
	cr_assert_eq(a.result + a.calls, 1);
	icm_lock_table_revoke(table, -EIO);
}

Test(lock, cancelled_waiter_gets_its_place_back)
{
	struct parked a, b, again;

	cr_assert_eq(set_record(1, F_WRLCK, 0, 9), 0);
	cr_assert_eq(wait_record(&a, 2, F_WRLCK, 0, 9), -EINPROGRESS);
	cr_assert_eq(wait_record(&b, 3, F_WRLCK, 0, 9), -EINPROGRESS);
	cr_assert(icm_lock_cancel(set, a.wait));
	cr_assert_not(icm_lock_cancel(set, a.wait));
	cr_assert_eq(wait_record(&again, 2, F_WRLCK, 0, 9), -EINPROGRESS);
	icm_lock_table_flush(table, 1);
	cr_assert_eq(a.calls, 0);
	cr_assert_eq(again.calls, 1);
	cr_assert_eq(b.calls, 0);
	icm_lock_table_flush(table, 2);
	cr_assert_eq(b.calls, 1);
	icm_lock_table_flush(table, 3);
}

Test(lock, a_kept_place_blocks_nobody_and_passes)
{
	struct parked a, b, c, again;

	cr_assert_eq(set_record(1, F_WRLCK, 0, 9), 0);
	cr_assert_eq(wait_record(&a, 2, F_WRLCK, 0, 9), -EINPROGRESS);
	cr_assert_eq(wait_record(&b, 3, F_WRLCK, 0, 9), -EINPROGRESS);
	cr_assert_eq(wait_record(&c, 4, F_WRLCK, 0, 9), -EINPROGRESS);
	cr_assert(icm_lock_cancel(set, a.wait));
	icm_lock_table_flush(table, 1);
	cr_assert_eq(b.calls, 1);
	usleep(2100000);
	cr_assert_eq(wait_record(&again, 2, F_WRLCK, 0, 9), -EINPROGRESS);
	icm_lock_table_flush(table, 3);
	cr_assert_eq(c.calls, 1);
	cr_assert_eq(again.calls, 0);
	icm_lock_table_revoke(table, -EIO);
}

Test(lock, cancelling_lets_those_behind_go_on)
{
	struct parked a, b;

	cr_assert_eq(set_flock(1, F_RDLCK, NULL), 0);
	cr_assert_eq(set_flock(9, F_WRLCK, &a), -EINPROGRESS);
	/* A new reader meets no lock in its way; one that waited stays in line. */
	cr_assert_eq(set_flock(2, F_RDLCK, &b), 0);
	cr_assert(icm_lock_cancel(set, a.wait));
	cr_assert_table("R1:0-end R2:0-end");
	icm_lock_table_revoke(table, -EIO);
}

Test(lock, upgrade_keeps_the_old_lock_while_it_waits)
{
	struct parked p;

	cr_assert_eq(set_record(1, F_RDLCK, 0, 9), 0);
	cr_assert_eq(set_record(2, F_RDLCK, 0, 9), 0);
	cr_assert_eq(wait_record(&p, 1, F_WRLCK, 0, 9), -EINPROGRESS);
	cr_assert_eq(set_record(3, F_WRLCK, 0, 9), -EAGAIN);
	cr_assert_table("?W1:0-9 R1:0-9 R2:0-9");
	icm_lock_table_flush(table, 2);
	cr_assert_eq(p.calls, 1);
	cr_assert_table("W1:0-9");
	icm_lock_table_flush(table, 1);
}

/* ---- deadlocks ---- */

Test(lock, two_who_upgrade_would_wait_for_ever)
{
	struct parked p, q;

	cr_assert_eq(set_record(1, F_RDLCK, 0, 9), 0);
	cr_assert_eq(set_record(2, F_RDLCK, 0, 9), 0);
	cr_assert_eq(wait_record(&p, 1, F_WRLCK, 0, 9), -EINPROGRESS);
	cr_assert_eq(wait_record(&q, 2, F_WRLCK, 0, 9), -EDEADLK);
	icm_lock_table_flush(table, 2);
	cr_assert_eq(p.calls, 1);
	icm_lock_table_flush(table, 1);
}

Test(lock, circle_over_three_files_is_found)
{
	struct icm_lock_table *t[3];
	struct parked p[3];

	for (unsigned i = 0; i < 3; i++) {
		struct icm_lock_request req = record(i + 1, F_WRLCK, 0, 0);

		t[i] = icm_lock_table_new(set);
		cr_assert_eq(icm_lock_table_set(t[i], 1, &req, on_done, NULL, NULL), 0);
	}
	cr_assert_eq(wait_record_in(t[1], &p[0], 1, F_WRLCK, 0, 0), -EINPROGRESS);
	cr_assert_eq(wait_record_in(t[2], &p[1], 2, F_WRLCK, 0, 0), -EINPROGRESS);
	cr_assert_eq(wait_record_in(t[0], &p[2], 3, F_WRLCK, 0, 0), -EDEADLK);
	icm_lock_table_flush(t[2], 3);
	cr_assert_eq(p[1].calls, 1);
	for (unsigned i = 0; i < 3; i++) {
		icm_lock_table_revoke(t[i], -EIO);
		icm_lock_table_free(t[i]);
	}
}

Test(lock, the_queue_alone_makes_no_deadlock)
{
	/* 1 holds x; 2 waits for x with 3 behind it, who holds y; 1 wants y.
	 * Without a queue 3 would have had its read lock beside 1's. */
	struct icm_lock_table *y = icm_lock_table_new(set);
	struct icm_lock_request req = record(3, F_WRLCK, 0, 0);
	struct parked two, three, one;

	cr_assert_eq(icm_lock_table_set(y, 3, &req, on_done, NULL, NULL), 0);
	cr_assert_eq(set_record(1, F_WRLCK, 0, 9), 0);
	cr_assert_eq(wait_record(&two, 2, F_WRLCK, 0, 9), -EINPROGRESS);
	cr_assert_eq(wait_record(&three, 3, F_RDLCK, 0, 9), -EINPROGRESS);
	cr_assert_eq(set_record(1, F_RDLCK, 0, 9), 0);
	cr_assert_eq(three.calls, 0);
	cr_assert_eq(wait_record_in(y, &one, 1, F_WRLCK, 0, 0), -EINPROGRESS);
	cr_assert_eq(three.calls, 1);
	cr_assert_eq(two.calls + one.calls, 0);
	icm_lock_table_revoke(table, -EIO);
	icm_lock_table_revoke(y, -EIO);
	icm_lock_table_free(y);
}

/* ---- everything at once, against a model ---- */

#define BYTES	 32
#define OWNERS	 5
#define HANDLES	 (2 * OWNERS) /* two of each owner */
#define TABLES	 2
#define STEPS	 200000
#define MAX_WAIT OWNERS

struct cell {
	int type; /* F_UNLCK: nothing */
	unsigned handle;
};

struct model_wait {
	bool used;
	unsigned t, owner, handle;
	struct icm_lock_request req;
	uint64_t place;
	struct parked *parked;
};

struct model {
	struct cell cells[TABLES][OWNERS][BYTES];
	int flocks[TABLES][HANDLES];
	struct model_wait waits[OWNERS]; /* an owner is one thread: waits for one thing */
	uint64_t last_place;
	struct icm_lock_table *tables[TABLES];
	struct parked parked[OWNERS];
	int granted[OWNERS]; /* what the model says: 0, 1, or an error */
};

static bool excl(int a, int b)
{
	return a == F_WRLCK || b == F_WRLCK;
}

/* The owners whose locks are in the way of a request, as bits; flock: any bit. */
static unsigned model_holders(const struct model *m, unsigned t, unsigned owner, unsigned handle,
			      const struct icm_lock_request *req)
{
	unsigned bits = 0;

	if (req->flock) {
		for (unsigned h = 0; h < HANDLES; h++)
			if (h != handle && m->flocks[t][h] != F_UNLCK &&
			    excl(m->flocks[t][h], req->type))
				bits |= 1U << h / 2;
		return bits;
	}
	for (unsigned o = 0; o < OWNERS; o++)
		for (unsigned i = (unsigned)req->start; o != owner && i <= req->end; i++)
			if (m->cells[t][o][i].type != F_UNLCK &&
			    excl(m->cells[t][o][i].type, req->type))
				bits |= 1U << o;
	return bits;
}

static bool model_waits_conflict(const struct model_wait *a, const struct model_wait *b)
{
	return a->used && b->used && a->t == b->t && a->req.flock == b->req.flock &&
	       excl(a->req.type, b->req.type) &&
	       (a->req.flock || (a->req.start <= b->req.end && b->req.start <= a->req.end)) &&
	       (a->req.flock ? a->handle != b->handle : a->owner != b->owner);
}

static unsigned model_ahead(const struct model *m, const struct model_wait *w)
{
	unsigned bits = 0;

	for (unsigned o = 0; o < OWNERS; o++)
		if (m->waits[o].place < w->place && model_waits_conflict(&m->waits[o], w))
			bits |= 1U << o;
	return bits;
}

/* Everyone that waiter w waits for, over any number of others; records only. */
static unsigned model_reach(const struct model *m, const struct model_wait *w, bool queue)
{
	unsigned reached = 0, todo;

	todo = model_holders(m, w->t, w->owner, w->handle, &w->req) |
	       (queue ? model_ahead(m, w) : 0);
	while (todo & ~reached) {
		reached |= todo;
		for (unsigned o = 0; o < OWNERS; o++) {
			const struct model_wait *n = &m->waits[o];

			if (!(reached & 1U << o) || !n->used || n->req.flock)
				continue;
			todo |= model_holders(m, n->t, n->owner, n->handle, &n->req) |
				(queue ? model_ahead(m, n) : 0);
		}
	}
	return reached;
}

static bool model_owns(const struct model *m, unsigned owner)
{
	for (unsigned t = 0; t < TABLES; t++)
		for (unsigned i = 0; i < BYTES; i++)
			if (m->cells[t][owner][i].type != F_UNLCK)
				return true;
	return false;
}

static void model_apply(struct model *m, unsigned t, unsigned owner, unsigned handle,
			const struct icm_lock_request *req)
{
	if (req->flock) {
		m->flocks[t][handle] = req->type;
		return;
	}
	for (unsigned i = (unsigned)req->start; i <= req->end; i++)
		m->cells[t][owner][i] = (struct cell){ req->type, handle };
}

static bool model_is_behind(const struct model *m, const struct model_wait *w)
{
	unsigned ahead = model_ahead(m, w);

	for (unsigned o = 0; o < OWNERS; o++) {
		if (!(ahead & 1U << o))
			continue;
		if (w->req.flock || !model_owns(m, w->owner) ||
		    !(model_reach(m, &m->waits[o], true) & 1U << w->owner))
			return true;
	}
	return false;
}

static void model_serve(struct model *m, unsigned t)
{
	bool again = true;

	while (again) {
		struct model_wait *best = NULL;

		again = false;
		for (unsigned o = 0; o < OWNERS; o++) {
			struct model_wait *w = &m->waits[o];

			if (w->used && w->t == t && (!best || w->place < best->place) &&
			    !model_holders(m, t, w->owner, w->handle, &w->req) &&
			    !model_is_behind(m, w))
				best = w;
		}
		if (best) {
			model_apply(m, t, best->owner, best->handle, &best->req);
			m->granted[best->owner] = 1;
			best->used = false;
			again = true;
		}
	}
}

static int model_set(struct model *m, unsigned t, unsigned owner, unsigned handle,
		     const struct icm_lock_request *req)
{
	struct model_wait w = { true, t, owner, handle, *req, ++m->last_place, NULL };

	if (req->type == F_UNLCK || !model_holders(m, t, owner, handle, req)) {
		model_apply(m, t, owner, handle, req);
		model_serve(m, t);
		return 0;
	}
	if (!req->wait || req->flock) {
		if (req->flock)
			m->flocks[t][handle] = F_UNLCK;
		if (!req->wait) {
			model_serve(m, t);
			return -EAGAIN;
		}
	}
	if (!req->flock && model_reach(m, &w, false) & 1U << owner)
		return -EDEADLK;
	m->waits[owner] = w;
	m->granted[owner] = 0;
	if (req->flock)
		model_serve(m, t);
	else if (model_reach(m, &w, true) & 1U << owner)
		for (unsigned i = TABLES; i-- > 0;)
			model_serve(m, i);
	if (m->waits[owner].used)
		return -EINPROGRESS;
	/* who was let pass made room: a part of his lock is weaker now */
	m->granted[owner] = 0;
	return 0;
}

static void model_release(struct model *m, unsigned t, unsigned handle)
{
	for (unsigned o = 0; o < OWNERS; o++) {
		if (m->waits[o].used && m->waits[o].t == t && m->waits[o].handle == handle) {
			m->waits[o].used = false;
			m->granted[o] = -EBADF;
		}
		for (unsigned i = 0; i < BYTES; i++)
			if (m->cells[t][o][i].handle == handle)
				m->cells[t][o][i].type = F_UNLCK;
	}
	m->flocks[t][handle] = F_UNLCK;
	model_serve(m, t);
}

/* The table as the list shows it, in the model's form. */
struct seen {
	int cells[OWNERS][BYTES];
	int flocks[HANDLES];
	unsigned n_records, n_waiting;
};

static void see(void *userdata, const struct icm_lock_info *info)
{
	struct seen *s = userdata;

	if (info->waiting) {
		s->n_waiting++;
		return;
	}
	if (info->flock) {
		s->flocks[info->pid - 2000] = info->type;
		return;
	}
	s->n_records++;
	for (uint64_t i = info->start; i <= info->end; i++) {
		cr_assert_eq(s->cells[info->pid - 1000][i], F_UNLCK, "two locks of one owner");
		s->cells[info->pid - 1000][i] = info->type;
	}
}

static void compare_table(const struct model *m, unsigned t, unsigned step)
{
	unsigned runs = 0, waiting = 0;
	struct seen s = { 0 };

	for (unsigned o = 0; o < OWNERS; o++)
		for (unsigned i = 0; i < BYTES; i++)
			s.cells[o][i] = F_UNLCK;
	for (unsigned h = 0; h < HANDLES; h++)
		s.flocks[h] = F_UNLCK;
	icm_lock_table_list(m->tables[t], see, &s);
	for (unsigned o = 0; o < OWNERS; o++) {
		const struct cell *c = m->cells[t][o];

		for (unsigned i = 0; i < BYTES; i++) {
			cr_assert_eq(s.cells[o][i], c[i].type, "step %u table %u owner %u byte %u",
				     step, t, o, i);
			runs += c[i].type != F_UNLCK && (i == 0 || c[i - 1].type != c[i].type ||
							 c[i - 1].handle != c[i].handle);
		}
		waiting += m->waits[o].used && m->waits[o].t == t;
	}
	for (unsigned h = 0; h < HANDLES; h++)
		cr_assert_eq(s.flocks[h], m->flocks[t][h], "step %u table %u handle %u", step, t,
			     h);
	cr_assert_eq(s.n_records, runs, "step %u: locks not merged", step);
	cr_assert_eq(s.n_waiting, waiting, "step %u", step);
}

/* Callbacks came for those whose wait is over in the model, and no others. */
static void compare_waits(struct model *m, unsigned step)
{
	for (unsigned o = 0; o < OWNERS; o++) {
		struct parked *p = &m->parked[o];

		if (m->waits[o].used || !m->granted[o]) {
			cr_assert_eq(p->calls, 0, "step %u owner %u", step, o);
			continue;
		}
		cr_assert_eq(p->calls, 1, "step %u owner %u", step, o);
		cr_assert_eq(p->result, m->granted[o] == 1 ? 0 : m->granted[o]);
		m->granted[o] = 0;
		p->calls = 0;
	}
}

static struct icm_lock_request random_request(unsigned owner, unsigned handle)
{
	const int types[] = { F_RDLCK, F_WRLCK, F_UNLCK };
	bool flock = rand() % 4 == 0;
	uint64_t start = (uint64_t)rand() % BYTES, len = (uint64_t)rand() % (BYTES - start);

	return (struct icm_lock_request){
		.flock = flock,
		.type = types[rand() % 3],
		.start = start,
		.end = start + len,
		.owner = owner,
		.pid = (pid_t)(flock ? 2000 + handle : 1000 + owner),
		.wait = rand() % 2,
	};
}

static void step_set(struct model *m, unsigned step)
{
	unsigned owner = (unsigned)rand() % OWNERS, t = (unsigned)rand() % TABLES;
	unsigned handle = 2 * owner + (unsigned)rand() % 2;
	struct icm_lock_request req = random_request(owner, handle);
	struct parked *p = &m->parked[owner];
	int expected, r;

	if (m->waits[owner].used)
		return;
	memset(p, 0, sizeof(*p));
	expected = model_set(m, t, owner, handle, &req);
	r = icm_lock_table_set(m->tables[t], handle, &req, on_done, p, &p->wait);
	cr_assert_eq(r, expected, "step %u: %d, not %d", step, r, expected);
}

static void step_get(struct model *m, unsigned step)
{
	unsigned owner = (unsigned)rand() % OWNERS, t = (unsigned)rand() % TABLES;
	struct icm_lock_request req = random_request(owner, 2 * owner);
	struct flock lk;
	unsigned holders;

	req.flock = false;
	if (req.type == F_UNLCK)
		return;
	holders = model_holders(m, t, owner, 2 * owner, &req);
	icm_lock_table_get(m->tables[t], 2 * owner, &req, &lk);
	cr_assert_eq(lk.l_type == F_UNLCK, holders == 0, "step %u", step);
	if (holders)
		cr_assert(holders & 1U << (lk.l_pid - 1000), "step %u", step);
}

static void step_end(struct model *m, unsigned step)
{
	unsigned t = (unsigned)rand() % TABLES, handle = (unsigned)rand() % HANDLES;
	unsigned owner = (unsigned)rand() % OWNERS;
	bool had = false;

	switch (rand() % 3) {
	case 0:
		model_release(m, t, handle);
		icm_lock_table_release(m->tables[t], handle);
		break;
	case 1:
		for (unsigned i = 0; i < BYTES; i++) {
			had |= m->cells[t][owner][i].type != F_UNLCK;
			m->cells[t][owner][i].type = F_UNLCK;
		}
		if (had)
			model_serve(m, t);
		cr_assert_eq(icm_lock_table_has_owner(m->tables[t], owner), had);
		cr_assert_eq(icm_lock_table_flush(m->tables[t], owner), had, "step %u", step);
		break;
	default:
		had = m->waits[owner].used;
		cr_assert_eq(icm_lock_cancel(set, m->parked[owner].wait), had, "step %u", step);
		if (!had)
			break;
		m->waits[owner].used = false;
		model_serve(m, m->waits[owner].t);
		/* A place that is kept isn't in the model: give it up. */
		model_release(m, m->waits[owner].t, m->waits[owner].handle);
		icm_lock_table_release(m->tables[m->waits[owner].t], m->waits[owner].handle);
	}
}

static unsigned seed_of_run(void)
{
	const char *given = getenv("ICM_TEST_SEED");
	unsigned seed = given ? (unsigned)strtoul(given, NULL, 10) : (unsigned)icm_random_u64();

	fprintf(stderr, "ICM_TEST_SEED=%u\n", seed);
	return seed;
}

Test(lock, many_random_steps_agree_with_a_model, .timeout = 100)
{
	struct model *m = icm_xcalloc(1, sizeof(*m));

	srand(seed_of_run());
	for (unsigned t = 0; t < TABLES; t++) {
		m->tables[t] = icm_lock_table_new(set);
		for (unsigned o = 0; o < OWNERS; o++)
			for (unsigned i = 0; i < BYTES; i++)
				m->cells[t][o][i].type = F_UNLCK;
		for (unsigned h = 0; h < HANDLES; h++)
			m->flocks[t][h] = F_UNLCK;
	}
	for (unsigned step = 0; step < STEPS; step++) {
		switch (rand() % 8) {
		case 0:
			step_end(m, step);
			break;
		case 1:
			step_get(m, step);
			break;
		default:
			step_set(m, step);
		}
		compare_waits(m, step);
		for (unsigned t = 0; t < TABLES; t++)
			compare_table(m, t, step);
	}
	for (unsigned t = 0; t < TABLES; t++) {
		icm_lock_table_revoke(m->tables[t], -EIO);
		icm_lock_table_free(m->tables[t]);
	}
	free(m);
}
