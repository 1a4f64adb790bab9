#!/bin/bash
# SPDX-License-Identifier: MIT
# kill -9 of the mount at random moments: what was acknowledged is there,
# nothing is torn, the store is sound, and the next mount comes quickly.
# ICMFS_TEST_KILLS: how often (200).
# shellcheck source=tests/lib/lib.sh
. "$(dirname "$0")/../lib/lib.sh"

need_mount
kills=${ICMFS_TEST_KILLS:-200}
writers=2
writer=$(prog ack-writer)
slowest=0
init_store
for ((round = 0; round <= kills; round++)); do
	start=$(date +%s%N)
	mount_at "$A"
	ms=$((($(date +%s%N) - start) / 1000000))
	[ $ms -le $slowest ] || slowest=$ms
	[ $ms -lt 10000 ] || fail "round $round: the mount took $ms ms"
	for ((w = 0; w < writers; w++)); do
		[ $round -gt 0 ] || mkdir "$A/w$w"
		timeout 60 "$writer" --verify "$T/manifest.$w" "$A/w$w" || fail "round $round, writer $w"
	done
	if [ $((round % 20)) = 19 ] || [ $round = "$kills" ]; then
		umount_at "$A"
		check_store
		[ $round != "$kills" ] || break
		mount_at "$A"
	fi
	pids=()
	for ((w = 0; w < writers; w++)); do
		"$writer" "$T/manifest.$w" "$A/w$w" >"$T/writer.$w" 2>&1 &
		pids+=($!)
		echo $! >>"$T/pids"
	done
	# a random moment, biased to the first operations
	sleep "$(printf '0.%03d' $((RANDOM % (RANDOM % 4 ? 150 : 600))))"
	kill_mount "$A"
	for ((w = 0; w < writers; w++)); do
		wait_for 30 not kill -0 "${pids[w]}" || fail "round $round: writer $w hangs"
		wait "${pids[w]}" || fail "round $round: writer $w: $(cat "$T/writer.$w")"
	done
	rm -f "$T"/log.*
done
say "$(cat "$T"/manifest.* | grep -c '^[A-W]') acknowledged operations, slowest mount $slowest ms"
