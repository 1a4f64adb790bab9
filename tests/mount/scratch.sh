#!/bin/bash
# SPDX-License-Identifier: MIT
# Scratch names are files like others in their mount, and nowhere else.
# shellcheck source=tests/lib/lib.sh
. "$(dirname "$0")/../lib/lib.sh"

need_mount
two_mounts
dir="state/definition 0"
mkdir -p "$A/$dir"
wait_for 10 test -d "$B/$dir" || fail "directory on B"

# in_store WORD: some key of the store has the word.
in_store() {
	"$(prog raw-key)" "$STORE" list '' >"$T/keys" || fail "the store can't be listed"
	grep -v '^blob/' "$T/keys" | grep -qF -- "$1"
}

names=("a.log" "x.swp" ".f.swo" "f~" ".#lock" "#auto#" "4913" "t.tmp" "ssh.out" "terraform.err")
for n in "${names[@]}"; do
	echo "local $n" >"$A/$dir/$n"
	[ "$(cat "$A/$dir/$n")" = "local $n" ] || fail "$n: contents"
	[ ! -e "$B/$dir/$n" ] || fail "$n is shared"
	find "$A/$dir" -mindepth 1 -printf '%f\n' | grep -qxF -- "$n" || fail "$n isn't listed"
done
[ -z "$(ls -A "$B/$dir")" ] || fail "on B: $(ls -A "$B/$dir")"
mkdir -p "$A/$dir/.terraform/providers/deep"
head -c 3000001 /dev/urandom >"$A/$dir/.terraform/providers/deep/plugin"
chmod 0755 "$A/$dir/.terraform/providers/deep/plugin"
ln -s deep "$A/$dir/.terraform/providers/link"
ln "$A/$dir/.terraform/providers/deep/plugin" "$A/$dir/.terraform/second"
cp "$A/$dir/.terraform/providers/link/plugin" "$T/plugin"
cmp "$T/plugin" "$A/$dir/.terraform/second"
[ "$(stat -c %h "$A/$dir/.terraform/second")" = 2 ] || fail "hard link in scratch"
[ ! -e "$B/$dir/.terraform" ] || fail ".terraform is shared"
in_store definition || fail "the directory is not in the store"
in_store a.log && fail "a.log is in the store"
in_store providers && fail ".terraform is in the store"

say "each mount has its own"
echo "on B" >"$B/$dir/a.log"
[ "$(cat "$A/$dir/a.log")" = "local a.log" ] || fail "scratch files of two mounts are one"

say "Terraform's lock information is shared"
echo '{}' >"$A/$dir/.terraform.tfstate.lock.info"
[ "$(cat "$B/$dir/.terraform.tfstate.lock.info")" = '{}' ] || fail "lock.info"
rm "$A/$dir/.terraform.tfstate.lock.info"

say "from scratch to a shared name: published, whole"
head -c 700001 /dev/urandom >"$A/$dir/state.tmp"
chmod 0640 "$A/$dir/state.tmp"
cp -a "$A/$dir/state.tmp" "$T/whole"
echo old >"$A/$dir/state.json"
[ "$(cat "$B/$dir/state.json")" = old ] || fail "old state on B"
mv "$A/$dir/state.tmp" "$A/$dir/state.json"
cmp "$T/whole" "$B/$dir/state.json" || fail "rename to a shared name, on B"
[ "$(stat -c '%a %Y' "$B/$dir/state.json")" = "$(stat -c '%a %Y' "$T/whole")" ] || fail "mode and time"
[ ! -e "$A/$dir/state.tmp" ] || fail "the scratch name stays"

say "from a shared name to scratch: the shared one goes"
mv "$A/$dir/state.json" "$A/$dir/state.json~"
cmp "$T/whole" "$A/$dir/state.json~" || fail "rename to scratch"
wait_for 10 test ! -e "$B/$dir/state.json" || fail "the shared name stays on B"
[ ! -e "$A/$dir/state.json" ] || fail "the shared name stays on A"
rm "$A/$dir/state.json~"

if setfattr -n user.try "$T/whole" 2>/dev/null; then
	say "extended attributes cross the border both ways"
	echo x >"$A/x.tmp"
	setfattr -n user.note -v here "$A/x.tmp"
	mv "$A/x.tmp" "$A/x"
	[ "$(getfattr --only-values -n user.note "$B/x" 2>/dev/null)" = here ] || fail "attribute lost on the way to a shared name"
	mv "$A/x" "$A/x~"
	[ "$(getfattr --only-values -n user.note "$A/x~" 2>/dev/null)" = here ] || fail "attribute lost on the way to scratch"
	rm "$A/x~"
fi

say "directories"
mkdir "$A/$dir/keep"
echo x >"$A/$dir/keep/only.log"
rmdir "$A/$dir/keep" 2>/dev/null && fail "rmdir of a directory that shows a file"
rm "$A/$dir/keep/only.log"
rmdir "$A/$dir/keep"
echo y >"$A/$dir/y.log"
mv "$A/$dir" "$A/state/moved"
[ "$(cat "$A/state/moved/y.log")" = y ] || fail "scratch files don't follow their directory"
rm -rf "$A/state"
[ -z "$(ls -A "$A")" ] || fail "rm -rf leaves $(ls -A "$A")"
umount_at "$B"

say "patterns of one's own"
umount_at "$A"
printf '%s\n' '# mine' '*.mine' '/top' '!keep.mine' >"$T/patterns"
mount_at "$A" "scratch=$T/patterns"
mount_at "$B" "scratch=$T/patterns"
echo 1 >"$A/a.mine"
echo 2 >"$A/keep.mine"
echo 3 >"$A/top"
mkdir "$A/d"
echo 4 >"$A/d/top"
echo 5 >"$A/x.log"
[ "$(cat "$B/keep.mine" "$B/d/top" "$B/x.log")" = "2
4
5" ] || fail "shared names with -o scratch"
[ ! -e "$B/a.mine" ] || fail "scratch names with -o scratch"
[ ! -e "$B/top" ] || fail "scratch names with -o scratch"
say ".icmfsignore in the tree"
echo '*.ign' >"$A/.icmfsignore"
[ "$(cat "$B/.icmfsignore")" = '*.ign' ] || fail ".icmfsignore on B"
n=0
# local_on A B: a new name of the kind isn't seen on the other mount; the
# patterns may take a moment.
local_on() {
	n=$((n + 1))
	echo "$n" >"$1/$n.ign"
	[ ! -e "$2/$n.ign" ]
}
wait_for 10 local_on "$A" "$B" || fail ".icmfsignore doesn't count on A"
wait_for 10 local_on "$B" "$A" || fail ".icmfsignore doesn't count on B"
umount_at "$A"
umount_at "$B"
check_store
