#!/bin/bash
# SPDX-License-Identifier: MIT
# Consul's access rules: a mount needs the rights that the manual names, a reader's
# is read-only, and a token that loses its rights while mounted gives EACCES, never
# an empty tree.
# shellcheck source=tests/lib/lib.sh
. "$(dirname "$0")/../lib/lib.sh"

need perl jq
need_mount
[ "$KIND" = consul ] || skip 'needs a Consul server'
export CONSUL_ACL='"acl": {"enabled": true, "default_policy": "deny", "enable_token_persistence": true},'
mkdir -p "$T/store"
store_consul
http=http://${STORE#consul://}
http=${http%%/icm/*}

# api METHOD PATH [BODY]: as the operator, once there is one.
api() {
	curl -fsS --noproxy '*' -m 10 -X "$1" ${OPERATOR:+-H "X-Consul-Token: $OPERATOR"} ${3:+-d "$3"} "$http$2"
}

# token NAME RULES: makes one, and its file.
token() {
	api PUT /v1/acl/policy "$(jq -n --arg name "$1" --arg rules "$2" '{Name: $name, Rules: $rules}')" >/dev/null
	api PUT /v1/acl/token "{\"Policies\": [{\"Name\": \"$1\"}]}" >"$T/$1.json"
	(umask 077 && jq -r .SecretID "$T/$1.json" >"$T/$1.token")
}

# errno COMMAND...: the name of the error that perl code ends with, or "ok".
errno() { perl -MErrno -e 'my $r = eval shift; for my $n (keys %!) { if (!$r && $!{$n}) { print $n; exit } } print $r ? "ok" : "error $!"' "$@"; }

bootstrapped() { api PUT /v1/acl/bootstrap >"$T/operator.json"; }
wait_for 60 bootstrapped || fail "no operator's token: $(cat "$T/operator.json")"
OPERATOR=$(jq -r .SecretID "$T/operator.json")
token writer 'key_prefix "icm/test/" { policy = "write" }
	node_prefix "icmfs-" { policy = "write" }
	session_prefix "icmfs-" { policy = "write" }'
token reader 'key_prefix "icm/test/" { policy = "read" }'

say 'the rights that the manual names'
export CONSUL_HTTP_TOKEN_FILE=$T/writer.token
"$ICMFS" init "$STORE" >"$T/init.log" 2>&1 || fail "init: $(cat "$T/init.log")"
mount_at "$A"
export CONSUL_HTTP_TOKEN_FILE=$T/reader.token
mount_at "$B"
mkdir "$A/state"
for i in 1 2 3; do echo "text $i" >"$A/state/f$i"; done
[ "$(cat "$B"/state/f*)" = "$(cat "$A"/state/f*)" ] || fail 'the reader reads something else'
[ "$(errno 'open(F, ">", shift)' "$B/state/f1")" = EROFS ] || fail "the reader's mount is not read-only"

say 'without a token, and with one that does not exist'
for file in none wrong; do
	[ $file = none ] || (umask 077 && echo 11111111-2222-3333-4444-555555555555 >"$T/wrong.token")
	rc=0
	if [ $file = none ]; then
		env -u CONSUL_HTTP_TOKEN_FILE timeout 60 "$ICMFS" check "$STORE" >"$T/refused" 2>&1 || rc=$?
	else
		CONSUL_HTTP_TOKEN_FILE=$T/wrong.token timeout 60 "$ICMFS" check "$STORE" >"$T/refused" 2>&1 || rc=$?
	fi
	{ [ $rc != 0 ] && [ $rc != 124 ] && [ "$(wc -l <"$T/refused")" = 1 ]; } ||
		fail "$file: $rc, $(cat "$T/refused")"
done

say "the writer's token is deleted"
api DELETE "/v1/acl/token/$(jq -r .AccessorID "$T/writer.json")" >/dev/null
denied() { [ "$(errno 'open(F, "<", shift) && <F>' "$A/state/f1")" = EACCES ]; }
wait_for 60 denied || fail "reading with a deleted token: $(errno 'open(F, "<", shift) && <F>' "$A/state/f1")"
result=$(errno 'open(F, ">", shift) && print(F "x") && close(F)' "$A/state/new")
[ "$result" = EACCES ] || fail "writing with a deleted token: $result"
# shellcheck disable=SC2012
[ "$(ls "$A/state" 2>/dev/null | wc -l)" != 0 ] || [ "$(errno 'opendir(D, shift)' "$A/state")" = EACCES ] ||
	fail 'a directory that may not be read looks empty'
stat "$A/state/f2" >/dev/null || fail 'a known name is gone'
timeout 60 "$ICMFS" status "$A" >"$T/status" 2>&1 || true
[ "$(cat "$B"/state/f*)" = "text 1
text 2
text 3" ] || fail "the reader's mount lost something"
umount_at "$A"

say 'another token, and all goes on'
token writer2 'key_prefix "icm/test/" { policy = "write" }
	node_prefix "icmfs-" { policy = "write" }
	session_prefix "icmfs-" { policy = "write" }'
export CONSUL_HTTP_TOKEN_FILE=$T/writer2.token
mount_at "$A"
echo more >>"$A/state/f3"
[ "$(cat "$B/state/f3")" = "text 3
more" ] || fail 'what the new token wrote'
umount_at "$A"
umount_at "$B"
check_store
