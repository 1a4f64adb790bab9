#!/bin/bash
# SPDX-License-Identifier: MIT
# mount and umount: as a command, as mount(8) calls it, and refused.
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "$0")/lib.sh"
need_fuse

mounted() {
	awk -v dir="$1" '$2 == dir { print $1, $3 }' /proc/self/mounts
}

mkdir mnt second
run 0 "$icmfs" mount a.icmfs mnt
printed ''
[ "$(mounted "$dir/mnt")" = "sqlite:$dir/a.icmfs fuse.icmfs" ] || complain "mounted: $(mounted "$dir/mnt")"
run 0 "$icmfs" mount "sqlite:$dir/a.icmfs" second
printf 'hello' >mnt/file
[ "$(cat second/file)" = hello ] || complain "the second mount doesn't see it"
run 0 "$icmfs" umount second
printed ''
[ -z "$(mounted "$dir/second")" ] || complain "still mounted"

# Busy, then not.
exec 7<mnt/file
run 1 "$icmfs" umount mnt
refused_like '*mnt*'
exec 7<&-
run 0 "$icmfs" umount mnt
run 1 "$icmfs" umount mnt
refused_like '*mnt*'
run 1 "$icmfs" umount missing
refused_like '*missing*'

# As mount -t fuse.icmfs and as mount.icmfs call it, with what fstab leaves in.
run 0 "$icmfs" a.icmfs mnt -o rw,nofail,_netdev,noatime
[ "$(cat mnt/file)" = hello ] || complain "mounted by the program's name"
run 0 "$icmfs" umount mnt
ln -s "$icmfs" mount.icmfs
run 0 ./mount.icmfs a.icmfs mnt -n -v -o ro,nofail
printed ''
run 1 touch mnt/new
run 0 "$icmfs" umount mnt
run 0 ./mount.icmfs -f a.icmfs mnt
[ -z "$(mounted "$dir/mnt")" ] || complain "-f of mount(8) mounts"
if [ "$(id -u)" -eq 0 ]; then
	run 0 ./mount.icmfs a.icmfs mnt -o rw
	run 0 ./mount.icmfs a.icmfs mnt -o remount,ro
	run 1 touch mnt/new
	run 0 ./mount.icmfs a.icmfs mnt -o remount,rw
	run 0 touch mnt/new
	pid=$("$icmfs" status --json mnt | jq .pid)
	run 0 umount mnt
	# umount(8) doesn't wait for the daemon
	while kill -0 "$pid" 2>/dev/null; do sleep 0.01; done
fi

# A mount whose process died: cleared away by umount, mounted over by mount.
for how in umount mount; do
	run 0 "$icmfs" mount a.icmfs mnt
	pid=$("$icmfs" status --json mnt | jq .pid)
	kill -9 "$pid"
	if [ "$how" = umount ]; then
		run 0 "$icmfs" umount mnt
		[ -z "$(mounted "$dir/mnt")" ] || complain "a dead mount is still there"
	else
		run 0 "$icmfs" mount a.icmfs mnt
		[ "$(mounted "$dir/mnt" | wc -l)" -eq 1 ] || complain "mounts are stacked"
		[ "$(cat mnt/file)" = hello ] || complain "mounted anew, the file is gone"
		run 0 "$icmfs" umount mnt
	fi
done

# In the foreground, until it is asked to end.
"$icmfs" mount -f a.icmfs mnt 2>log &
daemon=$!
for _ in $(seq 500); do
	[ -z "$(mounted "$dir/mnt")" ] || break
	sleep 0.01
done
[ "$(cat mnt/file)" = hello ] || complain "the mount in the foreground"
kill -TERM "$daemon"
status=0
wait "$daemon" || status=$?
[ "$status" -eq 0 ] || complain "status $status after SIGTERM: $(cat log)"
[ -z "$(mounted "$dir/mnt")" ] || complain "still mounted after SIGTERM"

# Refused, with one line and nothing left mounted.
run 1 "$icmfs" mount a.icmfs missing
refused_like '*missing*'
run 1 "$icmfs" mount a.icmfs a.icmfs
refused_like '*a.icmfs*'
run 1 "$icmfs" mount no/such/dir/s.icmfs mnt
refused_like '*no/such/dir/s.icmfs*'
head -c 9000 /dev/urandom >garbage.icmfs
run 1 "$icmfs" mount garbage.icmfs mnt
refused_like '*garbage.icmfs*'
run 2 "$icmfs" mount a.icmfs mnt -o no_such_option
refused_like '*no_such_option*'
run 2 "$icmfs" mount a.icmfs mnt -o timeout=soon
refused_like '*timeout*'
cp a.icmfs newer.icmfs
sqlite3 newer.icmfs "update kv set value = cast('{\"format\":9}' as blob) where key = 'meta'"
run 1 "$icmfs" mount newer.icmfs mnt
refused_like '*format 9*'
[ -z "$(mounted "$dir/mnt")" ] || complain "a refused mount is there"

# Odd names of the directory and the store.
mkdir $'odd \n name'
run 0 "$icmfs" mount 'with blank.icmfs' $'odd \n name'
printf 'x' >$'odd \n name/x'
run 0 "$icmfs" umount $'odd \n name'
run 0 "$icmfs" check 'with blank.icmfs'
finish
