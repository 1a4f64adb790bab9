#!/bin/bash
# SPDX-License-Identifier: MIT
# Snapshots as users and backup programs see them: made and removed by mkdir and
# rmdir, equal to the tree of that moment for diff, tar and cp on both mounts,
# unchanged by what happens later, and for nobody to write.
# shellcheck source=tests/lib/lib.sh
. "$(dirname "$0")/../lib/lib.sh"

need_mount
need tar setfattr getfattr find
two_mounts
snaps=.icmfs/snapshots

say "a tree with everything"
mkdir -p "$A/state/definition 0/empty"
printf '{"Label": "ACME"}\n' >"$A/defaults.json"
head -c 3000000 /dev/urandom >"$A/state/large"
: >"$A/state/none"
ln -s large "$A/state/link"
ln "$A/defaults.json" "$A/state/hard"
mkfifo "$A/state/fifo"
truncate -s 700000 "$A/state/sparse"
printf x >>"$A/state/sparse"
chmod 0640 "$A/state/large"
setfattr -n user.note -v kept "$A/state/large"
touch -d '2021-02-03 04:05:06.789012345' "$A/state/none" "$A/state/definition 0"

# Names, modes, owners, sizes, times and targets.
facts() { (cd "$1" && find . -printf '%p %y %m %U %G %n %s %T+ %C+ %l\n' | sort); }
mkdir "$T/ref"
cp -a "$A/." "$T/ref"
facts "$A" >"$T/facts"

say "one of it"
mkdir "$A/$snaps/before"
# A name that is there already, and names that can't be.
mkdir "$B/$snaps/before" 2>"$T/err" && fail "made twice"
grep -q 'File exists' "$T/err" || fail "made twice: $(cat "$T/err")"
not mkdir "$A/$snaps/$(printf 'x%.0s' {1..256})" 2>/dev/null || fail "a name of 256 bytes"

say "everything changes"
echo '{}' >"$B/defaults.json"
head -c 2000000 /dev/urandom >"$B/state/large"
mv "$A/state" "$A/moved"
rm -r "$B/moved/definition 0" "$B/moved/fifo"
ln -sfn other "$A/moved/link"
echo new >"$A/new"

for m in "$A" "$B"; do
	say "as it was, on $(basename "$m")"
	facts "$m/$snaps/before" | diff "$T/facts" - || fail "names and attributes"
	diff -r -x fifo --no-dereference "$T/ref" "$m/$snaps/before" || fail "contents"
	[ "$(getfattr --only-values -n user.note "$m/$snaps/before/state/large" 2>/dev/null)" = kept ] ||
		fail "extended attributes"
	tar -C "$m/$snaps/before" -cf "$T/$(basename "$m").tar" .
	[ "$(ls "$m/$snaps")" = before ] || fail "listed: $(ls "$m/$snaps")"
done
cmp "$T/$(basename "$A").tar" "$T/$(basename "$B").tar" || fail "archives of both mounts differ"

say "nobody writes there"
for cmd in 'echo x >defaults.json' 'rm defaults.json' 'mkdir d' 'touch state' 'mv state s' 'chmod 600 new' \
	'ln -s a b' 'truncate -s 0 state/large' 'setfattr -n user.x -v y state'; do
	(cd "$B/$snaps/before" && eval "$cmd") 2>/dev/null && fail "done: $cmd"
done
diff -r -x fifo --no-dereference "$T/ref" "$B/$snaps/before" || fail "contents after these"

say "back from it"
cp -a "$A/$snaps/before/defaults.json" "$A/defaults.json" || fail "cp"
cmp "$T/ref/defaults.json" "$B/defaults.json"

say "a second one, unchanged files with their numbers"
mkdir "$B/$snaps/after"
[ "$(stat -c '%i %z' "$A/$snaps/before/state/none")" = "$(stat -c '%i %z' "$A/$snaps/after/moved/none")" ] ||
	fail "an unchanged file has another number or time"
not cmp -s "$A/$snaps/before/state/large" "$A/$snaps/after/moved/large" || fail "changed contents are the same"

say "after remounting"
umount_at "$A"
mount_at "$A"
facts "$A/$snaps/before" | diff "$T/facts" - || fail "names and attributes after remounting"

say "a read-only mount has them, and makes none"
umount_at "$B"
mount_at "$B" ro
diff -r -x fifo --no-dereference "$T/ref" "$B/$snaps/before" || fail "contents on a read-only mount"
mkdir "$B/$snaps/x" 2>"$T/err" && fail "made on a read-only mount"
grep -q 'Read-only file system' "$T/err" || fail "read-only: $(cat "$T/err")"
umount_at "$B"

say "removed"
rmdir "$A/$snaps/before"
[ "$(ls "$A/$snaps")" = after ] || fail "listed: $(ls "$A/$snaps")"
not stat "$A/$snaps/before" 2>/dev/null || fail "it is still there"
umount_at "$A"
check_store
