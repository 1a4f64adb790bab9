/* SPDX-License-Identifier: MIT */
#include "util/digest.h"

#include <errno.h>
#include <limits.h>
#include <string.h>
#include <sys/random.h>

#include <openssl/evp.h>
#include <openssl/sha.h>

#include "util/buf.h"

struct icm_sha256 icm_sha256(const void *data, size_t len)
{
	struct icm_sha256 sum;

	SHA256(data, len, sum.bytes);
	return sum;
}

static void to_hex(const uint8_t *bytes, size_t n, char *hex)
{
	static const char digits[] = "0123456789abcdef";

	for (size_t i = 0; i < n; i++) {
		hex[2 * i] = digits[bytes[i] >> 4];
		hex[2 * i + 1] = digits[bytes[i] & 15];
	}
	hex[2 * n] = '\0';
}

void icm_sha256_to_hex(const struct icm_sha256 *sum, char hex[static ICM_SHA256_HEX + 1])
{
	to_hex(sum->bytes, sizeof(sum->bytes), hex);
}

static int hex_value(char c)
{
	if (c >= '0' && c <= '9')
		return c - '0';
	if (c >= 'a' && c <= 'f')
		return c - 'a' + 10;
	return -1;
}

int icm_sha256_from_hex(const char *hex, struct icm_sha256 *ret)
{
	struct icm_sha256 sum;

	if (strnlen(hex, ICM_SHA256_HEX + 1) != ICM_SHA256_HEX)
		return -EINVAL;
	for (size_t i = 0; i < sizeof(sum.bytes); i++) {
		int high = hex_value(hex[2 * i]);
		int low = hex_value(hex[2 * i + 1]);

		if (high < 0 || low < 0)
			return -EINVAL;
		sum.bytes[i] = (uint8_t)(high << 4 | low);
	}
	*ret = sum;
	return 0;
}

uint64_t icm_random_u64(void)
{
	uint64_t n;

	/* can't fail or come short for 8 bytes once the pool is ready */
	while (getrandom(&n, sizeof(n), 0) != sizeof(n))
		;
	return n;
}

void icm_random_id(char id[static ICM_ID_HEX + 1])
{
	uint64_t n = icm_random_u64();

	to_hex((const uint8_t *)&n, sizeof(n), id);
}

char *icm_base64_encode(const void *data, size_t len)
{
	char *text;

	if (len > INT_MAX / 2)
		abort(); /* callers' values are bounded far below */
	text = icm_xmalloc(4 * ((len + 2) / 3) + 1);
	EVP_EncodeBlock((unsigned char *)text, data, (int)len);
	return text;
}

int icm_base64_decode(const char *text, void **ret_data, size_t *ret_len)
{
	size_t n = strlen(text);
	size_t pad = 0;
	ICM_AUTOFREE unsigned char *data = NULL;
	ICM_AUTOFREE char *again = NULL;

	if (n % 4 || n > INT_MAX / 2)
		return -EINVAL;
	if (n)
		pad = (text[n - 1] == '=') + (text[n - 2] == '=');
	data = icm_xmalloc(n / 4 * 3 + 1);
	if (EVP_DecodeBlock(data, (const unsigned char *)text, (int)n) < 0)
		return -EINVAL;
	/* OpenSSL skips blanks at the ends and takes '=' anywhere: only the one
	 * spelling that we would have written is valid */
	again = icm_base64_encode(data, n / 4 * 3 - pad);
	if (strcmp(again, text) != 0)
		return -EINVAL;
	*ret_len = n / 4 * 3 - pad;
	*ret_data = ICM_STEAL(&data);
	return 0;
}
