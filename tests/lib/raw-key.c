/* SPDX-License-Identifier: MIT
 * Another program in the store: writes and deletes keys by the drivers' interface,
 * knowing nothing of files.
 *
 *   raw-key STORE put KEY VALUE [FLAGS]
 *   raw-key STORE delete KEY
 *   raw-key STORE get KEY            prints the value; exit 1 when it is absent
 *   raw-key STORE list PREFIX        prints the keys, one a line */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "backends/backend.h"

static int write_key(struct icm_backend *be, const struct icm_op *op)
{
	ICM_AUTORESULT struct icm_txn_result res = { 0 };

	return icm_backend_txn(be, NULL, op, 1, &res);
}

static int get_key(struct icm_backend *be, const char *key)
{
	ICM_AUTOENTRY struct icm_entry e = { 0 };
	int r = icm_backend_get(be, NULL, key, &e);

	if (r == 0)
		fwrite(e.value, 1, e.len, stdout);
	return r;
}

static int list_keys(struct icm_backend *be, const char *prefix)
{
	ICM_AUTOENTRIES struct icm_entries list = { 0 };
	int r = icm_backend_list(be, NULL, prefix, true, &list, NULL);

	for (size_t i = 0; i < list.n; i++)
		puts(list.v[i].key);
	return r;
}

static int run(struct icm_backend *be, int argc, char **argv)
{
	struct icm_op op = { .key = argv[3] };

	if (!strcmp(argv[2], "get"))
		return get_key(be, argv[3]);
	if (!strcmp(argv[2], "list"))
		return list_keys(be, argv[3]);
	if (!strcmp(argv[2], "delete")) {
		op.type = ICM_OP_DELETE;
		return write_key(be, &op);
	}
	if (strcmp(argv[2], "put") != 0 || argc < 5)
		return -EINVAL;
	op.type = ICM_OP_SET;
	op.value = argv[4];
	op.len = strlen(argv[4]);
	op.flags = argc > 5 ? strtoull(argv[5], NULL, 10) : 0;
	return write_key(be, &op);
}

int main(int argc, char **argv)
{
	struct icm_open_options options = { .create = true };
	struct icm_backend *be = NULL;
	ICM_AUTOFREE char *error = NULL;
	int r = argc < 4 ? -EINVAL : icm_backend_open(argv[1], &options, &be, &error);

	if (r == 0)
		r = icm_backend_start(be);
	if (r == 0)
		r = run(be, argc, argv);
	icm_backend_close(be);
	if (r < 0)
		fprintf(stderr, "raw-key: %s\n", error ? error : strerror(-r));
	return r < 0;
}
