#!/bin/bash
# SPDX-License-Identifier: MIT
# A write that reaches Consul after its sender gave it up, while another mount has
# written: the newer version stays, and both writers are told the truth.
# ICMFS_TEST_ROUNDS: how often (200); ICMFS_TEST_SEED.
# shellcheck source=tests/lib/lib.sh
. "$(dirname "$0")/../lib/lib.sh"

need_mount
[ "$KIND" = consul ] || skip 'needs a Consul server'
init_store
STORE_B=$STORE
consul_proxy 0
mount_at "$A"
STORE=$STORE_B mount_at "$B"
more=()
[ -z "${ICMFS_TEST_SEED:-}" ] || more+=("$ICMFS_TEST_SEED")
"$(prog late)" "$A" "$B" "$PROXY_PORT" "${ICMFS_TEST_ROUNDS:-200}" "${more[@]}"
umount_at "$A"
umount_at "$B"
STORE=$STORE_B
check_store
