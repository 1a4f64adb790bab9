#!/bin/bash
# SPDX-License-Identifier: MIT
# A Consul server that stands still. For less than the timeout: calls wait, and go on.
# For longer: what was read before is served, and said to be stale; opens and commits
# fail, the first after the timeout, the others soon; what can't be committed is kept;
# status and umount work. When it goes on, so does the mount, without being told.
# shellcheck source=tests/lib/lib.sh
. "$(dirname "$0")/../lib/lib.sh"

need perl jq
need_mount
[ "$KIND" = consul ] || skip 'stops a Consul server'
init_store
server=$(head -1 "$T/pids")
at_exit "kill -CONT $server"
recover() { "$ICMFS" recover --statedir "$T/state" "$@"; }
errno() { perl -MErrno -e 'my $r = eval shift; for my $n (keys %!) { if (!$r && $!{$n}) { print $n; exit } } print $r ? "ok" : "error $!"' "$@"; }
opens() { errno 'open(F, "<", shift) && defined(<F>)' "$1"; }
saves() { errno 'open(F, ">", shift) && print(F shift) && close(F)' "$1" "$2"; }
is_away_error() { [ "$1" = ETIMEDOUT ] || [ "$1" = EIO ]; }
status_is() { jq -e "$2" "$1/.icmfs/status" >"$T/status"; }

count() { grep -c "$1" "${LOG_OF[$A]}" || true; }

mount_at "$A" timeout=20
mount_at "$B" timeout=20
mkdir "$A/dir"
for i in $(seq 30); do echo "text $i" >"$A/dir/f$i"; done
cat "$A"/dir/* "$B"/dir/* >"$T/both"
exec 7<"$A/dir/f1"

say 'it stands still for less than the timeout'
kill -STOP "$server"
saves "$A/dir/f2" 'written meanwhile' >"$T/saved" &
writer=$!
opens "$A/dir/f3" >"$T/opened" &
reader=$!
kept_waiting() { kill -0 "$writer" && kill -0 "$reader"; }
cat <&7 >"$T/read"
kept_waiting || fail 'nobody waits'
kill -CONT "$server"
wait "$writer" "$reader"
[ "$(cat "$T/saved")" = ok ] || fail "the write that waited: $(cat "$T/saved")"
[ "$(cat "$T/opened")" = ok ] || fail "the open that waited: $(cat "$T/opened")"
[ "$(cat "$B/dir/f2")" = 'written meanwhile' ] || fail 'the write that waited, on B'

say 'for longer: opens fail, all but the first one soon'
mkfifo "$T/go"
perl -MErrno -e '
	open(F, "+<", $ARGV[0]) or die; open(GO, "<", $ARGV[1]) or die; <GO>;
	my $ok = truncate(F, 0) && print(F "can not be stored") && close(F);
	for my $n (keys %!) { if (!$ok && $!{$n}) { print $n; exit } } print "ok"' "$A/dir/f4" "$T/go" >"$T/closed" &
writer=$!
exec 8>"$T/go" # the file is open when this returns
wait_for 60 status_is "$A" '.reachable' || fail "$(cat "$A/.icmfs/status")"
gone=$(count 'does not answer')
here=$(count 'answers again')
kill -STOP "$server"
# each waiting the timeout: more than ten minutes
for i in $(seq 1 30); do
	result=$(timeout 100 perl -MErrno -e 'open(F, "<", shift) or print $!{ETIMEDOUT} ? "ETIMEDOUT" : $!{EIO} ? "EIO" : "$!"' "$A/dir/f$i")
	is_away_error "$result" || fail "open of f$i: '$result'"
done
status_is "$A" '.stale and (.reachable | not)' || fail "$(cat "$A/.icmfs/status")"
"$ICMFS" status "$A" >"$T/status" && fail 'status says that all is well'
grep -q 'stale' "$T/status" || fail "$(cat "$T/status")"
[ "$(count 'does not answer')" = $((gone + 1)) ] || fail "$(cat "${LOG_OF[$A]}")"

say 'what was read is there'
exec 6<&7
[ "$(perl -e 'open(F, "<&=", 7); sysseek(F, 0, 0); sysread(F, $_, 99); print' 7<&7)" = 'text 1' ] || fail 'an open file'
[ "$(find "$A/dir" -type f -size +0 | wc -l)" = 30 ] || fail 'names and sizes'
exec 6<&-

say 'what is written is kept'
echo go >&8
exec 8>&-
wait "$writer"
is_away_error "$(cat "$T/closed")" || fail "a write: $(cat "$T/closed")"
result=$(errno 'mkdir(shift)' "$A/new")
is_away_error "$result" || fail "mkdir: $result"
keeps() { recover | grep -q dir/f4; }
wait_for 100 keeps || fail "what couldn't be stored isn't kept: $(recover)"

say 'umount works'
"$ICMFS" umount "$B" || fail 'umount while the store is away'
wait_for 120 not kill -0 "${PID_OF[$B]}" || fail "the daemon doesn't end while the store is away"
wait "${PID_OF[$B]}" || fail 'the daemon ended badly'
unset "PID_OF[$B]"

say 'back, and all goes on'
kill -CONT "$server"
can_open() { [ "$(opens "$A/dir/f5")" = ok ]; }
can_save() { [ "$(saves "$A/dir/f6" later)" = ok ]; }
wait_for 60 can_open || fail "reading: $(opens "$A/dir/f5")"
wait_for 60 can_save || fail "writing: $(saves "$A/dir/f6" later)"
wait_for 60 status_is "$A" '(.stale | not) and .reachable' || fail "$(cat "$A/.icmfs/status")"
[ "$(count 'answers again')" = $((here + 1)) ] || fail "$(cat "${LOG_OF[$A]}")"
[ "$(cat "$A/dir/f4")" = 'text 4' ] || fail 'half of a change'
recover --all >/dev/null || fail 'restoring'
[ "$(cat "$A/dir/f4")" = 'can not be stored' ] || fail "restored: $(cat "$A/dir/f4")"
exec 7<&-
umount_at "$A"
mount_at "$B"
[ "$(cat "$B/dir/f4" "$B/dir/f6")" = 'can not be storedlater' ] || fail 'on B'
[ ! -e "$B/new" ] || fail 'the directory appeared later'
umount_at "$B"
check_store
