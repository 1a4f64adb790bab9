#!/bin/bash
# SPDX-License-Identifier: MIT
# Help, version and refused arguments of all commands.
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "$0")/lib.sh"

run 0 "$icmfs" --version
printed_like 'icmfs [0-9]*.[0-9]*.[0-9]*'
run 0 "$icmfs" --help
printed_like 'usage: icmfs COMMAND*mount *umount *status *init *import *check *sqlite *'
run 0 "$icmfs" -h
for command in mount umount status init import check; do
	run 0 "$icmfs" "$command" --help
	printed_like "usage: icmfs $command *--help *--version *"
	run 0 "$icmfs" "$command" -h
	run 0 "$icmfs" "$command" --version
	printed_like 'icmfs [0-9]*'
	run 2 "$icmfs" "$command" --no-such-option
	refused "unknown option '--no-such-option' (see icmfs $command --help)"
	run 2 "$icmfs" "$command" -Z
	refused "unknown option '-Z' (see icmfs $command --help)"
	run 2 "$icmfs" "$command" a b c d
	refused_like "one argument too many: '?' (see icmfs $command --help)"
done
for command in mount umount init import check; do
	run 2 "$icmfs" "$command"
	refused_like "too few arguments, need: * (see icmfs $command --help)"
done

run 2 "$icmfs"
refused "no command given (see icmfs --help)"
run 2 "$icmfs" frobnicate
refused "unknown command 'frobnicate' (see icmfs --help)"
run 2 "$icmfs" --frobnicate
refused "unknown option '--frobnicate' (see icmfs --help)"
run 2 "$icmfs" $'with\nnewline'
refused "unknown command 'with\\nnewline' (see icmfs --help)"
run 2 "$icmfs" init s.icmfs --name
refused "option '--name' needs a value (see icmfs init --help)"
run 2 "$icmfs" check --json=yes s.icmfs
refused "option '--json' takes no value (see icmfs check --help)"
run 2 "$icmfs" import --merge --replace a b
refused "--merge and --replace exclude each other (see icmfs import --help)"
run 2 "$icmfs" mount s.icmfs m -o
refused "option '-o' needs a value (see icmfs mount --help)"

# "--" ends options.
run 3 "$icmfs" check -- --json.icmfs
refused_like '*--json.icmfs*'

# Output that can't be written is a failure.
if [ -c /dev/full ]; then
	# shellcheck disable=SC2016 # $1 is the inner shell's
	run 1 bash -c '"$1" --help >/dev/full' - "$icmfs"
	refused_like 'cannot write to standard output: *'
fi
finish
