#!/bin/bash
# SPDX-License-Identifier: MIT
# A Consul cluster for a test: three servers, and a client agent for each of the
# two mounts. Sourced by lib.sh for the store kinds `cluster`, where each has a
# loopback address of its own, and `netns` (netns.sh), where each has a host of its
# own; nodes are s1 s2 s3 c1 c2.
# shellcheck disable=SC2034

CLUSTER_NODES='s1 s2 s3 c1 c2'

# cluster_in NODE: sets IN to what runs a command on the node's host. `hub` is where
# the test itself asks from.
cluster_in() {
	IN=()
	[ "${KIND:-}" != netns ] || netns_in "$1"
}

cluster_address() {
	case $1 in
	s*) echo "$CLUSTER_NET.1${1#s}" ;;
	c*) echo "$CLUSTER_NET.2${1#c}" ;;
	esac
}

cluster_configure() {
	local dir=$T/store/$1 server='"server": false'
	[[ $1 == c* ]] || server='"server": true, "bootstrap_expect": 3'
	mkdir -p "$dir"
	cat >"$dir/agent.json" <<-END
		{$server, "node_name": "$1", "data_dir": "$dir/data", "log_level": "warn",
		 "bind_addr": "$(cluster_address "$1")", "client_addr": "$(cluster_address "$1")",
		 "retry_join": ["$CLUSTER_NET.11", "$CLUSTER_NET.12", "$CLUSTER_NET.13"], "retry_interval": "1s",
		 "disable_update_check": true, "performance": {"raft_multiplier": 1},
		 "ports": {"dns": -1, "grpc": -1, "https": -1}}
	END
}

cluster_up() {
	local pid IN
	cluster_in "$1"
	"${IN[@]}" setpriv --pdeathsig KILL "$CONSUL" agent "-config-file=$T/store/$1/agent.json" \
		>>"$T/store/$1/log" 2>&1 </dev/null &
	pid=$!
	disown "$pid" # or its end would be announced
	echo "$pid" >"$T/store/$1/pid"
	echo "$pid" >>"$T/pids"
}

# cluster_signal NODE SIGNAL
cluster_signal() { kill "-$2" "$(cat "$T/store/$1/pid")"; }

# Ends a node at once, and waits until it has.
cluster_kill() {
	cluster_signal "$1" KILL
	wait_for 20 not kill -0 "$(cat "$T/store/$1/pid")" || fail "agent $1 doesn't end"
}

cluster_api() {
	local node=$1 path=$2 IN
	shift 2
	cluster_in hub
	"${IN[@]}" curl -fsS --noproxy '*' -m 5 "$@" "http://$(cluster_address "$node"):8500$path"
}

# Name of the leader, as this node sees it.
cluster_leader() {
	local leader
	leader=$(cluster_api "$1" /v1/status/leader) || return 1
	case $leader in
	*"$CLUSTER_NET".1[123]:*)
		leader=${leader#*"$CLUSTER_NET".1}
		echo "s${leader%%:*}"
		;;
	*) return 1 ;;
	esac
}

# The node answers for the store.
cluster_serves() { cluster_api "$1" '/v1/kv/none?cas=1' -X PUT | grep -q false; }

cluster_start() {
	local node
	# a network of its own, so that tests don't meet; netns.sh has another one
	: "${CLUSTER_NET:=127.$((16 + RANDOM % 200)).$((RANDOM % 256))}"
	for node in $CLUSTER_NODES; do
		cluster_configure "$node"
		cluster_up "$node"
	done
	for node in $CLUSTER_NODES; do
		wait_for 60 cluster_serves "$node" ||
			fail "agent $node doesn't serve: $(tail -3 "$T/store/$node/log")"
	done
	STORE=consul://$(cluster_address c1):8500/icm/test
	STORE_B=consul://$(cluster_address c2):8500/icm/test
}

store_cluster() {
	need curl setpriv
	CONSUL=$(consul_program) || skip 'no Consul (scripts/consul.sh installs it)'
	cluster_start
}
