/* SPDX-License-Identifier: MIT
 * One in-memory store as its instances share it: the data under one lock, the
 * watchers' condition, the faults, and the writes that are applied late. */
#ifndef ICM_BACKENDS_MEMORY_SHARED_H
#define ICM_BACKENDS_MEMORY_SHARED_H

#include <pthread.h>

#include "backends/memory/memory.h"
#include "backends/memory/store.h"

/* A call that writes. */
struct write {
	enum { WRITE_TXN, WRITE_LEASE_OPEN, WRITE_LEASE_RENEW, WRITE_LEASE_CLOSE } type;
	const struct icm_op *ops; /* txn */
	size_t n_ops;
	const char *key;   /* of the lease */
	const void *value; /* lease-open */
	size_t len;
	uint32_t ttl_ms;
	bool renewal;
};

/* A write that was answered with -ETIMEDOUT and is still to come. */
struct late {
	struct write write; /* owns everything that it points to */
	int64_t due_ns;	    /* CLOCK_MONOTONIC */
	struct late *next;
};

struct shared {
	char *name;    /* owned */
	unsigned refs; /* protected by the registry's lock */
	struct shared *next;

	pthread_mutex_t lock;	/* protects everything below */
	pthread_cond_t changed; /* data, the late queue, wake(): CLOCK_MONOTONIC */
	struct store data;
	struct store saved; /* a backup, or empty */
	bool consul_limits;
	icm_memory_fault_fn fault;
	void *fault_userdata;
	uint64_t calls;
	uint64_t calls_of[6]; /* by bit of enum icm_memory_call */
	struct late *late;    /* owned; in the order of due times */
	bool late_running;    /* the thread exists */
	bool late_stop;
	pthread_t late_thread;
};

/* The store of this name, made when missing; a reference is the caller's. */
struct shared *shared_ref(const char *name);
void shared_unref(struct shared *s);

/* Waits for `changed` up to a time (0 = no end); false when it has passed. */
bool shared_wait_locked(struct shared *s, int64_t until_ns);

/* Carries out a write now. lease-open leaves its index in result->index. */
int shared_write_locked(struct shared *s, const struct write *w, struct icm_txn_result *result);
/* Has a copy of the write carried out at due_ns. */
void shared_write_late_locked(struct shared *s, const struct write *w, int64_t due_ns);

#endif
