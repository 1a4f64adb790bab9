#!/bin/bash
# SPDX-License-Identifier: MIT
# Hosts of a test: network namespaces, joined by a bridge in one more, `hub`, so that
# nothing is routed to or from the machine. Sourced by lib.sh for the store kind
# `netns`: a cluster (cluster.sh) each of whose nodes has a host, with the mounts on
# those of c1 and c2.
#
# The namespaces have no names: each lives as long as a process of its own, which
# ends with the test, however that ends. The bridge and all links end with the hub.
# shellcheck disable=SC2034

declare -A NETNS_PID

netns_in() { IN=(nsenter -t "${NETNS_PID[$1]}" -n --); }

netns_ip() {
	local IN
	netns_in "$1"
	shift
	"${IN[@]}" ip "$@"
}

netns_is_apart() { [ "$(readlink "/proc/$1/ns/net")" != "$(readlink /proc/self/ns/net)" ]; }

netns_add() {
	setpriv --pdeathsig KILL unshare --net sleep infinity </dev/null >"$T/netns.log" 2>&1 &
	NETNS_PID[$1]=$!
	disown $! # or its end would be announced
	echo "$!" >>"$T/pids"
	wait_for 20 eval "netns_is_apart $! || ! kill -0 $!" || fail "no namespace for $1"
	kill -0 "${NETNS_PID[$1]}" 2>/dev/null || skip "needs root that may make network namespaces"
	netns_ip "$1" link set lo up
}

# The hardware address is told to everybody for good: a host that is cut off is not
# missed by its neighbours, and what is sent to it is lost without a word.
netns_mac() { printf '02:00:00:00:00:%02x\n' "$((10#${1##*.}))"; }

# netns_host NODE ADDRESS
netns_host() {
	netns_add "$1"
	netns_ip hub link add "v$1" type veth peer name eth0 netns "${NETNS_PID[$1]}"
	netns_ip hub link set "v$1" master br0 up
	netns_ip "$1" link set eth0 address "$(netns_mac "$2")" up
	netns_ip "$1" addr add "$2/24" dev eth0
}

# Cuts a host's link silently: packets in both directions are lost.
netns_cut() { netns_port "$1" disabled; }
netns_heal() { netns_port "$1" forwarding; }

netns_port() {
	local IN
	netns_in hub
	"${IN[@]}" bridge link set dev "v$1" state "$2"
}

store_netns() {
	local node other
	need curl setpriv ip bridge nsenter unshare
	CONSUL=$(consul_program) || skip 'no Consul (scripts/consul.sh installs it)'
	CLUSTER_NET=10.99.0
	netns_add hub
	netns_ip hub link add br0 type bridge
	netns_ip hub addr add "$CLUSTER_NET.254/24" dev br0
	netns_ip hub link set br0 up
	for node in $CLUSTER_NODES; do
		netns_host "$node" "$(cluster_address "$node")"
	done
	for node in $CLUSTER_NODES; do
		for other in $CLUSTER_NODES; do
			[ "$node" != "$other" ] || continue
			echo "neigh add $(cluster_address "$other") lladdr $(netns_mac "$(cluster_address "$other")") dev eth0 nud permanent"
		done >"$T/neighbours"
		netns_ip "$node" -batch "$T/neighbours"
	done
	cluster_start
	netns_in c1
	ON=("${IN[@]}" setpriv --pdeathsig KILL)
	netns_in c2
	ON_B=("${IN[@]}" setpriv --pdeathsig KILL)
}
