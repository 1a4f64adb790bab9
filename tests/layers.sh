#!/bin/bash
# SPDX-License-Identifier: MIT
# The layers: fs/util <- backends <- fs/core <- { fs, cli }. An include points
# left only; no driver's header is included outside its folder, except by tests
# those that are made for them; every header compiles alone; and no name of ours
# is one of a library's, which ours would replace in the whole program.
#
# usage: layers.sh SOURCE-DIRECTORY [BUILD-DIRECTORY]    (the latter has config.h)
set -euo pipefail
cd "${1:-.}"
config=${2:-build}
failed=0
n=0

complain() {
	printf '%s\n' "$1"
	failed=1
}

# Rank of a file's or include's layer: the higher may include the lower.
layer() {
	case $1 in
	fs/util/* | util/*) echo util ;;
	backends/*) echo backends ;;
	fs/core/* | core/*) echo core ;;
	cli/*) echo cli ;;
	tests/*) echo tests ;;
	fs/*) echo front ;;
	config.h) echo util ;;
	*) echo unknown ;;
	esac
}

may_include() {
	case $1:$2 in
	util:util) ;;
	backends:util | backends:backends) ;;
	core:util | core:backends | core:core) ;;
	front:util | front:backends | front:core | front:front) ;;
	# commands end in a call into the front: mount and umount
	cli:util | cli:backends | cli:core | cli:front | cli:cli) ;;
	tests:*) ;;
	*) return 1 ;;
	esac
}

# An include as a path from the project's root.
whole_path() {
	local from=$1 name=$2
	case $name in
	util/* | core/*) echo "fs/$name" ;;
	fs/* | backends/* | cli/* | tests/* | config.h) echo "$name" ;;
	*) # of the front, without a folder; or beside the file that includes it
		if [ -e "$(dirname "$from")/$name" ]; then
			echo "$(dirname "$from")/$name"
		elif [ -e "fs/$name" ]; then
			echo "fs/$name"
		else
			echo "$name"
		fi ;;
	esac
}

# The memory driver's faults, and the readers that are fuzzed.
for_tests() {
	case $1 in
	backends/memory/memory.h | backends/consul/wire.h) ;;
	*) return 1 ;;
	esac
}

# backends/sqlite/sqlite.h and the like.
driver_of() {
	case $1 in
	backends/*/*) echo "${1%/*}" ;;
	esac
}

check_include() {
	local from=$1 target=$2 driver
	if ! may_include "$(layer "$from")" "$(layer "$target")"; then
		complain "$from: includes $target, which its layer may not see"
	fi
	driver=$(driver_of "$target")
	if [ -n "$driver" ] && [[ $from != "$driver"/* ]] &&
		! { [[ $from == tests/* ]] && for_tests "$target"; }; then
		complain "$from: includes the header of a driver, $target"
	fi
}

while IFS=: read -r from line; do
	name=${line#*\"}
	name=${name%%\"*}
	check_include "$from" "$(whole_path "$from" "$name")"
	n=$((n + 1))
done < <(grep -rHoE --include='*.[ch]' '^[[:space:]]*#[[:space:]]*include[[:space:]]+"[^"]+"' \
	fs backends cli tests)
[ "$n" -gt 50 ] || complain "only $n includes were found: the check itself is broken"

read -ra fuse < <(pkg-config --cflags fuse3 jansson sqlite3 libcrypto libcurl)
while read -r header; do
	case $header in
	tests/*) continue ;;
	esac
	if ! "${CC:-cc}" -std=gnu17 -D_GNU_SOURCE -DFUSE_USE_VERSION=312 -I. -Ifs -I"$config" \
		"${fuse[@]}" -Wall -Werror -Wno-unused-function -fsyntax-only -x c "$header"; then
		complain "$header: doesn't compile alone"
	fi
done < <(find fs backends cli -name '*.h' | sort)

# Names that a library or program defines, in order.
names() {
	nm "$@" 2>/dev/null | awk 'NF >= 3 { sub(/@.*/, "", $3); print $3 }' | LC_ALL=C sort -u
}

# Compares the archive's names with those of each library that the program loads.
check_names() {
	local library clash
	for library in $(ldd "$config/icmfs" | awk '$3 ~ /^\// { print $3 }'); do
		case $library in
		*asan* | *ubsan* | *tsan*) continue ;; # they replace on purpose
		esac
		clash=$(LC_ALL=C comm -12 <(names -g --defined-only "$config/libicmfs.a") \
			<(names -D --defined-only "$library"))
		[ -z "$clash" ] || complain "a name of ours is one of ${library##*/}: $clash"
	done
}
[ ! -e "$config/libicmfs.a" ] || check_names

[ "$failed" -eq 0 ] && echo "$n includes point the right way, every header compiles alone"
exit "$failed"
