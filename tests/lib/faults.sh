#!/bin/bash
# SPDX-License-Identifier: MIT
# A program that writes on A while something happens to the store: sourced by the
# tests that take parts of a cluster away, after lib.sh. What was acknowledged is on
# B afterwards, every call ends, `status` and look-ups of known names work throughout.

# Writes one file after the other until $T/stop is there; notes which closes came
# back well, and the errors of the others. To be run in the background.
write_on() {
	exec perl -e '
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
# begin WHAT: starts the writer, which gets somewhere.
begin() {
	say "$1"
	touch "$T/acked" "$T/errors"
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

# end WHAT: the writer goes on, by itself; everything acknowledged is on B.
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

# alive WHAT: what must work whatever the store does.
alive() {
	local dir rc
	for dir in "$A" "$B"; do
		rc=0
		timeout 60 "$ICMFS" status "$dir" >"$T/status" 2>&1 || rc=$?
		[ $rc != 124 ] || fail "$1: status hangs"
		timeout 60 stat "$dir/w" >/dev/null || fail "$1: stat of what is known fails"
	done
}
