#!/bin/bash
# SPDX-License-Identifier: MIT
# A directory that doesn't fit into one transaction is renamed, and the mount that is
# at it killed at a random moment: another mount, which looks all the time, and the
# next mount see all of it under the old name or all of it under the new one.
# ICMFS_TEST_FILES: how many files ("10 100 5000"); ICMFS_TEST_CUTS: kills of each (5).
# shellcheck source=tests/lib/lib.sh
. "$(dirname "$0")/../lib/lib.sh"

need_mount
need perl xargs
sizes=${ICMFS_TEST_FILES:-10 100 5000}
kills=${ICMFS_TEST_CUTS:-5}

rename_dir() { perl -e 'rename($ARGV[0], $ARGV[1]) or die "rename: $!\n"' "$1" "$2"; }

# fill DIR COUNT: files in three directories, and an empty one.
fill() {
	mkdir -p "$1/one/two" "$1/empty"
	# shellcheck disable=SC2016
	seq "$2" | xargs -P 8 -n 100 bash -c 'dir=$0
		for i; do
			case $((i % 3)) in
			0) f=$dir/f$i ;;
			1) f=$dir/one/f$i ;;
			2) f=$dir/one/two/f$i ;;
			esac
			echo "file $i" >"$f" || exit 255
		done' "$1"
}

# where DIR: the one name that the directory has there.
where() {
	local names
	names=$(ls "$1/top") || fail "$1/top can't be listed"
	[ "$names" = old ] || [ "$names" = new ] || fail "$1/top has: ${names//$'\n'/ }"
	printf '%s\n' "$names"
}

# look DIR COUNT: one look at everything, from the top; what is missing must be so
# because the directory has its other name by now, as a whole.
look() {
	local name n
	name=$(where "$1")
	n=$(find "$1/top/$name" -type f 2>"$T/look.err" | wc -l) || true
	if [ "$n" != "$2" ] || [ -s "$T/look.err" ]; then
		[ "$(where "$1")" != "$name" ] ||
			fail "$1/top/$name has $n files of $2: $(head -3 "$T/look.err")"
		return
	fi
	read_one "$1" "$name" $((RANDOM % $2 + 1))
}

read_one() {
	local f text dirs=('' one/ one/two/)
	f=$1/top/$2/${dirs[$3 % 3]}f$3
	if ! text=$(cat "$f" 2>"$T/read.err"); then
		[ "$(where "$1")" != "$2" ] || fail "$f: $(cat "$T/read.err")"
		return
	fi
	[ "$text" = "file $3" ] || fail "$f has '$text'"
}

# Looks until the file $T/enough is there.
watch_it() {
	local looks=0
	until [ -e "$T/enough" ]; do
		look "$1" "$2"
		looks=$((looks + 1))
	done
	echo "$looks" >"$T/looks"
}

start_watching() {
	rm -f "$T/enough" "$T/looks"
	(trap - EXIT; watch_it "$B" "$1") 2>"$T/watcher" &
	WATCHER=$!
}

end_watching() {
	touch "$T/enough"
	wait "$WATCHER" || fail "the other mount: $(cat "$T/watcher")"
}

nothing_under_way() {
	timeout 120 "$ICMFS" check "$STORE" >"$T/check.log" 2>&1 && ! grep -q 'is becoming' "$T/check.log"
}

other_name() { [ "$1" = old ] && echo new || echo old; }

# kill_in_rename COUNT MILLISECONDS
kill_in_rename() {
	local name mover
	name=$(where "$A")
	start_watching "$1"
	rename_dir "$A/top/$name" "$A/top/$(other_name "$name")" 2>"$T/mover" &
	mover=$!
	sleep "$(printf '%d.%03d' $(($2 / 1000)) $(($2 % 1000)))"
	kill_mount "$A"
	wait "$mover" || true
	wait_for 120 nothing_under_way || fail "the change stays: $(cat "$T/check.log")"
	end_watching
	mount_at "$A"
	[ "$(where "$A")" = "$(where "$B")" ] || fail "the mounts disagree"
	look "$A" "$1"
	look "$B" "$1"
	check_store
	if [ "$(where "$A")" = "$name" ]; then undone=$((undone + 1)); else done=$((done + 1)); fi
}

two_mounts
for size in $sizes; do
	done=0 undone=0
	mkdir "$A/top"
	fill "$A/top/old" "$size"
	start_watching "$size"
	start=$(date +%s%N)
	rename_dir "$A/top/old" "$A/top/new" || fail "$size files can't be renamed"
	ms=$((($(date +%s%N) - start) / 1000000))
	[ "$(where "$B")" = new ] || fail "the other mount has the old name after the rename"
	end_watching
	say "$size files in $ms ms, $(cat "$T/looks") looks"
	check_store
	n=$kills
	[ "$size" -lt 1000 ] || n=$(((kills + 1) / 2))
	for ((i = 0; i < n; i++)); do
		kill_in_rename "$size" $((RANDOM % (ms + ms / 4 + 2)))
	done
	say "$size files: killed $n times, $done renamed, $undone as before"
	[ "$size" -gt 1000 ] || same_at_once "$A" "$B"
	# what was moved can be written, and is gone when it is removed
	echo more >"$A/top/$(where "$A")/one/more"
	[ "$(cat "$B/top/$(where "$B")/one/more")" = more ] || fail "what is written there isn't seen"
	[ "$size" -gt 1000 ] || rm -r "$A/top"
	[ ! -e "$A/top" ] || mv "$A/top" "$A/top-$size"
done
umount_at "$A"
umount_at "$B"
check_store
