#!/bin/bash
# SPDX-License-Identifier: MIT
# Locks of several mounts: a counter that all increment under a lock, waiting,
# interrupts, the list of locks, and a holder's mount that is killed.
# shellcheck source=tests/lib/lib.sh
. "$(dirname "$0")/../lib/lib.sh"

need flock jq
each=${ICMFS_TEST_INCREMENTS:-100}
two_mounts
counter=$(prog counter)

for kind in flock fcntl; do
	say "8 programs on 2 mounts increment a counter under $kind; the file isn't there before"
	pids=()
	for i in 1 2 3 4; do
		for dir in "$A" "$B"; do
			timeout "$LIMIT" "$counter" "$dir/$kind" "$kind" "$each" 2>"$T/counter.$i.${dir##*/}" &
			pids+=($!)
		done
	done
	for pid in "${pids[@]}"; do
		wait "$pid" || fail "a program failed: $(cat "$T"/counter.*)"
	done
	for dir in "$A" "$B"; do
		[ "$(cat "$dir/$kind")" = $((8 * each)) ] || fail "$kind: $(cat "$dir/$kind"), not $((8 * each))"
	done
done

say "who waits gets the lock, and sees what was stored under it"
echo before >"$A/state"
exec 9>>"$A/state"
flock -x 9
env echo after >&9
flock "$B/state" tail -n 1 "$B/state" >"$T/waiter" 2>&1 &
waiter=$!
waits() { jq -e 'map(select(.waiting)) | length == 1' "$1/.icmfs/locks" >/dev/null; }
is_plain || wait_for 20 waits "$A" || fail "no waiter: $(cat "$A/.icmfs/locks")"
if ! is_plain; then
	say "both mounts list the holder and the waiter"
	wait_for 20 waits "$B" || fail "no waiter on B: $(cat "$B/.icmfs/locks")"
	[ "$(jq -r 'map(select(.waiting | not))[0] | .path, .kind, .type, .command' "$B/.icmfs/locks" | tr '\n' ' ')" = "state flock write flock " ] ||
		fail "the list of locks: $(cat "$B/.icmfs/locks")"
fi
flock -u 9
wait "$waiter" || fail "the waiter: $(cat "$T/waiter")"
[ "$(cat "$T/waiter")" = after ] || fail "the waiter saw: $(cat "$T/waiter")"

say "a waiter that is interrupted is not in the way"
flock -x 9
status=0
flock -w 1 "$B/state" true || status=$?
[ $status = 1 ] || fail "flock -w gave $status"
{ timeout -s KILL 1 flock "$B/state" true; } 2>/dev/null && fail "two mounts have the lock"
flock -u 9
timeout 60 flock "$A/state" true || fail "the interrupted waiter holds the lock"
timeout 60 flock "$B/state" true || fail "the lock isn't free"
exec 9>&-

if ! is_plain; then
	say "the deployment's lock"
	exec 8<"$A/.icmfs/lock"
	flock -x 8
	flock -n "$B/.icmfs/lock" true && fail "two mounts have the deployment's lock"
	exec 8<&-
	timeout 60 flock "$B/.icmfs/lock" true || fail "the deployment's lock isn't free"

	say "the lock of a mount that is killed is free"
	"$(prog counter)" "$A/killed" flock 1
	exec 9>>"$A/killed"
	flock -x 9
	flock "$B/killed" true &
	waiter=$!
	wait_for 20 waits "$B" || fail "no waiter on B: $(cat "$B/.icmfs/locks")"
	kill_mount "$A"
	exec 9>&- || true
	wait "$waiter" || fail "the waiter failed after the holder's mount was killed"
	timeout 60 "$ICMFS" umount "$A" || umount -l "$A"
	mount_at "$A" "${MOUNT_OPTS:-}"
	timeout 60 flock "$A/killed" true || fail "the lock isn't free on the new mount"
fi
umount_at "$A"
umount_at "$B"
check_store
