#!/bin/bash
# SPDX-License-Identifier: MIT
# A full disk below the store: ENOSPC, nothing is lost, and all goes on when
# there is room again.
# shellcheck source=tests/lib/lib.sh
. "$(dirname "$0")/../lib/lib.sh"

need perl
need_mount
mkdir "$T/store" "$T/spool"
export TMPDIR=$T/spool
mount -t tmpfs -o size=24m none "$T/store" || skip "not enough memory for a tmpfs"
init_store
mount_at "$A"
mount_at "$B"

# put FILE BYTES: writes, syncs, closes; prints what the first error was.
put() {
	perl -e '
		use Fcntl; use IO::Handle;
		sysopen(my $f, $ARGV[0], O_WRONLY | O_CREAT | O_TRUNC) or do { print $!{ENOSPC} ? "full" : "open: $!"; exit 1 };
		open(my $r, "<", "/dev/urandom"); my $b; read($r, $b, $ARGV[1]);
		my $done = 0;
		while ($done < $ARGV[1]) {
			my $n = syswrite($f, $b, $ARGV[1] - $done, $done);
			defined $n or do { print $!{ENOSPC} ? "full" : "write: $!"; exit 1 };
			$done += $n;
		}
		if ($ARGV[2]) { $f->sync or do { print $!{ENOSPC} ? "full" : "fsync: $!"; exit 1 } }
		close($f) or do { print $!{ENOSPC} ? "full" : "close: $!"; exit 1 };' "$1" "$2" "${3:-0}"
}

echo precious >"$A/precious"
for i in $(seq 200); do
	what=$(put "$A/file-$i" $((100000 + i * 1237)) $((i % 2))) || break
	sha256sum "$A/file-$i" >>"$T/sums"
done
[ "$i" -lt 200 ] || fail "the disk never got full"
[ "$what" = full ] || fail "file $i: $what, expected ENOSPC"
say "full after $i files"

whole() {
	local f
	sha256sum --quiet -c "$T/sums" || fail "$1: a stored file is not what it was"
	while read -r _ f; do
		cmp "$f" "$B/${f##*/}" || fail "$1: $f on B"
	done <"$T/sums"
	[ "$(cat "$A/precious" "$B/precious")" = "precious
precious" ] || fail "$1: an old file"
}
whole "while full"

say "an overwrite that fails leaves the old version to others"
before=$(sha256sum <"$B/file-1")
for n in 1 2 3; do
	what=$(put "$A/file-1" 900000) && fail "an overwrite went through on a full disk"
	[ "$what" = full ] || fail "overwrite $n: $what, expected ENOSPC"
done
[ "$(sha256sum <"$B/file-1")" = "$before" ] || fail "a failed overwrite changed the file"
mkdir_error=$(for i in $(seq 3000); do LC_ALL=C mkdir "$A/dir-$i" 2>&1 || break; done)
[ -z "$mkdir_error" ] || [[ $mkdir_error == *"No space left"* ]] || fail "mkdir: $mkdir_error"

say "room again"
mount -o remount,size=80m "$T/store"
mkdir "$A/afterwards"
for i in $(seq 10); do
	what=$(put "$A/afterwards/$i" 300000) || fail "after there is room again: $what"
done
put "$A/file-1" 900000 || fail "overwrite after there is room again"
sha256sum "$A/file-1" >"$T/new"
sed -i '1d' "$T/sums"
cat "$T/new" >>"$T/sums"
whole "afterwards"
same_at_once "$A" "$B"
umount_at "$A"
umount_at "$B"
check_store
mount_at "$A"
mount_at "$B"
whole "after a remount"
