# shellcheck shell=bash
# SPDX-License-Identifier: MIT
# Library of the mount tests. A test sources this file and may then use the
# functions below. It gets a private directory $T with empty mount points
# $A and $B and a store $STORE; all is unmounted, ended and removed afterwards.
# When the test fails, $T stays, with the daemons' logs and a repro.sh.
#
# Environment:
#   ICMFS                  the binary under test
#   ICMFS_TEST_BIN         directories (colon-separated) of the helper programs
#   ICMFS_TEST_STORE_KIND  sqlite (default); consul: a server of the test's own;
#                          cluster: three servers, an agent for each mount;
#                          netns: the same, each on a host of its own (netns.sh);
#                          or plain: one ordinary directory stands for both
#                          mounts, to try the tests themselves
#   ICMFS_TEST_CONSUL      the server's program (default: what scripts/consul.sh
#                          installed, or the one in PATH)
#   ICMFS_TEST_DIR         where private directories are made (default: TMPDIR)
#   ICMFS_TEST_LIMIT       seconds after which hanging calls are released
#
# To add a kind of store: functions store_KIND (sets STORE), KIND_mount DIR OPTS
# and KIND_umount DIR where the general ones don't do, and KIND_check.

set -eu
shopt -s inherit_errexit

SRC=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
ICMFS=${ICMFS:-$SRC/build/icmfs}
KIND=${ICMFS_TEST_STORE_KIND:-sqlite}
TEST=$(basename "$0" .sh)
LIMIT=${ICMFS_TEST_LIMIT:-600}
BINS=${ICMFS_TEST_BIN:-$SRC/build/tests/posix:$SRC/build/tests/lib}
BASE=${ICMFS_TEST_DIR:-${TMPDIR:-/tmp}}

# Words in a daemon's log that are never right. A test that provokes some says
# which in LOG_MAY.
LOG_BAD='Sanitizer|runtime error:|[Aa]ssert|double free|SEGV|Segmentation|stack smashing|BUG|fuse: (bad|internal|writing|reading)'
LOG_MAY=${LOG_MAY:-'^$'}

say() { printf '# %s\n' "$*"; }

fail() {
	printf 'FAILED: %s\n' "$*" >&2
	exit 1
}

skip() {
	printf 'SKIP: %s\n' "$*"
	SKIPPED=1
	exit 77
}

need() {
	local c
	for c in "$@"; do
		command -v "$c" >/dev/null || skip "$c is not installed"
	done
}

# Path of one of our helper programs.
prog() {
	local dir
	local IFS=:
	for dir in $BINS; do
		if [ -x "$dir/$1" ]; then
			printf '%s\n' "$dir/$1"
			return
		fi
	done
	fail "helper program $1 not found in $BINS"
}

is_plain() { [ "$KIND" = plain ]; }

# For what only a real mount can show.
need_mount() {
	is_plain && skip "needs a mount"
	return 0
}

# shellcheck source=tests/lib/wait.sh
. "$SRC/tests/lib/wait.sh"

# ---- stores ---------------------------------------------------------------

# What runs a command where STORE is to be reached from: nothing, but where hosts
# are separate.
ON=()
ON_B=()

store_sqlite() { STORE=sqlite:$T/store/store.icmfs; }

# shellcheck source=tests/lib/consul.sh
. "$SRC/tests/lib/consul.sh"

store_consul() {
	local program
	need curl setpriv
	program=$(consul_program) || skip 'no Consul (scripts/consul.sh installs it)'
	consul_start "$program"
}

# shellcheck source=tests/lib/cluster.sh
. "$SRC/tests/lib/cluster.sh"
# shellcheck source=tests/lib/netns.sh
. "$SRC/tests/lib/netns.sh"

# consul_proxy PERCENT: puts tests/lib/proxy.c in front of the server; STORE and
# PROXY_PORT are its own then. Lossless with 0.
consul_proxy() {
	local address=${STORE#consul://}
	address=${address%%/*}
	"$(prog proxy)" "${address%:*}" "${address#*:}" "$1" ${ICMFS_TEST_SEED:+"$ICMFS_TEST_SEED"} \
		>"$T/port" 2>"$T/proxy.log" &
	disown $! # or its end would be announced
	echo $! >>"$T/pids"
	wait_for 20 test -s "$T/port" || fail "the proxy doesn't start: $(cat "$T/proxy.log")"
	PROXY_PORT=$(cat "$T/port")
	STORE=consul://127.0.0.1:$PROXY_PORT/icm/test
	say "proxy: $(cat "$T/proxy.log"), $1 % of requests"
}

store_plain() { STORE=$T/store/tree; }

# store_signal SIGNAL: to the store's servers. Stopped ones take requests and say
# nothing; those that go on carry out what they find.
store_signal() {
	local node
	case $KIND in
	consul) kill "-$1" "$CONSUL_PID" ;;
	cluster | netns) for node in s1 s2 s3; do cluster_signal $node "$1"; done ;;
	*) fail "the store $KIND has no servers" ;;
	esac
}

# Makes an empty store.
init_store() {
	mkdir -p "$T/store"
	"store_$KIND"
	if is_plain; then
		mkdir -p "$STORE"
	else
		"${ON[@]}" "$ICMFS" init "$STORE" >"$T/init.log" 2>&1 || fail "init: $(cat "$T/init.log")"
	fi
}

# The store is sound; what is said otherwise is shown.
check_store() {
	is_plain && return
	"${ON[@]}" timeout "${CHECK_SECONDS:-120}" "$ICMFS" check "$STORE" >"$T/check.log" 2>&1 ||
		fail "check found something: $(cat "$T/check.log")"
}

# ---- mounts ---------------------------------------------------------------

# Process of the mount at DIR, once mount_at has made it.
declare -A PID_OF LOG_OF
LOGS=0

# Also true of a dead mount, which mountpoint(1) denies.
is_mounted() { grep -qF " ${1// /\\040} " /proc/self/mounts; }

# It is the mount that answers, not what is below while a dead one is replaced.
mounted_and_alive() {
	is_mounted "$1" && [ "$(stat -f -c %t "$1")" = 65735546 ]
}

# mount_at DIR [OPTION,…]; two_mounts takes MOUNT_OPTS.
mount_at() {
	local dir=$1 opts=${2:-} log args=()
	mkdir -p "$dir" 2>/dev/null || true # a dead mount point can't be looked at
	if is_plain; then
		mount --bind "$STORE" "$dir"
		return
	fi
	LOGS=$((LOGS + 1))
	log=$T/log.$LOGS
	[ -z "$opts" ] || args=(-o "$opts")
	"${ON[@]}" "$ICMFS" mount "$STORE" "$dir" -o "statedir=$T/state" "${args[@]}" -f >"$log" 2>&1 </dev/null &
	PID_OF[$dir]=$!
	LOG_OF[$dir]=$log
	echo "$!" >>"$T/pids"
	local end=$((SECONDS + ${MOUNT_SECONDS:-60}))
	until mounted_and_alive "$dir" 2>/dev/null; do
		kill -0 "${PID_OF[$dir]}" 2>/dev/null || fail "mount $dir: $(cat "$log")"
		[ $SECONDS -lt $end ] || fail "mount $dir does not answer"
		sleep 0.01
	done
}

# umount_at DIR: in order; the daemon must end well.
umount_at() {
	local dir=$1 pid rc=0
	if is_plain; then
		umount "$dir"
		return
	fi
	pid=${PID_OF[$dir]}
	wait_for 30 timeout 60 "$ICMFS" umount "$dir" ||
		fail "umount $dir: $(timeout 60 "$ICMFS" umount "$dir" 2>&1 || true)"
	wait_for 60 not kill -0 "$pid" || fail "the daemon of $dir did not end"
	wait "$pid" || rc=$?
	[ $rc = 0 ] || fail "the daemon of $dir ended with $rc: $(tail -5 "${LOG_OF[$dir]}")"
	unset "PID_OF[$dir]"
}

# kill_mount DIR: kill -9 of the daemon; the dead mount point stays.
kill_mount() {
	local pid=${PID_OF[$1]}
	kill -9 "$pid" 2>/dev/null || true
	wait "$pid" 2>/dev/null || true
	unset "PID_OF[$1]"
}

# From B's host, where that is another one.
mount_b() {
	local STORE=${STORE_B:-$STORE} ON=("${ON_B[@]}")
	mount_at "$B" "${MOUNT_OPTS:-}"
}

two_mounts() {
	init_store
	mount_at "$A" "${MOUNT_OPTS:-}"
	mount_b
}

# ---- comparing ------------------------------------------------------------

# Names that a mount keeps to itself.
SCRATCH=(-name '*~' -o -name '.#*' -o -name '#*#' -o -name '*.sw[op]' -o -name '*.log' -o -name '*.tmp'
	-o -name 4913 -o -name .terraform)

# Every shared name below DIR with everything that should be equal on both
# mounts. Ends with NUL so that any name is fine.
list_tree() {
	(cd "$1" && find . \( "${SCRATCH[@]}" \) -prune -o ! -path . -printf '%p|%y|%m|%U|%G|%s|%T@|%C@|%i|%n|%l\0' | LC_ALL=C sort -z |
		sed -z 's/^\([^|]*|d|[^|]*|[^|]*|[^|]*|\)[^|]*/\1/')
}

same_listing() {
	list_tree "$1" >"$T/list.1"
	list_tree "$2" >"$T/list.2"
	cmp -s "$T/list.1" "$T/list.2"
}

# same_at_once A B: what is in A is in B: contents of every file by a fresh
# open at once, then names and attributes within ten seconds.
same_at_once() {
	local f
	while IFS= read -r -d '' f; do
		cmp "$1/$f" "$2/$f" >&2 || fail "contents of $f differ on the other mount"
	done < <(cd "$1" && find . \( "${SCRATCH[@]}" \) -prune -o -type f -print0)
	same_eventually "$1" "$2"
}

same_eventually() {
	wait_for 10 same_listing "$1" "$2" || {
		diff <(tr '\0' '\n' <"$T/list.1") <(tr '\0' '\n' <"$T/list.2") | head -20 >&2 || true
		fail "the mounts list different things"
	}
}

# ---- life -----------------------------------------------------------------

watchdog() {
	local pid
	trap 'kill "$sleeper" 2>/dev/null; exit 0' TERM
	sleep "$LIMIT" &
	sleeper=$!
	wait "$sleeper"
	echo "FAILED: not ready after $LIMIT s; ending the daemons" >&2
	touch "$T/timeout"
	while read -r pid; do
		kill -9 "$pid" 2>/dev/null
	done <"$T/pids"
	kill -TERM "$1" 2>/dev/null
}

reports_are_clean() {
	local good=0 f
	for f in "$T"/report.*; do
		[ -e "$f" ] || continue
		echo "sanitizer report $f:" >&2
		head -60 "$f" >&2
		good=1
	done
	for f in "$T"/log.*; do
		[ -e "$f" ] || continue
		if grep -E "$LOG_BAD" "$f" | grep -vE "$LOG_MAY" >"$T/suspicious"; then
			echo "suspicious lines in $f:" >&2
			head -20 "$T/suspicious" >&2
			good=1
		fi
	done
	return $good
}

CLEANUPS=()
# at_exit COMMAND: run before unmounting.
at_exit() { CLEANUPS+=("$1"); }

finish() {
	local rc=$? c dir pid i
	set +e
	trap '' TERM
	cd /
	for c in "${CLEANUPS[@]}"; do
		eval "$c"
	done
	for dir in "${!PID_OF[@]}"; do
		pid=${PID_OF[$dir]}
		for i in 1 2 3; do
			timeout 20 "$ICMFS" umount "$dir" >/dev/null 2>&1 && break
			[ "$i" = 3 ] && [ $rc = 0 ] && echo "FAILED: $dir stays busy" >&2 && rc=1
			sleep 0.2
		done
		wait_for 20 not kill -0 "$pid"
		kill -9 "$pid" 2>/dev/null && [ $rc = 0 ] && echo "FAILED: daemon of $dir stays" >&2 && rc=1
		wait "$pid" 2>/dev/null
		i=$?
		[ $rc = 0 ] && [ $i != 0 ] && echo "FAILED: daemon of $dir ended with $i" >&2 && rc=1
	done
	while read -r pid; do
		kill -9 "$pid" 2>/dev/null
	done <"$T/pids"
	# Whatever is still mounted below, innermost first.
	grep -oE " $T/[^ ]*" /proc/mounts | sed 's/^ //' | sort -r | while read -r dir; do
		umount "$dir" 2>/dev/null || umount -l "$dir" 2>/dev/null
	done
	kill "$WATCHDOG" 2>/dev/null
	wait "$WATCHDOG" 2>/dev/null
	[ -e "$T/timeout" ] && rc=1
	if ! reports_are_clean && { [ $rc = 0 ] || [ $rc = 77 ]; }; then
		rc=1
	fi
	if [ $rc = 0 ] || { [ $rc = 77 ] && [ -n "${SKIPPED:-}" ]; }; then
		rm -rf --one-file-system "$T"
	else
		for c in "$T"/log.*; do
			[ -e "$c" ] || continue
			echo "--- end of $c" >&2
			tail -15 "$c" >&2
		done
		{
			printf '#!/bin/sh\n# The failed test, as it was run; its files are beside this one.\n'
			env | grep -E '^(ICMFS|TMPDIR=|ASAN|UBSAN)' | sed "s/'/'\\\\''/g; s/^\([^=]*\)=\(.*\)/export \1='\2'/"
			printf 'exec bash %q' "$SELF"
			printf ' %q' "${ARGS[@]}"
			printf '\n'
		} >"$T/repro.sh"
		chmod +x "$T/repro.sh"
		echo "what is left is in $T" >&2
		[ $rc = 77 ] && rc=1
	fi
	exit $rc
}

SELF=$(realpath "$0")
ARGS=("$@")
if ! is_plain && [ ! -x "$ICMFS" ]; then
	echo "FAILED: $ICMFS is missing (set ICMFS)" >&2
	exit 1
fi
if [ "$(id -u)" != 0 ]; then
	echo "SKIP: needs root"
	exit 77
fi
if ! is_plain && [ ! -c /dev/fuse ]; then
	echo "SKIP: no /dev/fuse here"
	exit 77
fi
T=$(realpath "$(mktemp -d "$BASE/icmfs-$TEST.XXXXXX")")
A=$T/a
B=$T/b
STORE=
mkdir -p "$A" "$B" "$T/state"
: >"$T/pids"
export HOME=$T/home LC_ALL=C.UTF-8
mkdir -p "$HOME"
umask 022
export ASAN_OPTIONS="${ASAN_OPTIONS:+$ASAN_OPTIONS:}log_path=$T/report.asan"
export UBSAN_OPTIONS="${UBSAN_OPTIONS:+$UBSAN_OPTIONS:}log_path=$T/report.ubsan:print_stacktrace=1"
export TSAN_OPTIONS="${TSAN_OPTIONS:+$TSAN_OPTIONS:}log_path=$T/report.tsan"
watchdog $$ &
WATCHDOG=$!
trap finish EXIT
trap 'exit 1' TERM INT
