#!/bin/bash
# SPDX-License-Identifier: MIT
# A network that loses requests and answers, cuts them, carries requests out twice
# or seconds late, between mount A and Consul: every call still tells the truth,
# nothing acknowledged is lost, nothing is done twice. ICMFS_TEST_OPS: operations.
# shellcheck source=tests/lib/lib.sh
. "$(dirname "$0")/../lib/lib.sh"

need_mount
[ "$KIND" = consul ] || skip 'needs a Consul server'
ops=${ICMFS_TEST_OPS:-600}
percent=${ICMFS_TEST_PERCENT:-20}
init_store
direct=$STORE
consul_proxy "$percent"
mount_at "$A"
STORE=$direct
mount_at "$B"

say 'operations compared with a directory'
mkdir "$T/ref"
"$(prog random-ops)" --exdev --ops "$ops" --ref "$T/ref" "$A" "$B"

say 'acknowledged writes, and the end of the mount'
mkdir "$A/w"
"$(prog ack-writer)" "$T/manifest" "$A/w" >"$T/writer" 2>&1 &
writer=$!
echo "$writer" >>"$T/pids"
enough() { [ "$(grep -c '^[A-W]' "$T/manifest")" -ge 100 ]; }
wait_for 200 enough || fail "writing doesn't go on: $(cat "$T/writer")"
kill_mount "$A"
wait_for 60 not kill -0 "$writer" || fail 'the writer hangs'
wait "$writer" || fail "the writer: $(cat "$T/writer")"
timeout 60 "$(prog ack-writer)" --verify "$T/manifest" "$B/w" || fail 'what was acknowledged is not on B'
umount_at "$B"
check_store
