#!/bin/bash
# SPDX-License-Identifier: MIT
# import: round trips of a tree with odd names and kinds, into a store and into a mount.
# shellcheck source-path=SCRIPTDIR source=lib.sh
. "$(dirname "$0")/lib.sh"

make_tree() {
	mkdir -p src/'with blank'/$'new\nline'/deep src/empty src/.hidden
	printf 'plain' >src/plain
	: >src/nothing
	printf 'a' >src/'with blank'/$'new\nline'/deep/x
	printf 'b' >src/$'invalid \xff\xfe utf-8'
	printf 'c' >src/"quote'\"\\back"
	printf 'd' >src/'%41 percent'
	printf 'e' >src/.hidden/.dot
	printf 'f' >"src/$(printf '%0255d' 1)"
	head -c 262144 /dev/urandom >src/plain-max
	head -c 262145 /dev/urandom >src/smallest-record
	head -c 3000001 /dev/urandom >src/large
	truncate -s 40M src/sparse
	printf 'data' | dd of=src/sparse bs=1 seek=9000000 conv=notrunc status=none
	ln -s plain src/symlink
	ln -s "$(printf '%04000d' 1)" src/long-target
	ln -s /nowhere src/dangling
	ln src/plain src/hard
	ln src/plain src/.hidden/hard
	ln src/large src/large-hard
	mkfifo src/fifo
	setfattr -n user.note -v 'a value' src/plain
	setfattr -n user.binary -v 0x00ff00 src/empty
	chmod 640 src/plain-max
	chmod 4755 src/large
	chmod 1777 src/empty
	if [ "$(id -u)" -eq 0 ]; then
		chown 1234:4321 src/nothing
		chown -h 1234:4321 src/symlink
		mknod src/device c 1 3
	fi
	find src -depth -exec touch -h -d '2019-03-04 05:06:07.123456789' {} +
	touch -d '2021-01-01 00:00:00.000000001' src/plain
}

# Everything that import promises to keep, one line for each name.
facts() {
	(
		cd "$1"
		# the size of a directory, and that of the names in it, mean nothing
		find . -type d -printf '%p|%m|%U:%G|%T@\0' -o \
			-printf '%p|%y|%m|%U:%G|%T@|%n|%l|%s\0' | LC_ALL=C sort -z | tr '\0\n' '\n?'
		find . -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum
		find . -type f -o -type d | LC_ALL=C sort | xargs -d '\n' getfattr -dm '^user\.' -e hex 2>/dev/null || true
		# which names are one file
		find . -type f -links +1 -printf '%i %p\n' | LC_ALL=C sort -k 2 |
			awk '{ if (!($1 in n)) n[$1] = ++c; $1 = n[$1]; print }'
	)
}

same() {
	facts "$1" >facts-a
	facts "$2" >facts-b
	diff facts-a facts-b >facts-diff || complain "$1 and $2 differ: $(cat facts-diff)"
}

make_tree
run 0 "$icmfs" import src a.icmfs
printed_like 'imported * files, * directories, * others; *'
run 0 "$icmfs" check a.icmfs
printed_like '*: no problems'

# What is there already is refused, and left alone; nothing changes when nothing differs.
run 1 "$icmfs" import src a.icmfs
refused "a.icmfs is not empty (use --merge or --replace)"
run 0 "$icmfs" import --merge src a.icmfs
printed_like 'imported 0 files, 0 directories, 0 others; 0 bytes; * unchanged'
run 0 "$icmfs" import --replace -q src a.icmfs
printed ''

# A dry run tells and does nothing.
run 0 "$icmfs" import --dry-run src none.icmfs
printed_like $'create .\n*create with blank/new\\\\nline/deep/x\n*would import *'
[ ! -e none.icmfs ] || complain "a dry run made a store"

# Merge keeps, replace removes.
mkdir other
printf 'changed' >other/plain
printf 'new' >other/added
run 0 "$icmfs" import --merge other a.icmfs
printed_like 'imported 2 files, *'
run 0 "$icmfs" import -n --replace src a.icmfs
printed_like $'*remove added\n*'
run 0 "$icmfs" import --replace src a.icmfs
printed_like 'imported *removed*'
mkdir conflict
mkdir conflict/plain
run 1 "$icmfs" import --merge conflict a.icmfs
[ "$err" = "icmfs: plain: the destination has a file of this name" ] || complain "stderr: $err"

# Names that stay on local disk don't go into a store.
mkdir -p scratchy/.terraform/deep
printf 'x' >scratchy/.terraform/deep/provider
printf 'x' >scratchy/icm.log
printf 'x' >scratchy/kept
run 0 "$icmfs" import scratchy b.icmfs
printed_like 'imported 1 file, *; 2 scratch left out'

# Refused.
run 1 "$icmfs" import missing c.icmfs
refused "missing: No such file or directory"
run 1 "$icmfs" import src/plain c.icmfs
refused "src/plain: Not a directory"
run 1 "$icmfs" import src src/c.icmfs
refused "src/c.icmfs: the store must not lie in the directory that is imported"
mkdir elsewhere
run 1 "$icmfs" import other elsewhere
refused "elsewhere is neither a store nor a directory in a mount of icmfs"
run 1 "$icmfs" import other nothing-there
refused_like '*nothing-there*'
mkdir reserved
mkdir reserved/.icmfs
run 1 "$icmfs" import reserved d.icmfs
[ "$err" = "icmfs: .icmfs: this name is reserved" ] || complain "stderr: $err"
[ ! -e src/c.icmfs ] || complain "a refused import made a store"

need_fuse
mkdir mnt
run 0 "$icmfs" import -q src e.icmfs
run 0 "$icmfs" mount e.icmfs mnt
same src mnt
run 0 "$icmfs" import other mnt/empty/.
run 1 "$icmfs" import other mnt/empty
refused "mnt/empty is not empty (use --merge or --replace)"
cmp other/plain mnt/empty/plain || complain "import into a mount"
mkdir mnt/copy
run 0 "$icmfs" import -q src mnt/copy
printed ''
same src mnt/copy
run 1 "$icmfs" import mnt mnt/copy
refused "mnt and mnt/copy overlap"
run 0 "$icmfs" umount mnt
finish
