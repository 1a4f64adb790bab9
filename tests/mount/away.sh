#!/bin/bash
# SPDX-License-Identifier: MIT
# A store that doesn't answer writers for a while: short ones are waited out, long
# ones end in an error within their bound, what is known stays readable, status
# and umount work, nothing is lost, and all goes on without a remount.
# shellcheck source=tests/lib/lib.sh
. "$(dirname "$0")/../lib/lib.sh"

need sqlite3 perl
need_mount
[ "$KIND" = sqlite ] || skip "takes a SQLite store away"
init_store
mount_at "$A" timeout=2
mount_at "$B" timeout=2
recover() { "$ICMFS" recover --statedir "$T/state" "$@"; }

# Another program that holds the write lock of the database until it is told to let go.
hold() {
	mkfifo "$T/hold"
	sqlite3 "$T/store/store.icmfs" <"$T/hold" >"$T/holds" &
	holder=$!
	echo "$holder" >>"$T/pids"
	exec 8>"$T/hold"
	printf '.timeout 20000\nBEGIN IMMEDIATE;\nSELECT 1;\n' >&8
	wait_for 20 test -s "$T/holds" || fail "the lock can't be had"
}
let_go() {
	printf 'ROLLBACK;\n.quit\n' >&8
	exec 8>&-
	wait "$holder" || true
	rm "$T/hold" "$T/holds"
}

# save FILE TEXT: prints the errno's name that open, write or close ends with.
save() {
	perl -e '
		use Errno;
		sub end { for my $n (keys %!) { if ($!{$n}) { print $n; exit 1 } } print "error $!"; exit 1 }
		open(my $f, ">", $ARGV[0]) or end(); print $f $ARGV[1]; close($f) or end();' "$1" "$2"
}

for f in one two three; do echo "old $f" >"$A/$f"; done
cat "$B"/one "$B"/two >/dev/null
exec 7<"$B/one"

say "away for less than the timeout: the call waits"
hold
save "$A/one" "new one" >"$T/result" &
writer=$!
[ "$(cat "$B/two")" = "old two" ] || fail "reading meanwhile"
let_go
wait "$writer" || fail "a write that should have waited: $(cat "$T/result")"
[ "$(cat "$B/one")" = "new one" ] || fail "the write that waited, on B"

say "away for longer: an error, and the bytes are kept"
hold
for f in two three; do
	result=$(save "$A/$f" "new $f") && fail "$f was stored while the store was away"
	[ "$result" = ETIMEDOUT ] || [ "$result" = EIO ] || fail "$f: $result"
done
result=$(perl -e 'mkdir($ARGV[0]) ? print "made" : print $!{ETIMEDOUT} || $!{EIO} ? "error" : "$!"' "$A/dir")
[ "$result" = error ] || fail "mkdir: $result"
[ "$(cat "$B/one" "$B/two")" = "new oneold two" ] || fail "what is stored can't be read: $(cat "$B/one" "$B/two")"
[ "$(stat -c %s "$A/one")" = 7 ] || fail "stat while the store is away"
"$ICMFS" status "$A" >"$T/status" && fail "status says that all is well"
keeps_three() { recover | grep -q three; }
wait_for 30 keeps_three || fail "what couldn't be stored isn't kept: $(recover)"
"$ICMFS" umount "$A" || fail "umount while the store is away"
wait_for 60 not kill -0 "${PID_OF[$A]}" || fail "the daemon doesn't end while the store is away"
wait "${PID_OF[$A]}" || fail "the daemon ended badly"
unset "PID_OF[$A]"
let_go

say "back: without a remount"
echo "by B" >"$B/four"
mount_at "$A" timeout=2
[ "$(cat "$A/four")" = "by B" ] || fail "four on A"
[ "$(cat "$A/two" "$A/three")" = "old two
old three" ] || fail "half a version: $(cat "$A/two" "$A/three")"
recover --all >/dev/null || fail "restoring"
[ "$(cat "$B/two" "$B/three")" = "new twonew three" ] || fail "restored: $(cat "$B/two" "$B/three")"
[ ! -e "$B/dir" ] || fail "the directory appeared later"
exec 7<&-
umount_at "$A"
umount_at "$B"
check_store
