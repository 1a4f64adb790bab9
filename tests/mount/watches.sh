#!/bin/bash
# SPDX-License-Identifier: MIT
# Whatever way a file is changed on A, a watch on it and one on its directory
# are told on B, whatever B has done with it. ICMFS_TEST_ROUNDS: changes of each kind.
# shellcheck source=tests/lib/lib.sh
. "$(dirname "$0")/../lib/lib.sh"

two_mounts
"$(prog watches)" "$A" "$B" "${ICMFS_TEST_ROUNDS:-200}"
umount_at "$A"
umount_at "$B"
check_store
