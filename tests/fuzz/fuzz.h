/* SPDX-License-Identifier: MIT
 * What the fuzz targets share. A target is one function that libFuzzer, or the
 * replay driver, calls with the bytes of one input; a finding ends the process. */
#ifndef ICM_TESTS_FUZZ_H
#define ICM_TESTS_FUZZ_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "util/buf.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Holds whatever NDEBUG says. */
#define FUZZ_REQUIRE(condition)                                                                    \
	do {                                                                                       \
		if (!(condition)) {                                                                \
			fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #condition);            \
			abort();                                                                   \
		}                                                                                  \
	} while (0)

static inline void fuzz_require_same(const char *a, size_t a_len, const char *b, size_t b_len)
{
	FUZZ_REQUIRE(a_len == b_len && memcmp(a, b, a_len) == 0);
}

/* The target of a codec icm_<name>_{decode,encode,clear} for `struct type`: what
 * was decoded is encoded to bytes that decode again, and to the same bytes. */
#define FUZZ_CODEC(type, name)                                                                     \
	int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)                               \
	{                                                                                          \
		ICM_AUTOFREE char *first = NULL;                                                   \
		ICM_AUTOFREE char *second = NULL;                                                  \
		struct type value;                                                                 \
		size_t first_len, second_len;                                                      \
                                                                                                   \
		if (icm_##name##_decode(data, size, &value) < 0)                                   \
			return 0;                                                                  \
		first = icm_##name##_encode(&value, &first_len);                                   \
		icm_##name##_clear(&value);                                                        \
		FUZZ_REQUIRE(icm_##name##_decode(first, first_len, &value) == 0);                  \
		second = icm_##name##_encode(&value, &second_len);                                 \
		icm_##name##_clear(&value);                                                        \
		fuzz_require_same(first, first_len, second, second_len);                           \
		return 0;                                                                          \
	}

#endif
