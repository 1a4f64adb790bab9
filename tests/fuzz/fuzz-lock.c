/* SPDX-License-Identifier: MIT
 * Tables of locks: values of lock/. */
#include "core/record.h"
#include "tests/fuzz/fuzz.h"

FUZZ_CODEC(icm_lock_value, lock_value)
