#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Check that no object of the module needs a symbol of a higher layer: part of
# "make lint".
#
# Usage: lint-layers.sh DIR
#
# DIR holds the objects, and the Kbuild file that lists them in doorbell-y.
set -uo pipefail

# An object may only use objects of a higher number.
declare -A layer=([chardev]=1 [kvm]=2 [region]=3 [buffer]=4 [geometry]=4
	[trace]=5)

. "$(dirname "$0")/../testbed/lib.sh"
me="lint: layers"
cd "${1:?the directory of the objects}" || exit 1
export LC_ALL=C

# symbols OBJECT NM-OPTION...
symbols() {
	local names

	names=$(nm -P "${@:2}" "$1.o") || return 1
	cut -d ' ' -f 1 <<<"$names" | sort
}

# Kbuild is a makefile: let make join its lines.
# shellcheck disable=SC2016	# make expands it
mapfile -t objects < <(
	printf 'include Kbuild\nlist:;@echo $(doorbell-y:.o=)\n' |
		env -u MAKEFLAGS make -s -f - list | tr ' ' '\n'
)
if [ -z "${objects[*]}" ]; then
	fail "Kbuild lists no objects"
	exit 1
fi

declare -A needed defined
for object in "${objects[@]}"; do
	[ -n "${layer[$object]-}" ] ||
		fail "$object.o has no layer in tools/test/lint-layers.sh"
	if ! needed[$object]=$(symbols "$object" --undefined-only) ||
	   ! defined[$object]=$(symbols "$object" --defined-only --extern-only)
	then
		fail "cannot read $object.o"
	fi
done
[ $failed -eq 0 ] || exit 1

for object in "${objects[@]}"; do
	for other in "${objects[@]}"; do
		if [ "$other" = "$object" ] ||
		   [ "${layer[$other]}" -gt "${layer[$object]}" ]; then
			continue
		fi
		used=$(comm -12 <(echo "${needed[$object]}") \
			<(echo "${defined[$other]}") | sed '/^$/d')
		[ -z "$used" ] ||
			fail "$object.o needs ${used//$'\n'/, } of $other.o"
	done
done
exit $failed
