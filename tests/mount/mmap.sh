#!/bin/bash
# SPDX-License-Identifier: MIT
# Shared mappings on both sides: a mapping on B shows what is saved on A, and
# what is written through a mapping on A is read on B.
# shellcheck source=tests/lib/lib.sh
. "$(dirname "$0")/../lib/lib.sh"

has_size() { [ "$(stat -c %s "$1")" = "$2" ]; }

two_mounts
mapped=$(prog mapped)
for size in 5000 300001 1400001; do
	say "$size bytes"
	{ printf 'one' && head -c $((size - 3)) /dev/zero; } >"$A/f"
	# The kernel keeps the size until the feed has told B of the change.
	wait_for 10 has_size "$B/f" "$size" || fail "size on B: $(stat -c %s "$B/f")"
	rm -f "$T/ready"
	"$mapped" watch "$B/f" "$T/ready" one two three >"$T/seen" 2>&1 &
	watcher=$!
	echo $watcher >>"$T/pids"
	wait_for 10 test -e "$T/ready" || fail "watcher: $(cat "$T/seen")"
	printf two | dd of="$A/f" conv=notrunc status=none
	wait_for 10 grep -qx two "$T/seen" || fail "the mapping on B doesn't change: $(cat "$T/seen")"
	"$mapped" write "$A/f" 0 three
	wait "$watcher" || fail "$(cat "$T/seen")"
	[ "$(head -c 5 "$B/f")" = three ] || fail "B reads $(head -c 5 "$B/f")"
	cmp "$A/f" "$B/f"
	"$mapped" write "$A/f" $((size - 7)) "the end"
	[ "$(tail -c 7 "$B/f")" = "the end" ] || fail "the end on B"
	"$mapped" leave "$A/f" 4093 "across a page"
	got() { [ "$(tail -c +4094 "$B/f" | head -c 13)" = "across a page" ]; }
	wait_for 10 got || fail "what a process left in a mapping is not on B"
	cmp "$A/f" "$B/f"
	has_size "$A/f" "$size" || fail "size"
	say "back again, from B to A"
	"$mapped" write "$B/f" 1 "from B"
	[ "$(head -c 7 "$A/f")" = "tfrom B" ] || fail "A reads $(head -c 7 "$A/f")"
	same_at_once "$A" "$B"
done
umount_at "$A"
umount_at "$B"
check_store
