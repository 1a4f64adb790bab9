#!/bin/bash
# SPDX-License-Identifier: MIT
# Programs in A: git, sqlite3, rsync, tar, cp, gcc. After each one ended, B has
# the same at once.
# shellcheck source=tests/lib/lib.sh
. "$(dirname "$0")/../lib/lib.sh"

need git sqlite3 rsync tar gcc
two_mounts
export GIT_CONFIG_NOSYSTEM=1 GIT_AUTHOR_NAME=t GIT_AUTHOR_EMAIL=t@t GIT_COMMITTER_NAME=t GIT_COMMITTER_EMAIL=t@t

# A tree of everything: depths, sizes, modes, links, names, times, a hole.
make_source() {
	local d=$1 i
	mkdir -p "$d/state/definition 0" "$d/state/definition 1" "$d/keys" "$d/deep/er/and/deeper"
	for i in 0 1 4095 4096 4097 70001 262144 262145 524289 1500007; do
		head -c "$i" /dev/urandom >"$d/size-$i"
	done
	for i in $(seq 60); do
		echo "file $i" >"$d/deep/f$i"
	done
	echo '{}' >"$d/defaults.json"
	echo 'x = 1' >"$d/state/definition 0/terraform.tfvars"
	printf 'odd' >"$d/deep/"$'new\nline'
	printf 'odd' >"$d/deep/"$'bytes\xff\xfe'
	ln -s "../defaults.json" "$d/keys/link"
	ln -s "nowhere" "$d/keys/dangling"
	ln "$d/defaults.json" "$d/keys/hard"
	mkfifo "$d/keys/fifo"
	chmod 0600 "$d/keys/link"
	chmod 0750 "$d/deep/er"
	truncate -s 3000001 "$d/hole"
	printf 'end' >>"$d/hole"
	touch -d '2001-02-03 04:05:06.123456789' "$d/deep/f1" "$d/deep/er"
	touch -h -d '2002-02-03 04:05:06.987654321' "$d/keys/dangling"
	chown 12345:23456 "$d/deep/f2"
}

# What an archiver has to keep: no ctime, no inode.
listing() {
	(cd "$1" && find . -mindepth 1 -printf '%p|%y|%m|%U|%G|%s|%T@|%n|%l\0' | LC_ALL=C sort -z |
		sed -z 's/^\([^|]*|d|[^|]*|[^|]*|[^|]*|\)[^|]*/\1/' | sed -z 's/|[^|]*|\([^|]*\)$/|\1/')
}

same_as_source() {
	diff -r --no-dereference --exclude=fifo "$T/src" "$1" || fail "$2: contents"
	diff <(listing "$T/src" | tr '\0' '\n') <(listing "$1" | tr '\0' '\n') || fail "$2: attributes"
}

make_source "$T/src"

say "cp -a"
cp -a "$T/src" "$A/cp"
same_as_source "$B/cp" "cp -a, on B"
same_at_once "$A" "$B"
cp -a "$A/cp" "$A/cp2"
same_as_source "$B/cp2" "cp -a inside, on B"

say "tar"
tar -C "$T/src" --format=posix -cf "$T/src.tar" .
mkdir "$A/tar"
tar -C "$A/tar" -xpf "$T/src.tar"
same_as_source "$B/tar" "tar x, on B"
tar -C "$B/tar" --format=posix -cf "$T/again.tar" .
mkdir "$T/again"
tar -C "$T/again" -xpf "$T/again.tar"
same_as_source "$T/again" "tar c from B"

say "rsync"
rsync -aH -@-1 "$T/src/" "$A/rsync/"
same_as_source "$B/rsync" "rsync, on B"
[ -z "$(rsync -aHni -@-1 --delete "$T/src/" "$B/rsync/")" ] || fail "rsync -n sees changes"
echo changed >"$T/src/deep/f5"
rm "$T/src/deep/f6"
rsync -aH -@-1 --delete "$T/src/" "$A/rsync/"
same_as_source "$B/rsync" "second rsync, on B"
printf 'middle' | dd of="$T/src/size-1500007" bs=1 seek=777777 conv=notrunc status=none
rsync -aH -@-1 --inplace --no-whole-file "$T/src/" "$A/rsync/"
same_as_source "$B/rsync" "rsync --inplace, on B"
same_at_once "$A" "$B"

say "rm -rf"
rm -rf "$A/cp2" "$A/tar" "$A/rsync"
wait_for 10 test ! -e "$B/rsync" || fail "rm -rf is not seen on B"
same_at_once "$A" "$B"

say "git"
git init -q -b main "$A/repo"
cp -a "$T/src/deep" "$T/src/state" "$T/src/defaults.json" "$A/repo/"
rm -f "$A/repo/deep/"$'bytes\xff\xfe'
git -C "$A/repo" add -A
git -C "$A/repo" commit -q -m one
for i in 1 2 3 4 5; do
	echo "change $i" >>"$A/repo/defaults.json"
	echo "$i" >"$A/repo/new$i"
	git -C "$A/repo" add -A
	git -C "$A/repo" commit -q -m "change $i"
done
git -C "$A/repo" branch other HEAD~3
git -C "$A/repo" checkout -q other
[ "$(tail -1 "$B/repo/defaults.json")" = "change 2" ] || fail "checkout is not seen on B"
git -C "$A/repo" checkout -q main
git -C "$A/repo" fsck --strict --no-dangling || fail "git fsck on A"
same_at_once "$A" "$B"
git -C "$B/repo" config --get core.bare >/dev/null
git -C "$B/repo" -c safe.directory='*' fsck --strict --no-dangling || fail "git fsck on B"
[ "$(git -C "$B/repo" rev-parse HEAD)" = "$(git -C "$A/repo" rev-parse HEAD)" ] || fail "HEAD"
git clone -q "$A/repo" "$A/clone"
git -C "$A/clone" fsck --strict || fail "fsck of the clone"
git -C "$A/repo" gc -q --aggressive --prune=now
same_at_once "$A" "$B"
git -C "$B/repo" fsck --strict || fail "git fsck on B after gc"
[ -z "$(git -C "$B/repo" status --porcelain)" ] || fail "git status on B"
git -C "$B/repo" commit -q --allow-empty -m "from B"
[ "$(git -C "$A/repo" log -1 --format=%s)" = "from B" ] || fail "B's commit is not seen on A"
same_at_once "$A" "$B"

say "sqlite3"
for mode in delete truncate persist; do
	db=$mode.db
	sqlite3 "$A/$db" "pragma journal_mode=$mode; create table t(a integer primary key, b text);" >/dev/null
	for i in $(seq 10); do
		sqlite3 "$A/$db" "begin; with recursive c(x) as (select 1 union all select x+1 from c where x < 100)
			insert into t(b) select hex(randomblob(50)) from c; commit;"
	done
	sqlite3 "$A/$db" "delete from t where a % 7 = 0; vacuum;"
	[ "$(sqlite3 "$A/$db" 'pragma integrity_check')" = ok ] || fail "$mode: integrity on A"
	cp "$B/$db" "$T/copy.db"
	[ "$(sqlite3 "$T/copy.db" 'pragma integrity_check')" = ok ] || fail "$mode: integrity on B"
	[ "$(sqlite3 "$T/copy.db" 'select count(*) from t')" = 858 ] || fail "$mode: rows on B"
	same_at_once "$A" "$B"
done
sqlite3 "$A/wal.db" "pragma journal_mode=wal; create table t(a); insert into t values(1),(2),(3);" >/dev/null
sqlite3 "$A/wal.db" "insert into t select a+3 from t; pragma wal_checkpoint(truncate);" >/dev/null
[ "$(sqlite3 "$A/wal.db" 'pragma integrity_check; select count(*) from t')" = $'ok\n6' ] || fail "wal on A"
cp "$B/wal.db" "$T/wal.db"
[ "$(sqlite3 "$T/wal.db" 'select count(*) from t')" = 6 ] || fail "wal on B"

say "gcc"
mkdir "$A/build"
cat >"$A/build/hello.c" <<'END'
#include <stdio.h>
int twice(int x);
int main(void) { printf("%d\n", twice(21)); return 0; }
END
echo 'int twice(int x) { return 2 * x; }' >"$A/build/twice.c"
(cd "$A/build" && gcc -g -c hello.c twice.c && ar rc libtwice.a twice.o && gcc -o hello hello.o -L. -ltwice)
[ "$("$B/build/hello")" = 42 ] || fail "the program runs differently on B"
(cd "$A/build" && sed -i 's/2 \*/3 */' twice.c && gcc -g -c twice.c && ar rc libtwice.a twice.o &&
	gcc -o hello hello.o -L. -ltwice)
[ "$("$B/build/hello")" = 63 ] || fail "B runs the old program"
same_at_once "$A" "$B"
umount_at "$A"
umount_at "$B"
check_store
