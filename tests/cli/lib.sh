# shellcheck shell=bash
# SPDX-License-Identifier: MIT
# For tests of commands; sourced. usage of a test: NAME.sh ICMFS SOURCE-DIRECTORY
#
# Each test works in an empty directory of its own ($dir, which is the current
# one), says what went wrong on stdout and ends with finish. Mounts made in $dir
# and the directory go at the end.
set -euo pipefail

icmfs=$(realpath "$1")
# shellcheck disable=SC2034 # used by tests
source_dir=$(realpath "$2")
failed=0
dir=$(realpath "$(mktemp -d "${TMPDIR:-/tmp}/icmfs-cli.XXXXXX")")
cd "$dir"

clean_up() {
	cd /
	local point
	while read -r point; do
		"$icmfs" umount "$point" >/dev/null 2>&1 || umount -l "$point"
	done < <(awk -v dir="$dir/" 'index($2, dir) == 1 { print $2 }' /proc/self/mounts | tac)
	rm -rf "$dir"
}
trap clean_up EXIT
trap 'exit 130' INT
trap 'exit 143' TERM

skip() {
	echo "$1"
	exit 77
}

complain() {
	printf 'line %s: %s\n' "${BASH_LINENO[1]}" "$1"
	failed=1
}

# run STATUS COMMAND...: keeps stdout in $out and stderr in $err.
run() {
	local want=$1 status=0
	shift
	out=$("$@" 2>"$dir/.stderr") || status=$?
	err=$(cat "$dir/.stderr")
	rm -f "$dir/.stderr"
	[ "$status" -eq "$want" ] ||
		complain "status $status, not $want: $*"$'\n'"$out"$'\n'"$err"
}

# The former run printed exactly this on stdout, nothing on stderr.
printed() {
	[ "$out" = "$1" ] || complain "printed: $out"$'\n'"instead of: $1"
	[ -z "$err" ] || complain "on stderr: $err"
}

# The former run printed exactly this line on stderr, and nothing on stdout.
refused() {
	[ "$err" = "icmfs: $1" ] || complain "on stderr: $err"$'\n'"instead of: icmfs: $1"
	[ -z "$out" ] || complain "printed: $out"
}

# The former run's stderr is one line of ours that matches a pattern.
refused_like() {
	# shellcheck disable=SC2053 # a pattern it is
	[[ $err == "icmfs: "$1 && $err != *$'\n'* ]] || complain "on stderr: $err"
}

# Its stdout matches a pattern.
printed_like() {
	# shellcheck disable=SC2053
	[[ $out == $1 ]] || complain "printed: $out"$'\n'"which is not like: $1"
}

finish() {
	exit "$failed"
}

need_fuse() {
	[ -c /dev/fuse ] || skip "no /dev/fuse"
	[ "$(id -u)" -eq 0 ] || [ -w /dev/fuse ] || skip "/dev/fuse is not for this user"
}
