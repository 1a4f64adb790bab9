/* SPDX-License-Identifier: MIT
 * Store URLs: the canonical text of an accepted one is accepted and stays as
 * it is, as long as making its path absolute didn't take it over the limit. */
#include "backends/url.h"
#include "tests/fuzz/fuzz.h"

#define URL_MAX_BYTES 4096

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	ICM_AUTOFREE char *text = icm_xmalloc(size + 1);
	ICM_AUTOFREE char *error = NULL;
	struct icm_url url, again;

	if (size)
		memcpy(text, data, size);
	text[size] = '\0';
	if (icm_url_parse(text, &url, &error) < 0) {
		FUZZ_REQUIRE(error && *error);
		return 0;
	}
	if (strlen(url.text) <= URL_MAX_BYTES) {
		FUZZ_REQUIRE(icm_url_parse(url.text, &again, NULL) == 0);
		FUZZ_REQUIRE(strcmp(again.text, url.text) == 0);
		FUZZ_REQUIRE(strcmp(again.scheme, url.scheme) == 0);
		FUZZ_REQUIRE(strcmp(again.path, url.path) == 0);
		icm_url_clear(&again);
	}
	icm_url_clear(&url);
	return 0;
}
