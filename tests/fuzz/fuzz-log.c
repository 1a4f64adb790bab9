/* SPDX-License-Identifier: MIT
 * Log segments: values of log/. */
#include "core/record.h"
#include "tests/fuzz/fuzz.h"

FUZZ_CODEC(icm_log_segment, log_segment)
