/* SPDX-License-Identifier: MIT
 * What a local copy says that it is a copy of. */
#include "core/copy.h"
#include "tests/fuzz/fuzz.h"

FUZZ_CODEC(icm_copy_head, copy_head)
