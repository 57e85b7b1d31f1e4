# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0
# What root.sh and boot.sh share: they source this file.
count=0
failed=0
out=$(mktemp)	# of the last command

# check NAME COMMAND...: print a line of TAP: does the command succeed?
check()
{
	local ret

	"${@:2}" >"$out" 2>&1 </dev/null
	ret=$?
	count=$((count + 1))
	if [ $ret -eq 0 ]; then
		echo "ok $count $1"
	else
		tail -n 40 "$out" | sed 's/^/# /'
		echo "not ok $count $1"
		# shellcheck disable=SC2034	# the scripts exit with it
		failed=1
	fi
}

# same EXPECTED GOT: compare lists.
same() { diff <(echo "$1") <(echo "$2"); }
