/* SPDX-License-Identifier: MIT */
#include "core/port.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "core/port-common.h"
#include "util/buf.h"

void icm_port_names_clear(struct icm_port_names *names)
{
	for (size_t i = 0; i < names->n; i++)
		free(names->v[i]);
	free(names->v);
	*names = (struct icm_port_names){ 0 };
}

void icm_port_names_add(struct icm_port_names *names, const char *name)
{
	if (!(names->n & (names->n - 1)))
		names->v =
			icm_xrealloc(names->v, (names->n ? 2 * names->n : 1) * sizeof(*names->v));
	names->v[names->n++] = icm_xstrdup(name);
}

static int compare_names(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

void icm_port_names_sort(struct icm_port_names *names)
{
	if (names->n)
		qsort(names->v, names->n, sizeof(*names->v), compare_names);
}

void icm_port_xattrs_clear(struct icm_port_xattrs *xattrs)
{
	for (size_t i = 0; i < xattrs->n; i++) {
		free(xattrs->v[i].name);
		free(xattrs->v[i].value);
	}
	free(xattrs->v);
	*xattrs = (struct icm_port_xattrs){ 0 };
}

static int compare_xattrs(const void *a, const void *b)
{
	return strcmp(((const struct icm_xattr *)a)->name, ((const struct icm_xattr *)b)->name);
}

/* Adds the value of one attribute; one that went meanwhile is left out. */
static int add_xattr(const struct icm_xattr_source *s, const char *name,
		     struct icm_port_xattrs *xattrs)
{
	ICM_AUTOFREE char *value = icm_xmalloc(ICM_XATTR_VALUE_MAX);
	ssize_t n = s->get(s->object, name, value, ICM_XATTR_VALUE_MAX);

	if (n == -ENODATA)
		return 0;
	if (n < 0)
		return (int)n;
	xattrs->v = icm_xrealloc(xattrs->v, (xattrs->n + 1) * sizeof(*xattrs->v));
	xattrs->v[xattrs->n++] = (struct icm_xattr){ .name = icm_xstrdup(name),
						     .value = icm_xmemdup(value, (size_t)n),
						     .len = (size_t)n };
	return 0;
}

int icm_port_xattrs_read(const struct icm_xattr_source *s, struct icm_port_xattrs *ret)
{
	ICM_CLEANUP(icm_port_xattrs_clear) struct icm_port_xattrs xattrs = { 0 };
	ICM_AUTOFREE char *names = icm_xmalloc(ICM_XATTR_VALUE_MAX);
	ssize_t len = s->list(s->object, names, ICM_XATTR_VALUE_MAX);

	if (len == -EOPNOTSUPP || len == -ENOSYS)
		len = 0;
	if (len < 0)
		return (int)len;
	for (const char *name = names; name < names + len; name += strlen(name) + 1) {
		int r = strncmp(name, "user.", 5) ? 0 : add_xattr(s, name, &xattrs);

		if (r < 0)
			return r;
	}
	if (xattrs.n)
		qsort(xattrs.v, xattrs.n, sizeof(*xattrs.v), compare_xattrs);
	*ret = xattrs;
	xattrs = (struct icm_port_xattrs){ 0 };
	return 0;
}

struct icm_port *icm_port_free(struct icm_port *p)
{
	if (p)
		p->ops->free(p);
	return NULL;
}
