#!/bin/bash
# SPDX-License-Identifier: MIT
# status of a mount, inside it, outside of any, and of one whose process died.
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "$0")/lib.sh"

run 1 "$icmfs" status .
refused '.: not in a mount of icmfs'
run 1 "$icmfs" status missing
refused 'missing: No such file or directory'
# A file that looks like ours doesn't make a mount.
mkdir -p fake/.icmfs
printf 'nonsense' >fake/.icmfs/status
run 1 "$icmfs" status fake
refused 'fake: .icmfs/status is not understood'

need_fuse
mkdir mnt
run 0 "$icmfs" mount a.icmfs mnt
mkdir -p mnt/x/y
run 0 "$icmfs" status mnt
printed_like "store: *sqlite:$dir/a.icmfs (reachable)"$'\n'"mounted on: *$dir/mnt (process *)"$'\n'"index: *"$'\n'"unsaved: *nothing"$'\n'"*"
run 0 "$icmfs" status --json mnt/x/y
[ "$(jq -r '[.store, .mountpoint, .reachable, .stale, .read_only, .unsaved.files, .unsaved.bytes] | join(" ")' <<<"$out")" = \
	"sqlite:$dir/a.icmfs $dir/mnt true false false 0 0" ] || complain "JSON: $out"
pid=$(jq .pid <<<"$out")
cd mnt/x/y
run 0 "$icmfs" status
printed_like "*sqlite:$dir/a.icmfs (reachable)*"

# Written and not closed: not saved. (A shell that writes through a descriptor of
# its own closes a copy of it each time, which publishes.)
mkfifo "$dir/go"
{
	printf 'not saved'
	read -r _ <"$dir/go"
} >"$dir/mnt/x/open" &
writer=$!
until [ "$(stat -c %s "$dir/mnt/x/open" 2>/dev/null)" = 9 ]; do sleep 0.01; done
run 1 "$icmfs" status
printed_like '*unsaved: *1 file, 9 bytes*'
echo >"$dir/go"
wait "$writer"
run 0 "$icmfs" status
cd "$dir"

kill -9 "$pid"
while kill -0 "$pid" 2>/dev/null; do sleep 0.01; done
run 1 "$icmfs" status mnt
refused "mnt: the mount's process is gone; end the mount with icmfs umount"
run 0 "$icmfs" umount mnt
run 1 "$icmfs" status mnt
refused 'mnt: not in a mount of icmfs'
run 0 "$icmfs" check a.icmfs
finish
