/* SPDX-License-Identifier: MIT
 * Many threads, and several processes, on one store. */
#include "store.h"

#include <signal.h>
#include <sys/wait.h>

TestSuite(threads, .init = store_setup, .fini = store_teardown, .timeout = 300);
TestSuite(processes, .init = store_setup_closed, .fini = store_teardown, .timeout = 300);

#define THREADS 100

static void run_threads(size_t n, void *(*fn)(void *), void *userdata)
{
	pthread_t threads[THREADS];

	must(n <= THREADS);
	for (size_t i = 0; i < n; i++)
		must_be(pthread_create(&threads[i], NULL, fn, userdata), 0);
	for (size_t i = 0; i < n; i++)
		pthread_join(threads[i], NULL);
}

static unsigned long long number_at(struct icm_backend *b, const char *key, uint64_t *ret_index)
{
	ICM_AUTOENTRY struct icm_entry e = { 0 };
	char text[32] = { 0 };
	int r = icm_backend_get(b, NULL, key, &e);

	*ret_index = 0;
	if (r == -ENOENT)
		return 0;
	must_be(r, 0);
	must(e.len < sizeof(text));
	memcpy(text, e.value, e.len);
	*ret_index = e.modify_index;
	return strtoull(text, NULL, 10);
}

/* ---- a counter ---- */

static void increment(struct icm_backend *b, const char *key)
{
	char text[32];
	uint64_t index;
	int r;

	do {
		snprintf(text, sizeof(text), "%llu", number_at(b, key, &index) + 1);
		r = DO(b, OP_CAS(key, text, index));
		must(r == 0 || r == -ESTALE);
	} while (r);
}

static void *increment_some(void *userdata)
{
	for (int i = 0; i < 4; i++)
		increment(userdata, "counter");
	return NULL;
}

Test(threads, a_hundred_threads_count_right)
{
	uint64_t index;

	run_threads(THREADS, increment_some, be);
	cr_assert_eq(number_at(be, "counter", &index), 4 * THREADS);
}

static void increment_child(void *userdata)
{
	struct icm_backend *b = store_open();

	for (int i = 0; i < 100; i++)
		increment(b, "counter");
	icm_backend_close(b);
}

Test(processes, two_processes_count_right)
{
	pid_t children[2];
	uint64_t index;

	if (!store_shared())
		store_skip("one process only");
	for (size_t i = 0; i < ICM_COUNT(children); i++)
		children[i] = child_start(increment_child, NULL);
	be = store_open();
	for (int i = 0; i < 50; i++)
		increment(be, "counter");
	for (size_t i = 0; i < ICM_COUNT(children); i++)
		child_join(children[i]);
	cr_assert_eq(number_at(be, "counter", &index), 250);
}

static void open_child(void *userdata)
{
	for (int i = 0; i < 3; i++) {
		struct icm_backend *b = store_open();

		increment(b, "counter");
		icm_backend_close(b);
	}
}

Test(processes, several_make_and_open_a_store_at_once)
{
	pid_t children[6];
	uint64_t index;

	if (!store_shared())
		store_skip("one process only");
	for (size_t i = 0; i < ICM_COUNT(children); i++)
		children[i] = child_start(open_child, NULL);
	for (size_t i = 0; i < ICM_COUNT(children); i++)
		child_join(children[i]);
	be = store_open();
	cr_assert_eq(number_at(be, "counter", &index), 3 * ICM_COUNT(children));
}

/* ---- transfers between accounts: the sum never changes ---- */

#define ACCOUNTS 10
#define TOTAL	 1000ull

struct bank {
	struct icm_backend *b;
	atomic_uint seed;
	atomic_bool stop;
};

static void transfer(struct icm_backend *b, unsigned *seed)
{
	unsigned from = (unsigned)rand_r(seed) % ACCOUNTS, to = (unsigned)rand_r(seed) % ACCOUNTS;
	char keys[2][16], values[2][32];
	unsigned long long sums[2];
	uint64_t indexes[2];
	int r;

	if (from == to)
		return;
	snprintf(keys[0], sizeof(keys[0]), "bank/%u", from);
	snprintf(keys[1], sizeof(keys[1]), "bank/%u", to);
	for (size_t i = 0; i < 2; i++)
		sums[i] = number_at(b, keys[i], &indexes[i]);
	if (sums[0] == 0)
		return;
	snprintf(values[0], sizeof(values[0]), "%llu", sums[0] - 1);
	snprintf(values[1], sizeof(values[1]), "%llu", sums[1] + 1);
	r = DO(b, OP_CAS(keys[0], values[0], indexes[0]), OP_CHECK(keys[1], indexes[1]),
	       OP_SET(keys[1], values[1]));
	must(r == 0 || r == -ESTALE);
}

static void *transfer_some(void *userdata)
{
	struct bank *bank = userdata;
	unsigned seed = atomic_fetch_add(&bank->seed, 1);

	for (int i = 0; i < 40; i++)
		transfer(bank->b, &seed);
	return NULL;
}

static unsigned long long sum_of(const struct icm_entries *list)
{
	unsigned long long sum = 0;

	must_be(list->n, ACCOUNTS);
	for (size_t i = 0; i < list->n; i++) {
		char text[32] = { 0 };

		memcpy(text, list->v[i].value, list->v[i].len);
		sum += strtoull(text, NULL, 10);
	}
	return sum;
}

/* Every listing and every get-tree is one consistent view. */
static void *audit(void *userdata)
{
	struct bank *bank = userdata;

	while (!atomic_load(&bank->stop)) {
		ICM_AUTOENTRIES struct icm_entries list = { 0 };
		ICM_AUTORESULT struct icm_txn_result result = { 0 };
		uint64_t index = 0;

		must_be(icm_backend_list(bank->b, NULL, "bank/", false, &list, &index), 0);
		must_be(sum_of(&list), TOTAL * ACCOUNTS);
		for (size_t i = 0; i < list.n; i++)
			must(list.v[i].modify_index <= index);
		must_be(TXN(bank->b, &result, OP_TREE("bank/")), 0);
		must_be(sum_of(&result.entries), TOTAL * ACCOUNTS);
	}
	return NULL;
}

static void bank_open(struct icm_backend *b)
{
	for (unsigned i = 0; i < ACCOUNTS; i++) {
		char key[16];

		snprintf(key, sizeof(key), "bank/%u", i);
		put(b, key, "1000");
	}
}

static void bank_check(struct icm_backend *b)
{
	ICM_AUTOENTRIES struct icm_entries list = { 0 };

	must_be(icm_backend_list(b, NULL, "bank/", false, &list, NULL), 0);
	must_be(sum_of(&list), TOTAL * ACCOUNTS);
}

Test(threads, transfers_keep_the_sum)
{
	struct bank bank = { .b = be };
	pthread_t auditor;

	bank_open(be);
	must_be(pthread_create(&auditor, NULL, audit, &bank), 0);
	run_threads(16, transfer_some, &bank);
	atomic_store(&bank.stop, true);
	pthread_join(auditor, NULL);
	bank_check(be);
}

static void transfer_child(void *userdata)
{
	struct bank bank = { .b = store_open(), .seed = (unsigned)(uintptr_t)userdata };

	transfer_some(&bank);
	icm_backend_close(bank.b);
}

Test(processes, transfers_of_several_processes_keep_the_sum)
{
	pid_t children[4];

	if (!store_shared())
		store_skip("one process only");
	be = store_open();
	bank_open(be);
	be = icm_backend_close(be);
	for (size_t i = 0; i < ICM_COUNT(children); i++)
		children[i] = child_start(transfer_child, (void *)(uintptr_t)(i + 1));
	for (size_t i = 0; i < ICM_COUNT(children); i++)
		child_join(children[i]);
	be = store_open();
	bank_check(be);
}

/* ---- readers beside writers ---- */

static void *read_some(void *userdata)
{
	struct bank *bank = userdata;
	uint64_t last = 0, index;

	for (int i = 0; i < 200; i++) {
		number_at(bank->b, "bank/3", &index);
		must(index >= last); /* time does not run backwards */
		last = index;
	}
	return NULL;
}

static void *write_until_stopped(void *userdata)
{
	struct bank *bank = userdata;

	for (unsigned long n = 0; !atomic_load(&bank->stop); n++) {
		char text[32];

		snprintf(text, sizeof(text), "%lu", n);
		put(bank->b, "bank/3", text);
	}
	return NULL;
}

Test(threads, a_hundred_readers_beside_a_writer)
{
	struct bank bank = { .b = be };
	pthread_t writer;

	must_be(pthread_create(&writer, NULL, write_until_stopped, &bank), 0);
	run_threads(THREADS, read_some, &bank);
	atomic_store(&bank.stop, true);
	pthread_join(writer, NULL);
}

/* ---- kill -9 ---- */

struct killed {
	unsigned round;
	int acks[2];
};

/* Each transaction moves all keys of a set to one value and adds one of its
 * own; its number goes into the pipe once it was acknowledged. */
static void write_until_killed(void *userdata)
{
	struct killed *k = userdata;
	struct icm_backend *b = store_open();

	close(k->acks[0]);
	for (uint64_t n = 1;; n++) {
		char key[40], value[40];

		snprintf(key, sizeof(key), "ack/%u/%llu", k->round, (unsigned long long)n);
		snprintf(value, sizeof(value), "%u.%llu", k->round, (unsigned long long)n);
		must_be(DO(b, OP_SET("set/a", value), OP_SET("set/b", value), OP_SET(key, value),
			   OP_SET("set/c", value)),
			0);
		send_number(k->acks[1], n);
		if (n % 7 == 0)
			icm_backend_maintain(b);
	}
}

static void check_after_kill(unsigned round, uint64_t acked)
{
	ICM_AUTOENTRIES struct icm_entries list = { 0 }, acks = { 0 };
	char prefix[32];

	must_be(icm_backend_list(be, NULL, "set/", false, &list, NULL), 0);
	must_be(list.n, 3);
	for (size_t i = 1; i < list.n; i++) {
		must_be(list.v[i].len, list.v[0].len);
		must(!memcmp(list.v[i].value, list.v[0].value, list.v[0].len));
		must_be(list.v[i].modify_index, list.v[0].modify_index);
	}
	snprintf(prefix, sizeof(prefix), "ack/%u/", round);
	must_be(icm_backend_list(be, NULL, prefix, true, &acks, NULL), 0);
	/* one more may have been done and not told */
	must(acks.n == acked || acks.n == acked + 1);
}

Test(processes, what_was_acknowledged_survives_kill_9)
{
	if (!store_shared())
		store_skip("one process only");
	for (unsigned round = 0; round < 30; round++) {
		struct killed k = { .round = round };
		uint64_t n, acked = 0, enough = 1 + round % 9;
		pid_t pid;

		must_be(pipe(k.acks), 0);
		pid = child_start(write_until_killed, &k);
		close(k.acks[1]);
		while (acked < enough && receive_number(k.acks[0], &n))
			acked = n;
		child_kill(pid);
		while (receive_number(k.acks[0], &n))
			acked = n;
		close(k.acks[0]);
		cr_assert_geq(acked, enough);
		be = store_open();
		check_after_kill(round, acked);
		be = icm_backend_close(be);
	}
}

Test(processes, a_killed_writer_does_not_stop_the_others)
{
	struct killed k = { 0 };
	uint64_t n;
	pid_t pid;

	if (!store_shared())
		store_skip("one process only");
	must_be(pipe(k.acks), 0);
	pid = child_start(write_until_killed, &k);
	close(k.acks[1]);
	be = store_open();
	for (int i = 0; i < 20; i++) {
		cr_assert(receive_number(k.acks[0], &n));
		increment(be, "counter");
	}
	child_kill(pid);
	for (int i = 0; i < 20; i++)
		increment(be, "counter");
	cr_assert_eq(number_at(be, "counter", &n), 40);
	close(k.acks[0]);
}
