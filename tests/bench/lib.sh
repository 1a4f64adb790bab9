# shellcheck shell=bash
# SPDX-License-Identifier: MIT
# What the benchmarks share: options, the build, a directory to work in, mounts,
# series of measured times, the table, the page. Sourced by tests/bench/run and
# run-consul, which set `groups` (names of their parts) before.
#
# A series is a set of files raw/NAME.ROUND with nanoseconds, one a line.
# shellcheck disable=SC2034 # what it sets is for those who source it
set -euo pipefail
export LC_ALL=C
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
build=${BENCH_BUILD:-$root/build/bench}
# shellcheck source=tests/lib/wait.sh
. "$root/tests/lib/wait.sh"
load=$(cut -d ' ' -f 1 /proc/loadavg)
rounds=15 ops=25 write='' missed=0

die() {
	echo "bench: $*" >&2
	exit 1
}

pin() {
	taskset -p -c $(($(nproc) - 1)) $$ >/dev/null || die "can't be pinned"
}

bench_options() {
	while [ $# -gt 0 ]; do
		case $1 in
		--quick) rounds=5 ops=10 ;;
		--write) write=1 ;;
		--pin) pin ;;
		--only)
			groups=" ${2?} "
			shift
			;;
		*)
			sed -n '3,/^set/{/^#/s/^# \{0,1\}//p}' "$0"
			exit 2
			;;
		esac
		shift
	done
}

wanted() { [[ $groups == *" $1 "* ]]; }

# ---- the build, the place, the end ----

bench_build() {
	local program targets=(icmfs)
	for program in meson ninja bindfs findmnt pkg-config; do
		command -v "$program" >/dev/null || die "needs $program"
	done
	[ -c /dev/fuse ] || die "needs /dev/fuse"
	for program; do
		targets+=("tests/bench/bench-$program")
	done
	[ -f "$build/build.ninja" ] ||
		meson setup "$build" "$root" --buildtype=release -Db_ndebug=true >/dev/null
	ninja -C "$build" --quiet "${targets[@]}"
	icmfs=$build/icmfs opsprog=$build/tests/bench/bench-ops
}

# A directory $work with mount points of these names, on a disk.
bench_work() {
	local name
	work=$(mktemp -d "${DIR:-/var/tmp}/icmfs-bench.XXXXXX")
	mkdir "$work"/{plain,state,raw}
	mounts=("$@")
	for name; do
		mkdir "$work/$name"
	done
	table=$work/table
	: >"$table"
	trap bench_end EXIT
	trap 'exit 130' INT TERM
	case $(findmnt -no FSTYPE -T "$work") in
	tmpfs | ramfs) die "$work is in memory: give DIR= on a disk" ;;
	esac
}

pids=()
helpers=()
at_end=: # a command for what else has been started

bench_end() {
	set +e
	local name
	[ ${#helpers[@]} -eq 0 ] || kill "${helpers[@]}" 2>/dev/null
	for name in "${mounts[@]}"; do
		! mountpoint -q "$work/$name" || fusermount3 -u "$work/$name" ||
			fusermount3 -uz "$work/$name"
	done 2>/dev/null
	[ ${#pids[@]} -eq 0 ] || wait "${pids[@]}"
	$at_end
	rm -rf "$work"
}

until_mounted() {
	local i
	for ((i = 0; i < 3000; i++)); do
		! mountpoint -q "$1" || return 0
		kill -0 "$2" 2>/dev/null || die "no mount: $(tail -n 3 "$work/log")"
		sleep 0.01
	done
	die "not mounted after 30 s"
}

# Mounts a store; sets pid: mount_icmfs STORE NAME [OPTIONS]
mount_icmfs() {
	"$icmfs" mount -f -o "noscratch,statedir=$work/state${3:+,$3}" "$1" \
		"$work/$2" 2>>"$work/log" &
	pid=$!
	pids+=("$pid")
	until_mounted "$work/$2" "$pid"
}

umount_icmfs() {
	fusermount3 -u "$work/$1"
	wait "$2" || true
}

mount_bindfs() {
	bindfs -f "$work/plain" "$work/bindfs" 2>>"$work/log" &
	pids+=("$!")
	until_mounted "$work/bindfs" "$!"
}

# A program that answers each line of its input with one: helper NAME COMMAND…
declare -A to_helper from_helper

helper() {
	local name=$1 fd
	shift
	mkfifo "$work/$name.in" "$work/$name.out"
	"$@" <"$work/$name.in" >"$work/$name.out" 2>>"$work/log" &
	pids+=("$!")
	helpers+=("$!")
	exec {fd}>"$work/$name.in"
	to_helper[$name]=$fd
	exec {fd}<"$work/$name.out"
	from_helper[$name]=$fd
}

# Its answer goes to $answer: ask NAME WORDS…
ask() {
	local name=$1
	shift
	echo "$*" >&"${to_helper[$name]}"
	read -r answer <&"${from_helper[$name]}" || die "$name failed: $(tail -n 3 "$work/log")"
}

# ---- the files ----

# So many in directories of 100, and 100 of 1 KiB to work with.
make_files() {
	local d i
	for ((d = 0; d < $1 / 100; d++)); do
		mkdir -p "$work/plain/tree/d$d"
		for ((i = 0; i < 100; i++)); do
			printf '{"machine":"%d-%d","role":"DATA","state":"%0300d"}\n' $d $i $i \
				>"$work/plain/tree/d$d/f$i.json"
		done
	done
	mkdir "$work/plain/bench"
	for ((i = 0; i < 100; i++)); do
		head -c 1024 /dev/urandom >"$work/plain/bench/w$i"
	done
}

# ---- measuring ----

# One round: its nanoseconds go to raw/SERIES.ROUND
ops() {
	local series=$1 round=$2
	shift 2
	"$opsprog" "$@" >"$work/raw/$series.$round" || die "failed: ops $*"
}

# The same for a command, as a whole.
timed() {
	local series=$1 round=$2 from to
	shift 2
	from=$(date +%s%N)
	"$@" >/dev/null 2>>"$work/log" || die "failed: $*"
	to=$(date +%s%N)
	echo $((to - from)) >"$work/raw/$series.$round"
}

forget_warm_up() { rm -f "$work"/raw/*.0; }

# Least of all and median of a series, in microseconds.
least() { sort -n "$work/raw/$1".* | awk 'NR == 1 { printf "%.1f", $1 / 1000 }'; }
median() {
	sort -n "$work/raw/$1".* | awk '{ v[NR] = $1 }
		END { m = int((NR + 1) / 2); printf "%.1f", (NR % 2 ? v[m] : (v[m] + v[m + 1]) / 2) / 1000 }'
}

median_of_round() { sort -n "$1" | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }

# The median over the rounds of the ratio of their medians.
ratio() {
	local f
	for f in "$work/raw/$1".*; do
		echo "$(median_of_round "$f") $(median_of_round "$work/raw/$2.${f##*.}")"
	done | awk '{ print $1 / $2 }' | sort -n |
		awk '{ v[NR] = $1 } END { printf "%.2f", v[int((NR + 1) / 2)] }'
}

# ---- the table ----

table_head() {
	printf '%-46s %10s %10s   %-22s %9s %7s %7s\n' microseconds min median beside median ratio limit
}

row() {
	printf '%s\n' "$*" >>"$table"
	printf '%s\n' "$*" | awk -F ' *[|] *' \
		'{ printf "%-46s %10s %10s   %-22s %9s %7s %7s  %s\n", $1, $2, $3, $4, $5, $6, $7, $8 }'
}

# verdict VALUE LIMIT; a limit such as ">0.85" is a least value.
verdict() {
	awk -v a="$1" -v b="$2" 'BEGIN {
		least = sub(/^>/, "", b)
		print (least ? a + 0 >= b + 0 : a + 0 <= b + 0) ? "PASS" : "MISS" }'
}

# compare TITLE SERIES BASE-TITLE BASE LIMIT-OR-NOTHING
compare() { compare_as "$(ratio "$2" "$4")" "$@"; }

# The same for how much is done in a time: more is better.
compare_rate() { compare_as "$(ratio "$4" "$2")" "$@"; }

compare_as() {
	local r=$1 v=
	shift
	[ -z "${5-}" ] || v=$(verdict "$r" "$5")
	[ "$v" != MISS ] || missed=$((missed + 1))
	row "$1 | $(least "$2") | $(median "$2") | $3 | $(median "$4") | $r | ${5:+$5} | $v"
}

alone() { row "$1 | $(least "$2") | $(median "$2") | | | | | "; }

# quantity TITLE VALUE LIMIT
quantity() {
	local v=
	[ -z "${3-}" ] || v=$(verdict "$2" "$3")
	[ "$v" != MISS ] || missed=$((missed + 1))
	row "$1 | | $2 | | | | ${3-} | $v"
}

# A row for what isn't there, with the reason.
absent() { row "$1 | | | $2 | | | | "; }

# ---- docs/benchmarks.md ----

machine() {
	printf -- '- %s cores, %s GiB of memory, %s, disk with %s\n' "$(nproc)" \
		"$(awk '/^MemTotal/ { printf "%.0f", $2 / 1048576 }' /proc/meminfo)" \
		"$(uname -m)" "$(findmnt -no FSTYPE -T "$work")"
	printf -- '- Linux %s, libfuse %s, %s' "$(uname -r | cut -d - -f 1)" \
		"$(pkg-config --modversion fuse3)" "$(bindfs --version | head -n 1)"
}

markdown() {
	echo '| microseconds | least | median | beside | its median | ratio | limit | |'
	echo '| --- | ---: | ---: | --- | ---: | ---: | ---: | --- |'
	sed 's/^/| /; s/$/|/; s/>\([0-9]\)/≥ \1/' "$table" | tr -s ' '
}

# Standard input goes between the two marks of this name; the rest of the page is
# written by hand.
write_page() {
	local page=$root/docs/benchmarks.md
	grep -q "<!-- figures: $1 -->" "$page" || die "docs/benchmarks.md has no place for $1"
	{
		sed "/<!-- figures: $1 -->/q" "$page"
		echo
		cat
		echo
		sed -n "/<!-- end of figures: $1 -->/,\$p" "$page"
	} >"$work/page"
	cat "$work/page" >"$page"
}
