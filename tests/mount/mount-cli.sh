#!/bin/bash
# SPDX-License-Identifier: MIT
# icmfs mount and umount themselves: what is refused, and how; dead mount
# points; as helper of mount(8); options.
# shellcheck source=tests/lib/lib.sh
. "$(dirname "$0")/../lib/lib.sh"

need jq setpriv
need_mount
mkdir "$T/store"
store_sqlite
# For mounts in the background: nothing outside of the test's directory.
private=statedir=$T/state,log=$T/log.0

# refused WORDS COMMAND…: fails with exactly one line that has the words (a
# regular expression), and mounts nothing.
refused() {
	local words=$1 rc=0
	shift
	timeout 60 "$@" >"$T/out" 2>&1 </dev/null || rc=$?
	[ $rc != 0 ] || fail "$*: succeeded"
	[ $rc -lt 124 ] || fail "$*: ended with $rc: $(cat "$T/out")"
	[ "$(wc -l <"$T/out")" = 1 ] || fail "$*: not one line: $(cat "$T/out")"
	grep -qiE "$words" "$T/out" || fail "$*: '$(cat "$T/out")' doesn't say '$words'"
	! is_mounted "$A" || fail "$*: mounted all the same"
}

# Notes the daemon of a mount, for the end of the test.
daemon_of() {
	local pid
	pid=$("$ICMFS" status --json "$1" | jq .pid)
	[ "$pid" -gt 1 ] || fail "no pid in the status"
	echo "$pid" >>"$T/pids"
	echo "$pid"
}

say "refusals"
refused 'no such file|missing|does not exist|not exist' "$ICMFS" mount "$STORE" "$T/missing"
touch "$T/file"
refused 'not a directory' "$ICMFS" mount "$STORE" "$T/file"
refused 'no such file|not exist' "$ICMFS" mount "sqlite:$T/none/such.icmfs" "$A"
refused . "$ICMFS" mount "nonsense:$T/x" "$A"
refused . "$ICMFS" mount "sqlite:" "$A"
refused . "$ICMFS" mount "$T/not-a-store-name" "$A"
refused 'option|nonsense' "$ICMFS" mount "$STORE" "$A" -o nonsense
refused . "$ICMFS" mount "$STORE" "$A" -o scratch="$T/none"
head -c 8192 /dev/urandom >"$T/store/garbage.icmfs"
refused . "$ICMFS" mount "$T/store/garbage.icmfs" "$A"
refused 'not mounted|no mount|not a mount|not in a mount|is mounted|nothing' "$ICMFS" umount "$A"
refused . "$ICMFS" umount "$T/missing"
rc=0
"$ICMFS" mount >"$T/out" 2>&1 || rc=$?
[ $rc = 2 ] || fail "wrong usage gives $rc, expected 2"

say "in the background; the store is made"
echo below >"$A/covered"
timeout 60 "$ICMFS" mount "$STORE" "$A" -o "$private" >"$T/out" 2>&1 </dev/null || fail "mount: $(cat "$T/out")"
[ ! -s "$T/out" ] || fail "mount is talkative: $(cat "$T/out")"
pid=$(daemon_of "$A")
is_mounted "$A" || fail "not mounted when mount returns"
echo hello >"$A/f"
[ ! -e "$A/covered" ] || fail "what is below shows"
grep -qF "$STORE $A fuse.icmfs rw,nosuid,nodev," /proc/mounts || fail "in /proc/mounts: $(grep -F "$A" /proc/mounts)"
[ "$(readlink "/proc/$pid/cwd")" = / ] || fail "the daemon's working directory is $(readlink "/proc/$pid/cwd")"
"$ICMFS" status "$A" >"$T/out" || fail "status: $(cat "$T/out")"
[ "$("$ICMFS" status --json "$A" | jq -r .store)" = "$STORE" ] || fail "store in the status"

say "only for its user, unless allow_other"
chmod 0755 "$T"
setpriv --reuid 60001 --regid 60001 --clear-groups cat "$A/f" 2>/dev/null && fail "another user reads a private mount"
exec 5<"$A/f"
rc=0
timeout 60 "$ICMFS" umount "$A" >"$T/out" 2>&1 || rc=$?
[ $rc != 0 ] || fail "umount with an open file succeeded"
grep -qiE "busy|in use" "$T/out" || fail "umount with an open file: $(cat "$T/out")"
[ "$(cat "$A/f")" = hello ] || fail "the mount doesn't work after a refused umount"
exec 5<&-
wait_for 10 timeout 60 "$ICMFS" umount "$A" || fail "umount"
wait_for 30 not kill -0 "$pid" || fail "the daemon stays"
[ "$(cat "$A/covered")" = below ] || fail "what was below is gone"

mount_at "$A" allow_other
chmod 0755 "$A"
[ "$(setpriv --reuid 60001 --regid 60001 --clear-groups cat "$A/f")" = hello ] || fail "allow_other"
setpriv --reuid 60001 --regid 60001 --clear-groups touch "$A/f" 2>/dev/null && fail "modes are not enforced"
umount_at "$A"

say "read-only"
mount_at "$A" ro
[ "$(cat "$A/f")" = hello ] || fail "ro: read"
for c in "touch $A/new" "rm $A/f" "mkdir $A/d" "chmod 0 $A/f"; do
	LC_ALL=C $c 2>"$T/out" && fail "ro: $c succeeded"
	grep -q 'Read-only file system' "$T/out" || fail "ro: $c: $(cat "$T/out")"
done
umount_at "$A"
mount_at "$A" cached,noevents
mount_at "$B" cached
echo more >"$A/f"
wait_for 10 grep -qx more "$B/f" || fail "cached: a change is not seen"
umount_at "$A"
umount_at "$B"

say "suid and dev as asked"
mount_at "$A" suid,dev
grep -F " $A fuse.icmfs " /proc/mounts | grep -qE 'nosuid|nodev' && fail "suid,dev: $(grep -F " $A " /proc/mounts)"
mknod "$A/zero" c 1 5
[ "$(head -c 3 "$A/zero" | od -An -tx1)" = " 00 00 00" ] || fail "a device"
rm "$A/zero"
umount_at "$A"

say "a dead mount point is healed by the next mount"
for _ in 1 2; do
	mount_at "$A"
	kill_mount "$A"
	is_mounted "$A" && stat -f "$A" >/dev/null 2>&1 && fail "not dead"
done
mount_at "$A"
[ "$(grep -cF " $A fuse.icmfs " /proc/mounts)" = 1 ] || fail "stacked: $(grep -F " $A " /proc/mounts)"
[ "$(cat "$A/f")" = more ] || fail "contents after a kill"
kill_mount "$A"
timeout 60 "$ICMFS" umount "$A" || fail "umount of a dead mount point"
! is_mounted "$A" || fail "the dead mount point stays"

say "as mount(8) calls its helpers"
ln -s "$ICMFS" "$T/mount.icmfs"
timeout 60 "$T/mount.icmfs" "$STORE" "$A" -o "rw,nofail,_netdev,$private" || fail "mount.icmfs"
pid=$(daemon_of "$A")
[ "$(cat "$A/f")" = more ] || fail "mount.icmfs: contents"
umount "$A" || fail "plain umount"
wait_for 30 not kill -0 "$pid" || fail "the daemon stays after a plain umount"
timeout 60 "$ICMFS" "$STORE" "$A" -o "rw,dev,suid,$private" || fail "icmfs STORE DIR -o"
pid=$(daemon_of "$A")
timeout 60 "$ICMFS" umount "$A"
wait_for 30 not kill -0 "$pid" || fail "the daemon stays"

say "a blank in both names; a bare path"
mkdir "$T/store/with blank" "$T/dir with blank"
timeout 60 "$ICMFS" mount "$T/store/with blank/s.icmfs" "$T/dir with blank" -o "$private" || fail "names with a blank"
pid=$(daemon_of "$T/dir with blank")
echo x >"$T/dir with blank/f"
timeout 60 "$ICMFS" umount "$T/dir with blank"
wait_for 30 not kill -0 "$pid" || fail "the daemon stays"

say "SIGTERM ends a mount in order"
mount_at "$A"
echo last >"$A/last"
pid=${PID_OF[$A]}
kill -TERM "$pid"
rc=0
wait "$pid" || rc=$?
unset "PID_OF[$A]"
[ $rc = 0 ] || fail "ended with $rc"
! is_mounted "$A" || fail "still mounted after SIGTERM"
mount_at "$A"
[ "$(cat "$A/last")" = last ] || fail "contents after SIGTERM"

say "umount --lazy lets open files go on"
exec 6>"$A/open"
echo one >&6
timeout 60 "$ICMFS" umount --lazy "$A" || fail "umount --lazy"
! is_mounted "$A" || fail "still mounted after umount --lazy"
echo two >&6
pid=${PID_OF[$A]}
exec 6>&-
wait_for 60 not kill -0 "$pid" || fail "the daemon stays after the last close"
wait "$pid" || fail "the daemon failed"
unset "PID_OF[$A]"
mount_at "$A"
[ "$(cat "$A/open")" = "one
two" ] || fail "what was written after umount --lazy is lost"
umount_at "$A"
check_store
