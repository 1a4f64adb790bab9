#!/bin/bash
# SPDX-License-Identifier: MIT
# Programs that watch files on B see what is changed on A.
# shellcheck source=tests/lib/lib.sh
. "$(dirname "$0")/../lib/lib.sh"

need inotifywait entr
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
say "a watch on a file that B has had open"
cat "$B/d/f" >"$T/out"
inotifywait -m -e modify,close_write --format %e "$B/d/f" >"$T/file.events" 2>"$T/file.err" &
file_watcher=$!
echo $file_watcher >>"$T/pids"
wait_for 10 grep -q 'Watches established' "$T/file.err" || fail "$(cat "$T/file.err")"
for i in 1 2 3 4 5; do
	cat "$B/d/f" >"$T/out"
	before=$(grep -c CLOSE_WRITE "$T/file.events" || true)
	echo "tw$i" >"$A/d/f"
	more() { [ "$(grep -c CLOSE_WRITE "$T/file.events")" -gt "$before" ]; }
	wait_for 10 more || fail "change $i isn't told to the watch on the file"
done
kill "$file_watcher"
wait "$file_watcher" 2>/dev/null || true

say "entr"
# shellcheck disable=SC2016 # for the shell that entr starts
echo "$B/d/f" | entr -n sh -c 'cat "$0"' "$B/d/f" >"$T/entr" 2>&1 &
entr=$!
echo $entr >>"$T/pids"
wait_for 10 grep -q tw5 "$T/entr" || fail "entr doesn't start: $(cat "$T/entr")"
write_anew() { echo "$1" >"$A/d/f"; }
replace() { echo "$1" >"$A/d/f.new" && mv "$A/d/f.new" "$A/d/f"; }
# It leaves out what happens while its command runs and just after: so once more, then.
tries=0
entr_sees() {
	tries=$((tries + 1))
	"$1" "$1 $tries"
	wait_for 2 grep -q "$1 $tries" "$T/entr"
}
wait_for 10 entr_sees write_anew || fail "entr doesn't see a file that is written anew"
wait_for 10 entr_sees replace || fail "entr doesn't see a file that is replaced"
wait_for 10 entr_sees write_anew || fail "entr doesn't see a change after the replacement"
echo two >"$A/d/f"
kill "$entr"
wait "$entr" 2>/dev/null || true

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
