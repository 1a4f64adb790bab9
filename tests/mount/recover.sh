#!/bin/bash
# SPDX-License-Identifier: MIT
# What can't be committed is kept on local disk, and comes back: as the next
# version while nobody has changed the file, else beside it. The embedded store's
# disk is full; Consul's servers are stopped, which answers nothing at all.
# shellcheck source=tests/lib/lib.sh
. "$(dirname "$0")/../lib/lib.sh"

need perl jq
need_mount
mkdir "$T/store" "$T/spool"
export TMPDIR=$T/spool
if [ "$KIND" = sqlite ]; then
	mount -t tmpfs -o size=24m none "$T/store" || skip "not enough memory for a tmpfs"
else
	MOUNT_OPTS=timeout=2
fi
two_mounts
recover() { "$ICMFS" recover --statedir "$T/state" "$@"; }
kept() { "$ICMFS" status --json "$A" | jq .kept.files; }
id_of() { recover --json | jq -r --arg path "$1" '.[] | select(.path == $path).id'; }

[ "$(recover)" = "nothing is kept: everything is in its store" ] || fail "the empty list"
"$ICMFS" status "$A" >/dev/null || fail "status of a mount where all is saved"

mkdir "$A/dir"
head -c 1000000 /dev/urandom >"$T/old"
cp "$T/old" "$A/changed"
cp "$T/old" "$A/patched"
cp "$T/old" "$A/overtaken"
cp "$T/old" "$A/gone"
echo small >"$A/dir/other"

# Until not even a small file fits.
fill_disk() {
	local size i
	for size in 3000000 300000 30000 3000 300; do
		head -c $size /dev/urandom >"$T/fill"
		for i in $(seq 300); do
			cp "$T/fill" "$A/fill-$size-$i" 2>/dev/null || break
		done
	done
}

# Opened while the store answers, written and closed when it is away.
head -c 1200000 /dev/urandom >"$T/new"
perl -e '
	my ($dir, $new, $opened, $away) = @ARGV;
	my (%fd, $errors);
	open(my $in, "<", $new) or die "$!"; local $/; my $bytes = <$in>;
	for my $name (qw(changed overtaken gone dir/fresh)) { open($fd{$name}, ">", "$dir/$name") or die "$name: $!" }
	# a chunk that is changed in part has to be here
	open($fd{patched}, "+<", "$dir/patched") or die "patched: $!";
	sysread($fd{patched}, my $old, 1 << 20) or die "patched: $!";
	open(my $f, ">", $opened); close($f);
	select(undef, undef, undef, 0.02) until -e $away;
	for my $name (sort keys %fd) {
		my $f = $fd{$name};
		if ($name eq "patched") { sysseek($f, 700000, 0); syswrite($f, "PATCH") or die "$name: $!" }
		else { for (my $at = 0; $at < length($bytes);) { $at += syswrite($f, $bytes, 1 << 20, $at) or die "$name: $!" } }
		$errors++ if !close($f);
	}
	print "$errors errors\n"' "$A" "$T/new" "$T/opened" "$T/away" >"$T/written" 2>&1 &
writer=$!
echo "$writer" >>"$T/pids"
wait_for 60 test -e "$T/opened" || fail "opening: $(cat "$T/written")"
if [ "$KIND" = sqlite ]; then
	say "the disk is full"
	fill_disk
else
	say "the servers are stopped"
	store_signal STOP
fi
touch "$T/away"
wait_for 120 not kill -0 "$writer" || fail "a writer hangs"
wait "$writer" || true
[ "$(cat "$T/written")" = "5 errors" ] || fail "written: $(cat "$T/written")"
all_kept() {
	local f
	for f in changed patched overtaken gone dir/fresh; do
		[ -n "$(id_of "$f")" ] || return 1
	done
}
wait_for 30 all_kept || fail "not everything is kept: $(recover)"
"$ICMFS" status "$A" >/dev/null && fail "status says that all is saved"
"$ICMFS" status "$A" | grep -q 'could not be committed' || fail "status doesn't name what is kept"
"$ICMFS" recover "$A" | grep -q 'dir/fresh' || fail "recover DIR doesn't list dir/fresh"
[ -z "$(find "$T/state" -path '*/unsaved/*' ! -perm 600)" ] || fail "modes of what is kept"
[ "$KIND" != sqlite ] || cmp "$T/old" "$B/changed" || fail "a failed change is seen on B"

say "it outlives the mount, and what is broken is named"
umount_at "$A"
unsaved=$(dirname "$(find "$T/state" -name "$(id_of changed).json")")
echo '{"id":' >"$unsaved/0000000000000000.json"
recover >"$T/list" 2>"$T/errors"
grep -q '1 not understood' "$T/errors" || fail "a broken description isn't named"
rm "$unsaved/0000000000000000.json"
recover --show "$(id_of dir/fresh)" | cmp - "$T/new" || fail "--show"
recover --restore "$(id_of changed)" 2>"$T/errors" && fail "restored without a mount"
grep -q "isn't mounted" "$T/errors" || fail "no clear line without a mount: $(cat "$T/errors")"
recover --restore 0123456789abcdef 2>/dev/null && fail "an id that nothing has"
rc=0
recover --restore x --drop y 2>/dev/null || rc=$?
[ $rc = 2 ] || fail "wrong usage gives $rc, not 2"

say "it is back: restored"
if [ "$KIND" = sqlite ]; then
	mount -o remount,size=120m "$T/store"
else
	store_signal CONT
fi
mount_at "$A" "${MOUNT_OPTS:-}"
cmp "$T/old" "$B/changed" || fail "a failed change is seen on B"
ino=$(stat -c %i "$A/changed")
echo overtaken >"$B/overtaken"
rm "$B/gone"
mv "$B/dir" "$B/moved"
wait_for 10 test -d "$A/moved" || fail "the move on A"
recover --restore "$(id_of changed)" >/dev/null || fail "restore of changed"
cmp "$T/new" "$B/changed" || fail "changed on B"
[ "$(stat -c %i "$B/changed")" = "$ino" ] || fail "it became another file"
recover --restore "$(id_of patched)" >/dev/null || fail "restore of patched"
{ head -c 700000 "$T/old"; printf PATCH; tail -c +700006 "$T/old"; } | cmp - "$B/patched" || fail "patched on B"
recover --restore "$(id_of overtaken)" >"$T/where" || fail "restore of overtaken"
[ "$(cat "$B/overtaken")" = overtaken ] || fail "somebody else's version was replaced"
cmp "$T/new" "$B"/overtaken.conflict-* || fail "the copy beside it"
recover --restore "$(id_of gone)" >/dev/null || fail "restore of gone"
cmp "$T/new" "$B/gone" || fail "gone on B"
recover --restore "$(id_of dir/fresh)" 2>"$T/errors" && fail "restored into a directory that is gone"
grep -q 'directory .* is gone' "$T/errors" || fail "no clear line: $(cat "$T/errors")"
recover --restore "$(id_of dir/fresh)" --to "$A/moved/other" 2>/dev/null && fail "--to replaced a file"
recover --restore "$(id_of dir/fresh)" --to "$A/moved/fresh" >/dev/null || fail "--to"
cmp "$T/new" "$B/moved/fresh" || fail "--to on B"
for id in $(recover --json | jq -r '.[].id'); do
	recover --drop "$id" || fail "--drop"
done
[ "$(kept)" = 0 ] || fail "something is still kept"
[ -z "$(find "$T/state" -path '*/unsaved/*')" ] || fail "files are left: $(find "$T/state" -path '*/unsaved/*')"
umount_at "$A"
umount_at "$B"
check_store
