#!/bin/bash
# SPDX-License-Identifier: MIT
# Terraform in "state/definition 0" on A with its built-in provider; on B the
# state is readable JSON throughout.
# shellcheck source=tests/lib/lib.sh
. "$(dirname "$0")/../lib/lib.sh"

command -v terraform >/dev/null || skip "terraform is not installed"
need jq
export CHECKPOINT_DISABLE=1 TF_IN_AUTOMATION=1 TF_INPUT=0
unset TF_CLI_CONFIG_FILE
two_mounts
dir="state/definition 0"
mkdir -p "$A/$dir"
cat >"$A/$dir/main.tf" <<'END'
variable "count_of" { default = 5 }
resource "terraform_data" "node" {
  count = var.count_of
  input = { name = "Acme-DM-TEST-${count.index}", filler = join("", [for i in range(200) : "x${i}"]) }
}
output "names" { value = terraform_data.node[*].input.name }
END

# Reads on B until told to stop: whatever is there is whole.
cat >"$T/reader" <<'END'
n=0
while [ ! -e "$2" ]; do
	if state=$(cat "$1/terraform.tfstate" 2>/dev/null) && [ -n "$state$([ -e "$1/terraform.tfstate" ] && echo x)" ]; then
		printf '%s' "$state" | jq -e '.version == 4' >/dev/null || { echo "not whole: '$state'"; exit 1; }
		n=$((n + 1))
	fi
done
echo "$n reads"
END
if is_plain; then
	# an ordinary directory shows the state while it is empty
	reader=
else
	bash "$T/reader" "$B/$dir" "$T/stop" >"$T/reader.out" 2>&1 &
	reader=$!
	echo $reader >>"$T/pids"
fi

tf() {
	(cd "$A/$dir" && timeout 120 terraform "$@") >"$T/terraform.log" 2>&1 || fail "terraform $*: $(cat "$T/terraform.log")"
}

tf init -no-color
tf apply -no-color -auto-approve
[ "$(jq '.resources[0].instances | length' "$B/$dir/terraform.tfstate")" = 5 ] || fail "state after the first apply, on B"
first=$(jq .serial "$B/$dir/terraform.tfstate")
tf apply -no-color -auto-approve -var count_of=8
[ "$(jq '.resources[0].instances | length' "$B/$dir/terraform.tfstate")" = 8 ] || fail "state after the second apply, on B"
[ "$(jq .serial "$B/$dir/terraform.tfstate")" -gt "$first" ] || fail "the serial did not grow"
[ "$(jq '.resources[0].instances | length' "$B/$dir/terraform.tfstate.backup")" = 5 ] || fail "backup, on B"
[ ! -e "$B/$dir/.terraform.tfstate.lock.info" ] || fail "the lock's file stays"
cmp "$A/$dir/terraform.tfstate" "$B/$dir/terraform.tfstate"
tf plan -no-color -var count_of=8 -detailed-exitcode

say "a second one is refused while the state is locked, and told by whom"
if ! is_plain; then
	perl -e '
		use Fcntl qw(:DEFAULT :flock F_SETLK F_WRLCK SEEK_SET);
		open(my $f, "+<", $ARGV[0]) or die $!;
		my $l = pack("s s l! l! i", F_WRLCK, SEEK_SET, 0, 0, 0);
		fcntl($f, F_SETLK, $l) or die $!;
		open(my $r, ">", $ARGV[1]); close($r);
		while (! -e $ARGV[2]) { select(undef, undef, undef, 0.02) }' \
		"$A/$dir/terraform.tfstate" "$T/locked" "$T/unlock" &
	echo $! >>"$T/pids"
	holder=$!
	wait_for 10 test -e "$T/locked" || fail "no lock"
	if (cd "$A/$dir" && timeout 60 terraform apply -no-color -auto-approve -var count_of=3) >"$T/second.log" 2>&1; then
		fail "a second apply on A went through"
	fi
	grep -q "Error acquiring the state lock" "$T/second.log" || fail "unexpected: $(cat "$T/second.log")"
	if (cd "$B/$dir" && timeout 60 terraform apply -no-color -auto-approve -var count_of=3) >"$T/second.log" 2>&1; then
		fail "a second apply on B went through"
	fi
	touch "$T/unlock"
	wait "$holder" || true
fi
[ "$(jq '.resources[0].instances | length' "$B/$dir/terraform.tfstate")" = 8 ] || fail "the refused apply changed something"

tf destroy -no-color -auto-approve
[ "$(jq '.resources | length' "$B/$dir/terraform.tfstate")" = 0 ] || fail "state after destroy, on B"
touch "$T/stop"
if [ -n "$reader" ]; then
	wait "$reader" || fail "reader on B: $(cat "$T/reader.out")"
	say "reader on B: $(cat "$T/reader.out")"
	# providers' files are local to a mount
	[ ! -e "$B/$dir/.terraform/providers" ] || fail ".terraform is shared"
fi
umount_at "$A"
umount_at "$B"
check_store
