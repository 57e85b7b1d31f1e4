#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Check the litmus tests against the Linux kernel memory model.
#
# Usage: litmus.sh [TEST]...
#
# Runs the named tests, by default all of Documentation/litmus-tests, with herd7
# and the model of the packaged kernel source, and compares what herd7 observes
# with the "Result:" line of each test. A test NAME-WHAT-broken.litmus is a twin
# of NAME.litmus. It must differ from it by one line removed, replaced or moved
# (a critical section moves as a whole). Each test must have a twin.
#
# Prints TAP. Exit status: 1 if a test fails, 77 if herd7 or the source is
# unavailable.
set -uo pipefail

. "$(dirname "$0")/../testbed/lib.sh"
dir=$top/Documentation/litmus-tests
limit=60

skip() { echo "1..0 # SKIP $1"; exit 77; }

# get NAME SCRIPT [ARGUMENT]: set path to the output of a script of the testbed.
get() {
	local name=$1 ret
	shift

	path=$("$testbed/$1" "${@:2}")
	ret=$?
	[ $ret -ne 77 ] || skip "$name is unavailable"
	[ $ret -eq 0 ] || { echo "Bail out! $1 failed"; exit 1; }
}

# Print a test without the comment that it begins with.
code() {
	sed '1,/^ \*)$/d' "$dir/$1.litmus"
}

# Print the name of the test that a twin belongs to.
base() {
	local name=${1%-broken}

	while [ ! -e "$dir/$name.litmus" ] && [ "$name" != "${name%-*}" ]; do
		name=${name%-*}
	done
	echo "$name"
}

# Print the changes of a twin, as lines that begin with - and +.
changes() {
	diff <(code "$1") <(code "$2") |
		sed -n 's/^< */- /p; s/^> */+ /p' | tr -d '\t'
}

# Is this a single change? If not, print why.
single_change() {
	local removed added moved

	removed=$(sed -n 's/^- //p' <<<"$1" | sort)
	added=$(sed -n 's/^+ //p' <<<"$1" | sort)
	if [ -z "$1" ]; then
		echo "does not differ from the test that it is a twin of"
	elif [ "$removed" = "$added" ]; then
		moved=$(wc -l <<<"$removed")
		[ "$moved" -eq 1 ] || grep -q '^spin_unlock' <<<"$removed" ||
			echo "moves $moved lines"
	elif [ -z "$removed" ] || [ "$(wc -l <<<"$removed")" -ne 1 ] ||
	     [ "$(wc -l <<<"$added")" -ne 1 ]; then
		echo "differs by more than one line"
	fi
}

# Run a test. Set why to the reason if it fails, and observed.
judge() {
	local name=$1 file=$dir/$1.litmus expected out

	observed=
	expected=$(sed -n 's/^ \* Result: \([A-Za-z]*\)$/\1/p' "$file")
	case $name in
	*-broken) [ "$expected" = Sometimes ] ;;
	*) [ "$expected" = Never ] ;;
	esac || { why="expects the wrong result, '$expected'"; return; }
	[ "$(head -n 1 "$file")" = "C $name" ] || { why="misnamed"; return; }

	out=$(cd "$model" &&
	      timeout $limit "$herd" -conf linux-kernel.cfg "$file" 2>&1)
	observed=$(sed -n "s/^Observation $name //p" <<<"$out")
	if [ "${observed%% *}" != "$expected" ] ||
	   grep -Eq '^(Flag|Warning)' <<<"$out"; then
		why="expected $expected, herd7 says:"$'\n'$out
		observed=
	fi
}

# Judge a test, and check that it has a twin, or is a twin.
check() {
	local name=$1 diff=
	local why='' observed='' twin

	if [ ! -e "$dir/$name.litmus" ]; then
		why="no such test"
	else
		judge "$name"
	fi
	if [ -z "$why" ] && [[ $name = *-broken ]]; then
		diff=$(changes "$(base "$name")" "$name")
		why=$(single_change "$diff")
	elif [ -z "$why" ]; then
		why="has no twin"
		for twin in "$dir/$name"-*-broken.litmus; do
			twin=$(basename "$twin" .litmus)
			[ "$(base "$twin")" != "$name" ] || why=
		done
	fi

	count=$((count + 1))
	if [ -z "$why" ]; then
		echo "ok $count $name"
	else
		echo "not ok $count $name"
		failed=1
	fi
	printf '%s\n' "$why" "$observed" "$diff" | sed '/./!d; s/^/# /'
}

get "the source of Linux 6.12" kernel.sh source-6.12
model=$path/tools/memory-model
[ -e "$model/linux-kernel.cfg" ] || skip "the kernel source has no memory model"
get herd7 herd.sh
herd=$path

count=0
failed=0
if [ $# -eq 0 ]; then
	mapfile -t tests < <(find "$dir" -name '*.litmus' -printf '%f\n' |
		LC_ALL=C sort | sed 's/\.litmus$//')
	set -- "${tests[@]}"
fi
echo "TAP version 13"
echo "1..$#"
for name; do
	name=${name##*/}
	check "${name%.litmus}"
done
exit $failed
