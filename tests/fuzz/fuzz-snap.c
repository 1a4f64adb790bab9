/* SPDX-License-Identifier: MIT
 * Snapshots: values of snap/. */
#include "core/record.h"
#include "tests/fuzz/fuzz.h"

FUZZ_CODEC(icm_snap, snap)
