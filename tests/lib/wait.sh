# shellcheck shell=bash
# SPDX-License-Identifier: MIT
# Waiting for conditions, for tests and benchmarks.

# wait_for SECONDS COMMAND...: until the command succeeds; fails at the bound.
wait_for() {
	local end=$((SECONDS + $1))
	shift
	until "$@" 2>/dev/null; do
		[ $SECONDS -lt $end ] || return 1
		sleep 0.02
	done
}

not() { ! "$@"; }
