/* SPDX-License-Identifier: MIT
 * Putting a large file's chunks into the store, before the transaction that refers
 * to them. */
#ifndef ICM_CORE_UPLOAD_H
#define ICM_CORE_UPLOAD_H

#include "core/data.h"
#include "core/shared.h"

/* Puts every dirty chunk of `d`; its lock (io) is held by the caller. On a store of
 * other hosts several at a time, on a local one several in a transaction. Those that
 * could not be put are dirty again. 0, or the first failure, as icm_put_blobs(). */
int icm_upload_chunks(struct icm_volume *vol, struct icm_data *d) ICM_MUST_CHECK;

#endif
