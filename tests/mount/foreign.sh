#!/bin/bash
# SPDX-License-Identifier: MIT
# Another program writes and deletes keys below tree/: a mount of a store that has
# nothing else, and two mounts that are there already.
# shellcheck source=tests/lib/lib.sh
. "$(dirname "$0")/../lib/lib.sh"

is_plain && skip "a plain directory has no keys"
raw() { "$(prog raw-key)" "$STORE" "$@"; }
reads() { [ "$(cat "$1")" = "$2" ]; }
# New names: at once where a look-up finds them, else when the watch has told.
soon() { if [ "$KIND" = sqlite ]; then "$@"; else wait_for 20 "$@" 2>/dev/null; fi; }

mkdir -p "$T/store"
"store_$KIND"
raw put tree/definitions.json '{}'
raw put tree/states/deep/a.tfstate secret
mount_at "$A"
mount_at "$B"
reads "$A/definitions.json" '{}' || fail "contents of a foreign file"
[ "$(find "$A" -mindepth 1 -maxdepth 1 -printf '%f\n' | sort | tr '\n' ' ')" = "definitions.json states " ] || fail "the listing of a foreign tree"
[ "$(stat -c '%a %s' "$A/states/deep/a.tfstate")" = "600 6" ] || fail "mode and size"
[ "$(stat -c %a "$A/states/deep")" = 700 ] || fail "mode of an implied directory"
same_at_once "$A" "$B"

say "a put on a file that both have read"
reads "$B/states/deep/a.tfstate" secret || fail "contents in the second mount"
raw put tree/states/deep/a.tfstate "a longer secret"
for m in "$A" "$B"; do
	reads "$m/states/deep/a.tfstate" "a longer secret" || fail "$m: old contents"
	[ "$(stat -c %s "$m/states/deep/a.tfstate")" = 15 ] || fail "$m: old size"
done
echo ours >"$B/states/deep/a.tfstate"
reads "$A/states/deep/a.tfstate" ours || fail "a write after it"
[ "$(raw get tree/states/deep/a.tfstate)" = ours ] || fail "the value is not the file"

say "new names, and names that go"
raw put tree/new/one 1
for m in "$A" "$B"; do
	soon reads "$m/new/one" 1 || fail "$m: a new file"
done
raw delete tree/new/one
for m in "$A" "$B"; do
	not cat "$m/new/one" 2>/dev/null || fail "$m: a deleted file is read"
	not stat "$m/new/one" 2>/dev/null || fail "$m: a deleted file is there"
done

say "a commit on the version before"
echo base >"$A/f"
python3 - "$A/f" "$(prog raw-key)" "$STORE" <<'END' || fail "fsync on a foreign version"
import errno, os, subprocess, sys
path, raw, store = sys.argv[1:]
fd = os.open(path, os.O_RDWR)
os.write(fd, b"mine")
subprocess.run([raw, store, "put", "tree/f", "theirs"], check=True)
try:
    os.fsync(fd)
    sys.exit("fsync replaced a foreign version")
except OSError as e:
    sys.exit(None if e.errno == errno.ESTALE else str(e))
END
for m in "$A" "$B"; do
	reads "$m/f" theirs || fail "$m: the foreign version was replaced"
done
grep -q mine "$B"/f.conflict-* || fail "no conflict copy"

say "what is no file"
raw put tree/garbage "no record" 1
soon [ -e "$A/garbage" ] || fail "garbage isn't listed"
not cat "$A/garbage" 2>"$T/error" || fail "garbage is read"
grep -q "Input/output error" "$T/error" || fail "garbage gives: $(cat "$T/error")"
reads "$A/f" theirs || fail "another file beside garbage"
rm "$A/garbage"

umount_at "$A"
umount_at "$B"
check_store
