/* SPDX-License-Identifier: MIT
 * Extended attributes. The kernel asks for security.capability before every
 * write(2), and would stop asking for anything if it were told ENOSYS: so
 * what can't exist is answered here, from memory. */
#include <string.h>

#include "fuse-ops.h"
#include "util/buf.h"

static bool has_prefix(const char *name, const char *prefix)
{
	return !strncmp(name, prefix, strlen(prefix));
}

/* 0: a name for the core. */
static int refuse(const char *name, bool reading)
{
	if (has_prefix(name, "security."))
		return reading ? -ENODATA : -EOPNOTSUPP;
	if (has_prefix(name, "system."))
		return -EOPNOTSUPP;
	return 0;
}

/* `size` 0 asks for the length alone. */
static void reply(struct icm_req *r, ssize_t n, const void *buf)
{
	if (n < 0 || r->size > 0) {
		icm_reply_buf(r, n, buf);
	} else if (icm_req_claim(r)) {
		fuse_reply_xattr(r->req, (size_t)n);
		icm_req_answered(r);
	}
}

static int getxattr_run(struct icm_req *r)
{
	ICM_AUTOFREE char *buf = r->size ? icm_xmalloc(r->size) : NULL;
	ssize_t n = icm_fs_getxattr(r->view, &r->call, r->name, buf, r->size);

	if (n == ICM_WOULD_WAIT)
		return ICM_WOULD_WAIT;
	reply(r, n, buf);
	return 0;
}

void icm_op_getxattr(fuse_req_t req, fuse_ino_t node, const char *name, size_t size)
{
	int err = refuse(name, true);
	struct icm_req r;

	if (err) {
		fuse_reply_err(req, -err);
		return;
	}
	if (!icm_req_init(&r, req, node, getxattr_run))
		return;
	r.name = name;
	r.size = size;
	icm_req_try(&r);
}

static int listxattr_run(struct icm_req *r)
{
	ICM_AUTOFREE char *buf = r->size ? icm_xmalloc(r->size) : NULL;
	ssize_t n = icm_fs_listxattr(r->view, &r->call, buf, r->size);

	if (n == ICM_WOULD_WAIT)
		return ICM_WOULD_WAIT;
	reply(r, n, buf);
	return 0;
}

void icm_op_listxattr(fuse_req_t req, fuse_ino_t node, size_t size)
{
	struct icm_req r;

	if (!icm_req_init(&r, req, node, listxattr_run))
		return;
	r.size = size;
	icm_req_try(&r);
}

static int setxattr_run(struct icm_req *r)
{
	int err = icm_fs_setxattr(r->view, &r->call, r->name, r->data, r->size, r->flags);

	if (err == ICM_WOULD_WAIT)
		return err;
	icm_reply_err(r, err);
	return 0;
}

void icm_op_setxattr(fuse_req_t req, fuse_ino_t node, const char *name, const char *value,
		     size_t size, int flags)
{
	int err = refuse(name, false);
	struct icm_req r;

	if (err) {
		fuse_reply_err(req, -err);
		return;
	}
	if (!icm_req_init(&r, req, node, setxattr_run))
		return;
	r.name = name;
	r.data = value;
	r.size = size;
	r.flags = flags;
	icm_req_store(&r, ICM_LANE_STORE);
}

static int removexattr_run(struct icm_req *r)
{
	int err = icm_fs_removexattr(r->view, &r->call, r->name);

	if (err == ICM_WOULD_WAIT)
		return err;
	icm_reply_err(r, err);
	return 0;
}

void icm_op_removexattr(fuse_req_t req, fuse_ino_t node, const char *name)
{
	int err = refuse(name, false);
	struct icm_req r;

	if (err) {
		fuse_reply_err(req, -err);
		return;
	}
	if (!icm_req_init(&r, req, node, removexattr_run))
		return;
	r.name = name;
	icm_req_store(&r, ICM_LANE_STORE);
}
