/* SPDX-License-Identifier: MIT
 * What goes to Consul and what its answers say, as bytes: no connection, no
 * instance. Answers are foreign, and are fuzzed (tests/fuzz/fuzz-consul.c). Those
 * that fill a list or result leave a part in it when they fail. */
#ifndef ICM_BACKENDS_CONSUL_WIRE_H
#define ICM_BACKENDS_CONSUL_WIRE_H

#include "backends/backend.h"

/* Appends `op` as an item of a transaction's body. */
void wire_add_op(struct icm_buf *b, const char *prefix, const struct icm_op *op);
/* The same for the operation that makes op->key with op->value, held by a session. */
void wire_add_lock(struct icm_buf *b, const char *prefix, const struct icm_op *op,
		   const char *session);
/* The bytes that an operation takes, with a comma. */
size_t wire_op_bytes(const char *prefix, const struct icm_op *op);
/* Keys of a listing with values (the answer to ?recurse or to a get). Those that
 * don't start with `under` (without the store's prefix) are left out. -EPROTO. */
int wire_entries(const void *data, size_t len, const char *prefix, const char *under,
		 struct icm_entries *list);
/* Names of ?keys, likewise. */
int wire_keys(const void *data, size_t len, const char *prefix, const char *under,
	      struct icm_entries *list);
/* What a transaction that took place gave. -EPROTO, or -EACCES where an operation
 * that reads has no result: those that the token may not see are left out. */
int wire_results(const void *data, size_t len, const char *prefix, const struct icm_op *ops,
		 size_t n_ops, struct icm_txn_result *result);
/* Why a transaction (status 409) did not take place: -ESTALE, -EACCES, -EIO for a
 * reason that the contract doesn't know, or -EPROTO for what Consul doesn't say.
 * Of a cas it says only that the index differs, also where the key is missing. */
int wire_errors(const void *data, size_t len, const struct icm_op *ops, size_t n_ops,
		struct icm_txn_result *result);
/* The id of a new session: 36 characters of a UUID. */
int wire_session(const void *data, size_t len, char ret[static 37]);

#endif
