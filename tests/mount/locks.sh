#!/bin/bash
# SPDX-License-Identifier: MIT
# What is written under a lock is stored before the lock is released or weakened,
# though the file stays open.
# shellcheck source=tests/lib/lib.sh
. "$(dirname "$0")/../lib/lib.sh"

need flock
two_mounts

# A process of its own: the shell would close a copy of the descriptor, which stores.
put() { env echo "$1" >&9; }
# Not stored: B doesn't have it (in one ordinary directory it does).
only_on_a() { is_plain || [ "$(tail -n 1 "$B/state")" = "$1" ]; }

echo 0 >"$A/state"

say "an unlock stores"
exec 9>>"$A/state"
flock -x 9
put 1
only_on_a 0 || fail "changes under a lock are on B"
flock -u 9
[ "$(tail -n 1 "$B/state")" = 1 ] || fail "an unlock didn't store"

say "an exclusive lock that becomes shared stores"
flock -x 9
put 2
flock -s 9
[ "$(tail -n 1 "$B/state")" = 2 ] || fail "a downgrade didn't store"

say "taking a shared lock doesn't"
flock -u 9
put 3
flock -s 9
only_on_a 2 || fail "a shared lock stored"
exec 9>&-
[ "$(tail -n 1 "$B/state")" = 3 ] || fail "close didn't store"

say "the other mount is refused while a lock is held, and free afterwards"
exec 9<"$A/state"
flock -s 9
is_plain || { flock -n "$B/state" true && fail "two mounts have the lock"; }
exec 9>&-
wait_for 10 flock -n "$B/state" true || fail "the lock isn't free after the last close"
umount_at "$A"
umount_at "$B"
check_store
