/* SPDX-License-Identifier: MIT */
#include "core/data.h"

#include <fcntl.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "util/buf.h"

#define BLOCK 4096

enum chunk_state {
	CHUNK_HOLE,   /* all zero, nothing anywhere */
	CHUNK_STORED, /* in the store only */
	CHUNK_CLEAN,  /* in the local file and in the store */
	CHUNK_DIRTY,  /* in the local file only */
};

struct chunk {
	enum chunk_state state;
	struct icm_sha256 sum; /* stored, clean */
};

struct icm_data {
	const char *work_dir;
	uint64_t size;
	char *mem; /* small form: `cap` bytes, zero behind size */
	size_t cap;
	int fd;		      /* large form: local file, else -1 */
	struct chunk *chunks; /* large form: n_chunks, those behind size are holes */
	size_t n_chunks;
	icm_data_fetch_fn fetch;
	void *fetch_data;
};

struct icm_data *icm_data_new(const char *work_dir)
{
	struct icm_data *d = icm_xcalloc(1, sizeof(*d));

	d->work_dir = work_dir;
	d->fd = -1;
	return d;
}

static void mem_reserve(struct icm_data *d, size_t want)
{
	size_t cap = d->cap ? d->cap : 1024;

	if (want <= d->cap)
		return;
	while (cap < want)
		cap *= 2;
	d->mem = icm_xrealloc(d->mem, cap);
	memset(d->mem + d->cap, 0, cap - d->cap);
	d->cap = cap;
}

struct icm_data *icm_data_from_bytes(const char *work_dir, const void *bytes, size_t len)
{
	struct icm_data *d = icm_data_new(work_dir);

	mem_reserve(d, len);
	if (len)
		memcpy(d->mem, bytes, len);
	d->size = len;
	return d;
}

struct icm_data *icm_data_free(struct icm_data *d)
{
	if (!d)
		return NULL;
	if (d->fd >= 0)
		close(d->fd);
	free(d->chunks);
	free(d->mem);
	free(d);
	return NULL;
}

static int open_work_file(const char *dir)
{
	int fd = open(dir, O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);

	if (fd < 0 && (errno == EOPNOTSUPP || errno == EISDIR || errno == EINVAL)) {
		/* a file system without O_TMPFILE */
		ICM_AUTOFREE char *path = icm_asprintf("%s/icmfs-XXXXXX", dir);

		fd = mkostemp(path, O_CLOEXEC);
		if (fd >= 0)
			unlink(path);
	}
	return fd < 0 ? -errno : fd;
}

static void reserve_chunks(struct icm_data *d, uint64_t size)
{
	size_t n = icm_chunk_count(size);

	if (n <= d->n_chunks)
		return;
	d->chunks = icm_xrealloc(d->chunks, n * sizeof(*d->chunks));
	memset(d->chunks + d->n_chunks, 0, (n - d->n_chunks) * sizeof(*d->chunks));
	d->n_chunks = n;
}

int icm_data_from_chunks(const char *work_dir, uint64_t size, const struct icm_chunk *chunks,
			 icm_data_fetch_fn fetch, void *userdata, struct icm_data **ret)
{
	struct icm_data *d = icm_data_new(work_dir);

	d->fd = open_work_file(work_dir);
	if (d->fd < 0) {
		int r = d->fd;

		icm_data_free(d);
		return r;
	}
	if (ftruncate(d->fd, (off_t)size) < 0) {
		int r = -errno;

		icm_data_free(d);
		return r;
	}
	d->size = size;
	d->fetch = fetch;
	d->fetch_data = userdata;
	reserve_chunks(d, size);
	for (size_t i = 0; i < icm_chunk_count(size); i++) {
		d->chunks[i].state = chunks[i].hole ? CHUNK_HOLE : CHUNK_STORED;
		d->chunks[i].sum = chunks[i].sum;
	}
	*ret = d;
	return 0;
}

uint64_t icm_data_size(const struct icm_data *d)
{
	return d->size;
}

static int write_all(int fd, const void *buf, size_t len, uint64_t off)
{
	const char *p = buf;

	while (len) {
		ssize_t n = pwrite(fd, p, len, (off_t)off);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		p += n;
		off += (uint64_t)n;
		len -= (size_t)n;
	}
	return 0;
}

static int read_all(int fd, void *buf, size_t len, uint64_t off)
{
	char *p = buf;

	while (len) {
		ssize_t n = pread(fd, p, len, (off_t)off);

		if (n < 0 && errno == EINTR)
			continue;
		if (n < 0)
			return -errno;
		if (n == 0) {
			memset(p, 0, len);
			return 0;
		}
		p += n;
		off += (uint64_t)n;
		len -= (size_t)n;
	}
	return 0;
}

/* Small form to large form. */
static int make_large(struct icm_data *d)
{
	int fd = open_work_file(d->work_dir);
	int r;

	if (fd < 0)
		return fd;
	r = write_all(fd, d->mem, d->size, 0);
	if (r < 0) {
		close(fd);
		return r;
	}
	d->fd = fd;
	reserve_chunks(d, d->size);
	for (size_t i = 0; i < icm_chunk_count(d->size); i++)
		d->chunks[i].state = CHUNK_DIRTY;
	free(d->mem);
	d->mem = NULL;
	d->cap = 0;
	return 0;
}

static size_t chunk_len(const struct icm_data *d, size_t i)
{
	uint64_t start = (uint64_t)i * ICM_CHUNK_BYTES;
	uint64_t left = d->size > start ? d->size - start : 0;

	return left < ICM_CHUNK_BYTES ? (size_t)left : (size_t)ICM_CHUNK_BYTES;
}

static int load_chunk(struct icm_data *d, size_t i)
{
	ICM_AUTOFREE char *buf = NULL;
	size_t len = chunk_len(d, i);
	int r;

	if (i >= d->n_chunks || d->chunks[i].state != CHUNK_STORED)
		return 0;
	buf = icm_xmalloc(len);
	r = d->fetch(d->fetch_data, &d->chunks[i].sum, buf, len);
	if (r < 0)
		return r;
	r = write_all(d->fd, buf, len, (uint64_t)i * ICM_CHUNK_BYTES);
	if (r < 0)
		return r;
	d->chunks[i].state = CHUNK_CLEAN;
	return 0;
}

/* First and last chunk of a range that isn't empty. */
static size_t first_chunk(uint64_t off)
{
	return (size_t)(off / ICM_CHUNK_BYTES);
}
static size_t last_chunk(uint64_t off, uint64_t len)
{
	return (size_t)((off + len - 1) / ICM_CHUNK_BYTES);
}

uint64_t icm_data_holes(const struct icm_data *d)
{
	uint64_t holes = 0;

	for (size_t i = 0; d->fd >= 0 && i < icm_chunk_count(d->size); i++)
		if (d->chunks[i].state == CHUNK_HOLE)
			holes += chunk_len(d, i);
	return holes;
}

bool icm_data_needs_fetch(const struct icm_data *d, uint64_t off, uint64_t len)
{
	if (d->fd < 0 || off >= d->size || !len)
		return false;
	if (len > d->size - off)
		len = d->size - off;
	for (size_t i = first_chunk(off); i <= last_chunk(off, len); i++)
		if (d->chunks[i].state == CHUNK_STORED)
			return true;
	return false;
}

ssize_t icm_data_read(struct icm_data *d, void *buf, size_t len, uint64_t off)
{
	int r;

	if (off >= d->size || !len)
		return 0;
	if (len > d->size - off)
		len = (size_t)(d->size - off);
	if (d->fd < 0) {
		memcpy(buf, d->mem + off, len);
		return (ssize_t)len;
	}
	for (size_t i = first_chunk(off); i <= last_chunk(off, len); i++) {
		r = load_chunk(d, i);
		if (r < 0)
			return r;
	}
	r = read_all(d->fd, buf, len, off);
	return r < 0 ? r : (ssize_t)len;
}

/* Before a change of [off, off+len): loads the chunks that it leaves in part as
 * they are. */
static int load_edges(struct icm_data *d, uint64_t off, uint64_t len)
{
	for (size_t i = first_chunk(off); i <= last_chunk(off, len); i++) {
		uint64_t start = (uint64_t)i * ICM_CHUNK_BYTES;
		bool whole = off <= start && off + len >= start + chunk_len(d, i);
		int r = whole ? 0 : load_chunk(d, i);

		if (r < 0)
			return r;
	}
	return 0;
}

/* After it: a chunk that wasn't loaded and may not have been written wholly
 * still is what the store has. */
static void mark_dirty(struct icm_data *d, uint64_t off, uint64_t len, bool done)
{
	for (size_t i = first_chunk(off); i <= last_chunk(off, len); i++)
		if (done || d->chunks[i].state != CHUNK_STORED)
			d->chunks[i].state = CHUNK_DIRTY;
}

/* A chunk gets another length, and its bytes stay. */
static int touch_chunk(struct icm_data *d, size_t i)
{
	int r = load_chunk(d, i);

	if (r == 0)
		d->chunks[i].state = CHUNK_DIRTY;
	return r;
}

int icm_data_write(struct icm_data *d, const void *buf, size_t len, uint64_t off)
{
	uint64_t end;
	int r;

	if (__builtin_add_overflow(off, len, &end) || end > ICM_FILE_SIZE_MAX)
		return -EFBIG;
	if (!len)
		return 0;
	if (d->fd < 0 && end <= ICM_PLAIN_MAX) {
		mem_reserve(d, (size_t)end);
		memcpy(d->mem + off, buf, len);
		if (end > d->size)
			d->size = end;
		return 0;
	}
	if (end > d->size) {
		r = icm_data_truncate(d, end);
		if (r < 0)
			return r;
	}
	if (d->fd < 0) {
		/* a small file that was made larger than small by truncate */
		r = make_large(d);
		if (r < 0)
			return r;
	}
	r = load_edges(d, off, len);
	if (r < 0)
		return r;
	r = write_all(d->fd, buf, len, off);
	mark_dirty(d, off, len, r == 0);
	return r;
}

static int truncate_small(struct icm_data *d, uint64_t size)
{
	mem_reserve(d, (size_t)size);
	if (size < d->size)
		memset(d->mem + size, 0, (size_t)(d->size - size));
	d->size = size;
	return 0;
}

int icm_data_truncate(struct icm_data *d, uint64_t size)
{
	uint64_t old = d->size;
	int r;

	if (size > ICM_FILE_SIZE_MAX)
		return -EFBIG;
	if (d->fd < 0 && size <= ICM_PLAIN_MAX)
		return truncate_small(d, size);
	if (size == 0 && d->fd >= 0) {
		/* starts again as a small one */
		close(d->fd);
		free(d->chunks);
		d->fd = -1;
		d->chunks = NULL;
		d->n_chunks = 0;
		d->size = 0;
		return 0;
	}
	if (d->fd < 0) {
		r = make_large(d);
		if (r < 0)
			return r;
	}
	/* the chunk that the old or the new end cuts gets other bytes, and a
	 * chunk's length is part of its sum */
	if (size < old && size % ICM_CHUNK_BYTES) {
		r = touch_chunk(d, first_chunk(size));
		if (r < 0)
			return r;
	} else if (size > old && old % ICM_CHUNK_BYTES) {
		r = touch_chunk(d, first_chunk(old));
		if (r < 0)
			return r;
	}
	if (ftruncate(d->fd, (off_t)size) < 0)
		return -errno;
	reserve_chunks(d, size);
	for (size_t i = icm_chunk_count(size); i < d->n_chunks; i++)
		d->chunks[i].state = CHUNK_HOLE;
	d->size = size;
	return 0;
}

static int write_zeroes(int fd, uint64_t off, uint64_t len)
{
	static const char zeroes[BLOCK];

	if (fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)off, (off_t)len) == 0)
		return 0;
	if (errno != EOPNOTSUPP)
		return -errno;
	while (len) {
		size_t n = len < BLOCK ? (size_t)len : BLOCK;
		int r = write_all(fd, zeroes, n, off);

		if (r < 0)
			return r;
		off += n;
		len -= n;
	}
	return 0;
}

static int zero_range(struct icm_data *d, uint64_t off, uint64_t len)
{
	int r;

	if (off >= d->size)
		return 0;
	if (len > d->size - off)
		len = d->size - off;
	if (!len)
		return 0;
	if (d->fd < 0) {
		memset(d->mem + off, 0, (size_t)len);
		return 0;
	}
	r = load_edges(d, off, len);
	if (r < 0)
		return r;
	r = write_zeroes(d->fd, off, len);
	mark_dirty(d, off, len, r == 0);
	return r;
}

int icm_data_fallocate(struct icm_data *d, int mode, uint64_t off, uint64_t len)
{
	bool keep = mode & FALLOC_FL_KEEP_SIZE;
	int what = mode & ~FALLOC_FL_KEEP_SIZE;
	uint64_t end;
	int r;

	if (__builtin_add_overflow(off, len, &end) || end > ICM_FILE_SIZE_MAX)
		return -EFBIG;
	if (what != 0 && what != FALLOC_FL_PUNCH_HOLE && what != FALLOC_FL_ZERO_RANGE)
		return -EOPNOTSUPP;
	if (what == FALLOC_FL_PUNCH_HOLE && !keep)
		return -EOPNOTSUPP;
	if (what != 0) {
		r = zero_range(d, off, len);
		if (r < 0)
			return r;
	}
	return !keep && end > d->size ? icm_data_truncate(d, end) : 0;
}

static bool all_zero(const char *p, size_t len)
{
	return len == 0 || (p[0] == 0 && memcmp(p, p + 1, len - 1) == 0);
}

/* Whether the 4 KiB block that holds `off` counts as a hole. */
static int block_is_hole(struct icm_data *d, uint64_t off)
{
	uint64_t start = off - off % BLOCK;
	size_t len = d->size - start < BLOCK ? (size_t)(d->size - start) : BLOCK;
	char block[BLOCK];
	int r;

	if (d->fd < 0)
		return all_zero(d->mem + start, len);
	if (d->chunks[first_chunk(off)].state == CHUNK_HOLE)
		return 1;
	r = load_chunk(d, first_chunk(off));
	if (r < 0)
		return r;
	r = read_all(d->fd, block, len, start);
	return r < 0 ? r : all_zero(block, len);
}

int64_t icm_data_seek(struct icm_data *d, uint64_t off, int whence)
{
	if (off >= d->size)
		return -ENXIO;
	while (off < d->size) {
		int hole = block_is_hole(d, off);
		uint64_t step = BLOCK;

		if (hole < 0)
			return hole;
		if ((whence == SEEK_HOLE) == (hole != 0))
			return (int64_t)off;
		if (d->fd >= 0 && d->chunks[first_chunk(off)].state == CHUNK_HOLE)
			step = ICM_CHUNK_BYTES;
		off = off - off % step + step;
	}
	return whence == SEEK_HOLE ? (int64_t)d->size : -ENXIO;
}

bool icm_data_is_plain(const struct icm_data *d)
{
	return d->size <= ICM_PLAIN_MAX;
}

int icm_data_bytes(struct icm_data *d, void **ret_bytes, size_t *ret_len)
{
	char *bytes = icm_xmalloc(d->size);
	ssize_t n = icm_data_read(d, bytes, d->size, 0);

	if (n < 0) {
		free(bytes);
		return (int)n;
	}
	*ret_bytes = bytes;
	*ret_len = (size_t)n;
	return 0;
}

int icm_data_next_dirty(struct icm_data *d, size_t *index, void **ret_bytes, size_t *ret_len,
			struct icm_sha256 *ret_sum)
{
	int r;

	if (d->fd < 0) {
		r = make_large(d);
		if (r < 0)
			return r;
	}
	for (size_t i = *index; i < icm_chunk_count(d->size); i++) {
		size_t len = chunk_len(d, i);
		ICM_AUTOFREE char *bytes = NULL;

		if (d->chunks[i].state != CHUNK_DIRTY)
			continue;
		bytes = icm_xmalloc(len);
		r = read_all(d->fd, bytes, len, (uint64_t)i * ICM_CHUNK_BYTES);
		if (r < 0)
			return r;
		if (all_zero(bytes, len)) {
			d->chunks[i].state = CHUNK_HOLE;
			continue;
		}
		d->chunks[i].state = CHUNK_CLEAN;
		d->chunks[i].sum = icm_sha256(bytes, len);
		*ret_sum = d->chunks[i].sum;
		*ret_bytes = ICM_STEAL(&bytes);
		*ret_len = len;
		*index = i;
		return 1;
	}
	return 0;
}

void icm_data_mark_dirty(struct icm_data *d, size_t index)
{
	/* it may have become shorter or small meanwhile */
	if (d->fd >= 0 && index < icm_chunk_count(d->size))
		d->chunks[index].state = CHUNK_DIRTY;
}

struct icm_chunk *icm_data_chunks(const struct icm_data *d, size_t *ret_n)
{
	size_t n = icm_chunk_count(d->size);
	struct icm_chunk *chunks = icm_xcalloc(n, sizeof(*chunks));

	for (size_t i = 0; i < n; i++) {
		chunks[i].hole = d->chunks[i].state == CHUNK_HOLE;
		if (!chunks[i].hole)
			chunks[i].sum = d->chunks[i].sum;
	}
	*ret_n = n;
	return chunks;
}

bool icm_data_has_dirty(const struct icm_data *d)
{
	if (d->fd < 0)
		return true;
	for (size_t i = 0; i < icm_chunk_count(d->size); i++)
		if (d->chunks[i].state == CHUNK_DIRTY)
			return true;
	return false;
}
