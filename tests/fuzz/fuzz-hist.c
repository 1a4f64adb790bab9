/* SPDX-License-Identifier: MIT
 * Earlier versions: values of hist/. */
#include "core/record.h"
#include "tests/fuzz/fuzz.h"

FUZZ_CODEC(icm_hist, hist)
