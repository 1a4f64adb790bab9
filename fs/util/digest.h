/* SPDX-License-Identifier: MIT
 * SHA-256, random ids, hexadecimal and base64, on OpenSSL's libcrypto. */
#ifndef ICM_UTIL_DIGEST_H
#define ICM_UTIL_DIGEST_H

#include <stddef.h>
#include <stdint.h>

#include "util/attrs.h"

#define ICM_SHA256_BYTES 32
#define ICM_SHA256_HEX	 64 /* characters, without NUL */
#define ICM_ID_HEX	 16 /* characters of an id, without NUL */

struct icm_sha256 {
	uint8_t bytes[ICM_SHA256_BYTES];
};

/* SHA-256 of one run of bytes. */
struct icm_sha256 icm_sha256(const void *data, size_t len);
/* Writes 64 lower-case hex digits and NUL. */
void icm_sha256_to_hex(const struct icm_sha256 *sum, char hex[static ICM_SHA256_HEX + 1]);
/* Reads exactly 64 lower-case hex digits; -EINVAL otherwise. */
int icm_sha256_from_hex(const char *hex, struct icm_sha256 *ret) ICM_MUST_CHECK;

/* A fresh random id: 64 bits as 16 lower-case hex digits and NUL. */
void icm_random_id(char id[static ICM_ID_HEX + 1]);
uint64_t icm_random_u64(void);

/* Fresh NUL-terminated base64 of the bytes; the caller owns it. */
char *icm_base64_encode(const void *data, size_t len);
/* Strict decoding of padded base64; fresh bytes (never NULL on success) to the
 * caller; -EINVAL for anything else. */
int icm_base64_decode(const char *text, void **ret_data, size_t *ret_len) ICM_MUST_CHECK;

#endif
