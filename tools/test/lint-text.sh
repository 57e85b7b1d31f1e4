#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Check what can be checked without a compiler: part of "make lint".
#
# Usage: lint-text.sh [CHECKOUT]
#
# Checks the license line of each file, and the width of lines in documents,
# litmus tests and scripts. checkpatch checks the width of C.
set -uo pipefail

. "$(dirname "$0")/../testbed/lib.sh"
me=lint
cd "${1:-$top}" || exit 1

spdx() {
	local file

	while IFS= read -r file; do
		case $file in
		COPYING | *.gitignore) continue ;;
		esac
		[ ! -s "$file" ] ||
			head -n 3 "$file" | grep -q SPDX-License-Identifier ||
			fail "$file: no SPDX line"
	done < <(git ls-files)
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
			'*.py' '*.sh' 'Documentation/*/README'
		git grep --untracked -lIE '^#!/bin/(bash|sh|busybox)' -- ':!*.sh'
	)
}

spdx
columns
exit $failed
