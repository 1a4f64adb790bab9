/* SPDX-License-Identifier: MIT
 * The working copy of a regular file: bytes in memory while it is small, an
 * unnamed local file with a table of chunks when it is large. A chunk that
 * nobody touched stays in the store until it is read; a chunk that was not
 * changed keeps its blob. Not locked: the view's content lock protects it. */
#ifndef ICM_CORE_DATA_H
#define ICM_CORE_DATA_H

#include "core/record.h"

struct icm_data;

/* Brings the bytes of a blob: exactly `len` bytes into buf, or a negative errno. */
typedef int (*icm_data_fetch_fn)(void *userdata, const struct icm_sha256 *sum, void *buf,
				 size_t len);

/* Empty, with holes up to nothing. `work_dir`: where a local file may be made
 * (borrowed for the data's life). */
struct icm_data *icm_data_new(const char *work_dir);
/* A copy of these bytes (at most ICM_PLAIN_MAX). */
struct icm_data *icm_data_from_bytes(const char *work_dir, const void *bytes, size_t len);
/* A file of chunks in the store (the list is copied). -ENOSPC, -EIO from the
 * local disk. */
int icm_data_from_chunks(const char *work_dir, uint64_t size, const struct icm_chunk *chunks,
			 icm_data_fetch_fn fetch, void *userdata,
			 struct icm_data **ret) ICM_MUST_CHECK;
/* Takes NULL, returns NULL. */
struct icm_data *icm_data_free(struct icm_data *d);

uint64_t icm_data_size(const struct icm_data *d);
/* Bytes in chunks that are holes. */
uint64_t icm_data_holes(const struct icm_data *d);
/* A read of this range would fetch from the store. */
bool icm_data_needs_fetch(const struct icm_data *d, uint64_t off, uint64_t len);
/* The count read; 0 at or behind the end. */
ssize_t icm_data_read(struct icm_data *d, void *buf, size_t len, uint64_t off);
/* All, or nothing and an errno: -EFBIG over ICM_FILE_SIZE_MAX, -ENOSPC. */
int icm_data_write(struct icm_data *d, const void *buf, size_t len, uint64_t off);
int icm_data_truncate(struct icm_data *d, uint64_t size);
/* fallocate(2): 0, KEEP_SIZE, PUNCH_HOLE|KEEP_SIZE, ZERO_RANGE[|KEEP_SIZE];
 * -EOPNOTSUPP for others. */
int icm_data_fallocate(struct icm_data *d, int mode, uint64_t off, uint64_t len);
/* SEEK_DATA or SEEK_HOLE; -ENXIO. Zero blocks of 4 KiB may count as holes. */
int64_t icm_data_seek(struct icm_data *d, uint64_t off, int whence);

/* Fits the plain form. */
bool icm_data_is_plain(const struct icm_data *d);
/* All bytes of a file that is plain: fresh. */
int icm_data_bytes(struct icm_data *d, void **ret_bytes, size_t *ret_len) ICM_MUST_CHECK;
/* The first chunk at or behind *index that is dirty and not all zero: its bytes
 * (fresh) and sum, and its number in *index; the chunk counts as stored from
 * now on. Dirty chunks of zeroes become holes on the way. 0 when none is left,
 * 1 when one was given. */
int icm_data_next_dirty(struct icm_data *d, size_t *index, void **ret_bytes, size_t *ret_len,
			struct icm_sha256 *ret_sum) ICM_MUST_CHECK;
/* Says again that a chunk isn't stored (its upload failed). */
void icm_data_mark_dirty(struct icm_data *d, size_t index);
/* The list of chunks, valid when none is dirty: fresh array of icm_chunk_count(size). */
struct icm_chunk *icm_data_chunks(const struct icm_data *d, size_t *ret_n);
/* Any chunk dirty (large form only; small ones count as one dirty chunk). */
bool icm_data_has_dirty(const struct icm_data *d);

#endif
