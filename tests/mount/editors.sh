#!/bin/bash
# SPDX-License-Identifier: MIT
# Editors on A; B has each result at once after the program ended.
# shellcheck source=tests/lib/lib.sh
. "$(dirname "$0")/../lib/lib.sh"

need vim sed jq ed perl
two_mounts

# expect TEXT: definitions.json on B, at once; then nothing but it on both.
expect() {
	local got
	got=$(cat "$B/definitions.json")
	[ "$got" = "$1" ] || fail "$what: B has '$got', expected '$1'"
	got=$(cat "$A/definitions.json")
	[ "$got" = "$1" ] || fail "$what: A has '$got', expected '$1'"
	same_at_once "$A" "$B"
}

what="shell redirection"
echo '{ "Role": "DM", "Count": "1" }' >"$A/definitions.json"
expect '{ "Role": "DM", "Count": "1" }'
chmod 0640 "$A/definitions.json"

for backup in no yes auto; do
	what="vim, backupcopy=$backup"
	vim -es -u NONE -i NONE -c "set backupcopy=$backup backup writebackup" -c '%s/DM/DATA/' -c 'wq' \
		"$A/definitions.json" </dev/null
	expect '{ "Role": "DATA", "Count": "1" }'
	[ "$(stat -c %a "$B/definitions.json")" = 640 ] || fail "$what: mode"
	vim -es -u NONE -i NONE -c "set backupcopy=$backup nobackup fsync" -c '%s/DATA/DM/' -c 'x' \
		"$A/definitions.json" </dev/null
	expect '{ "Role": "DM", "Count": "1" }'
	rm -f "$A"/*~
done

what="vim with a swap file and undo file"
vim -es -u NONE -i NONE -c "set directory=. swapfile undofile undodir=." -c '%s/1/2/' -c 'wq' \
	"$A/definitions.json" </dev/null
expect '{ "Role": "DM", "Count": "2" }'
rm -f "$A"/.*.un~

what="sed -i"
sed -i 's/"2"/"3"/' "$A/definitions.json"
expect '{ "Role": "DM", "Count": "3" }'
sed -i.bak 's/"3"/"4"/' "$A/definitions.json"
expect '{ "Role": "DM", "Count": "4" }'
[ "$(cat "$B/definitions.json.bak")" = '{ "Role": "DM", "Count": "3" }' ] || fail "$what: backup"
rm "$A/definitions.json.bak"

what="perl -pi"
perl -pi -e 's/4/5/' "$A/definitions.json"
expect '{ "Role": "DM", "Count": "5" }'

what="truncate and write, as nano does"
perl -e '
	use Fcntl; use IO::Handle;
	sysopen(my $f, $ARGV[0], O_WRONLY | O_CREAT | O_TRUNC, 0666) or die;
	print $f "{ \"Role\": \"DM\", "; $f->flush; print $f "\"Count\": \"6\" }\n"; $f->flush; $f->sync or die;
	close($f) or die;' "$A/definitions.json"
expect '{ "Role": "DM", "Count": "6" }'

what="jq > t && mv"
jq -c '.Count = "7"' "$A/definitions.json" >"$A/t" && mv "$A/t" "$A/definitions.json"
expect '{"Role":"DM","Count":"7"}'

what="ed"
printf '%s\n' '1s/7/8/' w q | ed -s "$A/definitions.json"
expect '{"Role":"DM","Count":"8"}'

what="ed, longer and shorter"
printf '%s\n' "\$a" 'two' 'three' . w q | ed -s "$A/definitions.json"
expect '{"Role":"DM","Count":"8"}
two
three'
printf '%s\n' '2,3d' w q | ed -s "$A/definitions.json"
expect '{"Role":"DM","Count":"8"}'

what="append by the shell"
echo more >>"$A/definitions.json"
expect '{"Role":"DM","Count":"8"}
more'

what="emacs' way: link as a lock, backup by rename, write anew"
ln -s "somebody@somewhere.1:2" "$A/.#definitions.json"
mv "$A/definitions.json" "$A/definitions.json~"
echo '{}' >"$A/definitions.json"
rm "$A/.#definitions.json"
expect '{}'
rm -f "$A/definitions.json~"

what="tee, dd, truncate"
echo one | tee "$A/definitions.json" >/dev/null
expect one
printf 'XY' | dd of="$A/definitions.json" bs=1 seek=1 conv=notrunc status=none
expect oXY
truncate -s 2 "$A/definitions.json"
expect oX

what="an edit on B is seen on A"
sed -i 's/X/Z/' "$B/definitions.json"
expect oZ

what="a group of commands in one redirection"
{ echo a; /bin/echo b; echo c; } >"$A/definitions.json"
expect 'a
b
c'
umount_at "$A"
umount_at "$B"
check_store
