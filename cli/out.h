/* SPDX-License-Identifier: MIT
 * What commands print: one clear line on stderr for a failure, text for people
 * or JSON for programs on stdout. Names of files come from anywhere: bytes
 * that would break a line or a terminal are shown as \n, \t or \xHH. */
#ifndef ICM_CLI_OUT_H
#define ICM_CLI_OUT_H

#include <jansson.h>
#include <stdbool.h>
#include <stdint.h>

#include "util/buf.h"

/* "icmfs: <line>" on stderr. */
void icm_cli_error(const char *fmt, ...) ICM_PRINTF(1, 2);
/* Fresh copy in which control characters are spelled out. */
char *icm_out_escape(const char *text);
/* Fresh valid UTF-8 for JSON: as icm_out_escape, and other bytes as \xHH. */
char *icm_out_utf8(const char *text);
/* Fresh "17 bytes", "12.3 KiB", "4.0 GiB". */
char *icm_out_bytes(uint64_t bytes);
/* Fresh "1 file", "2 files". */
char *icm_out_count(uint64_t n, const char *one, const char *many);
/* Prints JSON with two spaces of indent and a newline; takes over `value`.
 * Returns an exit status. */
int icm_out_json(json_t *value);
/* Flushes stdout: an exit status, with a line on stderr when it could not be written. */
int icm_out_finish(void);

#endif
