#!/bin/bash
# SPDX-License-Identifier: MIT
# Every option of --help is in the manual and the other way round; the manuals
# are well-formed.
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "$0")/lib.sh"

manual=$source_dir/docs/man/icmfs.1
helper=$source_dir/docs/man/mount.icmfs.8
command -v man >/dev/null || skip "man is missing"

# Option names of a help text, one a line: "--name", "-n".
of_help() {
	sed -n '/^options:/,/^$/p' | grep -oE '^  (-[a-zA-Z])?,? +(--[a-z-]+)?' | grep -oE -- '--?[a-zA-Z-]+' |
		sort
}

# The same from lines ".It Fl n , Fl -dry-run" of a part of a manual.
of_manual() {
	grep -E '^\.It Fl' | grep -oE 'Fl -?[a-zA-Z-]+' | sed 's/^Fl /-/' | sort
}

compare() {
	[ "$1" = "$2" ] || complain "$3: help and manual differ: $(diff <(echo "$1") <(echo "$2"))"
}

common=$(sed -n '/^\.Ss All commands/,/^\.Ss icmfs/p' "$manual" | of_manual)
for command in mount umount status init import recover check; do
	run 0 "$icmfs" "$command" --help
	documented=$(sed -n "/^\.Ss icmfs $command\$/,/^\.S[sh]/p" "$manual" | of_manual)
	compare "$(of_help <<<"$out")" "$(sort <<<"$common"$'\n'"$documented" | sed '/^$/d')" "$command"
	grep -q "^\.It Cm $command\$" "$manual" || complain "$command is not described"
done

# Mount options: "  name=ARG   text" in the help, ".It Cm name" in the manual.
run 0 "$icmfs" mount --help
compare "$(sed -n '/^mount options:/,/^$/p' <<<"$out" | grep -oE '^  [a-z_]+' | tr -d ' ' | sort)" \
	"$(sed -n '/^\.Ss Mount options/,/^\.S[sh]/p' "$manual" | grep -oE '^\.It Cm [a-z_]+' | sed 's/.* //' | sort)" \
	"mount options"

# mount.icmfs, by the name of the program.
ln -s "$icmfs" mount.icmfs
run 0 ./mount.icmfs --help
compare "$(of_help <<<"$out")" "$(sed -n '/^\.Sh OPTIONS/,/^\.Sh EXIT/p' "$helper" | of_manual)" mount.icmfs

for page in "$manual" "$helper"; do
	problems=$(man --warnings -E UTF-8 -l -Tutf8 -Z "$page" 2>&1 >/dev/null)
	[ -z "$problems" ] || complain "$page: $problems"
done
order=$(grep -oE '^\.Sh [A-Z ]+' "$manual" | cut -c 5- | tr '\n' ',')
[ "$order" = 'NAME,SYNOPSIS,DESCRIPTION,OPTIONS,EXIT STATUS,FILES,ENVIRONMENT,EXAMPLES,LIMITS,SEE ALSO,' ] ||
	complain "order of sections: $order"
finish
