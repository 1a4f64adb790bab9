#!/bin/bash
# SPDX-License-Identifier: MIT
# Races of two mounts. ICMFS_TEST_ROUNDS: rounds of each; ICMFS_TEST_RACE: words
# of the name of the one to run.
# shellcheck source=tests/lib/lib.sh
. "$(dirname "$0")/../lib/lib.sh"

two_mounts
args=()
is_plain && args=(--plain)
"$(prog races)" "${args[@]}" "$A" "$B" "${ICMFS_TEST_ROUNDS:-50}" \
	${ICMFS_TEST_RACE:+"$ICMFS_TEST_RACE"}
umount_at "$A"
umount_at "$B"
check_store
