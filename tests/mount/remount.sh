#!/bin/bash
# SPDX-License-Identifier: MIT
# Inode numbers, times and contents are the same after a remount and in both
# mounts; an incremental backup sees no change.
# shellcheck source=tests/lib/lib.sh
. "$(dirname "$0")/../lib/lib.sh"

need rsync tar
two_mounts
mkdir -p "$A/state/definition 0" "$A/keys" "$A/many"
echo '{}' >"$A/defaults.json"
head -c 262145 /dev/urandom >"$A/keys/large"
head -c 1500001 /dev/urandom >"$A/keys/larger"
head -c 262144 /dev/urandom >"$A/keys/plain"
: >"$A/keys/empty"
ln "$A/keys/large" "$A/keys/large2"
ln -s ../defaults.json "$A/keys/link"
mkfifo "$A/keys/fifo"
mknod "$A/keys/null" c 1 3
chmod 0400 "$A/keys/plain"
chown 4242:4343 "$A/keys/empty"
touch -d '2003-04-05 06:07:08.123456789' "$A/keys/larger" "$A/keys"
touch -h -d '1999-12-31 23:59:59.999999999' "$A/keys/link"
echo odd >"$A/"$'new\nline %25\xff'
for i in $(seq 200); do
	echo "$i" >"$A/many/$i"
done
truncate -s 700001 "$A/hole"
printf x | dd of="$A/hole" bs=1 seek=600001 conv=notrunc status=none
if setfattr -n user.note -v value "$A/defaults.json" 2>/dev/null; then
	xattr=1
fi
same_at_once "$A" "$B"

# Numbers are unique but for hard links.
doubles=$(find "$A" ! -type d -links 1 -printf '%i\n' | sort | uniq -d)
[ -z "$doubles" ] || fail "inode numbers are used twice: $doubles"
[ "$(stat -c %i "$B/keys/large")" = "$(stat -c %i "$B/keys/large2")" ] || fail "hard link's number"

sums() { (cd "$1" && find . -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum); }
backup() { (cd "$1" && tar --no-check-device --listed-incremental="$T/snapshot" -cvf /dev/null .) >"$T/tar.out" 2>/dev/null; }

list_tree "$A" >"$T/before"
sums "$A" >"$T/sums"
cp -a "$A" "$T/copy"
backup "$A"
grep -q many/17 "$T/tar.out" || fail "tar lists nothing"

unchanged() {
	list_tree "$1" >"$T/after"
	cmp -s "$T/before" "$T/after" || {
		diff <(tr '\0' '\n' <"$T/before") <(tr '\0' '\n' <"$T/after") | head >&2
		fail "$2: another listing"
	}
	sums "$1" >"$T/sums.after"
	cmp "$T/sums" "$T/sums.after" || fail "$2: other contents"
	[ -z "$(rsync -aHni -@-1 --delete "$T/copy/" "$1/")" ] || fail "$2: rsync sees changes"
	[ -z "${xattr:-}" ] || [ "$(getfattr --absolute-names --only-values -n user.note "$1/defaults.json")" = value ] || fail "$2: attribute"
	backup "$1"
	if grep -v '/$' "$T/tar.out"; then
		fail "$2: tar would save something again"
	fi
}

unchanged "$B" "second mount"
for round in 1 2 3; do
	umount_at "$A"
	[ "$round" = 2 ] || umount_at "$B"
	mount_at "$A"
	unchanged "$A" "remount $round"
	[ "$round" = 2 ] || mount_at "$B"
	unchanged "$B" "remount $round, second mount"
done
say "a new file gets a new number"
echo new >"$A/new"
[ "$(find "$A" -inum "$(stat -c %i "$A/new")" | wc -l)" = 1 ] || fail "number used again"
same_at_once "$A" "$B"
umount_at "$A"
umount_at "$B"
check_store
