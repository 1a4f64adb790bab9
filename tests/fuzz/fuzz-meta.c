/* SPDX-License-Identifier: MIT
 * The value of meta. */
#include "core/record.h"
#include "tests/fuzz/fuzz.h"

FUZZ_CODEC(icm_meta, meta)
