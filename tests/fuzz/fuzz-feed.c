/* SPDX-License-Identifier: MIT
 * Feed records: values of feed/. */
#include "core/record.h"
#include "tests/fuzz/fuzz.h"

FUZZ_CODEC(icm_feed_record, feed_record)
