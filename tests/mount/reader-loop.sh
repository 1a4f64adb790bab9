#!/bin/bash
# SPDX-License-Identifier: MIT
# Readers on B during 2,000 saves on A (in place, truncating, by rename) never
# see an empty, short or mixed file. ICMFS_TEST_SAVES: how many.
# shellcheck source=tests/lib/lib.sh
. "$(dirname "$0")/../lib/lib.sh"

two_mounts
args=()
is_plain && args=(--rename)
"$(prog save-loop)" "${args[@]}" --saves "${ICMFS_TEST_SAVES:-2000}" --readers 2 "$A" "$B"
mkdir "$A/same"
wait_for 10 test -d "$B/same" || fail "the directory doesn't appear"
say "writer and reader on one mount, by rename"
"$(prog save-loop)" --rename --saves $((${ICMFS_TEST_SAVES:-2000} / 10)) --readers 1 "$B/same" "$B/same"
same_at_once "$A" "$B"
umount_at "$A"
umount_at "$B"
check_store
