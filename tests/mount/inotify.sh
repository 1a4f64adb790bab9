#!/bin/bash
# SPDX-License-Identifier: MIT
# Programs that watch files on B see what is changed on A.
# shellcheck source=tests/lib/lib.sh
. "$(dirname "$0")/../lib/lib.sh"

need inotifywait
two_mounts
mkdir "$A/d"
echo one >"$A/d/f"
echo one >"$A/d/gone"
same_at_once "$A" "$B"
inotifywait -m -e modify,attrib,close_write,create,delete,moved_from,moved_to --format '%e %f' "$B/d" >"$T/events" 2>"$T/inotify.err" &
watcher=$!
echo $watcher >>"$T/pids"
wait_for 10 grep -q 'Watches established' "$T/inotify.err" || fail "$(cat "$T/inotify.err")"

# event PATTERN: comes within ten seconds.
event() { wait_for 10 grep -qE "$1" "$T/events" || fail "no event '$1'; seen: $(tr '\n' ';' <"$T/events")"; }

echo two >"$A/d/f"
event '^MODIFY f$'
event '^CLOSE_WRITE,CLOSE f$'
[ "$(cat "$B/d/f")" = two ] || fail "contents after the event"
echo new >"$A/d/new"
event '^CREATE new$'
mkdir "$A/d/sub"
event '^CREATE,ISDIR sub$'
rm "$A/d/gone"
event '^DELETE gone$'
mv "$A/d/new" "$A/d/renamed"
event '^MOVED_FROM new$|^DELETE new$'
event '^MOVED_TO renamed$|^CREATE renamed$'
rmdir "$A/d/sub"
event '^DELETE,ISDIR sub$'
chmod 0600 "$A/d/f"
event '^ATTRIB f$'

say "the events changed nothing, and they end"
same_at_once "$A" "$B"
quiet() {
	local n
	n=$(wc -l <"$T/events")
	sleep 0.5
	[ "$(wc -l <"$T/events")" = "$n" ]
}
wait_for 20 quiet || fail "events without end"

say "own changes on B are told once, by the kernel"
: >"$T/events.mark"
before=$(grep -c '^CLOSE_WRITE,CLOSE own$' "$T/events" || true)
echo own >"$B/d/own"
event '^CLOSE_WRITE,CLOSE own$'
wait_for 20 quiet || fail "events without end"
[ "$(grep -c '^CLOSE_WRITE,CLOSE own$' "$T/events")" = $((before + 1)) ] || fail "an own change is told twice"
if command -v tail >/dev/null; then
	say "tail -f"
	tail -n +1 -f "$B/d/f" >"$T/tail" 2>/dev/null &
	echo $! >>"$T/pids"
	tail=$!
	wait_for 10 grep -q two "$T/tail" || fail "tail doesn't start"
	echo three >>"$A/d/f"
	wait_for 10 grep -q three "$T/tail" || fail "tail -f doesn't see an appended line"
	kill "$tail"
	wait "$tail" 2>/dev/null || true
fi
kill "$watcher"
wait "$watcher" 2>/dev/null || true
umount_at "$A"
umount_at "$B"
check_store
