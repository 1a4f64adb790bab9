/* SPDX-License-Identifier: MIT
 * Keys: whatever is accepted is the one spelling, so that it is written again
 * byte for byte; and any bytes can be a name. */
#include "core/key.h"
#include "core/record.h"
#include "tests/fuzz/fuzz.h"

static void require_path(const char *text)
{
	ICM_AUTOFREE char *path = NULL;
	ICM_AUTOFREE char *again = NULL;

	if (icm_key_decode(text, &path) < 0)
		return;
	again = icm_key_encoded(path);
	FUZZ_REQUIRE(strcmp(again, text) == 0);
	FUZZ_REQUIRE(strlen(path) <= ICM_PATH_MAX);
}

static void require_hist(const char *text)
{
	ICM_AUTOFREE char *path = NULL;
	ICM_AUTOFREE char *again = NULL;
	uint64_t index;

	if (icm_key_parse_hist(text, &path, &index) < 0)
		return;
	again = icm_key_hist(path, index);
	FUZZ_REQUIRE(strcmp(again, text) == 0);
}

static void require_ino(const char *text)
{
	ICM_AUTOFREE char *again = NULL;
	uint64_t ino;

	if (icm_key_parse_ino(text, "inode/", &ino) < 0)
		return;
	FUZZ_REQUIRE(ino && ino < ICM_INO_MAX);
	again = icm_key_inode(ino);
	FUZZ_REQUIRE(strcmp(again, text) == 0);
}

/* The text as a name, not as a key. */
static void require_name(const char *text)
{
	ICM_AUTOFREE char *encoded = icm_key_encoded(text);
	ICM_AUTOFREE char *again = NULL;

	FUZZ_REQUIRE(!strstr(encoded, "%v"));
	FUZZ_REQUIRE(icm_key_unescape(encoded, strlen(text), &again) == 0);
	FUZZ_REQUIRE(strcmp(again, text) == 0);
	if (icm_name_check(text) == 0) {
		ICM_AUTOFREE char *path = NULL;

		FUZZ_REQUIRE(icm_key_decode(encoded, &path) == 0);
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	ICM_AUTOFREE char *text = icm_xmalloc(size + 1);

	if (size)
		memcpy(text, data, size);
	text[size] = '\0';
	require_path(text);
	require_hist(text);
	require_ino(text);
	require_name(text);
	return 0;
}
