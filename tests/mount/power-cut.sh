#!/bin/bash
# SPDX-License-Identifier: MIT
# A power cut: what was acknowledged had reached the disk. The daemon's writes and
# syncs are recorded; then disks are made as they would be had the power failed
# just after an acknowledgement, with what was not synced there in part or not at
# all. On each of them the store is sound and has all that was acknowledged before.
# shellcheck source=tests/lib/lib.sh
. "$(dirname "$0")/../lib/lib.sh"

need strace perl
need_mount
[ "$KIND" = sqlite ] || skip "cuts the power of a SQLite store"
cuts=${ICMFS_TEST_CUTS:-20}
init_store
mount_at "$A"
mkdir "$A/d"
for i in $(seq 20); do echo "before $i" >"$A/d/f$i"; done
umount_at "$A"
cp -a "$T/store" "$T/disk"
strace -o /dev/null true 2>/dev/null || skip "strace may not trace"
real=$ICMFS
ICMFS=$T/traced
# the leak check traces as well, and a process has one tracer
# shellcheck disable=SC2016 # the script expands it
printf '#!/bin/sh\nexport ASAN_OPTIONS="$ASAN_OPTIONS:detect_leaks=0"\nexec strace -f -ttt -T -y -xx -s 300000 -e trace=pwrite64,ftruncate,fdatasync,fsync -e signal=none -o %q %q "$@"\n' \
	"$T/trace" "$real" >"$ICMFS"
chmod +x "$ICMFS"
mount_at "$A"
ICMFS=$real

# Each line of acknowledged: when the call had returned, and what has to be there.
ack() { printf '%s %s\n' "$EPOCHREALTIME" "$*" >>"$T/acknowledged"; }
for i in $(seq 60); do
	f=d/f$((i % 20 + 1))
	echo "version $i" >"$A/$f"
	ack "content $f version $i"
	if [ $((i % 6)) = 0 ]; then
		mkdir "$A/dir$i"
		ack "exists dir$i"
		head -c 400000 /dev/urandom >"$A/big$i"
		ack "sum big$i $(sha256sum <"$A/big$i" | cut -d ' ' -f 1)"
	fi
done
umount_at "$A"
[ "$(grep -c fdatasync "$T/trace")" -ge 60 ] || fail "the trace has no syncs"

# What was acknowledged up to a time; of a file the last version counts, or any
# later one that was under way.
verify() {
	local time=$1 dir=$2 what file text now
	declare -A last=()
	while read -r when what file text; do
		[[ $when < $time || $when == "$time" ]] || break
		last[$what:$file]=$text
	done <"$T/acknowledged"
	for what in "${!last[@]}"; do
		file=$dir/${what#*:} text=${last[$what]}
		case $what in
		content:*)
			now=$(cat "$file") || fail "$file is gone"
			[ "${now#version }" -ge "${text#version }" ] 2>/dev/null || fail "$file has '$now', acknowledged was '$text'"
			;;
		exists:*) [ -d "$file" ] || fail "$file is gone" ;;
		sum:*) [ "$(sha256sum <"$file" | cut -d ' ' -f 1)" = "$text" ] || fail "$file is not what was acknowledged" ;;
		esac
	done
	[ "${#last[@]}" -gt 0 ] || fail "nothing was acknowledged before $time"
}

total=$(grep -c . "$T/acknowledged")
mv "$T/store" "$T/finished"
mv "$T/disk" "$T/store"
for cut in $(seq "$cuts"); do
	time=$(sed -n "$((1 + (cut * 7919) % total))p" "$T/acknowledged" | cut -d ' ' -f 1)
	"$SRC/tests/lib/power-cut.pl" "$T/trace" "$T/store" "$T/cut" "$time" "$cut" >"$T/events" || fail "no disk for cut $cut"
	STORE=sqlite:$T/cut/store.icmfs
	check_store
	mount_at "$B"
	verify "$time" "$B"
	umount_at "$B"
	rm -rf "$T/cut"
done
say "$cuts power cuts, $(cat "$T/events") in the last"
