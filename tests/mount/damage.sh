#!/bin/bash
# SPDX-License-Identifier: MIT
# Broken and hostile contents of a store: an I/O error for that file and
# nothing worse; check finds each of them; a newer format is refused.
# shellcheck source=tests/lib/lib.sh
. "$(dirname "$0")/../lib/lib.sh"

need sqlite3 jq
need_mount
[ "$KIND" = sqlite ] || skip "changes the store with sqlite3"
init_store
db=$T/store/store.icmfs

sql() { sqlite3 -cmd '.timeout 5000' "$db" "$1"; }

# The value of a key as text, and its replacement.
value() { sql "select cast(value as text) from kv where key='$1'"; }
set_value() { sql "update kv set value=cast('$2' as blob) where key='$1'"; }
has() { [ "$(sql "select count(*) from kv where key='$1'")" = 1 ] || fail "the store has no $1: the test is out of date"; }

mount_at "$A"
mkdir "$A/dir" "$A/healthy"
for f in attr-cut attr-no-json attr-huge attr-type record-cut record-size record-count record-form flags link-lost; do
	echo "$f" >"$A/$f"
done
for f in chunk-lost chunk-other; do
	head -c 1400000 /dev/urandom >"$A/$f"
done
for i in 1 2 3; do
	echo "healthy $i" >"$A/healthy/$i"
done
head -c 1400000 /dev/urandom >"$A/healthy/large"
sha256sum "$A/healthy/large" >"$T/sum"
ln "$A/link-lost" "$A/link-lost2"
ln -s target "$A/symlink-bad"
echo foreign >"$A/foreign"
umount_at "$A"
check_store

for f in attr-cut record-cut flags foreign; do
	has "attr/$f"
	has "tree/$f"
done
cp "$db" "$T/sound.icmfs"

set_value attr/attr-cut "$(value attr/attr-cut | head -c 40)"
set_value attr/attr-no-json 'not json at all'
set_value attr/attr-huge "$(value attr/attr-huge | jq -c '.size = 9223372036854775807')"
set_value attr/attr-type "$(value attr/attr-type | jq -c '.mode = "170777"')"
sql "update kv set flags=1, value=cast('{\"form\":\"chu' as blob) where key='tree/record-cut'"
sql "update kv set flags=1, value=cast('{\"form\":\"chunks\",\"size\":4611686018427387904,\"chunks\":[]}' as blob) where key='tree/record-size'"
sql "update kv set flags=1, value=cast('{\"form\":\"chunks\",\"size\":1300000,\"chunks\":[null]}' as blob) where key='tree/record-count'"
sql "update kv set flags=1, value=cast('{\"form\":\"from-the-future\"}' as blob) where key='tree/record-form'"
sql "update kv set flags=77 where key='tree/flags'"
ino=$(value attr/link-lost | jq .ino)
has "inode/$ino"
sql "delete from kv where key='inode/$ino'"
sum=$(value tree/chunk-lost | jq -r '.chunks[1]')
has "blob/$sum"
sql "delete from kv where key='blob/$sum'"
sum=$(value tree/chunk-other | jq -r '.chunks[1]')
has "blob/$sum"
sql "update kv set value=zeroblob(524288) where key='blob/$sum'"
set_value tree/symlink-bad '{"form":"symlink","target":""}'
# Hostile names: none of them is a path of this tree.
i=0
long=$(printf 'n%.0s' $(seq 300))
for key in 'tree/../outside' 'tree/dir/../../outside' 'tree/./dot' 'tree//empty' 'tree/dir//x' 'tree/%2E%2E/x' \
	'tree/%00' 'tree/a%2Fb' 'tree/%61bc' 'tree/low%c3%a4' 'tree/%' 'tree/%G1' "tree/$long" 'tree//' 'attr/../x' \
	'inode/0' 'inode/99999999999999999999' 'inode/abc' 'blob/short' 'feed/nonsense' 'strange/key'; do
	i=$((i + 1))
	sql "insert or replace into kv(key,flags,created,modified,value) select '$key',0,idx,idx,cast('hostile' as blob) from state"
done

LOG_MAY='.'
mount_at "$A"
mount_at "$B"
for m in "$A" "$B"; do
	ls -la "$m" >"$T/ls" 2>&1 || true
	for i in 1 2 3; do
		[ "$(cat "$m/healthy/$i")" = "healthy $i" ] || fail "a healthy file suffers"
	done
	sha256sum --quiet -c <(sed "s|  $A|  $m|" "$T/sum") || fail "a healthy large file suffers"
	for f in attr-cut attr-no-json attr-huge attr-type record-cut record-size record-count record-form flags link-lost \
		link-lost2 chunk-lost chunk-other; do
		if timeout 30 cat "$m/$f" >"$T/out" 2>"$T/err"; then
			fail "$f can be read: $(head -c 100 "$T/out")"
		fi
		grep -q 'Input/output error' "$T/err" || fail "$f: $(cat "$T/err")"
	done
	if readlink "$m/symlink-bad" >"$T/out"; then
		fail "symlink-bad: a target: '$(cat "$T/out")'"
	fi
	for f in outside x dot empty abc "$long"; do
		[ ! -e "$m/$f" ] || fail "a hostile name is shown: $f"
	done
	[ -z "$(ls "$m/dir")" ] || fail "listing of dir: $(ls "$m/dir")"
done
[ ! -e "$T/outside" ] || fail "a path left the tree"
say "what is healthy can be changed, what is broken stays apart"
echo new >"$A/healthy/new"
echo changed >"$A/healthy/1"
mv "$A/healthy/2" "$A/dir/2"
echo better >"$A/foreign"
[ "$(cat "$B/healthy/new" "$B/healthy/1" "$B/dir/2" "$B/foreign")" = "new
changed
healthy 2
better" ] || fail "changes beside broken files"
say "breaking a file under the mount"
sql "update kv set value=cast('garbage' as blob) where key='attr/healthy/3'"
ls "$A/healthy" >/dev/null || fail "listing"
umount_at "$A"
umount_at "$B"

say "check"
rc=0
timeout 120 "$ICMFS" check "$STORE" >"$T/check.log" 2>&1 || rc=$?
[ $rc = 1 ] || fail "check ended with $rc, expected 1: $(cat "$T/check.log")"
for f in attr-cut attr-no-json attr-huge attr-type record-cut record-size record-count record-form flags chunk-lost chunk-other symlink-bad link-lost; do
	grep -q "$f\|$ino" "$T/check.log" || fail "check doesn't name $f: $(cat "$T/check.log")"
done
grep -q '%61bc' "$T/check.log" || fail "check doesn't name a foreign spelling"
for i in 1 2 3; do
	rc=0
	timeout 120 "$ICMFS" check "$STORE" >"$T/check.again" 2>&1 || rc=$?
	[ $rc = 1 ] || fail "check again: $rc"
done

say "a newer format is refused and left alone"
cp "$T/sound.icmfs" "$T/store/newer.icmfs"
db=$T/store/newer.icmfs
set_value meta "$(value meta | jq -c '.format = 2 | .unheard = "of"')"
sql "select key, flags, hex(value) from kv order by key" >"$T/kv.before"
for c in "mount $db $A" "check $db" "init $db"; do
	rc=0
	# shellcheck disable=SC2086
	timeout 60 "$ICMFS" $c >"$T/out" 2>&1 || rc=$?
	if [ $rc = 0 ] || [ $rc -ge 124 ]; then
		fail "$c of a newer store: $rc"
	fi
	[ "$(wc -l <"$T/out")" = 1 ] || fail "$c of a newer store: $(cat "$T/out")"
done
timeout 60 "$ICMFS" mount "$db" "$A" 2>&1 | grep -qE 'newer|format|version' || fail "the refusal doesn't say why"
sql "select key, flags, hex(value) from kv order by key" >"$T/kv.after"
cmp "$T/kv.before" "$T/kv.after" || fail "a newer store was changed"

say "a database that isn't a store, a cut one, an empty file"
sqlite3 "$T/store/other.icmfs" 'create table t(a); insert into t values(1)'
head -c 5000 "$T/sound.icmfs" >"$T/store/cut.icmfs"
for s in other cut; do
	rc=0
	timeout 60 "$ICMFS" mount "$T/store/$s.icmfs" "$A" >"$T/out" 2>&1 || rc=$?
	if [ $rc = 0 ] || [ $rc -ge 124 ]; then
		fail "$s: mount ended with $rc"
	fi
	[ "$(wc -l <"$T/out")" = 1 ] || fail "$s: $(cat "$T/out")"
done
[ "$(sqlite3 "$T/store/other.icmfs" 'select a from t')" = 1 ] || fail "a foreign database was changed"
