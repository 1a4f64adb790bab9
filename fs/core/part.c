/* SPDX-License-Identifier: MIT */
#include <string.h>

#include "core/commit.h"
#include "core/key.h"

static size_t add_op(struct icm_part *p, struct icm_op op)
{
	if (p->n_ops == p->cap_ops) {
		p->cap_ops = p->cap_ops ? p->cap_ops * 2 : 16;
		p->ops = icm_xrealloc(p->ops, p->cap_ops * sizeof(*p->ops));
	}
	p->ops[p->n_ops] = op;
	return p->n_ops++;
}

size_t icm_part_check_index(struct icm_part *p, char *key, uint64_t index)
{
	return add_op(p, (struct icm_op){ ICM_OP_CHECK_INDEX, .key = key, .index = index });
}

size_t icm_part_check_absent(struct icm_part *p, char *key)
{
	return add_op(p, (struct icm_op){ ICM_OP_CHECK_ABSENT, .key = key });
}

size_t icm_part_set(struct icm_part *p, char *key, void *value, size_t len, uint64_t flags)
{
	return add_op(p, (struct icm_op){ ICM_OP_SET, key, value, len, flags, 0 });
}

size_t icm_part_cas(struct icm_part *p, char *key, uint64_t index, void *value, size_t len,
		    uint64_t flags)
{
	return add_op(p, (struct icm_op){ ICM_OP_CAS, key, value, len, flags, index });
}

size_t icm_part_read(struct icm_part *p, char *key)
{
	return add_op(p, (struct icm_op){ ICM_OP_GET_TREE, .key = key });
}

size_t icm_part_delete(struct icm_part *p, char *key)
{
	return add_op(p, (struct icm_op){ ICM_OP_DELETE, .key = key });
}

size_t icm_part_delete_cas(struct icm_part *p, char *key, uint64_t index)
{
	return add_op(p, (struct icm_op){ ICM_OP_DELETE_CAS, .key = key, .index = index });
}

void icm_part_cut(struct icm_part *p, size_t n)
{
	while (p->n_ops > n) {
		p->n_ops--;
		free((char *)p->ops[p->n_ops].key);
		free((void *)p->ops[p->n_ops].value);
	}
}

struct icm_change *icm_part_change(struct icm_part *p, enum icm_change_op op, const char *path,
				   const char *to, struct timespec time,
				   const struct icm_attr *attr)
{
	struct icm_change *c;

	if (p->n_changes == p->cap_changes) {
		p->cap_changes = p->cap_changes ? p->cap_changes * 2 : 2;
		p->changes = icm_xrealloc(p->changes, p->cap_changes * sizeof(*p->changes));
	}
	c = &p->changes[p->n_changes++];
	*c = (struct icm_change){
		.op = op, .path = icm_xstrdup(path), .to = to ? icm_xstrdup(to) : NULL, .time = time
	};
	if (attr) {
		c->has_attr = true;
		icm_attr_copy(&c->attr, attr);
	}
	return c;
}

size_t icm_part_names_change(struct icm_part *p, const char *dir, uint64_t dir_attr_index,
			     struct timespec now)
{
	struct icm_dir_times times = { .mtime = now, .ctime = now };
	char *value;
	size_t check, len;

	icm_random_id(times.id);
	value = icm_dir_times_encode(&times, &len);
	check = icm_part_check_index(p, icm_key_attr(dir), dir_attr_index);
	icm_part_set(p, icm_key_tree_dir(dir), value, len, 0);
	return check;
}

void icm_part_history(struct icm_volume *vol, struct icm_part *p, const char *path, uint64_t index,
		      const struct icm_attr *attr, const struct icm_content *plain,
		      const struct icm_record *record, struct timespec now)
{
	struct icm_hist hist = {
		.attr = *attr,
		.plain = plain != NULL,
		.until = now,
		.host = vol->host,
		.user = vol->user,
	};
	char *value;
	size_t len;

	if (record)
		hist.record = *record;
	value = icm_hist_encode(&hist, &len);
	icm_part_set(p, icm_key_hist(path, index), value, len, 0);
	/* what doesn't fit beside the new contents goes one round trip before; if that
	 * fails, the transaction tells */
	if (plain && vol->be->facts.max_txn_bytes &&
	    plain->len > vol->be->facts.max_txn_bytes / 8 &&
	    icm_put_blob(vol, &attr->hash, plain->bytes, plain->len) == 0)
		return;
	if (plain)
		icm_part_set(p, icm_key_blob(&attr->hash), icm_xmemdup(plain->bytes, plain->len),
			     plain->len, 0);
}

void icm_part_clear(struct icm_part *p)
{
	icm_part_cut(p, 0);
	for (size_t i = 0; i < p->n_changes; i++)
		icm_change_clear(&p->changes[i]);
	free(p->ops);
	free(p->changes);
	*p = (struct icm_part)ICM_PART_INIT;
}
