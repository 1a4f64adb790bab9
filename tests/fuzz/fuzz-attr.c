/* SPDX-License-Identifier: MIT
 * Attributes: values of attr/. */
#include "core/record.h"
#include "tests/fuzz/fuzz.h"

FUZZ_CODEC(icm_attr, attr)
