/* SPDX-License-Identifier: MIT
 * Changes of more than one transaction: values of change/. */
#include "core/record.h"
#include "tests/fuzz/fuzz.h"

FUZZ_CODEC(icm_change_value, change_value)
