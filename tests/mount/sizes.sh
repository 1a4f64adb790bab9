#!/bin/bash
# SPDX-License-Identifier: MIT
# Files around the sizes at which the form in the store changes, and large ones: on B
# at once after the close, after a change in the middle, and after a remount.
# ICMFS_TEST_BIG: bytes of the largest (10 MiB; with 1 GiB it takes minutes, and on
# Consul 3 GB of memory).
# shellcheck source=tests/lib/lib.sh
. "$(dirname "$0")/../lib/lib.sh"

need cmp
CHECK_SECONDS=600
two_mounts
mkdir "$T/ref"
for size in 0 1 262143 262144 262145 523264 524288 524289 525312 1048577 "${ICMFS_TEST_BIG:-10485760}"; do
	head -c "$size" /dev/urandom >"$T/ref/f$size"
	cp "$T/ref/f$size" "$A/f$size"
	cmp "$T/ref/f$size" "$B/f$size" || fail "$size bytes, on B"
	[ "$size" -gt 100 ] || continue
	for f in "$T/ref/f$size" "$B/f$size"; do
		printf 'changed' | dd of="$f" bs=1 seek=$((size / 2)) conv=notrunc status=none
	done
	cmp "$T/ref/f$size" "$A/f$size" || fail "$size bytes, changed on B"
	truncate -s $((size - 50)) "$T/ref/f$size" "$A/f$size"
	cmp "$T/ref/f$size" "$B/f$size" || fail "$size bytes, cut on A"
done
umount_at "$A"
umount_at "$B"
mount_at "$A"
for f in "$T"/ref/*; do cmp "$f" "$A/$(basename "$f")" || fail "$f after a remount"; done
umount_at "$A"
check_store
