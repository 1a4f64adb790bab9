#!/bin/bash
# SPDX-License-Identifier: MIT
# Terraform in "state/definition 0" on A with its built-in provider; on B the
# state is readable JSON throughout. Then on A and B at once: one is refused and
# told who holds the state, or waits.
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
# as long as somebody says so
resource "terraform_data" "wait" {
  count            = var.wait_for == "" ? 0 : 1
  triggers_replace = timestamp()
  provisioner "local-exec" {
    command = "touch '${var.wait_for}.begun'; for i in $(seq 1200); do [ ! -e '${var.wait_for}' ] || exit 0; sleep 0.05; done; exit 1"
  }
}
variable "wait_for" { default = "" }
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

# nodes STATE: how many it has
nodes() { jq '[.resources[] | select(.name == "node").instances[]] | length' "$1"; }

tf init -no-color
tf apply -no-color -auto-approve
[ "$(nodes "$B/$dir/terraform.tfstate")" = 5 ] || fail "state after the first apply, on B"
first=$(jq .serial "$B/$dir/terraform.tfstate")
tf apply -no-color -auto-approve -var count_of=8
[ "$(nodes "$B/$dir/terraform.tfstate")" = 8 ] || fail "state after the second apply, on B"
[ "$(jq .serial "$B/$dir/terraform.tfstate")" -gt "$first" ] || fail "the serial did not grow"
[ "$(nodes "$B/$dir/terraform.tfstate.backup")" = 5 ] || fail "backup, on B"
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
[ "$(nodes "$B/$dir/terraform.tfstate")" = 8 ] || fail "the refused apply changed something"

say "on A and B at once"
if ! is_plain; then
	at() { # DIR LOG ARGUMENT...: an apply there
		local where=$1 log=$2
		shift 2
		(cd "$where/$dir" && timeout 120 terraform apply -no-color -auto-approve -var count_of=8 "$@") >"$log" 2>&1
	}
	# providers' files are local to a mount
	[ ! -e "$B/$dir/.terraform/providers" ] || fail ".terraform is shared"
	(cd "$B/$dir" && timeout 120 terraform init -no-color) >"$T/terraform.log" 2>&1 ||
		fail "init on B: $(cat "$T/terraform.log")"
	at "$A" "$T/on-a.log" -var "wait_for=$T/go" &
	on_a=$!
	wait_for 60 test -e "$T/go.begun" || fail "A's apply doesn't begin: $(cat "$T/on-a.log")"
	id=$(jq -r .ID "$A/$dir/.terraform.tfstate.lock.info")
	at "$B" "$T/on-b.log" && fail "two at once"
	{ grep -q "Error acquiring the state lock" "$T/on-b.log" && grep -qF "$id" "$T/on-b.log"; } ||
		fail "B isn't told who holds the state ($id): $(cat "$T/on-b.log")"
	at "$B" "$T/waits.log" -lock-timeout=100s &
	on_b=$!
	kill -0 "$on_b" 2>/dev/null || fail "B doesn't wait: $(cat "$T/waits.log")"
	touch "$T/go"
	wait "$on_a" || fail "A's apply: $(cat "$T/on-a.log")"
	wait "$on_b" || fail "B's apply, which waited: $(cat "$T/waits.log")"
	[ "$(jq '[.resources[].instances[]] | length' "$A/$dir/terraform.tfstate")" = 8 ] || fail "state after both"
	cmp "$A/$dir/terraform.tfstate" "$B/$dir/terraform.tfstate" || fail "the mounts have two states"
fi

tf destroy -no-color -auto-approve
[ "$(jq '.resources | length' "$B/$dir/terraform.tfstate")" = 0 ] || fail "state after destroy, on B"
touch "$T/stop"
if [ -n "$reader" ]; then
	wait "$reader" || fail "reader on B: $(cat "$T/reader.out")"
	say "reader on B: $(cat "$T/reader.out")"
fi
umount_at "$A"
umount_at "$B"
check_store
