/* SPDX-License-Identifier: MIT
 * Another program in the store of a test, which knows nothing of files: `raw`
 * writes and deletes keys by the drivers' interface. Failures end the test. */
#ifndef ICM_TESTS_UNIT_RAW_STORE_H
#define ICM_TESTS_UNIT_RAW_STORE_H

#include <sys/stat.h>

#include "backends/memory/memory.h"
#include "core/check.h"
#include "core/record.h"
#include "tests/unit/core-mount.h"

static struct icm_backend *raw; /* opened by the test */

static inline void put_flags(const char *key, const char *value, uint64_t flags)
{
	ICM_AUTORESULT struct icm_txn_result res = { 0 };
	struct icm_op op = { ICM_OP_SET, key, value, strlen(value), flags, 0 };

	cr_assert_eq(icm_backend_txn(raw, NULL, &op, 1, &res), 0);
}

static inline void put(const char *key, const char *value)
{
	put_flags(key, value, ICM_FLAGS_PLAIN);
}

static inline void drop(const char *key)
{
	ICM_AUTORESULT struct icm_txn_result res = { 0 };
	struct icm_op op = { .type = ICM_OP_DELETE, .key = key };

	cr_assert_eq(icm_backend_txn(raw, NULL, &op, 1, &res), 0);
}

static inline bool has_key(const char *key)
{
	ICM_AUTOENTRY struct icm_entry e = { 0 };

	return icm_backend_get(raw, NULL, key, &e) == 0;
}

static inline bool is_there(struct icm_volume *vol, const char *path)
{
	struct stat st;

	return stat_path(vol, path, &st) == 0;
}

/* Problems that check reports at a key, and (key NULL) all but notes. */
static inline size_t problems(const char *key)
{
	struct icm_check_report report;
	char *error = NULL;
	size_t n = 0;

	cr_assert_eq(icm_check_store(raw, &report, &error), 0, "%s", error ? error : "");
	for (size_t i = 0; i < report.n_problems; i++) {
		if (!key && report.problems[i].severity != ICM_SEVERITY_NOTE)
			fprintf(stderr, "%s: %s\n", report.problems[i].key,
				report.problems[i].what);
		n += key && strcmp(report.problems[i].key, key) == 0;
	}
	if (!key)
		n = report.n_bad;
	icm_check_report_clear(&report);
	return n;
}

static inline int count_entry(void *userdata, const struct icm_dirent *e)
{
	++*(size_t *)userdata;
	return 0;
}

static inline size_t count_entries(struct icm_volume *vol)
{
	struct icm_handle *h = NULL;
	size_t n = 0;

	cr_assert_eq(icm_fs_opendir(icm_fs_root(vol), &no_call, &h), 0);
	cr_assert_eq(icm_fs_readdir(h, &no_call, 0, count_entry, &n), 0);
	icm_fs_releasedir(h);
	return n - 2;
}

#endif
