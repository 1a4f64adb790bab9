/* SPDX-License-Identifier: MIT
 * The description of bytes that could not be committed. */
#include "core/unsaved.h"
#include "tests/fuzz/fuzz.h"

FUZZ_CODEC(icm_unsaved, unsaved)
