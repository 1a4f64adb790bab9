#!/bin/bash
# SPDX-License-Identifier: MIT
# Three servers and an agent for each mount, and what can happen to them while a
# program writes: nothing that was acknowledged is lost, every call ends, `status`
# works throughout, and all goes on without a remount.
# shellcheck source=tests/lib/lib.sh
. "$(dirname "$0")/../lib/lib.sh"

need perl
need_mount
[ "$KIND" = cluster ] || skip 'needs a cluster'
MOUNT_OPTS=timeout=5
two_mounts
mkdir "$A/w"

# Writes one file after the other until $T/stop is there; notes which closes came
# back well, and the errors of the others.
write_on() {
	perl -e '
		my ($dir, $from, $acked, $errors, $stop) = @ARGV;
		open(my $log, ">>", $acked); open(my $err, ">>", $errors);
		$log->autoflush(1); $err->autoflush(1);
		for (my $i = $from; !-e $stop; $i++) {
			my $f;
			my $ok = open($f, ">", "$dir/f$i") && print($f "version $i\n") && close($f);
			if ($ok) { print $log "$i\n" } else { print $err "$i $!\n"; select(undef, undef, undef, 0.05) }
		}' "$1" "$2" "$T/acked" "$T/errors" "$T/stop"
}

NEXT=0
begin() {
	say "$1"
	rm -f "$T/stop"
	write_on "$A/w" $NEXT &
	writer=$!
	echo "$writer" >>"$T/pids"
	progress || fail "$1: no write succeeds before"
}

acked() { wc -l <"$T/acked"; }
more_than() { [ "$(acked)" -gt "$1" ]; }
# Twenty more writes are acknowledged.
progress() { wait_for 90 more_than $(($(acked) + 20)); }

# The writer goes on, by itself; everything acknowledged is on B.
end() {
	progress || fail "$1: writing doesn't go on; last errors: $(tail -3 "$T/errors")"
	touch "$T/stop"
	wait_for 60 not kill -0 "$writer" || fail "$1: the writer hangs"
	wait "$writer" || true
	NEXT=$(($(sort -n "$T/acked" "$T/errors" 2>/dev/null | tail -1 | cut -d' ' -f1) + 1))
	verify "$1" "$B"
}

verify() {
	local i
	while read -r i; do
		[ "$(timeout 60 cat "$2/w/f$i")" = "version $i" ] ||
			fail "$1: f$i was acknowledged and is '$(timeout 60 cat "$2/w/f$i" 2>&1)'"
	done <"$T/acked"
}

# What must work whatever the store does.
alive() {
	local dir rc
	for dir in "$A" "$B"; do
		rc=0
		timeout 60 "$ICMFS" status "$dir" >"$T/status" 2>&1 || rc=$?
		[ $rc != 124 ] || fail "$1: status hangs"
		timeout 60 stat "$dir/w" >/dev/null || fail "$1: stat of what is known fails"
	done
}

touch "$T/acked" "$T/errors"
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

begin 'no quorum'
leader=$(cluster_leader c1)
others=()
for node in s1 s2 s3; do
	[ "$node" = "$leader" ] || others+=("$node")
done
before=$(acked)
for node in "${others[@]}"; do cluster_kill "$node"; done
# a write that began now can't be stored; its call ends
timeout 120 cp /etc/passwd "$A/w/none" 2>/dev/null && fail 'a write succeeded without quorum'
alive 'no quorum'
[ "$(timeout 60 cat "$A/w/f$(tail -1 "$T/acked")")" ] || say 'reading needs the store'
for node in "${others[@]}"; do cluster_up "$node"; done
wait_for 90 cluster_serves c1 || fail 'the cluster does not come back'
end 'no quorum'
say "$(acked) writes acknowledged ($before before the quorum was lost), $(wc -l <"$T/errors") refused"

umount_at "$A"
umount_at "$B"
check_store
