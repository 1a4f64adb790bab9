#!/bin/bash
# SPDX-License-Identifier: MIT
# check on a sound store and on damaged ones: the key is named, the status is 1.
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "$0")/lib.sh"

cp -a "$source_dir/examples/orion" src
head -c 1500000 /dev/urandom >src/large
ln -s definitions.json src/symlink
ln src/iris.cpf src/second-name
mkfifo src/fifo
run 0 "$icmfs" import -q src sound.icmfs
printed ''
run 0 "$icmfs" check sound.icmfs
printed_like '*: no problems'
run 0 "$icmfs" check --json sound.icmfs
[ "$(jq -c '[.problems, ([.findings[] | select(.severity != "note")] | length)]' <<<"$out")" = '[0,0]' ] ||
	complain "JSON: $out"
[ "$(jq -r '.store, .files > 20, .directories, .index > 0' <<<"$out" | tr '\n' ' ')" = \
	"sqlite:$dir/sound.icmfs true 8 true " ] || complain "JSON: $out"

# damage SQL STATUS PATTERN: a copy of the store after these statements.
damage() {
	cp sound.icmfs hurt.icmfs
	sqlite3 hurt.icmfs "$1" >/dev/null
	run "$2" "$icmfs" check hurt.icmfs
	printed_like "$3"
	rm -f hurt.icmfs*
}

damage "delete from kv where key = 'tree/definitions.json'" 1 \
	'*attr/definitions.json: tree/definitions.json is missing: error*: 1 problem'
damage "delete from kv where key = 'attr/definitions.json'" 0 \
	'*tree/definitions.json: written by another program, not yet seen by a mount: note*'
damage "update kv set value = cast('[]' as blob) where key = 'tree/definitions.json'" 1 \
	'*tree/definitions.json: 2 bytes, but its attributes say *: error*'
damage "update kv set value = zeroblob(length(value)) where key = 'tree/instances.json'" 1 \
	'*tree/instances.json: the value has another sha256 than its attributes say: error*'
damage "delete from kv where key = (select key from kv where key like 'blob/%' and length(value) = 524288 limit 1)" 1 \
	'*tree/large: chunk ?: blob/* is missing: error*'
damage "update kv set value = zeroblob(524288) where key = (select key from kv where key like 'blob/%' and length(value) = 524288 limit 1)" 1 \
	'*blob/*: the value has another sha256: error*tree/large: chunk ?: blob/* is damaged: error*'
damage "delete from kv where key in ('attr/state', 'tree/state/')" 1 \
	'*attr/state/definition 0: the directory above it is missing: error*'
damage "delete from kv where key in ('attr/second-name', 'tree/second-name')" 1 \
	'*inode/*: has 1 names, but says 2: error*'
damage "delete from kv where key like 'inode/%'" 1 \
	'*attr/iris.cpf: inode/* is missing: error*'
damage "update kv set value = cast('{}' as blob) where key = 'attr/keys/id'" 1 \
	'*attr/keys/id: not valid attributes: error*'
damage "update kv set value = cast('{\"form\":\"symlink\",\"target\":\"\"}' as blob) where key = 'tree/symlink'" 1 \
	'*tree/symlink: not a valid record: error*'
damage "update kv set flags = 7 where key = 'tree/iris.cpf'" 1 \
	'*tree/iris.cpf: unknown flags 0x7: error*'
damage "insert into kv (key, flags, created, modified, value) values ('tree/%41', 0, 1, 1, x'00')" 1 \
	'*tree/%41: not the one spelling of a name: not shown in mounts: warning*'
damage "insert into kv (key, flags, created, modified, value) values ('what', 0, 1, 1, x'00')" 1 \
	'*what: unknown key: warning*'
damage "update kv set value = cast('x' as blob) where key like 'feed/%'" 1 \
	'*feed/*: not a valid feed record: error*'
damage "delete from kv where key = 'meta'" 1 '*meta: missing: error*'

# What can't be checked at all: status 3, one line.
run 3 "$icmfs" check missing.icmfs
refused_like '*missing.icmfs*'
[ ! -e missing.icmfs ] || complain "check made a store"
cp sound.icmfs newer.icmfs
sqlite3 newer.icmfs "update kv set value = cast('{\"format\":9}' as blob) where key = 'meta'"
run 3 "$icmfs" check newer.icmfs
refused "sqlite:$dir/newer.icmfs: the store has format 9, this program knows formats up to 1"
run 1 "$icmfs" import --merge src newer.icmfs
refused_like '*format 9*'
: >empty.icmfs
run 3 "$icmfs" check empty.icmfs
refused_like '*empty.icmfs*'

# A flipped page of the database itself is found, however it shows.
cp sound.icmfs torn.icmfs
printf 'XXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXXX' |
	dd of=torn.icmfs bs=1 seek=$((4096 * 6)) conv=notrunc status=none
status=0
"$icmfs" check torn.icmfs >/dev/null 2>&1 || status=$?
case $status in
1 | 3) ;;
*) complain "status $status for a torn page" ;;
esac
finish
