#!/bin/bash
# SPDX-License-Identifier: MIT
# Puts Debian bullseye's Consul 1.8.7, the last release that Debian has, into a
# directory of its own. The machine's apt configuration is read (which mirror,
# which keys), never changed: own sources, lists and cache, then `download` and
# dpkg-deb -x. Does nothing, and asks no network, when it is there.
#
# usage: scripts/consul.sh [--consulfs] [DIRECTORY]
#   DIRECTORY     default: .deps/consul; the program is DIRECTORY/bin/consul
#   --consulfs    also the same suite's consulfs, which speed is compared with
set -euo pipefail

version=1.8.7
suite=bullseye
keys=/usr/share/keyrings/debian-archive-keyring.gpg
programs=(consul)
[ "${1-}" != --consulfs ] || { programs+=(consulfs) && shift; }
prefix=${1:-$(dirname "$0")/../.deps/consul}

die() {
	printf '%s: %s\n' "${0##*/}" "$1" >&2
	exit 1
}

there() {
	local says program
	for program in "${programs[@]}"; do
		[ -x "$prefix/bin/$program" ] || return 1
	done
	# not into a grep -q, which ends at the first line and makes the writer fail
	says=$("$prefix/bin/consul" version 2>/dev/null) &&
		[[ $says == "Consul v$version"* ]]
}

# The archive that this machine installs Debian from, in either style of sources.
mirror() {
	find /etc/apt/sources.list /etc/apt/sources.list.d -type f \
		\( -name '*.sources' -o -name '*.list' \) -exec cat {} + 2>/dev/null |
		awk '/^URIs:/ { print $2 }
			/^deb / { for (i = 2; i <= NF; i++) if ($i ~ /:\/\//) { print $i; break } }' |
		grep '/debian/*$' | head -n 1
}

# Runs apt-get on sources, lists and a cache in $work alone.
apt_get() {
	apt-get -q -o Dir::Etc::sourcelist="$work/sources.list" -o Dir::Etc::sourceparts="$work/parts" \
		-o Dir::Etc::preferences=/dev/null -o Dir::Etc::preferencesparts="$work/parts" \
		-o Dir::State::Lists="$work/lists" -o Dir::Cache="$work/cache" \
		-o Acquire::Languages=none -o Acquire::Retries=3 -o APT::Sandbox::User=root "$@"
}

fetch() {
	local from program
	from=$(mirror)
	[ -n "$from" ] || die 'the apt configuration names no Debian archive'
	[ -f "$keys" ] || die "$keys is missing (package debian-archive-keyring)"
	mkdir -p "$work/lists/partial" "$work/cache/archives/partial" "$work/parts" "$work/root"
	printf 'deb [arch=%s signed-by=%s] %s %s main\n' "$(dpkg --print-architecture)" "$keys" "$from" \
		"$suite" >"$work/sources.list"
	apt_get update
	(cd "$work" && apt_get download "${programs[@]}")
	for program in "${programs[@]}"; do
		dpkg-deb -x "$work/$program"_*.deb "$work/root"
	done
}

there && exit 0
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fetch >"$work/log" 2>&1 || {
	cat "$work/log" >&2
	die "Consul $version could not be had (${programs[*]})"
}
mkdir -p "$prefix/bin"
# In one step: another run may be doing the same, or using it.
for program in "${programs[@]}"; do
	install -m 755 "$work/root/usr/bin/$program" "$prefix/bin/.$program.$$"
	mv -f "$prefix/bin/.$program.$$" "$prefix/bin/$program"
done
there || die "what was installed is not Consul $version"
printf 'installed: Consul %s in %s\n' "$version" "$prefix"
