#!/bin/bash
# SPDX-License-Identifier: MIT
# init, and stores that can't be opened.
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "$0")/lib.sh"

run 0 "$icmfs" init a.icmfs
printed ''
run 1 "$icmfs" init a.icmfs
refused "sqlite:$dir/a.icmfs: there is a deployment already"
run 0 "$icmfs" check a.icmfs
printed "0 files, 1 directory, 0 blobs: no problems"
[ "$(stat -c %a a.icmfs)" = 600 ] || complain "mode of the store is $(stat -c %a a.icmfs)"

# URL, names with blanks and quotes, a name for the deployment.
run 0 "$icmfs" init "sqlite:$dir/with blank 'and' quote" --name "Orion LAB"
run 0 "$icmfs" check --json "sqlite:$dir/with blank 'and' quote"
[ "$(jq -r .store <<<"$out")" = "sqlite:$dir/with blank 'and' quote" ] || complain "store: $out"
run 0 sqlite3 "with blank 'and' quote" "select 1"
run 2 "$icmfs" init b.icmfs --name "$(printf '%0300d' 0)"
refused "the name is longer than 255 bytes"
[ ! -e b.icmfs ] || complain "a refused init made a file"

# Not a store.
run 1 "$icmfs" init plain-name
refused_like '"plain-name" is not a store*'
run 1 "$icmfs" init nonsense:x
refused_like 'unknown kind of store*'
run 1 "$icmfs" init sqlite:
refused_like '*names nothing*'
run 1 "$icmfs" init $'with\nnewline.icmfs'
refused 'store URL has control characters'
run 1 "$icmfs" init no/such/dir/s.icmfs
refused_like '*no/such/dir/s.icmfs*'
mkdir d.icmfs
run 1 "$icmfs" init d.icmfs
refused_like '*d.icmfs*'
head -c 20000 /dev/urandom >garbage.icmfs
run 1 "$icmfs" init garbage.icmfs
refused_like '*garbage.icmfs*'
run 3 "$icmfs" check garbage.icmfs
refused_like '*garbage.icmfs*'
sqlite3 other.icmfs 'create table t (x); insert into t values (1)'
run 3 "$icmfs" check other.icmfs
refused_like '*other.icmfs*'
run 1 "$icmfs" init other.icmfs
refused_like '*other.icmfs*'
[ "$(sqlite3 other.icmfs 'select x from t')" = 1 ] || complain "a foreign database was changed"

# Two at once: one wins.
for i in 1 2 3; do
	"$icmfs" init "race$i.icmfs" 2>/dev/null &
	one=$!
	"$icmfs" init "race$i.icmfs" 2>/dev/null &
	two=$!
	won=0
	wait "$one" && won=$((won + 1))
	wait "$two" && won=$((won + 1))
	[ "$won" -eq 1 ] || complain "$won of 2 made the deployment"
done
finish
