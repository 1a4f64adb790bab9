/* SPDX-License-Identifier: MIT
 * Times of directories: values of tree/<path>/ . */
#include "core/record.h"
#include "tests/fuzz/fuzz.h"

static void icm_dir_times_clear(struct icm_dir_times *t)
{
	memset(t, 0, sizeof(*t));
}

FUZZ_CODEC(icm_dir_times, dir_times)
