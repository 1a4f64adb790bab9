/* SPDX-License-Identifier: MIT
 * A tree of files that is read or written by paths: a plain directory (also
 * one inside a mount), or a volume without a mount. What import copies from
 * and to. Paths are as in key.h: relative, "" is the root; no symbolic link is
 * followed, no path leaves the root. */
#ifndef ICM_CORE_PORT_H
#define ICM_CORE_PORT_H

#include <stdbool.h>
#include <sys/stat.h>
#include <sys/types.h>

#include "core/record.h"
#include "util/attrs.h"

struct icm_volume;
struct icm_port;
struct icm_port_file; /* an open regular file */

struct icm_port_names {
	char **v; /* owned; sorted by bytes */
	size_t n;
};
void icm_port_names_clear(struct icm_port_names *names);

struct icm_port_xattrs {
	struct icm_xattr *v; /* owned; sorted by name; user.* only */
	size_t n;
};
void icm_port_xattrs_clear(struct icm_port_xattrs *xattrs);

/* All return 0 (or a count) or a negative errno. `file` may be NULL where a
 * path stands beside it: then the path decides. */
struct icm_port_ops {
	int (*stat)(struct icm_port *p, const char *path, struct stat *ret);
	int (*list)(struct icm_port *p, const char *path, struct icm_port_names *ret);
	int (*readlink)(struct icm_port *p, const char *path, char **ret_target);
	int (*xattrs)(struct icm_port *p, const char *path, struct icm_port_xattrs *ret);

	int (*mkdir)(struct icm_port *p, const char *path, mode_t mode);
	int (*symlink)(struct icm_port *p, const char *path, const char *target);
	int (*mknod)(struct icm_port *p, const char *path, mode_t mode, dev_t rdev);
	int (*link)(struct icm_port *p, const char *from, const char *path);
	int (*remove)(struct icm_port *p, const char *path, bool is_dir);
	/* Owner (as root only), mode (not of symbolic links), atime and mtime. */
	int (*set)(struct icm_port *p, const char *path, struct icm_port_file *file,
		   const struct stat *st);
	/* value NULL removes. */
	int (*set_xattr)(struct icm_port *p, const char *path, struct icm_port_file *file,
			 const char *name, const void *value, size_t len);

	/* O_RDONLY, or O_WRONLY|O_TRUNC|O_CREAT (then private until `set`). */
	int (*open)(struct icm_port *p, const char *path, int flags, struct icm_port_file **ret);
	ssize_t (*read)(struct icm_port *p, struct icm_port_file *f, void *buf, size_t len,
			off_t off);
	/* All of it. */
	int (*write)(struct icm_port *p, struct icm_port_file *f, const void *buf, size_t len,
		     off_t off);
	int (*truncate)(struct icm_port *p, struct icm_port_file *f, off_t size);
	/* SEEK_DATA, SEEK_HOLE; -ENXIO. */
	off_t (*seek)(struct icm_port *p, struct icm_port_file *f, off_t off, int whence);
	/* Publishes what was written and frees the file. */
	int (*close)(struct icm_port *p, struct icm_port_file *f);
	void (*free)(struct icm_port *p);
};

/* Embedded first by each kind. */
struct icm_port {
	const struct icm_port_ops *ops;
};

/* A directory, by a path that may contain symbolic links itself. */
int icm_port_open_dir(const char *path, struct icm_port **ret) ICM_MUST_CHECK;
/* A started volume, which outlives the port. */
struct icm_port *icm_port_of_volume(struct icm_volume *vol);
/* Takes NULL; returns NULL. */
struct icm_port *icm_port_free(struct icm_port *p);

#endif
