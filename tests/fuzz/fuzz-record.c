/* SPDX-License-Identifier: MIT
 * Records: values of tree/ that aren't plain. */
#include "core/record.h"
#include "tests/fuzz/fuzz.h"

FUZZ_CODEC(icm_record, record)
