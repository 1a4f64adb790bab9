/* SPDX-License-Identifier: MIT
 * Watches: no change is missed, nothing spins, everything ends when told to.
 * A change that is missed shows as a test that never ends (its time-out). */
#include "store.h"

#include <sched.h>

TestSuite(watch, .init = store_setup, .fini = store_teardown, .timeout = 120);
TestSuite(watch_processes, .init = store_setup_closed, .fini = store_teardown, .timeout = 120);

#define ROUNDS 100

/* Watches until the index has reached `target`. */
static void watch_until(struct icm_backend *b, const char *prefix, uint64_t since, uint64_t target)
{
	while (since < target)
		must_be(icm_backend_watch(b, NULL, prefix, since, &since), 0);
}

/* A thread that watches; `watching` says that it is about to. */
struct watcher {
	pthread_t thread;
	struct icm_backend *b;
	struct icm_ctx ctx;
	uint64_t since;
	uint64_t index;
	int r;
	atomic_bool watching;
	atomic_bool done;
};

static void *watcher_main(void *userdata)
{
	struct watcher *w = userdata;

	atomic_store(&w->watching, true);
	do
		w->r = icm_backend_watch(w->b, &w->ctx, "", w->since, &w->index);
	while (w->r == 0 && w->index == w->since); /* early returns are allowed */
	atomic_store(&w->done, true);
	return NULL;
}

static void watcher_start(struct watcher *w, struct icm_backend *b, uint64_t since)
{
	w->b = b;
	w->since = since;
	must_be(pthread_create(&w->thread, NULL, watcher_main, w), 0);
	while (!atomic_load(&w->watching))
		sched_yield();
}

Test(watch, returns_at_once_when_since_is_old)
{
	uint64_t first = put(be, "p/a", "1"), second = put(be, "p/a", "2"), index = 0;
	struct icm_ctx none = within_ms(-1);

	cr_assert_eq(icm_backend_watch(be, NULL, "p/", first, &index), 0);
	cr_assert_geq(index, second);
	cr_assert_eq(icm_backend_watch(be, NULL, "", 0, &index), 0);
	cr_assert_geq(index, second);
	/* a change that is there counts more than a deadline that has passed */
	cr_assert_eq(icm_backend_watch(be, &none, "p/", first, &index), 0);
}

/* Who asks for changes by others only must still not miss one of those, however
 * many of its own lie around it. */
Test(watch, of_others_sees_each_change_by_others)
{
	struct icm_backend *other = store_open();
	struct icm_ctx ctx = { .others = true };
	uint64_t since = put(be, "p/a", "0");

	for (int i = 0; i < ROUNDS; i++) {
		ICM_AUTOFREE char *value = icm_asprintf("%d", i);
		uint64_t target;

		put(be, "p/own", value);
		target = put(other, "p/a", value);
		put(be, "p/own2", value);
		while (since < target)
			must_be(icm_backend_watch(be, &ctx, "p/", since, &since), 0);
	}
	icm_backend_close(other);
}

Test(watch, an_index_from_the_future_is_other_too)
{
	uint64_t index = 0;

	put(be, "a", "1");
	cr_assert_eq(icm_backend_watch(be, NULL, "", store_index(be) + 1000, &index), 0);
	cr_assert_eq(index, store_index(be));
}

Test(watch, ends_at_its_deadline)
{
	uint64_t since = put(be, "a", "1"), index = 77;

	for (int i = 0; i < 3; i++) {
		struct icm_ctx ctx = within_ms(30);
		int r;

		while ((r = icm_backend_watch(be, &ctx, "", since, &index)) == 0)
			cr_assert_eq(index, since);
		cr_assert_eq(r, -ETIMEDOUT);
		cr_assert_geq(icm_now_ns(), ctx.deadline_ns);
	}
}

Test(watch, sleeps_while_nothing_happens)
{
	uint64_t since = put(be, "a", "1"), index;
	struct icm_ctx ctx = within_ms(400);
	int r, returns = 0;

	do {
		r = icm_backend_watch(be, &ctx, "", since, &index);
		returns++;
	} while (r == 0 && index == since);
	cr_assert_eq(r, -ETIMEDOUT);
	cr_assert_leq(returns, 10);
}

Test(watch, a_listing_and_a_watch_miss_nothing)
{
	ICM_AUTOENTRIES struct icm_entries list = { 0 };
	uint64_t since = 0, index = 0;

	put(be, "p/a", "1");
	cr_assert_eq(icm_backend_list(be, NULL, "p/", true, &list, &since), 0);
	put(be, "p/b", "2");
	cr_assert_eq(icm_backend_watch(be, NULL, "p/", since, &index), 0);
	cr_assert_neq(index, since);
}

/* Each change is answered before the next is made: every single one must wake. */
struct ping {
	struct icm_backend *writer;
	int from_watcher, to_watcher;
};

static void *ping_main(void *userdata)
{
	struct ping *p = userdata;
	uint64_t n;

	while (receive_number(p->from_watcher, &n)) {
		ICM_AUTOFREE char *value = icm_asprintf("%llu", (unsigned long long)n);

		put(p->writer, "p/k", value);
	}
	return NULL;
}

static void ping_pong(struct icm_backend *b, int to_writer)
{
	uint64_t since = store_index(b), next;

	for (uint64_t i = 1; i <= ROUNDS; i++) {
		send_number(to_writer, i);
		do
			must_be(icm_backend_watch(b, NULL, "p/", since, &next), 0);
		while (next == since);
		since = next;
	}
	close(to_writer);
}

Test(watch, every_change_of_another_thread_wakes)
{
	struct ping p = { .writer = be };
	pthread_t thread;
	int fds[2];

	must_be(pipe(fds), 0);
	p.from_watcher = fds[0];
	must_be(pthread_create(&thread, NULL, ping_main, &p), 0);
	ping_pong(be, fds[1]);
	pthread_join(thread, NULL);
	close(fds[0]);
}

Test(watch, every_change_of_another_instance_wakes)
{
	struct ping p = { .writer = store_open() };
	pthread_t thread;
	int fds[2];

	must_be(pipe(fds), 0);
	p.from_watcher = fds[0];
	must_be(pthread_create(&thread, NULL, ping_main, &p), 0);
	ping_pong(be, fds[1]);
	pthread_join(thread, NULL);
	close(fds[0]);
	icm_backend_close(p.writer);
}

static void ping_child(void *userdata)
{
	struct ping *p = userdata;

	close(p->to_watcher);
	p->writer = store_open();
	ping_main(p);
	icm_backend_close(p->writer);
}

Test(watch_processes, every_change_of_another_process_wakes)
{
	struct ping p = { 0 };
	pid_t child;
	int fds[2];

	if (!store_shared())
		store_skip("one process only");
	must_be(pipe(fds), 0);
	p.from_watcher = fds[0];
	p.to_watcher = fds[1];
	child = child_start(ping_child, &p);
	close(fds[0]);
	be = store_open();
	ping_pong(be, fds[1]);
	child_join(child);
}

static void *write_many(void *userdata)
{
	struct icm_backend *b = userdata;

	for (int i = 0; i < 3 * ROUNDS; i++) {
		ICM_AUTOFREE char *value = icm_asprintf("%d", i);

		put(b, "p/k", value);
	}
	put(b, "p/last", "x");
	return NULL;
}

Test(watch, the_last_of_many_changes_is_seen)
{
	uint64_t since = store_index(be);
	pthread_t thread;

	must_be(pthread_create(&thread, NULL, write_many, be), 0);
	while (has(be, "p/last", NULL))
		must_be(icm_backend_watch(be, NULL, "p/", since, &since), 0);
	pthread_join(thread, NULL);
}

Test(watch, deletions_and_leases_that_end_wake)
{
	uint64_t since = put(be, "p/k", "x");
	struct watcher w = { 0 }, v = { 0 };
	struct icm_lease lease = { 0 };

	watcher_start(&w, be, since);
	cr_assert_eq(DO(be, OP_DELETE("p/k")), 0);
	pthread_join(w.thread, NULL);
	cr_assert_eq(w.r, 0);

	cr_assert_eq(icm_backend_lease_open(be, NULL, be->facts.lease_ttl_min_ms, "", 0, &lease),
		     0);
	watcher_start(&v, be, store_index(be));
	cr_assert_eq(icm_backend_lease_close(be, NULL, &lease), 0);
	pthread_join(v.thread, NULL);
	cr_assert_eq(v.r, 0);
	icm_lease_clear(&lease);
}

Test(watch, one_change_wakes_all)
{
	struct watcher w[8] = { 0 };
	uint64_t since = put(be, "k", "0");

	for (int round = 0; round < 10; round++) {
		for (size_t i = 0; i < ICM_COUNT(w); i++) {
			w[i] = (struct watcher){ 0 };
			watcher_start(&w[i], be, since);
		}
		since = put(be, "k", round % 2 ? "odd" : "even");
		for (size_t i = 0; i < ICM_COUNT(w); i++) {
			pthread_join(w[i].thread, NULL);
			cr_assert_eq(w[i].r, 0);
			cr_assert_eq(w[i].index, since);
		}
	}
}

Test(watch, some_end_by_deadline_and_the_others_go_on)
{
	struct watcher w[4] = { 0 };
	uint64_t since = put(be, "k", "0");

	for (size_t i = 0; i < ICM_COUNT(w); i++) {
		if (i % 2 == 0)
			w[i].ctx = within_ms(20 + 10 * (int64_t)i);
		watcher_start(&w[i], be, since);
	}
	for (size_t i = 0; i < ICM_COUNT(w); i += 2) {
		pthread_join(w[i].thread, NULL);
		cr_assert_eq(w[i].r, -ETIMEDOUT);
	}
	for (size_t i = 1; i < ICM_COUNT(w); i += 2)
		cr_assert(!atomic_load(&w[i].done));
	put(be, "k", "1");
	for (size_t i = 1; i < ICM_COUNT(w); i += 2) {
		pthread_join(w[i].thread, NULL);
		cr_assert_eq(w[i].r, 0);
	}
}

Test(watch, cancel_and_wake_end_all)
{
	struct watcher w[5] = { 0 };
	atomic_bool cancel = false;
	uint64_t since = put(be, "k", "0");

	for (size_t i = 0; i < ICM_COUNT(w); i++) {
		w[i].ctx.cancel = &cancel;
		watcher_start(&w[i], be, since);
	}
	atomic_store(&cancel, true);
	icm_backend_wake(be);
	for (size_t i = 0; i < ICM_COUNT(w); i++) {
		pthread_join(w[i].thread, NULL);
		cr_assert_eq(w[i].r, -ECANCELED);
	}
}

Test(watch, wake_alone_ends_and_loses_nothing)
{
	uint64_t since = put(be, "k", "0");
	struct watcher w = { 0 };

	watcher_start(&w, be, since);
	for (int i = 0; i < 100; i++)
		icm_backend_wake(be);
	cr_assert(!atomic_load(&w.done));
	put(be, "k", "1");
	pthread_join(w.thread, NULL);
	cr_assert_eq(w.r, 0);
}

/* The store is closed and opened anew by its writer, again and again. */
static void reopen_child(void *userdata)
{
	int *fds = userdata;
	uint64_t n;

	close(fds[1]);
	while (receive_number(fds[0], &n)) {
		ICM_AUTOFREE char *value = icm_asprintf("%llu", (unsigned long long)n);
		struct icm_backend *b = store_open();

		put(b, "p/k", value);
		icm_backend_close(b);
	}
}

Test(watch_processes, a_writer_that_comes_and_goes_is_seen)
{
	int fds[2];
	pid_t child;

	if (!store_shared())
		store_skip("one process only");
	must_be(pipe(fds), 0);
	child = child_start(reopen_child, fds);
	close(fds[0]);
	be = store_open();
	ping_pong(be, fds[1]);
	child_join(child);
}

Test(watch, a_writing_instance_that_comes_and_goes_is_seen)
{
	uint64_t since = store_index(be);

	for (int i = 0; i < 20; i++) {
		ICM_AUTOFREE char *value = icm_asprintf("%d", i);
		struct icm_backend *b = store_open();
		struct watcher w = { 0 };

		watcher_start(&w, be, since);
		since = put(b, "k", value);
		icm_backend_close(b);
		pthread_join(w.thread, NULL);
		cr_assert_eq(w.r, 0);
		watch_until(be, "", w.index, since);
	}
}
