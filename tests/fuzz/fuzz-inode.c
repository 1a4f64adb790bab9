/* SPDX-License-Identifier: MIT
 * Inodes of linked files: values of inode/. */
#include "core/record.h"
#include "tests/fuzz/fuzz.h"

FUZZ_CODEC(icm_inode_value, inode_value)
