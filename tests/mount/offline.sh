#!/bin/bash
# SPDX-License-Identifier: MIT
# A mount with `offline` keeps a copy of the tree on local disk, and shows it,
# read-only, when the store doesn't answer. On SQLite the store is away when its file
# is, on Consul when the server stands still or is gone.
# shellcheck source=tests/lib/lib.sh
. "$(dirname "$0")/../lib/lib.sh"

need perl jq sqlite3
need_mount
[ "$KIND" = sqlite ] || [ "$KIND" = consul ] || skip 'takes a store of its own away'
init_store
LOG_MAY="local copy is without its contents"

# ---- the store goes and comes back

server=$(head -1 "$T/pids")
port=${STORE#*127.0.0.1:}
port=${port%%/*}

# away [STOP]: a server that stands still answers nothing, one that is gone refuses.
away() {
	how=${1:-KILL}
	if [ "$KIND" = sqlite ]; then
		mv "$T/store" "$T/gone"
	else
		kill "-$how" "$server"
		[ "$how" = STOP ] || wait_for 20 not kill -0 "$server" || fail 'the server stays'
	fi
}
back() {
	if [ "$KIND" = sqlite ]; then
		mv "$T/gone" "$T/store"
		return
	elif [ "$how" = STOP ]; then
		kill -CONT "$server"
	else
		setpriv --pdeathsig KILL "$(consul_program)" agent "-config-file=$T/store/consul.json" \
			>>"$T/store/consul.log" 2>&1 </dev/null &
		server=$!
		disown "$server"
		echo "$server" >>"$T/pids"
	fi
	wait_for 60 consul_answers "$port" || fail 'the server does not come back'
}

# The one copy below the state directory.
copy() { find "$T/state" -name copy.icmfs; }
# said DIR TEXT: in the log of its mount.
said() { grep -q "$2" "${LOG_OF[$1]}"; }
errno() { perl -MErrno -e 'my $r = eval shift; for my $n (keys %!) { if (!$r && $!{$n}) { print $n; exit } } print $r ? "ok" : "error $!"' "$@"; }
# refused OPTIONS: a mount that doesn't come to be; its words are in $T/refused.
refused() {
	local rc=0
	timeout 120 "$ICMFS" mount "$STORE" "$A" -o "statedir=$T/state,$1" -f >"$T/refused" 2>&1 </dev/null || rc=$?
	[ $rc = 1 ] || fail "a mount with $1 ended with $rc: $(cat "$T/refused")"
	[ "$(grep -vc 'WARNING: ' "$T/refused")" = 1 ] || fail "not one line: $(cat "$T/refused")"
}
# What a tree is: names, attributes, contents.
tree() { (cd "$1" && list_tree . && find . -type f -print0 | sort -z | xargs -0 sha256sum); }

say 'a tree with everything, seen by a mount'
mount_at "$A" offline
mkdir -p "$A/state/definition 1" "$A/deep/er"
printf '{"a":1}\n' >"$A/defaults.json"
seq 1 20000 >"$A/state/definition 1/terraform.tfstate"
seq 1 200000 >"$A/deep/large"
truncate -s 3M "$A/deep/holes"
printf end | dd of="$A/deep/holes" bs=1 seek=2000000 conv=notrunc status=none
cp "$A/deep/large" "$A/deep/er/same"
ln "$A/deep/large" "$A/deep/link to large"
ln "$A/defaults.json" "$A/linked.json"
ln -s ../defaults.json "$A/deep/symlink"
ln "$A/deep/symlink" "$A/deep/symlink too"
mkfifo "$A/fifo"
: >"$A/empty"
printf odd >"$A/$(printf 'new\nline \377')"
chmod 640 "$A/defaults.json"
setfattr -n user.note -v hello "$A/empty" 2>/dev/null || true
touch -d '2001-02-03 04:05:06' "$A/deep"
echo gone >"$A/removed"
rm "$A/removed"
tree "$A" >"$T/before"
umount_at "$A"
[ -n "$(copy)" ] || fail 'there is no copy'
[ -z "$(find "$T/state" -path '*/copy*' \( -type f -perm /077 -o -type d -perm /077 \))" ] ||
	fail "others may read it: $(find "$T/state" -path '*/copy*' -ls)"

say 'the store is away: the whole tree, read-only'
away STOP
refused rw
mount_at "$A" offline
said "$A" 'showing the local copy as of' || fail "no word of it: $(cat "${LOG_OF[$A]}")"
tree "$A" >"$T/after"
cmp "$T/before" "$T/after" >&2 || fail "$(diff <(tr '\0' '\n' <"$T/before") <(tr '\0' '\n' <"$T/after") | head)"
[ "$(readlink "$A/deep/symlink too")" = ../defaults.json ] || fail 'a linked symbolic link'
cmp "$A/deep/large" "$A/deep/link to large" || fail 'a large file with two names'
[ "$(errno 'open(F, ">>", shift)' "$A/defaults.json")" = EROFS ] || fail 'it can be written'
[ "$(errno 'mkdir(shift)' "$A/dir")" = EROFS ] || fail 'it takes a new name'
[ "$(errno 'open(F, "<", shift)' "$A/no such")" = ENOENT ] || fail 'a name that is not there'
timeout 60 "$ICMFS" status "$A" >"$T/status" && fail 'status says that all is well'
grep -q '^offline: .*local copy as of 20' "$T/status" || fail "status: $(cat "$T/status")"
jq -e --arg store "$STORE" '.store == $store and .offline.left_out == 0 and (.reachable | not) and .read_only and .index > 0' \
	"$A/.icmfs/status" >"$T/jq" || fail "$(cat "$A/.icmfs/status")"
umount_at "$A"
back

say 'the store is back: so is everything, and writing'
mount_at "$A" offline
said "$A" 'local copy' && fail "$(cat "${LOG_OF[$A]}")"
tree "$A" >"$T/after"
cmp "$T/before" "$T/after" || fail 'online again, and something is different'
jq -e '.offline == null and .reachable and (.read_only | not)' "$A/.icmfs/status" >"$T/jq" || fail "$(cat "$A/.icmfs/status")"

say 'changes by another mount, a rename, a removal; then kill -9'
mount_at "$B"
echo changed >"$B/defaults.json"
mv "$B/deep" "$B/deeper"
rm "$B/empty"
echo last >"$B/last"
has_last() { [ "$(sqlite3 "$(copy)" "SELECT count(*) FROM kv WHERE key = 'attr/last'")" = 1 ]; }
wait_for 60 has_last || fail 'the copy does not follow'
umount_at "$B"
kill_mount "$A"
away
mount_at "$A" offline
[ "$(cat "$A/defaults.json" "$A/linked.json" "$A/last")" = "changed
changed
last" ] || fail 'what another mount wrote'
seq 1 200000 | cmp - "$A/deeper/large" || fail 'what was moved'
[ ! -e "$A/empty" ] || fail 'what was removed'
umount_at "$A"
back

say 'what does not fit is left out, and said'
mount_at "$A" offline,offline_copy=1
umount_at "$A"
away
mount_at "$A" offline,offline_copy=1
jq -e '.offline.left_out == 3' "$A/.icmfs/status" >"$T/jq" || fail "$(cat "$A/.icmfs/status")"
[ "$(cat "$A/last")" = last ] || fail 'a small file'
for f in large 'link to large' er/same; do
	[ "$(errno 'open(F, "<", shift) && <F>' "$A/deeper/$f")" = EIO ] || fail "$f is read"
done
said "$A" "'deeper/er/same' can't be read: the store is away" || fail "no word of it: $(cat "${LOG_OF[$A]}")"
said "$A" "'deeper/\(large\|link to large\)' can't be read: the store is away" || fail "no word of it: $(cat "${LOG_OF[$A]}")"
umount_at "$A"
back

say 'a store that answers is not replaced, and nothing is made in its place'
mount_at "$A" offline
umount_at "$A"
if [ "$KIND" = sqlite ]; then
	cp -a "$T/store" "$T/other"
	rm "$T"/store/*
	"$ICMFS" init "$STORE" >"$T/init.log"
	away
	mount_at "$A" offline
	[ -e "$A/last" ] || fail 'the copy is of what was seen'
	umount_at "$A"
	back
	mount_at "$A" offline
	said "$A" 'has another deployment' || fail "$(cat "${LOG_OF[$A]}")"
	[ -z "$(ls -A "$A")" ] || fail 'the copy mixes with the store'
	kill_mount "$A"
	away
	mount_at "$A" offline
	[ ! -e "$A/last" ] || fail "another deployment's copy is shown"
	umount_at "$A"
	back
	echo 'no database' >"$T/store/store.icmfs"
	rm -f "$T"/store/store.icmfs-*
	refused offline
	grep -q 'damaged' "$T/refused" || fail "a damaged store: $(cat "$T/refused")"
	rm -rf "$T/store"
	mv "$T/other" "$T/store"
	mount_at "$A" offline
	umount_at "$A"
fi

say 'a damaged copy is no copy'
away
cp "$(copy)" "$T/good"
dd if=/dev/urandom of="$(copy)" bs=1024 count=8 conv=notrunc status=none
refused offline
grep -q 'copy.*damaged' "$T/refused" || fail "$(cat "$T/refused")"
cp "$T/good" "$(copy)"
sqlite3 "$(copy)" "DELETE FROM kv WHERE key = 'attr/last'"
refused offline
grep -q 'copy.*names are missing' "$T/refused" || fail "$(cat "$T/refused")"
back
mount_at "$A" offline
said "$A" 'made anew' || fail "$(cat "${LOG_OF[$A]}")"
umount_at "$A"
away
mount_at "$A" offline
[ "$(cat "$A/last")" = last ] || fail 'the copy that was made anew'
umount_at "$A"

say 'without a copy'
rm -rf "$(dirname "$(copy)")"
refused offline
grep -q 'no local copy' "$T/refused" || fail "$(cat "$T/refused")"
back
check_store
