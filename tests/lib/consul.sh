# shellcheck shell=bash
# SPDX-License-Identifier: MIT
# A Consul server for a test or a benchmark, with its data in $T/store. Needs $SRC,
# $T, fail() and wait.sh; sets STORE.
# shellcheck disable=SC2034

consul_program() {
	local c
	for c in "${ICMFS_TEST_CONSUL:-}" "$SRC/.deps/consul/bin/consul" "$(command -v consul || true)"; do
		[ ! -x "$c" ] || { printf '%s\n' "$c" && return; }
	done
	return 1
}

# With access rules (CONSUL_ACL) nobody may ask for more yet than who leads.
consul_answers() {
	if [ -n "${CONSUL_ACL:-}" ]; then
		curl -fsS --noproxy '*' -m 5 "http://127.0.0.1:$1/v1/status/leader" | grep -q :
	else
		curl -fsS --noproxy '*' -m 5 -X PUT "http://127.0.0.1:$1/v1/kv/none?cas=1" | grep -q false
	fi
}

# On ports that nobody uses: one that is taken ends it at once, and others are tried.
# CONSUL_ACL, CONSUL_TLS: further settings; with the latter HTTPS_PORT is there, too.
consul_start() {
	local i port pid https=-1
	for i in 1 2 3 4 5; do
		port=$((20000 + RANDOM % 12000))
		[ -z "${CONSUL_TLS:-}" ] || https=$((port + 3))
		cat >"$T/store/consul.json" <<-END
			{"server": true, "bootstrap_expect": 1, "node_name": "test", "data_dir": "$T/store/data",
			 "bind_addr": "127.0.0.1", "client_addr": "127.0.0.1", "log_level": "warn",
			 "disable_update_check": true, "performance": {"raft_multiplier": 1}, ${CONSUL_ACL:-} ${CONSUL_TLS:-}
			 "ports": {"dns": -1, "grpc": -1, "https": $https, "serf_wan": -1, "server": $((port + 1)),
			           "serf_lan": $((port + 2)), "http": $port}}
		END
		setpriv --pdeathsig KILL "$1" agent "-config-file=$T/store/consul.json" \
			>"$T/store/consul.log" 2>&1 </dev/null &
		pid=$!
		disown "$pid" # or its end would be announced
		wait_for 60 eval "consul_answers $port || ! kill -0 $pid" || break
		if kill -0 "$pid" 2>/dev/null; then
			echo "$pid" >>"$T/pids"
			CONSUL_PID=$pid
			HTTPS_PORT=$https
			STORE=consul://127.0.0.1:$port/icm/test
			return
		fi
	done
	fail "Consul doesn't start: $(tail -3 "$T/store/consul.log")"
}
