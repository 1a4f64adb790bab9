/* SPDX-License-Identifier: MIT */
#include "cli/find.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#include "core/control.h"
#include "util/buf.h"

#define STATUS_MAX ((size_t)1 << 20)

/* -ENOENT when `dir` isn't the root of a mount. */
static int read_status(const char *dir, struct icm_buf *text)
{
	ICM_AUTOFREE char *path =
		icm_asprintf("%s/" ICM_CONTROL_NAME "/status", strcmp(dir, "/") ? dir : "");
	ICM_AUTOCLOSE int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);

	if (fd < 0)
		return errno == ENOTDIR ? -ENOENT : -errno;
	for (;;) {
		ssize_t n;
		int r = icm_buf_reserve(text, 4096);

		if (r < 0)
			return -EPROTO;
		n = read(fd, text->data + text->len, 4096);
		if (n < 0)
			return -errno;
		if (n == 0)
			return 0;
		text->len += (size_t)n;
		text->data[text->len] = '\0';
	}
}

static int find(char *dir, json_t **ret_status)
{
	ICM_CLEANUP(icm_buf_freep) struct icm_buf text = ICM_BUF_INIT(STATUS_MAX);
	json_t *status;
	int r;

	while ((r = read_status(dir, &text)) == -ENOENT) {
		char *slash = strrchr(dir, '/');

		if (!strcmp(dir, "/"))
			return -ENOENT;
		slash[slash == dir] = '\0';
	}
	if (r < 0)
		return r;
	status = json_loadb(text.data ? text.data : "", text.len, JSON_REJECT_DUPLICATES, NULL);
	if (!json_is_object(status) || !json_is_string(json_object_get(status, "store"))) {
		json_decref(status);
		return -EPROTO;
	}
	*ret_status = status;
	return 0;
}

int icm_find_mount(const char *path, char **ret_root, json_t **ret_status)
{
	ICM_AUTOFREE char *dir = realpath(path, NULL);
	int r;

	if (!dir)
		return -errno;
	r = find(dir, ret_status);
	if (r < 0)
		return r;
	*ret_root = ICM_STEAL(&dir);
	return 0;
}
