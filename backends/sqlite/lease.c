/* SPDX-License-Identifier: MIT
 * Leases last as long as their process. A lease is dead when the machine was
 * booted anew, its process is gone, or its pid belongs to another process now.
 * Whoever looks at a lease key removes it when it is dead; nobody polls.
 * Processes in different pid namespaces can't judge each other: a store must
 * not be shared over such a boundary (docs/backends.md). */
#include "backends/sqlite/sqlite.h"

#include <fcntl.h>
#include <signal.h>
#include <string.h>

#include "util/digest.h"

/* Reads a small file of the kernel's into a string. */
static int read_text(const char *path, char *text, size_t size)
{
	ICM_AUTOCLOSE int fd = open(path, O_RDONLY | O_CLOEXEC);
	ssize_t n;

	if (fd < 0)
		return -errno;
	n = read(fd, text, size - 1);
	if (n < 0)
		return -errno;
	text[n] = '\0';
	return 0;
}

/* The start time of a process and whether it still runs; -ESRCH when it is
 * gone, another code when it can't be told. */
static int process_start(pid_t pid, int64_t *ret_start)
{
	char path[64], text[1024], state;
	long long start;
	long threads;
	const char *p;
	int r;

	snprintf(path, sizeof(path), "/proc/%d/stat", (int)pid);
	r = read_text(path, text, sizeof(text));
	if (r)
		return r == -ENOENT ? -ESRCH : r;
	/* the name in parentheses may hold anything, parentheses too */
	p = strrchr(text, ')');
	if (!p || sscanf(p + 1,
			 " %c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %*u %*u %*d %*d %*d %*d %ld "
			 "%*d %lld",
			 &state, &threads, &start) != 3)
		return -EIO;
	/* Killed and not yet waited for; a main thread that left its others
	 * behind is a zombie as well. */
	if ((state == 'Z' || state == 'X') && threads <= 1)
		return -ESRCH;
	*ret_start = start;
	return 0;
}

int identity_of_self(struct identity *ret)
{
	int r;

	r = read_text("/proc/sys/kernel/random/boot_id", ret->boot, sizeof(ret->boot));
	if (r)
		return r;
	ret->boot[strcspn(ret->boot, "\n")] = '\0';
	ret->pid = getpid();
	return process_start(ret->pid, &ret->start);
}

static bool is_dead(const struct icm_sqlite *s, const struct identity *id)
{
	int64_t start;
	int r;

	if (strcmp(id->boot, s->self.boot))
		return true;
	if (id->pid == s->self.pid)
		return id->start != s->self.start;
	/* Other users' processes may be hidden in /proc, not from this. */
	if (kill(id->pid, 0) < 0 && errno == ESRCH)
		return true;
	r = process_start(id->pid, &start);
	if (r == -ESRCH)
		return kill(id->pid, 0) == 0;
	return !r && start != id->start;
}

struct dead {
	char **keys; /* owned */
	size_t n;
};

static void dead_clear(struct dead *d)
{
	for (size_t i = 0; i < d->n; i++)
		free(d->keys[i]);
	free(d->keys);
	*d = (struct dead){ 0 };
}

static int find_dead(struct icm_sqlite *s, const struct icm_ctx *ctx, const char *from,
		     const char *to, struct dead *dead)
{
	sqlite3_stmt *st = NULL;
	struct connection *c;
	int r;

	r = reader_take(s, ctx, &c);
	if (r)
		return r;
	r = connection_prepare(c, ST_LEASES, &st);
	if (!r) {
		sqlite3_bind_text(st, 1, from, -1, SQLITE_STATIC);
		sqlite3_bind_text(st, 2, to, -1, SQLITE_STATIC);
		while ((r = connection_step(c, st)) > 0) {
			struct identity id = { .pid = sqlite3_column_int(st, 2),
					       .start = sqlite3_column_int64(st, 3) };

			snprintf(id.boot, sizeof(id.boot), "%s",
				 (const char *)sqlite3_column_text(st, 1));
			if (!is_dead(s, &id))
				continue;
			dead->keys = icm_xrealloc(dead->keys, (dead->n + 1) * sizeof(char *));
			dead->keys[dead->n++] =
				icm_xstrdup((const char *)sqlite3_column_text(st, 0));
		}
	}
	statement_resetp(&st);
	reader_give(s, c);
	return r;
}

/* In a transaction of its own, so that it holds whatever becomes of the call
 * that found them. Names of leases are never used again: what was dead is. */
static int remove_dead(struct icm_sqlite *s, const struct icm_ctx *ctx, const struct dead *dead)
{
	struct connection *c;
	bool changed = false;
	uint64_t index;
	int r;

	r = write_begin(s, ctx, &c, &index);
	if (r)
		return r;
	for (size_t i = 0; i < dead->n && !r; i++)
		r = key_delete(c, dead->keys[i], &changed);
	return write_end(s, c, index, changed, r);
}

/* Removes the dead ones among the keys from `from` up to before `to`. */
static int reap(struct icm_sqlite *s, const struct icm_ctx *ctx, const char *from, const char *to)
{
	struct dead dead = { 0 };
	int r;

	/* Who can't write sees them until somebody else looks. */
	if (s->be.facts.read_only)
		return 0;
	r = find_dead(s, ctx, from, to, &dead);
	if (!r && dead.n)
		r = remove_dead(s, ctx, &dead);
	dead_clear(&dead);
	return r;
}

/* Every transaction of a mount checks its own lease: that one lives as long as
 * this process, and nobody has to look. */
static bool is_own(const struct icm_sqlite *s, const char *key)
{
	return !strncmp(key + strlen("lease/"), s->nonce, ICM_ID_HEX);
}

int lease_reap_key(struct icm_sqlite *s, const struct icm_ctx *ctx, const char *key)
{
	ICM_AUTOFREE char *to = NULL;

	if (is_own(s, key))
		return 0;
	/* the next string behind the key */
	to = icm_asprintf("%s\x01", key);
	return reap(s, ctx, key, to);
}

int lease_reap_prefix(struct icm_sqlite *s, const struct icm_ctx *ctx, const char *prefix)
{
	ICM_AUTOFREE char *to = NULL;

	if (strncmp(prefix, "lease/", strnlen(prefix, 6)))
		return 0;
	to = prefix_end(prefix);
	return reap(s, ctx, prefix, to);
}

/* ---- the driver's calls ---- */

static int lease_add(struct connection *c, const struct identity *id, const char *key)
{
	STATEMENT_AUTO sqlite3_stmt *st = NULL;
	int r;

	r = connection_prepare(c, ST_LEASE_ADD, &st);
	if (r)
		return r;
	sqlite3_bind_text(st, 1, key, -1, SQLITE_STATIC);
	sqlite3_bind_text(st, 2, id->boot, -1, SQLITE_STATIC);
	sqlite3_bind_int64(st, 3, id->pid);
	sqlite3_bind_int64(st, 4, id->start);
	return connection_step(c, st);
}

int sqlite_lease_open(struct icm_backend *be, const struct icm_ctx *ctx, uint32_t ttl_ms,
		      const void *value, size_t len, struct icm_lease *ret_lease)
{
	struct icm_op op = { .type = ICM_OP_SET, .value = value, .len = len };
	struct icm_sqlite *s = sqlite_of(be);
	ICM_AUTOFREE char *key = NULL;
	struct connection *c;
	bool changed = false;
	uint64_t index;
	int r;

	r = lease_reap_prefix(s, ctx, "lease/");
	if (r)
		return r;
	op.key = key = icm_asprintf("lease/%s%x", s->nonce, atomic_fetch_add(&s->n_leases, 1));
	r = write_begin(s, ctx, &c, &index);
	if (r)
		return r;
	r = lease_add(c, &s->self, key);
	if (!r)
		r = key_set(c, &op, index, &changed);
	r = write_end(s, c, index, changed, r);
	if (r)
		return r;
	ret_lease->key = ICM_STEAL(&key);
	ret_lease->index = index;
	ret_lease->ttl_ms = ttl_ms;
	return 0;
}

static int lease_exists(struct icm_sqlite *s, const struct icm_ctx *ctx, const char *key)
{
	ICM_AUTOFREE char *to = icm_asprintf("%s\x01", key);
	sqlite3_stmt *st = NULL;
	struct connection *c;
	int r;

	r = reader_take(s, ctx, &c);
	if (r)
		return r;
	r = connection_prepare(c, ST_LEASES, &st);
	if (!r) {
		sqlite3_bind_text(st, 1, key, -1, SQLITE_STATIC);
		sqlite3_bind_text(st, 2, to, -1, SQLITE_STATIC);
		r = connection_step(c, st);
	}
	statement_resetp(&st);
	reader_give(s, c);
	return r < 0 ? r : r ? 0 : -ENOENT;
}

int sqlite_lease_renew(struct icm_backend *be, const struct icm_ctx *ctx,
		       const struct icm_lease *lease)
{
	struct icm_sqlite *s = sqlite_of(be);
	int r;

	/* The one regular occasion to clear away what died untouched. */
	r = lease_reap_prefix(s, ctx, "lease/");
	return r ? r : lease_exists(s, ctx, lease->key);
}

int sqlite_lease_close(struct icm_backend *be, const struct icm_ctx *ctx,
		       const struct icm_lease *lease)
{
	struct icm_sqlite *s = sqlite_of(be);
	struct connection *c;
	bool changed = false;
	uint64_t index;
	int r;

	r = lease_exists(s, ctx, lease->key);
	if (r)
		return r == -ENOENT ? 0 : r;
	r = write_begin(s, ctx, &c, &index);
	if (r)
		return r;
	r = key_delete(c, lease->key, &changed);
	return write_end(s, c, index, changed, r);
}
