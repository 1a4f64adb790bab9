/* SPDX-License-Identifier: MIT
 * Chunk lists that are blobs. The first byte is the number of chunks that the
 * size would demand, as a character: '0' is none. */
#include "core/record.h"
#include "tests/fuzz/fuzz.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	ICM_AUTOFREE struct icm_chunk *chunks = NULL;
	ICM_AUTOFREE struct icm_chunk *again = NULL;
	ICM_AUTOFREE char *first = NULL;
	ICM_AUTOFREE char *second = NULL;
	size_t want, first_len, second_len;

	if (!size || data[0] < '0')
		return 0;
	want = data[0] - '0';
	if (icm_chunks_decode(data + 1, size - 1, want, &chunks) < 0)
		return 0;
	first = icm_chunks_encode(chunks, want, &first_len);
	FUZZ_REQUIRE(icm_chunks_decode(first, first_len, want, &again) == 0);
	second = icm_chunks_encode(again, want, &second_len);
	fuzz_require_same(first, first_len, second, second_len);
	return 0;
}
