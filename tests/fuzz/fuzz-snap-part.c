/* SPDX-License-Identifier: MIT
 * Snapshots: parts of a manifest. */
#include "core/record.h"
#include "tests/fuzz/fuzz.h"

FUZZ_CODEC(icm_snap_part, snap_part)
