/* SPDX-License-Identifier: MIT
 * Leases: values of lease/. */
#include "core/record.h"
#include "tests/fuzz/fuzz.h"

FUZZ_CODEC(icm_lease_value, lease_value)
