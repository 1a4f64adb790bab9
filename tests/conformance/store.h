/* SPDX-License-Identifier: MIT
 * What the conformance tests share: a fresh store for each test, short names
 * for operations, and checks that work in threads and child processes too.
 *
 * ICMFS_TEST_STORE says which store: "memory", "sqlite" (a fresh file), "consul"
 * (a server of the run's own), or a URL, under which each test uses a prefix of
 * its own. ICMFS_TEST_LIMITS=consul
 * gives the memory store Consul's limits; ICMFS_TEST_PROXY, the program, puts a
 * network that loses, cuts, doubles and delays ICMFS_TEST_PERCENT of a hundred
 * requests in front of the run's Consul (settled.h). */
#ifndef ICM_TESTS_CONFORMANCE_STORE_H
#define ICM_TESTS_CONFORMANCE_STORE_H

#undef NDEBUG
#include <criterion/criterion.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/types.h>

#include "backends/backend.h"
#include "util/buf.h"
#include "util/clock.h"

/* Criterion's checks leave by longjmp, which neither threads nor forked
 * children may do: this one ends the process, which fails the test. */
#define must(expr)                                                                                 \
	do {                                                                                       \
		if (!(expr)) {                                                                     \
			fprintf(stderr, "%s:%d: not so: %s\n", __FILE__, __LINE__, #expr);         \
			abort();                                                                   \
		}                                                                                  \
	} while (0)
#define must_be(expr, expected)                                                                    \
	do {                                                                                       \
		long long is_ = (long long)(expr), expected_ = (long long)(expected);              \
		if (is_ != expected_) {                                                            \
			fprintf(stderr, "%s:%d: %s is %lld, not %lld\n", __FILE__, __LINE__,       \
				#expr, is_, expected_);                                            \
			abort();                                                                   \
		}                                                                                  \
	} while (0)

extern struct icm_backend *be; /* the test's instance */
extern char *store_url;	       /* of the test's store */
extern char *store_dir;	       /* a directory of the test's own, removed afterwards */

/* For TestSuite(.init, .fini); setup skips when no store is named. */
void store_setup(void);
/* The same without opening: for tests that fork before they open. */
void store_setup_closed(void);
void store_teardown(void);
/* Ends the test as skipped. */
void store_skip(const char *why);
/* One more started instance of the test's store. */
struct icm_backend *store_open(void);
struct icm_backend *store_open_with(const struct icm_open_options *options);
bool store_is(const char *scheme);
/* Whether other processes see it. */
bool store_shared(void);

/* ---- operations ---- */

#define OP_GET(k)                                                                                  \
	(struct icm_op)                                                                            \
	{                                                                                          \
		.type = ICM_OP_GET, .key = (k)                                                     \
	}
#define OP_TREE(k)                                                                                 \
	(struct icm_op)                                                                            \
	{                                                                                          \
		.type = ICM_OP_GET_TREE, .key = (k)                                                \
	}
#define OP_CHECK(k, i)                                                                             \
	(struct icm_op)                                                                            \
	{                                                                                          \
		.type = ICM_OP_CHECK_INDEX, .key = (k), .index = (i)                               \
	}
#define OP_ABSENT(k)                                                                               \
	(struct icm_op)                                                                            \
	{                                                                                          \
		.type = ICM_OP_CHECK_ABSENT, .key = (k)                                            \
	}
#define OP_SET(k, v)                                                                               \
	(struct icm_op)                                                                            \
	{                                                                                          \
		.type = ICM_OP_SET, .key = (k), .value = (v), .len = strlen(v)                     \
	}
#define OP_CAS(k, v, i)                                                                            \
	(struct icm_op)                                                                            \
	{                                                                                          \
		.type = ICM_OP_CAS, .key = (k), .value = (v), .len = strlen(v), .index = (i)       \
	}
#define OP_DELETE(k)                                                                               \
	(struct icm_op)                                                                            \
	{                                                                                          \
		.type = ICM_OP_DELETE, .key = (k)                                                  \
	}
#define OP_DELETE_CAS(k, i)                                                                        \
	(struct icm_op)                                                                            \
	{                                                                                          \
		.type = ICM_OP_DELETE_CAS, .key = (k), .index = (i)                                \
	}

/* A transaction of the operations listed; its result must be cleared. */
#define TXN(b, result, ...)                                                                        \
	icm_backend_txn((b), NULL, (struct icm_op[]){ __VA_ARGS__ },                               \
			sizeof((struct icm_op[]){ __VA_ARGS__ }) / sizeof(struct icm_op),          \
			(result))
/* The same where only success counts. */
#define DO(b, ...)                                                                                 \
	({                                                                                         \
		struct icm_txn_result do_ = { 0 };                                                 \
		int do_r_ = TXN(b, &do_, __VA_ARGS__);                                             \
		icm_txn_result_clear(&do_);                                                        \
		do_r_;                                                                             \
	})

/* Sets a key; the transaction's index. */
uint64_t put(struct icm_backend *b, const char *key, const char *value);
/* Whether the key has this value; "absent" for NULL. */
bool has(struct icm_backend *b, const char *key, const char *value);
/* The key's modify index; 0 = absent. */
uint64_t modified(struct icm_backend *b, const char *key);
/* The store's index. */
uint64_t store_index(struct icm_backend *b);
/* A context that ends in so many milliseconds. */
struct icm_ctx within_ms(int64_t ms);
/* The entry has this key and value. */
bool entry_is(const struct icm_entry *e, const char *key, const char *value);

/* ---- processes ---- */

/* Runs fn(userdata) in a child, which then exits. Fork before opening a store. */
pid_t child_start(void (*fn)(void *userdata), void *userdata);
/* Waits; the child must have ended well. */
void child_join(pid_t pid);
/* kill -9 and wait. */
void child_kill(pid_t pid);
/* One number over a pipe; false at its end. */
void send_number(int fd, uint64_t n);
bool receive_number(int fd, uint64_t *ret);

#endif
