#!/bin/bash
# SPDX-License-Identifier: MIT
# Three servers and two hosts with a mount each, and links that are cut without a
# word: calls wait or end within their bound, `status`, `umount` and what is known
# work, nothing acknowledged is lost, a lock's holder that was cut off changes
# nothing, and all goes on without a remount.
# shellcheck source=tests/lib/lib.sh
. "$(dirname "$0")/../lib/lib.sh"
# shellcheck source=tests/lib/faults.sh
. "$(dirname "$0")/../lib/faults.sh"

need perl
need_mount
[ "$KIND" = netns ] || skip 'needs hosts of its own'
MOUNT_OPTS=timeout=5
two_mounts
mkdir "$A/w"

# save FILE TEXT: "ok", or the name of the errno that open, write or close ends with.
save() {
	# shellcheck disable=SC2016
	timeout 120 perl -e '
		use Errno;
		sub end { for my $n (keys %!) { if ($!{$n}) { print $n; exit } } print "error $!"; exit }
		open(my $f, ">", $ARGV[0]) or end(); print $f $ARGV[1]; close($f) or end(); print "ok"' "$1" "$2" ||
		echo hangs
}

begin "the leader's host is cut off, and comes back"
leader=$(cluster_leader c1)
netns_cut "$leader"
alive 'leader cut off'
# the others elect one, and all goes on before the link heals
end 'leader cut off'
netns_heal "$leader"
wait_for 90 cluster_serves "$leader" || fail "server $leader doesn't come back"
begin "the leader's host was cut off"
end 'leader back'

begin "A's host is cut off for longer than the timeout"
echo 'by B, before' >"$B/both"
[ "$(cat "$A/both")" = 'by B, before' ] || fail 'before the cut'
netns_cut c1
result=$(save "$A/new" 'by A')
case $result in
ETIMEDOUT | EIO | EHOSTUNREACH) ;;
*) fail "a write on a host that is cut off: $result" ;;
esac
alive "A cut off"
[ "$(save "$B/both" 'by B, after')" = ok ] || fail 'B needs A'
netns_heal c1
end 'A cut off'
[ "$(cat "$A/both")" = 'by B, after' ] || fail "A has missed B's version"
case $(cat "$B/new" 2>&1) in
'by A') fail 'a write that failed was stored' ;;
esac

say 'a cut that is shorter than the timeout is waited out'
mount_at "$T/c" timeout=60
netns_cut c1
save "$T/c/waits" 'after a while' >"$T/result" &
waiting=$!
sleep 6 # longer than any single request lasts
kill -0 $waiting 2>/dev/null || fail "it didn't wait: $(cat "$T/result")"
netns_heal c1
wait_for 90 not kill -0 $waiting || fail 'it waits on'
[ "$(cat "$T/result")" = ok ] || fail "after the cut: $(cat "$T/result")"
[ "$(cat "$B/waits")" = 'after a while' ] || fail 'what waited, on B'

say 'umount on a host that is cut off'
netns_cut c1
umount_at "$T/c"
netns_heal c1

say 'the holder of a lock is cut off until its lease is over'
echo 'before' >"$A/locked"
perl -e '
	use Fcntl qw(:flock); use Errno;
	my ($file, $has, $go) = @ARGV;
	open(my $f, "+<", $file) or die "open: $!"; flock($f, LOCK_EX | LOCK_NB) or die "flock: $!";
	open(my $h, ">", $has); close($h);
	select(undef, undef, undef, 0.02) until -e $go;
	my $wrong = syswrite($f, "by A, too late") ? !close($f) ? "" : "stored" : "";
	print $wrong || ($!{EIO} ? "EIO" : "$!")' "$A/locked" "$T/has" "$T/go" >"$T/holder" 2>"$T/holder.log" &
holder=$!
echo "$holder" >>"$T/pids"
wait_for 30 test -e "$T/has" || fail "no lock: $(cat "$T/holder.log")"
flock -n "$B/locked" true 2>/dev/null && fail 'both have the lock'
netns_cut c1
b_locks() { flock -n "$B/locked" sh -c "echo 'by B, under the lock' >'$B/locked'"; }
wait_for 90 b_locks || fail "the lock of a host that is cut off doesn't come free"
netns_heal c1
touch "$T/go"
wait_for 60 not kill -0 "$holder" || fail 'the former holder hangs'
[ "$(cat "$T/holder")" = EIO ] || fail "the former holder: $(cat "$T/holder")"
[ "$(cat "$B/locked")" = 'by B, under the lock' ] || fail "it changed something: $(cat "$B/locked")"

begin 'all goes on'
end 'all goes on'
umount_at "$A"
umount_at "$B"
check_store
