#!/bin/bash
# SPDX-License-Identifier: MIT
# icmfs recover without a mount: its list, broken items, wrong usage.
# (tests/mount/recover.sh shows how items come to be and go back.)
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "$0")/lib.sh"

run 0 "$icmfs" recover --statedir "$PWD/nowhere"
[ "$out" = "nothing is kept: everything is in its store" ] || complain "empty list: $out"
run 0 "$icmfs" recover --json --statedir "$PWD/nowhere"
[ "$out" = "[]" ] || complain "empty list as JSON: $out"

dir=state/0123456789abcdef/unsaved
mkdir -p "$dir"
printf '%s' '{"id":"00000000000000aa","time":[1764000000,0],"store":"sqlite%3A/s.icmfs","mountpoint":"/nowhere","path":"a/b","reason":"No space left on device","user":"mia","mode":384,"uid":0,"gid":0,"size":5,"mtime":[5,6]}' >"$dir/00000000000000aa.json"
printf bytes >"$dir/00000000000000aa.data"
run 0 "$icmfs" recover --statedir state
[[ $out == *00000000000000aa*a/b*"No space left"* ]] || complain "list: $out"
run 0 "$icmfs" recover --statedir state --show 00000000000000aa
[ "$out" = bytes ] || complain "--show: $out"
run 1 "$icmfs" recover --statedir state --restore 00000000000000aa
[[ $err == *"isn't mounted at '/nowhere'"* ]] || complain "without a mount: $err"
[ -e "$dir/00000000000000aa.data" ] || complain "it went without being restored"
run 0 "$icmfs" recover --statedir state --restore 00000000000000aa --to "$PWD/saved"
[ "$(cat saved)" = bytes ] || complain "--to: $(cat saved)"
[ -z "$(ls "$dir")" ] || complain "left after --restore: $(ls "$dir")"

echo '{"id":"00000000000000bb"}' >"$dir/00000000000000bb.json"
run 0 "$icmfs" recover --statedir state
[[ $err == *"1 not understood"* ]] || complain "a broken item: $err"
run 1 "$icmfs" recover --statedir state --all
run 1 "$icmfs" recover --statedir state --drop ../../x
run 0 "$icmfs" recover --statedir state --drop 00000000000000bb
run 1 "$icmfs" recover --statedir state --drop 00000000000000bb
run 1 "$icmfs" recover "$PWD"
[[ $err == *"not in a mount"* ]] || complain "outside of a mount: $err"
run 2 "$icmfs" recover --all --drop x
run 2 "$icmfs" recover --to x
run 2 "$icmfs" recover --json --all
finish
