#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Check what can be checked without a compiler: part of "make lint".
#
# Usage: lint-text.sh [CHECKOUT]
#
# Checks the license line of each file, whether scripts can be executed, the
# width of lines in documents, litmus tests, scripts and makefiles, and retired
# words. checkpatch checks the width of C.
set -uo pipefail

. "$(dirname "$0")/../testbed/lib.sh"
me=lint
cd "${1:-$top}" || exit 1

# Words that the project no longer uses, as extended regular expressions: text
# with one of them describes code that no longer exists, or is not for readers.
retired=(
	'struct doorbell_(queue|vm)\b'
	'\bdoorbell_queue_(arm|bad|count|destroy|init|lap|pass|peek|place)\b'
	'\bdoorbell_queue_(readable|ring|ring_offset|tag|take|writable)\b'
	'doorbell_rung|DOORBELL_(RUNG|FULL)|doorbell_state\('
	'ring_offset|shared_size|nr_left|write_at\b'
	'u32 places;|->(gone|places|tag)\b'
	'\b(slot|fifo|entry)_(ring|peek|pass|push|pop)\b'
	'\b(queue\.[ch]|ring\.h)\b'
	'(queue|kvm|geometry|chardev)_test\b|[a-z]_test\.c\b|tools/vm\b'
	'\(promise [0-9]|\bRACE\(|geo(->|\.)by_value|vmm_op_done'
	'doorbell_buffer_told|(->|\.|\*)told\b'
	'\b([Ss]ome|[Ee]very|[Nn]o)body (else|[a-z]+s)\b|\b[Ww]hoever\b'
)

spdx() {
	local file

	while IFS= read -r file; do
		case $file in
		COPYING | *.gitignore) continue ;;
		debian/changelog | debian/copyright | *.dkms | debian/source/*)
			continue ;;
		esac
		[ ! -s "$file" ] ||
			head -n 3 "$file" | grep -q SPDX-License-Identifier ||
			fail "$file: no SPDX line"
	done < <(git ls-files)
}

# debhelper makes those of packages executable.
modes()
{
	local file

	while IFS= read -r file; do
		[ -x "$file" ] || fail "$file: not executable"
	done < <(git grep --untracked -lI '^#!' -- ':!debian/' |
		xargs -d '\n' awk 'FNR == 1 && /^#!/ { print FILENAME }')
}

# Print the lines of a file that are longer than 80 columns. URLs, rows of
# Markdown tables, and output that a document quotes (```text) cannot be broken.
long_lines() {
	expand "$1" | LC_ALL=C awk -v file="$1" '
	file ~ /\.md$/ && /^ *```/ {
		text = !fence && /```text$/
		fence = !fence
	}
	text || file ~ /\.md$/ && /^\|/ { next }
	{
		line = $0
		gsub(/https?:\/\/[^ )>`]+/, "", line)
		gsub(/[\200-\277]/, "", line)	# one column per character
	}
	length(line) > 80 {
		print file ":" NR ": more than 80 columns"
		long = 1
	}
	END { exit long }'
}

columns() {
	local file

	while IFS= read -r file; do
		[ ! -f "$file" ] || long_lines "$file" >&2 || failed=1
	done < <(
		git ls-files -co --exclude-standard '*.rst' '*.md' '*.litmus' \
			'*.py' '*.mk' '*.lds' '*.cc' '*.dot' '*.css' \
			'*Makefile' '*Kbuild' '*Kconfig' \
			'Documentation/*/README'
		shell_scripts
	)
}

words() {
	local regex
	regex=$(IFS='|' && echo "${retired[*]}")

	git grep --untracked -nIE "$regex" -- ':!tools/test/lint-text.sh' >&2
	[ $? -eq 1 ] || fail "retired words"
	! git ls-files -co --exclude-standard | grep -E "$regex" >&2 ||
		fail "retired file names"
}

spdx
modes
columns
words
exit $failed
