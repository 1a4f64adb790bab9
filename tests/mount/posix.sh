#!/bin/bash
# SPDX-License-Identifier: MIT
# System calls with exact errors, times, ownership and permissions, as root,
# for several users: on a mount, and the same tree seen from a second one.
# shellcheck source=tests/lib/lib.sh
. "$(dirname "$0")/../lib/lib.sh"

init_store
mount_at "$A" allow_other,suid,dev
chmod 0755 "$T" "$A"
more=()
# thousands of files take their time on Consul on a busy machine
case $KIND in consul | cluster) more+=(-T 600) ;; esac
"$(prog posix-suite)" "${more[@]}" "$@" "$A"
[ -z "$(ls -A "$A")" ] || fail "something is left: $(ls -A "$A")"
umount_at "$A"
check_store
