/* SPDX-License-Identifier: MIT
 * Lock claims: values of lock/. */
#include "core/record.h"
#include "tests/fuzz/fuzz.h"

FUZZ_CODEC(icm_lock_claim, lock_claim)
