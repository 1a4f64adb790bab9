/* SPDX-License-Identifier: MIT
 * Control of the in-memory store, for tests only: "memory:NAME" opens are
 * views of one store per NAME and process, which lives until the last close.
 * Faults and limits are of the store: set through any instance, they hold for
 * all. This is the one driver header that tests include. */
#ifndef ICM_BACKENDS_MEMORY_H
#define ICM_BACKENDS_MEMORY_H

#include "backends/backend.h"

enum icm_fault {
	ICM_FAULT_NONE,
	ICM_FAULT_FAIL,	      /* refuse with `error`; not applied */
	ICM_FAULT_FAIL_AFTER, /* apply, then answer `error` (a lost answer with -ETIMEDOUT) */
	ICM_FAULT_LATE,	      /* answer -ETIMEDOUT now, apply after `late_ns` */
	ICM_FAULT_DELAY,      /* apply and answer after `late_ns` */
};

enum icm_memory_call {
	ICM_CALL_GET = 1,
	ICM_CALL_LIST = 2,
	ICM_CALL_INDEX = 4,
	ICM_CALL_TXN = 8,
	ICM_CALL_WATCH = 16,
	ICM_CALL_LEASE = 32,
	ICM_CALL_ANY = 63,
};

/* What happens to calls: decided by this function, called with the number of
 * the call (from 1, per store) and its kind; NULL = no faults. For writes
 * `ops` are given. Called under the store's lock: it must not call the store. */
struct icm_memory_fault {
	enum icm_fault fault;
	int error; /* negative errno */
	int64_t late_ns;
};
typedef struct icm_memory_fault (*icm_memory_fault_fn)(uint64_t call, enum icm_memory_call kind,
						       const struct icm_op *ops, size_t n_ops,
						       void *userdata);

void icm_memory_set_fault(struct icm_backend *be, icm_memory_fault_fn fn, void *userdata);
/* The same for the calls of this one instance, asked before the store's: one of
 * two mounts is cut off. */
void icm_memory_set_instance_fault(struct icm_backend *be, icm_memory_fault_fn fn, void *userdata);
/* Facts as Consul 1.8.7 has them: 64 operations, 512 KiB of JSON with base64,
 * values of 512 KiB, not local, leases that must be renewed, listings of keys
 * without indexes. Call before use. */
void icm_memory_set_consul_limits(struct icm_backend *be);
/* Ends a lease from outside, as a time-out would: its key vanishes. -ENOENT. */
int icm_memory_expire_lease(struct icm_backend *be, const char *key);
/* Makes a backup of the store, and (later) a store of the backup: keys and indexes
 * are as they were. Without a backup: an empty store. */
void icm_memory_save(struct icm_backend *be);
void icm_memory_restore(struct icm_backend *be);
/* Calls so far, by kind (a mask); for tests that count round trips. */
uint64_t icm_memory_calls(struct icm_backend *be, unsigned kinds);
/* Waits until no late application is pending. */
void icm_memory_settle(struct icm_backend *be);

#endif
