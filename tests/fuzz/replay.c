/* SPDX-License-Identifier: MIT
 * Runs a fuzz target on files, without libFuzzer and so with any compiler: each
 * file of a folder given, in TAP. A finding ends the process. */
#include "tests/fuzz/fuzz.h"

#include <dirent.h>
#include <errno.h>

static int read_file(const char *path, struct icm_buf *b)
{
	ICM_AUTOFCLOSE FILE *f = fopen(path, "re");
	char part[4096];
	size_t n;

	if (!f)
		return -errno;
	while ((n = fread(part, 1, sizeof(part), f)))
		icm_buf_add(b, part, n);
	return ferror(f) ? -EIO : 0;
}

static int run_file(const char *path)
{
	ICM_AUTOBUF struct icm_buf b = ICM_BUF_INIT(0);
	ICM_AUTOFREE uint8_t *bytes = NULL;
	int r = read_file(path, &b);

	if (r < 0)
		return r;
	/* a block of just this size, so that a sanitizer sees a read behind it */
	bytes = malloc(b.len);
	if (b.len) {
		FUZZ_REQUIRE(bytes);
		memcpy(bytes, b.data, b.len);
	}
	return LLVMFuzzerTestOneInput(bytes, b.len);
}

static int not_hidden(const struct dirent *entry)
{
	return entry->d_name[0] != '.';
}

int main(int argc, char **argv)
{
	struct dirent **entries = NULL;
	int n, failed = 0;

	if (argc != 2) {
		fprintf(stderr, "usage: %s FOLDER\n", argv[0]);
		return 2;
	}
	n = scandir(argv[1], &entries, not_hidden, alphasort);
	if (n < 0) {
		perror(argv[1]);
		return 2;
	}
	printf("1..%d\n", n);
	for (int i = 0; i < n; i++) {
		ICM_AUTOFREE char *path = icm_asprintf("%s/%s", argv[1], entries[i]->d_name);
		int r = run_file(path);

		printf("%s %d - %s\n", r ? "not ok" : "ok", i + 1, entries[i]->d_name);
		fflush(stdout);
		failed += r != 0;
		free(entries[i]);
	}
	free(entries);
	return failed || !n;
}
