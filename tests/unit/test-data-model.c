/* SPDX-License-Identifier: MIT
 * The examples in docs/data-model.md: each block "```json KIND" is one value a
 * line, which the codec of that kind reads and writes again byte for byte. */
#include <criterion/criterion.h>
#include <string.h>

#include "core/record.h"
#include "util/buf.h"

/* Fresh text of the value written again, or NULL when it is refused. */
typedef char *(*again_fn)(const char *json);

#define AGAIN(type, name)                                                                          \
	static char *name##_again(const char *json)                                                \
	{                                                                                          \
		struct type value;                                                                 \
		char *text;                                                                        \
		size_t len;                                                                        \
                                                                                                   \
		if (icm_##name##_decode(json, strlen(json), &value) < 0)                           \
			return NULL;                                                               \
		text = icm_##name##_encode(&value, &len);                                          \
		icm_##name##_clear(&value);                                                        \
		return text;                                                                       \
	}

static void icm_dir_times_clear(struct icm_dir_times *t)
{
	memset(t, 0, sizeof(*t));
}

AGAIN(icm_attr, attr)
AGAIN(icm_dir_times, dir_times)
AGAIN(icm_record, record)
AGAIN(icm_inode_value, inode_value)
AGAIN(icm_hist, hist)
AGAIN(icm_snap, snap)
AGAIN(icm_snap_part, snap_part)
AGAIN(icm_feed_record, feed_record)
AGAIN(icm_log_segment, log_segment)
AGAIN(icm_meta, meta)
AGAIN(icm_lease_value, lease_value)
AGAIN(icm_lock_value, lock_value)
AGAIN(icm_change_value, change_value)

static char *chunks_again(const char *json)
{
	ICM_AUTOFREE struct icm_chunk *chunks = NULL;
	size_t n = 1, len;

	for (const char *p = json; *p; p++)
		n += *p == ',';
	if (icm_chunks_decode(json, strlen(json), n, &chunks) < 0)
		return NULL;
	return icm_chunks_encode(chunks, n, &len);
}

static struct {
	const char *kind;
	again_fn again;
	unsigned int seen;
} kinds[] = {
	{ "attr", attr_again, 0 },	     { "dir-times", dir_times_again, 0 },
	{ "record", record_again, 0 },	     { "chunks", chunks_again, 0 },
	{ "inode", inode_value_again, 0 },   { "hist", hist_again, 0 },
	{ "feed", feed_record_again, 0 },    { "log", log_segment_again, 0 },
	{ "meta", meta_again, 0 },	     { "lease", lease_value_again, 0 },
	{ "lock", lock_value_again, 0 },     { "snap", snap_again, 0 },
	{ "snap-part", snap_part_again, 0 }, { "change", change_value_again, 0 },
};

static void check_example(const char *kind, const char *json)
{
	for (size_t i = 0; i < ICM_COUNT(kinds); i++) {
		ICM_AUTOFREE char *again = NULL;

		if (strcmp(kinds[i].kind, kind) != 0)
			continue;
		again = kinds[i].again(json);
		cr_assert_not_null(again, "refused as %s: %s", kind, json);
		cr_assert_str_eq(again, json);
		kinds[i].seen++;
		return;
	}
	cr_assert_fail("no kind \"%s\"", kind);
}

Test(data_model, examples_are_what_the_program_writes)
{
	ICM_AUTOFCLOSE FILE *f = fopen(DATA_MODEL, "re");
	ICM_AUTOFREE char *line = NULL;
	char kind[32] = "";
	size_t cap = 0;

	cr_assert_not_null(f, "%s", DATA_MODEL);
	while (getline(&line, &cap, f) > 0) {
		line[strcspn(line, "\n")] = '\0';
		if (!strncmp(line, "```", 3)) {
			*kind = '\0';
			sscanf(line, "```json %31s", kind);
		} else if (*kind) {
			check_example(kind, line);
		}
	}
	for (size_t i = 0; i < ICM_COUNT(kinds); i++)
		cr_assert_gt(kinds[i].seen, 0, "no example of %s", kinds[i].kind);
}
