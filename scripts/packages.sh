#!/bin/bash
# SPDX-License-Identifier: MIT
# Installs the Debian packages that a group of work needs; asks the network only
# for those that are missing. Works as root and with sudo.
#
# usage: scripts/packages.sh [--list|--missing] GROUP...      groups: build, test
set -euo pipefail

# group, package, what it is for
table() {
	cat <<'END'
build  gcc                C compiler
build  libc6-dev          C library headers
build  meson              build system
build  ninja-build        runs what meson describes
build  pkg-config         finds the libraries
build  libfuse3-dev       FUSE, low-level API
build  fuse3              fusermount3, for mounts by ordinary users
build  libjansson-dev     JSON
build  libcurl4-openssl-dev  HTTP and TLS to Consul
build  libssl-dev         SHA-256 and random numbers (libcrypto)
build  libsqlite3-dev     the embedded store
test   libcriterion-dev   unit test framework
test   clang              second compiler, fuzz targets
test   libclang-rt-14-dev sanitizer runtimes of clang
test   clang-format       formatting of C
test   shellcheck         checks of shell scripts
test   man-db             checks of the manual pages
test   sqlite3            damages stores, works inside a mount
test   jq                 JSON in tests, works inside a mount
test   curl               asks test servers of Consul
test   debian-archive-keyring  verifies the package of Consul
test   rsync              works inside a mount
test   git                works inside a mount
test   ed                 works inside a mount
test   vim                works inside a mount
test   attr               getfattr, setfattr
test   acl                getfacl: access lists are refused
test   bindfs             what speed is compared with
test   inotify-tools      watchers see remote changes
test   strace             records what a power cut would leave on the disk
test   perl-base          programs of a few lines in tests
test   entr               runs a command when a file changes, remotely too
test   iproute2           hosts of a test and the links between them
test   procps             pgrep, ps: nothing is left behind
END
}

die() {
	printf '%s: %s\n' "${0##*/}" "$1" >&2
	exit 1
}

# Packages of the groups, one a line.
packages() {
	local group
	for group; do
		case $group in
		build | test) ;;
		*) die "unknown group '$group'" ;;
		esac
		table | awk -v group="$group" '$1 == group { print $2 }'
	done
}

missing() {
	local package
	packages "$@" | while read -r package; do
		# shellcheck disable=SC2016 # ${…} is dpkg-query's own
		case $(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null || true) in
		installed) ;;
		*) printf '%s\n' "$package" ;;
		esac
	done
}

install_missing() {
	local list as_root=() log
	command -v dpkg-query >/dev/null ||
		die "this system has no dpkg; the packages are listed by '$0 --list $*'"
	mapfile -t list < <(missing "$@")
	[ "${#list[@]}" -gt 0 ] || return 0
	if [ "$(id -u)" -ne 0 ]; then
		command -v sudo >/dev/null || die "needs root to install: ${list[*]}"
		as_root=(sudo)
	fi
	printf 'installing: %s\n' "${list[*]}"
	as_root+=(env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=300)
	log=$(mktemp)
	# Its chatter matters only when it fails.
	if ! "${as_root[@]}" update >"$log" 2>&1 ||
		! "${as_root[@]}" -y --no-install-recommends install "${list[@]}" >>"$log" 2>&1; then
		cat "$log" >&2
		rm -f "$log"
		die "apt-get could not install: ${list[*]}"
	fi
	rm -f "$log"
}

case ${1-} in
--list) shift && packages "$@" ;;
--missing) shift && missing "$@" ;;
'' | -*) die "usage: ${0##*/} [--list|--missing] build|test..." ;;
*) install_missing "$@" ;;
esac
