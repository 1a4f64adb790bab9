#!/bin/bash
# SPDX-License-Identifier: MIT
# Random operations compared with an ordinary directory, half of them on one
# mount, half on two; on a cluster all on two. ICMFS_TEST_OPS: how many in all
# (50000); ICMFS_TEST_SEED.
# shellcheck source=tests/lib/lib.sh
. "$(dirname "$0")/../lib/lib.sh"

ops=${ICMFS_TEST_OPS:-50000}
more=()
[ -z "${ICMFS_TEST_SEED:-}" ] || more=(--seed "$ICMFS_TEST_SEED")
# directories that don't fit into one of its transactions aren't exchanged
case $KIND in consul | cluster) more+=(--exdev) ;; esac
alone=$((ops / 2))
[ "$KIND" != cluster ] || alone=0
random=$(prog random-ops)
mkdir "$T/ref"
two_mounts
[ $alone = 0 ] || "$random" "${more[@]}" --ops $alone --ref "$T/ref" "$A"
"$random" "${more[@]}" --ops $((ops - alone)) --ref "$T/ref" "$A" "$B"
list_tree "$A" >"$T/before"
umount_at "$A"
umount_at "$B"
check_store
mount_at "$A"
list_tree "$A" >"$T/after"
cmp "$T/before" "$T/after" || fail "the tree is another one after a remount"
for d in "$T"/ref/*; do
	diff -r --no-dereference "$d" "$A/$(basename "$d")" || fail "contents after a remount"
done
