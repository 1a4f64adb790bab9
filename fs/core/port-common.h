/* SPDX-License-Identifier: MIT
 * What the kinds of port do alike, and whoever else copies local files. */
#ifndef ICM_CORE_PORT_COMMON_H
#define ICM_CORE_PORT_COMMON_H

#include "core/port.h"

/* Adds a name (copied); icm_port_names_sort puts them in order at the end. */
void icm_port_names_add(struct icm_port_names *names, const char *name);
void icm_port_names_sort(struct icm_port_names *names);

/* getxattr and listxattr of one object. */
struct icm_xattr_source {
	ssize_t (*list)(void *object, char *buf, size_t size);
	ssize_t (*get)(void *object, const char *name, void *buf, size_t size);
	void *object;
};
/* All user.* attributes; none where the file system has none. */
int icm_port_xattrs_read(const struct icm_xattr_source *source, struct icm_port_xattrs *ret);
/* The same of an open local file. */
int icm_port_xattrs_of_fd(int fd, struct icm_port_xattrs *ret);

#endif
