#!/bin/bash
# SPDX-License-Identifier: MIT
# Three servers and an agent for each mount, and what can happen to them while a
# program writes: nothing that was acknowledged is lost, every call ends, `status`
# works throughout, and all goes on without a remount.
# shellcheck source=tests/lib/lib.sh
. "$(dirname "$0")/../lib/lib.sh"
# shellcheck source=tests/lib/faults.sh
. "$(dirname "$0")/../lib/faults.sh"

need perl
need_mount
[ "$KIND" = cluster ] || skip 'needs a cluster'
MOUNT_OPTS=timeout=5
two_mounts
mkdir "$A/w"

begin 'the leader is killed'
leader=$(cluster_leader c1)
cluster_kill "$leader"
alive 'leader killed'
end 'leader killed'
cluster_up "$leader"
wait_for 60 cluster_serves "$leader" || fail "server $leader doesn't come back"

begin 'the leader is stopped for 8 s'
leader=$(cluster_leader c1)
cluster_signal "$leader" STOP
sleep 8
alive 'leader stopped'
cluster_signal "$leader" CONT
end 'leader stopped'

begin "A's agent is killed, and started again"
cluster_kill c1
alive 'agent killed'
cluster_up c1
end 'agent killed'

begin "A's agent is ended in order, and started again"
cluster_signal c1 TERM
wait_for 60 not kill -0 "$(cat "$T/store/c1/pid")" || fail 'agent c1 does not leave'
alive 'agent ended'
cluster_up c1
end 'agent ended'

begin 'no quorum for a minute'
mount_at "$T/c" timeout=5
leader=$(cluster_leader c1)
others=()
for node in s1 s2 s3; do
	[ "$node" = "$leader" ] || others+=("$node")
done
before=$(acked)
back=$((SECONDS + 60))
for node in "${others[@]}"; do cluster_kill "$node"; done
while
	# a write that began now can't be stored; its call ends
	timeout 120 cp /etc/passwd "$A/w/none" 2>/dev/null && fail 'a write succeeded without quorum'
	alive 'no quorum'
	timeout 120 cat "$B/w/f0" >/dev/null 2>&1 || [ $? != 124 ] || fail 'reading hangs without quorum'
	[ -z "${PID_OF[$T/c]:-}" ] || umount_at "$T/c"
	[ $SECONDS -lt $back ]
do :; done
for node in "${others[@]}"; do cluster_up "$node"; done
wait_for 90 cluster_serves c1 || fail 'the cluster does not come back'
end 'no quorum for a minute'
say "$(acked) writes acknowledged ($before before the quorum was lost), $(wc -l <"$T/errors") refused"

umount_at "$A"
umount_at "$B"
check_store
