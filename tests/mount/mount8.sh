#!/bin/bash
# SPDX-License-Identifier: MIT
# The system's own mount(8) and umount(8): mount -t icmfs, a line of fstab,
# remounting, and umount. In a mount namespace of its own, where the helper stands
# in /sbin; the machine's own is not changed.
# shellcheck source=tests/lib/lib.sh
if [ -z "${ICMFS_TEST_NAMESPACE:-}" ]; then
	unshare -m true 2>/dev/null || {
		echo "SKIP: no mount namespace of its own (needs root and unshare)"
		exit 77
	}
	ICMFS_TEST_NAMESPACE=1 exec unshare -m "$0" "$@"
fi
. "$(dirname "$0")/../lib/lib.sh"

need_mount
cp -a /sbin/. "$T/sbin" 2>/dev/null || true
[ -n "$(ls "$T/sbin")" ] || fail "no copy of /sbin"
cp "$ICMFS" "$T/sbin/mount.icmfs"
# a remount calls the type in /proc/mounts, fuse.icmfs, whose helper runs "icmfs"
cp "$ICMFS" "$T/sbin/icmfs"
mount --bind "$T/sbin" /sbin
init_store
daemon_of() { pgrep -f "icmfs .*$T/store/store.icmfs $1( |\$)" | head -n 1; }
gone() { ! is_mounted "$1"; }
ended() { [ -z "$(daemon_of "$1")" ]; }

say "mount -t icmfs STORE DIR"
mount -t icmfs "$STORE" "$A" -o "statedir=$T/state,log=$T/daemon.log" || fail "mount -t icmfs"
daemon_of "$A" >>"$T/pids"
mounted_and_alive "$A" || fail "it doesn't answer"
grep -q "^$STORE $A fuse.icmfs rw,nosuid,nodev" /proc/mounts || fail "in /proc/mounts: $(grep "$A" /proc/mounts)"
echo one >"$A/one"

say "mount -o remount,ro and rw"
mount -o remount,ro "$A" || fail "remount,ro"
echo two 2>/dev/null >"$A/one" && fail "written through a read-only mount"
[ "$(cat "$A/one")" = one ] || fail "reading while read-only"
mount -o remount,rw "$A" || fail "remount,rw"
echo two >"$A/one"

say "a mistake is one clear line, and a status of mount(8)'s"
mount -t icmfs "$STORE" "$B" -o nonsense 2>"$T/errors" && fail "an unknown option was taken"
[ "$(grep -c . "$T/errors")" -le 2 ] || fail "not one clear line: $(cat "$T/errors")"
grep -q nonsense "$T/errors" || fail "the option isn't named: $(cat "$T/errors")"
gone "$B" || fail "mounted all the same"

say "umount(8)"
umount "$A" || fail "umount"
gone "$A" || fail "still mounted"
wait_for 30 ended "$A" || fail "the daemon stays"

say "a line of fstab"
printf '%s %s icmfs rw,nofail,_netdev,noatime,statedir=%s,log=%s 0 0\n' "$STORE" "$A" "$T/state" "$T/daemon.log" >"$T/fstab"
mount -T "$T/fstab" "$A" || fail "mount by fstab"
daemon_of "$A" >>"$T/pids"
[ "$(cat "$A/one")" = two ] || fail "contents after a remount"
grep -q "$A fuse.icmfs rw,.*noatime" /proc/mounts || fail "noatime: $(grep "$A" /proc/mounts)"

say "a dead mount point: mount(8) heals it"
kill -9 "$(daemon_of "$A")"
dead() { ! stat -f "$A" >/dev/null 2>&1; }
wait_for 30 dead || fail "still answers after kill -9"
mount -T "$T/fstab" "$A" || fail "mounting over a dead one"
daemon_of "$A" >>"$T/pids"
[ "$(grep -c " $A fuse.icmfs" /proc/mounts)" = 1 ] || fail "stacked: $(grep "$A" /proc/mounts)"
[ "$(cat "$A/one")" = two ] || fail "contents after healing"
umount "$A"
wait_for 30 ended "$A" || fail "the daemon stays"
umount /sbin
check_store
