#!/bin/bash
# SPDX-License-Identifier: MIT
# Consul by TLS, with certificates on both sides: who can't be trusted is refused
# with one clear line, in each direction, and nothing is mounted.
# shellcheck source=tests/lib/lib.sh
. "$(dirname "$0")/../lib/lib.sh"

need_mount
[ "$KIND" = consul ] || skip 'needs a Consul server'
consul=$(consul_program) || skip 'no Consul (scripts/consul.sh installs it)'
unset CONSUL_CACERT CONSUL_CAPATH CONSUL_CLIENT_CERT CONSUL_CLIENT_KEY CONSUL_TLS_SERVER_NAME

# Two authorities: each signs a server's and a client's certificate.
for ca in ours other; do
	mkdir "$T/$ca"
	(cd "$T/$ca" && "$consul" tls ca create && "$consul" tls cert create -server -dc dc1 &&
		"$consul" tls cert create -client -dc dc1) >"$T/tls.log" 2>&1 || fail "certificates: $(cat "$T/tls.log")"
done
export CONSUL_TLS="\"ca_file\": \"$T/ours/consul-agent-ca.pem\", \"verify_incoming_https\": true,
	\"cert_file\": \"$T/ours/dc1-server-consul-0.pem\", \"key_file\": \"$T/ours/dc1-server-consul-0-key.pem\","
mkdir -p "$T/store"
store_consul
STORE=consul+https://127.0.0.1:$HTTPS_PORT/icm/test

authority() { export CONSUL_CACERT=$T/$1/consul-agent-ca.pem; }
certificate() { export CONSUL_CLIENT_CERT=$T/$1/dc1-client-consul-0.pem CONSUL_CLIENT_KEY=$T/$1/dc1-client-consul-0-key.pem; }

# refused WHAT WORD: one line, which has the word; nothing is mounted.
refused() {
	local rc=0
	timeout 60 "$ICMFS" mount "$STORE" "$A" -o "statedir=$T/state" >"$T/refused" 2>&1 || rc=$?
	{ [ $rc != 0 ] && [ $rc != 124 ]; } || fail "$1: $rc"
	{ [ "$(wc -l <"$T/refused")" = 1 ] && grep -q "$2" "$T/refused"; } || fail "$1: $(cat "$T/refused")"
	is_mounted "$A" && fail "$1: mounted"
	say "$1: $(cat "$T/refused")"
}

certificate ours
refused 'nobody is named to be trusted' certificate
authority other
refused 'another authority is trusted' certificate
authority ours
CONSUL_TLS_SERVER_NAME=other.example refused 'another name is expected' certificate
certificate other
refused "a client's certificate of another authority" certificate
unset CONSUL_CLIENT_CERT CONSUL_CLIENT_KEY
refused 'no certificate of a client' certificate

say 'those that fit'
certificate ours
"$ICMFS" init "$STORE" >"$T/init.log" 2>&1 || fail "init: $(cat "$T/init.log")"
mount_at "$A"
mount_at "$B"
echo text >"$A/file"
[ "$(cat "$B/file")" = text ] || fail 'what was written, on B'
umount_at "$A"
umount_at "$B"
check_store
