/* SPDX-License-Identifier: MIT */
#include "core/deployment.h"

#include <errno.h>
#include <sys/stat.h>

#include "core/key.h"
#include "core/record.h"
#include "util/clock.h"

int icm_deployment_create(struct icm_backend *be, const struct icm_ctx *ctx, const char *name,
			  uid_t uid, gid_t gid)
{
	struct timespec now = icm_wall_time();
	const struct icm_meta meta = { .format = ICM_FORMAT_VERSION,
				       .name = (char *)name,
				       .created = now };
	struct icm_attr root = { .ino = ICM_INO_ROOT,
				 .mode = S_IFDIR | 0700,
				 .uid = uid,
				 .gid = gid,
				 .nlink = 1,
				 .atime = now,
				 .mtime = now,
				 .ctime = now };
	struct icm_dir_times times = { .mtime = now, .ctime = now };
	struct icm_op ops[] = {
		{ .type = ICM_OP_CAS, .key = ICM_KEY_META },
		{ .type = ICM_OP_CAS, .key = "attr/" },
		{ .type = ICM_OP_SET, .key = "tree/" },
		{ .type = ICM_OP_SET, .key = ICM_KEY_FLOOR, .value = "0", .len = 1 },
	};
	ICM_AUTORESULT struct icm_txn_result result = { 0 };
	ICM_AUTOFREE char *meta_text = icm_meta_encode(&meta, &ops[0].len);
	ICM_AUTOFREE char *root_text = NULL;
	ICM_AUTOFREE char *times_text = NULL;
	int r;

	icm_random_id(root.id);
	icm_random_id(times.id);
	root_text = icm_attr_encode(&root, &ops[1].len);
	times_text = icm_dir_times_encode(&times, &ops[2].len);
	ops[0].value = meta_text;
	ops[1].value = root_text;
	ops[2].value = times_text;
	r = icm_backend_txn(be, ctx, ops, ICM_COUNT(ops), &result);
	return r == -ESTALE ? -EEXIST : r;
}
